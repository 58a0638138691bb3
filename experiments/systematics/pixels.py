"""What structure inside of pixels does to angles of single views and to the image's error bars.

``python -m experiments.systematics.pixels`` fits the network to scans of `experiments.systematics.views` whose views have wrong
angles, of 1 and 3 times the noise, and makes error bars at each fit twice: without ``pixels`` and with it.
``figures/systematics_pixels.csv`` has a row for each; run again, it goes on; ``table`` prints what is there.
"""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import tyro
from tyro.conf import Positional

from ctuq.recon.dip import DIPOptions
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.systematics.freed import Fitted
from experiments.systematics.measure import defect_row, truth_row
from experiments.systematics.scans import simulated
from experiments.systematics.views import SIZE

TABLE = FIGURES / "systematics_pixels.csv"
_DIP = DIPOptions(iterations=300)
_TOLD, _IMAGE = ("held", "z", "true_rms", "error_rms", "sd_rms"), ("cover_95", "log_likelihood", "rms_z")
_SHOWN = ("scans", "angles held (%)", "z (rms)", "object's pixels held (%)", "nats a pixel")


@dataclass(frozen=True)
class Options:
    """Of the experiment."""

    what: Positional[Literal["jitter", "table"]] = "jitter"
    seeds: int = 4
    levels: tuple[int, ...] = (1, 3)
    objects: tuple[str, ...] = ("rectangles", "ellipses")


def rows(phantom: str, seed: int, level: int) -> list[Row]:
    """Of one scan and fit, without and with structure inside of pixels in the error bars."""
    subject = simulated(phantom, seed, "jitter", float(level), size=SIZE)
    fitted = Fitted.to(subject, "jitter,pixels", _DIP)
    model, truth = fitted.last.model, subject.scan.truth
    assert truth is not None
    taken = {"jitter": model.taken} if model.taken is not None else None
    made = []
    for name, hidden in (("none", ()), ("pixels", model.hidden)):
        bars = fitted.bars(model.with_errors((*model.blocks, *hidden), taken))
        told, image = defect_row(subject, bars), truth_row(truth, bars)
        made.append({"beside": name} | {n: told[n] for n in _TOLD} | {n: image[n] for n in _IMAGE})
    return made


def main(options: Options) -> None:
    """Make the rows that are missing, and print the table."""
    table = Rows(TABLE)
    every = product(range(options.seeds), options.levels, options.objects) if options.what != "table" else ()
    for seed, level, phantom in every:
        key: Row = {"level": level, "object": phantom, "seed": seed}
        if not table.where(**key):
            table.add([key | row for row in rows(phantom, seed, level)])
            print(*table.rows[-2:], sep="\n", flush=True)
    print(table_of(table))


def table_of(table: Rows) -> str:
    """Markdown: means over the scans of a size and an object."""
    lines = ["| rms over noise | object | beside | " + " | ".join(_SHOWN) + " |", "|" + "---|" * (3 + len(_SHOWN))]
    for level, phantom, beside in sorted({(r["level"], r["object"], r["beside"]) for r in table.rows}):
        found = table.where(level=level, object=phantom, beside=beside)
        mean = {name: float(np.mean([float(r[name]) for r in found])) for name in (*_TOLD, *_IMAGE)}
        z = float(np.sqrt(np.mean([float(r["z"]) ** 2 for r in found])))
        cells = (f"{100 * mean['held']:.1f}", f"{z:.2f}", f"{100 * mean['cover_95']:.1f}", f"{mean['log_likelihood']:.2f}")
        lines.append(f"| {level} | {phantom} | {beside} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Options))
