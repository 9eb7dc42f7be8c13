"""Which new rows a fit finds surprising, beside reference rows of which nothing is wrong.

    s_i = log p(x_i | θ̂),      p_j = (1 + #{reference rows i : s_i ≤ s_j}) / (1 + n_ref)

p_j is the conformal p-value of new row j: if it is exchangeable with the reference rows, P(p_j ≤ α) ≤ α,
whatever the model is and however badly it fits, in any finite sample. Rows are flagged by Benjamini and
Hochberg's rule, under which the expected share of false flags is at most `level`: conformal p-values depend
on one another in the way that it allows.

References
----------
Vovk, Gammerman and Shafer (2005), Algorithmic Learning in a Random World; Bates, Candès, Lei, Romano and
Sesia (2023), Testing for outliers with conformal p-values, theorem 2; Benjamini and Hochberg (1995),
Controlling the false discovery rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import BadArgument, BadWeights, IncomparableScores
from ..notebook import Printed
from ..printable import as_text, encoded
from ..protocols import Wraps
from ..types import Data, Plain, Settings
from .score import Score

SHOWN = 10  # flagged rows in print


@dataclass(frozen=True, eq=False)
class Surprise(Printed):
    """New rows against reference rows, by a fit's log p of each.

    Parameters
    ----------
    reference, new
        the scores; a group of terms (a document) is one row, at its mean
    p_values
        (m,) of the new rows
    flagged
        the new rows that are surprising at `level`, the most surprising first
    difference, standard_error
        new less reference, of the mean log p, nats a row
    p_shift
        Mann and Whitney's, one-sided: that new rows have lower log p than reference rows
    level
        the expected share of false flags
    note
        what has to be said besides
    """

    reference: np.ndarray = field(repr=False)
    new: np.ndarray = field(repr=False)
    p_values: np.ndarray = field(repr=False)
    flagged: np.ndarray = field(repr=False)
    difference: float
    standard_error: float
    p_shift: float
    level: float
    described: str
    note: str = ""

    @property
    def z(self) -> float:
        """difference / standard error."""
        return self.difference / self.standard_error if self.standard_error > 0 else math.nan

    @property
    def more_surprising(self) -> float:
        """The probability that a new row has a lower log p than a reference row, equal ones counted half; ½
        without a shift."""
        rank = np.searchsorted(np.sort(self.reference), self.new, "left") + np.searchsorted(
            np.sort(self.reference), self.new, "right"
        )
        return float(1 - rank.mean() / (2 * len(self.reference)))

    @encoded
    def __str__(self) -> str:
        return as_text(self)

    def __rich_console__(self, console: Plain, options: Plain) -> Iterator[Plain]:
        from rich.table import Table
        from rich.text import Text

        yield Text(f"New rows against reference rows: {self.described}")
        shown = Table(box=None, pad_edge=False)
        for column in ("", "rows", "nats a row", "±", "z"):
            shown.add_column(column, justify="left" if not column else "right")
        for name, v in (("reference", self.reference), ("new", self.new)):
            shown.add_row(
                name,
                f"{len(v):,}",
                *map(_number, (v.mean(), v.std(ddof=1) / math.sqrt(len(v)) if len(v) > 1 else math.nan)),
            )
        shown.add_row(
            "difference", "", _number(self.difference), _number(self.standard_error), _number(self.z)
        )
        yield shown
        yield Text(
            f"A new row is more surprising than a reference row with probability {self.more_surprising:.3f}; "
            "Mann–Whitney "
            f"p = {self.p_shift:.3g}."
        )
        yield from self._flags(Text, Table)
        if self.note:
            yield Text(self.note, style="dim")

    def _flags(self, text: type, table: Data) -> Iterator[Plain]:
        least = 1 / (1 + len(self.reference))
        if not len(self.flagged):
            why = ""
            if least > self.level / len(self.new):
                why = f" ({len(self.reference):,} reference rows can give a p-value of {least:.2g} at least)"
            yield text(f"No row is flagged at a false discovery rate of {self.level:.0%}{why}.")
            return
        yield text(
            f"{len(self.flagged)} of {len(self.new):,} rows flagged at a false discovery rate of "
            f"{self.level:.0%}:",
            style="bold red",
        )
        shown = table(box=None, pad_edge=False)
        for column in ("row", "nats", "p"):
            shown.add_column(column, justify="right")
        for row in self.flagged[:SHOWN]:
            shown.add_row(f"{row:,}", _number(self.new[row]), f"{self.p_values[row]:.3g}")
        yield shown
        if len(self.flagged) > SHOWN:
            yield text(f"… and {len(self.flagged) - SHOWN} more.")

    def to_dict(self) -> Settings:
        """Plain values, for JSON: every new row's p-value among them."""
        return {
            "reference": {"rows": len(self.reference), "nats": _plain(self.reference.mean())},
            "new": {"rows": len(self.new), "nats": _plain(self.new.mean())},
            "difference": _plain(self.difference),
            "standard_error": _plain(self.standard_error),
            "more_surprising": self.more_surprising,
            "p_shift": self.p_shift,
            "level": self.level,
            "flagged": self.flagged.tolist(),
            "p_values": self.p_values.tolist(),
            "of": self.described,
            "note": self.note,
        }


def surprise(fit: Plain, reference: Data, new: Data, *, level: float = 0.1, **scoring: Any) -> Surprise:
    """Compare new rows with reference rows by a fit's log p: of y given x, of a whole observation, or a bound
    of it.

    Parameters
    ----------
    fit
        anything with `score(data)`
    reference
        rows that are what rows should be, and that the fit has not seen: those that it was fitted to are
        flattered
    new
        the rows in question; or both may be a Score
    level
        in (0, 1), the false discovery rate
    scoring
        of `Fit.score`: samples, seed

    Returns
    -------
    Surprise

    Raises
    ------
    IncomparableScores
        the two are not scores of one kind
    BadWeights
        rows that count otherwise than once

    Examples
    --------
    >>> import thetahat as th
    >>> rng = np.random.default_rng(0)
    >>> fit = th.fit("normal", rng.normal(size=200))
    >>> found = surprise(fit, {"y": rng.normal(size=99)}, {"y": [0.3, 7.0, -0.2]})
    >>> found.p_values.tolist(), found.flagged.tolist()
    ([..., 0.01, ...], [1])
    """
    if not 0 < level < 1:
        raise BadArgument(
            f"level={level}. Accepted: a number between 0 and 1, the share of flags that may be false."
        )
    scores = [each if isinstance(each, Score) else fit.score(each, **scoring) for each in (reference, new)]
    for a, b, what in (
        (vars(scores[0])[k], vars(scores[1])[k], k) for k in ("kind", "measure", "units", "dimensions", "K")
    ):
        if a != b:
            raise IncomparableScores(f"the reference and the new rows differ in {what}: {a} and {b}.")
    old, now = (_units(s, name) for s, name in zip(scores, ("reference", "new"), strict=True))
    ranked = np.searchsorted(np.sort(old), now, "right")
    p = (1 + ranked) / (1 + len(old))
    with np.errstate(invalid="ignore"):
        difference = float(now.mean() - old.mean())
        error = (
            math.sqrt(sum(v.var(ddof=1) / len(v) for v in (old, now)))
            if min(len(old), len(now)) > 1
            else math.nan
        )
    own = fit.source.fingerprint if isinstance(fit, Wraps) else None
    note = ""
    if own is not None and own == scores[0].fingerprint:
        note = (
            "The reference rows are those that were fitted, and so a little less surprising than others "
            "would be: p-values are too small by as "
            "much. Keep rows aside."
        )
    from scipy import stats  # takes long to load

    test = stats.mannwhitneyu(now, old, alternative="less")
    return Surprise(
        old,
        now,
        p,
        benjamini_hochberg(p, level),
        difference,
        error,
        float(test.pvalue),
        level,
        scores[1].described,
        note,
    )


def benjamini_hochberg(p: np.ndarray, level: float) -> np.ndarray:
    """Which of m hypotheses are rejected at a false discovery rate of `level`, smallest p first: the k
    smallest, k the last with p_(k) ≤ k·level/m.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.9, 0.01, 0.04, 0.03]), 0.1).tolist()
    [1, 3, 2]
    """
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / len(p) * (1 + 1e-12))
    return order[: below[-1] + 1] if len(below) else order[:0]


def _units(score: Score, what: str) -> np.ndarray:
    """log p of each row, or the mean of each group."""
    seen = score.count > 0
    if not bool((score.count[seen] == 1).all()):
        raise BadWeights(
            f"{what} rows count otherwise than once: p-values rank rows that were each observed once."
        )
    v = score.per_observation[seen]
    if score.group is not None:
        code = torch.unique(score.group[seen], return_inverse=True)[1]
        v = torch.zeros(int(code.max()) + 1, dtype=v.dtype).index_add_(0, code, v) / torch.bincount(code)
    return v.numpy()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}".replace("-", "−")


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
