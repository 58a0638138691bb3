"""Scans of more rays than pixels, of kinds that people bring, by conjugate gradients beside a factor in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.linops.jacobian.network import jacobian_of
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.uncertainty.estimate import fit_evidence, solvable
from ctuq.uncertainty.model import noise as solving
from ctuq.uncertainty.model import posterior as module
from ctuq.uncertainty.model.left_out import Beside, LeftOut
from ctuq.uncertainty.model.linear import image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.route import some_of
from ctuq.uncertainty.model.solved import SolvedRays

SIZE, CLOSE = 12, 1e-3
"""Pixels along each axis, and how far the two may be apart, in standard deviations."""


def angles(count, span=180.0):
    return radians(np.arange(count) * span / count)


def parallel(turns=None, columns=18, pixel=1.0, **more):
    return ParallelBeam(angles=angles(24) if turns is None else turns, columns=columns, pixel=pixel, **more)


def decades(shape, rng):
    return 10 ** (-6 * torch.rand(shape, generator=rng))


def masked(shape, rng):
    return (torch.rand(shape, generator=rng) > 0.1) * (torch.arange(shape[1]) % 7 > 0).float()


def scan_of(geometry, *, shape=(SIZE, SIZE), voxel=1.0, size=0.04, noise=0.02, weigh=None, rough=0.2, rank=20):
    """A linear model of what differs from a network's image everywhere, as a textured object does."""
    rng = torch.Generator().manual_seed(1)
    A = ray_transform(VolumeGrid(shape, voxel), geometry, backend="matrix")
    net = UNet(UNetOptions(channels=(4, 4), skips=(2,)), rng)
    output, jacobian = jacobian_of(net, torch.rand(1, 1, *shape, generator=rng))
    image = size * output.reshape(shape)
    y = A(image * (1 + rough * torch.randn(shape, generator=rng)))
    weights = torch.ones_like(y) if weigh is None else weigh(y.shape, rng)
    y = y + noise * y.abs().mean() * torch.randn(y.shape, generator=rng) / weights.clamp(min=1e-12).sqrt()
    given = {"image": image, "jacobian": jacobian, "scale": size, "prior": "isotropic", "rank": rank, "rng": rng}
    return image_model(A, y, weights, **given)


KINDS = {
    "texture": lambda: scan_of(parallel()),
    "no misfit": lambda: scan_of(parallel(), rough=0.0),
    "hardly any noise": lambda: scan_of(parallel(), noise=1e-5),
    "no noise": lambda: scan_of(parallel(), noise=0.0),
    "as much noise as rays": lambda: scan_of(parallel(), noise=1.0),
    "weights of six decades": lambda: scan_of(parallel(), weigh=decades),
    "masked columns": lambda: scan_of(parallel(), weigh=masked),
    "limited arc": lambda: scan_of(parallel(angles(24, 30.0))),
    "one view many times": lambda: scan_of(parallel(np.r_[angles(12), [0.5] * 20])),
    "pairs of views": lambda: scan_of(parallel(np.r_[angles(12), angles(12) + 1e-6])),
    "many views of few columns": lambda: scan_of(parallel(angles(120), columns=4, pixel=4.0)),
    "few views of many columns": lambda: scan_of(parallel(angles(3), columns=160, pixel=0.1)),
    "pixels of a nanometre": lambda: scan_of(parallel(pixel=1e-6), voxel=1e-6, size=1e5),
    "pixels of ten metres": lambda: scan_of(parallel(pixel=1e4), voxel=1e4, size=1e-5),
    "oblong, axis off": lambda: scan_of(parallel(axis_offset=3.0), shape=(6, 20)),
    "short fan": lambda: scan_of(
        FanBeam(angles=angles(24, 200.0), columns=24, pixel=2.0, source_to_axis=30.0, source_to_detector=60.0)
    ),
}


@pytest.mark.filterwarnings("error:Noise and floors were solved")
@pytest.mark.parametrize("noise_by", ["float32", "cg"])
@pytest.mark.parametrize("kind", KINDS)
def test_rough_solves_of_a_strangers_scan_come_to_the_factorisation_s_numbers(kind, noise_by, monkeypatch):
    for name, value in (("_FEW", 4), ("_EDGES", 40), ("_STANDS_OUT", 1.5)):
        monkeypatch.setattr(solving, name, value)
    model = KINDS[kind]()
    assert len(model.target) > model.image.numel()
    left = model.views == int(model.views[len(model.views) // 2])
    evidence = solvable(fit_evidence(model, ~left, rng=torch.Generator().manual_seed(0)), model, noise_by)
    exact, rough = (SolvedRays.on(model, evidence.point, noise_by=by) for by in ("float64", noise_by))
    std = ImagePosterior(exact, rng=torch.Generator()).std().flatten()
    assert off(rough.mean().flatten(), exact.mean().flatten(), std) < CLOSE

    monkeypatch.setattr(module, "EXACT_WORK", 0.0)
    both = [ImagePosterior(given, rng=torch.Generator().manual_seed(2)) for given in (exact, rough)]
    drawn = [posterior.std().flatten() for posterior in both]
    assert off(drawn[1], drawn[0], std) < 0.1 * both[1]._variance[1]  # the error that it tells
    assert float((drawn[1] / std - 1).square().mean().sqrt()) < 2 * both[1]._variance[1]

    x = torch.eye(len(std), dtype=torch.float64)[[0, 17, len(std) // 2]]
    x = torch.cat([x, torch.ones_like(x[:1]), torch.randn(2, len(std), generator=torch.Generator().manual_seed(3)).double()])
    P = both[0].times(x)
    assert off(both[1].times(x), P, (P * x).sum(1).sqrt()[:, None] * std) < CLOSE

    rows = left.nonzero()[:, 0]
    every, known = torch.arange(len(rows)), LeftOut.of(exact, rows)
    T, sd = known.covariance(), known.covariance().diagonal().sqrt()
    for found in (LeftOut.of(rough, rows), Beside.of(rough, rows, noise_by=noise_by)):
        assert off(found.joint(every), T, sd * sd[:, None]) < CLOSE
        assert off(found.innovations(every), known.innovations(every), sd) < CLOSE


@pytest.mark.parametrize(("rank", "noise"), [(60, 0.02), (20, 0.02), (60, 0.1), (20, 0.1)])
def test_directions_of_a_dense_scan_have_the_error_they_state(rank, noise):
    def bars(rank):
        model = scan_of(parallel(), rough=0.0, rank=rank, noise=noise)
        point = fit_evidence(model, model.views >= 0, rng=torch.Generator().manual_seed(0)).point
        return ImagePosterior(SolvedRays.on(model, point, noise_by="float64"), rng=torch.Generator())

    few, exact = bars(rank), bars(SIZE**2)
    assert exact.error == 0
    miss = float((few.std() / exact.std() - 1).square().mean().sqrt())
    assert miss < 2 * few.error <= 2


@pytest.mark.filterwarnings("error:Noise and floors were solved")
def test_one_right_hand_side_that_does_not_come_to_its_end_alone_does_in_company(monkeypatch):
    monkeypatch.setattr(solving, "_STEPS", 20)
    model = scan_of(parallel(), noise=1e-3)
    point = fit_evidence(model, model.views != 3, rng=torch.Generator().manual_seed(0)).point
    exact, rough = (SolvedRays.on(model, point, noise_by=by) for by in ("float64", "cg"))
    b = model.target[None]
    assert off(rough.noise(b), exact.noise(b), 1e-5 * exact.noise(b).norm()) < 1
    monkeypatch.setattr(solving, "BATCH", 3)  # no company
    with pytest.raises(UserWarning, match="solved to a residual"):
        rough.noise(b)


@pytest.mark.filterwarnings("error:Noise and floors were solved")
@pytest.mark.parametrize("kind", ["texture", "no noise"])
def test_held_out_rays_correct_the_image_by_what_can_be_solved_for(kind):
    model = KINDS[kind]()
    left = model.views % 6 == 3
    point = solvable(fit_evidence(model, ~left, rng=torch.Generator().manual_seed(0)), model, "cg").point
    exact, rough = (SolvedRays.on(model, point, noise_by=by) for by in ("float64", "cg"))
    std, rows = ImagePosterior(exact, rng=torch.Generator()).std().flatten(), left.nonzero()[:, 0]
    known, found = LeftOut.of(exact, rows), Beside.of(rough, rows, noise_by="cg")
    signal = known.covariance() - torch.eye(len(rows))
    z = torch.randn(len(rows), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def corrections(image, noise):
        residual = torch.linalg.cholesky(image * signal + noise * torch.eye(len(rows))) @ z
        return [by.correction(residual, image, noise).flatten() / (image**0.5 * std) for by in (known, found)]

    for scales in ((1.0, 1.0), (20.0, 0.5)):
        assert off(*corrections(*scales), 1.0) < CLOSE
    with pytest.warns(UserWarning, match="as if their noise had"):
        want, told = corrections(1e3, 0.03)
    assert off(told, want, 1.0) < float(want.abs().max())


def off(found, exact, scale):
    return float(((found - exact).abs() / scale).max())


def test_noise_that_float32_resolves_changes_no_calibrated_error_bars():
    model = scan_of(parallel(), noise=0.0)
    held = np.array([3, 9, 15, 21])
    fitted = ~torch.isin(model.views, torch.as_tensor(held))
    plain = fit_evidence(model, fitted, rng=torch.Generator().manual_seed(0))
    assert solvable(plain, model, "float64") is plain
    raised = solvable(plain, model, "cg")
    assert raised.sigma2 > 100 * plain.sigma2 and raised.noiseless
    assert solvable(replace(plain, sigma2=2 * raised.sigma2), model, "cg").sigma2 == 2 * raised.sigma2


@pytest.mark.parametrize("columns", [100, 640])
@pytest.mark.parametrize("views", [5, 100, 384, 512, 720, 1024, 1536, 3072])
def test_some_of_many_rays_are_of_all_views_and_all_columns(views, columns):
    some = some_of(views * columns, 3072)
    assert len(some.unique()) == len(some) == min(3072, views * columns)
    for place, size in ((some % columns, columns), (some // columns, views)):
        counts = torch.bincount(place * 5 // size, minlength=5) / len(some)
        assert counts.min() > 0.17 and counts.max() < 0.23
