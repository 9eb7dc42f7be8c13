"""Weights: how much each term counts. A weighting sees the batch and log p, detached; weights never carry gradient."""

from __future__ import annotations

from typing import Any

from .returns import RewardToGo

registry: dict[str, Any] = {
    "reward_to_go": RewardToGo,
}

__all__ = ["RewardToGo", "registry"]
