"""OpenVINO's own runtime: processors of every make, in bfloat16 and int8 where they have them.

Not its plug-in for onnxruntime, which shows no device on processors that are not Intel's, and takes
one batch at a time; here one stream for each few cores keeps them all busy.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petseg.errors import MissingPackageError, ModelError, ProviderError, first_line
from petseg.modelfile.signature import INPUT, PROBABILITIES, Signature
from petseg.system.machine import Lack, usable_cores

# As OpenVINO names what the network is computed in (ov::hint::inference_precision).
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def problem() -> Lack | None:
    """What is missing for OpenVINO, and what to do about it; None where nothing is."""
    if importlib.util.find_spec("openvino") is None:
        return Lack("the package openvino is not installed", "pip install 'petseg[openvino]'")
    return None


@functools.cache
def shared_core() -> Any:
    """The one `openvino.Core` of the process, which lives as long as it does.

    A core gives the thread it is made in a stack for signals, and takes it back when it ends.
    Of two that end in the order they were made in, the first one's stack is what that thread is
    left with: memory that is no more, and the next Ctrl-C is a segmentation fault.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()


class OpenVinoSession:
    """A model compiled for this processor; see `session.Session`.

    One image at a time goes through each stream, and as many streams run side by side as OpenVINO
    finds good for throughput.
    """

    provider = "openvino"

    def __init__(
        self,
        model: Path,
        signature: Signature,
        precision: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Compile the model.

        Args:
            model: a petseg ONNX file.
            signature: the file's.
            precision: "auto", "float32", "bfloat16", or "int8" for a file that is stored in it.
            batch_size: images that a stream takes at once; 1 if None.
            threads: of all streams; None for one a core.

        Raises:
            MissingPackageError: OpenVINO is not installed.
            ModelError: OpenVINO refuses the file.
            ProviderError: the processor has no such precision.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingPackageError("openvino", "openvino", "--provider openvino") from error
        core = shared_core()
        self.signature = signature
        self.batch_size = batch_size or 1
        self.batch_sizes: tuple[int, ...] = (self.batch_size,)
        self.notes: list[str] = []
        computed = _resolve(precision, signature.precision, has_bfloat16(core))
        self.precision = "int8" if signature.precision == "int8" else computed
        config = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": _HINTS[computed],
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            # The workers need the cores, too; a pinned thread would wait for one of them.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            network = core.read_model(model)
            # The mask is not asked for, and so not computed.
            wanted = openvino.Model([network.output(PROBABILITIES)], network.get_parameters())
            wanted.reshape({INPUT: [self.batch_size, signature.size, signature.size, 3]})
            self._compiled = core.compile_model(wanted, "CPU", config)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load {model}: {error}") from error
        self.streams = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def open_stream(self) -> OpenVinoStream:
        """A new stream."""
        return OpenVinoStream(self._compiled.create_infer_request(), self.batch_size)


class OpenVinoStream:
    """One inference request, with its buffers; see `session.Stream`."""

    # All its batches have one shape.
    padded = None

    def __init__(self, request: Any, batch_size: int) -> None:
        self._request = request
        self._batch_size = batch_size
        self._input = request.get_input_tensor().data
        self._output = request.get_output_tensor().data

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        result = np.empty((len(images), *self._output.shape[1:]), np.uint8)
        for first in range(0, len(images), self._batch_size):
            part = images[first : first + self._batch_size]
            # What is left behind `part` is an earlier batch; its results are not looked at.
            self._input[: len(part)] = part
            try:
                self._request.infer()
            except RuntimeError as error:
                raise ProviderError(f"openvino failed: {first_line(error)}") from error
            result[first : first + len(part)] = self._output[: len(part)]
        return result


def has_bfloat16(core: Any) -> bool:
    """Whether the processor computes in bfloat16, as an `openvino.Core` says it."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _resolve(precision: str, stored: str, bfloat16: bool) -> str:
    """What the layers that are not int8 are computed in."""
    if precision == "auto" or (precision == "int8" and stored == "int8"):
        return "bfloat16" if bfloat16 else "float32"
    if stored == "int8":
        raise ProviderError(
            f"--precision {precision}: openvino computes a file stored in int8 in int8; "
            "petseg-export --precision makes other files"
        )
    if precision == "int8":
        raise ProviderError(
            f"--precision int8 needs a file stored in int8, and this one is stored in {stored}; "
            "make one with petseg-export --precision int8"
        )
    if precision not in _HINTS:
        raise ProviderError(
            f"--precision {precision}: OpenVINO computes in {', '.join(_HINTS)} and int8"
        )
    if precision == "bfloat16" and not bfloat16:
        raise ProviderError(
            "--precision bfloat16: this processor has no bfloat16 arithmetic; take float32 or auto"
        )
    return precision
