"""Whether it matters where the held-out views lie: ``python -m experiments.calibration.placement``.

Seven scans of `experiments.calibration` at 24 x 24 pixels, arcs and a fan among them, are fitted with three views held out and
with one, in each of four places. ``figures/calibration_places.csv`` has a row for each; fits are kept in
``runs/calibration_places``, so that the command goes on where it was stopped.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import tyro

from experiments.calibration.__main__ import AS_IT_IS, CACHE, FIGURES, Row
from experiments.calibration.choices import scored, view_scatter
from experiments.calibration.fits import fitted, is_kept
from experiments.calibration.scans import Subject, subjects
from experiments.tables import write

SIZE = 24
_KEPT = CACHE.with_name("calibration_places")
_PLACES = ("even", "random", "edges", "golden")
SCANS = (
    *("rectangles, 2% noise, 15 views", "ellipses, 14 views of 60 degrees", "rectangles, 20 views of 90 degrees"),
    *("photons without weights, 24 views", "walnut, 15 views", "ta, 16 views", "tooth, 16 views"),
)
_TOLD = ("log_likelihood", "rms_z", "cover_68", "cover_95", "pixel_cover_95", "rmse")


def chosen() -> list[Subject]:
    """The scans, in the order of `experiments.calibration`."""
    every = {subject.name: replace(subject, size=SIZE) for subject in subjects()}
    return [every[name] for name in SCANS if name in every]


def rows(views: Sequence[int], places: Sequence[str], cache: Path, fit: bool) -> Iterator[Row]:
    """For each number of views, scan and place, what the calibration is worth."""
    for k, subject, place in product(views, chosen(), places):
        if fit or is_kept(subject, f"{k} {place}", cache):
            found = fitted(subject, k, cache, place=place)
            yield {"scan": subject.name, "held_out": k, "place": place} | scored(found, AS_IT_IS) | view_scatter(found)
            print(f"{subject.name}, {k} held out, {place}", flush=True)


def tell(told: list[Row], k: int, place: str, arcs: bool) -> None:
    """Means over the scans with or without a limited arc, and how often the ranges held."""
    kept = [r for r in told if (r["held_out"], r["place"]) == (k, place) and ("degrees" in r["scan"]) == arcs]
    if not kept:
        return
    means = ", ".join(f"{n} {np.mean([r[n] for r in kept if n in r]):.4g}" for n in _TOLD)
    off = math.sqrt(np.mean([math.log(r["rms_z"]) ** 2 for r in kept]))
    held = [sum(r[f"low_{n}"] <= r[f"cover_{n}"] <= r[f"high_{n}"] for r in kept) for n in ("68", "95")]
    kind = "arcs" if arcs else "whole"
    print(f"{k} held out, {place}, {len(kept)} {kind}: {means}, off {off:.3f}, ranges held {held[0]} and {held[1]}")


def main(views: tuple[int, ...] = (3, 1), places: tuple[str, ...] = _PLACES, fit: bool = True, cache: Path = _KEPT) -> None:
    """Fit, compare, print and record; ``--no-fit`` compares what is there."""
    told = list(rows(views, places, cache, fit))
    write(told, FIGURES / "calibration_places.csv")
    for k in views:
        for arcs in (False, True):
            for place in places:
                tell(told, k, place, arcs)


if __name__ == "__main__":
    tyro.cli(main)
