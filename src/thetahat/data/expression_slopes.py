"""The derivative of an expression of a formula in one of its columns, by the rules of differentiation:

    (u + v)′ = u′ + v′,    (uv)′ = u′v + uv′,    (u/v)′ = (u′v − uv′)/v²,    (uᵖ)′ = p uᵖ⁻¹ u′,    f(u)′ = f′(u) u′

u and u′ are computed side by side, from the columns upwards (forward differentiation, by dual numbers).

Source: Griewank and Walther (2008), Evaluating Derivatives, 2nd ed., ch. 3.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

import numpy as np
import pandas as pd

from .columns import is_categorical, numeric_column
from .expressions import column, parse

Dual = tuple[np.ndarray, np.ndarray]

# f′(u), given u and f(u)
RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log": lambda u, f: 1 / u,
    "log1p": lambda u, f: 1 / (1 + u),
    "log2": lambda u, f: 1 / (u * np.log(2)),
    "log10": lambda u, f: 1 / (u * np.log(10)),
    "exp": lambda u, f: f,
    "expm1": lambda u, f: f + 1,
    "sqrt": lambda u, f: 0.5 / f,
    "sin": lambda u, f: np.cos(u),
    "cos": lambda u, f: -np.sin(u),
    "tan": lambda u, f: 1 + f**2,
    "square": lambda u, f: 2 * u,
}


class _Unknown(Exception):
    """No rule is known here."""


def slope(expression: str, frame: pd.DataFrame, name: str) -> np.ndarray | None:
    """∂expression/∂name of each row, (n,); None: it holds a function without a rule here.

    Parameters
    ----------
    expression
        without quoted names (`expressions.unquote`)

    Examples
    --------
    >>> slope("x**2 + log(x) * z", pd.DataFrame({"x": [1.0, 2.0], "z": [3.0, 4.0]}), "x").tolist()
    [5.0, 6.0]
    >>> slope("floor(x)", pd.DataFrame({"x": [1.0]}), "x") is None
    True
    """
    try:
        with np.errstate(all="ignore"):
            return _dual(parse(expression).body, frame, name)[1]
    except _Unknown:
        return None


def _dual(node: ast.expr, frame: pd.DataFrame, name: str) -> Dual:
    """(u, u′), each (n,)."""
    n = len(frame)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return np.full(n, float(node.value)), np.zeros(n)
    if isinstance(node, ast.Name):
        own = column(node.id)
        if own not in frame.columns or is_categorical(frame[own], own):
            raise _Unknown
        return numeric_column(frame, own), np.full(n, float(own == name))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        u, du = _dual(node.operand, frame, name)
        return (-u, -du) if isinstance(node.op, ast.USub) else (u, du)
    if isinstance(node, ast.BinOp):
        return _operation(node.op, _dual(node.left, frame, name), _dual(node.right, frame, name))
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        return _call(node.func, _dual(node.args[0], frame, name))
    raise _Unknown


def _operation(op: ast.operator, left: Dual, right: Dual) -> Dual:
    (u, du), (v, dv) = left, right
    if isinstance(op, ast.Add):
        return u + v, du + dv
    if isinstance(op, ast.Sub):
        return u - v, du - dv
    if isinstance(op, ast.Mult):
        return u * v, du * v + u * dv
    if isinstance(op, ast.Div):
        return u / v, (du * v - u * dv) / v**2
    if isinstance(op, ast.Pow):
        fixed = v * np.where(du == 0, 0.0, u ** (v - 1) * du)  # 0 · 0⁻¹ where u does not move
        return u**v, fixed + np.where(dv == 0, 0.0, u**v * np.log(u) * dv)
    raise _Unknown


def _call(function: ast.expr, inner: Dual) -> Dual:
    u, du = inner
    of_numpy = isinstance(function, ast.Attribute) and ast.unparse(function.value) == "np"
    known = function.attr if of_numpy and isinstance(function, ast.Attribute) else None
    called = function.id if isinstance(function, ast.Name) else known
    if called == "I" and not of_numpy:
        return u, du
    if called not in RULES or (called == "square" and not of_numpy):
        raise _Unknown
    f = vars(np)[called](u)
    return f, np.where(du == 0, 0.0, RULES[called](u, f) * du)
