"""DPO: maximise Σ w log σ(β log π/π_ref(a) − β log π/π_ref(b))."""

from __future__ import annotations

import torch
from toy_language import BETA, EVERY, LENGTH, START, Table, distance, reward

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    policy, reference = th.language.Autoregressive(Table()), th.language.Autoregressive(Table())
    before = distance(policy, reference)
    near = [(a, (a + k) % len(EVERY)) for a in range(len(EVERY)) for k in (1, 5)]
    pairs = torch.tensor(
        near + [(b, a) for a, b in near]
    )  # each sentence is judged against four others, both ways round
    rows = [
        {"prompt": [START], "chosen": EVERY[a].tolist(), "rejected": EVERY[b].tolist()}
        for a, b in pairs.tolist()
    ]
    r = reward(EVERY)
    judged = th.preferences.TokenPairs(rows, context=LENGTH + 1).whole.with_count(
        torch.sigmoid(r[pairs[:, 0]] - r[pairs[:, 1]])
    )
    found = th.fit(
        th.preferences.DPO(policy, reference, BETA),
        th.data.Tensors(judged, target="preference"),
        solver=th.LBFGS(),
        on_failure="return",
    )
    after = distance(found.model.policy, reference)
    return Row(
        "DPO",
        "108 pairs of 27 sentences, as judged",
        "Σ w log σ(β log π/π_ref(a) − β log π/π_ref(b))",
        "−KL to the optimum, nats",
        -before,
        -after,
        f"L-BFGS, {found.certificate.steps} steps; logits of one beginning have a common constant that means "
        "nothing",
        f"optimum π_ref e^(r/β)/Z in closed form; found {after:.1e} nats away",
        after < 1e-3,
    )


if __name__ == "__main__":
    print(run())
