"""RLHF and DPO on a toy language whose sentences can all be written out: the optimum π_ref e^{r/β}/Z is
known, and every method reaches it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid

import thetahat as th
from thetahat.errors import BadArgument, DataError, EmptyData, NotFinite
from thetahat.language import RLOO, Autoregressive, Generations, GroupRelative, Penalised, kl_estimate
from thetahat.preferences import DPO, TokenPairs
from thetahat.rl import Advantage, Clipped

V, END, BOS, LENGTH, BETA = (
    4,
    0,
    3,
    3,
    0.5,
)  # words 1 and 2; a sentence has at most three tokens, the last of which may be its end


class Tree(nn.Module):
    """Free logits for every beginning of a sentence, words and end alone: it can be any distribution of
    sentences."""

    def __init__(self, seed):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(0.5 * torch.randn(V**LENGTH, V - 1, generator=g, dtype=torch.float64))

    def forward(self, tokens):
        place = torch.zeros(tokens.shape, dtype=torch.long)
        code = torch.zeros(len(tokens), dtype=torch.long)
        for t in range(tokens.shape[1]):
            code = code * V + tokens[:, t]
            place[:, t] = (code + 7 * t) % V**LENGTH if t else 0
        logits = self.table[place]
        return torch.cat(
            [logits, torch.full((*tokens.shape, 1), -torch.inf, dtype=logits.dtype)], -1
        )  # BOS is never drawn


def sentences():
    """Every answer: words, then the end; or LENGTH words, cut off."""
    out = []
    for n in range(LENGTH):
        out += [(*words, END) for words in itertools.product((1, 2), repeat=n)]
    return [torch.tensor(s) for s in out + list(itertools.product((1, 2), repeat=LENGTH))]


def worth(answer):
    """Word 1 is good, word 2 after word 1 better; an answer that is cut off is bad."""
    a = answer.tolist()
    return (
        0.4 * a.count(1)
        + sum(x == 1 and y == 2 for x, y in itertools.pairwise(a))
        - (0.0 if a[-1] == END else 0.5)
    )


EVERY = sentences()
R = torch.tensor([worth(a) for a in EVERY], dtype=torch.float64)


def reward(prompts, answers):
    return torch.tensor([worth(a) for a in answers])


def log_probs(model):
    """log π of every sentence, (n,)."""
    from thetahat.language.generations import _laid_out

    tensors, count = _laid_out([torch.tensor([BOS])] * len(EVERY), EVERY)
    return model.log_prob(th.data.Batch(tensors, count=count, dims=2)).sum(1)


def optimum(reference):
    """log of π_ref e^{r/β}/Z."""
    with torch.no_grad():
        return torch.log_softmax(log_probs(reference) + R / BETA, 0)


@pytest.fixture
def both():
    policy, reference = Autoregressive(Tree(1)), Autoregressive(Tree(1))
    return policy, reference


def test_the_sentences_are_all_there_are(both):
    assert float(log_probs(both[0]).detach().exp().sum()) == pytest.approx(1, abs=1e-12)


# of the KL beside the reward the gradient is noisier, and the end of so short a run too: more answers to each prompt
METHODS = {
    "REINFORCE": (RLOO(across=True), Advantage(), {"kl_coef": BETA}),
    "RLOO": (RLOO(), Advantage(), {"kl_coef": BETA}),
    "GRPO": (GroupRelative(by_std=False, by_length=False), Advantage(), {"kl_coef": BETA}),
    "PPO": (RLOO(), Clipped(0.2), {"kl_coef": BETA, "epochs": 2, "batch_size": 32}),
    "KL beside the reward, k2": (RLOO(), Penalised(Advantage(), BETA, "k2"), {"num_generations": 256}),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_closed_form_optimum(both, method):
    """KL(π ‖ π*) starts at 0.9 nats and ends below 0.01."""
    policy, reference = both
    advantage, weights, more = METHODS[method]
    best = optimum(reference)
    draws = Generations(
        [[BOS]],
        reward,
        max_new_tokens=LENGTH,
        end=END,
        advantage=advantage,
        reference=reference,
        **({"num_generations": 64} | more),
    )
    with torch.no_grad():
        before = float((log_probs(policy).exp() * (log_probs(policy) - best)).sum())
    policy = th.fit(
        policy,
        draws,
        weights=weights,
        solver=th.Stochastic(steps=100, learning_rate=0.1, lr_schedule="linear"),
    ).model
    with torch.no_grad():
        now = log_probs(policy)
    assert before > 0.3
    assert float((now.exp() * (now - best)).sum()) < 0.01


def test_the_expected_step_is_the_gradient_of_the_reward_less_the_divergence(both):
    """All pairs of sentences, each as often as it is drawn, RLOO: the weighted likelihood's gradient to
    1e-10."""
    policy, reference = both
    reference.network.table.data += 0.3
    reference.network.table.data[:, 0] -= 0.5
    lp, ref = log_probs(policy), log_probs(reference).detach()
    p = lp.exp()
    (wanted,) = torch.autograd.grad(
        (p * (R - BETA * (lp - ref))).sum(), policy.network.table, retain_graph=True
    )
    total = R - BETA * (lp.detach() - ref)
    n = len(EVERY)
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))
    A = RLOO()(total[pairs], torch.ones(len(pairs), 2))
    weight = (p.detach()[pairs].prod(1, keepdim=True) * A / 2).reshape(-1)
    (found,) = torch.autograd.grad((weight * lp[pairs.reshape(-1)]).sum(), policy.network.table)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_each_estimate_of_the_divergence_has_the_gradient_that_it_is_said_to_have(estimator):
    """Expectations over all five outcomes: k1's gradient is 0, k2's that of KL(π ‖ π_ref), k3's that of
    KL(π_ref ‖ π)."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(5, generator=g, dtype=torch.float64, requires_grad=True)
    lp, ref = (
        torch.log_softmax(logits, 0),
        torch.log_softmax(torch.randn(5, generator=g, dtype=torch.float64), 0),
    )
    p = lp.detach().exp()
    forward, reverse = (ref.exp() * (ref - lp)).sum(), (lp.exp() * (lp - ref)).sum()
    if estimator != "k2":
        assert float((p * kl_estimate(lp, ref, estimator)).sum().detach()) == pytest.approx(
            float(reverse.detach()), abs=1e-12
        )
    (found,) = torch.autograd.grad((p * kl_estimate(lp, ref, estimator)).sum(), logits, retain_graph=True)
    wanted = {"k1": 0 * reverse, "k2": reverse, "k3": forward}[estimator]
    (slope,) = torch.autograd.grad(wanted, logits, retain_graph=True)
    torch.testing.assert_close(found, slope, atol=1e-12, rtol=0)
    weight = Penalised(lambda batch, log_prob: torch.zeros_like(log_prob), 2.0, estimator)
    w = weight(th.data.Batch({"reference": ref}), lp.detach())
    (weighted,) = torch.autograd.grad((p * w * lp).sum(), logits)
    torch.testing.assert_close(weighted, -2.0 * slope, atol=1e-12, rtol=0)


def test_ends_and_cuts_are_apart_and_the_mask_is_one(both):
    """The end counts as a term, what fills a row up does not; log π, the reference and every mean see the
    same tokens."""
    policy, reference = both
    draws = Generations(
        [[BOS], [BOS, 1]],
        reward,
        max_new_tokens=2,
        end=END,
        num_generations=40,
        reference=reference,
        kl_coef=0.1,
        truncated=-5.0,
    )
    batch = next(draws.batches(policy))
    last = batch.count.cumsum(1) == batch.count.sum(1, keepdim=True)
    first_last = last & (last.cumsum(1) == 1)
    assert torch.equal(batch["ended"], first_last & (batch["target"] == END))
    cut = ~batch["ended"].any(1)
    assert bool((batch.count[cut].sum(1) == 2).all())
    assert bool((batch["return"][cut].amin(1) < -4).all())
    for name in ("log_prob", "reference", "return", "advantage"):
        assert bool((batch[name][batch.count == 0] == 0).all()), name
    assert torch.equal(
        batch["log_prob"], batch["reference"]
    )  # the policy has not moved: every ratio is exactly 1
    assert torch.equal(Clipped()(batch, policy.log_prob(batch).detach()), batch["advantage"])
    found = draws.measured()
    assert found["kl"] == 0
    assert found["truncated"] == pytest.approx(float(cut.double().mean()))
    assert found["length"] == pytest.approx(float(batch.count.sum() / len(batch)))


def test_grpos_divisions_can_be_left_out():
    value, length = torch.tensor([[1.0, 0.0, 2.0, 1.0]]), torch.tensor([[1.0, 2.0, 4.0, 1.0]])
    plain = GroupRelative(by_std=False, by_length=False)(value, length)
    torch.testing.assert_close(plain, RLOO()(value, length) * 3 / 4)
    torch.testing.assert_close(GroupRelative(by_length=False)(value, length), plain / value.std())
    torch.testing.assert_close(GroupRelative(by_std=False)(value, length), plain * 2 / length)
    assert GroupRelative()(torch.ones(1, 3), torch.ones(1, 3)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("killed", [3, 4, 5, 6])
@pytest.mark.parametrize(
    "minibatches", [{}, {"epochs": 2, "batch_size": 3}], ids=["a pass a step", "a pass in parts"]
)
def test_a_killed_run_on_generations_goes_on_bit_for_bit(tmp_path, minibatches, killed):
    """Between passes and in the middle of one, whose answers are of a policy that is gone and cannot be drawn
    again."""

    def optimise(path, steps):
        policy = Autoregressive(Tree(1))
        draws = Generations(
            [[BOS], [BOS, 2]],
            reward,
            max_new_tokens=2,
            end=END,
            prompts_per_step=1,
            advantage=RLOO(),
            **minibatches,
        )
        solver = th.Stochastic(steps=8, evaluate_every=1, checkpoint=path)
        objective = th.Objective([th.LogLikelihood(policy, draws, Clipped(0.2))])
        state = solver.start(objective)
        while state.step < steps:
            state = solver.step(objective, state)
        return objective.theta

    whole = optimise(tmp_path / "whole", 8)
    optimise(tmp_path / "killed", killed)
    assert torch.equal(optimise(tmp_path / "killed", 8), whole)


def test_another_climb_begins_with_a_pass_of_its_own():
    """What is left of a pass is another policy's: the first batch of a run has ratio 1."""
    draws = Generations(
        [[BOS]],
        reward,
        max_new_tokens=2,
        end=END,
        num_generations=8,
        advantage=RLOO(),
        epochs=2,
        batch_size=4,
    )
    next(draws.minibatches(Autoregressive(Tree(1))))
    other = Autoregressive(Tree(2))
    batch = next(draws.minibatches(other))
    assert torch.equal(batch["log_prob"], other.log_prob(batch).detach())


def test_what_cannot_be_generated_or_rewarded_is_named(both):
    policy = both[0]

    def draws(reward=reward, **more):
        return next(
            Generations([[BOS]], reward, **({"max_new_tokens": 2, "end": END} | more)).batches(policy)
        )

    with pytest.raises(EmptyData, match="no prompts"):
        Generations([], reward, max_new_tokens=2)
    with pytest.raises(BadArgument, match="prompt 1 has the shape"):
        Generations([[BOS], []], reward, max_new_tokens=2)
    with pytest.raises(
        BadArgument, match="prompt 0 has 3 tokens, and with an answer of 2 more than context=4"
    ):
        Generations([[BOS, 1, 2]], reward, max_new_tokens=2, context=4)
    with pytest.raises(BadArgument, match="max_new_tokens=0"):
        Generations([[BOS]], reward, max_new_tokens=0)
    with pytest.raises(BadArgument, match="reference="):
        Generations([[BOS]], reward, max_new_tokens=2, kl_coef=0.1)
    with pytest.raises(DataError, match=r"shape \(1,\) for 4 answers"):
        draws(lambda prompts, answers: torch.zeros(1))
    with pytest.raises(NotFinite, match="the reward of answer 2 is nan"):
        draws(lambda prompts, answers: torch.tensor([0.0, 1.0, torch.nan, 1.0]))
    with pytest.raises(BadArgument, match="two or more"):
        draws(num_generations=1, advantage=RLOO())


def test_a_reward_that_never_varies_ends_as_a_fit_that_says_so(both, tmp_path):
    source = Generations(
        [[BOS]],
        lambda prompts, answers: torch.full((len(answers),), 0.25),
        max_new_tokens=2,
        end=END,
        advantage=RLOO(),
    )
    solver = th.Stochastic(steps=100, checkpoint=tmp_path / "last", checkpoint_every=5)
    fit = th.fit(both[0], source, weights=Advantage(), solver=solver)
    assert fit.certificate.status == "stochastic"
    assert fit.certificate.steps == 20
    assert (
        "0.25 for every answer of the last 20 passes: it never varied, so that nothing was learnt"
        in fit.certificate.detail
    )
    assert (tmp_path / "last").exists()
    again = th.fit(
        both[0], source, weights=Advantage(), solver=solver
    )  # finished there too: no further pass is drawn
    assert again.certificate.steps == 20


def test_a_solved_task_ends_as_a_fit_that_says_so(both):
    """One answer alone is rewarded: once it is always given, every reward is 1."""
    policy, best = both[0], torch.tensor([1, 2, END])

    def right(prompts, answers):
        return torch.tensor([float(len(a) == 3 and bool((a == best).all())) for a in answers])

    source = Generations(
        [[BOS], [BOS]],
        right,
        max_new_tokens=LENGTH,
        end=END,
        num_generations=32,
        prompts_per_step=1,
        advantage=RLOO(),
    )
    fit = th.fit(
        policy,
        source,
        weights=Advantage(),
        solver=th.Stochastic(steps=2000, learning_rate=0.3, lr_schedule="constant"),
    )
    assert fit.certificate.steps < 2000
    assert (
        "The reward was 1 for every answer of the last 20 passes: the task is solved"
        in fit.certificate.detail
    )
    assert "Ended before its 2000 steps" in fit.certificate.detail


def test_training_goes_on_while_a_prompt_still_varies(both):
    """Of 30 prompts, one a pass, the last alone is not solved: 29 passes in a row have equal rewards, and are
    not the end."""
    prompts = [[BOS]] * 29 + [[BOS, 1]]

    def reward(asked, answers):
        return torch.tensor(
            [1.0 if len(p) == 1 else float(a[0] == 2) for p, a in zip(asked, answers, strict=True)]
        )

    source = Generations(
        prompts, reward, max_new_tokens=1, num_generations=16, prompts_per_step=1, advantage=RLOO()
    )
    fit = th.fit(both[0], source, weights=Advantage(), solver=th.Stochastic(steps=70, learning_rate=1e-9))
    assert fit.certificate.steps == 70
    assert "The reward was" not in fit.certificate.detail


def test_with_a_divergence_from_a_reference_a_constant_reward_still_teaches(both):
    """E r − β KL at constant r is largest at the reference: training goes there, and the certificate names
    the constant reward."""
    policy, reference = both
    with torch.no_grad():
        policy.network.table.add_(
            torch.randn(policy.network.table.shape, generator=torch.Generator().manual_seed(3))
        )
    draws = Generations(
        [[BOS]],
        lambda p, a: torch.ones(len(a)),
        max_new_tokens=LENGTH,
        end=END,
        num_generations=64,
        advantage=RLOO(),
        reference=reference,
        kl_coef=1.0,
    )
    fit = th.fit(policy, draws, weights=Advantage(), solver=th.Stochastic(steps=60, learning_rate=0.1))
    assert fit.certificate.steps == 60
    assert "The reward was 1 for every answer" in fit.certificate.detail
    with torch.no_grad():
        now, then = log_probs(fit.model), log_probs(reference)
    assert float((now.exp() * (now - then)).sum()) < 0.05


def test_what_is_measured_of_generations_is_the_last_pass_and_no_average(both):
    policy = both[0]
    pays = iter(float(i) for i in range(100))

    def reward(prompts, answers):
        now = next(pays)
        return torch.tensor([now + 0.5 * (i % 2) for i in range(len(answers))])

    source = Generations([[BOS]], reward, max_new_tokens=2, end=END, num_generations=4, advantage=RLOO())
    for k in range(5):
        batch = next(source.batches(policy))
        assert source.measured()["reward"] == k + 0.25
        assert source.measured()["length"] == pytest.approx(float(batch.count.sum() / len(batch)))


# ---- DPO ---------------------------------------------------------------------------------------------------


def preferences():
    """Every ordered pair of sentences, as often as a judge of reward r prefers the first: infinitely many
    judgements."""
    pairs = [(a, b) for a in range(len(EVERY)) for b in range(len(EVERY)) if a != b]
    rows = [{"prompt": [BOS], "chosen": EVERY[a].tolist(), "rejected": EVERY[b].tolist()} for a, b in pairs]
    source = TokenPairs(rows, context=8)
    count = torch.stack([torch.sigmoid(R[a] - R[b]) for a, b in pairs])
    return th.data.Tensors(source.whole.with_count(count), target="preference")


def test_dpo_reaches_the_same_optimum(both):
    """Judges prefer a to b with probability σ(r_a − r_b), here with every pair: log π of every sentence is
    that of π_ref e^{r/β}/Z, to 1e-3."""
    policy, reference = both
    model = DPO(policy, reference, beta=BETA)
    fit = th.fit(model, preferences(), solver=th.LBFGS(), on_failure="return")
    torch.testing.assert_close(log_probs(fit.model.policy).detach(), optimum(reference), atol=1e-3, rtol=0)


def test_dpo_is_the_published_loss():
    """−log σ(β(log π(a)/π_ref(a) − log π(b)/π_ref(b))), each sum of log p over the answer's own tokens,
    one pair and one token at a time."""
    g = torch.Generator().manual_seed(2)
    policy, reference = (
        Autoregressive(
            th.networks.Transformer(11, layers=1, width=16, heads=2, generator=g, dtype=torch.float64)
        )
        for _ in range(2)
    )
    with torch.no_grad():
        for p in (*policy.parameters(), *reference.parameters()):
            p.add_(0.3 * torch.randn(p.shape, generator=g, dtype=torch.float64))
    rows = [
        {"prompt": [1, 2, 3], "chosen": [4, 5, 0], "rejected": [6, 0]},
        {"prompt": [7], "chosen": [8, 0], "rejected": [9, 10, 4, 0]},
    ]
    pairs = TokenPairs(rows, context=8)

    def answer(model, prompt, tokens):
        logits = torch.log_softmax(model.network(torch.tensor([prompt + tokens])), -1)[0]
        return sum(logits[len(prompt) - 1 + t, token] for t, token in enumerate(tokens))

    wanted = []
    for row in rows:
        ratio = [
            answer(policy, row["prompt"], row[w]) - answer(reference, row["prompt"], row[w])
            for w in ("chosen", "rejected")
        ]
        wanted.append(logsigmoid(0.1 * (ratio[0] - ratio[1])))
    model = DPO(policy, reference, beta=0.1)
    torch.testing.assert_close(model.log_prob(pairs.whole), torch.stack(wanted), atol=1e-10, rtol=0)
    known = model.referenced(pairs)
    torch.testing.assert_close(model.log_prob(known.whole), torch.stack(wanted), atol=1e-10, rtol=0)
    flipped = DPO(policy, reference, beta=0.1, label_smoothing=0.1).log_prob(pairs.whole).exp()
    torch.testing.assert_close(
        flipped, 0.9 * torch.stack(wanted).exp() + 0.1 * (1 - torch.stack(wanted).exp())
    )


def test_the_loss_of_a_batch_is_trls():
    """1.0086963: DPOTrainer._compute_loss of trl 1.16.0 (transformers 5, float32) on these ids, with
    LlamaForCausalLM and these weights."""

    def filled(k):
        net = th.networks.Transformer(11, layers=2, width=16, heads=2, hidden=48, epsilon=1e-5)
        with torch.no_grad():
            for name, p in sorted(net.named_parameters()):
                wave = 0.4 * torch.sin(k * torch.arange(p.numel(), dtype=torch.float64) + len(name))
                p.copy_(wave.view_as(p) + (1.0 if "norm" in name else 0.0))
        return Autoregressive(net)

    rows = [
        {"prompt": [1, 2, 3], "chosen": [4, 5, 9], "rejected": [6, 9]},
        {"prompt": [7], "chosen": [8, 9], "rejected": [1, 4, 2, 9]},
        {"prompt": [2, 2], "chosen": [3, 3, 3, 9], "rejected": [5, 6, 7, 9]},
    ]
    found = DPO(filled(1.3), filled(1.7), beta=0.5).log_prob(TokenPairs(rows, context=8).whole)
    assert -float(found.detach().mean()) == pytest.approx(1.0086963, abs=1e-6)


def state_of(module):
    """Values, modes and which parameters are free: all that a module's owner can see of it."""
    values = {name: t.clone() for name, t in module.state_dict().items()}
    return values, [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]


def same(a, b):
    return a[1:] == b[1:] and all(torch.equal(a[0][name], b[0][name]) for name in a[0])


def test_the_reference_is_a_frozen_copy_and_what_was_given_stays_as_it_is(both):
    policy, reference = both
    reference.network.eval()  # a mode of a part alone, which is to stay
    before, pairs = (
        state_of(reference),
        TokenPairs([{"prompt": [BOS], "chosen": [1, END], "rejected": [2, END]}], context=8),
    )
    model = DPO(policy, reference)
    model.train()
    kept = model.reference
    assert policy.training
    assert not kept.training
    assert not any(p.requires_grad for p in kept.parameters())
    names = set(pairs.whole)
    assert set(model.referenced(pairs).whole) == names | {"chosen_reference", "rejected_reference"}
    assert set(pairs.whole) == names
    th.fit(model, preferences(), solver=th.Stochastic(steps=3, held_out=None))
    draws = Generations(
        [[BOS]], reward, max_new_tokens=2, end=END, reference=reference, kl_coef=0.1, advantage=RLOO()
    )
    next(draws.batches(policy))
    policy.sample(torch.tensor([[BOS]]), 2)
    assert same(before, state_of(reference))
    with torch.no_grad():
        reference.network.table.add_(1e3)  # nor does what its owner does to it later change what was fitted
    assert torch.equal(model.reference.network.table, before[0]["network.table"])
    assert torch.equal(draws.reference.network.table, before[0]["network.table"])


def test_a_reward_leaves_the_network_that_was_given_as_it_is():
    net = th.networks.Transformer(11, layers=1, width=16, heads=2)
    net.model["norm"].eval()
    before = state_of(net)
    frozen = th.preferences.Reward(net, frozen=True)
    pairs = TokenPairs([{"prompt": [1, 2], "chosen": [3, 4], "rejected": [5]}], context=8)
    th.preferences.embedded(net, pairs)
    assert same(before, state_of(net))
    assert [name for name, p in frozen.named_parameters() if p.requires_grad] == ["head.weight"]
    th.preferences.Reward(net, in_place=True)
    assert not net.lm_head.weight.requires_grad  # handed over: its output is not part of the reward


def test_adapters_begin_as_nothing_are_left_out_for_the_reference_and_can_be_written_in():
    tokens = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))
    net = th.networks.Transformer(11, layers=2, width=16, heads=2)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1)
        plain = net(tokens)
        th.language.add_lora(net, rank=2, targets=("q_proj", "v_proj", "up_proj"))
        assert torch.equal(net(tokens), plain)
        for name, p in net.named_parameters():
            assert p.requires_grad == name.endswith((".A", ".B"))
            if name.endswith(".B"):
                p.add_(0.05)
        changed = net(tokens)
        assert not torch.allclose(changed, plain)
        model = DPO(Autoregressive(net), beta=0.5)
        pairs = TokenPairs([{"prompt": [1, 2], "chosen": [3, 4], "rejected": [5]}], context=8)
        own = Autoregressive(th.networks.Transformer(11, layers=2, width=16, heads=2))
        for p in own.parameters():
            p.add_(0.1)
        for found, wanted in zip(
            model.of_reference(pairs.whole),
            DPO(own, Autoregressive(net))._answers(own, pairs.whole),
            strict=True,
        ):
            torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(th.language.merge(net)(tokens), changed)
    with pytest.raises(BadArgument, match="add_lora"):
        DPO(own)
    with pytest.raises(BadArgument, match="There are"):
        th.language.add_lora(own, targets=("query",))
    with pytest.raises(BadArgument, match="the policy itself"):
        DPO(own, own)
