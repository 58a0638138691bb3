import pytest
import torch

import ctuq.gp.operator as module
from ctuq.errors import InputError, ResourceError
from ctuq.gp.operator import KernelOperator, check_data


@pytest.fixture
def dense(kernel, data):
    return kernel(data[0], data[0]) + 0.2 * torch.eye(60, dtype=torch.float64)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_products_are_those_of_the_matrix(keep, dtype, rtol, kernel, data, dense, rng, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 7 * 9)
    monkeypatch.setattr(module, "_TILE", 9)
    K = KernelOperator(kernel, data[0], noise=0.2, dtype=dtype, keep=keep)
    v = torch.randn(3, 60, generator=rng, dtype=torch.float64)
    index = torch.tensor([5, 0, 33])
    scale = float((v @ dense).abs().max())
    assert K(v.to(dtype)).dtype == dtype
    for got, truth in ((K(v.to(dtype)), v @ dense), (K.T(v.to(dtype)), v @ dense), (K.rows(index, v), (v @ dense)[:, index])):
        torch.testing.assert_close(got.double(), truth, rtol=0, atol=rtol * scale)
    torch.testing.assert_close(K.exact(v), v @ dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(K.dense(), dense, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(K.block(index), dense[index][:, index], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        K.columns(index).double(), (dense - 0.2 * torch.eye(60, dtype=torch.float64))[index], rtol=0, atol=rtol
    )


def test_another_noise_does_not_compute_the_matrix_again(kernel, data, dense, monkeypatch):
    K = KernelOperator(kernel, data[0], noise=0.2, dtype=torch.float64, keep=True)
    v = torch.ones(1, 60, dtype=torch.float64)
    K(v)
    monkeypatch.setattr(type(kernel), "profile", None)
    torch.testing.assert_close(K.with_noise(1.2)(v), v @ dense + v)


def test_a_matrix_that_does_not_fit_is_not_kept_and_not_made_dense(kernel, data, monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda device: 1000)
    assert not KernelOperator(kernel, data[0]).kept
    monkeypatch.setattr("ctuq.linops.memory.available_memory", lambda device: 1000)
    with pytest.raises(ResourceError, match=r"covariance matrix of 60 points .* use CG"):
        KernelOperator(kernel, data[0]).dense()


def test_data_that_do_not_fit_are_refused(kernel, data):
    x, y, _ = data
    for bad, told in ((y[:5], r"\(5,\) do not fit 60 inputs"), (torch.where(y > 0, y, torch.nan), "not finite")):
        with pytest.raises(InputError, match=told):
            check_data(kernel, 0.1, x, bad)
    with pytest.raises(InputError, match="noise variance of a Gaussian process is 0"):
        check_data(kernel, 0.0, x, y)
