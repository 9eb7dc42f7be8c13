"""What every kind of fit asks of the command: files that can be written, a prior in words, the summary and its files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from ..errors import BadArgument
from ..types import Settings
from .screen import Screen, may_write


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
