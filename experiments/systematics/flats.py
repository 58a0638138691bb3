"""Noise from flats: what the learned law of counts makes of image and error bars, and what noise alike in neighbours does.

``python -m experiments.systematics.flats``: ten objects of 32 x 32 pixels, 20 of 60 views, whose densest rays let 2 % through,
in five beams: few quanta and electronic noise; ten times as many; no electronic noise; noise blurred over neighbouring columns
by a scintillator; and flats of which each is a mean of eight frames. Each is weighted by its counts, as without a law, by the
law that its ten flats and ten darks tell, and by the true law; where noise is blurred, also by the true law with rays whitened
in bands, view by view, in the error bars of ``--method tv``, without and with the blur in the ray transform. Image errors are
of the object, scores of the rays of the 40 views that are used for nothing, the same numbers for each choice.
``figures/flats.csv`` has a row for each; run again, it goes on.
"""

import csv
import itertools
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal
from unittest import mock

import numpy as np
import scipy.sparse as sp
import torch
import tyro
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

import ctuq
from ctuq.files.assemble import assemble
from ctuq.files.formats.raw import Raw
from ctuq.files.noise import law_of
from ctuq.linops.sparse import SparseRows
from ctuq.recon.dip import DIPOptions
from ctuq.scores.gaussian import gaussian_scores
from ctuq.tomo.noise_law import NoiseLaw
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.rays.entries import build_matrix
from ctuq.uncertainty.model.gaussian import PixelRays
from ctuq.uncertainty.results.unseen_views import predict_views
from experiments import FIGURES

SIZE, VIEWS, USED, LONGEST, FRAMES, DARK = 32, 60, 3, 4.0, 10, 100.0
OUTPUT = FIGURES / "flats.csv"
GRID = ctuq.VolumeGrid((SIZE, SIZE), 40 / SIZE)
GEOMETRY = ctuq.ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=int(1.45 * SIZE), pixel=GRID.voxel)
OBJECTS = ("ellipses", "rectangles")
Choice = Literal["counts", "law", "true", "band", "band and blur"]
Row = dict[str, float | str]


@dataclass(frozen=True)
class Beam:
    """Counts of the open beam, counts a quantum, electronic noise in counts, blur in columns, frames in a flat."""

    level: float = 1000.0
    gain: float = 2.0
    electronic: float = 15.0
    blur: float = 0.0
    averaged: int = 1

    def frames(self, mean: NDArray, rng: np.random.Generator) -> NDArray[np.float64]:
        """Counts above the dark level. A scintillator's light is blurred after the quanta were stopped in it."""
        counts = self.gain * rng.poisson(np.maximum(mean, 0) / self.gain).astype(float)
        light = gaussian_filter1d(counts, self.blur, axis=-1, mode="nearest") if self.blur else counts
        return light + self.electronic * rng.standard_normal(mean.shape)

    @property
    def kernel(self) -> NDArray[np.float64]:
        """What the blur makes of one column's light."""
        one = np.zeros(41)
        one[20] = 1
        return gaussian_filter1d(one, self.blur) if self.blur else one

    @property
    def law(self) -> NoiseLaw:
        """The law that counts are drawn by; a blur averages quanta."""
        gain = self.gain * float((self.kernel**2).sum())
        frames = (FRAMES * self.averaged, FRAMES, GEOMETRY.columns)
        return NoiseLaw(gain, 0, self.electronic, 0, self.electronic**2 / gain, 0, *frames)


BEAMS = {
    "electronic": Beam(),
    "ten times brighter": Beam(level=10_000),
    "quanta alone": Beam(electronic=0.0),
    "blurred": Beam(electronic=5.0, blur=0.6),
    "averaged flats": Beam(averaged=8),
}


def raw_of(beam: Beam, seed: int) -> tuple[Raw, NDArray[np.float64]]:
    """What a scanner writes, and the object."""
    rng = np.random.default_rng(seed)
    fine = ctuq.VolumeGrid((2 * SIZE, 2 * SIZE), GRID.voxel / 2)
    image = PHANTOMS[OBJECTS[seed % len(OBJECTS)]](2 * SIZE, rng).astype(np.float64)
    p = (build_matrix(fine, GEOMETRY) @ image.ravel().astype(np.float32)).reshape(GEOMETRY.shape).astype(np.float64)
    factor = LONGEST / p.max()
    truth = factor * image.reshape(SIZE, 2, SIZE, 2).mean((1, 3))
    open_beam = beam.level * (1 - 0.3 * np.linspace(-1, 1, GEOMETRY.columns) ** 2)
    counts, level = beam.frames(open_beam * np.exp(-factor * p), rng), np.broadcast_to(open_beam, (FRAMES, GEOMETRY.columns))
    flats = np.mean([beam.frames(level, rng) for _ in range(beam.averaged)], axis=0)
    darks = beam.frames(0 * level, rng)
    fields = {"kind": "parallel", "angles": GEOMETRY.angles, "pixel": GEOMETRY.pixel, "axis_column": (GEOMETRY.columns - 1) / 2}
    raw = Raw("simulation", DARK + counts, "counts", fields, flats=DARK + flats, darks=DARK + darks, stated=True)
    return raw, truth


def whitening(beam: Beam, counts: NDArray) -> sp.csr_array:
    """``L^-1``, view by view, of the noise's correlation ``L L^T``: that of quanta as blurred, none of electronic noise."""
    kernel, columns = beam.kernel, np.arange(counts.shape[1])
    alike = np.correlate(kernel, kernel, "full")[40:] / (kernel**2).sum()
    blurred = np.pad(alike, (0, len(columns)))[np.abs(columns[:, None] - columns)]
    views = []
    for signal in np.maximum(gaussian_filter1d(counts, 2.0, axis=1), 1.0):
        share = 1 / (1 + beam.law.ratio / signal)
        correlation = np.sqrt(share[:, None] * share) * blurred
        np.fill_diagonal(correlation, 1.0)
        views.append(np.linalg.inv(np.linalg.cholesky(correlation)))
    return sp.csr_array(sp.block_diag(views))


def blurring(beam: Beam, views: int) -> sp.csr_array:
    """What the blur makes of line integrals, view by view."""
    columns = np.arange(GEOMETRY.columns)
    steps = columns[:, None] - columns
    return sp.csr_array(sp.block_diag([np.where(np.abs(steps) <= 20, beam.kernel[np.clip(steps + 20, 0, 40)], 0.0)] * views))


def in_bands(white: sp.csr_array, blur: sp.csr_array) -> "mock._patch[object]":
    """A patch by which error bars without a network take rays whitened so; rays of weight 0 leave their rows and columns.

    Their rows of the matrix are blurred before, as light is, to first order in the line integrals.
    """
    plain = PixelRays.of

    def of(A, y, weights, image) -> PixelRays:
        rays = plain(A, y, weights, image)
        kept = rays.rays.numpy()
        mixed = sp.csr_array(white[kept][:, kept])
        rows = sp.csr_array((blur @ A.matrix)[kept])
        matrix = sp.csr_array(rows.multiply(rays.precision.sqrt().numpy()[:, None]))
        whole = SparseRows(sp.csr_array(mixed @ matrix), "cpu", image=tuple(image.shape))
        return replace(rays, matrix=whole, target=torch.from_numpy(mixed @ rays.target.numpy()))

    return mock.patch.object(PixelRays, "of", of)


def measured(name: str, seed: int, choice: Choice, method: Literal["tv", "dip"], iterations: int | None) -> Row:
    """One scan by one choice of weights."""
    beam = BEAMS[name]
    raw, truth = raw_of(beam, seed)
    found = law_of(raw)[0]
    scans = {key: assemble(replace(raw, noise=law), "simulation", "").scan for key, law in _laws(beam, found).items()}
    scan, used = scans[choice], np.arange(0, VIEWS, USED)
    unused = np.setdiff1d(np.arange(VIEWS), used)
    dip = DIPOptions(iterations=iterations)
    blur = blurring(beam if choice == "band and blur" else Beam(), len(used))
    with in_bands(whitening(beam, raw.values[used] - DARK), blur) if choice.startswith("band") else nullcontext():
        result = ctuq.reconstruct(
            scan.select(used), method=method, size=SIZE, field=SIZE * GRID.voxel, systematics="none", dip=dip
        )
    A = ctuq.ray_transform(result.grid, scan.geometry.subset(unused), backend="matrix")
    assert scan.weights is not None and result.std is not None
    mean, variance = predict_views(result, A, np.maximum(scan.weights[unused], 1e-12))
    alike = _alike([other.select(unused) for other in scans.values()])
    scores = gaussian_scores((scan.projections[unused] - mean)[alike], variance[alike])
    inside, off = truth > 0.05 * truth.max(), result.mean - truth
    of_object = gaussian_scores(off[inside], result.std[inside].astype(np.float64) ** 2)
    row: Row = {"beam": name, "seed": seed, "choice": choice, "method": method, "known": int(found is not None)}
    row |= {"rmse": float(np.sqrt(np.mean(off**2))) / truth.max(), "rmse_object": of_object["rmse"] / truth.max()}
    row |= {f"unseen_{k}": scores[k] for k in ("log_likelihood", "rms_z", "cover_68", "cover_95")}
    row |= {f"object_{k}": of_object[k] for k in ("log_likelihood", "rms_z", "cover_95")}
    c = result.calibration
    row |= {"image_scale": c.image_scale if c else np.nan, "noise_scale": c.noise_scale if c else np.nan}
    row |= {"ratio": found.ratio if found else np.nan, "true_ratio": beam.law.ratio}
    return row | {"correlation": found.correlation if found else np.nan}


def _laws(beam: Beam, found: NoiseLaw | None) -> dict[Choice, NoiseLaw | None]:
    return {"counts": None, "law": found, "true": beam.law, "band": beam.law, "band and blur": beam.law}


def _alike(scans: list[ctuq.Scan]) -> NDArray[np.bool_]:
    """Rays that count for every choice, with the same line integral."""
    first = scans[0].projections
    return np.all(
        [np.isclose(s.projections, first) & (np.ones_like(first) if s.weights is None else s.weights > 0) for s in scans], 0
    )


def main(
    beams: tuple[str, ...] = tuple(BEAMS),
    choices: tuple[Choice, ...] = ("counts", "law", "true", "band", "band and blur"),
    methods: tuple[Literal["tv", "dip"], ...] = ("tv", "dip"),
    seeds: int = 10,
    iterations: int | None = 400,
) -> None:
    """Measure what is not yet in the table."""
    done = set()
    if OUTPUT.is_file():
        with OUTPUT.open(newline="") as file:
            done = {(row["method"], row["beam"], int(row["seed"]), row["choice"]) for row in csv.DictReader(file)}
    for method, name, seed, choice in itertools.product(methods, beams, range(seeds), choices):
        blurred = method == "tv" and BEAMS[name].blur > 0
        if (method, name, seed, choice) in done or (choice.startswith("band") and not blurred):
            continue
        row, new = measured(name, seed, choice, method, iterations), not OUTPUT.is_file()
        with OUTPUT.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
