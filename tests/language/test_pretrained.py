"""Models of transformers as networks: documents in one row, positions, logits. The truth is each document
in a row of its own."""

from __future__ import annotations

import pytest
import torch

from thetahat.errors import BadArgument, ModelError
from thetahat.language import Autoregressive, Pretrained, Tokens
from thetahat.networks import Transformer

transformers = pytest.importorskip("transformers")

V, WINDOW = 40, 4
SIZES = {
    "vocab_size": V, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"vocab_size": V, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
WINDOWED = {
    "Mistral": {"sliding_window": WINDOW},
    "Gemma2": {"sliding_window": WINDOW, "head_dim": 4},
    "Gemma3Text": {"sliding_window": WINDOW, "head_dim": 4, "sliding_window_pattern": 2},
    "Qwen2": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "Phi3": {"sliding_window": WINDOW},
    "Starcoder2": {"sliding_window": WINDOW},
    "Cohere2": {"sliding_window": WINDOW, "head_dim": 4},
    "Olmo3": {"sliding_window": WINDOW},
    "Exaone4": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "Llama4Text": {
        "attention_chunk_size": WINDOW,
        "head_dim": 4,
        "num_local_experts": 2,
        "intermediate_size_mlp": 32,
    },
}
FULL = {"Llama": {}, "Granite": {}, "SmolLM3": {}, "Helium": {"head_dim": 4}, "GPT2": None}


def built(kind: str, settings: dict | None, seed: int = 0) -> torch.nn.Module:
    config = getattr(transformers, f"{kind}Config")(**(GPT2 if settings is None else SIZES | settings))
    torch.manual_seed(seed)
    own = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in own.parameters():  # far from the first weights, where attention says next to nothing
            p.add_(0.2 * torch.randn_like(p))
    return own.double().eval()


@pytest.mark.parametrize("kind", [*WINDOWED, *FULL])
def test_documents_packed_in_one_row_have_the_log_p_of_rows_of_their_own(kind):
    """Each document alone through the model's own forward, log softmax of its logits: sliding windows and
    chunks included."""
    own = built(kind, (WINDOWED | FULL)[kind])
    generator = torch.Generator().manual_seed(1)
    documents = [torch.randint(3, V, (n,), generator=generator) for n in (11, 2, 9, 7)]
    packed = Tokens(documents, None, context=28, layout="packed")
    model = Autoregressive(own)
    (batch,) = packed.batches()
    assert "document" in batch
    with torch.no_grad():
        found = model.log_prob(batch)[batch.count > 0]
        logits = [own(input_ids=d[None]).logits[0, :-1].log_softmax(-1) for d in documents]
    right = torch.cat([p.gather(-1, d[1:, None])[:, 0] for p, d in zip(logits, documents, strict=True)])
    torch.testing.assert_close(found, right, rtol=0, atol=2e-5)  # some compute angles and norms in float32


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Mamba", {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
        ("Bloom", {"vocab_size": V, "hidden_size": 16, "n_layer": 2, "n_head": 2}),
        ("RecurrentGemma", SIZES | {"lru_width": 16, "attention_window_size": 4, "num_key_value_heads": 1}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_keep_documents_apart_is_refused_packed_rows(kind, settings):
    torch.manual_seed(0)
    own = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, f"{kind}Config")(**settings)
    ).eval()
    net = Pretrained(own)
    assert not net.masks
    with pytest.raises(BadArgument, match="apart"):
        net(torch.ones(1, 4, dtype=torch.long), torch.tensor([[0, 0, 1, 1]]))


def test_logits_that_are_bounded_are_not_taken_for_a_matrix_times_the_features():
    """Gemma 2: logits are c·tanh(Wh/c); at first weights the bound c = 30 changes less than rounding."""
    own = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SIZES | {"head_dim": 4})).eval()
    assert not Pretrained(own).linear


# ---- positions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GPT2", "OPT", "GPTJ"])
def test_more_tokens_than_a_model_has_positions_are_refused_with_both_numbers(kind):
    settings = {
        "GPT2": GPT2,
        "OPT": {"vocab_size": V, "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                "max_position_embeddings": 32, "word_embed_proj_dim": 16},
        "GPTJ": {"vocab_size": V, "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "n_positions": 32},
    }[kind]  # fmt: skip
    model = Autoregressive(
        transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, f"{kind}Config")(**settings)
        ).eval()
    )
    tokens = torch.ones(1, 33, dtype=torch.long)
    with pytest.raises(BadArgument, match=r"33 tokens .* 32"):
        model.network(tokens)
    with pytest.raises(BadArgument, match=r"33 tokens .* 32"):
        model.sample(tokens[:, :30], 4)
    assert model.sample(tokens[:, :30], 2).shape == (1, 2)
    assert model.network(tokens[:, :32]).shape == (1, 32, V)


def test_packed_rows_may_be_longer_than_the_positions_where_no_document_is():
    net = Pretrained(built("GPT2", None))
    documents = torch.tensor([[0] * 30 + [1] * 30])
    assert net(torch.ones(1, 60, dtype=torch.long), documents).shape == (1, 60, V)
    with pytest.raises(BadArgument, match="60 tokens"):
        net(torch.ones(1, 60, dtype=torch.long), torch.zeros(1, 60, dtype=torch.long))


def test_rotary_frequencies_that_follow_the_longest_row_are_refused_beyond_their_first_positions():
    """transformers' "dynamic": the frequencies of every row change once one row of the batch is longer
    than the first limit."""
    rope = {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 16,
    }
    own = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, rope_parameters=rope)).eval()
    net = Pretrained(own)
    with pytest.raises(BadArgument, match=r"17 tokens .* longest row"):
        net(torch.ones(1, 17, dtype=torch.long))


# ---- loading as a Transformer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["Granite", "Helium", "SmolLM3", "Gemma2", "Qwen2", "GPT2", "Phi3", "Olmo3", "Cohere2"]
)
def test_only_models_of_llamas_kind_are_loaded_as_a_transformer(kind):
    """Granite scales its embeddings, residuals and logits, Helium pairs its angles otherwise, SmolLM3 leaves
    rotations out."""
    with pytest.raises(ModelError, match=r"Accepted: .*llama"):
        Transformer.from_llama(built(kind, (WINDOWED | FULL)[kind]))


def test_a_llama_that_computes_another_function_is_refused_by_its_logits():
    class Other(transformers.LlamaForCausalLM):
        def forward(self, *given, **named):
            out = super().forward(*given, **named)
            out.logits = out.logits * 1.01
            return out

    own = Other(transformers.LlamaConfig(**SIZES))
    torch.nn.init.normal_(own.lm_head.weight)
    with pytest.raises(ModelError, match="logits"):
        Transformer.from_llama(own)


def test_a_mistral_without_a_window_is_a_transformer():
    own = built("Mistral", {"sliding_window": None})
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            Transformer.from_llama(own)(tokens), own(input_ids=tokens).logits, rtol=0, atol=1e-5
        )
    with pytest.raises(ModelError, match="sliding_window"):
        Transformer.from_llama(built("Mistral", {"sliding_window": 4}))


def test_loading_leaves_the_model_as_it_was():
    own = built("Llama", {}).train()
    own.model.layers[0].eval()
    modes = [m.training for m in own.modules()]
    Transformer.from_llama(own)
    Pretrained(own)
    assert [m.training for m in own.modules()] == modes
