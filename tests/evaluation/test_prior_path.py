"""The path of the lasso: soft thresholds of orthogonal columns, scikit-learn's lasso_path, the first scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Lasso, enet_path, lasso_path

import thetahat as th
from thetahat.errors import BadArgument

rng = np.random.default_rng(9)
N = 80
X = rng.normal(size=(N, 5))
X -= X.mean(0)
Y = X @ [2.0, 0.0, -1.0, 0.5, 0.0] + rng.normal(size=N)
DATA = pd.DataFrame(X, columns=list("abcde")).assign(
    y=Y - Y.mean(), k=rng.poisson(np.exp(0.3 + 0.4 * X[:, 0])).astype(float)
)
FORMULA = "y ~ a + b + c + d + e"


def test_orthogonal_columns_are_thresholded() -> None:
    """sign(b)·(|b| − 1/s)₊ / Σx², b = Σxy, at every scale; the first scale is 1 / max |b|."""
    Q = np.linalg.qr(np.column_stack([np.ones(N), X]))[0][:, 1:]
    data = pd.DataFrame(Q, columns=list("abcde")).assign(y=DATA["y"])
    path = th.fit(FORMULA, data, scale=1.0).prior_path(points=12)
    b = Q.T @ DATA["y"].to_numpy()
    assert path.table.index[0] == pytest.approx(1 / np.abs(b).max(), rel=1e-9)
    for scale, row in path.table.iterrows():
        assert np.allclose(row[list("abcde")], np.sign(b) * np.maximum(np.abs(b) - 1 / scale, 0), atol=1e-8)
    assert path.table["nonzero"].iloc[0] == 0
    assert path.entered == [name for _, name in sorted(zip(-np.abs(b), "abcde", strict=True))]


def test_it_is_that_of_scikit_learn() -> None:
    """lasso_path minimises |y − Xβ|²/2n + α|β|₁: α = 1/(n s). enet_path's penalties are α·l1 and α(1 − l1)."""
    path = th.fit(FORMULA, DATA, scale=1.0).prior_path(points=8)
    alphas = 1 / (N * path.table.index.to_numpy())
    _, theirs, _ = lasso_path(X, DATA["y"].to_numpy(), alphas=alphas, tol=1e-14, max_iter=100_000)
    assert np.allclose(path.table[list("abcde")], theirs.T, atol=1e-7)
    net = th.fit(FORMULA, DATA, scale=1.0).prior_path(0.6, points=5)
    for scale, row in net.table.iterrows():
        l1, l2 = 0.6 / scale, 0.4 / scale**2
        alpha = (l1 + l2) / N
        _, found, _ = enet_path(
            X, DATA["y"].to_numpy(), l1_ratio=l1 / (l1 + l2), alphas=[alpha], tol=1e-14, max_iter=100_000
        )
        assert np.allclose(row[list("abcde")], found[:, 0], atol=1e-7)


def test_the_first_scale_is_the_largest_at_which_all_are_zero() -> None:
    """Of counts, whose scale nobody gives: a little wider, and a coefficient has left zero."""
    fit = th.fit("k ~ a + b + c + d + e", DATA, "poisson")
    path = fit.prior_path(points=4)
    first = float(path.table.index[0])
    for factor, many in ((0.999, 0), (1.001, 1)):
        held = th.fit("k ~ a + b + c + d + e", DATA, "poisson", prior=th.priors.Laplace(first * factor))
        assert int((held.theta[1:] != 0).sum()) == many
    assert np.allclose(path.table.iloc[-1][list("abcde")], fit.estimates[1:], atol=0.02)
    choice = fit.choose_prior(list(path.priors), folds=3)
    assert choice.prior[0] in path.priors


def test_some_columns_more_columns_than_rows_and_the_chart() -> None:
    wide = pd.DataFrame(rng.normal(size=(20, 30)), columns=[f"x{j}" for j in range(30)])
    wide["y"] = 2 * wide["x3"] + 0.5 * rng.normal(size=20)
    fit = th.fit("y ~ " + " + ".join(wide.columns[:-1]), wide, scale=0.5, prior=th.priors.Normal(1.0))
    path = fit.prior_path(points=6)
    assert path.entered[0] == "x3"
    assert path.table.index[-1] / path.table.index[0] == pytest.approx(100)
    part = th.fit(FORMULA, DATA, scale=1.0).prior_path(points=3, on=["a", "b"])
    assert part.names == ("a", "b")
    assert (part.table["c"] != 0).all()
    assert "3 scales of Laplace, on 2 coefficients" in str(part)
    assert part.plot().to_dict()["mark"]["type"] == "line"


def test_what_has_no_path_is_refused_by_name() -> None:
    fit = th.fit(FORMULA, DATA)
    for settings, word in (({"mix": 0.0}, "mix"), ({"points": 1}, "points"), ({"ratio": 0.5}, "ratio")):
        with pytest.raises(BadArgument, match=word):
            fit.prior_path(**settings)
    with pytest.raises(BadArgument, match="no coefficient"):
        th.fit("y ~ 1", DATA).prior_path()


def _two_maxima() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 8))
    X -= X.mean(0)
    y = X[:, :4] @ [1.5, -1.0, 0.8, 0.6] + 0.3 * rng.normal(size=40)
    return X, y - y.mean(), pd.DataFrame(X, columns=list("abcdefgh")).assign(y=y - y.mean())


def test_with_the_scale_estimated_the_higher_of_two_maxima_is_found() -> None:
    """The profile over σ by scikit-learn's lasso, max_σ max_β: at s = 0.05 −60.93 at σ = 1.76, with every coefficient zero,
    and −53.90 at σ = 0.23."""
    X, y, data = _two_maxima()

    def profile(sigma: float, scale: float) -> float:
        lasso = Lasso(alpha=sigma**2 / (40 * scale), fit_intercept=False, tol=1e-12, max_iter=10**6).fit(X, y)
        r = y - X @ lasso.coef_
        normal = -20 * np.log(2 * np.pi * sigma**2) - r @ r / (2 * sigma**2)
        return normal - abs(lasso.coef_).sum() / scale - 8 * np.log(2 * scale)

    for scale, empty in ((0.03, True), (0.05, False), (0.1, False)):
        fit = th.fit("y ~ " + " + ".join("abcdefgh"), data, prior=th.priors.Laplace(scale))
        best = max(profile(s, scale) for s in np.geomspace(0.1, 4, 100))
        assert best <= fit.objective.value() + 1e-9
        assert fit.objective.value() == pytest.approx(profile(fit.estimates["scale"], scale), abs=1e-6)
        assert bool((fit.theta[1:-1] == 0).all()) == empty


def test_a_path_with_the_scale_estimated_begins_where_every_coefficient_is_zero() -> None:
    _, _, data = _two_maxima()
    path = th.fit("y ~ " + " + ".join("abcdefgh"), data).prior_path(points=6)
    assert path.table["nonzero"].iloc[0] == 0
    for scale, value in path.table["log_likelihood"].iloc[[0, 3]].items():
        fit = th.fit("y ~ " + " + ".join("abcdefgh"), data, prior=th.priors.Laplace(float(scale)))
        assert value == pytest.approx(fit.log_likelihood, abs=1e-6)
