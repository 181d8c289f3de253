"""Weights learnt elsewhere, used on other images: each way of learning as a user meets it."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from references.weights_files import NETWORK, PREPARED
from residua.transfer.choosing import Tried, furthest

import residua
from residua.config.parse import with_settings
from residua.config.recipes import read_recipe
from residua.config.schema import Config, Optimization
from residua.config.validate import check
from residua.data.prepare import prepare
from residua.errors import ResiduaError
from residua.networks.analysis.cost import measure
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo import catalogue
from residua.runs.sources import open_weights
from residua.system.budget import Clock, seconds_of
from residua.system.console import Console
from residua.training.optimization import optimizer_for
from residua.transfer import features as features_of
from residua.transfer import linear_probe, ways
from residua.transfer import search as auto_of
from residua.transfer.context import Job
from residua.transfer.scenario import scenario_of
from residua.weights.load import read_file
from residua.weights.native import Metadata, to_bytes

UNCHANGED = {"augmentation.rotation": 0, "augmentation.crop_padding": 0}
EXACT = {"training.precision": "fp32"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache folder, of these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("RESIDUA_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def weights(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a network has learnt of the digits in one epoch."""
    run = residua.train(
        "digits",
        model="cifar_resnet20",
        epochs=1,
        out=tmp_path_factory.mktemp("source") / "run",
        settings={"preprocessing.channels": 3, **EXACT},
        quiet=True,
    )
    return run.folder.weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path]) -> Path:
    """160 images of ten classes, in class folders."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits", 16)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path]) -> Path:
    """300 images of ten classes."""
    return write_digits(tmp_path_factory.mktemp("data") / "more", 30)


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory: pytest.TempPathFactory, write_digits: Callable[..., Path]) -> Path:
    """The same with parts of their own."""
    folder = tmp_path_factory.mktemp("data") / "parts"
    write_digits(folder / "train", 12)
    write_digits(folder / "validation", 10, 12)
    write_digits(folder / "test", 6, 22)
    return folder


def digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file: when it was written and what is in it."""
    return {
        str(each.relative_to(folder)): (
            each.stat().st_mtime_ns,
            hashlib.sha256(each.read_bytes()).hexdigest(),
        )
        for each in sorted(folder.rglob("*"))
        if each.is_file()
    }


def tensors_of(run: residua.Run) -> dict[str, torch.Tensor]:
    return read_file(run.folder.weights).tensors


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def measured(run: residua.Run) -> Any:
    return run.folder.read_json("transfer.json")


def choices(run: residua.Run) -> dict[str, Any]:
    return {each["setting"]: each for each in run.folder.read_json("choices.json")}


def learn(
    data: Path | str, weights: Path, transfer: str, out: Path, *, quiet: bool = True, **options: Any
) -> residua.Run:
    options["settings"] = {**EXACT, **options.get("settings", {})}
    return residua.train(data, weights=weights, transfer=transfer, out=out, quiet=quiet, **options)


@pytest.mark.parametrize("head", ["logistic", "linear", "mlp:16"])
def test_a_head_on_features_is_an_ordinary_run(
    in_parts: Path, weights: Path, tmp_path: Path, head: str
) -> None:
    before = digests(in_parts)
    run = learn(in_parts, weights, "features", tmp_path / "run", head=head, epochs=30)
    assert digests(in_parts) == before

    reported = json.loads((run.path / "evaluations" / "test" / "scores.json").read_text())
    judged = run.evaluate()
    assert judged.scores.accuracy == reported["accuracy"] > 0.2
    assert judged.scores.images == 60
    assert f"{100 * judged.scores.accuracy:.1f}" in (run.path / "report.html").read_text("utf-8")

    held = read_file(run.folder.weights)
    assert held.metadata.network.head == ("linear" if head == "logistic" else head)
    assert residua.load(run.path).config == run.config
    assert ": auto" not in (run.path / "config.yaml").read_text()
    source, kept = read_file(weights).tensors, held.tensors
    body = [name for name in kept if not name.startswith("head.")]
    assert body
    assert all(torch.equal(kept[name], source[name]) for name in body)

    folder = in_parts / "test" / "3"
    rows = run.predict(folder, top=10)
    found = residua.features(run, folder)
    network = run.network()
    with torch.inference_mode():
        chances = network.head(torch.from_numpy(found.values)).softmax(1)  # type: ignore[operator]
    assert [row.file for row in rows] == list(found.files)
    for row, expected in zip(rows, chances, strict=True):
        for name, chance in row.top:
            assert chance == pytest.approx(float(expected[run.classes.index(name)]), abs=1e-5)


def test_the_stage_that_was_asked_for_wins(data: Path, weights: Path, tmp_path: Path) -> None:
    free = learn(data, weights, "features", tmp_path / "free")
    taps = measured(free)["taps"]
    best = min(taps, key=lambda each: each["loss"])
    assert (free.config.network.stage, free.config.network.pool_size) == (
        best["stage"],
        best["side"],
    )
    assert len({each["stage"] for each in taps}) == 3
    assert {"network.stage", "network.pool_size"} < choices(free).keys()
    asked = next(each for each in taps if each["stage"] != best["stage"])
    own = learn(
        data,
        weights,
        "features",
        tmp_path / "own",
        settings={"network.stage": asked["stage"], "network.pool_size": asked["side"]},
    )
    assert [(each["stage"], each["side"]) for each in measured(own)["taps"]] == [
        (asked["stage"], asked["side"])
    ]
    told = read_file(own.folder.weights).metadata.network
    assert (told["stage"], told["side"]) == (asked["stage"], asked["side"])
    assert own.network().head.in_features == asked["numbers"]  # type: ignore[union-attr]
    assert not {"network.stage", "network.pool_size"} & choices(own).keys()


def test_few_images_all_teach_and_cross_validation_judges(
    weights: Path, tmp_path: Path, write_digits: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    data = write_digits(tmp_path / "data", 5)
    run = learn(data, weights, "features", tmp_path / "run", quiet=False)
    assert {row.split for row in run.folder.read_split()} == {"train"}
    found = measured(run)["cross_validated"]
    low, high = found["interval"]
    assert 0 < low < found["accuracy"] < high <= 1
    assert found["images"] == 50
    said = " ".join(capsys.readouterr().err.split())
    told = f"heads on frozen features {found['accuracy']:.4f} (95 % interval {low:.4f}"
    assert told in said
    assert "data.val_fraction" in choices(run)
    html = (run.path / "report.html").read_text("utf-8")
    assert "cross-validated accuracy" in html
    for share in (found["accuracy"], low, high):
        assert f"{100 * share:.1f}" in html
    others = write_digits(tmp_path / "others", 12, 100)
    assert run.evaluate(others).scores.interval[1] > low  # what is said of new images is true


@pytest.mark.parametrize(
    ("options", "is_kept"),
    [
        ({"settings": UNCHANGED}, True),
        ({"views": 2}, True),
        ({}, False),
    ],
)
def test_frozen_stages_stay_bit_for_bit(
    data: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    options: dict[str, Any],
    is_kept: bool,
) -> None:
    run = learn(data, weights, "partial", tmp_path / "run", epochs=2, quiet=False, **options)
    assert ("is kept: " in " ".join(capsys.readouterr().err.split())) == is_kept
    assert run.config.network.freeze == 2
    source = read_file(weights).tensors
    frozen = ("stem.", "stages.0.", "stages.1.")
    for name in ("best.safetensors", "last.safetensors"):
        kept = read_file(run.path / name).tensors
        assert kept.keys() == source.keys()
        for key, tensor in kept.items():
            if key.startswith(frozen):
                assert torch.equal(tensor, source[key]), key
            elif name == "last.safetensors" and not key.startswith("head."):
                assert not torch.equal(tensor, source[key]), key  # the best may be the start
    assert len(run.history) == 2


def test_no_gradient_below_the_first_trained_layer(weights: Path) -> None:
    network = residua.build(weights=weights)
    freeze(network, 2)  # type: ignore[arg-type]
    held = {name: each.clone() for name, each in network.state_dict().items()}
    network.eval()
    network.train()
    network.stages.train()  # type: ignore[operator, union-attr]
    x = torch.randn(4, 3, 16, 16)
    entered = network.enter(x, 2)  # type: ignore[operator]
    assert not entered.requires_grad
    network.leave(entered, 2).square().sum().backward()  # type: ignore[operator]
    frozen = ("stem.", "stages.0.", "stages.1.")
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, tensor in network.state_dict().items():
        if name.startswith(frozen):
            assert torch.equal(tensor, held[name]), name


def test_kept_maps_teach_what_images_teach(more: Path, weights: Path, tmp_path: Path) -> None:
    """What was validated on kept maps is what the weights do with images."""
    run = learn(more, weights, "partial", tmp_path / "run", epochs=2, settings=UNCHANGED)
    best = max(each["val_accuracy"] for each in run.history)
    judged = len(run.folder.read_split()) // 5  # one of them may lie at the edge in bf16
    assert run.evaluate().scores.accuracy == pytest.approx(best, abs=1.5 / judged)
    # and without keeping them, the same images in the same order lead to about the same
    changed = {**UNCHANGED, "augmentation.shift": 1e-6}  # nothing an image would show
    plain = learn(more, weights, "partial", tmp_path / "plain", epochs=1, settings=changed)
    assert plain.history[0]["loss"] == pytest.approx(run.history[0]["loss"], rel=0.05)


def test_full_begins_with_a_head_that_knows(data: Path, weights: Path, tmp_path: Path) -> None:
    given = {
        "optimization.learning_rate": 0.01,
        "optimization.layer_decay": 1.0,
        "network.head": "linear",
    }
    options: dict[str, Any] = {"epochs": 1, "settings": given}
    full = learn(data, weights, "full", tmp_path / "full", **options)
    fresh = learn(
        data,
        weights,
        "none",
        tmp_path / "fresh",
        new_head=True,
        epochs=1,
        settings=given | {"preprocessing.size": 16},
    )
    assert full.preprocessing == fresh.preprocessing
    assert full.config.optimization == fresh.config.optimization
    assert full.history[0]["accuracy"] > fresh.history[0]["accuracy"] + 0.3
    source, kept = read_file(weights).tensors, read_file(full.path / "last.safetensors").tensors
    changed = [name for name in kept if name.endswith("weight") and kept[name].ndim == 4]
    assert changed
    assert not any(torch.equal(kept[name], source[name]) for name in changed)


def test_earlier_stages_learn_slower(data: Path, weights: Path, tmp_path: Path) -> None:
    network = catalogue.build("preact_resnet18", classes=3, seed=0)
    optimizer = optimizer_for(network, Optimization(optimizer="sgd", rate=0.1, layer_decay=0.5))
    names = {id(each): name for name, each in network.named_parameters()}
    factors: dict[str, float] = {}
    for group in optimizer.param_groups:
        for each in group["params"]:
            assert names[id(each)] not in factors
            factors[names[id(each)]] = group["factor"]
    assert factors.keys() == set(names.values())
    distance = {"stem": 5, "stages.0": 4, "stages.1": 3, "stages.2": 2, "stages.3": 1}
    for name, factor in factors.items():
        place = next((each for each in distance if name.startswith(f"{each}.")), "head")
        assert factor == pytest.approx(0.5 ** distance.get(place, 0)), name
    # what it does to a training: the same but for the rates, stages far from the head move less
    source, moved = read_file(weights).tensors, []
    for decay in (1.0, 0.1):
        out = tmp_path / f"run{decay}"
        given = {"optimization.layer_decay": decay, "training.precise_bn_images": 0}
        run = learn(data, weights, "full", out, epochs=1, settings=given)
        kept = read_file(run.path / "last.safetensors").tensors
        moved.append(float((kept["stem.conv.weight"] - source["stem.conv.weight"]).norm()))
    assert 0 < moved[1] < 0.1 * moved[0]


def test_scratch_takes_nothing_of_the_weights(
    data: Path,
    tmp_path: Path,
    write_weights: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = []
    for seed in (1, 2):
        file = write_weights(tmp_path / f"{seed}.safetensors", seed)
        out = tmp_path / f"run{seed}"
        runs.append(learn(data, file, "scratch", out, epochs=1, quiet=False))
        said = " ".join(capsys.readouterr().err.split())
        assert f"the network of {file}, and nothing that it has learnt" in said
        assert "starts from" not in said
    assert equal(tensors_of(runs[0]), tensors_of(runs[1]))
    assert runs[0].config.network.freeze == 0


@pytest.fixture(scope="module")
def auto(in_parts: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """Four ways, two epochs each, on parts that the data set brings."""
    return learn(in_parts, weights, "auto", tmp_path_factory.mktemp("auto") / "run", epochs=2)


def without_clocks(found: Any) -> Any:
    if isinstance(found, dict):
        clocks = ("seconds", "predicted_seconds", "computed")  # and what the cache had
        return {key: without_clocks(each) for key, each in found.items() if key not in clocks}
    if isinstance(found, str):
        return re.sub(r"after \d+ s", "after some time", found)
    return [without_clocks(each) for each in found] if isinstance(found, list) else found


def test_auto_says_what_it_measured(auto: residua.Run, in_parts: Path) -> None:
    found = measured(auto)
    assert len(found["taps"]) > 2
    ways = [(each["way"], each["length"]) for each in found["table"]]
    assert ways[:4] == [
        ("features", "solved"),
        ("full", "trial"),
        ("partial", "trial"),
        ("scratch", "trial"),
    ]
    assert {"number", "name", "reason"} < found["scenario"].keys()
    assert found["scenario"]["number"] in (1, 2, 3, 4)
    assert auto.config.transfer.strategy == found["chosen"]
    assert ": auto" not in (auto.path / "config.yaml").read_text()
    assert choices(auto)["transfer.strategy"]["reason"] == found["reason"]
    assert not (auto.path / "tried").exists()
    html = (auto.path / "report.html").read_text("utf-8")
    assert found["scenario"]["name"] in html
    assert f"because {found['reason']}." in html
    assert "Hoped for in the time that was left: full" in html
    assert f"{found['data']['images']} training images, the largest class 1.0 times" in html
    reported = json.loads((auto.path / "evaluations" / "test" / "scores.json").read_text())
    assert auto.evaluate().scores.accuracy == reported["accuracy"]
    assert reported["images"] == 60


@pytest.mark.parametrize(
    ("tutorial", "fast", "learn"),
    [
        ("tutorial_frozen_head", "frozen_head", (24_114_826, 527_114, 23_587_712)),
        ("tutorial_vgg16_mnist", "vgg16_mnist", (33_638_218, 18_923_530, 14_714_688)),
    ],
)
def test_recipes_run_as_the_tutorials_and_the_fast_way(
    tutorial: str,
    fast: str,
    learn: tuple[int, int, int],
    in_parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = {**NETWORK, "name": read_recipe(tutorial).network.name, "head": "linear"}
    source = catalogue.build(told["name"], classes=10, head="linear", seed=1)
    metadata = Metadata(told, (), dataclasses.replace(PREPARED, size=48), {})
    (tmp_path / "source.safetensors").write_bytes(to_bytes(source.state_dict(), metadata))
    for recipe, options in ((tutorial, {"epochs": 1}), (fast, {})):
        run = residua.train(
            in_parts,
            recipe=recipe,
            weights=tmp_path / "source.safetensors",
            size=48,
            out=tmp_path / recipe,
            quiet=False,
            **options,
        )
        assert run.evaluate().scores.images == 60
        held, kept = read_file(run.folder.weights).tensors, source.state_dict()
        assert all(
            torch.equal(held[name], kept[name]) for name in held if not name.startswith("head.")
        )
    said = " ".join(capsys.readouterr().err.split())
    assert f" parameters: {learn[1]:,} learn, " in said
    total = measure(residua.load(tmp_path / tutorial).network(), (3, 48, 48)).total
    assert total == learn[0] == sum(learn[1:])


def test_the_first_answer_is_kept_when_nothing_is_better(
    auto: residua.Run, in_parts: Path, tmp_path: Path
) -> None:
    first, *others = measured(auto)["table"]
    assert first["way"] == "features"
    assert all(each["gain"] <= 0 for each in others)
    assert measured(auto)["chosen"] == "features"
    assert auto.history == []
    again = residua.train(
        in_parts, recipe=auto.path / "config.yaml", out=tmp_path / "again", quiet=True
    )
    assert again.config.transfer.strategy == "features"
    assert again.config == auto.config
    assert equal(tensors_of(again), tensors_of(auto))


def test_what_names_the_most_rightly_is_kept_and_of_equals_the_first_answer() -> None:
    def tried(*right: bool) -> Tried:
        return Tried("any", None, None, np.array(right), 1.0)  # type: ignore[arg-type]

    first = tried(*[False] * 10, *[True] * 90)
    one_more = tried(*[False] * 9, *[True] * 91)  # as likely as one less, if it is no better
    others = tried(*[True] * 10, *[False] * 10, *[True] * 80)  # 10 won and 10 lost
    assert one_more.gain_over(first) == pytest.approx((0.01, 0.01))
    assert others.gain_over(first) == pytest.approx((0.0, math.sqrt(20) / 100))
    assert furthest([others, one_more], first) is one_more
    assert furthest([others], first) is first
    assert furthest([first, others], others) is others
    assert furthest([], first) is first


def test_a_large_network_has_a_small_one_try_from_nothing(
    in_parts: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ways, "SMALL_NETWORK", 1)
    colours = {"preprocessing.mean": [9.0] * 3, "preprocessing.std": [90.0] * 3}  # of the weights
    given = {"optimization.learning_rate": 0.01, **colours}  # the digits are grey
    run = learn(in_parts, weights, "auto", tmp_path / "run", epochs=1, settings=given, quiet=False)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("scratch: cifar_resnet20 at 32 px") == 1
    assert "is left out" not in said
    assert [each["way"] for each in measured(run)["table"]].count("scratch") >= 1
    assert run.evaluate().scores.images == 60


def test_a_scenario_is_named_only_where_it_was_measured() -> None:
    prepared: Any = SimpleNamespace(parts={"train": np.arange(2_000)})
    taps = [{"stage": 1, "loss": 0.2}, {"stage": 2, "loss": 0.1}]
    solved = {"way": "features", "length": "solved", "accuracy": 0.8, "seconds": 1.0}
    scratch = {"way": "scratch", "length": "trial", "accuracy": 0.7, "seconds": 4.0}
    longer = {**scratch, "length": "long", "accuracy": 0.9, "seconds": 30.0}
    unknown = scenario_of(prepared, taps, [solved])
    assert (unknown["number"], unknown["similar"], unknown["large"]) == (None, None, True)
    assert "so scenario 3 or 4" in unknown["reason"]
    assert scenario_of(prepared, taps, [solved, scratch])["number"] == 4
    different = scenario_of(prepared, taps, [solved, scratch, longer])
    assert different["number"] == 3
    assert "0.900 after 30 s" in different["reason"]
    more = {**solved, "length": "long", "accuracy": 0.95}
    assert scenario_of(prepared, taps, [solved, more, scratch, longer])["number"] == 4


@pytest.mark.parametrize("small", [1, ways.SMALL_NETWORK])
def test_what_auto_tries_from_nothing_can_be_trained_by_itself(
    data: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """Settings of frozen stages, which the user gave for the others, do not stand in its way."""
    monkeypatch.setattr(ways, "SMALL_NETWORK", small)
    given = {"data.path": str(data), "network.weights": str(weights), "network.new_head": True}
    given |= {"transfer.strategy": "auto", "transfer.views": 2, "network.stage": 2}
    asked, quiet = with_settings(Config(), given), Console(quiet=True)
    source = open_weights(str(weights), None, quiet)
    job = Job(prepare(asked, quiet, source.metadata), source, Clock(math.inf), quiet, asked)
    found = ways.as_way(job, "scratch").prepared.config
    check(found)
    assert (found.transfer.strategy, found.network.head) == ("scratch", "own")
    assert (found.transfer.views, found.network.stage, found.network.pool_size) == (0, None, None)


def test_all_teach_where_nothing_else_can_be_tried(
    weights: Path,
    tmp_path: Path,
    write_digits: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too few for a validation part; the first answer, in a hurry, has to do with fewer."""
    monkeypatch.setattr(auto_of, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(features_of, "PIXELS", 1)  # small batches
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    run = learn(write_digits(tmp_path / "data", 13), weights, "auto", tmp_path / "run", quiet=False)
    found = measured(run)
    assert (found["chosen"], found["images"], found["table"]) == ("features", 130, [])
    assert found["cross_validated"]["images"] == 130
    assert choices(run)["transfer.strategy"]["reason"].startswith("there is no validation part")


def test_a_learnt_head_goes_on_to_all_images_where_nothing_judges_it(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto_of, "FIRST_SECONDS", 0.0)  # as where there are many images
    run = learn(data, weights, "auto", tmp_path / "run", head="mlp:16", val_fraction=0, epochs=2)
    assert (measured(run)["chosen"], measured(run)["images"]) == ("features", 160)
    assert len(run.history) == 2
    assert run.predict(data / "3")[0].error is None


def test_a_part_that_the_data_brings_is_no_fraction(auto: residua.Run) -> None:
    chosen = choices(auto)["data.val_fraction"]
    assert (chosen["value"], auto.config.data.val_fraction) == (0.0, 0.0)
    assert "its own validation part" in chosen["reason"]
    prepared = prepare(auto.config, Console(quiet=True))  # as a recipe, or to go on
    assert not [note for note in prepared.notes if "is not used" in note]


def test_a_test_part_judges_a_solved_head_and_all_others_teach_it(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    run = learn(data, weights, "features", tmp_path / "run", test_fraction=0.25)
    assert {row.split for row in run.folder.read_split()} == {"train", "test"}
    assert "all others teach" in choices(run)["data.val_fraction"]["reason"]
    own = {"data.val_fraction": 0.25}
    split = learn(data, weights, "features", tmp_path / "o", test_fraction=0.25, settings=own)
    tested = [
        {row.path for row in each.folder.read_split() if row.split == "test"}
        for each in (run, split)
    ]
    assert tested[0] == tested[1]
    learnt = learn(data, weights, "full", tmp_path / "full", test_fraction=0.25, epochs=1)
    assert "validation" in {row.split for row in learnt.folder.read_split()}


def test_a_validation_part_that_chose_nothing_is_not_called_optimistic(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    given = {"data.val_fraction": 0.3}
    solved = learn(data, weights, "features", tmp_path / "solved", settings=given)
    learnt = learn(
        data, weights, "features", tmp_path / "learnt", head="linear", epochs=2, settings=given
    )
    assert "never used for model selection" in (solved.path / "report.html").read_text("utf-8")
    assert "this part chose the epoch" in (learnt.path / "report.html").read_text("utf-8")
    copy = shutil.copytree(solved.path, tmp_path / "copy")
    (pair,) = residua.compare(solved, copy, out=tmp_path / "same").pairs
    assert (pair.images, pair.chose) == (48, 0)
    (pair,) = residua.compare(solved, learnt, out=tmp_path / "other").pairs
    assert pair.chose == 48


@pytest.mark.parametrize("transfer", ["features", "full"])
def test_so_many_images_teach_the_head_as_were_asked_for(
    data: Path, weights: Path, tmp_path: Path, transfer: str
) -> None:
    given = {"training.max_images": 60}
    run = learn(data, weights, transfer, tmp_path / "run", epochs=1, settings=given)
    assert measured(run)["images"] == 60
    assert run.config.training.max_images == 60


def test_a_head_with_hidden_layers_learns_from_all_features_whatever_the_budget(
    weights: Path, tmp_path: Path
) -> None:
    run = learn("digits", weights, "features", tmp_path / "run", head="mlp:64", budget="2s")
    assert run.config.training.max_images == 0
    assert "training.max_images" not in choices(run)
    again = residua.train(
        "digits", recipe=run.path / "config.yaml", epochs=1, out=tmp_path / "again", quiet=True
    )
    assert again.config.transfer.strategy == "features"


def test_a_first_answer_with_hidden_layers_leaves_time_for_other_ways(
    weights: Path, tmp_path: Path
) -> None:
    run = learn("digits", weights, "auto", tmp_path / "run", head="mlp:64", budget="20s")
    table = measured(run)["table"]
    assert table[0]["seconds"] < 10
    assert {each["way"] for each in table} >= {"full", "scratch"}  # full has time for many epochs


def test_some_may_choose_but_all_teach_the_head(
    data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_choose = learn(data, weights, "features", tmp_path / "all")
    monkeypatch.setattr(linear_probe, "CHOOSING", (60, 60))
    run = learn(data, weights, "features", tmp_path / "some")
    found, whole = measured(run), measured(all_choose)
    assert found["images"] == whole["images"] == 160
    assert (found["cross_validated"]["images"], found["cross_validated"]["taught"]) == (60, 160)
    assert "so many of the 160" in (run.path / "report.html").read_text("utf-8")


def test_one_image_a_class_teaches_and_nothing_is_claimed(
    weights: Path, tmp_path: Path, write_digits: Callable[..., Path]
) -> None:
    run = learn(write_digits(tmp_path / "one", 1), weights, "features", tmp_path / "run")
    assert "cross_validated" not in measured(run)
    assert "Not judged" in (run.path / "report.html").read_text("utf-8")
    assert len(run.predict(tmp_path / "one")) == 10


def test_nothing_is_said_of_a_class_of_one_image(
    weights: Path,
    tmp_path: Path,
    write_digits: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_digits(tmp_path / "data", 6)
    for file in sorted((data / "7").iterdir())[1:]:
        file.unlink()
    run = learn(data, weights, "features", tmp_path / "run", quiet=False)
    found = measured(run)["cross_validated"]
    assert (found["images"], found["alone"], found["taught"]) == (54, 1, 55)
    assert "alone in their class, of which nothing is said: 1" in " ".join(
        capsys.readouterr().err.split()
    )
    html = (run.path / "report.html").read_text("utf-8")
    assert "those that are alone in their class: 1." in html
    assert "The head that learnt from all of them" in html


def test_the_test_part_takes_no_part(
    auto: residua.Run, in_parts: Path, weights: Path, tmp_path: Path
) -> None:
    """Every test image under another name's label: the same choice, the same weights."""
    data = tmp_path / "data"
    shutil.copytree(in_parts, data)
    for label in range(10):
        (data / "test" / str(label)).rename(data / "test" / f"was{label}")
    for label in range(10):
        (data / "test" / f"was{label}").rename(data / "test" / str((label + 3) % 10))
    run = learn(data, weights, "auto", tmp_path / "run", epochs=2)
    assert without_clocks(measured(run)) == without_clocks(measured(auto))
    assert equal(tensors_of(run), tensors_of(auto))
    assert run.evaluate().scores.accuracy < 0.3 < auto.evaluate().scores.accuracy


def test_auto_takes_what_is_clearly_better(
    more: Path, tmp_path: Path, write_weights: Callable[..., Path]
) -> None:
    """Killed while that learns, the run goes on there: trials and epochs are not done again."""
    source = write_weights(tmp_path / "blind.safetensors", 4, blind=True)
    out = tmp_path / "run"
    words = [str(more), "--weights", str(source), "--transfer", "auto", "--epochs", "10"]
    given = {
        "optimization.learning_rate": 0.05,
        "training.batch_size": 8,
        "training.save_seconds": 0.3,
        **EXACT,
    }
    words += [part for key, value in given.items() for part in ("--set", f"{key}={value}")]

    def learning() -> list[Path]:
        found = (out / "tried").glob("long-*/history.csv")
        return [each for each in found if "\n4," in each.read_text()]

    killed(words, out, lambda: bool(learning()))
    (history,) = learning()
    before = history.read_text().splitlines()[:2]  # later ones may be learnt again
    run = residua.resume(out, quiet=True)
    assert (out / "history.csv").read_text().splitlines()[: len(before)] == before  # seconds too
    found = measured(run)
    assert f"long-{found['chosen']}" == history.parent.name
    first, *others = found["table"]
    assert first["accuracy"] < 0.2
    assert max(each["gain"] for each in others if each["way"] == found["chosen"]) > 0
    assert found["chosen"] == run.config.transfer.strategy
    assert ": auto" not in (run.path / "config.yaml").read_text()
    assert len(run.history) == 10
    assert not (run.path / "tried").exists()
    kept = max(others, key=lambda each: each["accuracy"])
    assert kept["gain"] > kept["noise"]
    accuracy = max(each["val_accuracy"] for each in run.history)
    assert run.evaluate().scores.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert accuracy == max(each["accuracy"] for each in found["table"])
    again = residua.train(more, recipe=run.path / "config.yaml", out=tmp_path / "again", quiet=True)
    assert again.config == run.config
    assert equal(tensors_of(again), tensors_of(run))


@given(some.integers(1, 10_000), some.integers(0, 99), some.sampled_from("smh"))
def test_a_budget_is_a_time_in_words(whole: int, hundredths: int, unit: str) -> None:
    factor = {"s": 1, "m": 60, "h": 3600}[unit]
    assert seconds_of(f"{whole}{unit}") == whole * factor
    assert seconds_of(f" {whole}.{hundredths:02} {unit} ") == pytest.approx(
        (whole + hundredths / 100) * factor
    )
    assert seconds_of(f"{whole}") == whole


def test_no_budget_is_no_limit() -> None:
    assert (seconds_of("90s"), seconds_of("2m"), seconds_of("1.5h")) == (90, 120, 5400)
    assert seconds_of("") == math.inf


@pytest.mark.parametrize("budget", ["soon", "-3s", "0s", "0", "2 days", "1e3s", "s", "1m30s", " "])
def test_what_is_no_time_is_refused(budget: str, data: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match="expected a time such as 90s, 2m or 1h"):
        learn(data, weights, "features", tmp_path / "run", budget=budget)
    assert not (tmp_path / "run").exists()


@given(some.text(max_size=6))
def test_any_budget_is_a_time_or_a_sentence(budget: str) -> None:
    with contextlib.suppress(ResiduaError):
        assert seconds_of(budget) > 0


def test_a_budget_allows_fewer_epochs(data: Path, weights: Path, tmp_path: Path) -> None:
    """Without one it would be 60, as choices.json says where there is none."""
    run = learn(data, weights, "full", tmp_path / "run", budget="4s", batch=8)
    assert 1 <= run.config.training.epochs < 60
    chosen = choices(run)["training.epochs"]
    assert chosen["value"] == run.config.training.epochs
    assert "of the budget hold" in chosen["reason"]
    assert len(run.history) <= run.config.training.epochs
    assert run.config.optimization.layer_decay < 1  # and earlier stages learn slower by themselves
    assert 0 < run.config.optimization.warmup_epochs < run.config.training.epochs


def test_an_explicit_number_of_epochs_wins(data: Path, weights: Path, tmp_path: Path) -> None:
    run = learn(data, weights, "full", tmp_path / "run", budget="1s", epochs=3)
    assert run.config.training.epochs == 3
    assert run.config.training.max_images == 0
    assert "training.epochs" not in choices(run)
    assert len(run.history) == 3


def test_an_explicit_zero_is_a_wish(data: Path, weights: Path, tmp_path: Path) -> None:
    given = {"optimization.warmup_epochs": 0}
    run = learn(data, weights, "full", tmp_path / "run", budget="4s", settings=given)
    assert run.config.optimization.warmup_epochs == 0
    assert "optimization.warmup_epochs" not in choices(run)


@pytest.mark.parametrize(
    ("batch", "said"),
    [(16, "full is left out: the loss became"), (512, "full is left out: ")],  # one step: judged
)
def test_a_trial_that_fails_does_not_take_the_first_answer_away(
    in_parts: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batch: int,
    said: str,
) -> None:
    given = {"optimization.learning_rate": 1e30}  # which a solved head knows nothing of
    run = residua.train(
        in_parts,
        weights=weights,
        transfer="auto",
        out=tmp_path / "run",
        epochs=2,
        batch=batch,
        settings=given,
        quiet=False,
    )
    assert measured(run)["chosen"] == "features"
    assert run.evaluate().scores.accuracy > 0.3
    assert said in " ".join(capsys.readouterr().err.split())


def test_less_than_an_epoch_is_some_of_the_images(weights: Path, tmp_path: Path) -> None:
    run = learn("digits", weights, "full", tmp_path / "run", budget="1s")
    assert run.config.training.epochs == 1
    assert 0 < run.config.training.max_images < 1438
    reason = choices(run)["training.max_images"]["reason"]
    assert reason == "0 s do not hold one epoch of all"  # judging takes longer than the budget
    assert run.evaluate().scores.accuracy > 0.5  # the head is there all the same


def history_without_clocks(run: residua.Run) -> list[dict[str, str]]:
    with (run.path / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    clocks = ("images_per_second", "seconds")
    return [{key: row[key] for key in row if key not in clocks} for row in rows]


def text_of(file: Path) -> str:
    return file.read_text("utf-8") if file.exists() else ""


def killed(words: list[str], out: Path, ready: Callable[[], bool]) -> None:
    """Start `residua train` in a process and kill it as soon as it is `ready`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "residua", "train", *words, "--out", str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("way", "epochs", "options", "given"),
    [
        ("features", 100, {"head": "mlp:16"}, {}),
        ("partial", 3, {"views": 1}, {}),
        ("full", 3, {"head": "mlp:16"}, {"optimization.ema_decay": 0.9}),
        ("none", 3, {"freeze": 2}, {"network.new_head": True, **UNCHANGED}),
    ],
)
def test_killed_and_resumed_is_bit_identical(
    data: Path,
    weights: Path,
    tmp_path: Path,
    way: str,
    epochs: int,
    options: dict[str, Any],
    given: dict[str, Any],
) -> None:
    given = {"training.save_seconds": 0.05, **EXACT, **given}
    options = {"epochs": epochs, **options}
    whole = learn(data, weights, way, tmp_path / "whole", batch=16, settings=given, **options)
    words = [str(data), "--weights", str(weights), "--transfer", way]
    words += ["--batch", "16", *(f"--{key}={value}" for key, value in options.items())]
    words += [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    out = tmp_path / "broken"
    killed(words, out, lambda: "\n1," in text_of(out / "history.csv"))
    broken = residua.load(out)
    assert 1 <= len(broken.history) < epochs
    residua.resume(broken, quiet=True)
    assert history_without_clocks(broken) == history_without_clocks(whole)
    for name in ("best.safetensors", "last.safetensors"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes()
    assert broken.config == whole.config


def test_a_plan_for_a_budget_holds_after_a_kill(data: Path, tmp_path: Path) -> None:
    """Another number of epochs would be another schedule, and other weights at each step."""
    out = tmp_path / "run"
    words = [str(data), "--budget", "8s", "--set", "training.save_seconds=0.05"]
    killed(words, out, lambda: "\n1," in text_of(out / "history.csv"))
    broken = residua.load(out)
    planned = broken.config.training.epochs
    assert "of the budget hold" in choices(broken)["training.epochs"]["reason"]
    residua.resume(broken, quiet=True)
    assert broken.config.training.epochs == planned
    assert broken.history[-1]["epoch"] <= planned


def test_resumed_figures_on_known_images_are_still_called_too_good(
    data: Path, tmp_path: Path
) -> None:
    options = {"epochs": 1, "test_fraction": 0.3, "quiet": True}
    first = residua.train(data, split_seed=0, out=tmp_path / "first", **options)
    again = residua.train(data, weights=first.path, split_seed=1, out=tmp_path / "again", **options)
    said = "so its figures on them are too good"
    assert said in (again.path / "report.html").read_text("utf-8")
    residua.resume(again, quiet=True)
    assert said in (again.path / "report.html").read_text("utf-8")


def test_a_killed_auto_run_ends_with_the_same_choice(
    auto: residua.Run, in_parts: Path, weights: Path, tmp_path: Path
) -> None:
    """Killed while it tries the ways: resumed, it measures and chooses what it would have."""
    words = [str(in_parts), "--weights", str(weights), "--transfer", "auto", "--epochs", "2"]
    words += ["--set", "training.precision=fp32"]
    out = tmp_path / "broken"
    killed(words, out, lambda: (out / "tried" / "partial").exists())
    assert (out / "best.safetensors").exists()  # the first answer
    run = residua.resume(out, quiet=True)
    assert measured(run)["chosen"] == measured(auto)["chosen"]
    assert equal(tensors_of(run), tensors_of(auto))
    found, expected = measured(run)["table"], measured(auto)["table"]
    assert without_clocks(found) == without_clocks(expected)
    assert not (out / "tried").exists()
    assert run.config == auto.config


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({"transfer": way}, "add --weights") for way in ("features", "partial", "full")),
        ({"transfer": "auto"}, "--transfer auto needs pretrained weights: add --weights"),
        ({"transfer": "full", "weights": "none"}, "add --weights"),
        ({"head": "logistic"}, "is a linear probe on frozen features: add --transfer features"),
        (
            {"weights": True, "transfer": "full", "head": "logistic"},
            "linear probe on frozen features",
        ),
        ({"weights": True, "transfer": "features", "head": "own"}, "trains a new head"),
        ({"weights": True, "transfer": "auto", "head": "own"}, "auto trains a new head"),
        (
            {
                "weights": True,
                "transfer": "features",
                "head": "mlp:8",
                "settings": {"training.curve_test": True},
            },
            "omit --curve-test",
        ),
        ({"weights": True, "transfer": "features", "head": "mlp"}, "head 'mlp' is unknown"),
        ({"weights": True, "views": 2, "new_head": True}, "needs frozen stages"),
        ({"weights": True, "transfer": "scratch", "views": 2}, "needs frozen stages"),
        (
            {"weights": True, "transfer": "auto", "settings": {"training.curve_test": True}},
            "omit --curve-test",
        ),
        (
            {"weights": True, "transfer": "features", "settings": {"network.stage": 4}},
            "stage = 4: the network has stages 1 to 3",
        ),
    ],
)
def test_contradictions_are_refused_before_there_is_a_run(
    data: Path, weights: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    if options.get("weights") is True:
        options = {**options, "weights": weights}
    with pytest.raises(ResiduaError, match=said):
        residua.train(data, out=tmp_path / "run", quiet=True, **options)
    assert not (tmp_path / "run").exists()
