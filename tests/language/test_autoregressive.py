"""Autoregressive: the Markov chain's maximum, and a log p that no bookkeeping changes."""

from __future__ import annotations

import math
import warnings
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, ModelError, OutOfSupport
from thetahat.evaluation.score import score as score_of
from thetahat.language import Autoregressive, Tokens
from thetahat.language.token_log_prob import token_log_prob
from thetahat.networks import Transformer

TEXTS = ["she sells sea shells", "by the sea shore", "the shells she sells", "are sea shells", "I am sure"]


def transformer(vocabulary: int = 257, **more: object) -> Transformer:
    settings = {"layers": 2, "width": 32, "heads": 4, "dtype": torch.float64} | more
    net = Transformer(vocabulary, **settings)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net.eval()


# ---- the Markov chain --------------------------------------------------------------------------------------


def chain(tokens: Tokens) -> float:
    """Σ N_ab log(N_ab / N_a): the maximum of the likelihood of a Markov chain of order one, by counting."""
    pairs: Counter = Counter()
    for b in tokens.batches():
        pairs.update(
            (int(x), int(y))
            for x, y, c in zip(*(t.reshape(-1) for t in (b["input"], b["target"], b.count)), strict=True)
            if c
        )
    before: Counter = Counter()
    for (x, _), n in pairs.items():
        before[x] += n
    return sum(n * math.log(n / before[x]) for (x, _), n in pairs.items())


@pytest.mark.parametrize("layout", ["stream", "packed"])
def test_a_table_of_bigrams_reaches_the_maximum_that_counting_gives(layout):
    """Its logits are free: the maximum is the count-based MLE. Transitions never seen take their
    probabilities to 0 from above, so the run ends below it by what they still hold."""
    tokens = Tokens(TEXTS, th.language.Characters.of(*TEXTS), context=32, layout=layout)
    V = tokens.vocabulary
    table = torch.nn.Embedding(V, V, dtype=torch.float64)
    torch.nn.init.zeros_(table.weight)
    solver = th.Stochastic(steps=400, learning_rate=0.5, batch_size=100, held_out=None)
    fit = th.fit(Autoregressive(table), tokens, solver=solver)
    best = chain(tokens)
    assert best - 0.01 < fit.log_likelihood < best


def test_a_transformer_without_layers_reaches_the_maximum_that_counting_gives():
    """Width 32 ≥ 15 characters: every bigram table can be written W n(E)."""
    tokens = Tokens(TEXTS, th.language.Characters.of(*TEXTS), context=32)
    network = Transformer(tokens.vocabulary, layers=0, width=32)
    solver = th.Stochastic(steps=300, learning_rate=0.1, batch_size=100, held_out=None)
    fit = th.fit(Autoregressive(network), tokens, solver=solver)
    best = chain(tokens)
    assert best - 0.05 < fit.log_likelihood < best + 1e-4


# ---- bookkeeping -------------------------------------------------------------------------------------------


def per_term(model: Autoregressive, tokens: Tokens, size: int | None = None) -> torch.Tensor:
    """log p of the terms that count, in order."""
    rows = list(tokens.batches())
    if size is not None:
        rows = [b[a : a + size] for b in rows for a in range(0, len(b), size)]
    with torch.no_grad():
        return torch.cat([model.log_prob(b)[b.count > 0] for b in rows])


@pytest.mark.parametrize("size", [1, 3, None])
@pytest.mark.parametrize(
    ("layout", "context"), [("padded", 40), ("packed", 40), ("packed", 64), ("stream", 200)]
)
def test_padding_packing_and_batch_size_change_no_log_prob(layout, context, size):
    """Each document alone, unpadded, in a batch of one: the same log p of every token, to rounding."""
    model = Autoregressive(transformer())
    alone = torch.cat([per_term(model, Tokens([text], context=200)) for text in TEXTS])
    found = per_term(model, Tokens(TEXTS, context=context, layout=layout), size)
    torch.testing.assert_close(found, alone, rtol=1e-10, atol=1e-11)


def test_padding_is_exactly_zero_and_carries_no_gradient():
    model = Autoregressive(transformer())
    (batch,) = Tokens(TEXTS, context=40, layout="padded").batches()
    value = model.log_prob(batch)
    assert bool((value[batch.count == 0] == 0).all())
    assert bool((value[batch.count > 0] < 0).all())
    other = Batch(
        batch.tensors | {"target": torch.where(batch.count == 0, 7, batch["target"])},
        count=batch.count,
        dims=2,
    )
    grads = [torch.autograd.grad(model.log_prob(b).sum(), list(model.parameters())) for b in (batch, other)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("layout", ["padded", "packed", "stream"])
def test_the_gradient_does_not_depend_on_the_layout(layout):
    """Σ log p and its gradient: of padded rows, packed rows and windows of the stream that hold whole
    documents."""
    model = Autoregressive(transformer())
    alone = th.Objective([th.LogLikelihood(model, Tokens(TEXTS, context=200, layout="padded"))]).taylor(
        order=1
    )
    found = th.Objective([th.LogLikelihood(model, Tokens(TEXTS, context=200, layout=layout))]).taylor(order=1)
    torch.testing.assert_close(found.gradient, alone.gradient, rtol=1e-9, atol=1e-11)


def test_a_network_that_cannot_keep_documents_apart_is_refused_them():
    (batch,) = Tokens(TEXTS, context=200).batches()
    recurrent = torch.nn.Sequential(torch.nn.Embedding(257, 257))
    with pytest.raises(BadArgument, match="cannot keep them apart"):
        Autoregressive(recurrent).log_prob(batch)


# ---- the vocabulary in blocks ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 64, 100, 1000])
def test_blocks_of_the_vocabulary_give_the_log_softmax_and_its_gradients(chunk):
    g = torch.Generator().manual_seed(0)
    h, W, b = (
        torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True)
        for s in ((2, 9, 5), (100, 5), (100,))
    )
    y = torch.randint(100, (2, 9), generator=g)
    whole = torch.log_softmax(h @ W.T + b, -1).gather(-1, y[..., None])[..., 0]
    found = token_log_prob(h, W, b, y, chunk)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    for a, e in zip(*(torch.autograd.grad(v.square().sum(), (h, W, b)) for v in (found, whole)), strict=True):
        torch.testing.assert_close(a, e, rtol=1e-11, atol=1e-12)


def test_no_tensor_is_ever_as_large_as_the_logits():
    """Every tensor that forward and backward create is seen: none has B · T · V entries, nor half of them."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else [out]:
                largest = max(largest, t.numel() if isinstance(t, torch.Tensor) else 0)
            return out

    B, T, V = 4, 50, 5000
    model = Autoregressive(Transformer(V, layers=1, width=16, heads=2), chunk=500)
    batch = Batch({"input": torch.randint(V, (B, T)), "target": torch.randint(V, (B, T))}, dims=2)
    with Watch():
        model.log_prob(batch).sum().backward()
    assert largest <= max(B * T * 500, V * 16)
    model.chunk = V
    with Watch():
        model.log_prob(batch)
    assert largest == B * T * V


# ---- other software ----------------------------------------------------------------------------------------


def test_log_prob_is_that_of_transformers():
    """transformers' own loss of a Llama is the mean of −log p, its dropout off: equal to 1e-5 in float32,
    as is each token's log p."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
    net = transformer(90, kv_heads=2, dtype=torch.float32)
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**net.llama())).eval()
    llama.load_state_dict(net.state_dict())
    x = torch.randint(90, (3, 20), generator=torch.Generator().manual_seed(2))
    batch = Batch({"input": x[:, :-1], "target": x[:, 1:]}, dims=2)
    with torch.no_grad():
        known = llama(input_ids=x, labels=x)
        each = torch.log_softmax(known.logits[:, :-1], -1).gather(-1, x[:, 1:, None])[..., 0]
        for model in (Autoregressive(net), Autoregressive(llama), Autoregressive(llama, chunk=20)):
            found = model.log_prob(batch)
            torch.testing.assert_close(found, each, rtol=0, atol=1e-5)
            assert float(-found.mean()) == pytest.approx(float(known.loss), abs=1e-5)


# ---- scores ------------------------------------------------------------------------------------------------


def test_bits_per_byte_do_not_depend_on_how_the_text_was_cut():
    """A tokenizer that merges nothing has the tokens of the bytes under other numbers: the same network,
    renumbered, gives the same bits per byte. And of a uniform network they are tokens · log V / (bytes · log
    2), however the text is laid out."""
    pytest.importorskip("tokenizers")
    texts = [*TEXTS, "naïve — 今日"]
    plain, other = th.language.Bytes(), th.language.BPE.train([""], vocabulary=257)
    bytes_ = sum(len(t.encode()) for t in texts)
    number = torch.empty(257, dtype=torch.long)
    for byte in range(256):
        (number[byte],) = torch.from_numpy(
            other._own.token_to_id(_written(byte)) + torch.zeros(1, dtype=torch.long).numpy()
        )
    number[256] = other.end
    one, two = (torch.nn.Embedding(257, 257, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        two.weight[number[:, None], number] = one.weight
    found = [
        score_of(Autoregressive(net), Tokens(texts, tokenizer, context=context, layout=layout))
        for net, tokenizer in ((one, plain), (two, other))
        for layout, context in (("stream", 7), ("padded", 30), ("packed", 64))
    ]
    for score in found:
        assert float(score.lengths.sum()) == bytes_
        assert score.bits_per_byte == pytest.approx(found[0].bits_per_byte, rel=1e-12)
        assert score.bits_per_byte_error == pytest.approx(found[0].bits_per_byte_error, rel=1e-9)
    bpe = th.language.BPE.train(texts, vocabulary=300)
    uniform = torch.nn.Embedding(bpe.vocabulary, bpe.vocabulary)
    torch.nn.init.zeros_(uniform.weight)
    score = score_of(Autoregressive(uniform), Tokens(texts, bpe, context=9))
    terms = sum(len(bpe.encode(t)) + 1 for t in texts)
    assert score.bits_per_byte == pytest.approx(terms * math.log2(bpe.vocabulary) / bytes_, rel=1e-6)
    assert score.perplexity == pytest.approx(bpe.vocabulary, rel=1e-5)


def _written(byte: int) -> str:
    """The character that byte-level BPE writes for a byte: itself if it is printable, else the next free one
    from U+0100 on (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte if byte in printable else 256 + [b for b in range(256) if b not in printable].index(byte))


def test_the_standard_error_is_that_of_documents():
    """Of the ratio Σ nats / Σ terms over documents, written out; the same from the solver's look at held-out
    data."""
    from thetahat.solvers.minibatches import held_out_nats

    model, tokens = Autoregressive(transformer()), Tokens(TEXTS, context=16)
    score = score_of(model, tokens)
    value = per_term(model, tokens)
    lengths = [len(t) + 1 for t in TEXTS]
    sums = torch.stack([(part - value.mean()).sum() for part in value.split(lengths)])
    assert score.standard_error == pytest.approx(
        float((sums**2).sum() * 5 / 4) ** 0.5 / len(value), rel=1e-12
    )
    assert held_out_nats(model.log_prob, tokens) == pytest.approx((score.mean, score.standard_error, score.n))
    bits, nats = (
        [len(t) for t in TEXTS],
        torch.stack([part.sum() for part in value.split(lengths)]) / -math.log(2),
    )
    ratio = float(nats.sum()) / sum(bits)
    residual = nats - ratio * torch.tensor(bits, dtype=torch.float64)
    assert score.bits_per_byte == pytest.approx(ratio)
    assert score.bits_per_byte_error == pytest.approx(
        float((residual**2).sum() * 5 / 4) ** 0.5 / sum(bits), rel=1e-12
    )
    assert "bits per byte" in str(score)


def test_models_with_other_windows_compare_token_by_token():
    tokens = Tokens(TEXTS, context=16)
    model = Autoregressive(transformer())
    scores = {
        c: score_of(model, tokens.laid_out(context=c, layout=kind))
        for c, kind in ((8, "padded"), (40, "stream"))
    }
    comparison = th.compare({str(c): s for c, s in scores.items()})
    assert comparison.pair("8", "40").difference == pytest.approx(abs(scores[8].total - scores[40].total))


# ---- draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"context": 8}, {"temperature": 0.7, "top_k": 5}, {"temperature": 0.0}]
)
def test_draws_with_a_cache_are_the_draws_without(settings):
    model = Autoregressive(transformer(30))
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    draws = [
        model.sample(prompt, 25, cached=cached, generator=torch.Generator().manual_seed(3), **settings)
        for cached in (True, False)
    ]
    assert draws[0].shape == (2, 25)
    assert torch.equal(*draws)


def test_draws_have_the_frequencies_of_the_model():
    """20,000 continuations of two tokens: χ² of the 16 pairs against p(a | prompt) p(b | prompt a), 15
    degrees of freedom."""
    model = Autoregressive(transformer(4))
    n = 20_000
    drawn = model.sample(torch.tensor([[1, 3]]).expand(n, 2), 2, generator=torch.Generator().manual_seed(0))
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    x = torch.cat([torch.tensor([[1, 3]]).expand(16, 2), pairs], 1)
    with torch.no_grad():
        p = model.log_prob(Batch({"input": x[:, :-1], "target": x[:, 1:]}, dims=2))[:, 1:].sum(1).exp()
    assert float(p.sum()) == pytest.approx(1)
    seen = torch.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16)
    assert float(((seen - n * p) ** 2 / (n * p)).sum()) < 37.7  # 0.1 % point


def test_a_document_that_is_closed_stays_closed():
    model = Autoregressive(transformer(3))
    drawn = model.sample(
        torch.zeros(50, 1, dtype=torch.long), 30, end=2, generator=torch.Generator().manual_seed(0)
    )
    assert drawn.shape == (50, 30)
    for row in drawn.tolist():
        if 2 in row:
            assert set(row[row.index(2) :]) == {2}
    assert any(2 in row for row in drawn.tolist())


# ---- what goes wrong ---------------------------------------------------------------------------------------


def test_a_token_outside_the_vocabulary_is_named():
    model = Autoregressive(Transformer(10, layers=1, width=16, heads=2))
    x = torch.zeros(2, 3, dtype=torch.long)
    x[1, 2] = 10
    with pytest.raises(OutOfSupport, match=r"the token 10 at \(1, 2\) is outside the vocabulary 0 … 9"):
        model.log_prob(Batch({"input": x, "target": x}, dims=2))


def test_what_cannot_be_a_model_or_a_draw_is_refused():
    with pytest.raises(BadArgument, match="not a torch"):
        Autoregressive("gpt2")
    with pytest.raises(ModelError, match="for terms of shape"):
        Autoregressive(torch.nn.Flatten()).log_prob(
            Batch({"input": torch.zeros(2, 3), "target": torch.zeros(2, 3)}, dims=2)
        )
    model = Autoregressive(torch.nn.Embedding(5, 5))
    with pytest.raises(BadArgument, match="prompt"):
        model.sample(torch.zeros(0, dtype=torch.long))
    with pytest.raises(BadArgument, match="top_k=0"):
        model.sample(torch.tensor([1]), top_k=0)


def test_a_fit_is_saved_and_comes_back(tmp_path):
    """Tied weights too: one tensor under two names."""
    tokens = Tokens(TEXTS, context=16)
    build = lambda: Autoregressive(Transformer(257, layers=1, width=16, heads=2, tied=True))  # noqa: E731
    fit = th.fit(build(), tokens, solver=th.Stochastic(steps=3, held_out=0.3))
    again = th.load(fit.save(tmp_path / "gpt.thetahat"), model=build())
    assert torch.equal(again.theta, fit.theta)
    assert again.score(tokens).total == fit.score(tokens).total
