# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The scientist: what does the image show, and how sure is it?
#
# You measured few views. You want an image, its error bars, and numbers with intervals. The scan here is simulated, so that the
# truth is known; with your own file it is `scan = ctuq.read("scan.h5")`.

# %%
import os

import ctuq
from ctuq.quantities import Circle

size = int(os.environ.get("CTUQ_NOTEBOOK_SIZE", "64"))
scan = ctuq.simulate("shepp-logan", size=size, angles=30, noise=0.02)
scan

# %% [markdown]
# ## Image and error bars
#
# `method="tv"` takes seconds. Leave it out for the Deep Image Prior, which takes minutes and knows sharp objects better.

# %%
result = ctuq.reconstruct(scan, method="tv", size=size)
result

# %% [markdown]
# ## Can they be trusted?
#
# Some views stayed out of the fit. Their rays missed the prediction by so many predicted standard deviations; 1 is right.

# %%
print(result.calibration.calibrated["rms_z"], result.calibration.cover_95)
print(*result.warnings, sep="\n")

# %% [markdown]
# ## Numbers with intervals
#
# Lengths are in mm from the rotation axis, attenuations in 1/mm.

# %%
head = Circle(0, 0, 12)
mean = result.region(head)
print(mean)
print({source: f"{100 * part / mean.standard_uncertainty**2:.0f} %" for source, part in mean.budget.items()})

# %%
print(result.contrast(Circle(0, 0, 4), head))
print(result.fraction(head, above=mean.value))

# %% [markdown]
# Is there a part of 20 mm² or more that attenuates less than half the mean, such as a void?

# %%
print(result.probability(head, below=mean.value / 2, at_least=20.0, tolerance=0.03))

# %% [markdown]
# ## Keep it
#
# One file has everything, and one page shows it to others.

# %%
result.save("results.h5")
ctuq.write_report(result, "report.html")
