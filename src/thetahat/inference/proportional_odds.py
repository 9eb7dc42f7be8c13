"""Whether one effect serves every threshold of an ordinal response: the test of proportional odds.

    P(y ≤ j | x) = F(τ_j − xβ)      against      P(y ≤ j | x) = F(τ_j + x_T δ_j − xβ),      δ_1 = 0

x_T are the columns of the term that is tested; δ_j, j = 2 … k − 1, are (k − 2) coefficients a column, all 0 where the odds are
proportional (of a probit link: the slopes parallel; of a complementary log-log one: the hazards proportional).

    likelihood_ratio   2(ℓ(δ̂) − ℓ(0)), the larger model fitted
    score              ∂ℓᵀ J⁻¹ ∂ℓ at δ = 0: one pass over the rows, and an answer where the larger model has no maximum because
                       its thresholds would cross

References
----------
Peterson and Harrell (1990), Partial proportional odds models for ordinal response variables; Brant (1990), Assessing
proportionality in the proportional odds model for ordinal logistic regression (Wald's form of the test).
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch, concatenate
from ..data.source import Tensors
from ..distributions import chi2
from ..errors import BadArgument, NotConverged
from ..families.ordinal import Ordinal
from ..likelihood import LogLikelihood, Objective
from ..models.base import family_of, set_theta
from ..models.regression import Regression
from .terms import model_terms
from .tests import check_likelihood, held_maximum

TESTS = ("likelihood_ratio", "score")


def proportional_odds(objective: Objective, theta: Tensor, test: str = "likelihood_ratio") -> pd.DataFrame:
    """A test each term of the formula that its effect is the same at every threshold, and of all terms together.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum, of family="ordinal"
    test
        one of `TESTS`

    Returns
    -------
    pd.DataFrame
        a row each term, and "all": statistic, df, p

    Raises
    ------
    BadArgument
        another family or test; a response of two levels; thresholds that have predictors; random effects, a prior
    NotConverged
        a larger model has no certified maximum

    Examples
    --------
    >>> import thetahat as th
    >>> data = {"y": [0, 0, 1, 1, 2, 2, 0, 1, 2, 1], "x": [0.1, 1.0, 0.2, 2.0, 1.1, 2.4, 0.5, 0.7, 1.6, 2.2]}
    >>> fit = th.fit("y ~ x", data, "ordinal")
    >>> proportional_odds(fit.objective, fit.theta).round(3).loc["x"].tolist()
    [0.162, 1.0, 0.687]
    """
    if test not in TESTS:
        raise BadArgument(f"test={test!r}. Accepted: {', '.join(map(repr, TESTS))}.")
    model = _model_of(objective)
    check_likelihood(objective, test.replace("_", " "), "Fit without weights.")
    if objective.priors:
        raise BadArgument("the fit is under a prior, and the test compares maxima of the likelihood.")
    larger, start = _larger(objective.at(theta), model)
    size = model.predictors[0].size
    inside = {
        term.name: [place - model.predictors[0].start for place in term.places]
        for term in model_terms(objective, None, "the test of proportional odds")
    }
    tested = {**inside, "all": list(range(size))}
    value = objective.value(theta)
    g, J = _slopes(larger, start) if test == "score" else (None, None)
    rows = {}
    for name, columns in tested.items():
        added = _added(larger.model, model, columns)
        if g is not None and J is not None:
            free = torch.cat([_kept(larger.model, model), added])
            statistic = float(g[free] @ torch.linalg.solve(J[free[:, None], free], g[free]))
        else:
            statistic = _ratio(larger, model, start, added, value, name)
        rows[name] = (statistic, len(added), float(chi2.sf(statistic, len(added))))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["statistic", "df", "p"])


def _model_of(objective: Objective) -> Regression:
    model = objective.model
    if not isinstance(model, Regression) or not isinstance(family_of(model), Ordinal):
        raise BadArgument(
            "the test of proportional odds is of a fit with family='ordinal', without random effects; the model is a "
            f"{type(model).__name__} of {family_of(model) or 'no family'}."
        )
    if len(model.predictors) < 3:
        raise BadArgument("a response of two levels has one threshold: its odds are proportional.")
    moved = [p.parameter for p in model.predictors[1:] if not p.design.constant]
    if moved or len(model.predictors) != len(model.family.parameters):
        own = ", ".join(moved) or "some of them held"
        raise BadArgument(f"the thresholds of this fit are not constants that are estimated: {own}.")
    if not model.predictors[0].size:
        raise BadArgument("the model has no coefficients whose effect could change with the threshold.")
    return model


def _larger(objective: Objective, model: Regression) -> tuple[Objective, Tensor]:
    """The model in which every threshold but the first has the columns of the location, and θ̂ in it."""
    location, encoder = model.predictors[0], model.encoder
    slot = len(encoder.designs)
    design = replace(location.design, intercept=True, offset=None)
    slots = dict(model.slots)
    slots |= {p.parameter: slot for p in model.predictors[2:]}
    out = Regression(model.family, replace(encoder, designs=(*encoder.designs, design)), slots, model.fixed)
    whole: Batch = concatenate(list(objective.terms[0].source.batches(model)))
    tensors = dict(whole.tensors)
    for kind in ("x", "code", "value"):
        own = f"{kind}{location.slot}"
        tensors |= {
            f"{kind}{slot}{name[len(own) :]}": t
            for name, t in whole.tensors.items()
            if name == own or name.startswith(f"{own}.")
        }
    source = Tensors(Batch(tensors, count=whole.count if whole.counted else None), target="y")
    start = torch.zeros(sum(p.size for p in out.predictors), dtype=torch.float64)
    for before, after in zip(model.predictors, out.predictors, strict=True):
        at = slice(before.start, before.start + before.size)
        start[after.start : after.start + before.size] = model.coefficients.detach()[at]
    set_theta(out, start)
    return Objective([LogLikelihood(out, source)]), start


def _kept(larger: Regression, model: Regression) -> Tensor:
    """Where θ of the fit is in the larger model's."""
    return torch.cat(
        [
            torch.arange(after.start, after.start + before.size)
            for before, after in zip(model.predictors, larger.predictors, strict=True)
        ]
    )


def _added(larger: Regression, model: Regression, columns: list[int]) -> Tensor:
    """Where δ of these columns of the location is: behind each threshold's own constant."""
    own = torch.tensor(columns, dtype=torch.long) + 1
    return torch.cat([p.start + own for p in larger.predictors[2:]])


def _slopes(larger: Objective, start: Tensor) -> tuple[Tensor, Tensor]:
    taylor = larger.taylor(start, order=2)
    assert taylor.information is not None
    return taylor.gradient.to(torch.float64), taylor.information.dense()


def _ratio(
    larger: Objective, model: Regression, start: Tensor, added: Tensor, value: float, name: str
) -> float:
    free = torch.zeros(len(start), dtype=torch.bool)
    free[_kept(larger.model, model)] = True
    free[added] = True
    try:
        found, _ = held_maximum(larger, start, free, start[free])
    except NotConverged as error:
        raise NotConverged(
            f"the model in which the effect of {name} differs from threshold to threshold has no certified maximum (thresholds "
            f"that would cross, or separated rows): {error} test='score' needs none.",
            error.certificate,
        ) from error
    return max(0.0, 2 * (found - value))
