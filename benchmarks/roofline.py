"""What the network asks of the machine, and what the machine has: python benchmarks/roofline.py.

Operations an image, counted from the layers' shapes; what the processor's matrix units reach on
one large product in each precision, by OpenVINO or onnxruntime, whoever is quicker; and the share
of that which the network reaches, alone, at its best setting.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bare_session
import click
import numpy as np
from cores import PROVIDERS, lack
from numpy.typing import NDArray

from petseg.cli.common import OK, exits
from petseg.modelfile import signature
from petseg.planning.config import find_model, packaged
from petseg.runtime.openvino import has_bfloat16, shared_core
from petseg.system import machine

SIDE = 2048
ROUNDS = 5
PRECISIONS = ("float32", "bfloat16", "int8")

Matrix = NDArray[Any]


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option(
    "--int8-model",
    type=click.Path(path_type=Path),
    help="ONNX file of the same weights in int8.  [default: the one in the package]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    show_default=True,
    help="Of each setting of the network.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(model: Path | None, int8_model: Path | None, seconds: float, as_json: bool) -> int:
    """Count, and measure one large product and the network in each precision."""
    path, _ = find_model(model)
    about = signature.read(path)
    operations = count_operations(about.size, about.filters, len(about.classes))
    found = {"gflop_per_image": operations / 1e9}
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores",
        f"{operations / 1e9:.1f} GFLOP an image (multiplications and additions)",
        "",
        f"| precision | product of {SIDE}x{SIDE}, GFLOP/s | images/s at that rate "
        "| network, images/s | its share |",
        "|---|---|---|---|---|",
    ]
    if int8_model is None and model is None and packaged("int8").exists():
        int8_model = packaged("int8")
    files = {"float32": path, "bfloat16": path, "int8": int8_model}
    for precision in PRECISIONS:
        rate = product(precision)
        if rate is None:
            lines.append(f"| {precision} | this processor has none | | | |")
            continue
        found[precision] = rate / 1e9
        row = f"| {precision} | {rate / 1e9:.0f} | {rate / operations:.1f} "
        file = files[precision]
        if (why := lack(precision, file)) is not None or file is None:
            lines.append(f"{row}| {why} | |")
            continue
        sweep = bare_session.measured(file, PROVIDERS[precision], precision, seconds)
        reached = bare_session.fastest(sweep)["images_per_second"]
        found[f"{precision}_images_per_second"] = reached
        found[f"{precision}_share"] = share = reached * operations / rate
        lines.append(f"{row}| {reached:.2f} | {share:.0%} |")
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def count_operations(size: int, filters: tuple[int, ...], classes: int) -> int:
    """Multiplications and additions of the convolutions for one image.

    A convolution of kernel k from c to d channels does 2 k k c d of them for each pixel of its
    output, a transposed one of stride 2 for each pixel of its input.
    """
    total, channels, side = 0, 3, size
    for block, count in enumerate((2, 2, 3, 3, 3)):
        for _ in range(count):
            total += 2 * 9 * channels * filters[block] * side * side
            channels = filters[block]
        side //= 2
    for outputs in (filters[4], filters[3], filters[2], filters[1]):
        total += 2 * 9 * channels * outputs * side * side
        side *= 2
        total += 2 * 9 * outputs * outputs * side * side
        channels = outputs
    return total + 2 * 9 * channels * classes * side * side


def product(precision: str) -> float | None:
    """Operations a second of one large matrix product, by the quicker of the two libraries.

    None for bfloat16 where the processor has none: it would be computed in something else.
    """
    core = shared_core()
    if precision == "bfloat16" and not has_bfloat16(core):
        return None
    random = np.random.default_rng(0)
    left = random.uniform(0, 8, (SIDE, SIDE)).astype(np.float32)
    right = random.uniform(-4, 4, (SIDE, SIDE)).astype(np.float32)
    ways = [with_openvino(core, precision, left, right)]
    if precision != "bfloat16":
        ways.append(with_onnxruntime(precision, left, right))
    return 2 * SIDE**3 / min(map(median_seconds, ways))


def with_openvino(core: Any, precision: str, left: Matrix, right: Matrix) -> Callable[[], object]:
    """The product as a model of OpenVINO's."""
    import openvino
    from openvino import opset13 as ops

    parameter = ops.parameter([SIDE, SIDE], np.float32)
    a, b = parameter.output(0), ops.constant(right).output(0)
    if precision == "int8":
        # How OpenVINO's quantised models say it: values on a grid, weights on a symmetric one.
        a, b = quantised(ops, a, 0, 8, 256), quantised(ops, b, -4, 4, 255)
    model = openvino.Model([ops.matmul(a, b, False, False).output(0)], [parameter])
    hint = "bf16" if precision == "bfloat16" else "f32"
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    request = core.compile_model(model, "CPU", config).create_infer_request()
    request.infer([left])
    return request.infer


def with_onnxruntime(precision: str, left: Matrix, right: Matrix) -> Callable[[], object]:
    """The product as a model of onnxruntime's CPU provider."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    if precision == "int8":
        left, right = (8 * left).astype(np.uint8), (8 * right).astype(np.int8)
    kind = TensorProto.UINT8 if precision == "int8" else TensorProto.FLOAT
    result = TensorProto.INT32 if precision == "int8" else TensorProto.FLOAT
    operator = "MatMulInteger" if precision == "int8" else "MatMul"
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", kind, [SIDE, SIDE])],
        [helper.make_tensor_value_info("c", result, [SIDE, SIDE])],
        [numpy_helper.from_array(right, "b")],
    )
    opset = helper.make_opsetid("", 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = machine.usable_cores()
    content = model.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": left})


def median_seconds(work: Callable[[], object]) -> float:
    """How long it takes, the median of several rounds after one that does not count."""
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def quantised(ops: Any, value: Any, low: float, high: float, levels: int) -> Any:
    """Values rounded to `levels` steps between two bounds."""
    edges = [ops.constant(np.float32(edge)) for edge in (low, high)]
    return ops.fake_quantize(value, *edges, *edges, levels).output(0)


if __name__ == "__main__":
    main()
