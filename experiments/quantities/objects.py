"""The objects that are measured: simulated ones whose edges are known far below a pixel, and two real discs."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.tomo.phantoms import PHANTOMS
from ctuq.tomo.simulate import RelativeNoise, simulate
from experiments.unseen_views import HERE, load

KEPT = HERE / "runs" / "quantities"
FINER = 4
"""The projected object's pixels along one of the image's."""
FIELD, ATTENUATION = 40.0, 0.05
HALVES = ("chosen", "tested")
_NOISES, _SIZES = (0.01, 0.03, 0.08), ((32, 32, 32, 32), (40, 32, 48, 32), (32, 64, 32, 48), (40, 32, 32, 40))
_VIEWS = {
    "20 views": np.arange(20) * 9.0,
    "12 views": np.arange(12) * 15.0,
    "90 degrees": np.arange(0, 90, 4.0),
}


@dataclass(frozen=True)
class Subject:
    """A simulated scan. Half "chosen" sizes what is learned, half "tested" says whether it holds."""

    phantom: str
    size: int
    noise: float
    views: str
    seed: int
    half: str

    @property
    def name(self) -> str:
        """Of its file and row."""
        return f"{self.phantom} {self.seed}, {self.size}, {self.noise:.0%}, {self.views}"

    def fine(self) -> NDArray[np.float64]:
        """The object in 1/mm, `FINER` times finer than its image."""
        return ATTENUATION * PHANTOMS[self.phantom](self.size * FINER, np.random.default_rng(self.seed)).astype(np.float64)

    def scan(self) -> ctuq.Scan:
        """Noise of its own beside an object of the same seed."""
        voxel = FIELD / self.size
        columns = int(np.ceil(np.sqrt(2) * self.size)) + 2
        beam = ctuq.ParallelBeam(angles=ctuq.radians(_VIEWS[self.views]), columns=columns, pixel=voxel)
        grid = ctuq.VolumeGrid((self.size, self.size), voxel)
        rng = np.random.default_rng([self.seed, round(1000 * self.noise), len(self.views)])
        return simulate(self.fine(), beam, grid, RelativeNoise(self.noise), rng=rng, finer=FINER)


def subjects() -> Iterator[Subject]:
    """48 scans of 40 objects in blocks of twelve, each block of all phantoms and noises."""
    kinds = tuple(_VIEWS)
    for block, (n, noise), (p, phantom) in product(range(len(_SIZES)), enumerate(_NOISES), enumerate(PHANTOMS)):
        turn = block + n + p
        yield Subject(
            phantom,
            _SIZES[block][(p + n) % 4],
            noise,
            kinds[turn % 3],
            100 * block + 10 * n + p,
            HALVES[turn % 2],
        )


def fitted(subject: Subject) -> ctuq.Result:
    """The result, kept in ``runs/quantities``: delete the folder after a change of what error bars are made from."""
    return _kept(subject.name, lambda: (subject.scan(), subject.size))


def discs(size: int = 64) -> Iterator[tuple[str, ctuq.Result, NDArray[np.float64], ctuq.VolumeGrid]]:
    """HTC 2022 ta and tb: name, result, and the segmentation times its attenuation on its own grid."""
    for name in ("ta", "tb"):
        scan = load(name)
        assert scan.truth is not None and scan.grid is not None
        yield name, _kept(f"{name}, {size}", lambda s=scan: (s.every(6), size)), scan.truth.astype(np.float64), scan.grid


def _kept(name: str, make) -> ctuq.Result:
    path: Path = KEPT / f"{name}.h5"
    if not path.is_file():
        KEPT.mkdir(parents=True, exist_ok=True)
        scan, size = make()
        ctuq.reconstruct(scan, size=size).save(path)
    return ctuq.Result.load(path)
