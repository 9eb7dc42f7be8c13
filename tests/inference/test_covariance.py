"""Covariances against statsmodels, closed forms, and each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from numpy.testing import assert_allclose

import thetahat as th
from thetahat.errors import BadArgument, FlatDirection
from thetahat.inference import covariance
from thetahat.inference.expected import outer_products

from .data import counts

DATA = counts()
X = sm.add_constant(DATA[["x", "w"]].to_numpy())
FAMILIES = {"y": ("poisson", sm.families.Poisson()), "b": ("bernoulli", sm.families.Binomial())}


@pytest.fixture(scope="module", params=list(FAMILIES))
def pair(request):
    """Our fit and statsmodels' GLM of the same data, with a canonical link."""
    name, family = FAMILIES[request.param]
    other = sm.GLM(DATA[request.param].to_numpy(), X, family=family)
    return th.fit(f"{request.param} ~ x + w", DATA, name), other


def test_observed_and_expected_agree_with_statsmodels_where_the_link_is_canonical(pair):
    """statsmodels 0.15, GLM(…).fit().cov_params(): for a canonical link the two informations are one."""
    ours, other = pair
    theirs = other.fit(tol=1e-12).cov_params()
    assert_allclose(ours.covariance(), theirs, rtol=1e-7)
    assert_allclose(ours.covariance("expected"), theirs, rtol=1e-7)
    assert_allclose(ours.standard_errors() ** 2, np.diag(theirs), rtol=1e-7)


def test_the_sandwich_is_white_s_hc0(pair):
    """statsmodels 0.15, GLM(…).fit(cov_type="HC0")."""
    ours, other = pair
    theirs = other.fit(tol=1e-12, cov_type="HC0").cov_params()
    assert_allclose(ours.covariance("sandwich"), theirs, rtol=1e-7)
    assert_allclose(ours.standard_errors("sandwich") ** 2, np.diag(theirs), rtol=1e-7)


@pytest.mark.parametrize("by", ["g", ["g", "h"]], ids=["one-way", "two-way"])
def test_clusters_agree_with_statsmodels(pair, by):
    """statsmodels 0.15, GLM(…).fit(cov_type="cluster", cov_kwds={"groups": …}), use_correction=True by
    default."""
    ours, other = pair
    groups = DATA[by].to_numpy()
    theirs = other.fit(tol=1e-12, cov_type="cluster", cov_kwds={"groups": groups}).cov_params()
    assert_allclose(ours.covariance("cluster", by=by), theirs, rtol=1e-6)
    assert_allclose(ours.standard_errors("cluster", by=by) ** 2, np.diag(theirs), rtol=1e-6)


def test_two_way_clusters_are_the_sum_of_one_way_ones_less_their_intersection():
    """Cameron, Gelbach and Miller (2011), eq. 2.11, the meat written out by hand from the rows' scores."""
    ours = th.fit("y ~ x + w", DATA, "poisson")
    mean = np.exp(X @ ours.estimates.to_numpy())
    s, J = X * (DATA["y"].to_numpy() - mean)[:, None], X.T @ (X * mean[:, None])

    def meat(codes):
        u = pd.DataFrame(s).groupby(codes).sum().to_numpy()
        G, n, p = len(u), len(s), s.shape[1]
        return G / (G - 1) * (n - 1) / (n - p) * u.T @ u

    both = DATA["g"].to_numpy() * 100 + DATA["h"].to_numpy()
    K = meat(DATA["g"].to_numpy()) + meat(DATA["h"].to_numpy()) - meat(both)
    B = np.linalg.inv(J)
    assert_allclose(ours.covariance("cluster", by=["g", "h"]), B @ K @ B, rtol=1e-8)


def test_a_cluster_for_each_row_is_the_sandwich_but_for_its_factor():
    """With G = n, f = n/(n − 1) · (n − 1)/(n − p), p the coefficients without the scale, as in Stata's
    regress."""
    data = DATA.assign(row=np.arange(len(DATA)))
    ours = th.fit("z ~ x", data)
    n, p = len(data), 2
    assert_allclose(
        ours.covariance("cluster", by="row"), ours.covariance("sandwich") * n / (n - p), rtol=1e-9
    )


def test_the_normal_model_has_the_closed_form():
    """By default statsmodels' OLS; the observed information's σ̂²(XᵀX)⁻¹ for the coefficients, σ̂²/2n for the
    scale; HC0 of statsmodels' OLS."""
    ours = th.fit("z ~ x + w", DATA)
    other = sm.OLS(DATA["z"], X).fit()
    n = len(DATA)
    assert_allclose(ours.covariance().to_numpy()[:3, :3], other.cov_params(), rtol=1e-9)
    V = ours.covariance("observed").to_numpy()
    assert_allclose(V[:3, :3], other.normalized_cov_params * other.ssr / n, rtol=1e-9)
    assert_allclose(V[3, 3], other.ssr / n / (2 * n), rtol=1e-9)
    assert_allclose(V[3, :3], 0, atol=1e-12)
    assert_allclose(
        ours.covariance("sandwich").to_numpy()[:3, :3],
        other.get_robustcov_results("HC0").cov_params(),
        rtol=1e-9,
    )


def test_the_negative_binomial_has_statsmodels_errors():
    """statsmodels 0.15, NegativeBinomial (NB2): its gradient vanishes at our estimates, and its Hessian
    there, dispersion on its own scale, is that of our errors."""
    ours = th.fit("y ~ x + w", DATA, "negative_binomial")
    other = sm.NegativeBinomial(DATA["y"].to_numpy(), X)
    other._transparams = False  # its last parameter is the dispersion, not its logarithm
    at = ours.estimates.to_numpy()
    assert_allclose(other.score(at), 0, atol=1e-5)
    assert_allclose(ours.covariance(), np.linalg.inv(-other.hessian(at)), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("kind", ["observed", "expected", "sandwich"])
def test_frequency_weights_are_repeated_rows(kind):
    """Exact: Σ c f(x) is f summed over c copies. K has c s sᵀ, not c² s sᵀ."""
    weighted = th.fit("y ~ x + w", DATA, "negative_binomial", weights="c")
    repeated = th.fit("y ~ x + w", DATA.loc[DATA.index.repeat(DATA["c"].astype(int))], "negative_binomial")
    assert_allclose(weighted.covariance(kind), repeated.covariance(kind), rtol=1e-6, atol=1e-12)


def test_a_weighting_enters_the_meat_squared():
    """J = Σ w XᵀX/σ², K = Σ w² XᵀX r²/σ⁴ of a mean with known scale, w a weighting and not a count."""
    y, w = torch.tensor(DATA["z"].to_numpy()), torch.tensor(DATA["c"].to_numpy())

    @th.model(mu=0.0)
    def mean(batch, mu):
        return (
            th.families.Normal()
            .log_prob(batch["y"], mu, torch.ones((), dtype=torch.float64))
            .expand(batch.shape)
        )

    ours = th.fit(mean, {"y": y, "w": w}, weights=lambda batch, log_prob: batch["w"])
    residual = y - (w * y).sum() / w.sum()
    expected = (w**2 * residual**2).sum() / w.sum() ** 2
    assert_allclose(ours.covariance("sandwich").iloc[0, 0], float(expected), rtol=1e-9)


# ---- expected ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "response", "entry", "exact"),
    [
        ("normal", "z", ("scale", "scale"), lambda theta, n: theta["scale"] ** 2 / (2 * n)),
        ("laplace", "z", ("scale", "scale"), lambda theta, n: theta["scale"] ** 2 / n),
        ("exponential", "t", ("Intercept", "Intercept"), lambda theta, n: 1 / n),
        (
            "geometric",
            "y",
            ("Intercept", "Intercept"),
            lambda theta, n: (1 + np.exp(theta["Intercept"])) / np.exp(theta["Intercept"]) / n,
        ),
        ("logistic", "z", ("Intercept", "Intercept"), lambda theta, n: 3 * theta["scale"] ** 2 / n),
        ("gumbel", "z", ("scale", "scale"), lambda theta, n: theta["scale"] ** 2 * 6 / np.pi**2 / n),
    ],
)
def test_the_expected_information_has_its_closed_form(family, response, entry, exact):
    """Lehmann and Casella (1998), table 5.1 (location-scale); Johnson, Kotz and Balakrishnan (1995) for the
    Gumbel; Var y of the others."""
    data = DATA.assign(t=np.abs(DATA["z"]) + 0.1)
    ours = th.fit(f"{response} ~ 1", data, family)
    V = ours.covariance("expected")
    assert_allclose(
        V.loc[entry], exact(ours.estimates, len(data)), rtol=1e-6 if family == "laplace" else 1e-9
    )


@pytest.mark.parametrize(
    "family", ["negative_binomial", "poisson", "gamma", "weibull", "zero_inflated(poisson)", "normal"]
)
def test_expected_and_observed_agree_on_a_large_sample_of_the_model_itself(family):
    """Bartlett's identity and the law of large numbers: both are E[−∂²ℓ] at the truth, to a few in √n."""
    rng = np.random.default_rng(0)
    n = 16_000
    y = rng.poisson(1.5, n).astype(float)
    if family in ("gamma", "weibull", "normal"):
        y = np.abs(rng.normal(size=n)) + y
    elif family == "zero_inflated(poisson)":
        y[: n // 4] = 0
    elif family == "negative_binomial":
        y = rng.poisson(rng.gamma(2.0, 1.0, n)).astype(float)
    first = th.fit("y ~ 1", {"y": y}, family)
    ours = th.fit("y ~ 1", {"y": _drawn(first)}, family)
    assert_allclose(ours.standard_errors("expected"), ours.standard_errors(), rtol=0.06)


def test_the_expected_information_of_an_exponential_dispersion_family_is_its_variance_function_s():
    """E[s²] = μ²/(φ V(μ)) with a log link: μ^(2−p)/φ for Tweedie, an atom at 0 and a density beside it;
    1/φ for the gamma."""
    rng = np.random.default_rng(0)
    y = rng.poisson(1.2, 60) * rng.gamma(2.0, 1.0, 60)
    fit = th.fit("y ~ 1", {"y": y}, "tweedie", dispersion=1.5, power=1.6)
    exact = 1.5 * np.exp((1.6 - 2) * fit.estimates["Intercept"]) / 60
    assert_allclose(fit.covariance("expected").iloc[0, 0], exact, rtol=1e-6)
    gamma = th.fit("y ~ 1", {"y": y + 0.1}, "gamma", dispersion=0.7)
    assert_allclose(gamma.covariance("expected").iloc[0, 0], 0.7 / 60, rtol=1e-9)


def _drawn(fit):
    (batch,) = fit.source.batches()
    return fit.model.sample(batch, generator=torch.Generator().manual_seed(1)).numpy()


def test_the_expected_scores_products_of_a_binomial_are_its_variance():
    """E[s²] = trials·p(1 − p) for the logit link, whatever the trials of a row."""
    rng = np.random.default_rng(0)
    m = rng.integers(1, 9, 50)
    data = {"y": rng.binomial(m, 0.4).astype(float), "m": m.astype(float), "x": rng.normal(size=50)}
    ours = th.fit("y ~ x", data, "binomial", trials="m")
    (batch,) = ours.source.batches()
    p = ours.model.parameters_at(batch)[0]
    assert_allclose(outer_products(ours.model, batch)[0, 0], batch["trials"] * p * (1 - p), rtol=1e-11)


def test_the_expected_information_is_refused_where_it_has_no_meaning():
    """A censored family does not say when rows are censored; a model of one's own has no distribution of y to
    average over."""

    @th.model(rate=th.positive(1.0))
    def exponential(batch, rate):
        return torch.log(rate) - rate * batch["y"]

    with pytest.raises(BadArgument, match="regression"):
        th.fit(exponential, {"y": torch.ones(5)}).covariance("expected")
    data = {"t": [1.0, 2.0, 0.5, 3.0, 1.5], "s": [0.0, 1.0, 0.0, 0.0, 1.0]}
    with pytest.raises(BadArgument, match="censored"):
        th.fit("Surv(t, s) ~ 1", data, "weibull").covariance("expected")


# ---- a category of many levels -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide():
    """A category of 200 levels, eliminated; and the same model with 199 written columns, not eliminated."""
    rng = np.random.default_rng(3)
    n, L = 1600, 200
    g = np.concatenate([np.arange(L), rng.integers(0, L, n - L)])
    x = rng.normal(size=n)
    y = rng.poisson(np.exp(1.2 + 0.4 * x + rng.normal(scale=0.3, size=L)[g])).astype(float)
    data = pd.DataFrame({"y": y, "x": x, "g": [f"l{k:03d}" for k in g], "h": rng.integers(0, 30, n)})
    dummies = pd.DataFrame({f"d{k}": (g == k).astype(float) for k in range(1, L)})
    written = th.fit("y ~ x + " + " + ".join(dummies), pd.concat([data, dummies], axis=1), "poisson")
    return th.fit("y ~ x + C(g)", data, "poisson"), written


@pytest.mark.parametrize("kind", ["observed", "expected", "sandwich"])
def test_an_eliminated_category_has_the_errors_of_its_dummies(wide, kind):
    """Schur complements are exact: the same matrix, inverted by other sums."""
    eliminated, written = wide
    assert eliminated.model.layout.eliminated is not None
    assert written.model.layout.eliminated is None
    assert_allclose(eliminated.standard_errors(kind), written.standard_errors(kind), rtol=1e-6)
    assert_allclose(
        eliminated.covariance(kind).to_numpy().diagonal(), eliminated.standard_errors(kind) ** 2, rtol=1e-9
    )
    assert_allclose(eliminated.criteria["TIC"], written.criteria["TIC"], rtol=1e-9)


def test_an_eliminated_category_clusters_tests_and_profiles_as_its_dummies(wide):
    """The same model by another layout."""
    eliminated, written = wide
    assert_allclose(
        eliminated.covariance("cluster", by="h").iloc[:2, :2],
        written.covariance("cluster", by="h").iloc[:2, :2],
        rtol=1e-6,
    )
    a, b = (f.intervals(kind="profile", parameters="x") for f in wide)
    assert_allclose(a, b, rtol=1e-8)
    for kind in ("likelihood_ratio", "score"):
        assert_allclose(
            eliminated.test("x = 0.4", kind).statistic, written.test("x = 0.4", kind).statistic, rtol=1e-7
        )


# ---- models of one's own -----------------------------------------------------------------------------------


@th.model(mean=0.0, scale=th.positive(1.0))
def normal(batch, mean, scale):
    return th.families.Normal().log_prob(batch["y"], mean, scale)


@pytest.mark.parametrize("kind", ["observed", "sandwich"])
def test_a_model_of_one_s_own_has_the_errors_of_the_same_regression(kind):
    """The same likelihood by automatic differentiation of ten lines and by the blocks of Regression."""
    own = th.fit(normal, {"y": DATA["z"].to_numpy()})
    same = th.fit("z ~ 1", DATA)
    assert_allclose(own.covariance(kind), same.covariance(kind), rtol=1e-6, atol=1e-12)
    labels = [DATA["g"].to_numpy()]
    ours = covariance.natural(own.objective, own.theta, "cluster", labels)
    assert_allclose(ours, same.covariance("cluster", by="g"), rtol=1e-6)


def test_a_simplex_has_the_multinomial_s_covariance():
    """(diag p − p pᵀ)/n, singular in the direction of the sum: the delta method through a map from K − 1
    to K."""

    @th.model(measure="mass", p=th.simplex(3))
    def shares(batch, p):
        return torch.log(p)[batch["y"].long()]

    y = np.repeat([0.0, 1.0, 2.0], [20, 50, 30])
    ours = th.fit(shares, {"y": y})
    p = np.array([0.2, 0.5, 0.3])
    assert_allclose(ours.covariance(), (np.diag(p) - np.outer(p, p)) / 100, atol=1e-10)
    assert_allclose(ours.standard_errors() ** 2, p * (1 - p) / 100, rtol=1e-7)


def test_terms_over_one_source_add_their_scores_before_they_are_squared():
    """Two terms log N(y; μ, 1) and log N(z; μ, 1) over the same rows: K = Σ (r_y + r_z)², not Σ r_y² + Σ
    r_z²."""
    y, z = torch.tensor(DATA["z"].to_numpy()), torch.tensor(0.5 * DATA["z"].to_numpy() + 1)

    class Mean(torch.nn.Module):
        measure = "density"

        def __init__(self, mu, column):
            super().__init__()
            self.mu, self.column = mu, column

        def log_prob(self, batch):
            return -0.5 * (batch[self.column] - self.mu) ** 2

    mu = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    source = th.data.Tensors({"y": y, "z": z})
    ours = th.maximize(th.LogLikelihood(Mean(mu, "y"), source) + th.LogLikelihood(Mean(mu, "z"), source))
    center = float((y + z).mean()) / 2
    K = float(((y - center + z - center) ** 2).sum())
    assert_allclose(ours.covariance("sandwich").iloc[0, 0], K / (2 * len(y)) ** 2, rtol=1e-9)


def test_a_fit_of_two_models_reports_the_first_with_the_errors_of_both():
    """log N(y; μ, 1) + log N(z; μ + δ, 1): μ̂ = ȳ and its variance 1/n, δ̂ = z̄ − ȳ with 2/n, whichever
    model is named first."""

    class Mean(torch.nn.Module):
        measure = "density"

        def __init__(self, column, *parts):
            super().__init__()
            self.column = column
            self.parts = torch.nn.ParameterList(parts)

        def log_prob(self, batch):
            return -0.5 * (batch[self.column] - sum(self.parts)) ** 2

    y, z = torch.tensor(DATA["z"].to_numpy()), torch.tensor(DATA["x"].to_numpy())
    source = th.data.Tensors({"y": y, "z": z})
    mu, delta = (torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    one, two = (th.LogLikelihood(Mean(*parts), source) for parts in (("y", mu), ("z", mu, delta)))
    n = len(y)
    for first, second, exact, V in (
        (one, two, [y.mean()], [[1 / n]]),
        (two, one, [y.mean(), z.mean() - y.mean()], [[1 / n, -1 / n], [-1 / n, 2 / n]]),
    ):
        fit = th.maximize(first + second)
        assert_allclose(fit.estimates, exact, rtol=1e-7)
        assert_allclose(fit.covariance(), V, rtol=1e-9)
        half = 1.959963984540054 * np.sqrt(np.diag(V))
        assert_allclose(
            fit.intervals(kind="profile"),
            np.stack([fit.estimates - half, fit.estimates + half], 1),
            rtol=1e-7,
        )
        assert_allclose(
            fit.test("`parts.0` = 0", "likelihood_ratio").statistic, n * float(y.mean()) ** 2, rtol=1e-7
        )


def test_groups_that_the_batches_name_are_the_units_of_the_sandwich():
    """K = Σ_g (Σ_{i in g} r_i)² for a mean with known scale."""
    from thetahat.data import Batch, Tensors

    class Mean(torch.nn.Module):
        measure = "density"

        def __init__(self):
            super().__init__()
            self.mu = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def log_prob(self, batch):
            return -0.5 * (batch["y"] - self.mu) ** 2

    y, g = torch.tensor(DATA["z"].to_numpy()), torch.tensor(DATA["g"].to_numpy())
    ours = th.fit(Mean(), Tensors(Batch({"y": y}, group=g), block=64))
    sums = torch.zeros(25, dtype=torch.float64).index_add_(0, g, y - y.mean())
    assert_allclose(ours.covariance("sandwich").iloc[0, 0], float((sums**2).sum()) / len(y) ** 2, rtol=1e-9)


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "robust"}, "Accepted: 'observed'"),
        ({"kind": "cluster"}, "needs by"),
        ({"kind": "observed", "by": "g"}, "takes 'cluster'"),
        ({"kind": "cluster", "by": ["g", "h", "c"]}, "at most 2"),
        ({"kind": "cluster", "by": "one"}, "one value only"),
    ],
)
def test_a_covariance_that_cannot_be_is_refused_with_its_reason(arguments, message):
    """Each names the argument and what is accepted."""
    ours = th.fit("y ~ x", DATA.assign(one=1), "poisson")
    with pytest.raises(BadArgument, match=message):
        ours.covariance(**arguments)


def test_a_flat_direction_has_no_covariance():
    """x twice: J is singular, and J⁻¹ is not a number."""
    ours = th.fit("y ~ x + x2", DATA.assign(x2=DATA["x"]), "poisson", on_failure="return")
    with pytest.raises(FlatDirection, match="not positive definite"):
        ours.standard_errors()


@pytest.mark.parametrize(
    ("family", "draw"),
    [
        ("gamma", lambda rng, n: rng.gamma(0.3, 2.0, n)),
        ("inverse_gaussian", lambda rng, n: rng.wald(1.0, 2.0, n)),
        ("beta", lambda rng, n: rng.beta(2.0, 3.0, n)),
        ("student_t", lambda rng, n: rng.standard_t(3.0, n)),
        ("lognormal", lambda rng, n: np.exp(rng.normal(size=n))),
        ("gumbel", lambda rng, n: rng.gumbel(size=n)),
        ("skew_normal", lambda rng, n: np.abs(rng.normal(size=n)) + 0.7 * rng.normal(size=n)),
    ],
)
def test_two_roads_to_a_mean_over_a_density_agree(family, draw):
    """By the trapezoidal rule in t, whose mass is checked, and over the quantile: different nodes, one
    integral."""
    from thetahat.inference import quadrature

    fit = th.fit(family, {"y": draw(np.random.default_rng(0), 200)})
    (batch,) = fit.source.batches()
    with torch.no_grad():
        eta = [e[:1] for e in fit.model.eta(batch, fit.theta)]
        rows = quadrature.Rows(fit.model.family, eta, {}, list(range(len(eta))))
        zero, one, two = torch.zeros(1, dtype=torch.float64), rows.zeros(), rows.zeros()
        assert len(quadrature._by_density(rows, zero, one)) == 0
        quadrature._by_quantile(rows, torch.arange(1), zero, two)
    size = [one[a, a].sqrt() for a in range(len(eta))]
    for (a, b), value in one.items():
        assert_allclose(value, two[a, b], rtol=1e-7, atol=1e-7 * float(size[a] * size[b]))


def test_angles_and_truncated_densities_are_integrated_over_their_quantiles():
    """A density that does not fall off, and one with an edge: E[s²] of the von Mises location is κ·A(κ)
    (Mardia and Jupp 2000, §5.3.2); that of the truncated normal's mean Var(y)/σ⁴."""
    from scipy.special import ive

    y = np.random.default_rng(0).vonmises(0.3, 2.0, 100)
    fit = th.fit("von_mises", {"y": y})
    k = fit.estimates["concentration"]
    (batch,) = fit.source.batches()
    assert_allclose(outer_products(fit.model, batch)[0, 0], k * ive(1, k) / ive(0, k), rtol=1e-7)

    z = np.abs(np.random.default_rng(0).normal(size=200)) + 0.5
    cut = th.fit("y ~ 1", {"y": z}, "truncated(normal)", low=0.5, scale=1.0)
    (batch,) = cut.source.batches()
    variance = cut.model.family.variance(*cut.model.parameters_at(batch), **cut.model.extras(batch))
    assert_allclose(outer_products(cut.model, batch)[0, 0], variance, rtol=1e-7)
