"""The layers of a weights file under their stored names, before anything is interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from residua.weights.formats.keras_config import ModelConfig

Framework = Literal["keras", "pytorch"]


@dataclass(frozen=True)
class RawWeights:
    """The content of one file.

    form: the kind of file, as a phrase: "a Keras 3 model".
    layers: layer -> part -> tensor. PyTorch's parts are weight, bias, running_mean, ...; Keras'
    are "0", "1", ..., in the order in which Keras lists a layer's variables.
    names_are_positions: True where a layer's name gives only its class and its position in Keras'
    model.layers (conv2d_3), not its own name.
    config: of a whole Keras model; None where the file holds weights alone.
    """

    path: Path
    framework: Framework
    form: str
    layers: Mapping[str, Mapping[str, Tensor]]
    names_are_positions: bool = False
    config: ModelConfig | None = None


def numeric_flaw(name: str, tensor: Tensor) -> str | None:
    """Why the numbers of a floating-point tensor make every output useless, if they do."""
    numbers = tensor.float()  # as they are used: too large ones become infinite
    if not bool(numbers.sum().isfinite() or numbers.isfinite().all()):  # the sum is fast
        return "numbers that are not finite (NaN or infinity)"
    if name.rpartition(".")[2] == "running_var" and bool((numbers < 0).any()):
        return "negative variances"
    return None
