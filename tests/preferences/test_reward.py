"""A reward head on a language model: padding, the start, what is moved; a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, ModelError
from thetahat.language import Bytes
from thetahat.networks import Transformer, mlp
from thetahat.preferences import BradleyTerry, Reward, TokenPairs, embedded


def network(tied: bool = False) -> Transformer:
    return Transformer(257, layers=1, width=16, heads=2, tied=tied, seed=0).double()


def pairs(n: int = 40, seed: int = 0) -> TokenPairs:
    """The preferred answer has an exclamation mark at its end."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "prompt": f"{i}",
            "chosen": "".join(rng.choice(list("abc"), 1 + i % 5)) + "!",
            "rejected": "".join(rng.choice(list("abc"), 2 + i % 3)) + ".",
        }
        for i in range(n)
    ]
    return TokenPairs(rows, Bytes(), context=16, block=n)


def test_a_reward_begins_at_even_odds_and_does_not_see_the_padding():
    source = pairs()
    model = BradleyTerry(Reward(network()))
    torch.testing.assert_close(
        model.log_prob(source.whole), torch.full((40,), -math.log(2), dtype=torch.float64)
    )
    torch.nn.init.normal_(model.scorer.head.weight)
    padded = {}
    for name in ("chosen", "rejected"):
        tokens = source.whole[name]
        real = torch.arange(tokens.shape[1]) < source.whole[f"{name}_length"][:, None]
        padded[name] = torch.nn.functional.pad(torch.where(real, tokens, 9), (0, 5), value=9)
    one, other = model.log_prob(source.whole), model.log_prob(Batch({**source.whole, **padded}))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    alone = torch.cat([model.log_prob(source.whole[i : i + 1]) for i in range(40)])
    torch.testing.assert_close(one, alone, rtol=0, atol=1e-12)
    win, loss = model.probabilities(source.whole)[:, 0], model.probabilities(source.whole)[:, 2]
    torch.testing.assert_close(win + loss, torch.ones(40, dtype=torch.float64))


def test_a_frozen_network_with_a_reward_head_is_a_linear_reward_of_its_features():
    """The same log-probabilities as BradleyTerry(features=…) on `embedded`, and the same maximum, of which
    Newton certifies the one."""
    source = pairs()
    chosen, rejected = embedded(network(), source, "last")
    linear = BradleyTerry(features=16)
    prior = th.priors.Normal(0.3)
    fit = th.fit(linear, th.preferences.Preferences(chosen, rejected), prior=prior)
    model = BradleyTerry(Reward(network(), frozen=True))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 16
    maximised = th.fit(model, source, prior=prior, solver=th.Newton())
    np.testing.assert_allclose(maximised.theta, fit.theta, atol=1e-7)
    torch.testing.assert_close(
        model.log_prob(source.whole).detach(), linear.log_prob(fit.source.whole).detach(), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("tied", [False, True])
def test_the_output_matrix_is_moved_only_if_it_is_the_embedding(tied):
    net = network(tied)
    reward = Reward(net)
    moved = {name for name, p in reward.named_parameters() if p.requires_grad}
    assert ("network.lm_head.weight" in moved) is False
    assert any("embed_tokens" in name for name in moved)


def test_a_reward_is_climbed_with_its_network():
    """What is preferred can be read from the answer: the held-out pairs are judged rightly after a few
    steps."""
    source, other = pairs(200), pairs(60, seed=1)
    model = BradleyTerry(Reward(network().float()))
    solver = th.Stochastic(steps=60, batch_size=32, learning_rate=3e-3, held_out=None, warmup_steps=5)
    fit = th.fit(model, source, solver=solver)
    found = th.preferences.judge(fit, other)
    assert found.accuracy > 0.95
    assert found.score.mean > -0.2


def test_what_gives_no_reward_is_refused():
    with pytest.raises(BadArgument, match="Sequential has no features"):
        Reward(mlp(2, (), 1))
    scorer = torch.nn.Module()
    scorer.forward = lambda tokens, length: tokens
    with pytest.raises(ModelError, match="one number each"):
        BradleyTerry(scorer).log_prob(pairs(3).whole)
