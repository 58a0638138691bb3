"""Error bars in directions that no view of a limited arc sees."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from images import some_point

from ctuq.linops.sparse import SparseRows
from ctuq.systematics.block import Block
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, ray_transform
from ctuq.uncertainty.calibration import not_in_rays, unseen
from ctuq.uncertainty.calibration.directions import UnseenDirections
from ctuq.uncertainty.calibration.not_in_rays import NotInRays
from ctuq.uncertainty.calibration.unseen import (
    UnseenField,
    WidenedPosterior,
    bytes_of_room,
    energy,
    of_all_directions,
)
from ctuq.uncertainty.model.gaussian import PixelRays
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays

SIZE = 48
CPU = torch.device("cpu")


def parallel(first, stop, step=4.0, columns=70):
    return ParallelBeam(angles=np.deg2rad(np.arange(first, stop, step)), columns=columns, pixel=1.0)


def of(geometry, shape=(SIZE, SIZE)):
    return UnseenDirections.of(geometry, shape, CPU)


def nothing(directions):
    return torch.zeros_like(directions.radius)


def unseen_share(directions):
    """Of all frequencies but those of the corners."""
    return float((directions.distance[directions.radius < 0.5] > 0).double().mean())


def wave(degrees):
    """A smooth wave packet amid the image along the detector of a view at this angle."""
    at = np.arange(SIZE) - (SIZE - 1) / 2
    along = parallel(degrees, degrees + 1).vectors()[0, 6:8]
    x, y, a = at[None], -at[:, None], np.arctan2(along[1], along[0])
    values = np.cos((x * np.cos(a) + y * np.sin(a)) * 1.0) * np.exp(-(x**2 + y**2) / 150)
    return torch.from_numpy(values[None])


def texture(rng, size=SIZE):
    """A disc of noise that is alike in all directions: what the field takes an object for."""
    at = torch.arange(size) - (size - 1) / 2
    noise = torch.randn(size, size, generator=rng, dtype=torch.float64)
    return (1 + noise) * (torch.hypot(at[None], at[:, None]) < 0.4 * size)


@pytest.mark.parametrize("turn", [0, 37, 150])
@pytest.mark.parametrize("arc", [60, 90])
def test_waves_that_no_view_sees_have_room_and_those_that_views_see_have_none(turn, arc, rng):
    directions = of(parallel(turn, turn + arc))
    field = UnseenField.of(directions, texture(rng), nothing(directions))
    A = ray_transform(VolumeGrid((SIZE, SIZE), 1.0), parallel(turn, turn + arc), backend="matrix")

    def room(degrees):
        return float((field.times(wave(degrees)) * wave(degrees)).sum())

    amid = room(turn + arc + (180 - arc) / 2)
    for degrees in (turn - (180 - arc) / 2 + 180, turn + arc + 30):
        assert float(A(wave(degrees)[0].float()).abs().max()) < 0.5
        assert room(degrees) > 0.8 * amid
    for degrees in (turn + arc / 2, turn + 25):
        assert float(A(wave(degrees)[0].float()).abs().max()) > 2
        assert room(degrees) < 0.01 * amid


@pytest.mark.parametrize("rays", ["all", "added up", "some"])
def test_rays_of_the_arc_see_less_than_their_noise_of_what_is_added(rng, monkeypatch, rays):
    """Views between those that are fitted see no more than before."""
    monkeypatch.setattr(not_in_rays, "RAYS", 10**6 if rays == "all" else 600)
    if rays == "some":
        monkeypatch.setattr(not_in_rays, "SparseRows", type(None))
    geometry, between = parallel(0, 60), parallel(2, 58)
    A, other = (ray_transform(VolumeGrid((SIZE, SIZE), 1.0), g, backend="matrix") for g in (geometry, between))
    directions, noise = of(geometry), 0.2
    field = UnseenField.of(directions, texture(rng), nothing(directions))
    given = PixelRays.of(A, torch.zeros(A.range.shape), torch.ones(A.range.shape), torch.zeros(SIZE, SIZE))
    free = field.draws(20, rng=rng)
    added = NotInRays(given.matrix, noise**2 / field.variance)(free.flatten(1)).reshape(free.shape)

    def seen(transform, images):
        return float(torch.stack([transform(image.float()) for image in images]).square().mean().sqrt())

    assert seen(A, free) > 3 * noise
    # Of some rays, or sums of neighbours, the others see what is finer: here pixels are as fine as columns.
    assert seen(A, added) < {"all": 0.5 * noise, "added up": 0.9 * seen(A, free), "some": 0.9 * seen(A, free)}[rays]
    assert seen(other, added) < seen(other, free)
    assert seen(A, added.transpose(1, 2).flip(1)) > 5 * seen(A, free)
    assert float(added.norm()) > 0.8 * float(free.norm())


def test_of_an_object_alike_in_all_directions_the_field_is_as_large_as_what_is_missing(rng):
    """Where the image shows nothing in unseen directions and the posterior is sure of it, the field is the object's own part.

    Energy far from seen directions against that of the object there, over textures; a Monte Carlo error of 4 %.
    """
    directions = of(parallel(0, 60))
    ratios = []
    for _ in range(12):
        whole = texture(rng)
        far = (directions.distance * 0.8 * SIZE > 4) & (directions.radius > 0.1)
        padded = torch.fft.fft2(whole, s=directions.radius.shape)
        shown = torch.fft.ifft2(padded * (directions.distance == 0)).real[:SIZE, :SIZE]
        field = UnseenField.of(directions, shown, nothing(directions))
        told = energy(field.draws(64, rng=rng), directions)[far].mean()
        ratios.append(float(told / energy(whole, directions)[far].mean()))
    assert np.mean(ratios) == pytest.approx(1, abs=0.2)


def test_where_the_posterior_has_room_nothing_is_added(rng):
    directions = of(parallel(0, 60))
    image = texture(rng)
    free = UnseenField.of(directions, image, nothing(directions))
    enough = energy(image, directions).mean() * 100 * torch.ones_like(directions.radius)
    assert float(free.draws(4, rng=rng).abs().max()) > 0
    assert float(UnseenField.of(directions, image, enough).amplitude.max()) == 0
    # Of nothing at all nothing is expected either.
    assert float(UnseenField.of(directions, torch.zeros(SIZE, SIZE), nothing(directions)).amplitude.max()) == 0


def test_where_directions_are_seen_all_around_nothing_changes(make, rng):
    assert of(parallel(0, 180)) is None and of(parallel(0, 160)) is None and of(parallel(0, 150)) is not None
    assert of(parallel(0, 150, step=24)) is None  # few views lie far apart
    fan = FanBeam(
        angles=np.deg2rad(np.arange(0, 115, 4.0)), columns=80, pixel=2.0, source_to_axis=80.0, source_to_detector=160.0
    )
    flat = FanBeam(angles=fan.angles, columns=80, pixel=2.0, source_to_axis=800.0, source_to_detector=1600.0)
    # A wide fan's outer rays see 26 degrees more on either side.
    fewer = (2 * (np.arctan(0.5) - np.arctan(0.05))) / np.pi
    assert unseen_share(of(fan)) == pytest.approx(unseen_share(of(flat)) - fewer, abs=0.01)
    model = make(rank=20)
    posterior = ImagePosterior(SolvedRays.on(model, some_point(model, floors=(1e-5, 0.05))), rng=rng)
    same, told = of_all_directions(posterior, parallel(0, 180, columns=10), model.image, 1.0, 1e-4, rng=rng)
    assert same is posterior and told == ()


def widened(model, rng, scale=1.0, noise=1e-4):
    posterior = ImagePosterior(SolvedRays.on(model, some_point(model, floors=(1e-5, 0.05))), rng=rng)
    image = 0.2 * texture(rng, 8)
    return posterior, *of_all_directions(posterior, parallel(0, 60, columns=10), image, scale, noise, rng=rng)


def added_to(found, noise=1e-4, scale=1.0):
    """The field's covariance by its definition, a product of dense matrices."""
    field, eye = found._field, torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)

    def matrix(share):
        images = torch.fft.ifft2(torch.fft.fft2(eye, s=share.shape) * share).real[..., :8, :8]
        return images.flatten(1)

    G, S, M = matrix(field.unseen), matrix(field.amplitude.square()), torch.diag(field.inside.flatten())
    rays, ratio = found.matrix.dense(0, found.matrix.shape[0]), noise / (scale * field.variance)
    N = torch.linalg.inv(torch.eye(64, dtype=torch.float64) + rays.T @ rays / ratio)
    return N @ G @ M @ S @ M @ G.T @ N


def test_what_the_scanner_does_stays_beside_what_no_view_sees(make, rng):
    """Image and error of a draw cancel in the rays as they do without a missing arc, and the covariance says the same."""
    plain = make(rank=20)
    curve = torch.rand(len(plain.target), 1, generator=rng, dtype=torch.float64)
    columns = torch.zeros(int(plain.rays.max()) + 1, 1, dtype=torch.float64)
    columns[plain.rays] = curve
    model = plain.with_errors((Block("hardening", columns, 0.1, False, hidden=True),))
    posterior, found, told = widened(model, rng)
    h = posterior.hidden_images().flatten(1)
    assert len(h) == 1 and float(h.abs().max()) > 0 and len(told) == 1
    expected = posterior.covariance() + added_to(found)
    torch.testing.assert_close(found.covariance(), expected)
    torch.testing.assert_close(found.hidden_images().flatten(1), h)
    exact = expected.diagonal().sqrt()
    images, errors = found.joint_deviations(4000, rng=rng)
    torch.testing.assert_close(images.double().flatten(1).square().mean(0).sqrt(), exact, rtol=0.08, atol=0)
    slope = (images.double().flatten(1) * errors[:, -1:]).mean(0) / errors[:, -1].double().square().mean()
    torch.testing.assert_close(slope * 0.1, h[0], rtol=0, atol=float(0.1 * exact.max()))


def test_the_error_bars_are_those_of_both_together(make, rng, monkeypatch):
    posterior, found, _ = widened(make(rank=20), rng)
    expected = posterior.covariance() + added_to(found)
    torch.testing.assert_close(found.covariance(), expected)
    exact = expected.diagonal().sqrt()
    torch.testing.assert_close(found.std().flatten(), exact)
    assert float((exact / posterior.std().flatten()).max()) > 1.1
    drawn = found.deviations(4000, rng=rng).double().flatten(1)
    torch.testing.assert_close(drawn.square().mean(0).sqrt(), exact, rtol=0.08, atol=0)
    leading = found.directions(64, waves=4, rng=rng).flatten(1)
    torch.testing.assert_close(leading.square().sum(0).sqrt(), exact, rtol=1e-3, atol=0)
    monkeypatch.setattr(unseen, "_DENSE", 0)
    torch.testing.assert_close(found.std().flatten(), exact, rtol=0.1, atol=0)


def test_the_scale_of_held_out_views_multiplies_the_posterior_and_not_the_field(make, rng):
    """The covariance is multiplied by the scale later, so that the field, whose size is the object's, is divided by it."""
    posterior, _, _ = widened(make(rank=20), rng)
    directions = of(parallel(0, 60, columns=10), (8, 8))
    image = 0.2 * texture(rng, 8)
    without = UnseenField.of(directions, image, nothing(directions))
    for scale in (0.25, 9.0):
        smaller = replace(without, amplitude=without.amplitude / scale**0.5)
        made = WidenedPosterior(posterior, smaller, lambda rows: rows.double(), rng=rng)
        eye = torch.eye(64, dtype=torch.float64)
        whole = scale * made.covariance()
        plain = scale * posterior.covariance()
        torch.testing.assert_close(whole - plain, without.times(eye.reshape(64, 8, 8)).flatten(1), rtol=1e-6, atol=1e-9)
    # A posterior that is multiplied by more leaves less room to fill.
    rooms = []
    for scale in (1e-3, 1.0, 1e3):
        _, at, _ = widened(make(rank=20), rng.manual_seed(3), scale=scale)
        rooms.append(scale * at._field.variance if isinstance(at, WidenedPosterior) else 0.0)
    assert rooms[0] >= rooms[1] >= rooms[2] and rooms[0] > rooms[2]


def test_neighbouring_rows_added_up_keep_white_noise_white(rng):
    dense = torch.randn(7, 5, generator=rng, dtype=torch.float64)
    found = SparseRows(sp.csr_array(dense.numpy())).binned(3)
    expected = torch.stack([dense[:3].sum(0) / 3**0.5, dense[3:6].sum(0) / 3**0.5, dense[6]])
    torch.testing.assert_close(found.dense(0, 3), expected)
    assert found.shape == (3, 5)


def test_room_is_planned_where_directions_are_missing():
    arc = ParallelBeam(angles=np.linspace(0, np.pi / 3, 7), columns=32, pixel=1.0)
    assert bytes_of_room(arc, (32, 32), 224) == bytes_of_room(arc, (32, 32), 112) + 8 * (224**2 - 112**2) > 0
    assert bytes_of_room(arc, (32, 32), 10**6) < 2**31
    assert bytes_of_room(replace(arc, angles=np.linspace(0, np.pi, 7)[:-1]), (32, 32), 224) == 0
