"""Fits of the same rows, one within the other, by their likelihood ratio.

    2(ℓ₁ − ℓ₀)  ~  χ²(p₁ − p₀);     Σ_k w_k χ²(p₁ − p₀ + k)  where variances are 0 under the smaller model

The smaller model lies within the larger if both are of one family and the same rows, and for each of the family's parameters
its columns (and the difference of the offsets) are linear combinations of the larger's, whatever the formulas look like: with
[X₁ Z] = Q R, the lower right block of R is 0.

References
----------
Wilks (1938); Self and Liang (1987); Stram and Lee (1994), Variance components testing in the longitudinal mixed effects model.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch, concatenate
from ..errors import BadArgument
from ..inference.anova import refuse_reml
from ..inference.terms import regression_of
from ..inference.tests import check_likelihood
from ..inference.variance_components import beyond, chi_bar, mixture
from ..likelihood import Objective
from ..models.mixed import Mixed, effect_columns
from ..models.random_effects import Random
from ..models.regression import Regression
from ..models.scales import Diagonal, Unstructured
from ..protocols import HasObjective

BLOCK = 4096  # rows of a step of the factorisation
NEAR = 1e-8  # of a column's length, that may be left of it


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
        fits that are not nested, of other rows, of other families, under priors or weights, restricted likelihoods of other
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
    if len(fits) < 2:
        raise BadArgument("anova compares two or more nested fits; of one fit's terms: fit.anova().")
    for fit in fits:
        if not isinstance(fit, HasObjective) or regression_of(fit.objective) is None:
            raise BadArgument(
                f"anova is of fits of formulas; received a {type(fit).__name__}. For other fits: fit.compare(other)."
            )
        check_likelihood(fit.objective, "likelihood_ratio", "Compare by fit.score(data).")
        if fit.objective.priors:
            raise BadArgument(
                "a fit is under a prior: its likelihood ratio is not χ². Compare by fit.score(data)."
            )
    ordered = sorted((fit.objective for fit in fits), key=lambda o: o.size)
    rows = [_row(ordered[0])]
    for small, large in pairwise(ordered):
        rows.append(_row(large) | _test(small, large))
    return pd.DataFrame(rows, index=pd.Index([_formula(o) for o in ordered], name="fit"))


def _row(objective: Objective) -> dict[str, object]:
    value, p = objective.value(), objective.size
    return {"parameters": p, "log_likelihood": value, "AIC": -2 * value + 2 * p}


def _formula(objective: Objective) -> str:
    regression = _regression(objective)
    parts = [p.design.formula for p in regression.predictors[:1]]
    random = [r.text for r in objective.model.random] if isinstance(objective.model, Mixed) else []
    return " + ".join([*parts, *dict.fromkeys(random)]) or "1"


def _regression(objective: Objective) -> Regression:
    found = regression_of(objective)
    assert found is not None  # refused before
    return found


def _test(small: Objective, large: Objective) -> dict[str, object]:
    a, b = small.terms[0].source, large.terms[0].source
    names = f"{_formula(small)!r} and {_formula(large)!r}"
    if a.size != b.size or a.fingerprint != b.fingerprint or small.observations != large.observations:
        raise BadArgument(
            f"{names} are not of the same rows ({a.size} and {b.size}, fingerprints {a.fingerprint} and {b.fingerprint}): their "
            "likelihoods cannot be compared. Drop the rows that are incomplete in any of their columns first."
        )
    one, two = _regression(small), _regression(large)
    if str(one.family) != str(two.family) or a.units != b.units:
        raise BadArgument(
            f"{names} are of {one.family} of {a.units} and {two.family} of {b.units}: fits of one family are nested, others "
            "are compared by fit.compare(other)."
        )
    rows = [concatenate(list(source.batches(o.model))) for source, o in ((a, small), (b, large))]
    fixed = _fixed(one, two, rows, names)
    restricted = [isinstance(o.model, Mixed) and o.model.reml for o in (small, large)]
    if any(restricted) and (fixed or not all(restricted) or not _within(two, one, rows[::-1])):
        for o in (small, large):
            refuse_reml(o)
    weights, bound = _random(small, large, rows, names)
    weights = {k + fixed: w for k, w in weights.items()}
    if set(weights) == {0}:
        raise BadArgument(f"{names} are the same model: there is nothing to test.")
    statistic = 2 * (large.value() - small.value())
    if statistic < -1e-6:
        raise BadArgument(
            f"of {names} the smaller has the higher likelihood, by {-statistic / 2:.3g} nats: the larger stands at a local "
            "maximum, and the ratio of the two is not a test."
        )
    statistic = max(statistic, 0.0)
    reference = " + ".join(f"{w:g}·χ²({k})" if w != 1 else f"χ²({k})" for k, w in weights.items())
    return {
        "degrees_of_freedom": float(max(weights)),
        "statistic": statistic,
        "p_value": beyond(statistic, weights),
        "reference": f"≤ {reference}" if bound else reference,
    }


# ---- fixed effects -----------------------------------------------------------------------------------------


def _fixed(small: Regression, large: Regression, rows: Sequence[Batch], names: str) -> int:
    """How many coefficients the larger has more.

    Raises
    ------
    BadArgument
        a column of the smaller is not a combination of the larger's
    """
    apart = _apart(small, large, rows)
    if apart is not None:
        raise BadArgument(
            f"{names} are not nested: {apart} of the smaller is not a linear combination of the larger's columns. Fits that "
            "are not nested: fit.compare(other), or their criteria."
        )
    return sum(p.size for p in large.predictors) - sum(p.size for p in small.predictors)


def _within(small: Regression, large: Regression, rows: Sequence[Batch]) -> bool:
    return _apart(small, large, rows) is None


def _apart(small: Regression, large: Regression, rows: Sequence[Batch]) -> str | None:
    """The first column of the smaller that is not within the larger's; None: all are."""
    for parameter in small.family.parameters:
        X, offset = _columns(large, rows[1], parameter)
        Z, other = _columns(small, rows[0], parameter)
        names = next((p.design.names for p in small.predictors if p.parameter == parameter), [])
        gap = (other - offset)[:, None]
        left = _left(X, np.hstack([Z, gap]))
        far = np.flatnonzero(left > NEAR)
        if len(far):
            at = int(far[0])
            return (
                f"{names[at]!r} of {parameter}"
                if at < len(names)
                else f"the offset (or held value) of {parameter}"
            )
    return None


def _columns(model: Regression, batch: Batch, parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """X, (n, q), and the offset, (n,), of a parameter's linear predictor; a held one is an offset."""
    n = len(batch)
    found = next((p for p in model.predictors if p.parameter == parameter), None)
    if found is None:
        held = torch.tensor([model.fixed[parameter]], dtype=torch.float64)
        return np.zeros((n, 0)), np.full(n, float(model.family.parameters[parameter].link(held)))
    X = found.placed(batch, found.start + found.size)[:, found.start :].toarray()
    offset = batch.tensors.get(f"offset{found.slot}")
    return X, np.zeros(n) if offset is None else offset.numpy()


def _left(X: np.ndarray, Z: np.ndarray) -> np.ndarray:
    """What the columns X leave of each column Z, relative to its length: R of [X Z] by blocks of rows."""
    both = np.hstack([X, Z])
    length = np.linalg.norm(both, axis=0)
    both = both / np.where(length > 0, length, 1.0)
    R: np.ndarray = np.zeros((0, both.shape[1]))
    for start in range(0, len(both), BLOCK):
        R = np.asarray(np.linalg.qr(np.vstack([R, both[start : start + BLOCK]]), mode="r"))
    out: np.ndarray = np.linalg.norm(R[X.shape[1] :, X.shape[1] :], axis=0)
    return out


# ---- random effects ----------------------------------------------------------------------------------------


def _random(
    small: Objective, large: Objective, rows: Sequence[Batch], names: str
) -> tuple[dict[int, float], bool]:
    """The mixture of χ² of the random effects that the larger has more."""
    mine = list(small.model.random) if isinstance(small.model, Mixed) else []
    gone: list[Random] = []
    variances = covariances = 0
    for r in large.model.random if isinstance(large.model, Mixed) else ():
        same = next((s for s in mine if _key(s) == _key(r)), None)
        if same is None:
            gone.append(r)
            continue
        mine.remove(same)
        if not _same_rows(small, same, large, r, rows) or not _part_of(same, r):
            raise BadArgument(
                f"{names} are not nested: {same.text} of the smaller is not a part of {r.text} of the larger."
            )
        more = len(r.structure.scale_places()) - len(same.structure.scale_places())
        variances += more
        covariances += r.structure.size - same.structure.size - more
    if mine:
        raise BadArgument(f"{names} are not nested: the larger has no {mine[0].text}.")
    if gone and not variances and not covariances:
        return mixture(gone)
    if gone and not all(isinstance(r.structure, (Diagonal, Unstructured)) for r in gone):
        raise BadArgument(f"{names} differ by several terms of different kinds: compare them one at a time.")
    variances += sum(len(r.structure.scale_places()) for r in gone)
    covariances += sum(r.structure.size - len(r.structure.scale_places()) for r in gone)
    return chi_bar(variances, covariances)


def _key(r: Random) -> tuple[str, str, bool]:
    return r.parameter, r.label, r.smooth


def _part_of(small: Random, large: Random) -> bool:
    """Whether the covariances of the smaller term are those of the larger with some of them 0."""
    if small.effects == large.effects and type(small.structure) is type(large.structure):
        return small.structure.size == large.structure.size
    plain = all(isinstance(r.structure, (Diagonal, Unstructured)) for r in (small, large))
    free = isinstance(small.structure, Diagonal) or len(small.effects) == 1
    return (
        plain
        and set(small.effects) <= set(large.effects)
        and (free or isinstance(large.structure, Unstructured))
    )


def _same_rows(small: Objective, a: Random, large: Objective, b: Random, rows: Sequence[Batch]) -> bool:
    """Whether the groups and the columns of two terms are the same numbers, not in name alone."""
    if a.smooth:
        return torch.equal(rows[0][f"smooth{a.source}"], rows[1][f"smooth{b.source}"])
    if not torch.equal(rows[0][f"group{a.source}"], rows[1][f"group{b.source}"]):
        return False
    one, two = _effects(small, a, rows[0]), _effects(large, b, rows[1])
    return all(name not in two or torch.allclose(column, two[name]) for name, column in one.items())


def _effects(objective: Objective, r: Random, batch: Batch) -> dict[str, Tensor]:
    columns = torch.as_tensor(np.asarray(effect_columns(objective.model, r, batch)))
    return dict(zip(r.effects, columns, strict=True))
