"""Predictions of a group that was not fitted: closed forms, numerical integration, and the analysis of variance of a balanced
design."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm, poisson
from scipy.stats import t as student

import thetahat as th

rng = np.random.default_rng(5)
n = 400
g = rng.integers(0, 25, n)
x = rng.normal(size=n)
b = rng.normal(size=25)
TABLE = pd.DataFrame(
    {
        "g": [f"g{i}" for i in g],
        "x": x,
        "c": rng.choice(list("uv"), n),
        "won": (rng.random(n) < expit(0.3 + 0.8 * x + 1.5 * b[g])).astype(float),
        "count": rng.poisson(np.exp(0.4 + 0.3 * x + 0.6 * b[g])).astype(float),
        "y": 1 + x + b[g] + rng.normal(size=n) * 0.5,
    }
)
NEW = pd.DataFrame({"x": [-1.0, 0.0, 2.5], "c": ["u", "v", "u"]}, index=["a", "b", "c"])


@pytest.fixture(scope="module")
def binary() -> th.Fit:
    return th.fit("won ~ x + (x | g)", TABLE, "bernoulli")


@pytest.fixture(scope="module")
def counts() -> th.Fit:
    return th.fit("count ~ x + (1 | g)", TABLE, "poisson")


def test_of_a_log_link_the_mean_is_that_of_the_lognormal(counts: th.Fit) -> None:
    """E exp(η + s v) = exp(η + s²/2)."""
    eta, s = counts.predict(NEW, "linear", groups="average"), counts.estimates["sd(Intercept | g)"]
    pd.testing.assert_series_equal(
        counts.predict(NEW, groups="new"), np.exp(eta + s**2 / 2), rtol=1e-12, check_names=False
    )


def test_of_a_logit_the_mean_is_the_integral(binary: th.Fit) -> None:
    """With random slopes s² = zᵀΣz differs from row to row."""
    found, eta = binary.predict(NEW, groups="new"), binary.predict(NEW, "linear", groups="average")
    e = binary.estimates
    sd, slope, rho = (e[name] for name in ("sd(Intercept | g)", "sd(x | g)", "corr(Intercept, x | g)"))
    for value, centre, z in zip(found, eta, NEW["x"], strict=True):
        s = np.sqrt(sd**2 + 2 * rho * sd * slope * z + (slope * z) ** 2)
        wanted = quad(lambda v, c=centre, s=s: expit(c + s * v) * norm.pdf(v), -12, 12, epsabs=1e-13)[0]
        assert value == pytest.approx(wanted, abs=1e-11)
    shares = binary.predict(NEW, "probabilities", groups="new")
    np.testing.assert_allclose(shares.iloc[:, 1], found, rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("s", [0.3, 1.0, 6.0])
def test_the_rule_is_exact_to_rounding_for_narrow_and_wide_effects(s: float) -> None:
    from thetahat.evaluation.marginal_prediction import nodes

    v, weight = nodes(1, max(1.0, s))
    wanted = quad(lambda u: expit(0.7 + s * u) * norm.pdf(u), -12, 12, epsabs=1e-14, points=[-0.7 / s])[0]
    assert float((torch.sigmoid(0.7 + s * v[:, 0]) * weight).sum()) == pytest.approx(wanted, abs=1e-12)


def test_random_effects_of_two_parameters_are_integrated_together() -> None:
    """E[(1 − π) μ], log μ and logit π both normal: the integrals are a product."""
    fit = th.fit(
        "count ~ x + (1 | g)",
        TABLE.assign(count=np.where(rng.random(n) < 0.3, 0, TABLE["count"])),
        "zero_inflated_poisson",
        inflation="~ (1 | c)",
    )
    e = fit.estimates
    s = {name: e[name] for name in e.index if name.startswith("sd(") or "sd(" in name}
    assert len(s) == 2
    of_mean, of_zero = s.values()
    eta, zero = fit.predict(NEW, "linear", groups="average"), fit.predict(NEW, "inflation", groups="average")
    centre = float(np.log(zero.iloc[0] / (1 - zero.iloc[0])))
    stays = quad(lambda v: expit(-(centre + of_zero * v)) * norm.pdf(v), -12, 12, epsabs=1e-13)[0]
    np.testing.assert_allclose(
        fit.predict(NEW, groups="new"), stays * np.exp(eta + of_mean**2 / 2), rtol=1e-10
    )


def test_the_interval_is_the_delta_method_s_in_coefficients_and_variances(counts: th.Fit) -> None:
    """log m = η + s²/2: a function of the estimates, by automatic differentiation on their natural scale."""
    found = counts.predict(NEW, level=0.9, groups="new")
    delta = counts.delta(
        lambda e: torch.stack(
            [e["Intercept"] + v * e["x"] + e["sd(Intercept | g)"] ** 2 / 2 for v in NEW["x"]]
        )
    )
    half = norm.ppf(0.95) * delta["standard_error"].to_numpy()
    for name, sign in (("low", -1), ("high", 1)):
        np.testing.assert_allclose(np.log(found[name]), delta["estimate"] + sign * half, rtol=1e-9)
    np.testing.assert_allclose(found["value"], counts.predict(NEW, groups="new"), rtol=1e-12)


def test_of_a_normal_response_a_new_y_has_the_variance_of_the_analysis_of_variance() -> None:
    """A balanced layout of 6 groups of 5: with mean squares A between and E within, Var = A/30 + (A − E)/5 + E, of
    2 Var²/(2(A/5)²/5 + 2(4E/5)²/24) degrees of freedom (Satterthwaite)."""
    y = np.array(
        [1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560]
        + [1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445],
        dtype=float,
    )
    fit = th.fit("y ~ 1 + (1 | batch)", {"y": y, "batch": np.repeat(list("ABCDEF"), 5)}, reml=True)
    groups = y.reshape(6, 5)
    A = 5 * groups.mean(1).var(ddof=1)
    E = groups.var(axis=1, ddof=1).mean()
    variance = A / 30 + (A - E) / 5 + E
    df = 2 * variance**2 / (2 * (A / 5) ** 2 / 5 + 2 * (0.8 * E) ** 2 / 24)
    half = student.ppf(0.975, df) * np.sqrt(variance)
    found = fit.predict({"batch": ["Z"]}, level=0.95, kind="prediction", groups="new")
    np.testing.assert_allclose(
        found[["value", "low", "high"]].iloc[0], [y.mean(), y.mean() - half, y.mean() + half], rtol=1e-7
    )
    mean = fit.predict({"batch": ["Z"]}, level=0.95, groups="new")  # of the mean, F's: 5 degrees of freedom
    half = student.ppf(0.975, 5) * np.sqrt(A / 30)
    np.testing.assert_allclose(mean["high"] - mean["value"], half, rtol=1e-6)


def test_an_interval_of_a_new_y_holds_the_share_of_the_mixed_distribution(counts: th.Fit) -> None:
    """P(low ≤ y ≤ high) under the mixture at θ̂, and a little more: the doubt about θ is in the interval too."""
    found = counts.predict(NEW, level=0.9, kind="prediction", groups="new")
    eta, s = counts.predict(NEW, "linear", groups="average"), counts.estimates["sd(Intercept | g)"]
    for centre, (_, row) in zip(eta, found.iterrows(), strict=True):
        inside = quad(
            lambda v, c=centre, r=row: (
                norm.pdf(v)
                * (poisson.cdf(r["high"], np.exp(c + s * v)) - poisson.cdf(r["low"] - 1, np.exp(c + s * v)))
            ),
            -9,
            9,
            limit=400,
        )[0]
        assert 0.89 < inside < 0.985


def test_a_smooth_term_counts_and_the_interval_is_that_of_the_joint_covariance() -> None:
    """Of a normal response the mean of a new group is that of the average one, with its interval."""
    fit = th.fit("y ~ s(x, k=6) + (1 | g)", TABLE)
    new, average = (fit.predict(NEW, level=0.95, groups=which) for which in ("new", "average"))
    pd.testing.assert_frame_equal(new, average, rtol=1e-9)
    wide = fit.predict(NEW, level=0.95, kind="prediction", groups="new")
    e = fit.estimates
    least = 2 * norm.ppf(0.975) * np.hypot(e["sd(Intercept | g)"], e["scale"])
    assert ((wide["high"] - wide["low"]) > least).all()


def test_what_has_no_such_mean_is_refused_with_what_has(counts: th.Fit) -> None:
    refused = th.errors.BadArgument
    with pytest.raises(refused, match="groups='average'"):
        counts.predict(NEW, "linear", groups="new")
    with pytest.raises(refused, match="'confidence', 'prediction'"):
        counts.predict(NEW, level=0.9, kind="plug-in", groups="new")
    with pytest.raises(refused, match="random effects of a formula"):
        th.fit("y ~ x", TABLE).predict(NEW, groups="new")
    with pytest.raises(refused, match="'new' is of predict alone"):
        counts.predictions(groups="new")


def test_sums_of_gradients_are_the_sums_of_their_rows() -> None:
    """Of known groups and a smooth term, on two parameters."""
    from thetahat.evaluation.known_groups import known

    fit = th.fit("count ~ c + s(x, k=5) + (x | g)", TABLE, "negative_binomial", dispersion="~ c + (1 | g)")
    for groups in ("known", "average"):
        model = known(fit.objective, groups)[0].model
        batch = next(iter(fit.source.batches(model)))
        slopes = [torch.from_numpy(rng.normal(size=n)) for _ in range(2)]
        np.testing.assert_allclose(
            model.pulled(batch, slopes), model.gradient_rows(batch, slopes).sum(0), rtol=1e-9, atol=1e-9
        )
