"""What slices of a stack keep of their covariance, and what that takes."""

from dataclasses import replace

import numpy as np
import pytest
from cylinders import N, cylinders

from ctuq import records
from ctuq.errors import InputError
from ctuq.pipeline import ReconstructOptions, reconstruct, reconstruct_stack
from ctuq.pipeline.stack.plan import plan_stack
from ctuq.quantities import Circle, Cylinder, Rectangle
from ctuq.recon.dip import DIPOptions
from ctuq.tomo import VolumeScan
from ctuq.tomo.slices import row_of_stack
from ctuq.uncertainty import gaussian_bars
from ctuq.uncertainty.results.volume import KIND, VolumeResult

TV = ReconstructOptions(method="tv", size=N, device="cpu")
ROWS = 6
REGIONS = (Circle(1, 0, 2), Circle(-2, 2, 1), Rectangle(-5, -5, 5, 5))


@pytest.fixture(scope="module")
def scan():
    return cylinders(ROWS)[0]


@pytest.fixture(scope="module")
def whole(scan):
    return reconstruct_stack(scan, options=TV)


def test_a_slice_answers_as_its_own_job_does_with_one_scale(scan, monkeypatch):
    monkeypatch.setattr(gaussian_bars, "has_both", lambda edges: False)  # edges of a stack's slices have no scale of their own
    one = reconstruct_stack(scan, rows=range(2, 3), options=TV)
    alone = reconstruct(row_of_stack(scan, 2), "tv", size=N, field=float(one.grid.voxel * N), device="cpu")
    for region in REGIONS:
        found, expected = one.slice(0).region(region), alone.region(region)
        assert found.value == pytest.approx(expected.value, rel=1e-4)
        assert found.standard_uncertainty == pytest.approx(expected.standard_uncertainty, rel=1e-3)
    found, expected = (each.fraction(REGIONS[0], above=0.025) for each in (one.slice(0), alone))
    assert found.standard_uncertainty == pytest.approx(expected.standard_uncertainty, rel=0.1)
    wall = one.slice(0).thickness((-4, 0), (5.5, 0))
    assert wall.value == pytest.approx(alone.thickness((-4, 0), (5.5, 0)).value, rel=1e-3)


def test_held_out_rays_tell_how_alike_slices_err(whole):
    assert whole.alike.shape == (ROWS,) and whole.alike[0] == 1
    assert np.all((whole.alike >= 0) & (whole.alike <= 1))
    many = whole.region(Cylinder(1, 0, 2, -5, 5)).standard_uncertainty
    each = [whole.slice(z).region(Circle(1, 0, 2)).standard_uncertainty for z in range(ROWS)]
    assert np.linalg.norm(each) / ROWS * 0.5 < many < np.mean(each) * 1.1


def test_without_held_out_views_slices_are_taken_to_err_wholly_alike(scan):
    found = reconstruct_stack(scan, rows=range(2, 4), options=replace(TV, calibrate=False))
    assert found.alike is None
    assert any("wholly alike" in note for note in found.region(Cylinder(1, 0, 2, -1.9, 1.9)).notes)


def test_covariances_take_as_much_as_is_allowed_and_that_is_told(scan, whole):
    gib = 2**30
    assert whole.directions.shape == (ROWS, N * N, N, N) and not any("covariance" in text for text in whole.warnings)
    room = 4 * ROWS * N * N * 40.5 / gib
    some = reconstruct_stack(scan, options=TV, covariance=room)
    assert some.directions.shape[1] == 40 and some.directions.nbytes <= room * gib
    np.testing.assert_array_equal(some.std, whole.std)
    few = reconstruct_stack(scan, options=TV, covariance=room / 2)
    assert few.directions is None and any("raise --covariance" in text for text in few.warnings)
    none = reconstruct_stack(scan, options=TV, covariance=0)
    assert none.directions is None and none.warnings == whole.warnings
    fewer = reconstruct_stack(scan, rows=range(1), options=replace(TV, directions=5))
    assert fewer.directions.shape[1] == 5
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="0 GiB or more"):
            reconstruct_stack(scan, options=TV, covariance=wrong)


def test_the_plan_tells_what_they_take(scan, whole):
    plan = plan_stack(scan, options=TV)
    assert plan.kept == N * N and plan.kept_bytes == whole.directions.nbytes
    assert "--covariance bounds it" in str(plan)
    without = plan_stack(scan, options=TV, covariance=0)
    assert without.disk == plan.disk - 2 * plan.kept_bytes and "--covariance" not in str(without)


def test_a_run_with_another_bound_is_not_gone_on_with(scan, tmp_path):
    path = tmp_path / "checkpoint.h5"
    reconstruct_stack(scan, rows=range(1), options=TV, covariance=0, checkpoint=path)
    with pytest.raises(InputError, match="covariance"):
        reconstruct_stack(scan, rows=range(1), options=TV, checkpoint=path)


def test_a_file_that_is_written_slice_by_slice_keeps_them(scan, whole, tmp_path):
    file = tmp_path / "results.h5"
    reconstruct_stack(scan, options=TV, output=file)
    found = VolumeResult.load(file)
    np.testing.assert_array_equal(found.directions, whole.directions)
    np.testing.assert_array_equal(found.alike, whole.alike)
    assert found.waves == whole.waves
    with VolumeResult.open(file) as lazily:
        assert not isinstance(lazily.directions, np.ndarray)
        assert lazily.region(Cylinder(1, 0, 2, -5, 5)) == whole.region(Cylinder(1, 0, 2, -5, 5))
    found.save(tmp_path / "again.h5")
    np.testing.assert_array_equal(VolumeResult.load(tmp_path / "again.h5").directions, whole.directions)


def test_slices_that_failed_hold_nothing_and_lose_no_other(scan):
    weights = np.ones_like(scan.projections)
    weights[1] = 0
    found = reconstruct_stack(VolumeScan(scan.projections, scan.geometry, weights), options=TV)
    assert found.made == [0, 2, 3, 4, 5] and np.isnan(found.directions[1]).all()
    assert any("None of its rays counts" in text for text in found.warnings)
    assert np.isfinite(found.alike).all()
    with pytest.raises(InputError, match="Slice 1 could not be made"):
        found.region(Cylinder(1, 0, 2, -5, 5))
    assert np.isfinite(found.slice(2).region(REGIONS[0]).standard_uncertainty)


def test_hidden_errors_are_kept_for_themselves(scan):
    dip = ReconstructOptions(size=N, device="cpu", dip=DIPOptions(iterations=40))
    found = reconstruct_stack(scan, rows=range(2, 4), options=dip)
    assert found.hidden == ("hardening",) and found.effects.shape == (2, 1, N, N)
    budget = found.slice(0).region(REGIONS[0]).budget
    assert budget["beam hardening"] > 0
    through = found.region(Cylinder(1, 0, 2, -1.9, 1.9)).budget["beam hardening"] ** 0.5
    each = [found.slice(z).region(REGIONS[0]).budget["beam hardening"] ** 0.5 for z in range(2)]
    assert through == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"waves": 99},
        {"hidden": ("hardening", "scatter")},
        {"hidden": ("nonsense",), "effects": np.zeros((ROWS, 1, N, N), np.float32)},
        {"effects": np.zeros((ROWS, 2, N, N), np.float32), "hidden": ("hardening",)},
        {"directions": np.zeros((ROWS, 3, N, N - 1), np.float32)},
        {"directions": np.zeros((ROWS - 1, 3, N, N), np.float32)},
        {"directions": np.zeros((ROWS, N, N), np.float32)},
        {"alike": np.full(ROWS, 2.0)},
        {"alike": np.full(ROWS, np.nan)},
        {"alike": np.ones(ROWS + 1)},
    ],
)
def test_a_file_with_other_covariances_is_refused(whole, tmp_path, change):
    replace(whole, **change).save(tmp_path / "results.h5")
    assert records.kind_of(tmp_path / "results.h5") == KIND
    with pytest.raises(InputError, match="parts missing or wrong"):
        VolumeResult.load(tmp_path / "results.h5")
    with pytest.raises(InputError, match="parts missing or wrong"), VolumeResult.open(tmp_path / "results.h5"):
        pass
