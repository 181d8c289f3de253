"""The run folder: atomic files, locks, and folders that version 0.1.0 wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from references.command_line import residua as command
from safetensors.torch import load_file

import residua
from residua.errors import ResiduaError
from residua.runs.folder import Busy, Log, RunFolder

OLD_RUN = Path(__file__).parents[1] / "fixtures" / "run-0.1.0.zip"


@pytest.fixture
def old_run(tmp_path: Path) -> RunFolder:
    """A run of version 0.1.0, interrupted in its third epoch; with what it came to there."""
    zipfile.ZipFile(OLD_RUN).extractall(tmp_path)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("/tmp/oldrun/data", str(tmp_path / "data")))
    return RunFolder(tmp_path / "run")


def test_settings_of_version_0_1_0_have_their_present_names(old_run: RunFolder) -> None:
    config = old_run.config
    assert config.optimization.learning_rate == 0.05
    assert config.optimization.ema_decay == 0.9
    assert config.optimization.clip_grad_norm == 5
    assert (config.training.batch_size, config.training.precise_bn_images) == (6, 12)
    assert (config.network.pool_size, config.network.ordering) == (2, "full_preactivation")
    assert {row.split for row in old_run.read_split()} == {"train", "validation", "test"}
    assert "learning_rate" in old_run.read_history()[0]
    assert all("." in choice.setting for choice in old_run.choices)


@pytest.mark.slow
def test_a_run_of_version_0_1_0_resumes_to_the_weights_that_it_came_to(
    old_run: RunFolder,
) -> None:
    run = residua.resume(old_run.path, quiet=True)
    expected = load_file(old_run.path.parent / "expected_last.safetensors")
    weights = load_file(old_run.path / "last.safetensors")
    assert weights.keys() == expected.keys()
    for name in expected:  # other processors round differently
        torch.testing.assert_close(weights[name], expected[name], rtol=1e-2, atol=1e-3)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5, 6]
    assert run.history[0]["val_loss"] == pytest.approx(0.66264, abs=1e-4)
    scores = run.evaluate().scores
    assert scores.images == 9


@pytest.mark.slow
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from residua.runs.folder import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock(): print('locked', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(Busy, match="another process"), RunFolder(tmp_path).lock():
        pass
    other.communicate("\n", timeout=60)
    with RunFolder(tmp_path).lock():
        pass


def test_a_new_run_never_takes_a_folder_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [RunFolder.new(None, "a b").path.name for _ in range(2)] == ["a-b-1", "a-b-2"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ResiduaError, match=r"is not empty: expected a new folder for the run\.$"):
        RunFolder.new(str(tmp_path / "full"), "x")
    (tmp_path / "full" / "config.yaml").touch()
    with pytest.raises(ResiduaError, match=r"is not empty.*residua resume"):
        RunFolder.new(str(tmp_path / "full"), "x")
    for name, reason in (("a" * 300, "cannot be reached"), ("a\0b", "a null character")):
        with pytest.raises(ResiduaError, match=reason):
            RunFolder.new(str(tmp_path / name), "x")


def test_the_log_drops_what_a_crash_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path, 0, 0)
    for step, epoch in ((2, 1), (4, 2)):
        log.write("epoch", step, epoch=epoch)
    log.close()
    path.write_text(path.read_text() + '{"event": "ep')
    Log(path, 3, 1).close()
    assert path.read_text().count("\n") == 1
    assert '"epoch": 1' in path.read_text()


def test_history_leaves_out_empty_columns(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_history([])
    assert folder.read_history() == []
    folder.write_history([{"epoch": 1, "loss": 0.5, "learning_rate": 0.1}])
    assert folder.read_history() == [{"epoch": 1.0, "loss": 0.5, "learning_rate": 0.1}]
    (tmp_path / "history.csv").write_text("epoch,loss\n1,abc\n")
    with pytest.raises(ResiduaError, match=r"history\.csv: expected numbers"):
        folder.read_history()


def test_a_folder_without_settings_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match=r"has no config\.yaml"):
        RunFolder.existing(tmp_path)
    assert np.array_equal(RunFolder(tmp_path).read_history(), [])


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside the run."""
    file = tmp_path / "secret.txt"
    file.write_text("secret")
    return file


@pytest.mark.parametrize("name", [".lock", "report.html", "state.safetensors", "tried/full/log"])
def test_a_run_with_a_link_is_refused_and_its_target_stays(
    old_run: RunFolder, secret: Path, name: str
) -> None:
    link = old_run.path / name
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(secret)
    for words in (["resume"], ["evaluate"], ["weights", "inspect"]):
        result = command(*words, str(old_run.path))
        assert result.status == 1
        assert f"{link}: is a link" in result.stderr
    assert secret.read_text() == "secret"


def test_linked_folders_and_pipes_in_a_run_are_refused(old_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name, make in (
        ("figures", lambda path: path.symlink_to(tmp_path / "elsewhere")),
        ("choices.json", os.mkfifo),
    ):
        path = old_run.path / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        make(path)
        with pytest.raises(ResiduaError, match=f"{name}: is a link, a pipe or a device"):
            residua.load(old_run.path)
        path.unlink()
    (old_run.path / ".#config.yaml").symlink_to("user@host.1")  # a lock of Emacs
    assert residua.load(old_run.path).path == old_run.path


def test_locking_follows_no_link_and_empties_no_file(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run" / ".lock"
    lock.symlink_to(secret)
    with pytest.raises(ResiduaError, match="cannot be locked"), RunFolder(tmp_path / "run").lock():
        pass
    lock.unlink()
    lock.write_text("notes")
    with RunFolder(tmp_path / "run").lock():
        pass
    assert (secret.read_text(), lock.read_text()) == ("secret", "notes")


def test_only_unfinished_files_of_residua_are_removed(tmp_path: Path) -> None:
    names = [".config.yaml.swp", ".a.b.c", ".residua-0123", "config.yaml"]
    for name in names:
        (tmp_path / name).touch()
    with RunFolder(tmp_path).lock():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*names, ".lock"} - {".residua-0123"}


def test_two_threads_do_not_train_in_one_folder(tmp_path: Path) -> None:
    def lock() -> None:
        with RunFolder(tmp_path).lock():
            pass

    with ThreadPoolExecutor(1) as pool:
        with RunFolder(tmp_path).lock(), pytest.raises(Busy, match="thread trains in it"):
            pool.submit(lock).result()
        pool.submit(lock).result()


def test_a_write_error_names_the_command_that_continues_a_run(old_run: RunFolder) -> None:
    with pytest.raises(ResiduaError, match=r"File name too long.*residua resume .* continues"):
        old_run.write_text("x" * 300, "")
    with pytest.raises(ResiduaError, match=r"Choose a shorter name\.$"):
        RunFolder(old_run.path.parent).write_text("x" * 300, "")


def test_a_long_name_of_a_data_set_fits_into_the_name_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder.new(None, "a" * 254).path.name == "a" * 200 + "-1"
    assert len(RunFolder.new(None, "猫" * 80).path.name) == 66 + 2


def test_a_run_that_was_killed_before_its_training_may_be_started_again(tmp_path: Path) -> None:
    folder = RunFolder.new(str(tmp_path / "run"), "data")
    for name in ("classes.json", "environment.json"):
        folder.write_json(name, {})
    with pytest.raises(ResiduaError, match="was interrupted before its training began"):
        RunFolder.existing(folder.path)
    RunFolder.new(str(folder.path), "data")
    (folder.path / "notes.txt").write_text("of the user")
    with pytest.raises(ResiduaError, match="is not empty"):
        RunFolder.new(str(folder.path), "data")


DEEP = "[" * 100_000
HUGE = "1" * 400


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("classes.json", text) for text in ("5", "null", '[["a"]]', "[]", "{}", DEEP, "\xff")),
        *(("choices.json", text) for text in ("5", "[5]", '[{"setting": 1}]', '[{"a": 2}]', DEEP)),
        *(("config.yaml", text) for text in ("5", "training: 5", f"training: {{epochs: {HUGE}}}")),
        *(("split.csv", text) for text in ("", "path,class,split,sha256\na,b\n", "a,b\n1,2\n")),
        ("split.csv", "path,class,split,sha256\na,b,odd,0\n"),
        *(("history.csv", f"epoch,loss\n{text},1\n") for text in (HUGE, "nan", "2", "-1", "x")),
    ],
)
def test_a_damaged_file_of_a_run_is_named(old_run: RunFolder, name: str, content: str) -> None:
    (old_run.path / name).write_text(content)
    run = residua.load(old_run.path)
    with pytest.raises(ResiduaError, match=name):
        _ = (run.classes, run.folder.choices, run.config, run.folder.read_split(), run.history)
    if name not in ("history.csv", "choices.json"):  # which it does not need
        result = command("evaluate", str(old_run.path))
        assert (result.status, name in result.stderr) == (1, True)


@pytest.mark.parametrize("row", ["5", "[]", '{"event": 1, "step": "x"}', "{}", DEEP])
def test_a_damaged_line_of_the_log_is_dropped(tmp_path: Path, row: str) -> None:
    path, good = tmp_path / "log.jsonl", '{"event": "epoch", "step": 1, "epoch": 1}\n'
    path.write_text(f"{good}{row}\n")
    Log(path, 3, 1).close()
    assert path.read_text() == good


def test_classes_that_contradict_the_weights_are_refused(old_run: RunFolder) -> None:
    names = list(old_run.classes)
    (old_run.path / "classes.json").write_text(json.dumps(names[::-1]))
    for words in (["evaluate"], ["predict", str(old_run.path.parent / "data")]):
        result = command(words[0], str(old_run.path), *words[1:])
        assert result.status == 1
        assert "classes.json: contradicts best.safetensors" in result.stderr


def test_missing_weights_of_a_finished_run_are_not_expected_from_resuming(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(ResiduaError, match=r"residua resume .* continues it"):
        _ = run.weights
    (tmp_path / "report.html").touch()
    with pytest.raises(ResiduaError, match="is missing: restore it, or train again"):
        _ = run.weights
