"""What pixels cannot draw: scores with it in the error bars' noise and without, on unseen rays and on the truth.

``python -m experiments.subpixel`` goes on where it stopped, writes ``figures/subpixel.csv`` and prints the table of
``docs/how_it_works.md``; ``--no-run`` prints it from the file.
"""

import time
from unittest import mock

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.tomo import subpixel
from ctuq.tomo.geometry import ParallelBeam, VolumeGrid
from ctuq.tomo.simulate import RelativeNoise, phantom_scan, simulate
from experiments import FIGURES
from experiments.engine.rows import Rows, changes
from experiments.peers.problems import Problem, unseen_scores
from experiments.unseen_views import load

OUTPUT = FIGURES / "subpixel.csv"
STEPS = {"walnut": 4, "ta": 8, "tb": 8, "tooth": 6}
_PHANTOMS = ("rectangles", "ellipses", "shepp-logan", "glyph")
OBJECTS = {
    **{f"{name}, 1 %": (name, 0.01) for name in _PHANTOMS},
    "shepp-logan, 5 %": ("shepp-logan", 0.05),
    "bars, 0.5 %": ("bars", 0.005),
    "discs, 0.5 %": ("discs", 0.005),
}
_SIZE, _VIEWS, _FINER = 48, 20, 8
_NAMES = {"without": "no", "with": "yes"}


def bars(fine: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Four bars, 3 to 4 pixels of the truth wide, in all directions."""
    y, x = np.mgrid[1 - 1 / fine : -1 : -2 / fine, -1 + 1 / fine : 1 : 2 / fine]
    image, pixel = np.zeros((fine, fine)), 2 / _SIZE
    for _ in range(4):
        turn, place, width = rng.random() * np.pi, rng.uniform(-0.4, 0.4, 2), pixel * rng.uniform(1.5, 2)
        dx, dy = x - place[0], y - place[1]
        u, v = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        image[(np.abs(u) < width * rng.uniform(1, 4)) & (np.abs(v) < width)] = rng.uniform(0.5, 1)
    return image


def discs(fine: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Six discs with radii of 1.5 to 4 pixels of the truth."""
    y, x = np.mgrid[1 - 1 / fine : -1 : -2 / fine, -1 + 1 / fine : 1 : 2 / fine]
    image, pixel = np.zeros((fine, fine)), 2 / _SIZE
    for _ in range(6):
        place, radius = rng.uniform(-0.5, 0.5, 2), pixel * rng.uniform(1.5, 4)
        image[np.hypot(x - place[0], y - place[1]) < radius] = rng.uniform(0.4, 1)
    return image


def problem(name: str) -> Problem:
    """A scan with the other views of its object."""
    if name in STEPS:
        full = load(name)
        return Problem.of(name, _SIZE, full, np.arange(0, full.n_angles, STEPS[name]))
    kind, noise = OBJECTS[name]
    angles = np.arange(3 * _VIEWS) * np.pi / (3 * _VIEWS) + 0.007
    if kind in _PHANTOMS:
        full = phantom_scan(kind, _SIZE, angles, noise=noise, seed=0)
    else:
        rng, voxel = np.random.default_rng(0), 40 / _SIZE
        geometry = ParallelBeam(angles=angles, columns=70, pixel=voxel)
        made = {"bars": bars, "discs": discs}[kind](_FINER * _SIZE, rng)
        grid, level = VolumeGrid((_SIZE, _SIZE), voxel), RelativeNoise(noise)
        full = simulate(made, geometry, grid, level, rng=rng, finer=_FINER, attenuation=0.05)
    return Problem.of(name, _SIZE, full, np.arange(0, full.n_angles, 3))


def measure(given: Problem, method: str, share: float) -> dict[str, float]:
    """Scores of unseen rays, and of the object where it is known."""
    start = time.perf_counter()
    with mock.patch.object(subpixel, "SHARE", share):
        result = ctuq.reconstruct(given.scan, size=given.size, method=method, samples=256)
        seconds = time.perf_counter() - start
        row = unseen_scores(given, result, ("psnr", "cover_95_object", "rms_z"))
    assert result.calibration is not None
    return row | {"image_scale": result.calibration.image_scale, "subpixel": result.subpixel, "seconds": seconds}


def main(run: bool = True) -> None:
    """Measure what is not there yet, and print the table."""
    kept = Rows(OUTPUT)
    for method in ("tv", "dip"):
        for name in (*STEPS, *OBJECTS) if run else ():
            for which, share in (("without", 1e-12), ("with", subpixel.SHARE)):
                told = {"scan": name, "method": method, "subpixels": _NAMES[which]}
                if not kept.where(**told):
                    kept.add([told | measure(problem(name), method, share)])
                    print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """Unseen rays and truth, without and with it."""
    lines = [
        "| scan | method | nats a ray | rms z | rms error of unseen rays | image scale | PSNR | 95 % hold, object |",
        "|---|---|---|---|---|---|---|---|",
    ]
    forms = ("log_likelihood .2f", "rms_z .2f", "rmse .4f", "image_scale .1f", "truth_psnr .1f", "truth_cover_95_object .0%")
    for row in kept.where(subpixels="no"):
        after = kept.where(subpixels="yes", scan=row["scan"], method=row["method"])
        if not after:
            continue
        lines.append(" | ".join((f"| {row['scan']}", str(row["method"]), *changes(row, after[0], forms))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
