"""How fast petseg-train is, and how much of it is the network: python benchmarks/training.py.

Images a second with frozen and trainable encoder, in float32 and bfloat16: once through the
batches that petseg-train makes (order, augmentation, preprocessing), once with one batch that is
held in memory.  Their ratio is the share of the network's speed that training reaches.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import inputs
import numpy as np

from petseg import imageio, machine, transforms
from petseg.cli.common import OK, exits

BATCH = 8
SAMPLES = 64
POLICIES = ("float32", "mixed_bfloat16")


@click.command(context_settings={"show_default": True})
@click.option("--size", type=click.IntRange(32), default=224, help="Side of the input, pixels.")
@click.option("--steps", type=click.IntRange(1), default=6, help="Of each round.")
@click.option("--repeats", type=click.IntRange(1), default=3, help="Rounds.")
@click.option("--augment/--no-augment", default=True)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(size: int, steps: int, repeats: int, augment: bool, as_json: bool) -> int:
    """Measure training."""
    import keras

    found = []
    samples = draw(size)
    for train_encoder in (False, True):
        for policy in POLICIES:
            keras.config.set_dtype_policy(policy)
            row = measure(samples, size, steps, repeats, train_encoder, augment)
            found.append({"train_encoder": train_encoder, "policy": policy, **row})
            click.echo(f"{found[-1]}", err=True)
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, Keras on "
        f"{keras.backend.backend()}, {size} px, batches of {BATCH}, medians of {repeats} rounds",
        "",
        "| encoder | policy | images/s | of one batch in memory |",
        "|---|---|---|---|",
    ]
    for row in found:
        encoder = "trainable" if row["train_encoder"] else "frozen"
        lines.append(
            f"| {encoder} | {row['policy']} | {row['images_per_second']:.2f} | {row['share']:.1%} |"
        )
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def measure(
    samples: Any, size: int, steps: int, repeats: int, train_encoder: bool, augment: bool
) -> dict[str, float]:
    """Images a second with `steps` steps of petseg-train, and the share of one held batch."""
    import keras

    from petseg.augmentation import Augmentation
    from petseg.batches import TrainingBatches
    from petseg.model import Architecture, build_segmenter

    model = build_segmenter(Architecture(size))
    model.get_layer("encoder").trainable = train_encoder
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-5, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    changes = Augmentation() if augment else None
    made = TrainingBatches(samples, BATCH, size, changes, (0, 0))
    batch = made[0]

    class Limited(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self, held: bool) -> None:
            super().__init__()
            self.held = held

        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            return batch if self.held else made[index % len(made)]

    def seconds(held: bool) -> float:
        started = time.perf_counter()
        model.fit(Limited(held), epochs=1, verbose=0)
        return time.perf_counter() - started

    seconds(held=True)
    pairs = [(seconds(held=False), seconds(held=True)) for _ in range(repeats)]
    return {
        "images_per_second": statistics.median(BATCH * steps / one for one, _ in pairs),
        "share": statistics.median(held / one for one, held in pairs),
    }


def draw(size: int) -> Any:
    """Drawn samples as petseg-train keeps them: decoded, squashed, uint8."""
    from petseg.pixels import Prepared

    images = np.empty((SAMPLES, size, size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs.draw(folder, SAMPLES)
        for number, path in enumerate(sorted(folder.iterdir())):
            images[number] = transforms.to_model(imageio.decode(path.read_bytes()), size)
    # Classes by brightness: nothing is to be learnt here.
    grey = images.mean(axis=-1)
    trimaps = (np.digitize(grey, (90, 150))).astype(np.uint8)
    names = tuple(str(number) for number in range(SAMPLES))
    return Prepared(names, images, trimaps, {})


if __name__ == "__main__":
    main()
