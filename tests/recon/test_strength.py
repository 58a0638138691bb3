import numpy as np
import pytest
import torch

from ctuq.pipeline.image.classical import Smoothness
from ctuq.recon.dip import Data
from ctuq.recon.holdout import split
from ctuq.recon.strength import STRENGTHS, chosen_strength
from ctuq.recon.tv import tv
from ctuq.tomo import ray_transform
from ctuq.tomo.simulate import phantom_scan


def _parts(noise: float, size: int = 32) -> tuple[Data, Data]:
    scan = phantom_scan("shepp-logan", size, np.arange(20) * np.pi / 20, noise=noise, seed=1)
    assert scan.grid is not None
    A = ray_transform(scan.grid, scan.geometry, backend="matrix")
    y = torch.tensor(scan.projections)
    return split(Data(A, y, torch.ones_like(y)), np.array([3, 10, 17]), rng=torch.Generator())


def test_several_strengths_at_once_are_the_same_images():
    fit, _ = _parts(0.05)
    strengths = torch.tensor([1.0, 0.25])
    both = tv(fit.A, fit.y.expand(2, -1, -1), weights=fit.weights.expand(2, -1, -1), strength=strengths, iterations=50)
    for image, strength in zip(both, (1.0, 0.25), strict=True):
        alone = tv(fit.A, fit.y[0], weights=fit.weights[0], strength=strength, iterations=50)
        torch.testing.assert_close(image, alone, atol=1e-5 * float(alone.max()), rtol=0)


@pytest.mark.parametrize("noise", [0.002, 0.3])
def test_the_strength_is_the_smoothest_of_those_that_foretell_held_out_rays_well(noise):
    fit, stop = _parts(noise)
    strength, misfit = chosen_strength(fit, stop)
    misfits = [
        float(stop.misfit(tv(fit.A, fit.y[0], weights=fit.weights[0], strength=each, iterations=100)[None])[0])
        for each in STRENGTHS
    ]
    assert misfit == pytest.approx(misfits[STRENGTHS.index(strength)], rel=1e-3)
    good = [each for each, value in zip(STRENGTHS, misfits, strict=True) if value <= 1.03 * min(misfits)]
    assert strength == max(good)
    assert (strength >= 0.5) == (noise == 0.3)


def test_a_user_is_told_where_total_variation_is_clearly_better():
    assert Smoothness(0.5, 0.64).told(1.0)[0].count("20%") == 1
    assert Smoothness(0.5, 0.95).told(1.0) == ()
    assert Smoothness().told(1.0) == ()
