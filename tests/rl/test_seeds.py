"""Seeds that are trained together. The oracle is the run of each seed alone, by the code for one run; the random
numbers are the same, so that the parameters are to rounding."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, DataError, ModelError
from thetahat.rl import GAE, Advantage, Clipped, RewardToGo, Rollouts, Seeds, Value, stacked
from thetahat.rl.actions import actions_of
from thetahat.rl.rollouts import returns
from thetahat.rl.seeds import SeedWeights, alone, together
from thetahat.solvers.replicas import separated

SEEDS = 3
CARTPOLE = "CartPole-v1"
TAXI = max(
    name for name in gymnasium.registry if name.startswith("Taxi-v")
)  # whose states come with action masks


def networks(seed: int, d: int, K: int, dtype: torch.dtype, kind: str) -> list[nn.Module]:
    """Of the policy and of the value function."""
    if kind == "table":
        tables = [nn.Embedding(d, k, dtype=dtype) for k in (K, 1)]
        for i, table in enumerate(tables):
            nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(seed + i))
        return list(tables)
    both: list[nn.Module] = [
        th.networks.mlp(d, (8,), k, "tanh", seed=seed + i, dtype=dtype) for i, k in enumerate((K, 1))
    ]
    if kind == "normalised":
        layer = th.networks.Normaliser(d)
        return [nn.Sequential(layer, *each) for each in both]
    if kind == "shared":
        trunk = th.networks.mlp(d, (), 8, seed=seed + 7, dtype=dtype)
        heads = [th.networks.mlp(8, (), k, seed=seed + i, dtype=dtype) for i, k in enumerate((K, 1))]
        return [nn.Sequential(trunk, nn.Tanh(), head) for head in heads]
    return both


def make(
    seed: int,
    method: str = "ppo",
    environment: str = CARTPOLE,
    d: int = 4,
    K: int = 2,
    dtype: torch.dtype = torch.float64,
    kind: str = "plain",
    **settings: Any,
) -> th.Objective:
    """The objective of one seed."""
    more = {
        "ppo": {"num_steps": 16, "epochs": 2, "batch_size": 20},
        "a2c": {"num_steps": 7},
        "reinforce": {},
    }[method]
    rollouts = Rollouts(environment, 3, seed=seed, settings=settings or None, **more)
    networks_ = networks(seed, d, K, dtype, kind)
    policy = th.rl.Policy(networks_[0], actions_of(rollouts.actions))
    if method == "reinforce":
        return th.Objective([th.LogLikelihood(policy, rollouts, RewardToGo(0.98, normalise=True))])
    value = Value(networks_[1])
    rollouts.advantage = GAE(value, 0.98, 0.9, normalise=True)
    weights = Clipped(0.2, 0.01) if method == "ppo" else Advantage(0.01)
    return th.Objective([th.LogLikelihood(policy, rollouts, weights), th.LogLikelihood(value, rollouts)])


def solver(steps: int = 20, **settings: Any) -> th.Stochastic:
    own = {"learning_rate": 3e-3, "lr_schedule": "linear", "max_grad_norm": 0.5, "held_out": None}
    return th.Stochastic(steps=steps, **(own | settings))


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


SYSTEMS: dict[str, dict[str, Any]] = {
    "PPO": {},
    "PPO, states normalised": {"kind": "normalised"},
    "PPO, a trunk that policy and value share": {"kind": "shared"},
    "PPO, a continuous action": {"environment": "Pendulum-v1", "d": 3, "max_episode_steps": 13},
    "PPO, numbered states": {
        "environment": "FrozenLake-v1",
        "d": 16,
        "K": 4,
        "kind": "table",
        "max_episode_steps": 9,
    },
    "PPO, actions masked": {"environment": TAXI, "d": 500, "K": 6, "kind": "table", "max_episode_steps": 9},
    "REINFORCE, actions masked": {
        "method": "reinforce",
        "environment": TAXI,
        "d": 500,
        "K": 6,
        "kind": "table",
        "max_episode_steps": 9,
    },
    "A2C": {"method": "a2c"},
    "REINFORCE": {"method": "reinforce", "kind": "normalised"},
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_seed_of_a_stack_is_the_run_that_it_is_alone(system: str) -> None:
    """Policy and value function, parameters and running statistics, in float64; with passes that end at different
    steps and minibatches of different sizes, since an environment that begins anew makes a pass shorter."""
    few = solver(20 if SYSTEMS[system].get("method", "ppo") == "ppo" else 6)
    fit = th.maximize(stacked([make(s, **SYSTEMS[system]) for s in range(SEEDS)]), solver=few)
    for s in range(SEEDS):
        one = th.maximize(make(s, **SYSTEMS[system]), solver=few)
        for own, stack in zip(one.objective.terms, fit.objective.terms, strict=True):
            member = tensors(stack.model.members[s])
            assert member.keys() == tensors(own.model).keys()
            for name, t in tensors(own.model).items():
                torch.testing.assert_close(member[name], t, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "sgd", "max_grad_norm": 0.05},
        {"weight_decay": 0.1},
        {"ema_decay": 0.8, "max_grad_norm": None},
        {"optimiser": torch.optim.NAdam, "warmup_steps": 3},
    ],
    ids=str,
)
def test_every_setting_of_the_solver_is_of_each_seed(settings: dict[str, Any]) -> None:
    """In float32, to 1e-5. A bias, (S, h) in the stack, does not shrink."""
    few = solver(12, **settings)
    fit = th.maximize(stacked([make(s, dtype=torch.float32) for s in range(2)]), solver=few)
    for s in range(2):
        one = th.maximize(make(s, dtype=torch.float32), solver=few)
        for own, stack in zip(one.objective.terms, fit.objective.terms, strict=True):
            torch.testing.assert_close(
                th.models.base.get_theta(stack.model.seed(s)),
                th.models.base.get_theta(own.model),
                rtol=1e-5,
                atol=1e-5,
            )


def test_passes_of_the_seeds_end_at_different_steps() -> None:
    """What the test above relies on: 48 steps less those that only begin an episode, in parts of 20, are two or
    three parts."""
    objective = stacked([make(s, max_episode_steps=4) for s in range(4)])
    rollouts: Any = objective.terms[0].source
    steps = rollouts.minibatches(objective.terms[0].model)
    left = set()
    for _ in range(8):
        batch = next(steps)
        left.add(tuple(len(one._left) for one in rollouts.each))
        assert batch.total == pytest.approx(sum(float((batch.count[s] > 0).sum()) for s in range(4)))
        torch.testing.assert_close(batch.count.sum(1), batch.count.sum(1)[:1].expand(4))
    assert any(len(set(each)) > 1 for each in left) or rollouts.each[0].played


@pytest.mark.parametrize("kind", ["plain", "normalised"])
def test_the_log_probability_of_a_stack_is_that_of_each_member(kind: str) -> None:
    """Of one batched product (plain), and by vmap (a layer with statistics of its own)."""
    objective = stacked([make(s, kind=kind) for s in range(SEEDS)])
    policy, value = (term.model for term in objective.terms)
    g = torch.Generator().manual_seed(0)
    batch = Batch(
        {
            "state": torch.randn(SEEDS, 5, 4, generator=g, dtype=torch.float64),
            "action": torch.randint(0, 2, (SEEDS, 5), generator=g),
            "return": torch.randn(SEEDS, 5, generator=g, dtype=torch.float64),
        },
        count=(torch.rand(SEEDS, 5, generator=g) < 0.7).double(),
        dims=2,
    )
    for stack in (policy, value):
        found = stack.log_prob(batch)
        for s, member in enumerate(stack.members):
            own = Batch({n: t[s] for n, t in batch.tensors.items()}, count=batch.count[s])
            torch.testing.assert_close(found[s], member.log_prob(own))
            slopes = torch.autograd.grad(member.log_prob(own).sum(), list(member.parameters()))
            every = torch.autograd.grad(found[s].sum(), list(stack.parameters()), retain_graph=True)
            for slope, of_all in zip(slopes, every, strict=True):
                torch.testing.assert_close(of_all[s], slope)
                others = [t for t in range(SEEDS) if t != s]
                assert not of_all[others].any(), "a seed's terms depend on another's parameters"
    with pytest.raises(RuntimeError):
        policy.log_prob(Batch({"state": batch["state"][..., :3], "action": batch["action"]}, dims=2))
    rows = batch["state"].flatten(0, 1)
    played = [m.act(x, greedy=True) for m, x in zip(policy.members, batch["state"], strict=True)]
    np.testing.assert_array_equal(policy.act(rows, greedy=True), np.concatenate(played))
    with pytest.raises(BadArgument, match=r"14 states are played by 3 seeds"):
        policy.act(rows[:14])
    with pytest.raises(ModelError, match=r"terms of shape \(15,\)"):
        policy.log_prob(Batch({"state": rows, "action": torch.zeros(15)}))


def test_affine_maps_without_biases_and_of_further_dimensions_are_of_each_seed() -> None:
    """(S, B, T, d), as a pass is; one seed is a stack too."""
    for seeds in (1, 2):
        network = nn.Sequential(nn.Linear(4, 5, bias=False), nn.SiLU(), nn.Linear(5, 2, bias=False)).double()
        stack = Seeds(th.rl.Policy(network), seeds)
        with torch.no_grad():
            for p in stack.parameters():
                p.mul_(torch.arange(1.0, seeds + 1, dtype=p.dtype).reshape(-1, 1, 1))
        state = torch.randn(seeds, 3, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        batch = Batch({"state": state, "action": torch.zeros(seeds, 3, 7)}, dims=3)
        for s, member in enumerate(stack.members):
            own = Batch({"state": state[s], "action": torch.zeros(3, 7)}, dims=2)
            torch.testing.assert_close(stack.log_prob(batch)[s], member.log_prob(own))


def test_a_step_moves_each_seed_by_its_own_gradient_and_the_given_models_stay() -> None:
    each = [make(s) for s in range(2)]
    before = [o.theta for o in each]
    th.maximize(stacked(each), solver=solver(3))
    assert all(torch.equal(o.theta, b) for o, b in zip(each, before, strict=True))
    g = [torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)]
    wanted = [[2 * t[s] for t in g] for s in range(2)]  # of the mean over two seeds to that of each
    norms = [float(torch.cat([t.reshape(-1) for t in w]).norm()) for w in wanted]
    most = sum(norms) / 2  # one is shortened, the other is not
    assert separated(g, 2, most) == pytest.approx(max(norms))
    for s in range(2):
        for t, w in zip(g, wanted[s], strict=True):
            torch.testing.assert_close(t[s], w * min(1.0, most / norms[s]))


def test_padding_is_taken_off_again_and_weighs_nothing() -> None:
    parts = [make(s, "reinforce").terms[0] for s in range(3)]
    batches = [next(iter(term.source.batches(term.model))) for term in parts]
    whole = together(batches)
    assert len({b.shape[1] for b in batches}) > 1
    weights = SeedWeights([term.weights for term in parts])
    found = weights(whole, torch.zeros(whole.shape, dtype=torch.float64))
    assert bool((found[whole.count == 0] == 0).all())
    for s, (term, own) in enumerate(zip(parts, batches, strict=True)):
        back, where = alone(whole, s)
        assert all(torch.equal(back[name], own[name]) for name in own)
        assert torch.equal(back.count, own.count)
        wanted = term.weights(own, torch.zeros(own.shape, dtype=torch.float64))  # type: ignore[misc]
        assert torch.equal(found[s][where], wanted)


def test_a_stack_that_is_interrupted_goes_on_bit_for_bit(tmp_path: Any) -> None:
    def trained(path: Any, until: int) -> torch.Tensor:
        objective = stacked([make(s, kind="normalised", max_episode_steps=11) for s in range(2)])
        one = solver(18, checkpoint=path, checkpoint_every=5)
        state = one.start(objective)
        while state.step < until:
            state = one.step(objective, state)
        return state.theta

    whole = trained(tmp_path / "whole", 18)
    for until in (7, 13, 18):
        found = trained(tmp_path / "parts", until)
    assert torch.equal(found, whole)


def test_a_stack_is_saved_and_loaded_without_code(tmp_path: Any) -> None:
    few = solver(4)
    objective = stacked([make(s, kind="normalised", dtype=torch.float32) for s in range(3)])
    fit = th.maximize(objective, solver=few)
    again = th.load(fit.save(tmp_path / "r.thetahat"))
    assert isinstance(again.model, Seeds)
    for term, other in zip(fit.objective.terms, again.objective.terms, strict=True):
        for own, loaded in zip(term.model.members, other.model.members, strict=True):
            assert all(
                torch.equal(a, b)
                for a, b in zip(tensors(own).values(), tensors(loaded).values(), strict=True)
            )
    layers = [term.model.member.network[0] for term in again.objective.terms]
    assert layers[0] is layers[1]
    assert "Policy of each of 3 seeds" in str(again.summary())
    member = again.model.members[1]
    assert isinstance(member, th.rl.Policy)
    assert returns(member, CARTPOLE, 2, max_episode_steps=5).tolist() == [5.0, 5.0]
    assert returns(again.model, CARTPOLE, 6, max_episode_steps=5).tolist() == [5.0] * 6
    with pytest.raises(BadArgument, match="0 … 2"):
        again.model.seed(3)


def test_images_are_seen_by_all_seeds_at_once() -> None:
    each = [th.rl.Policy(th.networks.Convolution((6, 6, 1), 2, (3,), width=4, seed=s)) for s in range(2)]
    stack = Seeds(th.rl.Policy(th.networks.Convolution((6, 6, 1), 2, (3,), width=4)), 2)
    for s, one in enumerate(each):
        stack.load(s, one)
    state = torch.randint(0, 256, (2, 5, 6, 6, 1), dtype=torch.uint8)
    batch = Batch({"state": state, "action": torch.ones(2, 5)}, dims=2)
    found = stack.log_prob(batch)
    for s, one in enumerate(each):
        own = Batch({"state": state[s], "action": torch.ones(5)})
        torch.testing.assert_close(found[s], one.log_prob(own))


def test_what_would_make_a_seed_depend_on_another_is_refused() -> None:
    def dropped(s: int) -> th.Objective:
        network = nn.Sequential(th.networks.mlp(4, (), 8, seed=s), nn.Dropout(0.1), nn.Linear(8, 2))
        return th.Objective(
            [th.LogLikelihood(th.rl.Policy(network), Rollouts(CARTPOLE, 2, seed=s), RewardToGo())]
        )

    for bad, said in (
        (lambda: stacked([dropped(0), dropped(1)]), "Dropout, whose draws"),
        (lambda: Seeds(th.rl.Value(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))), 2), "BatchNorm1d"),
        (lambda: stacked([]), "one or more"),
        (lambda: stacked([make(0)] * 2), "two seeds share a parameter"),
        (lambda: stacked([make(0), make(1, K=3)]), "another structure than that of seed 0"),
        (lambda: stacked([make(0), make(1, "a2c")]), "num_steps=7, seed 0 with 16"),
        (lambda: stacked([make(0), make(1, max_episode_steps=9)]), "max_episode_steps"),
        (lambda: stacked([make(0), make(1, "reinforce")]), "1 terms, seed 0 has 2"),
        (lambda: stacked([c51(), c51()]), "Replay. Accepted"),
        (lambda: stacked([prior(0), prior(1)]), "a prior"),
        (lambda: Seeds(th.rl.Value(nn.Linear(4, 1)), 0), "seeds=0"),
    ):
        with pytest.raises(BadArgument, match=said):
            bad()


def c51() -> th.Objective:
    model = th.rl.C51(th.networks.mlp(4, 8, 2 * 5), 0.0, 50.0, 5)
    return th.Objective([th.LogLikelihood(model, th.rl.Replay(CARTPOLE, 2))])


def prior(s: int) -> th.Objective:
    one = make(s)
    return one + th.LogPrior(th.priors.Normal(1.0), one.model)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimiser": "muon"}, "muon"),
        ({"optimiser": torch.optim.Adafactor}, "Adafactor"),
        ({"accumulation_steps": 2}, "accumulation_steps=2"),
        ({"precision": torch.float16}, "float16"),
        ({"compile": True}, "compile=True"),
    ],
    ids=str,
)
def test_a_solver_that_would_couple_the_seeds_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        solver(2, **settings).start(stacked([make(s) for s in range(2)]))


def test_an_advantage_that_hides_its_value_function_is_refused() -> None:
    class Hidden:
        def __init__(self, value: Value) -> None:
            self.inner = GAE(value)

        def __call__(self, batch: Batch) -> Any:
            return self.inner(batch)

    each = [make(s) for s in range(2)]
    for one in each:
        one.terms[0].source.advantage = Hidden(one.terms[1].model)  # type: ignore[attr-defined]
    with pytest.raises(BadArgument, match="Hidden does not hold the value function"):
        stacked(each)
    for one in each:
        inner = GAE(one.terms[1].model)
        one.terms[0].source.advantage = lambda batch, inner=inner: inner(batch)  # type: ignore[attr-defined]
    with pytest.raises(BadArgument, match="does not hold the value function"):
        stacked(each)


def test_a_weighting_that_reads_a_trained_model_is_refused() -> None:
    class Reads:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

        def __call__(self, batch: Batch, log_prob: torch.Tensor) -> torch.Tensor:
            return log_prob

    each = [make(s) for s in range(2)]
    for one in each:
        one.terms[0].weights = Reads(one.model)
    with pytest.raises(BadArgument, match="Reads of seed 0 reads a model that is trained"):
        stacked(each)


def test_the_advantages_of_a_hundred_seeds_are_by_the_value_functions_that_are_trained() -> None:
    """A copy of an objective does not walk lists of a hundred."""
    objective = stacked([make(s, "a2c") for s in range(101)])
    copied = objective.copy()
    source: Any = copied.terms[0].source
    assert all(one.advantage.value.stack is copied.terms[1].model for one in source.each)
    assert copied.terms[1].model is not objective.terms[1].model


def test_a_step_that_is_not_finite_ends_the_run_and_says_so() -> None:
    with pytest.raises(th.errors.NotConverged, match="step 2"):
        th.maximize(
            stacked([make(s) for s in range(2)]), solver=solver(4, learning_rate=1e200, max_grad_norm=None)
        )


def test_products_in_bfloat16_are_taken_of_all_seeds() -> None:
    few = solver(3, precision=torch.bfloat16)
    fit = th.maximize(stacked([make(s, dtype=torch.float32) for s in range(2)]), solver=few)
    assert bool(torch.isfinite(fit.theta).all())


class Short(gymnasium.Env):
    """Every episode is one step, so that every second step only begins anew."""

    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(4, np.float32), 1.0, True, False, {}


def test_a_pass_of_first_states_alone_is_named() -> None:
    def one(s: int) -> th.Objective:
        policy = th.rl.Policy(th.networks.mlp(4, (), 2, seed=s))
        return th.Objective([th.LogLikelihood(policy, Rollouts(Short, 1, num_steps=1, seed=s), RewardToGo())])

    with pytest.raises(DataError, match="seed 0 of 2 played no transition"):
        th.maximize(stacked([one(0), one(1)]), solver=solver(2))
