"""A run holds what a long training run reached: its folder is whole after a kill, and the same call goes
on from it bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, BadSave
from thetahat.io import runs
from thetahat.language import Tokens

TEXTS = [f"document {i} is of {i * i} and of {i**3}" for i in range(30)]
SOLVER = th.Stochastic(steps=12, batch_size=8, evaluate_every=3, checkpoint_every=2)


class Killed(BaseException):
    pass


def objective(width: int = 16) -> th.Objective:
    network = th.networks.Transformer(257, layers=1, width=width, heads=2, dropout=0.1)
    return th.Objective([th.LogLikelihood(th.language.Autoregressive(network), Tokens(TEXTS, context=16))])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, th.maximize(objective(), solver=SOLVER, run=folder)


def test_a_run_holds_all_that_the_climb_was(done):
    folder, fit = done
    assert {runs.CONFIG, runs.METRICS, runs.CHECKPOINT, runs.FIT, runs.REPORT} <= {
        p.name for p in folder.iterdir()
    }
    lines = runs.metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, 13))
    looks = [
        (line["step"], line[runs.HELD_OUT], line[f"{runs.HELD_OUT}_error"])
        for line in lines
        if runs.HELD_OUT in line
    ]
    assert looks == [(step, mean, error) for step, mean, error in fit.trace if step > 0]
    assert lines[0]["learning_rate"] == SOLVER.rate(0)
    assert all(line["grad_norm"] > 0 and line["terms"] > 0 for line in lines)
    found = runs.read(folder)
    assert found["terms"] == ["Autoregressive on Tokens"]
    assert found["run"]["steps"] == "12"
    again = th.load(folder / runs.FIT, model=objective().model)
    assert torch.equal(again.theta, fit.theta)
    page = (folder / runs.REPORT).read_text(encoding="utf-8")
    assert "Autoregressive" in page
    assert "Residuals" not in page


def test_tensorboard_reads_the_same_numbers(done):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, _ = done
    read = events.EventAccumulator(str(folder)).Reload()
    said = {event.step: event.value for event in read.Scalars(runs.FITTED)}
    assert said == pytest.approx({line["step"]: line[runs.FITTED] for line in runs.metrics(folder)}, rel=1e-6)


def test_a_run_that_was_killed_goes_on_bit_for_bit_and_its_metrics_have_each_step_once(done, tmp_path):
    """Killed at step 7, one after the checkpoint of step 6: the line of step 7 is written anew."""
    whole, fit = done

    def kill(state) -> None:
        if state.step == 7:
            raise Killed

    with pytest.raises(Killed):
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "killed", callback=kill)
    assert not (tmp_path / "killed" / runs.FIT).exists()
    with (tmp_path / "killed" / runs.METRICS).open("a") as file:
        file.write('{"step": 8, "na')  # a line that the kill cut short
    again = th.maximize(objective(), solver=SOLVER, run=tmp_path / "killed")
    assert torch.equal(again.theta, fit.theta)
    assert again.trace == fit.trace

    def numbers(folder):
        return [
            {k: v for k, v in line.items() if "second" not in k and k != "data_wait"}
            for line in runs.metrics(folder)
        ]

    assert numbers(tmp_path / "killed") == numbers(whole)


def test_a_run_that_ended_is_not_climbed_again(done):
    folder, fit = done
    before = (folder / runs.CHECKPOINT).stat().st_mtime_ns
    again = th.maximize(objective(), solver=SOLVER, run=folder)
    assert torch.equal(again.theta, fit.theta)
    assert (folder / runs.CHECKPOINT).stat().st_mtime_ns == before
    assert len(runs.metrics(folder)) == 12


@pytest.mark.parametrize(
    ("build", "solver", "text"),
    [
        (lambda: objective(32), SOLVER, "its shapes of θ is"),
        (
            objective,
            th.Stochastic(steps=11, batch_size=8, evaluate_every=3),
            "its steps is '12', here it is '11'",
        ),
    ],
)
def test_a_run_of_another_climb_is_refused_by_what_differs(done, build, solver, text):
    with pytest.raises(BadSave, match=text):
        th.maximize(build(), solver=solver, run=done[0])


def test_folders_that_are_no_runs_are_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(BadArgument, match="not a run, and it is not empty"):
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "mine")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(BadArgument, match="not a run"):
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "file")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(BadSave, match="is not a run"):
        runs.read(tmp_path / "mine")
    (tmp_path / "mine" / runs.CONFIG).write_text(json.dumps([1]))
    with pytest.raises(BadSave, match="not the configuration"):
        runs.read(tmp_path / "mine")


def test_only_a_stochastic_climb_is_a_run(tmp_path):
    with pytest.raises(BadArgument, match="records a training run; the solver is Newton"):
        th.fit("y ~ x", {"y": [1.0, 2.0, 2.5], "x": [0.0, 1.0, 2.0]}, solver=th.Newton(), run=tmp_path / "r")
    with pytest.raises(BadArgument, match="keeps its own checkpoint"):
        th.maximize(objective(), solver=th.Stochastic(steps=2, checkpoint=tmp_path / "c"), run=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_nan_in_a_batch_names_the_step_and_the_place_and_the_last_good_checkpoint_stays(tmp_path):
    """Row 37 of x is NaN: the run stops at the step that meets it, before θ is touched."""
    x, y = torch.ones(64, 2), torch.ones(64)
    x[37, 1] = float("nan")
    model = th.models.Conditional(th.families.Poisson(), th.networks.mlp(2, (), 1))
    solver = th.Stochastic(steps=50, batch_size=4, held_out=None, checkpoint_every=1)
    rows = th.data.Tensors({"x": x, "y": y})
    with pytest.raises(
        th.errors.NotConverged,
        match=r"step \d+: log p is nan .* The data hold nan in 'x' in row 37 of the data, column 1",
    ) as caught:
        th.fit(model, rows, solver=solver, run=tmp_path / "r")
    assert torch.isfinite(caught.value.fit.theta).all()
    last = runs.metrics(tmp_path / "r")[-1]
    assert "failure" in last
    assert (tmp_path / "r" / runs.CHECKPOINT).exists() == (caught.value.certificate.steps > 0)


@pytest.mark.parametrize(
    "harm",
    [
        b'{"step": 2, "nats"\n',
        b"\xff\xfe\x00 no text\n",
        b"[1, 2]\n",
        b'{"step": "two", "seconds": 1}\n',
        b'{"seconds": 1}\n',
        b"[" * 9999 + b"\n",
    ],
)
def test_damaged_metrics_are_left_out_by_number_and_the_run_goes_on(done, tmp_path, harm):
    """A line in the middle of the file is replaced; the run ends at the θ of the whole one."""
    _, fit = done
    with pytest.raises(Killed):
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "r", callback=_kill)
    path = tmp_path / "r" / runs.METRICS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], harm, *lines[2:]]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: line 2 could not be read"):
        again = th.maximize(objective(), solver=SOLVER, run=tmp_path / "r")
    assert torch.equal(again.theta, fit.theta)
    assert [line["step"] for line in runs.metrics(tmp_path / "r")] == [1, *range(3, 13)]


def _kill(state) -> None:
    if state.step == 7:
        raise Killed


def test_a_truncated_fit_is_written_again(done, tmp_path):
    """The run goes on from its checkpoint, and says what it repaired."""
    shutil.copytree(done[0], tmp_path / "r")
    saved = tmp_path / "r" / runs.FIT
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-100])
    with pytest.raises(BadSave, match="cut short or damaged"):
        th.load(tmp_path / "r")
    with pytest.warns(UserWarning, match=r"fit\.thetahat was damaged, and is written again"):
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "r")
    assert torch.equal(th.load(tmp_path / "r").theta, done[1].theta)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": 3, "about": {}}', '{"run": {}}', "\udcff"])
def test_a_damaged_configuration_is_named(done, tmp_path, text):
    shutil.copytree(done[0], tmp_path / "r")
    (tmp_path / "r" / runs.CONFIG).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(BadSave, match=r"config\.json"):
        th.load(tmp_path / "r")
    with pytest.raises(BadSave, match=r"config\.json"):
        th.maximize(objective(), solver=SOLVER, run=tmp_path / "r")


def test_what_kills_left_of_unfinished_files_is_cleared_away(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "r")
    for name in (".checkpoint.part", ".fit.thetahat.0a1b2c3d.part"):
        (tmp_path / "r" / name).write_bytes(b"half")
    th.maximize(objective(), solver=SOLVER, run=tmp_path / "r")
    assert not list((tmp_path / "r").glob(".*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_disk_that_is_full_for_metrics_is_named_and_the_climb_goes_on_later(done, tmp_path):
    """The error says which file; the checkpoint is whole, and the same call then ends where the run that had
    room ended."""
    whole, fit = done

    def watch(state):
        if state.step == 6:
            run.lines.close()
            run.lines = Path("/dev/full").open("w")  # noqa: SIM115

    asked = objective()
    run = runs.Run(tmp_path / "full", asked, SOLVER)
    with pytest.raises(BadSave, match=r"metrics\.jsonl cannot be written: No space left"):
        th.maximize(asked, solver=SOLVER, run=run, callback=watch)
    again = th.maximize(objective(), solver=SOLVER, run=tmp_path / "full")
    assert torch.equal(again.theta, fit.theta)
    assert [line["step"] for line in runs.metrics(tmp_path / "full")] == [
        line["step"] for line in runs.metrics(whole)
    ]
