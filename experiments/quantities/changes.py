"""Whether the interval of a change between two scans holds the true change, where there is one and where there is none.

``python -m experiments.quantities.changes`` fits pairs of simulated scans of one object at 32 pixels, the second with a disc
that attenuates a fifth of the object's largest value more, and with noise of its own. Regions inside of the disc ask for the
change, regions beside it for no change, regions across its edge for a part of it. Fits are kept in ``runs/quantities``: run
again, the command goes on. ``figures/changes.csv`` has a row for each group.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import tyro

import ctuq
from ctuq.quantities import Circle
from ctuq.scores.gaussian import Z95
from ctuq.tomo.phantoms import PHANTOMS
from experiments import FIGURES
from experiments.quantities import asked
from experiments.quantities.objects import CHANGE, FIELD, Subject, fitted
from experiments.tables import write

SIZE, PER_PAIR = 32, 10
_KINDS = tuple((noise, views) for noise in (0.01, 0.03) for views in ("20 views", "12 views", "90 degrees"))
_RADII = (1.0, 2.0, 4.0)
INSIDE, BESIDE, ACROSS = "inside of the change", "beside it", "across its edge"


def pairs(count: int) -> Iterator[tuple[Subject, Subject]]:
    """Scans before and after a change: all phantoms in turn, all kinds of views and noise."""
    phantoms = tuple(PHANTOMS)
    for n in range(count):
        noise, views = _KINDS[n % len(_KINDS)]
        before = Subject(phantoms[(n + n // len(phantoms)) % len(phantoms)], SIZE, noise, views, 500 + n, "tested")
        yield before, replace(before, changed=True)


def regions(rng: np.random.Generator) -> Iterator[tuple[str, Circle]]:
    """Where a change is asked for."""
    yield from ((INSIDE, Circle(CHANGE.x, CHANGE.y, r)) for r in (1.0, 2.0, CHANGE.radius))
    yield ACROSS, Circle(CHANGE.x, CHANGE.y + 2, CHANGE.radius)
    yield ACROSS, Circle(0, 0, 12)
    left = PER_PAIR
    while left:
        radius = float(rng.choice(_RADII))
        x, y = rng.uniform(-12, 12, 2)
        if math.hypot(x - CHANGE.x, y - CHANGE.y) > radius + CHANGE.radius + FIELD / SIZE:
            yield BESIDE, Circle(float(x), float(y), radius)
            left -= 1


def answers(count: int, method: str) -> Iterator[asked.Row]:
    """Of every pair and region."""
    for before, after in pairs(count):
        objects = before.fine(), after.fine()
        grid = ctuq.VolumeGrid(objects[0].shape, FIELD / len(objects[0]))
        results = fitted(before, method), fitted(after, method)
        for where, region in regions(np.random.default_rng(before.seed)):
            for row in asked.differences(*results, *objects, grid, [region]):
                yield row | {"where": where, "noise": before.noise, "views": before.views, "phantom": before.phantom}
        print(f"asked: {before.name}, {method}", flush=True)


def summary(rows: list[asked.Row]) -> Iterator[dict[str, object]]:
    """A row for each place, of all and of each kind of views and noise."""
    for where in (INSIDE, ACROSS, BESIDE):
        of_place = [row for row in rows if row["where"] == where]
        groups = [("all", "", of_place)]
        for key in ("views", "noise", "radius"):
            values = sorted({row[key] for row in of_place}, key=str)
            groups += [(key, value, [row for row in of_place if row[key] == value]) for value in values]
        for group, value, some in groups:
            yield {"where": where, "group": group, "value": value, **_figures(some)}


def _figures(rows: list[asked.Row]) -> dict[str, object]:
    z = np.array([(row["value"] - row["truth"]) / row["u"] for row in rows])
    seen = np.array([abs(row["value"] / row["u"]) > Z95 for row in rows])
    return {
        "asked": len(rows),
        "cover_95": float(np.mean(np.abs(z) <= Z95)),
        "rms_z": float(np.sqrt(np.mean(z**2))),
        "told_as_change": float(seen.mean()),
        "median_uncertainty": float(np.median([row["u"] for row in rows])),
        "mean_error": float(np.mean([row["value"] - row["truth"] for row in rows])),
    }


def main(dip: int = 12, tv: int = 24) -> None:
    """Fit so many pairs by each method, ask, print and record."""
    table: list[dict[str, object]] = []
    for method, count in {"dip": dip, "tv": tv}.items():
        if count:
            table += [{"method": method, "pairs": count, **row} for row in summary(list(answers(count, method)))]
    write(table, FIGURES / "changes.csv", digits=4)
    for each in table:
        print(
            f"{each['method']}, {each['where']}, {each['group']} {each['value']}: "
            f"{100 * each['cover_95']:.0f} % of {each['asked']} hold, "
            f"rms z {each['rms_z']:.2f}, {100 * each['told_as_change']:.0f} % told as a change"
        )


if __name__ == "__main__":
    tyro.cli(main)
