"""Chats: conversations, or prompts with their completions, as a source in which the answers alone are scored.

    Σ_t m_t log p(x_t | x_<t, θ),      m_t = 1 where x_t is a token of the assistant

A conversation is written as tokens by the template of its tokenizer (`apply_chat_template`), so that the model reads in training
what it reads when it answers. Which tokens are the assistant's the template says itself, where it marks them
({% generation %}); else they are what a message adds to the conversation before it, and a template that rewrites what came
before is refused.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Tensors, digest
from ..errors import BadArgument, DataError, EmptyData, MalformedFile
from ..files import usable
from ..types import Data, Plain, Settings
from .fast_tokenizers import MeasuresText, RoundTrip, spelled, tokenizer_of
from .tokenizers import Tokenizer

LAYOUTS = ("padded", "packed")
OVERLONG = ("raise", "drop", "cut")


@dataclass(frozen=True)
class Conversation:
    """Tokens, which of them are the assistant's, and the bytes of text of each, where its tokenizer alone does not
    know."""

    ids: np.ndarray
    mask: np.ndarray
    where: str
    measured: np.ndarray | None = None

    def cut(self, most: int) -> Conversation:
        """Its first tokens."""
        measured = None if self.measured is None else self.measured[:most]
        return Conversation(self.ids[:most], self.mask[:most], self.where, measured)


@runtime_checkable
class Templated(Protocol):
    """A tokenizer of transformers, which writes conversations."""

    chat_template: str | None

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any: ...


@runtime_checkable
class DataFrame(Protocol):
    """A data frame of pandas."""

    columns: Any

    def to_dict(self, orient: Any) -> Any: ...


class Chats(Tensors):
    """Conversations as a source of terms (B, T).

    Batches hold "input" and "target" (B, T), and "document" where a row holds several conversations; the count is 1 at the
    assistant's tokens. Units of the standard error are conversations.

    Parameters
    ----------
    data
        a path (.jsonl, .jsonl.gz, .parquet), a list, a Dataset of the package `datasets`, or a table, whose rows are
        {"messages": [{"role": …, "content": …}, …]}, {"prompt": …, "completion": …} (texts, or lists of
        messages), or conversations themselves
    tokenizer
        a tokenizer of transformers with a chat template; of prompts and completions that are texts any
        tokenizer will do
    context
        T, tokens of a row
    layout
        "padded": a row a conversation; "packed": several in a row, as many as fit, which do not see each other
    overlong
        what is done with a conversation of more than `context` + 1 tokens: "raise", "drop", or "cut" its end off
    roles
        whose tokens are scored
    special
        whether the content of a message may spell a special token (`<|im_end|>`) and then is one: the template writes
        contents and control tokens into one text. False: such a message is refused

    Raises
    ------
    EmptyData, DataError, MalformedFile
        nothing to score; a row that is none of the above, by its number; a message that spells a special token; a
        file that cannot be read

    Examples
    --------
    >>> from .tokenizers import Bytes
    >>> chats = Chats([{"prompt": "1+1=", "completion": "2"}, {"prompt": "2+3=", "completion": "5"}], Bytes(), context=16)
    >>> batch = next(chats.batches())
    >>> chats.tokenizer.decode(batch["target"][0].tolist()), batch.count[0].tolist()
    ('+1=2', [0.0, 0.0, 0.0, 1.0, 1.0])
    """

    padded = True

    def __init__(
        self,
        data: Data,
        tokenizer: Plain,
        *,
        context: int = 1024,
        layout: str = "padded",
        overlong: str = "raise",
        roles: Sequence[str] = ("assistant",),
        special: bool = False,
        block: int = 16,
    ):
        for name, value, accepted in (("layout", layout, LAYOUTS), ("overlong", overlong, OVERLONG)):
            if value not in accepted:
                raise BadArgument(f"{name}={value!r}. Accepted: {', '.join(map(repr, accepted))}.")
        if context < 2:
            raise BadArgument(f"context={context}. Accepted: 2 or more.")
        self._template = tokenizer if isinstance(tokenizer, Templated) else None
        self.tokenizer: Tokenizer = (
            tokenizer
            if isinstance(tokenizer, Tokenizer)
            else tokenizer_of(tokenizer, end=tokenizer.eos_token, special=True)
        )
        added = {} if self._template is None or special else tokenizer.added_tokens_decoder
        self._spelled = spelled(t.content for t in added.values() if t.special)
        self._trip = RoundTrip()
        self.context, self.layout, self.roles = context, layout, tuple(roles)
        self.dropped: list[str] = []
        found = [
            c
            for row, where in rows_of(data)
            if (c := self._fitted(self._written(row, where), overlong)) is not None
        ]
        if not found:
            raise EmptyData(
                f"no conversation has a token of {' or '.join(self.roles)} within context={context} tokens "
                f"({len(self.dropped)} dropped)."
            )
        self.conversations = len(found)
        super().__init__(
            _laid_out(found, context, layout == "packed"), target="target", block=block, copy=False
        )

    @property
    def units(self) -> str:
        return "token"

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.vocabulary

    @property
    def observations(self) -> float:
        return self.whole.total

    @property
    def fingerprint(self) -> str:
        """Of the tokens that are scored and of those before them, however they are laid out."""
        if self._fingerprint is None:
            scored = self.whole.count > 0
            self._fingerprint = digest(self.whole["target"][scored], self.whole["input"][scored])
        return self._fingerprint

    @property
    def note(self) -> str:
        """What a score says of the text: empty where the tokens lead back to it."""
        return self._trip.note

    def bytes(self, batch: Batch) -> Tensor | None:
        """How many bytes of text each term stands for, (B, T); None where that is not known: a template writes the
        text of a conversation, and the tokenizer changes it."""
        if "bytes" in batch:
            own: Tensor = batch["bytes"].cpu().to(torch.float64)
            return own
        lengths = self.tokenizer.lengths
        return None if lengths is None else torch.from_numpy(lengths)[batch["target"].cpu()].to(torch.float64)

    # ---- a row as tokens -----------------------------------------------------------------------------------

    def _written(self, row: Plain, where: str) -> Conversation:
        if isinstance(row, Mapping) and "messages" in row:
            row = row["messages"]
        if isinstance(row, Mapping) and {"prompt", "completion"} <= row.keys():
            prompt, completion = row["prompt"], row["completion"]
            if isinstance(prompt, str) and isinstance(completion, str):
                return self._continued(prompt, completion, where)
            return self._conversation([*_messages(prompt, where), *_messages(completion, where)], where)
        return self._conversation(_messages(row, where), where)

    def _continued(self, prompt: str, completion: str, where: str) -> Conversation:
        """A prompt and what follows it, closed by the tokenizer's end."""
        end = [] if self.tokenizer.end is None else [self.tokenizer.end]
        before, after = (self.tokenizer.encode(text).tolist() for text in (prompt, completion))
        before = before or end
        measured = None
        if isinstance(self.tokenizer, MeasuresText):
            self._trip.add(self.tokenizer, completion, where)
            own = self.tokenizer.measured(completion)[1].tolist()
            measured = np.array([0] * len(before) + own + [0] * len(end))
        if not before or not (after + end):
            raise DataError(f"{where}: the prompt or the completion has no token.")
        mask = [0] * len(before) + [1] * len(after + end)
        return Conversation(np.array(before + after + end), np.array(mask), where, measured)

    def _conversation(self, messages: list[Settings], where: str) -> Conversation:
        self._checked(messages, where)
        template: Plain = self._template
        if template is None or not template.chat_template:
            raise BadArgument(
                "conversations are written by the chat template of their tokenizer, and this tokenizer has none. Give a tokenizer "
                "of transformers with a chat_template, or rows with a prompt and a completion that are texts."
            )
        if "{% generation" in template.chat_template or "{%- generation" in template.chat_template:
            found = template.apply_chat_template(
                messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
            return Conversation(np.array(found["input_ids"]), np.array(found["assistant_masks"]), where)

        def ids(part: list[Settings], asked: bool) -> list[int]:
            out = template.apply_chat_template(
                part, tokenize=True, return_dict=True, add_generation_prompt=asked
            )
            return [int(i) for i in out["input_ids"]]

        whole = ids(messages, False)
        mask = np.zeros(len(whole), dtype=np.int64)
        for i, message in enumerate(messages):
            if message["role"] in self.roles:
                asked = message["role"] == "assistant"
                before, after = ids(messages[:i], asked) if i else [], ids(messages[: i + 1], False)
                if whole[: len(after)] != after or after[: len(before)] != before:
                    raise DataError(
                        f"{where}: the chat template rewrites what came before message {i}, so that its tokens cannot be told "
                        "apart. Mark the assistant's text in the template: {% generation %} … {% endgeneration %}."
                    )
                mask[len(before) : len(after)] = 1
        return Conversation(np.array(whole), mask, where)

    def _checked(self, messages: list[Settings], where: str) -> None:
        """Contents that spell no control token; how those that are scored come back."""
        for i, message in enumerate(messages):
            for text in _texts(message["content"]):
                found = self._spelled.search(text)
                if found is not None:
                    raise DataError(
                        f"{where}: message {i} ({message['role']}) spells the special token {found.group()!r} (at "
                        f"{found.start()}), which the template would make a control token. Take it out of the text, or "
                        "say that it is meant: Chats(…, special=True)."
                    )
                if message["role"] in self.roles:
                    self._trip.add(self.tokenizer, text, where)

    def _fitted(self, found: Conversation, overlong: str) -> Conversation | None:
        """The conversation within the context; None: dropped."""
        if len(found.ids) > self.context + 1:
            if overlong == "raise":
                raise DataError(
                    f"{found.where} has {len(found.ids)} tokens, and context={self.context} leaves room for {self.context + 1}. "
                    "Give a longer context, overlong='drop', or overlong='cut'."
                )
            if overlong == "cut":
                found = found.cut(self.context + 1)
        if len(found.ids) > self.context + 1 or not found.mask[1:].any():
            self.dropped.append(found.where)
            return None
        return found


def _messages(value: Plain, where: str) -> list[Settings]:
    given = value.tolist() if isinstance(value, np.ndarray) else value
    good = isinstance(given, (list, tuple)) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and "content" in m for m in given
    )
    if not good or not given:
        raise DataError(
            f"{where} is {str(value)[:60]!r}. Accepted: a list of messages with role and content, a row with messages, or one "
            "with a prompt and a completion."
        )
    return [dict(m) for m in given]


def _texts(content: Plain) -> Iterator[str]:
    """The texts of a message's content: itself, or those of its parts."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, (list, tuple)):
        for part in content:
            yield from _texts(part.get("text") if isinstance(part, Mapping) else part)


def _laid_out(found: list[Conversation], context: int, packed: bool) -> Batch:
    """(n, T): a row a conversation, or several side by side."""
    rows: list[list[int]] = []
    used = 0
    for i, each in enumerate(found):
        n = len(each.ids) - 1
        if packed and rows and used + n <= context:
            rows[-1].append(i)
            used += n
        else:
            rows.append([i])
            used = n
    T = max(sum(len(found[i].ids) - 1 for i in row) for row in rows)
    tokens = np.zeros((2, len(rows), T), dtype=np.int64)
    count, owner = np.zeros((len(rows), T), dtype=np.float32), np.full((len(rows), T), -1)
    measured = np.zeros((len(rows), T), dtype=np.int64)
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            ids, n = found[i].ids, len(found[i].ids) - 1
            tokens[0, r, at : at + n], tokens[1, r, at : at + n] = ids[:-1], ids[1:]
            count[r, at : at + n], owner[r, at : at + n] = found[i].mask[1:], i
            spans = found[i].measured
            if spans is not None:
                measured[r, at : at + n] = spans[1:]
            at += n
    tensors = {"input": torch.from_numpy(tokens[0]), "target": torch.from_numpy(tokens[1])}
    if all(each.measured is not None for each in found):
        tensors["bytes"] = torch.from_numpy(measured)
    if packed:
        tensors["document"] = torch.from_numpy(owner.copy())
    unit = np.maximum(owner, owner[:, :1])
    return Batch(tensors, count=torch.from_numpy(count), group=torch.from_numpy(unit), dims=2)


# ---- where rows come from ----------------------------------------------------------------------------------


def rows_of(data: Data) -> Iterator[tuple[Any, str]]:
    """(row, where it stands) of a file, a list, a Dataset, or a table.

    Raises
    ------
    MalformedFile
        a file that is not there, or a line that is not JSON
    """
    if isinstance(data, (str, Path)):
        yield from _of_file(usable(data))
        return
    if isinstance(data, DataFrame):
        data = data.to_dict("records")
    elif isinstance(data, Mapping):
        columns = {name: list(values) for name, values in data.items()}
        data = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for i, row in enumerate(data):
        yield row, f"row {i}"


def _of_file(path: Path) -> Iterator[tuple[Any, str]]:
    if not path.is_file():
        raise MalformedFile(f"{str(path)!r} is not a file.")
    if path.suffix == ".parquet":
        import pandas as pd

        yield from rows_of(pd.read_parquet(path))
        return
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for number, line in enumerate(content.decode("utf-8").split("\n"), 1):
            if line.strip():
                yield json.loads(line), f"{path.name}:{number}"
    except (ValueError, OSError) as error:
        raise MalformedFile(f"{str(path)!r} is not lines of JSON: {error}.") from error
