"""Metadata <-> the JSON file beside weights whose format has no place for class names and more."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from residua.system.files import check_output, is_there, sha256_of, write_atomically
from residua.weights.formats.guards import MAX_HEADER, translated
from residua.weights.native import Metadata, description, metadata_from


def companion_of(weights: Path) -> Path:
    """The path of the JSON file: NAME.pth.json for NAME.pth."""
    return weights.with_name(f"{weights.name}.json")


def check_companion(weights: Path) -> None:
    """Raise ResiduaError if another file has the name of the JSON file."""
    path = companion_of(weights)
    if not is_there(path) or _content(path) is None:
        check_output(path, (".json",), (weights,))


def write_companion(weights: Path, content: bytes, metadata: Metadata) -> Path:
    """Write the JSON file for weights with this content; the path. Raises ResiduaError."""
    path = companion_of(weights)
    values = {"sha256": hashlib.sha256(content).hexdigest(), "residua": description(metadata)}
    write_atomically(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")
    return path


def read_companion(weights: Path) -> tuple[Metadata | None, str]:
    """The metadata of a weights file; None without a JSON file, or why it is not used."""
    path = companion_of(weights)
    if not is_there(path) or (values := _content(path)) is None:
        return None, ""
    if values.get("sha256") != sha256_of(weights):
        return None, f"{path.name} describes other weights (their SHA-256 differs), so it is unused"
    with translated(path, "a description of weights"):
        return metadata_from(path, values["residua"]), ""


def _content(path: Path) -> dict[str, object] | None:
    """The content of a JSON file that `write_companion` wrote; None of any other file."""
    try:
        if path.stat().st_size > MAX_HEADER:
            return None
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and {"sha256", "residua"} <= values.keys() else None
