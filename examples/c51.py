"""C51: maximise Σ_i Σ_k m_ik log p_k(s_i, a_i),  m = Bellman's right-hand side."""

from __future__ import annotations

import torch
from torch import nn

import thetahat as th
from thetahat.tour.row import Row

ROADS = th.data.FiniteMDP(
    [
        [[(0.9, 3.0, 1), (0.1, -10.0, 1)], [(1.0, 1.0, 1)]],
        [[(0.5, 1.0, 1), (0.5, 1.0, None)], [(1.0, 0.0, None)]],
    ],
    start=None,
)


def run(quick: bool = False) -> Row:
    """C51 on a replay of the process, and its distance from the exact distribution under the best policy."""
    low, high, K = -10.0, 14.0, 25  # whole numbers: every return lies on an atom
    table = nn.Embedding(2, 2 * K)
    nn.init.zeros_(table.weight)
    model = th.rl.C51(table, low, high, K)
    known = ROADS.returns([[1, 0], [1, 0]])  # the best policy in the mean, by hand
    before = _distance(model, known)
    replay = th.rl.Replay(
        ROADS,
        64,
        learning_starts=2000,
        train_frequency=32,
        batch_size=256,
        discount=1.0,
        target_update_interval=10,
        exploration=(1.0, 1.0, 0),
    )
    solver = th.Stochastic(steps=150 if quick else 400, learning_rate=0.3, lr_schedule="linear")
    after = _distance(th.fit(model, replay, solver=solver).model, known)
    return Row(
        "C51",
        "two roads, played at random",
        "Σ_i Σ_k m_ik log p_k(s_i, a_i),  m = Bellman's right-hand side",
        "−distance (Wasserstein) from the exact distribution of the return",
        -before,
        -after,
        f"stochastic: {solver.steps} steps on a replay of {replay.played} transitions",
        f"0, the distribution being known exactly; found {after:.2f}, uniform masses {before:.2f}",
        None if quick else after < 0.2,
    )


def _distance(model: th.rl.C51, known: list[list[th.data.finite.Mass]]) -> float:
    from scipy.stats import wasserstein_distance

    values, mass = (each.detach().double().numpy() for each in model.distribution(torch.arange(len(known))))
    return max(
        float(wasserstein_distance(values[s, a], each[0], mass[s, a], each[1]))
        for s, row in enumerate(known)
        for a, each in enumerate(row)
    )


if __name__ == "__main__":
    print(run())
