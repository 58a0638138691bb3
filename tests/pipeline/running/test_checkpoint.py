from dataclasses import replace

import numpy as np
import pytest

from ctuq.pipeline.running.checkpoint import digest_of
from ctuq.tomo import Parallel3D, ParallelBeam, Scan, VolumeScan

ANGLES = np.linspace(0, 3, 2000)


def scan_of(angles, shape, facts=None):
    if len(shape) == 1:
        scan = Scan(np.ones((len(angles), *shape)), ParallelBeam(angles=angles, columns=shape[0], pixel=1.0))
    else:
        rows, columns = shape
        geometry = Parallel3D(angles=angles, rows=rows, columns=columns, pixel=1.0)
        scan = VolumeScan(np.ones((rows, len(angles), columns)), geometry)
    return replace(scan, provenance=replace(scan.provenance, facts=facts or {}))


@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_work_is_known_by_all_that_its_numbers_depend_on_and_nothing_else(shape):
    scan = scan_of(ANGLES, shape)
    with np.printoptions(precision=2, threshold=5, suppress=True):
        assert digest_of(scan) == digest_of(scan_of(ANGLES, shape, {"sample": "nut"}))
    moved = np.where(np.arange(2000) == 1000, ANGLES + 1e-9, ANGLES)
    other = [scan_of(moved, shape), scan_of(ANGLES, shape, {"beam": "monochromatic"})]
    other.append(replace(scan, geometry=replace(scan.geometry, detector_offset=0.5)))
    other.append(replace(scan, weights=np.ones_like(scan.projections)))
    assert len({digest_of(each) for each in [scan, *other]}) == len(other) + 1
