"""Names, places and moments that a file can have, and what may lie where its mask goes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from batching import picture
from faults import PIXELS, UNKNOWN, Fault, blob, encode
from PIL import Image

OTHER = picture(206, 50, 40)
NOT_REGULAR = "not a regular file"


def write(path: Path) -> None:
    path.write_bytes(blob("PNG"))


def names() -> Iterator[Fault]:
    """Names that somebody's tools stumble over; the content is a PNG's."""
    for kind, name in (
        ("spaces in the name", b" two  words .png"),
        ("a newline in the name", b"new\nline.png"),
        ("control characters in the name", b"\x1b[31mred\x07\r.png"),
        (
            "emoji in the name",
            "\N{CAT FACE}\N{ZERO WIDTH JOINER}\N{BLACK LARGE SQUARE}.png".encode(),
        ),
        ("text from right to left in the name", "\u202egnp.jpg".encode()),
        ("a name of 255 bytes", b"n" * 251 + b".png"),
        ("a name that is not UTF-8", b"not-utf8-\xff\xfe.png"),
        ("a leading dash", b"--overwrite.png"),
        ("a leading dot", b".hidden.png"),
        ("quotes and what a shell reads", b"'\"$(touch x)`;&*?[a].png"),
        ("a backslash in the name", b"a\\b.png"),
        ("HTML in the name", b"<script>alert(1)<_script>.png"),
        ("a formula in the name", b'=HYPERLINK("x";"y").png'),
        ("several dots in the name", b"a.tar.gz..png"),
        ("a name of Windows' devices", b"CON.png"),
        ("a percent sign in the name", b"100%d%s.png"),
    ):
        yield Fault(kind, os.fsdecode(name), write, "done", pixels=PIXELS)
        # And where it fails, its name is told as it is.
        broken = os.fsdecode(name[:-4] + b".gif")
        yield Fault(kind, broken, lambda path: path.write_text("hello"), "failed", UNKNOWN)


def links() -> Iterator[Fault]:
    """Links, and what is no file at all."""

    def to(target: str) -> Callable[[Path], None]:
        return lambda path: path.symlink_to(target)

    def elsewhere(path: Path) -> Path:
        beside = path.parents[2] / f"elsewhere-{path.parent.name}"
        write(beside)
        return beside

    def bind(path: Path) -> None:
        # A socket's name has 108 bytes at most, from the root.
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)

    def chain(path: Path) -> None:
        second = elsewhere(path).with_name(f"link-{path.parent.name}")
        second.symlink_to(f"elsewhere-{path.parent.name}")
        path.symlink_to(second)

    def inner(path: Path) -> None:
        path.parent.mkdir()
        write(path)

    def link(path: Path) -> None:
        path.symlink_to(elsewhere(path))

    def hard_link(path: Path) -> None:
        path.hardlink_to(elsewhere(path))

    yield Fault("a link", "x.png", link, "done", pixels=PIXELS)
    yield Fault("a hard link", "x.png", hard_link, "done", pixels=PIXELS)
    yield Fault("a link to a link", "x.png", chain, "done", pixels=PIXELS)
    yield Fault("a broken link", "x.png", to("gone"), "failed", "a broken link")
    yield Fault("a broken link without an ending", "x", to("gone"), "ignored")
    yield Fault("a link to itself", "x.png", to("x.png"), "failed", "Too many levels of symbolic")
    yield Fault("a link to its own folder", "x", to("."), "nothing")
    yield Fault("a link to a folder above", "x", to(".."), "nothing")
    yield Fault("an empty folder with an image's name", "x.png", Path.mkdir, "nothing")
    yield Fault(
        "a file in a folder with an image's name", "x.png/y.png", inner, "done", pixels=PIXELS
    )
    yield Fault("a pipe", "x.png", os.mkfifo, "failed", NOT_REGULAR)
    yield Fault("a pipe without an ending", "x", os.mkfifo, "ignored")
    yield Fault("a socket", "x.png", bind, "failed", NOT_REGULAR)
    yield Fault("a device", "x.png", to("/dev/zero"), "failed", NOT_REGULAR)
    yield Fault("a device without an ending", "x", to("/dev/zero"), "ignored")
    yield Fault("a terminal", "x.png", to("/dev/tty"), "failed", NOT_REGULAR)
    if sys.platform == "linux":
        words = "the file changed while it was read"
        yield Fault("a file of the kernel's", "x.png", to("/proc/self/status"), "failed", words)


def moments() -> Iterator[Fault]:
    """What happens to a file after it was found and before it is read."""

    def vanish(path: Path) -> None:
        path.unlink()

    def change(path: Path) -> None:
        path.write_bytes(encode(Image.fromarray(OTHER), "PNG"))

    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    def grow(path: Path) -> None:
        with path.open("ab") as file:
            file.truncate(1 << 40)

    def become_pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def become_device(path: Path) -> None:
        path.unlink()
        path.symlink_to("/dev/zero")

    def become_folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def become_circle(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name)

    for kind, then, words in (
        ("vanishes", vanish, "cannot be read: No such file"),
        ("is cut off", cut, "damaged or truncated"),
        ("grows without end", grow, "over the limit of 75108864 for images of 1000000"),
        ("becomes a pipe", become_pipe, NOT_REGULAR),
        ("becomes a device", become_device, NOT_REGULAR),
        ("becomes a folder", become_folder, NOT_REGULAR),
        ("becomes a circle of links", become_circle, "Too many levels of symbolic links"),
        ("is emptied", lambda path: os.truncate(path, 0), "the file is empty"),
    ):
        yield Fault(f"a file that {kind}", "x.png", write, "failed", words, then=then)
    yield Fault("a file that changes", "x.png", write, "done", pixels=OTHER, then=change)


def places() -> Iterator[Fault]:
    """What lies where the mask goes; what petseg did not make stays there."""
    ones = Image.fromarray(np.ones((48, 64), np.uint8))

    def cut_link(mask: Path) -> None:
        mask.symlink_to("gone")

    def circle(mask: Path) -> None:
        mask.symlink_to(mask.name)

    def somebodys_link(mask: Path) -> None:
        mask.with_name("theirs").write_bytes(encode(ones, "PNG"))
        mask.symlink_to("theirs")

    def huge(mask: Path) -> None:
        with mask.open("wb") as file:
            file.truncate(1 << 40)

    for kind, put in (
        ("somebody's mask", lambda mask: ones.save(mask, "PNG")),
        ("somebody's notes", lambda mask: mask.write_text("to do")),
        ("somebody's folder", lambda mask: mask.mkdir()),
        ("a link to somebody's mask", somebodys_link),
        ("a broken link", cut_link),
        ("a circle of links", circle),
        ("a pipe", os.mkfifo),
        ("a device", lambda mask: mask.symlink_to("/dev/zero")),
    ):
        yield Fault(f"{kind} where the mask goes", "x.gif", write, "kept", mask=put)
        # It may also come there after the run has looked.
        yield Fault(f"{kind} that comes where the mask goes", "x.gif", write, "kept", comes=put)
    # What a machine leaves that loses its power is nobody's.
    where = "an empty file where the mask goes"
    yield Fault(where, "x.gif", write, "done", pixels=PIXELS, mask=Path.touch)


def surroundings() -> Iterator[Fault]:
    yield from names()
    yield from links()
    yield from moments()
    yield from places()
