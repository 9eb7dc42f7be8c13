"""Mixed models against the dense integral, finite differences, and R."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, nbinom

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.models.formulas import formula_model

R = Path(__file__).parents[3] / "shared" / "data" / "r"


def crossed(n=90, seed=3):
    """Rows with a nested and a crossed factor, a number, and counts."""
    g = np.random.default_rng(seed)
    a, b, x = g.integers(0, 8, n), g.integers(0, 5, n), g.normal(size=n)
    eta = (
        0.4 + 0.3 * x + 0.5 * g.normal(size=8)[a] + 0.4 * g.normal(size=5)[b] + 0.2 * x * g.normal(size=8)[a]
    )
    y = eta + 0.6 * g.normal(size=n)
    k = g.poisson(np.exp(eta))
    return pd.DataFrame(
        {
            "y": y,
            "k": k,
            "x": x,
            "a": [f"a{i}" for i in a],
            "b": [f"b{i}" for i in b],
            "w": g.integers(1, 4, n),
        }
    )


def objective(formula, data, family="normal", **settings):
    model, table = formula_model(formula, data, th.families.get(family), **settings)
    return Objective([LogLikelihood(model, table)])


def somewhere(o, seed=0):
    """A θ off the maximum."""
    begin = o.model.start(o.terms[0].source)
    g = torch.Generator().manual_seed(seed)
    return begin + 0.3 * torch.randn(len(begin), generator=g, dtype=torch.float64) * begin.abs().clamp(0.1, 1)


def dense_log_likelihood(o, theta, reml=False):
    """The multivariate normal density of y, with its covariance written out."""
    model, batch = o.model, next(iter(o.terms[0].source.batches()))
    p, n = len(model.coefficients), len(batch)
    beta, phi = theta[:p], theta[p:]
    mean, scale = model.regression.predictors
    X = mean.rows(batch, torch.float64).numpy().T
    sigma = math.exp(float(beta[scale.start]))
    V = np.eye(n)
    if batch.counted:
        V = np.diag(1 / batch.count.numpy())
    for r, at in zip(model.random, model.places, strict=True):
        lam = r.structure.factor(phi[at]).numpy()
        design = model.encoder.designs[r.slot]
        if design.coded:
            Z = np.eye(design.coded[0].size + 1)[batch[f"code{r.slot}.0"].numpy()][:, 1:]
        else:
            columns = [np.ones(n)] * design.intercept + (
                [batch[f"x{r.slot}"].numpy()] if design.columns else []
            )
            Z = np.column_stack(columns)
        code = batch[f"group{r.source}"].numpy()
        V += (Z @ lam @ lam.T @ Z.T) * (code[:, None] == code)
    V *= sigma**2
    y = batch["y"].numpy()
    if not reml:
        return multivariate_normal(X @ beta[: mean.size].numpy(), V, allow_singular=False).logpdf(y)
    inverse = np.linalg.inv(V)
    P = X.T @ inverse @ X
    residual = y - X @ beta[: mean.size].numpy()
    return -0.5 * (
        (n - mean.size) * math.log(2 * math.pi)
        + np.linalg.slogdet(V)[1]
        + np.linalg.slogdet(P)[1]
        + residual @ inverse @ residual
    )


FORMULAS = [
    "y ~ x + (1 | a)",
    "y ~ x + (x | a) + (1 | b)",
    "y ~ x + (x || a)",
    "y ~ (1 | a/b)",
    "y ~ x + (0 + x | b) + (1 | a:b)",
    "y ~ x + (1 | b) + (x | a) + (1 | a:b)",
    "y ~ x + cs(0 + b | a)",
    "y ~ x + ar1(0 + b | a)",
]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("reml", [False, True])
def test_the_value_is_the_dense_normal_density(formula, reml):
    o = objective(formula, crossed(), reml=reml)
    for seed in range(2):
        theta = somewhere(o, seed)
        assert o.value(theta) == pytest.approx(dense_log_likelihood(o, theta, reml), abs=1e-9)


CASES = [
    ("y ~ x + (x | a) + (1 | b)", "normal", {}),
    ("y ~ x + (x | a) + (1 | b)", "normal", {"reml": True}),
    ("y ~ x + ar1(0 + b | a)", "normal", {}),
    ("y ~ x + (1 | a)", "normal", {"parameters": {"scale": "~ x + (1 | b)"}}),
    ("k ~ x + (x | a) + (1 | b)", "poisson", {}),
    ("k ~ x + (1 | a) + (1 | b)", "poisson", {"reml": True}),
    ("k ~ x + (1 | a)", "negative_binomial", {"parameters": {"dispersion": "~ x + (1 | a)"}}),
    ("k ~ x + (1 | a)", "zero_inflated(poisson)", {"parameters": {"inflation": "~ (1 | b)"}}),
    ("k ~ x + (1 | a) + (1 | b)", "poisson", {"weights": "w"}),
]


@pytest.mark.parametrize(("formula", "family", "settings"), CASES)
def test_the_gradient_is_exact(formula, family, settings):
    """Against differences of the value, of fourth order: û and H move with θ."""
    o = objective(formula, crossed(), family, **settings)
    theta = somewhere(o)
    gradient = o.taylor(theta, order=1).gradient
    for j in range(len(theta)):
        h = 2e-3 * max(0.2, abs(float(theta[j])))
        at = [o.value(theta + t * h * torch.eye(len(theta), dtype=torch.float64)[j]) for t in (-2, -1, 1, 2)]
        slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
        assert float(gradient[j]) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("formula", "family", "settings"), CASES[:2] + CASES[4:5])
def test_the_information_is_the_derivative_of_the_gradient(formula, family, settings):
    o = objective(formula, crossed(), family, **settings)
    theta = th.fit(formula, crossed(), family, **settings).theta
    J = o.taylor(theta, order=2).information.dense()
    for j in range(len(theta)):
        h = 1e-4 * max(0.2, abs(float(theta[j])))
        step = h * torch.eye(len(theta), dtype=torch.float64)[j]
        row = -(o.taylor(theta + step, order=1).gradient - o.taylor(theta - step, order=1).gradient) / (2 * h)
        assert torch.allclose(J[j], row, rtol=1e-5, atol=1e-5 * float(J.abs().max()))


def test_laplace_is_that_of_a_direct_computation():
    """Negative binomial with a slope: mode by a general optimiser, curvature by differences."""
    data = crossed(40)
    o = objective("k ~ x + (x | a)", data, "negative_binomial")
    theta = somewhere(o)
    model = o.model
    beta, phi = theta[:3], theta[3:]
    alpha, lam = math.exp(float(beta[2])), model.random[0].structure.factor(phi).numpy()
    code = np.unique(data["a"], return_inverse=True)[1]
    total = 0.0
    for g in range(code.max() + 1):
        x, k = data["x"].to_numpy()[code == g], data["k"].to_numpy()[code == g]

        def f(u, x=x, k=k):
            b = lam @ u
            mu = np.exp(float(beta[0]) + float(beta[1]) * x + b[0] + b[1] * x)
            return -nbinom(1 / alpha, 1 / (1 + alpha * mu)).logpmf(k).sum() + 0.5 * u @ u

        u = minimize(f, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
        h, e = 1e-3, np.eye(2)
        H = np.array(
            [
                [
                    (
                        f(u + h * (e[i] + e[j]))
                        - f(u + h * (e[i] - e[j]))
                        - f(u - h * (e[i] - e[j]))
                        + f(u - h * (e[i] + e[j]))
                    )
                    / (4 * h * h)
                    for j in range(2)
                ]
                for i in range(2)
            ]
        )
        total += -f(u) - 0.5 * np.linalg.slogdet(H)[1]
    assert o.value(theta) == pytest.approx(total, abs=2e-5)


def test_frequency_weights_are_repeated_rows():
    data = crossed(60)
    repeated = data.loc[data.index.repeat(data["w"])]
    for family, y in (("normal", "y"), ("poisson", "k")):
        one = th.fit(f"{y} ~ x + (1 | a) + (1 | b)", data, family, weights="w")
        other = th.fit(f"{y} ~ x + (1 | a) + (1 | b)", repeated, family)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-9)
        assert np.allclose(one.estimates, other.estimates, atol=1e-6)


def test_a_variance_of_zero_is_a_certified_maximum():
    """Rows that vary less between groups than within: R 4.2.2, lmer of Dyestuff2, has the variance 0."""
    g = np.random.default_rng(0)
    within = g.normal(size=(6, 5))
    data = pd.DataFrame(
        {"y": (within - within.mean(1, keepdims=True)).reshape(-1), "g": np.repeat(list("abcdef"), 5)}
    )
    fit = th.fit("y ~ 1 + (1 | g)", data)
    assert fit.certificate.ok
    assert fit.estimates["sd(Intercept | g)"] == pytest.approx(0.0, abs=1e-8)
    assert fit.log_likelihood == pytest.approx(th.fit("y ~ 1", data).log_likelihood, abs=1e-10)


@pytest.mark.skipif(not R.exists(), reason="R's data are not at hand")
@pytest.mark.parametrize(
    ("name", "formula", "settings"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
        ("sleepstudy#reml", "Reaction ~ Days + (Days | Subject)", {"reml": True}),
        ("sleepstudy#uncorrelated", "Reaction ~ Days + (Days || Subject)", {}),
        ("Dyestuff", "Yield ~ 1 + (1 | Batch)", {}),
        ("Dyestuff2", "Yield ~ 1 + (1 | Batch)", {}),
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
        ("cbpp", "incidence ~ C(period) + (1 | herd)", {"family": "binomial", "trials": "size"}),
        (
            "Owls",
            "SiblingNegotiation ~ FoodTreatment*SexParent + (1 | Nest) + offset(log(BroodSize))",
            {"family": "zero_inflated(negative_binomial)"},
        ),
        (
            "Salamanders#nb",
            "count ~ spp + mined + (1 | site)",
            {"family": "negative_binomial", "dispersion": "~ DOY"},
        ),
    ],
)
def test_r_agrees(name, formula, settings):
    """lme4 1.1-31 and glmmTMB 1.1.5: log-likelihoods to 1e-5 (Laplace 1e-3, never below), standard deviations to 4 digits."""
    truth = json.loads((R / "truths.json").read_text())[name]
    fit = th.fit(formula, pd.read_csv(R / truth["data"]), **settings)
    assert fit.certificate.ok
    error = 1e-5 if "family" not in settings else 1e-3  # where lme4's optimiser stops short, ours is higher
    assert -1e-5 <= fit.maximised - truth["logLik"] <= error
    sds = [v for n, v in fit.estimates.items() if n.startswith("sd(")]
    theirs = (
        [row["sdcor"] for row in truth["varcorr"] if row["grp"] != "Residual" and "var2" not in row]
        if "varcorr" in truth
        else [v for group in truth["sd"].values() for v in group.values()]
    )
    assert sorted(sds) == pytest.approx(sorted(theirs), rel=1e-3 if name == "cbpp" else 2e-4, abs=1e-6)


def test_predictions_of_known_groups_have_hendersons_covariance():
    data = crossed(60)
    fit = th.fit("y ~ x + (x | a) + (1 | b)", data)
    found = fit.predict(level=0.95)
    model, batch = fit.model, next(iter(fit.source.batches()))
    p = 2
    X = np.column_stack([np.ones(60), data["x"]])
    sigma = fit.estimates["scale"]
    Z = []  # ZΛ, so that a covariance of rank 1 needs no inverse
    for r, at in zip(model.random, model.places, strict=True):
        lam = sigma * r.structure.factor(model.covariance.detach()[at]).numpy()
        code = np.eye(int(batch[f"group{r.source}"].max()) + 1)[batch[f"group{r.source}"].numpy()]
        own = X if len(lam) == 2 else np.ones((60, 1))
        Z.append((code[:, :, None] * own[:, None, :]).reshape(60, -1) @ np.kron(np.eye(code.shape[1]), lam))
    C = np.hstack([X, *Z])
    penalty = np.diag([0.0] * p + [1.0] * (C.shape[1] - p))
    V = np.linalg.inv(C.T @ C / sigma**2 + penalty)
    mean = C @ V @ C.T @ data["y"].to_numpy() / sigma**2
    error = np.sqrt(np.einsum("ij,jk,ik->i", C, V, C))
    assert np.allclose(found["value"], mean, atol=1e-8)
    assert np.allclose((found["high"] - found["low"]) / 2 / 1.959963984540054, error, atol=1e-8)


BAD = [
    ("y ~ x + (1 | c)", th.errors.UnknownColumn, "c"),
    ("y ~ x + (1 | one)", th.errors.BadFormula, "one group only"),
    ("y ~ x + (1 | row)", th.errors.BadFormula, "one row a group"),
    ("y ~ x + (ga | a)", th.errors.BadFormula, "constant within every group"),
    ("y ~ x + ( | a)", th.errors.BadFormula, "nothing before the |"),
    ("y ~ x + (1 | )", th.errors.BadFormula, "after the |"),
    ("y ~ x + 1 | a", th.errors.BadFormula, "in brackets"),
    ("y ~ x + (1 | x)", th.errors.BadFormula, "a number with a fraction"),
    ("y ~ x + (1 | log(a))", th.errors.BadFormula, "is not a column"),
    ("y ~ x + (1 | a) + (1 | a)", th.errors.BadFormula, "stands twice"),
    ("y ~ x + cs(1 | a)", th.errors.BadFormula, "several effects"),
    ("y ~ x + (offset(x) | a)", th.errors.BadFormula, "offset"),
    ("y ~ x - (1 | a)", th.errors.BadFormula, "taken away"),
]


@pytest.mark.parametrize(("formula", "error", "says"), BAD)
def test_a_random_term_that_cannot_be_is_refused_by_name(formula, error, says):
    data = crossed(30)
    data = data.assign(one="u", row=[f"r{i}" for i in range(30)], ga=data["a"].str[1:].astype(float))
    with pytest.raises(error, match="(?i)" + says.replace("|", r"\|")):
        th.fit(formula, data)


def test_reml_and_quadrature_without_random_effects_are_refused():
    data = crossed(30)
    with pytest.raises(th.errors.BadArgument, match="reml=True"):
        th.fit("y ~ x", data, reml=True)
    with pytest.raises(th.errors.BadArgument, match="quadrature=5"):
        th.fit("y ~ x", data, quadrature=5)


def test_a_new_group_is_predicted_only_where_random_effects_are_left_out():
    data = crossed(40)
    fit = th.fit("y ~ x + (1 | a)", data)
    new = pd.DataFrame({"x": [0.0], "a": ["elsewhere"]})
    with pytest.raises(th.errors.UnknownLevel, match="groups='average'"):
        fit.predict(new)
    assert float(fit.predict(new, groups="average").iloc[0]) == pytest.approx(fit.estimates["Intercept"])
    bare = new.drop(columns="a")
    for settings in (
        {"level": 0.9},
        {"what": "quantile", "level": 0.9},
    ):
        expected = fit.predict(new, groups="average", **settings)
        assert np.array_equal(fit.predict(bare, groups="average", **settings), expected)
    with pytest.raises(th.errors.UnknownColumn, match="'a'"):
        fit.predict(bare)
    with pytest.raises(th.errors.BadArgument, match="groups='all'"):
        fit.predict(new, groups="all")
    with pytest.raises(th.errors.BadArgument, match="no random effects"):
        th.fit("y ~ x", data).predict(new, groups="average")


def test_predictions_of_average_groups_have_the_intervals_of_their_coefficients():
    """R: lmerTest::contest(lmer(y ~ x + (1 | a), d), c(1, 1), joint = FALSE)'s interval is β̂₀ + β̂₁ ± qt(.975, df) s.e. with
    Satterthwaite's df: `fit.predictions` of the same row, whose figures tests/evaluation/test_margins.py holds against emmeans.
    Of another covariance, that covariance's, or the refusal of it; of known groups no other than the joint one."""
    data = crossed(60)
    fit = th.fit("y ~ x + (1 | a)", data, reml=True)
    new = pd.DataFrame({"x": [0.0, 1.0]})
    found = fit.predict(new, level=0.95, groups="average")
    own = fit.predictions(at={"x": [0.0, 1.0]}).frame
    assert "df" in own
    np.testing.assert_allclose(found, own[["estimate", "low", "high"]], rtol=1e-9)
    ends = fit.intervals().loc["Intercept"]
    np.testing.assert_allclose(found.iloc[0][["low", "high"]], ends, rtol=1e-9)
    observed = fit.predict(new, level=0.95, groups="average", covariance="observed")
    ends = fit.intervals(covariance="observed").loc["Intercept"]
    np.testing.assert_allclose(observed.iloc[0][["low", "high"]], ends, rtol=1e-9)
    with pytest.raises(th.errors.BadArgument, match="share what is not observed"):
        fit.predict(new, level=0.95, groups="average", by="a")
    counts = th.fit("k ~ x + (1 | a)", data.assign(k=np.round(np.exp(data["y"] / 3))), "poisson")
    both = counts.predict(new, level=0.95, groups="average"), counts.predictions(at={"x": [0.0, 1.0]}).frame
    np.testing.assert_allclose(both[0], both[1][["estimate", "low", "high"]], rtol=1e-9)
    with pytest.raises(th.errors.BadArgument, match="joint covariance"):
        fit.predict(data.head(2), level=0.95, by="a")


def test_too_many_effects_beside_the_largest_factor_are_refused(monkeypatch):
    """Before a dense matrix of them is made."""
    monkeypatch.setattr("thetahat.models.cross_products.WIDEST", 5)
    with pytest.raises(th.errors.BadArgument, match="at most 5 are accepted"):
        th.fit("y ~ x + (1 | a) + (1 | b)", crossed())


@pytest.mark.parametrize("q", [2, 3, 5])
@pytest.mark.parametrize("z", [-1.5, -0.4, 0.3, 1.57, math.pi / 2, 3.0])
def test_the_factor_of_one_correlation_is_its_square_root(q, z):
    """L Lᵀ is the matrix of correlations, at the end ρ = 1 too, and its slopes are finite there."""
    from thetahat.models.scales import Autoregressive, CompoundSymmetry

    at = torch.arange(q)
    far = (at[:, None] - at).abs()
    for kind in (CompoundSymmetry(q), Autoregressive(q)):
        t = torch.tensor(z, dtype=torch.float64)
        rho = kind.rho(t)
        wanted = torch.where(far == 0, 1.0, rho if isinstance(kind, CompoundSymmetry) else rho**far)
        assert torch.allclose(kind.root(t) @ kind.root(t).T, wanted, atol=1e-14)
        assert torch.isfinite(torch.autograd.functional.jacobian(kind.root, t)).all()


@pytest.mark.parametrize(("structure", "seed"), [("cs", 5), ("ar1", 3)])
def test_a_correlation_of_one_is_a_certified_boundary(structure, seed):
    """Levels of f that share one effect a group: the maximum is that of (1 | g), which is the oracle."""
    r = np.random.default_rng(seed)
    g, f = np.repeat(np.arange(8), 12), np.tile(np.repeat(list("abc"), 4), 8)
    data = {"y": r.normal(size=8)[g] + 0.5 * r.normal(size=96), "g": g, "f": f}
    fit = th.fit(f"y ~ {structure}(0 + f | g)", data)
    assert fit.certificate.status == "boundary"
    assert any("corr(" in name for name in fit.certificate.boundary)
    one = th.fit("y ~ (1 | g)", data)
    assert fit.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-8)


def test_the_lower_end_of_one_correlation_is_a_certified_boundary():
    """Effects that sum to 0 in each group: the maximum over (β, s, σ) of the dense density at ρ = −1/(q − 1), by SciPy."""
    r, q, L = np.random.default_rng(2), 4, 12
    g, f = np.repeat(np.arange(L), 2 * q), np.tile(np.repeat(np.arange(q), 2), L)
    y = r.normal(size=(L, q))[g, f] + 0.5 * r.normal(size=len(g))
    y -= (np.bincount(g, y) / (2 * q))[g]  # no group differs in its mean
    data = pd.DataFrame({"y": y, "g": g, "f": [f"l{v}" for v in f]})
    fit = th.fit("y ~ cs(0 + f | g)", data)
    name = "corr(f[l0] … | g)"
    assert fit.certificate.status == "boundary"
    assert fit.certificate.boundary == {name: "one whose effects sum to 0 in each group"}
    assert fit.estimates[name] == pytest.approx(-1 / (q - 1), abs=1e-9)
    Z = (f[:, None] == np.arange(q)).astype(float)
    C = Z @ ((q * np.eye(q) - 1) / (q - 1)) @ Z.T * (g[:, None] == g)

    def least(t):
        V = np.exp(2 * t[1]) * C + np.exp(2 * t[2]) * np.eye(len(g))
        return -multivariate_normal(np.full(len(g), t[0]), V).logpdf(y)

    best = minimize(least, [0.0, 0.0, -0.7], method="BFGS", options={"gtol": 1e-7})
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-8)
    table = fit.variance_components()
    assert table["low"][1] == pytest.approx(-1 / (q - 1), abs=1e-12)
    assert -1 / (q - 1) < table["high"][1] < 0
    assert "per unit of correlation" in fit.certificate.detail


def test_a_correlation_has_its_wald_interval_inside_its_range():
    r, q, L = np.random.default_rng(2), 4, 30
    g, f = np.repeat(np.arange(L), 2 * q), np.tile(np.repeat(np.arange(q), 2), L)
    y = r.normal(size=(L, q))[g, f] + 0.5 * r.normal(size=len(g))
    fit = th.fit("y ~ cs(0 + f | g)", {"y": y, "g": g, "f": [f"l{v}" for v in f]})
    found = fit.variance_components(intervals="wald").iloc[1]
    assert -1 / (q - 1) < found["low"] < found["correlation"] < found["high"] < 1
    profile = fit.variance_components().iloc[1]
    assert found[["low", "high"]].to_numpy() == pytest.approx(
        profile[["low", "high"]].to_numpy(float), abs=0.03
    )


def test_a_standard_deviation_near_0_has_no_wald_interval():
    """Its logarithm's would be 0.0008 to 15 here, of a profile that ends at 0.415. The summary says so, and where that is."""
    r = np.random.default_rng(4)
    g = np.repeat(np.arange(40), 4)
    fit = th.fit("y ~ (1 | g)", {"y": 0.1 * r.normal(size=40)[g] + r.normal(size=160), "g": g})
    name = "sd(Intercept | g)"
    assert fit.estimates[name] > 0.01
    low, high = fit.intervals().loc[name]
    assert low == 0.0
    assert np.isnan(high)
    low, high = fit.variance_components()[["low", "high"]].iloc[0]
    assert low == 0.0
    assert fit.estimates[name] < high < 0.5
    assert "fit.variance_components() has its profile interval" in " ".join(str(fit.summary()).split())


@pytest.mark.parametrize(
    ("formula", "family", "says"),
    [
        ("s ~ x + (1 | g)", "bernoulli", "completely separated by 1·x − "),
        ("s ~ x + s(z)", "bernoulli", "completely separated"),
        ("t ~ f + (1 | g)", "bernoulli", "quasi-completely separated by 1 − 1·f[T.b]"),
        ("c ~ f + (1 | g)", "poisson", "rows are separated by 1·f[T.b]"),
        ("c ~ f + (1 | g)", "negative_binomial", "rows are separated by 1·f[T.b]"),
        ("Surv(time, s) ~ w + (1 | g)", "cox", "largest w of those at risk"),
    ],
)
def test_rows_that_fixed_effects_separate_have_no_maximum_whatever_the_random_ones(formula, family, says):
    """At every b the row's log p rises along the direction, and so does its integral: the verdict is that of the model
    without random effects.
    """
    r = np.random.default_rng(0)
    data = pd.DataFrame({"x": r.random(200), "z": r.random(200), "g": r.integers(0, 20, 200)})
    up = data["x"] > 0.5
    data["s"], data["w"], data["f"] = up * 1.0, up * 1.0, np.where(up, "a", "b")
    data["t"], data["c"] = np.where(up, 1.0, r.integers(0, 2, 200)), up * r.poisson(3, 200)
    data["time"] = r.exponential(size=200)
    with pytest.raises(th.errors.NoMaximum, match=re.escape(says)):
        th.fit(formula, data, family)
    held = th.fit(formula, data, family, prior=th.priors.Normal(2.5))
    assert held.certificate.ok


@pytest.mark.parametrize("family", ["normal", "poisson"])
@pytest.mark.parametrize("formula", ["y ~ x + w + (1 | g)", "y ~ x + s(x)", "y ~ s(x) + s(w)"])
def test_collinear_fixed_effects_are_named_and_no_inner_error_escapes(formula, family):
    r = np.random.default_rng(0)
    data = pd.DataFrame({"x": r.random(80), "g": r.integers(0, 8, 80), "y": r.poisson(2, 80)})
    data["w"] = data["x"]
    fit = th.fit(formula, data, family=family, on_failure="return")
    assert fit.certificate.status == "flat direction"
    assert len(fit.certificate.directions) == 1
    with pytest.raises(th.errors.FlatDirection):
        th.fit(formula, data, family=family)
    asked = (
        fit.smooths,
        fit.concurvity,
        fit.random_effects,
        fit.variance_components,
        lambda: fit.predict(data),
    )
    for question in asked:
        with contextlib.suppress(th.errors.ThetahatError):
            question()
    str(fit.summary())


@pytest.mark.parametrize("reml", [False, True])
def test_an_intercept_without_variance_beside_a_free_slope_is_a_boundary(reml):
    """Residuals free of group means and of slopes' covariance with them: the fit is that of (0 + x | g)."""
    g = np.random.default_rng(1)
    x, slopes, e = np.arange(-2.0, 3.0), g.normal(size=8), g.normal(size=(8, 5))
    y = 1 + 2 * x + np.outer(slopes - slopes.mean(), x) + 0.5 * (e - e.mean(1, keepdims=True))
    data = pd.DataFrame({"y": y.ravel(), "x": np.tile(x, 8), "g": np.repeat(list("abcdefgh"), 5)})
    both, alone = (th.fit(f"y ~ x + ({effects} | g)", data, reml=reml) for effects in ("x", "0 + x"))
    assert list(both.certificate.boundary) == ["sd(Intercept | g)"]
    assert both.maximised == pytest.approx(alone.maximised, abs=1e-9)
    assert both.estimates["sd(x | g)"] == pytest.approx(alone.estimates["sd(x | g)"], rel=1e-6)
    errors = both.standard_errors()
    assert errors["x"] == pytest.approx(alone.standard_errors()["x"], rel=1e-6)
    assert errors["sd(x | g)"] == pytest.approx(alone.standard_errors()["sd(x | g)"], rel=1e-3)
    assert np.isnan(both.estimates["corr(Intercept, x | g)"])


def test_a_mean_beside_its_scale_may_curve_upward_in_the_fixed_effects_where_the_iterations_begin() -> None:
    """glmmTMB(z ~ x + h + (1 | g), dispformula = ~ h): −39.0897981501. The block of the fixed effects is not positive definite at
    the start, and the integral over the random effects does not need it."""
    g = np.random.default_rng(21)
    data = pd.DataFrame({"x": g.normal(size=40), "g": g.choice(list("abcdef"), 40)})
    data["h"], data["z"] = np.where(data["x"] > 0, "a", "b"), g.normal(size=40) + data["x"]
    fit = th.fit("z ~ x + h + (1|g)", data, scale="~ h")
    assert fit.certificate.status == "boundary"
    assert fit.maximised == pytest.approx(-39.0897981501, abs=1e-8)


def test_an_interval_of_a_new_y_does_not_leave_out_how_groups_differ() -> None:
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=60), "g": np.repeat(np.arange(10), 6)}
    fit = th.fit(
        "y ~ x + (1 | g)", data | {"y": data["x"] + rng.normal(size=10)[data["g"]] + rng.normal(size=60)}
    )
    with pytest.raises(th.errors.BadArgument, match="too narrow for a new group"):
        fit.predict(data, level=0.95, kind="prediction", groups="average")


def test_anova_takes_the_errors_that_were_chosen() -> None:
    """Of clusters the likelihood ratio knows nothing."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(np.arange(10), 6)})
    data["k"] = rng.poisson(np.exp(0.3 * data["x"]))
    fit = th.fit("k ~ x", data, "poisson", covariance="cluster", by="g")
    assert fit.anova(2).loc["x", "p_value"] == pytest.approx(fit.test("x = 0").p_value, rel=1e-9)
    assert fit.drop1().loc["x", "p_value"] == pytest.approx(fit.test("x = 0").p_value, rel=1e-9)
