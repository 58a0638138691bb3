import gc
import weakref
from dataclasses import replace

import pytest
import scipy.stats
import torch
from images import posterior_covariance, rays_matrix, some_point

from ctuq.laplace.system.problem import plus_identity
from ctuq.linops.block_cg import BlockCG
from ctuq.linops.solve import relative
from ctuq.linops.sparse import SparseRows
from ctuq.uncertainty.model import noise as solving
from ctuq.uncertainty.model import posterior as module
from ctuq.uncertainty.model.factor import PRIORS
from ctuq.uncertainty.model.left_out import Beside, LeftOut
from ctuq.uncertainty.model.posterior import ImagePosterior
from ctuq.uncertainty.model.route import NOISE_BY
from ctuq.uncertainty.model.solved import SolvedRays
from ctuq.uncertainty.results.kept_covariance import cosine_waves


def close(a, b, tolerance=1e-5):
    return float((a - b).norm()) <= tolerance * float(b.norm())


def posterior_of(model, point, rng, noise_by="float64"):
    return ImagePosterior(SolvedRays.on(model, point, noise_by=noise_by), rng=rng)


@pytest.fixture
def sampled(monkeypatch):
    """The floors' own reduction by draws, as where it is too dear otherwise."""
    monkeypatch.setattr(module, "EXACT_WORK", 0.0)


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
@pytest.mark.parametrize("prior", PRIORS)
def test_covariance_is_the_textbook_formula(rank, radius, prior, make, rng):
    model = make(prior, rank, radius=radius)
    point = some_point(model, floors=(1e-5, 0.05))
    found, P = posterior_of(model, point, rng), posterior_covariance(model, point)
    assert close(found.covariance(), P, 1e-4)
    assert close(found.std().flatten(), P.diagonal().sqrt(), 1e-4)
    assert found.exact


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
@pytest.mark.parametrize("noise_by", NOISE_BY)
def test_solver_inverts_the_system_of_the_rays(rank, radius, noise_by, make, rng):
    model = make(rank=rank, radius=radius)
    given = SolvedRays.on(model, some_point(model), noise_by=noise_by)
    b = torch.randn(3, len(model.target), generator=rng, dtype=torch.float64)
    K = plus_identity(given.system.dual_gram())
    assert float(relative(b - K(given.solve(b)), b).max()) < 1e-8
    assert close(K(given.solve(b)), b, 1e-5)


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize("rough", ["float32", "cg"])
def test_rough_solvers_are_refined_to_the_factorisation_s_posterior(rough, repeats, radius, make, rng):
    model = make(rank=20, radius=radius)
    model = model.part(torch.arange(len(model.target)).repeat(repeats))  # of 4, rays outnumber pixels
    point = some_point(model, floors=(1e-4, 0.5))
    a, b = (SolvedRays.on(model, point, noise_by=name) for name in ("float64", rough))
    assert a.noise.over_pixels == (len(model.target) > model.image.numel())
    assert b.noise.factor is None
    assert close(b.Z, a.Z, 1e-7)
    assert ((b.W - a.W) @ a.roots[0]).norm(dim=0).max() < 0.01  # where the noise is 1
    assert close(b.mean(), a.mean(), 1e-7)


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize("noise", [1.0, 1e-3])
def test_conjugate_gradients_given_the_edges_come_to_the_factorisation_s_posterior(noise, radius, make, monkeypatch):
    monkeypatch.setattr(solving, "_FEW", 4)
    monkeypatch.setattr(solving, "_EDGES", 12)
    monkeypatch.setattr(solving, "_STANDS_OUT", 1.0)
    near, steps = [], []
    monkeypatch.setattr(solving, "BlockCG", lambda *given: near.append(given[2]) or Counted(steps, *given))
    model = make(rank=20, radius=radius)
    point = some_point(model, floors=(1e-4, 0.5))
    point = replace(point, sigma2=noise * point.sigma2)
    a, b = (SolvedRays.on(model, point, noise_by=name) for name in ("float64", "cg"))
    assert close(b.Z, a.Z, 1e-5)
    assert close(b.mean(), a.mean(), 1e-7)
    rows = (model.views == 3).nonzero()[:, 0]
    found, exact = (LeftOut.of(given, rows).covariance() for given in (b, a))
    assert close(found, exact, 1e-3)
    assert near and all(n is not None for n in near)
    assert noise < 1 or max(steps) < 30


class Counted:
    def __init__(self, steps, *given):
        self.steps, self.solve = steps, BlockCG(*given)

    def __call__(self, K, b):
        found = self.solve(K, b)
        self.steps.append(found.steps)
        return found


@pytest.mark.parametrize("noise_by", NOISE_BY)
@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 2)])
def test_sampled_reduction_has_the_error_it_states(rank, radius, noise_by, make, rng, sampled):
    model = make(rank=rank, radius=radius)
    point = some_point(model, floors=(1e-4, 0.5))
    found = posterior_of(model, point, rng, noise_by)
    exact = posterior_covariance(model, point).diagonal().sqrt()
    miss = (found.std().flatten() / exact - 1).square().mean().sqrt()
    assert not found.exact
    assert 0 < found.error < 0.1
    assert float(miss) < 2 * found.error


def test_what_a_factor_leaves_out_counts_as_error(make, rng):
    errors = [posterior_of(model, some_point(model), rng).error for model in (make(rank=rank) for rank in (64, 50, 20, 8))]
    assert errors[0] == 0
    assert errors[0] < errors[1] < errors[2] < errors[3]


def test_variance_of_functionals_is_that_of_the_covariance(make, rng, monkeypatch):
    for rank, radius in ((64, 0), (20, 0), (20, 2)):
        model = make(rank=rank, radius=radius)
        point = some_point(model, floors=(1e-5, 0.05))
        matrix = model.features.matrix
        rows = torch.tensor([0, 5, 11, 40])
        M = (rays_matrix(model) * model.precision.sqrt()[:, None])[rows]
        exact = (M @ posterior_covariance(model, point) * M).sum(1)
        assert close(posterior_of(model, point, rng).variance_of(matrix.rows(rows)), exact, 1e-4)
    monkeypatch.setattr(module, "EXACT_WORK", 0.0)
    # The mean square of 256 draws is off by 9 %, and here these make up nearly all.
    assert close(posterior_of(model, point, rng).variance_of(matrix.rows(rows)), exact, 0.09)


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
def test_draws_have_the_textbook_covariance(rank, radius, make, rng):
    model = make("filter", rank, radius=radius)
    point = some_point(model, floors=(1e-4, 0.05))
    S = posterior_covariance(model, point)
    n = 1500
    Z = posterior_of(model, point, rng).deviations(n, rng=rng).double().flatten(1)
    distances = (Z @ torch.linalg.inv(S) * Z).sum(1).numpy()
    assert scipy.stats.kstest(distances, scipy.stats.chi2(64).cdf).pvalue > 1e-3
    miss = (Z.T @ Z / n - S).square().sum() / ((S.square().sum() + S.trace() ** 2) / n)
    assert 1 / 3 < float(miss) < 3


def test_no_floors_at_all_need_no_solve(make, rng):
    model = make(rank=64)
    point = some_point(model, floors=(1e-300, 1e-300))
    assert close(posterior_of(model, point, rng).std().flatten(), posterior_covariance(model, point).diagonal().sqrt(), 1e-3)


def test_directions_and_what_they_leave_make_up_the_variance(make, rng):
    model = make()
    point = some_point(model)
    leading = posterior_of(model, point, rng).directions(30, rng=rng).flatten(1)
    P = posterior_covariance(model, point)
    assert (leading.square().sum(0) <= P.diagonal() * (1 + 1e-6)).all()
    assert float(leading.square().sum()) > 0.9 * float(torch.linalg.eigvalsh(P)[-30:].sum())


def test_directions_hold_what_the_covariance_does_to_waves(make, rng):
    model = make()
    point = some_point(model)
    P = posterior_covariance(model, point)
    smooth = torch.from_numpy(cosine_waves((8, 8), 3))
    for count in (9, 20, 64):
        leading = posterior_of(model, point, rng).directions(count, waves=3, rng=rng).flatten(1)
        assert len(leading) <= count
        assert close(leading.T @ (leading @ smooth.T), P @ smooth.T, 1e-4)
        assert (leading.square().sum(0) <= P.diagonal() * (1 + 1e-4)).all()


def test_rows_of_a_sparse_matrix(rng):
    import numpy as np
    import scipy.sparse as sp

    M = sp.csr_array(sp.random_array((7, 5), density=0.5, rng=np.random.default_rng(0)))
    rows, dense = SparseRows(M), torch.from_numpy(M.toarray())
    x, y, v = (torch.rand(n, generator=rng, dtype=torch.float64) for n in (5, 7, 5))
    torch.testing.assert_close(rows(x[None])[0], dense @ x)
    torch.testing.assert_close(rows.transposed(y[None])[0], dense.T @ y)
    torch.testing.assert_close(rows.gram(v), dense @ torch.diag(v) @ dense.T)
    torch.testing.assert_close(rows.squares(v), dense.square() @ v)
    torch.testing.assert_close(rows.columns(1, 4), dense[:, 1:4].T)
    torch.testing.assert_close(rows.rows(torch.tensor([6, 0])).dense(0, 2), dense[[6, 0]])


def strong(model):
    """A point at which the rays of the network's prior are 10^5 times the noise, as in a real scan of many rays."""
    point = some_point(model, floors=(1e-10, 1e-4), sigma2=(1e-8,))
    psi = point.psi.clone()
    psi[0] += 6
    return replace(point, psi=psi)


@pytest.mark.parametrize("noise_by", NOISE_BY)
def test_a_prior_of_rays_far_above_the_noise_leaves_draws_as_wide_as_the_covariance(noise_by, make, rng):
    model = make()
    point = strong(model)
    seen, C = model.features.basis, model.prior.mixing(point.psi)
    assert float((((seen @ C) * seen).sum(1).mean() / point.sigma2).sqrt()) > 1e4
    assert float(model.misfit(point.psi).squares(model.features.matrix).max() / point.sigma2) < 1e3
    exact = posterior_of(model, point, rng).std().flatten()
    n = 800
    found = posterior_of(model, point, rng, noise_by).deviations(n, rng=rng).double().flatten(1).square().mean(0).sqrt()
    # A standard deviation from n draws is off by (2 n)^-1/2, 2.5 %.
    assert float((found / exact - 1).abs().max()) < 5 / (2 * n) ** 0.5


@pytest.mark.parametrize("noise_by", ["float32", "cg"])
def test_a_prior_of_rays_far_above_the_noise_leaves_views_as_uncertain_as_they_are(noise_by, make):
    model = make()
    point = strong(model)
    view = (model.views == 3).nonzero()[:, 0]
    found, exact = (LeftOut.of(SolvedRays.on(model, point, noise_by=name), view).covariance() for name in (noise_by, "float64"))
    assert float((found.diagonal() / exact.diagonal() - 1).abs().max()) < 0.01


@pytest.mark.parametrize(("rank", "radius"), [(64, 0), (20, 0), (20, 2)])
def test_rays_given_the_others_are_those_of_the_textbook_and_so_is_what_they_tell(rank, radius, make, rng):
    model = make(rank=rank, radius=radius)
    point = some_point(model)
    view = model.views == 3
    P, M = posterior_covariance(model, point, ~view), rays_matrix(model)[view]
    noise = (point.sigma2[0] / model.precision[view]).sqrt()
    left = LeftOut.of(SolvedRays.on(model, point), view.nonzero()[:, 0])
    assert close(left.covariance(), (M @ P @ M.T) / noise / noise[:, None] + torch.eye(len(M)), 1e-5)
    q = torch.randn(len(M), generator=rng, dtype=torch.float64)
    assert close(left.images_of(q[None]).flatten(), P @ M.T @ (q / noise), 1e-5)


@pytest.mark.parametrize("radius", [0, 2])
def test_rays_given_the_others_are_the_same_where_the_others_are_solved_anew(radius, make, rng):
    model = make(rank=20, radius=radius)
    point, rows, some = some_point(model), (model.views == 3).nonzero()[:, 0], torch.tensor([0, 4, 7])
    given = SolvedRays.on(model, point)
    left, beside = LeftOut.of(given, rows), Beside.of(given, rows, noise_by="cg")
    assert close(beside.joint(some), left.joint(some), 1e-3)  # solved as exactly as a variance of 1 and more needs
    assert close(beside.innovations(some), left.innovations(some), 1e-4)
    residual = torch.randn(len(rows), generator=rng, dtype=torch.float64)
    assert close(beside.correction(residual, 2.0, 0.5), left.correction(residual, 2.0, 0.5), 1e-4)


@pytest.mark.parametrize("noise_by", ["float64", "float32", "cg"])
def test_a_solved_scan_goes_with_its_last_name(noise_by, make, rng):
    # Its factor is gigabytes: a circle of references would keep it until the garbage collector comes.
    model = make(rank=20)
    given = SolvedRays.on(model, some_point(model, floors=(1e-5, 0.05)), noise_by=noise_by)
    given.errors(), given.draws(2, rng=rng), given.mean()
    kept = weakref.ref(given.noise)
    gc.disable()
    try:
        del given
        assert kept() is None
    finally:
        gc.enable()
