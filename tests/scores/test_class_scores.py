import math

import pytest
import torch

from ctuq.errors import InputError
from ctuq.scores.classes import _compositions as compositions
from ctuq.scores.classes import auroc, brier, calibration_error, joint_score, log_likelihood, weighted_joint


def test_scores_of_a_small_table_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    y = torch.tensor([0, 1])
    assert log_likelihood(p, y) == pytest.approx((math.log(0.7) + math.log(0.3)) / 2, rel=1e-6)
    assert brier(p, y) == pytest.approx((0.09 + 0.04 + 0.01 + 0.01 + 0.49 + 0.36) / 2, rel=1e-6)
    assert calibration_error(p, y) == pytest.approx((0.3 + 0.6) / 2, rel=1e-6)
    assert calibration_error(p, y, bins=1) == pytest.approx(abs(0.5 - 0.65), rel=1e-6)


def test_binary_probabilities_are_those_of_two_classes():
    p, y = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([1, 0, 0])
    both = torch.stack([1 - p, p], 1)
    for score in (log_likelihood, brier, calibration_error):
        assert score(p, y) == pytest.approx(score(both, y), rel=1e-6)
    assert brier(p, y) == pytest.approx(2 * float((p - y).square().mean()), rel=1e-6)


def test_calibration_error_of_calibrated_predictions_is_small_and_of_overconfident_ones_is_the_excess(rng):
    n = 20000
    p = torch.rand(n, generator=rng, dtype=torch.float64)
    y = (torch.rand(n, generator=rng, dtype=torch.float64) < p).long()
    # Each bin's gap has standard deviation at most 0.5 / sqrt(n_bin); eight of the 15 bins are used.
    assert calibration_error(p, y) < 3 * 0.5 * math.sqrt(8 / n)
    assert calibration_error(torch.full((n,), 1.0), y) == pytest.approx(float((y == 0).double().mean()), abs=1e-9)


def test_confidences_on_an_edge_belong_to_the_lower_bin():
    p = torch.tensor([0.6, 0.55], dtype=torch.float64)
    # Together in (0.4, 0.6], a right and a wrong choice cancel in part.
    assert calibration_error(p, torch.tensor([1, 0]), bins=5) == pytest.approx(abs(0.4 - 0.55) / 2)
    assert calibration_error(p + 0.03, torch.tensor([1, 0]), bins=5) == pytest.approx((0.37 + 0.58) / 2)


def test_roc_area_counts_pairs_and_halves_ties(rng):
    scores = torch.randint(0, 4, (40,), generator=rng).double()
    positive = torch.rand(40, generator=rng) < 0.4
    wins = (scores[positive][:, None] > scores[~positive]).double() + 0.5 * (scores[positive][:, None] == scores[~positive])
    assert auroc(scores, positive) == pytest.approx(float(wins.mean()), rel=1e-12)
    assert auroc(torch.arange(4.0), torch.tensor([False, False, True, True])) == 1
    with pytest.raises(InputError, match="both kinds"):
        auroc(scores, torch.ones(40, dtype=torch.bool))


@pytest.mark.parametrize("kappa", [1, 2, 4])
def test_joint_score_of_a_certain_function_is_tau_times_the_marginal(kappa, rng):
    certain = torch.randn(1, 50, generator=rng).expand(8, -1)
    score = joint_score(certain, kappa, rng=rng)
    assert score.tau == (10 * (kappa - 1) if kappa > 1 else 1)
    assert score.value == pytest.approx(score.tau * score.marginal, rel=1e-12)


def test_joint_score_of_single_data_is_the_log_likelihood_of_the_mean(rng):
    draws = torch.randn(8, 50, generator=rng, dtype=torch.float64)
    score = joint_score(draws, 1, rng=rng)
    assert score.value == pytest.approx(float((draws.logsumexp(0) - math.log(8)).mean()), rel=1e-12)


def test_joint_score_exceeds_the_marginals_where_draws_agree_with_the_data_together(rng):
    # Two hypotheses, the data follow the first: data seen together tell it.
    right, wrong = math.log(0.9), math.log(0.1)
    draws = torch.tensor([[right], [wrong]]).expand(2, 40)
    score = joint_score(draws, 3, rng=rng)
    assert score.value == pytest.approx(20 * right + math.log1p((0.1 / 0.9) ** 20) - math.log(2), rel=1e-6)
    assert score.value > score.tau * score.marginal


def test_joint_score_of_a_gaussian_pair_is_its_closed_form(rng):
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    y, noise, k = torch.tensor([0.4, 0.7], dtype=torch.float64), 2.0, 200000
    f = torch.randn(k, 2, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    log_p = -0.5 * ((y - f) ** 2 / noise + math.log(2 * math.pi * noise))
    weights = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    found = weighted_joint(log_p[:, None].expand(-1, 2, -1), weights)
    for value, b in zip(found, weights, strict=True):
        # N(y; f, noise)^b is N(y; f, noise / b) times a constant, and that has a closed mean.
        constant = (-0.5 * b * math.log(2 * math.pi * noise) + 0.5 * (2 * math.pi * noise / b).log()).sum()
        joint = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance + torch.diag(noise / b))
        powers = (b * log_p).sum(1).exp()
        error = float(powers.std() / powers.mean()) / math.sqrt(k)
        assert abs(float(value - joint.log_prob(y) - constant)) < 4 * error


def test_weights_are_uniform_among_positive_integers_of_the_given_sum(rng):
    counts = compositions(27000, 3, 5, rng)
    assert bool((counts.sum(1) == 5).all())
    assert int(counts.min()) == 1
    kinds, numbers = counts.unique(dim=0, return_counts=True)
    assert len(kinds) == 6
    # Six cells of probability 1/6; chi-square of 5 degrees of freedom is above 25.7 with probability 1e-4.
    assert float(((numbers - 4500.0) ** 2 / 4500).sum()) < 25.7


def test_error_of_the_joint_score_is_that_of_the_groups(rng):
    values = [joint_score(torch.randn(4, 60, generator=rng), 2, rng=rng, shuffles=10) for _ in range(40)]
    spread = torch.tensor([v.value for v in values]).std()
    told = sum(v.error for v in values) / len(values)
    # Shuffles average the division into groups out, so that the stated error is an upper bound of about the right size.
    assert 0.4 * told < float(spread) < 1.3 * told


@pytest.mark.parametrize("score", [log_likelihood, brier, calibration_error])
def test_logits_and_wrong_classes_are_refused(score):
    with pytest.raises(InputError, match="logits"):
        score(torch.tensor([[2.0, -1.0]]), torch.tensor([0]))
    with pytest.raises(InputError, match="Classes run"):
        score(torch.tensor([[0.5, 0.5]]), torch.tensor([2]))
    with pytest.raises(InputError, match="same data"):
        score(torch.tensor([[0.5, 0.5]]), torch.tensor([0, 1]))


def test_groups_larger_than_the_data_are_refused(rng):
    with pytest.raises(InputError, match="Groups of 4"):
        joint_score(torch.zeros(2, 3), 4, rng=rng)
