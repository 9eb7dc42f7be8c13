"""How long a fit would take that nobody has run: python benchmarks/scale_on_paper.py [--rows 1e12] [--workers 1000] …

    regression    seconds a pass = rows of a worker · max(bytes a row / read, columns · kernel / cores)
                                   + partitions · (bytes of a partial sum / network + adding one) + start of a pass
    network       seconds a step = 6 · parameters · tokens / (GPUs · arithmetic)  +  3 · bytes of θ · (N − 1)/N / network

What can be measured on one core is measured here, by the process's own time (a busy machine's caches are still
shared); all else is assumed, printed as such, and an argument. Reading and computing are taken to overlap, which is
hopeful; gathering parameters and computing are not, which is the contrary.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

import thetahat as th
from thetahat.data.partitions import Partitions, Work

ROWS, SAMPLES = 262_144, 5


class Here(Partitions):
    """Parts of a data frame in this process: the route of an engine, without one."""

    name, passes = "data frame in parts", 0

    def __init__(self, frame: pd.DataFrame, many: int):
        size = -(-len(frame) // many)
        self._parts = [frame.iloc[at : at + size] for at in range(0, len(frame), size)]
        super().__init__()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self._parts[0].columns)

    def run(self, work: Work, columns: Sequence[str]) -> Iterator[bytes]:
        self.passes += 1
        return (work(k, [part]) for k, part in enumerate(self._parts))


def least(function) -> float:
    """The process's seconds of the fastest of some calls."""
    found = []
    for _ in range(SAMPLES):
        begin = time.process_time()
        function()
        found.append(time.process_time() - begin)
    return min(found)


def of_regression(columns: int) -> dict[str, float]:
    """What a Poisson regression of so many columns asks of a core, and of the network: measured."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(ROWS, columns)), columns=[f"x{j}" for j in range(columns)])
    frame["y"] = rng.poisson(np.exp(0.1 * frame["x0"]))
    formula = "y ~ " + " + ".join(f"x{j}" for j in range(columns))
    engine = Here(frame, 8)
    fit = th.fit(formula, engine, "poisson")
    fit.standard_errors()
    passes, before, objective = engine.passes, engine.bytes_returned, fit.objective
    seconds = least(lambda: objective.terms[0].taylor(2))
    partial = (engine.bytes_returned - before) / SAMPLES / 8
    one = objective.terms[0].taylor(2)
    return {
        "kernel": seconds / ROWS / columns,
        "partial": partial,
        "adding": least(lambda: one + one),
        "passes": float(passes),
    }


def of_network() -> dict[str, float]:
    """Operations a parameter and token, and bytes of AdamW's state a parameter, of this library's Transformer: counted."""
    network = th.networks.Transformer(512, layers=8, width=512, heads=8)
    tokens = torch.randint(0, 512, (2, 256))
    optimiser = torch.optim.AdamW(network.parameters())
    with FlopCounterMode(display=False) as counted:
        network(tokens).sum().backward()
    optimiser.step()
    held = sum(p.numel() for p in network.parameters())
    moments = sum(
        t.numel() * t.element_size() for s in optimiser.state.values() for t in s.values() if t.numel() > 1
    )
    own = sum(
        p.numel() * p.element_size() + p.grad.numel() * p.grad.element_size() for p in network.parameters()
    )
    return {
        "operations": counted.get_total_flops() / held / tokens.numel(),
        "state": (own + moments) / held,
        "theta": sum(p.numel() * p.element_size() for p in network.parameters()) / held,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value, unit in (
        ("rows", 1e12, ""), ("workers", 1000, ""), ("columns", 30, ""), ("cores", 16, "a worker"),
        ("read", 1e9, "bytes a second that a worker reads"), ("network", 1.25e9, "bytes a second into the driver"),
        ("start", 2.0, "seconds that an engine needs to start a pass"), ("parameters", 7e9, ""), ("gpus", 64, ""),
        ("tokens", 4e6, "a step"), ("arithmetic", 4e14, "operations a second of a GPU"),
        ("link", 5e10, "bytes a second of a GPU's network"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=float, default=float(value), help=unit)
    return parser.parse_args()


def say_regression(a: argparse.Namespace) -> None:
    m = of_regression(int(a.columns))
    mine, wide = a.rows / a.workers, 8 * (a.columns + 1)
    reading, computing = mine * wide / a.read, mine * a.columns * m["kernel"] / a.cores
    merging = a.workers * (m["partial"] / a.network + m["adding"])
    one, moved = max(reading, computing) + merging + a.start, a.workers * m["partial"]
    print(f"""{a.rows:.0e} rows x {a.columns:.0f} columns on {a.workers:.0f} workers, a partition each
  measured  {m["kernel"] * 1e9:.1f} ns a row and column on one core (encoding, value, gradient, information)
            {m["partial"]:,.0f} bytes a partial sum; {m["adding"] * 1e6:.0f} us to add one
            {m["passes"]:.0f} passes of a fit and its errors
  assumed   {a.cores:.0f} cores a worker, each reads {a.read / 1e9:.1f} GB/s; {a.network / 1e9:.2f} GB/s into the driver
            {a.start:.0f} s to start a pass
  a pass    read {mine * wide / 1e9:,.0f} GB a worker, {reading:,.0f} s; compute {computing:,.0f} s; merge {merging:.2f} s
            {moved / 1e6:.1f} MB come to the driver, of {a.rows * wide / 1e12:,.0f} TB of rows
  a fit     {m["passes"] * one / 60:,.0f} minutes, {m["passes"] * moved / 1e6:.0f} MB""")


def say_network(a: argparse.Namespace) -> None:
    n = of_network()
    arithmetic = n["operations"] * a.parameters * a.tokens / (a.gpus * a.arithmetic)
    moved = 3 * a.parameters * n["theta"] * (a.gpus - 1) / a.gpus
    step, state = arithmetic + moved / a.link, a.parameters * n["state"]
    print(f"""{a.parameters:.0e} parameters on {a.gpus:.0f} GPUs, {a.tokens:.0e} tokens a step, distributed='fsdp'
  counted   {n["operations"]:.2f} operations a parameter and token
            {n["state"]:.0f} bytes of theta, gradient and moments a parameter
  assumed   {a.arithmetic / 1e12:.0f} TFLOP/s and {a.link / 1e9:.0f} GB/s of network a GPU, one after the other
            theta gathered twice in float32, its gradient scattered once
  memory    {state / a.gpus / 1e9:.2f} GB a GPU beside activations, of {state / 1e9:.0f} GB
  a step    compute {arithmetic:.1f} s; {moved / 1e9:.0f} GB in and out of each GPU, {moved / a.link:.1f} s
            {a.tokens / step / 1e6:.2f} million tokens a second
  1e12 tokens take {1e12 / a.tokens * step / 86400:.0f} days""")


def main() -> None:
    torch.set_num_threads(1)
    a = arguments()
    say_regression(a)
    say_network(a)


if __name__ == "__main__":
    main()
