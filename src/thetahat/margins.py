"""Margins: predictions, comparisons, slopes or marginal means, as a table that can be tested, drawn and copied."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .evaluation.margin_estimates import Estimates
from .notebook import block
from .printable import encoded, printable
from .report.formatting import fixed, minuses, places, probability, statistic
from .report.margin_tables import RIGHT, lines
from .types import Chart, Plain

if TYPE_CHECKING:
    import pandas as pd

    from .inference.tests import Test

WIDTH = 80
SHOWN = 40  # rows that are printed
HEADS = {"estimate": "estimate", "standard_error": "std. error", "p_value": "p"}


class Margins:
    """Estimates that are functions of a fit's θ̂, with errors by the delta method. It prints itself, in a terminal and in a
    notebook.

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [1.0, 3.0, 2.0, 5.0, 4.0, 6.0], "x": [0.0, 1.0, 0.0, 1.0, 2.0, 2.0], "g": list("aabbab")}
    >>> found = th.fit("y ~ x + g", data).means("g", pairs=True)
    >>> found.frame[["contrast", "estimate", "df"]].round(3).to_dict("list")
    {'contrast': ['a - b'], 'estimate': [-1.667], 'df': [3.0]}
    """

    def __init__(self, estimates: Estimates, level: float = 0.95, *, polars: bool = False):
        self._estimates, self._level, self._polars = estimates, level, polars
        table = estimates.table(level)
        finite = bool(np.isfinite(table["df"]).any())
        table = table if finite else table.drop(columns="df")
        self._table = table.rename(columns={"statistic": "t" if finite else "z"})

    @property
    def frame(self) -> Plain:
        """Columns of what each is of (term, contrast, category, groups, values), and estimate, standard_error, t with its
        df (or z), p_value, low, high. A pandas data frame; of a fit to a polars table a polars one."""
        if self._polars:
            import polars

            return polars.from_pandas(self._table)
        return self.table

    @property
    def estimates(self) -> np.ndarray:
        """(m,), on the scale on which they are tested: before exponentiate or a link's inverse."""
        return self._estimates.value.numpy().copy()

    @property
    def jacobian(self) -> np.ndarray:
        """∂estimates/∂θ at θ̂, (m, p)."""
        return self._estimates.G.numpy().copy()

    @property
    def covariance(self) -> np.ndarray:
        """Of `estimates`, (m, m): G V Gᵀ."""
        return self._estimates.covariance().numpy()

    @property
    def level(self) -> float:
        """Of the intervals."""
        return self._level

    def __len__(self) -> int:
        return len(self._table)

    def test(
        self,
        hypothesis: str | Sequence[str] | np.ndarray,
        *,
        adjust: str | None = None,
        level: float | None = None,
    ) -> Margins:
        """Linear combinations of the estimates, each tested.

        Parameters
        ----------
        hypothesis
            "b1 = b2" (b1 the first row), "b1 - 2*b3 = 1", or a list of such; "pairwise", "reference", "sequential"; a
            matrix of a row a combination and a column an estimate
        adjust
            p-values and intervals for several: "tukey" (of "pairwise"), "holm", "bonferroni", "sidak"; None
        level
            of the intervals; None: that of this table

        Raises
        ------
        BadArgument
            what cannot be read, or does not fit the number of estimates
        """
        found = self._estimates.test(hypothesis, adjust)
        return Margins(found, self._level if level is None else level, polars=self._polars)

    def joint(self) -> Test:
        """Wald's test that all estimates are 0 (ratios: 1) together."""
        return self._estimates.joint()

    def plot(self) -> Chart:
        """Estimates with their intervals: dots in order, or a line over a column of numbers. Differences and slopes have a line at
        0, ratios at 1."""
        from .report.margin_charts import chart

        return chart(self._table, self._estimates.title, self._level, self._estimates.none)

    # ---- as text -------------------------------------------------------------------------------------------

    def _heads(self) -> list[str]:
        ends = {"low": f"{100 * self._level:g}% low", "high": "high"}
        return [printable({**HEADS, **ends}.get(c, c)) for c in map(str, self._table)]

    def _cells(self) -> Iterator[list[str]]:
        for row in self._table.head(SHOWN).to_dict("records"):
            decimals = places(row["standard_error"])
            out = []
            for name, value in row.items():
                if name in ("estimate", "standard_error", "low", "high"):
                    out.append(fixed(value, decimals))
                elif name in ("z", "t"):
                    out.append(statistic(value))
                elif name == "p_value":
                    out.append(probability(value))
                elif value != value:  # a column that this term's rows do not vary
                    out.append("")
                elif isinstance(value, (float, np.floating)):
                    out.append(minuses(f"{value:.5g}"))
                else:
                    out.append(printable(str(value)))
            yield out

    def _note(self) -> str:
        own, more = self._estimates, len(self) - SHOWN
        parts = [f"adjusted: {own.adjust}"] if own.adjust is not None else []
        parts += [f"{more:,} more rows: .frame"] if more > 0 else []
        return "; ".join(parts)

    @encoded
    def __str__(self) -> str:
        title = textwrap.wrap(printable(self._estimates.title), WIDTH)
        table = lines(list(map(str, self._table)), self._heads(), list(self._cells()), WIDTH)
        return "\n".join([*title, *table, *([self._note()] if self._note() else [])])

    def __repr__(self) -> str:
        return str(self)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        heads = self._heads()
        rows = [heads, ["---"] * len(heads), *self._cells()]
        text = "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in rows)
        return f"{text}\n\n{self._note()}" if self._note() else text

    def _repr_html_(self) -> str:
        text = [j for j, name in enumerate(map(str, self._table)) if name not in RIGHT]
        return block(self._estimates.title, self._heads(), self._cells(), [self._note()], left=text)

    @property
    def table(self) -> pd.DataFrame:
        """`frame`, always of pandas."""
        from .report.frames import whole

        return whole(self._table.copy())
