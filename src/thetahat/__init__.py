"""thetahat: maximum likelihood as the one principle.

    maximise over θ:    Σ_i w_i · log p(x_i | θ)  +  log p(θ)

Examples
--------
>>> import thetahat as th
>>> th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]}).certificate.ok
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        data,
        errors,
        evaluation,
        families,
        generative,
        inference,
        io,
        language,
        likelihood,
        models,
        networks,
        preferences,
        report,
        rl,
        sklearn,
        solvers,
    )
    from .evaluation.compare import compare
    from .families import loss
    from .fit_tests import anova
    from .fitting import fit, maximize
    from .generative.audit import audit
    from .io.loading import load
    from .likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed, priors, weights
    from .models.custom import interval, latent, ordered, positive, simplex
    from .models.own import model
    from .report.table import table
    from .result import Fit
    from .solvers import EM, LBFGS, Certificate, ClosedForm, GaussNewton, Newton, Proximal, Stochastic

__version__ = "0.1.0"

# Every name is loaded when it is first asked for: the command reads its arguments, and says its help, without torch.
_MODULES = (
    "data",
    "errors",
    "evaluation",
    "families",
    "generative",
    "inference",
    "io",
    "language",
    "likelihood",
    "models",
    "networks",
    "preferences",
    "report",
    "rl",
    "sklearn",
    "solvers",
)
_NAMES = {
    "fitting": ("fit", "maximize"),
    "result": ("Fit",),
    "families": ("loss",),
    "likelihood": ("DensityPower", "LogLikelihood", "LogPrior", "Objective", "Trimmed", "priors", "weights"),
    "models.custom": ("interval", "latent", "ordered", "positive", "simplex"),
    "models.own": ("model",),
    "solvers": (
        "EM",
        "LBFGS",
        "Certificate",
        "ClosedForm",
        "GaussNewton",
        "Newton",
        "Proximal",
        "Stochastic",
    ),
    "generative.audit": ("audit",),
    "evaluation.compare": ("compare",),
    "fit_tests": ("anova",),
    "io.loading": ("load",),
    "report.table": ("table",),
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module 'thetahat' has no attribute {name!r}")
    found = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Certificate",
    "ClosedForm",
    "DensityPower",
    "EM",
    "Fit",
    "GaussNewton",
    "LBFGS",
    "LogLikelihood",
    "LogPrior",
    "Newton",
    "Objective",
    "Proximal",
    "Stochastic",
    "Trimmed",
    "anova",
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
