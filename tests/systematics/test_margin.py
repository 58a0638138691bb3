import numpy as np
import pytest
import torch

from ctuq.systematics.margin import margin
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, ray_transform

GRID = VolumeGrid((24, 24), 0.5)
ANGLES = np.arange(15) * np.pi / 15 + 0.03
BEAMS = {
    "parallel": ParallelBeam(angles=ANGLES, columns=28, pixel=0.5),
    "fan": FanBeam(angles=2 * ANGLES, columns=28, pixel=1.0, source_to_axis=60.0, source_to_detector=120.0),
}


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("reach", [7.3, 10.0])
def test_cells_together_are_the_rays_of_a_disc_without_the_image(beam, reach):
    A = ray_transform(GRID, BEAMS[beam], backend="matrix")
    found = margin(A, torch.ones(24, 24), reach).columns.sum(1).reshape(A.geometry.shape)
    fine = VolumeGrid((400, 400), 0.06)
    places = (np.arange(400) - 199.5) * 0.06
    x, y = np.meshgrid(places, -places)
    outside = (np.hypot(x, y) < reach) & ((abs(x) > 6) | (abs(y) > 6))
    there = ray_transform(fine, BEAMS[beam], backend="matrix")(torch.from_numpy(outside.astype(np.float32))).double()
    assert float((found - there).norm() / there.norm()) < 0.1  # the circle runs through parts
    assert float((found.sum() - there.sum()).abs() / there.sum()) < 0.02


def test_a_cell_may_be_off_by_what_is_usual_in_the_image_or_by_what_is_said():
    A = ray_transform(GRID, BEAMS["parallel"], backend="matrix")
    block = margin(A, torch.full((24, 24), 0.3), 10.0)
    assert block.width == pytest.approx(0.3) and not block.learned and not block.hidden
    assert block.columns.shape[1] < 64 and bool((block.columns >= 0).all()) and bool((block.columns != 0).any(0).all())
    assert margin(A, torch.full((24, 24), 0.3), 10.0, 0.02).width == 0.02


def test_the_unit_of_attenuation_changes_no_cell():
    A = ray_transform(GRID, BEAMS["parallel"], backend="matrix")
    counts = [margin(A, torch.ones(24, 24), 10.0 * (1 + step)).columns.shape[1] for step in (-1e-9, 0, 1e-9, 1e-7)]
    assert len(set(counts)) == 1


def test_nothing_lies_outside_of_an_image_of_everything():
    A = ray_transform(GRID, BEAMS["parallel"], backend="matrix")
    corners = margin(A, torch.ones(24, 24), 6.0)
    assert corners.columns.shape[1] == 0
