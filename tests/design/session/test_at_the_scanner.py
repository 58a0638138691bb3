"""What an operator sees and cannot do by mistake: degrees, times, free angles, forbidden arcs, the end of the dose."""

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from scanner import measure, piloted, start

from ctuq.app.design.figures import draw_session
from ctuq.app.design.text import facts_of, log_facts, suggestion_lines
from ctuq.design.session import file as sessionfile
from ctuq.design.session.session import Session
from ctuq.errors import BudgetExhausted, InputError

ARC = (np.deg2rad(80), np.deg2rad(100))


def clockwise(session):
    sessionfile.write(session.path, replace(sessionfile.read(session.path), intake={"clockwise": True}, plan=None))
    return Session(session.path, degrees=True)


def test_in_degrees_everything_given_and_returned_is_as_the_scanner_counts(tmp_path):
    radians = piloted(tmp_path)
    session = Session(radians.path, degrees=True)
    suggestion = session.ask(2)
    expected = Session(radians.path).ask(2)
    np.testing.assert_allclose(suggestion.angles, np.rad2deg(expected.angles), atol=1e-8)
    waiting = session.ask(pending=suggestion.angles)
    assert not set(waiting.angles) & set(suggestion.angles)
    session.tell(suggestion.angles[0], measure(expected.angles[0]))
    session.reject(suggestion.angles[0], "moved")
    assert [entry.kind for entry in session.state.log][-2:] == ["tell", "reject"]
    assert f"{suggestion.angles[0]:g} degrees" in suggestion.reason


def test_a_clockwise_scanner_reads_its_own_angles_and_sentences(tmp_path):
    session = clockwise(start(tmp_path, pilot=3))
    pilot = session.ask()
    assert (pilot.angles <= 0).all()
    session.tell(pilot.angles, measure(-np.deg2rad(pilot.angles)))
    found = session.ask()
    assert f"{found.angles[0]:g} degrees" in found.reason and found.angles[0] < 0
    assert found.to_dict()["angles_deg"] == found.angles.tolist()
    assert facts_of(session.record)["measured_deg"].tolist() == pilot.angles.tolist()


def test_a_suggestion_is_plain_values(tmp_path):
    found = piloted(tmp_path).ask(3)
    told = json.loads(json.dumps(found.to_dict()))
    np.testing.assert_allclose(told["angles_deg"], np.rad2deg(found.angles), atol=1e-8)
    assert told["gains"] == found.gains.tolist() and told["unit"] == "nats"
    assert told["predicted_error"] == pytest.approx(found.error) and told["stop"] is False
    assert told["free"] == [27, 26, 25]


@pytest.mark.parametrize("changes", [{}, {"forbidden": (ARC,)}, {"budget": 5.0}])
def test_free_angles_are_counted_anew_for_every_pick(tmp_path, changes):
    session = piloted(tmp_path, batch=3, **changes)
    found = session.ask(3)
    left = 27 - 3 * bool(changes.get("forbidden"))
    picks = 2 if "budget" in changes else 3
    assert found.to_dict()["free"] == [left, left - 1, left - 2][:picks]
    for pick, line in enumerate(suggestion_lines(1, found)[1:-1]):
        free = found.free_at(pick)
        assert f"({left - pick} angles are free: median {np.median(found.scores[pick][free]):.4g}, " in line
        assert f"best {found.gains[pick]:.4g})" in line
    older = replace(found, free=np.zeros((0, 0), bool))
    np.testing.assert_array_equal(older.free_at(picks - 1), found.free_at(picks - 1))


def test_every_entry_of_a_sessions_log_has_its_time_and_keeps_it(tmp_path):
    session = piloted(tmp_path)
    before = [entry.time for entry in session.state.log]
    assert all(datetime.fromisoformat(time).tzinfo for time in before)
    session.ask()
    again = [entry.time for entry in Session(session.path).state.log]
    assert again[: len(before)] == before and len(again) == len(before) + 1
    assert [entry["time"] for entry in log_facts(session.record)] == again


def test_a_view_inside_a_forbidden_arc_is_taken_only_if_that_is_meant(tmp_path):
    session = start(tmp_path, pilot=3, forbidden=(ARC,))
    before = session.path.read_bytes()
    with pytest.raises(InputError, match=r"90° lies in a forbidden arc.*--anyway"):
        session.tell(np.deg2rad([0, 90]), measure(np.deg2rad([0, 90])))
    assert session.path.read_bytes() == before
    session.tell(np.deg2rad([0, 90]), measure(np.deg2rad([0, 90])), anyway=True)
    assert len(session.state.views) == 2


def test_a_spent_dose_is_an_error_of_its_own_at_once_and_from_the_file(tmp_path):
    session = piloted(tmp_path, budget=3)
    for each in (session, Session(session.path)):
        with pytest.raises(BudgetExhausted, match="budget of 3 is exhausted"):
            each.ask()
    assert facts_of(session.record)["budget_spent"]
    session.allow(4)
    assert not facts_of(session.record)["budget_spent"]
    (tmp_path / "pilot").mkdir()
    spent = start(tmp_path / "pilot", pilot=3, budget=1)
    spent.tell(0.0, measure(0.0))
    with pytest.raises(BudgetExhausted, match=r"pilot views.*--dose-budget X"):
        spent.ask()
    (tmp_path / "all").mkdir()
    everything = start(tmp_path / "all", pilot=30)
    everything.tell(everything.record.angles, measure(everything.record.angles))
    with pytest.raises(InputError, match="No candidate is left") as refused:
        everything.ask()
    assert not isinstance(refused.value, BudgetExhausted)


def test_rejected_views_are_seen_until_they_are_measured_again(tmp_path):
    session = piloted(tmp_path)
    session.reject(np.deg2rad(60), "the sample moved")

    def crosses():
        lines = draw_session(session.refreshed()).axes[0].lines
        return [line.get_xdata().tolist() for line in lines if line.get_label() == "rejected"]

    assert crosses() == [[pytest.approx(np.deg2rad(60))]]
    session.tell(np.deg2rad(60), measure(np.deg2rad(60)))
    assert crosses() == []
