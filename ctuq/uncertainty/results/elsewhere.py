"""Results in the words of other programs: napari's layers, xarray's datasets."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctuq.errors import BackendError
from ctuq.tomo.geometry import VolumeGrid

LayerData = tuple[NDArray, dict[str, Any], str]
_COLOURS = {"mean": "gray", "std": "inferno", "samples": "gray", "truth": "gray"}
_UNIT = "1/mm"


def axes_of(grid: VolumeGrid, pitches: tuple[float, ...]) -> dict[str, NDArray[np.float64]]:
    """Positions of the voxels' centres in mm by axis, in the order of the arrays; y falls with the row."""
    names, centre = "zyx"[-len(grid.shape) :], grid.centre[::-1]
    places = {
        name: np.asarray(middle + (np.arange(n) - (n - 1) / 2) * pitch, np.float64)
        for name, n, middle, pitch in zip(names, grid.shape, centre, pitches, strict=True)
    }
    return places | {"y": places["y"][::-1]}


def as_layers(images: dict[str, NDArray], axes: dict[str, NDArray[np.float64]], about: dict[str, Any]) -> list[LayerData]:
    """Layer data tuples, (array, settings, "image"), of images on these axes; further axes come in front.

    Parameters
    ----------
    images : dict of str to array
    axes : dict of str to array
        From `axes_of`. napari counts downwards, so that its y is minus ours.
    about : dict
        Metadata of every layer.
    """
    steps = [abs(float(places[1] - places[0])) if len(places) > 1 else 1.0 for places in axes.values()]
    starts = [-float(places[0]) if name == "y" else float(places[0]) for name, places in axes.items()]
    layers = []
    for name, values in images.items():
        data, more = np.asarray(values), np.ndim(values) - len(axes)
        finite = data[np.isfinite(data)]
        window = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        settings = {
            "name": name,
            "scale": (*[1.0] * more, *steps),
            "translate": (*[0.0] * more, *starts),
            "colormap": _COLOURS.get(name, "gray"),
            "contrast_limits": window if window[0] < window[1] else (window[0] - 0.5, window[0] + 0.5),
            "metadata": {**about, "units": _UNIT},
        }
        # Of the mean first, and the rest hidden under it until they are asked for.
        layers.append((data, {**settings, "visible": name == "mean"}, "image"))
    return layers


def as_dataset(images: dict[str, NDArray], axes: dict[str, NDArray[np.float64]], about: dict[str, Any]) -> Any:
    """An ``xarray.Dataset`` of images on these axes, samples along "sample".

    Raises
    ------
    BackendError
        If xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise BackendError("xarray is not installed; install it: pip install xarray.") from error
    known = {"units": _UNIT}
    variables = {
        name: (("sample", *axes) if np.ndim(values) > len(axes) else tuple(axes), np.asarray(values), known)
        for name, values in images.items()
    }
    places = {name: ((name,), values, {"units": "mm"}) for name, values in axes.items()}
    return xarray.Dataset(variables, places, {name: value for name, value in about.items() if value is not None})
