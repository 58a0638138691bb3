"""``python -m experiments.systematics``: one defect at a time, no defect, and real scans; run again, it goes on.

Fits are kept in ``runs/systematics``; a row of ``figures/systematics.csv`` is a scan with a choice of blocks.
``python -m experiments.systematics freed`` takes the defects out and fits again, ``real`` takes walnut, ta and tb, ``figure``
draws the table.
"""

import csv
import itertools
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from tyro.conf import Positional

from experiments import FIGURES
from experiments.systematics import measure
from experiments.systematics.drawing import draw
from experiments.systematics.fits import KEPT, fitted
from experiments.systematics.freed import freed_row
from experiments.systematics.scans import DEFECTS, LEVELS, real, simulated

FREED, ORDER = ("axis", "flux", "jitter"), (3, 10, 1)
OUTPUT = FIGURES / "systematics.csv"
_HELD = ("values", "held", "z", "true_rms", "error_rms", "sd_rms")
_TRUTH = ("cover_68", "cover_95", "rms_z", "log_likelihood", "std", "rmse")
_FIELDS = (
    *("scan", "blocks", "defect", "level", "seconds"),
    *(_HELD + _TRUTH),
    *(f"plain_{name}" for name in _TRUTH),
    *("fit_rmse", "corrected_rmse", "image_scale", "noise_scale", "log_evidence"),
    *(f"unseen_{name}" for name in ("log_likelihood", "rms_z", "cover_95")),
    *("middle", "middle_std", "middle_cover", "truth_scaled_cover_95"),
)


def rows_of(output: Path) -> list[dict[str, str]]:
    """What was measured before."""
    if not output.is_file():
        return []
    with output.open(newline="") as file:
        return list(csv.DictReader(file))


def kept(output: Path, row: measure.Row) -> None:
    """Add a row, and print it."""
    new = not output.is_file()
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, _FIELDS, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


def of_simulated(phantom: str, seed: int, defect: str, level: float, folder: Path) -> measure.Row:
    """A scan with a defect and the block of it; without one, all blocks that are learned."""
    begun, subject = time.process_time(), simulated(phantom, seed, defect, level)
    text = defect or "axis,flux,gain"
    fit, truth = fitted(subject, folder), subject.scan.truth
    assert truth is not None
    plain, bars = (measure.Bars.of(subject, fit, choice) for choice in ("none", text))
    row: measure.Row = {"scan": subject.name, "blocks": text, "defect": defect, "level": level}
    row |= measure.truth_row(truth, bars) | measure.truth_row(truth, plain, "plain_")
    row |= {"fit_rmse": measure.rmse(truth, fit.image.numpy()), "image_scale": bars.found.scales.image}
    row |= {"noise_scale": bars.found.scales.noise, "log_evidence": bars.found.evidence.value}
    if defect:
        row |= measure.defect_row(subject, bars)
    if defect and bars.model.blocks:
        factors = torch.from_numpy(bars.errors(defect)[2])
        less = (bars.model.blocks[0].columns @ factors).reshape(fit.y.shape)
        again = fitted(subject, folder, less=less, mark=" corrected", bars=False)
        row["corrected_rmse"] = measure.rmse(truth, again.image.numpy())
    return row | {"seconds": time.process_time() - begun}


def of_real(name: str, size: int, text: str, folder: Path) -> measure.Row:
    """A real scan with a choice of blocks; without a truth the last columns stay empty."""
    begun, subject = time.process_time(), real(name, size)
    bars = measure.Bars.of(subject, fitted(subject, folder), text)
    row: measure.Row = {"scan": subject.name, "blocks": text, "image_scale": bars.found.scales.image}
    row |= {"noise_scale": bars.found.scales.noise, "log_evidence": bars.found.evidence.value}
    row |= measure.unseen_row(subject, bars, text)
    truth = subject.scan.truth
    if truth is None:
        inside = bars.mean > 0.5 * np.percentile(bars.mean, 99)
        return row | {"std": float(np.median(bars.std[inside])), "seconds": time.process_time() - begun}
    row |= measure.truth_row(truth, bars) | measure.middle_row(truth, bars, subject.grid.voxel)
    return row | {"seconds": time.process_time() - begun}


def main(
    what: Positional[Literal["simulated", "freed", "real", "figure"]] = "simulated",
    phantoms: tuple[str, ...] = ("ellipses",),
    seeds: int = 3,
    size: int = 64,
    scans: tuple[str, ...] = ("ta", "tb", "walnut"),
    blocks: tuple[str, ...] = ("none", "hardening", "axis,flux,gain", "default", "default,scatter,scale"),
    output: Path = OUTPUT,
    folder: Path = KEPT,
) -> None:
    """Measure what is not yet in the table, or draw it."""
    if what == "figure":
        draw(rows_of(output)).savefig(output.with_suffix(".png"), dpi=120)
        return
    done = {(row["scan"], row["blocks"]) for row in rows_of(output)}
    if what == "real":
        for name in scans:
            for text in blocks:
                if (f"{name} {size}", text) not in done:
                    kept(output, of_real(name, size, text, folder))
        return
    if what == "freed":
        every = itertools.product(range(seeds), phantoms, ORDER, FREED)
        for seed, phantom, level, defect in every:
            if (f"{phantom} {seed} {defect} {level}", f"{defect} taken out") not in done:
                kept(output, freed_row(simulated(phantom, seed, defect, float(level))))
        return
    for seed in range(seeds):
        for phantom in phantoms:
            for defect, level in (("", 0.0), *((d, float(n)) for d in DEFECTS for n in LEVELS)):
                name = f"{phantom} {seed}" + (f" {defect} {level:g}" if defect else "")
                if (name, defect or "axis,flux,gain") not in done:
                    kept(output, of_simulated(phantom, seed, defect, level, folder))


if __name__ == "__main__":
    tyro.cli(main)
