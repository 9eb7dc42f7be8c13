"""A checkpoint is written beside the training: the file is that of a checkpoint for which the run waits, and no error
of its writing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import thetahat as th
from thetahat.errors import BadArgument, NotWritten
from thetahat.solvers import iterate
from thetahat.solvers.tensor_file import TYPES, parts


def objective() -> th.Objective:
    g = torch.Generator().manual_seed(0)
    rows = th.data.Tensors({"x": torch.randn(60, 3, generator=g), "y": torch.randint(2, (60,), generator=g)})
    layers = torch.nn.Sequential(torch.nn.BatchNorm1d(3), th.networks.mlp(3, (8,), 2, seed=1))
    return th.Objective([th.LogLikelihood(th.models.Conditional(th.families.Categorical(2), layers), rows)])


SOLVER = th.Stochastic(steps=8, batch_size=8, ema_decay=0.5, evaluate_every=2, held_out=0.25)


def waited_for(path: Path, steps: int) -> bytes:
    """The checkpoint of a step, by a run that goes no further until it is whole."""
    solver = th.Stochastic(**{**vars(SOLVER), "checkpoint": path, "checkpoint_every": 2})
    whole = objective()
    state = solver.start(whole)
    while state.step < steps:
        state = solver.step(whole, state)
    return path.read_bytes()


def beside(path: Path) -> th.Stochastic:
    return th.Stochastic(**{**vars(SOLVER), "checkpoint": path, "checkpoint_every": 2})


@pytest.fixture
def held_up(monkeypatch):
    """The first file reaches the disk only once the event is set."""
    free, first, real = threading.Event(), [True], os.fsync

    def slow(descriptor: int) -> None:
        if first and first.pop():
            assert free.wait(60)
        real(descriptor)

    monkeypatch.setattr("os.fsync", slow)
    yield free
    free.set()


def test_steps_go_on_while_a_file_is_written_and_change_nothing_in_it(tmp_path, held_up):
    """The file of step 2 is held up until step 4 (the next one is due after it): θ, moments, average, best θ and
    statistics of the batches have moved, the bytes are those of a run that waited."""
    found: list[bytes] = []

    def watch(state) -> None:
        if state.step == 4:
            assert not (tmp_path / "beside").exists()
            held_up.set()
            state.work.writer.finish()
            found.append((tmp_path / "beside").read_bytes())

    iterate(beside(tmp_path / "beside"), objective(), watch)
    assert found == [waited_for(tmp_path / "waited", 2)]
    assert (tmp_path / "beside").read_bytes() == waited_for(tmp_path / "waited to the end", 8)


def test_a_second_file_waits_for_the_first(tmp_path, held_up):
    """One at a time: the checkpoint of step 4 begins when that of step 2 is whole, so that step 5 sees it."""
    seen: list[tuple[int, bool]] = []

    def watch(state) -> None:
        seen.append((state.step, (tmp_path / "last").exists()))
        if state.step == 4:
            threading.Timer(0.05, held_up.set).start()

    iterate(beside(tmp_path / "last"), objective(), watch)
    assert seen[2:5] == [(2, False), (3, False), (4, False)]
    assert all(there for step, there in seen if step > 4)


@pytest.mark.parametrize(
    ("fails", "text"), [("disk", "No space left on device"), ("folder", "Not a directory")]
)
def test_what_cannot_be_written_is_raised_by_a_later_step_with_its_name(tmp_path, monkeypatch, fails, text):
    """The write after step 2 fails; nothing trains on until the last step as if it were kept."""
    (tmp_path / "file").touch()
    path = tmp_path / ("file/runs/last" if fails == "folder" else "last")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    if fails == "disk":
        monkeypatch.setattr("os.fsync", full)
    steps: list[int] = []
    with pytest.raises(NotWritten, match=f"last' cannot be written: {text}. None was written before"):
        iterate(beside(path), objective(), lambda state: steps.append(state.step))
    assert steps[-1] in (3, 4, 5)  # as soon as it is known, and no later than the next checkpoint
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_at_the_end_is_raised_at_the_end(tmp_path, monkeypatch):
    """The files of steps 2, 4 and 6 are whole, the last one is not."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def watch(state) -> None:
        if state.step == 8:
            state.work.writer.finish()
            monkeypatch.setattr("os.fsync", full)

    with pytest.raises(NotWritten, match=r"No space left on device\. The one before it is whole"):
        iterate(beside(tmp_path / "last"), objective(), watch)
    monkeypatch.undo()
    assert (tmp_path / "last").read_bytes() == waited_for(tmp_path / "waited", 6)


def test_an_error_of_the_run_waits_for_its_checkpoint_and_says_if_that_failed(tmp_path):
    def stop(state) -> None:
        if state.step == 3:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError):
        iterate(beside(tmp_path / "last"), objective(), stop)
    assert (tmp_path / "last").read_bytes() == waited_for(tmp_path / "waited", 2)
    (tmp_path / "file").touch()
    with pytest.raises(ZeroDivisionError) as caught:
        iterate(beside(tmp_path / "file" / "runs" / "last"), objective(), stop)
    assert "Besides: the checkpoint" in caught.value.__notes__[0]


SCRIPT = """
import os, signal, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_background import beside, iterate, objective
from pathlib import Path
torch.set_num_threads(1)
written, real = [], os.fsync
def fsync(descriptor):
    written.append(0)
    if len(written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
iterate(beside(Path(sys.argv[2])), objective())
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before_it(tmp_path):
    """kill -9 while the third file, that of step 6, is on its way to the disk: the second is whole, and the run that
    goes on is the run that was not killed."""
    path = tmp_path / "last"
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(path)]
    ran = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert path.read_bytes() == waited_for(tmp_path / "waited", 4)
    found = iterate(beside(path), objective())
    assert torch.equal(found.theta, iterate(SOLVER, objective()).theta)
    assert [each.name for each in tmp_path.iterdir() if each.name not in ("last", "waited")] == []


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_the_parts_of_a_file_are_the_bytes_that_safetensors_writes(kind):
    """safetensors.torch.save is the oracle: of one kind, and of all of them together; of no dimension, and empty."""
    every = {str(each): torch.arange(6).reshape(2, 3).to(torch.float32).to(each) for each in TYPES}
    some = {
        "b": every[str(kind)].T.contiguous(),
        "a": torch.zeros((), dtype=kind),
        "ü": torch.zeros(0, 2, dtype=kind),
    }
    for tensors in (some, every | some):
        assert b"".join(parts(tensors, {"of": "θ"})) == save(tensors, {"of": "θ"})
    strided = {"t": every[str(kind)].T}
    assert b"".join(parts(strided, {})) == save({"t": strided["t"].contiguous()}, {})


def test_a_tensor_that_a_file_cannot_hold_is_named():
    with pytest.raises(BadArgument, match=r"tensor 'z' is of torch\.complex128"):
        list(parts({"z": torch.zeros(2, dtype=torch.complex128)}, {}))
