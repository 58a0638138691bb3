"""Pictures of how well the rays of held-out views were predicted."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ctuq.scores.gaussian import Z95, calibration_curve
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result

_RAW, _CALIBRATED, _MEASURED = "#9ca3af", "#1d4ed8", "#111827"
_MOST_VIEWS = 4


def draw_coverage(result: Result) -> Figure:
    """Empirical against nominal coverage of held-out rays, raw and calibrated."""
    measured, predicted, raw, calibrated = _calibration(result).predictions
    nominal, marks = np.linspace(0.02, 0.99, 98), np.array([0.68, 0.95])
    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], ls=":", color=_MEASURED, label="ideal")
    for name, std, colour in (("raw", raw, _RAW), ("calibrated", calibrated, _CALIBRATED)):
        covered, marked = (100 * calibration_curve(measured - predicted, std**2, levels) for levels in (nominal, marks))
        axes.plot(100 * nominal, covered, color=colour, lw=2, label=name)
        axes.plot(100 * marks, marked, "o", color=colour)
    axes.set(xlabel="probability of the interval (%)", ylabel="held-out rays inside it (%)", xlim=(0, 100), ylim=(0, 100))
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def draw_held_out(result: Result) -> Figure:
    """Measured and predicted rays of some held-out views, and their difference with 95 % bands, raw and calibrated."""
    calibration, geometry = _calibration(result), result.scan.geometry
    views = calibration.views[:_MOST_VIEWS]
    position = geometry.positions()
    figure = Figure(figsize=(10.4, 2.3 * len(views) + 0.7), layout="constrained")
    panels = figure.subplots(len(views), 2, squeeze=False, sharex=True, sharey="col")
    for k, (row, view) in enumerate(zip(panels, views, strict=True)):
        _draw_rays(row[0], position, calibration.predictions[:, k])
        _draw_misses(row[1], position, calibration.predictions[:, k])
        row[0].set(ylabel="line integral", title=f"view {view} at {np.rad2deg(geometry.angles[view]):.4g}°")
        row[1].set(ylabel="measured − predicted", title=f"view {view}: difference")
    for axes in panels[-1]:
        axes.set_xlabel("position on the detector (mm)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    more, names = panels[0, 1].get_legend_handles_labels()
    figure.legend(handles + more, labels + names, loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    return figure


def _draw_rays(axes: Axes, position: NDArray, rays: NDArray) -> None:
    axes.plot(position, rays[1], color=_CALIBRATED, lw=1, label="predicted")
    axes.plot(position, rays[0], ".", color=_MEASURED, ms=2.5, label="measured")
    axes.grid(alpha=0.3)


def _draw_misses(axes: Axes, position: NDArray, rays: NDArray) -> None:
    measured, predicted, raw, calibrated = rays
    band = Z95 * calibrated
    axes.fill_between(position, -band, band, color=_CALIBRATED, alpha=0.22, lw=0, label="95 % band, calibrated")
    for sign, name in ((-1, "95 % band, raw"), (1, None)):
        axes.plot(position, sign * Z95 * raw, "--", color=_RAW, lw=1.2, label=name)
    axes.plot(position, measured - predicted, ".", color=_MEASURED, ms=2.5)
    axes.grid(alpha=0.3)


def _calibration(result: Result) -> Calibration:
    if result.calibration is None:
        raise ValueError("This result held no views out.")
    return result.calibration
