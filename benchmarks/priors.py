"""An overfitted regression, with and without priors: nats of rows that neither the fit nor the choice of the
prior has seen.

    python benchmarks/priors.py [--write]

Diabetes (Efron et al. 2004): 442 patients, 10 columns, with all their squares and products 64. Each fifth of
the patients is scored once by a fit to the others, on which the prior's scale is chosen, by rows held out of
them (ten parts) or by the evidence. Differences are paired.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LassoCV, RidgeCV
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import thetahat as th

SCALES = np.geomspace(0.005, 0.5, 9)
NORMAL, LAPLACE = [th.priors.Normal(float(s)) for s in SCALES], [th.priors.Laplace(float(s)) for s in SCALES]
WAYS = {
    "Normal, by rows held out": (NORMAL, "held out"),
    "Normal, by the evidence": (NORMAL, "evidence"),
    "Laplace, by rows held out": (LAPLACE, "held out"),
    "Laplace, one standard error": (LAPLACE, "one standard error"),
}


def diabetes() -> tuple[str, pd.DataFrame]:
    """The formula, and standardised columns with all squares and products; that of sex, of two values, is sex
    again."""
    data = load_diabetes(as_frame=True)
    squares = PolynomialFeatures(2, include_bias=False)
    X = StandardScaler().fit_transform(squares.fit_transform(StandardScaler().fit_transform(data.data)))
    names = [
        name.replace(" ", "_").replace("^", "_") for name in squares.get_feature_names_out(data.feature_names)
    ]
    frame = (
        pd.DataFrame(X, columns=names)
        .drop(columns="sex_2")
        .assign(y=(data.target - data.target.mean()) / data.target.std(ddof=0))
    )
    return "y ~ " + " + ".join(frame.columns[:-1]), frame


def peers(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """scikit-learn's own choices by cross-validation of the squared error, as normal densities of their mean
    squared residual."""
    X, y = train.drop(columns="y").to_numpy(), train["y"].to_numpy()
    out = {}
    for name, model in {
        "scikit-learn RidgeCV": RidgeCV(np.geomspace(0.1, 1e4, 50)),
        "scikit-learn LassoCV": LassoCV(cv=10, max_iter=50_000),
    }.items():
        model.fit(X, y)
        variance = np.mean((y - model.predict(X)) ** 2)
        away = test["y"].to_numpy() - model.predict(test.drop(columns="y").to_numpy())
        out[name] = -0.5 * np.log(2 * np.pi * variance) - away**2 / (2 * variance)
    return out


def main() -> None:
    formula, frame = diabetes()
    linear = "y ~ age + sex + bmi + bp + s1 + s2 + s3 + s4 + s5 + s6"
    part = np.random.default_rng(0).permutation(len(frame)) % 5
    nats: dict[str, np.ndarray] = {}
    scales: dict[str, list[float]] = {name: [] for name in WAYS}
    began = time.process_time()
    for k in range(5):
        train, test = frame[part != k], frame[part == k]

        def put(name: str, values: np.ndarray, k: int = k) -> None:
            nats.setdefault(name, np.empty(len(frame)))[part == k] = values

        put("none, the 10 columns alone", th.fit(linear, train).score(test).per_observation.numpy())
        whole = th.fit(formula, train)
        put("none", whole.score(test).per_observation.numpy())
        for name, (candidates, by) in WAYS.items():
            choice = whole.choose_prior(candidates, by=by)
            scales[name].append(choice.scale)
            put(name, choice.fit.score(test).per_observation.numpy())
        for name, values in peers(train, test).items():
            put(name, values)
    n = len(frame)
    lines = [
        "| prior on the 64 coefficients | scales chosen | nats a row | more than without |",
        "|---|---|---|---|",
    ]
    for name, values in nats.items():
        more = values - nats["none"]
        own = ", ".join(f"{s:.3g}" for s in scales[name]) if name in scales else ""
        gain = "" if name == "none" else f"{more.mean():.3f} ± {more.std(ddof=1) / n**0.5:.3f}"
        lines.append(f"| {name} | {own} | {values.mean():.4f} ± {values.std(ddof=1) / n**0.5:.4f} | {gain} |")
    text = re.sub(r"-(?=\d)", "−", "\n".join(lines))
    print(text)
    print(f"{time.process_time() - began:.0f} s of one core")
    if "--write" in sys.argv:
        head = (
            "# An overfitted regression, with and without priors\n\n`python benchmarks/priors.py --write`: "
            "diabetes, 442 patients, all squares and "
            "products of the 10 columns. Each fifth of the patients was\nscored once by a fit to the others, "
            "on which the scale was chosen among "
            "nine. Nats a row, ± one standard error; differences are paired.\n\n"
        )
        (Path(__file__).parent / "results" / "priors.md").write_text(f"{head}{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
