"""A column that separates the rows of a mixed model: named, with a restricted likelihood and a prior too."""

import numpy as np
import pandas as pd
import pytest

import thetahat as th


def rows(n: int = 120) -> pd.DataFrame:
    """No row with `apart` has an event."""
    g = np.random.default_rng(0)
    apart = (np.arange(n) % 9 == 0).astype(float)
    event = np.where(apart == 1, 0, g.random(n) < 0.5).astype(int)
    return pd.DataFrame(
        {
            "x": g.normal(size=n),
            "apart": apart,
            "g": np.arange(n) // 10,
            "event": event,
            "time": g.exponential(size=n),
        }
    )


FORMULAS = [
    ("event ~ x + apart + (1 | g)", "bernoulli"),
    ("event ~ x + apart + (1 | g)", "poisson"),
    ("Surv(time, event) ~ x + apart + (1 | g)", "cox"),
]


@pytest.mark.parametrize(("formula", "family"), FORMULAS)
@pytest.mark.parametrize("reml", [False, True])
def test_it_has_no_maximum(formula, family, reml):
    """Of maximum likelihood this was certified at −31, where an information by differences is noise."""
    with pytest.raises(th.errors.NoMaximum, match="apart") as error:
        th.fit(formula, rows(), family=family, reml=reml)
    assert error.value.certificate.directions[0].keys() == {"apart"}


@pytest.mark.parametrize(("formula", "family"), FORMULAS)
def test_a_prior_gives_it_one(formula, family):
    fit = th.fit(formula, rows(), family=family, prior=th.priors.Normal(1.0, on="apart"))
    assert fit.certificate.ok
    assert -3 < fit.estimates["apart"] < -0.3


@pytest.mark.parametrize(("formula", "family"), FORMULAS)
@pytest.mark.parametrize("prior", [th.priors.Normal(1.0, on="apart"), th.priors.Normal(2.5)])
def test_the_integral_of_a_restricted_likelihood_diverges_whatever_its_prior(formula, family, prior):
    """It ended in NotConverged, or in a certificate of an infinite integral."""
    with pytest.raises(
        th.errors.NoMaximum, match=r"integrates the fixed effects out.*reml=False.*leave out apart"
    ):
        th.fit(formula, rows(), family=family, prior=prior, reml=True)
    whole = rows().assign(apart=lambda t: t["x"].round())  # nothing is separated
    assert th.fit(formula, whole, family=family, prior=prior, reml=True).certificate.ok


def test_a_wide_range_that_separates_nothing_is_certified():
    g = np.random.default_rng(1)
    x = g.normal(size=400) * 30
    table = pd.DataFrame({"x": x, "g": np.arange(400) // 8})
    table["event"] = (g.random(400) < 1 / (1 + np.exp(-0.3 * x - g.normal(size=50)[table.g]))).astype(int)
    fit = th.fit("event ~ x + (1 | g)", table, family="bernoulli")
    assert fit.certificate.ok
    assert fit.estimates["x"] * np.ptp(x) > 30
