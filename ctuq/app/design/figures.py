"""The angles of a session in one polar picture: measured, next, forbidden, and what each candidate would gain."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from numpy.typing import NDArray

from ctuq.design.session.file import Record
from ctuq.design.session.plan import in_pilot
from ctuq.design.state import Suggestion

_PILOT, _CHOSEN, _NEXT, _SCORE, _FORBIDDEN, _BAD = "#6b7280", "#1d4ed8", "#c2410c", "#047857", "#e5e7eb", "#b91c1c"
_RING, _LABELS, _EDGE = 1.06, 1.16, 1.28
_MOST_LABELS = 60


def draw_session(record: Record) -> Figure:
    """Measured angles numbered in their order, the next ones, forbidden arcs, and the score of every candidate.

    Parameters
    ----------
    record : Record

    Returns
    -------
    Figure
        Angles in the scanner's degrees and sense; scores relative to the best.
    """
    angles = record.sense * record.angles
    half = bool(angles.min() > -1e-6 and angles.max() < np.pi + 1e-6)
    figure = Figure(figsize=(7.2, 4.9 if half else 8.0))
    # A half disc is drawn in the middle of the box of a whole one, which is therefore let out of the picture.
    axes = figure.add_axes((0.08, -0.1, 0.84, 1.234) if half else (0.1, 0.14, 0.8, 0.72), projection="polar")
    assert isinstance(axes, PolarAxes)
    _draw_candidates(axes, record, angles)
    _draw_measured(axes, record, angles)
    plan = record.plan
    if plan is not None:
        axes.plot(
            angles[plan.views], np.full(len(plan.views), _RING), "*", ms=13, color=_NEXT, label="next", zorder=5, clip_on=False
        )
        for angle in angles[plan.views]:
            axes.plot([angle, angle], [0, _RING], color=_NEXT, lw=1.2, ls="--", zorder=4)
    axes.set(ylim=(0, _EDGE), yticks=[])
    if half:
        axes.set_thetamin(0)
        axes.set_thetamax(180)
    axes.set_theta_direction("clockwise" if record.sense < 0 else "counterclockwise")
    axes.grid(alpha=0.25)
    figure.suptitle(_title(record), fontsize=11)
    figure.legend(loc="lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def draw_scores(angles: NDArray[np.float64], suggestion: Suggestion, measured: NDArray[np.float64]) -> Figure:
    """Measured and suggested angles, and the score of every candidate, without a session.

    Parameters
    ----------
    angles : array, radians, shape (V,)
        Of all views, to which the suggestion's scores belong.
    suggestion : Suggestion
    measured : array, radians

    Returns
    -------
    Figure
        Scores relative to the best.
    """
    figure = Figure(figsize=(7.2, 8.0))
    axes = figure.add_axes((0.1, 0.14, 0.8, 0.72), projection="polar")
    assert isinstance(axes, PolarAxes)
    free = suggestion.available
    _draw_curve(axes, angles[free], suggestion.scores[0][free], suggestion.unit)
    for chosen, colour, mark, name in ((measured, _PILOT, "o", "measured"), (suggestion.angles, _NEXT, "*", "next")):
        axes.plot(chosen, np.full(len(chosen), _RING), mark, ms=9, color=colour, label=name, zorder=4, clip_on=False)
        axes.vlines(chosen, 0, _RING, color=colour, lw=1.0, ls="--" if mark == "*" else "-", alpha=0.7)
    axes.set(ylim=(0, _EDGE), yticks=[])
    axes.grid(alpha=0.25)
    figure.suptitle(f"{len(measured)} views measured; angles in degrees", fontsize=11)
    figure.legend(loc="lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _draw_candidates(axes: PolarAxes, record: Record, angles: NDArray[np.float64]) -> None:
    ticks = np.stack([np.full(len(angles), _RING - 0.02), np.full(len(angles), _RING + 0.02), np.full(len(angles), np.nan)])
    axes.plot(np.repeat(angles, 3), ticks.T.ravel(), color="#9ca3af", lw=0.8, label=f"{len(angles)} candidates")
    wedge = {"color": _FORBIDDEN, "hatch": "//", "ec": "#9ca3af", "lw": 0}
    for number, arc in enumerate(record.settings.forbidden):
        start, stop = sorted(record.sense * end for end in arc)
        axes.bar((start + stop) / 2, _RING, stop - start, label="" if number else "forbidden", **wedge)
    if record.plan is None or not len(record.plan.scores):
        return
    _draw_curve(axes, angles, record.plan.scores[0], record.plan.unit, record.plan.available)


def _draw_curve(
    axes: PolarAxes, angles: NDArray[np.float64], scores: NDArray, unit: str, available: NDArray[np.bool_] | None = None
) -> None:
    """Scores over the best that is available."""
    scores, order = np.clip(scores, 0, None), np.argsort(angles)
    best = float(scores.max() if available is None else scores[available].max())
    curve = np.minimum(scores / best if best > 0 else scores, 1.0)
    step = float(np.median(np.diff(angles[order]))) if len(angles) > 1 else 1.0
    label = f"score / {best:.3g} {unit}"
    if angles[order[0]] + 2 * np.pi - angles[order[-1]] <= 1.5 * step:
        angles, curve = np.append(angles, angles[order[0]] + 2 * np.pi), np.append(curve, curve[order[0]])
        order = np.append(order, len(angles) - 1)
    # Gaps in the candidates are gaps in the curve.
    for part in np.split(order, np.flatnonzero(np.diff(angles[order]) > 1.5 * step) + 1):
        axes.plot(angles[part], curve[part], color=_SCORE, lw=1.4, label=label, zorder=3)
        axes.fill_between(angles[part], 0, curve[part], color=_SCORE, alpha=0.12, lw=0)
        label = ""


def _draw_measured(axes: PolarAxes, record: Record, angles: NDArray[np.float64]) -> None:
    views = record.state.views
    asked = {round(float(a), 9) for entry in record.state.log if entry.kind == "ask" for a in entry.angles}
    chosen = np.array([round(float(a), 9) in asked for a in record.angles[views]], bool)
    for mask, colour, name in ((~chosen, _PILOT, "measured, pilot or by hand"), (chosen, _CHOSEN, "measured, as suggested")):
        if not mask.any():
            continue
        axes.plot(angles[views[mask]], np.full(mask.sum(), _RING), "o", ms=6, color=colour, label=name, zorder=4, clip_on=False)
        for angle in angles[views[mask]]:
            axes.plot([angle, angle], [0, _RING], color=colour, lw=0.9, alpha=0.6, zorder=2)
    _draw_rejected(axes, record)
    if len(views) <= _MOST_LABELS:
        for number, (angle, is_chosen) in enumerate(zip(angles[views], chosen, strict=True), 1):
            axes.text(angle, _LABELS, str(number), ha="center", va="center", fontsize=7, color=_CHOSEN if is_chosen else _PILOT)


def _draw_rejected(axes: PolarAxes, record: Record) -> None:
    """Angles whose projections were rejected, and are not measured again."""
    told = [entry.angles for entry in record.state.log if entry.kind == "reject"]
    rejected = np.unique(np.concatenate([np.zeros(0), *told, record.angles[list(record.state.banned)]]))
    again = record.angles[record.state.views]
    left = rejected[~np.isclose(rejected[:, None], again, atol=1e-9).any(axis=1)]
    if len(left):
        at = record.sense * left
        axes.plot(at, np.full(len(at), _RING), "x", ms=9, mew=2, color=_BAD, label="rejected", zorder=6, clip_on=False)


def _title(record: Record) -> str:
    budget = "" if record.settings.budget is None else f" of {record.settings.budget:g}"
    stage = "pilot views first" if in_pilot(record) else f"criterion {record.settings.criterion}"
    return f"{len(record.state.views)} views measured, dose {record.state.spent:g}{budget}; {stage}; angles in degrees"
