"""Results of a study -> data, settings and machine, as sentences."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

from residua.studies.results import Outcome
from residua.studies.study import StudyOptions
from residua.system.words import counted, joined

PAPER = "Epochs, batch size, schedule and weight decay are those of the paper (--paper)"
SMALL = (
    "Default settings suit a small machine: small networks and few epochs, so effects of long "
    "training do not appear. --epochs, --data, --seeds and --paper change that."
)


def conditions_of(outcomes: Sequence[Outcome], options: StudyOptions) -> list[str]:
    """Data, settings and machine, in sentences."""
    first = outcomes[0]
    environments = [facts for outcome in outcomes for facts in outcome.environments]
    threads = ""
    if any(facts["device"] == "cpu" for facts in environments):
        threads = f", {_all(counted(facts['threads'], 'thread') for facts in environments)} per run"
    configs = [outcome.config for outcome in outcomes]
    return [
        f"Data: {Path(first.config.data.path).name}, {first.train_images:,} training images, "
        f"{first.test_images:,} test images, {_all(c.preprocessing.size for c in configs)} px, "
        f"channels: {_all(c.preprocessing.channels for c in configs)}; "
        f"epochs: {_all(c.training.epochs for c in configs)}; "
        f"batch size: {_all(c.training.batch_size for c in configs)}; "
        f"{counted(options.seeds, 'seed')}.",
        settings_sentence(options, any(config.optimization.steps for config in configs)),
        f"{datetime.date.today()}; {_all(facts['device_name'] for facts in environments)}{threads}"
        f", {_all(config.training.precision for config in configs)}; "
        f"residua {_all(facts['residua'] for facts in environments)}, "
        f"torch {_all(facts['torch'] for facts in environments)}.",
        (
            "The dataset's own validation set selected the epoch whose weights are evaluated."
            if first.validated
            else "The weights of the last epoch are evaluated; there was no model selection."
        ),
        "Every row and seed is an ordinary run under runs/, with its own report.",
    ]


def settings_sentence(options: StudyOptions, stepped: bool) -> str:
    """Whose settings the rows have, and what the user set. stepped: whether lr drops at milestones.

    A shorter training keeps the milestones at the same fractions of the epochs.
    """
    changes = [f"{name} = {value}" for name, value in options.settings.items()]
    shortened = bool(options.budget) or "training.epochs" in options.settings
    if options.budget:
        changes.append(f"as many epochs as fit into {options.budget}")
    if not options.paper:
        return SMALL + (f" Set for all rows: {joined(changes)}." if changes else "")
    scaled = stepped and shortened and "optimization.steps" not in options.settings
    note = " (learning-rate milestones at the same fractions of the epochs)" if scaled else ""
    return PAPER + (f", except: {joined(changes)}{note}." if changes else ".")


def _all(values: Iterable[object]) -> str:
    """All different values, in words."""
    return joined([str(value) for value in dict.fromkeys(values)])
