"""Priors with a kink are densities, and the objective counts them whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument
from thetahat.likelihood import LogLikelihood, LogPrior, Objective, priors
from thetahat.models.formulas import regression

DATA = {"y": [1.0, 0.0, 3.0, 2.0], "x": [0.0, 1.0, 2.0, 3.0], "z": [1.0, -1.0, 0.5, 0.0]}
close = torch.testing.assert_close


def density(prior, theta):
    """p(θ) of one coefficient."""
    z = torch.tensor((theta - prior.location) / prior.scale, dtype=torch.float64)
    return float(torch.exp(prior.log_density(z))) / prior.scale


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(1e-3, 1e3), mix=st.floats(0, 1), location=st.floats(-5, 5))
def test_an_elastic_net_is_a_density(scale, mix, location):
    """∫ p(θ) dθ = 1, by quadrature on either side of the kink."""
    prior = priors.ElasticNet(scale, location, mix=mix)
    sides = [
        integrate.quad(lambda t, s=s: density(prior, location + s * t * scale) * scale, 0, np.inf)[0]
        for s in (1, -1)
    ]
    assert sum(sides) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("mix", [0.0, 1e-300, 1e-9, 1 - 1e-9, np.nextafter(1, 0), 1.0])
def test_an_elastic_net_runs_from_normal_to_laplace(mix):
    """log Z of scipy's normal and Laplace at the ends; within 10⁻⁸ of them beside the ends, where erfc
    underflows or b does."""
    theta = torch.tensor([-3.0, -0.1, 0.0, 0.4, 7.0], dtype=torch.float64)
    found = priors.ElasticNet(0.7, 0.2, mix=mix).log_density((theta - 0.2) / 0.7) - np.log(0.7)
    known = (stats.norm(0.2, 0.7) if mix < 0.4 else stats.laplace(0.2, 0.7)).logpdf(theta.numpy())
    np.testing.assert_allclose(found, known, atol=2e-7)


@pytest.mark.parametrize(
    "name", [n for n in priors.registry if n != "jeffreys"]
)  # which is of all coefficients together
def test_every_prior_is_a_density_and_says_truly_whether_it_is_log_concave(name):
    """∫ p(θ) dθ = 1; second differences of log p are nowhere positive if and only if it is concave; κ is half
    the jump of its slope at 0."""
    prior = priors.registry[name](0.7, 0.2)
    sides = [integrate.quad(lambda t, s=s: density(prior, 0.2 + s * t), 0, np.inf)[0] for s in (1, -1)]
    assert sum(sides) == pytest.approx(1, abs=1e-7)
    log_p = prior.log_density(torch.linspace(-30, 30, 1201, dtype=torch.float64))
    bends = log_p[2:] - 2 * log_p[1:-1] + log_p[:-2]
    assert bool((bends <= 1e-12).all()) == prior.concave
    step = 1e-7
    there = prior.log_density(torch.tensor([-step, 0.0, step], dtype=torch.float64))
    assert float(2 * there[1] - there[0] - there[2]) / step / 2 == pytest.approx(prior.kink, abs=1e-6)


def test_laplace_is_scipys():
    theta = torch.linspace(-3, 3, 13, dtype=torch.float64)
    found = priors.Laplace(0.7, 0.2).log_density((theta - 0.2) / 0.7) - np.log(0.7)
    np.testing.assert_allclose(found, stats.laplace(0.2, 0.7).logpdf(theta.numpy()), rtol=1e-13)


@settings(max_examples=50, deadline=None)
@given(l1=st.floats(1e-6, 1e6), l2=st.floats(1e-6, 1e6))
def test_a_penalty_is_an_elastic_net(l1, l2):
    """log p(θ) − log p(0) = −l1·|θ| − ½·l2·θ²."""
    prior = priors.ElasticNet.of_penalty(l1, l2)
    z = torch.tensor([0.0, 0.3, -2.0], dtype=torch.float64) / prior.scale
    found = prior.log_density(z) - prior.log_density(torch.zeros(1, dtype=torch.float64))
    np.testing.assert_allclose(found, [0, -0.3 * l1 - 0.045 * l2, -2 * l1 - 2 * l2], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("mix", [-0.1, 1.1, np.nan, "half", True])
def test_a_mix_is_between_0_and_1(mix):
    with pytest.raises(BadArgument, match="mix="):
        priors.ElasticNet(1.0, mix=mix)


@pytest.mark.parametrize(("l1", "l2"), [(0.0, 0.0), (-1.0, 1.0), (1.0, np.inf)])
def test_a_penalty_is_not_negative(l1, l2):
    with pytest.raises(BadArgument, match="penalties"):
        priors.ElasticNet.of_penalty(l1, l2)


@pytest.mark.parametrize("prior", [priors.Laplace(0.5, 0.3), priors.ElasticNet(0.5, 0.3, mix=0.7)])
def test_the_expansion_is_that_of_the_whole_density(prior):
    """Value and gradient by automatic differentiation away from the kink; at the kink the middle of the
    slopes, 0."""
    model, source = regression("y ~ x + z", DATA, th.families.Normal())
    objective = LogLikelihood(model, source) + LogPrior(prior, model)
    at = torch.tensor([0.5, 0.3, -0.8, 0.1], dtype=torch.float64)
    plain, found = Objective(objective.terms).taylor(at), objective.taylor(at)
    z = (torch.tensor([0.0, -1.1]) / 0.5).to(torch.float64)
    close(found.value - plain.value, (prior.log_density(z) - np.log(0.5)).sum())
    slopes = found.gradient - plain.gradient
    smooth = (1 - prior.kink) * z / 0.5
    close(slopes[1:3], torch.stack([-smooth[0], prior.kink / 0.5 - smooth[1]]))
    assert slopes[0] == slopes[3] == 0
    bend = (found.information.dense() - plain.information.dense()).diagonal()
    close(bend, torch.tensor([0, 1, 1, 0], dtype=torch.float64) * (1 - prior.kink) / 0.25)


def test_the_covariance_under_a_normal_prior_is_the_posteriors():
    """(XᵀX/σ² + I/s²)⁻¹, and the posterior mean; with the sandwich, only the likelihood's scores are
    squared."""
    r = np.random.default_rng(3)
    X = r.normal(size=(30, 2))
    y = X @ [1.0, -0.5] + r.normal(size=30)
    fit = th.fit("y ~ a + b - 1", {"a": X[:, 0], "b": X[:, 1], "y": y}, scale=0.9, prior=priors.Normal(0.4))
    V = np.linalg.inv(X.T @ X / 0.9**2 + np.eye(2) / 0.4**2)
    np.testing.assert_allclose(fit.covariance(), V, rtol=1e-11)
    np.testing.assert_allclose(fit.estimates, V @ X.T @ y / 0.9**2, rtol=1e-11)
    scores = X * ((y - X @ fit.estimates.to_numpy()) / 0.9**2)[:, None]
    np.testing.assert_allclose(fit.covariance("sandwich"), V @ scores.T @ scores @ V, rtol=1e-10)


def test_an_objective_knows_its_kinks():
    """λ adds where two priors have their kink at the same place."""
    model, source = regression("y ~ x + z", DATA, th.families.Normal())
    objective = (
        LogLikelihood(model, source)
        + LogPrior(priors.Laplace(0.5), model)
        + LogPrior(priors.Normal(1.0), model)
    )
    assert objective.kinked
    assert objective.kinks()[0].tolist() == [0, 2, 2, 0]
    twice = objective + LogPrior(priors.ElasticNet(0.5, mix=0.25, on="x"), model)
    assert twice.kinks()[0].tolist() == [0, 2.5, 2, 0]
    apart = objective + LogPrior(priors.Laplace(1.0, 3.0, on="z"), model)
    with pytest.raises(BadArgument, match="different places"):
        apart.kinks()


def test_an_objective_is_concave_if_all_of_it_is():
    """Student's t is no log-concave density; a weighting may be negative; a normal linear model is concave
    once its scale is given."""
    model, source = regression("y ~ x", DATA, th.families.Poisson())
    term = LogLikelihood(model, source)
    assert (term + LogPrior(priors.Laplace(1.0), model)).concave
    assert not (term + LogPrior(priors.StudentT(1.0), model)).concave
    assert not Objective([LogLikelihood(model, source, lambda batch, log_prob: -torch.ones(4))]).concave
    normal, source = regression("y ~ x", DATA, th.families.Normal())
    held, _ = regression("y ~ x", DATA, th.families.Normal(), parameters={"scale": 2.0})
    assert not Objective([LogLikelihood(normal, source)]).concave
    assert Objective([LogLikelihood(held, source)]).concave


def test_a_certificate_under_students_t_does_not_call_the_maximum_global():
    fit = th.fit("y ~ x", DATA, "poisson", prior=priors.StudentT(1.0))
    assert fit.certificate.ok
    assert not fit.certificate.concave
    assert th.fit("y ~ x", DATA, "poisson", prior=priors.Normal(1.0)).certificate.concave


@pytest.mark.parametrize("size", [1, 5, 12])
@pytest.mark.parametrize(
    "prior",
    [priors.Normal(0.7), priors.StudentT(0.7), priors.Laplace(0.7), priors.ElasticNet(0.7)],
    ids=lambda prior: type(prior).__name__,
)
def test_the_posterior_of_a_network_does_not_depend_on_the_batch_size(prior, size):
    """The mean of the steps of an epoch is 1/N of the value and of the gradient of the whole objective,
    whatever the batches."""
    network = th.networks.mlp(2, (3,), 2, dtype=torch.float64)
    model = th.models.Conditional(th.families.Categorical(3), network)
    r = np.random.default_rng(1)
    source = Tensors({"x": torch.tensor(r.normal(size=(60, 2))), "y": torch.tensor(r.integers(0, 3, 60))})
    objective = LogLikelihood(model, source) + LogPrior(prior, model)
    known = objective.taylor(order=1)
    assert float(prior.taylor(model).gradient.abs().sum()) > 0.1
    solver = th.Stochastic(batch_size=size, steps=1, held_out=None)
    work = solver.start(objective).work
    value, gradient = 0.0, torch.zeros_like(known.gradient)
    for _ in range(60 // size):
        value += work.engine.gradient([(feed, next(feed.batches)) for feed in work.feeds]) * size / 60
        gradient -= torch.cat([p.grad.reshape(-1) for p in work.engine.parameters]) * size / 60
    close(gradient, known.gradient / 60, rtol=1e-10, atol=1e-13)
    assert value == pytest.approx(float(known.value) / 60, rel=1e-10)
