"""A full disk costs the new file and nothing else; every error is the library's and names the file. Errors
travel between processes."""

from __future__ import annotations

import concurrent.futures
import inspect
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat import errors, files
from thetahat.errors import BadArgument, NotWritten, ThetahatError


@contextmanager
def full(room: int) -> Iterator[None]:
    """A disk on which no file can grow beyond `room` bytes: write(2) fails, as it does where no space is
    left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def fit() -> th.Fit:
    r = np.random.default_rng(0)
    return th.fit(
        "y ~ x + g", {"y": r.normal(size=90), "x": r.normal(size=90), "g": r.choice(list("abc"), 90)}
    )


WRITERS = {
    "fit.thetahat": lambda fit, path: fit.save(path),
    "report.html": lambda fit, path: fit.report(path),
    "text.txt": lambda fit, path: files.write_text(path, "0123456789" * 1000),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("before", [False, True])
def test_on_a_full_disk_nothing_is_half_written_and_what_stood_there_stays(fit, tmp_path, name, before):
    """Room for 500 bytes of several thousand."""
    path = tmp_path / name
    if before:
        WRITERS[name](fit, path)
    was = path.read_bytes() if before else None
    with full(500), pytest.raises(NotWritten, match=name):
        WRITERS[name](fit, path)
    assert [each.name for each in tmp_path.iterdir()] == ([name] if before else [])
    if before:
        assert path.read_bytes() == was
    WRITERS[name](fit, path)
    assert path.stat().st_size > 500


def classifier() -> th.Objective:
    g = torch.Generator().manual_seed(0)
    rows = th.data.Tensors({"x": torch.randn(60, 3, generator=g), "y": torch.randint(2, (60,), generator=g)})
    return th.Objective(
        [
            th.LogLikelihood(
                th.models.Conditional(th.families.Categorical(2), th.networks.mlp(3, (40,), 2, seed=1)), rows
            )
        ]
    )


# TensorBoard writes on a thread of its own, which may meet the full disk too, and nobody can catch what it raises
@pytest.mark.filterwarnings(
    "ignore:(?s)Exception in thread.*tensorboard:pytest.PytestUnhandledThreadExceptionWarning"
)
@pytest.mark.parametrize("room", [100, 1500, 3000, 6000])
def test_a_run_on_a_disk_that_fills_up_goes_on_from_its_checkpoint_once_there_is_room(tmp_path, room):
    """Whatever does not fit (configuration, metrics, checkpoint, fit, report), the same call then ends
    where a run with room ends."""
    solver = th.Stochastic(steps=30, batch_size=8, held_out=0.2, checkpoint_every=3)
    truth = th.maximize(classifier(), solver=solver)
    with full(room), pytest.raises(ThetahatError, match="cannot be written"):
        th.maximize(classifier(), solver=solver, run=tmp_path / "r")
    again = th.maximize(classifier(), solver=solver, run=tmp_path / "r")
    assert torch.equal(again.theta, truth.theta)
    assert not files.leftovers(tmp_path / "r")


BAD = ["a\0b", "a" * 300, "/tmp/" + "b" * 5000]
READERS = {
    "save": lambda fit, path: fit.save(path),
    "report": lambda fit, path: fit.report(path),
    "load": lambda fit, path: th.load(path),
    "fit": lambda fit, path: th.fit("y ~ x", path),
    "score": lambda fit, path: fit.score(path),
    "run": lambda fit, path: th.maximize(classifier(), solver=th.Stochastic(steps=2), run=path),
    "checkpoint": lambda fit, path: th.maximize(classifier(), solver=th.Stochastic(steps=2, checkpoint=path)),
    "tokens": lambda fit, path: th.language.Tokens(path),
    "images": lambda fit, path: th.generative.Images(path),
    "pairs": lambda fit, path: th.preferences.Pairs(path),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", BAD, ids=["NUL", "long name", "long path"])
def test_a_name_that_no_file_can_have_is_an_error_of_the_library(fit, tmp_path, monkeypatch, name, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThetahatError, match=r"NUL|too long"):
        READERS[name](fit, path)
    assert not list(tmp_path.iterdir())


def test_a_name_of_255_characters_can_be_written(fit, tmp_path):
    """The longest that the file system takes: the name of the unfinished file is shorter."""
    assert fit.save(tmp_path / ("n" * 255)).stat().st_size > 500


def test_a_folder_that_is_missing_is_a_bad_argument(fit, tmp_path):
    with pytest.raises(BadArgument, match="cannot be written: No such file or directory"):
        fit.save(tmp_path / "no" / "fit.thetahat")


# ---- errors between processes ------------------------------------------------------------------------------


ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ThetahatError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_pickled_with_its_message(kind):
    again = pickle.loads(pickle.dumps(kind("what was wrong")))
    assert type(again) is kind
    assert str(again) == "what was wrong"


class Unpicklable:
    def __reduce__(self):
        raise TypeError("cannot be pickled")


def test_an_error_of_a_fit_that_cannot_be_pickled_keeps_its_message_and_its_certificate():
    certificate = th.Certificate(status="no maximum", rows=(1, 2), directions=({"x": 1.0},))
    error = errors.NoMaximum("it grows for ever", certificate, Unpicklable())
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.NoMaximum
    assert (str(again), again.certificate, again.fit) == ("it grows for ever", certificate, None)


def separated(_: int) -> float:
    return th.fit("y ~ x", {"y": [0, 0, 1, 1], "x": [0.0, 1, 2, 3]}, "bernoulli").log_likelihood


def test_a_likelihood_without_a_maximum_in_a_worker_does_not_kill_the_pool():
    """The error reaches the caller with its certificate, and the pool does the next task."""
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(errors.NoMaximum) as caught:
            pool.submit(separated, 0).result()
        assert caught.value.certificate.status == "no maximum"
        assert pool.submit(abs, -3).result() == 3


def test_an_error_shows_the_control_characters_of_the_data_by_their_numbers():
    with pytest.raises(errors.UnknownColumn) as caught:
        th.fit("y ~ z", {"y": [1.0, 2.0], "x\x1b[2J": [0.0, 1.0]})
    assert "\x1b" not in str(caught.value)
    assert "x\\x1b[2J" in str(caught.value)


# ---- two processes on one folder ---------------------------------------------------------------------------

HOLDS = """
import sys, thetahat as th, torch
sys.path.insert(0, sys.argv[2])
from test_files import classifier
from thetahat.io.runs import Run
run = Run(sys.argv[1], classifier(), th.Stochastic(steps=2))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_another_process_writes_is_refused_and_is_free_when_that_process_is_killed(tmp_path):
    """The other process holds the lock until kill -9."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "r"), str(Path(__file__).parent)]
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    solver = th.Stochastic(steps=2)
    with pytest.raises(errors.BadSave, match="is being written by another process"):
        th.maximize(classifier(), solver=solver, run=tmp_path / "r")
    other.kill()
    other.communicate()
    assert th.maximize(classifier(), solver=solver, run=tmp_path / "r").certificate.steps == 2
    assert th.maximize(classifier(), solver=solver, run=tmp_path / "r").certificate.steps == 2
