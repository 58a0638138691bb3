"""Limited arcs: whether the error bars hold the truth where edges lie in directions that no ray saw.

``python -m experiments.limited_angle``: simulated objects seen over arcs of 60 and 90 degrees, and HTC 2022 ta and tb over
60 degrees; ``figures/limited_angle.csv`` has a row for each. A pixel's edge is seen if some view's detector axis lies within 5
degrees of the truth's slope there: only then does a ray run along the edge. "Plain" are the error bars without what
`ctuq.uncertainty.calibration.unseen` adds.
"""

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.simulate import phantom_scan
from experiments import FIGURES, ROOT
from experiments.unseen_views import load

OUTPUT, KEPT = FIGURES / "limited_angle.csv", ROOT / "runs" / "limited_angle"
SIZE = 40
_STEP = 4.0
_NEAR = np.deg2rad(5.0)
_EDGE = 0.2
_TOLD = ("cover_68", "cover_95", "rms_z", "log_likelihood")


def scans(phantoms: Sequence[str], arcs: Sequence[int], seeds: int) -> Iterator[tuple[str, ctuq.Scan]]:
    """Arcs of simulated objects at one view in four degrees, and of the two real discs."""
    for name in phantoms:
        for seed in range(seeds):
            for arc in arcs:
                yield (
                    f"{name} {seed}, {arc} deg",
                    phantom_scan(name, SIZE, np.deg2rad(np.arange(0, arc, _STEP)), noise=0.02, seed=seed),
                )
    for name in ("ta", "tb"):
        scan = load(name)
        degrees = np.rad2deg(scan.geometry.angles)
        start = {"ta": 0.0, "tb": 75.0}[name]
        inside = np.flatnonzero((degrees >= start) & (degrees <= start + 60))
        yield f"{name}, 60 deg", scan.select(inside[::6])


def seen_edges(truth: NDArray, geometry: ctuq.tomo.geometry.Geometry) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pixels (y, x) with an edge that some view looks along, and with one that none does."""
    down, right = np.gradient(truth.astype(np.float64))
    slope = np.hypot(down, right)
    # Rows of an image run against y; an edge's normal and its opposite are one direction.
    normal = np.arctan2(-down, right)
    columns = geometry.vectors()[:, 6:8]
    axes = np.arctan2(columns[:, 1], columns[:, 0])
    apart = np.abs((normal[..., None] - axes + np.pi / 2) % np.pi - np.pi / 2).min(axis=-1)
    edge = slope > _EDGE * slope.max()
    return edge & (apart <= _NEAR), edge & (apart > _NEAR)


def reconstructed(name: str, scan: ctuq.Scan) -> ctuq.Result:
    """The result, kept in ``runs/limited_angle``: delete the folder after a change of what error bars are made from."""
    path = KEPT / f"{name}.h5"
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        ctuq.reconstruct(scan, size=SIZE).save(path)
    return ctuq.Result.load(path)


def measure(name: str, scan: ctuq.Scan) -> dict[str, float | str]:
    """Scores against the truth by kind of pixel."""
    begun = time.process_time()
    result = reconstructed(name, scan)
    assert result.truth is not None and result.std is not None and result.std_raw is not None and result.calibration is not None
    residual, variance = result.truth - result.mean, result.std.astype(np.float64) ** 2
    plain = result.calibration.image_scale * result.std_raw.astype(np.float64) ** 2
    seen, missing = seen_edges(result.truth, scan.geometry)
    row: dict[str, float | str] = {"scan": name, "views": scan.n_angles, "cpu_seconds": time.process_time() - begun}
    for kind, chosen in (("seen", seen), ("missing", missing), ("flat", ~(seen | missing) & (result.truth > 0))):
        if chosen.any():
            scores = gaussian_scores(residual[chosen], variance[chosen])
            row |= {f"{kind}_{key}": scores[key] for key in _TOLD}
            before = gaussian_scores(residual[chosen], plain[chosen])
            row |= {f"{kind}_{key}_plain": before[key] for key in _TOLD}
        row[f"{kind}_pixels"] = int(chosen.sum())
    row |= {"image_scale": result.calibration.image_scale, "held_out_rms_z": result.scores["held_out"]["rms_z"]}
    return row


def main(
    phantoms: tuple[str, ...] = ("ellipses", "rectangles", "glyph", "shepp-logan"),
    arcs: tuple[int, ...] = (60, 90),
    seeds: int = 1,
    output: Path = OUTPUT,
) -> None:
    """Measure, print and record all scans."""
    kinds = ("seen", "missing", "flat")
    names = [f"{k}_{key}{way}" for k in kinds for way in ("", "_plain") for key in _TOLD] + [f"{k}_pixels" for k in kinds]
    with output.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["scan", "views", "cpu_seconds", *names, "image_scale", "held_out_rms_z"])
        writer.writeheader()
        for name, scan in scans(phantoms, arcs, seeds):
            row = measure(name, scan)
            writer.writerow(row)
            file.flush()
            told = ", ".join(
                f"{k} {100 * row[f'{k}_cover_95']:.0f} %, z {row[f'{k}_rms_z']:.2f} "
                f"(plain {100 * row[f'{k}_cover_95_plain']:.0f} %, z {row[f'{k}_rms_z_plain']:.2f})"
                for k in kinds
                if f"{k}_rms_z" in row
            )
            print(f"{name}: {told}; image scale {row['image_scale']:.2f}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
