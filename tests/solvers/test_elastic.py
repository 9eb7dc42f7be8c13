"""torchrun starts all processes again when one is killed: they go on from the last checkpoint, and the run ends where
the run that was left alone ended, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import thetahat as th
from thetahat.io import runs

from .elastic import AT, WAYS

SCRIPT = Path(__file__).with_name("elastic.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("elastic")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*torchrun, "--max-restarts", "3", "--monitor-interval", "0.1", str(SCRIPT), str(out)],
        # without it a second start may find the addresses of the first (pytorch issue 135712)
        env=os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    return out


@pytest.mark.parametrize("way", WAYS)
def test_the_process_was_killed_and_all_went_on_from_a_checkpoint(folder, way):
    """Each process began twice: at step 0, and at a step between the first checkpoint and the kill."""
    found = json.loads((folder / f"{way}.json").read_text())
    assert found["status"] == "stochastic"
    assert found["restarts"] > list(WAYS).index(way)
    begun = [(folder / f"{way} killed begins on {k}").read_text().split()[:2] for k in (0, 1)]
    assert begun[0] == begun[1]
    first, second = map(int, begun[0])
    assert first == 0
    assert 3 <= second <= AT


def tensors(run: Path, into: Path) -> dict[str, torch.Tensor]:
    """θ, its average and its best, the moments of the optimiser: all that the last checkpoint holds."""
    folder = run / "checkpoint"
    dcp_to_torch_save(folder / (folder / "latest").read_text(), into)
    return torch.load(into)


def test_the_last_checkpoint_is_that_of_the_run_left_alone_ddp(folder):
    """θ, moments, average, trace, settings: every byte of the file."""
    whole, killed = (folder / f"ddp {name}" / "checkpoint" for name in ("whole", "killed"))
    assert killed.read_bytes() == whole.read_bytes()


def test_the_last_checkpoint_is_that_of_the_run_left_alone_fsdp(folder, tmp_path):
    whole, killed = (tensors(folder / f"fsdp {name}", tmp_path / name) for name in ("whole", "killed"))
    assert {name.split(".")[0] for name in whole} == {"theta", "optimiser", "average", "best", "last"}
    assert killed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(killed[name], value), name
    said = [
        [json.loads(path.read_text()) for path in (folder / f"fsdp {name}").rglob("content.json")]
        for name in ("whole", "killed")
    ]
    assert said[0] == said[1]
    assert len(said[0]) == 1  # the older folders, and what the kill cut short, are gone


@pytest.mark.parametrize("way", WAYS)
def test_theta_and_the_lines_of_the_log_are_those_of_the_run_left_alone(folder, way):
    """Every number of every step, but times."""
    whole, killed = folder / f"{way} whole", folder / f"{way} killed"
    assert torch.equal(th.load(killed).theta, th.load(whole).theta)
    said = [
        [
            {k: v for k, v in line.items() if "second" not in k and k != "data_wait"}
            for line in runs.metrics(run)
        ]
        for run in (whole, killed)
    ]
    assert said[0] == said[1]
    assert [line["step"] for line in said[0]] == list(range(1, 15))
