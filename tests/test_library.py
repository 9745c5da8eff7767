"""petseg for other programs: the masks of petseg-batch, in memory, in order, and nothing left."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batching import batch, expected_mask, mask_bytes, picture, tally
from PIL import Image

import petseg
from petseg import runtime, steps
from petseg.classes import PET_CLASSES
from petseg.errors import ModelError, ProviderError
from petseg.formats import overlay
from petseg.library import api
from petseg.masks import records
from petseg.masks.records import MaskState
from petseg.steps import MaskKeptError

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
ORIENTATION = 0x0112
# Upright, as one sees it: height and width.
SIZES = {"wide.png": (96, 160), "small.png": (40, 30), "turned.jpg": (130, 90)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos larger and smaller than the network's input, and one that lies on its side."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, (name, size) in enumerate(SIZES.items()):
        image = Image.fromarray(picture(seed, *size))
        exif = Image.Exif()
        if name == "turned.jpg":
            image, exif[ORIENTATION] = image.transpose(Image.Transpose.ROTATE_90), 6
        image.save(folder / name, exif=exif)
    return folder


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    api._loaded.cache_clear()
    yield
    api._loaded.cache_clear()


def segment(photo: Any, model: Path, **options: Any) -> petseg.Result:
    return petseg.segment(photo, model, "cpu", **options)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("petseg-")]


def test_the_masks_are_those_of_petseg_batch(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    masks, own = tmp_path / "masks", tmp_path / "own"
    batch(photos, masks, tiny_model, formats=("index", "alpha", "overlay"))
    for name, (height, width) in SIZES.items():
        result = segment(photos / name, tiny_model)
        place = Path(name).with_suffix(".png")
        result.save(own / place)
        assert (own / place).read_bytes() == (masks / place).read_bytes()
        with Image.open(masks / place) as mask:
            np.testing.assert_array_equal(result.mask, np.array(mask))
        with Image.open(masks / "petseg" / "alpha" / place) as cutout:
            np.testing.assert_array_equal(np.array(result.cutout()), np.array(cutout))
        drawn = (masks / "petseg" / "overlay" / name).with_suffix(".jpg").read_bytes()
        # Smaller than what a notebook shows.
        assert result._repr_jpeg_() == drawn
        assert overlay.to_jpeg(np.array(result.overlay())) == drawn
        record = records.inspect(own / place)[1]
        assert record is not None
        assert (result.box, result.confidence) == (record.box, record.confidence)
        assert (result.uncertain, result.class_pixels) == (record.uncertain, record.class_pixels)
        assert (result.height, result.width) == result.ids.shape == (height, width)
    # It finds them done.
    assert tally(batch(photos, own, tiny_model)) == (0, 3, 0, 0, 0)


def test_the_other_name_that_petseg_batch_gives(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    batch(photos, tmp_path / "masks", tiny_model, names="full")
    for name in SIZES:
        segment(photos / name, tiny_model).save(tmp_path / "own" / f"{name}.png")
    assert mask_bytes(tmp_path / "own") == mask_bytes(tmp_path / "masks")


def test_what_a_result_tells(photos: Path, tiny_model: Path) -> None:
    result = segment(str(photos / "wide.png"), tiny_model)
    expected = expected_mask(tiny_model, picture(0, *SIZES["wide.png"]))
    np.testing.assert_array_equal(result.mask, expected)
    np.testing.assert_array_equal(result.ids, expected - 1)
    np.testing.assert_array_equal(result.foreground, expected != 2)
    assert result.foreground.dtype == bool
    assert result.probabilities.shape == (3, 64, 64)
    assert result.classes == PET_CLASSES
    assert result.shares == {
        "pet": np.mean(expected == 1),
        "background": np.mean(expected == 2),
        "border": np.mean(expected == 3),
    }
    assert result.path == photos / "wide.png"
    assert (result.provider, result.precision) == ("cpu", "float32")
    assert repr(result).startswith(f"<petseg.Result of '{photos / 'wide.png'}', 160x96: pet ")


def test_a_notebook_is_shown_a_small_picture(tiny_model: Path) -> None:
    result = segment(picture(1, 700, 1400), tiny_model)
    with Image.open(io.BytesIO(result._repr_jpeg_())) as shown:
        assert (shown.format, shown.size) == ("JPEG", (1024, 512))
    assert result.overlay().size == (1400, 700)


def test_pixels_in_place_of_a_file(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    upright = picture(0, *SIZES["wide.png"])
    from_file = segment(photos / "wide.png", tiny_model)
    for given in (upright, Image.fromarray(upright), upright[..., ::-1][..., ::-1]):
        result = segment(given, tiny_model)
        np.testing.assert_array_equal(result.mask, from_file.mask)
        np.testing.assert_array_equal(result.overlay(), from_file.overlay())
        assert result.path is None
        assert repr(result).startswith("<petseg.Result of pixels, 160x96")
    with Image.open(photos / "turned.jpg") as image:
        assert image.size == (130, 90)
        assert segment(image, tiny_model).ids.shape == (130, 90)
    grey = Image.fromarray(upright).convert("L")
    assert segment(grey, tiny_model).ids.shape == (96, 160)

    result.save(tmp_path / "x.png")
    assert records.inspect(tmp_path / "x.png") == (MaskState.FOREIGN, None)
    with Image.open(tmp_path / "x.png") as mask:
        np.testing.assert_array_equal(np.array(mask), from_file.mask)


@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (np.zeros((4, 5, 3)), r"float64 \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint8), r"uint8 \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 \(4, 5, 4\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"uint8 \(2, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \(0, 5, 3\)"),
    ],
)
def test_pixels_of_another_kind(pixels: np.ndarray, found: str, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=rf"expected RGB pixels uint8 \(H, W, 3\), found {found}"):
        segment(pixels, tiny_model)
    with pytest.raises(ValueError, match="expected RGB pixels"):
        list(petseg.stream([pixels], tiny_model, "cpu"))


def test_what_is_no_photo(tiny_model: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a file, .* \(H, W, 3\), found NoneType"):
        segment(None, tiny_model)  # type: ignore[arg-type]
    assert threads() == []


def test_a_persons_mask_is_kept(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = segment(photos / "small.png", tiny_model)
    place = tmp_path / "new" / "small.png"
    result.save(place)
    ours = place.read_bytes()
    result.save(place)
    theirs = np.full((40, 30), 2, np.uint8)
    Image.fromarray(theirs).save(place)
    with pytest.raises(MaskKeptError, match=r"small\.png was not made by petseg.*overwrite=True"):
        result.save(place)
    with Image.open(place) as mask:
        np.testing.assert_array_equal(np.array(mask), theirs)
    result.save(place, overwrite=True)
    assert place.read_bytes() == ours
    assert [path.name for path in place.parent.iterdir()] == ["small.png"]
    with pytest.raises(ValueError, match=r"name ends in \.png, not .*x\.jpg"):
        result.save(tmp_path / "x.jpg")


def test_a_photo_that_changed_is_not_drawn_on(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(picture(1)).save(path)
    result = segment(path, tiny_model)
    Image.fromarray(picture(2)).save(path)
    with pytest.raises(petseg.ImageError, match="the file changed since its mask was made"):
        result.overlay()


def test_a_photo_that_cannot_be_read(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((photos / "wide.png").read_bytes()[:200])
    with pytest.raises(petseg.ImageError, match=rf"^{re.escape(str(broken))}: damaged or truncat"):
        segment(broken, tiny_model)
    with pytest.raises(petseg.ImageError, match=r"wide\.png: 160x96 is 15360 pixels, over the li"):
        segment(photos / "wide.png", tiny_model, max_pixels=10_000)
    with Image.open(broken) as image, pytest.raises(petseg.ImageError, match="damaged or truncat"):
        segment(image, tiny_model)


def test_what_cannot_be_asked_for(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read the model"):
        segment(photos / "wide.png", tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="provider is one of"):
        petseg.segment(photos / "wide.png", tiny_model, "gpu")
    with pytest.raises(ProviderError, match="float16"):
        segment(photos / "wide.png", tiny_model, precision="float16")
    for path in (photos, str(photos)):
        with pytest.raises(TypeError, match=r"several photos, found the path '.*photos"):
            petseg.stream(path, tiny_model, "cpu")
    for wrong in ("batch_size", "workers"):
        with pytest.raises(ValueError, match=f"{wrong} must be at least 1, not 0"):
            # At once, and not when the first result is asked for.
            petseg.stream([], tiny_model, "cpu", **{wrong: 0})


@pytest.mark.parametrize("options", [{}, {"batch_size": 3, "workers": 1}])
def test_a_stream_gives_what_segment_gives_in_order(
    tiny_model: Path, options: dict[str, Any]
) -> None:
    # Of sizes that take differently long.
    given = [picture(seed, 40 + 37 * seed % 200, 50 + 91 * seed % 300) for seed in range(30)]
    found = list(petseg.stream(iter(given), tiny_model, "cpu", **options))
    assert len(found) == len(given)
    for result, pixels in zip(found, given, strict=True):
        assert result.photo is pixels
        np.testing.assert_array_equal(result.mask, segment(pixels, tiny_model).mask)
    assert threads() == []


def test_a_stream_of_nothing(tiny_model: Path) -> None:
    assert list(petseg.stream([], tiny_model, "cpu")) == []


def test_a_stream_passes_over_what_cannot_be_read(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    given = [tmp_path / "broken.jpg", photos / "wide.png", "missing.jpg", photos / "small.png"]
    failed: list[tuple[Any, str]] = []
    found = petseg.stream(
        given, tiny_model, "cpu", on_error=lambda photo, error: failed.append((photo, str(error)))
    )
    assert [result.path for result in found] == [given[1], given[3]]
    assert [photo for photo, _ in failed] == [given[0], given[2]]
    assert failed[1][1] == "missing.jpg: cannot be read: No such file or directory"
    # Without `on_error`, a warning each, where the loop is.
    with pytest.warns(UserWarning, match="cannot be read|damaged|not an image") as told:
        assert len(list(petseg.stream(given, tiny_model, "cpu"))) == 2
    assert [Path(warning.filename) for warning in told] == [Path(__file__)] * 2

    def stop(photo: Any, error: petseg.ImageError) -> None:
        raise error

    results = petseg.stream(given[1:], tiny_model, "cpu", on_error=stop)
    assert next(results).path == given[1]
    with pytest.raises(petseg.ImageError, match=r"^missing\.jpg: "):
        next(results)
    assert threads() == []


def test_a_stream_takes_no_more_than_it_needs_and_ends_when_it_is_left(tiny_model: Path) -> None:
    taken = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield picture(taken, 70, 80)

    results = petseg.stream(frames(), tiny_model, "cpu", batch_size=2, workers=2)
    assert (taken, threads()) == (0, [])
    for count in range(1, 11):
        next(results)
        # Two results a thread; a batch at the network, and one on either side.
        assert taken <= count - 1 + 2 * 2 + 3 * 2
    assert threads()
    results.close()
    assert threads() == []
    # A loop that is left closes it, too.
    for _ in petseg.stream(frames(), tiny_model, "cpu"):
        break
    assert threads() == []


def test_a_program_may_end_with_a_stream_open(tiny_model: Path) -> None:
    script = (
        "import numpy, petseg, sys\n"
        "frames = (numpy.full((70, 80, 3), n, numpy.uint8) for n in range(1000))\n"
        "results = petseg.stream(frames, sys.argv[1], 'cpu')\n"
        "print(next(results).ids.shape)"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(70, 80)\n", "")


def test_what_goes_wrong_ends_a_stream_and_its_threads(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stream: runtime.Stream, images: np.ndarray) -> None:
        raise ProviderError("the device is gone")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "infer", fail)
        with pytest.raises(ProviderError, match="the device is gone"):
            list(petseg.stream([picture(1)] * 9, tiny_model, "cpu"))
    assert threads() == []

    def ending() -> Iterator[np.ndarray]:
        yield picture(1)
        raise KeyError("no more photos")

    with pytest.raises(KeyError, match="no more photos"):
        list(petseg.stream(ending(), tiny_model, "cpu"))
    assert threads() == []


def test_a_model_is_loaded_once(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    load = runtime.open_session

    def counting(model: Path, *arguments: Any) -> runtime.Session:
        loaded.append(model)
        return load(model, *arguments)

    monkeypatch.setattr(runtime, "open_session", counting)
    # As ./model.onnx it is the default.
    own = tmp_path / "model.onnx"
    own.write_bytes(tiny_model.read_bytes())
    monkeypatch.chdir(tmp_path)
    path = photos / "wide.png"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: petseg.segment(path, provider="cpu"), range(8)))
    assert len(list(petseg.stream([path], "model.onnx", "cpu"))) == 1
    assert loaded == [own]
    for result in found:
        np.testing.assert_array_equal(result.mask, found[0].mask)
    # The file is another one now.
    own.write_bytes(tiny_model.read_bytes())
    petseg.segment(path, provider="cpu")
    assert loaded == [own, own]
    segment(path, tiny_model)
    segment(path, own)
    assert loaded == [own, own, tiny_model]


def test_importing_petseg_loads_nothing() -> None:
    script = (
        "import sys, petseg\n"
        "assert {'segment', 'stream', 'Result', '__version__'} <= set(dir(petseg))\n"
        "assert not hasattr(petseg, 'segmentt')\n"
        "print(*(name for name in sys.modules if name.startswith(('petseg', 'numpy', 'PIL'))))\n"
        "print(petseg.segment.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    *loaded, where = done.stdout.decode().split()
    assert set(loaded) == {"petseg", "petseg.errors"}
    assert where == "petseg.library.api"


def test_all_that_petseg_names_is_there() -> None:
    assert {name: getattr(petseg, name) for name in petseg.__all__}.keys() == set(petseg.__all__)
    with pytest.raises(AttributeError, match="module 'petseg' has no attribute 'segmentt'"):
        petseg.segmentt  # noqa: B018


def test_the_page_runs(tmp_path: Path) -> None:
    """As one program, without a guard around its main part, with the model in the package."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    with Image.open(Path(spec.origin).with_name("data") / "chelsea.png") as image:
        cat = image.convert("RGB")
    cat.save(tmp_path / "cat.jpg")
    (tmp_path / "photos").mkdir()
    for number in range(2):
        cat.crop((60 * number, 0, cat.width, cat.height)).save(tmp_path / f"photos/{number}.jpg")
    table = re.findall(r"`result\.(\w+)[^`]*`", page)
    assert {"mask", "box", "overlay", "probabilities"} <= set(table)
    told = "\n".join(f"result.{name}" for name in table)
    (tmp_path / "page.py").write_text("\n".join([*blocks, told]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("<petseg.Result of 'cat.jpg', 451x300: pet ")
    assert [line.split(":")[0] for line in rest[:2]] == ["0.jpg", "1.jpg"]
    assert rest[2].startswith("1 found; [('missing.jpg', 'missing.jpg: cannot be read: No such ")
    assert rest[3].startswith("cpu float32 ")
    with Image.open(tmp_path / "cutout.png") as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", cat.size)
    with Image.open(tmp_path / "white.png") as white:
        background = np.all(np.array(white) == 255, axis=2).mean()
    assert 0.01 < background < 0.99
    for name in ("0", "1"):
        assert records.inspect(tmp_path / "masks" / f"{name}.png")[0] is MaskState.OURS
