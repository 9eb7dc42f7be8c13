"""The straight path: flow matching is a weighting of the diffusion's bound, its ordinary differential equation the
probability flow, and Euler's steps along it are DDIM's."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument
from thetahat.generative import (
    Denoiser,
    Diffusion,
    FlowMatching,
    ImportanceTimes,
    Noised,
    ProbabilityFlow,
    Straight,
)
from thetahat.generative.samplers import solve
from thetahat.generative.schedule import Cosine, Linear

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import MEAN, Gaussian

Y = torch.tensor([[0.5, -1.0, 0.2], [0.0, 0.0, 0.0], [2.0, 1.0, -1.5]], dtype=torch.float64)
PREDICTIONS = ("epsilon", "v", "velocity")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Random(nn.Module):
    """A network that is nobody's best: random tanh units of (z, λ/5)."""

    def __init__(self, d: int = 3):
        super().__init__()
        self.inner, self.dimensions = th.networks.mlp(d + 1, 16, d, "tanh", seed=0, dtype=torch.float64), d

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        return self.inner(torch.cat([z, log_snr[:, None] / 5], 1))


def velocity(network: nn.Module, predict: str, mixed: Tensor, tau: Tensor) -> Tensor:
    """û at (1 − τ) x + τ ε, (n, d), from what the network predicts: written for this path alone, without
    the model's own formulas. The network reads mixed/s, of variance 1 where x has it, s² = (1 − τ)² + τ²."""
    s = ((1 - tau) ** 2 + tau**2).sqrt()
    out = network(mixed / s, (2 * torch.log((1 - tau) / tau)).squeeze(1))
    if predict == "velocity":
        return out
    if predict == "epsilon":  # x̂ = (mixed − τ ε̂)/(1 − τ)
        return out - (mixed - tau * out) / (1 - tau)
    # v̂ = ((1 − τ) ε̂ − τ x̂)/s and mixed = (1 − τ) x̂ + τ ε̂: a rotation, solved for both
    x = ((1 - tau) * mixed / s - tau * out) / s
    epsilon = (tau * mixed / s + (1 - tau) * out) / s
    return epsilon - x


# ---- the path ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(9.0, -7.0), (30.0, -30.0)])
def test_shares_of_data_and_noise_change_evenly_from_end_to_end(ends):
    """σ/(α + σ) = τ, linear in t; fall = −dλ/dt by automatic differentiation."""
    schedule = Straight(*ends)
    t = torch.linspace(0, 1, 9, dtype=torch.float64, requires_grad=True)
    log_snr = schedule.log_snr(t)
    assert log_snr[[0, -1]].tolist() == pytest.approx(list(ends), abs=1e-9)
    torch.testing.assert_close(schedule.fall(t), -torch.autograd.grad(log_snr.sum(), t)[0])
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    tau = (sigma / (alpha + sigma)).detach()
    torch.testing.assert_close(tau.diff(), tau.diff().mean().expand(8), rtol=1e-9, atol=0)


def test_the_ends_of_the_path_keep_their_digits_in_float32():
    """1 − τ_1 = 3·10⁻⁷ is not the difference of two numbers near 1."""
    schedule = Straight(30.0, -30.0)
    t = torch.tensor([0.0, 1.0])
    assert schedule.log_snr(t).tolist() == pytest.approx([30.0, -30.0], rel=1e-6)


# ---- the objective -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("schedule", [Straight(10.0, -10.0), Straight(3.0, -14.0)], ids=["even", "uneven"])
def test_weighted_terms_are_the_loss_of_flow_matching(predict, schedule):
    """Term by term: w · (log p less what has no θ) = −(τ_1 − τ_0) ‖(ε − x) − û((1 − τ) x + τ ε, τ)‖², the
    loss written by hand from (x, ε, τ). And the gradients agree."""
    network = Random()
    model = Diffusion(network, predict=predict, schedule=schedule, shift=0.3, scale=2.0)
    n = 50
    y = torch.randn(n, 3, generator=seeded(), dtype=torch.float64)
    t = torch.rand(n, generator=seeded(1), dtype=torch.float64)
    batch = Batch({"y": y, "t": t})
    torch.manual_seed(2)
    log_prob = model.log_prob(batch)
    weight = FlowMatching(model.schedule)(batch, log_prob.detach())
    (weight * log_prob).sum().backward()
    found = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()

    torch.manual_seed(2)
    epsilon = torch.randn(n, 3, dtype=torch.float64)  # the model's own draw
    x = (y - 0.3) / 2.0
    first, last = (1 / (1 + math.exp(end / 2)) for end in (schedule._high, schedule._low))
    tau = (first + (last - first) * t)[:, None]
    loss = ((epsilon - x) - velocity(network, predict, (1 - tau) * x + tau * epsilon, tau)).square().sum(1)
    (-(last - first) * loss).sum().backward()
    for p, each in zip(network.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad, each, rtol=1e-9, atol=1e-9)

    bare = model._decoded(y, x, epsilon) - model._end(x) - 3 * math.log(2.0)  # of log p, what has no θ
    torch.testing.assert_close(
        (weight * (log_prob - bare)).detach(), -(last - first) * loss.detach(), rtol=1e-7, atol=1e-7
    )


@pytest.mark.parametrize("schedule", [Linear(8.0, -8.0), Cosine(8.0, -8.0)])
def test_the_weight_has_the_same_objective_under_every_schedule(schedule):
    """½ ∫ w(λ) ‖ε − ε̂‖² dλ: w · (−dλ/dt) integrated over t against the same on the straight path, for a
    function of λ in the place of the error. Midpoint rule."""
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    found = []
    for each in (schedule, Straight(8.0, -8.0)):
        weight = FlowMatching(each)(Batch({"t": t}), t)
        found.append(float((weight * each.fall(t) * torch.sigmoid(each.log_snr(t))).mean()))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_three_predictions_are_names_of_one():
    """Of the best denoiser the bounds are equal on common draws, and z = α x̂ + σ ε̂."""
    batch = Batch({"y": Y})
    found = []
    for predict in PREDICTIONS:
        model = Diffusion(Gaussian(predict=predict), predict=predict, schedule="straight")
        found.append(model.log_prob(batch, generator=seeded(3)))
        log_snr = torch.tensor([-3.0, 0.0, 4.0], dtype=torch.float64)
        x, epsilon = model.denoised(Y, log_snr)
        alpha, sigma = torch.sigmoid(log_snr).sqrt()[:, None], torch.sigmoid(-log_snr).sqrt()[:, None]
        torch.testing.assert_close(alpha * x + sigma * epsilon, Y)
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found[2], found[0], rtol=1e-9, atol=1e-9)


# ---- the density -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_the_density_of_gaussian_data_is_the_closed_form(predict):
    """log N(x; m, C + e^{−λ_0} I), to 1e-5; and that of the variance-preserving flow of the same denoiser."""
    network = Gaussian(predict=predict)
    straight, linear = (
        ProbabilityFlow(Diffusion(network, predict=predict, schedule=s), tolerance=1e-8).solve(Y).log_prob
        for s in (Straight(6.0, -30.0), Linear(6.0, -30.0))
    )
    torch.testing.assert_close(straight, network.log_prob(Y, math.exp(-6.0)), atol=1e-5, rtol=0)
    torch.testing.assert_close(straight, linear, atol=1e-8, rtol=0)


def test_the_density_of_any_network_is_that_of_the_velocity_integrated_along_the_path():
    """d(mixed)/dτ = û, d log p/dτ = −tr ∂û/∂mixed from τ_0 to τ_1 by scipy's integrator, its end scored under
    N(0, s² I), s² = (1 − τ)² + τ²: the instantaneous change of variables of flow matching."""
    network, ends = Random(), (5.0, -6.0)
    model = Diffusion(network, predict="velocity", schedule=Straight(*ends))
    found = ProbabilityFlow(model, tolerance=1e-9).solve(Y).log_prob
    first, last = (1 / (1 + math.exp(end / 2)) for end in ends)

    def slope(tau: float, state: np.ndarray) -> np.ndarray:
        at = torch.tensor([[tau]], dtype=torch.float64)

        def u(mixed: Tensor) -> Tensor:
            return velocity(network, "velocity", mixed[None], at)[0]

        here = torch.from_numpy(state[:3])
        trace = torch.autograd.functional.jacobian(u, here).diagonal().sum()
        return np.concatenate([u(here).detach().numpy(), [float(trace)]])

    for row, mine in zip(Y, found, strict=True):
        start = np.concatenate([(1 - first) * row.numpy(), [0.0]])
        end = scipy.integrate.solve_ivp(slope, (first, last), start, rtol=1e-10, atol=1e-10).y[:, -1]
        s2 = (1 - last) ** 2 + last**2
        log_end = -0.5 * (end[:3] @ end[:3] / s2 + 3 * math.log(2 * math.pi * s2))
        assert float(mine) == pytest.approx(log_end + end[3] + 3 * math.log(1 - first), abs=1e-6)


# ---- draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_ddim_on_the_straight_path_is_eulers_method(predict):
    """mixed ← mixed + (τ_s − τ_t) û, evenly spaced in τ, in the rescaled variable z/(α + σ): step by step the
    same for any network, to rounding."""
    network, ends, steps = Random(), (6.0, -9.0), 7
    model = Diffusion(network, predict=predict, schedule=Straight(*ends))
    z = torch.randn(20, 3, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        first, last = (1 / (1 + math.exp(end / 2)) for end in ends)
        mixed = z * ((1 - last) ** 2 + last**2) ** 0.5
        width = (first - last) / steps
        for k in range(steps):
            tau = torch.full((20, 1), last + k * width, dtype=torch.float64)
            mixed = mixed + width * velocity(network, predict, mixed, tau)
        found = solve(model, z, steps=steps, method="ddim")
    torch.testing.assert_close(found, mixed / ((1 - first) ** 2 + first**2) ** 0.5, rtol=1e-9, atol=1e-9)


def test_draws_along_the_path_have_the_mean_and_the_covariance_of_the_data():
    """x ~ N(m, C): 20000 draws by Euler's method, 5 standard errors and 2 % for the size of the steps."""
    network = Gaussian(predict="velocity")
    model = Diffusion(network, predict="velocity", schedule=Straight(10.0, -10.0))
    x = model.draw(20_000, steps=300, method="ddim", generator=seeded(1))
    sd = network.C.diagonal().sqrt()
    assert ((x.mean(0) - MEAN).abs() < 5 * sd / 20_000**0.5 + 0.02 * sd).all()
    assert ((torch.cov(x.T) - network.C).abs() < (0.02 + 5 * (2 / 20_000) ** 0.5) * sd[:, None] * sd).all()


# ---- fits --------------------------------------------------------------------------------------------------


def test_a_flow_matching_fit_is_scored_by_the_bound_and_read_from_its_file(tmp_path):
    """The whole way: weights, held-out bound, the file without a line of code."""
    y = torch.randn(200, 2, generator=seeded()) * 0.5 + 1
    model = Diffusion(Denoiser(2, width=16, blocks=1), predict="velocity", schedule=Straight(8.0, -8.0))
    solver = th.Stochastic(steps=30, batch_size=50, learning_rate=0.01, held_out=0.2, evaluate_every=10)
    fit = th.fit(
        model,
        Noised(Tensors({"y": y})),
        weights=FlowMatching(model.schedule),
        solver=solver,
    )
    assert fit.score({"y": y}).kind == "lower bound"
    assert "FlowMatching" in str(fit.summary())
    fit.save(tmp_path / "fit")
    again = th.load(tmp_path / "fit")
    assert isinstance(again.model.schedule, Straight)
    assert again.model.predict == "velocity"
    assert again.score({"y": y}).total == fit.score({"y": y}).total


def test_weights_of_another_schedule_than_the_models_are_refused():
    """They would read another λ for a term's time; an equal schedule is as good as the same."""
    source = Noised(Tensors({"y": Y}))
    model = Diffusion(Random(), predict="velocity", schedule=Straight(8.0, -8.0))
    for other in (
        Linear(8.0, -8.0),
        Straight(8.0, -9.0),
        ImportanceTimes(Straight(8.0, -8.0), [1.0, 2.0]),
    ):
        with pytest.raises(BadArgument, match="not the schedule of the model"):
            th.LogLikelihood(model, source, FlowMatching(other))
    th.LogLikelihood(model, source, FlowMatching(Straight(8.0, -8.0)))
    learned = Diffusion(Random(), predict="velocity", schedule=Straight(8.0, -8.0, learned=True))
    with pytest.raises(BadArgument, match="its ends fixed"):
        th.LogLikelihood(learned, source, FlowMatching(Straight(8.0, -8.0)))


def test_a_path_with_learned_ends_takes_no_weights():
    with pytest.raises(BadArgument, match="FlowMatching and a learned schedule"):
        FlowMatching(Straight(8.0, -8.0, learned=True))
