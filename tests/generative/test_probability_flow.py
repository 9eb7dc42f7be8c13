"""The probability flow's density: a closed form, an integral of one, and errors that are what they say."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.integrate
import torch
from torch import nn

from thetahat.data import Batch, Tensors
from thetahat.errors import BadArgument, ModelError
from thetahat.evaluation.score import score
from thetahat.generative import Denoiser, Diffusion, ProbabilityFlow
from thetahat.generative.probability_flow import integrate
from thetahat.generative.schedule import Cosine, Linear
from thetahat.networks import mlp

sys.path.insert(0, str(Path(__file__).parent))
from gaussian import Gaussian

Y = torch.tensor([[0.5, -1.0, 0.2], [0.0, 0.0, 0.0], [2.0, 1.0, -1.5]], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Smooth(nn.Module):
    """A network that is not linear: random tanh units of (z, λ/5)."""

    def __init__(self, d: int):
        super().__init__()
        self.inner, self.dimensions = mlp(d + 1, 16, d, "tanh", seed=0, dtype=torch.float64), d
        with torch.no_grad():
            for p in self.inner.parameters():
                p.mul_(3)

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.cat([z, log_snr[:, None] / 5], 1))


# ---- the density -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predict", ["epsilon", "v"])
def test_the_density_of_gaussian_data_is_the_closed_form(predict):
    """log N(x; m, C + e^{−λ_0} I), scaled: y = 3 + 2x. What is left is the start at N(0, I), of order
    e⁻¹⁵."""
    network = Gaussian(predict=predict)
    model = Diffusion(network, predict=predict, schedule=Linear(6.0, -30.0), shift=3.0, scale=2.0)
    found = ProbabilityFlow(model, tolerance=1e-8).solve(3 + 2 * Y)
    torch.testing.assert_close(
        found.log_prob, network.log_prob(Y, math.exp(-6.0)) - 3 * math.log(2), atol=2e-6, rtol=0
    )
    assert float(found.error.abs().max()) == 0


def test_the_path_is_the_closed_form():
    """z_1 of z_0 = α_0 x, led back by the quantiles of each eigenvector."""
    network = Gaussian()
    model = Diffusion(network, predict="epsilon", schedule=Cosine(8.0, -8.0))
    end = ProbabilityFlow(model, tolerance=1e-9).solve(Y).end
    start = network.flow(end, -8.0, 8.0)
    torch.testing.assert_close(
        start / torch.sigmoid(torch.tensor(8.0, dtype=torch.float64)).sqrt(), Y, atol=1e-6, rtol=0
    )


def test_the_density_of_any_network_integrates_to_one():
    """∫ p(y) dy by the trapezoidal rule on a grid that holds nearly all of it."""
    flow = ProbabilityFlow(Diffusion(Smooth(1), predict="v", schedule=Cosine(5.0, -8.0)))
    y = torch.linspace(-8, 8, 3201, dtype=torch.float64)[:, None]
    p = flow.log_prob(Batch({"y": y})).exp()
    assert float(p[[0, -1]].max()) < 1e-8
    assert float(p.sum() * 0.005) == pytest.approx(1, abs=1e-5)


class Refusing(torch.autograd.Function):
    """The identity, of which torch cannot take several backward passes at once."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope * (1.0 if slope.sum().item() == slope.sum().item() else 0.0)


class Refused(Smooth):
    def forward(self, z, log_snr):
        return Refusing.apply(super().forward(z, log_snr))


@pytest.mark.parametrize("network", [Smooth, Refused])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_the_trace_is_the_sum_of_the_jacobians_diagonal(network, rows, monkeypatch):
    """torch.func.jacrev of the field of each row alone, however many components are taken at once."""
    from thetahat.generative import probability_flow

    monkeypatch.setattr(probability_flow, "ROWS", rows)
    flow = ProbabilityFlow(Diffusion(network(3), predict="v", schedule=Cosine(4.0, -4.0)))
    plain = ProbabilityFlow(Diffusion(Smooth(3), predict="v", schedule=Cosine(4.0, -4.0)))
    phi = torch.tensor([0.4, 0.8, 1.2], dtype=torch.float64)
    state = torch.cat([Y, torch.zeros(3, 1, dtype=torch.float64)], 1)
    found = flow._field(3, None, None)(phi, state, torch.arange(3))
    for i in range(3):
        jacobian = torch.func.jacrev(lambda z, i=i: plain.slope(phi[i : i + 1], z[None])[0])(Y[i])
        assert float(found[i, 3]) == pytest.approx(float(jacobian.trace()), abs=1e-12)
    torch.testing.assert_close(found[:, :3], plain.slope(phi, Y).detach(), rtol=0, atol=1e-13)


def test_an_exact_density_is_scored_by_one_pass(monkeypatch):
    flow = ProbabilityFlow(Diffusion(Smooth(3), predict="v", schedule=Cosine(4.0, -4.0)), tolerance=1e-3)
    calls, solve = [], flow.solve
    monkeypatch.setattr(flow, "solve", lambda *a, **k: calls.append(1) or solve(*a, **k))
    score(flow, Tensors({"y": Y}))
    assert len(calls) == 1


def test_draws_have_the_density():
    """Gaussian data: mean of log p over 4000 draws against minus the entropy, 4 standard errors."""
    network = Gaussian()
    flow = ProbabilityFlow(Diffusion(network, predict="epsilon", schedule=Cosine(8.0, -12.0)), tolerance=1e-5)
    y = flow.draw(4000, generator=seeded())
    log_p = network.log_prob(y, math.exp(-8.0))
    entropy = torch.distributions.MultivariateNormal(network.mean, network.C).entropy()
    assert float(log_p.mean()) == pytest.approx(
        -float(entropy), abs=4 * float(log_p.std()) / 4000**0.5 + 2e-3
    )


# ---- probes ------------------------------------------------------------------------------------------------


def test_probes_are_unbiased_and_their_error_is_what_they_say():
    """Hutchinson against the exact trace: 400 rows of one y, standardised by their own reported errors (t
    with 15 degrees of freedom)."""
    model = Diffusion(Smooth(3), predict="v", schedule=Cosine(5.0, -5.0))
    y = Y[2].expand(400, -1)
    exact = ProbabilityFlow(model, tolerance=1e-6).solve(Y[2:]).log_prob
    found = ProbabilityFlow(model, probes=16, tolerance=1e-4).solve(y, generator=seeded())
    assert float(found.error.min()) > 0
    z = (found.log_prob - exact) / found.error
    assert float(found.log_prob.mean() - exact) == pytest.approx(
        0, abs=4 * float(found.log_prob.std()) / 20 + 1e-3
    )
    assert float(z.std()) == pytest.approx((15 / 13) ** 0.5, rel=0.15)


def test_a_score_by_probes_is_an_estimate_with_its_error():
    model = Diffusion(Smooth(3), predict="v", schedule=Cosine(4.0, -4.0))
    source = Tensors({"y": Y})
    exact = score(ProbabilityFlow(model, tolerance=1e-4), source, generator=seeded())
    found = score(ProbabilityFlow(model, probes=4, tolerance=1e-4), source, generator=seeded())
    assert (exact.kind, exact.K, exact.error, exact.measure) == ("exact", None, 0.0, "density")
    assert (found.kind, found.K, found.measure) == ("estimate", 4, "density")
    assert found.error > 0
    one = ProbabilityFlow(model, probes=1, tolerance=1e-3).solve(Y, generator=seeded())
    assert bool(one.error.isnan().all())  # one probe says nothing of its own error


# ---- steps -------------------------------------------------------------------------------------------------


def test_no_value_depends_on_what_else_is_in_the_batch():
    """Steps are each sample's own: alone and beside a far harder one the same, to rounding of the products of
    matrices."""
    flow = ProbabilityFlow(Diffusion(Smooth(3), predict="v", schedule=Cosine(6.0, -6.0)), tolerance=1e-4)
    y = torch.cat([Y, 50 * Y[2:]])
    together, alone = flow.solve(y), flow.solve(Y[:1])
    assert len(set(together.steps.tolist())) > 1
    assert int(together.steps[0]) == int(alone.steps[0])
    torch.testing.assert_close(together.log_prob[:1], alone.log_prob, rtol=1e-10, atol=1e-10)


def test_a_smaller_tolerance_is_a_smaller_error():
    """Against the closed form, three tolerances."""
    network = Gaussian()
    model = Diffusion(network, predict="epsilon", schedule=Linear(6.0, -30.0))
    exact = network.log_prob(Y, math.exp(-6.0))
    errors = [
        float((ProbabilityFlow(model, tolerance=tol).solve(Y).log_prob - exact).abs().max())
        for tol in (1e-2, 1e-4, 1e-7)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_the_integrator_agrees_with_scipy():
    """scipy.integrate.solve_ivp(method="DOP853", rtol=1e-12) on Van der Pol's equation, forwards and
    backwards."""

    def field(t, y, _):
        return torch.stack([y[:, 1], 2 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)

    starts = np.array([[2.0, 0.0], [0.5, 1.0]])
    for stop in (5.0, -0.5):
        found, steps = integrate(field, torch.from_numpy(starts), 0.0, stop, 1e-10)
        for start, value in zip(starts, found, strict=True):
            exact = scipy.integrate.solve_ivp(
                lambda t, y: [y[1], 2 * (1 - y[0] ** 2) * y[1] - y[0]],
                (0, stop),
                start,
                method="DOP853",
                rtol=1e-12,
                atol=1e-12,
            )
            np.testing.assert_allclose(value.numpy(), exact.y[:, -1], atol=1e-8)
        assert int(steps.min()) > 5


def test_the_integrator_is_of_fifth_order():
    """y' = y: an error of order tol, and steps that grow as tol^(−1/5)."""
    one = torch.ones(1, 1, dtype=torch.float64)
    steps = [int(integrate(lambda t, y, _: y, one, 0.0, 20.0, tol)[1]) for tol in (1e-5, 1e-10)]
    assert steps[1] / steps[0] == pytest.approx(10, rel=0.25)


def test_what_cannot_be_integrated_is_said():
    with pytest.raises(ModelError, match=r"sample 1 is not finite"):
        integrate(
            lambda t, y, w: 1 / (y - 1), torch.tensor([[5.0], [1.0]], dtype=torch.float64), 0.0, 1.0, 1e-6
        )
    with pytest.raises(ModelError, match="after 10 steps"):
        integrate(
            lambda t, y, w: torch.sin(100 * y),
            torch.ones(1, 1, dtype=torch.float64),
            0.0,
            10.0,
            1e-10,
            max_steps=10,
        )


def test_a_flow_of_levels_and_settings_that_cannot_be_used_are_refused():
    with pytest.raises(BadArgument, match="levels have a mass"):
        ProbabilityFlow(Diffusion(Denoiser(2, width=8), levels=3))
    with pytest.raises(BadArgument, match="probes=0"):
        ProbabilityFlow(Diffusion(Denoiser(2, width=8)), probes=0)
