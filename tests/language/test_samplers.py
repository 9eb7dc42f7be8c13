"""Answers to prompts of unequal lengths, drawn together: each as if it were drawn alone, and scored as the trainer scores it."""

from __future__ import annotations

import pytest
import torch
from tests.language.test_sampling import SETTINGS, network

import thetahat as th
from thetahat.errors import BadArgument, NotFinite
from thetahat.language import Autoregressive, ContinuousBatching, Generations, Sampling
from thetahat.language.generations import _laid_out, spread_out
from thetahat.language.samplers import drawn_at, uniforms

END, LENGTHS = 4, (1, 5, 2, 9, 3, 3, 12)


def prompts(vocabulary=12, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (n,), generator=generator) for n in lengths]


def scored(model, asked, drawn, G):
    """(log q of the trainer, of the sampler), (B, T), both of the terms that count."""
    tensors, count = _laid_out([p for p in asked for _ in range(G)], drawn.tokens)
    del tensors["prompt"]  # whole texts: nothing is read once for several
    batch = th.data.Batch(tensors, count=count, dims=2)
    if drawn.kept is not None:
        batch.tensors["kept"] = spread_out(drawn.kept, count).clamp(min=1)
    with torch.no_grad():
        return model.log_prob(batch), spread_out(drawn.log_prob, count), count


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_log_q_of_the_sampler_is_the_trainers_for_prompts_of_all_lengths(sampling, dtype, tolerance):
    """The trainer reads each whole text at once, without a cache."""
    model = Autoregressive(network(dtype), sampling=sampling)
    drawn = ContinuousBatching(5).draw(
        model, prompts(), num_generations=3, max_new_tokens=9, end=END, seed=(1, 2)
    )
    own, theirs, count = scored(model, prompts(), drawn, 3)
    assert float((own - theirs).abs().max()) < tolerance
    assert len({len(a) for a in drawn.tokens}) > 1 or sampling.top_k == 1 or sampling.top_p == 1e-6
    assert float(count.sum()) == sum(map(len, drawn.tokens))
    if sampling.truncates:
        kept = torch.cat(drawn.kept)
        assert int(kept.min()) >= 1
        assert int(kept.max()) <= min(sampling.top_k or 12, 12)


@pytest.mark.parametrize("sampling", [None, Sampling(0.8, top_k=9, top_p=0.9)], ids=str)
@pytest.mark.parametrize("ngrams", [(), (150, 40)], ids=["", "n-grams"])
def test_which_answers_are_drawn_together_changes_none_of_them(sampling, ngrams):
    """Random numbers belong to the answer; the network is float64, so that sums in another order decide nothing."""
    net = th.networks.Transformer(12, layers=2, width=16, heads=4, kv_heads=2, ngrams=ngrams).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    model = Autoregressive(net, sampling=sampling)
    alone, eight, all_ = (
        ContinuousBatching(rows).draw(model, prompts(), num_generations=4, max_new_tokens=10, end=9)
        for rows in (1, 8, None)
    )
    assert len({len(a) for a in alone.tokens}) > 3
    for other in (eight, all_):
        assert all(map(torch.equal, alone.tokens, other.tokens))
        torch.testing.assert_close(torch.cat(alone.log_prob), torch.cat(other.log_prob), rtol=0, atol=1e-12)
    own, theirs, _ = scored(model, prompts(), alone, 4)
    torch.testing.assert_close(own, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampling", SETTINGS[:5], ids=str)
def test_a_token_is_drawn_as_often_as_q_says(sampling):
    """u over an even grid of N: of N draws v has N·q(v), to one at each end of its interval."""
    z = 2 * torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    N = 20_000
    u = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    token, log_q, _ = drawn_at(z.expand(N, 12), u, sampling)
    q = sampling.probabilities(z)
    assert float((torch.bincount(token, minlength=12) - N * q).abs().max()) <= 2
    torch.testing.assert_close(log_q, torch.log(q)[token], rtol=0, atol=1e-12)
    assert int(drawn_at(z[None], torch.tensor([1.0]), sampling)[0]) == int(torch.nonzero(q > 0).max())


def test_uniform_numbers_are_numpys_and_differ_by_seed_pass_and_answer():
    """numpy's Generator(Philox) makes its doubles of the same 53 bits."""
    import numpy as np

    key = np.array([3, 1], dtype=np.uint64)
    other = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, 2])).random(5)
    assert uniforms((3, 1), 4, 5)[2].tolist() == other.tolist()
    many = torch.cat([uniforms((s, p), 20, 5).reshape(-1) for s in (0, 1, -1) for p in (0, 1)])
    assert len(many.unique()) == len(many)
    assert float(many.min()) >= 0
    assert float(many.max()) < 1
    assert abs(float(many.mean()) - 0.5) < 4 * (12 * len(many)) ** -0.5


class Counted(torch.nn.Module):
    """A network that counts the rows that it reads."""

    reads_rows = True

    def __init__(self, net):
        super().__init__()
        self.net, self.vocabulary, self.first, self.next = net, net.vocabulary, [], 0

    def forward(self, tokens):
        return self.net(tokens)

    def read(self, tokens, lengths, cache):
        if cache is None:
            self.first += lengths.tolist()
        else:
            self.next += len(tokens)
        return self.net.read(tokens, lengths, cache)


def test_a_prompt_is_read_once_for_its_answers_and_ended_rows_give_way():
    """What is read beyond the answers' own tokens is less than an eighth of the rows, at every step."""
    net = Counted(network())
    drawn = ContinuousBatching(4).draw(
        Autoregressive(net), prompts(), num_generations=8, max_new_tokens=30, end=END
    )
    assert sorted(net.first) == sorted(LENGTHS)
    needed = sum(len(a) - 1 for a in drawn.tokens)
    assert needed <= net.next <= needed + 4 * 30  # the last rows alone wait for each other
    assert 4 * max(map(len, drawn.tokens)) * 14 > 1.5 * net.next  # groups of four would wait for the longest


class Extending(torch.nn.Module):
    """A network with a cache of one length for all rows."""

    def __init__(self, net):
        super().__init__()
        self.net, self.vocabulary = net, net.vocabulary

    def forward(self, tokens):
        return self.net(tokens)

    def extend(self, tokens, cache):
        return self.net.extend(tokens, cache)


class Plain(torch.nn.Module):
    """A network without a cache."""

    def __init__(self, net):
        super().__init__()
        self.net, self.vocabulary = net, net.vocabulary

    def forward(self, tokens):
        return self.net(tokens)


@pytest.mark.parametrize(("kind", "said"), [(Extending, "one length of prompt at a time"), (Plain, "")])
def test_networks_that_cannot_read_rows_of_all_lengths_draw_the_same_answers(kind, said):
    own = network()
    wanted = ContinuousBatching().draw(Autoregressive(own), prompts(), max_new_tokens=8, end=END)
    found = ContinuousBatching().draw(Autoregressive(kind(own)), prompts(), max_new_tokens=8, end=END)
    assert all(map(torch.equal, wanted.tokens, found.tokens))
    torch.testing.assert_close(torch.cat(found.log_prob), torch.cat(wanted.log_prob), rtol=0, atol=1e-12)
    assert said in found.remark
    assert bool(found.remark) == bool(said)
    assert not wanted.remark


def test_logits_that_are_not_numbers_are_named():
    net = network()
    with torch.no_grad():
        net.lm_head.weight.fill_(torch.nan)
    with pytest.raises(NotFinite, match="after token 0 of answer 0"):
        ContinuousBatching().draw(Autoregressive(net), prompts(), max_new_tokens=2)


def test_what_cannot_be_asked_of_a_sampler_is_refused():
    model = Autoregressive(network())
    with pytest.raises(BadArgument, match="rows=0"):
        ContinuousBatching(0)
    with pytest.raises(BadArgument, match="max_new_tokens=0"):
        ContinuousBatching().draw(model, prompts(), max_new_tokens=0)
    with pytest.raises(BadArgument, match="prompt 1 has the shape"):
        ContinuousBatching().draw(model, [torch.tensor([1]), torch.tensor([])], max_new_tokens=1)
    with pytest.raises(BadArgument, match="sampler is a int"):
        Generations([[0]], len, max_new_tokens=1, sampler=3)


def test_temperature_zero_takes_the_most_probable_token():
    model = Autoregressive(network(), sampling=Sampling(0.0))
    drawn = ContinuousBatching().draw(model, prompts(), max_new_tokens=6)
    for prompt, answer in zip(prompts(), drawn.tokens, strict=True):
        assert torch.equal(model.sample(prompt, 6)[0], answer)


# ---- generations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [None, Sampling(0.7), Sampling(0.8, top_k=9, top_p=0.9)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_log_pi_of_the_draws_is_that_of_a_second_pass(sampling, dtype, tolerance):
    model = Autoregressive(network(dtype), sampling=sampling)

    def batch(**more):
        draws = Generations(
            prompts(),
            lambda p, a: torch.tensor([float((x == 1).sum()) for x in a]),
            max_new_tokens=7,
            end=END,
            advantage=th.language.RLOO(),
            **more,
        )
        return next(draws.batches(model))

    twice, once = batch(reuse_log_prob=False), batch()
    assert torch.equal(twice["target"], once["target"])
    torch.testing.assert_close(once["log_prob"], twice["log_prob"], rtol=0, atol=tolerance)
    ratio = torch.exp(model.log_prob(once).detach() - once["log_prob"])
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=2 * tolerance)


def test_passes_differ_and_a_seed_gives_them_again():
    model = Autoregressive(network())

    def first_two():
        draws = Generations(prompts(), lambda p, a: torch.zeros(len(a)), max_new_tokens=7, end=END, seed=5)
        return [next(draws.batches(model))["target"] for _ in range(2)]

    (a, b), (c, d) = first_two(), first_two()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert a.shape != b.shape or not torch.equal(a, b)


# ---- transformers ------------------------------------------------------------------------------------------


def kinds():
    from tests.language.test_pretrained import FULL, WINDOWED

    return WINDOWED | FULL


@pytest.mark.parametrize(
    "kind",
    "Mistral Gemma2 Gemma3Text Qwen2 Phi3 Starcoder2 Cohere2 Olmo3 Exaone4 Llama4Text Llama Granite SmolLM3 Helium GPT2".split(),
)
def test_models_of_transformers_read_rows_of_all_lengths(kind):
    """Each text alone through the model's own forward, log softmax of its logits; windows and chunks of 4 included."""
    pytest.importorskip("transformers")
    from tests.language.test_pretrained import V, built

    own = built(kind, kinds()[kind])
    model = Autoregressive(own)
    assert model.network.reads_rows
    asked = prompts(V, (1, 6, 2, 9))
    drawn = ContinuousBatching(3).draw(model, asked, num_generations=2, max_new_tokens=7, end=END)
    assert not drawn.remark
    for i, (answer, found) in enumerate(zip(drawn.tokens, drawn.log_prob, strict=True)):
        whole = torch.cat([asked[i // 2], answer])
        with torch.no_grad():
            logits = own(input_ids=whole[None, :-1], use_cache=False).logits[0, len(asked[i // 2]) - 1 :]
        right = torch.log_softmax(logits, -1).gather(-1, answer[:, None])[:, 0]
        torch.testing.assert_close(found, right, rtol=0, atol=2e-5)  # some compute norms in float32


def test_greedy_answers_are_those_of_transformers_generate():
    """`generate`, a prompt at a time."""
    pytest.importorskip("transformers")
    from tests.language.test_pretrained import V, built

    own = built("Llama", {})
    model = Autoregressive(own, sampling=Sampling(0.0))
    asked = prompts(V, (1, 6, 2, 9))
    drawn = ContinuousBatching().draw(model, asked, max_new_tokens=7)
    for prompt, answer in zip(asked, drawn.tokens, strict=True):
        mask = torch.ones(1, len(prompt))  # or token 0 of a prompt is taken for what fills it up
        other = own.generate(
            prompt[None], attention_mask=mask, do_sample=False, max_new_tokens=7, eos_token_id=None
        )
        assert other[0, len(prompt) :].tolist() == answer.tolist()


@pytest.mark.filterwarnings("ignore")
def test_a_model_without_a_cache_of_keys_reads_its_texts_again_and_says_so():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, state_size=4)
    model = Autoregressive(transformers.AutoModelForCausalLM.from_config(config).eval())
    asked = prompts(40, (1, 5, 3))
    draws = Generations(asked, lambda p, a: torch.zeros(len(a)), max_new_tokens=3, num_generations=2)
    batch = next(draws.batches(model))
    assert "MambaForCausalLM cannot read on from a cache" in draws.remark
    drawn = ContinuousBatching().draw(model, asked, num_generations=2, max_new_tokens=3)
    torch.testing.assert_close(spread_out(drawn.log_prob, batch.count), batch["log_prob"], rtol=0, atol=1e-5)
    assert model.sample(asked[1], 3).shape == (1, 3)
