"""The gradient of one step: forward and backward, over the pieces of a batch and over the processes of
torch.distributed.

    −ĝ = −(1/N) Σ_s (N_s/n_s) Σ_{i in the batch of s} w_i ∇log p(x_i | θ)  −  (1/N) ∇log p(θ)        left in `.grad`: optimisers descend

    one process    a backward pass a piece; gradients add up in place
    "ddp"          every process holds θ and takes its share of the rows of each batch; torch's DistributedDataParallel adds the gradients
    "fsdp"         every process holds its shard of θ, of the gradient and of the moments; torch's fully_shard gathers a block when it is used

Sums over terms and counts are global and divide once, so the step is that of one process with the whole
batch, to rounding.

References
----------
Li et al. (2020), PyTorch Distributed: experiences on accelerating data parallel training; Zhao et al. (2023),
PyTorch FSDP: experiences on scaling fully sharded data parallel.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import widest
from ..data.processes import rank, share, summed, world
from ..errors import BadArgument
from ..likelihood import LogLikelihood, Objective
from ..models.base import family_of, log_prob_of, objective_of
from ..models.taylor import taylor
from ..products import fast_products, profits
from ..protocols import Checks, maximised_of, taylor_of
from ..types import ModelLike, Plain
from .compiled import Part, WholeStep, sum_and_slopes
from .compiled_update import WholeUpdate
from .minibatches import Drawn, Feed, pieces
from .optimisers import AdamW

DISTRIBUTED = ("ddp", "fsdp")
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


class Models(nn.Module):
    """The models of an objective as one module, so that what torch wraps is one: (which, batch) → log p,
    several at a time. In training it is what a model is trained by, where that is something else."""

    def __init__(self, models: Sequence[nn.Module], compiled: bool):
        super().__init__()
        self.models = nn.ModuleList(models)
        self._each = tuple(models)  # the same, found faster than in a ModuleList
        self._log_prob: Callable[..., Tensor] = torch.compile(log_prob_of) if compiled else log_prob_of
        self._objective: Callable[..., Tensor] = torch.compile(objective_of) if compiled else objective_of
        self._other = [bool(maximised_of(m)) for m in models]  # than log p is what they are trained by
        _refuse_inner(models)
        if compiled:
            _know_limits(models)
        self._checks: list[Plain] = [
            m.check if compiled and isinstance(m, Checks) else None for m in models
        ]  # what a compiled log p leaves out

    def check(self, asked: Sequence[tuple[int, Batch]]) -> list[bool]:
        """What a compiled log p leaves out; and of each model whether it is trained by something else than log p."""
        for i, batch in asked:
            if self._checks[i] is not None:
                self._checks[i](batch)
        return [self.training and self._other[i] for i, _ in asked]

    def forward(self, asked: Sequence[tuple[int, Batch]]) -> list[Tensor]:
        self.check(asked)
        if self.training and any(self._other):
            by = [self._objective if self._other[i] else self._log_prob for i, _ in asked]
            return [f(self._each[i], batch) for f, (i, batch) in zip(by, asked, strict=True)]
        return [self._log_prob(self._each[i], batch) for i, batch in asked]


def _know_limits(models: Sequence[nn.Module]) -> None:
    """Families look once where their links lead, in numbers, which no graph can ask for."""
    for model in models:
        for part in model.modules():
            family = family_of(part)
            if family is not None:
                _ = family._limits


def _refuse_inner(models: Sequence[nn.Module]) -> None:
    """A model with a training objective of its own inside another, which asks for its log p alone."""
    for model in models:
        for part in model.modules():
            if part is not model and maximised_of(part):
                raise BadArgument(
                    f"{type(part).__name__} inside {type(model).__name__}: it is trained by {maximised_of(part)}, and "
                    f"{type(model).__name__} asks for its log p. Accepted: a model of log p inside."
                )


def _slower(models: Sequence[nn.Module]) -> None:
    """Say of which models torch.compile makes a step slower on a CPU: the backward pass of a maximum over windows it
    writes as a sum into scattered places, one number after another, and what follows is not vectorised either."""
    for model in models:
        named = {type(m).__name__ for m in model.modules() if isinstance(m, POOLS)}
        if named:
            warnings.warn(
                f"compile=True: the network of {type(model).__name__} has {', '.join(sorted(named))}, whose backward pass "
                "torch.compile makes slow on a CPU: a step of th.generative.ConvNet takes 1.5 times as long. Leave "
                "compile=True out there.",
                stacklevel=2,
            )


class StepGradient:
    """What a run differentiates with.

    Parameters
    ----------
    objective
        whose gradient is estimated
    parts
        pieces in which a batch is summed
    precision
        torch.bfloat16 for products of matrices (torch's autocast); None: θ's own
    compiled
        by torch.compile
    distributed
        "ddp" or "fsdp", with more than one process
    """

    def __init__(
        self,
        objective: Objective,
        parts: int,
        precision: torch.dtype | None,
        compiled: bool,
        distributed: str,
    ):
        self.objective, self.parts, self.precision = objective, parts, precision
        self.models: list[ModelLike] = list({id(t.model): t.model for t in objective.terms}.values())
        self.own = list(self.models)  # the objective's, of which "fsdp" trains copies
        self.place = {id(m): i for i, m in enumerate(self.models)}
        self.expands = [
            taylor_of(m) is not None for m in self.models
        ]  # asked once: it takes longer than a sum
        self.many = world()  # processes that work together
        self.sharded = self.many > 1 and distributed == "fsdp"
        self.module: nn.Module = Models(self.models, compiled)
        self.parameters = objective.parameters()
        first = self.parameters[0] if self.parameters else torch.zeros(())
        self.device, self.dtype = first.device, first.dtype
        self.widest = widest(self.device)
        self.scale = 1.0  # of the gradient, in float16
        if compiled and self.device.type == "cpu":
            _slower(self.models)
        large = self.device.type == "cpu" and not compiled and profits(self.module)
        self.products: Callable[[], AbstractContextManager[Any]] = fast_products if large else nullcontext
        self.whole = WholeStep(self.parameters, self.widest) if compiled and self.many == 1 else None
        self.update: WholeUpdate | None = None
        if self.sharded:
            self.module, self.models, self.parameters = _sharded(self.module, objective)
        elif self.many > 1 and any(p.requires_grad for p in self.module.parameters()):
            self.module = nn.parallel.DistributedDataParallel(self.module)

    # ---- one step ------------------------------------------------------------------------------------------

    def gradient(self, drawn: Drawn, meanwhile: Callable[[], None] | None = None) -> float:
        """1/N of the objective as the batches of one step estimate it; −1/N of its gradient, times `scale`, is
        left in `.grad`.

        meanwhile : called once an accelerator has been given its work, before its answer is waited for
        """
        for p in self.parameters:
            p.grad = None
        rounds, value, N = self._rounds(drawn)
        for at, each in enumerate(rounds):
            if self.many == 1:
                value += self._round(each)
                continue
            with self._together(at == len(rounds) - 1):
                value += self._round(each)
        if meanwhile is not None:
            meanwhile()
        value = float(value)
        if self.many > 1:
            (value,) = summed(value)
        for prior in self.objective.priors:
            part = prior.prior.taylor(prior.model, 1)
            value += float(part.value) / N
            self._add(prior.model, part.gradient / -N)
        return float(value)

    def moved(self, drawn: Drawn, rate: float) -> tuple[float, float] | None:
        """The value and the norm of the gradient of a step that one graph has made, θ and all (`compiled_update`); None:
        there is none for it, and nothing was done."""
        if self.update is None or not self.update.possible or not isinstance(self.module, Models):
            return None
        rounds, _, _ = self._rounds(drawn)
        if len(rounds) != 1:  # nothing counts
            return None
        with self.arithmetic():
            return self.update(rounds[0], self.module.check(self._asked(rounds[0])), rate)

    def updates(self, by: Sequence[torch.optim.Optimizer], most: float | None) -> None:
        """Make whole steps by one graph, where they are nothing but a gradient and AdamW's step on a CPU.

        most : the largest norm of the gradient
        """
        if self.whole is None or self.parts > 1 or self.device.type != "cpu" or self.objective.priors:
            return
        wide = self.dtype in (torch.float32, torch.float64) and not any(self.expands)
        if wide and len(by) == 1 and type(by[0]) is AdamW and WholeUpdate.pays(self.parameters):
            self.update = WholeUpdate(self.whole, by[0], most)

    def _rounds(self, drawn: Drawn) -> tuple[list[list[Part]], Plain, float]:
        """What is to be summed, a list a pass forward and backward; the value of what has been summed already (a number of
        the device, which is not waited for), and N."""
        counts = [sum(b.total for b in batches) for _, batches in drawn]
        whole = [
            n if feed.observations is None else feed.observations
            for (feed, _), n in zip(drawn, counts, strict=True)
        ]
        if self.many > 1 and not all(feed.replicated for feed, _ in drawn):
            both = summed(
                *(v for (f, _), n, m in zip(drawn, counts, whole, strict=True) for v in _alone(f, n, m))
            )
            counts, whole = both[::2], both[1::2]
        N = sum(whole)
        value: Plain = 0.0
        rounds: list[list[Part]] = [[] for _ in range(self.parts)]
        for (feed, batches), n, m in zip(drawn, counts, whole, strict=True):
            if n == 0:
                continue
            scale = m / N / n
            for term in feed.terms:
                for batch in batches:
                    value += self._planned(term, batch, scale, feed.replicated, rounds)
        return [each for each in rounds if each], value, N

    def _planned(
        self, term: LogLikelihood, batch: Batch, scale: float, replicated: bool, rounds: list[list[Plain]]
    ) -> float:
        """What of a batch is to be summed in which round; a model with derivatives of its own is summed at
        once, its value returned.

        A weighting sees the batch whole: it may compare its terms.
        """
        own = self.expands[self.place[id(term.model)]]
        batch = self.prepare(batch, None if own else self.dtype)
        split = self.parts > 1 or (replicated and self.many > 1)
        weight = None
        if own:
            weight = term.weight(batch)
        elif split and term.weights is not None:
            weight = term.weight(batch, self.log_prob(term.model, batch))
        elif split and batch.counted:
            weight = batch.count
        if replicated and self.many > 1:
            weight = None if weight is None else share(Batch({"w": weight}, dims=weight.ndim))["w"]
            batch, was = share(batch), len(batch)
            if was <= rank():
                weight = torch.zeros(batch.shape, device=self.device)
        if own:
            part = taylor(term.model, batch, weight, order=1)
            self._add(term.model, part.gradient * -scale, together=True)
            return float(part.value) * scale
        if self.parts == 1:
            rounds[0].append((term, batch, weight, scale))
            return 0.0
        for into, rows in zip(rounds, pieces(batch, self.parts), strict=False):
            into.append((term, batch[rows], None if weight is None else weight[rows], scale))
        for into in rounds[len(batch) :] if self.many > 1 else []:  # as many rounds on every process
            into.append((term, batch[:1], torch.zeros_like(batch[:1].count), scale))
        return 0.0

    def _round(self, each: list[Part]) -> Plain:
        with self.products():  # backward too: what a network computes anew there is to be what it was
            return self._sum(each)

    def _sum(self, each: list[Part]) -> Plain:
        asked = self._asked(each)
        if self.whole is not None and self.whole.possible and isinstance(self.module, Models):
            with self.arithmetic():
                found_value = self.whole(each, self.module.check(asked), self.scale)
            if found_value is not None:
                return found_value
        if self.precision is None and not self.sharded:
            found = self.module(asked)
        else:
            with self.arithmetic(), _calm() if self.sharded else nullcontext():
                found = self.module(asked)
        value, outputs, slopes = sum_and_slopes(each, found, self.scale, self.widest, world())
        if outputs:
            torch.autograd.backward(outputs, slopes)
        return value

    def _asked(self, each: Sequence[Part]) -> list[tuple[int, Batch]]:
        """Which model is asked for which batch."""
        return [(self.place[id(term.model)], batch) for term, batch, _, _ in each]

    def _add(self, model: nn.Module, g: Tensor, together: bool = False) -> None:
        """A gradient in a model's own flat θ, added to what is there; `together`: of this process's rows
        alone."""
        if together and self.many > 1:
            torch.distributed.all_reduce(g)
        at = 0
        for p, moved in self._own(model):
            part = (g[at : at + p.numel()].view(p.shape) * self.scale).to(p)
            at += p.numel()
            if self.sharded:
                from torch.distributed.tensor import distribute_tensor

                part = distribute_tensor(part, moved.device_mesh, moved.placements)
            moved.grad = part if moved.grad is None else moved.grad + part

    def _own(self, model: nn.Module) -> Iterator[tuple[nn.Parameter, Any]]:
        """A model's free parameters, each with the one that is moved: itself, or its shard."""
        moved = dict(zip(map(id, self.objective.parameters()), self.parameters, strict=True))
        return ((p, moved[id(p)]) for p in model.parameters() if p.requires_grad)

    # ---- the surroundings of a pass ------------------------------------------------------------------------

    def log_prob(self, model: nn.Module, batch: Batch) -> Tensor:
        """log p without a gradient, as a look at held-out data needs it; of models in training, what they are
        trained by."""
        batch = self.prepare(batch, None if taylor_of(model) is not None else self.dtype)
        module = (
            self.module.module
            if isinstance(self.module, nn.parallel.DistributedDataParallel)
            else self.module
        )
        with torch.no_grad(), self.arithmetic(), self.products():
            out: Tensor = module([(self.place[id(model)], batch)])[0]
            return out

    def ahead(self, drawn: Drawn) -> Drawn:
        """The batches of a step on their way to the device."""
        return [(feed, [batch.to(self.device, ahead=True) for batch in batches]) for feed, batches in drawn]

    def prepare(self, batch: Batch, dtype: torch.dtype | None) -> Batch:
        """The batch where θ is, its floating tensors in θ's precision; counts stay as they are."""
        moved = batch if self.device.type == "cpu" else batch.to(self.device)
        if dtype is None or all(
            t.dtype == dtype or not t.is_floating_point() for t in moved.tensors.values()
        ):
            return moved
        out = moved.to(dtype)
        return out.with_count(moved.count) if moved.counted else out

    def arithmetic(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision is None else torch.autocast(self.device.type, self.precision)

    @contextmanager
    def _together(self, last: bool) -> Iterator[None]:
        """Gradients are added over processes with the last piece alone."""
        if isinstance(self.module, nn.parallel.DistributedDataParallel) and not last:
            with self.module.no_sync():
                yield
        else:
            if self.sharded:
                self.module.set_requires_gradient_sync(last)  # type: ignore[operator]
            yield

    def training(self, on: bool) -> None:
        for module in (self.module, *self.own):
            if module.training != on:
                module.train(on)

    def leave(self) -> None:
        """The objective's own θ is where the run is, whole on every process."""
        if self.sharded:
            with torch.no_grad():
                for p, moved in zip(self.objective.parameters(), self.parameters, strict=True):
                    p.copy_(moved.full_tensor())  # type: ignore[attr-defined]
                for own, copied in zip(
                    {id(t.model): t.model for t in self.objective.terms}.values(), self.models, strict=True
                ):
                    for b, now in zip(own.buffers(), copied.buffers(), strict=True):
                        b.copy_(now)


@contextmanager
def _calm() -> Iterator[None]:
    """Without torch's warning of views that a block hands out: keys and values for a cache, which nobody
    changes in place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        yield


def _alone(feed: Feed, n: float, m: float) -> tuple[float, float]:
    """A replicated feed's counts are known to every process, which is to add them once."""
    return (n / world(), m / world()) if feed.replicated else (n, m)


def _sharded(module: nn.Module, objective: Objective) -> tuple[nn.Module, list[Plain], list[Plain]]:
    """A copy of the models whose parameters are sharded, block by block: each module of a ModuleList, then
    what is left."""
    from torch.distributed.fsdp import fully_shard

    if any(taylor_of(t.model) is not None for t in objective.terms):
        raise BadArgument(
            "distributed='fsdp' is for networks: a model with derivatives of its own is small. Accepted: "
            "'ddp'."
        )
    places = {id(p): i for i, p in enumerate(module.parameters())}
    order = [places[id(p)] for p in objective.parameters()]
    copied: ModelLike = copy.deepcopy(module)
    lists = [m for model in copied.models for m in model.modules() if isinstance(m, nn.ModuleList)]
    for block in [m for each in reversed(lists) for m in each]:  # inner ones first
        if any(p.requires_grad for p in block.parameters()):
            fully_shard(block)
    fully_shard(
        copied, reshard_after_forward=True
    )  # a look at an average must not leave its θ gathered for the next step
    every = list(copied.parameters())
    return copied, list(copied.models), [every[i] for i in order]
