"""θ of a hidden Markov model: what its coordinates are called, and the same model with its states in another order, or
with transitions at probability 0."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from ..errors import BadArgument
from ..protocols import HasSlopes
from ..types import ModelLike
from .base import Model, coefficient_names, get_theta, names_of, natural_of, set_theta
from .density import Density
from .hidden_chain import Chain
from .regression import Regression

M = TypeVar("M", bound=nn.Module)


class HiddenStates(Model):
    """K states, a model of y in each, and the chain by which they follow one another.

    θ = (logits of the first state, logits of the transitions, θ_1, …, θ_K).
    """

    k: int
    chain: Chain
    components: nn.ModuleList
    slot: int | None
    logits: nn.Parameter
    transitions: nn.Parameter

    def of(self, component: ModelLike, chain: Chain, slot: int | None = None) -> Self:
        """The model with k copies of a component as its states, θ not yet set."""
        out = copy.copy(self)
        nn.Module.__init__(out)
        out.__dict__ |= {n: v for n, v in self.__dict__.items() if not n.startswith("_") and n != "training"}
        out.components = nn.ModuleList(_copied(component, {}) for _ in range(self.k))
        out.chain, out.slot = chain, slot
        out.logits, out.transitions = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in chain.sizes)
        return out

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        out = _twin(self, memo)
        out.components = nn.ModuleList(_copied(component, memo) for component in self.components)
        return out

    def _ready(self) -> None:
        if not len(self.components):
            raise BadArgument(
                "this hidden Markov model has not read any data, and its states have no parameters yet. Fit it, or "
                "take model, source = hmm.bound(data)."
            )

    @property
    def states(self) -> list[ModelLike]:
        """The model of y in each state."""
        return list(self.components)

    @property
    def theta(self) -> Tensor:
        """θ as it stands, (p,)."""
        return get_theta(self)

    @property
    def sizes(self) -> list[int]:
        """How many coordinates of θ each state has."""
        return [sum(p.numel() for p in c.parameters() if p.requires_grad) for c in self.components]

    @property
    def places(self) -> list[slice]:
        """Where each state's own θ lies in the whole one."""
        out, at = [], sum(self.chain.sizes)
        for size in self.sizes:
            out.append(slice(at, at + size))
            at += size
        return out

    @property
    def heads(self) -> int:
        """How many estimates stand before those of the states."""
        starts = 0 if self.chain.stationary else self.k
        return starts + (self.chain.sizes[1] if self.chain.columns else self.k**2)

    @property
    def names(self) -> list[str]:
        self._ready()
        starts = [] if self.chain.stationary else [f"P(start {k + 1})" for k in range(self.k)]
        if self.chain.columns:
            moves = self._logit_names()
        else:
            moves = [f"P({j + 1} → {k + 1})" for j in range(self.k) for k in range(self.k)]
        return starts + moves + self._of_states(names_of)

    @property
    def coefficient_names(self) -> list[str]:
        """One name a coordinate of θ, as priors name it."""
        first = [f"logit[start {k + 1}]" for k in self.chain.first]
        return first + self._logit_names() + self._of_states(coefficient_names)

    def _logit_names(self) -> list[str]:
        if not self.chain.columns:
            return [f"logit[{j + 1} → {k + 1}]" for j, k in self.chain.logits]
        return [f"{j + 1} → {k + 1}: {name}" for j, k in self.chain.logits for name in self.chain.columns]

    def _of_states(self, names: Callable[[nn.Module], list[str]]) -> list[str]:
        return [f"state {k + 1}: {name}" for k, c in enumerate(self.components) for name in names(c)]

    @property
    def slopes(self) -> list[bool]:
        """Which coordinates of θ are coefficients of a column."""
        columns = [name != "Intercept" for name in self.chain.columns] or [False]
        own = (
            c.slopes if isinstance(c, HasSlopes) else [False] * size
            for c, size in zip(self.components, self.sizes, strict=True)
        )
        return (
            [False] * len(self.chain.first)
            + columns * len(self.chain.logits)
            + [bool(b) for part in own for b in part]
        )

    def natural(self, theta: Tensor) -> Tensor:
        """θ seen through its constraints: probabilities, and the states' own natural values."""
        n, m = self.chain.sizes
        logits, w = theta[:n], theta[n : n + m]
        parts = [] if self.chain.stationary else [torch.exp(self.chain.log_initial(logits, w))]
        parts.append(w if self.chain.columns else torch.exp(self.chain.log_transitions(w)).reshape(-1))
        own = (natural_of(c, theta[at]) for c, at in zip(self.components, self.places, strict=True))
        return torch.cat([*parts, *own])

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def concave(self) -> bool:
        return False

    def ordered(self, theta: Tensor | None = None) -> Self:
        """The same model with its states in the order of their first natural value, upwards."""
        theta = get_theta(self) if theta is None else theta
        values = [
            natural_of(c, theta[at]).tolist() for c, at in zip(self.components, self.places, strict=True)
        ]
        order = sorted(range(self.k), key=lambda k: values[k])
        old = self.chain
        allowed = tuple(tuple(old.allowed[j][k] for k in order) for j in order)
        chain = Chain(allowed, tuple(old.starts[k] for k in order), old.stationary, old.columns)
        return self._with(chain, order, theta)

    def holding(self, moves: Sequence[tuple[int, int]], starts: Sequence[int] = ()) -> Self:
        """The same model with transitions, and first states, at probability 0: they leave θ."""
        old, K = self.chain, range(self.k)
        allowed = tuple(tuple(old.allowed[j][k] and (j, k) not in moves for k in K) for j in K)
        first = tuple(old.starts[k] and k not in starts for k in K)
        return self._with(Chain(allowed, first, old.stationary, old.columns), list(K), get_theta(self))

    def allowing(self, j: int, k: int, probability: float) -> Self:
        """The same model with a transition that was held at 0, or (j = −1) a first state, at about that probability."""
        old = self.chain
        n, m = old.sizes
        first, w = old.written(self.theta[:n], self.theta[n : n + m])
        rare = torch.log(torch.tensor(probability, dtype=torch.float64))
        if j < 0:
            first[k] = rare + torch.logsumexp(first, 0)
        else:
            w[j, k, 0] = rare + torch.logsumexp(w[j, :, 0], 0)
        allowed = tuple(
            tuple(old.allowed[i][m] or (i, m) == (j, k) for m in range(self.k)) for i in range(self.k)
        )
        starts = tuple(old.starts[i] or (j, i) == (-1, k) for i in range(self.k))
        chain = Chain(allowed, starts, old.stationary, old.columns)
        out = self.of(self.components[0], chain, self.slot)
        set_theta(out, torch.cat([*chain.read(first, w), *(self.theta[at] for at in self.places)]))
        return out

    def _with(self, chain: Chain, order: Sequence[int], theta: Tensor) -> Self:
        """With another chain, state i being state order[i] of θ."""
        n, m = self.chain.sizes
        first, w = self.chain.written(theta[:n], theta[n : n + m])
        out = self.of(self.components[0], chain, self.slot)
        at = torch.tensor(order)
        own = [theta[self.places[k]] for k in order]
        set_theta(out, torch.cat([*chain.read(first[at], w[at][:, at]), *own]))
        return out


def _copied(component: nn.Module, memo: dict[int, object]) -> nn.Module:
    """A component with parameters of its own. What reads the rows is never written to, and is shared."""
    if type(component) in (Regression, Density):
        return _twin(component, memo)
    return copy.deepcopy(component, memo)


def _twin(module: M, memo: dict[int, object]) -> M:
    """The module with parameters, and dictionaries, of its own; all else is shared."""
    out = module.__new__(type(module))
    memo[id(module)] = out
    out.__dict__ |= {name: copy.copy(v) if isinstance(v, dict) else v for name, v in module.__dict__.items()}
    for name, parameter in module._parameters.items():
        out._parameters[name] = copy.deepcopy(parameter, memo)
    return out
