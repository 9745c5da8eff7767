"""Devices that fail, seen from the command: what it says, what it leaves, and how it goes on.

The fault is put between petseg and onnxruntime's session, whose CPU provider stands for a GPU.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from batching import Result, invoke, mask_bytes, save_photos
from onnx import numpy_helper
from PIL import Image
from soak.colours import write_model

from petseg.errors import GOES_ON, ImageError
from petseg.masks import measures
from petseg.modelfile import signature
from petseg.runtime import cuda
from petseg.runtime import onnx as runtime_onnx

COUNT = 9
NAN = "the network's scores are no numbers (NaN)"
RuntimeException = ort.capi.onnxruntime_pybind11_state.RuntimeException
Fail = ort.capi.onnxruntime_pybind11_state.Fail
EPFail = ort.capi.onnxruntime_pybind11_state.EPFail


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("faults") / "colours.onnx")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "images"
    save_photos(folder, COUNT)
    # The only one that is red all over.
    Image.new("RGB", (128, 96), (255, 0, 0)).save(folder / "004.png")
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    masks = tmp_path_factory.mktemp("faults") / "masks"
    assert run(images, masks, model).code == 0
    found = mask_bytes(masks)
    assert len(set(found.values())) == COUNT
    return found


def run(images: Path, masks: Path, model: Path) -> Result:
    options = ("--model", model, "--batch-size", "4", "--workers", "1", "--json")
    return invoke(images, masks, *options)


class Faulty:
    """onnxruntime's session on a device that has a fault."""

    def __init__(
        self, session: ort.InferenceSession, fault: Callable[[int, Any, Callable[[], None]], None]
    ) -> None:
        self._session, self._fault, self._runs = session, fault, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        self._runs += 1
        output = binding.get_outputs()[0]
        self._fault(self._runs, output, lambda: self._session.run_with_iobinding(binding))


def install(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[int, Any, Callable[[], None]], None]
) -> None:
    real = runtime_onnx._open
    monkeypatch.setattr(runtime_onnx, "_open", lambda *arguments: Faulty(real(*arguments), fault))


def room_for(images: int) -> Callable[[int, Any, Callable[[], None]], None]:
    """A device that has no memory for more images at once."""

    def fault(run: int, output: Any, compute: Callable[[], None]) -> None:
        del run
        if output.shape()[0] > images:
            raise Fail("CUDA failure 2: out of memory ; GPU=0\nand where in onnxruntime's source")
        compute()

    return fault


def lost(error: Exception) -> Callable[[int, Any, Callable[[], None]], None]:
    """A device that is lost at its second batch."""

    def fault(run: int, output: Any, compute: Callable[[], None]) -> None:
        del output
        if run == 2:
            raise error
        compute()

    return fault


def not_a_number(run: int, output: Any, compute: Callable[[], None]) -> None:
    """A device that fails at the red photo: NaN is 0 when it is cast."""
    del run
    compute()
    planes = output.numpy().copy()
    red = (planes[:, 0] == 255).all(axis=(1, 2))
    planes[red] = 0
    output.update_inplace(planes)


def stats_of(masks: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((masks / "petseg" / "stats.json").read_text())
    return found


def test_a_device_without_memory_for_the_batch_takes_smaller_ones(
    images: Path,
    model: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, room_for(1))
    found = run(images, tmp_path, model)
    assert (found.code, found.counts["done"]) == (0, COUNT)
    assert "cpu ran out of memory; batch size now 1" in found.stats["notes"]
    assert "cpu ran out of memory; batch size now 1" in found.err
    assert stats_of(tmp_path)["batch_size"] == 1
    assert mask_bytes(tmp_path) == undisturbed


LOST = "CUDA failure 719: unspecified launch failure ; GPU=0"
STOPS = {
    "no memory at all": (
        room_for(0),
        "cpu is out of memory even for one image: CUDA failure 2: out of memory ; GPU=0",
    ),
    "lost": (lost(RuntimeException(f"{LOST}\nand more lines")), f"cpu failed: {LOST}"),
    "failed in the provider": (
        lost(EPFail("[ONNXRuntimeError] : 11 : EP_FAIL : CUDNN failure 4\nmore")),
        "cpu failed: [ONNXRuntimeError] : 11 : EP_FAIL : CUDNN failure 4",
    ),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_device_that_fails_ends_the_run_and_the_same_command_goes_on(
    name: str,
    images: Path,
    model: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault, words = STOPS[name]
    install(monkeypatch, fault)
    found = run(images, tmp_path, model)
    assert found.code == 1
    told = f"{words}; {GOES_ON}"
    assert f"error: {told}" in found.err.splitlines()
    assert json.loads(found.out) == {"exit_code": 1, "error": told}
    stats = stats_of(tmp_path)
    assert (stats["stopped"], stats["exit_code"]) == ("error", 1)
    assert told in stats["notes"]
    counts, before = stats["counts"], mask_bytes(tmp_path)
    assert counts["failed"] == 0
    assert counts["done"] <= len(before) <= 4
    assert counts["left"] == COUNT - counts["done"]
    assert before.items() <= undisturbed.items()
    assert [path.name for path in (tmp_path / "petseg").iterdir()] == ["stats.json"]
    monkeypatch.undo()
    again = run(images, tmp_path, model)
    assert again.code == 0
    assert again.counts | {"done": COUNT - len(before), "skipped": len(before)} == again.counts
    assert mask_bytes(tmp_path) == undisturbed


REFUSALS = [
    (
        "CUDA failure 2: out of memory ; GPU=0\nmore",
        "CUDA has no memory for {model} on device 0: CUDA failure 2: out of memory ; GPU=0; "
        "nvidia-smi shows who holds it, and --devices takes another GPU",
    ),
    (
        "CUDA failure 100: no CUDA-capable device is detected ; GPU=0\nmore",
        "CUDA cannot be started on device 0: CUDA failure 100: no CUDA-capable device is detected "
        "; GPU=0; see whether nvidia-smi shows it in good health; --provider openvino and cpu do "
        "without",
    ),
    (
        "This session contains graph nodes that are assigned to the default CPU EP, but fallback "
        "to CPU EP has been explicitly disabled by the user.",
        "CUDA cannot run every node of {model} on device 0: This session contains graph nodes "
        "that are assigned to the default CPU EP, but fallback to CPU EP has been explicitly "
        "disabled by the user.; --provider openvino and cpu can",
    ),
]


@pytest.mark.parametrize("provider", ["cuda", "auto"])
@pytest.mark.parametrize(("error", "words"), REFUSALS)
def test_a_device_that_cannot_be_started_is_no_reason_for_another(
    error: str,
    words: str,
    provider: str,
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither is anything written; `auto` took the GPU, and does not leave it in silence."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise Fail(error)

    monkeypatch.setattr(cuda, "problem", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", refuse)
    masks = tmp_path / "masks"
    found = invoke(images, masks, "--model", model, "--provider", provider)
    assert found.code == 1
    assert f"error: {words.format(model=model)}" in found.err.splitlines()
    assert "provider: cuda" in found.err
    assert not masks.exists()
    monkeypatch.undo()
    assert invoke(images, masks, "--model", model, "--provider", "auto").code == 0
    assert len(mask_bytes(masks)) == COUNT


def test_scores_that_are_no_numbers_cost_one_image(
    images: Path,
    model: Path,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, not_a_number)
    found = run(images, tmp_path, model)
    assert found.code == 3
    assert found.counts | {"done": COUNT - 1, "failed": 1, "left": 0} == found.counts
    assert f"failed: 004.png: {NAN}" in found.err
    assert stats_of(tmp_path)["exit_code"] == 3
    assert f'004.png,"{NAN}' in (tmp_path / "petseg" / "failures.csv").read_text()
    expected = {name: data for name, data in undisturbed.items() if name != "004.png"}
    assert mask_bytes(tmp_path) == expected
    monkeypatch.undo()
    assert run(images, tmp_path, model).counts["done"] == 1
    assert mask_bytes(tmp_path) == undisturbed


def test_what_a_softmax_gives_is_never_refused() -> None:
    # As even as 255 classes can be, and as sure as one of three.
    measures.certainty(np.ones((255, 4, 4), np.uint8))
    sure = np.zeros((3, 4, 4), np.uint8)
    sure[1] = 255
    measures.certainty(sure)
    sure[1, 3, 3] = 0
    with pytest.raises(ImageError, match="expected a probability above 0 for some class of each"):
        measures.certainty(sure)


def spoilt(model: Path, target: Path, layer: str) -> Path:
    """The same model with a layer of NaN."""
    file = onnx.load(model)
    (tensor,) = [tensor for tensor in file.graph.initializer if tensor.name == layer]
    tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), layer))
    graph_hash = signature.hash_graph(file.graph.SerializeToString())
    about = dataclasses.replace(signature.read(model), graph_hash=graph_hash)
    del file.metadata_props[:]
    onnx.helper.set_model_props(file, dict(signature.to_metadata(about)))
    target.write_bytes(file.SerializeToString())
    return target


# OpenVINO's ReLU makes 0 of NaN: behind its hidden layers nothing is left to be seen.
@pytest.mark.parametrize(
    ("provider", "layer"),
    [
        ("cpu", "block1_conv1/kernel"),
        ("cpu", "connect_2/refine/bias"),
        ("cpu", "head/kernel"),
        ("openvino", "head/kernel"),
    ],
)
def test_weights_that_are_no_numbers(
    provider: str, layer: str, images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Through the real network: the graph's cast makes 0 of NaN there."""
    model = spoilt(tiny_model, tmp_path / "nan.onnx", layer)
    masks = tmp_path / "masks"
    found = invoke(images, masks, "--model", model, "--provider", provider, "--json")
    assert found.code == 3
    assert found.counts | {"done": 0, "failed": COUNT} == found.counts
    assert mask_bytes(masks) == {}
    assert found.err.count(f": {NAN}") == COUNT
