"""How fast petseg-train is, and how much of it is the network: python benchmarks/training.py.

Images a second with frozen and trainable encoder, in float32 and bfloat16, each by the recipe that
has it so: once through the batches that petseg-train makes (order, augmentation, preprocessing, by
as many threads), once with one batch that is held in memory.  Their ratio is the share of the
network's speed that training reaches.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import inputs
import numpy as np

from petseg.cli.common import OK, exits
from petseg.photos import imageio, transforms
from petseg.system import machine
from petseg.training.recipes import ARTICLE, SCRATCH, Stage, TrainConfig

if TYPE_CHECKING:
    from petseg.data.pixels import Prepared

SAMPLES = 64
RECIPES = {recipe.recipe: recipe for recipe in (ARTICLE, SCRATCH)}
POLICIES = ("float32", "mixed_bfloat16")


@click.command(context_settings={"show_default": True})
@click.option("--size", type=click.IntRange(32), default=224, help="Side of the input, pixels.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=60,
    help="Of each round; what an epoch's begin and end cost is not to be seen.",
)
@click.option("--repeats", type=click.IntRange(1), default=3, help="Rounds.")
@click.option(
    "--recipe", "names", type=click.Choice(tuple(RECIPES)), multiple=True, default=tuple(RECIPES)
)
@click.option("--policy", "policies", type=click.Choice(POLICIES), multiple=True, default=POLICIES)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, the table on stderr.")
@exits
def main(
    size: int,
    steps: int,
    repeats: int,
    names: tuple[str, ...],
    policies: tuple[str, ...],
    as_json: bool,
) -> int:
    """Measure training."""
    import keras

    found = []
    samples = draw(size, SAMPLES)
    for recipe in (RECIPES[name] for name in names):
        for policy in policies:
            stage = Stage(size, epochs=1, learning_rate=recipe.stages[0].learning_rate)
            config = replace(recipe, stages=(stage,), precision=policy, encoder_weights="none")
            row = measure(samples, config, steps, repeats)
            found.append(
                {
                    "recipe": recipe.recipe,
                    "train_encoder": recipe.train_encoder,
                    "policy": policy,
                    **row,
                }
            )
            click.echo(f"{found[-1]}", err=True)
    lines = [
        f"{machine.device_name('cpu')}, {machine.usable_cores()} cores, Keras on "
        f"{keras.backend.backend()}, {size} px, batches of {ARTICLE.batch_size}, "
        f"medians of {repeats} rounds of {steps} steps",
        "",
        "| encoder | policy | images/s | of one batch in memory |",
        "|---|---|---|---|",
    ]
    for row in found:
        encoder = "trainable" if row["train_encoder"] else "frozen"
        lines.append(
            f"| {encoder} ({row['recipe']}) | {row['policy']} | {row['images_per_second']:.2f} "
            f"| {row['share']:.1%} |"
        )
    click.echo("\n".join(lines), err=as_json)
    if as_json:
        click.echo(json.dumps(found))
    return OK


def measure(samples: Prepared, config: TrainConfig, steps: int, repeats: int) -> dict[str, float]:
    """Images a second with `steps` steps of petseg-train, and the share of one held batch.

    Args:
        samples: to train with.
        config: of one stage.
        steps: of each round.
        repeats: rounds, each of which begins with the other one.
    """
    import keras

    from petseg.data.batches import TrainingBatches
    from petseg.training import learner

    (stage,) = config.stages
    batch_size = config.batch_size_of(stage)
    asked = (samples, batch_size, stage.size, config.augmentation_of(stage), (config.seed, 0))
    passes = -(-steps * batch_size // len(samples.names))
    batch = TrainingBatches(*asked)[0]

    # What petseg-train feeds its network with, so that threads and queue are the same, too.
    class Made(TrainingBatches):
        def __len__(self) -> int:
            return steps

    class Held(Made):
        def __getitem__(self, index: int) -> Any:
            return batch

    class First(Held):
        def __len__(self) -> int:
            return 1

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        """From the begin of an epoch to the end of its last step.

        Not what `fit` itself begins and ends with: two batches for their shapes, and a wait for the
        queue.  An epoch of hundreds of steps does not notice them.
        """

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, step: int, logs: Any = None) -> None:
            self.seconds = time.perf_counter() - self.began

    with learner.policy(config.precision):
        model = learner.build_learner(config, stage.size, breeds=0)
    learner.start(model, config, stage.size, batch[0])
    learner.compile_learner(model, config, stage, 2 * repeats * steps + 1)

    def seconds(kind: type[Made]) -> float:
        clock = Clock()
        model.fit(kind(*asked, passes), shuffle=False, verbose=0, callbacks=[clock])
        return clock.seconds

    # The first step traces the network.
    seconds(First)
    pairs = []
    for number in range(repeats):
        order = (Made, Held) if number % 2 else (Held, Made)
        taken = {kind: seconds(kind) for kind in order}
        pairs.append((taken[Made], taken[Held]))
    return {
        "images_per_second": statistics.median(batch_size * steps / made for made, _ in pairs),
        "share": statistics.median(held / made for made, held in pairs),
    }


def draw(size: int, count: int) -> Prepared:
    """Drawn samples as petseg-train keeps them: decoded, squashed, uint8."""
    from petseg.data.pixels import Prepared

    images = np.empty((count, size, size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs.draw(folder, count)
        for number, path in enumerate(sorted(folder.iterdir())):
            images[number] = transforms.to_model(imageio.decode(path.read_bytes()), size)
    # Classes by brightness: nothing is to be learnt here.
    grey = images.mean(axis=-1)
    trimaps = (np.digitize(grey, (90, 150))).astype(np.uint8)
    names = tuple(str(number) for number in range(count))
    return Prepared(names, images, trimaps, {})


if __name__ == "__main__":
    main()
