"""Design: from a formula and columns to the numbers that a linear predictor needs, and the same again for new
rows.

    η = offset + x·β + Σ_j value_j · table_j[code_j]

x holds the dense columns (numeric columns as they are; splines, interactions, contrasts by formulaic),
`code_j` the level of a categorical term: a category of thousands of levels is one integer a row, never a
column a level. The reference level has code 0 and contributes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning
from formulaic.parser.types import Factor, Term

from ..errors import BadFormula, DataError, UnknownLevel, WrongType
from ..threads import MANY, in_threads
from ..types import Level, Levels, Plain
from .arrow import STREAM_ROWS
from .columns import category_positions, is_categorical, level_codes, numeric_column, stray_cells
from .expressions import FUNCTIONS, Columns, alias, column, columns_read, first_line, shown, width, written
from .formula import Predictors, column_of, expressions, read, split, variables
from .frame import Frame
from .ownership import keep
from .partitions import earlier, first_among
from .smooths import Curve

EMPTY: Mapping[str, Callable[..., Plain]] = {}
BYTES = 4 * 2**30  # that the dense columns of a design may take


@dataclass(frozen=True)
class Coded:
    """A categorical term: which level each row has, times the numeric columns that it interacts with.

    `levels` are those that were seen, the reference left out; `factors` are (column, all its levels, whether
    the first is the reference).
    """

    term: str
    factors: tuple[tuple[str, Levels, bool], ...]
    numeric: tuple[str, ...]
    names: tuple[str, ...]
    cells: np.ndarray = field(repr=False, compare=False)  # the product code of each name, rising
    aliased: tuple[int, ...] = ()  # those whose column is a sum of others, and was left out

    @property
    def size(self) -> int:
        return len(self.names)

    def codes(self, frame: pd.DataFrame, known: dict[str, np.ndarray]) -> np.ndarray:
        """1 + the position in `names` of each row's levels, 0 for the reference.

        Parameters
        ----------
        known
            the codes of columns that other terms have read

        Raises
        ------
        UnknownLevel
            a combination of levels that the fit has not seen, and that has no coefficient therefore
        """
        if len(self.factors) == 1:
            name, levels, _ = self.factors[0]
            positions = category_positions(frame[name], levels)
            if positions is not None:  # of each category, of which there are fewer than rows
                by_category = self._of_positions({name: positions}, frame, known)
                codes = frame[name].cat.codes.to_numpy()
                return codes if _counts_up(by_category) else by_category[codes]
        for name, levels, _ in self.factors:
            if name not in known:
                known[name] = level_codes(frame[name], levels, name)
        return self._of_positions(known, frame, known)

    def _of_positions(
        self, positions: Mapping[str, np.ndarray], frame: pd.DataFrame, known: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """`codes` of levels by their positions among all."""
        product = _product(positions, self.factors, len(next(iter(positions.values()))))
        if not self.size:
            return np.zeros(len(product), dtype=np.int64)
        if (
            len(self.factors) == 1
            and not self.aliased
            and int(self.cells[-1]) - int(self.cells[0]) + 1 == self.size
        ):  # without a gap
            out: np.ndarray = np.clip(product - (int(self.cells[0]) - 1), 0, None)
            return out
        at = np.searchsorted(self.cells, product).clip(max=self.size - 1)
        found = self.cells[at] == product
        absent = ~found & ~np.isin(product, self.aliased) if self.aliased else ~found
        if len(self.factors) > 1 and bool(absent.any()):
            self._refuse_unseen(frame, known, absent)
        return np.where(found, at + 1, 0)

    def unseen(self, frame: pd.DataFrame) -> np.ndarray:
        """The rows with a level, or a combination of them, that has no coefficient because no row of it was fitted."""
        out = np.zeros(len(frame), dtype=bool)
        codes = {}
        for name, levels, _ in self.factors:
            codes[name] = pd.Index(levels).get_indexer(pd.Index(frame[name]))
            out |= codes[name] < 0
        if len(self.factors) > 1:
            seen = np.append(self.cells, self.aliased)
            lacking = ~np.isin(_product(codes, self.factors, len(frame)), seen)
            for name, _, drop in self.factors:
                lacking &= ~(drop & (codes[name] == 0))
            out |= lacking
        return out

    def _refuse_unseen(
        self, frame: pd.DataFrame, known: Mapping[str, np.ndarray], absent: np.ndarray
    ) -> None:
        for name, _, drop in self.factors:
            if drop:  # at a reference level there is no coefficient to be missed
                absent = absent & (known[name] != 0)
        if absent.any():
            at = int(np.flatnonzero(absent)[0])
            cell = ", ".join(f"{name} = {levels[int(known[name][at])]!r}" for name, levels, _ in self.factors)
            raise UnknownLevel(
                f"row {frame.index[at]}: the rows that were fitted hold no {cell} together, and {self.term} "
                "has no coefficient for it "
                f"({int(absent.sum())} such rows). Leave those rows out, or fit without the interaction."
            )

    def value(self, frame: pd.DataFrame) -> np.ndarray | None:
        if not self.numeric:
            return None
        out = numeric_column(frame, self.numeric[0]).copy()
        for name in self.numeric[1:]:
            out *= numeric_column(frame, name)
        return out


@dataclass(frozen=True)
class Design:
    """A predictor's remembered encodings.

    Parameters
    ----------
    formula
        the right-hand side, as the user wrote it
    intercept
        whether 1 is among the columns
    numeric
        numeric columns taken as they are
    dense
        formulaic's specification of all the other dense columns (its first column is the intercept, dropped),
        or None
    coded
        the categorical terms
    offset
        formulaic's specification of the offset, or None
    """

    formula: str
    intercept: bool
    numeric: tuple[str, ...] = ()
    dense: ModelSpec | None = None
    dense_names: tuple[str, ...] = ()
    coded: tuple[Coded, ...] = ()
    offset: ModelSpec | None = None
    required: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()  # whose unpenalised columns are among the dense ones, the last of them
    # the caller's own, which the formula may call
    functions: Mapping[str, Callable[..., Plain]] = field(default_factory=dict, repr=False, compare=False)
    dense_kept: tuple[int, ...] | None = None  # which columns of `dense` count; None: all
    dropped: tuple[str, ...] = ()  # columns that were left out as sums of others
    # of each numeric and dense column and each categorical term: the place of its term in the formula
    places: tuple[int, ...] = ()

    def __deepcopy__(self, memo: dict[int, object]) -> Design:
        return self  # it does not change, and may be large

    @cached_property
    def names(self) -> list[str]:
        """One name a coefficient, in the order of β. The constant is "(Intercept)" where a column is called
        Intercept."""
        own = [
            *self.numeric,
            *self.dense_names,
            *self.curve_names,
            *(name for term in self.coded for name in term.names),
        ]
        constant = "(Intercept)" if "Intercept" in own else "Intercept"
        return [constant, *own] if self.intercept else own

    @cached_property
    def columns(self) -> int:
        """How many dense columns there are, the intercept not counted."""
        return len(self.numeric) + len(self.dense_names) + len(self.curve_names)

    @cached_property
    def curve_names(self) -> list[str]:
        return [name for curve in self.curves for name in curve.names]

    @cached_property
    def as_written(self) -> np.ndarray:
        """The positions of `names` in the order of the formula's terms: a category of thousands of levels stands last in β."""
        first = int(self.intercept)
        own = len(self.numeric) + len(self.dense_names)
        if len(self.places) != own + len(self.coded):
            return np.arange(len(self.names))
        last = max(self.places, default=0) + 1
        sizes = [term.size for term in self.coded]
        key = [
            np.full(first, -1),
            np.array(self.places[:own], dtype=np.int64),
            np.full(len(self.curve_names), last),
            np.repeat(np.array(self.places[own:], dtype=np.int64), sizes),
        ]
        return np.argsort(np.concatenate(key), kind="stable")

    @property
    def constant(self) -> bool:
        """Whether the predictor is one number for all rows."""
        return self.intercept and self.columns == 0 and not self.coded and self.offset is None

    def dense_columns(
        self, frame: pd.DataFrame, known: Mapping[Curve, tuple[np.ndarray, np.ndarray]] | None = None
    ) -> np.ndarray | None:
        """x, (columns, n): a row a column, so that a block of rows is a window of each. known: `Curve.columns`, where they
        have been computed."""
        if not self.columns:
            return None
        if self.curves:
            plain = replace(self, curves=()).dense_columns(frame)
            found = known or {}
            parts = [
                (found[curve] if curve in found else curve.columns(frame))[0].T
                for curve in self.curves
                if curve.names
            ]
            return (
                np.ascontiguousarray(np.concatenate(([] if plain is None else [plain]) + parts))
                if parts
                else plain
            )
        own = self._numeric_columns(frame)
        if self.dense is None:
            return own
        made = evaluate(self.dense, frame, self.formula, self.functions)
        made = made[:, 1:] if self.dense_has_intercept else made
        made = np.ascontiguousarray((made if self.dense_kept is None else made[:, list(self.dense_kept)]).T)
        return made if not self.numeric else np.concatenate([own, made])

    def _numeric_columns(self, frame: pd.DataFrame) -> np.ndarray:
        """(numeric, n): where they lie, if they are float64; of others each is converted where it is to be."""
        if all(frame[name].dtype == np.float64 for name in self.numeric):
            return stack([frame[name].to_numpy() for name in self.numeric])
        out = np.empty((len(self.numeric), len(frame)))

        def fill(pair: tuple[np.ndarray, str]) -> None:
            pair[0][:] = numeric_column(frame, pair[1])

        in_threads(fill, list(zip(out, self.numeric, strict=True)), out.size > MANY)
        return out

    @property
    def dense_has_intercept(self) -> bool:
        return self.dense is not None and self.dense.column_names[:1] == ("Intercept",)

    def unseen(self, frame: pd.DataFrame) -> np.ndarray:
        """The rows with a level that was not among those fitted, (n,)."""
        out = np.zeros(len(frame), dtype=bool)
        for term in self.coded:
            out |= term.unseen(frame)
        for expression, (_, state) in {} if self.dense is None else self.dense.encoder_state.items():
            levels = state.get("categories")
            for name in columns_read(expression, self.formula, frame.columns, trusted=True):
                if levels is not None and column_of(Factor(expression))[0] == name:
                    out |= pd.Index(list(levels)).get_indexer(pd.Index(frame[name])) < 0
        return out

    def offsets(self, frame: pd.DataFrame) -> np.ndarray | None:
        if self.offset is None:
            return None
        out: np.ndarray | None = evaluate(self.offset, frame, self.formula, self.functions).sum(axis=1)
        return out


def build(predictors: Predictors | str, rows: Frame, *, intercept: bool = True) -> Design:
    """What a right-hand side needs of the rows that are fitted: which levels its columns have, what its
    transforms must remember.

    Raises
    ------
    BadFormula, UnknownColumn, WrongType
    """
    if isinstance(predictors, str):
        predictors = read(predictors, rows)
    formula, terms, offsets = predictors.formula, list(predictors.terms), predictors.offsets
    required = list(predictors.required)
    first = rows.first(required) if required else pd.DataFrame(index=range(2))
    kinds = {name: is_categorical(first[name], name) for name in required}

    plain, placed, coded, rest = [], [], [], []
    for term in terms:
        categorical, numeric = split(term, kinds)
        if categorical is None:
            rest.append(term)
        elif categorical:
            coded.append((term, categorical, numeric))
        elif len(numeric) == 1:
            plain.append(numeric[0])
            placed.append(str(term))
        else:
            rest.append(term)
    levels = _levels(rows, sorted(_categories(terms, kinds)))
    _refuse_stray_cells(terms, first, levels, rows)
    sample = _sample(first, required) if coded or rest or offsets else first
    reduced = _reduced(terms, predictors.coding, sample, formula, rows.functions) if coded else {}
    # a:b without its margins is spanned by several sub-terms: formulaic writes those out, and every term that
    # shares their columns
    rest += [t for t, _, _ in coded if len(reduced[str(t)]) > 1]
    entangled = {
        name for term in rest for name in variables(term, formula, rows.columns, trusted=True) if kinds[name]
    }
    dense_terms = rest + [t for t, cats, _ in coded if entangled & set(cats) and t not in rest]
    coded = [c for c in coded if not entangled & set(c[1])]
    held = rows.size if rows.engine is None else min(rows.size, STREAM_ROWS)
    _check_bytes(formula, dense_terms, {name: len(own) for name, own in levels.items()}, held)
    dense, dense_names = (
        _dense(dense_terms, predictors.coding, rows, sample, formula, kinds) if dense_terms else (None, ())
    )
    offset = _offset(offsets, rows, sample, formula, kinds) if offsets else None
    cells = _cells(rows, [cats for _, cats, _ in coded], levels, formula)
    at = {str(term): i for i, term in enumerate(terms)}
    places = [at[name] for name in placed]
    for entry in [] if dense is None else dense.structure or []:
        places += [at[str(entry.term)]] * len(entry.columns) if str(entry.term) in at else []
    places += [at[str(term)] for term, _, _ in coded]
    return Design(
        formula=formula,
        intercept=intercept and predictors.coding,
        places=tuple(places),
        functions=rows.functions,
        numeric=tuple(plain),
        dense=dense,
        dense_names=dense_names,
        coded=tuple(_coded(t, cats, nums, levels, reduced[str(t)][0], cells) for t, cats, nums in coded),
        offset=offset,
        required=tuple(required),
    )


def from_columns(names: Sequence[str], *, intercept: bool = True, offset: str | None = None) -> Design:
    """The design of numeric columns taken as they are, and of a column that is an offset: no formula is read, so a thousand
    of them cost nothing.

    Examples
    --------
    >>> from_columns(["x", "z"]).names
    ['Intercept', 'x', 'z']
    """
    formula = " + ".join([*names[:20], *(["…"] if len(names) > 20 else [])]) or "1"
    return Design(
        formula=formula if intercept else f"{formula} - 1",
        intercept=intercept,
        numeric=tuple(names),
        required=tuple(names) if offset is None else (*names, offset),
        offset=None if offset is None else _offset_column(offset),
    )


def _offset_column(name: str) -> ModelSpec:
    spec = specification([expression_term(f"I({alias(name)})")], False)
    return fitted(spec, pd.DataFrame({name: [0.0, 1.0]}), f"offset({name})")


# ---- memory ------------------------------------------------------------------------------------------------


class _Window:
    """Memory that others own, as an array: pandas hands out read-only views, which torch will not take."""

    def __init__(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], owner: Any):
        self.__array_interface__ = {
            "version": 3,
            "typestr": "<f8",
            "data": (address, False),
            "shape": shape,
            "strides": strides,
        }
        self.owner = owner


def stack(columns: Sequence[np.ndarray]) -> np.ndarray:
    """(q, n) from q columns of n: without a copy where they already lie evenly spaced in memory, as a data
    frame's do."""
    if not columns:
        return np.empty((0, 0))
    address = [c.__array_interface__["data"][0] for c in columns]
    gaps = set(np.diff(address).tolist())
    alike = all(c.dtype == np.float64 and c.strides == columns[0].strides for c in columns)
    if alike and len(gaps) <= 1 and (not gaps or min(gaps) > 0) and columns[0].size:
        gap = gaps.pop() if gaps else 8
        shape = (len(columns), len(columns[0]))
        if gap >= 8 * shape[1] or columns[0].strides[0] >= 8 * shape[0]:
            owners = list({id(each): each for each in map(keep, columns)}.values())
            return np.asarray(_Window(address[0], shape, (gap, columns[0].strides[0]), owners))
    out = np.empty((len(columns), len(columns[0])))
    in_threads(lambda pair: np.copyto(*pair), list(zip(out, columns, strict=True)), out.size > MANY)
    return out


# ---- what formulaic makes ----------------------------------------------------------------------------------


def _sample(block: pd.DataFrame, required: Sequence[str]) -> pd.DataFrame:
    """The first rows: enough to learn structure from."""
    return block.iloc[:1000][list(required)]


def specification(terms: Sequence[Term], intercept: bool) -> ModelSpec:
    """formulaic's specification of terms, not fitted yet. It is made of the terms themselves: as text they
    would have to be read again."""
    one = [Term([Factor("1", eval_method="literal")])] if intercept else []
    return ModelSpec(
        formula=SimpleFormula([*one, *terms]),
        materializer=Columns,
        output="numpy",
        na_action="ignore",
        ensure_full_rank=True,
    )


def expression_term(expression: str) -> Term:
    """A Python expression as a term."""
    return Term([Factor(expression, eval_method="python")])


def evaluate(
    spec: ModelSpec, frame: pd.DataFrame, formula: str, functions: Mapping[str, Callable[..., Plain]] = EMPTY
) -> np.ndarray:
    """formulaic's columns for these rows, (n, q), with the remembered state."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            warnings.simplefilter(
                "error", DataMismatchWarning
            )  # an unseen category, which would come out as zeros
            made = spec.get_model_matrix(frame, context={**FUNCTIONS, **functions})
    except DataMismatchWarning as warning:
        raise _unknown_level(spec, frame, formula) from warning
    except DataError:
        raise
    except (
        Exception
    ) as error:  # the formula holds the user's own expressions: whatever they raise is about the formula
        raise _not_evaluated(spec, frame, formula, error) from error
    if np.iscomplexobj(made):
        raise BadFormula(f"{formula!r} is a complex number for some rows: a predictor is real.")
    return np.asarray(made, dtype=np.float64)


def fitted(
    spec: ModelSpec, frame: pd.DataFrame, formula: str, functions: Mapping[str, Callable[..., Plain]] = EMPTY
) -> ModelSpec:
    """The specification with what its transforms and categories must remember of these rows."""
    try:
        declared = [str(name) for name in frame if isinstance(frame[name].dtype, pd.CategoricalDtype)]
        frame = (
            frame.assign(**{name: frame[name].cat.remove_unused_categories() for name in declared})
            if declared
            else frame
        )
        with np.errstate(all="ignore"):
            return spec.get_model_matrix(frame, context={**FUNCTIONS, **functions}).model_spec
    except DataError:
        raise
    except Exception as error:  # as above: the user's own expressions
        raise _not_evaluated(spec, frame, formula, error) from error


def _not_evaluated(spec: ModelSpec, frame: pd.DataFrame, formula: str, error: Exception) -> Exception:
    """What to raise where formulaic failed: of a column, by its name; of text that is computed with, by the
    cell."""
    cause = error.__cause__
    if isinstance(cause, DataError):
        return cause
    for expression in (
        expressions(spec.formula) if isinstance(cause or error, (TypeError, ValueError)) else ()
    ):
        for name in sorted(
            columns_read(expression, formula, frame.columns, trusted=True) & set(map(str, frame.columns))
        ):
            if is_categorical(frame[name], name) and len(frame):
                odd = stray_cells(tuple(frame[name].dropna().unique()))
                row, value = next(
                    ((i, v) for i, v in frame[name].items() if v in odd),
                    (frame.index[0], frame[name].iloc[0]),
                )
                return BadFormula(
                    f"{written(expression)} in {formula!r} computes with column {name!r}, which is text: row "
                    f"{row} is {value!r}. "
                    f"Make it numbers; if it is a category, write C({name})."
                )
    return BadFormula(f"{formula!r} cannot be evaluated on the data: {written(first_line(error))}")


def _unknown_level(spec: ModelSpec, frame: pd.DataFrame, formula: str) -> UnknownLevel:
    """Which column and row has a level that the specification does not remember."""
    for expression, (_, state) in spec.encoder_state.items():
        levels = state.get("categories")
        if levels is None:
            continue
        for name in columns_read(expression, formula, frame.columns, trusted=True):
            try:
                level_codes(frame[name], levels, name)
            except UnknownLevel as error:
                return error
    return UnknownLevel(f"{formula!r} meets a level that the fit has not seen.")


def _dense(
    terms: Sequence[Term],
    intercept: bool,
    rows: Frame,
    sample: pd.DataFrame,
    formula: str,
    kinds: dict[str, bool],
) -> tuple[ModelSpec, tuple[str, ...]]:
    spec = fitted(specification(terms, intercept), sample, formula, rows.functions)
    own = sorted(set().union(*(variables(t, formula, rows.columns, trusted=True) for t in terms)))
    remembered = spec.transform_state or any(state for _, state in spec.encoder_state.values())
    if remembered or any(kinds.get(v) for v in own):
        every = rows.read(own)[own] if rows.engine is None else _distinct(rows, own, spec, formula)
        spec = fitted(specification(terms, intercept), every, formula, rows.functions)
    return spec, tuple(map(shown, spec.column_names[1:] if intercept else spec.column_names))


def _distinct(rows: Frame, own: Sequence[str], spec: ModelSpec, formula: str) -> pd.DataFrame:
    """Of rows in an engine one for each combination of their categories: all that categories remember.

    Raises
    ------
    BadFormula
        a transform that remembers more (scale, poly, bs)
    """
    if spec.transform_state:
        raise BadFormula(
            f"a transform in {formula!r} learns from all rows at once, and they stay in the {rows.name}. Give its constants "
            "as numbers: I((x - 40) / 12) for scale(x), and knots with their bounds for a spline."
        )

    def of(block: pd.DataFrame) -> pd.DataFrame:
        return _one_each(block[list(own)])

    found = rows.fold(of, lambda a, b: _one_each(pd.concat([a, b])), own)
    assert found is not None
    return found.reset_index(drop=True)


def _one_each(block: pd.DataFrame) -> pd.DataFrame:
    """A row for each combination of the columns that are not numbers; these as text, whatever their categories are."""
    words = [name for name in block if is_categorical(block[name], str(name))]
    return block.astype(dict.fromkeys(words, object)).drop_duplicates(words) if words else block.iloc[:1]


def _offset(
    offsets: Sequence[str], rows: Frame, sample: pd.DataFrame, formula: str, kinds: dict[str, bool]
) -> ModelSpec:
    for offset in offsets:
        if kinds.get(column(offset.strip())):
            raise WrongType(
                f"offset({shown(offset)}) in {formula!r}: the column is not a number, and an offset is."
            )
    terms = [expression_term(f"I({offset})") for offset in offsets]
    spec = _dense(terms, False, rows, sample, formula, kinds)[0]
    if len(spec.column_names) != len(offsets):
        raise WrongType(
            f"offset({shown(', '.join(offsets))}) in {formula!r} is not one number a row: an offset is "
            "numeric."
        )
    return spec


def _reduced(
    terms: Sequence[Term],
    intercept: bool,
    sample: pd.DataFrame,
    formula: str,
    functions: Mapping[str, Callable[..., Plain]],
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """For each term, the factors whose reference level is dropped: formulaic's rank reduction, without the
    columns themselves."""
    spec = specification(terms, intercept)
    materializer = Columns(sample, context={**FUNCTIONS, **functions})
    try:
        with np.errstate(all="ignore"):
            for factor in {f for term in spec.formula for f in term.factors}:
                materializer._evaluate_factor(factor, spec, set())
    except DataError:
        raise
    except Exception as error:
        raise _not_evaluated(spec, sample, formula, error) from error
    return {
        str(term): tuple(
            tuple(str(f.factor.expr) for f in scoped.factors if f.reduced) for scoped in scoped_terms
        )
        for term, scoped_terms in materializer._get_scoped_terms(spec.formula)
    }


# ---- levels ------------------------------------------------------------------------------------------------


def _categories(terms: Sequence[Term], kinds: Mapping[str, bool]) -> set[str]:
    """The columns that terms take as categories, by their type or as C(column)."""
    found = set()
    for factor in (f for term in terms for f in term.factors):
        name, explicit = column_of(factor)
        if name is not None and (explicit or kinds.get(name)):
            found.add(name)
    return found


def _levels(rows: Frame, names: Sequence[str]) -> dict[str, Levels]:
    """Every level of each categorical column: a pass over those columns alone. Declared categories keep their
    declared order."""
    kept = partial(_values, names, not rows.streamed(names) if names else False)
    seen, declared = (rows.fold(kept, _joined, names) if names else None) or ({n: {} for n in names}, {})
    out = {}
    for name in names:
        try:
            found = [v for v in declared[name] if v in seen[name]] if name in declared else sorted(seen[name])
        except TypeError as error:
            raise WrongType(f"column {name!r} mixes types that cannot be ordered: {error}") from error
        plain = not any(issubclass(kind, np.generic) for kind in set(map(type, found)))
        out[name] = tuple(found if plain else (v.item() if isinstance(v, np.generic) else v for v in found))
        if not found:
            raise DataError(f"column {name!r} has no values: every row is missing.")
    return out


Values = tuple[dict[str, dict[Level, None]], dict[str, list[Level]]]


def _values(names: Sequence[str], whole: bool, block: pd.DataFrame) -> Values:
    """The values of each column, and its categories where their order is declared: of rows that are read in parts, each
    part may have categories of its own."""
    seen: dict[str, dict[Level, None]] = {}
    declared: dict[str, list[Level]] = {}
    for name in names:
        column = block[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            codes, categories = column.cat.codes.to_numpy(), column.cat.categories.tolist()
            present = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(categories)))
            seen[name] = dict.fromkeys(categories[code] for code in present)
            if column.cat.ordered or whole:
                declared[name] = categories
        else:
            found = pd.unique(column.dropna())
            seen[name] = dict.fromkeys(found if found.dtype.kind in "mM" else found.tolist())
    return seen, declared


def _joined(a: Values, b: Values) -> Values:
    return {name: own | b[0][name] for name, own in a[0].items()}, a[1] | b[1]


def _refuse_stray_cells(
    terms: Sequence[Term], first: pd.DataFrame, levels: Mapping[str, Levels], rows: Frame
) -> None:
    """Refuse a column of text that is numbers but for a few cells: as a category it would have a
    coefficient a number."""
    bare = {
        name
        for term in terms
        for name, explicit in map(column_of, term.factors)
        if name is not None and not explicit
    }
    for name in sorted(bare & set(levels)):
        odd = set() if isinstance(first[name].dtype, pd.CategoricalDtype) else stray_cells(levels[name])
        if odd:
            row, value = rows.fold(partial(first_among, odd, name), earlier, [name]) or (0, None)
            raise WrongType(
                f"column {name!r} is text that is meant as numbers: {value!r} in row {row} does not read as "
                f"one ({len(odd)} of its "
                f"{len(levels[name])} different values do not). Correct those cells, or leave them empty "
                "(empty ones are dropped and counted); "
                f"if the column is a category, write C({name})."
            )


def _counts_up(codes: np.ndarray) -> bool:
    """Whether they are 0, 1, 2, …"""
    return bool((codes == np.arange(len(codes))).all())


def _product(
    codes: Mapping[str, np.ndarray], factors: Sequence[tuple[str, Levels, bool]], n: int
) -> np.ndarray:
    """The number of each row's combination of levels, (n,), as if all combinations were counted."""
    product = np.zeros(n, dtype=np.int64)
    for name, levels, _ in factors:
        product = product * len(levels) + codes[name]
    return product


def _coded(
    term: Term,
    categorical: tuple[str, ...],
    numeric: tuple[str, ...],
    levels: dict[str, Levels],
    reduced: tuple[str, ...],
    cells: Mapping[tuple[str, ...], np.ndarray],
) -> Coded:
    """The table of a categorical term: its combinations of levels that occur, less those at a reference
    level."""
    expression = {
        str(column_of(factor)[0]): str(factor.expr) for factor in term.factors
    }  # column → a or C(a), as the formula has it
    factors = tuple((name, levels[name], expression[name] in reduced) for name in categorical)
    seen = cells[categorical]
    at = dict(zip(categorical, np.unravel_index(seen, [len(own) for _, own, _ in factors]), strict=True))
    keep = np.ones(len(seen), dtype=bool)
    for name, _, drop in factors:
        keep &= ~(drop & (at[name] == 0))
    before = {name: f"{shown(expression[name])}[{'T.' if drop else ''}" for name, _, drop in factors}
    shown_levels = {name: [f"{before[name]}{level}]" for level in own] for name, own, _ in factors}
    parts = [
        [shown_levels[name][i] for i in at[name][keep].tolist()]
        if name in shown_levels
        else [name] * int(keep.sum())
        for name in expression
    ]
    names = tuple(parts[0] if len(parts) == 1 else map(":".join, zip(*parts, strict=True)))
    return Coded(shown(str(term)), factors, numeric, names, seen[keep])


def _cells(
    rows: Frame, terms: Sequence[tuple[str, ...]], levels: Mapping[str, Levels], formula: str
) -> dict[tuple[str, ...], np.ndarray]:
    """For each tuple of categorical columns the combinations of levels that occur, by number: one pass
    over the rows for all of them."""
    out = {
        names: np.arange(len(levels[names[0]])) if len(names) == 1 else np.zeros(0, dtype=np.int64)
        for names in terms
    }
    wide = [names for names in out if len(names) > 1]
    for names in wide:
        if float(np.prod([float(len(levels[n])) for n in names])) > 2.0**62:
            raise BadFormula(
                f"the interaction {':'.join(names)} of {formula!r} has more than 2**62 combinations of "
                "levels. Make it one column of text."
            )
    used = sorted({name for names in wide for name in names})
    found = rows.fold(partial(_cells_of, wide, levels), _unions, used) if wide else None
    return out | (found or {})


def _cells_of(
    wide: Sequence[tuple[str, ...]], levels: Mapping[str, Levels], block: pd.DataFrame
) -> dict[tuple[str, ...], np.ndarray]:
    codes = {name: level_codes(block[name], levels[name], name) for names in wide for name in names}
    return {
        names: np.unique(_product(codes, [(name, levels[name], False) for name in names], len(block)))
        for names in wide
    }


def _unions(
    a: dict[tuple[str, ...], np.ndarray], b: dict[tuple[str, ...], np.ndarray]
) -> dict[tuple[str, ...], np.ndarray]:
    return {names: np.union1d(own, b[names]) for names, own in a.items()}


def _check_bytes(formula: str, terms: Sequence[Term], levels: Mapping[str, int], n: int) -> None:
    """Refuse dense columns that would not fit, before they are made."""
    columns = 0.0
    for term in terms:
        own = 1.0
        for factor in term.factors:
            name, _ = column_of(factor)
            own *= levels.get(str(name), 1) if name is not None else width(str(factor.expr))
        columns += own
    if 8 * n * columns > BYTES:
        raise BadFormula(
            f"{formula!r} makes {columns:,.0f} columns of {n:,} rows, {8 * n * columns / 2**30:,.1f} GiB; "
            f"{BYTES / 2**30:.0f} GiB are accepted. "
            "An interaction with its margins, a*b, needs no columns: only a code a row. Else combine the "
            "levels into one column of text."
        )
