"""Firth's penalised likelihood: closed forms of tables, and a numeric optimum of ℓ + ½ log |XᵀWX| written here anew."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, ndtr
from scipy.stats import binom, chi2, norm

import thetahat as th
from thetahat.errors import BadArgument, NoMaximum

rng = np.random.default_rng(6)
N = 40
X = np.column_stack([np.ones(N), rng.normal(size=N), rng.integers(0, 2, N)])
DATA = {
    "x": X[:, 1],
    "g": X[:, 2],
    "b": (rng.uniform(size=N) < expit(X @ [0.3, 1.0, -0.5])).astype(float),
    "k": rng.binomial(4, expit(X @ [0.3, 1.0, -0.5])).astype(float),
    "y": rng.poisson(np.exp(X @ [0.3, 0.4, -0.5])).astype(float),
    "m": np.full(N, 4.0),
}
SEPARATED = {"hours": np.arange(1.0, 7.0), "passed": np.array([0.0, 0, 0, 1, 1, 1])}


def penalised(beta: np.ndarray, X: np.ndarray, y: np.ndarray, kind: str) -> float:
    """ℓ(β) + ½ log |XᵀWX|, up to a constant of the data."""
    eta = X @ beta
    if kind == "logit":
        value, w = y @ eta - np.logaddexp(0, eta).sum(), expit(eta) * expit(-eta)
    elif kind == "binomial":
        value, w = y @ eta - 4 * np.logaddexp(0, eta).sum(), 4 * expit(eta) * expit(-eta)
    elif kind == "probit":
        value = y @ norm.logcdf(eta) + (1 - y) @ norm.logsf(eta)
        w = norm.pdf(eta) ** 2 / (ndtr(eta) * ndtr(-eta))
    else:
        value, w = y @ eta - np.exp(eta).sum(), np.exp(eta)
    return float(value + 0.5 * np.linalg.slogdet(X.T @ (w[:, None] * X))[1])


def optimum(X: np.ndarray, y: np.ndarray, kind: str) -> np.ndarray:
    found = minimize(
        lambda b: -penalised(b, X, y, kind), np.zeros(X.shape[1]), method="BFGS", options={"gtol": 1e-9}
    )
    return minimize(lambda b: -penalised(b, X, y, kind), found.x, method="Nelder-Mead",
                    options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}).x  # fmt: skip


@pytest.mark.parametrize(
    ("response", "family", "kind", "settings"),
    [
        ("b", "bernoulli", "logit", {}),
        ("k", "binomial", "binomial", {"trials": "m"}),
        ("b", th.families.Bernoulli(link="probit"), "probit", {}),
        ("y", "poisson", "poisson", {}),
    ],
)
def test_the_maximum_is_that_of_a_numeric_optimum(
    response: str, family: object, kind: str, settings: dict
) -> None:
    fit = th.fit(f"{response} ~ x + g", DATA, family, prior=th.priors.Jeffreys(), **settings)
    assert fit.certificate.ok
    expected = optimum(X, DATA[response], kind)
    assert np.allclose(fit.estimates, expected, atol=2e-6)
    values = [penalised(np.asarray(b), X, DATA[response], kind) for b in (fit.estimates, np.zeros(3))]
    zero = fit.objective.value(0 * fit.theta)
    assert fit.maximised - zero == pytest.approx(values[0] - values[1], abs=1e-9)


def test_the_gradient_and_the_curvature_are_those_of_differences() -> None:
    """Central differences of the value, and of the gradient."""
    fit = th.fit("k ~ x + g", DATA, "binomial", trials="m", prior=th.priors.Jeffreys())
    objective, at = fit.objective, fit.theta + 0.3
    found, step = objective.taylor(at), 1e-5
    for j in range(3):
        up, down = at.clone(), at.clone()
        up[j] += step
        down[j] -= step
        slope = (objective.value(up) - objective.value(down)) / (2 * step)
        assert float(found.gradient[j]) == pytest.approx(slope, abs=1e-7)
        bend = (objective.taylor(up).gradient - objective.taylor(down).gradient) / (2 * step)
        assert np.allclose(-found.information.dense()[j], bend, atol=1e-6)


def test_half_an_observation_is_added_to_each_cell() -> None:
    """Of a saturated logistic regression: log odds of (cell + ½), a cell of 0 among them."""
    counts = {(0, 0): 5, (0, 1): 2, (1, 0): 0, (1, 1): 4}
    rows = [cell for cell, many in counts.items() for _ in range(many)]
    data = {"x": [float(x) for x, _ in rows], "y": [float(y) for _, y in rows]}
    fit = th.fit("y ~ x", data, "bernoulli", prior=th.priors.Jeffreys())
    first = np.log(2.5 / 5.5)
    assert np.allclose(fit.estimates, [first, np.log(4.5 / 0.5) - first], atol=1e-7)
    weighted = {"x": [0.0, 0, 1], "y": [0.0, 1, 1], "n": [5.0, 2, 4]}
    again = th.fit("y ~ x", weighted, "bernoulli", weights="n", prior=th.priors.Jeffreys())
    assert np.allclose(again.estimates, fit.estimates, atol=1e-8)


def test_separated_rows_have_a_maximum_and_a_profile_interval() -> None:
    """The ends by a root of the penalised profile, written here; and the message of the fit without offers it."""
    with pytest.raises(NoMaximum, match=r"th.priors.Jeffreys\(\)"):
        th.fit("passed ~ hours", SEPARATED, "bernoulli")
    fit = th.fit("passed ~ hours", SEPARATED, "bernoulli", prior=th.priors.Jeffreys())
    Z, y = np.column_stack([np.ones(6), SEPARATED["hours"]]), SEPARATED["passed"]
    best = optimum(Z, y, "logit")
    assert np.allclose(fit.estimates, best, atol=1e-5)

    def below(slope: float) -> float:
        held = minimize(lambda a: -penalised(np.array([a[0], slope]), Z, y, "logit"), [-3.5 * slope], method="Nelder-Mead",
                        options={"xatol": 1e-9, "fatol": 1e-13})  # fmt: skip
        return -held.fun - penalised(best, Z, y, "logit") + chi2.ppf(0.95, 1) / 2

    low = brentq(below, -3, best[1])
    found = fit.intervals(kind="profile", parameters="hours").loc["hours"]
    assert found["low"] == pytest.approx(low, abs=1e-4)
    high = brentq(below, best[1], 200) if below(200.0) < 0 else np.inf
    assert found["high"] == pytest.approx(high, rel=1e-4)
    ratio = fit.test("hours", "likelihood_ratio").statistic
    assert ratio == pytest.approx(2 * (chi2.ppf(0.95, 1) / 2 - below(0.0)), abs=1e-6)


def test_the_bias_of_the_maximum_is_gone() -> None:
    """Exact: E of the estimate over all tables of 2 × 6 rows, by their probabilities, each checked to be the fit's."""
    x, truth, n = np.repeat([0.0, 1.0], 6), np.array([0.3, 0.8]), 6
    chance = [binom.pmf(np.arange(7), n, expit(eta)) for eta in (truth[0], truth.sum())]
    odds = np.log((np.arange(7) + 0.5) / (n + 0.5 - np.arange(7)))
    expected = chance[1] @ odds - chance[0] @ odds
    assert abs(expected - truth[1]) < 0.05
    for a, b in ((2, 5), (0, 6), (3, 3)):
        y = np.concatenate([np.arange(6) < a, np.arange(6) < b]).astype(float)
        fit = th.fit("y ~ x", {"y": y, "x": x}, "bernoulli", prior=th.priors.Jeffreys())
        assert fit.estimates["x"] == pytest.approx(odds[b] - odds[a], abs=1e-7)


def test_it_is_saved_printed_and_counted(tmp_path) -> None:
    fit = th.fit("b ~ x + g", DATA, "bernoulli", prior=th.priors.Jeffreys())
    assert fit.effective_parameters == 3
    assert "Jeffreys on 3" in str(fit.summary())
    fit.save(tmp_path / "firth.fit")
    again = th.load(tmp_path / "firth.fit")
    assert np.array_equal(again.estimates, fit.estimates)
    assert np.allclose(again.standard_errors(), fit.standard_errors(), rtol=1e-12)
    assert isinstance(again.objective.priors[0].prior, th.priors.Jeffreys)


def test_what_has_no_such_information_is_refused_by_name() -> None:
    firth = th.priors.Jeffreys()
    with pytest.raises(BadArgument, match=r"Jeffreys\(\) is of a regression with one parameter"):
        th.fit("x ~ g", DATA, "normal", prior=firth)
    with pytest.raises(BadArgument, match="Jeffreys"):
        th.fit("b ~ x", DATA, "bernoulli", prior=firth, robust="density_power:0.3")
    with pytest.raises(BadArgument, match="constant"):
        _ = th.fit("b ~ x", DATA, "bernoulli", prior=firth).evidence


def test_candidates_are_chosen_by_rows_held_out_and_batches_are_refused() -> None:
    fit = th.fit("b ~ x + g", DATA, "bernoulli")
    choice = fit.choose_prior([None, th.priors.Jeffreys(), th.priors.Normal(1.0)], folds=3)
    assert list(choice.table.index) == ["none", "Jeffreys()", "Normal(1)"]
    assert np.isnan(choice.table["evidence"]).iloc[1] if "evidence" in choice.table else True
    with pytest.raises(BadArgument, match="leave the solver out"):
        th.fit("b ~ x", DATA, "bernoulli", prior=th.priors.Jeffreys(), solver=th.Stochastic(steps=5))
