"""The experiments of errors that are taken out go the product's way: they build it from its parts, and these move."""

import numpy as np
import pytest

from ctuq.recon.dip import DIPOptions
from experiments.systematics.freed import freed_row
from experiments.systematics.scans import simulated


@pytest.mark.parametrize("defect", ["flux", "jitter"])
def test_a_scan_with_a_defect_is_fitted_before_and_after(defect):
    subject = simulated("rectangles", 0, defect, 10.0, size=12)
    row = freed_row(subject, DIPOptions(iterations=40, check_every=10, start="random"))
    for name in ("held", "z", "fit_rmse", "corrected_rmse", "cover_95", "sd_rms"):
        assert np.isfinite(float(row[name])), name
    assert 0 < float(row["held"]) <= 1
