"""Noisy scans: what a second fit of the network gains, whose total variation weighs by all the noise.

``python -m experiments.two_fits`` goes on where it stopped, writes ``figures/two_fits.csv`` and prints the table of
``docs/how_it_works.md``; ``--no-run`` prints it from the file.
"""

import math
from dataclasses import replace

import numpy as np
import torch
import tyro

import ctuq
from ctuq.pipeline import match_detector
from ctuq.recon.start import DIPOptions
from ctuq.tomo.simulate import phantom_scan
from experiments import FIGURES
from experiments.engine.rows import Rows
from experiments.peers.problems import Problem
from experiments.unseen_views import load

OUTPUT = FIGURES / "two_fits.csv"
# Phantom or shipped scan, seed, noise over the mean projection, views or every so many, pixels.
SCANS = [
    ("glyph", 0, 0.05, 20, 40),
    ("glyph", 2, 0.1, 20, 40),
    ("glyph", 3, 0.1, 20, 40),
    ("rectangles", 0, 0.05, 20, 40),
    ("rectangles", 6, 0.05, 30, 64),
    ("rectangles", 1, 0.1, 30, 96),
    ("ellipses", 0, 0.05, 20, 40),
    ("ellipses", 1, 0.1, 20, 40),
    ("ellipses", 5, 0.1, 60, 64),
    ("ellipses", 4, 0.05, 15, 128),
    ("shepp-logan", 0, 0.05, 20, 40),
    ("shepp-logan", 0, 0.1, 20, 64),
    ("walnut", 0, 0.05, 4, 64),
    ("walnut", 0, 0.1, 4, 64),
    ("walnut", 0, 0.05, 4, 128),
    ("tb", 0, 0.1, 12, 96),
]
FITS = {"weak": DIPOptions(by_noise=False), "by all the noise": DIPOptions(by_noise=True), "both": DIPOptions()}


def problem(name: str, seed: int, noise: float, views: int, size: int) -> Problem:
    """A scan with noise, and the views of the object that it does not have: of a real scan those as they were measured."""
    if name not in ("walnut", "tb"):
        full = phantom_scan(name, size, np.arange(3 * views) * np.pi / (3 * views), noise=noise, seed=seed)
        return Problem.of(name, size, full, np.arange(0, 3 * views, 3))
    full = load(name)
    clean = Problem.of(name, size, full, np.arange(0, full.n_angles, views))
    y = clean.scan.projections
    added = np.random.default_rng(seed).normal(0, noise * full.projections.mean(), y.shape)
    return replace(clean, scan=replace(clean.scan, projections=y + added.astype(y.dtype)))


def measure(given: Problem, fit: str) -> dict[str, float]:
    """The image's rms error on unseen rays, and its PSNR where the object is known."""
    method = {"method": "tv"} if fit == "total variation" else {"dip": FITS[fit]}
    result = ctuq.reconstruct(given.scan, size=given.size, uncertainty="constant", **method)
    others = match_detector(given.unseen, result.grid)
    A = ctuq.ray_transform(result.grid, others.geometry, backend="matrix")
    unseen = others.projections - A(torch.as_tensor(result.mean, dtype=torch.float32)).numpy()
    psnr = result.scores["truth"]["psnr"] if "truth" in result.scores else float("nan")
    return {"unseen_rmse": float(np.sqrt((unseen**2).mean())), "psnr": psnr}


def main(run: bool = True) -> None:
    """Measure what is not there yet, and print the table."""
    kept = Rows(OUTPUT)
    for scan in SCANS if run else ():
        name = "{0} {1}, {2:.0%}, {4}²".format(*scan)
        for fit in (*FITS, "total variation"):
            if not kept.where(scan=name, fit=fit):
                kept.add([{"scan": name, "fit": fit} | measure(problem(*scan), fit)])
                print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """PSNR against the truth, and the error on unseen rays over that of the first fit."""
    lines = [
        "| scan | first fit: dB | by all the noise | kept | total variation | unseen error over the first's |",
        "|---|" + 5 * "---|",
    ]
    for name in dict.fromkeys(row["scan"] for row in kept.rows):
        of = {row["fit"]: row for row in kept.where(scan=name)}
        if len(of) < len(FITS) + 1:
            continue
        psnr, unseen = ([float(of[fit][key]) for fit in (*FITS, "total variation")] for key in ("psnr", "unseen_rmse"))
        decibels = ["" if math.isnan(each) else f"{each:.1f}" for each in psnr]
        lines.append(f"| {name} | {' | '.join(decibels)} | {', '.join(f'{each / unseen[0]:.3f}' for each in unseen[1:])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
