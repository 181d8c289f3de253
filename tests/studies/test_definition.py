"""A study's file is read whole, old names included, and every mistake in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from residua.errors import ResiduaError
from residua.studies import definition

TINY = """
title: Two <orders>
claim: It makes no difference.
source: nobody
settings: {network.name: cifar_resnet20, training.epochs: 1, training.max_images: 96}
rows:
  a: {description: original, network.ordering: a}
  e: {description: pre-activation, network.ordering: e}
families: {both: [a, e]}
published:
  - {title: Error of others, source: a paper, columns: [row, error], rows: [[a, 6.61], [e, 6.37]]}
"""
GRID = """
title: Depth
claim: It hurts.
source: nobody
degradation: {network: cifar_resnet, depths: [14, 32], variants: {SGD: {}, Adam: {}}}
"""
OLD = """
title: Depth
claim: It hurts.
source: nobody
settings: {optimization.rate: 0.02, training.batch: 16, network.name: cifar_resnet20}
rows: {a: {what: original, optimization.rate: 0.03, network.ordering: a}}
degradation: {network: cifar_resnet, depths: [14, 32], ways: {SGD: {training.pictures: 64}}}
reach: true
paper: {settings: {optimization.learning_rate: 0.1}, rows: {a: {what: of the paper}}}
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: [", "cannot be read"),
        ("just words", "expected title, claim, source and rows"),
        (TINY.replace("claim:", "clam:"), "'clam' is unknown"),
        (TINY.replace("both: [a, e]", "both: [a, f]"), "compares 'f', which is none of its rows"),
        (TINY.replace("ordering: e", "ordering: z"), r"network\.ordering = 'z'"),
        (TINY.replace("  e: {", "  ../e: {"), "row '../e'"),
        (TINY.replace("rows:\n", "rows: 3\nlines:\n"), "'lines' is unknown"),
        (TINY.replace("description: original, ", ""), "is not a valid study"),
        (TINY.replace("both: [a, e]", "both: [a]"), "compare two rows or more"),
        (TINY.replace("network.name: cifar_resnet20, ", ""), "row a has no network"),
        (TINY + "sections: foo\n", "sections = 'foo': expected one of cardinality"),
        (TINY + "paper: 3\n", "paper = 3: expected keys of a study"),
        (TINY + "paper: {paper: {}}\n", "expected keys of a study"),
        (TINY + "paper: {families: {both: [a, f]}}\n", "compares 'f'"),
        (TINY.replace("both: [a, e]", "both: ae"), "is not a valid study"),
        (TINY.replace("both: [a, e]", "both: [a, a]"), "'a' is repeated"),
        (TINY.replace("  e: {", "  A: {description: x}\n  e: {"), "'a' is repeated"),
        (TINY.replace("[e, 6.37]", "[e]"), r"published 'Error of others': \['e'\]"),
        (TINY.replace("source: nobody", "source: 2015-02-30"), "cannot be read"),
        (TINY.replace("source: nobody", "source:"), "source = None: expected a text"),
        (TINY.replace("source: nobody", "source: 2015-02-28"), "expected a text"),
        (TINY.replace("source: a paper", "source: 2016"), r"'Error of others': source = 2016"),
        (TINY.replace("columns: [row, error]", "columns: [row, 3]"), r"columns = \['row', 3\]"),
        (GRID.replace("[14, 32]", "[32, 14]"), "each greater than the last"),
        (GRID.replace("[14, 32]", "[14, 14]"), "each greater than the last"),
        (GRID.replace("Adam", "sgd"), "'plain14-sgd' is repeated"),
        (TINY + "paper: {clam: 3}\n", "'clam' is unknown"),
        (TINY + "degradation: {network: cifar_resnet, depths: [20]}\n", "is not a valid study"),
    ],
)
def test_a_mistake_in_a_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ResiduaError, match=words) as caught:
        definition.read(str(tmp_path / "own.yaml"))
    assert "own.yaml" in str(caught.value)


def test_a_file_without_paper_settings_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(TINY)
    with pytest.raises(ResiduaError, match="no 'paper' section, which --paper needs"):
        definition.read(str(tmp_path / "own.yaml"), paper=True)


def test_names_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    study = definition.read(str(tmp_path / "old.yaml"))
    row, plain, *_ = study.rows
    assert (study.time_to_accuracy, row.description) == (True, "original")
    assert study.config(row, {}).optimization.learning_rate == 0.03
    config = study.config(plain, {"training.batch_size": 8})
    assert (config.training.max_images, config.training.batch_size) == (64, 8)
    assert config.optimization.learning_rate == 0.02
    paper = definition.read(str(tmp_path / "old.yaml"), paper=True)
    assert paper.rows[0].description == "of the paper"
    assert paper.config(paper.rows[1], {}).optimization.learning_rate == 0.1


def test_every_study_of_the_package_is_valid() -> None:
    for name in definition.shipped():
        for paper in (False, True):
            study = definition.read(name, paper=paper)
            assert study.families or study.degradation


def test_the_papers_settings_override_those_for_a_small_machine() -> None:
    depth = definition.read("depth", paper=True)
    (sgd, *_) = depth.degradation
    assert [row.name for row in sgd.plain] == [f"plain{k}-sgd" for k in (20, 32, 44, 56)]
    config = depth.config(sgd.plain[-1], {})
    assert config.network.name == "cifar_resnet56"
    assert (config.network.shortcut, config.optimization.learning_rate) == ("none", 0.1)
    assert (config.training.epochs, config.training.batch_size) == (164, 128)
    assert depth.config(depth.degradation[2].residual[0], {}).optimization.optimizer == "adam"
    study = definition.read("recipe", paper=True)
    steps, cosine = study.rows
    recipe = study.config(steps, {})
    assert recipe.optimization.steps == ((81, 0.1), (122, 0.01))
    assert recipe.training.epochs == 200 > cosine.settings["training.epochs"]
    tutorial = definition.read("mixed34", paper=True)
    config = tutorial.config(tutorial.rows[1], {})
    assert (config.network.name, config.augmentation.shift) == ("tutorial_cifar_resnet34", 0.125)
