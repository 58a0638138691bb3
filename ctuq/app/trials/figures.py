"""Pictures of trials: quality against the number of angles, angles saved, and which angles were chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ctuq.design.trials.compare import Curves, Saving, difference
from ctuq.design.trials.trial import Trial

_PLAIN = {
    "equidistant": ("#111827", "-"),
    "half turn": ("#6b7280", "-"),
    "nested": ("#6b7280", "--"),
    "golden": ("#a16207", "--"),
    "random": ("#9ca3af", ":"),
}
_COLOURS = ("#1d4ed8", "#dc2626", "#059669", "#9333ea", "#ea580c", "#0891b2", "#be185d", "#4d7c0f")
_COLUMNS = 4
_LABELS = {"truth": "PSNR", "unseen": "SNR of unseen views"}


def _quality_label(quality: str) -> str:
    """A quality of a trial as an axis says it."""
    method, against = quality.split(" ", 1)
    return f"{_LABELS.get(against, against)}, {method.upper()} reconstruction (dB)"


def draw_comparison(found: Curves, baseline: str, savings: Mapping[str, Mapping[str, Saving]]) -> Figure:
    """Mean quality, paired difference to a baseline, and angles saved against each baseline of ``savings``.

    Parameters
    ----------
    found : Curves
    baseline : str
    savings : mapping of baseline to strategy to `Saving`

    Returns
    -------
    Figure
        Bands hold the mean of an adaptive strategy over subjects with 95 %; with one subject there are none.
    """
    columns = 2 + len(savings)
    figure = Figure(figsize=(4.4 * columns, 4.6), layout="constrained")
    panels = list(np.atleast_1d(np.array(figure.subplots(1, columns))))
    styles = _styles(found)
    for name, values in found.values.items():
        panels[0].plot(found.counts, np.nanmean(values, 0), color=styles[name][0], ls=styles[name][1], lw=1.4, label=name)
        if name != baseline:
            gap = difference(found, name, baseline)
            half = scipy.stats.t.ppf(0.975, max(1, gap.subjects - 1)) * gap.error
            ends = (gap.mean - half, gap.mean + half)
            _line(panels[1], found.counts, gap.mean, ends, style=styles[name], band=name not in _PLAIN)
    panels[0].set(ylabel=_quality_label(found.quality), title=_mean_of(found))
    panels[1].set(ylabel="difference (dB)", title=f"minus {baseline}, pair by pair", ylim=_difference_limits(found, baseline))
    for axes, (against, of_strategies) in zip(panels[2:], savings.items(), strict=True):
        for name, saved in of_strategies.items():
            _line(axes, saved.counts, saved.percent, saved.interval, style=styles[name], band=name not in _PLAIN)
        axes.set(ylabel="angles saved (%)", title=f"for the error of {against}", ylim=_saving_limits(of_strategies))
    for axes in panels:
        axes.set_xlabel("angles measured" if axes in panels[:2] else "angles of the baseline")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes is not panels[0]:
            axes.axhline(0, color="#111827", lw=0.8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def draw_angles(trials: Sequence[Trial]) -> Figure:
    """The angles that each trial took, one polar plot each: pilot views grey, the others from dark to light as they came.

    Parameters
    ----------
    trials : sequence of Trial
        Of one subject.
    """
    rows = -(-len(trials) // _COLUMNS)
    half = bool(np.ptp(trials[0].angles) < np.pi + 1e-6)
    figure = Figure(figsize=(3.1 * _COLUMNS, (2.3 if half else 3.3) * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, subplot_kw={"projection": "polar"}).reshape(-1)
    for axes in panels[len(trials) :]:
        axes.remove()
    for axes, trial in zip(panels, trials, strict=False):
        _spokes(axes, trial, half)
    figure.suptitle(f"{trials[0].subject}: {int(trials[0].counts[-1])} angles (°), the pilot's grey, later ones lighter")
    return figure


def _spokes(axes: PolarAxes, trial: Trial, half: bool) -> None:
    taken, pilot = trial.taken(int(trial.counts[-1])), int(trial.counts[0])
    grown = all(np.array_equal(trial.taken(int(n)), taken[:n]) for n in trial.counts)
    order = np.clip((np.arange(len(taken)) - pilot) / max(1, len(taken) - pilot), 0, 1) * grown
    for i, (angle, place) in enumerate(zip(taken, order, strict=True)):
        colour = "#9ca3af" if grown and i < pilot else _shade(place)
        axes.plot([angle, angle], [0.25, 1], color=colour, lw=1.3, solid_capstyle="butt")
    axes.set(ylim=(0, 1), yticks=[])
    if half:
        axes.set_thetamin(0)
        axes.set_thetamax(180)
    axes.set_title(trial.strategy, fontsize=10)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _shade(place: float) -> tuple[float, float, float]:
    """Dark blue to light orange."""
    start, stop = np.array([0.10, 0.15, 0.55]), np.array([0.98, 0.62, 0.20])
    red, green, blue = start + place * (stop - start)
    return float(red), float(green), float(blue)


def _styles(found: Curves) -> dict[str, tuple[str, str]]:
    adaptive = [name for name in found.values if name not in _PLAIN]
    return {**_PLAIN, **{name: (_COLOURS[i % len(_COLOURS)], "-") for i, name in enumerate(adaptive)}}


def _line(
    axes: Axes, counts: NDArray, values: NDArray, ends: tuple[NDArray, NDArray], *, style: tuple[str, str], band: bool
) -> None:
    """One strategy; only adaptive ones get a band, or none could be told from another."""
    axes.plot(counts, np.where(np.isfinite(values), values, np.nan), color=style[0], ls=style[1], lw=1.4)
    low, high = ends
    if band and np.isfinite(high).any():
        # What the bootstrap never reaches lies below every axis.
        axes.fill_between(counts, np.where(np.isneginf(low), -1e3, low), high, color=style[0], alpha=0.12, lw=0)


def _difference_limits(found: Curves, baseline: str) -> tuple[float, float]:
    """Around every mean with its standard error: the bands of two or three images would hide the lines."""
    gaps = [difference(found, name, baseline) for name in found.values]
    reach = max(float((np.abs(gap.mean) + np.nan_to_num(gap.error)).max()) for gap in gaps)
    return -1.1 * reach - 0.1, 1.1 * reach + 0.1


def _saving_limits(savings: Mapping[str, Saving]) -> tuple[float, float]:
    ends = np.concatenate([np.concatenate([s.percent, *s.interval]) for s in savings.values()])
    known = ends[np.isfinite(ends)]
    if not known.size:
        return -50.0, 50.0
    return max(-100.0, float(known.min()) - 5), min(100.0, float(known.max()) + 5)


def _mean_of(found: Curves) -> str:
    n = len(found.subjects)
    return f"mean of {n} subjects" if n > 1 else found.subjects[0]
