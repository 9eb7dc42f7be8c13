"""Weights: how much each term counts. A weighting sees the batch and log p, detached; weights never carry gradient."""

from __future__ import annotations

from typing import Any

from .advantage import GAE, Advantage, Clipped
from .generations import RLOO, GroupRelative, Penalised, kl_estimate
from .importance import Importance
from .noise import MinSNR, Simple
from .probability import Probability
from .returns import RewardToGo
from .variance import Variance

registry: dict[str, Any] = {
    "advantage": Advantage,
    "clipped": Clipped,
    "importance": Importance,
    "min_snr": MinSNR,
    "penalised": Penalised,
    "probability": Probability,
    "reward_to_go": RewardToGo,
    "simple": Simple,
    "variance": Variance,
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
    "Probability",
    "RewardToGo",
    "Simple",
    "Variance",
    "kl_estimate",
    "registry",
]
