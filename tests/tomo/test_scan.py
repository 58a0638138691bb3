import numpy as np
import pytest

from ctuq.errors import InputError
from ctuq.tomo import ParallelBeam, Scan, VolumeGrid

GEOMETRY = ParallelBeam(angles=np.linspace(0, 3, 5), columns=8, pixel=1.0)


def scan(weights=None):
    rng = np.random.default_rng(0)
    return Scan(rng.normal(size=(5, 8)), GEOMETRY, weights)


def test_selecting_views_keeps_projections_weights_and_angles_together():
    weights = np.arange(1.0, 41.0).reshape(5, 8)
    chosen = scan(weights).select([3, 1])
    np.testing.assert_array_equal(chosen.projections, scan().projections[[3, 1]])
    np.testing.assert_array_equal(chosen.weights, weights[[3, 1]])
    np.testing.assert_array_equal(chosen.geometry.angles, GEOMETRY.angles[[3, 1]])
    assert "2 of 5" in chosen.provenance.steps[-1]


def test_every_second_view_starts_at_the_first():
    np.testing.assert_array_equal(scan().every(2).geometry.angles, GEOMETRY.angles[::2])


def test_binning_averages_columns_and_agrees_with_its_geometry():
    binned = scan().binned(3)
    assert binned.projections.shape == binned.geometry.shape == (5, 2)
    np.testing.assert_allclose(binned.projections[:, 1], scan().projections[:, 3:6].mean(1), rtol=1e-6)


def test_binning_leaves_out_rays_of_weight_zero():
    weights = np.ones((5, 8))
    weights[:, 0] = 0
    binned = scan(weights).binned(2)
    np.testing.assert_allclose(binned.projections[:, 0], scan().projections[:, 1], rtol=1e-6)
    np.testing.assert_allclose(binned.weights[:, 0], 0.5)


def test_binning_twice_is_binning_once_by_the_product():
    np.testing.assert_allclose(scan().binned(2).binned(2).projections, scan().binned(4).projections, atol=1e-6)
    assert scan().binned(2).binned(2).geometry == scan().binned(4).geometry


def test_cropping_keeps_the_columns_asked_for():
    cropped = scan(np.ones((5, 8))).cropped(2, 7)
    np.testing.assert_array_equal(cropped.projections, scan().projections[:, 2:7])
    assert cropped.weights.shape == cropped.geometry.shape == (5, 5)


@pytest.mark.parametrize("indices", [[], [5], [-1]])
def test_an_empty_or_impossible_selection_is_refused(indices):
    with pytest.raises(InputError):
        scan().select(indices)


def test_every_zeroth_view_is_refused():
    with pytest.raises(InputError, match="got 0"):
        scan().every(0)


@pytest.mark.parametrize(
    ("projections", "weights", "message"),
    [
        (np.zeros((4, 8)), None, "geometry says"),
        (np.full((5, 8), np.nan), None, "40 values"),
        (np.full((5, 8), np.inf), None, "infinite"),
        (np.zeros((5, 8)), -np.ones((5, 8)), "non-negative"),
        (np.zeros((5, 8)), np.zeros((5, 8)), "not all zero"),
        (np.zeros((5, 8)), np.ones((5, 7)), "weights have shape"),
    ],
)
def test_unusable_arrays_are_refused_with_the_number(projections, weights, message):
    with pytest.raises(InputError, match=message):
        Scan(projections, GEOMETRY, weights)


def test_a_truth_needs_a_grid_of_its_shape():
    with pytest.raises(InputError, match="grid"):
        Scan(np.zeros((5, 8)), GEOMETRY, truth=np.zeros((4, 4)))
    with pytest.raises(InputError, match="truth have shape"):
        Scan(np.zeros((5, 8)), GEOMETRY, truth=np.zeros((4, 4)), grid=VolumeGrid((5, 4), 1.0))


def test_a_scan_does_not_follow_later_changes_of_the_arrays_it_was_made_from():
    projections = np.zeros((5, 8), np.float32)
    made = Scan(projections, GEOMETRY)
    projections[:] = 1
    assert not made.projections.any()


def test_a_mask_chooses_the_views_where_it_is_true():
    chosen = scan().select([False, True, False, True, False])
    np.testing.assert_array_equal(chosen.projections, scan().projections[[1, 3]])
    with pytest.raises(InputError, match="each of the 5 views; this one is of 3"):
        scan().select([True, False, True])


@pytest.mark.parametrize("indices", [[0.9, 2], np.arange(0, 5, 2.5)])
def test_numbers_that_are_no_whole_ones_choose_no_view(indices):
    with pytest.raises(InputError, match="whole"):
        scan().select(indices)
    np.testing.assert_array_equal(scan().select([0.0, 2.0]).projections, scan().projections[[0, 2]])


def test_what_lies_under_a_mask_counts_for_no_projection():
    values, mask = np.ones((5, 8)), np.zeros((5, 8), bool)
    mask[1, 2:5] = True
    with pytest.raises(InputError, match="The projections hold 3 masked values"):
        Scan(np.ma.array(values, mask=mask), GEOMETRY)
    with pytest.raises(InputError, match="The weights hold 3 masked values"):
        Scan(values, GEOMETRY, np.ma.array(values, mask=mask))
    with pytest.raises(InputError, match="The angles hold 1 masked"):
        ParallelBeam(angles=np.ma.array(np.arange(3), mask=[0, 1, 0]), columns=8, pixel=1.0)
    np.testing.assert_array_equal(Scan(np.ma.array(values), GEOMETRY).projections, values)


def test_what_a_scan_has_made_its_own_is_not_copied_again_and_what_can_be_changed_is():
    first = scan(np.ones((5, 8)))
    told = first.warned("A sentence.")
    assert told.projections is first.projections and told.weights is first.weights
    rays = np.ones((5, 8), np.float32)
    view = rays.view()
    view.flags.writeable = False
    kept = Scan(view, GEOMETRY)
    rays[:] = 7
    assert (kept.projections == 1).all()
    spoilt = np.full((5, 8), np.nan, np.float32)
    spoilt.flags.writeable = False
    with pytest.raises(InputError, match="NaN"):
        Scan(spoilt, GEOMETRY)
