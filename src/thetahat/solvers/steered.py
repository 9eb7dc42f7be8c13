"""Newton's method where the information costs many gradients: another steers, and the exact one certifies.

The model says what steers (`taylor(…, precision=torch.float32)`) and what is exact (float64). Where what steers is as
cheap as a gradient it is taken at every step; else it is kept for several, corrected by secant pairs. Once the
iterations have ended, the last decrement is measured in the exact information, and they go on from there if it is not
small enough.

Source: Nocedal and Wright (2006), Numerical Optimization, 2nd ed., algorithm 7.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..models.taylor import Taylor
from ..types import ObjectiveLike
from .newton import Newton, State, solve

IDLE = 5  # steps that gain nothing, after which the exact information is taken
NEAR = 0.1  # standard errors from the maximum, below which secant pairs correct what steers
PAIRS = 40  # secant pairs after which what steers is taken anew


@dataclass(frozen=True, kw_only=True)
class Steered(Newton):
    """Newton's settings, with another way to the information.

    Parameters
    ----------
    anew
        take what steers at every step
    """

    thin_above: int = 10**18
    keep_above: int = -1
    anew: bool = False

    def start(self, objective: ObjectiveLike) -> State:
        begin = objective.theta if self.begin is None else self.begin
        return replace(self._look(objective, begin, torch.float32), borrowed=True)

    def step(self, objective: ObjectiveLike, state: State) -> State:
        if self.anew and state.borrowed and state.decrement > NEAR and not _idle(state):
            return replace(self, keep_above=10**18)._steered(objective, state)
        if state.borrowed and _idle(state):  # what steers misleads: the exact one goes on
            state = replace(state, borrowed=False)
        precision = torch.float32 if state.borrowed else torch.float64
        return super().step(objective, replace(state, precision=precision))

    def _steered(self, objective: ObjectiveLike, state: State) -> State:
        return super().step(objective, state)

    def _accepted(self, objective: ObjectiveLike, state: State, d: Tensor, t: Taylor, ratio: float) -> State:
        new = super()._accepted(objective, state, d, t, ratio)
        return replace(new, borrowed=True) if state.precision == torch.float32 else new

    def _direction(self, state: State) -> tuple[Tensor, float]:
        """With secant pairs the step that they give, shortened to the trust region: a damped one would forget them."""
        if state.factor is None or not state.pairs:
            return super()._direction(state)
        d = solve(state, state.taylor.gradient)
        t = min(1.0, state.radius / max(float((d * state.scale).norm()), 1e-300))
        return t * d, (t - 0.5 * t * t) * float(state.taylor.gradient @ d)

    def refreshed(self, objective: ObjectiveLike, state: State) -> State:
        """While the iterations are under way the secant pairs are kept: what steers, taken anew, knows less than they do.
        Once they have ended, exactly."""
        if state.borrowed and state.decrement > self.tolerance:
            if len(state.pairs) < PAIRS:
                return state
            t = objective.taylor(state.theta, order=2, precision=torch.float32)
            fresh = replace(state, taylor=t, information=t.information, passes=state.passes + 1)
            return self._factored(objective, fresh)
        return super().refreshed(objective, replace(state, precision=torch.float64))

    def _factored(self, objective: ObjectiveLike, state: State) -> State:
        """Without the second look in float64, which is for sums in float32."""
        return replace(
            super()._factored(objective, replace(state, precision=torch.float64)), precision=state.precision
        )


def _idle(state: State) -> bool:
    """Whether the last steps gained nothing, though each promised something."""
    last = state.trace[-IDLE:]
    promised = all(0.5 * decrement**2 > 1e-6 for _, _, decrement in last)
    return len(last) == IDLE and promised and last[-1][1] - last[0][1] < 1e-9
