"""A likelihood of one's own: a function of a batch and named parameters, with the constraints that they obey.

    @th.model(b1=500.0, b2=1e-4, sigma=th.positive(1.0))
    def misra1a(batch, b1, b2, sigma):
        return th.families.Normal().at(b1 * (1 - torch.exp(-b2 * batch["x"])), sigma)

The function returns the distribution of each row, or its log p. Of a distribution the fit also predicts and draws
(`described`).

θ is unconstrained; each constraint maps its part of θ to the natural value:

    positive   v = e^θ                 interval   v = low + (high − low)·σ(θ)
    ordered    v_1 = θ_1, v_{j+1} = v_j + e^θ_{j+1}
    simplex    v = softmax(0, θ_1, …, θ_{K−1})
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError, UnknownColumn, WrongType
from ..families.distribution import Distribution
from ..families.recorder import Call, recording
from ..types import Plain, Settings
from .base import Model

COVARIANCES = ("us", "diag", "cs", "ar1")
SERIES = ("ar1", "rw1")  # of a value a step along a column


@dataclass(frozen=True)
class Constraint:
    """A start, and the map from unconstrained θ to the natural value. `elementwise`: one θ a value,
    increasing."""

    value: Plain
    elementwise = True

    def unconstrain(self, value: Tensor) -> Tensor:
        return value

    def constrain(self, theta: Tensor) -> Tensor:
        return theta

    def start(self) -> Tensor:
        """The start, unconstrained."""
        try:
            value = torch.as_tensor(self.value, dtype=torch.float64).detach().clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadArgument(
                f"a parameter starts at a number or a tensor of numbers; received {self.value!r}."
            ) from error
        theta = self.unconstrain(value)
        if not bool(torch.isfinite(theta).all()):
            raise BadArgument(
                f"the start {value.tolist()} does not satisfy the constraint {type(self).__name__.lower()}."
            )
        return theta


@dataclass(frozen=True)
class Positive(Constraint):
    def unconstrain(self, value: Tensor) -> Tensor:
        return torch.log(value)

    def constrain(self, theta: Tensor) -> Tensor:
        return torch.exp(theta)


@dataclass(frozen=True)
class Interval(Constraint):
    low: float = 0.0
    high: float = 1.0

    def unconstrain(self, value: Tensor) -> Tensor:
        return torch.log(value - self.low) - torch.log(self.high - value)

    def constrain(self, theta: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * torch.sigmoid(theta)


@dataclass(frozen=True)
class Ordered(Constraint):
    elementwise = False

    def unconstrain(self, value: Tensor) -> Tensor:
        return torch.cat([value[:1], torch.log(value.diff())])

    def constrain(self, theta: Tensor) -> Tensor:
        return torch.cat([theta[:1], theta[:1] + torch.exp(theta[1:]).cumsum(0)])


@dataclass(frozen=True)
class Simplex(Constraint):
    elementwise = False

    def unconstrain(self, value: Tensor) -> Tensor:
        if abs(float(value.sum()) - 1) > 1e-9:
            raise BadArgument(
                f"the start {value.tolist()} of a simplex sums to {float(value.sum()):g}, not to 1."
            )
        return torch.log(value[1:] / value[0])

    def constrain(self, theta: Tensor) -> Tensor:
        return torch.softmax(torch.cat([theta.new_zeros(1), theta]), 0)


def positive(value: Plain = 1.0) -> Constraint:
    """A parameter (or a tensor of them) in (0, ∞), starting at `value`.

    Examples
    --------
    >>> positive(2.0).constrain(positive(2.0).start()).item()
    2.0
    """
    return Positive(value)


def interval(low: float, high: float, value: Plain = None) -> Constraint:
    """A parameter in (low, high), starting at `value` (None: the middle)."""
    if not low < high:
        raise BadArgument(f"interval({low}, {high}): low must be below high.")
    return Interval((low + high) / 2 if value is None else value, low, high)


def ordered(value: Plain) -> Constraint:
    """A vector v_1 < v_2 < …, starting at `value`."""
    return Ordered(value)


def simplex(value: Plain) -> Constraint:
    """Probabilities that sum to 1: a number of them, K (then all equal), or where they start."""
    return Simplex(torch.full((value,), 1 / value, dtype=torch.float64) if isinstance(value, int) else value)


@dataclass(frozen=True)
class Latent:
    """What is not observed of each group, N(0, ΛΛᵀ). Made by `latent`."""

    by: tuple[str, ...]
    sd: tuple[float, ...]
    names: tuple[str, ...] | None
    covariance: str
    along: str | None = None


def latent(
    by: str | Sequence[str] | None = None,
    sd: float | Sequence[float] = 1.0,
    *,
    along: str | None = None,
    names: Sequence[str] | None = None,
    covariance: str = "us",
) -> Latent:
    """A latent variable of each group, b ~ N(0, Σ), which the likelihood is integrated over; Σ is estimated. With `along`, a
    series of each group: a value of each step.

        ar1    b_t | b_{t−1} ~ N(ρ b_{t−1}, σ² (1 − ρ²)),    b_1 ~ N(0, σ²)
        rw1    b_t | b_{t−1} ~ N(b_{t−1}, s²),               b_1 = 0

    Parameters
    ----------
    by
        the column whose values identify the groups; of several columns, their combinations; None: one series of all rows
    sd
        where its standard deviation starts, above 0; several: of a vector, which the function receives as (n, q)
    along
        the column of numbers whose values are the steps of a series; the function receives b of the row's own step, (n,).
        Steps may be missing
    names
        of the q components, in the results
    covariance
        of a vector: "us" (any), "diag" (independent), "cs" (one standard deviation and one correlation), "ar1"; of a
        series: "ar1" (stationary; its standard deviation is σ, the innovations' σ √(1 − ρ²); whole numbers of steps), "rw1"
        (a random walk from 0 at the first step in the data; its standard deviation is that of a step of 1)

    Raises
    ------
    BadArgument
        a standard deviation that is not above 0, a number of names that differs, an unknown covariance

    Examples
    --------
    >>> latent(by="subject", sd=(2.0, 0.5), names=("level", "rate")).sd
    (2.0, 0.5)
    >>> latent(along="year", covariance="rw1").along
    'year'
    """
    groups = _columns_named(by) if by is not None else ()
    if by is None and along is None:
        raise BadArgument(
            "latent() has neither by= nor along=. Accepted: by='subject', along='year', or both."
        )
    try:
        start = tuple(float(s) for s in ([sd] if isinstance(sd, (int, float)) else sd))
    except (TypeError, ValueError) as error:
        raise BadArgument(f"latent(sd={sd!r}). Accepted: a number above 0, or several.") from error
    bad = next((s for s in start if not 0 < s < math.inf), None)
    if bad is not None or not start:
        raise BadArgument(f"latent(sd={sd!r}): a standard deviation starts above 0 and is finite.")
    if names is not None and (isinstance(names, str) or len(names) != len(start)):
        raise BadArgument(f"latent(names={names!r}) of {len(start)} dimensions. Accepted: one name each.")
    accepted = COVARIANCES if along is None else SERIES
    if covariance not in accepted:
        which = "" if along is None else f"along={along!r}, "
        raise BadArgument(
            f"latent({which}covariance={covariance!r}). Accepted: {', '.join(map(repr, accepted))}."
            + (" Of a random walk, along= is the column of its steps." if covariance == "rw1" else "")
        )
    if along is not None and (not isinstance(along, str) or len(start) > 1 or names is not None):
        raise BadArgument(
            f"latent(along={along!r}, sd={sd!r}, names={names!r}). Accepted: along the name of one column, with one standard "
            "deviation and without names; for several series, several latent variables."
        )
    return Latent(groups, start, None if names is None else tuple(names), covariance, along)


def _columns_named(by: str | Sequence[str]) -> tuple[str, ...]:
    groups = (by,) if isinstance(by, str) else tuple(by) if isinstance(by, Sequence) else ()
    if not groups or not all(isinstance(name, str) for name in groups):
        raise BadArgument(f"latent(by={by!r}). Accepted: the name of a column, or several.")
    return groups


class Custom(Model):
    """A model made of a function and its named parameters. Made by `model`, not by hand."""

    def __init__(
        self,
        function: Callable[..., Plain],
        constraints: dict[str, Constraint],
        measure: str,
        target: str,
        concave: bool,
    ):
        super().__init__()
        self.function, self.constraints, self.measure, self.target, self.concave = (
            function,
            constraints,
            measure,
            target,
            concave,
        )
        self.__doc__ = function.__doc__
        # pairs, because a ParameterDict sorts a dict by name, and θ is in the order of the constraints
        self.theta = nn.ParameterDict([(name, nn.Parameter(c.start())) for name, c in constraints.items()])

    def values(self) -> dict[str, Tensor]:
        """The parameters on their natural scale, by name."""
        return {name: c.constrain(self.theta[name]) for name, c in self.constraints.items()}

    def log_prob(self, batch: Batch) -> Tensor:
        return rows_of(self.function(batch, **self.values()), batch, self.target, self.function.__name__)

    def call(self, batch: Batch) -> Call | None:
        """The call of a family whose value the function returns: `return th.families.Normal().log_prob(y,
        mean, scale)`.

        None where it returns anything else, or where the family does not record its calls. By it a sum of
        squares is recognised (`solvers.GaussNewton`) and the expected information is known.
        """
        with recording() as calls:
            out = self.log_prob(batch)
        return next((call for call in reversed(calls) if call.value is out), None)

    def __call__(self, batch: Batch) -> Tensor:
        return self.log_prob(batch)

    def __getstate__(self) -> Settings:
        """A function is pickled by its qualified name. Decorated by `@th.model`, that name is this model,
        and it the model's `function`."""
        function, at = self.function, sys.modules.get(self.function.__module__)
        for part in function.__qualname__.split("."):
            at = getattr(at, part, None)
        if isinstance(at, Custom) and at.function is function:
            function.__qualname__ += ".function"
        return dict(super().__getstate__())  # type: ignore[no-untyped-call]

    @property
    def names(self) -> list[str]:
        out: list[str] = []
        for name, value in self.values().items():
            out += [name] if value.numel() == 1 else [f"{name}[{i}]" for i in range(value.numel())]
        return out

    @property
    def elementwise(self) -> bool:
        return all(c.elementwise for c in self.constraints.values())

    def values_at(self, theta: Tensor) -> dict[str, Tensor]:
        """Flat unconstrained θ → natural values by name."""
        out, at = {}, 0
        for name, constraint in self.constraints.items():
            shape = self.theta[name].shape
            size = shape.numel()
            out[name] = constraint.constrain(theta[at : at + size].view(shape))
            at += size
        return out

    def natural(self, theta: Tensor) -> Tensor:
        """Flat unconstrained θ → flat natural values."""
        return torch.cat([value.reshape(-1) for value in self.values_at(theta).values()])


class WithTexts(Batch):
    """Rows of a table with columns of text, of which a model of one's own may read none: those are refused, others left out."""

    def __init__(self, tensors: dict[str, Tensor], texts: Sequence[str]):
        super().__init__(tensors)
        self._texts = frozenset(texts)

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        if isinstance(key, str) and key in self._texts:
            raise WrongType(
                f"column {key!r} holds text, and your own model reads it. Encode it as numbers, such as "
                f"data[{key!r}].astype('category').cat.codes of pandas."
            )
        return super().__getitem__(key)  # type: ignore[no-untyped-call]


def rows_of(out: Plain, batch: Batch, target: str, name: str) -> Tensor:
    """log p of each row, from what a function returned: that itself, or a distribution.

    Raises
    ------
    ModelError
        it returned anything else
    """
    if isinstance(out, Distribution):
        if target not in batch:
            raise UnknownColumn(
                f"{name} returns the distribution of column {target!r}, which the data lack. Columns: "
                f"{', '.join(batch.tensors)}. Accepted: @th.model(…, target='the column of the response')."
            )
        y, size = batch[target], batch.shape
        wrong = next((tuple(p.shape) for p in out.parameters if p.ndim and tuple(p.shape) != size), None)
        if wrong is None or out.family.length is not None:
            value = out.log_prob(y)
            return value if tuple(value.shape) == size else value.expand(size)
        raise ModelError(
            f"{name} returned {out.family} with a parameter of shape {wrong}. Accepted: one value a row, {size}, or one "
            "for all."
        )
    if not isinstance(out, Tensor) or tuple(out.shape) != batch.shape:
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ModelError(
            f"{name} must return log p of each row, a tensor of shape {batch.shape}, or a distribution, "
            f"th.families.Normal().at(mean, scale); it returned {shape}. "
            "Do not sum or average: the library does."
        )
    return out
