"""The reading lists of CONTRIBUTING.md are true: at most fifteen files each, all of them on the way of a run of their kind."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import thetahat as th
from thetahat.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LISTS = {
    name: re.findall(r"^\d+\. `([\w/]+\.py)`", part, re.M)
    for name, part in re.findall(r"^\*\*(.+?)\*\*: `.*?\n(.*?)(?=^\*\*|^## )", TEXT, re.M | re.S)
}


def visited(run: Callable[[], object]) -> set[str]:
    """The library's files of which a function is called."""
    seen: set[str] = set()

    def watch(frame, event, _):  # type: ignore[no-untyped-def]
        if event == "call" and "/thetahat/" in frame.f_code.co_filename:
            seen.add(frame.f_code.co_filename.rpartition("/src/thetahat/")[2])

    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    return seen


def formula(folder: Path) -> None:
    data = {"y": [0, 1, 2, 4, 5, 3], "x": [0.0, 1.0, 2.0, 3.0, 4.0, 2.5]}
    str(th.fit("y ~ x", data, "poisson").summary())


def gpt(folder: Path) -> None:
    tokens = th.language.Tokens(["so it goes. " * 20] * 8, "characters", context=8)
    network = th.networks.Transformer(tokens.vocabulary, layers=1, width=8, heads=2)
    fit = th.fit(th.language.Autoregressive(network), tokens, solver=th.Stochastic(steps=2, batch_size=4))
    fit.score(tokens)


def policy(folder: Path) -> None:
    small = "--num-envs 2 --num-steps 4 --total-timesteps 16 --eval-episodes 1 --width 8"
    assert main(["fit", "policy", *small.split(), "--run", str(folder / "run")]) == 0


def grpo(folder: Path) -> None:
    (folder / "text.txt").write_text("so please no. " * 200, encoding="utf-8")
    answers = ["please", "no", "so please", "no so no"]
    drawn = [(i % 5, i % 4, (i + 1 + i % 3) % 4) for i in range(40)]
    pairs = [
        {"prompt": "so " * (1 + k), "chosen": answers[a], "rejected": answers[b]}
        for k, a, b in drawn
        if a != b
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    shape = "--context 16 --layers 1 --width 8 --heads 2 --steps 2"
    assert main(["fit", "gpt", str(folder / "text.txt"), *shape.split(), "--run", str(folder / "gpt")]) == 0
    reward = ["--words", "2", "--prior", "1", "--save", str(folder / "r.thetahat")]
    assert main(["fit", "reward", str(folder / "pairs.jsonl"), *reward]) == 0
    own = f"--network {folder}/gpt --method grpo --reward {folder}/r.thetahat --context 16 --max-new-tokens 4 --steps 4"
    assert main(["align", str(folder / "pairs.jsonl"), *own.split(), "--run", str(folder / "run")]) == 0


RUNS = {
    "A formula to its summary": formula,
    "A GPT to its held-out score": gpt,
    "A policy": policy,
    "RLHF": grpo,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_journey_is_at_most_fifteen_files_and_passes_each(name: str, tmp_path: Path) -> None:
    files = LISTS[name]
    assert 5 < len(files) <= 15
    assert [f for f in files if not (ROOT / "src" / "thetahat" / f).exists()] == []
    assert set(files) - visited(lambda: RUNS[name](tmp_path)) == set()
