"""How far a training run is, in a terminal and in a log."""

from __future__ import annotations

import io
import re

import pytest

from petseg.training.progress import TrainingProgress
from petseg.training.recipes import Stage

STEPS, BATCH = 100, 8


class Screen(io.StringIO):
    """A stream that is, or is not, a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Run:
    """Two epochs at 128 px and two at 256 px, four times as slow, whose clock the test turns."""

    def __init__(self, terminal: bool = False) -> None:
        self.now = 1000.0
        self.screen = Screen(terminal)
        stages = (Stage(128, 2, 1e-3), Stage(256, 2, 1e-4))
        self.progress = TrainingProgress(stages, self.screen, lambda: self.now)

    def go(self, epoch: int, seconds: float, validation: float = 0.0, first: float = 0.0) -> None:
        """An epoch whose steps take so long each; before the first and after the last more."""
        self.now += first
        with self.progress.epoch(epoch, STEPS, BATCH):
            for step in range(STEPS):
                self.now += seconds
                self.progress.step(step, {"loss": 1 / (epoch + 1), "head_accuracy": 0.5})
        self.now += validation

    @property
    def lines(self) -> list[str]:
        return self.screen.getvalue().splitlines()


def test_a_log_gets_a_line_every_30_seconds() -> None:
    run = Run()
    run.go(0, seconds=1)
    # Of 10 epochs' work by the pixels, what is left of the first is 70, 40 and 10 %.
    assert run.lines == [
        "epoch 1/4, step 30 of 100, loss 1.0000, accuracy 0.5000, 8.0 images/s, 16:10 left",
        "epoch 1/4, step 60 of 100, loss 1.0000, accuracy 0.5000, 8.0 images/s, 15:40 left",
        "epoch 1/4, step 90 of 100, loss 1.0000, accuracy 0.5000, 8.0 images/s, 15:10 left",
    ]
    run.go(1, seconds=1)
    assert run.lines[3].startswith("epoch 2/4, step 20 of 100, loss 0.5000, ")
    run.go(2, seconds=4)
    run.go(3, seconds=4)
    # At the last two epochs' pace a line is due every eighth step.
    assert len(run.lines) == 6 + 800 // 32
    assert run.lines[-1].startswith("epoch 4/4, step 95 of 100, loss 0.2500, ")
    assert run.lines[-1].endswith(", 2.0 images/s, 00:20 left")


def test_validation_is_time_too_and_compiling_is_no_pace() -> None:
    run = Run()
    run.go(0, seconds=1, validation=25, first=60)
    run.go(1, seconds=1)
    # The first line is due before anything can be told of the pace.
    assert run.lines[0].startswith("epoch 1/4, step 1 of 100, ")
    assert run.lines[0].endswith(", ? images/s, ? left")
    # 99 steps, 25 s, and a step: a tenth of all work took 125 s.
    line = next(line for line in run.lines if line.startswith("epoch 2/4, step 1 "))
    left = round((1000 - 101) * 125 / 100)
    assert line.endswith(f", {left // 60}:{left % 60:02} left")


def test_a_resumed_run_has_the_pace_of_its_own_process() -> None:
    run = Run()
    run.go(3, seconds=1)
    left = [line.split(", ")[-1] for line in run.lines]
    assert left == ["01:10 left", "00:40 left", "00:10 left"]


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run = Run(terminal=True)
    run.go(0, seconds=1)
    shown = run.screen.getvalue()
    assert "epoch 1/4:" in shown
    assert "\n" not in shown
    assert re.search(r"\d+/800 ", shown)
