"""A file of tensors and JSON: safetensors, whose metadata hold one entry, of JSON, that begins with a
checksum over every byte.

    "thetahat fit": {"checksum": 32 hex digits, "version": 1, "library": "0.1.0", "fit": …}

The same fit gives the same bytes. The checksum is BLAKE2b of the whole file with zeros in the checksum's own
place. It finds damage, not malice: whoever can rewrite the file can rewrite it too, which is why nothing that
is read is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import safetensors
import safetensors.torch
from torch import Tensor

from ..errors import BadArgument, BadSave, NotWritten
from ..files import replacing, usable
from ..types import Named, Settings

FORMAT, VERSION = "thetahat fit", 1
HEADER = 90_000_000  # bytes of JSON; a safetensors header may have 100 million
_CHECKSUM = re.compile(
    rb'.{8}\{"__metadata__":\{"thetahat fit":"\{\\"checksum\\":\\"([0-9a-f]{32})', re.DOTALL
)
_ZERO = "0" * 32


def write(path: Path, content: Named, tensors: Mapping[str, Tensor], library: str) -> None:
    """Write the file. Another file than one of this format is not overwritten.

    Raises
    ------
    BadArgument
        another file is there, or the path is not one of a file
    NotWritten
        the disk is full
    """
    path = usable(path)
    if path.exists() and not is_ours(path):
        raise BadArgument(
            f"{path} exists and is not a saved fit: it is not overwritten. Give another path, or remove it."
        )
    whole = {"checksum": _ZERO, "version": VERSION, "library": library, "fit": content}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if len(text.encode()) > HEADER:
        raise BadArgument(
            f"the names in the fit take {len(text.encode()) >> 20} MB, more than the header of a file can "
            "hold."
        )
    with replacing(path) as part:
        try:
            safetensors.torch.save_file(_apart(tensors), str(part), metadata={FORMAT: text})
        except safetensors.SafetensorError as error:  # a full disk, among others: it is no OSError
            raise NotWritten.of(path, OSError(str(error))) from error
        with part.open("rb+") as file:
            header = _header(file)
            place = _CHECKSUM.match(header)
            assert place is not None
            digest = _digest(file, header)
            file.seek(place.start(1))
            file.write(digest.encode())


def read(path: Path, library: str) -> tuple[Settings, dict[str, Tensor]]:
    """The checked content of a file.

    Raises
    ------
    BadSave
        no such file, no file of this format, one of another version, cut short or changed
    """
    if not usable(path).is_file():
        raise BadSave(f"there is no file {path}.")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a mapping)
    except Exception as error:  # safetensors' own errors have no common public base
        raise BadSave(
            f"{path} is not a saved fit, or was cut short or damaged ({error}). Fetch the file again, or save "
            "the fit again."
        ) from error
    if FORMAT not in metadata:
        raise BadSave(
            f"{path} is a safetensors file, but no saved fit. th.load reads what fit.save(path) wrote."
        )
    try:
        whole = json.loads(metadata[FORMAT])
        version, checksum, content = whole["version"], whole["checksum"], whole["fit"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadSave(
            f"{path} holds no readable description of a fit ({error!r}). Save the fit again."
        ) from error
    if not (type(version) is int and 1 <= version <= VERSION):
        raise BadSave(
            f"{path} is of version {version!r} (written by thetahat {whole.get('library', '?')}); thetahat "
            f"{library} reads "
            f"versions up to {VERSION}. Upgrade thetahat."
        )
    with path.open("rb") as opened:
        header = _header(opened)
        if _CHECKSUM.match(header) is None or checksum != _digest(opened, header):
            raise BadSave(
                f"{path} was changed since it was saved: its checksum does not hold. Fetch the file again, "
                "or save the fit again."
            )
    return content, tensors


def is_ours(path: Path) -> bool:
    """Whether a file is of this format, of whatever version."""
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return FORMAT in (file.metadata() or {})
    except Exception:  # as above
        return False


def _header(file: BinaryIO) -> bytes:
    """The first bytes: the header's length and the header; `file` then stands at its end."""
    file.seek(0)
    size = file.read(8)
    return size + file.read(int.from_bytes(size, "little"))


def _digest(file: BinaryIO, header: bytes) -> str:
    place = _CHECKSUM.match(header)
    assert place is not None
    h = hashlib.blake2b(header[: place.start(1)] + _ZERO.encode() + header[place.end(1) :], digest_size=16)
    file.seek(len(header))
    while block := file.read(1 << 20):
        h.update(block)
    return h.hexdigest()


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in memory of its own: safetensors writes no shared memory (tied weights, views)."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        storage = own.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() != own.numel() * own.element_size()
        out[name] = own.clone() if shared else own
        seen.add(out[name].untyped_storage().data_ptr())
    return out
