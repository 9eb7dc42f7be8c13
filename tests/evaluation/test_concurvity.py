"""Concurvity of smooth terms: mgcv's figures, and least squares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.evaluation.concurvity import _measures


@pytest.fixture(scope="module")
def fit() -> th.Fit:
    g = np.random.default_rng(5)
    data = pd.DataFrame({"x": g.random(200).round(4), "f": g.choice(list("abc"), 200)})
    data["z"] = (data["x"] ** 2 + 0.2 * g.normal(size=200)).round(4)
    data["y"] = (np.sin(5 * data["x"]) + data["z"] + 0.3 * g.normal(size=200)).round(4)
    return th.fit("y ~ f + s(x, bs='cr') + s(z, bs='cr', k=6)", data, reml=True)


def test_concurvity_of_smooth_terms_is_that_of_mgcv(fit: th.Fit) -> None:
    """mgcv 1.8-41, concurvity(gam(y ~ f + s(x, bs = "cr") + s(z, bs = "cr", k = 6), method = "REML"))."""
    found = fit.concurvity()
    assert list(found.columns) == ["worst", "observed", "estimate"]
    assert found.loc["s(x)"].to_list() == pytest.approx([0.77987794, 0.62618569, 0.17999614], abs=1e-6)
    assert found.loc["s(z)"].to_list() == pytest.approx([0.77583128, 0.72838256, 0.32803601], abs=1e-6)
    pairs = fit.concurvity(full=False)
    assert pairs.loc[("worst", "s(x)"), "s(z)"] == pytest.approx(0.77276960, abs=1e-6)
    assert pairs.loc[("observed", "s(x)"), "s(z)"] == pytest.approx(0.72600808, abs=1e-6)
    assert pairs.loc[("observed", "s(z)"), "s(x)"] == pytest.approx(0.62286810, abs=1e-6)
    assert pairs.loc[("estimate", "s(x)"), "s(z)"] == pytest.approx(0.32119012, abs=1e-6)
    assert pairs.loc[("estimate", "s(z)"), "s(x)"] == pytest.approx(0.17185791, abs=1e-6)


def test_the_observed_concurvity_of_the_parametric_part_is_a_share_of_squares(fit: th.Fit) -> None:
    """|Pf|² / |f|² by least squares of the part's own values on the curves' columns."""
    frame = next(iter(fit.objective.terms[0].source.frames()))
    intercept, *levels = fit.estimates[["Intercept", *(n for n in fit.estimates.index if n.startswith("f"))]]
    part = intercept + sum(b * (frame["f"] == f) for b, f in zip(levels, "bc", strict=True))
    B = np.hstack([curve.smooth.matrix(frame) for curve in fit.model.encoder.smooths])
    fitted = B @ np.linalg.lstsq(B, part, rcond=None)[0]
    share = float(fitted @ fitted) / float(part @ part)
    assert fit.concurvity()["observed"]["parametric"] == pytest.approx(share, rel=1e-8)


def test_columns_that_are_made_of_others_have_concurvity_1() -> None:
    X = np.random.default_rng(0).normal(size=(30, 4))
    assert _measures(X[:, :2], X[:, 0], [X]) == pytest.approx((1.0, 1.0, 1.0))


def test_concurvity_of_a_parameter_without_curves_is_refused(fit: th.Fit) -> None:
    with pytest.raises(
        th.errors.BadArgument, match=r"parameter='scale' has no smooth terms\. Accepted: mean"
    ):
        fit.concurvity(parameter="scale")
