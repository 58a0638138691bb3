"""What runs in the other programs' own environment, whose numpy is older than ctuq's: ``python other_side.py METHOD IN OUT``.

IN is an ``.npz`` of whitened rays, OUT gets samples of the image and the processor's seconds. Imports nothing of ctuq.
"""

import sys
import time

import numpy as np
import scipy.sparse as sp

SAMPLES, BURN_IN, BOOTSTRAP = 400, 100, 32


def cuqipy(given):
    """CUQIpy's LMRF prior (Laplace differences) by its UGLA sampler, with the prior's scale in a Gibbs sampler.

    The noise is given. Where it was drawn, too (a Gamma prior, `Conjugate`), chains of the walnut
    drifted to flat images whose structure counts as noise, from a good image as well and with exact inner solves.
    """
    import cuqi
    from cuqi.distribution import LMRF, Gamma, Gaussian, JointDistribution
    from cuqi.sampler import UGLA, ConjugateApprox, HybridGibbs
    from scipy.sparse.linalg import lsqr

    A = sp.csr_matrix((given["data"], given["indices"], given["indptr"]), shape=tuple(given["shape"]))
    height, width = given["image"]
    # Attenuation about 1, so that the package's own hyperprior is as wide as it means it.
    unit = float(given["unit"])
    geometry = cuqi.geometry.Image2D((height, width), visual_only=True)
    model = cuqi.model.LinearModel(A * unit, range_geometry=A.shape[0], domain_geometry=geometry)
    d = Gamma(1, 1e-4, name="d")
    x = LMRF(0, lambda d: 1 / d, geometry=geometry, name="x")
    y = Gaussian(model @ x, cov=float(given["sigma2"]), name="y")
    target = JointDistribution(d, x, y)(y=given["y"])
    first = lsqr(A * unit, given["y"], damp=0.5 * unit, iter_lim=50)[0]
    draw = UGLA(maxit=50, tol=1e-6, initial_point=first)
    sampler = HybridGibbs(target, {"d": ConjugateApprox(), "x": draw})
    sampler.warmup(BURN_IN)
    sampler.sample(SAMPLES)
    found = sampler.get_samples()["x"].samples[:, -SAMPLES:]
    return unit * found.T.reshape(-1, height, width)


def svmbir(given):
    """An image by svmbir, a qGGMRF prior at its defaults, and those of views drawn with replacement; rays by its own projector.

    Which way its angles and columns run was found by projecting one image with both: parallel rays then agree to 1.1 %, those
    of a fan to 0.7 % of their rms.
    """
    import svmbir as program

    height, width = (int(n) for n in given["image"])
    fan = float(given["source_to_detector"]) > 0
    beam = {"geometry": "parallel"}
    if fan:
        far, near = float(given["source_to_detector"]), float(given["source_to_axis"])
        beam = {"geometry": "fan-flat", "dist_source_detector": far, "magnification": far / near}
    angles = np.pi / 2 * (1 if fan else -1) - given["angles"]
    rng, views = np.random.default_rng(int(given["seed"])), len(given["angles"])
    images = []
    for i in range(BOOTSTRAP + 1):
        drawn = np.arange(views) if i == 0 else rng.integers(views, size=views)
        times = np.bincount(drawn, minlength=views)
        used = times > 0
        weights = given["weights"][used] * times[used][:, None]
        image = program.recon(
            given["sino"][used][:, None].astype(np.float32),
            angles[used],
            weights=weights[:, None].astype(np.float32),
            num_rows=height,
            num_cols=width,
            delta_channel=float(given["pixel"]),
            delta_pixel=float(given["voxel"]),
            roi_radius=float(given["voxel"]) * max(height, width),
            center_offset=float(given["offset"]),
            num_threads=1,
            verbose=0,
            **beam,
        )
        images.append(image[0])
    return np.array(images)


METHODS = {"svmbir": svmbir, "cuqipy": cuqipy}

if __name__ == "__main__":
    method, source, target = sys.argv[1:]
    problem = dict(np.load(source))
    np.random.seed(int(problem["seed"]))  # noqa: NPY002 (the program draws from numpy's global generator)
    begin = time.process_time()
    samples = METHODS[method](problem)
    np.savez(target, samples=samples, seconds=time.process_time() - begin)
