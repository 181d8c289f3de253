"""A folder of class folders -> class names, labelled image paths, and warnings.

A class is a folder; its images may be at any depth. The first bytes of a file decide whether it is
an image, never its name. Nothing is ever written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

from residua.data import recognition
from residua.data.dataset import SPLITS, SplitName
from residua.data.scan import (
    LINE_BREAK,
    SPLIT_NAMES,
    FileDataset,
    LabelledFile,
    Scan,
    classes_of,
    entries_of,
)
from residua.data.table import is_table
from residua.errors import ResiduaError
from residua.system.files import reason_of
from residua.system.words import counted

LAYOUT = """Expected one folder per class, or such folders inside train/, val/ and test/:
    DATA/owl/1.jpg               DATA/train/owl/1.jpg
    DATA/owl/2.jpg               DATA/train/puffin/2.jpg
    DATA/puffin/3.jpg            DATA/test/owl/3.jpg"""

# Other names that suggest a split.
_SPLIT_LIKE = re.compile(
    r"(train|training|val|valid|validation|test|testing|dev|eval|evaluation|hold[-_ ]?out|unseen)"
    r"([-_ ]?(set|data|split|part|pictures|images|all|old|new|small|full|\d+))*"
)
_SYSTEM = re.compile(
    r"\..*|(eh)?thumbs\.db|desktop\.ini|icon\r|__macosx|__pycache__|@eadir|[@#$]recycle(\.bin)?|"
    r"lost\+found|system volume information",
    re.DOTALL,
)
_PSEUDO = (("proc",), ("sys",), ("dev",))  # folders without end
_KERAS_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


class FolderDataset(FileDataset):
    """Images in class folders."""


def find(root: Path, *, training: bool = True) -> FolderDataset:
    """The data set in a folder of class folders, or of split folders with class folders.

    training: whether the training set defines the classes; else all sets do, and none is needed.
    Raises ResiduaError if the folder is missing, unreadable or without images, if a folder's name
    leaves the split unclear, or if validation or test has a class that training lacks.
    """
    with _readable_errors(root):
        if not root.is_dir():
            problem = "is a file, not a folder" if root.exists() else "does not exist"
            raise ResiduaError(f"{root} {problem}.\n{LAYOUT}")
    if root.resolve().parts[1:2] in _PSEUDO:
        raise ResiduaError(f"{root}: is a folder of the system, not of images.\n{LAYOUT}")
    scan = Scan()
    splits = _split_folders(root, scan, training)
    for split, folder in splits.items():
        _scan_classes(root, folder, split, scan)
    if not scan.labelled:
        raise ResiduaError(_no_images(root, scan))
    classes = classes_of(scan, list(splits) if training else [])
    if len(classes) == 1 and None in splits:
        scan.warnings.append(_single_class(root, classes[0]))
    return FolderDataset(
        root=root,
        name=short_name(root),
        description="class folders"
        + (f", split into {', '.join(map(str, splits))}" if None not in splits else ""),
        classes=classes,
        entries=entries_of(sorted(scan.labelled, key=attrgetter("path")), classes),
        rejected=sorted(scan.rejected),
        warnings=scan.warnings,
    )


def short_name(root: Path) -> str:
    """The last component of a path, also of "." and "..", for run folders."""
    return (root if root.name not in ("", "..") else root.resolve()).name or "data"


def keras_listing(root: Path) -> list[str]:
    """Relative paths as Keras' image_dataset_from_directory indexes them, before it shuffles.

    Visible first-level folders are classes, sorted by name. Below them every file with one of five
    suffixes counts, hidden or damaged too, sorted by folder, then name; links to folders are not
    followed below the first level.
    """
    listing: list[str] = []
    for entry in _entries(root):
        if not _is_folder(entry) or entry.name.startswith("."):
            continue
        for folder, _, names in sorted(os.walk(entry.path), key=lambda step: step[0]):
            prefix = Path(folder).relative_to(root).as_posix()
            images = (name for name in sorted(names) if name.lower().endswith(_KERAS_SUFFIXES))
            listing += [f"{prefix}/{name}" for name in images]
    return listing


def images_below(folder: Path) -> list[Path]:
    """Every visible file at any depth that is an image or has an image's suffix, sorted by path.

    Raises ResiduaError if the folder cannot be read.
    """
    return sorted(
        path
        for path in files_below(folder)
        if not recognition.is_backup(path)
        and (recognition.objection(path) is None or recognition.is_claimed(path))
    )


def _split_folders(root: Path, scan: Scan, training: bool) -> dict[SplitName | None, Path]:
    """Split -> folder, train first; {None: root} without splits. Raises ResiduaError if unclear."""
    names = [entry.name for entry in _visible(root) if _is_folder(entry)]
    exact = [name for name in names if name.casefold() in SPLIT_NAMES]
    like = [name for name in names if _SPLIT_LIKE.fullmatch(name.casefold()) and name not in exact]
    others = [name for name in names if name not in exact and name not in like]
    splits = {SPLIT_NAMES[name.casefold()]: _inner(root / name) for name in exact}
    if len(splits) < len(exact):
        raise ResiduaError(_question(root, exact, "Which of them is meant?"))
    if not exact and (others or not like):
        _refuse_splits_below(root, others)
        return {None: root}  # class folders; one of them may be called "dev"
    if list(splits) == ["train"] and others and not any(map(_is_folder, _visible(splits["train"]))):
        return {None: root}  # railway trains are one of the classes
    if like:
        raise ResiduaError(_question(root, exact + like, f"What is {like[0]}/?"))
    if "train" not in splits and (training or others):
        raise ResiduaError(_question(root, exact, "Where are the training images?"))
    if others:
        beside = ", ".join(f"{name}/" for name in others)
        scan.warnings.append(f"Not used: {beside} beside the split folders.")
    return {split: splits[split] for split in SPLITS if split in splits}


def _inner(folder: Path) -> Path:
    """The split folder inside one of the same name, as in training_set/training_set/cats."""
    inner = _visible(folder)
    if len(inner) == 1 and inner[0].name.casefold() == folder.name.casefold():
        return Path(inner[0].path)
    return folder


def _refuse_splits_below(root: Path, classes: Sequence[str]) -> None:
    """Raise ResiduaError if a class folder is divided into training and other images."""
    for name in classes:
        inner = [entry.name for entry in _visible(root / name) if _is_folder(entry)]
        splits = {SPLIT_NAMES.get(folder.casefold()) for folder in inner} - {None}
        if "train" in splits and len(splits) > 1:
            raise ResiduaError(
                f"{root}: the class folder {name}/ contains {', '.join(inner)}: is it divided into "
                f"splits? Expected the splits outside, as in train/{name}/ and test/{name}/: move "
                "them, or give the inner folders other names."
            )


def _single_class(root: Path, name: str) -> str:
    """A warning that names the folder that may be meant."""
    inner = [entry.name for entry in _visible(root / name) if _is_folder(entry)]
    warning = f"All images are in one class folder, {name}/.{_table_meant(root)}"
    if len(inner) < 2:
        return warning
    shown = ", ".join(inner[:3]) + (", ..." if inner[3:] else "")
    return (
        f"{warning} If the folders in {name}/ ({shown}) are meant, give {root / name} as the data."
    )


def _question(root: Path, names: Sequence[str], question: str) -> str:
    folders = ", ".join(f"{name}/" for name in names)
    return (
        f"{root} contains {folders}. {question} Rename the folders to train, val and test (val and "
        f"test are optional), or move other folders out of {root}; if they are classes, give them "
        "other names."
    )


def _scan_classes(root: Path, folder: Path, split: SplitName | None, scan: Scan) -> None:
    """Add the images of every class folder in `folder`."""
    loose, archives = 0, []
    for entry in _visible(folder):
        if not _is_folder(entry):
            loose += recognition.objection(Path(entry.path)) is None
            archives += [entry.name] if recognition.has_archive_suffix(Path(entry.name)) else []
            continue
        before = len(scan.labelled)
        for path in files_below(Path(entry.path)):
            _add(root, path, entry.name, split, scan)
        if len(scan.labelled) == before:
            shown = _shown(root, Path(entry.path))
            scan.warnings.append(f"Not a class: the folder {shown}/ contains no images.")
    where = "the data folder" if folder == root else f"{folder.name}/"
    if loose:
        images = counted(loose, "image")
        scan.warnings.append(f"Not used: {images} in {where}, outside the class folders.")
    if archives:
        names = ", ".join(archives[:3]) + (", ..." if archives[3:] else "")
        scan.warnings.append(
            f"Not used: {counted(len(archives), 'archive')} in {where}: {names}. "
            "Unpack what is needed."
        )


def _add(root: Path, path: Path, name: str, split: SplitName | None, scan: Scan) -> None:
    """Add one file as an image of class `name`, reject it, or ignore it."""
    shown = _shown(root, path)
    reason = recognition.objection(path)
    if reason is not None:
        if recognition.has_archive_suffix(path):
            scan.rejected.append(
                (shown, "is an archive: unpack it, or move it out of the data set")
            )
        elif recognition.is_claimed(path):
            scan.rejected.append((shown, reason))
    elif recognition.is_backup(path):
        scan.rejected.append((shown, "has the name of a backup copy: rename it to use it"))
    elif LINE_BREAK.search(shown):
        scan.rejected.append((shown, "has a line break in its name: rename it"))
    elif shown != path.relative_to(root).as_posix():
        scan.rejected.append((shown, "has a name that is not UTF-8: rename it"))
    else:
        scan.labelled.append(LabelledFile(shown, name, split))


def files_below(folder: Path) -> Iterator[Path]:
    """Every visible file below a folder; links are followed, but no folder is entered twice."""
    waiting, entered = [folder], set()
    while waiting:
        current = waiting.pop()
        with _readable_errors(current):
            status = current.stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        for entry in _visible(current):
            if _is_folder(entry):
                waiting.append(Path(entry.path))
            else:
                yield Path(entry.path)


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden or of an operating system, by its name."""
    return _SYSTEM.fullmatch(name.casefold()) is not None


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones and those of operating systems."""
    return [entry for entry in _entries(folder) if not is_system(entry.name)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with _readable_errors(folder), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@contextmanager
def _readable_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResiduaError(
            f"The folder {folder} cannot be read: {reason_of(error)}. Make it readable, or "
            "move it out of the data set."
        ) from error


def _shown(root: Path, path: Path) -> str:
    """The path relative to the root with '/'; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _no_images(root: Path, scan: Scan) -> str:
    details = " ".join(scan.warnings) or "It contains no images at all."
    for path, reason in scan.rejected[:1]:
        details += (
            f" Unusable: {counted(len(scan.rejected), 'file')}, such as {path}, which {reason}."
        )
    details += _table_meant(root)
    return f"{root} contains no class folder with images. {details}\n{LAYOUT}"


def _table_meant(root: Path) -> str:
    """A sentence, after a space, that names the tables in the folder; "" without any."""
    tables = [entry.name for entry in _visible(root) if is_table(Path(entry.name))]
    if not tables:
        return ""
    if len(tables) == 1:
        return f" If {tables[0]} lists the images, give {root / tables[0]} as the data."
    shown = ", ".join(tables[:3]) + (", ..." if tables[3:] else "")
    return f" If a table in {root} ({shown}) lists the images, give its path as the data."
