"""Every exception that the library raises on purpose. This module imports nothing.

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
│   └── NoCurvature                   what is asked needs curvature, and a prior has a kink
├── IncomparableScores                two scores that no subtraction can compare
├── BadSave                           a saved fit that is damaged, tampered with or of another version
└── MissingExtra (also an ImportError)  an optional dependency is needed; names the extra
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ThetahatError(Exception):
    """The root: `except ThetahatError` catches every error that the library raises on purpose."""


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
    """The maximisation failed. `certificate` says how; `fit` is the fit as it stands, for who wants to look."""

    def __init__(self, message: str, certificate: Any = None, fit: Any = None):
        super().__init__(message)
        self.certificate = certificate
        self.fit = fit


class NoMaximum(FitError):
    """The likelihood has no maximum: it grows for ever along a direction."""


class FlatDirection(FitError):
    """A direction along which the likelihood is constant: the data say nothing about it."""


class NotConverged(FitError):
    """The solver stopped before anything could be certified."""


class NoCurvature(FitError):
    """Standard errors or evidence are asked of a maximum at which the objective has a kink in place of a curvature."""


class IncomparableScores(ThetahatError):
    """Two scores that no subtraction can compare; the message gives the reason."""


class BadSave(ThetahatError):
    """A saved fit that is damaged, tampered with, or of another version."""


class MissingExtra(ThetahatError, ImportError):
    """An optional dependency is needed; the message names the extra that brings it."""

    @classmethod
    def named(cls, package: str, extra: str) -> MissingExtra:
        return cls(f"this needs {package}, which is not installed. pip install 'thetahat[{extra}]'")
