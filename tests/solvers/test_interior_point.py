"""The maximum of a regression whose parameters must stay in their ranges, inside and on the edge."""

import numpy as np
import pytest
from scipy import special, stats
from scipy.optimize import minimize

import thetahat as th
from thetahat.errors import DataError, NoCurvature

F = th.families
EIGHT = {"x": list(range(1, 9)), "y": [0, 0, 1, 0, 1, 1, 1, 1]}


# ---- figures of the issue, and closed forms ----------------------------------------------------------------


def test_log_binomial_maximum_at_the_last_row():
    """P = 1 at x = 8, so b = −a/8; along that line the maximum by scipy's bounded search of ℓ(b), written out
    here."""
    x, y = np.asarray(EIGHT["x"], float), np.asarray(EIGHT["y"])

    def minus(b):
        eta = b * (x - 8)
        return -(eta[y == 1].sum() + np.log(-np.expm1(eta[y == 0])).sum())

    from scipy.optimize import minimize_scalar

    best = minimize_scalar(minus, bounds=(0.01, 1.0), method="bounded", options={"xatol": 1e-12})
    fit = th.fit("y ~ x", EIGHT, family=F.Bernoulli(link="log"))
    assert fit.certificate.status == "boundary"
    assert fit.estimates.to_numpy() == pytest.approx([-8 * best.x, best.x], abs=1e-6)
    assert fit.estimates.to_numpy() == pytest.approx([-1.32366, 0.165457], abs=1e-5)
    assert fit.log_likelihood == pytest.approx(-best.fun, abs=1e-9)
    assert "mean ≤ 1 at row 7 (multiplier 2.888)" in str(fit.certificate)


def test_log_binomial_maximum_on_the_edge_is_half_by_half():
    """On a + b = 0, ℓ = log(1 − e^a)(…): the figure −2.8525, 2.8525, −3.09650 is the issue's, by another
    optimiser."""
    data = {"x": [0, 0.2, 0.4, 0.6, 0.8, 1], "y": [0, 0, 1, 0, 0, 1]}
    fit = th.fit("y ~ x", data, family=F.Bernoulli(link="log"))
    assert fit.estimates.to_numpy() == pytest.approx([-2.8525, 2.8525], abs=1e-4)
    assert fit.log_likelihood == pytest.approx(-3.09650, abs=1e-5)
    assert (fit.predict(data) <= 1).all()


def test_identity_link_keeps_probabilities_between_0_and_1():
    fit = th.fit("y ~ x", EIGHT, family=F.Bernoulli(link="identity"))
    means = fit.predict(EIGHT)
    assert fit.certificate.status == "boundary"
    assert ((means >= 0) & (means <= 1)).all()
    assert fit.log_likelihood == pytest.approx(stats.bernoulli.logpmf(EIGHT["y"], means).sum(), abs=1e-9)


def test_a_mean_of_zero_with_a_count_of_zero_is_certain():
    """Σy / Σx = 21/15: the maximum of a Poisson proportional to x, whose row x = 0 has mean 0 whatever the
    coefficient."""
    fit = th.fit("y ~ x - 1", {"y": [0, 1, 2, 4, 5, 9], "x": range(6)}, family=F.Poisson(link="identity"))
    assert fit.estimates["x"] == pytest.approx(1.4, abs=1e-9)
    assert fit.certificate.status == "certified maximum"
    assert fit.log_likelihood == pytest.approx(
        stats.poisson.logpmf([0, 1, 2, 4, 5, 9], 1.4 * np.arange(6)).sum()
    )


@pytest.mark.parametrize(
    "family",
    ["gamma", "exponential", "inverse_gaussian", "negative_binomial", "tweedie", "poisson", "geometric"],
)
def test_without_an_intercept_a_start_is_found(family):
    """Proportional means: closed forms mean(y/x) for gamma and exponential, Σy/Σx for Poisson; else ℓ
    beats its neighbours."""
    x = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
    y = np.array([1.0, 1, 2, 4, 5, 9])
    fit = th.fit("y ~ 0 + x", {"y": y, "x": x}, family=type(F.get(family))(link="identity"))
    closed = {"gamma": (y / x).mean(), "exponential": (y / x).mean(), "poisson": y.sum() / x.sum()}
    assert fit.certificate.ok
    if family in closed:
        assert fit.estimates["x"] == pytest.approx(closed[family], rel=1e-8)


def test_the_row_that_no_coefficient_moves_out_of_reach_is_named():
    """A gamma mean of 0·b is 0 at row 2, whatever b."""
    with pytest.raises(DataError, match=r"row 2.*mean"):
        th.fit("y ~ 0 + x", {"y": [1.0, 2, 3, 4], "x": [1.0, 2, 0, 4]}, family=F.Gamma(link="identity"))


def test_rows_that_no_coefficients_satisfy_together_are_named():
    """b > 0 by row 0 and b < 0 by row 1."""
    with pytest.raises(DataError, match=r"rows [012, ]*1[, 2]* cannot all satisfy mean ≥ 0"):
        th.fit("y ~ 0 + x", {"y": [1.0, 2, 3], "x": [1.0, -2, 0.5]}, family=F.Gamma(link="identity"))


# ---- an independent optimiser ------------------------------------------------------------------------------

INVERSE = {
    "identity": lambda e: e,
    "log": np.exp,
    "sqrt": lambda e: e**2,
    "inverse": lambda e: 1 / e,
    "inverse_squared": lambda e: e**-0.5,
    "softplus": lambda e: np.log1p(np.exp(e)),
}
# family → (has a dispersion, log-likelihood of y at mean m, dispersion a, trials t; largest mean)
LIKELIHOOD = {
    "bernoulli": (False, lambda y, m, a, t: special.xlogy(y, m) + special.xlog1py(1 - y, -m), 1.0),
    "binomial": (False, lambda y, m, a, t: stats.binom.logpmf(y, t, m), 1.0),
    "beta_binomial": (True, lambda y, m, a, t: stats.betabinom.logpmf(y, t, m / a, (1 - m) / a), 1.0),
    "beta": (True, lambda y, m, a, t: stats.beta.logpdf(y, m * a, (1 - m) * a), 1.0),
    "poisson": (False, lambda y, m, a, t: special.xlogy(y, m) - m - special.gammaln(y + 1), np.inf),
    "geometric": (False, lambda y, m, a, t: special.xlogy(y, m) - (y + 1) * np.log1p(m), np.inf),
    "negative_binomial": (True, lambda y, m, a, t: stats.nbinom.logpmf(y, 1 / a, 1 / (1 + a * m)), np.inf),
    "gamma": (True, lambda y, m, a, t: stats.gamma.logpdf(y, 1 / a, scale=m * a), np.inf),
    "exponential": (False, lambda y, m, a, t: -np.log(m) - y / m, np.inf),
    "inverse_gaussian": (
        True,
        lambda y, m, a, t: -0.5 * (np.log(2 * np.pi * a * y**3) + (y / m - 1) ** 2 / (a * y)),
        np.inf,
    ),
    "weibull": (True, lambda y, m, a, t: stats.weibull_min.logpdf(y, a, scale=m), np.inf),
}
UNIT, POSITIVE = (
    ("identity", "log", "sqrt", "inverse", "softplus"),
    ("identity", "sqrt", "inverse", "inverse_squared"),
)
PAIRS = [(f, link) for f, (_, _, top) in LIKELIHOOD.items() for link in (UNIT if top == 1 else POSITIVE)]


def drawn(family, rng):
    """A random design and a response whose mean comes near its ends."""
    n, p = int(rng.integers(8, 24)), int(rng.integers(1, 3))
    X = rng.uniform(0, 1, size=(n, p)) if rng.random() < 0.5 else rng.normal(size=(n, p))
    t = rng.integers(2, 8, n).astype(float)
    if LIKELIHOOD[family][2] == 1:
        m = np.clip(0.4 + 0.5 * X[:, 0], 0.02, 0.98)
        share = rng.beta(3 * m, 3 * (1 - m))
        y = {
            "bernoulli": lambda: rng.binomial(1, m),
            "binomial": lambda: rng.binomial(t.astype(int), m),
            "beta_binomial": lambda: rng.binomial(t.astype(int), share),
            "beta": lambda: np.clip(share, 1e-3, 1 - 1e-3),
        }[family]()
    else:
        m = np.clip(2 + 2 * X[:, 0], 0.05, None)
        counts = {"poisson": rng.poisson(m), "geometric": rng.geometric(1 / (1 + m)) - 1}
        y = counts.get(
            family,
            rng.poisson(m * rng.gamma(1.0, 1.0, n))
            if family == "negative_binomial"
            else m * rng.gamma(2, 0.5, n),
        )
    return X, np.asarray(y, float), t


def constrained(family, link, X, y, t, limits, begins):
    """The highest ℓ that SLSQP finds from several starts, its own constraints and its own log-likelihood."""
    dispersed, log_p, _ = LIKELIHOOD[family]
    D = np.column_stack([np.ones(len(y)), X])
    p = D.shape[1]

    def minus(z):
        with np.errstate(all="ignore"):
            value = log_p(y, INVERSE[link](D @ z[:p]), np.exp(z[-1]) if dispersed else 1.0, t).sum()
        return -value if np.isfinite(value) else 1e10

    wide = np.column_stack([D, np.zeros((len(y), int(dispersed)))])
    ends = [(1, limits[0]), (-1, limits[1])]
    constraints = [
        {"type": "ineq", "fun": lambda z, s=s, e=e: s * (wide @ z - e) - 1e-9, "jac": lambda z, s=s: s * wide}
        for s, e in ends
        if np.isfinite(e)
    ]
    best = -np.inf
    for z in begins:
        found = minimize(
            minus, z, constraints=constraints, method="SLSQP", options={"maxiter": 400, "ftol": 1e-13}
        ).x
        if all((s * (wide @ found - e) > -1e-9).all() for s, e in ends if np.isfinite(e)):
            best = max(best, -minus(found))
    return best, minus


@pytest.mark.parametrize(("family", "link"), PAIRS, ids=lambda v: v)
@pytest.mark.parametrize("seed", range(2))
def test_no_other_optimiser_finds_a_higher_likelihood_in_the_domain(family, link, seed):
    """SLSQP on a log-likelihood of scipy.stats, from a constant and from θ̂ disturbed, over random
    designs; and it agrees on ℓ(θ̂)."""
    rng = np.random.default_rng([seed, sum(map(ord, family + link))])
    X, y, t = drawn(family, rng)
    data = {"y": y, "t": t} | {f"x{j}": X[:, j] for j in range(X.shape[1])}
    extras = {"trials": "t"} if family in ("binomial", "beta_binomial") else {}
    chosen = type(F.get(family))(link=link)
    fit = th.fit(
        "y ~ " + " + ".join(f"x{j}" for j in range(X.shape[1])),
        data,
        family=chosen,
        on_failure="return",
        **extras,
    )
    assert fit.certificate.ok, fit.certificate
    limits = next(iter(chosen.parameters.values())).limits
    size = 1 + X.shape[1] + LIKELIHOOD[family][0]
    constant = np.zeros(size)
    constant[0] = limits.middle
    begins = [constant]
    if len(fit.theta) == size:  # the dispersion was not found to be at its own boundary
        theta = fit.theta.numpy()
        begins.append(theta + 1e-3 * rng.normal(size=size))
        best, minus = constrained(family, link, X, y, t, (limits.low, limits.high), begins)
        if fit.certificate.status == "certified maximum":
            assert -minus(theta) == pytest.approx(fit.log_likelihood, abs=1e-7)
    else:
        best, _ = constrained(family, link, X, y, t, (limits.low, limits.high), begins)
    assert best <= fit.log_likelihood + 1e-5


# ---- what is said on the edge ------------------------------------------------------------------------------


def test_on_the_edge_there_are_no_standard_errors_and_the_summary_says_so():
    fit = th.fit("y ~ x", EIGHT, family=F.Bernoulli(link="log"))
    with pytest.raises(NoCurvature, match="mean ≤ 1 at row 7"):
        fit.standard_errors()
    assert "no standard errors" in str(fit.summary())
    assert fit.bootstrap(10, seed=1).notna().any().any()


def test_rows_of_weight_zero_bound_nothing():
    """The row x = −1, which would need a + b·(−1) ≥ 0, does not count: Σy/Σx of the others, through the
    origin."""
    data = {"y": [5.0, 1, 2, 4], "x": [-1.0, 1, 2, 3], "w": [0, 1, 1, 1]}
    fit = th.fit("y ~ 0 + x", data, family=F.Poisson(link="identity"), weights="w")
    assert fit.estimates["x"] == pytest.approx(7 / 6)


# ---- new rows ----------------------------------------------------------------------------------------------


def test_a_new_row_whose_mean_leaves_its_range_is_not_predicted():
    """η = 0.62 + 1.22·x is negative at x = −20: no mean, no quantile, no probability; its score is −∞."""
    fit = th.fit("y ~ x", {"x": range(6), "y": [1, 1, 2, 4, 5, 9]}, family=F.Poisson(link="identity"))
    new = {"x": [1.0, -20.0], "y": [1, 1]}
    assert np.isnan(fit.predict(new)).tolist() == [False, True]
    assert np.isnan(fit.predict(new, "quantile", level=0.5)).tolist() == [False, True]
    for kind in ("confidence", "prediction", "plug-in"):
        assert np.isnan(fit.predict(new, level=0.9, kind=kind)).all(axis=1).tolist() == [False, True]
    assert fit.score(new).total == -np.inf
    bernoulli = th.fit("y ~ x", EIGHT, family=F.Bernoulli(link="log"))
    assert np.isnan(bernoulli.predict({"x": [8.0, 9.0]}, "probabilities")).all(axis=1).tolist() == [
        False,
        True,
    ]
