"""Curves of fitted families: against the formulas of R (survreg and psurvreg, survival 3.5-3), identities and sums."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

import thetahat as th
from tests.evaluation.test_nonparametric import AML
from thetahat.errors import BadArgument
from thetahat.evaluation.fitted_values import parameters_of
from thetahat.evaluation.new_data import aligned
from thetahat.evaluation.survival_prediction import curves

FAMILIES = ["weibull", "exponential", "lognormal", "loglogistic", "gamma", "inverse_gaussian"]
DATA = AML.assign(z=np.resize([0.0, 1.0, 3.0, 2.0], 23))
NEW = DATA.iloc[[0, 12]]
OVARIAN = (  # R's data set ovarian: futime, fustat, ecog.ps, rx
    [
        59,
        115,
        156,
        421,
        431,
        448,
        464,
        475,
        477,
        563,
        638,
        744,
        769,
        770,
        803,
        855,
        1040,
        1106,
        1129,
        1206,
        1227,
        268,
        329,
        353,
        365,
        377,
    ],
    [1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0],
    [1, 1, 2, 1, 1, 2, 2, 2, 1, 2, 2, 1, 2, 1, 1, 2, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1],
    [1, 1, 1, 2, 1, 1, 2, 2, 1, 2, 1, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 2],
)


@pytest.fixture(scope="module")
def fits():
    return {name: th.fit("Surv(time, status) ~ x", DATA, family=name) for name in FAMILIES}


def test_survival_its_interval_and_concordance_are_those_of_r() -> None:
    """s <- survreg(Surv(futime, fustat) ~ ecog.ps + rx, ovarian) at ecog.ps 1, rx 1 and 2: 1 - psurvreg(t, lp, s$scale), and
    its interval by the delta method from s$var on the scale of log(-log S); concordance(s)."""
    data = pd.DataFrame({"futime": OVARIAN[0], "fustat": OVARIAN[1], "ecog": OVARIAN[2], "rx": OVARIAN[3]})
    fit = th.fit("Surv(futime, fustat) ~ ecog + rx", data, family="weibull")
    new = pd.DataFrame({"ecog": [1, 1], "rx": [1, 2]})
    found = fit.predict(new, "survival", times=[365, 826], level=0.95)
    value = [0.7594143484121, 0.4999021260430, 0.8595689136537, 0.6830153767771]
    low = [0.4434248976767, 0.1434294631381, 0.6192561353088, 0.3274278019664]
    high = [0.9110711500432, 0.7807095160289, 0.9533412581672, 0.8779389824913]
    assert found["value"].to_numpy() == pytest.approx(value, abs=1e-8)
    assert found["low"].to_numpy() == pytest.approx(low, abs=1e-7)
    assert found["high"].to_numpy() == pytest.approx(high, abs=1e-7)
    concordance = fit.concordance()
    assert concordance.value == pytest.approx(0.6215596330275, abs=1e-12)
    assert concordance.standard_error == pytest.approx(0.07880326420653, abs=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_quantities_are_functions_of_one_another(fits, name: str) -> None:
    fit = fits[name]
    t = [5.0, 20.0, 60.0]
    S, H, h = (
        fit.predict(NEW, what, times=t)["value"].to_numpy()
        for what in ("survival", "cumulative_hazard", "hazard")
    )
    assert np.exp(-H) == pytest.approx(S, rel=1e-12)
    e = 1e-4
    ahead, behind = (
        fit.predict(NEW, "cumulative_hazard", times=[v + s * e for v in t])["value"].to_numpy()
        for s in (1, -1)
    )
    assert (ahead - behind) / (2 * e) == pytest.approx(h, rel=1e-6)
    median = fit.predict(NEW, "quantile", level=0.5).to_numpy()
    for row in (0, 1):
        at = fit.predict(NEW.iloc[[row]], "survival", times=median[row])["value"].iloc[0]
        assert at == pytest.approx(0.5, abs=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_restricted_mean_is_the_area_below_the_curve(fits, name: str) -> None:
    fit = fits[name]
    for until in (10.0, 150.0):
        u = until * (np.arange(4000) + 0.5) ** 3 / 4000**3
        width = np.diff(until * np.arange(4001) ** 3 / 4000**3)
        family, theta = fit.model.family.family, _parameters(fit, NEW)
        S = torch.exp(family.log_survival(torch.from_numpy(u), *(p[0].expand(4000) for p in theta))).numpy()
        found = fit.predict(NEW, "restricted_mean", times=until)["value"].iloc[0]
        assert found == pytest.approx((S * width).sum(), rel=2e-6)


def _parameters(fit, rows):
    return parameters_of(fit.model, aligned(fit.model, fit.source, rows)[0])


def test_the_restricted_mean_of_an_exponential_is_its_formula(fits) -> None:
    mean = fits["exponential"].predict(NEW, "mean").to_numpy()
    for until in (0.5, 30.0, 3000.0):
        found = fits["exponential"].predict(NEW, "restricted_mean", times=until)["value"].to_numpy()
        assert found == pytest.approx(mean * -np.expm1(-until / mean), rel=1e-9)


@pytest.mark.parametrize("what", ["survival", "cumulative_hazard", "hazard", "restricted_mean"])
def test_intervals_are_those_of_delta_by_differences(fits, what: str) -> None:
    """The gradient in θ by central differences, on the scale of the interval."""
    fit, t = fits["weibull"], 30.0
    scale = {
        "survival": lambda v: np.log(-np.log(v)),
        "cumulative_hazard": np.log,
        "hazard": np.log,
        "restricted_mean": lambda v: np.log(v / (t - v)),
    }[what]
    back = {
        "survival": lambda s: np.exp(-np.exp(s)),
        "cumulative_hazard": np.exp,
        "hazard": np.exp,
        "restricted_mean": lambda s: t / (1 + np.exp(-s)),
    }[what]
    rows, theta = aligned(fit.model, fit.source, NEW)[0], fit.theta

    def value(at):
        return scale(curves(fit.objective, at, rows, what, [t])[:, 0])

    G = []
    for j in range(len(theta)):
        step = torch.zeros_like(theta)
        step[j] = 1e-5
        G.append((value(theta + step) - value(theta - step)) / 2e-5)
    prepared = fit._prepared(None, None)
    half = 1.959963984540054 * prepared.diagonal(torch.tensor(np.array(G).T)).sqrt().numpy()
    found = fit.predict(NEW, what, times=t, level=0.95)
    ends = np.sort(np.stack([back(value(theta) - half), back(value(theta) + half)]), axis=0)
    assert found["low"].to_numpy() == pytest.approx(ends[0], rel=1e-6)
    assert found["high"].to_numpy() == pytest.approx(ends[1], rel=1e-6)


def test_at_time_zero_survival_is_one_for_certain(fits) -> None:
    found = fits["weibull"].predict(NEW, "survival", times=[0.0], level=0.9)
    assert found[["value", "low", "high"]].to_numpy().tolist() == [[1.0] * 3] * 2


def test_rows_keep_the_order_and_the_labels_of_the_table(fits) -> None:
    new = NEW.set_axis(["first", "second"])
    found = fits["gamma"].predict(new, "survival", times=[10, 20])
    assert found["row"].tolist() == ["first", "first", "second", "second"]
    assert found["time"].tolist() == [10.0, 20.0, 10.0, 20.0]
    gap = new.assign(x=[None, "Maintained"])
    found = fits["gamma"].predict(gap, "survival", times=[10, 20])
    assert found["value"].isna().tolist() == [True, True, False, False]
    assert len(fits["gamma"].predict(what="survival", times=12)) == len(DATA)


def test_entries_of_the_fitted_rows_do_not_change_the_curve() -> None:
    data = DATA.assign(start=np.floor(DATA["time"] / 3))
    fit = th.fit("Surv(start, time, status) ~ x", data, family="weibull")
    old, new = (fit.predict(d, "survival", times=10)["value"].to_numpy() for d in (None, data[["x"]]))
    assert old == pytest.approx(new, rel=1e-14)


def test_other_families_with_a_survival_function_have_curves_too() -> None:
    fit = th.fit("time ~ z", DATA, family="normal")
    mean, scale = fit.predict(NEW, "mean").to_numpy(), fit.estimates["scale"]
    found = fit.predict(NEW, "survival", times=30.0)["value"].to_numpy()
    assert found == pytest.approx(norm.sf(30.0, mean, scale), rel=1e-10)
    with pytest.raises(BadArgument, match="at least 0"):
        fit.predict(NEW, "restricted_mean", times=30.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"what": "survival"}, "needs times"),
        ({"what": "survival", "times": [-1.0]}, "times="),
        ({"what": "survival", "times": [np.nan]}, "times="),
        ({"what": "survival", "times": []}, "times="),
        ({"what": "survival", "times": "late"}, "times="),
        ({"what": "mean", "times": [1.0]}, "times= is of a curve"),
        ({"what": "survive", "times": [1.0]}, "times= is of a curve"),
        ({"what": "survive"}, "survive"),
        ({"what": "survival", "times": [1.0], "level": 1.5}, "level"),
        ({"what": "survival", "times": [1.0], "level": 0.9, "kind": "prediction"}, "kind="),
        ({"what": "hazard", "times": [0.0]}, "no density at the time 0"),
        ({"what": "restricted_mean", "times": [0.0]}, "above 0"),
    ],
)
def test_what_cannot_be_predicted_is_refused(fits, arguments, said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        fits["weibull"].predict(NEW, **arguments)


def test_models_without_a_survival_function_are_named() -> None:
    data = {"y": list("abc") * 4, "x": np.arange(12.0) % 5}
    with pytest.raises(BadArgument, match=r"Categorical.* no survival function"):
        th.fit("y ~ x", data, family="categorical").predict(what="survival", times=1.0)
    counts = th.fit("n ~ 1", {"n": [1.0, 2.0, 0.0, 4.0]}, family="poisson")
    with pytest.raises(BadArgument, match="with a density"):
        counts.predict(what="hazard", times=1.0)


@pytest.mark.parametrize("groups", ["known", "average"])
def test_curves_of_a_mixed_model_are_those_of_known_groups_or_the_average_one(groups: str) -> None:
    """S(t) = exp(−(t/e^η)^shape) of a Weibull distribution at the linear predictor of the same groups."""
    rng = np.random.default_rng(5)
    g, x = rng.integers(0, 12, 300), rng.normal(size=300)
    time = rng.weibull(1.5, 300) * np.exp(0.3 + 0.4 * x + 0.5 * rng.normal(size=12)[g])
    data = pd.DataFrame({"x": x, "g": g, "time": np.minimum(time, 3.0), "event": (time <= 3.0) * 1.0})
    fit = th.fit("Surv(time, event) ~ x + (1 | g)", data, family="weibull")
    found = fit.predict(data.head(5), "survival", times=[0.5, 2.0], groups=groups, level=0.9)
    eta = fit.predict(data.head(5), "linear", groups=groups).to_numpy()
    direct = np.exp(-((np.array([0.5, 2.0]) / np.exp(eta)[:, None]) ** fit.estimates["shape"]))
    assert found["value"].to_numpy() == pytest.approx(direct.reshape(-1), rel=1e-12)
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()
    plain = th.fit("Surv(time, event) ~ x", data, family="weibull")
    with pytest.raises(BadArgument, match="has no random effects"):
        plain.predict(data, "survival", times=[1.0], groups=groups)
