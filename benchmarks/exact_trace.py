"""The slope of a probability flow with its exact trace beside one slope at a time by torch's automatic differentiation.

    python benchmarks/exact_trace.py [pairs]        ratio: CPU seconds of one slope at a time over ours, bar 2.5 of U-nets

v̂ and tr ∂v̂/∂z of so many images by `ProbabilityFlow`, as it integrates them; and by torch.autograd.grad, a component after
another, through the same network as it is (channel beside channel) and as torch lays it out. In alternation, after a warm-up;
one thread, float64; medians. The traces must be equal to 1e-12 of the largest.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import thetahat as th
from thetahat.allocation import kept_memory

KINDS: list[tuple[str, Callable[[], nn.Module], list[int]]] = [
    ("U-net (16, 32), 8 × 8", lambda: th.generative.UNet((8, 8), channels=(16, 32)), [1, 4, 16, 64]),
    ("U-net (32, 64), 8 × 8", lambda: th.generative.UNet((8, 8), channels=(32, 64)), [1, 16]),
    ("U-net (24, 48), 3 × 8 × 8", lambda: th.generative.UNet((3, 8, 8), channels=(24, 48)), [1, 16]),
    ("U-net (16, 32), 16 × 16", lambda: th.generative.UNet((16, 16), channels=(16, 32)), [1, 4]),
    ("perceptron", lambda: th.generative.Denoiser(64, width=256), [1, 16]),
]


def one_at_a_time(flow: th.generative.ProbabilityFlow, phi: Tensor, z: Tensor) -> Tensor:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        v = flow.slope(phi, z)
        trace = torch.zeros(len(z), dtype=z.dtype)
        for j in range(z.shape[1]):
            (pulled,) = torch.autograd.grad(v[:, j].sum(), z, retain_graph=True)
            trace += pulled[:, j]
    return torch.cat([v.detach(), trace[:, None]], 1)


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main(pairs: int = 7) -> None:
    torch.set_num_threads(1)
    print(
        "| network | images | thetahat, ms | one at a time, ms | ratio | bar 2.5 | in torch's layout, ms | ratio | apart by |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, build, sizes in KINDS:
        g = torch.Generator().manual_seed(0)
        model = th.generative.Diffusion(build(), predict="v")
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=g))
        flow = th.generative.ProbabilityFlow(model)
        plain = copy.deepcopy(flow).to(memory_format=torch.contiguous_format)
        for m in sizes:
            d = model.dimensions
            phi = torch.linspace(0.1, 1.4, m, dtype=torch.float64)
            state = torch.randn(m, d + 1, generator=g, dtype=torch.float64)
            field, which, z = flow._field(d, None, None), torch.arange(m), state[:, :d]
            works = [
                partial(field, phi, state, which),
                partial(one_at_a_time, flow, phi, z),
                partial(one_at_a_time, plain, phi, z),
            ]
            found = [work() for work in works]  # warms up
            times: list[list[float]] = [[], [], []]
            for turn in range(pairs):
                for k in (0, 1, 2) if turn % 2 else (2, 1, 0):
                    times[k].append(seconds(works[k]))
            us, them, before = (statistics.median(each) * 1e3 for each in times)
            apart = max(float((each - found[0]).abs().max() / each.abs().max()) for each in found[1:])
            verdict = ("met" if them / us >= 2.5 else "MISSED") if name.startswith("U-net") else ""
            print(
                f"| {name} | {m} | {us:.1f} | {them:.1f} | {them / us:.1f} | {verdict} | {before:.1f} | {before / us:.1f} | {apart:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    with kept_memory():  # as while a path is integrated; the others have it too
        main(*map(int, sys.argv[1:]))
