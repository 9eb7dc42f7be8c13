"""Sums over large vocabularies, against float64."""

from __future__ import annotations

import math

import pytest
import torch

import thetahat as th
from thetahat.families.log_sum_exp import COLUMNS, log_sum_exp
from thetahat.language.token_log_prob import logits_log_prob, token_log_prob

V = 49_152  # SmolLM2's


def logits(rows=32, columns=V, seed=0):
    return 6 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def targets(rows=32, columns=V):
    return torch.randint(columns, (rows,), generator=torch.Generator().manual_seed(1))


def exact(z, y):
    return torch.log_softmax(z.double(), -1).gather(-1, y[..., None])[..., 0]


@pytest.mark.parametrize("columns", [1, 7, COLUMNS, COLUMNS + 1, V])
def test_of_float32_it_is_the_float64_sum_to_3e_7(columns):
    z = logits(columns=columns)
    found = log_sum_exp(z)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.logsumexp(z.double(), -1), rtol=0, atol=3e-7)


def test_of_float64_it_and_its_gradient_are_torchs():
    a, b = (logits(8, 3000).double().requires_grad_() for _ in range(2))
    (ours,) = torch.autograd.grad(log_sum_exp(a).square().sum(), a)
    (torchs,) = torch.autograd.grad(torch.logsumexp(b, -1).square().sum(), b)
    torch.testing.assert_close(log_sum_exp(a), torch.logsumexp(b, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-14)


def test_what_is_impossible_or_not_a_number_stays_so():
    z = torch.tensor([[-math.inf, -math.inf], [-math.inf, 1.0], [math.nan, 1.0], [300.0, 300.0]])
    found = log_sum_exp(z).tolist()
    assert found[0] == -math.inf
    assert found[1] == 1.0
    assert math.isnan(found[2])
    assert found[3] == pytest.approx(300 + math.log(2), abs=1e-12)


class Rows(torch.nn.Module):
    """Logits that are a function of the token alone."""

    def __init__(self, z):
        super().__init__()
        self.z = torch.nn.Parameter(z)

    def forward(self, tokens):
        return self.z[tokens]


def scores():
    """Every way to a score of one in V, from the same logits."""
    z, y = logits(), targets()
    net = Rows(z)
    batch = th.data.Batch({"input": torch.arange(32)[None], "target": y[None]}, dims=2)
    sampling = th.language.Sampling()
    return {
        "logits": logits_log_prob(z, y),
        "without features": th.language.Autoregressive(net).log_prob(batch)[0],
        "sampling": th.language.Autoregressive(net, sampling=sampling).log_prob(batch)[0],
        # one feature a row, 1 at its place: W h is the row of logits, in whole or in blocks
        "in blocks": token_log_prob(torch.eye(32), z.T.contiguous(), None, y, 8192),
        "whole": token_log_prob(torch.eye(32), z.T.contiguous(), None, y, V),
        "categories": th.families.Categorical(V).log_prob_outputs(y, z),
    }


def test_a_score_in_float32_is_that_of_float64_to_its_last_digit():
    """Off by no more than the rounding of the result, |log p| · 2⁻²⁴, and of the sum, 3e-7; torch's log_softmax by more."""
    right = exact(logits(), targets())
    allowed = right.abs() * 2.0**-24 + 3e-7
    over = {name: bool(((found.double() - right).abs() > allowed).any()) for name, found in scores().items()}
    assert not any(over.values()), over
    torchs = torch.log_softmax(logits(), -1).gather(-1, targets()[:, None])[:, 0]
    assert bool(((torchs.double() - right).abs() > allowed).any())  # what is measured can be seen
