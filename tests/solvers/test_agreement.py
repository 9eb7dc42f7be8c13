"""Every solver reaches the maximum that every other one reaches: each smooth family of the registry by
Newton, L-BFGS, Proximal and EM of one component, and by scipy's BFGS on the family's own log p, without
the library's designs, derivatives or sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tests.families.examples import EXAMPLES

import thetahat as th

SKIPPED = {
    "multivariate_normal": "a vector, which no formula gives",
    "dirichlet": "a vector, which no formula gives",
    "independent": "a vector, which no formula gives",
    "censored": "takes Surv(…): tests/models/test_survival.py",
    "mixture_of": "many maxima: tests/families/test_mixture_of.py",
    "laplace": "has a kink: test_quantile.py",
    "asymmetric_laplace": "has a kink: test_quantile.py",
    "discretised_logistic": "a pixel's family, not a regression's",
}
N = 120


def drawn(name):
    """A table of draws at the family's first example, with a predictor that moves nothing."""
    family, parameters, extras = EXAMPLES[name][0]
    values = [torch.full((N,), p, dtype=torch.float64) for p in parameters]
    given = {k: torch.full((N,), v, dtype=torch.float64) for k, v in extras.items()}
    y = family.sample(*values, generator=torch.Generator().manual_seed(3), **given).numpy().astype(float)
    x = np.random.default_rng(4).normal(size=N)
    return family, {"y": y, "x": x} | {k: v.numpy() for k, v in given.items()}, {k: k for k in extras}


def from_scratch(fit, data, extras):
    """The highest ℓ that BFGS finds from θ̂ disturbed: η_j = a_j + b_j·x where the fit has an x, log p of the
    family at g⁻¹(η)."""
    family = fit.model.family
    named = list(family.parameters)
    has_x = [p.parameter for p in fit.model.predictors if "x" in p.design.names]
    has_one = [p.parameter for p in fit.model.predictors if p.design.intercept]
    y, x = torch.tensor(data["y"]), torch.tensor(data["x"])
    given = {k: torch.tensor(data[k]) for k in extras}

    def minus(theta):
        at, eta = iter(theta), []
        for name in named:
            value = torch.full((N,), next(at) if name in has_one else 0.0, dtype=torch.float64)
            eta.append(value + next(at) * x if name in has_x else value)
        value = float(family.log_prob(y, *family.natural(eta), **given).sum())
        return -value if np.isfinite(value) else 1e12

    theta = fit.theta.numpy()
    assert minus(theta) == pytest.approx(-fit.log_likelihood, rel=1e-9, abs=1e-7)
    rng = np.random.default_rng(5)
    return -min(minimize(minus, theta + rng.normal(0, 0.05, len(theta)), method="BFGS").fun for _ in range(2))


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in SKIPPED])
def test_every_solver_reaches_one_maximum(name):
    family, data, extras = drawn(name)
    formula = "y ~ x"
    newton = th.fit(formula, data, family, solver=th.Newton(), on_failure="return", **extras)
    if newton.certificate.status != "certified maximum":
        newton = th.fit(
            formula, data, family, **extras
        )  # on a boundary, say: the solver that the library takes
        assert newton.certificate.ok
        return
    best = from_scratch(newton, data, extras)
    assert best <= newton.log_likelihood + 1e-6
    others = [th.LBFGS(), th.Proximal()]
    for solver in others:
        other = th.fit(formula, data, family, solver=solver, **extras)
        assert other.log_likelihood == pytest.approx(newton.log_likelihood, abs=1e-6), solver
        errors = newton.standard_errors().to_numpy()
        assert (
            np.abs(other.estimates.to_numpy() - newton.estimates.to_numpy()) <= 1e-3 * errors + 1e-9
        ).all(), solver
    chosen = th.fit(formula, data, family, **extras)
    assert chosen.log_likelihood == pytest.approx(newton.log_likelihood, abs=1e-7)
    assert best == pytest.approx(newton.log_likelihood, abs=1e-4)


def test_every_family_is_tried_or_says_why_not():
    assert set(SKIPPED) <= set(EXAMPLES)
    assert set(th.families.registry) <= set(EXAMPLES)


@pytest.mark.parametrize("name", ["normal", "poisson", "gamma"])
def test_em_of_one_component_is_newtons_maximum(name):
    _, data, _ = drawn(name)
    mixture = th.fit(th.models.Mixture(name, 1), data["y"], solver=th.EM(starts=1))
    assert mixture.log_likelihood == pytest.approx(th.fit("y ~ 1", data, name).log_likelihood, abs=1e-8)
