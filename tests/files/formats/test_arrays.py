import json

import numpy as np
import pytest
import scipy.sparse as sp

from ctuq.errors import InputError
from ctuq.files import describe, read
from ctuq.files.formats.arrays import system_matrix
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import glyph
from ctuq.tomo.rays.entries import build_matrix


@pytest.mark.parametrize("angles", ["angles", "angles_deg"])
def test_plain_arrays_with_their_geometry(tmp_path, counted, angles):
    beam = counted.geometry
    values = beam.angles if angles == "angles" else np.rad2deg(beam.angles)
    np.savez(
        tmp_path / "a.npz",
        sinogram=counted.projections,
        kind="parallel",
        pixel=0.5,
        weights=counted.weights,
        truth=counted.truth,
        voxel=0.5,
        **{angles: values},
    )
    scan = read(tmp_path / "a.npz")
    assert np.allclose(scan.geometry.angles, beam.angles) and scan.geometry.pixel == 0.5
    assert np.allclose(scan.projections, counted.projections) and np.allclose(scan.weights, counted.weights, rtol=1e-5)
    assert np.array_equal(scan.truth, counted.truth) and scan.grid == VolumeGrid((32, 32), 0.5)


def _problem(path, dense=False, wrong=False):
    grid = VolumeGrid((20, 20), 1.0)
    beam = ParallelBeam(angles=np.arange(12) * np.pi / 12 - np.pi / 2, columns=29, pixel=np.hypot(20, 20) / 29)
    matrix = sp.csr_array(build_matrix(grid, beam) * (2.0 if wrong else 1.0))
    image = glyph(20, np.random.default_rng(0))
    sinogram = (matrix @ image.ravel()).reshape(12, 29)
    parts = (
        {"A": matrix.toarray()}
        if dense
        else {"A_data": matrix.data, "A_indices": matrix.indices, "A_indptr": matrix.indptr, "A_shape": matrix.shape}
    )
    names = {"sino": sinogram} if dense else {"sinogram": sinogram}
    np.savez(path, image=image, angles=np.arange(12) * np.pi / 12, noise_std=0.1, settings=json.dumps({}), **parts, **names)
    return path, beam, matrix, image


@pytest.mark.parametrize("dense", [False, True])
def test_a_problem_file_gives_scan_truth_and_matrix(tmp_path, dense):
    path, beam, matrix, image = _problem(tmp_path / "a.npz", dense)
    scan = read(path)
    assert np.allclose(scan.geometry.vectors(), beam.vectors()) and np.array_equal(scan.truth, image)
    assert np.allclose(scan.projections, (matrix @ image.ravel()).reshape(12, 29), atol=1e-5)
    assert abs(system_matrix(path) - matrix).max() < 1e-6
    assert "geometry is inferred" in describe(path)[0].warnings[0]


def test_a_problem_with_another_geometry_is_refused(tmp_path):
    path = _problem(tmp_path / "a.npz", wrong=True)[0]
    with pytest.raises(InputError, match="differ by 50%"):
        read(path)


def test_a_file_without_a_matrix_says_so(tmp_path):
    np.savez(tmp_path / "a.npz", sinogram=np.ones((2, 3)))
    with pytest.raises(InputError, match="no whole system matrix"):
        system_matrix(tmp_path / "a.npz")


def test_pickles_are_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    np.savez(tmp_path / "a.npz", sinogram=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="Python objects, which are never read"):
        read(tmp_path / "a.npz")


def test_degrees_for_radians_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", sinogram=np.ones((30, 8)), angles=np.arange(30) * 6.0, kind="parallel", pixel=1.0)
    with pytest.raises(InputError, match="look like degrees"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.ones(3)}, "holds x; a 'sinogram'"),
        ({"sinogram": np.ones((3, 8))}, "does not say its kind, angles, pixel"),
        ({"sinogram": np.ones((3, 8)), "kind": "cone"}, "'kind'"),
        ({"sinogram": np.ones((3, 8)), "truth": np.ones((4, 4))}, "voxel"),
        ({"sinogram": np.ones(8), "kind": "parallel", "angles": [0.0], "pixel": 1.0}, "shape"),
        ({"sinogram": np.full((2, 8), np.nan), "kind": "parallel", "angles": [0.0, 1.0], "pixel": 1.0}, "nothing but NaN"),
        ({"sinogram": np.ones((2, 8)), "kind": "parallel", "angles": [0.0, np.nan], "pixel": 1.0}, "not finite"),
        ({"sinogram": np.ones((2, 8)), "kind": "parallel", "angles": [0.0, 1.0], "pixel": -1.0}, "'pixel'.* positive"),
        ({"sinogram": np.ones((0, 8)), "kind": "parallel", "angles": [], "pixel": 1.0}, "shape"),
        ({"sinogram": np.ones((2, 8), complex), "kind": "parallel", "angles": [0.0, 1.0], "pixel": 1.0}, "numbers"),
        ({"sinogram": np.array([["a", "b"]]), "kind": "parallel", "angles": [0.0], "pixel": 1.0}, "numbers"),
        ({"sinogram": np.ones((2, 8)), "kind": "parallel", "angles": [0.0, 1.0], "pixel": "wide"}, "'pixel'"),
        (
            {"sinogram": np.ones((2, 8)), "kind": "parallel", "angles": [0.0, 1.0], "pixel": 1.0, "weights": np.ones((2, 7))},
            "weights",
        ),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "a.npz")


def test_damaged_and_unknown_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", sinogram=np.random.default_rng(0).normal(size=(20, 30)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:1000])
    (tmp_path / "empty.npz").touch()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.h5").write_bytes(b"not hdf5")
    for name, words in (
        ("a.npz", "whole as a NumPy file"),
        ("empty.npz", "is empty"),
        ("notes.txt", "of no type that ctuq reads"),
        ("broken.h5", "not a whole HDF5"),
        ("none.npz", "no file"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["sinogram", "projections", "npy"])
def test_a_stack_of_sinograms_is_read_as_it_is_told_and_asked_about_where_it_may_be_either(tmp_path, name):
    stack = np.random.default_rng(0).uniform(0, 1, (5, 7, 16))
    path = tmp_path / ("a.npy" if name == "npy" else "a.npz")
    text = "kind: parallel\npixel: 1\nvalues: log\naxis_column: 7.5\nrow: 1\n"

    def saved(values, more):
        np.save(path, values) if name == "npy" else np.savez(path, **{name: values})
        path.with_suffix(".yaml").write_text(text + more)
        return path

    seven = "angles: {first: 0, step: 20, count: 7}\n"
    scan = read(saved(stack, seven + "stack: sinograms\n"))
    assert np.allclose(scan.projections, stack[1], rtol=1e-6)
    square = np.concatenate([stack, stack[:2]])
    if name == "projections":  # as its name says
        assert np.allclose(read(saved(square, seven)).projections, square[:, 1], rtol=1e-6)
        return
    with pytest.raises(InputError, match="stack: sinograms"):
        read(saved(stack, seven))
    with pytest.raises(InputError, match="stack: sinograms"):
        read(saved(square, seven))
    assert np.allclose(read(saved(square, seven + "stack: projections\n")).projections, square[:, 1], rtol=1e-6)


def test_an_array_whose_name_is_damaged_is_not_left_out_without_a_word(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(
        path,
        sinogram=np.ones((3, 4)),
        angles_deg=np.arange(3),
        kind="parallel",
        pixel=0.5,
        values="log",
        weights=np.ones((3, 4)),
    )
    content = bytearray(path.read_bytes())
    content[content.rindex(b"weights.npy")] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz"):
        read(path)
