"""A flow against a mixture on a real table: every row held out once, paired differences with their error.

    python benchmarks/flow.py [--groups mean error worst] [--folds 5] [--components 5] [--starts 3]

Breast cancer, Wisconsin (569 cell samples; it comes with scikit-learn): of ten features of the nuclei in an image the mean, the standard error
and the worst value, three groups of columns. Left out are the two features with zeros (concavity, concave points), which have an atom and no
density. In each fold

    mixture           normals with full covariances by EM, their number by BIC, of the rows as they are
    mixture of logs   the same of log x
    flow              affine autoregressive, of whitened log x, by 150 steps of stochastic ascent, the weights averaged

Each fit sees four fifths of the rows and is scored on the others, in nats of the original columns. The settings of the flow were found on the
group "error", on these folds, and are the same for all groups. Seconds are of process time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer

import thetahat as th
from thetahat.evaluation.score import Score

GROUPS = {"mean": 0, "error": 10, "worst": 20}
FEATURES = (0, 1, 2, 3, 4, 5, 8, 9)  # all but concavity and concave points
SOLVER: dict[str, Any] = {"steps": 150, "learning_rate": 0.003, "batch_size": 128, "held_out": None, "average": 0.98}


def mixture(train: th.data.Transformed, d: int, most: int, starts: int) -> tuple[Any, str]:
    """The mixture with the lowest BIC of those that have a maximum, and its number of components."""
    found = []
    for k in range(1, most + 1):
        model = th.models.Mixture(th.families.MultivariateNormal(d), k)
        fit = th.fit(model, train, solver=th.EM(starts=starts), on_failure="return")
        if fit.certificate.ok:
            found.append((fit.criteria["BIC"], k, fit))
    _, k, fit = min(found, key=lambda each: each[0])
    return fit, str(k)


def flow(train: th.data.Transformed, d: int, seed: int) -> tuple[Any, str]:
    model = th.models.Flow.affine(d, hidden=(64,), transforms=5, activation="tanh", seed=seed)
    fit = th.fit(model, train, solver=th.Stochastic(seed=seed, **SOLVER))
    return fit, str(fit.trace[-1][0])


def contest(rows: np.ndarray, folds: int, most: int, starts: int) -> dict[str, tuple[list[Score], list[str], float]]:
    """Scores of each fold, what was chosen there, and seconds."""
    d = rows.shape[1]
    fold = np.random.default_rng(0).permutation(len(rows)) % folds
    contestants = {
        "mixture": (["standardise"], lambda t, i: mixture(t, d, most, starts)),
        "mixture of logs": (["log", "standardise"], lambda t, i: mixture(t, d, most, starts)),
        "flow": (["log", "whiten"], lambda t, i: flow(t, d, i)),
    }
    out: dict[str, tuple[list[Score], list[str], float]] = {}
    for name, (maps, make) in contestants.items():
        scores, chosen, begun = [], [], time.process_time()
        for i in range(folds):
            train = th.data.Transformed(rows[fold != i], *maps)
            fit, choice = make(train, i)
            scores.append(fit.score(train.like(rows[fold == i])))
            chosen.append(choice)
        out[name] = scores, chosen, time.process_time() - begun
    return out


def joined(scores: list[Score]) -> Score:
    """The scores of all folds as one: every row was held out once."""
    return Score(
        torch.cat([s.per_observation for s in scores]), fingerprint="all rows, fold by fold", dimensions=scores[0].dimensions
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "flow.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = load_breast_cancer().data
    lines = [
        f"# Breast cancer, 569 rows of 8 columns, held out in {chosen.folds} folds",
        "",
        f"torch {torch.__version__}, 1 thread; nats a row, in the units of the columns; ± standard errors, of differences paired by row.",
        "",
        "| columns | model | nats a row | flow better by, nats a row | z | components, or steps, of each fold | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in chosen.groups:
        rows = data[:, [GROUPS[group] + j for j in FEATURES]]
        found = contest(rows, chosen.folds, chosen.components, chosen.starts)
        scores = {name: joined(parts) for name, (parts, _, _) in found.items()}
        compared = th.compare(scores)
        for name, (_, choices, seconds) in found.items():
            s, paired = scores[name], "| |"
            if name != "flow":
                pair = compared.pair("flow", name)
                sign = 1 if pair.better == "flow" else -1
                paired = f"| {sign * pair.difference / s.n:.3f} ± {pair.standard_error / s.n:.3f} | {sign * pair.z:.1f}"
            lines.append(
                f"| {group} | {name} | {s.mean:.3f} ± {s.standard_error:.3f} {paired} | {', '.join(choices)} | {seconds:.0f} |"
            )
            print(lines[-1], flush=True)
    table = "\n".join(lines) + "\n"
    chosen.results.parent.mkdir(exist_ok=True)
    chosen.results.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
