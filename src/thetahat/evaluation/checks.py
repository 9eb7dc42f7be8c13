"""Whether the data look like data of the model: tests of its residuals, against data drawn from it.

    uniformity     Kolmogorov and Smirnov's distance of u_i = F(y_i) from the uniform distribution (spread evenly over a mass)
    dispersion     Σ (y − μ̂)²/Var[y] over n − p
    excess_zeros   rows with y = 0, less Σ P(y = 0)
    outliers       max |r_i|, r_i = Φ⁻¹(u_i) the quantile residual (in the middle of a mass)
    hosmer_lemeshow  of a binary response: Σ (O − E)²/(E(1 − E/m)) over ten groups of equal numbers of rows by predicted probability

An estimate fits its own data better than the truth would, so that the textbook distributions of these statistics (with θ known)
are wrong, mostly towards large p-values. So each is compared with what it is in data y* drawn from the fit, of which θ is
estimated too, by one step of Newton's method from θ̂,

    θ* = θ̂ + J⁻¹ ∂ℓ*(θ̂),

which differs from the whole maximum by terms of order 1/n. Of a mixed model each draw has new random effects, and residuals are
given the modes. p = (1 + #{T* ≥ T}) / (1 + draws), or twice the smaller side of it.

References
----------
Hartig (2024), DHARMa: Residual Diagnostics for Hierarchical Regression Models; Dunn and Smyth (1996), Randomized quantile
residuals; Czado, Gneiting and Held (2009), Predictive model assessment for count data;
Stute, Gonzáles Manteiga and Presedo Quindimil (1993), Bootstrap based goodness-of-fit tests; Hosmer and Lemeshow (1980).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch, concatenate
from ..errors import BadArgument
from ..families.bernoulli import Bernoulli
from ..families.censored import Censored
from ..families.cox import Cox
from ..inference.bootstrap import drawn_anew
from ..inference.bread import bread
from ..inference.terms import regression_of
from ..inference.tests import check_maximum
from ..likelihood import Objective
from ..models.base import family_of
from ..models.mixed import Mixed
from ..notebook import Printed
from ..printable import encoded
from ..protocols import Categories, Together, Working
from ..threads import one_thread
from ..types import ModelLike
from . import residuals
from .fitted_values import extras_of, mean_of, parameters_of, response_of
from .known_groups import by_rows

GROUPS = 10  # of Hosmer and Lemeshow
WIDTH = 80  # of the lines that are printed
LARGE = {"uniformity", "outliers", "hosmer_lemeshow"}  # of which only large values speak against the model
NARROW = 1e-10  # a mass below which y counts as having a density
STEPS = 1e-9  # by which two statistics are the same, up to rounding


@dataclass(frozen=True)
class Checks(Printed):
    """Tests of a fit's residuals. Prints itself.

    Parameters
    ----------
    table
        a row a test: observed, expected (the mean of the draws), p_value
    draws
        data sets that were drawn
    rows
        n
    note
        what has to be said besides

    Examples
    --------
    >>> print(Checks(pd.DataFrame({"observed": [0.1], "expected": [0.09], "p_value": [0.35]}, index=["uniformity"]), 199, 50))
    50 rows against 199 data sets drawn from the fit, θ estimated anew for each
    (p-values are multiples of 0.005)
                observed  expected p_value
    uniformity     0.100     0.090  0.3500
    """

    table: pd.DataFrame
    draws: int
    rows: int
    note: str = ""

    @encoded
    def __str__(self) -> str:
        shown = self.table.assign(p_value=[f"{p:.4f}" for p in self.table["p_value"]])
        head = (
            f"{self.rows} rows against {self.draws} data sets drawn from the fit, θ estimated anew for each (p-values are "
            f"multiples of {1 / (self.draws + 1):.3g})"
        )
        head = textwrap.fill(head, WIDTH)
        text = f"{head}\n{shown.to_string(float_format=lambda v: f'{v:.3f}')}"
        return f"{text}\n{textwrap.fill(self.note, WIDTH)}" if self.note else text

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        note = {"note": self.note} if self.note else {}
        return {"draws": self.draws, "rows": self.rows, "tests": self.table.to_dict("index")} | note


def _instead(model: ModelLike) -> str:
    """How a model whose rows are not drawn is looked at."""
    if isinstance(family_of(model), Cox):
        return "Of Cox's model: fit.proportional_hazards(), fit.plot('residuals'), fit.residuals('martingale'), fit.concordance()."
    return "Of another model: fit.plot('residuals') and fit.residuals() where it returns a distribution, fit.score(data) of new rows."


def check(objective: Objective, theta: Tensor, draws: int = 199, seed: int = 0) -> Checks:
    """Tests of quantile residuals, dispersion, zeros and outliers; Hosmer and Lemeshow's of a binary response.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    draws
        data sets drawn from the fit
    seed
        of the draws

    Returns
    -------
    Checks
        without the tests that the family has not: uniformity and outliers need a cdf, excess zeros a mass at 0 and more values than
        two, dispersion a variance that no further parameter fits to the residuals

    Raises
    ------
    BadArgument
        not a formula's regression; a robust or weighted fit; a censored family, Cox's model

    Examples
    --------
    >>> import thetahat as th
    >>> ships = th.data.shipped("ships")
    >>> fit = th.fit("incidents ~ type + built + period + offset(log(service))", ships, "poisson")
    >>> fit.check().table.index.tolist()
    ['uniformity', 'dispersion', 'excess_zeros', 'outliers']
    """
    model = objective.model
    regression = regression_of(objective)
    if regression is None or isinstance(regression.family, Together):
        raise BadArgument(f"check draws the rows of a regression from a formula. {_instead(model)}")
    if isinstance(regression.family, Censored):
        raise BadArgument(
            "a censored family does not say when a row is censored, so no data can be drawn from it. Its residuals: "
            "fit.residuals()."
        )
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 19:
        raise BadArgument(
            f"draws={draws!r}: a whole number of at least 19, of which the least p-value is 0.05."
        )
    check_maximum(objective, "check", " Its rows: fit.outliers(), fit.plot('residuals').")
    objective = objective.at(theta)
    observed, starred = _statistics(objective), []
    if not observed:
        raise BadArgument(
            f"{family_of(model)} has neither a cdf nor a variance: none of the tests is defined for it."
        )
    with one_thread():
        factor = bread(objective)
        for d in range(draws):
            rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(d,)))
            new = drawn_anew(objective, rng)
            step = factor.solve(new.taylor(theta, order=1).gradient.to(torch.float64))
            starred.append(_statistics(new.at(theta + step)))
    drawn = pd.DataFrame(starred)
    rows = {
        name: {
            "observed": value,
            "expected": float(drawn[name].mean()),
            "p_value": _p(name, value, drawn[name].to_numpy()),
        }
        for name, value in observed.items()
    }
    family = regression.family
    note = family.working if isinstance(family, Working) else ""
    return Checks(pd.DataFrame(rows).T, draws, round(objective.observations), note)


def _p(name: str, value: float, drawn: np.ndarray) -> float:
    """How probable a statistic so far out is; ties count against it."""
    near = STEPS * (1 + abs(value))
    above = (1 + int((drawn >= value - near).sum())) / (1 + len(drawn))
    below = (1 + int((drawn <= value + near).sum())) / (1 + len(drawn))
    return above if name in LARGE else min(1.0, 2 * min(above, below))


def _rows(objective: Objective) -> Batch:
    """Every observation as a row of its own."""
    whole: Batch = concatenate(list(objective.terms[0].source.batches(objective.model)))
    if not whole.counted:
        return whole
    count = whole.count.round()
    if not bool((count == whole.count).all()):
        raise BadArgument(
            "check draws y for each observation, and some frequency weights are not whole numbers."
        )
    out: Batch = whole[torch.arange(len(whole)).repeat_interleave(count.long())]
    return out


# ---- the statistics ----------------------------------------------------------------------------------------


def _statistics(objective: Objective) -> Mapping[str, float]:
    """Of a mixed model, given the modes of its random effects: those of the data, and of each draw its own."""
    mixed, rows = isinstance(objective.model, Mixed), _rows(objective)
    p = sum(q.size for q in objective.model.regression.predictors) if mixed else objective.size
    model = by_rows(objective)[0].model if mixed else objective.model
    family = model.family
    y, theta, extras = response_of(model, rows), parameters_of(model, rows), extras_of(model, rows)
    out: dict[str, float] = {}
    middle = torch.full_like(y, 0.5)
    if family.has("cdf"):
        with torch.no_grad():
            below, mass, _ = (t.exp().numpy() for t in residuals.tails(family, y, theta, extras))
        out["uniformity"] = uniformity(below, mass)
    if (
        family.has("variance")
        and family.has("expectation")
        and len(family.parameters) - len(model.fixed) == 1
        and not _binary(family, extras)
    ):
        squares = (y - mean_of(model, rows)) ** 2 / family.variance(*theta, **extras)
        out["dispersion"] = float(squares.sum()) / max(len(y) - p, 1)
    counts = (
        family.measure == "mass" and not isinstance(family, Categories) and float(family.support.low) == 0
    )
    if counts and not _binary(family, extras):
        out["excess_zeros"] = float(
            (y == 0).sum() - family.log_prob(torch.zeros_like(y), *theta, **extras).exp().sum()
        )
    if family.has("cdf"):
        out["outliers"] = float(np.abs(residuals.quantile(family, y, middle, theta, extras)).max())
    if isinstance(family, Bernoulli):
        out["hosmer_lemeshow"] = hosmer_lemeshow(y.numpy(), mean_of(model, rows).numpy())
    return out


def _binary(family: object, extras: Mapping[str, Tensor]) -> bool:
    """Whether y is 0 or 1, of which the mean says the variance and the zeros: neither can be off."""
    return isinstance(family, Bernoulli) or ("trials" in extras and bool((extras["trials"] == 1).all()))


def uniformity(below: np.ndarray, mass: np.ndarray) -> float:
    """sup_t |G(t) − t|, G(t) the mean of P(u_i ≤ t), u_i uniform between F(y−) and F(y−) + p(y).

    Kolmogorov and Smirnov's distance where no y has a mass; elsewhere G is piecewise linear (Czado, Gneiting and Held 2009),
    and no random number is needed.

    Examples
    --------
    >>> uniformity(np.array([0.25, 0.75]), np.zeros(2)), uniformity(np.array([0.0, 0.5]), np.array([0.5, 0.5]))
    (0.25, 0.0)
    """
    n, wide = len(below), mass > NARROW
    slope = 1 / (n * mass[wide])
    at = np.concatenate([below[wide], (below + mass)[wide], below[~wide]])
    bend = np.concatenate([slope, -slope, np.zeros(n - wide.sum())])
    jump = np.concatenate([np.zeros(2 * wide.sum()), np.full(n - wide.sum(), 1 / n)])
    order = np.argsort(at, kind="stable")
    at, bend, jump = at[order], bend[order], jump[order]
    slopes = np.concatenate([[0.0], np.cumsum(bend)[:-1]])  # before each point
    steps = np.diff(at, prepend=0.0)
    after = np.cumsum(slopes * steps + jump)
    return float(max(np.abs(after - at).max(), np.abs(after - jump - at).max()))


def hosmer_lemeshow(y: np.ndarray, probability: np.ndarray, groups: int = GROUPS) -> float:
    """Hosmer and Lemeshow's statistic, of groups of equal numbers of rows by predicted probability (equal ones together).

    With known groups it is about χ² of groups − 2 degrees of freedom.

    Examples
    --------
    >>> hosmer_lemeshow(np.array([0.0, 1.0]), np.array([0.5, 0.5]))
    0.0
    """
    cuts = np.unique(np.quantile(probability, np.linspace(0, 1, groups + 1)[1:-1]))
    group = np.searchsorted(cuts, probability, side="left")
    m, seen, wanted = (np.bincount(group, w) for w in (np.ones(len(y)), y, probability))
    variance = wanted * (1 - wanted / np.maximum(m, 1))
    return float(np.sum((seen - wanted)[variance > 0] ** 2 / variance[variance > 0]))
