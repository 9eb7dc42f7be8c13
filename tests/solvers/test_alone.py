"""After a fit of two processes, the first may print, save and report alone: nothing that it asks waits for
the other."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import thetahat as th
from thetahat.io import runs

SCRIPT = Path(__file__).with_name("alone.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(SCRIPT),
        str(folder),
    ]
    ran = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((folder / "found.json").read_text()), folder


@pytest.fixture(scope="module")
def here():
    spec = importlib.util.spec_from_file_location("alone", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["whole", "parts"])
def test_two_processes_find_what_one_finds_and_count_no_row_twice(found, here, name):
    """90 rows, on both processes or half on each; a fit of one process, in this interpreter, is the
    oracle."""
    alone = th.fit(here.line, here.rows(slice(None)))
    of_two = found[0][name]["newton"]
    assert of_two["n"] == 90
    assert of_two["log_likelihood"] == pytest.approx(alone.log_likelihood, rel=1e-12)
    assert found[0][name]["theta"] == pytest.approx(alone.theta.tolist(), rel=1e-8)
    shown = [
        line.replace("line", "")
        for line in str(alone.summary()).splitlines()
        if "log-likelihood" in line or "AIC" in line
    ]
    assert all(line in of_two["summary"] for line in shown)
    if name == "whole":
        assert found[0][name]["errors"] == pytest.approx(alone.standard_errors().tolist(), rel=1e-8)


@pytest.mark.parametrize("name", ["whole", "parts"])
def test_a_run_of_two_processes_ends_with_its_fit_and_its_report(found, here, name):
    """The first process writes them; log-likelihood and θ are those of the saved network over all rows."""
    said, folder = found[0][name]["trained"], found[1] / f"run of {name}"
    assert (folder / runs.REPORT).stat().st_size > 3000
    fit = th.load(folder, model=here.network())
    whole = here.rows(slice(None)).whole
    assert said["n"] == 90
    with torch.no_grad():
        assert said["log_likelihood"] == pytest.approx(float(fit.model.log_prob(whole).sum()), rel=1e-9)
    assert "stochastic" in said["repr"]
    assert "log-likelihood" in said["summary"]
