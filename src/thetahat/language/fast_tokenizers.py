"""Any tokenizer of the package `tokenizers`: WordPiece, Unigram, byte fallback, normalizers.

    Σ_t bytes_t = bytes of the text given, in UTF-8

Such a tokenizer may change a text before it cuts it (lower case, NFKC, spaces), so how many bytes a token stands for
depends on the text, and tokens may not lead back to it. Bytes are therefore counted on the text given, by the
tokenizer's own offsets; and every text that is read is compared with the text of its tokens, so that a score can say
of which text it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import BadArgument, DataError, UnknownLevel
from ..types import Plain, Settings
from .tokenizers import BPE, Bytes, Characters, Tokenizer, as_written, known, package

SHOWN = 24  # characters of a difference that are shown


@runtime_checkable
class MeasuresText(Protocol):
    """A tokenizer of which the bytes of a token depend on the text, and whose tokens may not lead back to it."""

    def measured(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text, and the bytes of it that each stands for, (n,) both."""

    def restored(self, text: str) -> str:
        """decode(encode(text)), with what special tokens were asked for."""


class FastTokenizer:
    """A tokenizer of the package `tokenizers` or of transformers, of whatever kind.

    Its ids are those of the library itself, without the tokens that its template adds around a text (`[CLS]`,
    `<s>`). Byte-level BPE without a normalizer is `BPE`, which loses nothing.

    Parameters
    ----------
    tokenizer
        a tokenizers.Tokenizer, the path of its JSON file, or a tokenizer of transformers that is made of one
    end
        the token that closes a document, by its text; None: the tokenizer's only special token, if it has
        just one
    special
        what the spelling of a special token (`</s>`) in a text is: True, that token (it is a control token, and text
        from elsewhere may then hold one); False, its characters; None: a text with one is refused

    Raises
    ------
    DataError
        a text spells a special token, and `special` does not say what is meant, or the tokenizer has no other way
        to write it
    UnknownLevel
        a text holds what the tokenizer has no token for: its likelihood would be that of any unknown text
    MissingExtra
        the package is not installed

    References
    ----------
    Kudo (2018), Subword regularization (Unigram); Kudo and Richardson (2018), SentencePiece; Wu et al. (2016),
    Google's neural machine translation system (WordPiece).

    Examples
    --------
    >>> import tokenizers as t
    >>> own = t.Tokenizer(t.models.WordLevel({"two": 0, "words": 1, "[UNK]": 2}, unk_token="[UNK]"))
    >>> own.normalizer, own.pre_tokenizer = t.normalizers.Lowercase(), t.pre_tokenizers.Whitespace()
    >>> fast = FastTokenizer(own)
    >>> ids, bytes_of_each = fast.measured("Two  words")
    >>> ids.tolist(), bytes_of_each.tolist(), fast.decode(ids)
    ([0, 1], [3, 7], 'two words')
    """

    lengths = None  # they depend on the text: `measured`

    def __init__(self, tokenizer: Plain, *, end: str | None = None, special: bool | None = None):
        own = package().Tokenizer.from_str(
            of_package(tokenizer).to_str()
        )  # a copy: the caller's stays as it is
        own.no_truncation()  # a setting of its file: a text would lose its end
        own.no_padding()
        own.encode_special_tokens = not special
        self._own, self.special = own, special
        self._names = {i: t.content for i, t in own.get_added_tokens_decoder().items() if t.special}
        self._spelled = spelled(self._names.values())
        self.vocabulary = max(own.get_vocab(with_added_tokens=True).values()) + 1
        model = json.loads(own.to_str())["model"]
        self._unknown = _unknown(own, model)
        self._drops = model["type"] == "BPE" and self._unknown is None and not model.get("byte_fallback")
        self._affixes = [model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""]
        self.end: int | None = next(iter(self._names)) if end is None and len(self._names) == 1 else None
        if end is not None:
            self.end = own.token_to_id(end)
            if self.end is None:
                raise BadArgument(f"end={end!r} is not a token of the tokenizer.")

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._encoding(text).ids, dtype=np.int64)

    def measured(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a text, and how many bytes of it each stands for, (n,) both.

        A token stands for what lies between the end of those before it and its own end; characters that the
        tokenizer leaves out go to the token after them, at the end to the last. So the sum is that of the text.
        """
        found = self._encoding(text)
        ids = np.array(found.ids, dtype=np.int64)
        if not len(ids):
            return ids, np.zeros(0, dtype=np.int64)
        bytes_before = np.cumsum([0, *(len(c.encode("utf-8")) for c in text)])
        ends = np.maximum.accumulate(np.array([end for _, end in found.offsets]))
        ends[-1] = len(text)
        return ids, np.diff(bytes_before[ends], prepend=0)

    def decode(self, tokens: Iterable[int]) -> str:
        return str(self._own.decode(known(tokens, self.vocabulary), skip_special_tokens=True))

    def restored(self, text: str) -> str:
        """decode(encode(text)), with the special tokens that the text spelled where they were asked for."""
        return str(self._own.decode(self._encoding(text).ids, skip_special_tokens=False))

    def continuation(self, before: Iterable[int], after: Iterable[int]) -> str:
        """The text that tokens add to those before them: a decoder may treat the first token of a text in a way of
        its own (leave out its space).

        Examples
        --------
        >>> import tokenizers as t
        >>> own = t.Tokenizer(t.models.WordLevel({"▁two": 0, "▁words": 1}, unk_token="?"))
        >>> own.pre_tokenizer, own.decoder = t.pre_tokenizers.Metaspace(), t.decoders.Metaspace()
        >>> fast = FastTokenizer(own)
        >>> fast.decode([1]), fast.continuation([0], [1])
        ('words', ' words')
        """
        first, rest = list(before), list(after)
        whole, begun = self.decode([*first, *rest]), self.decode(first)
        return whole[len(begun) :] if whole.startswith(begun) else self.decode(rest)

    def to_config(self) -> Settings:
        end = None if self.end is None else self._own.id_to_token(self.end)
        return {"kind": "fast", "json": self._own.to_str(), "end": end, "special": self.special}

    # ---- what is refused -----------------------------------------------------------------------------------

    def _encoding(self, text: str) -> Plain:
        found = None if self.special is not None else self._spelled.search(as_written(text))
        if found is not None:
            raise DataError(
                f"the text spells the special token {found.group()!r} (at {found.start()}: "
                f"{text[found.start() :][:40]!r}). Say what is meant: "
                "FastTokenizer(…, special=True), that token; special=False, its characters."
            )
        out = self._own.encode(as_written(text), add_special_tokens=False)
        self._refuse(text, out)
        return out

    def _refuse(self, text: str, found: Plain) -> None:
        """A control token that was not asked for (a Unigram model finds it among its words), and unknown text."""
        for i, (low, high) in zip(found.ids, found.offsets, strict=True):
            if i == self._unknown and not (self.special and text[low:high] == self._names.get(i)):
                raise UnknownLevel(_without_token(text, low, high))
            if i in self._names and not self.special:
                raise DataError(
                    f"the text spells the special token {self._names[i]!r} (at {low}: {text[low:][:40]!r}), and the "
                    "tokenizer has no other way to write it. Leave it out of the text, or ask for the token: "
                    "FastTokenizer(…, special=True)."
                )
        if self._drops:
            self._refuse_dropped(text)

    def _refuse_dropped(self, text: str) -> None:
        """BPE without an unknown token leaves out characters that it does not know, and says nothing."""
        own = self._own
        normal = text if own.normalizer is None else own.normalizer.normalize_str(text)
        parts = [normal]
        if own.pre_tokenizer is not None:
            parts = [part for part, _ in own.pre_tokenizer.pre_tokenize_str(normal)]
        before, after = self._affixes
        for c in set("".join(parts)):
            if all(own.token_to_id(f"{a}{c}{b}") is None for a in {"", before} for b in {"", after}):
                at = max(text.find(c), 0)
                raise UnknownLevel(_without_token(text, at, at + 1))


@dataclass
class RoundTrip:
    """Compares texts with the texts of their tokens, and keeps the first difference.

    Examples
    --------
    >>> import tokenizers as t
    >>> own = t.Tokenizer(t.models.WordLevel({"two": 0, "words": 1}, unk_token="?"))
    >>> own.normalizer, own.pre_tokenizer = t.normalizers.Lowercase(), t.pre_tokenizers.Whitespace()
    >>> trip = RoundTrip()
    >>> trip.add(FastTokenizer(own), "Two words", "document 0")
    >>> trip.changed, trip.first
    (1, "document 0 at character 0, 'Two words' becomes 'two words'")
    """

    texts: int = 0
    changed: int = 0
    first: str = ""

    def add(self, tokenizer: Tokenizer, text: str, where: str) -> None:
        if not isinstance(tokenizer, MeasuresText):
            return
        self.texts += 1
        again = tokenizer.restored(text)
        if again == text:
            return
        self.changed += 1
        if not self.first:
            pairs = enumerate(zip(text, again, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(again)))
            shown = f"{text[at : at + SHOWN]!r} becomes {again[at : at + SHOWN]!r}"
            self.first = f"{where} at character {at}, {shown}"

    @property
    def note(self) -> str:
        """What a score of these texts is to say; empty where every text came back."""
        if not self.changed:
            return ""
        return (
            "of the text as the tokenizer normalises it, bits per byte of the text given: tokens do not lead back to "
            f"{self.changed} of {self.texts} texts; first in {self.first}"
        )


def from_config(config: Settings) -> Tokenizer:
    """The tokenizer that `to_config` wrote down.

    Examples
    --------
    >>> from_config(Characters("abc").to_config()).alphabet
    'abc'
    """
    kind = config.get("kind")
    if kind == "bytes":
        return Bytes()
    if kind == "characters":
        return Characters(config["alphabet"])
    if kind in ("bpe", "fast"):
        own = package().Tokenizer.from_str(config["json"])
        made = BPE if kind == "bpe" and BPE.fits(own) else FastTokenizer
        return made(own, end=config["end"], special=config.get("special"))
    raise BadArgument(
        f"a tokenizer of the kind {kind!r} is not known. Accepted: bytes, characters, bpe, fast."
    )


def tokenizer_of(own: Plain, *, end: str | None = None, special: bool | None = None) -> BPE | FastTokenizer:
    """The tokenizer of a `tokenizers.Tokenizer`, of its file, or of one of transformers: `BPE` where it cuts the bytes of
    a text as they stand, else `FastTokenizer`.

    Examples
    --------
    >>> own = BPE.train(["low lower"], vocabulary=260)._own
    >>> type(tokenizer_of(own)).__name__
    'BPE'
    """
    found = of_package(own)
    return (BPE if BPE.fits(found) else FastTokenizer)(found, end=end, special=special)


def of_package(tokenizer: Plain) -> Plain:
    """The tokenizers.Tokenizer of a file, of a tokenizer of transformers, or that it is."""
    if isinstance(tokenizer, (str, Path)):
        tokenizer = package().Tokenizer.from_file(str(tokenizer))
    own = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(own, package().Tokenizer):
        raise BadArgument(
            f"a {type(tokenizer).__name__} is not a tokenizer of the package tokenizers. Accepted: a tokenizers.Tokenizer, "
            "its file, or a fast tokenizer of transformers (tokenizer.json)."
        )
    return own


def spelled(names: Iterable[str]) -> re.Pattern[str]:
    """Finds special tokens in a text, the longest first."""
    return re.compile("|".join(re.escape(t) for t in sorted(names, key=len, reverse=True)) or r"(?!)")


def _unknown(own: Plain, model: Settings) -> int | None:
    """The id that stands for what has no token; None: there is none."""
    if model["type"] == "Unigram":
        out: int | None = model.get("unk_id")
        return out
    name = model.get("unk_token")
    return None if name is None else own.token_to_id(name)


def _without_token(text: str, low: int, high: int) -> str:
    return (
        f"the tokenizer has no token for {text[low:high]!r} (at {low}: {text[low:][:40]!r}). Its likelihood would be that of "
        "any unknown text. Accepted: text that the vocabulary covers, or a tokenizer with byte fallback."
    )
