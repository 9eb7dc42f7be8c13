"""Cox's model against its definition, differences, and R 4.2.2's survival 3.5-3."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.models.formulas import formula_model

R = Path(__file__).parents[3] / "shared" / "data" / "r"


def times(n=60, seed=1):
    """Times with ties, late entry, two strata, weights."""
    g = np.random.default_rng(seed)
    stop = g.integers(2, 12, n).astype(float)
    return pd.DataFrame(
        {
            "start": np.floor(stop * g.random(n) * 0.6),
            "stop": stop,
            "e": g.integers(0, 2, n),
            "x": g.normal(size=n),
            "z": g.normal(size=n),
            "g": [f"s{i}" for i in g.integers(0, 2, n)],
            "w": g.integers(1, 4, n),
        }
    )


def definition(data, beta, ties, *, entry, strata, weights):
    """ℓ by its definition, time by time."""
    X = data[["x", "z"]].to_numpy()
    w = data["w"].to_numpy(float) if weights else np.ones(len(data))
    g = data["g"].to_numpy() if strata else np.zeros(len(data))
    eta, total = X @ beta, 0.0
    for s in np.unique(g):
        for t in np.unique(data["stop"][(data["e"] == 1) & (g == s)]):
            risk = (g == s) & (data["stop"] >= t) & ((data["start"] < t) if entry else True)
            dead = (g == s) & (data["stop"] == t) & (data["e"] == 1)
            S, T, d = (w * np.exp(eta))[risk].sum(), (w * np.exp(eta))[dead].sum(), int(dead.sum())
            total += (w * eta)[dead].sum()
            for k in range(d):
                total -= w[dead].mean() * np.log(S - (k / d * T if ties == "efron" else 0.0))
    return total


CASES = [
    (t, e, s, w)
    for t in ("efron", "breslow")
    for e in (False, True)
    for s in (False, True)
    for w in (False, True)
]


def model(data, ties, entry, strata, weights):
    left = "Surv(start, stop, e)" if entry else "Surv(stop, e)"
    right = "x + z" + (" + strata(g)" if strata else "")
    made = formula_model(
        f"{left} ~ {right}",
        data,
        th.families.get("cox"),
        parameters={"ties": ties},
        weights="w" if weights else None,
    )
    return Objective([LogLikelihood(*made)])


@pytest.mark.parametrize(("ties", "entry", "strata", "weights"), CASES)
def test_value_gradient_and_information_are_those_of_the_definition(ties, entry, strata, weights):
    import torch

    data = times()
    o = model(data, ties, entry, strata, weights)
    beta = np.array([0.4, -0.7])
    how = {"entry": entry, "strata": strata, "weights": weights}
    t = o.taylor(torch.from_numpy(beta), order=2)
    assert float(t.value) == pytest.approx(definition(data, beta, ties, **how), abs=1e-10)
    h, e = 1e-4, np.eye(2)
    for j in range(2):
        up, down = (
            definition(data, beta + h * e[j], ties, **how),
            definition(data, beta - h * e[j], ties, **how),
        )
        assert float(t.gradient[j]) == pytest.approx((up - down) / (2 * h), abs=1e-5)
        rows = [o.taylor(torch.from_numpy(beta + s * h * e[j]), order=1).gradient for s in (1, -1)]
        assert torch.allclose(t.information.A[j], -(rows[0] - rows[1]) / (2 * h), atol=1e-5)
    batch = next(iter(o.terms[0].source.batches()))
    moved = o.at(torch.from_numpy(beta))
    if not weights:
        assert moved.model.log_prob(batch).sum() == pytest.approx(float(t.value), abs=1e-10)
        assert torch.allclose(moved.model.scores(batch).sum(0), t.gradient, atol=1e-10)


def test_a_row_cut_in_two_intervals_changes_nothing():
    data = times().assign(start=0.0)
    first = data.assign(stop=np.minimum(data["stop"], 4.5), e=np.where(data["stop"] <= 4.5, data["e"], 0))
    second = data[data["stop"] > 4.5].assign(start=4.5)
    whole = th.fit("Surv(start, stop, e) ~ x + z", data, "cox")
    parts = th.fit("Surv(start, stop, e) ~ x + z", pd.concat([first, second]), "cox")
    assert whole.log_likelihood == pytest.approx(parts.log_likelihood, abs=1e-10)
    assert np.allclose(whole.estimates, parts.estimates)


def test_only_the_order_of_the_times_counts():
    data = times()
    one, other = (
        th.fit("Surv(stop, e) ~ x + z", d, "cox") for d in (data, data.assign(stop=np.exp(data["stop"])))
    )
    assert np.allclose(one.estimates, other.estimates)


def test_weights_are_repeated_rows_under_breslow():
    data = times()
    one = th.fit("Surv(stop, e) ~ x + z", data, "cox", ties="breslow", weights="w")
    other = th.fit("Surv(stop, e) ~ x + z", data.loc[data.index.repeat(data["w"])], "cox", ties="breslow")
    assert np.allclose(one.estimates, other.estimates)


@pytest.mark.skipif(not R.exists(), reason="R's data are not at hand")
@pytest.mark.parametrize(
    ("name", "formula", "settings"),
    [
        ("lung", "Surv(time, status == 2) ~ age + sex + `ph.ecog`", {}),
        ("lung#breslow", "Surv(time, status == 2) ~ age + sex + `ph.ecog`", {"ties": "breslow"}),
        ("heart", "Surv(start, stop, event) ~ age + year + surgery + transplant", {}),
        ("veteran", "Surv(time, status) ~ karno + celltype + strata(trt)", {}),
    ],
)
def test_coxph_agrees(name, formula, settings):
    truth = json.loads((R / "truths.json").read_text())[name]
    fit = th.fit(formula, pd.read_csv(R / truth["data"]), "cox", **settings)
    assert fit.log_likelihood == pytest.approx(truth["logLik"], abs=1e-8)
    if name != "veteran":  # whose reference level is another
        assert np.allclose(fit.estimates, list(truth["coef"].values()), rtol=1e-7)
        assert np.allclose(fit.standard_errors(), list(truth["se"].values()), rtol=1e-7)


@pytest.mark.skipif(not R.exists(), reason="R's data are not at hand")
def test_robust_errors_and_curves_are_those_of_r():
    """coxph(…, robust = TRUE) of veteran with adeno as the reference; survfit(coxph(Surv(time, status == 2) ~ age + sex,
    lung), newdata, conf.type = "log-log") at 100, 300, 500."""
    veteran = th.fit(
        "Surv(time, status) ~ karno + celltype + strata(trt)", pd.read_csv(R / "veteran.csv"), "cox"
    )
    errors = [0.0055483057, 0.2270594777, 0.2421915315, 0.2904908817]
    assert np.allclose(veteran.standard_errors("sandwich"), errors, rtol=1e-7)
    lung = th.fit("Surv(time, status == 2) ~ age + sex", pd.read_csv(R / "lung.csv"), "cox")
    new = pd.DataFrame({"age": [60, 70], "sex": [1, 2]})
    curve = lung.predict(new, "survival", times=[100, 300, 500], level=0.95)
    assert np.allclose(
        curve["value"], [0.84672574, 0.48158658, 0.24085781, 0.88861055, 0.59533406, 0.36405816], atol=1e-7
    )
    assert np.allclose(
        curve["low"], [0.78570163, 0.39604306, 0.16634173, 0.83211110, 0.48632201, 0.24916280], atol=1e-6
    )
    assert np.allclose(
        curve["high"], [0.89156466, 0.56191931, 0.32310584, 0.92692348, 0.68857935, 0.47964333], atol=1e-6
    )


def test_a_monotone_likelihood_is_named():
    data = {"t": [1.0, 2, 3, 4, 5, 6], "e": [1] * 6, "x": [6.0, 5, 4, 3, 2, 1]}
    with pytest.raises(th.errors.NoMaximum, match=r"monotone likelihood.*drop a column"):
        th.fit("Surv(t, e) ~ x", data, "cox")


def test_a_lasso_of_cox_satisfies_its_conditions():
    """|∂ℓ/∂β_j| ≤ 1/scale where β_j = 0, and = where it is not."""
    data = times(200)
    fit = th.fit("Surv(stop, e) ~ x + z", data, "cox", prior=th.priors.Laplace(0.2))
    g = Objective(fit.objective.terms).taylor(order=1).gradient
    for value, slope in zip(fit.theta.tolist(), g.tolist(), strict=True):
        assert abs(slope) <= 5.0 + 1e-6
        if value != 0:
            assert slope == pytest.approx(5.0 * np.sign(value), abs=1e-5)


BAD = [
    ("Surv(stop, e) ~ x + (1 | g)", th.errors.BadFormula, "no random effect"),
    ("Surv(stop, e) ~ s(x)", th.errors.BadFormula, "no smooth term"),
    ("Surv(stop, e) ~ 1", th.errors.BadFormula, "nothing to estimate"),
    ("Surv(stop, none) ~ x", th.errors.DataError, "no row"),
    ("x ~ z", th.errors.BadFormula, "needs a response Surv"),
    ('Surv(start, stop, type="interval2") ~ x', th.errors.BadFormula, "interval2"),
    ("Surv(stop, e) ~ x + strata(log(g))", th.errors.BadFormula, "strata are columns"),
]


@pytest.mark.parametrize(("formula", "error", "says"), BAD)
def test_what_has_no_partial_likelihood_is_refused(formula, error, says):
    with pytest.raises(error, match=says):
        th.fit(formula, times().assign(none=0), "cox")


def test_strata_elsewhere_and_unknown_ties_are_refused():
    with pytest.raises(th.errors.BadFormula, match="strata"):
        th.fit("x ~ z + strata(g)", times())
    with pytest.raises(th.errors.BadArgument, match="ties='exact'"):
        th.fit("Surv(stop, e) ~ x", times(), "cox", ties="exact")


def test_a_partial_likelihood_is_not_compared_with_a_density():
    data = times()
    cox, weibull = (th.fit("Surv(stop, e) ~ x", data, family) for family in ("cox", "weibull"))
    with pytest.raises(th.errors.IncomparableScores, match="partial likelihood"):
        cox.compare(weibull)


@pytest.mark.parametrize("what", ["survival", "cumulative_hazard", "hazard", "restricted_mean"])
def test_curves_of_a_parametric_family_are_its_own(what):
    """An exponential: S = e^{−λt}, Λ = λt, hazard λ, ∫₀ᵗ S = (1 − e^{−λt})/λ."""
    data = times()
    fit = th.fit("Surv(stop, e) ~ x", data, "exponential")
    rate = 1 / fit.predict(data, "mean").to_numpy()
    t = 3.0
    truth = {
        "survival": np.exp(-rate * t),
        "cumulative_hazard": rate * t,
        "hazard": rate,
        "restricted_mean": (1 - np.exp(-rate * t)) / rate,
    }
    found = fit.predict(data, what, times=t, level=0.9)
    assert np.allclose(found["value"], truth[what], rtol=1e-8)
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()


def test_times_are_asked_for_and_checked():
    fit = th.fit("Surv(stop, e) ~ x", times(), "weibull")
    with pytest.raises(th.errors.BadArgument, match="needs times"):
        fit.predict(what="survival")
    with pytest.raises(th.errors.BadArgument, match="not negative"):
        fit.predict(what="survival", times=[-1.0])
    with pytest.raises(th.errors.BadArgument, match="times= goes with"):
        fit.predict(times=[1.0])
    with pytest.raises(th.errors.BadArgument, match="no survival function"):
        th.fit("g ~ x", times(), "categorical").predict(what="survival", times=[1.0])
