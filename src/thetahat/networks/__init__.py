"""Functions with parameters: no likelihood in here."""

from ..made import record
from .mlp import mlp
from .normaliser import Normaliser
from .standardise import Standardise
from .transformer import Transformer

record(Normaliser, Standardise, Transformer)

__all__ = [
    "Normaliser",
    "Standardise",
    "Transformer",
    "mlp",
]
