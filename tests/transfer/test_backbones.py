"""Several initial weights: compared on the same images, the best one trained further."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from references.command_line import residua as command

import residua
from residua.config.auto import Chooser
from residua.config.recipes import compose
from residua.config.validate import checked
from residua.errors import ResiduaError
from residua.experiment import resume
from residua.runs.folder import RunFolder
from residua.runs.provenance import images_seen
from residua.system.budget import Clock
from residua.system.console import Console
from residua.transfer.backbones import choose_backbone
from residua.transfer.linear_probe import fit_probe
from residua.transfer.result import TransferResult
from residua.weights.load import read_file
from residua.weights.native import to_bytes

SETTINGS = {
    "transfer.strategy": "features",
    "training.precision": "fp32",
    "network.stage": 3,  # one layer is enough
    "network.pool_size": 1,
}


def start_of(data: Path, *sources: Path | str, **settings: object) -> Chooser:
    named = {"network.weights": ",".join(map(str, sources)), **SETTINGS}
    named |= {name.replace("__", "."): value for name, value in settings.items()}
    return Chooser(checked(compose(data, None, named)))


def choose(start: Chooser, budget: float = math.inf) -> tuple[Chooser, Any]:
    chosen, written = choose_backbone(start, Clock(budget), Console(quiet=True))
    return chosen, TransferResult.from_json(written).backbones


@pytest.mark.slow
@pytest.mark.parametrize("is_first", [True, False])
def test_features_that_separate_the_classes_win(
    shapes: Path, weights: Path, blind: Path, is_first: bool
) -> None:
    """Wherever they stand in the list; the others' accuracies are in the reason."""
    sources = (weights, blind) if is_first else (blind, weights)
    chosen, results = choose(start_of(shapes, *sources))
    assert chosen.config.network.weights == str(weights)
    good, bad = results
    assert (good.source, bad.source) == (str(weights), str(blind))
    assert good.loss < bad.loss == pytest.approx(np.log(3), abs=0.05)
    assert good.images == bad.images
    assert bad.interval[0] < 1 / 3 < bad.interval[1] < good.interval[0] < good.accuracy
    (choice,) = [choice for choice in chosen.choices if choice.setting == "network.weights"]
    for result in results:
        assert f"accuracy {result.accuracy:.4f}, 95 % CI {result.interval[0]:.4f}" in choice.reason


@pytest.mark.slow
def test_of_equals_the_first_is_chosen(shapes: Path, weights: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    for pair in ((weights, copy), (copy, weights)):
        chosen, (first, second) = choose(start_of(shapes, *pair))
        assert chosen.config.network.weights == str(pair[0])
        assert (first.loss, first.accuracy) == (second.loss, second.accuracy)
        assert "side by side" not in chosen.choices[-1].reason  # twice the same gains nothing


@pytest.mark.slow
def test_a_probe_of_the_chosen_one_computes_no_feature_again(
    shapes: Path, weights: Path, blind: Path, context_of: Callable[..., Any], tmp_path: Path
) -> None:
    chosen, (good, _) = choose(start_of(shapes, blind, weights))
    layer = {"network__stage": 3, "network__pool_size": 1}
    context = context_of(shapes, Path(chosen.config.network.weights), "features", **layer)
    folder = RunFolder(tmp_path / "probe")
    folder.path.mkdir()
    outcome = fit_probe(context, folder)
    assert outcome.result.computed == 0
    assert min(layer.loss for layer in outcome.result.layers) == pytest.approx(good.loss)


@pytest.mark.slow
def test_a_spent_budget_compares_on_the_images_that_all_have(
    shapes: Path, weights: Path, blind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path))
    chosen, results = choose(start_of(shapes, blind, weights), budget=1e-6)
    assert chosen.config.network.weights == str(weights)
    assert results[0].images == results[1].images >= 8 * 3


def write_combinations(folder: Path) -> Path:
    """Noisy images of four classes: a square is red, green, both or neither."""
    generator = np.random.default_rng(0)
    for label in range(4):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 60, (16, 16, 3), dtype=np.uint8)
            for channel in (0, 1):
                if label >> channel & 1:
                    pixels[4:12, 4:12, channel] = 250
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, Path, Path]:
    """Images of four classes, and two networks: one sees red alone, the other green alone."""
    folder = tmp_path_factory.mktemp("halves")
    files = [folder / f"{name}.safetensors" for name in ("red", "green")]
    for channel, file in enumerate(files):
        stored = read_file(weights)
        kernel = stored.tensors["stem.conv.weight"].clone()
        kernel[:, [other for other in range(3) if other != channel]] = 0
        tensors = {**stored.tensors, "stem.conv.weight": kernel}
        file.write_bytes(to_bytes(tensors, stored.metadata))
    return write_combinations(folder / "data"), *files


@pytest.mark.slow
def test_two_networks_that_complement_each_other_are_trained_side_by_side(
    halves: tuple[Path, Path, Path],
) -> None:
    """Each tells two of four classes apart, both together all of them."""
    data, *files = halves
    chosen, (pair, best, other) = choose(start_of(data, *files, network__stage=None))
    assert {best.source, other.source} == {str(file) for file in files}
    assert best.loss <= other.loss
    assert chosen.config.network.weights == pair.source == f"{best.source}+{other.source}"
    assert pair.network == "cifar_resnet20+cifar_resnet20"
    assert best.interval[1] < 0.8 < 0.95 < pair.accuracy
    assert pair.images == best.images == other.images
    (choice,) = [choice for choice in chosen.choices if choice.setting == "network.weights"]
    assert choice.value == pair.source
    assert choice.reason.startswith(f"better than {best.source} alone: +")
    for result in (pair, best, other):
        assert f"accuracy {result.accuracy:.4f}, 95 % CI" in choice.reason


@pytest.mark.slow
@pytest.mark.parametrize("is_explicit", [True, False])
def test_a_pair_that_cannot_be_built_is_mentioned(
    halves: tuple[Path, Path, Path], tmp_path: Path, is_explicit: bool
) -> None:
    """A stage of the single networks is required, or they expect colours in another order."""
    data, red, green = halves
    settings: dict[str, object] = {} if is_explicit else {"network__stage": None}
    if not is_explicit:
        stored = read_file(green)
        rule = dataclasses.replace(stored.metadata.preprocessing, channel_order="bgr")
        kernel = stored.tensors["stem.conv.weight"].flip(1)
        metadata = dataclasses.replace(stored.metadata, preprocessing=rule)
        green = tmp_path / "bgr.safetensors"
        green.write_bytes(to_bytes({**stored.tensors, "stem.conv.weight": kernel}, metadata))
    chosen, results = choose(start_of(data, red, green, **settings))
    assert len(results) == 2
    assert chosen.config.network.weights == results[0].source
    reason = "stage = 3: the network has stages 1 to 1" if is_explicit else "images in rgb order"
    assert "; two side by side not tried: " in chosen.choices[-1].reason
    assert reason in chosen.choices[-1].reason


@pytest.mark.slow
def test_a_pair_that_is_not_better_is_listed_but_not_chosen(
    halves: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """Predictions from the first stages complement each other, but the later stages see nothing."""
    data, *sources = halves
    files = [tmp_path / source.name for source in sources]
    for source, file in zip(sources, files, strict=True):
        stored = read_file(source)
        names = [f"stages.{stage}.units.2.branch.end_norm.bias" for stage in (1, 2)]
        biases = {name: torch.full_like(stored.tensors[name], -1e6) for name in names}
        tensors = {**stored.tensors, **biases}
        file.write_bytes(to_bytes(tensors, stored.metadata))
    start = start_of(data, *files, network__stage=None, network__pool_size=None)
    chosen, (best, pair, other) = choose(start)
    assert chosen.config.network.weights == best.source
    assert pair.source == f"{best.source}+{other.source}"
    assert pair.accuracy < best.accuracy
    reason = chosen.choices[-1].reason
    assert reason.startswith("smallest cross-validated loss, ")
    assert f"; {pair.source} side by side: -" in reason


@pytest.mark.slow
def test_a_run_on_a_pair_is_complete(
    halves: tuple[Path, Path, Path],
    tmp_path: Path,
    write_run: Callable[..., RunFolder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Resumed, saved, exported and explained; images that either network has seen are reported."""
    data, red, _ = halves
    part = write_run(data, "part", network__stage=3, preprocessing__size=16)
    monkeypatch.chdir(tmp_path)
    options = {"training.precision": "fp32"}
    run = residua.train(
        data, weights=f"{red}+part", out="run", effort="quick", settings=options, quiet=True
    )
    assert run.config.network.name == "cifar_resnet20+cifar_resnet14"
    assert run.config.network.weights == f"{red}+{part.path}"
    seen = images_seen(part)
    assert (run.path / "earlier_images.csv").read_text().split() == ["digest", *sorted(seen)]
    with pytest.warns(UserWarning, match="were used to train these weights"):
        residua.evaluate(run.path / "best.safetensors", data)
    assert "red.safetensors (licence not recorded); and part" in (
        run.path / "model_card.md"
    ).read_text("utf-8")
    (run.path / "report.html").unlink()
    (run.path / "best.safetensors").unlink()
    resume(run.folder, Console(quiet=True))
    again = residua.load(run.path)
    with Image.open(next(data.rglob("*.png"))) as image:
        pixels = np.asarray(image)
    (prediction,), (explanation,) = again.predict(pixels), again.explain(pixels)
    assert explanation.error is None
    file = residua.export(run.path, out=tmp_path / "pair.torchscript").path
    (exported,) = residua.predict(file, pixels, allow_code=True)
    names, probabilities = zip(*prediction.top, strict=True)
    assert names == tuple(name for name, _ in exported.top)
    assert [share for _, share in exported.top] == pytest.approx(list(probabilities), abs=1e-4)


@pytest.mark.parametrize(
    ("weights_setting", "status", "message"),
    [
        ("imagenet,nowhere.pth", 1, "nowhere.pth: there is no such file"),
        ("imagenet,none", 2, "'none' cannot be compared"),
        ("imagenet,", 2, "'an empty name' cannot be compared"),
        ("imagenet,imagenet", 2, "'imagenet' cannot be compared"),
    ],
)
def test_a_source_that_is_none_is_named_before_an_image_is_read(
    tmp_path: Path, weights_setting: str, status: int, message: str
) -> None:
    """There are no images at all."""
    out, data = tmp_path / "run", tmp_path / "data"
    data.mkdir()
    result = command("train", str(data), "--weights", weights_setting, "--out", str(out))
    assert result.status == status
    assert message in result.stderr
    assert not out.exists()


def test_classes_of_one_image_cannot_be_compared(
    tmp_path: Path, weights: Path, blind: Path, shapes: Path
) -> None:
    for label in range(3):
        folder = tmp_path / f"class{label}"
        folder.mkdir()
        file = next((shapes / f"class{label}").iterdir())
        (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ResiduaError, match="no class has two images"):
        choose(start_of(tmp_path, weights, blind))


@pytest.mark.slow
def test_a_run_trains_the_chosen_weights_and_records_the_others(
    shapes: Path, weights: Path, blind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights.parent)  # a relative path is found from elsewhere later
    run = residua.train(
        shapes,
        weights=f"{blind},{weights.name}",
        transfer="features",
        out=tmp_path / "run",
        settings={"training.precision": "fp32"},
        quiet=True,
    )
    assert run.config.network.weights == str(weights)
    recorded = json.loads((run.path / "transfer.json").read_text())["backbones"]
    assert [row["source"] for row in recorded] == [weights.name, str(blind)]
    assert "Initial weights" in (run.path / "report.html").read_text()
    monkeypatch.chdir(tmp_path)
    (run.path / "report.html").unlink()  # as if it had been killed before
    resume(run.folder, Console(quiet=True))
    assert json.loads((run.path / "transfer.json").read_text())["backbones"] == recorded
