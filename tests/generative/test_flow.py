"""Flows of zuko as models: a flow is a probability, and its score is one of the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Batch, Tensors, Transformed
from thetahat.errors import BadArgument, MissingExtra, ModelError

zuko = pytest.importorskip("zuko")
Flow = th.generative.Flow


def shaken(flow: Flow, seed: int = 0) -> Flow:
    """The flow in float64, its weights moved, so that it is far from its base."""
    generator = torch.Generator().manual_seed(seed)
    flow = flow.double()
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return flow


def made(name: str, d: int) -> Flow:
    own = {
        "spline": lambda: Flow.spline(d, hidden=(16,), transforms=2),
        "affine": lambda: Flow.affine(d, hidden=(16,), transforms=2),
    }
    if name in own:
        return shaken(own[name]())
    torch.manual_seed(0)
    return shaken(Flow(getattr(zuko.flows, name)(features=d, transforms=2, hidden_features=(16,))))


@pytest.mark.parametrize("name", ["spline", "affine", "NICE", "RealNVP"])
def test_the_density_integrates_to_one(name: str) -> None:
    """The trapezoidal rule over (−24, 24)², beyond which less than 10⁻³ is left (the tails of a flow are
    wider than its base's)."""
    model = made(name, 2)
    grid = torch.linspace(-24, 24, 321, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        p = model.log_prob(Batch({"y": points})).exp()
    assert float(p.sum() * 0.15**2) == pytest.approx(1.0, abs=1e-3)
    assert float(p.std()) > 0


@pytest.mark.parametrize("name", ["spline", "affine", "RealNVP"])
def test_the_log_determinant_is_that_of_the_jacobian(name: str) -> None:
    """log p(y) = log φ(z) + log |det ∂z/∂y|, the determinant by automatic differentiation of the map."""
    model = made(name, 3)
    y = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    transform = model.distribution().transform
    for row in y:
        with torch.no_grad():
            z, found = transform(row), model.log_prob(Batch({"y": row[None]}))
        J = torch.autograd.functional.jacobian(transform, row)
        exact = -0.5 * float(z @ z) - 1.5 * math.log(2 * math.pi) + float(torch.linalg.slogdet(J)[1])
        assert float(found) == pytest.approx(exact, abs=1e-9)


def test_a_fit_comes_near_the_entropy_of_a_density_that_is_known() -> None:
    """y = (z, z² + w/2): its expected log density is −log 2π − 1 + log 2. No flow can do better than that,
    but for the noise of 4000 rows."""
    rng = np.random.default_rng(0)
    z, w = rng.normal(size=(2, 6000))
    rows = np.stack([z, z**2 + 0.5 * w], 1)
    train = Transformed(rows[:2000], "standardise")
    fit = th.fit(
        Flow.affine(2, hidden=(32,), transforms=2), train, solver=th.Stochastic(steps=200, learning_rate=0.01)
    )
    score = fit.score(train.like(rows[2000:]))
    exact = -math.log(2 * math.pi) - 1 + math.log(2)
    assert score.units == "y"
    assert exact - 0.15 < score.mean < exact + 4 * score.standard_error
    gauss = th.fit(th.models.Density(th.families.MultivariateNormal(2)), rows[:2000])
    pair = th.compare({"flow": score, "normal": gauss.score(rows[2000:])}).pair("flow", "normal")
    assert pair.better == "flow"
    assert pair.z > 5


def test_a_conditional_flow_is_a_density_for_every_x() -> None:
    """∫ p(y | x) dy = 1 at each of three x, and p depends on x."""
    model = shaken(Flow.spline(1, context=2, inputs=["a", "b"], hidden=(16,)))
    y = torch.linspace(-14, 14, 28001, dtype=torch.float64)[:, None]
    densities = []
    for a, b in ((0.0, 0.0), (1.0, -2.0), (3.0, 0.5)):
        columns = {
            "a": torch.full((28001,), a, dtype=torch.float64),
            "b": torch.full((28001,), b, dtype=torch.float64),
        }
        with torch.no_grad():
            densities.append(model.log_prob(Batch({"y": y, **columns})).exp())
        assert float(densities[-1].sum() * 0.001) == pytest.approx(1.0, abs=1e-3)
    assert not torch.allclose(densities[0], densities[1], atol=1e-3)


def test_draws_have_the_probabilities_of_the_density() -> None:
    """P(y_1 < 0, y_2 < 0) by quadrature, and by 20,000 draws within 5 sigma."""
    model = made("spline", 2)
    grid = torch.linspace(-14, 14, 281, dtype=torch.float64)[:-1]
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        p = model.log_prob(Batch({"y": points + 0.05})).exp() * 0.1**2  # midpoints of the cells
    inside = float(p[(points < -1e-9).all(-1)].sum())
    drawn = model.draw(20_000, generator=torch.Generator().manual_seed(0))
    share = float((drawn < 0).all(-1).double().mean())
    assert share == pytest.approx(inside, abs=5 * math.sqrt(inside * (1 - inside) / 20_000) + 2e-3)


def test_the_same_seed_draws_the_same_and_leaves_torch_alone() -> None:
    flow = Flow.affine(2, hidden=(8,))
    before = torch.get_rng_state()
    a, b = (flow.draw(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    again = Flow.affine(2, hidden=(8,))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b)
    assert not torch.equal(a, flow.draw(5, generator=torch.Generator().manual_seed(4)))
    assert all(torch.equal(p, q) for p, q in zip(flow.parameters(), again.parameters(), strict=True))
    assert not torch.equal(next(flow.parameters()), next(Flow.affine(2, hidden=(8,), seed=1).parameters()))


def test_the_rows_of_a_conditional_flow_are_drawn_given_their_x() -> None:
    model = shaken(Flow.affine(1, context=1, inputs="x", hidden=(8,)))
    batch = Batch({"x": torch.tensor([[-3.0], [3.0]], dtype=torch.float64).repeat_interleave(2000, 0)})
    drawn = model.sample(batch, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 1)
    y = torch.linspace(-30, 30, 6001, dtype=torch.float64)[:, None]
    for x, part in ((-3.0, drawn[:2000]), (3.0, drawn[2000:])):
        with torch.no_grad():
            p = model.log_prob(Batch({"y": y, "x": torch.full_like(y, x)})).exp() * 0.01
        mean, square = float(p @ y[:, 0]), float(p @ y[:, 0] ** 2)
        assert float(part.mean()) == pytest.approx(mean, abs=5 * math.sqrt((square - mean**2) / 2000))


def test_a_table_is_fitted_by_its_columns() -> None:
    """An array, a table and tensors are the same data."""
    rows = np.random.default_rng(0).normal(size=(30, 2))
    model = Flow.affine(2, hidden=(8,))
    sources = [
        model.source(rows),
        model.source({"a": rows[:, 0], "b": rows[:, 1]}),
        Tensors({"y": torch.from_numpy(rows)}),
    ]
    assert len({s.fingerprint for s in sources}) == 1
    fit = th.fit(model, rows, solver=th.Stochastic(steps=3, held_out=None))
    assert fit.sample(4).shape == (4, 2)
    assert fit.score(rows).n == 30


def test_what_a_flow_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError, match=r"of 2 components, and 'y' has the shape \(5, 3\). Accepted: \(5, 2\)"
    ):
        Flow.affine(2).log_prob(Batch({"y": torch.zeros(5, 3)}))
    with pytest.raises(BadArgument, match="context=2 columns of inputs=None"):
        Flow.spline(2, context=2)
    with pytest.raises(BadArgument, match="bins=0"):
        Flow.spline(2, bins=0)
    with pytest.raises(BadArgument, match="activation='sine'"):
        Flow.affine(2, activation="sine")
    with pytest.raises(BadArgument, match="flow is str"):
        Flow("NSF")
    conditioned = Flow.affine(1, context=1, inputs="x")
    with pytest.raises(BadArgument, match="conditioned on 'x'"):
        conditioned.draw(3)
    monkeypatch.setitem(__import__("sys").modules, "zuko", None)
    with pytest.raises(MissingExtra, match=r"thetahat\[flows\]"):
        Flow.spline(2)
