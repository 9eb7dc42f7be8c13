"""A run that is asked to end (Ctrl-C, SIGTERM) writes its checkpoint first, and the same call goes on from
that very step."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

import thetahat as th
from thetahat.io import runs


def objective() -> th.Objective:
    g = torch.Generator().manual_seed(0)
    rows = th.data.Tensors({"x": torch.randn(60, 3, generator=g), "y": torch.randint(2, (60,), generator=g)})
    model = th.models.Conditional(th.families.Categorical(2), th.networks.mlp(3, (8,), 2, seed=1))
    return th.Objective([th.LogLikelihood(model, rows)])


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts():
    """A shell starts what runs in its background with Ctrl-C ignored; the tests are of a process that does
    not ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


SOLVER = th.Stochastic(
    steps=40, batch_size=8, evaluate_every=40, held_out=0.25
)  # no checkpoint is due before the last step


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (signal.SIGINT, KeyboardInterrupt, "SIGINT after step 7"),
        (signal.SIGTERM, SystemExit, "SIGTERM after step 7"),
    ],
)
def test_a_signal_costs_no_step_and_the_resumed_run_is_bit_identical(tmp_path, capsys, number, kind, text):
    """Sent in the middle of step 7 of 40, of a run whose first checkpoint is due at its end; the run that was
    not disturbed is the oracle."""
    truth = th.maximize(objective(), solver=SOLVER)

    def watch(state):
        if state.step == 7:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(kind) as caught:
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "r", callback=watch)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    said = str(caught.value) if number == signal.SIGINT else capsys.readouterr().err
    assert text in said
    assert "The same call goes on from there" in said
    assert number == signal.SIGINT or caught.value.code == 143
    steps: list[int] = []
    found = th.maximize(
        objective(), solver=SOLVER, run=tmp_path / "r", callback=lambda state: steps.append(state.step)
    )
    assert steps[0] == 7
    assert torch.equal(found.theta, truth.theta)
    assert found.trace == truth.trace
    assert [line["step"] for line in runs.metrics(tmp_path / "r")] == list(range(1, 41))


def test_a_second_signal_is_not_held_back(tmp_path):
    """Two in one step: the second acts as it would anywhere, before the step has ended."""
    solver = th.Stochastic(steps=40, batch_size=8, checkpoint=tmp_path / "c", evaluate_every=40)

    def watch(state):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        th.maximize(objective(), solver=solver, callback=watch)
    assert not (tmp_path / "c").exists()


def test_a_run_in_a_thread_of_its_own_leaves_signals_alone(tmp_path):
    done: list[th.Fit] = []
    solver = th.Stochastic(steps=4, batch_size=8, checkpoint=tmp_path / "c")
    thread = threading.Thread(target=lambda: done.append(th.maximize(objective(), solver=solver)))
    thread.start()
    thread.join()
    assert done[0].certificate.steps == 4
