"""Score networks of the usual SDEs, against the probability flow of a Gaussian in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.generative.probability_flow import ProbabilityFlow
from thetahat.generative.published import Steps, by_bound, by_flow, continuous, loss

MEAN, VARIANCE = 0.2, 0.3
B0, B1, S0, S1, START = 0.1, 20.0, 0.01, 50.0, 1e-5


def moments(name: str, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m_t and s_t as sde_lib.py of score_sde has them (`marginal_prob`)."""
    if name == "ve":
        return np.ones_like(t), S0 * (S1 / S0) ** t
    log_mean = -0.25 * np.square(t) * (B1 - B0) - 0.5 * t * B0
    variance = -np.expm1(2 * log_mean)
    return np.exp(log_mean), variance if name == "subvp" else np.sqrt(variance)


SDES = {
    "vp": th.generative.VP(B0, B1),
    "subvp": th.generative.SubVP(B0, B1),
    "ve": th.generative.VE(S0, S1),
}


class Score(nn.Module):
    """∇ log p_t of x ~ N(m, v) with the noise of an SDE, called as score_sde calls it; or ε̂ = −s_t ∇ log p_t."""

    def __init__(self, name: str, epsilon: bool = False):
        super().__init__()
        self.name, self.epsilon = name, epsilon

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        m, s = (
            torch.from_numpy(each).reshape(-1, 1, 1, 1) for each in moments(self.name, t.detach().numpy())
        )
        score = -(x - m * MEAN) / (m**2 * VARIANCE + s**2)
        return -s * score if self.epsilon else score


def flow_density(name: str, x: np.ndarray) -> np.ndarray:
    """log p(x): x goes to its own quantile at t = 1, where p is N(0, σ_max²) of VE, N(0, 1) otherwise."""
    (m0, s0), (m1, s1) = moments(name, START), moments(name, 1.0)
    before, after = (math.sqrt(m**2 * VARIANCE + s**2) for m, s in ((m0, s0), (m1, s1)))
    end = m1 * MEAN + after / before * m0 * (x - MEAN)
    prior = S1 if name == "ve" else 1.0
    return (stats.norm.logpdf(end, 0, prior) + math.log(m0 * after / before)).sum(-1)


@pytest.mark.parametrize("name", SDES)
def test_a_time_has_the_signal_and_the_noise_of_score_sde(name: str) -> None:
    """λ = 2 log m/s, κ² = m² + s², and t again, of formulas of `marginal_prob`."""
    t = torch.tensor([1e-5, 0.01, 0.3, 1.0], dtype=torch.float64)
    m, s = moments(name, t.numpy())
    sde = SDES[name]
    log_snr = sde.log_snr(t)
    assert log_snr.numpy() == pytest.approx(2 * np.log(m / s), rel=1e-9)
    assert sde.time(log_snr).numpy() == pytest.approx(t.numpy(), rel=1e-9)
    assert sde.size(log_snr).numpy() == pytest.approx(np.hypot(m, s), rel=1e-9)
    assert (sde.high, sde.low) == pytest.approx((2 * np.log(m[0] / s[0]), 2 * np.log(m[-1] / s[-1])))


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("epsilon", [False, True])
def test_the_probability_flow_of_a_gaussian_has_its_density_to_a_ten_thousandth_of_a_bit(
    name: str, epsilon: bool
) -> None:
    x = np.random.default_rng(0).normal(MEAN, 1, (6, 4))
    made = continuous(Score(name, epsilon), SDES[name], "epsilon" if epsilon else "score", (1, 2, 2))
    found = by_flow(ProbabilityFlow(made, tolerance=1e-7), SDES[name], torch.from_numpy(x), torch.Generator())
    assert found.numpy() / (4 * math.log(2)) == pytest.approx(
        flow_density(name, x) / (4 * math.log(2)), abs=1e-4
    )


@pytest.mark.parametrize(
    ("name", "sde"),
    [
        ("vp", th.generative.VP(B0, B1, start=1e-3)),
        ("subvp", th.generative.SubVP(B0, B1, start=1e-2)),
        ("ve", th.generative.VE(S0, S1)),
    ],
)
def test_the_bound_of_the_best_score_is_the_log_density(name: str, sde: th.generative.VP) -> None:
    """Kingma et al. (2021), §4: in continuous time nothing is lost but what the noise at the start hides
    (s_0/m_0 is 0.01 or less, beside a standard deviation of 0.55), and a prior that is not quite p_1."""
    n = 20_000
    x = torch.full((n, 1), 0.7, dtype=torch.float64)
    made = continuous(Score(name), sde, "score", (1, 1, 1), K=8)
    found = by_bound(made, sde, x, torch.Generator().manual_seed(0))
    error = float(found.std()) / n**0.5
    exact = stats.norm.logpdf(0.7, MEAN, VARIANCE**0.5)
    assert error < 0.03
    assert abs(float(found.mean()) - exact) < 4 * error + 1e-3


def test_the_training_loss_is_the_mean_over_t_of_the_error_of_epsilon() -> None:
    """Of the best score, E(ε − ε̂)² = m² E(x − x̂)²/s² by quadrature over t, at one x."""

    def expected(t: float) -> float:
        m, s = moments("vp", t)
        k = m * VARIANCE / (m**2 * VARIANCE + s**2)
        return (m / s) ** 2 * ((1 - k * m) ** 2 * (0.7 - MEAN) ** 2 + (k * s) ** 2)

    n, sde = 20_000, SDES["vp"]
    x = torch.full((n, 1), 0.7, dtype=torch.float64)
    found = loss(continuous(Score("vp"), sde, "score", (1, 1, 1)), sde, x, torch.Generator().manual_seed(0))
    exact = integrate.quad(expected, START, 1, limit=200)[0]
    assert float(found.mean()) == pytest.approx(exact, abs=4 * float(found.std()) / n**0.5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_steps_made_continuous_keep_the_density_of_the_best_denoiser(prediction_type: str) -> None:
    """A network that knows α of every, also fractional, step by linear interpolation of λ: the flow's closed
    form depends on the two ends alone."""
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.05, 400, dtype=torch.float64), 0)
    process = Steps(bar)

    def network(z: Tensor, t: Tensor) -> Tensor:
        a2 = torch.sigmoid(process.log_snr(t))[:, None, None, None]
        a, s = a2.sqrt(), (1 - a2).sqrt()
        x = MEAN + a * VARIANCE / (a2 * VARIANCE + 1 - a2) * (z - a * MEAN)
        epsilon = (z - a * x) / s
        return {"epsilon": epsilon, "sample": x, "v_prediction": a * epsilon - s * x}[prediction_type]

    x = np.random.default_rng(0).normal(MEAN, 1, (5, 4))
    made = continuous(network, process, prediction_type, (1, 2, 2))
    found = by_flow(ProbabilityFlow(made, tolerance=1e-7), process, torch.from_numpy(x), torch.Generator())
    first, last = float(bar[0]), float(bar[-1])
    before, after = (math.sqrt(b * VARIANCE + 1 - b) for b in (first, last))
    end = math.sqrt(last) * MEAN + after / before * math.sqrt(first) * (x - MEAN)
    hand = (stats.norm.logpdf(end) + math.log(after / before * math.sqrt(first))).sum(1)
    assert found.numpy() == pytest.approx(hand, abs=1e-4)
    assert process.time(process.log_snr(torch.tensor([0.0, 1.5, 399.0]))).tolist() == pytest.approx(
        [0, 1.5, 399]
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: th.generative.VP(-0.1, 20),
        lambda: th.generative.VP(2.0, 1.0),
        lambda: th.generative.VP(0.0, 0.0),
        lambda: th.generative.SubVP(start=0.0),
        lambda: th.generative.VE(0.0, 50.0),
        lambda: th.generative.VE(2.0, 1.0),
        lambda: th.generative.VE(start=1.0),
        lambda: Steps(torch.tensor([0.5, 0.0])),
    ],
)
def test_processes_that_cannot_be_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadArgument, match=r"Accepted|last step"):
        make()
