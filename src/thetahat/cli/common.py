"""What every command takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

Data = Annotated[Path, arg(metavar="DATA")]
Covariance = Literal[
    "auto", "observed", "expected", "ols", "sandwich", "HC0", "HC1", "HC2", "HC3", "cluster", "CR2", "CR3", "HAC", "sparsity", "bootstrap"
]  # fmt: skip
Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True)
class Common:
    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """One strict JSON document on stdout, and nothing else there."""
    traceback: Annotated[bool, arg(help_behavior_hint="")] = False
    """Show where an error was raised."""
