"""Objects that reach beyond the detector: what their error bars hold, with what lies outside unsure and without.

``python -m experiments.systematics.truncation`` goes on where it stopped, writes ``figures/systematics_truncation.csv`` and
prints the table of ``docs/systematics.md``; ``--no-run`` prints it from the file.
"""

import time
from dataclasses import replace

import numpy as np
import tyro

import ctuq
from ctuq.tomo.geometry import FanBeam
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.resample import resample
from ctuq.tomo.simulate import RelativeNoise, phantom_scan, simulate
from experiments import FIGURES
from experiments.engine.rows import Rows, changes

OUTPUT = FIGURES / "systematics_truncation.csv"
# Phantom, seed, beam, and the share of the detector that is left.
SCANS = [
    ("shepp-logan", 0, "parallel", 0.5),
    ("ellipses", 1, "parallel", 0.5),
    ("ellipses", 2, "parallel", 0.5),
    ("rectangles", 3, "parallel", 0.5),
    ("shepp-logan", 0, "fan", 0.6),
    ("ellipses", 3, "fan", 0.6),
    ("ellipses", 4, "parallel", 0.7),
    ("rectangles", 5, "fan", 0.5),
    ("glyph", 1, "parallel", 0.6),
]
_SIZE, _VIEWS, _NOISE, _RIM = 64, 24, 0.01, 0.92
_WITH = {"no": "hardening,axis,gain", "yes": "default"}


def cut_scan(phantom: str, seed: int, beam: str, share: float) -> tuple[ctuq.Scan, ctuq.Scan]:
    """A scan of the whole object, with its truth, and its middle columns alone."""
    angles = np.arange(_VIEWS) * np.pi / _VIEWS + 0.007
    whole = phantom_scan(phantom, _SIZE, angles, noise=_NOISE, seed=seed)
    assert whole.grid is not None and whole.truth is not None
    if beam == "fan":
        pixel, far = 2 * whole.grid.voxel, 4 * _SIZE * whole.grid.voxel
        fan = FanBeam(angles=2 * angles, columns=100, pixel=pixel, source_to_axis=far, source_to_detector=2 * far)
        rng = np.random.default_rng(seed)
        whole = simulate(lambda n: PHANTOMS[phantom](n, rng), fan, whole.grid, RelativeNoise(_NOISE), rng=rng, attenuation=0.05)
    kept = 2 * round(share * _SIZE / 2)
    first = (whole.geometry.columns - kept) // 2
    geometry, inside = replace(whole.geometry, columns=kept), slice(first, first + kept)
    weights = None if whole.weights is None else whole.weights[:, inside]
    part = whole.projections[:, inside].copy()
    return whole, replace(whole, projections=part, weights=weights, geometry=geometry, truth=None, grid=None)


def measure(phantom: str, seed: int, beam: str, share: float, systematics: str) -> dict[str, float]:
    """Of pixels that every view sees."""
    whole, scan = cut_scan(phantom, seed, beam, share)
    begun = time.process_time()
    result = ctuq.reconstruct(scan, size=32, field="common", systematics=systematics, samples=64)
    seconds = time.process_time() - begun
    assert whole.truth is not None and whole.grid is not None and result.std is not None
    truth = resample(whole.truth, whole.grid, result.grid)
    n, voxel = result.mean.shape[0], result.grid.voxel
    y, x = (np.mgrid[:n, :n] - (n - 1) / 2) * voxel
    seen = np.hypot(x, y) < _RIM * scan.geometry.field_of_view / 2
    error, std, top = (result.mean - truth)[seen], result.std[seen], float(whole.truth.max())
    z = error / std
    row = {"bias": error.mean() / top, "rms": np.sqrt((error**2).mean()) / top, "std": np.sqrt((std**2).mean()) / top}
    row |= {"cover_68": (np.abs(z) < 0.9945).mean(), "cover_95": (np.abs(z) < 1.96).mean(), "rms_z": np.sqrt((z**2).mean())}
    nats = -0.5 * (z**2 + np.log(2 * np.pi * std**2))
    return {name: float(value) for name, value in row.items()} | {"nats": float(nats.mean()), "seconds": seconds}


def main(run: bool = True) -> None:
    """Measure what is not there yet, and print the table."""
    kept = Rows(OUTPUT)
    for scan in SCANS if run else ():
        name = "{} {}, {}, {:.0%}".format(*scan)
        for block, systematics in _WITH.items():
            if not kept.where(scan=name, block=block):
                kept.add([{"scan": name, "block": block} | measure(*scan, systematics)])
                print(kept.rows[-1], flush=True)
    print(table(kept))


def table(kept: Rows) -> str:
    """Without and with what lies outside unsure."""
    lines = [
        "| scan, share of the object's width | rms error | 95 % hold | 68 % hold | rms z | nats a pixel |",
        "|---|" + 5 * "---|",
    ]
    forms = ("rms .3f", "cover_95 .0%", "cover_68 .0%", "rms_z .2f", "nats .2f")
    for row in kept.where(block="no"):
        for after in kept.where(block="yes", scan=row["scan"]):
            lines.append(" | ".join((f"| {row['scan']}", *changes(row, after, forms))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(main)
