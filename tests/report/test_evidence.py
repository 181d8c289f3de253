"""The report shows what speaks for and against the accuracy of a run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from references.images import write_shapes

import residua
from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.evaluation.score import EvaluationSet, evaluation_of
from residua.evaluation.thumbnail import baselines
from residua.report.evidence import Evidence, evidence_of
from residua.report.model_card import model_card
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.load import read_file


@pytest.fixture
def prepared(run: RunFolder) -> Prepared:
    return prepare(run.config, Console(quiet=True), recorded=run.read_split())


def evidence(run: RunFolder, prepared: Prepared, seconds: float = 9) -> Evidence:
    """Of a test set in which every prediction is the class after the true one, but the last."""
    members = prepared.splits["test"]
    labels = prepared.labels[members]
    logits = np.full((len(members), 3), -2, np.float32)
    predicted = (labels + 1) % 3
    predicted[-1] = labels[-1]
    logits[np.arange(len(members)), predicted] = 2
    images = EvaluationSet.of(prepared, members, "test")
    evaluation = evaluation_of(logits, images, prepared.dataset.classes)
    return evidence_of(read_file(run.weights), prepared, evaluation, None, seconds)


def test_errors_come_with_heat_maps_and_their_nearest_training_images(
    run: RunFolder, prepared: Prepared
) -> None:
    found = evidence(run, prepared)
    assert len(found.examples) == 12
    assert sum(example.is_right for example in found.examples) == 1
    split_of = {member.path: member for member in prepared.members}
    for example in found.examples:
        assert example.image.startswith("data:image/jpeg;base64,")
        assert example.heat.startswith("data:image/jpeg;base64,")
        assert len(example.neighbours) == (0 if example.is_right else 3)
        for near in example.neighbours:
            member = split_of[near.path]
            assert (member.split, member.label) == ("train", near.class_name)
        similarities = [near.similarity for near in example.neighbours]
        assert similarities == sorted(similarities, reverse=True)
    assert found.compared == len(prepared.splits["train"])


def test_the_nearest_training_image_of_a_copy_is_its_original(
    run: RunFolder, prepared: Prepared
) -> None:
    train, test = prepared.splits["train"], prepared.splits["test"]
    originals = {}
    for member, original in zip(test, train[::2], strict=False):
        prepared.pixels[member] = prepared.pixels[original]
        entries = prepared.dataset.entries
        originals[entries[member].path] = entries[original].path
    for example in evidence(run, prepared).examples:
        if not example.is_right:
            assert example.neighbours[0].path == originals[example.path]
            assert example.neighbours[0].similarity == pytest.approx(1, abs=1e-3)


def test_without_time_there_are_no_neighbours(run: RunFolder, prepared: Prepared) -> None:
    found = evidence(run, prepared, seconds=0)
    assert found.compared == 0
    assert not any(example.neighbours for example in found.examples)


def test_thumbnails_predict_colours_but_not_shapes(tmp_path: Path) -> None:
    from references.images import write_colours

    write_colours(tmp_path / "colours", {"a": 0, "b": 2}, 20, (24, 24), seed=0)
    settings = {"data.path": str(tmp_path / "colours"), "data.test_fraction": 0.4}
    found = prepare(with_settings(Config(), settings), Console(quiet=True))
    majority, nearest, logistic = baselines(found, found.splits["test"]).values()
    assert (majority, nearest, logistic) == (0.5, 1, 1)
    random = np.random.default_rng(0)
    found.pixels[:] = random.integers(0, 256, found.pixels.shape)
    _, nearest, logistic = baselines(found, found.splits["test"]).values()
    assert max(nearest, logistic) < 0.9


@pytest.mark.slow
def test_the_report_of_a_training_has_all_of_it(tmp_path: Path, one_thread: None) -> None:
    data = write_shapes(tmp_path / "shapes", 12)
    settings = {"network.name": "cifar_resnet14", "training.epochs": 1, "data.test_fraction": 0.3}
    run = residua.train(data, out=tmp_path / "run", settings=settings, quiet=True)
    text = (run.path / "report.html").read_text("utf-8")
    assert "8 x 8 thumbnail, 1-NN" in text
    assert "Heat maps (Grad-CAM)" in text
    assert "nearest training images among" in text
    assert "balanced accuracy" in text
    card = model_card(run.folder)
    assert card.startswith("---\nlibrary_name: residua\n")
    assert "path: shapes" in card
    assert str(tmp_path) not in card
    assert len(text) < 1_500_000
    assert not re.search(r"(src|href)=\"https?:", text)
