"""Pairs: two answers to one prompt, of which the first was preferred. Text, or token ids."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import BadArgument, DataError, EmptyData, MalformedFile, NotFinite, UnknownColumn, WrongType
from ..files import usable
from ..protocols import HasNames
from ..types import Data, Named, Plain
from .comparisons import Preferences

FIELDS = ("prompt", "chosen", "rejected", "margin", "tie")
TURN = "\n\nAssistant:"

Text = str | tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """One prompt and two answers; `margin` and `tie` are None where the data do not say; `where` names its
    line."""

    prompt: Text
    chosen: Text
    rejected: Text
    margin: float | None
    tie: bool | None
    where: str


class Pairs(Sequence[Pair]):
    """Pairs of answers (chosen, rejected), read from lines of JSON and checked.

        {"prompt": …, "chosen": …, "rejected": …, "margin": 1.5, "tie": false}

    Without "prompt", chosen and rejected are whole dialogues ("\\n\\nHuman: … \\n\\nAssistant: …"), and the
    prompt is what they share up to its last "\\n\\nAssistant:". With it, they are the answers alone; then all
    three may also be lists of token ids.

    `dropped` names the lines that were left out; `group` gives each pair's unit, numbered in order of
    appearance.

    EmptyData, MalformedFile, UnknownColumn (a field that is lacking), WrongType, NotFinite (a margin),
    DataError (identical answers, no prompt)

    Parameters
    ----------
    data
        a .jsonl or .jsonl.gz file, a list of such files, or a list of dicts
    identical
        pairs whose answers are the same: "raise", naming them, or "drop" (they say nothing, whatever the
        model)
    by
        the unit that splits keep whole and errors cluster on: "prompt"; or "opening", the prompt up to its
        first answer, which several dialogues of one conversation share

    Examples
    --------
    >>> talk = "\\n\\nHuman: Two and two?\\n\\nAssistant:"
    >>> pairs = Pairs([{"chosen": talk + " Four.", "rejected": talk + " Five."}])
    >>> pairs[0].prompt == talk, pairs[0].chosen, pairs[0].rejected
    (True, ' Four.', ' Five.')
    """

    def __init__(self, data: Data, *, identical: str = "raise", by: str = "prompt"):
        if identical not in ("raise", "drop"):
            raise BadArgument(f"identical={identical!r}. Accepted: 'raise', 'drop'.")
        if by not in ("prompt", "opening"):
            raise BadArgument(f"by={by!r}. Accepted: 'prompt', 'opening'.")
        read = [_pair(row, where) for where, row in rows_of(data)]
        same = [p.where for p in read if p.chosen == p.rejected]
        if same and identical == "raise":
            raise DataError(
                f"the two answers are identical in {len(same)} of {len(read)} pairs: {_several(same)}. Such "
                "a pair says nothing: "
                "leave it out (identical='drop'), or call it a tie between two different answers."
            )
        self.by, self.dropped = by, same
        self._pairs = [p for p in read if p.chosen != p.rejected]
        if not self._pairs:
            what = str(data) if isinstance(data, (str, Path)) else "what was given"
            raise EmptyData(
                f"{what} holds no pairs."
                if not read
                else f"every pair of {what} ({len(read)}) is of identical answers."
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: Any) -> Any:
        return self._of(self._pairs[index]) if isinstance(index, slice) else self._pairs[index]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    @property
    def group(self) -> list[int]:
        """The number of each pair's prompt (or opening)."""
        number: dict[Text, int] = {}
        return [number.setdefault(self._unit(p.prompt), len(number)) for p in self._pairs]

    @property
    def groups(self) -> int:
        return 1 + max(self.group)

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Pairs, Pairs]:
        """(what is left, about `fraction` of the prompts): no prompt has pairs in both."""
        group, G = self.group, self.groups
        many = round(fraction * G) if 0 < fraction < 1 else 0
        if not 0 < many < G:
            raise BadArgument(
                f"fraction={fraction:g} of {G} prompts holds out {many}. Accepted: a fraction in (0, 1) that leaves "
                "prompts on either side."
            )
        aside = set(torch.randperm(G, generator=torch.Generator().manual_seed(seed))[:many].tolist())
        return tuple(
            self._of([p for p, g in zip(self, group, strict=True) if (g in aside) == there])
            for there in (False, True)
        )  # type: ignore[return-value]

    def take(self, index: Sequence[int]) -> Pairs:
        """The pairs at these places."""
        return self._of([self._pairs[i] for i in index])

    def described(
        self, features: Callable[[list[str]], Any], names: Sequence[str] | None = None
    ) -> Preferences:
        """The pairs by features of their answers, as a source for `BradleyTerry(features=…)`; its group is
        the prompt (or opening).

        Parameters
        ----------
        features
            texts of n answers → (n, d), such as `Words`
        names
            of the d features; None: `features.names`, where it has them
        """
        for pair in self._pairs:
            if not (isinstance(pair.chosen, str) and isinstance(pair.rejected, str)):
                raise WrongType(f"{pair.where} holds token ids: features are of text.")
        chosen, rejected = (
            np.asarray(features([str(vars(p)[which]) for p in self._pairs]), dtype=np.float64)
            for which in ("chosen", "rejected")
        )
        tie = [bool(p.tie) for p in self._pairs] if any(p.tie for p in self._pairs) else None
        margin = [p.margin or 0.0 for p in self._pairs] if any(p.margin for p in self._pairs) else None
        known = names if names is not None else features.names if isinstance(features, HasNames) else None
        return Preferences(chosen, rejected, group=self.group, tie=tie, margin=margin, features=known)

    def _of(self, pairs: list[Pair]) -> Pairs:
        if not pairs:
            raise EmptyData("no pairs are left.")
        out = object.__new__(Pairs)
        out.by, out.dropped, out._pairs = self.by, self.dropped, pairs
        return out

    def _unit(self, prompt: Text) -> Text:
        if self.by == "prompt" or not isinstance(prompt, str):
            return prompt
        return prompt.split(TURN, 1)[0]

    def __repr__(self) -> str:
        left = f", {len(self.dropped)} identical ones dropped" if self.dropped else ""
        return f"Pairs({len(self)} of {self.groups} {self.by}s{left})"


def rows_of(data: Data) -> Iterator[tuple[str, Named]]:
    """(where, row) of every pair."""
    if isinstance(data, (str, Path)):
        yield from _lines(usable(data))
        return
    if not isinstance(data, Sequence):
        raise BadArgument(
            f"pairs are read from a .jsonl file, several, or a list of dicts; received {type(data).__name__}."
        )
    for i, each in enumerate(data):
        if isinstance(each, (str, Path)):
            yield from _lines(usable(each))
        elif isinstance(each, Mapping):
            yield f"row {i}", each
        else:
            raise WrongType(
                f"row {i} is a {type(each).__name__}. Accepted: a dict with chosen and rejected, or a file's "
                "path."
            )


def _lines(path: Path) -> Iterator[tuple[str, Named]]:
    if not path.is_file():
        raise MalformedFile(f"{str(path)!r} is not a file.")
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8") as file
        ):
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(line, f"{path.name}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise MalformedFile(f"{path.name} cannot be read to its end: {error}") from error


def _parsed(line: str, where: str) -> tuple[str, Named]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise MalformedFile(f"{where} is no JSON: {error}.") from error
    if not isinstance(row, dict):
        raise MalformedFile(
            f"{where} holds a {type(row).__name__}. Accepted: an object with chosen and rejected."
        )
    return where, row


def _pair(row: Named, where: str) -> Pair:
    for name in ("chosen", "rejected"):
        if name not in row:
            raise UnknownColumn(
                f"{where} lacks the field {name!r}. It has: {', '.join(map(str, row)) or 'none'}."
            )
    chosen, rejected = (text_of(row[name], name, where) for name in ("chosen", "rejected"))
    if row.get("prompt") is not None:
        prompt = text_of(row["prompt"], "prompt", where)
        if len({type(t) for t in (prompt, chosen, rejected)}) > 1:
            raise WrongType(f"{where}: prompt, chosen and rejected are all text, or all token ids.")
    else:
        prompt, chosen, rejected = _parted(chosen, rejected, where)
    margin, tie = row.get("margin"), row.get("tie")
    if tie is not None and tie not in (True, False):
        raise WrongType(f"{where}: tie is {tie!r}. Accepted: true, false.")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, (int, float))):
        raise WrongType(f"{where}: margin is {margin!r}. Accepted: a number.")
    if margin is not None and not math.isfinite(margin):
        raise NotFinite(f"{where}: margin is {margin!r}.")
    return Pair(
        prompt,
        chosen,
        rejected,
        None if margin is None else float(margin),
        None if tie is None else bool(tie),
        where,
    )


def text_of(value: Plain, name: str, where: str) -> Text:
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(
        isinstance(t, int) and not isinstance(t, bool) and t >= 0 for t in value
    ):
        return tuple(value)
    raise WrongType(
        f"{where}: {name} is a {type(value).__name__}, {str(value)[:40]!r}. Accepted: text, or a list of "
        "token ids."
    )


def _parted(chosen: Text, rejected: Text, where: str) -> tuple[str, str, str]:
    """(prompt, answer, answer) of two dialogues that begin alike."""
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise UnknownColumn(
            f"{where} holds token ids and lacks the field 'prompt': what the answers share by chance is no "
            "prompt."
        )
    parts = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    at = chosen[:parts].rfind(TURN)
    if at < 0:
        raise DataError(
            f"{where}: the two dialogues share no prompt. Accepted: both begin alike up to an {TURN!r}; or a "
            "field 'prompt' and answers alone."
        )
    cut = at + len(TURN)
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _several(names: Sequence[str], most: int = 6) -> str:
    return "; ".join(names[:most]) + (f"; … ({len(names)} in all)" if len(names) > most else "")
