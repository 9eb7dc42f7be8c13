"""`thetahat align PAIRS --network FOLDER`: DPO of a language model's low-rank adapters on pairs of answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from tyro.conf import Positional, arg

from ..errors import BadArgument, MissingExtra
from .system import Sizes, System


@dataclass(frozen=True, kw_only=True)
class Align(System):
    name: ClassVar[str] = "align"
    draws_nothing: ClassVar[str] = "whose adapters th.load reads in Python; the command draws no text from it"
    pairs: Positional[Annotated[Path, arg(metavar="PAIRS")]]
    """Lines of JSON with chosen and rejected answers[, and their prompt]: .jsonl, .jsonl.gz."""
    network: Annotated[Path, arg(metavar="FOLDER")]
    """A causal language model of transformers, with its tokenizer."""
    context: int = 512
    """Tokens of prompt and answer; longer prompts lose their beginning."""
    beta: float = 0.1
    """Of the reward β log π/π_ref that the policy implies."""
    noise: float = 0.0
    """Share of the pairs that was judged the wrong way round."""
    rank: int = 8
    """Of the adapters on queries and values: nothing else is moved."""
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 2e-4

    def read(self) -> tuple[Sizes, Any]:
        return {}, self.other(self.pairs, {})

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..data import Pairs, TokenPairs

        return TokenPairs(Pairs(path, identical="drop"), tokenizer_of(self.network), self.context, overlong="cut")

    def model(self, sizes: Sizes) -> Any:
        from ..models import DPO, Autoregressive
        from ..networks import adapt

        network = adapt(language_model(self.network), self.rank, seed=self.seed)
        return DPO(Autoregressive(network), beta=self.beta, noise=self.noise)

    def objective(self, model: Any, source: Any, sizes: Sizes) -> Any:
        return super().objective(model, model.referenced(source), sizes)  # log π_ref once, and not at every step


def language_model(folder: Path) -> Any:
    """A causal language model of transformers from its folder.

    Raises
    ------
    MissingExtra : transformers is not installed;  BadArgument : no such folder, or no model in it
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    return _read(AutoModelForCausalLM, folder, "language model").eval()


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer that lies beside it."""
    from ..data import BPE

    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra.named("transformers", "llm") from error
    own = _read(AutoTokenizer, folder, "tokenizer")
    return BPE(own, end=own.eos_token)


def _read(kind: Any, folder: Path, what: str) -> Any:
    if not folder.is_dir():
        raise BadArgument(f"{folder} is no folder of a language model.")
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadArgument(f"{folder} holds no {what} that transformers reads: {error}") from error
