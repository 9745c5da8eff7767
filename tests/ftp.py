"""An FTP server on the loopback address, for one folder: as much of RFC 959 as fsspec asks for."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class Session(socketserver.StreamRequestHandler):
    """A connection, whose commands are answered one after the other, as they come."""

    root: ClassVar[Path]
    disable_nagle_algorithm = True  # each answer would wait for the one before

    def handle(self) -> None:
        self.data: socket.socket | None = None
        self.offset, self.renamed = 0, self.root
        self.say("220 ready")
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            try:
                getattr(self, f"on_{verb.lower()}", self.unknown)(rest)
            except OSError as error:
                if self.data is not None:
                    self.data.close()
                self.say(f"550 {error.strerror}")

    def say(self, answer: str) -> None:
        self.wfile.write(f"{answer}\r\n".encode())

    def unknown(self, rest: str) -> None:
        raise OSError(errno.ENOSYS, "no such command", rest)

    def at(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def on_user(self, rest: str) -> None:
        del rest
        self.say("230 come in")

    def on_type(self, rest: str) -> None:
        del rest
        self.say("200 ok")

    def on_pasv(self, rest: str) -> None:
        del rest
        self.data = socket.create_server(("127.0.0.1", 0))
        port = self.data.getsockname()[1]
        self.say(f"227 here (127,0,0,1,{port >> 8},{port & 255})")

    @contextmanager
    def transfer(self) -> Iterator[socket.socket]:
        assert self.data is not None
        self.say("150 it comes")
        with self.data, self.data.accept()[0] as connection:
            yield connection
        self.data = None
        self.say("226 done")

    def on_mlsd(self, rest: str) -> None:
        found = []
        for path in sorted(self.at(rest).iterdir()):
            status = path.stat()
            changed = time.strftime("%Y%m%d%H%M%S", time.gmtime(status.st_mtime))
            kind = "dir" if path.is_dir() else "file"
            found.append(f"type={kind};size={status.st_size};modify={changed}; {path.name}\r\n")
        with self.transfer() as connection:
            connection.sendall("".join(found).encode())

    def on_rest(self, rest: str) -> None:
        self.offset = int(rest)
        self.say("350 from there")

    def on_retr(self, rest: str) -> None:
        data = self.at(rest).read_bytes()[self.offset :]
        self.offset = 0
        with self.transfer() as connection:
            connection.sendall(data)

    def on_stor(self, rest: str) -> None:
        with self.at(rest).open("wb" if self.offset == 0 else "r+b") as file:
            file.seek(self.offset)
            self.offset = 0
            with self.transfer() as connection:
                while chunk := connection.recv(1 << 16):
                    file.write(chunk)

    def on_rnfr(self, rest: str) -> None:
        self.renamed = self.at(rest)
        self.say("350 to where")

    def on_rnto(self, rest: str) -> None:
        self.renamed.replace(self.at(rest))
        self.say("250 done")

    def on_mkd(self, rest: str) -> None:
        self.at(rest).mkdir()
        self.say(f'257 "{rest}"')

    def on_rmd(self, rest: str) -> None:
        self.at(rest).rmdir()
        self.say("250 done")

    def on_dele(self, rest: str) -> None:
        self.at(rest).unlink()
        self.say("250 done")


@contextmanager
def ftp_server(folder: Path) -> Iterator[str]:
    """Serves a folder to everybody; gives the address."""
    handler = type("Handler", (Session,), {"root": folder})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ftp://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
