"""Small factors of every level, and products at a pattern, against numpy's dense ones."""

from __future__ import annotations

import numpy as np
import pytest

from thetahat.models import blocks


def pattern(levels, columns, rows, seed=0):
    """Rows of two terms, one of one effect and one of two, and the dense matrix that they add up to."""
    g = np.random.default_rng(seed)
    code = g.integers(0, levels, rows)
    single = g.integers(0, columns // 2, (rows, 1))
    double = columns // 2 + 2 * g.integers(0, columns // 4, (rows, 1)) + np.arange(2)
    found, entries = blocks.Pattern.of(code, [single, double], (levels, columns))
    values, dense = np.zeros((2, len(found.columns))), np.zeros((2, levels, columns))
    for places, entry in zip((single, double), entries, strict=True):
        own = g.normal(size=(2, *places.shape))
        for k in range(2):
            np.add.at(values[k], entry, own[k])
            np.add.at(dense[k], (code[:, None], places), own[k])
    return found, values, dense


@pytest.mark.parametrize(("levels", "columns", "rows"), [(40, 16, 90), (30, 400, 120), (7, 8, 500)])
def test_products_at_a_pattern_are_those_of_the_dense_matrix(levels, columns, rows):
    """Of short rows by their entries, of long ones by dense products: both are the dense matrix's."""
    found, values, dense = pattern(levels, columns, rows)
    A = np.random.default_rng(1).normal(size=(columns + 3, columns + 3))
    A += A.T
    for k, M in enumerate(found.matrices(values)):
        assert np.array_equal(M.toarray(), dense[k])
    own = (found.rows, found.columns)
    expected = [(dense[k] @ A[:columns, :columns])[own] for k in range(2)]
    assert np.allclose(found.times(values, A), expected, rtol=0, atol=1e-12)
    assert np.allclose(found.summed(values), dense.sum(2), rtol=0, atol=1e-12)
    assert np.allclose(found.gram(values), sum(M.T @ M for M in dense), rtol=0, atol=1e-12)


def test_work_is_cut_into_stripes_and_the_answer_is_the_same(monkeypatch):
    found, values, dense = pattern(40, 16, 90)
    A = np.eye(16) + 0.1
    whole = found.times(values, A), found.gram(values)
    monkeypatch.setattr(blocks, "CELLS", 20)
    found = blocks.Pattern(found.shape, found.begin, found.columns)
    assert np.allclose(found.times(values, A), whole[0], rtol=0, atol=1e-13)
    assert np.allclose(found.gram(values), whole[1], rtol=0, atol=1e-13)
    assert np.allclose(whole[1], sum(M.T @ M for M in dense), rtol=0, atol=1e-12)


def test_factors_of_all_levels_are_numpys():
    g = np.random.default_rng(2)
    half = g.normal(size=(3, 3, 6))
    D = blocks.multiplied(half, blocks.transposed(half)) + np.eye(3)[:, :, None]
    level = np.moveaxis(D, 2, 0)
    assert np.allclose(np.moveaxis(half, 2, 0) @ np.moveaxis(half, 2, 0).swapaxes(1, 2) + np.eye(3), level)
    L = blocks.cholesky(D)
    assert np.allclose(np.moveaxis(L, 2, 0), np.linalg.cholesky(level))
    assert np.allclose(np.moveaxis(blocks.inverse_lower(L), 2, 0), np.linalg.inv(np.linalg.cholesky(level)))
    same = g.normal(size=(3, 3))
    assert np.allclose(np.moveaxis(blocks.multiplied(same, D), 2, 0), same @ level)
    assert np.allclose(np.moveaxis(blocks.multiplied(D, same), 2, 0), level @ same)
    wide = g.normal(size=(3, 5, 6))
    assert np.allclose(np.moveaxis(blocks.multiplied(D, wide), 2, 0), level @ np.moveaxis(wide, 2, 0))


def test_a_dense_factor_solves_and_inverts():
    g = np.random.default_rng(3)
    half = g.normal(size=(6, 9))
    S, b = half @ half.T, g.normal(size=(6, 2))
    L = blocks.dense_cholesky(S.copy())
    assert np.allclose(L, np.linalg.cholesky(S))
    assert np.allclose(blocks.dense_solve(L, b), np.linalg.solve(S, b))
    inverse = blocks.dense_inverse(L)
    assert np.allclose(inverse, np.linalg.inv(S))
    assert np.array_equal(inverse, inverse.T)


def test_a_matrix_that_is_not_positive_definite_has_no_factor():
    with pytest.raises(blocks.NotPositiveDefinite):
        blocks.dense_cholesky(np.diag([1.0, -1.0]))
    with pytest.raises(blocks.NotPositiveDefinite):
        blocks.cholesky(np.array([[[1.0, -1.0]]]))
