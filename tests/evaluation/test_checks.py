"""Tests of residuals: their size where the model is true, their power where it is not, their statistics against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest, poisson

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.evaluation.checks import hosmer_lemeshow, uniformity

rng = np.random.default_rng(8)
N = 300
X = rng.normal(size=N)
MU = np.exp(0.5 + 0.5 * X)
DATA = {
    "x": X,
    "poisson": rng.poisson(MU).astype(float),
    "over": rng.poisson(MU * rng.gamma(2.0, 0.5, N)).astype(float),
    "zeros": np.where(rng.uniform(size=N) < 0.25, 0.0, rng.poisson(MU * 1.3)),
    "bent": 1 + X + 0.7 * X**2 + 0.5 * rng.normal(size=N),
    "line": 1 + X + rng.normal(size=N),
    "b": (rng.uniform(size=N) < 1 / (1 + np.exp(-X))).astype(float),
    "hill": (rng.uniform(size=N) < 1 / (1 + np.exp(-2 + 2 * X**2))).astype(float),
}


def p_of(formula: str, family: str) -> dict[str, float]:
    found = th.fit(formula, DATA, family).check(draws=99).table["p_value"]
    return {str(k): float(v) for k, v in found.items()}


def test_the_statistics_are_those_of_the_books() -> None:
    u = rng.uniform(size=57)
    assert uniformity(u, np.zeros(57)) == pytest.approx(kstest(u, "uniform").statistic, abs=1e-14)
    # counts: the mean of many randomised distribution functions, at a fine grid
    y, t = rng.poisson(2.0, 40), np.linspace(0, 1, 2001)
    below, mass = poisson.cdf(y - 1, 2.0), poisson.pmf(y, 2.0)
    G = np.clip((t[:, None] - below) / mass, 0, 1).mean(1)
    assert uniformity(below, mass) == pytest.approx(np.abs(G - t).max(), abs=1e-3)
    # ten groups of five: Σ (O − E)²/(E(1 − E/m)), written out
    p = np.sort(rng.uniform(0.1, 0.9, 50))
    y = (rng.uniform(size=50) < p).astype(float)
    observed, expected = y.reshape(10, 5).sum(1), p.reshape(10, 5).sum(1)
    byhand = ((observed - expected) ** 2 / (expected * (1 - expected / 5))).sum()
    assert hosmer_lemeshow(y, p) == pytest.approx(byhand)


def test_what_is_wrong_is_found_and_by_its_name() -> None:
    true = p_of("poisson ~ x", "poisson")
    assert list(true) == ["uniformity", "dispersion", "excess_zeros", "outliers"]
    assert min(true.values()) > 0.05
    over = p_of("over ~ x", "poisson")
    assert over["dispersion"] == 0.02
    assert over["outliers"] <= 0.02
    zeros = p_of("zeros ~ x", "poisson")
    assert zeros["excess_zeros"] == 0.02
    assert p_of("zeros ~ x", "zero_inflated(poisson)")["excess_zeros"] > 0.05
    assert p_of("bent ~ x", "normal")["uniformity"] == 0.01
    assert p_of("line ~ x", "normal")["uniformity"] > 0.05
    assert list(p_of("b ~ x", "bernoulli")) == ["uniformity", "outliers", "hosmer_lemeshow"]
    assert p_of("b ~ x", "bernoulli")["hosmer_lemeshow"] > 0.05
    assert p_of("hill ~ x", "bernoulli")["hosmer_lemeshow"] == 0.01


def test_p_values_are_uniform_where_the_model_is_true() -> None:
    """Of 60 normal samples of 20 rows, whose distance from the fitted normal is far smaller than with θ known: Lilliefors. The
    share below ½ is binomial(60, ½): within 4 standard errors; with Kolmogorov's own distribution none would be."""
    own, known = [], []
    for seed in range(60):
        y = np.random.default_rng([seed, 4]).normal(size=20)
        fit = th.fit("y ~ 1", {"y": y})
        own.append(fit.check(draws=19).table.loc["uniformity", "p_value"])
        known.append(kstest((y - y.mean()) / y.std(), "norm").pvalue)
    assert abs(np.mean(np.array(own) <= 0.5) - 0.5) < 4 * 0.5 / np.sqrt(60)
    assert np.mean(np.array(known) <= 0.5) < 0.25


def test_counted_rows_are_drawn_apart() -> None:
    y, n = np.arange(6.0), np.array([30.0, 50, 40, 20, 8, 2])
    table = th.fit("y ~ 1", {"y": np.repeat(y, n.astype(int))}, "poisson").check(draws=49)
    counted = th.fit("y ~ 1", {"y": y, "n": n}, "poisson", weights="n").check(draws=49)
    assert counted.rows == table.rows == 150
    for name in ("dispersion", "excess_zeros"):
        assert counted.table.loc[name, "observed"] == pytest.approx(
            table.table.loc[name, "observed"], abs=1e-8
        )


def test_it_prints_and_is_the_same_for_a_seed() -> None:
    fit = th.fit("poisson ~ x", DATA, "poisson")
    first = fit.check(draws=19, seed=3)
    assert first.table.equals(fit.check(draws=19, seed=3).table)
    text = str(first)
    assert "300 rows against 19 data sets drawn from the fit" in text
    assert "uniformity" in text
    assert first.to_dict()["draws"] == 19


def test_what_cannot_be_drawn_is_refused_by_name() -> None:
    fit = th.fit("poisson ~ x", DATA, "poisson")
    with pytest.raises(BadArgument, match="draws=5"):
        fit.check(draws=5)
    times = {"t": DATA["poisson"] + 1, "e": DATA["b"], "x": X}
    with pytest.raises(BadArgument, match="censored"):
        th.fit("Surv(t, e) ~ x", times, "weibull").check()
    with pytest.raises(BadArgument, match="Cox"):
        th.fit("Surv(t, e) ~ x", times, "cox").check()
    with pytest.raises(BadArgument, match="robust"):
        th.fit("line ~ x", DATA, robust="density_power:0.3").check()


def test_a_mixed_model_is_checked_given_its_random_effects() -> None:
    """Poisson counts of groups: fine where the model is true, found where each row has noise of its own."""
    own = np.random.default_rng(3)
    g = np.repeat(np.arange(30), 5)
    x, b = own.normal(size=150), 0.7 * own.normal(size=30)
    mu = np.exp(0.5 + 0.4 * x + b[g])
    data = {"x": x, "g": [f"g{i}" for i in g], "y": own.poisson(mu).astype(float),
            "over": own.poisson(mu * own.gamma(1.0, 1.0, 150)).astype(float)}  # fmt: skip
    true = th.fit("y ~ x + (1 | g)", data, "poisson").check(draws=39).table["p_value"]
    assert list(true.index) == ["uniformity", "dispersion", "excess_zeros", "outliers"]
    assert true.min() > 0.05
    over = th.fit("over ~ x + (1 | g)", data, "poisson").check(draws=39).table["p_value"]
    assert over["dispersion"] == 0.05  # the least that 39 draws can say, of two sides
    assert over["uniformity"] == 0.025
