"""The four scenarios of transfer learning, from few and similar to many and different images.

A small network is trained on five digits and transferred to five other digits, which are similar,
and to patches of two photographs, which are not; with few images and with many.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from residua.comparison.statistics import seed_differences
from residua.config import parse
from residua.config.schema import Config
from residua.data.dataset import Pixels
from residua.data.random import shuffled
from residua.experiment import train
from residua.report.page import Cell, Page, Section, Table
from residua.report.page_figures import dots
from residua.runs.folder import RunFolder
from residua.studies.results import accuracy_on_test, is_finished
from residua.studies.study import Study, StudyOptions, check_record
from residua.studies.text import Values, family_findings
from residua.system.console import Console
from residua.system.files import write_atomically
from residua.system.signals import Interrupted
from residua.system.words import counted

STRATEGIES = ("features", "partial", "full", "scratch", "auto")
FIXED = STRATEGIES[:-1]
BUDGET = "10s"  # of each run
SIDE = 16  # of a patch, in pixels
TEST_FRACTION = 0.4  # of each class


@dataclass(frozen=True)
class Scenario:
    """name: amount and similarity of the data. few: training images per class, 0 for all.

    advised: the strategy that tutorial 3 advises.
    """

    name: str
    data: str
    few: int
    advised: str


SCENARIOS = (
    Scenario("small and similar", "digits", 10, "features"),
    Scenario("small and different", "patches", 10, "partial"),
    Scenario("large and different", "patches", 0, "scratch"),
    Scenario("large and similar", "digits", 0, "full"),
)


@dataclass(frozen=True)
class Results:
    """Of one scenario. accuracies: strategy -> test accuracy of each seed, in [0, 1].

    selected: the strategy that auto selected, for each seed. test_images: number of test images.
    """

    scenario: Scenario
    accuracies: Mapping[str, Sequence[float]]
    selected: Sequence[str]
    test_images: int

    @property
    def best(self) -> str:
        """The fixed strategy with the highest mean."""
        return max(FIXED, key=lambda strategy: float(np.mean(self.accuracies[strategy])))

    def stacked(self, strategies: Sequence[str]) -> Values:
        """Accuracies [R, S]."""
        return np.array([self.accuracies[strategy] for strategy in strategies])


def train_scenarios(folder: Path, options: StudyOptions, console: Console) -> Page:
    """All strategies in all scenarios, in equal time: the budget is that of each run."""
    budget = options.budget or BUDGET
    check_record(folder, {"study": STUDY.name, "budget": budget})
    classes = {"digits": digits()[5:], "patches": patches()}
    source = write_images(folder / "data" / "source", digits()[:5], 0, seed=0)
    weights = folder / "source"
    settings = {"data.path": source, "training.epochs": 20, "preprocessing.size": SIDE}
    _train(settings, weights)
    results = []
    for scenario in SCENARIOS:
        slug = scenario.name.replace(" ", "-")
        accuracies: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
        selected, images = [], 0
        for seed in range(options.seeds):
            images_folder = folder / "data" / f"{slug}-{seed}"
            first = 5 if scenario.data == "digits" else 0
            settings = {
                "data.path": write_images(
                    images_folder, classes[scenario.data], scenario.few, seed=seed, first=first
                ),
                "network.weights": str(weights),
                "transfer.budget": budget,
                "training.seed": seed,
                "data.split_seed": seed,
            }
            for strategy in STRATEGIES:
                path = folder / "runs" / slug / strategy / f"seed-{seed}"
                run = _train({**settings, "transfer.strategy": strategy}, path)
                accuracy, images = accuracy_on_test(run)
                accuracies[strategy].append(accuracy)
                console.print(f"{scenario.name}, {strategy}, seed {seed}: {accuracy:.4f}")
            selected.append(str(run.config.transfer.strategy))
        results.append(Results(scenario, accuracies, selected, images))
    return build_page(results, budget)


STUDY = Study(
    "transfer-scenarios",
    "Four scenarios of transfer learning",
    train_scenarios,
    frozenset({"seeds", "budget"}),
)


def build_page(results: Sequence[Results], budget: str) -> Page:
    """The page of all scenarios. budget: of each run."""
    seeds = len(results[0].selected)
    findings = [_advice_finding(results)]
    for result in results:
        findings += family_findings(
            STRATEGIES,
            result.stacked(STRATEGIES),
            f"{result.scenario.name}, test accuracy",
            1 / result.test_images,
        )
    advice = {
        f"{result.scenario.name}, {strategy}": list(result.accuracies[strategy])
        for result in results
        for strategy in (result.scenario.advised, "auto")
    }
    caption = "The strategy that the tutorial advises, and auto; each point is a seed."
    figure = dots(advice, "advice", "test accuracy of the advised strategy and of auto", caption)
    sections = [Section("All scenarios", (), [_table(results)], [figure])]
    for number, result in enumerate(results, start=1):
        values = {strategy: list(result.accuracies[strategy]) for strategy in STRATEGIES}
        title = f"{result.scenario.name}: test accuracy"
        figure = dots(values, f"scenario-{number}", title, "Each point is a seed.")
        text = [_comparison(result)]
        sections.append(Section(result.scenario.name.capitalize(), text, (), [figure]))
    return Page(
        STUDY.title,
        "Few and similar images: train a new head only. Few and different: train the later layers. "
        "Many and different: train from scratch. Many and similar: train all layers.",
        "Tutorial 3 (the four scenarios of transfer learning)",
        findings,
        sections,
        [
            f"{counted(seeds, 'seed')}; at most {budget} of training per run; runs on few images "
            "stop earlier, after the epochs that suit them. All runs start from one network "
            "trained on the digits 0 to 4 (scikit-learn's, 16 px). Similar: the digits 5 to 9; "
            "different: patches of two photographs. Few: 10 images per class, including those "
            "held out for model selection. The time limits training, so results depend "
            "on the machine.",
        ],
    )


def _table(results: Sequence[Results]) -> Table:
    rows: list[list[Cell]] = []
    for result in results:
        means = [100 * float(np.mean(result.accuracies[strategy])) for strategy in STRATEGIES]
        selected = ", ".join(dict.fromkeys(result.selected))
        rows.append([result.scenario.name, *means, result.scenario.advised, result.best, selected])
    columns = ("scenario", *STRATEGIES, "tutorial advises", "best here", "auto selected")
    return Table("scenarios", "Test accuracy %, mean over the seeds", columns, rows, 2)


def _advice_finding(results: Sequence[Results]) -> str:
    """In how many scenarios the advice is beaten, as far as the intervals show."""
    if len(results[0].selected) == 1:
        return "One seed shows no spread, so nothing is claimed; use more seeds."
    worse = [r.scenario.name for r in results if _differing(r, 1)]
    best = [r.scenario.name for r in results if len(_differing(r, -1)) == len(FIXED) - 1]
    return (
        f"The tutorial's advice is significantly worse than another fixed strategy in "
        f"{_counted(worse)} of {len(results)} scenarios, and significantly better than all of them "
        f"in {_counted(best)}."
    )


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def _differing(result: Results, sign: int) -> list[str]:
    """Fixed strategies significantly better (sign 1) or worse (-1) than the advised one.

    The intervals are those of the findings, which include auto.
    """
    advised = result.scenario.advised
    strategies = [advised, *(strategy for strategy in STRATEGIES if strategy != advised)]
    pairs = seed_differences(result.stacked(strategies), 1 / result.test_images)
    return [
        strategy
        for index, strategy in enumerate(strategies)
        if index
        and strategy in FIXED
        and pairs[0, index].significant
        and pairs[0, index].mean * sign > 0
    ]


def _comparison(result: Results) -> str:
    best, auto = (result.accuracies[strategy] for strategy in (result.best, "auto"))
    regret = 100 * (np.mean(best) - np.mean(auto))
    order = (
        f"{abs(regret):.2f} points {'below' if regret > 0 else 'above'}" if regret else "equal to"
    )
    return (
        f"The tutorial advises {result.scenario.advised}; the fixed strategy with the highest mean "
        f"is {result.best}; the mean of auto is {order} it. The findings give the intervals."
    )


def _train(settings: Mapping[str, object], path: Path) -> RunFolder:
    """Train a run unless it is finished; an interrupted one, being short, restarts.

    Raises Interrupted and ResiduaError.
    """
    if not is_finished(path):
        if path.exists():
            with RunFolder(path).lock():  # refused while another process trains in it
                shutil.rmtree(path)
        try:
            config = parse.with_settings(Config(), settings)
            train(config, str(path), Console(quiet=True))
        except Interrupted as error:
            advice = "the same command resumes the study"
            raise Interrupted(error.number, str(path), "", advice) from None
    return RunFolder(path)


def digits() -> list[Pixels]:
    """scikit-learn's handwritten digits, uint8 [N, 8, 8] for each class."""
    from sklearn.datasets import load_digits

    dataset = load_digits()
    pixels = np.round(dataset.images * (255 / 16)).astype(np.uint8)
    return [pixels[dataset.target == digit] for digit in range(10)]


def patches() -> list[Pixels]:
    """Grey patches of scikit-learn's two photographs, uint8 [N, SIDE, SIDE] for each."""
    from sklearn.datasets import load_sample_images

    classes = []
    for photograph in load_sample_images().images:
        grey = np.asarray(Image.fromarray(photograph).convert("L"))
        rows, columns = (length // SIDE for length in grey.shape)
        cut = grey[: rows * SIDE, : columns * SIDE].reshape(rows, SIDE, columns, SIDE)
        classes.append(cut.swapaxes(1, 2).reshape(-1, SIDE, SIDE))
    return classes


def write_images(
    folder: Path, classes: Sequence[Pixels], few: int, *, seed: int, first: int = 0
) -> str:
    """Write a dataset with a training and a test set; returns its folder.

    few: training images per class, 0 for all. first: label of the first class.
    """
    for label, pixels in enumerate(classes, start=first):
        order = shuffled(seed, label, np.arange(len(pixels)))
        tested = round(TEST_FRACTION * len(order))
        splits = {"test": order[:tested], "train": order[tested:][: few or None]}
        for split, indices in splits.items():
            for index in indices:
                file = folder / split / f"class-{label}" / f"{index:04}.png"
                if not file.exists():
                    stream = io.BytesIO()
                    Image.fromarray(pixels[index]).save(stream, "PNG")
                    write_atomically(file, stream.getvalue())
    return str(folder)
