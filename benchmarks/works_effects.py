"""Fixed effects of many levels beside pyfixest, and the compiled sums beside tabmat's.

A panel has two numeric columns, x0 and x1, and categories whose coefficients nobody wants to see; linear and Poisson.
A contestant returns the slopes of x0 and x1 and then their standard errors, "iid": the inverse of the information, of
linear models with s² of n − p (pyfixest's factor n / (n − p) for Poisson models is turned off).

In the "difficult" panel of fixest_benchmarks (Bergé) persons are seen in ten years each, and firms go round in the
order of the rows, so that few rows connect firms that are far apart, and demeaning converges slowly. Its years are
left out: where firms are even in number, as there, odd years and odd firms are the same rows, and not all of their
coefficients can be told apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from works import Contestant, Data, claims

YEARS, PERSONS_A_FIRM = 10, 23
Answer = tuple[np.ndarray, float | None]


# ---- data --------------------------------------------------------------------------------------------------


def _panel(codes: dict[str, np.ndarray], family: str) -> Data:
    rng = np.random.default_rng(0)
    n = len(next(iter(codes.values())))
    frame = pd.DataFrame(rng.normal(size=(n, 2)), columns=["x0", "x1"])
    eta = frame.to_numpy() @ np.array([0.5, -0.25])
    for name, code in codes.items():
        levels = int(code.max()) + 1
        eta = eta + (0.3 * rng.normal(size=levels))[code]
        frame[name] = pd.Categorical.from_codes(code, [f"{name}{k}" for k in range(levels)])
    y = rng.poisson(np.exp(eta + 1)).astype(float) if family == "poisson" else eta + rng.normal(size=n)
    formula = "y ~ x0 + x1 + " + " + ".join(codes)
    return Data(frame.assign(y=y), np.empty(0), y, formula, {"family": family, "effects": list(codes)})


def _random(n: int, levels: tuple[int, ...], family: str) -> Data:
    """Every level is there, and their order is random."""
    rng = np.random.default_rng(2)
    codes = {f"g{j}": rng.permutation(np.arange(n) % L) for j, L in enumerate(levels)}
    return _panel(codes, family)


def two_effects(n: int = 500_000, family: str = "normal") -> Data:
    return _random(n, (20_000 if n >= 100_000 else n // 25, 300), family)


def two_effects_poisson(n: int = 500_000) -> Data:
    return two_effects(n, "poisson")


def three_effects(n: int = 500_000, family: str = "normal") -> Data:
    return _random(n, (20_000 if n >= 100_000 else n // 25, 300, 50), family)


def three_effects_poisson(n: int = 500_000) -> Data:
    return three_effects(n, "poisson")


def difficult(n: int = 1_000_000, family: str = "normal") -> Data:
    persons = n // YEARS
    firms = round(persons / PERSONS_A_FIRM)
    codes = {
        "person": np.repeat(np.arange(persons), YEARS),
        "firm": np.resize(np.arange(firms), persons * YEARS),
    }
    return _panel(codes, family)


def difficult_poisson(n: int = 1_000_000) -> Data:
    return difficult(n, "poisson")


# ---- contestants -------------------------------------------------------------------------------------------


def thetahat_effects(data: Data) -> Answer:
    import thetahat as th

    fit = th.fit(data.formula, data.frame, data.extra["family"])
    errors = fit.standard_errors()[["x0", "x1"]].to_numpy()
    places = [fit.names.index(name) for name in ("x0", "x1")]
    return np.r_[fit.theta[places].numpy(), errors], fit.log_likelihood


def pyfixest(data: Data) -> Answer:
    import pyfixest as pf

    poisson = data.extra["family"] == "poisson"
    call, ssc = (pf.fepois if poisson else pf.feols), pf.ssc(k_adj=not poisson)
    fit = call("y ~ x0 + x1 | " + " + ".join(data.extra["effects"]), data.frame, vcov="iid", ssc=ssc)
    return np.r_[fit.coef()[["x0", "x1"]], fit.se()[["x0", "x1"]]], None


# ---- sums over rows ----------------------------------------------------------------------------------------


def _weights(data: Data) -> np.ndarray:
    return data.frame["exposure"].to_numpy(copy=True)  # tabmat takes no memory that it may not write to


def thetahat_sums(data: Data) -> Answer:
    """Xᵀ diag(w) X of the claims' columns, by what Newton's method calls; the block of the numeric ones is returned."""
    import torch

    from thetahat.kernels import compiled

    if "ours" not in data.extra:
        names = data.extra["columns"]
        numeric = [c for c in names if data.frame[c].dtype == float]
        x = torch.from_numpy(data.frame[numeric].to_numpy(copy=True))
        terms, start = [], 1 + len(numeric)
        for c in (c for c in names if c not in numeric):
            series = data.frame[c].cat
            levels = len(series.categories) - 1
            codes = torch.from_numpy(series.codes.to_numpy().astype(np.int64))
            terms.append(compiled.Term(codes, None, levels, start, start))
            start += levels
        data.extra["ours"] = compiled.Columns(len(x), x, True, None, terms, 0, 0), start, len(numeric)
    columns, size, many = data.extra["ours"]
    sums = compiled.Sums(size)
    sums.add(columns, None, torch.from_numpy(_weights(data)))
    return sums.A[1 : 1 + many, 1 : 1 + many].numpy().ravel(), None


def tabmat(data: Data) -> Answer:
    """SplitMatrix.sandwich."""
    from tabmat import from_df

    if "theirs" not in data.extra:
        data.extra["theirs"] = from_df(data.frame[data.extra["columns"]], drop_first=True)
    X = data.extra["theirs"]
    many = sum(data.frame[c].dtype == float for c in data.extra["columns"])
    return np.asarray(X.sandwich(_weights(data)))[:many, :many].ravel(), None


WORKS: dict[str, Callable[..., Data]] = {
    "two fixed effects, linear": two_effects,
    "two fixed effects, Poisson": two_effects_poisson,
    "three fixed effects, linear": three_effects,
    "three fixed effects, Poisson": three_effects_poisson,
    "difficult panel, linear": difficult,
    "difficult panel, Poisson": difficult_poisson,
    "information of the claims": claims,
}

CONTESTS: dict[str, list[Contestant]] = {
    name: [thetahat_effects, pyfixest] for name in WORKS if name != "information of the claims"
} | {"information of the claims": [thetahat_sums, tabmat]}
