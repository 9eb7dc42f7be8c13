"""What was observed: batches and where they come from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import maps
from .batch import Batch
from .finite import FiniteMDP
from .loaded import Items, Loaded
from .shipped import shipped
from .source import Source, Tensors
from .transformed import Transformed

if TYPE_CHECKING:
    from .engines.dask import Dask
    from .engines.duckdb import DuckDB
    from .engines.ray import Ray
    from .engines.spark import Spark
    from .frame import Frame
    from .table import Encoder, Table

_LATER = {
    "Dask": "engines.dask",
    "DuckDB": "engines.duckdb",
    "Encoder": "table",
    "Frame": "frame",
    "Ray": "engines.ray",
    "Spark": "engines.spark",
    "Table": "table",
}  # they bring pandas, pyarrow and formulaic: loaded when asked for


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)


__all__ = [
    "Batch",
    "Dask",
    "DuckDB",
    "Encoder",
    "FiniteMDP",
    "Frame",
    "Items",
    "Loaded",
    "Ray",
    "Source",
    "Spark",
    "Table",
    "Tensors",
    "Transformed",
    "maps",
    "shipped",
]
