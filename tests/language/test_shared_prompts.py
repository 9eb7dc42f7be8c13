"""Prompts that are read once for several answers: the same log p and the same gradients as texts that are read whole, each
through the network's own forward, log softmax of its logits."""

from __future__ import annotations

import copy

import pytest
import torch

import thetahat as th
from thetahat.language import Autoregressive, Sampling
from thetahat.language.shared_prompts import PROMPT, SharedPrompts
from thetahat.networks import Transformer

V = 40
PROMPTS = (9, 1, 4)  # lengths
ANSWERS = ((3, 5), (2, 1, 4), (6,))  # of each prompt


def network(ngrams=(), dtype=torch.float64):
    net = Transformer(V, layers=2, width=16, heads=4, kv_heads=2, ngrams=ngrams).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype))
    return net


def rows(shift=0):
    """(prompt, answer) of each row."""
    g = torch.Generator().manual_seed(1 + shift)
    asked = [torch.randint(V, (n,), generator=g) for n in PROMPTS]
    return [
        (p, torch.randint(V, (n,), generator=g)) for p, own in zip(asked, ANSWERS, strict=True) for n in own
    ]


def batch_of(pairs, filled=3):
    """As `Generations` lays them out, with more columns than are needed."""
    from thetahat.language.generations import _laid_out

    tensors, count = _laid_out([p for p, _ in pairs], [a for _, a in pairs])
    pad = torch.nn.functional.pad
    wide = {k: pad(t, (0, filled), value=-1 if k == PROMPT else 0) for k, t in tensors.items()}
    return th.data.Batch(wide, count=pad(count, (0, filled)), dims=2)


def whole(own, pairs, sampling=None):
    """log q of each answer's tokens, one text at a time."""
    out = []
    for prompt, answer in pairs:
        logits = own(torch.cat([prompt, answer])[None])
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        z = logits[0, len(prompt) - 1 : -1] / (1.0 if sampling is None else sampling.temperature)
        out.append(torch.log_softmax(z, -1).gather(-1, answer[:, None])[:, 0])
    return torch.cat(out)


class Reads:
    """How many tokens a network's blocks read."""

    def __init__(self, module):
        self.tokens = 0
        module.register_forward_hook(self._add)

    def _add(self, module, given, out):
        self.tokens += out.shape[0] * out.shape[1]


@pytest.mark.parametrize("sampling", [None, Sampling(0.7)], ids=["p", "q"])
@pytest.mark.parametrize("ngrams", [(), (150, 40)], ids=["", "n-grams"])
def test_log_p_and_its_gradients_are_those_of_whole_texts(ngrams, sampling):
    net = network(ngrams)
    other = copy.deepcopy(net)
    batch = batch_of(rows())
    found = Autoregressive(net, sampling=sampling).log_prob(batch)
    assert bool((found[batch.count == 0] == 0).all())
    right = whole(other, rows(), sampling)
    torch.testing.assert_close(found[batch.count > 0], right, rtol=0, atol=1e-12)
    slope = torch.linspace(-1, 1, len(right), dtype=torch.float64)
    (found[batch.count > 0] * slope).sum().backward()
    (right * slope).sum().backward()
    for (name, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12, msg=name)


def test_in_float32_it_is_the_float64_value_to_1e_6_relative():
    batch = batch_of(rows())
    a, b = (Autoregressive(network(dtype=d)).log_prob(batch).detach() for d in (torch.float32, torch.float64))
    torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=5e-6)


def test_each_prompt_is_read_once_and_what_fills_rows_up_is_not_read():
    net = network()
    model = Autoregressive(net)
    batch = batch_of(rows())
    model.log_prob(batch)  # the first batch is tried
    reads = Reads(net.model["layers"][0].mlp)
    model.log_prob(batch)
    R, longest = len(rows()), max(map(max, ANSWERS))
    assert reads.tokens == len(PROMPTS) * max(PROMPTS) + R * (longest - 1)
    reads.tokens = 0
    del batch.tensors[PROMPT]
    model.log_prob(batch)
    assert reads.tokens == R * max(len(p) + len(a) - 1 for p, a in rows())


def test_only_tokens_that_count_go_through_the_output_matrix():
    net = network()
    model = Autoregressive(net, sampling=Sampling(0.9))
    model.log_prob(batch_of(rows()))
    seen = []
    net.lm_head.register_forward_hook(lambda m, given, out: seen.append(out.shape[0]))
    model.log_prob(batch_of(rows()))
    assert seen == [sum(map(sum, ANSWERS))]


def test_an_output_matrix_with_an_adapter_is_the_sum_of_both():
    net = th.language.add_lora(network(), rank=2, targets=["lm_head"])
    with torch.no_grad():
        net.lm_head.B.copy_(torch.linspace(-1, 1, 2 * V).view(V, 2))
    batch = batch_of(rows())
    found = Autoregressive(net).log_prob(batch)[batch.count > 0]
    torch.testing.assert_close(found, whole(net, rows()), rtol=0, atol=1e-12)
    assert float((found - whole(network(), rows())).detach().abs().max()) > 0.01


def test_a_batch_that_is_wrong_about_its_prompts_is_read_whole():
    """Rows of one number that begin otherwise, or are scored within their prompt: the value is right all the same."""
    model = Autoregressive(network())
    mixed = [*rows(), *rows(shift=5)]
    batch = batch_of(mixed)
    right = whole(network(), mixed)
    batch.tensors[PROMPT] = torch.where(batch[PROMPT] >= 0, batch[PROMPT] % 2, -1)
    torch.testing.assert_close(model.log_prob(batch)[batch.count > 0], right, rtol=0, atol=1e-12)
    batch = batch_of(rows())
    every = th.data.Batch(batch.tensors, count=torch.ones_like(batch.count), dims=2)
    plain = th.data.Batch({k: t for k, t in batch.tensors.items() if k != PROMPT}, count=every.count, dims=2)
    torch.testing.assert_close(model.log_prob(every), model.log_prob(plain), rtol=0, atol=0)


def test_nothing_is_shared_where_nothing_would_be_saved():
    x = torch.arange(12).view(2, 6)
    prompt = torch.tensor([[0, 0, 0, -1, -1, -1], [1, 1, 1, -1, -1, -1]])
    asked = torch.nonzero(torch.tensor([[0, 0, 1, 1, 1, 1]] * 2), as_tuple=True)
    assert SharedPrompts.of(x, prompt, *asked) is None


@pytest.mark.parametrize(
    "kind",
    "Mistral Gemma2 Gemma3Text Qwen2 Phi3 Starcoder2 Cohere2 Olmo3 Exaone4 Llama4Text Llama Granite SmolLM3 Helium GPT2".split(),
)
def test_models_of_transformers_read_a_prompt_once(kind):
    """Windows and chunks of 4 included; those that cannot are read whole."""
    pytest.importorskip("transformers")
    from tests.language.test_pretrained import FULL, WINDOWED, built

    own = built(kind, (WINDOWED | FULL)[kind])
    model = Autoregressive(own)
    batch = batch_of(rows())
    found = model.log_prob(batch)
    torch.testing.assert_close(
        found.detach()[batch.count > 0], whole(own, rows()).detach(), rtol=0, atol=2e-5
    )
    found.sum().backward()
    ours = {name: p.grad.clone() for name, p in own.named_parameters() if p.grad is not None}
    own.zero_grad()
    whole(own, rows()).sum().backward()
    for name, p in own.named_parameters():
        if p.grad is not None:
            scale = float(p.grad.abs().max()) + 1e-3
            torch.testing.assert_close(ours[name], p.grad, rtol=0, atol=1e-4 * scale, msg=name)
    if kind in ("Llama", "Qwen2", "Mistral", "SmolLM3"):
        assert model.network.shares_prompts
