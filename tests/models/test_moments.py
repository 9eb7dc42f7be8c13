"""The method of moments, against the analysis of variance and what was drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.models.elimination import Columns, Cross, Grouped
from thetahat.models.formulas import formula_model
from thetahat.models.moments import moments


def drawn(n, groups, items, seed=0):
    """Two crossed factors, and a slope in the first: variances 0.49, 0.09 and 0.25 beside a residual one of 1."""
    g = np.random.default_rng(seed)
    a, b, x = g.integers(0, groups, n), g.integers(0, items, n), g.normal(size=n)
    u, v, w = g.normal(size=groups), g.normal(size=groups), g.normal(size=items)
    y = 1 + 0.5 * x + 0.7 * u[a] + 0.3 * v[a] * x + 0.5 * w[b] + g.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": a, "b": b})


def test_in_a_balanced_one_way_layout_they_solve_the_two_equations_of_its_table():
    """Σ_l n(ȳ_l)² = σ² L + τ² N and Σ y² = σ² N + τ² N of residuals y, for L groups of n, N = L n."""
    g = np.random.default_rng(1)
    code, L, n = np.repeat(np.arange(6), 5), 6, 5
    y = g.normal(size=6)[code] + g.normal(size=30)
    y -= y.mean()
    columns = Columns(30, Grouped(code, np.ones((1, 30)), (0,), L), (), ())
    cross = columns.cross({(0, 0): np.ones(30)})
    assert isinstance(cross, Cross)
    first, rest = columns.transposed({0: y})
    found = moments(cross, first, rest, float(y @ y), 30.0)
    between = n * float((y.reshape(L, n).mean(1) ** 2).sum())
    within = float(y @ y) - between
    assert found[0] == pytest.approx(within / (L * (n - 1)), rel=1e-12)
    assert found[1] == pytest.approx((between - L * found[0]) / (L * n), rel=1e-12)


def test_of_many_groups_they_are_near_the_variances_that_were_drawn():
    """2,000 and 400 groups: within five standard errors, √(2/400) for the fewer ones."""
    data = drawn(40_000, 2_000, 400)
    model, table = formula_model("y ~ x + (x | a) + (1 | b)", data, th.families.get("normal"))
    part = model.evaluator(next(iter(table.batches(model))), None)
    found = moments(part.cross, part.first, part.rest, part.yy, part.n)
    assert found == pytest.approx([1.0, 0.49, 0.09, 0.25], rel=5 * np.sqrt(2 / 400))


def test_the_iterations_begin_near_the_maximum():
    """With fewer than one standard error a parameter to go."""
    data = drawn(40_000, 2_000, 400)
    model, table = formula_model("y ~ x + (x | a) + (1 | b)", data, th.families.get("normal"))
    begin = model.start(table)
    found = th.fit("y ~ x + (x | a) + (1 | b)", data)
    o = Objective([LogLikelihood(model, table)])
    assert found.maximised - o.value(begin) < 0.5 * len(begin)


@pytest.mark.parametrize("formula", ["y ~ s(x)", "y ~ x + s(x, bs='cr') + (1 | a)"])
def test_smooth_terms_have_no_groups_and_begin_elsewhere(formula):
    model, table = formula_model(formula, drawn(200, 10, 5), th.families.get("normal"))
    part = model.evaluator(next(iter(table.batches(model))), None)
    assert moments(part.cross, part.first, part.rest, part.yy, part.n) is None
