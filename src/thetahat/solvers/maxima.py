"""Where the runs from several first guesses ended, and what that says of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..likelihood import Objective
from .certificate import Certificate
from .newton import State as NewtonState

SAME = 1e-4  # nats: maxima that differ by less are called the same
# standard errors against those of components that are seen, beyond which nothing is known of some direction
LOST = 1e3


@dataclass(frozen=True)
class Maximum:
    """Where one run ended.

    Parameters
    ----------
    theta, value
        θ, and ℓ there
    certificate, newton
        what Newton's last state shows, and that state; None where the run was left
    trace
        of the run
    trouble
        why it was left
    scale
        (p,) √ of the diagonal of the information, had the components been seen: the largest along the run
    """

    theta: Tensor
    value: float
    certificate: Certificate
    newton: NewtonState | None
    trace: tuple[tuple[int, float, float], ...]
    trouble: str = ""
    scale: Tensor | None = None


def distinct(found: Sequence[Maximum]) -> list[tuple[Maximum, int]]:
    """The different maxima, highest first, and how many runs reached each."""
    out: list[tuple[Maximum, int]] = []
    for m in sorted(found, key=lambda m: -m.value):
        if out and abs(m.value - out[-1][0].value) < SAME:
            out[-1] = (out[-1][0], out[-1][1] + 1)
        else:
            out.append((m, 1))
    return out


def leads_to(theta: Tensor, value: float, m: Maximum) -> bool:
    """Whether θ is so near a maximum that ℓ is its quadratic model there: Newton's steps to it need not be
    taken again.

    Where a run came to no maximum (a ridge, an end at infinity), another that comes as high is taken to be on
    the same way.
    """
    if m.newton is None or m.trouble:
        return False
    d, gap = theta - m.theta, m.value - value
    if not m.certificate.ok or not bool(torch.isfinite(m.newton.information.A).all()):
        return abs(gap) < 10 * SAME
    return (
        gap <= 0.1 and abs(0.5 * float(d @ m.newton.information.multiply(d)) - gap) <= 0.25 * abs(gap) + 1e-6
    )


def needless(objective: Objective, best: Maximum) -> tuple[list[str], str] | None:
    """The coordinates that mean nothing where a component has no weight, or is another one once more; and
    which component it is."""
    model, factor = objective.model, None if best.newton is None else best.newton.factor
    if best.scale is None:
        return None
    if factor is not None and bool((factor.inverse_diagonal().clamp(min=0).sqrt() * best.scale < LOST).all()):
        return None
    weight, names = model.natural(best.theta)[: model.k], model.coefficient_names
    for k, place in enumerate(model.places):
        if float(weight[k]) * objective.observations < 1e-3:
            return names[place], f"component {k} has the weight {float(weight[k]):.2g}."
        for j in range(k):
            away = (
                (best.theta[place] - best.theta[model.places[j]])
                if model.alike[j] == model.alike[k]
                else None
            )
            if away is not None and float((away * best.scale[place]).norm()) < 0.1:
                return [f"logit[{k}]"], f"components {j} and {k} are the same."
    return None


def starts_of(found: Sequence[Maximum]) -> str:
    return "1 start" if len(found) == 1 else f"{len(found)} starts"


def told_of(found: Sequence[Maximum], tried: int) -> str:
    """How many runs reached the answer, which other maxima there are, and how many runs came to nothing.

    Parameters
    ----------
    tried
        guesses on a subsample, whose highest maxima the starts are; 0: none
    """
    sound = [m for m in found if not m.trouble]
    at_top, *lower = distinct(sound)
    parts = [f"{tried} starts tried on a subsample; {at_top[1]} of its {len(found)} highest maxima led here"]
    if not tried:
        parts = [f"{at_top[1]} of {starts_of(found)} led here"]
    ends = [(m, times) for m, times in lower if m.certificate.ok]
    for m, times in ends[:4]:
        parts.append(f"{times} to a maximum {at_top[0].value - m.value:.3g} nats lower")
    if len(ends) > 4:
        parts.append(f"{sum(t for _, t in ends[4:])} to lower ones still")
    unsure = sum(times for m, times in lower if not m.certificate.ok)
    if unsure:
        parts.append(f"{unsure} to lower points that are no certified maxima")
    lost = len(found) - len(sound)
    if lost:
        parts.append(
            f"{lost} into a singularity, where the likelihood has no bound, and "
            f"{'was' if lost == 1 else 'were'} left"
        )
    return ", ".join(parts) + "."
