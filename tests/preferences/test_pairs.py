"""Pairs of answers: read, checked, split by prompt, and as token ids."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from thetahat.errors import (
    BadArgument,
    DataError,
    EmptyData,
    MalformedFile,
    NotFinite,
    UnknownColumn,
    UnknownLevel,
    WrongType,
)
from thetahat.language import Bytes, Characters
from thetahat.preferences import Pairs, TokenPairs, Words

TALK = "\n\nHuman: Two and two?\n\nAssistant: Four.\n\nHuman: Sure?\n\nAssistant:"
ROW = {"prompt": "2+2=", "chosen": "4", "rejected": "five"}


def written(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_the_prompt_of_two_dialogues_is_what_they_share_up_to_the_last_answer(tmp_path: Path) -> None:
    """As Anthropic's hh-rlhf is read: answers that begin alike keep their beginnings."""
    file = written(
        tmp_path / "hh.jsonl.gz", {"chosen": TALK + " Yes, quite.", "rejected": TALK + " Yes, no."}
    )
    pair = Pairs(file)[0]
    assert (pair.prompt, pair.chosen, pair.rejected) == (TALK, " Yes, quite.", " Yes, no.")
    assert (pair.where, pair.margin, pair.tie) == ("hh.jsonl.gz, line 1", None, None)


def test_dialogues_that_part_earlier_are_parted_there() -> None:
    a, b = TALK + " Yes.", TALK.replace("Four", "Five") + " Yes."
    pair = Pairs([{"chosen": a, "rejected": b}])[0]
    assert pair.prompt == "\n\nHuman: Two and two?\n\nAssistant:"
    assert pair.prompt + pair.chosen == a
    assert pair.prompt + pair.rejected == b


def test_pairs_that_cannot_be_used_name_their_line_and_field(tmp_path: Path) -> None:
    def refused(kind: type[Exception], match: str, *lines: object) -> None:
        with pytest.raises(kind, match=match):
            Pairs(written(tmp_path / "p.jsonl", *lines))

    refused(UnknownColumn, "p.jsonl, line 2 lacks the field 'rejected'. It has: chosen", ROW, {"chosen": "a"})
    refused(
        DataError,
        "identical in 2 of 3 pairs: p.jsonl, line 2; p.jsonl, line 3",
        ROW,
        *[ROW | {"rejected": "4"}] * 2,
    )
    refused(MalformedFile, "line 1 is no JSON", "{")
    refused(MalformedFile, "line 1 holds a list", "[1]")
    refused(WrongType, "line 1: chosen is a int, '4'", ROW | {"chosen": 4})
    refused(WrongType, "line 1: prompt, chosen and rejected are all text", ROW | {"chosen": [4]})
    refused(WrongType, "tie is 'yes'", ROW | {"tie": "yes"})
    refused(WrongType, "margin is true|margin is True", ROW | {"margin": True})
    refused(NotFinite, "line 1: margin is nan", ROW | {"margin": float("nan")})
    refused(DataError, "share no prompt", {"chosen": "a", "rejected": "b"})
    refused(UnknownColumn, "token ids and lacks the field 'prompt'", {"chosen": [1, 2], "rejected": [1, 3]})
    refused(EmptyData, "no pairs", "")
    with pytest.raises(MalformedFile, match="not a file"):
        Pairs(tmp_path / "none.jsonl")
    cut = written(tmp_path / "cut.jsonl.gz", *[ROW] * 99)
    cut.write_bytes(cut.read_bytes()[:-12])
    with pytest.raises(MalformedFile, match=r"cut\.jsonl\.gz cannot be read to its end"):
        Pairs(cut)
    with pytest.raises(BadArgument, match="identical="):
        Pairs([ROW], identical="keep")


def test_identical_pairs_are_dropped_when_asked_and_said(tmp_path: Path) -> None:
    pairs = Pairs([ROW, ROW | {"rejected": "4"}, ROW | {"prompt": "3+1="}], identical="drop")
    assert (len(pairs), pairs.dropped) == (2, ["row 1"])
    with pytest.raises(EmptyData, match="is of identical answers"):
        Pairs([ROW | {"rejected": "4"}], identical="drop")


def test_a_split_keeps_the_pairs_of_a_prompt_together() -> None:
    pairs = Pairs([{"prompt": f"{i % 7}", "chosen": "a", "rejected": "b" * (i + 1)} for i in range(40)])
    left, aside = pairs.split(0.3, seed=3)
    assert len(left) + len(aside) == 40
    assert aside.groups == 2
    assert not {p.prompt for p in left} & {p.prompt for p in aside}
    with pytest.raises(BadArgument, match="holds out 0"):
        pairs.split(0.01)


def test_an_opening_is_shared_by_the_dialogues_of_a_conversation() -> None:
    short = "\n\nHuman: Two and two?\n\nAssistant:"
    rows = [{"chosen": t + " a", "rejected": t + " b"} for t in (TALK, short)]
    assert Pairs(rows).group == [0, 1]
    assert Pairs(rows, by="opening").group == [0, 0]


def test_token_pairs_score_the_answers_and_their_ends_alone() -> None:
    """Prompt 'ab', answers 'c' and 'de', each closed by 256; the masks hold what is left of the row after the
    prompt and before the padding."""
    source = TokenPairs([{"prompt": "ab", "chosen": "c", "rejected": "de"}], Bytes(), context=8)
    batch = next(source.batches())
    assert batch["chosen"].tolist() == [[97, 98, 99, 256, 256]]
    assert batch["chosen_mask"].tolist() == [[False, False, True, True, False]]
    assert batch["rejected"].tolist() == [[97, 98, 100, 101, 256]]
    assert batch["rejected_mask"].tolist() == [[False, False, True, True, True]]
    assert (batch["chosen_length"].item(), batch["rejected_length"].item()) == (4, 5)
    assert "margin" not in batch
    assert "tie" not in batch


def test_the_group_of_a_token_pair_is_its_prompt() -> None:
    rows = [ROW | {"prompt": p, "margin": 1.0, "tie": False} for p in "aba"]
    source = TokenPairs(rows, Bytes())
    assert source.whole.group.tolist() == [0, 1, 0]
    assert source.whole["margin"].tolist() == [1.0, 1.0, 1.0]
    assert not source.whole["tie"].any()


def test_the_fingerprint_knows_the_ids_and_not_the_padding() -> None:
    rows = [ROW, ROW | {"prompt": "a"}]
    one, other = TokenPairs(rows, Bytes()), TokenPairs([*rows, ROW | {"prompt": "long" * 9}], Bytes())
    assert one.whole["chosen"].shape != other.whole["chosen"].shape
    other.whole = other.whole[:2]
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != TokenPairs([rows[1], rows[0]], Bytes()).fingerprint
    moved = TokenPairs([ROW | {"prompt": "2+2", "chosen": "=4", "rejected": "=five"}, rows[1]], Bytes())
    assert moved.whole["chosen"].tolist() == one.whole["chosen"].tolist()
    assert moved.fingerprint != one.fingerprint


def test_ids_need_no_tokenizer_and_are_closed_by_what_they_hold() -> None:
    source = TokenPairs([{"prompt": [5, 6], "chosen": [7, 1], "rejected": [8, 9, 1]}])
    assert source.whole["chosen"].tolist() == [[5, 6, 7, 1, 0]]
    assert source.whole["chosen_mask"].tolist() == [[False, False, True, True, False]]
    with pytest.raises(UnknownLevel, match="the token 300"):
        TokenPairs([{"prompt": [5], "chosen": [300], "rejected": [8]}], Bytes())
    with pytest.raises(BadArgument, match="row 0 holds text"):
        TokenPairs([ROW])


def test_a_prompt_without_text_is_the_end_token() -> None:
    """As at the beginning of a document of `Tokens`; a tokenizer without an end cannot say it."""
    assert TokenPairs([ROW | {"prompt": ""}], Bytes()).whole["chosen"][0, :2].tolist() == [256, 52]
    with pytest.raises(DataError, match="prompt has no token"):
        TokenPairs([ROW | {"prompt": ""}], Characters("4five"))


def test_a_pair_longer_than_the_context_is_refused_by_name_dropped_or_cut() -> None:
    rows = [ROW, ROW | {"prompt": "0123456789"}, ROW | {"prompt": "x", "rejected": "y" * 20}]
    with pytest.raises(DataError, match="row 1 does not fit in context=9 tokens: the prompt alone has 10"):
        TokenPairs(rows, Bytes(), 9)
    with pytest.raises(
        DataError, match="row 2 does not fit in context=15 tokens: the prompt has 1, the answer 21"
    ):
        TokenPairs(rows, Bytes(), 15)
    dropped = TokenPairs(rows, Bytes(), 9, overlong="drop")
    assert (dropped.size, dropped.dropped) == (1, ["row 1", "row 2"])
    cut = TokenPairs(rows, Bytes(), 9, overlong="cut")
    assert (cut.size, cut.dropped) == (2, ["row 2"])
    assert bytes(cut.whole["chosen"][1, :4].tolist()) == b"6789", "the prompt loses its beginning"
    assert torch.equal(cut.whole["chosen"][1, :4], cut.whole["rejected"][1, :4]), "for both answers alike"
    with pytest.raises(EmptyData, match="none of the 3"):
        TokenPairs(rows, Bytes(), 2, overlong="cut")


# ---- features of text --------------------------------------------------------------------------------------


def test_words_are_counted_whatever_their_case_and_length_is_in_hundreds() -> None:
    words = Words(["i'm", "sorry", "?"])
    found = words(["I’m sorry, I'M not", "Why? What? " + "so " * 98])
    assert words.names == ["word i'm", "word sorry", "word ?", "length"]
    np.testing.assert_allclose(found, [[np.log(3), np.log(2), 0, 0.04], [0, 0, np.log(3), 1.0]])


def test_the_frequent_words_are_those_that_the_most_answers_have() -> None:
    pairs = Pairs(
        [ROW | {"chosen": "yes yes yes", "rejected": "no thanks"}, ROW | {"chosen": "no", "rejected": "no!"}]
    )
    assert Words.of(pairs, 2).words[0] == "no"
    with pytest.raises(EmptyData, match="no words"):
        Words.of(["1 2", "..."])
    with pytest.raises(BadArgument, match="twice"):
        Words(["a", "a"])


def test_pairs_described_by_features_keep_their_prompts_ties_and_margins() -> None:
    rows = [ROW | {"chosen": "yes", "prompt": p, "tie": p == "b", "margin": 0.5} for p in "aba"]
    described = Pairs(rows).described(Words(["yes"]))
    assert described.features == ["word yes", "length"]
    assert described.whole.group.tolist() == [0, 1, 0]
    assert described.whole["tie"].tolist() == [False, True, False]
    assert described.whole["margin"].tolist() == [0.5] * 3
    np.testing.assert_allclose(described.whole["winner"][0], [np.log(2), 0.01])
    lengths = Pairs(rows).described(lambda texts: [[len(text)] for text in texts], names=["characters"])
    assert lengths.whole["loser"].tolist() == [[4.0]] * 3
    with pytest.raises(WrongType, match="row 0 holds token ids"):
        Pairs([{"prompt": [1], "chosen": [2], "rejected": [3]}]).described(Words(["a"]))
