"""Has this tree become slower? CPU seconds of six works beside those of the last tag, measured in the same run.

    python benchmarks/regression.py [--base REVISION] [--only WORK …] [--limit 1.2]        or: make regression

The base is checked out beside this tree (git worktree): the last tag; where there is none, the first parent of main. Its
compiled sums are built where they differ from this tree's. One process a tree, of one thread, stays; they take turns,
work by work, in an order that turns round each time. A work has become slower where both

    min ours / min base > limit        and        median of (ours / base of the same turn) > limit

after it was repeated up to three times, the turns put together: noise makes one of the two large, and seldom for long.
A work that the base cannot do is named and not compared; one that this tree cannot do is a failure. Seconds are of CPU,
which other processes make longer, but of both. Exit status: 1 where a work became slower or failed, else 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from machine import busy, load, machine

ROOT = Path(__file__).resolve().parents[1]
LIMIT, ATTEMPTS = 1.2, 3
LIMITS: dict[
    str, float
] = {}  # work → a higher one until the next tag, where it became slower for a reason: say which
TURNS = {"policy": 3}  # in an attempt; of the others
MOST = 7
CALLS = {"small logistic": 10, "mixed": 3}  # in a turn: one is too short to be measured


# ---- the works, in the process of a tree: each makes its data and returns the call that is timed -----------


def _table(n: int, p: int) -> tuple[dict[str, np.ndarray], str]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    eta = X @ rng.normal(size=p) / np.sqrt(p) - 0.5
    columns = {f"x{j}": X[:, j] for j in range(p)}
    y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    return columns | {"y": y}, "y ~ " + " + ".join(columns)


def logistic(n: int = 100_000, p: int = 20) -> Callable[[], Any]:
    import pandas as pd

    import thetahat as th

    columns, formula = _table(n, p)
    frame = pd.DataFrame(columns)
    return lambda: th.fit(formula, frame, "bernoulli").standard_errors()


def small() -> Callable[[], Any]:
    import pandas as pd

    import thetahat as th

    columns, formula = _table(1000, 5)
    frame = pd.DataFrame(columns)
    return lambda: str(th.fit(formula, frame, "bernoulli").summary())


def claims() -> Callable[[], Any]:
    import thetahat as th
    from works import claims

    data = claims(50_000)
    return lambda: th.fit(data.formula, data.frame, "poisson").standard_errors()


def mixed() -> Callable[[], Any]:
    import pandas as pd

    import thetahat as th

    frame = pd.read_csv(ROOT / "tests" / "evaluation" / "tables" / "sleepstudy.csv")
    return lambda: th.fit("Reaction ~ Days + (Days | Subject)", frame).standard_errors()


def hmm(n: int = 3000) -> Callable[[], Any]:
    import thetahat as th

    rng = np.random.default_rng(3)
    state = (np.cumsum(rng.random(n) < 0.05) % 3).astype(int)
    y = np.array([-1.0, 0.5, 2.0])[state] + 0.6 * rng.normal(size=n)
    return lambda: th.fit(th.models.HMM(3, "normal"), {"y": y})


def policy(steps: int = 20_000, copies: int = 16, length: int = 32, epochs: int = 10) -> Callable[[], Any]:
    import thetahat as th

    def run() -> None:
        chooses = th.rl.Policy(th.networks.mlp(4, (64, 64), 2, "tanh", seed=0))
        expects = th.rl.Value(th.networks.mlp(4, (64, 64), 1, "tanh", seed=1))
        rollouts = th.rl.Rollouts(
            "CartPole-v1", copies, num_steps=length, advantage=th.rl.GAE(expects, 0.99, 1.0, normalise=True),
            epochs=epochs, batch_size=256, seed=0,
        )  # fmt: skip
        objective = th.LogLikelihood(chooses, rollouts, th.rl.Clipped(0.2)) + th.LogLikelihood(
            expects, rollouts
        )
        passes = steps // (copies * length)
        many = epochs * (copies * length // 256) * passes
        solver = th.Stochastic(steps=many, learning_rate=1e-2, max_grad_norm=0.5, in_place=True)
        state = solver.start(objective)
        for _ in range(many):
            state = solver.step(objective, state)

    return run


WORKS: dict[str, Callable[[], Callable[[], Any]]] = {
    "small logistic": small,
    "logistic": logistic,
    "claims": claims,
    "mixed": mixed,
    "hmm": hmm,
    "policy": policy,
}


def child() -> None:
    """Asked a work's name, a line of standard input each: CPU seconds of so many calls, or the error, as a line of JSON."""
    # an editable install looks its own package up before PYTHONPATH is asked
    sys.meta_path[:] = [each for each in sys.meta_path if not type(each).__module__.startswith("_editable_")]
    import warnings

    import torch

    import thetahat

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    calls: dict[str, Callable[[], Any]] = {}
    print(json.dumps({"library": str(Path(thetahat.__file__).resolve())}), flush=True)
    for line in sys.stdin:
        name = line.strip()
        try:
            if name not in calls:
                calls[name] = WORKS[name]()
                calls[name]()  # loads what it needs
            start = time.process_time()
            for _ in range(CALLS.get(name, 1)):
                calls[name]()
            answer: dict[str, Any] = {"seconds": time.process_time() - start}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(answer), flush=True)


# ---- the two trees -----------------------------------------------------------------------------------------


def git(*words: str) -> str:
    """What it prints; "": it failed."""
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def base_revision() -> str:
    """The last tag before this tree; where there is none, the first parent of main, or of what is checked out."""
    found = git("describe", "--tags", "--abbrev=0")
    for name in ("main^1", "HEAD^1"):
        found = found or git("rev-parse", "--verify", "--quiet", name)
    return found


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A tree of that revision, for as long."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base"
        added = ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(tree), revision]
        subprocess.run(added, check=True)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def compiled(tree: Path, revision: str) -> bool:
    """Give the tree its compiled sums; False: it should have some, or this tree has none, so that neither is to use them."""
    ours = sorted((ROOT / "src" / "thetahat" / "kernels").glob("products.*"))
    if not (tree / "native").is_dir():
        return True  # of before there were any
    if not ours:
        return False
    if git("diff", "--stat", revision, "--", "native") == "":
        shutil.copy(ours[0], tree / "src" / "thetahat" / "kernels")
        return True
    with tempfile.TemporaryDirectory() as build:
        configure = ["cmake", "-S", str(tree / "native"), "-B", build, "-DSKBUILD_STATE=editable"]
        try:
            for step in (configure, ["cmake", "--build", build]):
                subprocess.run(step, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return False
    return any((tree / "src" / "thetahat" / "kernels").glob("products.*"))


class Tree:
    """The process that runs the works with the library of a tree."""

    def __init__(self, tree: Path, use_compiled: bool):
        environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        if not use_compiled:
            environment["THETAHAT_COMPILED"] = "0"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--child"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment,
        )  # fmt: skip
        found = Path(self._answer()["library"])
        if not found.is_relative_to(tree.resolve()):
            raise RuntimeError(f"the library of {tree} was to be measured, and {found} was loaded.")

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def __call__(self, work: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(work + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process ended"}
        return self._answer()

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Turns:
    """CPU seconds of a work, ours and the base's, a pair a turn."""

    ours: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    error: str = ""
    fails: bool = False

    @property
    def ratios(self) -> tuple[float, float]:
        """Of the minima; the median of those of the turns."""
        pairs = zip(self.ours, self.base, strict=True)
        return min(self.ours) / min(self.base), median(a / b for a, b in pairs)

    def slower(self, limit: float) -> bool:
        return self.fails or (bool(self.ours) and min(self.ratios) > limit)

    def take(self, work: str, ours: Callable[[str], dict], base: Callable[[str], dict], turns: int) -> None:
        """So many turns more."""
        for turn in range(turns):
            answers = {}
            for tree in ("ours", "base") if turn % 2 == 0 else ("base", "ours"):
                answers[tree] = (ours if tree == "ours" else base)(work)
            for tree, answer in answers.items():
                if "error" in answer:
                    self.error, self.fails = f"{tree}: {answer['error']}", tree == "ours"
            if self.error:
                return
            self.ours.append(answers["ours"]["seconds"])
            self.base.append(answers["base"]["seconds"])


def compared(
    works: list[str], ours: Callable[[str], dict], base: Callable[[str], dict], limits: dict[str, float]
) -> dict[str, Turns]:
    """Each work, again where it seems to have become slower."""
    found = {work: Turns() for work in works}
    for attempt in range(ATTEMPTS):
        for work in works:
            if attempt == 0 or (found[work].slower(limits[work]) and not found[work].fails):
                found[work].take(work, ours, base, TURNS.get(work, MOST))
    return found


def page(found: dict[str, Turns], limits: dict[str, float]) -> str:
    lines = [
        "| work | ours, CPU s | base, CPU s | of the minima | median of turns | turns | |",
        "|---|---|---|---|---|---|---|",
    ]
    for work, turns in found.items():
        if turns.error:
            said = "FAILED" if turns.fails else "not compared"
            lines.append(f"| {work} | | | | | | {said}: {turns.error} |")
            continue
        a, b = turns.ratios
        said = f"SLOWER than {limits[work]:g} times" if turns.slower(limits[work]) else ""
        calls = CALLS.get(work, 1)
        mine, theirs = min(turns.ours) / calls, min(turns.base) / calls
        lines.append(
            f"| {work} | {mine:.4f} | {theirs:.4f} | {a:.2f} | {b:.2f} | {len(turns.ours)} | {said} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", help="a revision, if not the last tag")
    parser.add_argument("--only", nargs="+", choices=list(WORKS), default=list(WORKS), metavar="WORK")
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return 0
    revision = options.base or base_revision()
    if not revision:
        print("Nothing is compared: this checkout has neither a tag nor an earlier commit.")
        return 0
    print(f"This tree beside {revision}. {machine()} {load(busy())}", flush=True)
    limits = dict.fromkeys(options.only, options.limit) | LIMITS
    with ExitStack() as stack:
        try:
            tree = stack.enter_context(checkout(revision))
        except subprocess.CalledProcessError as error:
            print(f"Nothing is compared: {error}")
            return 0
        both = compiled(tree, revision)
        if not both:
            print("Without compiled sums, both: those of one of the trees are not there and cannot be built.")
        ours, base = (stack.enter_context(Tree(each, both)) for each in (ROOT, tree))
        found = compared(options.only, ours, base, limits)
    print(page(found, limits))
    return int(any(turns.slower(limits[work]) for work, turns in found.items()))


if __name__ == "__main__":
    sys.exit(main())
