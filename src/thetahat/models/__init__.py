"""p(data | θ): one readable file a model."""

from .base import Model
from .regression import Regression

__all__ = ["Model", "Regression"]
