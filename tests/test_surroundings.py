"""What a notebook has set of NumPy and PyTorch makes no difference to a result, and is as it was afterwards."""

from contextlib import contextmanager

import numpy as np
import pytest
import tifffile
import torch

import ctuq
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.surroundings import undisturbed

DIP = DIPOptions(iterations=10, check_every=5, network=UNetOptions(channels=(4, 4), skips=(2,)))


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    yield
    assert torch.get_default_dtype() == torch.float64
    torch.set_default_dtype(torch.float32)


@contextmanager
def elsewhere():
    with torch.device("meta"):
        yield
        assert torch.get_default_device().type == "meta"


def reconstruct():
    scan = ctuq.simulate("ellipses", size=12, angles=8)
    return ctuq.reconstruct(scan, size=8, samples=2, threads=1, dip=DIP, systematics="none")


@pytest.fixture(scope="module")
def expected():
    return reconstruct()


@pytest.mark.parametrize(
    "setting",
    [
        torch.no_grad,
        torch.inference_mode,
        double,
        elsewhere,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: np.errstate(all="raise"),
    ],
)
def test_what_a_notebook_sets_changes_no_digit(setting, expected):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with setting():
        handling, grad = np.geterr(), torch.is_grad_enabled()
        result = reconstruct()
        assert np.geterr() == handling and torch.is_grad_enabled() == grad
    for name in ("mean", "std", "samples"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_work_that_ends_takes_nothing_from_the_others():
    first, second = undisturbed(), undisturbed()
    torch.set_default_dtype(torch.float64)
    try:
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_scan_is_read_whatever_numpy_raises(tmp_path):
    x = np.linspace(-1, 1, 40)
    chord = np.sqrt(np.maximum(0.36 - x**2, 0))
    counts = 5000 * np.exp(-2 * chord) + 20 * np.random.default_rng(0).normal(size=(24, 40))
    tifffile.imwrite(tmp_path / "a.tif", np.round(counts).astype(np.uint16))
    told = "kind: parallel\npixel: 1.0\nangles: {first: 0, step: 7.5, count: 24}\nvalues: counts\nflat: 5000\n"
    (tmp_path / "a.yaml").write_text(told + "axis_column: search\n")
    expected = ctuq.read(tmp_path / "a.tif").projections
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(ctuq.read(tmp_path / "a.tif").projections, expected)


@pytest.mark.parametrize("method", ["dip", "tv", "fbp"])
def test_the_number_of_threads_that_is_asked_for_is_taken_and_given_back(method, monkeypatch):
    before, taken = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", lambda n, real=torch.set_num_threads: (taken.append(n), real(n)))
    scan = ctuq.simulate("ellipses", size=12, angles=8)
    ctuq.reconstruct(scan, method, size=8, threads=before + 1, dip=DIP, systematics="none", uncertainty=False)
    assert taken[0] == before + 1 and torch.get_num_threads() == before
