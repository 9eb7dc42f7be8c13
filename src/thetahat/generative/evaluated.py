"""What an audit evaluates: a published model's mass of images, and the same figures as a publication that
errs would compute them.

    log P(y) ≥ E_u [log p(x(y + u)) + log |dx/dy|],      u uniform on [0, 1)^d

References
----------
Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, §3.1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import device_of
from ..protocols import draws_of, kind_of
from ..types import Plain
from .discrete import DiscreteDiffusion
from .images import Images
from .scaling import Scaling

Log = Callable[[Tensor, torch.Generator], Tensor]  # x (n, d), generator → (n,)


@dataclass(frozen=True)
class Values:
    """Of each image, (n,) nats, float64, on the CPU.

    Parameters
    ----------
    mass
        log P(y), or its bound
    change
        log |dx/dy| within it; None where a mass needs none
    noise
        standard error of each that comes from the draws
    bare
        log p(x(y)) + log |dx/dy| at the whole numbers themselves, which is a density; None of a model of a mass
    bare_change
        log |dx/dy| within it
    loss
        the training loss of a diffusion, a mean over numbers, not in nats; None of other models
    """

    mass: Tensor
    change: Tensor | None = None
    noise: Tensor | None = None
    bare: Tensor | None = None
    bare_change: Tensor | None = None
    loss: Tensor | None = None


class Evaluated(ABC):
    """A model in the form in which images are scored.

    Parameters
    ----------
    sentence
        how the number comes about
    kind
        "exact" or "lower bound"
    draws
        at least two where there is noise, else 1
    """

    def __init__(self, sentence: str, kind: str, draws: int):
        self.sentence, self.kind, self.draws = sentence, kind, draws

    @abstractmethod
    def drawn(self, y: Tensor, generator: torch.Generator, first: bool) -> Values:
        """One draw, of images (n, d), float64; what has no noise need only be in the first."""


class OfMass(Evaluated):
    """A model of this library whose log_prob(batch) is already that of whole numbers."""

    def __init__(self, model: nn.Module, draws: int):
        noisy = kind_of(model) != "exact"
        super().__init__(f"log_prob of {type(model).__name__}", kind_of(model), draws if noisy else 1)
        self.model, self.noisy, self.K = model, noisy, draws_of(model)

    def drawn(self, y: Tensor, generator: torch.Generator, first: bool) -> Values:
        batch = Batch({"y": y.long().to(device_of(self.model))})
        model: Any = self.model
        return Values(model.log_prob(batch, generator) if self.noisy else model.log_prob(batch))


class OfChain(Evaluated):
    """A diffusion of T steps: a mass by its decoder, a density by the Gaussian of the decoder."""

    def __init__(self, model: DiscreteDiffusion, draws: int):
        T = len(model.alphas_cumprod)
        times = "" if model.times is None else f", {model.times} of them drawn for each image"
        clip = "" if model.clip is None else f", prediction of x clipped to ±{model.clip:g}"
        super().__init__(
            f"variational bound of {T} steps{times} ({model.prediction_type}, {model.variance_type}{clip}), "
            "discretised Gaussian decoder",
            "lower bound",
            draws,
        )
        self.model = model

    def drawn(self, y: Tensor, generator: torch.Generator, first: bool) -> Values:
        terms = self.model.terms(y, generator)
        change = -torch.log(self.model.scale).expand(y.shape[1]).sum().to(terms.chain).expand(len(y))
        mass = terms.chain if terms.mass is None else terms.chain + terms.mass
        return Values(mass, None, None, terms.chain + terms.density + change, change, terms.loss)


class OfDensity(Evaluated):
    """A density of x, whose mass of a cell is bounded by noise that is uniform in it."""

    def __init__(self, log_density: Log, loss: Log | None, scaling: Scaling, sentence: str, draws: int):
        super().__init__(f"{sentence}, dequantised by uniform noise", "lower bound", draws)
        self.log_density, self.loss, self.scaling = log_density, loss, scaling

    def drawn(self, y: Tensor, generator: torch.Generator, first: bool) -> Values:
        trained = self.loss(self.scaling(y)[0], generator) if first and self.loss is not None else None
        if trained is not None and not bool(torch.isfinite(trained).all()):
            return Values(torch.full((len(y),), math.nan, dtype=torch.float64), loss=trained)
        u = torch.rand(y.shape, generator=generator, dtype=torch.float64)
        x, change = self.scaling(y + u)
        mass = self.log_density(x, generator).cpu().to(torch.float64) + change
        if not first:
            return Values(mass, change)
        x, own = self.scaling(y)
        bare = self.log_density(x, generator).cpu().to(torch.float64) + own
        return Values(mass, change, None, bare, own, trained)


@torch.no_grad()
def evaluate(model: Evaluated, images: Images, batch_size: int, seed: int) -> Values:
    """The mean over the draws, batch by batch, with the noise that is left."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[Values] = []
    for y in images.whole.tensors["y"].split(batch_size):
        drawn = []
        for draw in range(model.draws):
            drawn.append(model.drawn(y.to(torch.float64), generator, first=draw == 0))
            if not bool(finite(drawn[-1].mass).all()):
                break  # no number is left to be made more precise
        parts.append(_averaged(drawn))
    whole: dict[str, Any] = {}
    for name in (f.name for f in fields(Values)):
        held = [vars(v)[name] for v in parts]
        whole[name] = None if any(v is None for v in held) else torch.cat(held)
    return Values(**whole)


def _averaged(drawn: list[Values]) -> Values:
    """Their mean, and the standard error of its mass."""
    masses = torch.stack([v.mass.cpu().to(torch.float64) for v in drawn])
    noise = masses.std(0) / len(drawn) ** 0.5 if len(drawn) > 1 else torch.zeros_like(masses[0])
    change, bare, bare_change, trained = (
        _mean([vars(v)[name] for v in drawn]) for name in ("change", "bare", "bare_change", "loss")
    )
    return Values(masses.mean(0), change, noise, bare, bare_change, trained)


def _mean(values: list[Tensor | None]) -> Tensor | None:
    held = [v.cpu().to(torch.float64) for v in values if v is not None]
    return torch.stack(held).mean(0) if held else None


@contextmanager
def evaluating(model: Plain) -> Iterator[None]:
    """Without dropout, and each of its modules as it was afterwards."""
    modules = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    for module, _ in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in modules:
            module.training = training


def finite(values: Tensor) -> Tensor:
    """Which are a log-probability: numbers, or −∞."""
    return ~(torch.isnan(values) | (values == math.inf))
