"""A weights file -> what it is, as `residua weights inspect` says it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua.errors import ResiduaError
from residua.weights.formats.raw import Stored, read_stored
from residua.weights.load import Weights, read_file
from residua.weights.native import is_native

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Inspection:
    """facts: what the file says, as plain data by name. tensors: (name, shape, dtype) as stored."""

    facts: Mapping[str, Any]
    tensors: tuple[tuple[str, tuple[int, ...], str], ...]

    def to_json(self) -> str:
        """One object: the facts, and the tensors as a list."""
        tensors = [
            {"name": name, "shape": list(shape), "dtype": dtype}
            for name, shape, dtype in self.tensors
        ]
        return json.dumps({**self.facts, "tensors": tensors}, ensure_ascii=False)

    def text(self, with_tensors: bool) -> str:
        """A line for each fact; the tensors below them if asked."""
        wide = max(len(name) for name in self.facts)
        lines = [f"{name:<{wide}}  {_said(value)}" for name, value in self.facts.items()]
        if with_tensors:
            lines += [f"  {name}  {_by(shape)}  {dtype}" for name, shape, dtype in self.tensors]
        return "\n".join(lines)


def inspect(path: Path, model: str | None) -> Inspection:
    """What a weights file is. Raises ResiduaError where it is none, or is damaged.

    A file of no network that is known here is described too; its facts say why it fits none.
    """
    if is_native(path):
        weights = read_file(path, model)
        return _facts(path, weights.form, weights.tensors, _meaning(weights))
    stored = read_stored(path)
    tensors = {
        f"{layer}{'.' if stored.framework == 'pytorch' else '/'}{part}": each
        for layer, parts in stored.layers.items()
        for part, each in parts.items()
    }
    try:
        meaning = _meaning(read_file(path, model))
    except ResiduaError as error:
        meaning = {"network": f"unknown: {str(error).removeprefix(f'{path}: ')}"}
    return _facts(path, f"{stored.form} ({len(stored.layers)} layers)", tensors, meaning, stored)


def _facts(
    path: Path,
    form: str,
    tensors: Mapping[str, Tensor],
    meaning: Mapping[str, Any],
    stored: Stored | None = None,
) -> Inspection:
    kinds = Counter(str(each.dtype).removeprefix("torch.") for each in tensors.values())
    facts = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "framework": stored.framework if stored else "residua",
        "form": form,
        **meaning,
        "numbers": sum(each.numel() for each in tensors.values()),
        "stored as": ", ".join(f"{kind} ({count} tensors)" for kind, count in kinds.items()),
    }
    rows = tuple(
        (name, tuple(each.shape), str(each.dtype).removeprefix("torch."))
        for name, each in tensors.items()
    )
    return Inspection(facts, rows)


def _meaning(weights: Weights) -> dict[str, Any]:
    metadata = weights.metadata
    found: dict[str, Any] = {"network": metadata.network.name}
    if weights.match is not None:
        found["names"] = f"as {weights.match.dialect.name} gives them"
    options = ("ordering", "shortcut", "cardinality", "head", "stage", "pool_size")
    changed = {key: value for key in options if (value := getattr(metadata.network, key))}
    found |= {
        **changed,
        "outputs": f"none: it {weights.no_head_reason}"
        if not weights.has_head
        else metadata.network.classes,
        "channels": metadata.network.channels,
        "classes": _short(metadata.classes) if metadata.classes else "not named in the file",
        "biases": _biases(weights),
        "preprocessing": asdict(metadata.preprocessing),
    }
    if assumed := "; ".join(filter(None, (weights.assumed_preprocessing, weights.assumed_classes))):
        found["assumed"] = assumed
    return found


def _biases(weights: Weights) -> str:
    """Keras' convolutions often have biases although a norm follows; they are kept, not folded."""
    kernels = [name for name, each in weights.tensors.items() if each.ndim == 4]
    biased = [name for name in kernels if name.replace(".weight", ".bias") in weights.tensors]
    kept = ", kept as they are, not folded into norms" if biased else ""
    return f"{len(biased)} of {len(kernels)} convolutions have one{kept}"


def _short(classes: tuple[str, ...]) -> str:
    more = f", ... ({len(classes)} in all)" if len(classes) > 5 else ""
    return ", ".join(classes[:5]) + more


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items())
    if isinstance(value, tuple | list):
        return "(" + ", ".join(f"{each:g}" for each in value) + ")"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"
