"""A table streamed from Parquet is the table in memory: estimates, log-likelihood and errors, whatever its
row groups."""

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.data.batch import concatenate
from thetahat.data.frame import Frame
from thetahat.data.selection import missing_rows
from thetahat.errors import BadWeights, EmptyData, NotFinite, OutOfSupport
from thetahat.models.formulas import regression

N = 3000


@pytest.fixture(scope="module")
def table():
    r = np.random.default_rng(3)
    x, z = r.normal(size=N), r.uniform(0.5, 2.0, N)
    g, wide = r.choice(list("abcd"), N), np.char.add("w", r.integers(0, 120, N).astype(str))
    eta = 0.3 + 0.4 * x - 0.2 * (g == "c") + 0.3 * r.normal(size=120)[np.char.lstrip(wide, "w").astype(int)]
    frame = pd.DataFrame(
        {
            "count": r.poisson(z * np.exp(eta)).astype(float),
            "amount": np.exp(eta) * r.gamma(2.0, 0.5, N),
            "real": eta + r.normal(size=N),
            "yes": (r.random(N) < 1 / (1 + np.exp(-eta))).astype(float),
            "kind": r.choice(["red", "green", "blue"], N),
            "x": x,
            "z": z,
            "g": g,
            "wide": wide,
            "w": r.integers(0, 4, N),
        }
    )
    frame.loc[r.choice(N, 40, replace=False), "x"] = np.nan
    frame.loc[r.choice(N, 25, replace=False), "g"] = None
    frame.loc[r.choice(N, 10, replace=False), "count"] = np.nan
    return frame


@pytest.fixture(scope="module")
def path(table, tmp_path_factory):
    """Row groups of odd sizes, none a divisor of another."""
    found = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    table.to_parquet(found, row_group_size=337)
    return found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A streamed block of 500 rows: several a file, ending inside row groups."""
    blocks = Frame.blocks
    monkeypatch.setattr(Frame, "blocks", lambda self, names, rows=500: blocks(self, names, rows))


CASES = [
    ("real ~ x + g", "normal", {}),
    ("real ~ x + g", "normal", {"weights": "w"}),
    ("count ~ x + g + offset(log(z))", "poisson", {}),
    ("count ~ x + g + wide + offset(log(z))", "poisson", {}),
    ("count ~ x*g", "negative_binomial", {"weights": "w"}),
    ("amount ~ x + g + bs(z, df=4)", "gamma", {}),
    ("yes ~ x + g + poly(z, 2)", "bernoulli", {}),
    ("kind ~ x + g", "categorical", {}),
    ("real ~ x + a_b", "student_t", {}),
    ("log(amount) ~ x", "normal", {"scale": "~ g"}),
]


@pytest.mark.parametrize(("formula", "family", "more"), CASES, ids=lambda v: str(v))
def test_streaming_changes_nothing(table, path, formula, family, more):
    """The same rows in memory, to 10⁻⁹ relative; the in-memory road is held to other software in
    tests/solvers."""
    formula = formula.replace("a_b", "g:C(w)")
    streamed, whole = (
        th.fit(formula, Frame(path, memory=1), family, **more),
        th.fit(formula, table, family, **more),
    )
    assert streamed.source.streamed
    assert not whole.source.streamed
    assert list(streamed.estimates.index) == list(whole.estimates.index)
    np.testing.assert_allclose(streamed.estimates, whole.estimates, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(streamed.standard_errors(), whole.standard_errors(), rtol=1e-9)
    assert streamed.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-12)
    assert streamed.source.fingerprint == whole.source.fingerprint
    assert (streamed.source.rows, streamed.source.dropped) == (whole.source.rows, whole.source.dropped)
    assert streamed.source.total == whole.source.total


def test_rows_with_a_missing_value_are_left_out_and_counted(table):
    used = table[["x", "g", "count"]].notna().all(axis=1)
    _, source = regression("count ~ x + g", table, th.families.Poisson())
    assert source.rows == used.sum()
    assert source.dropped == N - used.sum()
    np.testing.assert_array_equal(concatenate(list(source.batches()))["y"], table.loc[used, "count"])
    np.testing.assert_array_equal(source.column("wide"), table.loc[used, "wide"])


def test_a_column_that_the_model_does_not_read_may_miss_values(table):
    _, source = regression("real ~ z", table, th.families.Normal())
    assert source.dropped == 0


def test_a_streamed_table_hands_out_columns_of_the_rows_it_used(table, path):
    _, memory = regression("count ~ x", table, th.families.Poisson())
    _, streamed = regression("count ~ x", Frame(path, memory=1), th.families.Poisson())
    np.testing.assert_array_equal(streamed.column("wide"), memory.column("wide"))


def test_numeric_columns_of_a_data_frame_stay_where_they_lie():
    """The tensors are windows of pandas' own memory, which copies on write; of memory that an array outside refers to, they
    are windows of one copy."""
    values = np.random.default_rng(0).normal(size=(1000, 3))
    names, where = ["y", "x", "z"], {}
    for copied in (True, False):
        frame = pd.DataFrame(values, columns=names, copy=copied)
        for fit in range(2):  # what the first fit reads does not count as an array outside
            _, source = regression("y ~ x + z", frame, th.families.Normal())
            where[copied, fit] = source.whole["x0"].data_ptr(), source
            own = source.frame.read(["x"])["x"].to_numpy().__array_interface__["data"][0]
            assert where[copied, fit][0] == own
        user = frame["x"].to_numpy().__array_interface__["data"][0]
        assert all((where[copied, fit][0] == user) == copied for fit in range(2))


def bad_row(table, **columns):
    frame = table[["real", "count", "z", "w"]].dropna().reset_index(drop=True)
    for name, value in columns.items():
        frame[name] = frame[name].astype(float)
        frame.loc[1700, name] = value
    frame.loc[[3, 1000], "real"] = (
        np.nan
    )  # dropped rows before it, so that places among the rows used are not places in the data
    return frame


@pytest.mark.parametrize(
    ("columns", "call", "error", "message"),
    [
        ({"z": np.inf}, {"formula": "real ~ z"}, NotFinite, "column 'z' is inf in row 1700"),
        ({"z": -1.0}, {"formula": "real ~ log(z)"}, NotFinite, r"log\(z\)' is nan in row 1700"),
        ({"z": -1.0}, {"formula": "real ~ w + offset(log(z))"}, NotFinite, "offset.* is nan in row 1700"),
        ({"z": -1.0}, {"formula": "log(z) ~ w + real"}, NotFinite, r"log\(z\) is nan in row 1700"),
        (
            {"count": -2.0},
            {"formula": "count ~ real", "family": "poisson"},
            OutOfSupport,
            "row 1700: count = -2",
        ),
        ({"w": -1.0}, {"formula": "count ~ real", "weights": "w"}, BadWeights, "row 1700 is -1"),
        ({"w": np.nan}, {"formula": "count ~ real", "weights": "w"}, BadWeights, "row 1700 is missing"),
        ({"z": np.nan}, {"formula": "z ~ w", "missing": "raise"}, NotFinite, "'z' is missing in row 1700"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["memory", "streamed"])
def test_a_bad_row_is_named_by_its_place_in_the_data(table, tmp_path, columns, call, error, message, stream):
    frame = bad_row(table, **columns)
    if stream:
        frame.to_parquet(tmp_path / "bad.parquet", row_group_size=337)
        frame = Frame(tmp_path / "bad.parquet", memory=1)
    call = dict(call)
    with pytest.raises(error, match=message):
        th.fit(call.pop("formula"), frame, **call)


def test_a_block_may_have_no_weight_where_others_have(table, tmp_path):
    frame = bad_row(table).assign(w=0.0)
    frame.loc[2000:, "w"] = 1.0
    frame.to_parquet(tmp_path / "w.parquet")
    streamed = th.fit("count ~ real", Frame(tmp_path / "w.parquet", memory=1), "poisson", weights="w")
    some = th.fit("count ~ real", frame[2000:], "poisson")
    np.testing.assert_allclose(streamed.estimates, some.estimates, rtol=1e-9)
    with pytest.raises(BadWeights, match="all weights are zero"):
        th.fit("count ~ real", frame[:2000], "poisson", weights="w")


def test_a_block_may_have_no_complete_row(table, tmp_path):
    frame = bad_row(table)
    frame.loc[500:1499, "z"] = np.nan
    frame.to_parquet(tmp_path / "m.parquet")
    streamed = th.fit("real ~ z", Frame(tmp_path / "m.parquet", memory=1))
    np.testing.assert_allclose(streamed.estimates, th.fit("real ~ z", frame).estimates, rtol=1e-9)


def test_no_complete_row_is_no_data(table):
    with pytest.raises(EmptyData, match="real, z"):
        th.fit("real ~ z", table.assign(z=np.nan))


def test_levels_that_only_later_blocks_hold_are_found(table, tmp_path):
    frame = bad_row(table).assign(g="a").dropna().reset_index(drop=True)
    frame.loc[1500:, "g"] = "b"
    frame.loc[len(frame) - 5 :, "g"] = "c"
    frame.to_parquet(tmp_path / "g.parquet")
    fit = th.fit("real ~ g", Frame(tmp_path / "g.parquet", memory=1))
    means = frame.groupby("g")["real"].mean()
    np.testing.assert_allclose(
        fit.estimates[:3], [means["a"], means["b"] - means["a"], means["c"] - means["a"]], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("column", "rows"),
    [
        (pd.Series([1.0, np.nan, 3.0]), [1]),
        (pd.Series([1.0, 2.0]), None),
        (pd.Series([1, 2]), None),
        (pd.Series([1, None], dtype="Int64"), [1]),
        (pd.Series([True, None], dtype="boolean"), [1]),
        (pd.Series(["a", None]), [1]),
        (pd.Categorical(["a", None]), [1]),
        (pd.Series([1e308, 1e308]), None),
        (pd.Series([1e308, np.nan, 1e308]), [1]),
    ],
)
def test_missing_is_nan_or_null_of_any_type(column, rows):
    found = missing_rows(pd.Series(column, name="c"))
    assert (found is None) if rows is None else (np.flatnonzero(found).tolist() == rows)


def test_blocks_of_a_table_are_the_table(table):
    _, source = regression("real ~ x + g + wide", table, th.families.Normal())
    source.block = 617
    blocks = list(source.batches())
    assert max(map(len, blocks)) == 617
    for name in source.whole:
        assert torch.equal(torch.cat([b[name] for b in blocks]), source.whole[name])


def test_a_word_among_numbers_is_named_by_its_row(tmp_path):
    """A file of numbers with one word in it is no categorical response."""
    lines = ["y,x", *(f"{i}.5,{i}" for i in range(30))]
    lines[1 + 17] = "oops,17"
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(
        OutOfSupport,
        match=r"the response 'y' is 'oops' in row 17, and a number elsewhere \(1 of its 30 values are words\)",
    ):
        th.fit("y ~ x", tmp_path / "rows.csv")
