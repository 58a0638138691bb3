"""An object that is known to be of one material: whether its hardening is found, and what that makes of the image.

``python -m experiments.systematics.material``: objects of 32 to 40 pixels with a beam that hardens, the discs HTC ta and tb,
and scans that strangers may bring; each is reconstructed as it is, with ``--material uniform``, and linearised as the field
does: a polynomial without a constant of what rays read over their lengths in the segmented image, and its inverse.
A row each in ``figures/systematics_material.csv``; run again, it goes on. ``real`` takes ta and tb, ``strangers`` the others,
and ``discs --folder FOLDER`` the 21 of `experiments.htc`, every sixth view of the full turn.
"""

import csv
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tyro.conf import Positional

import ctuq
from ctuq.errors import CtuqError
from ctuq.pipeline import match_detector
from ctuq.pipeline.material import hardened
from ctuq.recon.tv import tv
from ctuq.scores.gaussian import STD_OF_MAD, Z95
from ctuq.systematics.hardened import Hardened
from ctuq.systematics.material import Parts
from ctuq.tomo.field import choose_grid
from ctuq.tomo.resample import resample
from experiments import FIGURES
from experiments.htc import DISCS, seen
from experiments.systematics.objects import OTHERS, UNIFORM, Beam, scanned
from experiments.systematics.scans import real

OUTPUT = FIGURES / "systematics_material.csv"
_WHAT = ("scan", "way", "method", "size", "c", "told", "sd", "z", "held", "flat", "outlying")
_FIELDS = (*_WHAT, "error", "middle", "cover_95", "seconds", "words")
BEAMS = (
    Beam(),
    Beam(c=0.08, curve="parabola"),
    Beam(c=0.0, noise=0.015),
    Beam(c=0.18, noise=0.005),
    Beam(c=0.05, noise=0.02, longest=3.0),
)
_CPU = torch.device("cpu")
Row = dict[str, float | str]


def linearised(scan: ctuq.Scan, grid: ctuq.VolumeGrid, degree: int = 3) -> ctuq.Scan:
    """The field's way: a polynomial without a constant of what rays read over their lengths, and its inverse."""
    A = ctuq.ray_transform(grid, scan.geometry, backend="matrix")
    image = tv(A, torch.tensor(scan.projections))
    mask = (image > 0.5 * Parts.of(image.double().numpy()).level).float()
    length, y = A(mask).double().numpy().ravel(), scan.projections.astype(np.float64).ravel()
    powers = np.arange(1, degree + 1)
    seen = length > 0
    factors = np.linalg.lstsq(length[seen, None] ** powers, y[seen], rcond=None)[0]
    lengths = np.linspace(0, 1.5 * length.max(), 4096)
    read = lengths[:, None] ** powers @ factors
    rising = int(np.argmax(np.diff(read) <= 0)) or len(read)
    found = np.interp(y, read[:rising], factors[0] * lengths[:rising])
    return replace(scan, projections=np.where(y < 0, y, found).reshape(scan.projections.shape).astype(np.float32))


def scored(truth: NDArray, result: ctuq.Result) -> Row:
    """Rms error over the material's attenuation, that of the truth by the rays; what intervals hold; middle over rim."""
    A = ctuq.ray_transform(result.grid, result.scan.geometry, backend="matrix")
    share = truth / truth.max()
    lengths = A(torch.from_numpy(share.astype(np.float32))).double().numpy().ravel()
    rays = result.scan.projections.astype(np.float64).ravel()
    level, kept = 0.0, lengths > 0
    for _ in range(5):
        level = float(lengths[kept] @ rays[kept] / (lengths[kept] @ lengths[kept]))
        off = np.abs(rays - level * lengths)
        kept = (lengths > 0) & (off <= 3 * STD_OF_MAD * np.median(off[lengths > 0]))
    error, inside = level * share - result.mean, share > 0.5
    row: Row = {"error": float(np.sqrt(np.mean(error**2))) / level, "middle": _middle(share, result.mean)}
    return row if result.std is None else row | {"cover_95": float(np.mean((np.abs(error) <= Z95 * result.std)[inside]))}


def _middle(share: NDArray, image: NDArray) -> float:
    """The middle of what a truth holds over its rim."""
    inside = share > 0.98
    y, x = np.nonzero(share > 0.1)
    rows, columns = np.indices(share.shape)
    r = np.hypot(rows - y.mean(), columns - x.mean())
    reach = float(np.percentile(r[inside], 99))
    middle, rim = inside & (r < 0.4 * reach), inside & (r > 0.85 * reach)
    return float(image[middle].mean() / image[rim].mean()) if middle.any() and rim.any() else np.nan


def ways(name: str, scan: ctuq.Scan, method: str, size: int, c: float) -> Iterator[Row]:
    """A row of each way."""
    assert scan.truth is not None and scan.grid is not None
    for way in ("as it is", "uniform", "polynomial"):
        row: Row = {"scan": name, "way": way, "method": method, "size": size, "c": c}
        began = time.process_time()
        used = linearised(scan, scan.grid) if way == "polynomial" else scan
        # What linearised rays may still have of it is known to nobody.
        asked = "axis" if way == "polynomial" and method == "dip" else "default"
        material = "uniform" if way == "uniform" else "any"
        found = hardened(scan, size, _CPU) if way == "uniform" else None
        row["seconds"] = time.process_time() - began
        if method == "tv":  # as `reconstruct` makes it, and the estimate once
            used = used if found is None else found.taken_from(scan)
            result = ctuq.reconstruct(used, method, size=size, uncertainty=False)
        else:
            result = ctuq.reconstruct(used, method, size=size, material=material, systematics=asked)
        yield row | (told(found, c) if found is not None else {}) | scored(scan.truth, result)


def told(found: Hardened, c: float) -> Row:
    """The hardening that is told, beside the true one, where that is known."""
    z = (found.c - c) / found.sd
    row: Row = {"told": found.c, "sd": found.sd, "flat": found.flat, "outlying": found.told.outlying}
    return row | ({"z": z, "held": float(abs(z) <= Z95)} if np.isfinite(c) else {})


def strangers() -> Iterator[tuple[str, ctuq.Scan]]:
    """Scans that the assumption does not fit, or hardly."""
    for name, shape in OTHERS.items():
        yield name, scanned(shape, Beam(), 36, 5)[0]
    disc, holes = UNIFORM["disc"], UNIFORM["holes"]
    beams = {
        "6 views": Beam(views=6),
        "12 views": Beam(views=12),
        "arc of 90 degrees": Beam(arc=90),
        "noise of 5 %": Beam(noise=0.05),
        "monochromatic": Beam(c=0.0),
        "strong hardening": Beam(c=0.3, longest=3.0),
        "line integrals up to 6": Beam(longest=6.0),
        "in a unit of its own": Beam(c=0.1, unit=500.0),
        "air reads 0.05": Beam(offset=0.05),
        "air reads -0.05": Beam(offset=-0.05),
    }
    for name, beam in beams.items():
        yield f"disc, {name}", scanned(disc, beam, 36, 6)[0]
    holed, _ = scanned(holes, Beam(), 36, 7)
    yield "holes, 60 views as one of 3", holed.select(np.arange(0, holed.n_angles, 3))
    upright = replace(holed, grid=ctuq.VolumeGrid((36, 48), holed.grid.voxel), truth=None)  # pyright: ignore
    yield "holes, 48 x 36 pixels", upright
    weights = np.ones_like(holed.projections)
    weights[:, ::7] = 0
    yield "holes, dead columns", replace(holed, weights=weights)
    yield "nothing but air", replace(holed, projections=0.01 * np.ones_like(holed.projections), truth=None)


def words_of(name: str, scan: ctuq.Scan) -> Row:
    """What is said of a stranger's scan."""
    row: Row = {"scan": name, "way": "uniform", "method": "tv", "size": 36}
    began = time.process_time()
    try:
        found = hardened(scan, 36, _CPU)
        ctuq.reconstruct(found.taken_from(scan), "tv", size=36, uncertainty=False)
    except CtuqError as error:
        return row | {"words": str(error), "seconds": time.process_time() - began}
    row |= {"words": " ".join(found.sentences()), "seconds": time.process_time() - began}
    return row | told(found, np.nan)


def discs(folder: Path, size: int) -> Iterator[tuple[str, ctuq.Scan]]:
    """Real discs with known holes, on the image's grid."""
    for disc in DISCS:
        scan = seen(folder, disc, "many")
        assert scan.truth is not None and scan.grid is not None
        grid = choose_grid(scan, size)
        on_grid = replace(scan, truth=resample(scan.truth, scan.grid, grid), grid=grid)
        yield f"HTC 2022 {disc}", match_detector(on_grid, grid)


def jobs(what: str, folder: Path) -> Iterator[tuple[str, str, Iterator[Row]]]:
    """Name, method and rows of each scan."""
    if what in ("simulated", "all"):
        for i, beam in enumerate(BEAMS):
            for j, (kind, shape) in enumerate(UNIFORM.items()):
                size = (32, 36, 40)[(i + j) % 3]
                scan, c = scanned(shape, beam, size, 100 * i + j)
                name = f"{kind}, {beam.curve} {beam.c:g}, noise {beam.noise:g}"
                yield name, "tv", ways(name, scan, "tv", size, c)
    if what in ("strangers", "all"):
        for name, scan in strangers():
            yield name, "tv", iter([words_of(name, scan)])
    if what in ("real", "all"):
        for method, name, size in (("tv", "ta", 128), ("tv", "tb", 128), ("dip", "ta", 48), ("dip", "tb", 48)):
            subject = real(name, size)
            scan = match_detector(subject.scan, subject.grid)
            yield name, method, ways(name, scan, method, size, np.nan)
    if what == "discs":
        for name, scan in discs(folder, 64):
            yield name, "tv", ways(name, scan, "tv", 64, np.nan)


def main(
    what: Positional[Literal["all", "simulated", "strangers", "real", "discs"]] = "all",
    folder: Path = Path(),
    output: Path = OUTPUT,
) -> None:
    """Measure what is not yet in the table."""
    done = set()
    if output.is_file():
        with output.open(newline="") as file:
            done = {(row["scan"], row["method"]) for row in csv.DictReader(file)}
    for name, method, rows in jobs(what, folder):
        if (name, method) in done:
            continue
        found = list(rows)
        new = not output.is_file()
        with output.open("a", newline="") as file:
            writer = csv.DictWriter(file, _FIELDS)
            if new:
                writer.writeheader()
            writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in found)
        for row in found:
            print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
