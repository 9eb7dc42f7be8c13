"""The first of the random tables of benchmarks/fuzz.py: each ends in a certified answer that scipy cannot
beat, or in the library's own exception."""

from __future__ import annotations

import math

import pytest
from benchmarks import fuzz
from benchmarks.fuzz import case, examine


@pytest.mark.parametrize("block", range(8))
def test_random_tables_give_an_answer_that_stands_or_an_exception_of_the_library(block, monkeypatch):
    """The oracle: log-likelihoods of scipy.stats on designs made by hand, and BFGS from θ̂ and from
    elsewhere."""
    monkeypatch.setattr(fuzz, "SLOW", math.inf)  # seconds belong to the benchmark
    wrong = {}
    for number in range(20 * block, 20 * block + 20):
        status, fault = examine(case(number))
        if fault or status == "foreign":
            wrong[number] = (status, fault)
    assert not wrong
