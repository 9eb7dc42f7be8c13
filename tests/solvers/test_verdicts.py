"""What is said of a fit that is more, or less, than a maximum: separation, boundaries, flat directions,
points that have not converged.

The oracle of each is by hand, by scipy's own optimiser on a log-likelihood of scipy.stats, or a published
figure.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

import thetahat as th
from thetahat.errors import FitError, FlatDirection, NoMaximum, NotConverged

SEPARATED = {"x": [0.0, 0, 0, 0, 1, 1], "y": [0.0, 1, 1, 2, 0, 0]}
COUNTS = [
    "poisson",
    "geometric",
    "negative_binomial",
    "negative_binomial_1",
    "generalized_poisson",
    "zero_inflated_poisson",
    "zero_inflated_negative_binomial",
]


# ---- separation before boundaries --------------------------------------------------------------------------


@pytest.mark.parametrize("family", COUNTS)
def test_counts_that_are_0_on_one_side_have_no_maximum_whatever_their_dispersion(family):
    """By hand: with every y = 0 where x = 1, log p rises as β → −∞, at any dispersion; rows 4 and 5 say
    so."""
    with pytest.raises(NoMaximum) as error:
        th.fit("y ~ x", SEPARATED, family)
    assert error.value.certificate.rows == (4, 5)
    assert set(error.value.certificate.directions[0]) >= {"x"}


@pytest.mark.parametrize("family", ["binomial", "beta_binomial"])
def test_shares_that_are_0_on_one_side_have_no_maximum(family):
    with pytest.raises(NoMaximum) as error:
        th.fit("y ~ x", SEPARATED, family, trials=3)
    assert error.value.certificate.rows == (4, 5)


def test_what_is_separated_is_said_beside_what_is_flat():
    """x separates, and z repeats it: the direction of the separation, and that the two cannot be told
    apart."""
    data = {"x": [1.0, 2, 3, 4], "z": [2.0, 4, 6, 8], "y": [0.0, 0, 1, 1]}
    with pytest.raises(FitError) as error:
        th.fit("y ~ x + z", data, "bernoulli")
    assert "separated" in str(error.value)
    assert "cannot tell" in str(error.value)


def test_a_column_that_never_meets_a_positive_count_is_flat_in_a_hurdle():
    """By hand: the positive part of a hurdle sees the rows of y > 0 alone, where this x is 0 throughout."""
    with pytest.raises(FlatDirection) as error:
        th.fit("y ~ x", {"x": [0.0, 0, 0, 1, 1, 0, 0], "y": [1.0, 2, 4, 0, 0, 3, 0]}, "hurdle_poisson")
    assert [set(d) for d in error.value.certificate.directions] == [{"x"}]


# ---- rows that say nothing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["weibull", "lognormal", "gamma", "loglogistic", "normal", "logistic"])
@pytest.mark.parametrize("n", [1, 3])
def test_one_interval_repeated_is_not_a_fit(family, n):
    """By hand: P(1 < Y ≤ 10) comes as near to 1 as one likes when the spread shrinks: the supremum, 0
    nats, is not attained."""
    with pytest.raises((NoMaximum, NotConverged, FlatDirection)):
        th.fit('Surv(low, high, type="interval2") ~ 1', {"low": [1.0] * n, "high": [10.0] * n}, family)


@pytest.mark.parametrize("family", ["normal", "student_t", "logistic", "laplace"])
def test_a_perfect_fit_has_no_maximum_where_the_scale_is_free(family):
    """By hand: y = 1 + 2x exactly, and the density grows without bound as the scale → 0."""
    x = np.arange(6.0)
    with pytest.raises(FitError):
        th.fit("y ~ x", {"x": x, "y": 1 + 2 * x}, family)


@pytest.mark.parametrize(
    ("family", "value", "parameter"),
    [("gamma", 1.0, "dispersion"), ("inverse_gaussian", 1.0, "dispersion"), ("beta", 0.5, "precision")],
)
def test_equal_responses_have_no_maximum_where_the_spread_is_free(family, value, parameter):
    """By hand: every y is the mean, and the density there grows without bound as the spread → 0."""
    with pytest.raises(NoMaximum, match=f"as {parameter} runs to the end of its range") as error:
        th.fit("y ~ x", {"x": np.arange(12.0), "y": [value] * 12}, family)
    assert error.value.certificate.rows == tuple(range(12))


@pytest.mark.parametrize("value", [2.5, 7.0, 0.3, 1e-4, 3e5])
@pytest.mark.parametrize("right", ["1", "x"])
def test_equal_responses_of_a_tweedie_have_no_maximum_and_are_told_soon(value, right):
    """By hand: the density at y = μ grows as φ^(−½) as φ → 0, where its series has no digits left in float64."""
    begin = time.process_time()
    with pytest.raises(NoMaximum, match=r"perfect.*rows 0, 1.*as dispersion runs to the end") as error:
        th.fit(f"y ~ {right}", {"y": [value] * 12, "x": np.arange(12.0)}, "tweedie")
    assert error.value.certificate.rows == tuple(range(12))
    assert time.process_time() - begin < 2
    data = {"y": [value] * 12, "x": np.arange(12.0)}
    assert th.fit(f"y ~ {right}", data, "tweedie", dispersion=0.5, power=1.5).certificate.ok


def test_a_held_scale_makes_no_perfect_fit_of_large_numbers():
    """Least squares by hand: slope 1.05e12, intercept 0, and Σ r²/2 = 8.75e22 nats are lost."""
    data = {"y": [1e12, 2e12, 3.5e12, 4e12], "x": [1.0, 2, 3, 4]}
    fit = th.fit("y ~ x", data, "normal", scale=1.0)
    assert fit.certificate.status == "certified maximum"
    np.testing.assert_allclose(fit.estimates["x"], 1.05e12, rtol=1e-12)
    assert fit.log_likelihood == pytest.approx(-8.75e22, rel=1e-9)


# ---- boundaries --------------------------------------------------------------------------------------------


def even_counts():
    """Binomial counts: less variance than a Poisson's."""
    rng = np.random.default_rng(0)
    return {"y": rng.binomial(10, 0.5, 60).astype(float), "x": rng.normal(size=60)}


@pytest.mark.parametrize("family", ["negative_binomial", "negative_binomial_1"])
@pytest.mark.parametrize("scale", [None, 2.5])
def test_a_dispersion_of_0_is_poisson_with_a_prior_on_the_others_or_without(family, scale):
    """The Poisson fit itself, by scipy's BFGS on Σ log Poisson − Σ β²/2s²."""
    data, prior = even_counts(), None if scale is None else th.priors.Normal(scale)
    X = np.column_stack([np.ones(60), data["x"]])

    def minus(b):  # a prior of the library leaves the intercept alone
        penalty = 0.0 if scale is None else stats.norm(0, scale).logpdf(b[1:]).sum()
        return -stats.poisson.logpmf(data["y"], np.exp(X @ b)).sum() - penalty

    b = minimize(minus, [1.0, 0.0], method="BFGS", options={"gtol": 1e-7}).x
    fit = th.fit("y ~ x", data, family, prior=prior)
    assert fit.certificate.status == "boundary"
    assert fit.certificate.boundary == {"dispersion": "Poisson"}
    np.testing.assert_allclose(fit.estimates[["Intercept", "x"]], b, rtol=1e-4, atol=1e-5)


def test_the_skew_normal_leaves_the_stationary_point_at_shape_0():
    """At shape 0 the score vanishes for any data; scipy's skewnorm finds a higher point beside it, and so
    does the fit."""
    y = np.random.default_rng(3).gamma(6.0, size=150)
    fit = th.fit("y ~ 1", {"y": y}, "skew_normal")

    def minus(p):
        return -stats.skewnorm.logpdf(y, p[2], p[0], np.exp(p[1])).sum()

    best = min(
        minimize(
            minus,
            [y.mean(), np.log(y.std()), a],
            method="Nelder-Mead",
            options={"maxiter": 4000, "fatol": 1e-10},
        ).fun
        for a in (-2.0, 2.0)
    )
    assert fit.certificate.ok
    assert fit.log_likelihood >= -best - 1e-6
    assert fit.log_likelihood > stats.norm.logpdf(y, y.mean(), y.std()).sum() + 0.5


def test_a_boundary_is_left_where_a_point_inside_is_higher():
    """Counts of two means: the mixture of two Poissons, by EM in plain numpy from the thirds of the data, is
    above the Poisson of one mean."""
    rng = np.random.default_rng(4)
    y = np.r_[rng.poisson(2, 60), rng.poisson(9, 20)].astype(float)
    m, w = np.array([1.0, 10.0]), np.array([0.5, 0.5])
    for _ in range(3000):
        p = w * stats.poisson.pmf(y[:, None], m)
        r = p / p.sum(1, keepdims=True)
        w, m = r.mean(0), (r * y[:, None]).sum(0) / r.sum(0)
    inside = np.log((w * stats.poisson.pmf(y[:, None], m)).sum(1)).sum()
    fit = th.fit("y ~ 1", {"y": y}, th.families.MixtureOf(th.families.Poisson(), 2))
    assert fit.log_likelihood == pytest.approx(inside, abs=1e-6)


# ---- units and starts --------------------------------------------------------------------------------------


def test_counts_of_a_thousand_million_are_fitted():
    """R: MASS::glm.nb of the same counts gives 20.976326, 0.798728, and 1/θ = 0.187186."""
    y = np.round(np.array([1.1, 3.2, 3.9, 20.3, 48.7, 30.1]) * 1e9)
    fit = th.fit("y ~ x", {"x": np.arange(6.0), "y": y}, "negative_binomial")
    assert fit.certificate.ok
    np.testing.assert_allclose(fit.estimates, [20.976326, 0.798728, 0.187186], atol=1e-6)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e3, 1e9])
def test_the_verdict_does_not_depend_on_the_unit_of_a_column(unit):
    """Equivariance: the slope is divided by the unit, and ℓ stays."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=80)
    y = rng.poisson(np.exp(0.3 + 0.5 * x)).astype(float)
    one, other = (th.fit("y ~ x", {"x": x * u, "y": y}, "negative_binomial") for u in (1.0, unit))
    assert one.certificate.status == other.certificate.status
    assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-7)
    assert other.estimates["x"] * unit == pytest.approx(one.estimates["x"], rel=1e-5)


def test_steps_that_are_used_up_are_not_called_proof():
    """Under "not converged" the gap is that of the local quadratic model, and the certificate says so."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=50)
    fit = th.fit(
        "y ~ x",
        {"x": x, "y": rng.poisson(np.exp(3 + x))},
        "poisson",
        solver=th.Newton(steps=1),
        on_failure="return",
    )
    assert fit.certificate.status == "not converged"
    assert "local quadratic model" in str(fit.certificate)
    assert "gap to the maximum" not in str(fit.certificate)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "gamma", "weibull", "student_t"])
def test_standard_errors_of_a_certified_fit_are_numbers(family):
    rng = np.random.default_rng(7)
    x = rng.normal(size=60)
    y = rng.negative_binomial(2, 0.3, 60) + (family not in ("poisson", "negative_binomial")) * 0.5
    fit = th.fit("y ~ x", {"x": x, "y": y.astype(float)}, family)
    assert fit.certificate.ok
    assert np.isfinite(fit.standard_errors()).all()
    assert (fit.standard_errors() < 100).all()


# ---- the same boundary, whatever is fitted -----------------------------------------------------------------


def light_tails():
    """Errors of lighter tails than a normal's, in groups; and two such heaps."""
    rng = np.random.default_rng(3)
    x, g, e = rng.normal(size=120), np.repeat(np.arange(12), 10), rng.normal(size=120)
    e = np.sign(e) * np.abs(e) ** 0.8
    heaps = np.where(np.arange(120) < 60, e, e + 9)
    few = rng.binomial(10, np.where(g < 6, 0.3, 0.6))
    return {"x": x, "g": g, "y": 1 + x + 0.7 * rng.normal(size=12)[g] + e, "heaps": heaps, "few": few}


@pytest.mark.parametrize("right", ["x + (1 | g)", "s(x, k=5) + (1 | g)"])
def test_a_mixed_student_t_of_light_tails_is_the_normal_one(right):
    """The normal's own integral, which is exact; Laplace's of a t with df → ∞ is the same."""
    data = {name: v for name, v in light_tails().items() if name in "xgy"}
    fit, normal = th.fit(f"y ~ {right}", data, "student_t"), th.fit(f"y ~ {right}", data)
    assert fit.certificate.status == "boundary"
    assert fit.certificate.boundary["df"] == "Normal"
    assert fit.log_likelihood == pytest.approx(normal.log_likelihood, abs=1e-6)
    assert list(fit.estimates.index) == [name.replace("mean", "location") for name in normal.estimates.index]
    assert fit.standard_errors().to_numpy() == pytest.approx(normal.standard_errors().to_numpy(), rel=1e-4)


def test_a_mixed_negative_binomial_of_little_variance_is_poissons(tmp_path):
    data = {name: v for name, v in light_tails().items() if name in ("x", "g", "few")}
    fit = th.fit("few ~ x + (1 | g)", data, "negative_binomial")
    poisson = th.fit("few ~ x + (1 | g)", data, "poisson")
    assert fit.certificate.boundary["dispersion"] == "Poisson"
    assert fit.log_likelihood == pytest.approx(poisson.log_likelihood, abs=1e-6)
    assert fit.estimates.to_numpy() == pytest.approx(poisson.estimates.to_numpy(), rel=1e-4)
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    assert again.certificate == fit.certificate
    np.testing.assert_array_equal(again.predict(data), fit.predict(data))


def test_a_latent_student_t_of_light_tails_is_the_normal_one():
    data = {name: v for name, v in light_tails().items() if name in "xgy"}

    @th.model(a=1.0, b=1.0, s=th.positive(1.0), nu=th.positive(8.0), u=th.latent(by="g"))
    def own(batch, a, b, s, nu, u):
        return th.families.StudentT().at(a + b * batch["x"] + u, s, nu)

    fit, normal = th.fit(own, data), th.fit("y ~ x + (1 | g)", data)
    assert (fit.certificate.status, fit.certificate.boundary) == ("boundary", {"df": "Normal"})
    assert fit.log_likelihood == pytest.approx(normal.log_likelihood, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "column", "named"),
    [
        (
            lambda: th.models.Mixture("student_t", 2),
            "heaps",
            r"0: df has run .* is Normal.* 1: df has run .* is Normal",
        ),
        (lambda: th.models.Mixture("negative_binomial", 1), "few", r"0: dispersion has run .* is Poisson"),
        (lambda: th.models.HMM(2, "student_t"), "heaps", r"state 1: df has run .* is Normal"),
    ],
)
def test_components_and_states_at_their_limit_are_named(make, column, named):
    """Their likelihood has a supremum, that of the simpler family, which no finite parameter attains."""
    model, data = make(), light_tails()[column].astype(float)
    with pytest.raises(FitError, match=named):
        th.fit(model, {"y": data} if isinstance(model, th.models.HMM) else data)


def test_a_likelihood_of_ones_own_names_the_limit_of_its_family():
    @th.model(m=0.0, s=th.positive(1.0), nu=th.positive(6.0))
    def own(batch, m, s, nu):
        return th.families.StudentT().at(m + batch["x"], s, nu)

    data = light_tails()
    with pytest.raises(
        FitError, match=r"df has run to the end of its range, where the family is Normal: use that"
    ):
        th.fit(own, {"x": data["x"], "y": 1 + data["x"] + data["heaps"] % 4})
