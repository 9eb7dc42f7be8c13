"""A step of a diffusion of images beside a bare loop written by hand in torch: the same U-net, data, draws of (t, ε),
objective and optimiser.

    python benchmarks/diffusion_steps.py [pairs]        ratio: CPU seconds of the bare loop over ours, bar 1.1

The bare loop is what a user would write: kernels and images as torch lays them out, AdamW as torch chooses it, no check of
what is finite; in a process of its own, since memory that a run of thetahat keeps would serve it too. The objective is the
bound on log p of real vectors, and of levels (256 and 16), whose bare loop sums over all of them for the last step's
log p(x | z_0), as the formula is. In alternation, after a warm-up; CPU seconds; one thread; medians.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetahat as th
from thetahat.generative.unet import GROUPS

KINDS = [  # shape, channels, images of a batch, levels
    ((8, 8), (24, 48), 64, None),
    ((16, 16), (32, 64), 32, None),
    ((3, 32, 32), (32, 64), 16, None),
    ((8, 8), (24, 48), 64, 16),
    ((16, 16), (32, 64), 32, 256),
    ((3, 32, 32), (32, 64), 16, 256),
]


class Bare(nn.Module):
    """The U-net's layers, called one after another on images as torch lays them out."""

    def __init__(self, network: th.generative.UNet):
        super().__init__()
        self.net = copy.deepcopy(network).to(memory_format=torch.contiguous_format)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        net = self.net
        e = net.level(log_snr)
        h = net.into(F.pad(z.view(len(z), net.colours, net.rows, net.columns), net.pad)) + net.place
        kept = []
        for blocks, shrink in zip(net.down, net.shrink, strict=True):
            for block in blocks:
                h = self.block(block, h, e)
            kept.append(h)
            h = shrink(h)
        for block in net.middle:
            h = self.block(block, h, e)
        for blocks, grow in zip(net.up[::-1], net.grow[::-1], strict=True):
            h = F.pixel_shuffle(grow(h), 2) + kept.pop()
            for block in blocks:
                h = self.block(block, h, e)
        return net.out(F.silu(F.group_norm(h, GROUPS)))[..., : net.rows, : net.columns].reshape(len(z), -1)

    def block(self, block: nn.Module, h: Tensor, e: Tensor) -> Tensor:
        s, b = block.film(e)[:, :, None, None].chunk(2, 1)
        a = F.silu(F.group_norm(block.one(F.silu(F.group_norm(h, GROUPS))), GROUPS) * (1 + s) + b)
        return h + block.two(a)


def objective(model: th.generative.Diffusion, network: nn.Module, y: Tensor) -> Tensor:
    """Mean of the bound, as Kingma et al. (2021) write it, with v for ε."""
    n, d = y.shape
    x = ((y - model.shift) / model.scale).float()
    t = (torch.rand(()) + torch.randperm(n).float() / n) % 1
    epsilon = torch.randn(n, d)
    log_snr = model.schedule.log_snr(t)
    alpha, sigma = (torch.sigmoid(s * log_snr[:, None]).sqrt() for s in (1, -1))
    out = network(alpha * x + sigma * epsilon, log_snr)
    error = (alpha * (alpha * epsilon - sigma * x - out)).square().sum(1)
    high, low = model.schedule.high.float(), model.schedule.low.float()
    end = 0.5 * (torch.sigmoid(low) * (x.square() - 1) - F.logsigmoid(-low)).sum(1)
    if model.levels is None:
        decoded = 0.5 * d * (high - 1 - math.log(2 * math.pi)) - torch.log(model.scale).float() * d
    else:
        ratio = x + torch.exp(-high / 2) * epsilon
        log_p = torch.log_softmax(-0.5 * torch.exp(high) * (ratio[..., None] - model.values()) ** 2, -1)
        decoded = log_p.gather(-1, y[..., None]).squeeze(-1).sum(1)
    return (decoded - 0.5 * model.schedule.fall(t) * error - end).mean()


def made(k: int) -> tuple[th.generative.Diffusion, Tensor]:
    """The model of a kind, whose last map is not 0 as it is at the start, and its data."""
    shape, channels, size, levels = KINDS[k]
    model = th.generative.Diffusion(th.generative.UNet(shape, channels=channels), levels=levels)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=g))
    whole = (4 * size, model.dimensions)
    return model, torch.randn(whole, generator=g) if levels is None else torch.randint(
        levels, whole, generator=g
    )


def bare(k: int, steps: int) -> float:
    """CPU seconds."""
    torch.set_num_threads(1)
    (model, y), size, found = made(k), KINDS[k][2], []
    network = Bare(model.network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    begun = time.process_time()
    while True:
        for part in torch.randperm(len(y), generator=generator).split(size):
            value = objective(model, network, y[part])
            optimiser.zero_grad()
            (-value).backward()
            optimiser.step()
            found.append(value.item())
            if len(found) == steps:
                return time.process_time() - begun


def ours(k: int, steps: int) -> float:
    """CPU seconds."""
    torch.set_num_threads(1)
    (model, y), size = made(k), KINDS[k][2]
    data = th.Objective([th.LogLikelihood(model, th.data.Tensors({"y": y}))])
    solver = th.Stochastic(
        steps=steps,
        batch_size=size,
        learning_rate=1e-3,
        lr_schedule="constant",
        held_out=None,
        restore_best=False,
    )
    begun = time.process_time()
    state = solver.start(data)
    while not solver.done(data, state):
        state = solver.step(data, state)
    return time.process_time() - begun


def apart(k: int) -> float:
    """The relative difference of the objective of one batch at the same draws."""
    model, y = made(k)
    y = y[: KINDS[k][2]]
    with torch.no_grad():
        torch.manual_seed(0)
        one = objective(model, Bare(model.network), y)
        torch.manual_seed(0)
        return float(abs(model.log_prob(th.data.Batch({"y": y})).mean() / one - 1))


def main(pairs: int = 5, steps: int = 12) -> None:
    context = multiprocessing.get_context("spawn")
    us, them = (ProcessPoolExecutor(1, mp_context=context) for _ in range(2))
    print(
        "| images | channels | batch | levels | thetahat, ms | bare loop, ms | ratio | bar 1.1 | objective apart by |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for k, (shape, channels, size, levels) in enumerate(KINDS):
        times = []
        for turn in range(pairs + 1):  # the first warms up
            order = [(us, ours), (them, bare)][:: 1 if turn % 2 else -1]
            taken = {work: pool.submit(work, k, steps).result() for pool, work in order}
            times.append((taken[bare] / taken[ours], taken[ours] / steps * 1e3, taken[bare] / steps * 1e3))
        ratio, own, other = (statistics.median(each[i] for each in times[1:]) for i in range(3))
        print(
            f"| {' × '.join(map(str, shape))} | {channels} | {size} | {levels or 'real'} | {own:.1f} | {other:.1f} | "
            f"{ratio:.2f} | {'met' if ratio >= 1.1 else 'MISSED'} | {apart(k):.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
