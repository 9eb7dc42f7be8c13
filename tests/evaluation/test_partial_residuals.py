"""Partial residuals of smooth terms, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th


def table() -> pd.DataFrame:
    g = np.random.default_rng(4)
    x, z = g.random(120), g.random(120)
    eta = np.sin(5 * x) + 0.5 * z
    return pd.DataFrame({"x": x, "z": z, "y": eta + 0.3 * g.normal(size=120), "k": g.poisson(np.exp(eta))})


def test_of_a_normal_mean_they_are_the_curve_and_the_residual() -> None:
    fit = th.fit("y ~ z + s(x, k=6)", table(), reml=True)
    found = fit.partial_residuals("s(x)")
    curve = fit.curve("s(x)", table())
    assert found["value"].to_numpy() == pytest.approx(curve["value"].to_numpy())
    own = found["residual"] - found["value"]
    assert own.to_numpy() == pytest.approx(table()["y"].to_numpy() - np.asarray(fit.predict()), abs=1e-9)


def test_of_a_poisson_mean_they_are_working_residuals() -> None:
    fit = th.fit("k ~ s(x, k=6) + z", table(), family="poisson")
    found, mean = fit.partial_residuals("s(x)"), np.asarray(fit.predict())
    own = found["residual"] - found["value"]
    assert own.to_numpy() == pytest.approx((table()["k"].to_numpy() - mean) / mean, rel=1e-7, abs=1e-9)


def test_of_a_scale_they_are_half_the_squared_residual_less_one() -> None:
    fit = th.fit("y ~ s(x, k=6)", table(), scale="~ s(z, k=4)", reml=True)
    found = fit.partial_residuals("scale: s(z)")
    z = (table()["y"].to_numpy() - np.asarray(fit.predict())) / np.asarray(fit.predict(what="scale"))
    own = found["residual"] - found["value"]
    assert own.to_numpy() == pytest.approx((z**2 - 1) / 2, rel=1e-6, abs=1e-9)


def test_no_term_of_that_name() -> None:
    fit = th.fit("y ~ s(x, k=6)", table())
    with pytest.raises(th.errors.BadArgument, match="no smooth term is called 's\\(z\\)'"):
        fit.partial_residuals("s(z)")
