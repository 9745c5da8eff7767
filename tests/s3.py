"""An S3 on the loopback address, moto's, whose every request can be seen and made to fail."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# What becomes of a request, by its method and path: "slow down", "reset" or "deny"; None for what
# S3 would say.
Fault = Callable[[str, str], str | None]

_ANSWERS = {
    "slow down": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "deny": ("403 Forbidden", "AccessDenied", "Access Denied"),
}


class S3:
    """The server.

    Attributes:
        requests: method, path with its query, and headers of each so far.
        fault: decides about each.
    """

    def __init__(self) -> None:
        # Late: every run of the tests collects this file, and few of them need a server.
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.fault: Fault = lambda method, path: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self, threaded=True, request_handler=MotoRequestHandler
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        headers = {key[5:]: value for key, value in environ.items() if key.startswith("HTTP_")}
        self.requests.append((method, f"{path}?{environ['QUERY_STRING']}", headers))
        fault = self.fault(method, path)
        if fault is None:
            found: Iterable[bytes] = self._app(environ, start)
            return found
        # What was sent has to be read before anything is said.
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if fault == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        status, code, message = _ANSWERS[fault]
        start(status, [("Content-Type", "application/xml")])
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return [text.encode()]

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """The headers of all requests of this method whose path and query hold `part`."""
        return [
            headers for found, path, headers in self.requests if found == method and part in path
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A server that this process, and those it starts, take for S3, with credentials for it."""
    server = S3()
    # What moto holds is the process's, whatever server shows it.
    reset = urllib.request.Request(f"{server.address}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    for name, value in (
        ("AWS_ENDPOINT_URL", server.address),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ):
        patch.setenv(name, value)
    try:
        yield server
    finally:
        server.close()
