"""The time a run waits for its data: at least what a slow source sleeps, and none of what is done besides."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace

import pytest
import torch

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument
from thetahat.io import runs
from thetahat.solvers import iterate, waiting
from thetahat.solvers.progress import said

SLOW, BESIDES, STEPS = 0.01, 0.03, 10  # seconds of a read, seconds of something else a step


def model() -> th.models.Conditional:
    return th.models.Conditional(th.families.Normal(), th.networks.mlp(1, 4, 2, seed=0))


class Source:
    """Three batches a pass, each of which takes its time; it counts them."""

    def __init__(self, seconds: float):
        self.seconds, self.read = seconds, 0

    def __call__(self):
        for k in range(3):
            time.sleep(self.seconds)
            self.read += 1
            yield {"x": torch.full((8, 1), float(k)), "y": torch.arange(8.0)}


def solver(**settings) -> th.Stochastic:
    return th.Stochastic(steps=STEPS, held_out=None, evaluate_every=1, **settings)


def test_what_a_slow_source_takes_is_counted_and_what_a_callback_takes_is_not():
    """Each read sleeps; every step sleeps three times as long elsewhere. No bound depends on the machine's speed."""
    source, states = Source(SLOW), []

    def besides(state) -> None:
        time.sleep(BESIDES)
        states.append(state.waited)

    begun = time.perf_counter()
    state = iterate(
        solver(), th.Objective([th.LogLikelihood(model(), th.data.Loaded(source, size=24))]), besides
    )
    ended = time.perf_counter()
    assert source.read == STEPS
    assert state.waited >= STEPS * SLOW
    assert state.waited <= ended - begun - STEPS * BESIDES
    assert states == sorted(states)
    text = said(state, ended - begun)
    share = int(re.search(r"waiting for data (\d+) %", text).group(1))
    assert share == round(100 * state.waited / (ended - begun))


def test_the_log_has_the_share_of_each_line(tmp_path):
    """The share times the time of a line is what the source slept at least; all of them are shares."""
    source = Source(SLOW)
    th.fit(
        model(), th.data.Loaded(source, size=24, fingerprint="slow"), solver=solver(), run=tmp_path / "run"
    )
    lines = runs.metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(0 < line["data_wait"] <= 1 for line in lines)
    at = [0.0, *(line["seconds"] for line in lines)]  # rounded to a millisecond, shares to 1e-4
    waited = [line["data_wait"] * (b - a + 0.001) for line, a, b in zip(lines, at, at[1:], strict=False)]
    assert min(waited) >= SLOW * 0.99 - 1e-4


def test_what_the_model_draws_is_not_waited_for():
    class Drawn(Tensors):
        drawn = True

        def batches(self, model=None):
            time.sleep(SLOW)
            return super().batches(model)

    rows = Drawn({"x": torch.zeros(8, 1), "y": torch.arange(8.0)})
    state = iterate(solver(), th.Objective([th.LogLikelihood(model(), rows)]))
    assert state.waited == 0


@pytest.mark.parametrize(("waited", "shown"), [(0.009, False), (0.011, True), (None, False)])
def test_the_progress_line_says_it_above_one_percent(waited, shown):
    state = SimpleNamespace(step=1, trace=(), evaluations=(), seen=1.0, waited=waited, used=lambda rate: {})
    assert ("waiting for data 1 %" in said(state, 1.0)) == shown


def test_on_a_device_it_is_the_time_between_its_marks(monkeypatch):
    """The device's clock: 40 ms lie between the end of its work and the batch in the first step, none in the second.
    Counted once each, after the device has answered."""
    clock = iter([0.0, 40.0, 100.0, 100.0])

    class Mark:
        def __init__(self):
            self.at = next(clock)

        def elapsed_time(self, other):
            return other.at - self.at

    monkeypatch.setattr(waiting, "_clock", lambda device: Mark())
    feed = SimpleNamespace(batches=iter("ab"), drawn=False)
    found = waiting.Waiting(torch.device("cuda"))
    assert found.ahead([feed]) == [(feed, "a")]
    assert found.seconds == 0
    found.settle()
    found.settle()
    assert found.seconds == pytest.approx(0.04)
    assert found.ahead([feed]) == [(feed, "b")]
    found.settle()
    assert found.seconds == pytest.approx(0.04)
    assert waiting.Waiting(torch.device("mps")).seconds is None


class Counted(torch.utils.data.Dataset):
    """Items that count, over processes, how many were read."""

    def __init__(self):
        self.read = torch.zeros(1).share_memory_()

    def __len__(self):
        return 20

    def __getitem__(self, i):
        self.read += 1
        return {"x": torch.tensor([float(i)]), "y": torch.tensor(float(i))}


@pytest.mark.parametrize("ahead", [1, 4])
def test_a_worker_reads_so_many_batches_ahead_and_no_more(ahead):
    """Of twenty batches one is taken: the worker has read that one, those ahead, and the one asked for in its place."""
    dataset = Counted()
    source = th.data.Items(dataset, workers=1, prefetch_factor=ahead)
    passed = source.epoch(1, torch.Generator().manual_seed(0))
    next(passed)
    waited = time.monotonic() + 30
    while dataset.read < ahead + 1 and time.monotonic() < waited:
        time.sleep(0.01)
    time.sleep(0.1)
    assert dataset.read == ahead + 1
    assert len(list(passed)) == 19


def test_reading_ahead_needs_workers():
    with pytest.raises(BadArgument, match=r"prefetch_factor=3, workers=0: batches are read ahead by workers"):
        th.data.Items(Counted(), prefetch_factor=3)
