import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from ctuq.errors import BackendError, GeometryError, InputError, ResourceError
from ctuq.linops import sparse
from ctuq.linops.sparse import SparseMatrix
from ctuq.tomo import (
    FanBeam,
    ParallelBeam,
    VolumeGrid,
    adjoint_mismatch,
    radians,
    ray_transform,
)
from ctuq.tomo.coverage import detector_columns
from ctuq.tomo.rays import backends, cache, entries
from ctuq.tomo.rays.matrix import MatrixRayTransform
from ctuq.tomo.rays.transform import require_exact_transpose

GRID = VolumeGrid((16, 20), 0.5, (0.3, -0.2))
ANGLES = radians(np.arange(5, 365, 40))
OFFSETS = dict(detector_offset=0.7, axis_offset=-0.4)
PARALLEL = ParallelBeam(angles=ANGLES, columns=30, pixel=0.5, **OFFSETS)
FAN = FanBeam(angles=ANGLES, columns=30, pixel=1.0, source_to_axis=40.0, source_to_detector=80.0, **OFFSETS)
both = pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])


def disc(grid, centre, radius, finer=16):
    left, right, bottom, top = grid.extent
    x = np.linspace(left, right, grid.shape[1] * finer, endpoint=False) + grid.voxel / finer / 2
    y = np.linspace(top, bottom, grid.shape[0] * finer, endpoint=False) - grid.voxel / finer / 2
    inside = (x[None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 <= radius**2
    image = inside.reshape(grid.shape[0], finer, grid.shape[1], finer).mean((1, 3))
    return torch.from_numpy(image).float()


def chords(geometry, centre, radius, finer=32):
    """Mean over each pixel of the lengths of rays in a disc, from the scanner turned back to angle 0."""
    places = (np.arange(geometry.columns * finer) + 0.5) / finer - geometry.columns / 2
    u = places * geometry.pixel + geometry.detector_offset
    middle = np.exp(-1j * geometry.angles)[:, None] * complex(*centre) + geometry.axis_offset
    if isinstance(geometry, FanBeam):
        slope = u / geometry.source_to_detector
        distance = (middle.real - slope * (geometry.source_to_axis + middle.imag)) / np.hypot(1, slope)
    else:
        distance = middle.real - u
    lengths = 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0))
    return lengths.reshape(*geometry.shape, finer).mean(2)


@pytest.mark.parametrize("pixel", [0.5, 1.0, 2.0])
@both
def test_projections_of_a_disc_are_its_mean_chords_over_each_pixel(geometry, pixel):
    grid = VolumeGrid((64, 64), 0.5, (1.0, -2.0))
    columns = int(60 / pixel)
    magnified = pixel * geometry.magnification / 2
    geometry = type(geometry)(**{**vars(geometry), "columns": columns, "pixel": magnified})
    image = disc(grid, (3.1, -4.2), 9.3)
    expected = chords(geometry, (3.1, -4.2), 9.3)
    found = ray_transform(grid, geometry)(image).numpy()
    assert np.linalg.norm(found - expected) < 0.012 * np.linalg.norm(expected)


@both
def test_averaging_rays_brings_a_wide_pixel_nearer_to_its_mean_chords(geometry, monkeypatch):
    grid = VolumeGrid((64, 64), 0.5)
    wide = geometry.binned(2)
    image, expected = disc(grid, (1.1, -2.2), 4.3), chords(wide, (1.1, -2.2), 4.3)
    averaged = np.linalg.norm(ray_transform(grid, wide)(image).numpy() - expected)
    monkeypatch.setattr(entries, "rays_per_pixel", lambda *_: 1)
    single = np.linalg.norm(ray_transform(grid, wide)(image).numpy() - expected)
    assert averaged < 0.8 * single


@pytest.mark.parametrize("width", [1.2, 1.4])
def test_one_parallel_ray_is_nearer_to_a_pixel_little_wider_than_one_of_the_image_than_two(width, monkeypatch):
    grid = VolumeGrid((64, 64), 0.5)
    geometry = ParallelBeam(angles=ANGLES, columns=int(60 / width), pixel=width * grid.voxel)
    image, expected = disc(grid, (1.1, -2.2), 4.3), chords(geometry, (1.1, -2.2), 4.3)
    single = np.linalg.norm(ray_transform(grid, geometry)(image).numpy() - expected)
    monkeypatch.setattr(entries, "rays_per_pixel", lambda *_: 2)
    assert single < 0.85 * np.linalg.norm(ray_transform(grid, geometry)(image).numpy() - expected)


@both
def test_a_single_pixel_casts_its_shadow_where_its_centre_is(geometry):
    """Pins angle direction, detector and axis offset, row order and grid centre in one go."""
    A = ray_transform(GRID, geometry)
    left, _, _, top = GRID.extent
    for row, column in [(2, 3), (12, 17), (7, 1)]:
        image = torch.zeros(GRID.shape)
        image[row, column] = 1
        sinogram = A(image).numpy()
        found = (sinogram * np.arange(geometry.columns)).sum(1) / sinogram.sum(1)
        centre = np.array([(left + (column + 0.5) * GRID.voxel, top - (row + 0.5) * GRID.voxel)])
        np.testing.assert_allclose(found, detector_columns(geometry, centre)[:, 0], atol=0.3)


@both
def test_binning_the_geometry_averages_the_fine_projections(geometry):
    coarse_rays = ray_transform(GRID, geometry.binned(2)).matrix.toarray()
    fine = ray_transform(GRID, geometry).matrix.toarray().reshape(len(ANGLES), -1, 2, GRID.size).mean(2)
    np.testing.assert_allclose(coarse_rays, fine.reshape(-1, GRID.size), atol=2e-6)


@both
def test_cropping_the_geometry_keeps_rows(geometry):
    whole = ray_transform(GRID, geometry).matrix.toarray().reshape(*geometry.shape, -1)
    part = ray_transform(GRID, geometry.cropped(4, 25)).matrix.toarray()
    np.testing.assert_allclose(part, whole[:, 4:25].reshape(-1, GRID.size), atol=2e-5)


@both
def test_a_subset_of_views_is_the_transform_of_the_subset_of_angles(geometry):
    part = ray_transform(GRID, geometry).subset([4, 0, 4])
    assert part.geometry == geometry.subset([4, 0, 4])
    built = ray_transform(GRID, geometry.subset([4, 0, 4]))
    np.testing.assert_allclose(part.matrix.toarray(), built.matrix.toarray(), atol=1e-6)


@both
def test_blocks_of_views_build_the_same_matrix(geometry, monkeypatch):
    whole = entries.build_matrix(GRID, geometry)
    monkeypatch.setattr(entries, "_BLOCK_BYTES", 1)
    assert (entries.build_matrix(GRID, geometry) != whole).nnz == 0


@both
def test_back_projection_is_the_exact_transpose(geometry, rng):
    A = ray_transform(GRID, geometry)
    assert adjoint_mismatch(A, rng=rng) <= 1e-6
    require_exact_transpose(A)
    np.testing.assert_array_equal(A.T.dense().numpy(), A.dense().T.numpy())


def test_a_transform_with_another_back_projection_is_refused_with_the_mismatch(rng):
    class Unmatched(MatrixRayTransform):
        def _apply_transpose(self, y):
            return super()._apply_transpose(y).roll(1, -1)

    built = ray_transform(GRID, PARALLEL)
    A = Unmatched(built.matrix, GRID, PARALLEL)
    assert adjoint_mismatch(A, rng=rng) > 1e-3
    with pytest.raises(BackendError, match=r"measured mismatch \d\.\de-0\d"):
        require_exact_transpose(A)


@pytest.mark.parametrize("count", [1, 2, 19, 20, 40])
@pytest.mark.parametrize("tiled_from", [1, 1000])
def test_every_kernel_gives_the_matrix_product(count, tiled_from, rng, monkeypatch):
    monkeypatch.setattr(sparse, "_TILED_FROM", tiled_from)
    dense = np.where(np.random.default_rng(0).random((30, 110)) < 0.2, 1.5, 0).astype(np.float32)
    dense[7] = 0
    x = torch.randn(count, 110, generator=rng)
    product = SparseMatrix(sp.csr_array(dense), (10, 11), torch.device("cpu"))(x)
    np.testing.assert_allclose(product.numpy(), x.numpy() @ dense.T, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (3,), (2, 12), (0,)])
def test_batch_axes_stand_in_front(batch, rng):
    A = ray_transform(GRID, PARALLEL)
    x = A.domain.randn(*batch, rng=rng)
    assert A(x).shape == (*batch, *PARALLEL.shape)
    expected = x.reshape(*batch, GRID.size).numpy() @ A.matrix.toarray().T
    np.testing.assert_allclose(A(x).reshape(*batch, PARALLEL.columns * len(ANGLES)).numpy(), expected, atol=1e-4)


def test_products_are_differentiable_twice_and_under_torch_func(rng):
    A = ray_transform(VolumeGrid((6, 7), 1.0), PARALLEL.subset([0, 3]))
    x, v = A.domain.randn(rng=rng), A.domain.randn(rng=rng)
    dense, flat = A.dense(), x.flatten()

    def misfit(image):
        return A(image).square().sum() / 2

    gradient = (dense.T @ (dense @ flat)).reshape(6, 7)
    torch.testing.assert_close(torch.func.grad(misfit)(x), gradient)
    torch.testing.assert_close(torch.func.jvp(A, (x,), (v,))[1], A(v))
    torch.testing.assert_close(torch.func.vjp(A, x)[1](A(v))[0], A.T(A(v)))
    torch.testing.assert_close(torch.func.jacrev(A)(x).reshape(dense.shape), dense)
    torch.testing.assert_close(torch.func.jacfwd(A)(x).reshape(dense.shape), dense)
    torch.testing.assert_close(torch.func.hessian(misfit)(x).reshape(42, 42), dense.T @ dense)
    batch = A.domain.randn(25, rng=rng)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(misfit))(batch), A.T(A(batch)))
    torch.testing.assert_close(torch.func.vmap(A, in_dims=2)(batch.movedim(0, 2)), A(batch))
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(misfit(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * v).sum(), leaf)
    torch.testing.assert_close(second, A.T(A(v)))


def test_pickling_keeps_the_transform():
    A = ray_transform(GRID, FAN)
    again = pickle.loads(pickle.dumps(A))
    assert again.geometry == FAN
    assert (again.matrix != A.matrix).nnz == 0


def test_double_precision_is_refused_with_what_to_do():
    with pytest.raises(InputError, match="float32"):
        ray_transform(GRID, PARALLEL)(torch.zeros(GRID.shape, dtype=torch.float64))


def test_a_geometry_that_misses_the_image_is_refused():
    with pytest.raises(GeometryError, match="no shadow"):
        ray_transform(VolumeGrid((4, 4), 1.0, (100.0, 0.0)), PARALLEL)


def test_volumes_are_refused_by_two_dimensional_beams():
    with pytest.raises(GeometryError, match="3 axes"):
        ray_transform(VolumeGrid((4, 4, 4), 1.0, (0.0, 0.0, 0.0)), PARALLEL)


def test_an_unknown_backend_or_device_is_refused():
    with pytest.raises(BackendError, match="matrix"):
        ray_transform(GRID, PARALLEL, backend="skimage")
    with pytest.raises(InputError, match="no device"):
        ray_transform(GRID, PARALLEL, device="gpu7")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    "options", [dict(device="cuda"), dict(backend="astra-cuda"), dict(backend="astra-cuda", device="cuda")]
)
def test_a_gpu_asked_for_by_name_and_missing_is_refused(options):
    with pytest.raises(BackendError, match="GPU"):
        ray_transform(GRID, PARALLEL, **options)


def test_astra_is_asked_for_its_gpu_before_any_cuda_projector_is_made(monkeypatch):
    import astra

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(astra, "use_cuda", lambda: False)
    monkeypatch.setattr(astra, "create_projector", lambda *_: pytest.fail("a projector was made"))
    with pytest.raises(BackendError, match="ASTRA"):
        ray_transform(GRID, PARALLEL, backend="astra-cuda", device="cuda")


def test_a_matrix_that_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(backends, "build_matrix", lambda *_: pytest.fail("it was built"))
    huge = ParallelBeam(angles=np.linspace(0, 3, 5000), columns=20000, pixel=0.01)
    with pytest.raises(ResourceError, match="GiB"):
        ray_transform(VolumeGrid((20000, 20000), 0.01), huge)


def test_a_matrix_is_built_once_and_read_from_the_cache_afterwards(tmp_path, monkeypatch):
    first = ray_transform(GRID, FAN, cache=tmp_path)
    monkeypatch.setattr(backends, "build_matrix", lambda *_: pytest.fail("it was built again"))
    again = ray_transform(GRID, FAN, cache=tmp_path)
    assert (first.matrix != again.matrix).nnz == 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


def test_another_geometry_or_grid_has_another_place_in_the_cache(tmp_path):
    for geometry, grid in [(FAN, GRID), (FAN.cropped(1, 30), GRID), (FAN, VolumeGrid((16, 20), 0.5)), (PARALLEL, GRID)]:
        ray_transform(grid, geometry, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:3000] + bytes(64) + b[3064:]])
def test_a_damaged_cache_file_is_built_anew(tmp_path, damage):
    first = ray_transform(GRID, FAN, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert (ray_transform(GRID, FAN, cache=tmp_path).matrix != first.matrix).nnz == 0


def test_a_cache_that_cannot_be_written_is_skipped(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert ray_transform(GRID, FAN, cache=blocked / "below").matrix.nnz > 0


def test_a_cache_of_others_that_cannot_be_touched_is_read(tmp_path, monkeypatch):
    first = ray_transform(GRID, FAN, cache=tmp_path)

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(backends, "build_matrix", lambda *_: pytest.fail("it was built again"))
    assert (ray_transform(GRID, FAN, cache=tmp_path).matrix != first.matrix).nnz == 0


def test_the_cache_forgets_what_was_used_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_KEEP_BYTES", 1)
    ray_transform(GRID, FAN, cache=tmp_path)
    ray_transform(GRID, PARALLEL, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_killed_process_left_half_written_in_the_cache_is_removed_in_time(tmp_path):
    old, young = tmp_path / "part-old", tmp_path / "part-young"
    for left in (old, young):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    ray_transform(GRID, FAN, cache=tmp_path)
    assert young.exists() and not old.exists()
