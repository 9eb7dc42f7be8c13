"""The exact information of a normal mixed model, against automatic differentiation of the dense normal density."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thetahat.models import curvature, normal_mixed
from thetahat.models.elimination import Scales

from .test_mixed import crossed, objective, somewhere


def information(o, theta):
    return o.at(theta).taylor(order=2).information.dense()


def dense(o, theta, reml):
    """log p(y | β, σ, φ) with the covariance of y written out; restricted: of contrasts, its quadratic form at β."""
    model, batch = o.model, next(iter(o.terms[0].source.batches()))
    p, n = len(model.coefficients), len(batch)
    beta, phi = theta[:p], theta[p:]
    mean, scale = model.regression.predictors
    X = mean.rows(batch, torch.float64).T
    sigma = scale.spec.link.inverse(beta[scale.start])
    V = torch.eye(n, dtype=torch.float64)
    for r, at in zip(model.random, model.places, strict=True):
        lam = r.structure.factor(phi[at])
        design = model.encoder.designs[r.slot]
        if design.coded:
            Z = torch.eye(design.coded[0].size + 1, dtype=torch.float64)[batch[f"code{r.slot}.0"]][:, 1:]
        else:
            columns = [torch.ones(n, dtype=torch.float64)] * design.intercept
            Z = torch.column_stack(columns + ([batch[f"x{r.slot}"]] if design.columns else []))
        code = batch[f"group{r.source}"]
        V = V + (Z @ lam @ lam.T @ Z.T) * (code[:, None] == code)
    residual = batch["y"] - X @ beta[: mean.size]
    inverse = torch.linalg.inv(V)
    value = torch.logdet(V) + residual @ inverse @ residual / sigma**2
    if reml:
        value, n = value + torch.logdet(X.T @ inverse @ X), n - mean.size
    return -0.5 * (value + n * (math.log(2 * math.pi) + 2 * torch.log(sigma)))


FORMULAS = [
    "y ~ x + (1 | a)",
    "y ~ x + (x | a) + (1 | b)",
    "y ~ x + (1 | a) + (x | b) + (0 + x | a:b)",
    "y ~ x + (x || a) + (1 | b) + (1 | a:b)",
    "y ~ x + ar1(0 + b | a)",
    "y ~ x + cs(0 + a | b) + (1 | a)",
]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("reml", [False, True])
def test_the_information_is_the_second_derivative_of_the_dense_density(formula, reml, monkeypatch):
    """At a θ where no gradient vanishes; differences of the gradient have no part in it."""
    monkeypatch.setattr(normal_mixed, "differences", None)
    o = objective(formula, crossed(), reml=reml)
    theta = somewhere(o)
    J = information(o, theta)
    expected = -torch.autograd.functional.hessian(lambda t: dense(o, t, reml), theta)
    size = expected.diagonal().abs().sqrt()
    assert torch.allclose(J / size / size[:, None], expected / size / size[:, None], rtol=0, atol=1e-10)


@pytest.mark.parametrize("lam", [np.array([[1.0, 0.0], [0.7, 1e-4]]), np.array([[0.0]])])
def test_a_singular_factor_is_left_to_differences(lam):
    assert not curvature.regular(Scales(lam, ()))
    assert not curvature.regular(Scales(None, (np.eye(2), lam)))
    assert curvature.regular(Scales(np.diag([1e-6, 1e6]), (np.eye(3),)))


def test_products_that_would_not_fit_are_left_to_differences(monkeypatch):
    """The information is the same to the error of differences."""
    o = objective("y ~ x + (x | a) + (1 | b)", crossed())
    theta = somewhere(o)
    exact = information(o, theta)
    monkeypatch.setattr(curvature, "MOST", 0)
    assert torch.allclose(information(o, theta), exact, rtol=1e-6, atol=1e-6)
    assert not torch.equal(information(o, theta), exact)
