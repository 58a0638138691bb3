"""The objects that are measured: simulated ones whose edges are known far below a pixel, and two real discs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.quantities import Circle
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments import ROOT
from experiments.unseen_views import load

KEPT = ROOT / "runs" / "quantities"
FINER = 4
"""The projected object's pixels along one of the image's."""
FIELD, ATTENUATION = 40.0, 0.05
CHANGE = Circle(4.0, 2.0, 3.0)
"""A disc that attenuates a fifth of the object's largest value more, in second scans."""
HALVES = ("chosen", "tested")
"""The first two blocks of objects, and the last two, which nobody looked at before the sizes were settled."""
_NOISES, _SIZES = (0.01, 0.03, 0.08), ((32, 32, 32, 32), (40, 32, 48, 32), (32, 64, 32, 48), (40, 32, 32, 40))
_VIEWS = {
    "20 views": np.arange(20) * 9.0,
    "12 views": np.arange(12) * 15.0,
    "90 degrees": np.arange(0, 90, 4.0),
}


@dataclass(frozen=True)
class Subject:
    """A simulated scan. Half "chosen" sized what `ctuq.quantities.discrepancy` holds, half "tested" says whether it holds."""

    phantom: str
    size: int
    noise: float
    views: str
    seed: int
    half: str
    changed: bool = False

    @property
    def name(self) -> str:
        """Of its file and row."""
        return f"{self.phantom} {self.seed}, {self.size}, {self.noise:.0%}, {self.views}" + ", changed" * self.changed

    def fine(self) -> NDArray[np.float64]:
        """The object in 1/mm, `FINER` times finer than its image."""
        image = ATTENUATION * PHANTOMS[self.phantom](self.size * FINER, np.random.default_rng(self.seed)).astype(np.float64)
        if self.changed:
            line = (np.arange(len(image)) + 0.5) * FIELD / len(image) - FIELD / 2
            disc = np.hypot(line[None] - CHANGE.x, -line[:, None] - CHANGE.y) <= CHANGE.radius
            image += 0.2 * ATTENUATION * disc
        return image

    def scan(self) -> ctuq.Scan:
        """Noise of its own, of a changed object too."""
        voxel = FIELD / self.size
        columns = int(np.ceil(np.sqrt(2) * self.size)) + 2
        beam = ctuq.ParallelBeam(angles=ctuq.radians(_VIEWS[self.views]), columns=columns, pixel=voxel)
        grid = ctuq.VolumeGrid((self.size, self.size), voxel)
        rng = np.random.default_rng([self.seed, round(1000 * self.noise), len(self.views), *([1] * self.changed)])
        return simulate(self.fine(), beam, grid, RelativeNoise(self.noise), rng=rng, finer=FINER)


def subjects() -> Iterator[Subject]:
    """48 scans in blocks of twelve, each of all phantoms and noises, then four of 96 pixels; the head is always the same."""
    kinds = tuple(_VIEWS)
    for block, (n, noise), (p, phantom) in product(range(len(_SIZES)), enumerate(_NOISES), enumerate(PHANTOMS)):
        turn = block + n + p
        yield Subject(
            phantom,
            _SIZES[block][(p + n) % 4],
            noise,
            kinds[turn % 3],
            100 * block + 10 * n + p,
            HALVES[block > 1],
        )
    for p, phantom in enumerate(PHANTOMS):
        yield Subject(phantom, 96, _NOISES[p % 3], kinds[p % 3], 400 + p, HALVES[1])


def again() -> Iterator[tuple[Subject, Subject]]:
    """Pairs of scans of one object, the second with a change."""
    for subject in subjects():
        if subject.seed in (10, 11, 12, 13):
            yield subject, replace(subject, changed=True)


def fitted(subject: Subject, method: str = "dip") -> ctuq.Result:
    """The result, kept in ``runs/quantities``: delete the folder after a change of what error bars are made from."""
    name = subject.name + f", {method}" * (method != "dip")
    return _kept(name, lambda: (subject.scan(), subject.size), method)


def discs(name: str, size: int = 64) -> tuple[ctuq.Result, NDArray[np.float64], ctuq.VolumeGrid]:
    """HTC 2022 ta or tb, every sixth view: result, and the segmentation times its attenuation on its own grid."""
    scan = load(name)
    assert scan.truth is not None and scan.grid is not None
    result = _kept(f"{name}, {size}", lambda: (scan.every(6), size))
    return result, scan.truth.astype(np.float64), scan.grid


def is_kept(name: str) -> bool:
    """Whether a scan has been fitted."""
    return (KEPT / f"{name}.h5").is_file()


def _kept(name: str, make: Callable[[], tuple[ctuq.Scan, int]], method: str = "dip") -> ctuq.Result:
    path: Path = KEPT / f"{name}.h5"
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        scan, size = make()
        ctuq.reconstruct(scan, size=size, method=method).save(path)
    return ctuq.Result.load(path)
