import numpy as np
import pytest
import torch

from ctuq.errors import InputError
from ctuq.recon.dip import Data
from ctuq.recon.holdout import choose_views, default_views, held_views, missing_arc, split, useful_views
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform


@pytest.fixture
def normal():
    return np.random.default_rng(0)


@pytest.fixture
def data():
    geometry = ParallelBeam(angles=np.linspace(0, np.pi, 6, endpoint=False), columns=200, pixel=1.0)
    A = ray_transform(VolumeGrid((8, 8), 20.0), geometry, backend="matrix")
    y = torch.arange(1200.0).reshape(6, 200)
    return Data(A, y, 1 + y)


@pytest.mark.parametrize(
    ("n", "views"), [(1, 0), (4, 0), (5, 1), (7, 1), (8, 2), (11, 2), (12, 3), (39, 3), (40, 3), (130, 10)]
)
def test_default_number_of_views(n, views):
    assert default_views(n) == views


@pytest.mark.parametrize("n", range(5, 60, 3))
def test_chosen_views_are_spread_disjoint_and_never_empty(n, normal):
    angles = normal.permutation(np.linspace(0, np.pi, n, endpoint=False))
    k = default_views(n)
    fitted, held = choose_views(angles, k)
    assert len(held) == k >= 1
    assert len(fitted) == n - k
    assert sorted([*fitted, *held]) == list(range(n))
    ranks = np.sort(np.argsort(np.argsort(angles))[held])
    assert ranks[0] > 0 and ranks[-1] < n - 1
    assert np.ptp(np.diff(ranks)) <= 1 if k > 1 else True


@pytest.mark.parametrize("turned", [0.0, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("arc", [30, 60, 90, 120])
def test_of_a_limited_arc_the_views_at_both_sides_of_what_is_missing_stay_out(arc, turned, normal):
    sorted_angles = turned + np.deg2rad(np.arange(0, arc, 3))
    angles = normal.permutation(sorted_angles)
    _, held = choose_views(angles, 3)
    kept = np.sort(angles[held])
    assert kept[0] == sorted_angles[0] and kept[-1] == sorted_angles[-1]
    assert abs(kept[1] - sorted_angles.mean()) <= np.deg2rad(1.6)
    assert angles[choose_views(angles, 1)[1]] in sorted_angles[[0, -1]]


def test_an_arc_that_is_missing_behind_the_object_is_not_missing(normal):
    # Half of a turn of views, but in two quarters that together see every direction.
    angles = np.deg2rad(np.concatenate([np.arange(0, 90, 6), np.arange(270, 360, 6)]))
    _, held = choose_views(angles, 3)
    assert not {0.0, 354.0} & set(np.rad2deg(angles[held]).round(6))


@pytest.mark.parametrize("degrees", [np.arange(0, 180, 36), np.arange(0, 360, 3), np.arange(0, 130, 5)])
def test_few_views_and_a_narrow_gap_are_no_limited_arc(degrees):
    angles = np.deg2rad(degrees)
    held = choose_views(angles, default_views(len(angles)))[1]
    assert 0 not in held and len(angles) - 1 not in held


@pytest.mark.parametrize("turned", [0.0, 71.0])
def test_a_view_at_the_rim_of_a_gap_does_not_stay_out(turned):
    """As HTC 2022 ta has them: arcs of 60 degrees with gaps of 30 between them."""
    degrees = np.concatenate([np.arange(0, 61, 4.0), np.arange(272, 329, 4.0)]) + turned
    held = choose_views(np.deg2rad(degrees), 3)[1]
    rims = np.array([0.0, 60.0, 272.0, 328.0]) + turned
    assert len(held) == 3 and not set(degrees[held]) & set(rims)
    assert np.ptp(degrees[held]) > 180


def test_where_nearly_all_views_lie_at_rims_they_stay_out_all_the_same():
    degrees = np.array([0.0, 1.0, 45.0, 46.0, 90.0, 91.0, 135.0, 136.0])
    assert len(choose_views(np.deg2rad(degrees), 2)[1]) == 2


def test_no_views_held_out_leaves_all_to_the_fit():
    fitted, held = choose_views(np.linspace(0, 1, 6), 0)
    assert len(held) == 0
    assert list(fitted) == list(range(6))


def test_views_without_a_ray_that_counts_are_not_held_out():
    weights = np.ones((7, 3))
    weights[[1, 3, 5]] = 0
    useful = useful_views(weights)
    held = held_views(np.linspace(0, 1, 7), useful, 2)
    assert useful.tolist() == [0, 2, 4, 6] and len(held) == 2 and set(held) <= {0, 2, 4, 6}


@pytest.mark.parametrize("wanted", [-1, 4, 5])
def test_a_fit_without_views_is_refused(wanted):
    with pytest.raises(InputError, match="leave at least one for the fit"):
        held_views(np.linspace(0, 1, 7), np.array([0, 2, 4, 6]), wanted)


def test_held_views_stop_what_the_others_fit(data):
    fit, stop = split(data, np.array([1, 4]), rng=torch.Generator())
    for part, views in ((fit, [0, 2, 3, 5]), (stop, [1, 4])):
        assert torch.equal(part.y[0], data.y[views]) and torch.equal(part.weights[0], data.weights[views])
        assert np.array_equal(part.A.geometry.angles, data.A.geometry.angles[views])
    everything = torch.cat([fit.y[0], stop.y[0]])
    assert sorted(everything.reshape(-1).tolist()) == data.y.reshape(-1).tolist()


def test_without_held_views_one_ray_in_twenty_stops_the_fit(data):
    fit, stop = split(data, np.zeros(0, np.int64), rng=torch.Generator().manual_seed(0))
    share = (stop.weights > 0).double().mean().item()
    assert share == pytest.approx(0.05, abs=0.02)
    assert torch.equal(fit.weights + stop.weights, data.weights[None]) and not torch.any(fit.weights * stop.weights)


@pytest.mark.parametrize("first", [-76, -72, -68, -66, -62, -60, -58, -48, -44])
def test_an_arc_of_exactly_120_degrees_is_limited_whatever_rounding_does(first):
    angles = np.deg2rad(np.linspace(first, first + 120, 31))
    assert missing_arc(angles) is not None
    assert missing_arc(np.deg2rad(np.linspace(first, first + 122, 31))) is None
    assert missing_arc(np.deg2rad(np.linspace(first, first + 150, 31)), np.deg2rad(29.9)) is not None
