"""A flow against a mixture on a real table: every row held out once, paired differences with their error.

    python benchmarks/flow.py [--groups mean error worst] [--folds 5] [--components 5] [--starts 3] [--seeds 5]

Breast cancer, Wisconsin (569 cell samples; it comes with scikit-learn): of ten features of the nuclei in an
image the mean, the standard error and the worst value, three groups of columns. Left out are the two features
with zeros (concavity, concave points), which have an atom and no density. In each fold

    mixture           normals with full covariances by EM, their number by BIC, of the rows as they are
    mixture of logs   the same of log x
    flow              affine autoregressive, of whitened log x, by 300 steps of stochastic ascent, the weights averaged
    flows             the mean of the densities of such flows from so many seeds

Each fit sees four fifths of the rows and is scored on the others, in nats of the original columns. The
settings of the flows were found on these folds (of "error" and "mean"), and are the same for all groups.
Seconds are of process time.
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
from thetahat.evaluation.score import Score, score

GROUPS = {"mean": 0, "error": 10, "worst": 20}
FEATURES = (0, 1, 2, 3, 4, 5, 8, 9)  # all but concavity and concave points
SOLVER: dict[str, Any] = {
    "steps": 300,
    "learning_rate": 0.003,
    "batch_size": 128,
    "held_out": None,
    "ema_decay": 0.98,
}


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


def flow(train: th.data.Transformed, d: int, seed: int) -> th.generative.Flow:
    model = th.generative.Flow.affine(d, hidden=(64,), transforms=5, activation="tanh", seed=seed)
    th.fit(model, train, solver=th.Stochastic(seed=seed, **SOLVER))
    return model


def contest(
    rows: np.ndarray, folds: int, most: int, starts: int, seeds: int
) -> dict[str, tuple[list[Score], list[str], float]]:
    """Of each contestant: the scores of the folds, what was chosen there, and seconds."""
    d = rows.shape[1]
    fold = np.random.default_rng(0).permutation(len(rows)) % folds
    out: dict[str, tuple[list[Score], list[str], float]] = {}
    for name, maps in (("mixture", ["standardise"]), ("mixture of logs", ["log", "standardise"])):
        scores, chosen, begun = [], [], time.process_time()
        for i in range(folds):
            train = th.data.Transformed(rows[fold != i], *maps)
            fit, k = mixture(train, d, most, starts)
            scores.append(fit.score(train.like(rows[fold == i])))
            chosen.append(k)
        out[name] = scores, chosen, time.process_time() - begun
    one, mean, seconds, begun = [], [], 0.0, time.process_time()
    for i in range(folds):
        train = th.data.Transformed(rows[fold != i], "log", "whiten")
        held_out = train.like(rows[fold == i])
        at = time.process_time()
        models = [flow(train, d, seeds * i)]
        seconds += time.process_time() - at
        models += [flow(train, d, seeds * i + k) for k in range(1, seeds)]
        one.append(score(models[0], held_out))
        mean.append(
            score(th.models.Mixture(models), held_out)
        )  # of equal weights: fitted one by one, not together
    out["flow"] = one, [], seconds
    out["flows"] = mean, [f"{seeds} seeds"], time.process_time() - begun
    return out


def joined(scores: list[Score]) -> Score:
    """The scores of all folds as one: every row was held out once."""
    return Score(
        torch.cat([s.per_observation for s in scores]),
        fingerprint="all rows, fold by fold",
        dimensions=scores[0].dimensions,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--components", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "flow.md")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = load_breast_cancer().data
    lines = [
        f"# Breast cancer, 569 rows of 8 columns, held out in {chosen.folds} folds",
        "",
        f"torch {torch.__version__}, 1 thread; nats a row, in the units of the columns; ± standard errors, "
        "of differences paired by row.",
        "",
        "| columns | model | nats a row | flow better by | z | flows better by | z | chosen | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for group in chosen.groups:
        rows = data[:, [GROUPS[group] + j for j in FEATURES]]
        found = contest(rows, chosen.folds, chosen.components, chosen.starts, chosen.seeds)
        scores = {name: joined(parts) for name, (parts, _, _) in found.items()}
        compared = th.compare(scores)
        for name, (_, choices, seconds) in found.items():
            s, cells = scores[name], []
            for other in ("flow", "flows"):
                if name in ("flow", "flows"):
                    cells += ["", ""]
                    continue
                pair = compared.pair(other, name)
                sign = 1 if pair.better == other else -1
                cells += [
                    f"{sign * pair.difference / s.n:.3f} ± {pair.standard_error / s.n:.3f}",
                    f"{sign * pair.z:.1f}",
                ]
            cells = [
                group,
                name,
                f"{s.mean:.3f} ± {s.standard_error:.3f}",
                *cells,
                ", ".join(choices),
                f"{seconds:.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    chosen.results.parent.mkdir(exist_ok=True)
    chosen.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
