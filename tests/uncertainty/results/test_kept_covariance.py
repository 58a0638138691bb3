from dataclasses import replace

import numpy as np
import pytest
from images import posterior_covariance, some_point

import ctuq
from ctuq.errors import InputError
from ctuq.tomo import VolumeGrid
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays
from ctuq.uncertainty.results.kept_covariance import KeptCovariance, cosine_waves, waves_of


@pytest.fixture
def kept(make, rng):
    """A covariance (d, d), and what is kept of it: 24 directions of 64, 9 of them waves."""
    model = make()
    point = some_point(model)
    P = posterior_covariance(model, point).numpy()
    posterior = ImagePosterior(SolvedRays.on(model, point), rng=rng)
    directions = posterior.directions(24, waves=3, rng=rng).numpy()
    return P, KeptCovariance(directions, np.sqrt(P.diagonal()).reshape(8, 8), 3)


def regions():
    """Means over rectangles of an image of 8 x 8."""
    out = np.zeros((5, 8, 8))
    for image, (top, bottom, left, right) in zip(
        out, [(0, 8, 0, 8), (0, 4, 0, 4), (2, 6, 2, 6), (3, 5, 0, 8), (5, 7, 4, 7)], strict=True
    ):
        image[top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
    return out.reshape(5, -1)


def test_pixels_keep_their_variance(kept):
    P, covariance = kept
    np.testing.assert_allclose(covariance(np.eye(64)).diagonal(), P.diagonal(), rtol=1e-3)


def test_means_over_regions_keep_their_variance(kept):
    P, covariance = kept
    np.testing.assert_allclose(covariance(regions()).diagonal(), (regions() @ P @ regions().T).diagonal(), rtol=0.25)


def test_smooth_functionals_keep_their_covariance_exactly(kept):
    P, covariance = kept
    smooth = cosine_waves((8, 8), 3)
    exact = smooth @ P @ smooth.T
    np.testing.assert_allclose(covariance(smooth), exact, atol=1e-4 * np.abs(exact).max())


def test_what_is_kept_is_a_covariance_and_its_draws_have_it(kept):
    _, covariance = kept
    whole = covariance(np.eye(64))
    assert np.linalg.eigvalsh(whole).min() > -1e-9 * np.linalg.eigvalsh(whole).max()
    draws = covariance.draw(20000, np.random.default_rng(0)).reshape(20000, -1)
    np.testing.assert_allclose(draws.T @ draws / 20000, whole, atol=0.05 * whole.max())


def test_waves_take_half_of_the_directions_at_most():
    assert [waves_of(n, (40, 40)) for n in (0, 1, 2, 8, 192, 1000)] == [0, 0, 1, 2, 8, 8]
    assert waves_of(192, (8, 12)) == 4
    waves = cosine_waves((8, 12), 4)
    np.testing.assert_allclose(waves @ waves.T, np.eye(16), atol=1e-12)


def test_without_directions_nothing_is_said_of_a_covariance(disc_scan):
    geometry = disc_scan.geometry
    image = np.ones((8, 8), np.float32)
    result = ctuq.Result(image, disc_scan, VolumeGrid((8, 8), geometry.pixel), "dip", std=image)
    for question in (lambda: result.covariance(np.ones((1, 8, 8))), lambda: result.draw(2)):
        with pytest.raises(InputError, match="no covariance"):
            question()
    result = replace(result, directions=np.zeros((1, 8, 8), np.float32))
    assert result.covariance(np.ones((1, 8, 8))) == pytest.approx(64)
    assert result.draw(0).shape == (0, 8, 8)
    for functionals in (np.ones((8, 8)), np.full((1, 8, 8), np.nan)):
        with pytest.raises(InputError, match="functionals"):
            result.covariance(functionals)
    with pytest.raises(InputError, match="negative"):
        result.draw(-1)
