"""What is foretold of views by their weights."""

import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, ray_transform
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.unseen_views import predict_views

GRID = VolumeGrid((6, 6), 2.0)
A = ray_transform(GRID, ParallelBeam(angles=np.arange(4) * np.pi / 4, columns=9, pixel=2.0))


@pytest.fixture(scope="module")
def result():
    mean = np.full((6, 6), 0.05, np.float32)
    samples = mean + 0.01 * np.random.default_rng(0).standard_normal((16, 6, 6)).astype(np.float32)
    return Result(mean, Scan(np.ones(A.range.shape, np.float32), A.geometry), GRID, "tv", samples=samples, sigma2=1e-3)


def test_the_noise_of_a_ray_is_that_of_its_weight_and_weight_0_says_nothing(result):
    weights = np.ones(A.range.shape)
    weights[:, 2], weights[1] = 0, 4
    plain, weighed = predict_views(result, A)[1], predict_views(result, A, weights)[1]
    np.testing.assert_allclose(plain[1] - weighed[1], 0.75e-3, rtol=1e-6)
    assert np.isinf(weighed[[0, 2, 3], 2]).all() and np.isfinite(np.delete(weighed, 2, axis=1)).all()
    np.testing.assert_array_equal(predict_views(result, A, weights.tolist())[1], weighed)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (-np.ones(A.range.shape), "not negative"),
        (np.full(A.range.shape, np.nan), "finite"),
        (np.full(A.range.shape, np.inf), "finite"),
        (np.ones((3, 9)), "shape"),
        (1.0, "shape"),
        ("a", "numbers"),
        (np.ones(A.range.shape, complex), "complex"),
    ],
)
def test_weights_that_are_none_are_refused_in_one_sentence(result, weights, told):
    with pytest.raises(InputError, match=told):
        predict_views(result, A, weights)
