"""`thetahat fit FORMULA DATA`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ..errors import BadArgument
from ..families.registry import NONPARAMETRIC
from ..types import Settings
from .arguments import Fit
from .screen import Screen, may_write


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


def check_outputs(data: Path, save: Path | None, report: Path | None, level: float) -> None:
    """Nothing, where the files can be written and are different ones, and the level is one.

    Raises
    ------
    BadArgument
    """
    for path, endings in ((save, ()), (report, (".html", ".htm"))):
        may_write(path, [data], endings)
    if save is not None and report is not None and save.resolve() == report.resolve():
        raise BadArgument(f"--save and --report both name {save}.")
    if not 0 < level < 1:
        raise BadArgument(f"--level {level:g}. Accepted: a number between 0 and 1, such as 0.95.")


def shown(
    found: Any, summary: Any, screen: Screen, json: bool, save: Path | None, report: Path | None
) -> int:
    """Show the summary of a fit and write its files; the exit code."""
    document = summary.to_dict()
    if not json:
        screen.show(summary, None)  # before the files: a disk that is full must not cost the answer
    if save is not None:
        document["saved"] = str(found.save(save))
    if report is not None:
        with screen.busy("writing the report"):
            document["report"] = str(found.report(report))
    if json:
        screen.show(None, document)
    for path in (save, report):
        if path is not None:
            screen.note(f"wrote {path}")
    return 0 if found.certificate.ok else 1


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


def prior_of(text: str) -> Any:
    """--prior normal:2.5, student_t:2.5:df=4, normal:1:on=x*."""
    from ..likelihood import priors

    known = priors.registry
    before, on, pattern = text.partition(":on=")  # last, since names of coefficients may hold colons
    name, *rest = before.split(":")
    accepted = f"Accepted: {', '.join(f'{n}:SCALE' for n in known)}, then :location=NUMBER, :df=NUMBER, and last :on=PATTERN."
    if name not in known:
        raise BadArgument(f"--prior {text!r} names {name!r}. {accepted}")
    settings: Settings = {"on": pattern} if on else {}
    for part in rest:
        key, equals, value = part.partition("=")
        try:
            settings[key if equals else "scale"] = float(value if equals else key)
        except ValueError as error:
            raise BadArgument(f"--prior {text!r}: {part!r} is not a number. {accepted}") from error
    wrong = [key for key in settings if key not in inspect.signature(known[name]).parameters]
    if wrong:
        raise BadArgument(f"--prior {text!r}: {name} has no {wrong[0]!r}. {accepted}")
    return known[name](**settings)
