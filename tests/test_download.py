from __future__ import annotations

import hashlib
import http.client
import io
import ssl
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from petseg.data.download import ARCHIVES, Archive, cache_folder, oxford_iiit_pet
from petseg.errors import DatasetError


def tar_gz(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


class Server:
    """Serves files over HTTP with ranges, and breaks off where it is told to."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: int | None = None
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                server.requests.append((self.path, asked))
                data = server.files.get(self.path)
                if data is None:
                    self.send_error(404)
                    return
                first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
                if asked and server.ranges and first >= len(data):
                    self.send_error(416)
                    return
                if asked and server.ranges:
                    self.send_response(206)
                    data = data[first:]
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: server.break_after])

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    def serve(self, name: str, data: bytes, folder: str) -> Archive:
        self.files[f"/{name}"] = data
        url = f"http://127.0.0.1:{self.http.server_port}/{name}"
        return Archive(url, hashlib.md5(data).hexdigest(), folder)

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.close()


@pytest.fixture
def archives(server: Server) -> list[Archive]:
    return [
        server.serve("images.tar.gz", tar_gz({"images/a.jpg": b"x" * 5000}), "images"),
        server.serve("annotations.tar.gz", tar_gz({"annotations/list.txt": b"a"}), "annotations"),
    ]


def test_the_data_set_is_downloaded_once(
    server: Server,
    archives: list[Archive],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        assert oxford_iiit_pet(tmp_path, archives) == tmp_path
        assert (tmp_path / "images" / "a.jpg").read_bytes() == b"x" * 5000
        assert (tmp_path / "annotations" / "list.txt").read_bytes() == b"a"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "images"]
    assert len(server.requests) == 2
    told = capsys.readouterr()
    assert told.out == ""
    # Once each, and no bar, which is for terminals.
    lines = told.err.splitlines()
    assert [line.rpartition("/")[2] for line in lines] == ["images.tar.gz", "annotations.tar.gz"]
    assert all(line.startswith("downloading http://") for line in lines)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(
    server: Server, archives: list[Archive], tmp_path: Path, ranges: bool
) -> None:
    server.break_after = 40
    with pytest.raises(DatasetError, match=r"cannot download http.*run the same command again"):
        oxford_iiit_pet(tmp_path, archives)
    assert (tmp_path / "images.tar.gz.part").stat().st_size == 40
    server.break_after, server.ranges = None, ranges
    oxford_iiit_pet(tmp_path, archives)
    assert server.requests[1] == ("/images.tar.gz", "bytes=40-")
    assert (tmp_path / "images" / "a.jpg").stat().st_size == 5000


def test_an_error_of_the_connection_is_not_the_disks(
    server: Server, archives: list[Archive], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssl.SSLError is an OSError, as a full disk's is."""

    def fail(self: http.client.HTTPResponse, amount: int) -> bytes:
        raise ssl.SSLError(1, "[SSL: DECRYPTION_FAILED_OR_BAD_RECORD_MAC] decryption failed")

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPResponse, "read", fail)
        with pytest.raises(DatasetError, match=r"cannot download http.*broke off: .*decryption"):
            oxford_iiit_pet(tmp_path, archives)
    oxford_iiit_pet(tmp_path, archives)
    assert (tmp_path / "images" / "a.jpg").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_not_the_networks(archives: list[Archive], tmp_path: Path) -> None:
    (tmp_path / "images.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(DatasetError, match=r"cannot keep the data set in .*No space left"):
        oxford_iiit_pet(tmp_path, archives)


def test_a_download_that_only_lacks_its_last_step(
    server: Server, archives: list[Archive], tmp_path: Path
) -> None:
    (tmp_path / "images.tar.gz.part").write_bytes(server.files["/images.tar.gz"])
    oxford_iiit_pet(tmp_path, archives)
    assert (tmp_path / "images" / "a.jpg").exists()


def test_other_bytes_than_expected_are_removed(
    server: Server, archives: list[Archive], tmp_path: Path
) -> None:
    good = server.files["/images.tar.gz"]
    server.files["/images.tar.gz"] = b"another file"
    with pytest.raises(DatasetError, match=f"MD5 checksum .*, expected {archives[0].md5}"):
        oxford_iiit_pet(tmp_path, archives)
    assert not list(tmp_path.iterdir())
    server.files["/images.tar.gz"] = good
    oxford_iiit_pet(tmp_path, archives)


@pytest.mark.parametrize("absolute", [False, True])
def test_an_archive_cannot_write_outside(server: Server, tmp_path: Path, absolute: bool) -> None:
    root = tmp_path / "cache"
    name = str(tmp_path / "evil") if absolute else "../../evil"
    evil = server.serve("images.tar.gz", tar_gz({name: b"", "images/a": b""}), "images")
    with pytest.raises(DatasetError, match=r"cannot unpack .*evil lies outside"):
        oxford_iiit_pet(root, [evil])
    assert not (tmp_path / "evil").exists()
    assert not (root / "images").exists()


def test_an_archive_makes_files_alone(server: Server, tmp_path: Path) -> None:
    """Links, devices and pipes are left out, and what is put below a link does not follow it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for name, kind, target in (
            ("images/link", tarfile.SYMTYPE, str(outside)),
            ("images/hard", tarfile.LNKTYPE, "/etc/passwd"),
            ("images/device", tarfile.CHRTYPE, ""),
            ("images/disk", tarfile.BLKTYPE, ""),
            ("images/pipe", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
        for name in ("images/link/below", "images/a.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    root = tmp_path / "cache"
    oxford_iiit_pet(root, [server.serve("images.tar.gz", data.getvalue(), "images")])
    assert list(outside.iterdir()) == []
    found = sorted((root / "images").rglob("*"))
    assert [path.relative_to(root).as_posix() for path in found] == [
        *("images/a.jpg", "images/link", "images/link/below")
    ]
    assert not any(path.is_symlink() for path in found)


def test_an_archive_without_its_folder(server: Server, tmp_path: Path) -> None:
    other = server.serve("images.tar.gz", tar_gz({"photos/a": b""}), "images")
    with pytest.raises(DatasetError, match="cannot unpack"):
        oxford_iiit_pet(tmp_path, [other])


def test_without_a_network_one_line_says_what_to_do(server: Server, tmp_path: Path) -> None:
    missing = Archive(f"http://127.0.0.1:{server.http.server_port}/no.tar.gz", "", "images")
    with pytest.raises(DatasetError, match=r"\(Not Found\).*--data DIR or PETSEG_DATA"):
        oxford_iiit_pet(tmp_path, [missing])
    nowhere = Archive("http://petseg.invalid/images.tar.gz", "", "images")
    with pytest.raises(DatasetError, match="--data DIR or PETSEG_DATA") as caught:
        oxford_iiit_pet(tmp_path, [nowhere])
    assert "\n" not in str(caught.value)


def test_the_official_archives_go_to_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "petseg"
    assert [archive.folder for archive in ARCHIVES] == ["images", "annotations"]
    assert all(archive.url.startswith("https://www.robots.ox.ac.uk/~vgg/") for archive in ARCHIVES)
