"""Expressions in formulas: which are let through, and how they are evaluated.

A formula holds expressions, and an expression is code. `check_expression` lets through columns, numbers,
arithmetic, comparisons, and calls of the functions that formulas know (`FUNCTIONS`, formulaic's transforms
and contrasts, numpy's ufuncs); everything else is refused before anything runs. `trusted=True` leaves the
check out, for formulas that the caller wrote; a saved fit is checked whatever it says.

`Columns` evaluates: numbers and booleans are float64 wherever they enter an operator or a function, so that
int8 does not wrap and (x > 0) + (z > 0) counts; the name of a function means the function, whatever the
columns are called.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import FactorValues
from formulaic.transforms import TRANSFORMS, ContrastsRegistry
from formulaic.utils.layered_mapping import LayeredMapping
from formulaic.utils.stateful_transforms import stateful_eval
from formulaic.utils.variables import Variable, get_expression_variables
from interface_meta import override
from pandas.api.extensions import ExtensionArray

from ..errors import BadArgument, BadFormula
from ..types import Named, Plain, Settings
from .columns import is_categorical, numeric_column
from .functions import cut, factor, ns

_NUMPY = (
    *("log", "log1p", "log2", "log10", "exp", "expm1", "sqrt", "sin", "cos", "tan", "abs"),
    *("where", "minimum", "maximum", "clip", "floor", "ceil", "sign"),
)
# exp10 and exp2: formulaic's exp10 is x to the power of 10
FUNCTIONS: Settings = {
    "np": np,
    "exp10": lambda x: np.power(10.0, x),
    **{name: vars(np)[name] for name in _NUMPY},
    "ns": ns,
    "cut": cut,
    "factor": factor,
}
_ARRAYS = {
    "where": 3,
    "clip": 3,
    "round": 2,
}  # of numpy, not ufuncs: and how many arguments they take before `out`
CATEGORICAL = ("C", "factor")  # functions that make a column a category
_CONTRASTS = {"Treatment", "Poly", "Sum", "Helmert", "Diff"}
_KNOWN = {*FUNCTIONS, *TRANSFORMS}
_CALLED = {name for name in (*FUNCTIONS, *TRANSFORMS) if name not in ("np", "contr")}
_CONSTANTS = ("np.pi", "np.e", "np.nan", "np.inf")
_SYNTAX = (
    *(
        ast.Expression,
        ast.Name,
        ast.Load,
        ast.Constant,
        ast.Call,
        ast.keyword,
        ast.Attribute,
        ast.List,
        ast.Tuple,
        ast.Dict,
    ),
    *(ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.USub, ast.UAdd, ast.Invert),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
LONGEST = 10_000  # characters of one expression
DEEPEST = 100  # brackets within brackets
_SIZED = {
    "bs",
    "cr",
    "cc",
    "cs",
    "poly",
    "hashed",
    "ns",
    "cut",
}  # functions that make as many columns as their arguments say
_SIZES = ("df", "degree", "levels", "breaks")  # their arguments that say how many
LARGEST = 1000  # columns of one of them

UNTRUSTED = "If you wrote the formula yourself, th.fit(…, trusted=True) runs it as Python; never do so for one from elsewhere."


# ---- quoted names ------------------------------------------------------------------------------------------

_ALIAS = re.compile(r"(?<![A-Za-z0-9_.])quoted_([0-9a-f]+)_(?![A-Za-z0-9_])")
_WORD = re.compile(r"[^\W\d]\w*")
# x^2 of R, which Python reads as another operator: before a number it is a power
_POWER = re.compile(r"\^(?=\s*[-+]?[\d.])")
_Q = re.compile(r"\bQ\(\s*(?:'([^'`]+)'|\"([^\"`]+)\")\s*\)")


def alias(name: str) -> str:
    """A name that Python can read for a column that is called anything: always the same one.

    Examples
    --------
    >>> alias("1"), column(alias("two words")), column("x")
    ('quoted_31_', 'two words', 'x')
    """
    return f"quoted_{name.encode().hex()}_"


def column(name: str) -> str:
    """The column that a name in an expression stands for."""
    found = _ALIAS.fullmatch(name)
    return name if found is None else bytes.fromhex(found.group(1)).decode(errors="replace")


def unquote(text: str) -> str:
    """A formula with its `quoted columns` and Q('quoted columns') under names that Python can read.

    Everything below reads formulas of this form: a column called "1" is not the intercept, one called "a:b"
    is not an interaction, and "a b" and "a_b" are two.

    Raises
    ------
    BadFormula
        a backtick is not closed

    Examples
    --------
    >>> unquote("`1` + log(x)")
    'quoted_31_ + log(x)'
    """
    text = _Q.sub(lambda found: f"`{found.group(1) or found.group(2)}`", text)
    out: list[str] = []
    at = 0
    while at < len(text):
        quote = text[at]
        if quote not in "`'\"":
            end = next((j for j in range(at, len(text)) if text[j] in "`'\""), len(text))
            plain = _POWER.sub("**", text[at:end]).replace("as.factor(", "factor(")
            out.append(_WORD.sub(_own_word, plain))
        else:
            end = text.find(quote, at + 1) + 1
            if quote == "`" and end < at + 3:
                raise BadFormula(
                    f"{_shown(text)} has a backtick that is not closed, or nothing between two of them."
                )
            end = end or len(text)
            name = text[at + 1 : end - 1]
            out.append(text[at:end] if quote != "`" else name if _plain(name) else alias(name))
        at = end
    return "".join(out)


def _own_word(found: re.Match[str]) -> str:
    """Python reads µ as μ, two letters that look alike: a name beyond ASCII is put under an alias."""
    return found.group() if found.group().isascii() else alias(found.group())


def _plain(name: str) -> bool:
    """Whether a quoted name can stand in a formula as it is."""
    return name.isidentifier() and not keyword.iskeyword(name) and name.isascii()


def shown(text: str) -> str:
    """A name or an expression as the user knows it: quoted columns by their names, in backticks inside
    brackets.

    Examples
    --------
    >>> shown("log(quoted_6120622e_):x"), shown("quoted_6120622e_:x")
    ('log(`a b.`):x', 'a b.:x')
    """

    def own(found: re.Match[str]) -> str:
        before = text[: found.start()]
        inside = sum(map(before.count, "([{")) > sum(map(before.count, ")]}"))
        name = column(found.group())
        return f"`{name}`" if inside and not name.isidentifier() else name

    return _ALIAS.sub(own, text)


def written(text: str) -> str:
    """A formula as it may be written: the reverse of `unquote`."""

    def own(found: re.Match[str]) -> str:
        name = column(found.group())
        return name if name.isidentifier() else f"`{name}`"

    return _ALIAS.sub(own, text)


# ---- reading -----------------------------------------------------------------------------------------------


def parse(expression: str) -> ast.Expression:
    """The syntax tree of an expression without quoted names.

    Raises
    ------
    BadFormula
        it cannot be read, or it is too long or too deep to be one
    """
    if len(expression) > LONGEST:
        raise BadFormula(
            f"{_shown(expression)} has {len(expression):,} characters; an expression may have {LONGEST:,}."
        )
    if _depth(expression) > DEEPEST:
        raise BadFormula(f"{_shown(expression)} has more than {DEEPEST} brackets within brackets.")
    try:
        return ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, RecursionError, ValueError, MemoryError) as error:
        raise BadFormula(f"{_shown(expression)} cannot be read: {first_line(error)}") from error


def _depth(expression: str) -> int:
    depth = deepest = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _shown(expression: str) -> str:
    return repr(shown(expression if len(expression) <= 200 else expression[:200] + "…"))


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def columns_read(
    expression: str,
    formula: str,
    columns: Collection[str],
    *,
    trusted: bool = False,
    functions: Collection[str] = (),
) -> set[str]:
    """The columns that an expression reads: its names, but for those of functions and modules. `functions`: the names of the
    caller's own.

    Raises
    ------
    BadFormula
        it cannot be read, or, not trusted, it calls a function that formulas do not know
    """
    tree = parse(expression)
    modules = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _is_module(n.value)}
    called = {
        id(n.func): n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    unknown = next((name for name in called.values() if name not in _KNOWN and name not in functions), None)
    if unknown is not None and not trusted:
        raise BadFormula(
            f"{formula!r} calls {column(unknown)}(…), which is not known. Known: {', '.join(sorted({*_KNOWN, *functions}))}. "
            "A function of your own: th.fit(…, functions={'f': f})."
        )
    found = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)
            and not {id(node)} & (modules | called.keys())
        ):
            name = column(node.id)
            if name in columns or not (
                node.id in _KNOWN or (trusted and (node.id in bound or hasattr(builtins, node.id)))
            ):
                found.add(name)
    return found


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("np", "contr")


# ---- checking ----------------------------------------------------------------------------------------------


def check_functions(functions: Plain) -> None:
    """Refuse functions of the caller's own that a formula could not call, or whose names mean something else.

    Raises
    ------
    BadArgument
    """
    if not isinstance(functions, Mapping):
        raise BadArgument(
            f"functions={functions!r}. Accepted: a dict of name → function, such as {{'f': f}}."
        )
    for name, function in functions.items():
        if (
            not isinstance(name, str)
            or not name.isidentifier()
            or not name.isascii()
            or keyword.iskeyword(name)
        ):
            raise BadArgument(f"functions: {name!r} is not a name that a formula can call.")
        if name in _KNOWN or name in ("offset", "s", "te", "ti", "Surv", "strata"):
            raise BadArgument(
                f"functions: {name!r} is a function that formulas know. Give yours another name."
            )
        if not callable(function):
            raise BadArgument(f"functions: {name!r} is a {type(function).__name__}, which cannot be called.")


def check_expression(expression: str, columns: Collection[str], functions: Collection[str] = ()) -> None:
    """Refuse an expression of anything but columns, numbers, arithmetic, comparisons, and the functions that
    formulas know.

    Raises
    ------
    BadFormula
        names the part that is refused

    Examples
    --------
    >>> check_expression("bs(log(x), df=4, knots=None)", ["x"])
    >>> check_expression("__import__('os').system('ls')", ["x"])
    Traceback (most recent call last):
    thetahat.errors.BadFormula: "__import__('os').system('ls')" calls __import__('os').system, which is none of the functions that formulas know.
    """
    tree = parse(unquote(expression))
    try:
        _Reader(expression, {*columns, *map(alias, columns), *_CONTRASTS}, functions).visit(tree)
    except RecursionError as error:
        raise BadFormula(f"{_shown(expression)} is too deep to be read.") from error


class _Reader(ast.NodeVisitor):
    """Walks an expression and refuses what it does not know."""

    def __init__(self, expression: str, names: set[str], functions: Collection[str] = ()):
        self.expression, self.names, self.functions = expression, names, functions

    def refuse(self, node: ast.AST) -> None:
        raise BadFormula(
            f"{_shown(self.expression)} holds {ast.unparse(node)!r}, which a formula may not: it may hold "
            "columns, numbers, arithmetic, "
            "comparisons (joined by & and |) and calls of known functions."
        )

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, (ast.BoolOp, ast.Not, ast.Is, ast.IsNot, ast.In, ast.NotIn)):
            raise BadFormula(
                f"{_shown(self.expression)}: and, or, not, is, in are not of rows. Accepted: &, |, ~ between "
                "comparisons."
            )
        if not isinstance(node, _SYNTAX):
            self.refuse(node)
        super().generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        own = isinstance(node.func, ast.Name) and node.func.id in self.functions
        if not own and not _is_function(node.func):
            raise BadFormula(
                f"{_shown(self.expression)} calls {ast.unparse(node.func)}, which is none of the functions "
                "that formulas know."
            )
        most = _most_arguments(node.func)
        if most is not None:
            if len(node.args) > most:
                self.refuse(node)  # the next argument of a ufunc is where it writes
            for part in node.keywords:
                if part.arg not in ("decimals", "min", "max", "a_min", "a_max"):
                    self.refuse(
                        part.value
                    )  # out, where, dtype: it would write, or compute in another type than float64
        if isinstance(node.func, ast.Name) and node.func.id in _SIZED:
            _check_sizes(self.expression, node)
        for each in (*node.args, *node.keywords):
            self.visit(each)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id not in self.names:
            self.refuse(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """contr.sum, not called; a constant of numpy."""
        if ast.unparse(node) not in _CONSTANTS and not (
            _is_function(node) and ast.unparse(node).startswith("contr.")
        ):
            self.refuse(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg is None or node.arg.startswith("_"):  # what formulaic itself passes: _state, _context
            self.refuse(node.value)
        self.visit(node.value)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        for part in (node.left, node.right):
            if isinstance(part, (ast.List, ast.Tuple)) or (
                isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes))
            ):
                self.refuse(node)  # 'a' * 10**9
        if isinstance(node.op, (ast.Pow, ast.LShift, ast.Mult)) and not any(
            isinstance(n, ast.Name) for n in ast.walk(node)
        ):
            for n in ast.walk(node):
                if isinstance(n, ast.BinOp) and isinstance(n.op, (ast.Pow, ast.LShift)):
                    small = [_is_small(n.left), _is_small(n.right)]
                    if not all(small):
                        self.refuse(node)  # a tower of powers of whole numbers never ends
        self.generic_visit(node)


def _check_sizes(expression: str, node: ast.Call) -> None:
    """bs(x, df=10**9) would be a billion columns."""
    for part in (*node.args[1:2], *(k.value for k in node.keywords if k.arg in _SIZES)):
        try:
            value = ast.literal_eval(part)
        except ValueError:
            value = np.inf
        if isinstance(value, (int, float)) and not abs(value) <= LARGEST:
            raise BadFormula(
                f"{_shown(expression)} gives {ast.unparse(node.func)} the argument {ast.unparse(part)}; a "
                f"number up to {LARGEST:,} is accepted."
            )


def width(expression: str) -> int:
    """About how many columns an expression makes: as many as bs(x, df=k), poly(x, k) … are told, and a few
    more."""
    found = 1
    for node in ast.walk(parse(expression)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SIZED:
            parts = [
                *node.args[1:2],
                *(k.value for k in node.keywords if k.arg in _SIZES),
            ]
            found *= max(
                [
                    4,
                    *(
                        int(p.value)
                        for p in parts
                        if isinstance(p, ast.Constant) and isinstance(p.value, (int, float))
                    ),
                ]
            )
    return found


def _is_small(node: ast.expr) -> bool:
    while isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and abs(node.value) <= 100


def _is_function(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _CALLED
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)) or node.attr.startswith(
        "_"
    ):
        return False
    if node.value.id == "np":
        return node.attr in _ARRAYS or isinstance(vars(np).get(node.attr), np.ufunc)
    return node.value.id == "contr" and hasattr(ContrastsRegistry, node.attr)


def _most_arguments(node: ast.expr) -> int | None:
    """How many arguments a function of numpy takes before the array that it would write to; None: it is
    not of numpy."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    of_numpy = isinstance(node, ast.Name) or (isinstance(node.value, ast.Name) and node.value.id == "np")  # type: ignore[attr-defined]
    if not of_numpy:
        return None
    if name in _ARRAYS:
        return _ARRAYS[name]
    function = FUNCTIONS.get(name, TRANSFORMS.get(name)) if isinstance(node, ast.Name) else vars(np).get(name)
    return function.nin if isinstance(function, np.ufunc) else None


# ---- evaluating --------------------------------------------------------------------------------------------

_FLOAT, _OPERAND, _LABELS, _FUNCTION = (
    "thetahat_float_",
    "thetahat_operand_",
    "thetahat_labels_",
    "thetahat_function_",
)


def as_float(value: Plain) -> Plain:
    """Booleans and whole numbers as float64; anything else as it is."""
    if not isinstance(value, (pd.Series, pd.Index, np.ndarray, np.generic, ExtensionArray)) or isinstance(
        value, FactorValues
    ):
        return value
    kind = value.dtype.kind
    if not isinstance(value.dtype, pd.CategoricalDtype) and (
        kind in "biu" or (kind == "f" and value.dtype != np.float64)
    ):
        return value.astype(np.float64)
    return value


def as_operand(value: Plain) -> Plain:
    """What enters arithmetic, as float64: Python would multiply text as well.

    Raises
    ------
    TypeError
        it is text
    """
    if isinstance(value, (pd.Series, np.ndarray)) and (
        not isinstance(value.dtype, np.dtype) or value.dtype.kind == "O"
    ):
        raise TypeError("arithmetic with text")
    return as_float(value)


class Columns(PandasMaterializer):  # type: ignore[misc]
    """formulaic's materialiser, of columns that are numbers in float64 or categories."""

    REGISTER_NAME = "thetahat"
    REGISTER_INPUTS = ()

    @property
    @override
    def data_context(self) -> Named:
        return self._numbers

    @override
    def _init(self) -> None:
        super()._init()
        self._numbers = _Numbers(self.data)

    @override
    def _evaluate(self, expr: str, metadata: Any, spec: Any) -> tuple[Any, set[Variable]]:
        tree = parse(expr)
        variables = set(get_expression_variables(tree, {}))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in self._numbers}
        functions = {**TRANSFORMS, **self.context}
        env: Settings = {_FLOAT: as_float, _OPERAND: as_operand}
        env |= {_FUNCTION + name: function for name, function in functions.items()}
        env |= {_LABELS + name: self._numbers.labels(name) for name in names}
        code = ast.fix_missing_locations(_Writer(names, set(functions)).visit(tree))
        layers = LayeredMapping(env, self.layered_context)
        return as_float(
            stateful_eval(ast.unparse(code), layers, {expr: metadata}, spec.transform_state, spec)
        ), variables


class _Numbers(Named):
    """The columns of a frame by their names or aliases, numbers as float64, each when it is first read."""

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame
        self._read: dict[str, pd.Series] = {}

    def __getitem__(self, key: str) -> pd.Series:
        if key not in self._read:
            name = column(key)
            if name not in self.frame.columns:
                raise KeyError(name)
            if is_categorical(self.frame[name], name):
                self._read[key] = self.labels(key)
            else:
                values = numeric_column(self.frame, name)
                self._read[key] = pd.Series(values, index=self.frame.index, name=name, copy=False)
        return self._read[key]

    def labels(self, key: str) -> pd.Series:
        """The column as it is, for C(column): 1 and True rather than 1.0."""
        own = self.frame[column(key)]
        plain = isinstance(own.dtype, (np.dtype, pd.CategoricalDtype)) or str(own.dtype) == "str"
        return own if plain else own.astype(object)  # formulaic knows no other type of text

    def __iter__(self) -> Iterator[str]:
        return iter(self.frame.columns)

    def __len__(self) -> int:
        return len(self.frame.columns)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and column(key) in self.frame.columns


class _Writer(ast.NodeTransformer):
    """Writes an expression out for evaluation: operands as float64, functions by reserved names, C(column) of
    the column's own labels."""

    def __init__(self, columns: set[str], functions: set[str]):
        self.columns, self.functions = columns, functions

    def visit_Call(self, node: ast.Call) -> ast.expr:
        category = isinstance(node.func, ast.Name) and node.func.id in CATEGORICAL
        node.args = [self.visit(a) for a in node.args]
        for part in node.keywords:
            part.value = self.visit(part.value)
        if category and node.args and isinstance(node.args[0], ast.Name) and node.args[0].id in self.columns:
            node.args[0] = ast.Name(_LABELS + node.args[0].id, ast.Load())
        if isinstance(node.func, ast.Name) and node.func.id in self.functions:
            node.func = ast.Name(_FUNCTION + node.func.id, ast.Load())
        else:
            node.func = self._root(node.func)
        if not category:
            node.args = [_floated(a) for a in node.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._root(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        return node  # of trusted formulas: inside it Python sees none of the names that are put in here

    def _root(self, node: ast.expr) -> ast.expr:
        """np.log, contr.sum: the first name is that of the module, whatever the columns are called."""
        if isinstance(node, ast.Attribute):
            if _is_module(node.value):
                node.value = ast.Name(_FUNCTION + node.value.id, ast.Load())  # type: ignore[attr-defined]
            else:
                node.value = self.visit(node.value)
            return node
        out: ast.expr = self.visit(node)
        return out

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        node.left, node.right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, _ARITHMETIC):
            node.left, node.right = _floated(node.left, _OPERAND), _floated(node.right, _OPERAND)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """0 < x < 1 is (0 < x) & (x < 1): row by row."""
        ends = [self.visit(node.left), *map(self.visit, node.comparators)]
        whole: ast.expr = ast.Compare(ends[0], node.ops[:1], ends[1:2])
        for j in range(1, len(node.ops)):
            whole = ast.BinOp(whole, ast.BitAnd(), ast.Compare(ends[j], [node.ops[j]], [ends[j + 1]]))
        return whole

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        node.operand = self.visit(node.operand)
        if isinstance(node.op, (ast.USub, ast.UAdd)):
            node.operand = _floated(node.operand, _OPERAND)
        return node


def _floated(node: ast.expr, by: str = _FLOAT) -> ast.expr:
    if isinstance(node, (ast.Constant, ast.Starred, ast.List, ast.Tuple, ast.Dict)):
        return node
    return ast.Call(ast.Name(by, ast.Load()), [node], [])
