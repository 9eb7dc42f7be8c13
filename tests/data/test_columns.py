"""Columns of every type: numbers are float64 before a formula computes with them, or they are refused by
name."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import thetahat as th
from thetahat.errors import DataError, ThetahatError, UnknownLevel, WrongType

N = 60
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"]


def rng(seed=0):
    return np.random.default_rng(seed)


def least_squares(columns, y):
    """numpy: the coefficients of y on 1 and these columns."""
    X = np.column_stack([np.ones(len(y)), *columns])
    return np.linalg.lstsq(X, y, rcond=None)[0]


def coefficients(formula, data, **given):
    return th.fit(formula, data, **given).estimates.to_numpy()[:-1]


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize(
    ("right", "column"),
    [
        ("I(a**2)", lambda a: a**2),
        ("I(-a)", lambda a: -a),
        ("I(3*a)", lambda a: 3 * a),
        ("{a - 127}", lambda a: a - 127),
        ("I(a + a)", lambda a: a + a),
        ("log(a)", np.log),
        ("np.square(a)", np.square),
        ("a:a2", lambda a: a * (a + 1)),
        ("maximum(a, 100)", lambda a: np.maximum(a, 100)),
    ],
)
def test_arithmetic_is_of_real_numbers_whatever_the_columns_type(kind, right, column):
    """numpy.linalg.lstsq of the column computed in float64."""
    a = rng().integers(50, 120, N)
    y = rng(1).normal(size=N)
    found = coefficients(f"y ~ {right}", {"y": y, "a": a.astype(kind), "a2": (a + 1).astype(kind)})
    np.testing.assert_allclose(found, least_squares([column(a.astype(float))], y), rtol=1e-8)


@pytest.mark.parametrize("kind", INTEGERS)
def test_offsets_and_responses_are_of_real_numbers_too(kind):
    """The mean of y − log a, and of log a: closed forms."""
    a = rng().integers(50, 120, N)
    y = rng(1).normal(size=N)
    data = {"y": y, "a": a.astype(kind)}
    assert coefficients("y ~ offset(log(a))", data)[0] == pytest.approx((y - np.log(a)).mean(), abs=1e-12)
    assert coefficients("log(a) ~ 1", data)[0] == pytest.approx(np.log(a).mean(), abs=1e-12)
    assert coefficients("I(a**2) ~ 1", data)[0] == pytest.approx((a.astype(float) ** 2).mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("right", "column"),
    [
        ("I(b + c)", lambda b, c: b.astype(float) + c),
        ("{b + c + b}", lambda b, c: 2.0 * b + c),
        ("I(-b)", lambda b, c: -b.astype(float)),
        ("I(b - c)", lambda b, c: b.astype(float) - c),
        ("I((x > 0) + (z > 0))", lambda b, c: b.astype(float) + c),
        ("I((x > 0) - (z > 0))", lambda b, c: b.astype(float) - c),
        ("I(-(x > 0))", lambda b, c: -b.astype(float)),
        ("exp(x > 0)", lambda b, c: np.exp(b.astype(float))),
        ("I((x > 0) & (z > 0))", lambda b, c: (b & c).astype(float)),
        ("I((x > 0) | (z > 0))", lambda b, c: (b | c).astype(float)),
        ("I(0 < x < 1)", lambda b, c: None),
    ],
)
def test_booleans_are_counted(right, column):
    """numpy.linalg.lstsq; b is x > 0, c is z > 0."""
    x, z, y = rng(1).normal(size=(3, N))
    values = column(x > 0, z > 0)
    values = ((x > 0) & (x < 1)).astype(float) if values is None else values
    found = coefficients(f"y ~ {right}", {"y": y, "x": x, "z": z, "b": x > 0, "c": z > 0})
    np.testing.assert_allclose(found, least_squares([values], y), rtol=1e-8, atol=1e-10)


def test_prediction_streaming_and_scores_compute_alike(tmp_path):
    """The same table in float64 and in uint8; in memory and block by block."""
    a = rng().integers(50, 120, N)
    y = rng(1).normal(size=N)
    wide, narrow = (pd.DataFrame({"y": y, "a": a.astype(kind)}) for kind in ("float64", "uint8"))
    narrow.to_parquet(tmp_path / "a.parquet")
    streamed = th.data.Frame(str(tmp_path / "a.parquet"), memory=1)
    fits = [th.fit("y ~ I(a**2) + log(a)", each) for each in (wide, narrow, streamed)]
    for fit in fits[1:]:
        np.testing.assert_allclose(fit.estimates, fits[0].estimates, rtol=1e-8)
        np.testing.assert_allclose(fit.predict(narrow), fits[0].predict(wide), rtol=1e-9)
        assert fit.score(narrow).total == pytest.approx(fits[0].score(wide).total, rel=1e-12)


def test_exp10_is_ten_to_the_power():
    """formulaic's own exp10(x) is x to the power of 10."""
    x, y = rng().normal(size=(2, N))
    np.testing.assert_allclose(
        coefficients("y ~ exp10(x)", {"y": y, "x": x}), least_squares([10.0**x], y), rtol=1e-8
    )


K = rng().integers(0, 3, N)
NUMBERS = {
    "int64": pd.Series(K),
    "Int64": pd.Series(K).astype("Int64"),
    "Float32": pd.Series(K).astype("Float32"),
    "uint8[pyarrow]": pd.Series(K).astype("uint8[pyarrow]"),
    "int64[pyarrow]": pd.Series(K).astype("int64[pyarrow]"),
    "double[pyarrow]": pd.Series(K).astype("double[pyarrow]"),
    "decimal[pyarrow]": pd.Series(
        [decimal.Decimal(int(v)) for v in K], dtype=pd.ArrowDtype(pa.decimal128(10, 2))
    ),
    "decimals": pd.Series([decimal.Decimal(int(v)) for v in K]),
    "ints and floats": pd.Series([int(v) if i % 2 else float(v) for i, v in enumerate(K)], dtype=object),
    "sparse": pd.Series(pd.arrays.SparseArray(K.astype(float))),
    "sparse int": pd.Series(pd.arrays.SparseArray(K)),
    "longdouble": pd.Series(K.astype(np.longdouble)),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_numeric_type_is_the_same_number(kind):
    """numpy.linalg.lstsq of the float64 column."""
    y = rng(1).normal(size=N)
    found = coefficients("y ~ k + I(k**2)", pd.DataFrame({"y": y, "k": NUMBERS[kind]}))
    np.testing.assert_allclose(found, least_squares([K.astype(float), K.astype(float) ** 2], y), rtol=1e-8)
    codes = coefficients("y ~ C(k)", pd.DataFrame({"y": y, "k": NUMBERS[kind]}))
    np.testing.assert_allclose(codes, least_squares([K == 1, K == 2], y), rtol=1e-8)


@pytest.mark.parametrize("kind", ["bool", "boolean", "bool[pyarrow]", "object"])
def test_every_boolean_type_is_zero_and_one(kind):
    """numpy.linalg.lstsq."""
    y = rng(1).normal(size=N)
    frame = pd.DataFrame({"y": y, "b": pd.Series(K > 0).astype(kind)})
    np.testing.assert_allclose(coefficients("y ~ b", frame), least_squares([K > 0], y), rtol=1e-8)
    assert th.fit("y ~ C(b)", frame).names[1] == "C(b)[T.True]"


TEXT = pd.Series(np.array(["lo", "mid", "hi"])[K])
CATEGORIES = {
    "str": TEXT,
    "object": TEXT.astype(object),
    "string[pyarrow]": TEXT.astype("string[pyarrow]"),
    "large_string": TEXT.astype(pd.ArrowDtype(pa.large_string())),
    "dictionary": TEXT.astype(pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
    "category": TEXT.astype("category"),
    "polars": pl.DataFrame({"g": TEXT.tolist()})["g"],
    "polars categorical": pl.DataFrame({"g": TEXT.tolist()})["g"].cast(pl.Categorical),
}


@pytest.mark.parametrize("kind", CATEGORIES)
def test_every_type_of_text_is_a_category(kind):
    """numpy.linalg.lstsq against the first level in the order of the alphabet."""
    y = rng(1).normal(size=N)
    column = CATEGORIES[kind]
    frame = (
        pl.DataFrame({"y": y, "g": column})
        if kind.startswith("polars")
        else pd.DataFrame({"y": y, "g": column})
    )
    want = least_squares([TEXT == "lo", TEXT == "mid"], y)
    np.testing.assert_allclose(coefficients("y ~ g", frame), want, rtol=1e-8)
    np.testing.assert_allclose(th.fit("y ~ C(g, contr.treatment)", frame).estimates[:3], want, rtol=1e-8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.to_timedelta(K, "D"), "timedelta64"),
        (pd.period_range("2020", periods=N, freq="M"), "period"),
        ([datetime.time(12, 0)] * N, "time"),
        (K + 1j, "real and imaginary"),
        ([[1, 2]] * N, r"row 0 is \[1, 2\]"),
        ([1.0] * (N - 1) + ["a"], f"row {N - 1} is 'a'"),
        ([b"a"] * N, "bytes"),
    ],
)
def test_what_is_neither_number_nor_category_is_refused_by_name(values, message):
    data = pd.DataFrame({"y": rng().normal(size=N)})
    data["when"] = values
    with pytest.raises(WrongType, match=f"'when'.*{message}"):
        th.fit("y ~ when", data)
    fit = th.fit("y ~ when", {"y": rng(1).normal(size=N), "when": rng(2).normal(size=N)})
    with pytest.raises(WrongType, match="'when'"):
        fit.predict(data)


@pytest.mark.parametrize("kind", ["int64", "uint64", "Int64", "int64[pyarrow]", "object"])
def test_whole_numbers_that_float64_cannot_hold_are_refused_and_are_labels(kind):
    """2**53 + 1 is no float64."""
    ids = pd.Series(2**53 + K).astype(kind)
    y = rng(1).normal(size=N)
    row = int(np.flatnonzero(K == 1)[0])
    with pytest.raises(WrongType, match=rf"column 'k' is 9007199254740993 in row {row}.*C\(k\)"):
        th.fit("y ~ k", pd.DataFrame({"y": y, "k": ids}))
    fit = th.fit("y ~ C(k)", pd.DataFrame({"y": y, "k": ids}))
    assert fit.names[1:3] == ["C(k)[T.9007199254740993]", "C(k)[T.9007199254740994]"]
    np.testing.assert_allclose(fit.estimates[:3], least_squares([K == 1, K == 2], y), rtol=1e-8)


def test_whole_numbers_with_nulls_keep_their_digits():
    """pyarrow hands a column with nulls to pandas as float64, in which 2**53 + 1 is another number."""
    table = pa.table({"y": [1.0, 2.0, 4.0], "k": pa.array([2**53 + 1, None, 3], pa.int64())})
    with pytest.raises(WrongType, match="9007199254740993 in row 0"):
        th.fit("y ~ k", table)


@pytest.mark.parametrize("cell", ["-", "1,100", "5%", "", "$5", "n/a.", "3.5 kg", "?", "1,5", "N.A."])
@pytest.mark.parametrize("how", ["memory", "file"])
def test_one_stray_cell_among_numbers_is_named(cell, how, tmp_path):
    if how == "file" and cell == "":
        pytest.skip("an empty cell of a file is a missing value")
    r = rng()
    x = [f"{v:.3f}" for v in r.normal(size=300)]
    x[17] = cell
    frame = pd.DataFrame({"y": r.normal(size=300), "x": x})
    frame.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(WrongType, match=r"column 'x' .* in row 17 .*write C\(x\)") as caught:
        th.fit("y ~ x", frame if how == "memory" else str(tmp_path / "a.csv"))
    assert repr(cell) in str(caught.value)


def test_text_of_whole_numbers_and_text_with_numbers_in_it_are_categories():
    y = rng().normal(size=N)
    assert th.fit("y ~ k", {"y": y, "k": K.astype(str)}).names == ["Intercept", "k[T.1]", "k[T.2]", "scale"]
    ages = np.array(["18-25", "26-64", "65+"])[K]
    assert len(th.fit("y ~ k", {"y": y, "k": ages}).names) == 4
    stray = [str(v) if i else "-" for i, v in enumerate(K)]
    assert "C(k)[T.0]" in th.fit("y ~ C(k)", {"y": y, "k": stray}).names


@pytest.mark.parametrize("right", ["log(g)", "offset(g)", "offset(log(g))", "I(2*g)", "g2 + bs(g)"])
def test_computing_with_text_names_the_column(right):
    data = {"y": rng().normal(size=N), "g": TEXT.tolist(), "g2": K}
    with pytest.raises(ThetahatError, match=r"'g'|offset\(g\)"):
        th.fit(f"y ~ {right}", data)


def test_one_row_may_be_a_dict_of_values_or_a_series():
    """The same row as a table."""
    x, y = rng().normal(size=(2, N))
    fit = th.fit("y ~ x + g", pd.DataFrame({"y": y, "x": x, "g": TEXT}))
    want = fit.predict({"x": [1.5], "g": ["lo"]})
    assert fit.predict({"x": 1.5, "g": "lo"}) == want
    found = fit.predict(pd.Series({"x": 1.5, "g": "lo"}, name="Ann"))
    assert found.index.tolist() == ["Ann"]
    assert found["Ann"] == want[0]
    with pytest.raises(DataError, match="column 'g' of the dict is one value"):
        fit.predict({"x": [1.0, 2.0], "g": "lo"})
    with pytest.raises(DataError, match="column 'x' of the dict has the shape"):
        fit.predict({"x": np.ones((2, 2)), "g": ["lo", "hi"]})


def test_the_codes_of_categories_are_those_of_their_values():
    """However a categorical column numbers its levels; with categories that no row has; and in another order where it predicts."""
    values = rng().choice(["b", "a", "d", "c"], N)
    y = rng(1).normal(size=N) + (values == "c")
    text = th.fit("y ~ g", {"y": y, "g": values})
    new = pd.Categorical(["c", "a", "b"], ["x", "b", "c", "a"])
    for order, ordered in (("abcd", False), ("dxbca", True), ("abxcd", True)):
        column = pd.Categorical(values, list(order), ordered=ordered)
        fit = th.fit("y ~ g", pd.DataFrame({"y": y, "g": column}))
        first = next(level for level in order if level in values)
        assert fit.names == [
            "Intercept",
            *(f"g[T.{k}]" for k in order if k in values and k != first),
            "scale",
        ]
        assert fit.log_likelihood == pytest.approx(text.log_likelihood, rel=1e-12)
        for given in (new, new.astype(str)):
            want = text.predict({"g": ["c", "a", "b"]})
            found = fit.predict(pd.DataFrame({"g": given}))
            np.testing.assert_allclose(found, want, rtol=1e-10)
        with pytest.raises(UnknownLevel, match="'x'"):
            fit.predict(pd.DataFrame({"g": pd.Categorical(["x", "a"], list(order.replace("x", "")) + ["x"])}))
    missing = pd.DataFrame({"y": y, "g": pd.Categorical(np.where(values == "d", None, values), list("abcd"))})
    kept = th.fit("y ~ g", {"y": y[values != "d"], "g": values[values != "d"]})
    assert th.fit("y ~ g", missing).log_likelihood == pytest.approx(kept.log_likelihood, rel=1e-12)
