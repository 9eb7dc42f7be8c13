"""Kaplan and Meier's estimate: identities, and R 4.2.2's survival 3.5-3 (survfit and survdiff of aml)."""

import numpy as np
import pandas as pd
import pytest

import thetahat as th

AML = pd.DataFrame(
    {
        "time": [9, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161, 5, 5, 8, 8, 12, 16, 23, 27, 30, 33, 43, 45],
        "status": [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1],
        "x": ["Maintained"] * 11 + ["Nonmaintained"] * 12,
    }
)


def test_survfit_and_survdiff_agree():
    fit = th.fit("Surv(time, status) ~ x", AML, family="nonparametric")
    first = fit.curves().query("group == 'Maintained'")
    assert np.allclose(
        first["survival"][:4], [0.9090909090909, 0.8181818181818, 0.7159090909091, 0.6136363636364]
    )
    mean = fit.restricted_mean()
    assert np.allclose(mean["restricted_mean"][0], 52.645454545455)
    assert np.allclose(mean["standard_error"][0], 19.828602795563)
    assert fit.median().to_dict() == {"Maintained": 31.0, "Nonmaintained": 23.0}
    assert fit.log_rank().statistic == pytest.approx(3.396388699, abs=1e-8)
    assert fit.log_rank(rho=1).statistic == pytest.approx(2.779279545, abs=1e-8)


def test_without_censoring_it_is_the_share_that_lives():
    y = np.random.default_rng(0).exponential(size=40)
    curve = th.fit("Surv(y, e) ~ 1", {"y": y, "e": np.ones(40)}, family="nonparametric").curves()
    assert np.allclose(curve["survival"], [(y > t).mean() for t in curve["time"]])


def test_weights_are_repeated_rows():
    data = AML.assign(w=np.arange(23) % 3 + 1)
    one = th.fit("Surv(time, status) ~ x", data, family="nonparametric", weights="w")
    other = th.fit("Surv(time, status) ~ x", data.loc[data.index.repeat(data["w"])], family="nonparametric")
    pd.testing.assert_frame_equal(one.curves(), other.curves())
    assert one.log_rank().statistic == pytest.approx(other.log_rank().statistic)
    assert one.log_likelihood == pytest.approx(other.log_likelihood)


def test_the_estimate_is_the_maximum():
    """Any other hazards have a smaller likelihood: d log h + (n − d) log(1 − h)."""
    fit = th.fit("Surv(time, status) ~ 1", AML, family="nonparametric")
    table = fit.curves()
    d, n = table["events"].to_numpy(), table["at_risk"].to_numpy()
    g = np.random.default_rng(0)
    for _ in range(20):
        h = np.clip(d / n * np.exp(0.1 * g.normal(size=len(d))), 1e-9, 1 - 1e-9)
        assert (d * np.log(h) + (n - d) * np.log1p(-h)).sum() < fit.log_likelihood


@pytest.mark.parametrize(
    ("formula", "error", "says"),
    [
        ("time ~ x", th.errors.BadFormula, "needs a response"),
        ("Surv(time, status) ~ x + (1 | x)", th.errors.BadFormula, "groups alone"),
        ('Surv(time, time, type="interval2") ~ x', th.errors.BadFormula, "interval2"),
    ],
)
def test_what_has_no_curve_is_refused(formula, error, says):
    with pytest.raises(error, match=says):
        th.fit(formula, AML, family="nonparametric")


def test_a_log_rank_test_of_one_group_and_an_unknown_interval_are_refused():
    fit = th.fit("Surv(time, status) ~ 1", AML, family="nonparametric")
    with pytest.raises(th.errors.BadArgument, match="one"):
        fit.log_rank()
    with pytest.raises(th.errors.BadArgument, match="interval='exact'"):
        fit.curves(interval="exact")
    with pytest.raises(th.errors.BadArgument, match="takes a formula"):
        th.fit("Surv(time, status) ~ 1", AML, family="nonparametric", scale="~ x")
