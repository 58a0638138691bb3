"""Against a stand-in of CIL's interface: the library itself is not on PyPI."""

import sys

import astra
import numpy as np
import pretend_cil
import pytest
import torch

from ctuq.errors import BackendError, GeometryError
from ctuq.pipeline.cil import image_data, processor, scan_of_cil
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.tomo.rays.cil import as_cil_operator, from_cil, to_cil

GRID = VolumeGrid((10, 12), 1.5, (1.0, -2.0))
ANGLES = radians(np.array([0.0, 20.0, 75.0, 130.0, 250.0]))
BEAMS = {
    "parallel": ParallelBeam(angles=ANGLES, columns=20, pixel=1.4, detector_offset=0.9, axis_offset=0.2),
    "fan": FanBeam(
        angles=ANGLES,
        columns=24,
        pixel=2.5,
        source_to_axis=60.0,
        source_to_detector=110.0,
        detector_offset=1.2,
        axis_offset=-0.7,
    ),
}


@pytest.fixture(autouse=True)
def library(monkeypatch):
    pretend_cil.install(monkeypatch)


def projected_by_astra(image, made, array):
    """CIL's way: the array as it is, on ASTRA's grid of the same extent, by CIL's vectors."""
    height, width = image.shape
    (x, y), v = image.centre, image.voxel
    volume = astra.create_vol_geom(
        height, width, x - width * v / 2, x + width * v / 2, -y - height * v / 2, -y + height * v / 2
    )
    kind = ("parallel_vec", "line") if made.geom_type == "parallel" else ("fanflat_vec", "line_fanflat")
    beam = astra.create_proj_geom(kind[0], made.config.panel.num_pixels[0], pretend_cil.astra_vectors(made))
    projector = astra.create_projector(kind[1], beam, volume)
    number, found = astra.create_sino(array, projector)
    astra.data2d.delete(number)
    astra.projector.delete(projector)
    return found


@pytest.mark.parametrize("beam", BEAMS)
def test_the_operator_projects_as_cil_does_by_astra(beam):
    image, made = to_cil(GRID, BEAMS[beam])
    x = image.allocate(None)
    x.fill(np.random.default_rng(0).uniform(size=GRID.shape).astype(np.float32))
    found = as_cil_operator(ray_transform(GRID, BEAMS[beam])).direct(x).as_array()
    expected = projected_by_astra(image, made, x.as_array())
    # By another interpolation along rays than ours, so alike to a few per cent and not to rounding.
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)
    for wrong in (x.as_array()[::-1], x.as_array()[:, ::-1]):
        assert np.linalg.norm(found - projected_by_astra(image, made, np.ascontiguousarray(wrong))) > 0.1 * np.linalg.norm(
            found
        )


def test_the_adjoint_is_the_transpose_and_out_is_filled():
    K = as_cil_operator(ray_transform(GRID, BEAMS["fan"]))
    rng = np.random.default_rng(1)
    x, y = K.domain_geometry.allocate(None), K.range_geometry.allocate(None)
    x.fill(rng.standard_normal(x.array.shape).astype(np.float32))
    y.fill(rng.standard_normal(y.array.shape).astype(np.float32))
    left, right = np.vdot(K.direct(x).as_array(), y.as_array()), np.vdot(x.as_array(), K.adjoint(y).as_array())
    assert left == pytest.approx(right, rel=1e-4)
    out = K.range_geometry.allocate(None)
    assert K.direct(x, out=out) is out and np.array_equal(out.as_array(), K.direct(x).as_array())


@pytest.mark.parametrize("beam", BEAMS)
def test_a_geometry_comes_back_from_cil(beam):
    ours = BEAMS[beam]
    back, is_reversed = from_cil(to_cil(GRID, ours)[1])
    assert not is_reversed
    np.testing.assert_allclose(back.vectors(), ours.vectors(), atol=1e-9)


@pytest.mark.parametrize("beam", BEAMS)
def test_columns_that_run_the_other_way_are_turned_over(beam):
    made = to_cil(GRID, BEAMS[beam])[1]
    made.config.panel.origin = "bottom-right"
    assert from_cil(made)[1]
    made.config.system.detector.direction_x = [-each for each in made.config.system.detector.direction_x]
    back, is_reversed = from_cil(made)
    assert not is_reversed
    np.testing.assert_allclose(back.vectors(), BEAMS[beam].vectors(), atol=1e-9)


def test_the_processor_reconstructs_what_cil_would_hand_over(monkeypatch):
    beam, image = BEAMS["fan"], torch.rand(GRID.shape, generator=torch.Generator().manual_seed(2))
    data = to_cil(GRID, beam)[1].allocate(None)
    data.fill(ray_transform(GRID, beam)(image).numpy())
    ours = processor(size=12, method="sirt", uncertainty=False)
    ours.set_input(data)
    found = ours.get_output()
    result = ours.result
    np.testing.assert_array_equal(found.as_array(), result.mean[::-1])
    np.testing.assert_array_equal(result.scan.projections, data.as_array())
    assert any("mm" in text for text in result.warnings)
    np.testing.assert_array_equal(image_data(result).as_array(), found.as_array())
    made = data.geometry
    made.set_labels(["horizontal", "angle"])
    turned = pretend_cil.Data(made, np.ascontiguousarray(data.as_array().T))
    np.testing.assert_array_equal(scan_of_cil(turned).projections, data.as_array())
    made.set_labels(["angle", "horizontal"])
    again = found.geometry.allocate(None)
    ours.get_output(out=again)
    np.testing.assert_allclose(again.as_array(), found.as_array(), atol=1e-6)


def test_what_is_no_slice_is_refused(monkeypatch):
    made = to_cil(GRID, BEAMS["fan"])[1]
    with pytest.raises(GeometryError, match="slices"):
        to_cil(VolumeGrid((4, 4, 4), 1.0), BEAMS["fan"])
    with pytest.raises(GeometryError, match="two numbers"):
        made.config.system.detector.position = [0, 1, 2]
        from_cil(made)
    with pytest.raises(GeometryError, match="vertical"):
        from_cil(made.set_labels(["vertical", "angle", "horizontal"]))
    monkeypatch.setitem(sys.modules, "cil", None)
    monkeypatch.delitem(sys.modules, "cil.framework")
    with pytest.raises(BackendError, match="conda"):
        as_cil_operator(ray_transform(GRID, BEAMS["fan"]))
