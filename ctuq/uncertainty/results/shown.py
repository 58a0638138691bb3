"""A result, of an image or a volume, in a line, a table and a picture: for modules do not import one another in a circle."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctuq.pictures import Panel, as_html, figure_of, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OBJECT = 0.5


class Shown:
    """A result that says in a line what it is, and shows a notebook a table with picture."""

    def __repr__(self) -> str:
        return in_words(f"ctuq.{type(self).__name__}", _rows_of(self))

    def _repr_html_(self) -> str:
        return as_html(f"ctuq.{type(self).__name__}", _rows_of(self), self.plot())

    def plot(self) -> "Figure":
        """Mean and standard deviation, of a volume its middle slice, as a matplotlib figure: ``.savefig(path)`` keeps it."""
        return _plot_result(self)


def _rows_of(result: Any) -> list[tuple[str, str]]:
    """Names and phrases: size, method, how sure it is, how that was checked, and warnings."""
    sizes, views = " x ".join(str(n) for n in reversed(result.grid.shape)), _views(result)
    what = "pixels" if len(result.grid.shape) == 2 else "voxels"
    rows = [("image", f"{sizes} {what} of {result.grid.voxel:.3g} mm"), ("made by", f"{result.method} from {views} views")]
    if result.std is not None:
        rows.append(("uncertainty", _spread(_middle(result.mean), _middle(result.std))))
        rows.append(("checked", _checked(result)))
    if result.warnings:
        rows.append(("warnings", f"{len(result.warnings)} warning{'s' * (len(result.warnings) != 1)}"))
    return rows


def _plot_result(result: Any) -> "Figure":
    """Mean and, where there is one, standard deviation; of a volume its middle slice."""
    title = "" if len(result.grid.shape) == 2 else f" of slice {result.grid.shape[0] // 2}"
    axes, extent = ("x (mm)", "y (mm)"), result.grid.extent
    panels = {f"mean{title}": Panel(_middle(result.mean), "gray", extent, axes, "attenuation (1/mm)")}
    if result.std is not None:
        panels[f"standard deviation{title}"] = Panel(_middle(result.std), "inferno", extent, axes, "1/mm")
    return figure_of(panels)


def _middle(values: Any) -> NDArray:
    """An image, or the middle slice of a volume, which may lie in a file."""
    return np.asarray(values if len(values.shape) == 2 else values[values.shape[0] // 2])


def _views(result: Any) -> int:
    geometry = result.scan.geometry if hasattr(result, "scan") else result.geometry
    return len(geometry.angles)


def _spread(mean: NDArray, std: NDArray) -> str:
    inside = (mean > _OBJECT * np.nanpercentile(mean, 99)) & np.isfinite(std)
    if not inside.any():
        return f"std {np.nanmedian(std):.2g} 1/mm" if np.isfinite(std).any() else "no std in the middle slice"
    typical, level = float(np.median(std[inside])), float(np.median(mean[inside]))
    return f"{level:.3g} ± {typical:.2g} 1/mm inside the object"


def _checked(result: Any) -> str:
    found = result.calibration
    if found is None:
        return "not calibrated: no view was held out"
    count = len(found.views)
    return f"on {count} held-out view{'s' * (count != 1)}, rms z {found.calibrated['rms_z']:.2f}"
