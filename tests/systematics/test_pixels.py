"""Edges inside of pixels: rays of an object of finer pixels less those of its means, foreseen by what the means show."""

import numpy as np
import pytest
import torch

import ctuq
from ctuq.app.report.systematics import errors_told
from ctuq.errors import InputError
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.recon.dip import DIPOptions
from ctuq.systematics import pixels
from ctuq.systematics.catalogue import hidden_wishes
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid, ray_transform
from ctuq.uncertainty.results.unseen_views import predict_views

SIZE, FINER = 16, 8
GRID, FINE = VolumeGrid((SIZE, SIZE), 1.0), VolumeGrid((SIZE * FINER, SIZE * FINER), 1 / FINER)
BEAM = ParallelBeam(angles=np.arange(12) * np.pi / 12, columns=25, pixel=1.0)


def body():
    """A rectangle whose edges lie inside of pixels, on fine pixels, and its means."""
    fine = np.zeros((SIZE * FINER,) * 2, np.float32)
    fine[27:93, 35:101] = 0.05
    return fine, fine.reshape(SIZE, FINER, SIZE, FINER).mean((1, 3))


def rays(grid, image):
    return ray_transform(grid, BEAM, backend="matrix")(torch.from_numpy(image)).double()


def test_a_straight_edge_inside_of_a_pixel_has_the_moment_that_its_mean_tells():
    image = torch.zeros(5, 6, dtype=torch.float64)
    image[:, :3], image[:, 3] = 0.1, 0.025  # a quarter of the fourth column is full
    x, y = pixels.moments(image)
    assert float(x[2, 3]) == pytest.approx(-0.5 * 0.1 * 0.25 * 0.75)
    assert float(y.abs().max()) < 1e-12 and float(x[:, [0, 1, 2, 4, 5]].abs().max()) < 1e-12


def test_what_square_pixels_do_to_rays_is_foreseen():
    fine, coarse = body()
    missed = rays(FINE, fine) - rays(GRID, coarse)
    image = torch.from_numpy(coarse)
    A = ray_transform(GRID, BEAM, backend="matrix")
    seen = pixels._Moved(A, pixels.moments(image.double())).rays(torch.ones(1, SIZE, SIZE, dtype=torch.float64))
    left = missed - seen.reshape(missed.shape)
    assert float(left.norm()) < 0.7 * float(missed.norm())
    print(float(left.norm() / missed.norm()))


def test_leading_directions_have_the_covariance_of_all_pixels(monkeypatch):
    image = torch.from_numpy(body()[1])
    A = ray_transform(GRID, BEAM, backend="matrix")
    moved = pixels._Moved(A, pixels.moments(image.double()))
    every = moved.rays(torch.eye(SIZE**2, dtype=torch.float64).reshape(-1, SIZE, SIZE)).T
    found = pixels.dipoles(A, image)
    torch.testing.assert_close(found @ found.T, every @ every.T, rtol=0, atol=0.02 * float((every @ every.T).diagonal().max()))
    y = torch.randn(3, every.shape[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(moved.pixels(y).flatten(1), y @ every, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(pixels, "_LEADING", 8)
    fewer = pixels.dipoles(A, image)
    assert fewer.shape[1] == 8
    exact = torch.linalg.svdvals(every)[:8]
    np.testing.assert_allclose(torch.linalg.svdvals(fewer)[:6], exact[:6], rtol=0.1)


def test_error_bars_of_an_edge_hold_what_its_pixels_may_hide(tmp_path):
    fine, coarse = body()
    noise = 0.002 * np.random.default_rng(0).standard_normal(BEAM.shape)
    scan = Scan((rays(FINE, fine).numpy() + noise).astype(np.float32), BEAM, truth=coarse, grid=GRID)
    given = {"size": SIZE, "field": 16.0, "samples": 20, "directions": 0, "dip": DIPOptions(iterations=60)}
    plain, found = (ctuq.reconstruct(scan, systematics=text, **given) for text in ("scale=1", "scale=1,pixels"))
    np.testing.assert_array_equal(plain.mean, found.mean)
    assert bool((found.std >= 0.999 * plain.std).all()) and float(np.median(found.std / plain.std)) > 1.01
    told = found.systematics["pixels"]
    assert told.hidden and told.effect is None and told.values.tolist() == [0] and told.std[0] == pytest.approx(1)
    assert "Structure inside of pixels is held possible (± 1 times" in " ".join(errors_told(found))
    np.testing.assert_allclose(found.std_rays**2, found.std**2 - found.systematics["scale"].effect ** 2, rtol=1e-3, atol=1e-12)
    found.save(tmp_path / "r.h5")
    again = ctuq.Result.load(tmp_path / "r.h5")
    mean, variance = predict_views(again, ray_transform(GRID, BEAM, backend="matrix"))
    assert np.isfinite(mean).all() and bool((variance > 0).all())


def test_volumes_and_stacks_have_no_structure_inside_of_pixels():
    assert "pixels" not in {wish.name for wish in hidden_wishes("all", "stacks")}
    with pytest.raises(InputError, match="pixels is of single slices"):
        VolumeOptions(systematics="pixels")
