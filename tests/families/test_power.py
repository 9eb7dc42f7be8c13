"""∫ p^(1 + β) dy of every family: its formula, or the rule in its place, held to quadrature that knows
neither."""

import math

import pytest
import torch

from tests.families.examples import EXAMPLES
from tests.families.probability import D, at, points
from thetahat import families as f
from thetahat.errors import BadArgument
from thetahat.families.base import Family
from thetahat.families.power import log_power_integral

CASES = [
    pytest.param(family, parameters, extras, id=f"{name}-{i}")
    for name, examples in EXAMPLES.items()
    for i, (family, parameters, extras) in enumerate(examples[: 1 if name in f.wrappers else 3])
    if not isinstance(family, (f.Censored, f.MultivariateNormal, f.Dirichlet, f.Independent))
]
WITH_FORMULA = [c for c in CASES if type(c.values[0]).log_power_integral is not Family.log_power_integral]


@pytest.mark.parametrize(("family", "parameters", "extras"), CASES)
def test_the_integral_is_the_mean_of_the_density_to_the_power_beta(family, parameters, extras):
    """∫ p^(1+β) dy = E[p^β], by the tests' own sums over p (Gauss's rule between quantiles,
    double-exponential to the ends)."""
    if isinstance(family, f.Beta) and parameters == (0.5, 1.0):
        pytest.skip("p^(1+β) at y → 1 lies beyond float64: below, by its symmetry")
    theta, own = at(parameters, extras)
    y, p = points(family, parameters, extras)
    rows, wide = at(parameters, extras, len(y))
    log_p = family.log_prob(y, *rows, **wide)[p > 0]
    for beta in (0.1, 0.5, 1.0):
        found = float(family.log_power_integral(beta, *theta, **own))
        truth = float((p[p > 0] * torch.exp(beta * log_p)).sum())
        if math.isinf(found):
            assert truth > 1e3  # it diverges at an end, where a finite sum grows
        else:
            assert abs(found - math.log(truth)) < 1e-6


def test_an_infinite_density_at_both_ends_of_the_unit_interval():
    """Beta(½, ½), symmetric: 2 ∫₀^½ p^1.5 dy over u = log y, the rest of the tail, ∝ y^(1/4), added."""
    half, one = torch.tensor([0.5], dtype=D), torch.ones(1, dtype=D)
    u = torch.linspace(-200.0, math.log(0.5), 400_001, dtype=D)
    density = torch.exp(1.5 * f.Beta().log_prob(torch.exp(u), half, one) + u)
    truth = 2 * (torch.trapezoid(density, u) + 4 * density[0])
    assert abs(float(f.Beta().log_power_integral(0.5, half, one)) - math.log(float(truth))) < 1e-7


@pytest.mark.parametrize(("family", "parameters", "extras"), WITH_FORMULA)
def test_formulas_and_the_rule_agree_to_the_second_derivative(family, parameters, extras):
    """The formula against the trapezoidal rule, and their derivatives in the linear predictors, of which
    Newton's method is made."""
    if isinstance(family, (f.Laplace, f.AsymmetricLaplace, f.Huber, f.VonMises)) or parameters == (0.5, 1.0):
        pytest.skip("the rule is for smooth densities of a line, finite at y = 1")
    theta, own = at(parameters, extras)
    if not math.isfinite(float(family.log_power_integral(0.5, *theta, **own))):
        pytest.skip("the integral diverges")
    if isinstance(family, f.Exponential):
        own = {}

    def derivatives(integral):
        eta = [
            p.link(t).clone().requires_grad_() for p, t in zip(family.parameters.values(), theta, strict=True)
        ]
        value = integral(family.natural(eta)).sum()
        first = torch.autograd.grad(value, eta, create_graph=True, allow_unused=True)
        first = [torch.zeros_like(e) + 0 * e if g is None else g for g, e in zip(first, eta, strict=True)]
        total = sum((k + 1.0) * g.sum() for k, g in enumerate(first))
        second = (
            torch.autograd.grad(total, eta, allow_unused=True) if total.requires_grad else [None] * len(eta)
        )
        return torch.cat(
            [
                value[None],
                *first,
                *(torch.zeros_like(e) if g is None else g for g, e in zip(second, eta, strict=True)),
            ]
        )

    formula = derivatives(lambda natural: family.log_power_integral(0.5, *natural, **own))
    rule = derivatives(lambda natural: log_power_integral(family, 0.5, natural, own))
    torch.testing.assert_close(formula, rule, rtol=1e-7, atol=1e-7)


def test_where_the_density_is_infinite_at_its_end_the_integral_diverges():
    """Gamma of shape k: ∫ p^(1+β) near 0 is ∫ y^((1+β)(k−1)), finite for (1 + β)(1 − k) < 1 only."""
    one = torch.ones(1, dtype=D)
    assert math.isinf(float(f.Gamma().log_power_integral(0.5, one, 1 / (0.33 * one))))
    assert math.isfinite(float(f.Gamma().log_power_integral(0.5, one, 1 / (0.34 * one))))


def test_a_family_without_an_integral_says_so():
    """A user's own density with an edge, and no quantile."""

    class Box(f.Family):
        edge = f.Parameter()

        def log_prob(self, y, edge):
            return torch.where((y > edge) & (y < edge + 1), 0.0 * edge, -math.inf)

    with pytest.raises(BadArgument, match="could not be found numerically"):
        Box().log_power_integral(0.5, torch.zeros(1, dtype=D))
