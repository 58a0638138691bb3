"""Error bars of volumes from the pipeline and the command: what is told, kept, gone on with, and what strangers bring."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from killing import die, killed

from ctuq import stages
from ctuq.app.cli import main
from ctuq.errors import InputError
from ctuq.files import write_volume_scan
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import plan_volume, reconstruct_volume
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import Parallel3D, VolumeGrid, VolumeScan, radians
from ctuq.tomo.solids import solid_scan
from ctuq.tomo.space import FreeBeam
from ctuq.uncertainty.calibration import unseen
from ctuq.uncertainty.model import route as routes
from ctuq.uncertainty.results.volume import VolumeResult

DIP = DIPOptions(network=UNetOptions(channels=(8, 8), skips=(4,), dims=3), iterations=20, check_every=10)
OPTIONS = VolumeOptions("dip", 8, samples=6, dip=DIP)
BOX = ((2, 4), (0, 8), (3, 7))


@pytest.fixture(scope="module", autouse=True)
def few_directions():
    """As of a volume too large for its exact Jacobian; and of few rays, as the evidence is no concern here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "rank_of", lambda *_: 16)
        patch.setattr("ctuq.uncertainty.estimate.EVIDENCE_RAYS", 150)
        patch.setattr(routes, "_SOME", 8)
        yield


@pytest.fixture(scope="module")
def scan():
    return solid_scan("ball", 8, np.arange(9) * 2 * np.pi / 9, noise=0.03, seed=0, distances=(100.0, 200.0))


@pytest.fixture(scope="module")
def whole(scan):
    return reconstruct_volume(scan, options=OPTIONS)


def test_a_volume_has_error_bars_samples_and_what_checks_them(whole, tmp_path):
    assert whole.std.shape == whole.mean.shape and (whole.std > 0).all()
    assert whole.samples.shape == (6, *whole.mean.shape)
    assert np.array_equal(whole.held_views, whole.calibration.views)
    assert set(whole.trust) == {"truth", "held_out", "held_out_raw", "leave_one_angle_out"}
    assert 0.4 < whole.trust["held_out"]["rms_z"] < 1.6
    assert any("16 directions" in text for text in whole.warnings)
    spread = np.sqrt(np.mean((whole.samples - whole.mean) ** 2, axis=0)) / whole.std
    assert 0.7 < np.median(spread) < 1.3
    whole.save(tmp_path / "r.h5")
    again = VolumeResult.load(tmp_path / "r.h5")
    for name in ("mean", "std", "samples"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert again.trust == whole.trust and again.plan == whole.plan and again.prior == whole.prior
    np.testing.assert_array_equal(again.calibration.predictions, whole.calibration.predictions)
    with VolumeResult.open(tmp_path / "r.h5") as file:
        np.testing.assert_array_equal(file.samples[2], whole.samples[2])


def test_a_volume_of_a_beam_that_may_harden_is_less_sure(scan, whole):
    unknown = replace(scan, provenance=replace(scan.provenance, facts={}))
    # The ball lets most of the beam through, and its nine views leave much else unknown.
    unsure = reconstruct_volume(unknown, options=replace(OPTIONS, systematics="default,hardening=50"))
    np.testing.assert_array_equal(unsure.mean, whole.mean)
    core = whole.mean > 0.8 * whole.mean.max()
    assert bool((unsure.std >= whole.std).all()) and np.median(unsure.std[core] / whole.std[core]) > 1.01
    assert any("hardening" in text for text in unsure.warnings) and not any("hardening" in text for text in whole.warnings)
    assert any("what rays would tell of the scanner (axis, gain, truncation)" in text for text in whole.warnings)
    with pytest.raises(InputError, match="flux is of single slices"):
        replace(OPTIONS, systematics="flux")


def test_a_region_of_interest_alone_has_error_bars_and_samples(scan, whole, tmp_path):
    alone = reconstruct_volume(scan, options=replace(OPTIONS, roi=((3, 4), (3, 4), (3, 4))))
    np.testing.assert_allclose(alone.std[3, 3, 3], whole.std[3, 3, 3], rtol=1e-5)
    assert np.isfinite(alone.std).sum() == 1 and np.isnan(alone.trust["truth"]["rank_correlation"])
    part = reconstruct_volume(scan, options=replace(OPTIONS, roi=BOX))
    box = tuple(slice(*ends) for ends in BOX)
    np.testing.assert_array_equal(part.mean, whole.mean)
    assert part.samples.shape == (6, 2, 8, 4)
    np.testing.assert_allclose(part.std[box], whole.std[box], rtol=1e-5)
    assert np.isfinite(part.std).sum() == 64
    part.save(tmp_path / "r.h5")
    again = VolumeResult.load(tmp_path / "r.h5")
    assert again.roi == BOX
    np.testing.assert_array_equal(again.samples, part.samples)


@pytest.fixture(scope="module")
def arc(scan):
    """Views over 80 degrees."""
    return solid_scan("ball", 8, np.deg2rad(np.arange(0, 81, 10)), noise=0.03, seed=0, distances=(100.0, 200.0))


@pytest.fixture
def sure(monkeypatch):
    """The posterior of so short a fit has more room than its faint image asks for; here it has none, and the image more."""
    plain = unseen.energy

    def energy(images, directions):
        return plain(images, directions) * (1e-6 if images.ndim == 4 else 1e4)

    monkeypatch.setattr(unseen, "energy", energy)


def test_what_no_view_of_an_arc_sees_is_in_the_error_bars_and_told(arc, sure, monkeypatch):
    over_arc = reconstruct_volume(arc, options=OPTIONS)
    assert sum("No view lies within" in text and "have room" in text for text in over_arc.warnings) == 1
    part = reconstruct_volume(arc, options=replace(OPTIONS, roi=BOX))
    box = tuple(slice(*ends) for ends in BOX)
    np.testing.assert_allclose(part.std[box], over_arc.std[box], rtol=1e-5)
    assert part.samples.shape == (6, 2, 8, 4)
    spread = np.sqrt(np.mean((over_arc.samples - over_arc.mean) ** 2, axis=0)) / over_arc.std
    assert 0.7 < np.median(spread) < 1.3
    monkeypatch.setattr("ctuq.pipeline.volume.bars.of_all_directions", lambda posterior, *_, **__: (posterior, ()))
    plain = reconstruct_volume(arc, options=OPTIONS)
    np.testing.assert_array_equal(plain.mean, over_arc.mean)
    assert plain.trust["held_out"] == over_arc.trust["held_out"]
    assert (over_arc.std >= plain.std).all()
    inside = arc.truth > 0.5 * arc.truth.max()
    assert np.median(over_arc.std[inside] / plain.std[inside]) > 1.05


def test_room_in_unseen_directions_is_the_same_on_a_gpu(arc, sure, gpu):
    torch.manual_seed(0)
    over_arc = reconstruct_volume(arc, options=replace(OPTIONS, device="cpu"))
    there = reconstruct_volume(arc, options=replace(OPTIONS, device="cuda"))
    np.testing.assert_allclose(there.mean, over_arc.mean, atol=1e-3 * over_arc.mean.max())
    np.testing.assert_allclose(there.std, over_arc.std, rtol=0.02)


# Over an arc, draws tell before the samples what room there is.
@pytest.mark.parametrize(("kind", "dies"), [("scan", 3), ("arc", 4)])
def test_a_run_killed_among_its_samples_goes_on_to_the_same_bits(kind, dies, request, sure, tmp_path, monkeypatch):
    scan = request.getfixturevalue(kind)
    monkeypatch.setattr(stages, "_WORTH", 0.0)
    monkeypatch.setattr("ctuq.uncertainty.model.posterior.images_together", lambda _: 2)
    path = tmp_path / "checkpoint.h5"
    plain = reconstruct_volume(scan, options=OPTIONS)

    def work():
        from ctuq.uncertainty.model.solved import SolvedRays

        draws = SolvedRays.draws
        made = []

        def counted(*arguments, **settings):
            made.append(None)
            return die() if len(made) == dies else draws(*arguments, **settings)

        monkeypatch.setattr(SolvedRays, "draws", counted)
        reconstruct_volume(scan, options=OPTIONS, checkpoint=path)

    assert killed(work)
    assert {p.name for p in path.with_suffix(".stages").glob("joint*")} == {"joint_samples_0.npz", "joint_samples_2.npz"}
    again = reconstruct_volume(scan, options=OPTIONS, checkpoint=path)
    for name in ("mean", "std", "samples"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plain, name))


def test_the_command_writes_what_it_tells(scan, tmp_path, monkeypatch, capsys):
    write_volume_scan(scan, tmp_path / "scan.h5")
    monkeypatch.setattr("ctuq.app.volumes.DIPOptions", lambda **_: DIP)
    command = ["reconstruct", str(tmp_path / "scan.h5"), "--volume", "--size", "8", "--samples", "2", "--roi", "2:4,0:8,3:7"]
    assert main([*command, "--plan"]) == 0
    assert "Then error bars: 512 voxels" in capsys.readouterr().out
    folder = tmp_path / "run"
    assert main([*command, "-o", str(folder)]) == 0
    told = capsys.readouterr()
    assert "Only the voxels 2:4,0:8,3:7" in told.out and "held-out views that the fit never saw" in told.out
    assert "voxel's standard deviation may differ" in told.out + told.err
    result = VolumeResult.load(folder / "results.h5")
    np.testing.assert_array_equal(tifffile.imread(folder / "std.tif"), result.std)
    page = (folder / "report.html").read_text()
    assert "Only the voxels 2:4,0:8,3:7" in page and "leave_one_angle_out: rms_z" in page


def test_the_plan_prices_the_route_before_the_fit(scan):
    plan = plan_volume(scan, OPTIONS)
    assert plan.bars.route.dims == 3 and plan.bars.route.rank == 16
    assert plan.total > plan.seconds and plan.peak >= plan.bars.bytes
    assert plan_volume(scan, replace(OPTIONS, uncertainty=False)).bars is None
    with pytest.raises(InputError, match="0:9 along x"):
        plan_volume(scan, replace(OPTIONS, roi=((0, 8), (0, 8), (0, 9))))


def parallel(shape, views=7, weights=None, **settings):
    rng = np.random.default_rng(0)
    grid = VolumeGrid(shape, 1.0)
    geometry = Parallel3D(angles=radians(np.arange(views) * 180 / views), rows=shape[0], columns=10, pixel=1.0, **settings)
    solid = np.zeros(shape, np.float32)
    solid[:, 2:-2, 2:-2] = 0.05
    from ctuq.tomo.rays.volume import volume_transform

    clean = volume_transform(grid, geometry)(torch.from_numpy(solid)).numpy()
    noisy = clean + 0.02 * rng.standard_normal(clean.shape).astype(np.float32)
    return VolumeScan(noisy, geometry, truth=solid, grid=grid, weights=weights)


def free(scan):
    geometry = scan.geometry
    table = FreeBeam(table=geometry.vectors(), rows=geometry.rows, columns=geometry.columns, is_cone=geometry.diverging)
    return replace(scan, geometry=table)


STRANGERS = {
    "one slice": lambda: parallel((1, 8, 8)),
    "two slices": lambda: parallel((2, 8, 8)),
    "not a cube": lambda: parallel((5, 6, 8)),
    "an axis that leans": lambda: parallel((4, 8, 8), axis_tilt=0.3),
    "three views": lambda: parallel((4, 8, 8), views=3),
    "one held-out view": lambda: parallel((4, 8, 8), views=5),
    "free vectors": lambda: free(parallel((4, 8, 8))),
    "a detector row without weight": lambda: parallel((4, 8, 8), weights=_masked((4, 7, 10), (1,))),
    "a view without weight": lambda: parallel((4, 8, 8), weights=_masked((4, 7, 10), (slice(None), 3))),
    "rays of very different weights": lambda: parallel(
        (4, 8, 8), weights=np.geomspace(1e-3, 1e3, 280).reshape(4, 7, 10).astype(np.float32)
    ),
}


def _masked(shape, where):
    weights = np.ones(shape, np.float32)
    weights[where] = 0
    return weights


@pytest.mark.parametrize("name", STRANGERS)
def test_a_stranger_s_volume_has_finite_error_bars(name):
    result = reconstruct_volume(STRANGERS[name](), options=replace(OPTIONS, samples=2))
    assert np.isfinite(result.std).all() and (result.std >= 0).all() and (result.std > 0).mean() > 0.9
    assert np.isfinite(result.samples).all()
    if name == "three views":
        assert result.calibration is None and any("Not calibrated" in text for text in result.warnings)
    else:
        assert len(result.calibration.views) == (2 if result.geometry.n_angles >= 8 else 1)
        assert np.isfinite(result.calibration.predictions).all()


def test_no_samples_and_no_uncertainty_are_left_out(scan):
    assert reconstruct_volume(scan, options=replace(OPTIONS, samples=0)).samples is None
    plain = reconstruct_volume(scan, options=replace(OPTIONS, uncertainty=False))
    assert plain.std is None and plain.calibration is None
