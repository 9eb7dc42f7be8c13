"""Functions with parameters: no likelihood in here."""

from .mlp import mlp

__all__ = ["mlp"]
