import pytest
import torch

from ctuq.linops.orthonormal import orthonormalise_


def rows_of(k, n, smallest, seed=0):
    rng = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(m, k, generator=rng, dtype=torch.float64))[0] for m in (k, n))
    return ((left * torch.logspace(0, smallest, k, dtype=torch.float64)) @ right.T).float()


def off(a, b):
    return float((a.double() @ b.double().T).abs().max())


@pytest.mark.parametrize("smallest", [0, -4, -6, -9, -20])
def test_rows_are_orthonormal_however_near_to_dependent_they_were(smallest):
    rows = orthonormalise_(rows_of(60, 500, smallest))
    assert float((rows.double() @ rows.double().T - torch.eye(60)).abs().max()) < 1e-5


@pytest.mark.parametrize("smallest", [0, -4])
def test_their_span_is_that_of_the_rows_and_each_only_of_those_before_it(smallest):
    before = rows_of(40, 300, smallest)
    rows = orthonormalise_(before.clone()).double()
    inside = before.double() @ rows.T
    assert torch.allclose(inside @ rows, before.double(), atol=1e-6)
    assert float(inside.triu(1).abs().max()) < 1e-5 * float(inside.abs().max())


@pytest.mark.parametrize("smallest", [0, -9])
def test_rows_beside_others_are_orthogonal_to_them(smallest):
    first = orthonormalise_(rows_of(30, 300, 0))
    second = orthonormalise_(rows_of(30, 300, smallest, seed=1) + first, beside=first)
    assert off(second, first) < 1e-6
    assert float((second.double() @ second.double().T - torch.eye(30)).abs().max()) < 1e-5


def test_rows_that_are_zero_or_repeated_are_completed():
    rows = rows_of(20, 200, 0)
    rows[3], rows[7] = 0, rows[6]
    rows = orthonormalise_(rows).double()
    assert float((rows @ rows.T - torch.eye(20)).abs().max()) < 1e-5
