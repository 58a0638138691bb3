"""Sessions at a scanner with an area detector: views are pictures, and the design is made on coarse voxels."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from ctuq.app.cli import main
from ctuq.app.design import serve
from ctuq.design import Designer
from ctuq.design.models.learners import learner
from ctuq.design.session.file import Settings
from ctuq.design.session.scanner import beam_of
from ctuq.design.session.session import Session
from ctuq.errors import CtuqError, GeometryError, InputError
from ctuq.files import read_volume, write_volume_scan
from ctuq.files.volume_views import new_volume_views
from ctuq.tomo import Parallel3D, VolumeScan
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.solids import solid_scan
from ctuq.tomo.space import FreeBeam

CANDIDATES = np.deg2rad(np.arange(2.5, 360, 20))
SETTINGS = Settings(size=6, prior="edges", pilot=3, batch=2)


@pytest.fixture(scope="module")
def cone():
    """Every candidate view of shells in a cone, as a scan: (row, angle, column) of 13 x 13 pixels or so."""
    return solid_scan("shells", 12, CANDIDATES, noise=0.02, seed=0, distances=(100.0, 200.0))


def pictures(scan, angles):
    """What the detector shows at some of the candidate angles, (k, rows, columns)."""
    places = [int(np.abs(CANDIDATES - angle).argmin()) for angle in np.atleast_1d(angles)]
    return scan.projections[:, places].swapaxes(0, 1)


@pytest.fixture(scope="module")
def told(cone, tmp_path_factory):
    """A session with its three pilot views told; its angles were the pilot's."""
    session = Session.start(tmp_path_factory.mktemp("area") / "s.h5", cone.geometry, SETTINGS)
    pilot = session.ask().angles
    session.tell(pilot, pictures(cone, pilot))
    return session


def test_a_session_goes_from_its_pilot_to_angles_that_gain(told, cone):
    record = told.record
    assert record.dims == 3 and len(record.state.views) == 3
    plan = record.plan
    assert len(plan.angles) == 2 and (plan.gains > 0).all()
    assert not np.isin(plan.views, record.state.views).any()
    assert np.isfinite(record.state.log[-1].error)


def test_pilot_views_are_spread_over_a_turn_of_a_cone_and_half_a_turn_of_parallel_rays(told, cone, tmp_path):
    apart = np.diff(np.sort(told.record.angles[told.record.state.views]))
    assert (np.rad2deg(apart) > 90).all()
    flat = Parallel3D(angles=np.deg2rad(np.arange(5, 360, 10.0)), rows=6, columns=9, pixel=1.0)
    session = Session.start(tmp_path / "p.h5", flat, replace(SETTINGS, pilot=4))
    places = np.sort(np.rad2deg(session.ask().angles) % 180)
    np.testing.assert_allclose(np.diff(places), 45, atol=11)


def test_its_rays_are_those_of_the_coarse_detector(told, cone):
    problem = told._builder.problem(told.record)
    beam, A = problem.A.geometry.beam, problem.A
    volume = torch.rand(A.domain.shape, generator=torch.Generator().manual_seed(0))
    whole = volume_transform(A.grid, beam, backend="torch")(volume)
    np.testing.assert_allclose(A(volume), whole.swapaxes(0, 1).reshape(A.range.shape), rtol=1e-4, atol=1e-5)
    kept = told.record.state.projections[0].reshape(beam.rows, beam.columns)
    rows, columns = (n // m for n, m in zip(cone.geometry.shape[::2], kept.shape, strict=True))
    shown = pictures(cone, told.record.angles[told.record.state.views[0]])[0][: rows * len(kept), : columns * kept.shape[1]]
    expected = shown.reshape(len(kept), rows, kept.shape[1], columns).mean((1, 3))
    np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)


def test_it_asks_for_what_a_designer_in_memory_asks_for(told):
    record = told.record
    designer = Designer(told._builder.problem(record), learner("edges"))
    designer.tell(record.angles[record.state.views], record.state.projections, record.state.weights)
    np.testing.assert_array_equal(designer.ask(2).views, record.plan.views)


def test_another_process_goes_on_without_the_cache(told, cone, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(told.path.read_bytes())
    session = Session(copy)
    angle = session.record.plan.angles[0]
    assert session.ask(1).angles[0] == angle
    session.tell(angle, pictures(cone, angle)[0])
    assert len(session.record.state.views) == 4 and session.record.plan is not None


def test_bad_pixels_weigh_nothing_and_pictures_of_other_shapes_are_refused(cone, tmp_path):
    session = Session.start(tmp_path / "s.h5", cone.geometry, SETTINGS)
    angle = session.ask().angles[0]
    shown = pictures(cone, angle)[0]
    rows, columns = shown.shape
    for wrong in (shown[:-1], shown.ravel(), shown[None, None]):
        with pytest.raises(InputError, match=rf"need \(1, {rows}, {columns}\)"):
            session.tell(angle, wrong)
    spoilt = shown.copy()
    spoilt[2, 3] = np.nan
    with pytest.raises(InputError, match="1 values that are NaN"):
        session.tell(angle, spoilt)
    weights = np.ones_like(shown)
    weights[:4] = 0
    session.tell(angle, shown, weights, unit="exposure")
    kept = session.record.state.weights[0]
    assert (kept == 0).any() and (kept > 0).any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prior": "displaced"}, "is of slices; for an area detector choose"),
        ({"prior": "gprior"}, "is of slices"),
        ({"size": 128}, "4 to 40 voxels across, not 128"),
        ({"size": 3}, "4 to 40"),
        ({"roi": (500.0, 600.0, 0.0, 1.0)}, "No pixel lies in the box"),
    ],
)
def test_what_a_volume_cannot_have_is_refused(cone, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        Session.start(tmp_path / "s.h5", cone.geometry, replace(SETTINGS, **changes))
    assert not (tmp_path / "s.h5").exists()


def test_free_vectors_have_no_next_angle(cone, tmp_path):
    beam = cone.geometry
    free = FreeBeam(table=beam.vectors(), rows=beam.rows, columns=beam.columns, is_cone=True)
    with pytest.raises(GeometryError, match="free vectors"):
        Session.start(tmp_path / "s.h5", free, SETTINGS)


def test_a_region_counts_at_every_height(cone, tmp_path):
    session = Session.start(tmp_path / "s.h5", cone.geometry, replace(SETTINGS, roi=(-5.0, 5.0, -5.0, 5.0)))
    region = np.asarray(session._builder.problem(session.record).region)
    assert region.ndim == 3 and 0 < region.mean() < 1
    assert (region == region[0]).all()


GEOMETRY = "kind: parallel\npixel: 1.0\ncolumns: 12\nrows: 8\nvalues: log\n"


def parallel_scan(path, degrees, **changes):
    geometry = Parallel3D(**({"angles": np.deg2rad(degrees), "rows": 8, "columns": 12, "pixel": 1.0} | changes))
    y, x = np.mgrid[: geometry.rows, : geometry.columns]
    shown = [np.exp(-(((x - 5.5 - np.cos(a)) / 3) ** 2) - ((y - 3.5) / 3) ** 2) for a in geometry.angles]
    noise = 0.01 * np.random.default_rng(0).standard_normal(geometry.shape)
    write_volume_scan(VolumeScan((np.stack(shown, 1) + noise).astype(np.float32), geometry), path)
    return str(path)


def test_the_commands_take_files_of_an_area_detector(tmp_path, capsys):
    (tmp_path / "g.yml").write_text(GEOMETRY)
    path = str(tmp_path / "s.h5")
    words = ["--geometry", str(tmp_path / "g.yml"), "--prior", "edges", "--size", "6", "--pilot", "3"]
    assert main(["design", "start", path, *words, "--candidates", "5:180:10"]) == 0
    pilot = np.rad2deg(Session(path).ask().angles)
    assert main(["design", "tell", path, parallel_scan(tmp_path / "new.h5", pilot)]) == 0
    assert main(["design", "suggest", path]) == 0
    assert "predicted gain" in capsys.readouterr().out
    assert main(["design", "status", path, "--draw", str(tmp_path / "angles.png")]) == 0
    record = Session(path).record
    shown = read_volume(tmp_path / "new.h5").projections
    assert record.state.projections[0].mean() == pytest.approx(float(shown[:, 0].mean()), rel=0.05)
    free = np.rad2deg(record.plan.angles[:1])
    refused = [
        ([parallel_scan(tmp_path / "rows.h5", free, rows=7)], "its rows is 7, the session's 8"),
        ([parallel_scan(tmp_path / "pixel.h5", free, pixel=1.1)], "its pixel is 1.1"),
        ([parallel_scan(tmp_path / "again.h5", pilot[:1])], "was told"),
        ([parallel_scan(tmp_path / "typed.h5", free), "--angles", "5,6"], "angles"),
        ([parallel_scan(tmp_path / "typed.h5", free), str(tmp_path / "new.h5"), "--angles", "5"], "those of one file"),
    ]
    for arguments, told in refused:
        capsys.readouterr()
        assert main(["design", "tell", path, *arguments]) == 2
        assert told in capsys.readouterr().err
    assert len(Session(path).record.state.views) == 3


@pytest.mark.parametrize("sense", ["", "clockwise: true\n"])
@pytest.mark.parametrize("place", ["", "middle_row: 2.5\nrow_pixel: 1.5\ndetector_offset: 0.5\n"])
def test_pictures_are_treated_as_the_sessions_geometry_file_says(tmp_path, sense, place, capsys):
    """Counts in bare pages, rows from above, with angles that are typed, are the line integrals of a scan of ours."""
    path = str(tmp_path / "s.h5")
    (tmp_path / "g.yml").write_text(GEOMETRY.replace("log", "counts") + "flat: flat.tif\n" + sense + place)
    words = ["--geometry", str(tmp_path / "g.yml"), "--prior", "edges", "--size", "6", "--pilot", "3"]
    assert main(["design", "start", path, *words, "--candidates", "5:180:10"]) == 0
    record = Session(path).record
    pilot = Session(path).ask().angles
    beam = beam_of(record.geometry)
    shape = {name: getattr(beam, name) for name in ("row_pixel", "row_offset", "detector_offset", "axis_offset")}
    parallel_scan(tmp_path / "new.h5", np.rad2deg(pilot), **shape)
    line_integrals = read_volume(tmp_path / "new.h5").projections.swapaxes(0, 1)
    flat = 1000.0 + 10 * np.arange(8)[:, None] + np.arange(12)
    tifffile.imwrite(tmp_path / "flat.tif", flat[::-1].astype(np.float32))
    counts = flat * np.exp(-line_integrals)
    tifffile.imwrite(tmp_path / "new.tif", counts[:, ::-1].astype(np.float32), photometric="minisblack")
    typed = ",".join(f"{record.sense * angle:.9g}" for angle in np.rad2deg(pilot))
    assert main(["design", "tell", path, str(tmp_path / "new.tif"), "--angles", typed]) == 0
    assert len(Session(path).record.state.views) == 3
    angles = record.sense * np.deg2rad([float(angle) for angle in typed.split(",")])
    found = new_volume_views([tmp_path / "new.tif"], beam, record.intake, angles=angles)
    np.testing.assert_allclose(found.angles, pilot)
    np.testing.assert_allclose(found.projections, line_integrals, atol=1e-5)
    capsys.readouterr()
    assert main(["design", "tell", path, str(tmp_path / "new.tif")]) == 2
    assert "--angles" in capsys.readouterr().err


def test_the_resident_process_takes_pictures(cone, tmp_path):
    path = Session.start(tmp_path / "s.h5", cone.geometry, replace(SETTINGS, pilot=2)).path
    resident = serve.Resident(path)
    try:
        angles = resident.answer("ask", {})["suggestion"]["angles_deg"]
        shown = pictures(cone, np.deg2rad(angles))
        resident.answer("tell", {"angles": angles[:1], "projections": shown[0].tolist()})
        told = resident.answer("tell", {"angles": angles[1:], "projections": shown[1:].tolist()})
        assert len(told["session"]["measured_deg"]) == 2
        assert resident.answer("ask", {})["suggestion"]["gains"][0] > 0
        with pytest.raises(CtuqError, match="shape"):
            resident.answer("tell", {"angles": [2.5], "projections": shown[0].ravel().tolist()})
    finally:
        resident.close()
