"""The report of a training run: what it says, and how a browser shows it."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Browser, content, folded_up, media
from click.testing import CliRunner

from petseg.classes import PET_CLASSES
from petseg.cli.report import main
from petseg.data.dataset import Split, hash_names
from petseg.scoring import breeds, evaluation
from petseg.training import strips
from petseg.training.recipes import LONG, Stage, TrainConfig
from petseg.training.runs import Row, RunFolder

EPOCHS = 8
CONFIG = replace(LONG, stages=(Stage(128, 6, 1e-3), Stage(224, 2, 2e-4, 8, 0.6)))
ELEMENT = "<script>document.title = 'run'</script>_1"
SPLIT = Split(tuple(f"pug_{n}" for n in range(30)), ("birman_1", "birman_2", "pug_99", ELEMENT))
# Shares of 0.8, 0.15, 0.05; and so on.
CONFUSION = np.array([[800, 150, 50], [100, 2900, 0], [25, 25, 50]])


def history(epochs: int) -> list[Row]:
    values = [
        {
            "epoch": epoch,
            "size": 128 if epoch <= 6 else 224,
            "learning_rate": 1e-3 / epoch,
            "loss": 1.2 / epoch,
            "accuracy": 1 - 0.4 / epoch,
            "val_loss": 0.1 + 0.9 / epoch,
            "val_accuracy": 0.9 - 0.3 / epoch,
            # Best after the fifth.
            "val_mean_iou": 0.7 - 0.02 * abs(epoch - 5),
            "seconds": 90.0,
            "images_per_second": 33.3,
        }
        for epoch in range(1, epochs + 1)
    ]
    return [{name: str(value) for name, value in row.items()} for row in values]


def make_run(path: Path, epochs: int, config: TrainConfig = CONFIG) -> RunFolder:
    """A run folder as training leaves it after so many epochs, but for the network."""
    run = RunFolder(path)
    run.begin(config, SPLIT, path.parent / "pets & co")
    y, x = np.mgrid[: strips.SIDE, : strips.SIDE]
    distance = np.hypot(y - 80, x - 80)
    truth = np.stack([np.select([distance < r, distance < r + 6], [0, 2], 1) for r in (30, 50, 60)])
    images = np.array([item.color for item in PET_CLASSES], np.uint8)[truth] // 2 + 60
    for epoch in range(1, epochs + 1):
        strips.write_samples(run.pictures, images, truth.astype(np.uint8), PET_CLASSES)
        predicted = np.roll(truth, 8 * (EPOCHS - epoch), axis=2).astype(np.uint8)
        strips.write_epoch(run.pictures, epoch, predicted, PET_CLASSES)
        run.keep_epoch(epoch, history(epoch), lambda path: path.touch())
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run, with its report."""
    run = make_run(tmp_path_factory.mktemp("runs") / "one run", EPOCHS)
    parts = [CONFUSION * factor for factor in (5, 3, 2)]
    parts[2] = parts[2][:, [0, 2, 1]]
    breeds.write(
        run.breeds_file, breeds.score(np.stack(parts), ["pug", "birman", ELEMENT], PET_CLASSES)
    )
    metrics = {
        "part": "validation",
        "images": 3,
        "size": 224,
        "precision": "mixed_bfloat16",
        "confusion": CONFUSION.tolist(),
        "broken": {ELEMENT: "the file is empty"},
    }
    run.keep_metrics(metrics)
    run.finish()
    assert report(run.path) == (0, f"{run.path / 'report.html'}\n", "")
    return run


def report(*arguments: str | Path) -> tuple[int, str, str]:
    """`petseg report` in this process."""
    found = CliRunner().invoke(main, [*map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


def test_a_finished_run_tells_all(run: RunFolder) -> None:
    text = content(run.path / "report.html")
    scores = evaluation.scores(CONFUSION, PET_CLASSES)
    for share in (scores.pixel_accuracy, scores.mean_iou, scores.foreground_iou):
        assert f"<dd>{100 * share:.1f} %</dd>" in text
    for words in (
        "finished.",
        "8 of 8",
        "12 min 00 s",
        f"<dd>{hash_names(SPLIT.train)}</dd>",
        "<dd>30 images</dd>",
        "pets &amp; co",
        "at 224x224 pixels in mixed_bfloat16",
        "Mean IoU highest after epoch 5, 0.7000",
        "the file is empty",
        f"petseg-export model.onnx --from &#39;{run.path}&#39;",
    ):
        assert words in text, words
    assert "<script>document" not in text
    shares = [[float(share) for share in re.findall(r"--share:([\d.]+)", text)][:3]]
    np.testing.assert_allclose(shares, [[0.8, 0.15, 0.05]])


def test_nothing_is_loaded_from_anywhere(run: RunFolder) -> None:
    text = content(run.path / "report.html")
    assert set(re.findall(r'(?:src|href)="([^"#]{1,5})', text)) == {"data:"}
    assert not re.search(r"url\([^#]|@import|//(?!www\.w3\.org/)", text)


def test_as_far_as_a_run_has_come(tmp_path: Path) -> None:
    run = make_run(tmp_path / "new", 0)
    assert report(run.path)[0] == 0
    text = content(run.path / "report.html")
    assert "0 of 8 epochs are done" in text
    assert "No epoch has ended yet." in text
    assert "petseg-train --resume --out" in text
    run = make_run(tmp_path / "going", 3, replace(CONFIG, augmentation=None, limit=30))
    code, out, _ = report(run.path, "--out", tmp_path / "other.html")
    assert (code, out) == (0, f"{tmp_path / 'other.html'}\n")
    text = content(tmp_path / "other.html")
    assert "3 of 8 epochs are done" in text
    assert "<dd>80.0 %</dd>" in text
    assert "predicted masks after epoch 3" in text
    assert 'id="classes"' not in text
    assert 'id="breeds"' not in text


def test_a_run_of_an_older_version(tmp_path: Path, run: RunFolder) -> None:
    """It has neither breeds nor the pictures of each epoch."""
    shutil.copytree(run.path, tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "predictions")
    (tmp_path / "old" / "breeds.csv").unlink()
    assert report(tmp_path / "old")[0] == 0
    text = content(tmp_path / "old" / "report.html")
    assert 'id="classes"' in text
    assert 'id="breeds"' not in text
    assert "<img" not in text


def test_what_cannot_be_reported_on(tmp_path: Path, run: RunFolder) -> None:
    assert report(run.path, "--images", tmp_path)[0] == 2
    assert "leave out --images, --stats and --classes" in report(run.path, "--images", tmp_path)[2]
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "predictions" / strips.PHOTOS).unlink()
    code, _, err = report(tmp_path / "run")
    assert (code, "cannot read" in err, strips.PHOTOS in err) == (1, True, True)
    for broken in ({"confusion": [[1]]}, {"images": 2}):
        metrics = json.loads((run.path / "metrics.json").read_text())
        if "confusion" in broken:
            metrics |= broken
        else:
            del metrics["images"]
        (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
        code, _, err = report(tmp_path / "run")
        assert (code, "does not hold the metrics of a run" in err) == (1, True)
    (tmp_path / "file").touch()
    code, _, err = report(run.path, "--out", tmp_path / "file" / "report.html")
    assert (code, "cannot write" in err) == (1, True)


def table(driver: Any, anchor: str) -> list[list[str]]:
    """The text of the rows of a section's last table."""
    rows = driver.find_elements("css selector", f"section[aria-labelledby={anchor}] tbody tr")
    return [[cell.text for cell in row.find_elements("xpath", "./*")] for row in rows]


def test_what_a_browser_reads(run: RunFolder, browser: Browser) -> None:
    driver = browser(run.path / "report.html")
    media(driver)
    assert driver.title == "petseg: one run"
    text = driver.find_element("tag name", "body").text
    for words in (ELEMENT, "Learning rate", "accuracy, validation", "true mask", "epoch 8"):
        assert words in text, words
    rows = table(driver, "classes")
    assert rows[4][:4] == ["pet", "80.0 %", "15.0 %", "5.0 %"]
    assert rows[4][4] == "1,000"
    figures = [row[0] for row in table(driver, "breeds")]
    assert figures == [ELEMENT, "birman", "pug"]
    # The more of a class, the stronger its cell; the text stays legible.
    cells = driver.find_elements("css selector", ".matrix tbody tr:first-child .share")
    colors = [cell.value_of_css_property("background-color") for cell in cells]
    assert len(set(colors)) == 3
    # Every picture is there and has its name; nothing was asked of a network; nothing failed.
    script = "return [...document.images].map(image => image.naturalWidth > 0 && image.alt)"
    names = driver.execute_script(script)
    assert len(names) == 2 + 6
    assert all(names)
    assert names[-1] == "predicted masks after epoch 8"
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert [name for name in driver.execute_script(script) if not name.startswith("data:")] == []
    assert driver.get_log("browser") == []
    charts = driver.find_elements("css selector", "svg.chart")
    assert [chart.accessible_name for chart in charts] == [
        "chart: Cross-entropy, nats per pixel",
        "chart: Accuracy and mean IoU",
        "chart: Learning rate",
    ]
    levels = driver.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map(head => +head.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_every_epoch_is_a_click_away(run: RunFolder, browser: Browser) -> None:
    driver = browser(run.path / "report.html")
    media(driver)
    link = driver.find_element("link text", "Breeds")
    link.click()
    assert driver.current_url.endswith("#breeds")
    summary = driver.find_element("css selector", "section[aria-labelledby=result] summary")
    rows = driver.find_elements("css selector", "section[aria-labelledby=result] tbody tr")
    assert not rows[0].is_displayed()
    summary.click()
    assert [row.text.split()[0] for row in rows] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    assert rows[1].text.split()[1:3] == ["128", "0.0005"]


def test_without_javascript_print_dark_and_narrow(run: RunFolder, browser: Browser) -> None:
    driver = browser(run.path / "report.html", javascript=False)
    assert "Mean IoU highest after epoch 5" in driver.find_element("tag name", "body").text
    media(driver)
    assert folded_up(driver) == 2
    media(driver, kind="print")
    assert folded_up(driver) == 0
    driver = browser(run.path / "report.html")
    body = driver.find_element("tag name", "body")
    media(driver, kind="print", scheme="dark")
    assert body.value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    assert base64.b64decode(driver.print_page()).startswith(b"%PDF")
    media(driver, scheme="dark")
    dark = body.value_of_css_property("background-color")
    line = driver.find_element("css selector", "svg.chart path[style*='--second']")
    strokes = [line.value_of_css_property("stroke")]
    assert all(int(part) < 64 for part in re.findall(r"\d+", dark)[:3])
    media(driver)
    strokes.append(line.value_of_css_property("stroke"))
    assert strokes[0] != strokes[1]
    media(driver, width=360)
    script = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert driver.execute_script(script)
