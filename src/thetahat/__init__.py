"""thetahat: maximum likelihood as the one principle.

    maximise over θ:    Σ_i w_i · log p(x_i | θ)  +  log p(θ)

Examples
--------
>>> fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]}).certificate.ok
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import data, errors, families, likelihood, models, networks, solvers
from .families import loss
from .fit import fit, maximize
from .likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed, priors, weights
from .models.custom import interval, latent, ordered, positive, simplex
from .models.own import model
from .result import Fit
from .solvers import EM, LBFGS, Certificate, ClosedForm, GaussNewton, Newton, Proximal, Stochastic

if TYPE_CHECKING:
    from . import evaluation, generative, inference, io, language, preferences, report, rl, sklearn
    from .evaluation.compare import compare
    from .generative.audit import audit
    from .report.table import table

__version__ = "0.1.0"

# Loaded when asked for: they bring pandas, scikit-learn, altair. A name is either a module or a function of
# one.
_LATER = {
    "audit": "generative.audit",
    "compare": "evaluation.compare",
    "load": "io.loading",
    "table": "report.table",
} | {
    name: name
    for name in (
        "evaluation",
        "generative",
        "inference",
        "io",
        "language",
        "preferences",
        "report",
        "rl",
        "sklearn",
    )
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'thetahat' has no attribute {name!r}")
    module = import_module(f".{_LATER[name]}", __name__)
    return module if _LATER[name] == name else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "EM",
    "LBFGS",
    "Certificate",
    "ClosedForm",
    "DensityPower",
    "Fit",
    "GaussNewton",
    "LogLikelihood",
    "LogPrior",
    "Newton",
    "Objective",
    "Proximal",
    "Stochastic",
    "Trimmed",
    "audit",
    "compare",
    "data",
    "errors",
    "evaluation",
    "families",
    "fit",
    "generative",
    "inference",
    "interval",
    "io",
    "language",
    "latent",
    "likelihood",
    "load",
    "loss",
    "maximize",
    "model",
    "models",
    "networks",
    "ordered",
    "positive",
    "preferences",
    "priors",
    "report",
    "rl",
    "simplex",
    "sklearn",
    "solvers",
    "table",
    "weights",
]
