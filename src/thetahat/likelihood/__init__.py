"""The objective: log-likelihood terms, log-priors, their sum."""

from ..models.information import Information
from ..models.taylor import Taylor
from . import priors, weights
from .objective import LogLikelihood, LogPrior, Objective
from .total import total

__all__ = ["Information", "LogLikelihood", "LogPrior", "Objective", "Taylor", "priors", "total", "weights"]
