"""A live design in a file: asked and told like a `Designer`, by one process after another."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctuq.design.measurements import taken_back, taken_in
from ctuq.design.session import file as sessionfile
from ctuq.design.session.builder import DesignerBuilder
from ctuq.design.session.doubts import doubts_of
from ctuq.design.session.file import Record, Settings
from ctuq.design.session.model import LearnedModel
from ctuq.design.session.pilot import pilot_suggestion
from ctuq.design.session.plan import covers, in_pilot, learning_due, noted, take_planned
from ctuq.design.session.problem import binned, candidates_at, counted, new_record
from ctuq.design.session.scanner import Beam
from ctuq.design.state import DesignState, Suggestion, learned
from ctuq.errors import BudgetExhausted, InputError
from ctuq.locks import BusyError, locked
from ctuq.pictures import in_words
from ctuq.surroundings import undisturbed
from ctuq.tomo.arrays import as_whole

_log = logging.getLogger(__name__)
_UNITS = ("exposure", "weight", "counts")


class Session:
    """A design that lives in a file: every call reads it, changes it and writes it whole, or leaves it as it was.

    Several processes may use one session; each waits for the other's call. Beside the file are a folder ``NAME.cache``, which
    can be deleted and is made again, and hidden files for locks.

    Parameters
    ----------
    path : path
        Of a session that `start` made.
    degrees : bool
        Whether angles are in degrees as the scanner counts them, in all that is given and in all that comes back; else in
        radians, counter-clockwise.

    Attributes
    ----------
    path : Path
    degrees : bool
    record : Record
        What was in the file after the last call; angles in radians.

    Examples
    --------
    >>> session = Session("session.h5", degrees=True)  # doctest: +SKIP
    >>> suggestion = session.ask()  # doctest: +SKIP
    >>> projection = measure(suggestion.angles[0])  # doctest: +SKIP
    >>> session.tell(suggestion.angles[0], projection)  # doctest: +SKIP

    Raises
    ------
    InputError
        If the file is missing, damaged, or of a newer ctuq.
    """

    def __init__(self, path: str | os.PathLike, *, degrees: bool = False):
        self.path, self.degrees = sessionfile.behind(path), degrees
        self._seen: tuple[int, ...] = ()
        self.record: Record
        self._look()
        self._builder = DesignerBuilder(self.path.with_name(self.path.name + ".cache"))

    def __repr__(self) -> str:
        record = self.record
        budget = "" if record.settings.budget is None else f" of {record.settings.budget:g}"
        learnt = "not learned yet" if record.learnt is None else f"learned from {len(record.learnt.views)} views"
        rows = (
            ("file", str(self.path)),
            ("measured", f"{len(self.state.views)} of {len(record.angles)} angles measured"),
            ("dose", f"dose {self.state.spent:g}{budget}"),
            ("model", f"{record.settings.prior} {learnt}"),
        )
        return in_words(type(self).__name__, rows)

    @classmethod
    def start(
        cls,
        path: str | os.PathLike,
        geometry: Beam,
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
        geometry : ParallelBeam or FanBeam; ConeBeam or Parallel3D of an area detector
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
        problem = DesignerBuilder(path).problem(record)
        plan = pilot_suggestion(problem, record.state, problem.free(record.state), settings.pilot)
        with locked(path, "lock"):
            if path.exists():
                raise InputError(f"'{path}' exists already; choose another name, or go on with that session.")
            sessionfile.write(path, replace(record, plan=plan))
        return cls(path)

    @undisturbed()
    def doubts(self) -> tuple[str, ...]:
        """What the views of a slice say against the scanner as it was told, a sentence each: axis and flux. Takes a second."""
        return doubts_of(self.record, self._builder.problem(self.record))

    @property
    def state(self) -> DesignState:
        """The measured views, dose and log after the last call."""
        return self.record.state

    @undisturbed()
    def ask(self, n: int | None = None, *, pending: ArrayLike = ()) -> Suggestion:
        """The next angles, which are noted in the session's log; pilot views as long as some are missing.

        Parameters
        ----------
        n : int, optional
            How many; the session's batch by default.
        pending : array
            Angles asked for earlier that are being measured: they count as measured. Those that were told are passed over.

        Raises
        ------
        BudgetExhausted
            If there is no dose left.
        InputError
            If no candidate is left.
        """
        n = None if n is None else as_whole(n, "The number of angles")
        if n is not None and n < 1:
            raise InputError(f"At least one angle must be asked for, got {n}.")
        suggestion = self._ask(n, self._radians(pending))
        return suggestion.in_degrees(self.record.sense) if self.degrees else suggestion

    def _radians(self, angles: ArrayLike) -> NDArray[np.float64]:
        given = np.asarray(angles, np.float64)
        return self.record.sense * np.deg2rad(given) if self.degrees else given

    def _ask(self, n: int | None, pending: NDArray[np.float64]) -> Suggestion:
        while True:
            self._learn_what_is_needed()
            with self._changing() as record:
                if record.learnt is None and learning_due(record):
                    # Another process has told the last pilot view since.
                    continue
                waiting = candidates_at(record, pending) if np.size(pending) else np.zeros(0)
                waiting = waiting[~np.isin(waiting, record.angles[record.state.views])]
                planned = record if record.plan or record.refusal else self._planned(record)
                if planned.refusal and not record.refusal:
                    self._write(planned)  # before it is raised: the status says the same as what was asked
                found = None if len(waiting) else take_planned(planned, n)
                if found is None:
                    suggestion = self._worked_out(planned, n, waiting)
                    found = suggestion, noted(planned, suggestion)
                self._write(found[1])
                return found[0]

    @undisturbed()
    def tell(
        self,
        angles: ArrayLike,
        projections: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        unit: Literal["exposure", "weight", "counts"] = "weight",
        learning: bool = True,
        anyway: bool = False,
        ahead: bool = True,
    ) -> None:
        """Take in projections. They are in the file before anything slow begins.

        Parameters
        ----------
        angles : array, shape (k,), or one number
        projections : array, shape (k, columns), or of one angle (columns,)
            Line integrals; of an area detector (k, rows, columns) or (rows, columns), rows upwards.
        weights : array, same shape, optional
            What each ray is worth; by default what the exposure predicts.
        unit : str
            Of the weights: shares of what the "exposure" predicts (0 for bad rays), relative precision on one scale for all
            views ("weight"), or expected photon "counts"; the noise of views to come is then predicted from the photons that
            pass.
        learning : bool
            Whether the model is learned (again) at once where that is due.
        anyway : bool
            Take in views inside of forbidden arcs, too.
        ahead : bool
            Work out the next angles at once; else `update` or the next `ask` does.

        Raises
        ------
        InputError
            If an angle is no candidate, lies in a forbidden arc or was told before, an array has the wrong shape or holds NaN,
            or there is no such unit.
        """
        if unit not in _UNITS:
            raise InputError(f"The unit of weights is one of {', '.join(_UNITS)}, not {unit!r}.")
        with self._changing() as record:
            views = candidates_at(record, self._radians(angles))
            problem = self._builder.problem(record)
            y, w = binned(record, problem, len(views), projections, weights)
            scaled = record
            if w is not None and unit == "exposure":
                w = w * problem.doses[problem.index(views), None]
            elif w is not None and unit == "counts":
                scaled = counted(record, problem, views, w)
                w = w / (scaled.counted or 1.0)
            problem, given = self._builder.problem(scaled), {"sense": record.sense, "anyway": anyway}
            state = taken_in(problem, record.state, views, y, w, **given)
            self._write(replace(scaled, state=state, plan=None, refusal=""))
        if ahead:
            self.update(learning=learning)

    @undisturbed()
    def reject(self, angles: ArrayLike, reason: str = "", *, retry: bool = True, learning: bool = True) -> None:
        """Take back projections that turned out bad, or note exposures that failed; their dose stays spent.

        Parameters
        ----------
        angles : array
        reason : str
            For the log.
        retry : bool
            Whether these angles may be suggested again.
        learning : bool
            Whether a model that had learned from them is learned again at once.
        """
        with self._changing() as record:
            bad = candidates_at(record, self._radians(angles))
            state = taken_back(self._builder.problem(record), record.state, bad, reason, retry=retry)
            self._write(replace(record, state=state, plan=None, refusal=""))
        self.update(learning=learning)

    @undisturbed()
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
            self._builder.problem(changed)
            state = record.state.noted("budget", f"The dose budget is {budget:g} from now on.")
            self._write(replace(changed, state=state))
        self.update()

    @undisturbed()
    def update(self, *, learning: bool = True) -> None:
        """Learn if that is due, and work out the next angles: what a killed process may have left undone."""
        if learning and learning_due(self.record):
            self._learn_or_pass()
        with self._changing() as record:
            if record.plan is None and not record.refusal:
                self._write(self._planned(record))

    def refreshed(self) -> Record:
        """What is in the file now: another process may have changed it since the last call."""
        return self._look()

    @undisturbed()
    def warm(self) -> None:
        """Have the model in memory, so that the next call does not wait for it."""
        record = self._look()
        if record.learnt is not None:
            self._builder.designer(record)

    def _learn_what_is_needed(self) -> None:
        """Learn the first model; and what somebody was killed at, so that it is not left to the next projections."""
        record = self._look()
        if learning_due(record) and record.learnt is None:
            self.learn(wait=True)
        elif learning_due(record) and self._builder.learning:
            self._learn_or_pass()

    def _learn_or_pass(self) -> None:
        """Learn, unless another process is learning."""
        try:
            self.learn()
        except BusyError:
            _log.info("Another process is learning; until it is done the next angles come from the model before.")

    @undisturbed()
    def learn(self, *, anew: bool = False, wait: bool = False) -> None:
        """Learn the model from all measured views; others can use the session meanwhile.

        Parameters
        ----------
        anew : bool
            Fit the network again whether that is due or not.
        wait : bool
            Wait for another process that is learning, and learn only what is due after it.

        Raises
        ------
        InputError
            If pilot views are missing, another process is learning, or some of the views were rejected meanwhile. The
            session keeps the model that it had.
        """
        busy = f"The model of '{self.path}' is being learned by another process; wait until it is done."
        with locked(self.path, "training", busy="" if wait else busy):
            record = self._look()
            if wait and not learning_due(record):
                return
            if in_pilot(record):
                known, needed = len(record.state.views), record.settings.pilot
                raise InputError(f"{known} of {needed} pilot views are measured; tell the others before a model is learned.")
            _log.info("Learning from %d views (%s).", len(record.state.views), learning_due(record) or "as asked")
            found = self._builder.learn(record, anew=anew)
            with self._changing() as record:
                if not covers(record.state, found.learnt):
                    raise InputError("Projections that were learned from were rejected meanwhile; learn again without them.")
                self._write(self._planned(self._merged(record, found)))
                self._builder.tidy(self.record)

    def _merged(self, record: Record, found: LearnedModel) -> Record:
        """The session with what was learned, conditioned on all its views."""
        learnt = found.learnt
        record = replace(record, learnt=learnt)
        error = self._builder.designer(record).predicted_error
        return replace(record, state=learned(record.state, len(learnt.views), learnt.note, learnt.values, error))

    def _planned(self, record: Record) -> Record:
        """The session with its next angles, or why there are none; as it is if a model must be learned first."""
        if record.learnt is None and not in_pilot(record):
            return record
        try:
            return replace(record, plan=self._worked_out(record, None, np.zeros(0)), refusal="")
        except InputError as error:
            return replace(record, plan=None, refusal=str(error), exhausted=isinstance(error, BudgetExhausted))

    def _worked_out(self, record: Record, n: int | None, pending: NDArray[np.float64]) -> Suggestion:
        if not in_pilot(record):
            return self._builder.designer(record).ask(n or record.settings.batch, pending=pending)
        problem, state = self._builder.problem(record), record.state
        # Pilot views that are being measured are as good as measured.
        coming = problem.index(pending) if len(pending) else np.zeros(0, np.int64)
        state = replace(state, views=np.concatenate([state.views, coming]))
        if len(state.views) >= record.settings.pilot:
            raise InputError("All pilot views that were missing are being measured; tell their projections before you ask on.")
        return pilot_suggestion(problem, state, problem.free(record.state, taken=coming), record.settings.pilot)

    @contextmanager
    def _changing(self) -> Iterator[Record]:
        """Hold the session; gives what is in the file now."""
        with locked(self.path, "lock"):
            yield self._look()

    def _look(self) -> Record:
        """What is in the file now. Every write makes a new file, so that one that was seen before need not be read again."""
        seen = sessionfile.identity(self.path)
        if seen is None or seen != self._seen:
            self.record = sessionfile.read(self.path)
            self._seen = seen or ()
        return self.record

    def _write(self, record: Record) -> None:
        if record is not self.record:
            self.record = sessionfile.write(self.path, record)
            self._seen = sessionfile.identity(self.path) or ()
