"""A live design in a file: asked and told like a `Designer`, by one process after another."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.designer import Designer
from ctuq.design.session import file as sessionfile
from ctuq.design.session import plan as ahead
from ctuq.design.session.file import Record, Settings
from ctuq.design.session.learning import Learned
from ctuq.design.session.locks import BusyError, locked
from ctuq.design.session.opening import binned, candidates_at, counted, new_record, refuse_told
from ctuq.design.session.pilot import pilot_suggestion
from ctuq.design.session.workbench import Workbench
from ctuq.design.state import Decision, DesignState, Suggestion
from ctuq.errors import InputError
from ctuq.tomo.geometry import Geometry

_log = logging.getLogger(__name__)


class Session:
    """A design that lives in a file: every call reads it, changes it and writes it whole, or leaves it as it was.

    Several processes may use one session; each waits for the other's call. Beside the file are a folder ``NAME.cache``, which
    can be deleted and is made again, and hidden files for locks.

    Parameters
    ----------
    path : path
        Of a session that `start` made.

    Attributes
    ----------
    path : Path
    record : Record
        What was in the file after the last call.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of a newer ctuq.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.record: Record = sessionfile.read(self.path)
        self._bench = Workbench(self.path.with_name(self.path.name + ".cache"))

    @classmethod
    def start(
        cls,
        path: str | os.PathLike,
        geometry: Geometry,
        settings: Settings,
        *,
        doses: NDArray[np.float64] | None = None,
        intake: Mapping[str, Any] | None = None,
    ) -> "Session":
        """Make a new session.

        Parameters
        ----------
        path : path
            Must not exist.
        geometry : ParallelBeam or FanBeam
            Of the scanner, with all candidate angles (radians).
        settings : Settings
        doses : array, shape (V,), optional
            Exposure of every candidate, 1 by default.
        intake : mapping, optional
            How files are read, as the command line keeps it.

        Raises
        ------
        InputError
            If the file exists, a setting is not to be had, or all candidates are forbidden.
        """
        path = Path(path)
        record = new_record(geometry, settings, doses=doses, intake=intake)
        problem = Workbench(path).problem(record)
        plan = pilot_suggestion(problem, record.state, Designer(problem, None).available, settings.pilot)
        with locked(path, "lock"):
            if path.exists():
                raise InputError(f"'{path}' exists already; choose another name, or go on with that session.")
            sessionfile.write(path, replace(record, plan=plan))
        return cls(path)

    @property
    def state(self) -> DesignState:
        """The measured views, dose and log after the last call."""
        return self.record.state

    def ask(self, n: int | None = None, *, pending: ArrayLike = ()) -> Suggestion:
        """The next angles, which are noted in the session's log; pilot views as long as some are missing.

        Parameters
        ----------
        n : int, optional
            How many; the session's batch by default.
        pending : array, radians
            Angles asked for earlier that are being measured: they count as measured. Those that were told are passed over.

        Raises
        ------
        InputError
            If the budget is spent or no candidate is left.
        """
        if n is not None and n < 1:
            raise InputError(f"At least one angle must be asked for, got {n}.")
        self.record = sessionfile.read(self.path)
        if self.record.learnt is None and ahead.due(self.record):
            self.learn()
        with self._changing() as record:
            waiting = candidates_at(record, pending) if np.size(pending) else np.zeros(0)
            waiting = waiting[~np.isin(waiting, record.angles[record.state.views])]
            planned = record if record.plan or record.refusal else self._planned(record)
            found = None if len(waiting) else ahead.take(planned, n)
            if found is None:
                suggestion = self._worked_out(planned, n, waiting)
                found = suggestion, ahead.noted(planned, suggestion)
            self._write(found[1])
        return found[0]

    def tell(
        self,
        angles: ArrayLike,
        projections: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        counts: bool = False,
        learning: bool = True,
    ) -> None:
        """Take in projections. They are in the file before anything slow begins.

        Parameters
        ----------
        angles : array, shape (k,), radians
        projections : array, shape (k, columns)
            Line integrals.
        weights : array, same shape, optional
            Relative precision of each ray on one scale for all views, or expected photon counts; by default what the exposure
            predicts.
        counts : bool
            Whether ``weights`` are photon counts; the noise of views to come is then predicted from the photons that pass.
        learning : bool
            Whether the model is learned (again) at once where that is due.

        Raises
        ------
        InputError
            If an angle is no candidate or was told before, or an array has the wrong shape or holds NaN.
        """
        with self._changing() as record:
            views = candidates_at(record, angles)
            refuse_told(record, views)
            problem = self._bench.problem(record)
            y, w = binned(record, problem, views, projections, weights)
            scaled = counted(record, problem, views, w) if w is not None and counts else record
            taking = Designer(self._bench.problem(scaled), None, state=scaled.state)
            taking.tell(views, y, w / (scaled.counted or 1.0) if w is not None and counts else w)
            self._write(replace(scaled, state=taking.state, plan=None, refusal=""))
        self.update(learning=learning)

    def reject(self, angles: ArrayLike, reason: str = "", *, retry: bool = True, learning: bool = True) -> None:
        """Take back projections that turned out bad, or note exposures that failed; their dose stays spent.

        Parameters
        ----------
        angles : array, radians
        reason : str
            For the log.
        retry : bool
            Whether these angles may be suggested again.
        learning : bool
            Whether a model that had learned from them is learned again at once.
        """
        with self._changing() as record:
            taking = Designer(self._bench.problem(record), None, state=record.state)
            taking.reject(candidates_at(record, angles), reason, retry=retry)
            self._write(replace(record, state=taking.state, plan=None, refusal=""))
        self.update(learning=learning)

    def allow(self, budget: float) -> None:
        """Change the total dose.

        Parameters
        ----------
        budget : float
            In nominal exposures, those that were spent included.

        Raises
        ------
        InputError
            If it is not a positive number.
        """
        with self._changing() as record:
            changed = replace(record, settings=replace(record.settings, budget=budget), plan=None, refusal="")
            self._bench.problem(changed)
            table, none = np.zeros((0, len(record.angles))), np.zeros(0)
            reason = f"The dose budget is {budget:g} from now on."
            entry = Decision("budget", none, table, none, float("nan"), record.state.spent, stop=False, reason=reason)
            self._write(ahead.logged(changed, entry))
        self.update()

    def update(self, *, learning: bool = True) -> None:
        """Learn if that is due, and work out the next angles: what a killed process may have left undone."""
        if learning and ahead.due(self.record):
            try:
                self.learn()
            except BusyError:
                _log.info("Another process is learning; until it is done the next angles come from the model before.")
        with self._changing() as record:
            if record.plan is None and not record.refusal:
                self._write(self._planned(record))

    def learn(self, *, anew: bool = False) -> None:
        """Learn the model from all measured views; others can use the session meanwhile.

        Parameters
        ----------
        anew : bool
            Fit the network again whether that is due or not.

        Raises
        ------
        InputError
            If pilot views are missing, another process is learning, or some of the views were rejected meanwhile. The
            session keeps the model that it had.
        """
        busy = f"The model of '{self.path}' is being learned by another process; wait until it is done."
        with locked(self.path, "training", busy=busy):
            record = self.record = sessionfile.read(self.path)
            if ahead.in_pilot(record):
                known, needed = len(record.state.views), record.settings.pilot
                raise InputError(f"{known} of {needed} pilot views are measured; tell the others before a model is learned.")
            _log.info("Learning from %d views (%s).", len(record.state.views), ahead.due(record) or "as asked")
            found = self._bench.learn(record, anew=anew)
            with self._changing() as record:
                if not ahead.covers(record.state, found.learnt):
                    raise InputError("Projections that were learned from were rejected meanwhile; learn again without them.")
                self._write(self._planned(self._merged(record, found)))
                self._bench.tidy(self.record)

    def _merged(self, record: Record, found: Learned) -> Record:
        """The session with what was learned, conditioned on all its views."""
        state = replace(record.state, learned=len(found.learnt.views))
        record = replace(record, learnt=found.learnt, state=state)
        values = ", ".join(f"{name} {value:.4g}" for name, value in found.learnt.values.items())
        reason = f"Learned from {len(found.learnt.views)} views ({found.learnt.note}): {values}."
        none, error = np.zeros(0), self._bench.designer(record).predicted_error
        table = np.zeros((0, len(record.angles)))
        return ahead.logged(record, Decision("learn", none, table, none, error, state.spent, stop=False, reason=reason))

    def _planned(self, record: Record) -> Record:
        """The session with its next angles, or why there are none; as it is if a model must be learned first."""
        if record.learnt is None and not ahead.in_pilot(record):
            return record
        try:
            return replace(record, plan=self._worked_out(record, None, np.zeros(0)), refusal="")
        except InputError as error:
            return replace(record, plan=None, refusal=str(error))

    def _worked_out(self, record: Record, n: int | None, pending: NDArray[np.float64]) -> Suggestion:
        if not ahead.in_pilot(record):
            return self._bench.designer(record).ask(n or record.settings.batch, pending=pending)
        problem, state = self._bench.problem(record), record.state
        # Pilot views that are being measured are as good as measured.
        coming = problem.index(pending) if len(pending) else np.zeros(0, np.int64)
        state = replace(state, views=np.concatenate([state.views, coming]))
        if len(state.views) >= record.settings.pilot:
            raise InputError("All pilot views that were missing are being measured; tell their projections before you ask on.")
        available = Designer(problem, None, state=record.state).available
        available[coming] = False
        return pilot_suggestion(problem, state, available, record.settings.pilot)

    @contextmanager
    def _changing(self) -> Iterator[Record]:
        """Hold the session; gives what is in the file now."""
        with locked(self.path, "lock"):
            self.record = sessionfile.read(self.path)
            yield self.record

    def _write(self, record: Record) -> None:
        if record is not self.record:
            sessionfile.write(self.path, record)
            self.record = record
