"""Averages of functions of the rows, with their gradients in θ: what predictions, comparisons and slopes are made of.

    a_c = Σ_{i in c} w_i f(η_i) / Σ_{i in c} w_i,      ∂a_c/∂θ = Σ_{i in c} w_i Σ_j ∂f/∂η_ij · ∂η_ij/∂θ / Σ_{i in c} w_i

c is a cell: a row of its own, a group of rows, or all of them. f may be of several versions of a row (x at two values; its
derivative), each encoded anew, so that x², interactions, smooth terms and offsets of x move with x.

References
----------
Bartus (2005), Estimation of marginal effects using margeff, Stata Journal 5; Arel-Bundock, Greifer and Heiss (2024), How to
interpret statistical models using marginaleffects for R and Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..data.table import aligned_rows
from ..errors import BadArgument
from ..families.base import Family
from ..families.ordinal import Ordinal
from ..inference.covariance import Covariance
from ..likelihood import Objective
from ..models.base import family_of
from ..models.regression import Regression
from ..protocols import Categories, encoder_of
from ..types import Data, Level, ModelLike
from .fitted_values import centre, eta_of, extras_of, free_of, gradient_rows, natural_at
from .known_groups import Known

CELLS = 2**23  # numbers of a block of gradients
LABEL = "\0row"  # the column of each row's label, which no user's column is called; shown as "row"
FEW = 16  # cells whose gradients are summed one cell at a time
BLOCK = 2**17  # rows of such a sum at once
MOST = 2**27  # of all gradients that are kept

Etas = list[list[Tensor]]  # of each version of a row, its linear predictors, (n,) each
RowFunction = Callable[[Etas, "Versions"], Tensor]


@dataclass(frozen=True)
class Setting:
    """A fit, seen from its rows.

    Parameters
    ----------
    objective
        whose model gives each row a distribution (of a mixed model, given its random effects)
    V
        the covariance
    places
        where the first of the model's coordinates lie among those of V
    size
        p, of V
    reader
        the model that was fitted, which reads new rows
    source
        the rows that were fitted
    data
        other rows that are asked about; None: those
    """

    objective: Objective
    V: Covariance
    places: Tensor
    size: int
    reader: ModelLike
    source: Source
    data: Data = None

    @property
    def model(self) -> ModelLike:
        return self.objective.model

    @property
    def family(self) -> Family:
        """Of the response.

        Raises
        ------
        BadArgument
            the model has none
        """
        family = family_of(self.model)
        if not isinstance(family, Family):
            raise BadArgument(
                f"a {type(self.reader).__name__} has a log_prob alone, and so no mean and no parameters of its rows. "
                "Return a distribution from the function, th.families.Normal().at(mean, scale); or take fit.delta for a "
                "function of the estimates."
            )
        return family

    def encoded(self, frame: pd.DataFrame) -> Batch:
        """Rows as the model reads them: complete ones, dates as days, which `evaluation.margin_rows` sees to."""
        encoder = encoder_of(self.reader)
        if encoder is None:
            names = [n for n in frame if n != LABEL and pd.api.types.is_numeric_dtype(frame[n].dtype)]
            return Batch({str(n): torch.from_numpy(np.array(frame[n])) for n in names})
        return aligned_rows(replace(encoder, dates={}), frame, family_of(self.reader))[0]

    def lifted(self, gradient: Tensor) -> Tensor:
        """(n, own coordinates) as (n, p)."""
        out = torch.zeros(len(gradient), self.size, dtype=torch.float64)
        out[:, self.places] = gradient[:, : len(self.places)].to(torch.float64)
        return out


@dataclass(frozen=True)
class Versions:
    """The versions of some rows.

    Parameters
    ----------
    batches
        one a version; the family's extras are those of the first where a function has one row alone
    weights
        of each version after the first in a derivative
    x
        the column that moves
    """

    batches: list[Batch]
    weights: tuple[Tensor, ...] = ()
    x: Tensor | None = None


# ---- what a row is asked -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantity:
    """A function of a row's linear predictors, of one category where there are several."""

    of: Callable[[Sequence[Tensor], dict[str, Tensor]], Tensor]
    group: Level = None


def quantities(setting: Setting, what: str, first: Batch) -> list[Quantity]:
    """What is meant by a word.

    Parameters
    ----------
    what
        "response" (E[y]; of a category the probability of each), "link" (η of the first parameter; of a category
        without an order each log-odds), "probabilities", or the name of a parameter. "mean" and "linear", the words of
        `Fit.predict`, are "response" and "link"
    first
        some rows

    Raises
    ------
    BadArgument
        what the family does not have
    """
    family, model = setting.family, setting.model
    names = list(family.parameters)
    labels = {_label(setting.reader, name): name for name in names}
    what = {"mean": "response" if "mean" not in names else what, "linear": "link"}.get(what, what)
    if what == "link":
        own = names if _has_log_odds(family) and len(eta_of(model, first)) == len(names) else names[:1]
        return [
            Quantity(_eta(j), _label(setting.reader, name) if len(own) > 1 else None)
            for j, name in enumerate(own)
        ]
    if what in names or what in labels:
        j = names.index(what if what in names else labels[what])
        if what != "mean" or not family.has("expectation"):
            return [Quantity(lambda eta, extras: natural_at(family, eta)[j])]
        what = "response"
    if what == "response" and family.has("expectation"):
        return [Quantity(lambda eta, extras: centre(family, natural_at(family, eta), **extras))]
    if what == "response" and not isinstance(family, Categories):
        raise BadArgument(
            f"{family} has no mean, which what='response' is. Accepted: what='link'"
            f"{''.join(f', {name!r}' for name in names)}."
            + " Ratios of hazards: comparisons(…, what='link', exponentiate=True)."
            * ("log_hazard" in names)
        )
    if what in ("response", "probabilities"):
        return _probabilities(setting, family, first)
    raise BadArgument(
        f"what={what!r} is not known. Accepted: 'response', 'link', 'probabilities', "
        f"{', '.join(map(repr, names))}."
    )


def _has_log_odds(family: Family) -> bool:
    return all(name.startswith("logit_") for name in family.parameters)


def _label(reader: ModelLike, name: str) -> str:
    levels = levels_of(reader)
    return str(levels[int(name.removeprefix("logit_"))]) if levels and name.startswith("logit_") else name


def levels_of(reader: ModelLike) -> tuple[Level, ...] | None:
    """Of a response that is a category."""
    encoder = encoder_of(reader)
    return None if encoder is None else encoder.response.levels


def _eta(j: int) -> Callable[[Sequence[Tensor], dict[str, Tensor]], Tensor]:
    return lambda eta, extras: eta[j]


def _probabilities(setting: Setting, family: Family, first: Batch) -> list[Quantity]:
    from .predict import _shares

    of = _shares(family)
    with torch.no_grad():
        size = of(*natural_at(family, eta_of(setting.model, first[:1]))).shape[-1]

    def one(j: int) -> Callable[[Sequence[Tensor], dict[str, Tensor]], Tensor]:
        if isinstance(family, Ordinal):  # one column, without the others
            return lambda eta, extras: family.log_prob(
                torch.full_like(eta[0], j), *natural_at(family, eta)
            ).exp()
        return lambda eta, extras: of(*natural_at(family, eta))[..., j]

    levels = levels_of(setting.reader) or tuple(range(size))
    return [Quantity(one(j), levels[j]) for j in range(size)]


# ---- the sums ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Averages:
    """Of each cell and function.

    Parameters
    ----------
    labels
        a row a cell
    value
        (cells, functions)
    gradient
        (cells, p) each function
    """

    labels: pd.DataFrame
    value: Tensor
    gradient: list[Tensor]


def averages(
    setting: Setting,
    parts: Iterator[tuple[pd.DataFrame, np.ndarray, np.ndarray]],
    versions: Callable[[pd.DataFrame], Versions],
    functions: Sequence[RowFunction],
    labels: Callable[[], pd.DataFrame],
) -> Averages:
    """The average of each function over each cell.

    Parameters
    ----------
    parts
        rows, their weights, and the number of each row's cell
    versions
        of some rows
    labels
        of the cells, once all rows have been read
    """
    k = len(functions)
    total = torch.zeros(0, dtype=torch.float64)
    value = torch.zeros(0, k, dtype=torch.float64)
    gradient = [torch.zeros(0, setting.size, dtype=torch.float64) for _ in functions]
    for frame, weight, cell in parts:
        cells = int(cell.max()) + 1 if len(cell) else 0
        if cells > len(total):
            more = cells - len(total)
            if cells * setting.size * k > MOST:
                raise BadArgument(
                    f"{cells:,} rows or groups of {setting.size:,} coefficients: their gradients do not fit. Average "
                    "(by=True, or by= a column), or take fit.predict(level=…), which keeps none."
                )
            total = torch.nn.functional.pad(total, (0, more))
            value = torch.nn.functional.pad(value, (0, 0, 0, more))
            gradient = [torch.nn.functional.pad(g, (0, 0, 0, more)) for g in gradient]
        few = cells <= FEW and isinstance(setting.model, (Regression, Known))
        width = max(setting.size, sum(q.numel() for q in setting.model.parameters()))
        step = BLOCK if few else max(256, CELLS // max(width, 1))
        for start in range(0, len(frame), step):
            rows = slice(start, start + step)
            w, c = torch.from_numpy(weight[rows]), torch.from_numpy(cell[rows])
            made = versions(frame.iloc[rows])
            total.index_add_(0, c, w)
            for j, (v, slopes) in enumerate(_rows(setting, made, functions)):
                value[:, j].index_add_(0, c, w * v)
                for batch, own in slopes:
                    if few:
                        gradient[j][:cells] += _pulled(setting, batch, own, w, c, cells)
                    else:
                        g = setting.lifted(gradient_rows(setting.model, batch, own).detach())
                        gradient[j].index_add_(0, c, w[:, None] * g)
    return Averages(labels(), value / total[:, None], [g / total[:, None] for g in gradient])


def _pulled(setting: Setting, batch: Batch, slopes: list[Tensor], w: Tensor, c: Tensor, cells: int) -> Tensor:
    """Σ_i w_i ∂f_i/∂θ of each cell, (cells, p), without a row's gradient written out: Xᵀ(w s), by the codes of
    categories."""
    model, parts = setting.model, []
    for cell in range(cells):
        own = w * (c == cell)
        if isinstance(model, Known):
            parts.append(model.pulled(batch, [own * s for s in free_of(model, slopes)]))
            continue
        out = torch.zeros(model.layout.size, dtype=torch.float64)
        for predictor, s in zip(model.predictors, free_of(model, slopes), strict=True):
            predictor.pull(batch, own * s, out)
        parts.append(out)
    return setting.lifted(torch.stack(parts))


def _rows(
    setting: Setting, made: Versions, functions: Sequence[RowFunction]
) -> Iterator[tuple[Tensor, list[tuple[Batch, list[Tensor]]]]]:
    """f, (n,), of each function, and ∂f/∂η of each version on which it depends."""
    model = setting.model
    leaves = [[e.detach().clone() for e in eta_of(model, batch)] for batch in made.batches]
    flat = [e for own in leaves for e in own]
    for function in functions:
        with torch.enable_grad():
            for e in flat:
                e.requires_grad_()
            value = function(leaves, made)
            if value.ndim > 1:
                raise BadArgument(
                    f"the mean of {model.family} is a vector, and an effect is on a number. Accepted: the name of a "
                    "parameter."
                )
            found = (
                torch.autograd.grad(value.sum(), flat, allow_unused=True)
                if value.requires_grad
                else [None] * len(flat)
            )
        each = iter(found)
        moved = []
        for batch, own in zip(made.batches, leaves, strict=True):
            slopes = [
                torch.zeros_like(e) if g is None else g.detach() for e, g in ((e, next(each)) for e in own)
            ]
            if any(bool((s != 0).any()) for s in slopes):
                moved.append((batch, slopes))
        yield value.detach().to(torch.float64), moved


def prediction(setting: Setting, quantity: Quantity, version: int = 0) -> RowFunction:
    """The quantity of one version of the rows."""

    def of(etas: Etas, made: Versions) -> Tensor:
        extras = extras_of(setting.model, made.batches[version])
        return quantity.of(etas[version], extras)

    return of


def derivative(setting: Setting, quantity: Quantity, scale: str) -> RowFunction:
    """∂f/∂x = Σ_j ∂f/∂η_j · ∂η_j/∂x, the second from the versions after the first; times x, over f, as an elasticity is."""

    def of(etas: Etas, made: Versions) -> Tensor:
        eta = etas[0]
        f = quantity.of(eta, extras_of(setting.model, made.batches[0]))
        parts = torch.autograd.grad(f.sum(), eta, create_graph=True, allow_unused=True)
        out = torch.zeros_like(f)
        for j, g in enumerate(parts):
            if g is not None:
                moved = torch.stack([w * e[j] for w, e in zip(made.weights, etas[1:], strict=True)]).sum(0)
                out = out + g * moved
        assert made.x is not None
        out = out * made.x if scale in ("eyex", "dyex") else out
        return out / f if scale in ("eyex", "eydx") else out

    return of


def weighted_sum(setting: Setting, quantity: Quantity, scale: str) -> RowFunction:
    """∂f/∂x by the points of a difference, of a column that enters f besides the linear predictors (trials)."""

    def of(etas: Etas, made: Versions) -> Tensor:
        values = [
            quantity.of(eta, extras_of(setting.model, batch))
            for eta, batch in zip(etas, made.batches, strict=True)
        ]
        out = torch.stack([w * v for w, v in zip(made.weights, values[1:], strict=True)]).sum(0)
        assert made.x is not None
        out = out * made.x if scale in ("eyex", "dyex") else out
        return out / values[0] if scale in ("eyex", "eydx") else out

    return of
