"""Residuals are standard normal where the model is true; residuals and influence of generalised linear models
are statsmodels 0.15's."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats
from scipy.special import ndtr

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument
from thetahat.evaluation.residuals import KINDS, quantile, residuals
from thetahat.families import Family

from ..families.examples import EXAMPLES
from .models import Given, people

DATA = people()
X = np.column_stack([np.ones(300), DATA["x"], DATA["z"]])
CASES = [
    pytest.param(family, parameters, extras, id=f"{family} at {parameters}")
    for entries in EXAMPLES.values()
    for family, parameters, extras in entries
    if type(family).cdf is not Family.cdf and type(family).sample is not Family.sample
]


def drawn(family, parameters, extras, n=2000):
    """y from the family, and its parameters and extras as tensors."""
    theta = [torch.full((n,), p, dtype=torch.float64) for p in parameters]
    given = {name: torch.full((n,), v, dtype=torch.float64) for name, v in extras.items()}
    y = family.sample(*theta, generator=torch.Generator().manual_seed(5), **given)
    return y, theta, given


# ---- quantile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "parameters", "extras"), CASES)
def test_quantile_residuals_are_standard_normal_where_the_model_is_true(family, parameters, extras):
    """Kolmogorov and Smirnov's distance of 2000 draws from the model itself: beyond it once in 10⁶."""
    y, _, given = drawn(family, parameters, extras)
    r = residuals(Given(family, parameters), Tensors({"y": y, **given}), "quantile")
    assert np.isfinite(r).all()
    assert stats.kstest(r, "norm").pvalue > 1e-6


@pytest.mark.parametrize(("family", "parameters", "extras"), CASES)
def test_quantile_residuals_are_those_of_the_cdf(family, parameters, extras):
    """Φ(r) = F(y) for a density, and F(y) − (1 − v)·p(y) where y has a mass: the definition, by the
    family's cdf and log_prob."""
    y, theta, given = drawn(family, parameters, extras, 200)
    v = torch.rand(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    u = ndtr(quantile(family, y, v, theta, given))
    atom = (
        torch.ones(200, dtype=torch.bool)
        if family.measure == "mass"
        else (y == family.support.low) & (family.measure == "mixed")
    )
    mass = torch.where(atom, family.log_prob(y, *theta, **given).exp(), 0.0)
    np.testing.assert_allclose(u, family.cdf(y, *theta, **given) - (1 - v) * mass, rtol=1e-8, atol=1e-9)


def test_far_tails_keep_their_digits():
    """A normal residual is (y − μ)/σ, at 30 standard deviations too; a Poisson count 10³ times too large is
    finite."""
    y = torch.tensor([-30.0, -9.0, 0.0, 9.0, 30.0], dtype=torch.float64)
    np.testing.assert_allclose(
        residuals(Given(th.families.Normal(), (0.0, 1.0)), Tensors({"y": y})), y, rtol=1e-9, atol=1e-12
    )
    far = residuals(
        Given(th.families.Poisson(), (1.0,)), Tensors({"y": torch.tensor([1000.0], dtype=torch.float64)})
    )
    log_p = stats.poisson(1.0).logpmf(1000)
    assert stats.norm.logsf(far[0]) == pytest.approx(
        log_p, abs=8
    )  # between log p(y) + log v and log P(Y ≥ y)


def test_censored_rows_are_spread_over_what_they_may_be():
    """Right: u > F(y); left: u < F(y); an interval: between. Where the model is true, all are normal
    together."""
    family = th.families.Censored(th.families.Weibull())
    rng = np.random.default_rng(0)
    true = 2.0 * rng.weibull(1.5, 3000)
    event = rng.choice([1.0, 0.0, 2.0, 3.0], 3000)
    cut = np.where(event == 0, 1.2, np.where(event == 2, 2.2, 1.0))
    seen = np.where(
        event == 0,
        true > cut,
        np.where(event == 2, true <= cut, np.where(event == 3, (true > cut) & (true <= 2.5), True)),
    )
    event = np.where(seen, event, 1.0)
    y, upper = np.where(event == 1, true, cut), np.full(3000, 2.5)
    tensors = {"y": torch.tensor(y), "event": torch.tensor(event), "upper": torch.tensor(upper)}
    u = ndtr(residuals(Given(family, (2.0, 1.5)), Tensors(tensors)))
    F = stats.weibull_min(1.5, scale=2.0).cdf
    assert (u[event == 0] > F(1.2)).all()
    assert (u[event == 2] < F(2.2)).all()
    assert ((u > F(1.0)) & (u < F(2.5)))[event == 3].all()
    assert stats.kstest(u, "uniform").pvalue > 1e-6


def test_a_seed_decides_the_spread():
    fit = th.fit("claims ~ x", DATA, "poisson")
    np.testing.assert_array_equal(fit.residuals(seed=3), fit.residuals(seed=3))
    assert (fit.residuals(seed=3) != fit.residuals(seed=4)).mean() > 0.9


# ---- the others --------------------------------------------------------------------------------------------

GLMS = {
    "poisson": ("claims", "poisson", sm.families.Poisson()),
    "bernoulli": ("event", "bernoulli", sm.families.Binomial()),
    "normal": ("normal", "normal", sm.families.Gaussian()),
    "gamma": ("positive", "gamma", sm.families.Gamma(sm.families.links.Log())),
}


@pytest.mark.parametrize("name", GLMS)
def test_residuals_of_a_generalised_linear_model_are_statsmodels(name):
    """resid_response, resid_pearson and resid_deviance; ours divide the last two by √dispersion, as the
    likelihood does."""
    response, family, theirs = GLMS[name]
    fit = th.fit(f"{response} ~ x + z", DATA, family)
    glm = sm.GLM(DATA[response], X, family=theirs).fit(tol=1e-13)
    dispersion = {"normal": lambda e: e["scale"] ** 2, "gamma": lambda e: e["dispersion"]}.get(
        name, lambda e: 1.0
    )(fit.estimates)
    np.testing.assert_allclose(fit.residuals("response"), glm.resid_response, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        fit.residuals("pearson"), glm.resid_pearson / np.sqrt(dispersion), rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(
        fit.residuals("deviance"), glm.resid_deviance / np.sqrt(dispersion), rtol=1e-5, atol=1e-6
    )


def test_a_binomial_and_a_negative_binomial_have_deviance_residuals():
    """statsmodels' at the same parameters; y = 0 and y = trials are limits."""
    rng = np.random.default_rng(0)
    data = DATA | {"m": np.full(300, 4.0), "won": rng.binomial(4, 0.4, 300).astype(float)}
    fit = th.fit("won ~ x + z", data, "binomial", trials="m")
    glm = sm.GLM(np.column_stack([data["won"], 4 - data["won"]]), X, family=sm.families.Binomial()).fit(
        tol=1e-13
    )
    assert {0.0, 4.0} <= set(data["won"])
    np.testing.assert_allclose(fit.residuals("deviance"), glm.resid_deviance, rtol=1e-5, atol=1e-6)
    data["n"] = rng.negative_binomial(2.0, 2.0 / (2.0 + np.exp(0.5 * DATA["x"]))).astype(float)
    nb = th.fit("n ~ x + z", data, "negative_binomial")
    glm = sm.GLM(data["n"], X, family=sm.families.NegativeBinomial(alpha=nb.estimates["dispersion"])).fit(
        tol=1e-13
    )
    np.testing.assert_allclose(nb.residuals("deviance"), glm.resid_deviance, rtol=1e-4, atol=1e-5)


def test_a_location_familys_deviance_is_at_its_mode():
    """Laplace: 2(ℓ(y) − ℓ) = 2|y − μ|/b."""
    fit = th.fit("normal ~ 1", DATA, "laplace", on_failure="return")
    centre, scale = fit.predict(what="location"), fit.estimates["scale"]
    expected = np.sign(DATA["normal"] - centre) * np.sqrt(2 * np.abs(DATA["normal"] - centre) / scale)
    np.testing.assert_allclose(fit.residuals("deviance"), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_likelihood_of_ones_own_has_no_residuals(kind):
    @th.model(m=0.0)
    def own(batch, m):
        return th.families.Normal().log_prob(batch["y"], m, torch.tensor(1.0, dtype=torch.float64))

    with pytest.raises(BadArgument, match="no distribution of y"):
        th.fit(own, {"y": DATA["normal"]}).residuals(kind)


@pytest.mark.parametrize(
    ("formula", "family", "kind", "message"),
    [
        ("choice ~ x", "categorical", "quantile", "no cdf"),
        ("choice ~ x", "categorical", "response", "no mean"),
        ("grade ~ x", "ordinal(levels=('a', 'b', 'c'))", "deviance", "compares with location = y"),
        ("share ~ x", "beta", "deviance", "not largest at mean = y"),
        ("claims ~ x", "poisson", "studentized", "Accepted: 'quantile', 'response', 'pearson', 'deviance'"),
    ],
)
def test_what_a_family_lacks_is_said(formula, family, kind, message):
    data = DATA | {"share": ndtr(DATA["normal"])}
    with pytest.raises(BadArgument, match=message):
        th.fit(formula, data, family).residuals(kind)


def test_a_censored_row_has_quantile_residuals_alone():
    data = DATA | {"seen": np.arange(300) % 3 != 0}
    fit = th.fit("Surv(positive, seen) ~ x", data, "weibull")
    assert np.isfinite(fit.residuals()).all()
    with pytest.raises(BadArgument, match="y was not seen"):
        fit.residuals("response")


# ---- influence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["poisson", "normal", "bernoulli"])
def test_influence_is_statsmodels(name):
    """get_influence: hat_matrix_diag, cooks_distance; a normal's at the σ² that maximises the likelihood,
    RSS/n."""
    response, family, theirs = GLMS[name]
    fit = th.fit(f"{response} ~ x + z", DATA, family)
    scale = fit.estimates["scale"] ** 2 if name == "normal" else 1.0
    influence = sm.GLM(DATA[response], X, family=theirs).fit(tol=1e-13, scale=scale).get_influence()
    ours = fit.influence()
    np.testing.assert_allclose(ours["leverage"], influence.hat_matrix_diag, rtol=1e-6)
    np.testing.assert_allclose(ours["cook"], influence.cooks_distance[0], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("weights", [None, "weight"])
def test_leverages_sum_to_the_number_of_coefficients(weights):
    """tr(J J⁻¹) = p: of one parameter's block, of a categorical's logits together, and with frequency
    weights."""
    assert th.fit("positive ~ x + z + region", DATA, "gamma", weights=weights).influence()[
        "leverage"
    ].sum() == pytest.approx(5)
    assert th.fit("choice ~ x + z", DATA, "categorical", weights=weights).influence()[
        "leverage"
    ].sum() == pytest.approx(6)


def test_a_row_counted_c_times_has_the_leverage_of_the_c_together():
    fit = th.fit("claims ~ x", DATA, "poisson", weights="weight")
    count = DATA["weight"].astype(int)
    repeated = (
        th.fit("claims ~ x", {k: np.repeat(v, count) for k, v in DATA.items()}, "poisson")
        .influence()["leverage"]
        .to_numpy()
    )
    np.testing.assert_allclose(
        fit.influence()["leverage"], np.add.reduceat(repeated, np.cumsum(count) - count), rtol=1e-8
    )


def test_a_wide_category_has_leverages_by_the_same_sums():
    """One-way layout of 80 groups of 5: h = 1/5 exactly, the category eliminated."""
    group = np.repeat([f"g{i}" for i in range(80)], 5)
    y = np.random.default_rng(0).normal(size=400)
    fit = th.fit("y ~ group", {"y": y, "group": group})
    np.testing.assert_allclose(fit.influence()["leverage"], 0.2, rtol=1e-8)


def test_cooks_distance_is_what_leaving_a_row_out_does():
    """Normal, σ² held: (β̂ − β̂₍ᵢ₎)'X'X(β̂ − β̂₍ᵢ₎)/(pσ̂²), by refitting without the row."""
    small = {k: v[:25] for k, v in DATA.items()}
    fit, A = th.fit("normal ~ x", small), np.column_stack([np.ones(25), small["x"]])
    beta, sigma = fit.estimates[:2].to_numpy(), fit.estimates["scale"]
    for i in (0, 7, 24):
        without = np.linalg.lstsq(np.delete(A, i, 0), np.delete(small["normal"], i), rcond=None)[0]
        d = beta - without
        assert fit.influence()["cook"][i] == pytest.approx(d @ A.T @ A @ d / (2 * sigma**2), rel=1e-7)


def test_influence_needs_predictors():
    fit = th.fit(th.families.MultivariateNormal(2), np.random.default_rng(0).normal(size=(50, 2)))
    with pytest.raises(BadArgument, match="of a regression"):
        fit.influence()
    with pytest.raises(BadArgument, match="vector"):
        fit.residuals("response")
