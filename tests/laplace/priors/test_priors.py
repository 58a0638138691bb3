import math

import pytest
import torch
from linear_models import fitted

from ctuq.errors import InputError
from ctuq.laplace.priors.diagonal import DiagonalPrior, FilterProcess, blocks_prior, g_prior, isotropic, layerwise
from ctuq.laplace.tangent.likelihoods import Categorical
from ctuq.laplace.tangent.model import linearise as linear_model
from ctuq.linops.gaussian import log_evidence
from ctuq.linops.jacobian.network import WeightBlock, jacobian_of
from ctuq.recon.unet import UNet, UNetOptions

BLOCKS = (
    WeightBlock("first", slice(0, 36), (2, 2, 3, 3)),
    WeightBlock("point", slice(36, 40), (2, 2, 1, 1)),
    WeightBlock("solid", slice(40, 94), (1, 2, 3, 3, 3)),
)
P = 94
TWINS = (
    WeightBlock("a", slice(0, 18), (2, 1, 3, 3)),
    WeightBlock("b", slice(18, 22), (2, 2, 1, 1)),
    WeightBlock("c", slice(22, 40), (1, 2, 3, 3)),
    WeightBlock("d", slice(40, 94), (1, 2, 3, 3, 3)),
)
KINDS = {
    "isotropic": isotropic,
    "layerwise": layerwise,
    "filter": FilterProcess,
    "blocks": lambda blocks: blocks_prior(blocks, {"ends": ["solid", "first"], "middle": ["point"]}),
    "shared filters": lambda blocks: FilterProcess(TWINS, {"twins": ["a", "c"], "point": ["b"], "solid": ["d"]}),
}
PRIORS = [*KINDS, "g"]


def make(kind, features):
    return g_prior(BLOCKS, features) if kind == "g" else KINDS[kind](BLOCKS)


def random_psi(prior, rng):
    return 0.5 * torch.randn(len(prior.names), generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("kind", PRIORS)
def test_components_sum_to_the_features_covariance(kind, rng):
    features = torch.randn(11, P, generator=rng, dtype=torch.float64)
    prior = make(kind, features)
    psi = random_psi(prior, rng)
    sigma = prior.covariance(torch.eye(P, dtype=torch.float64), psi)
    K = torch.tensordot(prior.coefficients(psi), torch.stack(list(prior.components(features))), 1)
    torch.testing.assert_close(sigma, sigma.T)
    torch.testing.assert_close(K, features @ sigma @ features.T, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", PRIORS)
def test_root_times_its_transpose_is_the_covariance(kind, rng):
    prior = make(kind, torch.randn(11, P, generator=rng, dtype=torch.float64))
    psi = random_psi(prior, rng)
    eye = torch.eye(P, dtype=torch.float64)
    # Rows are mapped by R^T, so that standard normal rows get the covariance R R^T.
    root = prior.root(eye, psi)
    torch.testing.assert_close(root.T @ root, prior.covariance(eye, psi))
    torch.testing.assert_close(prior.root_transpose(eye, psi), root.T)


@pytest.mark.parametrize("kind", PRIORS)
def test_precision_is_the_inverse_of_the_covariance(kind, rng):
    prior = make(kind, torch.randn(11, P, generator=rng, dtype=torch.float64))
    psi, v = random_psi(prior, rng), torch.randn(3, P, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(prior.precision(prior.covariance(v, psi), psi), v, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_variance_scales_its_own_members_and_nothing_else(kind, rng):
    prior = make(kind, torch.randn(11, P, generator=rng, dtype=torch.float64))
    psi, eye = random_psi(prior, rng), torch.eye(P, dtype=torch.float64)
    covered = [i for slices in prior.members for s in slices for i in range(s.start, s.stop)]
    assert sorted(covered) == list(range(P))
    assert len(prior.members) == int(prior.is_variance.sum())
    for entry, slices in enumerate(prior.members):
        raised = psi.clone()
        raised[entry] += math.log(4)
        factor = torch.ones(P, dtype=torch.float64)
        for s in slices:
            factor[s] = 4
        torch.testing.assert_close(prior.covariance(eye, raised), prior.covariance(eye, psi) * factor)


@pytest.mark.parametrize("kind", PRIORS)
def test_each_hyperparameter_has_a_name_a_start_and_a_kind(kind, rng):
    prior = make(kind, torch.randn(11, P, generator=rng))
    assert len(set(prior.names)) == len(prior.names) == len(prior.start()) == len(prior.is_variance)
    assert [name.startswith("lengthscale") for name in prior.names] == (~prior.is_variance).tolist()


def test_filter_process_kernel_is_exponential_in_tap_distance():
    variance, length = 0.7, 1.3
    prior = FilterProcess(BLOCKS[:1])
    psi = torch.tensor([math.log(variance), math.log(length)], dtype=torch.float64)
    sigma = prior.covariance(torch.eye(36, dtype=torch.float64), psi)
    kernel = torch.empty(9, 9, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            kernel[i, j] = variance * math.exp(-math.hypot(i // 3 - j // 3, i % 3 - j % 3) / length)
    torch.testing.assert_close(sigma, torch.block_diag(*[kernel] * 4))


@pytest.mark.parametrize(("block", "distances"), [(BLOCKS[0], 6), (BLOCKS[1], 1)])
def test_plane_filters_have_a_component_for_each_tap_distance(block, distances, rng):
    alone = WeightBlock(block.name, slice(0, math.prod(block.shape)), block.shape)
    prior = FilterProcess([alone])
    features = torch.randn(3, alone.slice.stop, generator=rng)
    assert len(list(prior.components(features))) == len(prior.coefficients(prior.start())) == distances
    assert ("lengthscale " + block.name in prior.names) == (distances > 1)


def test_solid_filters_correlate_along_all_three_axes(rng):
    prior = FilterProcess([WeightBlock("solid", slice(0, 54), (1, 2, 3, 3, 3))])
    sigma = prior.covariance(torch.eye(54, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    corner, far, other = 0, 26, 27
    assert float(sigma[corner, 9]) == pytest.approx(math.exp(-1))
    assert float(sigma[corner, far]) == pytest.approx(math.exp(-math.sqrt(12)))
    assert float(sigma[corner, other]) == 0
    assert len(list(prior.components(torch.randn(2, 54, generator=rng)))) == 10


def test_filters_of_a_group_share_their_kernel_and_are_found_block_by_block(rng):
    prior = KINDS["shared filters"](BLOCKS)
    assert prior.names == ("variance twins", "variance point", "variance solid", "lengthscale twins", "lengthscale solid")
    psi, v = random_psi(prior, rng), torch.randn(2, P, generator=rng, dtype=torch.float64)
    sigma = prior.covariance(torch.eye(P, dtype=torch.float64), psi)
    kernel = prior.kernel(psi, 0)
    torch.testing.assert_close(sigma[:9, :9], kernel)
    torch.testing.assert_close(sigma[31:40, 31:40], kernel)
    first, second = prior.filters(v, 0)
    assert (first.shape, second.shape) == ((2, 2, 9), (2, 2, 9))
    torch.testing.assert_close(second[:, 1], v[:, 31:40])
    assert torch.autograd.gradcheck(lambda p: prior.kernel(p, 0), psi.requires_grad_())


def test_filter_process_refuses_groups_of_several_filter_sizes():
    with pytest.raises(InputError, match="'all' of the filter process mixes"):
        FilterProcess(TWINS, {"all": ["a", "b", "c", "d"]})


@pytest.mark.parametrize(
    ("names", "groups", "diagonal", "told"),
    [
        (("a", "b"), (slice(0, 2), slice(3, 5)), None, "Weights 2 to 3"),
        (("a", "b"), (slice(0, 3), slice(2, 5)), None, "Weights 2 to 3"),
        (("a",), ((slice(1, 2), slice(2, 5)),), None, "Weights 0 to 1"),
        (("a",), (slice(0, 2), slice(2, 5)), None, "2 groups, but 1 names"),
        (("a",), (slice(0, 5),), torch.ones(4), "give 5 values"),
        (("a",), (slice(0, 5),), -torch.ones(5), "none negative"),
    ],
)
def test_diagonal_priors_that_leave_weights_out_or_overlap_are_refused(names, groups, diagonal, told):
    with pytest.raises(InputError, match=told):
        DiagonalPrior(names, groups, diagonal)


def test_filter_process_refuses_linear_layers():
    with pytest.raises(InputError, match="convolution"):
        FilterProcess([WeightBlock("linear", slice(0, 6), (2, 3))])


def evidence_and_prediction(make_prior, features, new, t):
    prior = make_prior(features)
    found = fitted(features, t, prior)
    K = prior.covariance(features, found.psi) @ features.T + float(found.sigma2) * torch.eye(len(t), dtype=torch.float64)
    cross = prior.covariance(new, found.psi) @ features.T
    return found.log_evidence, cross @ torch.linalg.solve(K, t)


def rescaling_changes(make_prior, rng):
    features = torch.randn(14, P, generator=rng, dtype=torch.float64)
    new = torch.randn(5, P, generator=rng, dtype=torch.float64)
    t = features @ torch.randn(P, generator=rng, dtype=torch.float64) + torch.randn(14, generator=rng, dtype=torch.float64)
    factors = torch.ones(P, dtype=torch.float64)
    factors[BLOCKS[0].slice] = 37.0
    value, mean = evidence_and_prediction(make_prior, features, new, t)
    value_2, mean_2 = evidence_and_prediction(make_prior, features * factors, new * factors, t)
    return abs(value - value_2), float((mean - mean_2).abs().max() / mean.abs().max())


def test_g_prior_does_not_see_a_rescaling_of_features(rng):
    assert max(rescaling_changes(lambda features: g_prior(BLOCKS, features), rng)) < 1e-8


def test_isotropic_prior_sees_a_rescaling_of_features():
    # These data have a maximum at which not all is noise.
    rng = torch.Generator().manual_seed(1)
    assert min(rescaling_changes(lambda features: isotropic(BLOCKS), rng)) > 1e-3


def test_g_prior_gives_dead_weights_the_largest_variance_of_the_others(rng):
    features = torch.randn(6, P, generator=rng)
    features[:, 3] = 0
    sigma = g_prior(BLOCKS, features).covariance(torch.eye(P), torch.zeros(1, dtype=torch.float64)).diagonal()
    others = 1 / features.double().square().sum(0)
    assert float(sigma[3]) == pytest.approx(float(others[torch.arange(P) != 3].max()))


class Energies:
    """A stand-in for a model: two energies of zero or nearly so."""

    blocks = BLOCKS

    def __init__(self):
        self.asked = []

    def energy(self, *, rng, probes):
        self.asked.append((rng, probes))
        energy = torch.linspace(1, 2, P, dtype=torch.float64)
        energy[5], energy[6], energy[7] = 0, 1e-15, 1e-11
        return energy


def test_g_prior_clips_dead_features_and_tells_their_number(caplog, rng):
    model = Energies()
    with caplog.at_level("INFO", logger="ctuq.laplace.priors.diagonal"):
        prior = g_prior(model, rng=rng, probes=100)
    assert "2 of 94 weights" in caplog.text
    assert model.asked == [(rng, 100)]
    assert prior.diagonal[5:8].tolist() == pytest.approx([1e11, 1e11, 1e11])


def test_g_prior_refuses_few_probes_and_blocks_without_features():
    with pytest.raises(InputError, match="at least 64"):
        g_prior(Energies(), probes=63)
    with pytest.raises(InputError, match="features too"):
        g_prior(BLOCKS)


def test_g_prior_of_a_model_is_that_of_its_assembled_features(rng):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)).double()
    model = linear_model(net, torch.randn(20, 3, generator=rng, dtype=torch.float64), likelihood=Categorical())
    exact = g_prior(model.blocks, model.features.dense())
    torch.testing.assert_close(g_prior(model).diagonal, exact.diagonal)


def test_g_prior_by_probes_is_close_to_the_exact_one(rng):
    network = UNet(UNetOptions(channels=(3, 3), skips=(2,), groups=0), rng).double()
    model = linear_model(network, torch.rand(1, 1, 12, 12, generator=rng).double(), offset="delta")
    exact = g_prior(model.blocks, model.features.dense()).diagonal
    probed = g_prior(model, rng=rng, probes=128).diagonal
    alive = exact > 0
    # The inverse energies' relative error is at most (2 / 128)^1/2 = 0.125 each, but they are not independent.
    ratio = (probed[alive] / exact[alive]).log()
    assert 0 < float(ratio.square().mean().sqrt()) < 0.15


def test_g_prior_evidence_does_not_see_weights_scaled_before_a_normalisation(rng):
    network = UNet(UNetOptions(channels=(4, 4), skips=(2,), groups=2), rng).double()
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.eps = 1e-12
    inputs = torch.rand(1, 1, 8, 8, generator=rng, dtype=torch.float64)
    rays = torch.randn(20, 64, generator=rng, dtype=torch.float64)
    noise = 0.1 * torch.randn(20, generator=rng, dtype=torch.float64)

    def evidence(make_prior):
        image, J = jacobian_of(network, inputs)
        features = J.T(rays.reshape(-1, 8, 8))
        t = rays @ image.flatten() * 0.1 + noise + features @ J.weights
        prior = make_prior(J.blocks, features)
        psi = torch.zeros(len(prior.names), dtype=torch.float64)
        K = prior.covariance(features, psi) @ features.T + 0.01 * torch.eye(20, dtype=torch.float64)
        return log_evidence(K, t)[0]

    before = evidence(g_prior), evidence(lambda blocks, _: isotropic(blocks))
    with torch.no_grad():
        network.down[0][0].weight.mul_(3.0)
        network.down[0][0].bias.mul_(3.0)
    after = evidence(g_prior), evidence(lambda blocks, _: isotropic(blocks))
    assert after[0] == pytest.approx(before[0], rel=1e-4)
    assert after[1] != pytest.approx(before[1], rel=1e-4)
