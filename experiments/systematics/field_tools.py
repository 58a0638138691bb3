"""Corrections that the field uses, by algotom, beside ctuq's own.

``python -m experiments.systematics.field_tools --python OTHER/bin/python``: one defect at a time in simulated scans over a
half-turn: the axis half a column and two columns off, gains of columns (rings) of 1, 3 and 10 times the noise, beam hardening.
Each is reconstructed as it is, after algotom's correction, and, with ``--network axis,gain,hardening none``, by the network
with these systematic errors and without any; ``figures/systematics_field_tools.csv`` has a row for each. algotom runs in an own
environment (``python -m venv OTHER``, ``OTHER/bin/pip install algotom==1.7.0``); without ``--python`` its rows are left out.
Run again, it goes on; ``--draw`` prints the table from the rows that are there.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.recon.dip import DIPOptions
from ctuq.scores.gaussian import Z95
from ctuq.systematics.detector import rough
from ctuq.tomo.axis import axis_column, find_axis, with_axis_column
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.systematics.measure import rmse

TABLE = FIGURES / "systematics_field_tools.csv"
BLOCKS = "axis,gain,hardening"
DEFECTS: dict[str, tuple[str, float]] = {
    "none": ("", 0.0),
    "axis, 0.5 columns": ("axis", 0.5),
    "axis, 2 columns": ("axis", 2.0),
    "gains, 1 x noise": ("gain", 1.0),
    "gains, 3 x noise": ("gain", 3.0),
    "gains, 10 x noise": ("gain", 10.0),
    "hardening, 0.1": ("hardening", 0.1),
}
CLASSICAL = ("fbp", "tv")
_WIDTH, _ATTENUATION, _NOISE, _ITERATIONS = 40.0, 0.05, 0.02, 300
_FEW = 8
_FIELDS = (
    *("size", "views", "object", "seed", "defect", "method", "setting", "error", "axis_off"),
    *("told_true", "told_error", "told_sd", "held", "image_sd", "image_held", "seconds"),
)


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    python: Path | None = None
    """The interpreter of algotom's environment."""
    size: int = 64
    views: int = 61
    """Over a half-turn with both ends, as algotom's search of the axis wants them."""
    objects: tuple[str, ...] = ("ellipses", "rectangles")
    seeds: int = 3
    defects: tuple[str, ...] = tuple(DEFECTS)
    network: tuple[str, ...] = ()
    """Systematic errors by which the network is fitted too, half a minute of one processor a row at 32 pixels."""
    draw: bool = False
    """Make none."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A scan with one defect, as the file tells it.

    Parameters
    ----------
    scan : Scan
        With its truth.
    kind : str
        Of the defect; empty for none.
    true : array
        Columns of the axis beside where the file has it, gains of columns (shares), or the hardening.
    """

    scan: ctuq.Scan
    kind: str
    true: NDArray[np.float64]


def subject_of(phantom: str, seed: int, defect: str, size: int, views: int) -> Subject:
    """Parallel rays through a phantom 40 mm wide, 2 % of noise."""
    kind, level = DEFECTS[defect]
    rng = np.random.default_rng(seed)
    grid = ctuq.VolumeGrid((size, size), _WIDTH / size)
    told = ctuq.ParallelBeam(angles=np.linspace(0, np.pi, views), columns=int(1.42 * size) + 2, pixel=grid.voxel)
    image = PHANTOMS[phantom](2 * size, rng)
    beam = with_axis_column(told, axis_column(told) + level) if kind == "axis" else told
    # The noise of a clean scan, whatever the defect.
    clean = simulate(image, beam, grid, RelativeNoise(0.0), rng=rng, attenuation=_ATTENUATION)
    rays = clean.projections.astype(np.float64)
    noise = _NOISE * float(np.abs(rays).mean())
    white, own = rng.standard_normal(rays.shape), np.random.default_rng(1000 + seed)
    true = np.array([level])
    if kind == "gain":
        true = own.standard_normal(told.columns)
        true *= level * noise / np.sqrt(np.mean(true**2))
        rays = rays - true
    elif kind == "hardening":
        rays = rays - level * rays**2
    return Subject(replace(clean, projections=(rays + noise * white).astype(np.float32), geometry=told), kind, true)


def as_it_is(subject: Subject) -> Iterator[Row]:
    """Nothing corrected."""
    for method in CLASSICAL:
        begun = time.process_time()
        error = _error(subject.scan, subject, method)
        yield {"method": f"{method}, as it is", "error": error, "seconds": time.process_time() - begun}


def by_search(subject: Subject) -> Iterator[Row]:
    """With the axis where ctuq's own search finds it, as ``axis_column: search`` has it."""
    begun, start = time.process_time(), axis_column(subject.scan.geometry)
    found = find_axis(subject.scan)
    told: Row = {"axis_off": found.column - start, "told_sd": found.uncertainty, "seconds": time.process_time() - begun}
    for method in CLASSICAL:
        scan = replace(subject.scan, geometry=with_axis_column(subject.scan.geometry, found.column))
        yield {"method": f"{method}, axis_column: search", "error": _error(scan, subject, method)} | told


def by_algotom(subject: Subject, kind: str, python: Path) -> Iterator[Row]:
    """After algotom's correction at its defaults, and at the setting that is best for this very scan, which its truth tells."""
    names, values, seconds = algotom(subject.scan, kind, python)
    tried = np.arange(len(names))
    for method in CLASSICAL:
        errors = np.full(len(names), np.inf)
        for i in tried:
            errors[i] = _error(_corrected(subject.scan, kind, values[i]), subject, method)
        defaults = [] if kind == "hardening" else [(0, "at defaults")]
        for i, how in (*defaults, (int(np.argmin(errors)), "at its best")):
            row: Row = {"method": f"{method}, algotom's {kind} {how}", "error": float(errors[i]), "setting": names[i]}
            row |= {"axis_off": float(values[i]) - axis_column(subject.scan.geometry)} if kind == "axis" else {}
            yield row | {"seconds": seconds / len(names)}
        # Total variation, which is dear, is given the defaults and those that are best by filtered back-projection.
        tried = np.unique([0, *np.argsort(errors)[:_FEW]])


def algotom(scan: ctuq.Scan, kind: str, python: Path) -> tuple[list[str], NDArray[np.float64], float]:
    """Names of settings, what comes of each, and the processor's seconds."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, sino=scan.projections)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        command = [str(python), str(Path(__file__).with_name("algotom_side.py")), kind, str(source), str(target)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = np.load(target)
        return [str(name) for name in found["names"]], found["values"], float(found["seconds"])


def by_network(subject: Subject, blocks: str, name: str) -> Row:
    """By the network with systematic errors, its intervals, and whether they hold the truth."""
    begun, truth, short = time.process_time(), subject.scan.truth, DIPOptions(iterations=_ITERATIONS)
    assert truth is not None
    result = ctuq.reconstruct(subject.scan, size=len(truth), systematics=blocks, threads=1, dip=short)
    assert result.std is not None
    row: Row = {"method": name, "error": 1e3 * rmse(truth, result.mean)}
    row |= {"image_sd": 1e3 * float(np.mean(result.std)), "image_held": result.scores["truth"]["cover_95_object"]}
    if subject.kind in result.systematics:
        row |= _told(subject, result)
    return row | {"seconds": time.process_time() - begun}


def _told(subject: Subject, result: ctuq.Result) -> Row:
    """What is told of the defect; the axis in columns beside where the file has it."""
    found, true = result.systematics[subject.kind], subject.true
    share = 0.01 if found.unit == "%" else 1.0
    values, std = share * np.asarray(found.values, np.float64), share * np.asarray(found.std, np.float64)
    if subject.kind == "axis":
        geometry = result.scan.geometry
        moved = axis_column(geometry) - axis_column(subject.scan.geometry)
        values, std = moved + values / geometry.pixel_at_axis, std / geometry.pixel_at_axis
    if subject.kind == "gain":  # smooth gains are the image's
        basis = rough(len(true)).numpy()
        true = basis @ (basis.T @ true)
    told = {"axis_off": float(values[0])} if subject.kind == "axis" else {}
    told |= {"told_error": float(np.sqrt(np.mean((values - true) ** 2))), "told_sd": float(np.sqrt(np.mean(std**2)))}
    return told | {"told_true": float(np.sqrt(np.mean(true**2))), "held": float(np.mean(np.abs(values - true) <= Z95 * std))}


def _corrected(scan: ctuq.Scan, kind: str, value: NDArray) -> ctuq.Scan:
    if kind == "axis":
        return replace(scan, geometry=with_axis_column(scan.geometry, float(value)))
    return replace(scan, projections=value.astype(np.float32))


def _error(scan: ctuq.Scan, subject: Subject, method: str) -> float:
    """Rms error of the image, in 10^-3/mm."""
    assert subject.scan.truth is not None
    image = ctuq.reconstruct(scan, method, size=subject.scan.truth.shape[0], uncertainty=False, threads=1).mean
    return 1e3 * rmse(subject.scan.truth, image)


def wanted(subject: Subject, options: Options, done: set[str]) -> Iterator[Row]:
    """Rows of a scan that are not there yet."""
    if f"{CLASSICAL[0]}, as it is" not in done:
        yield from as_it_is(subject)
    if subject.kind in ("", "axis") and f"{CLASSICAL[0]}, axis_column: search" not in done:
        yield from by_search(subject)
    for kind in [subject.kind] if subject.kind else ["axis", "gain"] if options.python else []:
        if options.python is not None and f"{CLASSICAL[0]}, algotom's {kind} at its best" not in done:
            yield from by_algotom(subject, kind, options.python)
    for blocks in options.network:
        name = f"dip, {blocks}"
        if name not in done:
            yield by_network(subject, blocks, name)


def main(options: Options) -> None:
    """Make the rows that are missing, scan by scan, and print the table."""
    table = Rows(TABLE)
    scans = [(s, o, d) for s in range(options.seeds) for o in options.objects for d in options.defects]
    for seed, name, defect in [] if options.draw else scans:
        setting: Row = {"size": options.size, "views": options.views, "object": name, "seed": seed, "defect": defect}
        subject = subject_of(name, seed, defect, options.size, options.views)
        for row in wanted(subject, options, {str(row["method"]) for row in table.where(**setting)}):
            table.add([dict.fromkeys(_FIELDS, "") | setting | row])
            print(*setting.values(), row["method"], f"{row['error']:.3g}", flush=True)
    print(table_of(table))


def table_of(table: Rows) -> str:
    """Markdown: the image's rms error by method and defect, means over scans with their standard errors."""
    lines = []
    for size, views in dict.fromkeys((row["size"], row["views"]) for row in table.rows):
        own = table.where(size=size, views=views)
        defects = [d for d in DEFECTS if any(row["defect"] == d for row in own)]
        lines += [f"{size} x {size} pixels, {views} views", "", "| method | " + " | ".join(defects) + " |"]
        lines += ["|" + "---|" * (1 + len(defects))]
        for method in dict.fromkeys(str(row["method"]) for row in own):
            cells = [_cell([float(r["error"]) for r in own if r["method"] == method and r["defect"] == d]) for d in defects]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines += ["", *_intervals(own, defects), ""]
    return "\n".join(lines)


def _intervals(rows: list[Row], defects: list[str]) -> list[str]:
    """Of ctuq's own correction: what is told of the defect, how often it is held, and how much of the object is."""
    lines = ["| defect | true | told off by | its sd | held | object's pixels held |", "|" + "---|" * 6]
    for defect in defects:
        own = [row for row in rows if row["defect"] == defect and row["method"] == f"dip, {BLOCKS}"]
        if own:
            names = ("told_true", "told_error", "told_sd", "held", "image_held")
            lines.append(f"| {defect} | " + " | ".join(_cell([float(r[n]) for r in own if r[n] != ""]) for n in names) + " |")
    return lines


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.3g} ± {error:.2g}"


if __name__ == "__main__":
    main(tyro.cli(Options))
