import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator, eigsh, lsmr

from ctuq.errors import InputError
from ctuq.linops import Space
from ctuq.linops.basic import Dense
from ctuq.linops.interop import from_scipy, to_scipy


@pytest.fixture
def matrix(rng):
    return torch.randn(6, 4, generator=rng, dtype=torch.float64)


def test_scipy_sees_the_matrix_its_transpose_and_single_vectors(matrix, rng):
    A = Dense(matrix, Space((2, 2), torch.float64), Space((3, 2), torch.float64))
    S, x, y = to_scipy(A), torch.randn(4, generator=rng).numpy(), torch.randn(6, 1, generator=rng).numpy()
    assert (S.shape, S.dtype) == ((6, 4), np.float64)
    np.testing.assert_allclose(S @ np.eye(4), matrix.numpy(), rtol=1e-15)
    np.testing.assert_allclose(S.T @ np.eye(6), matrix.T.numpy(), rtol=1e-15)
    np.testing.assert_allclose(S @ x, matrix.numpy() @ x, rtol=1e-12)
    np.testing.assert_allclose(S.T @ y, matrix.T.numpy() @ y, rtol=1e-12)


def test_the_solvers_of_scipy_take_our_operators(matrix):
    A, b = Dense(matrix), np.arange(6.0)
    found = lsmr(to_scipy(A), b, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(found, np.linalg.lstsq(matrix.numpy(), b)[0], rtol=1e-9)
    largest = eigsh(to_scipy(A.T @ A), k=1, v0=np.ones(4))[0]
    np.testing.assert_allclose(largest, torch.linalg.matrix_norm(matrix, 2) ** 2, rtol=1e-12)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, lambda m: to_scipy(Dense(torch.from_numpy(m)))])
def test_operators_sparse_and_dense_arrays_come_back_from_scipy(kind, matrix):
    A = from_scipy(kind(matrix.numpy()), Space((2, 2), torch.float64), Space((3, 2), torch.float64))
    torch.testing.assert_close(A.dense(), matrix, rtol=1e-15, atol=0)
    torch.testing.assert_close(A.T.dense(), matrix.T, rtol=1e-15, atol=0)


@pytest.mark.parametrize(("dtype", "expected"), [(np.float32, torch.float32), (np.int32, torch.float64)])
def test_the_type_follows_scipy(dtype, expected):
    A = from_scipy(sp.eye_array(3, dtype=dtype))
    assert (A.domain, A.range) == (Space((3,), expected), Space((3,), expected))
    assert A(torch.ones(2, 3, dtype=expected)).dtype == expected


def test_an_operator_of_unknown_type_is_float64():
    A = from_scipy(LinearOperator((2, 2), matvec=lambda x: 2 * x, dtype=None))
    assert A.range.dtype == torch.float64
    torch.testing.assert_close(A.dense(), 2 * torch.eye(2, dtype=torch.float64))


def test_complex_operators_and_wrong_spaces_are_refused(matrix):
    with pytest.raises(InputError, match="complex128"):
        from_scipy(1j * np.eye(2))
    with pytest.raises(InputError, match=r"shape \(6, 4\) is no map from \(4,\) to \(5,\)"):
        from_scipy(matrix.numpy(), range=Space((5,)))
