"""One line that is right, in a terminal and in a log."""

from __future__ import annotations

import io

import pytest

from petseg.cli.progress import BatchProgress
from petseg.engines.outcome import Outcome, Work


class Screen(io.StringIO):
    """A stream that is, or is not, a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class Run:
    """A run whose clock the test turns."""

    def __init__(
        self,
        todo: int,
        terminal: bool = False,
        quiet: bool = False,
        skipped: int = 0,
        failed: int = 0,
    ) -> None:
        self.now = 1000.0
        self.screen = Screen(terminal)
        self.progress = BatchProgress(quiet, self.screen, lambda: self.now)
        self.progress.begin(todo, "cpu", skipped, failed)

    def go(self, seconds: float, rate: float, failing: float = 0.0) -> None:
        """Settle `rate` images a second, of which a share fails, ticking five times a second."""
        due = 0.0
        for _ in range(round(seconds * 5)):
            self.now += 0.2
            due += rate / 5
            while due >= 1 - 1e-9:
                due -= 1
                bad = (self.progress.settled + 1) * failing % 1 < failing
                outcome = Outcome(Work("/x.jpg", "x.jpg", "x.png"), "failed" if bad else "done")
                self.progress.count(outcome)
            self.progress.tick()

    @property
    def lines(self) -> list[str]:
        return self.screen.getvalue().splitlines()


def test_a_log_gets_a_line_every_30_seconds() -> None:
    run = Run(1000)
    run.go(95, rate=5)
    assert run.lines == [
        "150 done, 0 failed of 1000, 5.0 images/s now, 5.0 overall, 02:50 left, cpu",
        "300 done, 0 failed of 1000, 5.0 images/s now, 5.0 overall, 02:20 left, cpu",
        "450 done, 0 failed of 1000, 5.0 images/s now, 5.0 overall, 01:50 left, cpu",
    ]
    run.progress.close()
    assert len(run.lines) == 3


def test_now_and_overall_and_the_time_that_follows_from_now() -> None:
    run = Run(2000)
    run.go(60, rate=2)
    run.go(60, rate=10)
    now, overall = 10.0, 720 / 120
    assert run.progress.line() == (
        f"720 done, 0 failed of 2000, {now:.1f} images/s now, {overall:.1f} overall, "
        "02:08 left, cpu"
    )
    # A run that hangs says so, at once and then entirely.
    run.go(15, rate=0)
    assert "5." in run.progress.line().split(",")[2]
    run.go(20, rate=0)
    assert "0.0 images/s now" in run.lines[-1]
    assert "? left" in run.lines[-1]


def test_failures_are_counted_and_named() -> None:
    run = Run(100)
    run.go(31, rate=1, failing=0.1)
    assert sum(line.startswith("failed: x.jpg: ") for line in run.lines) == 3
    assert any(line.startswith("27 done, 3 failed of 100, 1.0 images/s") for line in run.lines)


def test_what_was_there_is_no_mask_that_was_made() -> None:
    """A format added to masks that are there, and masks that people drew while the run went on."""
    run = Run(4)
    for status in ("derived", "kept", "derived", "done"):
        run.now += 1
        run.progress.count(Outcome(Work("/x.jpg", "x.jpg", "x.png"), status))
    assert run.progress.line() == (
        "1 done, 3 skipped, 0 failed of 4, 1.0 images/s now, 1.0 overall, 00:00 left, cpu"
    )


def test_what_the_plan_settled_counts_but_for_the_rates() -> None:
    run = Run(100, skipped=1000, failed=2)
    run.go(10, rate=5)
    assert run.progress.line() == (
        "50 done, 1000 skipped, 2 failed of 1102, 5.0 images/s now, 5.0 overall, 00:10 left, cpu"
    )


def test_before_anything_is_settled() -> None:
    run = Run(100)
    assert run.progress.line() == (
        "0 done, 0 failed of 100, 0.0 images/s now, 0.0 overall, ? left, cpu"
    )


def test_without_a_network_there_is_no_provider() -> None:
    run = Run(3)
    run.progress.provider = ""
    assert run.progress.line().endswith("? left")


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_is_silent(terminal: bool) -> None:
    run = Run(100, terminal, quiet=True)
    run.go(65, rate=1, failing=0.5)
    run.progress.say("something")
    run.progress.close()
    assert run.screen.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run = Run(100, terminal=True)
    run.go(10, rate=5, failing=0.5)
    run.progress.say("a line above the bar")
    run.progress.close()
    last = run.screen.getvalue().rstrip("\n").split("\r")[-1]
    assert "25 done, 25 failed of 100, 5.0 images/s now, 5.0 overall, 00:10 left, cpu |" in last
    assert last.rstrip().endswith("50%")
    assert "\na line above the bar" in run.screen.getvalue().replace("\r", "\n")


def test_names_that_are_no_text_do_not_reach_the_terminal() -> None:
    run = Run(2)
    name = "\x1b[31m\udcff.jpg"
    run.progress.count(Outcome(Work("/x", name, "x.png"), "failed", "why"))
    assert run.lines == ["failed: \\x1b[31m\\udcff.jpg: why"]
