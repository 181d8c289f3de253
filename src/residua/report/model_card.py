"""The facts of a run -> a model card: Markdown with the front matter of Hugging Face.

After Mitchell et al. 2019. What is not known, such as a licence of the data, is left out; what was
not measured is listed.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from residua.config import auto, parse
from residua.errors import ResiduaError
from residua.evaluation.reliability import Reliability
from residua.evaluation.score import CROSS_VALIDATION
from residua.report.facts import ReportFacts
from residua.report.view import images_text, slice_text, unknown_text, unmeasured_text
from residua.runs.folder import REPORT, RunFolder
from residua.system.files import reason_of
from residua.system.words import agreeing, counted, decimals, percent

MODEL_CARD = "model_card.md"
FEW = 20  # evaluated images of a class, below which its recall is uncertain
NAMED = 10  # classes that a sentence lists
INTENDED_USE = (
    "To classify images like the training images, each of which shows one of these classes. Before "
    "using it on images from other cameras or places, or of other subjects, evaluate it on some of "
    "them: `residua evaluate RUN DATA`. It is not intended for decisions about people, or where an "
    "error does harm, unless a person checks each prediction."
)


def model_card(run: RunFolder, repository: str = "") -> str:
    """The model card of a finished run, Markdown. Raises ResiduaError if there is none.

    repository: OWNER/NAME on Hugging Face; the card then ends with the commands that use it.
    """
    path = run.path / MODEL_CARD
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResiduaError(
            f"{path}: cannot be read: {reason_of(error)}. To write it again, remove "
            f"{run.path / REPORT}, then `residua resume {run.path}`."
        ) from error
    return text if not repository else f"{text}{_usage(repository)}"


def _usage(repository: str) -> str:
    return f"""
## Use

```sh
pip install 'residua[hub]'
residua predict hub:{repository} image.jpg
```
"""


def write_model_card(run: RunFolder, facts: ReportFacts) -> None:
    """Write the run's model_card.md."""
    config = run.config
    data = dataclasses.replace(
        config.data, path=_name(config.data.path), fixes=_name(config.data.fixes)
    )
    network = dataclasses.replace(config.network, weights=_name(config.network.weights))
    shown = dataclasses.replace(config, data=data, network=network)
    recipe = parse.to_yaml(shown, lambda setting: auto.has_effect(config, setting))
    run.write_text(MODEL_CARD, card_text(facts, recipe))


def card_text(facts: ReportFacts, config: str) -> str:
    """The model card. config: the text of config.yaml, with the settings that have an effect."""
    network = facts.network
    channels, height, width = network.input
    names = ", ".join(facts.classes[:NAMED]) + ", ..." * (len(facts.classes) > NAMED)
    summary = (
        f"{network.name} ({network.parameters:,} parameters), trained with residua to classify "
        f"images into {len(facts.classes):,} classes: {_escaped(names)}. Input: {channels} x "
        f"{height} x {width}; the preprocessing is stored with the weights."
    )
    origin = [
        f"Weights at the start: {_escaped(facts.initial_weights)}."
        if facts.initial_weights
        else "Weights at the start: random, trained from scratch."
    ]
    if facts.environment.get("date"):
        environment = facts.environment
        origin.append(f"Trained on {environment['date']} with residua {environment['residua']}.")
    limits = "\n".join(f"- {line}" for line in _limits(facts))
    fence = "`" * 8  # no setting has as many
    sections = [
        f"# {_escaped(facts.title)}",
        summary,
        " ".join(origin),
        f"## Intended use\n\n{INTENDED_USE}",
        f"## Evaluation\n\n{_evaluation(facts)}",
        f"## Limits\n\n{limits}",
        f"## Data\n\n{_data(facts)}",
        f"## Recipe\n\n{fence}yaml\n{config.strip()}\n{fence}",
    ]
    return f"---\n{front_matter(facts)}---\n\n" + "\n\n".join(sections) + "\n"


def front_matter(facts: ReportFacts) -> str:
    """YAML: library_name, pipeline_tag, tags, and the metrics as a model-index."""
    import yaml

    fields: dict[str, object] = {
        "library_name": "residua",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "residua", facts.network.name],
    }
    if facts.evaluation is not None:
        metrics, split = facts.evaluation.metrics, facts.evaluation.split
        balanced = metrics.balanced_accuracy
        rows = (
            ("accuracy", "accuracy", metrics.accuracy, metrics.interval),
            ("balanced_accuracy", "balanced accuracy", balanced, metrics.balanced_interval),
            ("f1", "macro F1", metrics.macro_f1, metrics.macro_f1_interval),
        )
        dataset = {"name": facts.title, "type": "image-folder"}
        if split in ("validation", "test"):
            dataset["split"] = split
        result = {
            "task": {"type": "image-classification"},
            "dataset": dataset,
            "metrics": [
                {
                    "type": kind,
                    "value": round(value, 6),
                    "name": f"{name}, {_split_name(split)} (95 % CI {decimals(low, 4)} to "
                    f"{decimals(high, 4)})",
                }
                for kind, name, value, (low, high) in rows
            ],
        }
        fields["model-index"] = [{"name": facts.title, "results": [result]}]
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def _split_name(split: str) -> str:
    return "cross-validated" if split == CROSS_VALIDATION else f"{split} set"


def _evaluation(facts: ReportFacts) -> str:
    if facts.evaluation is None:
        return "Not evaluated: all images were used for training."
    metrics = facts.evaluation.metrics
    images = images_text(metrics.images, metrics.groups)
    grouped = " Near-duplicates form a group; the intervals allow for groups."
    lines = [
        f"On {images} ({_split_name(facts.evaluation.split)})."
        f"{grouped if metrics.groups < metrics.images else ''}",
        "",
        "| metric | value | 95 % CI |",
        "|---|---|---|",
    ]
    rows = (
        ("accuracy", metrics.accuracy, metrics.interval),
        ("balanced accuracy", metrics.balanced_accuracy, metrics.balanced_interval),
        ("macro F1", metrics.macro_f1, metrics.macro_f1_interval),
        *(
            (
                f"recall of {_escaped(row.name)} ({counted(row.support, 'image')})",
                row.recall,
                interval,
            )
            for row in metrics.per_class[:100]
            if row.recall is not None and (interval := row.recall_interval) is not None
        ),
    )
    lines += [
        f"| {name} | {percent(value, 1)} | {percent(low, 1)} to {percent(high, 1)} |"
        for name, value, (low, high) in rows
    ]
    crossed = facts.transfer.cross_validation if facts.transfer else None
    if crossed is not None and facts.evaluation.split == CROSS_VALIDATION:
        lines += [
            "",
            f"Expected accuracy of this model for new images: {percent(crossed.accuracy, 1)} (95 % "
            f"CI {percent(crossed.interval[0], 1)} to {percent(crossed.interval[1], 1)}). It is "
            "corrected for the selection of layer and regularisation, and for the images that each "
            "probe lacked.",
        ]
    if facts.evaluation.reliability is not None:
        lines += ["", *_probabilities(facts.evaluation.reliability)]
    if baselines := facts.evaluation.baselines:
        lines += ["", "Without a network, on the same images:", ""]
        lines += [f"- {name}: {percent(accuracy, 1)}" for name, accuracy in baselines.items()]
    return "\n".join(lines)


def _probabilities(reliability: Reliability) -> list[str]:
    """How far the probabilities carry: calibration, and prediction sets."""
    after = reliability.after
    if after.interval is not None:
        low, high = after.interval
        interval = f"95 % CI {percent(low, 1)} to {percent(high, 1)}"
        lines = [
            f"- calibration error (root mean square, debiased): {percent(after.error, 1)} "
            f"({interval})"
        ]
    else:
        lines = [f"- calibration: {unmeasured_text(after)}"]
    if (sets := reliability.sets) is not None:
        low, high = sets.interval
        lines.append(
            f"- prediction sets at {percent(sets.coverage)} coverage: {sets.size:.2f} classes on "
            f"average; {percent(sets.covered, 1)} contain the true class (95 % CI "
            f"{percent(low, 1)} to {percent(high, 1)})"
        )
    if reliability.cross_fitted:
        lines.append(
            "- temperature and prediction sets were fitted on these images too, so each fifth is "
            "evaluated with those of the other four"
        )
    return lines


def _limits(facts: ReportFacts) -> list[str]:
    lines = []
    if facts.evaluation is not None:
        metrics = facts.evaluation.metrics
        if facts.evaluation.caveat:
            lines.append(f"The metrics are {_escaped(facts.evaluation.caveat)}.")
        few = [row.name for row in metrics.per_class if row.support < FEW]
        if few:
            names = ", ".join(few[:NAMED]) + ", ..." * (len(few) > NAMED)
            lines.append(
                f"{len(few):,} of {counted(len(metrics.per_class), 'class', 'classes')} "
                f"{agreeing(len(few), 'has', 'have')} fewer than {FEW} "
                f"evaluated images: {_escaped(names)}."
            )
        lines += [_escaped(slice_text(entry)) for entry in facts.evaluation.slices]
    lines += [_escaped(warning) for warning in facts.data.warnings]
    return [
        *lines,
        "Measured on images of the same source as the training images, not on those of other "
        "cameras, places, times or subjects.",
        "Not measured: robustness to damaged or altered images, fairness between groups of people.",
        unknown_text(facts.unknown, len(facts.classes)),
    ]


def _data(facts: ReportFacts) -> str:
    data = facts.data
    splits = [("train", "training"), ("validation", "validation"), ("test", "test")]
    counts = ", ".join(f"{data.total(name):,} {word}" for name, word in splits if data.total(name))
    text = (
        f"{_escaped(facts.title)}, {data.description}: {counted(data.images, 'image')} ({counts}), "
        f"{data.duplicates:,} with identical pixels, "
        f"{counted(len(data.unreadable), 'unreadable file')}."
    )
    transfer = facts.transfer
    used = transfer.images if transfer and transfer.kept_probe else None
    if used is not None and used < data.total("train"):
        text += f" There was time to fit the linear probe on {used:,} of the training images."
    return text


def _name(path: str) -> str:
    """The last part of an absolute path: a public page does not show the user's folders."""
    return PurePath(path).name if PurePath(path).is_absolute() else path


def _escaped(text: str) -> str:
    """A name as text of Markdown, in one line."""
    line = " ".join(text.split())
    return "".join(
        f"\\{character}" if character in "\\`*_[]<>|#" else character for character in line
    )
