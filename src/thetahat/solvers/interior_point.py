"""The maximum of a regression whose parameters must stay in their ranges: max ℓ(θ) subject to Cθ ≥ d.

Where a link does not map every linear predictor into the range (identity for a Poisson mean, log for a
probability), the maximum is either inside, where it is Newton's, or on the edge, where Karush's, Kuhn's and
Tucker's conditions mark it:

    ∇ℓ(θ̂) + C_Wᵀ λ = 0,      λ > 0,      C_W θ̂ = d_W

W the constraints that hold it, λ their multipliers: what ℓ would gain, in nats, for each unit of η that a
constraint gave way.

1. Newton from inside. If it converges away from the edge, that is the maximum. 2. Else the barrier: Newton on
ℓ(θ) + μ Σ log(s/(s + c)), s = Cθ − d, for μ → 0, which comes to the edge along the middle of the domain.
   c is a typical slack: far inside, where s is large against it, the barrier is flat, and pushes no one to infinity.
3. The face: the constraints near by whose multipliers are positive by non-negative least squares are taken as
equalities, and Newton
   maximises ℓ along them. Constraints that it runs into are added, those whose multiplier turns negative are let go.

References
----------
Fiacco and McCormick (1968), Nonlinear Programming; Nocedal and Wright (2006), Numerical Optimization, 2nd
ed., ch. 12, 16 and 19; Luo, Zhang and Sun (2014) and Donoghoe and Marschner (2018), J. Stat. Softw. 86, on
log-binomial fits at the boundary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ..data.source import Source
from ..errors import BadArgument
from ..likelihood import Objective
from ..likelihood.restricted import Restricted
from ..models.domain import Domain, domain_of, interior, user_rows
from ..models.information import Factor, Information
from ..models.regression import Regression
from ..models.taylor import Taylor
from ..types import ModelLike, ObjectiveLike
from .certificate import Certificate
from .newton import Newton
from .newton import State as NewtonState

BARRIER = (1.0, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10)  # μ, in nats
BLOCKED = 8  # evaluations outside in one run of Newton, after which an edge is in the way
ADVICE = (
    "Report that the fit lies on the edge. fit.bootstrap() shows how the estimates vary; a link that maps "
    "every linear predictor into the "
    "range (log for a positive mean, logit for a probability) has no edge."
)
NEAR = 1e-8  # of the typical slack: a constraint that is met
HOLDS = 1e-7  # a multiplier's pull, in standard errors, below which its constraint does not hold the maximum


def applies(objective: ObjectiveLike) -> bool:
    """Whether some linear predictor of a regression may leave the range of its parameter."""
    return any(isinstance(t.model, Regression) and t.model.bounded for t in objective.terms)


@dataclass(frozen=True)
class State:
    """θ; Newton's last state, in the coordinates of the face; the constraints W that hold θ, and their
    multipliers.

    `scale` and `factor` are Newton's: the largest √J_jj seen, and the factor of J, both of the free
    directions.
    """

    theta: Tensor
    value: float
    domain: Domain | None
    stage: int = 0
    newton: NewtonState | None = None
    found: Certificate | None = None  # of Newton on the face
    held: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    multipliers: np.ndarray = field(default_factory=lambda: np.zeros(0))
    steps: int = 0
    passes: int = 0
    finished: bool = False
    trace: tuple[tuple[int, float, float], ...] = ()
    begun: Tensor | None = None  # (p,) √J_jj where the fit began
    central: Tensor | None = None  # where the barrier has come to, inside
    scale: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    factor: Factor | None = None


@dataclass(frozen=True, kw_only=True)
class InteriorPoint:
    """Settings.

    Parameters
    ----------
    tolerance
        λ at which Newton stops, in standard errors
    steps
        of one run of Newton, at most
    """

    tolerance: float = 1e-8
    steps: int = 200

    def start(self, objective: Objective) -> State:
        if len(objective.terms) != 1 or objective.terms[0].robust is not None or objective.kinked:
            raise BadArgument(
                "a link that does not map every linear predictor into the parameter's range bounds the "
                "coefficients, and such a fit has one "
                "term, no robust= and no prior with a kink. Choose a link that maps into the range, such as "
                "log or logit, or "
                "th.priors.Normal."
            )
        term = objective.terms[0]
        domain, theta = domain_of(term.model, term.source), objective.theta
        if domain is not None:
            theta = interior(domain, theta, term.source)
        value = float(objective.taylor(theta, order=1).value)
        return State(theta, value, domain, passes=1, trace=((0, value, math.inf),))

    def step(self, objective: Objective, state: State) -> State:
        if state.stage == 0:
            return self._unheld(objective, state)
        if state.stage > len(BARRIER) or state.domain is None:
            return replace(state, finished=True)
        inside = Inside(objective, state.domain, BARRIER[state.stage - 1])
        assert state.central is not None
        newton = self._newton(inside, state.central, tolerance=max(1e-3, self.tolerance))
        near = state.domain.closed & (
            state.domain.slack(newton.theta) <= math.sqrt(inside.mu) * state.domain.typical
        )
        moved = replace(state, theta=newton.theta, central=newton.theta, stage=state.stage + 1)
        return self._on_face(objective, self._counted(moved, newton), near)

    def done(self, objective: Objective, state: State) -> bool:
        return state.finished

    def certificate(self, objective: Objective, state: State) -> Certificate:
        if state.found is None or not (state.finished and state.found.ok):
            base = state.found or Certificate(status="not converged", size=objective.size)
            status = "not converged" if base.ok else base.status
            return replace(base, status=status, size=objective.size, steps=state.steps, passes=state.passes)
        found = replace(
            state.found,
            size=objective.size,
            steps=state.steps,
            passes=state.passes,
            concave=objective.concave,
        )
        if len(state.held) == 0:
            return replace(found, rank=objective.size)
        assert state.domain is not None
        detail = _told(state.domain, state.held, state.multipliers, objective.terms[0].source)
        return replace(
            found, status="boundary", rank=objective.size - len(state.held), detail=detail, advice=ADVICE
        )

    # ---- the three stages ----------------------------------------------------------------------------------

    def _unheld(self, objective: Objective, state: State) -> State:
        """Newton from inside; the end of it, unless an edge stopped it."""
        begun = objective.taylor(state.theta, order=2).information
        inside = Inside(objective, state.domain, 0.0)
        newton = self._newton(inside, state.theta)
        state = self._counted(replace(state, theta=newton.theta, stage=1), newton)
        state = replace(state, begun=None if begun is None else _root_diagonal(begun))
        found = Newton(tolerance=self.tolerance).certificate(objective, newton)
        roomy = state.domain is None or bool(
            (state.domain.slack(newton.theta) > 1e-3 * state.domain.typical).all()
        )
        if found.ok or (roomy and not inside.blocked):
            return self._finished(state, newton, found)
        return replace(state, central=self._restarted(objective, state))

    def _restarted(self, objective: Objective, state: State) -> Tensor:
        """The θ from which the barrier begins: where the fit began."""
        term = objective.terms[0]
        assert state.domain is not None
        return interior(state.domain, term.model.start(term.source), term.source)

    def _on_face(self, objective: Objective, state: State, near: np.ndarray) -> State:
        """Newton along the constraints that hold θ; where the conditions are met the fit has ended."""
        domain, theta = state.domain, state.theta
        assert domain is not None
        tried: set[tuple[int, ...]] = set()
        while True:
            held = _holding(objective, domain, theta, near)
            face = _Face.of(domain, theta, held)
            if not domain.contains(face.origin):
                near = near | (domain.closed & (domain.slack(face.origin) < 0))
                if set(np.flatnonzero(near)) == set(held):
                    return state
                face = _Face.of(domain, theta, np.flatnonzero(near))
                if not domain.contains(face.origin):
                    return state
            if tuple(face.held) in tried:  # the constraints come round: a smaller μ tells them apart
                return state
            tried.add(tuple(face.held))
            inside = Inside(objective, domain, 0.0)
            newton = self._newton(
                Restricted(cast(Any, inside), face.origin, face.basis),
                torch.zeros(face.basis.shape[1], dtype=torch.float64),
            )
            theta = face.origin + face.basis @ newton.theta
            state = self._counted(replace(state, theta=theta), newton)
            found = self._found(objective, newton)
            multipliers = _multipliers(objective, domain, theta, face.held)
            if found.ok and math.isfinite(newton.value) and bool((multipliers > 0).all()):
                return self._finished(
                    replace(state, held=face.held, multipliers=multipliers), newton, found, face
                )
            near = domain.closed & (domain.slack(theta) <= 1e3 * NEAR * domain.typical)

    # ---- parts ---------------------------------------------------------------------------------------------

    def _newton(self, objective: ObjectiveLike, begin: Tensor, tolerance: float | None = None) -> NewtonState:
        """Newton's last state: dense, in float64, on all rows."""
        if len(begin) == 0:
            t = objective.taylor(begin, order=2)
            empty = Information(torch.zeros(0, 0, dtype=torch.float64))
            return NewtonState(
                begin, Taylor(t.value, begin, empty), empty, None, begin, decrement=0.0, passes=1
            )
        solver = Newton(
            tolerance=self.tolerance if tolerance is None else tolerance,
            steps=self.steps,
            begin=begin,
            thin_above=10**18,
            keep_above=10**18,
            float32_above=10**18,
        )
        inside: Any = objective.whole if isinstance(objective, Restricted) else objective
        state = solver.start(objective)
        while math.isfinite(state.value) and not solver.done(objective, state) and not inside.blocked:
            state = solver.step(objective, state)
        return state

    def _found(self, objective: Objective, newton: NewtonState) -> Certificate:
        """Newton's certificate on the face; a corner leaves nothing free."""
        if len(newton.theta) == 0:
            return Certificate(status="certified maximum", nats=0.0, standard_errors=0.0)
        return Newton(tolerance=self.tolerance).certificate(objective, newton)

    def _counted(self, state: State, newton: NewtonState) -> State:
        steps, passes = state.steps + newton.step, state.passes + newton.passes
        return replace(
            state,
            steps=steps,
            passes=passes,
            value=newton.value,
            trace=(*state.trace, (steps, newton.value, newton.decrement)),
        )

    def _finished(
        self, state: State, newton: NewtonState, found: Certificate, face: _Face | None = None
    ) -> State:
        scale = newton.scale
        if state.begun is not None and face is not None and len(scale):
            scale = torch.maximum(scale, ((face.basis * state.begun[:, None]) ** 2).sum(0).sqrt())
        factor = (
            newton.factor if len(newton.theta) else Information(torch.eye(0, dtype=torch.float64)).factor()
        )
        return replace(state, newton=newton, found=found, scale=scale, factor=factor, finished=True)


class Inside:
    """ℓ(θ) + μ Σ log(s/(s + c)), s = Cθ − d, as an objective: −∞, at no cost, outside the domain."""

    rows = 0

    def __init__(self, objective: Objective, domain: Domain | None, mu: float):
        self.objective, self.domain, self.mu = objective, domain, mu
        self.theta = objective.theta  # where Newton begins
        self.refused = 0  # evaluations that were outside

    @property
    def size(self) -> int:
        return self.objective.size

    @property
    def blocked(self) -> bool:
        """Whether an edge is in the way, and not one step that was too long."""
        return self.mu == 0 and self.refused >= BLOCKED

    @property
    def model(self) -> ModelLike:
        return self.objective.model

    @property
    def concave(self) -> bool:
        return self.objective.concave

    def taylor(self, theta: Tensor, *, order: int = 2, precision: torch.dtype = torch.float64) -> Taylor:
        if self.domain is None:
            return self.objective.taylor(theta, order=order)
        slack = self.domain.slack(theta)
        if not self.domain.contains(theta) or (self.mu > 0 and not (slack > 0).all()):
            self.refused += 1
            return Taylor(torch.tensor(-math.inf, dtype=torch.float64), torch.zeros_like(theta))
        t = self.objective.taylor(theta, order=order)
        if self.mu == 0:
            return t
        far = slack + self.domain.typical
        slope = self.domain.C.T @ (self.mu * (1 / slack - 1 / far))
        J = None
        if t.information is not None:
            J = Information(
                t.information.dense() + torch.from_numpy(self.domain.gram(self.mu * (slack**-2 - far**-2)))
            )
        barrier = self.mu * float(np.log(slack / far).sum())
        return Taylor(t.value + barrier, t.gradient + torch.from_numpy(np.asarray(slope).reshape(-1)), J)


@dataclass(frozen=True)
class _Face:
    """{θ : C_W θ = d_W}: the point of it nearest to a θ, and a basis of its directions."""

    held: np.ndarray
    origin: Tensor
    basis: Tensor

    @classmethod
    def of(cls, domain: Domain, theta: Tensor, held: np.ndarray) -> _Face:
        p = len(theta)
        if len(held) == 0:
            return cls(held, theta.clone(), torch.eye(p, dtype=torch.float64))
        A = domain.rows_of(held)
        unit = np.maximum(
            np.abs(A).max(0), 1e-300
        )  # columns of one size: the rank is that of the geometry, not of units
        unit = np.where(np.abs(A).max(0) > 0, unit, 1.0)
        left, values, right = np.linalg.svd(A / unit)
        rank = int((values > 1e-10 * values[0]).sum())
        move = right[:rank].T @ ((left.T @ -domain.slack(theta)[held])[:rank] / values[:rank])
        return cls(
            held, theta + torch.from_numpy(move / unit), torch.from_numpy((right[rank:] / unit).T.copy())
        )


def _holding(objective: Objective, domain: Domain, theta: Tensor, near: np.ndarray) -> np.ndarray:
    """Of the constraints near by, those with positive multipliers: min ‖∇ℓ + Cᵀλ‖ over λ ≥ 0, in standard
    errors."""
    from scipy.optimize import nnls

    which = np.flatnonzero(near)
    if len(which) == 0:
        return which
    t = objective.taylor(theta, order=2)
    assert t.information is not None
    if not bool(torch.isfinite(t.gradient).all()):
        return which[:0]
    unit = _root_diagonal(t.information).numpy()
    rows = domain.rows_of(which) / unit
    size = np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    pull, _ = nnls((rows / size[:, None]).T, -t.gradient.numpy() / unit, maxiter=30 * len(which) + 1000)
    out: np.ndarray = which[pull > HOLDS]
    return out


def _multipliers(objective: Objective, domain: Domain, theta: Tensor, held: np.ndarray) -> np.ndarray:
    """λ of the constraints that hold θ: the least-squares solution of C_Wᵀ λ = −∇ℓ."""
    if len(held) == 0:
        return np.zeros(0)
    t = objective.taylor(theta, order=2)
    assert t.information is not None
    unit = _root_diagonal(t.information).numpy()
    out: np.ndarray = np.linalg.lstsq(
        (domain.rows_of(held) / unit).T, -t.gradient.numpy() / unit, rcond=None
    )[0]
    return out


def _told(domain: Domain, held: np.ndarray, multipliers: np.ndarray, source: Source) -> str:
    """What holds the maximum on the edge, in words."""
    rows = user_rows(source, domain.row[held])
    parts = [
        f"{domain.what[k]} at row {row} (multiplier {m:.4g})"
        for k, row, m in zip(held[:5], rows, multipliers, strict=False)
    ]
    more = f" and {len(held) - 5} more" if len(held) > 5 else ""
    return f"The maximum lies on the edge of the coefficients that give every row parameters in their ranges, held there by {', '.join(parts)}{more}."


def edge(objective: Objective) -> str:
    """What holds the objective's θ on the edge of its domain, in words; "" if nothing does."""
    if not applies(objective) or len(objective.terms) != 1:
        return ""
    term, theta = objective.terms[0], objective.theta
    domain = domain_of(term.model, term.source)
    if domain is None:
        return ""
    held = _holding(objective, domain, theta, domain.closed & (domain.slack(theta) <= NEAR * domain.typical))
    return _told(domain, held, _multipliers(objective, domain, theta, held), term.source) if len(held) else ""


def _root_diagonal(information: Information) -> Tensor:
    """√|J_jj|, 1 where it is 0."""
    found = information.diagonal().abs().sqrt()
    return torch.where(found > 0, found, torch.ones_like(found))
