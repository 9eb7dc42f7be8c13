"""`thetahat fit FORMULA DATA`."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import BadArgument
from ..families.registry import NONPARAMETRIC
from .arguments import Fit
from .outputs import check_outputs, prior_of, shown
from .screen import Screen


def fit_formula(command: Fit, screen: Screen) -> int:
    check_outputs(command.data, command.save, command.report, command.level)
    if command.family in NONPARAMETRIC and (command.save is not None or command.report is not None):
        raise BadArgument(
            f"--family {command.family} gives curves, which are not saved as a model, and have no report. Leave --save and "
            "--report out; in Python fit.curves() is a table."
        )
    priors = [prior_of(text) for text in command.prior]
    parameters = dict(_assigned(text) for text in command.set)
    with screen.busy("fitting"):
        from ..fitting import fit

        found = fit(
            command.formula,
            str(command.data),
            command.family,
            weights=command.weights,
            prior=priors or None,
            missing=command.missing,
            robust=command.robust,
            on_failure=command.on_failure,
            covariance=None if command.covariance == "auto" else command.covariance,
            by=list(command.by) or None,
            reml=command.reml,
            quadrature=command.quadrature,
            **parameters,
        )
        summary = found.summary(level=command.level)
    return shown(found, summary, screen, command.json, command.save, command.report)


# ---- words to values ---------------------------------------------------------------------------------------


def _assigned(text: str) -> tuple[str, Any]:
    """--set name=value: a formula, a number, or a column."""
    name, equals, value = text.partition("=")
    name, value = name.strip(), value.strip()
    if not (name and equals and value):
        raise BadArgument(
            f"--set {text!r}. Accepted: NAME=VALUE, such as dispersion='~ age', df=4, trials=n."
        )
    from ..fitting import fit

    if name in inspect.signature(fit).parameters:
        raise BadArgument(f"--set {name}=… is not a parameter of a family. Use --{name.replace('_', '-')}.")
    try:
        return name, float(value)
    except ValueError:
        return name, value
