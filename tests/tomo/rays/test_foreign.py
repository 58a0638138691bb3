import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import vector_tomosipo

from ctuq.errors import GeometryError
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.tomo.footprint import detector_pixels
from ctuq.tomo.rays.foreign import circular, from_astra, from_odl, from_tomosipo, odl_tomo, to_astra, to_odl, to_tomosipo
from ctuq.tomo.space import ConeBeam, Parallel3D

GRID = VolumeGrid((6, 8, 10), 0.5, (0.3, -0.2, 0.7))
SHARED = dict(angles=radians(np.arange(5, 185, 20)), rows=9, columns=14, pixel=0.8, row_pixel=0.6)
OFFSETS = dict(detector_offset=0.7, row_offset=0.4)
LENGTHS = dict(source_to_axis=40.0, source_to_detector=90.0)
CONE = ConeBeam(**SHARED, **OFFSETS, **LENGTHS, axis_offset=-0.4)
PARALLEL = Parallel3D(**SHARED, **OFFSETS, axis_offset=-0.4)
TILTED = ConeBeam(**SHARED, **LENGTHS, roll=0.1, tilt=0.2, yaw=-0.1)
LAMINOGRAPHY = Parallel3D(**SHARED, axis_tilt=0.5)
HELIX = CONE.raised(np.arange(9.0))
PLANE = VolumeGrid((44, 60), 0.2, (0.3, -0.2))
SLICE = dict(angles=SHARED["angles"], columns=90, detector_offset=0.7, axis_offset=-0.4)
SLICES = [ParallelBeam(**SLICE, pixel=0.2), FanBeam(**SLICE, pixel=0.45, **LENGTHS)]
of_slices = pytest.mark.parametrize("geometry", SLICES, ids=["parallel", "fan"])
POINT = np.array([(1.0, -1.5, 0.8)])
every = pytest.mark.parametrize("geometry", [CONE, PARALLEL, TILTED, LAMINOGRAPHY, HELIX])


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "tomosipo", vector_tomosipo)


@every
def test_astra_and_back_is_the_same_geometry(geometry):
    grid, again = from_astra(*to_astra(GRID, geometry))
    assert grid.shape == GRID.shape
    np.testing.assert_allclose([grid.voxel, *grid.centre], [0.5, 0.3, -0.2, 0.7])
    np.testing.assert_allclose(again.vectors()[:, 3:], geometry.vectors()[:, 3:], atol=1e-9)
    assert again.shape == geometry.shape


@pytest.mark.parametrize("kind", ["cone", "parallel3d"])
def test_astras_plain_geometries_have_the_vectors_that_astra_gives_them(kind):
    import astra

    lengths = (40.0, 50.0) if kind == "cone" else ()
    projection = astra.create_proj_geom(kind, 0.8, 0.6, 9, 14, SHARED["angles"], *lengths)
    _, ours = from_astra(astra.create_vol_geom(8, 10, 6), projection)
    theirs = astra.functions.geom_2vec(projection)["Vectors"]
    sign = 1 if kind == "cone" else -1  # rays are lines
    np.testing.assert_allclose(ours.vectors()[:, :3], sign * theirs[:, :3], atol=1e-9)
    np.testing.assert_allclose(ours.vectors()[:, 3:], theirs[:, 3:], atol=1e-9)


@every
def test_tomosipo_projects_a_point_where_we_do_and_gives_the_geometry_back(geometry, stand_in):
    volume, projection = to_tomosipo(GRID, geometry)
    v_u = projection.project_point(POINT[0, ::-1])
    rows, columns = detector_pixels(geometry, POINT)
    np.testing.assert_allclose(v_u, np.hstack([rows - 4, columns - 6.5]), atol=1e-9)
    grid, again = from_tomosipo(volume, projection)
    np.testing.assert_allclose([grid.voxel, *grid.centre], [0.5, 0.3, -0.2, 0.7])
    np.testing.assert_allclose(again.vectors()[:, 3:], geometry.vectors()[:, 3:], atol=1e-9)


@pytest.mark.parametrize("kind", [ConeBeam, Parallel3D])
@pytest.mark.parametrize("axis_offset", [0, -0.4])
def test_odl_sees_a_point_where_we_do_and_gives_the_geometry_back(kind, axis_offset):
    geometry = kind(**SHARED, **OFFSETS, axis_offset=axis_offset, **(LENGTHS if kind is ConeBeam else {}))
    theirs = to_odl(geometry)
    again = from_odl(theirs)
    assert type(again) is kind
    for ours, found in zip(detector_pixels(geometry, POINT), detector_pixels(again, POINT), strict=True):
        np.testing.assert_allclose(found, ours, atol=1e-6)


WHIRL = replace(CONE, angles=radians(np.arange(0, 1080, 60) % 360)).raised(np.arange(18.0) ** 1.5)
ASIDE = replace(TILTED, **OFFSETS, axis_offset=-0.4)


@pytest.mark.parametrize(
    "geometry",
    [
        TILTED,
        ASIDE,
        LAMINOGRAPHY,
        replace(LAMINOGRAPHY, **OFFSETS, roll=0.1),
        HELIX,
        WHIRL,
    ],
    ids=["turned", "turned aside", "laminography", "laminography aside", "helix", "turns that rise unevenly"],
)
def test_odl_sees_a_point_where_turned_and_rising_ones_do(geometry):
    again = from_odl(to_odl(geometry))
    for ours, found in zip(detector_pixels(geometry, POINT), detector_pixels(again, POINT), strict=True):
        np.testing.assert_allclose(found, ours, atol=1e-6)


def test_what_odl_has_no_place_for_is_refused():
    wobbling = WHIRL.table.copy()
    wobbling[3, 0] += 1.0
    for geometry in (CONE.subset([2, 1, 0]), replace(WHIRL, table=wobbling)):
        with pytest.raises(GeometryError, match="ODL"):
            to_odl(geometry)


def smooth_image(x, y):
    """Something smooth without any symmetry, at positions in mm."""
    return np.exp(-((x - 2.5) ** 2) - (y + 1.2) ** 2) + 0.5 * np.exp(-(((x + 3) / 2) ** 2) - (y - 0.8) ** 2)


def assert_alike(theirs, ours):
    """Theirs is one ray to a pixel and ours the mean of two in a fan, 1 % apart; mirrored or shifted rays are 50 % and more."""
    assert np.linalg.norm(theirs - ours) < 0.02 * np.linalg.norm(ours)


def places(grid):
    height, width = grid.shape
    x, y = np.arange(width) - (width - 1) / 2, (height - 1) / 2 - np.arange(height)
    return grid.centre[0] + grid.voxel * x[None], grid.centre[1] + grid.voxel * y[:, None]


@of_slices
def test_astra_projects_a_slice_as_we_do_and_gives_the_geometry_back(geometry):
    import astra

    volume, projection = to_astra(PLANE, geometry)
    grid, again = from_astra(volume, projection)
    assert type(again) is type(geometry)
    assert grid.shape == PLANE.shape
    np.testing.assert_allclose([grid.voxel, *grid.centre], [0.2, 0.3, -0.2])
    np.testing.assert_allclose(again.vectors(), geometry.vectors(), atol=1e-9)
    image = smooth_image(*places(PLANE)).astype(np.float32)
    projector = astra.create_projector("line_fanflat" if "fan" in projection["type"] else "linear", projection, volume)
    theirs = astra.create_sino(image, projector)[1]
    ours = ray_transform(PLANE, geometry)(torch.from_numpy(image)).numpy()
    assert_alike(theirs, ours)


@pytest.mark.parametrize("kind", ["parallel", "fanflat"])
def test_astras_plain_slices_have_the_vectors_that_astra_gives_them(kind):
    import astra

    lengths = (40.0, 50.0) if kind == "fanflat" else ()
    projection = astra.create_proj_geom(kind, 0.8, 14, SHARED["angles"], *lengths)
    _, ours = from_astra(astra.create_vol_geom(8, 10), projection)
    theirs = astra.functions.geom_2vec(projection)["Vectors"]
    sign = 1 if kind == "fanflat" else -1  # rays are lines
    np.testing.assert_allclose(ours.vectors()[:, [0, 1]], sign * theirs[:, :2], atol=1e-9)
    np.testing.assert_allclose(ours.vectors()[:, [3, 4, 6, 7]], theirs[:, 2:], atol=1e-9)


@of_slices
def test_odl_takes_a_slices_geometry_and_gives_it_back(geometry):
    again = from_odl(to_odl(geometry))
    assert type(again) is type(geometry)
    np.testing.assert_allclose(again.vectors(), geometry.vectors(), atol=1e-9)


def test_odl_projects_a_fan_with_both_offsets_as_we_do():
    import odl

    tomo = odl_tomo()
    geometry = SLICES[1]
    left, right, bottom, top = PLANE.extent
    space = odl.uniform_discr([left, bottom], [right, top], PLANE.shape[::-1], dtype="float32")
    image = smooth_image(*places(PLANE)).astype(np.float32)
    operator = tomo.RayTransform(space, to_odl(geometry), impl="astra_cpu")
    theirs = operator(space.element(np.ascontiguousarray(image[::-1].T))).asarray()
    ours = ray_transform(PLANE, geometry)(torch.from_numpy(image)).numpy()
    assert_alike(theirs, ours)


def test_a_curved_detector_of_odl_is_not_read_as_a_flat_one():
    import odl

    tomo = odl_tomo()
    turn, cells = odl.uniform_partition(0, np.pi, 5), odl.uniform_partition([-10, -8], [10, 8], (30, 20))
    lengths = dict(src_radius=40, det_radius=50)
    for curved in (
        tomo.ConeBeamGeometry(turn, cells, **lengths, det_curvature_radius=[90, None]),
        tomo.FanBeamGeometry(turn, odl.uniform_partition(-10, 10, 30), **lengths, det_curvature_radius=90),
        tomo.Parallel3dEulerGeometry(odl.uniform_partition([0, 0], [3, 1], (5, 2)), cells),
    ):
        with pytest.raises(GeometryError, match="flat detectors"):
            from_odl(curved)


def test_slices_and_volumes_of_astra_are_not_mixed_up():
    import astra

    with pytest.raises(GeometryError, match="both"):
        from_astra(to_astra(GRID, CONE)[0], to_astra(PLANE, SLICES[0])[1])
    with pytest.raises(GeometryError, match="2 axes"):
        to_astra(GRID, SLICES[0])
    table = to_astra(PLANE, SLICES[1])[1]["Vectors"].copy()
    table[3, :2] *= 1.1
    with pytest.raises(GeometryError, match="circular"):
        from_astra(to_astra(PLANE, SLICES[1])[0], astra.create_proj_geom("fanflat_vec", 90, table))
    with pytest.raises(GeometryError, match="cubes"):
        from_astra(astra.create_vol_geom(8, 10, -5, 5, -5, 5), to_astra(PLANE, SLICES[1])[1])


def test_free_vectors_of_a_circle_are_known_for_one():
    found = circular(CONE.raised(np.zeros(9)))
    assert isinstance(found, ConeBeam)
    np.testing.assert_allclose(found.vectors(), CONE.vectors(), atol=1e-9)
    assert circular(HELIX) is None
    assert circular(TILTED.raised(np.zeros(9))) is None


def test_foreign_volumes_of_flat_voxels_are_refused():
    import astra

    flat = astra.create_vol_geom(8, 10, 6, -5, 5, -4, 4, -6, 6)
    with pytest.raises(GeometryError, match="cubes"):
        from_astra(flat, to_astra(GRID, CONE)[1])
