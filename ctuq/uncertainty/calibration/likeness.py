"""Whether samples are of the image that they are given with: by their mean, as it is and turned."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ctuq.uncertainty.calibration.spread import Spread

_TURNS = {
    "upside down": np.s_[::-1],
    "left and right changed": np.s_[:, ::-1],
    "turned by 180 degrees": np.s_[::-1, ::-1],
}
_RATHER, _LEAST, _OTHER = 0.5, 0.05, 0.3
_NOTHING, _SURE = 0.1, 3.0


def turned(image: NDArray) -> dict[str, NDArray]:
    """The image as it might have been meant, by what was done to it."""
    found = {name: image[part] for name, part in _TURNS.items()}
    if image.shape[0] == image.shape[1]:
        found |= {"transposed": image.T, "turned by 90 degrees": np.rot90(image), "turned by 270 degrees": np.rot90(image, 3)}
    return found


def doubts_of_samples(spread: Spread, image: NDArray[np.float64]) -> tuple[str, ...]:
    """Whether the samples are turned, of another object or in another unit than the image, or numbered along another axis.

    Only their deviations from their mean are used, so that nothing else would show it. Samples whose mean is near zero are such
    deviations already, and one of few samples is off by what they scatter: neither is held against them.
    """
    if spread.mean is None:
        return ()
    size, off = max(_rms(image), 1e-300), _rms(spread.mean - image)
    # What scatters along the wrong axis looks like scatter of samples, which is no reason to be quiet.
    axes = {f"The samples numbered along the {axis} axis": mean for axis, mean in spread.along.items()}
    if off > _LEAST * size and (told := _fits_better(axes, image, off)):
        return told
    chance = _SURE * _rms(np.sqrt(spread.variance())) * len(spread.values) ** -0.5
    if _rms(spread.mean) <= max(_NOTHING * size, chance):
        return ()
    turns = {f"The samples {name}": mean for name, mean in turned(spread.mean).items()}
    if off > max(_LEAST * size, chance) and (told := _fits_better(turns, image, off)):
        return told
    if off <= max(_OTHER * size, chance):
        return ()
    return (
        f"The samples' mean differs from the image by {100 * off / size:.0f} % of its root mean square: they may be of another "
        "object, or in another unit.",
    )


def _fits_better(others: Mapping[str, NDArray], image: NDArray, off: float) -> tuple[str, ...]:
    misses = {name: _rms(mean - image) for name, mean in others.items()}
    best = min(misses, key=misses.__getitem__, default="")
    if not best or misses[best] >= _RATHER * off:
        return ()
    ratio = min(off / max(misses[best], 1e-300), 1000)
    return (f"{best} fit the image {ratio:.1f} times better: give them as (n, y, x), each lying as the image does.",)


def _rms(values: NDArray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
