"""What runs in mbirjax's own environment: ``python vcls_side.py IN OUT``. Imports nothing of ctuq.

IN is an ``.npz`` of reference images, angles, a sinogram of the first of them, and how many views are asked for; OUT gets the
chosen views, the processor's seconds, and how far both projectors are apart.
"""

import itertools
import sys
import time

import numpy as np

_SAMPLED = 0.05
"""Share of the voxels that enter; the package's default, 0.002, is meant for volumes: it is five pixels of 48 x 48."""


def turned(image, way):
    """One of the eight ways that a square image can lie."""
    times, flipped = way
    image = np.rot90(image, times)
    return image[:, ::-1] if flipped else image


def main(source, target):
    import mbirjax

    given = dict(np.load(source))
    angles, references, sinogram = given["angles"], given["references"], given["sinogram"]
    size, columns = references.shape[-1], sinogram.shape[-1]
    model = mbirjax.ParallelBeamModel((len(angles), 1, columns), angles)
    model.set_params(recon_shape=(size, size, 1), delta_voxel=1.0, delta_det_channel=1.0, verbose=0)

    def projected(image):
        return np.asarray(model.forward_project(np.ascontiguousarray(image[:, :, None], np.float32)))[:, 0]

    # Which way its axes and angles run: the one of eight ways whose projections are ours.
    ways = list(itertools.product(range(4), (False, True)))
    misses = [np.linalg.norm(projected(turned(references[0], way)) - sinogram) / np.linalg.norm(sinogram) for way in ways]
    way, begun, views = ways[int(np.argmin(misses))], time.process_time(), []
    for reference in references:
        volume = np.ascontiguousarray(turned(reference, way)[:, :, None], np.float32)
        for count in given["counts"]:
            found, _ = mbirjax.vcls.get_opt_views(model, volume, int(count), r_1=_SAMPLED, seed=int(given["seed"]))
            views.append(np.pad(np.sort(found), (0, int(given["counts"].max()) - int(count)), constant_values=-1))
    shape = (len(references), len(given["counts"]), -1)
    np.savez(target, views=np.reshape(views, shape), seconds=time.process_time() - begun, apart=min(misses))


if __name__ == "__main__":
    main(*sys.argv[1:])
