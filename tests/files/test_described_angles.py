"""What `ctuq info` says of angles that run on, and of those in no order."""

from pathlib import Path

import numpy as np
import pytest

from ctuq.files.description import description_of
from ctuq.files.formats.raw import Raw


@pytest.mark.parametrize(
    ("degrees", "told"),
    [
        (np.arange(0, 180, 2.0), "90 from 0 to 178 degrees in steps of 2"),
        (-np.arange(0, 180, 2.0), "90 from 0 to -178 degrees in steps of -2"),
        (np.array([-42.0, 63, -140, 217]), "4 in no order between -140 and 217 degrees in uneven steps"),
    ],
)
def test_least_and_largest_are_told_of_angles_in_no_order(degrees, told):
    fields = {"kind": "parallel", "angles": np.deg2rad(degrees)}
    raw = Raw("NumPy arrays", np.ones((len(degrees), 8)), "log", fields)
    assert description_of(raw, Path("x.npy")).angles == told
