"""Regression's own sums against automatic differentiation of Σ w log p, over families × designs."""

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.kernels import compiled
from thetahat.models.base import get_theta, names_of, set_theta
from thetahat.models.formulas import regression
from thetahat.models.regression import NARROW
from thetahat.models.taylor import Taylor, scores

N = 400
CODES = {"wide": 90, "wider": 130}


@pytest.fixture(scope="module")
def frame():
    r = np.random.default_rng(5)
    out = {
        "x": r.normal(size=N),
        "z": r.uniform(0.5, 2, N),
        "g": r.choice(list("abc"), N),
        "w": r.integers(0, 3, N) * 0.5,
    }
    out |= {
        name: np.char.add(name[0], r.permutation(np.arange(N) % k).astype(str)) for name, k in CODES.items()
    }
    eta = 0.3 + 0.5 * out["x"]
    out |= {
        "count": r.poisson(np.exp(eta)).astype(float),
        "real": eta + r.normal(size=N),
        "amount": np.exp(eta) * r.gamma(2, 0.5, N),
        "yes": (r.random(N) < 0.5).astype(float),
        "kind": r.choice(["red", "green", "blue"], N),
        "share": r.beta(2, 3, N),
    }
    return pd.DataFrame(out)


RESPONSE = {
    "normal": "real",
    "student_t": "real",
    "poisson": "count",
    "negative_binomial": "count",
    "gamma": "amount",
    "bernoulli": "yes",
    "beta": "share",
    "categorical": "kind",
    "ordinal": "kind",
    "zero_inflated_poisson": "count",
}
DESIGNS = [
    "1",
    "x + z + g",
    "x + wide",
    "wide:x + g",
    "wide + wider + x",
    "x*wide",
    "0 + wide + offset(log(z))",
]
SETTINGS = {
    "plain": {},
    "weights": {"weights": "w"},
}


def built(family, design, frame, seed=0, **more):
    """A regression at a random θ near its start."""
    own = "ordinal(levels=('blue', 'green', 'red'))" if family == "ordinal" else family
    model, source = regression(f"{RESPONSE[family]} ~ {design}", frame, th.families.get(own), **more)
    noise = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    set_theta(model, model.start(source) + 0.1 * noise)
    return model, source.whole


class Plain(torch.nn.Module):
    """The same model with `log_prob` alone."""

    def __init__(self, model):
        super().__init__()
        self.coefficients, self.own = model.coefficients, [model]

    def log_prob(self, batch):
        return self.own[0].log_prob(batch)


def automatic(model, batch, weight):
    """Σ w log p, its gradient and its information, by reverse mode twice."""

    def total(theta):
        log_prob = torch.func.functional_call(model, {"coefficients": theta}, (batch,))
        return log_prob.sum() if weight is None else (log_prob * weight).sum()

    theta = get_theta(model).requires_grad_()
    value = total(theta)
    (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
    J = -torch.autograd.functional.hessian(total, theta.detach()) if len(theta) < 60 else None
    return value.detach(), gradient, theta, J


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("family", RESPONSE)
def test_taylor_is_automatic_differentiation_of_the_sum(frame, family, design, setting):
    """Value, gradient, and the information's product with random directions (all of it where it is small)."""
    model, batch = built(family, design, frame, **SETTINGS[setting])
    weight = batch.count if batch.counted else None
    ours = model.taylor(batch, weight)
    value, gradient, theta, J = automatic(model, batch, weight)
    torch.testing.assert_close(ours.value, value, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(ours.gradient, gradient.detach(), rtol=1e-9, atol=1e-9)
    for seed in range(3):
        v = torch.randn(len(theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (product,) = torch.autograd.grad(gradient @ v, theta, retain_graph=True, allow_unused=True)
        torch.testing.assert_close(ours.information.multiply(v), -product, rtol=1e-8, atol=1e-8)
    if J is not None:
        torch.testing.assert_close(ours.information.dense(), J, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_widest_category_is_eliminated_and_no_narrow_one(frame, design):
    model, batch = built("poisson", design, frame)
    widest = max((levels for p in model.predictors for _, _, levels in p.terms), default=0)
    J = model.taylor(batch).information
    assert (J.eliminated is not None) == (widest > NARROW)
    if J.eliminated is not None:
        assert len(J.D) == widest
        assert all("wide" in name for name in names_of(model)[J.eliminated])


@pytest.mark.parametrize(
    ("formula", "family", "more"),
    [
        ("real ~ x + wide", "normal", {"scale": "~ z + g"}),
        ("real ~ x + wide", "student_t", {"scale": "~ wide", "df": 5.0}),
        ("count ~ x", "negative_binomial", {"dispersion": "~ wide"}),
        ("count ~ x + g", "negative_binomial", {"dispersion": 0.7}),
        ("amount ~ x", "gamma", {"dispersion": "~ 0 + g"}),
        ("count ~ x", "zero_inflated_poisson", {"inflation": "~ z"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("weights", [None, "w"])
def test_taylor_with_predictors_for_every_parameter(frame, formula, family, more, weights):
    model, source = regression(formula, frame, th.families.get(family), parameters=more, weights=weights)
    batch = source.whole
    set_theta(model, model.start(source) + 0.05)
    weight = batch.count if weights else None
    ours = model.taylor(batch, weight)
    value, gradient, theta, _ = automatic(model, batch, weight)
    torch.testing.assert_close(ours.value, value, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(ours.gradient, gradient.detach(), rtol=1e-9, atol=1e-9)
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (product,) = torch.autograd.grad(gradient @ v, theta)
    torch.testing.assert_close(ours.information.multiply(v), -product, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("design", DESIGNS)
def test_blocks_add_to_the_whole(frame, design):
    model, batch = built("negative_binomial", design, frame)
    whole = model.taylor(batch)
    parts = [model.taylor(batch[a : a + 137]) for a in range(0, N, 137)]
    added = parts[0]
    for part in parts[1:]:
        added = added.accumulate(part)
    torch.testing.assert_close(added.gradient, whole.gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(added.information.dense(), whole.information.dense(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("design", DESIGNS)
def test_single_precision_steers_and_does_not_decide(frame, design, monkeypatch):
    """Where torch sums: the information within float32's rounding; value and gradient bit for bit those of float64."""
    monkeypatch.setattr(compiled, "available", lambda: False)
    model, batch = built("poisson", design, frame)
    exact, steering = model.taylor(batch), model.taylor(batch, precision=torch.float32)
    assert torch.equal(exact.value, steering.value)
    assert torch.equal(exact.gradient, steering.gradient)
    assert steering.information.A.dtype == torch.float64
    scale = exact.information.diagonal().sqrt()
    error = (steering.information.dense() - exact.information.dense()) / scale / scale[:, None]
    assert 0 < float(error.abs().max()) < 1e-5 or design == "1"


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("family", ["normal", "negative_binomial", "categorical"])
def test_scores_and_their_outer_product_are_those_of_automatic_differentiation(frame, family, design):
    model, batch = built(family, design, frame, weights="w")
    rows, few = model.scores(batch), batch[:30]
    by_row = torch.autograd.functional.jacobian(
        lambda theta: torch.func.functional_call(model, {"coefficients": theta}, (few,)), get_theta(model)
    )
    torch.testing.assert_close(rows[:30], by_row, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        (rows * batch.count[:, None]).sum(0), model.taylor(batch, batch.count, order=1).gradient
    )
    torch.testing.assert_close(
        model.outer(batch, batch.count).dense(), rows.T @ (rows * batch.count[:, None]), rtol=1e-8, atol=1e-9
    )
    torch.testing.assert_close(model.outer(batch).dense(), rows.T @ rows, rtol=1e-8, atol=1e-9)


def test_scores_of_any_model_are_a_row_each(frame):
    """`models.taylor.scores`, which differentiates `log_prob` alone, against the regression's own."""
    model, batch = built("negative_binomial", "x + g", frame)
    torch.testing.assert_close(scores(Plain(model), batch), model.scores(batch), rtol=1e-9, atol=1e-9)


def test_a_kinked_family_has_the_outer_product_of_its_scores_for_information(frame):
    """E[s sᵀ] = −E[∂² log p]: for Laplace the right side does not exist row by row."""
    model, source = regression("real ~ x", frame, th.families.Laplace())
    set_theta(model, model.start(source))
    torch.testing.assert_close(
        model.taylor(source.whole).information.dense(), model.outer(source.whole).dense()
    )


def test_holding_a_parameter_takes_it_out_of_theta_and_changes_nothing_else(frame):
    model, batch = built("negative_binomial", "x + g", frame)
    before, value = get_theta(model), model.log_prob(batch)
    j = names_of(model).index("dispersion")
    held = model.holding("dispersion", float(torch.exp(before[j])))
    assert "dispersion" not in names_of(held)
    torch.testing.assert_close(get_theta(held), before[torch.arange(len(before)) != j])
    torch.testing.assert_close(held.log_prob(batch), value)
    torch.testing.assert_close(get_theta(model), before)


def test_constants_are_reported_on_their_own_scale_and_predictors_on_their_links(frame):
    model, _ = built("negative_binomial", "x", frame)
    theta = get_theta(model)
    torch.testing.assert_close(model.natural(theta), torch.cat([theta[:2], theta[2:].exp()]))
    assert model.constants == [False, False, True]
    assert model.slopes == [False, True, False]
    spread, _ = regression(
        "count ~ x", frame, th.families.get("negative_binomial"), parameters={"dispersion": "~ z"}
    )
    assert names_of(spread) == ["Intercept", "x", "dispersion: Intercept", "dispersion: z"]
    assert torch.equal(spread.natural(get_theta(spread)), get_theta(spread))


def test_the_start_allows_for_the_offset(frame):
    """With a constant offset c, the start's intercept is lower by c."""
    model, source = regression("count ~ x", frame, th.families.Poisson())
    shifted, other = regression("count ~ x + offset(c)", frame.assign(c=3.0), th.families.Poisson())
    torch.testing.assert_close(model.start(source)[0] - 3.0, shifted.start(other)[0])


def test_a_taylor_is_added_in_place_where_it_can_be():
    a = Taylor(torch.tensor(1.0), torch.ones(2))
    assert float((a + a).value) == float(a.accumulate(a).value) == 2.0
