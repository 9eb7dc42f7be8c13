"""Replicas: S independent models in one stack, each parameter a tensor (S, …), that one run trains as S runs.

    ĝ = (1/S) Σ_s ĝ_s       of the whole;   each slice is moved by its own ĝ_s, scaled to its own largest norm

Adam, SGD and their kin move each coordinate by its own past, so what is left that couples the slices is the norm
of the gradient, taken here slice by slice; and whatever does not separate is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.devices import widest
from ..data.processes import world
from ..errors import BadArgument
from ..likelihood import Objective
from ..protocols import HasReplicas
from ..types import SolverLike, shown_as
from .optimisers import AdamW

ELEMENTWISE: tuple[type, ...] = tuple(
    getattr(torch.optim, name)
    for name in "SGD Adam AdamW NAdam RAdam Adamax Adagrad Adadelta RMSprop Rprop ASGD".split()
)


def replicas_of(objective: Objective) -> int | None:
    """S, where the models of an objective are stacks of S replicas; None: they are not.

    Raises
    ------
    BadArgument
        some are and others are not
    """
    found = {term.model.replicas if isinstance(term.model, HasReplicas) else None for term in objective.terms}
    if len(found) > 1:
        raise BadArgument(
            "the terms of an objective are of different numbers of seeds. Accepted: stacks of one number of seeds, "
            "rl.stacked([…])."
        )
    return found.pop() if found else None


def check(solver: SolverLike, objective: Objective) -> None:
    """Refuse what would make the replicas of a stack depend on one another.

    Raises
    ------
    BadArgument
        names the setting
    """
    wrong = (
        (solver.accumulation_steps > 1, f"accumulation_steps={solver.accumulation_steps}", "1"),
        (solver.optimiser == "muon", "optimiser='muon'", "'adamw', 'sgd'"),
        (
            solver.held_out is not None and not isinstance(solver.held_out, (int, float)),
            "held_out=",
            "None",
        ),
        (solver.precision == torch.float16, "precision=torch.float16", "None, torch.bfloat16"),
        (solver.compile, "compile=True", "False"),
        (world() > 1, "torch.distributed", "one process"),
        (bool(objective.priors), "a prior", "no prior"),
    )
    for bad, what, accepted in wrong:
        if bad:
            raise BadArgument(
                f"{what}: not for several seeds that are trained together. Accepted: {accepted}; or each seed alone."
            )


def check_optimisers(every: list[torch.optim.Optimizer], name: object) -> None:
    """Refuse an optimiser that moves a coordinate by the gradient of another."""
    for optimiser in every:
        if type(optimiser) not in (*ELEMENTWISE, AdamW):
            raise BadArgument(
                f"optimiser={shown_as(name)} gave a {type(optimiser).__name__}, which may move one seed by the gradient "
                f"of another. Accepted for several seeds: torch.optim's {', '.join(k.__name__ for k in ELEMENTWISE)}."
            )


@torch.no_grad()
def separated(gradients: list[Tensor], replicas: int, most: float | None) -> float:
    """Turn, in place, the gradient of the mean over replicas, (S, …), into that of each replica, shortened to the
    norm `most`; the largest of their norms before that.

    Examples
    --------
    >>> g = [torch.tensor([[1.5, 2.0], [0.1, 0.0]])]
    >>> separated(g, 2, 1.0), g[0].tolist()
    (5.0, [[0.6000000238418579, 0.800000011920929], [0.20000000298023224, 0.0]])
    """
    if not gradients:
        return 0.0
    wide = widest(gradients[0].device)
    parts = torch.stack(
        [torch.linalg.vector_norm(g.reshape(replicas, -1), dim=1).to(wide) for g in gradients]
    )
    norms = torch.linalg.vector_norm(parts, dim=0) * replicas
    factor = torch.full_like(norms, replicas)
    if most is not None:
        factor = torch.where(norms > most, replicas * most / norms, factor)
    for g in gradients:
        g.mul_(factor.to(g.dtype).reshape(-1, *[1] * (g.ndim - 1)))
    return float(norms.max())
