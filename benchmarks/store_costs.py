"""What a store's names and requests cost petseg-batch's own process: s3fs, before moto's S3.

The server is another process on this machine, whose time is not counted: what counts is the
processor time of the one that asks.  How long a real store takes to answer, this does not show.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from petseg.errors import PetsegError
from petseg.remote.store import Store

_PATIENCE_SECONDS = 60.0


def measure(photos: list[Path], mask: bytes, objects: int, fetched: Path) -> dict[str, float]:
    """Costs of a bucket of its own.

    Args:
        photos: that are fetched.
        mask: that is put, so many times as there are objects.
        objects: that are put, and listed.
        fetched: where to, on this machine.

    Returns:
        Processor seconds of a put, of a photo's get, and of a name in a listing ("list"); bytes
        that a name takes while it is listed ("list_bytes"), and one that is kept afterwards
        ("kept_bytes").

    Raises:
        PetsegError: moto is not installed, or its server does not start.
    """
    with _server() as address, mock.patch.dict(os.environ, _settings(address)):
        bucket = Store("s3://bucket")
        bucket.fs.mkdir("bucket")
        for path in photos:
            bucket.put(f"photos/{path.name}", path.read_bytes(), replace=True)
        names = [f"names/{number:08}.jpg" for number in range(objects)]
        put = _each(lambda name: bucket.put(name, mask, replace=False), names)
        get = _each(lambda name: bucket.fetch(f"photos/{name}", fetched), [p.name for p in photos])
        seconds, list_bytes, kept_bytes = _listing(bucket)
    return {
        "put": put,
        "get": get,
        "list": seconds,
        "list_bytes": list_bytes,
        "kept_bytes": kept_bytes,
    }


def _listing(store: Store) -> tuple[float, float, float]:
    """Of each name: processor seconds, and bytes, at most while it is listed, and afterwards.

    Args:
        store: that is connected, which takes longer, and for a while more memory, than thousands
            of names do.
    """
    began = time.process_time()
    names = len(store.find())
    seconds = time.process_time() - began
    tracemalloc.start()
    found = store.find()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == names
    return seconds / names, peak / names, kept / names


def _each(call: Callable[[str], None], names: list[str]) -> float:
    call(names[0])  # the first one connects
    began = time.process_time()
    for name in names[1:]:
        call(name)
    return (time.process_time() - began) / (len(names) - 1)


@contextmanager
def _server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError as error:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise PetsegError(
                        f"moto's server does not answer on port {port} ({error}): pip install "
                        "'moto[server]', or --no-store to leave the store out"
                    ) from error
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def _settings(address: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
