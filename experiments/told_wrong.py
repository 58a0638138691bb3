"""Scans that are told wrongly, or went wrong: whether the reader says so, and what.

``python -m experiments.told_wrong`` spoils drawn scans and the shipped walnut and tooth in ways of their own, reads each as a
stranger's file, and prints in how many the cause is named, something is said, and nothing is; ``figures/told_wrong.csv``.
"""

import csv
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
import yaml
from numpy.typing import NDArray

import ctuq
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments import FIGURES
from experiments.unseen_views import load

OUTPUT = FIGURES / "told_wrong.csv"
_VIEWS, _COLUMNS, _NOISE = 60, 72, 0.02
_BENIGN = ("The rotation axis is taken at the detector's middle", "The rotation axis was found", "Rays are weighted")


@dataclass(frozen=True)
class Habit:
    """One way to be wrong: what it does to a scan, and words of the sentence that names it."""

    name: str
    spoil: Callable[[ctuq.Scan], ctuq.Scan]
    words: tuple[str, ...]


def _ordered(order: Callable[[int], NDArray[np.int64]]) -> Callable[[ctuq.Scan], ctuq.Scan]:
    return lambda scan: replace(scan, projections=scan.projections[order(scan.n_angles)])


def _backwards(n: int) -> NDArray[np.int64]:
    return np.r_[np.arange(n // 2), np.arange(n // 2, n)[::-1]]


def _turned(change: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Callable[[ctuq.Scan], ctuq.Scan]:
    return lambda scan: replace(scan, geometry=replace(scan.geometry, angles=change(scan.geometry.angles)))


def _added(what: Callable[[int, int], NDArray[np.float64]]) -> Callable[[ctuq.Scan], ctuq.Scan]:
    return lambda scan: replace(
        scan, projections=scan.projections + np.percentile(scan.projections, 99) * what(*scan.projections.shape)
    )


def _moved(scan: ctuq.Scan) -> ctuq.Scan:
    half, by = scan.n_angles // 2, scan.geometry.columns // _COLUMNS
    return replace(scan, projections=np.r_[scan.projections[:half], np.roll(scan.projections[half:], by, axis=1)])


def _beside(scan: ctuq.Scan) -> ctuq.Scan:
    return replace(scan, geometry=replace(scan.geometry, detector_offset=-scan.geometry.pixel))


def _shuffled(n: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(n)


def _as_text(n: int) -> NDArray[np.int64]:
    return np.array(sorted(range(n), key=str))


def _even_first(n: int) -> NDArray[np.int64]:
    return np.r_[np.arange(0, n, 2), np.arange(1, n, 2)]


def _numbers(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.deg2rad(np.arange(len(angles)))


def _panel(views: int, columns: int) -> NDArray[np.float64]:
    return 0.05 * np.ones((views, 1)) * (np.arange(columns) >= columns // 2)


def _falling(views: int, columns: int) -> NDArray[np.float64]:
    return np.linspace(0, 0.33, views)[:, None] * np.ones(columns)


_ORDER = ("order", "explained better if the angles")
HABITS = (
    Habit("nothing", lambda scan: scan, ()),
    Habit("views shuffled", _ordered(_shuffled), _ORDER),
    Habit("views sorted as text", _ordered(_as_text), ("10 before 2",)),
    Habit("even views first", _ordered(_even_first), _ORDER),
    Habit("second half backwards", _ordered(_backwards), _ORDER),
    Habit("angles twice too far", _turned(lambda angles: 2 * angles), ("half as far",)),
    Habit("views' numbers as angles", _turned(_numbers), ("views' numbers",)),
    Habit("axis a column beside", _beside, ("rays say",)),
    Habit("sample moved by a 72nd half-way", _moved, ("jumps by", "strays by")),
    Habit("a panel counts too little, 0.05 of the top", _added(_panel), ("as a panel does",)),
    Habit("flux falls, by 0.33 of the top", _added(_falling), ("flux", "air", "beam")),
)


def scans() -> dict[str, ctuq.Scan]:
    """Drawn ones of each phantom over half a turn, two seeds, and two real ones."""
    beam = ctuq.ParallelBeam(angles=np.arange(_VIEWS) * np.pi / _VIEWS, columns=_COLUMNS, pixel=0.65)
    grid, found = ctuq.VolumeGrid((32, 32), 1.0), {}
    for name, make in PHANTOMS.items():
        for seed in (1, 2):
            image, rng = 0.04 * make(128, np.random.default_rng(seed)), np.random.default_rng(seed)
            found[f"{name} {seed}"] = simulate(image, beam, grid, RelativeNoise(_NOISE), rng=rng, finer=4)
    return found | {"walnut": load("walnut"), "tooth": load("tooth").every(2)}


def told(scan: ctuq.Scan, folder: Path) -> list[str]:
    """What a reader warns of, of the scan as NumPy arrays with a geometry file."""
    geometry = scan.geometry
    given = {"kind": "parallel", "pixel": geometry.pixel, "values": "log", "detector_offset": geometry.detector_offset}
    if isinstance(geometry, ctuq.FanBeam):
        distances = {"source_to_axis": geometry.source_to_axis, "source_to_detector": geometry.source_to_detector}
        given |= {"kind": "fan", "axis_offset": geometry.axis_offset} | distances
    given["angles"] = [float(angle) for angle in np.rad2deg(geometry.angles)]
    np.save(folder / "scan.npy", scan.projections)
    (folder / "scan.yaml").write_text(yaml.safe_dump(given))
    return [text for text in ctuq.read(folder / "scan.npy").warnings if not text.startswith(_BENIGN)]


def main() -> None:
    """Spoil, read, count, print and record."""
    kept, rows = scans(), []
    with tempfile.TemporaryDirectory() as folder:
        for habit in HABITS:
            counts = {"named": 0, "something else": 0, "nothing": 0}
            for scan in kept.values():
                sentences = told(habit.spoil(scan), Path(folder))
                named = any(words in text for text in sentences for words in habit.words)
                counts["named" if named else "something else" if sentences else "nothing"] += 1
            rows.append({"habit": habit.name, "scans": len(kept)} | counts)
            print(rows[-1], flush=True)
    with OUTPUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    tyro.cli(main)
