from dataclasses import replace

import numpy as np
import pytest

from ctuq.app.design.figures import draw_session
from ctuq.app.design.text import log_lines, status_lines, suggestion_lines
from ctuq.app.png import png_bytes
from ctuq.design.session.file import Learnt, Record, Settings
from ctuq.design.state import Decision, DesignState, Suggestion

VIEWS = 30


def record(*, clockwise=False, span=180.0, planned=True):
    """A session made by hand: three pilot views and one that was asked for."""
    angles = np.deg2rad(np.arange(VIEWS) * span / VIEWS) * (-1 if clockwise else 1)
    scores = np.stack([1 + np.cos(angles) ** 2, 1 + np.sin(angles) ** 2])
    views = np.array([0, 10, 20, 5])
    available = np.ones(VIEWS, bool)
    available[views] = False
    plan = Suggestion(
        angles[[7, 22]], np.array([7, 22]), scores, available, scores[[0, 1], [7, 22]], "nats", 0.01, False, "Go on."
    )
    log = (
        Decision("pilot", angles[views[:3]], np.zeros((0, VIEWS)), np.zeros(0), np.nan, 0.0, False, "Go on."),
        Decision("ask", angles[[5]], scores[:1], scores[0, [5]], 0.02, 3.0, False, "Go on."),
    )
    state = DesignState(views, np.zeros((4, 9), "f4"), np.ones((4, 9), "f4"), spent=4.0, learned=3, log=log)
    learnt = Learnt(views[:3], ("",) * 3, None, views[:0], {"variance": 1.0}, "exact")
    settings = Settings(pilot=3, budget=9.0, forbidden=((1.0, 1.3),))
    return Record(settings, {"angles": angles}, {"clockwise": clockwise}, None, None, state, learnt, plan if planned else None)


@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize("span", [180.0, 360.0])
def test_the_picture_shows_measured_next_and_forbidden_angles(span, clockwise):
    figure = draw_session(record(span=span, clockwise=clockwise))
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(np.rad2deg(lines["next"].get_xdata()), [7 * span / VIEWS, 22 * span / VIEWS])
    assert len(lines["measured, as suggested"].get_xdata()) == 1
    assert len(lines["measured, pilot or by hand"].get_xdata()) == 3
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3", "4"]
    assert axes.get_theta_direction() == (-1 if clockwise else 1)
    assert axes.get_thetamax() == span
    assert len(axes.patches) == 1 and axes.patches[0].get_width() == pytest.approx(0.3)
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_the_curve_is_the_score_over_the_best_that_is_free():
    found = record()
    (axes,) = draw_session(found).axes
    curve = next(line for line in axes.lines if str(line.get_label()).startswith("score"))
    scores = found.plan.scores[0]
    np.testing.assert_allclose(curve.get_ydata(), np.minimum(scores / scores[found.plan.available].max(), 1))


def test_a_session_without_a_plan_is_drawn_too():
    bare = record(planned=False)
    assert png_bytes(draw_session(replace(bare, state=DesignState.empty(9), learnt=None))).startswith(b"\x89PNG")


def test_a_clockwise_scanner_reads_its_own_degrees():
    found = record(clockwise=True)
    assert suggestion_lines(found.sense, found.plan)[0] == "Next: 42°, 132°"
    lines = status_lines(found)
    assert "0°, 60°, 120°, 30°" in lines[0] and "-" not in lines[0]
    assert "dose 3; 30°" in log_lines(found)[1]
