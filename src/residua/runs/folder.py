"""The run folder on disk: the only interface between training and all later commands."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from residua.config import auto, parse
from residua.config.auto import Choice
from residua.config.schema import Config
from residua.data.dataset import SPLITS
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.runs.tracking import Trackers
from residua.system.files import (
    TEMPORARY,
    check_unused,
    csv_text,
    is_there,
    new_folder,
    reason_of,
    refuse_undecodable,
    short_name,
    unwritable,
    user_path,
    write_atomically,
)
from residua.weights.native import Metadata, to_bytes

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")

BEST, LAST = "best.safetensors", "last.safetensors"
SPLIT = "split.csv"  # the split and hashes of each image
REPORT = "report.html"  # the last file that a training writes
START = "weights.json"  # source and hash of the initial weights
TRANSFER = "transfer.json"  # measurements of a transfer strategy
EARLIER = "earlier_images.csv"  # images that the initial weights were trained on
LOCK = ".lock"
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
HISTORY = ("epoch", *METRICS, "learning_rate", "images_per_second", "seconds")  # history.csv

FIRST_FILES = (  # written before config.yaml
    "classes.json",
    "environment.json",
    SPLIT,
    "unreadable.csv",
    START,
    "preprocessing.json",
    "choices.json",
)
RENAMED_COLUMNS = {  # of the CSV files that version 0.1.0 wrote
    "rate": "learning_rate",
    "pictures_per_second": "images_per_second",
    "part": "split",
    "right": "correct",
}


class Busy(ResiduaError):  # noqa: N818 - it passes
    """Another process trains in this folder."""


class RunFolder:
    """Reads and writes the files of one run; every write is atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trackers: Trackers | None = None  # that record the run too

    @classmethod
    def existing(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The folder of an earlier run. Raises ResiduaError if it is not one."""
        folder = user_path(path)
        if not is_there(folder / "config.yaml"):
            what = "has no config.yaml" if folder.is_dir() else "is not a folder"
            if _is_unstarted(folder):
                raise ResiduaError(
                    f"{folder}: was interrupted before its training began, so there is nothing to "
                    f"resume. Train again; --out {folder} may be used."
                )
            raise ResiduaError(
                f"{folder}: {what}: expected a run folder, as `residua train` creates."
            )
        refuse_links(folder)
        return cls(folder)

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether a folder has the files by which a run is known."""
        return all((folder / name).is_file() for name in ("config.yaml", SPLIT))

    @classmethod
    def around(cls, file: Path) -> RunFolder | None:
        """The run in whose folder a file is; None if that is no run folder."""
        return cls.existing(file.parent) if cls.is_at(file.parent) else None

    @classmethod
    def new(cls, path: str | None, name: str) -> RunFolder:
        """An empty folder at `path`, or the next free runs/<name>-<n>. Raises ResiduaError."""
        if path is None:
            safe_name = short_name(re.sub(r"[^\w.-]+", "-", name) or "data")
            return cls(new_folder(Path("runs"), f"{safe_name}-"))
        cls.check_unused(path)
        return cls(new_folder(user_path(path)))

    @staticmethod
    def check_unused(path: str) -> None:
        """Raise ResiduaError unless `path` is free or an empty folder."""
        folder = user_path(path)
        refuse_undecodable(folder)
        if is_there(folder) and not _is_unstarted(folder):
            is_run = (folder / "config.yaml").exists()
            check_unused(folder, "the run", f"`residua resume {folder}` continues it." * is_run)

    def write_text(self, name: str, content: str | bytes) -> None:
        """Write one file of the run atomically."""
        write_atomically(self.path / name, content, self._resume_advice)

    def write_json(self, name: str, content: Any) -> None:
        """Write plain data as JSON atomically."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_text(name, text + "\n")

    def read_json(self, name: str, kind: type = object) -> Any:
        """Plain data of a JSON file of the run. kind: dict or list, if nothing else is expected.

        Raises ResiduaError that names the file.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ResiduaError(f"{path}: cannot be read: {reason_of(error)}.") from error
        if not isinstance(content, kind):
            raise self._damaged(name, f"a JSON {'list' if kind is list else 'object'}")
        return content

    def _damaged(self, name: str, expected: str) -> ResiduaError:
        return ResiduaError(
            f"{self.path / name}: is damaged: expected {expected}. Restore the file, or train "
            "again."
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the logits. Raises ResiduaError."""
        names = self.read_json("classes.json", list)
        if not names or not all(isinstance(name, str) for name in names):
            raise self._damaged("classes.json", "the names of the classes")
        return tuple(names)

    @property
    def config(self) -> Config:
        """The settings of the run, with no "auto" left in them."""
        return parse.read_yaml(self.path / "config.yaml")

    def write_settings(self, config: Config, choices: Iterable[Choice]) -> None:
        """config.yaml, choices.json (those with an effect) and preprocessing.json."""
        self.write_json("preprocessing.json", dataclasses.asdict(config.preprocessing))
        shown = auto.effective(config, choices)
        self.write_json("choices.json", [dataclasses.asdict(choice) for choice in shown])
        self.write_text("config.yaml", parse.to_yaml(config))

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The automatic settings with an effect, under their present names. Raises ResiduaError."""
        try:
            choices = [parse.typed(Choice, row) for row in self.read_json("choices.json", list)]
        except (OverflowError, TypeError, ValueError) as error:
            raise self._damaged("choices.json", f"setting, value and reason ({error})") from error
        return tuple(
            dataclasses.replace(choice, setting=parse.current_name(choice.setting))
            for choice in choices
        )

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do for `residua resume`."""
        return (self.path / REPORT).exists()

    @property
    def selected_on_validation(self) -> bool:
        """Whether the validation set was used for model selection; for a linear probe it is not."""
        config = self.config
        is_probe = config.transfer.strategy == "features" and config.network.head == "logistic"
        if not is_probe:
            return True
        if config.transfer.effort == "quick":
            return False
        # `auto` may have selected this strategy
        return any(choice.setting == "transfer.strategy" for choice in self.choices)

    @property
    def weights(self) -> Path:
        """The best weights, or the last without a validation set. Raises ResiduaError."""
        for name in (BEST, LAST):
            if (self.path / name).is_file():
                return self.path / name
        if self.is_finished:
            raise ResiduaError(f"{self.path}: {BEST} is missing: restore it, or train again.")
        raise ResiduaError(
            f"{self.path}: has no weights yet: its first epoch is not complete. "
            f"`residua resume {self.path}` continues it."
        )

    def write_split(self, members: Sequence[Member]) -> None:
        """split.csv: the split of each image."""
        rows = [dataclasses.astuple(member) for member in members]
        columns = ("path", "class", "split", "sha256", "pixels", "group")
        self.write_text(SPLIT, csv_text(columns, rows))

    def read_split(self) -> tuple[Member, ...]:
        """The lines of split.csv. Raises ResiduaError."""
        rows = self.read_csv(SPLIT, ("path", "class", "split", "sha256"))
        if any(None in row.values() or row["split"] not in SPLITS for row in rows):
            raise self._damaged(SPLIT, f"the split of each image, {', '.join(SPLITS)}")
        return tuple(
            Member(
                row["path"],
                row["class"],
                row["split"],  # type: ignore[arg-type]
                row["sha256"],
                row.get("pixels") or "",
                row.get("group") or "",
            )
            for row in rows
        )

    def images_used(self) -> set[str]:
        """Digests of the images that were used for training or model selection."""
        splits = ("train", "validation") if self.selected_on_validation else ("train",)
        members = (member for member in self.read_split() if member.split in splits)
        return {digest for member in members for digest in member.digests}

    def write_unreadable(self, reasons: Sequence[tuple[str, str]]) -> None:
        """unreadable.csv: (path, reason) of every skipped file."""
        self.write_text("unreadable.csv", csv_text(("path", "reason"), reasons))

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """history.csv: a line per epoch; empty columns are omitted."""
        columns = [name for name in HISTORY if any(name in row for row in history)]
        self.write_text(
            "history.csv",
            csv_text(columns, [[row.get(name, "") for name in columns] for row in history]),
        )

    def read_history(self) -> list[dict[str, float]]:
        """history.csv as numbers; empty before the first epoch is complete."""
        path = self.path / "history.csv"
        if not path.exists() or not path.read_bytes().strip():
            return []
        rows = self.read_csv("history.csv", ("epoch",))
        try:
            history = [{key: float(value) for key, value in row.items() if value} for row in rows]
        except (TypeError, ValueError) as error:
            raise ResiduaError(
                f"{self.path / 'history.csv'}: expected numbers: {error}. Restore the file, or "
                "train again."
            ) from error
        if [row.get("epoch") for row in history] != list(range(1, len(history) + 1)):
            raise self._damaged("history.csv", "the epochs 1, 2, 3, ...")
        return history

    def write_weights(self, name: str, tensors: Mapping[str, Tensor], metadata: Metadata) -> None:
        """A weights or state file with its metadata."""
        self.write_text(name, to_bytes(tensors, metadata))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder while a process trains in it; the system unlocks it when that is killed.

        Raises Busy if another process has locked it, ResiduaError where locking fails.
        """
        try:
            import fcntl
        except ImportError:  # not POSIX: no locking
            yield
            return
        path = self.path / LOCK
        with contextlib.ExitStack() as stack:
            try:
                # Neither followed, if it is a link, nor emptied
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(f"{self.path}: another process or thread trains in it.") from error
            except OSError as error:
                raise ResiduaError(f"{path}: cannot be locked: {error.strerror}.") from error
            for leftover in self.path.glob(f"{TEMPORARY}*"):  # of a killed process
                leftover.unlink(missing_ok=True)
            yield

    @property
    def _resume_advice(self) -> str:
        return f"`residua resume {self.path}` continues the run." * self.has_weights

    @property
    def has_weights(self) -> bool:
        """Whether any were saved."""
        return any((self.path / name).is_file() for name in (BEST, LAST))

    def discard_initial_weights(self) -> None:
        """Remove what is recorded of initial weights that were not used."""
        for name in (START, EARLIER):
            (self.path / name).unlink(missing_ok=True)

    def discard_untrained(self) -> None:
        """Remove the folder unless it has weights: of a run that was refused nothing remains."""
        if not self.has_weights:
            shutil.rmtree(self.path, ignore_errors=True)

    def read_csv(self, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
        """The rows of a CSV file of the run. Raises ResiduaError unless it has these columns."""
        path = self.path / name
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                rows = [current_columns(row) for row in reader]
                fields = reader.fieldnames or ()
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ResiduaError(f"{path}: cannot be read: {reason_of(error)}.") from error
        present = current_columns(dict.fromkeys(fields))
        missing = [name for name in columns if name not in present]
        if missing:
            raise ResiduaError(f"{path}: has no column {', '.join(missing)}.")
        return rows


class Log:
    """log.jsonl: a JSON object per line, flushed at once."""

    def __init__(self, path: Path, step: int, epochs: int) -> None:
        """Continue the log at `step`, after `epochs` complete epochs.

        Later lines belong to work that will be repeated; they are removed.
        """
        kept = []
        if path.exists():
            for line in path.read_text("utf-8", errors="replace").splitlines():
                # A line cut off by a crash, or something else
                with contextlib.suppress(KeyError, RecursionError, TypeError, ValueError):
                    row = json.loads(line)
                    ended = row["event"] == "epoch" and row["epoch"] > epochs
                    if row["step"] <= step and not ended:
                        kept.append(line + "\n")
        write_atomically(path, "".join(kept))
        self.stream: IO[str] = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, **facts: object) -> None:
        """Append an event; facts are plain values."""
        row = {"event": event, "step": step, **facts}
        try:
            self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            self.stream.flush()
        except OSError as error:
            raise unwritable(Path(self.stream.name), error) from error

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


def refuse_links(folder: Path) -> None:
    """Raise ResiduaError if a folder that may be received contains a link, a pipe or a device.

    Writing to it would change files elsewhere, and reading it could block. Hidden files are not
    read, but for the lock.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                continue
            if not name.startswith(".") or name == LOCK:
                raise ResiduaError(
                    f"{path}: is a link, a pipe or a device, which a run folder does not contain. "
                    "Replace it by the file itself, or remove it."
                )


def _is_unstarted(folder: Path) -> bool:
    """Whether a run was killed before it wrote config.yaml, the last of its first files."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return False
    unfinished = {name for name in names if name.startswith(TEMPORARY)}
    return {"classes.json", "environment.json"} <= names <= {*FIRST_FILES, *unfinished}


def current_columns(row: Mapping[str, _T]) -> dict[str, _T]:
    """A row of a CSV file under the names that its columns have now."""
    return {RENAMED_COLUMNS.get(name, name): value for name, value in row.items()}


def throughputs(history: Sequence[Mapping[str, float]]) -> list[float]:
    """Training images per second of each epoch, where it was measured."""
    speeds = (row.get("images_per_second", 0.0) for row in history)
    return [speed for speed in speeds if speed > 0]
