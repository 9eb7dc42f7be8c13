"""Censored, Truncated, ZeroInflated and Hurdle: against scipy, mpmath, each other and their own limits."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

import thetahat as th
from thetahat import families as f
from thetahat.errors import BadArgument
from thetahat.families.base import Family

from .count_checks import hand_is_automatic

INF = math.inf


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def no_nan(family, y, eta, extras=None):
    value, score, curvature = family.derivatives(y, eta, extras)
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(s).all() for s in score)
    assert all(torch.isfinite(c).all() for c in curvature.values())


# ---- censored ----------------------------------------------------------------------------------------------


def test_a_censored_row_has_the_probability_of_its_interval():
    y, event, upper = t(0.5, 0.5, 0.5, 0.5), t(1, 0, 2, 3), t(math.nan, math.nan, math.nan, 2.0)
    z = stats.norm(0.3, 1.7)
    expected = [z.logpdf(0.5), z.logsf(0.5), z.logcdf(0.5), math.log(z.cdf(2.0) - z.cdf(0.5))]
    value = f.Censored(f.Normal()).log_prob(y, t(0.3), t(1.7), event=event, upper=upper)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("low", "high"), [(8.0, 9.0), (-9.0, -8.0), (30.0, 31.0), (-0.5, 0.7), (-40.0, 1.0), (-1.0, 60.0)]
)
def test_the_probability_of_an_interval_is_exact_in_both_tails(low, high):
    with mpmath.workdps(400):
        expected = float(mpmath.log(mpmath.ncdf(high) - mpmath.ncdf(low)))
    value = f.Censored(f.Normal()).log_prob(t(low), t(0.0), t(1.0), event=t(3.0), upper=t(high))
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_the_events_of_a_count_sum_to_one():
    """P(Y ≤ 3) + P(3 < Y ≤ 6) + P(Y > 6) = 1."""
    family, y = f.Censored(f.Poisson()), t(3.0, 3.0, 6.0)
    value = family.log_prob(y, t(2.5), event=t(2.0, 3.0, 0.0), upper=t(math.nan, 6.0, math.nan))
    assert torch.exp(value).sum().item() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(value[2], stats.poisson.logsf(6, 2.5), rtol=1e-12)


def test_censoring_that_says_nothing_has_probability_one_and_no_score():
    """A survival time above 0, or one at most infinitely many standard deviations away."""
    family, eta = f.Censored(f.LogNormal()), [t(0.3), t(-0.4)]
    value, score, _ = family.derivatives(t(0.0, -1.0), eta, {"event": t(0.0, 0.0)})
    assert (value == 0).all()
    assert all((s == 0).all() for s in score)


def test_impossible_rows_have_probability_zero_and_are_not_in_the_support():
    family = f.Censored(f.LogNormal())
    y, event, upper = (
        t(0.0, 2.0, 1.0, 1.0, -1.0, 1.0),
        t(2, 3, 3, 4, 1, 2),
        t(0.0, 1.0, math.nan, 2.0, 0.0, 0.0),
    )
    assert family.in_support(y, event=event, upper=upper).tolist() == [False] * 5 + [True]
    assert torch.isneginf(family.log_prob(y[:4], t(0.3), t(0.7), event=event[:4], upper=upper[:4])).all()


def test_a_censored_row_is_held_to_the_bounds_of_its_own_extras():
    """Nobody succeeds in more than 7 of 7 trials; nobody who entered at 2 was last seen at 1; no count is in
    (7.2, 7.8]."""
    trials = {"trials": t(7.0, 7.0, 7.0), "event": t(0.0, 0.0, 3.0), "upper": t(math.nan, math.nan, 7.0)}
    assert f.Censored(f.Binomial()).in_support(t(7.0, 6.0, 6.5), **trials).tolist() == [False, True, True]
    entry = {"low": t(2.0, 2.0), "event": t(0.0, 0.0)}
    assert f.Censored(f.Truncated(f.LogNormal())).in_support(t(1.0, 2.0), **entry).tolist() == [False, True]
    assert not f.Censored(f.Poisson()).in_support(t(7.2), event=t(3.0), upper=t(7.8))
    left = {"event": t(2.0, 2.0)}
    assert f.Censored(f.Exponential()).in_support(t(0.0, 0.1), **left).tolist() == [False, True]
    assert f.Censored(f.Tweedie()).in_support(t(0.0, 0.1), **left).tolist() == [True, True]


def test_score_and_curvature_are_finite_for_every_event_and_far_in_the_tails():
    y = t(0.0, 1.0, 50.0, 1e-8, 3.0, 1.0, 1e-6, 100.0)
    event, upper = t(0, 0, 0, 2, 2, 3, 3, 3), t(*[math.nan] * 5, 1.0001, 1e6, 101.0)
    for location in (-5.0, 0.0, 5.0):
        no_nan(f.Censored(f.LogNormal()), y, [t(location), t(-1.0)], {"event": event, "upper": upper})


def test_censored_scores_are_those_of_the_tobit_model():
    """∂ log Φ((c − μ)/σ)/∂μ = −φ(z)/(σ Φ(z)) (Tobin 1958)."""
    value, (score, _), _ = f.Censored(f.Normal()).derivatives(
        t(0.0), [t(1.2), t(math.log(2.0))], {"event": t(2.0)}
    )
    z = -1.2 / 2
    assert score.item() == pytest.approx(-stats.norm.pdf(z) / (2 * stats.norm.cdf(z)), rel=1e-12)
    assert value.item() == pytest.approx(stats.norm.logcdf(z), rel=1e-12)


def test_start_of_a_censored_family_is_in_range_whatever_was_seen():
    family = f.Censored(f.LogNormal())
    for y, event in ((t(0.0, 0.0), t(0.0, 0.0)), (t(2.0, 3.0), t(1.0, 0.0)), (t(1.0, 1.0), t(3.0, 2.0))):
        start = family.start(y, torch.ones(2), event=event, upper=t(4.0, math.nan))
        assert start[1] > 0
        assert math.isfinite(start[0])


# ---- truncated ---------------------------------------------------------------------------------------------


def test_a_truncated_normal_is_that_of_scipy():
    y = torch.linspace(0.2, 2.0, 7, dtype=torch.float64)
    mine, theirs = (
        f.Truncated(f.Normal(), low=0.1, high=2.2),
        stats.truncnorm((0.1 - 0.3) / 1.7, (2.2 - 0.3) / 1.7, 0.3, 1.7),
    )
    np.testing.assert_allclose(mine.log_prob(y, t(0.3), t(1.7)), theirs.logpdf(y), rtol=1e-10)
    np.testing.assert_allclose(mine.cdf(y, t(0.3), t(1.7)), theirs.cdf(y), rtol=1e-10)
    np.testing.assert_allclose(mine.expectation(t(0.3), t(1.7)), theirs.mean(), rtol=1e-10)
    np.testing.assert_allclose(mine.variance(t(0.3), t(1.7)), theirs.var(), rtol=1e-8)
    q = t(1e-9, 0.2, 0.7, 1 - 1e-9)
    np.testing.assert_allclose(mine.quantile(q, t(0.3), t(1.7)), theirs.ppf(q), rtol=1e-7)


@pytest.mark.parametrize("mean", [1e-12, 1e-3, 2.0, 500.0])
def test_the_zero_truncated_poisson_is_exact_for_every_mean(mean):
    with mpmath.workdps(60):
        m = mpmath.mpf(mean)
        expected = [
            float(y * mpmath.log(m) - m - mpmath.loggamma(y + 1) - mpmath.log(-mpmath.expm1(-m)))
            for y in (1, 2, 7)
        ]
        average = float(m / -mpmath.expm1(-m))
    family = f.Truncated(f.Poisson(), low=0.0)
    np.testing.assert_allclose(family.log_prob(t(1.0, 2.0, 7.0), t(mean)), expected, rtol=1e-12, atol=1e-13)
    assert family.expectation(t(mean)).item() == pytest.approx(average, rel=1e-13)
    no_nan(family, t(1.0, 2.0, 7.0), [torch.log(t(mean))])


def test_low_is_outside_the_window_and_high_inside_it():
    family = f.Truncated(f.Poisson(), low=0.0, high=3.0)
    assert family.in_support(t(0.0, 1.0, 3.0, 4.0, 1.5)).tolist() == [False, True, True, False, False]
    assert torch.exp(family.log_prob(t(0.0, 1.0, 2.0, 3.0, 4.0), t(2.5))).sum().item() == pytest.approx(
        1.0, abs=1e-14
    )
    assert str(family.support) == "the counts 0, 1, 2, … in [1, 3]"


def test_rows_may_have_windows_of_their_own():
    """Delayed entry: log f(y) − log S(entry), and log S(y) − log S(entry) for a censored row."""
    family = f.Censored(f.Truncated(f.LogNormal()))
    extras = {"low": t(0.5, 0.5, math.nan), "event": t(1.0, 0.0, 1.0)}
    value = family.log_prob(t(2.0, 3.0, 2.0), t(0.3), t(0.7), **extras)
    z = stats.lognorm(0.7, scale=math.exp(0.3))
    np.testing.assert_allclose(
        value, [z.logpdf(2.0) - z.logsf(0.5), z.logsf(3.0) - z.logsf(0.5), z.logpdf(2.0)], rtol=1e-12
    )
    no_nan(family, t(2.0, 3.0, 2.0), [t(0.3), t(-0.4)], extras)


@pytest.mark.parametrize(("low", "high"), [(5.0, INF), (-INF, -5.0), (9.0, 9.5)])
def test_samples_of_a_narrow_window_lie_in_it_and_have_its_mean(low, high):
    family = f.Truncated(f.Normal(), low=low, high=high)
    y = family.sample(
        torch.zeros(2000, dtype=torch.float64), t(1.0), generator=torch.Generator().manual_seed(1)
    )
    assert ((y > low) & (y <= high)).all()
    error = math.sqrt(family.variance(t(0.0), t(1.0)).item() / 2000)
    assert abs(y.mean().item() - family.expectation(t(0.0), t(1.0)).item()) < 5 * error


def test_the_moments_of_a_truncated_heavy_tail_exist_only_where_it_is_cut():
    cauchy = (t(0.0), t(1.0), t(1.0))
    assert not torch.isfinite(f.Truncated(f.StudentT(), low=0.0).expectation(*cauchy)).any()
    cut = f.Truncated(f.StudentT(), low=0.0, high=10.0).expectation(*cauchy)
    assert cut.item() == pytest.approx(math.log(101) / 2 / math.atan(10.0), rel=1e-9)


@pytest.mark.parametrize("y", [1.0, 2.0, 6.0])
def test_a_truncated_poisson_recedes_at_the_ends_of_its_window(y):
    family = f.Truncated(f.Poisson(), low=0.0, high=6.0)
    A, equality = family.recession(t(y))
    at = {sign: family.log_prob_eta(t(y), t(sign * 15.0)).item() for sign in (-1, 1)}
    if equality.item():
        assert max(at.values()) < -10
    else:
        assert at[int(A.item())] == pytest.approx(0.0, abs=1e-5)


# ---- zeros -------------------------------------------------------------------------------------------------


def test_zero_inflation_mixes_a_mass_at_zero():
    value = f.ZeroInflated(f.Poisson()).log_prob(t(0.0, 3.0), t(2.5), t(0.3))
    expected = [math.log(0.3 + 0.7 * math.exp(-2.5)), math.log(0.7) + stats.poisson.logpmf(3, 2.5)]
    np.testing.assert_allclose(value, expected, rtol=1e-13)


def test_without_inflation_the_family_inside_is_left():
    eta = t(0.9)
    y = t(0.0, 1.0, 5.0)
    np.testing.assert_allclose(
        f.ZeroInflated(f.Poisson()).log_prob_eta(y, eta, t(-40.0)),
        f.Poisson().log_prob_eta(y, eta),
        rtol=1e-13,
    )
    assert f.ZeroInflated(f.Poisson()).parameters["inflation"].limit == "Poisson"


def test_a_hurdle_at_its_own_zero_probability_is_the_family_inside():
    """With π = p₀(0), the hurdle changes nothing."""
    y, mean = t(0.0, 1.0, 4.0), t(0.7)
    np.testing.assert_allclose(
        f.Hurdle(f.Poisson()).log_prob(y, mean, torch.exp(-mean)), f.Poisson().log_prob(y, mean), rtol=1e-13
    )


def test_a_hurdle_of_a_density_has_an_atom_at_zero():
    family = f.Hurdle(f.LogNormal())
    assert family.measure == "mixed"
    np.testing.assert_allclose(
        family.log_prob(t(0.0, 2.0), t(0.3), t(0.7), t(0.4)),
        [math.log(0.4), math.log(0.6) + stats.lognorm.logpdf(2.0, 0.7, scale=math.exp(0.3))],
        rtol=1e-13,
    )
    np.testing.assert_allclose(
        family.cdf(t(-1.0, 0.0, 1e9), t(0.3), t(0.7), t(0.4)), [0.0, 0.4, 1.0], rtol=1e-13
    )
    assert family.in_support(t(0.0, 1.0, -1.0)).tolist() == [True, True, False]


@pytest.mark.parametrize("wrapper", [f.ZeroInflated, f.Hurdle])
@pytest.mark.parametrize("eta", [-30.0, 0.0, 7.0, 30.0])
def test_zeros_have_finite_scores_for_tiny_and_huge_means(wrapper, eta):
    for share in (-30.0, 0.0, 30.0):
        no_nan(wrapper(f.Poisson()), t(0.0, 1.0, 9.0), [t(eta), t(share)])


def test_a_link_given_to_a_wrapper_is_that_of_the_family_inside():
    family = f.ZeroInflated(f.Bernoulli(), link="probit")
    assert family == f.ZeroInflated(f.Bernoulli(link="probit"))
    assert str(family.parameters["mean"].link) == "probit"


# ---- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("zero_inflated(poisson)", f.ZeroInflated(f.Poisson())),
        ("zero_inflated_negative_binomial", f.ZeroInflated(f.NegativeBinomial())),
        ("hurdle_poisson", f.Hurdle(f.Poisson())),
        ("censored(truncated(lognormal))", f.Censored(f.Truncated(f.LogNormal()))),
    ],
)
def test_names_nest(name, family):
    assert f.get(name) == family


class NoDistribution(Family):
    mean = f.Parameter()


@pytest.mark.parametrize(
    "build",
    [
        lambda: f.Censored("normal"),
        lambda: f.Censored(NoDistribution()),
        lambda: f.Truncated(f.Censored(f.Normal())),
        lambda: f.Truncated(f.Truncated(f.Normal(), low=0.0)),
        lambda: f.Truncated(f.Normal(), low=1.0, high=1.0),
        lambda: f.ZeroInflated(f.Normal()),
        lambda: f.ZeroInflated(f.ZeroInflated(f.Poisson())),
        lambda: f.Hurdle(f.Normal()),
        lambda: f.Hurdle(f.Dirichlet(3)),
        lambda: f.get("zero_inflated(poison)"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(build):
    with pytest.raises(BadArgument):
        build()


@pytest.mark.parametrize(
    "family",
    [
        f.ZeroInflated(f.NegativeBinomial()),
        f.ZeroInflated(f.Poisson()),
        f.ZeroInflated(f.GeneralizedPoisson()),
        f.Hurdle(f.NegativeBinomial()),
        f.Hurdle(f.Poisson()),
        f.Hurdle(f.LogNormal()),
        f.Truncated(f.NegativeBinomial(), low=0.0),
        f.Truncated(f.Poisson(), low=0.5),
    ],
    ids=str,
)
def test_derivatives_by_the_chain_rule_are_the_automatic_ones(family):
    """Family.derivatives differentiates log p automatically; the wrappers compose the formulas of the family
    inside."""
    y = t(1.0, 2.0, 7.0, 40.0) if isinstance(family, f.Truncated) else t(0.0, 0.0, 1.0, 2.0, 7.0, 40.0)
    for at in ((0.3, -0.4, -1.0), (-4.0, 1.0, 3.0), (2.5, -3.0, -6.0)):
        hand_is_automatic(family, y, t(*at)[: len(family.parameters)].unbind())


@pytest.mark.parametrize("name", ["zero_inflated(negative_binomial)", "hurdle(negative_binomial)"])
def test_zero_inflated_and_hurdle_counts_are_fitted_without_automatic_differentiation(name, monkeypatch):
    """Automatic second derivatives of log Γ are what made 20,000 rows take ten times as long; none is
    taken on the way."""
    rng = np.random.default_rng(0)
    y = rng.poisson(rng.gamma(2.0, 1.0, 400)) * (rng.random(400) < 0.7)

    def refused(*arguments, **named):
        raise AssertionError("automatic differentiation")

    monkeypatch.setattr(Family, "derivatives", refused)
    assert th.fit("y ~ 1", {"y": y.astype(float)}, name).certificate.ok
