"""Flats and darks out of other programs' arrays, and an open beam of each view."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import yaml

from ctuq import files
from ctuq.errors import InputError

VIEWS, COLUMNS = 24, 30


def counts(beams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts behind a disc in these open beams, and its line integrals."""
    chords = np.sqrt(np.maximum(1 - (np.linspace(-1.4, 1.4, COLUMNS)) ** 2, 0))
    line_integrals = np.broadcast_to(2 * chords, (VIEWS, COLUMNS))
    return np.round(beams * np.exp(-line_integrals) + 10), line_integrals


def read(folder: Path, **more):
    """The scan of the folder's counts."""
    told = {"kind": "parallel", "angles": {"first": 0, "step": 7.5, "count": VIEWS}, "pixel": 1, "values": "counts", "dark": 10}
    (folder / "geometry.yaml").write_text(yaml.safe_dump(told | more))
    return files.read(folder / "counts.npy", geometry=folder / "geometry.yaml")


def saved(folder: Path, values: np.ndarray) -> dict[str, str]:
    """The same array by several programs, by what a geometry file says of it."""
    np.save(folder / "flat.npy", values)
    np.savez(folder / "flat.npz", flat=values, other=np.zeros(3))
    scipy.io.savemat(folder / "flat.mat", {"flat": values.T, "other": np.zeros((2, 2))})
    with h5py.File(folder / "flat.h5", "w") as file:
        file["entry/flats"], file["entry/other"] = values, np.zeros(3)
    return {"npy": "flat.npy", "npz": "flat.npz:flat", "mat": "flat.mat:flat", "h5": "flat.h5:entry/flats"}


@pytest.mark.parametrize("program", ["npy", "npz", "mat", "h5"])
def test_flats_are_read_from_arrays(tmp_path, program):
    flats = np.random.default_rng(0).poisson(5e4, (5, COLUMNS)).astype(float)
    values, line_integrals = counts(flats.mean(0) - 10)
    np.save(tmp_path / "counts.npy", values)
    scan = read(tmp_path, flat=saved(tmp_path, flats)[program])
    np.testing.assert_allclose(scan.projections, line_integrals, atol=5e-3)


def test_flats_of_one_row_may_name_it(tmp_path):
    flats = np.random.default_rng(0).poisson(5e4, (8, 1, COLUMNS)).astype(float)
    values, line_integrals = counts(flats.mean((0, 1)) - 10)
    np.save(tmp_path / "counts.npy", values)
    np.save(tmp_path / "flat.npy", flats)
    np.testing.assert_allclose(read(tmp_path, flat="flat.npy").projections, line_integrals, atol=5e-3)


@pytest.mark.parametrize("program", ["npy", "mat"])
def test_each_view_has_its_own_open_beam(tmp_path, program):
    beams = np.random.default_rng(0).uniform(2e4, 8e4, (VIEWS, COLUMNS))
    values, line_integrals = counts(beams - 10)
    np.save(tmp_path / "counts.npy", values)
    place = saved(tmp_path, beams)[program]
    scan = read(tmp_path, flat_of_views=place)
    np.testing.assert_allclose(scan.projections, line_integrals, atol=5e-3)
    shared = read(tmp_path, flat=place)
    assert np.abs(shared.projections - line_integrals).max() > 0.3
    assert any("as many as views" in text for text in shared.warnings)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"flat": "flat.npz"}, "FILE:NAME"),
        ({"flat": "flat.npz:nothing"}, "no array 'nothing'"),
        ({"flat": "missing.npy"}, "does not exist"),
        ({"flat": "wide.npy"}, "detector columns"),
        ({"flat_of_views": "few.npy"}, "has 5 frames, and the scan 24 views"),
        ({"flat_of_views": "flat.npy", "flat": 5e4}, "leave one out"),
        ({"flat": "text.npy"}, "real numbers"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, more, told):
    beams = np.full((VIEWS, COLUMNS), 5e4)
    np.save(tmp_path / "counts.npy", counts(beams)[0])
    saved(tmp_path, beams)
    np.save(tmp_path / "wide.npy", np.ones((3, COLUMNS + 1)))
    np.save(tmp_path / "few.npy", np.ones((5, COLUMNS)))
    np.save(tmp_path / "text.npy", np.array(["a"] * COLUMNS))
    with pytest.raises(InputError, match=told):
        read(tmp_path, **more)


@pytest.mark.parametrize("lying", [False, True])
def test_flats_of_a_stack_are_arrays_of_its_pictures(tmp_path, lying):
    beams = np.random.default_rng(0).uniform(4e4, 6e4, (3, COLUMNS))
    values, line_integrals = counts(beams[1] - 10)
    stack = np.stack([values + 1000 * row for row in (-1, 0, 1)], axis=1)
    flat = np.stack([beams, beams])

    def stored(pictures: np.ndarray) -> np.ndarray:
        return np.flip(pictures.swapaxes(1, 2), axis=2) if lying else pictures

    np.save(tmp_path / "counts.npy", stored(stack))
    np.save(tmp_path / "flat.npy", stored(flat))
    np.save(tmp_path / "rows.npy", np.ones((5, COLUMNS)))
    more = {"stack": "projections", "row": 1} | ({"transpose": True} if lying else {})
    np.testing.assert_allclose(read(tmp_path, flat="flat.npy", **more).projections, line_integrals, atol=5e-3)
    with pytest.raises(InputError, match=r"arrays of \(frame, row, column\)"):
        read(tmp_path, flat="rows.npy", **more)


def test_an_image_to_calibrate_may_be_matlabs(tmp_path):
    from ctuq.files.formats.anyarray import read_array

    scipy.io.savemat(tmp_path / "image.mat", {"image": np.arange(6.0).reshape(2, 3), "note": "text"})
    np.testing.assert_array_equal(read_array(tmp_path / "image.mat", "an image"), np.arange(6.0).reshape(2, 3))
