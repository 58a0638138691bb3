"""Scans as strangers bring them, and habits of theirs: a sound result or one clear sentence, never a silent wrong number."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from images import posterior_covariance
from killing import die, killed

import ctuq
from ctuq import files
from ctuq.errors import InputError
from ctuq.linops.jacobian.network import jacobian_of
from ctuq.pipeline import ReconstructOptions, reconstruct
from ctuq.pipeline.image import network
from ctuq.recon.dip import Data, DIPOptions, dip, generator
from ctuq.recon.holdout import split
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import ParallelBeam, Scan, radians, ray_transform
from ctuq.tomo.simulate import phantom_scan
from ctuq.uncertainty.estimate import fit_evidence
from ctuq.uncertainty.model.linear import image_model
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.solved import SolvedRays

DIP = DIPOptions(network=UNetOptions(channels=(8, 8), skips=(4,)), iterations=80, check_every=20)
OPTIONS = ReconstructOptions(size=16, samples=64, dip=DIP, device="cpu")


def seen(degrees=range(0, 180, 12), size=16, noise=0.02):
    return phantom_scan("ellipses", size, radians(np.asarray(degrees, float)), noise=noise, seed=0)


def weighted(scan, change):
    weights = np.ones(scan.projections.shape, np.float32)
    change(weights)
    return replace(scan, weights=weights)


def one_view(weights):
    weights[:3] = weights[4:] = 0


def half_of_the_rays(weights):
    weights.reshape(-1)[np.random.default_rng(0).permutation(weights.size)[: weights.size // 2]] = 0


def six_decades(weights):
    weights[:] = 10 ** np.random.default_rng(0).uniform(-6, 0, weights.shape)


def in_units(scan, factor):
    return replace(scan, projections=scan.projections * factor, truth=scan.truth * factor)


def two_columns():
    geometry = ParallelBeam(angles=radians(np.arange(0, 180, 12)), columns=2, pixel=10.0)
    return Scan(0.5 + 0.01 * np.random.default_rng(0).standard_normal(geometry.shape), geometry)


SCANS = {
    "1 view": lambda: seen([30]),
    "3 views": lambda: seen([0, 60, 120]),
    "5 views": lambda: seen(np.arange(0, 180, 36)),
    "weight in one view alone": lambda: weighted(seen(), one_view),
    "half of the rays without weight": lambda: weighted(seen(), half_of_the_rays),
    "weights over six decades": lambda: weighted(seen(), six_decades),
    "small units": lambda: in_units(seen(), 1e-6),
    "large units": lambda: in_units(seen(), 1e3),
    "no noise": lambda: seen(noise=0.0),
    "half of it noise": lambda: seen(noise=0.5),
    "constant": lambda: Scan(np.full((15, 25), 0.7), seen().geometry),
    "every view twice": lambda: seen(np.repeat(np.arange(0, 180, 24), 2)),
    "one angle again and again": lambda: seen(np.zeros(9)),
    "an arc of 30 degrees": lambda: seen(np.linspace(0, 30, 12)),
    "truncated": lambda: seen().cropped(7, 18),
    "2 columns": two_columns,
}


@pytest.mark.parametrize("name", SCANS)
def test_odd_scans_have_sound_error_bars(name):
    result = reconstruct(SCANS[name](), options=OPTIONS)
    for image in (result.mean, result.std, result.std_raw, result.samples, result.directions):
        assert np.isfinite(image).all()
    assert (result.std > 0).all()
    spread = np.sqrt(np.mean((result.samples - result.mean) ** 2) / np.mean(result.std**2))
    assert spread == pytest.approx(1, abs=0.25)
    if result.calibration is not None:
        assert 0.6 < result.scores["held_out"]["rms_z"] < 1.4
    else:
        assert any("Not calibrated" in text for text in result.warnings)


@pytest.mark.parametrize("name", ["negative", "nothing", "NaN"])
def test_scans_of_nothing_are_refused(name):
    scan = seen()
    value = {"negative": -scan.projections, "nothing": 0 * scan.projections, "NaN": scan.projections * np.nan}[name]
    with pytest.raises(InputError, match="NaN" if name == "NaN" else "no object"):
        reconstruct(replace(scan, projections=value), options=OPTIONS)


def test_units_change_the_units_alone():
    one, small = (reconstruct(in_units(seen(), factor), options=replace(OPTIONS, samples=0)) for factor in (1.0, 2.0**-20))
    np.testing.assert_allclose(small.mean * 2**20, one.mean, atol=0.02 * one.mean.max())
    np.testing.assert_allclose(small.std * 2**20, one.std, rtol=0.1)


@pytest.mark.parametrize("size", [8, 17, 24])
def test_any_size_has_means_of_regions_that_draws_confirm(size, monkeypatch):
    found, assembled = [], network.with_bars
    monkeypatch.setattr(network, "with_bars", lambda *given: found.append(given[3]) or assembled(*given))
    result = reconstruct(seen(), options=replace(OPTIONS, size=size))
    regions = np.zeros((4, size, size))
    for image, part in zip(regions, (slice(None), slice(size // 2), slice(size // 4, -(size // 4)), slice(2, 5)), strict=True):
        image[part, part] = 1 / image[part, part].size
    deviations = found[0].scales.image ** 0.5 * found[0].posterior.deviations(2000, rng=torch.Generator().manual_seed(1))
    drawn = deviations.flatten(1).double().numpy() @ regions.reshape(4, -1).T
    np.testing.assert_allclose(result.covariance(regions).diagonal(), (drawn**2).mean(0), rtol=0.25)


@pytest.mark.parametrize(("name", "rank"), [("weights", 144), ("weights", 60), ("arc", 144), ("arc", 60)])
def test_odd_scans_have_the_textbook_std(name, rank):
    scan = seen(np.linspace(0, 40, 10) if name == "arc" else np.arange(0, 180, 15), size=12)
    rays = np.ones(scan.projections.shape) if name == "arc" else 10 ** np.random.default_rng(1).uniform(-4, 0, (12, 19))
    A = ray_transform(scan.grid, scan.geometry, backend="matrix")
    data = Data(A, torch.tensor(scan.projections), torch.tensor(rays, dtype=torch.float32))
    rng = torch.Generator().manual_seed(0)
    fit, stop = split(data, np.array([3, 7]), rng=rng)
    generate, start = generator(fit, DIP, rng=rng)
    *_, state = dip(generate, start, fit, stop, DIP)
    _, jacobian = jacobian_of(*generate.module(state.best))
    model = image_model(
        A,
        data.y,
        data.weights,
        image=generate(state.best)[0].detach(),
        jacobian=jacobian,
        scale=float(generate.scale[0]),
        prior="layerwise",
        rank=rank,
        rng=rng,
    )
    point = fit_evidence(model, torch.ones(len(model.target), dtype=torch.bool), rng=rng).point
    std = ImagePosterior(SolvedRays.on(model, point), rng=rng).std().flatten()
    exact = posterior_covariance(model, point).diagonal().sqrt()
    np.testing.assert_allclose(std, exact, rtol=1e-3)


@pytest.fixture(scope="module")
def whole():
    return reconstruct(seen(), options=OPTIONS)


@pytest.mark.parametrize("when", ["fit", "evidence"])
def test_a_killed_run_goes_on_to_the_same_result(when, whole, tmp_path):
    path, file = tmp_path / "checkpoint.h5", tmp_path / "scan.h5"
    files.write_scan(seen(), file)

    def late(told):
        if told.stage == "Deep Image Prior" and told.done >= 80:
            die()

    def work():
        if when == "evidence":
            network.estimate = die
        reconstruct(ctuq.read(file), options=OPTIONS, checkpoint=path, progress=late if when == "fit" else None)

    assert killed(work) and path.is_file()
    resumed = reconstruct(ctuq.read(file), options=OPTIONS, checkpoint=path)
    for name in ("mean", "std", "samples", "directions"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), rtol=1e-5, atol=1e-7, err_msg=name)


def test_little_memory_takes_a_smaller_way_and_says_what_it_is_worth(monkeypatch):
    scan, options = seen(), replace(OPTIONS, dip=replace(DIP, network=UNetOptions(channels=(16, 16), skips=(4,))))
    whole = reconstruct(scan, options=options)
    monkeypatch.setattr(network, "available_memory", lambda device: 10**6)
    poor = reconstruct(scan, options=options)
    assert whole.std_error == 0 and all(text.startswith("Total variation foretells") for text in whole.warnings)
    assert poor.plan["rank"] < whole.plan["rank"]
    off = np.sqrt(np.mean((poor.std_raw / whole.std_raw - 1) ** 2))
    assert off < 2 * poor.std_error
    assert any("may differ by" in text for text in poor.warnings)
    assert float(np.mean(poor.std / whole.std)) == pytest.approx(1, abs=0.3)
