"""Errors that hide one another: gains beside an axis, and gains beside flux that falls to half.

``python -m experiments.systematics.together`` simulates ellipses and rectangles (20 x 20 pixels, 20 views over a half-turn)
with 0.5, 2 and 5 % of noise and gains of 2 %. ``axis``: the rotation axis is off by 1 mm, half a column, and the network is
fitted as by ``ctuq reconstruct SCAN --systematics axis,gain``, by at most 300 iterations. ``drift``: the tube's flux falls to
half from the first view to the last, and gains are told before a fit. ``figures/systematics_together.csv`` has a row for each;
run again, it goes on; ``table`` prints what is there.
"""

from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

import ctuq
from ctuq.pipeline.image.rings import gains_of
from ctuq.recon.dip import Data, DIPOptions
from ctuq.scores.gaussian import Z95
from ctuq.systematics.catalogue import STRONG
from ctuq.systematics.detector import rough
from ctuq.tomo import Scan
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.rays.entries import build_matrix
from experiments import FIGURES
from experiments.engine.rows import Row, Rows

TABLE = FIGURES / "systematics_together.csv"
SIZE, VIEWS, GAINS, AXIS, FLUX = 20, 20, 0.02, 1.0, 0.5
NOISES, OBJECTS = (2.0, 0.5, 5.0), ("ellipses", "rectangles")
_FINER = 2


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    what: Positional[Literal["axis", "drift", "table"]] = "axis"
    seeds: int = 5


def scan_of(name: str, seed: int, noise: float, *, axis: float = 0.0, flux: float = 1.0) -> tuple[Scan, NDArray[np.float64]]:
    """A scan that knows neither its axis nor its gains (shares, without their smooth part), with ``noise`` in %."""
    rng = np.random.default_rng(seed)
    grid = ctuq.VolumeGrid((SIZE, SIZE), 40.0 / SIZE)
    fine = ctuq.VolumeGrid((SIZE * _FINER, SIZE * _FINER), grid.voxel / _FINER)
    image = 0.05 * PHANTOMS[name](SIZE * _FINER, rng)
    told = ctuq.ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=int(1.4 * SIZE) + 1, pixel=grid.voxel)
    beam = replace(told, axis_offset=axis)
    rays = (build_matrix(fine, beam) @ image.ravel().astype(np.float32)).reshape(beam.shape).astype(np.float64)
    gains = GAINS * np.random.default_rng(2000 + seed).standard_normal(told.columns)
    drift = np.log(np.linspace(1, flux, VIEWS))[:, None]
    y = rays - gains - drift + 0.01 * noise * rays.mean() * rng.standard_normal(rays.shape)
    truth = image.reshape(SIZE, _FINER, SIZE, _FINER).mean((1, 3)).astype(np.float32)
    basis = rough(told.columns).numpy()
    return Scan(y.astype(np.float32), told, truth=truth, grid=grid), basis @ (basis.T @ gains)


def axis_row(name: str, seed: int, noise: float) -> Row:
    """What is told of an axis beside its place, and of gains."""
    scan, gains = scan_of(name, seed, noise, axis=AXIS)
    kept = {"samples": 4, "directions": 0, "threads": 1, "dip": DIPOptions(iterations=300)}
    found = ctuq.reconstruct(scan, size=SIZE, systematics="axis,gain", **kept).systematics
    axis, told = found["axis"], found["gain"]
    row: Row = {"axis": float(axis.values[0]), "axis_sd": float(axis.std[0]), "axis_taken": float(axis.taken is not None)}
    return row | _of_gains(0.01 * told.values, 0.01 * told.std, gains) | {"taken": float(told.taken is not None)}


def drift_row(name: str, seed: int, noise: float) -> Row:
    """What is told of gains while flux falls to half."""
    scan, gains = scan_of(name, seed, noise, flux=FLUX)
    assert scan.grid is not None
    y = torch.tensor(scan.projections)
    found = gains_of(Data(ctuq.ray_transform(scan.grid, scan.geometry, backend="matrix"), y, torch.ones_like(y)))
    sd = found.covariance.diagonal().clamp(min=0).sqrt().numpy()
    return {"log_odds": found.log_odds, "taken": float(found.log_odds >= STRONG)} | _of_gains(found.values.numpy(), sd, gains)


def _of_gains(values: NDArray, sd: NDArray, true: NDArray) -> Row:
    off = values - true
    return {
        "gains_held": float(np.mean(np.abs(off) <= Z95 * sd)),
        "gains_off": float(np.sqrt(np.mean(off**2) / np.mean(true**2))),
        "gains_z": float(np.sqrt(np.mean((off / sd) ** 2))),
    }


def main(options: Options) -> None:
    """Make the rows that are missing, and print the table."""
    table = Rows(TABLE)
    fields = ("beside", "noise", "object", "seed", "axis", "axis_sd", "axis_taken", "log_odds", "taken")
    fields += ("gains_held", "gains_off", "gains_z")
    for seed, noise, name in product(range(options.seeds), NOISES, OBJECTS) if options.what != "table" else ():
        key: Row = {"beside": options.what, "noise": noise, "object": name, "seed": seed}
        if not table.where(**key):
            made = axis_row(name, seed, noise) if options.what == "axis" else drift_row(name, seed, noise)
            table.add([dict.fromkeys(fields, "") | key | made])
            print(" ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in made.items()), flush=True)
    print(table_of(table))


def table_of(table: Rows) -> str:
    """Markdown: means over the scans of a kind and noise; of the axis how many intervals hold it, and its rms z."""
    heads = ("beside", "noise (%)", "scans", "gains taken out", "gains held (%)", "told off by / true", "axis held", "axis z")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for beside, noise in dict.fromkeys((row["beside"], row["noise"]) for row in table.rows):
        rows = table.where(beside=beside, noise=noise)
        of = {n: np.array([float(row[n]) for row in rows]) for n in ("taken", "gains_held", "gains_off")}
        axis = ("", "")
        if beside == "axis":
            z = np.array([(float(row["axis"]) - AXIS) / float(row["axis_sd"]) for row in rows])
            axis = (f"{int(np.sum(np.abs(z) <= Z95))}", f"{np.sqrt(np.mean(z**2)):.2f}")
        shown = (f"{int(of['taken'].sum())}", f"{100 * of['gains_held'].mean():.1f}", f"{of['gains_off'].mean():.2f}", *axis)
        lines.append(f"| {beside} | {noise} | {len(rows)} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
