"""What runs on a host runs on a GPU, with its numbers: on a pretended one, which refuses what a real one refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pretend import Pretended, close

from ctuq.laplace import Point
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.linops.orthonormal import orthonormalise_
from ctuq.linops.sparse import SparseRows
from ctuq.pipeline import ReconstructOptions, reconstruct
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNet, UNetOptions
from ctuq.stages import Stages
from ctuq.tomo import Parallel3D, ParallelBeam, VolumeGrid, radians, ray_transform
from ctuq.tomo.rays import volume as volume_rays
from ctuq.tomo.rays.volume import volume_transform
from ctuq.uncertainty.estimate import estimate, kept_evidence
from ctuq.uncertainty.model.left_out import LeftOut
from ctuq.uncertainty.model.linear import image_model
from ctuq.uncertainty.model.route import NOISE_BY, route
from ctuq.uncertainty.model.solved import SolvedRays

NETWORK = UNetOptions(channels=(4, 4), skips=(2,))
SIZE, VIEWS, COLUMNS = 8, 9, 10


def rng():
    return torch.Generator().manual_seed(0)


def refused(what, operation):
    with pytest.raises((RuntimeError, TypeError), match=what):
        operation()


def test_a_pretended_gpu_refuses_what_a_gpu_refuses(gpu):
    there, here = torch.ones(3, 3, device="cuda"), torch.ones(3, 3)
    assert isinstance(there, Pretended) and there.device == gpu and (here.to(gpu) + there).device == gpu
    assert there.cpu().device.type == "cpu" and float(there.sum()) == 9
    assert (there * here[0, 0] + 2 * there[torch.tensor([0, 1, 2])]).tolist() == [[3.0] * 3] * 3
    refused("two devices", lambda: there + here)
    refused("two devices", lambda: there @ here)
    refused("two devices", lambda: torch.stack([there[0, 0], here[0, 0]]))
    refused("two devices", lambda: there.__setitem__(torch.tensor([0]), here[:1]))
    refused("indices should be", lambda: here[there.long()])
    refused("numpy", there.numpy)
    refused("numpy", lambda: np.asarray(there))
    refused("generator", lambda: torch.randn(3, device=gpu, generator=rng()))


def test_a_reconstruction_gives_the_numbers_of_the_host(noisy_scan, gpu):
    dip = DIPOptions(network=NETWORK, iterations=20, check_every=10)
    options = ReconstructOptions(size=16, samples=6, directions=12, dip=dip, device="cpu")
    host, found = reconstruct(noisy_scan, options=options), reconstruct(noisy_scan, options=replace(options, device="cuda"))
    for name in ("mean", "std", "std_raw", "samples"):
        close(getattr(found, name), getattr(host, name), 1e-3)
    kept, expected = (np.tensordot(r.directions, r.directions, (0, 0)) for r in (found, host))
    close(kept, expected, 1e-3)
    assert found.log_evidence == pytest.approx(host.log_evidence, abs=0.02)
    close(found.calibration.predictions, host.calibration.predictions, 1e-3)
    assert found.scores["leave_one_angle_out"] == pytest.approx(host.scores["leave_one_angle_out"], rel=1e-3)


@pytest.mark.parametrize("method", ["tv", "dip"])
def test_error_bars_over_an_arc_are_those_of_the_host(method, disc_scan, gpu):
    """With what no view sees, and with hidden errors of the scanner beside a Gaussian prior."""
    scan = disc_scan.select(np.flatnonzero(disc_scan.geometry.angles < np.deg2rad(80)))
    dip = DIPOptions(network=NETWORK, iterations=20, check_every=10)
    options = ReconstructOptions(method=method, size=16, samples=6, directions=12, dip=dip, device="cpu")
    host, found = reconstruct(scan, options=options), reconstruct(scan, options=replace(options, device="cuda"))
    assert any("No view lies within" in text for text in found.warnings)
    for name in ("mean", "std", "std_raw", "samples"):
        close(getattr(found, name), getattr(host, name), 1e-3)


def model_on(device, rank, prior="isotropic"):
    """The linear model of a tiny scan by a tiny network, and its projections."""
    draw, grid = rng(), VolumeGrid((SIZE, SIZE), 1.0)
    geometry = ParallelBeam(angles=radians(np.arange(VIEWS) * 20), columns=COLUMNS, pixel=1.0)
    A = ray_transform(grid, geometry, backend="matrix", device=device)
    network, inputs = UNet(NETWORK, draw).to(device), torch.rand(1, 1, SIZE, SIZE, generator=draw).to(device)
    output, jacobian = jacobian_of(network, inputs)
    image = 0.04 * output.reshape(SIZE, SIZE)
    y = A(image * (1 + 0.3 * torch.randn(SIZE, SIZE, generator=draw).to(device)))
    y = y + 0.01 * torch.randn(y.shape, generator=draw).to(device)
    settings = {"image": image, "jacobian": jacobian, "scale": 0.04, "prior": prior, "rank": rank, "rng": draw}
    return image_model(A, y, torch.ones_like(y), **settings), y


@pytest.mark.parametrize("noise_by", NOISE_BY)
def test_error_bars_of_few_directions_are_those_of_the_host_however_noise_is_solved(noise_by, gpu):
    held, bars = np.array([1, 4, 7]), []
    way = replace(route(SIZE**2, VIEWS * COLUMNS, 60, 1000), noise_by=noise_by, rank=20)
    for device in ("cpu", gpu):
        model, y = model_on(device, 20)
        bars.append(estimate(model, y, held, way=way, rng=rng()))
    host, found = bars
    assert found.correction.device == gpu
    close(found.posterior.std(), host.posterior.std(), 1e-3)
    close(found.posterior.deviations(5, rng=rng()), host.posterior.deviations(5, rng=rng()), 1e-3)
    close(found.correction, host.correction, 2e-3)
    assert found.leave_one_out == pytest.approx(host.leave_one_out, rel=1e-3)


@pytest.mark.parametrize("exact, variation", [(True, 1.0), (False, 0.0)], ids=["TV", "samples"])
def test_evidence_is_that_of_the_host(exact, variation, gpu):
    way, bars = replace(route(SIZE**2, VIEWS * COLUMNS, 60, 1000), exact_evidence=exact), []
    for device in ("cpu", gpu):
        model, y = model_on(device, 20, "g")
        every, draws = torch.ones_like(model.target, dtype=torch.bool), rng()
        evidence = kept_evidence(model, every, way=way, rng=draws, stages=Stages(), variation=variation)
        bars.append(estimate(model, y, np.zeros(0, int), way=way, rng=draws, evidence=evidence))
    host, found = bars
    assert found.evidence.value == pytest.approx(host.evidence.value, abs=0.05)
    close(found.posterior.std(), host.posterior.std(), 1e-2)


def test_left_out_rays_are_those_of_the_host(gpu):
    rows, found = torch.arange(20, 30), []
    for device in ("cpu", gpu):
        model, _ = model_on(device, 20)
        point = Point(model.prior.start() - 1, torch.tensor([1e-2], dtype=torch.float64))
        left = LeftOut.of(SolvedRays.on(model, point, noise_by="float64"), rows.to(device))
        found.append((left.covariance(), left.images_of(torch.eye(10, dtype=torch.float64).to(device))))
    for a, b in zip(found[1], found[0], strict=True):
        close(a, b)


def test_gram_matrices_of_sparse_rows_come_back_to_the_device(gpu):
    geometry = ParallelBeam(angles=radians(np.arange(VIEWS) * 20), columns=COLUMNS, pixel=1.0)
    matrix = ray_transform(VolumeGrid((SIZE, SIZE), 1.0), geometry, backend="matrix").matrix
    found, host = SparseRows(matrix, gpu), SparseRows(matrix)
    v, w = torch.rand(SIZE**2, generator=rng()), torch.rand(VIEWS * COLUMNS, generator=rng())
    pairs = [
        (found.gram(v.to(gpu)), host.gram(v)),
        (found.column_gram(w.to(gpu), torch.float32), host.column_gram(w, torch.float32)),
        (found.squares(v.to(gpu)), host.squares(v)),
        (found.columns(2, 9), host.columns(2, 9)),
        (found.dense(2, 9), host.dense(2, 9)),
        (found.rows(torch.arange(9).to(gpu))(v.to(gpu)[None]), host.rows(torch.arange(9))(v[None])),
        (found.fast(v.to(gpu).expand(30, -1)), host.fast(v.expand(30, -1))),
    ]
    for a, b in pairs:
        assert a.device == gpu
        close(a, b, 1e-6)


def test_rows_are_orthonormal_on_the_device(gpu):
    rows = torch.randn(5, 40, generator=rng()).to(gpu)
    beside = orthonormalise_(rows.clone())
    for made in (orthonormalise_(torch.ones(3, 40, device=gpu), beside=beside), beside):
        close(made @ made.T, torch.eye(len(made)), 1e-4)


def test_products_go_on_with_half_the_rows_where_the_gpu_has_no_memory_left(gpu, monkeypatch):
    network = UNet(NETWORK, rng=rng())
    inputs = torch.rand(1, 1, SIZE, SIZE, generator=rng())
    _, expected = jacobian_of(network, inputs)
    _, J = jacobian_of(network.to(gpu), inputs.to(gpu), chunk=5)
    pushed, pulled = (torch.randn(7, *space.shape, generator=rng()) for space in (expected.domain, expected.range))
    jvp, add_vjp = J._tape.jvp, J._tape.add_vjp

    def short_jvp(tangents):
        if len(tangents[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return jvp(tangents)

    def short_vjp(cotangents, sums):
        if len(cotangents) > 1:
            sums[0] += 1  # what it had done before
            raise torch.OutOfMemoryError("out of memory")
        add_vjp(cotangents, sums)

    monkeypatch.setattr(J._tape, "jvp", short_jvp)
    monkeypatch.setattr(J._tape, "add_vjp", short_vjp)
    with pytest.warns(UserWarning, match="no memory left for 5 rows at once: going on with 2"):
        close(J(pushed.to(gpu)), expected(pushed), 1e-4)
    with pytest.warns(UserWarning, match="no memory left for 2 rows at once: going on with 1"):
        close(J.T(pulled.to(gpu)), expected.T(pulled), 1e-4)
    assert (J.choice.jvp_rows, J.choice.vjp_rows) == (2, 1)
    monkeypatch.setattr(J._tape, "jvp", lambda tangents: short_jvp([torch.cat([t, t, t]) for t in tangents]))
    with pytest.raises(torch.OutOfMemoryError):
        J(pushed[:1].to(gpu))


def test_a_volumes_products_that_do_not_fit_take_their_images_in_parts(gpu, monkeypatch):
    geometry = Parallel3D(angles=np.linspace(0, 3, 5), rows=4, columns=6, pixel=1.0)
    A = volume_transform(VolumeGrid((4, 6, 6), 1.0), geometry, backend="torch", device=gpu)
    x = torch.rand(5, 4, 6, 6, generator=torch.Generator().manual_seed(0)).to(gpu)
    whole, sizes, multiply = A(x), [], volume_rays.multiply

    def little(images, *rest, **how):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return multiply(images, *rest, **how)

    monkeypatch.setattr(volume_rays, "multiply", little)
    with pytest.warns(UserWarning, match="no memory left"):
        close(A(x), whole.cpu())
    assert sizes == [5, 2, 2, 1]
