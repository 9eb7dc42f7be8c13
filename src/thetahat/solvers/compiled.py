"""A whole step as one graph of torch.compile: log p of every term, its weights, the sum, and the gradient.

    value = Σ_terms s Σ_i w_i log p_i,      slope_i = −s · by · w_i,      gradient = Σ_terms Σ_i slope_i ∇log p_i

Where log p alone is compiled, the weights and torch's engine of automatic differentiation run as they are, and take
most of the time of a small network. Here nothing is left between a batch and its gradient. The graph is torch's own
trace of the code that runs without it, and torch guards it: what changes is traced anew. A step that cannot be one
graph (a weighting that asks a tensor for a number) is compiled model by model.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import CPU
from ..likelihood import LogLikelihood
from ..models.base import log_prob_of, objective_of
from ..models.taylor import weighted
from ..protocols import HasEqualBatches, is_drawn
from .compiled_products import settings as of_products

Part = tuple[
    LogLikelihood, Batch, Tensor | None, float
]  # a term, its batch, its weights where they are known, s


# tanh x as 2/(1 + e^−2x) − 1, which is off by 1e-7 at most and four times as fast
ON_CPU: dict[str, Any] = {"cpp.use_decompose_tanh": True}


class WholeStep:
    """The value of a step, and its gradient left in `.grad`, by one compiled call.

    Parameters
    ----------
    parameters
        of which the gradient is taken
    widest
        the type of sums
    """

    def __init__(self, parameters: list[nn.Parameter], widest: torch.dtype):
        self.parameters, self.widest = parameters, widest
        # torch.autograd.grad within a graph: not in every torch that this library runs with
        self.possible = bool(parameters) and hasattr(torch._dynamo.config, "trace_autograd_ops")
        self._call: Callable[..., Any] = compiled(value_and_gradient, fullgraph=True, options=options())
        self._traced = False

    def __call__(self, each: Sequence[Part], other: Sequence[bool], by: float) -> Tensor | None:
        """The value; None: it cannot be one graph, and nothing was done.

        Parameters
        ----------
        other
            of each term whether its model is trained by something else than log p
        by
            what the gradient is multiplied by
        """
        terms, data, weights, scales = plain(each)
        numbers = torch.tensor([by, *scales], dtype=self.widest, device=self.parameters[0].device)
        if not self._traced:
            dynamic_where_drawn(terms, each)
        given = (terms, data, weights, numbers, tuple(other), self.parameters, self.widest)
        found = traced(self._call, given, self._traced)
        self._traced = self.possible = found is not None
        if found is None:
            return None
        value, gradient = found
        for p, g in zip(self.parameters, gradient, strict=True):
            if g is not None:
                p.grad = g if p.grad is None else p.grad + g
        out: Tensor = value
        return out


def can_compile(device: torch.device = CPU) -> bool:
    """Whether torch.compile has what it needs on a device: on a CPU a C++ compiler. A warning says so where it has not."""
    if device.type != "cpu":
        return True
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        warnings.warn(
            "compile=True: torch.compile finds no C++ compiler (g++, or what the environment's CXX names). The run is not "
            "compiled.",
            stacklevel=3,
        )
        return False
    return True


def options() -> dict[str, Any]:
    """Options of torch.compile for a step."""
    return ON_CPU | of_products()


def plain(each: Sequence[Part]) -> tuple[Any, ...]:
    """The terms, their data, their weights and their scales, as a graph takes them: tensors, since the lengths that a Batch
    holds are numbers, and every other one would be another graph."""
    terms, batches, weights, scales = zip(*each, strict=True)
    return terms, [(b.tensors, b._count, b._group, len(b.shape)) for b in batches], weights, scales


def traced(call: Callable[..., Any], given: tuple[Any, ...], before: bool) -> Any:
    """What a compiled function gives; None where it cannot be one graph.

    Parameters
    ----------
    before
        whether it has been called
    """
    known = torch._dynamo.config
    was, known.trace_autograd_ops = known.trace_autograd_ops, True  # by hand: `patch` takes 12 µs
    try:
        if before:
            return call(*given)
        with (
            warnings.catch_warnings()
        ):  # our own functions that are cached give the same whenever they are called
            warnings.filterwarnings("ignore", ".*lru_cache")
            return call(*given)
    except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit):
        return None
    finally:
        known.trace_autograd_ops = was


def dynamic_where_drawn(terms: Sequence[LogLikelihood], each: Sequence[Part]) -> None:
    """A pass of a policy may have as many terms as it happens to have: one graph for all numbers of them."""
    for term, (_, batch, _, _) in zip(terms, each, strict=True):
        source = term.source
        if is_drawn(source) and not (isinstance(source, HasEqualBatches) and source.equal_batches):
            for t in batch.tensors.values():
                torch._dynamo.maybe_mark_dynamic(t, 0)


def compiled(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """torch.compile of a copy of a function: torch counts the graphs of one piece of code, whoever compiles it, and gives
    up after eight."""
    code, defaults = function.__code__.replace(), function.__defaults__
    own = FunctionType(code, function.__globals__, function.__name__, defaults, function.__closure__)
    return torch.compile(own, **settings)


def value_and_gradient(
    terms: Sequence[LogLikelihood],
    data: Sequence[tuple[dict[str, Tensor], Tensor | None, Tensor | None, int]],
    weights: Sequence[Tensor | None],
    numbers: Tensor,
    other: Sequence[bool],
    parameters: Sequence[nn.Parameter],
    widest: torch.dtype,
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """The value, and the gradient as a value."""
    batches = [Batch(tensors, count=count, group=group, dims=dims) for tensors, count, group, dims in data]
    found = [
        (objective_of if own else log_prob_of)(term.model, batch)
        for term, batch, own in zip(terms, batches, other, strict=True)
    ]
    each = list(zip(terms, batches, weights, numbers[1:].unbind(), strict=True))
    value, outputs, slopes = sum_and_slopes(each, found, numbers[0], widest)
    if not outputs:
        return value, [None] * len(parameters)
    return value, torch.autograd.grad(outputs, parameters, slopes, allow_unused=True)


def sum_and_slopes(
    each: Sequence[tuple[LogLikelihood, Batch, Tensor | None, Any]],
    found: Sequence[Tensor],
    by: Any,
    widest: torch.dtype,
    many: int = 1,
) -> tuple[Any, list[Tensor], list[Tensor]]:
    """Σ_terms s Σ_i w_i log p_i; the log p that carry a gradient, and −s · by · w of each row of theirs.

    Parameters
    ----------
    found
        log p of each term's batch
    by
        what the gradient is multiplied by: a number, as the scales s are, or a tensor, in a compiled step
    many
        processes, over which torch takes a mean where a sum is wanted
    """
    value: Any = 0.0
    outputs, slopes = [], []
    for (term, batch, weight, scale), log_prob in zip(each, found, strict=True):
        if weight is None and (batch.counted or term.weights is not None):
            weight = term.weight(batch, log_prob)
        lp = log_prob.detach()
        value = value + scale * (lp if weight is None else weighted(lp, weight)).sum(dtype=widest)
        if not log_prob.requires_grad:
            continue
        slope = -scale * by * many
        outputs.append(log_prob)
        if weight is not None:
            slopes.append((slope * weight).to(lp.dtype))
        elif isinstance(slope, Tensor):
            slopes.append(slope.to(lp.dtype).expand_as(lp))
        else:
            slopes.append(torch.full_like(lp, slope))
    return value, outputs, slopes
