"""Every system on one accelerator: terms a second beside the CPU and beside a bare loop in torch, memory, the share
of the device's peak, and the same answer as the CPU.

    python benchmarks/gpu.py                  on the accelerator that torch finds, within 8 minutes
    python benchmarks/gpu.py --device cpu     the script itself, on a machine without one

The same answer: ten steps of plain gradient ascent in float32 (without TF32) of a small model of each system, once on
the device and once on the CPU: the largest |Δθ| beside the largest |θ − θ_0|. Throughput: a large model, bfloat16
products, AdamW, as many steps as fit in the seconds given, after twenty that warm up. The bare loop is what a user would
write by hand: the same network, batches on the device already, cross-entropy, no check of what is finite.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import thetahat as th
from thetahat.solvers import throughput

RESULT = Path(__file__).parent / "results" / "gpu.md"
mlp, Objective, LogLikelihood = th.networks.mlp, th.Objective, th.LogLikelihood


@dataclass
class System:
    """What is trained, small (for the same answer) and large (for the speed)."""

    name: str
    make: Callable[[bool], Objective]
    batch: tuple[int, int] = (16, 256)  # rows of a step
    bare: Callable[[Objective, int], Callable[[], None]] | None = None  # a step of a loop by hand
    needs: str = ""  # a package


def images(large: bool, levels: int = 16) -> Tensor:
    side, rows = (32, 8192) if large else (8, 64)
    return torch.randint(
        levels, (rows, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )


def classifier(large: bool) -> Objective:
    x = images(large).flatten(1)
    y = torch.randint(10, (len(x),), generator=torch.Generator().manual_seed(1))
    side = 32 if large else 8
    network = th.generative.ConvNet((side, side), 10, (64, 128, 256) if large else (4, 8), levels=16)
    model = th.models.Conditional(th.families.Categorical(10), network)
    return Objective([LogLikelihood(model, th.data.Tensors({"x": x, "y": y}))])


def perceptron(large: bool) -> Objective:
    x = torch.randn(8192 if large else 64, 1024 if large else 16, generator=torch.Generator().manual_seed(0))
    y = torch.randint(10, (len(x),), generator=torch.Generator().manual_seed(1))
    network = mlp(x.shape[1], (4096, 4096) if large else (16,), 10)
    model = th.models.Conditional(th.families.Categorical(10), network)
    return Objective([LogLikelihood(model, th.data.Tensors({"x": x, "y": y}))])


def gpt(large: bool) -> Objective:
    V, T = (8192, 512) if large else (32, 16)
    tokens = torch.randint(V, (512 if large else 32, T + 1), generator=torch.Generator().manual_seed(0))
    batch = th.data.Batch({"input": tokens[:, :-1], "target": tokens[:, 1:]}, dims=2)
    size = {"layers": 12, "width": 768, "heads": 12} if large else {"layers": 2, "width": 32, "heads": 2}
    model = th.language.Autoregressive(th.networks.Transformer(V, **size))
    return Objective([LogLikelihood(model, th.data.Tensors(batch, target="target"))])


def vae(large: bool) -> Objective:
    d = 1024 if large else 64
    encoder, decoder = mlp(d, (1024,) if large else (16,), 64), mlp(32, (1024,) if large else (16,), d * 16)
    model = th.generative.VAE(encoder, decoder, th.families.Categorical(16), latent=32)
    return Objective([LogLikelihood(model, th.generative.Images(images(large).numpy(), 16))])


def diffusion(large: bool) -> Objective:
    side = 32 if large else 8
    network = th.generative.UNet((side, side), channels=(64, 128) if large else (4, 8))
    model = th.generative.Diffusion(network, levels=16, predict="epsilon")
    return Objective([LogLikelihood(model, th.generative.Images(images(large).numpy(), 16))])


def flow(large: bool) -> Objective:
    x = torch.randn(8192 if large else 64, 64 if large else 4, generator=torch.Generator().manual_seed(0))
    model = th.generative.Flow.affine(x.shape[1], transforms=5, hidden=(512,) if large else (8,))
    return Objective([LogLikelihood(model, th.data.Tensors({"y": x}))])


def ppo(large: bool) -> Objective:
    width, envs = (256, 64) if large else (16, 8)
    value = th.rl.Value(mlp(4, (width, width), 1, "tanh", seed=1))
    rollouts = th.rl.Rollouts(
        "CartPole-v1",
        envs,
        num_steps=32,
        advantage=th.rl.GAE(value, normalise=True),
        epochs=8,
        batch_size=256,
    )
    policy = th.rl.Policy(mlp(4, (width, width), 2, "tanh", seed=0))
    return Objective([LogLikelihood(policy, rollouts, th.rl.Clipped()), LogLikelihood(value, rollouts)])


def c51(large: bool) -> Objective:
    model = th.rl.C51(mlp(4, (256, 256) if large else (16,), 2 * 51, seed=0), 0.0, 100.0)
    replay = th.rl.Replay("CartPole-v1", 8, learning_starts=200, batch_size=256 if large else 16)
    return Objective([LogLikelihood(model, replay)])


def language_model(large: bool, seed: int = 0) -> th.language.Autoregressive:
    size = {"layers": 6, "width": 384, "heads": 6} if large else {"layers": 1, "width": 16, "heads": 2}
    return th.language.Autoregressive(th.networks.Transformer(512 if large else 16, seed=seed, **size))


def dpo(large: bool) -> Objective:
    V, T, n = (512, 128, 256) if large else (16, 6, 16)
    tokens = torch.randint(V, (n, 3, T), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in tokens]
    model = th.preferences.DPO(language_model(large), language_model(large, 1), 0.1)
    return Objective([LogLikelihood(model, th.preferences.TokenPairs(rows, context=2 * T + 2))])


def grpo(large: bool) -> Objective:
    draws = th.language.Generations(
        [[0], [1]],
        lambda prompts, answers: torch.tensor([float((a == 1).sum()) for a in answers]),
        max_new_tokens=64 if large else 4,
        num_generations=32 if large else 4,
        advantage=th.language.GroupRelative(),
        reference=language_model(large, 1),
        kl_coef=0.1,
    )
    return Objective([LogLikelihood(language_model(large), draws, th.rl.Clipped())])


def by_hand(inputs: str, target: str) -> Callable[[Objective, int], Callable[[], None]]:
    """A step of cross-entropy, bfloat16 autocast, AdamW, of the network of a classifier or a language model."""

    def made(objective: Objective, size: int) -> Callable[[], None]:
        model: Any = objective.model
        source: Any = objective.terms[0].source
        device = next(model.parameters()).device
        x, y = (source.whole[name].to(device) for name in (inputs, target))
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=1e-3, weight_decay=0.0, fused=device.type == "cuda"
        )
        order = iter(torch.randperm(len(y)).repeat(10_000).split(size))

        def step() -> None:
            rows = next(order).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                logits = model.network(x[rows])
                loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), y[rows].reshape(-1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return step

    return made


SYSTEMS = [
    System("classifier, perceptron", perceptron, (16, 1024), by_hand("x", "y")),
    System("classifier, ConvNet", classifier, (16, 512), by_hand("x", "y")),
    System("GPT, 124 million parameters", gpt, (8, 16), by_hand("input", "target")),
    System("VAE", vae),
    System("diffusion, UNet", diffusion, (16, 128)),
    System("flow", flow, (16, 1024), needs="zuko"),
    System("PPO, CartPole", ppo, needs="gymnasium"),
    System("C51, CartPole", c51, needs="gymnasium"),
    System("DPO", dpo, (8, 32)),
    System("GRPO", grpo),
]


# ---- what is measured --------------------------------------------------------------------------------------


def apart(system: System, device: str) -> float:
    """max |θ_device − θ_CPU| / max |θ_CPU − θ_0| after ten steps."""
    ends = []
    for where in (device, "cpu"):
        torch.manual_seed(0)
        objective = system.make(False)
        begun = objective.theta
        solver = th.Stochastic(
            steps=10,
            batch_size=system.batch[0],
            optimiser="sgd",
            learning_rate=1e-3,
            held_out=None,
            device=where,
        )
        ends.append(th.maximize(objective, solver=solver).to("cpu").objective.theta)
    return float((ends[0] - ends[1]).abs().max() / (ends[1] - begun).abs().max())


def speed(system: System, device: str, seconds: float, large: bool) -> tuple[float, dict[str, float]]:
    """(terms a second, what else the accelerator says)."""
    torch.manual_seed(0)
    solver = th.Stochastic(
        steps=1_000_000,
        batch_size=system.batch[large],
        learning_rate=1e-4,
        lr_schedule="constant",
        held_out=None,
        restore_best=False,
        precision=torch.bfloat16,
        device=device,
        in_place=True,
        evaluate_every=1_000_000,
    )
    objective = system.make(large)
    state = solver.start(objective)
    for _ in range(20 if large else 3):
        state = solver.step(objective, state)
    seen, begun = state.seen, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        state = solver.step(objective, state)
    rate = (state.seen - seen) / (time.perf_counter() - begun)
    return rate, state.used(rate)


def bare(system: System, device: str, seconds: float, large: bool) -> float:
    """Rows a second of the loop by hand (of tokens, in rows of their length)."""
    assert system.bare is not None
    objective = system.make(large)
    objective.move(torch.device(device))
    step = system.bare(objective, system.batch[large])
    for _ in range(20 if large else 3):
        step()
    _wait(device)
    steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        step()
        steps += 1
    _wait(device)
    source: Any = objective.terms[0].source
    return steps * system.batch[large] * source.whole[:1].total / (time.perf_counter() - begun)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def row(system: System, device: str, seconds: float, large: bool) -> str:
    away = apart(system, device)
    rate, used = speed(system, device, seconds, large)
    beside = f"{rate / bare(system, device, seconds, large):.2f}" if system.bare is not None else ""
    here = rate if device == "cpu" else speed(system, "cpu", seconds / 2, large)[0]
    share = f"{100 * used['mfu']:.0f} %" if "mfu" in used else ""
    held = f"{used['peak_memory'] / 1e9:.2f} GB" if "peak_memory" in used else ""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return f"| {system.name} | {away:.1e} | {rate:,.0f} | {beside} | {rate / here:.1f} | {share} | {held} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of speed")
    asked = parser.parse_args()
    found = th.data.devices.chosen(asked.device)
    assert found is not None
    device, large = found.type, found.type != "cpu"
    name = torch.cuda.get_device_name(found) if device == "cuda" else device
    most = throughput.peak(found)
    lines = [
        f"# Every system on one accelerator: {name}, torch {torch.__version__}",
        "",
        "Terms a second in bfloat16; MFU beside "
        + (f"{most / 1e12:.0f} TFLOP/s" if most else "the maker's peak, which is not known here")
        + ". Made by `python benchmarks/gpu.py`, which says what each column is.",
        "",
        "| system | away from the CPU's θ | terms/s | bare loop, ratio | CPU, ratio | MFU | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for system in SYSTEMS:
        if system.needs and find_spec(system.needs) is None:
            lines.append(f"| {system.name} | needs {system.needs} | | | | | |")
        else:
            lines.append(row(system, device, asked.seconds if large else 0.5, large))
        print(lines[-1], flush=True)
    if large:
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
