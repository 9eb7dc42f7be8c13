"""Latent variables of likelihoods of one's own: against the dense normal density, mixed models by formula, differences of
the log-likelihood, numerical integration, and R."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm, poisson

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective


@th.model(
    asymptote=200.0,
    middle=725.0,
    scale=350.0,
    sigma=th.positive(8.0),
    b=th.latent(by="Tree", sd=30.0),
    target="circumference",
)
def growth(batch, asymptote, middle, scale, sigma, b):  # type: ignore[no-untyped-def]
    mean = (asymptote + b) / (1 + torch.exp(-(batch["age"] - middle) / scale))
    return th.families.Normal().at(mean, sigma)


@pytest.fixture(scope="module")
def orange() -> pd.DataFrame:
    """Draper and Smith (1981), p. 524."""
    age = [118, 484, 664, 1004, 1231, 1372, 1582]
    trees = [
        [30, 58, 87, 115, 120, 142, 145],
        [33, 69, 111, 156, 172, 203, 203],
        [30, 51, 75, 108, 115, 139, 140],
        [32, 62, 112, 167, 179, 209, 214],
        [30, 49, 81, 125, 142, 174, 177],
    ]
    rows = [(f"tree {i}", a, c) for i, own in enumerate(trees, 1) for a, c in zip(age, own, strict=True)]
    return pd.DataFrame(rows, columns=["Tree", "age", "circumference"])


def dense(theta: np.ndarray, table: pd.DataFrame) -> float:
    """The mean is linear in b, so that y of a tree is normal."""
    asymptote, middle, scale, sigma, sd = theta
    total = 0.0
    for _, own in table.groupby("Tree"):
        w = 1 / (1 + np.exp(-(own["age"].to_numpy() - middle) / scale))
        V = sigma**2 * np.eye(len(w)) + sd**2 * np.outer(w, w)
        total += multivariate_normal(asymptote * w, V).logpdf(own["circumference"].to_numpy())
    return total


def test_growth_of_orange_trees_is_the_maximum_of_the_normal_density(orange: pd.DataFrame) -> None:
    """nlmer of lme4 1.1-31: 192.0528, 727.9045, 348.0721; 31.6463, 7.8430 (its own criterion stops short)."""
    fit = th.fit(growth, orange)
    theta = fit.estimates.to_numpy()
    assert fit.certificate.ok
    assert fit.log_likelihood == pytest.approx(dense(theta, orange), abs=1e-9)
    assert theta == pytest.approx([192.0528, 727.9045, 348.0721, 7.8430, 31.6463], rel=1e-5)
    for j in range(5):
        step = np.zeros(5)
        step[j] = 1e-4 * theta[j]
        slope = (dense(theta + step, orange) - dense(theta - step, orange)) / (2e-4)
        assert abs(slope) < 1e-4
    assert list(fit.estimates.index)[-1] == "sd(b | Tree)"
    again = th.fit(growth, orange, quadrature=5)
    assert again.log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-9)


def test_a_vector_of_latent_variables_is_the_mixed_model_of_the_formula() -> None:
    g = np.random.default_rng(7)
    who, days = np.repeat(np.arange(18), 10), np.tile(np.arange(10.0), 18)
    y = (
        250
        + 10 * days
        + 24 * g.normal(size=18)[who]
        + 6 * g.normal(size=18)[who] * days
        + 25 * g.normal(size=180)
    )
    table = pd.DataFrame({"Reaction": y, "Days": days, "Subject": [f"s{i:02d}" for i in who]})

    @th.model(
        a=250.0,
        d=10.0,
        sigma=th.positive(25.0),
        b=th.latent(by="Subject", sd=(24.0, 6.0), names=("Intercept", "Days")),
        target="Reaction",
    )
    def line(batch, a, d, sigma, b):  # type: ignore[no-untyped-def]
        days = batch["Days"]
        return th.families.Normal().at(a + d * days + b[:, 0] + b[:, 1] * days, sigma)

    own, formula = th.fit(line, table), th.fit("Reaction ~ Days + (Days | Subject)", table)
    assert own.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-8)
    assert own.estimates.to_numpy() == pytest.approx(formula.estimates.to_numpy(), rel=1e-6)
    assert own.standard_errors().to_numpy() == pytest.approx(formula.standard_errors().to_numpy(), rel=1e-5)
    assert list(own.estimates.index)[3:] == list(formula.estimates.index)[3:]
    mine, theirs = own.random_effects(), formula.random_effects()
    assert mine["mode"].to_numpy() == pytest.approx(theirs["mode"].to_numpy(), rel=1e-5, abs=1e-5)
    assert mine["standard_error"].to_numpy() == pytest.approx(theirs["standard_error"].to_numpy(), rel=1e-5)


def counts() -> pd.DataFrame:
    g = np.random.default_rng(3)
    subject, item = np.repeat(np.arange(30), 8), np.tile(np.arange(8), 30)
    x = g.normal(size=240)
    eta = 0.3 + 0.4 * x + 0.7 * g.normal(size=30)[subject] + 0.5 * g.normal(size=8)[item]
    return pd.DataFrame({"y": g.poisson(np.exp(eta)), "x": x, "subject": subject, "item": item})


@th.model(a=0.1, s=0.1, b=th.latent(by="subject", sd=0.5), c=th.latent(by="item", sd=0.5))
def crossed(batch, a, s, b, c):  # type: ignore[no-untyped-def]
    return th.families.Poisson().at(torch.exp(a + s * batch["x"] + b + c))


def test_crossed_latent_variables_are_the_formulas() -> None:
    table = counts()
    own = th.fit(crossed, table)
    formula = th.fit("y ~ x + (1 | subject) + (1 | item)", table, family="poisson")
    assert own.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-8)
    assert own.estimates.to_numpy() == pytest.approx(formula.estimates.to_numpy(), rel=1e-6)
    assert own.score().kind == "Laplace estimate"
    assert own.test_random("c").statistic == pytest.approx(formula.test_random("item").statistic, abs=1e-6)


@th.model(level=0.5, rate=th.positive(0.5), b=th.latent(by="g", sd=(0.5, 0.3)))
def decay(batch, level, rate, b):  # type: ignore[no-untyped-def]
    """Nonlinear in both components of b."""
    return th.families.Poisson().at(torch.exp(level + b[:, 0] - rate * torch.exp(b[:, 1]) * batch["t"]) + 0.5)


@th.model(level=0.5, spread=-1.0, rate=th.positive(0.3), b=th.latent(by="g", sd=(0.5, 0.3)))
def dispersed(batch, level, spread, rate, b):  # type: ignore[no-untyped-def]
    """log Γ of a shape that holds b has no third derivative that is traced."""
    mean = torch.exp(level + b[:, 0] - rate * batch["t"])
    return th.families.Gamma().at(mean, torch.exp(spread + b[:, 1]))


@pytest.mark.parametrize("own", [decay, dispersed], ids=["Poisson", "gamma"])
@pytest.mark.parametrize("quadrature", [1, 5])
def test_the_gradient_is_that_of_the_value(own, quadrature: int) -> None:  # type: ignore[no-untyped-def]
    """Fourth-order differences, at a θ that is not a maximum: the mode and the determinant move with θ."""
    g = np.random.default_rng(5)
    table = {
        "g": np.repeat(np.arange(12), 6),
        "t": np.tile(np.arange(6.0), 12),
        "y": 1.0 + g.poisson(2.0, 72),
    }
    model, source = own.bound(table)
    objective = Objective([LogLikelihood(model.with_points(quadrature), source)])
    near = model.start(source)
    theta = near + 0.1 * torch.randn(
        len(near), dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    gradient = objective.taylor(theta, order=1).gradient
    for j in range(len(theta)):
        h = torch.zeros_like(theta)
        h[j] = 1e-3
        value = [objective.value(theta + k * h) for k in (-2, -1, 1, 2)]
        slope = (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12e-3)
        assert float(gradient[j]) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("own", [decay, dispersed], ids=["Poisson", "gamma"])
@pytest.mark.parametrize("quadrature", [1, 5])
def test_the_information_is_that_of_the_gradient(own, quadrature: int) -> None:  # type: ignore[no-untyped-def]
    """Fourth-order differences of it, at a θ that is not a maximum, with weights. Poisson's by automatic differentiation;
    the gamma's, whose log Γ is given to second order, by differences."""
    g = np.random.default_rng(5)
    who, t = np.repeat(np.arange(12), 6), np.tile(np.arange(6.0), 12)
    y = g.poisson(np.exp(1.5 + 0.5 * g.normal(size=12)[who] - 0.3 * t)) + 1.0
    bound, source = own.bound({"g": who, "t": t, "y": y, "w": g.integers(1, 4, 72)}, "w")
    model = bound if quadrature == 1 else bound.with_points(quadrature)
    objective = Objective([LogLikelihood(model, source)])
    theta = model.start(source) + 0.05
    J = objective.taylor(theta, order=2).information.dense()
    rows = []
    for e in 2e-3 * torch.eye(len(theta), dtype=torch.float64):
        near = [objective.taylor(theta + k * e, order=1).gradient for k in (-2, -1, 1, 2)]
        rows.append(-(near[0] - 8 * near[1] + 8 * near[2] - near[3]) / (12 * 2e-3))
    size = J.diagonal().abs().sqrt()
    assert float(((J - torch.stack(rows)) / size / size[:, None]).abs().max()) < 1e-6
    evaluator = model.evaluator(source.whole, source.whole.count)
    p = len(model.coefficients)
    assert (evaluator.exact(theta[:p], theta[p:]) is None) == (own is dispersed)


def test_the_information_of_a_normal_density_is_exact(orange: pd.DataFrame) -> None:
    """The mean is linear in b: the Hessian of the dense normal density, by automatic differentiation."""
    fit = th.fit(growth, orange)
    age, y = (torch.tensor(orange[n].to_numpy(float)).view(5, 7) for n in ("age", "circumference"))

    def dense(theta: torch.Tensor) -> torch.Tensor:
        asymptote, middle, scale, log_sigma, sd = theta
        w = 1 / (1 + torch.exp(-(age - middle) / scale))
        V = torch.exp(2 * log_sigma) * torch.eye(7, dtype=torch.float64) + sd**2 * w[:, :, None] * w[:, None]
        return torch.distributions.MultivariateNormal(asymptote * w, V).log_prob(y).sum()

    H = -torch.autograd.functional.hessian(dense, fit.theta)
    size = H.diagonal().sqrt()
    J = fit.objective.taylor(fit.theta, order=2).information.dense()
    assert float(((J - H) / size / size[:, None]).abs().max()) < 1e-10


def test_quadrature_is_the_integral() -> None:
    table = {"g": [0, 0, 1, 1, 1, 2], "y": [3.0, 5.0, 0.0, 1.0, 0.0, 7.0]}

    @th.model(level=0.5, b=th.latent(by="g", sd=0.8))
    def own(batch, level, b):  # type: ignore[no-untyped-def]
        return th.families.Poisson().at(torch.exp(level + b) + 0.1)

    fit = th.fit(own, table, quadrature=60)
    level, sd = fit.estimates

    def group(y: list[float]) -> float:
        def f(b: float) -> float:
            mean = math.exp(level + b) + 0.1
            return float(np.prod(poisson.pmf(y, mean)) * norm.pdf(b, 0, sd))

        return math.log(quad(f, -12 * sd, 12 * sd, epsabs=0, epsrel=1e-11, limit=200)[0])

    total = group([3, 5]) + group([0, 1, 0]) + group([7])
    assert fit.log_likelihood == pytest.approx(total, abs=1e-8)
    assert th.fit(own, table).log_likelihood != pytest.approx(total, abs=1e-4)


def test_frequency_weights_repeat_rows() -> None:
    table = counts()
    weighted = th.fit(crossed, table.assign(w=2.0), weights="w")
    doubled = th.fit(crossed, pd.concat([table, table]))
    assert weighted.log_likelihood == pytest.approx(doubled.log_likelihood, abs=1e-8)
    assert weighted.estimates.to_numpy() == pytest.approx(doubled.estimates.to_numpy(), rel=1e-6)


def test_a_batch_keeps_its_counts() -> None:
    table = counts()
    columns = {name: torch.tensor(table[name].to_numpy(), dtype=torch.float64) for name in table}
    twice = th.data.Batch(columns, count=torch.full((len(table),), 2.0, dtype=torch.float64))
    weighted = th.fit(crossed, table.assign(w=2.0), weights="w")
    assert th.fit(crossed, twice).log_likelihood == pytest.approx(weighted.log_likelihood, abs=1e-8)


def test_one_dimension_has_one_standard_deviation_whatever_its_covariance_is_called() -> None:
    @th.model(a=0.1, b=th.latent(by="subject", covariance="cs"))
    def own(batch, a, b):  # type: ignore[no-untyped-def]
        return th.families.Poisson().at(torch.exp(a + b))

    formula = th.fit("y ~ (1 | subject)", counts(), family="poisson")
    assert th.fit(own, counts()).log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-8)


def test_a_latent_variable_that_is_not_needed_has_variance_0() -> None:
    g = np.random.default_rng(1)
    table = {
        "g": np.repeat(np.arange(20), 5),
        "y": np.tile([-1.0, -0.5, 0.1, 0.6, 0.9], 20) + 1e-3 * g.normal(size=100),
    }

    @th.model(level=0.0, sigma=th.positive(1.0), b=th.latent(by="g", sd=0.3))
    def own(batch, level, sigma, b):  # type: ignore[no-untyped-def]
        return th.families.Normal().at(level + b, sigma)

    fit = th.fit(own, table)
    assert fit.certificate.status == "boundary"
    assert fit.estimates["sd(b | g)"] < 1e-6
    assert "sd(b | g)" in fit.certificate.boundary


def test_a_function_that_mixes_rows_is_refused() -> None:
    @th.model(level=0.0, b=th.latent(by="g"))
    def mixed(batch, level, b):  # type: ignore[no-untyped-def]
        return th.families.Poisson().at(torch.exp(level + b.cumsum(0)))

    with pytest.raises(th.errors.ModelError, match="log p of row 2 changes where b of other rows does"):
        th.fit(mixed, {"g": [0, 1, 0, 1], "y": [1.0, 0.0, 2.0, 1.0]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: th.latent(by="g", sd=0.0), "starts above 0"),
        (lambda: th.latent(by="g", sd="wide"), "Accepted: a number above 0"),
        (lambda: th.latent(by="g", sd=(1.0, 2.0), names=("a",)), "one name each"),
        (lambda: th.latent(by="g", covariance="ar2"), "'us', 'diag', 'cs', 'ar1'"),
        (lambda: th.latent(by=3), "the name of a column"),
        (lambda: th.fit(crossed, counts().drop(columns="item")), "item"),
        (lambda: th.fit(crossed, counts().assign(item=1)), "one group only"),
        (
            lambda: th.fit(crossed, counts().assign(subject=lambda t: t["subject"].where(t.index != 4))),
            "row 4",
        ),
        (lambda: th.fit(crossed, counts(), quadrature=5), "one grouping factor"),
        (lambda: th.fit(crossed, counts(), reml=True), "reml=True is of a formula"),
        (lambda: th.fit(crossed, counts(), robust="trimmed:0.9"), "share what is not observed"),
        (lambda: th.fit(crossed, counts(), weights="w"), "'w'"),
    ],
)
def test_what_is_refused(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(th.errors.ThetahatError, match=message):
        make()


def test_several_dimensions_of_a_smaller_factor_are_refused() -> None:
    @th.model(a=0.1, b=th.latent(by="subject"), c=th.latent(by="item", sd=(1.0, 1.0)))
    def own(batch, a, b, c):  # type: ignore[no-untyped-def]
        return th.families.Poisson().at(torch.exp(a + b + c.sum(1)))

    with pytest.raises(th.errors.BadArgument, match="'subject'; of any other factor, one"):
        th.fit(own, counts())


@th.model(level=0.0, sigma=th.positive(1.0), b=th.latent(by="who", sd=1.0))
def _means(batch, level, sigma, b):  # type: ignore[no-untyped-def]
    return th.families.Normal().at(level + b, sigma)


@th.model(level=0.0, sigma=th.positive(1.0), b=th.latent(by="who", sd=1.0))
def _reads_text(batch, level, sigma, b):  # type: ignore[no-untyped-def]
    return th.families.Normal().at(level + batch["note"] + b, sigma)


def test_text_that_is_not_read_is_left_out_and_text_that_is_read_is_refused() -> None:
    rng = np.random.default_rng(0)
    who = np.repeat([f"p{i}" for i in range(10)], 4)
    table = pd.DataFrame(
        {"who": who, "note": list("ab") * 20, "y": np.repeat(rng.normal(size=10), 4) + rng.normal(size=40)}
    )
    fit, plain = th.fit(_means, table), th.fit(_means, table.drop(columns="note"))
    assert fit.estimates.equals(plain.estimates)
    new = table.drop(columns="y")
    np.testing.assert_array_equal(fit.predict(new), plain.predict(new.drop(columns="note")))
    with pytest.raises(th.errors.WrongType, match="'note' holds text, and your own model reads it"):
        th.fit(_reads_text, table)
