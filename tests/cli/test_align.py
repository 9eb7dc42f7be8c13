"""`thetahat align`: from a text to a language model, from pairs to a reward, and from both to a policy
that is worth more; no line of Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from thetahat.cli import main
from thetahat.cli.systems import again

WORDS = ("so", "please", "no")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sentences of a few words, and judges who like a "please"."""
    folder = tmp_path_factory.mktemp("align")
    g = np.random.default_rng(0)

    def sentence() -> str:
        return " ".join(g.choice(WORDS, g.integers(2, 5))) + "."

    (folder / "text.txt").write_text("\n".join(sentence() for _ in range(2000)), encoding="utf-8")
    lines = []
    for i in range(300):
        one, other = sentence(), sentence()
        better = one.count("please") - other.count("please") + 0.5 * g.logistic() > 0
        lines.append(
            {
                "prompt": f"{WORDS[i % 3]} {WORDS[i // 3 % 3]} ",
                "chosen": one if better else other,
                "rejected": other if better else one,
            }
        )
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    shape = "--context 24 --layers 1 --width 32 --heads 2 --steps 150".split()
    assert main(["fit", "gpt", str(folder / "text.txt"), *shape, "--run", str(folder / "gpt")]) == 0
    words = ["--words", "3", "--prior", "1", "--save", str(folder / "reward.thetahat")]
    assert main(["fit", "reward", str(folder / "pairs.jsonl"), *words]) == 0
    return folder


def align(data, name, *more):
    words = [
        "align",
        str(data / "pairs.jsonl"),
        "--network",
        str(data / "gpt"),
        "--run",
        str(data / name),
        "--context",
        "40",
    ]
    return main([*words, *more])


def rewards(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "reward" in line]


@pytest.mark.parametrize("method", ["reinforce", "rloo", "grpo", "ppo"])
def test_answers_are_moved_towards_what_the_reward_likes(data, capsys, method):
    reward = [
        "--reward",
        str(data / "reward.thetahat"),
        "--max-new-tokens",
        "12",
        "--batch-size",
        "32",
        "--beta",
        "0.05",
    ]
    assert align(data, method, "--method", method, *reward, "--steps", "60", "--learning-rate", "0.03") == 0
    found = rewards(data / method)
    first, last = (
        {name: np.mean([line[name] for line in some]) for name in ("reward", "kl")}
        for some in (found[:3], found[-10:])
    )
    assert last["reward"] > first["reward"] + 0.1  # a line is one pass of 32 answers: one alone is noise
    assert last["kl"] > first["kl"]
    capsys.readouterr()
    draw = ["--prompt", "so ", "--max-new-tokens", "12", "-n", "200", "--json"]
    said = {}
    for name in ("gpt", method):
        assert main(["sample", str(data / name), *draw]) == 0
        said[name] = sum(text.count("please") for text in json.loads(capsys.readouterr().out)["texts"])
    assert said[method] > 1.2 * said["gpt"]
    _, _, fit = again(data / method)
    reference = fit.model.base_log_prob
    again_ = again(data / "gpt")[2].model
    batch = next(iter(again(data / "gpt")[0].other(data / "text.txt", again(data / "gpt")[1]).batches()))[:2]
    assert torch.allclose(
        reference(batch), again_.log_prob(batch), atol=1e-5
    )  # π_ref is the model that was given
    assert main(["score", str(data / method), str(data / "pairs.jsonl")]) == 2
    assert "not data for it" in capsys.readouterr().err


def test_dpo_of_a_run_of_ones_own(data, capsys):
    assert align(data, "dpo", "--steps", "80", "--learning-rate", "0.02", "--beta", "0.5") == 0
    capsys.readouterr()
    assert main(["score", str(data / "dpo"), str(data / "pairs.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] > -0.66
    assert main(["sample", str(data / "dpo"), "--prompt", "so ", "--max-new-tokens", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"][0].startswith("so ")


def test_what_cannot_be_aligned_is_refused(data, tmp_path, capsys):
    pudding = ["fit", "reward", "tests-none.csv"]
    assert main(pudding) == 3
    (tmp_path / "games.csv").write_text("winner,loser\na,b\nb,a\nb,c\nc,b\n", encoding="utf-8")
    assert (
        main(["fit", "reward", str(tmp_path / "games.csv"), "--save", str(tmp_path / "games.thetahat")]) == 0
    )
    reward = ["--reward", str(data / "reward.thetahat")]
    for more, said in [
        (["--method", "rloo"], "--reward"),
        (reward, "--reward"),
        (["--method", "rloo", "--reward", str(tmp_path / "games.thetahat")], "not a reward of words"),
        (["--method", "rloo", *reward, "--num-generations", "16"], "--num-generations 16"),
        (["--method", "rloo", *reward, "--max-new-tokens", "40"], "no room for a prompt"),
    ]:
        assert align(data, "none", *more) == 2, more
        assert said in capsys.readouterr().err
    assert not (data / "none").exists()
    words = ["align", str(data / "pairs.jsonl"), "--network", str(tmp_path), "--run", str(data / "none")]
    assert main(words) == 2
    assert "transformers" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["kto", "bco"])
def test_answers_with_labels_are_aligned_to_and_scored(data, capsys, method):
    """The pairs' answers as rows of prompt, completion and label, and the pairs themselves, are the same data."""
    pairs = [json.loads(line) for line in (data / "pairs.jsonl").read_text().splitlines()]
    rows = [
        {"prompt": p["prompt"], "completion": p[which], "label": which == "chosen"}
        for p in pairs
        if p["chosen"] != p["rejected"]
        for which in ("chosen", "rejected")
    ]
    labelled = data / "labelled.jsonl"
    labelled.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [
        "align",
        str(labelled),
        "--network",
        str(data / "gpt"),
        "--context",
        "40",
        "--method",
        method,
        "--beta",
        "1",
    ]
    extra = ["--desirable-weight", "1.5"] if method == "kto" else []
    rate = "0.003" if method == "kto" else "0.02"
    run = ["--run", str(data / method), "--steps", "60", "--learning-rate", rate]
    assert main([*words, *run, *extra]) == 0
    capsys.readouterr()
    assert main(["score", str(data / method), str(labelled), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] > -0.68  # log ½ = −0.6931 before the first step
    assert ("reference point" in found.get("note", "")) == (method == "kto")
    assert main(["score", str(data / method), str(data / "pairs.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"] == found["fingerprint"]
    assert main(["sample", str(data / method), "--prompt", "so ", "--max-new-tokens", "4"]) == 0
    assert main([*words, "--label-smoothing", "0.1", "--run", str(data / f"no-{method}")]) == 2
