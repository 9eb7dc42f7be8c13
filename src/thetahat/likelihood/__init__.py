"""The objective: log-likelihood terms, log-priors, their sum."""

from . import priors
from ..models.information import Information
from .objective import LogLikelihood, LogPrior, Objective
from ..models.taylor import Taylor
from .total import total

__all__ = ["Information", "LogLikelihood", "LogPrior", "Objective", "Taylor", "priors", "total"]
