"""`thetahat fit policy --seeds`: the runs of several seeds, in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import thetahat as th
from thetahat.cli import main
from thetahat.rl.performance import iqm

SMALL = "--num-envs 2 --num-steps 8 --epochs 2 --width 8 --eval-episodes 2 --total-timesteps 64 --normalise".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds") / "three"
    assert main(["fit", "policy", *SMALL, "--seeds", "3", "--seed", "5", "--run", str(folder)]) == 0
    return folder


def test_each_seed_of_a_run_is_the_run_of_that_seed_alone(run: Path, tmp_path: Path) -> None:
    """`--seeds 3 --seed 5` beside `--seed 6`: policy and value function, to rounding in float32."""
    assert main(["fit", "policy", *SMALL, "--seed", "6", "--run", str(tmp_path / "one")]) == 0
    several, one = th.load(run), th.load(tmp_path / "one")
    for own, stack in zip(one.objective.terms, several.objective.terms, strict=True):
        member = stack.model.seed(1)
        for a, b in zip(own.model.state_dict().values(), member.state_dict().values(), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)


def test_a_run_tells_the_middle_of_its_seeds_and_each_of_them(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`performance.iqm` of the returns that stand in the metrics."""
    again = ["fit", "policy", *SMALL, "--seeds", "3", "--seed", "5", "--run", str(run), "--resume"]
    assert main([*again, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    each = {str(s): last[f"greedy_return_of_seed_{s}"] for s in (5, 6, 7)}
    assert found["seeds"] == each
    middle = iqm(list(each.values()))
    shown = found["measured"]["iqm of greedy return"]
    assert (shown["value"], shown["low"], shown["high"]) == (middle.value, middle.low, middle.high)
    assert not any("seed" in name for name in found["measured"])
    assert main(again) == 0
    out = capsys.readouterr().out
    assert "Policy of each of 3 seeds" in out
    assert "greedy return of each seed  5: " in out


def test_all_seeds_of_a_run_play(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", str(run), "-n", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["runs"]) == [f"{run} seed {s}" for s in (5, 6, 7)]
    assert found["iqm"]["value"] == iqm(list(found["runs"].values())).value
    assert main(["play", str(run), "--against", str(run), "-n", "4", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert both["probability_of_improvement"]["value"] == 0.5
    assert both["iqm"] == both["iqm_against"]


def test_a_number_of_seeds_is_a_setting_of_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "policy", *SMALL, "--seed", "5", "--run", str(run), "--resume"]
    assert main([*words, "--seeds", "2"]) == 3
    assert "--seeds was 3" in capsys.readouterr().err
    assert main(["fit", "policy", "--seeds", "0"]) == 2
    assert "--seeds 0. Accepted: 1 or more" in capsys.readouterr().err
