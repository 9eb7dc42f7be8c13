"""Weights: how much each term counts. A weighting sees the batch and log p, detached; weights never carry
gradient."""

from __future__ import annotations

from .importance import Importance
from .probability import Probability
from .variance import Variance

__all__ = ["Importance", "Probability", "Variance"]
