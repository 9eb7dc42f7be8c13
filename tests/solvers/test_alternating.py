"""Where Newton's method begins on a Poisson regression with wide categories: what the start satisfies, and that the maximum
is that of Newton's method from a constant."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.errors import NoMaximum
from thetahat.models.formulas import formula_model
from thetahat.solvers import alternating
from thetahat.solvers.newton import Newton


def panel(n: int = 8000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(1.0, 2.0, n), "t": rng.uniform(0.5, 2, n)})
    data["g"], data["h"] = rng.permutation(np.arange(n) % 200), rng.permutation(np.arange(n) % 30)
    eta = 0.5 * data.x - 0.2 * data.z + 0.4 * rng.normal(size=200)[data.g] + 0.4 * rng.normal(size=30)[data.h]
    data["y"], data["w"] = rng.poisson(data.t * np.exp(eta + 1)), rng.integers(0, 4, n)
    return data.astype({"g": "category", "h": "category"})


def objective(formula: str, data: pd.DataFrame, **more) -> th.Objective:
    model, source = formula_model(formula, data, th.families.get("poisson"), **more)[:2]
    made = th.Objective([th.LogLikelihood(model, source)])
    return made.at(model.start(source))


def test_of_one_category_the_effects_are_the_logarithms_of_its_means():
    data = panel()
    found = alternating.begin(objective("y ~ g", data))
    assert found is not None
    sums = data.groupby("g", observed=True).y.agg(["sum", "size"])
    fitted = np.exp(found[0].item() + np.r_[0.0, found[1:].numpy()]) * sums["size"]
    np.testing.assert_allclose(fitted, sums["sum"], rtol=2e-3)  # half a row is added to either sum


FORMULAS = [
    ("y ~ x + z + g + h", {}),
    ("y ~ x + g + h + offset(log(t))", {"weights": "w"}),
    ("y ~ g:x + h + g", {}),
    ("y ~ g + h", {}),
]


@pytest.mark.parametrize(("formula", "more"), FORMULAS)
def test_it_is_near_the_maximum_which_stays_the_same(formula, more):
    data = panel()
    of = objective(formula, data, **more)
    assert alternating.applies(of)
    near = alternating.begin(of)
    assert near is not None
    fit, plain = (
        th.fit(formula, data, "poisson", **more),
        th.fit(formula, data, "poisson", solver=Newton(), **more),
    )
    assert fit.certificate.status == plain.certificate.status == "certified maximum"
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, rel=1e-13)
    np.testing.assert_allclose(fit.theta, plain.theta, atol=1e-8)
    np.testing.assert_allclose(fit.standard_errors(), plain.standard_errors(), rtol=1e-7)
    top, begun, constant = fit.log_likelihood, of.value(near), of.value()
    assert top - begun < (0.5 if "g:x" in formula else 0.02) * (top - constant)


@pytest.mark.parametrize("formula", ["y ~ 0 + x + g + h", "y ~ x + h"])
def test_where_it_is_not_taken(formula):
    """Without a constant, and without a wide category."""
    assert not alternating.applies(objective(formula, panel()))


def test_with_a_prior_or_another_link_it_is_not_taken():
    data = panel()
    fit = th.fit("y ~ x + g", data, "poisson", prior=th.priors.Normal(2.0))
    assert not alternating.applies(fit.objective)
    assert alternating.applies(th.fit("y ~ x + g", data, "poisson").objective)


def test_a_level_in_which_all_are_zero_begins_finite_and_is_named():
    data = panel()
    data.loc[data.g == 3, "y"] = 0
    found = alternating.begin(objective("y ~ x + g + h", data))
    assert found is not None
    assert bool(torch.isfinite(found).all())
    with pytest.raises(NoMaximum, match=r"g\[T.3\]"):
        th.fit("y ~ x + g + h", data, "poisson")
