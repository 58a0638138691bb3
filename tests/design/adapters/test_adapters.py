"""A session driven by other control programs, with simulated hardware."""

import numpy as np
import pytest
from scanner import GEOMETRY, measure, piloted, start

from ctuq.design.adapters.asktell import AskTell
from ctuq.design.adapters.bluesky import SessionOptimizer, adaptive_scan
from ctuq.errors import InputError


@pytest.fixture
def hardware():
    """A stage and a camera of ophyd whose exposures follow the stage, and a RunEngine that keeps its documents."""
    pytest.importorskip("bluesky")
    sim = pytest.importorskip("ophyd.sim")
    from bluesky import RunEngine

    stage = sim.SynAxis(name="stage", labels={"motors"})
    camera = sim.SynSignal(func=lambda: np.exp(-measure(np.deg2rad(stage.position))[0]), name="camera")
    engine, documents = RunEngine({}, context_managers=[]), []
    engine.subscribe(lambda name, document: documents.append((name, document)))
    return engine, stage, camera, documents


def line_integrals(read):
    return -np.log(read["camera"])


def events(documents):
    return [document["data"] for name, document in documents if name == "event"]


def test_a_bluesky_run_picks_its_angles_until_the_dose_is_spent(tmp_path, hardware):
    engine, stage, camera, documents = hardware
    session = start(tmp_path, pilot=3, budget=6)
    engine(adaptive_scan(session.path, [camera], stage, line_integrals))
    taken = [read["stage"] for read in events(documents)]
    assert taken[:3] == [0, 60, 120] and len(taken) == len(set(taken)) == 6
    log = [entry for entry in session.refreshed().state.log if entry.kind == "ask"]
    np.testing.assert_allclose(taken[3:], [np.rad2deg(entry.angles[0]) for entry in log])
    np.testing.assert_allclose(session.state.projections, measure(np.deg2rad(taken)), atol=1e-5)
    assert documents[0][1]["plan_name"] == "ctuq_adaptive_scan"
    assert documents[-1][1]["exit_status"] == "success"


def test_a_bluesky_run_ends_where_the_session_says_stop_or_enough_views_are_taken(tmp_path, hardware):
    engine, stage, camera, documents = hardware
    session = piloted(tmp_path, stop_gain=1e9)
    engine(adaptive_scan(session, [camera], stage, line_integrals))
    assert events(documents) == []
    (tmp_path / "free").mkdir()
    free = piloted(tmp_path / "free")
    engine(adaptive_scan(free, [camera], stage, line_integrals, weights_of=lambda read: np.ones(GEOMETRY.columns), most=2))
    assert len(events(documents)) == 2
    with pytest.raises(InputError, match="at least one view"):
        engine(adaptive_scan(free, [camera], stage, line_integrals, most=0))


def test_bluesky_adaptive_runs_a_session_as_its_optimizer(tmp_path, hardware):
    engine, stage, camera, documents = hardware
    plans = pytest.importorskip("bluesky_adaptive.plans")
    protocols = pytest.importorskip("bluesky_adaptive.protocols")
    session = start(tmp_path, pilot=3, budget=6)
    optimizer = SessionOptimizer(session, "stage")
    for kind in ("Optimizer", "SupportsStoppingCriteria", "TrialFaultAware"):
        assert isinstance(optimizer, getattr(protocols, kind))

    def evaluate(uid, suggestions):
        reads = {round(read["stage"], 6): line_integrals(read) for read in events(documents) if "camera" in read}
        return [{"_id": point["_id"], "projection": reads[round(point["stage"], 6)]} for point in suggestions]

    problem = protocols.OptimizationProblem(optimizer, [stage], [camera], evaluate)
    engine(plans.optimize(problem, iterations=None, n_points=2))
    assert len(session.refreshed().state.views) == 6
    assert optimizer.should_stop()[0] and "budget" in optimizer.should_stop()[1]
    assert optimizer.get_best_points() == []


def test_an_optimizer_counts_what_is_being_measured_and_what_failed(tmp_path):
    session = piloted(tmp_path)
    optimizer = SessionOptimizer(session, "stage")
    (first,), (second,) = optimizer.suggest(), optimizer.suggest()
    assert first["stage"] != second["stage"] and first["_id"] != second["_id"]
    optimizer.register_failures([first])
    assert session.refreshed().state.spent == 4
    other = {"_id": "by hand", "stage": 18.0, "projection": measure(np.deg2rad(18.0))[0]}
    rays = measure(np.deg2rad(second["stage"]))[0]
    optimizer.ingest([{"_id": second["_id"], "projection": rays}, other])
    told = np.rad2deg(session.refreshed().angles[session.state.views[-2:]])
    np.testing.assert_allclose(told, [second["stage"], 18.0])
    assert optimizer.should_stop() == (False, None)
    with pytest.raises(InputError, match="give its angle"):
        optimizer.ingest([{"_id": "unknown", "projection": rays}])


def test_the_loop_of_gpcam_runs_by_ask_and_tell_and_by_an_instrument_function(tmp_path):
    session = start(tmp_path, pilot=3)
    design = AskTell(session)
    pilot = design.ask(3)
    assert pilot["x"].shape == (3, 1) and pilot["x"].ravel().tolist() == [0, 60, 120]
    design.tell(pilot["x"], measure(np.deg2rad(pilot["x"].ravel())))
    new = design.ask(2)
    assert set(new) >= {"x", "f_a(x)", "opt_obj"} and (new["f_a(x)"] > 0).all() and not new["stop"]
    design.tell(new["x"], measure(np.deg2rad(new["x"].ravel())), np.full((2, GEOMETRY.columns), 4.0))
    np.testing.assert_allclose(session.refreshed().state.weights[-2:], 1.0)

    def instrument(points):
        for point in points:
            point["y_data"] = measure(np.deg2rad(point["x_data"][0]))[0]
            point["noise variance"] = np.full(GEOMETRY.columns, 8.0)
        return points

    assert len(design.measure(instrument)) == 1
    assert len(session.refreshed().state.views) == 6
    np.testing.assert_allclose(session.state.weights[-1], 0.5)
