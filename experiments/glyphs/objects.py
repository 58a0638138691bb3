"""Objects of 28 x 28 pixels: simulated glyphs, or the test images of MNIST or Kuzushiji-MNIST from a folder."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ctuq
from ctuq.errors import InputError
from ctuq.tomo.simulate import RelativeNoise, phantom_scan, simulate

SIZE, WIDTH, ATTENUATION, FINER = 28, 40.0, 0.05, 2
CHECKSUMS = {
    "9fb629c4189551a2d022fa330f9573f3": "mnist",
    "2646ac647ad5339dbf082846283269ea": "mnist",
    "5c965bf0a639b31b8f53240b1b52f4d7": "kmnist",
}
"""MD5 of ``t10k-images-idx3-ubyte.gz`` as published, or of what is in it, as many have packed it again; and whose it is."""
_FILE = "*t10k-images-idx3-ubyte.gz"


def images_of(folder: Path) -> tuple[str, NDArray[np.uint8]]:
    """Name of the set, and its test images (n, 28, 28).

    Raises
    ------
    InputError
        If there is no such file in the folder, or it is none that was published.
    """
    found = sorted(folder.glob(_FILE))
    if not found:
        raise InputError(f"'{folder}' has no file {_FILE[1:]}; give the folder of MNIST or Kuzushiji-MNIST.")
    packed = found[0].read_bytes()
    name = _set_of(packed)
    if name is None:
        raise InputError(
            f"'{found[0]}' is not the published file of {' or '.join(dict.fromkeys(CHECKSUMS.values()))}; fetch it again."
        )
    return name, np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(-1, SIZE, SIZE)


def scan_of(image: int, angles: int, noise: float, pixels: NDArray[np.uint8] | None = None) -> ctuq.Scan:
    """An object seen from angles spread evenly over half a turn, with its truth.

    Parameters
    ----------
    image : int
        Which one: of the images, or the seed of a simulated glyph; and of the noise.
    angles : int
    noise : float
        Standard deviation over the mean projection.
    pixels : array of uint8, shape (n, 28, 28), optional
        By default a glyph is simulated.
    """
    directions = np.arange(angles) * np.pi / angles
    if pixels is None:
        return phantom_scan("glyph", SIZE, directions, noise=noise, seed=image)
    voxel = WIDTH / SIZE
    beam = ctuq.ParallelBeam(angles=directions, columns=int(np.ceil(np.sqrt(2) * SIZE)) + 2, pixel=voxel)
    fine = np.kron(pixels[image] / 255, np.ones((FINER, FINER)))
    grid, rng = ctuq.VolumeGrid((SIZE, SIZE), voxel), np.random.default_rng(image)
    return simulate(fine, beam, grid, RelativeNoise(noise), rng=rng, finer=FINER, attenuation=ATTENUATION)


def _set_of(packed: bytes) -> str | None:
    name = CHECKSUMS.get(_md5(packed))
    try:
        return name or CHECKSUMS.get(_md5(gzip.decompress(packed)))
    except (OSError, EOFError, zlib.error):
        return None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
