"""The image data that the report's viewer reads: compact integers in base64, with their scale."""

import base64

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from ctuq.app.report.figures import grey_window, method_name
from ctuq.quantities.discrepancy import LEAK, PLACE
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.kept_covariance import KeptCovariance

_MOST_PIXELS_ACROSS = 512
_MOST_SAMPLES = 24
_SAMPLE_BYTES = 1_200_000
# A page of 128 x 128 pixels is 5 MB by these. Steps of a 127th of the largest value move a region's deviation by 0.1 %.
_COVARIANCE_ACROSS, _COVARIANCE_BYTES = 128, 2_600_000
_PALETTES = {"grey": "gray", "inferno": "inferno", "viridis": "viridis", "signed": "RdBu_r"}


def viewer_data(result: Result) -> dict:
    """Everything the viewer's script needs, ready for JSON.

    Images wider than 512 pixels are averaged over blocks (std as root mean square), and the viewer says so.

    Returns
    -------
    dict
        "shape" (y, x), "block", "extent" (left, right, bottom, top in mm), "window" (1/mm), "layers" by name (uint16),
        "samples" (uint8), "palettes" (256 RGB triples each), "covariance" (see `_covariance`) and "edges" (of
        `ctuq.quantities.discrepancy`); each array as {"data", "low", "step"}.
    """
    block = -(-max(result.mean.shape) // _MOST_PIXELS_ACROSS)
    mean = _blocks(result.mean, block)
    layers = {"mean": mean}
    if result.std is not None:
        layers["std"] = np.sqrt(_blocks(result.std**2, block))
    if result.std_rays is not None:
        layers["std_rays"] = np.sqrt(_blocks(result.std_rays**2, block))
    layers |= {name: _blocks(image, block) for name, image in result.comparisons.items()}
    if result.truth is not None:
        layers["truth"] = _blocks(result.truth, block)
    return {
        "shape": list(mean.shape),
        "block": block,
        "extent": list(result.grid.extent),
        "window": list(grey_window(result)),
        "layers": {name: _packed(image, np.uint16) for name, image in layers.items()},
        "samples": _sample_data(result, block),
        "palettes": {name: _encoded(_colours(known)) for name, known in _PALETTES.items()},
        "names": {name: method_name(name) for name in result.comparisons},
        "covariance": _covariance(result, block),
        # Of images averaged over blocks: a block's slope is that of so many pixels, and so is the width of what blurs it.
        "edges": {"place": PLACE / block**2, "leak": LEAK / block},
    }


def _colours(known: str) -> NDArray[np.uint8]:
    return np.round(255 * colormaps[known](np.arange(256))[:, :3]).astype(np.uint8)


def _covariance(result: Result, block: int) -> dict | None:
    """What gives the variance of a sum over pixels, by blocks of large images: `ctuq.uncertainty.results.kept_covariance`.

    Returns
    -------
    dict
        "shape" of the blocks, "covers" (how many viewer pixels they span, the last block whole), "full" (pixels of the image),
        "block" (pixels in one), "waves", "directions" (int8) with "steps" (float32), "own" (D, packed) and "inverse" (float32).
    """
    if result.std is None or result.directions is None or len(result.directions) == 0:
        return None
    side = block * -(-max(result.mean.shape) // (block * _COVARIANCE_ACROSS))
    blocks = np.prod([-(-n // side) for n in result.mean.shape])
    kept = KeptCovariance(result.directions[: max(result.waves**2, int(_COVARIANCE_BYTES // blocks))], result.std, result.waves)
    full, own, inverse = kept.parts()
    directions = np.stack([_blocks(image, side) for image in full])
    own = _blocks(own, side)
    steps = np.maximum(np.abs(directions).max(axis=(1, 2)), 1e-300) / 127
    codes = np.round(directions / steps[:, None, None]).astype(np.int8)
    return {
        "shape": list(own.shape),
        "covers": [n * side // block for n in own.shape],
        "full": [n * side for n in own.shape] if side > 1 else list(result.mean.shape),
        "block": side**2,
        "waves": result.waves,
        "directions": _encoded(codes),
        "steps": _encoded(steps.astype(np.float32)),
        "own": _packed(own, np.uint16),
        "inverse": _encoded(inverse.astype(np.float32)),
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
