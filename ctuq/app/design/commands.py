"""What each command of ``ctuq design`` does. What waits for torch is imported only where it is needed."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ctuq.app.arguments import ENOUGH, Command
from ctuq.app.design.options import Next, Retrain, Serve, Start, Status, Suggest, Tell
from ctuq.app.design.text import angle_list, facts_of, log_facts, log_lines, status_lines, suggestion_lines
from ctuq.app.progress import told_about
from ctuq.app.terminal import give, say, warn
from ctuq.app.trials.options import Compare, Simulate
from ctuq.design.session import file as sessionfile
from ctuq.design.session.file import Record, Settings
from ctuq.design.session.plan import learning_due, take_planned
from ctuq.design.state import Suggestion
from ctuq.errors import BudgetExhausted, InputError
from ctuq.locks import locked
from ctuq.records import write_whole

_PATIENCE = 2.0
_VOXELS = 16
"""Across a volume that a design is made on: seconds; 24 take minutes."""


def run_step(step: Command) -> int:
    """Do a step of ``ctuq design``; the exit code."""
    return _DOES[type(step)](step)


def _start(command: Start) -> int:
    """Make a session."""
    from ctuq.app.design.scanner import scanner
    from ctuq.app.typed import arcs, box, exposures
    from ctuq.design.session.session import Session

    geometry, intake = scanner(command.geometry, command.columns, command.candidates)
    turn = -1 if intake["clockwise"] else 1
    area = hasattr(geometry, "rows")
    settings = Settings(
        size=(_VOXELS if area else Settings.size) if command.size is None else command.size,
        criterion=command.criterion,
        prior=command.prior,
        retrain_every=_every(command.retrain_every),
        pilot=command.pilot,
        batch=command.batch,
        forbidden=() if command.forbid is None else arcs(command.forbid, intake["clockwise"]),
        budget=command.dose_budget,
        rotation_cost=float(np.rad2deg(command.rotation_cost)),
        endless=command.endless,
        stop_gain=command.stop_gain,
        stop_error=command.stop_error,
        roi=None if command.roi is None else box(command.roi),
        tolerance=float(np.deg2rad(command.tolerance)),
        network={} if command.iterations is None else {"dip": {"iterations": command.iterations}},
    )
    doses = None if command.exposures is None else exposures(command.exposures, turn * np.rad2deg(geometry.angles))
    with told_about(command.debug):
        session = Session.start(command.session, geometry, settings, doses=doses, intake=intake)
    plan = session.record.plan
    assert plan is not None
    give(session=facts_of(session.record))
    views = len(geometry.angles)
    say(f"{command.session}: {views} candidate angles, {views - int(plan.available.sum())} of them forbidden.")
    say(f"Next: ctuq design suggest {command.session}")
    return 0


def _suggest(command: Suggest) -> int:
    """Print the next angles, or tell that the dose is spent."""
    try:
        suggestion, record = _suggested(command)
    except BudgetExhausted:
        give(session=facts_of(sessionfile.read(command.session)))
        raise
    give(suggestion=suggestion.to_dict(record.sense), session=facts_of(record))
    say("\n".join(suggestion_lines(record.sense, suggestion)))
    return ENOUGH if suggestion.stop else 0


def _suggested(command: Suggest) -> tuple[Suggestion, Record]:
    """The next angles, at once where they were worked out ahead, and the session with them in its log."""
    found = _at_once(command.session, command.n) if command.pending is None else None
    if found is not None:
        return found
    from ctuq.app.typed import degrees
    from ctuq.design.session.session import Session

    session = Session(command.session)
    waiting = () if command.pending is None else degrees(command.pending, "--pending")
    with _working(command.debug):
        suggestion = session.ask(command.n, pending=session.record.sense * np.deg2rad(waiting))
    return suggestion, session.record


def _tell(command: Tell) -> int:
    """Take projections in or back."""
    from ctuq.app.typed import degrees
    from ctuq.design.measurements import failed_exposures
    from ctuq.design.session.problem import candidates_at
    from ctuq.design.session.scanner import beam_of
    from ctuq.design.session.session import Session
    from ctuq.files.views import new_views
    from ctuq.files.volume_views import new_volume_views
    from ctuq.tomo.geometry import FanBeam, ParallelBeam, radians

    if bool(command.projections) + (command.reject is not None) + (command.dose_budget is not None) != 1:
        raise InputError("Name a file of new projections, or angles to --reject, or a --dose-budget; one after the other.")
    session = Session(command.session)
    record = session.record
    if command.dose_budget is not None:
        with _working(command.debug):
            session.allow(command.dose_budget)
    elif command.reject is not None:
        bad = record.sense * np.deg2rad(degrees(command.reject, "--reject"))
        with _working(command.debug):
            session.reject(bad, command.because or "", retry=not command.final, learning=command.retrain)
        say(f"Rejected: {angle_list(record.sense, bad)}")
        # What it adds to the dose tells which of them were never told, or asked for.
        counted = session.state.spent - record.state.spent
        if counted > 0:
            known = np.isin(candidates_at(record, bad), record.angles[record.state.views])
            say(failed_exposures(int((~known).sum()), counted))
    else:
        typed = None if command.angles is None else record.sense * radians(degrees(command.angles, "--angles"))
        known = beam_of(record.geometry)
        if isinstance(known, ParallelBeam | FanBeam):
            new = new_views(command.projections, known, record.intake, geometry=command.geometry, angles=typed)
        else:
            new = new_volume_views(command.projections, known, record.intake, geometry=command.geometry, angles=typed)
        with _working(command.debug):
            taken = {"unit": new.unit, "learning": command.retrain, "anyway": command.anyway}
            session.tell(new.angles, new.projections, new.weights, **taken)
        warn((*new.warnings, *session.doubts()))
        say(f"Taken in: {angle_list(record.sense, new.angles)}")
    _print_state(session.record, command.session)
    return 0


def _status(command: Status) -> int:
    """Print where a session stands, and draw its angles on request."""
    record = sessionfile.read(command.session)
    give(session=facts_of(record), log=log_facts(record))
    say("\n".join([*status_lines(record), "", "Log:", *log_lines(record)]))
    if command.draw is not None:
        from ctuq.app.design.figures import draw_session
        from ctuq.app.png import drawn

        data = drawn(draw_session, record, dpi=150)
        write_whole(command.draw, lambda target: target.write(data))
        say(f"Drawn: {command.draw}")
    return 0


def _retrain(command: Retrain) -> int:
    """Learn the model again."""
    from ctuq.design.session.session import Session

    session = Session(command.session)
    with _working(command.debug):
        session.learn(anew=True)
    say(session.record.state.log[-1].reason)
    _print_state(session.record, command.session)
    return 0


def _at_once(path: Path, n: int | None) -> tuple[Suggestion, Record] | None:
    """The next angles if the session's file holds them; they are noted in its log."""
    if n is not None and n < 1:
        raise InputError(f"At least one angle must be asked for, got {n}.")
    if not path.is_file():
        raise InputError(f"There is no file '{path}'; check the name, or begin with ctuq design start.")
    path = sessionfile.behind(path)
    with locked(path, "lock"):
        found = take_planned(sessionfile.read(path), n)
        if found is not None:
            found = found[0], sessionfile.write(path, found[1])
    return found


def _print_state(record: Record, path: Path) -> None:
    give(session=facts_of(record))
    budget = "" if record.settings.budget is None else f" of {record.settings.budget:g}"
    say(f"{len(record.state.views)} views are measured, dose {record.state.spent:g}{budget} is spent.")
    if reason := learning_due(record):
        say(f"Learning is due ({reason}): ctuq design retrain {path}")
    if record.refusal:
        say(record.refusal)
    else:
        say(f"Next: ctuq design suggest {path}")


def _every(text: str) -> int:
    if text == "never":
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--retrain-every takes a whole number of views or 'never', not {text!r}.")
    return int(text)


@contextmanager
def _working(debug: bool) -> Iterator[None]:
    """Show ctuq's own messages, and on a terminal a clock; an interruption says that nothing is lost."""
    done = threading.Event()
    clock = threading.Thread(target=_show_clock, args=(done,), daemon=True)
    clock.start()
    try:
        with told_about(debug):
            yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted; what was told is kept, and 'ctuq design retrain' learns from it.") from None
    finally:
        done.set()
        clock.join()


def _show_clock(done: threading.Event) -> None:
    """How long it has taken so far, from two seconds on."""
    if not sys.stderr.isatty() or done.wait(_PATIENCE):
        return
    with tqdm(bar_format="working: {elapsed}", initial=0, leave=False) as bar:
        bar.start_t -= _PATIENCE
        while not done.wait(1.0):
            bar.refresh()


def _next(command: Next) -> int:
    """Print the next angles of a volume's scan."""
    from ctuq.app.design.volumes import print_next

    with _working(command.debug):
        lines = print_next(command)
    say("\n".join(lines))
    return 0


def _serve(command: Serve) -> int:
    """Answer a scanner's control program until it is interrupted."""
    from ctuq.app.design.serve import serve

    with told_about(command.debug):
        return serve(command)


def _simulate(command: Simulate) -> int:
    from ctuq.app.trials.commands import simulate

    return simulate(command)


def _compare(command: Compare) -> int:
    from ctuq.app.trials.commands import compare

    return compare(command)


_DOES: dict[type[Command], Callable[[Any], int]] = {
    Start: _start,
    Suggest: _suggest,
    Tell: _tell,
    Status: _status,
    Retrain: _retrain,
    Next: _next,
    Serve: _serve,
    Simulate: _simulate,
    Compare: _compare,
}
