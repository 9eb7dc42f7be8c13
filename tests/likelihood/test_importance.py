"""Importance weights: a fit to rows of one population is, weighted, the fit to another; errors are the
sandwich's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, BadWeights
from thetahat.likelihood.weights import Importance


def moved(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """y = x² + noise at x ~ N(0, 1), and the ratio of N(1, ½²) to it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return {"x": x, "y": x**2 + 0.3 * rng.normal(size=n), "w": 2 * np.exp(x**2 / 2 - 2 * (x - 1) ** 2)}


def test_a_wrong_line_goes_to_the_optimum_of_the_new_population():
    """The line nearest to x² where x ~ N(m, s²) is s² − m² + 2m·x, with residual variance 2s⁴ + 0.09: at m
    = 1, s = ½ weighted, and at m = 0, s = 1 without weights, each within four sandwich errors; neither is
    near the other's."""
    data = moved(20_000)
    truth = {True: (-0.75, 2.0, math.sqrt(0.125 + 0.09)), False: (1.0, 0.0, math.sqrt(2.09))}
    for weighted, optimum in truth.items():
        fit = th.fit("y ~ x", data, weights=Importance("w") if weighted else None)
        apart = (fit.estimates.to_numpy() - optimum) / fit.standard_errors("sandwich").to_numpy()
        assert np.abs(apart).max() < 4
        other = (fit.estimates.to_numpy() - truth[not weighted]) / fit.standard_errors("sandwich").to_numpy()
        assert np.abs(other).min() > 10


def test_weighted_least_squares_by_hand():
    """β = (XᵀWX)⁻¹XᵀWy and the sandwich of White with w², to rounding."""
    data = moved(60)
    fit = th.fit("y ~ x", data, weights=Importance("w"))
    X, w = np.stack([np.ones(60), data["x"]], 1), data["w"]
    beta = np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (w * data["y"]))
    np.testing.assert_allclose(fit.estimates.to_numpy()[:2], beta, rtol=1e-8)
    r = data["y"] - X @ beta
    bread = np.linalg.inv(X.T @ (w[:, None] * X))
    by_hand = bread @ (X.T @ ((w * r)[:, None] ** 2 * X)) @ bread
    np.testing.assert_allclose(fit.covariance("sandwich").to_numpy()[:2, :2], by_hand, rtol=1e-6)


def test_the_scale_of_the_weights_changes_nothing():
    """θ̂ and its sandwich errors are those of c·w for every c."""
    data = moved(80)
    once = th.fit("y ~ x", data, weights=Importance("w"))
    again = th.fit("y ~ x", data | {"w": 7 * data["w"]}, weights=Importance("w"))
    np.testing.assert_allclose(once.estimates, again.estimates, rtol=1e-8)
    np.testing.assert_allclose(once.standard_errors("sandwich"), again.standard_errors("sandwich"), rtol=1e-6)


def test_the_power_leads_from_no_weights_to_all_of_them():
    """λ = 0 is the unweighted fit."""
    data = moved(80)
    none, plain = th.fit("y ~ x", data, weights=Importance("w", power=0.0)), th.fit("y ~ x", data)
    np.testing.assert_allclose(none.estimates, plain.estimates, rtol=1e-7)
    half = Importance("w", power=0.5)(Batch({"w": torch.tensor([4.0])}), torch.zeros(1))
    assert float(half) == 2.0


def test_a_model_of_ones_own_is_weighted_by_a_column():
    """A th.model that is the same line has the formula's weighted estimates."""

    @th.model(a=0.0, b=0.0, s=th.positive(1.0))
    def line(batch, a, b, s):
        return th.families.Normal().log_prob(batch["y"], a + b * batch["x"], s)

    data = moved(80)
    own, formula = th.fit(line, data, weights=Importance("w")), th.fit("y ~ x", data, weights=Importance("w"))
    np.testing.assert_allclose(own.estimates, formula.estimates, rtol=1e-5)
    np.testing.assert_allclose(
        own.standard_errors("sandwich"), formula.standard_errors("sandwich"), rtol=1e-4
    )


def test_the_sandwich_covers_where_the_information_would_not():
    """Of 60 samples of 400 the 95 % interval of the slope holds the truth 54 to 60 times."""
    inside = []
    for seed in range(60):
        fit = th.fit("y ~ x", moved(400, seed + 1), weights=Importance("w"))
        inside.append(abs(fit.estimates["x"] - 2.0) < 1.96 * fit.standard_errors("sandwich")["x"])
    assert 54 <= sum(inside) <= 60


def test_the_information_is_refused_as_an_error():
    """J⁻¹ takes a weight for a count. The default is the sandwich, and of the criteria only Takeuchi's is
    shown, which is Shimodaira's here."""
    data = moved(80)
    fit = th.fit("y ~ x", data, weights=Importance("w"))
    for call in (fit.standard_errors, fit.covariance):
        with pytest.raises(BadArgument, match="not counts"):
            call("observed")
    for call in (fit.intervals, fit.predict):
        with pytest.raises(BadArgument, match="not counts"):
            call(level=0.95, covariance="observed")
    assert fit.standard_errors().equals(fit.standard_errors("sandwich"))
    summary = fit.summary()
    assert "sandwich (robust)" in str(summary)
    assert "importance: column w" in str(summary)
    assert list(summary.to_dict()["criteria"]) == ["TIC"]
    assert len(fit.intervals(covariance="sandwich")) == 3


def test_a_score_is_of_rows_as_they_are():
    """New rows need no weights, and the rows that were fitted are scored without theirs."""
    data = moved(80)
    fit = th.fit("y ~ x", data, weights=Importance("w"))
    bare = {"x": data["x"], "y": data["y"]}
    assert fit.score(bare).total == pytest.approx(fit.score().total)
    assert fit.predict({"x": [0.0]})[0] == pytest.approx(fit.estimates["Intercept"])


def test_a_saved_fit_remembers_that_its_weights_are_no_counts(tmp_path):
    fit = th.fit("y ~ x", moved(80), weights=Importance("w"))
    again = th.load(fit.save(tmp_path / "a.thetahat"))
    assert again.estimates.equals(fit.estimates)
    assert again.standard_errors().equals(fit.standard_errors())
    with pytest.raises(BadArgument, match="not counts"):
        again.standard_errors("observed")


@pytest.mark.parametrize(
    ("weights", "data", "error", "message"),
    [
        (lambda: Importance(3.0), {}, BadArgument, "received float"),
        (lambda: Importance("w", power=2.0), {}, BadArgument, "power=2.0"),
        (lambda: Importance("w"), {"w": [1.0, -1.0, 1.0]}, BadWeights, "-1 in row 1"),
        (lambda: Importance("w"), {"w": [1.0, None, 1.0]}, BadWeights, "weight of row 1 is missing"),
        (lambda: Importance("x0"), {"x0": [1.0, 1.0, 1.0]}, BadArgument, "cannot be called 'x0'"),
        (lambda: Importance("v"), {}, th.errors.UnknownColumn, "'v'"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, data, error, message):
    with pytest.raises(error, match=message):
        th.fit("y ~ x", {"x": [0.0, 1.0, 2.0], "y": [0.0, 1.5, 1.0]} | data, weights=weights())


def test_weights_that_leave_the_fit_to_a_few_rows_are_refused():
    """(Σ w)² / Σ w² of three heavy rows among sixty, by hand; as many even rows are no fewer than they
    are."""
    data = moved(60)
    w = np.where(np.arange(60) < 3, [50.0, 40.0, 30.0] * 20, 1e-3)
    with pytest.raises(
        BadWeights,
        match=rf"weigh like {w.sum() ** 2 / (w**2).sum():.1f} of them, and 10 are wanted for 3 parameters",
    ):
        th.fit("y ~ x", data | {"w": w}, weights=Importance("w"))
    few = {name: column[:6] for name, column in data.items()} | {"w": np.ones(6)}
    summary = str(th.fit("y ~ x", few, weights=Importance("w")).summary())
    assert "6 rows weigh like 6.000" in summary
