"""One-to-one maps t = f(x) of what was observed, with the logarithm of what they do to volume.

    p(x) = p(t) · |det ∂t/∂x|

A map whose constants come from data (a mean, a scale) learns them once, `learnt(x)`, and is then a fixed
function: of other data it is the same map. Shapes: x and t (n,), or (n, d) with the columns along the last
axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import BadArgument, DataError, OutOfSupport
from .devices import sent


class Map(ABC):
    """t = f(x), one-to-one: `forward`, `inverse`, and `log_determinant(t)` = log |det ∂t/∂x| of each row,
    as a function of t."""

    def learnt(self, x: Tensor, count: Tensor) -> Self:
        """The map with the constants of these data, weighted by `count`, (n,); itself, where it has none."""
        return self

    def refuse(self, x: Tensor) -> None:
        """The first row outside the domain is an OutOfSupport."""
        return

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def inverse(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def log_determinant(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Log(Map):
    """t = log x of positive numbers, dt/dx = 1/x = exp(−t).

    Parameters
    ----------
    columns
        of x (n, d) that are mapped; None: all

    Examples
    --------
    >>> Log().forward(torch.tensor([[1.0, 1.0]])).tolist()
    [[0.0, 0.0]]
    """

    columns: tuple[int, ...] | None = None

    def refuse(self, x: Tensor) -> None:
        _refuse(x, _chosen(x, self.columns) > 0, self.columns, "log needs positive numbers")

    def forward(self, x: Tensor) -> Tensor:
        return _put(x, self.columns, torch.log(_chosen(x, self.columns)))

    def inverse(self, t: Tensor) -> Tensor:
        return _put(t, self.columns, torch.exp(_chosen(t, self.columns)))

    def log_determinant(self, t: Tensor) -> Tensor:
        return _rowwise(-_chosen(t, self.columns))

    def __str__(self) -> str:
        return f"log{_of(self.columns)}"


@dataclass(frozen=True)
class Logit(Map):
    """t = log (x − low)/(high − x) of numbers between two ends, dt/dx = (high − low)/((x − low)(high − x)).

    Parameters
    ----------
    low, high
        the ends, which x does not reach
    columns
        of x (n, d) that are mapped; None: all

    Examples
    --------
    >>> Logit(0.0, 10.0).forward(torch.tensor([[5.0]])).tolist()
    [[0.0]]
    """

    low: float = 0.0
    high: float = 1.0
    columns: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise BadArgument(f"low={self.low}, high={self.high}. Accepted: low below high.")

    def refuse(self, x: Tensor) -> None:
        part = _chosen(x, self.columns)
        inside = (part > self.low) & (part < self.high)
        _refuse(
            x, inside, self.columns, f"logit needs numbers strictly between {self.low:g} and {self.high:g}"
        )

    def forward(self, x: Tensor) -> Tensor:
        part = _chosen(x, self.columns)
        return _put(x, self.columns, torch.log(part - self.low) - torch.log(self.high - part))

    def inverse(self, t: Tensor) -> Tensor:
        return _put(
            t, self.columns, self.low + (self.high - self.low) * torch.sigmoid(_chosen(t, self.columns))
        )

    def log_determinant(self, t: Tensor) -> Tensor:
        part = _chosen(t, self.columns)
        width = torch.log(torch.as_tensor(self.high - self.low, dtype=t.dtype, device=t.device))
        return _rowwise(F.softplus(part) + F.softplus(-part) - width)  # 1/(σ(t) σ(−t)) per width

    def __str__(self) -> str:
        return f"logit{_of(self.columns)}"


@dataclass(frozen=True, eq=False)
class Standardise(Map):
    """t = (x − m)/s, column by column: mean 0 and variance 1 in the data that it was learnt from.

    Parameters
    ----------
    mean, scale
        m and s, (d,), or one for every column; None: learnt

    Examples
    --------
    >>> Standardise(1.0, 2.0).forward(torch.tensor([3.0])).item()
    1.0
    """

    mean: Tensor | float | None = field(default=None, repr=False)
    scale: Tensor | float | None = field(default=None, repr=False)

    def learnt(self, x: Tensor, count: Tensor) -> Self:
        mean, covariance = _moments(x, count)
        scale = covariance.diagonal().sqrt()
        constant = torch.nonzero(scale <= 1e-12 * mean.abs())
        if len(constant):
            at = int(constant[0, 0])
            raise DataError(
                f"column {at} of the observations is constant ({float(mean[at]):g}): it has no scale. Leave "
                "it out."
            )
        return replace(self, mean=mean.reshape(x.shape[1:]), scale=scale.reshape(x.shape[1:]))

    def _known(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.scale is None:
            raise BadArgument(
                "this map has learnt no scale: use Standardise().learnt(x, count), or th.data.Transformed."
            )
        mean, scale = (torch.as_tensor(v, dtype=torch.float64) for v in (self.mean, self.scale))
        return sent(mean, device), sent(scale, device)

    def forward(self, x: Tensor) -> Tensor:
        mean, scale = self._known(x.device)
        return (x - mean) / scale

    def inverse(self, t: Tensor) -> Tensor:
        mean, scale = self._known(t.device)
        return mean + scale * t

    def log_determinant(self, t: Tensor) -> Tensor:
        return (
            -torch.log(self._known(t.device)[1]).expand(t.shape[1:]).sum().expand(len(t))
        )  # one scale may be that of every column

    def __str__(self) -> str:
        return "standardise"


@dataclass(frozen=True, eq=False)
class Whiten(Map):
    """t = L⁻¹ (x − m), L Lᵀ the covariance: uncorrelated columns of variance 1 in the data that it was learnt
    from.

    Parameters
    ----------
    mean, factor
        m (d,) and L (d, d), lower triangular; None: learnt

    Examples
    --------
    >>> Whiten(torch.zeros(2), 2 * torch.eye(2)).forward(torch.tensor([[2.0, 4.0]])).tolist()
    [[1.0, 2.0]]
    """

    mean: Tensor | None = field(default=None, repr=False)
    factor: Tensor | None = field(default=None, repr=False)

    def learnt(self, x: Tensor, count: Tensor) -> Self:
        if x.ndim != 2:
            raise BadArgument(
                f"whiten needs observations of several columns, (n, d); received the shape {tuple(x.shape)}."
            )
        mean, covariance = _moments(x, count)
        factor, info = torch.linalg.cholesky_ex(covariance)
        singular = int(info) or bool((factor.diagonal() <= 1e-7 * covariance.diagonal().sqrt()).any())
        if singular:
            raise DataError(
                "the columns of the observations are linearly dependent: they cannot be whitened. Leave one "
                "out."
            )
        return replace(self, mean=mean, factor=factor)

    def _known(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.mean is None or self.factor is None:
            raise BadArgument(
                "this map has learnt no covariance: use Whiten().learnt(x, count), or th.data.Transformed."
            )
        return sent(self.mean, device), sent(self.factor, device)

    def forward(self, x: Tensor) -> Tensor:
        mean, factor = self._known(x.device)
        out: Tensor = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False).T
        return out

    def inverse(self, t: Tensor) -> Tensor:
        mean, factor = self._known(t.device)
        return mean + t @ factor.T

    def log_determinant(self, t: Tensor) -> Tensor:
        return -torch.log(self._known(t.device)[1].diagonal()).sum().expand(len(t))

    def __str__(self) -> str:
        return "whiten"


NAMED: dict[str, type[Map]] = {"log": Log, "logit": Logit, "standardise": Standardise, "whiten": Whiten}


def named(maps: Sequence[str | Map]) -> tuple[Map, ...]:
    """Maps by name or as they are.

    Raises
    ------
    BadArgument

    Examples
    --------
    >>> [str(each) for each in named(["log", Standardise()])]
    ['log', 'standardise']
    """
    for each in maps:
        if not isinstance(each, Map) and each not in NAMED:
            raise BadArgument(
                f"{each!r} is not a map. Accepted: {', '.join(map(repr, NAMED))}, or a map such as "
                "th.data.maps.Log()."
            )
    return tuple(each if isinstance(each, Map) else NAMED[each]() for each in maps)


def forward(maps: Sequence[Map], x: Tensor) -> tuple[Tensor, Tensor]:
    """t = f_m(… f_1(x)) and log |det ∂t/∂x|, (n,)."""
    total = x.new_zeros(len(x))
    for each in maps:
        x = each.forward(x)
        total = total + each.log_determinant(x)
    return x, total


def inverse(maps: Sequence[Map], t: Tensor) -> tuple[Tensor, Tensor]:
    """x, and log |det ∂t/∂x| there, (n,)."""
    total = t.new_zeros(len(t))
    for each in reversed(maps):
        total = total + each.log_determinant(t)
        t = each.inverse(t)
    return t, total


# ---- columns -----------------------------------------------------------------------------------------------


def _chosen(x: Tensor, columns: tuple[int, ...] | None) -> Tensor:
    if columns is None:
        return x
    if x.ndim != 2 or not all(0 <= c < x.shape[1] for c in columns):
        raise BadArgument(
            f"columns={columns} of observations of the shape {tuple(x.shape)}. Accepted: 0 … d − 1 of (n, d)."
        )
    return x[:, list(columns)]


def _put(x: Tensor, columns: tuple[int, ...] | None, part: Tensor) -> Tensor:
    if columns is None:
        return part
    out = x.clone()
    out[:, list(columns)] = part
    return out


def _rowwise(slopes: Tensor) -> Tensor:
    return slopes if slopes.ndim == 1 else slopes.sum(-1)


def _refuse(x: Tensor, inside: Tensor, columns: tuple[int, ...] | None, why: str) -> None:
    if bool(inside.all()):
        return
    at = torch.nonzero(~inside)[0].tolist()
    column = at[1] if columns is None and len(at) > 1 else columns[at[1]] if columns is not None else None
    value = float(x[at[0]] if column is None else x[at[0], column])
    where = f"row {at[0]}" + ("" if column is None else f", column {column}")
    raise OutOfSupport(f"{where} is {value:g}, and {why} ({int((~inside).sum())} such values).")


def _moments(x: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d), weighted."""
    x = x.reshape(len(x), -1)
    mean = (count @ x) / count.sum()
    centred = x - mean
    return mean, (centred.T * count) @ centred / count.sum()


def _of(columns: tuple[int, ...] | None) -> str:
    return "" if columns is None else f"[{', '.join(map(str, columns))}]"
