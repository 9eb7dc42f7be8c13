"""A likelihood of one's own with latent variables in a file: what is latent and of which groups, and what of the rows its
answers need. The function is code, and is given again (`th.load(path, model=growth)`).

    modes.*, factor.*    as of a mixed model (`io.mixed`)
    latent.u             û of each term in turn, level by level
    latent.D             ∂û/∂(β, φ): what errors of predictions have from those of θ̂ (`evaluation.known_latent`)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, BadSave, FitError
from ..evaluation.known_latent import moves_of
from ..evaluation.modes import modes_of
from ..likelihood import Objective
from ..models.custom import Latent
from ..models.elimination import NotPositiveDefinite
from ..models.latent import DescribedLatent, LatentModel, Unbound
from ..models.latent_terms import factor_of
from ..models.series import OneGroup
from ..types import Settings
from .families import from_config as families_from_config
from .families import to_config as families_to_config
from .mixed import Remembered, factor_arrays, known_modes, shaped
from .smooths import grouping, grouping_config, number_of
from .values import checked, plain, rich
from .without_rows import Memory

PARTS = ("modes.", "factor.", "latent.")


def to_config(model: LatentModel) -> tuple[Settings, dict[str, Tensor]]:
    """What `from_config` makes the model of, beside its function."""
    groupings, tensors = [], dict[str, Tensor]()
    for i, each in enumerate(model.groupings):
        if isinstance(each, OneGroup):
            groupings.append({"along": each.columns[0]})
            continue
        config, own = grouping_config(each, f"grouping{i}")
        groupings.append(config)
        tensors |= own
    family = {"family": families_to_config(model.family)} if isinstance(model, DescribedLatent) else {}
    latent = {name: plain(dataclasses.asdict(each)) for name, each in model.latents.items()}
    tensors |= {f"steps.{name}": torch.from_numpy(steps) for name, steps in model.steps.items()}
    return {"latent": latent, "groupings": groupings, "points": model.points, **family}, tensors


def from_config(config: Settings, given: Unbound, tensors: Mapping[str, Tensor]) -> LatentModel:
    """The model of the function that was given, with the groups of the file, θ not yet set.

    Raises
    ------
    BadSave
        the file does not fit itself
    BadArgument
        the latent variables of the function are others
    """
    latents: dict[str, Latent] = {n: checked(Latent, rich(own)) for n, own in config["latent"].items()}
    if _kinds(latents) != _kinds(given.latents):
        raise BadArgument(
            f"the file holds a fit of {config['name']!r} with {_shown(latents)}; the model given has {_shown(given.latents)}."
        )
    groupings = [
        OneGroup.of(each["along"]) if "along" in each else grouping(each, f"grouping{i}", tensors)
        for i, each in enumerate(config["groupings"])
    ]
    known = [(g.label,) if isinstance(g, OneGroup) else g.columns for g in groupings]
    if list(dict.fromkeys(factor_of(latent) for latent in latents.values())) != known:
        raise BadSave(f"the file holds groups of {known}, which are not those of its latent variables.")
    steps = {name: _steps(name, tensors) for name, latent in latents.items() if latent.along is not None}
    points = number_of(config["points"], 101)
    if "family" in config:
        family = families_from_config(config["family"])
        model: LatentModel = DescribedLatent(given.custom, latents, groupings, family, steps)
    else:
        model = LatentModel(given.custom, latents, groupings, steps)
    return model if points == 1 else model.with_points(points)


def _steps(name: str, tensors: Mapping[str, Tensor]) -> np.ndarray:
    out: np.ndarray = tensors[f"steps.{name}"].numpy()
    rising = out.ndim == 1 and out.dtype == np.float64 and len(out) > 1 and bool((np.diff(out) > 0).all())
    if not rising or not bool(np.isfinite(out).all()):
        raise BadSave(f"the file holds steps of {name!r} that are not rising numbers.")
    return out


def _kinds(latents: Mapping[str, Latent]) -> list[tuple[str, Latent]]:
    """What must agree: all but where standard deviations start."""
    return [(n, dataclasses.replace(each, sd=(1.0,) * len(each.sd))) for n, each in latents.items()]


def _shown(latents: Mapping[str, Latent]) -> str:
    return "no latent variables" if not latents else ", ".join(f"{n}={each}" for n, each in latents.items())


def tensors_of(objective: Objective, dense: int) -> dict[str, Tensor]:
    """What a file keeps of the rows, with the factor of at most `dense` columns."""
    kept = objective.remembered
    if isinstance(kept, Remembered):
        return dict(kept.tensors)
    try:
        modes = modes_of(objective)
        u, D = moves_of(objective)
    except (FitError, NotPositiveDefinite, np.linalg.LinAlgError):
        return {}  # of a fit that failed: no modes here, none there
    out = {"modes.rest": modes.rest} | ({} if modes.first is None else {"modes.first": modes.first})
    out |= factor_arrays(modes.factored, dense)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in out.items()}
    return tensors | {"latent.u": u, "latent.D": D}


def remembered(model: LatentModel, tensors: Mapping[str, Tensor], memory: Memory) -> Remembered:
    """What the file knows of the rows, of the model at θ̂.

    Raises
    ------
    BadSave
        a tensor does not fit the model
    """
    own = {name: t for name, t in tensors.items() if name.startswith(PARTS)}
    modes = known_modes(model, model.columns_without_rows(), own, memory)
    if "latent.u" in own:
        size = sum(model.rank(r) for r in model.random)
        shaped(own["latent.u"].numpy(), (size,), "latent.u")
        width = len(model.coefficients) + len(model.covariance)
        shaped(own["latent.D"].numpy(), (size, width), "latent.D")
    return Remembered(memory, own, modes)
