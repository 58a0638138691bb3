import numpy as np
import pytest
import torch

from ctuq.design import DenseCovariance, GaussianModel
from ctuq.design.algebra.conditioning import GivenViews
from ctuq.design.algebra.rows import ViewRows
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform

SIZE, VIEWS, COLUMNS = 6, 8, 9


@pytest.fixture(scope="session")
def A():
    """Eight parallel views of 6 x 6 pixels."""
    geometry = ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=COLUMNS, pixel=1.0)
    return ray_transform(VolumeGrid((SIZE, SIZE), 1.0), geometry, backend="matrix")


@pytest.fixture(scope="session")
def rows(A):
    return ViewRows(A.matrix, VIEWS)


@pytest.fixture
def S(rng):
    """A prior covariance with a long range."""
    root = torch.randn(SIZE**2, SIZE**2, generator=rng, dtype=torch.float64)
    return root @ root.T / SIZE**2 + 2.0


@pytest.fixture
def precision(rng):
    """Of every ray; one counts for nothing."""
    found = 5 * (0.5 + torch.rand(VIEWS, COLUMNS, generator=rng, dtype=torch.float64))
    found[1, 4] = 0
    return found


@pytest.fixture
def region():
    weights = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    weights[1:4, 2:5] = 1
    return weights.flatten()


@pytest.fixture
def start(rows, S, precision, region):
    return GivenViews.start(rows, DenseCovariance(S), precision, region=region)


@pytest.fixture
def model(S):
    return GaussianModel(DenseCovariance(S), 0.2)


@pytest.fixture
def y(A, rng):
    """Projections of every view, (V, n)."""
    return torch.randn(A.geometry.shape, generator=rng).numpy()
