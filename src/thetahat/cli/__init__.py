"""The command `thetahat`: a thin face over `th.fit` and the fit's own methods.

Tables go to stdout, progress and errors to stderr. With --json stdout holds one strict JSON document and
nothing else: an error is {"error": …}, and a number that is not finite is null.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .. import printable  # which knows what to write where a terminal lacks a character


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv
        the words after `thetahat`; None: those of the process

    Returns
    -------
    int
        0 certified, done; 1 no maximum, or not converged; 2 bad usage or a bad model; 3 bad data or a bad
        file; 4 scores that no subtraction can compare; 70 an error of thetahat itself (with a traceback:
        please report it); 130 interrupted

    Examples
    --------
    >>> main(["--version"])
    thetahat 0.1.0
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=printable.ERRORS)
    try:
        code = _done(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `thetahat … | head` has seen enough
        _silence(sys.stdout)
        return 141
    except OSError as error:  # the system's: a disk that is full or fails, a file that may not be read
        where = "standard output" if error.filename is None else repr(error.filename)[:80]
        _silence(sys.stdout)
        _say(f"{where}: {error.strerror or error}.")
        return 3
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return 130
    except Exception:
        import traceback

        traceback.print_exc()
        return 70


def _done(words: list[str]) -> int:
    """Do what the words ask for."""
    if words in (["--version"], ["-V"]):
        from .. import __version__

        print(f"thetahat {__version__}")
        return 0
    from .arguments import parse

    try:
        with _usage("--json" in words):
            command = parse(words)
        from .commands import run  # torch, which a help text or a usage error does without

        return run(command, words)
    except SystemExit as error:  # 0 after --help, 2 for bad usage, 143 after SIGTERM
        return error.code if isinstance(error.code, int) else 2


@contextlib.contextmanager
def _usage(as_json: bool) -> Iterator[None]:
    """With --json, a usage error is a JSON document on stdout too; the text of it goes to stderr as ever."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as error:
        if as_json and error.code not in (0, None):
            from .screen import Screen

            plain = " ".join(re.sub(r"[╭╮╰╯│─]+", " ", re.sub(r"\x1b\[[\d;]*m", "", said.getvalue())).split())
            Screen(True).show(None, {"error": {"type": "Usage", "message": plain}})
        raise
    finally:
        _say(said.getvalue(), end="")


def _say(text: str, end: str = "\n") -> None:
    """To stderr, where that can be written."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end=end, file=sys.stderr, flush=True)


def _silence(stream: Any) -> None:
    """What is left of a stream that cannot be written goes nowhere, so that the process ends without a second
    error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
