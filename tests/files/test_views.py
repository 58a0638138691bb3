"""New views for a design and a scan to reconstruct are read in one way, whatever the file."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from skimage.io import imsave

from ctuq.errors import InputError
from ctuq.files import describe, read, write_scan
from ctuq.files.sidecar import read_sidecar, treated, treatment
from ctuq.files.views import new_views
from ctuq.tomo.geometry import FanBeam, ParallelBeam
from ctuq.tomo.scan import Scan
from experiments.fuzz import probe
from experiments.fuzz.seeds import FORMATS

VIEWS, COLUMNS, DARK, BEAM = 15, 40, 50.0, 4000.0
DEGREES = np.arange(VIEWS) * 12.0
SCANNER = "kind: parallel\npixel: 0.5\naxis_column: 19.5\n"
COUNTS = f"values: counts\nflat: {BEAM + DARK:g}\ndark: {DARK:g}\n"
ANGLES = "angles: {first: 0, step: 12, count: 15}\n"


def clean():
    """Line integrals (angle, column) of a disc off the axis, with noise."""
    across, turned = np.linspace(-1, 1, COLUMNS), np.deg2rad(DEGREES)[:, None]
    chord = np.sqrt(np.maximum(0, 0.5 - (across - 0.3 * np.cos(turned)) ** 2))
    return chord + 0.005 * np.random.default_rng(0).standard_normal(chord.shape)


def spoiled():
    """Counts with a zinger, a starved ray, a dead column and a stuck one."""
    counts = np.round(DARK + BEAM * np.exp(-clean()))
    counts[4, 20], counts[7, 9] = 40000, DARK - 1
    counts[:, 31], counts[:, 5] = DARK, 900
    return counts


def stack(counts):
    """Three detector rows, with the counts in the middle one."""
    return np.stack([np.full_like(counts, BEAM + DARK), counts, np.full_like(counts, BEAM + DARK)], 1)


def frames(level, count=5):
    return np.full((count, 3, COLUMNS), level)


def dxchange(folder):
    flats = frames(BEAM + DARK)
    flats[2, 1, 12] = 60000
    with h5py.File(folder / "a.h5", "w") as file:
        group = file.create_group("exchange")
        group["data"], group["data_white"], group["data_dark"] = stack(spoiled()), flats, frames(DARK)
        group["theta"] = DEGREES
    return folder / "a.h5"


def nxtomo(folder):
    with h5py.File(folder / "a.nx", "w") as file:
        entry = file.create_group("entry")
        entry["definition"], entry["sample/rotation_angle"] = "NXtomo", np.r_[np.zeros(10), DEGREES]
        entry["instrument/detector/data"] = np.concatenate([frames(DARK), frames(BEAM + DARK), stack(spoiled())])
        entry["instrument/detector/image_key"] = np.r_[np.full(5, 2), np.full(5, 1), np.zeros(VIEWS, int)]
        entry["instrument/detector/x_pixel_size"] = 5e-4
    return folder / "a.nx"


def tiff(folder, values=None):
    tifffile.imwrite(folder / "a.tif", (spoiled() if values is None else values).astype(np.float32))
    return folder / "a.tif"


def png(folder):
    imsave(folder / "a.png", spoiled().astype(np.uint16), check_contrast=False)
    return folder / "a.png"


def pictures(folder):
    (folder / "scan").mkdir()
    for number, picture in enumerate(stack(spoiled())):
        tifffile.imwrite(folder / "scan" / f"view{number}.tif", picture.astype(np.float32))
    return folder / "scan"


def mrc(folder):
    values = spoiled().astype("<f4")[:, None]
    header = np.zeros(256, "<i4")
    header[:4] = *values.shape[::-1], 2
    (folder / "a.mrc").write_bytes(header.tobytes() + values.tobytes())
    return folder / "a.mrc"


def npz(folder, rays=None, **entries):
    np.savez(folder / "a.npz", sinogram=spoiled() if rays is None else rays, angles_deg=DEGREES, **entries)
    return folder / "a.npz"


def fips(folder):
    scipy.io.savemat(folder / "a.mat", {"sinogram": lost().T})
    return folder / "a.mat"


def htc(folder):
    given = {"angles": DEGREES, "distanceSourceOrigin": 410.66, "distanceSourceDetector": 553.74, "pixelSize": 0.2}
    scipy.io.savemat(folder / "a.mat", {"CtDataFull": {"sinogram": lost(), "parameters": given}})
    return folder / "a.mat"


def own(folder):
    weights = np.linspace(1, 2, VIEWS * COLUMNS).reshape(VIEWS, COLUMNS)
    write_scan(Scan(clean(), ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=0.5), weights), folder / "a.h5")
    return folder / "a.h5"


def lost():
    """Line integrals with NaN and a hot column."""
    values = clean()
    values[3, 4] = np.nan
    values[:, 17] += 1
    return values


def weights():
    return np.random.default_rng(1).uniform(1, 3, (VIEWS, COLUMNS))


HTC = "kind: fan\npixel: 0.2\nsource_to_axis: 410.66\nsource_to_detector: 553.74\n"
KINDS = {
    "own HDF5": (own, "kind: parallel\npixel: 0.5\n", "weight"),
    "DXchange": (dxchange, SCANNER, "counts"),
    "NXtomo": (nxtomo, SCANNER, "counts"),
    "TIFF, counts": (tiff, SCANNER + COUNTS + ANGLES, "counts"),
    "TIFF, line integrals": (lambda folder: tiff(folder, lost()), SCANNER + ANGLES, "exposure"),
    "TIFF, reversed": (tiff, SCANNER + COUNTS + ANGLES + "reverse_columns: true\nclockwise: true\n", "counts"),
    "PNG": (png, SCANNER + COUNTS + ANGLES, "counts"),
    "folder": (pictures, SCANNER + COUNTS + ANGLES + "row: 1\n", "counts"),
    "MRC": (mrc, SCANNER + COUNTS + ANGLES, "counts"),
    "npz, counts": (npz, SCANNER + COUNTS, "counts"),
    "npz, transmission": (lambda f: npz(f, np.exp(-lost())), SCANNER + "values: transmission\n", "exposure"),
    "npz, weights": (lambda f: npz(f, lost(), weights=weights()), SCANNER, "weight"),
    "npz, weighted counts": (lambda f: npz(f, weights=weights()), SCANNER + COUNTS, "weight"),
    "FIPS .mat": (fips, SCANNER + ANGLES, "exposure"),
    "HTC .mat": (htc, HTC, "exposure"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_design_and_a_reconstruction_read_the_same_projections_and_weights(kind, tmp_path):
    make, text, unit = KINDS[kind]
    path, geometry = make(tmp_path), tmp_path / "scanner.yml"
    geometry.write_text(text)
    scan = read(path, geometry=None if kind in ("own HDF5", "HTC .mat") else geometry)
    sidecar = read_sidecar(geometry)
    scanner = replace(scan.geometry, angles=np.zeros(1))
    new = new_views([path], scanner, treatment(sidecar), angles=sidecar.fields.get("angles"))
    np.testing.assert_array_equal(new.angles, scan.geometry.angles)
    np.testing.assert_array_equal(new.projections, scan.projections)
    assert new.unit == unit
    assert (new.weights is None) == (scan.weights is None)
    if scan.weights is not None:
        np.testing.assert_allclose(
            new.weights / new.weights[new.weights > 0].mean(), scan.weights / scan.weights[scan.weights > 0].mean(), rtol=2e-6
        )
    if unit == "counts":
        columns, zinger = ([8, 34], (4, 19)) if "reversed" in kind else ([5, 31], (4, 20))
        assert np.all(new.weights[:, columns] == 0) and new.weights[zinger] == 0 and new.projections.min() > -0.1
        assert new.weights[new.weights > 0].mean() == pytest.approx(2600, rel=0.1)


SCANS = [name for name, kind in FORMATS.items() if kind.look is probe.scan]


@pytest.mark.parametrize("name", SCANS)
def test_a_sound_file_of_every_format_is_read_alike(name, tmp_path):
    path = tmp_path / FORMATS[name].make(tmp_path)
    scan = read(path)
    new = new_views([path], replace(scan.geometry, angles=np.zeros(1)), {})
    np.testing.assert_array_equal(new.angles, scan.geometry.angles)
    np.testing.assert_array_equal(new.projections, scan.projections)
    assert (new.weights is None) == (scan.weights is None)
    if scan.weights is not None:
        np.testing.assert_allclose(new.weights / new.weights.mean(), scan.weights / scan.weights.mean(), rtol=2e-6)


def test_the_count_of_a_zinger_does_not_weigh_on_its_neighbours(tmp_path):
    (tmp_path / "a.yaml").write_text(SCANNER + COUNTS + ANGLES)
    with_it = read(tiff(tmp_path)).weights
    values = spoiled()
    values[4, 20] = np.nan
    without = read(tiff(tmp_path, values)).weights
    np.testing.assert_array_equal(with_it, without)


def test_transmission_with_a_lost_ray_weighs_the_other_rays_as_before(tmp_path):
    (tmp_path / "a.yaml").write_text(SCANNER + ANGLES + "values: transmission\nflat: 7\n")
    scan = read(tiff(tmp_path, np.exp(-clean())))
    assert scan.weights is None
    np.testing.assert_allclose(scan.projections, clean(), atol=1e-6)
    scan = read(tiff(tmp_path, np.exp(-lost())))
    assert set(np.unique(scan.weights)) == {0, 1}


@pytest.mark.parametrize("told", ["", "pixel: 0.5\n"])
def test_a_file_that_leaves_its_pixel_out_takes_the_scanners(told, tmp_path):
    path = dxchange(tmp_path)
    known = FanBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5, source_to_axis=100.0, source_to_detector=200.0)
    (tmp_path / "a.yaml").write_text(told or "sample: nut\n")
    assert new_views([path], known, {}).unit == "counts"
    steps = read(path).provenance.steps
    assert any("no pixel size: 1 mm is taken" in step for step in steps) == (not told)


def test_a_file_beside_says_only_what_differs(tmp_path):
    known = ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5)
    (tmp_path / "scanner.yml").write_text(SCANNER + COUNTS + "clockwise: true\n")
    kept = treatment(read_sidecar(tmp_path / "scanner.yml"))
    assert treatment(treated(kept)) == kept
    path = tiff(tmp_path, 2 * BEAM * np.exp(-clean()) + DARK)
    (tmp_path / "a.yaml").write_text(ANGLES + f"flat: {2 * BEAM + DARK}\n")
    new = new_views([path], known, kept)
    np.testing.assert_allclose(new.angles, -np.deg2rad(DEGREES))
    np.testing.assert_allclose(new.projections, clean(), atol=1e-6)
    (tmp_path / "a.yaml").write_text(ANGLES + "values: log\nclockwise: false\n")
    new = new_views([tiff(tmp_path, clean())], known, kept)
    np.testing.assert_allclose(new.angles, np.deg2rad(DEGREES))
    assert new.weights is None and new.unit == "exposure"


def test_what_a_file_says_of_its_values_counts_more_than_the_scanners_habit(tmp_path):
    known, habit = ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5), {"values": "counts", "flat": 5000.0}
    path = npz(tmp_path, clean(), kind="parallel", pixel=0.5, values="log")
    np.testing.assert_allclose(new_views([path], known, habit).projections, clean(), atol=1e-6)
    path = dxchange(tmp_path)
    np.testing.assert_array_equal(new_views([path], known, habit).projections, read(path).projections)
    (tmp_path / "a.yaml").write_text("flat: 9000\ndark: 0\n")
    ratio = new_views([path], known, habit).projections.mean() - read(path, axis_column=19.5).projections.mean()
    assert ratio == pytest.approx(0, abs=1e-6)


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text(COUNTS + ANGLES)
    with pytest.raises(InputError, match=r"a\.tif': its counts go down to"):
        new_views([tiff(tmp_path, -spoiled())], ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5), {})


def test_files_with_and_without_a_bad_ray_are_told_together(tmp_path):
    known = ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5)
    parts = []
    for name, values, degrees in (("a", clean()[:2], [0, 12]), ("b", lost()[3:4], [36])):
        np.savez(tmp_path / f"{name}.npz", sinogram=values, angles_deg=degrees, kind="parallel", pixel=0.5)
        parts.append(tmp_path / f"{name}.npz")
    new = new_views(parts, known, {})
    assert new.unit == "exposure" and (new.weights == 0).sum() == 1 and new.weights[2, 4] == 0
    assert new_views(parts[:1], known, {}).weights is None


def test_weights_of_several_files_stay_in_proportion(tmp_path):
    parts = []
    for name, weight in (("a", 10.0), ("b", 40.0)):
        np.savez(tmp_path / f"{name}.npz", sinogram=clean(), angles_deg=DEGREES, weights=np.full((VIEWS, COLUMNS), weight))
        parts.append(tmp_path / f"{name}.npz")
    new = new_views(parts, ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5), {})
    assert new.unit == "weight"
    np.testing.assert_allclose(new.weights[[0, -1], 0], [0.4, 1.6], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, DARK])
def test_a_view_without_a_ray_that_counts_is_refused_by_its_angle(value, tmp_path):
    (tmp_path / "a.yaml").write_text(COUNTS + ANGLES)
    values = spoiled()
    values[2] = value
    with pytest.raises(InputError, match="no ray that counts at 24°"):
        new_views([tiff(tmp_path, values)], ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5), {})


def test_a_scan_of_ours_needs_nothing_that_lies_beside_it(tmp_path):
    path, known = own(tmp_path), ParallelBeam(angles=np.zeros(1), columns=COLUMNS, pixel=0.5)
    (tmp_path / "a.yaml").write_text("notes: none of a geometry file's keys\n")
    scan, kept = read(path), {"values": "counts", "flat": 3.0}
    np.testing.assert_array_equal(new_views([path], known, kept).projections, scan.projections)
    assert describe(path)[0].missing == ()
    turned = new_views([path], known, kept, angles=scan.geometry.angles[::-1])
    np.testing.assert_array_equal(turned.projections, scan.projections)
    np.testing.assert_array_equal(turned.angles, scan.geometry.angles[::-1])
