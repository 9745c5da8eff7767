"""Which provider runs the network here, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from petseg.errors import ProviderError
from petseg.runtime import cuda, openvino
from petseg.runtime.onnx import OrtSession
from petseg.runtime.openvino import OpenVinoSession
from petseg.runtime.session import Session
from petseg.signature import Signature

PROVIDERS = ("auto", "cuda", "openvino", "cpu")
PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class Choice:
    """A provider, and why it was taken, for people."""

    provider: str
    reason: str


def choose(provider: str) -> Choice:
    """Resolve "auto": CUDA where it is there, else OpenVINO, else onnxruntime on the CPU.

    Raises:
        ProviderError: what was asked for is not there; the message says what is missing.
        ValueError: not one of PROVIDERS.
    """
    if provider not in PROVIDERS:
        raise ValueError(f"provider is one of {PROVIDERS}, not {provider!r}")
    if provider == "cpu":
        return Choice("cpu", "as asked for")
    missing: dict[str, str] = {}
    for name, module in (("cuda", cuda), ("openvino", openvino)):
        if provider not in ("auto", name):
            continue
        problem = module.problem()
        if problem is None:
            lacking = "".join(f"; no {other}: {why}" for other, why in missing.items())
            return Choice(name, "as asked for" if provider == name else f"it is there{lacking}")
        missing[name] = problem
    if provider != "auto":
        raise ProviderError(f"--provider {provider}: {missing[provider]}")
    return Choice("cpu", "; ".join(f"no {name}: {why}" for name, why in missing.items()))


def open_session(
    model: Path,
    signature: Signature,
    provider: str,
    precision: str = "auto",
    batch_size: int | None = None,
) -> Session:
    """Load a model.

    Args:
        model: a petseg ONNX file.
        signature: the file's.
        provider: "cuda", "openvino" or "cpu", as `choose` gives it.
        precision: of PRECISIONS; what the network is computed in.
        batch_size: images at once; None leaves the choice.

    Raises:
        ModelError: the file cannot be run.
        ProviderError: the provider cannot be had, cannot run every node, or has no such precision.
    """
    if provider == "openvino":
        return OpenVinoSession(model, signature, precision, batch_size)
    return OrtSession(model, signature, provider, precision, batch_size)
