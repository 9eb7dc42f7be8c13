"""Constrained refits: the profile log-likelihood at a given value of one coordinate, and its root by
bracketing.

The slow road of a profile, for where the joint solution fails: ℓ_p stays above the level, or is far from
quadratic.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import NotConverged
from ..likelihood import Objective
from ..likelihood.restricted import Restricted
from ..models.base import names_of
from ..solvers.loop import iterate
from ..solvers.newton import Newton

HIGHER = 1e-5  # nats by which a constrained maximum may exceed ℓ̂: more, and θ̂ was not the maximum
FLAT = 1e-7  # nats: a profile that moves less over a doubling of the distance has reached its limit
DOUBLINGS = 40


class Refits:
    """ℓ_p(ψ) of coordinate `index`, by Newton from the nearest constrained maximum known.

    Parameters
    ----------
    objective, index
        ψ = θ_index
    theta, value
        θ̂, (p,), and ℓ̂
    error
        the standard error of ψ̂
    """

    def __init__(self, objective: Objective, index: int, theta: Tensor, value: float, error: float):
        self.objective, self.index, self.theta, self.value, self.error = objective, index, theta, value, error
        self.known: dict[float, Tensor] = {float(theta[index]): theta}  # ψ → the constrained maximum there
        self.passes, self.width = 0, 0.0

    def at(self, psi: float, near: Tensor | None = None) -> tuple[Tensor | None, float]:
        """θ that maximises ℓ with θ_index = psi, and ℓ_p(psi). θ is None where it is not certified: ℓ_p is
        then at least that value."""
        start = self._predicted(psi) if near is None else near.clone()
        start[self.index] = psi
        free = torch.ones(len(start), dtype=torch.bool)
        free[self.index] = False
        if not bool(free.any()):
            self.passes += 1
            value = float(self.objective.taylor(start, order=1).value)
            return (start, value) if math.isfinite(value) else (None, -math.inf)
        restricted = Restricted(self.objective, start, free)
        solver = Newton(begin=start[free], thin_above=10**18)
        state = solver.start(restricted)
        if not math.isfinite(state.value):
            self.passes += 1
            return None, -math.inf
        state = iterate(solver, restricted)
        self.passes += state.passes
        theta = restricted.lift(state.theta)
        if state.value > self.value + HIGHER:
            names = names_of(self.objective.model)
            raise higher(
                names[self.index] if self.index < len(names) else str(self.index), state.value - self.value
            )
        if not solver.certificate(restricted, state).ok:
            return None, state.value
        self.known[psi] = theta
        return theta, state.value

    def _predicted(self, psi: float) -> Tensor:
        """θ on the line through the two nearest constrained maxima known."""
        nearest = sorted(self.known.items(), key=lambda k: abs(k[0] - psi))[:2]
        if len(nearest) < 2 or abs(psi - nearest[0][0]) > 4 * abs(nearest[1][0] - nearest[0][0]):
            return nearest[0][1].clone()
        (p0, t0), (p1, t1) = nearest
        return t0 + (psi - p0) / (p1 - p0) * (t1 - t0)

    def root(self, root: float, reached: Tensor | None, stride: float) -> tuple[float, Tensor | None] | None:
        """ψ and θ with r(ψ) = root; (±∞, None) where the profile never falls so far; None where it cannot be
        told.

        Parameters
        ----------
        reached
            a constrained maximum on the way, from where to seek (None: θ̂); stride : the first step of ψ,
            doubled until it is beyond
        """
        sign, target = math.copysign(1.0, root), self.value - 0.5 * root * root
        inside = float(self.theta[self.index])
        if reached is not None:
            self.known[float(reached[self.index])] = reached
            inside = float(reached[self.index])
        outside = self._outside(inside, sign, stride, target)
        if outside is None or math.isinf(outside[1]):
            return None if outside is None else (outside[1], None)
        inside, outer = outside

        def above(psi: float) -> float:
            theta, value = self.at(psi)
            if theta is None and not value > target:
                raise _Lost
            return value - target

        try:
            self.width = 1e-9
            from scipy.optimize import brentq  # takes long to load

            psi = float(brentq(above, inside, outer, xtol=1e-9 * self.error, rtol=1e-12, maxiter=100))
            theta, _ = self.at(psi)
        except _Lost:
            return None
        return None if theta is None else (psi, theta)

    def _outside(self, inside: float, sign: float, step: float, target: float) -> tuple[float, float] | None:
        """A ψ above the level, and one below it: by doubling. (ψ, ±∞) where there is none."""
        before = math.inf
        for k in range(DOUBLINGS):
            psi = inside + sign * step
            theta, value = self.at(psi)
            if theta is None and not value > target:
                if k > 4 and step > 64 * self.error and before > target and not math.isfinite(value):
                    return inside, sign * math.inf  # numbers end before the likelihood falls
                step /= 2 if step > 1e-6 * self.error else 1
                if step <= 1e-6 * self.error:
                    return None
                continue
            if value < target:
                return inside, psi
            if step > 16 * self.error and abs(before - value) < FLAT:
                return inside, sign * math.inf
            inside, step, before = psi, 2 * step, value
        return inside, sign * math.inf


def higher(name: str, nats: float) -> NotConverged:
    """The error for a fit that its own profile shows to be a local maximum."""
    return NotConverged(
        f"along the profile of {name!r} the objective is {nats:.3g} nats higher than at the fit: the fit is "
        "a local maximum. "
        "Fit again from other starts."
    )


class _Lost(Exception):
    """A refit that cannot be certified lies below the level: it shows nothing."""
