from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from petseg.data.dataset import Split, hash_names
from petseg.errors import DatasetError
from petseg.training.recipes import SCRATCH
from petseg.training.runs import HISTORY_FIELDS, Row, RunFolder, fresh_folder, newest_unfinished

SPLIT = Split(("a", "b"), ("c",))


def rows(count: int) -> list[Row]:
    return [
        {**dict.fromkeys(HISTORY_FIELDS, "0"), "epoch": str(epoch)} for epoch in range(1, count + 1)
    ]


def save(path: Path) -> None:
    path.write_text("a checkpoint")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "one")
    run.begin(SCRATCH, SPLIT, tmp_path)
    return run


def test_what_a_run_is_comes_back(folder: RunFolder, tmp_path: Path) -> None:
    assert folder.begun
    assert folder.config() == SCRATCH
    assert folder.split() == SPLIT
    assert folder.data() == tmp_path
    values = json.loads(folder.config_file.read_text())
    assert values["split_hash"]["train"] == hash_names(["a", "b"])
    assert values["recipe"] == "scratch"


def test_only_the_newest_checkpoint_stays(folder: RunFolder) -> None:
    assert folder.checkpoint() == (None, 0)
    assert folder.history() == []
    for done in (1, 2):
        folder.keep_epoch(done, rows(done), save)
    assert folder.checkpoint() == (folder.path / "checkpoint-0002.keras", 2)
    assert [path.name for path in folder.path.glob("*.keras")] == ["checkpoint-0002.keras"]
    assert folder.history() == rows(2)


def test_killed_before_the_checkpoint_the_row_goes_too(folder: RunFolder) -> None:
    folder.keep_epoch(1, rows(1), save)

    def fail(path: Path) -> None:
        save(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.keep_epoch(2, rows(2), fail)
    assert folder.checkpoint()[1] == 1
    assert folder.history() == rows(1)
    assert not list(folder.path.glob(".partial-*"))


def end(folder: RunFolder) -> None:
    folder.keep_metrics({})
    folder.finish()


def test_finished_is_a_run_with_metrics_and_no_checkpoint(folder: RunFolder) -> None:
    folder.keep_epoch(1, rows(1), save)
    assert not folder.finished
    assert folder.metrics() is None
    folder.keep_metrics({})
    # Killed between the two last steps of a run.
    assert not folder.finished
    assert folder.history() == rows(1)
    folder.keep_metrics({"images": 1})
    folder.finish()
    assert folder.finished
    assert folder.metrics() == {"images": 1}
    assert folder.history() == rows(1)


def test_the_newest_unfinished_run_is_found(folder: RunFolder, tmp_path: Path) -> None:
    runs = folder.path.parent
    for name, age in (("two", 50), ("three", 100)):
        run = RunFolder(runs / name)
        run.begin(SCRATCH, SPLIT, tmp_path)
        os.utime(run.config_file, (age, age))
    assert newest_unfinished(runs) == folder
    end(folder)
    assert newest_unfinished(runs) == RunFolder(runs / "three")
    end(RunFolder(runs / "two"))
    end(RunFolder(runs / "three"))
    with pytest.raises(DatasetError, match="there is no unfinished run in"):
        newest_unfinished(runs)


def test_two_processes_do_not_train_in_one_folder(folder: RunFolder) -> None:
    with (
        folder.locked(),
        pytest.raises(DatasetError, match="another process is training"),
        folder.locked(),
    ):
        pass
    with folder.locked():
        pass


def test_damaged_files_are_named(folder: RunFolder) -> None:
    folder.config_file.write_text("{}")
    with pytest.raises(DatasetError, match=r"config\.json is not a run's configuration"):
        folder.config()
    folder.config_file.write_text("{")
    with pytest.raises(DatasetError, match=r"cannot read .*config\.json"):
        folder.config()
    (folder.path / "split.json").write_text('{"train": []}')
    with pytest.raises(DatasetError, match=r"split\.json is not a run's split"):
        folder.split()
    folder.keep_epoch(1, rows(1), save)
    (folder.path / "history.csv").write_text("step\n1\n")
    with pytest.raises(DatasetError, match=r"cannot read .*history\.csv"):
        folder.history()


def test_a_sweep_takes_what_a_killed_process_left(folder: RunFolder) -> None:
    folder.pixels.mkdir()
    (folder.pixels / "train-images.npy").write_bytes(b"pixels")
    (folder.path / ".partial-model.keras").write_bytes(b"half")
    folder.sweep()
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json", "split.json"]


def test_runs_that_begin_at_once_have_a_folder_each(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from petseg.training.runs import fresh_folder\n"
        "for name in sys.stdin.readline().split():\n"
        "    print('ready', flush=True); sys.stdin.read(1)\n"
        "    print(fresh_folder(pathlib.Path(sys.argv[1]), name).name)\n"
    )
    runs, names = tmp_path / "runs", [f"at-{number}" for number in range(20)]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(runs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]

    def told(process: subprocess.Popen[str], text: str) -> None:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.flush()

    def line(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    for process in both:
        told(process, " ".join(names) + "\n")
    for name in names:
        assert [line(process) for process in both] == ["ready", "ready"]
        for process in both:
            told(process, "x")
        assert sorted(line(process) for process in both) == [name, f"{name}-2"]
        assert fresh_folder(runs, name) == runs / f"{name}-3"
    for process in both:
        process.communicate()
        assert process.returncode == 0


def test_a_run_is_locked_before_it_is_begun(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "one")
    with run.locked():
        assert not run.begun
        with pytest.raises(DatasetError, match="another process is training"), run.locked():
            pass
        run.begin(SCRATCH, SPLIT, tmp_path)
    run.sweep()
    assert run.begun
