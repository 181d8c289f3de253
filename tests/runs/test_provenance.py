"""What weights have seen is known after any number of steps, and where only the file is left."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from references.images import write_shapes
from references.runs import ONE_STAGE, trained

import residua
from residua.runs.folder import EARLIER
from residua.runs.provenance import earlier_images, images_seen, runs_of, with_provenance
from residua.runs.sources import open_weights
from residua.system.console import Console
from residua.weights.convert import convert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

QUIET = Console(quiet=True)
SMALL = {"epochs": 1, "size": 16, "batch_size": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("data"), 10)


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """A run with a test set of its own."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return trained(data, out, ONE_STAGE, test_fraction=0.2, **SMALL)


def test_images_of_the_first_of_three_runs_are_known_to_the_third(
    first: residua.Run, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_shapes(tmp_path / "other", 6, size=17)
    second = trained(other, tmp_path / "second", weights=first.path, **SMALL)
    assert first.folder.images_used() <= images_seen(second.folder)
    shutil.copytree(first.path, tmp_path / "moved")  # and the record needs no earlier run
    options = {**SMALL, "split_seed": 5, "test_fraction": 0.2}
    third = residua.train(data, weights=second.path, out=tmp_path / "third", **options)
    assert "test images were used to train" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="or by the weights that they started from"):
        residua.evaluate(third)
    (second.path / EARLIER).unlink()  # as in a run of an earlier version
    assert earlier_images(second.folder) == first.folder.images_used()


def test_a_file_of_a_run_has_seen_the_images_of_the_run(
    first: residua.Run, data: Path, tmp_path: Path
) -> None:
    weights = open_weights(first.path, None, QUIET)
    files = [first.path / "best.safetensors", tmp_path / "copy.safetensors"]
    convert(with_provenance(weights), files[1])
    for file in files:
        (run,) = runs_of(open_weights(file, None, QUIET))
        assert images_seen(run) == first.folder.images_used()
        with pytest.warns(UserWarning, match="24 of 30 images were used to train these weights"):
            residua.evaluate(file, data)
    assert runs_of(dataclasses.replace(weights, path=tmp_path / "gone.safetensors")) == []
    assert [run.path for run in runs_of(weights)] == [first.path]
