"""Fits of few rows stay on one thread from the start to the certificate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat import solvers


@pytest.mark.parametrize("formula", ["y ~ x + (1 | a)", "k ~ x + (1 | a)"])
def test_a_mixed_model_of_few_rows_is_fitted_on_one_thread(formula, monkeypatch):
    """Start, steps and diagnosis see one thread; afterwards there are as many as before."""
    g = np.random.default_rng(0)
    a, x = g.integers(0, 8, 80), g.normal(size=80)
    eta = 0.4 + 0.3 * x + 0.7 * g.normal(size=8)[a]
    data = pd.DataFrame({"y": eta + g.normal(size=80), "k": g.poisson(np.exp(eta)), "x": x, "a": a})
    seen = []
    diagnose = solvers.diagnose

    def watched(*arguments):
        seen.append(torch.get_num_threads())
        return diagnose(*arguments)

    monkeypatch.setattr(solvers, "diagnose", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        th.fit(formula, data, "poisson" if formula.startswith("k") else "normal")
        assert torch.get_num_threads() == 2
        assert seen == [1]
        th.fit("y ~ x", data)
        monkeypatch.setattr("thetahat.likelihood.objective.SMALL", 1)  # as if they were many
        th.fit("y ~ x", data)
        assert seen[1:] == [1, 2]
    finally:
        torch.set_num_threads(before)
