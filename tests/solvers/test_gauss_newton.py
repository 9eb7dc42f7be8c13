"""A likelihood of one's own that is a sum of squares: NIST's nonlinear sets, and which functions are
recognised."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.models.inputs import source_of
from thetahat.solvers import GaussNewton, Newton, choose

exp = torch.exp


class Set(NamedTuple):
    """A nonlinear set of NIST's StRD: the mean, both starts, the certified estimates and their standard
    deviations."""

    y: Any
    x: Any
    mean: Callable[..., Any]
    starts: tuple[list[float], list[float]]
    certified: list[float]
    deviations: list[float]


LANCZOS_X = np.arange(24) * 0.05
LANCZOS = 0.0951 * np.exp(-LANCZOS_X) + 0.8607 * np.exp(-3 * LANCZOS_X) + 1.5576 * np.exp(-5 * LANCZOS_X)
SETS = {
    "BoxBOD": Set(
        [109, 149, 149, 191, 213, 224],
        [1, 2, 3, 5, 7, 10],
        lambda x, b: b[0] * (1 - exp(-b[1] * x)),
        ([1, 1], [100, 0.75]),
        [2.1380940889e02, 5.4723748542e-01],
        [1.2354515176e01, 1.0455993237e-01],
    ),
    "Misra1a": Set(
        [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40, 75.47, 81.78],
        [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1, 689.1, 760.0],
        lambda x, b: b[0] * (1 - exp(-b[1] * x)),
        ([500, 1e-4], [250, 5e-4]),
        [2.3894212918e02, 5.5015643181e-04],
        [2.7070075241e00, 7.2668688436e-06],
    ),
    "MGH09": Set(
        [0.1957, 0.1947, 0.1735, 0.16, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246],
        [4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625],
        lambda x, b: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
        ([25, 39, 41.5, 39], [0.25, 0.39, 0.415, 0.39]),
        [1.9280693458e-01, 1.9128232873e-01, 1.2305650693e-01, 1.3606233068e-01],
        [1.1435312227e-02, 1.9633220911e-01, 8.0842031232e-02, 9.0025542308e-02],
    ),
    "MGH10": Set(
        [
            34780,
            28610,
            23650,
            19630,
            16370,
            13720,
            11540,
            9744,
            8261,
            7030,
            6005,
            5147,
            4427,
            3820,
            3307,
            2872,
        ],
        np.arange(50, 126, 5),
        lambda x, b: b[0] * exp(b[1] / (x + b[2])),
        ([2, 400000, 25000], [0.02, 4000, 250]),
        [5.6096364710e-03, 6.1813463463e03, 3.4522363462e02],
        [1.5687892471e-04, 2.3309021107e01, 7.8486103508e-01],
    ),
    "Lanczos1": Set(
        np.array([float(f"{v:.12e}") for v in LANCZOS]),
        LANCZOS_X,
        lambda x, b: b[0] * exp(-b[1] * x) + b[2] * exp(-b[3] * x) + b[4] * exp(-b[5] * x),
        ([1.2, 0.3, 5.6, 5.5, 6.5, 7.6], [0.5, 0.7, 3.6, 4.2, 4.0, 6.3]),
        [9.51e-02, 1.0, 8.607e-01, 3.0, 1.5576, 5.0],
        [],
    ),
    "Lanczos2": Set(
        np.array([float(f"{v:.5e}") for v in LANCZOS]),
        LANCZOS_X,
        lambda x, b: b[0] * exp(-b[1] * x) + b[2] * exp(-b[3] * x) + b[4] * exp(-b[5] * x),
        ([1.2, 0.3, 5.6, 5.5, 6.5, 7.6], [0.5, 0.7, 3.6, 4.2, 4.0, 6.3]),
        [
            9.6251029939e-02,
            1.0057332849e00,
            8.6424689056e-01,
            3.0078283915e00,
            1.5529016879e00,
            5.0028798100e00,
        ],
        [
            6.6770575477e-04,
            3.3989646176e-03,
            1.7185846685e-03,
            4.1707005856e-03,
            2.3744381417e-03,
            1.3958787284e-03,
        ],
    ),
}


def fitted(name: str, start: int, **settings: Any) -> th.Fit:
    y, x, mean, starts, *_ = SETS[name]

    @th.model(b=torch.tensor(starts[start], dtype=torch.float64), sigma=th.positive(1.0))
    def model(batch, b, sigma):  # type: ignore[no-untyped-def]
        return th.families.Normal().log_prob(batch["y"], mean(batch["x"], list(b)), sigma)

    return th.fit(model, {"y": np.array(y, dtype=float), "x": np.array(x, dtype=float)}, **settings)


@pytest.mark.parametrize("start", [0, 1], ids=["start 1", "start 2"])
@pytest.mark.parametrize("name", SETS)
def test_nists_certified_estimates_are_reached_from_both_starts(name: str, start: int) -> None:
    """NIST StRD, nonlinear regression: estimates to 8 digits, and standard deviations (which divide by n −
    p) by the expected information."""
    fit = fitted(name, start)
    p, n = len(SETS[name].certified), len(SETS[name].y)
    assert isinstance(fit.solver, GaussNewton)
    assert fit.certificate.status == "certified maximum"
    assert fit.theta[:p].tolist() == pytest.approx(SETS[name].certified, rel=1e-8)
    if SETS[name].deviations:
        errors = fit.standard_errors("expected").to_numpy()[:p] * math.sqrt(n / (n - p))
        assert errors.tolist() == pytest.approx(SETS[name].deviations, rel=1e-6)


@pytest.mark.parametrize("name", ["Misra1a", "MGH10", "Lanczos2"])
def test_newton_goes_on_while_it_gains(name: str) -> None:
    """NIST's second start; MGH10 and Lanczos2 take 380 and 550 steps of Newton's method alone."""
    fit = fitted(name, 1, solver=Newton())
    assert fit.certificate.status == "certified maximum"
    assert fit.theta[: len(SETS[name].certified)].tolist() == pytest.approx(SETS[name].certified, rel=1e-7)


def test_a_limit_of_steps_is_named_with_what_to_do() -> None:
    fit = fitted("MGH10", 1, solver=Newton(steps=50), on_failure="return")
    assert fit.certificate.status == "not converged"
    assert "Stopped after 50 steps, which is their limit" in fit.certificate.detail
    assert "steps=500" in fit.certificate.detail


def test_frequency_weights_count_rows() -> None:
    """A row of weight 2 is two rows."""

    @th.model(b=torch.tensor([100.0, 0.75], dtype=torch.float64), sigma=th.positive(1.0))
    def model(batch, b, sigma):  # type: ignore[no-untyped-def]
        return th.families.Normal().log_prob(batch["y"], b[0] * (1 - exp(-b[1] * batch["x"])), sigma)

    y, x = (np.array(v, dtype=float) for v in SETS["BoxBOD"][:2])
    w = np.array([1, 2, 1, 3, 1, 2])
    weighted = th.fit(model, {"y": y, "x": x, "w": w.astype(float)}, weights="w")
    repeated = th.fit(model, {"y": np.repeat(y, w), "x": np.repeat(x, w)})
    assert isinstance(weighted.solver, GaussNewton)
    assert weighted.theta.tolist() == pytest.approx(repeated.theta.tolist(), rel=1e-8)
    assert weighted.standard_errors("expected").tolist() == pytest.approx(
        repeated.standard_errors("expected").tolist(), rel=1e-6
    )


def objective_of(function: Any, **parameters: Any) -> Objective:
    model = th.model(**parameters)(function)
    data = {"y": np.array([1.0, 2.0, 2.5, 4.0]), "x": np.arange(4.0), "s": np.array([1.0, 2.0, 1.0, 2.0])}
    return Objective([LogLikelihood(model, source_of(data, model, None))])


normal = th.families.Normal()
SQUARES = {
    "one scale": lambda batch, b, s: normal.log_prob(batch["y"], b * batch["x"], s),
    "a scale by its logarithm": lambda batch, b, s: normal.log_prob(batch["y"], b * batch["x"], exp(s)),
}
OTHERS = {
    "a scale a row": lambda batch, b, s: normal.log_prob(batch["y"], b * batch["x"], s * batch["s"]),
    "a scale that moves with the mean": lambda batch, b, s: normal.log_prob(
        batch["y"], b * batch["x"], s * exp(b)
    ),
    "something added": lambda batch, b, s: normal.log_prob(batch["y"], b * batch["x"], s) + 0.1 * b,
    "two families": lambda batch, b, s: torch.logaddexp(
        normal.log_prob(batch["y"], b, s), normal.log_prob(batch["y"], -b, s)
    ),
    "another family": lambda batch, b, s: th.families.Logistic().log_prob(batch["y"], b * batch["x"], s),
}


@pytest.mark.parametrize("function", SQUARES.values(), ids=SQUARES)
def test_a_function_that_returns_a_normal_log_likelihood_is_known_as_a_sum_of_squares(function: Any) -> None:
    assert isinstance(choose(objective_of(function, b=1.0, s=th.positive(1.0))), GaussNewton)


@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS)
def test_a_function_that_returns_anything_else_is_not(function: Any) -> None:
    assert type(choose(objective_of(function, b=1.0, s=th.positive(1.0)))) is Newton


def test_expected_information_of_a_scale_that_varies() -> None:
    """I = Σ diag(x²/σ²s², 2/σ²) for y ~ N(b·x, σ·s), b and σ orthogonal."""
    objective = objective_of(OTHERS["a scale a row"], b=1.0, s=th.positive(1.0))
    fit = th.maximize(objective)
    x, s, sigma = np.arange(4.0), np.array([1.0, 2.0, 1.0, 2.0]), float(fit.estimates["s"])
    expected = [sigma / math.sqrt(np.sum(x**2 / s**2)), sigma / math.sqrt(2 * 4)]
    assert fit.standard_errors("expected").tolist() == pytest.approx(expected, rel=1e-9)


def test_expected_information_of_what_is_not_known_to_be_normal_is_refused() -> None:
    fit = th.maximize(objective_of(OTHERS["another family"], b=1.0, s=th.positive(1.0)))
    with pytest.raises(th.errors.BadArgument, match="returns Normal"):
        fit.standard_errors("expected")
