"""A finished run, its data and its evaluation -> the facts of its report, plain data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from residua.config.auto import Choice
from residua.data.dataset import Pixels
from residua.data.prepare import Prepared
from residua.data.random import shuffled
from residua.evaluation.metrics import Metrics, softmax
from residua.evaluation.score import Evaluation
from residua.networks.analysis.cost import measure
from residua.networks.analysis.shapes import on_meta
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo.catalogue import build_from
from residua.report.charts import History
from residua.runs.folder import RunFolder
from residua.training.progress import Progress

SAMPLES = 24


@dataclass(frozen=True)
class NetworkFacts:
    """Parameter totals as Keras counts them, input shape [C, H, W], multiply-adds per image."""

    name: str
    total: int
    trainable: int
    non_trainable: int
    input: tuple[int, int, int]
    multiply_adds: int


@dataclass(frozen=True)
class ClassCount:
    """Readable images of one class in each split; classes are in the order of the labels."""

    name: str
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class DataFacts:
    """The data set: path, recognised format, readable images, and what is odd in it.

    unreadable: (path, reason). duplicates: exact ones beyond the first of each group.
    """

    path: str
    description: str
    images: int
    classes: Sequence[ClassCount]
    unreadable: Sequence[tuple[str, str]] = ()
    duplicates: int = 0
    warnings: Sequence[str] = ()

    def total(self, split: str) -> int:
        """Readable images of "train", "validation" or "test"."""
        return sum(int(getattr(count, split)) for count in self.classes)


@dataclass(frozen=True, eq=False)
class SplitMetrics:
    """Metrics on the split "test", "validation" or "all". selected: used for model selection."""

    split: str
    metrics: Metrics
    selected: bool


@dataclass(frozen=True, eq=False)
class Samples:
    """Images uint8 [N, S, S, C], C 1 or 3, and their labels."""

    pixels: Pixels
    labels: Sequence[int]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Images uint8 [N, S, S, C] of the evaluated split, labels, predicted outputs, probabilities.

    A predicted output may be beyond the classes. paths: of the images, or empty.
    """

    pixels: Pixels
    truth: Sequence[int]
    predicted: Sequence[int]
    probability: Sequence[float]
    paths: Sequence[str] = ()


@dataclass(frozen=True)
class Probe:
    """A linear probe of one feature layer. grid: side of the pooled map. loss: in nats.

    linear, neighbours: cross-validated accuracies of the probe and of nearest neighbours.
    converged: False if the loss is an upper bound.
    """

    stage: int
    grid: int
    features: int
    linear: float
    neighbours: float
    loss: float
    converged: bool


@dataclass(frozen=True)
class Trial:
    """A strategy that was tried. length: "solved", "trial" or "long". accuracy: on validation.

    full_seconds: predicted for all epochs, if known. gain, noise: over the linear probe, shares.
    """

    strategy: str
    length: str
    epochs: int
    seconds: float
    full_seconds: float | None
    accuracy: float
    gain: float
    noise: float


@dataclass(frozen=True)
class CrossValidation:
    """Cross-validated accuracy of linear probes. skipped: images alone in their class. training:
    images that the saved head was trained on."""

    accuracy: float
    interval: tuple[float, float]
    images: int
    skipped: int
    training: int


@dataclass(frozen=True)
class TransferFacts:
    """The measurements of a transfer strategy.

    chosen, reason, scenario: the strategy that `auto` chose, why, and the scenario of the data.
    expected: strategy -> accuracy that the time left was expected to give. data: the training set.
    """

    probes: Sequence[Probe]
    cross_validation: CrossValidation | None = None
    trials: Sequence[Trial] = ()
    expected: Mapping[str, float] | None = None
    chosen: str | None = None
    reason: str = ""
    scenario: str = ""
    data: str = ""


@dataclass(frozen=True, eq=False)
class ReportFacts:
    """Everything that a report shows; it leaves out what is None or empty.

    evaluations: the first one is the headline. best_epoch: the epoch, from 1, of the saved weights.
    history: rows as in history.csv. environment: name -> value. seconds: duration of the training.
    """

    title: str
    network: NetworkFacts
    data: DataFacts
    history: History
    evaluations: Sequence[SplitMetrics]
    choices: Sequence[Choice]
    environment: Mapping[str, object]
    seconds: float
    train_command: str
    predict_command: str
    best_epoch: int | None = None
    samples: Samples | None = None
    predictions: Predictions | None = None
    transfer: TransferFacts | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(count.name for count in self.data.classes)


def report_facts(
    folder: RunFolder,
    prepared: Prepared,
    evaluation: Evaluation | None,
    progress: Progress,
    measured: Mapping[str, Any],
) -> ReportFacts:
    """The facts of a finished run. measured: the content of its transfer.json."""
    config = prepared.config
    pretrained = bool(config.network.weights) and config.transfer.strategy != "scratch"
    first = shuffled(config.training.seed, 0, prepared.splits["train"])[:SAMPLES]
    run = shlex.quote(str(folder.path))
    return ReportFacts(
        title=prepared.dataset.name,
        network=_network_facts(prepared),
        data=_data_facts(prepared),
        history=progress.history,
        evaluations=_evaluations(evaluation, folder),
        choices=folder.choices,
        environment={
            key: " ".join(value) if isinstance(value, list) else value
            for key, value in folder.read_json("environment.json").items()
        }
        | {"precision": config.training.precision, "seed": config.training.seed}
        | ({"initial weights": config.network.weights} if pretrained else {}),
        seconds=progress.seconds,
        train_command=f"residua train {shlex.quote(config.data.path)} --recipe {run}/config.yaml",
        predict_command=f"residua predict {run} IMAGE_OR_FOLDER",
        best_epoch=progress.best_epoch or None,
        samples=Samples(prepared.pixels[first], prepared.labels[first].tolist()),
        predictions=_predictions(evaluation),
        transfer=transfer_facts(measured),
    )


def transfer_facts(measured: Mapping[str, Any]) -> TransferFacts | None:
    """The content of transfer.json, also of version 0.1.0; None for plain training."""
    if not measured.get("taps"):
        return None
    cross, data = measured.get("cross_validated"), measured.get("data")
    return TransferFacts(
        probes=[
            Probe(
                stage=row["stage"],
                grid=row["side"],
                features=row["numbers"],
                linear=row["linear"],
                neighbours=row["neighbours"],
                loss=row["loss"],
                converged=row.get("followed", True),
            )
            for row in measured["taps"]
        ],
        cross_validation=CrossValidation(
            accuracy=cross["accuracy"],
            interval=tuple(cross["interval"]),
            images=cross["images"],
            skipped=cross.get("alone") or 0,
            training=cross["taught"],
        )
        if cross
        else None,
        trials=[
            Trial(
                strategy=row["way"],
                length=row["length"],
                epochs=row["epochs"],
                seconds=row["seconds"],
                full_seconds=row.get("predicted_seconds"),
                accuracy=row["accuracy"],
                gain=row["gain"],
                noise=row["noise"],
            )
            for row in measured.get("table", ())
        ],
        expected=measured.get("hopes"),
        chosen=measured.get("chosen"),
        reason=measured.get("reason", ""),
        scenario=measured.get("scenario", {}).get("reason", ""),
        data=f"{data['images']:,} training images, the largest class "
        f"{data['largest_to_smallest_class']:.1f} times the smallest, median size "
        f"{data['width']} x {data['height']} px"
        if data
        else "",
    )


def _network_facts(prepared: Prepared) -> NetworkFacts:
    config, preprocessing = prepared.config, prepared.config.preprocessing
    with on_meta():
        network = build_from(config.network_spec)
    if config.transfer.strategy == "features":
        freeze(network, len(network.stages))
    elif config.transfer.strategy != "scratch":
        freeze(network, config.network.freeze)
    shape = (preprocessing.channels, preprocessing.size, preprocessing.size)
    cost = measure(network, shape)
    return NetworkFacts(
        config.network.name,
        cost.total,
        cost.trainable,
        cost.non_trainable,
        shape,
        cost.multiply_adds,
    )


def _data_facts(prepared: Prepared) -> DataFacts:
    counts = [prepared.counts(split) for split in prepared.splits]
    names = prepared.dataset.classes
    return DataFacts(
        path=prepared.config.data.path,
        description=prepared.dataset.description,
        images=len(prepared.members),
        classes=[ClassCount(*row) for row in zip(names, *counts, strict=False)],
        unreadable=prepared.unreadable,
        duplicates=prepared.duplicates,
        warnings=prepared.notes,
    )


def _evaluations(evaluation: Evaluation | None, folder: RunFolder) -> list[SplitMetrics]:
    if evaluation is None:
        return []
    selected = evaluation.split == "validation" and folder.selected_on_validation
    return [SplitMetrics(evaluation.split, evaluation.metrics, selected)]


def _predictions(evaluation: Evaluation | None) -> Predictions | None:
    if evaluation is None:
        return None
    probabilities = softmax(evaluation.logits)
    return Predictions(
        evaluation.pixels,
        evaluation.labels.tolist(),
        probabilities.argmax(1).tolist(),
        probabilities.max(1).tolist(),
        evaluation.paths,
    )
