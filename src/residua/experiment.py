"""A config -> a trained, judged and reported run folder; or an interrupted one, ended."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from residua.config import parse
from residua.config.auto import Choice
from residua.config.schema import AUTO, Config
from residua.config.validate import checked
from residua.data.dataset import SplitName
from residua.data.prepare import prepare
from residua.errors import ResiduaError
from residua.evaluation.evaluate import record
from residua.evaluation.score import Evaluation, judge
from residua.networks.analysis.cost import smallest_input
from residua.networks.analysis.shapes import REFUSALS
from residua.networks.zoo.catalogue import plan_of
from residua.report.facts import write_report
from residua.runs.folder import RunFolder
from residua.runs.sources import is_published
from residua.runs.starting import begun_from, note_known, say_start
from residua.system.budget import Clock, seconds_of
from residua.system.console import Console
from residua.system.device import environment
from residua.system.files import refuse_inside
from residua.system.signals import Interrupted
from residua.training.checkpoint import STATE
from residua.training.recorder import tensorboard_writer
from residua.transfer import telling
from residua.transfer.context import Job, Learnt, choices_of, write_settings
from residua.transfer.fine_tune import by_tuning
from residua.transfer.linear_probe import by_features
from residua.transfer.search import by_measuring
from residua.weights.load import read_file

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def train_run(config: Config, out: str | None, console: Console) -> RunFolder:
    """Train as a config says, in a new run folder: `out`, else the next free runs/<data>-<n>.

    What can be refused before any image is read is. Raises ResiduaError.
    """
    if config.network.name != AUTO:
        plan_of(config.network_spec)
    if out is not None:
        RunFolder.refuse_used(out)
    refuse_inside(Path(out or "runs"), config.data.path)
    if config.training.tensorboard:
        tensorboard_writer()
    clock = Clock(seconds_of(config.transfer.budget))
    config = checked(config)
    asked, weights = config, begun_from(config, console)
    if weights is not None and not is_published(config.network.weights):
        absolute = str(Path(config.network.weights).expanduser().absolute())
        config = parse.with_settings(config, {"network.weights": absolute})
    prepared = prepare(config, console, None if weights is None else weights.expects)
    job = Job(prepared, weights, clock, console, asked)
    with _explained(prepared.config):
        _check_network(job)
    note_known(config, prepared)
    folder = RunFolder.new(out, prepared.source.name)
    if out is None:
        prepared.choices.append(Choice("run", str(folder.path), "the next free runs/<data>-<n>"))
    folder.write_json("classes.json", list(prepared.source.classes))
    folder.write_json("environment.json", environment(prepared.device))
    folder.write_split(prepared.members)
    folder.write_unreadable(prepared.unreadable)
    if weights is not None:
        folder.write_json("weights.json", {"sha256": weights.sha256(), **weights.metadata.notes})
        say_start(weights, prepared, console)
    write_settings(folder, prepared)  # last: now it is a run
    for choice in prepared.choices:
        console.print(f"  {choice.setting} = {_short(choice.value)}  ({choice.reason})")
    _learn(folder, job)
    return folder


def go_on(folder: RunFolder, console: Console) -> None:
    """Bring an interrupted run to its end. Raises ResiduaError if its data is not what it was."""
    config = folder.config
    where = dataclasses.replace(config.data, cache=AUTO)  # memory may be other than it was
    prepared = prepare(dataclasses.replace(config, data=where), console)
    choices = choices_of(folder)
    prepared = dataclasses.replace(prepared, choices=choices)
    if prepared.members != folder.read_split():
        raise ResiduaError(
            f"{config.data.path}: is not what it was when {folder.path} began: its images "
            "or their parts differ from split.csv. Restore the data, or train anew."
        )
    note_known(config, prepared)
    weights = None
    needed = config.transfer.strategy in ("features", "auto")  # whose features come from them
    if needed or not (folder.path / STATE).exists():  # nothing was learnt yet
        weights = begun_from(config, console)
    if weights is not None and weights.sha256() != folder.read_json("weights.json")["sha256"]:
        raise ResiduaError(
            f"{weights.path}: has changed since {folder.path} began with it. Restore it, or train "
            "anew."
        )
    clock = Clock(seconds_of(config.transfer.budget))
    names = [each.setting for each in choices if "." in each.setting]
    chosen = {name: AUTO for name in names if parse.accepts_auto(name)}
    asked = parse.with_settings(config, chosen)
    _learn(folder, Job(prepared, weights, clock, console, asked))


def _kept(folder: RunFolder) -> dict[str, Any]:
    """What was measured before an interruption."""
    if not (folder.path / "transfer.json").exists():
        return {}
    return dict(folder.read_json("transfer.json"))


def _learn(folder: RunFolder, job: Job) -> None:
    """The part that training anew and going on have in common."""
    prepared, console = job.prepared, job.console
    config, device = prepared.config, prepared.device
    console.print(prepared.summary)
    for note in prepared.notes:
        console.warn(note)
    for path, reason in prepared.unreadable:
        console.warn(f"{path} is left out: {reason}")
    name = environment(device)["device_name"]
    console.print(
        f"{config.network.name} at {config.preprocessing.size} px on {device} ({name}), "
        f"{config.training.precision}, channels_last; run folder {folder.path}"
    )
    way = {"features": by_features, "auto": by_measuring}.get(config.transfer.strategy, by_tuning)
    with _explained(config), folder.lock():
        try:
            learnt = way(job, folder)
        except KeyboardInterrupt:  # while features are computed: what is done is in the cache
            raise Interrupted(signal.SIGINT, str(folder.path)) from None
        prepared, progress = learnt.prepared, learnt.progress
        write_settings(folder, prepared)
        measured = _kept(folder) | learnt.measured
        if config.transfer.strategy != "none":
            folder.write_json("transfer.json", measured)
        for line in telling.lines(measured):
            console.print(line)
        try:
            judged = _judge(folder, learnt, console)
            for warning in write_report(folder, prepared, judged, progress, measured):
                console.warn(warning)
        except KeyboardInterrupt:
            raise Interrupted(signal.SIGINT, str(folder.path)) from None
    console.print(f"trained for {progress.seconds:.1f} s, {job.clock.passed:.1f} s in all now")
    console.print(f"report: {folder.path / 'report.html'}")


def _judge(folder: RunFolder, learnt: Learnt, console: Console) -> Evaluation | None:
    """Judge the test part, else the validation part, by the weights that were kept."""
    prepared = learnt.prepared
    part: SplitName = "test" if len(prepared.splits["test"]) else "validation"
    members = prepared.splits[part]
    if not len(members):
        return None
    judged = judge(
        read_file(folder.weights),
        prepared.pixels,
        members,
        prepared.labels[members],
        [prepared.source.entries[each].path for each in members],
        part,
        prepared.device,
        console,
    )
    record(folder, part, judged)
    low, high = judged.scores.interval
    console.print(
        f"{judged.split} accuracy {judged.scores.accuracy:.4f} "
        f"(95 % interval {low:.4f} to {high:.4f}, {judged.scores.images:,} images)"
    )
    return judged


@contextmanager
def _explained(config: Config) -> Iterator[None]:
    """Turn what PyTorch says of memory and of lone images into a sentence with advice."""
    training, size = config.training, config.preprocessing.size
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        said = str(error)
        if isinstance(error, MemoryError) or any(words in said for words in _NO_MEMORY):
            raise ResiduaError(
                f"there is not enough memory for {config.network.name} at {size} px with batch "
                f"size {training.batch_size}. Try --batch-size {max(2, training.batch_size // 2)}, "
                f"a smaller --size or another --model. ({said.splitlines()[0]})"
            ) from error
        if "more than 1 value per channel" in said:
            raise ResiduaError(
                f"--batch-size {training.batch_size} leaves a batch of a single image, for which "
                "BatchNorm has no variance. Use a larger --batch-size, or more images."
            ) from error
        raise


def _check_network(job: Job) -> None:
    """Say before there is a run what would only fail in it. Raises ResiduaError.

    Weights that do not fit the network, images that are too small for it.
    """
    config, device = job.prepared.config, job.prepared.device
    network, size = job.network().eval(), config.preprocessing.size
    try:
        with torch.inference_mode():
            network(torch.zeros(1, config.preprocessing.channels, size, size, device=device))
    except REFUSALS as error:
        if size >= (least := smallest_input(network)):
            raise
        raise ResiduaError(
            f"{config.network.name} needs images of at least {least} px, not {size}: give "
            f"--size {least} or another --model."
        ) from error


def _short(value: object) -> str:
    return ", ".join(f"{each:g}" for each in value) if isinstance(value, list) else str(value)
