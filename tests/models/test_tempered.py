"""The temperature of a classifier: a maximum likelihood fit of one parameter, with a certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_digits, load_iris

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, NoMaximum


class Said(torch.nn.Module):
    """Logits that the rows bring with them."""

    def forward(self, x):
        return x


def said(k: int) -> th.models.Conditional:
    return th.models.Conditional(th.families.Categorical(k), Said())


def rows(n=2000, k=4, temperature=2.0, seed=0):
    """Logits, and categories drawn from them at a temperature."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, k))
    p = np.exp(logits / temperature)
    y = (p.cumsum(1) / p.sum(1, keepdims=True) < rng.random((n, 1))).sum(1)
    return {"x": logits, "y": y}


def by_scipy(data):
    """The maximum over log T of Σ log softmax(η/T)_y, by Brent's method."""

    def loss(log_t):
        eta = data["x"] * np.exp(-log_t)
        return -(eta[np.arange(len(eta)), data["y"]] - np.logaddexp.reduce(eta, 1)).sum()

    found = minimize_scalar(loss, bracket=(-0.5, 0.5), tol=1e-12)
    h = 1e-4
    curvature = (loss(found.x + h) - 2 * loss(found.x) + loss(found.x - h)) / h**2
    return np.exp(found.x), -found.fun, np.exp(found.x) / np.sqrt(curvature)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_maximum_and_its_standard_error_are_those_of_scipy(temperature):
    """Brent's method, and the delta method on its numerical curvature."""
    data = rows(temperature=temperature)
    value, log_likelihood, error = by_scipy(data)
    fit = th.fit(th.models.Tempered(said(4)), data)
    assert fit.certificate.status == "certified maximum"
    assert fit.certificate.concave
    assert fit.estimates["temperature"] == pytest.approx(value, rel=1e-6)
    assert fit.log_likelihood == pytest.approx(log_likelihood, abs=1e-8)
    assert fit.standard_errors()["temperature"] == pytest.approx(error, rel=1e-4)
    wald, profile = (fit.intervals(0.95, kind).loc["temperature"] for kind in ("wald", "profile"))
    np.testing.assert_allclose(wald, value * np.exp(np.array([-1.96, 1.96]) * error / value), rtol=1e-3)
    np.testing.assert_allclose(profile, wald, rtol=0.01)


def test_two_categories_are_a_bernoulli_and_log_odds_are_logits():
    """K logits, K − 1 log-odds against the first, and the log-odds of a success: one temperature."""
    data = rows(k=2, temperature=3.0)
    odds = data["x"][:, 1] - data["x"][:, 0]
    found = [
        th.fit(th.models.Tempered(said(2)), data),
        th.fit(th.models.Tempered(said(2)), {"x": odds[:, None], "y": data["y"]}),
        th.fit(
            th.models.Tempered(th.models.Conditional(th.families.Bernoulli(), Said())),
            {"x": odds, "y": data["y"].astype(float)},
        ),
    ]
    for fit in found:
        assert fit.estimates["temperature"] == pytest.approx(by_scipy(data)[0], rel=1e-6)


def test_the_order_of_the_categories_and_the_classifier_stay_as_they_are():
    network = torch.nn.Linear(4, 3)
    with torch.no_grad():  # setosa has short petals, virginica long ones
        network.weight.copy_(
            torch.tensor([[0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
        )
        network.bias.copy_(torch.tensor([2.5, 0.0, -4.9]))
    model = th.models.Conditional(th.families.Categorical(3), network)
    before = [p.clone() for p in network.parameters()]
    X, y = load_iris(return_X_y=True)
    fit = th.fit(th.models.Tempered(model), {"x": X.astype(np.float32), "y": y})
    assert all(
        torch.equal(a, b) and b.requires_grad for a, b in zip(before, network.parameters(), strict=True)
    )
    assert len(fit.theta) == 1
    batch = Batch({"x": torch.from_numpy(X.astype(np.float32))})
    assert torch.equal(fit.model.probabilities(batch).argmax(1), model.probabilities(batch).argmax(1))
    probabilities = fit.predict({"x": X.astype(np.float32)}, "probabilities").to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1.0)


def test_it_mends_a_network_that_is_too_sure():
    """Digits, a network that has learnt 200 rows by heart: half of the others decide T > 1, the other half
    gain by it."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    parts = [{"x": X[a:b], "y": y[a:b]} for a, b in ((0, 200), (200, 1000), (1000, None))]
    solver = th.Stochastic(steps=200, batch_size=64, learning_rate=0.03, held_out=None)
    classifier = th.fit(
        th.models.Conditional(th.families.Categorical(10), th.networks.mlp(64, 64, 10)),
        parts[0],
        solver=solver,
    )
    fit = th.fit(th.models.Tempered(classifier.model), parts[1])
    assert fit.certificate.ok
    assert fit.estimates["temperature"] > 1
    assert fit.score(parts[2]).mean > classifier.score(parts[2]).mean
    assert fit.score(parts[2]).measure == "mass"


def test_rows_that_are_all_classified_rightly_have_no_temperature():
    """T → 0: refused by proof, whatever the solver thought."""
    logits = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(NoMaximum, match="right in every one"):
        th.fit(th.models.Tempered(said(3)), {"x": logits, "y": logits.argmax(1)})
    fit = th.fit(th.models.Tempered(said(3)), {"x": logits, "y": logits.argmax(1)}, on_failure="return")
    assert fit.certificate.directions == ({"temperature": -1.0},)
    assert np.isfinite(fit.log_likelihood)


def test_logits_that_tell_less_than_nothing_have_no_temperature():
    """T → ∞: the categories that were said to be least probable happened."""
    logits = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(NoMaximum, match="point away from the truth"):
        th.fit(th.models.Tempered(said(3)), {"x": logits, "y": logits.argmin(1)})


def test_one_wrong_row_is_enough_for_a_maximum():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    y = logits.argmax(1)
    y[0] = logits[0].argmin()
    fit = th.fit(th.models.Tempered(said(3)), {"x": logits, "y": y})
    assert fit.certificate.status == "certified maximum"
    assert fit.estimates["temperature"] == pytest.approx(by_scipy({"x": logits, "y": y})[0], rel=1e-6)


def test_rows_that_count_nothing_say_nothing():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    y = logits.argmax(1)
    y[0] = logits[0].argmin()
    count = np.ones(50)
    count[0] = 0
    with pytest.raises(NoMaximum, match="right in every one"):
        th.fit(th.models.Tempered(said(3)), {"x": logits, "y": y, "w": count}, weights="w")


def test_logits_that_are_all_equal_are_a_flat_direction():
    with pytest.raises(th.errors.FlatDirection):
        th.fit(th.models.Tempered(said(3)), {"x": np.ones((20, 3)), "y": np.arange(20) % 3})


def test_a_formula_is_tempered_on_another_table():
    """Logistic regression at its own maximum, on its own rows, has T = 1: the score equation Σ η (y − p) =
    0."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    frame = {"x": x, "y": (rng.random(300) < 1 / (1 + np.exp(-1.5 * x))).astype(float)}
    logistic = th.fit("y ~ x", frame, family="bernoulli")
    own = th.fit(th.models.Tempered(logistic.model), frame)
    assert own.estimates["temperature"] == pytest.approx(1.0, abs=1e-7)
    other = th.fit(th.models.Tempered(logistic.model), {name: v[:100] for name, v in frame.items()})
    assert other.certificate.ok


@pytest.mark.parametrize(
    "model",
    [
        lambda: th.models.Conditional(th.families.Poisson(), Said()),
        lambda: th.models.Conditional(th.families.Bernoulli(link="probit"), Said()),
        lambda: th.models.Mixture("normal", 2),
        lambda: torch.nn.Linear(2, 2),
    ],
)
def test_a_model_without_logits_is_refused(model):
    with pytest.raises(BadArgument, match="divides logits"):
        th.models.Tempered(model())


def test_a_saved_temperature_comes_back(tmp_path):
    data = rows(200)
    fit = th.fit(th.models.Tempered(said(4)), data)
    again = th.load(fit.save(tmp_path / "t.thetahat"), model=th.models.Tempered(said(4)))
    assert again.estimates["temperature"] == fit.estimates["temperature"]
    assert "temperature" in str(fit.summary())
