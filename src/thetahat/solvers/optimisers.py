"""The optimisers of torch behind one name, and the average of θ over the steps.

    adamw     moments of ĝ, coordinate by coordinate; without weight decay unless it is asked for (a prior is stated, not hidden)
    sgd       with momentum
    muon      hidden matrices: momentum, made orthogonal (Newton and Schulz), at the rate that moves them as far as AdamW would; the rest
              (embeddings, the output, norms, biases): adamw

    θ̄_t = d_t θ̄_{t−1} + (1 − d_t) θ_t,      d_t = min(d, 1 − 1/t)

so that θ̄ is the plain mean of θ_1 … θ_t until that has 1/(1 − d) steps, and forgets exponentially from there
on.

References
----------
Loshchilov and Hutter (2019), Decoupled weight decay regularization; Jordan et al. (2024), Muon: an optimizer
for hidden layers in neural networks; Liu et al. (2025), Muon is scalable for LLM training (the rate); Polyak
and Juditsky (1992), Acceleration of stochastic approximation by averaging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import BadArgument
from ..types import Plain, Settings, shown_as

OPTIMISERS = ("adamw", "sgd", "muon")
FAR = 1e3  # momentum makes a step of less than so many times rate · max(1, |ĝ|)


def optimisers(
    name: str | Callable[..., torch.optim.Optimizer],
    parameters: list[nn.Parameter],
    models: Sequence[nn.Module],
    rate: float,
    momentum: float,
    betas: tuple[float, float],
    decay: float = 0.0,
    vector: int = 1,
) -> list[torch.optim.Optimizer]:
    """Those that together move every parameter, each once. They minimise: they are handed −ĝ.

    A group of parameters says in "lr_ratio" how its learning rate stands to that of the first.

    Parameters
    ----------
    vector
        dimensions of a bias, which does not shrink: 2 in a stack of models

    Raises
    ------
    BadArgument
        a function that makes no optimiser, or one of these parameters alone or of others
    """
    if not isinstance(name, str):
        return [_foreign(name, parameters, models)]
    if name == "sgd":
        return [torch.optim.SGD(parameters, lr=rate, momentum=momentum, fused=_fusable(parameters))]
    matrices = hidden(models) if name == "muon" else []
    chosen = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in chosen]
    out: list[torch.optim.Optimizer] = []
    if matrices:
        out.append(
            torch.optim.Muon(
                matrices, lr=rate, weight_decay=decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"
            )
        )
    if rest:
        shrunk = [p for p in rest if p.ndim > vector] if decay else []
        left = [p for p in rest if p.ndim <= vector] if decay else rest
        groups = [{"params": ps, "weight_decay": d} for ps, d in ((left, 0.0), (shrunk, decay)) if ps]
        fused = _fusable(rest)
        kind = AdamW if fused and len({(p.device, p.dtype) for p in rest}) == 1 else torch.optim.AdamW
        out.append(kind(groups, lr=rate, betas=betas, weight_decay=0.0, fused=fused))
    return out


class AdamW(torch.optim.AdamW):
    """torch's, fused, of parameters of one device and type: the same kernel, without a search for what is alike, which
    takes twice as long as the kernel where a network is small."""

    def begin(self) -> None:
        """Moments of 0, as before the first step, of the parameters that have none yet."""
        for group in self.param_groups:
            for p in group["params"]:
                if not self.state[p]:
                    m, v = (torch.zeros_like(p, memory_format=torch.preserve_format) for _ in range(2))
                    self.state[p] = {
                        "step": torch.zeros((), dtype=torch.float32, device=p.device),
                        "exp_avg": m,
                        "exp_avg_sq": v,
                    }

    @torch.no_grad()
    def step(self, closure: Plain = None) -> Plain:
        """θ moves: θ and its moments are changed in place."""
        every = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        states = [[self.state[p] for p in moved] for moved in every]
        hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        if closure is not None or hooks or not all(all(each) for each in states):  # no moments yet
            return super().step(closure)
        for group, moved, own in zip(self.param_groups, every, states, strict=True):
            if not moved:
                continue
            steps = [state["step"] for state in own]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                moved,
                [p.grad for p in moved],
                [state["exp_avg"] for state in own],
                [state["exp_avg_sq"] for state in own],
                [],
                steps,
                amsgrad=False,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
        return None

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it in a profiler's record


def _foreign(
    make: Callable[..., torch.optim.Optimizer], parameters: list[nn.Parameter], models: Sequence[nn.Module]
) -> torch.optim.Optimizer:
    """The optimiser that a function of named parameters makes."""
    names = {id(p): name for model in reversed(models) for name, p in model.named_parameters()}
    out = make([(names.get(id(p), f"parameter {i}"), p) for i, p in enumerate(parameters)])
    if not isinstance(out, torch.optim.Optimizer) or isinstance(out, torch.optim.LBFGS):
        raise BadArgument(
            f"optimiser={shown_as(make)} gave a {type(out).__name__}. Accepted: a function of named parameters, "
            "[(name, parameter), …], that gives a torch.optim.Optimizer whose step needs no closure; for L-BFGS "
            "solver=th.LBFGS()."
        )
    moved = [id(p) for group in out.param_groups for p in group["params"]]
    if sorted(moved) != sorted(map(id, parameters)):
        lost = [
            name for name, p in ((names.get(id(p), "?"), p) for p in parameters) if id(p) not in set(moved)
        ]
        raise BadArgument(
            f"optimiser={shown_as(make)} does not move every parameter once"
            + (
                f": {lost[0]!r} is left out ({len(lost)} in all). Freeze it instead: requires_grad_(False)."
                if lost
                else "."
            )
        )
    first = float(out.param_groups[0]["lr"])
    for group in out.param_groups:
        group["lr_ratio"] = float(group["lr"]) / first if first else 1.0
    return out


def _fusable(parameters: list[nn.Parameter]) -> bool:
    """Whether torch has one kernel for all of a step: it has none for shards."""
    return all(
        type(p) is nn.Parameter and p.is_floating_point() and p.device.type in ("cpu", "cuda")
        for p in parameters
    )


def hidden(models: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Weights of linear maps between hidden layers: not a model's last linear map, and none that an embedding
    shares."""
    out: dict[int, nn.Parameter] = {}
    for model in models:
        modules = list(model.modules())
        linear = [m for m in modules if isinstance(m, nn.Linear)]
        looked_up = {id(m.weight) for m in modules if isinstance(m, nn.Embedding)}
        last = {id(linear[-1].weight)} if linear else set()
        for m in linear:
            if m.weight.requires_grad and id(m.weight) not in looked_up | last:
                out[id(m.weight)] = m.weight  # type: ignore[assignment]
    return list(out.values())


@torch.no_grad()
def averaged(
    average: list[Tensor] | None, parameters: list[nn.Parameter], decay: float, t: int
) -> list[Tensor]:
    """θ̄_t, in place."""
    if average is None or t == 1:
        return [p.detach().clone() for p in parameters]
    torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(decay, 1 - 1 / t))
    return average


# ---- as plain values ---------------------------------------------------------------------------------------


def tensors_of(every: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The moments and counters of the optimisers, by name."""
    out: dict[str, Tensor] = {}
    for k, optimiser in enumerate(every):
        for i, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                if value is not None:
                    out[f"optimiser.{k}.{i}.{name}"] = torch.as_tensor(value)
    return out


def restore(every: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """What `tensors_of` wrote, back in its place.

    A file holds tensors row by row; a moment takes the strides of its parameter (a convolution's may have its
    channels last), since the fused kernels go through both in the order of memory.
    """
    for k, optimiser in enumerate(every):
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        state: dict[int, Settings] = {}
        for key, value in tensors.items():
            head, _, rest = key.partition(f"optimiser.{k}.")
            if not head and rest:
                i, _, name = rest.partition(".")
                state.setdefault(int(i), {})[name] = like(parameters[int(i)], value)
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def like(parameter: Tensor, value: Tensor) -> Tensor:
    """The value, laid out in memory as the parameter is, where the shapes are the same."""
    if value.shape != parameter.shape or value.stride() == parameter.stride() or type(value) is not Tensor:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
