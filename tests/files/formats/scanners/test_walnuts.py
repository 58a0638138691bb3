"""The layout of the walnut collection, by a folder that is made here as the collection's scripts read it."""

import numpy as np
import pytest
import tifffile

from ctuq.errors import InputError
from ctuq.files import read, read_volume
from ctuq.files.formats.scanners import series, walnuts
from ctuq.tomo import ConeBeam, FanBeam, FreeBeam

VIEWS, ROWS, COLUMNS, PIXEL = 16, 10, 14, 0.5
OPEN, DARK = 40000.0, 100.0
BALL, RADIUS, ATTENUATION = np.array([0.6, -0.4, 0.3]), 1.2, 0.4


def _vectors(shift=0.0, up=1.0, height=0.0, views=VIEWS):
    """A full turn and the first view again, a detector that stands a little elsewhere in each view."""
    angles = np.deg2rad(20 + np.arange(views + 1) * 360.0 / views)
    beam = ConeBeam(
        angles=angles, rows=ROWS, columns=COLUMNS, pixel=PIXEL, source_to_axis=20.0, source_to_detector=50.0, row_pixel=0.6
    )
    table = beam.vectors()
    table[:, 3:6] += shift * np.sin(3 * angles)[:, None] * table[:, 6:9]
    table[:, 2] += height
    table[:, 9:] *= up
    return table


def _chords(table):
    """Line integrals of a ball, (view, row, column) in the order of the vectors."""
    r, c = (np.arange(n) - (n - 1) / 2 for n in (ROWS, COLUMNS))
    source, centre, u, v = (table[:, None, None, 3 * i : 3 * i + 3] for i in range(4))
    ray = centre + c[None, None, :, None] * u + r[None, :, None, None] * v - source
    ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    across = np.cross(BALL - source, ray)
    return ATTENUATION * 2 * np.sqrt(np.maximum(RADIUS**2 - (across**2).sum(-1), 0))


def _write(folder, table, *, skipped=(), corrected="scan_geom_corrected.geom", flats=True):
    folder.mkdir(exist_ok=True)
    np.savetxt(folder / corrected, table)
    counts = np.round(DARK + (OPEN - DARK) * np.exp(-_chords(table)))
    last = len(table) - 1
    # The detector stood upright: picture[COLUMNS - 1 - c, r], and the table's first view is the last picture.
    for view, picture in enumerate(counts):
        if view not in skipped:
            tifffile.imwrite(folder / f"scan_{last - view:06d}.tif", picture.T[::-1].astype(np.uint16))
    tifffile.imwrite(folder / "di000000.tif", np.full((COLUMNS, ROWS), DARK, np.uint16))
    for number in (0, 1) if flats else ():
        tifffile.imwrite(folder / f"io{number:06d}.tif", np.full((COLUMNS, ROWS), OPEN - 50 + 100 * number, np.uint16))
    return folder


@pytest.mark.parametrize(("shift", "up"), [(0.0, 1.0), (0.4, 1.0), (0.4, -1.0)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_volume_has_every_views_own_vectors(tmp_path, shift, up, turned):
    table = _vectors(shift, up)
    table[:, 6:9] *= -1 if turned else 1
    scan = read_volume(_write(tmp_path / "tubeV2", table))
    assert isinstance(scan.geometry, FreeBeam) and scan.projections.shape == (ROWS, VIEWS, COLUMNS)
    found = scan.geometry.vectors()
    assert (found[:, 11] > 0).all()
    np.testing.assert_allclose(found[:, :6], table[:-1, :6], atol=1e-9)
    assert scan.grid is not None and scan.grid.centre == pytest.approx((0, 0, 0), abs=1e-6)
    expected = _chords(found).transpose(1, 0, 2)
    assert expected.max() > 0.5 and (expected > 0).any(axis=(0, 2)).all()
    np.testing.assert_allclose(scan.projections, expected, atol=2e-4)


@pytest.mark.parametrize("name", ["folder", "table"])
def test_a_slice_is_the_fan_of_the_plane_through_the_source(tmp_path, name):
    table = _vectors(height=0.9)
    folder = _write(tmp_path / "tubeV1", table)
    scan = read(folder if name == "folder" else folder / "scan_geom_corrected.geom")
    assert isinstance(scan.geometry, FanBeam) and scan.geometry.shape == (VIEWS, COLUMNS)
    np.testing.assert_allclose(scan.geometry.vectors()[:, [0, 1, 6, 7]], table[:-1][:, [0, 1, 6, 7]], atol=1e-6)
    row = (ROWS - 1) / 2 + 0.9 / 0.6
    np.testing.assert_allclose(scan.projections, _chords(table)[:-1, round(row)], atol=2e-4)
    assert scan.weights is not None and scan.provenance.facts["citation"].startswith("Der Sarkissian")


def test_what_a_slice_leaves_out_is_told(tmp_path):
    scan = read(_write(tmp_path / "a", _vectors(0.4)))
    assert any("differ from a circle by up to 0.4 columns" in text for text in scan.warnings)
    assert not any("circle" in text for text in read(_write(tmp_path / "b", _vectors())).warnings)
    steep = read(_write(tmp_path / "c", _vectors(height=9.0)))
    assert any("out of the middle plane" in text for text in steep.warnings)


def test_missing_pictures_leave_their_views_out(tmp_path):
    scan = read(_write(tmp_path / "scan", _vectors(), skipped=(3, 7)))
    assert scan.n_angles == VIEWS - 2 and any("2 of 16 projections are missing" in text for text in scan.warnings)
    volume = read_volume(tmp_path / "scan")
    kept = np.delete(np.arange(VIEWS), [3, 7])
    np.testing.assert_allclose(volume.geometry.vectors(), _vectors()[kept], atol=1e-9)


def test_the_corrected_table_is_taken_and_the_other_is_named(tmp_path):
    folder = _write(tmp_path / "scan", _vectors(0.4))
    np.savetxt(folder / "scan_geom_original.geom", _vectors())
    assert any("scan_geom_original.geom beside it is not read" in text for text in read(folder).warnings)
    original = read(folder / "scan_geom_original.geom")
    assert not any("circle" in text for text in original.warnings)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table[:, :9], "not of 12 finite numbers"),
        (lambda table: table * np.nan, "not of 12 finite numbers"),
        (lambda table: table[:-3], "numbered up to 16"),
        (lambda table: table[:, [0, 1, 2, 3, 4, 5, 9, 10, 11, 6, 7, 8]], "do not run along z"),
        (lambda table: np.vstack([table, table[:40]]), "numbered up to 16"),
    ],
)
def test_a_table_of_something_else_is_refused_in_one_sentence(tmp_path, change, says):
    folder = _write(tmp_path / "scan", _vectors())
    np.savetxt(folder / "scan_geom_corrected.geom", change(_vectors()))
    with pytest.raises(InputError, match=says):
        read(folder)


def test_words_in_place_of_a_table_and_pictures_elsewhere_are_refused(tmp_path):
    folder = _write(tmp_path / "scan", _vectors())
    (folder / "scan_geom_corrected.geom").write_text("source 1 2 3\n")
    with pytest.raises(InputError, match="copy it again"):
        read(folder)
    empty = tmp_path / "alone"
    empty.mkdir()
    np.savetxt(empty / "scan.geom", _vectors())
    with pytest.raises(InputError, match="put them beside it"):
        read(empty)


def test_its_rows_are_no_slices(tmp_path):
    with pytest.raises(InputError, match="no slices"):
        read_volume(_write(tmp_path / "scan", _vectors()), rows=lambda rows: range(2, 5))


def test_without_open_pictures_it_asks_for_them(tmp_path):
    with pytest.raises(InputError, match="no flats"):
        read(_write(tmp_path / "scan", _vectors(), flats=False))


def test_an_arc_has_no_view_twice(tmp_path):
    table = _vectors()[:10]
    assert read(_write(tmp_path / "scan", table)).n_angles == 10


def test_reading_many_lines_at_once_changes_nothing(tmp_path, monkeypatch):
    folder = _write(tmp_path / "scan", _vectors(0.4))
    whole = read_volume(folder)
    monkeypatch.setattr(series, "_BLOCK", 3)
    np.testing.assert_array_equal(read_volume(folder).projections, whole.projections)
    opened = []
    load = series.load_picture
    monkeypatch.setattr(series, "load_picture", lambda file: opened.append(file) or load(file))
    monkeypatch.setattr(series, "_BLOCK", 32)
    tables = []
    table = walnuts._table
    monkeypatch.setattr(walnuts, "_table", lambda file: tables.append(file) or table(file))
    read_volume(folder)
    # Once for its lines, and the first one for the size of all.
    assert max(opened.count(file) for file in opened) <= 2
    assert len(tables) == 1
    read(folder)
    assert len(tables) == 2  # what one volume has read is no other reading's
