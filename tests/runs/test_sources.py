"""A training that begins with weights: whose they are, what is replaced, what is said, resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import residua
from residua.cli.look import overview
from residua.config.parse import with_settings
from residua.config.schema import Config
from residua.errors import ResiduaError
from residua.experiment import resume
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo import catalogue
from residua.runs.folder import RunFolder
from residua.runs.sources import open_weights, start_from, with_preprocessing
from residua.system.console import Console
from residua.training.checkpoint import STATE
from residua.weights.load import read_file
from residua.weights.native import Metadata, read_weights, to_bytes

QUIET = Console(quiet=True)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as pytorch_resnet_cifar10 writes it: other names, nested, prefixed."""
    network = catalogue.build("cifar_resnet20", seed=7)
    plain = tmp_path_factory.mktemp("weights")
    source = plain / "ours.safetensors"
    metadata = Metadata(
        {
            "name": "cifar_resnet20",
            "classes": 10,
            "channels": 3,
            "ordering": None,
            "shortcut": None,
        },
        (),
        with_settings(
            Config(),
            {
                "preprocessing.size": 32,
                "preprocessing.channels": 3,
                "preprocessing.resize": "crop",
                "preprocessing.crop": 1.0,
                "preprocessing.interpolation": "antialias",
                "preprocessing.channel_order": "rgb",
                "preprocessing.mean": [1.0, 2.0, 3.0],
                "preprocessing.std": [4.0, 5.0, 6.0],
            },
        ).preprocessing,
        {},
    )
    source.write_bytes(to_bytes(network.state_dict(), metadata))
    from residua.weights.convert import convert

    convert(read_file(source), plain / "plain.pth")
    state = torch.load(plain / "plain.pth", weights_only=True)
    nested = {"state_dict": {f"module.{name}": each for name, each in state.items()}}
    path = plain / "resnet20.th"
    torch.save(nested, path)
    return path


@pytest.fixture(scope="module")
def begun(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> residua.Run:
    """One epoch on the digits from these weights, with a fresh head."""
    out = tmp_path_factory.mktemp("begun") / "run"
    return residua.train("digits", weights=cifar, new_head=True, epochs=1, out=out, quiet=True)


def test_what_belongs_to_the_weights_comes_with_them(begun: residua.Run, cifar: Path) -> None:
    assert begun.config.network.name == "cifar_resnet20"
    assert begun.config.preprocessing.channels == 3  # though the digits are grey
    assert begun.preprocessing.mean == (123.675, 116.28, 103.53)
    choices = {each["setting"]: each["reason"] for each in begun.folder.read_json("choices.json")}
    assert choices["network.name"] == choices["preprocessing.mean"] == "belongs to the weights"
    assert begun.config.augmentation.flip is False  # grey images may be writing
    said = json.loads((begun.path / "weights.json").read_text())
    assert said["sha256"] == read_file(cifar).sha256()
    assert begun.config.network.weights == str(cifar)
    assert str(cifar) in (begun.path / "report.html").read_text("utf-8")


def test_the_first_step_starts_from_them(cifar: Path) -> None:
    arguments = {**read_file(cifar).metadata.network, "classes": 4}
    network = start_from(open_weights(cifar, None, QUIET), arguments, new_head=True, seed=3)
    fresh = catalogue.build("cifar_resnet20", classes=4, seed=3)
    held = read_file(cifar).tensors
    for name, tensor in network.state_dict().items():
        if name.startswith("head."):
            assert torch.equal(tensor, fresh.state_dict()[name])
        elif "num_batches" not in name:
            assert torch.equal(tensor, held[name]), name


def test_learning_leaves_the_weights_it_starts_from_as_they_are(cifar: Path) -> None:
    weights = open_weights(cifar, None, QUIET)
    arguments = {**weights.metadata.network, "classes": 4}
    network = start_from(weights, arguments, new_head=True, seed=3)
    with torch.no_grad():
        for each in network.parameters():
            assert each.requires_grad
            each.add_(1.0)
    again = start_from(weights, arguments, new_head=True, seed=3)
    for moved, same in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(moved, same + 1.0)


def test_an_explicit_value_wins_over_the_weights(cifar: Path, tmp_path: Path) -> None:
    run = residua.train(
        "digits",
        weights=cifar,
        epochs=1,
        out=tmp_path / "run",
        settings={"preprocessing.mean": [9.0, 9.0, 9.0]},
        quiet=True,
    )
    assert run.preprocessing.mean == (9.0, 9.0, 9.0)
    assert run.preprocessing.std == (58.395, 57.12, 57.375)


def test_a_run_is_a_source_too(begun: residua.Run, tmp_path: Path) -> None:
    again = residua.train("digits", weights=begun.path, epochs=1, out=tmp_path / "run", quiet=True)
    assert again.preprocessing == begun.preprocessing
    assert again.history[0]["loss"] < begun.history[0]["loss"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"settings": {"network.classes": 12}}, "has 10 outputs, but 12 are needed. --new-head"),
        ({"settings": {"preprocessing.channels": 1}}, "takes 3 channels, but"),
        ({"settings": {"network.shortcut": "B"}}, "with shortcut None, asked was"),
        ({"model": "resnet18"}, "not called as those of resnet18"),
        ({"model": "cifar_resnet32"}, "does not fit cifar_resnet32"),
    ],
)
def test_weights_of_another_network_are_refused(
    cifar: Path, tmp_path: Path, options: dict[str, object], said: str
) -> None:
    with pytest.raises(ResiduaError, match=said):
        residua.train(
            "digits", weights=cifar, epochs=1, out=tmp_path / "run", quiet=True, **options
        )


def test_a_head_of_other_size_is_refused_before_there_is_a_run(cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match="--new-head"):
        residua.train(
            "digits",
            weights=cifar,
            settings={"network.classes": 12},
            out=tmp_path / "run",
            quiet=True,
        )
    assert not (tmp_path / "run").exists()


def test_another_ordering_belongs_to_the_weights_of_a_run(tmp_path: Path) -> None:
    settings = {"network.ordering": "c", "network.shortcut": "B"}
    options = {"model": "cifar_resnet20", "epochs": 1, "quiet": True}
    first = residua.train("digits", out=tmp_path / "first", settings=settings, **options)
    again = residua.train("digits", weights=first.path, out=tmp_path / "again", **options)
    assert again.config.network.ordering == "c"
    assert again.config.network.shortcut == "B"


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResiduaError, match=r"nowhere\.pth: there is no such file"):
        residua.train("digits", weights=tmp_path / "nowhere.pth", quiet=True)
    with pytest.raises(ResiduaError, match="give --weights too"):
        residua.train("digits", new_head=True, quiet=True)
    with pytest.raises(ResiduaError, match="nobody publishes ImageNet weights of cifar_resnet20"):
        residua.train("digits", model="cifar_resnet20", weights="imagenet", quiet=True)


def test_a_head_of_other_classes_is_said(
    begun: residua.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in range(10):
        for image in range(3):
            file = tmp_path / "data" / f"kind{label}" / f"{image}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((16, 16, 3), 20 * label + image, np.uint8)
            Image.fromarray(pixels).save(file)
    residua.train(tmp_path / "data", weights=begun.path, epochs=1, out=tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "its head was learnt for 0, 1, 2, ... and begins as that of kind0, kind1" in said
    assert f"starts from {begun.path}" in said


def test_resume_before_the_first_state_starts_from_the_same_weights(
    begun: residua.Run, cifar: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "weights.th"
    shutil.copy(cifar, kept)
    run = residua.train(
        "digits", weights=kept, new_head=True, epochs=1, out=tmp_path / "run", quiet=True
    )
    whole, _ = read_weights(run.folder.weights)
    for name in (STATE, "best.safetensors", "last.safetensors", "history.csv"):
        (run.path / name).unlink()
    resume(RunFolder.existing(run.path), QUIET)
    again, _ = read_weights(run.folder.weights)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    (run.path / STATE).unlink()
    kept.write_bytes(begun.folder.weights.read_bytes())
    with pytest.raises(ResiduaError, match="has changed since"):
        resume(RunFolder.existing(run.path), QUIET)


def test_resume_needs_the_weights_no_longer(cifar: Path, tmp_path: Path) -> None:
    kept = tmp_path / "weights.th"
    shutil.copy(cifar, kept)
    run = residua.train(
        "digits", weights=kept, new_head=True, epochs=1, out=tmp_path / "run", quiet=True
    )
    kept.unlink()
    residua.resume(run, quiet=True)


def test_build_takes_weights(cifar: Path, begun: residua.Run) -> None:
    images = torch.randn(2, 3, 32, 32)
    network = residua.build("cifar_resnet20", weights=cifar).eval()
    swapped = residua.build("cifar_resnet20", classes=4, weights=cifar, new_head=True).eval()
    with torch.inference_mode():
        assert network(images).shape == (2, 10)
        assert swapped(images).shape == (2, 4)
        torch.testing.assert_close(network.features(images), swapped.features(images))
    assert residua.build("cifar_resnet20", weights=begun.path).training
    with pytest.raises(ResiduaError, match="--new-head"):
        residua.build("cifar_resnet20", classes=4, weights=cifar)
    with pytest.raises(ResiduaError, match="give weights too"):
        residua.build("cifar_resnet20", new_head=True)


def test_frozen_means_frozen(cifar: Path, tmp_path: Path) -> None:
    options = {"weights": cifar, "new_head": True, "quiet": True}
    settings = {"network.freeze": 2}
    run = residua.train("digits", epochs=2, out=tmp_path / "run", settings=settings, **options)
    held, kept = read_file(cifar).tensors, read_weights(run.folder.weights)[0]
    frozen = ("stem.", "stages.0.", "stages.1.")
    for name, tensor in held.items():
        same = torch.equal(kept[name], tensor) if kept[name].shape == tensor.shape else False
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
            assert torch.equal(tensor, held.get(name, tensor)), name
            assert "num_batches" not in name or tensor == 0, name

    with pytest.raises(ResiduaError, match="has 3 stages"):
        residua.train("digits", settings={"network.freeze": 4}, **options)
    with pytest.raises(ResiduaError, match="give --weights too"):
        residua.train("digits", settings=settings, quiet=True)


def test_features_of_a_file_and_of_a_run(cifar: Path, begun: residua.Run, tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 200)):
        Image.fromarray(np.full((40, 32, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for source in (cifar, begun):
        found = residua.features(source, files)
        assert found.values.shape == (2, 64)
        assert [Path(each).name for each in found.files] == ["a.png", "b.png"]
        ((left, reason),) = found.unreadable
        assert left.endswith("c.png")
        assert "no image" in reason
    last = [*[files[0]] * 32, files[2]]  # alone in the second batch
    assert residua.features(cifar, last).values.shape == (32, 64)
    # what the head makes of the features is what is predicted
    rows = residua.predict(begun, files[:2], top=10)
    head = begun.network().head
    with torch.inference_mode():
        chances = head(torch.from_numpy(residua.features(begun, files[:2]).values)).softmax(1)
    for row, expected in zip(rows, chances, strict=True):
        best = int(expected.argmax())
        assert row.top[0][0] == str(best)
        assert row.top[0][1] == pytest.approx(float(expected[best]), abs=1e-5)
    found.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as stored:
        assert stored["features"].dtype == np.float32
        assert stored["files"].tolist() == list(found.files)


def test_a_given_mean_says_nothing_of_the_outputs(cifar: Path) -> None:
    found = with_preprocessing(read_file(cifar), {"mean": [0.0, 0.0, 0.0]})
    assert found.assumed_preprocessing == ""
    assert "taken for those of CIFAR-10" in found.assumed_classes
    assert found.with_classes(tuple("abcdefghij")).assumed_classes == ""


def test_a_look_shows_what_the_network_of_the_weights_would_see(
    cifar: Path, tmp_path: Path
) -> None:
    given = {"data.path": "digits", "network.weights": str(cifar), "transfer.strategy": "features"}
    plain = overview(with_settings(Config(), {"data.path": "digits"}), str(tmp_path / "a"), QUIET)
    overview(with_settings(Config(), given), str(tmp_path / "b"), QUIET)
    assert "training-batch.png" in plain
    batches = [np.asarray(Image.open(tmp_path / each / "training-batch.png")) for each in "ab"]
    assert batches[0].shape != batches[1].shape  # 8 px in grey, and 32 px in colour


def test_a_look_splits_as_a_training_on_the_weights_of_a_run_would(
    begun: residua.Run, tmp_path: Path
) -> None:
    options = {"transfer": "features", "out": tmp_path / "run", "quiet": True}
    earlier = residua.train("digits", weights=begun.path, **options)
    given = {
        "data.path": "digits",
        "data.test_fraction": 0.2,
        "network.weights": str(earlier.path),  # whose head is linear
        "transfer.strategy": "features",
    }
    said = overview(with_settings(Config(), given), str(tmp_path / "looks"), QUIET)
    assert "for test" in said
    assert "for validation" not in said  # the test part judges, all others teach


def test_features_read_images_as_large_as_their_run_does(tmp_path: Path) -> None:
    settings = {"data.max_pixels": 64}
    run = residua.train("digits", epochs=1, out=tmp_path / "run", settings=settings, quiet=True)
    for side in (8, 9):
        Image.new("L", (side, side)).save(tmp_path / f"{side}.png")
    found = residua.features(run, [tmp_path / "8.png", tmp_path / "9.png"])
    assert [Path(each).name for each in found.files] == ["8.png"]
    assert [Path(each).name for each, _ in found.unreadable] == ["9.png"]


def test_a_grid_that_cannot_be_written_takes_no_prediction_away(
    begun: residua.Run, tmp_path: Path
) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "grid.png").mkdir()
    with pytest.warns(UserWarning, match="grid"):
        (row,) = residua.predict(begun, tmp_path / "a.png", grid=tmp_path / "grid.png")
    assert row.top
