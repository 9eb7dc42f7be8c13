"""Two processes run as one does, to rounding: θ whole on each (DDP) or in shards (FSDP2); and go on where
they were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("fit_together.py")
NAMES = [
    "ddp",
    "fsdp",
    "ddp in pieces",
    "fsdp in pieces",
    "fsdp, muon",
    "ddp, resumed",
    "fsdp, resumed",
    "parts",
    "weighted",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The same runs by one process and by two."""
    folder = tmp_path_factory.mktemp("together")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning:thetahat"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words in ([], launch):
        ran = subprocess.run(
            [sys.executable, *words, str(SCRIPT), str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
    return [torch.load(folder / f"{many}.pt") for many in (1, 2)], folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_climb_as_one(found, name):
    """θ after 12 steps of AdamW or Muon on a small GPT (7 sequences a step: an odd share), its average, and
    every look: to float32's rounding; of a float64 network to 1e-10."""
    (one, two), _ = found
    (theta, trace), (other, second) = one[name], two[name]
    exact = theta.dtype == torch.float64
    # Muon makes a step orthogonal in bfloat16
    torch.testing.assert_close(
        other, theta, rtol=0, atol=1e-10 if exact else 2e-3 if "muon" in name else 1e-5
    )
    assert [step for step, *_ in trace] == [step for step, *_ in second]
    for (_, mean, _), (_, value, _) in zip(trace, second, strict=True):
        assert value == pytest.approx(mean, abs=1e-4 if "muon" in name else 1e-6)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_a_climb_of_two_processes_that_was_killed_goes_on_bit_for_bit(found, way):
    """Killed at step 8, after the checkpoint of step 6."""
    (_, two), folder = found
    assert torch.equal(two[f"{way}, resumed"][0], two[way][0])
    assert two[f"{way}, resumed"][1] == two[way][1]
    written = folder / f"{way} of 2"
    assert written.is_dir() if way == "fsdp" else written.is_file()
