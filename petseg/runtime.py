"""One onnxruntime session: which provider, buffers allocated once, and batches of few shapes."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from petseg.errors import ModelError, ProviderError
from petseg.machine import ONNXRUNTIME_PACKAGES, package_versions, usable_cores
from petseg.signature import INPUT, MASK, PROBABILITIES, Signature

PROVIDERS = ("auto", "cuda", "cpu")
DEFAULT_BATCH_SIZE = {"cuda": 32, "cpu": 4}

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# HEURISTIC: EXHAUSTIVE tries every algorithm for seconds at each new shape, and DEFAULT is slow.
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
}
# A run raises one of the first two, the making of a buffer the last.
_RUN_ERRORS = (
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
    ort.capi.onnxruntime_pybind11_state.Fail,
    RuntimeError,
)
_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "failed to allocate", "_alloc_failed")


class Session(Protocol):
    """What an engine needs of a session."""

    signature: Signature
    provider: str
    precision: str
    batch_size: int
    notes: list[str]

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB uint8 (N, S, S, 3) to probabilities uint8 (N, C, S, S); N <= batch_size."""
        ...


@dataclass(frozen=True)
class Choice:
    """A provider, and why it was taken, for people."""

    provider: str
    reason: str


class OrtSession:
    """A model on one provider, run through buffers that are bound once for each batch shape.

    Batches are padded to the next power of two (at most `batch_size`), so that few shapes occur:
    each new one costs a GPU seconds of preparation, and memory that is never given back.  When a
    GPU runs out of memory, `batch_size` is halved and the batch goes through in parts.

    Attributes:
        provider: "cuda" or "cpu".
        precision: what the network is computed in.
        batch_size: the most images at once.
        notes: what happened that the user should know.
    """

    def __init__(
        self, model: Path, signature: Signature, provider: str, batch_size: int | None = None
    ) -> None:
        """Load the model.

        Raises:
            ModelError: onnxruntime refuses the file, or its inputs and outputs are not petseg's.
            ProviderError: the provider cannot be had, or cannot run every node.
        """
        self.provider = provider
        self.signature = signature
        self.precision = _computed_in(provider, signature.precision)
        self.batch_size = batch_size or DEFAULT_BATCH_SIZE[provider]
        self.notes: list[str] = []
        self._session = _open(model, provider)
        _check_interface(self._session, signature, model)
        self._bindings: dict[int, _Binding] = {}

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        parts = []
        first = 0
        while first < len(images):
            part = images[first : first + self.batch_size]
            try:
                parts.append(self._run_padded(part))
            except _RUN_ERRORS as error:
                self._halve(error)
                continue
            first += len(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_padded(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        shape = min(1 << (len(images) - 1).bit_length(), self.batch_size)
        if shape not in self._bindings:
            self._bindings[shape] = _Binding(self._session, self.signature, shape, self.provider)
        return self._bindings[shape].run(images)

    def _halve(self, error: Exception) -> None:
        if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise error
        if self.batch_size == 1:
            raise ProviderError(
                f"{self.provider} is out of memory even for one image: {error}"
            ) from error
        self.batch_size //= 2
        self._bindings.clear()
        self.notes.append(f"{self.provider} ran out of memory; batch size now {self.batch_size}")


class _Binding:
    """Input and output buffers of one batch shape, on the session's device."""

    def __init__(
        self, session: ort.InferenceSession, signature: Signature, batch: int, provider: str
    ) -> None:
        size = signature.size
        self._session = session
        self._host = np.zeros((batch, size, size, 3), np.uint8)
        self._input = ort.OrtValue.ortvalue_from_numpy(self._host, provider, 0)
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(
            [batch, len(signature.classes), size, size], np.uint8, provider, 0
        )
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._input)
        self._binding.bind_ortvalue_output(PROBABILITIES, self._output)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # What is left behind `images` is an earlier batch; its results are not looked at.
        self._host[: len(images)] = images
        self._input.update_inplace(self._host)
        self._session.run_with_iobinding(self._binding)
        result: NDArray[np.uint8] = self._output.numpy()[: len(images)].copy()
        return result


def _computed_in(provider: str, stored: str) -> str:
    """The CPU provider has no float16 arithmetic, and CUDA none for a quantised graph: both widen
    to float32 what they have none for.
    """
    own = {"cpu": "int8", "cuda": "float16"}
    return stored if stored == own[provider] else "float32"


def choose(provider: str) -> Choice:
    """Resolve "auto": CUDA where onnxruntime and the machine have it, else the CPU.

    Raises:
        ProviderError: CUDA was asked for and is not there; the message says what is missing.
        ValueError: not one of PROVIDERS.
    """
    if provider not in PROVIDERS:
        raise ValueError(f"provider is one of {PROVIDERS}, not {provider!r}")
    if provider == "cpu":
        return Choice("cpu", "as asked for")
    problem = _cuda_problem()
    if problem is None:
        return Choice("cuda", "as asked for" if provider == "cuda" else "a GPU and CUDA are there")
    if provider == "cuda":
        raise ProviderError(f"--provider cuda: {problem}")
    return Choice("cpu", f"no CUDA: {problem}")


def onnxruntime_packages() -> list[str]:
    """Installed packages that own the module `onnxruntime`; more than one is a broken install."""
    found = package_versions(*ONNXRUNTIME_PACKAGES)
    return [f"{name} {version}" for name, version in found.items()]


def _cuda_problem() -> str | None:
    """What is missing for CUDA, and what to do about it; None where nothing is."""
    packages = onnxruntime_packages()
    if len(packages) > 1:
        return (
            f"{' and '.join(packages)} are both installed and overwrite each other; "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        )
    if _CUDA not in ort.get_available_providers():
        return f"{packages[0] if packages else 'onnxruntime'} has no CUDA; install onnxruntime-gpu"
    driver = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    if not _loads(driver):
        return f"no NVIDIA driver ({driver} cannot be loaded)"
    if not _visible_gpus(driver):
        return "the NVIDIA driver shows no GPU (see nvidia-smi and CUDA_VISIBLE_DEVICES)"
    # From 1.27 on onnxruntime-gpu is built for CUDA 13, before that for CUDA 12.
    major = 13 if tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 27) else 12
    # It prints what it cannot load; stdout is for results.
    with contextlib.redirect_stdout(sys.stderr):
        ort.preload_dlls()
    for library in (f"libcublas.so.{major}", "libcudnn.so.9"):
        if sys.platform == "linux" and not _loads(library):
            return f"{library} is missing; pip install 'petseg[cuda{major}]'"
    return None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _visible_gpus(driver: str) -> int:
    """What the CUDA driver counts; CUDA_VISIBLE_DEVICES may hide some or all."""
    cuda = ctypes.CDLL(driver)
    count = ctypes.c_int(0)
    # CUDA_SUCCESS is 0 (CUDA driver API, cuInit and cuDeviceGetCount).
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _open(model: Path, provider: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Spinning threads would take the cores that decode and encode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [_CPU]
    if provider == "cuda":
        options.intra_op_num_threads = 1
        # Refuses a graph of which any node would run on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [(_CUDA, _CUDA_OPTIONS)]
    else:
        options.intra_op_num_threads = usable_cores()
    try:
        # With its fallback onnxruntime would print, try the CPU, and hide the first error.
        session = ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except Exception as error:
        # onnxruntime's errors share no base class but Exception; some are Python's own.
        own = type(error).__module__.startswith("onnxruntime")
        if not own and not isinstance(error, RuntimeError | ValueError):
            raise
        if provider == "cuda":
            raise ProviderError(f"CUDA cannot run every node of {model}: {error}") from error
        raise ModelError(f"onnxruntime cannot load {model}: {error}") from error
    wanted = _CUDA if provider == "cuda" else _CPU
    if session.get_providers()[0] != wanted:
        raise ProviderError(f"asked for {wanted}, got {session.get_providers()[0]}")
    return session


def _check_interface(session: ort.InferenceSession, signature: Signature, model: Path) -> None:
    size, classes = signature.size, len(signature.classes)
    expected = {
        INPUT: ("tensor(uint8)", [size, size, 3]),
        MASK: ("tensor(uint8)", [size, size]),
        PROBABILITIES: ("tensor(uint8)", [classes, size, size]),
    }
    found = {
        item.name: (item.type, item.shape[1:])
        for item in (*session.get_inputs(), *session.get_outputs())
    }
    if found != expected:
        raise ModelError(f"{model}: expected inputs and outputs {expected}, found {found}")
