"""Formulas, rows and columns as people have them: what a formula may hold, held against R's figures on the same table.

x <- c(0.3,1.1,0.7,2.5,3.9,3.1,1.9,2.2,0.1,3.5,2.9,1.4);  z <- c(1,0,2,1,3,0,2,2,1,0,1,3);  g <- rep(c("a","b","c"), 4)
k <- c(1,2,3,1,2,3,1,2,3,1,2,2);  y <- c(2.1,0.4,3.3,5.0,7.2,4.1,3.9,6.6,1.2,5.8,4.4,5.1)
unname(coef(lm(formula, data.frame(y, x, z, g))))          # R 4, library(splines)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import (
    BadArgument,
    BadFormula,
    DataError,
    EmptyData,
    FlatDirection,
    OutOfSupport,
    UnknownLevel,
    WrongType,
)

DATA = {
    "y": [2.1, 0.4, 3.3, 5.0, 7.2, 4.1, 3.9, 6.6, 1.2, 5.8, 4.4, 5.1],
    "x": [0.3, 1.1, 0.7, 2.5, 3.9, 3.1, 1.9, 2.2, 0.1, 3.5, 2.9, 1.4],
    "z": [1, 0, 2, 1, 3, 0, 2, 2, 1, 0, 1, 3],
    "g": list("abc") * 4,
}
K = [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 2]
FRAME = pd.DataFrame(DATA)
SQUARE = [0.2446449657916, 1.6650751718339, 1.5972301755292, -0.8152096392534, -1.3964627202411, -0.6395631779274] + [
    -0.6743540610342, 0.0297778566748, 2.2407158003695, 0.5644465046188,
]  # fmt: skip

FORMULAS = {
    "y ~ .": [0.486390220244, 1.325744608011, 0.995833333333, -0.677645355472, -0.311751825859],
    "y ~ . - x": [3.2041666666667, 0.9958333333333, -0.0479166666667, -1.2729166666667],
    "y ~ x + z + g - x": [3.2041666666667, 0.9958333333333, -0.0479166666667, -1.2729166666667],
    "y ~ .^2": SQUARE,
    "y ~ (x + z + g)**2": SQUARE,
    "y ~ x + factor(k)": [1.732383087764, 1.203715566944, 0.239071108264, -0.430546658125],
    "y ~ x + as.factor(k)": [1.732383087764, 1.203715566944, 0.239071108264, -0.430546658125],
    "y ~ x + C(k)": [1.732383087764, 1.203715566944, 0.239071108264, -0.430546658125],
    "y ~ cut(x, [0, 1, 2, 4])": [2.2, 0.933333333333, 3.316666666667],
    "y ~ cut(x, 3)": [1.75, 3.4, 3.625],
    "y ~ ns(x, df=3)": [1.29491961762, 2.6473782952, 6.86525304028, 3.64722741133],
    "y ~ ns(x, 4)": [1.82307203172, 5.21153993769, 1.39505335253, 3.67744734735, 5.62740229082],
    "y ~ ns(x, knots=[1, 2])": [1.50154499978, 2.98764691326, 5.40098965305, 3.98850982043],
    "y ~ bs(x, df=4)": [1.787259873501, -1.180970382788, 6.748603315593, 0.934676748843, 5.536825723392],
    "y ~ poly(x, 2)": [4.091666666667, 5.340198348129, -0.471951629989],
    "y ~ scale(x)": [4.09166666667, 1.61013038426],
    "y ~ I(x^2)": [2.503330315945, 0.298092527505],
    "y ~ I(x**2)": [2.503330315945, 0.298092527505],
    "y ~ x:z": [2.990904241311, 0.422017543267],
    "y ~ x*z": [-0.835287038563, 1.745372323660, 1.80763911259, -0.351104414603],
    "y ~ g - 1": [4.2, 4.65, 3.425],
    "y ~ 0 + g": [4.2, 4.65, 3.425],
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_coefficients_are_r_s(formula: str) -> None:
    data = DATA | {"k": K} if "(k)" in formula else DATA
    found = th.fit(formula, data).estimates.drop("scale").to_numpy()
    np.testing.assert_allclose(np.sort(found), np.sort(FORMULAS[formula]), rtol=1e-8, atol=1e-9)


def test_center_is_the_column_less_its_mean() -> None:
    fit = th.fit("y ~ center(x)", DATA)
    assert fit.estimates["Intercept"] == pytest.approx(np.mean(DATA["y"]), rel=1e-12)
    assert fit.estimates["center(x)"] == pytest.approx(th.fit("y ~ x", DATA).estimates["x"], rel=1e-12)


def test_columns_of_ns_and_poly_are_r_s() -> None:
    """R 4: ns(x, df = 3)[1:3, ], poly(x, 2)[1:3, ]; predict(lm(y ~ ns(x, df = 3)), data.frame(x = c(-1, 0.5, 5)))."""
    fit = th.fit("y ~ ns(x, df=3)", DATA)
    columns = next(fit.source.batches())["x0"][:3].numpy()
    said = [
        [-0.0391430532924, 0.121603331365, -0.0817677572974],
        [-0.0764526474185, 0.497633114397, -0.3346153700256],
        [-0.0935766360684, 0.342733285610, -0.2304585886000],
    ]
    np.testing.assert_allclose(columns, said, rtol=1e-10)
    beyond = fit.predict({"x": [-1, 0.5, 5]})
    np.testing.assert_allclose(beyond, [-1.09435535605, 2.15232234730, 7.99336377914], rtol=1e-10)
    poly = next(th.fit("y ~ poly(x, 2)", DATA).source.batches())["x0"].numpy()
    np.testing.assert_allclose(poly.T @ poly, np.eye(2), atol=1e-14)
    np.testing.assert_allclose(poly[0], [-0.398106332796, 0.2827520047006], rtol=1e-10)


def test_a_natural_spline_is_straight_beyond_its_knots_and_is_saved(tmp_path: Path) -> None:
    """Second differences of a line are 0."""
    fit = th.fit("y ~ ns(x, df=4) + cut(z, [-1, 0, 3])", DATA)
    new = {"x": [4.0, 5.0, 6.0, 0.0, -1.0, -2.0], "z": [1] * 6}
    found = fit.predict(new)
    np.testing.assert_allclose(
        [found[0] - 2 * found[1] + found[2], found[3] - 2 * found[4] + found[5]], 0, atol=1e-10
    )
    again = th.load(fit.save(tmp_path / "fit.theta"))
    np.testing.assert_array_equal(again.predict(new), found)


def test_cut_names_its_intervals_as_r_does() -> None:
    """R 4: levels(cut(x, 3)), levels(cut(x, c(0, 1, 2, 4)))."""
    names = th.fit("y ~ 0 + cut(x, 3)", DATA).names[:3]
    assert [n.partition("[")[2][:-1].removeprefix("T.") for n in names] == [
        "(0.0962,1.37]",
        "(1.37,2.63]",
        "(2.63,3.9]",
    ]
    assert th.fit("y ~ cut(x, [0, 1, 2, 4])", DATA).names[1] == "cut(x, [0, 1, 2, 4])[T.(1,2]]"
    left = th.fit("y ~ cut(z, [0, 1, 3], right=False, include_lowest=True)", DATA)
    assert left.names[1].endswith("[T.[1,3]]")


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("y ~ cut(x, [1, 2])", OutOfSupport, "cut: 0.3 is in none of the intervals of 1, 2"),
        ("y ~ cut(x, [2, 1])", BadArgument, "rising"),
        ("y ~ cut(x, 1)", BadArgument, "at least 2"),
        ("y ~ cut(x, 100000)", BadFormula, "a number up to 1,000"),
        ("y ~ ns(x, df=100000)", BadFormula, "a number up to 1,000"),
        ("y ~ ns(x, df=2.5)", BadArgument, "whole number"),
        ("y ~ ns(x, df=3, knots=[1])", BadArgument, "both given"),
        ("y ~ ns(x, knots=[9])", BadArgument, "outside its bounds"),
    ],
)
def test_what_ns_and_cut_cannot_do_is_said(formula: str, error, message: str) -> None:
    with pytest.raises((error, BadFormula)) as found:
        th.fit(formula, DATA)
    assert message in str(found.value)


def test_a_new_value_outside_the_breaks_is_refused() -> None:
    fit = th.fit("y ~ cut(x, [0, 1, 2, 4, 9])", DATA)
    with pytest.raises((OutOfSupport, BadFormula), match="none of the intervals"):
        fit.predict({"x": [10.0]})
    with pytest.raises((UnknownLevel, BadFormula), match="seen no row"):
        fit.predict({"x": [5.0]})


# ---- all other columns -----------------------------------------------------------------------------------------


def test_a_dot_leaves_out_what_stands_elsewhere() -> None:
    """The response, weights, extras, groups and smooth terms' variables; and a '.' in a text is a text."""
    data = DATA | {"w": [1.0, 2.0] * 6, "a b": K}
    assert th.fit("y ~ .", data, weights="w").names == [
        "Intercept",
        "x",
        "z",
        "a b",
        "g[T.b]",
        "g[T.c]",
        "scale",
    ]
    assert th.fit("log(y) ~ . + (1 | g)", data, weights="w").names[:4] == ["Intercept", "x", "z", "a b"]
    assert th.fit("y ~ x", data, scale="~ . - w - g - z - `a b`").names[2:] == [
        "scale: Intercept",
        "scale: x",
    ]
    shares = {"k": [1, 2, 0, 3], "n": [4, 4, 3, 5], "x": [0.0, 1.0, 2.0, 4.0]}
    assert th.fit("k ~ .", shares, "binomial", trials="n").names == ["Intercept", "x"]
    assert th.fit("y ~ C(g, levels=['a', 'b', 'c'])", data).names[1] == "C(g, levels=['a', 'b', 'c'])[T.b]"
    with pytest.raises(BadFormula, match="there are none"):
        th.fit("y ~ .", {"y": [1.0, 2.0, 3.0]})


# ---- rows ------------------------------------------------------------------------------------------------------

ROWS = FRAME.assign(w=[1.0, 2.0] * 6, e=np.linspace(1, 3, 12))


@pytest.mark.parametrize("subset", ["z < 3", "(z < 3) & (x >= 0)", FRAME["z"] < 3, (FRAME["z"] < 3).tolist()])
def test_a_subset_is_the_fit_of_those_rows(subset) -> None:
    fit, alone = th.fit("y ~ .", FRAME, subset=subset), th.fit("y ~ .", FRAME[FRAME["z"] < 3])
    np.testing.assert_allclose(fit.estimates, alone.estimates, rtol=1e-12)
    assert fit.predict().isna().tolist() == (FRAME["z"] == 3).tolist()
    assert "10 rows used, no rows dropped, 2 rows outside the subset" in str(fit.summary())


def test_a_subset_has_the_levels_of_its_rows_and_text_is_compared() -> None:
    assert th.fit("y ~ g", FRAME, subset="g != 'c'").names == ["Intercept", "g[T.b]", "scale"]
    lost = FRAME.assign(x=[np.nan, *DATA["x"][1:]])
    fit = th.fit("y ~ x", lost, subset="z > 0")
    assert "8 rows used, 1 row dropped" in str(fit.summary())
    assert "8 rows used, no rows dropped, 4 rows outside" in str(
        th.fit("y ~ x", lost, subset="(x > 0) & (z > 0)").summary()
    )


@pytest.mark.parametrize(
    ("subset", "error", "message"),
    [
        ("z", BadArgument, "is 2"),
        ("z > 10", EmptyData, "leaves no row"),
        ("zz > 1", DataError, "'zz'"),
        ("__import__('os')", BadFormula, "not known"),
        ([1, 0] * 6, BadArgument, "one boolean a row, 12"),
        ([True], BadArgument, "shape (1,)"),
        (pd.Series([True] * 12, index=range(1, 13)), DataError, "index"),
    ],
)
def test_a_subset_that_is_none_is_refused(subset, error, message: str) -> None:
    with pytest.raises(error) as found:
        th.fit("y ~ x", FRAME, subset=subset)
    assert message in str(found.value)


def test_weights_and_offset_are_columns_or_arrays() -> None:
    named = th.fit("z ~ x", ROWS, "poisson", weights="w", offset="log(e)")
    given = th.fit("z ~ x", ROWS, "poisson", weights=ROWS["w"], offset=np.log(ROWS["e"]))
    written = th.fit("z ~ x + offset(log(e))", ROWS, "poisson", weights="w")
    for fit in (given, named):
        np.testing.assert_allclose(fit.estimates, written.estimates, rtol=1e-12)
        np.testing.assert_allclose(fit.predict(), written.predict(), rtol=1e-12)
    assert given.score().mean == pytest.approx(written.score(ROWS).mean)
    with pytest.raises(DataError, match=r"\(offset\)"):
        given.predict(ROWS)  # without its offset a new row has no mean


@pytest.mark.parametrize("argument", ["weights", "offset"])
def test_an_array_that_is_not_one_number_a_row_is_refused(argument: str) -> None:
    with pytest.raises(DataError, match="12 rows"):
        th.fit("y ~ x", FRAME, **{argument: [1.0, 2.0]})
    with pytest.raises(DataError, match="index"):
        th.fit("y ~ x", FRAME, **{argument: pd.Series([1.0] * 12, index=range(5, 17))})
    with pytest.raises(BadArgument, match="formula"):
        th.fit("normal", {"y": DATA["y"]}, offset="y")


# ---- new rows of unseen levels ---------------------------------------------------------------------------------

NEW = pd.DataFrame(
    {"x": [1.0, 2.0, np.nan, 3.0], "g": ["a", "zz", "b", "c"], "h": list("uvuv")}, index=list("pqrs")
)


@pytest.mark.parametrize(
    "formula", ["y ~ x + g", "y ~ x + g * h", "y ~ x + g:h", "y ~ bs(x, df=4) * g", "y ~ x + (1 | g)"]
)
def test_rows_of_unseen_levels_are_nan_where_that_is_asked_for(formula: str) -> None:
    rng = np.random.default_rng(0)
    data = {
        "x": rng.uniform(0, 4, 60),
        "g": list("abc") * 20,
        "h": list("uuuvvv") * 10,
        "y": rng.normal(size=60),
    }
    fit = th.fit(formula, data)
    found = fit.predict(NEW, unseen="nan")
    assert found.isna().tolist() == [False, True, True, False]
    np.testing.assert_array_equal(found[["p", "s"]], fit.predict(NEW.loc[["p", "s"]]))
    with pytest.raises(UnknownLevel):
        fit.predict(NEW)
    with pytest.raises(BadArgument, match="'raise', 'nan'"):
        fit.predict(NEW, unseen="skip")


# ---- dates -----------------------------------------------------------------------------------------------------

DAYS = np.array([0, 3, 1.5, 7, 30, 12, 5, 9, 2, 45, 21, 14])
WHEN = pd.Timestamp("2020-02-28") + pd.to_timedelta(DAYS, "D")
DATED = FRAME.assign(when=WHEN)


@pytest.mark.parametrize("kind", ["pandas", "arrow", "polars", "zone", "day"])
def test_dates_are_days_since_the_first(kind: str, tmp_path: Path) -> None:
    """The same column as a number gives the same fit, and the summary names its unit."""
    days = np.floor(DAYS) if kind == "day" else DAYS
    data: object = DATED
    if kind == "arrow":
        data = DATED.assign(when=DATED["when"].astype("timestamp[ns][pyarrow]"))
    elif kind == "polars":
        data = pytest.importorskip("polars").from_pandas(DATED)
    elif kind == "zone":
        data = DATED.assign(when=DATED["when"].dt.tz_localize("UTC"))
    elif kind == "day":
        data = DATED.assign(when=[t.date() for t in WHEN])
    fit, plain = th.fit("y ~ when + I(when**2)", data), th.fit("y ~ u + I(u**2)", FRAME.assign(u=days))
    np.testing.assert_array_equal(fit.estimates.to_numpy(), plain.estimates.to_numpy())
    np.testing.assert_array_equal(np.asarray(fit.predict(data)), np.asarray(plain.predict()))
    assert "when is in days since 2020-02-28" in str(fit.summary())
    again = th.load(fit.save(tmp_path / "fit.theta"))
    np.testing.assert_array_equal(np.asarray(again.predict(data)), np.asarray(plain.predict()))


def test_a_date_is_not_taken_for_a_number_nor_a_number_for_a_date() -> None:
    dated, plain = th.fit("y ~ when", DATED), th.fit("y ~ when", FRAME.assign(when=DAYS))
    with pytest.raises(WrongType, match="as a date, in days since 2020-02-28"):
        dated.predict({"when": [1.0]})
    with pytest.raises(WrongType, match="'when'"):
        plain.predict(DATED)
    with pytest.raises(WrongType, match="time zone"):
        dated.predict(DATED.assign(when=DATED["when"].dt.tz_localize("UTC")))
    lost = th.fit("y ~ when", DATED.assign(when=[pd.NaT, *WHEN[1:]]))
    assert "11 rows used, 1 row dropped" in str(lost.summary())


# ---- functions of one's own ------------------------------------------------------------------------------------


def square(x):
    assert x.dtype == np.float64
    return x**2


def test_a_function_of_ones_own_is_called_and_remembered(tmp_path: Path) -> None:
    own = {"square": square}
    fit = th.fit("square(y) ~ g + square(z) + offset(square(x))", FRAME, functions=own)
    plain = th.fit("I(y**2) ~ g + I(z**2) + offset(x**2)", FRAME)
    np.testing.assert_array_equal(fit.estimates.to_numpy(), plain.estimates.to_numpy())
    np.testing.assert_array_equal(fit.predict(FRAME.head(2)), plain.predict(FRAME.head(2)))
    assert th.fit("y ~ x", FRAME, subset="square(z) > 3", functions=own).observations == 5
    with pytest.raises(BadFormula, match="calls square"):
        fit.save(tmp_path / "fit.theta")


@pytest.mark.parametrize(
    ("formula", "functions", "error", "message"),
    [
        ("y ~ square(x)", None, BadFormula, "functions={'f': f}"),
        ("y ~ square(__import__('os'))", {"square": square}, BadFormula, "__import__"),
        ("y ~ square(x).sum()", {"square": square}, BadFormula, "square"),
        ("y ~ x", {"log": square}, BadArgument, "'log' is a function that formulas know"),
        ("y ~ x", {"f": 3}, BadArgument, "cannot be called"),
        ("y ~ x", [square], BadArgument, "dict of name"),
    ],
)
def test_no_other_function_is_called(formula: str, functions, error, message: str) -> None:
    with pytest.raises(error) as found:
        th.fit(formula, FRAME, functions=functions)
    assert message in str(found.value)


# ---- collinear columns -----------------------------------------------------------------------------------------

ALIASED = {  # R 4: coef(lm(formula)), NA left out; u = 2x + z, h = q where g is b or c, i = 1 where g is a
    "y ~ x + z + u": ([0.30776245251, 1.28454942712, 0.94321775562], ["u"]),
    "y ~ u + g + h + x": (
        [0.486390220244, 0.995833333333, -0.677645355472, -0.311751825859, -0.665922058656],
        ["h[T.q]"],
    ),
    "y ~ g * h + x": (
        [1.482223553578, -0.179728688805, 0.186164840808, 1.325744608011],
        ["h[T.q]", "g[T.b]:h[T.q]", "g[T.c]:h[T.q]"],
    ),
    "y ~ I(2*x) + x + poly(x, 2)": (
        [1.583025865348, 0.637790034234, -0.471951629989],
        ["x", "poly(x, 2)[1]"],
    ),
    "y ~ i + g": ([3.425, 0.775, 1.225], ["g[T.c]"]),
}


@pytest.mark.parametrize("formula", ALIASED)
def test_collinear_columns_are_left_out_as_r_does(formula: str, tmp_path: Path) -> None:
    data = FRAME.assign(
        u=2 * FRAME["x"] + FRAME["z"], h=np.where(FRAME["g"] == "a", "p", "q"), i=(FRAME["g"] == "a") * 1.0
    )
    want, lost = ALIASED[formula]
    with pytest.raises(FlatDirection):
        th.fit(formula, data)
    fit = th.fit(formula, data, collinear="drop")
    np.testing.assert_allclose(fit.tidy()["estimate"][:-1], want, rtol=1e-8)
    assert f"left out {', '.join(lost[:1])}" in " ".join(str(fit.summary()).split())
    assert all(name not in fit.names for name in lost)
    again = th.load(fit.save(tmp_path / "fit.theta"))
    np.testing.assert_array_equal(again.predict(data), fit.predict(data))
    np.testing.assert_array_equal(fit.predict(data, unseen="nan"), fit.predict())


def test_nothing_is_left_out_where_nothing_is_collinear() -> None:
    plain, told = th.fit("y ~ x * g", FRAME), th.fit("y ~ x * g", FRAME, collinear="drop")
    np.testing.assert_array_equal(plain.estimates, told.estimates)
    assert "left out" not in str(told.summary())
    with pytest.raises(BadArgument, match="'raise', 'drop'"):
        th.fit("y ~ x", FRAME, collinear="ignore")


# ---- order -----------------------------------------------------------------------------------------------------


def test_tables_have_the_order_of_the_formula(tmp_path: Path) -> None:
    """Main effects before interactions, as R orders terms."""
    fit = th.fit("y ~ g + x:z + I(x**2) + z", FRAME)
    want = ["Intercept", "g[T.b]", "g[T.c]", "I(x ** 2)", "z", "x:z", "scale"]
    assert fit.tidy()["term"].tolist() == want
    np.testing.assert_array_equal(fit.tidy()["estimate"], fit.estimates[want])
    lines = [
        line.split("  ")[1]
        for line in str(fit.summary()).splitlines()
        if line.startswith("  ") and "−" in line + "−"
    ]
    shown = [name for name in lines if name in want]
    assert shown == want
    assert [label for label in th.table([fit]).frame.index if label in want] == want
    assert th.load(fit.save(tmp_path / "fit.theta")).tidy()["term"].tolist() == want


# ---- kinds of tables -------------------------------------------------------------------------------------------


def _tables() -> dict[str, object]:
    pl, pa = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    return {
        "dict": DATA,
        "polars": pl.DataFrame(DATA),
        "lazy": pl.LazyFrame(DATA),
        "arrow": pa.table(DATA),
        "nullable": FRAME.convert_dtypes(),
        "arrow types": FRAME.convert_dtypes(dtype_backend="pyarrow"),
        "categories": FRAME.astype({"g": "category", "z": "int8", "x": "float64"}),
    }


@pytest.mark.parametrize("kind", ["dict", "polars", "lazy", "arrow", "nullable", "arrow types", "categories"])
def test_a_table_of_any_kind_gives_the_same_fit(kind: str) -> None:
    want = th.fit("y ~ .", FRAME)
    found = th.fit("y ~ .", _tables()[kind])
    assert found.names == want.names
    np.testing.assert_array_equal(found.estimates.to_numpy(), want.estimates.to_numpy())


def test_a_relation_of_duckdb_is_data() -> None:
    duckdb = pytest.importorskip("duckdb")
    found = th.fit("y ~ .", duckdb.from_arrow(_tables()["arrow"]))
    np.testing.assert_array_equal(found.estimates, th.fit("y ~ .", FRAME).estimates)
