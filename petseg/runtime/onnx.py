"""onnxruntime, on CUDA or on the CPU: buffers allocated once, and batches of few shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from petseg.errors import ModelError, ProviderError, first_line
from petseg.modelfile.signature import INPUT, MASK, PROBABILITIES, Signature
from petseg.system.machine import usable_cores

# To choose from; larger ones cost memory.
BATCH_SIZES = {"cuda": (8, 16, 32, 64, 128), "cpu": (1, 2, 4, 8)}

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# HEURISTIC: EXHAUSTIVE tries every algorithm for seconds at each new shape, and DEFAULT is slow.
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv_use_max_workspace": "1",
    "do_copy_in_default_stream": "1",
}
_ERRORS = ort.capi.onnxruntime_pybind11_state
# A run raises one of the first, whichever part of the provider fails, of which older versions lack
# some; the making of a buffer raises the last.
_RUN_ERRORS = (
    *(
        getattr(_ERRORS, name)
        for name in ("RuntimeException", "Fail", "EPFail", "EngineError", "DeviceReset")
        if hasattr(_ERRORS, name)
    ),
    RuntimeError,
)
# As onnxruntime refuses a graph that needs another provider, where that is forbidden.
_NOT_ALL_NODES = "fallback to CPU EP"
_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "failed to allocate", "_alloc_failed")


class OrtSession:
    """A model on one provider; see `session.Session`.

    Batches are padded to the next power of two (at most `batch_size`), so that few shapes occur:
    each new one costs a GPU seconds of preparation, and memory that is never given back.  When a
    GPU runs out of memory, `batch_size` is halved and the batch goes through in parts.
    """

    def __init__(
        self,
        model: Path,
        signature: Signature,
        provider: str,
        precision: str = "auto",
        batch_size: int | None = None,
        device: int = 0,
        threads: int | None = None,
    ) -> None:
        """Load the model.

        Args:
            model: a petseg ONNX file.
            signature: the file's.
            provider: "cuda" or "cpu".
            precision: of `providers.PRECISIONS`.
            batch_size: images at once; None leaves the choice.
            device: which GPU, by CUDA's number; 0 for "cpu".
            threads: that a batch is shared out among on the CPU; None for one a core.

        Raises:
            ModelError: onnxruntime refuses the file, or its inputs and outputs are not petseg's.
            ProviderError: the provider cannot be had, cannot run every node, or has no such
                precision.
        """
        self.provider = provider
        self.signature = signature
        self.precision = _resolve(precision, signature.precision, provider)
        self.batch_sizes = BATCH_SIZES[provider] if batch_size is None else (batch_size,)
        self.batch_size = self.batch_sizes[-1]
        # On the CPU each batch is shared out among all threads.
        self.streams = 1
        self.device = device
        self.notes: list[str] = []
        self._session = _open(model, provider, self.precision, device, threads)
        _check_interface(self._session, signature, model)

    def open_stream(self) -> OrtStream:
        """A new stream."""
        return OrtStream(self, self._session)

    def halve(self, size: int, error: Exception) -> None:
        """Take smaller batches, after an error with one of `size` images.

        Raises:
            ProviderError: the device has no memory for a single image, or `error` is not about
                memory: the device is lost, say.
        """
        if not _is_about_memory(error):
            raise ProviderError(f"{self.provider} failed: {first_line(error)}") from error
        if size == 1:
            raise ProviderError(
                f"{self.provider} is out of memory even for one image: {first_line(error)}"
            ) from error
        self.batch_size = size // 2
        self.notes.append(f"{self.provider} ran out of memory; batch size now {self.batch_size}")


def _is_about_memory(error: Exception) -> bool:
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


class OrtStream:
    """Buffers that are bound once for each batch shape; see `session.Stream`."""

    def __init__(self, session: OrtSession, onnx_session: ort.InferenceSession) -> None:
        self._session = session
        self._onnx_session = onnx_session
        self._bindings: dict[int, _Binding] = {}
        self.padded: list[int] | None = None

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        parts = []
        padded: list[int] = []
        first = 0
        while first < len(images):
            size = self._session.batch_size
            part = images[first : first + size]
            shape = min(1 << (len(part) - 1).bit_length(), size)
            try:
                parts.append(self._run_padded(part, shape))
            except _RUN_ERRORS as error:
                self._session.halve(size, error)
                self._bindings.clear()
                continue
            padded += [shape] * len(part)
            first += len(part)
        # The CPU provider adds up in the same order whatever the shape; cuDNN has algorithms.
        self.padded = padded if self._session.provider == "cuda" else None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run_padded(self, images: NDArray[np.uint8], shape: int) -> NDArray[np.uint8]:
        if shape not in self._bindings:
            self._bindings[shape] = _Binding(
                self._onnx_session,
                self._session.signature,
                shape,
                self._session.provider,
                self._session.device,
            )
        return self._bindings[shape].run(images)


class _Binding:
    """Input and output buffers of one batch shape, on the session's device."""

    def __init__(
        self,
        session: ort.InferenceSession,
        signature: Signature,
        batch: int,
        provider: str,
        device: int,
    ) -> None:
        size = signature.size
        self._session = session
        self._host = np.zeros((batch, size, size, 3), np.uint8)
        self._input = ort.OrtValue.ortvalue_from_numpy(self._host, provider, device)
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(
            [batch, len(signature.classes), size, size], np.uint8, provider, device
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


def _resolve(precision: str, stored: str, provider: str) -> str:
    """What a file stored in one precision is computed in, where it was asked for another."""
    if provider == "cpu":
        # No float16 arithmetic there: its weights are widened.
        computed = "int8" if stored == "int8" else "float32"
        possible = {computed}
    else:
        # onnxruntime's CUDA provider computes what the graph says, float32 with or without TF32;
        # it has no int8 arithmetic, and widens.
        computed = "float16" if stored == "float16" else "tf32"
        possible = {"float16"} if stored == "float16" else {"float32", "tf32"}
    if precision == "auto":
        return computed
    if precision not in possible:
        raise ProviderError(
            f"--precision {precision}: {provider} computes a file stored in {stored} in "
            f"{' or '.join(sorted(possible))}; petseg-export --precision makes other files"
        )
    return precision


def _open(
    model: Path, provider: str, precision: str, device: int, threads: int | None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Spinning threads would take the cores that decode and encode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = [_CPU]
    if provider == "cuda":
        options.intra_op_num_threads = 1
        # Refuses a graph of which any node would run on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        own = {"device_id": str(device), "use_tf32": str(int(precision == "tf32"))}
        providers = [(_CUDA, {**_CUDA_OPTIONS, **own})]
    else:
        options.intra_op_num_threads = threads or usable_cores()
    try:
        # With its fallback onnxruntime would print, try the CPU, and hide the first error.
        session = ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)
    except Exception as error:
        # onnxruntime's errors share no base class but Exception; some are Python's own.
        theirs = type(error).__module__.startswith("onnxruntime")
        if not theirs and not isinstance(error, RuntimeError | ValueError):
            raise
        if provider == "cuda":
            raise ProviderError(_refusal(error, model, device)) from error
        raise ModelError(f"onnxruntime cannot load {model}: {error}") from error
    wanted = _CUDA if provider == "cuda" else _CPU
    if session.get_providers()[0] != wanted:
        raise ProviderError(f"asked for {wanted}, got {session.get_providers()[0]}")
    return session


def _refusal(error: Exception, model: Path, device: int) -> str:
    """Why a GPU does not take a model, and what to do about it."""
    found = first_line(error)
    if _NOT_ALL_NODES in str(error):
        return (
            f"CUDA cannot run every node of {model} on device {device}: {found}; "
            "--provider openvino and cpu can"
        )
    if _is_about_memory(error):
        return (
            f"CUDA has no memory for {model} on device {device}: {found}; nvidia-smi shows who "
            "holds it, and --devices takes another GPU"
        )
    return (
        f"CUDA cannot be started on device {device}: {found}; see whether nvidia-smi shows it in "
        "good health; --provider openvino and cpu do without"
    )


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
