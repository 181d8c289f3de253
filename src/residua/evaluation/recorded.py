"""An evaluation <-> the files in a run's evaluations/; why its metrics are optimistic."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from residua.data.dataset import SplitName
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.evaluation.labelled_images import held_out_split
from residua.evaluation.score import CROSS_VALIDATION, EvaluatedSplit, Evaluation
from residua.runs.folder import RunFolder
from residua.runs.provenance import earlier_images
from residua.system.files import csv_text, short_name
from residua.system.words import agreeing, counted, decimals, joined

PREDICTION_COLUMNS = ("path", "class", "predicted", "probability", "correct")


def record(run: RunFolder, name: str, evaluation: Evaluation) -> Evaluation:
    """Write scores.json (the metrics), predictions.csv and confusion.csv to the run's
    evaluations/<name>/."""
    run.write_json(f"evaluations/{name}/scores.json", evaluation.to_json())
    rows = [
        (*names, decimals(probability, 6), str(correct).lower())
        for *names, probability, correct in evaluation.rows()
    ]
    run.write_text(f"evaluations/{name}/predictions.csv", csv_text(PREDICTION_COLUMNS, rows))
    confusion = [
        (actual, *counts)
        for actual, counts in zip(
            evaluation.classes, evaluation.metrics.confusion.tolist(), strict=True
        )
    ]
    header = ("actual", *evaluation.classes)  # of the predicted classes
    run.write_text(f"evaluations/{name}/confusion.csv", csv_text(header, confusion))
    return evaluation


def recorded_scores(run: RunFolder) -> tuple[str, dict[str, Any]]:
    """The split that a run was evaluated on when it ended, and its scores.json; {} if there is
    none with accuracy, interval and images. Raises ResiduaError."""
    split = held_out_split(run.read_split()) or CROSS_VALIDATION
    return split, _scores(run, split)


def _scores(run: RunFolder, split: EvaluatedSplit) -> dict[str, Any]:
    name = f"evaluations/{split}/scores.json"
    scores = run.read_json(name, dict) if (run.path / name).exists() else {}
    is_complete = {"accuracy", "interval", "images"} <= scores.keys()  # not of other versions
    return {"caveat": "", **scores} if is_complete else {}


def recorded_baselines(run: RunFolder, split: SplitName) -> Mapping[str, float]:
    """The baselines that training recorded for the run's own split, if it did."""
    try:
        found = _scores(run, split).get("baselines")
    except ResiduaError:  # a damaged file, which is written again
        found = None
    return found if isinstance(found, dict) else {}


def folder_name(run: RunFolder, dataset: str, location: Mapping[str, str]) -> str:
    """The folder in evaluations/ for a data set; data sets of equal names get different ones."""
    for number in itertools.count(1):
        name = f"data-{short_name(dataset)}" + (f"-{number}" if number > 1 else "")
        folder = run.path / "evaluations" / name
        if not folder.exists():
            break
        if (folder / "data.json").exists() and (
            run.read_json(f"evaluations/{name}/data.json") == location
        ):
            break
    return name


def caveat_of(run: RunFolder, members: Sequence[Member], split: EvaluatedSplit) -> str:
    """Why metrics of a run on its own split are optimistic; "" if nothing is known.

    members: the lines of split.csv. CROSS_VALIDATION: of the training set.
    """
    own = [member for member in members if member.split == split]
    others: set[str] = set()  # digests and groups of images that were used for the weights
    reasons: list[str] = []
    name, advice = str(split), ""
    if split == CROSS_VALIDATION:
        own = [member for member in members if member.split == "train"]
        name = "training"
    elif split == "test":
        others = _keys(member for member in members if member.split != "test")
    else:
        others = _keys(member for member in members if member.split == "train")
        if run.selected_on_validation:
            reasons.append("the validation set was also used for model selection")
            advice = "; train with --test-fraction 0.2 for an unbiased estimate"
    seen = earlier_images(run)
    of_all = f"of {counted(len(own), f'{name} image')}"
    if leaked := sum(not seen.isdisjoint(member.digests) for member in own):
        was = agreeing(leaked, "was", "were")
        reasons.append(f"{leaked:,} {of_all} {was} used to train or select the initial weights")
    if copies := sum(not others.isdisjoint(_keys([member])) for member in own):
        are = agreeing(copies, "is a near-duplicate", "are near-duplicates")
        reasons.append(f"{copies:,} {of_all} {are} of images in other splits, or in their groups")
    if not reasons:
        return ""
    return f"optimistic, because {joined(reasons)}{advice if len(reasons) == 1 else ''}"


def _keys(members: Iterable[Member]) -> set[str]:
    """The digests and groups of images."""
    return {key for member in members for key in (*member.digests, member.group) if key}
