"""What is asked of a fit after it is made: tests of its terms, criteria, tests of its residuals. `Fit` inherits these methods;
each says what it takes and gives, and delegates to the module that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .likelihood import Objective
from .protocols import HasObjective
from .types import Named

if TYPE_CHECKING:
    import pandas as pd

    from .evaluation.checks import Checks
    from .evaluation.prior_path import PriorPath
    from .inference.covariance import Covariance
    from .inference.tests import Test


def anova(*fits: HasObjective) -> pd.DataFrame:
    """Likelihood-ratio tests of nested fits, from the smallest to the largest: a row a fit.

    Parameters
    ----------
    fits
        two or more of the same rows, each within the next (in any order)

    Returns
    -------
    pd.DataFrame
        columns parameters, log_likelihood, AIC, degrees_of_freedom, statistic, p_value, reference: the distribution under
        the smaller model. A p-value whose reference says ≤ is an upper bound

    Raises
    ------
    BadArgument
        fits that are not nested, of other rows, of families that are not nested, under priors or weights, restricted likelihoods of other
        fixed effects

    Examples
    --------
    >>> import thetahat as th
    >>> ships = th.data.shipped("ships")
    >>> small = th.fit("incidents ~ type + offset(log(service))", ships, "poisson")
    >>> large = th.fit("incidents ~ type + built + offset(log(service))", ships, "poisson")
    >>> th.anova(small, large)[["degrees_of_freedom", "statistic"]].round(2).iloc[1].to_dict()
    {'degrees_of_freedom': 3.0, 'statistic': 41.53}
    """
    from .evaluation import nested
    from .report.frames import whole

    return whole(nested.anova(*fits))


class FitTests:
    """The tests of a fit, of which `Fit` says what they are of."""

    objective: Objective
    call: Named

    if TYPE_CHECKING:

        @property
        def theta(self) -> Tensor: ...

        _errors: tuple[str | None, str | tuple[str, ...] | None]

        def _prepared(self, kind: str | None, by: str | Sequence[str] | None) -> Covariance: ...

    # ---- terms ---------------------------------------------------------------------------------------------

    def anova(
        self,
        type: str | int = "sequential",
        test: str | None = None,
        *,
        parameter: str | None = None,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Analysis of variance, or of deviance: a row a term of the formula, with degrees of freedom, statistic and p-value.

        Parameters
        ----------
        type
            "sequential", each term after those before it (R's anova); 2, after all terms that do not contain it; 3, after
            all others (R's car::Anova; it depends on how categories are coded)
        test
            "likelihood_ratio", "wald", or of a normal linear model "F"; None: Wald's where robust errors were chosen for the
            fit (`with_covariance`) or here, else F of a normal linear model, else the likelihood ratio
        parameter
            of the family, whose terms they are; None: its first
        covariance, by
            of Wald's test

        Examples
        --------
        >>> import thetahat as th
        >>> ships = th.data.shipped("ships")
        >>> fit = th.fit("incidents ~ type + built + period + offset(log(service))", ships, "poisson")
        >>> fit.anova(2)[["degrees_of_freedom", "statistic"]].round(2).to_dict("index")["type"]
        {'degrees_of_freedom': 4.0, 'statistic': 23.67}
        """
        from .inference import anova
        from .report.frames import whole

        kind = anova.chosen_test(self.objective, test or self._robust_test(covariance, by))
        V = self._prepared(covariance, by) if kind == "wald" else None
        return whole(anova.anova(self.objective, self.theta, type, kind, covariance=V, parameter=parameter))

    def _robust_test(self, covariance: str | None, by: str | Sequence[str] | None) -> str | None:
        """Wald's test where errors were chosen: the others would leave them out."""
        kind, clusters = (covariance, by) if covariance or by else self._errors
        plain = kind in (None, "auto", "observed", "expected", "ols") and not clusters
        return None if plain else "wald"

    def drop1(
        self,
        test: str | None = None,
        *,
        parameter: str | None = None,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """What the fit loses without each term that no other contains: log-likelihood and AIC of the smaller fit, and the test.

        Parameters
        ----------
        test, parameter, covariance, by
            as of `anova`
        """
        from .inference import anova
        from .report.frames import whole

        kind = anova.chosen_test(self.objective, test or self._robust_test(covariance, by))
        V = self._prepared(covariance, by) if kind == "wald" else None
        return whole(anova.drop1(self.objective, self.theta, kind, covariance=V, parameter=parameter))

    def add1(self, scope: str, test: str | None = None) -> pd.DataFrame:
        """What the fit gains by each term of a scope, fitted to exactly the same rows.

        Parameters
        ----------
        scope
            terms, "x + z + x:z"; an interaction is added only where the fit has its main effects
        test
            "likelihood_ratio" or "F"; None as of `anova`
        """
        from .inference import added
        from .report.frames import whole

        return whole(added.add1(self.objective, self.theta, self.call, scope, test))

    def wild_bootstrap(self, hypothesis: str, *, by: str, draws: int = 9999, seed: int = 0) -> Test:
        """A test of one coefficient of a linear model by the wild cluster bootstrap, for few clusters (Cameron, Gelbach and
        Miller 2008).

        Parameters
        ----------
        hypothesis
            "x = 0", or another single linear restriction
        by
            the column whose values identify clusters
        draws
            sign vectors; of few clusters all there are
        seed
            of the draws
        """
        from .inference import wild
        from .inference.clusters import held, labels

        clusters = held(labels(by, self.objective.terms[0].source), "wild_bootstrap")
        assert clusters is not None
        return wild.wild_bootstrap(self.objective, self.theta, hypothesis, clusters[0], draws, seed)

    def proportional_odds(self, test: str = "likelihood_ratio") -> pd.DataFrame:
        """Of an ordinal response: whether the effect of each term is the same at every threshold (R's ordinal::nominal_test;
        Brant's test is Wald's form of it), and of all terms together: statistic, df, p.

        Parameters
        ----------
        test
            "likelihood_ratio", or "score", which fits no larger model
        """
        from .inference import proportional_odds

        return proportional_odds.proportional_odds(self.objective, self.theta, test)

    # ---- criteria ------------------------------------------------------------------------------------------

    def deviance(self) -> pd.Series:
        """The deviance, that of the null fit (the intercept alone), their degrees of freedom, Pearson's X² and the dispersion
        X²/(n − p), as R's glm has them."""
        from .evaluation import deviance

        return deviance.deviance(self.objective, self.theta)

    def r_squared(self) -> pd.Series:
        """R² by name: of a normal linear model R² and adjusted R²; of others Cox and Snell's, McFadden's, Nagelkerke's,
        Efron's, Tjur's, as far as they are defined; of a mixed model marginal and conditional R² and the intraclass correlation
        (Nakagawa et al. 2017)."""
        from .models.random_effects import RandomEffects

        if isinstance(self.objective.model, RandomEffects):
            from .inference import variance_components

            return variance_components.r_squared(self.objective)
        from .evaluation import deviance

        return deviance.r_squared(self.objective, self.theta)

    def vif(
        self,
        *,
        parameter: str | None = None,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Generalised variance inflation factors of the terms (Fox and Monette 1992; R's car::vif): gvif, degrees_of_freedom,
        gvif^(1/2df).

        Parameters
        ----------
        parameter
            of the family, whose terms they are; None: its first
        covariance, by
            of the estimates
        """
        from .inference import vif

        return vif.vif(self.objective, self._prepared(covariance, by), parameter)

    # ---- residuals -----------------------------------------------------------------------------------------

    def check(self, draws: int = 199, *, seed: int = 0) -> Checks:
        """Tests of the residuals against data drawn from the fit: uniformity of quantile residuals, dispersion, zeros, outliers,
        and of a binary response Hosmer and Lemeshow's test. Each draw estimates θ anew, by one Newton step.

        Parameters
        ----------
        draws
            data sets drawn from the fit
        seed
            of the draws

        Examples
        --------
        >>> import thetahat as th
        >>> fit = th.fit("distress ~ temperature", th.data.shipped("orings"), family="poisson")
        >>> sorted(fit.check(draws=49).table.columns)
        ['expected', 'observed', 'p_value']
        """
        from .evaluation import checks

        return checks.check(self.objective, self.theta, draws, seed)

    def survival_calibration(
        self, groups: int = 3, times: Sequence[float] | None = None, level: float = 0.95
    ) -> pd.DataFrame:
        """Of times that may be censored (Cox's model too): the mean survival curve of each of several groups of risk beside Kaplan
        and Meier's: group, time, predicted, observed, low, high, n.

        Parameters
        ----------
        groups
            of equal numbers of rows, by predicted risk at the median time of events
        times
            at which; None: 60 quantiles of the times of events
        level
            of Kaplan and Meier's intervals
        """
        from .evaluation import survival_calibration

        return survival_calibration.survival_calibration(self, groups, times, level)  # type: ignore[arg-type]

    # ---- the lasso's path ----------------------------------------------------------------------------------

    def prior_path(
        self,
        mix: float = 1.0,
        points: int = 40,
        *,
        ratio: float | None = None,
        on: str | Sequence[str] | None = None,
    ) -> PriorPath:
        """The fit along scales of a lasso (mix 1) or an elastic net, from that at which every coefficient is zero: a table, the
        order in which coefficients enter, a chart, and the priors, for `choose_prior`.

        Parameters
        ----------
        mix
            the weight of |θ|, above 0 and up to 1
        points
            scales
        ratio
            of the last scale to the first; None: 1000, or 100 where there are more coefficients than rows
        on
            names of coefficients, * and ? allowed; None: every coefficient but intercepts and constants
        """
        from .evaluation import prior_path

        return prior_path.prior_path(self.objective, mix, points, ratio=ratio, on=on)
