"""kill −9 at random moments of every system that keeps a checkpoint; each run, gone on with, is the run that
was never killed, bit for bit.

    python benchmarks/killed.py [KILLS [SYSTEM …]]          20 kills of each: some minutes

A kill comes at a random step, or while a checkpoint is written: in a process of its own, which ends as the
system ends it. What is compared: every parameter of the saved fit, the trace, and the metrics of each step.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

import thetahat as th
from thetahat.cli import main
from thetahat.io import runs
from thetahat.solvers import Stochastic

STEPS = 24
LENGTHS = {
    "ppo": "--total-timesteps 192",
    "a2c": "--total-timesteps 768",
    "reinforce": f"--passes {STEPS}",
}  # as many steps
SYSTEMS = {
    "gpt": "gpt {d}/text.txt --context 32 --layers 1 --width 16 --heads 2",
    "classifier": "classifier {d}/digits.npy {d}/labels.npy --levels 17 --channels 4 8",
    "vae": "vae {d}/digits.npy --levels 17 --width 16 --latent 2",
    "flow": "flow {d}/rows.csv --transforms 1 --width 8",
    "diffusion": "diffusion {d}/digits.npy --levels 17 --channels 4",
    "dpo": "align {d}/pairs.jsonl --network {d}/gpt --context 48",
    "rloo": "align {d}/pairs.jsonl --network {d}/gpt --context 32 --method rloo --reward {d}/r.thetahat --max-new-tokens 6 --num-generations 2",
    "grpo": "align {d}/pairs.jsonl --network {d}/gpt --context 32 --method grpo --reward {d}/r.thetahat --max-new-tokens 6 --num-generations 2",
    "ppo": "policy --env CartPole-v1 --num-envs 4 --num-steps 8 --epochs 2 --batch-size 16 --width 8 --eval-episodes 2",
    "a2c": "policy --env CartPole-v1 --method a2c --num-envs 4 --num-steps 8 --width 8 --eval-episodes 2",
    "reinforce": "policy --env CartPole-v1 --method reinforce --num-envs 2 --width 8 --eval-episodes 2",
}


def data(folder: Path) -> None:
    digits = load_digits()
    np.save(folder / "digits.npy", digits.images[:200].astype("uint8"))
    np.save(folder / "labels.npy", digits.target[:200])
    lines = [f"line {i}, whose square is {i * i}" for i in range(60)]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    x = np.random.default_rng(0).normal(3, 2, (120, 2))
    (folder / "rows.csv").write_text("a,b\n" + "\n".join(f"{a},{a + b}" for a, b in x), encoding="utf-8")
    pairs = [
        {"prompt": f"line {i}", "chosen": f"square is {i}", "rejected": "line " * (1 + i % 6)}
        for i in range(20)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    command(
        f"gpt {folder}/text.txt --context 48 --layers 1 --width 16 --heads 2 --steps 3 --run {folder}/gpt"
    )
    command(f"reward {folder}/pairs.jsonl --words 3 --save {folder}/r.thetahat")


def command(words: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["fit", *words.split(), "--seed", "3"])
    if code:
        raise RuntimeError(f"exit code {code}: {said.getvalue()[-2000:]}")


def killed(words: str, at: int, writing: bool) -> None:
    """The command in a process that kills itself after so many steps, or within the checkpoint that it writes
    then."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise RuntimeError(f"exit code {os.WEXITSTATUS(status)}: thetahat fit {words}")
        return
    try:
        _die(at, writing)
        command(words)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def _die(at: int, writing: bool) -> None:
    step = Stochastic.advance

    def stepped(self: Any, objective: Any, state: Any) -> Any:
        if state.step >= at and writing:
            os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        after = step(self, objective, state)
        if after.step >= at and not writing:
            os.kill(os.getpid(), signal.SIGKILL)
        return after

    Stochastic.advance = stepped  # type: ignore[method-assign]


def numbers(folder: Path) -> list[dict[str, Any]]:
    return [
        {name: v for name, v in line.items() if "second" not in name and name != "data_wait"}
        for line in runs.metrics(folder)
    ]


def compared(name: str, folder: Path, kills: int, rng: random.Random) -> dict[str, bool]:
    """Whether a run that was killed so many times ended as one that was not."""
    words = SYSTEMS[name].format(d=folder) + " " + LENGTHS.get(name, f"--steps {STEPS}")
    whole, other = folder / f"{name}-whole", folder / f"{name}-killed"
    command(f"{words} --run {whole}")
    shutil.rmtree(other, ignore_errors=True)
    for _ in range(kills):
        reached = max((line["step"] for line in runs.metrics(other)), default=0)
        if reached >= STEPS:
            shutil.rmtree(other)
            reached = 0
        resume = " --resume" if (other / runs.CONFIG).exists() else ""
        killed(f"{words} --run {other}{resume}", rng.randrange(reached, STEPS), rng.random() < 0.3)
    command(f"{words} --run {other} --resume")
    a, b = th.load(whole), th.load(other)
    return {
        "theta": torch.equal(a.theta, b.theta),
        "trace": repr(a.trace) == repr(b.trace),
        "metrics": numbers(whole) == numbers(other),
    }


def all_of(names: list[str], kills: int, say: Callable[[str], None] = print) -> dict[str, dict[str, bool]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data(Path(folder))
        found = {}
        for name in names:
            found[name] = compared(name, Path(folder), kills, random.Random(len(name)))
            say(
                f"{name:<12} {kills} kills: "
                + ", ".join(f"{what} {'the same' if ok else 'DIFFERENT'}" for what, ok in found[name].items())
            )
    return found


if __name__ == "__main__":
    asked = sys.argv[2:] or list(SYSTEMS)
    result = all_of(asked, int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    sys.exit(0 if all(all(each.values()) for each in result.values()) else 1)
