"""A table of several fits side by side: their estimates row by row, with errors or intervals, and statistics below.

A fit has one column; where a fit gives several of its family's parameters predictors, a column each. The cells are
made once (`Row`); text, Markdown, HTML, LaTeX, Typst and Word are six writings of them (`report.writers`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..errors import BadArgument
from ..printable import encoded, everywhere
from . import writers
from .facts import KINDS, Line, constants
from .formatting import count, fixed, nats, number, places
from .tidy import as_written, estimates, glance
from .tidy import places as places_of

if TYPE_CHECKING:
    from ..result import Fit

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
STATISTICS = {
    "observations": "Observations",
    "parameters": "Parameters",
    "log_likelihood": "Log-likelihood",
    "AIC": "AIC",
    "BIC": "BIC",
    "deviance": "Deviance",
    "r_squared": "R²",
    "marginal_r_squared": "Marginal R²",
    "conditional_r_squared": "Conditional R²",
    "status": "Certificate",
    "gap": "Gap to the maximum (nats)",
}
DEFAULT = ("observations", "r_squared", "log_likelihood", "AIC", "BIC")
OTHER = "Other parameters"
RANDOM = "Random effects"


@dataclass(frozen=True)
class Row:
    """One row: a label and a cell a column.

    kind : "estimate", "below" (its error or interval), "section" (a head without cells), "statistic"
    """

    kind: str
    label: str
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegressionTable:
    """Several fits side by side. It prints itself within 80 columns, and writes itself in five forms.

    Parameters
    ----------
    columns
        (name of the fit, the family's parameter or "") of each
    rows
        the cells
    notes
        what is said below
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @encoded
    def __str__(self) -> str:
        return writers.text(everywhere(self))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.to_html()

    @property
    def frame(self) -> pd.DataFrame:
        """The cells as text, a row a row, for great_tables and its kin."""
        names = [name if not parameter else f"{name}: {parameter}" for name, parameter in self.columns]
        cells = [row.cells or ("",) * len(names) for row in self.rows]
        return pd.DataFrame(
            cells, columns=names, index=pd.Index([row.label for row in self.rows], name="term")
        )

    def to_markdown(self) -> str:
        """A table of pipes, as GitHub, Pandoc and MkDocs read it."""
        return writers.markdown(everywhere(self))

    def to_html(self) -> str:
        """A <table> without styles of its own."""
        return writers.html(everywhere(self))

    def to_latex(self) -> str:
        r"""A tabular of \usepackage{booktabs}."""
        return writers.latex(everywhere(self))

    def to_typst(self) -> str:
        """A #table."""
        return writers.typst(everywhere(self))

    def to_docx(self, path: str | Path) -> Path:
        """A Word document with the table in it.

        Raises
        ------
        MissingExtra
            python-docx is not installed
        """
        return writers.docx(everywhere(self), Path(path))


def table(
    fits: Sequence[Fit] | Mapping[str, Fit],
    *,
    names: Sequence[str] | None = None,
    intervals: bool = False,
    stars: bool = False,
    exponentiate: bool = False,
    keep: str | Sequence[str] | None = None,
    drop: str | Sequence[str] | None = None,
    statistics: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> RegressionTable:
    """Several fits in one table: an estimate a row, its standard error below it in brackets.

    Parameters
    ----------
    fits
        a list of fits, or name → fit
    names
        of the fits in a list; None: (1), (2) …
    intervals
        confidence intervals in the place of standard errors
    stars
        mark p < 0.05, 0.01 and 0.001 by *, ** and ***
    exponentiate
        exp of each coefficient, of its interval, and its error by the delta method (`Fit.tidy`)
    keep, drop
        regular expressions: the terms of which one is found are kept, or left out
    statistics
        rows below the estimates, by their names in `Fit.glance`; None: observations, R² where a fit has one, log_likelihood,
        AIC, BIC
    rename
        term (or statistic, or parameter) → what is shown
    level
        of the intervals

    Raises
    ------
    BadArgument
        no fit, names that do not belong to the fits, a pattern that finds no term, an unknown statistic

    Examples
    --------
    >>> import thetahat as th
    >>> frame = {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0], "z": [1.0, 0.0, 0.0, 1.0, 0.0]}
    >>> print(th.table([th.fit("y ~ x", frame), th.fit("y ~ x + z", frame)], statistics=["observations", "r_squared"]))
                          (1)      (2)
    ──────────────────────────────────
    Intercept          0.800   −0.291
                      (0.980)  (0.735)
    x                  1.800    1.982
                      (0.400)  (0.252)
    z                           1.818
                               (0.727)
    Other parameters
    scale              0.980    0.482
                      (0.310)  (0.153)
    ──────────────────────────────────
    Observations            5        5
    R²                0.87097  0.96872
    ──────────────────────────────────
    Below the estimates: standard errors (s²(XᵀX)⁻¹, s² with n − p).
    """
    named = _named(fits, names)
    several = any(len(_sections(fit)) > 1 for fit in named.values())
    columns: list[tuple[str, str]] = []
    found: list[dict[str, dict[str, Line]]] = []  # of each column: section → term → line
    without: dict[str, str] = {}
    for name, fit in named.items():
        lines, why = estimates(fit, level, exponentiate)
        without |= {name: why} if why else {}
        parts = _parts(fit, lines)
        for i, parameter in enumerate(_sections(fit)):
            columns.append((name, _shown(parameter, rename) if several else ""))
            found.append({"": parts[parameter]} | ({k: parts[k] for k in (OTHER, RANDOM)} if i == 0 else {}))
    rows = _estimate_rows(found, _chosen(found, keep, drop), intervals, stars, rename or {})
    rows += _statistic_rows(list(named.values()), columns, statistics, rename or {})
    notes = _notes(named, without, level, intervals, stars, exponentiate)
    return RegressionTable(tuple(columns), tuple(rows), tuple(notes))


def _named(fits: Sequence[Fit] | Mapping[str, Fit], names: Sequence[str] | None) -> dict[str, Fit]:
    from ..result import Fit

    own = (
        list(fits.values()) if isinstance(fits, Mapping) else [fits] if isinstance(fits, Fit) else list(fits)
    )
    wrong = next((each for each in own if not isinstance(each, Fit)), None)
    if wrong is not None or not own:
        raise BadArgument(
            f"table takes fits; received {'none' if wrong is None else type(wrong).__name__}. Accepted: a list of fits, or a "
            "dict of name → fit."
        )
    if names is None:
        names = list(fits) if isinstance(fits, Mapping) else [f"({i + 1})" for i in range(len(own))]
    if len(names) != len(own) or len(set(names)) < len(own):
        raise BadArgument(f"names={list(names)!r}. Accepted: {len(own)} different names, one a fit.")
    return dict(zip(map(str, names), own, strict=True))


def _sections(fit: Fit) -> list[str]:
    """The family's parameters that have predictors; one of a fit without any."""
    constant = constants(fit)
    found = dict.fromkeys(
        parameter
        for (parameter, _, group), c in zip(places_of(fit), constant, strict=True)
        if not c and not group
    )
    return list(found) or [""]


def _parts(fit: Fit, lines: Sequence[Line]) -> dict[str, dict[str, Line]]:
    """section → term → line: of each parameter with predictors, of the constants, of random effects."""
    out: dict[str, dict[str, Line]] = {name: {} for name in (*_sections(fit), OTHER, RANDOM)}
    every = list(zip(places_of(fit), lines, constants(fit), strict=True))
    for (parameter, term, group), line, c in (every[i] for i in as_written(fit)):
        section = RANDOM if group else OTHER if c else parameter
        out[section][term if not group or term in line.name else line.name] = line
    return out


def _chosen(
    found: Sequence[dict[str, dict[str, Line]]],
    keep: str | Sequence[str] | None,
    drop: str | Sequence[str] | None,
) -> dict[str, list[str]]:
    """section → its terms in the order of the fits, those of `keep` and `drop` minded."""
    terms = {
        name: list(dict.fromkeys(t for column in found for t in column.get(name, {})))
        for name in ("", OTHER, RANDOM)
    }
    every = [t for own in terms.values() for t in own]

    def matched(patterns: Sequence[str], which: str) -> set[str]:
        out: set[str] = set()
        for pattern in patterns:
            try:
                own = {t for t in every if re.search(pattern, t)}
            except re.error as error:
                raise BadArgument(f"{which}={pattern!r} is not a regular expression: {error}.") from error
            if not own:
                raise BadArgument(f"{which}={pattern!r} finds no term. Terms: {', '.join(every[:20])}.")
            out |= own
        return out

    kept = set(every) if keep is None else matched(_list(keep), "keep")
    kept -= set() if drop is None else matched(_list(drop), "drop")
    return {name: [t for t in own if t in kept] for name, own in terms.items()}


def _list(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _shown(name: str, rename: Mapping[str, str] | None) -> str:
    return (rename or {}).get(name, name)


# ---- cells -------------------------------------------------------------------------------------------------


def _estimate_rows(
    found: Sequence[dict[str, dict[str, Line]]],
    terms: Mapping[str, Iterable[str]],
    intervals: bool,
    stars: bool,
    rename: Mapping[str, str],
) -> list[Row]:
    rows = []
    for section, own in terms.items():
        if section and own:
            rows.append(Row("section", _shown(section, rename)))
        for term in own:
            lines = [column.get(section, {}).get(term) for column in found]
            rows.append(Row("estimate", _shown(term, rename), tuple(_estimate(x, stars) for x in lines)))
            if any(x is not None and x.standard_error is not None for x in lines):
                rows.append(Row("below", "", tuple(_below(x, intervals) for x in lines)))
    return rows


def _estimate(line: Line | None, stars: bool) -> str:
    if line is None:
        return ""
    mark = next((s for p, s in STARS if line.p is not None and line.p < p), "") if stars else ""
    return fixed(line.estimate, places(line.standard_error, 3)) + mark


def _below(line: Line | None, intervals: bool) -> str:
    if line is None or line.standard_error is None:
        return ""
    decimals = places(line.standard_error, 3)
    if intervals:
        return f"[{fixed(line.low, decimals)}, {fixed(line.high, decimals)}]"
    return f"({fixed(line.standard_error, decimals)})"


def _statistic_rows(
    fits: Sequence[Fit],
    columns: Sequence[tuple[str, str]],
    statistics: Sequence[str] | None,
    rename: Mapping[str, str],
) -> list[Row]:
    """A row a statistic, in the first column of each fit; the certificate's status wherever one is not a maximum."""
    found = [glance(fit) for fit in fits]
    wanted = list(DEFAULT if statistics is None else statistics)
    unknown = next((name for name in wanted if name not in STATISTICS), None)
    if unknown is not None:
        raise BadArgument(f"statistics={unknown!r}. Accepted: {', '.join(STATISTICS)}.")
    if statistics is None:
        wanted = [name for name in wanted if name != "r_squared" or any(not _absent(g[name]) for g in found)]
    if "status" not in wanted and any(not fit.certificate.ok for fit in fits):
        wanted.append("status")
    firsts = [i == 0 or columns[i - 1][0] != name for i, (name, _) in enumerate(columns)]
    rows = []
    for name in wanted:
        cells = iter([_statistic(name, g[name]) for g in found])
        label = rename.get(name, STATISTICS[name])
        rows.append(Row("statistic", label, tuple(next(cells) if first else "" for first in firsts)))
    return rows


def _absent(value: float | str) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _statistic(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return ""
    if name in ("observations", "parameters"):
        return count(value)
    return nats(value) if name == "log_likelihood" else number(value, 2 if name == "gap" else 5)


def _notes(
    named: Mapping[str, Fit],
    without: Mapping[str, str],
    level: float,
    intervals: bool,
    stars: bool,
    exponentiate: bool,
) -> list[str]:
    notes = []
    kinds: dict[str, list[str]] = {}
    for name, fit in named.items():
        if name not in without:
            kind, by = fit.covariance_chosen
            clusters = "" if by is None else f" of {by if isinstance(by, str) else ' and '.join(by)}"
            kinds.setdefault(KINDS.get(kind, kind) + clusters, []).append(name)
    if kinds:
        beneath = f"{100 * level:g}% intervals" if intervals else "standard errors"
        how = "; ".join(k if len(kinds) == 1 else f"{', '.join(own)} {k}" for k, own in kinds.items())
        notes.append(f"Below the estimates: {beneath} ({how}).")
    if exponentiate:
        notes.append("Coefficients are exponentiated.")
    if stars:
        notes.append(", ".join(f"{mark} p < {p:g}" for p, mark in reversed(STARS)) + ".")
    return [*notes, *(f"{name}: {why}" for name, why in without.items())]
