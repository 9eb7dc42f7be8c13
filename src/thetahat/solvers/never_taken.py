"""Transitions and first states that the data never take: their probability is 0 at the maximum, an end of its range."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..likelihood import Objective
from ..models import HMM
from .expected_states import NEVER, Point, begun, over, value

INSIDE = 1e-5  # the probability with which a step back inside is tried
LEAST = 1e-9  # nats that it has to gain
RARE = 1e-3  # a probability at which a transition is counted
LOST = 0.1  # nats that may be lost by holding what is never taken


def without(here: Objective, point: Point, freed: frozenset[tuple[int, int]]) -> Objective | None:
    """The objective without the transitions and first states that are never taken, and that EM makes rarer still; None
    where there are none. A first state k is written (−1, k)."""
    if here.priors:
        return None
    model: HMM = here.model
    chain, K = model.chain, range(model.k)
    theta = model.theta
    n, m = chain.sizes
    taken = point.moves
    if chain.columns:
        fallen = taken < NEVER  # probabilities change from row to row: only what is never taken is known
    else:
        a = torch.exp(chain.log_transitions(theta[n : n + m])).numpy()
        fallen = (taken < NEVER) & (taken <= 0.9 * a * taken.sum(1, keepdims=True))
    moves = [
        (j, k) for j in K for k in K if chain.allowed[j][k] and bool(fallen[j, k]) and (j, k) not in freed
    ]
    moves = [
        (j, k) for j, k in moves if taken[j].sum() > 1
    ]  # of a state that is hardly visited nothing is known
    starts: list[int] = []
    if not chain.stationary:
        delta = torch.exp(chain.log_initial(theta[:n], theta[n : n + m]))
        rare = (point.first < NEVER) & (point.first <= 0.9 * delta * point.first.sum())
        starts = [k for k in K if chain.starts[k] and bool(rare[k]) and (-1, k) not in freed]
    if not moves and not starts:
        return None
    rest = over(here, model.holding(moves, starts))
    # a stationary chain cannot lose a transition without which a state that was seen is never come to
    return rest if value(rest) > point.value - LOST else None


def rare(model: HMM) -> bool:
    """Whether some transition has a probability near 0."""
    n, m = model.chain.sizes
    if model.chain.columns:
        return True
    with torch.no_grad():
        a = torch.exp(model.chain.log_transitions(model.theta[n : n + m]))
        first = torch.exp(model.chain.log_initial(model.theta[:n], model.theta[n : n + m]))
    return bool(((a > 0) & (a < RARE)).any() | ((first > 0) & (first < RARE)).any())


def inside(here: Objective, freed: set[tuple[int, int]]) -> tuple[tuple[int, int], Objective] | None:
    """A transition that is held at 0 although the objective is higher beside it, and the objective there; None where
    there is none."""
    model: HMM = here.model
    shut = [(j, k) for j, k in zeros(model) if (j, k) not in freed]
    slope = begun(here) if any(j < 0 for j, _ in shut) else None
    top = value(here) if any(j >= 0 for j, _ in shut) else math.nan
    for j, k in shut:
        if j < 0 and slope is not None:
            higher = INSIDE * slope[k] > LEAST
        else:
            higher = value(over(here, model.allowing(j, k, INSIDE))) > top + LEAST
        if higher:
            return (j, k), over(here, model.allowing(j, k, 1e-2))
    return None


def zeros(model: HMM) -> list[tuple[int, int]]:
    """(j, k) of the transitions, and (−1, k) of the first states, that are held at 0."""
    K, chain = range(model.k), model.chain
    first = [(-1, k) for k in K if not chain.starts[k]]
    return first + [(j, k) for j in K for k in K if not chain.allowed[j][k]]


def held(model: HMM) -> dict[str, str]:
    out = {}
    for j, k in zeros(model):
        name = f"P(start {k + 1})" if j < 0 else f"P({j + 1} → {k + 1})"
        out[name] = (
            f"one that never {'begins in' if j < 0 else f'goes from state {j + 1} to'} state {k + 1} ({name} = 0)"
        )
    return out


def opened(model: HMM) -> Tensor:
    """θ with every transition possible again."""
    for j, k in zeros(model):
        model = model.allowing(j, k, INSIDE)
    return model.theta
