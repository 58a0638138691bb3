"""What a scanner can and may do: candidate angles, forbidden arcs, exposures, costs, and when to stop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.errors import InputError
from ctuq.tomo import ray_transform
from ctuq.tomo.geometry import Geometry, VolumeGrid
from ctuq.tomo.rays.matrix import MatrixRayTransform

SAME_ANGLE = 1e-5
_TURN = 2 * np.pi
_MOST_CANDIDATES = 100_000


@dataclass(frozen=True)
class CandidateGrid:
    """The angles a stage can stop at: ``start``, ``start + step``, ... below ``stop``.

    Parameters
    ----------
    start, stop, step : float
        Radians.

    Raises
    ------
    InputError
        If the step is not positive, or there is no angle, or far too many.
    """

    start: float
    stop: float
    step: float

    def __post_init__(self):
        if not (np.isfinite([self.start, self.stop, self.step]).all() and self.step > 0):
            raise InputError(f"Candidates have finite ends and a positive step; got those {self._told}.")
        count = (self.stop - self.start) / self.step
        if not 0 < count < _MOST_CANDIDATES:
            raise InputError(
                f"Candidates {self._told} are {int(count)} angles; 1 to {_MOST_CANDIDATES - 1} can be chosen from."
            )

    @property
    def _told(self) -> str:
        start, stop, step = np.rad2deg([self.start, self.stop, self.step])
        return f"from {start:g} to {stop:g} in steps of {step:g} degrees"

    @property
    def angles(self) -> NDArray[np.float64]:
        """All angles, (V,)."""
        count = int(np.ceil((self.stop - self.start) / self.step - 1e-9))
        return np.asarray(self.start + self.step * np.arange(count), np.float64)


def nearest(
    angles: ArrayLike, candidates: NDArray[np.float64], *, within: float = SAME_ANGLE, turns: bool = False, sense: int = 1
) -> NDArray[np.int64]:
    """Indices of the candidates that these angles are.

    Parameters
    ----------
    angles, candidates : array, radians
    within : float
        How far off they may be.
    turns : bool
        Whether whole turns do not count.
    sense : int
        -1 where the scanner counts its angles clockwise: for the message, in its degrees.

    Raises
    ------
    InputError
        Naming the first angle that is none, and the nearest candidate.
    """
    wanted = np.atleast_1d(np.asarray(angles, np.float64))
    if wanted.ndim != 1 or not np.isfinite(wanted).all():
        raise InputError("Angles must be a list of finite numbers.")
    gaps = wanted[:, None] - candidates
    gaps = np.abs((gaps + np.pi) % _TURN - np.pi if turns else gaps)
    found = gaps.argmin(1)
    far = np.flatnonzero(gaps[np.arange(len(wanted)), found] > within)
    if len(far):
        angle, near = sense * np.rad2deg([wanted[far[0]], candidates[found[far[0]]]]) + 0.0
        raise InputError(f"The angle {angle:.6g}° is not among the candidates; the nearest of them is {near:.6g}°.")
    return found.astype(np.int64)


@dataclass(frozen=True)
class Arc:
    """Angles from ``start`` counter-clockwise to ``stop``, ends included.

    Parameters
    ----------
    start, stop : float
        Radians; a whole turn or more is every angle.
    """

    start: float
    stop: float

    def contains(self, angles: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which angles lie in the arc, turns of 360 degrees aside."""
        width = (self.stop - self.start) % _TURN
        if self.stop - self.start >= _TURN:
            return np.ones(np.shape(angles), bool)
        offset = (np.asarray(angles) - self.start + SAME_ANGLE) % _TURN
        return offset <= width + 2 * SAME_ANGLE


@dataclass(frozen=True, eq=False)
class Exposure:
    """How long each view is exposed, and what that does to its noise.

    Parameters
    ----------
    dose : array of float, shape (V,), optional
        Relative to the nominal exposure, which has dose 1; a ray's weight is proportional to it. None means 1 everywhere.
    counts : bool
        Whether weights are photon counts: those of a view to come are then predicted from the present reconstruction,
        proportional to ``dose * exp(-line integral)`` and on the scale of the measured weights.
    """

    dose: NDArray[np.float64] | None = None
    counts: bool = False

    def doses(self, views: int) -> NDArray[np.float64]:
        """The dose of every view, (V,).

        Raises
        ------
        InputError
            If their number is wrong, or one is not a positive number.
        """
        if self.dose is None:
            return np.ones(views)
        dose = np.asarray(self.dose, dtype=np.float64)
        if dose.shape != (views,):
            raise InputError(f"There are {dose.size} doses for {views} views; give one for each.")
        if not (np.isfinite(dose).all() and (dose > 0).all()):
            raise InputError("Every dose must be a positive number.")
        return dose


@dataclass(frozen=True)
class Turning:
    """What it costs to turn the stage.

    Parameters
    ----------
    cost : float
        Of one radian, in nominal exposures; scores are divided by dose plus turning.
    endless : bool
        Whether the stage can turn through 360 degrees the shorter way; otherwise it goes straight from angle to angle.
    """

    cost: float = 0.0
    endless: bool = False

    def __post_init__(self):
        if not (np.isfinite(self.cost) and self.cost >= 0):
            raise InputError(f"The cost of turning must be 0 or a positive number, got {np.deg2rad(self.cost):g} a degree.")

    def between(self, position: float | None, angles: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cost of turning from a position to each angle; 0 from nowhere."""
        if position is None:
            return np.zeros(np.shape(angles))
        way = np.abs(np.asarray(angles) - position)
        if self.endless:
            way = np.minimum(way % (2 * np.pi), -way % (2 * np.pi))
        return self.cost * way


@dataclass(frozen=True)
class Stopping:
    """When to stop: at whichever comes first.

    Parameters
    ----------
    gain : float, optional
        Stop when the best view's score, in the criterion's unit, is below.
    error : float, optional
        Stop when the predicted root mean square error of the region is below, 1/mm.
    """

    gain: float | None = None
    error: float | None = None

    def __post_init__(self):
        for name, value in (("gain", self.gain), ("error", self.error)):
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise InputError(f"The {name} to stop below must be 0 or a positive number, got {value}.")

    def advice(self, angle: float, gain: float, unit: str, error: float) -> tuple[bool, str]:
        """Whether to stop, and one sentence with the figures: the best angle (radians), its gain, the predicted error."""
        figures = f"the best angle, {np.rad2deg(angle):g} degrees, is predicted to gain {gain:.4g} {unit}"
        figures += "" if self.gain is None else f" (stop below {self.gain:g})"
        figures += f", the predicted error is {error:.4g}" + ("" if self.error is None else f" (stop below {self.error:g})")
        stop = (self.gain is not None and gain < self.gain) or (self.error is not None and error < self.error)
        return stop, f"{'Stop' if stop else 'Go on'}: {figures}."


def candidate_transform(
    geometry: Geometry, grid: VolumeGrid, candidates: NDArray[np.float64], others: Sequence[float] | NDArray[np.float64] = ()
) -> tuple[MatrixRayTransform, NDArray[np.bool_]]:
    """The ray transform of all candidate angles and of others that were measured, and which of its views are candidates.

    Parameters
    ----------
    geometry : ParallelBeam or FanBeam
        Everything but the angles.
    grid : VolumeGrid
        Of the image that the design is made on; it may be coarser than that of the reconstruction.
    candidates : array, shape (V,), radians
    others : array, radians
        For example pilot angles; those that are candidates are not repeated.
    """
    candidates, others = np.asarray(candidates, np.float64), np.asarray(others, np.float64).reshape(-1)
    new = [a for a in others if np.abs(candidates - a).min() > SAME_ANGLE]
    angles = np.concatenate([candidates, new])
    A = ray_transform(grid, replace(geometry, angles=angles), backend="matrix")
    assert isinstance(A, MatrixRayTransform)
    return A, np.arange(len(angles)) < len(candidates)
