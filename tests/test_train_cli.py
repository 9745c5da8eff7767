from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from test_model import TABLE

from petseg.cli import train
from petseg.data import download
from petseg.data.augmentation import Augmentation
from petseg.data.dataset import Split
from petseg.errors import DatasetError
from petseg.training import recipes, trainer
from petseg.training.recipes import SCRATCH, Stage, TrainConfig
from petseg.training.runs import RunFolder

TINY = (
    *("--recipe", "scratch", "--size", "32", "--learning-rate", "1e-3", "--batch-size", "4"),
    *("--filters", "4,4,4,4,4", "--precision", "float32", "--no-augment"),
)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PETSEG_DATA", raising=False)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(train.main, [str(argument) for argument in arguments])


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TrainConfig, Path, Path]]:
    """What would be trained: every call of fit, which does not train here."""
    calls: list[tuple[TrainConfig, Path, Path]] = []

    def fit(
        config: TrainConfig, data: Path, run_dir: Path, tensorboard: bool, devices: tuple[int, ...]
    ) -> None:
        calls.append((config, data, run_dir))
        raise DatasetError("not now")

    monkeypatch.setattr(trainer, "fit", fit)
    return calls


def test_a_run_ends_with_its_figures_and_the_next_command(pets: Path) -> None:
    # A frozen encoder is traced more quickly.
    options = (*TINY, "--freeze-encoder", "--epochs", "1", "--data", pets)
    result = run(*options, "--limit", "8", "--tensorboard")
    assert result.exit_code == 0, result.output
    folder = Path(result.stdout.strip())
    assert folder.parent == Path("runs")
    assert folder.name.endswith("-scratch")
    assert RunFolder(folder).finished
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert "on 2 images of the validation part:\npixel accuracy" in result.stderr
    assert f"petseg-export model.onnx --from {folder}" in result.stderr
    again = run("--resume", "--out", folder)
    assert (again.exit_code, "is finished" in again.stderr) == (1, True)
    same = run(*options, "--out", folder)
    assert (same.exit_code, "holds a run already" in same.stderr) == (1, True)


def test_quiet_and_json(pets: Path) -> None:
    result = run(*TINY, "--epochs", "1", "--data", pets, "--limit", "8", "--quiet", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    folder = RunFolder(Path(told["run"]))
    assert folder.finished
    assert Path(told["report"]).is_file()
    assert (told["images"], told["pixels"]) == (2, 2 * 32 * 32)
    # The figures of the table, and those that the run keeps.
    metrics = folder.metrics()
    assert metrics is not None
    assert {name: told[name] for name in ("mean_iou", "iou", "dice")} == {
        name: metrics[name] for name in ("mean_iou", "iou", "dice")
    }
    again = run("--resume", "--out", folder.path, "--quiet", "--json")
    assert again.exit_code == 1
    assert again.stderr.startswith("error: the run is finished; ")
    assert json.loads(again.stdout)["error"] in again.stderr


def test_options_take_the_place_of_the_recipes(
    fits: list[tuple[TrainConfig, Path, Path]], pets: Path, tmp_path: Path
) -> None:
    (tmp_path / "some.npz").touch()
    run(
        *("--data", pets, "--out", "here", "--recipe", "scratch"),
        *("--epochs", "9,2,1", "--size", "96,128,224", "--learning-rate", "3e-4,2e-4,1e-4"),
        *("--batch-size", "4", "--weight-decay", "0.01", "--clip-norm", "0", "--zoom", "1.2"),
        *("--no-flip", "--freeze-encoder", "--encoder-weights", "some.npz", "--split", "article"),
        *("--seed", "7", "--precision", "float32", "--limit", "40", "--warmup-steps", "10"),
    )
    config, data, folder = fits[0]
    assert (data, folder) == (pets, Path("here"))
    assert config.stages == (Stage(96, 9, 3e-4), Stage(128, 2, 2e-4), Stage(224, 1, 1e-4))
    assert config.augmentation == Augmentation(flip=False, zoom=1.2)
    assert config.encoder_weights == str(tmp_path / "some.npz")
    assert (config.clip_norm, config.train_encoder, config.split) == (None, False, "article")
    assert (config.batch_size, config.weight_decay, config.warmup_steps) == (4, 0.01, 10)
    assert (config.seed, config.precision, config.limit) == (7, "float32", 40)
    assert config.optimizer == SCRATCH.optimizer


def test_stages_may_share_a_batch_size_or_have_their_own(
    fits: list[tuple[TrainConfig, Path, Path]], pets: Path
) -> None:
    common = ("--data", pets, "--recipe", "scratch")
    run(*common, "--batch-size", "16,4", "--strength", "1,0.5", "--ema-momentum", "0.99")
    run(*common, "--batch-size", "16", "--strength", "0.5", "--normalize", "--cutmix", "0.2")
    (one, _, _), (other, _, _) = fits
    assert [(stage.batch_size, stage.strength) for stage in one.stages] == [(16, 1), (4, 0.5)]
    assert (one.batch_size, one.ema_momentum, one.normalize) == (8, 0.99, False)
    assert [(stage.batch_size, stage.strength) for stage in other.stages] == [(None, 0.5)] * 2
    assert (other.batch_size, other.normalize) == (16, True)
    assert other.augmentation == Augmentation(cutmix=0.2)


def test_without_options_it_is_the_article(
    fits: list[tuple[TrainConfig, Path, Path]], pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETSEG_DATA", str(pets))
    run()
    config, data, folder = fits[0]
    assert (config, data) == (recipes.ARTICLE, pets)
    assert folder.name.endswith("-article")


def test_best_fine_tunes_all_of_imagenets_layers(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole recipe but its length and size, with drawn weights in place of the download."""
    import keras
    import numpy as np

    original, made = keras.applications.VGG16, []

    def drawn(include_top: bool, weights: str) -> keras.Model:
        assert (include_top, weights) == (False, "imagenet")
        made.append(original(include_top=include_top, weights=None))
        return made[-1]

    monkeypatch.setattr(keras.applications, "VGG16", drawn)
    short = ("--size", "32", "--epochs", "1", "--learning-rate", "2e-4", "--passes", "2")
    sized = ("--batch-size", "4", "--limit", "8", "--strength", "1", "--ema-momentum", "0.5")
    result = run("--recipe", "best", "--data", pets, "--out", "best", *short, *sized)
    assert result.exit_code == 0, result.output
    config = RunFolder(Path("best")).config()
    assert (config.encoder_weights, config.train_encoder) == ("imagenet", True)
    assert (config.split, config.filters) == ("official", (64, 128, 256, 512, 512))
    encoder = keras.models.load_model("best/model.keras").get_layer("encoder")
    for layer in (layer for layer in encoder.layers if layer.weights):
        before = made[-1].get_layer(layer.name).get_weights()[0]
        after = layer.get_weights()[0]
        # Each has learnt, and is still what it began as.
        assert not np.array_equal(after, before), layer.name
        assert np.corrcoef(after.ravel(), before.ravel())[0, 1] > 0.9, layer.name
    Path("best/model.keras").unlink()  # 105 MB, which pytest would keep


def test_every_hyperparameter_has_an_option() -> None:
    flags = {name for option in train.main.params for name in (option.name,)}
    fields = {*TrainConfig.__dataclass_fields__, *Stage.__dataclass_fields__}
    fields |= set(Augmentation.__dataclass_fields__)
    assert fields - flags == {"stages", "augmentation"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--epochs", "9,1"), "every stage needs one value of each, found 1 for --size (from the"),
        (("--strength", "1,0.5"), "--strength needs one value for all stages or one for each of 1"),
        (("--epochs", "many"), "'many' is not a valid integer"),
        (("--size", "100"), "multiple of 32, not 100"),
        (("--zoom", "1.2"), "--zoom needs --augment"),
        (("--weight-decay", "0.1"), "weight decay needs the optimizer adamw"),
        (("--recipe", "other"), "'other' is not one of"),
        (("--init", "nowhere"), "does not exist"),
        (("--resume", "--epochs", "3", "--seed", "0"), "leave out --epochs, --seed"),
        (("--resume", "--recipe", "scratch"), "config.json; leave out --recipe"),
        (("--summary", "--json"), "--summary prints a table and trains nothing; leave out --json"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_resume_drops_nothing_from_the_environment_in_silence(
    fits: list[tuple[TrainConfig, Path, Path]], pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(Path("runs") / "one")
    folder.begin(SCRATCH, Split(("a",), ("b",)), pets)
    monkeypatch.setenv("PETSEG_TRAIN_SEED", "7")
    result = run("--resume", "--epochs", "3")
    assert result.exit_code == 2
    assert "config.json; leave out --epochs, PETSEG_TRAIN_SEED" in " ".join(result.stderr.split())
    monkeypatch.delenv("PETSEG_TRAIN_SEED")
    # Where things are may come from there.
    monkeypatch.setenv("PETSEG_TRAIN_RESUME", "1")
    monkeypatch.setenv("PETSEG_TRAIN_OUT", "runs/one")
    monkeypatch.setenv("PETSEG_TRAIN_DATA", "elsewhere")
    run()
    assert fits == [(SCRATCH, pets, folder.path)]


def test_the_summary_needs_no_data() -> None:
    result = run("--summary", "--filters", "4,4,8,8,8", "--size", "64")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "| add_3 | 16, 16, 8 | 0 | connect_3, block3_conv3 |" in lines
    assert lines[-1].startswith("Total ")
    assert not Path("runs").exists()


def test_the_summary_is_the_articles() -> None:
    result = run("--summary")
    assert result.exit_code == 0
    assert result.stdout == f"{TABLE}\n"


def test_what_cannot_begin_leaves_no_folder(tmp_path: Path) -> None:
    result = run("--data", tmp_path / "gone")
    assert result.exit_code == 1, result.output
    assert list(Path("runs").iterdir()) == []


def test_resume_takes_the_newest_unfinished_run_and_its_data(
    fits: list[tuple[TrainConfig, Path, Path]],
    pets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "there is no unfinished run" in run("--resume").stderr
    folder = RunFolder(Path("runs") / "one")
    folder.begin(SCRATCH, Split(("a",), ("b",)), pets)
    # Where the run found its data comes before the environment, and the command line before both.
    monkeypatch.setenv("PETSEG_DATA", "elsewhere")
    run("--resume", "--tensorboard")
    run("--resume", "--out", "runs/one", "--data", "given")
    assert fits == [(SCRATCH, pets, folder.path), (SCRATCH, Path("given"), folder.path)]
    nothing = run("--resume", "--out", tmp_path)
    assert (nothing.exit_code, "holds no run to go on with" in nothing.stderr) == (1, True)


def test_without_data_it_is_downloaded(
    fits: list[tuple[TrainConfig, Path, Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(download, "oxford_iiit_pet", lambda: tmp_path / "downloaded")
    run()
    assert fits[0][1] == tmp_path / "downloaded"


def test_ctrl_c_says_how_to_go_on(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(
        config: TrainConfig, data: Path, run_dir: Path, tensorboard: bool, devices: tuple[int, ...]
    ) -> None:
        RunFolder(run_dir).begin(config, Split(("a",), ("b",)), data)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "fit", fit)
    result = run("--data", pets, "--out", "here")
    assert result.exit_code == 130
    assert "petseg-train --resume --out here" in result.stderr


MAIN = "from petseg.cli.train import main; main()"


def test_a_missing_package_is_named() -> None:
    code = f"import sys; sys.modules['tensorflow'] = None; {MAIN}"
    found = subprocess.run(
        [sys.executable, "-c", code, "--summary"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert found.stderr.strip().splitlines()[-1] == (
        "error: petseg-train needs the package tensorflow, which is not installed: "
        "pip install 'petseg[train]'"
    )
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; {MAIN}", "--summary"],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert "KERAS_BACKEND is torch, a package that is not installed" in found.stderr


@pytest.mark.long
def test_interrupted_and_killed_it_goes_on(pets: Path, tmp_path: Path) -> None:
    """Three real processes: the first gets Ctrl-C, the second is killed, the third finishes."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", MAIN, *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    folder = RunFolder(tmp_path / "runs" / "one")

    def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> None:
        while folder.checkpoint()[1] < epoch:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)

    first = start(*TINY, "--epochs", "12", "--data", str(pets), "--out", "runs/one")
    wait_for_epoch(first, 1)
    first.send_signal(signal.SIGINT)
    _, stderr = first.communicate()
    assert first.returncode == 130
    assert "petseg-train --resume --out runs/one" in stderr
    assert "Traceback" not in stderr
    assert not folder.pixels.exists()

    second = start("--resume")
    wait_for_epoch(second, folder.checkpoint()[1] + 1)
    second.kill()
    second.communicate()
    assert folder.pixels.exists()

    third = start("--resume")
    stdout, stderr = third.communicate()
    assert third.returncode == 0, stderr
    assert stdout.strip() == "runs/one"
    assert folder.finished
    assert not folder.pixels.exists()
    lines = (folder.path / "history.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == [str(i) for i in range(1, 13)]

    trainer.fit(folder.config(), pets, tmp_path / "undisturbed")
    again = (tmp_path / "undisturbed" / "history.csv").read_text().splitlines()
    # All but what the clock says.
    assert [line.split(",")[:-2] for line in lines] == [line.split(",")[:-2] for line in again]
