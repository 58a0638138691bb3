import sys

import pytest
import torch

from ctuq.linops.gram import gram, mirrored, pair_grams


@pytest.fixture
def small_blocks(monkeypatch):
    module = sys.modules["ctuq.linops.gram"]
    monkeypatch.setattr(module, "_COLUMNS", 7)
    monkeypatch.setattr(module, "_ROWS", 5)


def test_gram_is_the_float64_product(rng, small_blocks):
    a = torch.randn(13, 30, generator=rng)
    exact = a.double() @ a.double().T
    assert gram(a).dtype == torch.float64
    torch.testing.assert_close(gram(a), exact, rtol=1e-14, atol=1e-13)


def test_pairs_of_combined_taps_are_their_float64_products(rng, small_blocks):
    taps, basis = torch.randn(13, 6, 3, generator=rng), torch.randn(3, 3, generator=rng, dtype=torch.float64)
    out = torch.zeros(2, 13, 13, dtype=torch.float64)
    pair_grams(taps, basis, [(0, 0), (0, 2)], out)
    turned = taps.double() @ basis
    torch.testing.assert_close(mirrored(out[0]), turned[..., 0] @ turned[..., 0].T)
    torch.testing.assert_close(out[1], turned[..., 0] @ turned[..., 2].T)


def test_gram_keeps_positive_definite_what_float32_makes_indefinite(rng):
    a = torch.randn(60, 20, generator=rng)
    noise = 1e-9 * torch.eye(60, dtype=torch.float64)
    assert torch.linalg.cholesky_ex((a @ a.T).double() + noise)[1] > 0
    assert torch.linalg.cholesky_ex(gram(a) + noise)[1] == 0
