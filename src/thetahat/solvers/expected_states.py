"""The E-step and the M-step of a hidden Markov model: the Baum–Welch algorithm.

    E    γ_t(k), ξ_t(j, k)                                        probabilities of states and transitions, given all of y
    M    δ = γ_1,  a(j, k) ∝ Σ_t ξ_t(j, k),  θ_k = argmax Σ_t γ_t(k) log p(y_t | θ_k)

Where transitions have predictors, or the first state has the stationary distribution, the chain has no formula: steps of
Newton on Σ ξ log a + Σ γ_1 log δ, each halved until that does not fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Tensors
from ..likelihood import LogLikelihood, LogPrior, Objective
from ..models import HMM, Density
from ..models.chains import Passed
from ..models.hidden_chain import TINY
from ..models.hidden_rows import gamma_of, value_of
from ..models.information import Information
from ..models.mixture import Recounted
from ..models.regression import Regression
from ..protocols import HasStart
from ..types import ModelLike
from .complete_data import PEAK, agreed, formula
from .loop import iterate
from .newton import Newton

FAR = 10**18
NEVER = 1e-2  # times that a transition is expected to have been taken, below which it may be held at 0
LONG = 200  # rows of a stretch: one begins anew as rarely as in so many transitions


@dataclass(frozen=True)
class Point:
    """θ, ℓ there, and what is expected of the states.

    Parameters
    ----------
    gamma
        (K, n), rows in the order of `HMM.entries`, times the weight of each row's sequence
    first
        (K,) how often each state is expected to come first
    taken, x
        as `HMM.taken` gives them
    trouble
        why the run must not go on from here
    """

    theta: Tensor
    value: float
    gamma: Tensor
    first: Tensor
    taken: np.ndarray
    x: np.ndarray | None
    trouble: str = ""
    passed: Passed | None = field(
        default=None, repr=False
    )  # held: who asks at the same θ need not pass again

    @property
    def moves(self) -> np.ndarray:
        """(K, K), how often each transition is expected to have been taken."""
        return self.taken if self.x is None else np.asarray(self.taken.sum(-1))


def whole(objective: Objective) -> Batch:
    """All rows, in one batch."""
    return next(iter(objective.terms[0].source.batches(objective.model)))


def expect(objective: Objective, theta: Tensor, limits: Tensor) -> Point:
    """E: what is expected of the states at θ, and the objective there."""
    batch = whole(objective)
    with objective.moved(theta) as here, torch.no_grad():
        model: HMM = here.model
        passed = model.passed(batch)
        own = model._weights(batch, passed.layout, here.terms[0].weight(batch))
        value = value_of(passed, own)
        if here.priors:
            value += float(Objective([], here.priors).taylor(order=1).value)
        taken, x = model.taken(batch, passed, own)
        weighted, first = gamma_of(passed, own)
        gamma = torch.from_numpy(weighted)
        beyond = collapsed(passed, limits.numpy(), weighted)
    trouble = ""
    if not math.isfinite(value):
        trouble = f"The log-likelihood is {value}."
    elif bool((beyond > 0).any()):
        k = int(beyond.argmax())
        trouble = f"State {k + 1} has collapsed on {int(beyond[k])} observations: its density grows there without bound."
    return Point(theta.clone(), value, gamma, torch.from_numpy(first), taken, x, trouble, passed)


def value(objective: Objective) -> float:
    """The objective where it stands: forward alone."""
    batch, model = whole(objective), objective.model
    passed = model.passed(batch, backward=False)
    out = value_of(passed, model._weights(batch, passed.layout, objective.terms[0].weight(batch)))
    if objective.priors:
        out += float(Objective([], objective.priors).taylor(order=1).value)
    return out


def settled(objective: Objective, passed: Passed) -> Objective:
    """The same objective with δ at its maximum given the rest of θ, where first states are free; those in which no
    sequence begins are held at 0.

    Σ_s log Σ_k δ_k g_sk, g_sk = p(y_s | z_1 = k), is concave in δ and needs no further pass: EM on it alone.
    """
    model: HMM = objective.model
    n, m = model.chain.sizes
    if not n or objective.priors:
        return objective
    batch = whole(objective)
    own = model._weights(batch, passed.layout, objective.terms[0].weight(batch))
    opening = np.flatnonzero(passed.layout.opening)
    weight = np.ones(len(opening)) if own is None else own[passed.layout.packed[opening]]
    theta = objective.theta
    delta = torch.exp(model.chain.log_initial(theta[:n], theta[n : n + m])).numpy()
    g = passed.gamma[:, opening] / np.maximum(delta, TINY)[:, None]
    for _ in range(200):
        joint = delta[:, None] * g
        after = (joint / joint.sum(0)) @ weight / weight.sum()
        moved, delta = float(np.abs(after - delta).max()), after
        if moved < 1e-6:
            break
    top = np.log(np.maximum(delta, TINY))
    theta[:n] = torch.from_numpy(top[model.chain.first] - top[model.chain.starts.index(True)])
    here = objective.at(theta)
    gone = [k for k in range(model.k) if model.chain.starts[k] and delta[k] * weight.sum() < NEVER]
    return over(here, here.model.holding([], gone)) if gone else here


def begun(objective: Objective) -> np.ndarray:
    """∂ℓ/∂δ_k less Σ_s w_s, (K,): where it is positive, more sequences should begin in state k.

    ∂ log Σ_l δ_l g_sl / ∂δ_k = g_sk / Σ_l δ_l g_sl, g_sk ∝ b_1(k) β_1(k), and its sum is Σ w wherever δ_k > 0 at a
    maximum.
    """
    model, batch = objective.model, whole(objective)
    passed = model.passed(batch)
    assert passed.beta is not None
    own = model._weights(batch, passed.layout, objective.terms[0].weight(batch))
    opening = np.flatnonzero(passed.layout.opening)
    weight = np.ones(len(opening)) if own is None else own[passed.layout.packed[opening]]
    likely, beta = passed.likely[:, opening], passed.beta[:, opening]
    g = np.exp(likely + beta - (likely + beta).max(0)) if passed.log else likely * beta
    n, m = model.chain.sizes
    theta = objective.theta
    delta = torch.exp(model.chain.log_initial(theta[:n], theta[n : n + m])).numpy()
    return np.asarray((g / (delta @ g)) @ weight - weight.sum())


def collapsed(passed: Passed, limits: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """(K,) rows that are of a state whose density there is beyond its limit."""
    # log b is up to a term of each row, the largest of its log p: of a state beyond the limit that one is too
    if not bool((passed.top > limits.min()).any()):
        return np.zeros(len(limits), dtype=np.int64)
    likely = passed.likely if passed.log else np.log(np.maximum(passed.likely, 1e-300))
    return np.asarray(((likely + passed.top > limits[:, None]) & (gamma > 0.5)).sum(1))


def maximised(objective: Objective, point: Point, inner: int) -> Tensor:
    """M: argmax Q, or a θ where Q is higher. Not finite where Q has no maximum."""
    model: HMM = objective.model
    entries = model.entries(whole(objective))
    out = [_chain(model, point, inner)]
    for k, (component, place) in enumerate(zip(model.states, model.places, strict=True)):
        count = entries.of_seen(point.gamma[k])
        out.append(_component(component, entries.seen_rows, count, point.theta[place], inner))
    return torch.cat(out)


def _chain(model: HMM, point: Point, inner: int) -> Tensor:
    """The chain's part of M, (logits, w)."""
    found = model.chain.maximum(point.first, point.taken)
    if found is not None:
        return found
    n, m = model.chain.sizes
    here = point.theta[: n + m].clone()

    def of(at: Tensor, order: int = 2) -> tuple[float, np.ndarray, np.ndarray | None]:
        return model.chain.complete(at[:n], at[n:], point.first, point.taken, point.x, order, exact=False)

    for _ in range(inner if n + m else 0):
        value, gradient, J = of(here)
        assert J is not None
        J += np.diag(1e-8 * J.diagonal() + 1e-12)
        step = torch.from_numpy(np.linalg.solve(J, gradient))
        step = step / max(1.0, float(step.abs().max()) / 4)
        for _ in range(30):
            if of(here + step, 1)[0] >= value:
                here = here + step
                break
            step = step / 2
    return here


def _component(component: ModelLike, rows: Batch, count: Tensor, theta: Tensor, inner: int) -> Tensor:
    """One state's part of M: by a formula where there is one."""
    source = Recounted(Tensors(rows, copy=False, block=FAR), [count])
    constant = isinstance(component, Regression) and all(p.design.constant for p in component.predictors)
    if isinstance(component, Regression) and constant and not component.fixed:
        values = component.family.maximum(rows["y"], count, **component.extras(rows))
        if values is not None:
            pairs = zip(component.family.parameters.values(), values, strict=True)
            return torch.stack([p.link(torch.tensor(v, dtype=torch.float64)) for p, v in pairs])
    found = formula(component, source) if isinstance(component, Density) or not constant else None
    if found is not None:
        return found
    newton = Newton(steps=inner, tolerance=1e-8, begin=theta, thin_above=FAR, keep_above=FAR)
    out: Tensor = iterate(newton, Objective([LogLikelihood(component, source)])).theta
    return out


def singular(model: HMM, theta: Tensor, gamma: Tensor) -> str:
    """What has happened to the state whose maximum is not finite."""
    at = next(i for i, v in enumerate(theta.tolist()) if not math.isfinite(v))
    k = next((k for k, place in enumerate(model.places) if place.start <= at < place.stop), None)
    if k is None:
        return "The transitions have no maximum."
    how = (
        "its likelihood has no maximum"
        if torch.isnan(theta[at])
        else f"{model.coefficient_names[at]} → {float(theta[at]):g}"
    )
    return f"State {k + 1} has collapsed on {float(gamma[k].sum()):.4g} observations: {how}."


def limits(objective: Objective) -> Tensor:
    """The log density of each state beyond which it has collapsed: far above the average under one such state alone,
    (K,). A mass is at most 1; and where there are priors, they keep a state from collapsing."""
    model: HMM = objective.model
    if model.measure == "mass" or objective.priors:
        return torch.full((model.k,), math.inf, dtype=torch.float64)
    batch = whole(objective)
    rows = batch[model.seen(batch)]
    source, out = Tensors(rows, copy=False, block=FAR), []
    y = rows["y"]
    # states that say where to start are all alike when alone
    for component in model.states[:1] if isinstance(model.states[0], HasStart) else model.states:
        alone = Objective([LogLikelihood(component, source)])
        if isinstance(component, HasStart):
            alone = alone.at(agreed(component.start(source)))
        out.append(alone.value() / float(rows.total) + PEAK * (y[0].numel() if y.ndim > 1 else 1))
    return torch.tensor(out, dtype=torch.float64).expand(model.k)


def over(objective: Objective, model: HMM) -> Objective:
    """The same objective of another model of the same data."""
    term = objective.terms[0]
    return Objective([term.over(term.source, model)], [LogPrior(p.prior, model) for p in objective.priors])


def seen_scale(objective: Objective, point: Point) -> Tensor:
    """√ of the diagonal of the information at a point, had the states been seen, (p,)."""
    batch = whole(objective)
    with objective.moved(point.theta) as here:
        passed = here.model.passed(batch)
        own = here.model._weights(batch, passed.layout, here.terms[0].weight(batch))
        J = here.model.complete(batch, passed, own).information
    assert J is not None
    out: Tensor = J.diagonal().clamp(min=0).sqrt()
    return out


def thinned(objective: Objective, rows: int) -> Objective:
    """The same objective of about so many rows (`stretches`)."""
    some = stretches(objective.model, whole(objective), rows)
    return Objective([LogLikelihood(objective.model, Tensors(some, copy=False, block=FAR))], objective.priors)


def steering(objective: Objective, rows: int) -> Information | None:
    """The information that about so many rows suggest for all of them; None where it is not positive definite."""
    some, model = thinned(objective, rows), objective.model
    batch, part = whole(objective), whole(some)
    known = some.taylor(order=2).information
    assert known is not None
    J = known.dense()
    scale = J.new_full((len(J),), math.sqrt(len(batch) / len(part)))
    first = len(model.arranged(batch).lengths) / len(model.arranged(part).lengths)
    scale[: model.chain.sizes[0]] = math.sqrt(first)  # of a first state each sequence tells once
    found = Information(J * torch.outer(scale, scale))
    return None if found.factor() is None else found


def stretches(model: HMM, batch: Batch, rows: int) -> Batch:
    """About so many rows, in whole sequences or long stretches of them: enough for a first guess."""
    layout = model.arranged(batch)
    length = max(min(int(layout.lengths.max()), rows // 10, LONG), 2)
    taken: list[np.ndarray] = []
    pieces = [
        (start + at, min(length, int(many) - at))
        for start, many in zip(layout.starts.tolist(), layout.lengths.tolist(), strict=True)
        for at in range(0, int(many), length)
    ]
    stride = max(1, round(len(batch) / rows))
    for at, many in pieces[::stride]:
        taken.append(layout.order[at : at + many])
    index = torch.from_numpy(np.concatenate(taken))
    group = np.repeat(np.arange(len(taken)), [len(t) for t in taken])
    some = batch[index]
    return Batch(some.tensors, count=some.count if batch.counted else None, group=torch.from_numpy(group))
