"""Runs of a study -> on what, how and where they were made, in words."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

from residua.report.view import counted, joined
from residua.studies.plan import Asked
from residua.studies.results import Outcome

PAPERS = "Epochs, batch, schedule and decay are those that the study gives for its paper (--paper)"
SMALL = (
    "Defaults of a study suit a small machine: few epochs and small networks, so what needs long "
    "training does not show here. --epochs, --data, --seeds and --paper change that."
)


def conditions_of(outcomes: Sequence[Outcome], asked: Asked) -> list[str]:
    """Data, settings and machine, in sentences."""
    first = outcomes[0]
    machines = [each for outcome in outcomes for each in outcome.machines]
    on_cpu = any(each["device"] == "cpu" for each in machines)
    shares = _all(counted(each["threads"], "thread") for each in machines)
    threads = f", {shares} a run" if on_cpu else ""
    configs = [each.config for each in outcomes]
    return [
        f"Data: {Path(first.config.data.path).name}, {first.taught:,} images to learn from, "
        f"{first.tested:,} to judge by, {_all(each.preprocessing.size for each in configs)} px, "
        f"channels: {_all(each.preprocessing.channels for each in configs)}; "
        f"epochs: {_all(each.training.epochs for each in configs)}; "
        f"batch: {_all(each.training.batch_size for each in configs)}; "
        f"{counted(asked.seeds, 'seed')}.",
        settings_said(asked, any(each.optimization.steps for each in configs)),
        f"{datetime.date.today()}; {_all(each['device_name'] for each in machines)}{threads}, "
        f"{_all(each.training.precision for each in configs)}; "
        f"residua {_all(each['residua'] for each in machines)}, "
        f"torch {_all(each['torch'] for each in machines)}.",
        (
            "The data's own validation part chose the epoch whose weights are judged."
            if first.chosen
            else "The last weights are judged; nothing was chosen."
        ),
        "Every row and seed is an ordinary run under runs/, with its own report.",
    ]


def settings_said(asked: Asked, stepped: bool) -> str:
    """Whose settings the rows have, and what was given. stepped: whether rates move in steps."""
    given = [f"{name} = {value}" for name, value in asked.given.items()]
    if asked.budget:
        given.append(f"as many epochs as {asked.budget} hold")
    if not asked.paper:
        return SMALL + (f" Given for all rows: {joined(given)}." if given else "")
    moved = stepped and asked.shortened and "optimization.steps" not in asked.given
    shorter = " (the steps of the rate keep their shares of the epochs)" if moved else ""
    return PAPERS + (f", but for what was given: {joined(given)}{shorter}." if given else ".")


def _all(values: Iterable[object]) -> str:
    """All different values, in words."""
    return joined([str(each) for each in dict.fromkeys(values)])
