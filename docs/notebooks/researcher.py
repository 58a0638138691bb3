# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The researcher: compare error bars on the same rays
#
# Methods are compared on views that were used for nothing, and against the truth where there is one. Every method gets the same
# views, the same calibration and the same score.

# %%
import os

import numpy as np

import ctuq
from ctuq.tomo import ray_transform

size = int(os.environ.get("CTUQ_NOTEBOOK_SIZE", "48"))
scan = ctuq.simulate("ellipses", size=size, angles=40, noise=0.03)
judge = np.arange(2, scan.n_angles, 4)
used = scan.select(np.setdiff1d(np.arange(scan.n_angles), judge))

# %% [markdown]
# ## Two kinds of error bars of ctuq

# %%
results = {
    "edge prior": ctuq.reconstruct(used, method="tv", size=size),
    "one constant": ctuq.reconstruct(used, method="tv", size=size, uncertainty="constant"),
}

# %% [markdown]
# ## And those of another program
#
# `ctuq.calibrate` takes any image with samples, a covariance or one number. Here the other program is a filtered
# back-projection whose user guesses 0.01 1/mm. It is given the views that are not held out.

# %%
held_out = np.arange(3, used.n_angles, 6)
part = used.select(np.setdiff1d(np.arange(used.n_angles), held_out))
plain = ctuq.reconstruct(part, method="fbp", size=size)
results["FBP, calibrated"] = ctuq.calibrate(plain.mean, 0.01, used, held_out, grid=plain.grid)

# %% [markdown]
# ## The score: nats a ray of views that nobody used

# %%
unseen = scan.select(judge)


def nats(result):
    """Mean logarithm of the density that the error bars gave to what was then measured; larger is better."""
    import torch

    A = ray_transform(result.grid, unseen.geometry)
    deviations = result.draw(200) - result.mean
    variance = A(torch.tensor(deviations)).numpy().var(axis=0) + result.sigma2
    miss = unseen.projections - A(torch.tensor(result.mean)).numpy()
    return float(np.mean(-0.5 * (miss**2 / variance + np.log(2 * np.pi * variance))))


table = {name: nats(result) for name, result in results.items()}
for name, score in sorted(table.items(), key=lambda row: -row[1]):
    print(f"{name:16} {score:.3f} nats a ray, rms z of pixels {results[name].scores['truth']['rms_z']:.2f}")
