"""Regression: a family whose parameters each have a linear predictor.

    log p(y_i | θ) = log p(y_i | g_1⁻¹(η_i1), …, g_k⁻¹(η_ik)),      η_ij = offset_ij + x_ij·β_j + Σ_t value_t · table_jt[code_t]

Everything that Newton's method needs is a sum of products of the columns with the family's scores and
curvatures of each row:

    gradient_a = X_aᵀ s_a,      J_ab = −X_aᵀ diag(c_ab) X_b
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch, concatenate
from ..data.processes import world
from ..data.source import Source
from ..families.base import Family, Parameter
from ..kernels import compiled
from ..kernels.levels import Patterns
from ..protocols import Compiled, Partitioned, Sampled, is_streamed
from .base import Model, drawn, set_theta, unique
from .information import Information
from .sparse_rows import SparseRows
from .taylor import Taylor

if TYPE_CHECKING:
    from scipy import sparse

    from ..data.design import Design
    from ..data.table import Encoder

# a categorical term of at most so many levels is written out, a block of rows at a time; a wider one is added
# up by code
NARROW = 64
LARGE = 2**20  # numbers of E above which it is held sparse, beside other wide terms


@dataclass(frozen=True)
class Predictor:
    """Where a family parameter's coefficients are in θ, and how its rows are read."""

    parameter: str
    spec: Parameter
    design: Design
    slot: int
    start: int

    def __deepcopy__(self, memo: dict[int, object]) -> Predictor:
        return self  # it does not change

    @cached_property
    def size(self) -> int:
        return len(self.design.names)

    @cached_property
    def narrow(self) -> Tensor:
        """The coordinates in θ of the dense columns and the narrow categorical terms."""
        at = int(self.design.intercept) + self.design.columns
        index = list(range(self.start, self.start + at))
        for term in self.design.coded:
            if term.size <= NARROW:
                index += range(self.start + at, self.start + at + term.size)
            at += term.size
        return torch.tensor(index, dtype=torch.long)

    @cached_property
    def terms(self) -> list[tuple[int, int, int]]:
        """(j, where its table starts in θ, its levels) of each categorical term."""
        at = self.start + int(self.design.intercept) + self.design.columns
        out = []
        for j, term in enumerate(self.design.coded):
            out.append((j, at, term.size))
            at += term.size
        return out

    def eta(self, batch: Batch, theta: Tensor) -> Tensor:
        """η, (n,); (1,) if it is one number for all rows."""
        at = self.start + int(self.design.intercept)
        eta = theta[self.start : at]
        if self.design.columns:
            dense = batch[f"x{self.slot}"] @ theta[at : at + self.design.columns]
            eta = dense + eta if self.design.intercept else dense
        for j, first, levels in self.terms:
            table = torch.nn.functional.pad(theta[first : first + levels], (1, 0))
            part = table.index_select(0, batch[f"code{self.slot}.{j}"])
            value = batch.tensors.get(f"value{self.slot}.{j}")
            part = part if value is None else part * value
            eta = part + eta if len(eta) else part
        offset = batch.tensors.get(f"offset{self.slot}")
        if offset is not None:
            eta = eta + offset if len(eta) else offset
        return eta if len(eta) else theta.new_zeros(1)

    def pull(self, batch: Batch, score: Tensor, out: Tensor) -> None:
        """out[own coordinates] = Xᵀ score, score (n,)."""
        at = self.start
        if self.design.intercept:
            out[at] = score.sum()
            at += 1
        if self.design.columns:
            out[at : at + self.design.columns] = batch[f"x{self.slot}"].T @ score
        for j, first, levels in self.terms:
            value = batch.tensors.get(f"value{self.slot}.{j}")
            table = out.new_zeros(levels + 1)
            table.index_add_(0, batch[f"code{self.slot}.{j}"], score if value is None else score * value)
            out[first : first + levels] = table[1:]

    def compiled(self, batch: Batch, layout: _Layout) -> compiled.Columns:
        """The rows as the compiled sums read them: where they lie in memory."""
        held, position = batch.tensors, layout.position
        terms = [
            compiled.Term(
                held[f"code{self.slot}.{j}"],
                held.get(f"value{self.slot}.{j}"),
                levels,
                first,
                int(position[first]),
            )
            for j, first, levels in self.terms
            if levels
        ]
        return compiled.Columns(
            len(batch),
            held[f"x{self.slot}"] if self.design.columns else None,
            self.design.intercept,
            held.get(f"offset{self.slot}"),
            terms,
            self.start,
            int(position[self.start]) if self.size else 0,
        )

    def placed(self, batch: Batch, size: int) -> sparse.csr_matrix:
        """The rows of all columns, (n, p), sparse, each column in its place in θ, which has p = `size`
        coordinates."""
        from scipy import sparse  # takes long to load: only where it is needed

        n, at = len(batch), self.start
        parts = [sparse.csr_matrix((n, at))] if at else []
        if self.design.intercept:
            parts.append(sparse.csr_matrix(np.ones((n, 1))))
            at += 1
        if self.design.columns:
            parts.append(sparse.csr_matrix(batch[f"x{self.slot}"].numpy()))
            at += self.design.columns
        for j, _, levels in self.terms:
            code = batch[f"code{self.slot}.{j}"].numpy()
            hit = np.flatnonzero(code)
            value = batch.tensors.get(f"value{self.slot}.{j}")
            data = np.ones(len(hit)) if value is None else value.numpy()[hit]
            parts.append(sparse.csr_matrix((data, (hit, code[hit] - 1)), shape=(n, levels)))
            at += levels
        if at < size:
            parts.append(sparse.csr_matrix((n, size - at)))
        return sparse.hstack(parts).tocsr()

    def rows(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """The narrow columns written out, (m, n): a row a column."""
        n, m = len(batch), len(self.narrow)
        out = torch.empty(m + 1, n, dtype=dtype)  # one row more, where the reference levels are thrown
        at = int(self.design.intercept)
        if self.design.intercept:
            out[0] = 1.0
        if self.design.columns:
            out[at : at + self.design.columns] = batch[f"x{self.slot}"].T
            at += self.design.columns
        out[at:].zero_()
        for j, _, levels in self.terms:
            if levels > NARROW:
                continue
            code, value = batch[f"code{self.slot}.{j}"], batch.tensors.get(f"value{self.slot}.{j}")
            row = torch.where(code > 0, code + (at - 1), m)[None]
            if value is None:
                out.scatter_(0, row, 1.0)
            else:
                out.scatter_(0, row, value[None].to(dtype))
            at += levels
        return out[:m]


@dataclass(frozen=True)
class _Piece:
    """A group of coordinates of one parameter: narrow rows written out, or one wide categorical term."""

    j: int
    index: Tensor | None  # where in A; None: eliminated
    rows: Tensor | None = None
    codes: Tensor | None = None
    value: Tensor | None = None
    levels: int = 0


class Regression(Model):
    """A family with linear predictors.

    Parameters
    ----------
    family
        p(y | its parameters)
    encoder
        how columns become the tensors that are read
    slots
        family parameter → which design of the encoder it uses
    fixed
        family parameter → its value, for those that are not estimated
    density
        report every constant on its natural scale, the first parameter's too (a family fitted to y alone)
    """

    def __init__(
        self,
        family: Family,
        encoder: Encoder,
        slots: Mapping[str, int],
        fixed: Mapping[str, float] | None = None,
        *,
        density: bool = False,
    ):
        super().__init__()
        self.family, self.encoder, self.fixed, self.density = family, encoder, dict(fixed or {}), density
        self.slots = dict(slots)
        self.measure = family.measure
        self._lay_out()

    def _lay_out(self) -> None:
        """Give each estimated parameter its place in θ."""
        self.predictors: list[Predictor] = []
        start = 0
        for name, spec in self.family.parameters.items():
            if name not in self.fixed:
                slot = self.slots[name]
                predictor = Predictor(name, spec, self.encoder.designs[slot], slot, start)
                self.predictors.append(predictor)
                start += predictor.size
        self.coefficients = nn.Parameter(torch.zeros(start, dtype=torch.float64))
        self.layout = _layout(self.predictors, start)

    def holding(self, parameter: str, value: float) -> Regression:
        """The same regression with a constant parameter held at a value (its boundary): it leaves θ, and the
        others keep theirs."""
        gone = next(p for p in self.predictors if p.parameter == parameter)
        theta = self.coefficients.detach()
        out = Regression(
            self.family, self.encoder, self.slots, {**self.fixed, parameter: value}, density=self.density
        )
        set_theta(out, torch.cat([theta[: gone.start], theta[gone.start + gone.size :]]))
        return out

    @property
    def constant_predictors(self) -> list[Predictor]:
        """Of the parameters that are the same in every row."""
        return [p for p in self.predictors if p.design.constant]

    def freeing(self, parameter: str, eta: float) -> Regression:
        """The same regression with a parameter that was held estimated again, from that linear predictor on."""
        theta = self.coefficients.detach()
        fixed = {name: value for name, value in self.fixed.items() if name != parameter}
        out = Regression(self.family, self.encoder, self.slots, fixed, density=self.density)
        at = next(p.start for p in out.predictors if p.parameter == parameter)
        set_theta(out, torch.cat([theta[:at], theta.new_tensor([eta]), theta[at:]]))
        return out

    @property
    def bounded(self) -> bool:
        """Whether a linear predictor may leave the range of its parameter, so that the θ that are possible
        have an edge."""
        return any(p.spec.limits.finite for p in self.predictors)

    # ---- p -------------------------------------------------------------------------------------------------

    def eta(self, batch: Batch, theta: Tensor | None = None) -> list[Tensor]:
        """Every parameter's linear predictor, (n,) or (1,); fixed ones included."""
        theta = self.coefficients if theta is None else theta
        return [self._eta_of(name, batch, theta) for name in self.family.parameters]

    def _eta_of(self, parameter: str, batch: Batch, theta: Tensor) -> Tensor:
        if parameter in self.fixed:
            link = self.family.parameters[parameter].link
            return link(torch.tensor([self.fixed[parameter]], dtype=theta.dtype))
        return next(p for p in self.predictors if p.parameter == parameter).eta(batch, theta)

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in self.family.extras if name in batch}

    def log_prob(self, batch: Batch) -> Tensor:
        y = batch["y"]
        return self.family.log_prob_eta(
            y, *[e.expand(len(batch)) for e in self.eta(batch)], **self.extras(batch)
        )

    def parameters_at(self, batch: Batch) -> list[Tensor]:
        """The family's parameters on their own scales, each (n,)."""
        with torch.no_grad():  # detached besides: a view of a parameter says requires_grad even here
            return [
                t.expand(len(batch)) for t in self.family.natural(self.eta(batch, self.coefficients.detach()))
            ]

    def mean(self, batch: Batch) -> Tensor:
        """E[y | x], (n,)."""
        return self.family.expectation(*self.parameters_at(batch), **self.extras(batch))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row."""
        return drawn(self.family, self.parameters_at(batch), generator, **self.extras(batch))

    # ---- what makes the fit fast ---------------------------------------------------------------------------

    @property
    def block_rows(self) -> int | None:
        """Rows of which `taylor` takes the sums most readily at a time; None: as they come."""
        if not self._compiled:
            return None
        if self._fused is not None:
            return 2**40
        return 2**20 if self.layout.eliminated is not None else 2**16  # a block has sums a level of its own

    @property
    def _compiled(self) -> bool:
        few = all(p.design.columns <= compiled.MOST_COLUMNS for p in self.predictors)
        return few and compiled.available()

    @property
    def _fused(self) -> str | None:
        """The name of the family whose rows are compiled too, if it is this one."""
        name = self.family.compiled if isinstance(self.family, Compiled) else None
        plain = name is not None and len(self.predictors) == 1 and not self.fixed
        return name if plain else None

    def columns(self, batch: Batch) -> list[compiled.Columns] | None:
        """Each estimated predictor's columns as the compiled sums read them; None: torch sums these rows."""
        if not self._compiled:
            return None
        return [p.compiled(batch, self.layout) for p in self.predictors]

    def row_derivatives(
        self, batch: Batch, order: int = 2, columns: Sequence[compiled.Columns] | None = None
    ) -> tuple[Tensor, list[Tensor], dict[tuple[int, int], Tensor]]:
        """log p (n,), and its scores and curvatures in the η of each *estimated* parameter. columns: of the
        predictors, where they have been looked up."""
        theta = self.coefficients.detach()
        with torch.no_grad():
            if (
                columns is None or self.bounded
            ):  # at an edge η is rounded as the slack is that measures the way to it
                eta = self.eta(batch)
            else:
                own = {p.parameter: (p, c) for p, c in zip(self.predictors, columns, strict=True)}
                eta = [
                    own[name][1].eta(theta)
                    if name in own and not own[name][0].design.constant
                    else self._eta_of(name, batch, theta)
                    for name in self.family.parameters
                ]
            value, score, curvature = self.family.derivatives(batch["y"], eta, self.extras(batch), order)
        if order > 1 and not self.family.smooth:
            # a kink has no curvature; by the information identity E[s sᵀ] = −E[∂²log p], and the left side a
            # kink does have
            curvature = {(a, b): -score[a] * score[b] for a, b in curvature}
        if self.fixed:
            free = [j for j, name in enumerate(self.family.parameters) if name not in self.fixed]
            back = {j: i for i, j in enumerate(free)}
            score = [score[j] for j in free]
            curvature = {(back[a], back[b]): c for (a, b), c in curvature.items() if a in back and b in back}
        return value, score, curvature

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """Σ w log p, its gradient, and its information, over one batch.

        Parameters
        ----------
        precision
            of the information's sums where torch makes them; all others are always float64.
        """
        n, columns = len(batch), self.columns(batch)
        if columns is not None and self._fused is not None and not self.extras(batch):
            theta = self.coefficients.detach()
            return self._compiled_taylor(self._fused, batch, columns, weight, order, theta)
        value, score, curvature = self.row_derivatives(batch, order, columns)
        value = value.expand(n)
        gradient = torch.zeros(self.layout.size, dtype=torch.float64)
        for j, (predictor, s) in enumerate(zip(self.predictors, score, strict=True)):
            s = (s if weight is None else s * weight).expand(n)
            if columns is None:
                predictor.pull(batch, s, gradient)
            else:
                columns[j].pull(s, gradient)
        if weight is not None and self.bounded:
            value = torch.where(weight == 0, 0.0, value)  # a row that does not count may be impossible: 0 · ∞
        total = value.sum() if weight is None else torch.dot(value, weight)
        if order < 2:
            return Taylor(total, gradient)
        negative = {ab: -(c if weight is None else c * weight).expand(n) for ab, c in curvature.items()}
        return Taylor(total, gradient, self.assemble(batch, negative, precision, columns))

    def squares(self, batch: Batch, weight: Tensor | None, theta: Tensor, order: int) -> Taylor:
        """−½ Σ w (y − η)², η the first predictor, with its gradient and information: of a normal response of variance 1, without
        its constant. What belongs to other predictors is zero."""
        columns = self.columns(batch)
        if columns is not None:
            return self._compiled_taylor("squares", batch, columns, weight, order, theta)
        first, w = self.predictors[0], torch.ones(len(batch)).double() if weight is None else weight
        residual = batch["y"] - first.eta(batch, theta)
        gradient = torch.zeros(self.layout.size, dtype=torch.float64)
        first.pull(batch, w * residual, gradient)
        k, none = range(len(self.predictors)), torch.zeros_like(w)
        blocks = {(a, b): none if b else w for a in k for b in k if a <= b}
        J = self.assemble(batch, blocks) if order > 1 else None
        return Taylor(-0.5 * torch.dot(w, residual.square()), gradient, J)

    def _compiled_taylor(
        self,
        family: str,
        batch: Batch,
        columns: Sequence[compiled.Columns],
        weight: Tensor | None,
        order: int,
        theta: Tensor,
    ) -> Taylor:
        """`taylor` in one compiled pass over the rows."""
        sums = self._sums(batch, columns) if order > 1 else None
        value, gradient = compiled.fused(columns[0], family, batch["y"], weight, theta, sums)
        J = None if sums is None else self._information(sums)
        return Taylor(torch.tensor(value, dtype=torch.float64), gradient, J)

    def _sums(self, batch: Batch, columns: Sequence[compiled.Columns]) -> compiled.Sums:
        layout, pattern = self.layout, None
        gone, dense = layout.eliminated, layout.narrow if world() == 1 else None
        if dense is not None:
            codes = [batch.tensors[f"code{p.slot}.{j}"] for p in self.predictors for j, _, n in p.terms if n]
            pattern = layout.patterns.of(codes, columns, layout.kept, dense)
        return compiled.Sums(layout.kept, 0 if gone is None else gone.stop - gone.start, pattern)

    def _information(self, sums: compiled.Sums) -> Information:
        pattern, E = sums.pattern, sums.E
        if pattern is None or sums.values is None:
            return Information(sums.A, E, sums.D, self.layout.eliminated)
        from scipy import sparse

        own = (sums.values.numpy(), pattern.indices, pattern.indptr)
        rows = sparse.csr_array(own, shape=(len(pattern.indptr) - 1, sums.kept))
        return Information(sums.A, SparseRows(rows), sums.D, self.layout.eliminated)

    def outer(self, batch: Batch, weight: Tensor | None = None) -> Information:
        """Σ w s sᵀ of the rows' scores: the meat of the sandwich, by the same sums as the information."""
        _, score, _ = self.row_derivatives(batch, order=1)
        n = len(batch)
        score = [s.expand(n) for s in score]
        k = range(len(score))
        return self.assemble(
            batch,
            {
                (a, b): score[a] * score[b] * (1.0 if weight is None else weight)
                for a in k
                for b in k
                if a <= b
            },
        )

    def scores(self, batch: Batch) -> Tensor:
        """∂ log p_i / ∂θ, (n, p)."""
        return self.gradient_rows(batch, self.row_derivatives(batch, order=1)[1])

    def gradient_rows(self, batch: Batch, slopes: Sequence[Tensor]) -> Tensor:
        """∂f_i/∂θ = Σ_j x_ij ∂f_i/∂η_ij, (n, p), of a function of each row's η; `slopes` are ∂f_i/∂η_ij, one
        (n,) each estimated parameter."""
        n = len(batch)
        out = torch.zeros(n, self.layout.size, dtype=torch.float64)
        for p, s in zip(self.predictors, slopes, strict=True):
            s = s.expand(n)
            out[:, p.narrow] = (p.rows(batch, torch.float64) * s).T
            for j, first, levels in p.terms:
                if levels > NARROW:
                    code, value = batch[f"code{p.slot}.{j}"], batch.tensors.get(f"value{p.slot}.{j}")
                    hit = code > 0
                    out[hit, first + code[hit] - 1] = (s if value is None else s * value)[hit]
        return out

    def assemble(
        self,
        batch: Batch,
        weight: Mapping[tuple[int, int], Tensor],
        precision: torch.dtype = torch.float64,
        columns: Sequence[compiled.Columns] | None = None,
    ) -> Information:
        """J with blocks X_aᵀ diag(w_ab) X_b, a ≤ b, over one batch. columns: of the predictors, where they have been
        looked up."""
        layout = self.layout
        columns = self.columns(batch) if columns is None else columns
        if columns is not None:
            sums = self._sums(batch, columns)
            for (a, b), w in weight.items():
                sums.add(columns[a], None if a == b else columns[b], w)
            return self._information(sums)
        A = torch.zeros(layout.kept, layout.kept, dtype=torch.float64)
        E = D = None
        if layout.eliminated is not None:
            levels = layout.eliminated.stop - layout.eliminated.start
            E, D = (
                torch.zeros(levels, layout.kept, dtype=torch.float64),
                torch.zeros(levels, dtype=torch.float64),
            )
        pieces = self._pieces(batch, precision)
        for i, left in enumerate(pieces):
            scaled: dict[int, Tensor] = {}
            for right in pieces[i:]:
                w = weight[left.j, right.j].to(precision)
                if left.index is None and right.index is None and D is not None:
                    D += _by_code(left, w if left.value is None else w * left.value**2)
                    continue
                if left.rows is not None and right.j not in scaled:
                    scaled[right.j] = left.rows * w
                block = _cross(left, right, w, scaled.get(right.j)).to(torch.float64)
                if left.index is None and E is not None:
                    E[:, right.index] += block
                elif right.index is None and E is not None:
                    E[:, left.index] += block.T
                elif left.index is not None and right.index is not None:
                    A[left.index[:, None], right.index] += block
                    if left is not right:
                        A[right.index[:, None], left.index] += block.T
        return Information(A, E, D, layout.eliminated)

    def _pieces(self, batch: Batch, precision: torch.dtype) -> list[_Piece]:
        made: dict[int, Tensor] = {}
        out = []
        for j, p in enumerate(self.predictors):
            if len(p.narrow):
                if p.slot not in made:
                    made[p.slot] = p.rows(batch, precision)
                out.append(_Piece(j, self.layout.position[p.narrow], rows=made[p.slot]))
            for t, first, levels in p.terms:
                if levels <= NARROW:
                    continue
                gone = self.layout.eliminated is not None and first == self.layout.eliminated.start
                value = batch.tensors.get(f"value{p.slot}.{t}")
                out.append(
                    _Piece(
                        j,
                        None if gone else self.layout.position[first : first + levels],
                        codes=batch[f"code{p.slot}.{t}"],
                        value=None if value is None else value.to(precision),
                        levels=levels,
                    )
                )
        return out

    # ---- what makes it explained ---------------------------------------------------------------------------

    @cached_property
    def names(self) -> list[str]:
        """One name a coefficient, no two alike. The first parameter's stand alone; a constant has its
        parameter's name.

        A coefficient of the first parameter that would have another's name is written with its parameter, as
        those of the others are: of y ~ scale, "mean: scale" is the column's and "scale" the family's.
        """
        labels = [self.label(p.parameter) for p in self.predictors]
        parts = [
            [label]
            if self._is_natural(j)
            else p.design.names
            if self._alone(j)
            else [f"{label}: {n}" for n in p.design.names]
            for j, (label, p) in enumerate(zip(labels, self.predictors, strict=True))
        ]
        if self.predictors and self._alone(0):
            others = {name for part in parts[1:] for name in part}
            parts[0] = [f"{labels[0]}: {name}" if name in others else name for name in parts[0]]
        return unique(name for part in parts for name in part)

    def _alone(self, j: int) -> bool:
        """Whether the coefficients of predictor j are called by their columns alone."""
        return j == 0 and not self.predictors[0].spec.own_predictors and not self._is_natural(0)

    @property
    def coefficient_names(self) -> list[str]:
        """One name a coordinate of θ, as priors and tests name it: those of `names`."""
        return self.names

    @property
    def slopes(self) -> list[bool]:
        """Which coordinates of θ are coefficients of a column, rather than an intercept or a constant."""
        return [not (p.design.intercept and i == 0) for p in self.predictors for i in range(p.size)]

    def label(self, parameter: str) -> str:
        """A parameter as it is shown: a category's logit has the name of its level."""
        levels = self.encoder.response.levels
        if parameter.startswith("logit_") and levels is not None:
            return str(levels[int(parameter.removeprefix("logit_"))])
        return parameter

    @property
    def constants(self) -> list[bool]:
        """Which coordinates of θ are constants, reported on their own scale rather than their link's."""
        return [self._is_natural(j) for j, p in enumerate(self.predictors) for _ in range(p.size)]

    def _is_natural(self, j: int) -> bool:
        """Whether predictor j is a constant that is reported on its own scale rather than its link's."""
        p = self.predictors[j]
        return p.design.constant and not p.spec.own_predictors and (self.density or j > 0)

    def natural(self, theta: Tensor) -> Tensor:
        """θ with the constants on their own scales, elementwise."""
        out = theta.clone()
        for j, p in enumerate(self.predictors):
            if self._is_natural(j):
                out[p.start] = p.spec.link.inverse(theta[p.start])
        return out

    @property
    def elementwise(self) -> bool:
        return True

    @property
    def concave(self) -> bool:
        return self.family.concave_with(self.fixed)

    def begin(self, source: Source) -> tuple[float, ...]:
        """Constant parameters of the family, on their own scales, from which a fit may begin."""
        batch = _some_rows(source, names=["y", *self.family.extras])
        return self.family.start(batch["y"], _weight(batch), **self.extras(batch))

    def start(self, source: Source) -> Tensor:
        """θ at which every predictor is the family's constant start: intercepts set, slopes zero, offsets
        allowed for; in the domain."""
        slot = f"offset{self.predictors[0].slot}" if self.predictors else "offset"
        batch = _some_rows(source, names=["y", *self.family.extras, slot])
        weight = _weight(batch)
        values = self.family.start(batch["y"], weight, **self.extras(batch))
        offset = batch.tensors.get(slot)
        shift = 0.0 if offset is None else float((offset * weight).sum() / weight.sum())
        theta = torch.zeros(self.layout.size, dtype=torch.float64)
        natural = dict(zip(self.family.parameters, values, strict=True))
        for j, p in enumerate(self.predictors):
            if p.design.intercept:
                eta = p.spec.link(torch.tensor(float(natural[p.parameter]), dtype=torch.float64))
                theta[p.start] = eta - (shift if j == 0 else 0.0)
        if not self.bounded:
            return theta
        from .domain import domain_of, interior  # brings scipy, which takes long to load

        domain = domain_of(self, source)
        return theta if domain is None else interior(domain, theta, source)


def _weight(batch: Batch) -> Tensor:
    weight = batch.count.to(torch.float64)
    return weight if bool((weight > 0).any()) else torch.ones_like(weight)


@dataclass(frozen=True)
class _Layout:
    """Which coordinates of θ stay in A, and which wide categorical term is eliminated."""

    size: int
    kept: int
    position: Tensor  # coordinate of θ → coordinate of A, −1 if eliminated
    eliminated: slice | None
    narrow: Tensor | None = None  # where E is large, and sparse: the coordinates of A that belong to no term
    patterns: Patterns = field(default_factory=Patterns, compare=False)

    def __deepcopy__(self, memo: dict[int, object]) -> _Layout:
        return self  # it does not change


def _layout(predictors: Sequence[Predictor], size: int) -> _Layout:
    wide = [(levels, first) for p in predictors for _, first, levels in p.terms if levels > NARROW]
    levels, first = max(wide, default=(0, 0))
    kept = torch.cat([torch.arange(first), torch.arange(first + levels, size)])
    position = torch.full((size,), -1, dtype=torch.long)
    position[kept] = torch.arange(len(kept))
    others = [(at, n) for p in predictors for _, at, n in p.terms if at != first]
    narrow = None
    if any(n > NARROW for _, n in others) and levels * len(kept) > LARGE:
        alone = torch.ones(len(kept), dtype=torch.bool)
        for at, n in others:
            alone[position[at : at + n]] = False
        narrow = alone.nonzero()[:, 0]
    return _Layout(size, len(kept), position, slice(first, first + levels) if levels else None, narrow)


def _cross(left: _Piece, right: _Piece, w: Tensor, scaled: Tensor | None) -> Tensor:
    """X_leftᵀ diag(w) X_right, (left, right)."""
    if left.rows is not None and right.rows is not None:
        assert scaled is not None
        return scaled @ right.rows.T
    if left.rows is not None:
        assert scaled is not None
        return _by_code(right, scaled if right.value is None else scaled * right.value)
    if right.rows is not None:
        wx = right.rows * w
        return _by_code(left, wx if left.value is None else wx * left.value).T
    assert left.codes is not None
    assert right.codes is not None
    for value in (left.value, right.value):
        w = w if value is None else w * value
    pairs = w.new_zeros((left.levels + 1) * (right.levels + 1))
    pairs.index_add_(0, left.codes * (right.levels + 1) + right.codes, w)
    return pairs.view(left.levels + 1, right.levels + 1)[1:, 1:]


def _by_code(piece: _Piece, values: Tensor) -> Tensor:
    """Σ over the rows of each level, (…, levels), of values (…, n)."""
    assert piece.codes is not None
    out = values.new_zeros(*values.shape[:-1], piece.levels + 1)
    out.scatter_add_(-1, piece.codes.expand(values.shape), values)
    return out[..., 1:]


def _some_rows(source: Source, most: int = 20_000, names: Collection[str] | None = None) -> Batch:
    """Rows enough for a start: evenly spread over those of the first batches (all of them, if the data are in
    memory); names: of these tensors alone."""
    if isinstance(source, Partitioned):
        return source.sample
    if isinstance(source, Sampled) and source.sample is not None and len(source.sample) >= most:
        part: Batch = source.sample[:: max(1, len(source.sample) // most)]
        return part
    taken: list[Batch] = []
    rows = 0
    stop = most if is_streamed(source) or source.size is None else source.size
    for batch in source.batches():
        taken.append(batch)
        rows += len(batch)
        if rows >= stop:
            break
    stride = max(1, rows // most)
    return concatenate([(batch if names is None else batch.only(names))[::stride] for batch in taken])
