"""Two wide categories: the information whose E is sparse, against the same with E written out; and least squares by numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.inference.meat import sandwich_diagonal
from thetahat.kernels import compiled
from thetahat.models import regression
from thetahat.models.information import Information
from thetahat.models.sparse_rows import SparseRows, written_out

pytestmark = pytest.mark.skipif(not compiled.available(), reason="installed without a compiler")


def panel(n: int = 6000, persons: int = 300, firms: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    data = pd.DataFrame(
        {"x": rng.normal(size=n), "person": rng.integers(0, persons, n), "firm": rng.integers(0, firms, n)}
    )
    eta = 0.3 * data.x + rng.normal(size=persons)[data.person] / 2 + rng.normal(size=firms)[data.firm] / 2
    data["y"], data["k"] = eta + rng.normal(size=n), rng.poisson(np.exp(eta + 1))
    data["c"] = rng.gamma(2.0, np.exp(eta) / 2)
    return data.astype({"person": "category", "firm": "category"})


@pytest.fixture
def sparse(monkeypatch):
    """E is sparse from the first number on."""
    monkeypatch.setattr(regression, "LARGE", 0)


CASES = [
    ("y ~ x + person + firm", {"family": "normal"}),
    ("k ~ x + person + firm", {"family": "poisson"}),
    ("k ~ x + person:x + firm", {"family": "poisson"}),
    ("c ~ x + person", {"family": "gamma", "dispersion": "~ firm"}),
]


@pytest.mark.parametrize(("formula", "more"), CASES)
@pytest.mark.parametrize("kind", [None, "sandwich", "cluster"])
def test_the_same_fit_as_with_e_written_out(monkeypatch, formula, more, kind):
    found = []
    for large in (2**40, 0):
        monkeypatch.setattr(regression, "LARGE", large)
        fit = th.fit(formula, panel(), **more)
        assert isinstance(fit.objective.taylor().information.E, SparseRows) == (large == 0)
        errors = fit.standard_errors(kind, by="firm" if kind == "cluster" else None)
        found.append((fit.log_likelihood, fit.estimates, errors))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    pd.testing.assert_series_equal(found[0][1], found[1][1], rtol=1e-7, atol=1e-9)
    pd.testing.assert_series_equal(found[0][2], found[1][2], rtol=1e-7)


def test_least_squares_by_numpy(sparse):
    data = panel()
    fit = th.fit("y ~ x + person + firm", data, family="normal")
    X = pd.get_dummies(data[["person", "firm"]], drop_first=True, dtype=float)
    X = np.column_stack([np.ones(len(data)), data.x, X])
    beta, squares, _, _ = np.linalg.lstsq(X, data.y.to_numpy(), rcond=None)
    np.testing.assert_allclose(fit.estimates.iloc[:-1], beta, rtol=1e-9, atol=1e-10)
    sigma = np.sqrt(
        float(squares[0]) / (len(data) - X.shape[1])
    )  # of least squares, as for every normal linear model
    want = sigma * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
    np.testing.assert_allclose(fit.standard_errors().iloc[:-1], want, rtol=1e-8)


def test_the_parts_of_an_information():
    """Solves, determinant, diagonal of the inverse and of the sandwich, a part of the coordinates, sums."""
    from scipy import sparse as scipy_sparse

    rng = np.random.default_rng(1)
    E = scipy_sparse.random_array((40, 6), density=0.3, rng=rng, format="csr")
    E.sort_indices()
    D = torch.tensor(rng.uniform(5, 9, 40))
    A = torch.eye(6, dtype=torch.float64) * 30
    J, same = (
        Information(A, SparseRows(E), D, slice(2, 42)),
        Information(A, torch.tensor(E.toarray()), D, slice(2, 42)),
    )
    v = torch.tensor(rng.normal(size=46))
    factor, other = J.factor(), same.factor()
    assert factor is not None
    assert other is not None
    whole = same.dense()
    for mine, want in (
        (J.dense(), whole),
        (J.multiply(v), whole @ v),
        (factor.solve(v), torch.linalg.solve(whole, v)),
        (factor.inverse_diagonal(), torch.linalg.inv(whole).diagonal()),
        (factor.log_determinant(), torch.logdet(whole)),
        (factor.root(torch.eye(46, dtype=torch.float64)), other.root(torch.eye(46, dtype=torch.float64))),
        ((J + J.times(2.0)).dense(), 3 * whole),
        ((J + same).dense(), 2 * whole),
        (
            sandwich_diagonal(factor, J.plus_diagonal(v**2)),
            sandwich_diagonal(other, same.plus_diagonal(v**2)),
        ),
        (J.restrict(torch.arange(1, 30)).dense(), whole[1:30, 1:30]),
    ):
        torch.testing.assert_close(mine, want, rtol=1e-11, atol=1e-12)
    assert torch.equal(written_out(J.E), torch.tensor(E.toarray()))
    most, exact = factor.inverse_diagonal_bound(), factor.inverse_diagonal()
    assert bool((most >= exact * (1 - 1e-12)).all())
    kept = J.kept()
    torch.testing.assert_close(most[kept], exact[kept], rtol=1e-12, atol=0.0)
    X = torch.zeros(46, 3, dtype=torch.float64)
    X[kept] = torch.tensor(rng.normal(size=(6, 3)))
    torch.testing.assert_close(
        factor.forms(X), (X * torch.linalg.solve(whole, X)).sum(0), rtol=1e-11, atol=0.0
    )


def test_a_factor_of_an_information_that_was_rescaled():
    """J / σ² with another number at a coordinate that stands alone: the factor known before is that of the new one."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(50, 4))
    A = torch.zeros(5, 5, dtype=torch.float64)
    A[:4, :4] = torch.tensor(X.T @ X)
    J = Information(A).with_diagonal(4, 7.0)
    new = J.times(1 / 3.0).with_diagonal(4, 2.0)
    factor = J.factor()
    assert factor is not None
    moved, want = factor.rescaled(new), torch.linalg.inv(new.dense())
    torch.testing.assert_close(moved.inverse(), want, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(moved.log_determinant(), torch.logdet(new.dense()), rtol=1e-12, atol=0.0)
    assert moved.information is not None
    assert J.dense()[4, 4] == 7.0
