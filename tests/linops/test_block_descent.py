import pytest
import torch

from ctuq.errors import CtuqError, InputError
from ctuq.linops import Space
from ctuq.linops.basic import Cast, Dense
from ctuq.linops.block_descent import BlockDescent
from ctuq.linops.stochastic import sdd

DOUBLE = torch.float64
N = 60


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def kernel(noise, lengthscale=0.3):
    x = torch.rand(N, 1, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    return torch.exp(-(x - x.T).abs() / lengthscale) + noise * torch.eye(N, dtype=DOUBLE)


def solution(K, b):
    return torch.linalg.solve(K, b.flatten(1).T).T.reshape(b.shape)


SPACES = {"vector": (N,), "outputs": (N // 3, 3)}


@pytest.mark.parametrize("shape", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("rtol", [1e-2, 1e-8])
def test_block_descent_reaches_its_tolerance_and_no_more_is_claimed(shape, rtol):
    space, K, b = Space(shape, DOUBLE), kernel(0.05), normal(3, *shape)
    found = BlockDescent(generator(), batch=11, rtol=rtol, max_passes=1000)(Dense(K, space, space), b)
    residual = (b.flatten(1) - found.value.flatten(1) @ K).norm(dim=1) / b.flatten(1).norm(dim=1)
    torch.testing.assert_close(found.residual, residual, rtol=1e-6, atol=1e-14)
    assert found.converged
    assert (residual <= rtol).all()
    assert (found.value - solution(K, b)).norm() < 200 * rtol * found.value.norm()


def test_one_block_of_everything_is_exact_after_one_pass():
    K, b = kernel(0.05), normal(3, N)
    found = BlockDescent(generator(), batch=N, rtol=1e-10)(Dense(K), b)
    assert found.steps <= 2
    torch.testing.assert_close(found.value, solution(K, b), rtol=0, atol=1e-11)


def test_block_descent_needs_far_fewer_passes_than_dual_descent():
    K, b = Dense(kernel(0.01)), normal(2, N)
    passes = BlockDescent(generator(), batch=20, rtol=1e-3, max_passes=300)(K, b).steps
    with pytest.warns(UserWarning, match="SDD reached"):
        slow = sdd(K.rows, b, batch=20, steps=3 * passes, rtol=1e-3, rng=generator())
    assert slow.residual.min() > 1e-2


def test_block_descent_goes_on_from_its_start():
    K, b = Dense(kernel(0.05)), normal(2, N)
    found = BlockDescent(generator(), batch=20, rtol=1e-6)(K, b, start=solution(K.matrix, b))
    assert found.steps <= 2
    assert found.converged


def test_too_few_passes_are_a_warning_with_the_number():
    with pytest.warns(UserWarning, match=r"Block descent reached a relative residual of \S+ in 2 steps, not 1.0e-08"):
        found = BlockDescent(generator(), batch=10, rtol=1e-8, max_passes=2)(Dense(kernel(0.05)), normal(2, N))
    assert not found.converged
    assert (found.residual < 1).all()


def test_an_indefinite_block_is_an_error():
    K = kernel(0.05) - torch.eye(N, dtype=DOUBLE)
    with pytest.raises(CtuqError, match="block of 12 coordinates"):
        BlockDescent(generator(), batch=12)(Dense(K), normal(1, N))


def test_operators_without_rows_or_blocks_are_refused():
    K, b = Cast(Dense(kernel(0.1)), DOUBLE), normal(1, N)
    with pytest.raises(InputError, match="does not give single rows"):
        BlockDescent(generator())(K, b)
    K.rows = lambda index, x: K(x)[:, index]
    with pytest.raises(InputError, match="diagonal blocks"):
        BlockDescent(generator())(K, b)
    with pytest.raises(InputError, match=r"shape \(1, 59\)"):
        BlockDescent(generator())(K, b[:, 1:])
