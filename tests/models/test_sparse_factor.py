"""Wide grouping factors beside each other: the sparse factor against dense ones, and lme4's figures."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import thetahat as th
from thetahat.models.blocks import NotPositiveDefinite
from thetahat.models.fronts import Fronts, TooFilled
from thetahat.models.multifrontal import SparseCholesky

# ---- the factor of a matrix ------------------------------------------------------------------------------------


def path(m: int) -> sparse.csr_matrix:
    return sparse.diags([np.ones(m - 1), np.ones(m), np.ones(m - 1)], [-1, 0, 1])


def star(m: int) -> sparse.csr_matrix:
    A = sparse.lil_matrix((m, m))
    A[0], A[:, 0] = 1.0, 1.0
    return A + sparse.identity(m)


def drawn(m: int, rows: int) -> sparse.csr_matrix:
    g = np.random.default_rng(m)
    M = sparse.csr_matrix((np.ones(2 * rows), (np.repeat(np.arange(rows), 2), g.integers(0, m, 2 * rows))))
    M.resize(rows, m)
    return M.T @ M + sparse.identity(m)


PATTERNS = {
    "one": sparse.identity(1),
    "diagonal": sparse.identity(7),
    "path": path(300),
    "star": star(60),
    "full": sparse.csr_matrix(np.ones((40, 40))),
    "few meet": drawn(400, 300),
    "more meet": drawn(300, 500),
    "most meet": drawn(200, 3000),
    "blocks": sparse.block_diag([np.ones((9, 9)), drawn(50, 60), sparse.identity(3), np.ones((17, 17))]),
}


def positive(pattern: sparse.csr_matrix) -> sparse.csr_matrix:
    A = sparse.csr_matrix(pattern)
    A.data = np.random.default_rng(3).normal(size=A.nnz)
    A = A + A.T
    A = A + sparse.diags(1 + np.asarray(np.abs(A).sum(1)).ravel())
    A.sort_indices()
    return A


@pytest.mark.parametrize("name", PATTERNS)
def test_determinant_solution_and_inverse_are_those_of_the_dense_matrix(name):
    A = positive(PATTERNS[name])
    found = SparseCholesky(Fronts.of(A.indptr, A.indices, np.inf), A.data)
    dense, b = A.toarray(), np.random.default_rng(4).normal(size=(A.shape[0], 3))
    assert found.log_determinant == pytest.approx(np.linalg.slogdet(dense)[1], rel=1e-12, abs=1e-12)
    assert np.abs(found.solve(b) - np.linalg.solve(dense, b)).max() < 1e-13
    rows, columns = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr)), A.indices
    assert np.abs(found.inverse - np.linalg.inv(dense)[rows, columns]).max() < 1e-13


@pytest.mark.parametrize("name", ["star", "few meet", "full"])
def test_a_matrix_that_is_not_positive_definite_has_no_factor(name):
    A = positive(PATTERNS[name])
    A = A - sparse.identity(A.shape[0]) * (np.linalg.eigvalsh(A.toarray())[0] + 0.1)
    A.sort_indices()
    with pytest.raises(NotPositiveDefinite):
        SparseCholesky(Fronts.of(A.indptr, A.indices, np.inf), A.data)


def test_nested_factors_fill_nothing_in():
    """A school has its district beside it, and nothing more; the last school and its district are one full block."""
    school = np.arange(3000)
    M = sparse.csr_matrix(
        (np.ones(6000), (np.tile(school, 2), np.concatenate([school, 3000 + school // 30])))
    )
    A = (M.T @ M).tocsr()
    A.sort_indices()
    fronts = Fronts.of(A.indptr, A.indices, np.inf)
    assert fronts.numbers == 2 * 2900 + 2 * 2 * 100
    assert len(fronts.groups) == 2


def test_what_fills_up_is_told_before_it_is_made():
    A = positive(PATTERNS["most meet"])
    with pytest.raises(TooFilled) as error:
        Fronts.of(A.indptr, A.indices, 1000)
    assert 1000 < error.value.least <= 200 * 201 / 2


# ---- in a model ------------------------------------------------------------------------------------------------


def uniform(i: np.ndarray, k: int) -> np.ndarray:
    """A number between 0 and 1 for each i, the same on every machine."""
    return np.modf(np.abs(np.sin(12.9898 * (i + 1) + 78.233 * k) * 43758.5453))[0]


def normal(i: np.ndarray, k: int) -> np.ndarray:
    return np.sqrt(12 / 4) * (sum(uniform(i, 4 * k + j) for j in range(4)) - 2)


def schools(n: int = 1200) -> pd.DataFrame:
    i = np.arange(n)
    pupils, school, district = i // 3, i // 15, i // 90
    town = (2 * school + np.floor(5 * uniform(i, 90)).astype(int)) % 60
    x, v = normal(i, 1), uniform(i, 2)
    eta = 0.4 * x + 0.7 * normal(pupils, 3) + 0.5 * normal(school, 4) + 0.4 * normal(district, 5)
    eta += 0.5 * normal(town, 6) + 0.3 * x * normal(town, 7) + np.sin(5 * v)
    return pd.DataFrame(
        {
            "y": eta + normal(i, 8),
            "k": np.floor(np.exp(0.5 * eta) + uniform(i, 9)).astype(int),
            "b": (uniform(i, 10) < 1 / (1 + np.exp(-eta))).astype(int),
            "x": x,
            "v": v,
            "class": pupils,
            "school": school,
            "district": district,
            "town": town,
        }
    )


@pytest.fixture
def always_sparse(monkeypatch):
    """The sparse factor, however small and full."""

    def switched(on: bool) -> None:
        where = "thetahat.models.sparsity."
        monkeypatch.setattr(where + "LEAST", 1 if on else 10**9)
        for name, value in {"SHARE": np.inf, "DEARER": 0.0, "OF_GROUP": 0.0}.items():
            monkeypatch.setattr(where + name, value)

    return switched


CASES = [
    ("y ~ x + (1 | district/school/class)", {}),
    ("y ~ x + (1 | district/school/class)", {"reml": True}),
    ("y ~ x + (x | class) + (1 | school) + (x | town)", {}),
    ("y ~ x + s(v, k=6) + (1 | class) + (x | town) + (1 | district)", {"reml": True}),
    ("y ~ x + (1 | class) + (1 | town)", {"scale": "~ x + (1 | school)"}),
    ("k ~ x + (1 | class) + (x || town) + (1 | district)", {"family": "poisson"}),
    ("b ~ x + s(v, k=6) + (1 | class) + (1 | town)", {"family": "bernoulli"}),
    ("b ~ x + (1 | class) + (x | town)", {"family": "bernoulli", "reml": True}),
]


def fitted(formula, settings):
    fit = th.fit(formula, schools(), **settings)
    model = fit.objective.model
    return fit, model, next(iter(fit.objective.terms[0].source.batches(model)))


@pytest.mark.parametrize(("formula", "settings"), CASES)
def test_value_gradient_and_modes_are_those_of_the_dense_factor(formula, settings, always_sparse):
    always_sparse(False)
    dense, model, batch = fitted(formula, settings)
    expected, effects = model.taylor(batch, order=1), dense.random_effects()
    assert model.columns(batch).gram is None
    always_sparse(True)
    fit, other, rows = fitted(formula, settings)
    assert other.columns(rows).gram is not None
    assert fit.maximised == pytest.approx(dense.maximised, abs=1e-9)
    assert fit.certificate.status == dense.certificate.status
    found = fit.random_effects()
    assert np.abs(found["mode"] - effects["mode"]).max() < 1e-6  # each at its own maximum
    assert np.abs(found["standard_error"] - effects["standard_error"]).max() < 1e-6
    assert np.allclose(fit.standard_errors(), dense.standard_errors(), rtol=1e-5)
    with torch.no_grad():
        other.coefficients.copy_(model.coefficients)
        other.covariance.copy_(model.covariance * 1.1)
        model.covariance.mul_(1.1)
    expected, here = model.taylor(batch, order=1), other.taylor(rows, order=1)
    assert float(here.value) == pytest.approx(float(expected.value), abs=1e-9)
    assert float((here.gradient - expected.gradient).abs().max()) < 1e-9


def test_predictions_smooth_terms_and_saved_fits_are_those_of_the_dense_factor(always_sparse, tmp_path):
    formula, settings = CASES[3]
    new = schools().head(40)
    always_sparse(False)
    dense = fitted(formula, settings)[0]
    always_sparse(True)
    fit = fitted(formula, settings)[0]
    told = fit.predict(new, level=0.9)
    assert np.allclose(told, dense.predict(new, level=0.9), atol=1e-6)
    for column in ("edf", "reference", "statistic"):
        if column in dense.smooths():
            assert np.allclose(fit.smooths()[column], dense.smooths()[column], rtol=1e-5)
    fit.save(tmp_path / "fit.theta")
    again = th.load(tmp_path / "fit.theta")
    assert np.allclose(again.predict(new, level=0.9), told, atol=1e-12)
    pd.testing.assert_frame_equal(again.random_effects(), fit.random_effects(), atol=1e-12)


# ---- lme4 ------------------------------------------------------------------------------------------------------


def test_nested_factors_are_those_of_lme4(always_sparse):
    """lme4 1.1-31: lmer(y ~ x + (1|district) + (1|school) + (1|class), d, REML=FALSE), and
    glmer(b ~ …, d, binomial, control=glmerControl("bobyqa", tolPwrss=1e-12, optCtrl=list(rhoend=1e-9)))."""
    always_sparse(True)
    fit = th.fit("y ~ x + (1 | district/school/class)", schools())
    assert fit.maximised == pytest.approx(-2164.6296855191, abs=1e-6)
    fit = th.fit("b ~ x + (1 | district/school/class)", schools(), family="bernoulli")
    assert fit.maximised == pytest.approx(-779.01494918197, abs=1e-6)


def wide() -> pd.DataFrame:
    """120,000 pupils of 60,000 classes of 30,000 schools of 600 districts."""
    i = np.arange(120_000)
    x = normal(i, 1)
    y = 0.4 * x + 0.8 * normal(i // 2, 3) + 0.6 * normal(i // 4, 4) + 0.4 * normal(i // 200, 5) + normal(i, 8)
    return pd.DataFrame({"y": y, "x": x, "class": i // 2, "school": i // 4, "district": i // 200})


def test_thirty_thousand_columns_beside_the_widest_factor_are_those_of_lme4():
    """lmer(y ~ x + (1|district) + (1|school) + (1|class), d, REML=FALSE), whose Std.Dev. are its VarCorr."""
    fit = th.fit("y ~ x + (1 | district) + (1 | school) + (1 | class)", wide())
    assert fit.maximised == pytest.approx(-202338.70342394, abs=1e-5)
    parts = fit.variance_components(intervals=None).set_index("group")["sd"]
    assert parts["class"] == pytest.approx(0.79219926, rel=1e-5)
    assert parts["school"] == pytest.approx(0.59253664, rel=1e-5)
    assert parts["district"] == pytest.approx(0.39546107, rel=1e-5)
    assert fit.certificate.status == "certified maximum"


# ---- which factor, and none ------------------------------------------------------------------------------------


def test_the_cheaper_factor_is_taken():
    nested = th.fit("y ~ x + (1 | district) + (1 | school) + (1 | class)", wide().head(12_000))
    few = th.fit("y ~ x + (1 | district) + (1 | school) + (1 | class)", wide().head(600))
    i = np.arange(12_000)
    full = pd.DataFrame({"y": normal(i, 1), "a": i % 600, "b": (7 * (i % 600) + i // 600 * 13) % 500})
    meeting = th.fit("y ~ 1 + (1 | a) + (1 | b)", full)
    chosen = []
    for fit in (nested, few, meeting):
        model = fit.objective.model
        batch = next(iter(fit.objective.terms[0].source.batches(model)))
        chosen.append(model.columns(batch).gram is not None)
    assert chosen == [True, False, False]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (
            ("free", lambda: 1e4),
            r"of 600 groups.*factors of 500 groups.*at least .* GB.*Leave a grouping factor out",
        ),
        (("MOST", 1e3), r"about .* GB of memory and .* multiplications an evaluation"),
    ],
)
def test_a_factor_that_fills_up_is_refused_with_what_it_needs(limit, message, monkeypatch):
    monkeypatch.setattr("thetahat.models.sparsity.WIDEST", 100)
    monkeypatch.setattr("thetahat.models.sparsity." + limit[0], limit[1])
    i = np.arange(12_000)
    full = pd.DataFrame({"y": normal(i, 1), "a": i % 600, "b": (7 * (i % 600) + i // 600 * 13) % 500})
    with pytest.raises(th.errors.ModelError, match=message):
        th.fit("y ~ 1 + (1 | a) + (1 | b)", full)


def test_curves_of_each_group_read_the_whole_inverse_and_have_a_dense_factor(always_sparse, monkeypatch):
    always_sparse(True)
    table = schools().assign(class10=lambda t: t["class"] // 10)
    formula = "y ~ s(v, class10, bs='fs', k=5) + (1 | town) + (1 | school)"
    assert np.isfinite(th.fit(formula, table).smooths()["edf"]).all()
    monkeypatch.setattr("thetahat.models.cross_products.WIDEST", 50)
    with pytest.raises(th.errors.BadArgument, match="share one dense matrix, and at most 50"):
        th.fit(formula, table)


def test_a_variance_of_zero_is_certified_there_too(always_sparse):
    always_sparse(True)
    table = schools().assign(none=lambda t: np.arange(len(t)) % 37)
    fit = th.fit("y ~ x + (1 | class) + (1 | none)", table)
    assert fit.estimates["sd(Intercept | none)"] == pytest.approx(0, abs=1e-9)
    assert "boundary" in str(fit.certificate)


def test_latent_variables_of_ones_own_take_the_same_factor(always_sparse):
    """The function that a formula is of."""

    @th.model(
        a=0.0,
        b=0.1,
        u=th.latent(by="class", sd=0.3),
        v=th.latent(by="town", sd=0.3),
        target="k",
        measure="mass",
    )
    def counts(batch, a, b, u, v):
        return th.families.Poisson().at(torch.exp(a + b * batch["x"] + u + v))

    table = schools()[["k", "x", "class", "town"]]
    always_sparse(True)
    own = th.fit(counts, table)
    model = own.objective.model
    assert model.columns(next(iter(own.objective.terms[0].source.batches(model)))).gram is not None
    fit = th.fit("k ~ x + (1 | class) + (1 | town)", table, family="poisson")
    assert own.maximised == pytest.approx(fit.maximised, abs=1e-7)
    assert own.estimates.to_numpy()[:2] == pytest.approx(fit.estimates.to_numpy()[:2], abs=1e-5)
