"""A rotation axis beside its place: what the default makes of it, and what it does where the axis is right.

``python -m experiments.systematics.axis``: five objects of 28 x 28 pixels, 3 % of noise, over a half-turn, an arc of 90
degrees and a fan's full turn, the axis right and half a column off, with and without it in the model; ``figures/axis.csv`` has
a row for each. Over the arc it is in the model by its name alone.
"""

import csv
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.recon.dip import DIPOptions
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments import FIGURES

SIZE, _NOISE, _ITERATIONS, _OFF = 28, 0.03, 300, 0.5
Phantom = Callable[[int, np.random.Generator], NDArray]
GRID = ctuq.VolumeGrid((SIZE, SIZE), 40 / SIZE)
BEAMS = {
    "half-turn, 16 views": ctuq.ParallelBeam(angles=ctuq.radians(np.arange(16) * 11.25), columns=42, pixel=GRID.voxel),
    "arc of 90 degrees, 15 views": ctuq.ParallelBeam(angles=ctuq.radians(np.arange(0, 90, 6.0)), columns=42, pixel=GRID.voxel),
    "fan, 18 views": ctuq.FanBeam(
        angles=ctuq.radians(np.arange(0, 360, 20.0)),
        columns=44,
        pixel=2.4 * GRID.voxel,
        source_to_axis=150.0,
        source_to_detector=300.0,
    ),
}


def disc(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A lone disc beside the middle."""
    del rng
    y, x = np.mgrid[:size, :size]
    return (np.hypot(x - 0.52 * size, y - 0.47 * size) < 0.25 * size).astype(float)


def rows() -> Iterator[dict[str, str | float]]:
    """Of each beam and object, the axis right and wrong, with and without the axis in the model."""
    for (beam, geometry), (name, make) in product(BEAMS.items(), {**PHANTOMS, "disc": disc}.items()):
        rng = np.random.default_rng(7)
        scan = simulate(drawn(make), geometry, GRID, RelativeNoise(_NOISE), rng=rng, attenuation=0.05)
        for off, asked in product((0.0, _OFF), ("none", "axis")):
            yield {"beam": beam, "object": name, "columns_off": off, "asked": asked} | found(scan, off, asked)


def drawn(make: Phantom) -> Callable[[int], NDArray[np.float64]]:
    """The same object at any size."""
    return lambda size: np.asarray(make(size, np.random.default_rng(5)), np.float64)


def found(scan: ctuq.Scan, off: float, asked: str) -> dict[str, float]:
    """Scores against the truth, and what is told of the axis, in columns."""
    began, column = time.process_time(), scan.geometry.pixel_at_axis
    # The file says that the axis is there; it is not.
    wrong = replace(scan, geometry=replace(scan.geometry, axis_offset=scan.geometry.axis_offset + off * column))
    result = ctuq.reconstruct(wrong, size=SIZE, systematics=asked, dip=DIPOptions(iterations=_ITERATIONS))
    assert result.std is not None
    truth, axis = result.scores["truth"], result.systematics.get("axis")
    told, sd = (math.nan, math.nan) if axis is None else (float(axis.values[0]) / column, float(axis.std[0]) / column)
    row = {key: truth[key] for key in ("psnr", "cover_95_object", "rms_z_object")}
    row |= {"std": float(np.mean(result.std)), "seconds": time.process_time() - began}
    return row | {"told": told, "sd": sd, "taken": float(axis is not None and axis.taken is not None)}


def main() -> None:
    """Print and record every row."""
    told = []
    for row in rows():
        told.append(row)
        print(" ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()), flush=True)
    with (FIGURES / "axis.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(told[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in told)


if __name__ == "__main__":
    tyro.cli(main)
