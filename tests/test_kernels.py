"""The compiled sums against the same sums of the columns written out with numpy, for designs of every kind; and a fit with
and without them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.kernels import compiled

needs_library = pytest.mark.skipif(not compiled.available(), reason="installed without a compiler")


@dataclass
class Made:
    """A design, and the same columns written out: (n, p), in the order of θ."""

    columns: compiled.Columns
    written: np.ndarray
    places: np.ndarray  # of each column in A; -1: eliminated
    theta: torch.Tensor
    offset: np.ndarray


def made(
    n: int,
    dense: int,
    levels: tuple[int, ...],
    *,
    intercept: bool = True,
    layout: str = "columns",
    eliminated: int | None = None,
    values: bool = False,
    start: int = 0,
    place: int = 0,
    codes: torch.dtype = torch.int64,
    seed: int = 0,
) -> Made:
    rng = np.random.default_rng(seed)
    x = torch.tensor(rng.normal(size=(n, dense)))
    x = x.float() if layout == "single" else x
    x = x.T.contiguous().T if layout in ("columns", "single") else x
    x = torch.tensor(np.repeat(x.numpy(), 2, 0))[::2] if layout == "every second row" else x
    parts, places = [np.ones((n, 1))] if intercept else [], list(range(place, place + intercept + dense))
    parts.append(x.double().numpy())
    at, where, terms = start + intercept + dense, place + intercept + dense, []
    for t, many in enumerate(levels):
        code = rng.integers(0, many + 1, n)
        value = rng.normal(size=n) if values else np.ones(n)
        parts.append((code[:, None] == np.arange(1, many + 1)) * value[:, None])
        gone = t == eliminated
        terms.append(
            compiled.Term(
                torch.tensor(code).to(codes),
                torch.tensor(value) if values else None,
                many,
                at,
                -1 if gone else where,
            )
        )
        places += [-1] * many if gone else list(range(where, where + many))
        at, where = at + many, where + (0 if gone else many)
    written, offset = np.concatenate(parts, 1), rng.normal(size=n)
    columns = compiled.Columns(n, x if dense else None, intercept, torch.tensor(offset), terms, start, place)
    theta = torch.tensor(np.concatenate([rng.normal(size=start), rng.normal(size=written.shape[1]) / 5]))
    return Made(columns, written, np.array(places), theta, offset)


DESIGNS = {
    "dense": {"n": 2000, "dense": 7, "levels": ()},
    "rows": {"n": 1999, "dense": 5, "levels": (), "layout": "rows"},
    "strided": {"n": 700, "dense": 3, "levels": (), "layout": "every second row"},
    "float32": {"n": 5000, "dense": 4, "levels": (3,), "layout": "single"},
    "one row": {"n": 1, "dense": 2, "levels": (2,)},
    "narrow": {"n": 3001, "dense": 2, "levels": (2, 5, 64), "codes": torch.uint8},
    "products": {"n": 3001, "dense": 2, "levels": (4, 70), "values": True, "codes": torch.int16},
    "no constant": {"n": 1500, "dense": 3, "levels": (4,), "intercept": False, "start": 2, "place": 2},
    "wide": {"n": 30_000, "dense": 3, "levels": (3, 400, 90), "codes": torch.int32},
    "eliminated": {"n": 30_000, "dense": 3, "levels": (70, 400, 90, 5), "eliminated": 1, "values": True},
    "codes alone": {"n": 900, "dense": 0, "levels": (5, 80), "intercept": False},
    "many columns": {"n": 600, "dense": 130, "levels": ()},
}


def whole(sums: compiled.Sums, places: np.ndarray) -> np.ndarray:
    """The parts of an information as one matrix, in the order of the columns."""
    p = len(places)
    out, kept, gone = np.zeros((p, p)), np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
    A = sums.A.numpy()
    out[np.ix_(kept, kept)] = A[np.ix_(places[kept], places[kept])]
    if len(gone):
        assert sums.E is not None
        assert sums.D is not None
        E = sums.E.numpy()[:, places[kept]]
        out[np.ix_(gone, kept)], out[np.ix_(kept, gone)] = E, E.T
        out[gone, gone] = sums.D.numpy()
    return out


def sums_of(case: dict, *more: Made) -> compiled.Sums:
    kept = 1 + max(int(each.places.max()) for each in more)
    gone = case.get("eliminated")
    return compiled.Sums(kept, case["levels"][gone] if gone is not None else 0)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_linear_predictor_and_the_gradient(level, name):
    each = made(**DESIGNS[name])
    start = each.columns._design.start
    want = each.offset + each.written @ each.theta.numpy()[start:]
    np.testing.assert_allclose(each.columns.eta(each.theta), want, rtol=1e-13, atol=1e-13)
    score, out = (
        torch.randn(each.columns.n, dtype=torch.float64),
        torch.ones(len(each.theta), dtype=torch.float64),
    )
    each.columns.pull(score, out)
    np.testing.assert_allclose(out[start:], 1 + each.written.T @ score.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_products_of_a_design_with_itself(level, name):
    case = DESIGNS[name]
    each = made(**case)
    weight = torch.randn(each.columns.n, dtype=torch.float64)
    sums = sums_of(case, each)
    sums.add(each.columns, None, weight)
    want = each.written.T @ (each.written * weight.numpy()[:, None])
    np.testing.assert_allclose(whole(sums, each.places), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("eliminated", [None, 0, 1, 2])
def test_the_products_of_two_designs(level, eliminated):
    """Each block of the information of a family with two predictors, the eliminated term in either of them."""
    n, first, second = 4000, (90, 3), (80, 200)
    own = eliminated if eliminated in (0, 1) else None
    a = made(n, 3, first, eliminated=own if own == 0 else None, values=True, seed=1)
    b = made(
        n,
        2,
        second,
        eliminated=1 if eliminated == 2 else None,
        start=97,
        place=int(a.places.max()) + 1,
        seed=2,
    )
    many = 90 if own == 0 else 200 if eliminated == 2 else 0
    sums = compiled.Sums(int(b.places.max()) + 1, many)
    weight = torch.randn(3, n, dtype=torch.float64)
    sums.add(a.columns, None, weight[0])
    sums.add(a.columns, b.columns, weight[1])
    sums.add(b.columns, None, weight[2])
    X, Z, (u, v, w) = a.written, b.written, weight.numpy()[:, :, None]
    want = np.block([[X.T @ (u * X), X.T @ (v * Z)], [Z.T @ (v * X), Z.T @ (w * Z)]])
    found = whole(sums, np.concatenate([a.places, b.places]))
    np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-10)


def reference(family: str, y: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p, its score and minus its curvature by scipy, a row at a time."""
    from scipy import special, stats

    if family == "bernoulli":
        mean = special.expit(eta)
        return y * eta - np.logaddexp(0, eta), y - mean, special.expit(eta) * special.expit(-eta)
    if family == "squares":
        return -((y - eta) ** 2) / 2, y - eta, np.ones_like(y)
    return stats.poisson.logpmf(y, np.exp(eta)), y - np.exp(eta), np.exp(eta)


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("family", compiled.FAMILIES)
@pytest.mark.parametrize("name", ["dense", "rows", "narrow", "eliminated", "one row"])
def test_a_family_in_one_pass(level, name, family, counted):
    case = DESIGNS[name]
    each, rng = made(**case), np.random.default_rng(3)
    n = each.columns.n
    y = rng.integers(0, 2 if family == "bernoulli" else 2000, n).astype(float)
    count = rng.uniform(0, 3, n) if counted else np.ones(n)
    value, score, weight = reference(family, y, each.offset + each.written @ each.theta.numpy())
    sums = sums_of(case, each)
    found, gradient = compiled.fused(
        each.columns, family, torch.tensor(y), torch.tensor(count) if counted else None, each.theta, sums
    )
    assert found == pytest.approx((count * value).sum(), rel=1e-13)
    np.testing.assert_allclose(gradient, each.written.T @ (count * score), rtol=1e-10, atol=1e-8)
    want = each.written.T @ (each.written * (count * weight)[:, None])
    np.testing.assert_allclose(whole(sums, each.places), want, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("family", compiled.FAMILIES)
def test_rows_at_every_linear_predictor(level, family):
    """One row at a time over the whole range of η: the elementary functions to rounding, and what overflows."""
    from mpmath import exp, log, loggamma, mpf, workdps

    y = 1.0 if family == "bernoulli" else 3.0
    one = torch.ones(1, 1, dtype=torch.float64)
    for eta in [*np.linspace(-700, 700, 57), *np.linspace(-3, 3, 41), 1e-9, -1e-9, 0.0, 36.8, -36.8]:
        columns = compiled.Columns(1, one, False, None, [], 0, 0)
        sums = compiled.Sums(1)
        value, gradient = compiled.fused(
            columns,
            family,
            torch.tensor([y], dtype=torch.float64),
            None,
            torch.tensor([float(eta)], dtype=torch.float64),
            sums,
        )
        with workdps(700):
            t = mpf(float(eta))
            mean = 1 / (1 + exp(-t)) if family == "bernoulli" else exp(t)
            want = t - log(1 + exp(t)) if family == "bernoulli" else y * t - mean - loggamma(mpf(y) + 1)
            if family == "squares":
                mean, want = t, -((y - t) ** 2) / 2
            weight = {"bernoulli": float(mean * (1 - mean)), "poisson": float(mean), "squares": 1.0}[family]
            assert value == pytest.approx(float(want), rel=4e-16, abs=4e-16 * abs(eta)), eta
            assert float(gradient[0]) == pytest.approx(float(y - mean), rel=4e-16, abs=2.3e-16 * y), eta
            assert float(sums.A[0, 0]) == pytest.approx(weight, rel=1e-15), eta


@needs_library
def test_what_is_beyond_the_range_of_numbers():
    one = torch.ones(1, 1, dtype=torch.float64)
    columns = compiled.Columns(1, one, False, None, [], 0, 0)
    for eta, want in ((710.0, -np.inf), (-800.0, 0.0), (np.nan, np.nan)):
        value, _ = compiled.fused(
            columns,
            "poisson",
            torch.zeros(1).double(),
            None,
            torch.tensor([float(eta)], dtype=torch.float64),
            None,
        )
        np.testing.assert_equal(value, want)


@needs_library
@pytest.mark.parametrize("name", ["dense", "eliminated"])
def test_the_answer_does_not_depend_on_the_number_of_threads(name):
    case = {**DESIGNS[name], "n": 40_000}
    each, before = made(**case), torch.get_num_threads()
    y, found = torch.randint(0, 2, (40_000,), dtype=torch.float64), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            sums = sums_of(case, each)
            value, gradient = compiled.fused(each.columns, "bernoulli", y, None, each.theta, sums)
            found.append((value, gradient, whole(sums, each.places)))
    finally:
        torch.set_num_threads(before)
    for value, gradient, information in found[1:]:
        assert value == found[0][0]
        assert torch.equal(gradient, found[0][1])
        np.testing.assert_array_equal(information, found[0][2])


TABLE = """
import sys, numpy as np, pandas as pd, torch, thetahat as th
from thetahat.kernels import compiled
from thetahat.models import regression
rng = np.random.default_rng(0)
n = 6000
data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "t": rng.uniform(0.5, 2, n)})
data["g"], data["h"] = rng.integers(0, 5, n).astype(str), rng.integers(0, 150, n).astype(str)
data["u"] = rng.permutation(np.arange(n) % 600).astype(str)
regression.LARGE = 0  # the products of two wide categories are sparse
eta = 0.3 * data.x - 0.2 * data.z + 0.1 * data.g.astype(int) + ("u" in sys.argv[1])
data["y"], data["b"] = rng.poisson(np.exp(eta)), (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
data["k"] = rng.negative_binomial(2, 1 / (1 + np.exp(eta) / 2))
data["c"] = rng.gamma(2.0, np.exp(eta) / 2)
formula = sys.argv[1]
fit = th.fit(formula, data, family=sys.argv[2], **eval(sys.argv[3]))
print(compiled.available(), repr(fit.log_likelihood), *map(repr, [*fit.estimates.tolist(), *fit.standard_errors().tolist()]))
"""
FITS = [
    ("b ~ x * g + z + h", "bernoulli", "{}"),
    ("y ~ x + g:z + h + offset(log(t))", "poisson", "{'weights': 't'}"),
    ("k ~ x + z + g", "negative_binomial", "{'dispersion': '~ g'}"),
    ("c ~ x + h", "gamma", "{}"),
    ("x ~ z + g", "normal", "{'scale': '~ z + g'}"),
    ("x ~ z + h + u + g", "normal", "{'weights': 't'}"),
    ("y ~ x + h + u + g", "poisson", "{}"),
]


@needs_library
@pytest.mark.parametrize(("formula", "family", "more"), FITS)
def test_a_fit_is_the_same_without_the_compiled_sums(formula, family, more):
    answers = []
    for wanted in ("1", "0"):
        child = subprocess.run(
            [sys.executable, "-c", TABLE, formula, family, more],
            env=os.environ | {"THETAHAT_COMPILED": wanted},
            capture_output=True,
            text=True,
            check=True,
        )
        there, *numbers = child.stdout.split()
        assert there == str(wanted == "1")
        answers.append(np.array(numbers, dtype=float))
    np.testing.assert_allclose(answers[0], answers[1], rtol=2e-9, atol=1e-10)


@needs_library
def test_rows_that_count_nothing_may_be_anything_but_missing():
    data = pd.DataFrame({"x": [0.0, 1.0, 2.0, 1e200], "y": [0.0, 1.0, 1.0, 1.0], "w": [1.0, 2.0, 1.0, 0.0]})
    data = pd.concat([data, data.iloc[:3].assign(y=[1.0, 0.0, 0.0])])
    with_zero, without = (
        th.fit("y ~ x", each, family="bernoulli", weights="w") for each in (data, data[data.w > 0])
    )
    torch.testing.assert_close(with_zero.theta, without.theta, rtol=1e-8, atol=1e-10)
