"""Language models: log p(x) = Σ_t log p(x_t | x_<t), the tokens of a document one after the other.

    tokenizers          text ↔ tokens;   fast_tokenizers: any of Hugging Face's, which may change the text
    tokens              a stream of windows of tokens, with the mask of what counts
    chats               conversations, of which the answers alone count
    autoregressive      the model: a causal network, its log p and its draws
    pretrained          networks of Hugging Face;   adapters: low-rank changes of theirs (LoRA, Hu et al. 2021)
    huggingface         folders that transformers and peft load
    sampling            what is drawn from in the place of p: temperature, top k, top p, with a log-likelihood of its own
    samplers            answers to prompts of unequal lengths, drawn together;   server: by a server of vLLM
    truncated           how far a server's probabilities are from the model's own, and weights that correct for it
    generations         answers that the model itself draws, and their rewards: the data of RLHF
    group_relative      what each answer weighs: GRPO, RLOO, with the KL to a reference (Shao et al. 2024)

Read in this order; the network itself is `networks.Transformer`. Built on the spine alone.
"""

from ..made import record
from .adapters import add_lora, merge
from .autoregressive import Autoregressive
from .chats import Chats
from .fast_tokenizers import FastTokenizer, tokenizer_of
from .generations import Generations
from .group_relative import RLOO, GroupRelative, Penalised, kl_estimate
from .huggingface import add_adapters, save_adapters, save_pretrained
from .pretrained import Pretrained
from .samplers import ContinuousBatching, Drawn
from .sampling import Sampling
from .server import Server
from .tokenizers import BPE, Bytes, Characters
from .tokens import Tokens, shards
from .truncated import Gap, TruncatedImportance

record(
    Autoregressive, ContinuousBatching, Sampling, TruncatedImportance
)  # not Server: its key is nobody else's

__all__ = [
    "BPE",
    "RLOO",
    "Autoregressive",
    "Bytes",
    "Characters",
    "Chats",
    "ContinuousBatching",
    "Drawn",
    "Gap",
    "FastTokenizer",
    "Generations",
    "GroupRelative",
    "Penalised",
    "Pretrained",
    "Sampling",
    "Server",
    "Tokens",
    "TruncatedImportance",
    "add_adapters",
    "add_lora",
    "kl_estimate",
    "merge",
    "save_adapters",
    "save_pretrained",
    "shards",
    "tokenizer_of",
]
