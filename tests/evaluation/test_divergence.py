"""Entropy, cross-entropy and KL: closed forms against integrals and sums, identities to rounding, estimates
against truth and their own error."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument, NotFinite
from thetahat.evaluation import kl_forms, neighbours
from thetahat.evaluation.divergence import cross_entropy, entropy, kl
from thetahat.families import Categorical, Family, MultivariateNormal, Normal

from ..families.examples import EXAMPLES

SCALARS = [
    (family, p, extras) for each in EXAMPLES.values() for family, p, extras in each if family.length is None
]


def pair(
    family: Family, parameters: tuple[float, ...], extras: dict[str, float], seed: int = 0
) -> tuple[tuple, tuple]:
    """The family at these parameters, and at others near them on the scale of their links."""
    rng, other = np.random.default_rng(seed), []
    for spec, value in zip(family.parameters.values(), parameters, strict=True):
        eta = spec.link(torch.tensor(value, dtype=torch.float64)) + 0.3 * rng.normal()
        other.append(float(spec.link.inverse(eta)))
    names = family.parameters
    return (family, dict(zip(names, parameters, strict=True)) | extras), (
        family,
        dict(zip(names, other, strict=True)) | extras,
    )


@pytest.mark.parametrize(
    ("family", "parameters", "extras"),
    [e for e in SCALARS if type(e[0]) in kl_forms.FORMS],
    ids=lambda e: str(e)[:40],
)
def test_every_formula_is_the_integral_or_the_sum(family, parameters, extras, monkeypatch):
    """KL by its formula, and by quadrature of p·(log p − log q): to 10⁻⁹ nats; across a kink (Laplace), a
    second-order rule, to 10⁻⁶."""
    p, q = pair(family, parameters, extras)
    by_formula = kl(p, q)
    monkeypatch.delitem(kl_forms.FORMS, type(family))
    integral = kl(p, q)
    assert (by_formula.method, integral.method) == (
        "a formula",
        "a sum" if family.measure == "mass" else "an integral",
    )
    assert by_formula.value == pytest.approx(integral.value, rel=1e-9, abs=1e-9 if family.smooth else 1e-6)
    assert by_formula.value > 0


def test_the_laplace_formula_is_scipys_integral():
    """scipy.integrate.quad, cut at the kinks, of p·(log p − log q): to 10⁻¹⁰."""
    p, q = stats.laplace(0.3, 1.7), stats.laplace(-0.6, 0.9)
    ends = [-60.0, -0.6, 0.3, 80.0]
    parts = [
        integrate.quad(lambda y: p.pdf(y) * (p.logpdf(y) - q.logpdf(y)), *cut, epsabs=1e-13)[0]
        for cut in itertools.pairwise(ends)
    ]
    assert kl(("laplace", (0.3, 1.7)), ("laplace", (-0.6, 0.9))).value == pytest.approx(sum(parts), abs=1e-10)


@pytest.mark.parametrize(("family", "parameters", "extras"), SCALARS[::3], ids=lambda e: str(e)[:40])
def test_cross_entropy_is_entropy_and_divergence(family, parameters, extras):
    """H(p, q) = H(p) + KL(p ‖ q), to the error of the rule; exactly so for masses."""
    if isinstance(family, th.families.Censored):
        with pytest.raises(BadArgument, match="how each row was observed"):
            entropy((family, dict(zip(family.parameters, parameters, strict=True)) | extras))
        return
    p, q = pair(family, parameters, extras)
    within = 1e-10 if family.smooth else 1e-5
    assert cross_entropy(p, q).value == pytest.approx(
        entropy(p).value + kl(p, q).value, rel=within, abs=within
    )


@pytest.mark.parametrize(
    "family", [MultivariateNormal(1), MultivariateNormal(2), MultivariateNormal(3)], ids=str
)
def test_normal_vectors_agree_with_draws_and_with_numbers(family):
    """Monte Carlo over 200,000 draws within four errors; of one component the normal's own formula; scipy's
    entropy."""
    (_, p), (_, q) = pair(family, EXAMPLES["multivariate_normal"][family.dim - 1][1], {})
    exact = kl((family, p), (family, q))
    tensors = [[torch.tensor(v, dtype=torch.float64) for v in each.values()] for each in (p, q)]
    y = family.sample(*[t.expand(200_000) for t in tensors[0]], generator=torch.Generator().manual_seed(0))
    d = family.log_prob(y, *tensors[0]) - family.log_prob(y, *tensors[1])
    assert abs(exact.value - float(d.mean())) < 4 * float(d.std()) / math.sqrt(len(d))
    if family.dim == 1:
        assert exact.value == pytest.approx(
            kl(("normal", tuple(p.values())), ("normal", tuple(q.values()))).value, rel=1e-12
        )
    covariance = family.variance(*tensors[0]).numpy()
    assert entropy((family, p)).value == pytest.approx(
        stats.multivariate_normal(cov=covariance).entropy(), rel=1e-12
    )


def test_the_dirichlet_of_two_shares_is_the_beta():
    """KL and entropy agree with the beta's."""
    two, beta = [(2.0, 3.5), (1.2, 0.7)], [("beta", (2.0 / 5.5, 5.5)), ("beta", (1.2 / 1.9, 1.9))]
    dirichlet = [(th.families.Dirichlet(2), each) for each in two]
    assert kl(*dirichlet).value == pytest.approx(kl(*beta).value, rel=1e-10)
    assert entropy(dirichlet[0]).value == pytest.approx(stats.beta(2.0, 3.5).entropy(), rel=1e-10)
    assert entropy(beta[0]).value == pytest.approx(stats.beta(2.0, 3.5).entropy(), rel=1e-9)


def test_entropies_are_scipys():
    """scipy.stats: entropy of its distributions, in nats."""
    known = {
        ("gamma", (2.5, 0.4)): stats.gamma(2.5, scale=1.0).entropy(),
        ("poisson", (3.0,)): stats.poisson(3.0).entropy(),
        ("student_t", (0.0, 2.0, 4.0)): stats.t(4.0, scale=2.0).entropy(),
        ("von_mises", (0.3, 2.0)): stats.vonmises(2.0).entropy(),
        ("laplace", (0.3, 1.7)): stats.laplace(scale=1.7).entropy(),
    }
    for p, H in known.items():
        assert entropy(p).value == pytest.approx(float(H), abs=2e-6), p


def test_the_chain_rule_of_divergence():
    """KL of a pair = KL of the first + the mean KL of the second given the first, to 1e-12: 3 × 4 tables, as
    categories."""
    rng = np.random.default_rng(1)
    P, Q = (rng.dirichlet(np.ones(12)).reshape(3, 4) for _ in range(2))

    def table(p: np.ndarray) -> tuple[Family, list[float]]:
        logits = np.log(p.reshape(-1))
        return Categorical(p.size), list(logits[1:] - logits[0])

    whole = kl(table(P), table(Q)).value
    first = kl(table(P.sum(1)), table(Q.sum(1))).value
    rest = sum(P[i].sum() * kl(table(P[i] / P[i].sum()), table(Q[i] / Q[i].sum())).value for i in range(3))
    assert whole == pytest.approx(first + rest, abs=1e-12)
    assert whole == pytest.approx(float((P * np.log(P / Q)).sum()), abs=1e-12)


def test_what_q_excludes_is_infinitely_far():
    """A truncated q gives zero to what p allows; the other way round it does not."""
    short = (th.families.Truncated(Normal(), low=0.0), (0.0, 1.0))
    assert kl(("normal", (0.0, 1.0)), short).value == math.inf
    assert kl(short, ("normal", (0.0, 1.0))).value == pytest.approx(math.log(2), rel=1e-6)


def test_a_mass_and_a_density_share_no_event():
    with pytest.raises(BadArgument, match="share no event"):
        kl(("poisson", (2.0,)), ("gamma", (2.0, 1.0)))


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (("gamma", (2.0,)), "received 1"),
        (("gamma", {"mean": 2.0, "disperson": 1.0}), "takes mean, dispersion"),
        (("gamma", (-2.0, 1.0)), "outside the range"),
    ],
)
def test_parameters_that_do_not_fit_the_family_are_named(p, message):
    with pytest.raises(BadArgument, match=message):
        kl(p, ("gamma", (1.0, 1.0)))


# ---- maximum likelihood is minimum divergence --------------------------------------------------------------


def test_the_largest_likelihood_is_the_smallest_divergence():
    """On a grid: −ℓ(θ)/n − H(shares) = KL(shares ‖ p_θ) at every θ, so that they have one argument; and it is
    the fit's."""
    y = np.random.default_rng(0).poisson(2.3, 300)
    values, count = np.unique(y, return_counts=True)
    share = count / len(y)
    H = entropy(y, method="plug_in").value
    grid = np.linspace(1.5, 3.5, 401)
    apart = np.array([(share * (np.log(share) - stats.poisson(m).logpmf(values))).sum() for m in grid])
    likelihood = np.array([-cross_entropy(y, ("poisson", (m,))).value for m in grid])
    np.testing.assert_allclose(-likelihood - H, apart, atol=1e-12)
    assert likelihood.argmax() == apart.argmin()
    fitted = th.fit("poisson", y).estimates["mean"]
    assert abs(grid[apart.argmin()] - fitted) <= 0.0025


def test_the_gradient_of_divergence_is_that_of_the_likelihood():
    """∂/∂θ of KL(shares ‖ p_θ) is −1/n ∂ℓ/∂θ, by automatic differentiation, for a categorical fit of 4
    shares."""
    counts = torch.tensor([5.0, 1.0, 3.0, 7.0], dtype=torch.float64)
    share = counts / counts.sum()
    eta = torch.tensor([0.2, -0.3, 0.9], dtype=torch.float64, requires_grad=True)
    log_p = torch.log_softmax(torch.cat([eta.new_zeros(1), eta]), 0)
    apart = (share * (share.log() - log_p)).sum()
    of_kl = torch.autograd.grad(apart, eta, retain_graph=True)[0]
    y = torch.repeat_interleave(torch.arange(4), counts.long()).double()
    of_likelihood = torch.autograd.grad(Categorical(4).log_prob(y, *[e.expand(16) for e in eta]).sum(), eta)[
        0
    ]
    torch.testing.assert_close(of_kl, -of_likelihood / 16, rtol=1e-12, atol=1e-14)


def test_the_wrong_family_goes_where_divergence_is_least():
    """A Poisson fitted to 20,000 draws of a negative binomial, mean 3: KL(p ‖ Poisson(m)) by the sum is
    least at m = 3, where the fit is."""
    p = ("negative_binomial", (3.0, 0.7))
    grid = np.linspace(2.8, 3.2, 9)
    assert grid[np.argmin([kl(p, ("poisson", (m,))).value for m in grid])] == pytest.approx(3.0)
    y = stats.nbinom(1 / 0.7, 1 / (1 + 0.7 * 3.0)).rvs(20_000, random_state=0)
    fit = th.fit("poisson", y)
    assert abs(fit.estimates["mean"] - 3.0) < 4 * fit.standard_errors("sandwich")["mean"]


# ---- fits --------------------------------------------------------------------------------------------------


def test_a_fit_is_a_distribution():
    """KL of two fits of the same formula: the normal's formula row by row, by hand."""
    rng = np.random.default_rng(2)
    data = {"x": rng.normal(size=50), "y": rng.normal(size=50)}
    a, b = th.fit("y ~ x", data), th.fit("y ~ 1", data)
    m, s = a.predict(), a.estimates["scale"]
    n, t = b.predict(), b.estimates["scale"]
    by_hand = np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5
    found = kl(a, b, data=data)
    assert found.value == pytest.approx(by_hand.mean(), rel=1e-12)
    assert "50 rows" in found.method
    assert cross_entropy(data, a).value == pytest.approx(-a.log_likelihood / 50, rel=1e-12)
    with pytest.raises(BadArgument, match="at which rows"):
        kl(a, b)


def test_a_mixture_is_drawn_from():
    """KL(mixture ‖ normal) within four errors of the integral on a grid."""
    y = np.random.default_rng(3).normal(size=400) + 4 * (np.arange(400) % 2)
    mixture, normal = th.fit(th.models.Mixture("normal", 2), y), th.fit("normal", y)
    grid = torch.linspace(-8, 12, 20_001, dtype=torch.float64)
    with torch.no_grad():
        log_p, log_q = (f.model.log_prob(th.data.Batch({"y": grid})) for f in (mixture, normal))
    integral = float((log_p.exp() * (log_p - log_q)).sum() * 1e-3)
    found = kl(mixture, normal)
    assert found.method == "20,000 draws"
    assert abs(found.value - integral) < 4 * found.standard_error < 0.05


def test_what_a_bound_knows_is_no_divergence():
    class Bound(th.models.Model):
        kind = "lower bound"

        def log_prob(self, batch: th.data.Batch) -> torch.Tensor:
            return torch.zeros(batch.shape)

    with pytest.raises(BadArgument, match="lower bound only"):
        entropy(Bound())


# ---- samples -----------------------------------------------------------------------------------------------


def test_the_chain_rule_of_entropy():
    """H(x, y) = H(x) + H(y | x) of shares, to rounding, and with Miller and Madow's correction too."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    for method in ("plug_in", "miller_madow"):
        parts = entropy(x, method=method).value + entropy(y, given=x, method=method).value
        both = entropy(np.stack([x, y], 1), method=method).value
        assert both == pytest.approx(parts, abs=1e-12)
    assert entropy(x, method="plug_in").value == pytest.approx(stats.entropy(np.bincount(x)), abs=1e-14)


def test_text_repeats_and_counts_are_the_same_observations():
    """Levels or codes; rows repeated or counted."""
    rows = Tensors({"y": torch.tensor([0.0, 1.0, 2.0])}, count=torch.tensor([3.0, 2.0, 5.0]))
    text = np.repeat(["a", "b", "c"], [3, 2, 5])
    assert entropy(rows) == entropy(text) == entropy(np.repeat([4.0, 9.0, 1.0], [3, 2, 5]))


@pytest.mark.parametrize(
    ("share", "above"), [((0.5, 0.3, 0.2), 1.05), ((0.25, 0.25, 0.25, 0.25), 1.3)], ids=str
)
def test_the_error_of_shares_is_calibrated(share, above):
    """Of 2000 samples of 300: the error is their spread, and up to 1.3 of it for equal shares, of first-order
    variance 0; bias under a tenth."""
    rng, H = np.random.default_rng(0), stats.entropy(share)
    found = [entropy(np.repeat(np.arange(len(share)), c)) for c in rng.multinomial(300, share, 2000)]
    values, errors = np.array([f.value for f in found]), np.array([f.standard_error for f in found])
    assert 0.95 < errors.mean() / values.std() < above
    assert abs(values.mean() - H) < 0.1 * errors.mean()


@pytest.mark.parametrize(
    ("name", "draw", "H"),
    [
        ("normal", lambda g, n: g.normal(size=n), 0.5 * math.log(2 * math.pi * math.e)),
        ("uniform", lambda g, n: g.random(n), 0.0),
        ("exponential", lambda g, n: 3 * g.exponential(size=n), 1 + math.log(3)),
        (
            "two normals",
            lambda g, n: g.normal(size=(n, 2)) @ [[1.0, 0.5], [0.0, 20.0]],
            math.log(2 * math.pi * math.e * 20),
        ),
    ],
)
def test_the_error_of_neighbours_is_calibrated(name, draw, H):
    """200 samples of 1000: 95 % intervals hold the truth 90 to 99 times in 100."""
    rng = np.random.default_rng(0)
    found = [entropy(draw(rng, 1000)) for _ in range(200)]
    inside = np.mean([abs(f.value - H) < 1.96 * f.standard_error for f in found])
    assert 0.90 <= inside <= 0.99
    assert "neighbours" in found[0].method


def test_conditional_entropy_of_numbers():
    """y = x + noise: H(y | x) is the noise's, ½ log 2πe·0.25, within four errors; and it is not H(y)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    found = entropy(x + 0.5 * rng.normal(size=3000), given=x)
    truth = 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert abs(found.value - truth) < 4 * found.standard_error < 0.15


def test_conditional_entropy_within_groups():
    """y of spread 1 in one group and 4 in the other, text or codes: the mean of ½ log 2πe and of that plus
    log 4, within four errors."""
    rng = np.random.default_rng(1)
    group = rng.choice(["a", "b"], 1500)
    y = rng.normal(size=1500) * np.where(group == "a", 1.0, 4.0)
    found, truth = (
        entropy(y, given=group),
        0.5 * math.log(2 * math.pi * math.e) + (group == "b").mean() * math.log(4),
    )
    assert abs(found.value - truth) < 4 * found.standard_error < 0.2
    assert "of its group" in found.method
    assert entropy(y, given=(group == "a").astype(int)).value == pytest.approx(found.value, rel=1e-12)


def test_divergence_of_two_samples():
    """Wang, Kulkarni and Verdú's estimator: N(1, 1) from N(0, 1) is ½, and 0 from itself, each within
    three of its errors."""
    rng = np.random.default_rng(1)
    for shift in (1.0, 0.0):
        found = kl(rng.normal(shift, 1, 1500), rng.normal(0, 1, 1500))
        assert abs(found.value - shift**2 / 2) < 3 * found.standard_error < 0.25


def test_rounded_numbers_have_no_entropy_from_a_sample():
    rounded = np.random.default_rng(0).normal(size=200).round(1)
    with pytest.raises(BadArgument, match="discrete, or rounded"):
        entropy(rounded)
    with pytest.raises(BadArgument, match="repeat others"):
        entropy(rounded, method="neighbours")
    assert entropy(rounded, method="plug_in").value > 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: entropy(np.random.default_rng(0).normal(size=(50, 6))), BadArgument, "6 columns"),
        (lambda: entropy(np.array([0.1, 0.2, 0.3])), BadArgument, "3 rows"),
        (lambda: entropy(np.array([0.1, math.nan, *np.linspace(1, 2, 20)])), NotFinite, "row 1"),
        (lambda: entropy([1, 2], method="bayes"), BadArgument, "Accepted: 'plug_in'"),
        (lambda: entropy([1, 2, 1], given=[1, 2]), BadArgument, "2 rows"),
        (
            lambda: entropy([0, 1] * 10, given=np.random.default_rng(0).normal(size=20)),
            BadArgument,
            "is discrete",
        ),
        (
            lambda: entropy(np.random.default_rng(0).normal(size=20), given=[0, 1] * 10),
            BadArgument,
            "10 rows",
        ),
        (lambda: kl(np.arange(9.0), ("normal", (0.0, 1.0))), BadArgument, "fit.lack_of_fit"),
        (lambda: cross_entropy([1.0], "normal"), BadArgument, "not a distribution"),
    ],
)
def test_what_cannot_be_estimated_is_refused_with_the_reason(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_neighbours_noise_is_not_independent():
    """What is added to the variance of a mean is positive: neighbours share their distances."""
    assert all(neighbours.noise(100, d) > 0 for d in neighbours.SHARED)


# ---- how far from the best possible ------------------------------------------------------------------------


def test_the_excess_of_a_mass_is_half_the_deviance():
    """2n·excess is the residual deviance of the grouped data against the saturated model: statsmodels'
    Binomial GLM of the groups."""
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 500)
    y = (rng.random(500) < 0.2 + 0.1 * x).astype(float)
    found = th.fit("y ~ x", {"x": x, "y": y}, family="bernoulli").lack_of_fit()
    ones, rows = np.bincount(x, y), np.bincount(x)
    glm = sm.GLM(
        np.stack([ones, rows - ones], 1), sm.add_constant(np.arange(6.0)), family=sm.families.Binomial()
    ).fit()
    assert 2 * 500 * found.value == pytest.approx(glm.deviance, rel=1e-8)
    assert found.chance == pytest.approx(glm.df_resid / 1000)


def test_the_saturated_model_has_no_excess():
    x = np.arange(60) % 3
    fit = th.fit("y ~ C(x)", {"x": x, "y": (np.arange(60) % 7 < 3 + x).astype(float)}, family="bernoulli")
    assert fit.lack_of_fit().value == pytest.approx(0.0, abs=1e-12)
    assert "no model of these predictors is better here" in " ".join(str(fit.summary()).split())


def test_counted_rows_have_the_excess_of_repeated_ones():
    counted = th.fit(
        "y ~ 1", {"y": [0, 1, 2, 3], "w": [30, 25, 5, 8]}, family="poisson", weights="w"
    ).lack_of_fit()
    repeated = th.fit("y ~ 1", {"y": np.repeat([0, 1, 2, 3], [30, 25, 5, 8])}, family="poisson").lack_of_fit()
    assert counted.value == pytest.approx(repeated.value, rel=1e-12)


def test_the_excess_of_a_density_is_its_divergence():
    """A normal fitted to 3000 draws of a Laplace: KL(Laplace ‖ N(0, √2)) by its integral, within three paired
    errors, well below those of either."""
    y = np.random.default_rng(0).laplace(size=3000)
    found = th.fit("normal", y).lack_of_fit()
    truth = kl(("laplace", (0.0, 1.0)), ("normal", (0.0, math.sqrt(2)))).value
    assert abs(found.value - truth) < 3 * found.standard_error
    assert found.standard_error < found.entropy_error
    assert "nats a row from the best possible" in " ".join(str(th.fit("normal", y).summary()).split())


def test_a_density_given_groups_has_an_excess():
    """Spread 1 and 4 in two groups: one scale for both is KL away by the normal's formula; a scale of each
    group is not."""
    rng = np.random.default_rng(2)
    g = np.arange(3000) % 2
    data = {"y": rng.normal(size=3000) * np.where(g, 4.0, 1.0), "g": g.astype(str)}
    both = math.sqrt((1 + 16) / 2)
    truth = np.mean([kl(("normal", (0.0, s)), ("normal", (0.0, both))).value for s in (1.0, 4.0)])
    one, each = th.fit("y ~ g", data).lack_of_fit(), th.fit("y ~ g", data, scale="~ g").lack_of_fit()
    assert abs(one.value - truth) < 4 * one.standard_error < 0.2
    assert abs(each.value) < 3 * each.standard_error


def test_no_excess_is_claimed_where_the_entropy_is_not_known():
    """A density given predictors; predictors that do not repeat; rounded numbers; many rows."""
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=80),
        "y": rng.normal(size=80),
        "b": (rng.random(80) < 0.5).astype(float),
        "r": rng.normal(size=80).round(1),
    }
    for formula, family in (("y ~ x", "normal"), ("b ~ x", "bernoulli"), ("r ~ 1", "normal")):
        fit = th.fit(formula, data, family=family)
        assert fit.summary().to_dict()["lack_of_fit"] is None
        with pytest.raises(BadArgument):
            fit.lack_of_fit()
