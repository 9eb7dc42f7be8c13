"""The report's section of random effects, drawn from the fit's own tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.report import random_effects

R = np.random.default_rng(1)
G, H = np.repeat(np.arange(40), 3), np.tile(np.repeat(list("abcd"), 3), 10)
DATA = pd.DataFrame({"g": G, "h": H, "x": R.random(120)})
DATA["y"] = (
    R.normal(size=40)[G] + R.normal(size=4)[R.permutation(4)][pd.factorize(H)[0]] + 0.5 * R.normal(size=120)
)


@pytest.fixture(scope="module")
def fit():
    return th.fit("y ~ x + (1 | g) + (1 | h)", DATA)


def test_every_group_has_its_line_in_order_of_its_mode(fit):
    wide, narrow = random_effects.charts(fit)
    for chart, factor in ((wide, "g"), (narrow, "h")):
        rows = pd.DataFrame(chart.layer[1].data)
        table = fit.random_effects(factor)
        assert rows["mode"].is_monotonic_increasing
        assert np.allclose(rows["mode"], np.sort(table["mode"]))
        assert np.allclose(rows["high"] - rows["low"], 2 * 1.959964 * rows["standard_error"])
    assert narrow.layer[1].encoding.y.to_dict()["field"] == "group"
    assert wide.layer[1].encoding.y.to_dict()["field"] == "rank"  # 40 names would not be read


def test_of_very_many_groups_an_even_selection_is_drawn_and_said():
    part = pd.DataFrame(
        {"group": [str(i) for i in range(1000)], "mode": R.normal(size=1000), "standard_error": 1.0}
    )
    chart = random_effects._caterpillar(part, "Intercept | g", 0.95)
    rows = pd.DataFrame(chart.layer[1].data)
    assert len(rows) == random_effects.DRAWN
    assert (rows["mode"].iloc[0], rows["mode"].iloc[-1]) == (part["mode"].min(), part["mode"].max())
    assert "300 of 1,000 groups" in chart.title.subtitle


def test_components_and_shares_are_those_of_the_fit(fit):
    rows, said = random_effects.components(fit)
    table = fit.variance_components()
    assert [row[0] for row in rows] == ["g", "h", "Residual"]
    assert rows[0][2] == f"{table['sd'][0]:.4g}"
    assert "invert the likelihood ratio" in said
    assert "intraclass correlation" in random_effects.shares(fit)


def test_a_model_without_random_effects_has_no_such_section():
    line = th.fit("y ~ x", DATA)
    assert random_effects.components(line) == ([], "")
    assert random_effects.shares(line) == ""
    with pytest.raises(th.errors.BadArgument, match="no random effects"):
        line.plot("random_effects")


def test_a_likelihood_of_ones_own_has_the_section_too(tmp_path):
    @th.model(level=0.1, b=th.latent(by="g", sd=0.5))
    def own(batch, level, b):
        return th.families.Poisson().at(torch.exp(level + b))

    table = {"y": [0, 1, 3, 4, 9, 7, 1, 0, 2, 3], "g": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]}
    text = th.fit(own, table).report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h2>Random effects</h2>" in text
    assert "b | g" in text


def test_a_series_is_a_line_with_its_band(tmp_path):
    """Not a panel a step: one chart, of the modes and errors of `random_effects` at the steps."""
    g = np.random.default_rng(4)
    table = pd.DataFrame(
        {"y": np.cumsum(g.normal(size=40)) + 0.5 * g.normal(size=40), "t": np.arange(40) + 5}
    )

    @th.model(level=0.0, sigma=th.positive(0.5), b=th.latent(along="t", covariance="rw1"))
    def walk(batch, level, sigma, b):
        return th.families.Normal().at(level + b, sigma)

    fit = th.fit(walk, table)
    (chart,) = random_effects.charts(fit)
    drawn, effects = chart.data, fit.random_effects()
    assert drawn["step"].tolist() == table["t"].tolist()
    wide = 1.959963984540054 * effects["standard_error"].to_numpy()
    assert drawn["high"].to_numpy() == pytest.approx(effects["mode"].to_numpy() + wide)
    page = fit.report(tmp_path / "a.html").read_text(encoding="utf-8")
    assert "sd(b step" in page
