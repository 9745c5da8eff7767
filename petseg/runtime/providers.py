"""Which provider runs the network here, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from petseg.errors import ProviderError
from petseg.modelfile.signature import Signature
from petseg.runtime import cuda, openvino
from petseg.runtime.devices import DevicesSession
from petseg.runtime.onnx import OrtSession
from petseg.runtime.openvino import OpenVinoSession
from petseg.runtime.session import Session
from petseg.system.machine import Lack, usable_cores

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
    missing: dict[str, Lack] = {}
    for name, module in (("cuda", cuda), ("openvino", openvino)):
        if provider not in ("auto", name):
            continue
        problem = module.problem()
        if problem is None:
            lacking = "".join(f"; no {other}: {why}" for other, why in missing.items())
            return Choice(name, "as asked for" if provider == name else f"it is there{lacking}")
        missing[name] = problem
    if provider != "auto":
        lack = missing[provider]
        doctor = "" if lack.command else "; petseg doctor looks at all that it needs"
        raise ProviderError(f"--provider {provider}: {lack}{doctor}")
    return Choice("cpu", "; ".join(f"no {name}: {why}" for name, why in missing.items()))


def open_session(
    model: Path,
    signature: Signature,
    provider: str,
    precision: str = "auto",
    batch_size: int | None = None,
    devices: tuple[int, ...] | None = None,
    cores: int | None = None,
) -> Session:
    """Load a model.

    Args:
        model: a petseg ONNX file.
        signature: the file's.
        provider: "cuda", "openvino" or "cpu", as `choose` gives it.
        precision: of PRECISIONS; what the network is computed in.
        batch_size: images at once, on each device; None leaves the choice.
        devices: the GPUs to use, by CUDA's numbers; for other providers, as many sessions share
            the cores.  None for the first GPU, or all cores as one.
        cores: of the processor, to compute with; None for all that this process may use.

    Raises:
        ModelError: the file cannot be run.
        ProviderError: the provider cannot be had, cannot run every node, or has no such precision.
    """
    chosen = devices or (0,)
    if provider == "cuda" and devices and (problem := cuda.missing(devices)):
        raise ProviderError(f"--devices {','.join(map(str, devices))}: {problem}")
    each, rest = divmod(cores or usable_cores(), len(chosen))
    sessions: dict[int, Session] = {}
    for place, device in enumerate(chosen):
        threads = max(1, each + (place < rest))
        if provider == "openvino":
            sessions[device] = OpenVinoSession(model, signature, precision, batch_size, threads)
        else:
            gpu = device if provider == "cuda" else 0
            sessions[device] = OrtSession(
                model, signature, provider, precision, batch_size, gpu, threads
            )
    return sessions[chosen[0]] if len(sessions) == 1 else DevicesSession(sessions)
