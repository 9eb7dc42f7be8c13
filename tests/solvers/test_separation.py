"""Separation by linear programming against another programme: a direction at a time, by scipy, over hundreds
of random designs.

The oracle asks of every row by itself whether some direction that harms no row makes this one more probable
(Albert and Anderson 1984): max z_i·δ subject to z_k·δ ≥ 0 for all k, |δ| ≤ 1. The library asks it of all rows
in one programme.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

import thetahat as th
from thetahat.errors import FlatDirection, NoMaximum
from thetahat.solvers import separation


def separated(Z, fixed):
    """Rows i of Z with max z_i·δ > 0 subject to Zδ ≥ 0, fixed·δ = 0, |δ| ≤ 1: a programme a row."""
    out = []
    for i, z in enumerate(Z):
        equal = {"A_eq": fixed, "b_eq": np.zeros(len(fixed))} if len(fixed) else {}
        found = linprog(-z, A_ub=-Z, b_ub=np.zeros(len(Z)), bounds=(-1, 1), method="highs", **equal)
        if -found.fun > 1e-7:
            out.append(i)
    return out


def design(rng, n, p):
    """Small whole numbers, so that ties and quasi-separation are common."""
    return np.column_stack([np.ones(n), rng.integers(-1, 2, (n, p)).astype(float)])


def verdict(formula, data, family, **extras):
    try:
        fit = th.fit(formula, data, family, **extras)
    except NoMaximum as error:
        return "separated", sorted(error.certificate.rows)
    except FlatDirection:
        return "flat", []
    return ("maximum" if fit.certificate.ok else fit.certificate.status), []


def columns(D):
    return {f"x{j}": D[:, j] for j in range(1, D.shape[1])}, "y ~ " + " + ".join(
        f"x{j}" for j in range(1, D.shape[1])
    )


@pytest.mark.parametrize("block", range(8))
def test_binary_responses_are_separated_where_another_programme_says_so(block):
    """25 designs a block: the verdict, and the rows themselves."""
    rng = np.random.default_rng(block)
    seen = set()
    for _ in range(25):
        n, p = int(rng.integers(4, 14)), int(rng.integers(1, 4))
        D = design(rng, n, p)
        y = (rng.random(n) < 0.5).astype(float)
        rows = separated(D * (2 * y - 1)[:, None], np.zeros((0, p + 1)))
        data, formula = columns(D)
        found, named = verdict(formula, data | {"y": y}, "bernoulli")
        if rows:
            assert (found, named) == ("separated", rows)
        else:
            assert found == ("flat" if np.linalg.matrix_rank(D) <= p else "maximum")
        seen.add(found)
    assert {"separated", "maximum"} <= seen


@pytest.mark.parametrize("block", range(4))
def test_counts_are_separated_where_another_programme_says_so(block):
    """Poisson: δ·x = 0 where y > 0 and δ·x ≤ 0 where y = 0 (Correia, Guimarães and Zylkin 2019)."""
    rng = np.random.default_rng(100 + block)
    for _ in range(20):
        n, p = int(rng.integers(5, 14)), int(rng.integers(1, 4))
        D = design(rng, n, p)
        y = rng.poisson(0.7, n).astype(float)
        if not y.any():
            continue
        zero = np.flatnonzero(y == 0)
        rows = [int(zero[i]) for i in separated(-D[zero], D[y > 0])] if len(zero) else []
        data, formula = columns(D)
        found, named = verdict(formula, data | {"y": y}, "poisson")
        if rows:
            assert (found, named) == ("separated", rows)
        else:
            assert found == ("flat" if np.linalg.matrix_rank(D) <= p else "maximum")


def test_shares_are_separated_at_their_ends_alone():
    """Binomial: a row strictly between 0 and its trials pins its direction."""
    rng = np.random.default_rng(7)
    for _ in range(20):
        n = int(rng.integers(5, 12))
        D, t = design(rng, n, 2), np.full(n, 3.0)
        y = rng.choice([0.0, 1.0, 3.0], n, p=[0.45, 0.1, 0.45])
        inner = (y > 0) & (y < 3)
        Z = D[~inner] * np.where(y[~inner] == 3, 1.0, -1.0)[:, None]
        rows = [int(np.flatnonzero(~inner)[i]) for i in separated(Z, D[inner])]
        data, formula = columns(D)
        found, named = verdict(formula, data | {"y": y, "t": t}, "binomial", trials="t")
        if rows:
            assert (found, named) == ("separated", rows)
        else:
            assert found == ("flat" if np.linalg.matrix_rank(D) <= 2 else "maximum")


@pytest.mark.parametrize("complete", [True, False])
def test_more_rows_than_one_programme_holds(monkeypatch, complete):
    """Inequalities are added as they are violated: with room for 50 of 600 the verdict is that of all rows at
    once."""
    monkeypatch.setattr(separation, "WORKING", 50)
    rng = np.random.default_rng(8)
    x, z = rng.normal(size=600), rng.normal(size=600)
    side = x + 0.5 * z
    y = (side > 0).astype(float)
    if not complete:
        y[np.abs(side) < 0.05] = 1 - y[np.abs(side) < 0.05]
    found, named = verdict("y ~ x + z", {"x": x, "z": z, "y": y}, "bernoulli")
    assert found == ("separated" if complete else "maximum")
    assert len(named) == (600 if complete else 0)


def test_quasi_separation_by_a_rare_level_beyond_the_limit(monkeypatch):
    """One level of twenty has y = 0 throughout: its rows, and no others, are named."""
    monkeypatch.setattr(separation, "WORKING", 60)
    rng = np.random.default_rng(9)
    g = rng.integers(0, 20, 800)
    y = (rng.random(800) < 0.5).astype(float)
    y[g == 7] = 0.0
    found, named = verdict("y ~ g", {"g": [f"g{v:02d}" for v in g], "y": y}, "bernoulli")
    assert (found, named) == ("separated", np.flatnonzero(g == 7).tolist())


@pytest.mark.parametrize("level", [0, 1, 4])
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("family", ["poisson", "bernoulli"])
def test_levels_that_are_separated_are_found_by_their_sums_as_by_the_programme(family, value, level):
    """The reference level (0) too; and y = 1 throughout separates a level of a Bernoulli, not of a Poisson."""
    rng = np.random.default_rng(0)
    n = 400
    data = {
        "x": rng.normal(size=n),
        "g": rng.permutation(np.arange(n) % 8).astype(str),
        "y": rng.integers(0, 2, n),
    }
    data["y"] = np.where(data["g"] == str(level), value, data["y"])
    plain = th.fit("y ~ x + g", data, family, on_failure="return")
    model, source, held = plain.model, plain.source, np.zeros(len(plain.theta), dtype=bool)
    one, two = separation.separation(model, source, held), separation.levels_separated(model, source, held)
    apart = family == "bernoulli" or value == 0
    assert (one is not None) == (two is not None) == apart
    assert plain.certificate.ok != apart
    if one is not None and two is not None:
        assert one.rows.tolist() == two.rows.tolist() == np.flatnonzero(data["g"] == str(level)).tolist()
        assert (one.complete, two.complete) == (False, False)
        eta = (
            next(p for p in model.predictors).placed(next(iter(source.batches())), model.layout.size)
            @ two.direction
        )
        assert (np.flatnonzero(eta) == two.rows).all()
        assert (np.sign(eta[two.rows]) == (1 if value else -1)).all()


def test_a_level_that_is_separated_among_very_many_is_named():
    """Beyond the coordinates of which a programme is solved."""
    rng = np.random.default_rng(0)
    n = 24_000
    data = {
        "x": rng.normal(size=n),
        "g": np.char.add("g", np.char.zfill((np.arange(n) % 6000).astype(str), 4)),
    }
    data["y"] = rng.poisson(np.exp(1.5 + 0.3 * data["x"])).astype(float)
    data["y"][data["g"] == "g0007"] = 0.0
    data["y"][:6000] += data["g"][:6000] != "g0007"  # no other level is all zeros
    with pytest.raises(NoMaximum, match=r"4 rows are separated by 1·g\[T.g0007\]"):
        th.fit("y ~ x + g", data, "poisson")
