"""An encoder as plain values, and back: what a saved fit keeps of how columns became numbers.

Kept are levels, contrasts, spline knots, centres, scales; no row. A dense term is kept as formulaic holds it: its factors, the state
of its transforms, and which columns it makes, so that nothing is fitted again and new rows are encoded to the same bits.

A formula holds expressions, and an expression is code. `check_expression` lets through columns, numbers, arithmetic, comparisons, and calls
of the functions that formulas know (`FUNCTIONS`, formulaic's transforms and contrasts, numpy's ufuncs); everything else is refused,
when a fit is saved and again when it is loaded. A file can therefore name no other function.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from formulaic import ModelSpec, SimpleFormula
from formulaic.materializers.base import EncodedTermStructure
from formulaic.materializers.types import EvaluatedFactor, ScopedFactor, ScopedTerm
from formulaic.parser.types import Factor, Term
from formulaic.transforms import TRANSFORMS, ContrastsRegistry
from formulaic.utils.code import sanitize_variable_names
from torch import Tensor

from ..errors import BadArgument, BadFormula, BadSave
from .design import FUNCTIONS, Coded, Design
from .plain import plain, rich
from .response import Response
from .table import Encoder

_CONTRASTS = {"Treatment", "Poly", "Sum", "Helmert", "Diff"}
_CALLED = {name for name in (*FUNCTIONS, *TRANSFORMS) if name not in ("np", "contr")}
_SYNTAX = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.keyword, ast.Attribute, ast.List, ast.Tuple, ast.Dict),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop),
)


# ---- expressions ---------------------------------------------------------------------------------------------------------


def check_expression(expression: str, columns: Sequence[str]) -> None:
    """Refuse an expression of anything but columns, numbers, arithmetic, comparisons, and the functions that formulas know.

    Raises
    ------
    BadFormula : names the part that is refused

    >>> check_expression("bs(log(x), df=4, knots=None)", ["x"])
    >>> check_expression("__import__('os').system('ls')", ["x"])
    Traceback (most recent call last):
    thetahat.errors.BadFormula: "__import__('os').system('ls')" calls __import__('os').system, which is none of the functions that formulas know.
    """
    aliases: dict[str, str] = {}
    try:
        tree = ast.parse(sanitize_variable_names(expression, {}, aliases), mode="eval")
        _Reader(expression, {*columns, *aliases, *_CONTRASTS}).visit(tree)
    except (SyntaxError, RecursionError, ValueError) as error:
        if isinstance(error, BadFormula):
            raise
        raise BadFormula(f"{expression!r} cannot be read: {error}") from error


class _Reader(ast.NodeVisitor):
    """Walks an expression and refuses what it does not know."""

    def __init__(self, expression: str, names: set[str]):
        self.expression, self.names = expression, names

    def refuse(self, node: ast.AST) -> None:
        raise BadFormula(f"{self.expression!r} holds {ast.unparse(node)!r}, which a saved formula may not.")

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, _SYNTAX):
            self.refuse(node)
        super().generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if not _is_function(node.func):
            raise BadFormula(
                f"{self.expression!r} calls {ast.unparse(node.func)}, which is none of the functions that formulas know."
            )
        for part in (*node.args, *node.keywords):
            self.visit(part)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self.names:
            self.refuse(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """contr.sum, not called; a constant of numpy."""
        if ast.unparse(node) not in ("np.pi", "np.e", "np.nan", "np.inf") and not (
            _is_function(node) and ast.unparse(node).startswith("contr.")
        ):
            self.refuse(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg is None or node.arg == "out":  # a ufunc would write there
            self.refuse(node.value)
        self.visit(node.value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for part in (node.left, node.right):
            if isinstance(part, (ast.List, ast.Tuple)) or (
                isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes))
            ):
                self.refuse(node)  # 'a' * 10**9
        if isinstance(node.op, (ast.Pow, ast.LShift)) and not any(isinstance(n, ast.Name) for n in ast.walk(node)):
            small = [
                isinstance(n, ast.Constant) and isinstance(n.value, (int, float)) and abs(n.value) <= 100
                for n in (node.left, node.right)
            ]
            if not all(small):
                self.refuse(node)  # a tower of powers of whole numbers never ends
        self.generic_visit(node)


def _is_function(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _CALLED
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)) or node.attr.startswith("_"):
        return False
    if node.value.id == "np":
        return node.attr in FUNCTIONS or isinstance(getattr(np, node.attr, None), np.ufunc)
    return node.value.id == "contr" and hasattr(ContrastsRegistry, node.attr)


# ---- formulaic's specifications ----------------------------------------------------------------------------------------------


def _spec_config(spec: ModelSpec | None, columns: Sequence[str]) -> dict[str, Any] | None:
    if spec is None:
        return None
    _check_factors(spec.formula, columns)
    # of an encoder's state only what encoding reads: formulaic keeps the contrasts besides, for show
    encoders = {
        e: [kind.value, {k: v for k, v in state.items() if k != "contrasts"}] for e, (kind, state) in spec.encoder_state.items()
    }
    return {
        "terms": [[[f.expr, f.eval_method.value, f.kind.value] for f in term.factors] for term in spec.formula],
        "transforms": plain(spec.transform_state, "the state of a transform"),
        "encoders": plain(encoders, "the state of a category"),
        "full_rank": spec.ensure_full_rank,
        "structure": [
            {
                "term": [spec_term.expr for spec_term in entry.term.factors],
                "scoped": [[s.scale, [[f.factor.expr, f.reduced] for f in s.factors]] for s in entry.scoped_terms],
                "columns": list(entry.columns),
            }
            for entry in spec.structure or []
        ],
    }


def _spec(config: dict[str, Any] | None, columns: Sequence[str]) -> ModelSpec | None:
    if config is None:
        return None
    terms = [Term([Factor(e, eval_method=method, kind=kind) for e, method, kind in factors]) for factors in config["terms"]]
    formula = SimpleFormula(terms)
    _check_factors(formula, columns)
    factors = {f.expr: f for term in terms for f in term.factors}
    by_name = {tuple(f.expr for f in term.factors): term for term in terms}
    structure = [
        EncodedTermStructure(
            by_name[tuple(entry["term"])],
            [
                ScopedTerm([ScopedFactor(EvaluatedFactor(factors[e], None), reduced) for e, reduced in scoped], scale=scale)
                for scale, scoped in entry["scoped"]
            ],
            list(entry["columns"]),
        )
        for entry in config["structure"]
    ]
    return ModelSpec(
        formula=formula,
        materializer="pandas",
        materializer_params={},
        ensure_full_rank=config["full_rank"],
        na_action="ignore",
        output="numpy",
        structure=structure,
        transform_state=rich(config["transforms"]),
        encoder_state={e: (Factor.Kind(kind), state) for e, (kind, state) in rich(config["encoders"]).items()},
    )


def _check_factors(formula: Any, columns: Sequence[str]) -> None:
    for factor in {f for term in formula for f in term.factors}:
        if factor.eval_method is Factor.EvalMethod.PYTHON:
            check_expression(str(factor.expr), columns)
        elif factor.eval_method is Factor.EvalMethod.LOOKUP and factor.expr not in columns:
            raise BadFormula(f"a formula looks up {factor.expr!r}, which is none of its columns ({', '.join(columns)}).")


# ---- designs, encoders -------------------------------------------------------------------------------------------------------


def to_config(encoder: Encoder) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The encoder as (plain values, tensors).

    Raises
    ------
    BadArgument, BadFormula : a level or an expression that cannot be saved, by name
    """
    tensors = {
        f"encoder.{slot}.{j}.index": torch.from_numpy(term.index)
        for slot, d in enumerate(encoder.designs)
        for j, term in enumerate(d.coded)
    }
    response = encoder.response
    config = {
        "response": {
            "expression": response.expression,
            "required": list(response.required),
            "levels": None if response.levels is None else plain(list(response.levels), f"a level of {response.expression!r}"),
            "spec": _spec_config(response.spec, response.required),
        },
        "designs": [_design_config(design) for design in encoder.designs],
        "extras": plain(dict(encoder.extras)),
        "weights": encoder.weights,
    }
    return config, tensors


def from_config(config: dict[str, Any], tensors: Mapping[str, Tensor]) -> Encoder:
    """The encoder of these values: `from_config(*to_config(encoder))` encodes new rows to the same bits.

    Raises
    ------
    BadSave : for anything that `to_config` does not write
    """
    try:
        response = config["response"]
        levels = response["levels"]
        return Encoder(
            Response(
                response["expression"],
                tuple(response["required"]),
                levels=None if levels is None else tuple(rich(levels)),
                spec=_spec(response["spec"], response["required"]),
            ),
            tuple(_design(d, slot, tensors) for slot, d in enumerate(config["designs"])),
            rich(config["extras"]),
            config["weights"],
        )
    except BadFormula as error:
        raise BadSave(f"the file holds a formula that is not loaded: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, BadArgument) as error:
        raise BadSave(f"the file's encodings cannot be read: {error!r}.") from error


def _design_config(design: Design) -> dict[str, Any]:
    return {
        "formula": design.formula,
        "intercept": design.intercept,
        "numeric": list(design.numeric),
        "dense": _spec_config(design.dense, design.required),
        "dense_names": list(design.dense_names),
        "coded": [
            {
                "term": term.term,
                "factors": [[name, plain(list(levels), f"a level of {name!r}"), drop] for name, levels, drop in term.factors],
                "numeric": list(term.numeric),
                "names": list(term.names),
            }
            for term in design.coded
        ],
        "offset": _spec_config(design.offset, design.required),
        "required": list(design.required),
    }


def _design(config: dict[str, Any], slot: int, tensors: Mapping[str, Tensor]) -> Design:
    return Design(
        formula=config["formula"],
        intercept=config["intercept"],
        numeric=tuple(config["numeric"]),
        dense=_spec(config["dense"], config["required"]),
        dense_names=tuple(config["dense_names"]),
        coded=tuple(
            Coded(
                term["term"],
                tuple((name, tuple(rich(levels)), drop) for name, levels, drop in term["factors"]),
                tuple(term["numeric"]),
                tuple(term["names"]),
                tensors[f"encoder.{slot}.{j}.index"].numpy(),
            )
            for j, term in enumerate(config["coded"])
        ),
        offset=_spec(config["offset"], config["required"]),
        required=tuple(config["required"]),
    )
