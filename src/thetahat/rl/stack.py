"""Seeds: several models of one structure as one, so that one forward and one backward pass serve them all.

    θ = (θ_1, …, θ_S),      each parameter a tensor (S, …)
    log p(x_s | θ) = log p(x_s | θ_s)          by torch.func.vmap over s

No term of one seed depends on the parameters of another, so the gradient of a sum over the seeds is, slice by
slice, the gradient of each. Of affine maps and elementwise activations alone, the affine maps of all seeds are one
batched product, which costs about half of what vmap does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from ..data.batch import Batch
from ..data.devices import sent
from ..errors import BadArgument, ModelError
from ..models.base import Model
from ..protocols import measure_of, target_of
from ..types import Plain
from .actions import Actions, Discrete
from .masks import masked
from .policy import Policy, Value

# layers that are, given weights (S, …), right on states (S, …): affine maps as `_Affine` computes them, and what works entry by entry
BATCHED = (nn.Sequential, nn.Linear, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Identity)
STACKED = "_stacked"  # of a module whose tensors are (S, …); of a parameter, the one that took its place


class Seeds(Model):
    """S models of one structure, policies or value functions, each with parameters of its own: `rl.stacked` makes it.

        log p(x | θ) of x (S, …): log p(x_s | θ_s) for each s

    A batch has terms (S, n) or (S, B, T): the s-th block is that of the s-th seed.

    Parameters
    ----------
    member
        a model; its parameters and buffers are replaced by tensors (seeds, …), whose slices begin as its own
    seeds
        S

    Raises
    ------
    BadArgument
        a network with dropout or batch norm, whose draws and statistics are of a batch of one seed alone
    ModelError
        a network that torch.func.vmap cannot run

    References
    ----------
    Agarwal et al. (2021), Deep reinforcement learning at the edge of the statistical precipice (why one needs
    several).

    Examples
    --------
    >>> from thetahat.rl import Policy
    >>> both = Seeds(Policy(nn.Linear(4, 2)), 2)
    >>> batch = Batch({"state": torch.zeros(2, 7, 4), "action": torch.zeros(2, 7)}, dims=2)
    >>> tuple(both.log_prob(batch).shape), both.members[1].network
    ((2, 7), Linear(in_features=4, out_features=2, bias=True))
    """

    def __init__(self, member: nn.Module, seeds: int):
        super().__init__()
        if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
            raise BadArgument(f"seeds={seeds!r}. Accepted: a whole number, 1 or more.")
        _refused(member)
        _widen(member, seeds)
        self.member: Plain = member
        self.seeds = seeds

    @property
    def replicas(self) -> int:
        """S: how many independent models the first dimension of every parameter numbers (`HasReplicas`)."""
        return self.seeds

    @property
    def measure(self) -> str:
        return measure_of(self.member)

    @property
    def target(self) -> str:
        return target_of(self.member)

    # ---- the members ---------------------------------------------------------------------------------------

    @property
    def members(self) -> list[nn.Module]:
        """Each model alone, as it now stands: copies."""
        return [self.seed(s) for s in range(self.seeds)]

    def seed(self, s: int) -> nn.Module:
        """The s-th model alone, s = 0 … S − 1: a copy."""
        if not 0 <= s < self.seeds:
            raise BadArgument(f"seed({s}). Accepted: 0 … {self.seeds - 1}.")
        return sliced(self.member, lambda t: t[s].clone())

    def load(self, s: int, model: nn.Module) -> None:
        """Put the parameters and buffers of a plain model of the same structure in the s-th place."""
        with torch.no_grad():
            for into, t in zip(self.tensors().values(), tensors_of(model).values(), strict=True):
                into[s].copy_(t)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers, (S, …), by their names in a member."""
        return tensors_of(self.member)

    # ---- all at once ---------------------------------------------------------------------------------------

    def log_prob(self, batch: Batch) -> Tensor:
        """log p of each term, (S, …) of batch.shape."""
        if batch.shape[0] != self.seeds or len(batch.shape) < 2:
            raise ModelError(
                f"terms of shape {batch.shape}; a stack of {self.seeds} seeds reads ({self.seeds}, …), a block "
                "of terms each."
            )
        if self._batched:
            with _Affine():
                out: Tensor = self.member.log_prob(batch)
            return out
        dims, counted = len(batch.shape) - 1, batch.counted
        given = dict(batch.tensors) | ({"": batch.count} if counted else {})

        def one(model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
            own = {name: t for name, t in tensors.items() if name}
            return model.log_prob(Batch(own, count=tensors.get(""), dims=dims))  # type: ignore[operator,no-any-return]

        return self.mapped(one, given)

    def parameters_of(self, state: Tensor, which: Sequence[int] | None = None) -> tuple[Actions, Tensor]:
        """The distribution of the action at each state, and its parameters, (k, …, K).

        Parameters
        ----------
        state
            (k, …), a block of each of the seeds that play
        which
            those seeds; None: all
        """
        own = self.member.actions
        here, where = state.device, next(iter(self.tensors().values())).device
        if self._batched and (which is None or list(which) == list(range(self.seeds))):
            with _Affine():
                f = self.member.parameters_of(sent(state, where))[1].to(here)
        else:
            f = self.mapped(lambda model, x: model.parameters_of(x)[1], sent(state, where), which).to(here)
        return (Discrete(f.shape[-1]) if own is None else own), f

    @property
    def _batched(self) -> bool:
        """Whether the members are computed at once without vmap: a network of nothing but `BATCHED`."""
        return (
            type(self.member) in (Policy, Value)
            and all(type(layer) in BATCHED for layer in self.member.network.modules())
            and not torch.compiler.is_compiling()
        )

    def mapped(
        self, function: Callable[..., Tensor], given: Plain, which: Sequence[int] | None = None
    ) -> Tensor:
        """function(model, x_s) of every seed, stacked; `given` holds tensors (k, …)."""
        tensors = self.tensors()
        if which is not None and list(which) != list(range(self.seeds)):
            index = torch.as_tensor(list(which))
            tensors = {name: t[index.to(t.device)] for name, t in tensors.items()}
        call = _Call(self.member, function)
        values = {f"model.{name}": t for name, t in tensors.items()}
        try:
            return vmap(lambda own, x: functional_call(call, own, (x,)))(values, given)  # type: ignore[no-any-return]
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise ModelError(
                f"{type(self.member).__name__} cannot be computed for {self.seeds} seeds at once: {str(error).splitlines()[0]} "
                "Train each seed alone."
            ) from error

    # ---- play ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def play_each(
        self,
        states: Sequence[Tensor],
        generators: Sequence[torch.Generator],
        *,
        masks: Sequence[np.ndarray | None] = (),
        greedy: bool = False,
        which: Sequence[int] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """For each seed that plays (actions as they are recorded, (n, …), their log π, (n,)), drawn with a
        generator of its own, of those that its masks (n, A) allow."""
        actions, f = self.parameters_of(torch.stack(list(states)), which)
        allowed = [mask for mask in masks if mask is not None]
        if allowed:
            f = masked(f, torch.from_numpy(np.stack(allowed)))
        each = [actions.mode(p) if greedy else actions.draw(p, g) for p, g in zip(f, generators, strict=True)]
        action = torch.stack(each)
        return list(zip(action.unbind(), actions.log_prob(f, action).unbind(), strict=True))

    def sent(self, action: Tensor) -> np.ndarray:
        """Recorded actions as an environment takes them."""
        out: np.ndarray = self.member.sent(action)
        return out

    @torch.no_grad()
    def act(
        self,
        state: Tensor,
        generator: torch.Generator | None = None,
        *,
        greedy: bool = False,
        mask: Tensor | None = None,
    ) -> np.ndarray:
        """Actions as an environment takes them, (n, …), of states (n, …): the s-th of S equal blocks of rows is
        played by the s-th seed; mask, (n, A): those that are allowed."""
        if len(state) % self.seeds:
            raise BadArgument(
                f"{len(state)} states are played by {self.seeds} seeds. Accepted: a multiple of {self.seeds}, a "
                "block of rows for each."
            )
        actions, f = self.parameters_of(state.reshape(self.seeds, -1, *state.shape[1:]))
        f = f.flatten(0, 1) if mask is None else masked(f.flatten(0, 1), mask)
        return self.sent(actions.mode(f) if greedy else actions.draw(f, generator))


class MemberValue:
    """The value function of the s-th seed of a stack, as the stack now stands: what `GAE` of that seed asks."""

    def __init__(self, stack: Seeds, s: int):
        self.stack, self.s = stack, s

    @torch.no_grad()
    def of(self, state: Tensor, shape: Sequence[int]) -> Tensor:
        """V(s) of states that lie in a tensor of this leading shape."""
        call = _Call(self.stack.member, lambda model, x: model.of(x, shape))
        own = {f"model.{name}": t[self.s] for name, t in self.stack.tensors().items()}
        out: Tensor = functional_call(call, own, (state,))
        return out


class _Affine(TorchFunctionMode):
    """Within it an affine map with weights (S, out, in) and biases (S, out) takes (S, …, in) to (S, …, out)."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, given: Any = (), settings: Any = None
    ) -> Any:
        if function is not F.linear or given[1].ndim == 2:
            return function(*given, **(settings or {}))
        x, weight, bias = given
        rows, across = x.reshape(len(x), -1, x.shape[-1]), weight.transpose(1, 2)
        y = torch.bmm(rows, across) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, across)
        return y.view(*x.shape[:-1], weight.shape[1])


class _Call(nn.Module):
    """A function of a model as the forward pass of a module, whose tensors torch.func puts in."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, given: Plain) -> Any:
        return self.function(self.model, given)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def sliced(module: nn.Module, part: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a widened module whose tensors are parts of those of the module: copies of them, or views."""
    memo: dict[int, object] = {}
    for p in module.parameters():
        memo[id(p)] = nn.Parameter(part(p.detach()), requires_grad=p.requires_grad)
    for b in module.buffers():
        memo[id(b)] = part(b)
    out = copy.deepcopy(module, memo)
    for each in out.modules():
        each.__dict__.pop(STACKED, None)
    return out


def _widen(model: nn.Module, seeds: int) -> None:
    """Every tensor of a module (…) becomes (seeds, …), once: a layer that two stacks share is shared still."""
    for module in model.modules():
        already = vars(module).get(STACKED)
        if already is not None:
            if already != seeds:
                raise BadArgument(f"seeds={seeds}: a layer is shared with a stack of {already} seeds.")
            continue
        module.__dict__[STACKED] = seeds
        for name, p in module._parameters.items():
            if p is None:
                continue
            if not hasattr(p, STACKED):
                setattr(p, STACKED, nn.Parameter(_wide(p, seeds), requires_grad=p.requires_grad))
            module._parameters[name] = getattr(p, STACKED)
        for name, b in module._buffers.items():
            if b is not None:
                module._buffers[name] = _wide(b, seeds)


def _wide(t: Tensor, seeds: int) -> Tensor:
    return t.detach().expand(seeds, *t.shape).clone()


def _refused(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise BadArgument(
            f"Seeds(member): member is {type(model).__name__}. Accepted: a rl.Policy, a rl.Value."
        )
    for module in model.modules():
        if isinstance(module, _NormBase) or (isinstance(module, _DropoutNd) and module.p > 0):
            raise BadArgument(
                f"the network has a {type(module).__name__}, whose "
                f"{'statistics' if isinstance(module, _NormBase) else 'draws'} are of the rows of a batch: several "
                "seeds at once would not be what each is alone. Train each seed alone."
            )


__all__ = ["MemberValue", "Seeds", "sliced", "tensors_of"]
