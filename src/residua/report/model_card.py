"""The facts of a run -> a model card: Markdown with the front matter of Hugging Face.

After Mitchell et al. 2019. What is not known, such as a licence of the data, is left out; what was
not measured is listed.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePath

from residua.config import auto, parse
from residua.config.start import of_each
from residua.errors import ResiduaError
from residua.evaluation.score import CROSS_VALIDATION
from residua.report import view
from residua.report.facts import ReportFacts
from residua.report.text import headline
from residua.runs.folder import REPORT, RunFolder
from residua.system.files import reason_of
from residua.system.words import decimals, percent

MODEL_CARD = "model_card.md"


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
    network = dataclasses.replace(config.network, weights=of_each(config.network.weights, _name))
    shown = dataclasses.replace(config, data=data, network=network)
    recipe = parse.to_yaml(shown, lambda setting: auto.has_effect(config, setting))
    run.write_text(MODEL_CARD, card_text(facts, recipe))


def card_text(facts: ReportFacts, config: str) -> str:
    """The model card. config: the text of config.yaml, with the settings that have an effect."""
    text: str = (
        view.templates()
        .get_template("model_card.md.j2")
        .render(
            facts=facts,
            front_matter=front_matter(facts),
            recipe=config,
            percent=percent,  # the filter has a non-breaking space
            split_name=_split_name,
        )
    )
    return text


def front_matter(facts: ReportFacts) -> str:
    """YAML: library_name, pipeline_tag, tags, and the metrics as a model-index."""
    import yaml

    fields: dict[str, object] = {
        "library_name": "residua",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "residua", facts.network],
    }
    if facts.evaluation is not None:
        split = facts.evaluation.split
        kinds = ("accuracy", "balanced_accuracy", "f1")  # of Hugging Face
        rows = zip(kinds, headline(facts.evaluation.metrics).items(), strict=True)
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
                for kind, (name, (value, (low, high))) in rows
            ],
        }
        fields["model-index"] = [{"name": facts.title, "results": [result]}]
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def _split_name(split: str) -> str:
    return "cross-validated" if split == CROSS_VALIDATION else f"{split} set"


def _name(path: str) -> str:
    """The last part of an absolute path: a public page does not show the user's folders."""
    return PurePath(path).name if PurePath(path).is_absolute() else path
