"""Sessions: buffers, batches, memory, precision, and which provider is taken."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from batching import picture
from machines import BOTH, CUDA_13, DRIVER, GPU, machine
from numpy.typing import NDArray

from petseg import runtime
from petseg.errors import MissingPackageError, ModelError, ProviderError
from petseg.modelfile import signature
from petseg.modelfile.signature import INPUT, PROBABILITIES
from petseg.photos import transforms
from petseg.runtime import openvino
from petseg.runtime.onnx import BATCH_SIZES, OrtSession
from petseg.runtime.openvino import OpenVinoSession

Images = NDArray[np.uint8]
RuntimeException = ort.capi.onnxruntime_pybind11_state.RuntimeException


def draw(count: int) -> Images:
    return np.stack([transforms.to_model(picture(seed), 64) for seed in range(count)])


@pytest.fixture(scope="module")
def expected(tiny_model: Path) -> Images:
    """What onnxruntime gives for 11 images, one at a time."""
    session = ort.InferenceSession(tiny_model, providers=["CPUExecutionProvider"])
    planes = [session.run([PROBABILITIES], {INPUT: one[None]})[0] for one in draw(11)]
    found = np.concatenate(planes)
    assert len({plane.tobytes() for plane in found}) == 11
    return found


def open_session(model: Path, batch_size: int | None = None) -> OrtSession:
    return OrtSession(model, signature.read(model), "cpu", "auto", batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 16])
def test_any_number_of_images(batch_size: int, tiny_model: Path, expected: Images) -> None:
    stream = open_session(tiny_model, batch_size).open_stream()
    for count in (11, 1, 2, 3, 5, 8, 1):
        found = stream.run(draw(count))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected[:count])


def test_padding_never_shows(tiny_model: Path, expected: Images) -> None:
    stream = open_session(tiny_model, 8).open_stream()
    stream.run(np.full((8, 64, 64, 3), 255, np.uint8))
    # Padded to 8 in a buffer full of other pixels.
    np.testing.assert_array_equal(stream.run(draw(5)), expected[:5])
    np.testing.assert_array_equal(stream.run(draw(7)[::-1]), expected[:7][::-1])


def test_results_are_not_overwritten_by_the_next_batch(tiny_model: Path, expected: Images) -> None:
    stream = open_session(tiny_model, 4).open_stream()
    first = stream.run(draw(4))
    stream.run(np.zeros((4, 64, 64, 3), np.uint8))
    np.testing.assert_array_equal(first, expected[:4])


def test_streams_do_not_share_buffers(tiny_model: Path, expected: Images) -> None:
    session = open_session(tiny_model, 4)

    def work(start: int) -> list[Images]:
        stream = session.open_stream()
        return [stream.run(draw(11)[start : start + 4]) for _ in range(20)]

    with ThreadPoolExecutor(2) as pool:
        for start, results in zip((0, 4), pool.map(work, (0, 4)), strict=True):
            for found in results:
                np.testing.assert_array_equal(found, expected[start : start + 4])


def test_shapes_are_few_and_bound_once(tiny_model: Path) -> None:
    stream = open_session(tiny_model, 6).open_stream()
    for count in range(1, 7):
        stream.run(draw(count))
    assert sorted(stream._bindings) == [1, 2, 4, 6]
    before = dict(stream._bindings)
    for count in range(1, 7):
        stream.run(draw(count))
    assert stream._bindings == before


def test_shapes_are_told_where_results_depend_on_them(tiny_model: Path) -> None:
    session = open_session(tiny_model, 4)
    stream = session.open_stream()
    for count in (11, 5):
        stream.run(draw(count))
        assert stream.padded is None
    # The buffers are the processor's still.
    session.provider = "cuda"
    stream.run(draw(11))
    assert stream.padded == [4] * 11
    stream.run(draw(5))
    assert stream.padded == [4, 4, 4, 4, 1]


class Exhausted:
    """onnxruntime's session, on a device that has memory for a few images only."""

    def __init__(self, session: ort.InferenceSession, images: int, error: Exception) -> None:
        self._session, self._images, self._error = session, images, error
        self.shapes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        shape = binding.get_outputs()[0].shape()[0]
        self.shapes.append(shape)
        if shape > self._images:
            raise self._error
        self._session.run_with_iobinding(binding)


# As onnxruntime says it: microsoft/onnxruntime#22702, hacksider/Deep-Live-Cam#584 and #645.
OUT_OF_MEMORY = [
    RuntimeException(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
        "Conv node. Name:'block1_conv1' Status Message: /onnxruntime_src/onnxruntime/core/framework"
        "/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, "
        "onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn) Failed to allocate memory "
        "for requested buffer of size 8388608000"
    ),
    ort.capi.onnxruntime_pybind11_state.Fail(
        "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=here ; "
        "file=cuda_stream_handle.cc ; line=175 ; expr=cudaStreamCreateWithFlags(&stream)"
    ),
    RuntimeException(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running "
        "Gemm node. Name:'fc1' Status Message: CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0"
    ),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize(("room", "size_after"), [(4, 4), (3, 2), (1, 1)])
def test_out_of_memory_halves_the_batch_and_goes_on(
    error: Exception, room: int, size_after: int, tiny_model: Path, expected: Images
) -> None:
    session = open_session(tiny_model, 8)
    session._session = device = Exhausted(session._session, room, error)
    stream = session.open_stream()
    np.testing.assert_array_equal(stream.run(draw(11)), expected)
    assert session.batch_size == size_after
    assert session.notes[-1] == f"cpu ran out of memory; batch size now {size_after}"
    device.shapes.clear()
    np.testing.assert_array_equal(stream.run(draw(8)), expected[:8])
    assert max(device.shapes) == size_after, "it was tried again"


def test_out_of_memory_with_one_image_is_the_end(tiny_model: Path) -> None:
    session = open_session(tiny_model, 2)
    session._session = Exhausted(session._session, 0, OUT_OF_MEMORY[0])
    with pytest.raises(ProviderError, match=r"cpu is out of memory even for one image: .*buffer"):
        session.open_stream().run(draw(2))


def test_other_errors_are_not_taken_for_it(tiny_model: Path) -> None:
    error = RuntimeException("CUDA failure 700: an illegal memory access was encountered\nmore")
    session = open_session(tiny_model, 2)
    session._session = Exhausted(session._session, 0, error)
    words = "^cpu failed: CUDA failure 700: an illegal memory access was encountered$"
    with pytest.raises(ProviderError, match=words) as caught:
        session.open_stream().run(draw(2))
    assert caught.value.__cause__ is error
    assert session.batch_size == 2
    assert session.notes == []


def test_the_session_says_what_it_runs_on(tiny_model: Path) -> None:
    session = open_session(tiny_model)
    assert (session.provider, session.precision) == ("cpu", "float32")
    assert session.batch_sizes == BATCH_SIZES["cpu"]
    assert session.batch_size == BATCH_SIZES["cpu"][-1]
    assert open_session(tiny_model, 3).batch_sizes == (3,)
    assert session.notes == []


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "tf32", "int8"])
def test_the_cpu_provider_computes_in_float32(precision: str, tiny_model: Path) -> None:
    words = f"--precision {precision}: cpu computes a file stored in float32 in float32"
    with pytest.raises(ProviderError, match=words):
        OrtSession(tiny_model, signature.read(tiny_model), "cpu", precision)


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_openvino_gives_what_onnxruntime_gives(
    batch_size: int | None, tiny_model: Path, expected: Images
) -> None:
    about = signature.read(tiny_model)
    session = OpenVinoSession(tiny_model, about, "float32", batch_size)
    assert (session.provider, session.precision) == ("openvino", "float32")
    assert session.batch_sizes == (batch_size or 1,)
    assert session.streams >= 1
    streams = [session.open_stream() for _ in range(session.streams + 1)]
    for count in (11, 1, 5):
        for stream in streams:
            found = stream.run(draw(count))
            assert found.dtype == np.uint8
            # Rounded from other sums: 1 of 255 either way.
            assert np.abs(found.astype(int) - expected[:count]).max() <= 1


def test_openvino_in_bfloat16(tiny_model: Path, expected: Images) -> None:
    about = signature.read(tiny_model)
    session = OpenVinoSession(tiny_model, about)
    if session.precision == "float32":
        with pytest.raises(ProviderError, match="this processor has no bfloat16 arithmetic"):
            OpenVinoSession(tiny_model, about, "bfloat16")
        return
    assert session.precision == "bfloat16"
    found = session.open_stream().run(draw(11))
    equal = found.argmax(axis=1) == expected.argmax(axis=1)
    assert equal.mean() > 0.98
    assert (found != expected).any(), "this was computed in float32"


_SESSIONS = """
import signal, sys
from pathlib import Path
from petseg.modelfile import signature
from petseg.runtime.openvino import OpenVinoSession

model = Path(sys.argv[1])
sessions = [OpenVinoSession(model, signature.read(model)) for _ in range(2)]
while sessions:
    del sessions[0]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_finds_its_way_after_several_sessions(tiny_model: Path) -> None:
    """Closed in the order they were opened in; see `openvino.shared_core`."""
    done = subprocess.run(
        [sys.executable, "-c", _SESSIONS, str(tiny_model)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_openvino_refuses_what_it_cannot_do(tiny_model: Path, tmp_path: Path) -> None:
    about = signature.read(tiny_model)
    with pytest.raises(ProviderError, match="OpenVINO computes in float32, bfloat16 and int8"):
        OpenVinoSession(tiny_model, about, "tf32")
    with pytest.raises(ProviderError, match="needs a file stored in int8, and this one is"):
        OpenVinoSession(tiny_model, about, "int8")
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(tiny_model.read_bytes()[:2000])
    with pytest.raises(ModelError, match="OpenVINO cannot load"):
        OpenVinoSession(damaged, about)


def test_openvino_is_named_where_it_is_missing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ProviderError, match=r"pip install 'petseg\[openvino\]'"):
        runtime.choose("openvino")
    with pytest.raises(MissingPackageError, match=r"pip install 'petseg\[openvino\]'"):
        OpenVinoSession(tiny_model, signature.read(tiny_model))


@pytest.mark.parametrize(
    ("packages", "options", "words"),
    [
        (
            BOTH,
            {},
            ["onnxruntime 1.32.0 and onnxruntime-gpu 1.31.1 are both installed", "pip uninstall"],
        ),
        (
            {"onnxruntime": "1.32.0"},
            {"providers": ("CPUExecutionProvider",)},
            ["onnxruntime 1.32.0 has no CUDA; pip uninstall -y onnxruntime && pip install onnx"],
        ),
        (GPU, {}, ["no NVIDIA driver (libcuda.so.1 cannot be loaded)"]),
        (GPU, {"libraries": (DRIVER,), "gpus": 0}, ["shows no GPU", "CUDA_VISIBLE_DEVICES"]),
        (
            GPU,
            {"libraries": (DRIVER,)},
            ["libcublas.so.13 is missing", "pip install 'petseg[cuda13]'"],
        ),
        (
            GPU,
            {"libraries": (DRIVER,), "version": "1.26.0"},
            ["libcublas.so.12 is missing", "pip install 'petseg[cuda12]'"],
        ),
        (
            GPU,
            {"libraries": (DRIVER, "libcublas.so.13")},
            ["libcudnn.so.9 is missing", "pip install 'petseg[cuda13]'"],
        ),
        # Its session would fail: the driver runs no program that is built for a newer CUDA.
        (
            GPU,
            {"libraries": CUDA_13, "cuda": (12, 8)},
            [
                "the NVIDIA driver is for CUDA 12.8 and older",
                "onnxruntime-gpu 1.31.1 is built for CUDA 13; pip install 'petseg[cuda12]'",
            ],
        ),
        (
            GPU,
            {"libraries": CUDA_13, "cuda": (11, 4), "version": "1.26.0"},
            ["is for CUDA 11.4 and older", "is built for CUDA 12; install a newer driver"],
        ),
        (GPU, {"system": "win32"}, ["no NVIDIA driver (nvcuda.dll cannot be loaded)"]),
        (
            GPU,
            {"libraries": ("nvcuda.dll",), "system": "win32"},
            ["cublas64_13.dll is missing", "pip install 'petseg[cuda13]'"],
        ),
        (
            GPU,
            {"libraries": ("nvcuda.dll", "cublas64_12.dll"), "system": "win32", "version": "1.26"},
            ["cudnn64_9.dll is missing", "pip install 'petseg[cuda12]'"],
        ),
        (
            {"onnxruntime": "1.32.0"},
            {"providers": ("CPUExecutionProvider",), "system": "darwin"},
            ["onnxruntime 1.32.0 has no CUDA; onnxruntime-gpu is not built for this platform"],
        ),
    ],
)
def test_what_is_missing_for_cuda(
    packages: dict[str, str],
    options: dict[str, Any],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine(monkeypatch, packages, **options)
    with pytest.raises(ProviderError, match="--provider cuda: ") as caught:
        runtime.choose("cuda")
    monkeypatch.setattr(openvino, "problem", lambda: "no openvino here")
    choice = runtime.choose("auto")
    assert choice.provider == "cpu"
    assert "no openvino here" in choice.reason
    for word in words:
        assert word in str(caught.value)
        assert word in choice.reason
    # Where no command mends it, the next step is to look.
    looks = str(caught.value).endswith("; petseg doctor looks at all that it needs")
    assert looks != ("; pip " in str(caught.value))
    assert capsys.readouterr().out == "", "stdout is for results"


def test_a_provider_that_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"provider is one of .*, not 'quantum'"):
        runtime.choose("quantum")


@pytest.mark.parametrize(
    "options",
    [
        {"libraries": CUDA_13},
        {"libraries": CUDA_13, "cuda": (14, 1)},
        {"libraries": CUDA_13, "cuda": None},
        {
            "libraries": (DRIVER, "libcublas.so.12", "libcudnn.so.9"),
            "version": "1.26.0",
            "cuda": (12, 2),
        },
        {"libraries": ("nvcuda.dll", "cublas64_13.dll", "cudnn64_9.dll"), "system": "win32"},
    ],
)
def test_with_everything_there_cuda_is_taken(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, GPU, **options)
    assert runtime.choose("auto") == runtime.Choice("cuda", "it is there")
    assert runtime.choose("cuda") == runtime.Choice("cuda", "as asked for")
    assert runtime.choose("cpu") == runtime.Choice("cpu", "as asked for")


def test_this_machine(tiny_model: Path) -> None:
    """CUDA works as asked for, or is refused aloud; nothing falls back in silence."""
    reason = runtime.choose("auto").reason
    if runtime.choose("auto").provider == "cuda":
        session = OrtSession(tiny_model, signature.read(tiny_model), "cuda")
        assert session.open_stream().run(draw(3)).shape == (3, 3, 64, 64)
        return
    assert any(word in reason for word in ("missing", "driver", "no CUDA", "both"))
    with pytest.raises(ProviderError, match="--provider cuda: "):
        runtime.choose("cuda")
    with pytest.raises(ProviderError, match="CUDA"):
        OrtSession(tiny_model, signature.read(tiny_model), "cuda")
