"""Baselines, curves, residuals and separation of Cox fits with random effects and smooth terms: against mgcv and R's
survival, and against loops over event times at the fit's own linear predictors.

R 4.2.2, mgcv 1.8-41, survival 3.5-3. mgcv: gam(…, family = cox.ph(), weights = event, method = "REML"), whose ties are
Breslow's; predict(…, type = "response", se.fit = TRUE) is S(t) and its standard error, exclude = "s(g)" the average group.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

import thetahat as th
from thetahat.errors import BadArgument, NoMaximum, UnknownLevel
from thetahat.evaluation.cox_curves import baseline_hazard, curves
from thetahat.evaluation.cox_residuals import residuals

from ..models.cox_data import drawn
from ..models.test_cox_mixed import waved

VETERAN = Path(__file__).parents[3] / "shared" / "data" / "r" / "veteran.csv"
veteran = pytest.mark.skipif(not VETERAN.exists(), reason="R's data are not here")
SMOOTH = "Surv(stop, event) ~ a + s(v) + (1 | g)"
NEW = pd.DataFrame({"a": [0.3, -1.0], "v": [0.2, 0.7], "g": [2, 5]})


def restricted(formula: str, data: pd.DataFrame, ties: str = "breslow") -> th.Fit:
    return th.fit(formula, data, family="cox", ties=ties, reml=True)


def standard_error(curve: pd.DataFrame) -> np.ndarray:
    """Of S, from its interval, which is symmetric in log(−log S)."""
    width = np.log(-np.log(curve["low"])) - np.log(-np.log(curve["high"]))
    return (width / 2 / ndtri(0.975) * curve["cumulative_hazard"] * curve["survival"]).to_numpy()


# ---- other software ------------------------------------------------------------------------------------------------


@veteran
def test_curves_and_residuals_of_a_random_intercept_are_those_of_mgcv() -> None:
    """gam(time ~ trt + karno + s(celltype, bs = "re")), rows 1 and 71 at 50 and 100 days."""
    data = pd.read_csv(VETERAN)
    fit = restricted("Surv(time, status) ~ trt + karno + (1 | celltype)", data)
    known = curves(fit, data.iloc[[0, 70]], [50, 100])
    assert known["survival"].to_numpy() == pytest.approx(
        [0.802261965422, 0.613005127935, 0.860253344116, 0.715797229402], abs=1e-8
    )
    assert standard_error(known) == pytest.approx(
        [0.0488973696678, 0.0742526831135, 0.0348149674835, 0.0574313088737], rel=1e-7
    )
    average = curves(fit, data.iloc[[0, 70]], [50, 100], groups="average")
    assert average["survival"].to_numpy() == pytest.approx(
        [0.697692027004, 0.449511670881, 0.781964542477, 0.579086849419], abs=1e-8
    )
    assert standard_error(average) == pytest.approx(
        [0.0753778609827, 0.1007132073737, 0.0602257214392, 0.0933485329487], rel=1e-7
    )
    some = [0, 1, 50, 136]
    assert np.asarray(residuals(fit))[some] == pytest.approx(
        [0.6645464178259, -0.6788200421552, 0.8162408800372, -0.0152583455717], abs=1e-8
    )
    assert np.asarray(residuals(fit, "deviance"))[some] == pytest.approx(
        [0.924905690859, -0.566972400329, 1.325057455081, -0.015181423370], abs=1e-7
    )


def test_curves_and_residuals_of_a_smooth_term_beside_a_random_intercept_are_those_of_mgcv() -> None:
    """gam(stop ~ a + s(v) + s(g, bs = "re")), whose iterations end at 1e-7."""
    fit = restricted(SMOOTH, waved())
    known, average = (curves(fit, NEW, [0.1, 0.5, 1.5], groups=groups) for groups in ("known", "average"))
    assert known["survival"].to_numpy() == pytest.approx(
        [0.865411994169, 0.330773920273, 0.024749453626, 0.989896209980, 0.925220343355, 0.771154930033],
        abs=2e-7,
    )
    assert standard_error(known) == pytest.approx(
        [0.039227758602, 0.081807041877, 0.021175239934, 0.003762223863, 0.020697459740, 0.051373963347],
        rel=1e-6,
    )
    assert average["survival"].to_numpy() == pytest.approx(
        [0.885116376469, 0.392973952069, 0.044031764782, 0.988829254516, 0.917615174591, 0.750164780460],
        abs=2e-7,
    )
    assert standard_error(average) == pytest.approx(
        [0.030714137981, 0.065178006527, 0.025300942572, 0.003860736541, 0.020021857327, 0.047669440599],
        rel=1e-6,
    )
    some = [0, 1, 50, 200]
    assert np.asarray(residuals(fit))[some] == pytest.approx(
        [-0.818566970803, -1.482296727669, -0.315244747405, -0.606282578834], abs=1e-6
    )
    assert np.asarray(residuals(fit, "deviance"))[some] == pytest.approx(
        [-0.664105652045, -1.721799481745, -0.794033686193, -0.514509527289], abs=1e-6
    )


@veteran
def test_efrons_baseline_and_residuals_are_those_of_coxph() -> None:
    """coxph(Surv(time, status) ~ trt + karno + frailty(celltype, distribution = "gaussian", theta = 0.45372809853^2)): at
    the variance of the restricted likelihood its coefficients, frailties, residuals and basehaz(centered = FALSE)."""
    fit = restricted("Surv(time, status) ~ trt + karno + (1 | celltype)", pd.read_csv(VETERAN), "efron")
    assert fit.estimates.to_numpy() == pytest.approx(
        [0.2541743412573, -0.0316890178518, 0.4537280985], rel=1e-8
    )
    frailty = [0.4551466011707, -0.1604399579284, 0.2001993452675, -0.4949059885098]
    assert fit.random_effects()["mode"].to_numpy() == pytest.approx(frailty, abs=1e-8)
    some = [0, 1, 50, 136]
    assert np.asarray(residuals(fit))[some] == pytest.approx(
        [0.664530381924, -0.672061638911, 0.820627530450, -0.025195531942], abs=1e-9
    )
    assert np.asarray(residuals(fit, "deviance"))[some] == pytest.approx(
        [0.9248713444545, -0.5621463502513, 1.3398979581728, -0.0249869835838], abs=1e-9
    )
    base = baseline_hazard(fit).set_index("time")["cumulative_hazard"]
    assert base.loc[[1, 8, 999]].to_numpy() == pytest.approx(
        [0.0470448045691, 0.3031189439178, 49.9720229678902], rel=1e-8
    )


# ---- identities ----------------------------------------------------------------------------------------------------


def increments(data: pd.DataFrame, eta: np.ndarray, ties: str) -> pd.Series:
    """dΛ₀ at each event time of one stratum, by the definition."""
    weight = np.exp(eta) * data.get("n", pd.Series(1, data.index)).to_numpy()
    out = {}
    for t in sorted(data.loc[data["event"] == 1, "stop"].unique()):
        at_risk, failed = data["stop"] >= t, (data["stop"] == t) & (data["event"] == 1)
        d = int(data.get("n", pd.Series(1, data.index))[failed].sum())
        f = np.arange(d) / d if ties == "efron" else np.zeros(d)
        out[t] = (1 / (weight[at_risk].sum() - f * weight[failed].sum())).sum()
    return pd.Series(out)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("strata", [False, True])
@pytest.mark.parametrize("formula", ["(1 | g)", "(a || g)", "s(v)"])
def test_the_baseline_is_that_of_rows_whose_linear_predictors_are_known(
    ties: str, strata: bool, formula: str
) -> None:
    data = waved().assign(h=lambda d: (d["b"] > 0) * 1, n=lambda d: 1 + np.arange(250) % 3)
    fit = th.fit(
        f"Surv(stop, event) ~ a + {formula}{' + strata(h)' * strata}",
        data,
        family="cox",
        ties=ties,
        weights="n",
    )
    eta = fit.predict(data, what="linear").to_numpy()
    found, average = baseline_hazard(fit), fit.predict(data.head(6), what="linear", groups="average")
    known, martingale = curves(fit, data.head(6), [0.4]), residuals(fit).to_numpy()
    for h in (0, 1):
        here = (data["h"] == h).to_numpy() if strata else np.ones(250, dtype=bool)
        direct = increments(data[here], eta[here], ties)
        own = found[found["stratum"] == f"h={h}"] if strata else found
        assert own["hazard"].to_numpy() == pytest.approx(direct.to_numpy(), rel=1e-9)
        total = direct.cumsum()
        by = total.reindex(total.index.union(data["stop"].unique())).ffill().fillna(0.0)
        for i in np.flatnonzero(here[:6]):
            reached = by[by.index <= 0.4].iloc[-1]
            assert known["cumulative_hazard"][i] == pytest.approx(np.exp(eta[i]) * reached, rel=1e-9)
            one = curves(fit, data.iloc[[i]], [0.4], groups="average")
            assert one["cumulative_hazard"][0] == pytest.approx(np.exp(average.iloc[i]) * reached, rel=1e-9)
        if ties == "breslow":  # by Efron's, those with an event count for a part of their own time
            expected = np.exp(eta[here]) * by[data["stop"][here]].to_numpy()
            assert martingale[here] == pytest.approx(data["event"][here].to_numpy() - expected, abs=1e-9)
        assert float(martingale[here] @ data["n"][here]) == pytest.approx(0.0, abs=1e-8)


def test_without_variance_everything_is_that_of_the_fit_without_the_groups() -> None:
    data = drawn(120, 3, strata=12)
    fit = th.fit("Surv(stop, event) ~ a + b + (1 | g)", data, family="cox")
    assert fit.certificate.status == "boundary"
    plain = th.fit("Surv(stop, event) ~ a + b", data, family="cox")
    for groups in ("known", "average"):
        pd.testing.assert_frame_equal(
            curves(fit, data.head(3), groups=groups), curves(plain, data.head(3)), rtol=1e-6
        )
    pd.testing.assert_frame_equal(baseline_hazard(fit), baseline_hazard(plain), rtol=1e-6)
    for kind in ("martingale", "deviance"):
        assert residuals(fit, kind).to_numpy() == pytest.approx(residuals(plain, kind).to_numpy(), abs=1e-6)


def test_counts_are_rows_repeated() -> None:
    once = waved().iloc[:80].assign(n=1 + np.arange(80) % 3)
    each = once.loc[once.index.repeat(once["n"])].reset_index(drop=True)
    fits = (
        restricted(SMOOTH, each),
        th.fit(SMOOTH, once, family="cox", ties="breslow", reml=True, weights="n"),
    )
    pd.testing.assert_frame_equal(*(curves(fit, NEW) for fit in fits), rtol=1e-5)
    repeated = residuals(fits[1]).to_numpy().repeat(once["n"])
    assert residuals(fits[0]).to_numpy() == pytest.approx(repeated, abs=1e-5)


def test_the_answers_of_a_fit_are_these() -> None:
    fit = restricted(SMOOTH, waved())
    pd.testing.assert_frame_equal(fit.baseline(), baseline_hazard(fit))
    assert fit.residuals("deviance").tolist() == residuals(fit, "deviance").tolist()
    for groups in (None, "average"):
        asked = fit.predict(NEW, what="survival", times=[0.3, 0.9], groups=groups)
        assert asked["value"].tolist() == curves(fit, NEW, [0.3, 0.9], groups=groups)["survival"].tolist()


# ---- whether there is a maximum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("random", ["(1 | g)", "s(v) + (1 | g)"])
def test_separation_is_proven_and_named(reml: bool, ties: str, random: str) -> None:
    """Before this was asked, an arm without events was certified at a coefficient of −31."""
    settings: dict[str, object] = {"family": "cox", "ties": ties, "reml": reml}
    data = waved().assign(arm=(np.arange(250) % 4 == 0) * 1.0)
    assert th.fit(f"Surv(stop, event) ~ a + arm + {random}", data, **settings).certificate.ok
    none = data.assign(event=data["event"] * (1 - data["arm"]))
    with pytest.raises(NoMaximum, match=r"smallest arm of those at risk.*Leave out arm") as caught:
        th.fit(f"Surv(stop, event) ~ a + arm + {random}", none, **settings)
    assert caught.value.certificate.directions[0].keys() == {"arm"}
    hidden, noise = (
        np.where(data["event"] == 1, -data["stop"], -9.0),
        np.random.default_rng(0).normal(size=250),
    )
    with pytest.raises(NoMaximum, match=r"largest.*p.*q"):
        th.fit(
            f"Surv(stop, event) ~ a + p + q + {random}", data.assign(p=noise, q=hidden - noise), **settings
        )


def test_a_prior_gives_a_separated_column_a_maximum() -> None:
    data = waved().assign(arm=(np.arange(250) % 4 == 0) * 1.0)
    none = data.assign(event=data["event"] * (1 - data["arm"]))
    fit = th.fit("Surv(stop, event) ~ a + arm + (1 | g)", none, family="cox", prior=th.priors.Normal(2.5))
    assert fit.certificate.ok
    assert fit.estimates["arm"] < -2


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_is_refused() -> None:
    data = waved()
    fit = th.fit("Surv(stop, event) ~ a + (1 | g)", data, family="cox")
    new = pd.DataFrame({"a": [0.0], "g": [77]})
    with pytest.raises(UnknownLevel, match="has not seen this group of g"):
        curves(fit, new)
    assert np.isfinite(curves(fit, new, groups="average")["survival"]).all()
    with pytest.raises(BadArgument, match=r"groups='all'.*'known', 'average'"):
        curves(fit, new, groups="all")
    for kind in ("score", "dfbeta", "schoenfeld"):
        with pytest.raises(BadArgument, match="without random effects and smooth terms"):
            residuals(fit, kind)
    plain = th.fit("Surv(stop, event) ~ a", data, family="cox")
    with pytest.raises(BadArgument, match="groups='known': the fit has no random effects"):
        curves(plain, new, groups="known")
