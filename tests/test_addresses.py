"""Which texts are addresses, what is shown of them, and which names may be used below a folder."""

from __future__ import annotations

import ntpath
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petseg.photos.addresses import is_address, is_below, overlap, shown, stays_below


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/photos", "gs://b", "sftp://host/a", "zip::s3://b/a.zip", "memory://", "hf+x://a"],
)
def test_addresses(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "path", ["photos", "/photos", "C:\\photos", "c:/x", "./s3:/b", "a b://", ""]
)
def test_paths(path: str) -> None:
    assert not is_address(path)
    assert not is_address(Path("s3://bucket"))
    assert not is_address(None)


def test_what_lies_below_what() -> None:
    assert is_below("s3://b/a/c", "s3://b/a")
    assert is_below("s3://b/a/", "s3://b/a")
    assert not is_below("s3://b/ab", "s3://b/a")
    assert not is_below("gs://b/a/c", "s3://b/a")


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("sftp://ann:p:w@d@host/a:b@c", "sftp://ann:***@host/a:b@c"),
        ("ftp://:secret@host", "ftp://:***@host"),
        ("simplecache::sftp://ann:pw@host/a", "simplecache::sftp://ann:***@host/a"),
        ("cannot use http://ann:pw@host/: gone", "cannot use http://ann:***@host/: gone"),
        ("sftp://ann@host:22/a", "sftp://ann@host:22/a"),
        ("s3://bucket/a:b@2x.png", "s3://bucket/a:b@2x.png"),
        ("/photos/a:b@c", "/photos/a:b@c"),
    ],
)
def test_passwords_are_not_shown(address: str, found: str) -> None:
    assert shown(address) == found


@pytest.mark.parametrize(
    ("images", "masks", "found"),
    [
        ("s3://b/a", "s3://b/a/masks", True),
        ("s3://b/a/photos", "s3://b/a", True),
        ("s3://b/**/*.png", "s3://b/masks", True),
        ("s3://b/a", "s3://b/masks", False),
        ("gs://b/a", "s3://b/a", False),
        ("file://{}/a", "{}/a/masks", True),
        ("{}/a", "file://{}/a/masks", True),
        ("{}/link", "local://{}/a/masks", True),
        ("{}/**/*.png", "file://{}/masks", True),
        ("{}/a", "file://{}/masks", False),
        ("{}/a", "s3://b{}/a", False),
    ],
)
def test_places_that_overlap(images: str, masks: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert overlap(images.format(tmp_path), masks.format(tmp_path)) is found


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "a//b", "a/.", "", "a\0b", "a/"])
def test_names_that_lead_elsewhere(name: str) -> None:
    assert not stays_below(name)


@pytest.mark.parametrize(
    "name",
    [
        *("a\\b", "C:x", "C:", "x.jpg:stream", "a/..\\..\\x", "what?", "*.jpg", "tab\t"),
        *("dot.", "space ", ".. ", "a/b./c", "NUL", "con.txt", "a/Com1.jpg", "lpt\xb2", "aux .jpg"),
    ],
)
def test_names_that_windows_takes_for_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert stays_below(name)
    monkeypatch.setattr("sys.platform", "win32")
    assert not stays_below(name)
    for other in (
        "a/x.jpg",
        ".hidden",
        "console.jpg",
        "com.jpg",
        "a b/..x",
        "caf\u00e9.jpg",
        "nul_",
    ):
        assert stays_below(other)


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))).map("/".join))
def test_a_name_that_is_let_through_stays_below(name: str) -> None:
    if stays_below(name):
        folder = Path("/stage")
        parts = (folder / name).parts
        assert parts[: len(folder.parts)] == folder.parts
        assert ".." not in parts
        assert len(parts) == len(folder.parts) + name.count("/") + 1


@given(st.lists(st.text(st.sampled_from('ab.:\\ C*"'), max_size=4)).map("/".join))
def test_on_windows_too(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.platform", "win32")
        below = stays_below(name)
    if below:
        folder = PureWindowsPath("D:/stage")
        found = PureWindowsPath(ntpath.normpath(folder / name))
        assert found.parts[:2] == folder.parts
        assert found.relative_to(folder).as_posix() == name
