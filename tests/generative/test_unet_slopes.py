"""The diagonal of a U-net's Jacobian against automatic differentiation, and the compiled layers against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thetahat.data import Batch
from thetahat.generative import Diffusion, ProbabilityFlow, UNet
from thetahat.generative.schedule import Cosine
from thetahat.kernels import compiled
from thetahat.kernels.slopes import convolved, kernel, normalised_, turned

here = pytest.mark.skipif(not compiled.available(), reason="installed without a compiler")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stirred(network: nn.Module, size: float = 0.2) -> nn.Module:
    """Whose last map and gates are not zero."""
    with torch.no_grad():
        for k, p in enumerate(network.parameters()):
            p.add_(size * normal(*p.shape, seed=k))
    return network.double().eval()


# ---- the layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("channels", "outputs", "height", "width"),
    [(1, 16, 8, 8), (4, 12, 5, 3), (24, 24, 4, 4), (3, 33, 1, 2), (32, 8, 6, 7)],
)
def test_a_convolution_and_its_transpose(level, size, channels, outputs, height, width):
    """torch.nn.functional.conv2d and conv_transpose2d."""
    h, w = normal(5, channels, height, width), normal(outputs, channels, size, size, seed=1)
    found = convolved(h.permute(0, 2, 3, 1), kernel(w)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv2d(h, w, padding=size // 2), rtol=0, atol=1e-12)
    s = normal(5, outputs, height, width, seed=2)
    found = convolved(s.permute(0, 2, 3, 1), turned(w)).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv_transpose2d(s, w, padding=size // 2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (16, 4), (12, 3)])
@pytest.mark.parametrize("beside", [False, True])
def test_the_slope_of_a_group_norm(level, channels, groups, beside):
    """torch.autograd through torch.nn.functional.group_norm, of 3 slopes of each of 2 images."""
    h = normal(2, channels, 3, 5).requires_grad_()
    factor, slope = normal(2, channels, 3, 5, seed=1), normal(3, 2, channels, 3, 5, seed=2)
    n = F.group_norm(h, groups)
    expected = torch.stack([torch.autograd.grad(n, h, s * factor, retain_graph=True)[0] for s in slope])
    inverse = torch.rsqrt(h.detach().view(2, groups, -1).var(-1, correction=0) + 1e-5)
    last = (each.detach().movedim(-3, -1).contiguous() for each in (slope.flatten(0, 1), factor, n))
    s, f, n = last
    past = normal(*s.shape, seed=3) if beside else None
    found = normalised_(s, f, n, inverse, past) - (past if past is not None else 0)
    torch.testing.assert_close(found.movedim(-1, -3).view_as(expected), expected, rtol=0, atol=1e-12)


# ---- the network -------------------------------------------------------------------------------------------

NETWORKS = {
    "8 × 8": lambda: UNet((8, 8), channels=(8, 16)),
    "a size that is padded": lambda: UNet((7, 5), channels=(4, 8, 8)),
    "colours": lambda: UNet((3, 6, 4), channels=(4, 12), blocks=2),
    "one size": lambda: UNet((3, 3), channels=(20,)),
    "classes": lambda: UNet((4, 4), channels=(4, 8), classes=3, dropout=0.1),
}


@here
@pytest.mark.parametrize("held", [1, 2**13, 2**20])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_diagonal_is_that_of_the_jacobian(name, held, monkeypatch):
    """torch.func.jacrev of the network, image by image, however many slopes go back together."""
    from thetahat.generative import unet_slopes

    monkeypatch.setattr(unet_slopes, "HELD", held)
    net = stirred(NETWORKS[name]())
    z, more = normal(3, net.dimensions), [torch.tensor([-2.0, 0.5, 4.0], dtype=torch.float64)]
    if net.classes is not None:
        more.append(torch.tensor([0, 3, 1]))
    out, diagonal = net.jacobian_diagonal(z, *more)
    torch.testing.assert_close(out, net(z, *more), rtol=1e-12, atol=1e-12)
    for i in range(3):
        own = [each[i : i + 1] for each in more]
        jacobian = torch.func.jacrev(lambda row, own=own: net(row[None], *own)[0])(z[i])
        torch.testing.assert_close(diagonal[i], jacobian.diagonal(), rtol=1e-12, atol=1e-12)


@here
@pytest.mark.parametrize("predict", ["epsilon", "v", "velocity"])
def test_the_trace_is_that_of_one_slope_at_a_time(predict, monkeypatch):
    """20 images, more than are asked for at a time, of a network that knows its diagonal and of the same that does not say so."""
    model = Diffusion(stirred(UNet((4, 4), channels=(4, 8))), predict=predict, schedule=Cosine(5.0, -5.0))
    flow = ProbabilityFlow(model, tolerance=1e-4)
    phi, z = torch.linspace(0.15, 1.4, 20, dtype=torch.float64), normal(20, 16)
    found, whole = flow._traced(phi, z, None), flow.log_prob(Batch({"y": z[:3]}))
    calls = []
    monkeypatch.setattr(UNet, "jacobian_diagonal", lambda *a: calls.append(1))
    torch.testing.assert_close(found, flow._traced(phi, z, None), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole, flow.log_prob(Batch({"y": z[:3]})), rtol=1e-10, atol=1e-10)
    assert calls


@here
def test_the_trace_given_a_class():
    model = Diffusion(
        stirred(UNet((4, 4), channels=(4,), classes=3)), predict="v", classes=3, schedule=Cosine(4.0, -4.0)
    )
    flow, phi, z = ProbabilityFlow(model), torch.linspace(0.2, 1.3, 4, dtype=torch.float64), normal(4, 16)
    for label in (None, torch.tensor([0, 2, 1, 1])):
        found = flow._traced(phi, z, label)
        for i in range(4):
            own = None if label is None else label[i : i + 1]
            jacobian = torch.func.jacrev(
                lambda row, i=i, own=own: flow.slope(phi[i : i + 1], row[None], own)[0]
            )(z[i])
            assert float(found[i, -1]) == pytest.approx(float(jacobian.trace()), abs=1e-11)


class Cubic(nn.Module):
    """A network of one's own that knows its diagonal, and counts how often it is asked."""

    asked = 0

    def forward(self, z: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        return z**3

    def jacobian_diagonal(self, z, log_snr, label=None):
        self.asked += 1
        return z**3, 3 * z**2


def test_a_network_of_ones_own_is_asked_for_its_diagonal():
    """∂v̂/∂z of "v" is ∂f/∂z: 3z² of z³, times cos φ α + sin φ σ = 1."""
    flow = ProbabilityFlow(Diffusion(Cubic(), predict="v", schedule=Cosine(4.0, -4.0)))
    phi, z = torch.linspace(0.2, 1.3, 5, dtype=torch.float64), normal(5, 3)
    found = flow._traced(phi, z, None)
    torch.testing.assert_close(found[:, -1], (3 * z**2).sum(1), rtol=1e-12, atol=1e-12)
    assert flow.diffusion.network.asked == 1


class Other(UNet):
    """A U-net whose function is another."""

    def forward(self, z, log_snr, label=None):
        return 2 * super().forward(z, log_snr, label)


def hooked(net: UNet) -> UNet:
    net.out.register_forward_hook(lambda module, inputs, out: 2 * out)
    return net


def dilated(net: UNet) -> UNet:
    net.into.dilation, net.into.padding = (2, 2), (2, 2)
    return net


def replaced(net: UNet) -> UNet:
    net.middle[0].two = nn.Sequential(net.middle[0].two, nn.Tanh())
    return net.double().eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: stirred(Other((4, 4), channels=(4,))),
        lambda: hooked(stirred(UNet((4, 4), channels=(4,)))),
        lambda: dilated(stirred(UNet((4, 4), channels=(4,)))),
        lambda: replaced(stirred(UNet((4, 4), channels=(4,)))),
        lambda: stirred(UNet((4, 4), channels=(4,))).train(),
        lambda: stirred(UNet((4, 4), channels=(4,))).float(),
        lambda: stirred(UNet((4, 4), 2, channels=(4,))),
    ],
    ids=["subclass", "hook", "dilation", "another layer", "training", "float32", "two outputs"],
)
def test_a_network_that_was_changed_does_not_say_its_diagonal(make):
    net = make()
    assert net.jacobian_diagonal(normal(2, 16).to(net.place.dtype), torch.zeros(2)) is None


def test_the_trace_of_a_network_that_was_changed_is_its_own():
    """Differentiated automatically: twice the function has twice the diagonal."""
    phi, z = torch.linspace(0.2, 1.3, 3, dtype=torch.float64), normal(3, 16)
    plain, other = (
        ProbabilityFlow(Diffusion(stirred(kind((4, 4), channels=(4,))), predict="v"))._traced(phi, z, None)
        for kind in (UNet, Other)
    )
    torch.testing.assert_close(other, 2 * plain, rtol=1e-12, atol=1e-12)


def test_without_the_compiled_layers_the_trace_is_the_same(monkeypatch):
    flow = ProbabilityFlow(Diffusion(stirred(UNet((4, 4), channels=(4, 8))), predict="v"))
    phi, z = torch.linspace(0.2, 1.3, 3, dtype=torch.float64), normal(3, 16)
    found = flow._traced(phi, z, None)
    monkeypatch.setenv("THETAHAT_COMPILED", "0")
    compiled.library.cache_clear()
    try:
        assert flow.diffusion.network.jacobian_diagonal(z, phi) is None
        torch.testing.assert_close(found, flow._traced(phi, z, None), rtol=1e-12, atol=1e-12)
    finally:
        monkeypatch.undo()
        compiled.library.cache_clear()
