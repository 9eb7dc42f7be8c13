"""What a saved fit knows of its data without having them: the objective at θ̂, and sources that have a name
and a size but no rows.

A loaded fit is an ordinary Fit over these. What follows from θ̂ and from J(θ̂) alone (estimates, standard
errors, Wald's intervals and tests, predictions for new rows) is computed by the same code from the same
numbers; whatever asks for a row, or for the objective at another θ, is told that it needs the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.selection import Selection
from ..data.table import Encoder, Table
from ..errors import BadArgument
from ..families.base import Family
from ..language.fast_tokenizers import from_config
from ..likelihood.objective import LogLikelihood, LogPrior, Objective
from ..models.information import Information
from ..models.taylor import Taylor
from ..types import ModelLike, Plain, Settings


@dataclass(frozen=True)
class Memory:
    """What is remembered of the data of a fit.

    Parameters
    ----------
    path
        of the saved fit
    source
        the class of the source ("Table", "Tensors")
    name
        of the data, as the report shows it
    size
        rows that were used, or None
    dropped, lacking
        rows with a missing value; column → rows that lack its value
    total
        Σ count
    fingerprint, units
        of what was scored
    missing
        what was asked of rows with a missing value
    streamed
        whether the data were too large to be held
    weights
        the column of frequency weights, or None
    tokenizer, context
        of text: how it became tokens, as plain values, and how many a prediction sees
    shape, levels
        of images
    drawn
        whether the data were drawn from the model as it was fitted
    """

    path: str
    source: str
    name: str = ""
    size: int | None = None
    dropped: int = 0
    lacking: dict[str, int] = field(default_factory=dict)
    total: float | None = None
    fingerprint: str | None = None
    units: str = "y"
    missing: str = "drop"
    streamed: bool = False
    weights: str | None = None
    tokenizer: Settings | None = None
    context: int | None = None
    shape: tuple[int, ...] | None = None
    levels: int | None = None
    drawn: bool = False

    def lack(self) -> NoReturn:
        raise BadArgument(
            f"this needs the data that the fit was fitted to, and {self.path} holds none of it: "
            f"th.load({self.path!r}, data=…) with those data."
        )


class ForgottenFrame(Selection):
    """A data frame of which the name, the columns that were read, and the number of rows are known."""

    def __init__(self, memory: Memory, columns: Sequence[str]):
        self.memory_of, self.path, self.pandas, self.name = memory, None, None, memory.name
        self.index = self._own = self.subset = None
        self.polars = False
        self.whole = self
        self._columns, self._size = tuple(columns), (memory.size or 0) + memory.dropped

    def read(self, names: Sequence[str]) -> pd.DataFrame:
        self.memory_of.lack()

    def blocks(self, names: Sequence[str], rows: int = 0) -> Iterator[pd.DataFrame]:
        self.memory_of.lack()


class ForgottenTable(Table):
    """The table that a regression was fitted to, without its rows."""

    def __init__(self, memory: Memory, encoder: Encoder, family: Family):
        self.memory, self.encoder, self.family = memory, encoder, family
        self.frame, self.missing, self.streamed = (
            ForgottenFrame(memory, encoder.required),
            memory.missing,
            memory.streamed,
        )
        self.whole = self.kept = None
        self.events = {}
        self.rows, self.dropped, self.total = memory.size or 0, memory.dropped, memory.total or 0.0
        self.lacking = memory.lacking

    @property
    def fingerprint(self) -> str:
        return self.memory.fingerprint or ""

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        self.memory.lack()

    def column(self, name: str) -> np.ndarray:
        self.memory.lack()


class Forgotten:
    """Any other source, without its rows."""

    def __init__(self, memory: Memory):
        self.memory, self.kind = memory, memory.source
        self.shape, self.levels, self.context = memory.shape, memory.levels, memory.context
        self.drawn = memory.drawn

    @property
    def tokenizer(self) -> Plain:
        """How text became tokens, where the data were text."""
        return None if self.memory.tokenizer is None else from_config(self.memory.tokenizer)

    @property
    def size(self) -> int | None:
        return self.memory.size

    @property
    def fingerprint(self) -> str:
        return self.memory.fingerprint or ""

    @property
    def units(self) -> str:
        return self.memory.units

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        self.memory.lack()


class ForgottenWeights:
    """A weighting of which the name is known."""

    def __init__(self, memory: Memory, name: str):
        self.memory, self.__name__ = memory, name

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        self.memory.lack()


@dataclass(frozen=True)
class Spread:
    """V of θ̂, (p, p), its kind, and t's degrees of freedom of each coordinate, (p,)."""

    kind: str
    V: Tensor
    df: Tensor


class Recalled(Objective):
    """An objective of which the value, the gradient and the information at θ̂ are known.

    Parameters
    ----------
    terms
        the log-likelihoods, whose sources are forgotten
    priors
        as they were
    memory
        of the data of the first
    found
        the objective there to second order, priors included; None if it was not kept
    inverse
        J⁻¹, where it was had more exactly than from J (by QR of an ill-conditioned linear model's columns),
        or None
    spread
        the covariance of θ̂ of the kind that the fit had, where that needs the rows (a sandwich); or None
    remembered
        of a mixed model, what is known of its rows (`io.mixed`); or None
    """

    def __init__(
        self,
        terms: list[LogLikelihood],
        priors: list[LogPrior],
        memory: Memory,
        found: Taylor | None,
        inverse: Tensor | None = None,
        spread: Spread | None = None,
        remembered: Plain = None,
    ):
        super().__init__(terms, priors)
        self.remembered = remembered
        self.memory, self.peak, self.found, self.inverse, self.spread = (
            memory,
            self.theta,
            found,
            inverse,
            spread,
        )

    def copy(self) -> Recalled:
        own = super().copy()
        return Recalled(
            own.terms, own.priors, self.memory, self.found, self.inverse, self.spread, self.remembered
        )

    def taylor(
        self, theta: Tensor | None = None, *, order: int = 2, precision: torch.dtype = torch.float64
    ) -> Taylor:
        if self.found is None or not torch.equal(self.theta if theta is None else theta, self.peak):
            self.memory.lack()
        J = self.found.information
        if order < 2 or J is None:
            return replace(self.found, information=None)
        copies = [t if t is None else t.clone() for t in (J.A, J.E, J.D)]  # sums add in place
        return replace(self.found, information=Information(copies[0], copies[1], copies[2], J.eliminated))  # type: ignore[arg-type]

    @property
    def observations(self) -> float:
        if self.memory.total is None:
            self.memory.lack()
        return self.memory.total
