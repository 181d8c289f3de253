"""A weights file -> its facts and tensors, as `residua weights inspect` prints them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua.errors import ResiduaError
from residua.weights.formats.detect import read_raw
from residua.weights.formats.raw import dtype_name
from residua.weights.load import Weights, read_file
from residua.weights.native import is_native

if TYPE_CHECKING:
    from torch import Tensor

LABELS = {  # of facts whose JSON keys are those of version 0.1.0
    "form": "format",
    "names": "layer names",
    "biases": "conv biases",
    "numbers": "parameters and buffers",
    "stored as": "dtypes",
}


@dataclass(frozen=True)
class Inspection:
    """facts: plain data by name. tensors: (name, shape, dtype) as stored."""

    facts: Mapping[str, Any]
    tensors: tuple[tuple[str, tuple[int, ...], str], ...]

    def to_json(self) -> str:
        """One object: the facts, and the tensors as a list."""
        tensors = [dict(zip(("name", "shape", "dtype"), row, strict=True)) for row in self.tensors]
        return json.dumps({**self.facts, "tensors": tensors}, ensure_ascii=False)

    def text(self, with_tensors: bool) -> str:
        """A line for each fact, and one for each tensor if requested."""
        facts = {LABELS.get(name, name): value for name, value in self.facts.items()}
        width = max(len(name) for name in facts)
        lines = [f"{name:<{width}}  {_text(value)}" for name, value in facts.items()]
        if with_tensors:
            lines += [f"  {name}  {_by(shape)}  {dtype}" for name, shape, dtype in self.tensors]
        return "\n".join(lines)


def inspect(path: Path, model: str | None) -> Inspection:
    """Describe a weights file, one of an unknown network too. Raises ResiduaError if it is damaged
    or has another format."""
    if is_native(path):
        weights = read_file(path, model)
        return _inspection(path, "residua", weights.form, weights.tensors, _facts(weights))
    raw = read_raw(path)
    separator = "." if raw.framework == "pytorch" else "/"
    tensors = {
        f"{layer}{separator}{part}": tensor
        for layer, parts in raw.layers.items()
        for part, tensor in parts.items()
    }
    try:
        facts = _facts(read_file(path, model))
    except ResiduaError as error:
        facts = {"network": f"unknown: {str(error).removeprefix(f'{path}: ')}"}
    form = f"{raw.form} ({len(raw.layers)} layers)"
    return _inspection(path, raw.framework, form, tensors, facts)


def _inspection(
    path: Path, framework: str, form: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Inspection:
    rows = tuple(
        (name, tuple(tensor.shape), dtype_name(tensor)) for name, tensor in tensors.items()
    )
    dtypes = Counter(dtype for _, _, dtype in rows)
    everything = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "framework": framework,
        "form": form,
        **facts,
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
        "stored as": ", ".join(f"{dtype} ({count} tensors)" for dtype, count in dtypes.items()),
    }
    return Inspection(everything, rows)


def _facts(weights: Weights) -> dict[str, Any]:
    metadata, network = weights.metadata, weights.metadata.network
    facts: dict[str, Any] = {"network": network.name}
    if weights.match is not None:
        facts["names"] = f"of {weights.match.key_map.source}"
    options = ("ordering", "shortcut", "cardinality", "head", "stage", "pool_size", "earlier_pools")
    facts |= {name: value for name in options if (value := getattr(network, name))}
    facts |= {
        "outputs": network.classes if weights.has_head else f"none: it {weights.no_head_reason}",
        "channels": network.channels,
        "classes": _short(metadata.classes) if metadata.classes else "not recorded in the file",
        "biases": _biases(weights),
        "preprocessing": asdict(metadata.preprocessing),
    }
    assumed = (weights.assumed_preprocessing, weights.assumed_classes)
    if any(assumed):
        facts["assumed"] = "; ".join(filter(None, assumed))
    return facts


def _biases(weights: Weights) -> str:
    """How many convolutions have a bias, as Keras' often do although a norm follows."""
    kernels = [name for name, tensor in weights.tensors.items() if tensor.ndim == 4]
    biased = [name for name in kernels if name.replace(".weight", ".bias") in weights.tensors]
    unfolded = ", not folded into norms" if biased else ""
    return f"in {len(biased)} of {len(kernels)} convolutions{unfolded}"


def _short(classes: tuple[str, ...]) -> str:
    more = f", ... ({len(classes)} in all)" if len(classes) > 5 else ""
    return ", ".join(classes[:5]) + more


def _text(value: Any) -> str:
    if isinstance(value, dict):
        units = dict.fromkeys(("mean", "std"), " of 0..255")
        return ", ".join(
            f"{key} {_text(item)}{units.get(key, '')}"
            for key, item in value.items()
            if item is not None
        )
    if isinstance(value, tuple | list):
        return "(" + ", ".join(f"{item:g}" for item in value) + ")"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"
