"""A formula read against the columns that there are: its terms, its offsets, the columns that it needs.
Nothing in it is evaluated here."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.types import ASTNode, Term, Token
from formulaic.parser.types.factor import Factor

from ..errors import BadFormula
from ..types import Levels, Plain
from .expressions import UNTRUSTED, check_expression, column, columns_read, first_line, unquote, written
from .frame import Frame

CATEGORY = re.compile(r"^(?:C|factor)\(\s*([A-Za-z_]\w*)\s*\)$")
# . alone: not of 1.5, x.y, np.pi or a text
_DOT = re.compile(r"""'[^']*'|"[^"]*"|(?<![\w.)\]])(\.)(?![\w.(])""")
TERMS = 5000  # that operators may expand to
POWER = 20  # (a + b + c)**k
DEEPEST = 500  # brackets within brackets
_UNREADABLE = (FormulaicError, SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Predictors:
    """A right-hand side that has been read, before any row has been.

    Parameters
    ----------
    formula
        as the user wrote it
    terms, offsets
        formulaic's terms, and the expressions inside offset(…), quoted columns under their aliases
    coding
        whether categories are coded against a reference: also where the intercept itself is not wanted
    required
        the columns that it reads
    """

    formula: str
    terms: Levels
    offsets: tuple[str, ...]
    coding: bool
    required: tuple[str, ...]


def read(formula: str, frame: Frame, *, trusted: bool = False) -> Predictors:
    """Read a right-hand side.

    Parameters
    ----------
    formula
        "x + C(region) + offset(log(exposure))", columns of any name in backticks
    frame
        whose columns it may name
    trusted
        leave out the check that its expressions hold columns, arithmetic and known functions alone
        (`data.expressions`)

    Raises
    ------
    BadFormula, UnknownColumn
    """
    code, formula = unquote(formula), written(formula)
    every, offsets = _terms(code, formula)
    coding = any(_is_one(t) for t in every)
    terms = [t for t in every if not _is_one(t)]
    required: set[str] = set().union(*(_variables(t, formula, frame, trusted) for t in terms))
    for offset in offsets:
        required |= columns_read(offset, formula, frame.columns, trusted=trusted, functions=frame.functions)
    frame.require(sorted(required))
    if not trusted:
        check([*expressions(terms), *offsets], required, frame.functions)
    return Predictors(formula, tuple(terms), offsets, coding, tuple(sorted(required)))


def terms_of(formula: str) -> list[Term]:
    """The terms of a right-hand side, main effects first; no intercept and no offset.

    Examples
    --------
    >>> [str(term) for term in terms_of("a:b + a + offset(log(n))")]
    ['a', 'a:b']
    """
    terms, _ = _terms(unquote(formula), formula)
    return [term for term in terms if not _is_one(term)]


def with_others(formula: str, columns: Sequence[str]) -> str:
    """A right-hand side with all other columns in the place of each '.', quoted columns under their aliases.

    Raises
    ------
    BadFormula
        there are no others

    Examples
    --------
    >>> with_others(". - x", ["x", "z"]), with_others(".:z", ["x", "a b"])
    ('x + z - x', '(x + quoted_612062_):z')
    """
    if not _has_dot(formula):
        return formula
    if not columns:
        raise BadFormula(
            f"the formula {written(formula)!r} has a '.' for all other columns, and there are none."
        )
    every = " + ".join(unquote(f"`{name}`") for name in columns)

    def named(found: re.Match[str]) -> str:
        if found.group(1) is None:
            return found.group()
        before, after = formula[: found.start()].rstrip(), formula[found.end() :].lstrip()
        plain = (not before or before.endswith("+")) and (not after or after[0] in "+-")
        return every if plain else f"({every})"

    return _DOT.sub(named, formula)


def _has_dot(formula: str) -> bool:
    return any(found.group(1) for found in _DOT.finditer(formula))


def _variables(term: Term, formula: str, frame: Frame, trusted: bool) -> set[str]:
    return variables(term, formula, frame.columns, trusted=trusted, functions=frame.functions)


def check(found: Sequence[str], columns: Collection[str], functions: Collection[str] = ()) -> None:
    """Refuse expressions of a formula that is not trusted, before anything in it runs."""
    for expression in found:
        try:
            check_expression(expression, columns, functions)
        except BadFormula as error:
            raise BadFormula(f"{error} {UNTRUSTED}") from error


def expressions(terms: Sequence[Term]) -> Iterator[str]:
    """The Python expressions among the factors of terms."""
    for term in terms:
        for factor in term.factors:
            if factor.eval_method is Factor.EvalMethod.PYTHON:
                yield str(factor.expr)


def _is_one(term: Term) -> bool:
    return str(term) == "1" and all(f.eval_method is Factor.EvalMethod.LITERAL for f in term.factors)


@lru_cache(maxsize=256)
def _terms(formula: str, shown: str) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """The terms of a right-hand side, and the expressions inside offset(…)."""
    if _has_dot(formula):
        raise BadFormula(
            f"the formula {shown!r} has a '.' for all other columns, which has no place here: name the columns."
        )
    depth = 0
    for character in formula:
        depth += (character in "([{") - (character in ")]}")
        if depth > DEEPEST:
            raise BadFormula(
                f"the formula {shown[:200]!r}… has more than {DEEPEST} brackets within brackets."
            )
    try:
        tree = DefaultFormulaParser().get_ast(formula, context={})
        many = _expanded(tree)
        if many > TERMS:
            raise BadFormula(
                f"the operators of {shown!r} expand to more than {TERMS:,} terms (a power may be {POWER}). "
                "Name the interactions that are meant."
            )
        parsed = Formula(formula)
    except _UNREADABLE as error:
        if isinstance(error, BadFormula):
            raise
        raise BadFormula(f"the formula {shown!r} cannot be read: {first_line(error)}") from error
    if not isinstance(parsed, SimpleFormula):
        raise BadFormula(f"{shown!r} is not a single right-hand side: ~ and | have no place in it.")
    terms, offsets = [], []
    for term in parsed:
        expression = str(term)
        if expression.startswith("offset(") and expression.endswith(")") and len(list(term.factors)) == 1:
            offsets.append(expression[len("offset(") : -1])
        else:
            terms.append(term)
    return tuple(terms), tuple(offsets)


def _expanded(tree: Plain) -> float:
    """At most how many terms the operators * : / ** %in% expand to; a plain sum of columns counts as
    nothing."""
    sizes: dict[int, float] = {}
    stack, order = [tree], []
    while stack:
        node = stack.pop()
        order.append(node)
        if isinstance(node, ASTNode):
            stack.extend(node.args)
    worst = 0.0
    for node in reversed(order):
        if not isinstance(node, ASTNode):
            sizes[id(node)] = 1.0
            continue
        own = [sizes[id(arg)] for arg in node.args]
        symbol = str(node.operator.symbol)
        if symbol == "*":
            size = own[0] + own[1] + own[0] * own[1]
        elif symbol in (":", "%in%"):
            size = own[0] * own[1]
        elif symbol in ("**", "^"):
            power = str(node.args[1])
            k = int(power) if power.isdigit() and len(power) < 3 else 100
            size = math.inf if k > POWER else min(own[0] ** k, 2.0 ** min(own[0], 60))
        else:
            sizes[id(node)] = sum(own)
            continue
        sizes[id(node)] = size
        worst = max(worst, size)
    return worst


def split(term: Term, kinds: dict[str, bool]) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """(categorical columns, numeric columns) of a term that is a plain product of columns; (None, ()) of any
    other."""
    categorical: list[str] = []
    numeric: list[str] = []
    for factor in term.factors:
        name, explicit = column_of(factor)
        if name not in kinds:
            return None, ()
        (categorical if explicit or kinds[name] else numeric).append(name)
    return tuple(categorical), tuple(numeric)


def column_of(factor: Factor) -> tuple[str | None, bool]:
    """The column that a factor is, and whether it is written C(column); None: it is something else."""
    expression = str(factor.expr)
    explicit = CATEGORY.match(expression)
    if explicit:
        return column(explicit.group(1)), True
    return (column(expression), False) if factor.eval_method is Factor.EvalMethod.LOOKUP else (None, False)


def single_term(expression: str) -> Term:
    """The term of an expression that is one column or one function of columns, with no operator of formulas
    around it; else None."""
    try:
        tokens = list(DefaultFormulaParser(include_intercept=False).get_tokens(expression))
        single = len(tokens) == 1 and tokens[0].kind in (Token.Kind.NAME, Token.Kind.PYTHON)
        return next(iter(Formula(f"0 + {expression}"))) if single else None
    except _UNREADABLE as error:
        raise BadFormula(f"{written(expression)!r} cannot be read: {first_line(error)}") from error


def variables(
    term: Term,
    formula: str,
    columns: Collection[str],
    *,
    trusted: bool = False,
    functions: Collection[str] = (),
) -> set[str]:
    """The columns that a term reads."""
    out: set[str] = set()
    for factor in term.factors:
        expression = str(factor.expr)
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            out.add(column(expression))
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            out |= columns_read(expression, formula, columns, trusted=trusted, functions=functions)
    return out
