"""DATA as Python programs have it -> the path of a data set.

Paths stay as they are. A list of (path, label) becomes a table, images of any other form become
uint8 pixels; both are stored, by default in the user's cache, where resume and evaluate find them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from residua.config.schema import Data
from residua.data.columns import Columns, roles_of
from residua.data.dataset import SplitName, Unreadable
from residua.data.listing import class_order
from residua.data.pixels import is_one_image, pixels_of
from residua.data.scan import split_named
from residua.data.store import Cells, Labelled, store_images, store_rows
from residua.data.table import text_of
from residua.data.url import is_address, read_address
from residua.data.value_range import ValueRange
from residua.errors import ResiduaError
from residua.system.files import user_path

DataLike = str | os.PathLike[str] | Iterable[Any] | Mapping[str, Any] | Any
KINDS = (
    "a path, a list of (path, label), (X, y) with images X and labels y, a data set of (image, "
    "label) as PyTorch's, a datasets.Dataset, or a dictionary of these by split"
)
_GREY = ("1", "L", "LA", "La", "I", "F")


@dataclass(frozen=True)
class _Item:
    """An image, or its path, and its label; where: for messages. cells: see Labelled."""

    image: Any
    label: str
    split: SplitName | None
    where: str
    cells: Cells


def path_of(
    data: DataLike,
    settings: Data,
    value_range: ValueRange | None = None,
    *,
    trained_range: ValueRange | None = None,
    allow_private: bool | None = None,
    parent: Path | None = None,
) -> str:
    """The path of DATA, stored if it has none. Raises ResiduaError.

    settings: columns of a datasets.Dataset. value_range: values of arrays and tensors that are
    black and white; trained_range: those of the images that a network was trained on, see
    `pixels_of`. allow_private: see `read_address`. parent: the folder to store in; None: one in the
    user's cache.
    """
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    items = _all_items(data, settings)
    first = next(items, None)
    if first is None:
        raise ResiduaError(f"the data given has no images: expected {KINDS}.")
    known = _class_names(data, settings)
    items = _unmixed(first, items)
    if _form(first.image) == "a path":
        return str(store_rows(_rows(items), parent))

    def ordered(names: Sequence[str]) -> Sequence[str]:
        present = [name for name in known if name in names]
        return present if set(present) == set(names) else class_order(names)

    downloaded = (_downloaded(item, allow_private) for item in items)
    images = _images(downloaded, value_range, trained_range)
    return str(store_images(images, ordered, parent))


def _form(image: object) -> str:
    """The form of an image, for a message."""
    if not isinstance(image, str | os.PathLike):
        return "an image in memory"
    return "a URL" if isinstance(image, str) and is_address(image) else "a path"


def _unmixed(first: _Item, items: Iterable[_Item]) -> Iterator[_Item]:
    """All items; either all are paths or none is. Raises ResiduaError."""
    expected = _form(first.image)
    for item in chain([first], items):
        form = _form(item.image)
        if (form == "a path") != (expected == "a path"):
            raise ResiduaError(
                f"{item.where}: is {form}, but the first image is {expected}. Paths cannot be "
                "mixed with URLs or images in memory: give only paths, or give the content of the "
                "files, Path(path).read_bytes(), instead of their paths."
            )
        yield item


def _downloaded(item: _Item, allow_private: bool | None) -> _Item:
    """The same, with the bytes of an image that is given by its URL. Raises ResiduaError."""
    if _form(item.image) != "a URL":
        return item
    try:
        return replace(item, image=read_address(item.image, allow_private=allow_private))
    except Unreadable as error:
        raise ResiduaError(f"{item.where}, {item.image}: {error}.") from error


def _rows(items: Iterable[_Item]) -> Iterator[dict[str, object]]:
    for item in items:
        path = user_path(item.image).absolute()
        yield {**item.cells, "path": str(path), "label": item.label, "split": item.split or ""}


def _images(
    items: Iterable[_Item], value_range: ValueRange | None, trained_range: ValueRange | None
) -> Iterator[Labelled]:
    for item in items:
        try:
            channels = 1 if _is_grey(item.image) else 3
            pixels = pixels_of(item.image, channels, Data.max_pixels, value_range, trained_range)
        except Unreadable as error:
            raise ResiduaError(f"{item.where}: {error}.") from error
        yield Labelled(pixels, item.label, item.split, item.cells)


def _is_grey(image: object) -> bool:
    if isinstance(image, bytes | bytearray | memoryview):
        try:
            with Image.open(BytesIO(image)) as opened:
                return _is_grey(opened)
        except (OSError, UnidentifiedImageError, ValueError):
            return False  # decoding explains it
    if isinstance(image, Image.Image):
        return image.mode.partition(";")[0] in _GREY
    if isinstance(image, np.ndarray):
        return image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if isinstance(image, torch.Tensor):
        return image.ndim == 2 or (image.ndim == 3 and len(image) == 1)
    return False


def _all_items(data: Any, settings: Data) -> Iterator[_Item]:
    """Every image with its label, of all splits."""
    if not isinstance(data, Mapping):
        yield from _items(data, settings, None, "")
        return
    for name, part in data.items():
        split = split_named(str(name), "the data given")
        if isinstance(part, str | os.PathLike | Mapping):
            raise ResiduaError(
                f"the {name} data given is of type {type(part).__name__}: expected a list, arrays "
                "or a data set. Give one folder or table with all splits as DATA."
            )
        yield from _items(part, settings, split, f"{name} ")


def _items(data: Any, settings: Data, split: SplitName | None, prefix: str) -> Iterator[_Item]:
    if _is_hugging_face(data):
        yield from _table_items(data, settings, split, prefix)
        return
    names = _class_names(data, settings)
    for number, (image, label) in enumerate(_pairs(data, prefix)):
        where = f"{prefix}image {number} of the data given"
        yield _Item(image, _name(label, names, where), split, where, {})


def _pairs(data: Any, prefix: str) -> Iterator[tuple[Any, Any]]:
    """(image, label) of each image."""
    if _is_one_pair(data):
        yield data
    elif _is_arrays(data):
        images, labels = data
        if hasattr(images, "__len__") and len(images) != len(labels):
            raise ResiduaError(
                f"the {prefix}data given has {len(images):,} images but {len(labels):,} labels."
            )
        missing = object()
        for image, label in zip_longest(images, labels, fillvalue=missing):
            if image is missing or label is missing:  # only a generator has an unknown length
                raise ResiduaError(
                    f"the {prefix}data given has {len(labels):,} labels but another number of "
                    "images."
                )
            yield image, label
    else:
        for number, pair in enumerate(_each(data)):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ResiduaError(
                    f"{prefix}image {number} of the data given: expected (image, label), found "
                    f"{type(pair).__name__}. Expected as data {KINDS}."
                )
            yield pair[0], pair[1]


def _is_one_pair(data: Any) -> bool:
    """Whether data is (image, label) of a single image."""
    return (
        isinstance(data, tuple)
        and len(data) == 2
        and is_one_image(data[0])
        and isinstance(data[1], str | int | np.integer)
    )


def _is_arrays(data: Any) -> bool:
    """Whether data is (images, labels); a tuple of two pairs is not."""
    return (
        isinstance(data, tuple)
        and len(data) == 2
        and isinstance(data[0], np.ndarray | torch.Tensor | list | Iterator)
        and isinstance(data[1], Sequence | np.ndarray | torch.Tensor)
    )


def _each(data: Any) -> Iterator[Any]:
    """The elements of a sequence, a data set of PyTorch, or anything that can be iterated."""
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[number] for number in range(len(data)))
    if hasattr(data, "__iter__"):
        return iter(data)
    raise ResiduaError(f"data of type {type(data).__name__}: expected {KINDS}.")


def _is_hugging_face(data: Any) -> bool:
    """Whether data is a `datasets.Dataset`, which is not imported."""
    return hasattr(data, "column_names") and isinstance(getattr(data, "features", None), Mapping)


def _roles(data: Any, settings: Data) -> Columns:
    """The columns of a `datasets.Dataset`. Raises ResiduaError."""
    images = _columns_of(data, "Image")
    path = settings.path_column or (images[0] if len(images) == 1 else "")
    settings = replace(settings, path_column=path)
    return roles_of(data.column_names, settings, "the datasets.Dataset given")


def _columns_of(data: Any, *kinds: str) -> list[str]:
    """The columns of a `datasets.Dataset` whose feature is of one of these classes."""
    return [name for name in data.column_names if type(data.features[name]).__name__ in kinds]


def _table_items(
    data: Any, settings: Data, split: SplitName | None, prefix: str
) -> Iterator[_Item]:
    """The rows of a `datasets.Dataset`: image, label, split, and the further columns."""
    roles, names = _roles(data, settings), _class_names(data, settings)
    used = (roles.path, roles.label, roles.split)
    others = [name for name in _columns_of(data, "Value", "ClassLabel") if name not in used]
    for number, row in enumerate(_each(data)):
        where = f"{prefix}image {number} of the data given"
        image = row[roles.path]
        if isinstance(image, Mapping):  # not decoded
            image = image.get("bytes") or image.get("path")
        cells = {name: _cell(row[name], data.features[name]) for name in others}
        own_split = split or (_split(row[roles.split], where) if roles.split else None)
        yield _Item(image, _name(row[roles.label], names, where), own_split, where, cells)


def _split(cell: object, where: str) -> SplitName | None:
    text = text_of(cell)
    return None if text == "" else split_named(str(cell) if text is None else text, where)


def _cell(value: Any, feature: object) -> str:
    """A cell as text, by its class name where it has one; "" for what is no text or number."""
    if isinstance(value, np.generic):
        value = value.item()
    names = getattr(feature, "names", None)
    if names and isinstance(value, int):
        value = names[value] if 0 <= value < len(names) else ""
    return text_of(value) or ""


def _class_names(data: Any, settings: Data) -> Sequence[str]:
    """The names that a data set has for labels 0, 1, ...; also that of a subset of it."""
    if isinstance(data, Mapping):
        return next(filter(None, (_class_names(part, settings) for part in data.values())), ())
    if _is_hugging_face(data):
        names = getattr(data.features[_roles(data, settings).label], "names", ())
        return tuple(map(str, names))
    inner = data
    while inner is not None:
        classes = getattr(inner, "classes", None)
        if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
            return cast("Sequence[str]", classes)
        following = getattr(inner, "dataset", None)  # of torch.utils.data.Subset
        inner = following if following is not inner else None
    return ()


def _name(label: Any, names: Sequence[str], where: str) -> str:
    """The class of a label: text, or a whole number. Raises ResiduaError for anything else."""
    if isinstance(label, torch.Tensor):
        label = label.detach().cpu().numpy()
    if isinstance(label, np.ndarray | np.generic) and label.size == 1:
        label = label.item()
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, int) and not isinstance(label, bool) and names:
        if not 0 <= label < len(names):
            raise ResiduaError(f"{where}: label {label}: expected 0 to {len(names) - 1}.")
        return names[label]
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int) or (isinstance(label, str) and label.strip()):
        return str(label).strip()
    is_vector = isinstance(label, np.ndarray | list | tuple) and len(label) > 1
    raise ResiduaError(
        f"{where}: label {str(label)[:60]!r} of type {type(label).__name__}: expected one class, "
        "as text or a whole number"
        + (": give one-hot labels as labels.argmax(1)." if is_vector else ".")
    )
