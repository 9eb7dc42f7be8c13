"""In a notebook every printed result is a small piece of HTML: well-formed, escaped, with the numbers of the text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html import unescape

import numpy as np
import pytest

import thetahat as th
from thetahat.solvers.certificate import Certificate

LEVEL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def frame() -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    x = r.normal(size=80)
    y = r.poisson(np.exp(0.4 + 0.3 * x))
    return {
        "y": y,
        "x": x,
        "b": y > 1,
        "g": np.where(r.random(80) < 0.5, LEVEL, "a"),
        "h": r.integers(0, 8, 80),
    }


@pytest.fixture(scope="module")
def fit(frame: dict[str, np.ndarray]) -> th.Fit:
    return th.fit("y ~ x + g", frame, "poisson")


RESULTS: dict[str, Callable[[th.Fit, dict[str, np.ndarray]], object]] = {
    "certificate": lambda fit, frame: fit.certificate,
    "test": lambda fit, frame: fit.test("g"),
    "test of no degrees of freedom": lambda fit, frame: fit.test(["x = 0"], "score"),
    "comparison": lambda fit, frame: th.compare({LEVEL: fit, "x": th.fit("y ~ x", frame, "poisson")}),
    "choice": lambda fit, frame: fit.choose_prior([th.priors.Normal(s) for s in (0.1, 1.0)], folds=3),
    "score": lambda fit, frame: fit.score(frame),
    "slopes": lambda fit, frame: fit.slopes(),
    "means": lambda fit, frame: fit.means("g"),
    "variances": lambda fit, frame: th.fit("y ~ x + (1 | h)", frame).test_random("h"),
    "calibration error": lambda fit, frame: th.fit("b ~ x", frame, "bernoulli").calibration_error(),
    "checks": lambda fit, frame: fit.check(draws=19),
}


def parsed(html: str) -> ET.Element:
    return ET.fromstring(html.replace("&nbsp;", " "))


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_result_is_well_formed_escaped_html_with_the_numbers_of_its_text(name, fit, frame) -> None:
    """XML's own parser reads it; every number of the text is in it."""
    found = RESULTS[name](fit, frame)
    html = found._repr_html_()
    root = parsed(html)
    assert LEVEL not in html
    assert len(html) < 6000
    tags = {node.tag for node in root.iter()}
    assert tags <= {"div", "style", "p", "table", "thead", "tbody", "tr", "th", "td", "pre"}
    text = " ".join("".join(node.itertext()) for node in root.iter() if node.tag in ("p", "td", "th", "pre"))
    numbers = set(re.findall(r"\d+\.\d+", str(found)))
    assert numbers
    assert numbers <= set(re.findall(r"\d+\.\d+", unescape(text)))


def test_a_certificate_of_no_maximum_names_the_direction_and_what_to_do() -> None:
    found = Certificate("flat direction", directions=({"x<1": 1.0, "z": -1.0},), advice="Drop z.")
    html = found._repr_html_()
    parsed(html)
    assert "<p>Direction: 1·x&lt;1 − 1·z.</p><p>Drop z.</p>" in html


def test_a_table_of_estimates_sets_names_left_and_numbers_right(fit) -> None:
    html = fit.slopes()._repr_html_()
    assert '<td class="text">x</td>' in html
    assert f"<td>{fit.slopes().table['estimate'][0]:.4f}</td>" in html
