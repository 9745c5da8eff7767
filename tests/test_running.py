"""A run at work: signals, whenever they come, and images that an engine would lose."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batching import batch, invoke, mask_bytes, save_photos, tally
from soak.colours import write_model

from petseg.batch import running
from petseg.batch.run import run_batch
from petseg.engines.local import LocalEngine
from petseg.engines.outcome import Outcome, Work
from petseg.errors import PetsegError
from petseg.masks import reading as masks_module
from petseg.planning.config import BatchConfig

COUNT = 6
SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("running") / "colours.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    save_photos(tmp_path / "images", COUNT)
    return tmp_path / "images"


def stats_of(masks: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((masks / "petseg" / "stats.json").read_text())
    return found


def signals_while_masks_are_read(
    monkeypatch: pytest.MonkeyPatch, *numbers: signal.Signals
) -> Callable[[], int]:
    """These come while tables look at the third mask; returns how many masks were looked at."""
    real, seen = masks_module.read_all, 0

    def read_all(*arguments: Any) -> Iterator[Any]:
        nonlocal seen
        for mask in real(*arguments):
            seen += 1
            if seen == 3:
                for number in numbers:
                    signal.raise_signal(number)
            yield mask

    monkeypatch.setattr(masks_module, "read_all", read_all)
    return lambda: seen


TABLES = ("--format", "coco", "--format", "parquet", "--review-below", "1")
FILES = ("coco/coco.json", "parquet/masks.parquet", "review.txt")


@SIGNALS
def test_a_signal_while_tables_are_made(
    number: signal.Signals,
    code: int,
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = tmp_path / "masks"
    options = ("--model", model, "--json", *TABLES)
    assert invoke(images, masks, *options, "--limit", "3").code == 0
    before = {name: (masks / "petseg" / name).read_bytes() for name in FILES}
    seen = signals_while_masks_are_read(monkeypatch, number)
    found = invoke(images, masks, *options)
    assert found.code == code
    assert seen() == 3, "it looked at all masks first"
    assert found.stats["stopped"] == number.name
    assert (stats_of(masks)["stopped"], stats_of(masks)["exit_code"]) == (number.name, code)
    assert found.counts | {"done": COUNT - 3, "skipped": 3, "left": 0} == found.counts
    note = "tables and lists of all masks are made when a run ends well"
    assert note in found.stats["notes"]
    # Whole, or as it was.
    assert {name: (masks / "petseg" / name).read_bytes() for name in FILES} == before
    assert [path.name for path in (masks / "petseg").glob("*tmp-*")] == []
    monkeypatch.undo()
    assert invoke(images, masks, *options).code == 0
    for name in FILES:
        assert (masks / "petseg" / name).read_bytes() != before[name]


@SIGNALS
def test_a_signal_that_is_ignored_ends_no_run(
    number: signal.Signals,
    code: int,
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As shells have SIGINT for programs in the background, and nohup its own."""
    seen = signals_while_masks_are_read(monkeypatch, number)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        found = invoke(images, tmp_path / "masks", "--model", model, "--json", *TABLES)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert (found.code, found.stats["stopped"], seen()) == (0, None, COUNT)


@SIGNALS
def test_a_second_signal_while_tables_are_made(
    number: signal.Signals,
    code: int,
    images: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks = tmp_path / "masks"
    signals_while_masks_are_read(monkeypatch, number, number)
    found = invoke(images, masks, "--model", model, *TABLES)
    assert found.code == code
    assert "Traceback" not in found.err
    assert (stats_of(masks)["stopped"], stats_of(masks)["exit_code"]) == (number.name, code)
    assert not (masks / "petseg" / "coco").exists()
    assert len(mask_bytes(masks)) == COUNT
    # They are others' again.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@SIGNALS
def test_what_failed_before_a_signal_is_listed(
    number: signal.Signals, code: int, images: Path, model: Path, tmp_path: Path
) -> None:
    (images / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    masks = tmp_path / "masks"
    failed: list[str] = []

    class Progress:
        def begin(self, todo: int, provider: str, skipped: int, failed: int) -> None:
            assert todo == COUNT

        def count(self, outcome: Outcome) -> None:
            if outcome.status == "failed":
                failed.append(outcome.work.name)
                signal.raise_signal(number)

        def tick(self) -> None:
            pass

    config = BatchConfig(
        images=str(images),
        masks=masks,
        model=model,
        provider="cpu",
        workers=1,
        batch_size=1,
        report=False,
    )
    report = run_batch(config, lambda line: None, Progress())
    assert failed == ["000.png"]
    assert report.exit_code == code
    assert stats_of(masks)["counts"]["failed"] == 1
    assert sum(tally(report)) == COUNT
    listed = (masks / "petseg" / "failures.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in listed] == ["file", "000.png"]


class Lossy(LocalEngine):
    """An engine that loses an image."""

    def run(self, todo: Iterator[Work | None], *others: Any) -> None:
        next(todo)
        super().run(todo, *others)


def test_an_image_without_an_outcome_is_no_image_that_is_left(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LocalEngine", Lossy)
    words = f"expected an outcome for each of {COUNT} images, found {COUNT - 1}: a fault of petseg"
    with pytest.raises(PetsegError, match=words):
        batch(images, tmp_path / "masks", model)
    found = stats_of(tmp_path / "masks")
    assert (found["stopped"], found["exit_code"]) == ("error", 1)
    assert (found["counts"]["done"], found["counts"]["left"]) == (COUNT - 1, 1)
    monkeypatch.undo()
    assert tally(batch(images, tmp_path / "masks", model)) == (1, COUNT - 1, 0, 0, 0)
