"""The experiment on a cubic term of beam hardening: what the error bars hold."""

import pytest
import torch

from experiments.systematics.cubic import ways


def test_the_curve_is_as_large_as_the_square_and_begins_with_it():
    p = torch.linspace(-0.1, 2, 200, dtype=torch.float64)
    found = ways(p)
    assert found["none"] == () and all(block.hidden for blocks in found.values() for block in blocks)
    (curve,), (square,) = found["curve"], found["square"]
    read, q = -curve.columns[:, 0] * curve.width, p.clamp(min=0).square()
    assert float(read @ q / (q @ q)) == pytest.approx(square.width)
    assert float(read[30] / q[30]) > float(read[-1] / q[-1])  # falls off, as the cube that is left out has the other sign
    _, cube = found["square, cube"]
    torch.testing.assert_close(cube.columns[:, 0], p.clamp(min=0) ** 3)
