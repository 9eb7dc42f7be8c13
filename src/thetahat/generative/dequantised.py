"""Dequantised: the mass of whole numbers, from a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data import maps as _maps
from ..data.batch import Batch
from ..data.devices import CPU, widest
from ..data.maps import Logit, Map
from ..errors import BadArgument, ModelError, OutOfSupport
from ..protocols import Checks, Draws, classes_of, kind_of, measure_of
from .bound import Bound, log_mean_exp
from .labels import Label, asked

# how near a draw comes to the ends of its cell, where a logit is infinite: less of the cell than a float32
# resolves
EDGE = 1e-7
HELD = 2**22  # numbers of draws that are held at once
ROUNDS = 100


class Dequantised(Bound):
    """P(y) of whole numbers y, from a density of what they might have been before they were rounded down.

        P(y) = ∫_{[0,1)^d} p(y + u) du  ≥  exp E log (1/K) Σ_k p(y + u_k),      u_k uniform on [0, 1)^d

    It is a mass, so a flow stands in one table with models of whole numbers.

    A density that leaves some of its mass outside the levels has a P that sums to less than 1, which is the
    price of the score; with "logit" there is none outside.

    Parameters
    ----------
    density
        a model of x = y + u in [0, levels)^d, such as a `Flow` or a mixture
    levels
        y is one of 0 … levels − 1; None: any whole number
    K
        draws an observation: the bound is tighter for more
    maps
        of x, before the density sees it: "logit" (of x/levels, to all real numbers), or maps of
        `th.data.maps` whose constants are known
    target
        the tensor that is scored, (n,) or (n, d)

    Raises
    ------
    OutOfSupport
        y is not one of the levels
    BadArgument
        the model given is no density

    References
    ----------
    Theis, van den Oord and Bethge (2016), A note on the evaluation of generative models, §3.1 (K = 1);
    Hoogeboom, Cohen and Tomczak (2020), Learning discrete distributions by dequantization (several draws).

    Examples
    --------
    >>> from thetahat.families import Normal
    >>> from thetahat.models import Density
    >>> model = Dequantised(Density(Normal()), K=1000)  # the mass of [0, 1) is 0.3413
    >>> model.log_prob(Batch({"y": torch.zeros(1)}), torch.Generator().manual_seed(0)).exp().round(decimals=2)
    tensor([0.3400], dtype=torch.float64, grad_fn=<RoundBackward1>)
    """

    measure = "mass"

    def __init__(
        self,
        density: nn.Module,
        levels: int | None = None,
        K: int = 1,
        *,
        maps: Sequence[str | Map] = (),
        target: str = "y",
    ):
        super().__init__()
        if not isinstance(density, nn.Module) or measure_of(density) != "density":
            raise BadArgument(f"Dequantised(density): {type(density).__name__} is not a model of a density.")
        if kind_of(density) != "exact":
            raise BadArgument(
                f"Dequantised(density): log p of {type(density).__name__} is not exact, and a bound of a "
                "bound is not kept."
            )
        if levels is not None and levels < 2:
            raise BadArgument(f"levels={levels}. Accepted: 2 or more, or None.")
        if K < 1:
            raise BadArgument(f"K={K}. Accepted: 1 or more draws an observation.")
        if "logit" in maps and levels is None:
            raise BadArgument("maps=['logit']: without levels there is no upper end. Accepted: levels=256.")
        self.density: Any = density
        self.levels, self.K, self.target = levels, K, target
        self.maps = _maps.named(
            [Logit(0.0, float(levels or 1)) if each == "logit" else each for each in maps]
        )

    # ---- p -------------------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The bound, (n,), of K draws from the generator, or from torch's own."""
        y = batch[self.target]
        self._check(y)
        wide = widest(y.device)
        y = y.to(wide)  # 255 + u has no digits to spare in float32
        others = {name: t for name, t in batch.tensors.items() if name != self.target}

        def log_density(k: int) -> Tensor:
            where = y.device if generator is None else generator.device
            u = torch.rand((k, *y.shape), dtype=wide, device=where, generator=generator).to(y.device)
            x = (y + u.clamp(EDGE, 1 - EDGE)).reshape(k * len(y), *y.shape[1:])
            t, change = _maps.forward(self.maps, x)
            repeated = {name: other.repeat(k, *[1] * (other.ndim - 1)) for name, other in others.items()}
            out: Tensor = (self.density.log_prob(Batch({self.target: t, **repeated})) + change).reshape(
                k, len(y)
            )
            return out

        return log_mean_exp(log_density, self.K, HELD // max(y.numel(), 1))

    def _check(self, y: Tensor) -> None:
        bad = torch.zeros_like(y, dtype=torch.bool) if not y.is_floating_point() else y != torch.floor(y)
        if self.levels is not None:
            bad = bad | (y < 0) | (y > self.levels - 1)
        if bool(bad.any()):
            at = torch.nonzero(bad)[0].tolist()
            kind = (
                "a whole number"
                if self.levels is None
                else f"a whole number 0 … {self.levels - 1} (levels={self.levels})"
            )
            raise OutOfSupport(
                f"{self.target!r} is {float(y[tuple(at)]):g} at {at}, and not {kind} ({int(bad.sum())} such "
                "values)."
            )

    # ---- draws ---------------------------------------------------------------------------------------------

    def check(self, batch: Batch) -> None:
        """Refuse labels that are not classes of the density, before a compiled log p is called."""
        if isinstance(self.density, Checks):
            self.density.check(batch)

    @property
    def classes(self) -> int | None:
        """C of the density."""
        return classes_of(self.density)

    def _density_draws(self, n: int, label: Tensor | None, generator: torch.Generator | None) -> Tensor:
        own: Callable[..., Tensor] | None = self.density.draw if isinstance(self.density, Draws) else None
        if own is not None:
            return own(n, generator=generator) if label is None else own(n, label=label, generator=generator)
        out: Tensor = self.density.sample(
            Batch({self.target: torch.zeros(n, dtype=torch.float64)}), generator=generator
        )
        return out

    @torch.no_grad()
    def draw(self, n: int, *, label: Label | None = None, generator: torch.Generator | None = None) -> Tensor:
        """n observations of whole numbers, (n, d): the density's draws, rounded down; those outside the
        levels are drawn again. `label`: of a density with classes, as its own `draw` takes it."""
        given = asked(label, n, self.classes, self, CPU)
        parts: list[Tensor] = []
        places: list[Tensor] = []  # of the parts among the n, of which those that are left are drawn again
        left = torch.arange(n)
        for _ in range(ROUNDS):
            if len(left) == 0:
                break
            classes = None if given is None else given[left]
            t = self._density_draws(len(left), classes, generator).to("cpu", torch.float64)
            y = torch.floor(_maps.inverse(self.maps, t)[0])
            inside = torch.ones(len(y), dtype=torch.bool)
            if self.levels is not None:
                inside = ~((y < 0) | (y > self.levels - 1)).reshape(len(y), -1).any(-1)
            parts.append(y[inside])
            places.append(left[inside])
            left = left[~inside]
        drawn = torch.cat(parts) if parts else torch.zeros(0)
        if len(drawn) < n:
            raise ModelError(
                f"of {ROUNDS} rounds of draws {len(drawn)} of {n} lie within 0 … {(self.levels or 1) - 1}: "
                "fit longer."
            )
        if given is not None:  # each in the place of its label
            drawn = drawn[torch.argsort(torch.cat(places))]
        return drawn if self.levels is None else drawn.to(torch.uint8 if self.levels <= 256 else torch.int64)
