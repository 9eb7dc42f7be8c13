"""What each process of test_elastic.py does: runs that are left alone, and the same runs in which the system kills a
process, after which torchrun starts all of them again.

torchrun --standalone --nproc-per-node 2 --max-restarts 3 elastic.py FOLDER [alone]
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import thetahat as th

TEXTS = [f"document {i} is of {i * i} and of {i**3}" for i in range(40)]
WAYS = {"ddp": 1, "fsdp": 0}  # and the process that is killed: one that writes nothing, the one that writes
AT = 8  # the step after which it is killed


def trained(way: str, run: Path, callback: Callable[..., None] | None = None) -> th.Fit:
    """A small GPT with dropout, whose draws are another process's own; AdamW, an average, clipped gradients."""
    network = th.networks.Transformer(257, layers=2, width=16, heads=2, dropout=0.1, seed=1)
    solver = th.Stochastic(
        steps=14,
        batch_size=7,
        ema_decay=0.5,
        max_grad_norm=1.0,
        held_out=0.2,
        evaluate_every=4,
        checkpoint_every=3,
        distributed=way,
    )
    rows = th.language.Tokens(TEXTS, context=32)
    return th.fit(th.language.Autoregressive(network), rows, solver=solver, run=run, callback=callback)


def dies_once(run: Path, victim: int) -> Callable[..., None]:
    """Kills the process after a step, once there is a checkpoint to go on from, and not a second time."""
    steps: list[int] = []

    def callback(state) -> None:
        me = torch.distributed.get_rank()
        if not steps:
            with (run.parent / f"{run.name} begins on {me}").open("a") as file:
                file.write(f"{state.step}\n")
        steps.append(state.step)
        marker, checkpoint = run.parent / f"{run.name} was killed", run / "checkpoint"
        if state.step == AT and me == victim and not marker.exists():
            while not (checkpoint.is_file() or (checkpoint / "latest").is_file()):
                time.sleep(0.01)
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return callback


def main(folder: Path, alone: bool) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    for way, victim in WAYS.items():
        killed = folder / f"{way} killed"
        trained(way, folder / f"{way} whole")
        if alone:
            continue
        fit = trained(way, killed, dies_once(killed, victim))
        said = folder / f"{way}.json"
        if (
            torch.distributed.get_rank() == 0 and not said.exists()
        ):  # the other way's kill starts this one again
            found = {
                "status": fit.certificate.status,
                "restarts": int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
            }
            said.write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["alone"])
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a process that ends the usual way
