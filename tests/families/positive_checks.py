"""What the tests of the families on the positive numbers and on (0, 1) have in common."""

import math

import torch

from . import checks
from .checks import D

LEVELS = torch.tensor([1e-9, 1e-3, 0.1, 0.3, 0.5, 0.7, 0.95, 0.9999], dtype=D)


def agrees_with_itself(family, parameters):
    """Derivatives by hand, by autograd and by differences; d cdf/dy = p; quantiles; samples; at quantiles
    from 1e-9 to 0.9999."""
    y = family.quantile(LEVELS, *checks.tensors(parameters))
    checks.derivatives_agree(family, parameters, y)
    checks.cdf_agrees(family, parameters, y)
    checks.quantile_inverts(family, parameters)
    checks.samples_follow(family, parameters, n=10_000)


def starts_inside(family, *samples):
    """Whatever the data: a constant, huge, tiny; with weights that leave one row."""
    for y in samples:
        y = torch.tensor(y, dtype=D)
        for weight in (torch.ones(len(y), dtype=D), torch.eye(len(y), dtype=D)[0]):
            theta = family.start(y, weight)
            assert len(theta) == len(family.parameters)
            for value, parameter in zip(theta, family.parameters.values(), strict=True):
                assert isinstance(value, float)
                assert math.isfinite(value)
                assert parameter.range.low < value < parameter.range.high
            assert torch.isfinite(family.log_prob(y, *checks.tensors(theta))[weight > 0]).all()


def impossible_outside(family, parameters, *outside):
    y = torch.tensor(outside, dtype=D)
    theta = checks.tensors(parameters)
    assert (family.log_prob(y, *theta) == -math.inf).all()
    assert (family.log_prob_eta(y, *checks.linear_predictors(family, parameters)) == -math.inf).all()
    assert not family.in_support(y).any()


def ends_of_the_cdf(family, parameters, low, high):
    """At and beyond the ends the cdf is 0 and 1, and has no NaN in its derivatives (a truncation at ∞ is
    none)."""
    theta = [t.expand(4).clone().requires_grad_() for t in checks.tensors(parameters)]
    y = torch.tensor([low - 1.0, low, high, math.inf], dtype=D)
    log_cdf, log_survival = family.log_cdf(y, *theta), family.log_survival(y, *theta)
    assert log_cdf.tolist() == [-math.inf, -math.inf, 0.0, 0.0]
    assert log_survival.tolist() == [0.0, 0.0, -math.inf, -math.inf]
    for value in (family.cdf(y, *theta), log_cdf.clamp(min=-1), log_survival.clamp(min=-1)):
        for slope in torch.autograd.grad(value.sum(), theta, retain_graph=True):
            assert (slope == 0).all()
