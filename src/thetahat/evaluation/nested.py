"""Fits of the same rows, one within the other, by their likelihood ratio.

    2(ℓ₁ − ℓ₀)  ~  χ²(p₁ − p₀);     Σ_k w_k χ²(p₁ − p₀ + k)  where variances are 0 under the smaller model

The smaller model lies within the larger if both are of one family (or of one within the other: `nested_families`) and the same
rows, and for each of the family's parameters
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
from scipy import sparse
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
from .divergence import codes
from .nested_families import Nesting, edges, nesting
from .nested_families import mixture as of_family

CELLS = 2 * 10**8  # of dense columns
BLOCK = 4096  # rows of a step of the factorisation
NEAR = 1e-8  # of a column's length, that may be left of it


def anova(*fits: HasObjective) -> pd.DataFrame:
    """`th.anova`, as a plain data frame."""
    if len(fits) < 2:
        raise BadArgument("anova compares two or more nested fits; of one fit's terms: fit.anova().")
    for fit in fits:
        if not isinstance(fit, HasObjective) or regression_of(fit.objective) is None:
            raise BadArgument(
                "anova is of fits of formulas; received "
                + (
                    f"one of a {type(fit.objective.model).__name__}"
                    if isinstance(fit, HasObjective)
                    else f"a {type(fit).__name__}"
                )
                + ". Of a likelihood of one's own: fit.test('b = 0', 'likelihood_ratio'); of others: th.compare([a, b])."
            )
        check_likelihood(fit.objective, "likelihood_ratio", "Compare by fit.score(data).")
        if fit.objective.priors:
            raise BadArgument(
                "a fit is under a prior: its likelihood ratio is not χ². Compare by fit.score(data)."
            )
    ordered = sorted((fit.objective for fit in fits), key=lambda o: o.size + edges(_regression(o)))
    rows = [_row(ordered[0])]
    for small, large in pairwise(ordered):
        rows.append(_row(large) | _test(small, large))
    return pd.DataFrame(rows, index=pd.Index(_labels(ordered), name="fit"))


def _labels(ordered: Sequence[Objective]) -> list[str]:
    """What tells the fits apart: their formulas, their families, or both."""
    formulas, families = [_formula(o) for o in ordered], [str(_regression(o).family) for o in ordered]
    if len(set(families)) == 1:
        return formulas
    if len(set(formulas)) == 1:
        return families
    return [f"{formula}, {family}" for formula, family in zip(formulas, families, strict=True)]


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
    how = nesting(one.family, two.family)
    if how is None or a.units != b.units:
        raise BadArgument(
            f"{names} are of {one.family} of {a.units} and {two.family} of {b.units}: fits of one family are nested, or of "
            "Poisson in negative binomial, either in its zero-inflated form, exponential in gamma or Weibull, geometric in "
            "negative binomial, binomial in beta-binomial, normal in student_t, with the same links. Others are compared by "
            "fit.compare(other)."
        )
    rows = [concatenate(list(source.batches(o.model))) for source, o in ((a, small), (b, large))]
    _refuse_unlike(one, two, rows, names)
    fixed = _fixed(one, two, rows, names, how)
    family, above = of_family(two, how, names)
    restricted = [isinstance(o.model, Mixed) and o.model.reml for o in (small, large)]
    if any(restricted) and (
        fixed or not all(restricted) or one.family != two.family or not _within(two, one, rows[::-1], how)
    ):
        for o in (small, large):
            refuse_reml(o)
    weights, bound = _random(small, large, rows, names)
    if set(weights) != {0} and set(family) != {0}:
        raise BadArgument(
            f"{names} differ in random effects and in their family: compare them one at a time."
        )
    weights, bound = (family, above) if set(weights) == {0} else (weights, bound)
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


def _refuse_unlike(one: Regression, two: Regression, rows: Sequence[Batch], names: str) -> None:
    """Refuse fits whose rows differ in what is no parameter: trials, bounds, entry times; strata of a baseline hazard."""
    for name in one.family.extras:
        a, b = (batch.tensors.get(name) for batch in rows)
        if (a is None) != (b is None) or (a is not None and b is not None and not torch.equal(a, b)):
            raise BadArgument(
                f"{names} have not the same {name}= in each row: their likelihoods cannot be compared."
            )
    a, b = (_strata(model, batch) for model, batch in zip((one, two), rows, strict=True))
    if (a is None) != (b is None) or (a is not None and b is not None and not torch.equal(a, b)):
        raise BadArgument(
            f"{names} have not the same strata: their partial likelihoods are of other risk sets, and cannot be compared."
        )


def _strata(model: Regression, batch: Batch) -> Tensor | None:
    """Which stratum each row is in, by the number of its first row; None where there are none."""
    slot = model.slots.get("strata")
    if slot is None:
        return None
    parts = [t.reshape(len(batch), -1).to(torch.float64) for name, t in sorted(batch.tensors.items())
             if name == f"x{slot}" or name.startswith(f"code{slot}.")]  # fmt: skip
    return torch.from_numpy(codes(torch.cat(parts, 1).numpy()))


# ---- fixed effects -----------------------------------------------------------------------------------------


def _fixed(small: Regression, large: Regression, rows: Sequence[Batch], names: str, how: Nesting) -> int:
    """How many coefficients the larger has more, of the parameters that both have.

    Raises
    ------
    BadArgument
        a column of the smaller is not a combination of the larger's
    """
    apart = _apart(small, large, rows, how)
    if apart is not None:
        raise BadArgument(
            f"{names} are not nested: {apart} of the smaller is not a linear combination of the larger's columns. Fits that "
            "are not nested: fit.compare(other), or their criteria."
        )
    shared = set(how.names.values())
    more = sum(p.size for p in large.predictors if p.parameter in shared)
    return more - sum(p.size for p in small.predictors)


def _within(small: Regression, large: Regression, rows: Sequence[Batch], how: Nesting) -> bool:
    return _apart(small, large, rows, how) is None


def _apart(small: Regression, large: Regression, rows: Sequence[Batch], how: Nesting) -> str | None:
    """The first column of the smaller that is not within the larger's; None: all are."""
    for parameter, same in how.names.items():
        X, offset, theirs = _columns(large, rows[1], same)
        Z, other, names = _columns(small, rows[0], parameter)
        shared = _shared(Z, names, X, theirs)
        new = [j for j in range(len(names)) if j not in shared]
        gap = (other - offset)[:, None]
        labels = [f"{names[j]!r} of {parameter}" for j in new]
        columns = [Z[:, new].toarray()]
        if gap.any():
            labels.append(f"the offset (or held value) of {parameter}")
            columns.append(gap)
        if not labels:  # as of most nested fits: no column is new
            continue
        if len(gap) * (X.shape[1] + len(labels)) > CELLS:
            raise BadArgument(
                f"{len(gap)} rows of {X.shape[1]} columns are too many to see whether {labels[0]} is a linear combination of "
                "them. Write the smaller formula with terms of the larger."
            )
        left = _left(X.toarray(), np.hstack(columns))
        far = np.flatnonzero(left > NEAR)
        if len(far):
            return labels[int(far[0])]
    return None


def _columns(
    model: Regression, batch: Batch, parameter: str
) -> tuple[sparse.csc_matrix, np.ndarray, list[str]]:
    """X, (n, q), and the offset, (n,), of a parameter's linear predictor, and the columns' names; a held one is an offset."""
    n = len(batch)
    found = next((p for p in model.predictors if p.parameter == parameter), None)
    if found is None:
        held = torch.tensor([model.fixed[parameter]], dtype=torch.float64)
        value = float(model.family.parameters[parameter].link(held))
        return sparse.csc_matrix((n, 0)), np.full(n, value), []
    given = batch.tensors.get(f"offset{found.slot}")
    offset = np.zeros(n) if given is None else given.numpy()
    if not found.size:  # its intercept is among other parameters, as of an ordinal response
        return sparse.csc_matrix((n, 0)), offset, []
    X = found.placed(batch, found.start + found.size).tocsc()[:, found.start :]
    return X, offset, list(found.design.names)


def _shared(
    Z: sparse.csc_matrix, names: Sequence[str], X: sparse.csc_matrix, theirs: Sequence[str]
) -> set[int]:
    """The columns of the smaller that stand in the larger under the same name, number by number."""
    at = {name: k for k, name in enumerate(theirs)}
    both = [j for j, name in enumerate(names) if name in at]
    apart = abs(Z[:, both] - X[:, [at[names[j]] for j in both]]).tocsc()
    apart.eliminate_zeros()
    return {j for j, count in zip(both, np.diff(apart.indptr), strict=True) if count == 0}


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
