"""What inference can be asked of a fit, from `log_prob` alone: errors, intervals, tests, criteria. Each is
computed when it is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from ..errors import BadArgument
from ..solvers.found import Found
from ..types import Plain

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from ..data import Source
    from .covariance import Covariance
    from .tests import Test


class Inference(Found):
    """How sure the estimates are."""

    @property
    def estimates(self) -> pd.Series:
        """θ̂ on its natural scale, by name."""
        import pandas as pd

        from .natural import natural

        return pd.Series(natural(self.objective, self.theta).numpy(), index=self.names, name="estimate")

    def covariance(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """The covariance of the estimates.

        Parameters
        ----------
        kind
            "observed" (J⁻¹), "expected" (Fisher's), "ols" (s²(XᵀX)⁻¹ of a normal linear model), "sandwich" or
            "HC0" (J⁻¹ K J⁻¹), "HC1", "HC2", "HC3", "cluster" (K summed within `by`; two columns: two-way),
            "CR2", "CR3", "sparsity" (of quantile regression), "bootstrap"; None: the fit's own
            (`covariance_chosen`)
        by
            the column, or two columns, whose values identify clusters. With kind None: "cluster"
        """
        import pandas as pd

        from .covariance import natural

        own = self._covariance(kind, by)
        matrix = self._cached(
            ("covariance", own), lambda: natural(self.objective, self.theta, self._prepared(kind, by))
        )
        return pd.DataFrame(matrix.numpy().copy(), index=self.names, columns=self.names)

    def standard_errors(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.Series:
        """The square roots of the covariance's diagonal (which alone is computed where a category has
        thousands of levels)."""
        import pandas as pd

        from .covariance import variances

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

        from .covariance import freedom

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
            asked(kind, by, self.source)
        out = copy.copy(self)
        out.__dict__.update(_errors=(kind, _key(by)), _cache=dict(self._cache))
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
    ) -> pd.DataFrame:
        """Confidence intervals, columns low and high.

        Parameters
        ----------
        kind
            "wald" (on the link's scale, mapped back), "profile" (the likelihood ratio inverted), "bootstrap"
            (percentile)
        parameters
            for those alone
        """
        from . import intervals

        wanted = [parameters] if isinstance(parameters, str) else parameters
        return intervals.intervals(
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

    def bootstrap(
        self, draws: int = 999, kind: str = "pairs", *, by: str | None = None, seed: int = 0, workers: int = 1
    ) -> pd.DataFrame:
        """Estimates refitted to resampled data: a row a draw. kind: "pairs", "parametric", "cluster" (whole
        clusters of `by`)."""
        from . import bootstrap

        return bootstrap.bootstrap(
            self.objective, self.theta, draws, kind, clusters=self._clusters(by), seed=seed, workers=workers
        )

    def profile(self, parameter: str, *, points: int = 21, level: float = 0.99) -> pd.DataFrame:
        """The profile log-likelihood of one parameter: columns value, log_likelihood (relative to the
        maximum), and the signed root."""
        from . import profile

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
        1".

        Parameters
        ----------
        kind
            "wald", "likelihood_ratio", "score"
        """
        from . import tests

        if kind == "wald":
            return tests.test(
                self.objective, self.theta, hypothesis, kind, covariance=self._prepared(covariance, by)
            )
        given = covariance or "observed"
        return tests.test(
            self.objective, self.theta, hypothesis, kind, covariance=given, clusters=self._clusters(by)
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
        from . import delta

        return delta.delta(self.objective, self.theta, function, kind=self._prepared(covariance, by))

    @property
    def effective_parameters(self) -> float:
        """How many parameters AIC, AICc and BIC count: those of θ; under a prior tr((J + P)⁻¹J), J of the
        likelihood and P of the prior."""
        from . import criteria

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
        from . import criteria

        found = self._cached(
            "criteria",
            lambda: criteria.criteria(self.objective, self.theta, self.log_likelihood, self.observations),
        )
        return dict(found)

    @property
    def evidence(self) -> float:
        """log ∫ p(data | θ) p(θ) dθ, nats: the probability of the data under the priors, by Laplace's
        approximation at θ̂."""
        from . import evidence

        if self.robust is not None:
            raise BadArgument(
                f"the evidence is an integral of the likelihood, and {self.robust} maximised something else."
            )
        out: float = self._cached("evidence", lambda: evidence.evidence(self.objective, self.theta))
        return out

    def _covariance(
        self, kind: str | None, by: str | Sequence[str] | None
    ) -> tuple[str, str | tuple[str, ...] | None]:
        """The kind and the clusters that were asked for; those of `with_covariance`; or the model's
        default."""
        from . import covariance

        own, clusters = self._errors
        if kind is None and by is None and own is not None:
            return own, clusters
        if kind is None:
            return (covariance.default(self.objective) if by is None else "cluster"), _key(by)
        return kind, _key(by if by is not None or kind != own else clusters)

    def _prepared(self, kind: str | None, by: str | Sequence[str] | None) -> Covariance:
        """V of θ̂, made ready once for each kind and each choice of clusters."""
        from .covariance import prepare

        own, clusters = self._covariance(kind, by)
        out: Covariance = self._cached(
            ("prepared", own, clusters), lambda: prepare(self.objective, own, self._clusters(clusters))
        )
        return out

    def _clusters(self, by: str | Sequence[str] | None) -> list[np.ndarray] | None:
        if by == self._errors[1] and self.objective.spread is not None:
            return None  # of a fit that was saved without its rows, which has its covariance
        return labels(by, self.source)


def _key(by: str | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """What can be remembered by."""
    return by if by is None or isinstance(by, str) else tuple(by)


def labels(by: str | Sequence[str] | None, source: Source) -> list[np.ndarray] | None:
    """The columns that identify clusters, one label a row that was fitted."""
    if by is None:
        return None
    import pandas as pd

    from ..data.table import Table

    columns = [by] if isinstance(by, str) else list(by)
    if not isinstance(source, Table):
        return [torch.cat([b[c] for b in source.batches()]).numpy() for c in columns]
    found = [source.column(c) for c in columns]
    for name, cells in zip(columns, found, strict=True):
        missing = np.flatnonzero(pd.isna(cells))
        if len(missing):
            row = source.alignment.numbers[missing[0]]
            raise BadArgument(
                f"by={name!r}: the column is missing in row {row}, which was fitted. Every row needs a "
                "cluster."
            )
        if len(pd.unique(cells)) < 2:
            raise BadArgument(
                f"by={name!r}: the column has one value only ({pd.Series(cells).tolist()[0]!r}), and errors "
                "need several clusters."
            )
    return found


def asked(kind: str, by: str | Sequence[str] | None, source: Source) -> None:
    """Refuse a kind of covariance, or clusters, that a fit of this source could not have."""
    from . import covariance

    covariance.check(kind, labels(by, source))
