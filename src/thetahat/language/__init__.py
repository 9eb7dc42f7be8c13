"""Language models: log p(x) = Σ_t log p(x_t | x_<t), the tokens of a document one after the other.

    tokenizers          text ↔ tokens
    tokens              a stream of windows of tokens, with the mask of what counts
    autoregressive      the model: a causal network, its log p and its draws
    pretrained          networks of Hugging Face;   adapters: low-rank changes of theirs (LoRA, Hu et al. 2021)
    generations         answers that the model itself draws, and their rewards: the data of RLHF
    group_relative      what each answer weighs: GRPO, RLOO, with the KL to a reference (Shao et al. 2024)

Read in this order; the network itself is `networks.Transformer`. Built on the spine alone.
"""

from ..made import record
from .adapters import add_lora, merge
from .autoregressive import Autoregressive
from .generations import Generations
from .group_relative import RLOO, GroupRelative, Penalised, kl_estimate
from .pretrained import Pretrained
from .tokenizers import BPE, Bytes, Characters
from .tokens import Tokens, shards

record(Autoregressive)

__all__ = [
    "BPE",
    "RLOO",
    "Autoregressive",
    "Bytes",
    "Characters",
    "Generations",
    "GroupRelative",
    "Penalised",
    "Pretrained",
    "Tokens",
    "add_lora",
    "kl_estimate",
    "merge",
    "shards",
]
