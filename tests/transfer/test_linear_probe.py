"""A head on frozen features: which layer, which images, and what is reported of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from references.images import write_shapes
from references.lines import Lines
from torch import nn

from residua.config import auto
from residua.config.parse import with_settings
from residua.config.validate import checked
from residua.data.batches import DecodedImages
from residua.data.prepared import without_validation_set
from residua.inference.feature_layers import FeatureLayer
from residua.inference.logistic import fit_logistic
from residua.runs.folder import RunFolder
from residua.system.budget import Clock
from residua.training import throughput
from residua.transfer import backbones, linear_probe
from residua.transfer.context import StrategyContext, StrategyOutcome
from residua.transfer.cross_validation import LayerScore, ProbeScores, best_layer
from residua.transfer.linear_probe import fit_probe, initialise_head, refit_probe
from residua.transfer.result import BackboneResult, CrossValidation
from residua.weights.load import read_file
from residua.weights.network import build_network

pytestmark = pytest.mark.slow  # each test trains

LAST = {"network__stage": 3, "network__pool_size": 1}  # a single layer is quick

ContextOf = Callable[..., StrategyContext]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def accuracy_of(outcome: StrategyOutcome, split: str) -> float:
    members = outcome.prepared.splits[split]  # type: ignore[index]
    predicted = outcome.predict_logits(members).argmax(1)
    return float((predicted == outcome.prepared.labels[members]).mean())


def test_a_probe_is_refitted_on_more_images_with_its_layer_and_regularisation(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    context = context_of(shapes, weights, "features", data__val_fraction=0.2)
    first = fit_probe(context, folder)
    before = read_file(folder.weights)
    everything = without_validation_set(context.prepared, "of this test")
    again = refit_probe(context.with_prepared(everything), folder, first, None)
    assert first.result.images == 48
    assert again.result.images == len(everything.training_members) == 60
    assert again.result.cross_validation is not None
    assert again.result.cross_validation.training_images == 60
    after = read_file(folder.weights)
    assert after.metadata.network == before.metadata.network
    layer = best_layer(list(first.scores.values())).layer
    rows = context.features.rows([layer], everything.training_members)
    head = fit_logistic(
        rows.values[layer], everything.labels[rows.samples], 3, after.metadata.notes["C"]
    )
    np.testing.assert_array_equal(after.tensors["head.weight"].numpy(), head.weight)


def test_a_probe_on_several_stages_is_saved_as_a_network_that_reads_them(
    with_splits: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    several = {"network__stage": 3, "network__pool_size": 1, "network__earlier_pools": [4, 2]}
    context = context_of(with_splits, weights, "features", network__head="logistic", **several)
    outcome = fit_probe(context, folder)
    saved = read_file(folder.weights)
    assert saved.metadata.network.earlier_pools == (4, 2)
    network = build_network(saved, torch.device("cpu"))
    members = outcome.prepared.splits["test"]
    images = context.features.stages.normalised(
        DecodedImages(outcome.prepared.pixels, torch.device("cpu")).take(members)
    )
    with torch.inference_mode():
        expected = network(images)
        cut = network.leave(network.between(images, 0, network.last_cut), network.last_cut)
    torch.testing.assert_close(cut, expected)
    np.testing.assert_allclose(
        outcome.predict_logits(members), expected.numpy(), rtol=1e-3, atol=1e-3
    )
    assert accuracy_of(outcome, "test") > 0.6


@pytest.mark.parametrize("head", ["logistic", "linear", "mlp:16"])
def test_only_the_head_changes_and_it_predicts_new_images(
    with_splits: Path, weights: Path, folder: RunFolder, context_of: ContextOf, head: str
) -> None:
    context = context_of(
        with_splits, weights, "features", network__head=head, training__epochs=40, **LAST
    )
    outcome = fit_probe(context, folder)
    saved = read_file(folder.weights)
    assert saved.metadata.network.head == ("linear" if head == "logistic" else head)
    source = read_file(weights).tensors
    body = [name for name in saved.tensors if not name.startswith("head.")]
    assert body
    assert all(torch.equal(saved.tensors[name], source[name]) for name in body)
    assert outcome.progress.epoch == (0 if head == "logistic" else 40)
    if head == "logistic":
        assert accuracy_of(outcome, "test") > 0.6
    # from cached features as from the images
    members = outcome.prepared.splits["test"]
    extractor = context.features
    images = extractor.stages.normalised(
        DecodedImages(outcome.prepared.pixels, torch.device("cpu")).take(members)
    )
    with torch.inference_mode():
        expected = build_network(saved, torch.device("cpu"))(images).numpy()
    np.testing.assert_allclose(outcome.predict_logits(members), expected, rtol=1e-3, atol=1e-3)


def test_the_best_layer_is_chosen_unless_the_settings_name_one(
    shapes: Path, weights: Path, tmp_path: Path, context_of: ContextOf
) -> None:
    console = Lines()
    free = fit_probe(context_of(shapes, weights, "features", console), RunFolder(tmp_path))
    layers = free.result.layers
    best = min(layers, key=lambda layer: layer.loss)
    network = free.prepared.config.network
    assert {layer.stage for layer in layers} == {1, 2, 3}
    if best.name != "stage 3":
        assert (network.stage, network.pool_size) == (best.stage, best.pool_size)
        assert (network.earlier_pools or ()) == best.earlier_pools
        chosen = {choice.setting for choice in free.prepared.choices}
        assert {"network.stage", "network.pool_size"} < chosen
    (line,) = console.lines
    assert f"linear probe on {best.name} (C = {best.c:g}, best of 5 layers)" in line
    other = next(layer for layer in layers if layer.stage != best.stage)
    settings = {"network__stage": other.stage, "network__pool_size": other.pool_size}
    own = fit_probe(context_of(shapes, weights, "features", **settings), RunFolder(tmp_path))
    (layer,) = own.result.layers
    assert (layer.stage, layer.pool_size) == (other.stage, other.pool_size)
    spec = read_file(tmp_path / "best.safetensors").metadata.network
    assert (spec.stage, spec.pool_size) == (other.stage, other.pool_size)
    assert not {"network.stage", "network.pool_size"} & {
        choice.setting for choice in own.prepared.choices
    }


def test_few_images_are_all_trained_on_and_cross_validated(
    weights: Path, folder: RunFolder, tmp_path: Path, context_of: ContextOf
) -> None:
    console, data = Lines(), write_shapes(tmp_path / "data", 20)
    first, second, *_ = sorted(path for path in data.iterdir() if path.is_dir())
    misplaced = min(first.iterdir())
    misplaced.rename(second / f"of-another-class{misplaced.suffix}")
    context = context_of(data, weights, "features", console, **LAST)
    assert len(context.prepared.splits["train"]) == 60
    outcome = fit_probe(context, folder)
    cross = outcome.result.cross_validation
    assert cross is not None
    low, high = cross.interval
    assert 0 < low < cross.accuracy < high <= 1
    assert (cross.images, cross.training_images, cross.skipped) == (60, 60, 0)
    assert outcome.cross_validated is not None
    errors = int((~outcome.cross_validated.correct).sum())
    assert cross.errors == errors > 0
    expected = (
        f"{errors} of 60 images misclassified in cross-validation, expected accuracy "
        f"{cross.accuracy:.4f} (95 % CI {low:.4f} to {high:.4f})"
    )
    assert expected in console.text


def test_an_expected_accuracy_below_1_is_not_printed_as_1() -> None:
    """One error in 60,000 images, by a probe and by initial weights that are compared."""
    shares = np.array([0.99998, 0.99991, 0.999997])
    probes = ProbeScores(np.ones((4, 1), bool), np.zeros((4, 1)), np.ones(4, bool), False, shares)
    score = LayerScore(FeatureLayer(3, 1), 8, probes, 1.0)
    accuracy, low, high = shares.tolist()
    crossed = CrossValidation(accuracy, (low, high), 60_000, 60_000, errors=1)
    compared = BackboneResult("imagenet", "resnet18", 3, 1, 0.01, accuracy, (low, high), 60_000)
    for text in (
        linear_probe._summary(score, 1, crossed),
        backbones._listed([compared, compared]),
    ):
        assert "expected accuracy 0.9999" in text
        assert "95 % CI 0.9999 to 0.9999)" in text
        assert "1.0000" not in text


def test_a_test_set_evaluates_a_probe_and_all_others_are_trained_on(
    shapes: Path, weights: Path, context_of: ContextOf
) -> None:
    probe = context_of(shapes, weights, "features", data__test_fraction=0.25).prepared
    full = context_of(shapes, weights, "full", data__test_fraction=0.25).prepared
    assert not len(probe.splits["validation"])
    assert len(full.splits["validation"])
    assert np.array_equal(probe.splits["test"], full.splits["test"])


def test_classes_of_one_image_are_trained_on_and_nothing_is_claimed(
    weights: Path, tmp_path: Path, context_of: ContextOf
) -> None:
    console = Lines()
    single = write_shapes(tmp_path / "single", 1)
    outcome = fit_probe(
        context_of(single, weights, "features", console, **LAST), RunFolder(tmp_path)
    )
    assert outcome.result.cross_validation is None
    assert "accuracy" not in console.text
    data = write_shapes(tmp_path / "data", 6)
    for file in sorted((data / "class1").iterdir())[1:]:
        file.unlink()
    outcome = fit_probe(context_of(data, weights, "features", console, **LAST), RunFolder(tmp_path))
    cross = outcome.result.cross_validation
    assert cross is not None
    assert (cross.images, cross.skipped, cross.training_images) == (12, 1, 13)
    assert outcome.result.engine == "PyTorch (fp32)"  # too little work for a conversion
    assert "1 without another image of the same class skipped" in console.text


def test_as_many_images_are_used_as_the_settings_allow(
    shapes: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """training.max_images limits all; CROSS_VALIDATED only those that choose layer and C."""
    context = context_of(shapes, weights, "features", training__max_images=30, **LAST)
    assert fit_probe(context, folder).result.images == 30
    monkeypatch.setattr(auto, "CROSS_VALIDATED", (24, 24))
    result = fit_probe(context_of(shapes, weights, "features", **LAST), folder).result
    assert result.cross_validation is not None
    assert (result.cross_validation.images, result.images) == (24, 60)


def test_views_change_the_head_and_depend_on_the_seed(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    heads = []
    for views, seed in ((0, 0), (1, 0), (1, 0), (1, 1)):
        settings = {"transfer__views": views, "training__seed": seed, **LAST}
        fit_probe(context_of(shapes, weights, "features", **settings), folder)
        heads.append(read_file(folder.weights).tensors["head.weight"])
    assert torch.equal(heads[1], heads[2])
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[2], heads[3])


def test_the_test_of_a_probe_is_unbiased_but_that_of_a_trained_head_is_not(
    with_splits: Path, weights: Path, folder: RunFolder, context_of: ContextOf
) -> None:
    """The validation set selects the epoch of a trained head, and nothing of a probe."""
    for head, selected in (("logistic", False), ("linear", True)):
        prepared = context_of(with_splits, weights, "features", network__head=head).prepared
        folder.write_settings(prepared.config, prepared.choices)
        assert folder.selected_on_validation is selected


@pytest.mark.parametrize(("effort", "selected"), [("quick", False), ("standard", True)])
def test_a_quick_training_selects_nothing_on_the_validation_set(
    effort: str,
    selected: bool,
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
) -> None:
    """Its strategy is fixed; that of the default may be the result of a comparison."""
    prepared = context_of(with_splits, weights, "features").prepared
    config = with_settings(prepared.config, {"transfer.effort": effort})
    choice = auto.Choice("transfer.strategy", "features", f"--effort {effort}")
    folder.write_settings(config, [*prepared.choices, choice])
    assert folder.selected_on_validation is selected


def test_a_budget_limits_the_epochs_of_a_head_but_not_its_images(
    with_splits: Path,
    weights: Path,
    folder: RunFolder,
    context_of: ContextOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A head before other training has HEAD_SHARE of the time left."""
    slow = throughput.Throughput(step=0.1, evaluation=0.0, full_evaluation=0.0)
    monkeypatch.setattr(throughput, "measure_throughput", lambda *_: slow)
    planned = {}
    for final in (False, True):
        context = context_of(with_splits, weights, "features", network__head="mlp:8", **LAST)
        context = dataclasses.replace(context, clock=Clock(10.0))
        outcome = fit_probe(context, folder, final=final)
        planned[final] = outcome.prepared.config.training.epochs
        assert outcome.prepared.config.training.max_images == 0
        checked(outcome.prepared.config)
        (folder.path / "state.safetensors").unlink()
    assert 5 <= planned[False] <= 16  # a fifth of less than 10 s, at 0.12 s
    assert 2 * planned[False] < planned[True] <= 60


@pytest.mark.parametrize("head", ["linear", "mlp:16"])
def test_an_initial_head_classifies_before_any_other_layer_is_trained(
    shapes: Path, weights: Path, folder: RunFolder, context_of: ContextOf, head: str
) -> None:
    context = context_of(shapes, weights, "full", network__head=head, training__epochs=40)
    network = context.network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result, scores = initialise_head(context, network, folder)
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) != name.startswith("head.") for name in after)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert list(scores) == [FeatureLayer(3, 1)]
    assert result.images == len(context.prepared.splits["train"])
    assert not (folder.path / "head").exists()
    if head == "linear":
        members = context.prepared.splits["train"]
        images = DecodedImages(context.prepared.pixels, torch.device("cpu")).take(members)
        with torch.inference_mode():
            logits = network.eval()(context.features.stages.normalised(images))
        labels = torch.from_numpy(context.prepared.labels[members])
        assert (logits.argmax(1) == labels).float().mean() > 0.8
        assert isinstance(network.head, nn.Linear)
        again, _ = initialise_head(dataclasses.replace(context, scores=scores), network, folder)
        assert again.layers == result.layers  # cross-validated once


def test_without_other_splits_each_image_is_predicted_by_heads_that_were_not_fitted_on_it(
    weights: Path, folder: RunFolder, tmp_path: Path, context_of: ContextOf
) -> None:
    data = write_shapes(tmp_path / "data", 12)
    outcome = fit_probe(context_of(data, weights, "features", **LAST), folder)
    crossed = outcome.cross_validated
    assert crossed is not None
    assert crossed.logits is not None
    assert crossed.logits.shape == (36, 3)
    labels = outcome.prepared.labels[crossed.samples]
    assert (crossed.logits.argmax(1) == labels).mean() == pytest.approx(
        crossed.correct.mean(), abs=0.06
    )
    fitted = outcome.predict_logits(crossed.samples)
    assert not np.allclose(crossed.logits, fitted, atol=1e-3)
