"""Rows: those that a fit uses decide its levels; what it says of each row stands in the user's own order,
under the user's own index."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.formula.api as smf

import thetahat as th
from thetahat.errors import BadArgument, DataError

N = 40


def table(seed=0):
    r = np.random.default_rng(seed)
    frame = pd.DataFrame({"y": r.normal(size=N), "x": r.normal(size=N), "g": list("abcd") * (N // 4)})
    frame.index = pd.Index([f"row {i}" for i in r.permutation(N)], name="who")
    return frame


def with_holes(frame):
    frame = frame.copy()
    frame.iloc[3, 0] = np.nan
    frame.iloc[[7, 20], 1] = np.nan
    frame.iloc[11, 2] = None
    return frame, np.array([3, 7, 11, 20])


# ---- the user's index --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["quantile", "response", "pearson", "deviance"])
def test_residuals_have_the_tables_index_and_nan_where_a_row_was_dropped(kind):
    """The fit of the complete rows alone; statsmodels' residuals for y − E[y]."""
    frame, holes = with_holes(table())
    found = th.fit("y ~ x + g", frame).residuals(kind)
    assert isinstance(found, pd.Series)
    pd.testing.assert_index_equal(found.index, frame.index)
    assert np.flatnonzero(found.isna()).tolist() == holes.tolist()
    whole = th.fit("y ~ x + g", frame.dropna()).residuals(kind)
    pd.testing.assert_series_equal(found.dropna(), whole)
    if kind == "response":
        pd.testing.assert_series_equal(
            found.dropna(), smf.ols("y ~ x + g", frame).fit().resid, check_names=False, rtol=1e-9
        )


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"what": "linear"},
        {"what": "scale"},
        {"what": "quantile", "level": 0.9},
        {"level": 0.9},
        {"level": 0.9, "kind": "prediction"},
        {"level": 0.9, "kind": "plug-in"},
    ],
    ids=str,
)
def test_predictions_have_the_tables_index_and_nan_where_a_row_is_incomplete(asked):
    """Each complete row on its own gives the same; of the rows that were fitted and of new ones."""
    frame, holes = with_holes(table())
    fit = th.fit("y ~ x + g", frame)
    for found, given, missing in [
        (fit.predict(**asked), frame, holes),
        (fit.predict(frame, **asked), frame, [7, 11, 20]),
        (fit.predict(frame[["g", "x"]], **asked), frame, [7, 11, 20]),
        (fit.predict(frame.iloc[::-1], **asked), frame.iloc[::-1], N - 1 - np.array([20, 11, 7])),
    ]:
        pd.testing.assert_index_equal(found.index, given.index)
        gone = found.isna() if found.ndim == 1 else found.isna().all(axis=1)
        assert np.flatnonzero(gone).tolist() == list(missing)
        if asked.get("kind") != "prediction":
            one = fit.predict(given.iloc[[5]], **asked)
            np.testing.assert_allclose(np.asarray(found.iloc[[5]]), np.asarray(one), rtol=1e-12)


def test_categories_are_predicted_under_the_index_too():
    """statsmodels' Logit; levels come as levels, NaN between them."""
    frame, _ = with_holes(table())
    frame["y"] = np.where(np.random.default_rng(5).random(N) < 0.5, "no", "yes")
    frame.iloc[3, 0] = None
    fit = th.fit("y ~ x", frame, "bernoulli")
    p = fit.predict(what="probabilities")
    pd.testing.assert_index_equal(p.index, frame.index)
    assert np.flatnonzero(p["yes"].isna()).tolist() == [3, 7, 20]
    theirs = smf.logit("v ~ x", frame.assign(v=(frame["y"] == "yes") * 1.0).drop(frame.index[[3]])).fit(
        disp=0
    )
    np.testing.assert_allclose(p["yes"].dropna(), theirs.predict(), rtol=1e-6)
    drawn = fit.sample()
    assert set(drawn.dropna()) == {"no", "yes"}
    assert np.flatnonzero(drawn.isna()).tolist() == [3, 7, 20]
    interval = fit.predict(what="probabilities", level=0.9)
    assert np.flatnonzero(interval["yes"]["low"].isna()).tolist() == [3, 7, 20]


def test_draws_influence_and_outliers_name_the_rows():
    """The same of the complete rows alone."""
    frame, holes = with_holes(table())
    fit, whole = th.fit("y ~ x + g", frame), th.fit("y ~ x + g", frame.dropna())
    assert np.flatnonzero(fit.sample().isna()).tolist() == holes.tolist()
    assert fit.sample(3).shape == (3, N)
    assert np.flatnonzero(np.isnan(fit.sample(3)).all(axis=0)).tolist() == holes.tolist()
    influence = fit.influence()
    pd.testing.assert_index_equal(influence.index, frame.index)
    pd.testing.assert_frame_equal(influence.dropna(), whole.influence())
    outliers = fit.outliers(5)
    assert set(outliers.index) <= set(frame.index)
    pd.testing.assert_frame_equal(outliers, whole.outliers(5))
    np.testing.assert_array_equal(outliers["observed"], frame.loc[outliers.index, "y"])
    trimmed = th.fit("y ~ x", frame, robust=th.Trimmed(0.75))
    assert set(trimmed.kept) <= set(frame.dropna(subset=["y", "x"]).index)


@pytest.mark.parametrize("make", [dict, pl.DataFrame, "file"])
def test_other_tables_give_arrays_of_as_many_rows_as_they_have(make, tmp_path):
    """NaN at the same places as of the pandas table."""
    frame, holes = with_holes(table())
    given = frame.reset_index(drop=True)
    given.to_parquet(tmp_path / "a.parquet")
    data = (
        str(tmp_path / "a.parquet")
        if make == "file"
        else make({c: [None if v != v else v for v in given[c]] for c in given})
    )
    fit, want = th.fit("y ~ x + g", data), th.fit("y ~ x + g", frame)
    for found, own in [
        (fit.residuals(), want.residuals()),
        (fit.predict(), want.predict()),
        (fit.sample(), want.sample()),
    ]:
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, own.to_numpy())
    assert np.flatnonzero(np.isnan(fit.predict())).tolist() == holes.tolist()
    assert fit.predict(level=0.9).index.tolist() == list(range(N))
    streamed = th.fit("y ~ x + g", th.data.Frame(str(tmp_path / "a.parquet"), memory=1))
    np.testing.assert_allclose(streamed.predict(), fit.predict(), rtol=1e-9)


def test_a_table_without_holes_keeps_its_index_and_a_row_of_weight_zero_is_left_out():
    """The fit without that row."""
    frame = table().assign(w=1.0)
    frame.iloc[4, 3] = 0.0
    fit = th.fit("y ~ x", frame, weights="w")
    assert np.flatnonzero(fit.residuals().isna()).tolist() == [4]
    np.testing.assert_allclose(
        fit.estimates, th.fit("y ~ x", frame.drop(frame.index[4])).estimates, rtol=1e-12
    )
    pd.testing.assert_index_equal(fit.predict(frame).index, frame.index)
    assert not fit.predict(frame).isna().any()


def test_every_row_incomplete_is_nothing_to_predict_from():
    fit = th.fit("y ~ x", table())
    with pytest.raises(DataError, match="every row has a missing value"):
        fit.predict({"x": [np.nan, np.nan]})


# ---- levels ------------------------------------------------------------------------------------------------

LEAVING = ["response", "predictor", "trials", "zero weight"]


def emptied(how, level="d"):
    """A table of which no row of a level is used."""
    frame = table().assign(z=1.0, w=1.0, n=5.0)
    frame["y"] = np.random.default_rng(1).integers(0, 5, N).astype(float)
    column = {"response": "y", "predictor": "z", "trials": "n", "zero weight": "w"}[how]
    frame.loc[frame["g"] == level, column] = 0.0 if how == "zero weight" else np.nan
    given = {"trials": "n"} if how == "trials" else {"weights": "w"} if how == "zero weight" else {}
    return frame, given, "binomial" if how == "trials" else "poisson"


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.parametrize("level", ["a", "d"])
@pytest.mark.parametrize("kind", ["text", "category", "contrast", "interaction", "streamed"])
def test_levels_are_those_of_the_rows_that_are_used(how, level, kind, tmp_path):
    """The fit of the table without those rows: the same names, the first level that is left as reference (R:
    drop.unused.levels)."""
    frame, given, family = emptied(how, level)
    frame = frame if kind != "category" else frame.astype({"g": "category"})
    right = {"contrast": "C(g, contr.treatment) + z - z", "interaction": "g*x"}.get(kind, "g") + (
        " + z - 1" if how == "predictor" else ""
    )
    data = frame
    if kind == "streamed":
        frame.reset_index(drop=True).to_parquet(tmp_path / "a.parquet")
        data = th.data.Frame(str(tmp_path / "a.parquet"), memory=1)
    used = frame[frame["g"] != level]
    used = used.assign(g=used["g"].cat.remove_unused_categories()) if kind == "category" else used
    if how == "predictor":
        right = right.replace(" + z - 1", "") + " + offset(log(z))"
    found, want = (th.fit(f"y ~ {right}", each, family, **given) for each in (data, used))
    assert found.names == want.names
    assert not any(f"[T.{level}]" in name for name in found.names)
    np.testing.assert_allclose(found.estimates, want.estimates, rtol=1e-8)


def test_response_classes_are_those_of_the_rows_that_are_used():
    """Three classes of which one has no complete row: two are left."""
    frame = table().assign(c=list("uvvw") * (N // 4))
    frame.loc[frame["c"] == "w", "x"] = np.nan
    for data in (frame, frame.astype({"c": "category"})):
        fit = th.fit("c ~ x", data, "categorical")
        assert fit.predict(what="probabilities").columns.tolist() == ["u", "v"]


def test_knots_and_centres_are_those_of_the_rows_that_are_used():
    """The fit of the complete rows alone."""
    frame = table()
    frame.iloc[:10, 0] = np.nan
    frame.iloc[:10, 1] += 100
    for right in ("bs(x, df=5)", "center(x)", "scale(x)", "poly(x, 2)", "offset(center(x))"):
        found, want = th.fit(f"y ~ {right}", frame), th.fit(f"y ~ {right}", frame.dropna())
        np.testing.assert_allclose(found.estimates, want.estimates, rtol=1e-10)


def test_a_transform_of_the_response_remembers_all_rows():
    """Beyond the first thousand: the mean of y − mean(y) is 0."""
    y = np.arange(3000.0)
    assert th.fit("center(y) ~ 1", {"y": y}).estimates.iloc[0] == pytest.approx(0.0, abs=1e-9)


def test_contrasts_of_numbers_know_levels_beyond_the_first_thousand_rows():
    """numpy.linalg.lstsq: sum contrasts of three levels, the third of which comes late."""
    k = np.repeat([1, 2, 3], [600, 600, 600])
    y = np.random.default_rng(0).normal(size=1800) + k
    X = np.column_stack([np.ones(1800), (k == 1) * 1.0 - (k == 3), (k == 2) * 1.0 - (k == 3)])
    want = np.linalg.lstsq(X, y, rcond=None)[0]
    np.testing.assert_allclose(th.fit("y ~ C(k, contr.sum)", {"y": y, "k": k}).estimates[:3], want, rtol=1e-8)


def test_an_unknown_level_is_named_by_its_row_in_the_data():
    fit = th.fit("y ~ x + g", table())
    new = pd.DataFrame({"x": [np.nan, 1.0, 2.0], "g": ["a", "b", "q"]})
    with pytest.raises(DataError, match=r"level 'q' \(row 2\)"):
        fit.predict(new)


def test_clusters_that_cannot_be_are_named_by_their_column():
    frame = table().assign(one="same", holes=[None if i == 6 else "u" if i % 2 else "v" for i in range(N)])
    frame.iloc[2, 0] = np.nan
    fit = th.fit("y ~ x", frame)
    with pytest.raises(BadArgument, match="by='one': the column has one value only \\('same'\\)"):
        fit.covariance("cluster", by="one")
    with pytest.raises(BadArgument, match="by='holes': the column is missing in row 6"):
        fit.standard_errors("cluster", by="holes")
