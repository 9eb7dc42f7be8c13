"""What is drawn is what is scored: q has a log-likelihood, and the sampler and the trainer agree on it."""

from __future__ import annotations

import math

import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.language import Autoregressive, Generations, Sampling

SETTINGS = [
    Sampling(),
    Sampling(0.6),
    Sampling(1.5, top_k=3),
    Sampling(top_p=0.8),
    Sampling(0.7, top_k=8, top_p=0.9),
    Sampling(top_k=1),
    Sampling(top_k=100),
    Sampling(top_p=1e-6),
]


def network(dtype=torch.float64, seed=0):
    net = th.networks.Transformer(12, layers=2, width=16, heads=2, seed=seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with (
        torch.no_grad()
    ):  # the first weights say nothing: outputs and what writes to the residual stream are 0
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype))
    return net


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_q_is_what_transformers_draws_from(sampling):
    """Hugging Face's processors of logits, one after the other."""
    processors = pytest.importorskip("transformers.generation.logits_process")
    z = 2 * torch.randn(50, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    other = (
        processors.TemperatureLogitsWarper(sampling.temperature)(None, z) if sampling.temperature != 1 else z
    )
    if sampling.top_k is not None:
        other = processors.TopKLogitsWarper(sampling.top_k)(None, other)
    if sampling.top_p is not None:
        other = processors.TopPLogitsWarper(sampling.top_p)(None, other)
    torch.testing.assert_close(sampling.probabilities(z), torch.softmax(other, -1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_sampler_and_the_trainer_agree(sampling, dtype, tolerance):
    """The sampler reads a token at a time from its cache; the trainer reads the whole text at once."""
    net = network(dtype)
    model = Autoregressive(net, sampling=sampling)
    prompt = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
    answer = model.sample(prompt, 12, generator=torch.Generator().manual_seed(1))
    drawn = []
    with torch.no_grad():
        logits, cache = net.extend(prompt, None)
        for t in range(12):
            drawn.append(torch.log(sampling.probabilities(logits.double()).gather(-1, answer[:, t : t + 1])))
            logits, cache = net.extend(answer[:, t : t + 1], cache)
    whole = torch.cat([prompt, answer], 1)
    batch = th.data.Batch({"input": whole[:, :-1], "target": whole[:, 1:]}, dims=2)
    found = model.log_prob(batch)[:, 1:].detach()
    assert float((found.double() - torch.cat(drawn, 1)).abs().max()) < tolerance
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("sampling", SETTINGS[:5], ids=str)
def test_q_sums_to_one_and_its_score_has_mean_zero(sampling):
    """Σ_v q(v) ∇ log q(v) = 0: the policy gradient of a constant reward is nothing."""
    z = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    every = torch.arange(12)
    inside = sampling.probabilities(z.detach()) > 0
    log_q = sampling.log_prob(z.expand(12, 12), every)
    assert float(log_q.detach().exp()[inside].sum()) == pytest.approx(1, abs=1e-12)
    (gradient,) = torch.autograd.grad((log_q.exp().detach() * log_q)[inside].sum(), z)
    assert float(gradient.abs().max()) < 1e-12


def test_a_token_that_another_theta_would_leave_out_takes_the_place_of_the_least():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64))
    found = Sampling(top_k=2).log_prob(logits, torch.tensor(3))
    assert float(found) == pytest.approx(math.log(0.05 / 0.55))
    kept = Sampling(top_p=0.4).log_prob(logits, torch.tensor(1), torch.tensor(3))
    assert float(kept) == pytest.approx(math.log(0.3 / 0.95))


@pytest.mark.parametrize("sampling", SETTINGS[:5], ids=str)
@pytest.mark.parametrize("reference", ["base", "other"])
def test_the_first_ratio_of_a_policy_trained_on_its_draws_is_one(sampling, reference):
    """The mean of it at top_p 0.8 is 0.9 where the trainer scores p and the sampler draws from q. Of a second pass to 1e-6; of
    what the sampler found, whose sums are in another order, see `test_log_pi_of_the_draws_is_that_of_a_second_pass`."""
    net = network(torch.float32)
    if reference == "base":
        th.language.add_lora(net, rank=2)
    draws = Generations(
        [[0], [1, 2]],
        lambda prompts, answers: torch.tensor([float((a == 1).sum()) for a in answers]),
        max_new_tokens=6,
        num_generations=8,
        advantage=th.language.GroupRelative(),
        reference="base" if reference == "base" else Autoregressive(network(torch.float32, 1)),
        kl_coef=0.1,
        reuse_log_prob=False,
    )
    policy = Autoregressive(net, sampling=sampling)
    batch = next(draws.batches(policy))
    counted = batch.count > 0
    ratio = torch.exp(policy.log_prob(batch) - batch["log_prob"])[counted]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-6, atol=0)
    p = Autoregressive(net)
    with th.language.adapters.without(net):
        wanted = p.log_prob(batch) if reference == "base" else draws.reference.log_prob(batch)
    torch.testing.assert_close(batch["reference"], wanted, rtol=1e-5, atol=1e-6)
    fit = th.fit(policy, draws, weights=th.rl.Clipped(), solver=th.Stochastic(steps=3, learning_rate=0.01))
    assert fit.certificate.status == "stochastic"


def test_a_policy_by_a_truncated_q_learns_what_it_is_rewarded_for():
    """Of 12 tokens one is rewarded; it becomes the answer."""
    torch.manual_seed(1)
    policy = Autoregressive(torch.nn.Embedding(12, 12), sampling=Sampling(0.8, top_k=11, top_p=0.99))
    draws = Generations(
        [[0]],
        lambda prompts, answers: torch.tensor([float((a == 7).double().mean()) for a in answers]),
        max_new_tokens=4,
        num_generations=64,
        advantage=th.language.GroupRelative(),
    )
    fit = th.fit(policy, draws, weights=th.rl.Clipped(), solver=th.Stochastic(steps=200, learning_rate=0.05))
    assert float((fit.model.sample(torch.tensor([0]), 200) == 7).double().mean()) > 0.9


def test_clip_higher_lets_an_improbable_token_grow():
    batch = th.data.Batch({"advantage": torch.tensor([1.0, -1.0]), "log_prob": torch.zeros(2)})
    log_prob = torch.log(torch.tensor([1.25, 0.75]))
    assert th.rl.Clipped(0.2)(batch, log_prob).tolist() == [0.0, 0.0]
    torch.testing.assert_close(
        th.rl.Clipped(0.2, clip_coef_high=0.28)(batch, log_prob), torch.tensor([1.25, 0.0])
    )


@pytest.mark.parametrize(
    "settings", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}], ids=str
)
def test_what_is_no_distribution_is_refused(settings):
    with pytest.raises(BadArgument, match=next(iter(settings))):
        Sampling(**settings)


def test_temperature_zero_draws_and_has_no_likelihood():
    model = Autoregressive(network(), sampling=Sampling(0.0))
    a, b = (model.sample(torch.tensor([0, 1]), 5) for _ in range(2))
    assert torch.equal(a, b)
    with pytest.raises(BadArgument, match="no likelihood"):
        model.log_prob(
            th.data.Batch({"input": torch.zeros(1, 2).long(), "target": torch.ones(1, 2).long()}, dims=2)
        )


def test_a_saved_policy_draws_from_the_same_q(tmp_path):
    model = Autoregressive(
        th.networks.Transformer(12, layers=1, width=16, heads=2), sampling=Sampling(0.7, 3, 0.9)
    )
    rows = {"input": torch.randint(12, (8, 4)), "target": torch.randint(12, (8, 4))}
    fit = th.fit(model, th.data.Batch(rows, dims=2), solver=th.Stochastic(steps=2, held_out=None))
    found = th.load(fit.save(tmp_path / "a.thetahat"))
    assert found.model.sampling == Sampling(0.7, 3, 0.9)
