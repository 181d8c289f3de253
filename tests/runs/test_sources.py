"""A training that starts from weights: whose they are, what is replaced, printed and checked."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.runs import trained
from references.weights_files import NETWORK, PREPARED

import residua
from residua.cli.look import overview
from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.data.prepare import prepare
from residua.data.prepared import Prepared
from residua.errors import ResiduaError
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo import catalogue
from residua.runs.provenance import images_seen_by, leakage_notes
from residua.runs.sources import (
    in_class_order,
    initial_weights,
    open_weights,
    report_initial_weights,
    start_from,
    with_overrides,
    with_preprocessing,
)
from residua.system.console import Console
from residua.training.checkpoint import STATE
from residua.weights.convert import convert
from residua.weights.load import Weights, read_file
from residua.weights.native import Metadata, read_weights, to_bytes

QUIET = Console(quiet=True)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits(write_digits: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 handwritten digits of ten classes."""
    return write_digits(tmp_path_factory.mktemp("digits"), 6)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as pytorch_resnet_cifar10 writes it: other names, nested, prefixed."""
    folder = tmp_path_factory.mktemp("weights")
    network = catalogue.build("cifar_resnet20", seed=7)
    ours = folder / "ours.safetensors"
    ours.write_bytes(to_bytes(network.state_dict(), Metadata(NETWORK, (), PREPARED, {})))
    convert(read_file(ours), folder / "plain.pth")
    state = torch.load(folder / "plain.pth", weights_only=True)
    path = folder / "resnet20.th"
    torch.save({"state_dict": {f"module.{name}": state[name] for name in state}}, path)
    return path


@pytest.fixture(scope="module")
def pretrained(cifar: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """One epoch on the digits from these weights, with a new head."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    options = {"new_head": True, "test_fraction": 0.2, "val_fraction": 0.2, "quiet": True}
    return residua.train(digits, weights=cifar, epochs=1, out=out, **options)


def started(data: Path, weights: Path, **settings: object) -> tuple[Weights, Prepared]:
    """What a training has before its first step."""
    keywords = {name.replace("__", "."): value for name, value in settings.items()}
    paths = {"data.path": str(data), "network.weights": str(weights)}
    config = with_settings(Config(), paths | keywords)
    opened = initial_weights(config, QUIET)
    assert opened is not None
    return opened, prepare(config, QUIET, opened.expects)


@pytest.mark.slow
def test_a_run_takes_over_what_its_weights_require(pretrained: residua.Run, cifar: Path) -> None:
    assert pretrained.config.network.name == "cifar_resnet20"
    assert pretrained.config.preprocessing.channels == 3  # though the digits are grey
    assert pretrained.preprocessing.mean == (123.675, 116.28, 103.53)
    choices = {choice.setting: choice.reason for choice in pretrained.folder.choices}
    assert choices["network.name"] == choices["preprocessing.mean"]
    assert choices["preprocessing.mean"] == "as in the pretrained weights"
    assert pretrained.config.augmentation.flip is False  # grey images may be writing
    recorded = json.loads((pretrained.path / "weights.json").read_text())
    assert recorded["sha256"] == read_file(cifar).sha256()
    assert pretrained.config.network.weights == str(cifar)
    assert str(cifar) in (pretrained.path / "report.html").read_text("utf-8")


def test_a_network_starts_from_the_weights_with_a_new_head(cifar: Path) -> None:
    weights = open_weights(cifar, None, QUIET)
    spec = dataclasses.replace(weights.metadata.network, classes=4)
    network = start_from(weights, spec, new_head=True, seed=3)
    fresh = catalogue.build("cifar_resnet20", classes=4, seed=3)
    for name, tensor in network.state_dict().items():
        if name.startswith("head."):
            assert torch.equal(tensor, fresh.state_dict()[name])
        elif "num_batches" not in name:
            assert torch.equal(tensor, weights.tensors[name]), name


def test_training_leaves_the_weights_that_it_starts_from_unchanged(cifar: Path) -> None:
    weights = open_weights(cifar, None, QUIET)
    spec = dataclasses.replace(weights.metadata.network, classes=4)
    network = start_from(weights, spec, new_head=True, seed=3)
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.requires_grad
            parameter.add_(1.0)
    again = start_from(weights, spec, new_head=True, seed=3)
    for moved, same in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(moved, same + 1.0)


def test_an_explicit_setting_wins_over_the_weights(cifar: Path, digits: Path) -> None:
    _, prepared = started(digits, cifar, preprocessing__mean=[9.0, 9.0, 9.0])
    assert prepared.config.preprocessing.mean == (9.0, 9.0, 9.0)
    assert prepared.config.preprocessing.std == (58.395, 57.12, 57.375)


@pytest.mark.slow
def test_a_run_is_a_source_too(pretrained: residua.Run, digits: Path, tmp_path: Path) -> None:
    options = {"epochs": 1, "test_fraction": 0.2, "val_fraction": 0.2}
    again = trained(digits, tmp_path / "run", weights=pretrained.path, **options)
    assert again.preprocessing == pretrained.preprocessing
    assert again.history[0]["loss"] < pretrained.history[0]["loss"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"network.classes": 12}, "has 10 outputs, but 12 are needed. --new-head"),
        ({"preprocessing.channels": 1}, "has 3 input channels, but preprocessing.channels is 1"),
        ({"network.shortcut": "B"}, "with shortcut None, but cifar_resnet20 with shortcut 'B'"),
        ({"network.name": "resnet18"}, "not those of resnet18"),
        ({"network.name": "cifar_resnet32"}, "does not fit cifar_resnet32"),
    ],
)
def test_weights_of_another_network_are_refused_before_there_is_a_run(
    cifar: Path, digits: Path, tmp_path: Path, settings: dict[str, object], reason: str
) -> None:
    options = {"out": tmp_path / "run", "settings": settings, "quiet": True}
    with pytest.raises(ResiduaError, match=reason):
        residua.train(digits, weights=cifar, **options)
    assert not (tmp_path / "run").exists()


def test_weights_of_a_run_bring_their_ordering_and_shortcut(digits: Path, tmp_path: Path) -> None:
    network = {"network__ordering": "c", "network__shortcut": "B"}
    spec = dataclasses.replace(NETWORK, ordering="c", shortcut="B")
    state = catalogue.build_from(spec, seed=1).state_dict()
    (tmp_path / "c.safetensors").write_bytes(to_bytes(state, Metadata(spec, (), PREPARED, {})))
    _, prepared = started(digits, tmp_path / "c.safetensors")
    assert prepared.config.network.ordering == "relu_before_addition"
    assert prepared.config.network.shortcut == "B"
    started(digits, tmp_path / "c.safetensors", **network)


def test_missing_weights_are_errors_with_a_way_out(digits: Path, tmp_path: Path) -> None:
    for arguments, reason in (
        ({"weights": tmp_path / "nowhere.pth"}, r"nowhere\.pth: there is no such file"),
        (
            {"model": "resnet18", "new_head": True},
            "--new-head needs pretrained weights: add --weights",
        ),
        (
            {"model": "resnet18", "freeze": 1},
            "--freeze needs pretrained weights: add --weights",
        ),
        (
            {"model": "cifar_resnet20", "weights": "imagenet"},
            "no published ImageNet weights of cifar_resnet20",
        ),
    ):
        with pytest.raises(ResiduaError, match=reason):
            residua.train(digits, out=tmp_path / "run", quiet=True, **arguments)
    assert not (tmp_path / "run").exists()
    none = with_settings(Config(), {"network.weights": "none"})
    assert initial_weights(none, QUIET) is None


def test_a_head_of_other_classes_is_reported(
    cifar: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, prepared = started(digits, cifar)
    report_initial_weights(weights, prepared, Console())
    printed = capsys.readouterr().err
    assert f"initial weights {cifar} (a PyTorch checkpoint of" in printed
    assert (
        "the head was trained on airplane, automobile, bird, ... and is now trained on" in printed
    )
    assert f"{cifar.name}: its preprocessing is not recorded in the file" in printed
    config = dataclasses.replace(
        prepared.config, network=dataclasses.replace(prepared.config.network, new_head=True)
    )
    report_initial_weights(weights, dataclasses.replace(prepared, config=config), Console())
    printed = capsys.readouterr().err
    assert "cifar_resnet20) with a new head" in printed
    assert "the head was trained on" not in printed


@pytest.mark.slow
def test_images_that_the_weights_were_trained_on_are_counted(
    pretrained: residua.Run, digits: Path
) -> None:
    used = pretrained.folder.images_used()
    settings = {"data__test_fraction": 0.2, "data__val_fraction": 0.2}
    weights, same = started(digits, pretrained.path, **settings)
    (note,) = leakage_notes(images_seen_by(weights), same.config, same)  # the same test images
    assert "validation images were used to train" in note
    for source in (pretrained.path, pretrained.path / "best.safetensors"):
        weights, other = started(digits, source, data__split_seed=3, **settings)
        notes = leakage_notes(images_seen_by(weights), other.config, other)
        for split, note in zip(("validation", "test"), notes, strict=True):
            images = [member.sha256 for member in other.members if member.split == split]
            leaked = sum(sha256 in used for sha256 in images)
            assert leaked
            assert f"{leaked} of {len(images)} {split} images were used to train" in note
    _, frozen = started(digits, pretrained.path, transfer__strategy="features", **settings)
    notes = leakage_notes(used, frozen.config, frozen)
    assert "cross-validation of its features is too optimistic" in notes[0]


def test_a_head_that_is_trained_further_has_the_order_of_the_data(cifar: Path) -> None:
    weights = read_file(cifar)
    names = tuple(sorted(map(str, range(10)), reverse=True))  # of numbered outputs
    turned = in_class_order(weights, names)
    assert turned.metadata.classes == names
    assert turned.assumed_classes == ""
    for name in ("head.weight", "head.bias"):
        assert torch.equal(turned.tensors[name], weights.tensors[name].flip(0))
    assert torch.equal(turned.tensors["stem.conv.weight"], weights.tensors["stem.conv.weight"])
    two = in_class_order(weights, ("truck", "cat"))  # of the ten assumed names
    assert two.metadata.classes[:3] == ("truck", "cat", "airplane")
    assert torch.equal(two.tensors["head.bias"][:2], weights.tensors["head.bias"][[9, 3]])
    assert in_class_order(weights, weights.metadata.classes) is weights
    assert in_class_order(weights, ("cat", "unicorn")) is weights


@pytest.mark.slow
def test_resume_needs_the_weights_until_the_first_checkpoint(
    pretrained: residua.Run, cifar: Path, digits: Path, tmp_path: Path
) -> None:
    file, config = tmp_path / "weights.th", tmp_path / "run" / "config.yaml"
    shutil.copy(cifar, file)
    run = trained(digits, config.parent, weights=file, new_head=True, epochs=1)
    first, (whole, _) = run.history, read_weights(run.folder.weights)
    one_epoch = config.read_text()

    file.unlink()
    config.write_text(one_epoch.replace("epochs: 1\n", "epochs: 2\n"))
    residua.resume(run, quiet=True)
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert run.history[0] == first[0]
    assert run.history[1]["loss"] < first[0]["loss"]

    shutil.copy(cifar, file)
    config.write_text(one_epoch)
    written = ("history.csv", "report.html")
    for path in (
        run.path / STATE,
        *map(run.path.joinpath, written),
        *run.path.glob("*.safetensors"),
    ):
        path.unlink(missing_ok=True)
    residua.resume(run, quiet=True)
    again, _ = read_weights(run.folder.weights)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())

    for name in (STATE, "report.html"):
        (run.path / name).unlink()
    file.write_bytes(pretrained.folder.weights.read_bytes())
    with pytest.raises(ResiduaError, match="has changed since"):
        residua.resume(run, quiet=True)


@pytest.mark.slow
def test_frozen_stages_do_not_change(cifar: Path, digits: Path, tmp_path: Path) -> None:
    options = {"weights": cifar, "new_head": True}
    run = trained(digits, tmp_path / "run", epochs=2, freeze=2, **options)
    before, after = read_file(cifar).tensors, read_weights(run.folder.weights)[0]
    frozen = ("stem.", "stages.0.", "stages.1.")
    for name, tensor in before.items():
        same = after[name].shape == tensor.shape and torch.equal(after[name], tensor)
        assert same == name.startswith(frozen), name

    network = residua.build("cifar_resnet20", weights=cifar)
    freeze(network, 2)
    network.train()
    network.stages.train()  # type: ignore[operator, union-attr]
    loss = network(torch.randn(4, 3, 32, 32)).square().sum()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, tensor in network.state_dict().items():
        if name.startswith(frozen):
            assert torch.equal(tensor, before.get(name, tensor)), name
            assert "num_batches" not in name or tensor == 0, name
    with pytest.raises(ResiduaError, match="has 3 stages"):
        trained(digits, tmp_path / "four", freeze=4, **options)


def test_a_given_mean_leaves_the_class_names_assumed(cifar: Path) -> None:
    half = with_preprocessing(read_file(cifar), {"mean": [0.0, 0.0, 0.0]})
    assert half.metadata.preprocessing.mean == (0.0, 0.0, 0.0)
    assert half.assumed_preprocessing.startswith("its std is not recorded in the file, so [58.395")
    colours = {"mean": [0.0, 0.0, 0.0], "std": [1, 1, 1]}
    weights = with_preprocessing(read_file(cifar), colours)
    assert weights.assumed_preprocessing == ""
    assert "those of CIFAR-10 are assumed" in weights.assumed_classes
    assert weights.with_classes(tuple("abcdefghij")).assumed_classes == ""
    with pytest.warns(UserWarning, match=r"of CIFAR-10 are assumed\. Change it with --classes"):
        with_overrides(read_file(cifar), None, colours, QUIET)
    with pytest.raises(ResiduaError, match=r"look like 0..1. In 0..255 they are mean = \[123\.675"):
        with_preprocessing(weights, {"mean": [0.485, 0.456, 0.406]})
    with pytest.raises(ResiduaError, match=r"preprocessing\.mean"):
        with_preprocessing(weights, {"mean": [0.0]})


def test_recorded_preprocessing_cannot_be_changed(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = read_file(write_weights(tmp_path / "ours.safetensors", 0))
    with pytest.raises(ResiduaError, match=r"records its preprocessing, so preprocessing\.mean"):
        with_preprocessing(weights, {"mean": [0, 0, 0]})


@pytest.mark.slow
def test_an_overview_prepares_images_as_the_weights_require(
    cifar: Path, digits: Path, tmp_path: Path
) -> None:
    data = {"data.path": str(digits), "network.weights": "none"}
    weights = {"network.weights": str(cifar), "transfer.strategy": "auto"}
    plain = overview(with_settings(Config(), data), str(tmp_path / "a"), QUIET)
    overview(with_settings(Config(), data | weights), str(tmp_path / "b"), QUIET)
    assert "training-batch.png" in plain
    batches = [np.asarray(Image.open(tmp_path / name / "training-batch.png")) for name in "ab"]
    assert batches[0].shape != batches[1].shape  # 8 px in grey, and 32 px in colour


def test_an_overview_splits_as_a_training_on_a_linear_head_would(
    digits: Path, tmp_path: Path
) -> None:
    spec = dataclasses.replace(NETWORK, head="linear", stage=3, pool_size=1)
    state = catalogue.build_from(spec, seed=1).state_dict()
    file = tmp_path / "linear.safetensors"
    file.write_bytes(to_bytes(state, Metadata(spec, (), PREPARED, {})))
    settings = {"data.path": str(digits), "data.test_fraction": 0.2, "network.weights": str(file)}
    config = with_settings(Config(), settings | {"transfer.strategy": "features"})
    text = overview(config, str(tmp_path / "overview"), QUIET)
    assert "test" in text.splitlines()[0]
    assert "validation" not in text.splitlines()[0]  # all others are used for training


@pytest.mark.parametrize(
    ("source", "meant"),
    [("imagnet", "imagenet"), ("imagnet:resnet50", "imagenet:resnet50"), ("phots-1", "photos-1")],
)
def test_the_error_of_a_misspelt_source_suggests_a_similar_one(
    source: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos-1").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResiduaError, match=rf"{source}: there .* Did you mean {meant}\? Expected"):
        open_weights(source, None, QUIET)
    with pytest.raises(ResiduaError, match=r"no such file or folder\. Expected a run"):
        open_weights("something", None, QUIET)
