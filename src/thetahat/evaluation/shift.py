"""Two tables with the same columns: how much more probable each row is in one than in the other, and whether
they differ at all.

With labels t = 1 for new rows and 0 for reference rows, Bayes' theorem makes every classifier a density
ratio,

    log p_new(x)/p_ref(x) = log P(t = 1 | x)/P(t = 0 | x) − log n_new/n_ref

and the classifier is a logistic regression, fitted by maximum likelihood. Its ratio weighs reference rows as
the new population would have them (`weights.Importance`), and how well it does on rows that it has not seen
is a test of whether there are two populations.

References
----------
Qin (1998), Inferences for case-control and semiparametric two-sample density ratio models; Shimodaira (2000),
Improving predictive inference under covariate shift by weighting the log-likelihood function; Kong (1992), A
note on importance sampling using standardized weights (the effective size); Lopez-Paz and Oquab (2017),
Revisiting classifier two-sample tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.frame import Frame
from ..data.source import Tensors
from ..data.table import Table, new_rows
from ..errors import BadArgument, BadWeights, NoMaximum, NotConverged
from ..families import Bernoulli
from ..likelihood import LogLikelihood, LogPrior, Objective, priors
from ..likelihood.weights.importance import FEW
from ..models import Regression
from ..models.formulas import regression
from ..notebook import Printed
from ..printable import encoded
from ..solvers import Certificate, Newton, choose, iterate, optimise
from ..types import Data, Plain, Settings

STREAM = (
    0x2B1  # another stream than that of data drawn with the same seed, on which permutations must not depend
)


@dataclass(frozen=True)
class DensityRatio(Printed):
    """p_new(x)/p_ref(x), by logistic regression of which table a row is from.

    Parameters
    ----------
    model, certificate
        the regression, at its maximum
    predictors
        its right-hand side
    weights
        (n_ref,) the ratio at each reference row, divided by their mean
    log_mean
        the log of that mean, nats: 0 but for error, since E_ref[p_new/p_ref] = 1
    n_new
        how many new rows there were
    """

    model: Regression = field(repr=False)
    certificate: Certificate = field(repr=False)
    predictors: str
    weights: np.ndarray = field(repr=False)
    log_mean: float
    n_new: int

    @property
    def n_eff(self) -> float:
        """(Σ w)² / Σ w²: a mean of so many rows without weights has about the error of the weighted mean."""
        return float(self.weights.sum() ** 2 / np.square(self.weights).sum())

    @property
    def coefficients(self) -> dict[str, float]:
        """Those of log p_new/p_ref in x, by name."""
        theta = self.model.coefficients.detach().clone()
        theta[0] -= math.log(self.n_new / len(self.weights))
        return dict(zip(self.model.names, theta.tolist(), strict=True))

    def log_ratio(self, data: Data) -> np.ndarray:
        """log p_new(x)/p_ref(x) of each row of a table, nats."""
        with torch.no_grad():
            rows = new_rows(self.model.encoder, data)
            eta = self.model.eta(rows)[0].expand(len(rows))
        return eta.numpy() - math.log(self.n_new / len(self.weights))

    def weigh(self, data: Data) -> np.ndarray:
        """The ratio of each row, divided by its mean over the reference: what `weights.Importance` weighs
        by."""
        return np.exp(self.log_ratio(data) - self.log_mean)

    def mean(self, values: Plain) -> tuple[float, float]:
        """Σ w v / Σ w and its standard error: what the mean of a quantity of the reference rows would be
        among the new ones.

        Parameters
        ----------
        values
            (n_ref,), such as `fit.score(reference).per_observation`. The weights are taken as known.
        """
        v = np.asarray(values, dtype=np.float64)
        if v.shape != self.weights.shape:
            raise BadArgument(
                f"the reference has {len(self.weights)} rows, and the values the shape {v.shape}: one a row."
            )
        share = self.weights / self.weights.sum()
        centre = float(share @ v)
        return centre, float(np.sqrt(np.square(share * (v - centre)).sum()))

    @encoded
    def __str__(self) -> str:
        n = len(self.weights)
        return (
            f"p_new/p_ref by logistic regression on {self.predictors}, {n} reference and {self.n_new} new "
            "rows\n"
            f"the reference rows weigh like {self.n_eff:.1f} of them ({self.n_eff / n:.0%}); the heaviest "
            f"like {self.weights.max():.3g}"
        )

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return {
            "predictors": self.predictors,
            "reference": len(self.weights),
            "new": self.n_new,
            "effective": self.n_eff,
            "largest": float(self.weights.max()),
            "log_mean": self.log_mean,
            "coefficients": self.coefficients,
            "certificate": self.certificate.status,
        }


def density_ratio(
    reference: Data, new: Data, predictors: str | None = None, *, prior: priors.Prior | None = None
) -> DensityRatio:
    """p_new(x)/p_ref(x) as a function of columns, by maximum likelihood.

    Parameters
    ----------
    reference, new
        tables (whatever `th.fit` reads), complete in the columns that are read
    predictors
        the right-hand side of a formula, "age + bmi + I(bmi**2)"; None: every column that both tables have.
        To weigh a regression of y on x it must be of x alone: y may depend on x otherwise in the new rows,
        and that is no covariate shift
    prior
        on the coefficients: shrinks the ratio towards 1

    Returns
    -------
    DensityRatio

    Raises
    ------
    NoMaximum
        a combination of columns tells all new rows from all reference rows: nothing is left to be weighed
    BadWeights
        the reference rows weigh like fewer than max(10, 2(p + 1)) of them, p the regression's coefficients:
        too few to carry the very regression that weighed them, or any other

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> ratio = density_ratio({"x": rng.normal(size=500)}, {"x": rng.normal(0.5, 1.0, 500)})  # log ratio 0.5 x − 0.125
    >>> print(ratio)
    p_new/p_ref by logistic regression on x, 500 reference and 500 new rows
    the reference rows weigh like ... of them (...%); the heaviest like ...
    """
    model, table, n_ref, n_new, predictors = _labelled(reference, new, predictors)
    objective = Objective([LogLikelihood(model, table)], [] if prior is None else [LogPrior(prior, model)])
    objective, certificate, _ = optimise(objective, choose(objective))
    if not certificate.ok:
        kind = NoMaximum if certificate.status == "no maximum" else NotConverged
        why = certificate.detail or str(certificate)
        raise kind(
            f"the new rows are too easily distinguished from the reference rows for a density ratio: {why}",
            certificate,
        )
    model = objective.model
    with torch.no_grad():
        eta = torch.cat([model.eta(b)[0].expand(len(b)) for b in table.batches()]).numpy()[:n_ref]
    log_ratio = eta - math.log(n_new / n_ref)
    log_mean = float(np.logaddexp.reduce(log_ratio) - math.log(n_ref))
    found = DensityRatio(model, certificate, predictors, np.exp(log_ratio - log_mean), log_mean, n_new)
    least = max(FEW, 2 * (objective.size + 1))
    if found.n_eff < least:
        raise BadWeights(
            f"the {n_ref} reference rows weigh like {found.n_eff:.1f} of them, and {least} are wanted: the "
            "new rows lie where the reference hardly "
            "has any. Gather reference rows there, leave out predictors, or put a prior on the ratio "
            "(prior=th.priors.Normal(1))."
        )
    return found


def _labelled(reference: Data, new: Data, predictors: str | None) -> tuple[Regression, Table, int, int, str]:
    """The regression of which table a row is from, over both, reference rows first; how many of each; its
    right-hand side."""
    frames = Frame(reference), Frame(new)
    shared = [c for c in frames[0].columns if c in frames[1].columns]
    if predictors is None:
        if not shared:
            raise BadArgument(
                f"the tables share no column. They have: {', '.join(frames[0].columns)}; "
                f"{', '.join(frames[1].columns)}."
            )
        predictors = " + ".join(c if c.isidentifier() else f"`{c}`" for c in shared)
    label = "is_new"
    while label in shared:
        label += "_"
    parts = [frame.read(frame.columns)[shared].assign(**{label: float(t)}) for t, frame in enumerate(frames)]
    model, table = regression(
        f"{label} ~ {predictors}", pd.concat(parts, ignore_index=True), Bernoulli(), missing="raise"
    )
    if not model.predictors[0].design.intercept:
        raise BadArgument(
            f"{predictors!r} leaves the intercept out, which takes up how many rows of either table there "
            "are. Leave it in."
        )
    return model, table, len(parts[0]), len(parts[1]), predictors


# ---- are they two populations? -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoSample(Printed):
    """Whether a classifier can tell new rows from reference rows.

    Parameters
    ----------
    gain
        nats a row by which its held-out log-likelihood is above that of the labels' shares: at least so much
        is in the columns about the table, on average (their mutual information is the largest gain there can
        be)
    accuracy
        the share of held-out rows whose table it names, each table weighing one half
    p_value
        of "both are of one population": (1 + permutations of the labels that can be told as well) / (1 +
        permutations)
    reference, new
        how many rows
    """

    gain: float
    accuracy: float
    p_value: float
    permutations: int
    predictors: str
    reference: int
    new: int

    @encoded
    def __str__(self) -> str:
        gain = f"{self.gain:.4f}".replace("-", "−")
        return (
            f"{self.reference} reference and {self.new} new rows, by logistic regression on "
            f"{self.predictors}\n"
            f"held out: {gain} nats a row above guessing, {self.accuracy:.1%} right of one half each; p = "
            f"{self.p_value:.3g} "
            f"({self.permutations} permutations)"
        )

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        return dict(vars(self))


def two_sample(
    reference: Data,
    new: Data,
    predictors: str | None = None,
    *,
    folds: int = 5,
    permutations: int = 199,
    seed: int = 0,
) -> TwoSample:
    """The classifier two-sample test: how well labels can be told, on held-out rows; and whether permuted
    labels can be told as well.

    The test is of the maximum of the labels' log-likelihood over all rows (with a Normal(2.5) prior on the
    coefficients of standardised columns, so that there is one where tables are told apart completely), among
    its values for permuted labels. Under the null hypothesis labels are exchangeable, so that P(p ≤ α) ≤ α in
    any finite sample, overfitted or not; a permutation test of the held-out gain would be as exact, and spend
    rows on not overfitting.

    Parameters
    ----------
    reference, new, predictors
        as of `density_ratio`
    folds
        of the gain and the accuracy: each row is asked about once, by a regression fitted to the other folds
    permutations
        199: p is a multiple of 1/200

    References
    ----------
    Lopez-Paz and Oquab (2017), Revisiting classifier two-sample tests; Phipson and Smyth (2010), Permutation
    p-values should never be zero.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> print(two_sample({"x": rng.normal(size=60)}, {"x": rng.normal(1.0, 1.0, 60)}, permutations=39))
    60 reference and 60 new rows, by logistic regression on x
    held out: 0.113... nats a row above guessing, 70.0% right of one half each; p = 0.025 (39 permutations)
    """
    if folds < 2 or permutations < 1:
        raise BadArgument(
            f"folds={folds}, permutations={permutations}. Accepted: 2 folds or more, 1 permutation or more."
        )
    model, table, n_ref, n_new, predictors = _labelled(reference, new, predictors)
    assert table.whole is not None
    batch = _standardised(table.whole)
    rng = np.random.default_rng((seed, STREAM))
    fold = torch.from_numpy(rng.permutation(n_ref + n_new) % folds)
    label = batch["y"].clone()
    log_odds = _held_out(model, batch, label, fold, folds)
    best = _fitted(model, batch, label)[1]
    named = (log_odds > math.log(n_new / n_ref)).to(label.dtype) == label
    accuracy = (float(named[:n_ref].double().mean()) + float(named[n_ref:].double().mean())) / 2
    beaten = 0
    for _ in range(permutations):
        other = label[torch.from_numpy(rng.permutation(len(label)))]
        beaten += _fitted(model, batch, other)[1] >= best
    return TwoSample(
        _gain(log_odds, label),
        accuracy,
        (1 + beaten) / (1 + permutations),
        permutations,
        predictors,
        n_ref,
        n_new,
    )


def _standardised(batch: Batch) -> Batch:
    """Dense columns with mean 0 and variance 1 over both tables: labels have no influence in it."""
    tensors = dict(batch.tensors)
    x = tensors.get("x0")
    if x is not None:
        spread = x.std(0, correction=0)
        tensors["x0"] = (x - x.mean(0)) / torch.where(spread > 0, spread, 1.0)
    return Batch(tensors)


def _held_out(model: Regression, batch: Batch, label: Tensor, fold: Tensor, folds: int) -> Tensor:
    """log P(new)/P(reference) of each row, (n,), by the regression of the other folds."""
    out = torch.empty(len(batch), dtype=torch.float64)
    for k in range(folds):
        own = fold == k
        fitted, _ = _fitted(model, batch[~own], label[~own])
        with torch.no_grad():
            out[own] = fitted.eta(batch[own])[0].expand(int(own.sum()))
    return out


def _fitted(model: Regression, batch: Batch, label: Tensor) -> tuple[Regression, float]:
    """The regression at the maximum of the labels' log-likelihood with its prior, and that maximum."""
    source = Tensors(Batch({**batch.tensors, "y": label}), copy=False)
    objective = Objective([LogLikelihood(model, source)], [LogPrior(priors.Normal(2.5), model)])
    state = iterate(Newton(begin=model.start(source)), objective)
    return objective.at(state.theta).model, float(state.value)


def _gain(log_odds: Tensor, label: Tensor) -> float:
    """The mean held-out log-likelihood, less that of the labels' shares."""
    share = label.mean()
    found = torch.nn.functional.logsigmoid(torch.where(label > 0, log_odds, -log_odds)).mean()
    return float(found - torch.special.xlogy(share, share) - torch.special.xlogy(1 - share, 1 - share))
