"""What was observed: batches and where they come from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import maps
from .augmented import Augmented, Shifts
from .batch import Batch
from .finite import FiniteMDP
from .generations import Generations
from .images import Binarised, Images
from .noised import Noised
from .pairs import Pair, Pairs
from .preferences import Preferences
from .rankings import Rankings
from .replay import Replay
from .rollouts import Rollouts
from .shipped import shipped
from .source import Source, Tensors
from .token_pairs import TokenPairs
from .tokenizers import BPE, Bytes, Characters
from .tokens import Tokens, shards
from .transformed import Transformed
from .words import Words

if TYPE_CHECKING:
    from .frame import Frame
    from .table import Encoder, Table

_LATER = {
    "Encoder": "table",
    "Frame": "frame",
    "Table": "table",
}  # they bring pandas, pyarrow and formulaic: loaded when asked for


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)


__all__ = [
    "Augmented",
    "BPE",
    "Batch",
    "Binarised",
    "Bytes",
    "Characters",
    "Encoder",
    "FiniteMDP",
    "Frame",
    "Generations",
    "Images",
    "Noised",
    "Pair",
    "Pairs",
    "Preferences",
    "Replay",
    "Rankings",
    "Rollouts",
    "Shifts",
    "Source",
    "Table",
    "Tensors",
    "TokenPairs",
    "Tokens",
    "Transformed",
    "Words",
    "maps",
    "shards",
    "shipped",
]
