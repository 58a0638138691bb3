import pytest
import torch

from ctuq.errors import InputError
from ctuq.linops import LinearOperator, Space


class Matrix(LinearOperator):
    """A dense matrix between tensors of any shape."""

    def __init__(self, matrix, into, out):
        self.matrix, self.domain, self.range = matrix, Space(into, matrix.dtype), Space(out, matrix.dtype)

    def _apply(self, x):
        return (x.flatten(1) @ self.matrix.T).reshape(-1, *self.range.shape)

    def _apply_transpose(self, y):
        return (y.flatten(1) @ self.matrix).reshape(-1, *self.domain.shape)


@pytest.fixture
def A(rng):
    return Matrix(torch.randn(6, 4, generator=rng, dtype=torch.float64), (2, 2), (3, 2))


@pytest.fixture
def B(rng):
    return Matrix(torch.randn(5, 6, generator=rng, dtype=torch.float64), (3, 2), (5,))


def test_any_leading_axes_are_batch_axes(A, rng):
    x = A.domain.randn(2, 3, rng=rng)
    assert x.shape == (2, 3, 2, 2)
    assert A(x).shape == (2, 3, 3, 2)
    torch.testing.assert_close(A(x)[1, 2], A(x[1, 2]))
    torch.testing.assert_close(A(x[1, 2]).flatten(), A.matrix @ x[1, 2].flatten())


def test_an_empty_batch_gives_an_empty_batch(A):
    assert A(torch.zeros(0, 2, 2, dtype=torch.float64)).shape == (0, 3, 2)


def test_transpose_of_transpose_is_the_operator(A):
    assert A.T.T is A
    assert (A.T.domain, A.T.range) == (A.range, A.domain)


def test_dense_is_the_matrix_and_its_transpose(A):
    torch.testing.assert_close(A.dense(), A.matrix)
    torch.testing.assert_close(A.T.dense(), A.matrix.T)


def test_product_is_the_product_of_the_matrices(A, B):
    torch.testing.assert_close((B @ A).dense(), B.matrix @ A.matrix)
    torch.testing.assert_close((B @ A).T.dense(), (B.matrix @ A.matrix).T)
    torch.testing.assert_close((A.T @ B.T).dense(), (B @ A).T.dense())


def test_product_of_operators_that_do_not_fit_names_both_shapes(A, B):
    with pytest.raises(InputError, match=r"\(5,\) is not \(2, 2\)"):
        A @ B


@pytest.mark.parametrize("shape", [(4,), (2,), (), (3, 2)])
def test_tensors_of_another_shape_are_refused(A, shape):
    with pytest.raises(InputError, match=r"shape \(\.\.\., 2, 2\)"):
        A(torch.zeros(shape, dtype=torch.float64))


def test_random_vectors_depend_on_the_generator_alone(A):
    draws = [A.domain.randn(3, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
