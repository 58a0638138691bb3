"""A session that stays resident, asked over HTTP on this machine by the client that is shipped."""

import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from scanner import measure, piloted, start

from ctuq.app.design import serve
from ctuq.design import client
from ctuq.design.client import Client
from ctuq.design.session.session import Session


@pytest.fixture
def served(tmp_path):
    """A session with three pilot views to come, its server, and a client."""
    path = start(tmp_path, pilot=3, budget=6, forbidden=((np.deg2rad(80), np.deg2rad(100)),)).path
    yield from serving(path, tmp_path)


@pytest.fixture
def served_clockwise(tmp_path):
    from dataclasses import replace

    from ctuq.design.session import file as sessionfile

    path = start(tmp_path, pilot=3).path
    sessionfile.write(path, replace(sessionfile.read(path), intake={"clockwise": True}, plan=None))
    yield from serving(path, tmp_path)


def serving(path, folder):
    resident = serve.Resident(path)
    server = serve.server_of(resident, 0)
    where = folder / "server.json"
    where.write_text(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "token": resident.token}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield path, Client(where), where
    server.shutdown()
    thread.join()
    server.server_close()
    resident.close()


def projections(degrees):
    return measure(np.deg2rad(degrees)).tolist()


def test_a_scan_is_driven_from_its_pilot_to_its_budget(served):
    path, scanner, _ = served
    pilot = scanner.ask()["angles_deg"]
    told = scanner.tell(pilot, projections(pilot))
    assert told["session"]["measured_deg"] == pilot
    for _ in range(3):
        found = scanner.ask()
        (angle,) = found["angles_deg"]
        assert not 80 <= angle <= 100 and found["gains"][0] > 0 and not found["stop"]
        scanner.tell([angle], projections([angle]))
    with pytest.raises(RuntimeError, match="budget of 6 is exhausted"):
        scanner.ask()
    assert scanner.call("status")["session"]["budget_spent"]
    scanner.call("budget", dose=8)
    assert len(scanner.ask()["angles_deg"]) == 1
    kinds = [entry["kind"] for entry in scanner.call("log")["log"]]
    assert kinds[:2] == ["pilot", "tell"] and "learn" in kinds and kinds[-1] == "ask"
    assert len(Session(path).state.views) == 6


def test_what_another_process_tells_is_seen(served):
    path, scanner, _ = served
    Session(path, degrees=True).tell([0, 60, 120], projections([0, 60, 120]), anyway=True)
    assert scanner.call("status")["session"]["measured_deg"] == [0, 60, 120]


def test_angles_are_worked_out_after_a_tell_that_came_while_others_were(tmp_path, monkeypatch):
    """The second tell was passed over, and at 128 x 128 pixels the ask after it took 2 seconds in place of a tenth."""
    resident = serve.Resident(piloted(tmp_path).path)
    held, ended, updates = threading.Event(), threading.Event(), []

    def update(self, learning):
        updates.append(self.path)
        held.set()
        assert ended.wait(30)

    resident.close()
    monkeypatch.setattr(Session, "update", update)
    monkeypatch.setattr(resident, "_turn", nullcontext())
    for degrees in (18.0, 48.0):
        resident.answer("tell", {"angles": [degrees], "projections": projections([degrees])})
        assert held.wait(30)
    assert resident.answer("status", {})["learning"]
    ended.set()
    resident.close()
    assert len(updates) == 2
    assert not resident.answer("status", {})["learning"]


def test_angles_are_those_of_the_scanner(served_clockwise):
    path, scanner, _ = served_clockwise
    asked = scanner.ask()["angles_deg"]
    scanner.tell(asked, measure(-np.deg2rad(asked)).tolist())
    assert scanner.call("status")["session"]["measured_deg"] == asked
    np.testing.assert_allclose(
        np.sort(np.rad2deg(Session(path).record.angles[Session(path).state.views])), np.sort(-np.array(asked)) % 180, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("sak", {}, "no call 'sak'"),
        ("tell", {"angles": [0]}, "lacks a value"),
        ("tell", {"angles": [90], "projections": [[0.0] * 18]}, "forbidden arc"),
        ("tell", {"angles": [1.5], "projections": [[0.0] * 18]}, "not among the candidates"),
        ("tell", {"angles": [0], "projections": [[0.0] * 7]}, "have shape"),
        ("tell", {"angles": "here", "projections": [[0.0] * 18]}, "wrong kind"),
        ("ask", {"n": 0}, "At least one"),
        ("budget", {"dose": -1}, "positive"),
        ("budget", {"dose": float("nan")}, "positive"),
        ("budget", {}, "lacks a value"),
        ("ask", {"n": "two"}, "whole number"),
        ("ask", {"n": True}, "whole number"),
        ("ask", {"n": 1.5}, "whole number"),
        ("tell", {"angles": [90], "projections": [[0.0] * 18], "anyway": "false"}, "anyway is true or false"),
        ("reject", {"angles": [90], "final": "false"}, "final is true or false"),
        ("budget", {"dose": True}, "dose is a number"),
        ("budget", {"dose": "8"}, "dose is a number"),
        ("ask", {"n": -3}, "At least one"),
        ("ask", {"pending": [1.5]}, "not among the candidates"),
        ("ask", {"pending": "x"}, "wrong kind"),
        ("tell", {"angles": [0], "projections": [[float("nan")] * 18]}, "NaN|finite"),
        ("tell", {"angles": [0], "projections": [["x"] * 18]}, "wrong kind"),
        ("tell", {"angles": [0, 0], "projections": [[0.0] * 18] * 2}, "stands twice"),
        ("tell", {"angles": [], "projections": []}, "."),
        ("tell", {"angles": [0], "projections": [[0.0] * 18], "weights": [[-1.0] * 18]}, "weight"),
        ("tell", {"angles": [0], "projections": [[0.0] * 18], "unit": "furlong"}, "."),
        ("../../etc/passwd", {}, "no call"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence_and_changes_nothing(served, name, values, told):
    path, scanner, _ = served
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=told):
        scanner.call(name, **values)
    assert path.read_bytes() == before
    assert scanner.ask()["angles_deg"]


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "ü"}])
def test_nobody_without_the_token_is_answered(served, header):
    _, scanner, where = served
    url = json.loads(where.read_text())["url"]
    request = urllib.request.Request(f"{url}/status")
    for name, value in header.items():
        request.add_header(name, value)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 401 and "measured" not in refused.value.read().decode()
    with pytest.raises(RuntimeError, match="one JSON object"):
        scanner._headers = scanner._headers | {"Content-Type": "text/plain"}
        raise RuntimeError(json.loads(post(url, scanner._headers, b"[1]"))["error"])


def post(url, headers, body):
    try:
        return urllib.request.urlopen(urllib.request.Request(f"{url}/ask", body, headers)).read()
    except urllib.error.HTTPError as error:
        return error.read()


@pytest.mark.parametrize(
    "head, body, code",
    [
        ("Content-Length: 5", b"[1]  ", 400),
        ("Content-Length: 9", b"not json!", 400),
        ("Content-Length: 4", b"\xff\xfe\x00\x01", 400),
        ("Content-Length: 40000", b"[" * 40000, 400),
        ("Content-Length: 999999999999", b"", 413),
        ("Content-Length: -5", b"", 411),
        ("Content-Length: many", b"", 411),
        ("Transfer-Encoding: chunked", b"0\r\n\r\n", 411),
    ],
)
def test_calls_that_are_none_are_refused_and_the_server_lives_on(served, head, body, code):
    _, scanner, where = served
    told = json.loads(where.read_text())
    port = int(told["url"].rsplit(":", 1)[1])
    for token, expected in ((told["token"], code), ("wrong", 401)):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
            call = f"POST /ask HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{head}\r\n\r\n".encode()
            line.sendall(call + (body if expected == 400 else b""))
            answer = ""
            while '"error"' not in answer and (more := line.recv(65536).decode()):
                answer += more
        assert answer.startswith(f"HTTP/1.1 {expected} ") and '"error"' in answer
    assert scanner.call("status")["session"]["measured_deg"] == []


def test_a_session_is_answered_once_and_a_port_that_is_taken_is_told(tmp_path, monkeypatch, capsys):
    from ctuq.app import cli

    path = piloted(tmp_path).path
    codes = []

    def ended(self, poll_interval):
        if not codes:
            codes.append(None)
            codes.append(cli.main(["design", "serve", str(path)]))
            codes.append(
                cli.main(["design", "serve", str(path), "--token-file", str(tmp_path / "t"), "--port", str(self.server_port)])
            )
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.ThreadingHTTPServer, "serve_forever", ended)
    assert cli.main(["design", "serve", str(path)]) == 0
    assert codes[1:] == [2, 2]
    told = capsys.readouterr().err.strip().splitlines()
    assert "answered already" in told[0] and "cannot be had" in told[1] and len(told) == 2


def test_address_and_token_are_for_this_user_alone_and_gone_when_the_server_is(tmp_path, monkeypatch, capsys):
    from ctuq.app import cli

    path = piloted(tmp_path).path
    where = path.with_name(path.name + ".server.json")
    seen = {}

    def ended(self, poll_interval):
        seen.update(mode=where.stat().st_mode & 0o777, address=self.server_address[0], told=json.loads(where.read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.ThreadingHTTPServer, "serve_forever", ended)
    assert cli.main(["design", "serve", str(path)]) == 0
    assert (seen["mode"], seen["address"]) == (0o600, "127.0.0.1")
    assert seen["told"]["token"] not in capsys.readouterr().out
    assert not where.exists()


def test_the_client_is_plain_python_of_some_thirty_lines():
    text = Path(client.__file__).read_text()
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= 36
    assert "ctuq" not in "".join(line for line in lines if line.startswith(("import", "from")))
