"""Training on several devices: two virtual CPUs do what one does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from petseg.errors import PetsegError
from petseg.training import spread

# TensorFlow makes its devices once, before anything else.
TENSORFLOW = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from petseg.cli.train import main
main()
"""
JAX = "from petseg.cli.train import main; main()"
# Ctrl-C, as soon as an epoch is kept.
CUT_OFF = """
from petseg.training.runs import RunFolder
keep_epoch = RunFolder.keep_epoch
def keep_one(self, *arguments):
    keep_epoch(self, *arguments)
    raise KeyboardInterrupt
RunFolder.keep_epoch = keep_one
"""
RECIPE = (
    "--recipe article --encoder-weights none --train-encoder --size 32 --epochs 2 --batch-size 4 "
    "--filters 4,4,8,8,8 --precision float32 --learning-rate 1e-3 --limit 16 --optimizer adamw "
    "--weight-decay 0.01 --clip-norm 0.5 --ema-momentum 0.9"
)


def train(code: str, backend: str, *arguments: str | Path, exit_code: int = 0) -> None:
    flags = "--xla_force_host_platform_device_count=2" if backend == "jax" else ""
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr[-3000:]


def losses(code: str, backend: str, data: Path, out: Path, *options: str) -> list[list[float]]:
    train(code, backend, "--data", data, "--out", out, *RECIPE.split(), *options)
    return history(out)


def history(out: Path) -> list[list[float]]:
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for name in ("loss", "accuracy", "val_loss")] for row in rows]


def two_do_what_one_does(code: str, backend: str, data: Path, folder: Path) -> None:
    one = losses(code, backend, data, folder / "one")
    two = losses(code, backend, data, folder / "two", "--devices", "0,1")
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        # The halves of a batch are added up in another order.
        assert second == pytest.approx(first, rel=1e-4)
    assert one[0][0] > one[1][0]


def a_run_goes_on_with_others(code: str, backend: str, data: Path, folder: Path) -> None:
    """One epoch on one device, one on two, and one on one: what three on one would be."""
    expected = losses(code, backend, data, folder / "whole", "--epochs", "3")
    out = folder / "parts"
    begin = ("--data", data, "--out", out, *RECIPE.split(), "--epochs", "3")
    train(CUT_OFF + code, backend, *begin, exit_code=130)
    again = ("--resume", "--out", out)
    train(CUT_OFF + code, backend, *again, "--devices", "0,1", exit_code=130)
    assert len(history(out)) == 2
    train(code, backend, *again)
    found = history(out)
    assert len(found) == len(expected) == 3
    # The first epoch is the same, and the others are but for rounding.
    assert found[0] == expected[0]
    for first, second in zip(expected, found, strict=True):
        assert second == pytest.approx(first, rel=1e-4)


@pytest.mark.scale
def test_two_devices_do_what_one_does(pets: Path, tmp_path: Path) -> None:
    two_do_what_one_does(TENSORFLOW, "tensorflow", pets, tmp_path)


@pytest.mark.scale
def test_the_long_recipe_goes_to_its_end_on_two_devices(pets: Path, tmp_path: Path) -> None:
    """Its normalisation sees each share by itself, so that its losses are others."""
    small = "--size 32,64 --epochs 1,1 --passes 1 --batch-size 4 --filters 4,4,8,8,8 --limit 16"
    options = ("--recipe", "long", *small.split(), "--precision", "float32", "--devices", "0,1")
    train(TENSORFLOW, "tensorflow", "--data", pets, "--out", tmp_path / "run", *options)
    assert (tmp_path / "run" / "model.keras").exists()
    assert len(history(tmp_path / "run")) == 2


@pytest.mark.scale
def test_a_run_goes_on_with_other_devices(pets: Path, tmp_path: Path) -> None:
    a_run_goes_on_with_others(TENSORFLOW, "tensorflow", pets, tmp_path)


@pytest.mark.jax
def test_a_run_goes_on_with_other_devices_of_jax(pets: Path, tmp_path: Path) -> None:
    a_run_goes_on_with_others(JAX, "jax", pets, tmp_path)


@pytest.mark.jax
def test_two_devices_of_jax_do_what_one_does(pets: Path, tmp_path: Path) -> None:
    two_do_what_one_does(JAX, "jax", pets, tmp_path)


def test_what_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(PetsegError, match=r"--devices names 7, and there are 0 to 0"):
        spread.scope((0, 7))
    with pytest.raises(PetsegError, match="names a device twice"):
        spread.scope((0, 0))
    with pytest.raises(PetsegError, match=r"3 devices cannot share batches of 8 .*--batch-size 9"):
        spread.check(8, 3)
    spread.check(9, 3)
    spread.check(8, 0)
