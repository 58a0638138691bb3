"""Volumes' error bars against the truth: objects drawn four times finer than the voxels, in cones and parallel beams.

``python -m experiments.volume_truth`` reconstructs each scan as ``ctuq reconstruct --volume --method dip`` does, with what
pixels cannot draw in the rays' noise and without, goes on where it stopped, writes ``figures/volume_truth.csv`` and prints a
table; ``--no-run`` prints it from the file. Half of the views are used for nothing but to judge.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from ctuq.pipeline import subpixel
from ctuq.pipeline.running.volume_options import VolumeOptions
from ctuq.pipeline.volume.job import reconstruct_volume
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.geometry import VolumeGrid
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.simulate import RelativeNoise
from ctuq.tomo.solids import SOLIDS, simulate_volume
from ctuq.tomo.space import ConeBeam, Parallel3D
from ctuq.tomo.volume_scan import VolumeScan
from experiments import FIGURES
from experiments.engine.rows import Rows, changes

OUTPUT = FIGURES / "volume_truth.csv"
_FINER, _VIEWS, _FIELD = 4, 14, 40.0
_SOURCE, _DETECTOR = 120.0, 240.0
_SAMPLES = 32


def balls(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seven balls."""
    z, y, x = _axes(size)
    solid = np.zeros((size,) * 3)
    for _ in range(7):
        place, radius = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.12, 0.35)
        solid[(x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2 < radius**2] = rng.uniform(0.4, 1)
    return solid


def boxes(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Five boxes that are turned in all directions."""
    solid = np.zeros((size,) * 3)
    for _ in range(5):
        turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        place, half = rng.uniform(-0.35, 0.35, 3), rng.uniform(0.1, 0.4, 3)
        away = [t - p for t, p in zip(_axes(size)[::-1], place, strict=True)]
        inside = [abs(sum(c * a for c, a in zip(row, away, strict=True))) < h for row, h in zip(turn, half, strict=True)]
        solid[inside[0] & inside[1] & inside[2]] = rng.uniform(0.5, 1)
    return solid


def plates(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Three leaning plates in a cylinder."""
    z, y, x = _axes(size)
    solid = 0.4 * ((np.hypot(x, y) < 0.7) & (abs(z) < 0.7))
    for height in (-0.4, 0.0, 0.4):
        lean = rng.uniform(-0.3, 0.3, 2)
        solid[(abs(z - height - lean[0] * x - lean[1] * y) < 0.06) & (np.hypot(x, y) < 0.6)] = 1
    return solid


OBJECTS: dict[str, Callable[[int, np.random.Generator], NDArray]] = {
    "balls": balls,
    "boxes": boxes,
    "plates": plates,
    "shells": SOLIDS["shells"],
}


@dataclass(frozen=True)
class Setting:
    """What is scanned, and how."""

    object: str
    geometry: str
    size: int
    noise: float

    @property
    def told(self) -> dict[str, str | int | float]:
        """As columns of a row."""
        return {"object": self.object, "geometry": self.geometry, "size": self.size, "noise": self.noise}

    def scans(self) -> tuple[VolumeScan, VolumeScan]:
        """The scan that is reconstructed, and views that judge."""
        rng, grid = np.random.default_rng(0), VolumeGrid((self.size,) * 3, _FIELD / self.size)
        solid = OBJECTS[self.object](_FINER * self.size, rng) * 0.05
        full = simulate_volume(solid, beam(self.geometry, grid), grid, RelativeNoise(self.noise), rng=rng)
        return full.select(np.arange(0, full.n_angles, 2)), full.select(np.arange(1, full.n_angles, 2))


SETTINGS = (
    Setting("balls", "cone", 10, 0.05),
    Setting("boxes", "cone", 10, 0.01),
    Setting("shells", "parallel", 10, 0.05),
    Setting("plates", "short scan", 10, 0.01),
    Setting("balls", "parallel", 10, 0.01),
    Setting("shells", "cone", 16, 0.05),
    Setting("boxes", "short scan", 10, 0.05),
    Setting("shells", "cone, wide pixels", 12, 0.01),
    Setting("balls", "cone", 12, 0.01),
    Setting("plates", "parallel", 12, 0.05),
    Setting("balls", "parallel over 110 degrees", 12, 0.05),
    Setting("boxes", "parallel over 90 degrees", 12, 0.01),
    Setting("boxes", "cone over 90 degrees", 12, 0.05),
    Setting("shells", "cone over 60 degrees", 12, 0.05),
    Setting("balls", "cone over 100 degrees", 10, 0.01),
    Setting("plates", "parallel over 60 degrees", 10, 0.05),
)


def beam(name: str, grid: VolumeGrid) -> ConeBeam | Parallel3D:
    """Pixels as wide as a voxel at the axis, or 1.3 times; all of the ball in the cube is seen."""
    turn = {"parallel": np.pi, "short scan": np.pi + 2 * np.arcsin(_FIELD / 2 / _SOURCE)}.get(name, 2 * np.pi)
    if " over " in name:
        turn = np.deg2rad(float(name.split()[-2]))
    angles = np.arange(2 * _VIEWS) * turn / (2 * _VIEWS) + 0.007
    wide = 1.3 if "wide" in name else 1.0
    if name.startswith("parallel"):
        return Parallel3D(angles=angles, rows=grid.shape[0] + 2, columns=grid.shape[0] + 2, pixel=grid.voxel)
    radius, pixel = _FIELD / 2, wide * grid.voxel * _DETECTOR / _SOURCE
    count = 2 * int(np.ceil(_DETECTOR * radius / np.sqrt(_SOURCE**2 - radius**2) / pixel)) + 2
    lengths = {"source_to_axis": _SOURCE, "source_to_detector": _DETECTOR}
    return ConeBeam(angles=angles, rows=count, columns=count, pixel=pixel, **lengths)


def measure(setting: Setting, subpixels: bool) -> dict[str, float]:
    """Scores of one reconstruction."""
    scan, others = setting.scans()
    begun = time.process_time()
    shares = subpixel.SHARE_IN_SPACE if subpixels else dict.fromkeys((True, False), 1e-12)
    with mock.patch.object(subpixel, "SHARE_IN_SPACE", shares):
        result = reconstruct_volume(scan, options=VolumeOptions("dip", setting.size, threads=1, samples=_SAMPLES))
    seconds = time.process_time() - begun
    assert result.std is not None and result.truth is not None and result.calibration is not None
    body, error = result.truth > 0.1 * result.truth.max(), result.mean.astype(np.float64) - result.truth
    told = {}
    for name, where in (("object", body), ("all", np.ones_like(body))):
        scores = gaussian_scores(error[where], result.std[where].astype(np.float64) ** 2)
        told |= {f"{name}_{key}": scores[key] for key in ("rms_z", "cover_68", "cover_95", "log_likelihood")}
    shown = volume_transform(result.grid, others.geometry)(torch.from_numpy(result.mean)).numpy()
    off = np.sqrt(np.mean((shown - others.projections) ** 2) / np.mean(others.projections**2))
    told |= {"psnr": result.scores["psnr"], "held_out_rms_z": result.trust["held_out"]["rms_z"], "unseen": float(off)}
    told |= {
        "held_out_raw_rms_z": result.trust["held_out_raw"]["rms_z"],
        "image_scale": result.calibration.image_scale,
        "noise_scale": result.calibration.noise_scale,
    }
    return told | {"mean_std": float(result.std[body].mean()), "seconds": seconds}


def main(run: bool = True) -> None:
    """Measure what is not there yet, and print the table."""
    torch.set_num_threads(1)
    kept = Rows(OUTPUT)
    for subpixels in (True, False) if run else ():
        for setting in SETTINGS:
            told = setting.told | {"subpixels": "yes" if subpixels else "no"}
            if not kept.where(**told):
                kept.add([told | measure(setting, subpixels)])
                print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """The truth of each object with what pixels cannot draw, and without where that is known."""
    lines = [
        "| object | rays | voxels | noise | PSNR | 68 % hold, object | 95 % hold | rms z | held-out rms z |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    forms = ("psnr .1f", "object_cover_68 .0%", "object_cover_95 .0%", "object_rms_z .2f", "held_out_rms_z .2f")
    for row in kept.where(subpixels="yes"):
        key = {name: row[name] for name in ("object", "geometry", "size", "noise")}
        before = kept.where(subpixels="no", **key)
        alone = [f"{float(row[name]):{form}}" for name, form in (text.split() for text in forms)]
        cells = changes(before[0], row, forms) if before else alone
        size, noise = f"{row['size']}³", f"{float(row['noise']):.0%}"
        lines.append(" | ".join((f"| {row['object']}", str(row["geometry"]), size, noise, *cells)) + " |")
    return "\n".join(lines)


def _axes(size: int) -> tuple[NDArray, NDArray, NDArray]:
    """Coordinates z, y, x from -1 to 1 of a cube's voxels."""
    t = (np.arange(size) + 0.5) / size * 2 - 1
    return t[:, None, None], -t[:, None], t


if __name__ == "__main__":
    tyro.cli(main)
