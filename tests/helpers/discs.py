"""Scans of a disc, from the lengths of its chords."""

from collections.abc import Sequence

import numpy as np

from ctuq.tomo.geometry import FanBeam, Geometry
from ctuq.tomo.scan import Scan


def disc(
    geometry: Geometry, radius: float, centre: Sequence[float] = (0.0, 0.0), *, level: float = 0.05, fine: int = 4
) -> Scan:
    """What ``geometry`` sees of a disc of ``level`` 1/mm; each column is the mean of ``fine`` rays."""
    k = (np.arange(geometry.columns * fine) + 0.5) / fine - geometry.columns / 2
    if isinstance(geometry, FanBeam):
        vectors = geometry.vectors()[:, None]
        rays = vectors[..., 3:5] + k[None, :, None] * vectors[..., 6:8] - vectors[..., 0:2]
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        to = np.asarray(centre) - vectors[..., 0:2]
        distance = to[..., 0] * rays[..., 1] - to[..., 1] * rays[..., 0]
    else:
        across = np.stack([np.cos(geometry.angles), np.sin(geometry.angles)], axis=1)
        distance = geometry.axis_distances(k + (geometry.columns - 1) / 2) - (across @ np.asarray(centre))[:, None]
    chords = 2 * level * np.sqrt(np.maximum(0, radius**2 - distance**2))
    return Scan(chords.reshape(*geometry.shape, fine).mean(-1).astype(np.float32), geometry)
