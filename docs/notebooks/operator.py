# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The operator: which angle next?
#
# The scanner asks a session for the next angle, measures it, and tells the projection. Here a simulated scan of every degree
# stands for the scanner.

# %%
import os
from pathlib import Path

import numpy as np

import ctuq
from ctuq.design import Session, Settings
from ctuq.errors import BudgetExhausted

size = int(os.environ.get("CTUQ_NOTEBOOK_SIZE", "32"))
everything = ctuq.simulate("rectangles", size=size, angles=ctuq.radians(np.arange(0, 180, 3.0)), noise=0.02)


def measure(angle):
    """Line integrals at an angle in degrees."""
    view = int(np.abs(np.rad2deg(everything.geometry.angles) - angle).argmin())
    return everything.projections[view]


# %% [markdown]
# ## A session is one file
#
# It knows the angles that the stage can stop at, the dose, and everything that was measured and decided.

# %%
path = Path("session.h5")
path.unlink(missing_ok=True)
settings = Settings(size=size, prior="isotropic", pilot=4, budget=8)
Session.start(path, everything.geometry, settings)

# %% [markdown]
# ## Ask, measure, tell

# %%
session = Session(path, degrees=True)
try:
    while True:
        suggestion = session.ask()
        if suggestion.stop:
            print(suggestion.reason)
            break
        for angle in suggestion.angles:
            session.tell(angle, measure(angle))
        print("measured", np.round(suggestion.angles, 1))
except BudgetExhausted as spent:
    print(spent)

# %% [markdown]
# ## What came of it
#
# The measured views are a scan, and become an image with error bars. `to_dict()` of a suggestion has plain values for a log.

# %%
print(suggestion.to_dict()["reason"])
measured = everything.select(np.sort(session.state.views))
result = ctuq.reconstruct(measured, method="tv", size=size)
result
