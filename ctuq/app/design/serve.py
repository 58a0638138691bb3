"""What ``ctuq design serve`` does: a session that stays in memory, asked and told over HTTP on this machine."""

import hmac
import json
import logging
import os
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ctuq.app.design.options import Serve
from ctuq.app.design.text import facts_of, log_facts
from ctuq.app.terminal import give, plain, say
from ctuq.design.session.plan import learning_due
from ctuq.design.session.session import Session
from ctuq.errors import BudgetExhausted, CtuqError, InputError
from ctuq.locks import BusyError, locked

LOOPBACK = "127.0.0.1"
_MOST_BYTES, _DIGITS = 2**28, 18
_PATIENCE = 60.0
"""Seconds."""
_log = logging.getLogger(__name__)


def serve(command: Serve) -> int:
    """Answer until interrupted; where to ask is told on the terminal and in the token's file, which is removed at the end."""
    where = command.token_file or command.session.with_name(command.session.name + ".server.json")
    busy = f"{command.session} is answered already; its address and token are in {where}."
    # The server's file names one of them, and the first to end would take it away from the other.
    with locked(where, "serve", busy=busy, tidy=True):
        resident = Resident(command.session)
        with server_of(resident, command.port) as server:
            _until_interrupted(server, resident, command.session, where)
    return 0


def _until_interrupted(server: ThreadingHTTPServer, resident: "Resident", session: Path, where: Path) -> None:
    address = {"url": f"http://{LOOPBACK}:{server.server_port}", "token": resident.token}
    _write_secret(where, address)
    give(url=address["url"], token_file=where)
    say(f"{session} is answered at {address['url']}; the token is in {where}. Ctrl-C ends it.")
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        say("Ended; what was told is kept.")
    finally:
        where.unlink(missing_ok=True)
        resident.close()


class Resident:
    """A session in memory. Calls take turns; what is slow goes on beside them: learning, in a session of its own.

    Parameters
    ----------
    path : Path
        Of a session that was started.
    """

    def __init__(self, path: Path):
        self.token = secrets.token_urlsafe(24)
        self._session, self._turn = Session(path, degrees=True), threading.Lock()
        self._learner: threading.Thread | None = None
        self._beside, self._going, self._more = threading.Lock(), False, False
        self._trouble, self._doubts = "", list[str]()
        self._ready()

    def answer(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """What one call returns.

        Parameters
        ----------
        name : {"status", "log", "ask", "tell", "reject", "budget"}
        given : dict
            Its values; angles in the scanner's degrees.

        Raises
        ------
        CtuqError
            As of `Session`; and `InputError` if there is no such call, or a value is missing.
        """
        calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "status": lambda _: self._state(),
            "log": lambda _: {"log": log_facts(self._session.record)},
            "ask": self._ask,
            "tell": self._tell,
            "reject": self._reject,
            "budget": self._budget,
        }
        if name not in calls:
            raise InputError(f"There is no call {name!r}; there are {', '.join(calls)}.")
        if name == "ask":
            self._wait_for_the_first_model()
        with self._turn:
            try:
                return calls[name](given)
            except (KeyError, TypeError, ValueError) as error:
                if isinstance(error, CtuqError):
                    raise
                raise InputError(f"The call {name} lacks a value or has one of the wrong kind ({error}).") from error

    def close(self) -> None:
        """Wait for what is being learned."""
        if self._learner is not None:
            self._learner.join(timeout=1.0)

    def _ready(self) -> None:
        """Have the model in memory before the first call."""
        if learning_due(self._session.record):
            self._go_on_beside()
        else:
            self._session.warm()
            self._doubts = list(self._session.doubts())

    def _wait_for_the_first_model(self) -> None:
        """It must be there before an angle can be chosen by it. Who waits holds no turn: what goes on beside may need one."""
        if self._learner is not None and self._session.record.learnt is None:
            self._learner.join()

    def _ask(self, given: dict[str, Any]) -> dict[str, Any]:
        suggestion = self._session.ask(given.get("n"), pending=np.asarray(given.get("pending", ()), np.float64))
        return {"suggestion": suggestion.to_dict(), **self._state()}

    def _tell(self, given: dict[str, Any]) -> dict[str, Any]:
        weights = given.get("weights")
        self._session.tell(
            np.asarray(given["angles"], np.float64).reshape(-1),
            np.atleast_2d(np.asarray(given["projections"], np.float32)),
            None if weights is None else np.atleast_2d(np.asarray(weights, np.float32)),
            unit=given.get("unit", "weight"),
            learning=False,
            anyway=_flag(given, "anyway"),
            ahead=False,
        )
        self._go_on_beside()
        return self._state()

    def _reject(self, given: dict[str, Any]) -> dict[str, Any]:
        angles = np.asarray(given["angles"], np.float64).reshape(-1)
        self._session.reject(angles, str(given.get("reason", "")), retry=not _flag(given, "final"), learning=False)
        self._go_on_beside()
        return self._state()

    def _budget(self, given: dict[str, Any]) -> dict[str, Any]:
        dose = given["dose"]
        if isinstance(dose, bool) or not isinstance(dose, Real):
            raise InputError(f"The value of dose is a number of nominal exposures, not {dose!r}.")
        self._session.allow(float(dose))
        return self._state()

    def _state(self) -> dict[str, Any]:
        going = {"learning": self._going, "trouble": self._trouble or None, "doubts": self._doubts}
        return {"session": facts_of(self._session.refreshed())} | going

    def _go_on_beside(self) -> None:
        """Work out the next angles and learn, if that is due, after the answer; once more after what is going on now."""
        with self._beside:
            self._more = True
            if not self._going:
                self._going = True
                self._learner = threading.Thread(target=self._go_on, daemon=True)
                self._learner.start()

    def _is_more(self) -> bool:
        with self._beside:
            self._going, self._more = self._more, False
            return self._going

    def _go_on(self) -> None:
        while self._is_more():
            try:
                if not learning_due(self._session.record):
                    with self._turn:
                        self._session.update(learning=False)
                other = Session(self._session.path)
                self._doubts = list(other.doubts())
                while learning_due(other.refreshed()):
                    other.learn()
                self._trouble = ""
            except BusyError:
                _log.info("Another process is learning.")
            except Exception as error:  # whatever it is must be told to whoever asks
                self._trouble = str(error)
                _log.warning("The model was not learned: %s", error)


def _flag(given: dict[str, Any], name: str) -> bool:
    """Whether something is on; a text such as "false" would be."""
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InputError(f"The value of {name} is true or false, not {value!r}.")
    return value


def server_of(resident: Resident, port: int) -> ThreadingHTTPServer:
    """An HTTP server on this machine's loopback only.

    Raises
    ------
    InputError
        If the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "ctuq", ""
        protocol_version = "HTTP/1.1"
        # Small answers are not to wait for more of them: that takes 40 ms.
        disable_nagle_algorithm = True

        # A body that never comes is not waited for.
        timeout = _PATIENCE

        def do_GET(self) -> None:
            if self._is_known():
                self._send(*_answered(resident, self.path.strip("/"), {}))

        def do_POST(self) -> None:
            if not self._is_known():
                return
            told = self.headers.get("Content-Length", "")
            if not told.isdecimal() or len(told) > _DIGITS or self.headers.get("Transfer-Encoding"):
                self._refuse(411, "A call says its length in bytes, Content-Length, and comes in one piece.")
            elif int(told) > _MOST_BYTES:
                self._refuse(413, f"A call has {_MOST_BYTES} bytes at most.")
            else:
                given = _values_of(self.rfile.read(int(told)))
                if given is None:
                    self._send(400, {"error": "A call's values are one JSON object."})
                else:
                    self._send(*_answered(resident, self.path.strip("/"), given))

        def _is_known(self) -> bool:
            """Whether the token is right; else nothing of the call is read."""
            given, wanted = self.headers.get("Authorization", "").encode(), f"Bearer {resident.token}".encode()
            if hmac.compare_digest(given, wanted):
                return True
            self._refuse(401, "The token is missing or wrong; it stands in the file that ctuq design serve names.")
            return False

        def _refuse(self, code: int, sentence: str) -> None:
            """Without having read the call, so that what follows of it is no call of its own."""
            self.close_connection = True
            self._send(code, {"error": sentence})

        def _send(self, code: int, values: dict[str, Any]) -> None:
            body = json.dumps(plain(values)).encode("ascii")
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            _log.debug(format, *args)

    try:
        server = ThreadingHTTPServer((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"Port {port} of this machine cannot be had ({error}); choose another --port, or 0.") from error
    server.daemon_threads = True
    return server


def _values_of(body: bytes) -> dict[str, Any] | None:
    """A call's values; None if they are no JSON object."""
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _answered(resident: Resident, name: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    try:
        return 200, resident.answer(name, given)
    except BudgetExhausted as error:
        return 409, {"error": str(error), "budget_spent": True}
    except CtuqError as error:
        return 400, {"error": str(error), "budget_spent": False}
    except Exception as error:  # a defect of ours is told to whoever asked, and the server lives on
        _log.exception("A defect of ctuq.")
        return 500, {"error": f"A defect of ctuq ({type(error).__name__}: {error})."}


def _write_secret(path: Path, values: dict[str, str]) -> None:
    """A file that only this user may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(values, file)
