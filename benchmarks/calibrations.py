"""How far int8's steps should reach: python benchmarks/calibrations.py DATA.

The ways there are of choosing an activation's range from photos, each made into a file and scored
on the validation part of Oxford-IIIT Pet beside the float32 network: what petseg-export does is
chosen by this table, and never by the test list.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from petseg.cli.common import OK, exits
from petseg.cli.quiet import quiet_import
from petseg.data import dataset
from petseg.modelfile.signature import INPUT, MASK
from petseg.planning.config import find_model
from petseg.scoring import evaluation
from petseg.system import machine

Limits = dict[str, float]
Photos = NDArray[np.uint8]

BATCH = 4
# Counting how often each value occurs needs the activations themselves: half a gigabyte a batch.
BINS = 2048
PERCENTILES = (99.9, 99.99, 99.999)


@click.command(context_settings={"show_default": True})
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--model", type=click.Path(path_type=Path), help="[default: as petseg-batch]")
@click.option("--photos", type=click.IntRange(1), default=96, help="Scored, drawn by seed 0.")
@click.option("--calibrated", type=click.IntRange(1), default=32, help="Calibrated on.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(data: Path, model: Path | None, photos: int, calibrated: int, as_json: bool) -> int:
    """Calibrate on trainval.txt, score on the validation part."""
    with quiet_import():
        from petseg_export import calibration, convert, parity, quantize, trained
    path, _ = find_model(model)
    source = trained.load(path)
    size = source.architecture.size
    names = list(dataset.split_official(data, seed=0).validation)
    random.Random(0).shuffle(names)
    pictures = parity.read_pictures(data, size, source.classes, names, photos)
    if pictures.trimaps is None:
        raise click.UsageError(f"{data} has no trimaps to score by")
    images = calibration.read_photos(data, size).images[:calibrated]

    def fresh() -> onnx.ModelProto:
        return convert.convert(source.network, source.architecture, "float32")[0]

    full = masks(fresh(), pictures.images)
    iou = evaluation.scores(
        evaluation.confusion_matrix(pictures.trimaps, full, len(source.classes)), source.classes
    ).mean_iou
    found = {}
    for name, limits in ways(fresh(), images, calibration.activation_limits):
        started = time.perf_counter()
        quantized, _ = quantize.quantize(fresh(), limits())
        seconds = time.perf_counter() - started
        own = masks(quantized, pictures.images)
        matrix = evaluation.confusion_matrix(pictures.trimaps, own, len(source.classes))
        found[name] = {
            "equal_pixels": float((own == full).mean()),
            "mean_iou_points": 100 * (evaluation.scores(matrix, source.classes).mean_iou - iou),
            "seconds": seconds,
        }
    lines = [
        f"{machine.device_name('cpu')}, {path}, calibrated on {len(images)} photos, scored on "
        f"{len(full)}; float32's mIoU is {iou:.4f}",
        "",
        "| range | mask pixels as in float32 | mIoU, points | seconds to make |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {one['equal_pixels']:.3%} | {one['mean_iou_points']:+.3f} "
        f"| {one['seconds']:.0f} |"
        for name, one in found.items()
    ]
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def masks(model: onnx.ModelProto, images: Photos) -> NDArray[np.uint8]:
    """Class ids uint8 (N, S, S)."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = machine.usable_cores()
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [session.run([MASK], {INPUT: images[first : first + BATCH]})[0] for first in starts]
    )


def ways(
    model: onnx.ModelProto,
    images: Photos,
    mean_of_maxima: Callable[[onnx.ModelProto, Photos], Limits],
) -> Iterator[tuple[str, Callable[[], Limits]]]:
    """Each way's name, and what computes its ranges."""
    # onnxruntime's calibrators are told of in its page on quantisation.
    from onnxruntime.quantization import CalibrationMethod

    yield "largest of all (min-max)", lambda: calibrate(model, images, CalibrationMethod.MinMax, {})
    yield "mean of the photos' largest", lambda: mean_of_maxima(model, images)
    for percentile in PERCENTILES:
        options = {"percentile": percentile, "num_bins": BINS}
        yield (
            f"percentile {percentile}",
            lambda options=options: calibrate(model, images, CalibrationMethod.Percentile, options),
        )
    yield (
        "least divergence (entropy)",
        lambda: calibrate(model, images, CalibrationMethod.Entropy, {"num_bins": 128}),
    )


def calibrate(model: onnx.ModelProto, images: Photos, method: object, options: dict) -> Limits:
    """What one of onnxruntime's calibrators finds for the outputs of every ReLU and addition."""
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batch: Photos) -> None:
            self.batches = iter([{INPUT: batch}])

        def get_next(self) -> dict[str, Photos] | None:
            return next(self.batches, None)

    tensors = [node.output[0] for node in model.graph.node if node.op_type in ("Relu", "Add")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx.save(model, file)
        calibrator = create_calibrator(
            file,
            ["Relu", "Add"],
            str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        # A batch at a time: a calibrator keeps what it is given until it has counted it.
        for first in range(0, len(images), BATCH):
            calibrator.collect_data(Reader(images[first : first + BATCH]))
        ranges = calibrator.compute_data().data
    return {name: float(np.max(ranges[name].range_value[1])) for name in tensors}


if __name__ == "__main__":
    main()
