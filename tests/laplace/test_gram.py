import sys

import pytest
import torch

from ctuq.laplace import gram


@pytest.fixture
def small_blocks(monkeypatch):
    module = sys.modules["ctuq.laplace.gram"]
    monkeypatch.setattr(module, "_COLUMNS", 7)
    monkeypatch.setattr(module, "_ROWS", 5)


def test_gram_is_the_float64_product(rng, small_blocks):
    a = torch.randn(13, 30, generator=rng)
    exact = a.double() @ a.double().T
    assert gram(a).dtype == torch.float64
    torch.testing.assert_close(gram(a), exact, rtol=1e-14, atol=1e-13)


def test_two_arguments_give_the_symmetric_cross_form(rng, small_blocks):
    a, b = torch.randn(2, 13, 30, generator=rng)
    product = a.double() @ b.double().T
    torch.testing.assert_close(gram(a, b), product + product.T, rtol=1e-14, atol=1e-13)


def test_gram_keeps_positive_definite_what_float32_makes_indefinite(rng):
    a = torch.randn(60, 20, generator=rng)
    noise = 1e-9 * torch.eye(60, dtype=torch.float64)
    assert torch.linalg.cholesky_ex((a @ a.T).double() + noise)[1] > 0
    assert torch.linalg.cholesky_ex(gram(a) + noise)[1] == 0
