"""kill −9 of every system that keeps a checkpoint, and what goes on is the run that was never killed
(benchmarks/killed.py, with fewer kills)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "killed.py"
SYSTEMS = ["gpt", "classifier", "vae", "flow", "diffusion", "dpo", "rloo", "grpo", "ppo", "a2c", "reinforce"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two kills of each, in processes that are forked from one that has done nothing else."""
    code = f"import sys, json; sys.path.insert(0, {str(SCRIPT.parent)!r}); import killed; found = killed.all_of({SYSTEMS!r}, 2, lambda text: None)"
    code += "; print(json.dumps(found))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_that_was_killed_twice_ends_bit_for_bit_as_one_that_was_not(found, name):
    assert found[name]["theta"]
    assert found[name]["trace"]
    assert found[name]["metrics"]
