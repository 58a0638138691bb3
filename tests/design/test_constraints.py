import numpy as np
import pytest

from ctuq.design import Arc, CandidateGrid, DesignProblem, Every, Exposure, Stopping, Turning, candidate_transform
from ctuq.errors import InputError
from ctuq.tomo import FanBeam, VolumeGrid


def test_grid_leaves_its_end_out():
    np.testing.assert_allclose(np.rad2deg(CandidateGrid(*np.deg2rad([0, 180, 1])).angles), np.arange(180))
    np.testing.assert_allclose(np.rad2deg(CandidateGrid(*np.deg2rad([10, 20, 3])).angles), [10, 13, 16, 19])


@pytest.mark.parametrize("bounds", [(0, 1, 0), (0, 1, -0.1), (1, 0, 0.1), (0, 1, np.nan), (0, 1, 1e-9)])
def test_impossible_grids_are_refused(bounds):
    with pytest.raises(InputError):
        CandidateGrid(*bounds)


def test_arcs_run_counter_clockwise_and_wrap():
    angles = np.deg2rad([0, 10, 80, 100, 350, 370])
    assert Arc(*np.deg2rad([80, 100])).contains(angles).tolist() == [False, False, True, True, False, False]
    assert Arc(*np.deg2rad([340, 10])).contains(angles).tolist() == [True, True, False, False, True, True]
    assert Arc(0, 2 * np.pi).contains(angles).all()


def test_turning_goes_straight_or_the_shorter_way():
    angles = np.deg2rad([350.0, 90.0])
    np.testing.assert_allclose(Turning(2.0).between(0.0, angles), 2 * angles)
    np.testing.assert_allclose(Turning(2.0, endless=True).between(0.0, angles), 2 * np.deg2rad([10, 90]))
    assert (Turning(2.0).between(None, angles) == 0).all()


def test_bad_constraints_are_refused(A):
    for make in (
        lambda: Turning(-1),
        lambda: Stopping(gain=-1),
        lambda: Stopping(error=np.nan),
        lambda: Every(lambda m: None, -1),
        lambda: DesignProblem(A=A, budget=0),
        lambda: DesignProblem(A=A, exposure=Exposure(np.ones(3))),
        lambda: DesignProblem(A=A, exposure=Exposure(np.zeros(8))),
        lambda: DesignProblem(A=A, region=np.ones((2, 2))),
        lambda: DesignProblem(A=A, region=np.zeros((6, 6))),
        lambda: DesignProblem(A=A, askable=np.ones(3, bool)),
    ):
        with pytest.raises(InputError):
            make()
    with pytest.raises(InputError, match="All 8 candidate angles are forbidden"):
        DesignProblem(A=A, forbidden=(Arc(0, np.pi),))


def test_pilot_angles_join_the_candidates_once():
    geometry = FanBeam(angles=[0.0], columns=12, pixel=1.0, source_to_axis=50.0, source_to_detector=100.0)
    candidates = np.array([0.0, 0.5, 1.0])
    A, askable = candidate_transform(geometry, VolumeGrid((4, 4), 0.5), candidates, [0.5, 0.7])
    np.testing.assert_allclose(A.geometry.angles, [0, 0.5, 1.0, 0.7])
    assert askable.tolist() == [True, True, True, False]
    assert isinstance(A.geometry, FanBeam)
