"""The summary, the charts and the HTML report say what the fit says, and nothing that they were not given."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.report.plots import CHARTS


@pytest.fixture(scope="module")
def ships() -> th.Fit:
    return th.fit(
        "incidents ~ type + built + period + offset(log(service))", th.data.shipped("ships"), "poisson"
    )


class _Page(HTMLParser):
    """Counts tags, collects addresses and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def test_the_summary_holds_the_published_estimates_and_errors(ships: th.Fit) -> None:
    """McCullagh and Nelder (1989), table 6.3: period 0.385 (0.118), type C −0.687 (0.329), built 1965-69
    0.697 (0.150)."""
    lines = {
        line.split()[0]: line.split()[1:3] for line in str(ships.summary()).splitlines() if "[T." in line
    }
    assert lines["period[T.1975-79]"] == ["0.3845", "0.1183"]
    assert lines["type[T.C]"] == ["−0.6874", "0.3290"]
    assert lines["built[T.1965-69]"] == ["0.6971", "0.1496"]


def test_the_summary_says_what_was_fitted_and_what_is_known_of_it(ships: th.Fit) -> None:
    text = str(ships.summary())
    assert "incidents ~ type + built + period + offset(log(service))" in text
    assert "34 rows used, no rows dropped" in text
    assert "Certified global maximum" in text
    assert "−68.2808 nats" in text
    assert max(map(len, text.splitlines())) <= 80


def test_rows_dropped_for_missing_values_are_counted() -> None:
    frame = {"y": [1.0, 2.0, np.nan, 4.0, 4.5, 7.0], "x": [0.0, 1.0, 2.0, np.nan, 4.0, 5.0]}
    assert "4 rows used, 2 rows dropped" in str(th.fit("y ~ x", frame).summary())


def test_a_constant_stands_on_its_natural_scale_without_a_meaningless_test() -> None:
    frame = {"y": [1.0, 2.0, 2.5, 4.0, 4.5, 7.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
    fit = th.fit("y ~ x", frame)
    line = str(fit.summary()).partition("other parameters, on their own scale")[2].splitlines()[2]
    assert len(line.split()) == 5  # name, estimate, error, low, high: neither z nor p
    assert float(line.split()[1]) == pytest.approx(fit.estimates["scale"], abs=1e-4)


def test_a_category_of_many_levels_is_folded_to_a_line() -> None:
    rng = np.random.default_rng(0)
    agent = np.repeat([f"a{i:03d}" for i in range(150)], 4)
    fit = th.fit(
        "y ~ x + agent",
        {"x": rng.normal(size=600), "y": rng.poisson(3.0, 600) + 1, "agent": agent},
        "poisson",
    )
    text = str(fit.summary())
    assert "149 levels" in text
    assert len(text.splitlines()) < 40


@pytest.mark.parametrize("what", sorted(CHARTS))
def test_every_chart_can_be_drawn(ships: th.Fit, what: str) -> None:
    fit = ships
    if what in ("random_effects", "smooths"):
        x = np.linspace(0, 1, 30)
        table = {"y": np.sin(5 * x) + np.tile([0.0, 0.4, -0.3], 10), "x": x, "g": np.tile([0, 1, 2], 10)}
        fit = th.fit("y ~ s(x, k=5) + (1 | g)", table)
    if what in ("survival", "proportional_hazards"):
        fit = th.fit(
            "Surv(t, e) ~ x",
            {"t": np.arange(1.0, 31.0), "e": np.ones(30), "x": np.tile([0, 1, 1], 10)},
            family="cox",
        )
    assert fit.plot(what).to_dict()["config"]["background"] == "white"


def test_an_unknown_chart_is_refused_with_the_names(ships: th.Fit) -> None:
    with pytest.raises(BadArgument, match="calibration"):
        ships.plot("calibratoin")


def test_the_report_opens_offline_and_has_its_charts(ships: th.Fit, tmp_path: Path) -> None:
    page = _read(ships.report(tmp_path / "report.html"))
    assert not [a for a in page.addresses if not a.startswith("#")]
    assert "script" not in page.tags
    assert (
        page.tags["svg"] == 1 + 1 + 1 + 2 + 1 + 6 + 2
    )  # effects, estimates, calibration, residuals, influence, profiles, the run
    text = " ".join(page.text)
    assert "0.3845" in text
    assert "th.fit(" in text
    assert "thetahat fit" in text


def test_what_the_user_named_is_escaped(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    page = _read(th.fit(f"y ~ `{name}`", {name: x, "y": x + rng.normal(size=30)}).report(tmp_path / "r.html"))
    assert "script" not in page.tags
    assert any(name in text for text in page.text)


def test_a_fit_without_a_maximum_names_the_direction_once_and_shows_no_error() -> None:
    """x = 3.5 separates y = 0 from y = 1: every multiple of x − 3.5 is better than the last."""
    frame = {"y": [0, 0, 0, 1, 1, 1], "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    fit = th.fit("y ~ x", frame, "bernoulli", on_failure="return")
    text = str(fit.summary())
    assert "No maximum" in text
    assert text.count("separated by") == 1
    assert "std. error" not in text
    assert fit.summary().to_dict()["estimates"][1]["standard_error"] is None


def test_the_report_of_no_estimate_judges_no_predictions(tmp_path: Path) -> None:
    frame = {"y": [0, 0, 0, 1, 1, 1], "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    page = _read(th.fit("y ~ x", frame, "bernoulli", on_failure="return").report(tmp_path / "r.html"))
    assert page.tags["svg"] == 2  # the run alone
    assert "which is no estimate" in " ".join(page.text)


def test_stochastic_ascent_shows_its_trend_and_no_decrement(tmp_path: Path) -> None:
    """The third number of its trace is a standard error in nats, not Newton's decrement: one chart, with a
    band."""
    import torch

    torch.manual_seed(0)
    data = {"x": torch.randn(100, 1), "y": torch.randn(100)}
    fit = th.fit(
        th.models.Conditional(th.families.Normal(), torch.nn.Linear(1, 2)),
        data,
        solver=th.Stochastic(steps=20),
    )
    drawn = fit.plot("trace").to_dict()
    assert "decrement" not in str(drawn)
    assert "nats a term" in str(drawn)
    text = " ".join(_read(fit.report(tmp_path / "r.html")).text)
    assert "Stochastic ascent, no certificate: held-out" in text


def test_the_summary_for_json_is_strict_and_holds_every_level(ships: th.Fit) -> None:
    found = json.loads(json.dumps(ships.summary(level=0.9).to_dict(), allow_nan=False))
    assert [line["name"] for line in found["estimates"]] == ships.names
    assert found["estimates"][-1]["low"] == pytest.approx(ships.intervals(0.9)["low"].iloc[-1])
    assert found["log_likelihood"]["nats"] == pytest.approx(ships.log_likelihood)
    assert {t["name"] for t in found["tests"]} == {"type", "built"}


def test_the_terminal_and_the_notebook_say_what_the_text_says(ships: th.Fit) -> None:
    from rich.console import Console

    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(ships.summary())
    assert [line.rstrip() for line in console.export_text().splitlines()] == str(ships.summary()).splitlines()
    assert "0.3845" in ships.summary()._repr_html_()
    assert "Certified global maximum" in ships.summary()._repr_html_()


def test_a_parameter_at_its_boundary_is_named_with_the_simpler_model() -> None:
    """Counts less spread than a Poisson's: the negative binomial's dispersion goes to 0."""
    fit = th.fit(
        "y ~ x", {"x": list(range(12)), "y": [1, 1, 2, 1, 2, 1, 2, 1, 2, 2, 1, 2]}, "negative_binomial"
    )
    assert "at its boundary, where the model is Poisson" in str(fit.summary())


def test_a_column_that_needs_backticks_is_named_without_them() -> None:
    fit = th.fit(th.families.get("normal"), {"a b": [1.0, 2.0, 4.0]})
    assert str(fit.summary()).startswith("a b ~ 1")


def test_a_report_into_no_folder_is_refused(ships: th.Fit, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="no folder"):
        ships.report(tmp_path / "absent" / "r.html")


def test_a_family_without_a_cdf_lacks_that_section_and_says_why(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = {"x": rng.normal(size=60), "y": rng.choice(["a", "b", "c"], 60)}
    page = _read(th.fit("y ~ x", frame, "categorical").report(tmp_path / "r.html"))
    assert any("Not shown" in text for text in page.text)


def test_a_likelihood_of_ones_own_has_a_report(tmp_path: Path) -> None:
    import torch

    @th.model(rate=th.positive(1.0))
    def exponential(batch, rate):  # type: ignore[no-untyped-def]
        return torch.log(rate) - rate * batch["y"]

    fit = th.fit(exponential, {"y": [0.5, 1.0, 2.5, 0.1]})
    assert "Certified" in " ".join(_read(fit.report(tmp_path / "r.html")).text)


def test_a_report_that_fails_half_way_leaves_the_old_one(
    ships: th.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("the old one")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        ships.report(path)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_the_report_of_a_language_model_shows_texts_that_it_draws(tmp_path):
    """The same at every writing: the draws have a seed."""
    texts = ["abcabcabc" * 4] * 8
    tokens = th.language.Tokens(texts, "characters", context=16)
    network = th.networks.Transformer(tokens.vocabulary, layers=1, width=16, heads=2)
    fit = th.fit(th.language.Autoregressive(network), tokens, solver=th.Stochastic(steps=3))
    one, two = (fit.report(tmp_path / f"{k}.html").read_text(encoding="utf-8") for k in (1, 2))
    drawn = one.split("Drawn from the model")[1].split("<pre>")[1].split("</pre>")[0]
    assert len(drawn) == 201
    assert set(drawn) <= set("abc")
    assert drawn in two


def test_the_report_of_a_classifier_says_how_far_its_probabilities_are_off(tmp_path):
    rows = {"x": torch.randn(200, 2), "y": torch.arange(200) % 2}
    model = th.models.Conditional(th.families.Categorical(2), th.networks.mlp(2, 4, 2))
    page = (
        th.fit(model, rows, solver=th.Stochastic(steps=5))
        .report(tmp_path / "a.html")
        .read_text(encoding="utf-8")
    )
    assert "Calibration error of the data that were fitted: 0." in page


def test_charts_of_many_rows_draw_a_few_thousand_and_say_how_many() -> None:
    r = np.random.default_rng(0)
    x = r.normal(size=30_000)
    fit = th.fit("y ~ x", {"x": x, "y": x + r.normal(size=30_000)})
    against, normal = fit.plot("residuals").to_dict()["concat"]
    assert "2,000 of 30,000 rows" in " ".join(against["title"]["subtitle"])
    assert re.search(r"; 1,\d\d\d of 30,000 rows drawn$", " ".join(normal["title"]["subtitle"]))
    datasets = fit.plot("residuals").to_dict()["datasets"]
    assert max(map(len, datasets.values())) <= 2000


def test_the_line_of_dropped_rows_names_the_columns_that_lack_values_and_in_how_many_rows() -> None:
    x = np.arange(20.0)
    data = {"y": x**0.5, "x": np.where(x < 3, np.nan, x), "g": ["a", "b"] * 9 + [None, "a"], "z": x % 4}
    text = " ".join(str(th.fit("y ~ x + g + z", data).summary()).split())
    assert "16 rows used, 4 rows dropped for a missing value in x (3) and g (1)" in text
    inside = " ".join(str(th.fit("y ~ x + g + z", data, subset="z > 0").summary()).split())
    assert "dropped for a missing value in x (2) and g (1), 5 rows outside the subset" in inside


def test_under_firth_s_prior_the_summary_points_to_the_profile() -> None:
    data = {"y": [0.0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6]}
    fit = th.fit("y ~ x", data, "bernoulli", prior=th.priors.Jeffreys())
    assert "fit.intervals(kind='profile')" in str(fit.summary())
    assert "profile" not in str(th.fit("y ~ x", data).summary())
