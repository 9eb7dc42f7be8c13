"""What can be asked of a fit about its mean: predictions and their averages, comparisons, slopes, marginal means."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import BadArgument
from .likelihood import Objective
from .types import Data, ModelLike, SourceLike

if TYPE_CHECKING:
    import pandas as pd

    from .evaluation.contrasts import Spec
    from .evaluation.margin_rows import At, By
    from .evaluation.row_functions import Setting
    from .inference.covariance import Covariance
    from .margins import Margins


class FitEffects:
    """A part of `Fit`.

    Arguments that several methods share:

    at
        the rows that are meant. None: those that were fitted (or `data`); "mean" or "median": one row, numbers at their
        mean or median, categories at the most frequent level; "balanced": every combination of levels, numbers at their
        means; {"x": [1, 2], "g": "a"}: every combination of these values, other columns typical; the same with
        counterfactual=True: every row with each combination of these values
    by
        None: a row each (comparisons and slopes of the rows that were fitted: their average); True: the average of all;
        False: a row each; a column, or several: averages within their values. Rows weigh their frequency weights
    what
        "response" (E[y]; of a category the probability of each), "link" (the linear predictor), "probabilities", or a
        parameter's name
    level
        of the intervals
    data
        other rows than those that were fitted
    covariance, clusters
        of the estimates, as `covariance` and `by` of `Fit.covariance`
    groups
        of a mixed model: "average" (random effects 0, the default) or "known" (those of the groups that were fitted)
    exponentiate
        on the link's scale: report exp of the estimates and intervals, ratios of odds, rates or hazards
    """

    objective: Objective

    @property
    @abstractmethod
    def model(self) -> ModelLike: ...

    @property
    @abstractmethod
    def source(self) -> SourceLike: ...

    @abstractmethod
    def _prepared(self, kind: str | None, by: str | Sequence[str] | None) -> Covariance: ...

    @abstractmethod
    def _of_rows(self, groups: str | None = None, what: str = "") -> Objective: ...

    @abstractmethod
    def _joint(self, groups: str | None) -> Covariance: ...

    def predictions(
        self,
        at: At = None,
        by: By = None,
        what: str = "response",
        level: float = 0.95,
        data: Data = None,
        *,
        counterfactual: bool = False,
        exponentiate: bool = False,
        covariance: str | None = None,
        clusters: str | Sequence[str] | None = None,
        groups: str | None = None,
    ) -> Margins:
        """Predictions of rows, of typical rows or a grid, and their averages, with errors and intervals (arguments:
        `FitEffects`).

        A single prediction's interval is made on the scale of the link and mapped back, as that of `predict`; an average's
        is symmetric.

        Raises
        ------
        BadArgument
            a model without a mean (of what="response"), a value that is not accepted
        UnknownColumn, UnknownLevel
            at= or by= names what the data lack

        Examples
        --------
        >>> import thetahat as th
        >>> data = {"y": [1.0, 3.0, 2.0, 5.0, 4.0, 6.0], "x": [0.0, 1.0, 0.0, 1.0, 2.0, 2.0], "g": list("aabbab")}
        >>> fit = th.fit("y ~ x + g", data, "poisson")
        >>> fit.predictions(at={"x": [0, 2]}, by="x").frame["estimate"].round(4).tolist()
        [1.4469, 4.1135]
        """
        from .evaluation import effects

        setting = self._setting(groups, covariance, clusters)
        found = effects.predictions(
            setting,
            at,
            by,
            what=what,
            level=level,
            data=data,
            counterfactual=counterfactual,
            exponentiate=exponentiate,
        )
        return self._margins(found, level)

    def comparisons(
        self,
        variables: Spec = None,
        at: At = None,
        by: By = None,
        compare: str = "difference",
        what: str = "response",
        level: float = 0.95,
        data: Data = None,
        *,
        counterfactual: bool = False,
        exponentiate: bool = False,
        covariance: str | None = None,
        clusters: str | Sequence[str] | None = None,
        groups: str | None = None,
    ) -> Margins:
        """How predictions change with a column, averaged over the rows unless `at` or `by` say otherwise (arguments:
        `FitEffects`).

        Parameters
        ----------
        variables
            "x" (+ 1 of a number; each level against the first of a category; 1 against 0 of a number that has no other
            values), {"x": 10}, {"x": (a, b)}, {"x": "sd"} ("iqr", "minmax"; of a category "pairwise", "reference",
            "sequential"), a list; None: every column
        compare
            "difference", "ratio", "log odds ratio", "lift" (difference over the lower): of the two averages, where
            rows are averaged. Intervals and tests of positive ratios are made on their logarithms

        Raises
        ------
        BadArgument, UnknownColumn, UnknownLevel
            as `predictions`; a contrast that the column's kind does not have
        """
        from .evaluation import effects

        effects.check_level(level)
        setting = self._setting(groups, covariance, clusters)
        found = effects.comparisons(
            setting,
            variables,
            at,
            by,
            compare=compare,
            what=what,
            data=data,
            counterfactual=counterfactual,
            exponentiate=exponentiate,
        )
        return self._margins(found, level)

    def slopes(
        self,
        variables: str | Sequence[str] | None = None,
        at: At = None,
        by: By = None,
        scale: str = "dydx",
        what: str = "response",
        level: float = 0.95,
        data: Data = None,
        *,
        counterfactual: bool = False,
        covariance: str | None = None,
        clusters: str | Sequence[str] | None = None,
        groups: str | None = None,
    ) -> Margins:
        """Derivatives of predictions in a column, averaged over the rows unless `at` or `by` say otherwise; of a category
        the differences from its first level (arguments: `FitEffects`).

        Parameters
        ----------
        variables
            columns; None: every one
        scale
            "dydx", or an elasticity: "eyex" (x/y · dy/dx), "eydx" (1/y · dy/dx), "dyex" (x · dy/dx)

        Raises
        ------
        BadArgument, UnknownColumn, UnknownLevel
            as `predictions`; an elasticity of a category
        """
        from .evaluation import effects

        effects.check_level(level)
        setting = self._setting(groups, covariance, clusters)
        found = effects.slopes(
            setting, variables, at, by, scale=scale, what=what, data=data, counterfactual=counterfactual
        )
        return self._margins(found, level)

    def means(
        self,
        variables: str | Sequence[str],
        at: At = None,
        pairs: bool | str = False,
        adjust: str | None = "tukey",
        what: str = "response",
        level: float = 0.95,
        *,
        by: str | Sequence[str] = (),
        weights: str = "equal",
        exponentiate: bool = False,
        covariance: str | None = None,
        clusters: str | Sequence[str] | None = None,
        groups: str | None = None,
    ) -> Margins:
        """Estimated marginal means of a category (R's emmeans): other categories averaged with equal weights, numbers at
        their means. On the link's scale, and with what="response" mapped back (arguments: `FitEffects`).

        Parameters
        ----------
        variables
            categories; their combinations, where several
        pairs
            True: all differences, first − second; "reference": from the first; "sequential": from the one before. With
            what="response" of a log link they are ratios, of a logit odds ratios
        adjust
            for several differences: "tukey" (where pairs is not True, "sidak"), "holm", "bonferroni", "sidak", None
        by
            other categories, within whose levels the means are compared (emmeans' ~ g | h); adjusted within each
        weights
            "equal", or "proportional" to how often the combinations that are averaged occur

        Raises
        ------
        BadArgument, UnknownColumn, UnknownLevel
            as `predictions`; a column that is a number
        """
        from .evaluation import effects, marginal_means

        effects.check_level(level)
        setting = self._setting(groups, covariance, clusters)
        found = marginal_means.means(
            setting,
            variables,
            at,
            pairs=pairs,
            adjust=adjust,
            what=what,
            weights=weights,
            exponentiate=exponentiate,
            by=by,
        )
        return self._margins(found, level)

    def effects(
        self,
        variables: Sequence[str] | None = None,
        *,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Average marginal effects on the mean, those of `slopes()`, as a table with a row a variable: columns effect,
        standard_error, z, p_value. by: columns that identify clusters."""
        found = self.slopes(variables, covariance=covariance, clusters=by).table
        if "category" in found:
            raise BadArgument(
                "the response is a category, and has an effect on each category's probability: fit.slopes()."
            )
        names = [
            t if c == "dy/dx" else f"{t}[{c.rsplit(' - ', 1)[0]}]"
            for t, c in zip(found["term"], found["contrast"], strict=True)
        ]
        out = found.rename(columns={"estimate": "effect", "t": "z"})
        out = out[["effect", "standard_error", "z", "p_value"]].set_axis(names)
        return out.rename_axis("variable")

    def _of_known(
        self, groups: str | None, covariance: str | None, clusters: str | Sequence[str] | None
    ) -> Covariance:
        """V of coefficients and random effects together, which has no other kind."""
        if covariance is not None or clusters is not None:
            raise BadArgument(
                "covariance= and by= (clusters=) of a model with smooth terms or known groups: its predictions have the joint "
                "covariance of coefficients and random effects, and no other. Leave them out."
            )
        return self._joint(groups)

    def _margins(self, found: object, level: float) -> Margins:
        from .data.table import Table
        from .evaluation.margin_estimates import Estimates
        from .margins import Margins

        assert isinstance(found, Estimates)
        source = self.source
        polars = isinstance(source, Table) and source.frame.name.startswith("polars ")
        return Margins(found, level, polars=polars)

    def _setting(
        self, groups: str | None, covariance: str | None, clusters: str | Sequence[str] | None
    ) -> Setting:
        """The fit as one of its rows, and V of the coordinates on which they depend."""
        import torch

        from .evaluation.known_groups import marginal
        from .evaluation.row_functions import Setting
        from .inference.natural import own_places
        from .models.random_effects import RandomEffects

        model, own = self.model, own_places(self.objective)
        if len(self.objective.terms) != 1:
            raise BadArgument("effects are of one model of one table, and this objective has several terms.")
        if not isinstance(model, RandomEffects):
            objective = self._of_rows(groups, "effects")  # refuses groups
            V = self._prepared(covariance, clusters)
            return Setting(objective, V, own, self.objective.size, model, self.source)
        groups = groups or "average"
        objective = self._of_rows(groups)
        if marginal(model, groups):
            V = self._prepared(covariance, clusters)
            own = own[: len(model.coefficients)]
            return Setting(objective, V, own, self.objective.size, model, self.source)
        V = self._of_known(groups, covariance, clusters)
        return Setting(objective, V, torch.arange(objective.size), objective.size, model, self.source)
