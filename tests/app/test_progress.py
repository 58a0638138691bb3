import io
import logging

from ctuq.app.progress import BarSafeHandler, TerminalBar
from ctuq.pipeline import Progress


def test_one_bar_a_stage_shows_how_far_and_what_the_pipeline_says():
    stream = io.StringIO()
    stream.isatty = lambda: True
    with TerminalBar(stream) as bar:
        for done in (1, 5, 10):
            bar(Progress("network", done, 10, f"misfit {1 / done:.2f}"))
        bar(Progress("evidence", 1, 3, ""))
    shown = stream.getvalue()
    assert "network: 100%" in shown and "10/10" in shown and "misfit 0.10" in shown
    assert "evidence:  33%" in shown


def test_a_file_gets_few_lines():
    stream = io.StringIO()
    with TerminalBar(stream) as bar:
        for done in range(1000):
            bar(Progress("network", done + 1, 1000, ""))
    assert stream.getvalue().count("\r") <= 4
    assert "1000/1000" in stream.getvalue()


def test_the_log_goes_to_stderr_as_plain_lines(capsys):
    handler = BarSafeHandler()
    handler.emit(logging.LogRecord("ctuq", logging.INFO, "", 0, "needs %d GiB", (3,), None))
    assert capsys.readouterr().err == "needs 3 GiB\n"
