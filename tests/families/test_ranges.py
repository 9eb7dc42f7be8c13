"""Links and the ranges that they lead into; and what a family says of a parameter outside its range."""

import math

import pytest
import torch

from thetahat import families as f
from thetahat.errors import BadArgument
from thetahat.families import links
from thetahat.families.ranges import positive, probability, real


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


LINKS = [*links.registry.values(), links.Power(0.5), links.Power(3.0), links.Power(-1.5)]


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_a_link_and_its_inverse_undo_each_other_and_its_logarithms_are_those_of_the_inverse(link):
    """g⁻¹(g(θ)) = θ, and log θ, log(1 − θ) directly from η."""
    value = t(0.03, 0.3, 0.62, 0.97)
    eta = link(value)
    assert torch.allclose(link.inverse(eta), value, rtol=1e-13)
    assert torch.allclose(link.log_inverse(eta), torch.log(value), rtol=1e-12)
    assert torch.allclose(link.log1m_inverse(eta), torch.log1p(-value), rtol=1e-12)
    assert bool((eta.diff() > 0).all()) == link.increasing


@pytest.mark.parametrize("link", LINKS, ids=str)
def test_the_derivative_of_an_inverse_is_its_difference_quotient(link):
    """Central differences, to their own error."""
    eta, h = link(t(0.1, 0.4, 0.8)).requires_grad_(), 1e-6
    (slope,) = torch.autograd.grad(link.inverse(eta).sum(), eta)
    with torch.no_grad():
        quotient = (link.inverse(eta + h) - link.inverse(eta - h)) / (2 * h)
    assert torch.allclose(slope, quotient, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "theta", "eta"),
    [
        ("sqrt", 9.0, 3.0),
        ("inverse_squared", 2.0, 0.25),
        ("power(3)", 2.0, 8.0),
        ("loglog", math.exp(-1.0), 0.0),
    ],
)
def test_links_by_name_are_what_the_textbooks_define(name, theta, eta):
    """√θ, θ⁻², θ³, −log(−log θ), by hand."""
    assert float(links.get(name)(t(theta)[0])) == pytest.approx(eta, abs=1e-14)


def test_a_link_that_is_not_known_is_refused_by_name():
    with pytest.raises(BadArgument, match="power\\(x\\)"):
        links.get("power(x)")
    with pytest.raises(BadArgument, match="other than 0"):
        links.get("power(0)")


def test_which_linear_predictors_lead_into_a_range():
    """By hand: e^η ≤ 1 is η ≤ 0; 1/η ≤ 1 is η ≥ 1; √θ of a mean is not negative; a logit leads everywhere."""
    assert links.log.within(0.0, 1.0) == (-math.inf, 0.0)
    assert links.inverse.within(0.0, 1.0) == (1.0, math.inf)
    assert links.sqrt.within(0.0, math.inf) == (0.0, math.inf)
    assert f.Parameter(probability, link=links.log).limits.closed == (False, True)
    assert f.Parameter(positive, link=links.identity).limits.closed == (False, False)
    assert not f.Parameter(real, link=links.identity).limits.finite


# family, η of the mean at its end and outside, the y that is certain there, another y, extras
ENDS = [
    (f.Bernoulli(link="log"), 0.0, 0.1, 1.0, 0.0, {}),
    (f.Bernoulli(link="identity"), 0.0, -0.1, 0.0, 1.0, {}),
    (f.Binomial(link="log"), 0.0, 0.1, 5.0, 4.0, {"trials": t(5.0)}),
    (f.BetaBinomial(link="identity"), 1.0, 1.1, 5.0, 4.0, {"trials": t(5.0)}),
    (f.Poisson(link="identity"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.Poisson(link="sqrt"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.Geometric(link="identity"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.NegativeBinomial(link="identity"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.NegativeBinomial1(link="identity"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.GeneralizedPoisson(link="identity"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.Tweedie(link="identity"), 0.0, -1.0, 0.0, 3.0, {}),
    (f.Truncated(f.Poisson(link="identity"), low=0.0), 0.0, -1.0, 1.0, 3.0, {}),
]


@pytest.mark.parametrize(
    ("family", "end", "outside", "certain", "other", "extras"), ENDS, ids=lambda v: str(v)[:40]
)
def test_a_mean_at_its_end_makes_one_y_certain_and_a_mean_outside_none(
    family, end, outside, certain, other, extras
):
    """log 1 = 0, log 0 = −∞: the point mass that each family becomes; never NaN, and no slope is NaN
    either."""
    rest = [t(0.0)] * (len(family.parameters) - 1)
    for eta, y, expected in ((end, certain, 0.0), (end, other, -math.inf), (outside, certain, -math.inf)):
        value, score, curvature = family.derivatives(t(y), [t(eta), *rest], extras)
        assert value.item() == pytest.approx(expected, abs=1e-12)
        assert not any(bool(torch.isnan(each).any()) for each in [*score, *curvature.values()])


def test_a_parameter_outside_its_range_has_no_moment_no_distribution_function_and_no_draw():
    """By name and by place; the message names the row and the value."""
    bad = t(0.5, 1.5)
    assert f.Bernoulli().log_prob(t(1.0, 1.0), mean=bad).tolist() == [math.log(0.5), -math.inf]
    assert torch.isnan(f.Poisson().expectation(t(1.0, -1.0))).tolist() == [False, True]
    assert torch.isnan(f.Gamma().cdf(t(1.0, 1.0), t(1.0, -1.0), t(1.0, 1.0))).tolist() == [False, True]
    assert torch.isnan(f.Poisson().quantile(t(0.5, 0.5), t(1.0, -1.0))).tolist() == [False, True]
    with pytest.raises(BadArgument, match=r"row 1 has mean = 1\.5"):
        f.Bernoulli().sample(bad)
