"""Scalars, read by TensorBoard's own reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from petseg.errors import MissingPackageError
from petseg.training import events
from petseg.training.runs import HISTORY_FIELDS


def row(epoch: int, loss: float) -> dict[str, str]:
    return {**dict.fromkeys(HISTORY_FIELDS, "0.25"), "epoch": str(epoch), "loss": str(loss)}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: steps and values by name."""
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    found = EventMultiplexer({"run": str(folder)}).Reload()
    return {
        tag: [(item.step, item.tensor_proto.float_val[0]) for item in found.Tensors("run", tag)]
        for tag in found.Runs()["run"]["tensors"]
    }


def test_tensorboard_reads_the_history(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    written = events.Events(folder, [])
    for epoch, loss in ((1, 0.75), (2, 0.5)):
        written.add(row(epoch, loss))
    # While the run goes on.
    found = scalars(folder)
    assert set(found) == set(HISTORY_FIELDS) - {"epoch"}
    assert found["loss"] == [(1, 0.75), (2, 0.5)]
    assert found["learning_rate"] == [(1, 0.25), (2, 0.25)]
    written.close()


def test_a_run_that_was_cut_off_has_each_epoch_once(tmp_path: Path) -> None:
    first = events.Events(tmp_path, [])
    for epoch in (1, 2):
        first.add(row(epoch, 1.0))
    first.close()
    # The second epoch had no checkpoint, and is trained again.
    second = events.Events(tmp_path, [row(1, 1.0)])
    second.add(row(2, 0.5))
    second.close()
    assert scalars(tmp_path)["loss"] == [(1, 1.0), (2, 0.5)]


def test_tensorflow_is_not_needed(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from petseg.training.events import Events\n"
        "Events(__import__('pathlib').Path(sys.argv[1]), [{'epoch': '3', 'loss': '0.5'}]).close()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert scalars(tmp_path) == {"loss": [(3, 0.5)]}


def test_without_the_package_its_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(
        MissingPackageError, match=r"--tensorboard needs .*: pip install 'petseg\[tensorboard\]'"
    ):
        events.writer_class()
