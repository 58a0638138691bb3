"""One scale at edges and one in flat parts: what held-out views teach of it, against what they were drawn from."""

import math

import numpy as np
import pytest
import torch

from ctuq.uncertainty.calibration.edges import EdgePosterior, EdgeScale, Facts, edge_map, has_both, learn_ratio
from ctuq.uncertainty.calibration.turns import Turns, in_turn
from ctuq.uncertainty.model.covariance import ImageCovariance

VIEWS, COLUMNS, PIXELS = 3, 80, 400
RATIO = math.log(6.0)


class Dense(ImageCovariance):
    """A covariance that is given."""

    def __init__(self, P: torch.Tensor, shape: tuple[int, int]):
        self._P, self._shape = P, shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def matrix(self):
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return self._P.device

    @property
    def error(self) -> float:
        return 0.03

    def times(self, images: torch.Tensor) -> torch.Tensor:
        return images.double() @ self._P

    def draws(self, n: int, *, rng: torch.Generator) -> torch.Tensor:
        z = torch.randn(n, len(self._P), generator=rng, dtype=torch.float64)
        return z @ torch.linalg.cholesky(self._P).T

    def std(self) -> torch.Tensor:
        return self._P.diagonal().sqrt().reshape(self._shape)


def rays_at_edges_or_not(log_ratio: float, seed: int):
    """Facts by a ratio of rays that were drawn from another: each sees some pixels, half of which are edges."""
    rng = np.random.default_rng(seed)
    count = VIEWS * COLUMNS
    rows = rng.random((count, PIXELS)) * (rng.random((count, PIXELS)) < 0.01)
    share = (np.arange(PIXELS) % 2).astype(float)
    # Rays that see one part only, so that both can be told apart.
    rows *= np.where(rng.random(count) < 0.5, 1.0, 0.0)[:, None] == share

    def signal(ratio: float) -> np.ndarray:
        T = EdgeScale(torch.from_numpy(share), ratio).root.numpy()
        return 100 * (rows * T) @ (rows * T).T

    residual = rng.multivariate_normal(np.zeros(count), signal(log_ratio) + np.eye(count))
    views = torch.arange(VIEWS).repeat_interleave(COLUMNS)

    def facts_at(ratio: float) -> Facts:
        covariance = torch.from_numpy(signal(ratio) + np.eye(count))
        found = in_turn(covariance, torch.from_numpy(residual), views)
        turns = Turns(*(part.numpy().reshape(-1, VIEWS, COLUMNS) for part in found))
        shape = (VIEWS, COLUMNS)
        return residual.reshape(shape), covariance.diagonal().numpy().reshape(shape) - 1, np.ones(shape), turns

    return facts_at


@pytest.mark.parametrize("log_ratio", [-RATIO, 0.0, RATIO])
def test_held_out_views_teach_the_ratio_they_were_drawn_from(log_ratio: float) -> None:
    """Less than the whole of it, as views count as few facts."""
    found = learn_ratio(rays_at_edges_or_not(log_ratio, seed=1))
    assert abs(found) < 0.5 if log_ratio == 0 else 0.5 < found / log_ratio < 1.3


def test_views_that_see_no_edge_leave_the_ratio_at_1() -> None:
    facts = rays_at_edges_or_not(0.0, seed=2)(0.0)
    assert learn_ratio(lambda ratio: facts) == pytest.approx(0.0, abs=1e-6)


def test_the_posterior_is_longer_at_edges(rng: torch.Generator) -> None:
    root = torch.randn(12, 12, generator=rng, dtype=torch.float64)
    P = root @ root.T + torch.eye(12, dtype=torch.float64)
    scale = EdgeScale(torch.rand(3, 4, generator=rng, dtype=torch.float64), RATIO)
    found, T = EdgePosterior(Dense(P, (3, 4)), scale), scale.root.flatten()
    expected = T[:, None] * P * T
    torch.testing.assert_close(found.covariance(), expected)
    torch.testing.assert_close(found.std().flatten(), expected.diagonal().sqrt())
    drawn, sizes = found.draws(20000, rng=rng), expected.diagonal().sqrt()
    assert float(((drawn.T @ drawn / 20000 - expected) / torch.outer(sizes, sizes)).abs().max()) < 6 / 20000**0.5
    assert found.error == 0.03
    whole = EdgeScale(torch.tensor([[0.0, 1.0]], dtype=torch.float64), RATIO).root.square()[0]
    assert float(whole[1] / whole[0]) == pytest.approx(6.0) and float(whole.prod()) == pytest.approx(1.0)


def test_edges_of_an_image_are_found_and_nothing_else() -> None:
    image = torch.zeros(40, 40)
    image[:, 20:] = 1
    edges = edge_map(image)
    assert float(edges[:, 19:21].min()) > 0.7 and float(edges[:, :10].max()) == 0 == float(edges[:, 30:].max())
    assert has_both(edges)
    assert not has_both(edge_map(torch.ones(40, 40)))
    assert edge_map(torch.zeros(1, 5)).shape == (1, 5)
