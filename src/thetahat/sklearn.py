"""Estimators of scikit-learn: maximum likelihood behind fit, predict and score, with the certificate among
the attributes.

    Regressor      p(y | x) of any family with one response; its first parameter is linear in x, the others are constants
    Classifier     Bernoulli for two classes, Categorical for more; a weak Normal prior, so that separated classes have a maximum

Arrays go straight to the design: no formula, no data frame; a sparse X is read as a dense one. `fit_` is the whole fit:
estimator.fit_.summary(), .intervals(), .save(path).
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

from . import families
from .data.batch import Batch
from .data.design import BYTES, Design, from_columns
from .data.response import Response
from .data.source import Tensors, check_count
from .data.table import Encoder
from .errors import BadArgument, FitError, MissingExtra, OutOfSupport
from .families.base import Family
from .fitting import maximize
from .likelihood import LogLikelihood, LogPrior, Objective, priors
from .models import Regression
from .models.given import OFFSET
from .protocols import Categories
from .result import Fit
from .solvers import Newton
from .types import Data, Levels, SolverLike

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtra.named("scikit-learn", "sklearn") from error


class _Linear(BaseEstimator):  # type: ignore[misc]
    """What both estimators share: arrays to a Regression, and back."""

    prior: float | priors.Prior | None
    fit_intercept: bool
    solver: SolverLike
    on_failure: str

    def _fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        sample_weight: Data,
        offset: Data,
        family: Family,
        levels: Levels | None,
    ) -> None:
        if self.on_failure not in ("warn", "raise"):
            raise BadArgument(f"on_failure={self.on_failure!r}. Accepted: 'warn', 'raise'.")
        lacking = family.lacking(())
        if lacking is not None:
            raise BadArgument(
                f"X and y cannot carry what {family} needs besides: th.fit(formula, frame, …). It is "
                f"{lacking}."
            )
        names = [str(n) for n in getattr(self, "feature_names_in_", [f"x{j}" for j in range(X.shape[1])])]
        self._offset = offset is not None
        encoder, slots = _encoder(names, family, levels, self.fit_intercept, self._offset)
        model = Regression(family, encoder, slots)
        source = Tensors(self._batch(X, offset, y, _weights(sample_weight, X)), copy=False)
        _check_support(family, source.whole["y"])
        objective = Objective([LogLikelihood(model, source)])
        if self.prior is not None:
            prior = self.prior if isinstance(self.prior, priors.Prior) else priors.Normal(float(self.prior))
            objective = objective + LogPrior(prior, model)
        self.fit_: Fit = self._maximum(objective)
        self.certificate_ = self.fit_.certificate

    def _maximum(self, objective: Objective) -> Fit:
        call = {"estimator": repr(self)}
        try:
            return maximize(objective, solver=self.solver, call=call)
        except FitError as error:
            if self.on_failure == "raise" or error.fit is None:
                raise
            warnings.warn(
                f"{error} (on_failure='raise' makes this an error.)", ConvergenceWarning, stacklevel=4
            )
            if error.certificate.status == "flat direction" and self.solver is None and not objective.kinked:
                # aliased columns: Newton's method finds one of the maxima, and all of them predict alike on
                # rows like those fitted
                return maximize(objective, solver=Newton(), on_failure="return", call=call)
            fit: Fit = error.fit
            return fit

    def _batch(
        self, X: np.ndarray, offset: Data, y: np.ndarray | None = None, count: Tensor | None = None
    ) -> Batch:
        tensors = {} if y is None else {"y": torch.tensor(y, dtype=torch.float64)}
        if offset is not None:
            tensors["offset0"] = torch.from_numpy(_offset(offset, len(X)))
        if X.shape[1]:
            tensors["x0"] = torch.tensor(
                np.asarray(X, dtype=np.float64).T
            ).T  # a column a row of memory, as Regression reads them
        return Batch(tensors, count=count)

    def _new(self, X: Data, offset: Data = None) -> Batch:
        """New rows, checked against those that were fitted."""
        check_is_fitted(self)
        X = _dense(validate_data(self, X, dtype=np.float64, reset=False, accept_sparse="csr"))
        if self._offset != (offset is not None):
            raise BadArgument(
                f"the estimator was fitted {'with' if self._offset else 'without'} an offset: "
                f"{'give offset=, one number a row' if self._offset else 'leave offset= out'}."
            )
        return self._batch(X, offset)

    @property
    def _model(self) -> Regression:
        model: Regression = self.fit_.model
        return model

    def _coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """(slopes, intercepts) of the predictors that have slopes, (k, p) and (k,)."""
        theta = self.fit_.theta.numpy()
        first = int(self.fit_intercept)
        own = [p for p in self._model.predictors if p.slot == 0]
        slopes = np.stack([theta[p.start + first : p.start + p.size] for p in own])
        return slopes, np.array([theta[p.start] if first else 0.0 for p in own])

    def _mean_log_prob(self, X: Data, y: np.ndarray, sample_weight: Data, offset: Data) -> float:
        batch = self._new(X, offset)
        count = _weights(sample_weight, batch["x0"].numpy())
        scored = Batch({**batch.tensors, "y": torch.tensor(y, dtype=torch.float64)})
        with torch.no_grad():
            log_prob = self._model.log_prob(scored)
        return float(log_prob.mean() if count is None else (count * log_prob)[count > 0].sum() / count.sum())


class Regressor(RegressorMixin, _Linear):  # type: ignore[misc]
    """A regression of any family, by maximum likelihood.

        β̂, α̂ = argmax Σ_i w_i · log p(y_i | g⁻¹(x_iᵀβ), α)  +  log p(β)

    Attributes
    ----------
    coef_ : (p,), on the scale of the link          intercept_ : float
    fit_ : the Fit, with the rows in it              certificate_ : what is known of the answer
    n_features_in_, feature_names_in_ : as in scikit-learn

    `score` is R², as every regressor's of scikit-learn; `log_score` is the mean of log p(y | x).

    Parameters
    ----------
    family
        a name ("poisson", "student_t") or an object; its first parameter is linear in x, the others are
        estimated constants
    prior
        None, the scale of a Normal prior on each slope, or a prior
    fit_intercept
        whether 1 is among the columns
    solver
        None chooses
    on_failure
        "warn" (scikit-learn's ConvergenceWarning; read `certificate_`), or "raise"

    References
    ----------
    Fisher (1922), On the mathematical foundations of theoretical statistics.

    Examples
    --------
    >>> Regressor("poisson").fit([[0.0], [1.0], [2.0], [3.0]], [1, 2, 4, 9]).predict([[4.0]]).round(2)
    array([18.74])
    """

    def __init__(
        self,
        family: str | Family = "normal",
        *,
        prior: float | priors.Prior | None = None,
        fit_intercept: bool = True,
        solver: SolverLike = None,
        on_failure: str = "warn",
    ):
        self.family, self.prior, self.fit_intercept, self.solver, self.on_failure = (
            family,
            prior,
            fit_intercept,
            solver,
            on_failure,
        )

    def fit(self, X: Data, y: Data, sample_weight: Data = None, offset: Data = None) -> Self:
        """Estimate from X (n, p) and y (n,); sample_weight (n,) counts each row so many times, offset (n,) is added to the
        linear predictor (log of an exposure)."""
        X, y = validate_data(
            self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2, accept_sparse="csr"
        )
        X = _dense(X)
        family = families.get(self.family)
        if isinstance(family, Categories):
            raise BadArgument(f"{family} describes categories: use Classifier.")
        self._fit(X, np.asarray(y, dtype=np.float64), sample_weight, offset, family, None)
        slopes, intercepts = self._coefficients()
        self.coef_, self.intercept_ = slopes[0], float(intercepts[0])
        return self

    def predict(self, X: Data, offset: Data = None) -> np.ndarray:
        """E[y | x], (n,); offset (n,) of the new rows where the fit had one."""
        batch = self._new(X, offset)
        return self._model.mean(batch).expand(len(batch)).numpy().copy()

    def log_score(self, X: Data, y: Data, sample_weight: Data = None, offset: Data = None) -> float:
        """Mean log p(y | x), nats a row: higher is better."""
        return self._mean_log_prob(X, np.asarray(y, dtype=np.float64), sample_weight, offset)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.positive_only = families.get(self.family).support.low >= 0
        return tags


class Classifier(ClassifierMixin, _Linear):  # type: ignore[misc]
    """Logistic regression for two classes, multinomial for more, with a weak Normal prior.

        θ̂ = argmax Σ_i w_i · log p(class_i | x_i, θ)  −  Σ_j β_j² / 2s²

    Classes that a plane separates have no maximum of the likelihood alone (every larger multiple of β is
    better): the prior, s = 10 on the scale of the logit per unit of x, gives them one and leaves others as
    they are, to about (standard error / 10)². prior=None is maximum likelihood, and warns of separated
    classes by name. Of more than two classes the prior is on the differences from the first.

    Attributes
    ----------
    classes_ : (k,)
    coef_ : (1, p) for two classes, (k, p) for more, the first class's 0;  intercept_ : (1,), (k,)
    fit_, certificate_, n_features_in_, feature_names_in_ : as in `Regressor`

    Parameters
    ----------
    family
        None chooses by the number of classes; Bernoulli(link="probit") …, Categorical()
    prior, fit_intercept, solver, on_failure
        as in `Regressor`

    References
    ----------
    Albert and Anderson (1984), On the existence of maximum likelihood estimates in logistic regression
    models.

    Examples
    --------
    >>> Classifier().fit([[0.0], [1.0], [2.0], [3.0]], ["no", "no", "yes", "yes"]).predict([[0.5], [2.5]])
    array(['no', 'yes'], dtype='<U3')
    """

    def __init__(
        self,
        family: str | Family | None = None,
        *,
        prior: float | priors.Prior | None = 10.0,
        fit_intercept: bool = True,
        solver: SolverLike = None,
        on_failure: str = "warn",
    ):
        self.family, self.prior, self.fit_intercept, self.solver, self.on_failure = (
            family,
            prior,
            fit_intercept,
            solver,
            on_failure,
        )

    def fit(self, X: Data, y: Data, sample_weight: Data = None) -> Self:
        """Estimate from X (n, p) and the classes y (n,); sample_weight (n,) counts each row so many times."""
        X, y = validate_data(self, X, y, dtype=np.float64, accept_sparse="csr")
        X = _dense(X)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        k = len(self.classes_)
        if k < 2:
            raise BadArgument(
                f"y has one class only ({self.classes_[0]!r}): there is nothing to tell apart. Classifier "
                "needs two or more classes."
            )
        family = families.get(
            self.family if self.family is not None else "bernoulli" if k == 2 else "categorical"
        )
        if isinstance(family, families.Categorical):
            family = family.with_categories(k)
        elif not isinstance(family, families.Bernoulli):
            raise BadArgument(f"family={family}. Accepted: None, bernoulli, categorical.")
        elif k > 2:
            raise BadArgument(
                f"Only binary classification is supported by {family}. The type of the target is multiclass: "
                f"it has {k} classes. "
                "Use family=None or 'categorical'."
            )
        self._fit(X, codes.astype(np.float64), sample_weight, None, family, tuple(self.classes_.tolist()))
        self.coef_, self.intercept_ = self._coefficients()
        if k > 2:
            self.coef_ = np.concatenate([np.zeros((1, X.shape[1])), self.coef_])
            self.intercept_ = np.concatenate([[0.0], self.intercept_])
        return self

    def decision_function(self, X: Data) -> np.ndarray:
        """The linear predictor: (n,) of two classes, positive for the second; (n, k) of more, the first
        class's 0."""
        eta = self._eta(X)
        return eta[:, 1].numpy().copy() if len(self.classes_) == 2 else eta.numpy()

    def predict_log_proba(self, X: Data) -> np.ndarray:
        """log P(class | x), (n, k), exact in both tails."""
        eta = self._eta(X)
        family = self._model.family
        if isinstance(family, families.Categorical):
            return torch.log_softmax(eta, 1).numpy()
        link: Any = family.parameters["mean"].link
        return torch.stack([link.log1m_inverse(eta[:, 1]), link.log_inverse(eta[:, 1])], 1).numpy()

    def predict_proba(self, X: Data) -> np.ndarray:
        """P(class | x), (n, k)."""
        out: np.ndarray = np.exp(self.predict_log_proba(X))
        return out

    def predict(self, X: Data) -> np.ndarray:
        """The most probable class, (n,)."""
        best = self.predict_log_proba(X).argmax(1)
        out: np.ndarray = self.classes_[best]
        return out

    def log_score(self, X: Data, y: Data, sample_weight: Data = None) -> float:
        """Mean log P(y | x), nats a row: higher is better. −∞ for a class that the fit has not seen."""
        check_is_fitted(self)
        codes = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        log_prob = np.where(
            self.classes_[codes] == y, self.predict_log_proba(X)[np.arange(len(codes)), codes], -np.inf
        )
        return float(np.average(log_prob, weights=sample_weight))

    def _eta(self, X: Data) -> Tensor:
        """(n, k), the first class's 0."""
        batch = self._new(X)
        with torch.no_grad():
            eta = [e.expand(len(batch)) for e in self._model.eta(batch)]
        return torch.stack([torch.zeros_like(eta[0]), *eta], 1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_class = self.family is None or isinstance(
            families.get(self.family), families.Categorical
        )
        return tags


def _encoder(
    names: list[str], family: Family, levels: Levels | None, intercept: bool, offset: bool
) -> tuple[Encoder, dict[str, int]]:
    """The columns for the first parameter (of a Categorical: for each), a constant for each other."""
    designs = [from_columns(names, intercept=intercept, offset=OFFSET if offset else None)]
    slots = {}
    for j, (name, spec) in enumerate(family.parameters.items()):
        if j > 0 and not spec.own_predictors and len(designs) == 1:
            designs.append(Design("1", True))
        slots[name] = 0 if j == 0 or spec.own_predictors else 1
    return Encoder(Response("y", ("y",), levels=levels), tuple(designs)), slots


def _dense(X: Data) -> np.ndarray:
    """X as an array, where it fits in memory as one."""
    if not issparse(X):
        out: np.ndarray = X
        return out
    if 8 * X.shape[0] * X.shape[1] > BYTES:
        raise BadArgument(
            f"X is sparse and would take {8 * X.shape[0] * X.shape[1] / 2**30:,.1f} GiB as the dense array that the fit needs; "
            f"{BYTES / 2**30:.0f} GiB are accepted. A category of many levels needs no columns: th.fit('y ~ category', frame)."
        )
    found: np.ndarray = X.toarray()
    return found


def _offset(offset: Data, n: int) -> np.ndarray:
    found = np.array(offset, dtype=np.float64)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise BadArgument(
            f"offset has the shape {found.shape}. Accepted: one finite number a row, {n} of them."
        )
    return found


def _weights(sample_weight: Data, X: np.ndarray) -> Tensor | None:
    return (
        None
        if sample_weight is None
        else check_count(_check_sample_weight(sample_weight, X, dtype=np.float64))
    )


def _check_support(family: Family, y: Tensor) -> None:
    inside = family.in_support(y)
    if not bool(inside.all()):
        row = int(torch.nonzero(~inside)[0, 0])
        raise OutOfSupport(
            f"y[{row}] = {float(y[row]):g}, to which {family} gives probability zero. Its support is "
            f"{family.support}. "
            f"({int((~inside).sum())} such rows.)"
        )
