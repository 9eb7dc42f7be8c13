"""What each process of test_alone.py does: fits under torch.distributed, and questions that the first process
asks alone.

python -m torch.distributed.run --standalone --nproc-per-node 2 alone.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

import thetahat as th
from thetahat.data import Tensors


def rows(part: slice) -> Tensors:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(90, 2, generator=g, dtype=torch.float64)
    return Tensors({"x": x[part], "y": (x.sum(1) + torch.randn(90, generator=g, dtype=torch.float64))[part]})


def network() -> th.models.Conditional:
    return th.models.Conditional(th.families.Normal(), th.networks.mlp(2, 4, 2, dtype=torch.float64))


@th.model(a=0.0, b=torch.zeros(2, dtype=torch.float64))
def line(batch, a, b):
    return -0.5 * (batch["y"] - a - batch["x"] @ b) ** 2


def asked(fit: th.Fit) -> dict[str, object]:
    return {
        "log_likelihood": fit.log_likelihood,
        "n": fit.observations,
        "summary": str(fit.summary()),
        "repr": repr(fit),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    me = torch.distributed.get_rank()
    halves = slice(0, 45) if me == 0 else slice(45, None)
    solver = th.Stochastic(steps=6, batch_size=30, held_out=None)
    found: dict[str, object] = {}
    for name, part in (("whole", slice(None)), ("parts", halves)):
        trained = th.fit(network(), rows(part), solver=solver, run=folder / f"run of {name}")
        newton = th.fit(line, rows(part))
        if me == 0:  # alone: the other process goes on to the next fit, and waits for none of this
            found[name] = {"trained": asked(trained), "newton": asked(newton), "theta": newton.theta.tolist()}
            found[name]["errors"] = newton.standard_errors().tolist() if name == "whole" else None
    if me == 0:
        (folder / "found.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a process that ends the usual way
