"""Products of a compiled step by oneDNN: the same gradient as a step of torch's own in float64."""

from __future__ import annotations

from collections.abc import Iterator
from shutil import which

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import thetahat as th
from thetahat import products
from thetahat.solvers import compiled_products
from thetahat.solvers.compiled_products import exchanged

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also on a processor on which it is not faster."""
    monkeypatch.setattr(products, "_possible", lambda: True)
    compiled_products.settings.cache_clear()
    yield
    compiled_products.settings.cache_clear()


def test_large_products_of_a_graph_are_exchanged_and_give_the_same_numbers() -> None:
    g = torch.Generator().manual_seed(0)
    a, b, c, small = (torch.randn(*s, generator=g) for s in ((96, 300), (300, 200), (200,), (200, 10)))

    def step(a: Tensor, b: Tensor, c: Tensor, small: Tensor) -> Tensor:
        return (torch.addmm(c, a, b) + torch.mm(b.t().contiguous(), a.t()).t()) @ small

    compiled_products.settings()
    graph = make_fx(step)(a, b, c, small)
    assert exchanged(graph.graph) == 2  # what is left has 192,000 multiplications
    graph.recompile()
    exact = step(*(t.double() for t in (a, b, c, small)))
    assert float((graph(a, b, c, small) - exact).abs().max()) < 4e-6 * float(exact.abs().max())


def test_products_of_other_numbers_are_left_alone() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        a, b = torch.ones(96, 300, dtype=dtype), torch.ones(300, 200, dtype=dtype)
        assert exchanged(make_fx(torch.mm)(a, b).graph) == 0


def trained(dtype: torch.dtype, *, compiled: bool) -> tuple[Tensor, bool]:
    """θ after four steps, and whether a step was one graph."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randint(65, (48, 64), generator=g) for _ in range(2))
    network = th.networks.Transformer(65, layers=1, width=128, heads=4, dtype=dtype)
    with torch.no_grad():
        for p in network.parameters():  # nothing that begins at 0
            p += 0.02 * torch.randn(p.shape, generator=g, dtype=torch.float32)
    data = th.data.Tensors(th.data.Batch({"input": x, "target": y}, dims=2))
    objective = th.Objective([th.LogLikelihood(th.language.Autoregressive(network), data)])
    solver = th.Stochastic(
        steps=4, batch_size=12, learning_rate=0.1, optimiser="sgd", lr_schedule="constant", held_out=None, compile=compiled
    )  # fmt: skip
    state = solver.start(objective)
    while not solver.done(objective, state):
        state = solver.step(objective, state)
    whole = state.work.engine.whole
    return state.theta.double(), whole is not None and whole.possible


@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")  # of torch's own code
def test_a_compiled_run_is_that_of_float64() -> None:
    with torch.profiler.profile() as seen:
        found, whole = trained(torch.float32, compiled=True)
    exact, _ = trained(torch.float64, compiled=False)
    assert whole
    made = {each.key: each.count for each in seen.key_averages()}
    assert (
        made["thetahat::product"] >= 4 * 3 * 8
    )  # steps; forward, and twice backward; the block's seven and the head
    assert float((found - exact).abs().max()) < 2e-6
