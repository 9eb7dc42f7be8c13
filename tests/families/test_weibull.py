"""Weibull and log-logistic against scipy, the exponential, and their own derivatives."""

import math

import pytest
import scipy.stats
import torch

from thetahat.families import Exponential, LogLogistic, Weibull

from . import checks, positive_checks
from .checks import D

CASES = [
    *(
        (Weibull(), p, scipy.stats.weibull_min(p[1], scale=p[0]))
        for p in ((2.5, 1.5), (40.0, 0.6), (1.0, 12.0), (3.0, 60.0))
    ),
    *((LogLogistic(), p, scipy.stats.fisk(p[1], scale=p[0])) for p in ((2.5, 6.5), (40.0, 2.5), (1.0, 12.0))),
]
every_case = pytest.mark.parametrize(
    ("family", "parameters", "frozen"), CASES, ids=lambda c: str(c) if not hasattr(c, "ppf") else ""
)


@every_case
def test_it_is_scipys(family, parameters, frozen):
    y = torch.from_numpy(frozen.ppf([1e-9, 1e-4, 0.1, 0.5, 0.8, 0.999]))
    checks.matches_scipy(family, parameters, frozen, y, rtol=1e-11)


@every_case
def test_it_agrees_with_itself(family, parameters, frozen):
    positive_checks.agrees_with_itself(family, parameters)


@every_case
def test_far_amounts_and_parameters_give_no_nan(family, parameters, frozen):
    y = torch.tensor([1e-300, 1e-5, 1.0, 1e5, 1e300], dtype=D)
    for scale, shape in (parameters, (1e-100, 0.01), (1e100, 3.0), (1.0, 1e-8)):
        checks.never_nan(family, (scale, shape), y)


@every_case
def test_impossible_amounts_ends_and_starts(family, parameters, frozen):
    positive_checks.impossible_outside(family, parameters, 0.0, -1.0)
    positive_checks.ends_of_the_cdf(family, parameters, 0.0, math.inf)
    positive_checks.starts_inside(family, [3.0], [2.0, 2.0, 2.0], [1e200, 1e-200, 5.0], [1e-3, 2.0, 4.0])


def test_both_tails_of_the_weibull_are_closed_forms():
    y = torch.tensor([1e-200, 1e-3, 2.5, 40.0], dtype=D)
    theta = checks.tensors((2.5, 1.5))
    hazard = (y / 2.5) ** 1.5
    torch.testing.assert_close(Weibull().log_survival(y, *theta), -hazard, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        Weibull().log_cdf(y[:1], *theta), 1.5 * torch.log(y[:1] / 2.5), rtol=1e-14, atol=0
    )


def test_weibull_of_shape_one_is_the_exponential():
    y, theta = torch.tensor([1e-8, 0.3, 2.0, 90.0], dtype=D), checks.tensors((2.5, 1.0))
    torch.testing.assert_close(
        Weibull().log_prob(y, *theta), Exponential().log_prob(y, theta[0]), rtol=1e-14, atol=0
    )


def test_loglogistic_moments_are_infinite_where_the_tail_is_too_heavy():
    mean, variance = (LogLogistic().expectation, LogLogistic().variance)
    assert [mean(*checks.tensors((1.0, k))).item() == math.inf for k in (0.5, 1.0, 1.1)] == [
        True,
        True,
        False,
    ]
    assert [variance(*checks.tensors((1.0, k))).item() == math.inf for k in (1.5, 2.0, 2.1)] == [
        True,
        True,
        False,
    ]
