"""The command `thetahat`: a thin face over `th.fit` and the fit's own methods.

Tables go to stdout, progress and errors to stderr. With --json stdout holds one strict JSON document and nothing else: an error is
{"error": …}, and a number that is not finite is null.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : the words after `thetahat`; None: those of the process

    Returns
    -------
    0 certified, done; 1 no maximum, or not converged; 2 bad usage or a bad model; 3 bad data or a bad file; 4 scores that no
    subtraction can compare; 70 an error of thetahat itself (with a traceback: please report it); 130 interrupted

    >>> main(["--version"])
    thetahat 0.1.0
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without θ shows ?, and does not stop the command
    if words in (["--version"], ["-V"]):
        from .. import __version__

        print(f"thetahat {__version__}")
        return 0
    try:
        from .arguments import parse
        from .commands import run

        code = run(parse(words), words)
        sys.stdout.flush()
        return code
    except SystemExit as error:  # tyro's: 0 for --help, 2 for usage
        return error.code if isinstance(error.code, int) else 2
    except BrokenPipeError:  # `thetahat … | head` has seen enough
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception:
        import traceback

        traceback.print_exc()
        return 70
