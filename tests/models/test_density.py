"""Families of vectors, fitted to an array."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, NotFinite, OutOfSupport
from thetahat.families.multivariate import Dirichlet, MultivariateNormal


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(4)
    return rng.normal(size=(80, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]]) + np.array([3.0, -1.0])


def test_the_multivariate_normal_has_its_closed_form(points):
    """μ̂ is the mean, Σ̂ = L̂L̂ᵀ the covariance with divisor n; ℓ = −(n/2)(d log 2π + log det Σ̂ + d)."""
    fit = th.fit(MultivariateNormal(2), points)
    assert fit.certificate.status == "certified maximum"
    e = fit.estimates
    np.testing.assert_allclose(e[["mean_1", "mean_2"]], points.mean(0), rtol=1e-10)
    L = np.array([[e["scale_11"], 0.0], [e["scale_21"], e["scale_22"]]])
    covariance = np.cov(points.T, bias=True)
    np.testing.assert_allclose(L @ L.T, covariance, rtol=1e-8)
    closed = -len(points) / 2 * (2 * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + 2)
    assert fit.log_likelihood == pytest.approx(closed, abs=1e-9)


def test_newton_climbs_to_the_closed_form_from_afar(points):
    """The start is not the answer: from η = (0, …, 0), μ = 0 and Σ = I, the same maximum."""
    model, source = th.models.density.density(MultivariateNormal(2), points)
    objective = th.Objective([th.LogLikelihood(model, source)])
    state = th.solvers.iterate(th.Newton(), objective)
    assert state.step > 2
    np.testing.assert_allclose(model.natural(state.theta)[:2], points.mean(0), rtol=1e-8)


def test_a_symmetric_dirichlet_solves_its_moment_equation():
    """At the maximum ψ(α_j) − ψ(Σα) is the mean of log y_j (Minka, 2000, eq. 3)."""
    y = np.random.default_rng(0).dirichlet([1.0, 2.0, 4.0], size=200)
    fit = th.fit(Dirichlet(3), y)
    alpha = torch.tensor(fit.estimates.to_numpy())
    np.testing.assert_allclose(
        torch.digamma(alpha) - torch.digamma(alpha.sum()), np.log(y).mean(0), atol=1e-9
    )


def test_the_mean_and_draws_of_the_fitted_vector(points):
    fit = th.fit(MultivariateNormal(2), points)
    batch = next(fit.source.batches())
    np.testing.assert_allclose(fit.model.mean(batch)[0], points.mean(0), rtol=1e-8)
    assert fit.model.sample(batch, generator=torch.Generator().manual_seed(0)).shape == (80, 2)


def test_rows_that_cannot_be_used_are_named(points):
    spoilt = points.copy()
    spoilt[7, 1] = np.nan
    with pytest.raises(NotFinite, match="row 7"):
        th.fit(MultivariateNormal(2), spoilt)
    with pytest.raises(OutOfSupport, match=r"row 1.*Dirichlet"):
        th.fit(Dirichlet(2), np.array([[0.5, 0.5], [0.9, 0.3]]))
    with pytest.raises(BadArgument, match="3 components"):
        th.fit(MultivariateNormal(3), points)
    with pytest.raises(BadArgument, match="weights='w'"):
        th.fit(MultivariateNormal(2), points, weights="w")
    with pytest.raises(BadArgument, match="mean_1"):
        th.fit(MultivariateNormal(2), points, mean_1=0.0)
