"""Kaplan–Meier and its tests, against R's figures (survival 3.5-3, R 4.2), identities and sums written out."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.cli import main
from thetahat.errors import BadArgument, BadFormula, OutOfSupport, UnknownColumn
from thetahat.evaluation.curve_functionals import crossing
from thetahat.evaluation.product_limit import interval, steps

# R's data set aml (Miller 1997), which is in survival
AML = pd.DataFrame(
    {
        "time": [9, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161] + [5, 5, 8, 8, 12, 16, 23, 27, 30, 33, 43, 45],
        "status": [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0] + [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1],
        "x": ["Maintained"] * 11 + ["Nonmaintained"] * 12,
    }
)


@pytest.fixture(scope="module")
def km():
    return th.fit("Surv(time, status) ~ x", AML, family="nonparametric")


def test_the_curves_of_aml_are_those_of_r(km) -> None:
    """survfit(Surv(time, status) ~ x, aml): surv, std.err (of log S), cumhaz."""
    found = km.curves()
    survival = (
        [0.909090909091, 0.818181818182, 0.715909090909, 0.613636363636, 0.613636363636, 0.490909090909]
        + [0.368181818182, 0.368181818182, 0.184090909091, 0.184090909091]
        + [0.833333333333, 0.666666666667, 0.583333333333, 0.583333333333, 0.486111111111, 0.388888888889]
        + [0.291666666667, 0.194444444444, 0.097222222222, 0.0]
    )
    error = (
        [0.09534625892456, 0.1421338109037, 0.1950875779212, 0.2487341690815, 0.2487341690815]
        + [0.3344677665616, 0.4418167269378, 0.4418167269378, 0.8337877548885, 0.8337877548885]
        + [0.1290994448736, 0.2041241452319, 0.2439750182371, 0.2439750182371, 0.30472470011]
        + [0.3779644730092, 0.4755948656057, 0.626783170528, 0.9449111825231]
    )
    hazard = [0.0909090909091, 0.1909090909091, 0.3159090909091, 0.4587662337662, 0.4587662337662]
    assert found["survival"].to_numpy() == pytest.approx(survival, abs=1e-12)
    relative = (found["standard_error"] / found["survival"]).to_numpy()
    assert relative[:-1] == pytest.approx(error, abs=1e-12)
    assert np.isnan(relative[-1])
    assert found["cumulative_hazard"].to_numpy()[:5] == pytest.approx(hazard, abs=1e-12)
    assert found["group"].unique().tolist() == ["x=Maintained", "x=Nonmaintained"]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("log-log", [0.50808020576993, 0.01173848012319], [0.986673822668, 0.525014842727]),
        ("log", [0.7541338450815, 0.0359178984892], [1.0, 0.943525769475]),
        ("plain", [0.7392043331338, 0.0], [1.0, 0.484931162720]),
    ],
)
def test_the_intervals_are_those_of_r(km, kind: str, low: list[float], high: list[float]) -> None:
    """survfit(…, conf.type=kind), of the first group at its first and last time."""
    found = km.curves(interval=kind).iloc[[0, 9]]
    assert found["low"].to_numpy() == pytest.approx(low, abs=1e-11)
    assert found["high"].to_numpy() == pytest.approx(high, abs=1e-11)


def test_medians_and_restricted_means_are_those_of_r(km) -> None:
    """summary(survfit(…))$table, rmean, se(rmean), median and its limits."""
    log = km.median(interval="log")
    assert log["value"].tolist() == [31.0, 23.0]
    assert log["low"].tolist() == [18.0, 8.0]
    assert log["high"].isna().all()
    loglog = km.median()
    assert loglog["low"].tolist() == [13.0, 5.0]
    assert loglog["high"].fillna(-1).tolist() == [-1.0, 33.0]
    mean = km.restricted_mean()
    assert mean["until"].tolist() == [161.0, 161.0]
    assert mean["value"].to_numpy() == pytest.approx([52.6454545455, 22.7083333333], abs=1e-9)
    assert mean["standard_error"].to_numpy() == pytest.approx([19.82860279556, 4.18094198103], abs=1e-9)


def test_log_rank_tests_are_those_of_r(km) -> None:
    """survdiff(Surv(time, status) ~ x, aml, rho = 0 and 1): chisq, pvalue."""
    plain, weighted = km.log_rank(), km.log_rank(rho=1)
    assert (plain.statistic, plain.p_value) == pytest.approx((3.3963886989776, 0.0653393220405), abs=1e-11)
    assert weighted.statistic == pytest.approx(2.7792795447518, abs=1e-11)
    assert plain.df == 1
    assert "rho = 1" in str(weighted)


def test_stratified_log_rank_is_the_sum_over_strata() -> None:
    """U and V written out for each stratum, of one group among two."""
    rng = np.random.default_rng(2)
    n = 60
    data = pd.DataFrame(
        {
            "t": rng.integers(1, 12, n),
            "s": rng.integers(0, 2, n),
            "x": rng.choice(list("ab"), n),
            "z": rng.choice(list("uv"), n),
        }
    )
    U = V = 0.0
    for _, part in data.groupby("z"):
        for t in sorted(part["t"][part["s"] == 1].unique()):
            risk = part[part["t"] >= t]
            n_all, n_a = len(risk), int((risk["x"] == "a").sum())
            d = int(((risk["t"] == t) & (risk["s"] == 1)).sum())
            d_a = int(((risk["t"] == t) & (risk["s"] == 1) & (risk["x"] == "a")).sum())
            U += d_a - d * n_a / n_all
            V += d * (n_a / n_all) * (1 - n_a / n_all) * (n_all - d) / max(n_all - 1, 1)
    fit = th.fit("Surv(t, s) ~ x", data, family="nonparametric")
    found = fit.log_rank(strata="z")
    assert found.statistic == pytest.approx(U**2 / V, rel=1e-12)
    assert "within z" in str(found)


def test_without_censoring_the_curve_is_one_less_the_empirical_distribution() -> None:
    t = np.random.default_rng(0).integers(1, 30, 200).astype(float)
    fit = th.fit("Surv(t, s) ~ 1", {"t": t, "s": np.ones(200)}, family="nonparametric")
    found = fit.curves()
    assert found["survival"].to_numpy() == pytest.approx([(t > v).mean() for v in found["time"]], abs=1e-12)
    p = np.unique(t, return_counts=True)[1] / 200
    assert fit.log_likelihood == pytest.approx(200 * (p * np.log(p)).sum(), rel=1e-12)
    S = found["survival"].to_numpy()
    assert found["standard_error"].to_numpy()[:-1] == pytest.approx(np.sqrt(S * (1 - S) / 200)[:-1], rel=1e-9)


def test_the_log_likelihood_is_the_mass_given_to_what_was_seen_and_no_other_hazards_give_more(km) -> None:
    total = 0.0
    for name, part in km.curves().groupby("group"):
        own = AML[AML["x"] == name.removeprefix("x=")]
        t, S = part["time"].to_numpy(), part["survival"].to_numpy()
        before = np.concatenate([[1.0], S[:-1]])
        at = np.searchsorted(t, own["time"])
        mass = np.where(own["status"] == 1, before[at] - S[at], S[at])
        total += np.log(mass).sum()
    assert km.log_likelihood == pytest.approx(total, rel=1e-12)
    assert km.certificate.ok
    assert km.certificate.concave
    assert km.certificate.nats == 0.0


def test_frequency_weights_are_repeated_rows() -> None:
    w = np.resize([1, 2, 3, 0], len(AML))
    weighted = th.fit("Surv(time, status) ~ x", AML.assign(w=w), family="nonparametric", weights="w")
    repeated = th.fit("Surv(time, status) ~ x", AML.loc[AML.index.repeat(w)], family="nonparametric")
    pd.testing.assert_frame_equal(weighted.curves(), repeated.curves())
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, rel=1e-12)
    assert weighted.log_rank().statistic == pytest.approx(repeated.log_rank().statistic, rel=1e-12)


def test_weights_are_those_of_r() -> None:
    """survfit(Surv(time, status) ~ 1, weights = rep(c(1, 2, 3), length = 23)) at 10, 30, 45."""
    data = AML.assign(w=np.resize([1.0, 2.0, 3.0], len(AML)))
    fit = th.fit("Surv(time, status) ~ 1", data, family="nonparametric", weights="w")
    found = fit.curves(times=[10, 30, 45], interval="log")
    assert found["survival"].to_numpy() == pytest.approx([0.777777777778, 0.464778503994, 0.185911401598])
    assert found["standard_error"].to_numpy() == pytest.approx(
        [0.0619748167803, 0.0802788030204, 0.0669884670574], abs=1e-12
    )
    assert found["low"].to_numpy() == pytest.approx([0.6653193707893, 0.3313007084210, 0.0917481039285])


def test_rows_enter_the_risk_set_after_their_entry() -> None:
    """Sums written out; a row that enters at t is not at risk at t."""
    start, stop = np.array([0.0, 0, 2, 3, 1, 4]), np.array([2.0, 5, 4, 6, 4, 7])
    event = np.array([1, 0, 1, 1, 0, 1])
    found = steps(stop, event, start)
    expected = [((start < t) & (stop >= t)).sum() for t in found.time]
    assert found.at_risk.tolist() == expected
    data = {"a": start, "b": stop, "s": event, "x": list("aabbab")}
    fit = th.fit("Surv(a, b, s) ~ 1", data, family="nonparametric")
    risks = [(2.0, 3), (4.0, 4), (6.0, 2), (7.0, 1)]
    S = np.cumprod([1 - 1 / n for _, n in risks])
    assert fit.curves(times=[t for t, _ in risks])["survival"].to_numpy() == pytest.approx(S, abs=1e-12)


def test_entries_strata_and_rho_are_those_of_r() -> None:
    """i = 1 … 23, entry = floor(time/3) for even i, else 0; g = i %% 3: summary(survfit(Surv(entry, time, status) ~ x),
    times = c(8, 23, 34)); survdiff(… ~ x + strata(g)), survdiff(… ~ g, rho = 0.5)."""
    i = np.arange(1, 24)
    data = AML.assign(entry=np.where(i % 2 == 0, np.floor(AML["time"] / 3), 0.0), g=i % 3)
    fit = th.fit("Surv(entry, time, status) ~ x", data, family="nonparametric")
    found = fit.curves(times=[8, 23, 34], interval="log")
    S = [1.0, 0.58333333333333, 0.35, 0.58333333333333, 0.41666666666667, 0.16666666666667]
    error = [0.0, 0.15805287051029, 0.15914266834790, 0.15805287051029, 0.15055196797694, 0.10936122047239]
    low = [0.342993292521461, 0.143559644179162, 0.342993292521461, 0.205224211795189, 0.046059382559439]
    assert found["survival"].to_numpy() == pytest.approx(S, abs=1e-13)
    assert found["standard_error"].to_numpy() == pytest.approx(error, abs=1e-13)
    assert found["at_risk"].tolist() == [8, 7, 4, 8, 6, 2]
    assert found["low"].to_numpy()[1:] == pytest.approx(low, abs=1e-13)
    stratified = th.fit("Surv(time, status) ~ x", data, family="nonparametric").log_rank(strata="g")
    assert stratified.statistic == pytest.approx(2.3176787447252, abs=1e-12)
    weighted = th.fit("Surv(time, status) ~ C(g)", data, family="nonparametric").log_rank(rho=0.5)
    assert weighted.statistic == pytest.approx(0.75242046074299, abs=1e-12)
    assert weighted.df == 2


@pytest.mark.parametrize("formula", ["x + z", "x:z", "x*z"])
def test_categories_make_groups_of_their_combinations(formula: str) -> None:
    data = AML.assign(z=np.resize(["p", "q"], len(AML)), n=1)
    fit = th.fit(f"Surv(time, status) ~ {formula}", data, family="nonparametric")
    assert fit.groups == (
        "x=Maintained, z=p",
        "x=Maintained, z=q",
        "x=Nonmaintained, z=p",
        "x=Nonmaintained, z=q",
    )
    assert fit.log_rank().df == 3
    own = th.fit("Surv(time, status) ~ 1", data[(data.x == "Maintained") & (data.z == "q")], "nonparametric")
    first = fit.curves().query("group == 'x=Maintained, z=q'")["survival"].to_numpy()
    assert first == pytest.approx(own.curves()["survival"].to_numpy())


def test_numbers_and_booleans_become_groups_where_that_is_meant() -> None:
    data = AML.assign(k=np.resize([1, 2], len(AML)), b=np.resize([True, False], len(AML)))
    assert th.fit("Surv(time, status) ~ C(k)", data, "nonparametric").groups == ("k=1", "k=2")
    assert th.fit("Surv(time, status) ~ b", data, "nonparametric").groups == ("b=False", "b=True")


def test_a_median_in_a_flat_stretch_is_its_middle() -> None:
    t = np.array([1.0, 2.0, 3.0, 4.0])
    assert crossing(t, np.array([0.75, 0.5, 0.5, 0.2]), 0.5) == 3.0
    assert crossing(t, np.array([0.75, 0.5, 0.5, 0.5]), 0.5) == 3.0
    assert np.isnan(crossing(t, np.array([0.9, 0.8, 0.7, 0.6]), 0.5))


def test_without_events_the_curve_is_one_and_the_certificate_says_so() -> None:
    fit = th.fit("Surv(t, s) ~ 1", {"t": [1.0, 2.0], "s": [0, 0]}, family="nonparametric")
    assert fit.curves()["survival"].tolist() == [1.0, 1.0]
    assert fit.log_likelihood == 0.0
    assert "No event was seen in all" in str(fit.summary())
    assert np.isnan(fit.median()["value"].iloc[0])


def test_a_curve_that_falls_to_nothing_before_others_enter_is_pointed_out() -> None:
    data = {"a": [0.0, 3.0, 3.0], "b": [2.0, 5.0, 6.0], "s": [1, 1, 0]}
    fit = th.fit("Surv(a, b, s) ~ 1", data, family="nonparametric")
    assert fit.curves()["survival"].tolist() == [0.0, 0.0, 0.0]
    assert "But in all, every row at risk at 2 had the event" in str(fit.certificate)


def test_a_curve_is_not_known_after_its_last_censored_row(km) -> None:
    found = km.curves(times=[0, 200]).set_index(["group", "time"])["survival"]
    assert found["x=Maintained", 0] == 1.0
    assert np.isnan(found["x=Maintained", 200])
    assert found["x=Nonmaintained", 200] == 0.0


def test_rows_with_a_missing_value_are_counted() -> None:
    data = AML.astype({"time": float}).assign(z=np.resize(["p", "q"], len(AML)))
    data.loc[3, "time"] = np.nan
    data.loc[5, "x"] = None
    fit = th.fit("Surv(time, status) ~ x", data, family="nonparametric")
    assert fit.times.dropped == 2
    assert "2 dropped" in str(fit.summary())
    rest = data.dropna()
    again = th.fit("Surv(time, status) ~ x", rest, family="nonparametric")
    assert fit.log_rank(strata="z").statistic == pytest.approx(again.log_rank(strata="z").statistic)


def test_a_million_rows_take_a_moment() -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    found = steps(rng.exponential(size=n).round(4), rng.integers(0, 2, n), weight=np.ones(n))
    assert found.at_risk[0] == n


BAD = [
    ("Surv(time, status) ~ age", {}, BadFormula, "C\\(age\\)"),
    ("Surv(time, status) ~ log(age)", {}, BadFormula, "is not a column"),
    ("Surv(time, status) ~ x + offset(age)", {}, BadFormula, "offset"),
    ("time ~ x", {}, BadFormula, "not a time"),
    ("Surv(negative, status) ~ x", {}, OutOfSupport, "row 0 .* -1"),
    ("Surv(age, time, status) ~ x", {}, OutOfSupport, "is not before"),
    ("Surv(time, status) ~ nothing", {}, UnknownColumn, "nothing"),
    ("Surv(time, status) ~ x", {"scale": 1.0}, BadArgument, "takes no scale="),
    ("Surv(time, status) ~ x", {"prior": th.priors.Normal(1.0)}, BadArgument, "takes no prior="),
    ("Surv(time, status) ~ x", {"covariance": "HC3"}, BadArgument, "takes no covariance="),
    ("Surv(time, status) ~ x", {"missing": "ignore"}, BadArgument, "missing="),
    ("Surv(time, status) ~ x", {"weights": "nothing"}, UnknownColumn, "nothing"),
    ("Surv(time, status) ~ x", {"weights": "negative"}, th.errors.BadWeights, "row 0"),
]


@pytest.mark.parametrize(("formula", "arguments", "error", "said"), BAD)
def test_what_cannot_be_fitted_is_refused(formula, arguments, error, said) -> None:
    data = AML.assign(age=30.0, negative=-1.0)
    with pytest.raises(error, match=said):
        th.fit(formula, data, family="nonparametric", **arguments)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda f: f.curves(times=[-1.0]), "times="),
        (lambda f: f.curves(times=[np.inf]), "times="),
        (lambda f: f.curves(times=[]), "times="),
        (lambda f: f.curves(times="soon"), "times="),
        (lambda f: f.curves(interval="wald"), "log-log"),
        (lambda f: f.curves(level=1.0), "level"),
        (lambda f: f.quantile(1.5), "q="),
        (lambda f: f.restricted_mean(until=500), "known until 161"),
        (lambda f: f.restricted_mean(until=-1), "until="),
        (lambda f: f.restricted_mean(level=2.0), "level"),
        (lambda f: f.log_rank(rho=np.nan), "rho="),
    ],
)
def test_what_cannot_be_asked_is_refused(km, ask, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        ask(km)


def test_a_log_rank_test_needs_groups_events_and_strata_that_there_are(km) -> None:
    data = AML.assign(one="a", z=["p"] * 22 + [None])
    with pytest.raises(BadArgument, match="only group"):
        th.fit("Surv(time, status) ~ one", data, "nonparametric").log_rank()
    with pytest.raises(BadArgument, match="names no groups"):
        th.fit("Surv(time, status) ~ 1", data, "nonparametric").log_rank()
    with pytest.raises(BadArgument, match="no row has an event"):
        th.fit("Surv(time, status) ~ x", data.assign(status=0), "nonparametric").log_rank()
    with pytest.raises(UnknownColumn, match="nothing"):
        km.log_rank(strata="nothing")
    with pytest.raises(BadArgument, match="missing in row 22"):
        th.fit("Surv(time, status) ~ x", data, "nonparametric").log_rank(strata="z")


def test_a_fit_does_not_change_and_says_what_it_is(km) -> None:
    with pytest.raises(AttributeError, match="does not change"):
        km.log_likelihood = 0.0
    assert repr(km).startswith("Nonparametric(2 curves of Surv(time, status); log_likelihood=-42.7999 nats")
    text = str(km.summary())
    for said in ("x=Maintained", "-42.7999 nats", "certified global maximum", "23 rows"):
        assert said in text
    assert "<pre" in km._repr_html_()


def test_an_interval_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadArgument, match="interval="):
        interval(np.array([0.5]), np.array([0.1]), 0.95, "exact")


def test_weights_that_are_not_whole_are_pointed_out() -> None:
    with pytest.warns(UserWarning, match="not whole numbers"):
        th.fit("Surv(time, status) ~ x", AML.assign(w=0.5), family="nonparametric", weights="w")


def test_the_summary_as_plain_values_is_json(km) -> None:
    found = json.loads(json.dumps(km.summary().to_dict()))
    assert found["groups"][0]["group"] == "x=Maintained"
    assert found["groups"][0]["high"] is None
    assert found["certificate"]["status"] == "certified maximum"
    assert found["log_likelihood"] == km.log_likelihood


def test_the_name_is_of_formulas_alone() -> None:
    with pytest.raises(BadArgument, match="not a family of a model"):
        th.families.get("nonparametric")
    with pytest.raises(BadArgument, match="needs a formula"):
        th.fit(th.families.get("weibull"), AML, family="nonparametric")
    with pytest.raises(BadArgument, match="takes a column"):
        th.fit("Surv(time, status) ~ x", AML, "nonparametric", weights=th.weights.Probability("status"))
    with pytest.raises(BadArgument, match="on_failure"):
        th.fit("Surv(time, status) ~ x", AML, "nonparametric", on_failure="ignore")


def test_the_command_line_prints_curves_and_refuses_files(tmp_path, capsys) -> None:
    path = tmp_path / "aml.csv"
    AML.to_csv(path, index=False)
    call = ["fit", "Surv(time, status) ~ x", str(path), "--family", "nonparametric"]
    assert main([*call, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["observations"] == 23
    assert main(call) == 0
    assert "x=Nonmaintained" in capsys.readouterr().out
    assert main([*call, "--report", str(tmp_path / "a.html")]) == 2
    assert "not saved" in capsys.readouterr().err


def test_a_file_and_a_dict_are_read_as_a_frame_is(km, tmp_path) -> None:
    AML.to_parquet(tmp_path / "aml.parquet")
    for data in (tmp_path / "aml.parquet", AML.to_dict("list")):
        fit = th.fit("Surv(time, status) ~ x", data, family="nonparametric")
        pd.testing.assert_frame_equal(fit.curves(), km.curves())
