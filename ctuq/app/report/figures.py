"""Pictures of a result: pure functions from a `Result` to a matplotlib `Figure`, axes in mm, never pyplot."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ctuq.scores.gaussian import Z95
from ctuq.tomo.geometry import VolumeGrid
from ctuq.uncertainty.results.image import Result

UNIT = "attenuation (1/mm)"
_GREY, SPREAD, _SIGNED = "gray", "inferno", "RdBu_r"
_NAMES = {"dip": "deep image prior", "fbp": "FBP", "sirt": "SIRT", "cgls": "CGLS", "tv": "TV"}


def method_name(method: str) -> str:
    """What a CT scientist calls the method."""
    return _NAMES.get(method, method)


def grey_window(result: Result) -> tuple[float, float]:
    """Black and white of every grey image of this result, 1/mm: the central 99 % of the mean (and of the truth)."""
    images = [result.mean] if result.truth is None else [result.mean, result.truth]
    low, high = np.percentile(np.concatenate([image.reshape(-1) for image in images]), [0.5, 99.5])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def draw_reconstructions(result: Result) -> Figure:
    """Mean, classical reconstructions and the truth where known, all in one grey window."""
    images = {method_name(result.method): result.mean}
    images |= {method_name(name): image for name, image in result.comparisons.items()}
    if result.truth is not None:
        images["truth"] = result.truth
    return _grey_images(images, result)


def draw_sinogram(result: Result) -> Figure:
    """The projections that were used; views held out of the fit are marked at the left edge."""
    return _rays(result, result.scan.projections, "line integral of attenuation (no unit)")


def draw_removed(result: Result) -> Figure:
    """What systematic errors have done to the projections, as it was taken out of them."""
    if result.removed is None:
        raise ValueError("Nothing was taken out of the projections of this result.")
    reach = float(np.abs(result.removed).max()) or 1.0
    return _rays(result, result.removed, "line integral taken out (no unit)", _SIGNED, (-reach, reach))


def _rays(
    result: Result, values: NDArray, label: str, colours: str = _GREY, window: tuple[float | None, float | None] = (None, None)
) -> Figure:
    geometry = result.scan.geometry
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    half = geometry.columns * geometry.pixel / 2
    edges = (geometry.detector_offset - half, geometry.detector_offset + half)
    place = {"aspect": "auto", "extent": (*edges, len(values) - 0.5, -0.5), "origin": "upper", "interpolation": "nearest"}
    image = axes.imshow(values, cmap=colours, vmin=window[0], vmax=window[1], **place)
    rows = np.unique(np.linspace(0, len(values) - 1, min(9, len(values))).round().astype(int))
    axes.set_yticks(rows, [f"{np.rad2deg(geometry.angles[row]):.4g}" for row in rows])
    axes.set(xlabel="position on the detector (mm)", ylabel="angle (°)")
    figure.colorbar(image, label=label)
    if result.calibration is not None:
        views = list(result.calibration.views)
        axes.plot([edges[0]] * len(views), views, ">", color="#dc2626", clip_on=False, label="held out of the fit")
        figure.legend(loc="outside upper right", fontsize=8, frameon=False)
    return figure


def draw_std(result: Result) -> Figure:
    """Standard deviation of each pixel; beside it, where that is less, without errors that no ray tells."""
    maps = {"": _std(result)}
    if result.std_rays is not None:
        maps = {f"with {' and '.join(result.effects)}": result.std, "of what rays tell": result.std_rays}
    window = (0.0, float(np.percentile(_std(result), 99.5)))
    figure, panels = _panels(len(maps), result.grid)
    for axes, (title, values) in zip(panels, maps.items(), strict=True):
        _show(axes, values, result.grid, SPREAD, window)
        axes.set_title(title)
    _colour_bar(panels, SPREAD, window, "standard deviation (1/mm)")
    return figure


def draw_error(result: Result) -> Figure:
    """|mean - truth| beside the standard deviation, in one colour scale."""
    if result.truth is None:
        raise ValueError("The error is drawn only where the truth is known.")
    error = np.abs(result.mean - result.truth)
    maps = {"|mean − truth|": error} | ({} if result.std is None else {"standard deviation": result.std})
    window = (0.0, max(float(np.percentile(values, 99.5)) for values in maps.values()))
    figure, panels = _panels(len(maps), result.grid)
    for axes, (title, values) in zip(panels, maps.items(), strict=True):
        _show(axes, values, result.grid, SPREAD, window)
        axes.set_title(title)
    _colour_bar(panels, SPREAD, window, "1/mm, one scale")
    return figure


def draw_intervals(result: Result) -> Figure:
    """Lower and upper end of each pixel's 95 % interval, in the grey window of the mean."""
    spread = Z95 * _std(result)
    images = {"lower 95 % limit": result.mean - spread, "mean": result.mean, "upper 95 % limit": result.mean + spread}
    return _grey_images(images, result)


def draw_samples(result: Result) -> Figure:
    """Three draws from the posterior, and what sets each apart from the mean."""
    if result.samples is None:
        raise ValueError("This result holds no samples.")
    draws = result.samples[:3]
    figure = Figure(figsize=(3.1 * len(draws) + 1.2, 6.2), layout="constrained")
    grid = np.atleast_2d(np.array(figure.subplots(2, len(draws), squeeze=False, sharex=True, sharey=True)))
    reach = float(np.percentile(np.abs(draws - result.mean), 99.5)) or 1.0
    for column, draw in enumerate(draws):
        _show(grid[0, column], draw, result.grid, _GREY, grey_window(result))
        grid[0, column].set_title(f"sample {column + 1}")
        _show(grid[1, column], draw - result.mean, result.grid, _SIGNED, (-reach, reach))
        grid[1, column].set_title(f"sample {column + 1} − mean")
    _colour_bar(list(grid[0]), _GREY, grey_window(result), UNIT)
    _colour_bar(list(grid[1]), _SIGNED, (-reach, reach), "difference (1/mm)")
    return figure


def draw_history(result: Result) -> Figure:
    """What the fit logged at each iteration."""
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    axes = figure.add_subplot()
    steps = np.asarray(result.history["iteration"])
    for name, label in (("loss", "rays of the fit"), ("held_out_loss", "rays held out")):
        values = np.asarray(result.history.get(name, ()))
        if values.size:
            axes.plot(steps[: len(values)], values, lw=1.1, label=label)
    axes.set(xlabel="iteration", ylabel="loss (mean squared misfit)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _std(result: Result) -> NDArray:
    if result.std is None:
        raise ValueError("This result was made without uncertainty.")
    return result.std


def _panels(count: int, grid: VolumeGrid) -> tuple[Figure, list[Axes]]:
    """``count`` panels in rows of at most three, as wide as the image asks."""
    columns = count if count <= 4 else 3
    rows = -(-count // columns)
    ratio = grid.shape[-2] / grid.shape[-1]
    width = 5.2 if count == 1 else 3.3
    figure = Figure(figsize=(width * columns + 1.0, (width * ratio + 0.5) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).reshape(-1)
    for spare in panels[count:]:
        spare.remove()
    return figure, list(panels[:count])


def _grey_images(images: dict[str, NDArray], result: Result) -> Figure:
    figure, panels = _panels(len(images), result.grid)
    for axes, (title, values) in zip(panels, images.items(), strict=True):
        _show(axes, values, result.grid, _GREY, grey_window(result))
        axes.set_title(title)
    _colour_bar(panels, _GREY, grey_window(result), UNIT)
    return figure


def _show(axes: Axes, values: NDArray, grid: VolumeGrid, colours: str, window: tuple[float, float]) -> None:
    place = {"extent": grid.extent, "origin": "upper", "interpolation": "nearest"}
    axes.imshow(values, cmap=colours, vmin=window[0], vmax=window[1], **place)
    axes.set(xlabel="x (mm)", ylabel="y (mm)")
    axes.label_outer()


def _colour_bar(panels: list[Axes], colours: str, window: tuple[float, float], label: str) -> None:
    """One bar for panels that share their colours; pointed where values may lie beyond."""
    extend = "max" if colours == SPREAD else "both"
    mappable = ScalarMappable(Normalize(*window), colours)
    panels[0].figure.colorbar(mappable, ax=panels, label=label, extend=extend, shrink=0.85)
