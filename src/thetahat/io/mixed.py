"""A mixed model in a file: its terms, and what of the rows its answers need.

    modes.*       û of the groups that were fitted (of smooth terms, their coefficients), times Λ
    factor.*      G of H = P + ΛᵀGΛ, the random effects and the fixed ones together (`models.elimination`): what predictions
                  of known groups have their intervals from, and the effects their errors; up to `DENSE` columns of a dense S
    freedom.*     ∂C/∂(σ, φ) and C: Satterthwaite's degrees of freedom (`inference.satterthwaite`)
    root.i        R with RᵀR = XᵀX of the i-th term's columns, a smooth one: its test

None of them is a row. What the file lacks is refused by name, and comes back with the data (`th.load(path, data)`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..data.table import Encoder
from ..errors import BadSave, FitError
from ..evaluation.modes import Modes, modes_of
from ..evaluation.smooth_terms import roots_of
from ..inference import satterthwaite
from ..likelihood import Objective
from ..memory import free
from ..models.blocks import Pattern
from ..models.elimination import Array, Columns, Cross, Factored, NotPositiveDefinite
from ..models.gram import Bordered, Gram
from ..models.mixed import Mixed, columns_without_rows
from ..models.random_effects import Random, RandomEffects, curve_of_each_group
from ..models.regression import NARROW, Regression
from ..models.scales import STRUCTURES, Diagonal, Penalised, Structure, Unstructured
from ..solvers.choice import DENSE
from ..types import Settings
from .smooths import number_of
from .without_rows import Memory

KINDS = {kind: name for name, kind in STRUCTURES.items()}


# ---- the model ---------------------------------------------------------------------------------------------


def to_config(model: Mixed) -> Settings:
    """What `from_config` makes the model of, beside its regression."""
    return {
        "random": [_random_config(r) for r in model.random],
        "reml": model.reml,
        "points": model.points,
    }


def _random_config(r: Random) -> Settings:
    own: Settings = {"smooth": True} if r.smooth else {"curve": r.curve} if r.each else {"slot": r.slot}
    if not r.smooth and not r.each:
        own["structure"] = KINDS[type(r.structure)]
    if isinstance(r.structure, Unstructured) and r.structure.order:
        own["order"] = list(r.structure.order)
    return {"parameter": r.parameter, "source": r.source, "text": r.text, **own}


def from_config(config: Settings, regression: Regression) -> Mixed:
    """The model, its covariance not yet set.

    Raises
    ------
    BadSave
    """
    if type(config["reml"]) is not bool:
        raise BadSave(f"the file holds reml={config['reml']!r}.")
    random = [_random(each, regression) for each in config["random"]]
    if not random:
        raise BadSave("the file holds a mixed model without random effects.")
    points = number_of(config["points"], 101)
    factors = {r.source for r in random if not r.smooth}
    if points != 1 and (points < 1 or any(r.smooth for r in random) or len(factors) > 1):
        raise BadSave(f"the file holds {points} nodes of quadrature of a model that has no such integral.")
    return Mixed(regression, random, reml=config["reml"], points=points)


def _random(config: Settings, regression: Regression) -> Random:
    encoder: Encoder = regression.encoder
    estimated = [p.parameter for p in regression.predictors]
    if config["parameter"] not in estimated or not isinstance(config["text"], str):
        raise BadSave(f"the file holds a random effect of {str(config['parameter'])[:60]!r}.")
    if config.get("smooth") is True or "curve" in config:
        each = "curve" in config
        source = number_of(config["curve" if each else "source"], len(encoder.smooths))
        curve, factor = encoder.smooths[source], encoder.smooths[source].smooth.call.factor
        own = next(p for p in regression.predictors if p.parameter == config["parameter"])
        if curve not in own.design.curves or each == (factor is None):
            raise BadSave(f"the file holds a smooth term {curve.label!r} in a formula that lacks it.")
        if each:
            group = number_of(config["source"], len(encoder.groupings))
            if encoder.groupings[group].columns != (factor,) or not 1 <= len(curve.penalties) <= len(curve.R):
                raise BadSave(f"the file holds a smooth term {curve.label!r} of other groups.")
            label = encoder.groupings[group].label
            return curve_of_each_group(config["parameter"], source, curve, group, label)
        bend: Structure = Penalised.of(curve.penalties, curve.smooth.of_what)
        return Random(config["parameter"], curve.label, (curve.label,), bend, -1, source, config["text"])
    source = number_of(config["source"], len(encoder.groupings))
    slot = number_of(config["slot"], len(encoder.designs))
    design = encoder.designs[slot]
    names = tuple(design.names)
    if not names or any(term.size > NARROW for term in design.coded):
        raise BadSave(f"the file holds a random effect {config['text'][:60]!r} of {len(names)} columns.")
    kind = STRUCTURES[config["structure"]]
    structure = Diagonal(1) if len(names) == 1 else kind(len(names))
    order = config.get("order")
    if order is not None:
        if not isinstance(structure, Unstructured) or sorted(order) != list(range(len(names))):
            raise BadSave(f"the file holds an order of effects {order!r} that is not one of {len(names)}.")
        structure = Unstructured(len(names), tuple(order))
    label = encoder.groupings[source].label
    return Random(config["parameter"], label, names, structure, slot, source, config["text"])


# ---- what is remembered of the rows ------------------------------------------------------------------------


@dataclass(frozen=True)
class Remembered:
    """What a mixed fit that was saved knows of its rows.

    Parameters
    ----------
    memory
        of the data, which says what to do where something is not known
    tensors
        those of the file
    found
        the modes, or None
    """

    memory: Memory
    tensors: Mapping[str, Tensor]
    found: Modes | None

    @property
    def modes(self) -> Modes:
        if self.found is None:
            self.memory.lack()
        return self.found

    @property
    def freedom(self) -> tuple[Tensor, Tensor]:
        """∂C/∂(σ, φ), (k, p²), and C, (p, p)."""
        if "freedom.slopes" not in self.tensors:
            self.memory.lack()
        return self.tensors["freedom.slopes"], self.tensors["freedom.C"]

    @property
    def moves(self) -> tuple[Tensor, Tensor]:
        """û, and ∂û/∂θ, of latent variables (`io.latent`)."""
        if "latent.D" not in self.tensors:
            self.memory.lack()
        return self.tensors["latent.u"], self.tensors["latent.D"]

    @property
    def roots(self) -> dict[int, Array]:
        found = {int(n[5:]): t.numpy() for n, t in self.tensors.items() if n.startswith("root.")}
        if not found:
            self.memory.lack()
        return found


PARTS = ("modes.", "factor.", "freedom.", "root.")


def tensors_of(objective: Objective) -> dict[str, Tensor]:
    """What a file keeps of the rows of a mixed fit."""
    kept = objective.remembered
    if isinstance(kept, Remembered):
        return dict(kept.tensors)
    out: dict[str, Array] = {}
    try:
        modes = modes_of(objective)
        out |= {"modes.rest": modes.rest} | ({} if modes.first is None else {"modes.first": modes.first})
        out |= factor_arrays(modes.factored, DENSE)
        out |= {f"root.{i}": R for i, R in roots_of(objective, modes).items()}
    except (FitError, NotPositiveDefinite, np.linalg.LinAlgError):
        pass  # of a fit that failed: no modes here, none there
    tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in out.items()}
    if satterthwaite.applies(objective):
        try:
            slopes, C = satterthwaite.derivatives(objective)
            tensors |= {"freedom.slopes": slopes, "freedom.C": C}
        except (FitError, NotPositiveDefinite, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            pass  # likewise: its degrees of freedom are not known
    return tensors


def factor_arrays(factor: Factored, most: int) -> dict[str, Array]:
    """G, of which H is made again; nothing of a dense one of more columns."""
    if factor.columns.gram is None and factor.size > most:
        return {}
    cross, rest = factor.cross, factor.cross.rest
    out: dict[str, Array] = {}
    if isinstance(rest, Bordered):
        out |= {"factor.inside": rest.inside, "factor.side": rest.side, "factor.rest": rest.corner}
    else:
        out["factor.rest"] = rest
    if cross.G00 is not None and cross.dense is not None:
        out |= {"factor.G00": cross.G00, "factor.dense": cross.dense}
    if cross.sparse is not None:
        pattern = factor.columns.pattern[0]
        out |= {"factor.sparse": cross.sparse, "factor.begin": pattern.begin.astype(np.int64)}
        out |= {"factor.columns": pattern.columns.astype(np.int64)}
    return out


def remembered(model: Mixed, tensors: Mapping[str, Tensor], memory: Memory) -> Remembered:
    """What the file knows of the rows, of the model at θ̂.

    Raises
    ------
    BadSave
        a tensor does not fit the model
    """
    own = {name: t for name, t in tensors.items() if name.startswith(PARTS)}
    modes = known_modes(model, columns_without_rows(model), own, memory)
    mean, p = model.regression.predictors[0].size, len(model.coefficients)
    if "freedom.slopes" in own:
        k = p - mean + len(model.covariance)
        shaped(own["freedom.slopes"].numpy(), (k, mean * mean), "freedom.slopes")
        shaped(own["freedom.C"].numpy(), (mean, mean), "freedom.C")
    smooth = {f"root.{i}": r for i, r in enumerate(model.random) if r.smooth}
    for name in own:
        if name.startswith("root."):
            R, wide = own[name].numpy(), len(model.encoder.smooths[smooth[name].source].N)
            if R.ndim != 2 or R.shape[1] != wide or len(R) > wide or R.dtype != np.float64:
                raise BadSave(f"the file holds a tensor {name!r} that does not fit its smooth term.")
    return Remembered(memory, own, modes)


def known_modes(
    model: RandomEffects, columns: Columns, own: Mapping[str, Tensor], memory: Memory
) -> Modes | None:
    """The modes in the file, of a model at θ̂ and its columns; None: it holds none.

    Raises
    ------
    BadSave
        a tensor does not fit the model
    """
    if "modes.rest" not in own:
        return None
    g, rest = columns.grouped, own["modes.rest"].numpy()
    first = own["modes.first"].numpy() if g is not None else None
    shaped(rest, (columns.penalised,), "modes.rest")
    if g is not None and first is not None:
        shaped(first, (g.width, g.levels), "modes.first")
    factor = _factor(model, columns, own) if "factor.rest" in own else None
    sigma = float(model.sigma(model.coefficients.detach()))
    return Modes(model, columns, first, rest, factor, sigma, memory.lack)


def shaped(a: Array, shape: tuple[int, ...], name: str) -> None:
    if a.shape != shape or a.dtype != np.float64:
        raise BadSave(f"the file holds a tensor {name!r} of shape {a.shape}; that of its model is {shape}.")


def _factor(model: RandomEffects, columns: Columns, tensors: Mapping[str, Tensor]) -> Factored:
    """The factor of H, made again of G and Λ."""
    own = {n.removeprefix("factor."): t.numpy() for n, t in tensors.items() if n.startswith("factor.")}
    size, g, ms = columns.starts[-1], columns.grouped, columns.sparse_size
    inside = own.get("inside")
    beside = 0 if inside is None else ms
    shaped(own["rest"], (size - beside, size - beside), "factor.rest")
    values: Array | None = None
    if g is not None:
        q = g.width
        shaped(own["G00"], (q, q, g.levels), "factor.G00")
        shaped(own["dense"], (q, size - ms, g.levels), "factor.dense")
        if "sparse" in own:
            values = own["sparse"]
            columns.__dict__["pattern"] = _pattern(own, (g.levels, ms)), []
            shaped(values, (q, len(own["columns"])), "factor.sparse")
    rest: Array | Bordered = own["rest"]
    columns.__dict__["gram"] = None
    if inside is not None:
        gram = Gram.made(
            columns.pattern[0], [(t.levels, t.width) for t in columns.sparse_terms], (free() or np.inf) / 8
        )
        columns.__dict__["gram"] = gram
        shaped(inside, (len(gram.columns),), "factor.inside")
        shaped(own["side"], (ms, size - ms), "factor.side")
        rest = Bordered(gram, inside, own["side"], own["rest"])
    cross = Cross(own.get("G00"), values, own.get("dense"), rest, columns)
    scales, _ = model.scales(model.covariance.detach())
    try:
        return Factored(cross, scales, fixed=True)
    except (NotPositiveDefinite, np.linalg.LinAlgError) as error:
        raise BadSave("the file holds cross-products that are not those of a fit.") from error


def _pattern(own: Mapping[str, Array], shape: tuple[int, int]) -> Pattern:
    """Where the eliminated factor meets the sparse columns."""
    begin, at = own["begin"], own["columns"]
    if begin.dtype != np.int64 or at.dtype != np.int64 or begin.shape != (shape[0] + 1,) or at.ndim != 1:
        raise BadSave("the file holds a sparse pattern whose numbers are of other types or sizes.")
    try:
        sparse.csr_matrix((np.ones(len(at)), at, begin), shape=shape).check_format(full_check=True)
    except ValueError as error:
        raise BadSave("the file holds a sparse pattern that fits no model.") from error
    return Pattern(shape, begin, at)
