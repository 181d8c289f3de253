"""Finished runs side by side: paired differences, exact facts, settings that differ, refusals."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from references import command_line
from references.runs import ONE_STAGE, trained
from safetensors.torch import load_file
from scipy.stats import binomtest

import residua
from residua.comparison.compare import Comparison, differing
from residua.config.parse import with_settings
from residua.config.schema import Config, Network, Training
from residua.errors import ResiduaError
from residua.runs.folder import Member, RunFolder

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

ODD = {"0": 'a|b, "q"', "1": "<b> $x$_{1}", "2": "Käuzchen 猫"}


def train(folder: Path, data: Path, **settings: object) -> Path:
    """A run of one stage of a network, an epoch unless `settings` differ."""
    network = {} if "network.weights" in settings else ONE_STAGE
    tiny = {"training.epochs": 1, "data.test_fraction": 0.25}
    return trained(data, folder, {**network, **tiny, **settings}).path


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path], one_thread: None
) -> Path:
    """Runs on 200 digits: a; b, of another seed; c, another network; other, of another split."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_digits(folder / "digits", 20)
    two = {"training.epochs": 2, "training.curve_test": True}
    train(folder / "a", data, **two)
    train(folder / "b", data, **two, **{"training.seed": 1})
    deeper = {"network.name": "cifar_resnet20", "optimization.learning_rate": 0.02}
    train(folder / "c", data, **two, **deeper)
    train(folder / "other", data, **{"data.split_seed": 5})
    return folder


@pytest.fixture(scope="module")
def seeds(runs: Path) -> Comparison:
    """Runs a and b compared."""
    return residua.compare(residua.load(runs / "a"), str(runs / "b"), out=runs / "seeds")


@pytest.fixture(scope="module")
def networks(runs: Path) -> Comparison:
    """Runs a and c compared."""
    return residua.compare(runs / "a", runs / "c", out=runs / "networks")


@pytest.fixture(scope="module")
def odd(
    tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path], one_thread: None
) -> Path:
    """Runs on a folder whose classes have odd names; in the second, one has another name."""
    folder = tmp_path_factory.mktemp("odd")
    data = write_digits(folder / "digits", 20)
    for class_folder in list(data.iterdir()):
        if class_folder.name in ODD:
            class_folder.rename(data / ODD[class_folder.name])
        else:
            shutil.rmtree(class_folder)
    train(folder / "_one $x$", data, **{"data.test_fraction": 0.5})
    (data / ODD["1"]).rename(data / "renamed")
    train(folder / "two", data, **{"data.test_fraction": 0.5})
    return folder


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """Run b, to be damaged."""
    shutil.copytree(runs / "b", tmp_path / "copy")
    return tmp_path / "copy"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def correct_in(run: Path) -> dict[str, bool]:
    rows = rows_of(run / "evaluations" / "test" / "predictions.csv")
    return {row["path"]: row["class"] == row["predicted"] for row in rows}


def test_differences_are_those_of_the_predictions(runs: Path, tmp_path: Path) -> None:
    comparison = residua.compare(runs / "a", runs / "b", runs / "c", out=tmp_path / "out")
    for run in comparison.runs:
        scores = json.loads((Path(run.path) / "evaluations" / "test" / "scores.json").read_text())
        assert run.interval == pytest.approx(scores["interval"])
    rows = rows_of(tmp_path / "out" / "differences.csv")
    first = correct_in(runs / "a")
    for name, pair, row in zip("bc", comparison.pairs, rows, strict=True):
        second = correct_in(runs / name)
        assert first.keys() == second.keys()
        number = len(first)
        gained = sum(second[path] and not first[path] for path in first)
        lost = sum(first[path] and not second[path] for path in first)
        # Agresti and Min's adjusted Wald interval, with half a pair more in each of four cells.
        centre, count = (gained - lost) / (number + 2), number + 2
        spread = (gained + lost + 1 - (gained - lost) ** 2 / count) / count**2
        half = 1.959964 * math.sqrt(spread)
        assert (pair.gained, pair.lost, pair.images) == (gained, lost, number)
        assert pair.accuracies == (sum(first.values()) / number, sum(second.values()) / number)
        assert pair.difference is not None
        assert pair.difference.mean == pytest.approx((gained - lost) / number)
        assert pair.difference.low == pytest.approx(centre - half, abs=1e-6)
        assert pair.difference.high == pytest.approx(centre + half, abs=1e-6)
        assert float(row["difference, points"]) == pytest.approx(100 * (gained - lost) / number)
        assert float(row["95 % CI, low"]) == pytest.approx(100 * (centre - half), abs=1e-4)
        assert row["second"] == name
        assert row["correct in the first only"] == str(lost)
        assert row["correct in the second only"] == str(gained)
        sentence = next(
            sentence
            for sentence in comparison.page.findings
            if f"{number} images" in sentence and re.search(rf"\b{name}\b", sentence)
        )
        assert ("no significant" in sentence) == (not pair.significant)
        assert pair.p_value == pytest.approx(binomtest(gained, gained + lost).pvalue)
    text = (tmp_path / "out" / "compare.md").read_text("utf-8")
    assert "not the training seed" in text
    assert "adjusted for 2 comparisons (Holm)" in text
    for name in ("curves", "end"):
        assert f"(figures/{name}.png)" in text
        with Image.open(tmp_path / "out" / "figures" / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.size[0] > 1000
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
        svg = tmp_path / "out" / "figures" / f"{name}.svg"
        assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_facts_are_those_of_the_files(networks: Comparison, runs: Path) -> None:
    for facts, row in zip(networks.runs, rows_of(runs / "networks" / "compare.csv"), strict=True):
        run = RunFolder.existing(facts.path)
        history = rows_of(run.path / "history.csv")
        tensors = load_file(run.weights)
        statistics_of_norms = ("running_mean", "running_var", "num_batches_tracked")
        total = sum(
            tensor.numel()
            for key, tensor in tensors.items()
            if not key.endswith(statistics_of_norms)
            and not key.startswith(("golden.", "uncertainty."))
        )
        scores = run.read_json("evaluations/test/scores.json")
        assert facts.parameters == total == int(row["parameters"])
        assert facts.file_bytes == run.weights.stat().st_size
        assert float(row["file, MB"]) == facts.file_bytes / 1e6
        assert facts.accuracy == pytest.approx(scores["accuracy"])
        assert facts.seconds == float(history[-1]["seconds"])
        speeds = [float(epoch["images_per_second"]) for epoch in history]
        assert facts.images_per_second == statistics.median(speeds)
        assert facts.epochs == len(history) == 2


def test_settings_that_differ_are_exact(
    seeds: Comparison, networks: Comparison, runs: Path, tmp_path: Path
) -> None:
    assert seeds.settings == {"training.seed": (0, 1)}
    assert "a and b differ in training.seed only." in seeds.page.findings
    rate = residua.load(runs / "a").config.optimization.learning_rate
    assert networks.settings == {
        "network.name": ("cifar_resnet14", "cifar_resnet20"),
        "optimization.learning_rate": (rate, 0.02),
    }
    rows = rows_of(runs / "networks" / "settings.csv")
    assert rows[0] == {"setting": "network.name", "a": "cifar_resnet14", "c": "cifar_resnet20"}
    for name in ("x/seed", "y/seed"):
        shutil.copytree(runs / "a", tmp_path / name)
    same = residua.compare(tmp_path / "x" / "seed", tmp_path / "y" / "seed", out=tmp_path / "same")
    assert same.settings == {}
    # The names are the shortest ends of the paths that differ.
    assert [run.name for run in same.runs] == ["x/seed", "y/seed"]
    assert "x/seed and y/seed have the same settings." in same.page.findings
    assert not (tmp_path / "same" / "settings.csv").exists()


def test_runs_are_separate_arguments(tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match=r"\['a', 'b'\]: expected a path"):
        residua.compare(["a", "b"])  # type: ignore[arg-type]


def test_settings_of_every_type_are_compared() -> None:
    third = Config(network=Network(stage=2), training=Training(seed=3))
    assert differing([Config(), Config(), third]) == {
        "network.stage": (None, None, 2),
        "training.seed": (0, 0, 3),
    }


def test_runs_with_other_splits_are_compared_on_images_that_neither_was_trained_on(
    runs: Path, tmp_path: Path
) -> None:
    comparison = residua.compare(runs / "a", runs / "other", out=tmp_path / "out")
    (pair,) = comparison.pairs
    splits = [
        {member.path: member.split for member in RunFolder.existing(runs / name).read_split()}
        for name in ("a", "other")
    ]
    correct = [correct_in(runs / name) for name in ("a", "other")]
    shared = correct[0].keys() & correct[1].keys()
    assert 4 < len(shared) < 40
    assert pair.images == len(shared)
    assert pair.accuracies == tuple(
        pytest.approx(sum(right[path] for path in shared) / len(shared)) for right in correct
    )
    trained_on = [
        sum(splits[1 - index][path] == "train" for path in correct[index]) for index in range(2)
    ]
    assert pair.trained_on == tuple(trained_on)
    sentence = f"{trained_on[0]} of the {len(correct[0])} images that a was evaluated on"
    assert any(sentence in text and "excluded" in text for text in comparison.page.findings)


def test_images_are_matched_by_content(
    seeds: Comparison, runs: Path, copied: Path, tmp_path: Path
) -> None:
    run = RunFolder.existing(copied)
    moved = [
        Member(f"moved/{member.path}", member.label, member.split, member.sha256)
        for member in run.read_split()
    ]
    run.write_split(moved)
    file = copied / "evaluations" / "test" / "predictions.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head, *(f"moved/{line}" for line in reversed(lines))]) + "\n")
    by_content = residua.compare(runs / "a", copied, out=tmp_path / "content").pairs[0]
    assert by_content.difference == seeds.pairs[0].difference
    assert by_content.gained == seeds.pairs[0].gained


def test_images_are_compared_under_odd_and_changed_class_names(odd: Path, tmp_path: Path) -> None:
    names = ("_one $x$", "two")
    comparison = residua.compare(*(odd / name for name in names), out=tmp_path / "out")
    (pair,) = comparison.pairs
    classes = []
    for name in names:
        contents = {m.path: m.sha256 for m in RunFolder.existing(odd / name).read_split()}
        rows = rows_of(odd / name / "evaluations" / "test" / "predictions.csv")
        classes.append({contents[row["path"]]: row["class"] for row in rows})
    assert set(classes[1].values()) == {ODD["0"], "renamed", ODD["2"]}
    shared = classes[0].keys() & classes[1].keys()
    renamed = sum(classes[1][content] == "renamed" for content in shared)
    assert renamed > 0
    assert pair.relabelled == renamed
    assert pair.images == len(shared) - renamed > 0
    text = "\n".join(comparison.page.findings)
    assert f"{renamed} images of another class" in text
    assert "different classes" in text
    assert "_one $x$ against two" in (tmp_path / "out" / "index.html").read_text("utf-8")
    assert comparison.runs[0].name in comparison.text()


def test_runs_without_shared_images_are_not_compared(runs: Path, odd: Path, tmp_path: Path) -> None:
    other = shutil.copytree(odd / "two", tmp_path / "two")
    file = other / "split.csv"
    text = file.read_text("utf-8")
    contents = {m.sha256 for m in RunFolder.existing(other).read_split()}
    for content in contents:
        text = text.replace(content, content[::-1])
    file.write_text(text, "utf-8")
    comparison = residua.compare(runs / "a", other, out=tmp_path / "out")
    assert comparison.pairs[0].difference is None
    assert "a and two are not compared: 0 common test images" in comparison.page.findings[0]
    assert "not the training seed" not in comparison.text()
    (row,) = rows_of(tmp_path / "out" / "differences.csv")
    assert row["shared images"] == "0"
    assert row["difference, points"] == row["correct in the first only"] == ""


def test_runs_without_a_history_or_a_test_set(runs: Path, tmp_path: Path) -> None:
    weights = {"network.weights": str(runs / "a"), "transfer.strategy": "features"}
    probe = train(tmp_path / "probe", runs / "digits", **weights)
    everything = {"data.val_fraction": 0.0, "data.test_fraction": 0.0}
    train(tmp_path / "everything", runs / "digits", **everything)
    comparison = residua.compare(runs / "a", probe, tmp_path / "everything", out=tmp_path / "out")
    assert comparison.runs[1].images_per_second is None
    assert comparison.runs[1].seconds is None
    findings = comparison.page.findings
    assert "probe has no history.csv (as a linear probe): no curves, no throughput." in findings
    assert comparison.pairs[0].difference is not None
    assert comparison.pairs[1].difference is None
    assert comparison.runs[2].accuracy is None
    assert (tmp_path / "out" / "figures" / "curves.png").exists()
    for name in ("p", "q"):
        shutil.copytree(probe, tmp_path / name)
    residua.compare(tmp_path / "p", tmp_path / "q", out=tmp_path / "none")
    assert not (tmp_path / "none" / "figures").exists()


def test_runs_that_cannot_be_compared_are_refused(runs: Path, copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match="at least two runs"):
        residua.compare(runs / "a")
    with pytest.raises(ResiduaError, match="listed twice"):
        residua.compare(runs / "a", runs / "b", runs / "b" / ".." / "a")
    with pytest.raises(ResiduaError, match=r"nowhere: .*expected a run folder"):
        residua.compare(runs / "a", tmp_path / "nowhere")
    (copied / "report.html").touch()  # the last file of a finished run
    shutil.rmtree(copied / "evaluations")
    with pytest.raises(ResiduaError, match=r"copy: has no predictions\. `residua evaluate .*copy"):
        residua.compare(runs / "a", copied)
    (copied / "report.html").unlink()
    with pytest.raises(ResiduaError, match=r"is unfinished\. `residua resume .*copy`"):
        residua.compare(runs / "a", copied)
    for file in copied.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ResiduaError, match=r"no weights yet.*`residua resume .*copy`"):
        residua.compare(runs / "a", copied)


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (0, "place,class,predicted,probability,correct", "expected rows with path, class, correct"),
        (1, "gone,0,0,0.5,true", "lists gone, which is not in split.csv"),
        (1, None, "correct is 'maybe', expected true or false"),
    ],
)
def test_damaged_predictions_are_refused(
    line: int, text: str | None, words: str, runs: Path, copied: Path
) -> None:
    file = copied / "evaluations" / "test" / "predictions.csv"
    lines = file.read_text().splitlines()
    text = text or ",".join([*lines[line].split(",")[:-1], "maybe"])
    file.write_text("\n".join([*lines[:line], text, *lines[line + 1 :]]) + "\n")
    with pytest.raises(ResiduaError, match=words) as caught:
        residua.compare(runs / "a", copied)
    assert "predictions.csv" in str(caught.value)
    assert "`residua evaluate" in str(caught.value)


def test_predictions_of_version_0_1_0_are_read(runs: Path, copied: Path, tmp_path: Path) -> None:
    file = copied / "evaluations" / "test" / "predictions.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head.replace("correct", "right"), *lines]) + "\n")
    (pair,) = residua.compare(runs / "b", copied, out=tmp_path / "out").pairs
    assert (pair.images, pair.gained, pair.lost) == (len(lines), 0, 0)


def test_a_comparison_is_not_written_into_runs_data_or_used_folders(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for used in (tmp_path, tmp_path / "letter.txt"):
        with pytest.raises(ResiduaError, match="is not empty"):
            residua.compare(runs / "a", runs / "b", out=used)
    with pytest.raises(ResiduaError, match="is inside the run"):
        residua.compare(runs / "a", runs / "b", out=runs / "c" / "out")
    with pytest.raises(ResiduaError, match="the data folder"):
        residua.compare(runs / "a", runs / "b", out=runs / "digits" / "out")
    monkeypatch.chdir(runs / "a")
    with pytest.raises(ResiduaError, match="is inside the run"):
        residua.compare(runs / "a", runs / "b")
    assert not (runs / "a" / "comparisons").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_the_command_prints_tables_or_json(runs: Path, tmp_path: Path) -> None:
    words = ("compare", str(runs / "a"), str(runs / "c"))
    plain = command_line.residua(*words, cwd=tmp_path)
    assert plain.status == 0, plain.stderr
    assert plain.stdout.endswith("comparisons/1/index.html\n")
    assert max(map(len, plain.stdout.split("\n- ")[0].splitlines())) < 80
    assert "Test accuracy on the same" in plain.stdout
    content = json.loads(command_line.residua(*words, "--json", cwd=tmp_path).stdout)
    assert content["folder"] == "comparisons/2"
    assert (tmp_path / "comparisons" / "2" / "compare.csv").exists()
    assert [run["name"] for run in content["runs"]] == ["a", "c"]
    assert content["settings"]["network.name"] == ["cifar_resnet14", "cifar_resnet20"]
    difference = content["pairs"][0]["difference"]
    assert difference["low"] <= difference["mean"] <= difference["high"]


def test_settings_without_effect_on_a_linear_probe_do_not_differ() -> None:
    probe, other_probe, tuned, longer = (
        with_settings(Config(), {"transfer.strategy": strategy, "network.head": head, **settings})
        for strategy, head, settings in (
            ("features", "logistic", {"training.epochs": 60}),
            ("features", "logistic", {"training.epochs": 30, "augmentation.flip": True}),
            ("full", "logistic", {"training.epochs": 5}),
            ("full", "logistic", {"training.epochs": 10}),
        )
    )
    assert differing([probe, other_probe]) == {}
    assert differing([probe, tuned]) == {"transfer.strategy": ("features", "full")}
    assert differing([probe, tuned, longer])["training.epochs"] == (None, 5, 10)
