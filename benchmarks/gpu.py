"""The network on a GPU, setting by setting: python benchmarks/bench.py --gpu.

First the bare session: for each precision cuDNN's search and the fused bias are tried at one batch
size, each against the best so far; then, with the best of them, every batch size in both layouts,
with and without CUDA graphs.  Nodes that the provider leaves to the CPU are named.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from petseg.errors import PetsegError
from petseg.modelfile import signature
from petseg.modelfile.signature import INPUT, PROBABILITIES, Signature

BATCHES = (1, 4, 16, 32, 64, 128, 256)
# At this one the settings are compared.
TRIAL_BATCH = 64
# Seconds that a setting is measured for, in so many rounds.
SECONDS, ROUNDS = 1.0, 5
# Nodes on the CPU that are named for each setting; --json has all.
SHOWN = 20


@dataclass(frozen=True)
class Setting:
    """How the CUDA provider runs the network.

    Attributes:
        precision: "float32", "tf32" or "float16".
        nhwc: whether convolutions are laid out NHWC.
        search: cuDNN's search for an algorithm, "HEURISTIC" or "EXHAUSTIVE".
        fuse_bias: whether a convolution's bias is added in the same kernel.
        graph: whether a run is replayed as a CUDA graph.
    """

    precision: str
    nhwc: bool = False
    search: str = "HEURISTIC"
    fuse_bias: bool = False
    graph: bool = False

    def options(self) -> dict[str, str]:
        """For onnxruntime."""
        return {
            "cudnn_conv_algo_search": self.search,
            "cudnn_conv_use_max_workspace": "1",
            "do_copy_in_default_stream": "1",
            "prefer_nhwc": str(int(self.nhwc)),
            "fuse_conv_bias": str(int(self.fuse_bias)),
            "enable_cuda_graph": str(int(self.graph)),
            "use_tf32": str(int(self.precision == "tf32")),
        }


def measure(models: dict[str, Path], about: Signature, provider: str) -> list[dict[str, Any]]:
    """Images a second of the bare session in every setting that is worth it.

    Args:
        models: from `files`.
        about: the signature of either.
        provider: "cuda"; "cpu" goes through the motions where there is no GPU.

    Returns:
        A row a measurement: the setting, "batch", "images_per_second" with and without copies from
        and to the host, "load_seconds", or "error".
    """
    rows: list[dict[str, Any]] = []
    for precision in ("float16", "tf32", "float32"):
        model = models[precision]

        def run(setting: Setting, batch: int, repeats: int = ROUNDS, model: Path = model) -> float:
            row = {**dataclasses.asdict(setting), "batch": batch}
            try:
                row |= time_session(model, about, setting, batch, provider, repeats)
            except (RuntimeError, PetsegError) as error:
                row["error"] = str(error).splitlines()[0]
            rows.append(row)
            return float(row.get("images_per_second", 0.0))

        best = Setting(precision)
        best_rate = run(best, TRIAL_BATCH)
        for change in ({"fuse_bias": True}, {"search": "EXHAUSTIVE"}):
            tried = dataclasses.replace(best, **change)
            rate = run(tried, TRIAL_BATCH)
            if rate > 1.02 * best_rate:
                best, best_rate = tried, rate
        for batch, nhwc, graph in itertools.product(BATCHES, (False, True), (False, True)):
            run(dataclasses.replace(best, nhwc=nhwc, graph=graph), batch)
    return rows


def time_session(
    model: Path, about: Signature, setting: Setting, batch: int, provider: str, repeats: int
) -> dict[str, Any]:
    """One setting at one batch size: medians of several rounds."""
    started = time.perf_counter()
    session = open_session(model, setting, provider)
    size, classes = about.size, len(about.classes)
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    source = ort.OrtValue.ortvalue_from_numpy(images, provider, 0)
    target = ort.OrtValue.ortvalue_from_shape_and_type(
        [batch, classes, size, size], np.uint8, provider, 0
    )
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT, source)
    binding.bind_ortvalue_output(PROBABILITIES, target)
    if setting.graph:
        # A graph replays all that was bound when it was made.
        mask = ort.OrtValue.ortvalue_from_shape_and_type([batch, size, size], np.uint8, provider, 0)
        binding.bind_ortvalue_output("mask", mask)
    for _ in range(3):
        session.run_with_iobinding(binding)
    target.numpy()
    load_seconds = time.perf_counter() - started

    def rate(copies: bool) -> float:
        rates = []
        for _ in range(repeats):
            count, begun = 0, time.perf_counter()
            while (passed := time.perf_counter() - begun) < SECONDS / repeats or not count:
                if copies:
                    source.update_inplace(images)
                session.run_with_iobinding(binding)
                if copies:
                    target.numpy()
                count += 1
            binding.synchronize_outputs()
            passed = time.perf_counter() - begun
            rates.append(count * batch / passed)
        return statistics.median(rates)

    return {
        "images_per_second": rate(copies=False),
        "with_copies": rate(copies=True),
        "load_seconds": load_seconds,
    }


def open_session(model: Path, setting: Setting, provider: str) -> ort.InferenceSession:
    """A session that refuses to leave any node to the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if provider == "cuda":
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = [("CUDAExecutionProvider", setting.options())]
    return ort.InferenceSession(str(model), options, providers=providers, enable_fallback=0)


def nodes_on_the_cpu(model: Path, about: Signature, setting: Setting, provider: str) -> list[str]:
    """Names of the nodes that the CUDA provider does not take, from a profile of one run.

    On "cpu", where there is no GPU, these are all.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        providers: list[Any] = ["CPUExecutionProvider"]
        if provider == "cuda":
            providers.insert(0, ("CUDAExecutionProvider", setting.options()))
        session = ort.InferenceSession(str(model), options, providers=providers)
        pixels = np.zeros((1, about.size, about.size, 3), np.uint8)
        session.run([PROBABILITIES], {INPUT: pixels})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return sorted(
        {
            event["name"].removesuffix("_kernel_time")
            for event in events
            if event.get("args", {}).get("provider") == "CPUExecutionProvider"
        }
    )


def widen(model: Path, target: Path) -> None:
    """A float16 file's graph and weights in float32, for the CUDA provider to compute in.

    Only the exact values of float16 become float32: the weights stay the same.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    about = signature.read(model)
    proto = onnx.load(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
    graph_hash = signature.hash_graph(proto.graph.SerializeToString())
    about = dataclasses.replace(about, precision="float32", graph_hash=graph_hash)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(signature.to_metadata(about)))
    onnx.save(proto, target)


def files(model: Path, folder: Path) -> dict[str, Path]:
    """What each precision is computed from on CUDA, which computes in what a file is stored in.

    Args:
        model: a petseg file in float16 or float32.
        folder: where a float32 file goes that has to be made.

    Returns:
        Precision to file; no "float16" of a file in float32, which would have to be rounded.
    """
    wide = model
    found: dict[str, Path] = {}
    if signature.read(model).precision == "float16":
        found["float16"] = model
        wide = folder / "float32.onnx"
        widen(model, wide)
    return found | {"float32": wide, "tf32": wide}


def report(models: dict[str, Path], about: Signature, provider: str) -> dict[str, Any]:
    """All of this script.

    Args:
        models, about, provider: as for `measure`.

    Returns:
        "settings", the rows of `measure`; and "on_the_cpu", for each precision and layout the names
        of the nodes that CUDA leaves to the CPU.

    Raises:
        PetsegError: the model is not stored in float16, from which float32 can be had.
    """
    if "float16" not in models:
        raise PetsegError(
            f"--gpu takes a file stored in float16, and {models['float32']} is {about.precision}"
        )
    rows = measure(models, about, provider)
    left = {
        f"{precision}, {'NHWC' if nhwc else 'NCHW'}": nodes_on_the_cpu(
            models[precision], about, Setting(precision, nhwc), provider
        )
        for precision in ("float16", "float32")
        for nhwc in (False, True)
    }
    return {"settings": rows, "on_the_cpu": left}


def table(found: dict[str, Any]) -> Iterator[str]:
    """What `report` returns, as lines of Markdown."""
    for setting, names in found["on_the_cpu"].items():
        shown = ", ".join(names[:SHOWN]) or "none"
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        yield f"nodes that CUDA leaves to the CPU in {setting}: {shown}{more}"
    yield ""
    yield (
        "| precision | layout | search | fused bias | graph | batch | images/s "
        "| with copies | load, s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in found["settings"]:
        columns = (
            f"| {row['precision']} | {'NHWC' if row['nhwc'] else 'NCHW'} | {row['search'].lower()} "
            f"| {'yes' if row['fuse_bias'] else 'no'} | {'yes' if row['graph'] else 'no'} "
            f"| {row['batch']} "
        )
        if "error" in row:
            yield f"{columns}| failed: {row['error'].replace('|', ' ')} | | |"
        else:
            yield (
                f"{columns}| {row['images_per_second']:.0f} | {row['with_copies']:.0f} "
                f"| {row['load_seconds']:.1f} |"
            )
