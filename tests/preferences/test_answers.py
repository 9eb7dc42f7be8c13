"""log π of answers: whatever a batch is filled up with and however its prompts are read, that of each text alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tests.language.test_shared_prompts import Reads, V, network, whole

import thetahat as th
from thetahat.language import Autoregressive
from thetahat.preferences import DPO, IPO, KTO, Labelled, TokenPairs
from thetahat.preferences.beyond_dpo import Chosen, OddsRatio

LENGTHS = ((7, 2, 5), (1, 4, 4), (11, 1, 1), (3, 20, 2))  # prompt, chosen, rejected of each pair


def given():
    g = torch.Generator().manual_seed(0)

    def ids(n):
        return torch.randint(V, (n,), generator=g).tolist()

    return [{"prompt": ids(p), "chosen": ids(a), "rejected": ids(b)} for p, a, b in LENGTHS]


def alone(net, which):
    """Σ log π of each answer, one text at a time."""
    sums = [whole(net, [(torch.tensor(row["prompt"]), torch.tensor(row[which]))]).sum() for row in given()]
    return torch.stack(sums)


def models():
    net = network()
    moved = copy.deepcopy(net)
    with torch.no_grad():
        for p in moved.parameters():
            p.mul_(1.1)
    return net, moved


def test_dpo_is_the_formula_of_each_text_alone():
    net, moved = models()
    pairs = TokenPairs(given(), context=64)
    dpo = DPO(Autoregressive(moved), Autoregressive(net), 0.3)
    d = sum(s * (alone(moved, w) - alone(net, w)) for s, w in ((0.3, "chosen"), (-0.3, "rejected")))
    right = torch.nn.functional.logsigmoid(d)
    torch.testing.assert_close(dpo.log_prob(pairs.whole), right, rtol=0, atol=1e-12)
    g = torch.autograd.grad(dpo.log_prob(pairs.whole).sum(), list(dpo.policy.network.parameters()))
    e = torch.autograd.grad(right.sum(), list(moved.parameters()))
    for a, b in zip(g, e, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    ipo = IPO(Autoregressive(moved), Autoregressive(net), 0.3)
    h = (d / 0.3 - 1 / 0.6).square()
    torch.testing.assert_close(ipo.log_prob(pairs.whole), -h - 0.5 * math.log(math.pi), rtol=0, atol=1e-11)


def test_orpo_and_kto_are_the_formulas_of_each_text_alone():
    net, moved = models()
    pairs = TokenPairs(given(), context=64)
    torch.testing.assert_close(
        Chosen(Autoregressive(net)).log_prob(pairs.whole), alone(net, "chosen"), rtol=0, atol=1e-12
    )
    lengths = {
        w: torch.tensor([float(len(row[w])) for row in given()]).double() for w in ("chosen", "rejected")
    }
    odds = [m - torch.log1p(-torch.exp(m)) for m in (alone(net, w) / lengths[w] for w in lengths)]
    torch.testing.assert_close(
        OddsRatio(Autoregressive(net)).log_prob(pairs.whole),
        torch.nn.functional.logsigmoid(odds[0] - odds[1]),
        rtol=0,
        atol=1e-12,
    )
    labelled = Labelled.of_pairs(given(), context=64)
    kto = KTO(Autoregressive(moved), Autoregressive(net), 0.3)
    reward = kto.reward(labelled.whole, "answer")
    right = 0.3 * torch.stack([alone(moved, w) - alone(net, w) for w in ("chosen", "rejected")], 1).flatten()
    torch.testing.assert_close(reward, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [[0, 1], [2], [0, 1, 2, 3]], ids=str)
def test_a_batch_is_read_no_wider_than_its_own_longest_and_each_prompt_once(rows):
    net = network()
    dpo = DPO(Autoregressive(net), Autoregressive(copy.deepcopy(net)))
    batch = TokenPairs(given(), context=64).whole[torch.tensor(rows)]
    dpo.log_prob(batch)  # the first batch is tried
    reads = Reads(dpo.policy.network.model["layers"][0].mlp)
    dpo.log_prob(batch)
    some = [LENGTHS[i] for i in rows]
    once = len(rows) * max(p for p, _, _ in some) + 2 * len(rows) * (max(max(a, b) for _, a, b in some) - 1)
    apart = 2 * len(rows) * (max(p + max(a, b) for p, a, b in some) - 1)
    assert reads.tokens == (once if once < 0.9 * apart else apart)


def test_adapters_are_left_out_of_the_reference_and_learn_alone():
    net = th.language.add_lora(network(), rank=2)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith(".B"):
                p.add_(0.1)
    dpo = DPO(Autoregressive(net), beta=0.2)
    batch = TokenPairs(given(), context=64).whole
    before = dpo.of_reference(batch)
    for found, which in zip(before, ("chosen", "rejected"), strict=True):
        torch.testing.assert_close(found, alone(network(), which).detach(), rtol=0, atol=1e-12)
    right = 0.2 * ((alone(net, "chosen") - before[0]) - (alone(net, "rejected") - before[1]))
    torch.testing.assert_close(dpo.log_prob(batch), torch.nn.functional.logsigmoid(right), rtol=0, atol=1e-12)
