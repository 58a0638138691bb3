"""Do greedy angles of a cone-beam scan beat angles that are spread evenly? ``python -m experiments.design_volume``.

Objects of plates that lie in one direction, and nuts that have none; eight views to begin with, then eight more: by
the models of ``ctuq design next``, evenly between the first, or by the golden ratio. Scored by the error of CGLS and TV on the
truth's grid. A row each in ``figures/design_volume.csv``.
"""

import csv
import time

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from ctuq.design import Designer
from ctuq.design.strategies import golden, nested
from ctuq.design.volumes import coarse_scan, volume_learner
from ctuq.recon import VOLUMES
from ctuq.tomo import ConeBeam, VolumeGrid
from ctuq.tomo.rays.volume import volume_transform
from ctuq.tomo.simulate import RelativeNoise
from ctuq.tomo.solids import SOLIDS, simulate_volume
from ctuq.tomo.volume_scan import VolumeScan
from experiments import FIGURES

OUTPUT = FIGURES / "design_volume.csv"
SIZE, VOXEL, PILOT, MORE, STEP = 24, 40.0 / 24, 8, 8, 5.0
PRIORS = ("edges", "matern", "lindip")


def plates(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Plates beside one another, all in a direction of their own about the axis."""
    t = (np.arange(size) + 0.5) / size * 2 - 1
    z, y, x = t[:, None, None], -t[:, None], t
    angle = rng.uniform(0, np.pi)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    inside = (along / 0.8) ** 2 + (across / 0.6) ** 2 + (z / 0.8) ** 2 < 1
    return (inside * (np.sin(2 * np.pi * across / 0.8 + rng.uniform(0, 6)) > 0.2)).astype(np.float32)


OBJECTS = {"plates": plates, "shells": SOLIDS["shells"]}


def main(seeds: int = 3, size: int = 12) -> None:
    """Run all."""
    angles, rows = np.deg2rad(np.arange(2.5, 360, STEP)), []
    for name, draw in OBJECTS.items():
        for seed in range(seeds):
            every = scanned(draw, angles, seed)
            first = nested(angles, PILOT, period=2 * np.pi)
            chosen = {
                "even": nested(angles, MORE, period=2 * np.pi, taken=first),
                "golden": golden(angles, MORE, period=2 * np.pi, taken=first),
            }
            seconds = {}
            for prior in PRIORS:
                began = time.process_time()
                coarse = coarse_scan(every.select(first), angles, size=size)
                designer = Designer(coarse.problem, volume_learner(prior))
                designer.tell(coarse.measured, coarse.projections, coarse.weights)
                asked = designer.ask(MORE).angles
                seconds[prior] = time.process_time() - began
                chosen[prior] = np.array([int(np.abs(angles - a).argmin()) for a in asked])
            for way, more in chosen.items():
                scores = errors(every.select(np.concatenate([first, more])))
                rows.append({"object": name, "seed": seed, "way": way, "seconds": seconds.get(way, 0.0)} | scores)
                print(rows[-1], flush=True)
    with OUTPUT.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    for name in OBJECTS:
        for way in ("even", "golden", *PRIORS):
            found = [r for r in rows if (r["object"], r["way"]) == (name, way)]
            told = ", ".join(f"{k} {np.mean([r[k] for r in found]):.2f}" for k in ("cgls_psnr", "tv_psnr", "seconds"))
            print(f"{name}, {way}: {told}")


def scanned(draw, angles: NDArray, seed: int) -> VolumeScan:
    """All views that there could be."""
    rng = np.random.default_rng(seed)
    beam = ConeBeam(
        angles=angles, rows=SIZE + 4, columns=SIZE + 6, pixel=2 * VOXEL, source_to_axis=100.0, source_to_detector=200.0
    )
    solid = 0.05 * draw(2 * SIZE, rng)
    return simulate_volume(solid, beam, VolumeGrid((SIZE,) * 3, VOXEL), RelativeNoise(0.03), rng=rng)


def errors(scan: VolumeScan) -> dict[str, float]:
    """Signal to noise of two reconstructions, dB."""
    assert scan.truth is not None and scan.grid is not None
    A, y, peak = volume_transform(scan.grid, scan.geometry), torch.from_numpy(scan.projections.copy()), float(scan.truth.max())
    out = {}
    for name, iterations in (("cgls", 12), ("tv", 200)):
        image = VOLUMES[name](A, y, weights=None, iterations=iterations).numpy()
        out[f"{name}_psnr"] = float(20 * np.log10(peak / np.sqrt(np.mean((image - scan.truth) ** 2))))
    return out


if __name__ == "__main__":
    tyro.cli(main)
