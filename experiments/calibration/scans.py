"""The scans of the study: shipped ones at several subsets, and simulations with the faults that real scans have."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.tomo.phantoms import ellipses
from ctuq.tomo.simulate import PhotonNoise, phantom_scan, simulate
from experiments import ROOT
from experiments.unseen_views import load

SIZE = 48
_ALL, _MOST_UNSEEN = 120, 60


@dataclass(frozen=True)
class Subject:
    """A scan, the views to reconstruct from, and those that are used for nothing.

    ``true`` says whether the pixels' truth is what the rays show: not where the beam hardens or the axis is off; ``size`` is of
    the image.
    """

    name: str
    scan: ctuq.Scan
    used: NDArray[np.int64]
    true: bool = False
    size: int = SIZE

    @property
    def unseen(self) -> NDArray[np.int64]:
        """Views that were used for nothing, at most 60 of them, spread evenly."""
        rest = np.setdiff1d(np.arange(self.scan.n_angles), self.used)
        return rest if len(rest) <= _MOST_UNSEEN else rest[np.linspace(0, len(rest) - 1, _MOST_UNSEEN).round().astype(int)]


def subjects() -> Iterator[Subject]:
    """All scans, those of the widest interest first."""
    yield from _simulated()
    yield from real()


def real() -> Iterator[Subject]:
    """The shipped ones, at several numbers of views."""
    for name, steps in (("walnut", (4, 8, 2, 15)), ("ta", (8, 16)), ("tb", (12, 24)), ("tooth", (6, 12, 23))):
        scan = ctuq.read(ROOT / "data" / "tooth" / "tooth.h5") if name == "tooth" else load(name)
        for step in steps:
            used = np.arange(0, scan.n_angles, step)
            yield Subject(f"{name}, {len(used)} views", scan, used)
    walnut = load("walnut")
    yield Subject("walnut, 20 views of 120 degrees", walnut, np.arange(0, 40, 2))


def _simulated() -> Iterator[Subject]:
    for seed, (phantom, noise, views) in enumerate(
        (
            ("ellipses", 0.02, 30),
            ("rectangles", 0.10, 30),
            ("ellipses", 0.10, 15),
            ("rectangles", 0.02, 15),
            ("glyph", 0.05, 20),
            ("shepp-logan", 0.02, 30),
            ("ellipses", 0.02, 8),
        )
    ):
        yield Subject(f"{phantom}, {noise:.0%} noise, {views} views", _phantom(phantom, noise, seed), _some(views), true=True)
    for seed, (phantom, arc) in enumerate((("ellipses", 60), ("rectangles", 60), ("rectangles", 90)), 40):
        used = np.arange(0, arc * _ALL // 180, 3)
        yield Subject(f"{phantom}, {len(used)} views of {arc} degrees", _phantom(phantom, 0.02, seed), used, true=True)
    faults: dict[str, Callable[[ctuq.Scan], ctuq.Scan]] = {
        "axis off": _axis_off,
        "drifting tube": partial(_changed, by=_drift),
        "hardening beam": partial(_changed, by=_harden),
        "rings": partial(_changed, by=_rings),
    }
    for seed, (name, fault) in enumerate(faults.items()):
        yield Subject(f"{name}, 30 views", fault(_phantom("ellipses", 0.01, 20 + seed)), _some(30), true=name in ("rings",))
    yield Subject("photons without weights, 24 views", _photons(), np.arange(0, 72, 3), true=True)


def _some(views: int) -> NDArray[np.int64]:
    return np.arange(0, _ALL, _ALL // views)[:views]


def _phantom(name: str, noise: float, seed: int) -> ctuq.Scan:
    return phantom_scan(name, SIZE, np.arange(_ALL) * np.pi / _ALL, noise=noise, seed=seed)


def _axis_off(scan: ctuq.Scan) -> ctuq.Scan:
    """The axis lies half a detector pixel beside where the geometry says."""
    return replace(scan, geometry=replace(scan.geometry, axis_offset=0.5 * scan.geometry.pixel))


def _changed(scan: ctuq.Scan, by: Callable[[NDArray], NDArray]) -> ctuq.Scan:
    return replace(scan, projections=by(scan.projections.astype(np.float64)).astype(np.float32))


def _drift(y: NDArray) -> NDArray:
    """The tube loses 3 % of its intensity, with a wobble of 1 %."""
    t = np.linspace(0, 1, len(y))[:, None]
    return y - np.log(1 - 0.03 * t + 0.01 * np.sin(9 * t))


def _harden(y: NDArray) -> NDArray:
    """Three lines of a spectrum, whose mean attenuation is that of the object, five times as dense."""
    return -np.log(np.mean([np.exp(-5 * factor * y) for factor in (0.6, 0.9, 1.5)], axis=0).clip(1e-9)) / 5


def _rings(y: NDArray) -> NDArray:
    """Each column has a constant error, of 2 % of the mean ray."""
    return y + 0.02 * np.abs(y).mean() * np.random.default_rng(7).standard_normal(y.shape[1])


def _photons() -> ctuq.Scan:
    """A fan beam over a full turn with 2,000 photons a ray; the weights that their counts give are lost."""
    rng = np.random.default_rng(30)
    geometry = ctuq.FanBeam(
        angles=ctuq.radians(np.arange(0, 360, 5.0)), columns=80, pixel=1.6, source_to_axis=150.0, source_to_detector=300.0
    )
    grid = ctuq.VolumeGrid((SIZE, SIZE), 40 / SIZE)
    draw = lambda size: ellipses(size, rng)  # noqa: E731
    scan = simulate(draw, geometry, grid, PhotonNoise(2000), rng=rng, attenuation=0.08)
    return replace(scan, weights=None)
