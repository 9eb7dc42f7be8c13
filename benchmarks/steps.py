"""Steps per second of `Stochastic` beside a bare training loop written by hand in torch: the same network,
data, optimiser and order of batches.

    python benchmarks/steps.py            small, medium, GPT; ratio ours / bare, bar 0.97; small and GPT compiled, bar 1.3

The bare loop is what a user would write: permute, index, forward, cross-entropy, backward, AdamW (foreach, as
torch chooses), zero_grad; no check of what is finite, no clipping, no trace. Both are taken in turns, several
times (the small network five times as often: its step is so short that whatever else the machine does shows
in it); the median of the paired ratios is reported. Seconds are of CPU, one thread. Compiled is `Stochastic(compile=True)`
beside the bare loop as it is, after its first step.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetahat as th


def bare(network: nn.Module, x: Tensor, y: Tensor, steps: int, size: int) -> float:
    """Seconds."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    network.train()
    begun, done = time.process_time(), 0
    while True:
        for part in torch.randperm(len(y), generator=generator).split(size):
            logits = network(x[part])
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y[part].reshape(-1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done += 1
            if done == steps:
                return time.process_time() - begun


def ours(
    model: nn.Module, names: tuple[str, str], x: Tensor, y: Tensor, steps: int, size: int, compiled: bool
) -> float:
    """Seconds, of compiled steps those after the first."""
    batch = th.data.Batch(dict(zip(names, (x, y), strict=True)), dims=y.ndim)
    objective = th.Objective([th.LogLikelihood(model, th.data.Tensors(batch))])
    solver = th.Stochastic(
        steps=steps,
        batch_size=size,
        learning_rate=1e-3,
        lr_schedule="constant",
        held_out=None,
        restore_best=False,
        compile=compiled,
    )
    begun = time.process_time()
    state = solver.start(objective)
    if compiled:
        state = solver.step(objective, state)
        begun = time.process_time()
    while not solver.done(objective, state):
        state = solver.step(objective, state)
    seconds = time.process_time() - begun
    with torch.no_grad():
        for into, p in zip(model.parameters(), state.ended.parameters(), strict=True):
            into.copy_(p)
    return seconds * steps / (steps - 1) if compiled else seconds


def compared(
    name: str,
    network: nn.Module,
    wrap: Callable[[nn.Module], nn.Module],
    names,
    x,
    y,
    steps: int,
    size: int,
    times: int,
    compiled: bool = False,
):
    ratios, speeds = [], []
    for k in range(times + 1):
        first, second = copy.deepcopy(network), wrap(copy.deepcopy(network))
        if k % 2:
            us, them = ours(second, names, x, y, steps, size, compiled), bare(first, x, y, steps, size)
        else:
            them, us = bare(first, x, y, steps, size), ours(second, names, x, y, steps, size, compiled)
        if k:  # the first warms up
            ratios.append(them / us)
            speeds.append((steps / us, steps / them))
    same = max(
        float((a - b).detach().abs().max())
        for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    ratio, bar = statistics.median(ratios), 1.3 if compiled else 0.97
    our, bares = (statistics.median(s[i] for s in speeds) for i in (0, 1))
    print(
        f"| {name} | {our:.0f} | {bares:.0f} | {ratio:.3f} | {bar} {'met' if ratio >= bar else 'MISSED'} | "
        f"{same:.1e} |",
        flush=True,
    )


def main(times: int = 7) -> None:
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    classes = lambda network: th.models.Conditional(th.families.Categorical(10), network)  # noqa: E731
    print(
        "| network | thetahat, steps/s | bare loop, steps/s | ratio | bar | largest difference of θ "
        "|\n|---|---|---|---|---|---|"
    )
    x, y = torch.randn(4096, 20, generator=g), torch.randint(10, (4096,), generator=g)
    for compiled in (False, True):
        compared(
            f"small: 20-64-10, batch 128{', compiled' if compiled else ''}",
            th.networks.mlp(20, 64, 10),
            classes,
            ("x", "y"),
            x,
            y,
            600,
            128,
            5 * times,
            compiled,
        )
    x, y = torch.randn(4000, 784, generator=g), torch.randint(10, (4000,), generator=g)
    compared(
        "medium: 784-512-512-10, batch 128",
        th.networks.mlp(784, (512, 512), 10),
        classes,
        ("x", "y"),
        x,
        y,
        100,
        128,
        times,
    )
    x, y = torch.randint(65, (400, 64), generator=g), torch.randint(65, (400, 64), generator=g)
    network = th.networks.Transformer(65, layers=4, width=128, heads=4)
    for compiled in (False, True):
        compared(
            f"GPT: 4 layers, 128 wide, 12 × 64 tokens{', compiled' if compiled else ''}",
            network,
            th.language.Autoregressive,
            ("input", "target"),
            x,
            y,
            40,
            12,
            times,
            compiled,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
