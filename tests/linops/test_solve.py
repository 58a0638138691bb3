import warnings

import pytest
import torch

from ctuq.errors import CtuqError, InputError, ResourceError
from ctuq.linops import LinearOperator, Space, memory
from ctuq.linops.basic import Cast, Dense, Diagonal
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.solve import CG, Cholesky

DOUBLE = torch.float64
N = 60


def matrix(low, high, dtype=DOUBLE):
    """A symmetric matrix with eigenvalues evenly spread over 10^low to 10^high."""
    basis, _ = torch.linalg.qr(normal(N, N, seed=7))
    K = (basis * torch.logspace(low, high, N, dtype=DOUBLE)) @ basis.T
    return ((K + K.T) / 2).to(dtype)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def true_residual(K, x, b):
    return (b - x @ K.double()).norm(dim=1) / b.norm(dim=1)


class Counted(LinearOperator):
    """An operator that remembers how many vectors each of its products had."""

    def __init__(self, operator):
        self.operator, self.sizes = operator, []
        self.domain, self.range = operator.domain, operator.range

    def _apply(self, x):
        self.sizes.append(len(x))
        return self.operator._apply(x)

    def _apply_transpose(self, y):
        return self._apply(y)


def test_block_conjugate_gradients_in_another_metric_take_fewer_steps_to_the_same_solution(rng):
    n, k = 300, 12
    B = torch.randn(n, 20, generator=rng, dtype=torch.float64) * torch.logspace(0, 3, 20, dtype=torch.float64)
    weak = 0.3 * torch.randn(n, n, generator=rng, dtype=torch.float64)
    K = torch.eye(n, dtype=torch.float64) + B @ B.T + weak @ weak.T / n
    near = Dense(torch.linalg.inv(torch.eye(n, dtype=torch.float64) + B @ B.T))
    b = torch.randn(k, n, generator=rng, dtype=torch.float64)
    b[1], b[2], b[3] = 0, b[0], 1e-6 * b[4] + 1e-9 * b[5]
    rtol, some = torch.logspace(-6, -1, k, dtype=torch.float64), b.norm(dim=1) > 0
    plain, found = BlockCG(1e-6)(Dense(K), b), BlockCG(rtol, near=near)(Dense(K), b)
    assert bool((true_residual(K, found.value, b)[some] <= 1.01 * rtol[some]).all())
    assert float(true_residual(K, BlockCG(1e-6, near=near)(Dense(K), b).value, b)[some].max()) < 1.01e-6
    assert found.steps < plain.steps / 2
    assert found.value[1].norm() == 0


@pytest.mark.parametrize(("solver", "rtol"), [(Cholesky(), 1e-12), (CG(rtol=1e-10), 1e-8), (BlockCG(rtol=1e-10), 1e-8)])
def test_solutions_are_those_of_a_dense_solve(solver, rtol):
    K, b = matrix(0, 2), normal(3, N)
    found = solver(Dense(K), b)
    torch.testing.assert_close(found.value, torch.linalg.solve(K, b.T).T, rtol=0, atol=rtol)
    assert found.converged


@pytest.mark.parametrize("solver", [Cholesky(), CG(rtol=1e-6), BlockCG(rtol=1e-6)])
def test_vectors_keep_the_shape_of_the_operator(solver):
    space = Space((5, 4, 3), DOUBLE)
    K, b = matrix(0, 2), normal(2, 5, 4, 3)
    found = solver(Dense(K, space, space), b)
    assert found.value.shape == b.shape
    assert (true_residual(K, found.value.flatten(1), b.flatten(1)) <= 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("rtol", [1e-1, 1e-3])
def test_returned_residuals_are_the_true_ones_and_within_the_tolerance(rtol, dtype):
    K, b = matrix(-1, 2, dtype), normal(4, N)
    found = CG(rtol=rtol)(Dense(K), b)
    assert found.value.dtype == DOUBLE
    torch.testing.assert_close(found.residual, true_residual(K, found.value, b), rtol=0, atol=1e-4 * rtol + 1e-5)
    assert (found.residual <= rtol).all()
    assert found.converged


def test_a_tolerance_below_the_rounding_of_the_products_is_a_warning_with_the_true_residual():
    K, b = matrix(-2, 3, torch.float32), normal(4, N)
    with pytest.warns(UserWarning, match=r"CG reached a relative residual of \d\.\de-0\d in \d+ steps, not 1\.0e-09"):
        found = CG(rtol=1e-9)(Dense(K), b)
    truth = true_residual(K, found.value, b)
    assert truth.max() < 1e-2
    assert (found.residual > 1e-9).all()
    assert (found.residual < 3 * truth + 1e-3).all()
    assert (truth < 3 * found.residual + 1e-3).all()
    assert found.steps < 1000
    assert not found.converged


def test_too_few_steps_are_a_warning_with_the_number():
    with pytest.warns(UserWarning, match="in 3 steps"):
        found = CG(rtol=1e-6, max_steps=3)(Dense(matrix(0, 4)), normal(2, N))
    assert not found.converged
    assert (found.steps, bool((found.residual > 1e-6).all())) == (3, True)


def test_finished_columns_leave_the_products():
    K, b = matrix(0, 3), normal(4, N)
    basis = torch.linalg.eigh(K)[1].T
    b[0], b[1] = basis[0], basis[1] + basis[2]
    counted = Counted(Dense(K))
    found = CG(rtol=1e-8)(counted, b)
    assert counted.sizes[0] == 4
    assert counted.sizes[5] == 2
    torch.testing.assert_close(found.value, torch.linalg.solve(K, b.T).T, rtol=0, atol=1e-6)


def test_columns_do_not_depend_on_their_company():
    K, b = Dense(matrix(0, 3)), normal(5, N)
    few = CG(rtol=1e-7, max_steps=6)
    with pytest.warns(UserWarning, match="CG reached"):
        together = few(K, b).value
        alone = torch.cat([few(K, row[None]).value for row in b])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_a_warm_start_saves_steps_and_a_solution_needs_none():
    K, b = Dense(matrix(0, 3)), normal(2, N)
    cold = CG(rtol=1e-6)(K, b)
    start = cold.value * (1 + 1e-4)
    near = CG(rtol=1e-6)(K, b, start=start)
    assert torch.equal(start, cold.value * (1 + 1e-4))
    assert near.steps < cold.steps
    assert near.converged
    done = CG(rtol=1e-3)(K, b, start=cold.value)
    assert done.steps == 0
    assert torch.equal(done.value, cold.value)
    assert done.value is not cold.value


def test_a_perfect_preconditioner_needs_one_step():
    K, b = matrix(0, 4), normal(3, N)
    found = CG(rtol=1e-6, preconditioner=Dense(torch.linalg.inv(K)))(Dense(K), b)
    assert found.steps == 1
    assert found.converged


def test_a_diagonal_preconditioner_undoes_a_bad_scaling():
    scales = torch.logspace(-3, 3, N, dtype=DOUBLE)
    K, b = scales[:, None] * matrix(0, 1) * scales, normal(2, N)
    found = CG(rtol=1e-6, preconditioner=Diagonal(1 / K.diagonal()))(Dense(K), b)
    assert found.converged
    assert found.steps < 40


@pytest.mark.parametrize("solver", [Cholesky(), CG()])
def test_zero_has_the_solution_zero(solver):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solver(Dense(matrix(0, 1)), torch.zeros(2, N, dtype=DOUBLE))
    assert not found.value.any()
    assert found.converged


def test_float64_vectors_over_float32_products_lose_only_the_rounding_of_the_products():
    rounded = matrix(0, 1, torch.float32)
    b = normal(2, N)
    wide = CG(rtol=1e-5)(Cast(Dense(rounded), DOUBLE), b)
    plain = CG(rtol=1e-5)(Dense(rounded), b)
    assert torch.equal(wide.value, plain.value)
    assert (true_residual(rounded, wide.value, b) < 1.1e-5).all()


@pytest.mark.parametrize("solver", [Cholesky(), CG()])
def test_an_indefinite_operator_is_no_silent_success(solver):
    K = matrix(0, 1) - 3 * torch.eye(N, dtype=DOUBLE)
    if isinstance(solver, Cholesky):
        with pytest.raises(CtuqError, match="60 unknowns is not positive definite"):
            solver(Dense(K), normal(1, N))
    else:
        with pytest.warns(UserWarning, match="CG reached"):
            assert not solver(Dense(K), normal(1, N)).converged


def test_right_hand_sides_that_cannot_be_solved_for_are_refused():
    K = Dense(matrix(0, 1))
    with pytest.raises(InputError, match=r"shape \(2, 59\)"):
        CG()(K, normal(2, N - 1))
    with pytest.raises(InputError, match=r"\(60,\) -> \(6,\)"):
        CG()(Dense(normal(6, N)), normal(1, N))
    with pytest.raises(InputError, match=r"\(2, 60\), \(1, 60\)"):
        CG()(K, normal(2, N), start=normal(1, N))
    with pytest.raises(InputError, match="not finite"):
        CG()(K, torch.full((1, N), torch.nan))


def test_a_dense_solve_that_does_not_fit_is_refused_before_any_product(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    counted = Counted(Dense(matrix(0, 1)))
    with pytest.raises(ResourceError, match="60 unknowns"):
        Cholesky()(counted, normal(1, N))
    assert counted.sizes == []


def test_right_hand_sides_together_take_fewer_steps_than_each_alone():
    K, b = Dense(matrix(0, 4)), normal(10, N)
    alone, together = CG(rtol=1e-6)(K, b), BlockCG(rtol=1e-6)(K, b)
    assert together.steps <= N // 10 + 2 < alone.steps
    assert float(together.residual.max()) <= 1e-6


def test_a_block_may_have_zero_equal_and_many_right_hand_sides():
    K, few = matrix(0, 3), normal(3, N)
    b = torch.cat([torch.zeros(1, N, dtype=DOUBLE), few, few, 2 * few[:1] + few[1:2]])
    found = BlockCG(rtol=1e-9)(Dense(K), b)
    assert found.converged
    assert bool((found.value[0] == 0).all())
    torch.testing.assert_close(found.value[1:4], found.value[4:7])
    many = normal(2 * N, N)
    assert float(true_residual(K, BlockCG(rtol=1e-9)(Dense(K), many).value, many).max()) < 1e-8


def test_a_block_starts_from_what_is_known():
    K, b = matrix(0, 3), normal(4, N)
    solved = torch.linalg.solve(K, b.T).T
    assert BlockCG(rtol=1e-8)(Dense(K), b, start=solved).steps == 0
    assert BlockCG(rtol=1e-8)(Dense(K), b, start=solved + 1e-6 * b).steps > 0


def test_a_block_in_float32_says_what_it_reached():
    K, b = Dense(matrix(0, 5, torch.float32), Space((N,), torch.float32), Space((N,), torch.float32)), normal(4, N)
    with pytest.warns(UserWarning, match="Block CG reached"):
        found = BlockCG(rtol=1e-12, max_steps=200)(K, b)
    assert not found.converged
    assert float(found.residual.max()) < 1e-1


@pytest.mark.parametrize("solver", [CG(), BlockCG()])
def test_what_is_not_finite_is_no_solution(solver):
    spoilt = matrix(0, 1)
    spoilt[3, 3] = float("nan")
    with pytest.raises(CtuqError, match="not finite"), warnings.catch_warnings():
        warnings.simplefilter("error")
        solver(Dense(spoilt), normal(2, N))


def test_right_hand_sides_of_nothing_are_solved_by_nothing():
    """In float32 their residual over their size was NaN, which passed for converged."""
    rows = torch.cat([torch.zeros(1, N), normal(2, N).float()])
    found = BlockCG(rtol=1e-3)(Dense(matrix(0, 1, torch.float32)), rows)
    assert found.converged and found.residual[0] == 0 and not found.value[0].any()
