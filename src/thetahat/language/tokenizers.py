"""Tokenizers: text to whole numbers and back, each of which knows how many bytes of text a token stands for.

    Σ_t lengths[token_t] = bytes of the text in UTF-8

whatever the tokenizer: so nats per token become bits per byte, which do not depend on how the text was cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ..errors import BadArgument, DataError, EmptyData, MissingExtra, UnknownLevel, WrongType
from ..types import Plain, Settings


@runtime_checkable
class Tokenizer(Protocol):
    """Text to tokens, and back without loss.

    `vocabulary` is V, the tokens are 0 … V − 1. `end` is the token that closes a document (it stands for no
    text), or None.
    """

    @property
    def vocabulary(self) -> int: ...

    @property
    def end(self) -> int | None: ...

    @property
    def lengths(self) -> np.ndarray | None:
        """(V,) bytes of text that each token stands for; None: that depends on the text
        (`fast_tokenizers.MeasuresText`)."""

    def encode(self, text: str) -> np.ndarray:
        """The tokens of a text, (n,)."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text; what is not valid UTF-8 (a character cut in two) becomes U+FFFD. UnknownLevel: a token
        outside 0 … V − 1."""

    def to_config(self) -> Settings:
        """Plain values, from which `from_config` makes the tokenizer again."""


class Bytes:
    """The bytes of UTF-8, and one token more that closes a document. Nothing to learn, and no text that it
    lacks.

    Examples
    --------
    >>> Bytes().encode("né").tolist(), Bytes().decode([110, 195, 169]), Bytes().vocabulary
    ([110, 195, 169], 'né', 257)
    """

    vocabulary, end = 257, 256

    @property
    def lengths(self) -> np.ndarray:
        return np.array([1] * 256 + [0], dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(as_written(text).encode("utf-8"), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return bytes(t for t in known(tokens, self.vocabulary) if t != self.end).decode(
            "utf-8", errors="replace"
        )

    def to_config(self) -> Settings:
        return {"kind": "bytes"}


class Characters:
    """One token a character of an alphabet. No token closes a document.

    Parameters
    ----------
    alphabet
        the characters, in order, each once

    Raises
    ------
    BadArgument
        a character twice, or none

    Examples
    --------
    >>> c = Characters.of("hello")
    >>> c.alphabet, c.encode("hole").tolist(), c.decode([1, 0])
    ('ehlo', [1, 3, 2, 0], 'he')
    """

    end = None

    def __init__(self, alphabet: str):
        if not alphabet or len(set(alphabet)) != len(alphabet):
            raise BadArgument(f"an alphabet holds each of its characters once; received {alphabet[:40]!r}.")
        self.alphabet = alphabet
        codes = np.frombuffer(alphabet.encode("utf-32-le"), dtype=np.uint32)
        self._table = np.full(int(codes.max()) + 1, -1, dtype=np.int64)
        self._table[codes] = np.arange(len(codes))

    @classmethod
    def of(cls, *texts: str) -> Characters:
        """The characters of texts, sorted."""
        found: set[str] = set().union(*(set(text) for text in texts))
        if not found:
            raise EmptyData("the text is empty: it has no characters to make an alphabet of.")
        return cls("".join(sorted(found)))

    @property
    def vocabulary(self) -> int:
        return len(self.alphabet)

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(c.encode("utf-8")) for c in self.alphabet], dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        codes = np.frombuffer(as_written(text).encode("utf-32-le"), dtype=np.uint32)
        tokens = np.where(codes < len(self._table), self._table[np.minimum(codes, len(self._table) - 1)], -1)
        if (tokens < 0).any():
            at = int(np.argmax(tokens < 0))
            raise UnknownLevel(
                f"the character {text[at]!r} (at {at}) is not in the alphabet of {len(self.alphabet)} "
                "characters."
            )
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.alphabet[t] for t in known(tokens, self.vocabulary))

    def to_config(self) -> Settings:
        return {"kind": "characters", "alphabet": self.alphabet}


class BPE:
    """Byte-pair encoding, by the package `tokenizers`: frequent runs of bytes are one token.

    Parameters
    ----------
    tokenizer
        a tokenizers.Tokenizer that works on bytes (GPT-2's and its kin), the path of its JSON file, or a
        tokenizer of transformers
    end
        the token that closes a document, by its text; None: the tokenizer's only special token, if it has
        just one
    special
        what the spelling of a special token ("<|im_start|>") in a text is: True, that token, as a chat
        template means it (it stands for no bytes of text); False, its characters; None: a text with one is
        refused, since it cannot be known

    Raises
    ------
    DataError
        a text spells a special token, and `special` does not say what is meant
    BadArgument
        the tokenizer does not work on bytes, or changes the text before it cuts it: bits per byte would not
        be known
    MissingExtra
        the package is not installed

    References
    ----------
    Sennrich, Haddow and Birch (2016), Neural machine translation of rare words with subword units; Radford et
    al. (2019), Language models are unsupervised multitask learners (on bytes).

    Examples
    --------
    >>> bpe = BPE.train(["low lower lowest " * 9], vocabulary=262)
    >>> bpe.decode(bpe.encode("lowest naïf")), int(bpe.lengths[bpe.encode("lowest naïf")].sum())
    ('lowest naïf', 12)
    """

    def __init__(self, tokenizer: Plain, *, end: str | None = None, special: bool | None = None):
        if isinstance(tokenizer, (str, Path)):
            tokenizer = package().Tokenizer.from_file(str(tokenizer))
        tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not isinstance(tokenizer, package().Tokenizer):
            raise BadArgument(
                "BPE takes a tokenizers.Tokenizer, its file, or a tokenizer of transformers; received "
                f"{type(tokenizer).__name__}."
            )
        if not self.fits(tokenizer):
            raise BadArgument(
                "the tokenizer does not cut the bytes of the text as they stand. Accepted: byte-level BPE "
                "without a normalizer. Of any other kind: th.language.FastTokenizer(tokenizer)."
            )
        tokenizer = package().Tokenizer.from_str(
            tokenizer.to_str()
        )  # a copy: the caller's keeps its settings
        tokenizer.no_truncation()  # a setting of its file: a text would lose its end
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = (
            not special
        )  # the package's word for: "<end>" in a text is five characters
        self._own, self.special = tokenizer, special
        names = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
        self._spelled = re.compile(
            "|".join(re.escape(t) for t in sorted(names.values(), key=len, reverse=True)) or r"(?!)"
        )
        if end is None:
            self.end: int | None = next(iter(names)) if len(names) == 1 else None
        else:
            self.end = tokenizer.token_to_id(end)
            if self.end is None:
                raise BadArgument(f"end={end!r} is not a token of the tokenizer.")
        self.lengths = self._lengths(set(names))

    @staticmethod
    def fits(tokenizer: Plain) -> bool:
        """Whether a tokenizers.Tokenizer cuts the bytes of a text as they stand: byte-level BPE that knows each byte,
        changes nothing, adds no space, and leaves nothing out."""
        found = json.loads(tokenizer.to_str())
        before = found["pre_tokenizer"] or {}
        steps = before.get("pretokenizers", [before])
        cuts = [s.get("type") for s in steps]
        return (
            found["normalizer"] is None
            and found["model"]["type"] == "BPE"
            and set(package().pre_tokenizers.ByteLevel.alphabet()) <= found["model"]["vocab"].keys()
            and cuts.count("ByteLevel") == 1
            and set(cuts) <= {"ByteLevel", "Split", "Digits", "Punctuation"}
            and not any(s.get("add_prefix_space") or s.get("behavior") == "Removed" for s in steps)
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int = 4096) -> BPE:
        """Learn the merges of texts: 256 bytes, the token <end>, and the most frequent pairs."""
        hf = package()
        if vocabulary < 257:
            raise BadArgument(
                f"vocabulary={vocabulary}. Accepted: 257 or more (the bytes and the end of a document)."
            )
        own = hf.Tokenizer(hf.models.BPE())
        own.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
        own.decoder = hf.decoders.ByteLevel()
        alphabet = hf.pre_tokenizers.ByteLevel.alphabet()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
        )
        own.train_from_iterator(texts, trainer)
        return cls(
            own, special=False
        )  # its <end> is of this library's making: in a text it is five characters

    @property
    def vocabulary(self) -> int:
        return len(self.lengths)

    def encode(self, text: str) -> np.ndarray:
        found = None if self.special is not None else self._spelled.search(as_written(text))
        if found is not None:
            raise DataError(
                f"the text spells the special token {found.group()!r} (at {found.start()}: "
                f"{text[found.start() :][:40]!r}). Say what is meant: "
                "BPE(…, special=True), that token; special=False, its characters."
            )
        return np.array(self._own.encode(as_written(text), add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        return str(self._own.decode(known(tokens, self.vocabulary), skip_special_tokens=True))

    def to_config(self) -> Settings:
        end = None if self.end is None else self._own.id_to_token(self.end)
        return {"kind": "bpe", "json": self._own.to_str(), "end": end, "special": self.special}

    def _lengths(self, special: set[int]) -> np.ndarray:
        """A byte-level token is written with one character a byte; a special token stands for no text."""
        own = self._own.get_vocab(with_added_tokens=True)
        out = np.zeros(max(own.values()) + 1, dtype=np.int64)
        added = self._own.get_added_tokens_decoder()
        for token, i in own.items():
            out[i] = 0 if i in special else len(token.encode("utf-8")) if i in added else len(token)
        return out


def known(tokens: Iterable[int], vocabulary: int) -> list[int]:
    """The tokens as numbers.

    Raises
    ------
    UnknownLevel
        one outside 0 … V − 1, or that is not a whole number

    Examples
    --------
    >>> known(np.array([0, 2]), 3)
    [0, 2]
    """
    out = []
    for i, t in enumerate(tokens):
        if int(t) != t or not 0 <= t < vocabulary:
            raise UnknownLevel(f"the token {t} at {i} is not one of 0 … {vocabulary - 1}, and has no text.")
        out.append(int(t))
    return out


def as_written(text: str) -> str:
    """The text, which can be written in UTF-8."""
    if not isinstance(text, str):
        raise WrongType(f"a tokenizer encodes text; received a {type(text).__name__}, {str(text)[:40]!r}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds half of a character, U+{ord(text[error.start]):04X} at {error.start}, which "
            "UTF-8 cannot write."
        ) from error
    return text


def package() -> Plain:
    """The package `tokenizers`.

    Raises
    ------
    MissingExtra
        it is not installed
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra.named("tokenizers", "llm") from error
    return tokenizers


def named(name: str | Tokenizer, texts: Sequence[str] | None = None) -> Tokenizer:
    """A tokenizer by name: "bytes", or "characters" (of the texts)."""
    if isinstance(name, Tokenizer):
        return name
    if name == "bytes":
        return Bytes()
    if name == "characters" and texts is not None:
        return Characters.of(*texts)
    raise BadArgument(
        f"tokenizer={name!r}. Accepted: 'bytes', 'characters', or a tokenizer (th.language.BPE.train(texts))."
    )
