"""Temperature, prediction sets and detector of unknown images <-> entries of a weights file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy.typing as npt

from residua.uncertainty.prediction_sets import PredictionSets
from residua.uncertainty.unknown import UnknownDetector

REFERENCE_IMAGES = 1000  # training images that new ones are compared with
CALIBRATION_IMAGES = 2000  # validation images, at most

Source = Literal["cross-validation", "validation"]


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Calibration, prediction sets and a detector of unknown images.

    source: the predictions that they were fitted on. images: of these.
    temperature: that the logits are divided by; it is part of the head's weights already.
    sets, unknown: None where the data do not suffice.
    """

    source: Source
    images: int
    temperature: float = 1.0
    sets: PredictionSets | None = None
    unknown: UnknownDetector | None = None

    @property
    def outputs(self) -> set[int]:
        """The numbers of logits that the parts are for."""
        sets = None if self.sets is None else self.sets.classes
        unknown = None if self.unknown is None else self.unknown.outputs
        return {count for count in (sets, unknown) if count is not None}

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Plain data and arrays; `from_arrays` is the inverse."""
        values: dict[str, Any] = {
            "source": self.source,
            "images": self.images,
            "temperature": self.temperature,
        }
        arrays: dict[str, npt.NDArray[Any]] = {}
        for name, part in (("sets", self.sets), ("unknown", self.unknown)):
            if part is not None:
                values[name], own = part.to_arrays()
                arrays |= {f"{name}.{key}": array for key, array in own.items()}
        return values, arrays

    @classmethod
    def from_arrays(cls, values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Raises ValueError, KeyError or TypeError if it is something else."""
        source, images, temperature = values["source"], values["images"], values["temperature"]
        if source not in ("cross-validation", "validation") or type(images) is not int:
            raise ValueError(f"source {source!r}, images {images!r}")
        if not isinstance(temperature, float) or not 0 < temperature < math.inf:
            raise ValueError(f"temperature {temperature!r}")
        sets = unknown = None
        if "sets" in values:
            sets = PredictionSets.from_arrays(values["sets"], _below("sets.", arrays))
        if "unknown" in values:
            unknown = UnknownDetector.from_arrays(values["unknown"], _below("unknown.", arrays))
        return cls(source, images, temperature, sets, unknown)


def _below(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
