"""Independent seeds that are trained together: the objectives of S runs as one, maximised by the one training loop.

    Σ_s ℓ_s(θ_s),      each ℓ_s on rollouts of its own, with random numbers of its own

What a seed plays, how its passes are cut into minibatches, its advantages and its weights come from the code of
a single run, seed by seed; forward and backward passes are one for all (`stack.Seeds`). So each seed of a stack
is, to rounding, the run that it is alone. Seeds whose passes end at different steps go on at their own pace.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import evaluating
from ..errors import BadArgument, DataError
from ..likelihood import LogLikelihood, Objective
from ..likelihood.objective import _reads
from ..made import own_of
from ..protocols import Observes, ValuesStates
from ..types import Plain, Weights, name_of, shown_as
from .advantage import Advantage, Clipped
from .rollouts import Rollouts, _rows
from .stack import MemberValue, Seeds, sliced, tensors_of

ELEMENTWISE = (Clipped, Advantage)  # weightings that compare no two terms: one call serves all seeds
ALIKE = (
    "name",
    "num_envs",
    "num_steps",
    "epochs",
    "batch_size",
    "greedy",
    "vectorization",
)  # of the rollouts of all seeds


def stacked(objectives: Sequence[Objective | LogLikelihood]) -> Objective:
    """The objectives of several seeds as one, which trains them together; each seed is, to rounding, what it is alone.

        maximise Σ_s ℓ_s(θ_s)

    The models given stay as they are. The fit's model is a `Seeds`: `fit.model.members[s]` is the policy of the s-th
    seed.

    Parameters
    ----------
    objectives
        of each seed: policy, value function and rollouts made anew, of one structure and one setting

    Raises
    ------
    BadArgument
        the objectives differ in more than their seeds, share a parameter, or are not of policies on `Rollouts`

    Examples
    --------
    >>> import thetahat as th
    >>> def make(seed):
    ...     policy = th.rl.Policy(th.networks.mlp(4, 8, 2, seed=seed))
    ...     return th.LogLikelihood(policy, Rollouts("CartPole-v1", 2, seed=seed), th.rl.RewardToGo())
    >>> objective = stacked([make(seed) for seed in range(3)])
    >>> fit = th.maximize(objective, solver=th.Stochastic(steps=2, held_out=None))
    >>> len(fit.model.members), type(fit.model.members[2]).__name__
    (3, 'Policy')
    """
    every = [Objective([each]) if isinstance(each, LogLikelihood) else each for each in objectives]
    _check(every)
    memo: dict[int, object] = {}
    stacks: dict[int, Seeds] = {}
    for term in every[0].terms:
        if id(term.model) not in stacks:
            stacks[id(term.model)] = Seeds(copy.deepcopy(term.model, memo), len(every))
    places = [stacks[id(term.model)] for term in every[0].terms]
    for s, each in enumerate(every):
        for stack, term in zip(places, each.terms, strict=True):
            stack.load(s, term.model)
    own = [_rollouts(each, places, s) for s, each in enumerate(every)]
    source = SeedRollouts(own, places)
    weights = [[each.terms[k].weights for each in every] for k in range(len(places))]
    terms = [
        LogLikelihood(stack, source, _weighting(several))
        for stack, several in zip(places, weights, strict=True)
    ]
    return Objective(terms)


class SeedRollouts:
    """The rollouts of S seeds as a source of terms (S, …): each seed plays its own environments with its own random
    numbers, and all choose their actions in one forward pass.

    Where the seeds have different numbers of terms in a step the rest is padding, and a term of the s-th seed counts
    n̄ / n_s, so that every seed weighs the same: Σ count is still the number of terms.

    Parameters
    ----------
    each
        the rollouts of every seed
    stacks
        the models that are trained on them, that of the policy first
    """

    drawn = True
    size = None
    units = "action"
    kind = "rollouts"

    def __init__(self, each: list[Rollouts], stacks: list[Seeds]):
        # by attribute, not in a list: a copy of the objective copies each with the stack that its advantage asks
        self._of = SimpleNamespace(**{str(s): one for s, one in enumerate(each)})
        self.stacks, self.seeds = stacks, len(each)
        self.name = f"{each[0].name} by {len(each)} seeds"
        self._restored = False

    @property
    def each(self) -> list[Rollouts]:
        """The rollouts of every seed."""
        return list(vars(self._of).values())

    @property
    def actions(self) -> Plain:
        """The space of one environment's actions."""
        return self.each[0].actions

    @property
    def fingerprint(self) -> str:
        """Of how the data arise, seed by seed."""
        how = "/".join(one.fingerprint for one in self.each)
        return hashlib.blake2b(how.encode(), digest_size=8).hexdigest()

    # ---- what a run takes ----------------------------------------------------------------------------------

    def batches(self, model: Seeds | None = None) -> Iterator[Batch]:
        """One pass of every seed, (S, B, T)."""
        yield together(self._passes(_stack(model), range(self.seeds)))

    def minibatches(self, model: Seeds) -> Iterator[Batch]:
        """Without end, a batch a step; a seed plays anew when its own pass is used up."""
        _stack(model)
        each = self.each
        if not self._restored:  # what other training left was drawn from other policies
            for one in each:
                one._left = []
        self._restored = False
        while True:
            due = [s for s, one in enumerate(each) if not one._left]
            found = self._passes(model, due) if due else []
            if each[0].epochs is None:
                yield together(found)
                continue
            for s, whole in zip(due, found, strict=True):
                one = each[s]
                one._rows = _rows(whole)
                one._left = one._order(len(one._rows))
            yield together([one._rows[one._left.pop(0)] for one in each])  # type: ignore[index]

    def _passes(self, model: Seeds, which: Sequence[int]) -> list[Batch]:
        """A pass of each of these seeds, all of them step by step."""
        each = self.each
        with evaluating(model):
            for s in which:
                self._observed(model, s)
            steps = {s: each[s]._steps(model) for s in which}
            states = {s: next(one) for s, one in steps.items()}
            passes: dict[int, Batch] = {}
            while states:
                playing = list(states)
                taken = model.play_each(
                    [state for state, _ in states.values()],
                    [each[s].generator for s in playing],
                    masks=[mask for _, mask in states.values()],
                    greedy=each[0].greedy,
                    which=playing,
                )
                for s, chosen in zip(playing, taken, strict=True):
                    try:
                        states[s] = steps[s].send(chosen)
                    except StopIteration as ended:
                        passes[s] = ended.value
                        del states[s]
        for s, batch in passes.items():
            if not batch.total:
                raise DataError(
                    f"seed {s} of {self.seeds} played no transition in a pass, only first states of new episodes. "
                    "Give more num_steps or num_envs."
                )
            each[s]._valued(batch)
        return [passes[s] for s in which]

    def _observed(self, model: Seeds, s: int) -> None:
        """The normalisers of a seed are shown the states of its last pass."""
        seen, self.each[s]._seen = self.each[s]._seen, None
        if seen is None:
            return
        for layer in _observers(model):
            own = sliced(layer, lambda t: t[s].clone())
            own.observe(seen)  # type: ignore[operator]
            with torch.no_grad():
                for into, t in zip(tensors_of(layer).values(), tensors_of(own).values(), strict=True):
                    into[s].copy_(t)

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """What the next batches depend on, seed by seed."""
        return {f"seed.{s}.{name}": t for s, one in enumerate(self.each) for name, t in one.state().items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Stand where `state` was taken; as `Rollouts.restore`, for each seed."""
        for s, one in enumerate(self.each):
            head = f"seed.{s}."
            one.restore({name.removeprefix(head): t for name, t in tensors.items() if name.startswith(head)})
        self._restored = True

    def measured(self) -> dict[str, float]:
        """What each seed's rollouts measured (`Rollouts.measured`), the mean over the seeds that measured it."""
        found = [one.measured() for one in self.each]
        names = dict.fromkeys(name for one in found for name in one)
        return {name: float(np.mean([one[name] for one in found if name in one])) for name in names}


@dataclass
class SeedWeights:
    """Weights of each seed by its own weighting, which sees that seed's terms alone."""

    each: list[Plain]

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        """w, (S, …); 0 on padding."""
        out = torch.zeros_like(log_prob, dtype=torch.promote_types(log_prob.dtype, torch.float32))
        for s, weighting in enumerate(self.each):
            own, where = alone(batch, s)
            w = (
                torch.ones_like(log_prob[s][where])
                if weighting is None
                else weighting(own, log_prob[s][where])
            )
            if out.dtype != w.dtype:
                out = out.to(torch.promote_types(out.dtype, w.dtype))
            out[s][where] = w.to(out.dtype)
        return out

    def __str__(self) -> str:
        shown = list(dict.fromkeys(map(shown_as, self.each)))
        return f"{', '.join(shown)}, of each of {len(self.each)} seeds"


# ---- batches of all seeds ----------------------------------------------------------------------------------


def together(parts: Sequence[Batch]) -> Batch:
    """The batches of the seeds as one, (S, …), padded where they differ; a term of the s-th counts n̄ / n_s.

    Examples
    --------
    >>> both = together([Batch({"x": torch.ones(3)}), Batch({"x": torch.ones(1)})])
    >>> both["x"].tolist(), [[round(c, 3) for c in row] for row in both.count.tolist()], both.total
    ([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], [[0.667, 0.667, 0.667], [2.0, 0.0, 0.0]], 4.0)
    """
    dims = len(parts[0].shape)
    shape = [max(part.shape[d] for part in parts) for d in range(dims)]
    same = all(list(part.shape) == shape for part in parts)
    tensors = {
        # padding allows every action: a softmax over none has no derivative
        name: torch.stack([_padded(part.tensors[name], shape, name == "mask") for part in parts])
        for name in parts[0].tensors
    }
    if same and not any(part.counted for part in parts):
        return Batch(tensors, dims=dims + 1)
    totals = [part.total for part in parts]
    mean = sum(totals) / len(totals)
    count = torch.stack(
        [
            _padded(part.count.to(torch.float64) * (mean / n), shape)
            for part, n in zip(parts, totals, strict=True)
        ]
    )
    return Batch(tensors, count=count, dims=dims + 1)


def alone(batch: Batch, s: int) -> tuple[Batch, tuple[slice, ...]]:
    """The s-th seed's terms as they were before `together`, and where they are in its block."""
    dims = len(batch.shape) - 1
    if not batch.counted:
        where = tuple(slice(None) for _ in range(dims))
        return Batch({name: t[s] for name, t in batch.tensors.items()}, dims=dims), where
    played = batch.count[s] > 0
    long = (
        int(played.reshape(-1, played.shape[-1]).any(0).nonzero().max()) + 1
    )  # columns, or rows, of padding
    where = (*(slice(None) for _ in range(dims - 1)), slice(long))
    tensors = {name: t[s][where] for name, t in batch.tensors.items()}
    if dims == 1:  # rows, of which none is left out
        return Batch(tensors), where
    return Batch(tensors, count=played[where].to(batch.count.dtype), dims=dims), where


def _padded(t: Tensor, shape: Sequence[int], value: bool = False) -> Tensor:
    if list(t.shape[: len(shape)]) == list(shape):
        return t
    out = t.new_full((*shape, *t.shape[len(shape) :]), value)
    out[tuple(slice(n) for n in t.shape[: len(shape)])] = t
    return out


# ---- the parts of an objective -----------------------------------------------------------------------------


def _rollouts(objective: Objective, stacks: Sequence[Seeds], s: int) -> Rollouts:
    """The rollouts of a seed, whose advantage asks the value function in the stack."""
    own: Rollouts = copy.copy(objective.terms[0].source)  # type: ignore[assignment]
    own._finished, own._return, own._left = [], own._return.copy(), []
    places = {id(term.model): stack for term, stack in zip(objective.terms, stacks, strict=True)}
    if own.advantage is None:
        return own
    advantage: Any = copy.copy(own.advantage)
    for name, thing in vars(own.advantage).items() if hasattr(own.advantage, "__dict__") else ():
        if id(thing) in places and isinstance(thing, ValuesStates):
            object.__setattr__(advantage, name, MemberValue(places[id(thing)], s))
        elif isinstance(thing, dict):  # what it found, of its own from here on
            object.__setattr__(advantage, name, dict(thing))
    defaults = getattr(advantage, "__defaults__", None) or ()  # of a function
    if _reads([advantage, *defaults], {id(p) for p in objective.parameters()}, 6):
        raise BadArgument(
            f"the advantage {name_of(own.advantage)} does not hold the value function that is trained as an attribute "
            "of its own, so that the one in the stack cannot take its place. Accepted: rl.GAE(value), value the model of "
            "a term."
        )
    own.advantage = advantage
    return own


def _weighting(several: Sequence[Weights | None]) -> Weights | None:
    """One weighting of all seeds."""
    if all(w is None for w in several):
        return None
    if isinstance(several[0], ELEMENTWISE) and all(w == several[0] for w in several):
        return several[0]
    return SeedWeights(list(several))


def _observers(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, Observes)]


def _stack(model: object) -> Seeds:
    if not isinstance(model, Seeds):
        raise BadArgument(
            f"the rollouts of several seeds are played by a stack of policies; received a {type(model).__name__}."
        )
    return model


# ---- what is refused ---------------------------------------------------------------------------------------


def _check(every: Sequence[Objective]) -> None:
    if not every or not all(isinstance(each, Objective) and each.terms for each in every):
        raise BadArgument("stacked([…]) takes the objectives of the seeds, one or more.")
    for s, each in enumerate(every):
        source = each.terms[0].source
        if type(source) is not Rollouts or any(term.source is not source for term in each.terms):
            raise BadArgument(
                f"seed {s}: the terms are on {', '.join(dict.fromkeys(type(t.source).__name__ for t in each.terms))}. Accepted: "
                "one rl.Rollouts, of all terms of a seed."
            )
        if each.priors or any(term.robust is not None for term in each.terms):
            raise BadArgument(f"seed {s} has a prior or a robust term. Accepted: log-likelihoods alone.")
        trained = {id(p) for p in each.parameters()}
        for term in each.terms:
            if _reads(term.weights, trained):
                raise BadArgument(
                    f"the weighting {name_of(term.weights)} of seed {s} reads a model that is trained, and would not see "
                    "that of the stack. Train each seed alone."
                )
        _check_alike(every[0], each, s)
    for what, held in (
        ("a parameter", [{id(p) for t in each.terms for p in t.model.parameters()} for each in every]),
        ("their rollouts", [{id(each.terms[0].source)} for each in every]),
    ):
        if sum(map(len, held)) != len(set().union(*held)):
            raise BadArgument(
                f"two seeds share {what}. Make networks and rollouts anew for each: stacked([make(seed) for seed in …])."
            )


def _check_alike(first: Objective, other: Objective, s: int) -> None:
    """Raise where the s-th objective differs from the first in more than its numbers."""
    if len(first.terms) != len(other.terms):
        raise BadArgument(f"seed {s} has {len(other.terms)} terms, seed 0 has {len(first.terms)}.")
    one, two = first.terms[0].source, other.terms[0].source
    for name in ALIKE:
        if vars(one)[name] != vars(two)[name]:
            raise BadArgument(
                f"seed {s} plays with {name}={vars(two)[name]}, seed 0 with {vars(one)[name]}. Accepted: the same."
            )
    specs = [getattr(each.environments.vector, "spec", None) for each in (one, two)]  # type: ignore[attr-defined]
    if one.actions != two.actions or specs[0] != specs[1]:  # type: ignore[attr-defined]
        raise BadArgument(
            f"seed {s} plays another environment than seed 0: {specs[1]}, and {specs[0]}. Accepted: one environment, "
            "with the same settings."
        )
    pattern = [[id(t.model) for t in each.terms] for each in (first, other)]
    if [each.index(i) for each in pattern[:1] for i in each] != [
        each.index(i) for each in pattern[1:] for i in each
    ]:
        raise BadArgument(f"seed {s} shares its models among other terms than seed 0.")
    for a, b in zip(first.terms, other.terms, strict=True):
        layers = [list(model.named_modules()) for model in (a.model, b.model)]
        tensors = [
            [(n, t.shape, t.dtype, t.requires_grad) for n, t in tensors_of(m).items()]
            for m in (a.model, b.model)
        ]
        kinds = [[(name, type(m), own_of(m)) for name, m in each] for each in layers]
        if kinds[0] != kinds[1] or tensors[0] != tensors[1]:
            raise BadArgument(
                f"the {type(b.model).__name__} of seed {s} is of another structure than that of seed 0. Accepted: the same "
                "layers, of the same sizes."
            )


__all__ = ["SeedRollouts", "SeedWeights", "Seeds", "alone", "stacked", "together"]
