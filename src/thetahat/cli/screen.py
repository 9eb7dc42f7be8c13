"""What every command says it with: tables or JSON on stdout, progress and errors on stderr; and what it may
write to."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import BadArgument, FitError, ThetahatError
from ..printable import console, in_json
from ..types import Plain, Settings

DATA = (".csv", ".csv.gz", ".tsv", ".txt", ".parquet", ".pq")


class Screen:
    """stdout for what was found, stderr for progress and errors; with --json one document on stdout."""

    def __init__(self, as_json: bool, words: Sequence[str] = ()):
        self.as_json = as_json
        self.command = shlex.join(
            ["thetahat", *(word for word in words if word != "--resume")]
        )  # by which a run is made again
        self.out, self.err = console(file=sys.stdout), console(file=sys.stderr, highlight=False)

    def show(self, shown: Any, document: Any) -> None:
        """The table for a reader, or the document for a program."""
        if self.as_json:
            sys.stdout.write(
                in_json(json.dumps(finite(document), ensure_ascii=False, allow_nan=False, indent=2)) + "\n"
            )
        else:
            self.out.print(shown)

    def note(self, text: str) -> None:
        with suppress(OSError):  # a log on a full disk does not end a run
            self.err.print(text, style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """A progress indicator, on a terminal."""
        if self.err.is_terminal:
            with self.err.status(what):
                yield
        else:
            yield

    def fail(self, error: ThetahatError) -> None:
        message = str(error)
        with suppress(OSError):
            self.err.print(
                f"{type(error).__name__}: {message}",
                style="bold red",
                markup=False,
                soft_wrap=not self.err.is_terminal,
            )
        if self.as_json:
            found: Settings = {"type": type(error).__name__, "message": message}
            if isinstance(error, FitError) and error.certificate is not None:
                found["certificate"] = error.certificate.to_dict()
            self.show(None, {"error": found})


def may_write(
    path: Path | None, inputs: Sequence[Path], endings: tuple[str, ...], *, new: bool = False
) -> None:
    """Refuse, before anything is computed, a path that would replace data or that cannot be written."""
    if path is None:
        return
    if any(path.resolve() == each.resolve() for each in inputs):
        raise BadArgument(f"{path} is read by this command: it is not written to.")
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise BadArgument(
            f"{path} cannot be written: "
            + ("it is a folder." if path.is_dir() else "there is no such folder.")
        )
    if endings and path.suffix.lower() not in endings:
        raise BadArgument(f"{path} ends in {path.suffix or 'nothing'!r}. Accepted: {', '.join(endings)}.")
    if path.exists() and (new or path.name.lower().endswith(DATA)):
        raise BadArgument(
            f"{path} exists, and a file of data is not overwritten. Give another path, or remove it."
        )


def plain_text(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def plain_table(rows: list[tuple[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, Text(text))
    return table


def finite(value: Plain) -> Plain:
    """Plain values for strict JSON: tuples as lists, a number that is not finite as null.

    Examples
    --------
    >>> finite({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
