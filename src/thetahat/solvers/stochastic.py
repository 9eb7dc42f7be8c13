"""Stochastic ascent: the one training loop for θ too large for Newton's method, and for data drawn from the
model itself.

    ĝ = Σ_s (N_s/N) · (1/n_s) Σ_{i in the batch of source s} w_i ∇log p(x_i | θ)  +  (1/N) ∇log p(θ),      N = Σ_s N_s

n_s is Σ count of the batch and divides once, whatever the pieces in which the batch was summed; N_s is Σ
count of a pass. So ĝ estimates 1/N of the gradient of the whole objective, priors included, and neither the
prior's part nor the maximum depends on the batch size. (The ratio with n_s is exactly unbiased where every
batch counts the same, else to O(1/n_s).) Data drawn from the model have N_s = n_s.

Nothing is certified: what is known of the answer is the trend on held-out data, and its standard error.

References
----------
Robbins and Monro (1951), A stochastic approximation method. The optimisers: `optimisers.py`; checkpoints:
`checkpoint.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..allocation import keep_memory
from ..data.batch import Batch, split
from ..data.devices import chosen
from ..data.processes import is_shard, rank
from ..data.source import Source, Tensors
from ..errors import BadArgument
from ..likelihood import LogLikelihood, Objective
from ..protocols import HasWeights, Splits, maximised_of
from ..types import Settings, fields_of, shown_as
from . import checkpoint as checkpoints
from . import replicas
from .background import Writer
from .certificate import Certificate
from .compiled import can_compile
from .diagnostics import diagnosed
from .failure import LOWER, Failure, comparable, failure_of
from .gradient import DISTRIBUTED, StepGradient
from .minibatches import Drawn, Feed, feeds, held_out_nats, whole
from .optimisers import FAR, OPTIMISERS, averaged, optimisers
from .statistics import Statistics, least_rows
from .throughput import counted, used
from .waiting import Waiting

SCHEDULES = ("constant", "linear", "cosine", "wsd")
FUNCTIONS = ("optimiser", "lr_schedule")  # settings that may be a function
SCALE, GROWTH = (
    2.0**16,
    2000,
)  # of gradients in float16: the first scale, and the steps after which it is doubled

HeldOut = tuple[LogLikelihood, Source | Batch] | None  # the term whose data they are, and the data


@dataclass(frozen=True)
class Evaluation:
    """Held-out nats per term after so many steps, and what else was measured there (`diagnostics`)."""

    step: int
    mean: float
    error: float
    terms: float
    measured: dict[str, float] = field(default_factory=dict)


@dataclass
class Work:
    """What a run carries along and changes in place: the optimisers with their moments, the order of the
    data, the best θ so far."""

    engine: StepGradient
    optimisers: list[torch.optim.Optimizer]
    feeds: list[Feed]
    generator: torch.Generator
    held_out: HeldOut
    buffers: list[Tensor]
    statistics: Statistics
    replicas: int | None = None  # independent models in a stack, of which each is moved by its own gradient
    flops: float | None = None  # operations of a term of the first source, on an accelerator
    next: Drawn | None = None  # the batches of the next step, on their way to an accelerator
    recent: list[float] = field(default_factory=list)  # the mean of each batch since the last look
    average: list[Tensor] | None = None
    best: tuple[list[Tensor], list[Tensor]] | None = None  # parameters and buffers
    last: tuple[list[Tensor], list[Tensor]] | None = (
        None  # those of the last step, once a run has ended in others
    )
    identity: Settings = field(default_factory=dict)  # what a checkpoint is of
    writer: Writer = field(default_factory=Writer)  # of checkpoints

    def __post_init__(self) -> None:
        self.waiting = Waiting(self.engine.device)
        keep_memory(self)

    def prefetch(self) -> None:
        """The batches of the next step on their way to an accelerator, while it computes this one; not those that
        are drawn from the model, which moves first."""
        if self.engine.device.type != "cpu" and not any(feed.drawn for feed in self.feeds):
            self.next = self.engine.ahead(self.waiting.ahead(self.feeds))

    def batches(self) -> Drawn:
        """The batches of this step."""
        self.waiting.settle()
        found, self.next = self.next or self.waiting.next(self.feeds), None
        return found


@dataclass(frozen=True)
class State:
    """Where the run stands. `trace`: (step, nats per term, standard error), held-out where there are such
    data, else of the batches.

    fitted : the same of the batches, w·log p as it was maximised, whatever is held out
    value, norm : of the last step: 1/N of the objective as its batch estimates it, and the norm of ĝ
    """

    work: Work = field(repr=False)
    step: int = 0
    seen: float = 0.0  # Σ count over the batches of the first source
    evaluations: tuple[Evaluation, ...] = ()
    trace: tuple[tuple[int, float, float], ...] = ()
    fitted: tuple[tuple[int, float, float], ...] = ()
    value: float = math.nan
    norm: float = math.nan
    scale: float = 1.0  # of the gradient while it is computed, in float16
    clean: int = 0  # steps since the scale was changed
    overflowed: int = 0  # steps that moved nothing
    failure: str = ""
    advice: str = ""  # what to do about the failure

    @property
    def ended(self) -> Objective:
        """What is trained: a copy of the objective that was given, or itself where it was handed over."""
        return self.work.engine.objective

    @property
    def theta(self) -> Tensor:
        return self.ended.theta

    def used(self, terms_per_second: float) -> dict[str, float]:
        """What a run on an accelerator takes at that speed (`throughput.used`); of the CPU nothing is said."""
        engine = self.work.engine
        if engine.device.type == "cpu":
            return {}
        return used(engine.device, self.work.flops or 0.0, terms_per_second)

    @property
    def waited(self) -> float | None:
        """Seconds in which this process waited for data (`waiting.py`); None: not known."""
        return self.work.waiting.seconds

    @property
    def recent(self) -> tuple[float, ...]:
        """The mean of each batch since the last look."""
        return tuple(self.work.recent)


@dataclass(frozen=True, kw_only=True)
class Stochastic:
    """Settings.

    The fitted model is in evaluation mode (no dropout).

    Parameters
    ----------
    steps
        how many
    batch_size
        rows (sequences, for terms (B, T)) a step; data drawn from the model come as they are drawn
    accumulation_steps
        parts in which a batch is summed, to save memory; the step is the same
    optimiser
        "adamw", "sgd", or "muon" (hidden matrices; "adamw" for the rest), of torch.optim; or any of torch's form: a
        function of named parameters, [(name, parameter), …], such as `torch.optim.NAdam` or
        `lambda named: torch.optim.SGD([{"params": …, "lr": 0.1}, {"params": …, "lr": 0.01}])`
    learning_rate
        of the first step after the warm-up; of several groups of parameters that of the first, and the others
        keep their ratio to it
    weight_decay
        of "adamw" and "muon": a matrix (not a bias or a scale) shrinks by rate × weight_decay a step. It is no part
        of the objective: a Normal prior is
    momentum
        of "sgd" and of "muon"
    betas
        of "adamw": how much of its two moments is kept from step to step
    warmup_steps
        steps over which the rate rises from 0
    lr_schedule
        how the rate falls to 0 at the last step: "cosine", "linear", "wsd" (constant, then linear over the last
        `decay_steps`); "constant"; or a function, step (0, 1, …) → factor of `learning_rate`
    decay_steps
        of "wsd"; None: a fifth of the steps
    max_grad_norm
        the largest norm of the gradient; None: unbounded
    seed
        of the order of the data, of what is held out, and of dropout: same seed, same machine, same numbers
    held_out
        a fraction of the rows, where they are in memory or the source knows how to split itself; a source;
        None
    restore_best
        whether θ is that of the highest held-out log-likelihood, or that of the last step
    evaluate_every
        steps between two looks at the held-out data; None: twenty looks in all
    patience
        the run ends after so many looks in a row without a new best; None: never
    ema_decay
        d, of an exponential moving average θ̄ of θ: it is looked at, kept and left in place of θ; None: θ
        itself. The statistics of batch norm are then those of θ̄ itself, computed anew from the batches of
        the last steps (`statistics.py`)
    checkpoint
        a file to which the run is written as it goes, beside the steps; where it is there, the run goes on from it,
        bit for bit
    checkpoint_every
        steps between two; None: with every look
    precision
        torch.bfloat16 or torch.float16 for products of matrices (autocast: sums and logarithms stay as they
        are); None: θ's own. In float16 the gradient is scaled so that it does not vanish, and a step whose
        scaled gradient overflows moves nothing and halves the scale
    device
        where the models are trained, and stay: "auto" (the accelerator that torch finds, else the CPU),
        "cpu", "cuda", "mps"; None: where they are. The next batch is on its way while a step is computed
    compile
        the models by torch.compile (the first step takes long)
    distributed
        under torchrun, "ddp" (θ on every process) or "fsdp" (a shard of θ on each)
    restarted_at
        the step at which the schedule begins again, in a run that was made longer (`io.runs`)
    in_place
        False trains a copy of the models, and those given stay as they are. True trains the models that are
        given, which belong to the fit from then on: for networks of which memory cannot hold two

    Examples
    --------
    >>> Stochastic(steps=100, learning_rate=0.1, lr_schedule="linear").rate(50)
    0.05
    """

    steps: int = 2000
    batch_size: int = 128
    accumulation_steps: int = 1
    optimiser: str | Callable[..., torch.optim.Optimizer] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_steps: int = 0
    lr_schedule: str | Callable[[int], float] = "cosine"
    decay_steps: int | None = None
    max_grad_norm: float | None = None
    seed: int = 0
    held_out: float | Source | None = 0.1
    restore_best: bool = True
    evaluate_every: int | None = None
    patience: int | None = None
    ema_decay: float | None = None
    checkpoint: str | Path | None = None
    checkpoint_every: int | None = None
    precision: torch.dtype | None = None
    device: str | torch.device | None = None
    compile: bool = False
    distributed: str = "ddp"
    restarted_at: int = 0
    in_place: bool = False

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_choices()
        self._check_rates()
        chosen(self.device)

    def _check_counts(self) -> None:
        given = fields_of(self)
        for name, least in (
            ("steps", 1),
            ("batch_size", 1),
            ("accumulation_steps", 1),
            ("warmup_steps", 0),
            ("restarted_at", 0),
            ("seed", None),
        ):
            value = given[name]
            if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
                raise BadArgument(
                    f"{name}={value!r}. Accepted: "
                    f"{'a whole number' if least is None else f'{least} or more'}."
                )
        if any(n is not None and n < 1 for n in (self.evaluate_every, self.patience, self.checkpoint_every)):
            raise BadArgument(
                f"evaluate_every={self.evaluate_every}, patience={self.patience}, "
                f"checkpoint_every={self.checkpoint_every}. Accepted: 1 or "
                "more, or None."
            )

    def _check_choices(self) -> None:
        given = fields_of(self)
        for name, accepted in (
            ("optimiser", OPTIMISERS),
            ("lr_schedule", SCHEDULES),
            ("restore_best", (True, False)),
            ("distributed", DISTRIBUTED),
        ):
            if given[name] not in accepted and not (name in FUNCTIONS and callable(given[name])):
                raise BadArgument(f"{name}={given[name]!r}. Accepted: {', '.join(map(repr, accepted))}.")
        held = self.held_out
        if not (0 < held < 1 if isinstance(held, (int, float)) else held is None or isinstance(held, Source)):
            raise BadArgument(f"held_out={self.held_out}. Accepted: a fraction in (0, 1), a source, None.")
        if self.precision not in (None, torch.bfloat16, torch.float16):
            raise BadArgument(
                f"precision={self.precision}. Accepted: None (θ's own), torch.bfloat16, torch.float16."
            )
        if self.precision == torch.float16 and self.distributed == "fsdp":
            raise BadArgument(
                "precision=torch.float16 scales the gradient, which distributed='fsdp' does not. Accepted "
                "there: torch.bfloat16, or None."
            )

    def _check_rates(self) -> None:
        if callable(self.lr_schedule) and self.warmup_steps:
            raise BadArgument(
                f"warmup_steps={self.warmup_steps}: lr_schedule= is a function of the step, which says all of the "
                "rate. Leave one of them out."
            )
        if self.decay_steps is not None and (
            self.lr_schedule != "wsd" or not 0 < self.decay_steps <= self.steps
        ):
            raise BadArgument(
                f"decay_steps={self.decay_steps}, lr_schedule={self.lr_schedule!r}. Accepted: 1 to {self.steps} (steps), "
                "with lr_schedule='wsd'; or None."
            )
        if not 0 <= self.weight_decay < math.inf or (
            self.weight_decay and (self.optimiser == "sgd" or callable(self.optimiser))
        ):
            raise BadArgument(
                f"weight_decay={self.weight_decay} of optimiser={shown_as(self.optimiser)}. Accepted: 0 or more, with 'adamw' "
                "or 'muon'; elsewhere a prior, prior=th.priors.Normal(…)."
            )
        if not self.learning_rate > 0:
            raise BadArgument(f"learning_rate={self.learning_rate}. Accepted: a positive number.")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise BadArgument(f"max_grad_norm={self.max_grad_norm}. Accepted: a positive number, or None.")
        given = fields_of(self)
        for name, values in (
            ("betas", self.betas),
            ("momentum", (self.momentum,)),
            ("ema_decay", (self.ema_decay or 0.0,)),
        ):
            if not all(0 <= b < 1 for b in values):
                raise BadArgument(f"{name}={given[name]}. Accepted: in [0, 1).")

    def rate(self, step: int) -> float:
        """The learning rate of the step after so many."""
        step, steps = step - self.restarted_at, self.steps - self.restarted_at
        if not isinstance(self.lr_schedule, str):
            factor = float(self.lr_schedule(step))
            if not 0 <= factor < math.inf:
                raise BadArgument(
                    f"lr_schedule gives {factor} at step {step}. Accepted: a finite number, 0 or more."
                )
            return self.learning_rate * factor
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return self.learning_rate
        if self.lr_schedule == "wsd":
            falling = min(self.decay_steps or math.ceil(steps / 5), steps)
            return self.learning_rate * min(1.0, (steps - step) / falling)
        done = (step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
        return self.learning_rate * (
            1 - done if self.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        )

    # ---- start ---------------------------------------------------------------------------------------------

    def start(self, objective: Objective) -> State:
        if not isinstance(objective, Objective):
            raise BadArgument(
                f"stochastic ascent maximises a whole objective; received {type(objective).__name__}."
            )
        many = replicas.replicas_of(objective)
        if many is not None:
            replicas.check(self, objective)
        generator = torch.Generator().manual_seed(self.seed)
        objective = objective if self.in_place else objective.copy()
        device = chosen(self.device)
        if device is not None:
            objective.move(device)
        held, kept = self._divided(objective.terms[0], generator)
        least = max(
            least_rows(term.model, self.batch_size, self.accumulation_steps) for term in objective.terms
        )
        feeds_ = feeds(objective.terms, self.batch_size, generator, kept, least)
        if objective.priors and any(f.observations is None and not f.drawn for f in feeds_):
            raise BadArgument(
                "a prior has no weight against data without end: give a source that knows its size, or no "
                "prior."
            )
        first = next(iter(objective.parameters()), None)
        compile = self.compile and (first is None or can_compile(first.device))
        engine = StepGradient(objective, self.accumulation_steps, self.precision, compile, self.distributed)
        movers = optimisers(
            self.optimiser,
            engine.parameters,
            engine.models,
            self.learning_rate,
            self.momentum,
            self.betas,
            self.weight_decay,
            1 if many is None else 2,
        )
        if many is not None:
            replicas.check_optimisers(movers, self.optimiser)
        elif compile and self.precision != torch.float16:
            engine.updates(movers, self.max_grad_norm)
        _label(objective, "raw")
        statistics = Statistics(engine.module if self.ema_decay is not None else nn.Module())
        state = State(
            Work(engine, movers, feeds_, generator, held, list(engine.module.buffers()), statistics, many),
            scale=SCALE if self.precision == torch.float16 else 1.0,
        )
        if self.checkpoint is None:
            return self._evaluated(objective, state)
        checkpoints.check(objective)
        state.work.identity = checkpoints.identity(self, objective)
        found = checkpoints.read(Path(self.checkpoint), self, state.work)
        if found is None:
            return self._evaluated(objective, state)
        return self._resumed(objective, state, found)

    def _divided(
        self, first: LogLikelihood, generator: torch.Generator
    ) -> tuple[HeldOut, dict[int, Batch | Source]]:
        """What is held out of the first term's data; and, by the id of their source, what is left of them."""
        if not isinstance(self.held_out, (int, float)):
            return (None if self.held_out is None else (first, self.held_out)), {}
        left: Batch | Source
        out: Batch | Source
        rows = whole(first.source)
        if isinstance(first.source, Splits):
            left, out = first.source.split(float(self.held_out), generator)
        elif rows is not None:
            left, out = split(rows, float(self.held_out), generator)
        else:
            return None, {}
        return (first, out), {id(first.source): left}

    def _resumed(self, objective: Objective, state: State, found: Settings) -> State:
        """Where the checkpoint stands; a run that had ended is at its answer, and one that was made longer at its last
        step."""
        work = state.work
        work.recent.extend(found["recent"])
        trace, fitted = (
            tuple((int(n), mean, error) for n, mean, error in found[name]) for name in ("trace", "fitted")
        )
        own = ("step", "seen", "scale", "clean", "overflowed")
        evaluations = tuple(Evaluation(*e) for e in found["evaluations"])
        known = {name: found[name] for name in own if name in found}
        state = replace(state, evaluations=evaluations, trace=trace, fitted=fitted, **known)
        if self._over(state):
            self._leave(state)
            _label(objective, "raw" if self.ema_decay is None else "EMA")
        elif work.last is not None:
            _restore(work.engine.parameters, work.last[0])
            _restore(work.buffers, work.last[1])
            work.last = None
        return state

    # ---- step ----------------------------------------------------------------------------------------------

    def step(self, objective: Objective, state: State) -> State:
        """The next state, and the checkpoint where one is due."""
        state = self.advance(objective, state)
        if self.due(state):
            self.write(objective, state)
            self.writer(state).finish()
        return state

    def advance(self, objective: Objective, state: State) -> State:
        """The next state."""
        work, objective = state.work, state.ended
        batches = work.batches()
        work.statistics.saw(batches)
        work.engine.training(True)
        more, rate = state.step + 1 < self.steps, self.rate(state.step)
        with _seeded(self._seed(state.step), work.engine.device):  # of dropout, and of draws inside log p
            work.engine.scale = state.scale
            moved = work.engine.moved(batches, rate)
            value = (
                self._gradient(work, batches, work.prefetch if more else None) if moved is None else moved[0]
            )
        norm, gradients = (moved[1], []) if moved is not None else self._normed(state)
        overflow = state.scale > 1 and math.isfinite(value) and not math.isfinite(norm)
        if overflow:
            halved = replace(state, scale=state.scale / 2, clean=0, overflowed=state.overflowed + 1)
            return self._evaluated_when_due(objective, _counted(halved, batches))
        if not (math.isfinite(value) and math.isfinite(norm)):
            return self._failed(state, self._reason(batches, state, value))
        most = self.max_grad_norm
        if rate * max(1.0, min(norm, most or norm)) > torch.finfo(work.engine.dtype).max / FAR:
            why = f"step {state.step + 1}: θ would leave the finite numbers (learning rate {rate:.3g})."
            return self._failed(state, Failure(why, LOWER))
        if gradients and work.replicas is None and most is not None and norm > most:
            torch._foreach_mul_(gradients, most / norm)
        for optimiser in work.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("lr_ratio", 1.0)
            if moved is None:
                optimiser.step()
        work.recent.append(value)
        state = replace(_counted(state, batches), value=value, norm=norm)
        if self.precision == torch.float16:
            state = _rescaled(state)
        if self.ema_decay is not None:
            work.average = averaged(work.average, work.engine.parameters, self.ema_decay, state.step)
        return self._evaluated_when_due(objective, state)

    def _normed(self, state: State) -> tuple[float, list[Tensor]]:
        """The norm of the gradient that is left behind, and its tensors."""
        work = state.work
        gradients = [p.grad for p in work.engine.parameters if p.grad is not None]
        if state.scale != 1 and gradients:
            torch._foreach_mul_(gradients, 1 / state.scale)
        if work.replicas is not None:
            return replicas.separated(gradients, work.replicas, self.max_grad_norm), gradients
        return (_norm(gradients) if gradients else 0.0), gradients

    def _gradient(self, work: Work, batches: Drawn, meanwhile: Callable[[], None] | None) -> float:
        """The value of a step, its gradient left behind; the first on an accelerator counts its operations."""
        if work.engine.device.type == "cpu" or work.flops is not None or self.compile:
            return work.engine.gradient(batches, meanwhile)
        value, flops = counted(lambda: work.engine.gradient(batches))
        terms = sum(b.total for b in batches[0][1])
        work.flops = flops / terms if terms else 0.0
        if meanwhile is not None:
            meanwhile()
        return value

    def _evaluated_when_due(self, objective: Objective, state: State) -> State:
        every = self.evaluate_every or max(1, self.steps // 20)
        return self._evaluated(objective, state) if state.step % every == 0 or self._over(state) else state

    def due(self, state: State) -> bool:
        """Whether a checkpoint is to be written after that step."""
        every = self.checkpoint_every or self.evaluate_every or max(1, self.steps // 20)
        return (
            self.checkpoint is not None
            and not state.failure
            and (state.step % every == 0 or self._over(state))
        )

    def write(self, objective: Objective, state: State) -> None:
        """Begin to write the checkpoint, as it is after a step."""
        assert self.checkpoint is not None
        checkpoints.write(Path(self.checkpoint), self, state)

    def writer(self, state: State) -> Writer:
        """What writes it, while the run goes on."""
        return state.work.writer

    def _evaluated(self, objective: Objective, state: State) -> State:
        """With a look at the held-out data, if there are any, and a line in the trace; at the end, θ is
        what is to be kept."""
        work = state.work
        parameters = work.engine.parameters
        raw = (
            None
            if work.average is None
            else ([p.detach().clone() for p in parameters], [b.clone() for b in work.buffers])
        )
        if work.average is not None:
            _restore(parameters, work.average)
            with _seeded(self._seed(-2), work.engine.device):
                work.statistics.recompute(work.engine)
        state = self._looked(state)
        if state.failure:
            return state
        if not self._over(state):
            if raw is not None:
                _restore(parameters, raw[0])
                _restore(work.buffers, raw[1])
            return state
        if self.checkpoint is not None:  # from which a longer run goes on
            work.last = raw or ([p.detach().clone() for p in parameters], [b.clone() for b in work.buffers])
        if work.best is not None and work.held_out is not None:
            _restore(parameters, work.best[0])
            _restore(work.buffers, work.best[1])
        self._leave(state)
        _label(objective, "raw" if raw is None else "EMA")
        return state

    def _looked(self, state: State) -> State:
        work, engine = state.work, state.work.engine
        x = torch.tensor(work.recent, dtype=torch.float64)
        spread = float(x.std() / len(x) ** 0.5) if len(x) > 1 else math.nan
        if len(x):
            state = replace(state, fitted=(*state.fitted, (state.step, float(x.mean()), spread)))
        work.recent.clear()
        if work.held_out is None:
            return replace(state, trace=state.fitted)
        term, source = work.held_out
        engine.training(False)
        with _seeded(self._seed(-1), engine.device):  # every look with the same draws
            found = held_out_nats(
                lambda b: engine.log_prob(term.model, b), source, term.model, max(4 * self.batch_size, 256)
            )
        if not comparable(found[0]) or (found[0] == -math.inf and not state.evaluations):
            failure = self._held_out_failure(state, term, source, found[0])
            if failure is not None:
                return self._failed(state, failure)
        now = Evaluation(
            state.step,
            *found,
            diagnosed(
                term,
                source,
                found[0],
                lambda b: engine.prepare(b, engine.dtype),
                max(4 * self.batch_size, 256),
            ),
        )
        best = max((e.mean for e in state.evaluations), default=-math.inf)
        if self.restore_best and (now.mean > best or work.best is None):
            work.best = ([p.detach().clone() for p in engine.parameters], [b.clone() for b in work.buffers])
        line = (state.step, now.mean, now.error)
        return replace(state, evaluations=(*state.evaluations, now), trace=(*state.trace, line))

    def _seed(self, step: int) -> int:
        """Of what a step draws besides the order of the data: another for every step and process."""
        return ((self.seed & 0xFFFF) << 48 | (step + 1) << 12 | rank()) & 0x7FFF_FFFF_FFFF_FFFF

    def _failed(self, state: State, failure: Failure) -> State:
        self._leave(state)
        return replace(state, failure=failure.why, advice=failure.advice)

    def _leave(self, state: State) -> None:
        """The model in evaluation mode, at the run's θ."""
        state.work.engine.training(False)
        state.work.engine.leave()

    # ---- done ----------------------------------------------------------------------------------------------

    def done(self, objective: Objective, state: State) -> bool:
        return self._over(state) or bool(state.failure)

    def _over(self, state: State) -> bool:
        if state.step >= self.steps or any(feed.finished for feed in state.work.feeds):
            return True
        looks = [e.mean for e in state.evaluations]
        return (
            self.patience is not None
            and bool(looks)
            and len(looks) - 1 - looks.index(max(looks)) >= self.patience
        )

    def certificate(self, objective: Objective, state: State) -> Certificate:
        """Status "stochastic", and the trend; "not converged" where a value ceased to be finite."""
        rows = state.work.feeds[0].observations
        epochs = state.seen / rows if rows else 0.0
        known: Settings = {"size": objective.size, "steps": state.step, "passes": math.ceil(epochs)}
        if state.failure:
            left = f"{state.failure} The model is left at the last finite θ."
            return Certificate(status="not converged", detail=left, advice=state.advice, **known)
        of = "on data drawn from the model at every step" if state.work.feeds[0].drawn else ""
        of = of or (f"over {epochs:.3g} epochs" if rows else "of data without end")
        said = f"{state.step} step{'s' * (state.step != 1)} of {shown_as(self.optimiser)} {of}."
        if state.overflowed:
            said += (
                f" {state.overflowed} of them moved nothing: the scaled gradient was beyond float16's range."
            )
        remarks = [feed.remark for feed in state.work.feeds if feed.remark]
        if any(feed.finished for feed in state.work.feeds):
            said += (
                f" Ended before its {self.steps} steps: there is nothing more to learn from the data."
                if state.step < self.steps
                else ""
            )
        elif state.step < self.steps:
            said += f" Ended before its {self.steps} steps: {self.patience} evaluations in a row were no better than the best (patience)."
        said = " ".join([said, *remarks])
        if not state.evaluations:
            shown = [line for line in state.trace if math.isfinite(line[1])]
            if shown:
                what = _maximised(objective) or "w·log p"
                said += f" Nothing held out; mean {what} of the steps' batches from {shown[0][1]:.4g} to {shown[-1][1]:.4g} nats."
            return Certificate(status="stochastic", detail=said, **known)
        first, last = state.evaluations[0], state.evaluations[-1]
        best = max(state.evaluations, key=lambda e: e.mean)
        error = f" ± {best.error:.2g}" if math.isfinite(best.error) else ""
        said += f" Held out, {best.terms:g} terms: {first.mean:.4g} nats per term at the start, {best.mean:.4g}{error} at best"
        said += f" (step {best.step}), {last.mean:.4g} at the end. θ is that of the {'best' if self.restore_best else 'last'} step."
        if best is first and state.step:
            kept = "θ is where it began" if self.restore_best else "θ is worse than where it began"
            said += (
                f" Nothing was learnt: the best evaluation was the first, before any step, so that {kept}."
            )
        weighted = any(t.weights is not None for t in objective.terms)
        if _maximised(objective) and len(state.fitted) > 1:
            ends = f"over the steps' batches from {state.fitted[0][1]:.4g} to {state.fitted[-1][1]:.4g} nats"
            said += f" What was maximised is no log-likelihood: the mean of {_maximised(objective)}, {ends}."
        elif weighted and len(state.fitted) > 1:
            maximised = f"mean w·log p of the steps' batches, from {state.fitted[0][1]:.4g} to {state.fitted[-1][1]:.4g} nats"
            said += f" What was maximised is weighted, and no log-likelihood: {maximised}."
        return Certificate(
            status="stochastic", detail=said, trend=(first.mean, best.mean, best.error), **known
        )

    def _reason(self, batches: Drawn, state: State, value: float) -> Failure:
        """What was not finite in a step: the first term whose log p is not, or the gradient."""
        step, engine = state.step + 1, state.work.engine
        with _seeded(self._seed(state.step), engine.device):  # the draws of the step
            for feed, drawn in batches:
                for term in feed.terms:
                    for batch in drawn:
                        found = failure_of(engine.log_prob(term.model, batch), batch, term)
                        if found is not None:
                            return Failure(f"step {step}: {found.why}", found.advice)
        return Failure(
            f"step {step}: {'the gradient' if math.isfinite(value) else 'the weighted sum'} is not finite.",
            LOWER,
        )

    def _held_out_failure(
        self, state: State, term: LogLikelihood, source: Source | Batch, mean: float
    ) -> Failure | None:
        """Why the mean over held-out rows is not a number; or which of them are impossible, whatever θ. None:
        −∞ is the model's own verdict."""
        engine, head = state.work.engine, f"held-out data after {state.step} step{'s' * (state.step != 1)}: "
        of, passed = (term.source, Tensors(source)) if isinstance(source, Batch) else (source, source)
        with _seeded(self._seed(-1), engine.device):
            for batch in passed.batches(term.model):
                found = failure_of(engine.log_prob(term.model, batch), batch, term, of)
                if found is not None and (not comparable(mean) or found.advice != LOWER):
                    return Failure(head + found.why, found.advice)
        return None if comparable(mean) else Failure(f"{head}their mean log p is {mean}.", LOWER)


def _maximised(objective: Objective) -> str:
    """What models are trained by in the place of their log p, in words; empty: by log p, weighted or not."""
    found = [(maximised_of(t.model), t.weights is not None) for t in objective.terms]
    return "; ".join(dict.fromkeys(f"w·({said})" if weighted else said for said, weighted in found if said))


# ---- a step ------------------------------------------------------------------------------------------------


def _counted(state: State, batches: Drawn) -> State:
    return replace(state, step=state.step + 1, seen=state.seen + sum(b.total for b in batches[0][1]))


def _rescaled(state: State) -> State:
    """After so many steps without an overflow the scale is doubled (Micikevicius et al. 2018, Mixed precision
    training)."""
    if state.clean + 1 < GROWTH:
        return replace(state, clean=state.clean + 1)
    return replace(state, scale=state.scale * 2, clean=0)


# ---- θ, in place -------------------------------------------------------------------------------------------


def _norm(tensors: list[Tensor]) -> float:
    """√ of the sum of squares of all of them; of shards, over all processes."""
    if is_shard(tensors[0]):
        return float(nn.utils.get_total_norm(tensors).full_tensor())  # type: ignore[attr-defined]
    norms = torch._foreach_norm(tensors)
    return (
        math.hypot(*norms)
        if norms[0].device.type == "cpu"
        else float(torch.linalg.vector_norm(torch.stack(norms)))
    )


def _label(objective: Objective, weights: str) -> None:
    """Whether a model's θ is an average, for its scores. Not where `weights` is something of the model's
    own."""
    for term in objective.terms:
        if not isinstance(term.model, HasWeights) or isinstance(term.model.weights, str):
            term.model.weights = weights


def _restore(into: list[Any], values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(into, values, strict=True):
            p.copy_(value)


class _seeded:
    """torch's own randomness from a seed, and as it was afterwards. A class: entered at every step, and a
    generator takes twice as long."""

    __slots__ = ("before", "forked", "seed")

    def __init__(self, seed: int, device: torch.device):
        self.seed = seed
        self.forked = (
            None if device.type == "cpu" else torch.random.fork_rng([device], device_type=device.type)
        )

    def __enter__(self) -> None:
        if self.forked is None:
            self.before = torch.default_generator.get_state()
            torch.default_generator.manual_seed(self.seed)
        else:
            self.forked.__enter__()
            torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        if self.forked is None:
            torch.default_generator.set_state(self.before)
        else:
            self.forked.__exit__(*error)
