"""Reward against divergence: a tiny model of two tokens, two tokens long, whose answers can all be written out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, EmptyData, NotFinite
from thetahat.language import Autoregressive, Sampling, Server
from thetahat.preferences import best_of_n, frontier

V, LENGTH = 2, 2
PROMPTS = [torch.tensor(p) for p in itertools.product(range(V), repeat=4)]  # 16 prompts
EVERY = torch.tensor(list(itertools.product(range(V), repeat=LENGTH)))


class Chain(torch.nn.Module):
    """Logits that depend on the last token and on the first, so that prompts differ."""

    vocabulary = V

    def __init__(self, seed):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randn(V, V, V, generator=g, dtype=torch.float64))

    def forward(self, tokens):
        return self.table[tokens[:, :1].expand_as(tokens), tokens]


def reward(prompts, answers):
    return torch.tensor([1.0 * a[0] + 0.5 * a[1] + 0.2 * p[1] for p, a in zip(prompts, answers, strict=True)])


def gold(prompts, answers):
    return torch.tensor([1.0 * a[0] - 0.8 * a[0] * a[1] for p, a in zip(prompts, answers, strict=True)])


def exact(model):
    """log π of the four answers to each prompt, (P, 4), from the table."""
    log_p = torch.log_softmax(model.network.table.detach(), -1)
    out = []
    for p in PROMPTS:
        first = log_p[p[0], p[-1], EVERY[:, 0]]
        out.append(first + log_p[p[0], EVERY[:, 0], EVERY[:, 1]])
    return torch.stack(out)


def worths(of):
    return torch.stack([of([p] * len(EVERY), list(EVERY)) for p in PROMPTS]).double()


@pytest.fixture(scope="module")
def models():
    return Autoregressive(Chain(1)), Autoregressive(Chain(2))


def best_in_truth(log_q, r, value, n):
    """E of the value of the answer of largest reward among n: F(r)ⁿ − F(r⁻)ⁿ of each distinct reward."""
    q = log_q.exp()
    upto = torch.stack([(q * (r <= x[:, None])).sum(1) for x in r.T], 1)
    below = torch.stack([(q * (r < x[:, None])).sum(1) for x in r.T], 1)
    at = upto - below  # equal rewards share
    return ((upto**n - below**n) * q / at * value).sum(1)


def test_intervals_cover_what_enumeration_gives(models):
    """Over 20 seeds: E r, E gold, KL and best-of-n of the 16 prompts themselves (whose answers alone are random, so that
    intervals over prompts are wider than they need be), and the mean over seeds is the truth."""
    policy, reference = models
    log_p, log_q = exact(policy), exact(reference)
    r, g = worths(reward), worths(gold)
    truth = {
        ("policy", "reward"): (log_p.exp() * r).sum(1).mean(),
        ("policy", "gold"): (log_p.exp() * g).sum(1).mean(),
        ("policy", "kl"): (log_p.exp() * (log_p - log_q)).sum(1).mean(),
    }
    for n in (1, 2, 4):
        truth[f"best of {n}", "reward"] = best_in_truth(log_q, r, r, n).mean()
        truth[f"best of {n}", "gold"] = best_in_truth(log_q, r, g, n).mean()
    found = [
        frontier(
            {"policy": policy}, reward, gold, PROMPTS, reference=reference, max_new_tokens=LENGTH,
            num_generations=6, best_of=(1, 2, 4), seed=seed,
        ).to_frame()
        for seed in range(20)
    ]  # fmt: skip
    for (row, column), value in truth.items():
        inside = [f.loc[row, f"{column}_low"] <= value <= f.loc[row, f"{column}_high"] for f in found]
        assert sum(inside) >= 18, (row, column)  # 19 of 20 are expected at least
        values = torch.tensor([f.loc[row, column] for f in found])
        assert abs(values.mean() - value) < 4 * values.std() / 20**0.5, (row, column)
    for n in (1, 2, 4):
        assert found[0].loc[f"best of {n}", "kl"] == math.log(n) - (n - 1) / n


def test_the_bound_of_best_of_n_is_above_its_divergence(models):
    """The divergence of best-of-n itself, by enumeration."""
    log_q, r = exact(models[1]), worths(reward)
    for n in (2, 4, 16):
        one = torch.eye(len(EVERY), dtype=torch.float64)
        p = torch.stack([best_in_truth(log_q, r, e.expand_as(r), n) for e in one], 1)
        divergence = (p * (torch.log(p) - log_q)).sum(1)
        assert bool((divergence <= math.log(n) - (n - 1) / n + 1e-12).all())


def test_errors_are_of_prompts():
    """By hand: the standard deviation of prompt means over √P, Student's quantile of P − 1 = 3 degrees of freedom 3.1824."""
    policy = Autoregressive(Chain(1))
    seen = []

    def known(prompts, answers):
        seen.append(torch.tensor([float(p[0] * 2 + p[1]) for p in prompts]))
        return seen[-1]

    asked = [[0, 0], [0, 1], [1, 0], [1, 1]]  # worth 0, 1, 2, 3, whatever is answered
    found = frontier({"a": policy}, known, None, asked, reference=policy, max_new_tokens=1, best_of=[1, 3])
    error = math.sqrt(5 / 3) / 2
    for point in found.points:
        assert point.reward.value == pytest.approx(1.5)
        assert point.reward.standard_error == pytest.approx(error)
        assert point.reward.high == pytest.approx(1.5 + 3.182446 * error, abs=1e-5)
    assert found.points[0].kl.value == 0  # the policy is the reference
    assert found.points[0].gold is None


def test_of_one_prompt_errors_are_of_its_answers():
    """The jackknife of a mean is its usual error; of best-of-n, it covers the exact value over 30 seeds."""
    policy, reference = Autoregressive(Chain(1)), Autoregressive(Chain(2))
    log_q, r = exact(reference)[:1], worths(reward)[:1]
    inside = 0
    for seed in range(30):
        found = frontier(
            {"a": policy}, reward, None, PROMPTS[:1], reference=reference, max_new_tokens=2,
            num_generations=60, best_of=[1, 2], seed=seed,
        )  # fmt: skip
        best = found.points[2].reward
        inside += best.low <= float(best_in_truth(log_q, r, r, 2)) <= best.high
    assert inside >= 25  # 28 or 29 are expected
    values = torch.tensor([0.0, 1.0, 3.0, 4.0])
    from thetahat.preferences.frontier import _best

    one = _best(values[None], values[None], 1, 0.95)
    assert one.standard_error == pytest.approx(float(values.std()) / 2)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_best_of_n_is_the_mean_over_all_subsets(n):
    """Brute force, ties shared equally."""
    g = torch.Generator().manual_seed(n)
    r = torch.randint(0, 4, (7,), generator=g).double()
    v = torch.randn(7, generator=g, dtype=torch.float64)
    each = []
    for subset in itertools.combinations(range(7), n):
        own = r[list(subset)]
        each.append(v[list(subset)][own == own.max()].mean())
    assert float(best_of_n(r, v, n)) == pytest.approx(float(torch.stack(each).mean()), abs=1e-12)


def test_a_frontier_prints_in_80_columns_and_plots(models):
    found = frontier(
        {"a policy of a long name": models[0], "b": models[1]}, lambda p, a: -100 * reward(p, a), gold, PROMPTS,
        reference=models[1], max_new_tokens=LENGTH,
    )  # fmt: skip
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert "upper bound" in text
    assert "16 prompts, 16 answers each; 95 % intervals" in text
    assert found.to_frame().shape == (7, 14)
    chart = found.plot().to_dict()
    assert len(next(iter(chart["datasets"].values()))) == 14


def test_a_fit_stands_for_its_model(models):
    rows = {"input": torch.zeros(4, 2).long(), "target": torch.ones(4, 2).long()}
    fit = th.fit(
        Autoregressive(Chain(3)), th.data.Batch(rows, dims=2), solver=th.Stochastic(steps=2, held_out=None)
    )
    settings = {"reference": models[1], "max_new_tokens": LENGTH}
    a, b = (
        frontier({"a": p}, reward, gold, PROMPTS, **settings).points[0].kl.value for p in (fit, fit.model)
    )
    assert a == b


def test_what_has_no_frontier_is_refused(models):
    policy, reference = models

    def found(policies=None, asked=PROMPTS, reward=reward, gold=gold, reference=reference, **more):
        return frontier(
            {"a": policy} if policies is None else policies,
            reward,
            gold,
            asked,
            reference=reference,
            max_new_tokens=LENGTH,
            **more,
        )

    with pytest.raises(BadArgument, match="'a' is a Chain"):
        found({"a": Chain(1)})
    with pytest.raises(BadArgument, match="prompt 2 is prompt 0 again"):
        found(asked=[[0], [1], [0]])
    with pytest.raises(EmptyData, match="no prompts"):
        found(asked=[])
    with pytest.raises(BadArgument, match="0 policies"):
        found({})
    with pytest.raises(BadArgument, match=r"num_generations=4, best_of=\[8\]"):
        found(num_generations=4, best_of=[8])
    with pytest.raises(BadArgument, match="infinite"):
        found(reference=Autoregressive(Chain(1), sampling=Sampling(top_k=1)))
    with pytest.raises(BadArgument, match="another model than the policies"):
        found(sampler=Server("http://127.0.0.1:1", "policy"))
    with pytest.raises(NotFinite, match="the gold reward of answer 0 is nan"):
        found(gold=lambda p, a: torch.full((len(a),), torch.nan))
    with pytest.raises(BadArgument, match="n=3"):
        best_of_n(torch.zeros(2), torch.zeros(2), 3)
