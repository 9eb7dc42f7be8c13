"""Grouping factors and smooth terms as plain values and tensors, and back: what new rows are encoded by.

Kept are the levels of a grouping factor and which of their combinations were seen; of a smooth term its bases (knots; the
different values of the variable of a thin plate spline, which are its knots), what they are multiplied by, and its
penalties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.bases import Basis, Cubic, Levels, PSpline, ThinPlate
from ..data.random_terms import Grouping
from ..data.smooths import Curve, Smooth, SmoothCall
from ..errors import BadSave
from ..types import Level, Plain, Settings, fields_of
from ..types import Levels as LevelNames
from .values import checked, plain, rich

BASES = {kind.__name__: kind for kind in (Cubic, PSpline, ThinPlate, Levels)}
POWERS = 10**6  # combinations among which the polynomials of a thin plate spline are looked for
MOST = 10  # degree of a spline, order of a penalty: beyond, no basis has a number that float64 holds


# ---- grouping factors --------------------------------------------------------------------------------------


def grouping_config(grouping: Grouping, at: str) -> tuple[Settings, dict[str, Tensor]]:
    """The grouping factor as (plain values, tensors named `at`.…)."""
    levels = [
        plain(list(own), f"a level of {name!r}")
        for name, own in zip(grouping.columns, grouping.levels, strict=True)
    ]
    config = {"columns": list(grouping.columns), "levels": levels}
    return config, {f"{at}.cells": torch.from_numpy(grouping.cells)}


def grouping(config: Settings, at: str, tensors: Mapping[str, Tensor]) -> Grouping:
    """The grouping factor of these values.

    Raises
    ------
    BadSave
        its groups are not combinations of its levels
    """
    cells = tensors[f"{at}.cells"].numpy()
    levels = tuple(level_names(rich(own)) for own in config["levels"])
    out: Grouping = checked(Grouping, {"columns": tuple(config["columns"]), "levels": levels, "cells": cells})
    product = math.prod(len(own) for own in levels)
    rising = cells.ndim == 1 and len(cells) > 1 and bool((np.diff(cells) > 0).all())
    inside = rising and cells[0] >= 0 and cells[-1] < product
    if cells.dtype != np.int64 or not inside or len(levels) != len(out.columns) or product >= 2**62:
        raise BadSave(f"the file's groups of {out.label!r} do not fit its levels.")
    return out


def level_names(levels: Sequence[Level]) -> LevelNames:
    """Levels of a category: scalars, each once.

    Raises
    ------
    BadSave
    """
    if not isinstance(levels, list) or any(
        isinstance(each, (list, tuple, dict, np.ndarray)) for each in levels
    ):
        raise BadSave(f"the file holds {str(levels)[:60]!r} instead of levels.")
    if len(set(levels)) < len(levels):
        raise BadSave(f"the file holds a level twice among {str(levels)[:60]}.")
    return tuple(levels)


# ---- smooth terms ------------------------------------------------------------------------------------------


def curve_config(curve: Curve, at: str) -> tuple[Settings, dict[str, Tensor]]:
    """The smooth term as (plain values, tensors named `at`.…)."""
    smooth, arrays = curve.smooth, {"N": curve.N, "R": curve.R}
    margins = []
    for j, basis in enumerate(smooth.margins):
        settings = fields_of(basis)
        own = {name: v for name, v in settings.items() if isinstance(v, np.ndarray)}
        arrays |= {f"basis{j}.{name}": v for name, v in own.items()}
        rest = {name: plain(v) for name, v in settings.items() if name not in own}
        margins.append({"basis": type(basis).__name__, "settings": rest, "arrays": sorted(own)})
    arrays |= {f"map{j}": v for j, v in enumerate(smooth.maps) if v is not None}
    arrays |= {} if smooth.constraint is None else {"constraint": smooth.constraint}
    arrays |= {f"penalty{j}": v for j, v in enumerate(smooth.penalties)}
    arrays |= {f"own{j}": v for j, v in enumerate(curve.penalties)}
    config = {
        "label": smooth.label,
        "call": plain(
            {k: v for k, v in fields_of(smooth.call).items() if v or k not in ("factor", "shared")}
        ),
        "margins": margins,
        "penalties": len(smooth.penalties),
        "by": smooth.by,
        "level": plain(smooth.level, f"a level of {smooth.by!r}"),
        "limits": plain(smooth.limits),
        "levels": [plain(list(own), f"a level of {smooth.label}") for own in smooth.levels],
    }
    return config, {f"{at}.{name}": torch.from_numpy(np.ascontiguousarray(v)) for name, v in arrays.items()}


def curve(config: Settings, at: str, tensors: Mapping[str, Tensor]) -> Curve:
    """The smooth term of these values.

    Raises
    ------
    BadSave
        its tensors do not fit each other
    """
    arrays = {n.removeprefix(f"{at}."): t.numpy() for n, t in tensors.items() if n.startswith(f"{at}.")}
    call: SmoothCall = checked(SmoothCall, rich(config["call"]))
    levels = tuple(level_names(rich(own)) for own in config["levels"])
    many = config["penalties"]
    if type(many) is not int or not 1 <= many <= len(arrays):
        raise BadSave(f"the file holds a smooth term {config['label']!r} with {many!r} penalties.")
    margins = tuple(_basis(each, f"basis{j}", arrays) for j, each in enumerate(config["margins"]))
    values = {
        "label": config["label"],
        "call": call,
        "margins": margins,
        "maps": tuple(arrays.get(f"map{j}") for j in range(len(margins))),
        "constraint": arrays.get("constraint"),
        "penalties": tuple(arrays[f"penalty{j}"] for j in range(many)),
        "by": config["by"],
        "level": rich(config["level"]),
        "limits": rich(config["limits"]),
        "levels": levels,
    }
    smooth: Smooth = checked(Smooth, values)
    out = Curve(smooth, arrays["N"], arrays["R"], tuple(arrays[f"own{j}"] for j in range(many)))
    _check(out, arrays)
    return out


def _basis(config: Settings, at: str, arrays: Mapping[str, np.ndarray]) -> Basis:
    values = {**rich(config["settings"]), **{name: arrays[f"{at}.{name}"] for name in config["arrays"]}}
    out: Basis = checked(BASES[config["basis"]], values)
    if isinstance(out, PSpline) and not (1 <= out.degree <= MOST and 1 <= out.order <= MOST):
        raise BadSave(f"the file holds a spline of degree {out.degree} and order {out.order}.")
    if isinstance(out, ThinPlate) and not 1 <= out.order <= MOST:
        raise BadSave(f"the file holds a thin plate spline of order {out.order}.")
    return out


def _check(curve: Curve, arrays: Mapping[str, np.ndarray]) -> None:
    """That the bases can be evaluated, and that all that they are multiplied by fits them."""
    smooth, call = curve.smooth, curve.smooth.call
    wrong = BadSave(f"the file's smooth term {smooth.label!r} has tensors that do not fit each other.")
    if any(a.dtype != np.float64 or not bool(np.isfinite(a).all()) for a in arrays.values()):
        raise wrong
    of = 1 if call.kind == "s" else len(call.variables)
    variables = len(call.variables)
    if len(smooth.margins) != of or smooth.by not in (None, call.by):
        raise wrong
    columns = 1
    for basis, moved in zip(smooth.margins, smooth.maps, strict=True):
        one = _columns(basis, variables if of == 1 else 1, smooth, wrong)
        if moved is not None and (moved.ndim != 2 or len(moved) != one):
            raise wrong
        columns *= one if moved is None else moved.shape[1]
    Z = smooth.constraint
    if Z is not None and (Z.ndim != 2 or len(Z) != columns):
        raise wrong
    k = columns if Z is None else Z.shape[1]
    N, R = curve.N, curve.R
    square = all(S.shape == (k, k) for S in smooth.penalties)
    split = N.ndim == R.ndim == 2 and len(N) == len(R) == k and N.shape[1] + R.shape[1] == k
    own = split and all(S.shape == (R.shape[1], R.shape[1]) for S in curve.penalties)
    wide = len(smooth.limits) in (0, variables) and (not smooth.levels or len(smooth.levels) == variables)
    ends = [v for pair in smooth.limits for v in pair]
    wide = wide and all(type(v) is float and math.isfinite(v) for v in ends)
    if not (square and split and own and wide and R.shape[1] > 0):
        raise wrong


def _columns(basis: Basis, variables: int, smooth: Smooth, wrong: BadSave) -> int:
    """How many columns a basis has, once it has been evaluated at a point."""
    if isinstance(basis, Levels):
        if not smooth.levels or basis.size != math.prod(len(own) for own in smooth.levels):
            raise wrong
        return basis.size
    if smooth.levels:
        raise wrong
    point = np.zeros(1) if variables == 1 else np.zeros((1, variables))
    if isinstance(basis, ThinPlate):
        flat = basis.points.ndim == basis.maps.ndim == 2 and basis.order**variables <= POWERS
        if not flat or basis.points.shape[1] != variables or basis.centre.shape != (variables,):
            raise wrong
    elif variables != 1 or basis.knots.ndim != 1 or not bool((np.diff(basis.knots) > 0).all()):  # type: ignore[attr-defined]
        raise wrong
    try:
        found = basis.at(point)
    except (ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise wrong from error
    if found.shape != (1, basis.size):
        raise wrong
    return basis.size


def number_of(value: Plain, most: int) -> int:
    """A whole number of a file in 0 … most − 1.

    Raises
    ------
    BadSave
    """
    if type(value) is not int or not 0 <= value < most:
        raise BadSave(f"the file holds {str(value)[:60]!r}, and a number from 0 to {most - 1} belongs there.")
    return value
