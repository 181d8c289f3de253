"""The layers of a weights file under their stored names, before anything is interpreted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from residua.weights.formats.keras_config import ModelConfig

MAX_PREFIX, MAX_PARTS, MIN_LAYERS = 4, 24, 5  # words of a prefix, prefixes, layers under one
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
    left_out: in a sentence, what else the file has; "" for nothing.
    """

    path: Path
    framework: Framework
    form: str
    layers: Mapping[str, Mapping[str, Tensor]]
    names_are_positions: bool = False
    config: ModelConfig | None = None
    left_out: str = ""


def parts_of(raw: RawWeights) -> Iterator[tuple[str, RawWeights]]:
    """Each prefix of layer names, such as "net" or "module.model", and the layers without it; the
    prefix of the most layers first."""
    counts: Counter[str] = Counter()
    for name in raw.layers:
        words = name.split(".")
        counts.update(".".join(words[:end]) for end in range(1, min(len(words), MAX_PREFIX + 1)))
    for prefix, count in counts.most_common(MAX_PARTS):
        if count < MIN_LAYERS:
            break
        start = f"{prefix}."
        inside = {
            name.removeprefix(start): parts
            for name, parts in raw.layers.items()
            if name.startswith(start)
        }
        rest = [name for name in raw.layers if not name.startswith(start)]
        shown = ", ".join(rest[:3]) + (f" and {len(rest) - 3} more" if rest[3:] else "")
        left_out = f"only its layers {prefix}.* are read, not {shown}" if rest else ""
        yield prefix, replace(raw, layers=inside, left_out=left_out)


def dtype_name(tensor: Tensor) -> str:
    """Such as "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def by(shape: Iterable[int]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape)) or "a single number"


def numeric_flaw(name: str, tensor: Tensor) -> str | None:
    """Why the numbers of a floating-point tensor make every output useless, if they do."""
    numbers = tensor.float()  # as they are used: too large ones become infinite
    if not bool(numbers.sum().isfinite() or numbers.isfinite().all()):  # the sum is fast
        return "numbers that are not finite (NaN or infinity)"
    if name.rpartition(".")[2] == "running_var" and bool((numbers < 0).any()):
        return "negative variances"
    return None
