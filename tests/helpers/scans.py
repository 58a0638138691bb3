"""Whether two scans are one."""

import numpy as np

from ctuq.tomo.scan import Scan


def assert_equal(a: Scan, b: Scan) -> None:
    assert a.geometry == b.geometry and a.grid == b.grid and a.provenance == b.provenance
    for name in ("projections", "weights", "truth"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and np.array_equal(one, other)), name
