"""Products of large matrices by oneDNN: the same numbers as torch's own, whatever is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from shutil import which

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetahat as th
from thetahat import products
from thetahat.products import fast_products, profits

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this torch has no oneDNN",
)
R, D, O = 96, 300, 200  # more multiplications than products.LEAST


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a processor on which it is not faster."""
    monkeypatch.setattr(products, "_possible", lambda: True)


def leaves(*shape: int, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    g = torch.Generator().manual_seed(0)
    x, W, b = (torch.randn(*s, generator=g, requires_grad=True) for s in (shape, (O, D), (O,)))
    return x, W, b if bias else None


def taken(out: Tensor) -> bool:
    """Whether it is a product of ours."""
    return any(
        "_Linear" in type(f).__name__ for f in (out.grad_fn, *(n for n, _ in out.grad_fn.next_functions))
    )


@pytest.mark.parametrize("shape", [(R, D), (4, R // 4, D), (2, 3, R // 6, D)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_slopes_are_those_of_float64(shape: tuple[int, ...], bias: bool) -> None:
    own = leaves(*shape, bias=bias)
    free = [t for t in own if t is not None]
    slope = torch.randn(*shape[:-1], O, generator=torch.Generator().manual_seed(1))
    with fast_products():
        out = F.linear(*own)
        found = torch.autograd.grad(out, free, slope)
    assert taken(out)
    assert out.dtype == torch.float32
    wide = [t.detach().double().requires_grad_() for t in free]
    exact = F.linear(*wide)
    expected = torch.autograd.grad(exact, wide, slope.double())
    for a, b in zip((out.detach(), *found), (exact.detach(), *expected), strict=True):
        assert a.shape == b.shape
        # float32 keeps 24 bits, and errors of so many terms add up like a random walk: √300 · 2^−24 = 1e-6
        assert float((a.double() - b).abs().max()) < 4e-6 * float(b.abs().max())


def test_a_slope_of_equal_rows_is_read_rightly() -> None:
    """What a sum hands back has one row in memory for all of them."""
    x, W, b = leaves(R, D)
    with fast_products():
        gx, gW = torch.autograd.grad(F.linear(x, W, b).sum(), (x, W))
    assert torch.allclose(gx, W.sum(0).expand(R, D), rtol=1e-5, atol=1e-4)
    assert torch.allclose(gW, x.sum(0).expand(O, D), rtol=1e-5, atol=1e-4)


def test_operands_that_are_cut_out_of_larger_ones_are_read_rightly() -> None:
    g = torch.Generator().manual_seed(0)
    x, W = torch.randn(R, 2 * D, generator=g)[:, ::2], torch.randn(D, 2 * O, generator=g)[:, :O].t()
    with fast_products():
        found = F.linear(x, W)
    assert torch.allclose(found, F.linear(x, W), rtol=1e-5, atol=1e-4)


def test_the_slope_of_a_slope_is_right() -> None:
    """d/dW |∂(Σ (x Wᵀ)²/2)/∂x|² = d/dW |x Wᵀ W|², by torch's own products in float64."""
    x, W, _ = leaves(R, D)

    def penalty(x: Tensor, W: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(F.linear(x, W).square().sum() / 2, x, create_graph=True)
        return g.square().sum()

    with fast_products():
        (found,) = torch.autograd.grad(penalty(x, W), W)
    x64, W64 = (t.detach().double().requires_grad_() for t in (x, W))
    (exact,) = torch.autograd.grad((x64 @ W64.T @ W64).square().sum(), W64)
    assert float((found - exact).abs().max()) < 1e-5 * float(exact.abs().max())


def test_a_frozen_matrix_is_given_no_slope_and_an_input_without_one_neither() -> None:
    x, W, b = leaves(R, D)
    with fast_products():
        (gW,) = torch.autograd.grad(F.linear(x.detach(), W, b).square().sum(), W)
        (gx,) = torch.autograd.grad(F.linear(x, W.detach(), b).square().sum(), x)
    assert gW.shape == W.shape
    assert gx.shape == x.shape


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself, for jvp
def test_what_is_not_a_large_product_of_float32_is_left_to_torch() -> None:
    x, W, b = leaves(R, D)
    with fast_products():
        assert not taken(F.linear(x[:2], W, b))  # too small
        assert not taken(F.linear(x.double(), W.double(), b.double()))
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(x, W, b).dtype == torch.bfloat16
        each = torch.vmap(lambda W: F.linear(x, W))(torch.stack([W, 2 * W]))
        _, moved = torch.func.jvp(lambda W: F.linear(x, W), (W,), (W,))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, x.detach())
            slope = torch.autograd.forward_ad.unpack_dual(F.linear(dual, W)).tangent
    plain = x @ W.T
    assert torch.allclose(each[1], 2 * plain, rtol=1e-4, atol=1e-3)
    assert torch.allclose(moved, plain, rtol=1e-4, atol=1e-3)
    assert torch.allclose(slope, plain, rtol=1e-4, atol=1e-3)
    assert not taken(F.linear(x, W, b))  # outside the block


@pytest.mark.parametrize("product", [F.linear, products.linear])
def test_what_is_computed_anew_on_the_way_back_is_what_it_was(product: Callable[..., Tensor]) -> None:
    """torch.utils.checkpoint refuses a block that keeps other tensors than before."""
    from torch.utils.checkpoint import checkpoint

    x, W, b = leaves(R, D)
    with fast_products():
        out = checkpoint(lambda x: product(x, W, b).tanh(), x, use_reentrant=False)
        found = torch.autograd.grad(out.sum(), (x, W))
    expected = torch.autograd.grad(F.linear(x, W, b).tanh().sum(), (x, W))
    for a, b_ in zip(found, expected, strict=True):
        assert torch.allclose(a, b_, rtol=1e-3, atol=1e-3)


def test_it_is_turned_off_with_the_rest_of_onednn() -> None:
    x, W, b = leaves(R, D)
    with fast_products():
        assert taken(F.linear(x, W, b))
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags, but for its warning of Intel's GPUs
    try:
        with fast_products():
            assert not taken(F.linear(x, W, b))
    finally:
        torch._C._set_mkldnn_enabled(True)


@pytest.mark.skipif(which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own code
def test_a_network_that_was_compiled_by_its_owner_stays_one_graph() -> None:
    x, W, b = leaves(R, D)
    own = torch.compile(lambda x: F.linear(x, W, b).tanh(), fullgraph=True)
    with fast_products():
        found = own(x)
    assert torch.allclose(found, F.linear(x, W, b).tanh(), atol=1e-4)


def test_small_networks_do_not_pay_for_the_question() -> None:
    assert profits(nn.Linear(500, 500))
    assert not profits(nn.Sequential(nn.Linear(20, 64), nn.Linear(64, 10)))
    assert not profits(nn.Linear(500, 500, dtype=torch.float64))


def test_a_training_run_and_a_score_are_those_of_torchs_own_products(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    data = {"x": torch.randn(256, 300, generator=g), "y": torch.randint(10, (256,), generator=g)}
    solver = th.Stochastic(steps=5, batch_size=128, optimiser="sgd", learning_rate=0.1, held_out=None)
    fits, made, own = [], [], products.product
    monkeypatch.setattr(products, "product", lambda *given: made.append(1) or own(*given))
    for able in (True, False):
        monkeypatch.setattr(products, "_possible", lambda able=able: able)
        model = th.models.Conditional(th.families.Categorical(10), th.networks.mlp(300, 200, 10))
        fit = th.fit(model, data, solver=solver)
        fits.append((fit.theta, fit.score(data).total))
        assert (
            len(made) == 5 + 5 + 1
        )  # forward and backward of the first layer at each step, and the score; then no more
    (ours, a), (torchs, b) = fits
    assert torch.allclose(ours, torchs, atol=1e-5)
    assert a == pytest.approx(b, abs=1e-3)
