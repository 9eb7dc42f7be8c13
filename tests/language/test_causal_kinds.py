"""Every usual kind of causal language model of transformers: log p, packed rows and draws are those of its own logits."""

from __future__ import annotations

import warnings

import pytest
import torch

from thetahat.data.batch import Batch
from thetahat.errors import BadArgument
from thetahat.language import Autoregressive, Tokens

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # kernels that are not there

V, WINDOW = 40, 4
IDS = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = IDS | {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
MULTI = SIZES | {"num_key_value_heads": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
KINDS = {
    "GPT2": IDS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "GPTNeo": IDS | {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
                     "window_size": WINDOW, "max_position_embeddings": 64},
    "GPTJ": IDS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "rotary_dim": 4, "n_positions": 64},
    "GPTNeoX": MULTI,
    "GPTBigCode": IDS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "OPT": IDS | {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "max_position_embeddings": 64, "word_embed_proj_dim": 16},
    "Bloom": IDS | {"hidden_size": 16, "n_layer": 2, "n_head": 2},
    "Mpt": IDS | {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64},
    "Falcon": IDS | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    "FalconAlibi": IDS | {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": True},
    "Llama": SIZES,
    "Mistral": SIZES | {"sliding_window": WINDOW},
    "Mixtral": SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2": SIZES | {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "Qwen2Moe": SIZES | EXPERTS | {"shared_expert_intermediate_size": 16},
    "Qwen3": SIZES | {"head_dim": 4},
    "Qwen3Moe": SIZES | EXPERTS | {"head_dim": 4},
    "Gemma": SIZES | {"head_dim": 4},
    "Gemma2": SIZES | {"head_dim": 4, "sliding_window": WINDOW},
    "Gemma3Text": SIZES | {"head_dim": 4, "sliding_window": WINDOW},
    "Phi": MULTI,
    "Phi3": SIZES | {"sliding_window": WINDOW},
    "Starcoder2": SIZES | {"sliding_window": WINDOW},
    "StableLm": SIZES,
    "Olmo": SIZES,
    "Olmo2": SIZES,
    "Olmo3": SIZES | {"sliding_window": WINDOW},
    "SmolLM3": SIZES,
    "Granite": SIZES | {"logits_scaling": 3.0, "residual_multiplier": 0.5},
    "Cohere": SIZES | {"logit_scale": 0.3},
    "Cohere2": SIZES | {"sliding_window": WINDOW, "head_dim": 4},
    "Glm": SIZES | {"head_dim": 4},
    "GptOss": SIZES | {"head_dim": 4, "sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    "DeepseekV3": MULTI | {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4,
                           "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
                           "moe_intermediate_size": 16, "first_k_dense_replace": 1},
    "Mamba": IDS | {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "Mamba2": IDS | {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 8, "expand": 2,
                     "n_groups": 1},
    "RecurrentGemma": SIZES | {"lru_width": 16, "attention_window_size": WINDOW, "num_key_value_heads": 1},
}  # fmt: skip
# positions of their own (alibi, a state, OPT's mask, GptOss's sinks): transformers keeps no documents of one row apart
NOT_APART = {"OPT", "Bloom", "Mpt", "Falcon", "FalconAlibi", "GptOss", "Mamba", "Mamba2", "RecurrentGemma"}
# transformers computes their attention, angles or states in float32, whatever the weights are in
FLOAT32 = {"GPTNeo", "GPTJ", "Bloom", "Mpt", "Gemma2", "Mamba", "Mamba2", "RecurrentGemma"}


def built(kind: str) -> torch.nn.Module:
    config = getattr(transformers, f"{kind.removesuffix('Alibi')}Config")(**KINDS[kind])
    torch.manual_seed(0)
    own = transformers.AutoModelForCausalLM.from_config(
        config, experts_implementation="eager"
    )  # the other has no float64
    with torch.no_grad():
        for p in own.parameters():  # far from the first weights, where attention says next to nothing
            p.add_(0.2 * torch.randn_like(p))
    return own.double().eval()


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = built(request.param)
        return request.param, own, Autoregressive(own)


def documents() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, V, (n,), generator=generator) for n in (11, 2, 9)]


def by_hand(own: torch.nn.Module, document: torch.Tensor) -> list[float]:
    """log p of each token but the first: one forward for each, of the tokens before it, and a loop over its logits."""
    out = []
    for t in range(1, len(document)):
        with torch.no_grad():
            logits = own(input_ids=document[None, :t], use_cache=False).logits[0, -1].double()
        out.append(float(logits[document[t]] - torch.logsumexp(logits, 0)))
    return out


def test_log_p_is_that_of_the_models_own_logits_one_prefix_at_a_time(kind):
    """So it is causal, too: the truth has seen no later token."""
    name, own, model = kind
    for document in documents():
        x = document[None]
        with torch.no_grad():
            found = model.log_prob(Batch({"input": x[:, :-1], "target": x[:, 1:]}, dims=2))[0]
            whole = own(input_ids=x[:, :-1], use_cache=False).logits[0].double().log_softmax(-1)
        assert found.tolist() == pytest.approx(by_hand(own, document), abs=1e-6 if name in FLOAT32 else 1e-9)
        rounded = 1e-6 if name.startswith("Mamba") else 1e-9  # its own logits are float32
        assert found.tolist() == pytest.approx(whole.gather(1, x[0, 1:, None])[:, 0].tolist(), abs=rounded)


def test_packed_documents_have_the_log_p_of_documents_alone_or_are_refused(kind):
    name, own, model = kind
    packed = Tokens([d.numpy() for d in documents()], None, context=22, layout="packed")
    (batch,) = packed.batches()
    if name in NOT_APART:
        with pytest.raises(BadArgument, match=r"keep .*apart"):
            model.log_prob(batch)
        return
    with torch.no_grad():
        found = model.log_prob(batch)[batch.count > 0]
    right = [v for d in documents() for v in by_hand(own, d)]
    assert found.tolist() == pytest.approx(right, abs=1e-6 if name in FLOAT32 else 1e-9)


def test_cached_draws_are_those_without_a_cache(kind):
    name, _, model = kind
    assert model.network.extends == (name not in {"Mamba", "Mamba2", "RecurrentGemma"})
    prompt = torch.stack([documents()[0][:6], documents()[2][:6]])
    drawn = [
        model.sample(prompt, 8, cached=cached, generator=torch.Generator().manual_seed(3))
        for cached in (True, False)
    ]
    assert drawn[0].tolist() == drawn[1].tolist()
