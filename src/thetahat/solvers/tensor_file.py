"""Tensors as the bytes of a safetensors file, one after the other: nothing is copied, and other threads run meanwhile
(`safetensors.torch.save` copies everything and holds Python's lock).

    8 bytes, the length of the header, least first | the header: JSON, padded with spaces to a multiple of 8 | the tensors

Reference: https://huggingface.co/docs/safetensors, format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..errors import BadArgument

# in the order of a file: the widest first, so that each begins at a multiple of its own width
TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The parts of the file, in order.

    Examples
    --------
    >>> from safetensors.torch import load, save
    >>> raw = b"".join(parts({"a": torch.arange(3), "b": torch.ones(2, 2)}, {"of": "a test"}))
    >>> load(raw)["b"].shape, raw == save({"a": torch.arange(3), "b": torch.ones(2, 2)}, {"of": "a test"})
    (torch.Size([2, 2]), True)
    """
    for name, t in tensors.items():
        if t.dtype not in TYPES:
            raise BadArgument(f"tensor {name!r} is of {t.dtype}. Accepted: {', '.join(map(str, TYPES))}.")
    kinds = list(TYPES)
    order = sorted(tensors, key=lambda name: (kinds.index(tensors[name].dtype), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name in order:
        t = tensors[name]
        header[name] = {
            "dtype": TYPES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [at, at := at + t.numel() * t.element_size()],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for name in order:
        if tensors[name].numel():
            yield tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data
