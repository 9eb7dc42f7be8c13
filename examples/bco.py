"""BCO: maximise Σ w log σ(±(β log π/π_ref(a) − δ)), answers that are desirable or not, without pairs."""

from __future__ import annotations

import torch
from toy_language import BETA, EVERY, LENGTH, START, Table, distance, reward

import thetahat as th
from thetahat.tour.row import Row


def run(quick: bool = False) -> Row:
    policy, reference = th.language.Autoregressive(Table()), th.language.Autoregressive(Table())
    before = distance(policy, reference)
    rows = [
        {"prompt": [START], "completion": answer, "label": label}
        for answer in EVERY.tolist()
        for label in (True, False)
    ]
    r = reward(EVERY)
    share = torch.stack(
        [torch.sigmoid(r - 0.3), torch.sigmoid(0.3 - r)], 1
    )  # who calls it desirable, and who does not
    judged = th.preferences.Labelled(rows, context=LENGTH + 1).whole.with_count(share.flatten())
    found = th.fit(
        th.preferences.BCO(policy, reference, BETA),
        th.data.Tensors(judged, target="label"),
        solver=th.LBFGS(),
        on_failure="return",
    )
    after = distance(found.model.policy, reference)
    return Row(
        "BCO",
        "27 sentences, each desirable to some",
        "Σ w log σ(±(β log π/π_ref(a) − δ))",
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
