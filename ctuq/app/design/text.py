"""A session in words, for the terminal: angles in the scanner's degrees. Needs no torch."""

from collections.abc import Iterable

import numpy as np

from ctuq.design.session.file import Record
from ctuq.design.session.plan import learning_due
from ctuq.design.state import Decision, Suggestion


def angle_list(sense: int, angles: Iterable[float]) -> str:
    """Angles (radians) as a scanner counts them that turns in this sense, 1 or -1 for clockwise."""
    return ", ".join(f"{_degrees(sense, angle):.6g}°" for angle in angles) or "none"


def suggestion_lines(sense: int, suggestion: Suggestion) -> list[str]:
    """The next angles, what each gains and how that compares, and why to go on or stop."""
    lines = [f"Next: {angle_list(sense, suggestion.angles)}"]
    for angle, gain, scores in zip(suggestion.angles, suggestion.gains, suggestion.scores, strict=False):
        free = scores[suggestion.available]
        rest = f"{len(free)} angles are free: median {np.median(free):.4g}, best {free.max():.4g}"
        lines.append(f"{_degrees(sense, angle):>9.6g}°  predicted gain {gain:.4g} {suggestion.unit} ({rest})")
    return [*lines, _told(sense, suggestion.reason, suggestion.angles)]


def status_lines(record: Record) -> list[str]:
    """What was measured and learned, what it cost, what comes next."""
    state, settings, learnt = record.state, record.settings, record.learnt
    budget = "" if settings.budget is None else f" of {settings.budget:g}"
    measured = angle_list(record.sense, record.angles[state.views])
    lines = [
        f"Measured: {len(state.views)} of {len(record.angles)} candidate angles: {measured}",
        f"Dose spent: {state.spent:g}{budget}",
    ]
    if state.banned:
        lines.append(f"Failed for good: {angle_list(record.sense, record.angles[list(state.banned)])}")
    if learnt is None:
        lines.append(f"Model ({settings.prior}): not learned yet; {settings.pilot} pilot views come first.")
    else:
        lines.append(f"Model ({settings.prior}): learned from {len(learnt.views)} views; {learnt.note}.")
        lines.append(f"Predicted error: {_error(record)} (root mean square, 1/mm)")
    if reason := learning_due(record):
        lines.append(f"Learning is due ({reason}): ctuq design retrain")
    if record.refusal:
        lines.append(f"Next: none. {record.refusal}")
    elif record.plan is not None:
        lines += suggestion_lines(record.sense, record.plan)
    return lines


def log_lines(record: Record) -> list[str]:
    """Every decision, one line each."""
    return [_logged(record, number, entry) for number, entry in enumerate(record.state.log, 1)]


def _told(sense: int, sentence: str, angles: Iterable[float]) -> str:
    """A sentence about these angles, with their degrees as the scanner counts them."""
    if sense < 0:
        for angle in angles:
            sentence = sentence.replace(f"{np.rad2deg(angle):g} degrees", f"{_degrees(sense, angle):g} degrees")
    return sentence


def _logged(record: Record, number: int, entry: Decision) -> str:
    gains = ", ".join(f"{gain:.4g}" for gain in entry.gains)
    words = [f"{number:>4} {entry.kind:<6} dose {entry.spent:g}"]
    if len(entry.angles):
        words.append(angle_list(record.sense, entry.angles))
    if gains:
        words.append(f"gains {gains}")
    if entry.kind in ("reject", "learn", "budget") or entry.stop:
        words.append(_told(record.sense, entry.reason, entry.angles))
    return "; ".join(words)


def _error(record: Record) -> str:
    known = [entry.error for entry in record.state.log if np.isfinite(entry.error)]
    latest = record.plan.error if record.plan is not None and np.isfinite(record.plan.error) else known[-1] if known else np.nan
    return f"{latest:.4g}"


def _degrees(sense: int, angle: float) -> float:
    # Adding 0 makes the -0 of a clockwise scanner 0.
    return sense * float(np.round(np.rad2deg(angle), 9)) + 0.0
