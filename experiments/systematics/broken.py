"""Rays that no object makes: what they do to an image, and what is left of that where scans are checked.

``python -m experiments.systematics.broken`` simulates scans of 48 x 48 pixels, 45 views and 2 % noise, breaks each in one way,
and reconstructs it by total variation: sound, broken, and broken with the checks that scans from memory and from files pass.
Rows go to ``figures/broken.csv``.
"""

import csv
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import tyro
from numpy.typing import NDArray

import ctuq
from ctuq.scores.gaussian import image_scores, truth_scores
from ctuq.tomo.scan import Scan
from ctuq.tomo.simulate import phantom_scan
from experiments import FIGURES

OUTPUT = FIGURES / "broken.csv"
_SIZE = 48
Break = Callable[[NDArray[np.float32]], None]


def _dead(y: NDArray) -> None:
    y[:, 30] = 0


def _dead_block(y: NDArray) -> None:
    y[:, 40:44] = 0


def _hot(y: NDArray) -> None:
    y[:, 50] += 0.3 * y.max()


def _blank(y: NDArray) -> None:
    y[11] = 0


def _threefold(y: NDArray) -> None:
    y[30] *= 3


def _bright(y: NDArray) -> None:
    y[10, 20] = -3 * y.max()


def _dark(y: NDArray) -> None:
    y[20, 40] = 4 * y.max()


FAULTS: dict[str, Break] = {
    "a dead column": _dead,
    "four dead columns": _dead_block,
    "a hot column": _hot,
    "a view of zeros": _blank,
    "a view three times too dark": _threefold,
    "a ray far too bright": _bright,
    "a ray far too dark": _dark,
}


def broken(scan: Scan, fault: Break) -> Scan:
    """The scan with one fault."""
    rays = scan.projections.copy()
    fault(rays)
    return replace(scan, projections=rays)


def main(seeds: int = 3) -> None:
    """Print and write a line for each fault: medians over the seeds."""
    rows = []
    for name, fault in FAULTS.items():
        found = [_row(fault, seed) for seed in range(seeds)]
        row: dict[str, float | str] = {"fault": name, "seeds": seeds}
        row |= {key: float(np.median([one[key] for one in found])) for key in found[0]}
        rows.append({k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()})
        print(", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    with OUTPUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _row(fault: Break, seed: int) -> dict[str, float]:
    scan = phantom_scan("ellipses", _SIZE, ctuq.radians(np.arange(0, 180, 4.0)), noise=0.02, seed=seed)
    hurt = broken(scan, fault)
    # What has a file's hash has been looked at by a reader, and is not checked again.
    unchecked = replace(hurt, provenance=replace(hurt.provenance, sha256="0" * 64))
    row = {}
    for kind, given in (("sound", scan), ("unchecked", unchecked), ("checked", hurt)):
        result = ctuq.reconstruct(given, size=_SIZE, method="tv")
        assert result.truth is not None and result.std is not None
        row[f"psnr_{kind}"] = image_scores(result.mean, result.truth)["psnr"]
        row[f"cover_95_object_{kind}"] = truth_scores(result.mean, result.std, result.truth)["cover_95_object"]
    return row


if __name__ == "__main__":
    tyro.cli(main)
