"""Headless Chromium over the W3C WebDriver protocol, in plain HTTP: no extra package."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str:
    """Which program is not installed, or an empty text."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return "" if chromium and shutil.which("chromedriver") else "chromium and chromedriver are not installed"


class Browser:
    """One session; every method is one WebDriver command."""

    def __init__(self, base: str):
        self._base = base

    def command(self, method: str, path: str, body: dict | None = None):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        self.command("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str):
        return self.command("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        return self.run(f"return document.querySelector({json.dumps(selector)}).textContent")

    def _find(self, selector: str) -> str:
        return self.command("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]

    def _in_view(self, selector: str) -> None:
        """At once: while a page scrolls smoothly, its elements cannot be clicked."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center', behavior: 'instant'}})")

    def click(self, selector: str) -> None:
        self._in_view(selector)
        self.command("POST", f"/element/{self._find(selector)}/click")

    def keys(self, selector: str, keys: str) -> None:
        self.command("POST", f"/element/{self._find(selector)}/value", {"text": keys})

    def hover(self, selector: str, dx: int = 0, dy: int = 0) -> None:
        """Put the mouse ``dx`` and ``dy`` CSS pixels from the element's centre."""
        self._in_view(selector)
        origin = {_ELEMENT: self._find(selector)}
        move = {"type": "pointerMove", "duration": 0, "origin": origin, "x": dx, "y": dy}
        self.command("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})
        self._settle()

    def _settle(self) -> None:
        """Until the page has heard of the mouse: moves are told once a frame, which a busy machine draws late."""
        script = (
            "const done = arguments[0]; setTimeout(done, 2000);requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )
        self.command("POST", "/execute/async", {"script": script, "args": []})

    def drag(self, selector: str, *points: tuple[int, int]) -> None:
        """Press the mouse at the first point, CSS pixels from the element's centre, and release it at the last."""
        self._in_view(selector)
        origin = {_ELEMENT: self._find(selector)}
        moves = [{"type": "pointerMove", "duration": 0, "origin": origin, "x": x, "y": y} for x, y in points]
        press, release = ({"type": name, "button": 0} for name in ("pointerDown", "pointerUp"))
        actions = [moves[0], press, *moves[1:], release]
        self.command("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": actions}]})
        self._settle()

    def choose(self, selector: str, value: object) -> None:
        """Give a field a value as a user does, so that the page hears of it."""
        self.run(
            f"const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(value)};"
            "field.dispatchEvent(new Event('input', {bubbles: true}))"
        )

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)

    def devtools(self, name: str, parameters: dict):
        return self.command("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def errors(self) -> list[str]:
        """What the console holds of severe messages: uncaught exceptions, what did not load."""
        return [entry["message"] for entry in self._log() if entry["level"] == "SEVERE"]

    def messages(self) -> list[str]:
        """Everything that the console holds."""
        return [entry["message"] for entry in self._log()]

    def _log(self) -> list[dict]:
        return self.command("POST", "/se/log", {"type": "browser"})

    def screenshot(self, path: Path) -> None:
        shot = self.devtools("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A running session whose profile lives in ``folder``; network names resolve to nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"]
    switches += [f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    wanted = {"goog:chromeOptions": {"args": switches}, "goog:loggingPrefs": {"browser": "ALL"}}
    base = f"http://127.0.0.1:{port}"
    try:
        _wait(base)
        session = Browser(base).command("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        page = Browser(f"{base}/session/{session}")
        try:
            yield page
        finally:
            page.command("DELETE", "")
    finally:
        driver.terminate()
        driver.wait()


def _wait(base: str) -> None:
    for _ in range(100):
        try:
            if Browser(base).command("GET", "/status")["ready"]:
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise RuntimeError("chromedriver did not start within 10 s")
