"""The calibration error: without bias, and with an interval that has perfect calibration in it when it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument
from thetahat.evaluation.calibration_error import calibration_error
from thetahat.models import Conditional

from .models import people


class Said(torch.nn.Module):
    """Logits that the rows bring with them."""

    def forward(self, x):
        return x


def forecasts(p, y, count=None):
    """Probabilities of 1 that were said, and what happened."""
    p, y = np.asarray(p, dtype=float), np.asarray(y, dtype=float)
    tensors = {"x": torch.tensor(np.log(p / (1 - p))), "y": torch.tensor(y)}
    source = Tensors(tensors, count=None if count is None else torch.tensor(count))
    return Conditional(th.families.Bernoulli(), Said()), source


def classes(n=1000, k=4, temperature=1.0, seed=0):
    """Logits as said, categories drawn from them at a temperature."""
    rng = np.random.default_rng(seed)
    eta = 2 * rng.normal(size=(n, k))
    p = np.exp(eta / temperature)
    y = (p.cumsum(1) / p.sum(1, keepdims=True) < rng.random((n, 1))).sum(1)
    return Conditional(th.families.Categorical(k), Said()), Tensors(
        {"x": torch.tensor(eta), "y": torch.tensor(y)}
    )


def truth(of, k=4, temperature=1.0, bins=10, n=200_000):
    """√ mean_b (said − true)² within bins of a sample so large that bins are quantiles, true probabilities in
    place of what happened."""
    eta = 2 * np.random.default_rng(99).normal(size=(n, k))
    said, true = (np.exp(eta / t) / np.exp(eta / t).sum(1, keepdims=True) for t in (1.0, temperature))
    top = said.argmax(1)
    pairs = (
        [(said[:, j], true[:, j]) for j in range(k)]
        if of == "classes"
        else [(said[range(n), top], true[range(n), top])]
    )
    parts = [((q - p)[rows].mean()) ** 2 for p, q in pairs for rows in np.array_split(np.argsort(p), bins)]
    return np.sqrt(np.mean(parts))


def test_the_error_is_the_formula():
    """Two bins of four rows by hand: d̄ = −0.3 and 0.15, s² of hit − p = 1/3 and 1/4, v = s²/4."""
    p = [0.8] * 4 + [0.1] * 4
    found = calibration_error(*forecasts(p, [1, 0, 1, 0, 0, 0, 0, 1]), bins=2)
    assert found.squared == pytest.approx((0.3**2 - 1 / 12 + 0.15**2 - 1 / 16) / 2)
    assert found.expected == pytest.approx((0.3 + 0.15) / 2)
    assert found.value == 0.0
    assert found.bins == 2
    assert "of P(second category), 2 bins" in str(found)


def test_what_chance_adds_is_taken_off():
    """The mean of D over 200 samples of perfect calibration is 0 within 4 standard errors; Σ w |d̄| is far
    above."""
    found = [calibration_error(*classes(400, seed=s), bins=20, draws=1) for s in range(200)]
    D = np.array([each.squared for each in found])
    assert abs(D.mean()) < 4 * D.std(ddof=1) / np.sqrt(200)
    assert np.mean([each.expected for each in found]) > 0.05


@pytest.mark.parametrize("of", ["top", "classes"])
def test_perfect_calibration_is_in_the_interval_as_often_as_it_says(of):
    """Of 100 samples 0 is in (1 + level)/2 of them: for level 0.9, 95; fewer than 88 have probability
    0.001."""
    low = [
        calibration_error(*classes(300, seed=s), of=of, bins=8, level=0.9, draws=200).low for s in range(100)
    ]
    assert 88 <= sum(each == 0 for each in low) < 100


@pytest.mark.parametrize("of", ["top", "classes"])
def test_a_known_miscalibration_is_in_the_interval_as_often_as_it_says(of):
    """Logits twice too large: 0.9 of the intervals hold the truth, 40 samples; fewer than 30 have probability
    0.002."""
    true = truth(of, temperature=2.0)
    found = [
        calibration_error(*classes(600, temperature=2.0, seed=s), of=of, bins=10, level=0.9, draws=200)
        for s in range(40)
    ]
    assert sum(each.low <= true <= each.high for each in found) >= 30
    assert all(each.low > 0 for each in found)
    assert np.mean([each.value for each in found]) == pytest.approx(true, rel=0.05)


def test_of_many_categories_it_is_the_most_probable_or_each():
    """Confidence 0.6 and right 3 times of 4; by category 0.6, 0.3 and 0.1 said, 3/4, 0 and 1/4 happened."""
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]] * 4, dtype=torch.float64))
    model, source = (
        Conditional(th.families.Categorical(3), Said()),
        Tensors({"x": logits, "y": torch.tensor([0.0, 0.0, 2.0, 0.0])}),
    )
    top = calibration_error(model, source, draws=20)
    assert top.expected == pytest.approx(0.15)
    assert top.squared == pytest.approx(0.15**2 - 0.25 / 4)
    assert top.of == "the most probable category"
    each = calibration_error(model, source, of="classes", draws=20)
    assert each.expected == pytest.approx((0.15 + 0.3 + 0.15) / 3)
    assert each.squared == pytest.approx((0.15**2 - 1 / 16 + 0.3**2 + 0.15**2 - 1 / 16) / 3)
    assert (each.of, each.bins) == ("each category", 3)


def test_two_categories_are_a_bernoulli():
    p = np.random.default_rng(0).uniform(0.1, 0.9, 200)
    y = (np.random.default_rng(1).random(200) < p).astype(float)
    bernoulli = calibration_error(*forecasts(p, y), draws=50)
    odds = torch.tensor(np.log(p / (1 - p)))[:, None]
    two = Conditional(th.families.Categorical(2), Said())
    assert calibration_error(
        two, Tensors({"x": odds, "y": torch.tensor(y)}), draws=50
    ).squared == pytest.approx(bernoulli.squared)


def test_frequency_weights_are_rows_and_unobserved_rows_take_no_part():
    p, y, count = np.array([0.2, 0.7, 0.9, 0.5]), np.array([0.0, 1.0, 0.0, 1.0]), np.array([2, 3, 2, 0])
    counted = calibration_error(*forecasts(p, y, count.astype(float)), bins=3, draws=10)
    rows = calibration_error(*forecasts(np.repeat(p, count), np.repeat(y, count)), bins=3, draws=10)
    assert (counted.squared, counted.expected) == pytest.approx((rows.squared, rows.expected))


def test_it_is_the_same_again_with_the_same_seed():
    first, second, other = (calibration_error(*classes(200), draws=100, seed=s) for s in (0, 0, 1))
    assert first == second
    assert (first.value, first.low, first.high) != (other.value, other.low, other.high)
    assert first.value == other.value


def test_a_fit_tells_it_of_new_rows():
    data = people()
    fit = th.fit("choice ~ x + z", data, "categorical")
    own, half = (
        fit.calibration_error(draws=50),
        fit.calibration_error({k: v[:150] for k, v in data.items()}, draws=50),
    )
    assert own.low <= own.value <= own.high
    assert own != half
    assert 0 <= fit.calibration_error(of="classes", level=0.5, draws=50).value < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bins": 0}, "bins=0"), ({"level": 1.0}, r"level=1\.0"), ({"of": "all"}, "of='all'")],
)
def test_what_cannot_be_asked_is_refused(options, message):
    with pytest.raises(BadArgument, match=message):
        calibration_error(*forecasts([0.5, 0.6], [0, 1]), **options)


def test_a_count_has_no_category():
    with pytest.raises(BadArgument, match="does not describe a category"):
        th.fit("claims ~ x", people(), "poisson").calibration_error()


@pytest.mark.parametrize(("of", "n"), [("top", 6000), ("classes", 20000)])
def test_the_normal_limit_of_many_rows_gives_the_interval_of_resampled_rows(of, n, monkeypatch):
    """Rows resampled, and from the limit: both intervals are Monte Carlo estimates of the same ends, whose spread over
    seeds is measured by the resampled ones."""
    import thetahat.evaluation.calibration_error as module

    def ends(many):
        monkeypatch.setattr(module, "MANY", many)
        found = [
            calibration_error(*classes(n, temperature=1.5), of=of, bins=3, seed=s, draws=200)
            for s in range(8)
        ]
        return np.array([[each.low, each.high] for each in found])

    resampled, limit = ends(10**9), ends(0)
    error = np.sqrt((resampled.var(0, ddof=1) + limit.var(0, ddof=1)) / 8)
    assert (np.abs(resampled.mean(0) - limit.mean(0)) < np.maximum(4 * error, 1e-3)).all()
    assert not (resampled == limit).all()
    assert resampled.min() > 0.02


def test_a_bin_of_a_few_events_is_resampled_row_by_row(monkeypatch):
    """Five events among 2,000 rows: Σ d² is of five rows, whose resampled sums are not normal. The answer is that of any
    number of rows."""
    import thetahat.evaluation.calibration_error as module

    y = np.zeros(2000)
    y[:5] = 1
    data = forecasts(np.full(2000, 0.0025), y)
    few = calibration_error(*data, bins=1, draws=50)
    monkeypatch.setattr(module, "MANY", 0)
    assert calibration_error(*data, bins=1, draws=50) == few
