import numpy as np
import pytest
import torch

from ctuq.baselines.markov import differences, edge_field, smooth_field
from ctuq.baselines.pixels import KernelField, PixelMatern


@pytest.fixture(params=["edges", "smooth", "one row", "kernel"])
def field(request):
    rng = torch.Generator().manual_seed(3)
    if request.param == "kernel":
        return KernelField(PixelMatern((6, 4), 2.0), torch.device("cpu"))
    if request.param == "smooth":
        return smooth_field((5, 7), 3.0, torch.device("cpu"))
    return edge_field(torch.rand(1 if request.param == "one row" else 6, 5, generator=rng), 0.1)


def test_products_with_the_covariance_are_those_of_the_inverse(field, rng):
    S = torch.linalg.inv(field.dense_precision())
    x = torch.randn(3, len(S), generator=rng, dtype=torch.float64)
    torch.testing.assert_close(field.times(x), x @ S)
    torch.testing.assert_close(field.precision_times(field.times(x)), x)
    torch.testing.assert_close(field.diagonal(), S.diagonal())
    assert field.times(x[:0]).shape == (0, len(S))


def test_draws_have_the_covariance_and_the_precision(field, rng):
    n = 20_000
    S, Q = torch.linalg.inv(field.dense_precision()), field.dense_precision()
    for drawn, expected in ((field.draws(n, rng=rng), S), (field.noise(n, rng=rng), Q)):
        found, scale = drawn.T @ drawn / n, expected.diagonal().sqrt()
        assert float(((found - expected) / torch.outer(scale, scale)).abs().max()) < 5 / n**0.5


def test_an_edge_field_is_soft_across_the_edges_of_its_image_and_knows_air_outside():
    image = torch.zeros(8, 8)
    image[:, 4:] = 1
    # In the middle of two flat halves: steps across the edge are 10 times as large as along it.
    S = torch.linalg.inv(edge_field(image, 0.01).dense_precision())
    step = torch.zeros(3, 64, dtype=torch.float64)
    step[0, 3 * 8 + 3], step[0, 3 * 8 + 4] = -1, 1
    step[1, 3 * 8 + 1], step[1, 3 * 8 + 2] = -1, 1
    step[2, 3 * 8 + 4], step[2, 4 * 8 + 4] = -1, 1
    across, flat, along = (step @ S @ step.T).diagonal().sqrt().tolist()
    assert across > 3 * flat and across > 1.5 * along
    assert float(S.diagonal().reshape(8, 8)[:, :4].max()) < float(S.diagonal().reshape(8, 8)[:, 4:].max())


def test_differences_meet_air_on_both_sides():
    image = np.arange(1.0, 7).reshape(2, 3)
    along = (differences((2, 3), 1) @ image.ravel()).reshape(3, 4)
    np.testing.assert_array_equal(np.abs(along[0]), [1, 1, 1, 3])
    np.testing.assert_array_equal(along[2], 0)
