"""Profiles of variance components, on their own scale.

    ℓ_p(c) = max ℓ(θ)  subject to  g(θ) = c,      {c : 2(ℓ̂ − ℓ_p(c)) ≤ χ²_{1, level}}

g is a standard deviation or a correlation, a function of several coordinates of θ. The constrained maximum is found by
Newton's method on the Lagrangian; its multiplier is ∂ℓ_p/∂c, so that the ends are found by Newton's method too.

Source: Pawitan (2001), In All Likelihood, ch. 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..distributions import chi2
from ..errors import BadArgument, NotConverged
from ..likelihood import LogLikelihood, LogPrior, Objective
from ..models.base import names_of
from ..models.mixed import Mixed
from ..models.random_effects import EDGE, Random, RandomEffects
from ..models.scales import Unstructured, without_effect
from ..solvers import choose, optimise
from ..solvers.certificate import Certificate
from ..types import ModelLike

STEPS, TOLERANCE = 60, 1e-9
RIGHT = math.pi / 2 - 1e-3  # of the arc sine of a correlation: as near to ±1 as a profile is followed


def mixed(objective: Objective) -> RandomEffects:
    model = objective.model
    if not isinstance(model, RandomEffects):
        raise BadArgument(f"a {type(model).__name__} has no random effects, and so no variance components.")
    return model


def residual_scale(model: RandomEffects) -> int:
    """Where the residual scale of a normal response is in θ."""
    assert isinstance(model, Mixed)
    return next(p.start for p in model.regression.predictors if p.parameter == "scale")


@dataclass
class _Profile:
    """The constrained maximum of one natural value, on the logarithm of a standard deviation, on the arc sine of a
    correlation, as a share of its range (−1 to 1)."""

    objective: Objective
    index: int
    corr: bool
    J: Tensor
    top: float
    range: tuple[float, float] = (-1.0, 1.0)

    def share(self, correlation: float) -> float:
        low, high = self.range
        return (2 * correlation - low - high) / (high - low)

    def back(self, z: float) -> float:
        """The correlation of that arc sine."""
        low, high = self.range
        return (low + high) / 2 + (high - low) / 2 * math.sin(z)

    def g(self, theta: Tensor) -> tuple[float, Tensor]:
        model = mixed(self.objective)
        with torch.enable_grad():
            leaf = theta.clone().requires_grad_()
            value = model.natural(leaf)[self.index]
            low, high = self.range
            share = (2 * value - low - high) / (high - low)
            value = torch.asin(share) if self.corr else torch.log(value)
            return float(value.detach()), torch.autograd.grad(value, leaf)[0]

    def at(self, z: float, theta: Tensor) -> tuple[float, float, Tensor]:
        """ℓ_p(z), ∂ℓ_p/∂z and θ, begun at θ.

        The information of θ̂ steers, corrected along the way by secants of the Lagrangian's gradient (BFGS).

        Raises
        ------
        NotConverged
        """
        B = self.J.clone()
        t = self.objective.taylor(theta, order=1)
        value, slope = self.g(theta)
        for _ in range(STEPS):
            solved = torch.linalg.solve(B, torch.stack([t.gradient, slope], 1))
            curve = float(slope @ solved[:, 1])
            if not curve > 0:
                raise _lost()
            multiplier = (float(slope @ solved[:, 0]) - (z - value)) / curve
            d = solved[:, 0] - multiplier * solved[:, 1]
            if float(d @ (B @ d)) < TOLERANCE**2 and abs(z - value) < TOLERANCE:
                return float(t.value), multiplier, theta
            size = 1.0
            while True:
                new = self.objective.taylor(theta + size * d, order=1)
                after, steeper = self.g(theta + size * d)
                sound = math.isfinite(after) and bool(torch.isfinite(new.value))
                if sound and (float(new.value) > float(t.value) - 20.0 or size < 1e-3):
                    break
                if size < 1e-9:
                    raise NotConverged(
                        "the profile of a variance component was not found.",
                        Certificate("not converged"),
                        None,
                    )
                size *= 0.5
            s, y = size * d, (t.gradient - multiplier * slope) - (new.gradient - multiplier * steeper)
            Bs = B @ s
            curved = float(s @ y)
            if curved < 0.2 * float(s @ Bs):  # Powell's damping keeps B positive definite
                share = 0.8 * float(s @ Bs) / (float(s @ Bs) - curved)
                y = share * y + (1 - share) * Bs
            B = B + torch.outer(y, y) / (s @ y) - torch.outer(Bs, Bs) / (s @ Bs)
            theta, t, value, slope = theta + s, new, after, steeper
        raise _lost()


def _lost() -> NotConverged:
    """Of a constrained maximum; the end of an interval is then NaN."""
    return NotConverged(
        "the profile of a variance component was not found.", Certificate("not converged"), None
    )


def of_component(objective: Objective, index: int) -> bool:
    """Whether an estimate is a standard deviation or a correlation of random effects."""
    model = objective.model
    return isinstance(model, RandomEffects) and index >= len(model.coefficients)


def ends(objective: Objective, index: int, level: float) -> tuple[float, float]:
    """Both ends of the profile interval of such an estimate, as `components` has them; NaN where one was not found."""
    model = mixed(objective)
    value = float(model.natural(objective.theta)[index])
    return interval(objective, index, value, level, names_of(model)[index].startswith("corr("))


def points(objective: Objective, index: int, radius: float, m: int) -> list[tuple[float, float]]:
    """(value, signed root) of m points of each side of its profile, at equal steps of the root; fewer where its range ends.

    Raises
    ------
    NotConverged
        the estimate is at an end of its range, or no point was found
    """
    model = mixed(objective)
    name, value = names_of(model)[index], float(model.natural(objective.theta)[index])
    profile = _profile(objective, index, name.startswith("corr("))
    outside = (
        not abs(profile.share(value)) <= 1 - EDGE if profile is not None and profile.corr else value <= EDGE
    )
    if profile is None or outside:
        why = f"{name!r} is at an end of its range, where its profile has one side. fit.variance_components() has it."
        raise NotConverged(why, Certificate("not converged"), None)
    top, out = profile.g(objective.theta)[0], []
    for sign in (-1.0, 1.0):
        z = before = top
        for k in range(1, m + 1):
            first = z + (z - before if k > 1 else sign * 0.1)
            try:
                new = _solve(profile, first, objective.theta, radius * k / m, sign)
            except NotConverged:
                break
            if not math.isfinite(new) or (profile.corr and abs(new) > RIGHT):
                break
            before, z = z, new
            out.append((profile.back(z) if profile.corr else math.exp(z), sign * radius * k / m))
    if not out:
        raise _lost()
    return out


def _profile(objective: Objective, index: int, corr: bool) -> _Profile | None:
    """The profile of a component, steered by the information at θ̂; None of a fit that failed."""
    found = objective.taylor(order=2)
    assert found.information is not None
    J = found.information.dense()
    if not bool(torch.isfinite(J).all()):
        return None
    values, vectors = torch.linalg.eigh(J)
    J = vectors @ torch.diag(values.clamp(min=1e-8 * float(values.max()))) @ vectors.T
    model = mixed(objective)
    span = model.correlations(names_of(model)[index]) if corr else (-1.0, 1.0)
    return _Profile(objective, index, corr, J, float(found.value), span)


def interval(
    objective: Objective, index: int, estimate: float, level: float, corr: bool
) -> tuple[float, float]:
    """Both ends, by Newton's method on the signed root."""
    profile = _profile(objective, index, corr)
    if profile is None:
        return math.nan, math.nan
    cut = math.sqrt(float(chi2.ppf(level, 1)))
    theta, J, span = objective.theta, profile.J, profile.range
    if corr and math.isnan(estimate):
        return span
    if corr and abs(profile.share(estimate)) > 1 - EDGE:
        return _from_one(profile, theta, math.copysign(1.0, profile.share(estimate)), cut)
    if not corr and estimate <= EDGE:  # the curvature in s at 0 gives the first trial
        natural = mixed(objective).natural
        place = next(j for j in range(len(theta)) if float(natural(_beside(theta, j))[index]) > EDGE)
        begin = _beside(theta, place, cut / math.sqrt(max(float(J[place, place]), 1e-300)))
        return 0.0, math.exp(_solve(profile, profile.g(begin)[0], begin, cut, 1.0))
    z, slope = profile.g(theta)
    wide = cut * math.sqrt(max(float(slope @ torch.linalg.solve(J, slope)), 0.0))
    found_ends = []
    for sign in (-1.0, 1.0):
        # of a whole 1.0 the first step, which is linear in s, would land on s = 0
        first = z + sign * min(wide, 0.7 if not corr else 0.5 * (math.pi / 2 - sign * z))
        try:
            found_ends.append(_solve(profile, first, theta, cut, sign))
        except NotConverged:
            found_ends.append(math.nan)
    low, high = found_ends
    if math.isnan(low) and not corr and _reaches_zero(objective, index, profile.top, cut):
        low = -math.inf
    if corr:
        return _sure(profile, profile.back(low), profile.back(high), cut)
    return math.exp(low), math.exp(high)


def _from_one(profile: _Profile, theta: Tensor, side: float, cut: float) -> tuple[float, float]:
    """Of a correlation whose maximum is at an end of its range: that end, and where the profile has fallen far enough on the other side."""
    objective, begin = profile.objective, None
    model = mixed(objective)
    for j in range(len(model.coefficients), len(theta)):
        for size in (0.3, 1.0):
            moved = _beside(theta, j, size * max(float(theta[j].abs()), 0.3))
            value = profile.share(float(model.natural(moved)[profile.index]))
            if abs(value) < 1 - 1e-4 and begin is None:
                begin = moved
    inner = math.nan
    try:
        if begin is not None:
            inner = profile.back(_solve(profile, profile.g(begin)[0], begin, cut, -side))
    except NotConverged:
        pass
    low, high = profile.range
    return _sure(profile, *((inner, high) if side > 0 else (low, inner)), cut)


def _sure(profile: _Profile, low: float, high: float, cut: float) -> tuple[float, float]:
    """Ends of a correlation. One that was not found is that of the range, where a standard deviation of 0 is not excluded:
    there every correlation is as likely."""
    if not (math.isnan(low) or math.isnan(high)):
        return low, high
    model = mixed(profile.objective)
    at = len(model.coefficients)
    for r in model.random:
        width, count = r.structure.width, len(r.structure.names(r.effects, r.label))
        if at <= profile.index < at + count and isinstance(r.structure, Unstructured):
            pairs = [(i, j) for i in range(width) for j in range(i)]
            pair = pairs[profile.index - at - width]
            if any(_reaches_zero(profile.objective, at + i, profile.top, cut) for i in pair):
                return -1.0 if math.isnan(low) else low, 1.0 if math.isnan(high) else high
        at += count
    return low, high


def _reaches_zero(objective: Objective, index: int, top: float, cut: float) -> bool:
    """Whether a standard deviation of 0 is not excluded: the maximum there, in place of a profile that was not found."""
    model = mixed(objective)
    at = len(model.coefficients)
    for r in model.random:
        own = r.structure.names(r.effects, r.label)
        if at <= index < at + len(own):
            if r.smooth and r.structure.size > 1:
                return False  # a penalty's own limit is another basis
            try:
                value = without(objective, [r], index - at)
            except (BadArgument, NotConverged):
                return False
            return math.sqrt(max(2 * (top - value), 0.0)) <= cut
        at += len(own)
    return False  # the residual's: 0 is no limit of the model


def without(objective: Objective, gone: Sequence[Random], effect: int | None = None) -> float:
    """The maximum of the model without some terms, or without one effect of a term."""
    model, source = mixed(objective), objective.terms[0].source
    if effect is None:
        if model.reml and len(gone) == len(model.random):
            return _restricted(objective)
        smaller = model.without(gone)
    else:
        assert isinstance(model, Mixed)
        kept = [(r, without_effect(r.structure, effect) if r in gone else r.structure) for r in model.random]
        left = [replace(r, structure=structure) for r, structure in kept if structure is not None]
        smaller = type(model)(model.regression, left, reml=model.reml, points=model.points)
    return maximum(Objective([LogLikelihood(smaller, source)], _priors(objective, smaller)))


def _priors(objective: Objective, model: ModelLike) -> list[LogPrior]:
    return [LogPrior(each.prior, model) for each in objective.priors]


def _beside(theta: Tensor, j: int, size: float = 0.1) -> Tensor:
    out = theta.clone()
    out[j] += size
    return out


def _solve(profile: _Profile, z: float, theta: Tensor, cut: float, sign: float) -> float:
    """Where the signed root is `cut`; the end of the range where it is not reached before; NaN where it is not found."""
    first = z
    for _ in range(40):
        value, multiplier, theta = profile.at(z, theta)
        root = math.sqrt(max(2 * (profile.top - value), 0.0))
        if abs(root - cut) < 1e-7:
            return z
        slope = -multiplier / max(root, 1e-6)
        step = (cut - root) / slope if slope * sign > 1e-12 else sign * 0.7
        step = max(-0.7, min(0.7, step))
        if profile.corr:
            if sign * z >= RIGHT and root < cut:
                return sign * math.pi / 2  # not excluded even at ±1
            step = max(-RIGHT - z, min(RIGHT - z, step))
        elif abs(z + step - first) > 12.0:
            return sign * math.inf
        z += step
    return math.nan


# ---- the test at the boundary ------------------------------------------------------------------------------


def maximum(objective: Objective) -> float:
    """ℓ at the maximum.

    Raises
    ------
    NotConverged
        with the certificate of the smaller fit
    """
    found, certificate, _ = optimise(objective, choose(objective))
    if not certificate.ok:
        raise NotConverged(
            f"the fit without the term has no certified maximum: {certificate}", certificate, None
        )
    return found.value()


def _restricted(objective: Objective) -> float:
    """The restricted likelihood with all scales 0, at the σ that maximises it."""
    model = mixed(objective)
    theta = objective.theta.clone()
    theta[len(model.coefficients) :] = 0.0
    if not model.normal:
        raise BadArgument(
            "a restricted fit of another family than the normal is compared with one that keeps a random term."
        )
    place = residual_scale(model)
    for _ in range(100):
        t = objective.taylor(theta, order=1)
        if abs(float(t.gradient[place])) < 1e-9:
            break
        own = [j for j in range(len(model.coefficients)) if j != place]
        J = objective.taylor(theta, order=2).information
        assert J is not None
        theta[own] += torch.linalg.solve(J.dense()[own][:, own], t.gradient[own])
        theta[place] += float(t.gradient[place]) / max(float(J.diagonal()[place]), 1e-300)
    return objective.value(theta)
