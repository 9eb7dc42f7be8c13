"""The distribution of the return: masses, quantiles, and a small process whose returns are known exactly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import thetahat as th
from thetahat.data import Batch, FiniteMDP
from thetahat.errors import BadArgument, ModelError
from thetahat.rl import Replay
from thetahat.rl.return_distribution import conditional_value_at_risk, log_quantile, midpoints, project

# Four states, two actions, whole rewards, one loop (state 1, action 1 goes on with ½): every return is a
# whole number
MDP = FiniteMDP(
    [
        [[(1.0, 1.0, 1)], [(0.5, 0.0, 2), (0.5, 4.0, 2)]],
        [[(0.5, 0.0, None), (0.5, 2.0, None)], [(0.5, 1.0, 1), (0.5, 1.0, None)]],
        [[(0.1, -3.0, 3), (0.9, 2.0, 3)], [(1.0, 0.0, 3)]],
        [[(0.5, 0.0, None), (0.5, 1.0, None)], [(1.0, -1.0, None)]],
    ],
    start=None,
)
BEST = np.array([[0, 1], [0, 1], [1, 0], [1, 0]])  # by hand: worth 2 beats 1 in state 1, and so on back


class Fixed:
    """Plays a table π(a | s)."""

    def __init__(self, policy: np.ndarray):
        self.policy = torch.as_tensor(policy, dtype=torch.float64)

    def act(
        self, state: torch.Tensor, generator: torch.Generator | None = None, *, greedy: bool = False
    ) -> np.ndarray:
        return torch.multinomial(self.policy[state], 1, generator=generator).squeeze(-1).numpy()


def distances(
    model: th.rl.return_distribution.ReturnDistribution, known: list[list[tuple[np.ndarray, np.ndarray]]]
) -> np.ndarray:
    """Wasserstein's distance of the fitted distribution from the known one, (S, A)."""
    values, mass = (each.detach().double().numpy() for each in model.distribution(torch.arange(MDP.states)))
    return np.array(
        [
            [
                wasserstein_distance(values[s, a], known[s][a][0], mass[s, a].clip(0), known[s][a][1])
                for a in range(MDP.actions)
            ]
            for s in range(MDP.states)
        ]
    )


# ---- the projection ----------------------------------------------------------------------------------------


def by_definition(returns: torch.Tensor, mass: torch.Tensor, low: float, high: float, K: int) -> torch.Tensor:
    """Bellemare et al. (2017), eq. 7, term by term."""
    z = torch.linspace(low, high, K, dtype=mass.dtype)
    gap = (high - low) / (K - 1)
    near = (1 - (returns.clamp(low, high)[..., :, None] - z).abs() / gap).clamp(0, 1)
    return (mass[..., :, None] * near).sum(-2)


@pytest.mark.parametrize(("low", "high", "K"), [(-10.0, 10.0, 51), (0.0, 1.0, 2), (-3.3, 7.9, 17)])
def test_the_projection_is_that_of_the_paper_and_loses_no_mass(low, high, K):
    g = torch.Generator().manual_seed(0)
    returns = low + (high - low) * (2 * torch.rand(100, 40, generator=g, dtype=torch.float64) - 0.5)
    mass = torch.softmax(torch.randn(100, 40, generator=g, dtype=torch.float64), -1)
    found = project(returns, mass, low, high, K)
    torch.testing.assert_close(found, by_definition(returns, mass, low, high, K), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.sum(-1), mass.sum(-1), atol=1e-12, rtol=0)


def test_the_projection_keeps_the_mean_inside_the_ends():
    g = torch.Generator().manual_seed(1)
    returns = torch.rand(50, 30, generator=g, dtype=torch.float64) * 8 - 3
    mass = torch.softmax(torch.randn(50, 30, generator=g, dtype=torch.float64), -1)
    found = project(returns, mass, -3.0, 5.0, 23)
    atoms = torch.linspace(-3.0, 5.0, 23, dtype=torch.float64)
    torch.testing.assert_close((found * atoms).sum(-1), (mass * returns).sum(-1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_return_that_lands_on_an_atom_keeps_its_mass_there(dtype):
    """The trap of l = ⌊b⌋, u = ⌈b⌉: where both are one atom, its mass is multiplied by u − b = b − l = 0 and
    lost."""
    atoms = torch.linspace(-10.0, 10.0, 51, dtype=dtype)
    mass = torch.full((51,), 1 / 51, dtype=dtype)
    torch.testing.assert_close(project(atoms, mass, -10.0, 10.0, 51), mass, atol=1e-6, rtol=0)
    beyond = project(
        torch.tensor([-1e9, 1e9], dtype=dtype), torch.tensor([0.25, 0.75], dtype=dtype), -10.0, 10.0, 51
    )
    assert (float(beyond[0]), float(beyond[-1]), float(beyond.sum())) == (0.25, 0.75, 1.0)


def test_bellmans_operator_on_known_masses_has_the_known_distribution_as_its_fixed_point():
    """C51's projected targets, averaged over the table's outcomes with every return on an atom: the exact
    distribution stays itself."""
    pi = np.full((4, 2), 0.5)
    known = MDP.returns(pi)
    low, high, K = -5.0, 45.0, 51
    table = torch.zeros(4, 2, K, dtype=torch.float64)
    for s in range(4):
        for a in range(2):
            table[s, a, torch.as_tensor(known[s][a][0] - low).round().long()] = torch.as_tensor(
                known[s][a][1]
            )
    model = th.rl.C51(torch.nn.Embedding(4, 2 * K, dtype=torch.float64), low, high, K)
    with torch.no_grad():
        model.network.weight.copy_(table.clamp(min=1e-300).log().reshape(4, -1))
    for s, row in enumerate(MDP.outcomes):
        for a, outcomes in enumerate(row):
            mean = torch.zeros(K, dtype=torch.float64)
            for p, r, following in outcomes:
                for action in range(2):
                    target = model.projected(
                        torch.tensor([r], dtype=torch.float64), torch.ones(1), torch.tensor([following or 0]),
                        torch.tensor([following is None]), torch.tensor([action]),
                    )  # fmt: skip
                    mean += p * pi[0, 0] * target[0]
            torch.testing.assert_close(mean, table[s, a], atol=1e-8, rtol=0)


# ---- the likelihoods ---------------------------------------------------------------------------------------


def test_the_likelihood_of_c51_is_largest_at_the_mean_of_its_targets():
    """Σ_i Σ_k m_ik log p_k ≤ Σ_i Σ_k m_ik log m̄_k (Gibbs), with equality where p = m̄: and its gradient
    in the logits is m̄ − p."""
    g = torch.Generator().manual_seed(0)
    m = torch.softmax(2 * torch.randn(200, 7, generator=g, dtype=torch.float64), -1)
    model = th.rl.C51(torch.nn.Embedding(1, 7, dtype=torch.float64), 0.0, 1.0, 7)
    batch = Batch(
        {
            "state": torch.zeros(200, dtype=torch.long),
            "action": torch.zeros(200, dtype=torch.long),
            "target": m,
        }
    )
    model.log_prob(batch).mean().backward()
    p = torch.softmax(model.network.weight.detach()[0], -1)
    torch.testing.assert_close(model.network.weight.grad[0], m.mean(0) - p, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("tau", [0.05, 0.5, 0.8])
def test_the_density_of_a_quantile_integrates_to_one(kappa, tau):
    """By scipy's quadrature, on each side of θ and of its rounded part."""
    from scipy.integrate import quad

    def p(y: float) -> float:
        return float(
            log_quantile(
                torch.tensor(y, dtype=torch.float64),
                torch.tensor(0.7),
                torch.tensor(tau, dtype=torch.float64),
                kappa,
            ).exp()
        )

    cuts = [-400.0, 0.7 - kappa, 0.7, 0.7 + kappa, 400.0]
    total = sum(quad(p, a, b, epsabs=1e-10, limit=200)[0] for a, b in itertools.pairwise(cuts) if b > a)
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("tau", [0.05, 0.5, 0.8])
def test_unsmoothed_it_is_the_asymmetric_laplace_family(tau):
    y = torch.linspace(-4, 4, 41, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    wanted = th.families.AsymmetricLaplace(tau).log_prob(y, 0.3 * one, one)
    torch.testing.assert_close(log_quantile(y, 0.3 * one, tau * one, 0.0), wanted, atol=1e-12, rtol=0)


def test_smoothed_its_slope_is_that_of_the_quantile_huber_loss():
    """Dabney et al. (2018), eq. 10: ∂/∂u of |τ − 1[u < 0]| L_κ(u)/κ is |τ − 1[u < 0]| · clip(u, −κ, κ)/κ."""
    kappa, tau = 0.7, 0.2
    u = torch.linspace(-3, 3, 60, dtype=torch.float64)
    theta = torch.zeros(60, dtype=torch.float64, requires_grad=True)
    log_quantile(u, theta, torch.tensor(tau, dtype=torch.float64), kappa).sum().backward()
    torch.testing.assert_close(theta.grad, torch.where(u < 0, 1 - tau, tau) * u.clamp(-kappa, kappa) / kappa)


def test_counts_and_padding_are_respected():
    for model in (
        th.rl.C51(torch.nn.Embedding(4, 6), 0.0, 1.0, 3),
        th.rl.QRDQN(torch.nn.Embedding(4, 6), levels=3),
        th.rl.IQN(torch.nn.Embedding(4, 8), torch.nn.Linear(8, 2), 8),
    ):
        batch = {
            "state": torch.arange(3),
            "action": torch.tensor([0, 1, 1]),
            "target": torch.full((3, 3), 1 / 3),
        }
        found = model.log_prob(Batch(batch, count=torch.tensor([1.0, 0.0, 2.0])))
        assert (found != 0).tolist() == [True, False, True]


# ---- risk --------------------------------------------------------------------------------------------------


def test_the_cvar_of_a_normal_is_its_formula():
    """CVaR_α of N(μ, σ²) is μ − σφ(Φ⁻¹(α))/α; 20,000 midpoint quantiles."""
    from scipy.stats import norm

    values = torch.as_tensor(2 + 3 * norm.ppf(midpoints(20_000).double().numpy()))[torch.randperm(20_000)]
    mass = torch.full_like(values, 1 / 20_000)
    for level in (0.05, 0.333, 1.0):
        wanted = 2 - 3 * norm.pdf(norm.ppf(level)) / level if level < 1 else 2.0
        assert float(conditional_value_at_risk(values, mass, level)) == pytest.approx(wanted, abs=2e-3)


def test_risk_takes_the_road_whose_worst_cases_are_better():
    """Action 0 pays 3 or, one time in ten, −10: mean 1.7; action 1 pays 1. In the worst quarter they pay −2.2
    and 1."""
    for risk, wanted in ((None, 0), (0.25, 1)):
        model = th.rl.C51(torch.nn.Embedding(1, 2 * 14), -10.0, 3.0, 14, risk=risk)
        logits = torch.full((2, 14), -40.0)
        logits[0, 13], logits[0, 0], logits[1, 11] = math.log(0.9), math.log(0.1), 0.0
        with torch.no_grad():
            model.network.weight.copy_(logits.reshape(1, -1))
        assert model.act(torch.tensor([0])).tolist() == [wanted]
        torch.testing.assert_close(model.q(torch.tensor([0])), torch.tensor([[1.7, 1.0]]))
        torch.testing.assert_close(
            model.cvar(torch.tensor([0]), 0.25), torch.tensor([[(-10 * 0.1 + 3 * 0.15) / 0.25, 1.0]])
        )


# ---- fitted, beside what is known --------------------------------------------------------------------------

UNIFORM = np.full((4, 2), 0.5)


SETTINGS = {
    "num_envs": 64,
    "learning_starts": 2000,
    "train_frequency": 64,
    "batch_size": 256,
    "target_update_interval": 10,
    "exploration": (1.0, 1.0, 0),
}


def optimise(
    model: torch.nn.Module,
    mdp: FiniteMDP,
    steps: int,
    learning_rate: float,
    discount: float = 1.0,
    **more: object,
) -> torch.nn.Module:
    with torch.no_grad():
        model.network.weight.zero_()
    replay = Replay(mdp, discount=discount, **(SETTINGS | more))
    return th.fit(
        model, replay, solver=th.Stochastic(steps=steps, learning_rate=learning_rate, lr_schedule="linear")
    ).model


def test_c51_fitted_to_a_replay_is_the_known_distribution_of_a_policy():
    """Every return is on an atom, so that nothing but chance is between the fit and the truth: 27,000
    transitions."""
    known = MDP.returns(UNIFORM)
    model = th.rl.C51(torch.nn.Embedding(4, 2 * 21), -4.0, 16.0, 21)
    model = optimise(model, MDP, 1, 1e-9, policy=Fixed(UNIFORM))
    assert distances(model, known).min() > 4
    model = optimise(model, MDP, 400, 0.3, policy=Fixed(UNIFORM))
    assert distances(model, known).max() < 0.15
    assert distances(model, known).mean() < 0.06


def test_c51_that_acts_by_itself_finds_the_best_policy_and_its_distribution():
    known = MDP.returns(BEST)
    q = np.array([[values @ mass for values, mass in row] for row in known])
    assert (q.argmax(1) == BEST.argmax(1)).all()  # greedy with respect to its own values: the best there is
    model = th.rl.C51(torch.nn.Embedding(4, 2 * 21), -4.0, 16.0, 21)
    model = optimise(model, MDP, 400, 0.3)
    assert model.act(torch.arange(4)).tolist() == BEST.argmax(1).tolist()
    assert distances(model, known).max() < 0.15
    assert distances(model, known).mean() < 0.06


def test_qr_dqn_fitted_to_a_replay_is_near_the_best_that_its_quantiles_can_be():
    """32 midpoint quantiles of the known distribution are the nearest that 32 equal masses can be; κ = 0, the
    check loss itself."""
    known = MDP.returns(UNIFORM)
    model = th.rl.QRDQN(torch.nn.Embedding(4, 2 * 32), levels=32, kappa=0.0)
    model = optimise(model, MDP, 400, 0.1, policy=Fixed(UNIFORM))
    least = np.zeros((4, 2))
    for s in range(4):
        for a in range(2):
            values, mass = known[s][a]
            best = values[np.searchsorted(mass.cumsum(), midpoints(32).numpy()).clip(max=len(values) - 1)]
            least[s, a] = wasserstein_distance(best, values, None, mass)
    assert (distances(model, known) - least).max() < 0.2


def test_iqn_fitted_to_a_replay_has_the_quantile_function_of_a_uniform_return():
    """Fair bits discounted by a half are uniform on [0, 2) (here four, a uniform bit at the end): θ_τ =
    2τ, at levels never asked for."""
    last = [(1 / 16, k / 8, None) for k in range(16)]
    chain = FiniteMDP([*[[[(0.5, 0.0, s + 1), (0.5, 1.0, s + 1)]] for s in range(3)], [last]], start=None)
    torch.manual_seed(0)
    model = th.rl.IQN(
        torch.nn.Embedding(4, 16), torch.nn.Linear(16, 1), 16, levels=16, samples=32, kappa=0.02
    )
    replay = Replay(chain, discount=0.5, **SETTINGS)
    model = th.fit(
        model, replay, solver=th.Stochastic(steps=400, learning_rate=0.02, lr_schedule="linear")
    ).model
    tau = torch.linspace(0.05, 0.95, 19)
    found = model.quantiles(torch.arange(4), tau).detach()[:, 0]
    assert float((found - 2 * tau).abs().mean()) < 0.05
    assert float((model.cvar(torch.arange(4), 0.25) - 0.25).abs().max()) < 0.15  # the mean of 2τ below ¼


def test_networks_and_settings_that_do_not_suit_are_named():
    with pytest.raises(ModelError, match=r"A·5"):
        th.rl.C51(torch.nn.Linear(4, 12), 0.0, 1.0, 5).q(torch.zeros(3, 4))
    with pytest.raises(ModelError, match="width=8"):
        th.rl.IQN(torch.nn.Linear(4, 6), torch.nn.Linear(8, 2), 8).q(torch.zeros(3, 4))
    with pytest.raises(BadArgument, match=r"low=1.0, high=0.0"):
        th.rl.C51(torch.nn.Linear(4, 10), 1.0, 0.0, 5)
    with pytest.raises(BadArgument, match="risk=0"):
        th.rl.QRDQN(torch.nn.Linear(4, 10), 5, risk=0.0)
    with pytest.raises(BadArgument, match="kappa"):
        th.rl.QRDQN(torch.nn.Linear(4, 10), 5, kappa=-1.0)
