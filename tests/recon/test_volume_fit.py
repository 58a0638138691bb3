"""The Deep Image Prior of volumes is the one of images: the same code on three axes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.recon.dip import Data, DIPOptions, dip, generator, trial_step
from ctuq.recon.educated import educated_weights
from ctuq.recon.fdk import fdk
from ctuq.recon.holdout import split, useful_views
from ctuq.recon.start import first_image, random_weights
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.tomo import ConeBeam, Parallel3D, VolumeGrid
from ctuq.tomo.rays.volume import volume_transform

SMALL = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,), dims=3), iterations=8, check_every=4)
TURN = np.arange(12) * 2 * np.pi / 12


def ball(shape=(8, 10, 12)):
    """A ball of 0.05 per mm beside the middle of voxels of 1 mm."""
    z, y, x = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    return 0.05 * ((z - 0.5) ** 2 + (y + 1) ** 2 + (x - 1) ** 2 < 9).float()


def cone(angles=TURN):
    return ConeBeam(angles=angles, rows=12, columns=18, pixel=2.0, source_to_axis=100.0, source_to_detector=200.0)


def scanned(geometry, shape=(8, 10, 12)):
    A = volume_transform(VolumeGrid(shape, 1.0), geometry)
    y = A(ball(shape))
    return Data(A, y, torch.ones_like(y)), ball(shape)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_misfit_is_the_mean_over_all_rays_of_a_volume():
    data, _ = scanned(cone())
    weights = torch.rand(1, *data.y.shape, generator=rng())
    x = torch.rand(2, *data.A.domain.shape, generator=rng(1))
    expected = [(weights[0] * (data.A(one) - data.y) ** 2).sum() / weights.sum() for one in x]
    torch.testing.assert_close(Data(data.A, data.y[None], weights).misfit(x), torch.stack(expected))


@pytest.mark.parametrize(
    "geometry",
    [
        cone(),
        Parallel3D(angles=TURN[:6], rows=8, columns=16, pixel=1.0),
        Parallel3D(angles=TURN, rows=12, columns=16, pixel=1.0, axis_tilt=0.5),
        cone().raised(2 * np.sin(TURN)),
    ],
    ids=["cone", "parallel", "leaning", "free"],
)
def test_the_first_image_shows_the_object_in_every_geometry(geometry):
    data, truth = scanned(geometry)
    inputs, scale = first_image(data.A, data.y[None], data.weights[None])
    assert inputs.shape == (1, *truth.shape)
    assert 0.5 < float(scale) / (1.5 * 0.05) < 1.2
    image = scale * inputs[0]
    assert float(((image - truth) ** 2).mean()) < 0.3 * float((truth**2).mean())


def test_held_out_views_are_taken_out_of_every_row():
    data, _ = scanned(cone())
    fit, stop = split(data, np.array([2, 7]), rng=rng())
    assert (fit.y.shape, stop.y.shape) == ((1, 12, 10, 18), (1, 12, 2, 18))
    torch.testing.assert_close(stop.y[0], data.y[:, [2, 7]])
    np.testing.assert_array_equal(stop.A.geometry.angles, data.A.geometry.angles[[2, 7]])
    torch.testing.assert_close(stop.A(ball()), data.y[:, [2, 7]])


def test_a_view_is_useful_if_one_ray_of_any_row_counts():
    weights = np.zeros((3, 4, 5))
    weights[2, 1, 0] = weights[0, 3, 4] = 1
    assert useful_views(weights).tolist() == [1, 3]


def test_a_fit_comes_nearer_to_views_it_never_sees():
    data, truth = scanned(cone())
    fit, stop = split(data, np.array([2, 7]), rng=rng())
    options = replace(SMALL, network=UNetOptions(channels=(8, 8), skips=(4,), dims=3), iterations=150, check_every=25)
    generate, start = generator(fit, options, rng=rng())
    *_, state = dip(generate, start, fit, stop, options)
    image = generate(state.best)[0].detach()
    assert image.shape == truth.shape
    assert float(state.best_misfit / stop.size) < 0.02
    assert float(((image - truth) ** 2).mean()) < float(((fdk(fit.A, fit.y)[0] - truth) ** 2).mean())


def test_a_fit_goes_on_as_if_never_stopped():
    data, _ = scanned(cone())
    fit, stop = split(data, np.array([2, 7]), rng=rng())
    generate, start = generator(fit, SMALL, rng=rng())
    states = list(dip(generate, start, fit, stop, SMALL))
    *_, again = dip(generate, start, fit, stop, SMALL, resume=states[0])
    assert again.iteration == states[-1].iteration == 8
    assert all(torch.equal(again.best[name], value) for name, value in states[-1].best.items())


def test_activations_made_twice_give_the_same_step():
    data, _ = scanned(cone())
    fit, _ = split(data, np.array([2, 7]), rng=rng())
    generate, start = generator(fit, SMALL, rng=rng())
    found = []
    for g in (generate, replace(generate, sparing=True)):
        weights = {name: value.clone().requires_grad_(True) for name, value in start.items()}
        fit.misfit(g(weights)).sum().backward()
        found.append([value.grad for value in weights.values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert any(bool(value.any()) for value in found[0])
    trial_step(replace(generate, sparing=True), start, fit)


def test_a_batch_of_volumes_is_fitted_like_each_alone():
    data, _ = scanned(cone())
    fit, _ = split(data, np.array([2, 7]), rng=rng())
    pair = Data(fit.A, torch.cat([fit.y, 0.5 * fit.y]), fit.weights)
    generate, start = generator(pair, SMALL, rng=rng())
    images = generate(start)
    assert images.shape == (2, *fit.A.domain.shape)
    for i in range(2):
        network, _ = generate.module({name: value[i:] for name, value in start.items()})
        torch.testing.assert_close(generate.scale[i] * network(generate.inputs[i])[0, 0], images[i])


def test_random_weights_begin_flat_at_the_level_asked_for():
    data, truth = scanned(cone())
    fit, _ = split(data, np.array([2, 7]), rng=rng())
    generate, _ = generator(fit, SMALL, rng=rng())
    image = generate(random_weights(generate, fit, SMALL.network, rng=rng(1)))
    assert float(image.mean()) == pytest.approx(float(truth.mean()), rel=0.5)
    assert float(image.std()) < 0.5 * float(image.mean())


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 8), (3, 5, 12), (7, 1, 2)])
def test_slices_stay_apart_at_every_scale(shape):
    network = UNet(UNetOptions(channels=(4, 4, 4), skips=(0, 2), dims=3), rng())
    x = torch.rand(1, 1, *shape, generator=rng(2))
    assert network(x).shape == x.shape
    coarse = network.down[2](network.down[1](network.down[0](x))).shape[2:]
    assert coarse == (shape[0], (shape[1] + 3) // 4, (shape[2] + 3) // 4)


def test_the_educated_start_makes_of_each_slice_what_that_of_images_does():
    volume, image = (UNet(UNetOptions(dims=dims), rng()) for dims in (3, 2))
    volume.load_state_dict(educated_weights(3))
    image.load_state_dict(educated_weights())
    x = torch.rand(1, 1, 3, 13, 16, generator=rng(2))
    torch.testing.assert_close(volume(x)[0, 0], image(x[0].transpose(0, 1))[:, 0])


def test_a_volume_starts_educated_unless_it_is_asked_not_to():
    data, truth = scanned(cone(), (8, 12, 12))
    fit, _ = split(data, np.array([2, 7]), rng=rng())
    options = DIPOptions(network=UNetOptions(dims=3))
    assert options.educated and options.patient and not SMALL.educated
    generate, start = generator(fit, options, rng=rng())
    assert torch.equal(start["out.weight"][0], educated_weights(3)["out.weight"])
    assert float(((generate(start)[0] - truth) ** 2).mean()) < 0.5 * float((truth**2).mean())
