"""Memory that a training run frees stays with the process until the run has ended."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys

import pytest
import torch

import thetahat as th
from thetahat import allocation
from thetahat.allocation import kept_memory, runs

here = pytest.mark.skipif(allocation._library() is None, reason="another C library")


@here
def test_what_is_freed_and_asked_for_again_is_not_got_from_the_system_again():
    """Pages that the system had to give (getrusage), of 20 times 16 MiB after the first."""

    def work() -> None:
        held = [torch.empty(2**19).fill_(1.0) for _ in range(8)]
        del held

    with kept_memory():
        work()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            work()
        assert (
            resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4000
        )  # of 81,920 that are touched


def test_memory_is_kept_while_a_run_lives():
    solver = th.Stochastic(steps=2, batch_size=4)
    batch = th.data.Batch({"x": torch.randn(20, 3), "y": torch.randint(2, (20,))})
    objective = th.Objective(
        [th.LogLikelihood(th.models.Conditional(th.families.Categorical(2), th.networks.mlp(3, 4, 2)), batch)]
    )
    gc.collect()  # runs of other tests that nobody holds any more
    before = runs()
    one, two = solver.start(objective), solver.start(objective)
    assert runs() == before + 2
    two = solver.step(objective, two)
    del one
    gc.collect()
    assert runs() == before + 1
    del two
    gc.collect()
    assert runs() == before


@here
def test_memory_goes_back_to_the_system_when_the_last_run_has_ended():
    """Resident bytes (/proc/self/statm), of 400 MiB in blocks of 1 MiB."""
    code = """
import torch
from thetahat.allocation import kept_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before = resident()
with kept_memory():
    held = [torch.ones(2**18) for _ in range(400)]
    del held
    within = resident()
assert within - before > 350, within - before
assert resident() - before < 100, resident() - before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_the_user_says_of_memory_holds(name, monkeypatch):
    monkeypatch.setenv(name, "1")
    assert allocation._library.__wrapped__() is None
