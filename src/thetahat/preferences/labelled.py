"""Answers that are each called desirable or not, without pairs: the data of KTO and of a likelihood of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.devices import device_of
from ..data.source import Tensors, digest, evaluating
from ..errors import BadArgument, DataError, EmptyData, UnknownColumn, UnknownLevel, WrongType
from ..language.tokenizers import Tokenizer
from ..types import Data, ModelLike, Named
from .pairs import Pairs, Text, rows_of, text_of
from .reference_point import HasReferencePoint

FIELDS = ("prompt", "completion", "label")
OVERLONG = ("raise", "drop", "cut")


@dataclass(frozen=True)
class Row:
    """Tokens of a prompt and of its answer, and whether the answer is desirable."""

    prompt: list[int]
    answer: list[int]
    label: bool
    unit: Text
    where: str


class Labelled(Tensors):
    """Answers to prompts as token ids, each with a label: desirable (true) or not.

        {"prompt": …, "completion": …, "label": true}

    The tensors, n answers, T the longest that occurs:

        "answer"            (n, T) long     prompt, answer, end; then padding, by an id that means nothing
        "answer_mask"       (n, T) bool     True at the tokens of the answer, its end included: those that are scored
        "label"             (n,) bool
        "mismatched", "mismatched_mask"     each prompt with the answer of the nearest row before it (around the end)
                                            that has another prompt: of which KTO estimates its reference point

    A batch's `group` is the prompt. The mismatched answer belongs to its row, whatever batch that comes to.

    Parameters
    ----------
    data
        a .jsonl or .jsonl.gz file, a list of such files, or a list of dicts; prompts and completions are texts or
        lists of token ids
    tokenizer
        of the language model; None where they are token ids already
    context
        T, tokens of prompt and answer together at most
    overlong
        what does not fit: "raise", naming the first; "drop"; or "cut" (the prompt loses its beginning). A prompt with a
        mismatched answer is always cut
    block
        answers a batch

    Raises
    ------
    UnknownColumn, WrongType
        a row without a field, or a label that is not true or false
    DataError
        prompt or answer too long, or without a token

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> rows = [{"prompt": "2+2=", "completion": "4", "label": True}, {"prompt": "1+1=", "completion": "3", "label": False}]
    >>> source = Labelled(rows, Bytes(), context=16)
    >>> Bytes().decode(source.whole["mismatched"][0].tolist()), source.whole["label"].tolist()
    ('2+2=3', [True, False])
    """

    def __init__(
        self,
        data: Data,
        tokenizer: Tokenizer | None = None,
        context: int = 512,
        *,
        overlong: str = "raise",
        block: int = 16,
    ):
        if overlong not in OVERLONG:
            raise BadArgument(f"overlong={overlong!r}. Accepted: {', '.join(map(repr, OVERLONG))}.")
        if context < 2:
            raise BadArgument(f"context={context}. Accepted: 2 or more, a token of prompt and one of answer.")
        self.tokenizer, self.context, self.dropped = tokenizer, context, []
        rows: list[Row] = []
        for where, given in rows_of(data):
            row = self._fitted(self._row(given, where), overlong)
            if row is None:
                self.dropped.append(where)
            else:
                rows.append(row)
        if not rows:
            raise EmptyData(f"no answer fits in context={context} tokens ({len(self.dropped)} dropped).")
        number: dict[Text, int] = {}
        group = torch.tensor([number.setdefault(row.unit, len(number)) for row in rows])
        super().__init__(Batch(self._tensors(rows, len(number)), group=group), target="label", block=block)

    @classmethod
    def of_pairs(
        cls,
        pairs: Data,
        tokenizer: Tokenizer | None = None,
        context: int = 512,
        *,
        overlong: str = "raise",
        block: int = 16,
    ) -> Self:
        """The answers of pairs: the chosen ones desirable, the rejected ones not. Ties are left out."""
        own = pairs if isinstance(pairs, Pairs) else Pairs(pairs)
        rows = [
            {"prompt": p.prompt, "completion": answer, "label": label}
            for p in own
            if not p.tie
            for answer, label in ((p.chosen, True), (p.rejected, False))
        ]
        if not rows:
            raise EmptyData("every pair is a tie: no answer is desirable.")
        return cls(rows, tokenizer, context, overlong=overlong, block=block)

    @property
    def fingerprint(self) -> str:
        """Of the labels, and of the ids that they are of, however they are padded."""
        if self._fingerprint is None:
            length = self.whole["answer_length"]
            real = torch.arange(self.whole["answer"].shape[1]) < length[:, None]
            mask = self.whole["answer_mask"].sum(1)
            self._fingerprint = digest(self.whole["answer"][real], length, mask, self.whole["label"])
        return self._fingerprint

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """The answers in order; for a model with a reference point that of all of them, as the model now stands, under
        "reference_point"."""
        parts = list(super().batches(model))
        if not isinstance(model, HasReferencePoint) or "reference_point" in self.whole:
            yield from parts
            return
        device = device_of(model)
        with torch.no_grad(), evaluating(model):
            found = torch.cat([model.mismatched(part.to(device)).cpu() for part in parts])
        z0 = model.reference_point(found, self.whole.count)
        for part in parts:
            yield Batch(
                part.tensors | {"reference_point": z0.expand(len(part))}, count=part.count, group=part.group
            )

    # ---- rows ----------------------------------------------------------------------------------------------

    def _row(self, given: Named, where: str) -> Row:
        for name in FIELDS:
            if name not in given:
                has = ", ".join(map(str, given)) or "none"
                raise UnknownColumn(f"{where} lacks the field {name!r}. It has: {has}.")
        label = given["label"]
        if not (label is True or label is False or (type(label) is int and label in (0, 1))):
            raise WrongType(f"{where}: label is {label!r}. Accepted: true (desirable), false.")
        end = [] if self.tokenizer is None or self.tokenizer.end is None else [self.tokenizer.end]
        unit = text_of(given["prompt"], "prompt", where)
        prompt = self._ids(unit, where) or list(end)
        answer = self._ids(text_of(given["completion"], "completion", where), where) + end
        for name, ids in (("prompt", prompt), ("completion", answer)):
            if not ids:
                raise DataError(
                    f"{where}: the {name} has no token. A tokenizer with an end token lets it be empty."
                )
        return Row(prompt, answer, bool(label), unit, where)

    def _ids(self, text: Text, where: str) -> list[int]:
        if isinstance(text, str):
            if self.tokenizer is None:
                raise BadArgument(f"{where} holds text: give the tokenizer of the language model.")
            return [int(t) for t in self.tokenizer.encode(text)]
        if self.tokenizer is not None and text and max(text) >= self.tokenizer.vocabulary:
            raise UnknownLevel(
                f"{where}: the token {max(text)} is none of the {self.tokenizer.vocabulary} of the tokenizer."
            )
        return list(text)

    def _fitted(self, row: Row, overlong: str) -> Row | None:
        room = self.context - len(row.answer)
        if len(row.prompt) <= room:
            return row
        if overlong == "raise":
            raise DataError(
                f"{row.where} does not fit in context={self.context} tokens: the prompt has {len(row.prompt)}, the "
                f"answer {len(row.answer)}. Give a longer context, overlong='drop', or overlong='cut'."
            )
        if overlong == "drop" or room < 1:
            return None
        return Row(row.prompt[-room:], row.answer, row.label, row.unit, row.where)

    def _tensors(self, rows: list[Row], prompts: int) -> dict[str, Tensor]:
        answer, mask, length = self._laid([(row.prompt, row.answer) for row in rows])
        label = torch.tensor([row.label for row in rows])
        out = {"answer": answer, "answer_mask": mask, "answer_length": length, "label": label}
        if prompts > 1:
            others = [rows[i].answer for i in _before([row.unit for row in rows])]
            paired = [
                (row.prompt[-max(self.context - len(other), 1) :], other)
                for row, other in zip(rows, others, strict=True)
            ]
            out["mismatched"], out["mismatched_mask"], _ = self._laid(paired)
        return out

    def _laid(self, rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
        """ids (n, T), where the answer is (n, T), how many tokens are real (n,)."""
        pad = 0 if self.tokenizer is None or self.tokenizer.end is None else self.tokenizer.end
        before = torch.tensor([len(prompt) for prompt, _ in rows])
        length = torch.tensor([len(prompt) + len(answer) for prompt, answer in rows])
        ids = torch.full((len(rows), int(length.max())), pad)
        for i, (prompt, answer) in enumerate(rows):
            ids[i, : length[i]] = torch.tensor(prompt + answer)
        place = torch.arange(ids.shape[1])
        return ids, (place >= before[:, None]) & (place < length[:, None]), length


def _before(units: Sequence[Text]) -> list[int]:
    """For each place the nearest one before it, around the beginning, that is of another unit."""
    n, last = len(units), [0] * len(units)
    other = 0
    for turn in range(2 * n):
        i = turn % n
        if units[i - 1] != units[i]:
            other = (i - 1) % n
        last[i] = other
    return last
