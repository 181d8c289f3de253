"""Runs side by side: the same images, honest differences, what differs, figures, refusals."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image
from safetensors.torch import load_file

import residua
from residua.comparison.compare import differing
from residua.comparison.curves import overlays
from residua.comparison.pairing import Answer, Judged, pair
from residua.config.schema import Config, Network, Training
from residua.errors import ResiduaError
from residua.runs.folder import Member, RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")

ODD = {"0": 'a|b, "q"', "1": "<b> $x$_{1}", "2": "Käuzchen 猫"}


def train(folder: Path, data: str | Path = "digits", **given: object) -> Path:
    """A run of a few seconds, on 200 images for an epoch or two."""
    network = {"network.name": "cifar_resnet20"} if "network.weights" not in given else {}
    tiny = {"training.max_images": 200, "training.epochs": 1, "data.test_fraction": 0.25}
    residua.train(data, out=folder, settings={**network, **tiny, **given}, quiet=True)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Finished runs on the digits: a; b, of another seed; c, another network; other, split anew."""
    place = tmp_path_factory.mktemp("runs")
    two = {"training.epochs": 2, "training.curve_test": True}
    train(place / "a", **two)
    train(place / "b", **two, **{"training.seed": 1})
    train(
        place / "c", **two, **{"network.name": "cifar_resnet32", "optimization.learning_rate": 0.02}
    )
    train(place / "other", **{"data.split_seed": 5})
    return place


@pytest.fixture(scope="module")
def odd(
    tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path], one_thread: None
) -> Path:
    """Runs on a folder whose classes have odd names; in the second, one has another name."""
    place = tmp_path_factory.mktemp("odd")
    data = write_digits(place / "digits", 30)
    for folder in list(data.iterdir()):
        if folder.name in ODD:
            folder.rename(data / ODD[folder.name])
        else:
            shutil.rmtree(folder)
    train(place / "_one $x$", data, **{"data.test_fraction": 0.5})
    (data / ODD["1"]).rename(data / "renamed")
    train(place / "two", data, **{"data.test_fraction": 0.5})
    return place


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """Run b, to be damaged."""
    shutil.copytree(runs / "b", tmp_path / "copy")
    return tmp_path / "copy"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def right_of(run: Path, part: str = "test") -> dict[str, bool]:
    rows = rows_of(run / "evaluations" / part / "predictions.csv")
    return {row["path"]: row["class"] == row["predicted"] for row in rows}


def test_differences_are_those_of_the_predictions(runs: Path, tmp_path: Path) -> None:
    found = residua.compare(runs / "a", runs / "b", runs / "c", out=tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "differences.csv")
    a = right_of(runs / "a")
    for name, each, row in zip("bc", found.pairs, rows, strict=True):
        other = right_of(runs / name)
        assert a.keys() == other.keys()
        number = len(a)
        gained = sum(other[path] and not a[path] for path in a)
        lost = sum(a[path] and not other[path] for path in a)
        # Agresti and Min's adjusted Wald interval, with half a pair more in each of four cells.
        centre, count = (gained - lost) / (number + 2), number + 2
        spread = (gained + lost + 1 - (gained - lost) ** 2 / count) / count**2
        half = 1.959964 * math.sqrt(spread)
        assert (each.gained, each.lost, each.images) == (gained, lost, number)
        assert each.accuracies == (sum(a.values()) / number, sum(other.values()) / number)
        assert each.difference is not None
        assert each.difference.mean == pytest.approx((gained - lost) / number)
        assert each.difference.low == pytest.approx(centre - half, abs=1e-6)
        assert each.difference.high == pytest.approx(centre + half, abs=1e-6)
        assert float(row["difference, points"]) == pytest.approx(100 * (gained - lost) / number)
        assert float(row["low"]) == pytest.approx(100 * (centre - half), abs=1e-4)
        assert row["to"] == name
        assert row["right in the first only"] == str(lost)
        assert row["right in the second only"] == str(gained)
        sentence = next(
            s for s in found.page.findings if "449 images" in s and re.search(rf"\b{name}\b", s)
        )
        assert ("no difference seen" in sentence) == (not each.difference.seen)
    said = (tmp_path / "out" / "compare.md").read_text("utf-8")
    assert "nothing of another training" in said
    assert "Each of these 2 intervals holds alone" in said


def test_facts_are_those_of_the_files(runs: Path, tmp_path: Path) -> None:
    found = residua.compare(runs / "a", runs / "c", out=tmp_path / "out")
    for facts, row in zip(found.runs, rows_of(tmp_path / "out" / "compare.csv"), strict=True):
        run = RunFolder.existing(facts.path)
        history = rows_of(run.path / "history.csv")
        tensors = load_file(run.weights)
        counted = sum(each.numel() for name, each in tensors.items() if "num_batches" not in name)
        scores = run.read_json("evaluations/test/scores.json")
        assert facts.parameters == counted == int(row["parameters"])
        assert facts.file_bytes == run.weights.stat().st_size
        assert float(row["file, MB"]) == facts.file_bytes / 1e6
        assert facts.accuracy == pytest.approx(scores["accuracy"])
        assert facts.seconds == float(history[-1]["seconds"])
        speeds = [float(each["images_per_second"]) for each in history]
        assert facts.images_per_second == statistics.median(speeds)
        assert facts.epochs == len(history) == 2


def test_what_differs_is_exact(runs: Path, tmp_path: Path) -> None:
    seeds = residua.compare(residua.load(runs / "a"), str(runs / "b"), out=tmp_path / "seeds")
    assert seeds.settings == {"training.seed": (0, 1)}
    assert "a and b differ in training.seed only." in seeds.page.findings
    rate = residua.load(runs / "a").config.optimization.learning_rate
    networks = residua.compare(runs / "a", runs / "c", out=tmp_path / "networks")
    assert networks.settings == {
        "network.name": ("cifar_resnet20", "cifar_resnet32"),
        "optimization.learning_rate": (rate, 0.02),
    }
    rows = rows_of(tmp_path / "networks" / "settings.csv")
    assert rows[0] == {"setting": "network.name", "a": "cifar_resnet20", "c": "cifar_resnet32"}
    shutil.copytree(runs / "a", tmp_path / "again")
    same = residua.compare(runs / "a", tmp_path / "again", out=tmp_path / "same")
    assert same.settings == {}
    assert "a and again have the same settings." in same.page.findings
    assert not (tmp_path / "same" / "settings.csv").exists()


def test_settings_of_every_kind_are_laid_flat() -> None:
    third = Config(network=Network(stage=2), training=Training(seed=3))
    assert differing([Config(), Config(), third]) == {
        "network.stage": (None, None, 2),
        "training.seed": (0, 0, 3),
    }


def test_other_splits_are_compared_on_images_that_neither_learnt(
    runs: Path, tmp_path: Path
) -> None:
    found = residua.compare(runs / "a", runs / "other", out=tmp_path / "out")
    (each,) = found.pairs
    parts = [
        {row["path"]: row["part"] for row in rows_of(runs / name / "split.csv")}
        for name in ("a", "other")
    ]
    answers = [right_of(runs / name) for name in ("a", "other")]
    common = answers[0].keys() & answers[1].keys()
    assert 20 < len(common) < 300
    assert each.images == len(common)
    assert each.accuracies == tuple(
        pytest.approx(sum(right[path] for path in common) / len(common)) for right in answers
    )
    taught = [
        sum(parts[1 - place][path] == "train" for path in answers[place]) for place in range(2)
    ]
    assert each.taught == tuple(taught)
    sentence = f"{taught[0]} of the {len(answers[0])} images that a judged"
    assert any(sentence in said and "left out" in said for said in found.page.findings)


def test_images_are_known_by_their_content(runs: Path, copied: Path, tmp_path: Path) -> None:
    run = RunFolder.existing(copied)
    moved = [
        Member(f"moved/{each.path}", each.label, each.split, each.sha256)
        for each in run.read_split()
    ]
    run.write_split(moved)
    file = copied / "evaluations" / "test" / "predictions.csv"
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([head, *(f"moved/{line}" for line in reversed(lines))]) + "\n")
    plain = residua.compare(runs / "a", runs / "b", out=tmp_path / "plain").pairs[0]
    by_content = residua.compare(runs / "a", copied, out=tmp_path / "content").pairs[0]
    assert by_content.difference == plain.difference
    assert by_content.gained == plain.gained


def judged_of(run: Path) -> dict[str, str]:
    """Content -> class of the images of the test part."""
    contents = {row["path"]: row["sha256"] for row in rows_of(run / "split.csv")}
    rows = rows_of(run / "evaluations" / "test" / "predictions.csv")
    return {contents[row["path"]]: row["class"] for row in rows}


def answers(*rows: tuple[str, str, bool]) -> list[Answer]:
    return [Answer(path, content, "x", right) for path, content, right in rows]


def test_copies_are_paired_once_and_what_taught_is_left_out() -> None:
    first = answers(
        *(("1", "p", True), ("2", "p", False), ("6", "p", True)),
        *(("3", "q", True), ("4", "r", True)),
    )
    second = answers(("2", "p", True), ("9", "p", False), ("4", "r", False), ("5", "s", True))
    found = pair(
        Judged("m", {"test": first}, frozenset("s")), Judged("n", {"test": second}, frozenset("q"))
    )
    # 2 with 2, 1 with 9, 4 with 4; nothing is left for 6, and 3 and 5 have taught a run.
    assert (found.images, found.gained, found.lost) == (3, 1, 2)
    assert found.taught == (1, 1)


def test_the_test_part_counts_where_both_have_one() -> None:
    some = answers(("1", "p", True), ("2", "q", True))
    none: frozenset[str] = frozenset()
    tested, chosen = Judged("t", {"test": some}, none), Judged("v", {"validation": some}, none)
    both = Judged("b", {"test": some, "validation": some}, none)
    assert pair(tested, both).parts == pair(both, both).parts == ("test", "test")
    assert pair(both, chosen).parts == ("validation", "validation")
    assert pair(tested, chosen).parts == ("test", "validation")
    assert (pair(tested, both).chose, pair(both, chosen).chose) == (0, 2)
    assert pair(tested, Judged("all", {}, none)).difference is None
    assert pair(tested, Judged("one", {"test": some[:1]}, none)).difference is None


def test_class_names_with_odd_characters(odd: Path, tmp_path: Path) -> None:
    names = ("_one $x$", "two")
    found = residua.compare(*(odd / name for name in names), out=tmp_path / "out")
    (each,) = found.pairs
    classes = [judged_of(odd / name) for name in names]
    assert set(classes[1].values()) == {ODD["0"], "renamed", ODD["2"]}
    common = classes[0].keys() & classes[1].keys()
    renamed = sum(classes[1][content] == "renamed" for content in common)
    assert renamed > 0
    assert each.relabelled == renamed
    assert each.images == len(common) - renamed > 0
    said = "\n".join(found.page.findings)
    assert f"{renamed} images bear another class" in said
    assert "not the same ones" in said
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "_one $x$ against two" in page
    assert found.runs[0].name in found.text()


def test_nothing_in_common_is_said(runs: Path, odd: Path, tmp_path: Path) -> None:
    found = residua.compare(runs / "a", odd / "two", out=tmp_path / "out")
    assert found.pairs[0].difference is None
    assert "a and two: no images judged by both" in found.page.findings[0]
    assert "nothing of another training" not in found.text()
    (row,) = rows_of(tmp_path / "out" / "differences.csv")
    assert row["common images"] == "0"
    assert row["difference, points"] == row["right in the first only"] == ""


def test_runs_without_a_history_or_a_judged_part(runs: Path, tmp_path: Path) -> None:
    weights: dict[str, object] = {
        "network.weights": str(runs / "a"),
        "transfer.strategy": "features",
        "training.max_images": 0,
    }
    solved = train(tmp_path / "solved", **weights)
    everything = {"data.val_fraction": 0.0, "data.test_fraction": 0.0}
    train(tmp_path / "everything", **everything)
    found = residua.compare(runs / "a", solved, tmp_path / "everything", out=tmp_path / "out")
    assert found.runs[1].images_per_second is None
    assert found.runs[1].seconds is None
    assert "solved has no history.csv, so neither curves nor speed." in found.page.findings
    assert found.pairs[0].difference is not None
    assert found.pairs[1].difference is None
    assert found.runs[2].accuracy is None
    assert (tmp_path / "out" / "figures" / "curves.png").exists()
    for name in ("p", "q"):
        shutil.copytree(solved, tmp_path / name)
    residua.compare(tmp_path / "p", tmp_path / "q", out=tmp_path / "none")
    assert not (tmp_path / "none" / "figures").exists()


def test_figures_are_images(runs: Path, tmp_path: Path) -> None:
    residua.compare(runs / "a", runs / "c", out=tmp_path / "out")
    said = (tmp_path / "out" / "compare.md").read_text("utf-8")
    for name in ("curves", "end"):
        with Image.open(tmp_path / "out" / "figures" / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.size[0] > 1000
            assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20
        svg = tmp_path / "out" / "figures" / f"{name}.svg"
        assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert f"(figures/{name}.png)" in said


def test_curves_hold_the_history(runs: Path) -> None:
    names = {"_a $x$": "a", "c": "c"}
    histories = {name: RunFolder.existing(runs / run).read_history() for name, run in names.items()}
    canvas = Canvas()
    overlays(histories)[0].draw(canvas)
    canvas.draw_without_rendering()
    accuracy, loss = canvas.axes
    for place, rows in enumerate(histories.values()):
        taught, judged = accuracy.lines[2 * place : 2 * place + 2]
        assert list(taught.get_ydata()) == [100 * row["accuracy"] for row in rows]
        assert list(judged.get_ydata()) == [100 * row["test_accuracy"] for row in rows]
        assert list(loss.lines[2 * place + 1].get_ydata()) == [row["test_loss"] for row in rows]
        assert (taught.get_linestyle(), judged.get_linestyle()) == ("--", "-")
        assert taught.get_color() == judged.get_color()
    assert len({line.get_color() for line in accuracy.lines}) == 2
    assert len({line.get_marker() for line in accuracy.lines}) == 2
    texts = [each.get_text() for each in canvas.legends[0].get_texts()]
    assert texts == ["_a $x$, training", "_a $x$, test", "c, training", "c, test"]


def test_curves_are_of_the_part_that_all_have_recorded() -> None:
    both = [{"epoch": 1.0, "accuracy": 0.5, "val_accuracy": 0.2, "test_accuracy": 0.3}]
    one = [{"epoch": 1.0, "accuracy": 0.5, "val_accuracy": 0.4}]
    canvas = Canvas()
    overlays({"both": both, "one": one})[1].draw(canvas)
    assert [list(line.get_ydata()) for line in canvas.axes[0].lines] == [[20.0], [40.0]]
    assert overlays({"solved": []}) == []


def test_the_end_is_the_last_epochs() -> None:
    long = {"m": [{"epoch": k, "loss": 1 / k, "val_accuracy": k / 20} for k in range(1, 21)]}
    zoomed = Canvas()
    overlays(long)[1].draw(zoomed)
    assert list(zoomed.axes[0].lines[0].get_xdata()) == list(range(13, 21))


def test_names_are_the_shortest_that_tell_runs_apart(runs: Path, tmp_path: Path) -> None:
    for name in ("x/seed", "y/seed"):
        shutil.copytree(runs / "a", tmp_path / name)
    found = residua.compare(tmp_path / "x" / "seed", tmp_path / "y" / "seed", out=tmp_path / "out")
    assert [each.name for each in found.runs] == ["x/seed", "y/seed"]


def test_runs_that_cannot_be_compared_are_named(runs: Path, copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match="two runs or more"):
        residua.compare(runs / "a")
    with pytest.raises(ResiduaError, match="named twice"):
        residua.compare(runs / "a", runs / "b", runs / "b" / ".." / "a")
    with pytest.raises(ResiduaError, match=r"nowhere: is no folder: expected a run"):
        residua.compare(runs / "a", tmp_path / "nowhere")
    shutil.rmtree(copied / "evaluations")
    with pytest.raises(ResiduaError, match=r"copy: has no predictions\. `residua evaluate .*copy"):
        residua.compare(runs / "a", copied)
    (copied / "report.html").unlink()
    with pytest.raises(ResiduaError, match=r"has not ended\. `residua resume .*copy`"):
        residua.compare(runs / "a", copied)
    for file in copied.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ResiduaError, match=r"no weights yet.*`residua resume .*copy`"):
        residua.compare(runs / "a", copied)


def test_a_run_that_is_judged_and_not_finished_is_said(
    runs: Path, copied: Path, tmp_path: Path
) -> None:
    (copied / "report.html").unlink()
    found = residua.compare(runs / "a", copied, out=tmp_path / "out")
    assert any("copy is not finished" in said for said in found.page.findings)


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (0, "place,class,predicted,probability,right", "expected rows with path, class, right"),
        (1, "gone,0,0,0.5,true", "names gone, which split.csv does not hold"),
    ],
)
def test_damaged_predictions_are_named(
    line: int, text: str, words: str, runs: Path, copied: Path
) -> None:
    file = copied / "evaluations" / "test" / "predictions.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:line], text, *lines[line + 1 :]]) + "\n")
    with pytest.raises(ResiduaError, match=words) as caught:
        residua.compare(runs / "a", copied)
    assert "predictions.csv" in str(caught.value)
    assert "`residua evaluate" in str(caught.value)


def test_where_a_comparison_must_not_go(
    runs: Path, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ResiduaError, match="is not empty"):
        residua.compare(runs / "a", runs / "b", out=tmp_path)
    with pytest.raises(ResiduaError, match="is not empty"):
        residua.compare(runs / "a", runs / "b", out=tmp_path / "letter.txt")
    with pytest.raises(ResiduaError, match="lies inside the run"):
        residua.compare(runs / "a", runs / "b", out=runs / "c" / "out")
    with pytest.raises(ResiduaError, match="is inside the data folder"):
        residua.compare(odd / "two", runs / "a", out=odd / "digits" / "out")
    monkeypatch.chdir(runs / "a")
    with pytest.raises(ResiduaError, match="lies inside the run"):
        residua.compare(runs / "a", runs / "b")
    assert not (runs / "a" / "comparisons").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_the_command(runs: Path, tmp_path: Path) -> None:
    def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "residua", "compare", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)

    plain = command(runs / "a", runs / "c")
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.endswith("comparisons/1/index.html\n")
    assert max(map(len, plain.stdout.split("\n- ")[0].splitlines())) < 80
    assert "Test accuracy on the same 449 images" in plain.stdout
    told = command(runs / "a", runs / "c", "--json")
    found = json.loads(told.stdout)
    assert found["folder"] == "comparisons/2"
    assert (tmp_path / "comparisons" / "2" / "compare.csv").exists()
    assert [each["name"] for each in found["runs"]] == ["a", "c"]
    assert found["settings"]["network.name"] == ["cifar_resnet20", "cifar_resnet32"]
    difference = found["pairs"][0]["difference"]
    assert difference["low"] <= difference["mean"] <= difference["high"]
