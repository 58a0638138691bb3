"""Laws that every operator of `ctuq.linops` obeys, and what the plainest ones do."""

import importlib
import pkgutil

import pytest
import torch
from torch import nn

import ctuq.linops
from ctuq.errors import InputError
from ctuq.linops import LinearOperator, Space
from ctuq.linops.basic import Cast, Dense, Diagonal, Identity, LowRankUpdate, Symmetric
from ctuq.linops.interop import from_scipy
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.linops.precondition import Nystrom

DOUBLE = torch.float64
IMAGE, RAYS = Space((2, 3), DOUBLE), Space((4,), DOUBLE)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def matrix():
    return Dense(normal(4, 6), IMAGE, RAYS)


def preconditioner():
    rows, _ = torch.linalg.qr(normal(6, 2))
    return Nystrom(rows.T, torch.tensor([5.0, 2.0], dtype=DOUBLE), IMAGE).with_noise(torch.tensor([[0.3], [0.7]], dtype=DOUBLE))


def network():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 1, 2)).double()
    return jacobian_of(module, normal(1, 1, 5, 6))[1]


OPERATORS = {
    "identity": lambda: Identity(IMAGE),
    "diagonal": lambda: Diagonal(normal(2, 1), IMAGE),
    "matrix": matrix,
    "transpose": lambda: matrix().T,
    "product": lambda: matrix() @ Diagonal(normal(2, 3)),
    "sum": lambda: matrix() + Dense(normal(4, 6, seed=1), IMAGE, RAYS),
    "scaled": lambda: -2.5 * matrix(),
    "low rank": lambda: LowRankUpdate(torch.linalg.qr(normal(6, 2))[0].T, normal(2), IMAGE),
    "cast": lambda: Cast(matrix(), torch.float32),
    "wide": lambda: Cast(Dense(normal(4, 6).float(), Space((2, 3)), Space((4,))), DOUBLE),
    "preconditioner": preconditioner,
    "root": lambda: preconditioner().root,
    "scipy": lambda: from_scipy(normal(4, 6).numpy(), IMAGE, RAYS),
    "symmetric": lambda: Symmetric(lambda x: 3 * x, Space.of(normal(1, 2, 3))),
    "jacobian": network,
}


@pytest.fixture(params=OPERATORS)
def A(request):
    return OPERATORS[request.param]()


def tolerance(A):
    exact = A.domain.dtype == DOUBLE and not isinstance(A, Cast)
    return {"rtol": 0, "atol": 1e-12 if exact else 1e-5}


def test_every_operator_of_the_package_is_held_to_the_laws():
    for module in pkgutil.walk_packages(ctuq.linops.__path__, "ctuq.linops."):
        importlib.import_module(module.name)
    known = {cls.__name__ for cls in LinearOperator.__subclasses__() if cls.__module__.startswith("ctuq.linops")}
    assert known == {type(make()).__name__ for make in OPERATORS.values()}


def test_the_transpose_is_exact(A, rng):
    x, y = A.domain.randn(5, rng=rng), A.range.randn(5, rng=rng)
    forward, backward = (A(x) * y).flatten(1).sum(1), (x * A.T(y)).flatten(1).sum(1)
    torch.testing.assert_close(forward, backward.to(forward), **tolerance(A))
    assert forward.abs().min() > 0


def test_products_are_linear(A, rng):
    x, y = A.domain.randn(2, rng=rng), A.domain.randn(2, rng=rng)
    torch.testing.assert_close(A(2 * x - 3 * y), 2 * A(x) - 3 * A(y), **tolerance(A))


def test_batches_are_single_products(A, rng):
    for B in (A, A.T):
        x = B.domain.randn(2, 3, rng=rng)
        singly = torch.stack([torch.stack([B(value) for value in row]) for row in x])
        torch.testing.assert_close(B(x), singly, **tolerance(A))


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"jacobian"}))
def test_empty_batches_are_empty_products(name):
    A = OPERATORS[name]()
    assert A(torch.empty(0, 3, *A.domain.shape, dtype=A.domain.dtype)).shape == (0, 3, *A.range.shape)
    assert A.T(torch.empty(0, 3, *A.range.shape, dtype=A.range.dtype)).shape == (0, 3, *A.domain.shape)


def test_the_dense_matrix_has_the_products_with_unit_vectors_as_columns(A):
    columns = []
    for j in range(A.domain.size):
        unit = torch.zeros(A.domain.size, dtype=A.domain.dtype)
        unit[j] = 1
        columns.append(A(unit.reshape(A.domain.shape)).flatten())
    torch.testing.assert_close(A.dense(), torch.stack(columns, 1), **tolerance(A))
    torch.testing.assert_close(A.T.dense(), A.dense().T.to(A.domain.dtype), **tolerance(A))


def test_products_have_the_types_that_the_spaces_say(A, rng):
    assert A(A.domain.randn(1, rng=rng)).dtype == A.range.dtype
    assert A.T(A.range.randn(1, rng=rng)).dtype == A.domain.dtype


def test_sums_scalings_and_products_are_those_of_the_matrices():
    A, B, d = matrix(), Dense(normal(4, 6, seed=1), IMAGE, RAYS), normal(2, 3)
    torch.testing.assert_close((A + B).dense(), A.matrix + B.matrix)
    torch.testing.assert_close((2 * A).dense(), 2 * A.matrix)
    torch.testing.assert_close((A * 2.0).dense(), 2 * A.matrix)
    torch.testing.assert_close((A @ Diagonal(d)).dense(), A.matrix * d.flatten())
    torch.testing.assert_close((A @ Identity(IMAGE)).dense(), A.matrix)


def test_factors_that_are_shared_by_rows_broadcast():
    d = normal(2, 1)
    torch.testing.assert_close(Diagonal(d, IMAGE).dense(), torch.diag(d.expand(2, 3).flatten()))


def test_a_cast_computes_in_the_type_of_its_operator():
    exact, rounded = normal(4, 6), normal(4, 6).float()
    outside = Cast(Dense(rounded), DOUBLE).dense()
    assert outside.dtype == DOUBLE
    torch.testing.assert_close(outside, rounded.double(), rtol=0, atol=0)
    assert not torch.equal(outside, exact)


def test_rows_and_blocks_of_a_matrix_are_its_own(rng):
    index, square = torch.tensor([2, 0]), normal(8, 8)
    space = Space((4, 2), DOUBLE)
    K, x = Dense(square, space, space), space.randn(3, rng=rng)
    torch.testing.assert_close(K.rows(index, x), K(x)[:, index])
    places = torch.tensor([4, 5, 0, 1])
    torch.testing.assert_close(K.block(index), square[places][:, places])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: matrix() + matrix().T, "shapes differ"),
        (lambda: Diagonal(normal(4), IMAGE), r"shape \(4,\) do not broadcast to \(2, 3\)"),
        (lambda: Dense(normal(4, 5), IMAGE, RAYS), r"shape \(4, 5\) is no map from \(2, 3\) to \(4,\)"),
    ],
)
def test_operators_that_do_not_fit_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
