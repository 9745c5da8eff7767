"""Pages in a browser, for the tests of pages."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Browser = Callable[..., Any]


def programs() -> tuple[str, str]:
    """Chromium and its driver.

    Where there are none, tests are skipped, as on a laptop; with REQUIRE_BROWSER, which `.ci/run`
    sets where they can be had, they fail.
    """
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is not None and driver is not None:
        return program, driver
    problem = "there is no Chromium here: apt-get install chromium chromium-driver"
    if os.environ.get("REQUIRE_BROWSER"):
        pytest.fail(problem)
    pytest.skip(problem)


def content(path: Path) -> str:
    """A page without its pictures."""
    return re.sub(r"base64,[\w+/=]+", "", path.read_text(encoding="utf-8"))


def folded_up(driver: Any) -> int:
    """How many parts of a page that can be folded up do not show what is in them."""
    script = (
        "return [...document.querySelectorAll('details')]"
        ".filter(part => !part.lastElementChild.checkVisibility()).length"
    )
    found: int = driver.execute_script(script)
    return found


def media(driver: Any, kind: str = "screen", scheme: str = "light", width: int = 1200) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
