"""Errors of single views: whether intervals hold the flux, the angle and the shift of each, and what taking them out is worth.

``python -m experiments.systematics.views`` makes 42 simulated scans for each of the three, 20 x 20 pixels, 20 views, 2 % of
noise, in which it changes the rays by 1, 3 and 10 times the noise. The network is fitted to the rays as they are and, where
the error is found, fitted on to rays without it, as ``ctuq reconstruct SCAN --systematics flux`` does, by at most 300
iterations. ``figures/systematics_views.csv`` has a row for each; run again, it goes on; ``table`` prints and draws what is
there. ``held_scaled`` and ``z_scaled`` are of intervals of which the image's scale would multiply all of the variance.
"""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import tyro
from tyro.conf import Positional

from ctuq.recon.dip import DIPOptions
from ctuq.systematics.build import told_in
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.systematics.drawing import draw_views
from experiments.systematics.freed import freed_row
from experiments.systematics.scans import LEVELS, simulated

TABLE = FIGURES / "systematics_views.csv"
SIZE, _ITERATIONS = 20, 300
_TOLD = ("taken_out", "held", "z", "held_scaled", "z_scaled", "true_rms", "error_rms", "sd_rms")
_SHOWN = ("scans", "true", "told off by", "its sd", "z (rms)", "held (%)", "before", "after", "object's pixels held (%)")
_COLUMNS = (*_TOLD, "fit_rmse", "corrected_rmse", "cover_95", "image_scale")


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    what: Positional[Literal["simulated", "table"]] = "simulated"
    seeds: int = 7
    objects: tuple[str, ...] = ("ellipses", "rectangles")
    defects: tuple[str, ...] = ("flux", "jitter", "shift")


def row(phantom: str, seed: int, defect: str, level: int) -> Row:
    """Of one scan: what is told of its defect, and the image before and after."""
    subject = simulated(phantom, seed, defect, float(level), size=SIZE)
    found = freed_row(subject, DIPOptions(iterations=_ITERATIONS))
    # An image that was not fitted again is the same.
    found["taken_out"] = float(found["corrected_rmse"] != found["fit_rmse"])
    return {name: found[name] for name in (*_COLUMNS, "seconds")}


def main(options: Options) -> None:
    """Make the rows that are missing, print the table and draw it."""
    table = Rows(TABLE)
    every = product(range(options.seeds), LEVELS, options.objects, options.defects)
    for seed, level, phantom, defect in every if options.what == "simulated" else ():
        key: Row = {"defect": defect, "level": level, "object": phantom, "seed": seed}
        if not table.where(**key):
            table.add([key | row(phantom, seed, defect, level)])
            print(" ".join(str(value) for value in table.rows[-1].values()), flush=True)
    print(table_of(table))
    draw_views(table.rows).savefig(TABLE.with_suffix(".png"), dpi=120)


def table_of(table: Rows) -> str:
    """Markdown: means over the scans of an error, a size and an object, in %, degrees and mm.

    Images' errors are rms ones, in 10^-3/mm: fitted to the rays as they are, and as they are in the end.
    """
    lines = ["| error of each view | rms over noise | object | " + " | ".join(_SHOWN) + " |", "|" + "---|" * (3 + len(_SHOWN))]
    for defect, level, phantom in sorted({(r["defect"], r["level"], r["object"]) for r in table.rows}):
        rows, unit = table.where(defect=defect, level=level, object=phantom), told_in(str(defect))
        means = {name: float(np.mean([float(r[name]) for r in rows])) for name in _COLUMNS}
        told = [means[name] / unit for name in ("true_rms", "error_rms", "sd_rms")]
        images = [1e3 * means[name] for name in ("fit_rmse", "corrected_rmse")]
        z = float(np.mean([float(r["z"]) ** 2 for r in rows])) ** 0.5
        cells = [f"{value:.3g}" for value in (*told, z, 100 * means["held"], *images, 100 * means["cover_95"])]
        lines.append(f"| {defect} | {level} | {phantom} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
