"""Compare scores of the same data by paired differences, or refuse with the reason why no subtraction can.

    d_i = v_i(A) − v_i(B),      difference = Σ c_i d_i,      z = difference / standard error over independent units

Pairing is what makes it sharp: what both models find hard to predict cancels.

What is known of the true log-likelihoods decides what may be said. An exact value and an unbiased estimate
are values. A lower bound says "at least so much": above an exact value it proves its model better; below one
it proves nothing, and its model is not ranked as worse.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pandas as pd
import torch
from torch import Tensor

from ..errors import BadArgument, IncomparableScores
from ..likelihood.total import spread
from ..models.base import family_of
from ..models.taylor import weighted
from ..notebook import Printed, block
from ..printable import as_text, encoded
from ..protocols import HasObjective, Scored, Working
from ..types import Data, Named, Plain, Settings
from .score import Score

WIDTH = 80  # of a title
HEADS = ("nats", "bits/dim", "difference", "±", "z")  # of a comparison's numbers


@dataclass(frozen=True)
class Pair(Printed):
    """What is known of two scores, the one with the larger value first.

    Parameters
    ----------
    better, worse
        the names
    difference
        Σ c (v_better − v_worse), nats; larger than 0
    standard_error
        of the difference, over independent units
    relation
        "=" the difference is known; "≥" it is at least so large (worse is exact, better a bound); "?" its
        sign is not known
    """

    better: str
    worse: str
    difference: float
    standard_error: float
    relation: str

    @property
    def z(self) -> float:
        """difference / standard error; NaN where the sign is not known."""
        if self.relation == "?":
            return math.nan
        if self.difference == 0:
            return 0.0
        if math.isnan(self.standard_error):  # of one unit, whose spread is not known
            return math.nan
        return (
            self.difference / self.standard_error
            if self.standard_error > 0
            else math.copysign(math.inf, self.difference)
        )

    @encoded
    def __str__(self) -> str:
        size = f"{self.difference:.4g}"
        if math.isnan(self.difference):
            return f"{self.better} and {self.worse}: undecided. Each gives probability zero to rows that the other allows."
        if self.relation == "?":
            return f"{self.better} and {self.worse}: undecided. {self.worse} is a lower bound, {size} nats below: its true value may be above."
        if self.difference == 0:
            return f"{self.better} and {self.worse} are equal."
        known = "better by at least" if self.relation == "≥" else "better by"
        error = "" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2g}"
        return f"{self.better} is {known} {size}{error} nats than {self.worse}" + (
            "." if math.isnan(self.z) else f" (z = {self.z:.2f})."
        )


@dataclass(frozen=True)
class Comparison:
    """Scores of the same data, best first, and what is known of each pair.

    Parameters
    ----------
    scores
        name → score, best value first
    pairs
        of every two of them
    note
        what has to be said besides (scored on the data that were fitted)
    """

    scores: dict[str, Score]
    pairs: tuple[Pair, ...]
    note: str = ""
    table: pd.DataFrame = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", self._table())

    @property
    def best(self) -> str:
        """The name with the largest value: the best, unless a bound is undecided against it (its rank is
        then a range)."""
        return next(iter(self.scores))

    def pair(self, a: str, b: str) -> Pair:
        """What is known of a and b.

        Raises
        ------
        BadArgument
            a name that was not compared
        """
        for pair in self.pairs:
            if {pair.better, pair.worse} == {a, b}:
                return pair
        raise BadArgument(
            f"{a!r} and {b!r} are not a pair of this comparison. It has: {', '.join(self.scores)}."
        )

    def rank(self, name: str) -> tuple[int, int]:
        """The first and the last place that the score may have, by what its bounds prove."""
        above = sum(p.worse == name and p.relation != "?" and p.difference > 0 for p in self.pairs)
        below = sum(p.better == name and p.relation != "?" and p.difference > 0 for p in self.pairs)
        return above + 1, max(above + 1, len(self.scores) - below)

    def _table(self) -> pd.DataFrame:
        """A row a score: rank, nats and bits, its kind, the difference to the first with its paired standard
        error, z, and what it proves."""
        rows = []
        for name, score in self.scores.items():
            low, high = self.rank(name)
            row: Settings = {
                "rank": str(low) if low == high else f"{low}–{high}",
                "nats": score.mean,
                "standard_error": score.standard_error,
                "bits_per_dimension": score.bits_per_dimension,
                "kind": score.kind if score.K is None else f"{score.kind} (K = {score.K})",
            }
            if name == self.best:
                row |= {"difference": 0.0, "difference_error": 0.0, "z": 0.0, "relation": "="}
            else:
                pair = self.pair(self.best, name)
                row |= {"difference": -pair.difference, "difference_error": pair.standard_error, "z": -pair.z}
                row["relation"] = "≤" if pair.relation == "≥" else pair.relation
            rows.append(row)
        return pd.DataFrame(rows, index=pd.Index(list(self.scores), name="name"))

    @encoded
    def __str__(self) -> str:
        return as_text(self)

    def __rich_console__(self, console: Plain, options: Plain) -> Iterator[Plain]:
        from rich.table import Table
        from rich.text import Text

        yield Text(textwrap.fill(self._title(), WIDTH))
        shown = Table(box=None, pad_edge=False)
        shown.add_column(
            "", overflow="fold"
        )  # names and kinds break where a terminal is narrow, numbers never
        shown.add_column("rank", no_wrap=True)
        for column in HEADS:
            shown.add_column(column, justify="right", no_wrap=True)
        shown.add_column("kind", min_width=8)
        for row in self._rows():
            shown.add_row(*row)
        yield shown
        few = len(self.scores) < 4
        for pair in self.pairs:  # of many, those with the first: the table has room for no more
            if pair.relation != "=" and (few or self.best in (pair.better, pair.worse)):
                yield Text(str(pair), style="dim")
        for line in self._impossible():
            yield Text(line, style="bold red")
        if self.note:
            yield Text(self.note, style="dim")

    def _repr_html_(self) -> str:
        notes = [str(p) for p in self.pairs if p.relation != "="] + self._impossible() + [self.note]
        return block(self._title(), ["", "rank", *HEADS, "kind"], self._rows(), notes, left=(0, 1, 7))

    def _title(self) -> str:
        first = self.scores[self.best]
        what = f"{_capital(first.measure)} of {first.units}, {first.n:g} observations"
        return f"{what}, nats per observation; differences are totals"

    def _rows(self) -> Iterator[list[str]]:
        for name, row in self.table.iterrows():
            mark = "" if row["relation"] == "=" else f"{row['relation']} "
            cells = [
                f"{row['nats']:.5f}",
                f"{row['bits_per_dimension']:.4f}",
                f"{mark}{row['difference']:.3f}",
            ]
            cells += ["" if math.isnan(row[c]) else f"{row[c]:.2f}" for c in ("difference_error", "z")]
            yield [str(name), row["rank"], *(cell.replace("-", "−") for cell in cells), row["kind"]]

    def _impossible(self) -> list[str]:
        zero = ((name, score.impossible) for name, score in self.scores.items() if score.impossible)
        return [f"{name} gives probability zero to {n} rows." for name, n in zero]

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return {
            "best": self.best,
            "scores": {
                name: score.to_dict() | {"rank": list(self.rank(name))} for name, score in self.scores.items()
            },
            "pairs": [str(pair) for pair in self.pairs],
            "note": self.note,
        }


def compare(scores_or_fits: Named | Sequence[Plain], data: Data = None) -> Comparison:
    """Scores of the same data side by side, best first.

    Parameters
    ----------
    scores_or_fits
        name → a Score, or anything with `score(data)` (a fit); or a list of them, which are called (1), (2) …
    data
        on which fits are scored; None: on those that each was fitted to, which flatters the larger model

    Returns
    -------
    Comparison

    Raises
    ------
    IncomparableScores
        a density against a mass, other data, other units, other numbers of rows; the message gives the reason
    BadArgument
        fewer than two, or something that has no score

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation (the paired standard error); Burda,
    Grosse and Salakhutdinov (2016), Importance weighted autoencoders (what a bound of K samples is).

    Examples
    --------
    >>> a = Score(torch.tensor([-1.0, -2.0, -1.5]), fingerprint="f")
    >>> b = Score(torch.tensor([-1.5, -2.1, -2.0]), fingerprint="f")
    >>> print(compare({"b": b, "a": a}).pair("a", "b"))
    a is better by 1.1 ± 0.4 nats than b (z = 2.75).
    """
    if isinstance(scores_or_fits, (list, tuple)):
        scores_or_fits = {f"({i + 1})": each for i, each in enumerate(scores_or_fits)}
    if not isinstance(scores_or_fits, Mapping) or len(scores_or_fits) < 2:
        raise BadArgument(
            "compare takes two or more scores or fits, by name, compare({'a': …, 'b': …}), or in a list."
        )
    scores, fitted = {}, False
    notes: dict[str, None] = {}
    for name, each in scores_or_fits.items():
        if isinstance(each, Score):
            scores[str(name)] = each
        elif isinstance(each, Scored):
            scores[str(name)] = each.score(data)
            fitted = fitted or data is None
            family = family_of(each.objective.model) if isinstance(each, HasObjective) else None
            notes |= {family.working: None} if isinstance(family, Working) else {}
        else:
            raise BadArgument(f"{name!r} is a {type(each).__name__}. Accepted: a Score, or a fit.")
    names = list(scores)
    for name in names[1:]:
        _check(names[0], scores[names[0]], name, scores[name])
    ordered = dict(sorted(scores.items(), key=lambda item: _order(item[1]), reverse=True))
    pairs = tuple(_pair(a, b, ordered[a], ordered[b]) for a, b in combinations(ordered, 2))
    if fitted:
        notes["Scored on the data that were fitted: a larger model gains even where it is not better."] = None
    return Comparison(ordered, pairs, " ".join(notes))


def _pair(a: str, b: str, first: Score, second: Score) -> Pair:
    difference = _difference(first.per_observation, second.per_observation)
    size = float(weighted(difference, first.count).sum())
    error = spread(difference, first.count, first.group)
    if second.kind == "lower bound" or math.isnan(size):
        relation = "?"
    else:
        relation = "≥" if first.kind == "lower bound" else "="
    return Pair(a, b, max(size, 0.0), error, relation)  # in order: below 0 it is rounding


def _order(score: Score) -> tuple[float, float]:
    """Fewest impossible terms first, then the sum of the others: the total, where it is finite."""
    impossible = score.per_observation == -math.inf
    return -float(score.count[impossible].sum()), float(
        weighted(score.per_observation, score.count)[~impossible].sum()
    )


def _difference(a: Tensor, b: Tensor) -> Tensor:
    """a − b, and 0 where both are −∞: there the models agree."""
    return torch.where(a == b, 0.0, a - b)


# ---- what no subtraction can compare -----------------------------------------------------------------------


def _check(a: str, first: Score, b: str, second: Score) -> None:
    """Refuse, with the reason."""

    def refuse(reason: str) -> None:
        raise IncomparableScores(f"{a!r} and {b!r} cannot be compared: {reason}")

    masses = {first.measure, second.measure}
    special = next((m for m in sorted(masses) if m.startswith("restricted")), None)
    if special is not None and len(masses) > 1:
        refuse(
            f"one is a {special}, the other a {(masses - {special}).pop()}. A restricted likelihood is of contrasts of y that "
            "depend on the fixed effects: fit both with reml=False."
        )
    if "partial" in masses and len(masses) > 1:
        refuse(
            "one is a partial likelihood, of which row had each event given when there were events, and the other "
            "a likelihood of the times themselves. Compare what both predict: the survival of new rows."
        )
    if masses == {"partial"} and first.note != second.note:
        refuse(
            f"their partial likelihoods are of other risk sets or ties ({first.note}; {second.note}). Fit both with "
            "the same strata and ties=."
        )
    if "mass" in masses and len(masses) > 1:
        other = (masses - {"mass"}).pop()
        refuse(
            f"one is a mass and the other a {'density' if other == 'density' else 'density with atoms'} of "
            f"{first.units}. A probability and "
            "a density have no difference: the density changes with the units of measurement."
        )
    if first.units != second.units and masses not in ({"mass"}, {"partial"}):
        refuse(
            f"one is a density per unit of {first.units}, the other of {second.units}. Fit both to the same "
            "response (log(y), log1p(y), "
            "sqrt(y), exp(y) and their kin are carried back to y)."
        )
    if len(first.per_observation) != len(second.per_observation):
        refuse(
            f"they have {len(first.per_observation)} and {len(second.per_observation)} terms. Rows with "
            "missing values are dropped by the "
            "columns that each model reads: drop those of all models first."
        )
    if first.fingerprint != second.fingerprint:
        refuse(
            "they are scores of other data, or of the same rows in another order (fingerprints "
            f"{first.fingerprint} and "
            f"{second.fingerprint}). Score both on the same rows: compare({{…}}, data)."
        )
    if not torch.equal(first.count, second.count):
        refuse("their rows are counted otherwise (frequency weights, padding).")
    if first.dimensions != second.dimensions:
        refuse(
            f"an observation holds {first.dimensions} numbers in one and {second.dimensions} in the other."
        )
    _check_atoms(first, second, refuse)


def _check_atoms(first: Score, second: Score, refuse: Plain) -> None:
    """Of two densities, row by row, both are densities there or both are masses."""
    if first.atoms is None or second.atoms is None:
        if first.measure != second.measure:
            refuse("one is a density with atoms, and does not say which of the rows lie at one.")
        return
    unlike = (first.atoms != second.atoms) & (first.count > 0)
    if bool(unlike.any()):
        row = int(torch.nonzero(unlike)[0, 0])
        refuse(
            f"row {row} has a mass in one and a density in the other ({int(unlike.sum())} such rows): one "
            "has an atom there, or sees the row "
            "as censored."
        )


def _capital(measure: str) -> str:
    return {
        "density": "Log density",
        "mass": "Log mass",
        "mixed": "Log density (mass at atoms)",
        "partial": "Log partial likelihood",
    }.get(measure, f"Log {measure}")
