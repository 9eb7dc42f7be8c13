"""Weights: how much each term counts. A weighting sees the batch and log p, detached; weights never carry gradient."""

from __future__ import annotations

from typing import Any

from .advantage import GAE, Advantage, Clipped
from .generations import RLOO, GroupRelative, Penalised, kl_estimate
from .importance import Importance
from .noise import MinSNR, Simple
from .returns import RewardToGo

registry: dict[str, Any] = {
    "advantage": Advantage,
    "clipped": Clipped,
    "importance": Importance,
    "min_snr": MinSNR,
    "penalised": Penalised,
    "reward_to_go": RewardToGo,
    "simple": Simple,
}

__all__ = [
    "GAE",
    "RLOO",
    "Advantage",
    "Clipped",
    "GroupRelative",
    "Importance",
    "MinSNR",
    "Penalised",
    "RewardToGo",
    "Simple",
    "kl_estimate",
    "registry",
]
