"""The logic of `thetahat fit reward`: ratings of a table's items, and rewards of text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.llama import saved
from thetahat.cli.arguments import Reward
from thetahat.cli.reward import Rated
from thetahat.cli.reward import reward as rated
from thetahat.data import shipped
from thetahat.errors import BadArgument, NoMaximum
from thetahat.report.formatting import number


def reward(pairs: Path, **settings: object) -> Rated:
    return rated(Reward(pairs=pairs, **settings))  # type: ignore[arg-type]


def answers(path: Path, n: int = 120) -> Path:
    """Answers of which those with a "please", and longer ones, tend to be preferred."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(n):
        one, other = (
            ["please"] * int(rng.integers(0, 3)) + ["so"] * int(rng.integers(1, 30)) for _ in range(2)
        )
        better = (one.count("please") - other.count("please")) + 0.1 * (
            len(one) - len(other)
        ) + rng.logistic() > 0
        chosen, rejected = (one, other) if better else (other, one)
        row = {"prompt": f"Question {i // 2}", "chosen": " ".join(chosen), "rejected": " ".join(rejected)}
        lines.append(json.dumps(row))
    lines.append(json.dumps({"prompt": "Question 0", "chosen": "so", "rejected": "so"}))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_table_of_items_is_rated():
    """The shipped puddings: brand 6 first, no rank certain, and the tie parameter of PlackettLuce."""
    found = reward(shipped("pudding"))
    text = str(found)
    assert "brand 6   0.201 ± 0.127  1535 ± 22  1 (1 to 6)" in text
    assert "log_ties: -0.2919 ± 0.0825" in text
    document = found.to_dict()
    json.dumps(document, allow_nan=False)
    assert next(row["item"] for row in document["table"]) == "brand 6"


def test_an_unbeaten_item_is_named_and_rated_under_a_prior(tmp_path: Path):
    table = tmp_path / "games.csv"
    table.write_text("winner,loser,first\na,b,a\nb,c,c\nc,b,c\n", encoding="utf-8")
    with pytest.raises(NoMaximum, match="'a' never lost"):
        reward(table)
    found = reward(table, prior=1.0)
    assert "first: " in found.note
    assert next(iter(found.table.index)) == "a"


def test_answers_are_rewarded_by_words_and_length_and_judged_on_other_prompts(tmp_path: Path):
    found = reward(answers(tmp_path / "answers.jsonl"), words=2, held_out=0.25)
    assert found.judgement is not None
    assert found.judgement.low > 0.5
    assert found.table.estimate["word please"] > 0
    assert found.table.estimate["length"] > 0
    assert "left out: 1 pairs of identical answers" in found.note
    assert "prior: Normal(" in found.note
    json.dumps(found.to_dict(), allow_nan=False)
    assert "accuracy" in str(found)


def test_answers_of_one_length_say_nothing_of_length_and_the_report_says_how_good_the_reward_is(
    tmp_path: Path,
):
    """Without a prior on it, the length would be a flat direction that nobody could leave out."""
    rows = [
        {"prompt": f"q{i}", "chosen": f"good {w}", "rejected": f"bad {w}"}
        for i, w in enumerate(["a", "b", "c", "d"] * 8)
    ]
    rows += [{"prompt": f"p{i}", "chosen": "bad e", "rejected": "good e"} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = reward(tmp_path / "pairs.jsonl", prior=1.0)
    assert found.table.estimate["length"] == pytest.approx(0, abs=1e-12)
    assert found.table.standard_error["length"] == pytest.approx(1.0)  # the prior's
    assert "length: no two answers" in found.note
    page = found.fit.report(tmp_path / "reward.html").read_text(encoding="utf-8")
    assert found.judgement is not None
    assert (
        f"{number(found.judgement.accuracy)} ({number(found.judgement.low)} to "
        f"{number(found.judgement.high)})" in page
    )


def test_a_language_model_gives_features(tmp_path: Path):
    """A random Llama of sixteen numbers: its features, and the length, from a folder as transformers saves
    it."""
    saved(tmp_path / "llama", "so please Question", 270)
    found = reward(answers(tmp_path / "answers.jsonl", 60), network=tmp_path / "llama", context=32, prior=0.1)
    assert sorted(found.table.index) == sorted([*(f"h{i}" for i in range(16)), "length"])
    assert "that do not fit in 32 tokens" in found.note


def test_what_cannot_be_rewarded_is_refused(tmp_path: Path):
    with pytest.raises(BadArgument, match="table of items"):
        reward(shipped("pudding"), network=tmp_path)
    with pytest.raises(BadArgument, match="not a folder of a language model"):
        reward(answers(tmp_path / "answers.jsonl", 20), network=tmp_path / "none")
