"""Gains of detector columns: whether intervals hold them, and what taking them out does to the image.

``python -m experiments.systematics.rings`` makes 40 simulated scans over a half-turn, 32 x 32 pixels, 31 views, 2 % of noise,
without gains and with gains of 1, 3 and 10 times the noise; ``real`` puts such gains into the walnut, ta and tb; ``strangers``
takes objects and scans that the method was not chosen on; ``network`` fits the network by default and without gains. The image
is total variation's, as the rays are, freed of the gains that were told, and freed of the true ones.
``figures/systematics_rings.csv`` has a row for each; run again, it goes on; ``table`` prints what is there.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

import ctuq
from ctuq.pipeline.image.rings import gains_of
from ctuq.recon import tv
from ctuq.recon.dip import Data
from ctuq.recon.noise import noise_std
from ctuq.scores.gaussian import Z95
from ctuq.systematics.catalogue import STRONG
from ctuq.systematics.detector import rough
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.systematics.field_tools import DEFECTS, by_algotom, subject_of
from experiments.systematics.field_tools import Subject as Defective
from experiments.systematics.measure import rmse
from experiments.systematics.scans import real

TABLE = FIGURES / "systematics_rings.csv"
SIZE, VIEWS, LEVELS = 32, 31, (0, 1, 3, 10)
_NAMES = {0: "none", 1: "gains, 1 x noise", 3: "gains, 3 x noise", 10: "gains, 10 x noise"}
_FIELDS = (
    *("scan", "seed", "level", "log_odds", "true", "told_error", "told_sd", "held", "z"),
    *("image", "image_freed", "image_exact", "image_algotom", "network", "network_freed", "held_object", "seconds"),
)


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    what: Positional[Literal["simulated", "real", "strangers", "network", "table"]] = "simulated"
    seeds: int = 20
    objects: tuple[str, ...] = ("ellipses", "rectangles")
    levels: tuple[int, ...] = LEVELS
    python: Path | None = None
    """The interpreter of algotom's environment (`experiments.systematics.field_tools`); its best setting is then tried too."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A scan with gains (shares, one a column; zeros for none), and its grid."""

    scan: ctuq.Scan
    grid: ctuq.VolumeGrid
    gains: NDArray[np.float64]


def told_row(subject: Subject) -> Row:
    """What is told of the gains, and the image before and after, in 10^-3/mm where there is a truth."""
    scan, begun = subject.scan, time.process_time()
    A = ctuq.ray_transform(subject.grid, scan.geometry, backend="matrix")
    y = torch.tensor(scan.projections)
    weights = torch.ones_like(y) if scan.weights is None else torch.tensor(scan.weights)
    gains = gains_of(Data(A, y, weights))
    seconds, basis = time.process_time() - begun, rough(y.shape[1]).numpy()
    true, told = basis @ (basis.T @ subject.gains), gains.values.numpy()
    sd = gains.covariance.diagonal().clamp(min=0).sqrt().numpy()
    off = np.abs(told - true) / np.maximum(sd, 1e-300)
    row: Row = {"log_odds": gains.log_odds, "true": _rms(true), "told_error": _rms(told - true), "told_sd": _rms(sd)}
    row |= {"held": float(np.mean(off <= Z95)), "z": _rms(off), "seconds": seconds}
    if scan.truth is not None:
        out = told if gains.log_odds >= STRONG else np.zeros_like(told)
        for name, less in (("image", np.zeros_like(told)), ("image_freed", out), ("image_exact", true)):
            image = tv(A, y + torch.from_numpy(less).to(y), weights=weights)
            row[name] = 1e3 * rmse(scan.truth, image.numpy())
    return row


def _rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def simulated(name: str, seed: int, level: int) -> Defective:
    """A scan of `experiments.systematics.field_tools`."""
    return subject_of(name, seed, _NAMES[level], SIZE, VIEWS)


def _subject(found: Defective) -> Subject:
    scan = found.scan
    gains = found.true if found.kind == "gain" else np.zeros(scan.geometry.columns)
    assert scan.grid is not None
    return Subject(scan, scan.grid, gains)


def algotom_row(found: Defective, python: Path) -> Row:
    """The image by total variation at algotom's best setting, which the truth chooses."""
    rows = list(by_algotom(found, "gain", python))
    return {"image_algotom": next(float(row["error"]) for row in rows if row["method"] == "tv, algotom's gain at its best")}


def with_gains(scan: ctuq.Scan, grid: ctuq.VolumeGrid, level: float, seed: int, noise: float | None = None) -> Subject:
    """A scan with gains of ``level`` times its noise, which by default is read from its sinogram."""
    y = torch.tensor(scan.projections)
    size = float(noise_std(y)) if noise is None else noise
    gains = level * size * np.random.default_rng(1000 + seed).standard_normal(scan.geometry.columns)
    return Subject(replace(scan, projections=(scan.projections - gains).astype(np.float32)), grid, gains)


def strangers() -> Iterator[tuple[str, ctuq.Scan, float]]:
    """Name, scan and noise: round objects about the axis, arcs, few views, much noise, an axis off, dead columns."""
    side = (np.arange(4 * SIZE) + 0.5) / (2 * SIZE) - 1
    x, y = np.meshgrid(side, side)
    r = np.hypot(x, y)
    rng = np.random.default_rng(0)
    bodies = {
        "cylinder": r < 0.6,
        "pipe": (r < 0.7) & (r > 0.5),
        "dome": np.sqrt(np.maximum(0.64 - r**2, 0)),
        "rings about the axis": 0.7 * (r < 0.8) * (1 + 0.3 * np.sign(np.sin(25 * r))),
        "texture": (r < 0.8) * (1 + 0.2 * np.kron(rng.standard_normal((32, 32)), np.ones((4, 4)))),
    }
    off = (np.hypot(x - 0.3, y) < 0.4) + 0.5 * (np.hypot(x, y + 0.4) < 0.3)
    for name, body in bodies.items():
        yield (name, *_scan(body))
    for name, given in {
        "8 views": {"views": 8},
        "90 views": {"views": 90},
        "arc of 90 degrees": {"end": np.pi / 2},
        "full turn": {"end": 2 * np.pi, "views": 60},
        "0.5 % of noise": {"noise": 0.005},
        "10 % of noise": {"noise": 0.1},
        "axis a column off": {"axis": 1.0},
    }.items():
        yield (name, *_scan(off, **given))
    scan, noise = _scan(off)
    weights = np.ones_like(scan.projections)
    weights[:, 20] = 0
    weights[::3, 30] = 0
    broken = np.where(weights > 0, scan.projections, 9.0).astype(np.float32)
    yield "dead columns", replace(scan, projections=broken, weights=weights), noise


def _scan(body: NDArray, *, views: int = VIEWS, end: float = np.pi, noise: float = 0.02, axis: float = 0.0):
    grid = ctuq.VolumeGrid((SIZE, SIZE), 40.0 / SIZE)
    angles = np.linspace(0, end, views, endpoint=False)
    told = ctuq.ParallelBeam(angles=angles, columns=int(1.42 * SIZE) + 2, pixel=grid.voxel)
    beam = replace(told, axis_offset=axis * grid.voxel)
    scan = simulate(
        body.astype(np.float32), beam, grid, RelativeNoise(noise), rng=np.random.default_rng(0), finer=4, attenuation=0.05
    )
    return replace(scan, geometry=told), noise * float(np.abs(scan.projections).mean())


def network_row(found: Defective) -> Row:
    """The network's image by default and without gains in the model."""
    truth, row = found.scan.truth, {}
    assert truth is not None
    for name, text in (("network", "axis,hardening"), ("network_freed", "default")):
        result = ctuq.reconstruct(found.scan, size=len(truth), systematics=text, threads=1)
        row |= {name: 1e3 * rmse(truth, result.mean), "held_object": result.scores["truth"]["cover_95_object"]}
    return row


def subjects(options: Options) -> Iterator[tuple[str, int, int, Subject]]:
    """Scan, seed, level."""
    if options.what == "real":
        for name in ("walnut", "ta", "tb"):
            found = real(name, 64)
            for seed in range(min(options.seeds, 3)):
                for level in options.levels:
                    if level or not seed:
                        yield f"{name} 64", seed, level, with_gains(replace(found.scan, truth=None), found.grid, level, seed)
        return
    for name, scan, noise in strangers():
        assert scan.grid is not None
        for level in (0, 3):
            yield name, 0, level, with_gains(scan, scan.grid, level, 0, noise)


def main(options: Options) -> None:
    """Make the rows that are missing, and print the table."""
    table = Rows(TABLE)

    def kept(row: Row) -> None:
        table.add([dict.fromkeys(_FIELDS, "") | row])
        print(" ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)

    if options.what in ("simulated", "network"):
        mark = " by network" if options.what == "network" else ""
        for seed, name, level in [(s, o, n) for s in range(options.seeds) for o in options.objects for n in options.levels]:
            assert _NAMES[level] in DEFECTS
            key: Row = {"scan": f"{name}{mark}", "seed": seed, "level": level}
            if table.where(**key):
                continue
            found = simulated(name, seed, level)
            if mark:
                kept(key | network_row(found))
                continue
            row = told_row(_subject(found))
            kept(key | row | (algotom_row(found, options.python) if options.python is not None and level else {}))
    elif options.what in ("real", "strangers"):
        for name, seed, level, subject in subjects(options):
            key = {"scan": name, "seed": seed, "level": level}
            if not table.where(**key):
                kept(key | told_row(subject))
    print(table_of(table))


def table_of(table: Rows) -> str:
    """Markdown: means over the scans of a kind and level."""
    names = ("log_odds", *_FIELDS[4:-1])
    lines = ["| scan | level | scans | taken out | " + " | ".join(names) + " |", "|" + "---|" * (4 + len(names))]
    for scan, level in dict.fromkeys((row["scan"], row["level"]) for row in table.rows):
        rows = table.where(scan=scan, level=level)
        out = sum(float(row["log_odds"]) >= STRONG for row in rows if row["log_odds"] != "")
        cells = [[float(row[n]) for row in rows if row[n] != ""] for n in names]
        shown = [f"{np.mean(values):.3g}" if values else "" for values in cells]
        lines.append(f"| {scan} | {level} | {len(rows)} | {out} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
