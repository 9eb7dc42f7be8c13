"""A tiny Llama and its tokenizer, as transformers keeps them, for tests of what reads or writes such folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from thetahat.language import BPE

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def tokenizer(words: str = "a", vocabulary: int = 257, **settings: Any) -> Any:
    """Of bytes, and of the pairs of the words that are most frequent; its last token is <end>."""
    transformers = pytest.importorskip("transformers")
    own = BPE.train([words], vocabulary=vocabulary)._own
    return transformers.PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<end>", **settings)


def llama(vocabulary: int = 257, **settings: Any) -> Any:
    """Of random weights, the same each time."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(vocab_size=vocabulary, **SIZES | settings)
    return transformers.LlamaForCausalLM(config).eval()


def saved(folder: Path, words: str = "a", vocabulary: int = 257, template: str | None = None) -> Path:
    """The folder, with both in it."""
    own = tokenizer(words, vocabulary)
    own.chat_template = template
    own.save_pretrained(folder)
    llama(vocabulary).save_pretrained(folder)
    return folder
