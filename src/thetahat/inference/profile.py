"""Profile likelihood: what the data say of one estimate when everything else follows it.

    ℓ_p(ψ) = max {ℓ(θ) : v(θ) = ψ},      r(ψ) = sign(ψ − ψ̂)·√(2(ℓ̂ − ℓ_p(ψ)))

An endpoint of the interval is where r = ±√χ²_{1, level}. Its θ solves, for the multiplier λ = dℓ_p/dψ and a =
∂v/∂θ,

    ∂ℓ/∂θ = λ a,      ℓ(θ) = ℓ̂ − r²/2

jointly, by Newton's method: no refit at each trial ψ. With M = J + λ ∂²v/∂θ² (J alone for a coordinate of θ),
u = M⁻¹ ∂ℓ/∂θ and w = M⁻¹a, one step is

    d = u − λ' w,      λ' = −sign(r)·√(2(ℓ + ½ uᵀ∂ℓ/∂θ − ℓ̂ + r²/2) / aᵀw)

one pass over the data and one factorisation each; the first, from θ̂, is shared by all endpoints. It ends
when d is shorter than `CLOSE` standard errors; the last d is still taken, so that what remains is of the
order of its square.

An estimate v that is an increasing or decreasing function of one θ_j has the profile of θ_j: its endpoints
are mapped. Where ℓ_p stays above the level for ever, the endpoint is the end of the parameter's range.

With a prior, ℓ is the objective: the log-likelihood and the log-prior.

References
----------
Venzon and Moolgavkar (1988), A method for computing profile-likelihood-based confidence intervals, Appl.
Statist. 37; Murphy and van der Vaart (2000), On profile likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ..distributions import chi2
from ..errors import BadArgument, NotConverged
from ..likelihood import Objective
from ..models.base import names_of, natural_of
from ..protocols import is_concave
from ..solvers import quantile
from ..threads import one_thread
from . import variance_profiles
from .bread import Inverse, bread, double
from .natural import coordinates, find, natural, own_places
from .refit import HIGHER, Refits, higher

CLOSE = 1e-5  # standard errors
STEPS = 12


@dataclass(frozen=True)
class Endpoint:
    """One end of a profile interval, or one point of a curve.

    Parameters
    ----------
    value
        ψ on the natural scale; the end of the range where `status` is "unbounded"
    theta
        (p,) the whole constrained maximum there; None if unbounded
    root
        r, signed by the scale of θ_j
    status
        "solved" (jointly), "bracketed" (by refits), or "unbounded" (ℓ_p never falls so far)
    error
        an estimate of how far ψ still is from the root, in standard errors
    passes
        over the data
    """

    value: float
    theta: Tensor | None
    root: float
    status: str
    error: float
    passes: int


@dataclass(frozen=True)
class Peak:
    """What all profiles of a fit share: θ̂, ℓ̂, and J⁻¹ a of each wanted estimate."""

    objective: Objective
    theta: Tensor
    value: float
    index: int
    coordinate: int | None
    direction: Tensor  # J⁻¹ a, (p,)
    slope: Tensor | None  # a at θ̂ where v is not a function of one coordinate

    @property
    def name(self) -> str:
        return names_of(self.objective.model)[self.index]

    @property
    def error(self) -> float:
        """The standard error of ψ̂ (on the scale of θ_j for a function of one coordinate)."""
        own = self.direction[self.coordinate] if self.coordinate is not None else self.slope @ self.direction  # type: ignore[operator]
        return math.sqrt(float(own))

    def psi(self, theta: Tensor) -> float:
        """ψ: θ_j, or v(θ) where it is not a function of one coordinate."""
        return (
            float(theta[self.coordinate])
            if self.coordinate is not None
            else float(natural(self.objective, theta)[self.index])
        )

    def value_at(self, psi: float) -> float:
        """The natural value of ψ."""
        if self.coordinate is None:
            return psi
        theta = self.theta.clone()
        theta[self.coordinate] = psi
        return float(natural(self.objective, theta)[self.index])


def endpoints(
    objective: Objective, theta: Tensor, level: float = 0.95, parameters: str | Sequence[str] | None = None
) -> dict[str, tuple[Endpoint, Endpoint]]:
    """Both ends of the profile-likelihood interval of each estimate.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    level
        of confidence, between 0 and 1
    parameters
        for those alone; None: all

    Returns
    -------
    dict[str, tuple[Endpoint, Endpoint]]
        name → (low, high) on the natural scale.

    Raises
    ------
    BadArgument
        an unknown name or level; weights that are no frequencies
    FlatDirection
        the information at θ̂ is singular
    NotConverged
        an endpoint could not be found, or a higher maximum was

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> low, high = endpoints(fit.objective, fit.theta, parameters="x")["x"]
    >>> round(low.value, 4), round(high.value, 4), low.status
    (0.1249, 0.7983, 'solved')
    """
    radius = math.sqrt(float(chi2.ppf(_level(level), 1)))
    objective = objective.at(theta)
    with one_thread(objective.small):
        out = {}
        for peak in _peaks(objective, theta, find(objective, parameters)):
            first = _endpoint(peak, radius, theta + radius / peak.error * peak.direction)
            start = theta - radius / peak.error * peak.direction
            if (
                first.theta is not None
            ):  # θ(r) = θ̂ + r·t + r²·q + …: the far side of r shows q, so that the other starts with it
                start = first.theta - 2 * radius / peak.error * peak.direction
            second = _endpoint(peak, -radius, start)
            out[peak.name] = (second, first) if second.value <= first.value else (first, second)
        return out


def curve(
    objective: Objective, theta: Tensor, parameter: str, points: int = 21, level: float = 0.99
) -> pd.DataFrame:
    """The profile log-likelihood of one estimate, out to where its interval of this level ends.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    parameter
        the estimate's name
    points
        how many, at equal steps of r: half of them on each side of θ̂
    level
        of the interval that is covered

    Returns
    -------
    pd.DataFrame
        columns value (natural scale), log_likelihood (nats, relative to the maximum) and root (r: a straight
        line where the likelihood is normal), by increasing value.

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> curve(fit.objective, fit.theta, "x", points=3, level=0.95).round(3).to_numpy().tolist()
    [[0.125, -1.921, -1.96], [0.443, 0.0, 0.0], [0.798, -1.921, 1.96]]
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 3:
        raise BadArgument(f"points={points!r}: a whole number of at least 3 is needed.")
    radius = math.sqrt(float(chi2.ppf(_level(level), 1)))
    objective = objective.at(theta)
    (index,) = find(objective, parameter)
    if variance_profiles.of_component(objective, index):
        value = float(natural(objective, theta)[index])
        found = variance_profiles.points(objective, index, radius, points // 2)
        rows = sorted([(value, 0.0, 0.0), *((v, -0.5 * r**2, r) for v, r in found)])
        return pd.DataFrame(rows, columns=["value", "log_likelihood", "root"])
    with one_thread(objective.small):
        (peak,) = _peaks(objective, theta, [index])
        sides = [_side(peak, radius, points // 2), _side(peak, -radius, points // 2)]
        rows = [(peak.value_at(peak.psi(theta)), 0.0, 0.0)]
        rows += [(p.value, -0.5 * p.root**2, p.root) for side in sides for p in side]
        out = pd.DataFrame(rows, columns=["value", "log_likelihood", "root"]).sort_values(
            "value", ignore_index=True
        )
        at = int((out["root"] == 0).to_numpy().argmax())
        out["root"] = out["root"].abs().where(out.index >= at, -out["root"].abs())
        return out


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}: a number between 0 and 1, such as 0.95.")
    return level


def _peaks(objective: Objective, theta: Tensor, wanted: Sequence[int]) -> list[Peak]:
    """One factorisation of J at θ̂, one solve for all the wanted directions."""
    if any(t.robust is not None for t in objective.terms):
        raise BadArgument(
            "a robust fit does not maximise a likelihood, and has no χ² profile. Use kind='wald' with "
            "covariance='sandwich'."
        )
    if any(t.weights is not None for t in objective.terms):
        raise BadArgument(
            "the terms are weighted, and a weighted log-likelihood has no χ² profile. Use kind='wald' with "
            "covariance='sandwich'."
        )
    if quantile.applies(objective):
        raise BadArgument(quantile.KINK.format(family=objective.model.family, what="profile"))
    factor, value = bread(objective), float(objective.taylor(theta, order=1).value)
    places = coordinates(objective)
    slopes = {i: _slope(objective, theta, i) for i in wanted if places[i] is None}
    A = torch.zeros(objective.size, len(wanted), dtype=torch.float64)
    for k, i in enumerate(wanted):
        if places[i] is None:
            A[:, k] = slopes[i]
        else:
            A[places[i], k] = 1.0
    D = factor.solve(A) if not isinstance(factor, Inverse) else factor.matrix @ A
    return [
        Peak(objective, theta, value, i, places[i], D[:, k].clone(), slopes.get(i))
        for k, i in enumerate(wanted)
    ]


def _slope(objective: Objective, theta: Tensor, index: int) -> Tensor:
    """a = ∂v/∂θ, (p,)."""
    leaf = theta.clone().requires_grad_()
    with torch.enable_grad():
        value = natural_of(objective.model, leaf[own_places(objective)])[index]
        return torch.autograd.grad(value, leaf)[0]


def _bend(objective: Objective, theta: Tensor, index: int) -> Tensor:
    """∂²v/∂θ², (p, p)."""
    out: Tensor = torch.autograd.functional.hessian(
        lambda t: natural_of(objective.model, t[own_places(objective)])[index], theta
    )
    return out


# ---- one endpoint ------------------------------------------------------------------------------------------


def _endpoint(peak: Peak, root: float, start: Tensor) -> Endpoint:
    """θ at which r = root: jointly from `start`; else along the curve in shorter steps; else by refits."""
    found = _solve(peak, root, start)
    if found is not None and not _direct(peak, found):
        found = None
    if found is None:
        found, reached = _follow(peak, root)
        if found is None or not _direct(peak, found):
            found = _refitted(peak, root, reached)
    if found is None:
        raise NotConverged(
            f"the {'upper' if root > 0 else 'lower'} end of the profile of {peak.name!r} could not be found: "
            "on the way the likelihood "
            "has no constrained maximum that could be certified. Look at fit.profile(…) with a lower level, "
            "or use kind='bootstrap'."
        )
    return found


def _direct(peak: Peak, end: Endpoint) -> bool:
    """Whether no valley lies between θ̂ and the end, where log p is not known to be concave: three points of
    the chord are looked at.

    ℓ on the chord is a lower bound of the profile. Below the level it shows nothing for certain, and the
    curve is followed instead.
    """
    if is_concave(peak.objective.model) or end.theta is None:
        return True
    values = [peak.objective.value(peak.theta + t * (end.theta - peak.theta)) for t in (0.25, 0.5, 0.75)]
    if max(values) > peak.value + HIGHER:
        raise higher(peak.name, max(values) - peak.value)
    return min(values) >= peak.value - 0.5 * end.root**2


def _solve(peak: Peak, root: float, theta: Tensor) -> Endpoint | None:
    """Newton's method on ∂ℓ/∂θ = λ a, ℓ = ℓ̂ − root²/2; None where it does not settle."""
    objective, j, sign = peak.objective, peak.coordinate, math.copysign(1.0, root)
    target = peak.value - 0.5 * root * root
    lam = -abs(root) / peak.error * sign
    before, before_length = peak.theta, abs(root)
    for step in range(1, STEPS + 1):
        t = objective.taylor(theta, order=2)
        for _ in range(6):
            if math.isfinite(float(t.value)):
                break
            theta = (theta + before) / 2
            t = objective.taylor(theta, order=2)
        assert t.information is not None
        J, g = double(t.information), t.gradient.to(torch.float64)
        if j is not None:
            a = torch.zeros_like(g)
            a[j] = 1.0
        else:
            a = _slope(objective, theta, peak.index)
            J = type(J)(J.dense() + lam * _bend(objective, theta, peak.index))
        factor = J.factor()
        if factor is None:
            return None
        u, w = factor.solve(torch.stack([g, a], 1)).unbind(1)
        variance, gu, gw = float(a @ w), float(g @ u), float(g @ w)
        above = float(t.value) + 0.5 * gu - target
        if not (variance > 0 and above > 0):
            return None
        lam = -sign * math.sqrt(2 * above / variance)
        d = u - lam * w
        length = math.sqrt(max(gu - 2 * lam * gw + lam * lam * variance, 0.0))
        if length <= CLOSE:
            end = theta + d
            psi = peak.psi(end)
            if (psi - peak.psi(peak.theta)) * sign <= 0:
                return None
            return Endpoint(peak.value_at(psi), end, root, "solved", length**2, step)
        if length > 4 * before_length:
            return None
        before, before_length = theta, max(length, 0.1 * abs(root))
        theta = theta + d * min(1.0, abs(root) / length)
    return None


def _follow(peak: Peak, root: float) -> tuple[Endpoint | None, Endpoint | None]:
    """The endpoint by steps of r that shorten where one fails; and the last point reached."""
    at: Endpoint | None = None
    r, step = 0.0, 0.5 * root
    while abs(step) > abs(root) / 40:
        to = root if abs(root - r - step) < 1e-9 or abs(r + step) > abs(root) else r + step
        tangent = (to / peak.error) * peak.direction if at is None else (to / r) * (at.theta - peak.theta)  # type: ignore[operator]
        found = _solve(peak, to, peak.theta + tangent)
        if found is None:
            step /= 2
        elif to == root:
            return found, found
        else:
            at, r = found, to
    return None, at


def _refitted(peak: Peak, root: float, reached: Endpoint | None) -> Endpoint | None:
    """The endpoint by constrained refits at trial values of ψ, where ψ is a coordinate of θ."""
    if peak.coordinate is None:
        return None
    known = None if reached is None or reached.theta is None else reached.theta
    out, passes = None, 0
    for shrink in (1.0, 0.25, 0.0625):  # shorter strides where one has crossed a valley
        refits = Refits(peak.objective, peak.coordinate, peak.theta, peak.value, peak.error)
        found = refits.root(root, known, shrink * abs(root) * peak.error)
        passes += refits.passes
        if found is None:
            break
        psi, theta = found
        status, error = ("unbounded", 0.0) if theta is None else ("bracketed", refits.width)
        out = Endpoint(peak.value_at(psi), theta, root, status, error, passes)
        if _direct(peak, out):
            break
    return out


# ---- a curve -----------------------------------------------------------------------------------------------


def _side(peak: Peak, radius: float, m: int) -> list[Endpoint]:
    """m points at r = radius/m, …, radius, each predicted from those before it; by refits in ψ where the
    curve in r ends."""
    out: list[Endpoint] = []
    tangent = peak.direction / peak.error
    for k in range(1, m + 1):
        r = radius * k / m
        known = [(0.0, peak.theta)] + [(p.root, p.theta) for p in out[-2:] if p.theta is not None]
        start = peak.theta + r * tangent if len(known) == 1 else _extrapolated(known, r, tangent)
        found = _solve(peak, r, start)
        if found is None:
            return out + _beyond(peak, radius, out, m - len(out))
        out.append(found)
    return out


def _extrapolated(known: list[tuple[float, Tensor]], r: float, tangent: Tensor) -> Tensor:
    """θ(r) by the polynomial through θ̂, its tangent there, and the last points."""
    (_, origin), *rest = known
    scaled = [
        (q, (theta - origin - q * tangent) / q**2) for q, theta in rest
    ]  # (θ(r) − θ̂ − r·t)/r² is smooth in r
    if len(scaled) == 1:
        curvature = scaled[0][1]
    else:
        (q0, c0), (q1, c1) = scaled
        curvature = c1 + (r - q1) * (c1 - c0) / (q1 - q0)
    return origin + r * tangent + r * r * curvature


def _beyond(peak: Peak, radius: float, done: list[Endpoint], m: int) -> list[Endpoint]:
    """m further points of the side, at equal steps of ψ, by constrained refits."""
    if peak.coordinate is None:
        raise NotConverged(
            f"the profile of {peak.name!r} could not be followed beyond {len(done)} points of its side. Use "
            "a lower level."
        )
    refits = Refits(peak.objective, peak.coordinate, peak.theta, peak.value, peak.error)
    origin = peak.psi(peak.theta)
    last = done[-1].theta if done else None
    begin = origin if last is None else peak.psi(last)
    step = (begin - origin) / len(done) if done else radius / (2 * m) * peak.error
    out = []
    for k in range(1, m + 1):
        psi = begin + k * step
        theta, value = refits.at(psi, last)
        if theta is None:
            break
        root = math.copysign(math.sqrt(2 * max(peak.value - value, 0.0)), radius)
        if abs(root) > abs(radius):
            break
        last = theta
        out.append(Endpoint(peak.value_at(psi), theta, root, "bracketed", 0.0, refits.passes))
    return out
