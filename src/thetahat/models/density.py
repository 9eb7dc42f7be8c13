"""Density: a family fitted to vectors alone, each parameter one constant for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch, concatenate
from ..data.source import Source, Tensors, is_table
from ..errors import BadArgument, NotFinite, OutOfSupport, UnknownColumn
from ..families.base import Family, floating
from ..types import Data, Plain
from .base import Model, drawn, response
from .information import Information
from .taylor import Taylor, weighted

CELLS = 2**22  # curvatures held at once


class Density(Model):
    """p(y | θ) of a family without predictors; y may be a vector.

        log p(y | η) = log p(y | g_1⁻¹(η_1), …, g_k⁻¹(η_k))

    θ = (η_1, …, η_k), unconstrained; `natural` gives the family's own parameters.

    Parameters
    ----------
    family
        p(y | its k parameters)

    Examples
    --------
    >>> from thetahat.families import Normal
    >>> Density(Normal()).names
    ['mean', 'scale']
    """

    def __init__(self, family: Family):
        super().__init__()
        self.family, self.measure = family, family.measure
        self.theta = nn.Parameter(torch.zeros(len(family.parameters), dtype=torch.float64))

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in self.family.extras if name in batch}

    def log_prob(self, batch: Batch) -> Tensor:
        return self.family.log_prob_eta(
            self._observed(batch), *[eta.expand(len(batch)) for eta in self.theta], **self.extras(batch)
        )

    def parameters_at(self, batch: Batch) -> list[Tensor]:
        """The family's parameters on their own scales, each (n,)."""
        with torch.no_grad():
            return [v.expand(len(batch)) for v in self.natural(self.theta.detach())]

    def mean(self, batch: Batch) -> Tensor:
        """E[y], for each row the same."""
        return self.family.expectation(*self.parameters_at(batch), **self.extras(batch))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row."""
        return drawn(self.family, self.parameters_at(batch), generator, **self.extras(batch))

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """Σ w log p, its gradient and its information: sums of the family's scores and curvatures."""
        k = len(self.theta)
        value, gradient, A = (
            self.theta.new_zeros(()),
            torch.zeros_like(self.theta),
            self.theta.new_zeros(k, k),
        )
        step = max(256, CELLS // k**2)
        with torch.no_grad():
            for at in range(0, len(batch), step):
                rows = batch[at : at + step]
                log_p, score, curvature = self.family.derivatives(
                    self._observed(rows), list(self.theta), self.extras(rows), order
                )
                w = torch.ones(len(rows), dtype=torch.float64) if weight is None else weight[at : at + step]
                value += weighted(log_p.expand(len(rows)), w).sum()
                gradient += torch.stack([w @ s.expand(len(rows)) for s in score])
                for (a, b), c in curvature.items():
                    own = (
                        c if self.family.smooth else -score[a] * score[b]
                    )  # a kink's information: E[s sᵀ], as in Regression
                    A[a, b] -= w @ own.expand(len(rows))
        return Taylor(value, gradient, Information(A + A.triu(1).T) if order > 1 else None)

    def scores(self, batch: Batch) -> Tensor:
        """∂ log p_i / ∂θ, (n, k)."""
        _, score, _ = self.family.derivatives(
            self._observed(batch), list(self.theta.detach()), self.extras(batch), order=1
        )
        return torch.stack([s.expand(len(batch)) for s in score], -1)

    def start(self, source: Source) -> Tensor:
        """The family's own start, on its links."""
        y, weight, extras = self._whole(source)
        return self._eta(self.family.start(y, weight, **extras))

    def closed_form(self, source: Source) -> Tensor | None:
        """The maximum itself, where the family has a formula for it: not finite where there is none; None
        where there is no formula."""
        y, weight, extras = self._whole(source)
        values = self.family.maximum(y, weight, **extras)
        return None if values is None else self._eta(values)

    def _whole(self, source: Source) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        whole = concatenate(list(source.batches()))
        return self._observed(whole), whole.count.to(torch.float64), self.extras(whole)

    def _observed(self, batch: Batch) -> Tensor:
        return floating(response(batch, "y", self.family), self.theta)

    def _eta(self, values: Sequence[float]) -> Tensor:
        pairs = zip(self.family.parameters.values(), values, strict=True)
        return torch.stack([p.link(torch.tensor(v, dtype=torch.float64)) for p, v in pairs])

    def source(self, data: Data, weights: str | None = None) -> Tensors:
        """Rows of y as this model reads them (see `observed`)."""
        return observed(data, [self.family], weights)

    @property
    def names(self) -> list[str]:
        return list(self.family.parameters)

    @property
    def coefficient_names(self) -> list[str]:
        return self.names

    @property
    def slopes(self) -> list[bool]:
        """No coordinate is the coefficient of a column: a prior has to name what it is on."""
        return [False] * len(self.names)

    def natural(self, theta: Tensor) -> Tensor:
        """θ on the family's own scales, elementwise."""
        return torch.stack(self.family.natural(list(theta)))

    @property
    def elementwise(self) -> bool:
        return True

    @property
    def concave(self) -> bool:
        return self.family.concave


def density(family: Family, array: Data) -> tuple[Density, Tensors]:
    """The model and the source of a family fitted to vectors, (n, d).

    Raises
    ------
    BadArgument
        the vectors are not of the family's length
    NotFinite, OutOfSupport
        the first row that cannot be used

    Examples
    --------
    >>> from thetahat.families import Normal
    >>> model, source = density(Normal(), [0.0, 1.0])
    >>> source.size
    2
    """
    return Density(family), observed(array, [family])


def observed(data: Data, families: Sequence[Family], weights: str | None = None) -> Tensors:
    """The rows that families without predictors describe.

    Parameters
    ----------
    data
        an array of y, (n,) or (n, d); or a table (whatever `data.Frame` reads): the columns that are named
        like a family's extras (trials, event …) are those, `weights` the frequencies, and the others are y,
        the components of a vector in their order
    families
        one of which, at least, must describe each row

    Raises
    ------
    BadArgument
        y is a vector of another length, or there are columns too many
    NotFinite, OutOfSupport
        the first row that cannot be used

    Examples
    --------
    >>> from thetahat.families import Normal
    >>> observed({"y": [0.0, 1.0], "times": [3, 2]}, [Normal()], "times").whole.total
    5.0
    """
    arrays = (
        isinstance(data, Mapping)
        and "y" in data
        and all(np.ndim(v) >= (2 if k == "y" else 1) for k, v in data.items())
    )
    if arrays:
        tensors = {name: _numbers(values, families[0]) for name, values in data.items()}
    elif is_table(data):
        from ..data.frame import Frame  # brings pandas
        from ..data.table import numeric_tensors

        optional = {
            name for family in families for name in family.extras
        }  # what a row needs of them, its family says
        tensors = _stacked(numeric_tensors(Frame(data), optional=optional), families, weights)
    else:
        if weights is not None:
            raise BadArgument(
                f"weights={weights!r} names a column, and an array has none. Give a table, or a Batch with "
                "counts."
            )
        tensors = {"y": _numbers(data, families[0])}
    if weights is not None and weights not in tensors:
        raise UnknownColumn.named(weights, tensors, where="weights=")
    count = None if weights is None else tensors.pop(weights)
    _check(tensors, families)
    return Tensors(tensors, count=count)


def _numbers(values: Plain, family: Family) -> Tensor:
    array = np.asarray(values.detach() if isinstance(values, Tensor) else values)
    if array.dtype.kind not in "fiub":
        raise BadArgument(f"{family} describes numbers; received an array of type {array.dtype}.")
    return torch.tensor(array, dtype=torch.float64)


def _stacked(
    columns: dict[str, Tensor], families: Sequence[Family], weights: str | None
) -> dict[str, Tensor]:
    """The columns of a table, those that make up y as one tensor."""
    if weights is not None and weights not in columns:
        raise UnknownColumn.named(weights, columns, where="weights=")
    other = {name for family in families for name in family.extras} | {weights}
    mine = [name for name in columns if name not in other]
    length = families[0].length
    if len(mine) != (length or 1):
        wanted = "one column" if length is None else f"vectors of {length} components"
        raise BadArgument(
            f"{families[0]} describes {wanted}, and the data have {', '.join(mine) or 'none'}. Pass those "
            "columns alone."
        )
    y = columns[mine[0]] if length is None else torch.stack([columns[name] for name in mine], -1)
    return {"y": y} | {name: column for name, column in columns.items() if name not in mine}


def _check(tensors: dict[str, Tensor], families: Sequence[Family]) -> None:
    y = tensors["y"]
    finite = torch.isfinite(y.reshape(len(y), -1)).all(-1)
    if not bool(finite.all()):
        row = int(torch.nonzero(~finite)[0, 0])
        raise NotFinite(
            f"row {row} is {y[row].tolist()}. Every value must be finite ({int((~finite).sum())} rows are "
            "not)."
        )
    inside = torch.zeros(len(y), dtype=torch.bool)
    for family in families:
        lacking = family.lacking(tensors)
        if lacking is not None:
            raise UnknownColumn(f"{family} needs {lacking}. Columns: {', '.join(tensors)}.")
        extras = {name: tensors[name] for name in family.extras if name in tensors}
        for name, values in extras.items():
            bad = ~torch.isfinite(values) & family.needs(name, extras)
            if bool(bad.any()):
                row = int(torch.nonzero(bad)[0, 0])
                raise NotFinite(
                    f"{name} is {float(values[row])} in row {row}, and {family} needs it there "
                    f"({int(bad.sum())} such rows)."
                )
        possible = family.in_support(y, **extras)
        if possible.shape != inside.shape:
            raise BadArgument(
                f"the data have the shape {tuple(y.shape)}, and {family} describes one number a row. "
                f"Accepted: ({len(y)},); several columns are "
                f"described by th.families.MultivariateNormal({y.shape[-1]})."
            )
        inside = inside | possible
    if not bool(inside.all()):
        row = int(torch.nonzero(~inside)[0, 0])
        named = " or ".join(dict.fromkeys(map(str, families)))
        supports = " or ".join(dict.fromkeys(str(family.support) for family in families))
        raise OutOfSupport(
            f"row {row}: {y[row].tolist()}, to which {named} gives probability zero. Its support is "
            f"{supports}. "
            f"({int((~inside).sum())} such rows.)"
        )
