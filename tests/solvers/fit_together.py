"""What each process of test_distributed.py does: the same runs, under torch.distributed or alone; the first
process writes what came out.

torchrun --standalone --nproc-per-node 2 fit_together.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadSave
from thetahat.language import Tokens
from thetahat.solvers import iterate

TEXTS = [f"document {i} is of {i * i} and of {i**3}" for i in range(40)]
CLIMB = th.Stochastic(
    steps=12,
    batch_size=7,
    ema_decay=0.5,
    max_grad_norm=1.0,
    held_out=0.2,
    evaluate_every=4,
    checkpoint_every=3,
)
WAYS = {
    "ddp": replace(CLIMB, distributed="ddp"),
    "fsdp": replace(CLIMB, distributed="fsdp"),
    "ddp in pieces": replace(CLIMB, distributed="ddp", accumulation_steps=3),
    "fsdp in pieces": replace(CLIMB, distributed="fsdp", accumulation_steps=3),
    "fsdp, muon": replace(CLIMB, distributed="fsdp", optimiser="muon"),
}


class Killed(BaseException):
    pass


def gpt() -> th.Objective:
    network = th.networks.Transformer(257, layers=2, width=16, heads=2, seed=1)
    return th.Objective([th.LogLikelihood(th.language.Autoregressive(network), Tokens(TEXTS, context=32))])


def maximised(solver: th.Stochastic) -> tuple:
    whole = gpt()
    state = iterate(solver, whole)
    return state.theta, state.trace


def resumed(solver: th.Stochastic) -> tuple:
    """Killed at step 8, after the checkpoint of step 6, and gone on."""

    stopped(solver, gpt())
    return maximised(solver)


def stopped(solver: th.Stochastic, objective: th.Objective) -> None:
    """Killed at step 8: its checkpoint is of step 6."""

    def kill(state) -> None:
        if state.step == 8:
            raise Killed

    with suppress(Killed):
        iterate(solver, objective, kill)


def line(part: slice) -> th.Objective:
    """A network in float64 and a prior, on one part of the rows."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(90, 2, generator=g, dtype=torch.float64)
    y = x.sum(1) + torch.randn(90, generator=g, dtype=torch.float64)
    model = th.models.Conditional(th.families.Normal(), th.networks.mlp(2, 4, 2, dtype=torch.float64))
    rows = Tensors({"x": x[part], "y": y[part]})
    return th.Objective([th.LogLikelihood(model, rows)]) + th.LogPrior(th.priors.Normal(2.0), model)


def weighted(solver: th.Stochastic) -> tuple:
    """A weighting that compares the terms of the whole batch."""
    whole = line(slice(None))
    whole.terms[0].weights = lambda batch, log_prob: torch.softmax(-log_prob, 0)
    state = iterate(solver, whole)
    return state.theta, state.trace


def said(work: Callable[[], object]) -> str:
    """The message of the error with which it ends."""
    try:
        work()
    except BadSave as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    alone = "RANK" not in os.environ
    if not alone:
        torch.distributed.init_process_group("gloo")
    me, many = (0, 1) if alone else (torch.distributed.get_rank(), torch.distributed.get_world_size())
    found = {name: maximised(solver) for name, solver in WAYS.items()}
    for way in ("ddp", "fsdp"):
        found[f"{way}, resumed"] = resumed(replace(WAYS[way], checkpoint=folder / f"{way} of {many}"))
    full = th.Stochastic(steps=10, batch_size=90, learning_rate=0.1, held_out=None)
    halves = line(slice(None) if alone else slice(0, 45) if me == 0 else slice(45, None))
    found["parts"] = (iterate(full, halves).theta, ())
    if not alone:
        for way in ("ddp", "fsdp"):
            stopped(replace(WAYS[way], checkpoint=folder / f"{way} of 2, stopped"), gpt())
        parted = replace(full, checkpoint=folder / "parts of 2", checkpoint_every=3)
        stopped(parted, line(slice(0, 45) if me == 0 else slice(45, None)))
        halves = line(slice(0, 45) if me == 0 else slice(45, None))
        found["parts, resumed"] = (iterate(parted, halves).theta, ())
        own = replace(WAYS["ddp"], checkpoint=folder / f"ddp of 2, own {me}")
        stopped(own, gpt())
        messages = {"another disk": said(lambda: iterate(own, gpt()))}
        (folder / "a file").touch()
        for way in ("ddp", "fsdp"):
            nowhere = replace(WAYS[way], checkpoint=folder / "a file" / "runs" / "last")
            messages[way] = said(lambda nowhere=nowhere: iterate(nowhere, gpt()))
        (folder / f"said by {me}.json").write_text(json.dumps(messages))
    found["weighted"] = weighted(replace(full, batch_size=30))
    if me == 0:
        torch.save(found, folder / f"{many}.pt")
    if not alone:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a process that ends the usual way
