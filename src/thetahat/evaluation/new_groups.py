"""The log-likelihood of rows of groups that a mixed fit has not seen.

    log p(y | θ̂) = Σ_units log ∫ Π_i p(y_i | x_i β̂ + z_i b) N(b; 0, Σ̂) db

A unit is a set of rows that share groups: of one grouping factor, or of nested ones, a group of the widest of them. Units are
independent of each other and of the rows that were fitted, so that the value is that of the model itself, exact of a normal
response; its standard error, and that of a paired difference, are over units. The value of a unit is shared out evenly
among its rows.

A smooth term stands at its coefficients' modes, as it does in predictions. A model of smooth terms alone has one value a
row, log p(y_i | η̂_i).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..data.batch import Batch
from ..data.frame import Frame
from ..data.random_terms import Grouping
from ..data.source import Source, Tensors
from ..data.table import Table
from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import Model
from ..models.latent import CODE, LatentModel
from ..models.mixed import Mixed
from ..models.regression import Regression
from ..types import Data
from .known_groups import Known
from .modes import modes_of


class NewGroups(Model):
    """A mixed model at θ̂, of rows whose groups are their own.

    log_prob : each unit's log-likelihood, shared out among its rows
    """

    mixed: Mixed
    smooth: Known | None

    def __init__(self, mixed: Mixed, smooth: Known | None):
        super().__init__()
        object.__setattr__(self, "mixed", mixed)  # whose parameters are not this model's
        object.__setattr__(self, "smooth", smooth)
        self.family, self.encoder, self.fixed = mixed.family, mixed.encoder, mixed.fixed
        self.measure = mixed.regression.measure
        self.random = [r for r in mixed.random if not r.smooth]

    @property
    def kind(self) -> str:
        return self.mixed.kind

    def log_prob(self, batch: Batch) -> Tensor:
        batch = self._with_curves(batch)
        out = torch.zeros(len(batch), dtype=torch.float64)
        codes = {r.source: batch[f"group{r.source}"].numpy() for r in self.random}
        unit = batch.group.numpy()
        order = np.argsort(unit, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1):
            own = {s: np.unique(code[rows], return_inverse=True) for s, code in codes.items()}
            at = torch.from_numpy(rows)
            tensors = {name: t[at] for name, t in batch.tensors.items()}
            tensors |= {f"group{s}": torch.from_numpy(code) for s, (_, code) in own.items()}
            part = Batch(tensors, count=batch.count[at] if batch.counted else None)
            out[at] = self._alone({s: len(levels) for s, (levels, _) in own.items()}).log_prob(part)
        return out

    def _alone(self, sizes: dict[int, int]) -> Mixed:
        """The model of one unit, with so many groups of each factor."""
        groupings = tuple(
            Grouping(g.columns, (tuple(range(sizes.get(s, 1))),), np.arange(sizes.get(s, 1)))
            for s, g in enumerate(self.encoder.groupings)
        )
        base = self.mixed.regression
        encoder = replace(base.encoder, groupings=groupings)
        regression = Regression(base.family, encoder, base.slots, base.fixed)
        out = Mixed(regression, self.random, points=self.mixed.points)
        places = [at for r, at in zip(self.mixed.random, self.mixed.places, strict=True) if not r.smooth]
        with torch.no_grad():
            out.coefficients.copy_(self.mixed.coefficients)
            out.covariance.copy_(torch.cat([self.mixed.covariance[at] for at in places]))
        return out

    def _with_curves(self, batch: Batch) -> Batch:
        """The rows with their smooth terms' values as an offset."""
        if self.smooth is None:
            return batch
        own = self.smooth.eta(batch, self.smooth.all.detach())
        plain = self.mixed.regression.eta(batch, self.mixed.coefficients.detach())
        names, tensors = list(self.family.parameters), dict(batch.tensors)
        for r in self.mixed.random:
            if r.smooth:
                slot, j = self.mixed.regression.slots[r.parameter], names.index(r.parameter)
                before = batch.tensors.get(f"offset{slot}", 0.0)
                tensors[f"offset{slot}"] = before + (own[j] - plain[j]).expand(len(batch))
        return Batch(
            tensors,
            count=batch.count if batch.counted else None,
            group=batch.group if batch.grouped else None,
        )


class _Units(Table):
    """Rows with the unit of each."""

    def batches(self, model: object = None) -> Iterator[Batch]:
        for batch in super().batches(model):
            own = torch.from_numpy(units([batch[f"group{s}"] for s in range(len(self.encoder.groupings))]))
            yield Batch(batch.tensors, count=batch.count if batch.counted else None, group=own)


def units(codes: list[Tensor]) -> np.ndarray:
    """The connected parts of rows that share groups, (n,)."""
    n = len(codes[0])
    parts = [
        sparse.csr_matrix((np.ones(n), (np.arange(n), code.numpy())), shape=(n, int(code.max()) + 1))
        for code in codes
    ]
    shared = sparse.hstack(parts).tocsr()
    graph = sparse.bmat([[None, shared], [shared.T, None]])
    found: np.ndarray = connected_components(graph, directed=False)[1][:n]
    return found.astype(np.int64)


def scored(objective: Objective, data: Data) -> tuple[Model, Source]:
    """The model and the rows of which `score` is the log-likelihood of new data.

    Raises
    ------
    BadArgument
        a row is of a group that was fitted
    """
    mixed = objective.model
    if isinstance(mixed, LatentModel):
        return scored_latent(mixed, data)
    assert isinstance(mixed, Mixed)
    frame, encoder = Frame(data), mixed.encoder
    plain = replace(encoder, carried=())
    curves = None
    if any(r.smooth for r in mixed.random):
        curves = Known(mixed, modes_of(objective), "average")
        curves.measure = mixed.regression.measure
        if not encoder.groupings:
            return curves, Table(frame, plain, mixed.family)
        slots = [mixed.regression.slots[p.parameter] for p in mixed.regression.predictors]
        if len(set(slots)) < len(slots) and len({r.parameter for r in mixed.random if r.smooth}) > 1:
            raise BadArgument(
                "new rows of a model whose parameters share one formula of smooth terms and random effects are not scored. "
                "Give each parameter a formula of its own."
            )
    rows = plain.select(frame, mixed.family)
    known = rows.read(sorted({name for g in encoder.groupings for name in g.columns}))
    fresh = fresh_groups(encoder.groupings, known)
    source = _Units(rows, replace(plain, groupings=fresh), mixed.family, together=True)
    return NewGroups(mixed, curves), source


class NewLatent(Model):
    """A likelihood of one's own at θ̂, of rows whose groups are their own: each unit's, shared out among its rows."""

    model: LatentModel

    def __init__(self, model: LatentModel):
        super().__init__()
        object.__setattr__(self, "model", model)  # whose parameters are not this model's
        self.measure, self.target = model.measure, model.target

    @property
    def kind(self) -> str:
        return self.model.kind

    def log_prob(self, batch: Batch) -> Tensor:
        out = torch.zeros(len(batch), dtype=torch.float64)
        names = [CODE + g.label for g in self.model.groupings]
        for unit in torch.unique(batch.group):
            at = torch.nonzero(batch.group == unit).reshape(-1)
            tensors = {name: t[at] for name, t in batch.tensors.items()}
            sizes = []
            for name in names:
                levels, tensors[name] = torch.unique(tensors[name], return_inverse=True)
                sizes.append(len(levels))
            alone = self.model.regrouped(
                [_plain(g, n) for g, n in zip(self.model.groupings, sizes, strict=True)]
            )
            out[at] = alone.log_prob(Batch(tensors, count=batch.count[at] if batch.counted else None))
        return out


def _plain(g: Grouping, size: int) -> Grouping:
    """So many groups without names."""
    return Grouping(g.columns, (tuple(range(size)),), np.arange(size))


def scored_latent(model: LatentModel, data: Data) -> tuple[Model, Source]:
    """`scored` of a likelihood of one's own."""
    rows = Frame(data).read(sorted({name for g in model.groupings for name in g.columns}))
    fresh = model.regrouped(fresh_groups(model.groupings, rows))
    whole = fresh.source(data).whole
    found = units([whole[CODE + g.label] for g in fresh.groupings])
    batch = Batch(whole.tensors, group=torch.from_numpy(found))
    return NewLatent(model), Tensors(batch, target=model.target, block=2**62)


def fresh_groups(groupings: Sequence[Grouping], rows: pd.DataFrame) -> tuple[Grouping, ...]:
    """The groups of new rows, as the factors of a fit have them.

    Raises
    ------
    BadArgument
        a row is of a group that was fitted
    """
    fresh = []
    for g in groupings:
        code = g.codes(rows)
        seen = np.flatnonzero(code >= 0)
        if len(seen):
            raise BadArgument(
                f"row {rows.index[seen[0]]} is of the group {g.names[code[seen[0]]]!r} of {g.label}, which was fitted "
                f"({len(seen)} such rows): given the rows that were fitted, its new rows have another distribution than those "
                "of a group by itself. Score groups that were left out of the fit as a whole; fit.score() has those that "
                "were fitted, fit.predict(data, level=0.95, kind='prediction') says where new rows of them will lie."
            )
        levels, cells = [], np.zeros(len(rows), dtype=np.int64)
        for name in g.columns:
            code, own = _factorised(rows[name])
            levels.append(own)
            cells = cells * len(own) + code
        fresh.append(Grouping(g.columns, tuple(levels), np.unique(cells)))
    return tuple(fresh)


def _factorised(column: object) -> tuple[np.ndarray, tuple[object, ...]]:
    """The code of each row, and the levels in their order."""
    code, levels = pd.factorize(column, sort=True)  # type: ignore[call-overload]
    return code.astype(np.int64), tuple(v.item() if isinstance(v, np.generic) else v for v in levels)
