"""The objective: terms add, models share parameters, priors are on the scale of the sum, restrictions are the
same function on a subspace."""

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, BadWeights, EmptyData, UnknownColumn
from thetahat.likelihood import LogLikelihood, LogPrior, Objective, priors, total
from thetahat.likelihood.restricted import Restricted
from thetahat.models.formulas import regression
from thetahat.solvers import Newton, iterate

close = torch.testing.assert_close


@pytest.fixture
def frame():
    r = np.random.default_rng(2)
    x, z = r.normal(size=(2, 500))
    g = np.char.add("g", r.permutation(np.arange(500) % 80).astype(str))
    return pd.DataFrame(
        {
            "y": r.poisson(np.exp(0.2 + 0.4 * x)).astype(float),
            "real": 1 + 2 * x - z + r.normal(size=500),
            "x": x,
            "z": z,
            "g": g,
        }
    )


def poisson(frame, design="x + z"):
    model, source = regression(f"y ~ {design}", frame, th.families.Poisson())
    term = LogLikelihood(model, source)
    return Objective([term]), model, source


@pytest.mark.parametrize("block", [1, 7, 100, 500])
def test_the_total_does_not_depend_on_the_blocks(frame, block):
    objective, model, source = poisson(frame, "x + g")
    whole = objective.taylor(model.start(source))
    source.block = block
    parts = objective.taylor(model.start(source))
    close(parts.value, whole.value, rtol=1e-13, atol=0.0)
    close(parts.gradient, whole.gradient, rtol=1e-10, atol=1e-11)
    close(parts.information.dense(), whole.information.dense(), rtol=1e-11, atol=1e-11)


def test_a_source_without_batches_is_no_data():
    class Empty:
        def batches(self, model=None):
            return iter(())

    with pytest.raises(EmptyData):
        total(lambda batch: batch["y"].sum(), Empty())


def test_terms_over_two_halves_add_to_the_whole(frame):
    objective, model, source = poisson(frame)
    halves = [th.data.Tensors(source.whole[part]) for part in (slice(0, 200), slice(200, 500))]
    both = LogLikelihood(model, halves[0]) + LogLikelihood(model, halves[1])
    at = model.start(source)
    close(both.taylor(at).value, objective.taylor(at).value)
    close(both.taylor(at).information.dense(), objective.taylor(at).information.dense())
    assert both.size == objective.size
    assert both.observations == 500.0


class Location(torch.nn.Module):
    """log p = −½ (y − μ)²/e^{2s}: a shared μ, a scale of its own."""

    measure = "density"

    def __init__(self, mu):
        super().__init__()
        self.mu, self.log_scale = mu, torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def log_prob(self, batch):
        return th.families.Normal().log_prob(batch["y"], self.mu, self.log_scale.exp())


def test_models_may_share_parameters_across_terms():
    """Two samples with one mean and two variances: at the maximum Σ_k n_k (ȳ_k − μ)/σ_k² = 0 and σ_k² =
    mean (y − μ)²."""
    r = np.random.default_rng(0)
    y = [torch.tensor(r.normal(1.0, s, n)) for s, n in ((0.5, 60), (2.0, 200))]
    mu = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    first, second = (LogLikelihood(Location(mu), th.data.Tensors({"y": v})) for v in y)
    fit = th.maximize(first + second)
    assert len(fit.objective.theta) == 3
    found = float(fit.model.mu.detach())
    variance = [float(t.model.log_scale.detach().exp() ** 2) for t in fit.objective.terms]
    assert sum(float((v - found).sum()) / s for v, s in zip(y, variance, strict=True)) == pytest.approx(
        0, abs=1e-6
    )
    for v, s in zip(y, variance, strict=True):
        assert s == pytest.approx(float(((v - found) ** 2).mean()), rel=1e-8)
    assert fit.objective.taylor(order=2).information.dense()[1, 2] == 0.0


def test_a_sum_is_of_terms_and_priors(frame):
    objective, model, _ = poisson(frame)
    assert len((objective + LogPrior(priors.Normal(1.0), model)).priors) == 1
    with pytest.raises(BadArgument, match="int"):
        objective + 3


# ---- weights -----------------------------------------------------------------------------------------------


def test_a_weighting_sees_log_prob_detached_and_multiplies_the_counts(frame):
    model, source = regression("y ~ x", frame.assign(n=2.0), th.families.Poisson(), weights="n")
    seen = []

    def weighting(batch, log_prob):
        seen.append(log_prob.requires_grad)
        return torch.full(batch.shape, 3.0, dtype=torch.float64)

    plain, _, _ = poisson(frame, "x")
    at = model.start(source)
    close(Objective([LogLikelihood(model, source, weighting)]).taylor(at).value, 6 * plain.taylor(at).value)
    assert seen == [False] * len(seen)


def test_weights_of_another_shape_are_refused(frame):
    _, model, source = poisson(frame)
    with pytest.raises(BadWeights, match=r"short.*\(3,\).*\(500,\)"):
        Objective([LogLikelihood(model, source, short)]).taylor()


def short(batch, log_prob):
    return torch.ones(3)


# ---- priors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_a_normal_prior_on_a_normal_model_is_ridge_regression(frame, scale):
    """Hoerl and Kennard (1970): β̂ = (XᵀX/σ² + P)⁻¹ (Xᵀy/σ² + P m), P = 1/s² on the slopes and 0 on the
    intercept."""
    location = 0.5
    fit = th.fit("real ~ x + z", frame, "normal", scale=1.3, prior=th.priors.Normal(scale, location))
    X = np.column_stack([np.ones(500), frame[["x", "z"]]])
    P = np.diag([0.0, 1.0, 1.0]) / scale**2
    beta = np.linalg.solve(X.T @ X / 1.3**2 + P, X.T @ frame["real"] / 1.3**2 + P @ np.full(3, location))
    np.testing.assert_allclose(fit.estimates, beta, rtol=1e-10)
    assert fit.log_likelihood == pytest.approx(float(fit.objective.terms[0].taylor(1).value))


@pytest.mark.parametrize("prior", [priors.Normal(0.7, 0.2), priors.StudentT(0.7, 0.2, df=3.0)])
@pytest.mark.parametrize("design", ["x + z", "x + g"])
def test_a_priors_taylor_is_its_density_differentiated(frame, prior, design):
    """log density of scipy; gradient and information by automatic differentiation of it."""
    from scipy import stats

    _, model, _ = poisson(frame, design)
    theta = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    th.models.base.set_theta(model, theta)
    slopes = theta[1:]
    frozen = stats.norm(0.2, 0.7) if isinstance(prior, priors.Normal) else stats.t(3.0, 0.2, 0.7)
    found = prior.taylor(model)
    assert float(found.value) == pytest.approx(frozen.logpdf(slopes.numpy()).sum(), rel=1e-12)

    def density(t):
        return (prior.log_density((t[1:] - 0.2) / 0.7) - np.log(0.7)).sum()

    close(found.gradient, torch.autograd.functional.jacobian(density, theta))
    close(found.information.dense(), -torch.autograd.functional.hessian(density, theta))


def test_the_posterior_mode_does_not_depend_on_the_blocks(frame):
    found = []
    for block in (500, 13):
        model, source = regression("y ~ x + g", frame, th.families.Poisson())
        source.block = block
        fit = th.maximize(LogLikelihood(model, source) + LogPrior(priors.Normal(0.3), model))
        found.append(fit.estimates.to_numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("on", "names"),
    [(None, ["x", "z"]), ("x", ["x"]), (["z", "Inter*"], ["Intercept", "z"]), ("?", ["x", "z"])],
)
def test_a_prior_is_on_the_coefficients_that_it_names(frame, on, names):
    _, model, _ = poisson(frame)
    found = priors.Normal(1.0, on=on).coordinates(model)
    assert [model.names[j] for j in found] == names


def test_a_prior_names_what_is_there(frame):
    _, model, _ = poisson(frame)
    with pytest.raises(UnknownColumn, match=r"the prior names 'xx'.*'x'"):
        priors.Normal(1.0, on="xx").coordinates(model)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, "a", None])
def test_a_priors_scale_is_a_positive_number(scale):
    with pytest.raises(BadArgument, match="positive"):
        priors.Normal(scale)


# ---- restrictions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["x + z", "x + g"])
def test_a_restriction_is_the_same_function_of_fewer_coordinates(frame, design):
    objective, model, source = poisson(frame, design)
    origin = model.start(source) + 0.1
    free = torch.arange(model.layout.size) % 3 != 1
    basis = torch.eye(len(free), dtype=torch.float64)[:, free]
    phi = torch.randn(int(free.sum()), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1
    theta = origin.clone()
    theta[free] = phi
    whole = objective.taylor(theta)
    masked = Restricted(objective, origin, free)
    anchored = Restricted(objective, torch.where(free, 0.0, origin), basis)
    for restricted in (masked, anchored):
        assert restricted.size == len(phi)
        close(restricted.lift(phi), theta)
        part = restricted.taylor(phi)
        close(part.value, whole.value)
        close(part.gradient, whole.gradient[free])
        close(part.information.dense(), whole.information.dense()[free][:, free])
        close(restricted.at(phi).theta, phi)


def test_the_maximum_under_a_linear_restriction_is_that_of_the_merged_column(frame):
    """β_x = β_z is a regression on x + z."""
    objective, _, _ = poisson(frame)
    basis = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    restricted = Restricted(objective, torch.zeros(3, dtype=torch.float64), basis)
    state = iterate(Newton(), restricted)
    merged = th.fit("y ~ I(x + z)", frame, "poisson")
    np.testing.assert_allclose(state.theta, merged.estimates, rtol=1e-9)
    assert state.value == pytest.approx(merged.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("held", [0, 2])
def test_a_held_coefficient_is_an_offset(frame, held):
    objective, _, _ = poisson(frame)
    origin = torch.full((3,), 0.25, dtype=torch.float64)
    restricted = Restricted(objective, origin, torch.arange(3) != held)
    state = iterate(Newton(), restricted)
    formula = {0: "y ~ 0 + x + z + offset(c)", 2: "y ~ x + offset(0.25*z)"}[held]
    other = th.fit(formula, frame.assign(c=0.25), "poisson")
    np.testing.assert_allclose(state.theta, other.estimates, rtol=1e-9)
