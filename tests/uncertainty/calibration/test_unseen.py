"""Error bars in directions that no view of a limited arc sees."""

import numpy as np
import pytest
import torch
from images import some_point

from ctuq.systematics.block import Block
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, ray_transform
from ctuq.uncertainty.calibration import unseen as module
from ctuq.uncertainty.calibration.unseen import LONGER, UnseenDirections, WidenedPosterior
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays

SIZE = 48
CPU = torch.device("cpu")


def parallel(first, stop, step=4.0, columns=70):
    return ParallelBeam(angles=np.deg2rad(np.arange(first, stop, step)), columns=columns, pixel=1.0)


def of(geometry, shape=(SIZE, SIZE)):
    return UnseenDirections.of(geometry, shape, CPU)


def wave(degrees):
    """A smooth wave packet amid the image along the detector of a view at this angle."""
    at = np.arange(SIZE) - (SIZE - 1) / 2
    along = parallel(degrees, degrees + 1).vectors()[0, 6:8]
    x, y, a = at[None], -at[:, None], np.arctan2(along[1], along[0])
    values = np.cos((x * np.cos(a) + y * np.sin(a)) * 1.0) * np.exp(-(x**2 + y**2) / 150)
    return torch.from_numpy(values[None])


@pytest.mark.parametrize("turn", [0, 37, 150])
@pytest.mark.parametrize("arc", [60, 90])
def test_waves_that_no_view_sees_grow_and_those_that_views_see_stay(turn, arc):
    widened = of(parallel(turn, turn + arc))
    A = ray_transform(VolumeGrid((SIZE, SIZE), 1.0), parallel(turn, turn + arc), backend="matrix")
    for degrees in (turn + arc + (180 - arc) / 2, turn - (180 - arc) / 2 + 180, turn + arc + 30):
        assert float(A(wave(degrees)[0].float()).abs().max()) < 0.5
        torch.testing.assert_close(widened(wave(degrees)), LONGER**0.5 * wave(degrees), rtol=0, atol=0.08)
    for degrees in (turn + arc / 2, turn + 25):
        assert float(A(wave(degrees)[0].float()).abs().max()) > 2
        torch.testing.assert_close(widened(wave(degrees)), wave(degrees), rtol=0, atol=0.08)


def test_rays_of_the_arc_hardly_see_what_is_added(rng):
    geometry = parallel(0, 60)
    A = ray_transform(VolumeGrid((SIZE, SIZE), 1.0), geometry, backend="matrix")
    image = torch.randn(1, SIZE, SIZE, generator=rng)
    added = of(geometry)(image) - image
    assert float(added.norm()) > 0.25 * float(image.norm())
    assert float(A(added[0]).norm()) < 0.4 * float(A(added[0].flip(0)).norm())


def test_where_directions_are_seen_all_around_nothing_changes():
    assert of(parallel(0, 180)) is None and of(parallel(0, 130)) is None
    assert of(parallel(0, 130, step=24)) is None  # few views lie far apart
    fan = FanBeam(
        angles=np.deg2rad(np.arange(0, 115, 4.0)), columns=80, pixel=2.0, source_to_axis=80.0, source_to_detector=160.0
    )
    flat = FanBeam(angles=fan.angles, columns=80, pixel=2.0, source_to_axis=800.0, source_to_detector=1600.0)
    # A wide fan's outer rays see 26 degrees more on either side.
    assert of(fan).width == pytest.approx(of(flat).width - 2 * (np.arctan(0.5) - np.arctan(0.05)))
    assert of(flat).share.max() == 1


def test_what_the_scanner_does_is_no_longer_in_unseen_directions(make, rng, monkeypatch):
    """Image and error of a draw cancel in the rays as they do without a missing arc, and the covariance says the same."""
    plain = make(rank=20)
    curve = torch.rand(len(plain.target), 1, generator=rng, dtype=torch.float64)
    columns = torch.zeros(int(plain.rays.max()) + 1, 1, dtype=torch.float64)
    columns[plain.rays] = curve
    model = plain.with_errors((Block("hardening", columns, 0.1, False, hidden=True),))
    posterior = ImagePosterior(SolvedRays.on(model, some_point(plain, floors=(1e-5, 0.05))), rng=rng, scale=2.0)
    part = of(parallel(0, 60, columns=10), (8, 8))
    T = part(torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)).flatten(1)
    h = posterior.hidden_images().flatten(1)
    assert len(h) == 1 and float(h.abs().max()) > 0
    expected = T @ (posterior.covariance() - h.T @ h) @ T + h.T @ h
    found = WidenedPosterior(posterior, part, rng=rng)
    torch.testing.assert_close(found.covariance(), expected)
    torch.testing.assert_close(found.hidden_images().flatten(1), h)
    exact = expected.diagonal().sqrt()
    torch.testing.assert_close(found.std().flatten(), exact)
    images, errors = found.joint_deviations(4000, rng=rng)
    torch.testing.assert_close(images.double().flatten(1).square().mean(0).sqrt(), exact, rtol=0.08, atol=0)
    slope = (images.double().flatten(1) * errors[:, -1:]).mean(0) / errors[:, -1].double().square().mean()
    torch.testing.assert_close(slope * 0.1 / 2.0**0.5, h[0], rtol=0, atol=float(0.1 * exact.max()))
    monkeypatch.setattr(module, "_DENSE", 0)
    torch.testing.assert_close(found.std().flatten(), exact, rtol=0.1, atol=0)


def test_the_error_bars_are_those_of_the_widened_covariance(make, rng, monkeypatch):
    model = make(rank=20)
    posterior = ImagePosterior(SolvedRays.on(model, some_point(model, floors=(1e-5, 0.05))), rng=rng)
    part = of(parallel(0, 60, columns=10), (8, 8))
    T = part(torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)).flatten(1)
    torch.testing.assert_close(T, T.T)
    expected = T @ posterior.covariance() @ T
    found = WidenedPosterior(posterior, part, rng=rng)
    torch.testing.assert_close(found.covariance(), expected)
    exact = expected.diagonal().sqrt()
    torch.testing.assert_close(found.std().flatten(), exact)
    assert float((exact / posterior.std().flatten()).median()) > 1.1
    drawn = found.deviations(4000, rng=rng).double().flatten(1)
    torch.testing.assert_close(drawn.square().mean(0).sqrt(), exact, rtol=0.08, atol=0)
    leading = found.directions(64, waves=4, rng=rng).flatten(1)
    torch.testing.assert_close(leading.square().sum(0).sqrt(), exact, rtol=1e-3, atol=0)
    monkeypatch.setattr(module, "_DENSE", 0)
    torch.testing.assert_close(found.std().flatten(), exact, rtol=0.1, atol=0)
