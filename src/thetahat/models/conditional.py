"""Conditional: a family whose parameters are the outputs of a network. Every regression and every
classifier of deep learning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import BadArgument, ModelError
from ..families.base import Family
from ..families.categorical import Categorical
from ..families.independent import Independent
from ..networks import Standardise
from ..protocols import Categories
from .base import Model, applied, drawn, response


class Conditional(Model):
    """p(y | x) of a family, its parameters read off a network.

        log p(y | x, θ) = log p(y | g_1⁻¹(η_1), …, g_k⁻¹(η_k)),      (η_1, …, η_k) = f_θ(x)

    Parameters
    ----------
    family
        p(y | its k parameters); Categorical(K) also takes K logits, one of which is then left over
    network
        x (n, …) → η (n, k); (n,) will do where k is 1
    inputs
        the tensor of the batch that the network reads, or the columns that are stacked to it, (n, columns)
    target
        the tensor that is scored. Of a Categorical either codes, (n,), or (n, K) how often each category was said of
        a row: counts of several annotators, or their shares (soft labels), Σ_j y_j log p_j
    label_noise
        ε in [0, 1) of a Categorical: a share ε of the labels was replaced by a category at random, so that
        log p(y | x) = log[(1 − ε) p_y + ε/K]

    Raises
    ------
    ModelError
        the network's outputs are not as many as the family's parameters

    References
    ----------
    Bishop (1994), Mixture Density Networks (networks whose outputs are the parameters of a density).

    Examples
    --------
    >>> from thetahat.families import Poisson
    >>> model = Conditional(Poisson(), nn.Linear(2, 1, dtype=torch.float64))
    >>> tuple(model.log_prob(Batch({"x": torch.ones(5, 2), "y": torch.zeros(5)})).shape)
    (5,)
    """

    label_noise: float = 0.0

    def __init__(
        self,
        family: Family,
        network: nn.Module,
        *,
        inputs: str | Sequence[str] = "x",
        target: str = "y",
        label_noise: float = 0.0,
    ):
        super().__init__()
        if not 0 <= label_noise < 1 or (label_noise and not isinstance(family, Categorical)):
            raise BadArgument(
                f"label_noise={label_noise} of {family}. Accepted: in [0, 1), of a Categorical."
            )
        self.label_noise = label_noise
        if not isinstance(family, Family):
            raise BadArgument(
                f"Conditional(family, network): family is {type(family).__name__}, not a family "
                "(th.families.Poisson())."
            )
        if not isinstance(network, nn.Module):
            raise BadArgument(
                f"Conditional(family, network): network is {type(network).__name__}, not a torch.nn.Module."
            )
        self.family, self.network, self.target = family, network, target
        self.inputs = inputs if isinstance(inputs, str) else tuple(inputs)
        self.measure = family.measure
        # asked here: what is compiled does not ask again
        self._k = (
            0 if isinstance(family, Categories) and family.categories is None else len(family.parameters)
        )

    # ---- p -------------------------------------------------------------------------------------------------

    def outputs(self, batch: Batch) -> Tensor:
        """The family's linear predictors of each row, (…, k); of a Categorical also its logits, one more."""
        x = (
            batch[self.inputs]
            if isinstance(self.inputs, str)
            else torch.stack([batch[name] for name in self.inputs], -1)
        )
        out = applied(self.network, x)
        if not self._k:
            self._k = len(self.family.parameters)
        k = self._k
        if k == 1 and out.shape == batch.shape:
            return out[..., None]
        wanted = (k, k + 1) if isinstance(self.family, Categories) else (k,)
        if out.shape[:-1] != batch.shape or out.shape[-1] not in wanted:
            raise ModelError(
                f"the network gives a tensor of shape {tuple(out.shape)} for terms of shape {batch.shape}, "
                f"and {self.family} has the "
                f"parameters {', '.join(self.family.parameters)}. Accepted: "
                f"{' or '.join(str((*batch.shape, w)) for w in wanted)}."
            )
        return out

    def eta(self, batch: Batch) -> list[Tensor]:
        """The same, k tensors of `batch.shape`."""
        return list(self.outputs(batch).unbind(-1))

    def extras(self, batch: Batch) -> dict[str, Tensor]:
        return {name: batch[name] for name in self.family.extras if name in batch}

    def log_prob(self, batch: Batch) -> Tensor:
        if isinstance(self.family, Categorical) and (self.label_noise or self._soft(batch)):
            return self._of_labels(batch)
        return self.family.log_prob_outputs(
            response(batch, self.target, self.family), self.outputs(batch), **self.extras(batch)
        )

    def _soft(self, batch: Batch) -> bool:
        """Whether each row has a number a category."""
        y = batch[self.target]
        return bool(y.ndim == len(batch.shape) + 1 and y.shape[-1] > 1)

    def _of_labels(self, batch: Batch) -> Tensor:
        """Σ_j y_j log[(1 − ε) p_j + ε/K]."""
        logits = self.outputs(batch)
        y, soft = batch[self.target], self._soft(batch)
        known: int | None = self.family.categories
        K = y.shape[-1] if soft else known or logits.shape[-1]
        if known not in (None, K):
            raise ModelError(f"{self.target!r} has {K} categories a row, and {self.family} has {known}.")
        if logits.shape[-1] == K - 1:
            logits = nn.functional.pad(logits, (1, 0))  # beside the 0 of category 0
        if logits.shape[-1] != K:
            raise ModelError(
                f"{self.target!r} has {K} categories, and the network gives {logits.shape[-1]} numbers. Accepted: {K} or "
                f"{K - 1} of them."
            )
        log_p = torch.log_softmax(logits, -1)
        if self.label_noise:
            log_p = torch.logaddexp(
                log_p + math.log1p(-self.label_noise), torch.full_like(log_p, math.log(self.label_noise / K))
            )
        if not soft:
            code = y.long().clamp(0, K - 1)
            out = log_p.gather(-1, code[..., None])[..., 0]
            return torch.where((y >= 0) & (y < K) & (y == code), out, -math.inf)
        y = y.to(log_p.dtype)
        return torch.where(y == 0, 0.0, y * log_p).sum(-1) + torch.where((y < 0).any(-1), -math.inf, 0.0)

    # ---- what it predicts ----------------------------------------------------------------------------------

    def parameters_at(self, batch: Batch) -> list[Tensor]:
        """The family's parameters on their own scales; a Categorical's logits as they are."""
        with torch.no_grad():
            eta = self.eta(batch)
        return self.family.natural(eta) if len(eta) == len(self.family.parameters) else eta

    def mean(self, batch: Batch) -> Tensor:
        """E[y | x]."""
        return self.family.expectation(*self.parameters_at(batch), **self.extras(batch))

    def probabilities(self, batch: Batch) -> Tensor:
        """P(y = j | x), (n, K), of a categorical family."""
        if not isinstance(self.family, Categories):
            raise BadArgument(
                f"{self.family} has no probabilities of categories. It has a mean: model.mean(batch)."
            )
        return self.family.probabilities(*self.parameters_at(batch))

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row."""
        return drawn(self.family, self.parameters_at(batch), generator, **self.extras(batch))

    def diagnostics(self, batch: Batch) -> dict[str, Tensor]:
        """accuracy: whether the most probable category (of 0 and 1, that of probability over ½) is y; of several labels
        the share that is right."""
        if isinstance(self.family, Categories):
            guess = self.probabilities(batch).argmax(-1)
        elif isinstance(self.family, Independent) and self.family.family.support.binary:
            right = (self.mean(batch) > 0.5) == batch[self.target].bool()
            return {"accuracy": right.float().mean(-1)}
        elif self.family.support.binary:
            guess = (self.mean(batch) > 0.5).long()
        else:
            return {}
        truth = batch[self.target].argmax(-1) if self._soft(batch) else batch[self.target]
        return {"accuracy": (guess == truth.to(guess.device)).float()}

    # ---- what makes it explained ---------------------------------------------------------------------------

    @property
    def concave(self) -> bool:
        """log p is concave in θ if it is in η and η is affine in θ."""
        return self.family.concave and _affine(self.network)

    @property
    def slopes(self) -> list[bool]:
        """Which coordinates of θ are weights rather than biases: those that a prior is on unless it names
        others."""
        return [
            not name.endswith("bias")
            for name, p in self.named_parameters()
            if p.requires_grad
            for _ in range(p.numel())
        ]


def _affine(network: nn.Module) -> bool:
    """Whether it is one affine map, of columns as they are or standardised."""
    layers = list(network) if isinstance(network, nn.Sequential) else [network]
    moved = [layer for layer in layers if not isinstance(layer, Standardise)]
    if len(moved) == 1 and isinstance(moved[0], nn.Sequential):
        return _affine(moved[0])
    return len(moved) == 1 and isinstance(moved[0], nn.Linear)
