"""What error bars could come to at best, by the neighbours of unseen rays."""

import numpy as np
import pytest

from experiments.unseen_views import of_neighbours


@pytest.mark.parametrize("varies", [False, True])
def test_neighbours_tell_a_smooth_variance(varies):
    rng = np.random.default_rng(0)
    std = np.exp(np.sin(np.arange(100) / 5)) if varies else np.ones(100)
    known = -0.5 * np.log(2 * np.pi) - 0.5 - np.log(std).mean()
    found = of_neighbours(rng.normal(size=(90, 100)) * std)
    assert known - 0.02 < found < known + 0.02  # 9,000 rays: the score's own error is 0.007


def test_a_ray_s_own_residual_tells_nothing():
    """One wild ray among still ones must cost what it costs: a window that held itself would call it likely."""
    still = np.full((30, 30), 1e-3)
    still[::2] *= -1
    still[15, 15] = 1.0
    alone = of_neighbours(still)
    still[15, 15] = 1e-3
    assert of_neighbours(still) - alone > 5
