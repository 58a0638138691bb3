"""A session in words, for the terminal: angles in the scanner's degrees. Needs no torch."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ctuq.design.session.file import Record
from ctuq.design.session.plan import learning_due
from ctuq.design.state import Decision, Suggestion, degrees_of, reworded


def angle_list(sense: int, angles: Iterable[float]) -> str:
    """Angles (radians) as a scanner counts them that turns in this sense, 1 or -1 for clockwise."""
    return ", ".join(f"{_degrees(sense, angle):.6g}°" for angle in angles) or "none"


def suggestion_lines(sense: int, suggestion: Suggestion) -> list[str]:
    """The next angles, what each gains and how that compares, and why to go on or stop."""
    lines = [f"Next: {angle_list(sense, suggestion.angles)}"]
    picks = zip(suggestion.angles, suggestion.gains, suggestion.scores, strict=False)
    for pick, (angle, gain, scores) in enumerate(picks):
        free = scores[suggestion.free_at(pick)]
        rest = f"{len(free)} angles are free: median {np.median(free):.4g}, best {free.max():.4g}"
        lines.append(f"{_degrees(sense, angle):>9.6g}°  predicted gain {gain:.4g} {suggestion.unit} ({rest})")
    return [*lines, reworded(suggestion.reason, suggestion.angles, sense)]


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
        lines.append(f"Predicted error: {_latest_error(record):.4g} (root mean square, 1/mm)")
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


def _logged(record: Record, number: int, entry: Decision) -> str:
    gains = ", ".join(f"{gain:.4g}" for gain in entry.gains)
    words = [f"{number:>4} {entry.time or 'now':<25} {entry.kind:<6} dose {entry.spent:g}"]
    if len(entry.angles):
        words.append(angle_list(record.sense, entry.angles))
    if gains:
        words.append(f"gains {gains}")
    if entry.kind in ("reject", "learn", "budget") or entry.stop:
        words.append(reworded(entry.reason, entry.angles, record.sense))
    return "; ".join(words)


def _latest_error(record: Record) -> float:
    known = [entry.error for entry in record.state.log if np.isfinite(entry.error)]
    return record.plan.error if record.plan is not None and np.isfinite(record.plan.error) else known[-1] if known else np.nan


def facts_of(record: Record) -> dict[str, Any]:
    """A session as facts for ``--json`` and for whoever asks its server; angles in the scanner's degrees."""
    state, settings, learnt, sense = record.state, record.settings, record.learnt, record.sense
    return {
        "measured_deg": degrees_of(record.angles[state.views], sense),
        "failed_deg": degrees_of(record.angles[list(state.banned)], sense),
        "candidates": len(record.angles),
        "pilot": settings.pilot,
        "dose": state.spent,
        "budget": settings.budget,
        "predicted_error": _latest_error(record),
        "model": None if learnt is None else {"prior": settings.prior, "views": len(learnt.views), "note": learnt.note},
        "learning_due": learning_due(record) or None,
        "next": None if record.plan is None else record.plan.to_dict(sense),
        "refusal": record.refusal or None,
        "budget_spent": bool(record.refusal) and record.exhausted,
    }


def log_facts(record: Record) -> list[dict[str, Any]]:
    """Every decision with its time."""
    return [
        {
            "time": entry.time,
            "kind": entry.kind,
            "angles_deg": degrees_of(entry.angles, record.sense),
            "gains": entry.gains,
            "predicted_error": entry.error,
            "dose": entry.spent,
            "stop": entry.stop,
            "reason": reworded(entry.reason, entry.angles, record.sense),
        }
        for entry in record.state.log
    ]


def _degrees(sense: int, angle: float) -> float:
    return float(degrees_of(angle, sense))
