"""The face: `fit` and `maximize` choose the solver, climb, and hand back a Fit.

Data flows through here once, from top to bottom: data → model → objective → solver → certificate → Fit; the Fit's methods call
inference, evaluation and report. What reads tables (pandas, pyarrow, formulaic) takes as long to load as torch: it comes with the first
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import families
from .data import Batch, Source, Tensors
from .errors import BadArgument, FitError, FlatDirection, NoMaximum, NotConverged, UnknownColumn, WrongType
from .families.base import Family
from .likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed
from .likelihood.priors import Prior
from .likelihood.robust import get as get_robust
from .likelihood.weights import Importance
from .models import Regression
from .models.base import names_of
from .models.custom import Custom
from .solvers import Stochastic, choose, climb
from .solvers.certificate import Certificate
from .types import Weights

if TYPE_CHECKING:
    import pandas as pd

    from .evaluation.calibration_error import CalibrationError
    from .evaluation.excess import Excess
    from .evaluation.judge import Judgement
    from .evaluation.score import Score
    from .evaluation.surprise import Surprise
    from .inference.tests import Test
    from .runs import Run
    from .solvers.loop import Solver


def fit(
    model: str | Family | nn.Module,
    data: Any = None,
    family: str | Family = "normal",
    *,
    weights: str | Weights | None = None,
    prior: Prior | Sequence[Prior] | None = None,
    missing: str = "drop",
    robust: DensityPower | Trimmed | str | None = None,
    solver: Solver | None = None,
    on_failure: str = "raise",
    run: str | Path | None = None,
    **parameters: str | float,
) -> Fit:
    """Maximise Σ_i w_i · log p(x_i | θ) + log p(θ) over θ.

    Parameters
    ----------
    model : a formula "y ~ x + C(region) + offset(log(exposure))"; a family, fitted to y alone; a model; or a likelihood of one's own
        made by `@th.model`
    data : a dict of columns, a pandas, polars or Arrow table, the path of a CSV or Parquet file; a `Source`, a `Batch`
    family : of the response, for a formula: a name ("poisson") or an object
    weights : a column of frequency weights; a weighting of rows by their density elsewhere, `weights.Importance`; or, for a model, any
        weighting (batch, log_prob) → weights
    prior : one or several priors on coefficients
    missing : "drop" rows with a missing value (they are counted in the summary), or "raise"
    robust : None; or what is maximised instead of the log-likelihood where some rows may come from elsewhere: `DensityPower(0.5)`,
        `Trimmed(0.75)`, or their names, "density_power:0.5"
    solver : None chooses by what the model offers and by size
    on_failure : "raise", or "return" the fit as it stands with its certificate
    run : a folder, runs/NAME, that records a stochastic climb and from which the same call goes on (see `thetahat.runs`)
    parameters : "~ age" for the predictors of a further parameter of the family, a number to hold it fixed, or the column of an extra
        (trials="n")

    Returns
    -------
    Fit

    Raises
    ------
    DataError, ModelError : the data or the model cannot be used; the message names the column, row or argument
    NoMaximum, FlatDirection, NotConverged : there is no maximum to be had; the exception carries the certificate

    Source: Fisher (1922), On the mathematical foundations of theoretical statistics.

    >>> frame = {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]}
    >>> fit("y ~ x", frame).estimates.round(3).to_dict()
    {'Intercept': 0.92, 'x': 1.07, 'scale': 0.104}
    """
    if on_failure not in ("raise", "return"):
        raise BadArgument(f"on_failure={on_failure!r}. Accepted: 'raise', 'return'.")
    if isinstance(model, str) and "~" not in model and model.split("(")[0] in (*families.registry, *families.wrappers):
        model = families.get(model)
    weighting: Weights | None = None
    if isinstance(weights, Importance):
        _need(data, "a weighted likelihood")
        data = weights.attach(data)
    built: nn.Module
    source: Source
    call: dict[str, Any] = {"data": data if isinstance(data, (str, Path)) else None, "missing": missing}
    if isinstance(model, str):
        from .models.formulas import regression

        _need(data, "a formula")
        carried: tuple[str, ...] = ()
        if isinstance(weights, Importance):
            carried, weighting, weights = (weights.column,), weights, None
        column = _column_name(weights)
        chosen = families.get(family)
        built, source = regression(model, data, chosen, parameters=parameters, weights=column, carried=carried, missing=missing)
        call |= {"formula": model, "family": str(chosen), "parameters": dict(parameters), "weights": column}
    elif isinstance(model, Family):
        _need(data, f"{model}")
        built, source = _density(model, data, _column_name(weights), parameters, missing)
        call |= {"family": str(model), "parameters": dict(parameters)}
    elif isinstance(model, nn.Module):
        if parameters:
            raise BadArgument(f"a model has no parameter {next(iter(parameters))!r} to be given here: give it to the model.")
        if weights is not None and not isinstance(weights, str) and not callable(weights):
            raise BadArgument(
                f"weights= is a column's name or a function (batch, log_prob) → weights; received {type(weights).__name__}."
            )
        built, source = model, _source(data, model, weights if isinstance(weights, str) else None)
        weighting = None if isinstance(weights, str) else weights
        call |= {"model": type(model).__name__, "weights": weights if isinstance(weights, str) else None}
    else:
        raise BadArgument(
            f"a {type(model).__name__} cannot be fitted. Accepted: a formula, a family, a model, a likelihood made by @th.model."
        )
    setting = get_robust(robust)
    if setting is not None and weighting is not None:
        raise BadArgument("robust= gives every row its weight; a weighting besides cannot be had.")
    term = LogLikelihood(built, source, weighting) if setting is None else setting.of(built, source)
    if setting is not None:
        call["robust"] = str(setting)
    objective = Objective([term])
    for each in _priors(prior):
        objective = objective + LogPrior(each, built)
    return maximize(objective, solver=solver, on_failure=on_failure, call=call, run=run)


def maximize(
    objective: Objective | LogLikelihood,
    *,
    solver: Solver | None = None,
    on_failure: str = "raise",
    call: Mapping[str, Any] | None = None,
    run: str | Path | Run | None = None,
    watch: Callable[[Any], None] | None = None,
) -> Fit:
    """Maximise an objective that you have put together yourself: terms add, and models may share parameters across terms.

    run : as of `fit`;  watch : called with every state of the climb

    Returns
    -------
    Fit, whose model is the first term's.

    Raises
    ------
    NoMaximum, FlatDirection, NotConverged
    """
    if isinstance(objective, LogLikelihood):
        objective = Objective([objective])
    if solver is not None and (isinstance(solver, type) or not all(hasattr(solver, step) for step in ("start", "step", "done"))):
        raise BadArgument(
            f"solver={solver!r}. Accepted: None, or a solver such as th.Newton(), th.LBFGS(), th.Stochastic(steps=…)."
        )
    solver = solver or choose(objective)
    robust = [term.robust for term in objective.terms if term.robust is not None]
    if robust and isinstance(solver, Stochastic):
        raise BadArgument(f"{robust[0]} is not maximised by Stochastic, which climbs log p of batches. Leave the solver out.")
    if run is not None:
        from . import runs

        run = run if isinstance(run, runs.Run) else runs.Run(run, objective, solver)
        solver = run.solver
    try:
        certificate, trace = climb(objective, solver, run, watch)
    finally:
        if run is not None:
            run.close()
    result = Fit(objective, certificate, trace=trace, solver=solver, call=call)
    if run is not None and certificate.ok:
        run.finish(result)
    if not certificate.ok and on_failure == "raise":
        kind: type[FitError] = {"no maximum": NoMaximum, "flat direction": FlatDirection}.get(certificate.status, NotConverged)
        raise kind(f"{_failure(certificate)}", certificate, result)
    return result


class Fit:
    """The model at θ̂, the objective, the trace, the certificate; and all that can be asked of them.

    Everything is computed when it is asked for, from `log_prob` alone.
    """

    def __init__(
        self,
        objective: Objective,
        certificate: Certificate,
        *,
        trace: Sequence[tuple[int, float, float]] = (),
        solver: Any = None,
        call: Mapping[str, Any] | None = None,
    ):
        self.objective, self.certificate, self.solver = objective, certificate, solver
        self.model = objective.model
        self.theta = objective.theta
        self.trace = tuple(trace)
        self.call = dict(call or {})
        self._kept: dict[Any, Any] = {}

    # ---- what was found ----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """One name an estimate."""
        return names_of(self.model)

    @property
    def estimates(self) -> pd.Series:
        """θ̂ on its natural scale, by name."""
        import pandas as pd

        from .inference.natural import natural

        return pd.Series(natural(self.objective, self.theta).numpy(), index=self.names, name="estimate")

    @property
    def log_likelihood(self) -> float:
        """ℓ(θ̂) = Σ w log p, in nats: priors not included. Of a robust fit too, which maximised something else: `maximised`."""
        if self.robust is not None:
            plain = [LogLikelihood(term.model, term.source) for term in self.objective.terms]
            return self._once("log_likelihood", lambda: Objective(plain).value(self.theta))
        if self.certificate.status == "certified maximum" and self.trace and not self.objective.priors:
            return self.trace[-1][1]  # the last step's value is ℓ(θ̂) itself: no pass over the data is needed
        return self._once("log_likelihood", lambda: Objective(self.objective.terms).value(self.theta))

    @property
    def robust(self) -> DensityPower | Trimmed | None:
        """What was maximised in the place of the log-likelihood."""
        return self.objective.terms[0].robust

    @property
    def maximised(self) -> float:
        """The value of what was maximised: the log-likelihood, or the robust sum in its place; priors included."""
        return self._once("maximised", lambda: self.objective.value(self.theta))

    @property
    def kept(self) -> np.ndarray:
        """The rows that a trimmed fit kept, numbered as in the data from 0."""
        from .evaluation import outliers

        return self._once("kept", lambda: outliers.kept(self.objective, self.theta))

    def outliers(self, most: int | None = 10) -> pd.DataFrame:
        """The rows that the fit finds least probable, worst first: columns weight (in the fit), surprise (−log p, nats), observed, expected.

        most : how many; None: all rows
        """
        from .evaluation import outliers

        return outliers.outliers(self.objective, self.theta, most)

    @property
    def observations(self) -> float:
        """n = Σ count."""
        return self._once("observations", lambda: self.objective.observations)

    @property
    def source(self) -> Source:
        """The data that were fitted."""
        return self.objective.terms[0].source

    # ---- inference -----------------------------------------------------------------------------------------------------------

    def covariance(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """The covariance of the estimates.

        Parameters
        ----------
        kind : "observed" (J⁻¹), "expected" (Fisher's), "sandwich" (J⁻¹ K J⁻¹), "cluster" (K summed within `by`; two columns: two-way),
            "bootstrap"; None: "observed", but "sandwich" of a robust fit
        by : the column, or two columns, that name the clusters
        """
        import pandas as pd

        from .inference import covariance

        kind = self._covariance(kind)
        matrix = self._once(
            ("covariance", kind, by if by is None or isinstance(by, str) else tuple(by)),
            lambda: covariance.natural(self.objective, self.theta, kind=kind, clusters=self._clusters(by)),
        )
        return pd.DataFrame(matrix.numpy(), index=self.names, columns=self.names)

    def standard_errors(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.Series:
        """The square roots of the covariance's diagonal (which alone is computed where a category has thousands of levels)."""
        import pandas as pd

        from .inference import covariance

        kind = self._covariance(kind)
        variance = self._once(
            ("variance", kind, by if by is None or isinstance(by, str) else tuple(by)),
            lambda: covariance.variances(self.objective, self.theta, kind=kind, clusters=self._clusters(by)),
        )
        return pd.Series(variance.sqrt().numpy(), index=self.names, name="standard error")

    def intervals(
        self,
        level: float = 0.95,
        kind: str = "wald",
        *,
        parameters: str | Sequence[str] | None = None,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
        draws: int = 999,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Confidence intervals, columns low and high.

        kind : "wald" (on the link's scale, mapped back), "profile" (the likelihood ratio inverted), "bootstrap" (percentile)
        parameters : for those alone
        """
        from .inference import intervals

        wanted = [parameters] if isinstance(parameters, str) else parameters
        return intervals.intervals(
            self.objective,
            self.theta,
            level,
            kind,
            parameters=wanted,
            covariance=self._covariance(covariance) if kind == "wald" else covariance or "observed",
            clusters=self._clusters(by),
            draws=draws,
            seed=seed,
        )

    def bootstrap(
        self, draws: int = 999, kind: str = "pairs", *, by: str | None = None, seed: int = 0, workers: int = 1
    ) -> pd.DataFrame:
        """Estimates refitted to resampled data: a row a draw. kind: "pairs", "parametric", "cluster" (whole clusters of `by`)."""
        from .inference import bootstrap

        return bootstrap.bootstrap(
            self.objective, self.theta, draws, kind, clusters=self._clusters(by), seed=seed, workers=workers
        )

    def profile(self, parameter: str, *, points: int = 21, level: float = 0.99) -> pd.DataFrame:
        """The profile log-likelihood of one parameter: columns value, log_likelihood (relative to the maximum), and the signed root."""
        from .inference import profile

        return profile.curve(self.objective, self.theta, parameter, points=points, level=level)

    def test(
        self,
        hypothesis: str | Sequence[str],
        kind: str = "wald",
        *,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> Test:
        """A test of linear restrictions on the estimates: "x = 0", "x = z", ["x = 0", "z = 1"], "2*x + z = 1".

        kind : "wald", "likelihood_ratio", "score"
        """
        from .inference import tests

        own = self._covariance(covariance) if kind == "wald" else covariance or "observed"
        return tests.test(self.objective, self.theta, hypothesis, kind, covariance=own, clusters=self._clusters(by))

    def delta(self, function: Any, *, covariance: str | None = None) -> pd.DataFrame:
        """Functions of the estimates by the delta method: `function(dict of name → tensor) → tensor or dict`. Columns estimate, standard_error."""
        from .inference import delta

        return delta.delta(self.objective, self.theta, function, kind=self._covariance(covariance))

    @property
    def criteria(self) -> dict[str, float]:
        """AIC, AICc, BIC and TIC (Takeuchi's: the trace of K J⁻¹ in place of the number of parameters)."""
        if self.robust is not None:
            raise BadArgument(
                f"AIC, BIC and TIC belong to the maximum of a likelihood, and {self.robust} maximised something else. Compare by rows held out: "
                "fit.score(data)."
            )
        from .inference import criteria

        return self._once(
            "criteria", lambda: criteria.criteria(self.objective, self.theta, self.log_likelihood, self.observations)
        )

    @property
    def evidence(self) -> float:
        """log ∫ p(data | θ) p(θ) dθ, nats: the probability of the data under the priors, by Laplace's approximation at θ̂."""
        from .inference import evidence

        if self.robust is not None:
            raise BadArgument(f"the evidence is an integral of the likelihood, and {self.robust} maximised something else.")
        return self._once("evidence", lambda: evidence.evidence(self.objective, self.theta))

    # ---- evaluation ----------------------------------------------------------------------------------------------------------

    def choose_prior(
        self, candidates: Sequence[Prior | Sequence[Prior] | None], by: str = "held out", *, folds: int = 10, seed: int = 0
    ) -> Any:
        """The fit with each of several priors, and which of them the data ask for: a table, and the chosen fit.

        by : "held out" (nats of rows that the fit has not seen), "one standard error" (the least scale that is as good to within its error),
            "evidence" (the probability of the data under each prior)
        """
        from .evaluation import prior_choice
        from .inference.bootstrap import copied

        own = copied(self.objective)  # the chosen fit has a θ of its own
        chosen = prior_choice.choose(own, self.theta, candidates, by, folds=folds, seed=seed)
        chosen.fit = maximize(Objective(own.terms, [LogPrior(each, own.model) for each in chosen.prior]), call=self.call)
        return chosen

    def score(self, data: Any = None, *, samples: int | None = None, seed: int = 0) -> Score:
        """The log-likelihood of data (None: those fitted), with its kind, measure, units and fingerprint.

        samples : K, draws an observation of a model whose value is a bound; None: as many as in the fit. More are tighter
        seed : of those draws: the same for two models gives them common ones
        """
        from .evaluation import score

        model = self.model
        if samples is not None:
            if not hasattr(model, "tightened"):
                raise BadArgument(f"samples={samples}: the score of {type(model).__name__} is not made of draws.")
            model = model.tightened(samples)
        generator = torch.Generator().manual_seed(seed)
        return score.score(model, self.source if data is None else self._source_like(data), generator=generator)

    def surprise(self, new: Any, reference: Any, *, level: float = 0.1, samples: int | None = None, seed: int = 0) -> Surprise:
        """Which new rows the fit finds surprising beside reference rows that it has not seen: conformal p-values, a test, flagged rows.

        level : the expected share of flags that are false
        samples, seed : as of `score`
        """
        from .evaluation import surprise

        return surprise.surprise(self, reference, new, level=level, samples=samples, seed=seed)

    def excess(self) -> Excess:
        """KL(data ‖ fit), how far the fit is from the best possible, where the entropy of its data can be told; else why it cannot."""
        from .evaluation import excess

        return excess.excess(self.model, self.source)

    def compare(self, other: Fit, data: Any = None) -> Any:
        """Paired comparison with another fit on the same data; refused, with the reason, where it would be false."""
        from .evaluation import compare

        return compare.compare({"this": self, "other": other}, data)

    def predict(
        self, data: Any = None, what: str = "mean", *, level: float | None = None, kind: str = "confidence"
    ) -> np.ndarray | pd.DataFrame:
        """Predictions for new rows, or for those fitted.

        what : "mean", "linear" (the first parameter's η), "quantile" (at `level`), "probabilities", or a parameter's name
        level : with it, a data frame with columns value, low, high; kind "confidence" (of the prediction), "prediction" (of a new y)
        """
        from .evaluation import predict

        return predict.predict(self.objective, self.theta, self._rows(data), what, level=level, kind=kind)

    def sample(self, n: int | None = None, data: Any = None, *, seed: int = 0) -> np.ndarray:
        """Draws of y from the fitted model: n for each row of data (None: one each), shape (rows,) or (n, rows).

        Of a model without predictors that draws whole observations (images), n of them (None: one), (n, …).
        """
        from .evaluation import predict

        if hasattr(self.model, "draw"):
            if data is not None:
                raise BadArgument(f"{type(self.model).__name__} draws whole observations, and takes no data: sample(n).")
            with torch.no_grad():
                return self.model.draw(1 if n is None else n, generator=torch.Generator().manual_seed(seed)).cpu().numpy()
        return predict.sample(self.model, self._rows(data), n, seed=seed)

    def residuals(self, kind: str = "quantile", *, seed: int = 0) -> np.ndarray:
        """Of each row: "quantile" (randomised for counts; standard normal if the model is true), "response", "pearson", "deviance"."""
        from .evaluation import residuals

        return residuals.residuals(self.model, self.source, kind, seed=seed)

    def calibration(self, data: Any = None, *, bins: int = 10, level: float = 0.95) -> pd.DataFrame:
        """Predicted against observed means, in bins of equal numbers: columns predicted, observed, low, high, n. None: the data fitted."""
        from .evaluation import calibration

        source = self.source if data is None else self._source_like(data)
        return calibration.calibration(self.model, source, bins=bins, level=level)

    def calibration_error(
        self, data: Any = None, *, of: str = "top", bins: int = 15, level: float = 0.95, draws: int = 999, seed: int = 0
    ) -> CalibrationError:
        """How far a classifier's probabilities are from what happened, root mean square, with an interval. None: the data fitted.

        of : "top", the most probable category's probability; "classes", each category's
        """
        from .evaluation import calibration_error

        source = self.source if data is None else self._source_like(data)
        return calibration_error.calibration_error(self.model, source, of=of, bins=bins, level=level, draws=draws, seed=seed)

    def ratings(self, *, level: float = 0.95, covariance: str = "observed") -> pd.DataFrame:
        """The items of a Bradley–Terry fit, the best first: ratings and errors relative to their mean, on Elo's scale too, and ranks with
        intervals."""
        from .evaluation import ratings

        return ratings.ratings(self.objective, self.theta, level=level, covariance=covariance)

    def rewards(self, features: Any, against: Any = None, *, covariance: str = "observed") -> pd.DataFrame:
        """The rewards of answers, (n, d) features, by a Bradley–Terry fit that is linear in them, with standard errors; or their advantage
        over others, and the probability of being preferred."""
        from .evaluation import ratings

        return ratings.rewards(self.objective, self.theta, features, against, covariance=covariance)

    def judge(self, pairs: Any = None, *, level: float = 0.95) -> Judgement:
        """How well a Bradley–Terry fit judges pairs: accuracy, nats and calibration error, with intervals. None: those fitted."""
        from .evaluation import judge

        source = self.source if pairs is None else self._source_like(pairs)
        return judge.judge(self.model, source, level=level)

    def influence(self) -> pd.DataFrame:
        """Of each row: leverage, and Cook's distance."""
        if self.robust is not None:
            raise BadArgument(
                f"leverage and Cook's distance are those of maximum likelihood. What each row weighs under {self.robust}: fit.outliers(None)."
            )
        from .evaluation import residuals

        return residuals.influence(self.objective, self.theta)

    def effects(self, variables: Sequence[str] | None = None, *, covariance: str | None = None) -> pd.DataFrame:
        """Average marginal effects on the mean: dE[y]/dx for numbers, differences from the reference for categories, with errors."""
        from .evaluation import effects

        return effects.effects(self.objective, self.theta, variables, kind=self._covariance(covariance))

    # ---- report --------------------------------------------------------------------------------------------------------------

    def summary(self, *, level: float = 0.95, covariance: str | None = None, by: str | Sequence[str] | None = None) -> Any:
        """The fit on one screen: it prints itself, in colour where the terminal has it, as HTML in a notebook."""
        from .report import summary

        return summary.Summary(self, level=level, covariance=covariance, by=by)

    def plot(self, what: str = "estimates") -> Any:
        """A chart: "estimates", "calibration", "residuals", "profile", "trace"."""
        from .report import plots

        return plots.plot(self, what)

    def report(self, path: str | Path) -> Path:
        """One HTML file that opens offline: what was fitted, the certificate in words, coefficients, calibration, residuals, profiles."""
        from .report import html

        return html.write(self, Path(path))

    def save(self, path: str | Path) -> Path:
        """Write the fit to one folder-less file: safetensors and JSON, versioned; no pickle, no row of the data."""
        from .saving import save

        return save(self, Path(path))

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v:.4g}" for k, v in list(self.estimates.items())[:4])
        more = ", …" if len(self.theta) > 4 else ""
        return f"Fit({shown}{more}; log_likelihood={self.log_likelihood:.6g} nats; {self.certificate.status})"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # ---- between -------------------------------------------------------------------------------------------------------------

    def _once(self, key: Any, compute: Any) -> Any:
        if key not in self._kept:
            self.objective.theta = self.theta
            self._kept[key] = compute()
        return self._kept[key]

    def _covariance(self, kind: str | None) -> str:
        """The kind that was asked for, or the default."""
        from .inference import covariance

        return covariance.default(self.objective) if kind is None else kind

    def _clusters(self, by: str | Sequence[str] | None) -> list[np.ndarray] | None:
        if by is None:
            return None
        from .data.table import Table

        columns = [by] if isinstance(by, str) else list(by)
        if not isinstance(self.source, Table):
            return [torch.cat([b[c] for b in self.source.batches()]).numpy() for c in columns]
        return [self.source.column(c) for c in columns]

    def _rows(self, data: Any) -> Batch | Source:
        """New rows, encoded as the fit remembers; or the fit's own."""
        if data is None:
            return self.source
        encoder = getattr(self.model, "encoder", None)
        if encoder is not None:
            from .data.table import new_rows

            return new_rows(encoder, data)
        return _source(data, self.model, None)

    def _source_like(self, data: Any) -> Source:
        """Other data, encoded as the fit remembers, response included."""
        if isinstance(data, Source) or not isinstance(self.model, Regression):
            return _source(data, self.model, None)
        from .data.frame import Frame
        from .data.table import Table

        if self.model.density and isinstance(data, (np.ndarray, Tensor, list)):  # as `fit` takes it
            data = {self.model.encoder.response.required[0]: data}
        # a score is of rows as they are, whatever they weighed in the fit
        return Table(Frame(data), replace(self.model.encoder, carried=()), self.model.family)


# ---- data from what the user has -------------------------------------------------------------------------------------------


def _need(data: Any, what: str) -> None:
    if data is None:
        raise BadArgument(f"{what} needs data: fit(…, data).")


def _priors(prior: Any) -> list[Prior]:
    found = [prior] if isinstance(prior, Prior) else [] if prior is None else prior
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, Prior) for each in found):
        raise BadArgument(f"prior={prior!r}. Accepted: a prior such as th.priors.Normal(2.5), or a list of them.")
    return list(found)


def _column_name(weights: Any) -> str | None:
    if weights is None or isinstance(weights, str):
        return weights
    raise BadArgument(
        f"with a formula, weights is the name of a column, or th.weights.Importance(…); with a family, a column; received {type(weights).__name__}."
    )


def _density(
    family: Family, data: Any, weights: str | None, parameters: dict[str, Any], missing: str
) -> tuple[nn.Module, Source]:
    """A family fitted to y alone: the regression of y on nothing, every constant on its own scale."""
    from .data.frame import Frame
    from .models.formulas import regression

    if isinstance(data, (str, Path)) or hasattr(data, "columns") or isinstance(data, (Mapping, Frame)):
        frame = Frame(data)
        rest = [c for c in frame.columns if c != weights and c not in parameters.values()]
        if len(rest) != 1:
            raise BadArgument(
                f"{family} describes one column, and the data have {', '.join(rest)}. Name it: fit('y ~ 1', …), or pass data[['y']]."
            )
        name: str = rest[0]
    else:
        array = np.asarray(data.detach() if isinstance(data, Tensor) else data)
        if array.ndim == 0:
            raise BadArgument(f"{family} is fitted to observations, an array of them; received {data!r}.")
        if array.ndim != 1:
            from .models.density import density

            if weights is not None:
                raise BadArgument(
                    f"weights={weights!r} names a column, and an array has none. Give a model and a Batch with counts."
                )
            if parameters:
                raise BadArgument(
                    f"{next(iter(parameters))}= cannot be given with an array of vectors: every parameter is a constant to be fitted."
                )
            return density(family, array)
        frame, name = Frame({"y": array}), "y"
    built, source = regression(f"`{name}` ~ 1", frame, family, parameters=parameters, weights=weights, missing=missing)
    built.density = True
    return built, source


def _source(data: Any, model: nn.Module, weights: str | None) -> Source:
    """A source from what a model is given: a Source, a Batch, a dict of tensors, or a table of numbers."""
    if isinstance(data, (Source, Batch)) and weights is not None:
        raise BadArgument(
            f"weights={weights!r} names a column, and a {type(data).__name__} has its own counts: Batch(…, count=…)."
        )
    if isinstance(data, Source):
        return data
    _need(data, "a model")
    if isinstance(data, Batch):
        return Tensors(data, target=getattr(model, "target", "y"))
    own = getattr(model, "source", None)
    found = None if own is None else own(data, weights)
    if found is not None:
        return found
    if isinstance(data, Mapping) and all(isinstance(v, (Tensor, np.ndarray)) for v in data.values()):
        tensors = {k: _tensor(k, v) for k, v in data.items()}
        if isinstance(model, Custom):
            tensors = {k: v.to(torch.float64) if v.is_floating_point() else v for k, v in tensors.items()}
    else:
        from .data.frame import Frame
        from .data.table import numeric_tensors

        tensors = numeric_tensors(Frame(data))
    if weights is not None and weights not in tensors:
        raise UnknownColumn.named(weights, tensors, where="weights=")
    count = None if weights is None else tensors.pop(weights)
    return Tensors(tensors, count=count, target=getattr(model, "target", "y"))


def _tensor(name: str, value: Tensor | np.ndarray) -> Tensor:
    """An array of one value or more a row. As pandas hands it out it is read-only, and torch takes no such memory: it is copied."""
    if value.ndim == 0:
        raise BadArgument(f"{name!r} is one number: give one value a row.")
    try:
        return torch.as_tensor(value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value)
    except TypeError as error:
        raise WrongType(
            f"{name!r} is an array of type {value.dtype}, and a model reads numbers. Encode it, or leave it out."
        ) from error


def _failure(certificate: Certificate) -> str:
    return certificate.detail or str(certificate)
