"""Every exception that the library raises on purpose. This module imports `printable` alone.

ThetahatError
├── DataError (also a ValueError)     what was observed cannot be used
│   ├── EmptyData                     no rows, or none left
│   ├── UnknownColumn                 a formula or an argument names a column that the data lack
│   ├── UnknownLevel                  a category at prediction that the fit never saw
│   ├── OutOfSupport                  a response that the family gives probability zero
│   ├── NotFinite                     NaN or infinity where a number is needed
│   ├── WrongType                     a column whose type cannot be used as asked
│   ├── BadWeights                    negative, missing or all-zero weights
│   └── MalformedFile                 a ragged CSV, a Parquet file cut short
├── ModelError (also a ValueError)    the model cannot be built as asked
│   ├── BadFormula                    a formula that cannot be read
│   └── BadArgument                   an argument of the wrong kind; says what is accepted
├── FitError                          the maximisation failed; carries the certificate and the fit as it stands
│   ├── NoMaximum                     the likelihood has no maximum (separation, a recession direction, density → ∞)
│   ├── FlatDirection                 a direction along which the data say nothing (aliased columns)
│   ├── NotConverged                  the solver stopped before it could certify anything
│   └── NoCurvature                   what is asked needs curvature, and a prior has a kink or the maximum lies on an edge
├── IncomparableScores                two scores that no subtraction can compare
├── BadSave                           a saved fit, a run or a checkpoint that is damaged, or of another version
│   └── NotWritten (also an OSError)  a file cannot be written: the disk is full, or fails
└── MissingExtra (also an ImportError)  an optional dependency is needed; names the extra
"""

from __future__ import annotations

import difflib
import os
import pickle
from collections.abc import Iterable
from typing import Any

from .printable import printable
from .types import Levels


class ThetahatError(Exception):
    """The root: `except ThetahatError` catches every error that the library raises on purpose.

    Messages quote names and cells of the data; control characters in them are shown by their number.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class DataError(ThetahatError, ValueError):
    """What was observed cannot be used."""


class EmptyData(DataError):
    """No rows, or none left after the missing ones were dropped."""


class UnknownColumn(DataError):
    """A formula or an argument names a column that the data lack."""

    @classmethod
    def named(cls, name: str, columns: Iterable[str], where: str = "the formula") -> UnknownColumn:
        columns = [str(c) for c in columns]
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        shown = ", ".join(columns[:12]) + (f", … ({len(columns)} in all)" if len(columns) > 12 else "")
        return cls(f"{where} names {name!r}, which the data lack.{hint} Columns: {shown}.")


class UnknownLevel(DataError):
    """A category that the fit never saw."""


class OutOfSupport(DataError):
    """A response to which the family gives probability zero, whatever its parameters."""


class NotFinite(DataError):
    """NaN or infinity where a number is needed."""


class WrongType(DataError):
    """A column whose type cannot be used as asked."""


class BadWeights(DataError):
    """Negative, missing or all-zero weights."""


class MalformedFile(DataError):
    """A file that cannot be read to its end."""


class ModelError(ThetahatError, ValueError):
    """The model cannot be built as asked."""


class BadFormula(ModelError):
    """A formula that cannot be read."""


class BadArgument(ModelError):
    """An argument of the wrong kind or value."""


class FitError(ThetahatError):
    """The maximisation failed. `certificate` says how; `fit` is the fit as it stands, for who wants to
    look."""

    def __init__(self, message: str, certificate: Any = None, fit: Any = None):
        super().__init__(message)
        self.certificate = certificate
        self.fit = fit

    def __reduce__(self) -> Levels:
        """Between processes (multiprocessing, joblib): with its certificate, and with its fit where that can
        be pickled.

        The fit travels as bytes of its own, so that a fit that the other process cannot read does not hide
        the error.
        """
        try:
            packed = None if self.fit is None else pickle.dumps(self.fit)
        except Exception:  # a model made in a function, an open file: whatever a user's fit may hold
            packed = None
        return _unpickled, (type(self), super().__str__(), self.certificate, packed)


def _unpickled(kind: type[FitError], message: str, certificate: Any, packed: bytes | None) -> FitError:
    try:
        fit = None if packed is None else pickle.loads(packed)
    except Exception:  # as above: its classes are not to be had here
        fit = None
    return kind(message, certificate, fit)


class NoMaximum(FitError):
    """The likelihood has no maximum: it grows for ever along a direction."""


class FlatDirection(FitError):
    """A direction along which the likelihood is constant: the data say nothing about it."""


class NotConverged(FitError):
    """The solver stopped before anything could be certified."""


class NoCurvature(FitError):
    """Standard errors or evidence are asked of a maximum at which the objective has a kink in place of a
    curvature."""


class IncomparableScores(ThetahatError):
    """Two scores that no subtraction can compare; the message gives the reason."""


class BadSave(ThetahatError):
    """A saved fit, a run or a checkpoint that is damaged, or of another version."""


class NotWritten(BadSave, OSError):
    """A file cannot be written. What stood in its place is as it was."""

    @classmethod
    def of(cls, path: str | os.PathLike[str], error: OSError, more: str = "") -> NotWritten:
        reason = error.strerror or str(error) or type(error).__name__
        kept = "The file that was there is unchanged." if os.path.exists(path) else "Nothing was written."
        return cls(f"{os.fspath(path)} cannot be written: {reason}. {more or kept}")


class MissingExtra(ThetahatError, ImportError):
    """An optional dependency is needed; the message names the extra that brings it."""

    @classmethod
    def named(cls, package: str, extra: str) -> MissingExtra:
        return cls(f"this needs {package}, which is not installed. pip install 'thetahat[{extra}]'")
