"""Which files are found, under which names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batching import picture
from PIL import Image

from petseg.errors import PetsegError
from petseg.photos import sources
from petseg.photos.sources import Source


def save(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(1, 4, 4)).save(folder / name, "PNG")


def names(images: Path | str, list_file: Path | None = None) -> list[str]:
    found = list(sources.find(str(images), list_file))
    for source in found:
        if source.problem is None:
            assert Path(source.path).read_bytes().startswith(b"\x89PNG")
            assert source.is_image
    return [source.name for source in found]


def test_a_folder_is_walked_in_the_order_of_names(tmp_path: Path) -> None:
    save(tmp_path, "b.png", "a/z.png", "a/b/c.jpg", "A.png", "x.jpg/inner.png", ".hidden.png")
    assert names(tmp_path) == [
        ".hidden.png",
        "A.png",
        "a/b/c.jpg",
        "a/z.png",
        "b.png",
        "x.jpg/inner.png",
    ]
    assert names(f"{tmp_path}/") == names(tmp_path)


def test_images_are_told_by_name_or_by_first_bytes(tmp_path: Path) -> None:
    save(tmp_path, "really-an-image")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty").touch()
    found = {source.name: source.is_image for source in sources.find(str(tmp_path))}
    assert found == {"really-an-image": True, "notes.txt": False, "text.jpg": True, "empty": False}


STRANGE = [
    b"with space.png",
    b" leading and trailing .png",
    b"new\nline.png",
    "\N{CAT FACE} caf\u00e9.png".encode(),
    b"not-utf8-\xff\xfe.png",
    b"quote'\"$(x)`;&*?[a].png",
    b"-dash.png",
    b"a" * 251 + b".png",
    b"\x1b[31mred.png",
    b"..png",
    b".png",
]


def test_strange_names_are_kept(tmp_path: Path) -> None:
    save(tmp_path, "x.png")
    for name in STRANGE:
        os.link(tmp_path / "x.png", os.fsencode(tmp_path) + b"/" + name)
    (tmp_path / "x.png").unlink()
    found = [os.fsencode(name) for name in names(tmp_path)]
    assert sorted(found) == sorted(STRANGE)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save(photos, "a/x.png", "y.png")
    save(tmp_path, "elsewhere/z.png")
    (photos / "a" / "up").symlink_to(photos)
    (photos / "a" / "same").symlink_to(".")
    (photos / "other").symlink_to(tmp_path / "elsewhere")
    (photos / "link.png").symlink_to("y.png")
    assert names(photos) == ["a/x.png", "link.png", "other/z.png", "y.png"]


def test_a_link_to_itself_costs_nobody_else(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "z.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "loop.png").symlink_to("loop.png")
    found = {source.name: source for source in sources.find(str(tmp_path))}
    assert [name for name, source in found.items() if source.problem is None] == ["a.png", "z.png"]
    assert found["loop.png"].problem == "cannot be read: Too many levels of symbolic links"
    assert found["loop.png"].is_image
    assert not found["loop"].is_image


def test_broken_links(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "gone").symlink_to("nowhere")
    found = {source.name: source for source in sources.find(str(tmp_path))}
    assert found["gone.jpg"] == Source(
        str(tmp_path / "gone.jpg"), "gone.jpg", True, "a broken link"
    )
    assert not found["gone"].is_image


def test_pipes_and_sockets_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    found = {source.name: source for source in sources.find(str(tmp_path))}
    assert found["pipe.jpg"].is_image
    assert found["pipe.jpg"].problem == "not a regular file"
    assert not found["pipe"].is_image


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a/x.png", "a/[1].png")
    assert names(tmp_path / "a" / "x.png") == ["x.png"]
    assert names(tmp_path / "a" / "[1].png") == ["[1].png"]
    assert sources.root(str(tmp_path / "a" / "x.png")) == tmp_path / "a"
    monkeypatch.chdir(tmp_path / "a")
    assert names("x.png") == ["x.png"]
    (tmp_path / "broken.jpg").symlink_to("gone")
    (source,) = sources.find(str(tmp_path / "broken.jpg"))
    assert source.problem == "a broken link"


def test_a_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "a/x.png", "a/y.jpg", "a/b/z.png", "c/w.png")
    assert names(f"{tmp_path}/a/*.png") == ["x.png"]
    assert names(f"{tmp_path}/a/*") == ["x.png", "y.jpg"]
    assert names(f"{tmp_path}/**/*.png") == ["a/b/z.png", "a/x.png", "c/w.png"]
    assert names(f"{tmp_path}/?/w.png") == ["c/w.png"]
    monkeypatch.chdir(tmp_path)
    assert names("a/*.png") == ["x.png"]
    assert names("./[ac]/*.png") == ["a/x.png", "c/w.png"]
    with pytest.raises(PetsegError, match=r"nothing matches .*none"):
        names(f"{tmp_path}/*.none")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PetsegError, match=r"there is no folder, file or pattern .*/gone"):
        names(tmp_path / "gone")


def test_a_list_of_paths(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save(photos, "a/x.png", "with space.png", "caf\u00e9.png", "left-out.png", "suffixless")
    listed = tmp_path / "list.txt"
    content = "# a comment\n\na/x.png\r\n  with space.png\n./caf\u00e9.png\nsuffixless\n"
    for encoding in ("utf-8", "utf-8-sig"):
        listed.write_bytes(content.encode(encoding))
        assert names(photos, listed) == ["a/x.png", "with space.png", "caf\u00e9.png", "suffixless"]


def test_one_of_oxfords_lists(tmp_path: Path) -> None:
    save(tmp_path, "images/Abyssinian_1.jpg", "images/beagle_2.jpg", "images/pug_3.jpg")
    listed = tmp_path / "trainval.txt"
    listed.write_text("#Image CLASS-ID SPECIES BREED ID\nbeagle_2 5 2 1\nAbyssinian_1 1 1 1\n")
    assert names(tmp_path / "images", listed) == ["beagle_2.jpg", "Abyssinian_1.jpg"]


def test_what_a_list_names_is_done_once_and_accounted_for(tmp_path: Path) -> None:
    save(tmp_path, "x.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.dat").write_text("hello")
    listed = tmp_path / "list"
    long = "n" * 300 + ".png"
    listed.write_text(f"x.png\nx.png\ngone.png\nfolder\ntext.dat\n{long}\n")
    found = {source.name: source for source in sources.find(str(tmp_path), listed)}
    assert list(found) == ["x.png", "gone.png", "folder", "text.dat", long]
    assert all(source.is_image for source in found.values())
    problems = [source.problem for source in found.values()]
    assert problems == [
        None,
        "no such file",
        "not a regular file",
        None,
        "cannot be read: File name too long",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("../x.png", "does not lie below"),
        ("a/../../x.png", "does not lie below"),
        ("/etc/hostname", "expected a path relative to"),
        ("..", "does not lie below"),
    ],
)
def test_a_list_stays_inside(line: str, words: str, tmp_path: Path) -> None:
    save(tmp_path, "photos/a/x.png", "x.png")
    (tmp_path / "list").write_text(f"a/x.png\n{line}\n")
    with pytest.raises(PetsegError, match=words):
        names(tmp_path / "photos", tmp_path / "list")


def test_lists_that_are_none(tmp_path: Path) -> None:
    save(tmp_path, "photos/x.png")
    with pytest.raises(PetsegError, match=r"cannot read the list .*/gone: No such file"):
        names(tmp_path / "photos", tmp_path / "gone")
    (tmp_path / "wide").write_bytes("x.png\n".encode("utf-16"))
    with pytest.raises(PetsegError, match=r"the list .*/wide is no text in UTF-8"):
        names(tmp_path / "photos", tmp_path / "wide")
    (tmp_path / "list").write_text("x.png\n")
    with pytest.raises(PetsegError, match="is not a folder; a list's paths"):
        names(tmp_path / "photos" / "x.png", tmp_path / "list")
