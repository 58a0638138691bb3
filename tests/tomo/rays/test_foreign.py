import sys

import numpy as np
import pytest
import vector_tomosipo

from ctuq.errors import GeometryError
from ctuq.tomo import VolumeGrid, radians
from ctuq.tomo.footprint import detector_pixels
from ctuq.tomo.rays.foreign import circular, from_astra, from_odl, from_tomosipo, to_astra, to_odl, to_tomosipo
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
def test_odl_sees_a_point_where_we_do_and_gives_the_geometry_back(kind):
    geometry = kind(**SHARED, **OFFSETS, **(LENGTHS if kind is ConeBeam else {}))
    theirs = to_odl(geometry)
    again = from_odl(theirs)
    assert type(again) is kind
    for ours, found in zip(detector_pixels(geometry, POINT), detector_pixels(again, POINT), strict=True):
        np.testing.assert_allclose(found, ours, atol=1e-6)


def test_what_odl_has_no_place_for_is_refused():
    for geometry in (TILTED, CONE, LAMINOGRAPHY):
        with pytest.raises(GeometryError, match="ODL"):
            to_odl(geometry)


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
