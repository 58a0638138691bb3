"""A client of ``ctuq design serve``: this file needs nothing but Python, and may be copied to the scanner's machine."""

import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen


class Client:
    """Asks and tells the server whose address and token stand in a file; angles in the scanner's degrees."""

    def __init__(self, server_file, timeout=600.0):
        with open(server_file, encoding="utf-8") as file:  # noqa: PTH123, plain Python of any age
            told = json.load(file)
        self._url, self._timeout = told["url"], timeout
        self._headers = {"Authorization": f"Bearer {told['token']}", "Content-Type": "application/json"}

    def call(self, name, **values):
        """One of status, log, ask (n, pending), tell (angles, projections, weights), reject (angles, reason), budget (dose)."""
        request = Request(f"{self._url}/{name}", json.dumps(values).encode(), self._headers)
        try:
            with urlopen(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise RuntimeError(json.load(error)["error"]) from None

    def ask(self, n=None, pending=()):
        """The suggestion: its angles_deg, gains, stop and reason."""
        return self.call("ask", n=n, pending=list(pending))["suggestion"]

    def tell(self, angles, projections, **more):
        """Line integrals (k, columns) at these angles, as nested lists."""
        return self.call("tell", angles=angles, projections=projections, **more)
