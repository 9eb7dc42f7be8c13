"""`thetahat fit policy --vectorization tensor`: the run is one of tensors, and so is its play."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thetahat.cli import main
from thetahat.cli.systems import again

SMALL = (
    "--num-envs 2 --num-steps 8 --epochs 2 --width 8 --eval-episodes 2 --total-timesteps 64 --seed 5".split()
)
TENSOR = ["--vectorization", "tensor"]


def test_environments_as_tensors_are_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["fit", "policy", *SMALL, *TENSOR, "--run", str(run)]) == 0
    system = again(run)[0]
    assert system.vectorization == "tensor"
    capsys.readouterr()
    assert main(["play", str(run), "-n", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 3
    assert main(["fit", "policy", *SMALL, "--run", str(run), "--resume"]) == 3
    assert "--vectorization was tensor" in capsys.readouterr().err


def test_there_are_no_wrappers_of_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "policy", *SMALL, *TENSOR, "--frame-stack", "2", "--run", str(tmp_path / "run")]
    assert main(words) == 2
    assert "--vectorization tensor" in capsys.readouterr().err
