"""Whether error bars should hold a cubic term of beam hardening beside the square one: on rays of beams that harden.

``python -m experiments.systematics.cubic``: eight objects of 20 x 20 pixels, 20 views, in three beams whose attenuations have
a gamma density. The network is fitted to the rays as they are; its error bars then hold no
hardening, its square (what the default is), the square and beside it the cube, and in place of the square the whole curve of
a gamma density whose parabola is the same. A row each in ``figures/systematics_cubic.csv``; run again, it goes on.
"""

import time
from dataclasses import replace

import numpy as np
import torch
import tyro
from torch import Tensor

from ctuq.recon.dip import DIPOptions
from ctuq.systematics.block import Block
from ctuq.systematics.catalogue import KINDS
from experiments import FIGURES
from experiments.engine.rows import Row, Rows
from experiments.systematics import measure
from experiments.systematics.freed import Fitted
from experiments.systematics.objects import UNIFORM, Beam, scanned
from experiments.systematics.scans import Subject

TABLE = FIGURES / "systematics_cubic.csv"
BEAMS = (Beam(views=20), Beam(c=0.06, longest=4.0, views=20), Beam(c=0.18, views=20))
_SIZE, _ITERATIONS = 20, 300
_C = KINDS["hardening"].width
_D = 4 / 3 * _C**2
"""The cube's factor where attenuations of a beam have a gamma density, as large as it is unsure."""
_SCORES = ("log_likelihood", "cover_68", "cover_95", "rms_z", "std")


def ways(p: Tensor) -> dict[str, tuple[Block, ...]]:
    """Hidden errors by line integrals p (m,)."""
    p = p.clamp(min=0)
    square, cube = p.square(), p**3
    curve = p - torch.log1p(2 * _C * p) / (2 * _C)
    # Of the parabola that is closest to it, c is as large.
    curve *= _C * (square @ square) / (curve @ square)
    return {
        "none": (),
        "square": (_block("hardening", -square, _C),),
        "square, cube": (_block("hardening", -square, _C), _block("cube", cube, _D)),
        "curve": (_block("hardening", -curve, 1.0),),
    }


def _block(name: str, column: Tensor, width: float) -> Block:
    return Block(name, column[:, None], width, False, True)


def rows(kind: str, beam: Beam, seed: int) -> list[Row]:
    """Of one scan, a row for each way."""
    begun = time.process_time()
    scan, c = scanned(UNIFORM[kind], beam, _SIZE, seed)
    assert scan.grid is not None and scan.truth is not None
    fitted = Fitted.to(Subject(kind, scan, scan.grid), "none", DIPOptions(iterations=_ITERATIONS))
    model, found = fitted.last.model, []
    for way, hidden in ways(fitted.last.data.A(model.image).double().reshape(-1)).items():
        scores = measure.truth_row(scan.truth, fitted.bars(replace(model, hidden=hidden)))
        found.append({"way": way, "true_c": c, **{name: scores[name] for name in _SCORES}})
    return [{"object": kind, "c": beam.c, "longest": beam.longest} | row | {"seconds": _since(begun)} for row in found]


def _since(begun: float) -> float:
    return time.process_time() - begun


def table_of(table: Rows) -> str:
    """Markdown: means over the objects, with standard errors of the differences to the square."""
    heads = ("η, and the longest p", "held in the bars", "nats a pixel", "over the square", "95 % hold", "rms z")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for c, longest, way in dict.fromkeys((r["c"], r["longest"], r["way"]) for r in table.rows):
        square = {r["object"]: float(r["log_likelihood"]) for r in table.where(c=c, longest=longest, way="square")}
        here = table.where(c=c, longest=longest, way=way)
        gain = np.array([float(r["log_likelihood"]) - square[r["object"]] for r in here])
        nats, held, z = (np.mean([float(r[name]) for r in here]) for name in ("log_likelihood", "cover_95", "rms_z"))
        over = f"{gain.mean():+.3f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.3f}" if way != "square" and len(gain) > 1 else ""
        lines.append(f"| {c}, {longest} | {way} | {nats:.2f} | {over} | {100 * held:.0f} % | {z:.2f} |".replace("-", "−"))
    return "\n".join(lines)


def main() -> None:
    """Make the rows that are missing, and print the table."""
    table = Rows(TABLE)
    for beam in BEAMS:
        for seed, kind in enumerate(UNIFORM):
            if not table.where(object=kind, c=beam.c, longest=beam.longest):
                table.add(rows(kind, beam, seed))
                print(kind, beam.c, [f"{float(r['log_likelihood']):.2f}" for r in table.rows[-4:]], flush=True)
    print(table_of(table))


if __name__ == "__main__":
    tyro.cli(main)
