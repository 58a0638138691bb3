"""A scan: projections, their geometry, what each ray is worth, and where it came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import InputError
from ctuq.pictures import as_html, in_words
from ctuq.tomo.arrays import as_numbers
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.shadow import Shadow, shadow_of
from ctuq.tomo.shown import plot_scan, rows_of
from ctuq.tomo.space import VolumeGeometry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE_GROWTH = "noise growth"
"""The fact under which a scan keeps by what growth of its noise it was weighed (`ctuq.tomo.count_noise`)."""
AXIS_MOVE = "axis moved, mm"
"""The fact under which the scan of a result keeps how far a fit moved its rotation axis."""
SLICES = "slices"
"""The fact under which a scan of some slices keeps their numbers among all rows of its file, counted from the lowest."""
SIMULATION = "simulation"
"""Source of a scan that was simulated."""
BEAMS = MONOCHROMATIC, _ = "monochromatic", "polychromatic"
_Taken = TypeVar("_Taken", bound=Geometry | VolumeGeometry)


@dataclass(frozen=True)
class Provenance:
    """Where a scan came from and what was done to it.

    Parameters
    ----------
    source : str
        File name or description.
    sha256 : str
        Hash of the file's bytes, empty for data made in memory.
    steps : tuple of str
        One sentence for each step of preprocessing or selection, in order.
    facts : mapping of str to str
        What the file says beside the data: sample, instrument, licence, citation; and "beam", where that is known to be
        "monochromatic".
    warnings : tuple of str
        One sentence for everything that was assumed, repaired, searched for or left out, so that a user can object. They go on
        to the terminal, ``ctuq info``, the head of the report and `Result.warnings` by themselves. A reader adds one by
        `ctuq.files.formats.raw.Raw.warned`, whoever holds a scan by `Scan.warned`.
    """

    source: str = "memory"
    sha256: str = ""
    steps: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()

    @property
    def monochromatic(self) -> bool:
        """Whether the beam is known to have one energy, and so cannot harden."""
        return self.facts.get("beam", "").strip().lower() == MONOCHROMATIC

    @property
    def noise_growth(self) -> float:
        """By what growth of the noise with attenuation the scan's weights were made; 0 where they were given, or none."""
        return self._number(NOISE_GROWTH)

    @property
    def axis_move(self) -> float:
        """By how many mm along the detector a fit moved the rotation axis' shadow from where the scan had it."""
        return self._number(AXIS_MOVE)

    def _number(self, fact: str) -> float:
        """What a fact says; 0 of one that is none, as files may have facts of any name."""
        try:
            return float(self.facts.get(fact, 0.0))
        except ValueError:
            return 0.0

    def grown(self, growth: float) -> "Provenance":
        """The same of a scan that was weighed by this growth."""
        return replace(self, facts={**self.facts, NOISE_GROWTH: f"{growth:g}"})

    def numbers(self, count: int) -> range:
        """What each of so many slices is called: its number among all rows of the file, counted from the lowest."""
        try:
            found = range(*map(int, self.facts.get(SLICES, "").split(":")))
            return found if len(found) == count else range(count)
        except (TypeError, ValueError, OverflowError):
            return range(count)

    def of_slices(self, rows: range, count: int) -> "Provenance":
        """The same of some of so many slices."""
        if rows == range(count):
            return self
        some = self.numbers(count)[rows.start : rows.stop : rows.step]
        return replace(self, facts={**self.facts, SLICES: f"{some.start}:{some.stop}:{some.step}"})

    def then(self, step: str) -> "Provenance":
        """The same with one more step."""
        return replace(self, steps=(*self.steps, step))

    def warned(self, *sentences: str) -> "Provenance":
        """The same with more warnings, each of which is a step as well; none stands twice."""
        new = tuple(dict.fromkeys(text for text in sentences if text not in self.warnings))
        return replace(self, steps=(*self.steps, *new), warnings=(*self.warnings, *new))


@dataclass(frozen=True, eq=False)
class Views(Generic[_Taken]):
    """What scans of images and of volumes have in common; the fields are theirs, and described there."""

    projections: NDArray[np.float32]
    geometry: _Taken
    weights: NDArray[np.float32] | None = None
    truth: NDArray[np.float32] | None = None
    grid: VolumeGrid | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self):
        _own_arrays(self, self.geometry.shape)

    def __repr__(self) -> str:
        return in_words(f"ctuq.{type(self).__name__}", rows_of(self))

    def _repr_html_(self) -> str:
        return as_html(f"ctuq.{type(self).__name__}", rows_of(self), self.plot())

    def plot(self) -> "Figure":
        """The sinogram as a matplotlib figure: a notebook shows it, ``.savefig(path)`` keeps it."""
        return plot_scan(self)

    @property
    def n_angles(self) -> int:
        """Number of views."""
        return self.projections.shape[-2]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was assumed, repaired, searched for or left out, one sentence each; see `Provenance`."""
        return self.provenance.warnings

    def warned(self, *sentences: str) -> Self:
        """The same scan with more warnings: say with the number what was done, and what to give if it is wrong."""
        return replace(self, provenance=self.provenance.warned(*sentences))

    def select(self, indices: Sequence[int] | NDArray) -> Self:
        """The scan of the chosen views, in the order given: by their numbers, or by a mask of all.

        Raises
        ------
        InputError
            If no view is chosen, or one is chosen that does not exist.
        """
        chosen = _chosen_views(indices, self.n_angles)
        return replace(
            self,
            projections=self.projections[..., chosen, :],
            weights=None if self.weights is None else self.weights[..., chosen, :],
            geometry=self.geometry.subset(chosen),
            provenance=self.provenance.then(f"{chosen.size} of {self.n_angles} views selected"),
        )

    def every(self, step: int) -> Self:
        """Every ``step``-th view, from the first."""
        if step < 1:
            raise InputError(f"'every' takes a positive whole number, got {step}.")
        return self.select(np.arange(0, self.n_angles, step))


@dataclass(frozen=True, eq=False, repr=False)
class Scan(Views[Geometry]):
    """Log-corrected projections with their geometry.

    Parameters
    ----------
    projections : array of float32, shape ``geometry.shape``
        Line integrals of attenuation (no unit), ``(angle, column)``.
    geometry : ParallelBeam or FanBeam
        How they were taken.
    weights : array of float32, same shape, optional
        Relative precision of each ray: the variance of ray i is ``sigma2 / weights[i]``. None means all ones.
    truth : array of float32, shape ``grid.shape``, optional
        Known attenuation in 1/mm, where there is one; used to score, never to reconstruct.
    grid : VolumeGrid, optional
        The grid of the truth, or the one that the file asks for.
    provenance : Provenance

    Raises
    ------
    InputError
        If shapes disagree, or projections or weights hold NaN, inf or (weights) negative numbers.
    """

    geometry: Geometry

    @cached_property
    def shadow(self) -> Shadow:
        """Where the sinogram falls to air."""
        return shadow_of(self.projections, self.weights)

    def binned(self, factor: int) -> "Scan":
        """The scan with ``factor`` neighbouring columns averaged, weighted by their precision.

        The weight of a bin is the mean of its weights, so that for independent noise ``sigma2`` of the binned scan is
        ``1 / factor`` of the full one's.
        """
        if factor == 1:
            return self
        geometry = self.geometry.binned(factor)
        projections, weights = binned_rays(self.projections, self.weights, factor)
        told = self.provenance.then(f"{factor} columns averaged")
        return replace(self, projections=projections, weights=weights, geometry=geometry, provenance=told)

    def cropped(self, first: int, last: int) -> "Scan":
        """The scan of columns ``first`` to ``last - 1``."""
        return replace(
            self,
            geometry=self.geometry.cropped(first, last),
            projections=self.projections[:, first:last],
            weights=None if self.weights is None else self.weights[:, first:last],
            provenance=self.provenance.then(f"cropped to columns {first} to {last - 1}"),
        )


def require_scan(scan: Any, kind: type[Views]) -> None:
    """Refuse what is no scan of this kind, such as the name of its file.

    Raises
    ------
    InputError
    """
    if not isinstance(scan, kind):
        makes = "ctuq.read" if kind is Scan else "ctuq.read_volume"
        raise InputError(f"A {kind.__name__} is reconstructed, not a {type(scan).__name__}; {makes} makes one of a file.")


def binned_rays(projections: NDArray, weights: NDArray | None, factor: int) -> tuple[NDArray, NDArray | None]:
    """Projections and weights (angle, column) as `Scan.binned` makes them."""
    kept = projections.shape[1] // factor * factor
    values = projections[:, :kept].reshape(len(projections), -1, factor)
    if weights is None:
        return values.mean(axis=2), None
    rays = weights[:, :kept].reshape(values.shape)
    binned = rays.mean(axis=2)
    weighted = (rays * values).sum(axis=2) / np.maximum(rays.sum(axis=2), np.finfo(np.float32).tiny)
    return np.where(binned > 0, weighted, values.mean(axis=2)), binned


def _chosen_views(indices: Sequence[int] | NDArray, count: int) -> NDArray[np.int64]:
    """Numbers of views, of ``count`` that there are.

    Raises
    ------
    InputError
        If no view is chosen, or one is chosen that does not exist.
    """
    told = np.asarray(indices).reshape(-1)
    if told.dtype == bool and told.size != count:
        raise InputError(f"A mask of views says True or False for each of the {count} views; this one is of {told.size}.")
    told = np.flatnonzero(told) if told.dtype == bool else told
    chosen = told.astype(np.int64)
    if (chosen != told).any():
        raise InputError("Views are chosen by their whole numbers, from 0, or by a mask; these numbers are no whole ones.")
    if chosen.size == 0:
        raise InputError("No view is selected; choose at least one.")
    if chosen.min() < 0 or chosen.max() >= count:
        raise InputError(f"Views {chosen.min()} to {chosen.max()} were asked for; the scan has 0 to {count - 1}.")
    return chosen


def _own_arrays(scan: Any, shape: tuple[int, ...]) -> None:
    """Make the arrays of a scan, of this shape, its own: float32, checked, and never to be changed.

    Raises
    ------
    InputError
        If shapes disagree, or projections or weights hold NaN, inf or (weights) negative numbers.
    """
    _own(scan, "projections", shape)
    if scan.weights is not None:
        _own(scan, "weights", shape)
        if scan.weights.min() < 0 or scan.weights.max() == 0:
            raise InputError("The weights of the rays must be non-negative and not all zero.")
    if scan.truth is not None:
        if scan.grid is None:
            raise InputError("A truth image needs the grid that it lives on.")
        _own(scan, "truth", scan.grid.shape)


def _is_own(array: object) -> bool:
    """Whether nobody can change an array of float32 any more."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        return False
    return array.flags.owndata and array.flags.c_contiguous and not array.flags.writeable


def _own(scan: Any, name: str, shape: tuple[int, ...]) -> None:
    given = getattr(scan, name)
    # What a scan made its own stays: of one of 45 MB each warning took 0.1 s and as much memory again.
    array = given if _is_own(given) else np.array(as_numbers(given, f"The {name} hold"), dtype=np.float32)
    if array.shape != shape:
        raise InputError(f"The {name} have shape {array.shape}, but the geometry says {shape}.")
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise InputError(f"The {name} hold {bad} values that are NaN or infinite; repair or mask them first.")
    array.flags.writeable = False
    object.__setattr__(scan, name, array)
