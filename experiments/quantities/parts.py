"""Whether the probability that a region holds a connected part of some size comes true as often as it says.

``python -m experiments.quantities.parts`` asks the simulated objects of `experiments.quantities` for parts above and below
three levels in circles anywhere, of sizes from half to one and a half times the largest part that the image shows there (of
nine pixels to thirty where it shows none), and looks into the object. Fits are kept in ``runs/quantities``: run again, the
command goes on. ``figures/parts.csv`` has a row for each method, half and range of what was told.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import tyro

import ctuq
from ctuq.errors import InputError
from ctuq.quantities import Circle
from ctuq.quantities.parts import largest_parts
from ctuq.quantities.regions import shares_of
from experiments import FIGURES
from experiments.quantities.asked import LEVELS
from experiments.quantities.objects import FIELD, FINER, HALVES, Subject, fitted
from experiments.quantities.tables import asked
from experiments.tables import write

_RADII, _CIRCLES, _TOLERANCE = (3.0, 5.0, 8.0), 2, 0.02
_ENDS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.01)
_FEWEST, _MOST = 9, 30
"""Pixels of a part where the image shows none."""


def answers(subject: Subject, method: str) -> Iterator[dict[str, Any]]:
    """A row for each circle, level and side: what is told, and whether it is so."""
    result, fine = fitted(subject, method), subject.fine()
    rng, finer = np.random.default_rng(subject.seed), ctuq.VolumeGrid(fine.shape, result.grid.voxel / FINER)
    pixel = result.grid.voxel**2
    for radius in np.repeat(_RADII, _CIRCLES):
        circle = Circle(*rng.uniform(-1, 1, 2) * (0.4 * FIELD - radius), float(radius))
        weights, true_weights = shares_of(circle, result.grid), shares_of(circle, finer)
        for share in LEVELS:
            limit = share * float(fine.max())
            for side, sign in (("above", 1), ("below", -1)):
                shown = float(largest_parts(sign * (result.mean[None] - limit) > 0, weights)[0])
                size = shown * rng.uniform(0.5, 1.5) if shown >= 1 else rng.uniform(_FEWEST, _MOST)
                try:
                    told = result.probability(circle, **{side: limit}, at_least=size * pixel, tolerance=_TOLERANCE)
                except InputError:
                    continue
                true = float(largest_parts(sign * (fine[None] - limit) > 0, true_weights)[0]) * pixel / FINER**2
                kind = {"method": method, "half": subject.half, "small": size < _FEWEST}
                yield {**kind, "told": told.value, "true": true >= size * pixel}


def summary(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each method, half, size and range of probabilities."""
    for method in dict.fromkeys(row["method"] for row in rows):
        for half in HALVES:
            for small in (False, True):
                some = [r for r in rows if (r["method"], r["half"], r["small"]) == (method, half, small)]
                for low, high in pairwise(_ENDS):
                    inside = [r for r in some if low <= r["told"] < high]
                    if inside:
                        told, true = (float(np.mean([r[key] for r in inside])) for key in ("told", "true"))
                        size = f"below {_FEWEST} pixels" if small else f"{_FEWEST} pixels and more"
                        yield {"method": method, "half": half, "size": size, "asked": len(inside), "told": told, "true": true}


def main(tv: int = 48, dip: int = 8) -> None:
    """Take so many objects by each method, half of them of each half, ask, print and record."""
    table = list(summary(list(asked(answers, {"tv": tv, "dip": dip}))))
    write(table, FIGURES / "parts.csv", digits=4)
    for each in table:
        print(
            f"{each['method']}, {each['half']}, {each['size']}: told {100 * each['told']:.0f} %, true in "
            f"{100 * each['true']:.0f} % of {each['asked']}"
        )


if __name__ == "__main__":
    tyro.cli(main)
