"""What the experiments of systematic errors compare."""

import numpy as np
import pytest
import torch

from ctuq.systematics.build import blocks_of
from ctuq.systematics.catalogue import wishes
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform
from experiments.systematics.measure import in_frame

ANGLES, HELD = np.arange(20) * np.pi / 20, np.array([3, 9, 16])


@pytest.mark.parametrize(("defect", "moves"), [("jitter", [np.ones(20)]), ("shift", [np.cos(ANGLES), np.sin(ANGLES)])])
def test_true_values_are_compared_beside_the_image_that_the_fitted_views_make(defect, moves):
    """A turn or a motion of the object is no error, and held-out views are told beside the same object."""
    rng = np.random.default_rng(0)
    true = rng.standard_normal(20)
    found = in_frame(defect, true, ANGLES, HELD)
    for move in moves:
        np.testing.assert_allclose(in_frame(defect, true + 3 * move, ANGLES, HELD), found, atol=1e-9)
    # The model can tell just these: they are among its block's values.
    beam = ParallelBeam(angles=ANGLES, columns=15, pixel=1.0)
    A = ray_transform(VolumeGrid((10, 10), 1.0), beam, backend="matrix")
    (block,) = blocks_of(wishes(defect), A, torch.from_numpy(rng.random((10, 10))).float(), torch.ones(beam.shape), HELD)
    again = block.told(block.spread.T @ torch.from_numpy(found))
    np.testing.assert_allclose(again, found, atol=1e-9)


def test_flux_has_no_frame():
    true = np.random.default_rng(1).standard_normal(20)
    np.testing.assert_array_equal(in_frame("flux", true, ANGLES, HELD), true)
