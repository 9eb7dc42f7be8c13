"""Action masks: probability is shared among the actions that are allowed, wherever a policy is asked."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, DataError, ModelError
from thetahat.rl.environments import Environments
from thetahat.rl.rollouts import returns

MASKS = {0: [1, 1, 0, 1], 1: [0, 1, 1, 0], 2: [0, 0, 0, 1]}
PAYS = np.array([[1.0, 2.0, 9.0, 0.0], [9.0, 0.0, 1.0, 9.0], [9.0, 9.0, 9.0, 5.0]])


class Corridor(gymnasium.Env):
    """Three states in a row, each paid by `PAYS`; what pays most is not allowed. The best that is allowed is
    2 + 1 + 5 = 8. Its mask allows nothing when it is over."""

    observation_space, action_space = spaces.Discrete(3), spaces.Discrete(4)

    def __init__(self, masks=MASKS, cut=99):
        self.masks, self.cut = masks, cut

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = 0
        return 0, self.info()

    def info(self):
        return {"action_mask": np.array(self.masks.get(self.at, [0] * 4), dtype=np.int8)}

    def step(self, action):
        assert MASKS[self.at][action], "an action that is not allowed was sent"
        reward, self.at = PAYS[self.at, action], self.at + 1
        return min(self.at, 2), reward, self.at == 3, self.at == self.cut, self.info()


class Asked(Corridor):
    """The same, by sb3-contrib's method."""

    def action_masks(self):
        return np.array(self.masks.get(self.at, [0] * 4), dtype=bool)

    def info(self):
        return {}


gymnasium.register("Corridor-v0", entry_point=Corridor)
gymnasium.register("Asked-v0", entry_point=Asked)
TAXI = max(name for name in gymnasium.registry if name.startswith("Taxi-v"))  # v3, until it is out of date


def test_the_likelihood_is_the_softmax_over_the_allowed_actions_by_hand():
    f = torch.tensor([[0.5, -1.0, 2.0, 0.25]], dtype=torch.float64)
    policy = th.rl.Policy(torch.nn.Embedding.from_pretrained(f))
    allowed = torch.tensor([[True, True, False, True]]).expand(4, 4)
    found = policy.log_prob(
        Batch({"state": torch.zeros(4, dtype=torch.long), "action": torch.arange(4), "mask": allowed})
    )
    total = math.log(math.exp(0.5) + math.exp(-1.0) + math.exp(0.25))
    assert found.tolist() == pytest.approx([0.5 - total, -1.0 - total, -math.inf, 0.25 - total], rel=1e-12)
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    batch = Batch({"state": torch.zeros(4, dtype=torch.long), "action": torch.arange(4), "mask": nothing})
    assert policy.log_prob(batch).tolist() == [-math.inf] * 4


def test_several_actions_are_masked_each_in_its_part():
    f = torch.tensor([[0.5, -1.0, 2.0, 0.25, 1.0]], dtype=torch.float64)
    policy = th.rl.Policy(torch.nn.Embedding.from_pretrained(f), spaces.MultiDiscrete([2, 3]))
    mask = torch.tensor([[True, False, True, False, True]])
    state = torch.zeros(1, dtype=torch.long)
    found = policy.log_prob(Batch({"state": state, "action": torch.tensor([[0, 2]]), "mask": mask}))
    assert float(found) == pytest.approx(1.0 - math.log(math.exp(2.0) + math.e), rel=1e-12)
    assert policy.act(state, greedy=True, mask=mask).tolist() == [[0, 0]]
    drawn = policy.act(
        state.expand(200),
        torch.Generator().manual_seed(0),
        mask=torch.tensor([[True, True, False, True, True]]).expand(200, 5),
    )
    assert set(map(tuple, drawn.tolist())) == {(0, 1), (0, 2), (1, 1), (1, 2)}
    with pytest.raises(BadArgument, match="allows no action"):
        policy.act(state, mask=torch.tensor([[False, False, True, True, True]]))


def test_actions_are_drawn_with_the_renormalised_probabilities():
    """5 sigma of a binomial proportion, 20,000 draws."""
    f = torch.tensor([[0.5, -1.0, 2.0]])
    policy = th.rl.Policy(torch.nn.Embedding.from_pretrained(f))
    state, mask = torch.zeros(20_000, dtype=torch.long), torch.tensor([True, True, False]).expand(20_000, 3)
    action, log_prob = policy.play(state, torch.Generator().manual_seed(0), mask=mask)
    p = 1 / (1 + math.exp(-1.5))
    assert float((action == 0).double().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / 20_000) ** 0.5)
    assert not (action == 2).any()
    assert float(log_prob[action == 0][0]) == pytest.approx(math.log(p), rel=1e-6)


def test_the_bonus_for_entropy_is_that_of_the_allowed_actions():
    """E[w ∇log π] with w = −c log π, over all allowed actions, against autograd's gradient of c·entropy, written out."""
    f = torch.tensor([[0.3, -0.7, 1.1, 0.2]], dtype=torch.float64, requires_grad=True)
    allowed = torch.tensor([0, 1, 3])
    p = torch.softmax(f[0, allowed], -1)
    (wanted,) = torch.autograd.grad(-0.5 * (p * p.log()).sum(), f)
    network = torch.nn.Embedding(1, 4, dtype=torch.float64)
    with torch.no_grad():
        network.weight.copy_(f)
    mask = torch.tensor([[True, True, False, True]]).expand(3, 4)
    batch = Batch(
        {
            "state": torch.zeros(3, dtype=torch.long),
            "action": allowed,
            "mask": mask,
            "advantage": torch.zeros(3),
        }
    )
    log_prob = th.rl.Policy(network).log_prob(batch)
    w = th.rl.Advantage(0.5)(batch, log_prob.detach())
    (found,) = torch.autograd.grad((p.detach() * w * log_prob).sum(), network.weight)
    torch.testing.assert_close(found, wanted)
    assert found[0, 2] == 0


@pytest.mark.parametrize("make", [Corridor, Asked])
@pytest.mark.parametrize("epochs", [None, 2])
def test_log_p_when_drawn_is_log_p_when_learnt_from(make, epochs):
    rollouts = th.rl.Rollouts(make, 5, num_steps=9, epochs=epochs, batch_size=epochs and 16, seed=1)
    policy = th.rl.Policy(torch.nn.Embedding(3, 4))
    batch = next(rollouts.minibatches(policy))
    assert batch["mask"].shape == (*batch.shape, 4)
    there = batch.count > 0
    assert torch.equal(policy.log_prob(batch)[there], batch["log_prob"][there])
    wanted = torch.tensor([MASKS[int(s)] for s in batch["state"][there]], dtype=torch.bool)
    if epochs is not None:
        assert torch.equal(batch["mask"].bool(), wanted)


def test_padding_has_no_gradient_and_no_nan():
    """Whole episodes of one and of three steps side by side: the mask of what was not played allows everything."""

    class Some(Corridor):
        def step(self, action):
            shown, reward, _, _, info = super().step(action)
            return shown, reward, self.at == (1 if self.short else 3), False, info

        def reset(self, *, seed=None, options=None):
            self.short = bool((seed or 0) % 2)
            return super().reset(seed=seed)

    policy = th.rl.Policy(torch.nn.Embedding(3, 4))
    batch = next(th.rl.Rollouts(Some, 2).batches(policy))
    assert sorted(batch.count.sum(1).tolist()) == [1, 3]
    policy.log_prob(batch).sum().backward()
    assert policy.network.weight.grad.isfinite().all()


@pytest.mark.parametrize("make", [Corridor, Asked])
def test_reinforce_finds_the_best_allowed_policy(make):
    policy = th.rl.Policy(torch.nn.Embedding(3, 4))
    solver = th.Stochastic(steps=60, learning_rate=0.2)
    fit = th.fit(policy, th.rl.Rollouts(make, 16), weights=th.rl.RewardToGo(), solver=solver)
    assert returns(fit.model, make, 3).tolist() == [8.0] * 3


@pytest.mark.parametrize("double", [True, False])
def test_a_value_distribution_follows_and_plays_allowed_actions_alone(double):
    """Q* by hand: from the last state 5, from the middle 1 + 5, from the first 2 + 6; unmasked maxima are 9 and more."""
    model = th.rl.C51(torch.nn.Embedding(3, 4 * 21), 0.0, 20.0, 21)
    replay = th.rl.Replay(
        Corridor, 8, learning_starts=400, train_frequency=8, batch_size=64, discount=1.0,
        target_update_interval=10, exploration=(1.0, 1.0, 0), double=double,
    )  # fmt: skip
    fit = th.fit(model, replay, solver=th.Stochastic(steps=150, learning_rate=0.3, lr_schedule="linear"))
    q = fit.model.q(torch.arange(3))
    assert [float(q[0, 1]), float(q[1, 2]), float(q[2, 3])] == pytest.approx([8.0, 6.0, 5.0], abs=0.3)
    assert returns(fit.model, Corridor, 2).tolist() == [8.0, 8.0]
    with pytest.raises(BadArgument, match="allows no action"):
        fit.model.act(torch.zeros(1, dtype=torch.long), mask=torch.zeros(1, 4, dtype=torch.bool))


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("cut", [99, 2], ids=["terminated", "cut off"])
def test_the_mask_of_a_state_is_its_own_whoever_begins_anew(mode, cut):
    settings = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": mode}, "cut": cut}
    environments = Environments("Corridor-v0", 2, settings)
    environments.reset(seed=0)
    for _ in range(9):
        now = environments.step(environments.mask.argmax(1))
        for i in np.flatnonzero(now.count):
            assert now.mask[i].tolist() == [bool(m) for m in MASKS[int(now.state[i])]]
            ahead = [True] * 4 if now.terminated[i] else [bool(m) for m in MASKS[int(now.next[i])]]
            assert now.next_mask[i].tolist() == ahead


def test_taxi_is_played_with_its_mask():
    """gymnasium's own mask at every state, Taxi's table of transitions."""
    policy = th.rl.Policy(torch.nn.Embedding(500, 6))
    batch = next(th.rl.Rollouts(TAXI, 4, num_steps=20).batches(policy))
    taxi = gymnasium.make(TAXI).unwrapped
    there = batch.count > 0
    wanted = np.stack([taxi.action_mask(int(s)) for s in batch["state"][there]])
    assert np.array_equal(batch["mask"][there].numpy(), wanted)
    assert bool(batch["mask"].gather(-1, batch["action"][..., None])[there].all())
    assert returns(policy, TAXI, 2, max_episode_steps=20).shape == (2,)


def test_a_run_goes_on_with_the_masks_it_had():
    policy = th.rl.Policy(torch.nn.Embedding(3, 4))
    one, other = (th.rl.Rollouts(Corridor, 3, num_steps=4, seed=2) for _ in range(2))
    next(one.batches(policy))
    other.restore(one.state())
    a, b = next(one.batches(policy)), next(other.batches(policy))
    assert all(torch.equal(a[name], b[name]) for name in ("mask", "action", "log_prob", "state"))


class Bare:
    """Plays the first action, and takes no mask."""

    def play(self, state, generator=None, *, greedy=False):
        return torch.zeros(len(state), dtype=torch.long), torch.zeros(len(state))

    def sent(self, action):
        return action.numpy()


class Heedless(Bare):
    def play(self, state, generator=None, *, greedy=False, mask=None):
        return torch.full((len(state),), 2), torch.zeros(len(state))


def test_what_a_mask_cannot_be_is_refused():
    policy = th.rl.Policy(torch.nn.Embedding(3, 4))
    with pytest.raises(DataError, match=r"allows no action in environment 0"):
        Environments(lambda: Corridor({}), 1).reset(seed=0)
    with pytest.raises(DataError, match=r"mask of 3 entries.*Accepted: 4"):
        Environments(lambda: Corridor({0: [1, 1, 1]}), 1).reset(seed=0)
    with pytest.raises(DataError, match=r"Accepted: true and false"):
        Environments(lambda: Corridor({0: [1, 2, 1, 0]}), 1).reset(seed=0)
    with pytest.raises(BadArgument, match=r"action 2 was chosen in environment 0.*Allowed: \[0, 1, 3\]"):
        next(th.rl.Rollouts(Corridor, 2).batches(Heedless()))
    with pytest.raises(BadArgument, match=r"Bare\.play takes none"):
        next(th.rl.Rollouts(Corridor, 2).batches(Bare()))
    with pytest.raises(BadArgument, match="one entry for each action"):
        policy.act(torch.zeros(1, dtype=torch.long), mask=torch.ones(1, 3, dtype=torch.bool))
    same = {"vectorization_mode": "sync", "vector_kwargs": {"autoreset_mode": AutoresetMode.SAME_STEP}}
    with pytest.raises(BadArgument, match="autoreset_mode"):
        Environments("Asked-v0", 1, same)


def test_a_recurrent_network_is_refused_by_what_it_gives():
    with pytest.raises(ModelError, match="Recurrent policies are left out"):
        th.rl.Policy(torch.nn.GRU(4, 2)).act(torch.zeros(3, 4))
    with pytest.raises(ModelError, match="Recurrent policies are left out"):
        th.rl.Value(torch.nn.LSTM(4, 1)).of(torch.zeros(3, 4), (3,))
