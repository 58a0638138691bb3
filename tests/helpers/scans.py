"""Whether two scans are one."""

import numpy as np

from ctuq.app import cli
from ctuq.files import read_volume
from ctuq.tomo.scan import Scan


def assert_equal(a: Scan, b: Scan) -> None:
    assert a.geometry == b.geometry and a.grid == b.grid and a.provenance == b.provenance
    for name in ("projections", "weights", "truth"):
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and np.array_equal(one, other)), name


def assert_converted(source, out) -> None:
    """That ``ctuq convert`` of all rows into an NXtomo is the same volume's scan; air loses digits as transmission."""
    scan = read_volume(source)
    assert cli.main(["convert", str(source), str(out), "--rows", f"0:{scan.geometry.rows}"]) == 0
    found = read_volume(out)
    assert found.geometry == scan.geometry
    np.testing.assert_allclose(found.projections, scan.projections, atol=1e-6)
    assert (found.weights is None) == (scan.weights is None)
    assert scan.weights is None or np.array_equal(found.weights, scan.weights)
