"""A family with a network: the same likelihood as a formula where the network is linear."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

import thetahat as th
from thetahat.data import Batch
from thetahat.errors import BadArgument, ModelError
from thetahat.models.base import set_theta
from thetahat.models.density import density
from thetahat.models.formulas import regression

from ..families.examples import EXAMPLES
from ..families.probability import draw, eta_of


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, y


def linear(inputs: int, outputs: int) -> torch.nn.Module:
    return th.networks.mlp(inputs, (), outputs, dtype=torch.float64)


def test_newton_over_a_linear_network_is_multinomial_regression(iris):
    """The maximum of `species ~ sepal length` by the formula's blocked Newton: the same to 1e-6 nats, by
    Newton and by L-BFGS."""
    X, y = iris
    formula = th.fit("species ~ length", {"length": X[:, 0], "species": y}, family="categorical")
    for solver in (None, th.Newton(), th.LBFGS()):
        fit = th.fit(
            th.models.Conditional(th.families.Categorical(3), linear(1, 2)),
            {"x": X[:, :1], "y": y},
            solver=solver,
        )
        assert fit.certificate.status == "certified maximum"
        assert fit.certificate.concave
        assert fit.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-6)
    weight, bias = (p.detach() for p in fit.model.network.parameters())
    found = {
        f"{k}: {n}": float(v)
        for k, b, w in zip((1, 2), bias, weight[:, 0], strict=True)
        for n, v in (("Intercept", b), ("length", w))
    }
    for name, value in formula.estimates.items():
        assert found[str(name)] == pytest.approx(value, rel=1e-5)


def test_a_network_without_hidden_layer_is_poisson_regression_with_standard_errors():
    """The formula's estimates and standard errors, from the same observed information."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=200), rng.normal(size=200)
    y = rng.poisson(np.exp(0.3 + 0.5 * x - 0.2 * z)).astype(float)
    formula = th.fit("y ~ x + z", {"x": x, "z": z, "y": y}, family="poisson")
    model = th.models.Conditional(th.families.Poisson(), linear(2, 1), inputs=["x", "z"])
    fit = th.fit(model, {"x": x, "z": z, "y": y})
    order = [2, 0, 1]  # bias last in the network, first in the formula
    np.testing.assert_allclose(fit.estimates.to_numpy()[order], formula.estimates.to_numpy(), rtol=1e-8)
    errors = fit.objective.taylor(fit.theta).information.factor().inverse_diagonal().sqrt()
    np.testing.assert_allclose(errors[order], formula.standard_errors().to_numpy(), rtol=1e-7)


def test_several_parameters_come_from_one_network():
    """Normal(mean, scale) with both linear in x: the formula y ~ x, scale='~ x'."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=300)
    y = 1 + 2 * x + np.exp(0.2 + 0.4 * x) * rng.normal(size=300)
    formula = th.fit("y ~ x", {"x": x, "y": y}, scale="~ x")
    fit = th.fit(th.models.Conditional(th.families.Normal(), linear(1, 2)), {"x": x[:, None], "y": y})
    assert fit.certificate.status == "certified maximum"
    assert fit.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-8)
    batch = Batch({"x": torch.tensor([[0.5]], dtype=torch.float64)})
    mean = formula.estimates["Intercept"] + 0.5 * formula.estimates["x"]
    assert float(fit.model.mean(batch)) == pytest.approx(mean, rel=1e-6)


def test_k_logits_and_k_minus_one_log_odds_are_the_same_model(iris):
    """Softmax is invariant to a shift: logits less the first are log-odds against it."""
    X, y = iris
    batch = Batch({"x": torch.from_numpy(X), "y": torch.from_numpy(y)})
    full, odds = linear(4, 3), linear(4, 2)
    with torch.no_grad():
        odds[0].weight.copy_(full[0].weight[1:] - full[0].weight[0])
        odds[0].bias.copy_(full[0].bias[1:] - full[0].bias[0])
    models = [th.models.Conditional(th.families.Categorical(3), net) for net in (full, odds)]
    torch.testing.assert_close(models[0].log_prob(batch), models[1].log_prob(batch), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        models[0].probabilities(batch), models[1].probabilities(batch), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(models[0].probabilities(batch).sum(-1), torch.ones(150, dtype=torch.float64))


def test_samples_have_the_probabilities(iris):
    """5 sigma of a binomial proportion, 20,000 draws."""
    model = th.models.Conditional(th.families.Categorical(3), linear(4, 3))
    x = torch.from_numpy(iris[0][:1]).expand(20_000, 4)
    drawn = model.sample(Batch({"x": x}), generator=torch.Generator().manual_seed(0))
    p = model.probabilities(Batch({"x": x[:1]}))[0]
    for j in range(3):
        assert float((drawn == j).double().mean()) == pytest.approx(
            float(p[j]), abs=5 * float((p[j] * (1 - p[j]) / 20_000).sqrt())
        )


def test_a_prior_is_on_weights_and_not_on_biases(iris):
    """The maximum a posteriori of the formula with the same prior."""
    X, y = iris
    prior = th.priors.Normal(1.0)
    columns = dict(zip("abcd", X.T, strict=True))
    formula = th.fit("y ~ a + b + c + d", columns | {"y": y}, family="categorical", prior=prior)
    fit = th.fit(
        th.models.Conditional(th.families.Categorical(3), linear(4, 2)), {"x": X, "y": y}, prior=prior
    )
    assert fit.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-6)


def test_a_network_of_the_wrong_width_is_named():
    model = th.models.Conditional(th.families.Normal(), linear(2, 3))
    with pytest.raises(ModelError, match=r"\(5, 3\).*mean, scale.*\(5, 2\)"):
        model.log_prob(Batch({"x": torch.zeros(5, 2), "y": torch.zeros(5)}))
    with pytest.raises(BadArgument, match="family is str"):
        th.models.Conditional("normal", linear(2, 2))


# ---- every family ------------------------------------------------------------------------------------------

N = 40
CASES = [
    pytest.param(*case, id=f"{name}-{i}") for name, cases in EXAMPLES.items() for i, case in enumerate(cases)
]


def table(family, parameters, extras):
    """Two predictors, a response drawn from the family at its example, and its extras."""
    rng = np.random.default_rng(0)
    y = draw(family, parameters, extras, N).numpy()
    return {"y": y, "x": rng.normal(size=N), "z": rng.normal(size=N)} | {
        name: np.full(N, v) for name, v in extras.items()
    }


@pytest.mark.parametrize(("family", "parameters", "extras"), CASES)
def test_a_linear_network_has_the_log_likelihood_of_the_formula(family, parameters, extras):
    """η_j = b_j + W_j x of every parameter, read off one network, and by the formula's designs: at the
    same θ, row by row."""
    data = table(family, parameters, extras)
    batch = Batch({name: torch.tensor(v) for name, v in data.items()})
    k, generator = len(family.parameters), torch.Generator().manual_seed(1)
    bias = torch.stack(eta_of(family, parameters))
    net = linear(2, k)
    with torch.no_grad():
        net[0].bias.copy_(bias)
        net[0].weight.copy_(0.05 * torch.randn(k, 2, generator=generator, dtype=torch.float64))
    model = th.models.Conditional(family, net, inputs=["x", "z"])
    if family.length is not None:  # a vector: no formula says it, a density does
        with torch.no_grad():
            net[0].weight.zero_()
        other, source = density(family, data["y"])
        set_theta(other, bias)
    else:
        if hasattr(family, "probabilities"):  # every category must occur, or the formula knows fewer
            data["y"] = (np.arange(N) % (family.support.high + 1)).astype(float)
            batch = Batch({name: torch.tensor(v) for name, v in data.items()})
        rest = list(family.parameters)[1:]
        further = {name: "~ x + z" for name in rest if not family.parameters[name].own_predictors} | {
            name: name for name in extras
        }
        seen = {name for name in extras if name in family.outcome}  # what Surv(…) says
        further = {name: text for name, text in further.items() if name not in seen}
        other, source = regression(
            f"{'Surv(y, event)' if seen else 'y'} ~ x + z", data, family, parameters=further
        )
        theta = []
        for j, name in enumerate(family.parameters):
            p = next(p for p in other.predictors if p.parameter == name)
            theta += ([net[0].bias[j : j + 1]] if p.design.intercept else []) + [net[0].weight[j]]
            if not p.design.intercept:
                with torch.no_grad():
                    net[0].bias[j] = 0.0
        set_theta(other, torch.cat(theta).detach())
    expected = torch.cat([other.log_prob(b) for b in source.batches()]).detach()
    torch.testing.assert_close(model.log_prob(batch).detach(), expected, rtol=1e-10, atol=1e-10)
    assert model.measure == other.measure


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("gamma", (2.0, 0.3)),
        ("negative_binomial", (4.0, 0.5)),
        ("beta", (0.3, 8.0)),
        ("weibull", (2.0, 1.5)),
        ("logistic", (0.3, 1.0)),
        ("zero_inflated_poisson", (4.0, 0.3)),
    ],
)
def test_newton_over_a_linear_network_is_the_formula_for_several_parameters(family, parameters):
    """Both parameters linear in x and z: the maximum of the formula to 1e-6 nats."""
    family = th.families.get(family)
    rng = np.random.default_rng(2)
    n = 300
    x, z = rng.normal(size=n), rng.normal(size=n)
    first, second = (
        e + c * torch.tensor(x) for e, c in zip(eta_of(family, parameters), (0.3, -0.2), strict=True)
    )
    y = family.sample(*family.natural([first, second]), generator=torch.Generator().manual_seed(0)).numpy()
    data = {"x": x, "z": z, "y": y}
    formula = th.fit("y ~ x + z", data, family, **{list(family.parameters)[1]: "~ x + z"})
    fit = th.fit(th.models.Conditional(family, linear(2, 2), inputs=["x", "z"]), data)
    assert fit.certificate.status == "certified maximum"
    assert fit.log_likelihood == pytest.approx(formula.log_likelihood, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "y", "said"),
    [
        (
            th.families.Ordinal(3),
            torch.eye(3)[[0, 1, 2, 0]].long(),
            r"shape \(4, 3\).*Accepted: \(4,\). Of one-hot rows: y.argmax\(-1\)",
        ),
        (th.families.Categorical(3), torch.zeros(4, 1).long(), r"shape \(4, 1\).*y\[..., 0\] is such"),
        (
            th.families.Normal(),
            torch.zeros(4, 1),
            r"shape \(4, 1\), and Normal\(\) describes one number a row.*y\[..., 0\] is such",
        ),
        (th.families.Poisson(), torch.zeros(4, 2), r"shape \(4, 2\)"),
        (
            th.families.MultivariateNormal(2),
            torch.zeros(4, 3),
            r"shape \(4, 3\).*a vector of 2 a row. Accepted: \(4, 2\)",
        ),
        (th.families.MultivariateNormal(2), torch.zeros(4), r"shape \(4,\).*Accepted: \(4, 2\)"),
    ],
)
def test_a_response_of_another_shape_is_refused_and_not_broadcast(family, y, said):
    """(n, 1) against (n,) would be n² terms."""
    k = len(family.parameters)
    model = th.models.Conditional(family, torch.nn.Linear(2, k))
    with pytest.raises(ModelError, match=said):
        model.log_prob(Batch({"x": torch.zeros(4, 2), "y": y}))
    if not hasattr(family, "probabilities"):
        with pytest.raises(ModelError, match=said):
            th.models.Density(family).log_prob(Batch({"y": y}))
