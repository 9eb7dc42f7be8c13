"""Two processes run as one does, to rounding: θ whole on each (DDP) or in shards (FSDP2); and go on where
they were killed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import thetahat as th
from thetahat.errors import BadSave

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
    module().main(folder)
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return [torch.load(folder / f"{many}.pt") for many in (1, 2)], folder


@pytest.fixture(scope="module")
def alone():
    """The script's functions, in this process."""
    return module()


def module():
    spec = importlib.util.spec_from_file_location("fit_together", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    out = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(out)
    return out


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


@pytest.fixture
def one_of_one():
    """What torchrun --nproc-per-node 1 is."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_folder_of_shards_is_refused_where_nobody_could_write_it(found, alone):
    path = found[1] / "fsdp of 2, stopped"
    with pytest.raises(
        BadSave, match=r"is a folder, of distributed='fsdp' under torchrun\..* not under torchrun"
    ):
        alone.maximised(replace(alone.WAYS["fsdp"], checkpoint=path))


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
@pytest.mark.usefixtures("one_of_one")
def test_one_process_goes_on_with_the_run_of_two(found, alone, way):
    """The checkpoint of step 6 of two processes; the run of one process is the oracle, to float32's rounding."""
    (one, _), folder = found
    path = folder / f"{way} of 2, stopped"
    if way == "fsdp":
        shutil.copytree(path, folder / "fsdp of 2, kept")
    theta, trace = alone.maximised(replace(alone.WAYS[way], checkpoint=path))
    torch.testing.assert_close(theta, one[way][0], rtol=0, atol=1e-5)
    assert [step for step, *_ in trace] == [step for step, *_ in one[way][1]]
    again, _ = alone.maximised(
        replace(alone.WAYS[way], checkpoint=path)
    )  # it has ended, and one process wrote it
    assert torch.equal(again, theta)
    assert path.is_dir() if way == "fsdp" else path.is_file()


@pytest.mark.usefixtures("one_of_one")
def test_a_folder_that_a_kill_cut_short_is_not_read_and_is_written_again(found, alone, tmp_path):
    """Beside the checkpoint of step 6, which `latest` names, lies half of the one of step 9."""
    paths = [tmp_path / "whole", tmp_path / "half"]
    for path in paths:
        shutil.copytree(found[1] / "fsdp of 2, kept", path)
    cut = paths[1] / "step-000000009"
    cut.mkdir()
    (cut / "__0_0.distcp").write_bytes(b"half of it")
    (whole, trace), (half, again) = (
        alone.maximised(replace(alone.WAYS["fsdp"], checkpoint=path)) for path in paths
    )
    assert torch.equal(half, whole)
    assert again == trace
    for path in paths:
        assert sorted(each.name for each in path.iterdir()) == ["latest", "step-000000012"]


def test_parts_of_the_data_go_on_where_they_were_and_only_with_as_many_processes(found, alone):
    (_, two), folder = found
    assert torch.equal(two["parts, resumed"][0], two["parts"][0])
    solver = th.Stochastic(steps=10, batch_size=90, learning_rate=0.1, held_out=None)
    solver = replace(solver, checkpoint=folder / "parts of 2", checkpoint_every=3)
    with pytest.raises(
        BadSave, match="is of 2 processes, each with a part of the data; the number of processes here is 1"
    ):
        th.maximize(alone.line(slice(None)), solver=solver)


@pytest.mark.parametrize("process", [0, 1])
def test_what_one_process_cannot_read_or_write_is_said_by_both(found, process):
    """A checkpoint on the disk of the first process alone; a folder that is a file."""
    _, folder = found
    said = json.loads((folder / f"said by {process}.json").read_text())
    assert "process 0 that of step 6, process 1 none" in said["another disk"]
    assert (
        "cannot be written: Not a directory" in said["ddp"]
        if process == 0
        else "another process" in said["ddp"]
    )
    assert "step-000000003 cannot be written: " in said["fsdp"]
    assert "a file" in said["fsdp"]
