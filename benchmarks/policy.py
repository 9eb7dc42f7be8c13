"""CartPole-v1: PPO through `fit` beside Stable-Baselines3's, at identical settings and at settings of our
own.

    python benchmarks/policy.py --sb3 PYTHON [--seeds 10] [--same-seeds 5] [--results FILE]

PYTHON is an interpreter that has stable-baselines3 (which may ask for another gymnasium, hence not this one).
Identical settings are those that RL Zoo tuned for it: 8 environments, 32 steps each, 20 epochs of batches of
256, γ 0.98, λ 0.8, Adam at a rate falling from 1e-3, norms clipped at 0.5, two 64 × 64 tanh networks, 100,000
steps; the clip range is 0.2 throughout for both. Our own settings (the same networks, of states that a running mean and
variance normalise; the same networks with ReLU and many environments, with and without that; or a linear policy beside a
value function of one hidden layer) were chosen on seeds from 100 on; those reported are 0, 1, 2 …

Compiled: `Rollouts(vectorization="tensor", compile=True)` and `Stochastic(compile=True)`. What the first pass takes
longer than the median pass is compilation; it is told apart, in seconds of the wall (compilers are processes of their
own), and no part of the other figures. torch keeps what it compiled: a second process takes less. The first run of
compiled settings, which may be the machine's first, is told apart once more.

Steps a second: everything that learning does, nothing of the evaluation. Time to 490: seconds of learning
until twenty greedy episodes, in environments of their own, looked at every 2,048 steps (4,096, where a pass has as
many), first return 490 on average. Greedy return: of twenty such episodes at the end. Training returns are not used for anything. One
thread each; seconds are of CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

ENVIRONMENT, EPISODES, LOOK, MARK = "CartPole-v1", 20, 2048, 490.0
IDENTICAL = {
    "copies": 8,
    "length": 32,
    "epochs": 20,
    "rate": 1e-3,
    "discount": 0.98,
    "trace": 0.8,
    "total": 100_000,
    "batch": 256,
}
OWN: dict[str, Any] = {
    "copies": 16,
    "length": 32,
    "epochs": 10,
    "rate": 2e-2,
    "discount": 0.99,
    "trace": 0.95,
    "total": 50_000,
    "batch": 512,
    "normalise": True,
    "scale": 10.0,
    "most": None,
    "clip": 0.1,
}
WIDE = {
    "copies": 128,
    "length": 32,
    "epochs": 4,
    "rate": 2e-2,
    "discount": 0.99,
    "trace": 0.95,
    "total": 200_000,
    "batch": 1024,
    "activation": "relu",
}
NORMALISED = WIDE | {"copies": 64, "normalise": True, "scale": 10.0, "most": None}
LINEAR = {
    "copies": 16,
    "length": 32,
    "epochs": 8,
    "rate": 4e-2,
    "discount": 0.99,
    "trace": 0.95,
    "total": 50_000,
    "batch": 512,
    "policy": (),
    "value": (64,),
}

PEER = "Stable-Baselines3"
OURS: dict[str, dict[str, Any]] = {
    "thetahat, its own settings": OWN,
    "thetahat, its own settings, compiled": OWN | {"compiled": True},
    "thetahat, 64 environments, ReLU, compiled": NORMALISED | {"compiled": True},
    "thetahat, 128 environments, ReLU, states as they are, compiled": WIDE | {"compiled": True},
    "thetahat, its own settings, a linear policy": LINEAR,
}
SAME: dict[str, dict[str, Any]] = {
    "thetahat, identical settings": IDENTICAL,
    "thetahat, identical settings, compiled": IDENTICAL | {"compiled": True},
}


def ours(
    seed: int, copies: int, length: int, epochs: int, rate: float, discount: float, trace: float, total: int, batch: int,
    policy: tuple[int, ...] = (64, 64), value: tuple[int, ...] = (64, 64), activation: str = "tanh", compiled: bool = False,
    normalise: bool = False, scale: float = 1.0, most: float | None = 0.5, clip: float = 0.2,
) -> dict[str, Any]:  # fmt: skip
    """normalise : the states, by their running mean and variance; scale : σ of the value function's term; most : the
    largest norm of the gradient"""
    import torch
    from torch import nn

    import thetahat as th
    from thetahat.rl.rollouts import returns

    torch.set_num_threads(1)
    networks = [
        th.networks.mlp(4, policy, 2, activation, seed=seed),
        th.networks.mlp(4, value, 1, activation, seed=seed + 1000),
    ]
    with torch.no_grad():
        networks[0][-1].weight.mul_(0.01)  # all actions equally probable at the start, as there
    if normalise:
        layer = th.networks.Normaliser(4)
        networks = [nn.Sequential(layer, network) for network in networks]
    chooses, expects = th.rl.Policy(networks[0]), th.rl.Value(networks[1], scale)
    advantage = th.rl.GAE(expects, discount, trace, normalise=True)
    rollouts = th.rl.Rollouts(
        ENVIRONMENT,
        copies,
        num_steps=length,
        advantage=advantage,
        epochs=epochs,
        batch_size=batch,
        seed=seed,
        vectorization="tensor" if compiled else "gymnasium",
        compile=compiled,
    )
    objective = th.LogLikelihood(chooses, rollouts, th.rl.Clipped(clip)) + th.LogLikelihood(expects, rollouts)
    passes = total // (copies * length)
    steps = epochs * -(-copies * length // batch)
    solver = th.Stochastic(
        steps=steps * passes, learning_rate=rate, lr_schedule="linear", max_grad_norm=most, in_place=True, compile=compiled
    )  # fmt: skip
    state, each, walls, reached, greedy = solver.start(objective), [], [], None, 0.0
    for i in range(passes):
        begun, wall = time.process_time(), time.perf_counter()
        for _ in range(steps):
            state = solver.step(objective, state)
        each.append(time.process_time() - begun)
        walls.append(time.perf_counter() - wall)
        if (reached is None and (i + 1) * copies * length % LOOK == 0) or i + 1 == passes:
            greedy = float(returns(chooses, ENVIRONMENT, EPISODES, seed=10_000 + seed).mean())
            if greedy >= MARK and reached is None:
                reached = (len(each), rollouts.played)
    if state.failure:
        raise SystemExit(state.failure)
    compilation = max(walls[0] - float(np.median(walls)), 0.0) if compiled else 0.0
    each[0] = float(np.median(each)) if compiled else each[0]
    return {
        "seconds": sum(each),
        "steps": rollouts.played,
        "reached": None if reached is None else (sum(each[: reached[0]]), reached[1]),
        "greedy": greedy,
        "compilation": compilation,
    }


def peer(seed: int, total: int) -> dict[str, Any]:
    """Stable-Baselines3's PPO, in this interpreter."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    several = gymnasium.make_vec(ENVIRONMENT, num_envs=EPISODES)
    spent = {"begun": 0.0, "looking": 0.0, "last": 0.0}
    found: dict[str, Any] = {"reached": None}

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            due = found["reached"] is None and self.num_timesteps % LOOK == 0
            if due or self.num_timesteps >= total:
                self.look()
            return True

        def look(self) -> None:
            begun = time.process_time()
            shown, _ = several.reset(seed=10_000 + seed)
            playing, sums = np.ones(EPISODES, dtype=bool), np.zeros(EPISODES)
            while playing.any():
                action, _ = self.model.predict(shown, deterministic=True)
                shown, reward, terminated, truncated, _ = several.step(action)
                sums += reward * playing
                playing &= ~(terminated | truncated)
            found["greedy"] = float(sums.mean())
            if found["greedy"] >= MARK and found["reached"] is None:
                found["reached"] = (begun - spent["begun"] - spent["looking"], self.num_timesteps)
            spent["looking"] += time.process_time() - begun

    model = PPO(
        "MlpPolicy", make_vec_env(ENVIRONMENT, n_envs=8, seed=seed), n_steps=32, batch_size=256, n_epochs=20, gamma=0.98, gae_lambda=0.8,
        learning_rate=lambda left: 1e-3 * left, clip_range=0.2, ent_coef=0.0, seed=seed, device="cpu",
    )  # fmt: skip
    spent["begun"] = time.process_time()
    model.learn(total, callback=Look())
    whole = time.process_time() - spent["begun"] - spent["looking"]
    return found | {"seconds": whole, "steps": model.num_timesteps}


def of_peer(python: str, seed: int, total: int) -> dict[str, Any]:
    folder = str(Path(__file__).parent)
    call = f"import sys, json; sys.path.insert(0, {folder!r}); import policy; print(json.dumps(policy.peer({seed}, {total})))"
    said = subprocess.run(
        [python, "-W", "ignore", "-c", call], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(said.splitlines()[-1])


def middle(values: list[float]) -> tuple[float, float, float]:
    """The interquartile mean over seeds, and its 95 % bootstrap interval (Agarwal et al. 2021, Deep RL at the
    edge of the statistical precipice)."""
    g, x = np.random.default_rng(0), np.array(values)

    def iqm(v: np.ndarray) -> float:
        cut = len(v) // 4
        return float(np.sort(v)[cut : len(v) - cut].mean())

    drawn = [iqm(g.choice(x, len(x))) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return iqm(x), float(low), float(high)


def row(name: str, runs: list[dict[str, Any]]) -> str:
    rate = np.median([r["steps"] / r["seconds"] for r in runs])
    reached = [r["reached"] for r in runs if r["reached"] is not None]
    when = f"{np.median([s for s, _ in reached]):.2f} s, {np.median([n for _, n in reached]):.0f} steps ({len(reached)} of {len(runs)})"
    iqm, low, high = middle([r["greedy"] for r in runs])
    seconds = np.median([r["seconds"] for r in runs])
    compilation = np.median([r.get("compilation", 0.0) for r in runs])
    return (
        f"| {name} | {rate:,.0f} | {when if reached else 'never'} | {iqm:.1f} ({low:.1f} to {high:.1f}) | {seconds:.1f} | "
        f"{f'{compilation:.1f}' if compilation else ''} |"
    )


def against(kinds: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Each beside Stable-Baselines3, with the bars of the project: 4 times its steps, 100,000 steps a second, 1/20 of its
    time."""
    late = [r["reached"][0] for r in kinds[PEER] if r["reached"]]
    lines = [""]
    for name in SAME:
        pace = [
            (a["steps"] / a["seconds"]) / (b["steps"] / b["seconds"])
            for a, b in zip(
                kinds[name], kinds[PEER], strict=False
            )  # as many as there are of the identical settings
        ]
        lines.append(
            f"{name}: {np.median(pace):.2f} times the steps a second of {PEER} (pairs of runs: "
            f"{', '.join(f'{p:.2f}' for p in pace)}); bar 4: {'met' if np.median(pace) >= 4 else 'MISSED'}."
        )
    for name in OURS:
        soon = [r["reached"][0] for r in kinds[name] if r["reached"]]
        rate = float(np.median([r["steps"] / r["seconds"] for r in kinds[name]]))
        less = np.median(late) / np.median(soon) if soon and late else 0.0
        lines.append(
            f"{name}: {rate:,.0f} steps a second, bar 100,000: {'met' if rate >= 1e5 else 'MISSED'}; to {MARK:.0f} in "
            f"{f'1/{less:.1f}' if less else 'no part'} of its time, bar 1/20: {'met' if less >= 20 else 'MISSED'}."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sb3", metavar="PYTHON")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--same-seeds", type=int, default=5)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    kinds: dict[str, list[dict[str, Any]]] = {name: [] for name in (*OURS, *SAME)}
    if given.sb3:
        kinds[PEER] = []
    for seed in range(given.seeds):  # in turn, so that a machine whose speed moves is fair to all
        for name, settings in OURS.items():
            kinds[name].append(ours(seed, **settings))
        if given.sb3:
            kinds[PEER].append(of_peer(given.sb3, seed, IDENTICAL["total"]))
        if seed < given.same_seeds:
            for name, settings in SAME.items():
                kinds[name].append(ours(seed, **settings))
        print({name: runs[-1] for name, runs in kinds.items() if runs}, flush=True)
    lines = [
        "# CartPole-v1: PPO, one thread, seconds of CPU",
        "",
        f"{given.seeds} seeds of our own settings and of {PEER}, {given.same_seeds} of the identical ones; medians; greedy "
        f"return of {EPISODES} episodes at the end: interquartile mean over seeds, 95 % bootstrap interval. Compilation: "
        "once, seconds of the wall, not in the other columns. What is not compiled plays gymnasium's own vectorised CartPole.",
        "",
        f"| | steps a second | to a greedy return of {MARK:.0f} | greedy return | seconds | compilation |",
        "|---|---|---|---|---|---|",
        *[row(name, runs) for name, runs in kinds.items()],
    ]
    if given.sb3:
        lines += against(kinds)
    print("\n".join(lines))
    if given.results is not None:
        given.results.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
