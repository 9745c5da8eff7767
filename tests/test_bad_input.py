"""What petseg-batch makes of every kind of input: done, ignored, failed, or refused as a whole."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from batching import (
    Pixels,
    assert_masks,
    command,
    expected_mask,
    invoke,
    picture,
    read_mask,
    tree,
)
from onnx import TensorProto, helper
from PIL import Image

import petseg
from petseg import signature

GOOD = {"good/first.png": picture(101), "good/second.png": picture(102, 70, 50)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of photos that must come through, whatever lies beside them."""
    folder = tmp_path / "images"
    (folder / "good").mkdir(parents=True)
    for name, pixels in GOOD.items():
        Image.fromarray(pixels).save(folder / name)
    return folder


def failures(masks: Path) -> list[list[str]]:
    path = masks / "petseg" / "failures.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "reason"]
    return rows


# --- done -----------------------------------------------------------------------------------------


def cmyk(path: Path) -> Pixels:
    Image.fromarray(picture(1)).convert("CMYK").save(path, quality=95)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
        return np.array(image.convert("RGB"))


def greyscale(path: Path) -> Pixels:
    grey = picture(2)[..., 0]
    Image.fromarray(grey).save(path)
    return np.stack([grey] * 3, axis=-1)


def sixteen_bit(path: Path) -> Pixels:
    grey = picture(3)[..., 1]
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    with Image.open(path) as image:
        assert image.mode == "I;16"
    return np.stack([grey] * 3, axis=-1)


def palette(path: Path) -> Pixels:
    image = Image.fromarray(picture(4)).quantize(64)
    image.save(path)
    return np.array(image.convert("RGB"))


def alpha(path: Path) -> Pixels:
    pixels = picture(5)
    opaque = np.zeros(pixels.shape[:2], np.uint8)
    opaque[20:70, 30:] = 255
    Image.fromarray(np.dstack([pixels, opaque])).save(path)
    return np.where(opaque[..., None] == 255, pixels, np.uint8(255))


def animation(path: Path) -> Pixels:
    first, *others = (Image.fromarray(picture(seed)).quantize(64) for seed in (6, 7, 8))
    first.save(path, save_all=True, append_images=others, duration=100)
    with Image.open(path) as image:
        assert image.n_frames == 3
        return np.array(image.convert("RGB"))


def rotated(path: Path) -> Pixels:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: a quarter turn clockwise makes it upright
    Image.fromarray(picture(9, 60, 110)).save(path, exif=exif, quality=95)
    with Image.open(path) as image:
        return np.rot90(np.array(image), -1).copy()


def one_pixel(path: Path) -> Pixels:
    pixels = np.array([[[200, 30, 90]]], np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def very_wide(path: Path) -> Pixels:
    pixels = picture(10, 10, 20000)
    Image.fromarray(pixels).save(path)
    return pixels


def png_named_jpg(path: Path) -> Pixels:
    Image.fromarray(picture(11)).save(path, "PNG")
    return picture(11)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cmyk.jpg", cmyk),
        ("grey.png", greyscale),
        ("sixteen.png", sixteen_bit),
        ("sixteen.tif", sixteen_bit),
        ("palette.png", palette),
        ("alpha.png", alpha),
        ("animation.gif", animation),
        ("rotated.jpg", rotated),
        ("one-pixel.png", one_pixel),
        ("wide.png", very_wide),
        ("really-a-png.jpg", png_named_jpg),
    ],
)
def test_done(
    name: str, make: Callable[[Path], Pixels], tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    pixels = make(images / name)
    masks = tmp_path / "masks"
    found = invoke(images, masks, "--model", tiny_model, "--json")
    assert found.code == 0, found.err
    assert found.counts["done"] == found.counts["files"] == 3
    assert "3 files: 3 done, 0 skipped, 0 failed, 0 ignored, 0 left" in found.err
    assert failures(masks) == []
    mask = read_mask((masks / name).with_suffix(".png"))
    assert mask.shape == pixels.shape[:2]
    np.testing.assert_array_equal(mask, expected_mask(tiny_model, pixels))
    if mask.size > 1:
        assert np.bincount(mask.ravel(), minlength=4)[1:].min() > 0
    assert_masks(tiny_model, masks, GOOD)


# --- ignored, walked ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", ".DS_Store"])
def test_ignored(name: str, tiny_model: Path, images: Path, tmp_path: Path) -> None:
    (images / name).write_bytes(b"\x00\x00\x00\x01Bud1" if name == ".DS_Store" else b"buy milk\n")
    found = invoke(images, tmp_path / "masks", "--model", tiny_model, "--json")
    assert found.code == 0, found.err
    assert found.counts | {"done": 2, "ignored": 1} == found.counts
    assert "2 done, 0 skipped, 0 failed, 1 ignored" in found.err
    assert failures(tmp_path / "masks") == []
    assert_masks(tiny_model, tmp_path / "masks", GOOD)


def test_a_folder_named_like_an_image_is_walked(
    tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    (images / "x.jpg").mkdir()
    Image.fromarray(picture(12)).save(images / "x.jpg" / "inner.png")
    found = invoke(images, tmp_path / "masks", "--model", tiny_model, "--json")
    assert found.code == 0, found.err
    assert found.counts["done"] == found.counts["files"] == 3
    assert "3 files: 3 done" in found.err
    assert_masks(tiny_model, tmp_path / "masks", {**GOOD, "x.jpg/inner.png": picture(12)})


# --- failed ---------------------------------------------------------------------------------------


def encoded(kind: str, height: int = 90, width: int = 120) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(13, height, width)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("empty.jpg", b"", "the file is empty (0 bytes)"),
        ("cut.jpg", encoded("JPEG")[:-400], "truncated"),
        ("cut-early.jpg", encoded("JPEG")[:30], "damaged or truncated"),
        ("cut.png", encoded("PNG")[:-400], "truncated"),
        ("cut-early.png", encoded("PNG")[:200], "damaged or truncated"),
        ("head.png", encoded("PNG")[:30], "not an image in a format that can be read"),
        ("text.jpg", b"no picture at all\n" * 40, "not an image in a format that can be read"),
        (
            "large.png",
            encoded("PNG", 200, 130),
            "130x200 is 26000 pixels, over the limit of 20000; raise --max-pixels",
        ),
        ("link.jpg", None, "a broken link"),
    ],
)
def test_failed(
    name: str, data: bytes | None, words: str, tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    if data is None:
        (images / name).symlink_to("gone.jpg")
    else:
        (images / name).write_bytes(data)
    masks = tmp_path / "masks"
    arguments = (images, masks, "--model", tiny_model, "--max-pixels", "20000", "--json")
    found = invoke(*arguments)
    assert found.code == 3, found.err
    assert found.counts | {"done": 2, "failed": 1, "files": 3} == found.counts
    assert "3 files: 2 done, 0 skipped, 1 failed, 0 ignored, 0 left" in found.err
    ((file, reason),) = failures(masks)
    assert file == name
    assert words in reason
    if name != "link.jpg":  # that one was known before the work began
        assert f"failed: {name}: {reason}" in found.err
    assert ("1 unreadable" in found.err) == (name == "link.jpg")
    assert not (masks / name).with_suffix(".png").exists()
    assert_masks(tiny_model, masks, GOOD)

    # The failure is tried again, the masks are not.
    again = invoke(*arguments)
    assert again.code == 3
    assert again.counts | {"skipped": 2, "failed": 1} == again.counts
    (images / name).unlink()
    Image.fromarray(picture(14)).save(images / name)
    mended = invoke(*arguments)
    assert mended.code == 0, mended.err
    assert mended.counts | {"done": 1, "skipped": 2} == mended.counts
    assert failures(masks) == []
    assert (masks / name).with_suffix(".png").exists()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one."""
    folder = Path(tempfile.mkdtemp(prefix="petseg-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


NOBODY = 65534


def python_for_all(options: dict[str, Any]) -> str:
    """A Python of this version that another user may run; this one may lie in somebody's home."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        with contextlib.suppress(OSError):
            probe = [python, "-c", "import petseg.batch"]
            if subprocess.run(probe, check=False, capture_output=True, **options).returncode == 0:
                return python
    pytest.skip("another user may run no Python that has petseg's packages")


def as_nobody(folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """petseg-batch as a user who is not root, to whom permissions apply."""
    if os.geteuid() != 0:
        pytest.skip("only root can run a command as another user")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, NOBODY, NOBODY)
    packages = [sysconfig.get_path("purelib"), str(Path(petseg.__file__).parents[1])]
    options = {
        "user": NOBODY,
        "group": NOBODY,
        "extra_groups": [],
        "cwd": folder,
        "env": {"HOME": str(home), "PATH": os.defpath, "PYTHONPATH": os.pathsep.join(packages)},
    }
    found = command(*arguments, python=python_for_all(options), **options)
    return found.code, found.out, found.err


def test_no_permission_fails_that_file(tiny_model: Path, images: Path, open_folder: Path) -> None:
    photos, masks = open_folder / "images", open_folder / "masks"
    shutil.copytree(images, photos)
    model = shutil.copy(tiny_model, open_folder / "model.onnx")
    Image.fromarray(picture(15)).save(photos / "secret.png")
    (photos / "secret.png").chmod(0)
    (photos / "closed").mkdir(mode=0)
    masks.mkdir()
    os.chown(masks, NOBODY, NOBODY)
    code, _, errors = as_nobody(open_folder, photos, masks, "--model", model)
    assert code == 3, errors
    assert "4 files: 2 done, 0 skipped, 2 failed, 0 ignored, 0 left" in errors
    assert failures(masks) == [
        ["closed/", "the folder cannot be read: Permission denied"],
        ["secret.png", "cannot be read: Permission denied"],
    ]
    assert_masks(tiny_model, masks, GOOD)


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


# --- refused --------------------------------------------------------------------------------------


def refused(tmp_path: Path, *arguments: str | Path) -> str:
    """The message of a command that did nothing and ended with 1."""
    before = tree(tmp_path)
    found = invoke(*arguments, "--json")
    assert found.code == 1, found.err
    assert found.out == ""
    assert tree(tmp_path) == before
    (line,) = [line for line in found.err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"hello"}])
def test_no_images(content: dict[str, bytes], tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    message = refused(tmp_path, folder, tmp_path / "masks", "--model", tiny_model)
    assert "no images found" in message
    if content:
        assert "among 1 files" in message


@pytest.mark.parametrize("where", ["images", "images/masks", "images/new/masks", "link/masks"])
def test_masks_inside_images(where: str, tiny_model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(images)
    message = refused(tmp_path, images, tmp_path / where, "--model", tiny_model)
    assert f"{tmp_path / where} lies inside {images}" in message
    assert "choose a folder outside" in message


def test_a_folder_that_would_meet_petsegs_own(
    tiny_model: Path, images: Path, tmp_path: Path
) -> None:
    (images / "petseg").mkdir()
    message = refused(tmp_path, images, tmp_path / "masks", "--model", tiny_model)
    assert str(images / "petseg") in message
    assert "rename it" in message


def test_masks_is_a_file(tiny_model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    message = refused(tmp_path, images, tmp_path / "file" / "masks", "--model", tiny_model)
    assert "is not writable" in message


@pytest.mark.parametrize(
    ("one", "other", "advice"),
    [
        ("x.jpg", "x.png", "--names full gives x.jpg.png"),
        ("x.jpg", "X.JPG", "rename them"),
        ("a/x.png", "A/x.png", "rename them"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg", "rename them"),
        ("STRASSE.jpg", "stra\u00dfe.png", "--names full gives x.jpg.png"),
        ("x.png/inner.png", "x.jpg", "--names full gives x.jpg.png"),
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
        (newer, ["format version 2", "upgrade petseg"]),
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
