"""A finished run, its data and its evaluation -> the facts of its report, plain data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from residua.audits.audit import Audit
from residua.config.auto import Choice
from residua.config.schema import JOINER, Config
from residua.config.start import is_published, joined_sources, of_each
from residua.data.dataset import Pixels
from residua.data.prepared import Prepared
from residua.data.random import shuffled
from residua.evaluation.score import Evaluation
from residua.networks.analysis.cost import Counts, Size, measure
from residua.networks.staged import Staged
from residua.networks.surgery.freezing import freeze
from residua.networks.zoo.catalogue import outline_of
from residua.report.audit_page import ShownFindings, shown_in_report
from residua.report.charts import History
from residua.report.evidence import Evidence
from residua.report.text import cautions
from residua.runs.folder import SPLIT, RunFolder
from residua.system.files import sha256_of, shown_path
from residua.training.progress import Progress
from residua.transfer.result import TransferResult, result_of
from residua.uncertainty.record import Uncertainty
from residua.uncertainty.unknown import UnknownDetector
from residua.weights.hub import is_hub
from residua.weights.published.imagenet import SOURCES

SAMPLES = 24


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

    unreadable: (path, reason). duplicates: images whose pixels another image has too.
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
class ReportFacts:
    """Everything that a report shows; it leaves out what is None or empty.

    network: its name. input: its shape [C, H, W]. samples: training images uint8 [N, S, S, C], C 1
    or 3, and their labels. evaluation: on the test or validation set, or of cross-validated
    predictions. best_epoch: the epoch, from 1, of the saved weights; 0: of those before
    fine-tuning. history: rows as in history.csv. environment: name -> value. seconds: duration of
    the training. initial_weights: their source and licence. unknown: see uncertainty/unknown.py.
    """

    title: str
    network: str
    cost: Counts
    input: Size
    data: DataFacts
    history: History
    evaluation: Evaluation | None
    choices: Sequence[Choice]
    environment: Mapping[str, object]
    seconds: float
    train_command: str
    predict_command: str
    best_epoch: int | None = None
    samples: tuple[Pixels, Sequence[int]] | None = None
    transfer: TransferResult | None = None
    audit: ShownFindings | None = None
    unknown: UnknownDetector | None = None
    evidence: Evidence | None = None
    initial_weights: str = ""

    @property
    def cautions(self) -> list[str]:
        """Why the accuracy is lower than expected, see `text.cautions`."""
        return cautions(self.evaluation, self.transfer.cross_validation if self.transfer else None)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(count.name for count in self.data.classes)


def report_facts(
    folder: RunFolder,
    prepared: Prepared,
    evaluation: Evaluation | None,
    progress: Progress,
    audit: Audit | None = None,
    uncertainty: Uncertainty | None = None,
    evidence: Evidence | None = None,
) -> ReportFacts:
    """The facts of a finished run."""
    config, transfer = prepared.config, result_of(folder)
    channels, size = config.preprocessing.channels, config.preprocessing.size
    pretrained = bool(config.network.weights) and config.transfer.strategy != "scratch"
    first = shuffled(config.training.seed, 0, prepared.splits["train"])[:SAMPLES]
    run, data = (shlex.quote(shown_path(path)) for path in (str(folder.path), config.data.path))
    return ReportFacts(
        title=prepared.dataset.name,
        network=str(config.network.name),  # not the factory that an own network has
        cost=measure(_trained_outline(config), (channels, size, size)),
        input=(channels, size, size),
        data=_data_facts(prepared),
        history=progress.history,
        evaluation=evaluation,
        choices=folder.choices,
        environment={
            key: " ".join(map(str, value)) if isinstance(value, list) else value
            for key, value in folder.read_json("environment.json", dict).items()
        }
        | {"precision": config.training.precision, "seed": config.training.seed}
        | ({"initial weights": of_each(config.network.weights, shown_path)} if pretrained else {})
        | {f"SHA-256 of {folder.weights.name}": sha256_of(folder.weights)}
        | {f"SHA-256 of {SPLIT}, which lists those of the images": sha256_of(folder.path / SPLIT)},
        seconds=progress.seconds,
        train_command=f"residua train {data} --recipe {run}/config.yaml",
        predict_command=f"residua predict {run} IMAGE_OR_FOLDER",
        best_epoch=0 if progress.kept_initial else progress.best_epoch or None,
        samples=(prepared.pixels[first], prepared.labels[first].tolist()),
        transfer=transfer if transfer.layers else None,
        audit=None if audit is None else shown_in_report(audit, prepared),
        unknown=None if uncertainty is None else uncertainty.unknown,
        evidence=evidence,
        initial_weights=_initial_weights(config) if pretrained else "",
    )


def _initial_weights(config: Config) -> str:
    """The weights that training started from, who published them, and their licence."""
    sources, name = joined_sources(config.network.weights), str(config.network.name)
    names = name.split(JOINER) if len(sources) > 1 else [name]
    return "; and ".join(map(_published_by, sources, names))


def _published_by(source: str, network: str) -> str:
    if not is_published(source):
        return f"{PurePath(source).name if not is_hub(source) else source} (licence not recorded)"
    published = SOURCES[source.partition(":")[2] or network]
    licence = published.licence or "the licence is that of the publisher"
    return f"{source}, trained on ImageNet ({published.publisher}, {published.address}; {licence})"


def _trained_outline(config: Config) -> Staged:
    """The network without memory, frozen as in the training."""
    network = outline_of(config.network_spec)
    if config.transfer.strategy == "features":
        freeze(network, len(network.stages))
    elif config.transfer.strategy != "scratch":
        freeze(network, config.network.freeze)
    return network


def _data_facts(prepared: Prepared) -> DataFacts:
    counts = [prepared.counts(split) for split in prepared.splits]
    names = prepared.dataset.classes
    return DataFacts(
        path=shown_path(prepared.config.data.path),
        description=prepared.dataset.description,
        images=len(prepared.members),
        classes=[ClassCount(*row) for row in zip(names, *counts, strict=False)],
        unreadable=prepared.unreadable,
        duplicates=prepared.duplicates,
        warnings=prepared.notes,
    )
