import numpy as np
import pytest
from matplotlib.patches import Circle, Rectangle

from ctuq.app.report.geometry import draw_geometry
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid, radians


def lines(axes):
    return {line.get_label(): np.column_stack(line.get_data()).astype(float) for line in axes.lines}


def fan(**changes):
    values = {"angles": radians([0.0, 90.0]), "columns": 10, "pixel": 2.0, "source_to_axis": 50.0, "source_to_detector": 80.0}
    return FanBeam(**(values | changes))


def test_the_fan_s_source_turns_counter_clockwise_from_negative_y():
    (axes,) = draw_geometry(fan()).axes
    np.testing.assert_allclose(lines(axes)["source of each view (2)"], [[0, -50], [50, 0]], atol=1e-9)


def test_the_first_view_s_detector_stands_where_its_vectors_say():
    (axes,) = draw_geometry(fan(detector_offset=3.0)).axes
    np.testing.assert_allclose(lines(axes)["detector of the first view (0°)"], [[-7, 30], [13, 30]], atol=1e-9)


@pytest.mark.parametrize("kind", ["fan", "parallel"])
def test_rays_run_from_source_to_detector(kind):
    geometry = fan() if kind == "fan" else ParallelBeam(angles=radians([0.0]), columns=10, pixel=2.0)
    (axes,) = draw_geometry(geometry).axes
    rays = [
        np.column_stack(line.get_data()) for line in axes.lines if line.get_color() == "#c2410c" and len(line.get_xdata()) == 2
    ]
    rays = [ray for ray in rays if ray[1, 1] > 0]
    assert len(rays) == 5
    along = [(ray[1] - ray[0]) / np.linalg.norm(ray[1] - ray[0]) for ray in rays]
    if kind == "parallel":
        np.testing.assert_allclose(along, [[0, 1]] * 5, atol=1e-9)
    else:
        np.testing.assert_allclose([ray[0] for ray in rays], [[0, -50]] * 5, atol=1e-9)


def test_grid_and_field_of_view_are_drawn_to_scale():
    grid = VolumeGrid((20, 30), 0.5, (1.0, 2.0))
    (axes,) = draw_geometry(fan(), grid).axes
    (circle,) = (patch for patch in axes.patches if isinstance(patch, Circle))
    (box,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert 2 * circle.radius == pytest.approx(fan().field_of_view)
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (-6.5, -3.0, 15.0, 10.0)


def test_the_axes_are_in_mm_and_undistorted():
    (axes,) = draw_geometry(fan()).axes
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("x (mm)", "y (mm)", 1.0)
