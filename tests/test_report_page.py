"""The report of a folder of masks: what it says, and how a browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batching import batch, make_job, picture, save_photos, write_mask
from click.testing import CliRunner
from PIL import Image

from petseg.batch_config import packaged
from petseg.classes import PET_CLASSES
from petseg.cli.report import main
from petseg.masks import read_all
from petseg.pages import masks as page
from petseg.pages.survey import Survey

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


def content(path: Path) -> str:
    """A page without its pictures."""
    return re.sub(r"base64,[\w+/=]+", "", path.read_text(encoding="utf-8"))


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
    assert "petseg report --images FOLDER" in text
    out_file = tmp_path / "other.html"
    code, out, _ = report(tmp_path / "masks", "--images", home / "photos", "--out", out_file)
    assert (code, out.strip()) == (0, str(out_file))
    text = content(out_file)
    assert text.count('class="photo"') == 4 * (COUNT + 1)


def test_stats_from_elsewhere(home: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(home / "masks", masks, ignore=shutil.ignore_patterns("petseg"))
    report(masks, "--stats", home / "masks/petseg/stats.json")
    assert "The last run" in content(masks / "petseg/report.html")
    # An earlier version's: the masks tell the rest, unless they were asked for.
    (masks / "petseg/stats.json").write_text("{}")
    code, _, err = report(masks)
    assert (code, err.startswith("without the last run: ")) == (0, True)
    assert "The last run" not in content(masks / "petseg/report.html")
    assert report(masks, "--stats", masks / "petseg/stats.json")[0] == 1


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
    page.write(tmp_path / "report.html", survey, tmp_path / "masks", tmp_path / "photos", None)
    text = content(tmp_path / "report.html")
    assert "20,060" in text
    assert text.count('class="photo"') >= 12
    # 5 MB are promised: there are at most 48 pairs.
    pairs = (tmp_path / "report.html").stat().st_size / text.count('class="mask"')
    assert pairs * 48 < 5e6


Browser = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Opens Chromium, with or without JavaScript."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("there is no Chromium here: apt-get install chromium chromium-driver")
    drivers: dict[bool, Any] = {}

    def opened(path: Path, javascript: bool = True) -> Any:
        if javascript not in drivers:
            options = webdriver.ChromeOptions()
            options.binary_location = program
            for switch in (
                *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
                *("disable-background-networking", "disable-component-update", "disable-sync"),
                *("disable-dev-shm-usage", "window-size=1200,900"),
                f"user-data-dir={tmp_path_factory.mktemp('browser')}",
            ):
                options.add_argument(f"--{switch}")
            allowed = 1 if javascript else 2
            options.add_experimental_option(
                "prefs", {"profile.default_content_setting_values.javascript": allowed}
            )
            drivers[javascript] = webdriver.Chrome(options=options, service=Service(driver))
        drivers[javascript].get(path.as_uri())
        return drivers[javascript]

    yield opened
    for found in drivers.values():
        found.quit()


def media(driver: Any, kind: str = "screen", scheme: str = "light", width: int = 1200) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


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
    assert base64.b64decode(driver.print_page()).startswith(b"%PDF")
    media(driver, scheme="dark")
    dark = body.value_of_css_property("background-color")
    ink = driver.find_element("css selector", "svg.chart text").value_of_css_property("fill")
    assert all(int(part) < 64 for part in re.findall(r"\d+", dark)[:3])
    assert all(int(part) > 192 for part in re.findall(r"\d+", ink)[:3])
    media(driver, width=360)
    script = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert driver.execute_script(script)
