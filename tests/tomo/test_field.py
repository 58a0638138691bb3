"""What an image shows by default, by wish, and what is told of what it leaves out."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from discs import disc

from ctuq import read
from ctuq.errors import GeometryError, InputError
from ctuq.files import demo_scan
from ctuq.pipeline.views import rays_inside
from ctuq.stages import Stages
from ctuq.tomo import ray_transform
from ctuq.tomo.axis import with_axis_column
from ctuq.tomo.field import choose_grid, doubts_of_field, only_drifts, outline_of, reaches_beyond
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.scan import Scan

COLUMNS = 64


def _beam(kind, column, degrees=360, views=40):
    angles = np.deg2rad(np.linspace(0, degrees, views, endpoint=False))
    if kind == "parallel":
        return with_axis_column(ParallelBeam(angles=angles, columns=COLUMNS, pixel=0.5), column)
    fan = FanBeam(angles=angles, columns=COLUMNS, pixel=1.0, source_to_axis=80.0, source_to_detector=160.0)
    return with_axis_column(fan, column)


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_no_ray_passes_outside_the_measured_field_and_one_touches_it(kind):
    geometry = _beam(kind, 50.0)
    distances = np.abs(geometry.axis_distances(np.linspace(-0.5, COLUMNS - 0.5, 500)))
    assert distances.max() == pytest.approx(geometry.measured_field / 2)
    assert geometry.measured_field > geometry.field_of_view


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_a_half_acquisition_shows_the_whole_object(kind):
    scan = disc(_beam(kind, 55.0), 12.0, (3.0, -4.0))
    grid = choose_grid(scan, 32)
    assert 17.0 <= grid.extent[1] <= scan.geometry.measured_field / 2 and outline_of(scan).cut == ()
    assert any("every view sees" in text for text in doubts_of_field(scan, grid)) and not reaches_beyond(scan, grid)


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_an_object_that_every_view_sees_has_the_field_that_every_view_sees(kind):
    scan = disc(_beam(kind, 34.0), 8.0)
    grid = choose_grid(scan, 32)
    assert grid.voxel * 32 == pytest.approx(scan.geometry.field_of_view) and doubts_of_field(scan, grid) == ()


def test_a_field_can_be_asked_for():
    scan = disc(_beam("parallel", 50.0), 8.0)
    for field, width in ((11.0, 11.0), ("all", scan.geometry.measured_field), ("common", scan.geometry.field_of_view)):
        assert choose_grid(scan, 20, field).voxel * 20 == pytest.approx(width)
    own = replace(scan, grid=VolumeGrid((10, 12), 0.7, (1.0, 0.0)))
    assert choose_grid(own, 24).extent == own.grid.extent
    assert choose_grid(own, 24, "common").voxel * 24 == pytest.approx(scan.geometry.field_of_view)


@pytest.mark.parametrize("field", [0.0, -3.0, np.nan, np.inf, "half"])
def test_no_field_is_refused(field):
    with pytest.raises(InputError, match="positive number of mm"):
        choose_grid(disc(_beam("parallel", 31.5), 8.0), 16, field)


@pytest.mark.parametrize("degrees", [180, 360])
@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_an_object_larger_than_the_detector_is_told(kind, degrees):
    scan = disc(_beam(kind, 31.5, degrees), 24.0)
    outline, told = outline_of(scan), doubts_of_field(scan, choose_grid(scan, 16))
    assert outline.cut == ("first", "last") and outline.reach == pytest.approx(24.0, rel=0.1)
    assert any("first and last columns" in text and "not quantitative" in text for text in told)


def test_a_half_turn_cannot_make_up_for_a_cut_and_a_full_turn_does():
    assert outline_of(disc(_beam("parallel", 50.0, 180), 12.0)).cut == ("last",)
    assert outline_of(disc(_beam("parallel", 50.0, 360), 12.0)).cut == ()
    assert outline_of(disc(_beam("parallel", 50.0, 360), 40.0)).cut == ("first",)


def test_an_object_outside_of_the_image_is_told_unless_it_fills_its_corners():
    scan = disc(_beam("parallel", 31.5), 12.0)
    small = choose_grid(scan, 16, 10.0)
    assert reaches_beyond(scan, small) and any("beyond the image of 10 mm" in text for text in doubts_of_field(scan, small))
    corner = disc(_beam("parallel", 31.5), 2.0, (7.0, 7.0))
    assert not reaches_beyond(corner, choose_grid(corner, 16, 18.5))


def _drifting(scan, size, seed=3):
    drift = size * scan.projections.max() * np.random.default_rng(seed).standard_normal(scan.n_angles)
    return replace(scan, projections=(scan.projections - drift[:, None]).astype(np.float32))


def test_flux_that_drifts_is_no_object_beside_the_image_and_an_object_is():
    scan = disc(_beam("parallel", 31.5, 180, 41), 8.0)
    grid = choose_grid(scan, 16)
    drifting = _drifting(scan, 0.6)
    assert outline_of(drifting).cut and only_drifts(drifting, grid)
    # Columns that count for nothing may read anything.
    weights = np.ones_like(scan.projections)
    weights[:, 0] = 0
    broken = np.where(weights > 0, drifting.projections, 9.0).astype(np.float32)
    assert only_drifts(replace(drifting, projections=broken, weights=weights), grid)
    for larger in (disc(_beam("parallel", 31.5, 180, 41), 24.0), disc(_beam("parallel", 50.0, 180, 41), 12.0)):
        assert outline_of(larger).cut and not any(only_drifts(s, grid) for s in (larger, _drifting(larger, 0.1)))


@pytest.mark.parametrize("flux", [np.linspace(0, 0.6, 40), np.repeat([0.0, 0.7], 20), np.linspace(-0.4, 0.7, 40)])
def test_flux_that_falls_from_that_of_the_flats_is_told_as_such(flux):
    """As a tube that drifts after its flats does, or one that steps: no view's air lies below 0."""
    scan = disc(_beam("parallel", 31.5, 180, 40), 8.0, (1.5, -1.0))
    drifting = replace(scan, projections=(scan.projections + flux[:, None]).astype(np.float32))
    grid = choose_grid(drifting, 16)
    assert outline_of(drifting).cut and only_drifts(drifting, grid)
    (told,) = (text for text in doubts_of_field(drifting, grid) if "mm that were measured" in text)
    assert "flux of views drifts" in told and "--systematics default,flux" in told


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_a_beam_weaker_than_its_flats_is_told_as_such(kind):
    """Two published scans are so: air reads 17 % of the most in one that has its flats beside it, and 35 % in the other."""
    sound = disc(_beam(kind, 31.5), 8.0, (1.5, -1.0))
    offset = 0.3 * sound.projections.max()
    noise = 0.02 * offset * np.random.default_rng(0).standard_normal(sound.projections.shape)
    scan = replace(sound, projections=(sound.projections + offset + noise).astype(np.float32))
    grid = choose_grid(sound, 16)
    (told,) = (text for text in doubts_of_field(scan, grid) if "mm that were measured" in text)
    assert "beam was weaker than in the flats" in told and "'air: edges'" in told
    weights = np.ones_like(scan.projections)
    weights[:, 3] = 0
    broken = replace(scan, weights=weights, projections=np.where(weights > 0, scan.projections, 9.0).astype(np.float32))
    assert any("beam was weaker" in text for text in doubts_of_field(broken, grid))


@pytest.mark.parametrize("part", [0.3, 0.8, 3.0])
def test_an_offset_is_told_as_such_however_faint_the_object_is_beside_it(part):
    """Of a real scan all air read three quarters of the most: that was told as an object that reaches beyond."""
    sound = disc(_beam("parallel", 31.5), 8.0, (1.5, -1.0))
    noise = 0.02 * sound.projections.max() * np.random.default_rng(0).standard_normal(sound.projections.shape)
    offset = replace(sound, projections=(sound.projections + part * sound.projections.max() + noise).astype(np.float32))
    assert any("alike at both edges" in text for text in doubts_of_field(offset, choose_grid(sound, 16)))


def test_a_plate_longer_than_the_detector_is_no_flux():
    """Across it all columns read alike, as flux would have them; along it, and seen whole, views hold far more."""
    y, x = np.mgrid[:120, :120] - 59.5
    grid = VolumeGrid((120, 120), 0.5)
    beam = _beam("parallel", 31.5, 180, 41)
    plate = 0.1 * ((np.abs(x) < 48) & (np.abs(y) < 16))
    rays = build_matrix(grid, beam) @ plate.ravel().astype(np.float32)
    scan = Scan(rays.reshape(beam.shape), beam)
    assert outline_of(scan).cut and not only_drifts(scan, choose_grid(scan, 16))
    assert any("object reaches beyond" in text for text in doubts_of_field(scan, choose_grid(scan, 16)))


@pytest.mark.parametrize("flux", [True, False])
def test_where_flux_is_in_the_model_its_air_stays_in_the_rays(flux):
    scan = _drifting(disc(_beam("parallel", 31.5, 180, 41), 8.0), 0.6)
    A = ray_transform(choose_grid(scan, 16), scan.geometry, backend="matrix")
    none = np.zeros(0, np.int64)
    data = rays_inside(A, scan, none, device=torch.device("cpu"), stages=Stages(), flux=flux)
    assert np.array_equal(data.y.numpy(), scan.projections) == flux


def test_an_axis_beside_the_detector_has_no_common_field_and_a_hole():
    scan = disc(_beam("parallel", 70.0), 12.0)
    grid = choose_grid(scan, 16)
    assert grid.extent[1] >= 12.0 and any("within 3.25 mm" in text for text in doubts_of_field(scan, grid))
    with pytest.raises(GeometryError, match="no circle"):
        choose_grid(scan, 16, "common")
    with pytest.raises(GeometryError, match="columns beside the detector"):
        _beam("parallel", 1e6)


def test_one_column_and_one_direction():
    with pytest.raises(GeometryError, match="one column"):
        choose_grid(Scan(np.ones((5, 1), np.float32), ParallelBeam(angles=np.arange(5.0), columns=1, pixel=1.0)), 16)
    scan = disc(replace(_beam("parallel", 31.5), angles=np.array([0.3, 0.3, 0.3 + np.pi])), 8.0)
    assert any("All 3 views are of one direction" in text for text in doubts_of_field(scan, choose_grid(scan, 16)))


def test_two_columns_that_both_see_an_object_fit_no_disc_and_say_nothing_of_that():
    scan = Scan(np.ones((5, 2), np.float32), ParallelBeam(angles=np.arange(5) * np.pi / 5, columns=2, pixel=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = outline_of(scan)
    assert found.cut and np.isfinite(found.reach)


def test_a_detector_inside_the_object_is_refused():
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    fan = FanBeam(angles=angles, columns=COLUMNS, pixel=0.5, source_to_axis=80.0, source_to_detector=86.0)
    scan = disc(fan, 8.0)
    with pytest.raises(GeometryError, match="inside the object"):
        doubts_of_field(scan, choose_grid(scan, 16))
    assert doubts_of_field(disc(fan, 4.0), choose_grid(scan, 16)) == ()


def test_the_shipped_scans_are_whole_in_their_fields():
    data = Path(__file__).resolve().parents[2] / "data"
    walnut, disc = read(demo_scan()), read(sorted((data / "htc2022").glob("htc2022_ta_*-*.mat")))
    for scan in (walnut, walnut.select(np.arange(0, 120, 12)), disc, read(data / "tooth" / "tooth.h5")):
        grid = choose_grid(scan, 64)
        assert outline_of(scan).cut == ()
        assert not reaches_beyond(scan, grid)
        assert doubts_of_field(scan, grid) == ()


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_air_below_zero_is_told(kind):
    scan = disc(_beam(kind, 31.5), 8.0, (3.0, -4.0))
    grid, top = choose_grid(scan, 32), float(scan.projections.max())
    noise = 0.02 * top * np.random.default_rng(0).standard_normal(scan.projections.shape).astype(np.float32)

    def told(shift):
        return " ".join(doubts_of_field(replace(scan, projections=scan.projections + noise - np.float32(shift * top)), grid))

    assert "background" in told(0.04) and "background" not in told(0.0) + told(0.01)
