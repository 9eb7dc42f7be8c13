"""HAC covariances against R's sandwich (NeweyWest, vcovPL); the wild cluster bootstrap against refits of every sign vector."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import BadArgument

X = [-0.321, -0.418, -0.332, -0.716, -0.651, -0.641, -0.612, -0.24, -0.646, -0.224, -0.472, -0.849, -1.088, -1.004, -0.953,
     -1.056, -1.373, -1.589, -1.181, -1.115, -1.307, -1.622, -1.689, -2.245, -2.406, -2.653, -2.267, -1.929, -1.953, -2.332,
     -2.032, -1.748, -1.505, -1.26, -1.377, -1.142, -0.709, -0.696, -1.022, -0.758, -0.496, -0.599, -0.033, -0.298, -0.182,
     -0.937, -0.991, -0.614, -0.766, -1.065, -0.823, -1.093, -1.004, -1.583, -2.053, -2.205, -2.55, -2.096, -1.79, -2.052]  # fmt: skip
Y = [1.849, 1.629, 2.084, 2.609, 2.238, 0.63, 0.507, 2.503, 1.299, 1.95, 2.625, 2.487, 1.596, 1.401, 0.179, 0.705, -0.433,
     -1.096, -1.362, -1.271, 0.372, -0.186, -0.14, -0.762, -0.046, 0.699, 0.273, 0.897, 0.135, 0.954, 1.258, 1.908, 1.925,
     1.583, -0.858, -0.955, 0.296, -0.021, -0.194, -0.203, 1.877, 0.654, 0.503, 0.577, 0.96, 0.751, 0.586, -0.753, 0.117,
     0.685, 0.234, 0.916, 0.013, 0.304, -0.633, -2.191, -0.372, 0.587, 0.629, 1.781]  # fmt: skip
K = [0, 0, 1, 0, 0, 2, 3, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 4, 2, 1, 1, 1, 0, 1, 0, 1, 3, 2, 1, 1, 0, 0, 5, 2, 1, 1,
     2, 1, 3, 4, 2, 0, 1, 1, 0, 3, 0, 2, 4, 1, 0, 0, 1, 0, 2, 1]  # fmt: skip
DATA = pd.DataFrame(
    {"x": X, "y": Y, "k": np.array(K, float), "t": np.arange(60), "period": np.tile(np.arange(15), 4)}
)


@pytest.mark.parametrize(
    ("formula", "family", "kind", "by", "expected"),
    [
        # sqrt(diag(NeweyWest(lm(y ~ x), lag = 4, prewhite = FALSE))); glm(k ~ x, poisson), lag = 3; lag = 0
        ("y ~ x", "normal", "HAC:4", None, [0.374058675019, 0.252364514559]),
        ("y ~ x", "normal", "HAC:4", "t", [0.374058675019, 0.252364514559]),
        ("k ~ x", "poisson", "HAC:3", None, [0.329191687365, 0.236719027439]),
        ("y ~ x", "normal", "HAC:0", None, [0.244088365811, 0.179751841961]),
        # vcovPL(…, cluster = ~ firm, order.by = ~ period, lag = 2, adjust = FALSE): Driscoll and Kraay
        ("y ~ x", "normal", "HAC:2", "period", [0.224959191546, 0.211368844731]),
        ("k ~ x", "poisson", "HAC:2", "period", [0.369706746848, 0.214855804668]),
    ],
)
def test_errors_are_those_of_sandwich(
    formula: str, family: str, kind: str, by: str | None, expected: list
) -> None:
    fit = th.fit(formula, DATA, family)
    assert np.allclose(fit.standard_errors(kind, by=by).iloc[:2], expected, rtol=1e-8)


def test_the_order_of_rows_is_that_of_the_column() -> None:
    shuffled = DATA.sample(frac=1, random_state=1)
    dates = pd.to_datetime("2020-01-01") + pd.to_timedelta(shuffled["t"], unit="D")
    own = th.fit("y ~ x", DATA).standard_errors("HAC:4")
    for column in (shuffled["t"], dates):
        found = th.fit("y ~ x", shuffled.assign(when=column)).standard_errors("HAC:4", by="when")
        assert np.allclose(found, own, rtol=1e-10)


def test_no_lag_is_the_sandwich_and_the_lag_is_chosen() -> None:
    fit = th.fit("y ~ x", DATA)
    assert np.allclose(fit.covariance("HAC:0"), fit.covariance("HC0"), rtol=1e-12)
    assert np.allclose(fit.covariance("HAC"), fit.covariance("HAC:3"))  # ⌊4 (60/100)^(2/9)⌋
    assert np.linalg.eigvalsh(fit.covariance("HAC:20")).min() > 0
    assert fit.degrees_of_freedom("HAC", by="period").iloc[0] == 14
    assert fit.degrees_of_freedom("HAC").iloc[0] == 58


def test_it_is_the_fits_own_everywhere_and_is_saved(tmp_path) -> None:
    fit = th.fit("y ~ x", DATA, covariance="HAC:4")
    assert "correlated over time (HAC:4)" in str(fit.summary())
    fit.save(tmp_path / "hac.fit")
    assert np.allclose(
        th.load(tmp_path / "hac.fit").standard_errors(), fit.standard_errors("HAC:4"), rtol=1e-12
    )


def test_lags_that_cannot_be_are_refused_by_name() -> None:
    fit = th.fit("y ~ x", DATA)
    with pytest.raises(BadArgument, match="the lag is 15, and there are 15 times"):
        fit.covariance("HAC:15", by="period")
    with pytest.raises(BadArgument, match="whole number"):
        fit.covariance("HAC:two")
    with pytest.raises(BadArgument, match="by names 2"):
        fit.covariance("HAC", by=["period", "t"])


# ---- the wild cluster bootstrap ----------------------------------------------------------------------------


def by_refits(data: pd.DataFrame, held: float) -> float:
    """P(|t*| ≥ |t|) over every sign vector, each of them fitted by least squares; t by cluster-robust errors."""
    y, G = data["y"].to_numpy(), data["g"].to_numpy()
    Z = np.column_stack([np.ones(len(y)), data["x"], data["z"]])
    groups = np.unique(G)

    def t(y: np.ndarray) -> float:
        A = np.linalg.inv(Z.T @ Z)
        b = A @ Z.T @ y
        e = y - Z @ b
        U = np.stack([Z[g == G].T @ e[g == G] for g in groups])
        return abs(b[1] - held) / np.sqrt((A @ U.T @ U @ A)[1, 1])

    part = Z[:, [0, 2]]
    offset = held * Z[:, 1]
    mean = offset + part @ np.linalg.lstsq(part, y - offset, rcond=None)[0]
    found = [
        t(mean + np.array(v)[np.searchsorted(groups, G)] * (y - mean))
        for v in itertools.product([1, -1], repeat=len(groups))
    ]
    return float(np.mean(np.array(found) >= t(y) * (1 - 1e-9)))


@pytest.mark.parametrize("held", [0.0, 0.7])
def test_p_is_that_of_refits_of_every_sign_vector(held: float) -> None:
    rng = np.random.default_rng(4)
    g = rng.integers(0, 7, 60)
    x = rng.normal(size=60) + rng.normal(size=7)[g]
    data = pd.DataFrame({"g": g, "x": x, "z": rng.normal(size=60)})
    data["y"] = 0.4 * x + rng.normal(size=7)[g] + rng.normal(size=60)
    fit = th.fit("y ~ x + z", data)
    found = fit.wild_bootstrap(f"x = {held}", by="g")
    assert found.p_value == pytest.approx(by_refits(data, held), abs=1e-12)
    robust = fit.test(f"x = {held}", by="g")
    assert (found.statistic, found.df_error) == (pytest.approx(robust.statistic), robust.df_error)
    assert "all 128 sign vectors of 7 clusters" in str(found)
    drawn = fit.wild_bootstrap(f"x = {held}", by="g", draws=99, seed=1)
    assert abs(drawn.p_value - found.p_value) < 4 * np.sqrt(found.p_value * (1 - found.p_value) / 99) + 0.02
    named = fit.wild_bootstrap("x", by="g")
    assert (named.p_value == found.p_value) == (held == 0.0)


def test_what_it_cannot_test_is_refused_by_name() -> None:
    with pytest.raises(BadArgument, match="normal linear model"):
        th.fit("k ~ x", DATA, "poisson").wild_bootstrap("x = 0", by="period")
    fit = th.fit("y ~ x + t", DATA)
    with pytest.raises(BadArgument, match="one restriction"):
        fit.wild_bootstrap("x = 0, t = 0", by="period")
    with pytest.raises(BadArgument, match="one restriction"):
        fit.wild_bootstrap("scale = 1", by="period")


def test_clusters_whose_residuals_sum_to_nothing_are_refused() -> None:
    data = {"y": [1.0, 2, 2, 4, 3, 6, 5, 7], "x": [0.0, 0, 1, 1, 2, 2, 3, 3], "g": [0.0, 0, 1, 1, 2, 2, 3, 3]}
    with pytest.raises(BadArgument, match="no cluster-robust error"):
        th.fit("y ~ x", data).wild_bootstrap("x = 0", by="g")
