"""A mixture of copies of a family: the family itself, Bishop's formula, and models.Mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import thetahat as th
from thetahat import families as f
from thetahat.data import Batch
from thetahat.errors import BadArgument


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


GEYSER = np.concatenate(
    [np.random.default_rng(0).normal(2, 0.4, 60), np.random.default_rng(1).normal(4.5, 0.5, 90)]
)


@pytest.mark.parametrize(
    ("family", "theta"), [(f.Normal(), (0.3, 1.7)), (f.Gamma(), (2.5, 0.3)), (f.Poisson(), (2.5,))]
)
def test_one_copy_is_the_family(family, theta):
    y, theta = t(0.0, 1.0, 4.0) if family.measure == "mass" else t(0.2, 1.0, 4.0), [t(v) for v in theta]
    one = f.MixtureOf(family, 1)
    torch.testing.assert_close(one.log_prob(y, *theta), family.log_prob(y, *theta), rtol=1e-14, atol=0)
    torch.testing.assert_close(one.cdf(y, *theta), family.cdf(y, *theta), rtol=1e-14, atol=0)
    torch.testing.assert_close(one.variance(*theta), family.variance(*theta), rtol=1e-12, atol=0)
    assert [name.removesuffix("_0") for name in one.parameters] == list(family.parameters)


def test_the_density_is_the_weighted_sum_of_scipys():
    y = np.linspace(-4, 6, 31)
    pi = np.exp([0.0, 0.4, -1.0]) / np.exp([0.0, 0.4, -1.0]).sum()
    parts = [stats.norm(-1, 0.5), stats.norm(2, 1.7), stats.norm(4, 0.1)]
    theta = [t(v) for v in (-1, 0.5, 2, 1.7, 4, 0.1, 0.4, -1.0)]
    family = f.MixtureOf(f.Normal(), 3)
    np.testing.assert_allclose(
        family.log_prob(torch.tensor(y), *theta).exp(),
        sum(w * p.pdf(y) for w, p in zip(pi, parts, strict=True)),
    )
    np.testing.assert_allclose(
        family.cdf(torch.tensor(y), *theta), sum(w * p.cdf(y) for w, p in zip(pi, parts, strict=True))
    )
    r = family.responsibilities(torch.tensor(y), *theta)
    p = sum(w * part.pdf(y) for w, part in zip(pi, parts, strict=True))
    np.testing.assert_allclose(r[:, 1], pi[1] * parts[1].pdf(y) / p)
    np.testing.assert_allclose(r.sum(-1), 1.0)


def test_without_predictors_it_is_the_mixture_model():
    """models.Mixture at the same θ: log p of every row, and the maximum that EM finds is stationary for
    Newton here."""
    mixture = th.fit(th.models.Mixture("normal", 2), GEYSER, solver=th.EM(starts=3))
    value = mixture.estimates
    family = f.MixtureOf(f.Normal(), 2)
    theta = [t(value[n]) for n in ("0: mean", "0: scale", "1: mean", "1: scale")]
    logit = t(math.log(value["weight[1]"] / value["weight[0]"]))
    y = torch.tensor(GEYSER)
    rows = mixture.model.log_prob(next(iter(mixture.source.batches()))).detach()
    torch.testing.assert_close(family.log_prob(y, *theta, logit), rows, rtol=1e-12, atol=1e-12)
    own = th.fit(family, {"y": GEYSER})
    assert own.certificate.status == "certified maximum"
    assert own.log_likelihood == pytest.approx(mixture.log_likelihood, abs=1e-6)


def test_copies_with_lines_of_their_own_are_a_mixture_of_regressions():
    """Two lines that cross, constant scales and shares: the maximum that EM finds of
    models.mixture.regressions."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, 200)
    y = np.where(rng.random(200) < 0.4, 1 + 2 * x, -1 - x) + 0.3 * rng.normal(size=200)
    mixture, table = th.models.mixture.regressions("y ~ x", {"x": x, "y": y}, 2)
    best = th.fit(mixture, table, solver=th.EM(starts=5))
    model = th.models.Conditional(f.MixtureOf(f.Normal(), 2), Lines())
    fit = th.fit(model, {"x": x, "y": y})
    assert fit.certificate.status == "certified maximum"
    assert fit.log_likelihood == pytest.approx(best.log_likelihood, abs=1e-6)


def test_a_formula_with_the_family_by_name_is_a_mixture_of_regressions_that_can_be_saved(tmp_path):
    """EM over models.mixture.regressions; the first parameter of every copy has the formula's predictors."""
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, 200)
    y = np.where(rng.random(200) < 0.4, 1 + 2 * x, -1 - x) + 0.3 * rng.normal(size=200)
    data = {"x": x, "y": y}
    best = th.fit(*th.models.mixture.regressions("y ~ x", data, 2), solver=th.EM(starts=5))
    fit = th.fit("y ~ x", data, family="mixture_of(normal)")
    assert fit.certificate.status == "certified maximum"
    assert fit.log_likelihood == pytest.approx(best.log_likelihood, abs=1e-6)
    assert {"mean_0: x", "mean_1: x", "scale_0", "logit_1"} <= set(fit.estimates.index)
    again = th.load(fit.save(tmp_path / "mixture.thetahat"))
    assert again.estimates.equals(fit.estimates)


class Lines(torch.nn.Module):
    """Two lines with constant scales and shares, η (n, 5), begun near the truth."""

    def __init__(self):
        super().__init__()
        self.theta = torch.nn.Parameter(t(0.8, 1.5, -1.2, -0.5, -1.0, -1.0, 0.2))

    def forward(self, x):
        a, b, c, d, *rest = self.theta
        u, v, logit = (e.expand(len(x)) for e in rest)
        return torch.stack([a + b * x, u, c + d * x, v, logit], -1)


def test_a_mixture_density_network_learns_both_branches_of_an_inverse():
    """Bishop's example: y of x = y + 0.3 sin(2πy) + noise has three branches in the middle; one normal cannot
    say so."""
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 1, 600)
    x = y + 0.3 * np.sin(2 * np.pi * y) + 0.05 * rng.normal(size=600)
    data = {"x": x[:, None].astype(np.float32), "y": y.astype(np.float32)}
    solver = th.Stochastic(steps=400, batch_size=100, learning_rate=0.01, held_out=None)
    nats = {}
    for k in (1, 4):
        family = f.MixtureOf(f.Normal(), k)
        network = th.networks.mlp(1, 32, len(family.parameters), "tanh")
        fit = th.fit(th.models.Conditional(family, network), data, solver=solver)
        nats[k] = fit.log_likelihood / 600
    assert nats[4] > nats[1] + 0.3
    at = Batch({"x": torch.tensor([[0.5]])})
    grid = torch.linspace(-3, 4, 20_001, dtype=torch.float64)
    p = family.log_prob(grid, *(v.double() for v in fit.model.parameters_at(at))).exp()
    assert float(torch.trapezoid(p, grid)) == pytest.approx(1.0, abs=1e-6)
    assert float(family.cdf(t(0.5), *(v.double() for v in fit.model.parameters_at(at)))) == pytest.approx(
        float(torch.trapezoid(p[grid <= 0.5], grid[grid <= 0.5])), abs=1e-3
    )


def test_the_quantile_of_a_wide_gap_and_of_an_atom():
    """Between two distant peaks the cdf is flat at ½; a hurdle's zeros are an atom of the mixture too."""
    family = f.MixtureOf(f.Normal(), 2)
    theta = [t(v) for v in (-10, 0.1, 10, 0.1, 0.0)]
    q = family.quantile(t(0.25, 0.75), *theta)
    np.testing.assert_allclose(q, [-10, 10], atol=1e-9)
    hurdle = f.MixtureOf(f.Hurdle(f.LogNormal()), 2)
    theta = [t(v) for v in (0.0, 1.0, 0.6, 1.0, 1.0, 0.2, 0.0)]
    np.testing.assert_allclose(hurdle.quantile(t(0.39, 0.41), *theta) > 0, [False, True])


def test_an_impossible_row_has_probability_zero_and_no_nan_in_its_score():
    value, score, curvature = f.MixtureOf(f.Gamma(), 2).derivatives(
        t(-1.0, 2.0), [t(v) for v in (0.1, -1.0, 1.0, -1.0, 0.3)]
    )
    assert value[0] == -math.inf
    assert all(torch.isfinite(s).all() for s in [*score, *curvature.values()])


def test_draws_come_from_the_copies_in_their_shares():
    """5 sigma of a binomial share, rows with shares of their own."""
    n, shares = 20_000, torch.tensor([0.1, 0.7], dtype=torch.float64)
    logit = torch.log(shares / (1 - shares))[:, None].expand(2, n)
    theta = [t(v).expand(2, n) for v in (-10, 1, 10, 1)]
    drawn = f.MixtureOf(f.Normal(), 2).sample(*theta, logit, generator=torch.Generator().manual_seed(0))
    found = (drawn > 0).double().mean(1)
    assert ((found - shares).abs() < 5 * (shares * (1 - shares) / n).sqrt()).all()


@pytest.mark.parametrize(
    "name", ["mixture_of(normal)", "mixture_of_poisson", "censored(mixture_of(weibull))"]
)
def test_names_nest(name):
    assert "MixtureOf" in str(f.get(name))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: f.MixtureOf(f.Normal(), 0), "k=0 copies"),
        (lambda: f.MixtureOf(f.Normal(), 2.0), "k=2.0 copies"),
        (lambda: f.MixtureOf(f.MixtureOf(f.Normal())), "one such again"),
        (lambda: f.MixtureOf(f.Categorical(3)), "one such again"),
        (lambda: f.MixtureOf(f.Bernoulli()), "one such again"),
        (lambda: f.MixtureOf(f.VonMises()), "cut"),
        (lambda: f.MixtureOf(f.Dirichlet(3)), "single numbers"),
        (lambda: f.MixtureOf("normal"), "wraps a family"),
    ],
)
def test_what_cannot_be_mixed_is_refused(build, message):
    with pytest.raises(BadArgument, match=message):
        build()


def test_a_copy_on_one_row_is_no_maximum():
    """The likelihood of a normal mixture is unbounded where a copy sits on equal values: no number is made
    up."""
    y = np.concatenate([np.zeros(20), np.random.default_rng(0).normal(3, 1, size=40)])
    with pytest.raises(th.errors.FitError):
        th.fit(f.MixtureOf(f.Normal(), 2), {"y": y})


def test_frequency_weights_start_as_repeated_rows_do():
    family = f.MixtureOf(f.Normal(), 2)
    once, often = t(1.0, 2.0, 5.0, 6.0), t(1.0, 2.0, 2.0, 5.0, 6.0, 6.0)
    weighted = family.start(once, t(1.0, 2.0, 1.0, 2.0))
    np.testing.assert_allclose(weighted, family.start(often, torch.ones(6, dtype=torch.float64)))
