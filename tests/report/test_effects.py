"""The report opens with one sentence for each average effect; its numbers are those of `fit.slopes()`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import thetahat as th
from thetahat.report.effects import MOST, effects
from thetahat.report.facts import gather
from thetahat.report.formatting import number


@pytest.fixture(scope="module")
def frame() -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    x, g, h = r.normal(size=200), r.choice(["a", "b - c", "d"], 200), r.integers(0, 20, 200)
    y = 1 + 2 * x + r.normal(size=20)[h] + r.normal(size=200)
    yes = np.where(x + r.normal(size=200) > 0, "yes", "no")
    return {
        "x": x,
        "g": g,
        "w": h.astype(str),
        "h": h,
        "y": y,
        "b": yes,
        "n": r.poisson(np.exp(x / 3)),
        "t": np.exp(y),
    }


def sentences(fit: th.Fit, level: float = 0.95) -> tuple[str, ...]:
    return effects(fit, gather(fit, level=level)).sentences


def test_of_a_line_the_sentence_is_the_coefficient_and_its_interval(frame) -> None:
    """E[y] = a + b x: the average slope is b, its interval Student's."""
    fit = th.fit("y ~ x", frame)
    low, high = fit.intervals().loc["x", ["low", "high"]]
    (found,) = sentences(fit)
    assert found == (
        f"One more unit of x goes with {fit.estimates['x']:.2f} more y on average (95% interval {low:.2f} to {high:.2f})."
    )


def test_categories_stand_against_their_first_level_and_counts_are_more_or_fewer() -> None:
    """Two groups of counts, means 2 and 1: saturated, so the difference is −1 and the ratio 1/2. Var = ȳ₁/n₁ + ȳ₂/n₂ =
    3/4; log ratio ± 1.96 √(1/8 + 1/4)."""
    data = {"visits": [2, 1, 3, 2, 1, 0, 2, 1], "g": list("aaaabbbb")}
    (found,) = sentences(th.fit("visits ~ g", data, "poisson"))
    half = 1.959964 * np.sqrt(3 / 4)
    low, high = (0.5 * np.exp(s * 1.959964 * np.sqrt(3 / 8)) for s in (-1, 1))
    assert found == (
        f"g = b goes with 1.00 fewer visits on average than g = a (95% interval −{1 + half:.2f} to {half - 1:.2f}, which "
        f"includes 0) and a mean 0.500 times as large ({low:.3f} to {high:.2f})."
    )


def test_of_a_binary_response_the_sentence_has_the_level_and_the_odds(frame) -> None:
    """The ratio of odds is exp(β), its interval exp of β's."""
    fit = th.fit("b ~ x", frame, "bernoulli")
    (found,) = sentences(fit)
    assert found.startswith("One more unit of x goes with a probability of b = yes that is 0.")
    low, high = np.exp(fit.intervals().loc["x", ["low", "high"]].astype(float))
    numbers = [float(v) for v in re.findall(r"[\d.]+\d", found.partition(" odds ")[2])]
    assert numbers == pytest.approx(
        [np.exp(fit.estimates["x"]), low, high], rel=5e-3
    )  # three digits are shown


def test_of_successes_of_several_trials_the_sentence_has_their_number_and_the_odds(frame) -> None:
    fit = th.fit("s ~ x", frame | {"s": frame["n"].clip(max=9), "m": np.full(200, 9)}, "binomial", trials="m")
    (found,) = sentences(fit)
    assert " more s on average" in found
    assert f" odds {np.exp(fit.estimates['x']):.2f} times as large" in found


def test_each_category_of_a_response_has_its_sentence_and_they_sum_to_nothing(frame) -> None:
    found = sentences(th.fit("g ~ x", frame, "categorical"))
    assert len(found) == 3
    signed = [
        (1 if f" {'higher'} " in s else -1) * float(re.findall(r"that is ([\d.]+)", s)[0]) for s in found
    ]
    assert abs(sum(signed)) < 2e-3  # three roundings
    assert "g = b - c" in found[1]


def test_a_level_with_the_sign_in_its_name_is_not_cut(frame) -> None:
    found = sentences(th.fit("y ~ g", frame))
    assert found[0].startswith("The difference b - c - a of g goes with ")


def test_wide_categories_are_counted_and_no_more_than_twelve_sentences_stand(frame) -> None:
    found = sentences(th.fit("y ~ x + w", frame))
    assert found[-1] == "w has 20 levels: fit.slopes('w') compares each with 0."
    r = np.random.default_rng(1)
    many = {f"x{i}": r.normal(size=200) for i in range(15)} | {"y": frame["y"], "w": frame["w"]}
    found = sentences(th.fit("y ~ " + " + ".join(list(many)[:15]) + " + w", many))
    assert len(found) == MOST
    assert found[-2].startswith("w has 20 levels")
    assert found[-1] == "5 more effects: fit.slopes() has all."


def test_a_mixed_model_says_that_its_random_effects_are_zero(frame) -> None:
    fit = th.fit("y ~ x + (1 | h)", frame)
    found = effects(fit, gather(fit))
    assert f"goes with {fit.estimates['x']:.3f} more y" in found.sentences[0]
    assert "random effects 0" in found.note


def test_of_a_time_the_sentence_names_the_time(frame) -> None:
    fit = th.fit("Surv(t, e) ~ x", frame | {"e": np.ones(200)}, "exponential")
    assert " more t on average" in sentences(fit)[0]


def test_of_cox_s_model_the_sentence_has_the_hazard_ratio(frame) -> None:
    """exp(β̂) and the ends of its interval: Wald's, of the summary."""
    fit = th.fit("Surv(t, h > 3) ~ x + g", frame, "cox")
    found = effects(fit, gather(fit))
    ratio = np.exp(fit.estimates["x"])
    low, high = fit.intervals(parameters="x", exponentiate=True).iloc[0]
    assert found.sentences[0].startswith(
        f"One more unit of x goes with a hazard {number(ratio, 3)} times as large (95% interval {number(low, 3)} to "
        f"{number(high, 3)})"
    )
    name = next(n for n in fit.names if n.startswith("g["))
    assert f"{number(np.exp(fit.estimates[name]), 3)} times that of g = " in found.sentences[1]
    assert found.margins is not None
    assert "Ratios of hazards" in found.note


def test_a_model_without_effects_opens_as_before(frame, tmp_path: Path) -> None:
    fit = th.fit("y ~ 1", frame)
    assert sentences(fit) == ()
    page = fit.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<details" not in page
    assert page.index("</h1>") < page.index('<p class="lead">') < page.index("The log-likelihood of")


def test_the_report_opens_with_the_effects_their_chart_and_a_folded_certificate(
    frame, tmp_path: Path
) -> None:
    page = th.fit("n ~ x", frame, "poisson").report(tmp_path / "r.html").read_text(encoding="utf-8")
    places = [
        page.index(part)
        for part in ("<h1>", "<li>One more unit of x", "<figure>", "The log-likelihood of", "<details")
    ]
    assert places == sorted(places)
    assert "causes" not in page
    verdict = re.search(r"<details[^>]*>\s*<summary[^>]*>(.*?)</summary>", page, re.DOTALL)
    assert verdict is not None
    assert verdict[1].startswith("Certified global maximum")
