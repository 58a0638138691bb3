"""Volumes of line integrals of few counts, without weights."""

from dataclasses import replace

import numpy as np
import pytest

from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume import job
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.simulate import RelativeNoise
from ctuq.tomo.solids import SOLIDS, simulate_volume
from ctuq.tomo.space import ConeBeam, FreeBeam, Parallel3D
from ctuq.tomo.volume_scan import VolumeScan

SIZE, COUNTS = 16, 300


def scan_of(geometry: ConeBeam | Parallel3D, counts: float | None = COUNTS) -> VolumeScan:
    """A ball whose line integrals go up to 3, of so many counts in air."""
    grid = VolumeGrid((SIZE,) * 3, 40 / SIZE)
    solid = 0.1 * SOLIDS["ball"](2 * SIZE, np.random.default_rng(0))
    level = RelativeNoise(0.0 if counts else 0.05)
    scan = replace(simulate_volume(solid, geometry, grid, level, rng=np.random.default_rng(0)), weights=None)
    if counts is None:
        return scan
    counted = np.random.default_rng(1).poisson(counts * np.exp(-scan.projections))
    return replace(scan, projections=np.log(counts / np.maximum(counted, 0.5)).astype(np.float32))


CONE = ConeBeam(
    angles=np.arange(48) * np.pi / 24,
    rows=24,
    columns=24,
    pixel=5.0,
    source_to_axis=150.0,
    source_to_detector=300.0,
)
PARALLEL = Parallel3D(angles=np.arange(48) * np.pi / 48, rows=14, columns=24, pixel=3.0)


@pytest.mark.parametrize("geometry", [CONE, PARALLEL])
def test_rays_of_few_counts_are_weighed_and_the_volume_is_better(geometry, monkeypatch):
    scan, options = scan_of(geometry), VolumeOptions("tv", SIZE, threads=1)
    result = job.reconstruct_volume(scan, options=options)
    assert result.provenance.noise_growth >= 0.4
    assert any("no weights" in text for text in result.warnings)
    assert job.volume_made_by(result, scan, options)
    monkeypatch.setattr(job, "weighed_by_counts", lambda _, given: given)
    assert result.scores["psnr"] > job.reconstruct_volume(scan, options=options).scores["psnr"] + 0.2


def test_even_noise_given_weights_free_vectors_and_fdk_stay_as_they_are():
    scan = scan_of(CONE)
    weights = np.exp(-scan.projections).astype(np.float32)
    free = replace(scan, geometry=FreeBeam(table=CONE.vectors(), is_cone=True, rows=CONE.rows, columns=CONE.columns))
    for given, method in ((scan_of(CONE, None), "tv"), (replace(scan, weights=weights), "tv"), (free, "sirt"), (scan, "fdk")):
        result = job.reconstruct_volume(given, options=VolumeOptions(method, SIZE, threads=1))
        assert not result.provenance.noise_growth
        assert not any("no weights" in text for text in result.warnings)
