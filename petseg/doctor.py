"""What this machine has for petseg, what is wrong with it, and the command that mends it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import petseg
from petseg.system import machine, nvidia
from petseg.system.machine import ONNXRUNTIME_PACKAGES

# Each extra of pyproject.toml but those of CUDA: its packages, and what they are for.
EXTRAS = {
    "train": (("tensorflow", "keras", "onnx"), "petseg-train"),
    "export": (("tf2onnx",), "petseg-export"),
    "openvino": (("openvino",), "a quicker network on processors"),
    "formats": (("pycocotools", "pyarrow"), "--format coco and parquet"),
    "heif": (("pillow-heif",), "photos in HEIC"),
    "remote": (("fsspec", "s3fs", "gcsfs"), "photos and masks in stores"),
    "ray": (("ray",), "--engine ray"),
    "tensorboard": (("tensorboard",), "petseg-train --tensorboard"),
}
# What makes the network faster, of all that a processor has: x86-64's and Arm's, as Linux names it.
_FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
# Photos of stores and tables wait in the folder of temporary files.
_LEAST_BYTES = 10**9


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its name.
        found: what it is, or that it is not there.
        problem: what is wrong with it; "" where nothing is, and where it is not needed.
        command: what mends the problem, or installs what is not there; "" where no one command
            does.
    """

    what: str
    found: str
    problem: str = ""
    command: str = ""


def examine() -> list[Finding]:
    """Everything that is looked at, in an order for people.  Nothing is changed."""
    return [
        Finding("petseg", petseg.__version__),
        Finding("python", f"{platform.python_version()} on {platform.platform()}"),
        *_computer(),
        _onnxruntime(),
        *_nvidia(),
        *_extras(),
        Finding("--provider auto", provider()),
    ]


def versions() -> list[str]:
    """What `--version` tells: petseg and the libraries that compute, and the provider, a line each.

    The libraries' versions are asked of the installation: none is loaded but onnxruntime, for the
    provider.
    """
    found = machine.package_versions(*ONNXRUNTIME_PACKAGES) or {"onnxruntime": "not installed"}
    for name in ("openvino", "tensorflow", "keras"):
        found[name] = machine.package_versions(name).get(name, "not installed")
    return [
        f"petseg {petseg.__version__}",
        f"python {platform.python_version()}",
        *(f"{name} {version}" for name, version in machine.package_versions("numpy").items()),
        *(f"{name} {version}" for name, version in found.items()),
        f"provider {provider()}",
    ]


def provider() -> str:
    """What `--provider auto` takes here, and why; "none" where onnxruntime cannot be loaded."""
    broken = _broken()
    if broken:
        return f"none (onnxruntime cannot be loaded: {broken})"
    from petseg import runtime

    choice = runtime.choose("auto")
    return f"{choice.provider} ({choice.reason})"


def _broken() -> str:
    """Why onnxruntime cannot be loaded; "" where it can."""
    try:
        from petseg import runtime  # noqa: F401
    # The second is what is left of two packages that own one folder when one has been removed:
    # a module without its content.
    except (ImportError, AttributeError) as error:
        return str(error)
    return ""


def _computer() -> Iterator[Finding]:
    name = machine.device_name("cpu") or platform.machine()
    flags = machine.cpu_flags()
    yield Finding("processor", f"{name}, {machine.usable_cores()} of {os.cpu_count()} cores")
    if flags:
        features = " ".join(name for name in _FEATURES if name in flags)
        yield Finding("its features", features or "none that make the network faster")
    memory = machine.memory()
    if memory is not None:
        yield Finding("memory", _gigabytes(memory))
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield Finding("temporary files", "nowhere", f"{error}; set TMPDIR to a folder")
        return
    problem = ""
    if free < _LEAST_BYTES:
        problem = f"expected {_gigabytes(_LEAST_BYTES)} free; set TMPDIR to another folder"
    yield Finding("temporary files", f"{_gigabytes(free)} free in {folder}", problem)


def _onnxruntime() -> Finding:
    found = machine.package_versions(*ONNXRUNTIME_PACKAGES)
    words = ", ".join(f"{name} {version}" for name, version in found.items())
    clash, broken = machine.onnxruntime_clash(), _broken()
    if clash is not None:
        return Finding("onnxruntime", words, clash.what, clash.command)
    package = machine.onnxruntime_package()
    if not found and broken:
        problem = f"it is not installed: {broken}"
        return Finding("onnxruntime", "not installed", problem, f"pip install {package}")
    if broken:
        command = f"pip install --force-reinstall {next(iter(found))}"
        return Finding("onnxruntime", words, f"it cannot be loaded: {broken}", command)
    return Finding("onnxruntime", words or "of an unknown package")


def _nvidia() -> Iterator[Finding]:
    driver, cards, shown = nvidia.driver(), nvidia.cards(), nvidia.gpu_count()
    here = f"there are NVIDIA cards in this machine ({cards})"
    if not nvidia.loads(driver):
        problem = (
            f"{here} and no driver ({driver} cannot be loaded); install NVIDIA's driver, or start "
            "the container with --gpus all"
        )
        yield Finding("NVIDIA GPU", "no driver", problem if cards else "")
        return
    release, version = next(iter(nvidia.smi("driver_version")), ""), nvidia.cuda_version()
    newest = "" if version is None else f"for CUDA {version[0]}.{version[1]} and older"
    yield Finding("NVIDIA driver", ", ".join(filter(None, (release, newest))) or "there")
    if shown:
        yield Finding("NVIDIA GPU", ", ".join(nvidia.smi("name")) or f"{shown} without a name")
        if not _broken():
            yield from _cuda()
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        yield Finding("NVIDIA GPU", f"hidden by CUDA_VISIBLE_DEVICES={hidden}")
        return
    problem = f"{here} and the driver shows none; see what nvidia-smi says"
    yield Finding("NVIDIA GPU", "none", problem if cards else "")


def _cuda() -> Iterator[Finding]:
    """What onnxruntime lacks for GPUs that are there."""
    from petseg.runtime import cuda

    lack = cuda.problem()
    if lack is not None and lack == machine.onnxruntime_clash():
        return  # told of already
    words = "not in this onnxruntime"
    if cuda.built_in():
        there = (f"{name} {'found' if ok else 'missing'}" for name, ok in cuda.libraries().items())
        words = ", ".join((f"onnxruntime needs CUDA {cuda.cuda_major()}", *there))
    yield Finding("CUDA", words, *(("", "") if lack is None else (lack.what, lack.command)))


def _extras() -> Iterator[Finding]:
    for extra, (packages, purpose) in EXTRAS.items():
        found = machine.package_versions(*packages)
        words = ", ".join(f"{name} {version}" for name, version in found.items())
        missing = [name for name in packages if name not in found]
        if not missing:
            yield Finding(f"[{extra}]", words)
            continue
        lacking = f"{', '.join(missing)} not installed"
        yield Finding(
            f"[{extra}]",
            f"{words}{'; ' if words else ''}{lacking} ({purpose})",
            command=f"pip install 'petseg[{extra}]'",
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
