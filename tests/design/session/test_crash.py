"""A process killed anywhere in a command leaves the session as it was or as it was to become, and it goes on."""

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from killing import at_call, die, half_written
from killing import killed as died
from scanner import measure, piloted, places, start

from ctuq.design.session import file as sessionfile
from ctuq.design.session.plan import learning_due
from ctuq.design.session.session import Session
from ctuq.pipeline.running import checkpoint
from ctuq.records import files as records


def renamed(number):
    """Die just after the ``number``-th rename."""
    called, original = [], Path.replace

    def replace(self, target):
        called.append(0)
        original(self, target)
        if len(called) == number:
            die()

    Path.replace = replace


def half_kept(number):
    """Die when a part of the cache is half written."""
    called, original = [], np.save

    def save(file, array):
        called.append(0)
        if len(called) == number:
            file.write_bytes(array.tobytes()[: array.nbytes // 2])
            die()
        return original(file, array)

    np.save = save


def patched(where, number=1):
    owner, name = {
        "ray transform": ("ctuq.design.session.builder", "design_problem"),
        "intake": ("ctuq.design.session.session", "binned"),
        "write": ("ctuq.records", "write"),
        "rename": ("os", "fsync"),
        "learn": ("ctuq.design.session.builder", "learn"),
        "forget": ("shutil", "rmtree"),
    }[where]
    module = __import__(owner, fromlist=[name])
    at_call(module, name, number)


POINTS = {
    "reading the ray transform": lambda: patched("ray transform"),
    "taking in": lambda: patched("intake"),
    "before the first write": lambda: patched("write"),
    "within the first write": lambda: half_written(records, 1),
    "before the first rename": lambda: patched("rename"),
    "after the first rename": lambda: renamed(1),
    "learning": lambda: patched("learn"),
    "keeping the model": lambda: half_kept(1),
    "keeping the third array": lambda: half_kept(3),
    "before the second write": lambda: patched("write", 2),
    "within the second write": lambda: half_written(records, 2),
    "before the second rename": lambda: patched("rename", 2),
    "after the second rename": lambda: renamed(2),
    "clearing the cache": lambda: patched("forget", 1),
}


def killed(point, work):
    """Run ``work`` in a child that dies at a point; whether it did."""
    return died(lambda: (point(), work()))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A session whose model is due again with the next view, and what it suggests after it."""
    folder = tmp_path_factory.mktemp("before")
    session = piloted(folder, prior="isotropic", retrain_every=1)
    shutil.copytree(folder, folder / "whole")
    whole = Session(folder / "whole" / "s.h5")
    whole.tell(np.deg2rad(30), measure(np.deg2rad(30)))
    return session, whole.ask(2)


@pytest.mark.parametrize("point", POINTS)
def test_a_tell_that_is_killed_leaves_the_old_or_the_new_state_and_the_session_goes_on(before, tmp_path, point):
    session, expected = before
    folder = tmp_path / "s"
    shutil.copytree(session.path.parent, folder)
    path = folder / "s.h5"
    old = path.read_bytes()
    assert killed(POINTS[point], lambda: Session(path).tell(np.deg2rad(30), measure(np.deg2rad(30))))
    after = Session(path)
    if len(after.state.views) == 3:
        assert path.read_bytes() == old
        after.tell(np.deg2rad(30), measure(np.deg2rad(30)))
    else:
        assert after.state.views[-1] == places(np.deg2rad(30))[0]
        np.testing.assert_allclose(after.state.projections[-1], measure(np.deg2rad(30))[0], rtol=1e-6)
        after.update()
    assert not learning_due(after.record)
    found = Session(path).ask(2)
    np.testing.assert_array_equal(found.angles, expected.angles)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-9)
    assert not list(folder.glob(".*.partial"))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_before_the_pilot_is_complete_nothing_is_lost(tmp_path, number):
    session = start(tmp_path)
    session.tell(0.0, measure(0.0))
    assert killed(lambda: renamed(number), lambda: [Session(session.path).tell(a, measure(a)) for a in np.deg2rad([60, 120])])
    told = Session(session.path).state.views.tolist()
    assert told == [0, 10, 20][: len(told)] and len(told) > 1
    for angle in np.deg2rad([60, 120])[len(told) - 1 :]:
        Session(session.path).tell(angle, measure(angle))
    assert len(Session(session.path).ask().gains) == 1


@pytest.mark.parametrize("point", ["before the first write", "within the first write", "after the first rename"])
def test_a_suggestion_that_is_killed_is_in_the_log_or_not(before, tmp_path, point):
    shutil.copytree(before[0].path.parent, tmp_path / "s")
    path = tmp_path / "s" / "s.h5"
    entries = len(Session(path).state.log)
    assert killed(POINTS[point], lambda: Session(path).ask())
    assert len(Session(path).state.log) - entries == (point == "after the first rename")
    assert len(Session(path).ask().angles) == 1


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A session with its pilot told and no model yet, and what it comes to when nobody is killed."""
    folder = tmp_path_factory.mktemp("network")
    session = start(folder, prior="lindip")
    session.tell(angles := session.ask().angles, measure(angles), learning=False)
    shutil.copytree(folder, folder / "whole")
    whole = Session(folder / "whole" / "s.h5")
    whole.learn()
    return session, whole.record


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("ctuq.recon.dip", "_look"),
        ("ctuq.design.models.lindip", "image_model"),
        ("ctuq.design.models.lindip", "Fitted"),
        ("ctuq.design.session.session", "learned"),
    ],
)
def test_learning_that_is_killed_is_gone_on_with_by_whoever_asks_next(network, tmp_path, monkeypatch, where, name):
    session, expected = network
    shutil.copytree(session.path.parent, tmp_path / "s", ignore=shutil.ignore_patterns("whole"))
    path = tmp_path / "s" / "s.h5"
    monkeypatch.setattr("ctuq.pipeline.running.checkpoint._EVERY", 1)
    number = 3 if name == "_look" else 1
    assert killed(lambda: at_call(importlib.import_module(where), name, number), lambda: Session(path).update())
    assert Session(path).record.learnt is None and (tmp_path / "s" / "s.h5.cache" / "learning").is_dir()
    begun = []
    dip = checkpoint.dip
    monkeypatch.setattr(
        checkpoint, "dip", lambda *given, resume, due: begun.append(resume) or dip(*given, resume=resume, due=due)
    )
    Session(path).ask()
    found = Session(path).record
    assert [state.iteration for state in begun] == ([10] if name == "_look" else [])
    assert sessionfile.digest(sessionfile._plain(found.learnt)) == sessionfile.digest(sessionfile._plain(expected.learnt))
    np.testing.assert_array_equal(found.plan.scores, expected.plan.scores)
    assert not (tmp_path / "s" / "s.h5.cache" / "learning").exists()


def test_a_cache_that_cannot_be_written_ends_no_learning(network, tmp_path):
    session, expected = network
    shutil.copytree(session.path.parent, tmp_path / "s", ignore=shutil.ignore_patterns("whole", "*.cache"))
    (tmp_path / "s" / "s.h5.cache").write_text("in the way")
    Session(tmp_path / "s" / "s.h5").update()
    found = Session(tmp_path / "s" / "s.h5").record
    assert sessionfile.digest(sessionfile._plain(found.learnt)) == sessionfile.digest(sessionfile._plain(expected.learnt))


def test_two_processes_lose_nothing_of_each_other(before, tmp_path):
    shutil.copytree(before[0].path.parent, tmp_path / "s")
    path = tmp_path / "s" / "s.h5"
    entries = len(Session(path).state.log)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(6):
                    Session(path).ask()
                os._exit(0)
            finally:
                os._exit(7)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(Session(path).state.log) == entries + 12
