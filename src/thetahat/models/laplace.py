"""Laplace's approximation of a likelihood whose random effects are integrated out, with its exact gradient.

    ℓ(β, φ) = f(û) − ½ log det H(û),      f(u) = Σ_i w_i log p(y_i | β, η_i + (ZΛu)_i) − ½ uᵀu,      û = argmax f

What a row's log p is, as a function of its η's and of β, `Rows` says: a family with linear predictors (η = Xβ), or a
likelihood of one's own (`latent`). The formulas of the gradient stand in `mixed`. Restricted (REML), the fixed effects β₁ of predictors that are not
constants are integrated out with u; ℓ is then a function of φ and of the constants alone, and as a function of β₁ the
likelihood's own part is put back, whose maximum is 0 at the joint mode β̃₁:

    F(β, φ) = ℓ_R(φ) + h(β₁) − h(β̃₁),      h(β₁) = max_u f

so that F has its maximum at (β̃₁, φ̂) and, in β₁, the curvature of their conditional distribution.

Source: Kristensen et al. (2016), TMB, eq. 3 to 9; Wood (2011), Fast stable restricted maximum likelihood, §3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..families.base import Derivatives
from .average import average_information
from .elimination import Array, Columns, Factored, NotPositiveDefinite, Scales
from .information import Information
from .normal_mixed import FLAT, INSIDE, LOG_2PI, differences, edge_curvature

if TYPE_CHECKING:
    from .mixed import Mixed
    from .random_effects import RandomEffects
    from .regression import Predictor

STEPS = 200  # of Newton's method for the modes
SMALL = 1e-9  # of gᵀd: the next step squares it
FAR = 100.0  # of the ratio of two scales, beyond which the effects of one say nothing of the other's u
NOTHING = 1e-20  # of gᵀd: û is exact to rounding


class Rows(Protocol):
    """log p of each row, given β and its η's: (n,) each, of which those in `free` hold random effects.

    `predictors` : of the columns that are fixed effects (none of a likelihood of one's own)
    """

    free: list[int]
    predictors: list[Predictor]

    def base(self, beta: Tensor) -> list[Tensor]:
        """The η's at random effects 0, each (n,)."""

    def log_prob(self, beta: Tensor, eta: list[Tensor], copies: int = 1) -> Tensor:
        """(n · copies,), with its graph: of so many copies of each row beside each other."""

    def derivatives(self, beta: Tensor, eta: list[Tensor], order: int) -> Derivatives:
        """In the η's."""

    def third(self, beta: Tensor, eta: list[Tensor], v: dict[tuple[int, int], Tensor]) -> list[Tensor]:
        """Σ_ab v_ab ∂³log p/∂η_a∂η_b∂η_c of each η_c, (n,)."""

    def pull(self, beta: Tensor, mode: Mode, w: Array | None, shift: Shift) -> Tensor:
        """∂ℓ/∂β, û moving with β."""

    def size(self, beta: Tensor, mode: Mode, w: Array | None) -> Tensor:
        """Of each β_j, a step that moves log p by about ½ nat."""


@dataclass(frozen=True)
class Shift:
    """How −½ log det H moves with the rows: change (n,) of each η_a moved by β, û moving too; variances v_ab of ZΛu and
    za = ZΛH⁻¹ΛᵀZᵀh, (n,) each; `outside`, the predictors whose effects are not integrated out."""

    change: dict[int, Array]
    variances: dict[tuple[int, int], Array]
    za: dict[int, Array]
    outside: set[int]


class FamilyRows:
    """A family whose parameters have linear predictors, η = Xβ + ZΛu."""

    def __init__(self, model: Mixed, batch: Batch):
        self.regression, self.family, self.batch = model.regression, model.family, batch
        self.extras = model.regression.extras(batch)
        self.predictors = model.regression.predictors
        self.free = [j for j, name in enumerate(self.family.parameters) if name not in model.fixed]

    def base(self, beta: Tensor) -> list[Tensor]:
        return [e.expand(len(self.batch)) for e in self.regression.eta(self.batch, beta)]

    def log_prob(self, beta: Tensor, eta: list[Tensor], copies: int = 1) -> Tensor:
        y, extras = self.batch["y"], self.extras
        if copies > 1:
            y = y.repeat_interleave(copies)
            extras = {name: e.repeat_interleave(copies) for name, e in extras.items()}
        return self.family.log_prob_eta(y, *eta, **extras)

    def derivatives(self, beta: Tensor, eta: list[Tensor], order: int) -> Derivatives:
        return self.family.derivatives(self.batch["y"], eta, self.extras, order)

    def third(self, beta: Tensor, eta: list[Tensor], v: dict[tuple[int, int], Tensor]) -> list[Tensor]:
        return self.family.third(self.batch["y"], eta, v, self.extras)

    def size(self, beta: Tensor, mode: Mode, w: Array | None) -> Tensor:
        return torch.ones_like(beta)

    def pull(self, beta: Tensor, mode: Mode, w: Array | None, shift: Shift) -> Tensor:
        out = torch.zeros_like(beta)
        for a, p in enumerate(self.predictors):
            total = mode.score[a] + (shift.change[a] if a in shift.outside else 0.0)
            p.pull(self.batch, torch.from_numpy(total), out)
        return out


@dataclass(frozen=True)
class Mode:
    """û, and what f looks like there."""

    u: tuple[
        Array | None, Array
    ]  # (q, L) or None, and the rest: random, then fixed where these are integrated
    value: float  # f(û)
    score: dict[int, Array]  # w ∂log p/∂η_a, (n,), of each estimated parameter
    weight: dict[tuple[int, int], Array]  # −w ∂²log p/∂η_a∂η_b
    factored: Factored
    eta: list[Tensor]  # of every parameter of the family


class Laplace:
    """Of one batch of rows, with their weights."""

    def __init__(
        self, model: RandomEffects, rows: Rows, columns: Columns, batch: Batch, weight: Tensor | None
    ):
        self.model, self.rows, self.columns, self.batch = model, rows, columns, batch
        self.w = None if weight is None else weight.numpy()
        self._weight = weight
        self.free = rows.free
        g = columns.grouped
        self.random_in = sorted({*(t.predictor for t in columns.random), *(g.predictors if g else ())})
        self.fixed_in = [a for a, _ in columns.fixed]
        own = [rows.predictors[a] for a in self.fixed_in]
        self.places = (
            torch.cat([torch.arange(p.start, p.start + p.size) for p in own])
            if own
            else torch.zeros(0).long()
        )
        self._warm: dict[bool, tuple[Array | None, Array]] = {}
        self._scaled: dict[bool, Array | None] = {}  # Λ's diagonal there, where it has no more
        self._near: dict[bool, Factored] = {}
        self._modes: dict[bool, tuple[Tensor, Mode]] = {}  # the last, and where
        self._last: tuple[Tensor, Tensor, Tensor] | None = None  # the last θ, ℓ and its gradient
        self._edges: dict[int, float] = {}  # curvatures in scales next to 0
        self._known: tuple[Tensor, Tensor] | None = None  # the last exact information, and where

    @cached_property
    def typical(self) -> Tensor:
        """The size of each φ that gives its term a moderate variance."""
        return self.model.moderate(self.columns)[1]

    # ---- the mode ------------------------------------------------------------------------------------------

    def mode(self, beta: Tensor, phi: Tensor, *, joint: bool) -> Mode:
        """û at (β, φ); joint: of the fixed effects too.

        Raises
        ------
        NotPositiveDefinite
            f has no maximum that Newton's method finds, or H is singular there
        """
        theta = torch.cat([beta, phi])
        before = self._modes.get(joint)
        if before is not None and torch.equal(before[0], theta):
            return before[1]
        now, u, base, scales = self._climbed(beta, phi, joint)
        now = now if now.weight else self.curved(base, now)
        factored = self._whole(now, scales, joint)
        self._near[joint] = factored if joint else factored.without_fixed()
        found = Mode(u, now.value, now.score, now.weight, factored, now.eta)
        self._modes[joint] = theta, found
        return found

    def _whole(self, now: Here, scales: Scales, joint: bool) -> Factored:
        """H with the fixed columns. Away from a maximum in β the fixed columns of several parameters may curve upward (a
        mean beside its scale), where u's block, which ℓ reads, does not: theirs then comes from the convex part of W."""
        cross = self.columns.cross(now.weight)
        try:
            return Factored(cross, scales, fixed=True)
        except NotPositiveDefinite:
            if joint:
                raise
            random = Factored(cross, scales, fixed=False)
            return Factored(self.columns.cross(_convex(now.weight)), scales, fixed=True).beside(random)

    def aside(self, beta: Tensor, phi: Tensor, joint: Mode) -> Mode:
        """û at (β, φ), beside the joint mode: without its own curvatures and factor, which a restricted likelihood does not
        read. It begins where the joint mode's tangent says, û + ∂û/∂β (β − β̃)."""
        factored, (u0, rest), m = joint.factored, joint.u, self.columns.penalised
        moved = np.concatenate([np.zeros(m), beta[self.places].numpy() - rest[m:]])
        g0, grest = factored.cross.times(None if u0 is None else np.zeros_like(u0), moved)
        c0, crest = factored.scales.back(g0, grest[:m], self.columns)
        random = factored.without_fixed()
        d0, drest = random.solve(None if c0 is None else c0[..., None], crest[:, None])
        if u0 is not None and d0 is not None:
            u0 = u0 - d0[..., 0]
        self._warm[False], self._scaled[False] = (u0, rest[:m] - drest[:, 0]), None
        self._near[False] = random
        now, u, *_ = self._climbed(beta, phi, False)
        return Mode(u, now.value, now.score, {}, joint.factored, now.eta)

    def _climbed(
        self, beta: Tensor, phi: Tensor, joint: bool
    ) -> tuple[Here, tuple[Array | None, Array], Tensor, Scales]:
        """f at its maximum, and where: u, β without the fixed effects, and Λ."""
        scales, _ = self.model.scales(phi)
        m, p = self.columns.penalised, len(self.places)
        base = beta.clone()
        fixed = beta[self.places].numpy().copy()
        base[self.places] = 0.0
        etas = self.rows.base(base)
        u0, rest = self._begin(joint, m, scales.vector(self.columns))
        rest = np.concatenate([rest[:m], rest[m:] if joint and len(rest) > m else fixed])
        near = self._near.get(joint)  # the factor of a mode near by, as long as it serves
        if near is not None and self.columns.grouped is None:  # cheap: with the new scales
            near = Factored(near.cross, scales, fixed=joint)
        now = self.at(base, etas, scales, u0, rest, 2 if near is None else 1)
        if not math.isfinite(now.value):
            u0, rest = None if u0 is None else np.zeros_like(u0), np.concatenate([np.zeros(m), fixed])
            now = self.at(base, etas, scales, u0, rest, 2 if near is None else 1)
        last = math.inf
        for _ in range(STEPS):
            g0, grest = self.gradient(now, scales, u0, rest, joint)
            if near is None and not now.weight:
                now = self.curved(base, now)
            factored, sound = (near, True) if near is not None else self.factor(now, scales, joint)
            d0, drest = factored.solve(None if g0 is None else g0[..., None], grest[:, None])
            d0, drest = None if d0 is None else d0[..., 0], drest[:, 0]
            gain = float(grest @ drest) + (0.0 if g0 is None or d0 is None else float((g0 * d0).sum()))
            if not math.isfinite(gain):  # θ is far out: a scale so small that scores overflow
                raise NotPositiveDefinite
            if gain < NOTHING and sound:
                break
            if near is not None and gain > 0.1 * last:
                near = None
                continue
            t, least = 1.0, now.value - 1e-10 * (1 + abs(now.value))
            if not joint:
                drest = np.concatenate([drest, np.zeros(p)])
            for _ in range(40):
                v0, vrest = None if u0 is None or d0 is None else u0 + t * d0, rest + t * drest
                new = self.at(base, etas, scales, v0, vrest, 2 if near is None else 1)
                wanted = max(least, now.value + (1e-4 * t * gain if gain > 1e-6 else -math.inf))
                if math.isfinite(new.value) and new.value >= wanted:
                    break
                t *= 0.5
            else:
                if near is None:
                    break
                near = None
                continue
            u0, rest, now = v0, vrest, new
            done = (
                gain < SMALL if near is None else gain * (gain / last if last < math.inf else 1.0) < NOTHING
            )
            if done and sound and t == 1.0:
                break
            last = gain
            near = near if t == 1.0 else None
        self._warm[joint] = (u0, rest)
        self._scaled[joint] = scales.vector(self.columns)
        if sound:
            self._near[joint] = factored
        return now, (u0, rest), base, scales

    def warm(self, u0: Array | None, rest: Array) -> None:
        """Begin the next mode there: u, then the fixed effects."""
        self._warm, self._scaled = {False: (u0, rest), True: (u0, rest)}, {}

    def _begin(self, joint: bool, m: int, scaled: Array | None) -> tuple[Array | None, Array]:
        """u of the last mode; where Λ is a diagonal, that u which gives the same effects b = Λu under its new scales."""
        found, before = self._warm.get(joint), self._scaled.get(joint)
        if found is not None:
            u0, rest = found
            if scaled is None or before is None:
                return found
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = before[:m] / scaled[:m]
            near = np.abs(ratio) < FAR  # of a scale that has become 0 all that is known is u
            return u0, np.concatenate([np.where(near, ratio, 1.0) * rest[:m], rest[m:]])
        g = self.columns.grouped
        return None if g is None else np.zeros((g.width, g.levels)), np.zeros(m)

    def at(
        self, beta: Tensor, etas: list[Tensor], scales: Scales, u0: Array | None, rest: Array, order: int
    ) -> Here:
        """f and the rows' derivatives at u (of order 1: no curvatures); rest holds the fixed effects too."""
        m = self.columns.penalised
        b0, brest = scales.times(u0, rest[:m], self.columns)
        moved = self.columns.times(b0, np.concatenate([brest, rest[m:]]))
        eta = list(etas)
        for a, part in moved.items():
            eta[self.free[a]] = eta[self.free[a]] + torch.from_numpy(np.asarray(part))
        value, score, curvature = self.rows.derivatives(beta, eta, order)
        n = len(self.batch)
        w = self.w
        logp = value.expand(n).numpy()
        s = {a: _rows(score[j], n, w) for a, j in enumerate(self.free)}
        total = float(logp.sum() if w is None else np.where(w == 0, 0.0, w * logp).sum())
        return self.penalised(Here(total, total, s, self._weights(curvature), eta), u0, rest)

    def _weights(self, curvature: dict[tuple[int, int], Tensor]) -> dict[tuple[int, int], Array]:
        """−w ∂²log p/∂η_a∂η_b, (n,), of the parameters that are estimated."""
        back = {j: a for a, j in enumerate(self.free)}
        return {
            (back[a], back[b]): -_rows(part, len(self.batch), self.w)
            for (a, b), part in curvature.items()
            if a in back and b in back
        }

    def curved(self, beta: Tensor, now: Here) -> Here:
        """The same with the rows' curvatures, at the η's that are known."""
        return replace(now, weight=self._weights(self.rows.derivatives(beta, now.eta, 2)[2]))

    def penalised(self, now: Here, u0: Array | None, rest: Array) -> Here:
        """With the value of the same rows under another u: Σ log p − ½ |u|²."""
        m = self.columns.penalised
        penalty = float(rest[:m] @ rest[:m]) + (0.0 if u0 is None else float((u0**2).sum()))
        return replace(now, value=now.total - 0.5 * penalty)

    def gradient(
        self, now: Here, scales: Scales, u0: Array | None, rest: Array, joint: bool
    ) -> tuple[Array | None, Array]:
        m = self.columns.penalised
        z0, zrest = self.columns.transposed(now.score)
        c0, crest = scales.back(z0, zrest[:m], self.columns)
        first = None if c0 is None or u0 is None else c0 - u0
        return first, np.concatenate([crest - rest[:m], zrest[m:]]) if joint else crest - rest[:m]

    def factor(self, now: Here, scales: Scales, joint: bool) -> tuple[Factored, bool]:
        """H for a step, and whether it is f's own: where that is not positive definite, without the parts of W that
        curve upward."""
        try:
            return Factored(self.columns.cross(now.weight), scales, fixed=joint), True
        except NotPositiveDefinite:
            return Factored(self.columns.cross(_convex(now.weight)), scales, fixed=joint), False

    # ---- ℓ and its gradient --------------------------------------------------------------------------------

    def expanded(self, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """ℓ (of REML: F) and its gradient in (β, φ)."""
        theta = torch.cat([beta, phi])
        if self._last is not None and torch.equal(self._last[0], theta):
            return self._last[1], self._last[2]
        found = self._found(beta, phi)
        self._last = (theta, *found)
        return found

    def _found(self, beta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                if not self.model.reml:
                    return self._expanded(beta, phi, self.mode(beta, phi, joint=False), None)
                joint = self.mode(beta, phi, joint=True)
                return self._expanded(beta, phi, self.aside(beta, phi, joint), joint)
        except NotPositiveDefinite:
            nothing = torch.full((len(beta) + len(phi),), torch.nan, dtype=torch.float64)
            return torch.tensor(-math.inf, dtype=torch.float64), nothing

    def _expanded(self, beta: Tensor, phi: Tensor, mode: Mode, joint: Mode | None) -> tuple[Tensor, Tensor]:
        where = mode if joint is None else joint
        factored = where.factored.without_fixed() if joint is None else where.factored
        random, fixed = factored.log_determinant
        value = mode.value - 0.5 * random
        if joint is not None:
            value += 0.5 * len(self.places) * LOG_2PI - 0.5 * fixed
        shift, moved = self._determinant(beta, where, factored, phi)
        of_beta = self.rows.pull(beta, mode, self.w, shift)
        of_phi = self._products(mode.score, mode.u, phi) + moved
        return torch.tensor(value, dtype=torch.float64), torch.cat([of_beta, of_phi])

    def _products(self, rows: dict[int, Array], u: tuple[Array | None, Array], phi: Tensor) -> Tensor:
        """∂/∂φ of Σ rows_a · (Z_a Λ u)."""
        z0, zrest = self.columns.transposed(rows)
        return self.model.pulled(phi, *_outer(self.columns, z0, zrest, *u))

    def _determinant(self, beta: Tensor, mode: Mode, factored: Factored, phi: Tensor) -> tuple[Shift, Tensor]:
        """Of −½ log det H: how it moves with the rows, û moving with them; and its derivative in φ."""
        m, scales, columns = self.columns.penalised, factored.scales, self.columns
        inside = self.random_in if factored.size == m else sorted({*self.random_in, *self.fixed_in})
        pairs = [(a, b) for i, a in enumerate(inside) for b in inside[i:]]
        variances = factored.row_variances(pairs)
        h = self._third(beta, mode.eta, variances)
        z0, zrest = columns.transposed(h)
        c0, crest = scales.back(z0, zrest[:m], columns)
        right = np.concatenate([crest, zrest[m:]])[: factored.size]
        a0, arest = factored.solve(None if c0 is None else c0[..., None], right[:, None])
        a0, arest = None if a0 is None else a0[..., 0], arest[:, 0]
        b0, brest = scales.times(a0, arest[:m], columns)
        za = columns.times(b0, np.concatenate([brest, arest[m:]]))
        out = {}
        for a in range(len(self.free)):
            change = h[a].copy()
            for b, part in za.items():
                w = mode.weight.get((min(a, b), max(a, b)))
                if w is not None:
                    change -= w * part
            out[a] = change
        u0, urest = mode.u
        moved = self._products({a: out[a] for a in self.random_in}, (u0, urest[:m]), phi)
        moved += self._products({a: mode.score[a] for a in self.random_in}, (a0, arest[:m]), phi)
        outside = set(range(len(self.free))) - (set() if factored.size == m else set(self.fixed_in))
        return Shift(out, variances, za, outside), moved - self.model.pulled(phi, *factored.slopes())

    def _third(self, beta: Tensor, eta: list[Tensor], v: dict[tuple[int, int], Array]) -> dict[int, Array]:
        """½ w Σ_ab v_ab ∂³log p/∂η_a∂η_b∂η_c of each parameter c, (n,)."""
        known = {(self.free[a], self.free[b]): torch.from_numpy(part) for (a, b), part in v.items()}
        found = self.rows.third(beta, eta, known)
        return {c: 0.5 * _rows(found[j], len(self.batch), self.w) for c, j in enumerate(self.free)}

    # ---- the information -----------------------------------------------------------------------------------

    def information(self, beta: Tensor, phi: Tensor, steers: bool) -> Tensor:
        """−∂²ℓ/∂(β, φ)², by differences of the gradient; steers: in the fixed effects by the normal equations."""
        if not self.rows.predictors:
            return self._by_differences(beta, phi)
        p, theta = len(beta), torch.cat([beta, phi])
        if not steers and self._known is not None and torch.equal(self._known[0], theta):
            return self._known[1].clone()
        try:
            mode = self.mode(beta, phi, joint=steers and self.model.reml)
        except NotPositiveDefinite:
            return torch.full((len(theta), len(theta)), torch.nan, dtype=torch.float64)
        J = torch.zeros(len(theta), len(theta), dtype=torch.float64)
        own = torch.from_numpy(mode.factored.fixed_information)
        J[self.places[:, None], self.places] = own
        typical = self.typical
        at_scales = self.model.scale_places()
        near = [i for i in at_scales if not float(phi[i].abs()) > INSIDE * float(typical[i])]
        averaged = steers and set(near) <= self.model.even_places()
        if averaged:  # of a variance near 0, where the average information vanishes, by its slope
            J = self._average(J, mode, phi, p)
            for i in near:
                J[p + i], J[:, p + i] = 0.0, 0.0
                J[p + i, p + i] = edge_curvature(
                    lambda t: self.expanded(t[:p], t[p:])[1], theta, p + i, float(typical[i]), self._edges
                )
            return J
        known = self.places.tolist() if steers or self.model.reml else []
        flat = [
            p + i for i in near if i in self.model.even_places() and abs(float(phi[i])) < FLAT * typical[i]
        ]
        for j in flat:  # nothing is moved by both it and another
            J[j, j] = edge_curvature(
                lambda t: self.expanded(t[:p], t[p:])[1], theta, j, float(typical[j - p]), {}
            )
        rows = [j for j in range(len(theta)) if j not in (*known, *flat)]
        size = torch.ones(len(theta), dtype=torch.float64)
        size[self.places] = own.diagonal().clamp(min=1e-12) ** -0.5
        size[p:] = torch.maximum(phi.abs(), typical)
        found = differences(lambda t: self.expanded(t[:p], t[p:])[1], theta, rows, size, True)
        for j, row in zip(rows, found, strict=True):
            J[j], J[:, j] = -row, -row
        at = torch.tensor(rows, dtype=torch.long)
        if len(rows):
            block = torch.stack([-row[at] for row in found])
            J[at[:, None], at] = (block + block.T) / 2
        self._known = (theta, J.clone()) if not steers else self._known
        return J

    def _by_differences(self, beta: Tensor, phi: Tensor) -> Tensor:
        """Of a likelihood of one's own: exact over one grouping factor (`quadrature`), else by central differences."""
        p, theta = len(beta), torch.cat([beta, phi])
        if self._known is not None and torch.equal(self._known[0], theta):
            return self._known[1].clone()
        try:
            mode = self.mode(beta, phi, joint=False)
        except NotPositiveDefinite:
            return torch.full((len(theta), len(theta)), torch.nan, dtype=torch.float64)
        exact = self.exact(beta, phi)
        if exact is not None:
            self._known = (theta, exact.clone())
            return exact
        typical = torch.maximum(phi.abs(), self.typical)
        size = torch.cat([self.rows.size(beta, mode, self.w), typical])
        found = torch.stack(
            differences(lambda t: self.expanded(t[:p], t[p:])[1], theta, list(range(len(theta))), size, True)
        )
        J = -(found + found.T) / 2
        self._known = (theta, J.clone())
        return J

    def exact(self, beta: Tensor, phi: Tensor) -> Tensor | None:
        """−∂²ℓ/∂(β, φ)² of a likelihood of one's own, where it is known without differences (`quadrature`); here it is not."""
        return None

    def _average(self, J: Tensor, mode: Mode, phi: Tensor, p: int) -> Tensor:
        """What steers: the average information in φ; of constants the rows' own curvatures."""
        own = mode.factored.without_fixed()
        slopes = self.model.pulled(phi, *own.slopes())
        e = self.columns.transposed({a: mode.score[a] for a in self.random_in})
        of_phi, fixed, _ = average_information(self.model, mode.factored, mode.u, e, phi, slopes)
        J[p:, p:] = of_phi
        J[p:, self.places], J[self.places, p:] = fixed, fixed.T
        return self._with_constants(J, mode, p)

    def _with_constants(self, J: Tensor, mode: Mode, p: int) -> Tensor:
        """The rows of constants: the curvatures of log p, or, where these are not those of a maximum, E[s sᵀ]."""
        constants = [(a, q) for a, q in enumerate(self.rows.predictors) if a not in self.fixed_in and q.size]
        if not constants:
            return J
        found = J.clone()
        for a, q in constants:
            for b, other in enumerate(self.rows.predictors):
                w = mode.weight.get((min(a, b), max(a, b)))
                if w is not None:
                    pulled = torch.zeros(p, dtype=torch.float64)
                    other.pull(self.batch, torch.from_numpy(w), pulled)
                    at = slice(other.start, other.start + other.size)
                    found[q.start, at] = found[at, q.start] = pulled[at]
        if Information(found).factor() is not None:
            return found
        for a, q in constants:
            for b, other in constants:
                J[q.start, other.start] = float((mode.score[a] * mode.score[b]).sum())
        return J

    # ---- what is asked of the random effects ---------------------------------------------------------------

    def modes(self, beta: Tensor, phi: Tensor) -> tuple[tuple[Array | None, Array], Factored, float]:
        """u at its mode, with b = Λu; the factor of H; and 1."""
        mode = self.mode(beta, phi, joint=False)
        return mode.u, mode.factored, 1.0


@dataclass(frozen=True)
class Here:
    """f at one u: Σ log p of the rows, and what its derivatives are there."""

    value: float
    total: float
    score: dict[int, Array]
    weight: dict[tuple[int, int], Array]
    eta: list[Tensor]


def _rows(values: Tensor, n: int, w: Array | None) -> Array:
    out = np.array(values.detach().expand(n).numpy())
    return out if w is None else np.where(w == 0, 0.0, w * out)


def _outer(
    columns: Columns, z0: Array | None, zrest: Array, u0: Array | None, urest: Array
) -> tuple[Array | None, list[Array]]:
    """Σ over levels of z uᵀ, of each term."""
    first = None if z0 is None or u0 is None else z0 @ u0.T
    rest = []
    for t, at in zip(columns.terms[: len(columns.random)], columns.starts, strict=False):
        own = slice(at, at + t.size)
        rest.append(zrest[own].reshape(t.levels, t.width).T @ urest[own].reshape(t.levels, t.width))
    return first, rest


def _convex(weight: dict[tuple[int, int], Array]) -> dict[tuple[int, int], Array]:
    """The part of the rows' curvatures that is positive semidefinite."""
    inside = sorted({a for a, _ in weight})
    if len(inside) == 1:
        (a,) = inside
        return {(a, a): np.maximum(weight[a, a], 0.0)}
    n = len(next(iter(weight.values())))
    W = np.zeros((n, len(inside), len(inside)))
    for (a, b), part in weight.items():
        i, j = inside.index(a), inside.index(b)
        W[:, i, j] = W[:, j, i] = part
    values, vectors = np.linalg.eigh(W)
    W = np.einsum("nij,nj,nkj->nik", vectors, np.maximum(values, 0.0), vectors)
    return {(a, b): W[:, inside.index(a), inside.index(b)] for a, b in weight}
