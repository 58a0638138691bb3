"""Whether intervals of quantities of stacks hold the truth: in single slices, and through slices.

``python -m experiments.quantities.stacks`` simulates stacks of slices of three kinds of objects: the same in every slice, balls
in a cylinder, and slices that have nothing but a disc in common. It asks means of circles in slices, means of cylinders and
spheres through them, and shares of cylinders above a level, and tells beside each interval what it would have held had the
slices been taken as independent. Fits are kept in ``runs/quantities``: run again, the command goes on.
``figures/quantities_stacks.csv`` has a row for each group.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.pipeline import reconstruct_stack
from ctuq.quantities import Circle, Cylinder, Quantity, Sphere
from ctuq.quantities.regions import shares_of
from ctuq.quantities.solids import Solid, shares_of_solid
from ctuq.quantities.through import ALIKE
from ctuq.scores.gaussian import Z95
from ctuq.tomo import Parallel3D, ParallelBeam, VolumeGrid, VolumeScan, ray_transform
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.uncertainty.results.volume import VolumeResult
from experiments import FIGURES
from experiments.quantities.objects import ATTENUATION, FIELD, FINER, KEPT
from experiments.tables import write

Row = dict[str, Any]
SIZE, SLICES, VIEWS = 32, 12, 20
VOXEL = FIELD / SIZE
KINDS, NOISES = ("the same in all slices", "balls", "slices of their own"), (0.01, 0.03, 0.08)
_BALLS, _LEVEL = 30, 0.3
_RADII, _CIRCLES, _THROUGH = (1.0, 2.0, 4.0, 8.0), 3, 10
_FLAT, _MEANS, _SPHERES, _SHARES = "mean in a slice", "mean of a cylinder", "mean of a sphere", "share of a cylinder"


@dataclass(frozen=True)
class Stacked:
    """A simulated stack."""

    kind: str
    noise: float
    seed: int

    def fine(self) -> NDArray[np.float64]:
        """The slices in 1/mm, `FINER` times finer than their images, (z, y, x)."""
        n = SIZE * FINER
        if self.kind == KINDS[0]:
            return ATTENUATION * np.stack([PHANTOMS["ellipses"](n, np.random.default_rng(self.seed))] * SLICES).astype(float)
        if self.kind == KINDS[2]:
            own = (PHANTOMS["ellipses"](n, np.random.default_rng([self.seed, z])) for z in range(SLICES))
            return ATTENUATION * np.stack(list(own)).astype(float)
        across, along = (np.arange(n) + 0.5) / n * 2 - 1, (np.arange(SLICES * FINER) + 0.5) / n * 2
        along -= along.mean()
        z, y, x = np.meshgrid(along, across, across, indexing="ij", sparse=True)
        rng, solid = np.random.default_rng(self.seed), 0.4 * ((y**2 + x**2) < 0.85**2) * np.ones_like(z)
        for _ in range(_BALLS):
            radius, value = rng.uniform(0.05, 0.25), rng.uniform(-0.3, 0.4)
            a, b, c = *rng.uniform(-0.6, 0.6, 2), rng.uniform(along[0], along[-1])
            solid = solid + value * ((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2)
        return ATTENUATION * np.clip(solid, 0, 1).reshape(SLICES, FINER, n, n).mean(axis=1)

    def scan(self, fine: NDArray[np.float64]) -> VolumeScan:
        """Its scan; projections come from the finer slices."""
        angles, columns = ctuq.radians(np.arange(VIEWS) * 180 / VIEWS), int(np.ceil(2**0.5 * SIZE)) + 2
        close = ParallelBeam(angles=angles, columns=columns * FINER, pixel=VOXEL / FINER)
        A = ray_transform(VolumeGrid(fine.shape[1:], VOXEL / FINER), close, backend="matrix")
        clean = A(torch.from_numpy(fine.astype(np.float32))).numpy().reshape(SLICES, VIEWS, -1, FINER).mean(axis=-1)
        rng = np.random.default_rng([self.seed, round(1000 * self.noise)])
        noisy = clean + self.noise * np.abs(clean).mean() * rng.standard_normal(clean.shape)
        space = Parallel3D(angles=angles, rows=SLICES, columns=columns, pixel=VOXEL, row_pixel=VOXEL)
        return VolumeScan(noisy.astype(np.float32), space)

    def fitted(self, fine: NDArray[np.float64], method: str) -> VolumeResult:
        """The result, kept in ``runs/quantities``: delete the folder after a change of what error bars are made from."""
        path = KEPT / f"stack {self.kind}, {self.noise:.0%}, {self.seed}, {method}.h5"
        if not path.is_file():
            KEPT.mkdir(parents=True, exist_ok=True)
            reconstruct_stack(self.scan(fine), method, size=SIZE, field=FIELD, systematics="none").save(path)
        return VolumeResult.load(path)


def answers(stack: Stacked, method: str) -> Iterator[Row]:
    """Of every region."""
    fine, rng = stack.fine(), np.random.default_rng(stack.seed)
    result = stack.fitted(fine, method)
    about = {"method": method, "kind": stack.kind, "noise": stack.noise}

    def row(what: str, quantity: Quantity, shares: NDArray[np.float64], values: NDArray) -> Row:
        parts = quantity.budget
        spread = {"independent": sum(part for source, part in parts.items() if source != ALIKE) ** 0.5}
        truth = float(np.sum(shares * values) / shares.sum())
        return about | {"what": what, "value": quantity.value, "truth": truth, "u": quantity.standard_uncertainty, **spread}

    def place(radius: float) -> tuple[float, float]:
        x, y = rng.uniform(-1, 1, 2) * (18 - radius) / 1.5
        return float(x), float(y)

    for z, radius, _ in product(range(SLICES), _RADII, range(_CIRCLES)):
        circle = Circle(*place(radius), radius)
        yield row(_FLAT, result.slice(z).region(circle), shares_of(circle, _plane(fine)), fine[z])
    for radius, _ in product(_RADII, range(_THROUGH)):
        first = int(rng.integers(0, SLICES - 2))
        solid = Cylinder(*place(radius), radius, *_ends(first, int(rng.integers(first + 1, SLICES))))
        yield row(_MEANS, result.region(solid), _shares(solid, fine), fine)
    for radius, _ in product((2.0, 4.0, 6.0), range(_THROUGH)):
        solid = Sphere(*place(radius), 0.0, radius)
        yield row(_SPHERES, result.region(solid), _shares(solid, fine), fine)
    for radius, _ in product((4.0, 6.0, 9.0), range(3)):
        solid, limit = Cylinder(*place(radius), radius, *_ends(1, SLICES - 2)), _LEVEL * float(fine.max())
        yield row(_SHARES, result.fraction(solid, above=limit, tolerance=0.2), _shares(solid, fine), fine > limit)


def _plane(fine: NDArray) -> VolumeGrid:
    return VolumeGrid(fine.shape[1:], VOXEL / FINER)


def _shares(solid: Solid, fine: NDArray) -> NDArray[np.float64]:
    return shares_of_solid(solid, VolumeGrid(fine.shape, VOXEL / FINER), (VOXEL, VOXEL / FINER, VOXEL / FINER))


def _ends(first: int, last: int) -> tuple[float, float]:
    """Heights of the lower end of one slice and of the upper end of another."""
    return (first - SLICES / 2) * VOXEL, (last + 1 - SLICES / 2) * VOXEL


def _figures(rows: list[Row]) -> Row:
    off = np.array([row["value"] - row["truth"] for row in rows])
    told, alone = (np.array([row[name] for row in rows]) for name in ("u", "independent"))
    return {
        "asked": len(rows),
        "cover_95": float(np.mean(np.abs(off) <= Z95 * told)),
        "rms_z": float(np.sqrt(np.mean((off / told) ** 2))),
        "independent_cover_95": float(np.mean(np.abs(off) <= Z95 * alone)),
        "independent_rms_z": float(np.sqrt(np.mean((off / alone) ** 2))),
        "median_uncertainty": float(np.median(told)),
        "median_error": float(np.median(np.abs(off))),
    }


def summary(rows: list[Row]) -> Iterator[Row]:
    """A row for each quantity, of all and of each kind of object and noise."""
    for method, what in product(dict.fromkeys(row["method"] for row in rows), (_FLAT, _MEANS, _SPHERES, _SHARES)):
        of_what = [row for row in rows if row["what"] == what and row["method"] == method]
        groups = [("all", "", of_what)]
        for key, values in {"kind": KINDS, "noise": NOISES}.items():
            groups += [(key, value, some) for value in values if (some := [row for row in of_what if row[key] == value])]
        for group, value, some in groups:
            yield {"method": method, "what": what, "group": group, "value": value, **_figures(some)}


def main(tv: int = 1, dip: int = 1) -> None:
    """Fit so many stacks of each kind and noise by tv, of each kind by dip at 3 % of noise; ask, print and record."""
    rows: list[Row] = []
    for kind, noise, seed in product(KINDS, NOISES, range(max(tv, dip))):
        for method, count in {"tv": tv, "dip": dip if noise == NOISES[1] else 0}.items():
            if seed < count:
                rows += answers(Stacked(kind, noise, 900 + seed), method)
                print(f"asked: {kind}, {noise:.0%}, {seed}, {method}", flush=True)
    table = list(summary(rows))
    write(table, FIGURES / "quantities_stacks.csv", digits=4)
    for each in table:
        print(
            f"{each['method']}, {each['what']}, {each['group']} {each['value']}: {100 * each['cover_95']:.0f} % of "
            f"{each['asked']} hold, rms z {each['rms_z']:.2f}; of independent slices "
            f"{100 * each['independent_cover_95']:.0f} %, {each['independent_rms_z']:.2f}"
        )


if __name__ == "__main__":
    tyro.cli(main)
