"""Cox's model: its partial likelihood against its definition, its fits against R's, and what must not change it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

import thetahat as th
from thetahat.models.cox import CoxRegression
from thetahat.models.discrete_ties import subsets
from thetahat.models.risk_sets import Cumulated, risk_sets

from .cox_data import R_CLUSTER, R_FITS, R_ROBUST, R_WEIGHTED, SMALL, definition, drawn

SHARED = Path(__file__).parents[3] / "shared" / "data" / "r"
TIES = ["efron", "breslow", "exact"]
FORMULA = "Surv(time, status) ~ x + z"


def model_of(formula: str, data: pd.DataFrame, **settings: str) -> tuple[CoxRegression, th.data.Batch]:
    from thetahat.models.formulas import regression

    model, table = regression(formula, data, th.families.Cox(**settings))
    (batch,) = table.batches()
    assert isinstance(model, CoxRegression)
    return model, batch


def at(model: CoxRegression, batch: th.data.Batch, beta: list[float] | np.ndarray, order: int = 2):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        model.coefficients.copy_(torch.tensor(np.array(beta), dtype=torch.float64))
    return model.taylor(batch, batch.count if batch.counted else None, order)


# ---- the definition ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("entry", [False, True])
@pytest.mark.parametrize("strata", [1, 3])
def test_value_gradient_and_information_are_those_of_the_definition(
    ties: str, entry: bool, strata: int
) -> None:
    data = drawn(
        40 if ties != "exact" else 14, 3, entry=entry, strata=strata
    )  # its definition lists all subsets
    response = "Surv(start, stop, event)" if entry else "Surv(stop, event)"
    model, batch = model_of(f"{response} ~ a + b{' + strata(g)' * (strata > 1)}", data, ties=ties)
    X, t, e = data[["a", "b"]].to_numpy(), data["stop"].to_numpy(), data["event"].to_numpy()
    begin = data["start"].to_numpy() if entry else None

    def direct(beta: np.ndarray) -> float:
        return definition(beta, X, t, e, begin, data["g"].to_numpy() if strata > 1 else None, ties)

    beta, h = np.array([0.6, -0.8]), 1e-4
    found = at(model, batch, beta)
    assert float(found.value) == pytest.approx(direct(beta), abs=1e-11)
    unit = np.eye(2) * h
    slope = [(direct(beta + u) - direct(beta - u)) / (2 * h) for u in unit]
    assert found.gradient.numpy() == pytest.approx(slope, abs=1e-6)
    gradients = [
        (at(model, batch, beta + u, 1).gradient - at(model, batch, beta - u, 1).gradient) / (2 * h)
        for u in unit
    ]
    assert found.information.dense().numpy() == pytest.approx(-torch.stack(gradients).numpy(), abs=1e-6)
    at(model, batch, beta)
    assert float(model.log_prob(batch).sum()) == pytest.approx(float(found.value), abs=1e-11)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("strata", [1, 4, 300])
def test_scores_sum_to_the_gradient(ties: str, strata: int) -> None:
    data = drawn(900, 5, entry=True, strata=strata)
    model, batch = model_of("Surv(start, stop, event) ~ a + b + strata(g)", data, ties=ties)
    found = at(model, batch, [0.4, 0.9])
    assert model.scores(batch).sum(0).numpy() == pytest.approx(found.gradient.numpy(), abs=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("entry", [False, True])
@pytest.mark.parametrize("size", [1.0, 40.0, 900.0])
def test_predictors_however_far_apart_cost_no_digit(ties: str, entry: bool, size: float) -> None:
    """exp(900) is beyond float64, and a sum of risk sets by differences would lose exp(40)."""
    data = drawn(50, 8, entry=entry)
    model, batch = model_of(f"Surv({'start, ' * entry}stop, event) ~ a + b", data, ties=ties)
    beta = np.array([size, -size / 2])
    X, t, e = data[["a", "b"]].to_numpy(), data["stop"].to_numpy(), data["event"].to_numpy()
    direct = definition(beta, X, t, e, data["start"].to_numpy() if entry else None, None, ties)
    found = at(model, batch, beta)
    assert float(found.value) == pytest.approx(direct, rel=1e-13)
    assert bool(torch.isfinite(found.information.dense()).all())
    assert model.scores(batch).sum(0).numpy() == pytest.approx(found.gradient.numpy(), abs=1e-8)


@pytest.mark.parametrize("entry", [False, True])
@pytest.mark.parametrize("strata", [1, 3, 250])
def test_the_tree_and_cumulative_sums_agree(entry: bool, strata: int) -> None:
    data = drawn(1200, 11, entry=entry, strata=strata)
    sets = risk_sets(
        torch.tensor(data["stop"]),
        torch.tensor(data["event"]),
        torch.tensor(data["start"]) if entry else None,
        torch.tensor(data["g"]) if strata > 1 else None,
        None,
    )
    assert sets is not None
    rng = torch.Generator().manual_seed(0)
    zeta = torch.randn(len(sets.rows), generator=rng, dtype=torch.float64)
    X = torch.randn(3, len(sets.rows), generator=rng, dtype=torch.float64)
    a = torch.randn(2, sets.size, generator=rng, dtype=torch.float64)
    fast, slow = Cumulated(sets, zeta), sets.tree.weighed(zeta)
    assert fast.sound
    assert fast.log_total.numpy() == pytest.approx(slow.log_total.numpy(), abs=1e-12)
    assert fast.means(X).numpy() == pytest.approx(slow.means(X).numpy(), abs=1e-12)
    assert fast.spread(a).numpy() == pytest.approx(slow.spread(a).numpy(), abs=1e-11)
    assert sets.largest(zeta)[0].tolist() == sets.tree.largest(zeta)[0].tolist()
    largest, who = sets.tree.largest(zeta)
    assert zeta[who].tolist() == largest.tolist()


def test_the_sum_over_subsets_is_the_recursion() -> None:
    """B(d, n) = B(d, n − 1) + w_n B(d − 1, n − 1), of Gail, Lubin and Rubinstein (1981), in exact fractions."""
    from fractions import Fraction
    from math import log

    rng = np.random.default_rng(2)
    numbers = [Fraction(int(v), 64) for v in rng.integers(1, 2000, size=60)]
    for d in (1, 2, 17, 59, 60):
        B = [Fraction(1)] + [Fraction(0)] * d
        for w in numbers:
            for j in range(d, 0, -1):
                B[j] += w * B[j - 1]
        exact = log(B[d].numerator) - log(B[d].denominator)
        eta = torch.tensor([log(w) for w in numbers], dtype=torch.float64)
        found = subsets(eta, torch.ones(60, dtype=torch.float64), d, None)
        assert found.log_sum == pytest.approx(exact, rel=1e-13)
        assert float(found.inside.sum()) == pytest.approx(d, rel=1e-13)


# ---- R -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", TIES)
def test_small_data_with_many_ties_as_r(ties: str) -> None:
    value, beta, V = R_FITS[ties]
    fit = th.fit(FORMULA, SMALL, family="cox", ties=ties)
    assert fit.log_likelihood == pytest.approx(value, abs=1e-9)
    assert fit.estimates.to_numpy() == pytest.approx(beta, abs=1e-9)
    assert fit.covariance().to_numpy() == pytest.approx(np.array(V), abs=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_robust_errors_as_r(ties: str) -> None:
    fit = th.fit(FORMULA, SMALL, family="cox", ties=ties)
    assert fit.covariance("HC0").to_numpy() == pytest.approx(np.array(R_ROBUST[ties]), abs=1e-9)
    small_sample = 6 / 5 * 11 / 10  # which R leaves out
    own = fit.covariance("cluster", by="g").to_numpy() / small_sample
    assert own == pytest.approx(np.array(R_CLUSTER[ties]), abs=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_sampling_weights_as_r(ties: str) -> None:
    value, beta, V = R_WEIGHTED[ties]
    fit = th.fit(FORMULA, SMALL, family="cox", ties=ties, weights=th.weights.Probability("w"))
    assert fit.log_likelihood == pytest.approx(value, abs=1e-9)
    assert fit.estimates.to_numpy() == pytest.approx(beta, abs=1e-9)
    assert fit.covariance().to_numpy() == pytest.approx(np.array(V), abs=1e-9)


@pytest.mark.skipif(not SHARED.exists(), reason="the tables are not here")
@pytest.mark.parametrize(
    ("name", "formula", "settings"),
    [
        ("lung", "Surv(time, status == 2) ~ age + sex + `ph.ecog`", {}),
        ("lung#breslow", "Surv(time, status == 2) ~ age + sex + `ph.ecog`", {"ties": "breslow"}),
        ("heart", "Surv(start, stop, event) ~ age + year + surgery + transplant", {}),
    ],
)
def test_tables_as_r(name: str, formula: str, settings: dict[str, str]) -> None:
    truth = json.loads((SHARED / "truths.json").read_text())[name]
    fit = th.fit(formula, pd.read_csv(SHARED / truth["data"]), family="cox", **settings)
    assert fit.log_likelihood == pytest.approx(truth["logLik"], abs=1e-8)
    assert fit.estimates.to_numpy() == pytest.approx(list(truth["coef"].values()), rel=1e-6)
    assert fit.standard_errors().to_numpy() == pytest.approx(list(truth["se"].values()), rel=1e-6)


@pytest.mark.skipif(not SHARED.exists(), reason="the tables are not here")
def test_strata_offsets_exact_ties_and_clusters_of_tables_as_r() -> None:
    veteran, heart = (pd.read_csv(SHARED / f"{name}.csv") for name in ("veteran", "heart"))
    truth = json.loads((SHARED / "truths.json").read_text())["veteran"]
    fit = th.fit("Surv(time, status) ~ karno + celltype + strata(trt)", veteran, family="cox")
    assert fit.log_likelihood == pytest.approx(truth["logLik"], abs=1e-8)
    assert fit.estimates["karno"] == pytest.approx(truth["coef"]["karno"], rel=1e-6)
    assert -fit.estimates["celltype[T.squamous]"] == pytest.approx(truth["coef"]["celltypeadeno"], rel=1e-6)
    two = th.fit("Surv(time, status) ~ karno + age + strata(trt, celltype)", veteran, family="cox")
    apart = th.fit("Surv(time, status) ~ strata(trt) + karno + strata(celltype) + age", veteran, family="cox")
    assert two.log_likelihood == pytest.approx(-243.245524346, abs=1e-8)
    assert two.estimates.to_numpy() == pytest.approx([-0.03535076488449, -0.00897790381589], rel=1e-8)
    assert apart.estimates.to_numpy() == pytest.approx(two.estimates.to_numpy(), rel=1e-10)
    moved = th.fit("Surv(time, status) ~ karno + offset(age / 50)", veteran, family="cox")
    assert moved.log_likelihood == pytest.approx(-487.282384743, abs=1e-8)
    assert moved.standard_errors().to_numpy() == pytest.approx([0.0049789738176], rel=1e-7)
    exact = th.fit("Surv(time, status) ~ karno + age", veteran, family="cox", ties="exact")
    assert exact.log_likelihood == pytest.approx(-459.795988273, abs=1e-8)
    assert exact.estimates.to_numpy() == pytest.approx([-0.03386928090462, -0.00231506482251], rel=1e-7)
    assert exact.standard_errors().to_numpy() == pytest.approx([0.0052339778074, 0.0091340970599], rel=1e-7)
    fit = th.fit("Surv(start, stop, event) ~ age + year + surgery + transplant", heart, family="cox")
    n, G = len(heart), heart["id"].nunique()
    robust = fit.standard_errors("cluster", by="id").to_numpy() / np.sqrt(G / (G - 1) * (n - 1) / (n - 4))
    assert robust == pytest.approx(
        [0.0138918929241, 0.0730798592394, 0.3582102023844, 0.3168823490625], rel=1e-7
    )


# ---- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", TIES)
def test_any_rising_function_of_time_gives_the_same_fit(ties: str) -> None:
    a = th.fit(FORMULA, SMALL, family="cox", ties=ties)
    b = th.fit(FORMULA, SMALL.assign(time=np.exp(SMALL["time"]) - 50), family="cox", ties=ties)
    assert b.log_likelihood == pytest.approx(a.log_likelihood, abs=1e-12)
    assert b.estimates.to_numpy() == pytest.approx(a.estimates.to_numpy(), abs=1e-12)


@pytest.mark.parametrize("ties", TIES)
def test_rows_cut_at_any_time_give_the_same_fit(ties: str) -> None:
    whole = th.fit(FORMULA, SMALL, family="cox", ties=ties)
    first = SMALL.assign(
        start=0.0, stop=np.minimum(SMALL["time"], 2.5), status=SMALL["status"] * (SMALL["time"] <= 2.5)
    )
    second = SMALL[SMALL["time"] > 2.5].assign(start=2.5, stop=lambda d: d["time"])
    cut = th.fit("Surv(start, stop, status) ~ x + z", pd.concat([first, second]), family="cox", ties=ties)
    assert cut.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-11)
    assert cut.estimates.to_numpy() == pytest.approx(whole.estimates.to_numpy(), abs=1e-10)
    assert cut.covariance().to_numpy() == pytest.approx(whole.covariance().to_numpy(), abs=1e-10)


@pytest.mark.parametrize("ties", TIES)
def test_frequency_weights_are_repeated_rows(ties: str) -> None:
    counted = th.fit(FORMULA, SMALL, family="cox", ties=ties, weights="w")
    rows = SMALL.loc[SMALL.index.repeat(SMALL["w"].astype(int))]
    repeated = th.fit(FORMULA, rows, family="cox", ties=ties)
    assert counted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-11)
    assert counted.estimates.to_numpy() == pytest.approx(repeated.estimates.to_numpy(), abs=1e-11)
    kinds = ["observed", "HC0"] if ties != "exact" else ["observed"]
    for kind in kinds:
        assert counted.covariance(kind).to_numpy() == pytest.approx(
            repeated.covariance(kind).to_numpy(), abs=1e-10
        )


def test_breslow_is_a_poisson_regression_with_an_intercept_for_each_time() -> None:
    """Whitehead (1980), Fitting Cox's regression model to survival data using GLIM."""
    cox = th.fit(FORMULA, SMALL, family="cox", ties="breslow")
    times = sorted(set(SMALL.loc[SMALL["status"] == 1, "time"]))
    parts = [
        SMALL[SMALL["time"] >= t].assign(
            at=f"t{t}", y=lambda d, t=t: ((d["time"] == t) & (d["status"] == 1)) * 1
        )
        for t in times
    ]
    poisson = th.fit("y ~ 0 + C(at) + x + z", pd.concat(parts), family="poisson")
    assert cox.estimates[["x", "z"]].to_numpy() == pytest.approx(
        poisson.estimates[["x", "z"]].to_numpy(), abs=1e-8
    )
    assert cox.standard_errors()[["x", "z"]].to_numpy() == pytest.approx(
        poisson.standard_errors()[["x", "z"]].to_numpy(), abs=1e-8
    )


def test_exact_ties_of_one_case_a_stratum_are_the_conditional_logit() -> None:
    """One case and two controls a set: ℓ = Σ η_case − log Σ exp η, and all three methods are the same."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"set": np.repeat(np.arange(60), 3), "x": rng.normal(size=180)})
    data["case"] = np.tile([1, 0, 0], 60)
    data["x"] += 0.5 * data["case"]
    data["one"] = 1.0
    x = data["x"].to_numpy().reshape(60, 3)

    def minus(b: np.ndarray) -> float:
        return float((np.log(np.exp(b[0] * x).sum(1)) - b[0] * x[:, 0]).sum())

    best = minimize(minus, [0.0], tol=1e-12)
    for ties in TIES:
        fit = th.fit("Surv(one, case) ~ x + strata(set)", data, family="cox", ties=ties)
        assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-9)
        assert fit.estimates["x"] == pytest.approx(best.x[0], abs=1e-5)


def test_a_category_of_many_levels_is_like_its_columns() -> None:
    data = drawn(1500, 21, strata=90, ties=0.01).assign(site=lambda d: "s" + d["g"].astype(str))
    named = th.fit("Surv(stop, event) ~ a + site", data, family="cox")
    dummies = pd.get_dummies(data["site"], dtype=float).iloc[:, 1:]
    wide = pd.concat([data[["stop", "event", "a"]], dummies], axis=1)
    plain = th.fit(f"Surv(stop, event) ~ a + {' + '.join(dummies)}", wide, family="cox")
    assert named.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-9)
    assert named.estimates.to_numpy() == pytest.approx(plain.estimates.to_numpy(), abs=1e-7)
    same = th.fit("Surv(stop, event) ~ a + site - 1", data, family="cox")  # the baseline is the intercept
    assert same.names == named.names


# ---- priors --------------------------------------------------------------------------------------------------------


def test_a_ridge_fit_satisfies_its_own_equation() -> None:
    fit = th.fit(FORMULA, SMALL, family="cox", prior=th.priors.Normal(0.5))
    free = th.fit(FORMULA, SMALL, family="cox").model
    (batch,) = fit.source.batches()
    score = at(free, batch, fit.estimates.to_numpy(), 1).gradient.numpy()
    assert score == pytest.approx(fit.estimates.to_numpy() / 0.25, abs=1e-9)


def test_a_lasso_fit_satisfies_its_optimality_conditions() -> None:
    data = drawn(200, 6).assign(c=lambda d: np.sin(np.arange(len(d))))
    scale = 0.05
    fit = th.fit("Surv(stop, event) ~ a + b + c", data, family="cox", prior=th.priors.Laplace(scale))
    (batch,) = fit.source.batches()
    score = at(
        th.fit("Surv(stop, event) ~ a + b + c", data, family="cox").model, batch, fit.estimates.to_numpy(), 1
    )
    beta, g = fit.estimates.to_numpy(), score.gradient.numpy()
    assert (beta == 0).any()
    assert (beta != 0).any()
    assert g[beta != 0] == pytest.approx(np.sign(beta[beta != 0]) / scale, abs=1e-5)
    assert (np.abs(g[beta == 0]) <= 1 / scale).all()
