"""Latent series along a column: against Kalman's filter, dense normal densities, a dense Laplace approximation written here,
the formula's ar1(), and R."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal, poisson

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective

NILE = [
    *(
        1120,
        1160,
        963,
        1210,
        1160,
        1160,
        813,
        1230,
        1370,
        1140,
        995,
        935,
        1110,
        994,
        1020,
        960,
        1180,
        799,
        958,
        1140,
    ),
    *(
        1100,
        1210,
        1150,
        1250,
        1260,
        1220,
        1030,
        1100,
        774,
        840,
        874,
        694,
        940,
        833,
        701,
        916,
        692,
        1020,
        1050,
        969,
    ),
    *(831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821, 768, 845, 864, 862, 698, 845, 744, 796, 1040, 759),
    *(781, 865, 845, 944, 984, 897, 822, 1010, 771, 676, 649, 846, 812, 742, 801, 1040, 860, 874, 848, 890),
    *(744, 749, 838, 1050, 918, 986, 797, 923, 975, 815, 1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740),
]  # annual flow at Aswan, 10^8 m^3 (Cobb, 1978)
FLOW = pd.DataFrame({"y": np.array(NILE, float), "year": np.arange(1871, 1971)})


@th.model(level=1100.0, sigma=th.positive(120.0), b=th.latent(along="year", covariance="rw1", sd=40.0))
def local_level(batch, level, sigma, b):  # type: ignore[no-untyped-def]
    return th.families.Normal().at(level + b, sigma)


@th.model(level=900.0, sigma=th.positive(120.0), b=th.latent(along="year", covariance="ar1", sd=100.0))
def noisy_ar1(batch, level, sigma, b):  # type: ignore[no-untyped-def]
    return th.families.Normal().at(level + b, sigma)


def kalman(y: np.ndarray, t: np.ndarray, level: float, sigma: float, s: float) -> float:
    """Durbin and Koopman (2012), eq. 2.15: the state is known at the first step."""
    a, P, total = level, 0.0, 0.0
    for i, each in enumerate(y):
        P += s**2 * (t[i] - t[i - 1]) if i else 0.0
        F, v = P + sigma**2, each - a
        total -= 0.5 * (np.log(2 * np.pi * F) + v**2 / F)
        a, P = a + P * v / F, P * (1 - P / F)
    return total


def covariance(t: np.ndarray, kind: str, sd: float, rho: float = 0.0) -> np.ndarray:
    """Of the steps, by its definition and without a factor."""
    if kind == "rw1":
        return sd**2 * np.minimum.outer(t - t[0], t - t[0])
    return sd**2 * np.array([[rho ** int(abs(a - b)) for b in t] for a in t])


def at(fit: th.Fit, theta: np.ndarray) -> float:
    return fit.objective.value(torch.tensor(theta))


@pytest.mark.parametrize("years", [np.arange(100), np.sort(np.random.default_rng(2).choice(160, 100, False))])
def test_a_random_walk_is_kalmans_local_level(years: np.ndarray) -> None:
    """Missing steps included: the variance of a step of d is d s²."""
    table = FLOW.assign(year=1871 + years)
    fit = th.fit(local_level, table)
    y, t = table["y"].to_numpy(), years.astype(float)
    assert fit.certificate.ok
    assert fit.log_likelihood == pytest.approx(kalman(y, t, *fit.estimates.to_numpy()), abs=1e-8)
    for level, sigma, s in ((1000.0, 90.0, 70.0), (1200.0, 200.0, 3.0)):
        assert at(fit, np.array([level, np.log(sigma), s])) == pytest.approx(
            kalman(y, t, level, sigma, s), abs=1e-8
        )
    for j in range(3):
        step = np.zeros(3)
        step[j] = 1e-4 * fit.estimates.to_numpy()[j]
        ends = [kalman(y, t, *(fit.estimates.to_numpy() + k * step)) for k in (-1, 1)]
        assert abs(ends[1] - ends[0]) / 2e-4 < 1e-4
    assert list(fit.estimates.index) == ["level", "sigma", "sd(b step | along year)"]


def test_an_autoregression_with_noise_is_arimas() -> None:
    """R 4.2.2: f <- arima(Nile, order = c(1, 0, 1)): logLik -637.038789206; ar1 0.8610783, intercept 920.55673 (R stops short)."""
    fit = th.fit(noisy_ar1, FLOW)
    assert fit.log_likelihood == pytest.approx(-637.038789206, abs=2e-5)
    assert fit.log_likelihood >= -637.038789206
    assert fit.estimates["corr(b | along year)"] == pytest.approx(0.8610783, rel=1e-3)
    assert fit.estimates["level"] == pytest.approx(920.55673, rel=1e-3)


def panel(groups: int, steps: int, seed: int) -> pd.DataFrame:
    g = np.random.default_rng(seed)
    b = np.zeros((groups, steps))
    b[:, 0] = 0.6 * g.normal(size=groups)
    for k in range(1, steps):
        b[:, k] = 0.7 * b[:, k - 1] + 0.6 * np.sqrt(1 - 0.49) * g.normal(size=groups)
    who, t = np.repeat(np.arange(groups), steps), np.tile(np.arange(steps), groups)
    table = pd.DataFrame({"g": who, "t": t, "x": g.normal(size=groups * steps)})
    eta = 0.4 + 0.3 * table["x"] + b.reshape(-1)
    table["y"], table["k"] = eta + 0.5 * g.normal(size=len(table)), g.poisson(np.exp(eta))
    return table[g.random(len(table)) < 0.85].reset_index(drop=True)


@th.model(a=0.4, s=0.3, sigma=th.positive(0.5), b=th.latent(by="g", along="t", covariance="ar1", sd=0.6))
def lines(batch, a, s, sigma, b):  # type: ignore[no-untyped-def]
    return th.families.Normal().at(a + s * batch["x"] + b, sigma)


@pytest.mark.parametrize(("groups", "steps"), [(20, 6), (3, 40)], ids=["eliminated", "dense"])
def test_series_of_groups_are_the_normal_density(groups: int, steps: int) -> None:
    """Each group by itself; ρ of either sign, steps missing here and there."""
    table = panel(groups, steps, 3)
    fit = th.fit(lines, table)

    def dense(a: float, s: float, log_sigma: float, sd: float, z: float) -> float:
        total = 0.0
        for _, own in table.groupby("g"):
            V = covariance(own["t"].to_numpy(), "ar1", sd, np.sin(z)) + np.exp(2 * log_sigma) * np.eye(
                len(own)
            )
            total += multivariate_normal(a + s * own["x"].to_numpy(), V).logpdf(own["y"].to_numpy())
        return total

    assert fit.certificate.ok
    for theta in (
        fit.theta.numpy(),
        np.array([0.3, 0.2, -0.5, 0.8, -0.9]),
        np.array([0.5, 0.2, -0.9, -0.4, 1.4]),
    ):
        assert at(fit, theta) == pytest.approx(dense(*theta), abs=1e-9)


def test_a_series_of_groups_is_the_formulas_ar1() -> None:
    """The same steps as a factor: y ~ x + ar1(0 + t | g)."""
    table = panel(25, 5, 4)
    own = th.fit(lines, table)
    formula = th.fit("y ~ x + ar1(0 + f | g)", table.assign(f=[f"step {t}" for t in table["t"]]))
    assert own.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-8)
    assert own.estimates.to_numpy() == pytest.approx(formula.estimates.to_numpy(), rel=1e-5)


def laplace(y: np.ndarray, eta: np.ndarray, V: np.ndarray) -> float:
    """Of Poisson counts: the mode by Newton's method in b itself, V its covariance (regular)."""
    P, b = np.linalg.inv(V), np.zeros(len(y))
    for _ in range(100):
        mean = np.exp(eta + b)
        b = b + np.linalg.solve(np.diag(mean) + P, y - mean - P @ b)
    mean = np.exp(eta + b)
    inner = poisson(mean).logpmf(y).sum() - 0.5 * b @ P @ b - 0.5 * np.linalg.slogdet(V)[1]
    return float(inner - 0.5 * np.linalg.slogdet(np.diag(mean) + P)[1])


@th.model(a=0.4, s=0.3, b=th.latent(along="t", covariance="rw1", sd=0.3), target="k")
def counts(batch, a, s, b):  # type: ignore[no-untyped-def]
    return th.families.Poisson().at(torch.exp(a + s * batch["x"] + b))


@th.model(
    a=0.4,
    s=0.3,
    b=th.latent(by="g", along="t", covariance="ar1", sd=0.6),
    c=th.latent(by="t", sd=0.4),
    target="k",
)
def crossed(batch, a, s, b, c):  # type: ignore[no-untyped-def]
    return th.families.Poisson().at(torch.exp(a + s * batch["x"] + b + c))


def test_a_poisson_walk_is_the_dense_laplace_approximation() -> None:
    table = panel(1, 60, 5)
    fit = th.fit(counts, table)
    y, x, t = (table[n].to_numpy(float) for n in ("k", "x", "t"))

    def dense(a: float, s: float, sd: float) -> float:
        """The first step's b is 0: it is left out of V, and its row has no latent variable."""
        V = covariance(t, "rw1", sd)[1:, 1:]
        return laplace(y[1:], (a + s * x)[1:], V) + float(poisson(np.exp(a + s * x[0])).logpmf(y[0]))

    for theta in (fit.theta.numpy(), np.array([0.1, 0.5, 0.5])):
        assert at(fit, theta) == pytest.approx(dense(*theta), abs=1e-9)


def test_a_series_beside_another_factor_is_the_dense_laplace_approximation() -> None:
    """The series is a dense block beside the steps that are eliminated, and both are grouped."""
    table = panel(3, 35, 6)
    fit = th.fit(crossed, table)
    y, x, t, g = (table[n].to_numpy(float) for n in ("k", "x", "t", "g"))

    def dense(a: float, s: float, sd: float, z: float, c: float) -> float:
        V = covariance(t, "ar1", sd, np.sin(z)) * (g[:, None] == g) + c**2 * (t[:, None] == t)
        return laplace(y, a + s * x, V)

    assert fit.model.order.first == [1]
    for theta in (fit.theta.numpy(), np.array([0.1, 0.5, 0.5, -0.4, 0.3])):
        assert at(fit, theta) == pytest.approx(dense(*theta), abs=1e-9)


@pytest.mark.parametrize(("own", "steps"), [(counts, 50), (crossed, 35), (crossed, 6)])
def test_the_gradient_is_that_of_the_value(own, steps: int) -> None:  # type: ignore[no-untyped-def]
    bound, source = own.bound(panel(1 if own is counts else 3, steps, 7))
    objective = Objective([LogLikelihood(bound, source)])
    theta = torch.tensor([0.2, 0.1, 0.5, 0.3, 0.2], dtype=torch.float64)[: objective.size]
    for j, slope in enumerate(objective.taylor(theta, order=1).gradient.tolist()):
        e = torch.zeros_like(theta)
        e[j] = 1e-3
        near = [objective.value(theta + k * e) for k in (-2, -1, 1, 2)]
        found = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / 12e-3
        assert slope == pytest.approx(found, abs=1e-7 * max(1, abs(found)))


def test_modes_and_forecasts_are_the_conditional_normal() -> None:
    """b of every step given y, at θ̂; three steps to come have rows of weight 0."""
    whole = pd.concat([FLOW, pd.DataFrame({"y": 0.0, "year": [1971, 1972, 1975]})], ignore_index=True)
    whole["w"] = (whole["y"] > 0) * 1.0
    fit = th.fit(noisy_ar1, whole, weights="w")
    assert fit.log_likelihood == pytest.approx(th.fit(noisy_ar1, FLOW).log_likelihood, abs=1e-8)
    level, sigma, sd, rho = fit.estimates.to_numpy()
    V = covariance(whole["year"].to_numpy(), "ar1", sd, rho)
    gain = V[:, :100] @ np.linalg.inv(V[:100, :100] + sigma**2 * np.eye(100))
    known = V - gain @ V[:100]
    found = fit.random_effects()
    assert found["mode"].to_numpy() == pytest.approx(gain @ (np.array(NILE) - level), abs=1e-7)
    assert found["standard_error"].to_numpy() == pytest.approx(np.sqrt(np.diag(known)), rel=1e-8)
    assert found["effect"].iloc[-1] == "year 1975"
    ahead = fit.predict(whole.tail(3), level=0.95)
    assert ahead["value"].to_numpy() == pytest.approx(
        (level + gain @ (np.array(NILE) - level))[-3:], rel=1e-9
    )
    assert bool(
        (ahead["high"] - ahead["low"] > 2 * 1.95996 * np.sqrt(np.diag(known))[-3:]).all()
    )  # θ̂ has an error too


def test_errors_of_predictions_hold_that_of_theta() -> None:
    """Kass and Steffey's: Var(b | y, θ̂) + D V Dᵀ, D by differences of the conditional mean."""
    fit = th.fit(local_level, FLOW)
    y, t, theta = np.array(NILE, float), FLOW["year"].to_numpy(), fit.estimates.to_numpy()

    def smoothed(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        V = covariance(t, "rw1", theta[2])
        gain = V @ np.linalg.inv(V + theta[1] ** 2 * np.eye(100))
        return theta[0] + gain @ (y - theta[0]), V - gain @ V

    D = np.stack(
        [
            (smoothed(theta + e)[0] - smoothed(theta - e)[0]) / (2 * e.max())
            for e in np.diag([1e-3, 1e-3, 1e-3])
        ],
        1,
    )
    wanted = np.diag(smoothed(theta)[1]) + np.einsum("ij,jk,ik->i", D, fit.covariance().to_numpy(), D)
    found = fit.predict(FLOW, level=0.95)
    assert found["value"].to_numpy() == pytest.approx(smoothed(theta)[0], rel=1e-9)
    half = (found["high"] - found["low"]).to_numpy() / 2 / 1.959963984540054
    assert half == pytest.approx(np.sqrt(wanted), rel=1e-5)


def test_a_walk_that_is_not_needed_has_variance_0() -> None:
    g = np.random.default_rng(0)
    table = pd.DataFrame({"y": g.normal(size=30), "year": np.arange(30)})
    table["y"] -= 0.05 * (-1.0) ** table["year"]

    @th.model(level=0.0, sigma=th.positive(1.0), b=th.latent(along="year", covariance="rw1", sd=0.2))
    def own(batch, level, sigma, b):  # type: ignore[no-untyped-def]
        return th.families.Normal().at(level + b, sigma)

    fit = th.fit(own, table)
    assert fit.estimates.iloc[-1] == pytest.approx(0, abs=1e-6)
    assert fit.certificate.status == "boundary"
    assert fit.log_likelihood == pytest.approx(th.fit("y ~ 1", table).log_likelihood, abs=1e-8)
    assert fit.test_random("b").p_value == pytest.approx(1.0)


def test_new_groups_are_scored_by_their_own_series() -> None:
    table = panel(20, 6, 8)
    fit, new = th.fit(lines, table), panel(4, 6, 9).assign(g=lambda d: d["g"] + 100)
    a, s, sigma, sd, rho = fit.estimates.to_numpy()
    total = 0.0
    for _, own in new.groupby("g"):
        V = covariance(own["t"].to_numpy(), "ar1", sd, rho) + sigma**2 * np.eye(len(own))
        total += multivariate_normal(a + s * own["x"].to_numpy(), V).logpdf(own["y"].to_numpy())
    assert fit.score(new).total == pytest.approx(total, abs=1e-8)
    with pytest.raises(th.errors.BadArgument, match="was fitted"):
        th.fit(local_level, FLOW).score(FLOW)


def test_draws_have_the_covariance_of_the_series() -> None:
    fit = th.fit(noisy_ar1, FLOW)
    level, sigma, sd, rho = fit.estimates.to_numpy()
    drawn = np.asarray(fit.sample(4000, FLOW.head(4), seed=1))
    wanted = covariance(np.arange(4), "ar1", sd, rho) + sigma**2 * np.eye(4)
    assert np.cov(drawn.T) == pytest.approx(wanted, abs=0.08 * wanted.max())
    assert drawn.mean(0) == pytest.approx(np.full(4, level), abs=5 * np.sqrt(wanted[0, 0] / 4000))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: th.latent(), r"neither by= nor along="),
        (lambda: th.latent(along="t"), r"covariance='us'\)\. Accepted: 'ar1', 'rw1'"),
        (lambda: th.latent(by="g", covariance="rw1"), r"Accepted: 'us'.*along= is the column of its steps"),
        (lambda: th.latent(along="t", covariance="ar1", sd=(1.0, 2.0)), r"one standard deviation"),
        (lambda: th.latent(along=["t"], covariance="ar1"), r"the name of one column"),
    ],
)
def test_what_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(th.errors.BadArgument, match=message):
        make()


def test_steps_that_are_none_are_refused_by_row() -> None:
    with pytest.raises(th.errors.UnknownColumn, match=r"along=.*'year'"):
        th.fit(local_level, FLOW.rename(columns={"year": "when"}))
    with pytest.raises(th.errors.BadArgument, match=r"step 1871\.5 in row 3.*whole numbers"):
        th.fit(noisy_ar1, FLOW.assign(year=FLOW["year"].astype(float).where(FLOW.index != 3, 1871.5)))
    with pytest.raises(th.errors.NotFinite, match=r"missing in row 2"):
        th.fit(noisy_ar1, FLOW.assign(year=FLOW["year"].where(FLOW.index != 2)))
    with pytest.raises(th.errors.BadArgument, match="has 1 value"):
        th.fit(local_level, FLOW.assign(year=1900))
    with pytest.raises(th.errors.WrongType, match="year"):
        th.fit(local_level, FLOW.assign(year=[f"the year {y}" for y in FLOW["year"]]))
    fit = th.fit(local_level, FLOW)
    with pytest.raises(th.errors.UnknownLevel, match=r"row 1: the fit has not seen year = 1980 \(1 such"):
        fit.predict(pd.DataFrame({"year": [1900, 1980]}))
    assert fit.predict(pd.DataFrame({"year": [1980]}), groups="average") == pytest.approx(
        fit.estimates["level"]
    )


def test_a_series_too_long_is_refused_by_name() -> None:
    table = pd.DataFrame({"y": np.zeros(12_500), "year": np.arange(12_500)})
    with pytest.raises(th.errors.BadArgument, match=r"1 groups of 12,500 steps.*Accepted: 12,000 values"):
        th.fit(local_level, table)
