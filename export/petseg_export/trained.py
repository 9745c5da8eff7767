"""What can be exported: a finished run, a .keras file or a petseg ONNX file, read into one form."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from petseg.classes import PET_CLASSES, SegmentClass
from petseg.data.dataset import hash_names
from petseg.errors import ModelError, first_line
from petseg.network import weight_files, weights
from petseg.network.model import VGG16_DEPTHS, Architecture, build_segmenter
from petseg.photos.imageio import DECODER
from petseg.photos.transforms import RESIZE_FILTER
from petseg.training.runs import RunFolder

# What may differ between two networks that compute the same in float32.
_NOT_COMPARED = {"dtype", "trainable", "kernel_initializer", "bias_initializer"}


@dataclass(frozen=True)
class Trained:
    """A trained network and what is known of its training.

    Attributes:
        network: from `model.build_segmenter`, all of it in float32.
        architecture: what it was built from.
        classes: in the order of their ids.
        recipe, split_hash, metrics, resize_filter, decoder: as in `signature.Signature`; empty
            where nothing is known.
        validation: the names of the photos it was validated on; empty where they are not known.
    """

    network: keras.Model
    architecture: Architecture
    classes: tuple[SegmentClass, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    split_hash: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    resize_filter: str = RESIZE_FILTER
    decoder: str = DECODER
    validation: tuple[str, ...] = ()


def newest_run(runs: Path) -> Path:
    """The run folder below `runs` that was finished last.

    Raises:
        ModelError: there is no finished run.
    """
    folders = [RunFolder(path) for path in runs.glob("*/")]
    finished = [folder for folder in folders if folder.metrics_file.exists()]
    if not finished:
        raise ModelError(
            f"there is no finished run in {runs.resolve()}: train one with petseg-train, or name "
            "a run, a .keras or an .onnx file with --from"
        )
    return max(finished, key=lambda folder: folder.metrics_file.stat().st_mtime_ns).path


def load(source: Path) -> Trained:
    """Read a run folder, a .keras file or an .onnx file that petseg-export wrote.

    Raises:
        ModelError: none of these, damaged, unfinished, or a model that is not petseg's network.
        DatasetError: the run's configuration or split is damaged.
    """
    if source.is_dir():
        return _load_run(RunFolder(source))
    if not source.exists():
        raise ModelError(f"there is no model {source}")
    if source.suffix == ".onnx":
        return _load_onnx(source)
    if source.suffix == ".keras":
        return _load_keras(source)
    raise ModelError(f"expected a run folder, a .keras or an .onnx file, found {source}")


def _load_run(folder: RunFolder) -> Trained:
    if not folder.metrics_file.exists():
        raise ModelError(
            f"{folder.path} is not a finished run: it has no {folder.metrics_file.name}; finish "
            "it with petseg-train --resume, or name a .keras file"
        )
    config, split = folder.config(), folder.split()
    try:
        metrics = json.loads(folder.metrics_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {folder.metrics_file}: {error}") from error
    network, architecture = _rebuild(folder.model_file)
    if architecture.classes != len(config.classes):
        raise ModelError(
            f"{folder.model_file} tells {architecture.classes} classes apart, "
            f"{folder.config_file} names {len(config.classes)}"
        )
    recipe = config.to_json()
    # Where files lay on the machine of the run is nobody else's business.
    for key in ("encoder_weights", "init"):
        recipe[key] = recipe[key] and Path(recipe[key]).name
    metrics.pop("broken", None)
    split_hash = {part: hash_names(names) for part, names in asdict(split).items()}
    return Trained(
        network,
        architecture,
        config.classes,
        recipe,
        split_hash,
        metrics,
        validation=split.validation,
    )


def _load_keras(path: Path) -> Trained:
    network, architecture = _rebuild(path)
    if architecture.classes != len(PET_CLASSES):
        raise ModelError(
            f"{path} tells {architecture.classes} classes apart and does not name them; export "
            "the run folder it comes from"
        )
    return Trained(network, architecture, PET_CLASSES)


def _load_onnx(path: Path) -> Trained:
    about, arrays = weights.read_onnx(path)
    architecture = Architecture(about.size, len(about.classes), about.filters)
    network = build_float32(architecture)
    weights.assign(network, arrays, path)
    return Trained(
        network,
        architecture,
        about.classes,
        about.recipe,
        about.split_hash,
        about.metrics,
        about.resize_filter,
        about.decoder,
    )


def _rebuild(path: Path) -> tuple[keras.Model, Architecture]:
    """A .keras file's network in float32, whatever policy it was trained under."""
    try:
        stored = keras.models.load_model(path, compile=False)
    except weight_files.LOAD_ERRORS as error:
        raise ModelError(
            f"{path} is not a Keras model that petseg can load: {first_line(error)}"
        ) from error
    architecture = _architecture(stored, path)
    network = build_float32(architecture)
    if _outline(stored.get_config()) != _outline(network.get_config()):
        raise ModelError(_not_a_segmenter(path, "its layers or connections differ"))
    network.set_weights(stored.get_weights())
    return network, architecture


def _architecture(stored: keras.Model, path: Path) -> Architecture:
    try:
        encoder = stored.get_layer("encoder")
        _, height, width, _ = stored.input_shape
        if height != width:
            raise ValueError(f"its input is {width}x{height}")
        one, two, three, four, five = (
            encoder.get_layer(f"block{block}_conv1").filters
            for block in range(1, len(VGG16_DEPTHS) + 1)
        )
        return Architecture(height, stored.output_shape[-1], (one, two, three, four, five))
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(_not_a_segmenter(path, str(error))) from error


def _not_a_segmenter(path: Path, reason: str) -> str:
    return f"{path} is not a petseg segmenter: {reason}; petseg-export takes what petseg-train made"


def build_float32(architecture: Architecture, activation: str = "softmax") -> keras.Model:
    """`build_segmenter` under the policy float32, whatever the process has set."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        return build_segmenter(architecture, activation=activation)
    finally:
        keras.config.set_dtype_policy(before)


def _outline(config: Any) -> Any:
    """A model's configuration without what does not change what it computes in float32."""
    if isinstance(config, dict):
        return {key: _outline(value) for key, value in config.items() if key not in _NOT_COMPARED}
    if isinstance(config, list | tuple):
        return [_outline(value) for value in config]
    return config
