"""A first guess at the components of a mixture's rows: responsibilities from which a run begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..families.base import Family
from ..protocols import target_of
from ..types import ModelLike
from .base import family_of
from .regression import Regression

# of a row, for the component to which a first guess gives it; the rest is everybody's, so that no component
# starts on a point
SURE = 0.8


def partition(model: ModelLike, batches: Sequence[Batch], generator: torch.Generator) -> list[Tensor]:
    """Responsibilities to begin with, (n, K) a batch: rows near each other begin together.

    Without predictors: K centres drawn far apart (k-means++: each next one with probability ∝ count × squared
    distance to the nearest), each row to the nearest. With predictors: rows are ordered along a random
    direction of (x, y) and cut into K parts, since relations cross where groups do not. Components that are
    not alike are assigned at random.

    References
    ----------
    Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding.
    """
    K = model.k
    features = [_features(model, batch) for batch in batches]
    whole = torch.cat(features)
    count = torch.cat([b.count.to(torch.float64) for b in batches])
    mean = (count @ whole) / count.sum()
    spread = ((count @ (whole - mean) ** 2) / count.sum()).sqrt()
    scale = torch.where(spread > 0, spread, 1.0)
    order = torch.randperm(K, generator=generator)
    if model.encoder is None:
        centres = _far_apart((whole - mean) / scale, count, K, generator)
        codes = [torch.cdist((f - mean) / scale, centres).argmin(1) for f in features]
    else:
        direction = torch.randn(len(mean), dtype=torch.float64, generator=generator) * (spread > 0) / scale
        along = whole @ direction
        cuts = torch.quantile(
            along[count > 0][:: max(1, len(along) // 100_000)], torch.arange(1, K, dtype=torch.float64) / K
        )
        codes = [torch.bucketize(f @ direction, cuts) for f in features]
    out = []
    for code in codes:
        # what is left is assigned unequally: components that begin equal stay equal for ever
        rest = torch.rand(len(code), K, dtype=torch.float64, generator=generator)
        out.append(
            SURE * nn.functional.one_hot(order[code], K) + (1 - SURE) * rest / rest.sum(1, keepdim=True)
        )
    return [_possible(model, batch, r) for batch, r in zip(batches, out, strict=True)]


def _possible(model: ModelLike, batch: Batch, r: Tensor) -> Tensor:
    """Responsibilities of those components alone that can have produced the row."""
    r = torch.stack([r[:, k] * supports(c, batch) for k, c in enumerate(model.components)], -1)
    return r / r.sum(1, keepdim=True).clamp(min=1e-300)


def supports(component: ModelLike, batch: Batch) -> Tensor:
    """Which rows a component can have produced, whatever its parameters, (n,)."""
    family = family_of(component)
    y = batch[target_of(component)]
    if not isinstance(family, Family):
        return torch.ones(len(batch), dtype=torch.bool)
    return family.in_support(y, **component.extras(batch))


def _features(model: ModelLike, batch: Batch) -> Tensor:
    """What makes two rows near each other: y, and the columns of a regression, (n, d)."""
    parts = [batch[model.target].reshape(len(batch), -1).to(torch.float64)]
    first = next((c for c in model.components if isinstance(c, Regression)), None)
    if first is not None and first.predictors:
        parts.append(first.predictors[0].rows(batch, torch.float64).T)
    return torch.cat(parts, 1)


def _far_apart(points: Tensor, count: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k of the points, (k, d)."""
    nearest, chosen = torch.ones_like(count), []
    for _ in range(k):
        odds = count * nearest
        odds = odds if bool((odds > 0).any()) else count  # fewer values than components: some begin together
        at = torch.searchsorted(
            odds.cumsum(0), torch.rand(1, dtype=torch.float64, generator=generator) * odds.sum()
        )
        chosen.append(points[at.clamp(max=len(points) - 1)])
        away = (points - chosen[-1]).square().sum(1)
        nearest = away if len(chosen) == 1 else torch.minimum(nearest, away)
    return torch.cat(chosen)
