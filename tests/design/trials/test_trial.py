import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from killing import at_call, killed

from ctuq import stages
from ctuq.design.designer import Designer
from ctuq.design.models.lindip import LinDIPOptions
from ctuq.design.trials.contenders import Adaptive, Placed, TrialPlan, baselines
from ctuq.design.trials.imaging import imaging
from ctuq.design.trials.subject import Subject, goes_round, subject
from ctuq.design.trials.trial import Trial, file_name, kept, load_all, run
from ctuq.errors import InputError
from ctuq.recon.dip import DIPOptions
from ctuq.recon.unet import UNetOptions
from ctuq.tomo import FanBeam, ParallelBeam, VolumeGrid, ray_transform
from ctuq.tomo.phantoms import rectangles
from ctuq.tomo.simulate import RelativeNoise, simulate

SIZE, VIEWS = 12, 24
PLAN = TrialPlan(3, 8)
GROWN = (Placed("nested"), Placed("random", 1), Adaptive("eig", "matern"), Adaptive("ese", "edges", batch=2))
METHODS = {"tv": imaging("tv")}


@pytest.fixture(scope="module")
def scan():
    rng = np.random.default_rng(3)
    geometry = ParallelBeam(angles=np.arange(VIEWS) * np.pi / VIEWS, columns=18, pixel=1.0)
    return simulate(lambda n: rectangles(n, rng), geometry, VolumeGrid((SIZE, SIZE), 1.0), RelativeNoise(0.05), rng=rng)


@pytest.fixture(scope="module")
def A(scan):
    return ray_transform(scan.grid, scan.geometry, backend="matrix")


@pytest.fixture(scope="module")
def bars(scan, A):
    return subject("bars", scan, A, reference=scan.truth)


@pytest.mark.parametrize("strategy", GROWN, ids=lambda s: s.label)
def test_what_grows_keeps_its_pilot_and_every_view_taken(bars, strategy):
    chosen = strategy.choose(bars, PLAN).views
    assert [len(views) for views in chosen] == [3, 4, 5, 6, 7, 8]
    assert all(np.array_equal(more[: len(less)], less) for less, more in itertools.pairwise(chosen))
    np.testing.assert_array_equal(chosen[0], [0, 8, 16])
    assert len(set(chosen[-1].tolist())) == 8


@pytest.mark.parametrize("strategy", GROWN[2:], ids=lambda s: s.label)
def test_an_adaptive_strategy_sees_only_what_it_measured(bars, strategy):
    chosen = strategy.choose(bars, PLAN).views[-1]
    spoiled = bars.y.clone()
    unseen = np.setdiff1d(np.arange(VIEWS), chosen)
    spoiled[torch.from_numpy(unseen)] = 1e3
    blind = Subject("bars", bars.A, spoiled, bars.weights, bars.candidates, np.zeros((SIZE, SIZE)))
    np.testing.assert_array_equal(strategy.choose(blind, PLAN).views[-1], chosen)


def test_equidistant_views_are_placed_anew_from_the_start_asked_for(bars):
    chosen = Placed("equidistant").choose(bars, TrialPlan(3, 8, start=2)).views
    np.testing.assert_array_equal(chosen[1], [2, 8, 14, 20])
    np.testing.assert_array_equal(chosen[-1], np.arange(8) * 3 + 2)
    np.testing.assert_array_equal(Placed("half turn").choose(bars, PLAN).views[1], [0, 3, 6, 9])


def test_a_gap_in_the_candidates_draws_no_views_to_its_edges(scan, A):
    one_third = subject("arc", scan, A, candidates=np.arange(8))
    np.testing.assert_array_equal(Placed("equidistant").choose(one_third, TrialPlan(2, 4)).views[-1], [0, 2, 4, 6])


def test_random_designs_differ_by_seed_and_repeat_by_it(bars):
    first, again, other = (Placed("random", seed).choose(bars, PLAN).views[-1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_images_are_judged_by_the_truth_and_by_views_that_were_not_used(bars):
    image = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    used = np.array([1, 5, 6])
    scores = bars.judge(image, used)
    residual = (bars.A.matrix @ image.numpy().ravel()).reshape(VIEWS, -1) - bars.y.numpy()
    rest = np.setdiff1d(np.arange(VIEWS), used)
    expected = 10 * np.log10(np.sum(bars.y.numpy()[rest] ** 2) / np.sum(residual[rest] ** 2))
    assert scores["unseen"] == pytest.approx(expected, abs=1e-4)
    error = np.mean((image.numpy() - bars.reference) ** 2)
    assert scores["truth"] == pytest.approx(10 * np.log10(np.ptp(bars.reference) ** 2 / error), abs=1e-6)


def test_views_that_are_no_candidates_only_judge(scan, A):
    few = subject("few", scan, A, candidates=np.arange(0, VIEWS, 2))
    trial = run(few, Adaptive("eig", "isotropic"), TrialPlan(3, 12), METHODS)
    np.testing.assert_allclose(np.sort(trial.taken(12)), scan.geometry.angles[::2])
    assert np.isfinite(trial.qualities["tv unseen"]).all()
    assert "tv truth" not in trial.qualities


def test_a_ray_without_weight_judges_nothing(scan, A):
    weights = np.ones(scan.geometry.shape, np.float32)
    weights[7, 3] = 0
    spoiled = scan.projections.copy()
    spoiled[7, 3] = 99
    found = [subject("s", replace(scan, projections=p, weights=weights), A) for p in (scan.projections, spoiled)]
    image = torch.zeros(SIZE, SIZE) + 0.1
    assert found[0].judge(image, np.array([0])) == found[1].judge(image, np.array([0]))


def test_a_trial_reads_back_and_is_not_run_twice(bars, tmp_path, monkeypatch):
    contenders = (*baselines(randoms=2), Adaptive("eig", "matern"))
    first = list(kept(tmp_path, bars, contenders, PLAN, METHODS, setting="small"))
    assert [trial.ask.size for trial in first] == [0] * 5 + [5]
    assert first[-1].learn.size == 6
    monkeypatch.setattr("ctuq.design.trials.trial.run", lambda *_, **__: pytest.fail("a kept trial was run again"))
    again = list(kept(tmp_path, bars, contenders, PLAN, METHODS, setting="small"))
    for a, b in zip(first, again, strict=True):
        assert (a.strategy, a.seed, a.setting) == (b.strategy, b.seed, b.setting)
        np.testing.assert_array_equal(a.views, b.views)
        for name in a.qualities:
            np.testing.assert_array_equal(a.qualities[name], b.qualities[name])
    assert len(load_all([tmp_path])) == len(contenders)


@pytest.mark.parametrize(("where", "number"), [("ask", 3), ("judge", 2), ("judge", 5)])
def test_a_trial_that_is_killed_goes_on_to_the_same(bars, tmp_path, monkeypatch, where, number):
    dip = DIPOptions(network=UNetOptions(channels=(4, 4), skips=(2,)), iterations=10, check_every=5)
    contenders = (Adaptive("eig", "lindip", dip=LinDIPOptions(dip=dip)),)
    monkeypatch.setattr(stages, "_WORTH", 0.0)
    (whole,) = kept(tmp_path / "whole", bars, contenders, PLAN, METHODS, setting="small")
    owner = Designer if where == "ask" else Subject

    def work():
        at_call(owner, where, number)
        list(kept(tmp_path / "parts", bars, contenders, PLAN, METHODS, setting="small"))

    assert killed(work)
    asked, ask = [], Designer.ask
    monkeypatch.setattr(Designer, "ask", lambda *given: asked.append(0) or ask(*given))
    (resumed,) = kept(tmp_path / "parts", bars, contenders, PLAN, METHODS, setting="small")
    assert len(asked) == (3 if where == "ask" else 0)
    np.testing.assert_array_equal(resumed.views, whole.views)
    for name, values in whole.qualities.items():
        np.testing.assert_array_equal(resumed.qualities[name], values)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [file_name("bars", contenders[0])]


def test_a_trial_of_other_settings_is_refused_and_left_alone(bars, tmp_path):
    list(kept(tmp_path, bars, (Placed("golden"),), PLAN, METHODS, setting="small"))
    with pytest.raises(InputError, match="other settings"):
        list(kept(tmp_path, bars, (Placed("golden"),), PLAN, METHODS, setting="large"))
    assert Trial.load(tmp_path / file_name("bars", Placed("golden"))).setting == "small"


def test_a_folder_without_trials_is_told(tmp_path):
    with pytest.raises(InputError, match="no trial"):
        load_all([tmp_path])


def test_the_network_judges_at_every_fifth_count_and_the_truth_does_not_stop_it(scan, A):
    options = DIPOptions(network=UNetOptions(channels=(4, 4)), iterations=30, check_every=10)
    methods = {"dip": imaging("dip", dip_options=options)}
    found = [subject("s", scan, A, reference=reference) for reference in (scan.truth, np.eye(SIZE))]
    trials = [run(s, Placed("golden"), PLAN, methods) for s in found]
    np.testing.assert_array_equal(np.isfinite(trials[0].qualities["dip truth"]), [True, False, False, False, False, True])
    np.testing.assert_array_equal(trials[0].qualities["dip unseen"], trials[1].qualities["dip unseen"])


@pytest.mark.parametrize(("pilot", "total"), [(0, 5), (5, 5)])
def test_a_plan_without_room_is_refused(pilot, total):
    with pytest.raises(InputError, match="pilot"):
        TrialPlan(pilot, total)


@pytest.mark.parametrize("settings", [{"criterion": "best"}, {"prior": "none"}, {"batch": 0}, {"every": -1}])
def test_what_is_no_strategy_is_refused_at_once(settings):
    with pytest.raises(InputError):
        Adaptive(**settings)


def test_a_full_turn_is_told_from_a_half_and_from_a_gap():
    def fan(degrees):
        return FanBeam(angles=np.deg2rad(degrees), columns=8, pixel=1.0, source_to_axis=50, source_to_detector=90)

    assert goes_round(fan(np.arange(0, 360, 3)))
    assert not goes_round(fan(np.arange(0, 180, 3)))
    assert not goes_round(fan(np.delete(np.arange(0, 360, 3), slice(20, 30))))
