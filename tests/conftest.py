"""What the tests share: one small model file, exported once a session, and folders."""

from __future__ import annotations

import multiprocessing.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A machine that is busy with other things is no failure.  The same examples each time, so that a
# change is judged by what it changes; --hypothesis-profile=searching draws new ones.
settings.register_profile("petseg", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, max_examples=1000)
settings.load_profile("petseg")

# Options that somebody has set for the commands are not the tests'.
for _name in [name for name in os.environ if name.startswith("PETSEG_")]:
    del os.environ[_name]

# The sockets of worker processes lie there, and the folders some tests set have names too long.
multiprocessing.util.get_temp_dir()

# What a shell starts in the background is deaf to Ctrl-C, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

SIZE = 64
FILTERS = (4, 4, 8, 8, 8)


@pytest.fixture(autouse=True)
def _commands_leave_the_process() -> Iterator[None]:
    """A command that runs in this process, and leaves a thread in a library, must not end it.

    By a patch of its own, which no test undoes.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("petseg.cli.common.leave", sys.exit)
        yield


@pytest.fixture(scope="session")
def tiny_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .keras file of a small segmenter with drawn weights whose masks hold all three classes."""
    import keras
    import numpy as np

    from petseg.network import model, weights
    from petseg_export.parity import draw_images

    network = model.build_segmenter(model.Architecture(SIZE, filters=FILTERS))
    pixels = model.preprocess(draw_images(SIZE, seed=1))
    weights.initialize(network, "none", pixels, seed=5)
    random = np.random.default_rng(5)
    for layer in weights.convolutions(network).values():
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, random.normal(0, 0.1, bias.shape).astype(np.float32)])
    # Centre and scale the logits, or one class would win everywhere.
    head = network.get_layer("head")
    head.activation = keras.activations.linear
    logits = network.predict_on_batch(pixels)
    head.activation = keras.activations.softmax
    kernel, bias = head.get_weights()
    scale = 2.0 / logits.std()
    head.set_weights([kernel * scale, (bias - np.median(logits, axis=(0, 1, 2))) * scale])
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    network.save(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_keras: Path) -> Path:
    """`tiny_keras` as a float32 petseg ONNX file: size 64, classes pet, background, border."""
    from petseg_export.convert import export

    path = tiny_keras.with_name("tiny.onnx")
    export(tiny_keras, path)
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are for one."""
    folder = Path(tempfile.mkdtemp(prefix="petseg-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in Oxford-IIIT Pet's layout: 24 drawn pets of three breeds, all in both lists."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("pets")
    (root / "images").mkdir()
    (root / "annotations" / "trimaps").mkdir(parents=True)
    random = np.random.default_rng(0)
    names = [f"pet_{index}" for index in range(24)]
    for name in names:
        height, width = random.integers(60, 120, 2)
        y, x = np.mgrid[:height, :width]
        middle = random.uniform(0.3, 0.7, 2) * (height, width)
        distance = np.hypot(y - middle[0], x - middle[1])
        radius = random.uniform(15, 30)
        trimap = np.select([distance < radius - 3, distance < radius + 3], [1, 3], 2)
        colors = random.integers(0, 256, (4, 3))
        photo = np.clip(colors[trimap] + random.normal(0, 20, (height, width, 3)), 0, 255)
        Image.fromarray(photo.astype(np.uint8)).save(root / "images" / f"{name}.jpg")
        Image.fromarray(trimap.astype(np.uint8)).save(
            root / "annotations" / "trimaps" / f"{name}.png"
        )
    for listed in ("list.txt", "trainval.txt"):
        lines = [
            "#Image CLASS-ID SPECIES BREED ID",
            *(f"{name} {1 + index % 3} 1 1" for index, name in enumerate(names)),
        ]
        (root / "annotations" / listed).write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens Chromium, with or without JavaScript."""
    from browsing import programs
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = programs()
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
