"""HMM: each row came from one of K states, which follow one another as a Markov chain and were not seen.

    p(y_1 … y_T | θ) = Σ_z δ(z_1) p(y_1 | z_1) Π_t a_t(z_{t−1}, z_t) p(y_t | z_t)

The sum over K^T paths is made forward, a row at a time (`chains`): log p is Σ_t log p(y_t | y_1 … y_{t−1}), one term a
row. With γ and ξ the probabilities of states and of transitions given all of y, and S the score of a row or a transition
whose states were known,

    score         s = Σ_t Σ_k γ_t(k) S_tk + Σ_t Σ_jk ξ_t(j, k) S_tjk                            (Fisher's identity)
    information   J = complete-data information − Var(S | y)                                    (Louis': `hidden_scores`)

References
----------
Baum, Petrie, Soules and Weiss (1970), A maximization technique occurring in the statistical analysis of probabilistic
functions of Markov chains; Zucchini, MacDonald and Langrock (2016), Hidden Markov Models for Time Series, 2nd ed.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from .. import families
from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family, Parameter
from ..types import Data, ModelLike, Plain
from .chain_layout import Array, Layout
from .chains import Passed, passes
from .hidden_chain import Chain
from .hidden_paths import drawn_path
from .hidden_rows import (
    Entries,
    Key,
    Same,
    gamma_of,
    log_prob_of,
    scores_of,
    sequence_weights,
    taylor_of_state,
    value_of,
)
from .hidden_scores import Parts, missing_information, row_scores
from .hidden_spread import Scores, spread
from .hidden_states import HiddenStates
from .information import Information
from .inputs import source_of
from .regression import Predictor, Regression
from .taylor import Taylor, scores

STARTS = ("stationary", "free")
KEPT = 2**20  # probabilities of states up to which the last passes through a batch are kept
_LAYOUTS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # of the groups that batches name
_ENTRIES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # of the y of batches


class HMM(HiddenStates):
    """p(y_1 … y_T) = Σ_z p(z) Π_t p(y_t | z_t): the state of a row was not seen, and depends on that of the row before.

        log p(y | θ) = Σ_t log p(y_t | y_1 … y_{t−1})

    θ = (logits of the first state, logits of the transitions, θ_1, …, θ_K). A missing y is summed over: its log p is
    0, and its state is known from its neighbours alone. A fit numbers the states by their first parameter, upwards.

    Parameters
    ----------
    model
        how many states, of a response without predictors; or the formula of the response in each of `states` states
    family
        of the response given its state; None: normal
    states
        how many, where a formula is given
    transition
        "~ z", the predictors of the transitions into a row, as multinomial logits against staying; None: constants
    initial
        "stationary", the first state has the distribution that the chain converges to; "free", it is estimated. None:
        stationary where transitions are constants
    sequence
        the column whose values name the sequences; None: all rows are one
    time
        a column in whose order the rows of each sequence must stand; None: they stand in the order of time
    parameters
        as of `fit`: the predictors of a further parameter of the family, its value, or the column of an extra

    Raises
    ------
    BadArgument
        fewer than one state, or settings that exclude each other

    Examples
    --------
    >>> import thetahat as th
    >>> y = [0.1, -0.2, 0.2, 5.1, 4.8, 5.2, 5.0, 0.0, 0.3, -0.1, 5.1, 4.9]
    >>> fit = th.fit(th.models.HMM(2, "normal", scale=0.5), {"y": y})
    >>> fit.estimates["state 2: mean"].round(2)
    np.float64(5.02)
    """

    target = "y"

    def __init__(
        self,
        model: int | str,
        family: str | Family | None = None,
        *,
        states: int | None = None,
        transition: str | None = None,
        initial: str | None = None,
        sequence: str | None = None,
        time: str | None = None,
        **parameters: str | float,
    ):
        super().__init__()
        self.formula = model if isinstance(model, str) else None
        self.k = _states(model, states)
        self.family_asked = families.get("normal" if family is None else family)
        if transition is not None and self.formula is None:
            raise BadArgument(
                f"transition={transition!r} names predictors, and the response is not named. Write the response as a "
                f"formula: HMM('y ~ 1', states={self.k}, transition={transition!r})."
            )
        if initial not in (None, *STARTS):
            raise BadArgument(f"initial={initial!r}. Accepted: 'stationary', 'free'.")
        if initial == "stationary" and transition is not None:
            raise BadArgument(
                "initial='stationary': transitions with predictors change from row to row, and have no stationary "
                "distribution. Accepted: initial='free'."
            )
        if not self.family_asked.smooth:
            raise BadArgument(
                f"{self.family_asked} has a log p with kinks, at which no decrement can certify a maximum. Take a "
                "smooth family: student_t, logistic, huber."
            )
        self.transition, self.sequence, self.time = transition, sequence, time
        self.initial = initial or ("stationary" if transition is None else "free")
        self.parameters_asked = dict(parameters)
        self.measure = self.family_asked.measure
        self.components = nn.ModuleList()
        self.chain = Chain.full(self.k, self.initial == "stationary")
        self.slot: int | None = None  # the design of the transitions

    # ---- data ----------------------------------------------------------------------------------------------

    def bound(self, data: Data, weights: str | None = None) -> tuple[HMM, Source]:
        """The model with its states, as these data describe them, and the data as it reads them."""
        from .sequences import bound  # brings pandas

        if isinstance(data, (Source, Batch)):
            return self, source_of(data, self, weights)
        return (self, self.source(data, weights)) if len(self.components) else bound(self, data, weights)

    def source(self, data: Data, weights: str | None = None) -> Source:
        """Further data, encoded as those that were fitted."""
        from .sequences import again

        return again(self, data, weights)

    def to_config(self) -> dict[str, Plain]:
        """What is needed, besides a component, to build the model again."""
        return {
            "model": self.formula or self.k,
            "states": self.k if self.formula else None,
            "transition": self.transition,
            "initial": self.initial,
            "sequence": self.sequence,
            "time": self.time,
            "parameters": dict(self.parameters_asked),
            "allowed": [list(row) for row in self.chain.allowed],
            "starts": list(self.chain.starts),
            "columns": list(self.chain.columns),
            "slot": self.slot,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Plain], component: ModelLike) -> HMM:
        """The model of `to_config`, θ not yet set."""
        given = dict(config)
        allowed, starts = given.pop("allowed"), given.pop("starts")
        columns, slot, parameters = given.pop("columns"), given.pop("slot"), given.pop("parameters")
        out = cls(given.pop("model"), component.family, **given, **parameters)
        chain = Chain(tuple(map(tuple, allowed)), tuple(starts), out.initial == "stationary", tuple(columns))
        return out.of(component, chain, slot)

    @property
    def family(self) -> None:
        """None: what y is given the past is a mixture of the states' families, and no family of its own."""
        return None

    # ---- log p ---------------------------------------------------------------------------------------------

    def arranged(self, batch: Batch) -> Layout:
        """Where the rows of each sequence stand; a batch without groups is one."""
        if not batch.grouped:
            return _one(len(batch))
        group = batch.group
        if group not in _LAYOUTS:
            _LAYOUTS[group] = Layout.of(group.numpy())
        found: Layout = _LAYOUTS[group]
        return found

    def entries(self, batch: Batch) -> Entries:
        """The rows in the order of the steps, found once for a batch."""
        y = batch.tensors["y"]
        known: Entries | None = _ENTRIES.get(y)
        if known is None or not known.are_of(batch):
            known = Entries.of(batch, self.arranged(batch))
            if not y.is_inference():
                _ENTRIES[y] = known
        return known

    def seen(self, batch: Batch) -> Tensor:
        """(n,) whether y was observed."""
        out: Tensor = ~torch.isnan(batch["y"].reshape(len(batch), -1)).any(1)
        return out

    def emissions(self, batch: Batch) -> Tensor:
        """log p(y | state), (K, n) by row; 0 where y is missing."""
        seen = self.seen(batch)
        return self._emissions(batch, None if bool(seen.all()) else seen)

    def _emissions(self, batch: Batch, seen: Tensor | None) -> Tensor:
        self._ready()
        if seen is None:
            return torch.stack([log_prob_of(c, batch) for c in self.states])
        rows = batch[seen]
        found = torch.stack([log_prob_of(c, rows) for c in self.states])
        out = found.new_zeros(self.k, len(batch))
        out[:, seen] = found
        return out

    def design(self, batch: Batch) -> Tensor | None:
        """(q, n), by row, what the logits of the transitions are linear in; None: constants."""
        if self.slot is None:
            return None
        first = self.components[0]
        assert isinstance(first, Regression)
        predictor = Predictor("transition", Parameter(), first.encoder.designs[self.slot], self.slot, 0)
        return predictor.rows(batch, torch.float64)

    @torch.no_grad()
    def passed(self, batch: Batch, *, backward: bool = True) -> Passed:
        """The passes through all sequences, at θ as it stands."""
        own, key = self.entries(batch), self._key()
        known = own.remembered(key)
        if known is not None:
            return known
        layout, x = own.layout, self.design(batch)
        log_b = self._emissions(own.rows, own.seen).numpy()
        log_a = self.chain.log_transitions(self.transitions, None if x is None else x[:, layout.order])
        log_d = self.chain.log_initial(self.logits, self.transitions)
        out = passes(layout, log_b, log_a.numpy(), log_d.numpy(), backward=backward, entries=True)
        if backward:  # many rows' are kept only for as long as somebody holds them
            own.last[:] = [(key, (lambda: out) if out.phi.size <= KEPT else weakref.ref(out))]
        return out

    def _key(self) -> Key:
        """What the passes depend on besides the rows: θ, what it means, and what reads the rows."""
        parts: list[Hashable] = [self.theta.numpy().tobytes(), self.chain, self.slot]
        for c in self.components:
            parts += [Same(c.family), Same(c.encoder if isinstance(c, Regression) else None)]
            parts.append(tuple(c.fixed.items()) if isinstance(c, Regression) else None)
        return tuple(parts)

    def log_prob(self, batch: Batch) -> Tensor:
        """log p(y_t | y_1 … y_{t−1}), (n,). With a graph where one is asked for, which takes a step of its own for each
        row of a sequence; else in √T steps."""
        self._ready()
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters()):
            return self._unrolled(batch)
        passed = self.passed(batch, backward=False)
        out = torch.empty(len(batch), dtype=torch.float64)
        out[torch.from_numpy(passed.layout.rows)] = torch.from_numpy(passed.log_rows)
        return out

    def _unrolled(self, batch: Batch) -> Tensor:
        """The forward recursion in logarithms, row after row."""
        layout = self.arranged(batch)
        whole = Layout(layout.order, layout.lengths, int(layout.lengths.max()))
        at = torch.from_numpy(layout.order[whole.packed])
        log_b, x = self.emissions(batch)[:, at], self.design(batch)
        log_a = self.chain.log_transitions(self.transitions, None if x is None else x[:, at])
        v, parts = self.chain.log_initial(self.logits, self.transitions)[:, None], []
        for t, step in enumerate(whole.steps):
            m = step.stop - step.start
            if t:
                a = log_a[:, :, None] if log_a.ndim == 2 else log_a[:, :, step]
                v = torch.logsumexp(v[:, None, :m] + a, 0)
            joint = v + log_b[:, step]
            c = torch.logsumexp(joint, 0)
            v = joint - torch.where(torch.isfinite(c), c, 0.0)
            parts.append(c)
        out = log_b.new_empty(len(batch))
        return out.index_put((at,), torch.cat(parts))

    # ---- what follows from it ------------------------------------------------------------------------------

    def predicted(self, batch: Batch) -> Tensor:
        """P(z_t = k | y_1 … y_{t−1}), (K, n) by row."""
        passed = self.passed(batch, backward=False)
        phi, later = passed.filtered, passed.layout.later
        with torch.no_grad():
            delta = torch.exp(self.chain.log_initial(self.logits, self.transitions)).numpy()
        out = np.repeat(delta[:, None], len(batch), 1)
        a, before = np.exp(passed.a) if passed.log else passed.a, phi[:, later - 1]
        out[:, later] = a.T @ before if a.ndim == 2 else np.einsum("jn,jkn->kn", before, a[:, :, later])
        return self.by_row(passed.layout, out)

    def mean(self, batch: Batch) -> Tensor:
        """E[y_t | y_1 … y_{t−1}], (n,), or (n, d) of vectors."""
        return self.mixed(batch, self.predicted(batch))

    @torch.no_grad()
    def mixed(self, batch: Batch, weight: Tensor) -> Tensor:
        """Σ_k weight_k E[y | k], weight (K, n)."""
        each = torch.stack([c.mean(batch) for c in self.states])
        out: Tensor = (weight.reshape(*weight.shape, *[1] * (each.ndim - 2)) * each).sum(0)
        return out

    @torch.no_grad()
    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row: of a path of states for each sequence first."""
        layout, x = self.arranged(batch), self.design(batch)
        log_a = self.chain.log_transitions(self.transitions, None if x is None else x[:, layout.order])
        delta = torch.exp(self.chain.log_initial(self.logits, self.transitions))
        uniform = torch.rand(len(batch), dtype=torch.float64, generator=generator).numpy()
        path = drawn_path(layout, torch.exp(log_a).numpy(), delta.numpy(), uniform)
        z = torch.empty(len(batch), dtype=torch.long)
        z[torch.from_numpy(layout.order)] = torch.from_numpy(path)
        drawn = torch.stack([c.sample(batch, generator=generator) for c in self.states])
        return drawn[z, torch.arange(len(batch))]

    # ---- derivatives ---------------------------------------------------------------------------------------

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """Σ w log p, its gradient (Fisher's identity), and its information (Louis'). Weights belong to whole sequences."""
        passed = self.passed(batch)
        own = self._weights(batch, passed.layout, weight)
        known = self.complete(batch, passed, own, order)
        value = torch.tensor(value_of(passed, own), dtype=torch.float64)
        if known.information is None:
            return Taylor(value, known.gradient)
        if passed.a.ndim == 2:
            lost = spread(
                passed, self._scores(batch, passed), None if own is None else own[passed.layout.packed]
            )
        else:
            lost = missing_information(passed, self._parts(batch, passed), own)
        return Taylor(value, known.gradient, Information(known.information.A - torch.from_numpy(lost)))

    def _scores(self, batch: Batch, passed: Passed) -> Scores:
        """The scores of the complete data, by entry, where transitions are constants."""
        entries, emission = self.entries(batch), []
        for component in self.states:
            found = scores_of(component, entries.seen_rows)
            found = torch.where(torch.isfinite(found), found, 0.0)
            if entries.seen is not None:
                full = found.new_zeros(len(found), len(batch))
                full[:, entries.seen] = found
                found = full
            emission.append(found.contiguous().numpy())
        a = np.exp(passed.a) if passed.log else passed.a
        return Scores(self._initial_scores(), emission, self.places, self.chain.places(), a)

    def _initial_scores(self) -> Array:
        """∂ log δ_k / ∂θ, (K, p)."""
        head = self.places[0].start
        out = np.zeros((self.k, sum(self.sizes) + head))
        out[:, :head] = self.chain.initial_scores(self.logits.detach(), self.transitions.detach())
        return out

    def complete(self, batch: Batch, passed: Passed, own: Array | None = None, order: int = 2) -> Taylor:
        """Q = Σ_t Σ_k γ_t(k) log p(y_t | k) + Σ_t Σ_jk ξ_t(j, k) log a_t(j, k) + …, γ and ξ held: to second order. Its
        value is not the log-likelihood's."""
        taken, x = self.taken(batch, passed, own)
        gamma, first = gamma_of(passed, own)
        value, gradient, J = self.chain.complete(
            self.logits.detach(), self.transitions.detach(), torch.from_numpy(first), taken, x, order
        )
        gradients, blocks, total = [torch.from_numpy(gradient)], [], value
        entries = self.entries(batch)
        for component, r in zip(self.states, torch.from_numpy(gamma), strict=True):
            part = taylor_of_state(component, entries.seen_rows, entries.of_seen(r), order)
            total += float(part.value)
            gradients.append(part.gradient)
            if part.information is not None:
                blocks.append(part.information.dense())
        whole = None if J is None else Information(torch.block_diag(torch.from_numpy(J), *blocks))
        return Taylor(torch.tensor(total, dtype=torch.float64), torch.cat(gradients), whole)

    def taken(self, batch: Batch, passed: Passed, own: Array | None = None) -> tuple[Array, Array | None]:
        """Σ ξ, (K, K), and None; or, of transitions with predictors, ξ (K, K, m) and x (q, m) of the rows that have one
        before them."""
        x, later = self.design(batch), passed.layout.later
        if x is None and own is None:
            return passed.counts(), None
        if x is None:
            assert own is not None
            parts = [(passed.pairs(place) * own[place]).sum(-1) for place in passed.blocks()]
            return np.asarray(sum(parts, np.zeros((self.k, self.k)))), None
        xi = np.concatenate([passed.pairs(place) for place in passed.blocks()], -1)
        return xi if own is None else xi * own[later], x.numpy()[:, passed.layout.order[later]]

    def by_row(self, layout: Layout, values: Array, own: Array | None = None) -> Tensor:
        """(K, n) by place as (K, n) by row."""
        out = torch.empty(values.shape, dtype=torch.float64)
        out[:, torch.from_numpy(layout.order)] = torch.from_numpy(values if own is None else values * own)
        return out

    def scores(self, batch: Batch) -> Tensor:
        """∂ log p(y_t | y_1 … y_{t−1}) / ∂θ, (n, p)."""
        passed = self.passed(batch)
        found = torch.from_numpy(row_scores(passed, self._parts(batch, passed)))
        out = torch.empty_like(found)
        out[torch.from_numpy(passed.layout.order)] = found
        return out

    def _parts(self, batch: Batch, passed: Passed) -> Parts:
        """The scores of the complete data."""
        order, seen = passed.layout.order, self.seen(batch)
        emission = []
        for component in self.states:
            found = scores(component, batch if bool(seen.all()) else batch[seen])
            full = found.new_zeros(len(batch), found.shape[1])
            full[seen] = torch.where(torch.isfinite(found), found, 0.0)
            emission.append(full.numpy()[order])
        x, initial = self.design(batch), self._initial_scores()
        a = np.exp(passed.a) if passed.log else passed.a
        rows = np.ones((1, len(batch))) if x is None else x.numpy()[:, order]
        return Parts(initial.shape[1], initial, emission, self.places, rows, self.chain.places(), a)

    def _weights(self, batch: Batch, layout: Layout, weight: Tensor | None) -> Array | None:
        """(n,) by place: the weight of each row's sequence; None: 1."""
        if weight is None:
            return None
        return sequence_weights(layout, weight, self.seen(batch))

    # ---- where to begin ------------------------------------------------------------------------------------

    def start(self, source: Source) -> Tensor:
        """θ of one partition of the rows, from which to start without EM."""
        from .hidden_guess import first_guess

        batch = next(iter(source.batches(self)))
        return first_guess(self, batch, torch.Generator().manual_seed(0)).ordered().theta


@functools.lru_cache(maxsize=4)
def _one(n: int) -> Layout:
    """Of one sequence of n rows."""
    return Layout.of(np.zeros(n, dtype=np.int64))


def _states(model: int | str, states: int | None) -> int:
    """How many states there are to be."""
    if isinstance(model, str) and "~" not in model:
        raise BadArgument(
            f"HMM({model!r}, …): the first argument is the number of states, HMM(3, {model!r}), or a formula, "
            "HMM('y ~ x', states=3)."
        )
    if not isinstance(model, str) and states is not None:
        raise BadArgument(f"HMM({model!r}, states={states!r}): give the number of states once.")
    k = states if isinstance(model, str) else model
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise BadArgument(f"{k!r} states. Accepted: a whole number of at least 1.")
    return k
