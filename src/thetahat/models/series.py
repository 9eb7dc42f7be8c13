"""Latent series: a value b_t of each step of an ordered column, of each group or of all rows together.

    ar1    b_1 ~ N(0, σ²),    b_t | b_s ~ N(ρ^(t−s) b_s, σ² (1 − ρ^{2(t−s)})),    ρ in [−1, 1]
    rw1    b_1 = 0,           b_t | b_s ~ N(b_s, s² (t − s))

s the step before t: steps without rows are passed over, and the series is what it would be with them. In both the
covariance of the steps is ΛΛᵀ with a triangular Λ, so that a series is one block of T random effects:

    ar1    L_ij = ρ^(t_i − t_j) σ √(1 − ρ^{2(t_j − t_{j−1})}),    j ≥ 2;     L_i1 = ρ^(t_i − t_1) σ
    rw1    L_ij = s √(t_j − t_{j−1}),                             j ≥ 2;     L_i1 = 0

A random walk begins at 0, at the first step in the data, so that what it begins at is a parameter of the function: level + b.

Source: Durbin and Koopman (2012), Time Series Analysis by State Space Methods, 2nd ed., ch. 2; Rue and Held (2005), Gaussian
Markov Random Fields, §1.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.columns import numeric_column, row_of
from ..data.random_terms import Grouping
from ..errors import BadArgument, NotFinite, UnknownLevel
from .custom import Latent
from .elimination import Array, Term
from .random_effects import Order, Random
from .scales import Autoregressive, Structure, deviation
from .sparsity import WIDEST

GAP = 10**6  # steps between neighbours of an autoregression, at most
CELLS = 2**28  # of the columns of a series that is not eliminated: 2 GB
ELIMINATED = 32  # steps of a series up to which its factor may be eliminated group by group


@dataclass(frozen=True, eq=False)
class Series(Structure):
    """Of one value a step. `steps` : (T,), rising; `name` of the latent variable."""

    steps: np.ndarray = field(default_factory=lambda: np.zeros(0))
    name: str = "b"
    what: ClassVar[str]

    @cached_property
    def gaps(self) -> np.ndarray:
        """t_j − t_{j−1}, (T − 1,)."""
        return np.diff(self.steps)

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The place of each value among the steps, −1 of one that is not among them."""
        at = np.searchsorted(self.steps, values).clip(max=self.width - 1)
        out: np.ndarray = np.where(self.steps[at] == values, at, -1)
        return out


@dataclass(frozen=True, eq=False)
class AutoregressiveSeries(Autoregressive, Series):
    """φ = (σ, z), ρ = sin z: both ends of its range are stationary points inside the domain."""

    what: ClassVar[str] = "an autoregression of order 1"

    @cached_property
    def _whole(self) -> tuple[Tensor, Tensor]:
        """Steps as whole numbers from 0, and the gaps."""
        at = torch.from_numpy(np.rint(self.steps - self.steps[0]).astype(np.int64))
        return at, at.diff()

    def root(self, z: Tensor) -> Tensor:
        """√(1 − ρ^{2d}) = cos z √(1 + ρ² + … + ρ^{2(d−1)}), which keeps its sign's meaning at the ends."""
        at, gaps = self._whole
        rho = self.rho(z)
        powers = torch.tril(rho ** (at[:, None] - at).clamp(min=0))
        sums = (rho ** (2 * torch.arange(int(gaps.max())))).cumsum(0)[gaps - 1]
        out: Tensor = powers * torch.cat([torch.ones_like(z)[None], torch.cos(z) * sums.sqrt()])
        return out

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"sd({self.name} | {group})", f"corr({self.name} | {group})"]


@dataclass(frozen=True, eq=False)
class RandomWalk(Series):
    """φ = (s,)."""

    what: ClassVar[str] = "a random walk"

    @property
    def size(self) -> int:
        return 1

    @cached_property
    def _root(self) -> Tensor:
        sd = torch.from_numpy(np.sqrt(np.concatenate([[0.0], self.gaps])))
        return torch.tril(sd.expand(self.width, self.width))

    def factor(self, phi: Tensor) -> Tensor:
        return phi[0] * self._root

    def slopes(self, phi: Tensor) -> Tensor:
        return self._root[None]

    def start(self, scale: Tensor) -> Tensor:
        return scale.clone()

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"sd({self.name} step | {group})"]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        return deviation(phi) * sigma

    def scale_places(self) -> list[int]:
        return [0]


SERIES: dict[str, type[AutoregressiveSeries | RandomWalk]] = {"ar1": AutoregressiveSeries, "rw1": RandomWalk}


@dataclass(frozen=True)
class OneGroup(Grouping):
    """All rows as one group: of a series without groups. `columns` : along which it runs."""

    @classmethod
    def of(cls, along: str) -> OneGroup:
        return cls((along,), (("all rows",),), np.zeros(1, dtype=np.int64))

    @property
    def label(self) -> str:
        return f"along {self.columns[0]}"

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        return np.zeros(len(frame), dtype=np.int64)


def steps_of(latents: Mapping[str, Latent], frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The steps of each series in these rows.

    Raises
    ------
    BadArgument, NotFinite
        fewer than 2 steps; of an autoregression a step that is not a whole number, or a gap without end
    """
    out: dict[str, np.ndarray] = {}
    for name, latent in latents.items():
        if latent.along is None:
            continue
        text, column = f"{name}=th.latent(along={latent.along!r})", frame[latent.along]
        values = numeric_column(frame, latent.along)
        lost = np.flatnonzero(~np.isfinite(values))
        if len(lost):
            raise NotFinite(
                f"{text}: the column is missing in row {row_of(column, int(lost[0]))}. Drop the row."
            )
        steps = np.unique(values)
        if len(steps) < 2:
            raise BadArgument(f"{text}: the column has {len(steps)} value, and a series has 2 steps or more.")
        if latent.covariance == "ar1":
            broken = np.flatnonzero(values != np.rint(values))
            if len(broken):
                raise BadArgument(
                    f"{text} has the step {values[broken[0]]:g} in row {row_of(column, int(broken[0]))}. Accepted of "
                    "covariance='ar1': whole numbers, for ρ is the correlation at a distance of 1. Number the steps."
                )
            wide = float(np.diff(steps).max())
            if wide > GAP:
                raise BadArgument(f"{text}: neighbouring steps are {wide:g} apart. Accepted: up to {GAP:,}.")
        out[name] = steps
    return out


def series_of(name: str, latent: Latent, steps: np.ndarray) -> Series:
    """The covariance of its steps."""
    return SERIES[latent.covariance](len(steps), steps, name)


def labels(latent: Latent, steps: np.ndarray) -> tuple[str, ...]:
    """One name a step: "year 1971"."""
    return tuple(f"{latent.along} {int(t) if t == int(t) else t!r}" for t in steps.tolist())


# ---- among the terms of a model --------------------------------------------------------------------------


def entries(r: Random) -> int:
    """How many latent variables of the term a row has: of a series one."""
    return 1 if isinstance(r.structure, Series) else r.structure.width


def predictors(r: Random, at: slice) -> list[int]:
    """Of each of the term's columns, which of the row's latent variables it enters."""
    return (
        [at.start] * r.structure.width if isinstance(r.structure, Series) else list(range(at.start, at.stop))
    )


def order_of(random: Sequence[Random], sizes: Sequence[int]) -> Order:
    """The factor with the most groups is eliminated, with its series of few steps; longer ones are dense columns."""
    long = [
        i for i, r in enumerate(random) if isinstance(r.structure, Series) and r.structure.width > ELIMINATED
    ]
    short = [i for i in range(len(random)) if i not in long]
    if not short:
        return Order([], long)
    widest = random[max(short, key=lambda i: sizes[random[i].source])].source
    first = [i for i in short if random[i].source == widest]
    others = [i for i in short if i not in first]
    dense = [i for i in others if isinstance(random[i].structure, Series)]
    return Order(first, [i for i in others if i not in dense] + sorted(dense + long))


def dense_term(predictor: int, levels: int, series: Series, code: Array, step: Array) -> Term:
    """The columns of a series that is not eliminated: one value a row is 1."""
    rows = np.zeros((len(code), levels * series.width))
    rows[np.arange(len(code)), code * series.width + step] = 1.0
    return Term(predictor, levels, series.width, rows)


def check_size(name: str, levels: int, series: Series, rows: int) -> None:
    """Refuse a series whose columns would not fit in memory: Λ is triangular, and H dense.

    Raises
    ------
    BadArgument
    """
    size = levels * series.width
    if size > WIDEST or size * rows > CELLS:
        raise BadArgument(
            f"{name}=th.latent(along=…) has {levels:,} groups of {series.width:,} steps, {size:,} values of {rows:,} rows. "
            f"Accepted: {WIDEST:,} values, and {CELLS:,} of values times rows. Of up to {ELIMINATED} steps, groups of the "
            "factor with the most groups cost little: coarser steps, or fewer groups."
        )


def unknown_step(series: Series, along: str, value: float, row: int, count: int) -> UnknownLevel:
    """What is said of a step that the fit has not seen."""
    return UnknownLevel(
        f"row {row}: the fit has not seen {along} = {value:g} ({count} such rows), a step of {series.name}. Accepted: steps "
        f"that were fitted, {series.steps[0]:g} to {series.steps[-1]:g}. For steps to come, fit with rows of them whose "
        "weight is 0."
    )


def known_steps(series: Series, along: str, batch: Batch, key: str) -> Tensor:
    """The place of each row's step, (n,).

    Raises
    ------
    UnknownLevel
    """
    code: Tensor = batch[key]
    unknown = torch.nonzero(code < 0)
    if len(unknown):
        row = int(unknown[0, 0])
        raise unknown_step(series, along, float(batch[along][row]), row, len(unknown))
    return code
