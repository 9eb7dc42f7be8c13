"""Denoisers: shapes, seeds, and what they are told."""

from __future__ import annotations

import pytest
import torch

from thetahat.errors import BadArgument
from thetahat.generative import Denoiser, UNet

BUILDERS = {
    "perceptron": lambda seed=0: Denoiser(16, width=12, blocks=2, seed=seed),
    "unet": lambda seed=0: UNet((4, 4), channels=(4, 8), seed=seed),
}


def stirred(network: torch.nn.Module) -> torch.nn.Module:
    """With a last layer and gates that are not zero."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return network.eval()


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_the_seed_decides_the_weights_and_the_global_randomness_is_left_alone(build):
    before = torch.random.get_rng_state()
    a, b, c = (torch.cat([p.detach().reshape(-1) for p in build(s).parameters()]) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_a_denoiser_starts_at_zero_and_sees_the_noise_and_each_row_for_itself(build):
    z = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float(build()(z, torch.zeros(3)).abs().max()) == 0
        network = stirred(build())
        one, other = network(z, torch.zeros(3)), network(z, torch.full((3,), 4.0))
        assert one.shape == (3, 16)
        assert float((one - other).abs().max()) > 1e-3
        torch.testing.assert_close(network(z[1:2], torch.zeros(1)), one[1:2])


def test_outputs_of_a_pixel_stand_last():
    """A UNet of L outputs a pixel whose last map reads nothing but a bias of each: pixel j's l-th output
    is the bias of its colour and l."""
    network = UNet((3, 4, 4), 5, channels=(4,))
    with torch.no_grad():
        network.out.bias.copy_(torch.arange(15.0))
        out = network(torch.zeros(2, 48), torch.zeros(2))
    assert out.shape == (2, 48, 5)
    expected = torch.arange(15.0).view(3, 1, 5).expand(3, 16, 5).reshape(48, 5)
    assert torch.equal(out[0], expected)


def test_pixels_come_and_go_in_the_order_of_the_image():
    """A convolution of 3 × 3: with one block a side a pixel's output hangs on pixels near it, not on those
    far away in a large image."""
    network = stirred(UNet((24, 24), channels=(4,)))
    network_out = []
    for at in (0, 24 * 24 - 1):
        z = torch.zeros(1, 576)
        z[0, at] = 1e-3
        with torch.no_grad():
            difference = (
                (network.into(z.view(1, 1, 24, 24)) - network.into(torch.zeros(1, 1, 24, 24)))[0].abs().sum(0)
            )
        network_out.append(torch.nonzero(difference > 1e-9).tolist())
    assert network_out[0] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert network_out[1] == [[22, 22], [22, 23], [23, 22], [23, 23]]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: UNet((2, 6), channels=(4, 8, 16)), "2 × 6 is not halved 2 times"),
        (lambda: UNet((8,)), r"shape=\(8,\)"),
        (lambda: UNet((8, 8), channels=(6,)), "multiples of 4"),
        (lambda: UNet((8, 8))(torch.zeros(2, 63), torch.zeros(2)), "64 pixels"),
        (lambda: Denoiser(4, dropout=1.0), "dropout=1.0"),
    ],
)
def test_what_a_denoiser_cannot_be_is_said(build, said):
    with pytest.raises(BadArgument, match=said):
        build()


def test_kernels_lie_channel_beside_channel_and_weights_of_either_order_load():
    """The function is that of the usual order: the image and each kernel copied into it, in float64."""
    net = UNet((3, 8, 8), 2, channels=(8, 16)).double()
    g = torch.Generator().manual_seed(0)
    usual = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) / 10 for n, p in net.state_dict().items()}
    assert net.down[0][0].one.weight.is_contiguous(memory_format=torch.channels_last)
    net.load_state_dict(usual)
    z, level = torch.randn(5, 192, generator=g, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    found = net(z, level)
    assert net.down[0][0].one.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(p, usual[name]) for name, p in net.named_parameters())
    net.to(memory_format=torch.contiguous_format)
    assert torch.allclose(found, net(z, level), rtol=0, atol=1e-13)
