"""A whole step of AdamW as one graph of torch.compile: the gradient (`compiled`), its norm, the bound of the norm, θ.

    g ← g · min(1, c / ‖g‖),      m ← β₁ m + (1 − β₁) g,      v ← β₂ v + (1 − β₂) g²
    θ ← (1 − rate · decay) θ − rate / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)

Of a small network the optimiser and the norm, one small call after another, take a third of a step. It is the step that
is made without it, to rounding; and as there nothing moves where the value or the norm is not finite, or where θ would
leave the finite numbers.

References
----------
Loshchilov and Hutter (2019), Decoupled weight decay regularization.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..likelihood import LogLikelihood
from .compiled import (
    Part,
    WholeStep,
    compiled,
    dynamic_where_drawn,
    options,
    plain,
    traced,
    value_and_gradient,
)
from .optimisers import FAR, AdamW

SMALL = (
    2**18,
    32,
)  # numbers of θ, and tensors: of more the optimiser is a small part of a step, and a graph of it is not


class Group(NamedTuple):
    """Parameters that AdamW moves alike, by their places, with their moments and the numbers of their steps."""

    places: tuple[int, ...]
    m: list[Tensor]
    v: list[Tensor]
    steps: list[Tensor]
    betas: tuple[float, float]
    eps: float
    decay: float


class WholeUpdate:
    """Moves θ by one compiled call a step.

    Parameters
    ----------
    step
        whose gradient it is
    optimiser
        of all parameters; its moments move
    most
        c, the largest norm of the gradient; None: unbounded
    """

    def __init__(self, step: WholeStep, optimiser: AdamW, most: float | None):
        self.step, self.optimiser, self.most = step, optimiser, math.inf if most is None else most
        self.possible = step.possible
        # the list of a graph's kernels in C++ too: in Python it takes a tenth of a small network's step
        self._call: Callable[..., Any] = compiled(
            _update, fullgraph=True, options=options() | {"cpp_wrapper": True}
        )
        self._groups: list[Group] = []
        self._traced = False

    def __call__(
        self, each: Sequence[Part], other: Sequence[bool], rate: float
    ) -> tuple[float, float] | None:
        """(the value, the norm of the gradient); None: it cannot be one graph, and nothing was done.

        Parameters
        ----------
        other
            of each term whether its model is trained by something else than log p
        """
        if not self._groups and not self._begin():
            self.possible = False
            return None
        terms, data, weights, scales = plain(each)
        (b1, b2), t = self._groups[0].betas, float(self._groups[0].steps[0]) + 1
        bounds = (rate, 1 - b1**t, math.sqrt(1 - b2**t), self.most)
        numbers = torch.tensor([1.0, *scales, *bounds], dtype=torch.float64)
        given = (
            terms,
            data,
            weights,
            numbers,
            tuple(other),
            self.step.parameters,
            self.step.widest,
            self._groups,
        )
        if not self._traced:
            dynamic_where_drawn(terms, each)
        found = traced(self._call, given, self._traced)
        self.possible = self._traced = found is not None and found[1] is not None
        return (float(found[0]), float(found[1])) if self.possible and found is not None else None

    @staticmethod
    def pays(parameters: Sequence[nn.Parameter]) -> bool:
        """Whether θ is small."""
        return sum(p.numel() for p in parameters) <= SMALL[0] and len(parameters) <= SMALL[1]

    def _begin(self) -> bool:
        """Whether the optimiser moves all of θ in the same step: then its groups, with moments of 0 where there were
        none yet."""
        self.optimiser.begin()
        every = [p for group in self.optimiser.param_groups for p in group["params"]]
        place = {id(p): i for i, p in enumerate(self.step.parameters)}
        alike = len({float(self.optimiser.state[p]["step"]) for p in every}) == 1
        if not alike or {id(p) for p in every} != set(place):
            return False
        for group in self.optimiser.param_groups:
            own = [self.optimiser.state[p] for p in group["params"]]
            m, v, steps = ([state[name] for state in own] for name in ("exp_avg", "exp_avg_sq", "step"))
            places = tuple(place[id(p)] for p in group["params"])
            given = group["betas"], group["eps"], group["weight_decay"]
            self._groups.append(Group(places, m, v, steps, *given))
        return len({group.betas for group in self._groups}) == 1


def _update(
    terms: Sequence[LogLikelihood],
    data: Sequence[Any],
    weights: Sequence[Tensor | None],
    numbers: Tensor,
    other: Sequence[bool],
    parameters: Sequence[nn.Parameter],
    widest: torch.dtype,
    groups: Sequence[Group],
) -> tuple[Tensor, Tensor | None]:
    """(value, norm); None in its place where a parameter has no gradient, and nothing moves."""
    first, (rate, one, two, most) = numbers[:-4], numbers[-4:].unbind()
    value, each = value_and_gradient(terms, data, weights, first, other, parameters, widest)
    found = [g for g in each if g is not None]
    if len(found) < len(parameters):
        return value, None
    with torch.no_grad():
        norm = torch.stack([g.to(widest).square().sum() for g in found]).sum().sqrt()
        far = rate * norm.clamp(max=most).clamp(min=1.0) > torch.finfo(parameters[0].dtype).max / FAR
        moves = torch.isfinite(value) & torch.isfinite(norm) & ~far
        shrink = (most / norm).clamp(max=1.0)
        for group in groups:
            b1, b2 = group.betas
            for i, m, v, steps in zip(group.places, group.m, group.v, group.steps, strict=True):
                p = parameters[i]
                g = found[i] * shrink.to(p.dtype)
                m_next = torch.lerp(m, g, 1 - b1)
                v_next = b2 * v + (1 - b2) * g.square()
                kept = p * (1 - rate * group.decay).to(p.dtype) if group.decay else p
                slope = m_next / (v_next.sqrt() / two.to(p.dtype) + group.eps)
                for now, then in ((p, kept - (rate / one).to(p.dtype) * slope), (m, m_next), (v, v_next)):
                    now.copy_(torch.where(moves, then, now))
                steps.add_(moves)
    return value, norm
