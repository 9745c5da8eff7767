"""How well a model's own certainty tells which masks are wrong: where `UNCERTAIN_BELOW` is from.

python benchmarks/certainty.py DATA --limit 60

On photos that the model was not trained with, and not on the test list: what is set by these
figures must not be set by what the model is scored on in the end.
"""

from __future__ import annotations

import random
from pathlib import Path

import click
import numpy as np

import petseg
from petseg import runtime
from petseg.classes import values_to_ids
from petseg.data import dataset
from petseg.modelfile import signature
from petseg.photos import transforms

BATCH = 4
LIMITS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--model", type=click.Path(path_type=Path), help="Default: the one in the package.")
@click.option("--limit", type=int, help="Only so many photos, drawn by seed 0.")
def main(data: Path, model: Path | None, limit: int | None) -> None:
    """Compare certainty with errors on the validation part of DATA, in Oxford's layout."""
    model = model or Path(petseg.__file__).parent / "assets" / "petseg.onnx"
    about = signature.read(model)
    names = list(dataset.split_official(data, seed=0).validation)
    random.Random(0).shuffle(names)
    stream = runtime.open_session(model, about, "cpu", batch_size=BATCH).open_stream()
    largest, wrong = [], []
    for first in range(0, len(names[:limit]), BATCH):
        samples = [
            dataset.read_sample(data, name, values_to_ids(about.classes))
            for name in names[:limit][first : first + BATCH]
        ]
        images = np.stack([transforms.to_model(photo, about.size) for photo, _ in samples])
        truth = np.stack([transforms.trimap_to_model(ids, about.size) for _, ids in samples])
        probabilities = stream.run(images)
        largest.append(probabilities.max(axis=1) / 255)
        wrong.append(probabilities.argmax(axis=1) != truth)
    report(np.concatenate(largest), np.concatenate(wrong))


def report(largest: np.ndarray, wrong: np.ndarray) -> None:
    """Print what largest probabilities float (N, S, S) say of wrong pixels bool (N, S, S)."""
    errors = wrong.mean(axis=(1, 2))
    confidence = largest.mean(axis=(1, 2))
    quantiles = ", ".join(f"{value:.2f}" for value in np.quantile(confidence, (0.05, 0.25, 0.5)))
    click.echo(
        f"{len(errors)} photos; confidence: 5 %, 25 %, 50 % lie below {quantiles}; of 0.80, 0.85: "
        f"{(confidence < 0.8).mean():.3f}, {(confidence < 0.85).mean():.3f}\n"
        f"rank correlation with the share of wrong pixels: confidence "
        f"{rank_correlation(-confidence, errors):.2f}\n"
        "below  of all pixels  right in these  rank correlation of the share"
    )
    for limit in LIMITS:
        below = largest < limit
        share = rank_correlation(below.mean(axis=(1, 2)), errors)
        right = 1 - wrong[below].mean()
        click.echo(f"{limit:5}{below.mean():15.3f}{right:16.3f}{share:20.2f}")


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of values without many equal ones."""
    ranks = (values.argsort().argsort() for values in (one, other))
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
