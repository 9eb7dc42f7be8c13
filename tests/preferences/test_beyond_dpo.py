"""IPO and ORPO: their published losses, and IPO's optimum in closed form."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.language import Autoregressive
from thetahat.preferences import DPO, IPO, Chosen, OddsRatio, TokenPairs, orpo

ROWS = [
    {"prompt": [0, 1], "chosen": [2, 3, 4], "rejected": [4, 1]},
    {"prompt": [3], "chosen": [1], "rejected": [2, 2, 2, 0]},
]


def policy(seed: int) -> Autoregressive:
    torch.manual_seed(seed)
    return Autoregressive(nn.Embedding(5, 5).double())


def sums(model: Autoregressive, answer: str) -> list[float]:
    """Σ log π of each answer's tokens, by hand."""
    table = torch.log_softmax(model.network.weight.detach(), -1)
    out = []
    for row in ROWS:
        whole = row["prompt"] + row[answer]
        first = len(row["prompt"])
        out.append(sum(float(table[whole[t - 1], whole[t]]) for t in range(first, len(whole))))
    return out


def test_ipo_is_its_published_loss():
    """(h − 1/2β)², h the difference of log ratios."""
    now, before, beta = policy(0), policy(1), 0.3
    found = IPO(now, before, beta).log_prob(TokenPairs(ROWS, context=8).whole).tolist()
    parts = [sums(m, a) for m in (now, before) for a in ("chosen", "rejected")]
    for i, value in enumerate(found):
        h = (parts[0][i] - parts[2][i]) - (parts[1][i] - parts[3][i])
        assert value == pytest.approx(-((h - 1 / (2 * beta)) ** 2) - 0.5 * math.log(math.pi), rel=1e-6)


@pytest.mark.parametrize("p", [0.5, 0.8, 1.0])
def test_ipos_optimum_is_finite_and_known_where_dpos_is_not(p):
    """One pair, judged one way with probability p: h = (2p − 1)/2β, whatever the reference."""
    reference, beta = policy(1), 0.4
    rows = [{"prompt": [0], "chosen": [1], "rejected": [2]}, {"prompt": [0], "chosen": [2], "rejected": [1]}]
    pairs = TokenPairs(rows, context=4).whole.with_count(torch.tensor([p, 1 - p], dtype=torch.float64))
    source = th.data.Tensors(pairs, target="preference")
    fit = th.fit(
        IPO(copy.deepcopy(reference), reference, beta), source, solver=th.LBFGS(), on_failure="return"
    )

    def log_ratio(model: Autoregressive) -> float:
        w = model.network.weight.detach()
        return float(w[0, 1] - w[0, 2])

    assert log_ratio(fit.model.policy) - log_ratio(reference) == pytest.approx(
        (2 * p - 1) / (2 * beta), abs=1e-5
    )


def test_orpo_is_its_published_loss_with_its_gradient():
    """−mean log π(a) − λ log σ(log odds ratio), by TRL's formula, differentiated by torch."""
    model, lam = policy(0), 0.25
    pairs = TokenPairs(ROWS, context=8)
    objective = orpo(model, pairs, lam)
    table = torch.log_softmax(model.network.weight, -1)

    def mean(row, answer):
        whole, first = row["prompt"] + row[answer], len(row["prompt"])
        return torch.stack([table[whole[t - 1], whole[t]] for t in range(first, len(whole))]).mean()

    total = torch.zeros((), dtype=torch.float64)
    for row in ROWS:
        a, b = mean(row, "chosen"), mean(row, "rejected")
        log_odds = (a - b) - (torch.log1p(-torch.exp(a)) - torch.log1p(-torch.exp(b)))
        total = total + a + lam * nn.functional.logsigmoid(log_odds)
    (gradient,) = torch.autograd.grad(total, model.network.weight)
    found = objective.taylor(order=1)
    assert float(found.value) == pytest.approx(float(total.detach()), rel=1e-6)
    torch.testing.assert_close(found.gradient, gradient.reshape(-1), rtol=1e-5, atol=1e-8)


def test_the_preferences_of_orpo_are_a_probability():
    """P(a ≻ b) + P(b ≻ a) = 1."""
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS]
    model = OddsRatio(policy(0))
    a, b = (model.log_prob(TokenPairs(rows, context=8).whole).detach().exp() for rows in (ROWS, turned))
    torch.testing.assert_close(a + b, torch.ones_like(a))


def test_log_odds_lose_no_digits_at_either_end():
    from thetahat.preferences.beyond_dpo import _log_odds

    m = torch.tensor([-1e-6, -0.5, -0.7, -50.0], dtype=torch.float64)
    wanted = [float(x) - math.log(-math.expm1(float(x))) for x in m]
    assert _log_odds(m).tolist() == pytest.approx(wanted, rel=1e-12)


def test_orpo_learns_without_a_reference():
    rows = [{"prompt": [0], "chosen": [1, 1], "rejected": [2, 2]}] * 16
    pairs = TokenPairs(rows, context=4)
    fit = th.maximize(
        orpo(policy(0), pairs, 0.5), solver=th.Stochastic(steps=60, learning_rate=0.1, held_out=None)
    )
    trained = fit.objective.terms[1].model.policy
    assert float(OddsRatio(trained).log_prob(pairs.whole).detach().mean()) > -0.01
    assert fit.objective.terms[0].model.policy is trained
    assert isinstance(fit.model, Chosen)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(BadArgument, match="weight=0"):
        orpo(policy(0), TokenPairs(ROWS, context=8), 0)
    with pytest.raises(BadArgument, match="Autoregressive"):
        OddsRatio(nn.Linear(1, 1))
    with pytest.raises(BadArgument, match="adapters"):
        IPO(policy(0))
    assert issubclass(IPO, DPO)
