"""Every family of the registry, at every example: it is a probability, and all that it says of itself agrees.

The truths are sums and integrals of `log_prob` itself, scipy, and differences; a family is held to them once
it is registered.
"""

import itertools
import math

import pytest
import torch
from scipy import stats

from thetahat import families as f
from thetahat.families import links
from thetahat.families.base import Family

from .examples import EXAMPLES
from .probability import (
    D,
    at,
    close,
    draw,
    eta_of,
    has,
    moments,
    pieces,
    points,
    scattered,
    supported,
    tensor,
)

NAMES = {**f.registry, **f.wrappers}
CASES = [
    pytest.param(*case, id=f"{name}-{i}") for name, cases in EXAMPLES.items() for i, case in enumerate(cases)
]
every_case = pytest.mark.parametrize(("family", "parameters", "extras"), CASES)


def need(family, *methods):
    for method in methods:
        if not has(family, method):
            pytest.skip(f"no {method}")


@pytest.mark.parametrize("name", NAMES)
def test_every_registered_family_has_an_example(name):
    assert EXAMPLES.get(name), f"tests/families/examples.py has no entry for {name!r}"
    assert all(type(family) is NAMES[name] for family, _, _ in EXAMPLES[name])


@every_case
def test_probabilities_sum_or_integrate_to_one(family, parameters, extras):
    y, p = points(family, parameters, extras)
    missing = 0.0
    if family.measure == "mass" and math.isinf(family.support.high) and has(family, "cdf"):
        theta, rows = at(parameters, extras)
        missing = torch.exp(family.log_survival(y[-1:], *theta, **rows)).item()
    assert p.sum().item() + missing == pytest.approx(1.0, abs=1e-9 if family.measure == "mass" else 1e-7)


SCIPY = {
    "Normal": lambda mean, scale: stats.norm(mean, scale),
    "LogNormal": lambda location, scale: stats.lognorm(scale, scale=math.exp(location)),
    "Bernoulli": lambda mean: stats.bernoulli(mean),
    "Poisson": lambda mean: stats.poisson(mean),
    "Binomial": lambda mean, trials: stats.binom(trials, mean),
    "BetaBinomial": lambda mean, rho, trials: stats.betabinom(trials, mean / rho, (1 - mean) / rho),
    "NegativeBinomial": lambda mean, alpha: stats.nbinom(1 / alpha, 1 / (1 + alpha * mean)),
    "NegativeBinomial1": lambda mean, alpha: stats.nbinom(mean / alpha, 1 / (1 + alpha)),
    "Geometric": lambda mean: stats.geom(1 / (1 + mean), loc=-1),
    "StudentT": lambda location, scale, df: stats.t(df, location, scale),
    "Laplace": lambda location, scale: stats.laplace(location, scale),
    "Logistic": lambda location, scale: stats.logistic(location, scale),
    "HyperbolicSecant": lambda location, scale: stats.hypsecant(location, scale),
    "Gumbel": lambda location, scale: stats.gumbel_r(location, scale),
    "SkewNormal": lambda location, scale, shape: stats.skewnorm(shape, location, scale),
    "VonMises": lambda location, concentration: stats.vonmises(concentration, location),
    "Exponential": lambda mean: stats.expon(scale=mean),
    "Gamma": lambda mean, dispersion: stats.gamma(1 / dispersion, scale=mean * dispersion),
    "InverseGaussian": lambda mean, dispersion: stats.invgauss(mean * dispersion, scale=1 / dispersion),
    "Weibull": lambda scale, shape: stats.weibull_min(shape, scale=scale),
    "LogLogistic": lambda scale, shape: stats.fisk(shape, scale=scale),
    "Beta": lambda mean, precision: stats.beta(mean * precision, (1 - mean) * precision),
}


@every_case
def test_log_prob_and_cdf_are_those_of_scipy(family, parameters, extras):
    if type(family).__name__ not in SCIPY or min(map(abs, parameters[1:]), default=1.0) < 1e-5:
        pytest.skip("not in scipy, or not to many digits")
    theirs = SCIPY[type(family).__name__](*parameters, **extras)
    y = draw(family, parameters, extras, 50)
    theta, rows = at(parameters, extras, len(y))
    log_p = theirs.logpmf(y) if family.measure == "mass" else theirs.logpdf(y)
    close(family.log_prob(y, *theta, **rows), log_p, rtol=1e-9, atol=1e-11)
    if has(family, "cdf") and not isinstance(
        family, f.VonMises
    ):  # of which scipy has but a normal approximation
        close(family.cdf(y, *theta, **rows), theirs.cdf(y), rtol=1e-8)


@every_case
def test_derivatives_by_hand_are_the_automatic_ones(family, parameters, extras):
    y = draw(family, parameters, extras, 40)
    rows = at((), extras, 40)[1]
    for eta in (
        scattered(family, parameters, 40),
        [e[None] for e in eta_of(family, parameters)],
    ):  # by row, and constant: (1,)
        value, score, curvature = family.derivatives(y, eta, rows)
        expected = Family.derivatives(family, y, [e.expand(40) for e in eta], rows)
        close(value, expected[0])
        assert set(curvature) == set(expected[2])
        for ours, theirs in [
            *zip(score, expected[1], strict=True),
            *((curvature[k], expected[2][k]) for k in curvature),
        ]:
            assert torch.broadcast_shapes(ours.shape, (40,)) == (40,)
            close(ours, theirs, atol=1e-10)
        assert family.derivatives(y, eta, rows, order=1)[2] == {}


@every_case
def test_third_derivatives_by_hand_are_the_automatic_ones(family, parameters, extras):
    y = draw(family, parameters, extras, 40)
    rows = at((), extras, 40)[1]
    k = len(eta_of(family, parameters))
    generator = torch.Generator().manual_seed(3)
    v = {
        (a, b): torch.randn(40, dtype=D, generator=generator)
        for a, b in itertools.combinations_with_replacement(range(k), 2)
    }
    for eta in (scattered(family, parameters, 40), [e[None] for e in eta_of(family, parameters)]):
        expected = Family.third(family, y, [e.expand(40) for e in eta], v, rows)
        for ours, theirs in zip(family.third(y, eta, v, rows), expected, strict=True):
            close(ours, theirs, atol=1e-10)
        first = {(0, 0): v[0, 0]}
        for ours, theirs in zip(
            family.third(y, eta, first, rows), Family.third(family, y, eta, first, rows), strict=True
        ):
            close(ours, theirs, atol=1e-10)


@every_case
def test_third_derivatives_are_the_limits_of_differences_of_the_second(family, parameters, extras):
    """Log Γ and the incomplete functions have their first two derivatives given: a third that is traced through
    them would be short of a part."""
    y = draw(family, parameters, extras, 40)
    rows = at((), extras, 40)[1]
    eta = scattered(family, parameters, 40)
    curvature = family.derivatives(y, eta, rows)[2]
    one = torch.ones(40, dtype=D)
    v = dict.fromkeys(curvature, one)
    total, size = (
        sum((1 if a == b else 2) * move(c).expand(40) for (a, b), c in curvature.items())
        for move in (torch.clone, torch.abs)
    )
    for c, ours in enumerate(family.third(y, eta, v, rows)):
        h = 1e-5 * (1 + eta[c].abs())
        up, down = (
            family.derivatives(y, [e + s * h * (j == c) for j, e in enumerate(eta)], rows)[2] for s in (1, -1)
        )
        rise = sum((1 if a == b else 2) * (up[a, b] - down[a, b]).expand(40) / (2 * h) for a, b in curvature)
        smooth = (rise * h).abs() < 1e-2 * (1 + total.abs())  # no kink between them
        gap = (ours.expand(40) - rise).abs() / (1 + size + rise.abs())
        assert smooth.double().mean() > 0.9
        assert gap[smooth].quantile(0.9) < 1e-5


@every_case
def test_automatic_derivatives_are_the_limits_of_differences(family, parameters, extras):
    y = draw(family, parameters, extras, 40)
    rows = at((), extras, 40)[1]
    eta = scattered(family, parameters, 40)
    _, score, curvature = Family.derivatives(family, y, eta, rows)
    for a in range(len(eta)):
        h = 1e-5 * (1 + eta[a].abs())
        up, down = ([e + s * h * (j == a) for j, e in enumerate(eta)] for s in (1, -1))
        up, down = Family.derivatives(family, y, up, rows), Family.derivatives(family, y, down, rows)
        jump = torch.stack([(u - d).abs() for u, d in zip(up[1], down[1], strict=True)]).amax(0)
        smooth = jump < 1e-2 * (1 + torch.stack(score).abs().amax(0))  # no kink between them
        assert smooth.double().mean() > 0.9
        close(score[a][smooth], ((up[0] - down[0]) / (2 * h))[smooth], rtol=1e-6, atol=1e-6)
        for b in range(a, len(eta)):
            close(curvature[a, b][smooth], ((up[1][b] - down[1][b]) / (2 * h))[smooth], rtol=1e-5, atol=1e-6)


@every_case
def test_log_prob_eta_is_log_prob_through_the_links(family, parameters, extras):
    y = draw(family, parameters, extras, 40)
    rows = at((), extras, 40)[1]
    eta = scattered(family, parameters, 40)
    close(family.log_prob_eta(y, *eta, **rows), family.log_prob(y, *family.natural(eta), **rows), rtol=1e-8)
    constant = family.log_prob_eta(y, *(e[None] for e in eta_of(family, parameters)), **rows)
    close(constant, family.log_prob(y, *at(parameters, {}, 40)[0], **rows), rtol=1e-8)


@every_case
def test_expectation_and_variance_are_those_of_log_prob(family, parameters, extras):
    need(family, "expectation")
    theta, rows = at(parameters, extras)
    expected = family.expectation(*theta, **rows)[0]
    if not torch.isfinite(expected).all():
        return
    mean, variance = moments(family, parameters, extras)
    close(expected, mean, rtol=1e-6, atol=1e-6)
    if has(family, "variance") and torch.isfinite(theirs := family.variance(*theta, **rows)[0]).all():
        close(theirs, variance, rtol=1e-5, atol=1e-9)


@every_case
def test_samples_have_the_expectation_and_variance(family, parameters, extras):
    y = draw(family, parameters, extras, 20_000)
    assert supported(family, y, extras).all()
    need(family, "expectation", "variance")
    theta, rows = at(parameters, extras)
    mean, variance = family.expectation(*theta, **rows)[0], family.variance(*theta, **rows)[0]
    if not torch.isfinite(variance).all():
        return
    error = y - mean
    square = error**2 if y.ndim == 1 else error[:, :, None] * error[:, None, :]
    for sample, truth in ((error, 0.0), (square, variance)):
        assert ((sample.mean(0) - truth).abs() <= 5 * sample.std(0) / math.sqrt(len(y)) + 1e-12).all()


@every_case
def test_the_cdf_is_the_sum_or_integral_of_p(family, parameters, extras):
    need(family, "cdf")
    theta, _ = at(parameters, {})
    if family.measure == "mass":
        y, p = (x[:400] for x in points(family, parameters, extras))
        rows = at((), extras, len(y))[1]
        cdf = family.cdf(y, *theta, **rows)
        close(cdf, torch.cumsum(p, 0), atol=1e-10)
        close(family.cdf(y + 0.5, *theta, **rows), cdf)
        return
    for a, b, node, weight in itertools.islice(pieces(family, parameters, extras), 8):
        mass = (weight * torch.exp(family.log_prob(node, *theta, **at((), extras, len(node))[1]))).sum()
        value = family.cdf(torch.stack([a, b]), *theta, **at((), extras, 2)[1])
        close(value[1] - value[0], mass, rtol=1e-6, atol=1e-9)


@every_case
def test_log_cdf_and_log_survival_are_logs_of_the_cdf(family, parameters, extras):
    need(family, "cdf")
    y = draw(family, parameters, extras, 60)
    theta, rows = at(parameters, extras, len(y))
    cdf = family.cdf(y, *theta, **rows)
    assert ((cdf >= 0) & (cdf <= 1 + 1e-15)).all()
    close(torch.exp(family.log_cdf(y, *theta, **rows)), cdf)
    close(torch.exp(family.log_survival(y, *theta, **rows)), 1 - cdf, rtol=1e-7)


@every_case
def test_the_quantile_inverts_the_cdf(family, parameters, extras):
    need(family, "cdf", "quantile")
    q = torch.linspace(0.003, 0.997, 41, dtype=D)
    theta, rows = at(parameters, extras, len(q))
    y = family.quantile(q, *theta, **rows)
    cdf = family.cdf(y, *theta, **rows)
    if family.measure == "mass":
        assert (cdf >= q - 1e-12).all()
        assert (family.cdf(y - 1, *theta, **rows) < q + 1e-12).all()
    else:
        atom = (y == 0) & (family.measure == "mixed")
        close(cdf[~atom], q[~atom], rtol=1e-8)
        assert (cdf[atom] >= q[atom] - 1e-12).all()


@every_case
def test_what_is_outside_the_support_is_said_to_be(family, parameters, extras):
    inside = draw(family, parameters, extras, 200)
    assert supported(family, inside, extras).all()
    if inside.ndim > 1:
        assert not supported(family, torch.cat([inside[:5] * math.nan, inside[:5] + math.inf]), extras).any()
        return
    s = family.support
    outside = [math.nan, math.inf, -math.inf]
    outside += [s.low - 1, s.low - 0.5] if math.isfinite(s.low) else []
    outside += [s.high + 1, s.high + 0.5] if math.isfinite(s.high) else []
    outside += [0.5 + max(s.low, -100)] if s.integer else []
    outside += [s.low] if math.isfinite(s.low) and not s.closed[0] else []
    assert not supported(family, tensor(outside), extras).any()
    theta, rows = at(parameters, extras, len(outside) - 3)
    assert not torch.isfinite(family.log_prob(tensor(outside[3:]), *theta, **rows)).any()


@every_case
def test_start_is_inside_the_range_whatever_the_data(family, parameters, extras):
    y = draw(family, parameters, extras, 200)
    by = y if y.ndim == 1 else y[:, 0]
    low, high = y[by.argmin()][None], y[by.argmax()][None]
    samples = [y, low, high, torch.cat([low] * 5), torch.cat([high] * 5), torch.cat([low, high])]
    weights = [torch.ones(len(s), dtype=D) for s in samples]
    weights += [torch.cat([tensor([1.0]), torch.zeros(len(y) - 1, dtype=D)])]
    for sample, weight in zip([*samples, y], weights, strict=True):
        rows = at((), extras, len(sample))[1]
        start = family.start(sample, weight, **rows)
        for parameter, value in zip(family.parameters.values(), start, strict=True):
            assert isinstance(value, float)
            assert parameter.range.low < value < parameter.range.high
        assert torch.isfinite(
            family.log_prob(sample, *at(start, {}, len(sample))[0], **rows)[weight > 0]
        ).all()


@every_case
def test_a_family_that_claims_concavity_has_no_positive_curvature(family, parameters, extras):
    if not family.concave:
        return
    y = draw(family, parameters, extras, 300)
    eta = scattered(family, parameters, 300, spread=1.5)
    value, _, curvature = Family.derivatives(family, y, eta, at((), extras, 300)[1])
    k = len(eta)
    matrix = torch.stack([curvature[min(a, b), max(a, b)] for a in range(k) for b in range(k)], -1).reshape(
        -1, k, k
    )
    matrix = matrix[torch.isfinite(value)]
    largest = torch.linalg.eigvalsh(matrix)[:, -1]
    assert (largest <= 1e-9 * (1 + matrix.abs().amax((1, 2)))).all()


STRICT = (
    f.Bernoulli,
    f.Poisson,
    f.Binomial,
    f.Geometric,
)  # alone, truncated or with a hurdle: the cone is the whole of it


@every_case
def test_recession_directions_never_make_a_row_less_probable(family, parameters, extras):
    y = draw(family, parameters, extras, 200)
    rows = at((), extras, 200)[1]
    if family.measure != "mass" or (cone := family.recession(y, **rows)) is None:
        return
    A, equality = (x.to(D) for x in cone)
    eta = eta_of(family, parameters)
    part = (A != 0).any(1).any(0).to(D)
    strict = isinstance(family, STRICT) or (
        isinstance(family, (f.Truncated, f.Hurdle)) and isinstance(family.family, STRICT)
    )
    for d in itertools.product((-1.0, 0.0, 1.0), repeat=len(eta)):
        d = tensor(d) * part
        slack = A @ d
        inside = ((slack >= 0) & ((slack == 0) | (equality == 0))).all(1)
        path = torch.stack(
            [
                family.log_prob_eta(y, *(e + t * s for e, s in zip(eta, d, strict=True)), **rows)
                for t in (0, 1, 5, 20)
            ]
        )
        rise = (path[1:] - path[:-1])[:, inside]
        assert not (rise < -1e-9 * (1 + path[1:, inside].abs())).any()
        if strict:
            assert (path[:, ~inside].amin(0) < path[0, ~inside] - 1e-3).all()


@every_case
def test_no_derivative_is_nan_where_a_log_or_logit_link_is_far_out(family, parameters, extras):
    y = draw(family, parameters, extras, 20)
    rows = at((), extras, 20)[1]
    for a, parameter in enumerate(family.parameters.values()):
        if not isinstance(parameter.link, (links.Log, links.Logit)):
            continue
        for far, n in itertools.product((-30.0, 30.0), (1, 20)):
            eta = [(tensor(far) if j == a else e).expand(n) for j, e in enumerate(eta_of(family, parameters))]
            value, score, curvature = family.derivatives(y, eta, rows)
            assert not torch.isnan(value).any()
            for derivative in (*score, *curvature.values()):
                assert not torch.isnan(derivative.expand(20)[torch.isfinite(value)]).any(), (
                    list(family.parameters)[a],
                    far,
                )
