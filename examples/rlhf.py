"""RLHF, by RLOO: maximise Σ (R − R̄_others) log π(o),  R = r − β log π/π_ref."""

from __future__ import annotations

import torch
from toy_language import BETA, LENGTH, START, Table, distance, reward

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    policy, reference = th.language.Autoregressive(Table()), th.language.Autoregressive(Table())
    before = distance(policy, reference)
    judged = lambda prompts, answers: reward(torch.stack(answers))  # noqa: E731
    draws = th.language.Generations(
        [[START]],
        judged,
        max_new_tokens=LENGTH,
        num_generations=256,
        advantage=th.language.RLOO(),
        reference=reference,
        kl_coef=BETA,
    )
    solver = th.Stochastic(steps=120 if quick else 300, learning_rate=0.1, lr_schedule="linear")
    after = distance(th.fit(policy, draws, weights=th.rl.Advantage(), solver=solver).model, reference)
    return Row(
        "RLHF, by RLOO",
        "its own sentences, 27 of them possible",
        "Σ (R − R̄_others) log π(o),  R = r − β log π/π_ref",
        "−KL to the optimum, nats",
        -before,
        -after,
        f"stochastic: {solver.steps} passes of 256 sentences",
        f"optimum π_ref e^(r/β)/Z in closed form; found {after:.4f} nats away",
        None if quick else after < 0.01,
    )


if __name__ == "__main__":
    print(run())
