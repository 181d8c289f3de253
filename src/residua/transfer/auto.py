"""Data and weights -> a way of learning, chosen by what was measured in the time that there is.

First the head on frozen features: the answer that is kept if nothing better is found, on more
pictures if the first had to do with few. Then each other way learns for a short while. The one that
may be hoped to get furthest goes on, if that is not behind the first answer by more than the noise
of the validation part, and its weights replace the first answer if they name more of that part
rightly. The test part takes no part in any choice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua import automatic, settings
from residua.automatic import Choice, Chooser
from residua.config import AUTO
from residua.errors import ResiduaError
from residua.networks.cost import measure
from residua.preparation import Prepared, prepare
from residua.run import RunFolder
from residua.screen import Screen
from residua.training.interruption import Interrupted
from residua.transfer.answers import answers_of
from residua.transfer.clock import Clock
from residua.transfer.heads import FIRST_SHARE, by_features
from residua.transfer.job import Job, Learnt
from residua.transfer.pace import with_epochs
from residua.transfer.scenario import facts_of, scenario_of
from residua.transfer.tuning import JUDGED, by_tuning, thinned

Right = npt.NDArray[np.bool_]

TRIAL = 0.08  # of the budget, for each way's trial
MORE_SHARE = 0.75  # of the budget, for features where the first answer had to do with fewer
LEFT_FOR_TRIALS = 0.5  # of the budget; with less, training would not get far enough
TRIAL_EPOCHS = 0.1  # of a way's usual epochs, without a budget
SMALL_NETWORK = 100_000_000  # multiply-adds: above, another network tries from scratch
SMALL_NAME, SMALL_SIZE = "cifar_resnet20", 32
OF_A_WAY = (  # settings that depend on the way of learning
    "network.head",
    "optimization.rate",
    "optimization.optimizer",
    "optimization.layer_decay",
    "optimization.warmup_epochs",
    "training.epochs",
)


@dataclass(frozen=True, eq=False)
class Tried:
    """One way, and how it did on the validation part. right: bool [N]."""

    way: str
    learnt: Learnt
    folder: RunFolder
    right: Right
    seconds: float

    def gain_over(self, other: Tried) -> tuple[float, float]:
        """Difference of the accuracies and its standard error, on the same pictures."""
        difference = self.right.astype(float) - other.right.astype(float)
        return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))

    def to_json(self, first: Tried, length: str) -> dict[str, object]:
        """A row of the table that is printed and kept."""
        gain, noise = self.gain_over(first)
        return {
            "way": self.way,
            "length": length,
            "epochs": self.learnt.progress.epoch,
            "seconds": self.seconds,
            "predicted_seconds": self.learnt.measured.get("predicted_seconds"),
            "accuracy": float(self.right.mean()),
            "gain": gain,
            "noise": noise,
        }


def by_measuring(job: Job, folder: RunFolder) -> Learnt:
    """The best of what was tried, its files in `folder`; what was measured in the result.

    Raises Interrupted after a signal; the best weights until then are in the folder.
    """
    shutil.rmtree(folder.path / "tried", ignore_errors=True)  # of a run that was interrupted
    try:
        best, table, measured = _measured(job, folder)
    except Interrupted as error:  # in a trial, whose folder is of no use to anyone
        raise Interrupted(error.number, str(folder.path)) from None
    shutil.rmtree(folder.path / "tried", ignore_errors=True)
    scenario = scenario_of(job.prepared, measured["taps"], table)
    measured |= {"table": table, "scenario": scenario, "chosen": best.way}
    prepared = _as_chosen(best.learnt.prepared, best.way, scenario["reason"])
    return dataclasses.replace(best.learnt, prepared=prepared, measured=measured)


def _measured(job: Job, folder: RunFolder) -> tuple[Tried, list[dict[str, object]], dict[str, Any]]:
    """The best way, the table of all that was tried, and what the features showed."""
    first = best = _first(job, folder)
    facts = {"data": facts_of(job.prepared)}
    if not len(first.right):
        job.screen.say("no validation part to compare other ways of learning by: features it is")
        return first, [], first.learnt.measured | facts
    table = [first.to_json(first, "solved")]
    if first.learnt.measured["pictures"] < len(job.prepared.parts["train"]):
        more = _try(_as(job, "features"), "features", _place(folder, "more"), final=True)
        if more is not None:
            table.append(more.to_json(first, "long"))
            best = _better(more, first, folder)
    shown = best.learnt.measured | facts
    if job.clock.bounded and job.clock.left < LEFT_FOR_TRIALS * job.clock.seconds:
        return best, table, shown
    tried = _trials(job, folder)
    table += [each.to_json(first, "trial") for each in tried]
    if not tried:
        return best, table, shown
    hopes = {each.way: _hope(job, each) for each in tried}
    chosen = _most_hopeful(tried, hopes)
    error, noise = 1 - float(best.right.mean()), chosen.gain_over(best)[1]
    if hopes[chosen.way] > error + noise:
        job.screen.say("nothing that was tried promises more than features do")
    else:
        longer = _try(_as(job, chosen.way), chosen.way, _place(folder, "long"), final=True)
        if longer is not None:
            table.append(longer.to_json(first, "long"))
            tried.insert(0, longer)  # of equals, what has learnt for longer
    best = _better(max(tried, key=lambda each: float(each.right.mean())), best, folder)
    return best, table, shown | {"hopes": {way: 1 - error for way, error in hopes.items()}}


def _first(job: Job, folder: RunFolder) -> Tried:
    began = time.monotonic()
    learnt = by_features(_as(job, "features"), folder, share=FIRST_SHARE)
    right = _right(learnt)
    tried = Tried("features", learnt, folder, right, time.monotonic() - began)
    said = f", validation accuracy {right.mean():.4f}" if len(right) else ""
    job.screen.say(f"first answer after {job.clock.passed:.1f} s: features{said}")
    return tried


def _trials(job: Job, folder: RunFolder) -> list[Tried]:
    """Each other way for a short while; those that cannot learn at all are left out."""
    found = []
    for way in ("full", "partial", "scratch"):
        own = _as(job, way).freed("training.epochs")
        if job.clock.bounded:
            own = dataclasses.replace(
                own, clock=Clock(min(TRIAL * job.clock.seconds, job.clock.left))
            )
        else:
            epochs = max(1, round(TRIAL_EPOCHS * own.prepared.config.training.epochs))
            own = with_epochs(own, epochs, "a trial")
        tried = _try(own, way, _place(folder, way), final=False)
        if tried is not None:
            found.append(tried)
            accuracy = tried.right.mean()
            job.screen.say(f"{way}: validation accuracy {accuracy:.4f} after {tried.seconds:.1f} s")
    return found


def _hope(job: Job, tried: Tried) -> float:
    """The error that a way may reach in the time left: errors fall about as the root of time."""
    longer = job.clock.left if job.clock.bounded else tried.seconds / TRIAL_EPOCHS
    share = min(1.0, tried.seconds / max(longer, 1e-9))
    return (1 - float(tried.right.mean())) * math.sqrt(share)


def _most_hopeful(tried: list[Tried], hopes: dict[str, float]) -> Tried:
    """The way to go on with; of two that differ by less than the noise the one that can learn more.

    A short trial flatters the way that has less to learn.
    """
    best = min(tried, key=lambda each: hopes[each.way])
    full = next((each for each in tried if each.way == "full"), None)
    if full is None or best.way != "partial":
        return best
    gain, noise = best.gain_over(full)
    return full if gain <= noise else best


def _better(new: Tried, old: Tried, folder: RunFolder) -> Tried:
    """The new one, its files now in `folder`, if it names more pictures rightly; else the old."""
    if new.gain_over(old)[0] <= 0:
        return old
    _promote(new.folder, folder)
    learnt = dataclasses.replace(new.learnt, answers=answers_of(folder, new.learnt.prepared))
    return dataclasses.replace(new, folder=folder, learnt=learnt)


def _place(folder: RunFolder, name: str) -> RunFolder:
    return RunFolder(folder.path / "tried" / name)


def _try(job: Job, way: str, folder: RunFolder, final: bool) -> Tried | None:
    """How a way does; None, with a warning, if it diverges or the machine is too small for it.

    There is an answer already, which a way that fails must not take away.
    """
    began = time.monotonic()
    folder.path.mkdir(parents=True)
    quiet = dataclasses.replace(job, screen=Screen(quiet=True)) if not final else job
    try:
        if way == "features":
            learnt = by_features(quiet, folder, share=MORE_SHARE)
        else:
            learnt = by_tuning(quiet, folder, final=final)
    except (ResiduaError, RuntimeError, MemoryError, ValueError) as error:
        job.screen.warn(f"{way} is left out: {' '.join(str(error).split())}")
        return None
    return Tried(way, learnt, folder, _right(learnt), time.monotonic() - began)


def _as(job: Job, way: str) -> Job:
    """The same data for one way of learning, its automatic settings chosen for that way."""
    if way == "scratch" and _is_large(job):
        return _small(job)
    prepared = job.prepared
    automatically = {each.setting for each in prepared.choices} & set(OF_A_WAY)
    asked = {"transfer.strategy": way} | dict.fromkeys(automatically, AUTO)
    if way == "features" and "network.head" in automatically:
        asked["network.head"] = "logistic"
    chooser = Chooser(settings.with_settings(prepared.config, asked))
    chooser.choices = [each for each in prepared.choices if each.setting not in automatically]
    automatic.choose_network(chooser, len(prepared.source.classes), len(prepared.parts["train"]))
    automatic.choose_training(chooser, prepared.counts("train"))
    own = dataclasses.replace(prepared, config=chooser.config, choices=chooser.choices)
    return dataclasses.replace(job, prepared=own)


def _is_large(job: Job) -> bool:
    config = job.prepared.config
    if job.weights is None:
        return False
    shape = (config.preprocessing.channels, config.preprocessing.size, config.preprocessing.size)
    return measure(job.frozen.network, shape).multiply_adds > SMALL_NETWORK


def _small(job: Job) -> Job:
    """A small network on small pictures, as it would be without any weights."""
    asked = job.asked
    changes = {
        "network.name": SMALL_NAME,
        "network.head": "own",
        "network.ordering": None,
        "network.shortcut": None,
        "network.cardinality": None,
        "network.weights": "",
        "network.new_head": False,
        "network.freeze": 0,
        "transfer.strategy": "scratch",
        "preprocessing.size": SMALL_SIZE,
        "data.val_fraction": job.prepared.config.data.val_fraction,
    }
    prepared = prepare(settings.with_settings(asked, changes), Screen(quiet=True))
    return Job(prepared, None, job.clock, job.screen, asked)


def _right(learnt: Learnt) -> Right:
    """Whether the kept weights name each of some validation pictures rightly."""
    prepared = learnt.prepared
    samples = thinned(prepared.parts["validation"], JUDGED)
    if not len(samples) or learnt.answers is None:
        return np.zeros(0, bool)
    return np.asarray(learnt.answers(samples).argmax(1) == prepared.labels[samples])


def _promote(winner: RunFolder, folder: RunFolder) -> None:
    """Move the files of a training into the run; the weights last, each in one step."""
    for name in ("history.csv", "log.jsonl", "last.safetensors", "state.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            (winner.path / name).replace(folder.path / name)
    (winner.path / "best.safetensors").replace(folder.path / "best.safetensors")


def _as_chosen(prepared: Prepared, way: str, reason: str) -> Prepared:
    chosen = {"transfer.strategy": way}
    if way != "features" and prepared.config.network.head == "logistic":
        chosen["network.head"] = "linear"  # it began as a solved one, and is the same layer
    config = settings.with_settings(prepared.config, chosen)
    choices = [*prepared.choices, Choice("transfer.strategy", way, reason)]
    return dataclasses.replace(prepared, config=config, choices=choices)
