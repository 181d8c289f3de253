"""The four scenarios of transfer learning, small and near to large and far, on embedded images.

A small network learns five digits; what it has learnt is used for five others, which are similar,
and for patches of two photographs, which are not: with few images and with many.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from residua.comparison.statistics import seed_differences
from residua.config import parse
from residua.config.schema import Config
from residua.data.random import shuffled
from residua.experiment import train
from residua.report import page_figures
from residua.report.page import Cell, Figure, Page, Section, Table
from residua.report.view import counted
from residua.runs.folder import RunFolder
from residua.studies.results import is_finished, judged
from residua.studies.text import of_family
from residua.system.console import Console
from residua.system.files import write_atomically
from residua.system.signals import Interrupted

Pixels = npt.NDArray[np.uint8]
STRATEGIES = ("features", "partial", "full", "scratch", "auto")
TUTORIAL = {  # what tutorial 3 advises, and for which data
    "small and similar": ("digits", 10, "features"),
    "small and different": ("patches", 10, "partial"),
    "large and different": ("patches", 0, "scratch"),
    "large and similar": ("digits", 0, "full"),
}
PATCH = 16  # pixels a side
TESTED = 0.4  # of each class


def study(folder: Path, seeds: int, budget: str, console: Console) -> Page:
    """Train all ways on all four, in the same time each, and compare; what is done is skipped.

    budget: of each run, such as 10s. Raises ResiduaError.
    """
    near, far = _digits(), _patches()
    source = _data(folder / "data" / "source", near, range(5), 0, seed=0)
    weights = folder / "source"
    if not is_finished(weights):
        _train({"data.path": source, "training.epochs": 20, "preprocessing.size": PATCH}, weights)
    targets = {"digits": (near, range(5, 10)), "patches": (far, range(2))}
    found: dict[str, dict[str, list[float]]] = {}
    tested: dict[str, int] = {}
    chosen: dict[str, list[str]] = {}
    for scenario, (target, few, _) in TUTORIAL.items():
        rows: dict[str, list[float]] = {name: [] for name in STRATEGIES}
        for seed in range(seeds):
            word = scenario.replace(" ", "-")
            data = _data(folder / "data" / f"{word}-{seed}", *targets[target], few, seed=seed)
            for strategy in STRATEGIES:
                place = folder / "runs" / word / strategy / f"seed-{seed}"
                if not is_finished(place):
                    _transfer(data, weights, strategy, budget, seed, place)
                accuracy, tested[scenario] = judged(RunFolder(place))
                rows[strategy].append(accuracy)
                console.print(f"{scenario}, {strategy}, seed {seed}: {rows[strategy][-1]:.4f}")
            auto = RunFolder(folder / "runs" / word / "auto" / f"seed-{seed}")
            chosen.setdefault(scenario, []).append(auto.config.transfer.strategy)
        found[scenario] = rows
    return page_of(found, chosen, tested, budget)


def page_of(
    found: Mapping[str, Mapping[str, Sequence[float]]],
    chosen: Mapping[str, Sequence[str]],
    tested: Mapping[str, int],
    budget: str,
) -> Page:
    """found: scenario -> strategy -> test accuracy of each seed. chosen: what auto kept.

    tested: images that judge, of each scenario.
    """
    sections, seeds = [], len(next(iter(found.values()))["auto"])
    for number, (scenario, rows) in enumerate(found.items(), start=1):
        values = {name: list(each) for name, each in rows.items()}
        figure = page_figures.dots(
            values, f"scenario-{number}", f"{scenario}: test accuracy", "Each point is a seed."
        )
        sections.append(Section(scenario.capitalize(), [_advice(scenario, rows)], (), [figure]))
    table = Table(
        "scenarios", "Test accuracy %, mean over the seeds", _COLUMNS, _rows(found, chosen), 2
    )
    findings = [_verdict(found, tested)]
    for each, rows in found.items():
        findings += _compared(each, rows, 1 / tested[each])
    return Page(
        "Four scenarios of transfer learning",
        "Few and similar images: keep the network, replace its head. Few and different: train "
        "the later layers. Many and different: train from nothing. Many and similar: train it all.",
        "Tutorial 3 (the four scenarios of transfer learning)",
        findings,
        [Section("All four", (), [table], _figures(found)), *sections],
        [
            f"{counted(seeds, 'seed')}; at most {budget} for the learning of each run: where "
            "images are few the epochs that suit them end sooner. One network, which has learnt "
            "the digits 0 to 4 (scikit-learn's, 16 px), is the source of all; similar are the "
            "digits 5 to 9, different are patches of two photographs. Few: 10 images a class, of "
            "which residua keeps some to choose by. Times decide how far a run comes, so another "
            "machine gives other figures.",
        ],
    )


_COLUMNS = ("scenario", *STRATEGIES, "tutorial advises", "best here", "auto kept")


def _rows(
    found: Mapping[str, Mapping[str, Sequence[float]]], chosen: Mapping[str, Sequence[str]]
) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for scenario, values in found.items():
        means: list[Cell] = [100 * float(np.mean(values[name])) for name in STRATEGIES]
        kept = ", ".join(dict.fromkeys(chosen[scenario]))
        rows.append([scenario, *means, TUTORIAL[scenario][2], _best(values), kept])
    return rows


def _best(values: Mapping[str, Sequence[float]]) -> str:
    """The best of the fixed strategies."""
    return max(STRATEGIES[:-1], key=lambda name: float(np.mean(values[name])))


def _verdict(found: Mapping[str, Mapping[str, Sequence[float]]], tested: Mapping[str, int]) -> str:
    """In how many scenarios the advice is beaten, as far as the intervals show."""
    if len(next(iter(found.values()))["auto"]) == 1:
        return "One seed says nothing of the spread, so nothing is claimed; give more seeds."

    def against(scenario: str, sign: int) -> list[str]:
        step = 1 / tested[scenario]
        return _against(found[scenario], TUTORIAL[scenario][2], sign, step)

    beaten = [each for each in found if against(each, 1)]
    best = [each for each in found if len(against(each, -1)) == len(STRATEGIES) - 2]
    return (
        f"Of {len(found)} scenarios the tutorial's advice is seen to be worse than another fixed "
        f"way in {len(beaten)}{_named(beaten)}, and better than all of them in "
        f"{len(best)}{_named(best)}."
    )


def _named(scenarios: Sequence[str]) -> str:
    return f" ({', '.join(scenarios)})" if scenarios else ""


def _against(
    values: Mapping[str, Sequence[float]], advised: str, sign: int, step: float
) -> list[str]:
    """Fixed ways that are seen to be better (sign 1) or worse (-1) than the advised one.

    The intervals are those of the findings, which hold for auto too.
    """
    ways = [advised, *(name for name in STRATEGIES if name != advised)]
    pairs = seed_differences(np.array([values[name] for name in ways]), step)
    return [
        name
        for place, name in enumerate(ways)
        if place
        and name != "auto"
        and pairs[0, place].significant
        and pairs[0, place].mean * sign > 0
    ]


def _compared(scenario: str, values: Mapping[str, Sequence[float]], step: float) -> list[str]:
    """All ways of one scenario, whose intervals hold jointly."""
    figures = np.array([values[way] for way in STRATEGIES])
    return of_family(STRATEGIES, figures, f"{scenario}, test accuracy", step)


def _advice(scenario: str, values: Mapping[str, Sequence[float]]) -> str:
    regret = 100 * (np.mean(values[_best(values)]) - np.mean(values["auto"]))
    where = (
        f"{abs(regret):.2f} points {'below' if regret > 0 else 'above'}" if regret else "equal to"
    )
    return (
        f"The tutorial advises {TUTORIAL[scenario][2]}; the best fixed way by its mean is "
        f"{_best(values)}; the mean of auto is {where} it. Intervals stand in the findings."
    )


def _figures(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Figure]:
    values = {
        f"{scenario}, {name}": list(rows[name])
        for scenario, rows in found.items()
        for name in (TUTORIAL[scenario][2], "auto")
    }
    caption = "What the tutorial advises, and what auto makes of it; each point is a seed."
    return [page_figures.dots(values, "advice", "test accuracy of the advice and of auto", caption)]


def _transfer(data: str, weights: Path, strategy: str, budget: str, seed: int, place: Path) -> None:
    given = {
        "data.path": data,
        "network.weights": str(weights),
        "transfer.strategy": strategy,
        "transfer.budget": budget,
        "training.seed": seed,
        "data.split_seed": seed,
    }
    _train(given, place)


def _train(given: Mapping[str, object], place: Path) -> None:
    """Runs are short: one that was interrupted begins anew. Raises Interrupted."""
    if place.exists():
        with RunFolder(place).lock():  # another process may train in it
            shutil.rmtree(place)
    try:
        train(parse.with_settings(Config(), given), str(place), Console(quiet=True))
    except Interrupted as error:
        raise Interrupted(error.number, str(place), "the same command goes on") from None


def _digits() -> list[Pixels]:
    """uint8 [N, 8, 8] of each digit."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    return [pixels[found.target == digit] for digit in range(10)]


def _patches() -> list[Pixels]:
    """uint8 [N, 16, 16], grey, of the two photographs that scikit-learn brings."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    classes = []
    for photograph in load_sample_images().images:
        grey = np.asarray(Image.fromarray(photograph).convert("L"))
        rows, columns = (side // PATCH for side in grey.shape)
        cut = grey[: rows * PATCH, : columns * PATCH].reshape(rows, PATCH, columns, PATCH)
        classes.append(cut.swapaxes(1, 2).reshape(-1, PATCH, PATCH))
    return classes


def _data(folder: Path, classes: Sequence[Pixels], of: range, few: int, *, seed: int) -> str:
    """A folder with a training and a test part; few: training images of a class, 0 for all."""
    from io import BytesIO

    from PIL import Image

    for label in of:
        order = shuffled(seed, label, np.arange(len(classes[label])))
        tested = round(TESTED * len(order))
        parts = {"test": order[:tested], "train": order[tested:][: few or None]}
        for part, members in parts.items():
            for number in members:
                stream = BytesIO()
                Image.fromarray(classes[label][number]).save(stream, "PNG")
                file = folder / part / f"class-{label}" / f"{number:04}.png"
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(file, stream.getvalue())
    return str(folder)
