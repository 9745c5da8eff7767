"""Putting masks into a store: what goes over the wire to Google's, and connections that die."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import fsspec
import pytest
from gcsfs.extended_gcsfs import BucketType

from petseg.remote.store import Store


class Bucket:
    """A server with the one request that puts an object, as the JSON API's `objects.insert`.

    https://docs.cloud.google.com/storage/docs/json_api/v1/objects/insert

    Attributes:
        objects: what is there, by name.
        asked: query and what came of it, for each put.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[dict[str, list[str]], int]] = []
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                url = urlsplit(self.path)
                assert url.path == "/upload/storage/v1/b/bucket/o", url.path
                query = parse_qs(url.query)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                _, told, content, _ = body.split(b"--==0==")
                name = json.loads(told.partition(b"\n\n")[2])["name"]
                there = name in bucket.objects
                status = 412 if there and query.get("ifGenerationMatch") == ["0"] else 200
                if status == 200:
                    bucket.objects[name] = content.partition(b"\n\n")[2].removesuffix(b"\n")
                bucket.asked.append((query, status))
                answer = json.dumps({"name": name, "bucket": "bucket"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *words: object) -> None:
                del words

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """What gcsfs takes for Google's, without credentials."""
    found = Bucket()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", found.address)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    yield found
    found.close()


def test_a_new_mask_is_put_on_the_condition_that_none_is_there(bucket: Bucket) -> None:
    store = Store("gs://bucket/masks")
    # It would ask over gRPC, of Google itself, what kind of bucket this is.
    store.fs._storage_layout_cache["bucket"] = BucketType.NON_HIERARCHICAL
    store.put("a/x.png", b"a mask", replace=False)
    with pytest.raises(FileExistsError):
        store.put("a/x.png", b"another", replace=False)
    assert bucket.objects == {"masks/a/x.png": b"a mask"}
    store.put("a/x.png", b"a third", replace=True)
    assert bucket.objects == {"masks/a/x.png": b"a third"}
    conditions = [(query.get("ifGenerationMatch"), status) for query, status in bucket.asked]
    assert conditions == [(["0"], 200), (["0"], 412), (None, 200)]
    assert store.one_put
    assert store.retries == 0


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that knows no condition: looked at first, written beside, and moved."""
    monkeypatch.setattr("petseg.remote.asking._WAITS", (0.0,))
    return Store(f"file://{tmp_path}")


class AnswerError(Exception):
    """As libraries that speak HTTP raise it: behind it an error with the answer, an object."""


def test_a_library_with_errors_of_its_own_is_asked_again(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_bytes(b"x")
    real, answers = shared.fs.cat_file, iter([False])

    def busy(*arguments: Any, **options: Any) -> Any:
        if next(answers, True):
            return real(*arguments, **options)
        cause = OSError("503")
        cause.response = SimpleNamespace(status_code=503)  # type: ignore[attr-defined]
        raise AnswerError("busy") from cause

    monkeypatch.setattr(shared.fs, "cat_file", busy)
    assert shared.read("x.png", 10) == b"x"
    assert shared.retries == 1


def test_a_listing_without_sizes_is_made_good(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a web server's is."""
    (tmp_path / "x.png").write_bytes(b"four")
    real = shared.fs.find

    def find(*arguments: Any, **options: Any) -> Any:
        found = real(*arguments, **options)
        return {path: {**info, "size": None} for path, info in found.items()}

    monkeypatch.setattr(shared.fs, "find", find)
    assert shared.find()["x.png"].size == 4


def once(real: Callable[..., Any], does_it: bool) -> Callable[..., Any]:
    """A request whose first answer does not arrive."""
    answers = iter([False])

    def request(*arguments: Any, **options: Any) -> Any:
        arrives = next(answers, True)
        result = real(*arguments, **options) if arrives or does_it else None
        if not arrives:
            raise ConnectionResetError("the connection died")
        return result

    return request


def test_a_connection_that_dies_is_no_free_place(
    shared: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_bytes(b"a person's")
    monkeypatch.setattr(shared.fs, "info", once(shared.fs.info, does_it=False))
    with pytest.raises(FileExistsError):
        shared.put("x.png", b"petseg's", replace=False)
    assert (tmp_path / "x.png").read_bytes() == b"a person's"
    shared.put("y.png", b"petseg's", replace=False)
    assert (tmp_path / "y.png").read_bytes() == b"petseg's"


@pytest.mark.parametrize("moved", [True, False])
def test_a_move_without_an_answer_is_made_again(
    shared: Store, moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared.fs, "mv", once(shared.fs.mv, does_it=moved))
    shared.put("a/x.png", b"petseg's", replace=False)
    assert (tmp_path / "a" / "x.png").read_bytes() == b"petseg's"
    assert shared.retries == 1
