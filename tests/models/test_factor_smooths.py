"""A curve of each group, s(x, g, bs="fs"), by R 4.2.2's mgcv 1.8-41.

mgcv leaves the rotation among the polynomials that a penalty leaves free to LAPACK: its score of one model changes with the
order of the rows (sleepstudy, ML: 884.29 as the rows are, 881.63 to 884.31 in others). Ours are the constant and the line.
The figures are therefore of

    fs <- function(y, x, g, k, bs, method, family = gaussian()) {
      sm <- smoothCon(s(x, bs = bs, k = k), data.frame(x = x))[[1]]; X <- sm$X
      e <- eigen(sm$S[[1]], symmetric = TRUE); M <- sm$null.space.dim; r <- ncol(X) - M
      XR <- X %*% e$vectors[, 1:r] %*% diag(1 / sqrt(e$values[1:r]))
      P <- cbind(1, x - mean(x)); XR <- XR - P %*% solve(crossprod(P), crossprod(P, XR))
      XR <- XR / sqrt(sum(XR^2) / length(x)); P[, 2] <- P[, 2] / sqrt(mean(P[, 2]^2))
      g <- as.factor(g); Z <- model.matrix(~ g - 1)
      d <- list(y = y, B = do.call(cbind, lapply(1:r, function(j) Z * XR[, j])), N1 = Z * P[, 1], N2 = Z * P[, 2])
      gam(y ~ B + N1 + N2, data = d, method = method, family = family, paraPen = list(
        B = list(diag(ncol(d$B))), N1 = list(diag(ncol(Z))), N2 = list(diag(ncol(Z)))))
    }

and, with mgcv's own rotation given to ours, of gam(y ~ s(x, g, bs = "fs", k = k), method = method) itself.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import thetahat as th
from thetahat.data import smooths
from thetahat.data.smooths import build_curves, curve_of_each, read_call
from thetahat.errors import BadArgument, BadFormula, UnknownLevel

SLEEP = pd.read_csv(Path(__file__).parents[1] / "evaluation" / "tables" / "sleepstudy.csv").drop(
    columns="half"
)


def simulated():
    """i <- 1:150; fr <- function(v) v - floor(v); gg <- i %% 6; x <- 3 * fr(i * 0.6180339887)^2
    y <- floor(exp(0.5 + 0.3 * sin(2 * gg) + sin(2 * x + 0.3 * gg)) + 2 * fr(i * 0.4142135624))
    z <- y^0.5 + x * fr(gg * 0.3)
    """
    i = np.arange(1, 151)
    x, g = 3 * (i * 0.6180339887 % 1) ** 2, i % 6
    y = np.floor(np.exp(0.5 + 0.3 * np.sin(2 * g) + np.sin(2 * x + 0.3 * g)) + 2 * (i * 0.4142135624 % 1))
    return pd.DataFrame({"x": x, "g": g, "y": y, "z": np.sqrt(y) + x * (g * 0.3 % 1)})


DATA = {"sleep": SLEEP, "simulated": simulated()}
FORMULA = {
    "sleep": "Reaction ~ s(Days, Subject, bs='fs', k=5, base='{}')",
    "simulated": "z ~ s(x, g, bs='fs', k=6, base='{}')",
}
PRINTED = [  # score, standard deviations of bend, constant and line, intercept, sum(edf) - 1, sum(edf1) - 1
    (
        "sleep",
        "tp",
        False,
        884.277778411,
        (14.380489, 36.719659, 34.568722),
        298.507892,
        56.4520492,
        66.3648698,
    ),
    (
        "sleep",
        "cr",
        False,
        884.19617753,
        (14.622186, 36.723397, 34.572695),
        298.507892,
        56.6396174,
        66.4626706,
    ),
    ("sleep", "tp", True, 881.17050791, (14.378623, 37.813766, 34.564094), 298.507892, 56.4821227, 66.366735),
    ("sleep", "cr", True, 881.08890703, (14.620295, 37.817463, 34.568225), 298.507892, 56.6695068, 66.46451),
    (
        "simulated",
        "tp",
        False,
        53.2023716644,
        (0.42422246, 0.26047528, 0.24333107),
        2.12120189,
        27.7275704,
        31.7306711,
    ),
    (
        "simulated",
        "cr",
        False,
        52.6798736209,
        (0.43745038, 0.2606713, 0.24365828),
        2.12129708,
        26.2580203,
        29.5898357,
    ),
    (
        "simulated",
        "ps",
        False,
        53.8608020808,
        (0.56405684, 0.26174721, 0.24495092),
        2.12100611,
        24.4791223,
        27.4642389,
    ),
    (
        "simulated",
        "tp",
        True,
        54.4606419439,
        (0.42421017, 0.28625614, 0.24322193),
        2.12119842,
        27.7608176,
        31.7338505,
    ),
]


@pytest.mark.parametrize(("data", "base", "reml", "score", "sds", "intercept", "edf", "edf1"), PRINTED)
def test_a_curve_of_each_group_is_that_of_mgcv(data, base, reml, score, sds, intercept, edf, edf1):
    """Above; the smoothing parameters of mgcv are at its own tolerance."""
    fit = th.fit(FORMULA[data].format(base), DATA[data], reml=reml)
    assert fit.objective.value() == pytest.approx(-score, abs=2e-8)
    assert fit.variance_components(intervals=None)["sd"].to_numpy()[:3] == pytest.approx(sds, rel=2e-4)
    assert float(fit.theta[0]) == pytest.approx(intercept, rel=1e-5)
    assert fit.smooths()[["edf", "reference_df"]].to_numpy()[0] == pytest.approx((edf, edf1), rel=2e-5)
    assert fit.smooths()[["statistic", "p_value"]].isna().to_numpy().all()


ROTATIONS = [  # what mgcv's two columns are of the constant and the line, and its score
    ("sleep", "tp", False, (-0.9999084054820, -0.0135344244954, 0.0135344244954), 884.286824272),
    ("sleep", "tp", True, (-0.9999084054820, -0.0135344244954, 0.0135344244954), 881.183996217),
    ("simulated", "tp", False, (0.0946546396995, -0.9955101703063, 0.9955101703063), 53.2011988155),
    ("simulated", "tp", True, (0.0946546396995, -0.9955101703063, 0.9955101703063), 54.5264898388),
    ("simulated", "cr", False, (0.685860886148, 0.727732674031, -0.727732674031), 50.5282427213),
]


@pytest.mark.parametrize(("data", "base", "reml", "turn", "score"), ROTATIONS)
def test_with_the_rotation_of_mgcv_the_score_is_that_of_mgcv(data, base, reml, turn, score, monkeypatch):
    """gam(…, s(x, g, bs = "fs", xt = list(bs = base)), method = "ML" or "REML")$gcv.ubre, and of
    predict(…, type = "lpmatrix") the two columns that are straight.
    """
    a, b, c = turn

    def rotated(X, S, x, counts):
        Z, penalties = curve_of_each(X, S, x, counts)
        Z[:, -2:] = Z[:, -2:] @ np.array([[a, b], [c, a]])
        return Z, penalties

    monkeypatch.setattr(smooths, "curve_of_each", rotated)
    fit = th.fit(FORMULA[data].format(base), DATA[data], reml=reml)
    assert fit.objective.value() == pytest.approx(-score, abs=1e-7)


def test_counts_with_a_curve_of_each_group_are_those_of_mgcv():
    """fs(d$y, d$x, d$g, 6, "tp", "REML", poisson()), by Laplace's approximation in both. (mgcv's ML of other families takes
    the mode of random and fixed effects together, and is another number.)
    """
    fit = th.fit("y ~ s(x, g, bs='fs', k=6)", simulated(), family="poisson", reml=True)
    assert fit.objective.value() == pytest.approx(-265.256274351, abs=1e-6)


def test_the_value_is_the_dense_normal_density():
    """log N(y; Xβ, σ²I + Σ_g curves), each part's variance written out with NumPy from the columns."""
    data = simulated()
    fit = th.fit("z ~ x + s(x, g, bs='fs', k=6)", data)
    sd = fit.variance_components(intervals=None)["sd"].to_numpy()
    (curve,) = build_curves(read_call("s(x, g, bs='fs', k=6)", list(data)), data)
    B = curve.columns(data)[1]
    Z = B * np.repeat(sd[:3], [4, 1, 1])
    same = data["g"].to_numpy()[:, None] == data["g"].to_numpy()
    V = (Z @ Z.T) * same + sd[3] ** 2 * np.eye(len(data))
    mean = np.column_stack([np.ones(len(data)), data["x"]]) @ fit.theta[:2].numpy()
    assert fit.objective.value() == pytest.approx(multivariate_normal(mean, V).logpdf(data["z"]), abs=1e-8)
    assert np.allclose((B**2).mean(0)[4:], 1.0)
    assert (B[:, :4] ** 2).mean(0).sum() == pytest.approx(1.0)
    assert np.allclose(B[:, 4], 1.0)
    assert np.allclose(B[:, :5].T @ B[:, 5:], 0.0, atol=1e-9)


def test_degrees_of_freedom_are_those_of_the_dense_matrix():
    """F = I − H⁻¹P of the factor that is eliminated, and of one that is not, beside each other: by inverting H."""
    rng = np.random.default_rng(3)
    data = simulated().assign(h=rng.integers(0, 4, 150), k=rng.integers(0, 9, 150))
    data["w"] = data["z"] + rng.normal(size=9)[data["k"]] + rng.normal(size=4)[data["h"]] * data["x"]
    fit = th.fit("w ~ s(x, g, bs='fs', k=5) + s(x, h, bs='fs', k=4, base='cr') + s(x) + (1 | k)", data)
    sd = (
        fit.variance_components(intervals=None).set_index(["group", "term"])["sd"]
        / fit.variance_components(intervals=None)["sd"].iloc[-1]
    )
    parts = []
    for text, by, repeat in (("s(x, g, bs='fs', k=5)", "g", 3), ("s(x, h, bs='fs', k=4, base='cr')", "h", 2)):
        (curve,) = build_curves(read_call(text, list(data)), data)
        scales = sd[by].to_numpy()
        Z = curve.columns(data)[1] * np.repeat(scales, [repeat, 1, 1])
        parts.append(np.hstack([Z * (data[by] == v).to_numpy()[:, None] for v in sorted(data[by].unique())]))
    (curve,) = build_curves(read_call("s(x)", list(data)), data)
    parts.append(curve.columns(data)[1] * sd["s(x)"].iloc[0])
    parts.append(pd.get_dummies(data["k"]).to_numpy(dtype=float) * sd["k"].iloc[0])
    m = sum(p.shape[1] for p in parts)
    X = np.hstack([*parts, np.ones((len(data), 1)), curve.columns(data)[0]])
    P = np.diag(np.arange(X.shape[1]) < m).astype(float)
    F = np.eye(X.shape[1]) - np.linalg.solve(X.T @ X + P, P)
    edf, edf1 = np.diag(F), np.diag(2 * F - F @ F)
    ends = np.cumsum([0, *(p.shape[1] for p in parts)])
    own = [np.arange(a, b) for a, b in itertools.pairwise(ends)]
    own[2] = np.append(own[2], X.shape[1] - 1)  # the line of s(x)
    table = fit.smooths()
    for label, at in zip(["s(x,g)", "s(x,h)", "s(x)"], own, strict=False):
        assert table.loc[label, ["edf", "reference_df"]].to_numpy() == pytest.approx(
            (edf[at].sum(), edf1[at].sum())
        )


def two_curves():
    """v <- 2 * fr(i * 0.7320508076); w <- z + cos(3 * v + gg) + v * fr(gg * 0.7), of `simulated`."""
    data, i = simulated(), np.arange(1, 151)
    v = 2 * (i * 0.7320508076 % 1)
    return data.assign(v=v, w=data["z"] + np.cos(3 * v + data["g"]) + v * (data["g"] * 0.7 % 1))


TWO = [  # as PRINTED: bend, constant and line of x, bend and line of v, intercept, sum(edf) - 1
    (
        6,
        "tp",
        False,
        101.6678722609,
        (0.389581818, 0.459374492, 0.239707232, 0.575774066, 0.50785736),
        2.54463812,
        50.827833,
    ),
    (
        6,
        "tp",
        True,
        102.3712070086,
        (0.389605665, 0.50380292, 0.239655358, 0.575639507, 0.507842207),
        2.5446388,
        50.839664,
    ),
    (
        5,
        "cr",
        True,
        99.8354863567,
        (0.434511252, 0.502054109, 0.236876422, 0.631417934, 0.507342533),
        2.54510452,
        45.6350256,
    ),
]


@pytest.mark.parametrize(("k", "base", "reml", "score", "sds", "intercept", "edf"), TWO)
def test_two_curves_of_each_group_are_those_of_mgcv(k, base, reml, score, sds, intercept, edf):
    """gam(w ~ B + N1 + N2 + C + K, …) with B, N1, N2 of x as above, C and K the bending columns and the line of v made
    likewise, and paraPen an identity for each: the groups have one constant.
    """
    fit = th.fit(
        f"w ~ s(x, g, bs='fs', k={k}, base='{base}') + s(v, g, bs='fs', k={k}, base='{base}')",
        two_curves(),
        reml=reml,
    )
    assert fit.objective.value() == pytest.approx(-score, abs=2e-8)
    found = fit.variance_components(intervals=None)
    assert found["sd"].to_numpy()[:5] == pytest.approx(sds, rel=2e-4)
    assert list(found["term"][:5]) == [
        "s(x): bend",
        "s(x): constant",
        "s(x): linear",
        "s(v): bend",
        "s(v): linear",
    ]
    assert float(fit.theta[0]) == pytest.approx(intercept, rel=1e-5)
    assert fit.smooths()["edf"].sum() == pytest.approx(edf, rel=2e-5)


def test_two_curves_of_each_group_are_two_blocks_of_one_factor(tmp_path):
    """They add up to the fitted values, in the other order too; a saved fit is the fit."""
    data = two_curves()
    x, v = "s(x, g, bs='fs', k=5)", "s(v, g, bs='fs', k=6, base='ps')"
    fit, turned = (th.fit(f"w ~ {text}", data) for text in (f"{x} + {v}", f"{v} + {x}"))
    assert fit.log_likelihood == pytest.approx(turned.log_likelihood, abs=1e-8)
    assert np.allclose(fit.predict(data), turned.predict(data), atol=1e-5)
    own = fit.curve("s(x,g)", data)["value"] + fit.curve("s(v,g)", data)["value"]
    assert np.allclose(fit.predict(data), fit.predict(data, groups="average") + own, atol=1e-12)
    curves = fit.curve("s(v,g)", data)["value"].to_numpy()
    columns = fit.model.encoder.smooths[1].columns(data)[1]
    assert columns.shape[1] == 5
    assert np.allclose(
        columns.mean(0), 0.0
    )  # no constant: the bending columns are orthogonal to it over the rows
    assert abs(curves).max() > 0.1
    fit.save(tmp_path / "two.thetahat")
    again = th.load(tmp_path / "two.thetahat")
    assert np.array_equal(again.predict(data), fit.predict(data))
    pd.testing.assert_frame_equal(
        again.variance_components(intervals=None), fit.variance_components(intervals=None)
    )
    assert th.fit(f"y ~ {x} + {v}", data, family="poisson").certificate.ok


def test_a_group_has_its_curve_and_a_new_one_the_average():
    data = simulated()
    fit = th.fit("z ~ x + s(x, g, bs='fs', k=6)", data)
    line = fit.predict(data, groups="average").to_numpy()
    curves = fit.curve("s(x,g)", data)
    assert np.allclose(fit.predict(data), line + curves["value"], atol=1e-12)
    assert list(curves.columns[:2]) == ["x", "g"]
    new = data.assign(g=99)
    assert np.allclose(fit.predict(new, groups="average"), line)
    with pytest.raises(UnknownLevel, match="groups='average'"):
        fit.predict(new)
    with pytest.raises(UnknownLevel, match="99"):
        fit.curve("s(x,g)", new)
    every = fit.curve("s(x,g)")
    assert len(every) == 6 * 200
    h = 1e-6
    moved = fit.curve("s(x,g)", data.assign(x=data["x"] + h))["value"] - curves["value"]
    assert np.allclose(fit.curve("s(x,g)", data, derivative=True)["value"], moved / h, atol=1e-4)
    wide = fit.curve("s(x,g)", data, simultaneous=True)
    assert (wide["high"] > curves["high"]).all()


def test_the_error_of_a_curve_is_hendersons():
    """(C'C/σ² + blockdiag(Σ⁻¹, 0))⁻¹ of (b, β), dense."""
    data = simulated()
    fit = th.fit("z ~ x + s(x, g, bs='fs', k=6)", data)
    sd = fit.variance_components(intervals=None)["sd"].to_numpy()
    (curve,) = build_curves(read_call("s(x, g, bs='fs', k=6)", list(data)), data)
    B = curve.columns(data)[1]
    Z = np.hstack([B * (data["g"] == v).to_numpy()[:, None] for v in range(6)])
    C = np.column_stack([Z, np.ones(len(data)), data["x"]])
    prior = np.append(np.tile(1 / np.repeat(sd[:3], [4, 1, 1]) ** 2, 6), [0.0, 0.0])
    V = np.linalg.inv(C.T @ C / sd[3] ** 2 + np.diag(prior))[:36, :36]
    error = np.sqrt(np.einsum("ij,jk,ik->i", Z, V, Z))
    assert fit.curve("s(x,g)", data)["standard_error"].to_numpy() == pytest.approx(error, rel=1e-6)


def test_a_new_group_is_scored_by_its_own_integral():
    """log N(z; Xβ̂, σ²I + its curve), of rows of a group that was not fitted."""
    data = simulated()
    fit = th.fit("z ~ x + s(x, g, bs='fs', k=6)", data[data["g"] != 5])
    new = data[data["g"] == 5]
    sd = fit.variance_components(intervals=None)["sd"].to_numpy()
    Z = fit.model.encoder.smooths[0].columns(new)[1] * np.repeat(sd[:3], [4, 1, 1])
    mean = fit.theta[0].item() + fit.theta[1].item() * new["x"].to_numpy()
    expected = multivariate_normal(mean, Z @ Z.T + sd[3] ** 2 * np.eye(len(new))).logpdf(new["z"])
    assert fit.score(new).total == pytest.approx(expected, abs=1e-8)


def test_frequency_weights_are_repeated_rows():
    data = simulated().assign(w=np.random.default_rng(0).integers(0, 4, 150))
    weighted = th.fit("z ~ s(x, g, bs='fs', k=5)", data, weights="w")
    repeated = th.fit("z ~ s(x, g, bs='fs', k=5)", data.loc[data.index.repeat(data["w"])])
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-8)
    assert weighted.theta.numpy() == pytest.approx(repeated.theta.numpy(), abs=1e-6)


def test_one_part_of_the_curves_is_tested_by_name():
    fit = th.fit("z ~ x + s(x, g, bs='fs', k=6)", simulated())
    bend = fit.test_random("sd(s(x): bend | g)")
    assert bend.weights == {0: 0.5, 1: 0.5}
    smaller = th.fit("z ~ x + s(x, g, bs='fs', k=6)", simulated()).test_random("s(x,g)")
    assert smaller.statistic > bend.statistic > 0
    plain = th.fit("z ~ x", simulated())
    assert smaller.statistic == pytest.approx(2 * (fit.objective.value() - plain.objective.value()), abs=1e-6)


def test_groups_that_all_have_the_line_are_a_certified_boundary():
    data = simulated()
    data["v"] = 1 + data["x"] + np.random.default_rng(0).normal(size=150)
    fit = th.fit("v ~ x + s(x, g, bs='fs', k=5)", data)
    assert fit.certificate.status == "boundary"
    assert fit.certificate.boundary["sd(s(x): linear | g)"] == "the one whose curves do not differ in it"


def test_a_saved_fit_answers_the_same(tmp_path):
    data = simulated()
    fit = th.fit("z ~ s(x) + s(x, g, bs='fs', k=5)", data)
    fit.save(tmp_path / "curves.thetahat")
    again = th.load(tmp_path / "curves.thetahat")
    pd.testing.assert_frame_equal(again.smooths(), fit.smooths())
    pd.testing.assert_frame_equal(again.curve("s(x,g)"), fit.curve("s(x,g)"))
    assert np.array_equal(again.predict(data), fit.predict(data))


@pytest.mark.parametrize(
    ("term", "says"),
    [
        ("s(x, bs='fs')", "s\\(x, g, bs='fs'\\)"),
        ("te(x, g, bs='fs')", "s\\(x, g, bs='fs'\\)"),
        ("s(x, g, bs='fs', by=z)", "by="),
        ("s(x, bs='cr', base='cr')", "base="),
        ("s(x, g, bs='fs', base='re')", "'cr', 'cc', 'ps', 'tp'"),
        ("s(t, x, bs='fs')", "factor last: s\\(x, t, bs='fs'\\)"),
        ("s(x, g, bs='fs') + (1 | g)", "an intercept"),
        ("(0 + x | g) + s(x, g, bs='fs')", "a slope of x"),
        ("s(x, g, bs='fs') + s(x, g, bs='fs', k=5)", "a slope of x"),
        ("s(x, g, bs='fs') + s(z, g, bs='fs') + (0 + z | g)", "a slope of z"),
        ("s(x, by=one)", "Leave by= out"),
        ("te(x, z, by=one)", "Leave by= out"),
    ],
)
def test_a_curve_of_each_group_that_cannot_be_is_refused_by_name(term, says):
    data = simulated().assign(one=2.0)
    data["t"] = data["g"].map("abcdef".__getitem__)
    with pytest.raises(BadFormula, match=says):
        th.fit(f"y ~ {term}", data)


def test_many_groups_are_cheap_and_their_curves_asked_for():
    """1,000 groups of 12 rows: the widest factor is eliminated, whatever the rest; unasked, no 1,000 curves are made."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.repeat(np.arange(1000), 12), "x": rng.random(12_000)})
    b = rng.normal(size=(1000, 2))[data["g"]]
    data["y"] = b[:, 0] + b[:, 1] * np.sin(6 * data["x"]) + 0.5 * rng.normal(size=12_000)
    fit = th.fit("y ~ s(x, g, bs='fs', k=5)", data)
    assert fit.certificate.ok
    assert fit.model.columns(next(iter(fit.source.batches(fit.model)))).starts[-1] == 1
    with pytest.raises(BadArgument, match="data="):
        fit.curve("s(x,g)")
    assert len(fit.curve("s(x,g)", data.head(24))) == 24


def test_the_factor_with_more_columns_is_eliminated():
    """6 groups of 5 columns beside 20 of one: the others' 20 columns and the intercept are what is left."""
    data = simulated().assign(h=np.arange(150) % 20)
    fit = th.fit("z ~ s(x, g, bs='fs', k=5) + (1 | h)", data)
    columns = fit.model.columns(next(iter(fit.source.batches(fit.model))))
    assert (columns.grouped.width, columns.grouped.levels, columns.starts[-1]) == (5, 6, 21)
