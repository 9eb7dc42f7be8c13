"""Newton's method where the information costs many gradients: it steers for several steps, corrected by secant pairs,
and is made exact once the iterations have ended.

The model says what steers (`taylor(…, precision=torch.float32)`) and what is exact (float64). Nothing is certified by
what steers: the last step's decrement is measured in the exact information.

Source: Nocedal and Wright (2006), Numerical Optimization, 2nd ed., algorithm 7.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..types import ObjectiveLike
from .newton import Newton, State


@dataclass(frozen=True, kw_only=True)
class Steered(Newton):
    """Newton's settings, with another way to the information."""

    thin_above: int = 10**18
    keep_above: int = -1

    def start(self, objective: ObjectiveLike) -> State:
        begin = objective.theta if self.begin is None else self.begin
        return replace(self._steering(objective, begin), borrowed=True)

    def _steering(self, objective: ObjectiveLike, theta: Tensor) -> State:
        """The state at θ with the information that steers."""
        state = self._look(objective, theta, torch.float32)
        return replace(state, precision=torch.float64)

    def _refreshed(self, objective: ObjectiveLike, state: State) -> State:
        """While the iterations are under way, by what steers; once they have ended, exactly."""
        if state.borrowed and state.decrement > self.tolerance:
            t = objective.taylor(state.theta, order=2, precision=torch.float32)
            fresh = replace(state, taylor=t, information=t.information, passes=state.passes + 1)
            return self._factored(objective, fresh)
        return super()._refreshed(objective, state)

    def _factored(self, objective: ObjectiveLike, state: State) -> State:
        """Without the second look in float64, which is for sums in float32."""
        return super()._factored(objective, replace(state, precision=torch.float64))
