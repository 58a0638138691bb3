from dataclasses import fields

import numpy as np
import pytest
import torch

from ctuq.design import (
    A_OPTIMAL,
    EIG,
    ESE,
    Arc,
    DenseCovariance,
    Designer,
    DesignProblem,
    Every,
    Exposure,
    GaussianModel,
    Stopping,
    Turning,
    grow,
)
from ctuq.design.greedy import best_view
from ctuq.errors import InputError
from ctuq.tomo import ParallelBeam, VolumeGrid, ray_transform


@pytest.fixture
def make(A, model):
    """A designer with two pilot views told."""

    def build(learn=None, pilot=(0, 4), values=None, **settings):
        designer = Designer(DesignProblem(A=A, **settings), model if learn is None else learn)
        pilot = np.array(pilot)
        shape = (len(pilot), A.geometry.columns)
        designer.tell(A.geometry.angles[pilot], np.zeros(shape) if values is None else values[pilot])
        return designer

    return build


def same(state, other):
    """Whether two states hold the same values."""
    return all(np.array_equal(getattr(state, f.name), getattr(other, f.name)) for f in fields(state) if f.name != "log")


@pytest.mark.parametrize("criterion", [EIG, ESE, A_OPTIMAL])
def test_design_does_not_change_with_the_measured_values(make, y, criterion):
    designs = []
    for values in (y, 100 * y[::-1]):
        designer = make(values=values, criterion=criterion)
        grow(designer, lambda a, d=designer, v=values: v[d.problem.index(a)], 7)
        designs.append(designer.state.views.tolist())
    assert designs[0] == designs[1]
    assert sorted(designs[0]) == sorted(set(designs[0]))


@pytest.mark.parametrize("criterion", [EIG, ESE, A_OPTIMAL])
def test_batch_is_what_asking_one_by_one_gives(make, y, criterion):
    batch = make(criterion=criterion).ask(4)
    designer, singles = make(criterion=criterion), []
    for _ in range(4):
        asked = designer.ask()
        singles.append((asked.views[0], asked.gains[0]))
        designer.tell(asked.angles, y[asked.views])
    assert batch.views.tolist() == [v for v, _ in singles]
    np.testing.assert_allclose(batch.gains, [g for _, g in singles], rtol=1e-9)


def test_batch_does_not_repeat_what_its_first_angle_tells():
    geometry = ParallelBeam(angles=[0.0, 0.01, np.pi / 2], columns=9, pixel=1.0)
    A = ray_transform(VolumeGrid((6, 6), 1.0), geometry, backend="matrix")
    along_y = torch.kron(torch.ones(6, 6), torch.eye(6)).double()
    designer = Designer(DesignProblem(A=A), GaussianModel(DenseCovariance(along_y + 0.1 * torch.eye(36).double()), 0.2))
    batch = designer.ask(2)
    assert set(np.argsort(batch.scores[0])[1:]) == {0, 1}
    assert batch.views[1] == 2


def test_pending_angles_count_as_measured(make, y):
    designer = make()
    first = designer.ask(2)
    waiting = designer.ask(2, pending=first.angles)
    designer.tell(first.angles, y[first.views])
    now = designer.ask(2)
    assert waiting.views.tolist() == now.views.tolist()
    np.testing.assert_allclose(waiting.scores, now.scores, rtol=1e-9)


def test_asking_changes_nothing_but_the_log(make):
    designer = make()
    before = designer.state
    one, other = designer.ask(3), designer.ask(3)
    assert one.views.tolist() == other.views.tolist()
    assert same(before, designer.state)
    assert [d.kind for d in designer.state.log] == ["tell", "ask", "ask"]
    entry = designer.state.log[-1]
    np.testing.assert_array_equal(entry.scores, other.scores)
    np.testing.assert_array_equal(entry.angles, other.angles)
    assert entry.scores.shape == (3, designer.problem.views)
    assert entry.reason == other.reason


def test_designer_goes_on_from_a_saved_state(make, A, model, y):
    designer = make()
    asked = designer.ask(2)
    designer.tell(asked.angles, y[asked.views])
    again = Designer(designer.problem, model, state=designer.state)
    np.testing.assert_allclose(again.scores, designer.scores, rtol=1e-9)
    assert again.ask(2).views.tolist() == designer.ask(2).views.tolist()


def test_measured_views_are_not_asked_for_again_unless_repeats_are_allowed(make):
    designer = make()
    assert not designer.available[[0, 4]].any()
    assert not set(designer.ask(6).views) & {0, 4}
    assert make(repeat=True).available.all()


def test_forbidden_arcs_and_views_off_the_grid_are_never_asked_for(make, A):
    arc = Arc(np.deg2rad(40), np.deg2rad(70))
    askable = np.arange(8) != 7
    designer = make(forbidden=(arc,), askable=askable)
    gone = np.rad2deg(A.geometry.angles)
    assert set(designer.ask(8).views) == {v for v in range(7) if not 40 <= gone[v] <= 70} - {0, 4}
    assert len(designer.scores) == 8


def test_equal_candidates_are_chosen_by_angle_not_by_rounding(A, model):
    values, free = np.array([1.0, 1 + 1e-12, 1.0, 2.0]), np.array([True, True, True, False])
    assert best_view(values, free, np.array([0.3, 0.2, 0.1, 0.0])) == 2
    assert best_view(np.array([1.0, 1.1]), np.ones(2, bool), np.array([0.0, 1.0])) == 1
    white = GaussianModel(DenseCovariance(torch.zeros(36, 36, dtype=torch.float64)), 0.2)
    designer = Designer(DesignProblem(A=A), white)
    assert designer.ask(3).views.tolist() == [0, 1, 2]


def test_turning_is_weighed_against_the_gain(make):
    dear = make(turning=Turning(cost=1e6)).ask(2)
    assert dear.views.tolist()[0] in (3, 5)
    free, cheap = make().ask(3), make(turning=Turning(cost=1e-9)).ask(3)
    assert free.views.tolist() == cheap.views.tolist()


def test_gain_is_weighed_by_dose_and_noise_follows_it(make):
    dose = np.ones(8)
    dose[2] = 4.0
    plain, strong = make(), make(exposure=Exposure(dose))
    assert strong.scores[2] > plain.scores[2]
    assert strong.ask().views[0] != 2
    assert strong.state.spent == pytest.approx(2.0)
    np.testing.assert_allclose(np.delete(strong.scores, 2), np.delete(plain.scores, 2), rtol=1e-12)


def test_counts_make_rays_through_the_object_worth_less(make, A, S):
    image = torch.zeros(6, 6)
    image[1:4, 1:4] = 0.8
    learned = GaussianModel(DenseCovariance(S), 0.2, image)
    designer = make(lambda m: learned, exposure=Exposure(counts=True))
    designer.tell(A.geometry.angles[[2]], np.zeros((1, 9)), np.full((1, 9), 3.0))
    measured = np.concatenate([np.ones((2, 9)), np.full((1, 9), 3.0)])
    shadow = np.exp(-A(image).numpy().astype(float))
    expected = shadow * measured.mean() / shadow[[0, 4, 2]].mean()
    fresh = Designer(designer.problem, learned, state=designer.state).conditioned.precision * 0.2
    np.testing.assert_allclose(fresh.numpy(), expected, rtol=1e-5)


def test_columns_that_never_counted_are_expected_to_count_for_nothing(A, model):
    designer = Designer(DesignProblem(A=A), model)
    weights = np.ones((2, 9))
    weights[:, 3] = 0
    weights[0, 5] = 0
    designer.tell(A.geometry.angles[:2], np.zeros((2, 9)), weights)
    precision = Designer(designer.problem, model, state=designer.state).conditioned.precision
    assert (precision[:, 3] == 0).all()
    assert (precision[:, 5] > 0).all()


def test_budget_counts_pilot_and_failed_exposures(make, A, y):
    designer = make(budget=5.0)
    designer.reject(A.geometry.angles[1], "beam lost")
    asked = designer.ask(4)
    assert len(asked.views) == 2
    designer.tell(asked.angles, y[asked.views])
    with pytest.raises(InputError, match="budget of 5 is exhausted"):
        designer.ask()


def test_no_candidate_left_is_said(make):
    designer = make(pilot=range(8))
    with pytest.raises(InputError, match="No candidate is left"):
        designer.ask()


def test_stopping_rules_give_their_figures(make):
    gain = float(make().ask().gains[0])
    go, stop = (make(stopping=Stopping(gain=g)).ask() for g in (0.9 * gain, 1.1 * gain))
    assert not go.stop and go.reason.startswith("Go on")
    assert stop.stop and f"{gain:.4g} nats (stop below {1.1 * gain:g})" in stop.reason
    error = make().predicted_error
    assert make(stopping=Stopping(error=1.01 * error)).ask().stop
    assert not make(stopping=Stopping(error=0.99 * error)).ask().stop


def test_predicted_error_is_the_posterior_standard_deviation_over_the_region(make, S, rows):
    from brute import conditioned

    region = np.zeros((6, 6), bool)
    region[2:5, 1:3] = True
    designer = make(region=region)
    exact = conditioned(S, rows, torch.full((8, 9), 5.0, dtype=torch.float64), [0, 4])
    inside = torch.from_numpy(region.ravel())
    assert designer.predicted_error == pytest.approx(float(exact.diagonal()[inside].mean().sqrt()), rel=1e-8)


def test_growing_stops_by_the_rule(make, y):
    designer = make(stopping=Stopping(gain=1e9))
    grow(designer, lambda a: y[designer.problem.index(a)], 6)
    assert len(designer.state.views) == 2


def test_rejected_projection_is_taken_back_and_can_be_measured_again(make, A, y):
    designer = make()
    before = designer.scores
    designer.tell(A.geometry.angles[[3, 6]], y[[3, 6]])
    designer.reject(A.geometry.angles[[3, 6]])
    np.testing.assert_allclose(designer.scores, before, rtol=1e-9)
    assert designer.available[[3, 6]].all()
    assert designer.state.spent == 4
    designer.reject(A.geometry.angles[6], retry=False)
    assert designer.available[3] and not designer.available[6]
    assert designer.state.spent == 5
    assert [d.kind for d in designer.state.log] == ["tell", "tell", "reject", "reject"]


def test_bad_projections_are_refused_and_change_nothing(make, A, y):
    designer = make()
    before, scores = designer.state, designer.scores
    angle = A.geometry.angles[3]
    nan = y[3].copy()
    nan[2] = np.nan
    faults = [
        (angle, y[3][:-1], None, "shape"),
        (angle, y[[3, 5]], None, "shape"),
        (angle, nan, None, "NaN"),
        (angle, "words", None, "not an array"),
        (angle + 0.02, y[3], None, "not among the candidates"),
        (np.nan, y[3], None, "finite"),
        (A.geometry.angles[[3, 3]], y[[3, 3]], None, "stands twice"),
        (A.geometry.angles[4], y[4], None, "told before"),
        (angle, y[3], -np.ones(9), "non-negative"),
        (angle, y[3], np.zeros(9), "not all zero"),
    ]
    for where, values, weights, message in faults:
        with pytest.raises(InputError, match=message):
            designer.tell(where, values, weights)
    assert designer.state is before
    np.testing.assert_array_equal(designer.scores, scores)


def test_failure_to_learn_leaves_the_designer_as_it_was(make, A, model, y):
    def learn(measured):
        if len(measured.views) > 2:
            raise InputError("nothing learned")
        return model

    designer = make(learn)
    before, scores = designer.state, designer.scores
    with pytest.raises(InputError, match="nothing learned"):
        designer.tell(A.geometry.angles[3], y[3])
    assert designer.state is before
    np.testing.assert_array_equal(designer.scores, scores)


def test_nothing_can_be_asked_before_a_model_was_learned(A, model):
    designer = Designer(DesignProblem(A=A), lambda measured: model)
    with pytest.raises(InputError, match="pilot"):
        designer.ask()
    assert len(Designer(DesignProblem(A=A), model).ask(3).views) == 3


def test_model_is_learned_again_every_so_many_views(make, A, S, y):
    seen = []

    def learn(measured):
        seen.append(len(measured.views))
        return GaussianModel(DenseCovariance(S / len(measured.views)), 0.2)

    designer = make(Every(learn, 3))
    grow(designer, lambda a: y[designer.problem.index(a)], 8)
    assert seen == [2, 5, 8]
    assert designer.state.learned == 8
    assert [d.reason.split(" (")[0] for d in designer.state.log if d.kind == "learn"] == [
        f"Learned from {k} views" for k in seen
    ]
    exact = Designer(designer.problem, GaussianModel(DenseCovariance(S / 8), 0.2), state=designer.state)
    np.testing.assert_allclose(designer.scores, exact.scores, rtol=1e-9)


def test_in_degrees_a_designer_does_what_it_does_in_radians(A, model, y):
    problem = DesignProblem(A=A)
    plain, turned = Designer(problem, model), Designer(problem, model, degrees=True)
    pilot = A.geometry.angles[[0, 4]]
    plain.tell(pilot, y[[0, 4]])
    turned.tell(np.rad2deg(pilot), y[[0, 4]])
    one, two = plain.ask(2), turned.ask(2)
    assert two.degrees and two.views.tolist() == one.views.tolist()
    np.testing.assert_allclose(two.angles, np.rad2deg(one.angles))
    assert two.to_dict()["angles_deg"] == pytest.approx(np.rad2deg(one.angles).tolist())
    pending = [plain.ask(pending=one.angles[:1]).views, turned.ask(pending=two.angles[:1]).views]
    assert pending[0].tolist() == pending[1].tolist()
    grow(turned, lambda degrees: y[problem.index(np.deg2rad(degrees))], 4)
    turned.reject(two.angles[:1], "blurred")
    assert turned.state.views.tolist()[:2] == [0, 4]
    assert len(turned.state.views) == 3
    with pytest.raises(InputError):
        turned.tell(one.angles[1] + 1e-3, y[0])
