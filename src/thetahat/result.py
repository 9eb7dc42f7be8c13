"""Fit: what was found, and all that can be asked of it.

Each method says what it takes and gives, and delegates to the module that computes it: `inference` (how sure the
estimates are), `evaluation` (how good the fit is, what it says of data), `report`, `io`. What is heavy is
imported when it is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from .data import Source
from .data.devices import CPU, chosen
from .errors import BadArgument
from .fit_effects import FitEffects
from .fit_tables import FitTables
from .fit_tests import FitTests
from .inference.clusters import Labels, key, labels
from .likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed
from .likelihood.priors import Prior
from .models.base import names_of
from .printable import encodable, printable
from .protocols import Draws, Guides, Steers, Tightened, classes_of, maximised_of, tokenizer_of
from .solvers import choose, optimise
from .solvers.certificate import Certificate
from .types import Chart, Data, ModelLike, Named, Plain, SolverLike

if TYPE_CHECKING:
    import pandas as pd

    from .evaluation.calibration_error import CalibrationError
    from .evaluation.compare import Comparison
    from .evaluation.concordance import Concordance
    from .evaluation.lack_of_fit import LackOfFit
    from .evaluation.prior_choice import Choice
    from .evaluation.score import Score
    from .evaluation.surprise import Surprise
    from .inference.covariance import Covariance
    from .inference.tests import Test
    from .inference.variance_components import VarianceTest
    from .report.summary import Summary

LARGE = 1000  # values of θ up to which a repr names the first few


class Fit(FitEffects, FitTests, FitTables):
    """The model at θ̂, the objective, the trace, the certificate; and all that can be asked of them.

    It does not change; what is computed of it is kept. The objective is the fit's own: no other fit, and nothing
    that was passed to `th.fit`, shares its modules. Everything is computed when it is asked for, from `log_prob`
    alone.
    """

    objective: Objective
    certificate: Certificate
    solver: SolverLike
    trace: tuple[tuple[int, float, float], ...]
    call: Named
    measured: tuple[Mapping[str, float], ...]  # by a run, at its evaluations: {"step": …, "greedy_return": …}
    _cache: dict[object, Plain]
    _errors: tuple[
        str | None, str | tuple[str, ...] | None
    ]  # the kind of covariance, and the clusters, that were chosen for the fit
    settings: Named = {}  # of the run, where the fit is of one that was loaded
    _tokenizer: Plain = None

    def __init__(
        self,
        objective: Objective,
        certificate: Certificate,
        *,
        trace: Sequence[tuple[int, float, float]] = (),
        solver: SolverLike = None,
        call: Named | None = None,
        measured: Sequence[Mapping[str, float]] = (),
    ):
        self.__dict__.update(
            {
                "objective": objective,
                "certificate": certificate,
                "solver": solver,
                "trace": tuple(trace),
                "call": dict(call or {}),
                "measured": tuple(measured),
                "_cache": {},
                "_errors": (None, None),
            }
        )

    def __setattr__(self, name: str, value: Plain) -> None:
        raise AttributeError(
            f"a fit does not change: {name} cannot be set. Fit again, or copy what you need."
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a fit does not change: {name} cannot be deleted.")

    def __deepcopy__(self, memo: dict[int, object]) -> Plain:
        """The same fit with modules of its own. The data are shared: they do not change either."""
        out = copy.copy(self)
        out.__dict__.update(objective=self.objective.copy(), _cache=dict(self._cache))
        return out

    def to(self, device: str | torch.device) -> Fit:
        """The same fit with its models on another device ("auto", "cpu", "cuda", "mps"); this one stays where it
        is.

        Raises
        ------
        BadArgument
            torch finds no such device
        """
        objective = self.objective.copy()
        objective.move(chosen(device) or CPU)
        out: Fit = self._with(objective=objective)
        return out

    def _with(self, **changes: Plain) -> Plain:
        """The same fit with other attributes; nothing computed is kept."""
        out = copy.copy(self)
        out.__dict__.update(changes, _cache={})
        return out

    @property
    def model(self) -> ModelLike:
        """The first term's model, at θ̂."""
        return self.objective.model

    @property
    def theta(self) -> Tensor:
        """θ̂, flat, unconstrained, (p,): a copy."""
        return self.objective.theta

    @property
    def names(self) -> list[str]:
        """One name an estimate."""
        return list(self._cached("names", lambda: names_of(self.model)))

    @property
    def log_likelihood(self) -> float:
        """ℓ(θ̂) = Σ w log p, in nats: priors not included. Of a robust fit too, which maximised something
        else: `maximised`."""
        if self.robust is not None:
            plain = [LogLikelihood(term.model, term.source) for term in self.objective.terms]
            out: float = self._cached("log_likelihood", lambda: Objective(plain).value())
            return out
        known = self.known_log_likelihood
        return (
            known
            if known is not None
            else self._cached("log_likelihood", lambda: Objective(self.objective.terms).value())
        )

    @property
    def known_log_likelihood(self) -> float | None:
        """ℓ(θ̂) where it is known without a pass over the data, as every repr has to be: computed before,
        or the last step's value itself."""
        if "log_likelihood" in self._cache:
            out: float | None = self._cache["log_likelihood"]
            return out
        own = (
            self.certificate.status == "certified maximum"
            and not self.objective.priors
            and self.robust is None
        )
        return self.trace[-1][1] if own and self.trace else None

    @property
    def robust(self) -> DensityPower | Trimmed | None:
        """What was maximised in the place of the log-likelihood."""
        out: DensityPower | Trimmed | None = self.objective.terms[0].robust
        return out

    @property
    def maximised(self) -> float:
        """The value of what was maximised: the log-likelihood, or the robust sum in its place; priors
        included. Of a model that is trained by another objective it is that of the batches of its steps, and is not
        a number of the fit: refused."""
        of = next((t.model for t in self.objective.terms if maximised_of(t.model)), None)
        if of is not None:
            raise BadArgument(
                f"what was maximised, {maximised_of(of)}, is of the batches of the steps: see fit.certificate.detail. "
                "log p of the data is fit.score(data)."
            )
        out: float = self._cached("maximised", self.objective.value)
        return out

    @property
    def observations(self) -> float:
        """n = Σ count."""
        out: float = self._cached("observations", lambda: self.objective.observations)
        return out

    @property
    def tokenizer(self) -> Plain:
        """How text becomes tokens, of a language model that was fitted to text; None elsewhere."""
        return self._tokenizer if self._tokenizer is not None else tokenizer_of(self.source)

    @property
    def source(self) -> Source:
        """The data that were fitted."""
        return self.objective.terms[0].source

    def _cached(self, key: object, compute: Callable[[], Plain]) -> Plain:
        """What was computed before, or is now. A caller that hands it out copies it."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    # ---- how sure the estimates are ------------------------------------------------------------------------

    @property
    def estimates(self) -> pd.Series:
        """θ̂ on its natural scale, by name."""
        import pandas as pd

        from .inference.natural import natural

        return pd.Series(natural(self.objective, self.theta).cpu().numpy(), index=self.names, name="estimate")

    def covariance(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """The covariance of the estimates.

        Parameters
        ----------
        kind
            "observed" (J⁻¹), "expected" (Fisher's), "ols" (s²(XᵀX)⁻¹ of a normal linear model), "sandwich" or
            "HC0" (J⁻¹ K J⁻¹), "HC1", "HC2", "HC3", "cluster" (K summed within `by`; two columns: two-way),
            "CR2", "CR3", "HAC" or "HAC:4" (correlated over time, up to a lag: Newey–West), "sparsity" (of quantile
            regression), "bootstrap"; None: the fit's own (`covariance_chosen`)
        by
            the column, or two columns, whose values identify clusters; of "HAC" the column of times (several rows
            each: Driscoll–Kraay). With kind None: "cluster"
        """
        import pandas as pd

        from .inference.covariance import natural

        own = self._covariance(kind, by)
        matrix = self._cached(
            ("covariance", own), lambda: natural(self.objective, self.theta, self._prepared(kind, by))
        )
        return pd.DataFrame(matrix.numpy().copy(), index=self.names, columns=self.names)

    def standard_errors(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.Series:
        """The square roots of the covariance's diagonal (which alone is computed where a category has
        thousands of levels)."""
        import pandas as pd

        from .inference.covariance import variances

        own = self._covariance(kind, by)
        variance = self._cached(
            ("variance", own), lambda: variances(self.objective, self.theta, self._prepared(kind, by))
        )
        return pd.Series(variance.sqrt().numpy(), index=self.names, name="standard error")

    def degrees_of_freedom(
        self, kind: str | None = None, *, by: str | Sequence[str] | None = None
    ) -> pd.Series:
        """Of Student's t, to which each estimate over its standard error is referred; ∞: the normal
        distribution.

        n − p of a normal linear model, G − 1 of G clusters, Satterthwaite's of "CR2" and "CR3".
        """
        import pandas as pd

        from .inference.covariance import freedom

        df = freedom(self.objective, self.theta, self._prepared(kind, by))
        return pd.Series(df.numpy().copy(), index=self.names, name="degrees of freedom")

    @property
    def covariance_chosen(self) -> tuple[str, str | tuple[str, ...] | None]:
        """The kind of covariance, and its clusters, that every method takes where none is asked for: those of
        `with_covariance`, or the model's default."""
        return self._covariance(None, None)

    def with_covariance(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> Self:
        """The same fit with another kind of covariance, which summary, report, intervals, tests, predictions,
        effects and delta then take.

        Parameters
        ----------
        kind, by
            as of `covariance`; None and None: the model's default again

        Raises
        ------
        BadArgument
            an unknown kind, a `by` that does not fit it
        UnknownColumn
            `by` names a column that the data lack

        Examples
        --------
        >>> import thetahat as th
        >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]})
        >>> fit.with_covariance("HC3").standard_errors().round(3).to_dict()
        {'Intercept': 2.021, 'x': 0.652, 'scale': 0.269}
        """
        if kind is None and by is not None:
            kind = "cluster"
        if kind is not None:
            from .inference.covariance import check_clusters

            check_clusters(kind, by, self.source)
        out = copy.copy(self)
        out.__dict__.update(_errors=(kind, key(by)), _cache=dict(self._cache))
        return out

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
        exponentiate: bool = False,
    ) -> pd.DataFrame:
        """Confidence intervals, columns low and high.

        Parameters
        ----------
        kind
            "wald" (on the link's scale, mapped back), "profile" (the likelihood ratio inverted), "bootstrap"
            (percentile)
        parameters
            for those alone
        exponentiate
            of the coefficients of the formula alone: of exp(β), a ratio of odds, rates, hazards or times
        """
        from .inference import intervals

        wanted = [parameters] if isinstance(parameters, str) else parameters
        if exponentiate:
            from .report.ratios import coefficients

            own = coefficients(self)
            other = next((name for name in wanted or () if name in self.names and name not in own), None)
            if other is not None:
                raise BadArgument(
                    f"exponentiate=True: {other!r} is not a coefficient. Accepted: {', '.join(own)}."
                )
            wanted = own if wanted is None else wanted
        out = intervals.intervals(
            self.objective,
            self.theta,
            level,
            kind,
            parameters=wanted,
            covariance=self._prepared(covariance, by) if kind == "wald" else covariance or "observed",
            clusters=self._clusters(by or (self._errors[1] if kind == "bootstrap" else None))
            if kind != "wald"
            else None,
            draws=draws,
            seed=seed,
        )
        if exponentiate:
            out[["low", "high"]] = np.exp(out[["low", "high"]].to_numpy())
        return out

    def bootstrap(
        self, draws: int = 999, kind: str = "pairs", *, by: str | None = None, seed: int = 0, workers: int = 1
    ) -> pd.DataFrame:
        """Estimates refitted to resampled data: a row a draw. kind: "pairs", "parametric", "cluster" (whole
        clusters of `by`)."""
        from .inference import bootstrap
        from .inference.clusters import held

        clusters = held(self._clusters(by), "bootstrap")
        return bootstrap.bootstrap(
            self.objective, self.theta, draws, kind, clusters=clusters, seed=seed, workers=workers
        )

    def profile(self, parameter: str, *, points: int = 21, level: float = 0.99) -> pd.DataFrame:
        """The profile log-likelihood of one parameter: columns value, log_likelihood (relative to the
        maximum), and the signed root."""
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
        """A test of linear restrictions on the estimates: "x = 0", "x = z", ["x = 0", "z = 1"], "2*x + z =
        1"; or of a term of the formula by its name, "C(region)": that all its coefficients are 0.

        Parameters
        ----------
        kind
            "wald", "likelihood_ratio", "score"
        """
        from .inference import tests

        self._refuse_smooth([hypothesis] if isinstance(hypothesis, str) else hypothesis)
        if kind == "wald":
            return tests.test(
                self.objective, self.theta, hypothesis, kind, covariance=self._prepared(covariance, by)
            )
        given = covariance or "observed"
        return tests.test(
            self.objective, self.theta, hypothesis, kind, covariance=given, clusters=self._clusters(by)
        )

    def _refuse_smooth(self, hypotheses: Sequence[str]) -> None:
        """A smooth term is not tested by its unpenalised part."""
        from .models.mixed import Mixed

        smooths = self.model.encoder.smooths if isinstance(self.model, Mixed) else ()
        labels = {curve.label.replace(" ", "") for curve in smooths}
        for each in hypotheses:
            if each.replace(" ", "").removesuffix("=0") in labels:
                raise BadArgument(
                    f"{each!r} is of a smooth term, whose coefficients are shrunk: fit.smooths() tests it."
                )

    def delta(
        self,
        function: Callable[[dict[str, Tensor]], Plain],
        *,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Functions of the estimates by the delta method: `function(dict of name → tensor) → tensor or dict`.
        Columns estimate, standard_error."""
        from .inference import delta

        return delta.delta(self.objective, self.theta, function, kind=self._prepared(covariance, by))

    @property
    def effective_parameters(self) -> float:
        """How many parameters AIC, AICc and BIC count: those of θ; under a prior tr((J + P)⁻¹J), J of the
        likelihood and P of the prior."""
        from .inference import criteria

        out: float = self._cached(
            "effective_parameters", lambda: criteria.parameters(self.objective, self.theta)
        )
        return out

    @property
    def criteria(self) -> dict[str, float]:
        """AIC, AICc, BIC and TIC (Takeuchi's: the trace of K J⁻¹ in place of the number of parameters)."""
        if self.robust is not None:
            raise BadArgument(
                f"AIC, BIC and TIC belong to the maximum of a likelihood, and {self.robust} maximised "
                "something else. Compare by rows held out: "
                "fit.score(data)."
            )
        from .inference import criteria

        found = self._cached(
            "criteria",
            lambda: criteria.criteria(self.objective, self.theta, self.log_likelihood, self.observations),
        )
        return dict(found)

    @property
    def evidence(self) -> float:
        """log ∫ p(data | θ) p(θ) dθ, nats: the probability of the data under the priors, by Laplace's
        approximation at θ̂."""
        from .inference import evidence

        if self.robust is not None:
            raise BadArgument(
                f"the evidence is an integral of the likelihood, and {self.robust} maximised something else."
            )
        out: float = self._cached("evidence", lambda: evidence.evidence(self.objective, self.theta))
        return out

    # ---- how good the fit is, and what it says of data -----------------------------------------------------

    def score(self, data: Data = None, *, samples: int | None = None, seed: int = 0) -> Score:
        """The log-likelihood of data (None: those fitted), with its kind, measure, units and fingerprint. Of a mixed model
        new rows are of groups that were not fitted (`evaluation.new_groups`).

        Parameters
        ----------
        samples
            K, draws an observation of a model whose value is a bound; None: as many as in the fit. More are
            tighter
        seed
            of those draws: the same for two models gives them common ones
        """
        from .evaluation import new_data, score

        model = self.model
        if samples is not None:
            if not isinstance(model, Tightened):
                raise BadArgument(
                    f"samples={samples}: the score of {type(model).__name__} is not made of draws."
                )
            model = model.tightened(samples)
        generator = torch.Generator().manual_seed(seed)
        if data is not None and isinstance(model, Steers):
            from .evaluation import new_groups

            return score.score(*new_groups.scored(self.objective, data), generator=generator)
        return score.score(
            model,
            self.source if data is None else new_data.source_like(self.model, data),
            generator=generator,
        )

    def surprise(
        self, new: Data, reference: Data, *, level: float = 0.1, samples: int | None = None, seed: int = 0
    ) -> Surprise:
        """Which new rows the fit finds surprising beside reference rows that it has not seen: conformal
        p-values, a test, flagged rows.

        Parameters
        ----------
        level
            the expected share of flags that are false
        samples, seed
            as of `score`
        """
        from .evaluation import surprise

        return surprise.surprise(self, reference, new, level=level, samples=samples, seed=seed)

    def lack_of_fit(self) -> LackOfFit:
        """KL(data ‖ fit), how far the fit is from the best possible, where the entropy of its data can be
        told; else why it cannot."""
        from .evaluation import lack_of_fit

        return lack_of_fit.lack_of_fit(self.model, self.source)

    def compare(self, other: Fit, data: Data = None) -> Comparison:
        """Paired comparison with another fit on the same data; refused, with the reason, where it would be
        false."""
        from .evaluation import compare

        return compare.compare({"this": self, "other": other}, data)

    def predict(
        self,
        data: Data = None,
        what: str = "mean",
        *,
        level: float | None = None,
        kind: str = "confidence",
        times: Sequence[float] | float | None = None,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
        groups: str | None = None,
        unseen: str = "raise",
    ) -> np.ndarray | pd.Series | pd.DataFrame:
        """Predictions for new rows, or for those fitted: one for each row that was given, in its order, NaN
        where a value is missing.

        Of a pandas table a Series (or a data frame) with the table's index; else an array (or a data frame
        with row numbers). A row that the fit left out because its response is missing, or its weight 0, is
        NaN too.

        Parameters
        ----------
        what
            "mean" (of a quantile regression: the quantile), "linear" (the first parameter's η), "quantile" (at `level`), "probabilities", or a
            parameter's name; at `times` "survival", "cumulative_hazard", "hazard", "restricted_mean"
            (`evaluation.survival_prediction`): a data frame of a row a row and time, with columns row, time, value
        level
            with it, a data frame with columns value, low, high; kind "confidence" (of the prediction),
            "prediction" (of a new y)
        groups
            of a mixed model: "known", the groups that were fitted (the default), or "average", random effects left
            out, for which new rows need no grouping column, or "new": random effects integrated out, the mean of a group that
            was not fitted, whose interval of a new y holds how groups differ. Smooth terms count in all
        times
            at which a curve is predicted, at least 0
        unseen
            a new row with a level, or a group, of which no row was fitted is an error ("raise"), or NaN ("nan")
        """
        from .evaluation import new_data, predict, survival_prediction
        from .report.frames import WholeFrame, whole

        if what in survival_prediction.WHATS:
            if unseen != "raise":
                raise BadArgument(
                    f"unseen={unseen!r} is not of a curve. Accepted with what={what!r}: 'raise'."
                )
            return self._curves(data, what, times, level, kind, covariance, by, groups)
        if times is not None:
            raise BadArgument(
                f"times= is of a curve, and what={what!r} is not one. Accepted with times: "
                f"{', '.join(map(repr, survival_prediction.WHATS))}."
            )
        if groups == "new":
            return self._of_new_group(data, what, level, kind, covariance, by, unseen)
        plain = level is None or kind == "plug-in" or what == "quantile"
        objective = self._of_rows(groups, "predict")
        if level is not None and kind != "confidence" and groups == "average":
            self._refuse_without_groups(kind)
        V = None if plain else self._of_predictions(objective, groups, covariance, by)
        rows, alignment = new_data.aligned(objective.model, self.source, data, unseen, groups != "average")
        found = predict.predict(objective, objective.theta, rows, what, level=level, kind=kind, covariance=V)
        out: np.ndarray | pd.Series | pd.DataFrame = alignment(found)
        return whole(out) if isinstance(out, WholeFrame) else out

    def _of_predictions(
        self, objective: Objective, groups: str | None, covariance: str | None, by: str | Sequence[str] | None
    ) -> Covariance:
        """V of the coordinates on which the rows of `_of_rows` depend."""
        from .evaluation.known_groups import marginal, of_average_rows

        if objective is self.objective:
            return self._prepared(covariance, by)
        if marginal(self.model, groups):
            return of_average_rows(objective, self._prepared(covariance, by))
        return self._of_known(groups, covariance, by)

    def _of_new_group(
        self,
        data: Data,
        what: str,
        level: float | None,
        kind: str,
        covariance: str | None,
        by: str | Sequence[str] | None,
        unseen: str,
    ) -> np.ndarray | pd.Series | pd.DataFrame:
        """`predict` of a group that was not fitted."""
        from .evaluation import marginal_prediction, new_data
        from .evaluation.known_groups import Known
        from .models.mixed import Mixed

        if not isinstance(self.model, Mixed):
            raise BadArgument(
                f"predict(groups='new') integrates over the random effects of a formula, and a {type(self.model).__name__} has "
                "none. Of latent variables of one's own draw them: fit.sample(4000, data)."
            )
        known = self._of_rows("average").model
        assert isinstance(known, Known)
        smooth = any(r.smooth for r in self.model.random)
        V = None if level is None else self._joint("average") if smooth else self._prepared(covariance, by)
        rows, alignment = new_data.aligned(known, self.source, data, unseen, False)
        found = marginal_prediction.predict_new(self.objective, known, V, rows, what, level=level, kind=kind)
        out: np.ndarray | pd.Series | pd.DataFrame = alignment(found)
        return out

    def _refuse_without_groups(self, kind: str) -> None:
        """An interval of a new y at random effects of 0, which leaves out how groups differ."""
        from .models.random_effects import RandomEffects

        if isinstance(self.model, RandomEffects) and any(not r.smooth for r in self.model.random):
            raise BadArgument(
                f"predict(kind={kind!r}, groups='average'): an interval of a new y that leaves out how groups differ is too "
                "narrow for a new group. Accepted: groups='known', or of a new group groups='new'."
            )

    def _curves(
        self,
        data: Data,
        what: str,
        times: Sequence[float] | float | None,
        level: float | None,
        kind: str,
        covariance: str | None,
        by: str | Sequence[str] | None,
        groups: str | None,
    ) -> pd.DataFrame:
        """`predict` of a curve: a row a row of the data and time."""
        from .evaluation import new_data, survival_prediction

        if kind != "confidence":
            raise BadArgument(f"kind={kind!r} is an interval of a new y, and what={what!r} is not one.")
        if self._is_cox:
            return self._cox_curves(data, what, times, level, groups)
        objective = self._of_rows(groups, "predict")
        V = None if level is None else self._of_predictions(objective, groups, covariance, by)
        rows, alignment = new_data.aligned(self.model, self.source, data)
        found = survival_prediction.curves(
            objective, objective.theta, rows, what, times, level=level, covariance=V
        )
        assert times is not None  # `curves` refuses it
        labels = np.arange(alignment.size) if alignment.index is None else alignment.index
        return survival_prediction.long(np.asarray(alignment(found)), times, labels)

    @property
    def _is_cox(self) -> bool:
        from .families.cox import Cox
        from .models.base import family_of

        return isinstance(family_of(self.model), Cox)

    def _cox_curves(
        self,
        data: Data,
        what: str,
        times: Sequence[float] | float | None,
        level: float | None,
        groups: str | None,
    ) -> pd.DataFrame:
        """Of Cox's model, with the columns that a parametric family's curves have."""

        from .evaluation import cox_curves
        from .evaluation.modes import rows_of

        if what not in ("survival", "cumulative_hazard"):
            raise BadArgument(
                f"what={what!r} is not defined for Cox's model, whose hazard is a mass at each time of an event. Accepted: "
                "'survival', 'cumulative_hazard'; fit.baseline() has the masses."
            )
        at = None if times is None else [float(t) for t in np.atleast_1d(np.asarray(times, dtype=np.float64))]
        given = rows_of(self.source) if data is None else data
        found = cox_curves.curves(self, given, at, 0.95 if level is None else level, groups=groups)
        out: pd.DataFrame = found.rename(columns={"survival": "value"})
        if what == "cumulative_hazard":
            ends = -np.log(out[["high", "low"]].to_numpy())
            out["value"], out["low"], out["high"] = out["cumulative_hazard"], ends[:, 0], ends[:, 1]
        kept = ["row", *(["stratum"] if "stratum" in out else []), "time", "value"]
        return out[kept if level is None else [*kept, "low", "high"]]

    def proportional_hazards(self, transform: str = "km", *, terms: bool = True) -> pd.DataFrame:
        """Of Cox's model: the score test of each term that its hazard ratio does not change with time, and of all together
        (R's cox.zph).

        Parameters
        ----------
        transform
            of time: "km", "rank", "identity", "log"
        terms
            one test a term of the formula, else one a coefficient
        """
        from .evaluation import cox_residuals

        return cox_residuals.proportional_hazards(self, transform, terms=terms)

    def concordance(self, data: Data = None) -> Concordance:
        """Harrell's C: of the pairs of rows of which it is known whose time was longer, the share of which the fit says
        so, by the median of each row (the mean, where the family has no quantiles). None: the data fitted.

        Raises
        ------
        BadArgument
            rows that are known only to lie in an interval, a model without a family
        """
        from .evaluation import concordance, new_data

        source = self.source if data is None else new_data.source_like(self.model, data)
        return concordance.of_model(self.model if self._is_cox else self._of_rows().model, source)

    def sample(
        self,
        n: int | None = None,
        data: Data = None,
        *,
        seed: int = 0,
        label: Plain = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Draws of y from the fitted model: n for each row of data (None: one each), shape (rows,) or (n,
        rows), NaN as in `predict`.

        Of a model without predictors that draws whole observations (images), n of them (None: one), (n, …).

        Parameters
        ----------
        label
            of such a model with classes: the class of all draws, or of each, (n,)
        guidance
            of a diffusion with classes: how far its draws are led towards the class (1: not at all;
            `Diffusion.guided`)
        """
        from .evaluation import new_data, predict

        model = self.model
        wanted = {"label": label, "guidance": guidance}
        given = {name: value for name, value in wanted.items() if value is not None}
        able = {"label": classes_of(model) is not None, "guidance": isinstance(model, Guides)}
        for name in given:
            if not able[name] or not isinstance(model, Draws):
                raise BadArgument(
                    f"sample({name}={given[name]!r}): a {type(model).__name__} "
                    + (
                        "has no classes."
                        if name == "label"
                        else "cannot be guided: that is for a diffusion with classes."
                    )
                )
        if isinstance(model, Draws):
            if data is not None:
                raise BadArgument(
                    f"{type(model).__name__} draws whole observations, and takes no data: sample(n)."
                )
            draw: Callable[..., Tensor] = model.draw
            with torch.no_grad():
                found = draw(1 if n is None else n, generator=torch.Generator().manual_seed(seed), **given)
                return found.cpu().numpy()
        rows, alignment = new_data.aligned(self.model, self.source, data)
        drawn = predict.sample(self.model, rows, n, seed=seed)
        return alignment(drawn) if n is None else np.moveaxis(alignment(np.moveaxis(drawn, 1, 0)), 0, 1)

    def decode(self, data: Data = None) -> pd.DataFrame:
        """The states of a hidden Markov model, in the order of the rows: columns state, of the most probable path
        (Viterbi), and P(1), P(2), …, given all of y. None: of the data fitted.

        Raises
        ------
        BadArgument
            the model has no hidden states
        """
        from .evaluation import hidden, new_data

        model = hidden.hidden(self.model, "decode")
        return hidden.decode(model, self.source if data is None else new_data.source_like(model, data))

    def forecast(
        self, steps: int, data: Data = None, *, levels: Sequence[float] = (0.05, 0.5, 0.95)
    ) -> pd.DataFrame:
        """The rows that follow each sequence of a hidden Markov model, as if θ̂ were true: probabilities of the states,
        the mean and quantiles of y.

        Parameters
        ----------
        steps
            how many rows ahead
        data
            the predictors of those rows, where the model has some: `steps` rows for each sequence
        levels
            of the quantiles

        Raises
        ------
        BadArgument
            the model has no hidden states, or predictors are not given
        """
        from .evaluation import hidden

        return hidden.forecast(hidden.hidden(self.model, "forecast"), self.source, steps, data, levels)

    def residuals(self, kind: str = "quantile", *, seed: int = 0) -> np.ndarray | pd.Series | pd.DataFrame:
        """Of each row: "quantile" (randomised for counts; standard normal if the model is true), "response",
        "pearson", "deviance"; of Cox's model "martingale", "cox-snell", "deviance", "score", "dfbeta", "schoenfeld", "scaled schoenfeld".

        One for each row that was given, in its order and with its index, as `predict` does: NaN where the fit
        left the row out.
        """
        if self._is_cox:
            from .evaluation import cox_residuals

            return cox_residuals.residuals(self, kind)
        from .evaluation import residuals
        from .evaluation.outliers import alignment_of

        out: np.ndarray | pd.Series = alignment_of(self.source)(
            residuals.residuals(self._of_rows().model, self.source, kind, seed=seed)
        )
        return out

    def calibration(
        self, data: Data = None, *, bins: int = 10, level: float = 0.95, at: float | None = None
    ) -> pd.DataFrame:
        """Predicted against observed means, in bins of equal numbers: columns predicted, observed, low, high,
        n. None: the data fitted.

        Parameters
        ----------
        at
            of censored times, P(T ≤ at) is predicted, and Kaplan and Meier's observed; None: at the median of
            the times of events. Of a response that is a category: the probability of each level
        """
        from .evaluation import calibration, new_data, survival_calibration

        if self._is_cox:
            return survival_calibration.calibration(self, data, bins=bins, level=level, at=at)
        source = self.source if data is None else new_data.source_like(self.model, data)
        return calibration.calibration(self._of_rows().model, source, bins=bins, level=level, at=at)

    def calibration_error(
        self,
        data: Data = None,
        *,
        of: str = "top",
        bins: int = 15,
        level: float = 0.95,
        draws: int = 999,
        seed: int = 0,
    ) -> CalibrationError:
        """How far a classifier's probabilities are from what happened, root mean square, with an interval.
        None: the data fitted.

        Parameters
        ----------
        of
            "top", the most probable category's probability; "classes", each category's
        """
        from .evaluation import calibration_error, new_data

        source = self.source if data is None else new_data.source_like(self.model, data)
        return calibration_error.calibration_error(
            self.model, source, of=of, bins=bins, level=level, draws=draws, seed=seed
        )

    def outliers(self, most: int | None = 10) -> pd.DataFrame:
        """The rows that the fit finds least probable, worst first: columns weight (in the fit), surprise
        (−log p, nats), observed, expected.

        Parameters
        ----------
        most
            how many; None: all rows
        """
        from .evaluation import outliers

        objective = self._of_rows()
        return outliers.outliers(objective, objective.theta, most)

    @property
    def kept(self) -> np.ndarray:
        """The rows that a trimmed fit kept: their labels in the index of a pandas table, else their
        numbers from 0."""
        from .evaluation import outliers

        out: np.ndarray = self._cached("kept", lambda: outliers.kept(self.objective, self.theta)).copy()
        return out

    def influence(self) -> pd.DataFrame:
        """Of each row that was given: leverage, and Cook's distance; NaN where the fit left the row out."""
        if self.robust is not None:
            raise BadArgument(
                "leverage and Cook's distance are those of maximum likelihood. What each row weighs under "
                f"{self.robust}: fit.outliers(None)."
            )
        from .evaluation import residuals
        from .evaluation.outliers import alignment_of

        out: pd.DataFrame = alignment_of(self.source)(residuals.influence(self.objective, self.theta))
        return out

    def random_effects(self, group: str | None = None) -> pd.DataFrame:
        """Of a mixed model: the conditional mode of each group's effects with its standard error, columns parameter,
        factor, group, effect, mode, standard_error.

        Parameters
        ----------
        group
            of that grouping factor alone
        """
        from .evaluation import modes

        return modes.random_effects(self.objective, group)

    def variance_components(self, level: float = 0.95, *, intervals: str | None = "profile") -> pd.DataFrame:
        """Of a mixed model: standard deviations, variances and correlations of the random effects, a row each, with their
        intervals (low and high: of the standard deviation, or of the correlation).

        Parameters
        ----------
        intervals
            "profile" (the likelihood ratio inverted), "wald", or None
        """
        from .inference import variance_components
        from .report.frames import whole

        out: pd.DataFrame = self._cached(
            ("components", level, intervals),
            lambda: variance_components.components(self.objective, level, intervals),
        )
        return whole(out.copy())

    def test_random(self, term: str) -> VarianceTest:
        """Whether a term of random effects is needed: the likelihood-ratio test against the fit without it, referred to the
        mixture of χ² that holds at the boundary.

        Parameters
        ----------
        term
            "(Days | Subject)", as the formula has it, or its group, "Subject"
        """
        from .inference import variance_components

        return variance_components.test_random(self.objective, term)

    def smooths(self) -> pd.DataFrame:
        """Of smooth terms: effective and reference degrees of freedom, statistic and p-value, a row a term."""
        from .evaluation import smooth_terms

        out: pd.DataFrame = self._cached("smooths", lambda: smooth_terms.smooths(self.objective)).copy()
        return out

    def concurvity(self, full: bool = True, *, parameter: str | None = None) -> pd.DataFrame:
        """How far each smooth term could be made of the others, from 0 to 1: worst, observed, estimate, a row a term.

        Parameters
        ----------
        full
            with all the others; False: with each other term alone, a row (measure, other term) and a column a term
        parameter
            of the family, whose terms they are; None: its first
        """
        from .evaluation.concurvity import concurvity

        return concurvity(self.objective, full, parameter)

    def curve(
        self,
        term: str,
        data: Data = None,
        *,
        level: float = 0.95,
        simultaneous: bool = False,
        derivative: bool = False,
        seed: int = 0,
    ) -> pd.DataFrame:
        """A smooth term's own part of its linear predictor, with its band: value, standard_error, low, high, and whether
        a row lies outside the range that was fitted.

        Parameters
        ----------
        term
            its name, "s(x)", as `smooths` has it
        data
            rows at which it is wanted; None: even points of the range of its one variable, of a curve of each group for each
            of at most 50 groups
        simultaneous
            a band of the whole curve
        derivative
            of the first derivative
        seed
            of the draws of a simultaneous band
        """
        from .evaluation import smooth_terms

        return smooth_terms.curve(
            self.objective,
            term,
            data,
            level=level,
            simultaneous=simultaneous,
            derivative=derivative,
            seed=seed,
        )

    def partial_residuals(self, term: str) -> pd.DataFrame:
        """What the data say of a smooth term's curve, the other terms taken as they are: the column it reads, value, and
        residual, the curve plus a Newton step of the row's own linear predictor (y − μ of a normal mean).

        Parameters
        ----------
        term
            its name, "s(x)", as `smooths` has it
        """
        from .evaluation.partial_residuals import partial_residuals

        return partial_residuals(self.objective, term)

    def baseline(self) -> pd.DataFrame:
        """Of Cox's model: the baseline hazard, at predictors that are all 0; columns stratum, time, events, at_risk, hazard,
        cumulative_hazard, survival."""
        from .evaluation import cox_curves

        return cox_curves.baseline_hazard(self)

    # ---- how it is shown and saved -------------------------------------------------------------------------

    def choose_prior(
        self,
        candidates: Sequence[Prior | Sequence[Prior] | None],
        by: str = "held out",
        *,
        folds: int = 10,
        seed: int = 0,
    ) -> Choice:
        """The fit with each of several priors, and which of them the data ask for: a table, and the chosen
        fit.

        Parameters
        ----------
        by
            "held out" (nats of rows that the fit has not seen), "one standard error" (the least scale that is
            as good to within its error), "evidence" (the probability of the data under each prior)
        """
        from .evaluation import prior_choice

        own = self.objective
        chosen = prior_choice.choose(own, self.theta, candidates, by, folds=folds, seed=seed)
        chosen.fit = self._maximised(
            Objective(own.terms, [LogPrior(each, own.model) for each in chosen.prior])
        )
        return chosen

    def _maximised(self, objective: Objective) -> Fit:
        """The fit of an objective that has a maximum, as this one was called."""
        solver = choose(objective)
        found, certificate, trace = optimise(objective, solver)
        return Fit(found, certificate, trace=trace, solver=solver, call=self.call)

    def summary(
        self,
        *,
        level: float = 0.95,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
        exponentiate: bool = False,
    ) -> Summary:
        """The fit on one screen: it prints itself, in colour where the terminal has it, as HTML in a
        notebook. exponentiate: coefficients as ratios of odds, rates, hazards or times, exp(β)."""
        from .report import summary

        return summary.Summary(self, level=level, covariance=covariance, by=by, exponentiate=exponentiate)

    def plot(self, what: str = "estimates") -> Chart:
        """A chart: "estimates", "calibration", "residuals", "survival", "proportional_hazards", "influence", "profile",
        "random_effects", "smooths", "trace"."""
        from .report import plots

        return plots.plot(self, what)

    def report(self, path: str | Path) -> Path:
        """One HTML file that opens offline: what was fitted, the certificate in words, coefficients,
        calibration, residuals, profiles."""
        from .report import html

        return html.write(self, Path(path))

    def save(self, path: str | Path) -> Path:
        """Write the fit to one folder-less file: safetensors and JSON, versioned; no pickle, no row of the
        data."""
        from .io.saving import save

        return save(self, Path(path))

    def __repr__(self) -> str:
        """In one line, of what is known: no pass over the data is made."""
        size = self.objective.size
        shown = f"{type(self.model).__name__} of {size:,} parameters"
        if size <= LARGE:
            shown = ", ".join(f"{k}={v:.4g}" for k, v in list(self.estimates.items())[:4]) + (
                ", …" if size > 4 else ""
            )
        known = self.known_log_likelihood
        value = "" if known is None else f" log_likelihood={known:.6g} nats;"
        return encodable(printable(f"Fit({shown};{value} {self.certificate.status})"))

    def _repr_html_(self) -> str:
        out: str = self.summary()._repr_html_()
        return out

    # ---- a mixed model, seen from its rows --------------------------------------------------------------

    def _of_rows(self, groups: str | None = None, what: str = "") -> Objective:
        """The objective of which a row has a distribution of its own: of a mixed model, given its random effects."""
        from .models.random_effects import RandomEffects

        if not isinstance(self.model, RandomEffects):
            if groups is not None:
                raise BadArgument(
                    f"{what}(groups={groups!r}): a {type(self.model).__name__} has no random effects."
                )
            return self.objective
        found: Objective = self._known(groups)[0]
        return found

    def _joint(self, groups: str | None) -> Covariance:
        out: Covariance = self._known(groups)[1]
        return out

    def _known(self, groups: str | None) -> Plain:
        from .evaluation.known_groups import by_rows

        return self._cached(("known", groups), lambda: by_rows(self.objective, groups))

    # ---- the covariance that is meant ----------------------------------------------------------------------

    def _covariance(
        self, kind: str | None, by: str | Sequence[str] | None
    ) -> tuple[str, str | tuple[str, ...] | None]:
        """The kind and the clusters that were asked for; those of `with_covariance`; or the model's
        default."""
        from .inference import covariance

        own, clusters = self._errors
        if kind is None and by is None and own is not None:
            return own, clusters
        if kind is None:
            return (covariance.default(self.objective) if by is None else "cluster"), key(by)
        return kind, key(by if by is not None or kind != own else clusters)

    def _prepared(self, kind: str | None, by: str | Sequence[str] | None) -> Covariance:
        """V of θ̂, made ready once for each kind and each choice of clusters."""
        from .inference.covariance import prepare

        own, clusters = self._covariance(kind, by)
        out: Covariance = self._cached(
            ("prepared", own, clusters), lambda: prepare(self.objective, own, self._clusters(clusters))
        )
        return out

    def _clusters(self, by: str | Sequence[str] | None) -> Sequence[Labels] | None:
        if by == self._errors[1] and self.objective.spread is not None:
            return None  # of a fit that was saved without its rows, which has its covariance
        return labels(by, self.source)
