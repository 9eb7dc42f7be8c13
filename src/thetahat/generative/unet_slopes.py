"""The diagonal of a U-net's Jacobian, several slopes at once through compiled layers, in float64.

    ∂f_j/∂z_j = e_jᵀ J e_j,      Jᵀ e_j by the transpose of each layer, the last one first:

    K ∗ h                       the kernel turned round, from outputs to inputs
    a(n(h) ∘ (1 + s) + b)       times a' ∘ (1 + s), then the slope of a group norm: `normalised_`
    halved, doubled             the transpose of a matrix

What the slopes of one image share is computed once: the values of the layers, and the factors of all that is not linear.
The slopes of a few components go back together, so few that they stay in a core's second cache. Images are (n, height,
width, channels), channel beside channel; slopes (k · n, …), those of one component of all images one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.compiled import available
from ..kernels.slopes import convolved, kernel, normalised_, turned

if TYPE_CHECKING:
    from .unet import UNet, _Block

Back = Callable[[Tensor], Tensor]  # the slope behind a layer → before it, which may be written in its place
HELD = 2**20  # bytes of the slopes that go back together, at the largest layer: measured, 2**18 to 2**20


def possible(net: UNet, layers: Iterable[type]) -> bool:
    """Whether the network is as it was made, without hooks and with layers of these kinds alone, and this installation
    has what it takes."""
    known, place = set(layers), net.place
    return (
        available()
        and (place.device.type, place.dtype, net.outputs, net.training) == ("cpu", torch.float64, 1, False)
        and all(type(each) in known and not _hooked(each) for each in net.modules())
        and all(_usual(conv) for conv in net.modules() if isinstance(conv, nn.Conv2d))
    )


def _hooked(module: nn.Module) -> bool:
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or "forward" in vars(module)


def _usual(conv: nn.Conv2d) -> bool:
    """Whether it is of 3 × 3 or 1 × 1 and keeps the size of an image, or of 2 × 2 and halves it, and is nothing else."""
    geometry = conv.kernel_size, conv.stride, conv.padding
    sizes = (((3, 3), (1, 1), (1, 1)), ((1, 1), (1, 1), (0, 0)), ((2, 2), (2, 2), (0, 0)))
    rest = conv.dilation, conv.groups, conv.padding_mode, conv.bias is None
    return geometry in sizes and rest == ((1, 1), 1, "zeros", False)


@torch.no_grad()
def diagonal(
    net: UNet, z: Tensor, log_snr: Tensor, label: Tensor | None, groups: int
) -> tuple[Tensor, Tensor]:
    """f(z, λ) and ∂f_j/∂z_j, (n, d) each; so many groups of each norm."""
    n, d = z.shape
    image = F.pad(z.view(n, net.colours, net.rows, net.columns), net.pad).permute(0, 2, 3, 1)
    h, back = _layers(net, image, net.level(log_snr, label), groups)
    W = net.out.weight.flatten(1)  # (colours, channels): the last map sees each place by itself
    out = F.linear(h, W, net.out.bias)[:, : net.rows, : net.columns].permute(0, 3, 1, 2).reshape(n, d)
    around = _around(net.into.weight, net.rows, net.columns, *h.shape[1:3])
    found = []
    for part in torch.arange(d).split(max(1, HELD // (8 * h.numel()))):
        k, colour, y, x = len(part), *torch.unravel_index(part, (net.colours, net.rows, net.columns))
        slope = z.new_zeros(k, *h.shape)
        slope[torch.arange(k), :, y, x] = W[colour][:, None]
        slope = back(slope.flatten(0, 1)).view(k, *h.shape)
        ys, xs = (_three(at, most) for at, most in zip((y, x), h.shape[1:3], strict=True))
        near = slope[torch.arange(k)[:, None, None], :, ys[:, :, None], xs[:, None]]  # (k, 3, 3, n, channels)
        found.append(torch.einsum("kyxnc,kyxc->nk", near, around[part]))
    return out, torch.cat(found, 1)


def _three(at: Tensor, most: int) -> Tensor:
    """A place with those before and behind it, (k, 3), within the image."""
    return (at[:, None] + torch.arange(-1, 2)).clamp(0, most - 1)


def _around(weight: Tensor, rows: int, columns: int, height: int, width: int) -> Tensor:
    """∂h/∂z_j of the first layer at the 3 × 3 places around pixel j, (d, 3, 3, channels): 0 outside the image."""
    step = torch.arange(-1, 2)
    y, x = torch.arange(rows)[:, None] + step, torch.arange(columns)[:, None] + step
    inside = ((y >= 0) & (y < height))[:, None, :, None] & ((x >= 0) & (x < width))[None, :, None]
    turned_round = weight.flip(2, 3).permute(1, 2, 3, 0)  # (colours, 3, 3, channels)
    return (turned_round[:, None, None] * inside[..., None]).flatten(0, 2)


# ---- the layers, each with its transpose -------------------------------------------------------------------


def _layers(net: UNet, image: Tensor, e: Tensor, groups: int) -> tuple[Tensor, Back]:
    """What the last map is given, (n, height, width, channels), and what takes a slope of it back to behind the first map."""
    h = _convolved(net.into, image) + net.place.permute(1, 2, 0)
    kept, downs, ups = [], [], []
    for blocks, shrink in zip(net.down, net.shrink, strict=True):
        h, through = _through(blocks, h, e, groups)
        kept.append(h)
        h, halved = _halved(cast("nn.Conv2d", shrink), h)
        downs.append((through, halved))
    h, middle = _through(net.middle, h, e, groups)
    for blocks, grow in zip(net.up[::-1], net.grow[::-1], strict=True):
        h, doubled = _doubled(cast("nn.Conv2d", grow), h)
        h, through = _through(blocks, h + kept.pop(), e, groups)
        ups.append((doubled, through))
    h, last = _activated(h, groups)

    def back(slope: Tensor) -> Tensor:
        slope, held = last(slope, None), []
        for doubled, through in reversed(ups):
            slope = through(slope)
            held.append(slope)
            slope = doubled(slope)
        slope = middle(slope)
        for through, halved in reversed(downs):
            slope = through(halved(slope).add_(held.pop()))
        return slope

    return h, back


def _through(blocks: nn.Module, h: Tensor, e: Tensor, groups: int) -> tuple[Tensor, Back]:
    backs = []
    for block in cast("nn.ModuleList", blocks):
        h, back = _block(cast("_Block", block), h, e, groups)
        backs.append(back)

    def through(slope: Tensor) -> Tensor:
        for back in reversed(backs):
            slope = back(slope)
        return slope

    return h, through


def _block(block: _Block, h: Tensor, e: Tensor, groups: int) -> tuple[Tensor, Back]:
    """h + K_2 ∗ a(n(K_1 ∗ a(n(h))) ∘ (1 + s) + b)."""
    s, b = block.film(e)[:, None, None].chunk(2, -1)
    before, first = _activated(h, groups)
    between, second = _activated(_convolved(block.one, before), groups, s, b)
    one, two = (turned(each.weight) for each in (block.one, block.two))

    def back(slope: Tensor) -> Tensor:
        return first(convolved(second(convolved(slope, two), None), one), slope)

    return h + _convolved(block.two, between), back


def _activated(
    h: Tensor, groups: int, s: Tensor | None = None, b: Tensor | None = None
) -> tuple[Tensor, Callable[[Tensor, Tensor | None], Tensor]]:
    """a(n(h) ∘ (1 + s) + b): silu of a group norm. Its transpose adds what goes past it."""
    apart = h.unflatten(-1, (groups, -1))
    variance, mean = torch.var_mean(apart, (1, 2, 4), correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + 1e-5)  # as F.group_norm has it
    n = ((apart - mean) * inverse).flatten(-2)
    at = n if s is None or b is None else n * (1 + s) + b
    gate = torch.sigmoid(at)
    factor = gate * (1 + at * (1 - gate))
    factor = factor if s is None else factor * (1 + s)
    return at * gate, lambda slope, past: normalised_(slope, factor, n, inverse.flatten(1), past)


def _convolved(conv: nn.Conv2d, h: Tensor) -> Tensor:
    return convolved(h, kernel(conv.weight)).add_(_bias(conv))


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # see `_usual`
    return conv.bias


def _halved(conv: nn.Conv2d, h: Tensor) -> tuple[Tensor, Back]:
    """The kernel of 2 × 2 with stride 2: a matrix on each square."""
    W: Tensor = conv.weight.permute(0, 2, 3, 1).flatten(1)
    back = turned(W[..., None, None])
    return F.linear(_squares(h), W, conv.bias), lambda slope: _spread(convolved(slope, back))


def _doubled(conv: nn.Conv2d, h: Tensor) -> tuple[Tensor, Back]:
    """A matrix at each place, whose outputs become a square: F.pixel_shuffle has its four one after another."""
    order = torch.arange(len(conv.weight)).view(-1, 4).T.flatten()
    W, b = conv.weight.flatten(1)[order], _bias(conv)[order]
    back = turned(W[..., None, None])
    return _spread(F.linear(h, W, b)), lambda slope: convolved(_squares(slope), back)


def _squares(h: Tensor) -> Tensor:
    """(n, 2h, 2w, c) → (n, h, w, 4c)."""
    n, height, width, c = h.shape
    return h.view(n, height // 2, 2, width // 2, 2, c).transpose(2, 3).flatten(3)


def _spread(h: Tensor) -> Tensor:
    """(n, h, w, 4c) → (n, 2h, 2w, c)."""
    n, height, width, c = h.shape
    return h.view(n, height, width, 2, 2, c // 4).transpose(2, 3).reshape(n, 2 * height, 2 * width, c // 4)
