"""Curves, residuals and the test of proportional hazards of Cox's model: R's figures, and what they sum to.

The figures are of R 4.2.2 with survival 3.5-3: residuals.coxph, survfit.coxph(conf.type = "log-log"), cox.zph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import BadArgument, UnknownLevel
from thetahat.evaluation.cox_curves import baseline_hazard, curves
from thetahat.evaluation.cox_residuals import KINDS, proportional_hazards, residuals

from ..models.cox_data import SMALL, drawn

SHARED = Path(__file__).parents[3] / "shared" / "data" / "r"
TIES = ["efron", "breslow"]

MARTINGALE = {
    "efron": [0.75041144509670, 0.92785308371195, -0.20480341692944, 0.66350982218269, 0.45322673825668, -0.14634006445434,
              -0.30593604478982, 0.00325338510043, 0.52317477725327, -1.01587326466520, 0.01378511314084, -1.66226157390376],
    "breslow": [0.7056783832748, 0.8976986299688, -0.1936623076532, 0.6239502361870, 0.4225419446782, -0.1628137969283,
                -0.3191009243187, -0.0811540052443, 0.4288845501660, -0.8769988676005, 0.0235948525450, -1.4686186950748],
}  # fmt: skip
DEVIANCE = {
    "efron": [1.12918559342058, 1.84455829468959, -0.64000533892998, 0.92268791841106, 0.54862434614172, -0.54099919492425,
              -0.27934203204468, 0.00325691998295, 0.65943989463912, -1.42539346474242, 0.01384897055099, -1.82332749329557],
    "breslow": [1.0172549256107, 1.6626085431371, -0.6223540915800, 0.8415266574463, 0.5031451600148, -0.5706378832996,
                -0.2903464748434, -0.0790570831562, 0.5124048218867, -1.3243857954542, 0.0237830217200, -1.7138370372207],
}  # fmt: skip
SCORE_X = {
    "efron": [-0.7007842082363, 0.9909811643285, -0.0137598536463, -0.0581942970567, -0.2863573960877, -0.2916099019487,
              0.2411513168653, -0.0863213911924, 0.4006381378470, -0.3967865494852, -0.2627257054067, 0.4637686840192],
    "breslow": [-0.67845610137552, 0.93232829377147, -0.00747072612277, -0.06950763397339, -0.27436458549166,
                -0.32044264801562, 0.31078405057790, -0.02576733785677, 0.36571219129200, -0.37418241163261,
                -0.28208990664602, 0.42345681547299],
}  # fmt: skip
DFBETA_Z = {
    "efron": [0.2640788589419, -0.4361952906836, -0.0467404260674, -0.1656297716894, 0.1875085422044, 0.0799989556869,
              0.0654884678576, 0.0176691470559, -0.1957236908239, -0.2369963273784, 0.0860163494967, 0.3805251853995],
    "breslow": [0.22504727408232, -0.38246805154947, -0.04298856271462, -0.15379009630780, 0.15802320085734,
                0.07883123522073, 0.07093602759572, -0.00700663745672, -0.14136074706030, -0.20437126961599,
                0.06783221004095, 0.33131541690784],
}  # fmt: skip
SCHOENFELD_X = {
    "efron": [-0.9313825412877, 1.0686174587123, -0.0557144547374, -0.5557144547374, -1.1557500136914, -0.1557500136914,
              0.8442499863086, 0.9414440331244],
    "breslow": [-0.9614239538230, 1.0385760461770, -0.0814832631627, -0.5814832631627, -1.1050566148340,
                -0.1050566148340, 0.8949433851660, 0.9009842784735],
}  # fmt: skip
SCALED_Z = {
    "efron": [3.042013479256, -3.528921145841, -1.919909580490, 3.171094657716, -0.907941128431, 2.703132722885,
              -2.881181644285, 2.190383949145],
    "breslow": [2.77090873240, -3.18879588749, -1.88407085301, 2.91244734387, -1.03498237278, 2.59834940109,
                -2.58589760345, 2.16912724902],
}  # fmt: skip
BASELINE = {
    "efron": [0.268333155354, 0.663295841959, 1.712250660895, 2.750937412966],
    "breslow": [0.236284680806, 0.571508084334, 1.319100924319, 2.231958474136],
}
# of x = 1, z = 1 at the event times: survival, low, high
CURVE = {
    "efron": [
        [0.814807478024, 0.602748082009, 0.270667696335, 0.122501271201],
        [0.39594333349168, 0.17793105625506, 0.01866148738891, 0.00049268079445],
        [0.955736817413, 0.862034585398, 0.651173480081, 0.560532026168],
    ],
    "breslow": [
        [0.823936094208, 0.625992925469, 0.339203856665, 0.160518653190],
        [0.41796001106223, 0.20789181536218, 0.04223616966893, 0.00133952734346],
        [0.957918856755, 0.869629201012, 0.691162941538, 0.602985153555],
    ],
}
# x, z, all
ZPH = {
    ("efron", "km"): [0.799608066554, 0.916273655024, 1.051195206113],
    ("efron", "identity"): [0.358672265949, 0.328481997098, 0.466423827939],
    ("efron", "rank"): [0.378380302692, 0.391485809697, 0.520814548353],
    ("efron", "log"): [0.130227598811, 0.207498344073, 0.253859694269],
    ("breslow", "km"): [0.847245784362, 0.888237875680, 1.087434091503],
    ("breslow", "identity"): [0.443998971638, 0.345111795663, 0.561958943347],
    ("breslow", "rank"): [0.458673245433, 0.404384755369, 0.609759440863],
    ("breslow", "log"): [0.191515301597, 0.223832259893, 0.324758181135],
}


def small(ties: str = "efron", **more: str) -> th.Fit:
    return th.fit("Surv(time, status) ~ x + z", SMALL, family="cox", ties=ties, **more)


@pytest.mark.parametrize("ties", TIES)
def test_residuals_are_those_of_r(ties: str) -> None:
    fit = small(ties)
    assert residuals(fit).to_numpy() == pytest.approx(MARTINGALE[ties], abs=1e-10)
    assert residuals(fit, "deviance").to_numpy() == pytest.approx(DEVIANCE[ties], abs=1e-9)
    assert residuals(fit, "score")["x"].to_numpy() == pytest.approx(SCORE_X[ties], abs=1e-9)
    assert residuals(fit, "dfbeta")["z"].to_numpy() == pytest.approx(DFBETA_Z[ties], abs=1e-9)
    assert residuals(fit, "schoenfeld")["x"].to_numpy() == pytest.approx(SCHOENFELD_X[ties], abs=1e-9)
    assert residuals(fit, "scaled schoenfeld")["z"].to_numpy() == pytest.approx(SCALED_Z[ties], abs=1e-9)
    assert residuals(fit, "schoenfeld")["time"].tolist() == [1, 1, 2, 2, 4, 4, 4, 5]


@pytest.mark.parametrize("ties", TIES)
def test_baseline_and_curves_are_those_of_r(ties: str) -> None:
    fit = small(ties)
    base = baseline_hazard(fit)
    assert base["cumulative_hazard"].to_numpy() == pytest.approx(BASELINE[ties], abs=1e-10)
    assert base["at_risk"].tolist() == [12, 9, 6, 2]
    assert base["events"].tolist() == [2, 2, 3, 1]
    found = curves(fit, {"x": [1.0], "z": [1.0]})
    for name, wanted in zip(["survival", "low", "high"], CURVE[ties], strict=True):
        assert found[name].to_numpy() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("ties", "transform"), list(ZPH))
def test_proportional_hazards_is_cox_zph(ties: str, transform: str) -> None:
    found = proportional_hazards(small(ties), transform)
    assert found["statistic"].to_numpy() == pytest.approx(ZPH[ties, transform], abs=1e-9)
    assert found["df"].tolist() == [1, 1, 2]


@pytest.mark.skipif(not SHARED.exists(), reason="the tables are not here")
def test_strata_and_delayed_entry_as_r() -> None:
    veteran, heart = (pd.read_csv(SHARED / f"{name}.csv") for name in ("veteran", "heart"))
    fit = th.fit("Surv(time, status) ~ karno + celltype + strata(trt)", veteran, family="cox")
    found = proportional_hazards(fit)
    assert found["statistic"].to_numpy() == pytest.approx(
        [14.1138565227, 11.4087705754, 20.7710735570], rel=1e-8
    )
    assert found["df"].tolist() == [1, 3, 4]
    each = proportional_hazards(fit, terms=False)["statistic"].to_numpy()
    assert each == pytest.approx(
        [14.11385652268, 3.64410033401, 2.94930651978, 3.44551683638, 20.77107355698], rel=1e-8
    )
    plain = th.fit("Surv(time, status) ~ karno + strata(trt)", veteran, family="cox")
    found = curves(plain, {"karno": [50, 80], "trt": [1, 2]}, [10, 100, 300])
    assert found["stratum"].tolist() == ["trt=1"] * 3 + ["trt=2"] * 3
    wanted = [
        0.8843747475389,
        0.3830707797204,
        0.0372753725466,
        0.9599892909665,
        0.5363588265157,
        0.2882224614988,
    ]
    assert found["survival"].to_numpy() == pytest.approx(wanted, rel=1e-9)
    low = [
        0.7724704268436,
        0.2542128623681,
        0.0102168466687,
        0.9104456736400,
        0.3945281479512,
        0.1597152630544,
    ]
    assert found["low"].to_numpy() == pytest.approx(low, rel=1e-8)
    fit = th.fit("Surv(start, stop, event) ~ age + year + surgery + transplant", heart, family="cox")
    statistic = proportional_hazards(fit)["statistic"].to_numpy()
    zph = [0.8668747109154, 1.7164144292076, 0.0973950591162, 0.2029343881531, 3.4731022988456]
    assert statistic == pytest.approx(zph, rel=1e-7)
    assert (residuals(fit) ** 2).sum() == pytest.approx(73.4814495861, rel=1e-9)
    assert (residuals(fit, "deviance") ** 2).sum() == pytest.approx(195.809438271, rel=1e-9)
    squares = (residuals(fit, "score") ** 2).sum().to_numpy()
    assert squares == pytest.approx(
        [5983.05459484615, 221.36607683099, 6.95156168623, 10.89656398746], rel=1e-8
    )
    squares = (residuals(fit, "dfbeta") ** 2).sum().to_numpy()
    assert squares == pytest.approx(
        [0.000203105914554, 0.005429262060832, 0.124253955659544, 0.100818307841399], rel=1e-7
    )
    found = curves(fit, {"age": [0], "year": [1], "surgery": [0], "transplant": [0]}, [10, 100, 500, 1000])
    assert found["high"].to_numpy() == pytest.approx(
        [0.893870984943, 0.508057176396, 0.343496906028, 0.242054257422], rel=1e-8
    )


@pytest.mark.parametrize("entry", [False, True])
@pytest.mark.parametrize("ties", TIES)
def test_residuals_sum_to_zero_at_the_maximum(ties: str, entry: bool) -> None:
    data = drawn(300, 2, entry=entry, strata=3)
    response = "Surv(start, stop, event)" if entry else "Surv(stop, event)"
    fit = th.fit(f"{response} ~ a + b + strata(g)", data, family="cox", ties=ties)
    assert residuals(fit).sum() == pytest.approx(0, abs=1e-10)
    assert residuals(fit, "score").sum().to_numpy() == pytest.approx([0, 0], abs=1e-7)
    assert residuals(fit, "schoenfeld")[["a", "b"]].sum().to_numpy() == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("ties", TIES)
def test_without_predictors_the_hazard_is_nelson_and_aalens(ties: str) -> None:
    """Σ d/n by Breslow; by Efron Σ_j 1/(n − j), as if tied events came one after another (Fleming and Harrington)."""
    base = baseline_hazard(th.fit("Surv(time, status) ~ 1", SMALL, family="cox", ties=ties))
    n, d = np.array([12, 9, 6, 2]), [2, 2, 3, 1]
    each = [sum(1 / (a - j * (ties == "efron")) for j in range(k)) for a, k in zip(n, d, strict=True)]
    assert base["hazard"].to_numpy() == pytest.approx(each, abs=1e-12)


def test_a_curve_of_the_baseline_is_the_baseline() -> None:
    fit = th.fit("Surv(time, status) ~ x + z + offset(w / 3)", SMALL, family="cox")
    base, found = baseline_hazard(fit), curves(fit, {"x": [0.0], "z": [0.0], "w": [0.0]})
    assert found["survival"].to_numpy() == pytest.approx(base["survival"].to_numpy(), abs=1e-12)
    double = curves(fit, {"x": [0.0], "z": [0.0], "w": [3 * np.log(2)]})
    assert double["survival"].to_numpy() == pytest.approx(base["survival"].to_numpy() ** 2, abs=1e-12)


def test_frequency_weights_are_repeated_rows() -> None:
    rows = SMALL.loc[SMALL.index.repeat(SMALL["w"].astype(int))].reset_index(drop=True)
    counted, repeated = small(weights="w"), th.fit("Surv(time, status) ~ x + z", rows, family="cox")
    pd.testing.assert_frame_equal(baseline_hazard(counted), baseline_hazard(repeated))
    one = {"x": [0.4], "z": [1.0]}
    pd.testing.assert_frame_equal(curves(counted, one), curves(repeated, one))
    for transform in ("km", "rank", "identity"):
        a, b = (proportional_hazards(fit, transform) for fit in (counted, repeated))
        assert a["statistic"].to_numpy() == pytest.approx(b["statistic"].to_numpy(), rel=1e-8)


def test_rows_that_were_left_out_have_no_residual_and_new_rows_keep_their_labels() -> None:
    data = SMALL.assign(x=SMALL["x"].where(SMALL.index != 3)).set_index(SMALL.index + 100)
    fit = th.fit("Surv(time, status) ~ x + z", data, family="cox")
    for kind in ("martingale", "score"):
        found = residuals(fit, kind)
        assert found.index.tolist() == data.index.tolist()
        assert np.isnan(np.asarray(found, dtype=float)[3]).all()
    assert set(curves(fit, data.loc[[105, 108]])["row"]) == {105, 108}


def test_nothing_is_said_before_the_first_event_nor_after_the_last_row() -> None:
    found = curves(small(), {"x": [1.0], "z": [0.0]}, [0.5, 6.0, 6.1])
    assert found["survival"][0] == 1
    assert np.isnan(found["low"][0])
    assert found["survival"][1] > 0
    assert np.isnan(found["survival"][2])


def test_exact_ties_have_breslows_baseline_and_martingale_residuals() -> None:
    fit = small("exact")
    assert residuals(fit).sum() == pytest.approx(0, abs=1e-10)
    assert (np.diff(curves(fit, {"x": [1.0], "z": [0.0]})["survival"]) < 0).all()
    for kind in ("score", "schoenfeld"):
        with pytest.raises(BadArgument, match="Use ties='efron'"):
            residuals(fit, kind)
    with pytest.raises(BadArgument, match="Use ties='efron'"):
        proportional_hazards(fit)


def test_what_cannot_be_asked_is_refused() -> None:
    fit, weibull = small(), th.fit("Surv(time, status) ~ x", SMALL, family="weibull")
    for asked in (baseline_hazard, residuals, proportional_hazards, lambda f: curves(f, {"x": [0.0]})):
        with pytest.raises(BadArgument, match="family='cox'"):
            asked(weibull)
    with pytest.raises(BadArgument, match=f"'response'.*{KINDS[0]}"):
        residuals(fit, "response")
    with pytest.raises(BadArgument, match="transform='sqrt'"):
        proportional_hazards(fit, "sqrt")
    with pytest.raises(BadArgument, match="level=95"):
        curves(fit, {"x": [0.0], "z": [0.0]}, level=95)
    with pytest.raises(BadArgument, match="times="):
        curves(fit, {"x": [0.0], "z": [0.0]}, [])
    early = th.fit("Surv(t, status) ~ x", SMALL.assign(t=SMALL["time"] - 3), family="cox")
    with pytest.raises(BadArgument, match="transform='log'"):
        proportional_hazards(early, "log")
    with pytest.raises(BadArgument, match="no coefficients"):
        proportional_hazards(th.fit("Surv(time, status) ~ 1", SMALL, family="cox"))
    none = SMALL.assign(status=SMALL["status"] * (SMALL["g"] != 2))
    with pytest.raises(UnknownLevel, match="g=2"):
        curves(th.fit("Surv(time, status) ~ x + strata(g)", none, family="cox"), {"x": [0.0], "g": [2]})
