"""Smooth terms in a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th

G = np.random.default_rng(4)
X = G.random((80, 2))
DATA = pd.DataFrame({"x": X[:, 0], "z": X[:, 1], "y": np.sin(5 * X[:, 0]) + 0.3 * G.normal(size=80)})


@pytest.fixture(scope="module")
def fit() -> th.Fit:
    return th.fit("y ~ s(x, k=5)", DATA)


def test_the_report_has_the_curve_and_its_test(fit: th.Fit, tmp_path: Path) -> None:
    text = fit.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h2>Smooth terms</h2>" in text
    assert '<th scope="row">s(x)</th>' in text


def test_a_chart_has_both_bands_and_a_dot_a_row(fit: th.Fit) -> None:
    spec = json.dumps(fit.plot("smooths").to_dict())
    assert all(name in spec for name in ("lowest", "highest", "low", "high"))
    sizes = [len(rows) for rows in fit.plot("smooths").to_dict()["datasets"].values()]
    assert sorted(sizes) == [80, 200]


def test_no_line_of_a_title_is_wider_than_its_chart(fit: th.Fit) -> None:
    """52 letters of 11 pixels; in one line it lay over the next chart, and the picture's edge cut the last one."""
    lines = fit.plot("smooths").to_dict()["title"]["subtitle"]
    assert " ".join(lines) == "95% bands: of each point, of the whole curve; dots: partial residuals"
    assert max(map(len, lines)) <= 52


def test_surfaces_are_not_drawn() -> None:
    surface = th.fit("y ~ te(x, z, k=3)", DATA)
    with pytest.raises(th.errors.BadArgument, match="none of the smooth terms is a curve of one column"):
        surface.plot("smooths")
