"""A run that is killed and goes on is the run that was not killed, to the last bit; and a checkpoint is never
lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument, BadSave
from thetahat.language import Tokens
from thetahat.rl import Rollouts
from thetahat.solvers import iterate

X, Y = load_iris(return_X_y=True)
TEXTS = [f"document {i} is of {i * i} and of {i**3}" for i in range(12)]


class Killed(BaseException):
    pass


def classifier() -> th.Objective:
    """With dropout, running statistics and two sources of batches."""
    network = th.networks.mlp(4, (8,), 3)
    layers = torch.nn.Sequential(
        torch.nn.BatchNorm1d(4), network[0], torch.nn.Dropout(0.3), network[1], network[2]
    )
    model = th.models.Conditional(th.families.Categorical(3), layers)
    one, two = Tensors({"x": X, "y": Y}), Tensors({"x": X[::2], "y": Y[::2]})
    return th.Objective([th.LogLikelihood(model, one), th.LogLikelihood(model, two)]) + th.LogPrior(
        th.priors.Normal(2.0), model
    )


def gpt() -> th.Objective:
    network = th.networks.Transformer(257, layers=1, width=16, heads=2, dropout=0.1)
    return th.Objective([th.LogLikelihood(th.language.Autoregressive(network), Tokens(TEXTS, context=16))])


SETTINGS = {
    "adamw": {"optimiser": "adamw", "ema_decay": 0.8, "max_grad_norm": 1.0},
    "muon": {"optimiser": "muon", "learning_rate": 0.02, "restore_best": False},
    "sgd": {"optimiser": "sgd", "warmup_steps": 5, "accumulation_steps": 2},
    "nothing held out": {"held_out": None},
    "patient": {"learning_rate": 3.0, "patience": 2},
}


@pytest.mark.parametrize("build", [classifier, gpt])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_climb_killed_at_any_step_and_resumed_is_bit_identical(build, name, tmp_path):
    """Killed after steps 1, 2, 7, 13 and 19 of 20, one after the other: θ, buffers, trace and certificate
    of the run never killed."""
    settings = {
        "steps": 20,
        "batch_size": 16,
        "held_out": 0.25,
        "evaluate_every": 3,
        "checkpoint_every": 2,
        "seed": 4,
    }
    settings |= SETTINGS[name]
    torch.set_num_threads(1)
    whole = build()
    truth = th.maximize(whole, solver=th.Stochastic(**settings))
    solver = th.Stochastic(checkpoint=tmp_path / "runs" / "last", **settings)
    for at in (1, 2, 7, 13, 19):

        def kill(state, at=at):
            if state.step == at:
                raise Killed

        try:
            iterate(solver, build(), kill)
        except Killed:
            continue
    steps = []
    torch.rand(3)  # the global randomness takes no part
    resumed = iterate(solver, build(), lambda state: steps.append(state.step)).ended
    found = th.maximize(build(), solver=solver)  # a finished run is not maximised again
    assert steps[0] >= min(18, truth.certificate.steps)
    for each, own in ((resumed, resumed.theta), (found.objective, found.theta)):
        assert torch.equal(own, truth.theta)
        for a, b in zip(each.model.buffers(), truth.model.buffers(), strict=True):
            assert torch.equal(a, b)
    assert str(found.certificate) == str(truth.certificate)
    assert repr(found.trace) == repr(truth.trace)
    assert found.score().weights == truth.score().weights


SCRIPT = """
import sys, torch, thetahat as th
torch.set_num_threads(1)
net = th.networks.mlp(4, (64,), 3)
g = torch.Generator().manual_seed(0)
data = {"x": torch.randn(512, 4, generator=g), "y": torch.randint(3, (512,), generator=g)}
solver = th.Stochastic(steps=int(sys.argv[2]), batch_size=64, lr_schedule="constant", checkpoint=sys.argv[1] or None, checkpoint_every=1)
fit = th.fit(th.models.Conditional(th.families.Categorical(3), net), data, solver=solver)
torch.save(fit.theta, sys.argv[3])
"""


def test_a_process_killed_by_the_system_goes_on_where_its_last_checkpoint_was(tmp_path, monkeypatch):
    """kill -9 while it writes a checkpoint a step; the process that goes on ends at the θ of one that was
    never killed."""
    path = tmp_path / "last"
    command = [sys.executable, "-c", SCRIPT, str(path), "400", str(tmp_path / "resumed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    for where, result in ((path, "resumed"), ("", "whole")):
        monkeypatch.setattr(sys, "argv", ["", str(where), "400", str(tmp_path / result)])
        exec(compile(SCRIPT, "script", "exec"), {})
    assert torch.equal(torch.load(tmp_path / "resumed"), torch.load(tmp_path / "whole"))


# ---- what goes wrong ---------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    iterate(th.Stochastic(steps=3, checkpoint=tmp_path / "last", held_out=0.2), gpt())
    return tmp_path / "last"


def test_a_full_disk_leaves_the_last_good_checkpoint(finished, monkeypatch):
    """The write fails half way: the error says so, the file is the one before, and nothing is left beside
    it."""
    before = finished.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    solver = th.Stochastic(steps=5, checkpoint=finished.with_name("other"), checkpoint_every=2, held_out=0.2)
    finished.with_name("other").write_bytes(before)
    with pytest.raises(BadSave, match="its steps is '3', here it is '5'"):
        iterate(solver, gpt())
    finished.with_name("other").unlink()
    good: list[bytes] = []

    def after(state: object) -> None:
        if state.step == 3:
            state.work.writer.finish()
            good.append(solver.checkpoint.read_bytes())
            monkeypatch.setattr("os.fsync", full)

    with pytest.raises(
        BadSave, match=r"cannot be written: No space left on device\. The one before it is whole"
    ):
        iterate(solver, gpt(), after)
    monkeypatch.undo()
    assert solver.checkpoint.read_bytes() == good[0]
    assert sorted(p.name for p in finished.parent.iterdir()) == ["last", "other"]
    iterate(solver, gpt())


@pytest.mark.parametrize("harm", ["cut", "changed", "other"])
def test_a_damaged_checkpoint_is_refused(finished, harm):
    raw = bytearray(finished.read_bytes())
    if harm == "cut":
        raw = raw[:-100]
    elif harm == "changed":
        raw[len(raw) // 2] ^= 1
    else:
        raw = bytearray(b"no checkpoint")
    finished.write_bytes(raw)
    with pytest.raises(BadSave, match="last"):
        iterate(th.Stochastic(steps=3, checkpoint=finished, held_out=0.2), gpt())


def test_a_checkpoint_of_another_climb_is_refused_by_what_differs(finished):
    solver = th.Stochastic(steps=3, checkpoint=finished, held_out=0.2)
    with pytest.raises(BadSave, match="its shapes of θ is"):
        iterate(solver, classifier())
    with pytest.raises(BadSave, match="its seed is '0', here it is '1'"):
        iterate(th.Stochastic(steps=3, checkpoint=finished, held_out=0.2, seed=1), gpt())
    other = gpt()
    other.terms[0].source = Tokens([*TEXTS[1:], TEXTS[0]], context=16)
    with pytest.raises(BadSave, match="its data is"):
        iterate(solver, other)


def test_a_climb_on_rollouts_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    """Each pass begins anew and is given out once, so the source's generator is all that its next draw
    depends on."""

    def optimise(path, steps):
        policy = th.rl.Policy(th.networks.mlp(4, 4, 2, seed=0))
        solver = th.Stochastic(
            steps=6, learning_rate=0.05, lr_schedule="constant", evaluate_every=2, checkpoint=path
        )
        rollouts = Rollouts("CartPole-v1", 2, seed=3)
        objective = th.Objective([th.LogLikelihood(policy, rollouts, th.rl.RewardToGo())])
        state = solver.start(objective)
        while state.step < steps:
            state = solver.step(objective, state)
        return objective.theta, rollouts.played

    whole = optimise(tmp_path / "whole", 6)
    optimise(tmp_path / "killed", 5)
    again = optimise(tmp_path / "killed", 6)
    assert torch.equal(whole[0], again[0])
    assert whole[1] == again[1]


def test_a_source_that_draws_and_says_nothing_of_its_state_is_refused(tmp_path):
    class Drawn(Tensors):
        drawn = True

    source = Drawn({"y": torch.zeros(3, 1)})
    with pytest.raises(BadArgument, match="restore"):
        th.fit(
            th.generative.Flow.affine(1),
            source,
            solver=th.Stochastic(steps=2, held_out=None, checkpoint=tmp_path / "last"),
        )


def test_a_file_that_is_lost_mid_stream_is_named_and_the_climb_goes_on_when_it_is_back(tmp_path):
    """A streamed Parquet file is taken away after its first epoch: the checkpoint is whole, and leads
    where the undisturbed run went."""
    from thetahat.data.frame import Frame
    from thetahat.errors import MalformedFile
    from thetahat.models.formulas import regression

    x = torch.randn(3000, generator=torch.Generator().manual_seed(0)).double().numpy()
    pd.DataFrame({"x": x, "y": x**2}).to_parquet(tmp_path / "rows.parquet", row_group_size=500)

    def optimise(path, lost_after=None):
        frame = Frame(tmp_path / "rows.parquet", memory=1)
        model, source = regression(
            "y ~ x", frame, th.families.get("normal"), parameters={}, weights=None, missing="drop"
        )
        assert source.streamed
        solver = th.Stochastic(steps=90, batch_size=64, held_out=None, checkpoint=path, checkpoint_every=10)
        objective = th.Objective([th.LogLikelihood(model, source)])
        state = solver.start(objective)
        while not solver.done(objective, state):
            state = solver.step(objective, state)
            if state.step == lost_after:
                (tmp_path / "rows.parquet").rename(tmp_path / "gone")
        return objective.theta

    whole = optimise(tmp_path / "whole")
    with pytest.raises(MalformedFile, match=r"rows\.parquet"):
        optimise(tmp_path / "lost", lost_after=20)
    (tmp_path / "gone").rename(tmp_path / "rows.parquet")
    assert torch.equal(optimise(tmp_path / "lost"), whole)


@pytest.mark.parametrize(
    ("family", "activation", "shift", "differs"),
    [("gumbel", "relu", 0.0, "models"), ("normal", "tanh", 0.0, "models"), ("normal", "relu", 1.0, "data")],
)
def test_a_checkpoint_of_another_family_network_or_x_is_refused(tmp_path, family, activation, shift, differs):
    """The shapes of θ and the responses are the same; what is maximised is not."""

    def optimise(family="normal", activation="relu", shift=0.0):
        g = torch.Generator().manual_seed(0)
        x, y = torch.randn(40, 3, generator=g), torch.randn(40, generator=g)
        model = th.models.Conditional(th.families.get(family), th.networks.mlp(3, 4, 2, activation, seed=0))
        return th.fit(
            model, Tensors({"x": x + shift, "y": y}), solver=th.Stochastic(steps=4, checkpoint=tmp_path / "c")
        )

    optimise()
    with pytest.raises(BadSave, match=f"its {differs} is"):
        optimise(family, activation, shift)
    optimise()
