import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from ctuq.errors import InputError
from ctuq.files import read, read_volume, write_nxtomo, write_volume_scan
from ctuq.tomo import ConeBeam, FanBeam, Parallel3D, ParallelBeam, Scan, VolumeGrid, VolumeScan, radians
from ctuq.tomo.axis import axis_column
from ctuq.tomo.scan import Provenance

ANGLES = radians(np.arange(0, 360, 30))
LENGTHS = dict(source_to_axis=40.0, source_to_detector=100.0)
CONE = ConeBeam(angles=ANGLES, rows=7, columns=9, pixel=0.5, row_pixel=0.4, row_offset=0.8, roll=0.0, **LENGTHS)
RNG = np.random.default_rng(0)
VALUES = RNG.random(CONE.shape, dtype=np.float32)
GRID = VolumeGrid((2, 3, 3), 0.5)


def volume_scan(geometry=CONE, **more):
    return VolumeScan(VALUES, geometry, **more)


@pytest.mark.parametrize(
    "geometry",
    [
        CONE,
        ConeBeam(angles=ANGLES, rows=7, columns=9, pixel=0.5, roll=0.1, tilt=0.2, yaw=-0.1, **LENGTHS),
        Parallel3D(angles=ANGLES, rows=7, columns=9, pixel=0.5, axis_tilt=0.4),
        CONE.raised(np.arange(12.0)),
    ],
)
def test_a_volume_scan_comes_back_equal(tmp_path, geometry):
    truth = RNG.random(GRID.shape, dtype=np.float32)
    told = Provenance(facts={"sample": "nut"}).warned("A doubt.")
    scan = volume_scan(geometry, weights=VALUES + 1, truth=truth, grid=GRID, provenance=told)
    write_volume_scan(scan, tmp_path / "scan.h5")
    again = read_volume(tmp_path / "scan.h5")
    assert again.geometry == geometry
    assert (again.grid, again.provenance.facts, again.warnings) == (GRID, told.facts, told.warnings)
    for name in ("projections", "weights", "truth"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scan, name))


def test_read_takes_the_row_in_the_plane_of_the_source_as_a_fan_and_names_the_option(tmp_path):
    write_volume_scan(volume_scan(weights=VALUES + 1), tmp_path / "scan.h5")
    scan = read(tmp_path / "scan.h5")
    assert scan.geometry == CONE.plane
    np.testing.assert_array_equal(scan.projections, VALUES[1])  # 3 - 0.8 / 0.4
    np.testing.assert_array_equal(scan.weights, VALUES[1] + 1)
    assert any("Of 7 detector rows" in text and "--volume" in text for text in scan.warnings)
    np.testing.assert_array_equal(read(tmp_path / "scan.h5", row=4).projections, VALUES[4])


def test_a_row_of_a_leaning_detector_is_no_slice(tmp_path):
    write_volume_scan(volume_scan(CONE.raised(np.arange(12.0))), tmp_path / "scan.h5")
    with pytest.raises(InputError, match="--volume"):
        read(tmp_path / "scan.h5")


@pytest.mark.parametrize("kind", ["fan", "parallel"])
def test_all_rows_of_our_nxtomo_are_read_from_below(tmp_path, kind):
    shared = dict(angles=ANGLES, columns=9, pixel=0.5, axis_offset=0.1)
    plane = FanBeam(**shared, **LENGTHS) if kind == "fan" else ParallelBeam(**shared)
    write_nxtomo([Scan(row, plane, weights=row + 1) for row in VALUES], tmp_path / "scan.nx")
    scan = read_volume(tmp_path / "scan.nx")
    np.testing.assert_allclose(scan.projections, VALUES[::-1], atol=1e-6)
    expected = (VALUES[::-1] + 1) / (VALUES + 1).mean()
    np.testing.assert_allclose(scan.weights, expected, rtol=1e-5)
    assert scan.geometry.plane == plane
    assert type(scan.geometry) is (ConeBeam if kind == "fan" else Parallel3D)
    assert any("middle row" in text for text in scan.warnings) == (kind == "fan")
    assert not any("--volume" in text for text in scan.warnings)


def foreign_nxtomo(path, counts, flats, *, y_pixel):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry["definition"] = "NXtomo"
        detector = entry.create_group("instrument/detector")
        detector["data"] = np.concatenate([flats, counts])
        detector["image_key"] = np.r_[np.ones(len(flats), int), np.zeros(len(counts), int)]
        for name, value in (("x_pixel_size", 0.5e-3), ("y_pixel_size", y_pixel), ("distance", 60e-3)):
            detector[name] = value
            detector[name].attrs["units"] = "m"
        entry.create_group("instrument/source")["distance"] = -40e-3
        entry["instrument/source/distance"].attrs["units"] = "m"
        degrees = np.r_[np.zeros(len(flats)), np.rad2deg(ANGLES)]
        entry.create_group("sample")["rotation_angle"] = degrees
        entry["sample/rotation_angle"].attrs["units"] = "degree"


def test_counts_of_another_programs_nxtomo_become_line_integrals_row_by_row(tmp_path):
    # Stripes along the columns, so that nothing passes for a defect; each row has an open beam of its own.
    y = 0.5 + 0.3 * np.sin(np.arange(9) / 3 + np.arange(12)[:, None, None] / 2 + np.arange(7)[None, :, None])
    beam = 1000.0 + 100 * np.arange(7)[None, :, None] + np.zeros((2, 7, 9))
    foreign_nxtomo(tmp_path / "scan.nx", beam[0] * np.exp(-y), beam, y_pixel=0.4e-3)
    (tmp_path / "scan.yaml").write_text("axis_column: 4\nmiddle_row: 1\n")
    scan = read_volume(tmp_path / "scan.nx")
    np.testing.assert_allclose(scan.projections, y.transpose(1, 0, 2)[::-1], atol=1e-5)
    # A row of a brighter beam counts for more: weights go with the counts, smoothed along the columns.
    expected = (beam[0] * np.exp(-y)).transpose(1, 0, 2)[::-1]
    np.testing.assert_allclose(scan.weights, expected / expected.mean(), rtol=0.2)
    assert np.corrcoef(scan.weights.mean((1, 2)), expected.mean((1, 2)))[0, 1] > 0.99
    geometry = scan.geometry
    assert (geometry.source_to_axis, geometry.source_to_detector) == pytest.approx((40.0, 100.0))
    assert geometry.row_pixel == pytest.approx(0.4)
    # Row 1 of seven from above is two rows above the middle: the detector's centre lies 0.8 mm below the plane.
    assert geometry.row_offset == pytest.approx(-0.8)


def test_rays_that_are_missing_in_any_row_are_told_and_count_for_nothing(tmp_path):
    y = 0.5 + 0.3 * np.sin(np.arange(9) / 3 + np.arange(12)[:, None, None] / 2 + np.arange(7)[None, :, None])
    beam = 1000.0 + np.zeros((2, 7, 9))
    counts = beam[0] * np.exp(-y)
    counts[4, 6, 3] = counts[5, 0, 2:4] = 0
    foreign_nxtomo(tmp_path / "scan.nx", counts, beam, y_pixel=0.4e-3)
    (tmp_path / "scan.yaml").write_text("axis_column: 4\n")
    scan = read_volume(tmp_path / "scan.nx")
    assert (scan.weights == 0).sum() == 3
    assert scan.weights[0, 4, 3] == 0  # row 6 from above is the lowest
    assert any(text.startswith("3 of 756 rays") for text in scan.warnings)


def test_a_tiff_stack_with_a_geometry_file_is_read_whole_with_its_turns(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", VALUES.transpose(1, 0, 2))
    text = (
        "kind: fan\nvalues: log\nangles: {first: 0, step: 30, count: 12}\npixel: 0.5\nrow_pixel: 0.4 mm\naxis_column: 4\n"
        "source_to_axis: 40\nsource_to_detector: 100\nstack: projections\nmiddle_row: 3\nroll: 5\ntilt: -2\n"
    )
    (tmp_path / "stack.yaml").write_text(text)
    scan = read_volume(tmp_path / "stack.tif")
    np.testing.assert_array_equal(scan.projections, VALUES[::-1])
    geometry = scan.geometry
    assert (geometry.row_pixel, geometry.row_offset) == (0.4, 0.0)
    assert (geometry.roll, geometry.tilt) == (pytest.approx(np.deg2rad(5)), pytest.approx(np.deg2rad(-2)))
    row = read(tmp_path / "stack.tif")
    assert any("roll of 5°" in text and "--volume" in text for text in row.warnings)
    (tmp_path / "stack.yaml").write_text(text + "axis_tilt: 30\n")
    with pytest.raises(InputError, match="axis_tilt"):
        read_volume(tmp_path / "stack.tif")


@pytest.mark.parametrize("beam", ["kind: fan\nsource_to_axis: 40\nsource_to_detector: 100\n", "kind: parallel\n"])
@pytest.mark.parametrize(("row", "refused"), [(400, True), (14, True), (-8, True), (12, False), (-5, False)])
def test_a_middle_row_far_beside_the_detector_is_refused(tmp_path, beam, row, refused):
    tifffile.imwrite(tmp_path / "stack.tif", VALUES.transpose(1, 0, 2))
    text = "values: log\nangles: {first: 0, step: 30, count: 12}\npixel: 0.5\naxis_column: 4\nstack: projections\n"
    (tmp_path / "stack.yaml").write_text(f"{beam}{text}middle_row: {row}\n")
    if refused:
        with pytest.raises(InputError, match=f"'middle_row', {row}, lies more than the detector's 7 rows beside it"):
            read_volume(tmp_path / "stack.tif")
    else:
        assert read_volume(tmp_path / "stack.tif").geometry.row_offset == (row - 3) * 0.5


def test_a_stack_of_projections_is_not_transposed_row_by_row(tmp_path):
    values = a_disc_in_some_rows(slice(0, 12), axis=31.5, noise=0.0, views=64)
    geometry = "kind: parallel\npixel: 1\nangles: {first: 0, step: 2.8125, count: 64}\ntranspose: true\n"
    for name, stack, kind in (("projections", values, "projections"), ("sinograms", values.transpose(1, 2, 0), "sinograms")):
        tifffile.imwrite(tmp_path / f"{name}.tif", stack)
        (tmp_path / f"{name}.yaml").write_text(geometry + f"stack: {kind}\n")
    np.testing.assert_allclose(read_volume(tmp_path / "sinograms.tif").projections[0], values[:, -1])
    nxtomo = tmp_path / "projections.nx"
    write_nxtomo([read(tmp_path / "sinograms.tif", row=row) for row in range(12)], nxtomo)
    (tmp_path / "turned.yaml").write_text("transpose: true\n")
    with pytest.raises(InputError, match=r"'transpose'.* stack of 12 rows .*order of its axes itself"):
        read_volume(nxtomo, geometry=tmp_path / "turned.yaml")


@pytest.mark.parametrize("name", ["stack.tif", "stack.npy", "stack.mat", "stack.mrc", "stack.h5", "pictures"])
def test_projections_that_lie_on_their_side_are_turned_as_a_camera_is_and_not_mirrored(tmp_path, name):
    """Counter-clockwise: what is at the right of such a picture is at the top of the one that stands upright."""
    values = a_disc_in_some_rows(slice(0, 5), axis=29.0, noise=0.01)
    flats, darks = np.linspace(900, 1000, 12 * 64).reshape(12, 64), np.linspace(5, 9, 12 * 64).reshape(12, 64)
    counts = (darks + (flats - darks) * np.exp(-values)).astype(np.float32)
    lying = np.rot90(counts, -1, axes=(1, 2))
    text = "kind: parallel\npixel: 1\naxis_column: 29\nangles: {first: 0, step: 4.5, count: 40}\nvalues: counts\n"
    text += "flat: flat.tif\ndark: dark.tif\nfiles: 'view_*.tif'\n" + ("data: sino\n" if name.endswith((".mat", ".h5")) else "")
    for frame, picture in (("flat", flats), ("dark", darks)):
        tifffile.imwrite(tmp_path / f"{frame}.tif", np.rot90(picture, -1))
    path = tmp_path / name
    if name == "pictures":
        path.mkdir()
        for number, picture in enumerate(lying):
            tifffile.imwrite(path / f"view_{number:03}.tif", picture)
    elif name == "stack.tif":
        tifffile.imwrite(path, lying)
    elif name == "stack.npy":
        np.save(path, lying)
    elif name == "stack.mat":
        scipy.io.savemat(path, {"sino": lying.transpose(1, 2, 0)})
    elif name == "stack.mrc":
        header = np.zeros(256, np.int32)
        header[:4], header[52:54] = (12, 64, 40, 2), np.frombuffer(b"MAP \x44\x44\x00\x00", np.int32)
        path.write_bytes(header.tobytes() + np.ascontiguousarray(lying).tobytes())
    else:
        with h5py.File(path, "w") as file:
            file["sino"] = lying
    (tmp_path / "lying.yaml").write_text(text + "transpose: true\n")
    found = read_volume(path, geometry=tmp_path / "lying.yaml")
    np.save(tmp_path / "upright.npy", counts)
    for frame, picture in (("flat", flats), ("dark", darks)):
        tifffile.imwrite(tmp_path / f"{frame}.tif", picture)
    (tmp_path / "upright.yaml").write_text(text.replace("data: sino\n", ""))
    expected = read_volume(tmp_path / "upright.npy", geometry=tmp_path / "upright.yaml")
    np.testing.assert_allclose(found.projections, expected.projections, rtol=1e-4, atol=1e-5)
    assert any("lie on their side" in text for text in found.warnings)


def test_what_rows_tell_with_other_numbers_is_told_once(tmp_path):
    values = a_disc_in_some_rows(slice(0, 12), axis=31.5, noise=0.002) + np.linspace(0.1, 0.3, 12)[:, None].astype(np.float32)
    np.save(tmp_path / "stack.npy", values)
    text = "kind: parallel\npixel: 1\naxis_column: 31.5\nangles: {first: 0, step: 4.5, count: 40}\nvalues: log\n"
    (tmp_path / "stack.yaml").write_text(text + "air: edges\n")
    told = [text for text in read_volume(tmp_path / "stack.npy").warnings if "Air is taken from" in text]
    assert len(told) == 1 and not told[0].startswith("In row")
    loud = values.copy()
    loud[5, 2:5, 7] = 80.0
    np.save(tmp_path / "stack.npy", loud)
    rows = [text for text in read_volume(tmp_path / "stack.npy").warnings if text.startswith("In row")]
    assert len(rows) == 1 and "In row 2 (and, with other numbers, 2 more): " in rows[0]


@pytest.mark.parametrize(("axis", "order"), [(0, "angle, row, column"), (2, "row, column, angle")])
def test_a_stack_of_matlab_has_its_views_where_as_many_angles_are(tmp_path, axis, order):
    values = a_disc_in_some_rows(slice(0, 12), axis=31.5, noise=0.0)
    angles = np.linspace(0, 180, 40, endpoint=False)
    scipy.io.savemat(tmp_path / "stack.mat", {"scan": {"views": np.moveaxis(values, 0, axis), "tilt_deg": angles}})
    (tmp_path / "stack.yaml").write_text("data: scan.views\nangles: scan.tilt_deg\npixel: 1\nkind: parallel\nvalues: log\n")
    scan = read_volume(tmp_path / "stack.mat")
    np.testing.assert_allclose(scan.projections, values.transpose(1, 0, 2)[::-1], atol=1e-6)
    assert any(f"read as ({order})" in text for text in scan.warnings)


def a_disc_in_some_rows(rows, axis, noise, views=40, columns=64):
    """Line integrals (angle, row, column) of a disc beside the axis, in these rows of 12; air elsewhere."""
    angles = np.linspace(0, np.pi, views, endpoint=False)
    u = np.arange(columns) - axis - (9 * np.cos(angles) - 5 * np.sin(angles))[:, None]
    values = noise * np.random.default_rng(0).normal(size=(views, 12, columns))
    values[:, rows] += 0.1 * np.sqrt(np.maximum(7.0**2 - u**2, 0))[:, None]
    return values.astype(np.float32)


@pytest.mark.parametrize("rows", [slice(0, 3), slice(9, 12)])
def test_an_object_that_the_middle_row_does_not_see_tells_the_axis_by_its_own_rows(tmp_path, rows):
    tifffile.imwrite(tmp_path / "scan.tif", a_disc_in_some_rows(rows, axis=36.3, noise=0.01))
    geometry = "kind: parallel\npixel: 1\nangles: {first: 0, step: 4.5, count: 40}\nstack: projections\naxis_column: search\n"
    (tmp_path / "scan.yaml").write_text(geometry)
    scan = read_volume(tmp_path / "scan.tif")
    assert axis_column(scan.geometry.plane) == pytest.approx(36.3, abs=0.3)
    assert any("tells the rotation axis" in text for text in scan.warnings)
    assert not any("only air: another" in text for text in scan.warnings)


def test_a_single_row_and_several_files_are_refused(tmp_path):
    np.savez(tmp_path / "one.npz", projections=VALUES[0], angles=np.rad2deg(ANGLES), pixel=0.5)
    with pytest.raises(InputError, match="row"):
        read_volume(tmp_path / "one.npz", geometry=None)
    with pytest.raises(InputError, match="2 were given"):
        read_volume([tmp_path / "one.npz", tmp_path / "one.npz"])


def test_a_damaged_volume_scan_is_named(tmp_path):
    path = tmp_path / "scan.h5"
    write_volume_scan(volume_scan(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"scan\.h5"):
        read_volume(path)


def stored(tmp_path, projections, values="log", flat=None):
    """A stack of pictures of parallel rays, rows from above, of projections (row, angle, column) from below."""
    if values == "counts":
        projections = np.round(40000 * np.exp(-projections)) if flat is None else projections
    tifffile.imwrite(tmp_path / "stack.tif", np.ascontiguousarray(projections[::-1].swapaxes(0, 1), np.float32))
    text = (
        f"kind: parallel\nvalues: {values}\nangles: {{first: 0, step: 15, count: 12}}\npixel: 2.0\nstack: projections\n"
        "axis_column: 8.5\n"
    )
    (tmp_path / "stack.yaml").write_text(text + ("flat: 40000\n" if values == "counts" else ""))
    return tmp_path / "stack.tif"


@pytest.fixture(scope="module")
def ball():
    """A ball of radius 8 mm between rows of air."""
    heights, columns = 2.0 * (np.arange(14) - 6.5)[:, None, None], 2.0 * (np.arange(18) - 8.5)
    angles = np.deg2rad(np.arange(12) * 15.0)[:, None]
    beside = columns - (2 * np.cos(angles) + 3 * np.sin(angles))
    return 0.1 * np.sqrt(np.maximum(64 - beside**2 - heights**2, 0))


@pytest.mark.parametrize("air", [0.0, -0.02], ids=["exactly 0", "a little below"])
def test_rows_that_see_nothing_but_air_are_rows_of_a_volume(tmp_path, ball, air):
    scan = read_volume(stored(tmp_path, ball + air))
    np.testing.assert_allclose(scan.projections, ball + air, atol=1e-6)
    assert (scan.weights is None or (scan.weights > 0).mean() > 0.98) and not any("air" in text for text in scan.warnings)
    with pytest.raises(InputError, match="cannot be negative"):
        read_volume(stored(tmp_path, -ball))
    with pytest.raises(InputError, match="All 3024 line integrals are 0"):
        read_volume(stored(tmp_path, 0 * ball))


@pytest.mark.parametrize("kind", ["log", "counts"])
@pytest.mark.parametrize("value", [np.nan, 0.0, -3.0], ids=["nan", "zero", "saturated"])
def test_a_dead_row_is_filled_in_and_counts_for_nothing(tmp_path, ball, kind, value):
    values, dead = ball.copy(), [4, 7]  # the second is the middle one
    if kind == "counts":
        values, value = 40000 * np.exp(-values), {0.0: 0.0, -3.0: 65535.0}.get(value, value)
    values[dead] = value
    scan = read_volume(stored(tmp_path, values, kind, flat=1))
    assert np.flatnonzero(scan.weights.max(axis=(1, 2)) == 0).tolist() == dead
    live = np.setdiff1d(np.arange(14), dead)
    np.testing.assert_allclose(scan.projections[live], ball[live], atol=1e-3)
    np.testing.assert_allclose(scan.projections[dead], (ball[[3, 6]] + ball[[5, 8]]) / 2, atol=1e-3)
    told = [text for text in scan.warnings if "2 of 14 detector rows" in text]
    assert len(told) == 1 and "first number 9 as stored" in told[0]


def test_where_many_rows_are_dead_the_scan_is_refused(tmp_path, ball):
    values = ball.copy()
    values[3:9] = np.nan
    with pytest.raises(InputError, match="nothing but NaN"):
        read_volume(stored(tmp_path, values))
