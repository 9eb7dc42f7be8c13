"""A network that sees the future is refused, for every model of the chain rule and whatever its first
weights; an honest one is not."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor, nn

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import ModelError
from thetahat.generative import FullyVisible, MaskedMLP, PixelTransformer
from thetahat.language import Autoregressive, Pretrained, Tokens, add_lora
from thetahat.networks import Transformer, causality

V, T = 11, 12


def batch(n: int = 3) -> Batch:
    tokens = torch.randint(V, (n, T + 1), generator=torch.Generator().manual_seed(1))
    return Batch({"input": tokens[:, :-1], "target": tokens[:, 1:]}, dims=2)


class Looks(nn.Module):
    """Logits at t from the token at t and that at t + by; `zero`: the output begins at 0."""

    def __init__(self, by: int, zero: bool = False, only: int | None = None):
        super().__init__()
        self.by, self.only = by, only
        self.embedding, self.out = nn.Embedding(V, 8), nn.Linear(8, V)
        if zero:
            nn.init.zeros_(self.out.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embedding(tokens)
        seen = torch.roll(h, -self.by, 1)
        if self.only is not None:
            seen = seen * (torch.arange(tokens.shape[1]) == self.only)[:, None]
        return self.out(h + seen)


class Mixes(nn.Module):
    """torch's own encoder, with or without its mask."""

    def __init__(self, causal: bool, masked_padding: bool = False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.embedding, self.body, self.out = (
            nn.Embedding(V, 8),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.Linear(8, V),
        )
        self.causal = causal

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        return self.out(self.body(self.embedding(tokens), mask=mask, is_causal=self.causal))


@pytest.mark.parametrize("size", [causality.SMALL, 0], ids=["copied", "not copied"])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("by", [1, 2, 5])
def test_a_network_that_reads_a_later_token_is_refused(by, zero, size, monkeypatch):
    """Built so that output t reads token t + by; also where its first weights hide it, and where it is too
    large to be copied."""
    monkeypatch.setattr(causality, "SMALL", size)
    model = Autoregressive(Looks(by, zero))
    with pytest.raises(
        ModelError,
        match=r"sees the future: its output at position \d+.* changes with the token at position \d+",
    ):
        model.log_prob(batch())


def test_the_position_is_named():
    """Output 4 alone reads token 7."""
    with pytest.raises(
        ModelError,
        match="output at position 4, which is to predict token 5, changes with the token at position 7",
    ):
        Autoregressive(Looks(3, only=4)).log_prob(batch())


@pytest.mark.parametrize("size", [causality.SMALL, 0], ids=["copied", "not copied"])
def test_an_encoder_of_torch_needs_its_mask(size, monkeypatch):
    monkeypatch.setattr(causality, "SMALL", size)
    with pytest.raises(ModelError, match="sees the future"):
        Autoregressive(Mixes(causal=False)).log_prob(batch())
    honest = Mixes(causal=True)
    before = {name: value.clone() for name, value in honest.state_dict().items()}
    honest.body.layers[0].eval()
    modes = [m.training for m in honest.modules()]
    assert Autoregressive(honest).log_prob(batch()).shape == (3, T)
    assert all(torch.equal(value, before[name]) for name, value in honest.state_dict().items()), (
        "its weights are as they were"
    )
    assert [m.training for m in honest.modules()] == modes, "and its modes"


@pytest.mark.parametrize("size", [causality.SMALL, 0], ids=["copied", "not copied"])
@pytest.mark.parametrize(
    "network",
    [
        lambda: Transformer(V, layers=2, width=16, heads=2),
        lambda: Transformer(
            V, layers=2, width=16, heads=4, kv_heads=2, tied=True, activation="relu2", ngrams=(121, 16)
        ),
        lambda: Transformer(V, layers=1, width=16, heads=2, dtype=torch.bfloat16),
        lambda: Transformer(V, layers=1, width=16, heads=2, dtype=torch.float64),
        lambda: add_lora(Transformer(V, layers=1, width=16, heads=2), rank=2),
        lambda: nn.Embedding(V, V),
        lambda: Looks(0),
        lambda: Looks(-1, only=3),
    ],
)
def test_honest_networks_pass_and_are_tried_once(network, size, monkeypatch):
    monkeypatch.setattr(causality, "SMALL", size)
    model = Autoregressive(network())
    model.log_prob(batch())
    assert model._tried
    monkeypatch.setattr("thetahat.language.autoregressive.first_peek", None)
    model.log_prob(batch())


def test_a_model_of_transformers_that_is_not_causal_is_refused():
    """BERT without is_decoder reads both ways; with it, and GPT-2, they do not."""
    sizes = {
        "vocab_size": V,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    with pytest.raises(ModelError, match="BertLMHeadModel sees the future"):
        Pretrained(transformers.BertLMHeadModel(transformers.BertConfig(**sizes)))
    with pytest.raises(ModelError, match="sees the future"):
        Autoregressive(transformers.BertForMaskedLM(transformers.BertConfig(**sizes)))
    decoder = transformers.BertLMHeadModel(transformers.BertConfig(**sizes, is_decoder=True))
    small = transformers.GPT2Config(vocab_size=V, n_embd=16, n_layer=1, n_head=2, n_positions=T)
    for own in (decoder, transformers.GPT2LMHeadModel(small)):
        assert Autoregressive(own).log_prob(batch()).shape == (3, T)


def test_a_target_that_is_the_input_is_refused():
    """Tokens not shifted: each position reads what it predicts."""
    tokens = batch()["input"]
    with pytest.raises(ModelError, match=r"'target' is 'input'.*tokens\[:, :-1\]"):
        Autoregressive(nn.Embedding(V, V)).log_prob(Batch({"input": tokens, "target": tokens}, dims=2))
    alike = torch.full((2, T), 3)
    Autoregressive(nn.Embedding(V, V)).log_prob(Batch({"input": alike, "target": alike}, dims=2))


def test_a_fit_says_so_before_its_first_step():
    """Random tokens, of which nothing can be predicted: a peeking network would reach 0 nats where −log V
    is the best."""
    text = "".join(
        "abcdefghijk"[i]
        for i in torch.randint(V, (600,), generator=torch.Generator().manual_seed(0)).tolist()
    )
    tokens = Tokens([text], "characters", context=T)
    with pytest.raises(ModelError, match="sees the future"):
        th.fit(Autoregressive(Looks(1)), tokens, solver=th.Stochastic(steps=3))


@pytest.mark.parametrize(
    "network",
    [lambda: MaskedMLP(16, 4, 9, levels=4), lambda: PixelTransformer((4, 4), 4, layers=1, width=8, heads=2)],
)
def test_networks_of_pixels_pass_by_the_same_trial(network):
    y = torch.randint(0, 4, (3, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = FullyVisible(th.families.Categorical(4), network())
    model.log_prob(Batch({"y": y}))
    assert model._tried
