"""The report asks of each kind of model what can be asked of it: the numbers in its sentences and figures are those of the methods
that give them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import thetahat as th
from thetahat.evaluation.group_residuals import residuals_by_group, spread_of, standardised_modes
from thetahat.report import group_charts, influence_chart, level_charts, survival_charts
from thetahat.report.diagnostics import _moments
from thetahat.report.formatting import number, probability

rng = np.random.default_rng(8)
n = 240
x, z = rng.normal(size=(2, n))
arm = rng.choice(["a", "b", "c"], n)
site = rng.integers(0, 12, n)
b = rng.normal(size=12)
true, end = rng.weibull(1.4, n) * np.exp(0.4 - 0.5 * x), rng.exponential(3.0, n)
latent = x + 0.4 * (arm == "b") + rng.logistic(size=n)
DATA = pd.DataFrame(
    {
        "t": np.minimum(true, end),
        "e": (true <= end).astype(int),
        "x": x,
        "z": z,
        "arm": arm,
        "site": [f"s{i}" for i in site],
        "grade": pd.Categorical.from_codes(np.digitize(latent, [-1, 0.5, 2]), list("pqrs"), ordered=True),
        "y": 1 + x + b[site] + rng.normal(size=n),
        "won": (latent + b[site] > 0).astype(float),
        "which": rng.choice(list("uvw"), n),
    },
    index=[f"id{i}" for i in range(n)],
)
FITS = {
    "cox": lambda: th.fit("Surv(t, e) ~ x + arm", DATA, "cox"),
    "cox with a frailty": lambda: th.fit("Surv(t, e) ~ x + (1 | site)", DATA, "cox"),
    "weibull": lambda: th.fit("Surv(t, e) ~ x + arm", DATA, "weibull"),
    "ordinal": lambda: th.fit("grade ~ x + arm", DATA, "ordinal"),
    "categorical": lambda: th.fit("which ~ x", DATA, "categorical"),
    "mixed": lambda: th.fit("y ~ x + (1 | site)", DATA),
    "mixed binary": lambda: th.fit("won ~ x + (1 | site)", DATA, "bernoulli"),
    "normal": lambda: th.fit("y ~ x + arm", DATA),
}
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Balanced(HTMLParser):
    """Every tag that is opened is closed, in order; collects list items and titles of dots."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.items: list[str] = []
        self.titles: list[str] = []
        self.charts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "li":
            self.items.append("")
        if tag == "svg":
            self.charts.append(dict(attrs)["aria-label"])

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "li" in self.open:
            self.items[-1] += data.replace("\u00a0", " ")
        if self.open and self.open[-1] == "title" and "svg" in self.open:
            self.titles.append(data)


@pytest.fixture(scope="module")
def fits() -> dict[str, th.Fit]:
    return {name: make() for name, make in FITS.items()}


@pytest.fixture(scope="module")
def pages(fits: dict[str, th.Fit], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Balanced]:
    folder, out = tmp_path_factory.mktemp("reports"), {}
    for name, fit in fits.items():
        page = Balanced()
        page.feed(fit.report(folder / "r.html").read_text(encoding="utf-8"))
        page.close()
        assert not page.open
        out[name] = page
    return out


def sentence(page: Balanced, begin: str) -> str:
    found = [item for item in page.items if item.startswith(begin)]
    assert len(found) == 1, page.items
    return found[0]


CHARTS = {
    "cox": ["Calibration", "Survival", "x over time", "arm[T.b] over time", "arm[T.c] over time"]
    + ["Cox–Snell residuals", "Deviance residuals"],
    "cox with a frailty": ["Calibration", "Survival", "Cox–Snell residuals", "Deviance residuals"],
    "weibull": ["Calibration", "Survival", "Residuals against fitted", "Residuals against the normal"],
    "ordinal": ["Calibration of each level", "Residuals against fitted", "Residuals against the normal"],
    "categorical": ["Calibration of each level", "Influence"],
    "mixed": [
        "Modes of Intercept | site",
        "Calibration",
        "Residuals against fitted",
        "Residuals within site",
    ],
    "mixed binary": ["Modes of Intercept | site", "Calibration", "Residuals within site"],
    "normal": ["Calibration", "Residuals against fitted", "Residuals against the normal", "Influence"],
}


@pytest.mark.parametrize("name", FITS)
def test_each_kind_of_model_has_its_own_figures(pages: dict[str, Balanced], name: str) -> None:
    shown = pages[name].charts
    assert [chart for chart in shown if chart in CHARTS[name]] == CHARTS[name]


def test_concordance_and_curves_are_those_of_the_fit(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    for name in ("cox", "weibull"):
        found = fits[name].concordance()
        low, high = found.interval()
        assert f"{found.value:.3f} (95% {low:.3f} to {high:.3f})" in sentence(pages[name], "Concordance")
        whole = fits[name].calibration(bins=1)
        text = sentence(pages[name], f"P(T ≤ {number(whole.attrs['at'])})")
        assert f"predicted {whole['predicted'].item():.3f}" in text
        assert f"{whole['observed'].item():.3f} (95% {whole['low'].item():.3f}" in text
        table = fits[name].survival_calibration()
        worst = table.loc[(table["predicted"] - table["observed"]).abs().idxmax()]
        text = sentence(pages[name], "The mean survival curve")
        assert f"{worst['predicted']:.3f} predicted, {worst['observed']:.3f} observed" in text
        drawn = survival_charts.curves(fits[name])[0].layer[2].data
        np.testing.assert_array_equal(pd.DataFrame(drawn)["predicted"], table["predicted"])


def test_the_test_of_proportional_hazards_and_its_residuals_are_the_fit_s(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    fit = fits["cox"]
    table = fit.proportional_hazards()
    text = sentence(pages["cox"], "Proportional hazards")
    assert (
        f"χ²(3) = {number(table.loc['all', 'statistic'])}, p = {probability(table.loc['all', 'p'])}" in text
    )
    least = table.drop(index="all")["p"].idxmin()
    assert f"that of {least}, χ²({table.loc[least, 'df']}) = {number(table.loc[least, 'statistic'])}" in text
    charts = survival_charts.proportional_hazards(fit)
    residuals = fit.residuals("scaled schoenfeld")
    for chart, name in zip(charts, fit.names, strict=True):
        drawn = pd.DataFrame(chart.layer[0].data)
        np.testing.assert_array_equal(drawn["beta"], residuals[name])
        np.testing.assert_array_equal(drawn["time"], residuals["time"])


def test_the_hazard_of_cox_snell_residuals_is_nelson_and_aalen_s(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    """H = Σ 1/n over the events so far, and its interval H e^{±1.96 s/H}, s² = Σ 1/n²."""
    residuals, event = np.asarray(fits["cox"].residuals("cox-snell")), DATA["e"].to_numpy() == 1
    table = survival_charts.hazard_of(residuals, event, np.ones(n))
    assert len(table) == event.sum()
    at, hazard, low, high = survival_charts.near_the_end(table)
    at_risk = np.array([(residuals >= r).sum() for r in residuals[event & (residuals <= at)]])
    assert len(at_risk) == int(0.9 * (event.sum() - 1)) + 1
    assert hazard == pytest.approx((1 / at_risk).sum())
    factor = np.exp(1.959963984540054 * np.sqrt((1 / at_risk**2).sum()) / hazard)
    assert (low, high) == pytest.approx((hazard / factor, hazard * factor))
    text = sentence(pages["cox"], "Cox–Snell residuals")
    assert (
        f"at {number(at, 3)} their cumulative hazard is {number(hazard, 3)} (95% {number(low, 3)} to" in text
    )


def test_the_shares_of_levels_and_the_test_of_odds_are_those_of_the_fit(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    fit = fits["ordinal"]
    text = sentence(pages["ordinal"], "Shares, observed and predicted")
    seen, said = DATA["grade"].value_counts(normalize=True), fit.predict(what="probabilities").mean()
    for level in "pqrs":
        assert f"{level} {100 * seen[level]:.1f}% and {100 * said[level]:.1f}%" in text
    table = fit.proportional_odds()
    text = sentence(pages["ordinal"], "Proportional odds (likelihood ratio)")
    assert (
        f"χ²(6) = {number(table.loc['all', 'statistic'])}, p = {probability(table.loc['all', 'p'])}" in text
    )
    drawn = pd.DataFrame(level_charts.calibration(fit)[0].layer[2].data)
    wanted = fit.calibration(bins=level_charts.BINS)
    np.testing.assert_array_equal(drawn["observed"], wanted["observed"])
    assert not [item for item in pages["categorical"].items if item.startswith("Proportional odds")]


def test_residuals_and_their_tests_are_those_of_the_fit(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    for name in ("ordinal", "mixed binary", "normal"):
        fit = fits[name]
        values = fit.residuals("quantile")
        text = sentence(pages[name], "Quantile residuals")
        assert f"standard deviation {values.std(ddof=0):.3f}" in text
        table = fit.check(99).table
        text = sentence(pages[name], "Against 99 data sets")
        assert f"uniformity p = {table.loc['uniformity', 'p_value']:.2f}" in text


def test_residuals_within_groups_have_the_spread_that_scipy_tests(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    """scipy.stats.levene, center="median": Brown and Forsythe's test."""
    fit = fits["mixed"]
    values = fit.residuals("quantile")
    groups = [values[DATA["site"] == s].to_numpy() for s in DATA["site"].unique()]
    wanted = stats.levene(*groups, center="median")
    found = spread_of(residuals_by_group(fit))
    assert found is not None
    assert (found.statistic, found.p) == pytest.approx((wanted.statistic, wanted.pvalue), rel=1e-9)
    assert (found.df, found.df_error) == (11, n - 12)
    text = sentence(pages["mixed"], "Residuals within site")
    assert f"F(11, {n - 12}) = {number(wanted.statistic)}, p = {probability(wanted.pvalue)}" in text
    chart = group_charts.residuals(fit)[0]
    boxes = pd.DataFrame(chart.layer[1].data).set_index("group")
    own = values[DATA["site"] == "s3"]
    assert boxes.loc["s3", "median"] == pytest.approx(np.median(own))
    assert boxes.loc["s3", "high"] == pytest.approx(np.quantile(own, 0.95))


def test_standardised_modes_have_variance_1_in_a_balanced_layout() -> None:
    """b̂ = λ(ȳ_g − ȳ), λ = s²/(s² + σ²/m): its variance is λs², and b̂/√(λs²) is what is drawn."""
    m, groups = 8, 60
    g = np.repeat(np.arange(groups), m)
    y = rng.normal(size=groups)[g] * 0.8 + rng.normal(size=groups * m)
    fit = th.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
    e = fit.estimates
    s2 = e["sd(Intercept | g)"] ** 2
    share = s2 / (s2 + e["scale"] ** 2 / m)
    means = y.reshape(groups, m).mean(1)
    wanted = share * (means - e["Intercept"]) / np.sqrt(share * s2)
    found = standardised_modes(fit)
    np.testing.assert_allclose(found["standardised"], wanted, rtol=1e-6)
    assert np.mean(found["standardised"] ** 2) == pytest.approx(1, abs=1e-4)  # of the maximum itself
    drawn = pd.DataFrame(group_charts.modes(fit)[0].layer[1].data)
    np.testing.assert_allclose(drawn["residual"], np.sort(wanted), rtol=1e-6)


def test_many_groups_are_a_funnel() -> None:
    g = rng.integers(0, 80, 900)
    fit = th.fit("y ~ 1 + (1 | g)", {"y": rng.normal(size=80)[g] + rng.normal(size=900), "g": g})
    chart = group_charts.residuals(fit)[0]
    dots = pd.DataFrame(chart.layer[2].data)
    table = residuals_by_group(fit).groupby("group")["residual"].agg(["std", "size"])
    assert len(dots) == 80
    np.testing.assert_allclose(np.sort(dots["sd"]), np.sort(table["std"]))
    inside = pd.DataFrame(chart.layer[0].data).set_index("n")["low"]
    k = inside.index[0]
    assert inside[k] == pytest.approx(np.sqrt(stats.chi2.ppf(0.025, k - 1) / (k - 1)))


def test_influence_names_its_rows_and_dots_say_theirs(
    fits: dict[str, th.Fit], pages: dict[str, Balanced]
) -> None:
    table = fits["normal"].influence()
    top = table["cook"].sort_values(ascending=False)
    text = sentence(pages["normal"], "The largest Cook's distances")
    assert f"{number(top.iloc[0], 3)} (row {top.index[0]})" in text
    named = [pd.DataFrame(layer.data) for layer in influence_chart.charts(fits["normal"])[0].layer[1:]]
    assert top.index[0] in set(pd.concat(named)["row"])
    titles = pages["normal"].titles
    assert titles.count(f"row {top.index[0]}") == 2  # of the residuals, and of influence
    assert all(re.fullmatch(r"row id\d+", title) for title in titles)


def test_times_in_intervals_keep_their_quantile_residuals(tmp_path: Path) -> None:
    low = np.floor(DATA["t"].to_numpy() * 2) / 2
    fit = th.fit('Surv(low, high, type="interval2") ~ x', {"low": low, "high": low + 0.5, "x": x}, "weibull")
    page = Balanced()
    page.feed(fit.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Survival" not in page.charts
    assert "Residuals against the normal" in page.charts


def test_a_profile_that_cannot_be_followed_leaves_the_others_and_says_so(tmp_path: Path) -> None:
    """The standard deviation of a smooth term's coefficients has no lower end here."""
    u = np.linspace(-3, 3, 200)
    fit = th.fit("y ~ s(u)", {"u": u, "y": np.sin(2 * u) + 0.4 * rng.normal(size=200)})
    page = fit.report(tmp_path / "r.html").read_text(encoding="utf-8")
    section = page[page.index("<h2>Profile likelihoods") : page.index("<h2>Scores")]
    assert section.count("<svg") >= 2
    assert "<h2>Smoothing</h2>" in page


def test_cox_s_model_without_predictors_and_a_mixed_family_of_times_have_reports(tmp_path: Path) -> None:
    """Of a mixed model the concordance is that of the medians at the modes of the random effects."""
    page = Balanced()
    page.feed(th.fit("Surv(t, e) ~ 1", DATA, "cox").report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [c for c in page.charts if c in CHARTS["cox"]] == [
        "Calibration",
        "Survival",
        "Cox–Snell residuals",
    ]
    fit = th.fit("Surv(t, e) ~ x + (1 | site)", DATA, "weibull")
    found = fit.concordance()
    wanted = th.evaluation.concordance.concordance(
        DATA["t"].to_numpy(), DATA["e"].to_numpy(), np.asarray(fit.predict(what="linear"))
    )
    assert found.value == pytest.approx(wanted.value, abs=1e-12)
    page = Balanced()
    page.feed(fit.report(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert f"{found.value:.3f}" in sentence(page, "Concordance")
    assert "Residuals within site" in page.charts


def test_a_row_that_was_observed_often_counts_as_often_in_the_moments_of_the_residuals() -> None:
    many = rng.integers(1, 5, n)
    weighted = th.fit("y ~ x", DATA.assign(many=many), weights="many")
    repeated = th.fit("y ~ x", DATA.loc[DATA.index.repeat(many)])
    for found, wanted in zip(_moments(weighted), _moments(repeated), strict=True):
        assert found == pytest.approx(wanted, abs=1e-8)
