"""Profile-likelihood intervals of every parameter of a logistic regression, n = 1,000, p = 50, against a
refit-per-step loop around statsmodels.

The peer: for each coefficient and side, bracket and bisect (Brent) the profile deviance, refitting with the
coefficient as an offset at each step, warm-started. `python benchmarks/profiles.py`
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy.optimize import brentq
from scipy.stats import chi2, norm

import thetahat as th

BAR = 1 / 5


def peer(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    Z = sm.add_constant(X)
    full = sm.GLM(y, Z, family=sm.families.Binomial()).fit()
    out = np.empty((Z.shape[1], 2))
    for j in range(Z.shape[1]):
        rest = np.delete(Z, j, axis=1)
        warm = np.delete(full.params, j)

        def excess(value: float, j: int = j, rest: np.ndarray = rest, warm: np.ndarray = warm) -> float:
            fit = sm.GLM(y, rest, family=sm.families.Binomial(), offset=Z[:, j] * value).fit(
                start_params=warm
            )
            return 2 * (full.llf - fit.llf) - chi2.ppf(0.95, 1)

        step = norm.ppf(0.975) * full.bse[j]
        for side, sign in enumerate((-1, 1)):
            far = full.params[j] + sign * 1.2 * step
            while excess(far) < 0:
                far += sign * 0.3 * step
            out[j, side] = brentq(excess, full.params[j] + sign * 0.5 * step, far, xtol=1e-8 * step)
    return out


def main() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 50))
    y = (rng.random(1000) < 1 / (1 + np.exp(-X @ rng.normal(size=50) / 7))).astype(float)
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(50)]).assign(y=y)
    formula = "y ~ " + " + ".join(frame.columns[:-1])
    ours, theirs = [], []
    for _ in range(3):
        start = time.perf_counter()
        intervals = th.fit(formula, frame, "bernoulli").intervals(kind="profile")
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        reference = peer(X, y)
        theirs.append(time.perf_counter() - start)
    a, b = float(np.median(ours)), float(np.median(theirs))
    difference = np.abs(intervals.to_numpy() - reference).max()
    text = (
        "# Profile intervals\n\nLogistic regression, n = 1,000, p = 50: all 51 parameters, 102 endpoints. "
        "`python benchmarks/profiles.py`\n\n"
        "| who | seconds | ours / theirs | bar | largest difference of an endpoint |\n|---|---|---|---|---|\n"
        f"| thetahat, fit and intervals | {a:.3f} | | | |\n"
        f"| loop around statsmodels | {b:.3f} | {a / b:.3f} | {BAR:g} {'met' if a / b <= BAR else 'MISSED'} "
        f"| {difference:.1e} |\n"
    )
    print(text)
    (Path(__file__).parent / "results" / "profiles.md").write_text(text)


if __name__ == "__main__":
    main()
