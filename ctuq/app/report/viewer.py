"""The image data that the report's viewer reads: compact integers in base64, with their scale."""

import base64

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from ctuq.app.report.figures import grey_window
from ctuq.uncertainty.result import Result

_MOST_PIXELS_ACROSS = 512
_MOST_SAMPLES = 24
_SAMPLE_BYTES = 1_200_000


def viewer_data(result: Result) -> dict:
    """Everything the viewer's script needs, ready for JSON.

    Images wider than 512 pixels are averaged over blocks (std as root mean square), and the viewer says so.

    Returns
    -------
    dict
        "shape" (y, x), "block", "extent" (left, right, bottom, top in mm), "window" (1/mm), "layers" by name (uint16),
        "samples" (uint8) and "colours" (256 RGB triples); each array as {"data", "low", "step"}.
    """
    block = -(-max(result.mean.shape) // _MOST_PIXELS_ACROSS)
    mean = _blocks(result.mean, block)
    layers = {"mean": mean}
    if result.std is not None:
        layers["std"] = np.sqrt(_blocks(result.std**2, block))
    if result.truth is not None:
        layers["truth"] = _blocks(result.truth, block)
    return {
        "shape": list(mean.shape),
        "block": block,
        "extent": list(result.grid.extent),
        "window": list(grey_window(result)),
        "layers": {name: _packed(image, np.uint16) for name, image in layers.items()},
        "samples": _sample_data(result, block),
        "colours": _encoded(np.round(255 * colormaps["inferno"](np.arange(256))[:, :3]).astype(np.uint8)),
    }


def _sample_data(result: Result, block: int) -> dict | None:
    if result.samples is None or len(result.samples) == 0:
        return None
    size = result.mean.size // block**2
    count = int(np.clip(_SAMPLE_BYTES // max(size, 1), 2, _MOST_SAMPLES))
    draws = np.stack([_blocks(draw, block) for draw in result.samples[:count]])
    return _packed(draws, np.uint8) | {"count": len(draws)}


def _blocks(image: NDArray, block: int) -> NDArray[np.float64]:
    """Means of ``block`` by ``block`` pixels; the image's last rows and columns are repeated to fill the last blocks."""
    pad = [(0, -n % block) for n in image.shape]
    padded = np.pad(np.asarray(image, np.float64), pad, mode="edge")
    rows, columns = (n // block for n in padded.shape)
    return padded.reshape(rows, block, columns, block).mean(axis=(1, 3))


def _packed(values: NDArray, kind: type[np.uint8] | type[np.uint16]) -> dict:
    top = np.iinfo(kind).max
    low = float(values.min())
    step = (float(values.max()) - low) / top or 1.0
    return {"data": _encoded(np.round((values - low) / step).astype(kind)), "low": low, "step": step}


def _encoded(values: NDArray) -> str:
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode("ascii")
