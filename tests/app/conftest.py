"""A small result with everything in it, made by hand: ellipses, a fan beam, Gaussian errors of known size."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ctuq.tomo.geometry import FanBeam, VolumeGrid, radians
from ctuq.tomo.scan import Provenance, Scan
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result

SIZE = 48


def ellipses(grid: VolumeGrid) -> np.ndarray:
    left, right, bottom, top = grid.extent
    x = np.linspace(left, right, grid.shape[1])[None]
    y = np.linspace(top, bottom, grid.shape[0])[:, None]
    image = 0.05 * ((x / 12) ** 2 + (y / 16) ** 2 < 1)
    image = image - 0.03 * (((x - 4) / 3) ** 2 + ((y - 5) / 4) ** 2 < 1) + 0.04 * ((x + 5) ** 2 + (y + 6) ** 2 < 6)
    return image.astype(np.float32)


@pytest.fixture(scope="session")
def geometry() -> FanBeam:
    return FanBeam(
        angles=radians(np.arange(0, 360, 18.0)), columns=60, pixel=2.0, source_to_axis=110.0, source_to_detector=300.0
    )


@pytest.fixture(scope="session")
def scan(geometry) -> Scan:
    rng = np.random.default_rng(1)
    grid = VolumeGrid((SIZE, SIZE), geometry.field_of_view / SIZE)
    column = (np.arange(60) - 29.5) / 29.5
    chord = np.sqrt(np.maximum(0, 1 - (column / 0.8) ** 2)) * (1 + 0.2 * np.cos(geometry.angles)[:, None])
    projections = chord + 0.02 * rng.standard_normal(geometry.shape)
    facts = {"sample": "two <ellipses>", "licence": "CC0", "citation": "Nobody 2025"}
    provenance = Provenance("ellipses.h5", "0f" * 32, ("made by hand",), facts)
    return Scan(projections, geometry, truth=ellipses(grid), grid=grid, provenance=provenance)


@pytest.fixture(scope="session")
def result(scan) -> Result:
    rng = np.random.default_rng(2)
    truth = scan.truth
    edges = np.hypot(*np.gradient(gaussian_filter(truth, 1.2)))
    std = (0.001 + 0.4 * edges).astype(np.float32)
    noise = np.stack([gaussian_filter(rng.standard_normal(truth.shape), 1.0) for _ in range(13)])
    noise = (noise / noise.std() * std).astype(np.float32)
    mean = truth + noise[0]
    views = (3, 10, 16)
    measured = scan.projections[list(views)]
    spread = np.full_like(measured, 0.05)
    predicted = measured + spread * rng.standard_normal(measured.shape).astype(np.float32)
    figures = {"log_likelihood": 1.58, "rms_z": 1.01, "cover_68": 0.69, "cover_95": 0.94}
    calibration = Calibration(
        views,
        image_scale=9.1,
        noise_scale=1.3,
        log_image_scale_sd=0.21,
        log_noise_scale_sd=0.33,
        raw={"log_likelihood": -0.41, "rms_z": 2.2, "cover_68": 0.37, "cover_95": 0.65},
        calibrated=figures,
        predictions=np.stack([measured, predicted, spread / 2.2, spread]).astype(np.float32),
        cover_68=(0.614, 0.742),
        cover_95=(0.884, 0.971),
    )
    steps = np.arange(0, 1000, 25)
    return Result(
        mean=mean,
        scan=scan,
        grid=scan.grid,
        method="dip",
        std=std,
        std_raw=std / 3,
        samples=mean + noise[1:],
        sigma2=4e-4,
        prior={"variance": 0.7, "lengthscale": 2.1},
        log_evidence=1234.5,
        calibration=calibration,
        scores={
            "truth": {"psnr": 31.2, "rms_z": 1.02, "log_likelihood_patch_7": 4.5},
            "truth_raw": {"psnr": 31.2, "rms_z": 3.06},
            "held_out": figures,
            "leave_one_angle_out": {"rms_z": 0.96, "cover_68": 0.71},
        },
        comparisons={"fbp": truth + 0.006 * rng.standard_normal(truth.shape).astype(np.float32), "tv": truth * 0.95},
        truth=truth,
        removed=(0.02 * np.sin(scan.projections)).astype(np.float32),
        history={"iteration": steps, "loss": np.exp(-steps / 200) + 0.01, "held_out_loss": np.exp(-steps / 250) + 0.03},
        timings={"dip": 12.5, "evidence": 3.25},
        settings={"method": "dip", "size": SIZE, "seed": 0},
        versions={"ctuq": "0.1.0", "torch": "2.13.0"},
        warnings=("Only 3 views were held out; the scale is uncertain by 21 %.",),
    )


@pytest.fixture(scope="session")
def bare(result) -> Result:
    """What a classical method leaves: an image and nothing else."""
    return Result(mean=result.mean, scan=replace(result.scan, truth=None), grid=result.grid, method="fbp")
