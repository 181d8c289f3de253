"""Data and weights -> a way of learning, chosen by what was measured in the time that there is.

First the head on frozen features: the answer that is kept if nothing better is found, on more
images if the first had to do with few. Then each other way learns for a short while. The one that
may be hoped to get furthest goes on, if that is further than the first answer got by more than the
noise of their difference. What names the most of the validation part rightly is kept. The test part
takes no part in any choice.

Each trial that has ended and the training that goes on have folders below the run's, where a run
that was interrupted finds them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from residua.config import parse
from residua.config.auto import Choice
from residua.data.prepare import Prepared, thinned
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.system.console import Console
from residua.system.signals import Interrupted
from residua.training import throughput
from residua.training.checkpoint import STATE
from residua.training.progress import Progress
from residua.transfer.answers import answers_of
from residua.transfer.choosing import (
    TRIAL_EPOCHS,
    Right,
    Tried,
    furthest,
    has_time,
    hope,
    most_hopeful,
)
from residua.transfer.context import Job, Learnt, as_written
from residua.transfer.fine_tune import fine_tune
from residua.transfer.linear_probe import HEAD_SHARE, by_features
from residua.transfer.scenario import facts_of, scenario_of
from residua.transfer.ways import as_way

TRIED, ENDED, BEST = "tried", "ended.json", "best.safetensors"
FIRST_SECONDS, FIRST_SHARE = 10.0, 0.15  # of the budget, for features: the first answer comes early
TRIAL = 0.06  # of the budget, for each way's trial
MORE_SHARE = 0.75  # of the budget, for features where the first answer had to do with fewer
LEFT_FOR_TRIALS = 0.5  # of the budget; with less, training would not get far enough


def by_measuring(job: Job, folder: RunFolder) -> Learnt:
    """The best of what was tried, its files in `folder`; what was measured in the result.

    Raises Interrupted after a signal; the first answer is in the folder then.
    """
    measured: dict[str, Any] = {"data": facts_of(job.prepared), "table": []}
    try:
        best = _best(job, folder, measured)
    except Interrupted as error:  # in the folder of a way
        raise Interrupted(error.number, str(folder.path)) from None
    shutil.rmtree(folder.path / TRIED, ignore_errors=True)
    scenario = scenario_of(job.prepared, measured["taps"], measured["table"])
    measured |= {"scenario": scenario, "chosen": best.way}
    prepared = _as_chosen(best.learnt.prepared, best.way, measured["reason"])
    return dataclasses.replace(best.learnt, prepared=prepared, measured=measured)


def _best(job: Job, folder: RunFolder, measured: dict[str, Any]) -> Tried:
    """The way to keep. measured: gets the table of all that was tried, what the features showed and
    the reason of the choice."""
    features = _features(job, folder, measured)
    measured |= features.learnt.measured
    if not len(features.right):
        measured["reason"] = "there is no validation part to compare other ways by"
        return features
    if job.clock.bounded and job.clock.left < LEFT_FOR_TRIALS * job.clock.seconds:
        measured["reason"] = "features took so much of the time that no other way was tried"
        return features
    tried = _trials(job, folder)
    measured["table"] += [each.to_json(features, "trial") for each in tried]
    hopes = {each.way: hope(job.clock, each) for each in tried}
    measured["hopes"] = {way: 1 - error for way, error in hopes.items()}
    chosen = most_hopeful(tried, hopes) if tried else features
    way, missed = chosen.way, 1 - float(features.right.mean())
    if way in hopes and missed - hopes[way] > chosen.gain_over(features)[1]:
        longer = _try(job, way, _place(folder, f"long-{way}"), final=True)
        if longer is not None:
            measured["table"].append(longer.to_json(features, "long"))
            tried.insert(0, longer)  # of equals, what has learnt for longer
    kept = furthest(tried, features)
    gain, noise = kept.gain_over(features)
    if kept is features:
        measured["reason"] = "no other way named more of the validation part rightly"
        return features
    measured["reason"] = (
        f"it gained {100 * gain:.1f} points over features, where chance gives {100 * noise:.1f}"
    )
    return _promoted(kept, folder)


def _features(job: Job, folder: RunFolder, measured: dict[str, Any]) -> Tried:
    """The first answer, or one that has learnt from more images, its files in `folder`."""
    first = _first(job, folder)
    judged = len(first.right) > 0
    if judged:
        measured["table"].append(first.to_json(first, "solved"))
    if first.learnt.measured["images"] == len(job.prepared.training_members):
        return first
    more = _try(job, "features", _place(folder, "more"), final=True)
    if more is None:
        return first
    if judged:
        measured["table"].append(more.to_json(first, "long"))
        if more.gain_over(first)[0] < 0:
            return first
    return _promoted(more, folder)


def _first(job: Job, folder: RunFolder) -> Tried:
    began = time.monotonic()
    until = min(began + FIRST_SECONDS, job.clock.at(FIRST_SHARE) or math.inf)
    learnt = by_features(as_way(job, "features"), folder, until=until, head_share=HEAD_SHARE)
    right = _right(learnt)
    tried = Tried("features", learnt, folder, right, time.monotonic() - began)
    said = f", validation accuracy {right.mean():.4f}" if len(right) else ""
    job.console.print(f"first answer after {job.clock.passed:.1f} s: features{said}")
    return tried


def _trials(job: Job, folder: RunFolder) -> list[Tried]:
    """Each other way for a short while; those that cannot learn at all are left out.

    Partial is of interest where there is no time for many epochs of full, which can learn more; a
    trial would flatter it, because it begins with less to unlearn.
    """
    found: list[Tried] = []
    for way in ("full", "partial", "scratch"):
        if way == "partial" and found and has_time(job.clock, found[0]):
            continue
        tried = _try(job, way, _place(folder, way), final=False)
        if tried is not None:
            found.append(tried)
            accuracy = tried.right.mean()
            job.console.print(
                f"{way}: validation accuracy {accuracy:.4f} after {tried.seconds:.1f} s"
            )
    return found


def _short(own: Job, clock: Clock) -> Job:
    """A way's job, for as long as a trial takes. clock: of all that auto does."""
    own = own.freed("training.epochs")
    if clock.bounded:
        return dataclasses.replace(own, clock=Clock(min(TRIAL * clock.seconds, clock.left)))
    epochs = max(1, round(TRIAL_EPOCHS * own.prepared.config.training.epochs))
    return own.with_prepared(throughput.with_epochs(own.prepared, epochs, "a trial"))


def _promoted(new: Tried, folder: RunFolder) -> Tried:
    """The same, its files now in `folder`."""
    _promote(new.folder, folder)
    learnt = dataclasses.replace(new.learnt, answers=answers_of(folder, new.learnt.prepared))
    return dataclasses.replace(new, folder=folder, learnt=learnt)


def _place(folder: RunFolder, name: str) -> RunFolder:
    return RunFolder(folder.path / TRIED / name)


def _try(job: Job, way: str, folder: RunFolder, final: bool) -> Tried | None:
    """How a way does; None, with a warning, if it diverges or the machine is too small for it.

    There is an answer already, which a way that fails must not take away. What an interrupted run
    has left in the folder is taken up.
    """
    try:
        own = as_way(job, way)
        began = time.monotonic()
        if (folder.path / ENDED).exists() and (folder.path / BEST).exists():
            return _ended(own, way, folder)
        if final and way != "features" and (folder.path / STATE).exists():
            own = dataclasses.replace(own, prepared=as_written(own.prepared, folder))
        else:
            shutil.rmtree(folder.path, ignore_errors=True)
            folder.path.mkdir(parents=True)
        if not final:
            own = _short(dataclasses.replace(own, console=Console(quiet=True)), job.clock)
        if way == "features":
            until = job.clock.at(MORE_SHARE)
            learnt = by_features(own, folder, until=until, head_share=HEAD_SHARE)
        else:
            learnt = fine_tune(own, folder, final=final)
        tried = Tried(way, learnt, folder, _right(learnt), time.monotonic() - began)
        if not final:
            _note_end(tried)
    except (ResiduaError, RuntimeError, MemoryError, ValueError) as error:
        job.console.warn(f"{way} is left out: {' '.join(str(error).split())}")
        return None
    return tried


def _note_end(tried: Tried) -> None:
    tried.folder.write_settings(tried.learnt.prepared.config, tried.learnt.prepared.choices)
    told = {"seconds": tried.seconds, "measured": tried.learnt.measured}
    tried.folder.write_json(ENDED, told | {"progress": asdict(tried.learnt.progress)})


def _ended(job: Job, way: str, folder: RunFolder) -> Tried:
    """A trial that had ended before the run was interrupted."""
    told, prepared = folder.read_json(ENDED), as_written(job.prepared, folder)
    progress, answers = Progress.from_json(told["progress"]), answers_of(folder, prepared)
    learnt = Learnt(prepared, progress, told["measured"], answers)
    return Tried(way, learnt, folder, _right(learnt), told["seconds"])


def _right(learnt: Learnt) -> Right:
    """Whether the kept weights name each of some validation images rightly."""
    prepared = learnt.prepared
    samples = thinned(prepared.splits["validation"], throughput.VALIDATION_LIMIT)
    if not len(samples) or learnt.answers is None:
        return np.zeros(0, bool)
    return np.asarray(learnt.answers(samples).argmax(1) == prepared.labels[samples])


def _promote(winner: RunFolder, folder: RunFolder) -> None:
    """Move the files of a training into the run; the best weights, if any, last."""
    for name in ("history.csv", "log.jsonl", "last.safetensors", "state.safetensors", BEST):
        with contextlib.suppress(FileNotFoundError):
            (winner.path / name).replace(folder.path / name)


def _as_chosen(prepared: Prepared, way: str, reason: str) -> Prepared:
    chosen = {"transfer.strategy": way}
    if way != "features" and prepared.config.network.head == "logistic":
        chosen["network.head"] = "linear"  # it began as a solved one, and is the same layer
    config = parse.with_settings(prepared.config, chosen)
    choices = (*prepared.choices, Choice("transfer.strategy", way, reason))
    return dataclasses.replace(prepared, config=config, choices=choices)
