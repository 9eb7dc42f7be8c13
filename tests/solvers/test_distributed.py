"""Two processes run as one does, to rounding: θ whole on each (DDP) or in shards (FSDP2); and go on where
they were killed."""

from __future__ import annotations

import importlib.util
import os
import socket
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning:thetahat"}
    # what torchrun tells each of its processes (test_alone.py starts torchrun itself)
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env=environment | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    spec = importlib.util.spec_from_file_location("fit_together", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    alone.main(folder)
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
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
