"""The measurements of a transfer strategy <-> transfer.json, plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from residua.config.parse import typed
from residua.errors import ResiduaError
from residua.inference.feature_layers import FeatureLayer
from residua.runs.folder import TRANSFER, RunFolder

TOO_FEW_ERRORS = "too few for another strategy to show a gain"  # ends a reason to stop
Phase = Literal["first", "trial", "final"]


@dataclass(frozen=True)
class LayerResult:
    """How well the frozen features of one layer separate the classes, by cross-validation.

    stage: from 1. pool_size: side of the average-pooled map. earlier_pools: of the stages before it
    whose features come first. features: numbers per image.
    accuracy: of a linear probe. neighbours: accuracy of the ten nearest neighbours.
    c: inverse regularisation strength of the probe, C of scikit-learn's LogisticRegression.
    loss: of the probe, nats; an upper bound if `abandoned`.
    abandoned: whether weaker regularisation was not tried, as another layer is better in any case,
    or time ran out.
    """

    stage: int
    pool_size: int
    features: int
    accuracy: float
    neighbours: float
    c: float
    loss: float
    abandoned: bool = False
    earlier_pools: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The layer in words."""
        return str(FeatureLayer(self.stage, self.pool_size, self.earlier_pools))


@dataclass(frozen=True)
class BackboneResult:
    """One of several initial weights, compared by linear probes on the same images and folds.

    source: as in --weights. stage, pool_size, earlier_pools, loss: of its best layer, see
    LayerResult.
    accuracy, interval: see `cross_validation.estimate`. images: that were evaluated.
    """

    source: str
    network: str
    stage: int
    pool_size: int
    loss: float
    accuracy: float
    interval: tuple[float, float]
    images: int
    earlier_pools: tuple[int, ...] = ()


@dataclass(frozen=True)
class CrossValidation:
    """The expected accuracy of a linear probe on new images, see `cross_validation.estimate`.

    interval: 95 % CI. images: that were left out in turn and evaluated. errors: of these,
    misclassified; None where an earlier version did not record it.
    skipped: images alone in their class, which cannot be evaluated.
    training_images: that the saved head was fitted on.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int
    training_images: int
    skipped: int = 0
    errors: int | None = None


@dataclass(frozen=True)
class TrialResult:
    """A strategy that `auto` tried, evaluated on the validation set.

    phase: the first linear probe, a short trial, or as much training as the time allows.
    seconds: that it took. predicted_seconds: of all epochs in its settings, if it has any.
    gain: in accuracy over the first probe. noise: standard deviation of the gain if both are
    equally good. kept_initial: whether no epoch was better than the weights before training, whose
    accuracy this is then. images: of the validation set that were evaluated; None where an earlier
    version did not record it.
    """

    strategy: str
    phase: Phase
    epochs: int
    seconds: float
    predicted_seconds: float | None
    accuracy: float
    gain: float
    noise: float
    kept_initial: bool = False
    images: int | None = None


@dataclass(frozen=True)
class DataSummary:
    """The training set. imbalance: size of the largest class over that of the smallest.

    width, height: median size of the image files, px.
    """

    images: int
    classes: int
    imbalance: float
    width: int
    height: int


@dataclass(frozen=True)
class Scenario:
    """One of tutorial 3's four scenarios; number, name and is_similar: None if not measured."""

    number: int | None
    name: str | None
    is_large: bool
    is_similar: bool | None
    reason: str


@dataclass(frozen=True)
class TransferResult:
    """The measurements of a transfer strategy; what does not apply is None or empty.

    backbones: the initial weights that were compared, the best first.
    layers: the feature layers that were compared.
    images: that the linear probe, or the initial head, was fitted on.
    computed: images whose features were not cached. feature_seconds: for these. engine: that ran
    the frozen network. refusal: why it was not OpenVINO, though that is installed.
    predicted_epochs, predicted_seconds: of the schedule before a time budget limits it.
    trials, expected, data, scenario, chosen, reason: of `auto`. expected: strategy -> accuracy
    that it was expected to reach in the time left.
    """

    layers: tuple[LayerResult, ...] = ()
    images: int | None = None
    computed: int | None = None
    feature_seconds: float | None = None
    engine: str | None = None
    refusal: str | None = None
    cross_validation: CrossValidation | None = None
    predicted_epochs: int | None = None
    predicted_seconds: float | None = None
    trials: tuple[TrialResult, ...] = ()
    expected: Mapping[str, float] | None = None
    data: DataSummary | None = None
    scenario: Scenario | None = None
    chosen: str | None = None
    reason: str | None = None
    backbones: tuple[BackboneResult, ...] = ()

    @property
    def kept_probe(self) -> CrossValidation | None:
        """The cross-validation of the saved model; None unless it is a linear probe."""
        return self.cross_validation if self.chosen in (None, "features") else None

    @property
    def seconds_per_image(self) -> float:
        """That features took; 0 if all were cached."""
        return (self.feature_seconds or 0.0) / max(1, self.computed or 0)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without what does not apply."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: value for key, value in values.items() if value != ()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TransferResult:
        """From plain data, also as version 0.1.0 wrote it. Raises KeyError, TypeError, ValueError
        or AttributeError if it is something else."""
        known = _current(values)
        if "seconds" in known:  # of version 0.1.0
            known["feature_seconds"] = known.pop("seconds")["features"]
        for key in ("layers", "trials", "backbones"):
            known[key] = [_current(row) for row in known.get(key, ())]
        for key in {"cross_validation", "data", "scenario"} & known.keys():
            known[key] = _current(known[key])
        return typed(cls, known)


def result_of(folder: RunFolder) -> TransferResult:
    """The measurements so far. Raises ResiduaError if the file is damaged."""
    path = folder.path / TRANSFER
    if not path.exists():
        return TransferResult()
    try:
        return TransferResult.from_json(folder.read_json(TRANSFER))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ResiduaError(
            f"{path}: is damaged: {error!r}; expected the measurements of a transfer strategy. "
            "Delete it; the run can be resumed without it."
        ) from error


_RENAMED = {  # keys of version 0.1.0
    "taps": "layers",
    "side": "pool_size",
    "numbers": "features",
    "linear": "accuracy",
    "strength": "c",
    "pictures": "images",
    "cross_validated": "cross_validation",
    "taught": "training_images",
    "alone": "skipped",
    "table": "trials",
    "way": "strategy",
    "length": "phase",
    "hopes": "expected",
    "largest_to_smallest_class": "imbalance",
    "large": "is_large",
    "similar": "is_similar",
}
_PHASES = {"solved": "first", "long": "final"}


def _current(row: Mapping[str, Any]) -> dict[str, Any]:
    """Values under their present names, nested ones as they are."""
    values = {_RENAMED.get(key, key): value for key, value in row.items()}
    if "followed" in values:
        values["abandoned"] = not values.pop("followed")
    if "phase" in values:
        values["phase"] = _PHASES.get(values["phase"], values["phase"])
    if "interval" in values:
        values["interval"] = tuple(values["interval"])
    return values
