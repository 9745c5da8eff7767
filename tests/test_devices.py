"""Several devices as one session: real ones on the processor, slow ones, and some that fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from batching import batch, invoke, make_job, mask_bytes, read_mask, save_photos, tally
from numpy.typing import NDArray
from soak.colours import SIDE, ColourSession, write_model

from petseg import runtime
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Batch, Outcome, Work
from petseg.errors import DeviceLostError, ProviderError
from petseg.modelfile import signature
from petseg.planning.config import BatchConfig
from petseg.runtime.devices import DevicesSession
from petseg.runtime.onnx import OrtSession
from petseg.runtime.openvino import OpenVinoSession
from petseg.system import nvidia
from petseg.system.machine import usable_cores

COUNT = 14
# Whatever waits in a test would wait for ever if the code were wrong.
SECONDS = 30

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("devices") / "colours.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    return tmp_path / "images"


@pytest.fixture
def expected(images: Path, model: Path, tmp_path: Path) -> dict[str, bytes]:
    """The masks that one device makes."""
    batch(images, tmp_path / "one", model, batch_size=2)
    found = mask_bytes(tmp_path / "one")
    assert len({read_mask(tmp_path / "one" / name).tobytes() for name in found}) == COUNT
    return found


def noise(count: int) -> Images:
    return np.random.default_rng(1).integers(1, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def open_devices(model: Path, devices: tuple[int, ...] | None, provider: str = "cpu") -> Any:
    return runtime.open_session(model, signature.read(model), provider, "float32", 2, devices)


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_masks_are_those_of_one_device(
    provider: str, images: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"provider": provider, "precision": "float32", "batch_size": 2}
    one = batch(images, tmp_path / "one", tiny_model, **options)
    two = batch(images, tmp_path / "two", tiny_model, devices=(0, 1), **options)
    assert tally(one) == tally(two) == (COUNT, 0, 0, 0, 0)
    assert mask_bytes(tmp_path / "one") == mask_bytes(tmp_path / "two")
    assert (two.provider, two.precision) == (provider, "float32")
    (note,) = [note for note in two.notes if note.startswith("images by device: ")]
    assert sum(int(share.split(" on ")[0]) for share in note.split(": ")[1].split(", ")) == COUNT
    assert two.summary().endswith(note)
    assert two.stages["infer"].bins.sum() >= COUNT / 2


def test_devices_share_the_cores(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petseg.runtime.providers.usable_cores", lambda: 7)
    session = open_devices(model, (0, 3, 5))
    assert isinstance(session, DevicesSession)
    each = [device.session._session.get_session_options() for device in session._devices]
    assert [options.intra_op_num_threads for options in each] == [3, 2, 2]
    assert (session.streams, session.batch_size, session.batch_sizes) == (3, 2, (2,))
    # No more threads than cores, where that can be.
    monkeypatch.setattr("petseg.runtime.providers.usable_cores", lambda: 1)
    session = open_devices(model, (0, 1))
    each = [device.session._session.get_session_options() for device in session._devices]
    assert [options.intra_op_num_threads for options in each] == [1, 1]


@pytest.mark.parametrize("devices", [None, (0,), (3,)])
def test_a_single_device_is_a_session_as_ever(devices: tuple[int, ...] | None, model: Path) -> None:
    session = open_devices(model, devices)
    assert isinstance(session, OrtSession)
    assert session._session.get_session_options().intra_op_num_threads == usable_cores()


def test_openvinos_streams_are_all_used(model: Path) -> None:
    session = open_devices(model, (0, 1), "openvino")
    streams = [device.session.streams for device in session._devices]
    assert session.streams == sum(streams)
    opened = [session.open_stream() for _ in range(session.streams)]
    assert [opened.count(stream) for stream in opened] == [1] * len(opened)
    numbers = [stream._device.number for stream in opened]
    assert [numbers.count(number) for number in (0, 1)] == streams
    for stream in opened:
        np.testing.assert_array_equal(stream.run(noise(3)), noise(3).transpose(0, 3, 1, 2))
    assert isinstance(session._devices[0].session, OpenVinoSession)


class Device(ColourSession):
    """A network whose batches of two are `before` something."""

    batch_size, batch_sizes = 2, (2,)
    signature = None

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self.before = before
        self.batches = 0

    def run(self, images: Images) -> Images:
        self.batches += 1
        self.before()
        return super().run(images)


def run_engine(session: Any, images: Path, on_outcome: Callable[[Outcome], None]) -> list[Batch]:
    """All photos through the engine."""
    todo = [Work(str(path), path.name, path.name) for path in sorted(images.iterdir())]
    batches: list[Batch] = []
    job = make_job(images.with_name("masks"), model_size=SIDE)
    engine = LocalEngine(session, job, 2, SECONDS)
    try:
        engine.run(iter(todo), on_outcome, batches.append, lambda: False)
    finally:
        engine.close()
    return batches


def test_a_slow_device_has_one_batch_and_nobody_waits_behind_it(images: Path) -> None:
    begun, others_done = threading.Event(), threading.Event()
    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == COUNT - 2:
            others_done.set()

    def slow() -> None:
        begun.set()
        assert others_done.wait(SECONDS), "photos wait for the slow device"

    fast, lame = Device(lambda: begun.wait(SECONDS) and None), Device(slow)
    session = DevicesSession({0: fast, 1: lame})  # type: ignore[dict-item]
    run_engine(session, images, on_outcome)
    assert len(outcomes) == COUNT
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert lame.batches == 1
    # One photo or two: a batch does not wait long for its second.
    shares = [f"images by device: {COUNT - count} on 0, {count} on 1" for count in (1, 2)]
    assert len(session.notes) == 1
    assert session.notes[0] in shares


class Failing:
    """onnxruntime's session on a device that fails, after so many good batches."""

    good = 0

    def __init__(self, session: ort.InferenceSession, failed: threading.Event) -> None:
        self._session, self._failed = session, failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        if self.good:
            self.good -= 1
            self._session.run_with_iobinding(binding)
            return
        self._failed.set()
        # As onnxruntime says it of a GPU that has fallen off the bus.
        raise ort.capi.onnxruntime_pybind11_state.RuntimeException(
            "CUDA failure 719: unspecified launch failure ; GPU=1\nand more lines"
        )


class FailingInTheMiddle(Failing):
    good = 2


class Patient(Failing):
    """One that works, once the other has failed."""

    def run_with_iobinding(self, binding: Any) -> None:
        assert self._failed.wait(SECONDS)
        self._session.run_with_iobinding(binding)


def broken(monkeypatch: pytest.MonkeyPatch, *kinds: type[Failing]) -> None:
    """Sessions of several devices have devices of these kinds."""
    real, failed = runtime.open_session, threading.Event()

    def open_session(*arguments: Any) -> Any:
        session = real(*arguments)
        assert isinstance(session, DevicesSession)
        for device, kind in zip(session._devices, kinds, strict=True):
            assert isinstance(device.session, OrtSession)
            device.session._session = kind(device.session._session, failed)
        return session

    monkeypatch.setattr(runtime, "open_session", open_session)


LAUNCH = "cpu failed: CUDA failure 719: unspecified launch failure ; GPU=1"


def test_a_device_that_fails_hands_its_batch_to_the_others(
    images: Path,
    model: Path,
    tmp_path: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken(monkeypatch, Patient, FailingInTheMiddle, Patient)
    options = ("--model", model, "--batch-size", "2", "--devices", "0,1,5", "--json")
    found = invoke(images, tmp_path / "masks", *options)
    assert found.code == 0, found.err
    assert mask_bytes(tmp_path / "masks") == expected
    assert found.counts["done"] == COUNT
    warning = f"warning: device 1 failed and was left out: {LAUNCH}"
    assert warning in found.stats["notes"]
    assert warning in found.err.splitlines()
    (shares,) = [note for note in found.stats["notes"] if note.startswith("images by device: ")]
    # Two batches, of one photo or two.
    assert any(f" {count} on 1," in shares for count in (2, 3, 4))
    assert found.stats["options"]["devices"] == [0, 1, 5]


def test_when_the_last_device_fails_the_run_stops(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, Failing, Failing)
    found = invoke(images, tmp_path / "masks", "--model", model, "--devices", "0,1")
    assert found.code == 1
    words = f"every device failed: device 0: {LAUNCH}; device 1: {LAUNCH}"
    words += "; what is done stays valid, and the same command goes on from there"
    assert f"error: {words}" in found.err
    stats = json.loads((tmp_path / "masks" / "petseg" / "stats.json").read_text())
    assert (stats["stopped"], stats["exit_code"]) == ("error", 1)
    assert words in stats["notes"]
    assert stats["counts"]["left"] == COUNT
    # The same command goes on where it stopped.
    monkeypatch.undo()
    assert tally(batch(images, tmp_path / "masks", model)) == (COUNT, 0, 0, 0, 0)


def test_other_streams_of_a_device_that_failed_are_lost_with_it() -> None:
    def fail() -> None:
        raise RuntimeError("it is gone")

    lost, other = Device(fail), Device(lambda: None)
    lost.streams = 2
    session = DevicesSession({0: lost, 1: other})  # type: ignore[dict-item]
    streams = [session.open_stream() for _ in range(session.streams)]
    assert session.streams == 3
    with pytest.raises(DeviceLostError, match="device 0 failed: it is gone") as caught:
        streams[0].run(noise(2))
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(DeviceLostError, match="device 0 failed: it is gone"):
        streams[1].run(noise(2))
    assert (lost.batches, session.streams) == (1, 1)
    for stream in (streams[2], session.open_stream(), session.open_stream()):
        np.testing.assert_array_equal(stream.run(noise(2)), noise(2).transpose(0, 3, 1, 2))
    other.before = fail
    with pytest.raises(ProviderError, match="every device failed: device 0: it is gone; device 1"):
        streams[2].run(noise(2))
    assert session.streams == 1


class Small:
    """onnxruntime's session, on a device that has memory for so many images only."""

    def __init__(self, session: ort.InferenceSession, room: int) -> None:
        self._session, self._room = session, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        if binding.get_outputs()[0].shape()[0] > self._room:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 8388608")
        self._session.run_with_iobinding(binding)


def test_each_device_has_its_own_memory(model: Path) -> None:
    about = signature.read(model)
    session: Any = runtime.open_session(model, about, "cpu", "float32", 8, (0, 1))
    small = session._devices[1].session
    small._session = Small(small._session, 2)
    streams = [session.open_stream() for _ in range(2)]
    for stream in streams:
        np.testing.assert_array_equal(stream.run(noise(8)), noise(8).transpose(0, 3, 1, 2))
    assert [device.session.batch_size for device in session._devices] == [8, 2]
    assert session.batch_size == 8
    assert session.notes == [
        "device 1: cpu ran out of memory; batch size now 4",
        "device 1: cpu ran out of memory; batch size now 2",
        "images by device: 8 on 0, 8 on 1",
    ]
    # A device that cannot do one image is left out like any other.
    small._session = Small(small._session, 0)
    again = [session.open_stream() for _ in range(2)]
    with pytest.raises(DeviceLostError, match="device 1 failed: cpu is out of memory even for one"):
        again[1].run(noise(1))
    assert session.batch_size == 8


def test_cuda_is_told_which_device(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def refuse(path: str, options: Any, providers: Any, enable_fallback: int) -> None:
        asked.extend(providers)
        raise RuntimeError("no GPU here")

    monkeypatch.setattr(ort, "InferenceSession", refuse)
    monkeypatch.setattr(nvidia, "gpu_count", lambda: 3)
    words = "CUDA cannot be started on device 2: no GPU here; see whether nvidia-smi"
    with pytest.raises(ProviderError, match=words):
        runtime.open_session(model, signature.read(model), "cuda", "auto", None, (2, 0))
    ((provider, options),) = asked
    assert provider == "CUDAExecutionProvider"
    assert options["device_id"] == "2"
    words = r"--devices 0,3,7: there is no GPU 3, 7: the NVIDIA driver shows 3, counted from 0"
    with pytest.raises(ProviderError, match=words):
        runtime.open_session(model, signature.read(model), "cuda", "auto", None, (0, 3, 7))
    assert len(asked) == 1


@pytest.mark.parametrize("devices", [(), (0, 0), (-1,)])
def test_devices_are_different_numbers(devices: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="devices are different numbers from 0 on"):
        BatchConfig(images="x", masks=tmp_path, devices=devices)


@pytest.mark.parametrize("text", ["", "0,", "a", "0,0", "cuda:0"])
def test_wrong_usage(text: str, tmp_path: Path) -> None:
    found = invoke(tmp_path, tmp_path / "masks", "--devices", text)
    assert found.code == 2
    assert "as in 0,1" in " ".join(found.err.split())
