import math

import pytest
import torch
from scipy.stats import chi2

from ctuq.errors import InputError
from ctuq.linops import LinearOperator, Space
from ctuq.linops.basic import Dense, Diagonal, Identity
from ctuq.linops.precondition import nystrom, pivoted_cholesky
from ctuq.linops.solve import CG

DOUBLE = torch.float64
M = 300
NOISE = 0.04


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def gram(values, seed=3):
    basis, _ = torch.linalg.qr(normal(len(values), len(values), seed=seed))
    G = (basis * values) @ basis.T
    return (G + G.T) / 2


def steep():
    """Eigenvalues as of a network's evidence matrix: 8.6e5 falling to the noise after a sixth of them, then below it."""
    top = torch.logspace(math.log10(8.6e5), math.log10(NOISE), M // 6, dtype=DOUBLE)
    return gram(torch.cat([top, NOISE * torch.exp(-torch.arange(M - M // 6) / 25.0).double()]))


class Counted(Dense):
    products = 0

    def _apply(self, x):
        self.products += len(x)
        return super()._apply(x)


def test_cg_reaches_1e_3_in_30_steps_on_a_steep_spectrum_where_it_needs_hundreds_without(rng):
    G = steep()
    K = Dense(G) + NOISE * Identity(Space((M,), DOUBLE))
    b = torch.cat([normal(4, M), normal(4, M, seed=1) @ torch.linalg.cholesky(K.dense()).T])
    P = nystrom(Dense(G), rng=rng, noise=NOISE).with_noise(NOISE)
    assert CG(rtol=1e-3, preconditioner=P)(K, b).steps <= 30
    with pytest.warns(UserWarning, match="in 300 steps"):
        CG(rtol=1e-3, max_steps=300)(K, b)


def test_the_rank_stops_where_the_rest_is_about_the_noise(rng):
    G = Counted(steep())
    ranks = []
    for noise in (NOISE, 1e5 * NOISE, 1e7):
        G.products = 0
        found = nystrom(G, rng=rng, noise=noise)
        rest = torch.linalg.eigvalsh(G.matrix - (found.vectors.T * found.values) @ found.vectors)
        assert G.products == len(found.values)
        assert rest[-1] <= 20 * noise
        ranks.append(len(found.values))
    assert ranks[0] > ranks[1] > ranks[2] == 32


def test_the_rank_is_at_most_what_is_asked_for_and_what_there_is(rng):
    assert len(nystrom(Dense(steep()), 50, rng=rng).values) == 50
    values = torch.zeros(40, dtype=DOUBLE)
    values[:5] = torch.arange(5, 0, -1)
    found = nystrom(Dense(gram(values)), rng=rng)
    assert len(found.values) <= 40
    torch.testing.assert_close((found.vectors.T * found.values) @ found.vectors, gram(values), rtol=0, atol=1e-12)


def test_the_approximation_lies_below_the_operator_and_nearly_takes_its_largest_eigenvalues(rng):
    G = steep()
    found = nystrom(Dense(G), 96, rng=rng)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(96, dtype=DOUBLE), rtol=0, atol=1e-10)
    rest = torch.linalg.eigvalsh(G - (found.vectors.T * found.values) @ found.vectors)
    assert rest[0] > -1e-8 * 8.6e5
    torch.testing.assert_close(found.values[:20], torch.linalg.eigvalsh(G).flip(0)[:20], rtol=1e-6, atol=0)


def test_a_sketch_of_full_rank_is_the_operator(rng):
    G = steep()
    found = nystrom(Dense(G), rng=rng)
    torch.testing.assert_close((found.vectors.T * found.values) @ found.vectors, G, rtol=0, atol=1e-7)


def smooth(n=M, lengthscale=0.2):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    return torch.exp(-torch.cdist(x, x).square() / (2 * lengthscale**2))


def test_pivots_approximate_a_kernel_from_below_with_their_rows_alone(rng):
    scales = torch.ones(M, dtype=DOUBLE)
    scales[:40] = 100.0
    G, seen = scales[:, None] * smooth(lengthscale=0.05) * scales, []

    def rows(index):
        seen.extend(index.tolist())
        return G[index]

    found = pivoted_cholesky(rows, G.diagonal(), 64, rng=rng)
    rest = G - (found.vectors.T * found.values) @ found.vectors
    eigenvalues = torch.linalg.eigvalsh(rest)
    assert len(seen) == len(set(seen)) == 64
    assert eigenvalues[0] > -1e-8
    # The best approximation of rank 48 leaves 160; uniform pivots leave 2e5.
    assert rest.trace() < torch.linalg.eigvalsh(G)[:-48].sum()
    torch.testing.assert_close(rest[seen], torch.zeros(64, M, dtype=DOUBLE), rtol=0, atol=1e-7)


def test_pivoting_stops_at_the_noise_and_at_the_rank_of_the_matrix(rng):
    G = smooth()
    found, full = (pivoted_cholesky(lambda index: G[index], G.diagonal(), M, rng=rng, noise=noise) for noise in (0.1, 0.0))
    assert len(found.values) < len(full.values) / 2
    assert torch.linalg.eigvalsh(G - (found.vectors.T * found.values) @ found.vectors)[-1] < 1.0
    low = normal(M, 7)
    found = pivoted_cholesky(lambda index: low[index] @ low.T, low.square().sum(1), rng=rng)
    assert len(found.values) == 7
    torch.testing.assert_close((found.vectors.T * found.values) @ found.vectors, low @ low.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_pivots_precondition_a_kernel(dtype, rng):
    G, b = smooth(lengthscale=0.5), normal(2, M)
    K = Dense(G) + 1e-3 * Identity(Space((M,), DOUBLE))
    sketch = pivoted_cholesky(lambda index: G[index].to(dtype), G.diagonal().to(dtype), rng=rng, noise=1e-3)
    assert CG(rtol=1e-6, preconditioner=sketch.with_noise(1e-3))(K, b).steps < 10 < CG(rtol=1e-6)(K, b).steps / 5


def test_float32_products_give_a_preconditioner_that_is_positive(rng):
    found = nystrom(Dense(steep().float()), rng=rng, noise=NOISE)
    assert (found.values >= 0).all()
    assert torch.linalg.eigvalsh(found.with_noise(NOISE).dense())[0] > 0


NOISES = {"one": 0.3, "each": 0.1 + torch.arange(12).reshape(4, 3).double(), "rows": torch.tensor([[1.0], [2], [3], [4]])}


@pytest.fixture
def small(rng):
    space = Space((4, 3), DOUBLE)
    return nystrom(Dense(gram(torch.arange(12, 0, -1).double() ** 2), space, space), 5, rng=rng)


def covariance(found, noise):
    low_rank = (found.vectors.T * found.values) @ found.vectors
    return low_rank + torch.diag(torch.as_tensor(noise, dtype=DOUBLE).expand(4, 3).flatten())


@pytest.mark.parametrize("name", NOISES)
def test_inverse_root_and_log_det_are_those_of_low_rank_plus_noise(name, small):
    P, inverse = covariance(small, NOISES[name]), small.with_noise(NOISES[name])
    torch.testing.assert_close(inverse.dense(), torch.linalg.inv(P), rtol=0, atol=1e-12)
    root = inverse.root.dense()
    torch.testing.assert_close(root @ root.T, P, rtol=0, atol=1e-10)
    assert inverse.log_det == pytest.approx(float(torch.logdet(P)), abs=1e-11)
    assert small.log_det(NOISES[name]) == inverse.log_det


def test_the_noise_changes_and_the_operator_scales_without_a_new_product(small):
    twice = small.scaled(2.0)
    torch.testing.assert_close(covariance(twice, 0.0), 2 * covariance(small, 0.0))
    torch.testing.assert_close(
        twice.with_noise(0.7).dense(), torch.linalg.inv(2 * covariance(small, 0.0) + 0.7 * torch.eye(12))
    )
    torch.testing.assert_close(small.with_noise(5.0).dense(), torch.linalg.inv(covariance(small, 5.0)))


def test_probes_have_the_covariance_of_the_preconditioner(small, rng):
    count = 3000
    P = small.with_noise(NOISES["rows"])
    probes = P.root(Space((4, 3), DOUBLE).randn(count, rng=rng))
    distances = (probes * P(probes)).sum()
    low, high = chi2.ppf([5e-4, 1 - 5e-4], 12 * count)
    assert low < float(distances) < high


def test_a_network_free_operator_of_any_kind_will_do(rng):
    found = nystrom(Diagonal(torch.arange(1.0, 7.0).double().reshape(2, 3)), rng=rng)
    assert isinstance(found.with_noise(1.0), LinearOperator)
    torch.testing.assert_close(found.values, torch.arange(6.0, 0.0, -1).double())


def test_what_cannot_be_a_preconditioner_is_refused(small, rng):
    with pytest.raises(InputError, match="positive noise, not 0"):
        small.with_noise(0.0)
    with pytest.raises(InputError, match="square"):
        nystrom(Dense(normal(3, 4)), rng=rng)
    with pytest.raises(InputError, match="and 0"):
        nystrom(Dense(normal(3, 3)), 0, rng=rng)
    for rank, diagonal in ((0, 1.0), (1, -1.0), (1, torch.nan)):
        with pytest.raises(InputError, match="Pivots need"):
            pivoted_cholesky(lambda index: normal(1, 2), torch.full((2,), diagonal), rank, rng=rng)
