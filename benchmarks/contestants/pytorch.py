"""The equal network in PyTorch as its users would run it for speed: bfloat16, compiled.

Channels last, torch.compile, batches of 8; a DataLoader's worker processes read the photos, and
the main process writes the masks.  Timed: from before the first photo is read until the last mask
is written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contestant import BATCH, Ready, Task, compete
from PIL import Image

from petseg.classes import ids_to_values
from petseg.modelfile import signature
from petseg.network.weights import read_onnx, to_onnx
from petseg.system.machine import usable_cores

BILINEAR = Image.Resampling.BILINEAR
# Caffe's channel means, BGR, as VGG16 was trained with (keras.applications.imagenet_utils).
MEANS = (103.939, 116.779, 123.68)


class Photos:
    """A map-style data set (torch.utils.data.Dataset) of uint8 pixels and photo sizes."""

    def __init__(self, photos: Sequence[Path], size: int) -> None:
        self.photos, self.size = photos, size

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> tuple[Any, int, int]:
        image = Image.open(self.photos[number]).convert("RGB")
        pixels = np.array(image.resize((self.size, self.size), BILINEAR))
        return pixels, image.height, image.width


def build(layers: dict[str, tuple[Any, Any]]) -> Any:
    """The network from OIHW kernels and biases by layer path, uint8 (N, S, S, 3) to logits."""
    import torch
    from torch import nn
    from torch.nn import functional

    def name(path: str) -> str:
        return path.replace("/", "_")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for path, (kernel, bias) in layers.items():
                self.register_buffer(f"{name(path)}_kernel", torch.from_numpy(kernel.copy()))
                self.register_buffer(f"{name(path)}_bias", torch.from_numpy(bias.copy()))
            self.register_buffer("means", torch.tensor(MEANS).reshape(1, 3, 1, 1))

        def conv(self, x: Any, path: str) -> Any:
            kernel, bias = (getattr(self, f"{name(path)}_{part}") for part in ("kernel", "bias"))
            return functional.relu(functional.conv2d(x, kernel, bias, padding=1))

        def up(self, x: Any, path: str) -> Any:
            # Keras' "same" with stride 2 keeps the first 2H of the 2H + 1 rows.
            kernel, bias = (getattr(self, f"{name(path)}_{part}") for part in ("kernel", "bias"))
            found = functional.conv_transpose2d(x, kernel, bias, stride=2)
            return found[:, :, : 2 * x.shape[2], : 2 * x.shape[3]]

        def forward(self, images: Any) -> Any:
            x = images.permute(0, 3, 1, 2).flip(1).to(self.means.dtype) - self.means
            x = x.contiguous(memory_format=torch.channels_last)
            skips = []
            for block, convolutions in enumerate((2, 2, 3, 3, 3), 1):
                for convolution in range(1, convolutions + 1):
                    x = self.conv(x, f"block{block}_conv{convolution}")
                skips.append(x)
                x = functional.max_pool2d(x, 2)
            for number, skip in enumerate((skips[4], skips[3], skips[2], None), 1):
                x = functional.relu(self.up(x, f"connect_{number}/upsample"))
                x = self.conv(x, f"connect_{number}/refine")
                if skip is not None:
                    x = x + skip
            return self.up(x, "head").float().softmax(dim=1)

    return Network()


def load(task: Task) -> Ready:
    import torch

    about = signature.read(task.model)
    values = ids_to_values(about.classes)
    torch.set_num_threads(usable_cores())
    _, layers = read_onnx(task.model)
    network = build({path: (to_onnx(kernel), bias) for path, (kernel, bias) in layers.items()})
    network = network.to(memory_format=torch.channels_last).eval()
    if task.precision == "bfloat16":
        network = network.bfloat16()
    network = torch.compile(network)

    def work(photos: list[Path], masks: Path) -> float:
        started = time.perf_counter()
        batches = torch.utils.data.DataLoader(
            Photos(photos, about.size),  # type: ignore[arg-type]
            batch_size=BATCH,
            num_workers=1,
        )
        place = 0
        with torch.inference_mode():
            for pixels, heights, widths in batches:
                # The last batch is filled up: another shape would be compiled anew.
                fill = pixels.new_zeros((BATCH - len(pixels), *pixels.shape[1:]))
                scores = network(torch.cat((pixels, fill)))
                planes = torch.round(255 * scores).to(torch.uint8).numpy()
                for one, height, width in zip(planes, heights, widths, strict=False):
                    size = (int(width), int(height))
                    enlarged = Image.fromarray(one.transpose(1, 2, 0)).resize(size, BILINEAR)
                    mask = Image.fromarray(values[np.argmax(enlarged, axis=-1)])
                    mask.save(masks / f"{photos[place].stem}.png", compress_level=1)
                    place += 1
        return time.perf_counter() - started

    return Ready(work, "cpu", task.precision)


if __name__ == "__main__":
    compete(load)
