"""Line integrals of few counts, without weights: scores with the growth of their noise told by the rays, and without.

``python -m experiments.count_noise`` goes on where it stopped, writes ``figures/count_noise.csv`` and prints a table;
``--no-run`` prints it from the file. Two views of three are used for nothing but to judge. ``--folder FOLDER`` adds the torso
of ``strangers.yaml``, if its files are there.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import tyro
import yaml
from numpy.typing import NDArray

import ctuq
from ctuq.pipeline import match_detector
from ctuq.pipeline.image import job
from ctuq.scores.gaussian import Z95, gaussian_scores
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import Noise, PhotonNoise, RelativeNoise, simulate
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES
from experiments.engine.rows import Rows, changes
from experiments.peers.problems import Problem
from experiments.strangers import LIST, opened
from experiments.unseen_views import load

OUTPUT = FIGURES / "count_noise.csv"
_SIZE, _VIEWS, _FIELD, _THICK = 48, 20, 40.0, 0.8
# Object, attenuation in 1/mm (line integrals go up to 20 times it), noise.
OBJECTS: dict[str, tuple[str, float, Noise]] = {
    "ellipses, 300 counts": ("ellipses", 0.15, PhotonNoise(300)),
    "ellipses, 3,000 counts": ("ellipses", 0.15, PhotonNoise(3000)),
    "thin ellipses, 300 counts": ("ellipses", 0.1, PhotonNoise(300)),
    "rectangles, 1,000 counts": ("rectangles", 0.3, PhotonNoise(1000)),
    "glyph, 1,000 counts": ("glyph", 0.3, PhotonNoise(1000)),
    "ellipses, even noise of 5 %": ("ellipses", 0.15, RelativeNoise(0.05)),
}
STEPS, TORSO = {"walnut": 4, "ta": 8}, "torso"
_FORMS = ("log_likelihood .2f", "rms_z .2f", "thick_cover_95 .0%", "rmse .4f", "truth_psnr .1f", "truth_cover_95_object .0%")


def problem(name: str, folder: Path | None = None) -> Problem:
    """A scan of line integrals, with the other views of its object."""
    if name == TORSO:
        assert folder is not None
        (given,) = (each for each in yaml.safe_load(LIST.read_text()) if each["scan"].startswith(TORSO))
        full = replace(opened(given, folder), weights=None)
        return Problem.of(name, 64, full, np.arange(0, full.n_angles, 3))
    if name in STEPS:
        full = load(name)
        return Problem.of(name, _SIZE, full, np.arange(0, full.n_angles, STEPS[name]))
    kind, attenuation, noise = OBJECTS[name]
    grid, angles = VolumeGrid((_SIZE, _SIZE), _FIELD / _SIZE), np.arange(3 * _VIEWS) * np.pi / (3 * _VIEWS)
    geometry = ParallelBeam(angles=angles, columns=70, pixel=grid.voxel)

    def phantom(size: int) -> NDArray:
        return PHANTOMS[kind](size, np.random.default_rng(3))

    full = simulate(phantom, geometry, grid, noise, rng=np.random.default_rng(0), attenuation=attenuation)
    return Problem.of(name, _SIZE, replace(full, weights=None), np.arange(0, full.n_angles, 3))


def measure(given: Problem, method: str, weigh: Callable) -> dict[str, float]:
    """Scores of unseen rays, of the thickest fifth of them, and of the object where it is known."""
    began = time.process_time()
    with mock.patch.object(job, "weighed_by_counts", weigh):
        result = ctuq.reconstruct(given.scan, size=given.size, method=method, samples=256)
    seconds = time.process_time() - began
    others = match_detector(given.unseen, result.grid)
    mean, variance = predict_views(result, ctuq.ray_transform(result.grid, others.geometry, backend="matrix"))
    off, thick = others.projections - mean, mean > np.quantile(mean, _THICK)
    row = gaussian_scores(off, variance) | {"thick_cover_95": float(np.mean((np.abs(off) < Z95 * np.sqrt(variance))[thick]))}
    truth = result.scores.get("truth", {})
    row |= {f"truth_{key}": truth.get(key, float("nan")) for key in ("psnr", "cover_95_object")}
    return row | {"growth": result.scan.provenance.noise_growth, "seconds": seconds}


def main(run: bool = True, folder: Path | None = None) -> None:
    """Measure what is not there yet, and print the table."""
    names = (*OBJECTS, *STEPS, *((TORSO,) if folder else ()))
    kept = Rows(OUTPUT)
    for method in ("tv", "dip"):
        for name in names if run else ():
            for which, weigh in (("no", lambda scan, *_: scan), ("yes", job.weighed_by_counts)):
                told = {"scan": name, "method": method, "weighed": which}
                if not kept.where(**told):
                    kept.add([told | measure(problem(name, folder), method, weigh)])
                    print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """Unseen rays and truth, without weights and with those that the rays' noise tells."""
    lines = [
        "| scan | method | g | nats a ray | rms z | 95 % hold, thickest fifth | rms error | PSNR | 95 % hold, object |",
        "|---|" + 8 * "---|",
    ]
    for row in kept.where(weighed="no"):
        for after in kept.where(weighed="yes", scan=row["scan"], method=row["method"]):
            cells = (f"| {row['scan']}", str(row["method"]), f"{float(after['growth']):g}", *changes(row, after, _FORMS))
            lines.append(" | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
