"""A folder on disk -> class names, labelled image paths and sentences about what is odd there.

The only file that walks a data set. A class is a folder; its images may lie deeper. What is an
image is told by the first bytes of each file, never by its name; nothing is ever written.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from residua.data import image
from residua.data.dataset import SPLITS, Entry, Header, Pixels, SplitName
from residua.errors import ResiduaError

LAYOUT = """Expected one folder per class, or such folders inside train/, val/ and test/:
    DATA/owl/1.jpg               DATA/train/owl/1.jpg
    DATA/owl/2.jpg               DATA/train/puffin/2.jpg
    DATA/puffin/3.jpg            DATA/test/owl/3.jpg"""

_PARTS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "training_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing", "test_set"), "test"),
}
# Names that look like a part of a data set without being one of those above.
_PART_LIKE = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval|evaluation|hold[-_ ]?out|unseen)"
    r"([-_ ]?(set|data|split|part|images|images|all|old|new|small|full|\d+))*"
)
_SYSTEM = re.compile(
    r"\..*|(eh)?thumbs\.db|desktop\.ini|icon\r|__macosx|__pycache__|@eadir|[@#$]recycle(\.bin)?|"
    r"lost\+found|system volume information",
    re.DOTALL,
)
_KERAS_CLAIMS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class FolderDataset:
    """Images in class folders; implements `Source`."""

    root: Path
    name: str
    description: str
    classes: tuple[str, ...]
    entries: Sequence[Entry]
    rejected: Sequence[tuple[str, str]]
    warnings: Sequence[str]

    def content(self, index: int) -> bytes:
        """The bytes of the file, which may have vanished since. Raises Unreadable."""
        return image.read_file(self.root / self.entries[index].path)

    def header(self, index: int, content: bytes, max_pixels: int) -> Header:
        """See `images.header`."""
        return image.header(content, max_pixels)

    def pixels(self, index: int, content: bytes, channels: int, max_pixels: int) -> Pixels:
        """See `images.decode`."""
        return image.decode(content, channels, max_pixels)


@dataclass
class _Finds:
    """What the walk collects; `labelled` is (path, class name, part)."""

    labelled: list[tuple[str, str, SplitName | None]] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def find(root: Path) -> FolderDataset:
    """The data set in a folder of class folders, with or without part folders.

    Raises ResiduaError for a missing, unreadable or empty folder, for names that leave open which
    part is meant, and for a class that only validation or test has.
    """
    with _explained(root):
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise ResiduaError(f"{root} {what}.\n{LAYOUT}")
    finds = _Finds()
    parts = _part_folders(root, finds)
    for part, folder in parts.items():
        _collect(root, folder, part, finds)
    if not finds.labelled:
        raise ResiduaError(_nothing_found(root, finds))
    classes = _class_map(finds, list(parts))
    labels = {_key(name): label for label, name in enumerate(classes)}
    if len(classes) == 1:
        finds.warnings.append(f"All images are in one class folder, {classes[0]}/.")
    return FolderDataset(
        root=root,
        name=short_name(root),
        description="a folder of class folders"
        + (f" in the parts {', '.join(map(str, parts))}" if None not in parts else ""),
        classes=classes,
        entries=[Entry(path, labels[_key(n)], part) for path, n, part in sorted(finds.labelled)],
        rejected=sorted(finds.rejected),
        warnings=finds.warnings,
    )


def short_name(root: Path) -> str:
    """The last name in a path, also of "." and "..", for run folders."""
    return (root if root.name not in ("", "..") else root.resolve()).name or "data"


def keras_listing(root: Path) -> list[str]:
    """Relative paths as Keras' image_dataset_from_directory indexes them, before it shuffles.

    Visible first-level folders are classes, sorted by name. Below them every file with one of five
    extensions counts, hidden or damaged too, sorted by folder, then name; inner links to folders
    are not followed.
    """
    listing: list[str] = []
    for entry in _scan(root):
        if not _is_folder(entry) or entry.name.startswith("."):
            continue
        for folder, _, names in sorted(os.walk(entry.path), key=lambda step: step[0]):
            below = Path(folder).relative_to(root).as_posix()
            kept = (name for name in sorted(names) if name.lower().endswith(_KERAS_CLAIMS))
            listing += [f"{below}/{name}" for name in kept]
    return listing


def images_below(folder: Path) -> list[Path]:
    """Every visible file at any depth that is an image or claims to be one, sorted by path.

    Raises ResiduaError if the folder cannot be read.
    """
    return sorted(
        path for path in _files(folder) if image.objection(path) is None or image.is_claimed(path)
    )


def _part_folders(root: Path, finds: _Finds) -> dict[SplitName | None, Path]:
    """Part -> folder, train first; only None of a flat data set. Raises ResiduaError if unclear."""
    names = [entry.name for entry in _visible(root) if _is_folder(entry)]
    exact = [name for name in names if name.casefold() in _PARTS]
    like = [name for name in names if _PART_LIKE.fullmatch(name.casefold()) and name not in exact]
    others = [name for name in names if name not in exact and name not in like]
    parts = {_PARTS[name.casefold()]: root / name for name in exact}
    if len(parts) < len(exact):
        raise ResiduaError(_question(root, exact, "Which of them is meant?"))
    if not exact and (others or not like):
        return {None: root}  # class folders; one of them may happen to be called "dev"
    if list(parts) == ["train"] and others and not any(map(_is_folder, _visible(parts["train"]))):
        return {None: root}  # a class of railway trains among others
    if like:
        raise ResiduaError(_question(root, exact + like, f"What is {like[0]}/?"))
    if "train" not in parts:
        raise ResiduaError(_question(root, exact, "Where are the images to train on?"))
    if others:
        beside = ", ".join(f"{name}/" for name in others)
        finds.warnings.append(f"Beside the part folders there is {beside}: not used.")
    return {part: parts[part] for part in SPLITS if part in parts}


def _question(root: Path, names: Sequence[str], question: str) -> str:
    folders = ", ".join(f"{name}/" for name in names)
    return (
        f"{root} holds {folders}. {question} Rename the folders to train, val and test (val and "
        f"test may be missing), or move out of {root} what is no part of it; if they are classes, "
        f"give them other names."
    )


def _collect(root: Path, folder: Path, part: SplitName | None, finds: _Finds) -> None:
    """Adds every image of every class folder in `folder`."""
    loose = 0
    for entry in _visible(folder):
        if not _is_folder(entry):
            loose += image.objection(Path(entry.path)) is None
            continue
        before = len(finds.labelled)
        for path in _files(Path(entry.path)):
            _judge(root, path, entry.name, part, finds)
        if len(finds.labelled) == before:
            finds.warnings.append(
                f"The folder {_shown(root, Path(entry.path))}/ holds no images: it is no class."
            )
    if loose:
        where = "the data folder" if folder == root else f"{folder.name}/"
        finds.warnings.append(
            f"{loose:,} {'image lies' if loose == 1 else 'images lie'} directly in {where}, "
            "outside the class folders: not used."
        )


def _judge(root: Path, path: Path, name: str, part: SplitName | None, finds: _Finds) -> None:
    """Takes one file as an image, rejects it or passes over it."""
    shown = _shown(root, path)
    reason = image.objection(path)
    if reason is not None:
        if image.is_claimed(path):
            finds.rejected.append((shown, reason))
    elif shown != path.relative_to(root).as_posix():
        finds.rejected.append((shown, "has a name that is not UTF-8: rename it"))
    else:
        finds.labelled.append((shown, name, part))


def _files(folder: Path) -> Iterator[Path]:
    """Every visible file below a folder; links are followed, but no folder is entered twice."""
    waiting, entered = [folder], set()
    while waiting:
        current = waiting.pop()
        with _explained(current):
            status = current.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in _visible(current):
            if _is_folder(entry):
                waiting.append(Path(entry.path))
            else:
                yield Path(entry.path)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones and those of operating systems."""
    return [entry for entry in _scan(folder) if not _SYSTEM.fullmatch(entry.name.casefold())]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with _explained(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResiduaError(
            f"The folder {folder} cannot be read: {error.strerror or error}. Make it readable, or "
            "move it out of the data set."
        ) from error


def _class_map(finds: _Finds, parts: Sequence[SplitName | None]) -> tuple[str, ...]:
    """Class names in order, those of the first part; warns of what parts and names lack."""
    by_part: dict[SplitName | None, dict[str, str]] = {part: {} for part in parts}
    for _, name, part in sorted(finds.labelled, key=lambda found: found[1]):
        by_part[part].setdefault(_key(name), name)
    known = by_part[parts[0]]
    for part, found in list(by_part.items())[1:]:
        unknown = [name for key, name in found.items() if key not in known]
        if unknown:
            raise ResiduaError(
                f"The {part} part has the class {unknown[0]!r}, which the training part lacks "
                f"(its classes: {', '.join(known.values()) or 'none'}). Name it alike in both, or "
                "move it out."
            )
        missing = [name for key, name in known.items() if key not in found]
        if not found:
            finds.warnings.append(f"The {part} part holds no images in class folders: not used.")
        elif missing:
            finds.warnings.append(f"The {part} part has no images of: {', '.join(missing)}.")
    folded: dict[str, str] = {}
    for key, name in known.items():
        other = folded.setdefault(key.casefold(), name)
        if other != name:
            finds.warnings.append(f"The classes {other!r} and {name!r} differ only in case.")
    return tuple(known[key] for key in sorted(known))


def _key(name: str) -> str:
    """What makes two class names equal: Macs write accents as letters of their own."""
    return unicodedata.normalize("NFC", name)


def _shown(root: Path, path: Path) -> str:
    """The path relative to the root with '/', bytes that are not UTF-8 as escapes."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _nothing_found(root: Path, finds: _Finds) -> str:
    said = " ".join(finds.warnings) or "It has no images at all."
    for path, reason in finds.rejected[:1]:
        said += f" {len(finds.rejected):,} files are no images, such as {path}: it {reason}."
    return f"{root} holds no class folder with images. {said}\n{LAYOUT}"
