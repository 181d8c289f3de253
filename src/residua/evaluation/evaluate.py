"""A run or weights, and a data set with known classes -> what is judged, by which outputs."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from residua.config.schema import Config, Data
from residua.data.cache import load, survey
from residua.data.dataset import Dataset, Entry, Selection, SplitName
from residua.data.open import open_dataset
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.evaluation.score import Evaluation, judge
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.weights.load import Weights, read_file
from residua.weights.network import default_device
from residua.weights.published.classes import label_places


def evaluate_run(
    run: RunFolder, data: str | None, console: Console, weights: Weights | None = None
) -> Evaluation:
    """Judge the run's weights on DATA, or on its own test part, else its validation part.

    weights: the run's, if they have been read. Writes into the run's evaluations/. Raises
    ResiduaError if the run has no such part, if its images have changed since, or if DATA has a
    class that the run does not know.
    """
    config, classes = run.config, run_classes(run)
    limit = config.data.max_pixels
    weights = weights or read_file(run.weights)
    if data is None:
        part, source, labels = _own_part(run, config, classes)
        seen = _judge_source(weights, source, labels, part, limit, console, run, own=True)
        return record(run, part, seen)
    source = open_dataset(data)
    part, selection, labels = _foreign(source, classes, console)
    seen = _judge_source(weights, selection, labels, part, limit, console, run)
    there = Path(data).expanduser()
    told = {"data": str(there.resolve()) if there.exists() else data}
    place = _place_of(run, source.name, told)
    run.write_json(f"evaluations/{place}/data.json", told)
    return record(run, place, seen)


def evaluate_weights(weights: Weights, data: str, console: Console) -> Evaluation:
    """Judge weights of any origin on DATA; nothing is written. Raises ResiduaError.

    Where the weights name no classes and DATA has as many as they have outputs, its classes in
    alphabetical order are taken for them, as Keras and torchvision number folders; that is said.
    """
    if not weights.has_head:
        raise ResiduaError(f"{weights.path}: {weights.no_head_reason}, so it cannot classify.")
    source, classes = open_dataset(data), weights.metadata.classes
    outputs = weights.metadata.network.classes
    names = {unicodedata.normalize("NFC", each) for each in source.classes}
    if weights.assumed_classes and not names <= label_places(classes).keys():
        classes = ()  # they were taken for the outputs' names, and are not
    if not classes:
        if len(source.classes) != outputs:
            raise ResiduaError(
                f"{weights.path}: does not say what its {outputs} outputs mean, and {data} has "
                f"{len(source.classes)} classes: expected a folder for each output, or their names "
                "with --classes."
            )
        classes = tuple(sorted(source.classes))
        weights = weights.with_classes(classes)
        console.caution(f"its outputs are taken for the classes of {data} in alphabetical order")
    part, selection, labels = _foreign(source, classes, console)
    return _judge_source(weights, selection, labels, part, Data.max_pixels, console)


def _judge_source(
    weights: Weights,
    source: Dataset,
    labels: Integers,
    part: str,
    max_pixels: int,
    console: Console,
    run: RunFolder | None = None,
    own: bool = False,
) -> Evaluation:
    """Read the images of a source and judge them.

    run: whose weights they are; it says how many of the images it has learnt from. own: they are
    a part of its own and must be as it knew them.
    """
    with console.bar("reading") as move:
        surveyed = survey(source, max_pixels, console.reporter(move))
        decoded = load(
            surveyed, weights.metadata.preprocessing, max_pixels, progress=console.reporter(move)
        )
    if run is not None and own:
        _check_unchanged(run, source, surveyed.sha256)
    elif run is not None and (known := _known(run, surveyed.sha256)):
        shares = f"{known:,} of {len(source.entries):,} images trained this run or chose its"
        console.caution(f"{shares} weights, so the figures are too good")
    failures = [(source.entries[each].path, why) for each, why in decoded.failures.items()]
    unreadable = [*source.rejected, *failures]
    for path, reason in unreadable:
        console.warn(f"{path} is left out: {reason}")
    readable = [each for each in range(len(source.entries)) if each not in decoded.failures]
    members = np.array(readable, np.int64)
    if not len(members):
        raise ResiduaError(f"{source.name}: none of its images can be read.")
    return judge(
        weights,
        decoded.pixels,
        members,
        labels[members],
        [source.entries[each].path for each in members],
        part,
        default_device(),
        console,
        unreadable=unreadable,
    )


def record(run: RunFolder, place: str, evaluation: Evaluation) -> Evaluation:
    """Write scores.json and predictions.csv into the run's evaluations/<place>/."""
    run.write_json(f"evaluations/{place}/scores.json", evaluation.to_json())
    run.write_predictions(f"evaluations/{place}/predictions.csv", evaluation.rows())
    return evaluation


def _place_of(run: RunFolder, name: str, told: Mapping[str, str]) -> str:
    """The folder for figures on other data: of data sets that share a name each has its own."""
    for number in itertools.count(1):
        place = f"data-{name}" + (f"-{number}" if number > 1 else "")
        file = f"evaluations/{place}/data.json"
        known = (run.path / file).exists() and run.read_json(file) == told
        if known or not (run.path / "evaluations" / place).exists():
            break
    return place


def _own_part(
    run: RunFolder, config: Config, classes: tuple[str, ...]
) -> tuple[str, Dataset, Integers]:
    """The run's test part, else its validation part, in the order of split.csv."""
    split = run.read_split()
    part: SplitName | None = next(
        (each for each in ("test", "validation") if any(row.split == each for row in split)), None
    )
    if part is None:
        raise ResiduaError(
            f"{run.path}: trained on all images, so it has none to be judged on. Name other "
            f"images: residua evaluate {run.path} DATA"
        )
    source = open_dataset(config.data.path)
    place = {entry.path: index for index, entry in enumerate(source.entries)}
    wanted = [row for row in split if row.split == part]
    missing = [row.path for row in wanted if row.path not in place]
    if missing:
        raise ResiduaError(
            f"{config.data.path}: {len(missing)} images of the run's {part} part are gone, the "
            f"first is {missing[0]}. Put them back, or name other images to judge by."
        )
    chosen = Selection(source, [place[row.path] for row in wanted])
    return part, chosen, _labels(chosen.entries, source.classes, classes)


def run_classes(run: RunFolder) -> tuple[str, ...]:
    """The class names of a run, in the order of the logits."""
    return tuple(run.read_json("classes.json"))


def _foreign(
    source: Dataset, classes: tuple[str, ...], console: Console
) -> tuple[str, Dataset, Integers]:
    """A data set's test part, else its validation part, else all of it."""
    parts = {entry.split for entry in source.entries}
    part = next((each for each in ("test", "validation") if each in parts), "all")
    chosen = [index for index, entry in enumerate(source.entries) if part in ("all", entry.split)]
    selection = Selection(source, chosen)
    tops = {entry.path.split("/")[0] for entry in selection.entries}
    selection.rejected = [
        each for each in source.rejected if part == "all" or each[0].split("/")[0] in tops
    ]
    labels = _labels(selection.entries, source.classes, classes)
    missing = [name for label, name in enumerate(classes) if label not in labels]
    for note in source.warnings:
        console.warn(note)
    if missing:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        console.warn(f"{source.name}: holds no image of {some}")
    return part, selection, labels


def _labels(entries: Sequence[Entry], names: tuple[str, ...], classes: tuple[str, ...]) -> Integers:
    """Labels in the order of the outputs. Raises ResiduaError on a class unknown to them.

    Names are compared in Unicode's NFC form: a Mac writes the same name in another one. ImageNet's
    classes answer to their wnid and to their label.
    """
    place = label_places(classes)
    keys = [unicodedata.normalize("NFC", names[entry.label]) for entry in entries]
    unknown = sorted({key for key in keys if key not in place})
    if unknown:
        known = ", ".join(classes[:20]) + (" and more" if classes[20:] else "")
        raise ResiduaError(
            f"class {unknown[0]!r} is unknown to these weights, which know {known}. "
            "Rename or remove the folder."
        )
    return np.array([place[key] for key in keys], np.int64)


def _known(run: RunFolder, sha256: Sequence[str]) -> int:
    """How many of these images taught the run or chose what it keeps."""
    known = run.images_used()
    return sum(each in known for each in sha256)


def _check_unchanged(run: RunFolder, source: Dataset, sha256: Sequence[str]) -> None:
    expected = {row.path: row.sha256 for row in run.read_split()}
    changed = [
        entry.path
        for entry, found in zip(source.entries, sha256, strict=True)
        if expected[entry.path] != found
    ]
    if changed:
        raise ResiduaError(
            f"{Path(run.config.data.path) / changed[0]}: has changed since the training, as have "
            f"{len(changed) - 1} other images: the run's split no longer means what it meant. "
            "Restore them, or name the folder to judge by it as new data."
        )
