"""What is taken out of a scan: by the geometry where it has the error, from the rays where it has not."""

import numpy as np
import pytest
import torch

from ctuq.systematics.build import blocks_of
from ctuq.systematics.catalogue import wishes
from ctuq.systematics.taken import Taken
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, radians, ray_transform

GRID = VolumeGrid((16, 16), 1.0)
ANGLES = radians(np.arange(0, 180, 15.0))
PARALLEL = ParallelBeam(angles=ANGLES, columns=20, pixel=1.0, axis_offset=0.2)
FAN = FanBeam(angles=ANGLES, columns=20, pixel=2.0, source_to_axis=50.0, source_to_detector=100.0)


def blocks(text, geometry=PARALLEL):
    y, x = np.mgrid[:16, :16] - 7.5
    image = torch.from_numpy(0.05 * np.exp(-((x - 2) ** 2 + (y + 1) ** 2) / 18)).float()
    A = ray_transform(GRID, geometry, backend="matrix")
    return blocks_of(wishes(text), A, image, torch.ones(geometry.shape))


def one(value):
    return torch.tensor([value], dtype=torch.float64)


def test_errors_of_places_are_put_into_the_geometry():
    turned = torch.linspace(-0.02, 0.02, len(ANGLES), dtype=torch.float64)
    found = Taken({"axis": one(0.3), "jitter": turned, "flux": turned}).scanner(PARALLEL)
    assert found.axis_offset == pytest.approx(0.5)
    np.testing.assert_allclose(found.angles, ANGLES + turned.numpy())
    assert Taken({"distance": one(-2.0)}).scanner(FAN).source_to_axis == 48.0
    assert Taken({"axis": one(0.3)}, moves=False).scanner(PARALLEL) == PARALLEL == Taken().scanner(PARALLEL)


def test_what_the_geometry_has_is_not_taken_from_the_rays_as_well():
    made = blocks("axis,flux,shift")
    flux = torch.linspace(-0.1, 0.1, len(ANGLES), dtype=torch.float64)
    values = {"axis": one(0.3), "flux": flux}
    rays = Taken(values).rays(made).reshape(PARALLEL.shape)
    assert torch.allclose(rays, -flux[:, None].expand_as(rays))
    still = Taken(values, moves=False).rays(made).reshape(PARALLEL.shape)
    axis = next(b for b in made if b.name == "axis").columns.reshape(PARALLEL.shape)
    assert torch.allclose(still - rays, 0.3 * axis)
    assert Taken().rays(made) == 0.0 and not Taken()


@pytest.mark.parametrize("name", ["flux", "gain", "shift", "jitter"])
def test_factors_are_those_that_are_told(name):
    (block,) = blocks(name)
    factors = torch.randn(block.columns.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = Taken({name: block.told(factors)}).factors([block])
    assert torch.allclose(found[name], factors)
    assert Taken({name: block.told(factors)}).factors([]) == {}
