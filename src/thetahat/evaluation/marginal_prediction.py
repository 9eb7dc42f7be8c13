"""Predictions for a group that a mixed model has not seen: its random effects are integrated out.

    m(x) = E[y | x] = ∫ μ(η̂ + s v) φ(v) dv,      s² = zᵀ Σ̂ z,  the variance of the row's random effects

of each of the family's parameters that has random effects. μ at random effects of 0 is the mean of the average group; m is the mean
over groups, which of a curved link is another number: exp(η + s²/2) of a log link.

    confidence   m(θ̂) ± q·√(∇m V ∇mᵀ), θ = (β, φ), on the scale of log m or logit m where m is bounded
    prediction   of a new y of a new group. A normal response has x β̂ ± t·√(xᵀVx + s² + σ̂²), t with Satterthwaite's degrees of
                 freedom of that variance; any other quantiles of draws θ ~ N(θ̂, V), v ~ N(0, 1), y ~ p(· | η_θ + s_θ v)

A smooth term stands at its coefficients' modes, whose doubt is in V, and φ is then taken as known. The integral is a sum over
even nodes (the trapezoidal rule), whose error falls exponentially for a density as smooth as the normal.

References
----------
Diggle, Heagerty, Liang and Zeger (2002), Analysis of Longitudinal Data, 2nd ed., §7.4; Trefethen and Weideman (2014), The
exponentially convergent trapezoidal rule; Satterthwaite (1946).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source
from ..distributions import student
from ..errors import BadArgument, ThetahatError
from ..families.base import Family
from ..inference.covariance import Covariance, prepare
from ..inference.natural import own_places
from ..likelihood import Objective
from ..models.mixed import Mixed, effect_columns
from ..models.random_effects import Random
from ..protocols import Categories
from .fitted_values import extras_of, levels_of
from .known_groups import Known
from .predict import CELLS, DRAWS, _cut, _quantile, quantiles_of_draws

KINDS = ("confidence", "prediction")
REACH = 8.5  # of v: beyond it the normal density is less than rounding
STEP = 0.5  # of v, where s is 1 or less


def predict_new(
    objective: Objective,
    known: Known,
    V: Covariance | None,
    rows: Batch | Source,
    what: str = "mean",
    *,
    level: float | None = None,
    kind: str = "confidence",
    seed: int = 0,
) -> np.ndarray | pd.DataFrame:
    """What a mixed fit says of rows whose group it has not seen.

    Parameters
    ----------
    objective
        at θ̂
    known
        the model at random effects of 0, smooth terms at their modes
    V
        of (β, φ), or with smooth terms of (β, b); None: no interval is asked for
    rows
        new rows, or a source
    what
        "mean", or "probabilities" of a response that is a category
    level, kind, seed
        as of `predict.predict`

    Returns
    -------
    np.ndarray | pd.DataFrame
        (n,) values; with a level a data frame with columns value, low, high; for "probabilities" a data frame with a column a
        category

    Raises
    ------
    BadArgument
        another `what` or `kind`, or a family without a mean
    """
    if kind not in KINDS:
        raise BadArgument(f"predict(kind={kind!r}, groups='new'). Accepted: {', '.join(map(repr, KINDS))}.")
    if level is not None and not 0 < level < 1:
        raise BadArgument(f"level={level!r}. Accepted: a number between 0 and 1, such as 0.95.")
    mixed = objective.model
    assert isinstance(mixed, Mixed)
    new = NewGroup(objective, mixed, known)
    if what == "probabilities":
        if level is not None:
            raise BadArgument(
                "predict(what='probabilities', groups='new') has no intervals yet. Leave level out."
            )
        return new.probabilities(rows)
    if what != "mean":
        raise BadArgument(
            f"predict(what={what!r}, groups='new'): random effects are integrated out of a mean. Accepted: 'mean', 'probabilities'; "
            "groups='average' leaves them out of anything else."
        )
    if not mixed.family.has("expectation"):
        raise BadArgument(f"{mixed.family} has no mean. Accepted with groups='new': 'probabilities'.")
    if level is None:
        return np.concatenate([new.means(batch).numpy() for batch in _cut(rows, known, 1)])
    assert V is not None
    if kind == "confidence":
        return new.intervals(rows, level, V)
    return new.of_normal(rows, level, V) if mixed.normal else new.drawn(rows, level, V, seed)


@dataclass(frozen=True)
class NewGroup:
    """A mixed fit, of rows of a group of its own.

    Parameters
    ----------
    objective, mixed
        at θ̂
    known
        the linear predictors at random effects of 0
    """

    objective: Objective
    mixed: Mixed
    known: Known

    @property
    def family(self) -> Family:
        return self.mixed.family

    @property
    def phi(self) -> Tensor:
        return self.mixed.covariance.detach()

    def terms(self) -> Iterator[tuple[Random, slice, int]]:
        """Each term of random effects, its place in φ, and the number of the family's parameter in which it stands."""
        names = list(self.family.parameters)
        for r, at in zip(self.mixed.random, self.mixed.places, strict=True):
            if not r.smooth:
                yield r, at, names.index(r.parameter)

    # ---- the random effects of a row ---------------------------------------------------------------------

    def deviations(self, columns: dict[int, Tensor], phi: Tensor, sigma: Tensor) -> dict[int, Tensor]:
        """s of each parameter that has random effects, (n,): s² = σ² Σ_t |Λ_tᵀ z|²."""
        squares: dict[int, Tensor] = {}
        for i, (r, at, j) in enumerate(self.terms()):
            own = ((columns[i] @ r.structure.factor(phi[at])) ** 2).sum(1) * sigma**2
            squares[j] = squares[j] + own if j in squares else own
        return {j: v.sqrt() for j, v in squares.items()}

    def columns(self, batch: Batch) -> dict[int, Tensor]:
        """z of each term, (n, q)."""
        return {
            i: torch.from_numpy(effect_columns(self.mixed, r, batch)).T
            for i, (r, _, _) in enumerate(self.terms())
        }

    def at_theta(self, batch: Batch) -> tuple[list[Tensor], dict[int, Tensor]]:
        """η at random effects of 0, (n,) each, and s."""
        eta = [e.detach().expand(len(batch)) for e in self.known.eta(batch)]
        sigma = self.mixed.sigma(self.mixed.coefficients.detach())
        return eta, self.deviations(self.columns(batch), self.phi, sigma)

    # ---- the mean ----------------------------------------------------------------------------------------

    def integral(
        self, of: Callable[..., Tensor], eta: list[Tensor], s: dict[int, Tensor], extras: dict[str, Tensor]
    ) -> Tensor:
        """∫ f(θ₁(η₁ + s₁v₁), …) φ(v) dv, (n,) or (n, k): a block of rows at a time, so that rows × nodes fit."""
        n = len(eta[0])
        v, weight = nodes(len(s), max([1.0, *(float(x.detach().max()) for x in s.values() if n)]))
        parts, step = [], max(1, CELLS // len(weight))
        for at in range(0, max(n, 1), step):
            rows = slice(at, at + step)
            spread = [e[rows, None].expand(-1, len(weight)) for e in eta]
            for axis, (j, own) in enumerate(s.items()):
                spread[j] = spread[j] + own[rows, None] * v[:, axis]
            flat = [e.reshape(-1) for e in spread]
            own_extras = {k: x[rows].repeat_interleave(len(weight)) for k, x in extras.items()}
            found = of(*self.family.natural(flat), **own_extras)
            found = found.reshape(-1, len(weight), *found.shape[1:])
            parts.append(torch.tensordot(found, weight, ([1], [0])))
        return torch.cat(parts)

    def means(self, batch: Batch) -> Tensor:
        """m, (n,)."""
        with torch.no_grad():
            if self.mixed.normal:
                return self.at_theta(batch)[0][0]
            return self.integral(self.family.expectation, *self.at_theta(batch), self.extras(batch))

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return {name: e.expand(len(batch)) for name, e in extras_of(self.known, batch).items()}

    def probabilities(self, rows: Batch | Source) -> pd.DataFrame:
        """Of each category, a column each."""
        family = self.family
        if isinstance(family, Categories):
            of: Callable[..., Tensor] = family.probabilities
        elif family.support.binary:
            of = lambda mean, **_: torch.stack([1 - mean, mean], -1)  # noqa: E731
        else:
            raise BadArgument(
                f"{family} has no probabilities of categories. Accepted with groups='new': 'mean'."
            )
        with torch.no_grad():
            found = torch.cat(
                [self.integral(of, *self.at_theta(batch), {}) for batch in _cut(rows, self.known, 1)]
            )
        return pd.DataFrame(found.numpy(), columns=list(levels_of(self.known) or range(found.shape[-1])))

    # ---- intervals ---------------------------------------------------------------------------------------

    def intervals(self, rows: Batch | Source, level: float, V: Covariance) -> pd.DataFrame:
        """Of m, by the delta method."""
        parts = []
        for batch in _cut(rows, self.known, V.size):
            t, G, back = self.linearised(batch)
            half = _quantile(V, G, level) * V.diagonal(G).sqrt()
            parts.append(torch.stack([back(t), back(t - half), back(t + half)], 1))
        return pd.DataFrame(torch.cat(parts).numpy(), columns=["value", "low", "high"])

    def linearised(self, batch: Batch) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """m on a scale on which its estimate is nearly normal, the slopes (n, p), and the way back."""
        extras = self.extras(batch)
        eta, s = self.at_theta(batch)
        if (
            self.mixed.normal
        ):  # m = η: exact, so that V's degrees of freedom are those of a function of β alone
            one = torch.ones(len(batch), dtype=torch.float64)
            return eta[0], self._gradient(batch, [one, 0 * one]), _same
        forward, back = _scale(self.family, extras)
        with torch.enable_grad():
            leaves = [e.clone().requires_grad_() for e in eta]
            own = {j: e.clone().requires_grad_() for j, e in s.items()}
            t = forward(self.integral(self.family.expectation, leaves, own, extras))
            found = torch.autograd.grad(t.sum(), [*leaves, *own.values()], allow_unused=True)
        slopes = [torch.zeros(len(batch), dtype=torch.float64) if g is None else g for g in found]
        of_eta = [
            g for g, name in zip(slopes, self.family.parameters, strict=False) if name not in self.mixed.fixed
        ]
        G = self._gradient(batch, of_eta)
        if not self.smooth:
            own_phi = own_places(self.objective)[len(self.mixed.coefficients) :]
            for j, g in zip(own, slopes[len(leaves) :], strict=True):
                G[:, own_phi] += g[:, None] * self.moved(batch, j, s[j])
        return t.detach(), G, back

    def _gradient(self, batch: Batch, slopes: list[Tensor]) -> Tensor:
        """∂f/∂θ of the coordinates of η, (n, p)."""
        if self.smooth:
            return self.known.gradient_rows(batch, slopes)
        G = torch.zeros(len(batch), self.objective.size, dtype=torch.float64)
        own = own_places(self.objective)[: len(self.mixed.coefficients)]
        G[:, own] = self.mixed.regression.gradient_rows(batch, slopes)
        return G

    @property
    def smooth(self) -> bool:
        return any(r.smooth for r in self.mixed.random)

    def moved(self, batch: Batch, parameter: int, s: Tensor) -> Tensor:
        """∂s/∂φ = σ² Σ_t (zᵀΛ)(zᵀ ∂Λ/∂φ)/s, (n, k); 0 where s is 0, which is a minimum of it."""
        out = torch.zeros(len(s), len(self.phi), dtype=torch.float64)
        sigma, z = self.mixed.sigma(self.mixed.coefficients.detach()), self.columns(batch)
        for i, (r, at, j) in enumerate(self.terms()):
            if j != parameter:
                continue
            pulled = z[i] @ r.structure.factor(self.phi[at])
            for a, slope in enumerate(r.structure.slopes(self.phi[at])):
                out[:, at.start + a] = sigma**2 * (pulled * (z[i] @ slope)).sum(1)
        return torch.where(s[:, None] > 0, out / torch.where(s > 0, s, 1.0)[:, None], 0.0)

    # ---- of a new y --------------------------------------------------------------------------------------

    def of_normal(self, rows: Batch | Source, level: float, V: Covariance) -> pd.DataFrame:
        """x β̂ ± t·√(xᵀVx + s² + σ̂²), t of 2T²/Var(T) degrees of freedom, T the sum of the three, V held."""
        J = self._observed()
        parts = []
        for batch in _cut(rows, self.known, V.size):
            eta, s = self.at_theta(batch)
            mean, sigma = self.family.natural(eta)
            spread = next(iter(s.values()), torch.zeros_like(mean))
            T = V.diagonal(self.linearised(batch)[1]) + spread**2 + sigma**2
            df = self._freedom(batch, J, T, spread, sigma)
            half = torch.from_numpy(student.ppf((1 + level) / 2, df.numpy())) * T.sqrt()
            parts.append(torch.stack([mean, mean - half, mean + half], 1))
        return pd.DataFrame(torch.cat(parts).numpy(), columns=["value", "low", "high"])

    def _observed(self) -> Covariance | None:
        """Of (β, φ, log σ); None where it is not known (a saved fit, a singular one): then t is the normal."""
        try:
            return prepare(self.objective, "observed")
        except ThetahatError:
            return None

    def _freedom(self, batch: Batch, J: Covariance | None, T: Tensor, s: Tensor, sigma: Tensor) -> Tensor:
        """2T²/Var(T) of each row, Var(T) = ∇T J⁻¹ ∇Tᵀ: T moves with φ and log σ by s² + σ²."""
        if J is None:
            return torch.full((len(T),), math.inf, dtype=torch.float64)
        G = torch.zeros(len(T), self.objective.size, dtype=torch.float64)
        places, p = own_places(self.objective), len(self.mixed.coefficients)
        scale = next(q for q in self.mixed.regression.predictors if q.parameter == "scale")
        eta = self.mixed.coefficients.detach()[scale.start].clone().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(scale.spec.link.inverse(eta), eta)
        G[:, places[scale.start]] = 2 * slope * (s**2 + sigma**2) / sigma  # s is relative to σ
        G[:, places[p:]] = 2 * s[:, None] * self.moved(batch, 0, s)
        return 2 * T**2 / J.diagonal(G).clamp(min=1e-300)

    def drawn(self, rows: Batch | Source, level: float, V: Covariance, seed: int) -> pd.DataFrame:
        """Quantiles of draws."""
        if not self.family.has("cdf"):
            raise BadArgument(
                f"{self.family} describes a y without an order: it has no interval. Take what='probabilities'."
            )
        q = torch.tensor([0.5, (1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(V.size, DRAWS, dtype=torch.float64, generator=generator)
        theta = (self.known.all.detach() if self.smooth else self.objective.theta)[:, None] + V.draws(z)
        parts = []
        for batch in _cut(rows, self.known, DRAWS):
            parameters = self._parameters(batch, theta.T, generator)
            centre = self.family.natural(self.at_theta(batch)[0])
            found = quantiles_of_draws(self.family, parameters, centre, self.extras(batch), q, generator)
            found[0] = self.means(batch)
            parts.append(found)
        value, low, high = torch.cat(parts, 1).numpy()
        return pd.DataFrame({"value": value, "low": low, "high": high})

    def _parameters(self, batch: Batch, theta: Tensor, generator: torch.Generator) -> list[Tensor]:
        """The family's parameters at each draw, k of (DRAWS, n)."""
        places, p, z = own_places(self.objective), len(self.mixed.coefficients), self.columns(batch)
        found: list[list[Tensor]] = []
        with torch.no_grad():
            for one in theta:
                beta, phi = (one, self.phi) if self.smooth else (one[places[:p]], one[places[p:]])
                source = self.known if self.smooth else self.mixed.regression
                eta = [e.expand(len(batch)) for e in source.eta(batch, beta)]
                for j, s in self.deviations(z, phi, self.mixed.sigma(beta)).items():
                    v = torch.randn(len(batch), dtype=torch.float64, generator=generator)
                    eta[j] = eta[j] + s * v
                found.append(self.family.natural(eta))
        return [torch.stack(each) for each in zip(*found, strict=True)]


def nodes(d: int, s: float) -> tuple[Tensor, Tensor]:
    """v (K, d) and weights (K,) of ∫ f(v) φ(v) dv: even steps, finer and farther for a large s.

    Examples
    --------
    >>> v, weight = nodes(1, 1.0)
    >>> round(float((torch.exp(v[:, 0]) * weight).sum()), 12)                    # e^½
    1.6487212707
    """
    if d == 0:
        return torch.zeros(1, 0, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    step = STEP / s
    count = math.ceil((REACH + s) / step)
    line = step * torch.arange(-count, count + 1, dtype=torch.float64)
    log_density = -0.5 * line**2
    grid = torch.cartesian_prod(*[line] * d).reshape(-1, d)
    weight = torch.cartesian_prod(*[log_density] * d).reshape(-1, d).sum(1).exp()
    return grid, weight / weight.sum()


def _same(t: Tensor) -> Tensor:
    return t


def _scale(
    family: Family, extras: dict[str, Tensor]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """log or logit of a mean that is bounded, and the way back."""
    low = float(family.support.low)
    high = extras["trials"] if "trials" in extras else torch.tensor(float(family.support.high))
    if not math.isfinite(low):
        return _same, _same
    if not bool(torch.isfinite(high).all()):
        return lambda m: torch.log(m - low), lambda t: low + torch.exp(t)
    return lambda m: torch.log(m - low) - torch.log(high - m), lambda t: low + (high - low) * torch.sigmoid(t)
