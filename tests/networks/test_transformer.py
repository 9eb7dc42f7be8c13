"""The transformer: its parts are their formulas, its weights Llama's."""

from __future__ import annotations

import warnings

import pytest
import torch

from thetahat.errors import BadArgument
from thetahat.language import Pretrained
from thetahat.networks import Transformer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what transformers says while it loads is not ours
    transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(50, (3, 11), generator=torch.Generator().manual_seed(0))


def settings(**more: object) -> dict:
    return {"vocabulary": 50, "layers": 2, "width": 32, "heads": 4, "dtype": torch.float64} | more


def drawn(**more: object) -> Transformer:
    """A network none of whose matrices is 0."""
    net = Transformer(**settings(**more))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net.eval()


@pytest.mark.parametrize(
    "more", [{}, {"kv_heads": 2}, {"tied": True}, {"activation": "relu2"}, {"theta": 500.0, "hidden": 40}]
)
def test_the_state_dict_loads_into_transformers_and_gives_the_same_logits(more):
    """transformers' LlamaForCausalLM (relu2: ArceeForCausalLM) with the same weights, key by key.

    Whatever the dtype it has its norms and angles in float32. With those two in float64 its logits are ours
    to 1e-10; as it stands, to 1e-5.
    """
    net = drawn(**more)
    kind = "Arcee" if net.activation == "relu2" else "Llama"
    config = getattr(transformers, f"{kind}Config")(
        **net.llama(), bos_token_id=0, eos_token_id=0, attn_implementation="sdpa"
    )
    other = getattr(transformers, f"{kind}ForCausalLM")(config).to(torch.float64).eval()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        logits = net(TOKENS)
        torch.testing.assert_close(logits, other(input_ids=TOKENS).logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(Transformer.from_llama(other)(TOKENS), logits, rtol=0, atol=1e-12)
        for norm in other.modules():
            if type(norm).__name__.endswith("RMSNorm"):
                norm.forward = lambda x, own=norm: (
                    own.weight * x / (x.square().mean(-1, keepdim=True) + net.epsilon).sqrt()
                )
        other.model.rotary_emb.forward = lambda x, position_ids: tuple(
            t[None] for t in net._rotation(0, x.shape[1], x)
        )
        torch.testing.assert_close(logits, other(input_ids=TOKENS).logits, rtol=0, atol=1e-10)


def test_a_llama_with_parts_that_the_network_lacks_is_refused_by_their_name():
    config = transformers.LlamaConfig(**drawn().llama(), attention_bias=True)
    with pytest.raises(BadArgument, match="attention_bias"):
        Transformer.from_llama(transformers.LlamaForCausalLM(config))


@pytest.mark.parametrize("more", [{}, {"kv_heads": 1, "activation": "relu2"}, {"ngrams": (7, 4000)}])
def test_reading_in_parts_with_a_cache_is_reading_at_once(more):
    net = drawn(**more)
    with torch.no_grad():
        whole = net(TOKENS)
        for cuts in ([11], [1] * 11, [4, 1, 5, 1]):
            cache, at = None, 0
            for n in cuts:
                logits, cache = net.extend(TOKENS[:, at : at + n], cache)
                at += n
                torch.testing.assert_close(logits, whole[:, at - 1], rtol=1e-9, atol=1e-10)


def test_ngrams_are_numbered_apart_and_stay_within_their_document():
    """Enough rows: every pair of tokens has its own. Two documents in a row are read as each alone."""
    net = drawn(ngrams=(10_000, 50))
    V = net.vocabulary
    pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    seen = []
    net.ngrams[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        net(pairs)
        packed = net(TOKENS[:1], torch.tensor([[0] * 4 + [1] * 7]))
        alone = torch.cat([net(TOKENS[:1, :4]), net(TOKENS[:1, 4:])], 1)
    assert len(torch.unique(seen[0][:, 1])) == V * V
    assert len(torch.unique(seen[0])) == V * V + V  # and each token as the first of a row
    torch.testing.assert_close(packed, alone, rtol=1e-9, atol=1e-10)
    with pytest.raises(BadArgument, match="no Llama"):
        net.llama()


def test_no_token_sees_what_follows_it_or_another_document():
    """The gradient of the logits at t in the embedding of u is 0 for u > t, and for u of another document."""
    net = drawn()
    documents = torch.tensor([[0] * 4 + [1] * 7])
    h = net.model["embed_tokens"](TOKENS[:1]).detach().requires_grad_()
    net.model["embed_tokens"].forward = lambda tokens: h
    for given, seen in ((None, lambda t, u: u <= t), (documents, lambda t, u: u <= t and (t < 4) == (u < 4))):
        logits = net(TOKENS[:1], given)
        for t in range(11):
            (g,) = torch.autograd.grad(logits[0, t].sum(), h, retain_graph=True)
            assert [bool(v) for v in g[0].abs().sum(-1) > 0] == [seen(t, u) for u in range(11)]


def test_documents_in_one_row_are_documents_in_rows_of_their_own():
    """Rotations are relative: where a document stands in its row does not matter."""
    net = drawn()
    with torch.no_grad():
        packed = net(TOKENS[:1], torch.tensor([[0] * 4 + [1] * 7]))
        alone = torch.cat([net(TOKENS[:1, :4]), net(TOKENS[:1, 4:])], 1)
    torch.testing.assert_close(packed, alone, rtol=1e-9, atol=1e-10)


def test_every_block_begins_as_the_identity_and_all_tokens_as_equally_probable():
    net = Transformer(**settings())
    assert torch.equal(net(TOKENS), torch.zeros(3, 11, 50, dtype=torch.float64))
    deep, shallow = Transformer(**settings(tied=True)), Transformer(**settings(tied=True, layers=0))
    shallow.load_state_dict({k: v for k, v in deep.state_dict().items() if "layers" not in k})
    torch.testing.assert_close(deep(TOKENS), shallow(TOKENS))


def test_the_seed_decides_the_weights():
    a, b, c = (Transformer(**settings(seed=s)).state_dict()["model.embed_tokens.weight"] for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    "wrong", [{"width": 36}, {"kv_heads": 3}, {"activation": "tanh"}, {"dropout": 1.0}, {"layers": -1}]
)
def test_what_cannot_be_built_is_refused(wrong):
    with pytest.raises(BadArgument, match="Accepted"):
        Transformer(**settings(**wrong))


# ---- transformers' own -------------------------------------------------------------------------------------


def pretrained(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=4)
        return transformers.GPT2LMHeadModel(config).double().eval()
    if kind == "gemma2":  # logits are squashed: no matrix times the last hidden state
        config = transformers.Gemma2Config(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            intermediate_size=32, final_logit_softcapping=0.5,
        )  # fmt: skip
        return transformers.Gemma2ForCausalLM(config).double().eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**drawn().llama())).double().eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_a_model_of_transformers_is_a_network(kind):
    own = pretrained(kind)
    net = Pretrained(own)
    assert net.masks
    assert net.linear is (kind != "gemma2")
    with torch.no_grad():
        torch.testing.assert_close(net(TOKENS), own(input_ids=TOKENS).logits)
        packed = net(TOKENS[:1], torch.tensor([[0] * 4 + [1] * 7]))
        alone = torch.cat([net(TOKENS[:1, :4]), net(TOKENS[:1, 4:])], 1)
        torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)
        first, cache = net.extend(TOKENS[:, :5], None)
        second, _ = net.extend(TOKENS[:, 5:], cache)
        torch.testing.assert_close(first, net(TOKENS[:, :5])[:, -1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(second, net(TOKENS)[:, -1], rtol=1e-6, atol=1e-6)


def test_what_is_no_language_model_is_refused():
    with pytest.raises(BadArgument, match="not a causal language model"):
        Pretrained(torch.nn.Linear(2, 2))
