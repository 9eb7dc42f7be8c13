"""Survival times in a formula: Surv(…) in R's conventions, and what is never silently read as something else.

R's figures are of R 4.2.2, survival 3.5-3, survreg, on its data set ovarian. survreg knows no delayed entry:
there the exponential is held to the Poisson regression of statsmodels that has its likelihood, and the
Weibull to scipy's optimum of the likelihood written out.
"""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats

import thetahat as th
from thetahat.errors import (
    BadArgument,
    BadFormula,
    DataError,
    NotFinite,
    OutOfSupport,
    UnknownColumn,
    WrongType,
)

OVARIAN = pd.DataFrame(
    {
        "futime": [59, 115, 156, 421, 431, 448, 464, 475, 477, 563, 638, 744, 769]
        + [770, 803, 855, 1040, 1106, 1129, 1206, 1227, 268, 329, 353, 365, 377],
        "fustat": [1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0],
        "rx": [1, 1, 1, 2, 1, 1, 2, 2, 1, 2, 1, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2],
        "ecog": [1, 1, 2, 1, 1, 2, 2, 2, 1, 2, 2, 1, 2, 1, 1, 2, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1],
    }
)
SURVREG = {  # intercept, ecog, rx, scale, log-likelihood
    "weibull": (6.896693128583, -0.3850425493498, 0.5286454962613, 0.8838730717031, -97.084493168387),
    "exponential": (6.961837607358, -0.4331346525744, 0.5815027279024, 1.0, -97.19803927962),
    "lognormal": (5.878440349975, -0.2292749961823, 0.8133591483972, 1.181352643878, -95.947363359565),
    "loglogistic": (6.1609976758798, -0.3360520092382, 0.7045160945802, 0.6952768500604, -96.321819643866),
    "gaussian": (653.153654406, -176.95797959, 314.605457595, 541.5972152336, -101.3896877001),
}


def scale_of(fit):
    """R's scale: of the error of log T, of which our shapes are the inverse."""
    own = fit.estimates
    return 1 / own["shape"] if "shape" in own else own.get("scale", 1.0)


@pytest.mark.parametrize("family", SURVREG)
def test_right_censored_times_are_those_of_survreg(family):
    """survreg(Surv(futime, fustat) ~ ecog.ps + rx, ovarian, dist = family)."""
    fit = th.fit("Surv(futime, fustat) ~ ecog + rx", OVARIAN, {"gaussian": "normal"}.get(family, family))
    *expected, scale, log_likelihood = SURVREG[family]
    np.testing.assert_allclose(fit.estimates[["Intercept", "ecog", "rx"]], expected, rtol=2e-5)
    assert scale_of(fit) == pytest.approx(scale, rel=1e-5)
    assert fit.log_likelihood == pytest.approx(log_likelihood, rel=1e-9)


@pytest.mark.parametrize(
    "event",
    [
        "fustat",
        "died",
        "fustat == 1",
        "twos",
        "`the event`",
        "text == 'dead'",
        "fustat > 0",
        "np.where(fustat == 1, 1, 0)",
    ],
)
def test_an_event_may_be_a_number_a_truth_or_an_expression(event):
    """1 or True is what happened; 2 where the column is coded 1 and 2, as R reads its own data set lung."""
    data = OVARIAN.assign(
        died=OVARIAN.fustat == 1, twos=OVARIAN.fustat + 1, text=np.where(OVARIAN.fustat == 1, "dead", "alive")
    )
    fit = th.fit(
        f"Surv(futime, {event}) ~ ecog + rx", data.assign(**{"the event": OVARIAN.fustat}), "weibull"
    )
    assert fit.log_likelihood == pytest.approx(SURVREG["weibull"][-1], rel=1e-9)


def visits():
    """Seen at visits every 90 days; every fifth death to the day. R's NA stands for no bound."""
    time, died, n = OVARIAN.futime.to_numpy(float), OVARIAN.fustat.to_numpy() == 1, np.arange(1, 27)
    low = np.floor((time - 1) / 90) * 90
    high = low + 90
    exact = (n % 5 == 0) & died
    low = np.where(exact | ~died, time, np.where(low == 0, np.nan, low))
    high = np.where(died, np.where(exact, time, high), np.nan)
    return OVARIAN.assign(low=low, high=high)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("weibull", (6.2491502136905, 0.5904840900926, 0.9393359141029, -56.9174934377542)),
        ("lognormal", (5.521990896501, 0.825752151442, 1.225988154039, -55.863197302571)),
    ],
)
@pytest.mark.parametrize("none", ["nan", "inf", "support"])
def test_intervals_are_those_of_survreg_however_no_bound_is_written(family, expected, none):
    """survreg(Surv(lo, up, type = "interval2") ~ rx, dist = family): NA, ±∞ or the end of the support, and no
    row is dropped."""
    data = visits()
    if none != "nan":
        data = data.assign(
            low=data.low.fillna(-np.inf if none == "inf" else 0.0), high=data.high.fillna(np.inf)
        )
    fit = th.fit('Surv(low, high, type="interval2") ~ rx', data, family)
    assert fit.source.dropped == 0
    np.testing.assert_allclose([*fit.estimates[["Intercept", "rx"]], scale_of(fit)], expected[:3], rtol=2e-5)
    assert fit.log_likelihood == pytest.approx(expected[3], rel=1e-9)


def test_the_codes_of_type_interval_say_the_same_as_two_bounds():
    """R: 0 right-censored, 1 exact, 2 left-censored, 3 an interval; time2 is needed there alone."""
    data = visits()
    code = np.select([data.low == data.high, data.high.isna(), data.low.isna()], [1, 0, 2], 3)
    data = data.assign(time=data.low.fillna(data.high), time2=data.high.where(code == 3), code=code)
    a = th.fit("Surv(time, time2, code, type='interval') ~ rx", data, "weibull")
    assert (a.source.rows, a.source.dropped) == (26, 0)
    assert a.log_likelihood == pytest.approx(-56.9174934377542, rel=1e-9)


def test_a_tobit_model_is_a_left_censored_normal():
    """R: survreg(Surv(durable, durable > 0, type = "left") ~ age + quant, tobin, dist = "gaussian")."""
    tobin = {
        "durable": [0, 0.7, 0, 0, 0, 0, 0, 3.7, 0, 3.0, 10.4, 0, 0, 0, 1.5, 0, 0, 3.5, 6.1, 0],
        "age": [
            57.7,
            50.9,
            48.5,
            41.7,
            47.7,
            59.8,
            44.3,
            45.1,
            51.7,
            50,
            46.8,
            58,
            58.9,
            40,
            34.1,
            39.9,
            33.4,
            48.1,
            46.6,
            53.1,
        ],
        "quant": [
            236,
            283,
            207,
            220,
            238,
            216,
            284,
            221,
            275,
            269,
            207,
            249,
            246,
            277,
            231,
            219,
            240,
            266,
            214,
            251,
        ],
    }
    fit = th.fit('Surv(durable, durable > 0, type="left") ~ age + quant', tobin, "normal")
    expected = [15.14486636068153, -0.12905928409699, -0.04554166295426, 5.572539763092]
    np.testing.assert_allclose(fit.estimates, expected, rtol=1e-5)
    assert fit.log_likelihood == pytest.approx(-28.940133199721, rel=1e-10)


# ---- delayed entry -----------------------------------------------------------------------------------------


def entered(n=400, shape=1.0):
    """Times of scale exp(1 + x/2) that were seen from `start` on, and no longer than 6."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=n)
    true, start = np.exp(1 + 0.5 * x) * rng.weibull(shape, n), rng.uniform(0, 2, n)
    x, true, start = (v[true > start] for v in (x, true, start))
    return pd.DataFrame({"x": x, "start": start, "stop": np.minimum(true, 6.0), "event": true <= 6.0})


def test_exponential_times_with_delayed_entry_are_a_poisson_regression():
    """Σ d·log λ − λ·(stop − start) is, up to Σ d·log(stop − start), the likelihood of counts d of mean
    λ·(stop − start): GLM, statsmodels."""
    data = entered()
    fit = th.fit("Surv(start, stop, event) ~ x", data, "exponential")
    exposure = data.stop - data.start
    glm = sm.GLM(
        data.event * 1.0, sm.add_constant(data.x), sm.families.Poisson(), offset=np.log(exposure)
    ).fit(tol=1e-13)
    np.testing.assert_allclose(fit.estimates, -glm.params, rtol=1e-9)
    np.testing.assert_allclose(fit.standard_errors(), glm.bse, rtol=1e-6)
    assert fit.log_likelihood == pytest.approx(glm.llf - np.log(exposure[data.event]).sum(), rel=1e-10)


def test_the_rate_of_exponential_times_is_events_over_time_seen():
    """The closed form: λ̂ = Σ d / Σ (stop − start), and without delayed entry Σ d / Σ time."""
    data = entered()
    mean = np.exp(th.fit("Surv(start, stop, event) ~ 1", data, "exponential").estimates["Intercept"])
    assert mean == pytest.approx((data.stop - data.start).sum() / data.event.sum(), rel=1e-10)
    mean = np.exp(th.fit("Surv(stop, event) ~ 1", data, "exponential").estimates["Intercept"])
    assert mean == pytest.approx(data.stop.sum() / data.event.sum(), rel=1e-10)


def test_weibull_times_with_delayed_entry_are_at_the_maximum_of_the_likelihood_written_out():
    """Σ d·log h(stop) − H(stop) + H(start), H(t) = (t/e^η)^k; Nelder and Mead's maximum, and a split of a
    row at any time changes nothing."""
    data = entered(shape=1.6)

    def minus(p):
        scale, k = np.exp(p[0] + p[1] * data.x), np.exp(p[2])
        hazard = np.log(k) + (k - 1) * np.log(data.stop) - k * np.log(scale)
        return -(hazard[data.event].sum() - ((data.stop / scale) ** k - (data.start / scale) ** k).sum())

    fit = th.fit("Surv(start, stop, event) ~ x", data, "weibull")
    found = optimize.minimize(
        minus,
        [1.0, 0.5, 0.4],
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000},
    )
    assert fit.log_likelihood == pytest.approx(-found.fun, rel=1e-10)
    np.testing.assert_allclose([*fit.estimates[:2], np.log(fit.estimates["shape"])], found.x, atol=2e-5)
    middle = (data.start + data.stop) / 2
    halves = pd.concat([data.assign(stop=middle, event=False), data.assign(start=middle)])
    assert th.fit("Surv(start, stop, event) ~ x", halves, "weibull").log_likelihood == pytest.approx(
        fit.log_likelihood, rel=1e-10
    )


def test_a_prediction_is_of_the_whole_time_whenever_the_row_entered():
    data = entered()
    fit = th.fit("Surv(start, stop, event) ~ x", data, "exponential")
    mean = np.exp(fit.estimates["Intercept"] + fit.estimates["x"] * data.x)
    np.testing.assert_allclose(np.ravel(fit.predict()), mean, rtol=1e-12)
    np.testing.assert_allclose(np.ravel(fit.predict(data[["x"]])), mean, rtol=1e-12)


def test_quantile_residuals_of_late_entries_are_uniform_where_the_model_is_true():
    """F(stop | stop > start), spread over what is above a censored time: Kolmogorov and Smirnov."""
    data = entered(4000)
    fit = th.fit("Surv(start, stop, event) ~ x", data, "exponential")
    assert stats.kstest(np.asarray(fit.residuals()), "norm").pvalue > 1e-3


# ---- missing values ----------------------------------------------------------------------------------------


def test_a_row_is_dropped_for_what_it_needs_alone():
    """NaN in the bound of a row that has none is no missing value; a missing event, entry or both bounds
    are."""
    data = visits()
    nothing = pd.DataFrame({"low": [np.nan, -np.inf], "high": [np.nan, np.inf], "rx": [1, 2]})
    fit = th.fit('Surv(low, high, type="interval2") ~ rx', pd.concat([data, nothing]), "weibull")
    assert (fit.source.rows, fit.source.dropped) == (26, 2)
    assert fit.log_likelihood == pytest.approx(-56.9174934377542, rel=1e-9)
    late = pd.DataFrame(
        {
            "start": [np.nan, 0.5, 0.5],
            "stop": [2.0, np.nan, 2.0],
            "event": [1.0, 0.0, np.nan],
            "x": [0.0, 0.0, 0.0],
        }
    )
    data = entered()
    whole = pd.concat([data.assign(event=data.event * 1.0), late])
    for event in ("event", "event == 1"):  # NaN == 1 is False: it must not become a censored row
        fit = th.fit(f"Surv(start, stop, {event}) ~ x", whole, "exponential")
        assert (fit.source.rows, fit.source.dropped) == (len(data), 3)
    with pytest.raises(NotFinite, match=r"Surv\(start, stop, event\)' is missing in row 3"):
        th.fit(
            "Surv(start, stop, event) ~ x", pd.concat([data[:3] * 1.0, late]), "exponential", missing="raise"
        )


def test_a_bound_of_truncation_that_a_row_lacks_is_the_familys_own():
    """NaN: no bound of its own; ±∞: none at all. The mean of an exponential above c is c + 1/λ: λ̂ from y
    − c of the rows with a bound."""
    y, low = np.array([1.5, 2.0, 4.0, 0.3, 1.1]), np.array([1.0, 1.0, 1.0, np.nan, -np.inf])
    fit = th.fit("y ~ 1", {"y": y, "low": low}, "truncated(exponential)", low="low")
    assert fit.source.rows == 5
    assert np.exp(fit.estimates["Intercept"]) == pytest.approx(
        (y - np.where(low == 1.0, 1.0, 0.0)).mean(), rel=1e-9
    )
    with pytest.raises(BadArgument, match="needs low for these rows"):
        th.fit(
            "y ~ x", {"y": y, "low": low, "x": [1, 2, 3, 4, 5]}, "truncated(exponential)", low="low"
        ).predict({"x": [1.0]})
    with pytest.raises(NotFinite, match="'n' is inf in row 1"):
        th.fit("y ~ 1", {"y": [1, 2, 0], "n": [3, np.inf, 4]}, "binomial", trials="n")


# ---- what is refused ---------------------------------------------------------------------------------------

DATA = OVARIAN.assign(
    text=np.where(OVARIAN.fustat == 1, "dead", "alive"),
    code=np.arange(26) % 3,
    start=OVARIAN.futime - 1,
    zero=0.0,
)


@pytest.mark.parametrize(
    ("formula", "family", "error", "words"),
    [
        ("Surv(futime) ~ rx", "weibull", BadFormula, "leave Surv out"),
        ("Surv(futime, fustat, rx, ecog) ~ rx", "weibull", BadFormula, "Accepted: Surv"),
        ("Surv(futime, fustat, type='right2') ~ rx", "weibull", BadFormula, "'interval2'"),
        ("Surv(futime, fustat) + 1 ~ rx", "weibull", BadFormula, r"not Surv\(…\) alone"),
        ("Surv(futime, fustat ~ rx", "weibull", BadFormula, "cannot be read"),
        ("Surv(futime, died) ~ rx", "weibull", UnknownColumn, "'died'"),
        ("Surv(futime, code) ~ rx", "weibull", OutOfSupport, r"is 2 in row 2.*code == 2"),
        ("Surv(futime, text) ~ rx", "weibull", WrongType, "text == 'alive'"),
        (
            "Surv(futime, start, fustat) ~ rx",
            "weibull",
            OutOfSupport,
            "row 0 .*futime = 59 is not before start = 58",
        ),
        ("Surv(futime, start, type='interval2') ~ rx", "weibull", OutOfSupport, "row 0 .*not at most"),
        ("Surv(zero, fustat) ~ rx", "weibull", OutOfSupport, "row 0: zero = 0, event = 1"),
        ("Surv(futime, fustat) ~ rx", "bernoulli", BadArgument, "is a time.*'weibull'"),
        ("Surv(futime, fustat) ~ rx", "categorical", BadArgument, "is a time.*'weibull'"),
        ("Surv(futime, fustat) ~ rx", None, BadArgument, "family='weibull'"),
        ("futime ~ rx", "censored(weibull)", BadArgument, r"Surv\(time, event\)"),
        ("futime ~ 1", "censored(weibull)", BadArgument, r"Surv\(time, event\)"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_can(formula, family, error, words):
    with pytest.raises(error, match=words):
        th.fit(formula, DATA, *([family] if family else []))


@pytest.mark.parametrize(
    "given", [{"status": "fustat"}, {"event": "fustat"}, {"upper": "futime"}, {"entry": 1.0}]
)
def test_what_was_seen_is_said_in_the_response_alone(given):
    """The old argument status=, of which 1 was censored, is answered with the formula that says it."""
    for formula in ("futime ~ rx", "Surv(futime, fustat) ~ rx"):
        with pytest.raises(BadArgument, match=r"Surv\(time, event\)"):
            th.fit(formula, DATA, "censored(weibull)", **given)


WITHOUT = [
    ("censored(weibull)", "event"),
    ("truncated(poisson)", "low="),
    ("binomial_trials", "trials"),
    ("beta_binomial", "trials"),
]


@pytest.mark.parametrize(("name", "words"), WITHOUT)
def test_no_family_is_fitted_without_what_it_needs_of_each_row(name, words):
    """By formula, to an array, as a mixture and a component of one: never the plain family."""
    family = th.families.Binomial() if name == "binomial_trials" else th.families.get(name)
    y = np.array([1.0, 2.0, 3.0, 2.0, 5.0, 4.0])
    with pytest.raises(BadArgument, match=words):
        th.fit("y ~ 1", {"y": y, "x": y}, family)
    with pytest.raises((BadArgument, DataError), match=words):
        th.fit(family, y)
    with pytest.raises((BadArgument, DataError), match=words):
        th.fit(th.models.Mixture(family, 2), {"y": y}, solver=th.EM())


# ---- the face ----------------------------------------------------------------------------------------------


def test_the_fit_says_how_many_events_there_were_and_is_saved_and_loaded(tmp_path):
    data = OVARIAN.assign(twos=OVARIAN.fustat + 1)
    fit = th.fit("Surv(futime, twos == 2) ~ ecog + rx", data, "weibull")
    assert "12 events, 14 right-censored" in str(fit.summary())
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    assert again.score(data).per_observation.sum() == pytest.approx(fit.log_likelihood, rel=1e-12)
    coded = th.fit("Surv(futime, twos) ~ ecog + rx", data, "weibull")
    again = th.load(coded.save(tmp_path / "b.thetahat"))
    assert again.score(data).per_observation.sum() == pytest.approx(fit.log_likelihood, rel=1e-12)
    assert coded.score().fingerprint == fit.score().fingerprint
    with pytest.raises(OutOfSupport, match="event"):
        again.score(data.assign(twos=OVARIAN.fustat))


def test_lifetimes_of_two_kinds_are_a_mixture_of_censored_densities():
    """A table's column `event` beside y; ±∞ and NaN in upper where it is not needed. One component is the
    fit of the formula."""
    data = {
        "y": OVARIAN.futime,
        "event": OVARIAN.fustat,
        "upper": np.where(OVARIAN.fustat == 1, np.nan, np.inf),
    }
    one = th.fit(th.models.Mixture("censored(weibull)", 1), data, solver=th.EM())
    assert one.log_likelihood == pytest.approx(
        th.fit("Surv(futime, fustat) ~ 1", OVARIAN, "weibull").log_likelihood, rel=1e-7
    )
    with pytest.raises(NotFinite, match="upper is nan in row 0"):
        th.fit(th.models.Mixture("censored(weibull)", 1), data | {"event": np.full(26, 3)}, solver=th.EM())
