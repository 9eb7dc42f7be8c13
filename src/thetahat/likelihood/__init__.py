"""The objective: log-likelihood terms, log-priors, their sum."""

from ..models.information import Information
from ..models.taylor import Taylor
from . import priors, weights
from .objective import LogLikelihood, LogPrior, Objective
from .robust import DensityPower, Trimmed
from .total import total

__all__ = [
    "DensityPower",
    "Information",
    "LogLikelihood",
    "LogPrior",
    "Objective",
    "Taylor",
    "Trimmed",
    "priors",
    "total",
    "weights",
]
