"""Who competes: each contestant's script, and what it is to compute on and in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """A way from photos to masks, or a part of one.

    Attributes:
        script: in `contestants/`.
        ceiling: the contestant that it cannot pass, having the same work to do and more.
        provider: "cpu", "openvino" or "cuda"; None for the one that the bench was given.
        precision: what it is to compute in.
    """

    script: str
    ceiling: str | None = None
    provider: str | None = None
    precision: str = "float32"


CONTESTANTS = {
    "article": Contestant("article", "bare-keras"),
    "keras-bfloat16": Contestant("article", "bare-keras-bfloat16", "cpu", "bfloat16"),
    "pytorch-bfloat16": Contestant("pytorch", None, "cpu", "bfloat16"),
    "plain-onnxruntime": Contestant("plain_onnxruntime", "bare-onnxruntime"),
    "plain-onnxruntime-int8": Contestant(
        "plain_onnxruntime", "bare-onnxruntime-int8", "cpu", "int8"
    ),
    "plain-onnxruntime-tf32": Contestant(
        "plain_onnxruntime", "bare-onnxruntime-tf32", "cuda", "tf32"
    ),
    "plain-onnxruntime-float16": Contestant(
        "plain_onnxruntime", "bare-onnxruntime-float16", "cuda", "float16"
    ),
    "openvino": Contestant("openvino_queue", "bare-openvino", "openvino"),
    "openvino-bfloat16": Contestant(
        "openvino_queue", "bare-openvino-bfloat16", "openvino", "bfloat16"
    ),
    "openvino-int8": Contestant("openvino_queue", "bare-openvino-int8", "openvino", "int8"),
    "petseg-batch": Contestant("petseg_batch", "bare-onnxruntime"),
    "petseg-batch-cpu-int8": Contestant("petseg_batch", "bare-onnxruntime-int8", "cpu", "int8"),
    "petseg-batch-tf32": Contestant("petseg_batch", "bare-onnxruntime-tf32", "cuda", "tf32"),
    "petseg-batch-float16": Contestant(
        "petseg_batch", "bare-onnxruntime-float16", "cuda", "float16"
    ),
    "petseg-batch-openvino": Contestant("petseg_batch", "bare-openvino", "openvino"),
    "petseg-batch-bfloat16": Contestant(
        "petseg_batch", "bare-openvino-bfloat16", "openvino", "bfloat16"
    ),
    "petseg-batch-int8": Contestant("petseg_batch", "bare-openvino-int8", "openvino", "int8"),
    "bare-keras": Contestant("bare_keras"),
    "bare-keras-bfloat16": Contestant("bare_keras", None, "cpu", "bfloat16"),
    "bare-onnxruntime": Contestant("bare_onnxruntime"),
    "bare-onnxruntime-int8": Contestant("bare_onnxruntime", None, "cpu", "int8"),
    "bare-onnxruntime-tf32": Contestant("bare_onnxruntime", None, "cuda", "tf32"),
    "bare-onnxruntime-float16": Contestant("bare_onnxruntime", None, "cuda", "float16"),
    "bare-openvino": Contestant("bare_openvino", None, "openvino"),
    "bare-openvino-bfloat16": Contestant("bare_openvino", None, "openvino", "bfloat16"),
    "bare-openvino-int8": Contestant("bare_openvino", None, "openvino", "int8"),
}


def taking_part(provider: str) -> dict[str, Contestant]:
    """Those of the bench on "cpu" or on "cuda", by name."""
    elsewhere = {"cpu": {"cuda"}, "cuda": {"cpu", "openvino"}}[provider]
    return {name: one for name, one in CONTESTANTS.items() if one.provider not in elsewhere}


BASELINE = "article"
# Whose masks the others' are compared with, where it takes part: float32, on the CPU or on CUDA.
REFERENCE = "petseg-batch"
