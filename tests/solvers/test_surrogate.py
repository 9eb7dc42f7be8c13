"""The step that a sample in memory corrects is nearer to the maximum of all rows than Newton's, and the answer is the same."""

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.data import Frame
from thetahat.solvers.surrogate import corrected, held

N = 60_000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 3))
    y = (rng.random(N) < 1 / (1 + np.exp(1.0 - X @ [1.0, -0.7, 0.4]))).astype(float)
    out = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pd.DataFrame({"y": y, **{f"x{j}": X[:, j] for j in range(3)}}).to_parquet(out)
    return out


FORMULA = "y ~ x0 + x1 + x2"


def test_nearer_than_newton(path):
    streamed = th.fit(FORMULA, Frame(path, memory=1), "bernoulli")
    objective = streamed.objective
    sample = held(objective)
    assert sample is not None
    assert sample.rows < N / 16
    theta = streamed.theta + 0.2
    t = objective.taylor(theta)
    factor = t.information.factor()
    newton = factor.solve(t.gradient)
    step = corrected(objective, sample, theta, t.information, factor, newton)
    goal = streamed.theta - theta
    assert float((step - goal).norm()) < 0.1 * float((newton - goal).norm())


def test_same_answer_in_fewer_passes(path, monkeypatch):
    streamed = th.fit(FORMULA, Frame(path, memory=1), "bernoulli")
    held_whole = th.fit(FORMULA, path, "bernoulli")
    assert streamed.source.streamed
    assert not held_whole.source.streamed
    with monkeypatch.context() as patch:
        patch.setattr("thetahat.solvers.newton.held", lambda objective: None)
        newton = th.fit(FORMULA, Frame(path, memory=1), "bernoulli")
    assert streamed.certificate.passes < newton.certificate.passes
    torch.testing.assert_close(streamed.theta, held_whole.theta, rtol=1e-10, atol=1e-12)
    assert streamed.certificate.nats < 1e-12


def test_rows_in_memory_need_no_sample(path):
    assert held(th.fit(FORMULA, path, "bernoulli").objective) is None


def test_a_sample_of_another_curvature_corrects_nothing(path):
    """Where the correction is as long as the step, Newton's own is taken."""
    objective = th.fit(FORMULA, Frame(path, memory=1), "bernoulli").objective
    sample = held(objective)
    theta = objective.theta + 3.0
    t = objective.taylor(theta)
    factor = t.information.factor()
    d = factor.solve(t.gradient)
    step = corrected(objective, sample, theta, t.information, factor, d)
    assert bool(torch.isfinite(step).all())
    away = step - d
    assert float(away @ t.information.multiply(away)) <= 0.25 * float(d @ t.gradient)
