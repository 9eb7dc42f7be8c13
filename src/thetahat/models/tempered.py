"""Tempered: a classifier whose logits are divided by one number, the temperature, fitted to data that it
has not seen."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families import links
from ..families.base import Family, Parameter
from ..families.ranges import positive
from ..protocols import averaging_of, encoder_of, target_of
from ..types import Data, ModelLike, Plain
from .base import Model, family_of
from .conditional import Conditional
from .regression import Regression


class Tempered(Conditional):
    """p(y | x) ∝ exp(η_y(x) / T): the temperature of a classifier, its own θ held.

        log p(y | x, T) = η_y / T − log Σ_j exp(η_j / T),      θ = log T

    Fitted to held-out rows, T says how much too sure the classifier is (T > 1) or too doubtful (T < 1); its
    errors remain, since no order of the logits changes. log p is concave in 1/T, which is monotone in θ, so
    that a stationary point is the global maximum. There is none where the logits order every row rightly (T →
    0), or where they tell less than nothing (T → ∞).

    Parameters
    ----------
    model
        a fitted `Conditional` or `Regression` of a Categorical, or of a Bernoulli with link logit; its θ is
        copied, and is not part of this model's

    Raises
    ------
    BadArgument
        a model without logits

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, §4.2.

    Examples
    --------
    >>> from thetahat.families import Categorical
    >>> model = Tempered(Conditional(Categorical(2), nn.Linear(3, 2)))
    >>> model.names, float(model.temperature)
    (['temperature'], 1.0)
    """

    names = ["temperature"]
    elementwise = True
    spec = Parameter(positive, link=links.log)

    def __init__(self, model: nn.Module):
        Model.__init__(self)
        family = family_of(model)
        logit = family is not None and family.support.binary and _logistic(family)
        if not isinstance(model, (Conditional, Regression)) or not (
            logit or type(family).__name__ == "Categorical"
        ):
            raise BadArgument(
                f"Tempered(model) divides logits, and {family or type(model).__name__} has none. Accepted: a "
                "Conditional or a Regression of "
                "a Categorical, or of a Bernoulli with link='logit'."
            )
        assert family is not None
        self.inner: ModelLike = copy.deepcopy(model).requires_grad_(False).eval()
        self.family, self.target, self.measure = family, target_of(model), family.measure
        self.weights = averaging_of(model)
        self.log_temperature = nn.Parameter(torch.zeros((), dtype=torch.float64))

    # ---- p -------------------------------------------------------------------------------------------------

    @property
    def temperature(self) -> Tensor:
        """T = exp θ."""
        return torch.exp(self.log_temperature.detach())

    def natural(self, theta: Tensor) -> Tensor:
        """θ → T."""
        return torch.exp(theta)

    def logits(self, batch: Batch) -> Tensor:
        """The classifier's own η, float64, (…, k)."""
        with torch.no_grad():
            eta = [e.detach().to(torch.float64).expand(batch.shape) for e in self.inner.eta(batch)]
        return torch.stack(eta, -1)

    def outputs(self, batch: Batch) -> Tensor:
        """η / T, (…, k)."""
        return self.logits(batch) * torch.exp(-self.log_temperature)

    def train(self, mode: bool = True) -> Tempered:
        super().train(mode)
        self.inner.eval()
        return self

    # ---- data ----------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Plain:
        """How a table becomes what a regression reads; None of a network."""
        return encoder_of(self.inner)

    def source(self, data: Data, weights: str | None = None) -> Source | None:
        """A table as the regression inside reads it; None where a network reads it as other models do."""
        if self.encoder is None:
            return None
        from ..data.frame import Frame
        from ..data.table import Table

        return Table(Frame(data), self.encoder, self.family)

    # ---- what is known of the maximum ----------------------------------------------------------------------

    @property
    def concave(self) -> bool:
        return True

    @property
    def slopes(self) -> list[bool]:
        return [False]

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        """The direction of θ along which the likelihood of these rows never falls, and why; None where there
        is one maximum.

        T → 0      η_y = max_j η_j in every row, and in some not for all j
        T → ∞      Σ (η_y − mean_j η_j) ≤ 0: the slope in 1/T is not positive at 1/T = 0, and falls from there
        flat       every row's logits are all equal
        """
        right, told, gain = True, False, 0.0
        for batch in source.batches(self):
            seen = batch.count.to(torch.float64) * torch.ones(batch.shape, dtype=torch.float64)
            eta = self.logits(batch)
            odds = eta.shape[-1] == len(
                self.family.parameters
            )  # log-odds against the first category, whose own is 0
            logits = torch.nn.functional.pad(eta, (1, 0)) if odds else eta
            chosen = logits.gather(-1, batch[self.target].long()[..., None])[..., 0]
            right = right and bool((chosen == logits.amax(-1))[seen > 0].all())
            told = told or bool((logits.amax(-1) > logits.amin(-1))[seen > 0].any())
            gain += float((seen * (chosen - logits.mean(-1))).sum())
        if not told:
            return (
                "flat direction",
                {"temperature": 1.0},
                "every row's logits are all equal: whatever divides them, they stay so.",
            )
        if right:
            return (
                "no maximum",
                {"temperature": -1.0},
                (
                    "the likelihood has no maximum: the classifier is right in every one of these rows, so "
                    "that T → 0, which is sure of every "
                    "answer, makes them ever more probable. Give more rows, with some that it gets wrong."
                ),
            )
        if gain <= 0:
            return (
                "no maximum",
                {"temperature": 1.0},
                (
                    "the likelihood has no maximum: on these rows the logits point away from the truth, and "
                    "T → ∞, which knows nothing, makes "
                    "them ever more probable. The classifier does not describe these data."
                ),
            )
        return None


def _logistic(family: Family) -> bool:
    return isinstance(next(iter(family.parameters.values())).link, links.Logit)
