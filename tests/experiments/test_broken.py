import numpy as np
import pytest

from ctuq.pipeline.image.given import as_given
from ctuq.tomo import radians
from ctuq.tomo.simulate import phantom_scan
from experiments.systematics.broken import FAULTS, broken

SCAN = phantom_scan("ellipses", 48, radians(np.arange(0, 180, 4.0)), noise=0.02, seed=1)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_where_it_is_and_nowhere_else(name):
    given = broken(SCAN, FAULTS[name])
    found = as_given(given)
    assert ((found.weights == 0) == (given.projections != SCAN.projections)).all()
    assert len(found.warnings) == len(SCAN.warnings) + 1
