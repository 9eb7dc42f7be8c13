"""What the commands do. Each reads, calls the library, and says what it found on a `Screen`; what is heavy is
imported where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import BadArgument, BadSave, DataError, FitError, IncomparableScores, ThetahatError
from .arguments import (
    Command,
    Compare,
    Export,
    Fit,
    Play,
    Predict,
    Report,
    Reward,
    Sample,
    Score,
    Tour,
)
from .deploy import export, predict
from .formula import fit_formula
from .own import Own, fit_own, saved
from .reward import rated
from .sample import play, sample
from .score import compare, score
from .screen import Screen, may_write
from .systems import System
from .training import train


def run(command: Command, words: Sequence[str] = ()) -> int:
    """Do it (`words`: how it was called), and return the exit code; an error of the tree, or of a file,
    becomes a message."""
    screen = Screen(command.json, words)
    try:
        do: Any = train if isinstance(command, System) else _DO[type(command)]
        out: int = do(command, screen)
        return out
    except ThetahatError as error:
        if command.traceback:
            import traceback

            traceback.print_exc()
        screen.fail(error)
        return code_of(error)
    except OSError as error:
        if error.filename is None:  # of a stream: `main` knows what to do
            raise
        screen.fail(DataError(f"{str(error.filename)[:80]!r}: {error.strerror}."))
        return 3


def code_of(error: ThetahatError) -> int:
    """1 no maximum, 2 usage or model, 3 data or file, 4 incomparable.

    Examples
    --------
    >>> from thetahat.errors import BadArgument
    >>> code_of(BadSave("")), code_of(FitError("")), code_of(IncomparableScores("")), code_of(BadArgument(""))
    (3, 1, 4, 2)
    """
    if isinstance(error, FitError):
        return 1
    if isinstance(error, IncomparableScores):
        return 4
    return 3 if isinstance(error, (DataError, BadSave)) else 2


def report(command: Report, screen: Screen) -> int:
    if command.fit.is_dir():
        raise BadArgument(
            f"{command.fit} is the folder of a run, which has its report: {command.fit / 'report.html'}."
        )
    name = command.fit.name.removesuffix(".thetahat") + ".html"
    out = command.out if command.out is not None else command.fit.with_name(name)
    may_write(out, [command.fit, command.data], (".html", ".htm"))
    with screen.busy("writing the report"):
        written = saved(command.fit, command.model, str(command.data)).report(out)
    if command.json:
        screen.show(None, {"report": str(written)})
    screen.note(f"wrote {written}")
    return 0


def tour(command: Tour, screen: Screen) -> int:
    may_write(command.html, [], (".html", ".htm"))
    from .. import tour as systems

    if command.json:
        done = list(systems.rows(command.quick))
        screen.show(None, {"rows": [row.to_dict() for row in done]})
    else:
        done = systems.show(command.quick, screen.out)
    if command.html is not None:
        from ..tour import page

        page.write(done, command.html, systems.compared(done))
        screen.note(f"wrote {command.html}")
    return 1 if any(row.agrees is False for row in done) else 0


_DO: dict[type, Any] = {
    Fit: fit_formula,
    Own: fit_own,
    Reward: rated,
    Score: score,
    Compare: compare,
    Predict: predict,
    Export: export,
    Sample: sample,
    Play: play,
    Report: report,
    Tour: tour,
}
