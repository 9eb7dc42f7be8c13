"""Information with an eliminated block against the same matrix written out."""

import pytest
import torch

from thetahat.models.information import Information

GONE = slice(2, 9)  # the eliminated coordinates of θ, between kept ones


def eliminated(seed=0, m=5, levels=7):
    """A positive definite J whose block `GONE` is diagonal."""
    g = torch.Generator().manual_seed(seed)
    E = torch.randn(levels, m, generator=g, dtype=torch.float64)
    D = 1 + torch.rand(levels, generator=g, dtype=torch.float64)
    root = torch.randn(m, m, generator=g, dtype=torch.float64)
    return Information(root @ root.T + E.T @ (E / D[:, None]) + torch.eye(m), E, D, GONE)


def plain(seed=0):
    return Information(eliminated(seed).dense())


def vector(seed=1, n=12):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


close = torch.testing.assert_close
both = pytest.mark.parametrize("J", [eliminated(), plain()], ids=["eliminated", "dense"])


def test_the_matrix_written_out_is_symmetric_with_a_diagonal_block():
    J = eliminated()
    dense = J.dense()
    assert J.size == len(dense) == 12
    close(dense, dense.T)
    close(dense[GONE, GONE], torch.diag(J.D))
    close(dense[GONE, [0, 1, 9, 10, 11]], J.E)


@both
def test_products_and_diagonals_are_those_of_the_matrix(J):
    close(J.multiply(vector()), J.dense() @ vector())
    close(J.diagonal(), J.dense().diagonal())
    close(J.plus_diagonal(vector().abs()).dense(), J.dense() + torch.diag(vector().abs()))


@both
def test_the_factor_solves(J):
    factor, inverse = J.factor(), torch.linalg.inv(J.dense())
    close(factor.solve(vector()), inverse @ vector())
    B = torch.stack([vector(2), vector(3)], 1)
    close(factor.solve(B), inverse @ B)
    close(factor.inverse(), inverse)
    close(factor.inverse_diagonal(), inverse.diagonal())
    close(factor.log_determinant(), torch.logdet(J.dense()))


def test_sums_are_sums_of_matrices_in_place_or_not():
    for a, b in [
        (eliminated(0), eliminated(1)),
        (plain(0), plain(1)),
        (eliminated(0), plain(1)),
        (plain(0), eliminated(1)),
    ]:
        wanted = a.dense() + b.dense()
        close((a + b).dense(), wanted)
        close(a.accumulate(b).dense(), wanted)
    assert (eliminated(0) + eliminated(1)).eliminated == GONE


@both
@pytest.mark.parametrize("free", [[0, 3, 5, 11], [3, 4, 5], [0, 1, 9], list(range(12)), [2], [0]])
def test_a_restriction_is_the_block_of_its_coordinates(J, free):
    free = torch.tensor(free)
    block = J.restrict(free)
    close(block.dense(), J.dense()[free[:, None], free])
    close(block.factor().solve(vector(n=len(free))), torch.linalg.solve(block.dense(), vector(n=len(free))))


def test_what_is_not_positive_definite_has_no_factor():
    flat = torch.ones(2, 2, dtype=torch.float64)
    assert Information(-torch.eye(2)).factor() is None
    assert Information(torch.eye(2) * torch.nan).factor() is None
    found = Information(flat).factor()
    assert found is None or found.pivot < 1e-13
    J = eliminated()
    assert Information(J.A, J.E, torch.where(torch.arange(7) == 3, 0.0, J.D), GONE).factor() is None
    assert Information(J.A - 50 * torch.eye(5), J.E, J.D, GONE).factor() is None


def test_the_pivot_is_one_less_the_squared_multiple_correlation_of_the_last_column():
    """A column x₂ = x₁ + ε has R² = 1/(1 + ε²): the scaled Cholesky factor's last pivot is ε²/(1 + ε²)."""
    epsilon = 1e-4
    J = torch.tensor([[1.0, 1.0], [1.0, 1.0 + epsilon**2]], dtype=torch.float64)
    assert Information(J).factor().pivot == pytest.approx(epsilon**2 / (1 + epsilon**2), rel=1e-6)


def test_columns_of_any_size_have_the_same_pivot():
    J, s = plain().dense(), torch.tensor([1e-8, 1.0, 1e8] * 4, dtype=torch.float64)
    assert Information(J * s * s[:, None]).factor().pivot == pytest.approx(
        Information(J).factor().pivot, rel=1e-9
    )
