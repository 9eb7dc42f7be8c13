"""The sums of an eliminated term's levels, against the same columns written out with numpy."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from thetahat.kernels import compiled
from thetahat.kernels.levels import Pattern, Patterns, row_dots

from .test_kernels import Made, made

pytestmark = pytest.mark.skipif(not compiled.available(), reason="installed without a compiler")

DESIGNS = {
    "codes": {"n": 9000, "dense": 2, "levels": (70, 400, 5), "eliminated": 1, "codes": torch.int16},
    "values": {"n": 9000, "dense": 3, "levels": (400, 90, 70), "eliminated": 0, "values": True},
    "float32": {"n": 3000, "dense": 2, "levels": (80, 90), "eliminated": 0, "layout": "single"},
    "rows": {"n": 3000, "dense": 4, "levels": (80, 90), "eliminated": 0, "layout": "rows"},
    "no dense column": {"n": 500, "dense": 0, "levels": (90, 80), "eliminated": 0, "intercept": False},
    "few rows of many columns": {"n": 300, "dense": 1, "levels": (6000, 200), "eliminated": 1},
}


def dense_columns(parts: list[Made], kept: int) -> torch.Tensor:
    """The places in A of what belongs to no term."""
    alone = np.ones(kept, dtype=bool)
    for part in parts:
        for term in part.columns.terms:
            if term.place >= 0:
                alone[term.place : term.place + term.levels] = False
    return torch.from_numpy(np.flatnonzero(alone))


def written(sums: compiled.Sums, places: np.ndarray) -> np.ndarray:
    """The parts of an information as one matrix, in the order of the columns."""
    from scipy import sparse

    p, pattern = len(places), sums.pattern
    kept, gone = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
    out = np.zeros((p, p))
    out[np.ix_(kept, kept)] = sums.A.numpy()[np.ix_(places[kept], places[kept])]
    own = (sums.values.numpy(), pattern.indices, pattern.indptr)
    E = sparse.csr_array(own, shape=(len(gone), sums.kept)).toarray()[:, places[kept]]
    out[np.ix_(gone, kept)], out[np.ix_(kept, gone)] = E, E.T
    out[gone, gone] = sums.D.numpy()
    return out


@pytest.mark.parametrize("name", DESIGNS)
def test_the_levels_of_one_design(level, name):
    case = DESIGNS[name]
    each = made(**case)
    kept, many = int(each.places.max()) + 1, case["levels"][case["eliminated"]]
    pattern = Pattern([each.columns], kept, dense_columns([each], kept))
    weight, want = torch.randn(2, case["n"], dtype=torch.float64), 0.0
    sums = compiled.Sums(kept, many, pattern)
    for w in weight:  # a pattern is of the codes, whatever the weights
        sums.add(each.columns, None, w)
        want = want + each.written.T @ (each.written * w.numpy()[:, None])
    np.testing.assert_allclose(written(sums, each.places), want, rtol=1e-11, atol=1e-10)
    for a, b in zip(pattern.indptr, pattern.indptr[1:], strict=False):
        assert (np.diff(pattern.indices[a:b]) > 0).all()


@pytest.mark.parametrize("eliminated", [0, 1])
def test_the_levels_of_two_designs(level, eliminated):
    """The eliminated term in either predictor, of which both have other wide terms."""
    n = 4000
    a = made(n, 3, (90, 3, 70), eliminated=0 if eliminated == 0 else None, values=True, seed=1)
    start, place = a.written.shape[1], int(a.places.max()) + 1
    b = made(n, 2, (80, 200), eliminated=1 if eliminated else None, start=start, place=place, seed=2)
    kept = int(b.places.max()) + 1
    pattern = Pattern([a.columns, b.columns], kept, dense_columns([a, b], kept))
    sums = compiled.Sums(kept, 200 if eliminated else 90, pattern)
    weight = torch.randn(3, n, dtype=torch.float64)
    sums.add(a.columns, None, weight[0])
    sums.add(a.columns, b.columns, weight[1])
    sums.add(b.columns, None, weight[2])
    X, Z, (u, v, w) = a.written, b.written, weight.numpy()[:, :, None]
    want = np.block([[X.T @ (u * X), X.T @ (v * Z)], [Z.T @ (v * X), Z.T @ (w * Z)]])
    found = written(sums, np.concatenate([a.places, b.places]))
    np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-10)


def test_the_answer_does_not_depend_on_the_number_of_threads():
    case = DESIGNS["codes"] | {"n": 40_000}
    each, before = made(**case), torch.get_num_threads()
    kept = int(each.places.max()) + 1
    y, found = torch.randint(0, 2, (40_000,), dtype=torch.float64), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            pattern = Pattern([each.columns], kept, dense_columns([each], kept))
            sums = compiled.Sums(kept, 400, pattern)
            value, gradient = compiled.fused(each.columns, "bernoulli", y, None, each.theta, sums)
            found.append((value, gradient.numpy(), written(sums, each.places)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, two in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_pattern_is_found_once_for_the_same_rows():
    each = made(**DESIGNS["float32"])
    kept = int(each.places.max()) + 1
    dense, patterns = dense_columns([each], kept), Patterns()
    codes = [torch.zeros(5), torch.zeros(5)]
    first = patterns.of(codes, [each.columns], kept, dense)
    assert patterns.of(codes, [each.columns], kept, dense) is first
    codes[1][0] = 1.0  # in place
    second = patterns.of(codes, [each.columns], kept, dense)
    assert second is not first
    other = [codes[0], torch.zeros(5)]
    assert patterns.of(other, [each.columns], kept, dense) is not second
    for copied in (pickle.loads(pickle.dumps(patterns)), copy.deepcopy(patterns)):
        assert copied.of(codes, [each.columns], kept, dense) is not second
    del codes, other
    assert len(patterns._known) == 0


def test_products_of_sparse_rows_with_a_symmetric_matrix():
    from scipy import sparse

    rng = np.random.default_rng(0)
    E = sparse.random_array((50, 9), density=0.3, rng=rng, format="csr")
    E.sort_indices()
    M = rng.normal(size=(9, 9))
    M, rows = M + M.T, (E.indptr, E.indices, E.data)
    want = ((E.toarray() @ M) * E.toarray()).sum(1)
    np.testing.assert_allclose(row_dots(rows, torch.tensor(M), rows), want, rtol=1e-12, atol=1e-12)
    other = (E.indptr.copy(), E.indices.copy(), 2.0 * E.data)
    np.testing.assert_allclose(row_dots(rows, torch.tensor(M), other), 2 * want, rtol=1e-12, atol=1e-12)
