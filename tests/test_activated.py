"""Group norm, scale, shift and silu in one pass, against torch's layers in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import thetahat as th
from thetahat.kernels import activated as kernels
from thetahat.kernels.activated import activated


def made(n: int, channels: int, height: int, width: int, film: bool, size: float = 2.0) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    h = (size * torch.randn(n, channels, height, width, generator=g) + 1).to(
        memory_format=torch.channels_last
    )
    return [h, *(0.5 * torch.randn(2, n, channels, generator=g))] if film else [h]


def exact(h: Tensor, groups: int, s: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    n = F.group_norm(h, groups)
    return F.silu(n if s is None or b is None else n * (1 + s[..., None, None]) + b[..., None, None])


@pytest.mark.parametrize("film", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((5, 32, 8, 8), 4),
        ((2, 24, 5, 3), 4),
        ((3, 4, 2, 3), 4),
        ((2, 52, 16, 9), 4),
        ((2, 7, 3, 3), 7),
        ((1, 9, 4, 4), 3),
    ],
)
def test_values_and_slopes(level, shape, groups, film):
    """torch's layers in float64: within a few roundings of float32, of slopes relative to the largest."""
    ins = [each.requires_grad_() for each in made(*shape, film)]
    assert kernels._suits(*ins, *([] if film else [None, None]))
    wide = [each.detach().double().requires_grad_() for each in ins]
    found, right = activated(ins[0], groups, *ins[1:]), exact(wide[0], groups, *wide[1:])
    torch.testing.assert_close(found.double(), right, rtol=2e-6, atol=2e-6)
    slope = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for one, other in zip(
        torch.autograd.grad(found, ins, slope), torch.autograd.grad(right, wide, slope.double()), strict=True
    ):
        assert float((one - other).abs().max()) < 3e-6 * float(other.abs().max())


@pytest.mark.parametrize("value", [-1e30, -90.0, -60.0, 60.0, 90.0, 1e30])
def test_far_values(level, value):
    """silu of what is far from 0, by a shift: torch's in float64; no overflow in its slope."""
    h, s, b = made(2, 16, 3, 3, True)
    b = torch.full_like(b, value).requires_grad_()
    found = activated(h, 4, s, b)
    torch.testing.assert_close(
        found.double(), exact(h.double(), 4, s.double(), b.detach().double()), rtol=2e-6, atol=1e-25
    )
    (slope,) = torch.autograd.grad(found.sum(), b)
    torch.testing.assert_close(slope, torch.full_like(slope, 9.0 if value > 0 else 0.0), rtol=0, atol=1e-4)


def test_what_is_not_a_number_stays_so(level):
    """In the image and group in which it is, forward and backward."""
    h = made(2, 16, 3, 3, False)[0]
    h[0, 5, 1, 1] = torch.nan
    h.requires_grad_()
    found = activated(h, 4)
    (slope,) = torch.autograd.grad(found.sum(), h)
    for each in (found.detach(), slope):
        assert bool(each[0, 4:8].isnan().all())
        assert not bool(each[1].isnan().any() or each[0, :4].isnan().any() or each[0, 8:].isnan().any())


def test_a_slope_of_another_layout(level):
    """Of one number for all places, and of images as torch lays them out."""
    h = made(2, 16, 4, 4, False)[0].requires_grad_()
    slope = torch.randn(2, 16, 4, 4)
    for each in (torch.ones(()).expand(2, 16, 4, 4), slope):
        (found,) = torch.autograd.grad(activated(h, 4), h, each)
        (right,) = torch.autograd.grad(exact(h, 4), h, each)
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)


def test_the_slope_of_the_slope(level):
    """create_graph=True: torch's layers."""
    ins = [each.requires_grad_() for each in made(2, 8, 3, 3, True)]
    second = []
    for function in (activated, exact):
        (first,) = torch.autograd.grad(
            function(ins[0], 4, *ins[1:]).square().sum(), ins[0], create_graph=True
        )
        second.append(torch.autograd.grad(first.square().sum(), ins))
    for found, right in zip(*second, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


def test_several_slopes_at_once(level):
    """torch.autograd.grad(is_grads_batched=True), and torch.func."""
    h = made(2, 8, 3, 3, False)[0].requires_grad_()
    slopes = torch.randn(3, 2, 8, 3, 3, generator=torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad(activated(h, 4), h, slopes, is_grads_batched=True)
    right = torch.stack([torch.autograd.grad(exact(h, 4), h, each)[0] for each in slopes])
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5)
    _, pull = torch.func.vjp(lambda x: activated(x, 4), h.detach())
    torch.testing.assert_close(pull(slopes[0])[0], right[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.double(),
        lambda h: h.contiguous(memory_format=torch.contiguous_format),
        lambda h: h.to(torch.bfloat16),
    ],
    ids=["float64", "torch's layout", "bfloat16"],
)
def test_what_has_no_compiled_pass_is_torchs(change):
    h = change(made(2, 8, 3, 3, False)[0])
    assert not kernels._suits(h, None, None)
    assert torch.equal(activated(h, 4), exact(h, 4))


def test_a_diffusion_is_trained_the_same_without_the_compiled_pass(monkeypatch):
    """Six steps of plain gradients: θ to rounding."""
    model = th.generative.Diffusion(th.generative.UNet((8, 8), channels=(8, 16)), predict="v")
    data = th.data.Batch({"y": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))})
    solver = th.Stochastic(
        steps=6, batch_size=16, optimiser="sgd", learning_rate=1e-4, held_out=None, restore_best=False
    )
    one = th.fit(model, data, solver=solver, on_failure="return").theta
    monkeypatch.setattr(kernels, "available", lambda: False)
    two = th.fit(model, data, solver=solver, on_failure="return").theta
    assert float((one - two).abs().max()) < 2e-6
    start = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float((one - start).abs().max()) > 1e-3
