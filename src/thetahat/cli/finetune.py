"""`thetahat finetune MODEL DATA`: a language model of transformers, or of a run, made to make DATA probable.

{"messages": [{"role": …, "content": …}, …]}     conversations, of which the assistant's tokens are scored
{"prompt": …, "completion": …}                   the completions are scored
{"text": …}, or files of text                    every token is scored
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from ..errors import BadArgument, DataError, EmptyData
from ..types import ModelLike, Plain
from .pretrained import network_in, raw_tokenizer, tokenizer_in
from .system import Sizes, Trained


@dataclass(frozen=True, kw_only=True)
class Finetune(Trained):
    name: ClassVar[str] = "finetune"
    network: Positional[Annotated[Path, arg(metavar="MODEL")]]
    """A folder with a causal language model of transformers and its tokenizer, or the run of a thetahat fit gpt."""
    corpus: Positional[Annotated[Path, arg(metavar="DATA")]]
    """Lines of JSON (.jsonl, .jsonl.gz) or .parquet with messages, with prompt and completion, or with text; or text files."""
    method: Literal["lora", "full"] = "lora"
    """lora: low-rank adapters alone are trained; full: every parameter."""
    lora_rank: int = 16
    """Rank of the adapters."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear maps that have adapters; all-linear: every one but the output."""
    context: int = 512
    """Tokens of a row; what is longer is cut."""
    packing: Annotated[bool, arg(help_behavior_hint="")] = False
    """Several conversations a row, which do not see each other, so that little is padded."""
    epochs: Annotated[float | None, arg(metavar="EPOCHS", help_behavior_hint="")] = None
    """Passes over the data, in the place of --steps."""
    steps: int = 200
    batch_size: int = 8
    """Rows of a gradient step."""
    learning_rate: float = 2e-4

    def read(self) -> tuple[Sizes, Any]:
        source = self.other(self.corpus, {})
        return {"rows": _rows(source)}, source

    def other(self, path: Path, sizes: Sizes) -> Any:
        from ..language.chats import Chats, rows_of
        from ..language.tokens import Tokens

        kinds = (".jsonl", ".gz", ".parquet")
        if path.is_file() and path.suffix in kinds:
            first = next(islice(rows_of(path), 1), None)
            if first is None:
                raise EmptyData(f"{path} has no rows.")
            row = first[0]
            if not (isinstance(row, dict) and "text" in row and "messages" not in row):
                return Chats(
                    path,
                    raw_tokenizer(self.network) or tokenizer_in(self.network),
                    context=self.context,
                    layout="packed" if self.packing else "padded",
                    overlong="cut",
                )
        return Tokens(texts_of(path), tokenizer_in(self.network), context=self.context)

    def model(self, sizes: Sizes) -> ModelLike:
        from ..language.adapters import add_lora
        from ..language.autoregressive import Autoregressive

        network: Plain = network_in(self.network)
        if self.method == "lora":
            targets = "all-linear" if self.lora_targets == ("all-linear",) else self.lora_targets
            add_lora(network, self.lora_rank, targets=targets, seed=self.seed)
        out = Autoregressive(network)
        out.keeps = "free" if self.method == "lora" else "all"
        return out

    def language(self, model: ModelLike, sizes: Sizes) -> tuple[Any, Any, int | None]:
        return model, tokenizer_in(self.network), self.context

    def trainer(self, sizes: Sizes) -> Any:
        if self.epochs is None:
            return super().trainer(sizes)
        if not self.epochs > 0:
            raise BadArgument(f"--epochs {self.epochs}. Accepted: a positive number.")
        rows = sizes["rows"] * (1 - self.held_out)
        steps = max(1, round(self.epochs * rows / self.batch_size))
        whole = dataclasses.replace(self, steps=steps, epochs=None)
        return whole.trainer(sizes)


def texts_of(path: Path) -> Any:
    """What `Tokens` reads: the texts of lines of JSON or of a table, or the path of text files."""
    from ..language.chats import rows_of

    if not path.is_file() or path.suffix not in (".jsonl", ".gz", ".parquet"):
        return path
    texts = []
    for row, where in rows_of(path):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"]:
            raise DataError(f"{where} has no text. Accepted: rows with a text that is not empty.")
        texts.append(row["text"])
    return texts


def _rows(source: Any) -> int:
    from ..language.chats import Chats

    return len(source.whole) if isinstance(source, Chats) else len(source.rows)
