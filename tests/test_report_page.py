"""The report of a folder of masks: what it says, and how a browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batching import batch, change_record, make_job, picture, save_photos, write_mask
from browsing import Browser, content, folded_up, media
from click.testing import CliRunner
from PIL import Image

from petseg.batch.report import Counts, Report
from petseg.classes import PET_CLASSES
from petseg.cli.report import main
from petseg.masks.reading import read_all
from petseg.masks.record import ImageIdentity
from petseg.pages import masks as page
from petseg.pages.html import seconds
from petseg.pages.run import Failures
from petseg.pages.survey import Survey
from petseg.planning.config import packaged

ELEMENT = "<script>document.title = 'run'<"
IMAGE = "<img src=x onerror=document.title='run'>"
COUNT = 4


def report(*arguments: str | Path) -> tuple[int, str, str]:
    """`petseg report` in this process."""
    found = CliRunner().invoke(main, [*map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ and masks/, made by a run with the package's model; two names hold elements."""
    home = tmp_path_factory.mktemp("report")
    save_photos(home / "photos", COUNT)
    (home / "photos" / "a").mkdir()
    Image.fromarray(picture(9, 200, 100)).save(home / "photos" / "a" / f"{IMAGE}.png")
    (home / "photos" / f"{ELEMENT}.jpg").write_bytes(b"no image")
    (home / "photos" / os.fsdecode(b"d\xff\xe2\x80\xae.jpg")).write_bytes(b"no image either")
    done = batch(home / "photos", home / "masks", packaged(), report=True, batch_size=1)
    assert (done.counts.done, done.counts.failed) == (COUNT + 1, 2)
    return home


def test_a_run_leaves_its_report(home: Path) -> None:
    text = content(home / "masks/petseg/report.html")
    assert '<h2 id="run">The last run</h2>' in text
    assert f"<dd>{home / 'photos'}</dd>" in text
    assert "float32 on cpu" in text
    assert "not an image in a format that can be read" in text
    # Five masks are shown four times, each beside its photo.
    assert text.count('class="photo"') == text.count('class="mask"') == 4 * (COUNT + 1)
    assert "src=x" not in text.replace("&lt;img src=x", "")
    assert "<script>document" not in text
    # Neither names that are no UTF-8 nor such that turn text around.
    assert r"d\xff\u202e.jpg" in text


def test_a_run_that_was_stopped_or_asked_not_to_leaves_none(home: Path, tmp_path: Path) -> None:
    batch(home / "photos", tmp_path / "stopped", packaged(), report=True, fail_fast=True)
    batch(home / "photos", tmp_path / "asked", packaged(), limit=1)
    for name in ("stopped", "asked"):
        left = {path.name for path in (tmp_path / name / "petseg").iterdir()}
        assert "stats.json" in left
        assert "report.html" not in left


def test_nothing_is_loaded_from_anywhere(home: Path) -> None:
    text = content(home / "masks/petseg/report.html")
    assert set(re.findall(r'(?:src|href)="([^"#]{1,5})', text)) == {"data:"}
    assert "url(#" in text
    assert not re.search(r"url\([^#]|@import|//(?!www\.w3\.org/)", text)


def test_from_the_masks_alone(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "masks", tmp_path / "masks", ignore=shutil.ignore_patterns("petseg"))
    code, out, _ = report(tmp_path / "masks")
    path = tmp_path / "masks/petseg/report.html"
    assert (code, out.strip()) == (0, str(path))
    text = content(path)
    assert "The last run" not in text
    assert text.count('class="mask"') == 4 * (COUNT + 1)
    assert 'class="photo"' not in text
    assert "petseg report MASKS --images FOLDER" in text
    out_file = tmp_path / "other.html"
    code, out, _ = report(tmp_path / "masks", "--images", home / "photos", "--out", out_file)
    assert (code, out.strip()) == (0, str(out_file))
    text = content(out_file)
    assert text.count('class="photo"') == 4 * (COUNT + 1)


def test_stats_from_elsewhere(home: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(home / "masks", masks, ignore=shutil.ignore_patterns("petseg"))
    _, _, err = report(masks, "--stats", home / "masks/petseg/stats.json")
    text = content(masks / "petseg/report.html")
    assert "The last run" in text
    # They also tell where the photos lie.
    assert f"photos: {home / 'photos'}, where the last run found them\n" in err
    assert text.count('class="photo"') == 4 * (COUNT + 1)
    assert 'class="note"' not in text
    # An earlier version's: the masks tell the rest, unless they were asked for.
    (masks / "petseg/stats.json").write_text("{}")
    code, _, err = report(masks)
    assert (code, err.startswith("without the last run: ")) == (0, True)
    assert "The last run" not in content(masks / "petseg/report.html")
    assert report(masks, "--stats", masks / "petseg/stats.json")[0] == 1


def test_photos_that_are_not_there_any_more(home: Path, tmp_path: Path) -> None:
    stats = json.loads((home / "masks/petseg/stats.json").read_text())
    for number, images in enumerate((tmp_path / "none", "s3://bucket/photos", tmp_path / "x.zip")):
        stats["options"]["images"] = str(images)
        (tmp_path / "stats.json").write_text(json.dumps(stats))
        out = tmp_path / f"{number}.html"
        stated = ("--stats", tmp_path / "stats.json", "--out", out)
        code, _, err = report(home / "masks", *stated)
        assert (code, "photos: " in err) == (0, False)
        text = content(out)
        assert text.count('class="mask"') == 4 * (COUNT + 1)
        assert "Photos are not shown" in text
        assert 'class="note"' not in text


def test_a_run_on_an_archive_shows_masks_alone(tmp_path: Path) -> None:
    (name,) = save_photos(tmp_path / "photos", 1)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(tmp_path / "photos" / name, name)
    done = batch(tmp_path / "photos.zip", tmp_path / "masks", packaged(), report=True)
    assert done.counts.done == 1
    text = content(tmp_path / "masks/petseg/report.html")
    assert text.count('class="mask"') == 4
    assert text.count("Photos are not shown, as they lie in no folder") == 1
    # What is said of one mask is its own figure, as everywhere on the page.
    (shown,) = re.findall(r"<dt>mean confidence</dt><dd>([\d.]+ %)</dd>", text)
    assert f"<figcaption>{shown}, of one mask.</figcaption>" in text
    assert text.count(", of one mask.") == 3
    assert "In half of the masks" not in text
    assert 'class="note"' not in text
    code, _, err = report(tmp_path / "masks", "--images", tmp_path / "photos.zip")
    assert (code, "unpack or copy photos" in err) == (1, True)


def test_a_list_of_something_else_is_passed_over(home: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(home / "masks", masks)
    (masks / "petseg/failures.csv").write_text("a,b\n1,2\n")
    code, _, err = report(masks)
    assert code == 0
    assert "without the list of failures: " in err
    assert "failures.csv" in err
    text = content(masks / "petseg/report.html")
    assert "The last run" in text
    assert 'id="failures"' not in text


@pytest.mark.parametrize(
    "arguments",
    [("s3://b/m",), (".", "--stats", "gs://b/stats.json"), (".", "--out", "s3://b/report.html")],
)
def test_what_lies_in_a_store_is_to_be_copied(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = report(*arguments)
    assert (code, out) == (2, "")
    assert f"{arguments[-1]} is in a store, and this command works on files of this machine" in err
    assert "copy the masks" in err


def test_what_cannot_be_reported_on(tmp_path: Path) -> None:
    code, _, err = report(tmp_path / "none")
    assert (code, "expected a folder of masks" in err) == (1, True)
    code, _, err = report(tmp_path)
    assert (code, "there are no masks" in err) == (1, True)
    assert list(tmp_path.iterdir()) == []
    code, _, err = report(tmp_path, "--images", tmp_path / "none" / "x")
    assert (code, "no such folder" in err) == (1, True)
    code, _, err = report(tmp_path, "--stats", tmp_path / "none")
    assert (code, "leave out --stats" in err) == (1, True)


def test_a_page_that_cannot_be_written(home: Path, tmp_path: Path) -> None:
    assert report(home / "masks", "--out", tmp_path)[0] == 2
    (tmp_path / "file").touch()
    code, _, err = report(home / "masks", "--out", tmp_path / "file" / "report.html")
    assert (code, "cannot write" in err) == (1, True)


def test_a_page_does_not_grow_with_the_masks(tmp_path: Path) -> None:
    """The largest photos that are shown, of noise, and many masks, each with a name of its own."""
    job = make_job(tmp_path / "masks")
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    survey = Survey(PET_CLASSES)
    for number in range(60):
        name = f"{number}.png"
        Image.fromarray(np.roll(noise, number, 0)).save(
            tmp_path / "photos" / name, compress_level=1
        )
        write_mask(tmp_path / "photos" / name, name, job, seed=number)
    found = list(read_all(tmp_path / "masks", PET_CLASSES, {}, with_ids=False))
    for mask in found:
        survey.add(mask)
    for number in range(20_000):
        later = found[0].written_ns + number * 10**9
        survey.add(dataclasses.replace(found[0], name=f"z{number}.png", written_ns=later))
    places = (tmp_path / "report.html", survey, tmp_path / "masks", tmp_path / "photos")
    page.write(*places, None, Failures([]))
    text = content(tmp_path / "report.html")
    assert "20,060" in text
    assert text.count('class="photo"') >= 12
    # 5 MB are promised: there are at most 48 pairs.
    pairs = (tmp_path / "report.html").stat().st_size / text.count('class="mask"')
    assert pairs * 48 < 4e6


def test_nor_with_what_is_written_in_them(tmp_path: Path) -> None:
    """Records may hold any text, and the page shows each name five times."""
    job = make_job(tmp_path / "masks")
    for number, name in enumerate(save_photos(tmp_path / "photos", 50)):
        write_mask(tmp_path / "photos" / name, name, job, seed=number)
        long = ImageIdentity("&" * 30_000 + f"-{number}.jpg", 1, 1, "ab" * 32)
        change_record(job.masks / name, image=long, provider="<" * 30_000)
    assert report(tmp_path / "masks", "--images", tmp_path / "photos")[0] == 0
    path = tmp_path / "masks/petseg/report.html"
    text = content(path)
    assert text.count('class="mask"') == 48
    assert "&amp;&amp;\N{HORIZONTAL ELLIPSIS}&amp;" in text
    assert re.search(r"&amp;-\d+\.jpg", text)
    # The test before this one has shown that pictures leave so much room.
    assert len(text) < 1_000_000
    assert path.stat().st_size < 5_000_000


def test_figures_are_those_of_the_stats_and_of_the_records(tmp_path: Path) -> None:
    job = make_job(tmp_path / "masks")
    values = ((0.9, 0.0), (0.8, 0.1), (0.7, 0.2), (0.6, 0.3))
    for name, (confidence, uncertain) in zip(
        save_photos(tmp_path / "photos", 4), values, strict=True
    ):
        write_mask(tmp_path / "photos" / name, name, job)
        change_record(job.masks / name, confidence=confidence, uncertain=uncertain)
    run = Report({"images": str(tmp_path / "photos")}, Counts(files=42, done=40, failed=2))
    run.wall_seconds, run.ready_seconds, run.pixels = 11.0, 1.0, 20_000_000
    run.provider, run.precision, run.device = "cpu", "float32", "a processor"
    run.model = {"path": "model.onnx", "hash": "ab" * 32, "stored": "float16"}
    run.infer_wall_seconds = 9.0
    for stage, busy, each in (("read", 0.5, 0.012), ("infer", 9.0, 0.9), ("write", 1.25, 0.03)):
        run.stages[stage].busy_seconds = busy
        for _ in range(40):
            run.stages[stage].add(each)
    for second, count in enumerate((3, 5, 2, 1)):
        for _ in range(count):
            run.masks_over_time.add(second + 0.5)
    run.write_stats(job.masks / "petseg/stats.json")
    assert report(job.masks)[0] == 0
    text = content(job.masks / "petseg/report.html")
    assert "<dd>4.0 images/s, 2.0 megapixels/s</dd>" in text
    assert "Between 2.0 and 5.0 masks a second, in spans of 1 s." in text
    assert "Held back by infer." in text
    rows = re.findall(r'<tr><th scope="row">(read|infer|write)</th>(.*?)</tr>', text)
    for (name, row), (busy, each) in zip(rows, ((0.5, 0.012), (9, 0.9), (1.25, 0.03)), strict=True):
        cells = re.findall(r'<td class="number">(.*?)</td>', row)
        assert cells[0] == seconds(busy), name
        for cell in cells[1:]:
            number, unit = cell.split()
            # Within 5 %, and three digits of it.
            assert float(number) * {"ms": 1e-3, "s": 1}[unit] == pytest.approx(each, rel=0.055)
    assert re.search(r"<dt>mean confidence</dt><dd>75.0 %</dd>", text)
    # The middles of bins of 0.1 %.
    for least, middle, most in ((0.6005, 0.7005, 0.9005), (0.0005, 0.1005, 0.3005)):
        shares = [f"{100 * share:.1f} %" for share in (middle, least, most)]
        assert "less than {}, in nine of ten between {} and {}.".format(*shares) in text
    shown = re.findall(r"confidence ([\d.]+) %", text[text.index('id="unsure"') :])
    assert shown[:4] == ["60.0", "70.0", "80.0", "90.0"]


def first_pair(driver: Any) -> tuple[Any, Any, Any, Any]:
    """A figure, its photo, its mask and its slider."""
    figure = driver.find_element("css selector", "#random ~ .gallery .pair")
    return figure, *(
        figure.find_element("css selector", part) for part in ("img.photo", "img.mask", "input")
    )


def side_by_side(photo: Any, mask: Any) -> bool:
    return bool(
        photo.rect["x"] + photo.rect["width"] <= mask.rect["x"]
        and photo.rect["y"] == mask.rect["y"]
        and photo.rect["width"] == mask.rect["width"]
    )


def test_the_slider_moves_from_the_mask_to_the_photo(home: Path, browser: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    driver = browser(home / "masks/petseg/report.html")
    media(driver)
    figure, photo, mask, slider = first_pair(driver)
    assert photo.rect == mask.rect
    assert slider.is_displayed()
    assert slider.accessible_name == f"how much is seen of the photo {name_of(figure)}, percent"
    assert mask.value_of_css_property("clip-path") == "inset(0px 0px 0px 50%)"
    slider.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert mask.value_of_css_property("clip-path") == "inset(0px 0px 0px 52%)"
    half = slider.rect["width"] // 2
    ActionChains(driver).drag_and_drop_by_offset(slider, -half, 0).perform()
    assert mask.value_of_css_property("clip-path") == "inset(0px 0px 0px 0%)"
    other = driver.find_elements("css selector", ".pair img.mask")[-1]
    assert other.value_of_css_property("clip-path") == "inset(0px 0px 0px 50%)"


def name_of(figure: Any) -> str:
    return str(figure.find_element("css selector", ".name").text)


def test_what_a_browser_reads(home: Path, browser: Browser) -> None:
    driver = browser(home / "masks/petseg/report.html")
    media(driver)
    text = driver.find_element("tag name", "body").text
    assert driver.title == "petseg: masks"
    for words in (
        f"{ELEMENT}.jpg",
        f"a/{IMAGE}.png",
        r"d\xff\u202e.jpg",
        "Least confident",
        "Where the time went",
        "confidence, %",
    ):
        assert words in text, words
    tiles = [tile.text for tile in driver.find_elements("css selector", "#masks ~ .tiles .tile")]
    assert f"masks\n{COUNT + 1}" in tiles
    assert "photos failed in the last run\n2" in tiles
    # Every picture is there and has its name; nothing was asked of a network; nothing failed.
    script = "return [...document.images].every(image => image.naturalWidth > 0 && image.alt)"
    assert driver.execute_script(script)
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert [name for name in driver.execute_script(script) if not name.startswith("data:")] == []
    assert driver.get_log("browser") == []
    roles = [chart.aria_role for chart in driver.find_elements("css selector", "svg.chart")]
    assert roles
    assert set(roles) <= {"image", "img"}
    levels = driver.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map(head => +head.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_without_javascript_both_pictures_stand_side_by_side(home: Path, browser: Browser) -> None:
    driver = browser(home / "masks/petseg/report.html", javascript=False)
    media(driver)
    _, photo, mask, slider = first_pair(driver)
    assert side_by_side(photo, mask)
    assert not slider.is_displayed()
    assert mask.value_of_css_property("clip-path") == "none"
    assert "The last run" in driver.find_element("tag name", "body").text


def test_print_dark_and_narrow(home: Path, browser: Browser) -> None:
    driver = browser(home / "masks/petseg/report.html")
    media(driver, kind="print", scheme="dark")
    _, photo, mask, slider = first_pair(driver)
    assert side_by_side(photo, mask)
    assert not slider.is_displayed()
    body = driver.find_element("tag name", "body")
    assert body.value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    assert folded_up(driver) == 0
    assert base64.b64decode(driver.print_page()).startswith(b"%PDF")
    media(driver, scheme="dark")
    assert folded_up(driver) == 1
    dark = body.value_of_css_property("background-color")
    ink = driver.find_element("css selector", "svg.chart text").value_of_css_property("fill")
    assert all(int(part) < 64 for part in re.findall(r"\d+", dark)[:3])
    assert all(int(part) > 192 for part in re.findall(r"\d+", ink)[:3])
    media(driver, width=360)
    script = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert driver.execute_script(script)
