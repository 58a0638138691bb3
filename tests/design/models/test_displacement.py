import numpy as np
import pytest
import torch

from ctuq.design import ESE, Designer, DesignProblem
from ctuq.design.algebra.covariance import Hold
from ctuq.design.models.displacement import DisplacedEdges, central_differences
from ctuq.design.models.model import Measurements
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform

SIZE, VIEWS, PILOT = 16, 36, np.array([0, 12, 24])


@pytest.fixture(scope="module")
def bar():
    """A thin bar whose long edges are met end on by the view at 130 degrees, which no pilot view is near."""
    line = (np.arange(4 * SIZE) + 0.5) / 4 - SIZE / 2
    x, y = line[None], -line[:, None]
    turn = np.deg2rad(130 + 90)
    u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    fine = ((np.abs(u) < 6) & (np.abs(v) < 1.5)).astype(np.float32)
    return fine.reshape(SIZE, 4, SIZE, 4).mean((1, 3))


@pytest.fixture(scope="module")
def A():
    geometry = ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=24, pixel=1.0)
    return ray_transform(VolumeGrid((SIZE, SIZE), 1.0), geometry, backend="matrix")


@pytest.fixture(scope="module")
def measured(A, bar):
    y = A(torch.from_numpy(bar))
    y = y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return Measurements(A, PILOT, y[torch.from_numpy(PILOT)], torch.ones(3, 24))


def test_the_covariance_is_that_of_displaced_images(measured):
    prior = DisplacedEdges(displacement=0.7, length=0.25, smooth=0.0)
    model = prior(measured)
    gy, gx = (torch.from_numpy(g.ravel()) for g in central_differences(model.image.double().numpy()))
    place = torch.cartesian_prod(torch.arange(SIZE), torch.arange(SIZE)).double()
    K = torch.exp(-torch.cdist(place, place) / (0.25 * SIZE))
    root = 0.7 * torch.linalg.cholesky(K + 1e-9 * torch.eye(len(K)))
    fields = torch.randn(2, 20000, len(K), generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ root.T
    draws = fields[0] * gy + fields[1] * gx
    found = model.covariance.matrix.diagonal()
    seen = found > 0.1 * found.max()
    ratio = draws.var(0)[seen] / found[seen]
    # The variance of 20,000 draws is known to 1 %; the largest of a hundred lies within five standard errors.
    assert float((ratio - 1).abs().max()) < 0.05
    cross = (draws[:, seen].T @ draws[:, seen]) / len(draws)
    assert float((cross - model.covariance.matrix[seen][:, seen]).abs().max() / found.max()) < 0.05


def test_a_low_rank_factor_stands_for_it_in_large_images(measured):
    exact, factor = (DisplacedEdges(hold=Hold(SIZE**2, d))(measured) for d in (SIZE**2, 0))
    x = torch.randn(3, SIZE**2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(factor.covariance.times(x), exact.covariance.times(x), rtol=1e-4, atol=1e-7)


def test_it_asks_for_the_view_along_the_edges(A, measured):
    designer = Designer(DesignProblem(A=A, criterion=ESE), DisplacedEdges())
    designer.tell(A.geometry.angles[PILOT], measured.y.numpy())
    (angle,) = np.rad2deg(designer.ask().angles)
    assert abs(angle - 130) <= 10


def test_where_nothing_is_there_nothing_is_displaced():
    gy, gx = central_differences(np.zeros((5, 6)))
    assert not gy.any() and not gx.any()
    ramp = np.tile(np.arange(1.0, 7.0), (5, 1))
    np.testing.assert_array_equal(central_differences(ramp)[1][:, 1:-1], 1)
