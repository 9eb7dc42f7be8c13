"""Cox's model with random effects and smooth terms, against the integrand written out, finite differences and mgcv.

R 4.2.2, mgcv 1.8-41: gam(…, family = cox.ph(), weights = event, method = "REML"), whose ties are Breslow's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, BadFormula
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.models.formulas import formula_model

from .cox_data import definition, drawn

VETERAN = Path(__file__).parents[3] / "shared" / "data" / "r" / "veteran.csv"


def objective(formula: str, data: pd.DataFrame, ties: str = "efron", **settings: object) -> Objective:
    family = th.families.Cox(ties)
    model, table = formula_model(formula, data, family, **settings)  # type: ignore[arg-type]
    return Objective([LogLikelihood(model, table)])


def somewhere(o: Objective) -> torch.Tensor:
    """A θ off the maximum."""
    begin = o.model.start(o.terms[0].source)
    g = torch.Generator().manual_seed(1)
    return begin + 0.2 * torch.randn(len(begin), generator=g, dtype=torch.float64)


def waved() -> pd.DataFrame:
    """250 rows in 8 groups, whose log hazard is a wave in v."""
    d, rng = drawn(250, 21, strata=8, ties=0.25), np.random.default_rng(22)
    v = rng.uniform(size=250)
    shift = 0.6 * rng.normal(size=8)[d.g] + np.sin(6 * v)
    stop = np.ceil(-np.log(rng.uniform(size=250)) * np.exp(-0.5 * d.a - shift) * 20) / 20
    return d.assign(v=v, stop=np.minimum(stop, 3.0), event=(stop <= 3.0) * 1.0)


# ---- the value ---------------------------------------------------------------------------------------------


def _maximised(f, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of f, and −∂²f there, both by differences of fourth order."""

    def slope(x: np.ndarray, h: float = 2e-3) -> np.ndarray:
        e = h * np.eye(len(x))
        return np.array(
            [(8 * (f(x + d) - f(x - d)) - f(x + 2 * d) + f(x - 2 * d)) / (12 * h) for d in e], dtype=float
        )

    def curvature(x: np.ndarray, h: float = 2e-2) -> np.ndarray:
        e = h * np.eye(len(x))
        rows = [
            (8 * (slope(x + d) - slope(x - d)) - slope(x + 2 * d) + slope(x - 2 * d)) / (12 * h) for d in e
        ]
        return -(np.array(rows) + np.array(rows).T) / 2

    H = curvature(x)
    for _ in range(30):
        step = np.linalg.solve(H, slope(x))
        x, H = x + step, curvature(x) if np.abs(step).max() > 1e-2 else H
        if np.abs(step).max() < 1e-10:
            break
    return x, curvature(x)


@pytest.mark.parametrize(
    ("ties", "reml"), [("efron", False), ("breslow", True)], ids=["efron", "breslow, restricted"]
)
def test_the_value_is_laplaces_of_the_partial_likelihood_as_it_is_defined(ties: str, reml: bool) -> None:
    """f(û) − ½ log det H, with the definition of ℓ_p, its maximum and its Hessian by differences."""
    d = drawn(30, 5, entry=True, strata=2).assign(h=np.arange(30) % 3)
    o = objective("Surv(start, stop, event) ~ a + strata(g) + (1 | h)", d, ties, reml=reml)
    theta = torch.tensor([0.5, 0.8], dtype=torch.float64)
    C = np.column_stack([np.eye(3)[d.h] * 0.8, d.a])
    times = (d.stop.to_numpy(), d.event.to_numpy(), d.start.to_numpy(), d.g.to_numpy(), ties)

    def integrand(x: np.ndarray) -> float:
        beta = x if len(x) > 3 else np.append(x, 0.5)
        return definition(beta, C, *times) - 0.5 * float(x[:3] @ x[:3])

    u, H = _maximised(integrand, np.zeros(3))
    value = integrand(u) - 0.5 * np.linalg.slogdet(H)[1]
    if reml:  # ℓ_R, and how far the likelihood is at this β from where it is largest
        _, joint = _maximised(integrand, np.append(u, 0.5))
        value = integrand(u) - 0.5 * np.linalg.slogdet(joint)[1] + 0.5 * np.log(2 * np.pi)
    assert float(o.taylor(theta, order=1).value) == pytest.approx(value, abs=2e-7)


# ---- the gradient ------------------------------------------------------------------------------------------

FORMULAS = {
    "intercepts": "Surv(stop, event) ~ a + (1 | g)",
    "none fixed": "Surv(stop, event) ~ (1 | g)",
    "slopes": "Surv(stop, event) ~ a + (a | g)",
    "smooth, crossed": "Surv(stop, event) ~ a + s(v) + (1 | g) + (1 | h)",
    "strata, offset": "Surv(stop, event) ~ a + offset(v) + strata(h) + (1 | g)",
    "late entry": "Surv(start, stop, event) ~ a + (1 | g)",
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("ties", "reml"), [("efron", False), ("breslow", False), ("efron", True)])
def test_the_gradient_is_exact(name: str, ties: str, reml: bool) -> None:
    """Against differences of fourth order."""
    if reml and name == "none fixed":
        pytest.skip("there are no fixed effects to integrate out")
    d = waved().iloc[:70].assign(h=np.arange(70) % 3, start=lambda d: d.stop - 0.05 - 0.4 * d.v)
    o = objective(FORMULAS[name], d, ties, reml=reml)
    theta, h = somewhere(o), 2e-3
    found = o.taylor(theta, order=1).gradient
    for j, e in enumerate(h * torch.eye(len(theta), dtype=torch.float64)):
        f = [float(o.taylor(theta + k * e, order=1).value) for k in (1, -1, 2, -2)]
        assert float(found[j]) == pytest.approx((8 * (f[0] - f[1]) - f[2] + f[3]) / (12 * h), abs=1e-6)


def test_the_information_is_the_derivative_of_the_gradient() -> None:
    o = objective(FORMULAS["slopes"], waved().iloc[:70])
    theta, h = somewhere(o), 1e-3
    J = o.taylor(theta).information.dense()
    for j, e in enumerate(h * torch.eye(len(theta), dtype=torch.float64)):
        g = [o.taylor(theta + k * e, order=1).gradient for k in (1, -1, 2, -2)]
        assert torch.allclose(-J[j], (8 * (g[0] - g[1]) - g[2] + g[3]) / (12 * h), rtol=1e-4, atol=1e-4)


# ---- fits --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not VETERAN.exists(), reason="R's data are not here")
def test_a_random_intercept_is_that_of_mgcv() -> None:
    """gam(time ~ trt + karno + s(celltype, bs = "re")): restricted likelihood, sd = 1/√sp, coefficients, modes."""
    data = pd.read_csv(VETERAN)
    fit = th.fit(
        "Surv(time, status) ~ trt + karno + (1 | celltype)", data, family="cox", ties="breslow", reml=True
    )
    assert fit.log_likelihood == pytest.approx(-485.109538014, abs=1e-8)
    assert fit.estimates.to_numpy() == pytest.approx([0.24963784, -0.031528392, 0.45044374], rel=1e-6)
    modes = [0.45157122180, -0.15863273107, 0.19802160890, -0.49096009962]
    assert fit.random_effects()["mode"].to_numpy() == pytest.approx(modes, rel=1e-6)


def test_a_smooth_term_beside_a_random_intercept_is_that_of_mgcv() -> None:
    """gam(stop ~ a + s(v) + s(g, bs = "re")): sds by gam.vcomp, coefficient, edf, and the curve with its errors."""
    data = waved()
    fit = th.fit("Surv(stop, event) ~ a + s(v) + (1 | g)", data, family="cox", ties="breslow", reml=True)
    assert fit.certificate.ok
    assert fit.estimates["a"] == pytest.approx(0.5885873574, rel=1e-6)
    sds = fit.variance_components(intervals=None)["sd"].to_numpy()
    assert sds == pytest.approx([0.2239818553, 12.7433875904], rel=1e-5)
    term = fit.smooths().loc["s(v)"]
    assert term[["edf", "reference_df"]].to_numpy(dtype=float) == pytest.approx(
        [4.52477540, 5.53420649], rel=1e-6
    )
    assert term["statistic"] == pytest.approx(
        64.986, abs=0.2
    )  # mgcv takes one sign of the mixture, ours the mean
    assert 1e-14 < term["p_value"] < 1e-10  # of χ²: there is no scale that is estimated
    curve = fit.curve("s(v)", pd.DataFrame({"v": [0.1, 0.3, 0.5, 0.8]}))
    assert curve["value"].to_numpy() == pytest.approx(
        [0.5114133988, 0.7629327811, 0.0932987249, -0.9465728316], rel=1e-5
    )
    assert curve["standard_error"].to_numpy() == pytest.approx(
        [0.1315535064, 0.1386062566, 0.1299020674, 0.1573617703], rel=1e-5
    )


def test_counts_are_rows_repeated() -> None:
    d = waved().iloc[:60].assign(n=lambda d: 1 + np.arange(60) % 3)
    often = d.loc[d.index.repeat(d.n)].reset_index(drop=True)
    once = th.fit("Surv(stop, event) ~ a + (1 | g)", d, family="cox", weights="n")
    each = th.fit("Surv(stop, event) ~ a + (1 | g)", often, family="cox")
    assert once.log_likelihood == pytest.approx(each.log_likelihood, abs=1e-8)
    assert once.estimates.to_numpy() == pytest.approx(each.estimates.to_numpy(), rel=1e-6)


def test_no_variance_is_a_certified_boundary_and_the_model_without_it() -> None:
    d = drawn(120, 3, strata=12)
    fit = th.fit("Surv(stop, event) ~ a + b + (1 | g)", d, family="cox")
    plain = th.fit("Surv(stop, event) ~ a + b", d, family="cox")
    assert fit.certificate.status == "boundary"
    assert "sd(Intercept | g)" in fit.certificate.boundary
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    assert fit.estimates.to_numpy()[:2] == pytest.approx(plain.estimates.to_numpy(), rel=1e-6)
    test = fit.test_random("(1 | g)")
    assert test.statistic == pytest.approx(0.0, abs=1e-8)
    assert test.weights == {0: 0.5, 1: 0.5}


def test_the_ratio_of_the_test_is_that_of_the_fits() -> None:
    d = waved()
    fit = th.fit("Surv(stop, event) ~ a + (1 | g)", d, family="cox")
    plain = th.fit("Surv(stop, event) ~ a", d, family="cox")
    ratio = 2 * (fit.log_likelihood - plain.log_likelihood)
    assert fit.test_random("(1 | g)").statistic == pytest.approx(ratio, abs=1e-7)
    row = fit.variance_components().iloc[0]
    assert row["low"] == 0.0 < row["sd"] < row["high"]  # the ratio at 0 is far below χ²'s quantile


def test_a_summary_says_how_effects_were_integrated() -> None:
    text = str(
        th.fit(
            "Surv(stop, event) ~ a + strata(h) + (1 | g)", waved().assign(h=lambda d: d.b > 0), family="cox"
        ).summary()
    )
    assert "8 of g" in text
    assert "integrated out by Laplace's approximation" in text
    assert "Laplace estimate of the partial likelihood" in text
    assert "each with a baseline hazard of its own" in text


# ---- what is refused ---------------------------------------------------------------------------------------


def test_what_there_is_not_is_refused_by_name() -> None:
    d = waved()
    for settings, message in [({"quadrature": 5}, "quadrature=5"), ({"ties": "exact"}, "Use ties='efron'")]:
        with pytest.raises(BadArgument, match=message):
            th.fit("Surv(stop, event) ~ a + (1 | g)", d, family="cox", **settings)
    with pytest.raises(BadFormula, match=r"Write \(1 \| column\)"):
        th.fit("Surv(stop, event) ~ a + frailty(g)", d, family="cox")
    many = drawn(2100, 1).assign(id=range(2100))
    with pytest.raises(
        BadArgument, match=r"2,100 random effects \(2,100 of \(1 \| id\)\), and at most 2,000"
    ):
        th.fit("Surv(stop, event) ~ a + (1 | id)", many, family="cox")
    fit = th.fit("Surv(stop, event) ~ a + (1 | g)", d, family="cox")
    with pytest.raises(BadArgument, match="no distribution of times to draw from"):
        fit.sample()
    with pytest.raises(BadArgument, match="share what is not observed"):
        fit.standard_errors("sandwich")
    for asked in (fit.proportional_hazards, lambda: fit.residuals("schoenfeld")):
        with pytest.raises(BadArgument, match="is of a fit without random effects and smooth terms"):
            asked()
