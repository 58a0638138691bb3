"""The engines on a pretended GPU give the numbers of the host: classical methods, angle design, Laplace, Gaussian processes."""

import numpy as np
import pytest
import torch
from pretend import close
from trained_networks import trained

from ctuq import laplace
from ctuq.design import Designer, DesignProblem, LinDIPOptions, learner
from ctuq.gp import ConjugateGradients, GaussianProcess, Matern32
from ctuq.laplace.system import descent
from ctuq.recon import CLASSICAL
from ctuq.recon.dip import DIPOptions
from ctuq.recon.fdk import fdk
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ConeBeam, FanBeam, ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.rays.volume import volume_transform

SIZE, VIEWS, COLUMNS = 12, 10, 17
GRID = VolumeGrid((SIZE, SIZE), 1.0)
BEAMS = {
    "parallel": ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=COLUMNS, pixel=1.0),
    "fan": FanBeam(
        angles=2 * np.arange(VIEWS) * np.pi / VIEWS, columns=COLUMNS, pixel=2.0, source_to_axis=60.0, source_to_detector=120.0
    ),
}


def rng():
    return torch.Generator().manual_seed(0)


def square():
    image = torch.zeros(SIZE, SIZE)
    image[3:8, 4:9] = 0.05
    return image


def measured(device, beam="parallel"):
    A = ray_transform(GRID, BEAMS[beam], device=device)
    y = ray_transform(GRID, BEAMS[beam])(square())
    y = y + 0.005 * torch.randn(y.shape, generator=rng())
    return A, y.to(device), (0.5 + torch.rand(y.shape, generator=rng())).to(device)


@pytest.mark.parametrize("method, beam", [(method, "parallel") for method in CLASSICAL] + [("fbp", "fan")])
def test_classical_methods(method, beam, gpu):
    host, found = (
        CLASSICAL[method](A, y, weights=weights) for A, y, weights in (measured(device, beam) for device in ("cpu", gpu))
    )
    assert found.device == gpu
    close(found, host)


NETWORK = LinDIPOptions(dip=DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=20))


@pytest.mark.parametrize("prior", ["matern", "edges", "displaced", "lindip"])
def test_the_next_angle(prior, gpu):
    asked, pilot = [], np.array([0, 3, 5])
    for device in ("cpu", gpu):
        A, y, _ = measured(device)
        designer = Designer(DesignProblem(A=A), learner(prior, dip=NETWORK))
        designer.tell(A.geometry.angles[pilot], y[pilot].cpu().numpy())
        asked.append((designer.scores, designer.ask(2).angles.tolist()))
    close(asked[1][0], asked[0][0], 1e-3)
    assert asked[1][1] == asked[0][1]


def linear_model(device, likelihood=None):
    """A small network linearised at some inputs, what was observed there, and new inputs."""
    net, x, f = trained(1 if likelihood is None else 3)
    y = f + 0.3 * torch.randn(f.shape, generator=rng(), dtype=f.dtype)
    model = laplace.linearise(net.to(device), x[:30].to(device), likelihood=likelihood or laplace.Gaussian())
    return model, (y if likelihood is None else y.argmax(1))[:30].to(device), x[40:46].to(device)


@pytest.mark.parametrize("method, classes", [("dense", False), ("em", False), ("dense", True)])
def test_evidence_of_a_network(method, classes, gpu):
    fits = []
    for device in ("cpu", gpu):
        model, y, _ = linear_model(device, laplace.Categorical() if classes else None)
        prior = laplace.isotropic(model) if method == "dense" else laplace.layerwise(model)
        fits.append(laplace.maximise_evidence(model, y, prior, method=method, samples=8, with_sweep=False, rng=rng()))
    assert fits[1].log_evidence == pytest.approx(fits[0].log_evidence, abs=1e-3)
    close(fits[1].psi, fits[0].psi, 1e-3)


@pytest.mark.filterwarnings("ignore:SGD reached")
@pytest.mark.parametrize("solver", ["cholesky", "cg", "sgd"])
def test_posterior_of_a_network(solver, gpu, monkeypatch):
    monkeypatch.setattr(descent, "_LEAST_STEPS", 20)  # few, and the same on both
    found = []
    for device in ("cpu", gpu):
        model, y, new = linear_model(device)
        fit = laplace.maximise_evidence(model, y, with_sweep=False, rng=rng())
        post = laplace.posterior(fit, solver=solver, draws=4, rng=rng())
        predicted = post.predict(new)
        found.append((post.std(new), predicted.mean, predicted.covariance))
    for a, b in zip(found[1], found[0], strict=True):
        assert a.device == gpu
        close(a, b, 1e-3)


@pytest.mark.parametrize("solver", ["cholesky", ConjugateGradients(tolerance=1e-9)], ids=str)
def test_a_gaussian_process_and_its_paths(solver, gpu):
    x = 2 * torch.randn(40, 2, generator=rng(), dtype=torch.float64)
    y, new, found = torch.sin(x[:, 0]) + 0.5 * x[:, 1], x[:5] + 0.3, []
    for device in ("cpu", gpu):
        process = GaussianProcess(Matern32.of(1.3, [0.8, 1.4]), 0.09)
        post = process.condition(x.to(device), y.to(device), solver=solver, rng=rng(), dtype=torch.float64)
        found.append((*post.predict(new.to(device)), post.samples(3, rng=rng())(new.to(device))))
    for a, b in zip(found[1], found[0], strict=True):
        assert a.device == gpu
        close(a, b)


def test_projections_of_volumes(gpu):
    grid = VolumeGrid((6, 8, 8), 1.0)
    geometry = ConeBeam(angles=np.arange(5) * 1.2, rows=9, columns=12, pixel=2.0, source_to_axis=60.0, source_to_detector=120.0)
    x, y = torch.rand(2, *grid.shape, generator=rng()), torch.rand(2, *geometry.shape, generator=rng())
    found = []
    for device in ("cpu", gpu):
        A = volume_transform(grid, geometry, backend="torch", device=device)
        found.append((A(x.to(device)), A.T(y.to(device)), fdk(A, y[0].to(device))))
    for a, b in zip(found[1], found[0], strict=True):
        assert a.device == gpu
        close(a, b)
