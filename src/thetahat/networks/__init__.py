"""Functions with parameters: no likelihood in here."""

from ..made import record
from .convolution import Convolution
from .mlp import mlp
from .normaliser import Normaliser
from .standardise import Standardise
from .transformer import Transformer

record(Convolution, Normaliser, Standardise, Transformer)

__all__ = [
    "Convolution",
    "Normaliser",
    "Standardise",
    "Transformer",
    "mlp",
]
