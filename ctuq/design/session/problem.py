"""From what a session's file says to the design problem: ray transform, criterion, constraints."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.algebra.criteria import CRITERIA
from ctuq.design.constraints import SAME_ANGLE, Arc, Exposure, Stopping, Turning, nearest
from ctuq.design.models.learners import PRIORS
from ctuq.design.problem import DesignProblem
from ctuq.design.session.file import Record, Settings
from ctuq.design.session.model import network_options
from ctuq.design.session.scanner import Beam, beam_of, rays_of_a_view, region_of, transform_of, tree_of, views_taken
from ctuq.design.state import DesignState
from ctuq.errors import InputError
from ctuq.tomo.geometry import MOST_PIXELS
from ctuq.tomo.rays.matrix import MatrixRayTransform

_TURN = 2 * np.pi
_AREA_PRIORS = ("edges", "matern", "isotropic", "lindip")
_AREA_SIZES = (4, 40)


def new_record(
    geometry: Beam, settings: Settings, *, doses: NDArray[np.float64] | None = None, intake: Mapping[str, Any] | None = None
) -> Record:
    """A session that nothing was told to yet.

    Parameters
    ----------
    geometry : ParallelBeam or FanBeam; ConeBeam or Parallel3D of an area detector
        With the candidate angles, and the detector as it is measured.
    settings : Settings
    doses : array, shape (V,), optional
        Exposure of every candidate; 1 by default.
    intake : mapping, optional
        Kept as it is.

    Raises
    ------
    InputError
        If a setting is not to be had, or candidates are closer than the tolerance, or nothing may be suggested.
    """
    for name, known in (("criterion", CRITERIA), ("prior", PRIORS)):
        value = getattr(settings, name)
        if value not in known:
            raise InputError(f"There is no {name} {value!r}; choose one of {', '.join(known)}.")
    if settings.pilot < 1 or settings.batch < 1 or settings.retrain_every < 0:
        raise InputError(
            "There must be 1 or more pilot views and angles in a batch, and 0 or more views between re-trainings; got "
            f"{settings.pilot}, {settings.batch}, {settings.retrain_every}."
        )
    if not 2 <= settings.size <= MOST_PIXELS:
        raise InputError(f"The image of a design has 2 to {MOST_PIXELS} pixels along x and y, got {settings.size}.")
    tree = tree_of(geometry)
    record = Record(settings, tree, intake or {}, doses, None, DesignState.empty(1))
    if record.dims == 3:
        _refuse_for_volumes(settings)
    _refuse_near(geometry.angles, settings.tolerance)
    network_options(settings, record.dims)
    return replace(record, state=DesignState.empty(rays_of_a_view(geometry, settings.size)))


def design_problem(record: Record, A: MatrixRayTransform | None = None) -> DesignProblem:
    """The design problem of a session.

    Parameters
    ----------
    record : Record
    A : MatrixRayTransform, optional
        That was made for this session before.
    """
    s = record.settings
    if A is None:
        A = transform_of(beam_of(record.geometry), s.size)
    return DesignProblem(
        A=A,
        criterion=CRITERIA[s.criterion],
        region=None if s.roi is None else region_of(A.grid, s.roi),
        forbidden=tuple(Arc(*arc) for arc in s.forbidden),
        exposure=Exposure(record.doses, counts=record.counted is not None),
        turning=Turning(s.rotation_cost, s.endless),
        budget=s.budget,
        stopping=Stopping(s.stop_gain, s.stop_error),
    )


def binned(
    record: Record, problem: DesignProblem, views: int, projections: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray, NDArray | None]:
    """Projections and weights of so many views at the rays of the design, from those that were measured.

    Raises
    ------
    InputError
        If a shape does not match the geometry, or a value is NaN.
    """
    return views_taken(beam_of(record.geometry), problem.A.grid, views, projections, weights)


def counted(record: Record, problem: DesignProblem, angles: NDArray[np.float64], counts: NDArray) -> Record:
    """The session with the count that stands for weight 1: the first counts' mean, at the nominal exposure."""
    used = counts > 0
    if record.counted is not None or not used.any():
        return record
    dose = float(problem.doses[problem.index(angles)].mean())
    return replace(record, counted=float(counts[used].mean()) / dose)


def candidates_at(record: Record, angles: ArrayLike) -> NDArray[np.float64]:
    """The candidate angles that these (radians) are, within the tolerance and up to whole turns.

    Raises
    ------
    InputError
        Naming the first angle that is none, and the nearest candidate; in degrees as the scanner counts them.
    """
    within = max(record.settings.tolerance, SAME_ANGLE)
    return record.angles[nearest(angles, record.angles, within=within, turns=True, sense=record.sense)]


def _refuse_for_volumes(settings: Settings) -> None:
    least, most = _AREA_SIZES
    if not least <= settings.size <= most:
        raise InputError(f"The design of a volume is made on {least} to {most} voxels across, not {settings.size}.")
    if settings.prior not in _AREA_PRIORS:
        raise InputError(
            f"The prior {settings.prior!r} is of slices; for an area detector choose one of {', '.join(_AREA_PRIORS)}."
        )


def _refuse_near(angles: NDArray[np.float64], tolerance: float) -> None:
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"The tolerance of angles must be 0 or a positive number, got {np.rad2deg(tolerance):g} degrees.")
    ordered = np.sort(np.unique(angles % _TURN)) if len(angles) > 1 else np.zeros(1)
    gaps = np.diff(np.append(ordered, ordered[0] + _TURN))
    if len(ordered) < len(angles) or gaps.min() <= 2 * max(tolerance, SAME_ANGLE):
        least = 0.0 if len(ordered) < len(angles) else float(np.rad2deg(gaps.min()))
        raise InputError(
            f"Two candidate angles are {least:.3g}° apart, which the tolerance of {np.rad2deg(tolerance):.3g}° cannot tell "
            "from each other; give a larger step or a smaller tolerance."
        )
