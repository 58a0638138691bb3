import importlib.util
import sys

import numpy as np
import pytest
import torch
import vector_tomosipo

from ctuq.errors import BackendError, GeometryError
from ctuq.tomo import FanBeam, Parallel3D, ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.tomo.rays import foreign
from ctuq.tomo.rays.interop import as_deepinv, as_odl_operator, from_tomosipo, to_tomosipo

GRID = VolumeGrid((16, 20), 0.5, (0.3, -0.2))
SHARED = dict(angles=radians(np.arange(5, 185, 20)), columns=30, detector_offset=0.7, axis_offset=-0.4)
PARALLEL = ParallelBeam(pixel=0.5, **SHARED)
FAN = FanBeam(pixel=1.0, source_to_axis=40.0, source_to_detector=80.0, **SHARED)
both = pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Tomosipo's vector form where it is not installed: it is not on PyPI."""
    if importlib.util.find_spec("tomosipo") is None:
        monkeypatch.setitem(sys.modules, "tomosipo", vector_tomosipo)


@both
def test_the_odl_adjoint_is_the_adjoint_for_odls_inner_products(geometry):
    operator = as_odl_operator(ray_transform(GRID, geometry))
    rng = np.random.default_rng(0)
    x = operator.domain.element(rng.normal(size=operator.domain.shape))
    y = operator.range.element(rng.normal(size=operator.range.shape))
    forward = operator(x)
    mismatch = abs(forward.inner(y) - x.inner(operator.adjoint(y)))
    assert mismatch <= 1e-6 * forward.norm() * y.norm()
    assert operator.adjoint.adjoint(x) == forward


def test_an_image_drawn_in_odls_axes_lands_where_ours_does():
    A = ray_transform(GRID, PARALLEL)
    operator = as_odl_operator(A)
    points = operator.domain.points().reshape(*operator.domain.shape, 2)
    blob = np.exp(-((points[..., 0] - 1.5) ** 2) - (points[..., 1] + 2.0) ** 2)
    x = GRID.centre[0] + (np.arange(20) - 9.5) * 0.5
    y = GRID.centre[1] - (np.arange(16) - 7.5) * 0.5
    ours = torch.from_numpy(np.exp(-((x[None] - 1.5) ** 2) - (y[:, None] + 2.0) ** 2)).float()
    np.testing.assert_allclose(operator(blob).asarray(), A(ours).numpy(), atol=1e-4)


def test_a_missing_tomosipo_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tomosipo", None)
    with pytest.raises(BackendError, match="pip install git"):
        to_tomosipo(GRID, PARALLEL)
    with pytest.raises(BackendError, match="pip install git"):
        from_tomosipo(None, None)


@both
def test_tomosipo_and_back_is_the_same_geometry(geometry):
    grid, again = from_tomosipo(*to_tomosipo(GRID, geometry))
    assert grid.shape == GRID.shape
    np.testing.assert_allclose([grid.voxel, *grid.centre], [GRID.voxel, *GRID.centre])
    np.testing.assert_allclose(again.vectors(), geometry.vectors(), atol=1e-9)
    assert again.columns == geometry.columns


def test_a_point_projects_where_tomosipo_says():
    from ctuq.tomo.coverage import detector_columns

    _, projection = to_tomosipo(GRID, FAN)
    v_u = np.asarray(projection.project_point((0.0, -3.0, 2.0)))
    expected = detector_columns(FAN, np.array([(2.0, -3.0)]))[:, 0] - (FAN.columns - 1) / 2
    np.testing.assert_allclose(v_u[:, 1], expected, atol=1e-6)


def test_a_tomosipo_stack_of_slices_is_refused():
    slices = Parallel3D(angles=radians([0, 60, 120]), rows=4, columns=8, pixel=1.0)
    with pytest.raises(GeometryError, match="4"):
        from_tomosipo(*foreign.to_tomosipo(VolumeGrid((4, 8, 8), 1.0), slices))


def test_a_deepinv_whose_torchvision_is_of_another_build_is_said_to_be_so(monkeypatch, tmp_path):
    A = ray_transform(VolumeGrid((8, 10), 2.0), ParallelBeam(angles=np.linspace(0, 3, 5), columns=15, pixel=2.0))
    for name in [name for name in sys.modules if name.split(".")[0] == "deepinv"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "deepinv").mkdir()
    (tmp_path / "deepinv" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="torchvision::nms"):
        as_deepinv(A)
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(BackendError, match="not installed"):
        as_deepinv(A)


def test_deepinvs_physics_is_our_pair():
    try:
        import deepinv  # noqa: F401
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"deepinv cannot be imported: {error}")
    A = ray_transform(VolumeGrid((8, 10), 2.0), ParallelBeam(angles=np.linspace(0, 3, 5), columns=15, pixel=2.0))
    physics, x = as_deepinv(A), torch.rand(2, 1, 8, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(physics(x)[:, 0], A(x[:, 0]))
    assert abs(float(physics.adjointness_test(x))) < 1e-4
