import pytest
import torch

from ctuq.errors import CtuqError, InputError
from ctuq.linops import Space
from ctuq.linops.basic import Cast, Dense
from ctuq.linops.dual import BlockDescent, sdd_features
from ctuq.linops.stochastic import sdd

DOUBLE = torch.float64
N, P = 60, 25


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


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_descent_over_features_takes_the_steps_of_the_dense_one_and_lifts_the_solution(outputs):
    n = N // 2 if outputs else N
    H, scales = normal(n, *outputs, P), 0.1 + torch.rand(P, generator=generator(), dtype=DOUBLE)
    noise = 1 + torch.rand(n, *outputs, generator=generator(), dtype=DOUBLE)
    flat = H.reshape(-1, P)
    K, b = (flat * scales) @ flat.T + torch.diag(noise.flatten()), normal(3, n, *outputs)

    def features(index):
        return Dense(H[index].reshape(-1, P), range=Space((len(index), *outputs), DOUBLE))

    options = {"batch": 16, "steps": 300, "rtol": 1.0}
    found, lifted = sdd_features(features, lambda v: scales * v, noise, b, rng=generator(), **options)
    space = Space((n, *outputs), DOUBLE)
    dense = sdd(Dense(K, space, space).rows, b, rng=generator(), **options)
    torch.testing.assert_close(found.value, dense.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.residual, dense.residual, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(lifted, scales * (found.value.flatten(1) @ flat), rtol=0, atol=1e-12)


def test_float32_features_carry_float64_coordinates():
    H, b = normal(N, P).float(), normal(2, N)
    noise = torch.full((N,), 2.0)
    found, lifted = sdd_features(lambda index: Dense(H[index]), lambda v: v, noise, b, batch=20, steps=2000, rng=generator())
    assert (found.value.dtype, lifted.dtype) == (DOUBLE, DOUBLE)
    K = (H @ H.T).double() + 2 * torch.eye(N, dtype=DOUBLE)
    assert (found.value - solution(K, b)).norm() < 1e-4 * found.value.norm()
    assert found.residual.max() < 1e-4


def test_operators_without_rows_or_blocks_are_refused():
    K, b = Cast(Dense(kernel(0.1)), DOUBLE), normal(1, N)
    with pytest.raises(InputError, match="does not give single rows"):
        BlockDescent(generator())(K, b)
    K.rows = lambda index, x: K(x)[:, index]
    with pytest.raises(InputError, match="diagonal blocks"):
        BlockDescent(generator())(K, b)
    with pytest.raises(InputError, match=r"shape \(1, 59\)"):
        BlockDescent(generator())(K, b[:, 1:])
