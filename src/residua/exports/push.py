"""A run -> a repository on Hugging Face: model card, weights, and descriptions in JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from residua._version import __version__
from residua.exports.classifier import resizing
from residua.runs.folder import RunFolder
from residua.runs.sources import run_weights
from residua.weights.hub import WEIGHTS, upload
from residua.weights.load import Weights
from residua.weights.native import description


def push_run(run: RunFolder, repository: str, card: str, *, private: bool) -> str:
    """Upload a run's best network; the address of the repository. Raises ResiduaError.

    card: the model card, Markdown.
    """
    weights = run_weights(run)
    with tempfile.TemporaryDirectory(prefix="residua-push-") as name:
        folder = Path(name)
        (folder / "README.md").write_text(card, "utf-8")
        (folder / WEIGHTS).write_bytes(weights.path.read_bytes())
        for file, values in (
            ("config.json", _config(weights)),
            ("preprocessor_config.json", _preprocessor(weights)),
        ):
            text = json.dumps(values, ensure_ascii=False, indent=2)
            (folder / file).write_text(f"{text}\n", "utf-8")
        message = f"{run.path.resolve().name}, residua {__version__}"
        return upload(folder, repository, message, private=private)


def _config(weights: Weights) -> dict[str, Any]:
    """Network and classes, with the keys of Hugging Face where they have one."""
    metadata = weights.metadata
    names = dict(enumerate(metadata.classes))
    return {
        "library_name": "residua",
        "architecture": metadata.network.name,
        "num_classes": metadata.network.classes,
        "id2label": {str(output): name for output, name in names.items()},
        "label2id": {name: output for output, name in names.items()},
        "residua": {key: description(metadata)[key] for key in ("format", "network", "classes")},
    }


def _preprocessor(weights: Weights) -> dict[str, Any]:
    """The preprocessing; mean and std in the range 0 to 1, as in Hugging Face's files."""
    rule = weights.metadata.preprocessing
    return {
        "size": {"height": rule.size, "width": rule.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in rule.mean],
        "image_std": [value / 255 for value in rule.std],
        "resizing": resizing(rule),
        "residua": description(weights.metadata)["preprocessing"],
    }
