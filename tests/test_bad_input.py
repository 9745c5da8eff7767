"""What petseg-batch refuses as a whole, with nothing done: folders, names and models."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from batching import assert_masks, invoke, picture, tree
from nobody import as_nobody, give
from onnx import TensorProto, helper
from PIL import Image

from petseg.modelfile import signature
from petseg.system.text import printable

GOOD = {"good/first.png": picture(101), "good/second.png": picture(102, 70, 50)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of good photos."""
    folder = tmp_path / "images"
    (folder / "good").mkdir(parents=True)
    for name, pixels in GOOD.items():
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_masks_not_writable(tiny_model: Path, images: Path, open_folder: Path) -> None:
    photos = shutil.copytree(images, open_folder / "images")
    model = shutil.copy(tiny_model, open_folder / "model.onnx")
    (open_folder / "masks").mkdir(mode=0o755)
    for masks in (open_folder / "masks", open_folder / "new" / "masks"):
        code, out, errors = as_nobody(open_folder, photos, masks, "--model", model)
        assert code == 1, errors
        assert f"{masks} is not writable" in errors
        assert out == ""
        assert not masks.exists() or not any(masks.iterdir())
    assert not (open_folder / "new").exists()


def refused(tmp_path: Path, *arguments: str | Path) -> str:
    """The message of a command that did nothing and ended with 1."""
    before = tree(tmp_path)
    found = invoke(*arguments, "--json")
    assert found.code == 1, found.err
    assert tree(tmp_path) == before
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert found.stats["exit_code"] == 1
    assert line == f"error: {printable(found.stats['error'])}"
    return line


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"hello"}])
def test_no_images(content: dict[str, bytes], tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    message = refused(tmp_path, folder, tmp_path / "masks", "--model", tiny_model)
    assert "no images found" in message
    assert (f"among 1 files in {folder}: notes.txt" if content else f"{folder} is empty") in message


@pytest.mark.parametrize("where", ["images", "images/masks", "images/new/masks", "link/masks"])
def test_masks_inside_images(where: str, tiny_model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images)
    message = refused(tmp_path, images, tmp_path / where, "--model", tiny_model)
    told = "is the folder of the photos" if where == "images" else f"lies in {images}"
    assert f"{tmp_path / where} {told}: masks would be taken for photos" in message
    assert "choose a folder outside" in message


def test_masks_inside_what_a_glob_finds(tiny_model: Path, images: Path, tmp_path: Path) -> None:
    masks = images / "masks"
    message = refused(tmp_path, f"{images}/**/*.png", masks, "--model", tiny_model)
    assert f"{images}/**/*.png finds masks in {masks}, too: good/first.png would be" in message


def test_a_folder_that_would_meet_petsegs_own(
    tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    (images / "petseg").mkdir()
    message = refused(tmp_path, images, tmp_path / "masks", "--model", tiny_model)
    assert str(images / "petseg") in message
    assert "if these are masks that petseg made, name the folder of their photos" in message
    assert message.endswith("else rename it")
    # A pattern finds it by the names in it.
    Image.fromarray(picture(1)).save(images / "petseg" / "x.png")
    message = refused(tmp_path, f"{images}/**/*.png", tmp_path / "masks", "--model", tiny_model)
    assert "if these are masks that petseg made, name the folder of their photos" in message


@pytest.mark.parametrize("name", ["file/stats.json", "closed/stats.json"])
def test_stats_that_cannot_be_written(
    name: str, tiny_model: Path, images: Path, open_folder: Path
) -> None:
    photos = shutil.copytree(images, open_folder / "images")
    model = shutil.copy(tiny_model, open_folder / "model.onnx")
    (open_folder / "file").write_text("x")
    (open_folder / "closed").mkdir(mode=0o555)
    (open_folder / "masks").mkdir()
    give(open_folder / "masks")
    stats = open_folder / name
    code, out, errors = as_nobody(
        *(open_folder, photos, open_folder / "masks", "--model", model, "--stats", stats)
    )
    assert (code, out) == (1, "")
    assert f"error: {stats} is not writable" in errors
    assert not any((open_folder / "masks").iterdir())


def test_a_folder_where_the_stats_go(tiny_model: Path, images: Path, tmp_path: Path) -> None:
    stats = tmp_path / "masks" / "petseg" / "stats.json"
    stats.mkdir(parents=True)
    message = refused(tmp_path, images, tmp_path / "masks", "--model", tiny_model)
    assert f"{stats} is a folder, where the stats are to go; move it" in message


def test_an_error_is_one_line_and_steers_no_terminal(
    tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    for suffix in ("jpg", "png"):
        Image.fromarray(picture(16)).save(images / f"\x1b[2J\n\u202e.{suffix}", "PNG")
    message = refused(tmp_path, images, tmp_path / "masks", "--model", tiny_model)
    assert r"\x1b[2J\n\u202e.jpg and \x1b[2J\n\u202e.png" in message


def test_masks_is_a_file(tiny_model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    message = refused(tmp_path, images, tmp_path / "file" / "masks", "--model", tiny_model)
    assert "is not writable" in message


@pytest.mark.parametrize(
    ("one", "other", "advice"),
    [
        ("x.jpg", "x.png", "--names full, in a new folder, gives x.jpg.png"),
        ("x.jpg", "X.JPG", "rename them"),
        ("a/x.png", "A/x.png", "rename them"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg", "rename them"),
        (
            "STRASSE.jpg",
            "stra\u00dfe.png",
            "--names full, in a new folder, gives x.jpg.png",
        ),
        ("x.png/inner.png", "x.jpg", "--names full, in a new folder, gives x.jpg.png"),
    ],
)
def test_name_collisions(
    one: str, other: str, advice: str, tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    for name in (one, other):
        (images / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(16)).save(images / name, "PNG")
    if sum(path.is_file() for path in images.rglob("*")) < 4:
        pytest.skip("this file system does not tell these names apart")
    message = refused(tmp_path, images, tmp_path / "masks", "--model", tiny_model)
    assert "1 mask names are claimed more than once: " in message
    assert (one if "inner" not in one else "x.png/") in message
    assert other in message
    assert message.endswith(f"; {advice}")


def test_names_full_keeps_colliding_stems_apart(
    tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    for seed, name in enumerate(("x.jpg", "x.png"), 17):
        Image.fromarray(picture(seed)).save(images / name, "PNG")
    masks = tmp_path / "masks"
    found = invoke(images, masks, "--model", tiny_model, "--names", "full", "--json")
    assert found.code == 0, found.err
    photos = {f"{name}.png": pixels for name, pixels in GOOD.items()}
    assert_masks(tiny_model, masks, {**photos, "x.jpg.png": picture(17), "x.png.png": picture(18)})


# --- models ---------------------------------------------------------------------------------------


def sign(model: onnx.ModelProto, tiny_model: Path, version: int | None = None) -> bytes:
    """Serialise a model with a signature that is true of it, as far as a signature goes."""
    found = signature.read(tiny_model)
    text = signature.Signature(
        **{**vars(found), "graph_hash": signature.hash_graph(model.graph.SerializeToString())}
    ).to_json()
    if version is not None:
        text = text.replace(
            f'"format_version": {signature.FORMAT_VERSION}', f'"format_version": {version}'
        )
    del model.metadata_props[:]
    model.metadata_props.add(key=signature.METADATA_KEY, value=text)
    data: bytes = model.SerializeToString()
    return data


def not_onnx(tiny_model: Path) -> bytes:
    return b"once upon a time there was a file\n" * 100


def empty(tiny_model: Path) -> bytes:
    return b""


def unsigned(tiny_model: Path) -> bytes:
    model = onnx.load(tiny_model)
    del model.metadata_props[:]
    data: bytes = model.SerializeToString()
    return data


def other_inputs(tiny_model: Path) -> bytes:
    pixels = helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["batch", 3, 64, 64])
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3, 64, 64])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["photo"], ["scores"])], "other", [pixels], [out]
    )
    return sign(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        tiny_model,
    )


def newer(tiny_model: Path) -> bytes:
    return sign(onnx.load(tiny_model), tiny_model, version=signature.FORMAT_VERSION + 1)


def truncated(tiny_model: Path) -> bytes:
    return tiny_model.read_bytes()[:-2000]


def edited(tiny_model: Path) -> bytes:
    model = onnx.load(tiny_model)
    model.graph.doc_string = "somebody was here"
    data: bytes = model.SerializeToString()
    return data


def not_a_network(tiny_model: Path) -> bytes:
    model = onnx.load(tiny_model)
    model.graph.node[0].op_type = "NoSuchOperator"
    return sign(model, tiny_model)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (not_onnx, ["not an ONNX file"]),
        (empty, ["not an ONNX file"]),
        (unsigned, ["has no petseg signature", "petseg-export"]),
        (other_inputs, ["expected inputs and outputs", "images", "found", "photo"]),
        (newer, [f"format version {signature.FORMAT_VERSION + 1}", "upgrade petseg"]),
        (truncated, ["not an ONNX file, or a truncated one"]),
        (edited, ["not those the signature was written for", "petseg-export"]),
        (not_a_network, ["onnxruntime cannot load", "NoSuchOperator"]),
    ],
)
def test_models_that_cannot_be_used(
    make: Callable[[Path], bytes], words: list[str], tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    model = tmp_path / "other.onnx"
    model.write_bytes(make(tiny_model))
    message = refused(tmp_path, images, tmp_path / "masks", "--model", model)
    assert str(model) in message
    for word in words:
        assert word in message


def test_no_such_model(images: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, images, tmp_path / "masks", "--model", tmp_path / "gone.onnx")
    assert f"cannot read the model {tmp_path / 'gone.onnx'}: No such file or directory" in message


def test_no_such_input(tiny_model: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, tmp_path / "gone", tmp_path / "masks", "--model", tiny_model)
    assert f"there is no folder, file or pattern {tmp_path / 'gone'}" in message
