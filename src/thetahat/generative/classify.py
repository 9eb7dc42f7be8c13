"""Classification by Bayes' rule, of any model of y given its class.

p(c | y) = p(y | c) p(c) / Σ_k p(y | k) p(k)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import device_of
from ..data.source import evaluating
from ..errors import BadArgument, ModelError
from ..protocols import HasModel, Tightened, classes_of
from ..types import ModelLike, Settings
from .labels import LABEL


@torch.no_grad()
def class_probabilities(
    model: ModelLike,
    batch: Mapping[str, Tensor],
    prior: Sequence[float] | Tensor | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> Tensor:
    """The probability of each class of each row, (n, C), by Bayes' rule.

        p(c | y) ∝ p(y | c) p(c)

    Of a flow, and of a probability flow, it is exact. Of a model whose log p(y | c) is known by a lower bound
    (a VAE, a diffusion) it is an approximation: the bound stands in the place of log p, and the bounds of two
    classes may be apart from theirs by different amounts. All classes are scored with the same draws, so that
    most of their noise cancels; `samples` makes what is left smaller.

    Parameters
    ----------
    model
        made with `classes=C`, or a fit of one
    batch
        with "y", and all else that the model reads; a "label" in it has no influence
    prior
        p(c), (C,), which sum to 1; None: 1/C each
    samples
        K, draws an observation of a model whose value is a bound; None: the model's own K
    seed
        of those draws

    Returns
    -------
    Tensor
        (n, C) float64, each row sums to 1

    Raises
    ------
    BadArgument
        a model without classes; a prior that is not one; samples of a model that draws none
    ModelError
        y is impossible in every class that the prior allows, or log p is not a number

    References
    ----------
    Ng and Jordan (2001), On discriminative vs. generative classifiers; Li et al. (2023), Your diffusion model
    is secretly a zero-shot classifier (common draws for all classes).

    Examples
    --------
    >>> from .flow import Flow
    >>> p = class_probabilities(Flow.affine(2, classes=3, hidden=(8,)), {"y": torch.zeros(5, 2)}, [0.5, 0.3, 0.2])
    >>> tuple(p.shape), bool(torch.allclose(p.sum(1), torch.ones(5, dtype=torch.float64)))
    ((5, 3), True)
    """
    if not isinstance(model, nn.Module) and isinstance(model, HasModel):
        model = model.model
    classes = classes_of(model)
    if classes is None:
        raise BadArgument(
            f"Bayes' rule needs p(y | class), and this {type(model).__name__} has no classes. Make it with classes=C."
        )
    if samples is not None:
        if not isinstance(model, Tightened):
            raise BadArgument(f"samples={samples}: log p of {type(model).__name__} is not made of draws.")
        model = model.tightened(samples)
    log_prior = _log_prior(prior, classes)
    given = (
        batch if isinstance(batch, Batch) else Batch({name: torch.as_tensor(t) for name, t in batch.items()})
    )
    given = given.to(device_of(model))
    draws = "generator" in inspect.signature(model.log_prob).parameters
    columns = []
    with evaluating(model):
        for c in range(classes):
            label = torch.full((len(given),), c, dtype=torch.int64, device=device_of(model))
            settings: Settings = {"generator": torch.Generator().manual_seed(seed)} if draws else {}
            found = model.log_prob(Batch({**given.tensors, LABEL: label}), **settings)
            columns.append(found.to("cpu", torch.float64))
    joint = torch.stack(columns, 1) + log_prior
    # a class of prior 0 may have a log p of −∞ as well; what is +∞ or NaN is not a log-probability
    bad = torch.isnan(joint).any(1) | (joint == math.inf).any(1) | (joint == -math.inf).all(1)
    if bool(bad.any()):
        at = int(torch.nonzero(bad)[0, 0])
        raise ModelError(
            f"row {at}: log p(y | class) is {[float(f'{v:.4g}') for v in torch.stack(columns, 1)[at]]}, which has no "
            f"posterior of the classes ({int(bad.sum())} such rows). Accepted: a number of at least one class."
        )
    return torch.softmax(joint, 1)


def _log_prior(prior: Sequence[float] | Tensor | None, classes: int) -> Tensor:
    """log p(c), (C,)."""
    if prior is None:
        return torch.full((classes,), -math.log(classes), dtype=torch.float64)
    p = torch.as_tensor(prior, dtype=torch.float64).cpu()
    if tuple(p.shape) != (classes,) or not bool((p >= 0).all()) or abs(float(p.sum()) - 1) > 1e-6:
        raise BadArgument(f"prior={p.tolist()}. Accepted: {classes} probabilities, which sum to 1.")
    return torch.log(p)
