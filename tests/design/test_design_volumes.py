from dataclasses import replace

import numpy as np
import pytest
import torch

from ctuq.app.cli import main
from ctuq.baselines.pixels import PixelMatern
from ctuq.design import DIAGONAL_EIG, Arc, Designer, Isotropic, LinDIPOptions, Matern, learner
from ctuq.design.volumes import coarse_scan
from ctuq.errors import GeometryError, InputError
from ctuq.files import write_volume_scan
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo.footprint import pitches
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.solids import solid_scan

DEGREES = np.pi / 180
MEASURED = np.arange(0, 360, 60) * DEGREES
CANDIDATES = np.arange(0, 360, 15) * DEGREES


@pytest.fixture(scope="module")
def scan():
    return solid_scan("shells", 12, MEASURED, noise=0.02, seed=0, distances=(100.0, 200.0))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 4, 3), (1, 3, 1)])
def test_a_process_over_the_voxels_is_that_of_their_distances(shape):
    kernel = PixelMatern(shape, 1.7)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, len(shape))
    expected = torch.from_numpy(np.exp(-np.linalg.norm(places[:, None] - places, axis=-1) / 1.7))
    torch.testing.assert_close(kernel.dense(), expected)
    torch.testing.assert_close(kernel.times(torch.eye(len(places), dtype=torch.float64)), expected)


def test_the_views_of_a_design_are_those_of_the_scanner(scan):
    coarse = coarse_scan(scan, CANDIDATES, size=12)
    problem = coarse.problem
    beam = problem.A.geometry.beam
    x = torch.rand(problem.A.grid.shape, generator=torch.Generator().manual_seed(0))
    expected = volume_transform(problem.A.grid, beam)(x)
    torch.testing.assert_close(problem.A(x), expected.swapaxes(0, 1).reshape(problem.views, -1), rtol=1e-5, atol=1e-5)
    assert problem.rows.rays == beam.rows * beam.columns
    # Measured angles are no candidates, whatever their turn.
    assert problem.allowed.sum() == 24 - 6 and not problem.allowed[:6].any()
    np.testing.assert_allclose(problem.angles[:6], MEASURED)


@pytest.mark.parametrize(("size", "bins"), [(12, 1), (6, 2), (4, 3)])
def test_pixels_are_averaged_to_the_width_of_a_voxel(scan, size, bins):
    rows = scan.geometry.rows
    weights = np.random.default_rng(0).uniform(0.5, 2, scan.projections.shape).astype(np.float32)
    coarse = coarse_scan(replace(scan, weights=weights), CANDIDATES, size=size)
    beam = coarse.problem.A.geometry.beam
    assert coarse.bins == (bins, bins)
    assert beam.rows == rows // bins
    assert pitches(beam)[1] == pytest.approx(coarse.problem.A.grid.voxel, rel=0.05)
    assert coarse.projections.shape == coarse.weights.shape == (6, beam.rows * beam.columns)
    first, w = (a[:bins, 0, :bins].astype(float) for a in (scan.projections, weights))
    assert coarse.projections[0, 0] == pytest.approx((first * w).sum() / w.sum(), rel=1e-4)
    assert coarse.weights[0, 0] == pytest.approx(w.mean(), rel=1e-4)
    # The first coarse pixel lies where the mean of its pixels lies.
    fine = scan.geometry.vectors()[0]
    wanted = fine[3:6] + fine[6:9] * (bins / 2 - scan.geometry.columns / 2) + fine[9:] * (bins / 2 - rows / 2)
    found = beam.vectors()[0]
    np.testing.assert_allclose(found[3:6] - found[6:9] * (beam.columns - 1) / 2 - found[9:] * (beam.rows - 1) / 2, wanted)


def test_greedy_angles_of_a_cone_are_those_of_dense_algebra(scan):
    coarse = coarse_scan(scan, CANDIDATES, size=6)
    designer = Designer(coarse.problem, Matern())
    designer.tell(coarse.measured, coarse.projections, coarse.weights)
    found = designer.ask(2)
    S = PixelMatern(coarse.problem.A.grid.shape, designer.model.hyperparameters["lengthscale (pixels)"]).dense()
    S = S * designer.model.hyperparameters["variance"]
    A = torch.from_numpy(coarse.problem.A.matrix.toarray()).double().reshape(coarse.problem.views, -1, S.shape[0])
    noise, given = designer.model.sigma2, list(range(6))
    for view, scores in zip(found.views, found.scores, strict=True):
        B = A[given].reshape(-1, S.shape[0])
        P = S - S @ B.T @ torch.linalg.solve(B @ S @ B.T + noise * torch.eye(len(B)), B @ S)
        gains = [0.5 * torch.logdet(torch.eye(A.shape[1]) + a @ P @ a.T / noise).item() for a in A[6:]]
        np.testing.assert_allclose(scores[6:], gains, rtol=1e-6)
        assert gains[view - 6] == pytest.approx(max(gains), rel=1e-6)
        given.append(int(view))


def test_a_forbidden_arc_is_never_asked_for(scan):
    settings = {"forbidden": (Arc(0.0, np.pi),), "criterion": DIAGONAL_EIG}
    coarse = coarse_scan(scan, CANDIDATES, size=4, **settings)
    designer = Designer(coarse.problem, Isotropic())
    designer.tell(coarse.measured, coarse.projections, coarse.weights, anyway=True)
    asked = designer.ask(30).angles % (2 * np.pi)
    assert len(asked) == 9 and (asked > np.pi).all()


def test_what_cannot_be_designed_is_refused_in_a_sentence(scan):
    with pytest.raises(InputError, match="All candidate angles were measured"):
        coarse_scan(scan, MEASURED + 2 * np.pi)
    with pytest.raises(GeometryError, match="free vectors"):
        coarse_scan(replace(scan, geometry=scan.geometry.raised(np.linspace(-1, 1, 6))), CANDIDATES)


@pytest.mark.parametrize("distances", [(100.0, 200.0), None])
def test_the_command_prints_the_next_angles_their_gain_and_what_it_took(distances, tmp_path, capsys):
    path, picture = tmp_path / "scan.h5", tmp_path / "angles.png"
    write_volume_scan(solid_scan("ball", 12, MEASURED, noise=0.02, seed=0, distances=distances), path)
    assert main(["design", "next", str(path), "-n", "2", "--size", "8", "--draw", str(picture)]) == 0
    told = capsys.readouterr().out
    assert "Measured: 6 views" in told and "nats" in told and "s to choose" in told
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert main(["design", "next", str(path), "--candidates", "0:360:60"]) == 2
    assert main(["design", "next", str(path), "--size", "400"]) == 2


def test_a_network_of_three_axes_can_choose_too(scan):
    coarse = coarse_scan(scan, CANDIDATES, size=4)
    dip = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,), dims=3), iterations=20, check_every=10)
    designer = Designer(coarse.problem, learner("lindip", dip=LinDIPOptions(dip=dip)))
    designer.tell(coarse.measured, coarse.projections, coarse.weights)
    assert designer.ask(2).gains[0] > 0
    assert designer.model.image.shape == coarse.problem.A.grid.shape
