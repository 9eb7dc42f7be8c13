"""Models whose values are known, and small data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from thetahat.data import Batch, Tensors
from thetahat.families import Family
from thetahat.models import Model


class Given(Model):
    """A family at fixed parameters: nothing to fit."""

    def __init__(self, family: Family, parameters: tuple[float, ...]):
        super().__init__()
        self.family, self.measure = family, family.measure
        self.at = [torch.tensor([p], dtype=torch.float64) for p in parameters]

    def eta(self, batch: Batch) -> list[Tensor]:
        return [spec.link(p) for spec, p in zip(self.family.parameters.values(), self.at, strict=True)]

    def log_prob(self, batch: Batch) -> Tensor:
        extras = {name: batch[name] for name in self.family.extras if name in batch}
        return self.family.log_prob(batch["y"], *[p.expand(len(batch)) for p in self.at], **extras)


class Read(Model):
    """log p read off the batch."""

    def __init__(self, measure: str = "density"):
        super().__init__()
        self.measure = measure

    def log_prob(self, batch: Batch) -> Tensor:
        return batch["log_p"]


class Noisy(Model):
    """log p of the batch, minus `gap`, plus noise of standard deviation `noise`: a bound or an estimate that
    draws."""

    def __init__(self, kind: str, *, gap: float = 0.0, noise: float = 0.1, K: int | None = None):
        super().__init__()
        self.kind, self.gap, self.noise, self.K = kind, gap, noise, K  # type: ignore[misc]

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        exact = batch["log_p"]
        return (
            exact - self.gap + self.noise * torch.randn(exact.shape, dtype=exact.dtype, generator=generator)
        )


def values(*log_p: float, count: Tensor | None = None, block: int = 16384) -> Tensors:
    """A source whose log p is given."""
    tensor = torch.tensor(log_p, dtype=torch.float64)
    return Tensors(
        {"log_p": tensor, "y": torch.arange(len(tensor), dtype=torch.float64)}, count=count, block=block
    )


def people(n: int = 300, seed: int = 0) -> dict[str, np.ndarray]:
    """Two numbers, two categories, an exposure, and responses of several kinds."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.uniform(0.5, 2.0, size=n)
    region = rng.choice(np.array(["north", "south", "west"]), n)
    smokes = rng.choice(np.array(["no", "yes"]), n)
    exposure = rng.uniform(0.5, 3.0, size=n)
    eta = 0.3 + 0.5 * x - 0.4 * z + 0.3 * (region == "south") - 0.2 * (smokes == "yes")
    return {
        "x": x,
        "z": z,
        "region": region,
        "smokes": smokes,
        "exposure": exposure,
        "normal": eta + 0.7 * rng.normal(size=n),
        "positive": np.exp(eta) * rng.gamma(3.0, 1 / 3.0, size=n),
        "claims": rng.poisson(exposure * np.exp(eta)).astype(float),
        "event": (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float),
        "choice": rng.choice(np.array(["car", "bus", "walk"]), n),
        "grade": rng.choice(np.array(["a", "b", "c"]), n, p=[0.2, 0.5, 0.3]),
        "weight": rng.integers(1, 4, n).astype(float),
    }
