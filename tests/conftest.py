"""What the tests share: one small model file, exported once a session, and folders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy with other things is no failure.
settings.register_profile("petseg", deadline=None)
settings.load_profile("petseg")

SIZE = 64
FILTERS = (4, 4, 8, 8, 8)


@pytest.fixture(scope="session")
def tiny_keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .keras file of a small segmenter with drawn weights whose masks hold all three classes."""
    import keras
    import numpy as np

    from petseg import model, weights
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
