"""p(data | θ): one readable file a model."""

from ..made import record
from .base import Model
from .conditional import Conditional
from .density import Density
from .hmm import HMM
from .mixture import Mixture
from .regression import Regression
from .tempered import Tempered

record(Conditional, Tempered)

__all__ = [
    "HMM",
    "Conditional",
    "Density",
    "Mixture",
    "Model",
    "Regression",
    "Tempered",
]
