"""thetahat: maximum likelihood as the one principle.

    maximise over θ:    Σ_i w_i · log p(x_i | θ)  +  log p(θ)
"""

from __future__ import annotations



from . import data, errors, families, likelihood, models, networks
from .errors import *  # noqa: F403
from .fit import Fit, fit, maximize
from .likelihood import LogLikelihood, LogPrior, Objective, priors, weights
from .models.custom import interval, model, ordered, positive, simplex
from .solvers import LBFGS, Certificate, Newton, Stochastic

__version__ = "0.1.0"
