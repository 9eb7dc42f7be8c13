"""An encoder as plain values, and back: what a saved fit keeps of how columns became numbers.

Kept are levels, contrasts, spline knots, centres, scales; no row. A dense term is kept as formulaic holds it:
its factors, the state of its transforms, and which columns it makes, so that nothing is fitted again and new
rows are encoded to the same bits.

A formula holds expressions, and an expression is code: `expressions.check_expression` is asked when a fit is
saved and again when it is loaded. A file can therefore name no function but those that formulas know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from formulaic import ModelSpec, SimpleFormula
from formulaic.materializers.base import EncodedTermStructure
from formulaic.materializers.types import EvaluatedFactor, ScopedFactor, ScopedTerm
from formulaic.parser.types import Factor, Term
from torch import Tensor

from ..data.batch import Batch
from ..data.design import Coded, Design
from ..data.expressions import Columns, check_expression, column
from ..data.response import Response
from ..data.smooths import Curve
from ..data.surv import ROLES, Surv
from ..data.table import Encoder
from ..errors import BadArgument, BadFormula, BadSave, ThetahatError
from ..types import Data, Plain, Settings
from .smooths import curve, curve_config, grouping, grouping_config, level_names, number_of
from .values import checked, plain, rich

# ---- formulaic's specifications ----------------------------------------------------------------------------


def _spec_config(spec: ModelSpec | None, columns: Sequence[str]) -> Settings | None:
    if spec is None:
        return None
    _check_factors(spec.formula, columns)
    # of an encoder's state only what encoding reads: formulaic keeps the contrasts besides, for show
    encoders = {
        e: [kind.value, {k: v for k, v in state.items() if k != "contrasts"}]
        for e, (kind, state) in spec.encoder_state.items()
    }
    return {
        "terms": [
            [[f.expr, f.eval_method.value, f.kind.value] for f in term.factors] for term in spec.formula
        ],
        "transforms": plain(spec.transform_state, "the state of a transform"),
        "encoders": plain(encoders, "the state of a category"),
        "full_rank": spec.ensure_full_rank,
        "structure": [
            {
                "term": [spec_term.expr for spec_term in entry.term.factors],
                "scoped": [
                    [s.scale, [[f.factor.expr, f.reduced] for f in s.factors]] for s in entry.scoped_terms
                ],
                "columns": list(entry.columns),
            }
            for entry in spec.structure or []
        ],
    }


def _spec(config: Settings | None, columns: Sequence[str]) -> ModelSpec | None:
    if config is None:
        return None
    terms = [
        Term([Factor(e, eval_method=method, kind=kind) for e, method, kind in factors])
        for factors in config["terms"]
    ]
    formula = SimpleFormula(terms)
    _check_factors(formula, columns)
    factors = {f.expr: f for term in terms for f in term.factors}
    by_name = {tuple(f.expr for f in term.factors): term for term in terms}
    structure = [
        EncodedTermStructure(
            by_name[tuple(entry["term"])],
            [
                ScopedTerm(
                    [ScopedFactor(EvaluatedFactor(factors[e], None), reduced) for e, reduced in scoped],
                    scale=scale,
                )
                for scale, scoped in entry["scoped"]
            ],
            list(entry["columns"]),
        )
        for entry in config["structure"]
    ]
    return ModelSpec(
        formula=formula,
        materializer=Columns.REGISTER_NAME,
        materializer_params={},
        ensure_full_rank=config["full_rank"],
        na_action="ignore",
        output="numpy",
        structure=structure,
        transform_state=rich(config["transforms"]),
        encoder_state={
            e: (Factor.Kind(kind), state) for e, (kind, state) in rich(config["encoders"]).items()
        },
    )


def _check_factors(formula: Plain, columns: Sequence[str]) -> None:
    for factor in {f for term in formula for f in term.factors}:
        if factor.eval_method is Factor.EvalMethod.PYTHON:
            check_expression(str(factor.expr), columns)
        elif factor.eval_method is Factor.EvalMethod.LOOKUP and column(str(factor.expr)) not in columns:
            raise BadFormula(
                f"a formula looks up {factor.expr!r}, which is none of its columns ({', '.join(columns)})."
            )


# ---- designs, encoders -------------------------------------------------------------------------------------


def to_config(encoder: Encoder) -> tuple[Settings, dict[str, Tensor]]:
    """The encoder as (plain values, tensors).

    Raises
    ------
    BadArgument, BadFormula
        a level or an expression that cannot be saved, by name
    """
    tensors = {
        f"encoder.{slot}.{j}.cells": torch.from_numpy(term.cells)
        for slot, d in enumerate(encoder.designs)
        for j, term in enumerate(d.coded)
    }
    config = {
        "response": _response_config(encoder.response),
        "designs": [_design_config(design, encoder.smooths) for design in encoder.designs],
        "extras": plain(dict(encoder.extras)),
        "weights": encoder.weights,
    }
    if encoder.dates:
        config["dates"] = dict(encoder.dates)
    groupings = [grouping_config(each, f"encoder.group{i}") for i, each in enumerate(encoder.groupings)]
    curves = [curve_config(each, f"encoder.smooth{i}") for i, each in enumerate(encoder.smooths)]
    for name, parts in (("groupings", groupings), ("smooths", curves)):
        if parts:
            config[name] = [each for each, _ in parts]
            tensors |= {key: t for _, own in parts for key, t in own.items()}
    return config, tensors


class Loaded(Encoder):
    """An encoder that was read from a file: where what the file remembers of a transform cannot encode a row,
    that is said of the file."""

    def encode(self, frame: Data, **settings: Plain) -> Batch:
        try:
            return super().encode(frame, **settings)
        except (ThetahatError, MemoryError):
            raise
        except Exception as error:  # of formulaic, numpy and pandas, on a state that they did not make
            raise BadSave(
                f"the rows cannot be encoded by what the saved fit remembers of its columns: {error!r}."
            ) from error


def from_config(config: Settings, tensors: Mapping[str, Tensor]) -> Encoder:
    """The encoder of these values: `from_config(*to_config(encoder))` encodes new rows to the same bits.

    Raises
    ------
    BadSave
        for anything that `to_config` does not write
    """
    try:
        groupings = [
            grouping(each, f"encoder.group{i}", tensors) for i, each in enumerate(config.get("groupings", []))
        ]
        curves = [
            curve(each, f"encoder.smooth{i}", tensors) for i, each in enumerate(config.get("smooths", []))
        ]
        whole = {
            "response": _response(config["response"]),
            "designs": tuple(_design(d, slot, tensors, curves) for slot, d in enumerate(config["designs"])),
            "extras": rich(config["extras"]),
            "weights": config["weights"],
            "groupings": tuple(groupings),
            "smooths": tuple(curves),
            "dates": _dates(config.get("dates", {})),
        }
        out: Encoder = checked(Loaded, whole)
        return out
    except BadFormula as error:
        raise BadSave(f"the file holds a formula that is not loaded: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, BadArgument) as error:
        raise BadSave(f"the file's encodings cannot be read: {error!r}.") from error


def _dates(config: Settings) -> dict[str, str]:
    """The origins of columns of dates, which must read as dates."""
    return {str(name): pd.Timestamp(origin).isoformat() for name, origin in config.items()}


def _response_config(response: Response) -> Settings:
    config = {
        "expression": response.expression,
        "required": list(response.required),
        "levels": None
        if response.levels is None
        else plain(list(response.levels), f"a level of {response.expression!r}"),
        "spec": _spec_config(response.spec, response.required),
    }
    if isinstance(response, Surv):
        parts = [_response_config(part) for part in response.parts]
        config["surv"] = {"kind": response.kind, "parts": parts, "first": response.first}
    return config


def _response(config: Settings) -> Response:
    levels = config["levels"]
    parts = {
        "expression": config["expression"],
        "required": tuple(config["required"]),
        "levels": None if levels is None else level_names(rich(levels)),
        "spec": _spec(config["spec"], config["required"]),
    }
    if "surv" not in config:
        out: Response = checked(Response, parts)
        return out
    own = config["surv"]
    times = tuple(_response(part) for part in own["parts"])
    if len(times) != len(ROLES[own["kind"]]) or own["first"] not in (0.0, 1.0):
        raise ValueError(f"{config['expression']} has {len(times)} arguments")
    out = checked(Surv, {**parts, "kind": own["kind"], "parts": times, "first": own["first"]})
    return out


def _design_config(design: Design, curves: Sequence[Curve]) -> Settings:
    own = {"curves": [curves.index(each) for each in design.curves]} if design.curves else {}
    return {
        **own,
        "formula": design.formula,
        "intercept": design.intercept,
        "numeric": list(design.numeric),
        "dense": _spec_config(design.dense, design.required),
        "dense_names": list(design.dense_names),
        "coded": [
            {
                "term": term.term,
                "factors": [
                    [name, plain(list(levels), f"a level of {name!r}"), drop]
                    for name, levels, drop in term.factors
                ],
                "numeric": list(term.numeric),
                "names": list(term.names),
                **({"aliased": list(term.aliased)} if term.aliased else {}),
            }
            for term in design.coded
        ],
        "offset": _spec_config(design.offset, design.required),
        "required": list(design.required),
        **({"places": list(design.places)} if design.places else {}),
        **({} if design.dense_kept is None else {"dense_kept": list(design.dense_kept)}),
        **({"dropped": list(design.dropped)} if design.dropped else {}),
    }


def _design(
    config: Settings, slot: int, tensors: Mapping[str, Tensor], curves: Sequence[Curve] = ()
) -> Design:
    values = {
        "formula": config["formula"],
        "intercept": config["intercept"],
        "numeric": tuple(config["numeric"]),
        "dense": _spec(config["dense"], config["required"]),
        "dense_names": tuple(config["dense_names"]),
        "coded": tuple(
            _coded(term, tensors[f"encoder.{slot}.{j}.cells"].numpy())
            for j, term in enumerate(config["coded"])
        ),
        "offset": _spec(config["offset"], config["required"]),
        "required": tuple(config["required"]),
        "places": tuple(config.get("places", [])),
        "dense_kept": tuple(config["dense_kept"]) if "dense_kept" in config else None,
        "dropped": tuple(config.get("dropped", [])),
        "curves": tuple(curves[number_of(i, len(curves))] for i in config.get("curves", [])),
    }
    missing = {*values["numeric"], *(name for own in values["curves"] for name in own.required)}
    missing -= set(values["required"])
    if missing:
        raise BadSave(
            f"the file's formula {config['formula']!r} reads {sorted(missing)}, which it does not name as "
            "required."
        )
    out: Design = checked(Design, values)
    return out


def _coded(config: Settings, cells: np.ndarray) -> Coded:
    """A categorical term, once its cells fit its levels and its names."""
    values = {
        "term": config["term"],
        "factors": tuple((name, level_names(rich(levels)), drop) for name, levels, drop in config["factors"]),
        "numeric": tuple(config["numeric"]),
        "names": tuple(config["names"]),
        "cells": cells,
        "aliased": tuple(config.get("aliased", [])),
    }
    product = math.prod(len(levels) for _, levels, _ in values["factors"])
    rising = (
        cells.ndim == 1
        and bool((np.diff(cells) > 0).all())
        and (not len(cells) or 0 <= cells[0] <= cells[-1] < product)
    )
    if cells.dtype != np.int64 or cells.shape != (len(values["names"]),) or not rising:
        raise BadSave(f"the file's cells of {config['term']!r} do not fit its levels.")
    out: Coded = checked(Coded, values)
    return out
