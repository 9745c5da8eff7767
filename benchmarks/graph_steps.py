"""What each change to the exported graph brought: python benchmarks/graph_steps.py.

The network of a file is exported once more, with one decision of petseg-export's taken back or
added at a time, and all of these take turns in onnxruntime's CPU provider and in OpenVINO.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from petseg.cli.common import OK, exits
from petseg.cli.quiet import quiet_import
from petseg.modelfile.signature import INPUT, MASK, PROBABILITIES
from petseg.planning.config import find_model
from petseg.runtime.openvino import shared_core
from petseg.system import machine

Run = Callable[[NDArray[np.uint8]], object]

EXPORTED = "as exported"
BATCH = 4


@click.command(context_settings={"show_default": True})
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option("--repeats", type=click.IntRange(1), default=7, help="Rounds, each of all graphs.")
@click.option(
    "--keep", type=click.Path(path_type=Path), help="Write them there, for session_profile.py."
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(model: Path | None, repeats: int, keep: Path | None, as_json: bool) -> int:
    """Time the graphs; ratios are medians over rounds, above 1 where a graph is faster."""
    path, _ = find_model(model)
    graphs, size = build(path)
    if keep is not None:
        write(graphs, keep)
    pictures = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    found = {name: compare(runs, pictures, repeats) for name, runs in sessions(graphs).items()}
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, batches of {BATCH}, "
        f"{repeats} rounds",
        "",
        "| session | graph | speed, as exported = 1 |",
        "|---|---|---|",
    ]
    lines += [
        f"| {session} | {graph} | {ratio:.2f} |"
        for session, ratios in found.items()
        for graph, ratio in ratios.items()
        if graph != EXPORTED
    ]
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def build(path: Path) -> tuple[dict[str, dict[str, bytes]], int]:
    """Graphs of a file's network by stored precision and by name; and S, pixels."""
    with quiet_import():
        from petseg_export import convert, trained, upsampling
    model = trained.load(path)
    graphs: dict[str, dict[str, bytes]] = {}
    for precision in ("float32", "float16"):
        made, _ = convert.convert(model.network, model.architecture, precision)  # type: ignore[arg-type]
        exported = made.SerializeToString()
        variants = graphs[precision] = {EXPORTED: exported}
        behind = onnx.load_from_string(exported)
        _take_argmax_of_probabilities(behind.graph)
        variants["mask from the softmax"] = behind.SerializeToString()
        if precision == "float16":
            newer = onnx.load_from_string(exported)
            newer.opset_import[0].version = convert.OPSET
            variants[f"opset {convert.OPSET}"] = newer.SerializeToString()
        else:
            split = onnx.load_from_string(exported)
            upsampling.split_upsampling(split)
            variants["transposed convolutions in phases"] = split.SerializeToString()
    return graphs, model.architecture.size


def write(graphs: dict[str, dict[str, bytes]], folder: Path) -> None:
    """A file for each graph."""
    folder.mkdir(parents=True, exist_ok=True)
    for precision, variants in graphs.items():
        for name, graph in variants.items():
            (folder / f"{precision} {name}.onnx").write_bytes(graph)


def _take_argmax_of_probabilities(graph: onnx.GraphProto) -> None:
    (largest,) = (node for node in graph.node if node.op_type == "ArgMax")
    (softmax,) = (node for node in graph.node if node.op_type == "Softmax")
    if largest.input[0] == softmax.input[0]:
        largest.input[0] = softmax.output[0]
    graph.node.remove(largest)
    graph.node.insert(list(graph.node).index(softmax) + 1, largest)


def sessions(graphs: dict[str, dict[str, bytes]]) -> dict[str, dict[str, Run]]:
    """What runs each graph, by what it runs in."""
    found: dict[str, dict[str, Run]] = {}
    for precision, variants in graphs.items():
        for output in (PROBABILITIES, MASK):
            found[f"onnxruntime, stored in {precision}, {output}"] = {
                name: _onnxruntime(graph, output) for name, graph in variants.items()
            }
    for hint in ("f32", "bf16"):
        found[f"OpenVINO, {hint}, {PROBABILITIES}"] = {
            name: _openvino(graph, hint) for name, graph in graphs["float32"].items()
        }
    return found


def _onnxruntime(graph: bytes, output: str) -> Run:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = machine.usable_cores()
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda pictures: session.run([output], {INPUT: pictures})


def _openvino(graph: bytes, hint: str) -> Run:
    core = shared_core()
    compiled = core.compile_model(
        core.read_model(graph),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": str(machine.usable_cores()),
            "NUM_STREAMS": "1",
        },
    )
    request = compiled.create_infer_request()
    return lambda pictures: request.infer({INPUT: pictures})


def compare(runs: dict[str, Run], pictures: NDArray[np.uint8], repeats: int) -> dict[str, float]:
    """Graph to how much faster than the first one it is, the median over rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(pictures)
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run(pictures)
            seconds[name].append(time.perf_counter() - started)
    first = seconds[next(iter(runs))]
    return {
        name: statistics.median(base / own for base, own in zip(first, taken, strict=True))
        for name, taken in seconds.items()
    }


if __name__ == "__main__":
    main()
