"""Bluesky: a plan whose angles are picked while it runs, and an optimizer for bluesky-adaptive.

``pip install 'ctuq[scanner]'`` installs both. Angles are in the scanner's degrees, as its stage takes them.
"""

import itertools
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ctuq.design.adapters.shared import in_degrees
from ctuq.design.session.session import Session
from ctuq.errors import BackendError, BudgetExhausted, InputError

_ID = "_id"
Values = Mapping[str, Any]


def adaptive_scan(
    session: Session | str | os.PathLike,
    detectors: Sequence[Any],
    stage: Any,
    projection_of: Callable[[Values], ArrayLike],
    *,
    weights_of: Callable[[Values], ArrayLike] | None = None,
    most: int | None = None,
    md: Mapping[str, Any] | None = None,
) -> Generator[Any, Any, str]:
    """A bluesky plan: ask for an angle, turn the stage, expose, tell, until the session says stop or its dose is spent.

    Every view is one event of one run. The next angle is worked out between two exposures; where the network is fitted again
    that takes long, so let ``ctuq design retrain`` or a server do it beside, or take a model that is learned once.

    Parameters
    ----------
    session : Session or path
    detectors : sequence of readables
    stage : movable
        Set to degrees.
    projection_of : callable
        Of the values that were read, by name: line integrals (columns,).
    weights_of : callable, optional
        Relative precision of each ray, on one scale for all views.
    most : int, optional
        Views to take at most.
    md : mapping, optional
        Metadata of the run.

    Returns
    -------
    str
        Why it ended.

    Raises
    ------
    BackendError
        If bluesky is not installed.

    Examples
    --------
    >>> RE(adaptive_scan("session.h5", [camera], stage, lambda read: -np.log(read["camera"])))  # doctest: +SKIP
    """
    try:
        import bluesky.plan_stubs as bps
        import bluesky.preprocessors as bpp
    except ImportError as error:
        raise BackendError("bluesky is not installed; install it: pip install 'ctuq[scanner]'.") from error
    if most is not None and most < 1:
        raise InputError(f"A plan takes at least one view, got {most}.")
    design, names = in_degrees(session), [detector.name for detector in detectors]
    told = {"plan_name": "ctuq_adaptive_scan", "detectors": names, "motors": [stage.name], "session": str(design.path)}

    @bpp.stage_decorator([*detectors, stage])
    @bpp.run_decorator(md={**told, **(md or {})})
    def views() -> Generator[Any, Any, str]:
        for taken in itertools.count():
            if most is not None and taken >= most:
                return f"{most} views were taken."
            try:
                suggestion = design.ask(1)
            except BudgetExhausted as error:
                return str(error)
            if suggestion.stop:
                return suggestion.reason
            angle = float(suggestion.angles[0])
            yield from bps.checkpoint()
            yield from bps.mv(stage, angle)
            reading = yield from bps.trigger_and_read([*detectors, stage])
            values = {name: entry["value"] for name, entry in reading.items()}
            weights = None if weights_of is None else np.asarray(weights_of(values))
            design.tell(angle, np.asarray(projection_of(values)), weights)
        raise AssertionError("A count does not end.")

    return (yield from views())


class SessionOptimizer:
    """A session as an optimizer of bluesky-adaptive 1.x: `suggest`, `ingest`, `register_failures`, `should_stop`.

    Parameters
    ----------
    session : Session or path
    stage : str
        Name of the actuator, which is set to degrees.
    projection : str
        Name of the outcome that holds the line integrals (columns,) of a point.
    weights : str, optional
        Name of the outcome with the relative precision of each ray.
    """

    def __init__(
        self, session: Session | str | os.PathLike, stage: str, *, projection: str = "projection", weights: str | None = None
    ):
        self.session = in_degrees(session)
        self._stage, self._projection, self._weights = stage, projection, weights
        self._asked: dict[Any, float] = {}
        self._count = itertools.count(1)

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """The next angles, each with an "_id"; those suggested before and not ingested yet count as measured."""
        suggestion = self.session.ask(num_points or 1, pending=list(self._asked.values()))
        points = [{_ID: f"view-{next(self._count)}", self._stage: float(angle)} for angle in suggestion.angles]
        self._asked |= {point[_ID]: point[self._stage] for point in points}
        return points

    def ingest(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Take in projections: of points that were suggested by their "_id", of others by the stage's angle."""
        angles = [self._angle(point) for point in points]
        rays = [np.asarray(point[self._projection], np.float32) for point in points]
        weights = None if self._weights is None else [np.asarray(point[self._weights], np.float32) for point in points]
        self.session.tell(angles, np.stack(rays), None if weights is None else np.stack(weights))
        for point in points:
            self._asked.pop(point.get(_ID), None)

    def register_failures(self, suggestions: Sequence[Mapping[str, Any]]) -> None:
        """Note exposures that failed: their dose is spent, and their angles may be suggested again."""
        self.session.reject([self._angle(point) for point in suggestions], "The exposure failed.")
        for point in suggestions:
            self._asked.pop(point.get(_ID), None)

    def should_stop(self) -> tuple[bool, str | None]:
        """Whether the session advises to stop, or has nothing left to suggest, and why."""
        record = self.session.refreshed()
        if record.refusal:
            return True, record.refusal
        return (True, record.plan.reason) if record.plan is not None and record.plan.stop else (False, None)

    def get_best_points(self) -> list[tuple[Any, Mapping, Mapping]]:
        """None: all views together make the image, and no angle is the best."""
        return []

    def _angle(self, point: Mapping[str, Any]) -> float:
        known = self._asked.get(point.get(_ID))
        if known is not None:
            return known
        if self._stage not in point:
            raise InputError(f"The point {point.get(_ID)!r} was not suggested here and has no {self._stage!r}; give its angle.")
        return float(point[self._stage])
