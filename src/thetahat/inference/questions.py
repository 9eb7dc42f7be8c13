"""What inference can be asked of a fit, from `log_prob` alone: errors, intervals, tests, criteria. Each is computed when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import BadArgument
from ..solvers.found import Found

if TYPE_CHECKING:
    import pandas as pd

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
        kind : "observed" (J⁻¹), "expected" (Fisher's), "sandwich" (J⁻¹ K J⁻¹), "cluster" (K summed within `by`; two columns: two-way),
            "bootstrap"; None: "observed", but "sandwich" of a robust fit
        by : the column, or two columns, that name the clusters
        """
        import pandas as pd

        from . import covariance

        kind = self._covariance(kind)
        matrix = self._cached(
            ("covariance", kind, by if by is None or isinstance(by, str) else tuple(by)),
            lambda: covariance.natural(self.objective, self.theta, kind=kind, clusters=self._clusters(by)),
        )
        return pd.DataFrame(matrix.numpy().copy(), index=self.names, columns=self.names)

    def standard_errors(self, kind: str | None = None, *, by: str | Sequence[str] | None = None) -> pd.Series:
        """The square roots of the covariance's diagonal (which alone is computed where a category has thousands of levels)."""
        import pandas as pd

        from . import covariance

        kind = self._covariance(kind)
        variance = self._cached(
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
        from . import intervals

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
        from . import bootstrap

        return bootstrap.bootstrap(
            self.objective, self.theta, draws, kind, clusters=self._clusters(by), seed=seed, workers=workers
        )

    def profile(self, parameter: str, *, points: int = 21, level: float = 0.99) -> pd.DataFrame:
        """The profile log-likelihood of one parameter: columns value, log_likelihood (relative to the maximum), and the signed root."""
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
        """A test of linear restrictions on the estimates: "x = 0", "x = z", ["x = 0", "z = 1"], "2*x + z = 1".

        kind : "wald", "likelihood_ratio", "score"
        """
        from . import tests

        own = self._covariance(covariance) if kind == "wald" else covariance or "observed"
        return tests.test(self.objective, self.theta, hypothesis, kind, covariance=own, clusters=self._clusters(by))

    def delta(self, function: Any, *, covariance: str | None = None) -> pd.DataFrame:
        """Functions of the estimates by the delta method: `function(dict of name → tensor) → tensor or dict`. Columns estimate, standard_error."""
        from . import delta

        return delta.delta(self.objective, self.theta, function, kind=self._covariance(covariance))

    @property
    def criteria(self) -> dict[str, float]:
        """AIC, AICc, BIC and TIC (Takeuchi's: the trace of K J⁻¹ in place of the number of parameters)."""
        if self.robust is not None:
            raise BadArgument(
                f"AIC, BIC and TIC belong to the maximum of a likelihood, and {self.robust} maximised something else. Compare by rows held out: "
                "fit.score(data)."
            )
        from . import criteria

        found = self._cached(
            "criteria", lambda: criteria.criteria(self.objective, self.theta, self.log_likelihood, self.observations)
        )
        return dict(found)

    @property
    def evidence(self) -> float:
        """log ∫ p(data | θ) p(θ) dθ, nats: the probability of the data under the priors, by Laplace's approximation at θ̂."""
        from . import evidence

        if self.robust is not None:
            raise BadArgument(f"the evidence is an integral of the likelihood, and {self.robust} maximised something else.")
        return self._cached("evidence", lambda: evidence.evidence(self.objective, self.theta))

    def _covariance(self, kind: str | None) -> str:
        """The kind that was asked for, or the default."""
        from . import covariance

        return covariance.default(self.objective) if kind is None else kind

    def _clusters(self, by: str | Sequence[str] | None) -> list[np.ndarray] | None:
        if by is None:
            return None
        from ..data.table import Table

        columns = [by] if isinstance(by, str) else list(by)
        if not isinstance(self.source, Table):
            return [torch.cat([b[c] for b in self.source.batches()]).numpy() for c in columns]
        return [self.source.column(c) for c in columns]
