"""Variance components with profile intervals, and the likelihood-ratio test of a variance at its boundary.

    ℓ_p(c) = max ℓ(θ)  subject to  g(θ) = c,      {c : 2(ℓ̂ − ℓ_p(c)) ≤ χ²_{1, level}}

g is a standard deviation or a correlation, a function of several coordinates of θ. The constrained maximum is found by
Newton's method on the Lagrangian; its multiplier is ∂ℓ_p/∂c, so that the ends are found by Newton's method too.

Where one variance is 0 under the hypothesis, and k − 1 covariances with it, 2Δℓ ~ ½χ²_{k−1} + ½χ²_k.

Source: Pawitan (2001), In All Likelihood, ch. 3; Self and Liang (1987), Asymptotic properties of maximum likelihood
estimators and likelihood ratio tests under nonstandard conditions; Stram and Lee (1994).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from scipy.stats import chi2
from torch import Tensor

from ..errors import BadArgument, NotConverged
from ..likelihood import LogLikelihood, LogPrior, Objective
from ..models.base import names_of
from ..models.latent import LatentModel
from ..models.mixed import Mixed
from ..models.random_effects import EDGE, Random, RandomEffects
from ..models.scales import Diagonal, OfCurve, Penalised, Unstructured, without_effect
from ..models.series import RandomWalk
from ..notebook import Printed
from ..solvers import choose, optimise
from ..solvers.certificate import Certificate
from ..types import ModelLike

STEPS, TOLERANCE = 60, 1e-9
RIGHT = math.pi / 2 - 1e-3  # of the arc sine of a correlation: as near to ±1 as a profile is followed
KINDS = ("profile", "wald")


def components(objective: Objective, level: float = 0.95, intervals: str | None = "profile") -> pd.DataFrame:
    """A row a standard deviation and a correlation: parameter, group, term, sd, variance, correlation, low, high.

    low and high are of the standard deviation, or of the correlation; an end of the range (0, ±1) where the data do not
    exclude it, NaN where a profile was not found. Of a correlation with a standard deviation of 0 nothing is known: −1 to 1.
    Wald's are 0 and NaN of a standard deviation that is less than half its interval's width from 0.

    Raises
    ------
    BadArgument
        no random effects, an unknown kind of interval, a level outside (0, 1)
    """
    model = _mixed(objective)
    if intervals is not None and intervals not in KINDS:
        raise BadArgument(f"intervals={intervals!r}. Accepted: 'profile', 'wald', None.")
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    theta, names = objective.theta, names_of(model)
    values = model.natural(theta)
    rows, at = [], len(model.coefficients)
    for r in model.random:
        own = r.structure.names(r.effects, r.label)
        for i, short in enumerate(own):
            value, corr = float(values[at + i]), short.startswith("corr(")
            term = short[short.index("(") + 1 : short.rindex(" |")] if " |" in short else r.label
            low, high = math.nan, math.nan
            if intervals == "profile":
                low, high = _ends(objective, at + i, value, level, corr)
            elif intervals == "wald":
                from . import intervals as wald

                found = wald.intervals(objective, theta, level, parameters=[names[at + i]])
                low, high = float(found["low"].iloc[0]), float(found["high"].iloc[0])
            rows.append(
                {
                    "parameter": r.parameter,
                    "group": r.label,
                    "term": term,
                    "sd": math.nan if corr else value,
                    "variance": math.nan if corr else value**2,
                    "correlation": value if corr else math.nan,
                    "low": low,
                    "high": high,
                }
            )
        at += len(own)
    if model.normal:
        rows.append(_residual(objective, level, intervals))
    return pd.DataFrame(rows)


def _mixed(objective: Objective) -> RandomEffects:
    model = objective.model
    if not isinstance(model, RandomEffects):
        raise BadArgument(f"a {type(model).__name__} has no random effects, and so no variance components.")
    return model


def _scale(model: RandomEffects) -> int:
    """Where the residual scale of a normal response is in θ."""
    assert isinstance(model, Mixed)
    return next(p.start for p in model.regression.predictors if p.parameter == "scale")


def _residual(objective: Objective, level: float, intervals: str | None) -> dict[str, object]:
    model = _mixed(objective)
    place = _scale(model)
    sigma = float(model.sigma(objective.theta[: len(model.coefficients)]))
    low, high = math.nan, math.nan
    if intervals == "profile":
        low, high = _ends(objective, place, sigma, level, False)
    elif intervals == "wald":
        from . import intervals as wald

        found = wald.intervals(objective, objective.theta, level, parameters=[names_of(model)[place]])
        low, high = float(found["low"].iloc[0]), float(found["high"].iloc[0])
    return {
        "parameter": "scale",
        "group": "Residual",
        "term": "",
        "sd": sigma,
        "variance": sigma**2,
        "correlation": math.nan,
        "low": low,
        "high": high,
    }


# ---- profile -----------------------------------------------------------------------------------------------


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
        model = _mixed(self.objective)
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
    model = _mixed(objective)
    value = float(model.natural(objective.theta)[index])
    return _ends(objective, index, value, level, names_of(model)[index].startswith("corr("))


def points(objective: Objective, index: int, radius: float, m: int) -> list[tuple[float, float]]:
    """(value, signed root) of m points of each side of its profile, at equal steps of the root; fewer where its range ends.

    Raises
    ------
    NotConverged
        the estimate is at an end of its range, or no point was found
    """
    model = _mixed(objective)
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
    model = _mixed(objective)
    span = model.correlations(names_of(model)[index]) if corr else (-1.0, 1.0)
    return _Profile(objective, index, corr, J, float(found.value), span)


def _ends(objective: Objective, index: int, estimate: float, level: float, corr: bool) -> tuple[float, float]:
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
        natural = _mixed(objective).natural
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
    model = _mixed(objective)
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
    model = _mixed(profile.objective)
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
    model = _mixed(objective)
    at = len(model.coefficients)
    for r in model.random:
        own = r.structure.names(r.effects, r.label)
        if at <= index < at + len(own):
            if r.smooth and r.structure.size > 1:
                return False  # a penalty's own limit is another basis
            try:
                value = _without(objective, [r], index - at)
            except (BadArgument, NotConverged):
                return False
            return math.sqrt(max(2 * (top - value), 0.0)) <= cut
        at += len(own)
    return False  # the residual's: 0 is no limit of the model


def _without(objective: Objective, gone: Sequence[Random], effect: int | None = None) -> float:
    """The maximum of the model without some terms, or without one effect of a term."""
    model, source = _mixed(objective), objective.terms[0].source
    if effect is None:
        if model.reml and len(gone) == len(model.random):
            return _restricted(objective)
        smaller = model.without(gone)
    else:
        assert isinstance(model, Mixed)
        kept = [(r, without_effect(r.structure, effect) if r in gone else r.structure) for r in model.random]
        left = [replace(r, structure=structure) for r, structure in kept if structure is not None]
        smaller = type(model)(model.regression, left, reml=model.reml, points=model.points)
    return _maximum(Objective([LogLikelihood(smaller, source)], _priors(objective, smaller)))


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


@dataclass(frozen=True)
class VarianceTest(Printed):
    """A likelihood-ratio test that a term's variances are 0. Prints itself.

    Parameters
    ----------
    term
        what is left out under the hypothesis
    statistic
        2(ℓ₁ − ℓ₀)
    weights
        degrees of freedom → its weight in the mixture of χ²
    p_value
        P(mixture ≥ statistic)
    bound
        whether p is an upper bound, because the mixture's weights are not known
    """

    term: str
    statistic: float
    weights: dict[int, float]
    p_value: float
    bound: bool = False

    def __str__(self) -> str:
        mixture = " + ".join(f"{w:g}·χ²({k})" for k, w in self.weights.items())
        sign = "≤" if self.bound else "="
        return f"without {self.term}: 2Δℓ = {self.statistic:.4f}, referred to {mixture}, p {sign} {self.p_value:.4g}"


def test_random(objective: Objective, term: str) -> VarianceTest:
    """Whether a term of random effects, one effect of it, or a smooth term's bend, is needed: the model fitted again without
    it.

    Parameters
    ----------
    term
        as the formula has it, "(1 | Subject)" (or without its brackets, where no effect has that name), or its group, "Subject",
        or a smooth term, "s(x)"; "Days | Subject" or "sd(Days | Subject)": that effect and its covariances alone (Stram and Lee
        1994: ½χ²(q − 1) + ½χ²(q) of q effects)

    Raises
    ------
    BadArgument
        no term of that name
    """
    model = _mixed(objective)
    wanted = term.replace(" ", "")
    one = _effect(model, wanted) if isinstance(model, Mixed) else None
    if one is not None:
        return _test_effect(objective, *one)
    own = isinstance(model, LatentModel)
    mine = [
        r
        for r in model.random
        if wanted in (r.text.replace(" ", ""), r.label, f"({r.label})", _curve_label(model, r))
        or f"({wanted})" == r.text.replace(" ", "")
        or (own and wanted == r.parameter)
    ]
    if not mine:
        known = ", ".join(dict.fromkeys(r.text for r in model.random))
        raise BadArgument(f"no random or smooth term is called {term!r}. Terms: {known}.")
    top = objective.value()
    value = _without(objective, mine)
    _refuse_local(mine[0].text, value, top)
    statistic = max(2 * (top - value), 0.0)
    weights, bound = mixture(mine)
    return VarianceTest(mine[0].text, statistic, weights, beyond(statistic, weights), bound=bound)


def mixture(gone: Sequence[Random]) -> tuple[dict[int, float], bool]:
    """The mixture of χ², degrees of freedom → weight, to which 2(ℓ₁ − ℓ₀) is referred where these terms' variances are 0, and
    whether p is an upper bound only."""
    variances = sum(len(r.structure.scale_places()) for r in gone)
    weights, bound = chi_bar(variances, sum(r.structure.size for r in gone) - variances)
    plain = (Diagonal, Unstructured, Penalised, OfCurve, RandomWalk)
    correlated = any(not isinstance(r.structure, plain) for r in gone)
    return weights, correlated or bound


def chi_bar(variances: int, covariances: int) -> tuple[dict[int, float], bool]:
    """The mixture where so many variances are 0 and with them so many covariances; of several of both its weights are not
    known, and p is an upper bound (Self and Liang 1987; Stram and Lee 1994)."""
    if variances == 0:
        return {covariances: 1.0}, False
    if variances == 1:
        return {covariances: 0.5, covariances + 1: 0.5}, False
    if covariances == 0:
        return {k: math.comb(variances, k) * 0.5**variances for k in range(variances + 1)}, False
    return {variances + covariances - 1: 0.5, variances + covariances: 0.5}, True


def _curve_label(model: RandomEffects, r: Random) -> str | None:
    """Of a curve of each group "s(x,g)", as `fit.smooths` has it."""
    return str(model.encoder.smooths[r.curve].label) if isinstance(model, Mixed) and r.each else None


def _effects(r: Random) -> tuple[str, ...]:
    """What each scale of a term is of, where each has its own."""
    if isinstance(r.structure, OfCurve):
        return r.structure.parts
    return r.effects if isinstance(r.structure, (Diagonal, Unstructured)) and not r.smooth else ()


def _effect(model: Mixed, wanted: str) -> tuple[Random, int] | None:
    """The term and the number of an effect that is named as its standard deviation is."""
    wanted = wanted[3:-1] if wanted.startswith("sd(") and wanted.endswith(")") else wanted
    for r in model.random:
        effects = _effects(r)
        for i, effect in enumerate(effects if len(effects) > 1 else ()):
            if wanted == f"{effect}|{r.label}".replace(" ", ""):
                return r, i
    return None


def _test_effect(objective: Objective, r: Random, effect: int) -> VarianceTest:
    top, value = objective.value(), _without(objective, [r], effect)
    name = f"{_effects(r)[effect]} | {r.label}"
    _refuse_local(name, value, top)
    statistic = max(2 * (top - value), 0.0)
    k = len(r.effects) - 1 if isinstance(r.structure, Unstructured) else 0
    weights = {k: 0.5, k + 1: 0.5}
    return VarianceTest(name, statistic, weights, beyond(statistic, weights))


def beyond(statistic: float, weights: dict[int, float]) -> float:
    """P(Σ w χ²_k ≥ statistic)."""
    return sum(
        w * (float(chi2.sf(statistic, k)) if k else float(statistic < 1e-9)) for k, w in weights.items()
    )


def _refuse_local(text: str, value: float, top: float) -> None:
    if value > top + 1e-6:
        raise BadArgument(
            f"the fit without {text} has a higher likelihood, by {value - top:.3g} nats: the fit stands at a local maximum, and "
            "the ratio of the two is not a test."
        )


def _maximum(objective: Objective) -> float:
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
    model = _mixed(objective)
    theta = objective.theta.clone()
    theta[len(model.coefficients) :] = 0.0
    if not model.normal:
        raise BadArgument(
            "a restricted fit of another family than the normal is compared with one that keeps a random term."
        )
    place = _scale(model)
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


def r_squared(objective: Objective) -> pd.Series:
    """Marginal and conditional R² of Nakagawa and Schielzeth, and the intraclass correlation.

        marginal = Var_f / (Var_f + Var_r + Var_e),   conditional = (Var_f + Var_r) / (…),   icc = Var_r / (Var_r + Var_e)

    The share of each grouping factor, "icc(g)", is that of its own terms' variance in the denominator of icc.

    Var_f of the fixed part's linear predictor over the rows, Var_r the mean over the rows of zᵀΣz, Var_e the residual
    variance of a normal response, π²/3 of a logit link, 1 of a probit one, log(1 + 1/μ̄) of a Poisson with log link.

    Raises
    ------
    BadArgument
        no residual variance is known for the family

    Source: Nakagawa, Johnson and Schielzeth (2017); Johnson (2014), for random slopes.
    """
    from ..models.mixed import effect_columns

    model = _mixed(objective)
    if not isinstance(model, Mixed):
        raise BadArgument(
            "R² and the intraclass correlation are of a linear predictor, and a likelihood of one's own has none."
        )
    batch = next(iter(objective.terms[0].source.batches(model)))
    theta = objective.theta
    p = len(model.coefficients)
    eta = model.regression.eta(batch, theta[:p])[0].expand(len(batch))
    fixed, sigma = float(eta.var()), float(model.sigma(theta[:p]))
    shares: dict[str, float] = {}
    for r, at in zip(model.random, model.places, strict=True):
        if r.parameter != model.regression.predictors[0].parameter or r.smooth:
            continue
        z = effect_columns(model, r, batch)
        lam = sigma * r.structure.factor(theta[p:][at]).numpy()
        shares[r.label] = shares.get(r.label, 0.0) + float(((lam.T @ z) ** 2).sum(0).mean())
    random = sum(shares.values())
    residual = _residual_variance(model, sigma, eta, random)
    total = fixed + random + residual
    return pd.Series(
        {
            "marginal": fixed / total,
            "conditional": (fixed + random) / total,
            "icc": random / (random + residual),
            **{f"icc({label})": own / (random + residual) for label, own in shares.items()},
        },
        name="R²",
    )


def _residual_variance(model: Mixed, sigma: float, eta: Tensor, random: float) -> float:
    family, link = type(model.family).__name__, str(next(iter(model.family.parameters.values())).link)
    if model.normal:
        return sigma**2
    if family in ("Bernoulli", "Binomial") and link in ("logit", "probit"):
        return math.pi**2 / 3 if link == "logit" else 1.0
    if family == "Poisson" and link == "log":
        return math.log1p(1 / float(torch.exp(eta.mean() + 0.5 * random)))
    raise BadArgument(
        f"R² and the intraclass correlation need a residual variance on the link's scale, which is not known for {model.family} "
        f"with link {link}. Known: normal; Bernoulli and binomial with logit or probit; Poisson with log."
    )
