"""L-BFGS: gradients alone, for θ too large for a Hessian.

References
----------
Nocedal and Wright (2006), Numerical Optimization, 2nd ed., algorithm 7.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..models.taylor import Taylor
from ..protocols import is_concave
from ..types import ObjectiveLike
from .certificate import Certificate

FACTORED = 4000  # coordinates of θ whose information is summed and factored at the end
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class State:
    theta: Tensor
    taylor: Taylor
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()
    decrement: float = math.inf
    step: int = 0
    passes: int = 1
    stalled: int = 0
    trace: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class LBFGS:
    """Settings.

    Parameters
    ----------
    tolerance
        √(gᵀ H g) at which to stop, H the approximate inverse information: standard errors, as far as the
        pairs know
    memory
        secant pairs kept
    steps
        at most so many
    """

    tolerance: float = 1e-6
    memory: int = 30
    steps: int = 2000
    smooth: ClassVar[bool] = True  # goes by curvature alone

    def start(self, objective: ObjectiveLike) -> State:
        theta = objective.theta
        t = objective.taylor(theta, order=1)
        return State(theta, t, trace=((0, float(t.value), math.inf),))

    def step(self, objective: ObjectiveLike, state: State) -> State:
        g = state.taylor.gradient
        d = self._solve(state, g)
        slope = float(g @ d)
        if not (slope > 0 and math.isfinite(slope)):
            state, d = replace(state, pairs=()), g / max(float(g.norm()), 1e-300)
            slope = float(g @ d)
        t, passes = 1.0, state.passes
        noise = 16 * EPS * (abs(float(state.taylor.value)) + 1)
        for _ in range(40):
            new = objective.taylor(state.theta + t * d, order=1)
            passes += 1
            gain = float(new.value) - float(state.taylor.value)
            if math.isfinite(gain) and (
                gain >= 1e-4 * t * slope or (slope * t <= noise and abs(gain) <= noise)
            ):
                break
            t *= 0.5 if math.isfinite(gain) else 0.1
        else:
            return replace(state, stalled=99, step=state.step + 1, passes=passes)
        s, y = t * d, g - new.gradient
        pairs = state.pairs
        if float(s @ y) > 1e-12 * float(s.norm() * y.norm()):
            pairs = (*pairs, (s, y))[-self.memory :]
        after = replace(
            state, theta=state.theta + s, taylor=new, pairs=pairs, step=state.step + 1, passes=passes
        )
        decrement = (
            math.sqrt(max(float(new.gradient @ self._solve(after, new.gradient)), 0.0)) if pairs else math.inf
        )
        stalled = state.stalled + 1 if gain <= noise else 0
        trace = (*state.trace, (after.step, float(new.value), decrement))
        return replace(after, decrement=decrement, stalled=stalled, trace=trace)

    def done(self, objective: ObjectiveLike, state: State) -> bool:
        return state.decrement <= self.tolerance or state.stalled >= 10 or state.step >= self.steps

    def certificate(self, objective: ObjectiveLike, state: State) -> Certificate:
        known = {
            "size": objective.size,
            "steps": state.step,
            "passes": state.passes,
            "standard_errors": state.decrement,
            "nats": 0.5 * state.decrement**2,
        }
        if state.decrement > max(self.tolerance, 1e-3):
            detail = f"Stopped after {state.step} steps. Allow more (solver=th.LBFGS(steps={10 * self.steps})), or use th.Newton()."
            return Certificate(status="not converged", detail=detail, **known)
        if is_concave(objective):
            detail = "The decrement is that of the approximate information."
            return Certificate(status="certified maximum", concave=True, detail=detail, **known)
        factor = None
        if (
            objective.size <= FACTORED
        ):  # at the end the information itself is summed once: it tells a maximum from a saddle
            taylor = objective.taylor(state.theta, order=2)
            factor = None if taylor.information is None else taylor.information.factor()
            if factor is not None:
                decrement = math.sqrt(max(float(taylor.gradient @ factor.solve(taylor.gradient)), 0.0))
                known |= {"standard_errors": decrement, "nats": 0.5 * decrement**2, "rank": objective.size}
                if decrement <= max(self.tolerance, 1e-3):
                    return Certificate(status="certified maximum", **known)
                return Certificate(
                    status="not converged", detail=f"Stopped after {state.step} steps.", **known
                )
            detail = "The information is not positive definite there: a saddle, or a ridge."
        else:
            detail = (
                "The gradient vanishes; whether this is a maximum the information would tell, and that of "
                f"{objective.size:,} parameters is "
                "not summed. A prior (prior=th.priors.Normal(2.5), --prior normal:2.5), another family or fewer columns make it "
                "smaller or log-concave."
            )
        return Certificate(status="stationary point", detail=detail, **known)

    def _solve(self, state: State, g: Tensor) -> Tensor:
        q, alphas = g.clone(), []
        for s, y in reversed(state.pairs):
            a = (s @ q) / (s @ y)
            q = q - a * y
            alphas.append(a)
        if state.pairs:
            s, y = state.pairs[-1]
            q = q * ((s @ y) / (y @ y))
        else:
            q = q / max(float(g.norm()), 1e-300)
        for (s, y), a in zip(state.pairs, reversed(alphas), strict=True):
            q = q + s * (a - (y @ q) / (s @ y))
        return q
