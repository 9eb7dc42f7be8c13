"""Design: from a formula and columns to the numbers that a linear predictor needs, and the same again for new rows.

    η = offset + x·β + Σ_j value_j · table_j[code_j]

x holds the dense columns (numeric columns as they are; splines, interactions, contrasts by formulaic), `code_j` the level of a
categorical term: a category of thousands of levels is one integer a row, never a column a level. The reference level has
code 0 and contributes nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning, FormulaicError
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.types import Token
from formulaic.transforms import TRANSFORMS
from formulaic.utils.variables import get_expression_variables

from ..errors import BadFormula, DataError, UnknownLevel, WrongType
from .frame import Frame

FUNCTIONS = {"np": np} | {
    name: getattr(np, name)
    for name in (
        "log",
        "log1p",
        "log2",
        "log10",
        "exp",
        "expm1",
        "sqrt",
        "sin",
        "cos",
        "tan",
        "abs",
        "where",
        "minimum",
        "maximum",
    )
}
QUOTED = re.compile(r"`([^`]+)`|\bQ\(\s*(?:'([^']+)'|\"([^\"]+)\")\s*\)")
CATEGORY = re.compile(r"^C\(\s*(`[^`]+`|[A-Za-z_][\w.]*)\s*\)$")


@dataclass(frozen=True)
class Coded:
    """A categorical term: which level each row has, times the numeric columns that it interacts with.

    `levels` are those that were seen, the reference left out; `factors` are (column, all its levels, whether the first is the reference).
    """

    term: str
    factors: tuple[tuple[str, tuple[Any, ...], bool], ...]
    numeric: tuple[str, ...]
    names: tuple[str, ...]
    index: np.ndarray = field(repr=False, compare=False)  # product code → 1 + position in names, 0: reference

    @property
    def size(self) -> int:
        return len(self.names)

    def codes(self, frame: pd.DataFrame) -> np.ndarray:
        product = np.zeros(len(frame), dtype=np.int64)
        for column, levels, _ in self.factors:
            product = product * len(levels) + level_codes(frame[column], levels, column)
        return self.index[product]

    def value(self, frame: pd.DataFrame) -> np.ndarray | None:
        if not self.numeric:
            return None
        out = numeric_column(frame, self.numeric[0]).copy()
        for column in self.numeric[1:]:
            out *= numeric_column(frame, column)
        return out


@dataclass(frozen=True)
class Design:
    """A predictor's remembered encodings.

    Parameters
    ----------
    formula : the right-hand side, as the user wrote it
    intercept : whether 1 is among the columns
    numeric : numeric columns taken as they are
    dense : formulaic's specification of all the other dense columns (its first column is the intercept, dropped), or None
    coded : the categorical terms
    offset : formulaic's specification of the offset, or None
    """

    formula: str
    intercept: bool
    numeric: tuple[str, ...] = ()
    dense: ModelSpec | None = None
    dense_names: tuple[str, ...] = ()
    coded: tuple[Coded, ...] = ()
    offset: ModelSpec | None = None
    required: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """One name a coefficient, in the order of β."""
        own = (["Intercept"] if self.intercept else []) + list(self.numeric) + list(self.dense_names)
        return own + [name for term in self.coded for name in term.names]

    @cached_property
    def columns(self) -> int:
        """How many dense columns there are, the intercept not counted."""
        return len(self.numeric) + len(self.dense_names)

    @property
    def constant(self) -> bool:
        """Whether the predictor is one number for all rows."""
        return self.intercept and self.columns == 0 and not self.coded and self.offset is None

    def dense_columns(self, frame: pd.DataFrame) -> np.ndarray | None:
        """x, (columns, n): a row a column, so that a block of rows is a window of each."""
        if not self.columns:
            return None
        own = stack([numeric_column(frame, name) for name in self.numeric])
        if self.dense is None:
            return own
        made = evaluate(self.dense, frame, self.formula)
        made = np.ascontiguousarray(made[:, 1:].T if self.dense_has_intercept else made.T)
        return made if not self.numeric else np.concatenate([own, made])

    @property
    def dense_has_intercept(self) -> bool:
        return self.dense is not None and "Intercept" in self.dense.column_names

    def offsets(self, frame: pd.DataFrame) -> np.ndarray | None:
        if self.offset is None:
            return None
        return evaluate(self.offset, frame, self.formula).sum(axis=1)


def build(formula: str, frame: Frame, *, intercept: bool = True) -> Design:
    """Read a right-hand side against the data: which columns it needs, which levels they have, what its transforms must remember.

    Raises
    ------
    BadFormula, UnknownColumn, WrongType
    """
    terms, offsets = _parse(formula)
    # categories are coded against a reference even where the intercept itself is not wanted
    coding = any(str(t) == "1" for t in terms)
    terms = [t for t in terms if str(t) != "1"]
    read = [variables(t, formula, frame.columns) for t in terms] + [
        _expression_variables(o, formula, frame.columns) for o in offsets
    ]
    required = sorted(set().union(*read))
    frame.require(required)
    first = next(iter(frame.blocks(required))) if required else pd.DataFrame(index=range(2))
    kinds = {name: is_categorical(first[name], name) for name in required}

    plain, coded, rest = [], [], []
    for term in terms:
        categorical, numeric = _split(term, kinds)
        if categorical is None:
            rest.append(term)
        elif categorical:
            coded.append((term, categorical, numeric))
        elif len(numeric) == 1:
            plain.append(numeric[0])
        else:
            rest.append(term)
    sample = _sample(first, required) if coded or rest or offsets else first
    reduced = _reduced(terms, coding, sample, formula) if coded else {}
    # a:b without its margins is spanned by several sub-terms: formulaic writes those out, and every term that shares their columns
    rest += [t for t, _, _ in coded if len(reduced[str(t)]) > 1]
    entangled = {name for term in rest for name in variables(term, formula, frame.columns) if kinds[name]}
    dense_terms = rest + [t for t, cats, _ in coded if entangled & set(cats) and t not in rest]
    coded = [c for c in coded if not entangled & set(c[1])]
    levels = _levels(frame, sorted({name for _, cats, _ in coded for name in cats}))
    dense, dense_names = _dense(dense_terms, coding, frame, sample, formula, kinds) if dense_terms else (None, ())
    offset = _dense_spec([f"I({o})" for o in offsets], False, frame, sample, formula, kinds) if offsets else None
    if offset is not None and len(offset.column_names) != len(offsets):
        raise WrongType(f"offset({', '.join(offsets)}) in {formula!r} is not one number a row: an offset is numeric.")
    return Design(
        formula=formula,
        intercept=intercept and coding,
        numeric=tuple(plain),
        dense=dense,
        dense_names=dense_names,
        coded=tuple(_coded(t, cats, nums, levels, reduced[str(t)][0], frame) for t, cats, nums in coded),
        offset=offset,
        required=tuple(required),
    )


def from_columns(names: Sequence[str], *, intercept: bool = True) -> Design:
    """The design of numeric columns taken as they are: no formula is read, so a thousand of them cost nothing.

    >>> from_columns(["x", "z"]).names
    ['Intercept', 'x', 'z']
    """
    shown = " + ".join([*names[:20], *(["…"] if len(names) > 20 else [])]) or "1"
    return Design(
        formula=shown if intercept else f"{shown} - 1", intercept=intercept, numeric=tuple(names), required=tuple(names)
    )


# ---- columns -------------------------------------------------------------------------------------------------------------


def is_categorical(column: pd.Series, name: str) -> bool:
    """Whether a column is a category (text, pandas category) rather than a number (0 and 1 for bool); any other is refused by name."""
    dtype = column.dtype
    if dtype == np.dtype(object):
        kinds = sorted({type(v).__name__ for v in column.dropna()})
        if kinds in (["str"], []):
            return True
        if kinds == ["bool"]:
            return False
        raise WrongType(
            f"column {name!r} is of type object and holds {', '.join(kinds[:4])}. Make it numeric, or text throughout."
        )
    if isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype):
        return True
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype):
        return False
    raise WrongType(f"column {name!r} is of type {dtype}, which is neither a number nor a category. Convert it first.")


def numeric_column(frame: pd.DataFrame, name: str) -> np.ndarray:
    """The column as float64, without a copy where it already is; missing values become NaN."""
    column = frame[name]
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan) if column.dtype != np.float64 else column.to_numpy()
    except (TypeError, ValueError) as error:
        raise WrongType(f"column {name!r} is of type {column.dtype} and cannot be read as numbers: {error}") from error


def level_codes(column: pd.Series, levels: Sequence[Any], name: str) -> np.ndarray:
    """The position of each row's level among `levels`; a level that is not among them is an error."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        own, codes = column.cat.categories, column.cat.codes.to_numpy()
        where = pd.Index(levels).get_indexer(own)
        codes = np.append(where, -1)[codes]
    else:
        codes = pd.Index(levels).get_indexer(pd.Index(column))
    unknown = codes < 0
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        value, *seen = (v.item() if isinstance(v, np.generic) else v for v in (column.iloc[row], *levels[:8]))
        shown = ", ".join(map(repr, seen)) + (" …" if len(levels) > 8 else "")
        raise UnknownLevel(f"column {name!r} has the level {value!r} (row {row}), which the fit has not seen. Seen: {shown}.")
    return codes


class _Window:
    """Memory that others own, as an array: pandas hands out read-only views, which torch will not take."""

    def __init__(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], owner: Any):
        self.__array_interface__ = {"version": 3, "typestr": "<f8", "data": (address, False), "shape": shape, "strides": strides}
        self.owner = owner


def stack(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(q, n) from q columns of n: without a copy where they already lie evenly spaced in memory, as a data frame's do."""
    if not columns:
        return np.empty((0, 0))
    address = [c.__array_interface__["data"][0] for c in columns]
    gaps = set(np.diff(address).tolist())
    alike = all(c.dtype == np.float64 and c.strides == columns[0].strides for c in columns)
    if alike and len(gaps) <= 1 and (not gaps or min(gaps) > 0) and columns[0].size:
        gap = gaps.pop() if gaps else 8
        shape = (len(columns), len(columns[0]))
        if gap >= 8 * shape[1] or columns[0].strides[0] >= 8 * shape[0]:
            return np.asarray(_Window(address[0], shape, (gap, columns[0].strides[0]), list(columns)))
    return np.stack(columns)


# ---- formulas ------------------------------------------------------------------------------------------------------------


def _parse(formula: str) -> tuple[list[Any], list[str]]:
    """The terms of a right-hand side, and the expressions inside offset(…)."""
    if re.search(r"(^|[\s+*:(-])\.($|[\s+*:)-])", formula):
        raise BadFormula(f"the formula {formula!r} has a '.' for all other columns, which is not known here: name the columns.")
    try:
        parsed = Formula(formula)
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise BadFormula(f"the formula {formula!r} cannot be read: {_first_line(error)}") from error
    if not isinstance(parsed, SimpleFormula):
        raise BadFormula(f"{formula!r} is not a single right-hand side: ~ and | have no place in it.")
    terms, offsets = [], []
    for term in parsed:
        expression = str(term)
        if expression.startswith("offset(") and expression.endswith(")") and len(list(term.factors)) == 1:
            offsets.append(expression[len("offset(") : -1])
        else:
            terms.append(term)
    return terms, offsets


def _split(term: Any, kinds: dict[str, bool]) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """(categorical columns, numeric columns) of a term that is a plain product of columns; (None, ()) of any other."""
    categorical: list[str] = []
    numeric: list[str] = []
    for factor in term.factors:
        expression = str(factor.expr)
        explicit = CATEGORY.match(expression)
        name = (explicit.group(1) if explicit else expression).strip("`")
        if name not in kinds:
            return None, ()
        (categorical if explicit or kinds[name] else numeric).append(name)
    return tuple(categorical), tuple(numeric)


def single_term(expression: str) -> Any:
    """The term of an expression that is one column or one function of columns, with no operator of formulas around it; else None."""
    try:
        tokens = list(DefaultFormulaParser(include_intercept=False).get_tokens(expression))
        single = len(tokens) == 1 and tokens[0].kind in (Token.Kind.NAME, Token.Kind.PYTHON)
        return next(iter(Formula(f"0 + {expression}"))) if single else None
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise BadFormula(f"{expression!r} cannot be read: {_first_line(error)}") from error


def variables(term: Any, formula: str, columns: Collection[str]) -> set[str]:
    """The columns that a term reads."""
    out: set[str] = set()
    for factor in term.factors:
        expression = str(factor.expr)
        if factor.eval_method.value == "lookup":
            out.add(expression)
        elif factor.eval_method.value == "python":
            out |= _expression_variables(expression, formula, columns)
    return out


def _expression_variables(expression: str, formula: str, columns: Collection[str]) -> set[str]:
    """The columns that a Python expression reads: its names, less functions and formulaic's own transforms."""
    try:
        read = get_expression_variables(QUOTED.sub("np.quoted", expression), {})
    except (SyntaxError, ValueError) as error:
        raise BadFormula(f"{expression!r} in {formula!r} cannot be read: {_first_line(error)}") from error
    found = {next(filter(None, names)) for names in QUOTED.findall(expression)}
    functions = {*FUNCTIONS, *TRANSFORMS}
    roles: dict[str, set[str]] = {}
    for variable in read:
        roles.setdefault(str(variable), set()).update(role.value for role in variable.roles)
    for name, role in roles.items():
        first = name.split(".")[0]
        if role == {"callable"} and name == first and name not in functions:
            raise BadFormula(f"{formula!r} calls {name}(…), which is not known. Known: {', '.join(sorted(functions))}.")
        if ("value" in role or name != first) and (first in columns or first not in functions):
            found.add(first)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _sample(block: pd.DataFrame, required: Sequence[str]) -> pd.DataFrame:
    """The first complete rows: enough to learn structure from."""
    head = block.iloc[:1000][list(required)]
    complete = head.dropna()
    return complete if len(complete) else head


def evaluate(spec: ModelSpec, frame: pd.DataFrame, formula: str) -> np.ndarray:
    """formulaic's columns for these rows, (n, q), with the remembered state."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", DataMismatchWarning)  # an unseen category, which would come out as zeros
            made = spec.get_model_matrix(frame, context=FUNCTIONS)
    except DataMismatchWarning as warning:
        raise _unknown_level(spec, frame, formula) from warning
    except Exception as error:  # the formula holds the user's own expressions: whatever they raise is about the formula
        raise BadFormula(f"{formula!r} cannot be evaluated on the data: {_first_line(error)}") from error
    return np.asarray(made, dtype=np.float64)


def _unknown_level(spec: ModelSpec, frame: pd.DataFrame, formula: str) -> UnknownLevel:
    """Which column and row has a level that the specification does not remember."""
    for expression, (_, state) in spec.encoder_state.items():
        levels = state.get("categories")
        if levels is None:
            continue
        for name in _expression_variables(expression, formula, frame.columns):
            try:
                level_codes(frame[name], levels, name)
            except UnknownLevel as error:
                return error
    return UnknownLevel(f"{formula!r} meets a level that the fit has not seen.")


def _dense_spec(
    terms: Sequence[Any], intercept: bool, frame: Frame, sample: pd.DataFrame, formula: str, kinds: dict[str, bool]
) -> ModelSpec:
    text = " + ".join(["1" if intercept else "0", *(_text(t) for t in terms)])
    spec = ModelSpec(formula=Formula(text), output="numpy", na_action="ignore", ensure_full_rank=True)
    spec = _fitted_spec(spec, sample, formula)
    own = sorted(set().union(*(variables(t, formula, frame.columns) for t in spec.formula)))
    if spec.transform_state or any(kinds.get(v) for v in own):
        whole = frame.read(own)[own].dropna()
        fresh = ModelSpec(formula=Formula(text), output="numpy", na_action="ignore", ensure_full_rank=True)
        spec = _fitted_spec(fresh, whole, formula)
    return spec


def _fitted_spec(spec: ModelSpec, frame: pd.DataFrame, formula: str) -> ModelSpec:
    try:
        declared = [str(name) for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)]
        frame = frame.assign(**{name: frame[name].cat.remove_unused_categories() for name in declared}) if declared else frame
        with np.errstate(all="ignore"):
            return spec.get_model_matrix(frame, context=FUNCTIONS).model_spec
    except Exception as error:  # as above: the user's own expressions
        raise BadFormula(f"{formula!r} cannot be evaluated on the data: {_first_line(error)}") from error


def _dense(
    terms: Sequence[Any], intercept: bool, frame: Frame, sample: pd.DataFrame, formula: str, kinds: dict[str, bool]
) -> tuple[ModelSpec, tuple[str, ...]]:
    spec = _dense_spec(terms, intercept, frame, sample, formula, kinds)
    return spec, tuple(name for name in spec.column_names if name != "Intercept")


def _text(term: Any) -> str:
    """A term as a formula writes it, so that it is read back as the same term: {x + z} is one factor."""
    if isinstance(term, str):
        return term
    written = {"lookup": "`{}`", "python": "{{{}}}", "literal": "{}"}
    return ":".join(written[factor.eval_method.value].format(factor.expr) for factor in term.factors)


def _reduced(terms: Sequence[Any], intercept: bool, sample: pd.DataFrame, formula: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """For each term, the factors whose reference level is dropped: formulaic's rank reduction, learnt on a few rows."""
    spec = ModelSpec(
        formula=Formula(" + ".join(["1" if intercept else "0", *map(_text, terms)])), output="numpy", na_action="ignore"
    )
    structure = _fitted_spec(spec, sample, formula).structure or []
    found = {}
    for entry in structure:
        found[str(entry.term)] = tuple(
            tuple(str(f.factor.expr) for f in scoped.factors if f.reduced) for scoped in entry.scoped_terms
        )
    return found


def _levels(frame: Frame, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Every level of each categorical column: a pass over those columns alone. Declared categories keep their declared order."""
    seen: dict[str, dict[Any, None]] = {name: {} for name in names}
    declared: dict[str, list[Any]] = {}
    for block in frame.blocks(list(names)) if names else ():
        for name in names:
            column = block[name]
            if isinstance(column.dtype, pd.CategoricalDtype):
                present = np.unique(column.cat.codes.to_numpy())
                seen[name].update(dict.fromkeys(column.cat.categories[present[present >= 0]]))
                if column.cat.ordered or not frame.streamed(names):
                    declared[name] = list(column.cat.categories)
            else:
                seen[name].update(dict.fromkeys(pd.unique(column.dropna())))
    out = {}
    for name in names:
        try:
            found = [v for v in declared[name] if v in seen[name]] if name in declared else sorted(seen[name])
        except TypeError as error:
            raise WrongType(f"column {name!r} mixes types that cannot be ordered: {error}") from error
        out[name] = tuple(v.item() if isinstance(v, np.generic) else v for v in found)
        if not found:
            raise DataError(f"column {name!r} has no values: every row is missing.")
    return out


def _coded(
    term: Any,
    categorical: tuple[str, ...],
    numeric: tuple[str, ...],
    levels: dict[str, tuple[Any, ...]],
    reduced: tuple[str, ...],
    frame: Frame,
) -> Coded:
    """The table of a categorical term: its combinations of levels that occur, less those at a reference level."""
    expression = {}  # column → the factor as the formula writes it: a or C(a)
    for factor in term.factors:
        explicit = CATEGORY.match(str(factor.expr))
        expression[(explicit.group(1) if explicit else str(factor.expr)).strip("`")] = str(factor.expr)
    factors = tuple((name, levels[name], expression[name] in reduced) for name in categorical)
    shape = [len(own) for _, own, _ in factors]
    seen = np.full(int(np.prod(shape)), len(factors) == 1)
    for block in frame.blocks(list(categorical)) if len(factors) > 1 else ():
        block = block[list(categorical)].dropna()
        product = np.zeros(len(block), dtype=np.int64)
        for name, own, _ in factors:
            product = product * len(own) + level_codes(block[name], own, name)
        seen[np.unique(product)] = True
    index = np.zeros(len(seen), dtype=np.int64)
    names: list[str] = []
    for cell in np.flatnonzero(seen):
        at = dict(zip(categorical, np.unravel_index(cell, shape), strict=True))
        if any(drop and at[name] == 0 for name, _, drop in factors):
            continue
        index[cell] = 1 + len(names)
        shown = {name: f"{expression[name]}[{'T.' if drop else ''}{own[at[name]]}]" for name, own, drop in factors}
        names.append(":".join(shown.get(name, name) for name in expression))
    return Coded(str(term), factors, numeric, tuple(names), index)
