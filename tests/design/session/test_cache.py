import numpy as np
import pytest
import torch

from ctuq.design.algebra.covariance import FactorCovariance
from ctuq.design.models.model import GaussianModel
from ctuq.design.session.cache import ModelCache
from ctuq.linops.local import LocalCovariance, localised


@pytest.mark.parametrize("radius", [0, 1])
def test_a_kept_factor_is_the_one_that_was_kept(radius, rng, tmp_path):
    Q = torch.randn(3, 20, generator=rng, dtype=torch.float64)
    beside = localised(torch.randn(9, 20, generator=rng), (4, 5), radius).scaled(0.4).plus(torch.full((20,), 0.1).double())
    kept = FactorCovariance(Q, beside, 0.2)
    cache, x = ModelCache(tmp_path / "cache"), torch.randn(2, 20, generator=rng, dtype=torch.float64)
    cache.keep_model("a" * 40, GaussianModel(kept, 1e-3, note="some"))
    found = cache.model("a" * 40)
    assert found is not None and isinstance(found.covariance, FactorCovariance)
    assert found.covariance.missed == 0.2 and (found.covariance.beside.root is None) == (radius == 0)
    assert torch.equal(found.covariance.times(x), kept.times(x))
    assert torch.equal(found.covariance.diagonal(), kept.diagonal())


def test_what_was_kept_of_single_pixels_by_an_earlier_version_is_read(rng, tmp_path):
    Q, white = torch.randn(3, 20, generator=rng, dtype=torch.float64), torch.rand(20, generator=rng, dtype=torch.float64)
    cache = ModelCache(tmp_path)
    cache.keep_model("b" * 40, GaussianModel(FactorCovariance(Q, LocalCovariance(white)), 1e-3))
    place = next(tmp_path.glob("*-model"))
    (place / "own.npy").rename(place / "white.npy")
    found = cache.model("b" * 40)
    assert found is not None
    np.testing.assert_array_equal(found.covariance.diagonal(), Q.square().sum(0) + white)
