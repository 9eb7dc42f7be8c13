"""Tokens: text as a source of terms (B, T), read where it lies. A document is a run of tokens; a row is a
window of `context` terms.

    with a token that closes documents      stream  = end d_1 end d_2 end …,     term t: log p(stream_{t+1} | its document up to t)
    without one                             stream  = d_1 d_2 …,                 the first token of each document is given, not scored

    layout "stream"     the whole stream in windows, as long texts are read; a window may hold the end of one document and the next
    layout "padded"     each document in rows of its own, the rest of a row padded (count 0)
    layout "packed"     whole documents side by side in a row, as many as fit, in order; longer ones in pieces

Terms never see another document (`mask`), so where no document is longer than `context`, "padded" and
"packed" score every term alike.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Digest, joined
from ..errors import BadArgument, EmptyData, MalformedFile, UnknownColumn, UnknownLevel
from ..files import usable
from ..types import Data, ModelLike
from .fast_tokenizers import MeasuresText, RoundTrip, from_config
from .tokenizers import Tokenizer, named

LAYOUTS = ("stream", "padded", "packed")
# terms of a block when all are scored: enough to keep a core busy, little enough to hold their logits
TERMS = 8192
BLOCK = (
    2000  # terms of one long text that are taken as one independent unit: far beyond the reach of one window
)
INSTEAD = "A text itself goes in a list: Tokens([text])."
HEADER = "tokens.json"
MEASURED = "<u4"  # bytes of text of a token, in a file beside its shard
TEXT = "text"  # the column, or the field of a line, that holds a document


class Stream:
    """Arrays of tokens one after the other, mapped or in memory, as if they were one."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = [p for p in parts if len(p)]
        self.edges = np.cumsum([0, *(len(p) for p in self.parts)])

    def __len__(self) -> int:
        return int(self.edges[-1])

    def take(self, index: np.ndarray) -> np.ndarray:
        """The tokens at these places, int64, of the shape of index."""
        if len(self.parts) == 1:
            out: np.ndarray = self.parts[0][index].astype(np.int64)
            return out
        out = np.empty(index.shape, dtype=np.int64)
        part = np.searchsorted(self.edges, index, side="right") - 1
        for j in np.unique(part):
            here = part == j
            out[here] = self.parts[j][index[here] - self.edges[j]]
        return out


@dataclass(frozen=True)
class Rows:
    """Spans of terms, laid out in rows: span j is the terms [begin_j, begin_j + length_j), of which the first
    skip_j are context alone.

    Row r holds the spans [first_r, first_{r+1}), one after the other.
    """

    begin: np.ndarray
    length: np.ndarray
    skip: np.ndarray
    first: np.ndarray

    def __len__(self) -> int:
        return len(self.first) - 1


class Tokens:
    """Text as a source: tokens, each to be made probable by those before it.

        Σ_t log p(x_t | x_<t, θ)

    Batches hold "input" and "target" (B, T), and "document" where a row holds several; their count is 0 for
    padding, for context alone, and for a document's first token if no token closes the one before. Of a
    `FastTokenizer` they hold "bytes" too, and `note` says where its tokens do not lead back to a text. Units of
    the standard error are documents; of one long document, blocks of 2000 terms.

    EmptyData, MalformedFile, UnknownLevel, BadArgument; UnknownColumn (a table without a column of texts)

    Parameters
    ----------
    data
        a folder or a file of UTF-8 text (each file a document; of .jsonl each line's "text"); a folder that
        `shards` wrote (mapped, never loaded whole); a list of texts, or a table with a column "text" (or one
        column alone); token ids, (n,), or a list of such documents
    tokenizer
        "bytes", "characters" (of these texts), or a tokenizer; of ids None will do (then bits per byte are
        not known)
    context
        T, terms of a row
    layout
        "stream", "padded", "packed"
    stride
        terms by which a window moves on when all are scored: less than `context` gives every term at least
        context − stride terms before it, at the price of reading some twice. None: context
    mask
        terms see their own document alone; False: a stream that is read across its documents' ends

    Examples
    --------
    >>> tokens = Tokens(["to be", "or not"], context=8, layout="padded")
    >>> tokens.documents, tokens.size, [tuple(b["input"].shape) for b in tokens.batches()]
    (2, 13, [(2, 7)])
    """

    units, target, padded = "token", "target", True

    def __init__(
        self,
        data: Data,
        tokenizer: str | Tokenizer | None = "bytes",
        *,
        context: int = 256,
        layout: str = "stream",
        stride: int | None = None,
        mask: bool = True,
    ):
        self.tokenizer: Tokenizer | None
        self.note: str  # what a score says of the text: empty where the tokens lead back to it
        self._measured: Stream | None  # bytes of text of each token, where the tokenizer alone does not know
        folder = usable(data, INSTEAD) if isinstance(data, (str, Path)) else None
        self.note, self._measured = "", None
        if folder is not None and (folder / HEADER).is_file():
            self.stream, self.starts, self.tokenizer, self._measured, self.note = _open(folder)
        elif _are_ids(data):
            self.tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else None
            self.stream, self.starts = _joined([_ids(d) for d in _several(data)], self.tokenizer)
        else:
            found = list(read(data))
            own = self.tokenizer = named(
                "bytes" if tokenizer is None else tokenizer, [text for _, text in found]
            )
            if isinstance(own, MeasuresText):
                self.stream, self.starts, self._measured, self.note = _joined_measured(found, own)
            else:
                self.stream, self.starts = _joined([own.encode(text) for _, text in found], own)
        self.closed = self.tokenizer is not None and self.tokenizer.end is not None
        self.low, self.high = 0, len(self.stream)
        self._lay_out(context, layout, stride, mask)

    def _lay_out(self, context: int, layout: str, stride: int | None, mask: bool) -> None:
        if context < 1 or (stride is not None and not 1 <= stride <= context):
            raise BadArgument(
                f"context={context}, stride={stride}. Accepted: context of 1 or more, stride of 1 … context."
            )
        if layout not in LAYOUTS or (layout != "stream" and not mask):
            raise BadArgument(
                f"layout={layout!r}, mask={mask}. Accepted: {', '.join(map(repr, LAYOUTS))}; mask=False for "
                "'stream'."
            )
        self.context, self.layout, self.stride, self.mask = (
            context,
            layout,
            context if stride is None else stride,
            mask,
        )
        self._rows: Rows | None = None
        self._fingerprint: str | None = None
        inside = self.starts[(self.starts > self.low) & (self.starts < self.high - 1)]
        self._inner = np.concatenate([[self.low], inside])  # where the documents of this view begin
        if self.high - self.low < 2 or self.size == 0:
            raise EmptyData(
                f"the data hold {self.high - self.low} tokens: a term needs one token and the one before it."
            )

    # ---- what it holds -------------------------------------------------------------------------------------

    @property
    def vocabulary(self) -> int:
        """V: the tokenizer's; of bare ids, the largest and one."""
        if self.tokenizer is not None:
            return self.tokenizer.vocabulary
        return 1 + max(int(part.max()) for part in self.stream.parts)

    @property
    def documents(self) -> int:
        return len(self._inner)

    @property
    def size(self) -> int:
        """Terms that are scored in a pass."""
        return self.high - self.low - 1 - (0 if self.closed or not self.mask else self.documents - 1)

    observations = size

    @property
    def fingerprint(self) -> str:
        """Of the tokens scored and of the documents' ends, however they are laid out."""
        if self._fingerprint is None:
            tokens, ends = Digest(), Digest()
            for a in range(self.low, self.high, 1 << 20):
                tokens.update(torch.from_numpy(self.stream.take(np.arange(a, min(a + (1 << 20), self.high)))))
            ends.update(torch.from_numpy(self._inner - self.low))
            self._fingerprint = joined([tokens.hexdigest(), ends.hexdigest()])
        return self._fingerprint

    def bytes(self, batch: Batch) -> Tensor | None:
        """How many bytes of text each term stands for, of batch.shape; None if that is not known."""
        if "bytes" in batch:
            own: Tensor = batch["bytes"].cpu().to(torch.float64)
            return own
        lengths = None if self.tokenizer is None else self.tokenizer.lengths
        return None if lengths is None else torch.from_numpy(lengths)[batch["target"].cpu()].to(torch.float64)

    def decode(self, tokens: Data) -> str:
        """The text of tokens."""
        if self.tokenizer is None:
            raise BadArgument("bare token ids have no text: give a tokenizer.")
        return self.tokenizer.decode(torch.as_tensor(tokens).reshape(-1).tolist())

    # ---- other views ---------------------------------------------------------------------------------------

    def laid_out(
        self,
        *,
        context: int | None = None,
        layout: str | None = None,
        stride: int | None = None,
        mask: bool | None = None,
    ) -> Tokens:
        """The same tokens in other windows."""
        out = copy.copy(self)
        out._lay_out(
            context or self.context, layout or self.layout, stride, self.mask if mask is None else mask
        )
        return out

    def split(self, fraction: float, generator: torch.Generator | None = None) -> tuple[Tokens, Tokens]:
        """(what is left, the last part): about `fraction` of the tokens, cut where a document begins if there
        are several.

        Nothing is drawn: neighbouring windows of a text are not independent, and its end is the fairest test
        of its beginning.
        """
        if not 0 < fraction < 1:
            raise BadArgument(f"fraction={fraction}. Accepted: a number in (0, 1).")
        cut = self.low + int((self.high - self.low) * (1 - fraction))
        rest, out = copy.copy(self), copy.copy(self)
        if self.documents > 1 and self.mask:
            inner = self._inner[1:]
            cut = int(inner[np.abs(inner - cut).argmin()])
        rest.high, out.low = cut + int(self.closed and cut in self.starts), cut
        for part in (rest, out):
            part._lay_out(self.context, self.layout, self.stride, self.mask)
        return rest, out

    # ---- rows ----------------------------------------------------------------------------------------------

    @property
    def rows(self) -> Rows:
        if self._rows is None:
            if self.layout == "stream":
                self._rows = _alone(*_windows(self.low, self.high - 1, self.context, self.stride))
            else:
                ends = [*self._inner[1:] - (0 if self.closed else 1), self.high - 1]
                spans = [
                    _windows(a, b, self.context, self.stride) for a, b in zip(self._inner, ends, strict=True)
                ]
                begin, length, skip = (np.concatenate(p) for p in zip(*spans, strict=True))
                self._rows = (
                    _alone(begin, length, skip)
                    if self.layout == "padded"
                    else _packed(begin, length, skip, self.context)
                )
        return self._rows

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """Every term once, in order."""
        many = max(1, TERMS // self.context)
        for a in range(0, len(self.rows), many):
            yield self._batch(self.rows, np.arange(a, min(a + many, len(self.rows))), grouped=True)

    def epoch(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every term once, in rows of a random order, `size` rows at a time. Windows of a stream begin
        elsewhere in every epoch."""
        rows = self.rows
        if self.layout == "stream":
            phase = int(torch.randint(self.context, (), generator=generator))
            begin = np.arange(self.low - phase, self.high - 1, self.context)
            ends = np.minimum(begin + self.context, self.high - 1)
            begin = np.maximum(begin, self.low)
            rows = _alone(begin, ends - begin, np.zeros_like(begin))
        for part in torch.randperm(len(rows), generator=generator).split(size):
            yield self._batch(rows, part.numpy(), grouped=False)

    def _batch(self, rows: Rows, chosen: np.ndarray, grouped: bool) -> Batch:
        """The chosen rows, as wide as the longest of them."""
        many = rows.first[chosen + 1] - rows.first[chosen]
        spans = np.repeat(rows.first[chosen] - np.cumsum(many) + many, many) + np.arange(many.sum())
        length = rows.length[spans]
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        term = np.repeat(rows.begin[spans], length) + within
        row = np.repeat(np.repeat(np.arange(len(chosen)), many), length)
        used = np.bincount(row, minlength=len(chosen))
        column = np.arange(len(row)) - np.repeat(np.cumsum(used) - used, used)
        shape = (len(chosen), int(used.max()))

        def laid(values: np.ndarray, empty: int) -> Tensor:
            out = np.full(shape, empty, dtype=np.int64)
            out[row, column] = values
            return torch.from_numpy(out)

        tensors = {"input": laid(self.stream.take(term), 0), "target": laid(self.stream.take(term + 1), 0)}
        if self._measured is not None:
            tensors["bytes"] = laid(self._measured.take(term + 1), 0)
        scored = within >= np.repeat(rows.skip[spans], length)
        document = np.searchsorted(self.starts, term, side="right")
        if self.mask and self.documents > 1:
            if not self.closed:
                scored &= np.searchsorted(self.starts, term + 1, side="right") == document
            if bool(((document[1:] != document[:-1]) & (row[1:] == row[:-1])).any()):
                tensors["document"] = laid(document, -1)
        whole = bool(scored.all()) and len(row) == shape[0] * shape[1]
        count = None if whole else laid(scored.astype(np.int64), 0).to(torch.float32)
        unit = document if self.documents > 1 else (term - self.low) // BLOCK
        return Batch(tensors, count=count, group=laid(unit, -1) if grouped else None, dims=2)


def _windows(low: int, high: int, context: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """begin, length and skip of the windows that score the terms [low, high), each once."""
    many = 1 if high - low <= context else 1 + -(-(high - low - context) // stride)
    begin = low + stride * np.arange(many)
    length = np.minimum(begin + context, high) - begin
    skip = np.full(many, context - stride)
    skip[0] = 0
    some = length > skip
    return begin[some], length[some], skip[some]


def _alone(begin: np.ndarray, length: np.ndarray, skip: np.ndarray) -> Rows:
    return Rows(begin, length, skip, np.arange(len(begin) + 1))


def _packed(begin: np.ndarray, length: np.ndarray, skip: np.ndarray, context: int) -> Rows:
    """A span joins the row of the one before it if it fits there: the order of the terms stays."""
    first, used = [0], 0
    for j, n in enumerate(length.tolist()):
        if used + n > context and used:
            first.append(j)
            used = 0
        used += n
    return Rows(begin, length, skip, np.array([*first, len(begin)]))


# ---- where tokens come from --------------------------------------------------------------------------------


def read(data: Data) -> Iterator[tuple[str, str]]:
    """(name, text) of each document of a folder, a file, or a list of texts.

    Raises
    ------
    EmptyData
        no file, no text, or an empty one
    MalformedFile
        not UTF-8, or binary
    """
    if isinstance(data, (str, Path)):
        path = usable(data, INSTEAD)
        if not path.exists():
            raise MalformedFile(f"{str(data)!r} is neither a file nor a folder. {INSTEAD}")
        files = (
            [path]
            if path.is_file()
            else sorted(f for f in path.rglob("*") if f.is_file() and not f.name.startswith("."))
        )
        if not files:
            raise EmptyData(f"the folder {str(path)!r} holds no files.")
        for file in files:
            yield from _read_file(file)
        return
    texts = _texts(data)
    if not texts:
        raise EmptyData("the list of texts is empty.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadArgument(
                f"document {i} is a {type(text).__name__}. Accepted: a list of texts, or of arrays of token "
                "ids."
            )
        if not text:
            raise EmptyData(f"document {i} is empty.")
        yield f"document {i}", text


def _texts(data: Data) -> list[Data]:
    """The documents of a list, a column, or a table with a column of texts."""
    columns = list(data) if isinstance(data, Mapping) else getattr(data, "columns", None)
    if columns is None:
        try:
            return list(data)
        except TypeError as error:
            raise BadArgument(
                f"data is a {type(data).__name__}. Accepted: a path, a list of texts, token ids."
            ) from error
    names = [str(name) for name in columns]
    if TEXT not in names and len(names) != 1:
        raise UnknownColumn(
            f"a table of texts has them in a column {TEXT!r}, or has one column; this has: "
            f"{', '.join(names)}."
        )
    return list(data[TEXT] if TEXT in names else data[next(iter(columns))])


def _read_file(file: Path) -> Iterator[tuple[str, str]]:
    content = file.read_bytes()
    if not content:
        raise EmptyData(f"the file {str(file)!r} is empty.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedFile(
            f"{str(file)!r} is no UTF-8 text: byte {content[error.start]:#04x} at {error.start}."
        ) from error
    if "\0" in text:
        raise MalformedFile(f"{str(file)!r} is binary, not text: it has a zero byte at {content.index(0)}.")
    if file.suffix != ".jsonl":
        yield file.name, text
        return
    empty = True
    for number, line in enumerate(
        text.removeprefix("\ufeff").split("\n"), 1
    ):  # and at nothing else: U+2028 is a character of a string
        if not line.strip():
            continue
        empty = False
        try:
            own = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedFile(f"{str(file)!r}, line {number}: no JSON object with a 'text'.") from error
        if not isinstance(own, str) or not own:
            raise MalformedFile(f"{str(file)!r}, line {number}: its 'text' is {own!r}, and no text.")
        yield f"{file.name}:{number}", own
    if empty:
        raise EmptyData(f"the file {str(file)!r} has blank lines alone.")


def _are_ids(data: Data) -> bool:
    if isinstance(data, np.ndarray) and data.dtype.kind in "UO":
        return False  # of texts
    return isinstance(data, (Tensor, np.ndarray)) or (
        isinstance(data, (list, tuple)) and len(data) > 0 and isinstance(data[0], (Tensor, np.ndarray, int))
    )


def _several(data: Data) -> list[Data]:
    return [data] if isinstance(data, (Tensor, np.ndarray)) or isinstance(data[0], int) else list(data)


def _ids(document: Data) -> np.ndarray:
    ids = np.asarray(document)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise BadArgument(f"token ids are whole numbers, (n,); received {ids.dtype} of shape {ids.shape}.")
    return ids


def _dtype(vocabulary: int) -> type[np.unsignedinteger]:
    return np.uint8 if vocabulary <= 1 << 8 else np.uint16 if vocabulary <= 1 << 16 else np.uint32


def _checked(ids: np.ndarray, vocabulary: int | None, where: str) -> np.ndarray:
    high = np.iinfo(np.uint32).max if vocabulary is None else vocabulary - 1
    bad = (ids < 0) | (ids > high)
    if bad.any():
        at = int(np.argmax(bad))
        raise UnknownLevel(f"{where}: the token {int(ids[at])} at {at} is outside the vocabulary 0 … {high}.")
    return ids


def _joined(documents: Iterable[np.ndarray], tokenizer: Tokenizer | None) -> tuple[Stream, np.ndarray]:
    """The stream in memory, and where each document begins (at the token that closes the one before, if
    there is one)."""
    end = None if tokenizer is None else tokenizer.end
    vocabulary = None if tokenizer is None else tokenizer.vocabulary
    parts = [_checked(d, vocabulary, f"document {i}") for i, d in enumerate(documents)]
    largest = max((int(p.max()) for p in parts if len(p)), default=0) + 1
    dtype = _dtype(largest if vocabulary is None else vocabulary)
    lengths = np.array([len(p) + (end is not None) for p in parts], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    closing = np.array([] if end is None else [end], dtype=dtype)
    pieces = [closing] + [p for d in parts for p in (d.astype(dtype), closing)]
    return Stream([np.concatenate(pieces)]), starts


def _joined_measured(
    found: Sequence[tuple[str, str]], tokenizer: Tokenizer
) -> tuple[Stream, np.ndarray, Stream, str]:
    """`_joined`, the bytes of text of each token beside them, and what is to be said of the text."""
    assert isinstance(tokenizer, MeasuresText)
    trip = RoundTrip()
    parts: list[np.ndarray] = []
    closing = np.array([] if tokenizer.end is None else [0], dtype=np.uint32)
    measured = [closing]
    for name, text in found:
        ids, spans = tokenizer.measured(text)
        trip.add(tokenizer, text, name)
        parts.append(ids)
        measured += [spans.astype(np.uint32), closing]
    return (*_joined(parts, tokenizer), Stream([np.concatenate(measured)]), trip.note)


# ---- shards ------------------------------------------------------------------------------------------------


def shards(
    data: Data, folder: str | Path, tokenizer: str | Tokenizer = "bytes", *, tokens: int = 1 << 27
) -> Path:
    """Write text as shards of tokens that `Tokens(folder)` maps: one document in memory at a time.

    The header is written last, aside first and then renamed: a folder without it was not finished.

    Parameters
    ----------
    data
        as of `Tokens`, not ids
    folder
        made if it is not there; a folder that holds shards is refused
    tokenizer
        "bytes", or a tokenizer
    tokens
        of a shard (a document is never cut: the last may make it longer)

    Returns
    -------
    Path
    """
    own, folder = named(tokenizer), usable(folder)
    if (folder / HEADER).exists():
        raise BadArgument(f"{str(folder)!r} holds shards already.")
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.dtype(_dtype(own.vocabulary)).newbyteorder("<")
    closing = np.array([] if own.end is None else [own.end], dtype=dtype)
    sizes: list[int] = []
    starts, at = [], 0
    trip, measures = RoundTrip(), isinstance(own, MeasuresText)
    for name, text in read(data):
        new, first = not sizes or sizes[-1] >= tokens, at == 0
        if new:
            sizes.append(0)
        shard = folder / _shard(len(sizes) - 1)
        if isinstance(own, MeasuresText):
            encoded, spans = own.measured(text)
            trip.add(own, text, name)
            none = np.zeros(len(closing), dtype=MEASURED)
            _write(shard.with_suffix(".bytes"), new, [none] * first + [spans.astype(MEASURED), none])
        else:
            encoded = own.encode(text)
        ids = _checked(encoded, own.vocabulary, name).astype(dtype)
        starts.append(at if own.end is None else max(at - 1, 0))
        written = _write(shard, new, [closing] * first + [ids, closing])
        sizes[-1] += written
        at += written
    np.save(folder / "documents.npy", np.array(starts, dtype=np.int64))
    header = {
        "format": "thetahat tokens",
        "version": 1,
        "dtype": dtype.str,
        "tokens": sizes,
        "tokenizer": own.to_config(),
    } | ({"measured": True, "note": trip.note} if measures else {})
    aside = folder / f"{HEADER}.part"
    aside.write_text(json.dumps(header), encoding="utf-8")
    aside.rename(folder / HEADER)
    return folder


def _write(path: Path, new: bool, parts: list[np.ndarray]) -> int:
    """Append arrays to a file, or begin it; how many values were written."""
    with open(path, "wb" if new else "ab") as file:
        for part in parts:
            file.write(part.tobytes())
    return sum(len(part) for part in parts)


def _shard(i: int) -> str:
    return f"tokens-{i:05}.bin"


def _open(folder: Path) -> tuple[Stream, np.ndarray, Tokenizer, Stream | None, str]:
    """The shards of a folder, mapped: tokens, where documents begin, the tokenizer, bytes of each token, the note."""
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
        version, sizes, dtype = header["version"], header["tokens"], np.dtype(header["dtype"])
        tokenizer, note = from_config(header["tokenizer"]), str(header.get("note", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedFile(f"{str(folder / HEADER)!r} cannot be read: {error!r}.") from error
    if version != 1:
        raise MalformedFile(
            f"{str(folder / HEADER)!r} is of version {version}; this library reads version 1."
        )
    stream = _mapped([folder / _shard(i) for i in range(len(sizes))], sizes, dtype)
    starts = np.load(folder / "documents.npy", allow_pickle=False)
    if not header.get("measured"):
        return stream, starts, tokenizer, None, note
    beside = [(folder / _shard(i)).with_suffix(".bytes") for i in range(len(sizes))]
    return stream, starts, tokenizer, _mapped(beside, sizes, np.dtype(MEASURED)), note


def _mapped(paths: list[Path], sizes: list[int], dtype: np.dtype[Any]) -> Stream:
    parts = []
    for path, size in zip(paths, sizes, strict=True):
        have = path.stat().st_size if path.is_file() else -1
        if have != size * dtype.itemsize:
            raise MalformedFile(
                f"{str(path)!r} has {max(have, 0)} bytes of {size * dtype.itemsize}: cut short, or another's."
            )
        parts.append(np.memmap(path, dtype=dtype, mode="r"))
    return Stream(parts)
