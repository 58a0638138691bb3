from dataclasses import fields

import numpy as np
import pytest
import torch

from ctuq.recon import stages
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.stages import all_finished, fit_in_stages, levels, steps, steps_done
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ParallelBeam, VolumeGrid, radians, ray_transform

OPTIONS = DIPOptions(network=UNetOptions(channels=(8, 8), skips=(4,)), iterations=60, check_every=10)


@pytest.fixture(scope="module")
def problem():
    """Two rectangles, 32 x 32 pixels of 1 mm, 12 angles of which two are held out."""
    grid = VolumeGrid((32, 32), 1.0)
    A = ray_transform(grid, ParallelBeam(angles=radians(np.arange(12) * 15), columns=46, pixel=1.0), backend="matrix")
    truth = torch.zeros(32, 32)
    truth[6:24, 8:18], truth[12:20, 20:26] = 0.04, 0.07
    y, weights = A(truth), torch.ones(12, 46)
    weights[:, 3] = 0
    held, fitted = [3, 9], [i for i in range(12) if i not in (3, 9)]
    return truth, *(Data(A.subset(np.array(v)), y[v][None], weights[v][None]) for v in (fitted, held))


@pytest.fixture
def halved(monkeypatch):
    monkeypatch.setattr(stages, "_COARSEST", 16)


def run(problem, resume=None):
    _, fit, held = problem
    generate, start = generator(fit, OPTIONS, rng=torch.Generator().manual_seed(0))
    return generate, list(fit_in_stages(generate, start, fit, held, OPTIONS, resume=resume))


def same(a, b):
    for name in (f.name for f in fields(a)):
        left, right = getattr(a, name), getattr(b, name)
        pairs = [(left[k], right[k]) for k in left] if isinstance(left, dict) else [(left, right)]
        for x, y in pairs:
            torch.testing.assert_close(torch.as_tensor(x), torch.as_tensor(y), rtol=0, atol=0)


@pytest.mark.parametrize(("size", "expected"), [(64, 0), (255, 0), (256, 1), (511, 1), (512, 2), (1024, 3)])
def test_images_are_halved_down_to_128_pixels(size, expected):
    assert levels(VolumeGrid((size, size), 1.0)) == expected


def test_small_images_are_fitted_at_once(problem):
    _, fit, held = problem
    generate, states = run(problem)
    start = generator(fit, OPTIONS, rng=torch.Generator().manual_seed(0))[1]
    same(states[-1], list(dip(generate, start, fit, held, OPTIONS))[-1])


def test_fine_stage_goes_on_from_the_coarse_one(problem, halved):
    _, fit, held = problem
    generate, states = run(problem)
    assert [(s.level, s.iteration) for s in states] == [(1, i) for i in range(10, 70, 10)] + [(0, i) for i in (10, 20, 30)]
    assert float(states[6].best_misfit) < float(states[0].best_misfit)
    assert float(held.misfit(generate(states[-1].best))) == pytest.approx(float(states[-1].best_misfit))
    assert [steps_done(s, fit.A.grid, OPTIONS) for s in states] == list(range(10, 100, 10))
    assert steps(fit.A.grid, OPTIONS) == 90
    assert [all_finished(s, fit.A.grid, OPTIONS) for s in states] == [False] * 8 + [True]


@pytest.mark.parametrize("at", [2, 5, 7])
def test_fit_killed_in_any_stage_is_resumed_as_the_same_fit(problem, halved, at):
    _, whole = run(problem)
    _, rest = run(problem, resume=whole[at])
    assert len(rest) == len(whole) - at - 1
    same(rest[-1], whole[-1])


def test_coarse_data_are_those_of_the_coarse_image(problem):
    truth, fit, _ = problem
    coarse = stages._coarse(fit, fit.A.grid.resized(16))
    assert coarse.y.shape == coarse.weights.shape == (1, 10, 23)
    small = truth.reshape(16, 2, 16, 2).mean((1, 3))
    gap = (coarse.y - coarse.A(small))[0, :, 2:].abs().max()
    assert float(gap) < 0.1 * float(coarse.y.max())
    torch.testing.assert_close(coarse.weights[0, :, 1], torch.full((10,), 0.5))
    torch.testing.assert_close(coarse.y[0, :, 1], fit.y[0, :, 2])
