"""Blocks of systematic errors: their derivatives against changed scanners, and what can be asked for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.errors import InputError
from ctuq.systematics import detector, pose, shapes
from ctuq.systematics.build import blocks_of, told_in
from ctuq.systematics.catalogue import ALL, DEFAULTS, KINDS, wishes
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, radians, ray_transform

SIZE, VIEWS, COLUMNS = 48, 12, 60
GRID = VolumeGrid((SIZE, SIZE), 1.0)
PARALLEL = ParallelBeam(angles=radians(np.arange(VIEWS) * 15.0), columns=COLUMNS, pixel=1.0)
FAN = FanBeam(
    angles=radians(np.arange(VIEWS) * 30.0), columns=COLUMNS, pixel=2.0, source_to_axis=150.0, source_to_detector=300.0
)


def blob(x0, y0):
    """A smooth spot, 6 mm wide, of 0.05 / mm."""
    y, x = np.mgrid[:SIZE, :SIZE]
    r2 = (x - SIZE / 2 + 0.5 - x0) ** 2 + (SIZE / 2 - 0.5 - y - y0) ** 2
    return torch.from_numpy(0.05 * np.exp(-r2 / 2 / 6.0**2)).float()


@pytest.fixture(scope="module")
def image():
    return blob(5.0, -3.0) + 0.7 * blob(-7.0, 4.0)


def rays(geometry, image):
    return ray_transform(GRID, geometry, backend="matrix")(image).double()


AT_IMAGE = [name for name in KINDS if name != "truncation"]  # has tests of its own


def built(text, geometry, image, weights=None):
    A = ray_transform(GRID, geometry, backend="matrix")
    return blocks_of(wishes(text), A, image, torch.ones(geometry.shape) if weights is None else weights)


def near(found, expected, tolerance):
    return float((found - expected).norm()) < tolerance * float(expected.norm())


def changed(name, geometry, image, size):
    """Rays of a scanner that does this wrong by so much, in the units inside; of views and columns the fourth alone."""
    p = rays(geometry, image)
    one = torch.zeros(VIEWS, 1, dtype=torch.float64)
    one[3] = 1
    column = torch.zeros(COLUMNS, dtype=torch.float64)
    column[3] = 1
    angles = geometry.angles + size * one[:, 0].numpy()
    return {
        "axis": lambda: rays(replace(geometry, axis_offset=geometry.axis_offset + size), image),
        "flux": lambda: -torch.log((-p).exp() * (1 + size * one)),
        "gain": lambda: -torch.log((-p).exp() * (1 + size * column)),
        "hardening": lambda: p - size * p**2,
        "scatter": lambda: -torch.log((-p).exp() + size),
        "scale": lambda: (1 + size) * p,
        "jitter": lambda: rays(replace(geometry, angles=angles), image),
        "shift": lambda: torch.where(one > 0, rays(replace(geometry, axis_offset=geometry.axis_offset + size), image), p),
        "distance": lambda: rays(replace(geometry, source_to_axis=geometry.source_to_axis + size), image),
    }[name]()


STEPS = {"axis": 0.75, "jitter": 0.02, "shift": 0.75, "distance": 3.0}  # kinks of the projector spoil shorter ones


@pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])
@pytest.mark.parametrize("name", AT_IMAGE)
def test_columns_are_the_derivative_of_the_rays_by_the_error(name, geometry, image):
    if name == "distance" and geometry is PARALLEL:
        with pytest.raises(InputError, match="parallel"):
            built(name, geometry, image)
        return
    (block,) = built(name, geometry, image)
    step = STEPS.get(name, 1e-5)
    difference = (changed(name, geometry, image, step) - changed(name, geometry, image, -step)) / (2 * step)
    eta = torch.ones(1, dtype=torch.float64)
    if block.columns.shape[1] > 1:
        eta = torch.zeros(COLUMNS if name == "gain" else VIEWS, dtype=torch.float64)
        eta[3] = 1
        if block.spread is not None:  # what moves all views or is smooth along columns is left to the image
            assert near(block.spread.T @ block.spread, torch.eye(block.spread.shape[1], dtype=torch.float64), 1e-9)
            eta = block.spread.T @ eta
    found = (block.columns @ eta).reshape(geometry.shape)
    if block.spread is None:
        assert near(found, difference, 0.03)
    else:
        kept = block.told(eta)
        factor = kept[None] if name == "gain" else kept[:, None]
        whole = difference[3:4] if name == "gain" else difference
        if name == "gain":
            assert near(found, difference[:, 3:4] * factor, 0.02)
        else:
            assert near(found[3], whole[3] * factor[3], 0.05)


def test_a_disc_s_rays_move_by_its_slope_when_the_axis_does(image):
    (block,) = built("axis", PARALLEL, blob(0.0, 0.0))
    s = torch.arange(COLUMNS, dtype=torch.float64) - (COLUMNS - 1) / 2
    profile = 0.05 * 6 * math.sqrt(2 * math.pi) * (-(s**2) / 72).exp()
    # An axis farther right lies at a later column, and the shadow with it.
    assert near(block.columns.reshape(PARALLEL.shape)[2], profile * s / 36, 0.02)


@pytest.mark.parametrize("name", ["shift", "jitter"])
def test_motions_of_the_whole_object_are_the_image_s(name, image):
    (block,) = built(name, PARALLEL, image)
    angles = torch.tensor(PARALLEL.angles)
    frame = torch.stack([torch.ones(VIEWS), angles.cos(), angles.sin()][: 3 if name == "shift" else 1]).double()
    assert float((frame @ block.spread).abs().max()) < 1e-9
    assert block.spread.shape == (VIEWS, VIEWS - len(frame))


def test_smooth_gains_are_the_image_s_and_rough_ones_are_not():
    basis = detector.rough(64)
    places = torch.linspace(-1, 1, 64, dtype=torch.float64)
    ring = torch.zeros(64, dtype=torch.float64)
    ring[20] = 1
    assert float((basis.T @ torch.ones(64, dtype=torch.float64)).abs().max()) < 1e-9
    assert float((basis.T @ places).norm()) < 0.2 * float(places.norm())
    assert float((basis.T @ ring).norm()) > 0.9


def test_hardening_of_a_disc_is_the_cup_that_is_known(image):
    """The image of the squared chords 4 mu^2 (R^2 - s^2) of a disc is (8 / pi) mu^2 sqrt(R^2 - r^2)."""
    R, mu = 20.0, 0.05
    s = np.arange(COLUMNS) - (COLUMNS - 1) / 2
    p = torch.from_numpy(2 * mu * np.sqrt(np.maximum(R**2 - s**2, 0)))
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5
    cup = 8 / np.pi * mu**2 * np.sqrt(np.maximum(R**2 - x**2 - y**2, 0))
    seen = rays(PARALLEL, torch.from_numpy(cup).float())
    assert near(-shapes.hardening(p), seen[0], 0.02)


def test_default_and_all_leave_out_what_a_scan_has_not(image):
    assert [b.name for b in built("default", PARALLEL, image)] == [name for name in DEFAULTS if name in AT_IMAGE]
    assert {b.name for b in built("all", PARALLEL, image)} == set(AT_IMAGE) - {"distance"}
    assert {b.name for b in built("all", FAN, image)} == set(AT_IMAGE)


def test_widths_are_in_the_units_that_are_told(image):
    hardening, scatter, jitter, axis = built("hardening=0.05, scatter=2 %,jitter=0.3,axis=0.4", FAN, image)
    assert (hardening.width, scatter.width, axis.width) == (0.05, 0.02, 0.4)
    assert jitter.width == pytest.approx(np.deg2rad(0.3)) and jitter.width / told_in("jitter") == pytest.approx(0.3)
    assert hardening.hidden and scatter.hidden and not axis.hidden
    assert not jitter.learned and built("jitter", FAN, image)[0].learned
    assert built("axis", FAN, image)[0].width == pytest.approx(FAN.pixel_at_axis)


def test_a_named_error_changes_the_width_of_the_default(image):
    chosen = {wish.name: wish for wish in wishes("default,flux,hardening=0.3")}
    assert set(chosen) == {*DEFAULTS, "flux"} and chosen["hardening"].width == 0.3 and chosen["axis"].width is None
    assert wishes("hardening=0.3,default") and wishes("none") == ()
    assert len(wishes(ALL)) == len(KINDS)
    # Who asks for all, asks for gains and an axis, too, and is told them where there are none.
    assert all(wish.default for wish in wishes("default"))
    assert not any(wish.default for text in (ALL, "default,all", "all,default") for wish in wishes(text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("axes", "no systematic error 'axes'"),
        ("Axis", "no systematic error 'Axis'"),
        ("", "names nothing"),
        (" , ", "names nothing"),
        ("axis,none", "stands alone"),
        ("axis,axis", "given twice"),
        ("hardening=", "positive number"),
        ("hardening=-1", "positive number"),
        ("hardening=0", "positive number"),
        ("hardening=nan", "positive number"),
        ("hardening=inf", "positive number"),
        ("hardening=0.1=2", "positive number"),
        ("axis=1cm", "positive number"),
        ("flux=1e300", "is 1e-06 to 1e"),
        ("axis=1e-300", "is 1e-06 to 1e"),
        ("axis,,flux", "no systematic error ''"),
        ("default=2", "no systematic error 'default'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(text, told):
    with pytest.raises(InputError, match=told) as raised:
        wishes(text)
    assert str(raised.value).count(". ") == 0


def test_errors_that_nothing_tells_apart_are_refused(image):
    flat = torch.full((SIZE, SIZE), 0.0)
    with pytest.raises(InputError, match="axis changes no ray"):
        built("axis", PARALLEL, flat)
    weights = torch.zeros(PARALLEL.shape)
    weights[:, 30] = 1
    disc = blob(0.0, 0.0)
    # Of the middle ray of a round object, hardening, scatter and scale are one number.
    with pytest.raises(InputError, match=r"alike, so that nothing tells them apart"):
        built("hardening,scale", PARALLEL, disc, weights)


@pytest.mark.parametrize("name", ["gain", "shift", "jitter"])
def test_few_views_have_no_errors_of_their_own(name, image):
    one = PARALLEL.subset([0])
    with pytest.raises(InputError, match=f"systematic error {name}"):
        built(name, one, image)
    assert name not in [b.name for b in built("all", one, image)]


@pytest.mark.parametrize(("name", "alone"), [("shift", 4), ("jitter", 2), ("flux", 1)])
def test_the_size_of_a_single_number_is_not_learned(name, alone, image):
    """Nothing bounds it: the shifts of four views had a size of 530 mm, where the largest was 0.4 mm."""
    A, weights = ray_transform(GRID, PARALLEL, backend="matrix"), torch.ones(PARALLEL.shape)
    (one,) = blocks_of(wishes(name), A, image, weights, range(alone, VIEWS))
    (two,) = blocks_of(wishes(name), A, image, weights, range(alone + 1, VIEWS))
    assert not one.learned and one.width == pytest.approx(KINDS[name].width * told_in(name))
    assert two.learned


def test_rays_through_much_material_do_not_overflow():
    p = torch.tensor([-1.0, 0.0, 5.0, 50.0, 1e4], dtype=torch.float64)
    for curve in (shapes.hardening, shapes.scatter, shapes.scale):
        assert bool(curve(p).isfinite().all())
    assert float(shapes.hardening(p)[0]) == 0 and float(shapes.scatter(p)[0]) == -1


@pytest.mark.parametrize("name", ["shift", "jitter"])
def test_views_that_tell_of_shifts_and_angles_move_no_object_among_themselves(image, name):
    geometry = PARALLEL
    A, held, dark = ray_transform(GRID, geometry, backend="matrix"), [2, 5], 7
    weights = torch.ones(geometry.shape)
    weights[dark] = 0
    (block,) = blocks_of(wishes(name), A, image, weights, held)
    angles = torch.tensor(geometry.angles)
    frame = torch.stack([torch.ones_like(angles), angles.cos(), angles.sin()], 1)[:, : 3 if name == "shift" else 1]
    assert block.spread is not None
    others = torch.zeros(VIEWS, dtype=torch.bool)
    others[[*held, dark]] = True
    assert float((frame[~others].T @ block.spread[~others]).abs().max()) < 1e-12
    assert block.spread.shape[1] == VIEWS - frame.shape[1]
    assert near(block.spread.T @ block.spread, torch.eye(block.spread.shape[1], dtype=torch.float64), 1e-12)
    # Each of the others has a shift that moves nothing else.
    assert float(block.spread[others].abs().sum()) == pytest.approx(3) and float(block.spread[~others][:, -3:].abs().max()) == 0


def test_complement_of_nothing_is_everything():
    assert pose.complement(torch.zeros(5, 1)).shape == (5, 5)
    assert pose.complement(torch.eye(3)).shape == (3, 0)
