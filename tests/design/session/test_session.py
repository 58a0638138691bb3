import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from scanner import GEOMETRY, SIZE, TINY, by_designer, grown, measure, piloted, places, sinogram, start

from ctuq.design import A_OPTIMAL, PRIORS, Designer, DesignProblem, Every, Isotropic, Matern, learner
from ctuq.design.session import file as sessionfile
from ctuq.design.session.model import network_options
from ctuq.design.session.plan import ANEW, learning_due
from ctuq.design.session.problem import design_problem
from ctuq.design.session.session import Session
from ctuq.errors import InputError
from ctuq.locks import locked
from ctuq.tomo import FanBeam


def degrees(suggestion):
    return np.rad2deg(suggestion.angles).round(6).tolist()


def test_before_anything_is_told_the_pilot_is_equidistant(tmp_path):
    assert degrees(start(tmp_path, pilot=5).ask()) == [0, 36, 72, 108, 144]


def test_a_session_and_its_suggestions_are_a_line_in_a_notebook(tmp_path):
    session = start(tmp_path, pilot=5, prior="isotropic", budget=9)
    assert repr(session).startswith("<Session: ") and "; 0 of 30 angles measured; dose 0 of 9; isotropic not " in repr(session)
    assert repr(Session(session.path, degrees=True).ask()) == "<Suggestion: 0°, 36°, 72°, 108° and 1 more; no gains yet; go on>"
    (tmp_path / "on").mkdir()
    session = piloted(tmp_path / "on", prior="isotropic")
    assert repr(session).endswith("; 3 of 30 angles measured; dose 3; isotropic learned from 3 views>")
    line = repr(session.ask(2))
    assert re.fullmatch(r"<Suggestion: [\d.]+, [\d.]+ rad; gains [\d.]+, [\d.]+ nats?; go on>", line)


def test_a_link_to_a_session_is_the_session(tmp_path):
    session, link = start(tmp_path, pilot=2), tmp_path / "today.h5"
    link.symlink_to(session.path.name)
    Session(link).tell(0.0, measure(np.zeros(1)))
    assert link.is_symlink() and len(Session(session.path).state.views) == 1


def test_pilot_views_avoid_forbidden_arcs_and_what_is_being_measured(tmp_path):
    session = start(tmp_path, pilot=5, forbidden=((np.deg2rad(68), np.deg2rad(110)),))
    pilot = degrees(session.ask())
    assert len(pilot) == 5 and not any(68 <= angle <= 110 for angle in pilot)
    assert degrees(session.ask(pending=np.deg2rad(pilot[:3]))) == pilot[3:]
    session.tell(np.deg2rad(pilot[:2]), measure(np.deg2rad(pilot[:2])))
    assert degrees(session.ask()) == pilot[2:]
    with pytest.raises(InputError, match="being measured"):
        session.ask(pending=np.deg2rad(pilot[2:]))


def test_a_failed_pilot_view_is_replaced_by_the_angle_farthest_from_the_others(tmp_path):
    session = start(tmp_path, pilot=3)
    assert degrees(session.ask()) == [0, 60, 120]
    session.tell(0.0, measure(0.0))
    session.reject(np.deg2rad(60), retry=False)
    assert degrees(session.ask()) == [120, 54] or degrees(session.ask()) == [120, 66]


def test_fan_pilots_go_round_and_those_over_less_than_a_turn_stay_within(tmp_path):
    fan = {"columns": 18, "pixel": 2.0, "source_to_axis": 60.0, "source_to_detector": 120.0}
    for name, stop, expected in (("turn", 360, [0, 90, 180, 270]), ("half", 180, [0, 45, 90, 135])):
        geometry = FanBeam(angles=np.deg2rad(np.arange(0, stop, 5.0)), **fan)
        session = Session.start(tmp_path / f"{name}.h5", geometry, sessionfile.Settings(size=12, prior="isotropic", pilot=4))
        assert degrees(session.ask()) == expected


@pytest.mark.parametrize(
    ("prior", "learn"), [("isotropic", Every(Isotropic(), 0)), ("edges", learner("edges")), ("matern", Every(Matern(), 2))]
)
def test_a_session_chooses_what_a_designer_in_one_process_chooses(tmp_path, prior, learn):
    session = piloted(tmp_path, prior=prior, retrain_every=2 if prior == "matern" else 0)
    designer = Designer(design_problem(session.record), learn)
    designer.tell(session.record.angles[session.state.views], measure(session.record.angles[session.state.views]))
    assert grown(session, 3) == by_designer(designer, 3)
    ours, theirs = Session(session.path).ask(), designer.ask()
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-9)
    assert ours.error == pytest.approx(theirs.error, rel=1e-9)


@pytest.mark.parametrize("prior", ["isotropic", "displaced", "lindip", "gprior", "lindip+edges"])
def test_without_its_cache_a_session_says_the_same(tmp_path, prior):
    session = piloted(tmp_path, prior=prior)
    grown(session, 1)
    before = Session(session.path).ask(3)
    shutil.rmtree(tmp_path / "s.h5.cache")
    after = Session(session.path).ask(3)
    assert degrees(after) == degrees(before)
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-5)


def test_a_damaged_cache_is_made_again(tmp_path, caplog):
    session = piloted(tmp_path, prior="edges")
    before = session.ask(3)
    for file in (tmp_path / "s.h5.cache").rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:40])
    after = Session(session.path).ask(3)
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-9)
    assert "made again" in caplog.text


def test_once_learned_a_new_process_needs_no_product_with_the_network(tmp_path, monkeypatch):
    session = piloted(tmp_path, prior="lindip")
    expected = session.ask(3).scores

    def forbidden(*_, **__):
        raise AssertionError("a product with the network")

    monkeypatch.setattr("ctuq.linops.jacobian.network.Jacobian._apply", forbidden)
    monkeypatch.setattr("ctuq.linops.jacobian.network.Jacobian._apply_transpose", forbidden)
    fresh = Session(session.path)
    np.testing.assert_allclose(fresh.ask(3).scores, expected, rtol=1e-12)
    angles = fresh.ask().angles
    fresh.tell(angles, measure(angles))
    assert len(Session(session.path).ask(2).angles) == 2


def test_the_cache_holds_nothing_of_the_past(tmp_path):
    session = piloted(tmp_path, prior="lindip", retrain_every=2)
    for _ in range(2):
        grown(session, 1)
        names = [entry.name for entry in (tmp_path / "s.h5.cache").iterdir()]
        rows = sum(name.endswith("-rows") for name in names)
        blocks, models = (sum(name.endswith(end) for name in names) for end in ("-blocks", "-model"))
        assert (rows, blocks, models) == (len(Session(session.path).state.views), 1, 1)


def test_a_batch_worked_out_ahead_is_the_one_asked_for_directly(tmp_path):
    session = piloted(tmp_path, prior="edges", batch=3)
    kept = Session(session.path).ask()
    direct = session._builder.designer(session.record).ask(3)
    np.testing.assert_array_equal(kept.angles, direct.angles)
    np.testing.assert_allclose(kept.scores, direct.scores, rtol=1e-12)
    assert degrees(Session(session.path).ask(2)) == degrees(kept)[:2]
    assert len(Session(session.path).ask(5).angles) == 5


def test_pending_angles_count_as_measured(tmp_path):
    session = piloted(tmp_path)
    three = session.ask(3)
    rest = session.ask(2, pending=three.angles[:1])
    np.testing.assert_array_equal(rest.angles, three.angles[1:])
    np.testing.assert_allclose(rest.scores, three.scores[1:], rtol=1e-9)
    told = session.record.angles[session.state.views]
    np.testing.assert_allclose(session.ask(3, pending=told).scores, three.scores, rtol=1e-9)


def test_every_decision_is_in_the_log(tmp_path):
    session = piloted(tmp_path, budget=20)
    angles = session.ask().angles
    session.tell(angles, measure(angles))
    session.reject(angles, "the beam was off")
    kinds = [entry.kind for entry in Session(session.path).state.log]
    assert kinds == ["pilot", "tell", "learn", "ask", "tell", "reject"]
    asked, rejected = session.state.log[3], session.state.log[5]
    assert asked.scores.shape == (1, 30) and asked.gains[0] == asked.scores[0].max() and asked.error > 0
    assert "nats" in asked.reason and rejected.reason == "the beam was off" and rejected.spent == 4


def test_rejected_views_cost_their_dose_and_can_be_told_again_unless_final(tmp_path):
    session = piloted(tmp_path)
    angle = session.ask().angles
    session.tell(angle, measure(angle))
    session.reject(angle)
    assert (len(session.state.views), session.state.spent) == (3, 4)
    assert degrees(session.ask()) == np.rad2deg(angle).round(6).tolist()
    session.reject(angle, retry=False)
    notes = [entry.reason for entry in session.state.log if entry.kind == "reject"]
    assert "failed" not in notes[0] and "counted as a failed exposure, dose 1" in notes[1]
    assert (session.state.spent, degrees(session.ask()) != np.rad2deg(angle).round(6).tolist()) == (5, True)


@pytest.mark.parametrize(("prior", "every", "expected"), [("isotropic", 2, 1), ("isotropic", 0, 0), ("edges", 0, 3)])
def test_the_model_is_learned_again_when_it_is_due(tmp_path, prior, every, expected):
    session = piloted(tmp_path, prior=prior, retrain_every=every)
    grown(session, 3)
    learned = [entry for entry in Session(session.path).state.log if entry.kind == "learn"]
    assert len(learned) == 1 + expected


def test_the_networks_part_of_a_sum_is_fitted_less_often_than_its_edges(tmp_path):
    session = piloted(tmp_path, prior="lindip+edges", retrain_every=2)
    seen = []
    for _ in range(3):
        grown(session, 1)
        learnt = Session(session.path).record.learnt
        seen.append((len(learnt.views), len(learnt.network_views)))
    assert seen == [(4, 3), (5, 5), (6, 5)]


def test_which_priors_are_made_anew_with_every_view_is_as_in_the_library():
    assert {prior for prior in PRIORS if not isinstance(learner(prior), Every)} == set(ANEW)


def test_a_model_that_learned_from_a_rejected_view_is_learned_again(tmp_path):
    session = piloted(tmp_path)
    grown(session, 1)
    session = Session(session.path)
    session.reject(session.record.angles[session.state.views[0]])
    assert session.record.learnt.views.tolist() == session.state.views.tolist()
    assert len([entry for entry in session.state.log if entry.kind == "learn"]) == 2


def test_a_second_fit_starts_from_the_first(tmp_path):
    session = piloted(tmp_path, prior="lindip")
    first = session.record.learnt.network
    session.learn(anew=True)
    second = session.record.learnt.network
    np.testing.assert_array_equal(second["inputs"], first["inputs"])
    assert second["iterations"] <= TINY["warm_iterations"] < first["iterations"] + 11


def test_counts_weigh_all_tells_on_one_scale(tmp_path):
    session = start(tmp_path)
    bright = np.full((1, 18), 4e4)
    session.tell(0.0, measure(0.0), bright, unit="counts")
    session.tell(np.deg2rad([60, 120]), measure(np.deg2rad([60, 120])), np.repeat(bright / 4, 2, 0), unit="counts")
    np.testing.assert_allclose(session.state.weights, np.repeat([[1], [0.25], [0.25]], 18, 1))
    assert design_problem(session.record).exposure.counts


def test_suggestions_with_counts_do_not_depend_on_the_cache(tmp_path):
    session = start(tmp_path, prior="lindip")
    for angle in (0, 60, 120, 30):
        counts = 1e4 * np.exp(-measure(np.deg2rad(angle))) * (1 + angle / 60)
        session.tell(np.deg2rad(angle), measure(np.deg2rad(angle)), counts, unit="counts")
    before = Session(session.path).ask(2).scores
    shutil.rmtree(tmp_path / "s.h5.cache")
    np.testing.assert_allclose(Session(session.path).ask(2).scores, before, rtol=1e-5)


def test_a_long_lived_session_says_what_a_new_process_says(tmp_path):
    session = piloted(tmp_path, retrain_every=2)
    session.tell(np.deg2rad(30), measure(np.deg2rad(30)))
    session.reject(np.deg2rad(30))
    session.tell(np.deg2rad(30), measure(np.deg2rad(30)), np.full((1, 18), 0.1))
    for angle in (None, 42, 90, 12):
        if angle is not None:
            session.tell(np.deg2rad(angle), measure(np.deg2rad(angle)))
        np.testing.assert_allclose(session.ask(2).scores, Session(session.path).ask(2).scores, rtol=1e-9)


def test_angles_within_the_tolerance_and_whole_turns_are_the_candidate(tmp_path):
    session = start(tmp_path, tolerance=np.deg2rad(0.02))
    session.tell(np.deg2rad([60.019, 354 - 360 + 180]), measure(np.deg2rad([60, 174])))
    session.tell(np.deg2rad(-240.0), measure(np.deg2rad(120)))
    assert sorted(session.state.views.tolist()) == [10, 20, 29]


def test_columns_are_averaged_to_what_the_image_needs(tmp_path):
    fine = replace(GEOMETRY, columns=36, pixel=0.5)
    session = Session.start(tmp_path / "f.h5", fine, sessionfile.Settings(size=12, prior="isotropic", pilot=3))
    angles = session.ask().angles
    taken = np.repeat(measure(angles), 2, axis=1)
    session.tell(angles, taken)
    # A pixel is 1.5 mm wide, three columns of 0.5 mm.
    np.testing.assert_allclose(session.state.projections, taken.reshape(3, 12, 3).mean(2), rtol=1e-5, atol=1e-7)


def test_a_regional_criterion_resumes_with_its_region(tmp_path):
    session = piloted(tmp_path, criterion="a", roi=(-4.0, 2.0, -3.0, 3.0))
    fresh = Session(session.path)
    designer = Designer(design_problem(fresh.record), Isotropic())
    assert designer.problem.criterion is A_OPTIMAL
    designer.tell(fresh.record.angles[fresh.state.views], fresh.state.projections)
    np.testing.assert_allclose(fresh.ask(2).scores, designer.ask(2).scores, rtol=1e-9)


def test_doses_differ_from_angle_to_angle_and_the_budget_counts_them(tmp_path):
    doses = np.where(np.arange(30) % 2, 3.0, 1.0)
    settings = sessionfile.Settings(size=12, prior="isotropic", pilot=3, budget=6)
    session = Session.start(tmp_path / "d.h5", GEOMETRY, settings, doses=doses)
    angles = session.ask().angles
    session.tell(angles, measure(angles))
    assert session.state.spent == doses[places(angles)].sum()
    assert doses[session.ask().views] <= 6 - session.state.spent


def test_a_budget_can_be_raised_when_it_is_spent(tmp_path):
    session = piloted(tmp_path, budget=3)
    with pytest.raises(InputError, match="budget of 3"):
        session.ask(2)
    session.allow(4)
    assert len(Session(session.path).ask(2).angles) == 1
    assert session.state.log[-1].kind == "budget" and Session(session.path).record.settings.budget == 4


def test_learning_elsewhere_is_merged_when_more_was_told_meanwhile(tmp_path, monkeypatch):
    session = piloted(tmp_path, prior="edges")
    learned = session._builder.learn

    def interrupted(record, *, anew):
        found = learned(record, anew=anew)
        Session(session.path).tell(np.deg2rad(30), measure(np.deg2rad(30)), learning=False)
        assert len(Session(session.path).ask(2).angles) == 2
        return found

    monkeypatch.setattr(session._builder, "learn", interrupted)
    session.learn(anew=True)
    record = Session(session.path).record
    assert (len(record.learnt.views), len(record.state.views), record.state.learned) == (3, 4, 3)
    designer = Designer(design_problem(record), session._builder._model(record))
    designer.tell(record.angles[record.state.views], record.state.projections)
    np.testing.assert_allclose(record.plan.scores, designer.ask().scores, rtol=1e-9)


def test_what_was_learned_from_a_view_that_was_rejected_meanwhile_is_dropped(tmp_path, monkeypatch):
    session = piloted(tmp_path)
    learned = session._builder.learn

    def interrupted(record, *, anew):
        found = learned(record, anew=anew)
        Session(session.path).reject(0.0, learning=False)
        Session(session.path).tell(0.0, 1.1 * measure(0.0), learning=False)
        return found

    monkeypatch.setattr(session._builder, "learn", interrupted)
    with pytest.raises(InputError, match="rejected meanwhile"):
        session.learn(anew=True)
    assert learning_due(Session(session.path).record)


def test_only_one_process_learns_and_the_others_are_not_held_up(tmp_path):
    session = piloted(tmp_path, retrain_every=1)
    with locked(session.path, "training"):
        with pytest.raises(InputError, match="another process"):
            Session(session.path).learn()
        Session(session.path).tell(np.deg2rad(30), measure(np.deg2rad(30)))
        assert len(Session(session.path).ask().angles) == 1
    assert len(Session(session.path).state.views) == 4
    assert "new" in learning_due(Session(session.path).record)


def test_the_last_pilot_view_may_come_from_another_process_while_one_asks(tmp_path, monkeypatch):
    session = start(tmp_path)
    session.tell(np.deg2rad([0, 60]), measure(np.deg2rad([0, 60])))
    asking, learn = Session(session.path), Session._learn_what_is_needed

    def meanwhile(self):
        learn(self)
        if len(Session(session.path).state.views) == 2:
            Session(session.path).tell(np.deg2rad(120), measure(np.deg2rad(120)), learning=False)

    monkeypatch.setattr(Session, "_learn_what_is_needed", meanwhile)
    assert len(asking.ask().angles) == 1
    assert Session(session.path).record.learnt is not None


def test_who_asks_waits_for_the_first_model_of_another_process(tmp_path):
    session = start(tmp_path)
    session.tell(angles := session.ask().angles, measure(angles), learning=False)
    with ThreadPoolExecutor(1) as pool:
        with locked(session.path, "training"):
            asked = pool.submit(lambda: Session(session.path).ask().angles)
            time.sleep(0.2)
            assert not asked.done()
        assert len(asked.result(60)) == 1


def test_the_first_model_is_learned_by_whoever_needs_it(tmp_path):
    session = start(tmp_path)
    angles = session.ask().angles
    session.tell(angles, measure(angles), learning=False)
    assert session.record.learnt is None and session.record.plan is None
    assert len(Session(session.path).ask().angles) == 1
    assert Session(session.path).record.learnt is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"forbidden": ((0.0, 7.0),)}, "All 30 candidate angles are forbidden"),
        ({"prior": "nothing"}, "no prior 'nothing'"),
        ({"criterion": "best"}, "no criterion 'best'"),
        ({"network": {"depth": 3}}, "no option 'depth'"),
        ({"network": {"dip": {"steps": 3}}}, "no option 'steps'"),
        ({"budget": 0.0}, "budget"),
        ({"pilot": 0}, "1 or more pilot"),
        ({"pilot": 31}, "30 candidate angles are allowed"),
        ({"tolerance": 0.1}, "larger step"),
        ({"stop_error": -1.0}, "stop below"),
        ({"roi": (90.0, 91.0, 0.0, 1.0)}, "No pixel"),
    ],
)
def test_impossible_sessions_are_not_begun(tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        start(tmp_path, **changes)
    assert not (tmp_path / "s.h5").exists()


def test_a_session_is_not_begun_over_another(tmp_path):
    before = start(tmp_path).path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        start(tmp_path)
    assert (tmp_path / "s.h5").read_bytes() == before


def test_options_of_the_network_are_nested_and_the_g_prior_is_one(tmp_path):
    options = network_options(sessionfile.Settings(prior="gprior", network=TINY))
    assert (options.prior, options.dip.iterations, options.dip.network.channels) == ("g", 20, (4, 4))
    assert isinstance(design_problem(start(tmp_path).record), DesignProblem)


REFUSED = {
    "wrong shape": (lambda s: s.tell(0.1047197551, sinogram()[:1, :-1]), "shape"),
    "one view for two angles": (lambda s: s.tell(np.deg2rad([6, 12]), sinogram()[:1]), "shape"),
    "an angle that is no candidate": (lambda s: s.tell(np.deg2rad(7), sinogram()[0]), "7° is not among the candidates"),
    "told before": (lambda s: s.tell(0.0, sinogram()[0]), "0° was told before"),
    "told twice at once": (lambda s: s.tell(np.deg2rad([6, 6]), sinogram()[:2]), "6° stands twice among the new views"),
    "NaN": (lambda s: s.tell(np.deg2rad(6), np.full(18, np.nan)), "18 values that are NaN"),
    "negative weights": (lambda s: s.tell(np.deg2rad(6), sinogram()[0], -np.ones(18)), "non-negative"),
    "no weight at all": (lambda s: s.tell(np.deg2rad(6), sinogram()[0], np.zeros(18), unit="counts"), "not all zero"),
    "an angle that is no number": (lambda s: s.tell(np.nan, sinogram()[0]), "finite"),
    "text": (lambda s: s.tell(np.deg2rad(6), "projection"), "numbers"),
    "an exhausted budget": (lambda s: s.ask(), "budget of 3 is exhausted"),
    "no angle asked for": (lambda s: s.ask(0), "At least one"),
    "half an angle asked for": (lambda s: s.ask(2.5), "whole number"),
    "a negative budget": (lambda s: s.allow(-1), "budget must be a positive number"),
    "an unknown angle rejected": (lambda s: s.reject(np.deg2rad(7)), "not among the candidates"),
    "an unknown angle pending": (lambda s: s.ask(pending=np.deg2rad([7])), "not among the candidates"),
}


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory):
    return piloted(tmp_path_factory.mktemp("exhausted"), budget=3)


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence_and_the_file_stays(exhausted, what):
    refuse, said = REFUSED[what]
    before = exhausted.path.read_bytes()
    with pytest.raises(InputError, match=said) as told:
        refuse(Session(exhausted.path))
    assert str(told.value).count(". ") == 0
    assert exhausted.path.read_bytes() == before


def test_the_file_is_read_again_only_after_another_process_wrote_it(tmp_path, monkeypatch):
    first, second = start(tmp_path, pilot=2), Session(tmp_path / "s.h5")
    read, times = sessionfile.read, []
    monkeypatch.setattr(sessionfile, "read", lambda path: times.append(path) or read(path))
    first.tell(0.0, measure(0.0))
    assert len(times) == 0
    second.tell(np.deg2rad(60), measure(np.deg2rad(60)))
    assert len(times) == 1 and len(second.state.views) == 2
    first.ask()
    assert len(times) == 2 and len(first.state.views) == 2


def test_a_bad_ray_takes_nothing_from_what_the_exposure_lets_expect(tmp_path):
    good = np.ones(18)
    good[[3, 4]] = 0
    session = Session.start(tmp_path / "s.h5", GEOMETRY, sessionfile.Settings(size=SIZE, pilot=2), doses=np.full(30, 3.0))
    session.tell(0.0, measure(0.0), good, unit="exposure", learning=False)
    whole = Session.start(tmp_path / "w.h5", GEOMETRY, sessionfile.Settings(size=SIZE, pilot=2), doses=np.full(30, 3.0))
    whole.tell(0.0, measure(0.0), learning=False)
    kept = session.state.weights > 0
    assert kept.sum() < kept.size
    np.testing.assert_array_equal(session.state.weights[kept], whole.state.weights[kept])
