"""What is written is loaded by transformers and by peft, and answers the same there."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.llama import llama as tiny

import thetahat as th
from thetahat.errors import BadArgument, BadSave
from thetahat.language import Autoregressive, add_adapters, add_lora, save_adapters, save_pretrained

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of peft
IDS = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(0))


def llama(tied: bool = False):
    return tiny(40, num_hidden_layers=2, num_key_value_heads=1, tie_word_embeddings=tied)


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()


def phi3():
    """Queries, keys and values in one matrix."""
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return transformers.Phi3ForCausalLM(config).eval()


CASES = {
    "llama": (llama, ("q_proj", "v_proj")),
    "llama, all": (llama, "all-linear"),
    "llama, tied": (lambda: llama(True), "all-linear"),
    "one layer by its whole name": (llama, ["model.layers.1.self_attn.o_proj"]),
    "gpt2, Conv1D": (gpt2, ["c_attn"]),
    "gpt2, all": (gpt2, "all-linear"),
    "phi3, fused": (phi3, ["qkv_proj"]),
}


def moved(network):
    """Every adapter changes something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for m in th.language.adapters.adapted_by(network):
            m.B.add_(torch.randn(m.B.shape, generator=generator) * 0.3)
    return network


def logits(network) -> torch.Tensor:
    with torch.no_grad():
        return network(input_ids=IDS).logits


@pytest.mark.parametrize("case", CASES)
def test_adapters_are_loaded_by_peft_and_answer_the_same(case, tmp_path):
    peft = pytest.importorskip("peft")
    make, targets = CASES[case]
    base = make()
    own = moved(add_lora(copy.deepcopy(base), rank=3, alpha=5.0, targets=targets))
    assert not torch.allclose(logits(own), logits(base))
    save_adapters(own, tmp_path / "adapters")
    found = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapters").eval()
    torch.testing.assert_close(logits(found), logits(own), rtol=1e-5, atol=1e-6)
    again = add_adapters(copy.deepcopy(base), tmp_path / "adapters")
    torch.testing.assert_close(logits(again), logits(own), rtol=0, atol=0)


def test_adapters_that_peft_made_are_loaded_here(tmp_path):
    peft = pytest.importorskip("peft")
    base = llama()
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "up_proj"],
        task_type="CAUSAL_LM",
        init_lora_weights=False,
    )
    other = peft.get_peft_model(copy.deepcopy(base), config).eval()
    other.save_pretrained(tmp_path / "a")
    own = add_adapters(base, tmp_path / "a")
    torch.testing.assert_close(logits(own), logits(other), rtol=1e-5, atol=1e-6)
    assert sum(p.requires_grad for p in own.parameters()) == 8


@pytest.mark.parametrize("case", CASES)
def test_a_merged_model_is_loaded_by_transformers_and_answers_the_same(case, tmp_path):
    make, targets = CASES[case]
    own = moved(add_lora(make(), rank=3, targets=targets))
    wanted = logits(own)
    save_pretrained(Autoregressive(own), tmp_path / "merged")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(found), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits(own), wanted, rtol=0, atol=0)  # the model itself keeps its adapters
    assert th.language.adapters.adapted_by(own)


def test_what_cannot_be_written_or_read_is_refused(tmp_path):
    with pytest.raises(BadArgument, match="no adapters"):
        save_adapters(llama(), tmp_path / "a")
    with pytest.raises(BadArgument, match="not a network of transformers"):
        save_pretrained(
            Autoregressive(th.networks.Transformer(10, layers=1, width=8, heads=1)), tmp_path / "a"
        )
    assert not (tmp_path / "a").exists()
    own = add_lora(llama(), rank=2)
    save_adapters(own, tmp_path / "a")
    with pytest.raises(BadArgument, match="exists"):
        save_adapters(own, tmp_path / "a")
    with pytest.raises(BadSave, match="of another network"):
        add_adapters(gpt2(), tmp_path / "a")
    with pytest.raises(BadSave, match="no adapters"):
        add_adapters(llama(), tmp_path / "b")
    with pytest.raises(BadArgument, match="tied"):
        add_lora(llama(True), targets=["lm_head"])
    both = add_lora(llama(), rank=2)
    th.language.adapters.adapted_by(both)[0].scale = 9.0
    with pytest.raises(BadArgument, match="differ in rank, scale"):
        save_adapters(both, tmp_path / "c")
