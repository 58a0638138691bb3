"""Whether intervals of means hold where a region ends on the object's own edges, as when somebody outlines a grain or a hole.

``python -m experiments.quantities.outlines`` asks the simulated objects of `experiments.quantities` for the means of their
parts and holes (of twelve pixels and more), outlined as they truly are, half a pixel to two pixels further in or out, and as
the image shows them; circles anywhere are beside them. What averaging with neighbours changes a mean by (``LEAK`` of
`ctuq.quantities.discrepancy`) was sized on the half "chosen" of the fits by total variation. Fits are kept in
``runs/quantities``: run again, the command goes on. ``figures/outlines.csv`` has the table.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, label

import ctuq
from ctuq.quantities import Circle
from ctuq.quantities.discrepancy import LEAKS
from ctuq.quantities.regions import shares_of
from ctuq.scores.gaussian import Z95
from experiments import FIGURES
from experiments.quantities.objects import FIELD, FINER, HALVES, Subject, fitted
from experiments.quantities.tables import asked
from experiments.tables import write

_FURTHER = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
_LEAST = 12
"""Pixels of a part."""
_RADII, _CIRCLES = (1.0, 2.0, 4.0, 8.0), 4
PART, HOLE, NEAR, SEEN, IN_OUT, CIRCLE = (
    "part, its true outline",
    "hole, its true outline",
    "either, half a pixel to two pixels in or out",
    "part, the pixels that the image shows",
    "that, a pixel less or more",
    "circle anywhere",
)
Outlined = tuple[str, NDArray[np.float64], float]
"""Kind, share of each pixel, and the object's mean there."""


def regions(fine: NDArray[np.float64], image: NDArray[np.float64], grid: ctuq.VolumeGrid, seed: int) -> Iterator[Outlined]:
    """Of one object and its image."""

    def of_fine(kind: str, mask: NDArray) -> Outlined:
        shares = mask.reshape(len(image), FINER, len(image), FINER).mean(axis=(1, 3))
        return kind, shares, float(fine[mask].mean())

    for kind, inside in ((PART, fine > 0.5 * fine.max()), (HOLE, fine < 0.25 * fine.max())):
        for mask in _parts(inside, _LEAST * FINER**2):
            if kind == HOLE and mask[0, 0]:
                continue
            yield of_fine(kind, mask)
            depth = distance_transform_edt(mask) - distance_transform_edt(~mask)
            for further in _FURTHER:
                if np.count_nonzero(moved := depth > -further * FINER) >= _LEAST / 2 * FINER**2:
                    yield of_fine(NEAR, moved)
    for mask in _parts(image > 0.5 * np.quantile(image, 0.99), _LEAST):
        for kind, pixels in ((SEEN, mask), (IN_OUT, binary_dilation(mask)), (IN_OUT, binary_erosion(mask))):
            if np.count_nonzero(pixels) >= _LEAST / 2:
                yield of_fine(kind, np.kron(pixels, np.ones((FINER, FINER), bool)))
    rng, finer = np.random.default_rng(seed), ctuq.VolumeGrid(fine.shape, grid.voxel / FINER)
    for radius in np.repeat(_RADII, _CIRCLES):
        circle = Circle(*rng.uniform(-1, 1, 2) * (0.45 * FIELD - radius) / 1.5, float(radius))
        weights = shares_of(circle, finer)
        yield CIRCLE, shares_of(circle, grid), float(np.sum(weights * fine) / weights.sum())


def answers(subject: Subject, method: str) -> Iterator[dict[str, object]]:
    """A row for each region: error and standard uncertainty over the object's largest value, with and without the leak."""
    result, fine = fitted(subject, method), subject.fine()
    for kind, shares, truth in regions(fine, result.mean.astype(np.float64), result.grid, subject.seed):
        found = result.region(shares)
        u, leak = found.standard_uncertainty, found.budget[LEAKS]
        numbers = {"error": found.value - truth, "u": u, "without": np.sqrt(max(u**2 - leak, 0.0))}
        yield {"method": method, "half": subject.half, "kind": kind, **{k: v / fine.max() for k, v in numbers.items()}}


def summary(rows: list[dict]) -> Iterator[dict[str, Any]]:
    """A row for each method, half and kind of region."""
    for method in dict.fromkeys(row["method"] for row in rows):
        for half in HALVES:
            for kind in (PART, HOLE, NEAR, SEEN, IN_OUT, CIRCLE):
                some = [row for row in rows if (row["method"], row["half"], row["kind"]) == (method, half, kind)]
                if some:
                    yield {"method": method, "half": half, "region": kind, **_figures(some)}


def _figures(rows: list[dict]) -> dict[str, float]:
    error, u, without = (np.array([row[key] for row in rows]) for key in ("error", "u", "without"))
    told = {"asked": len(rows), "median_error": float(np.median(np.abs(error))), "median_u": float(np.median(u))}
    for name, sd in (("", u), ("_without", without)):
        z = error / sd
        told |= {f"cover_95{name}": float(np.mean(np.abs(z) <= Z95)), f"rms_z{name}": float(np.sqrt(np.mean(z**2)))}
    return told


def _parts(inside: NDArray[np.bool_], least: float) -> Iterator[NDArray[np.bool_]]:
    numbers, count = label(inside)
    yield from (numbers == n for n in range(1, count + 1) if np.count_nonzero(numbers == n) >= least)


def main(tv: int = 48, dip: int = 8) -> None:
    """Take so many objects by each method, half of them of each half, ask, print and record."""
    table = list(summary(list(asked(answers, {"tv": tv, "dip": dip}))))
    write(table, FIGURES / "outlines.csv", digits=4)
    for each in table:
        share = {key: f"{100 * each[key]:.1f} %" for key in ("cover_95", "cover_95_without", "median_error", "median_u")}
        print(
            f"{each['method']}, {each['half']}, {each['region']}: {share['cover_95']} of {each['asked']} hold, rms z "
            f"{each['rms_z']:.2f}; without edges along the outline {share['cover_95_without']}, rms z "
            f"{each['rms_z_without']:.1f}; typical error {share['median_error']} of the largest value, told {share['median_u']}"
        )


if __name__ == "__main__":
    tyro.cli(main)
