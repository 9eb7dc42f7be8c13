"""The tables of a fit: `tidy`, `glance`, `augment`, and what maketables asks of it. A part of `Fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .types import Data, Settings

if TYPE_CHECKING:
    import pandas as pd

    from .result import Fit

# maketables' words for what `glance` calls otherwise
_STATISTICS = {
    "N": "observations", "r2": "r_squared", "ll": "log_likelihood", "loglik": "log_likelihood",
    "aic": "AIC", "bic": "BIC", "deviance": "deviance", "status": "status",
}  # fmt: skip


class FitTables:
    """Answers of a fit as tables, each of the kind that was fitted: polars where the data were of polars, else pandas."""

    def tidy(self, level: float = 0.95, exponentiate: bool = False) -> Data:
        """The estimates, a row each: term, estimate, standard_error, statistic (t or z), p_value, low, high, and the family's
        parameter; of a mixed model also the standard deviations and correlations of its random effects, with their group.

        Parameters
        ----------
        level
            of the intervals, between 0 and 1
        exponentiate
            exp(β̂) in the place of β̂, of coefficients alone: low and high are exp of the ends, the standard error is that of
            exp(β̂) by the delta method, statistic and p_value are those of β = 0

        Examples
        --------
        >>> import thetahat as th
        >>> fit = th.fit("y ~ x", {"y": [2, 1, 4, 7, 8], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
        >>> fit.tidy(exponentiate=True)[["term", "estimate", "p_value", "parameter"]].round(4)
                term  estimate  p_value parameter
        0  Intercept    1.5033   0.4366      mean
        1          x    1.5571   0.0092      mean
        """
        from .report import tidy

        fit = self._fit
        return _like(fit, tidy.tidy(fit, level, exponentiate))

    def glance(self) -> Data:
        """The fit in one row: observations, parameters, log_likelihood, AIC, BIC, deviance and R² where they are defined, the
        certificate's status, and gap, the nats that are left to the maximum.

        Examples
        --------
        >>> import thetahat as th
        >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]})
        >>> fit.glance()[["observations", "r_squared", "status"]].round(3)
           observations  r_squared             status
        0           5.0      0.871  certified maximum
        """
        import pandas as pd

        from .report import tidy

        fit = self._fit
        return _like(fit, pd.DataFrame([tidy.glance(fit)]))

    def augment(self, data: Data = None) -> Data:
        """The rows with what the fit says of each: fitted (the mean), standard_error (of it), quantile_residual, leverage.

        A column is left out where the model does not have it (the leverage of a mixed model), and a value is NaN where the fit
        left the row out. Of a categorical response there is a column fitted[level] a level.

        Parameters
        ----------
        data
            new rows; None: those that were given to the fit. Residuals are of new rows that have the response; leverage is of
            fitted rows alone

        Raises
        ------
        BadArgument
            the data have a column of such a name, or the fit holds no table

        Examples
        --------
        >>> import thetahat as th
        >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]})
        >>> fit.augment({"x": [5.0]}).round(3)
             x  fitted  standard_error
        0  5.0     9.8           1.327
        """
        from .report import tidy

        return tidy.augment(self._fit, data)

    @property
    def _fit(self) -> Fit:
        return cast("Fit", self)

    # ---- maketables' plug-in interface: attributes by which it reads a fit, without either importing the other

    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        """The estimates under maketables' names of columns."""
        import pandas as pd

        from .report import tidy

        fit = self._fit
        names = {
            "estimate": "b",
            "standard_error": "se",
            "statistic": "t",
            "p_value": "p",
            "low": "ci95l",
            "high": "ci95u",
        }
        table = tidy.tidy(fit, 0.95, False).rename(columns=names)
        own = fit.names
        table.index = pd.Index([own[i] for i in tidy.as_written(fit)], name="Coefficient")
        return table[list(names.values())]

    def __maketables_stat__(self, key: str) -> Any:
        """A statistic by maketables' name of it, or by that of `glance`; None where it is not known."""
        from .report import tidy

        if key == "se_type":
            return self._fit.covariance_chosen[0]
        value = tidy.glance(self._fit).get(_STATISTICS.get(key, key))
        return None if value != value else int(value) if key == "N" and value is not None else value

    @property
    def __maketables_depvar__(self) -> str:
        from .report.facts import title

        return title(self._fit).split(" ~ ")[0]

    @property
    def __maketables_vcov_info__(self) -> Settings:
        kind, by = self._fit.covariance_chosen
        return {"vcov_type": kind, "clustervar": by}

    @property
    def __maketables_default_stat_keys__(self) -> list[str]:
        return ["N", "ll", "aic", "bic"]

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return {
            "ll": "Log-likelihood",
            "aic": "AIC",
            "bic": "BIC",
            "deviance": "Deviance",
            "status": "Certificate",
        }


def _like(fit: Fit, table: pd.DataFrame) -> Data:
    from .data.table import Table
    from .report.frames import whole

    return fit.source.frame.like(whole(table)) if isinstance(fit.source, Table) else whole(table)
