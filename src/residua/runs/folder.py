"""The run folder on disk: the only bridge between training and everything that comes after it."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from residua.config import parse
from residua.config.schema import Config
from residua.data.split import Member
from residua.errors import ResiduaError
from residua.system.files import csv_text, write_atomically
from residua.weights.native import Metadata, to_bytes

if TYPE_CHECKING:
    from torch import Tensor

HISTORY = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "rate",
    "images_per_second",
    "seconds",
)


_HELD: set[Path] = set()  # locks of this process


class Busy(ResiduaError):  # noqa: N818 - it passes
    """Another process trains in a folder."""


class RunFolder:
    """Reads and writes the files of one run; every file appears whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run. Raises ResiduaError if it is none."""
        folder = Path(path).expanduser()
        if not (folder / "config.yaml").is_file():
            what = "has no config.yaml" if folder.is_dir() else "is no folder"
            raise ResiduaError(
                f"{folder}: {what}: expected a run folder as `residua train` makes it."
            )
        return cls(folder)

    @classmethod
    def new(cls, path: str | None, name: str) -> RunFolder:
        """An empty folder at `path`, or the next free runs/<name>-<n>. Raises ResiduaError."""
        if path is None:
            return cls(_next_free(Path("runs"), re.sub(r"[^\w.-]+", "-", name) or "data"))
        cls.refuse_used(path)
        folder = Path(path).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResiduaError(f"{folder}: cannot hold a run: {error.strerror}.") from error
        return cls(folder)

    @staticmethod
    def refuse_used(path: str) -> None:
        """Raise ResiduaError if there is something at `path` already."""
        folder = Path(path).expanduser()
        try:
            used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:
            raise ResiduaError(f"{folder}: cannot hold a run: {error.strerror}.") from error
        if used:
            raise ResiduaError(
                f"{folder}: is not empty: expected a new folder for the run. "
                f"`residua resume {folder}` goes on with an earlier one."
            )

    def write_text(self, name: str, content: str | bytes) -> None:
        """Write one file of the run atomically."""
        write_atomically(self.path / name, content)

    def write_json(self, name: str, content: Any) -> None:
        """Write plain data as JSON atomically."""
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        self.write_text(name, text + "\n")

    def read_json(self, name: str) -> Any:
        """Plain data of a JSON file of the run. Raises ResiduaError that names the file."""
        path = self.path / name
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ResiduaError(f"{path}: cannot be read: {error}.") from error

    @property
    def config(self) -> Config:
        """The settings of the run, with no "auto" left in them."""
        return parse.read_yaml(self.path / "config.yaml")

    @property
    def validation_chose(self) -> bool:
        """Whether a validation part chose an epoch or a way; not so for a head that was solved."""
        config = self.config
        solved = config.transfer.strategy == "features" and config.network.head == "logistic"
        if not solved:
            return True
        choices = self.read_json("choices.json")  # auto's choice from several ways is one
        return any(each["setting"] == "transfer.strategy" for each in choices)

    @property
    def weights(self) -> Path:
        """The best weights, or the last ones where no validation chose. Raises ResiduaError."""
        for name in ("best.safetensors", "last.safetensors"):
            if (self.path / name).is_file():
                return self.path / name
        raise ResiduaError(
            f"{self.path}: has no weights yet: its first epoch has not ended. "
            f"`residua resume {self.path}` goes on with it."
        )

    def write_split(self, members: Sequence[Member]) -> None:
        """split.csv: which image is in which part."""
        rows = [(each.path, each.label, each.split, each.sha256) for each in members]
        self.write_text("split.csv", csv_text(("path", "class", "part", "sha256"), rows))

    def read_split(self) -> list[Member]:
        """The lines of split.csv. Raises ResiduaError."""
        return [
            Member(row["path"], row["class"], row["part"], row["sha256"])  # type: ignore[arg-type]
            for row in self._read_csv("split.csv", ("path", "class", "part", "sha256"))
        ]

    def known(self) -> set[str]:
        """Contents, sha256, of the images that taught the run or chose what it keeps."""
        parts = ("train", "validation") if self.validation_chose else ("train",)
        return {each.sha256 for each in self.read_split() if each.split in parts}

    def write_predictions(
        self, name: str, rows: Sequence[tuple[str, str, str, float, bool]]
    ) -> None:
        """predictions.csv: path, class, predicted class, its probability, whether it is right."""
        columns = ("path", "class", "predicted", "probability", "right")
        self.write_text(
            name,
            csv_text(columns, [(*row[:3], f"{row[3]:.6f}", str(row[4]).lower()) for row in rows]),
        )

    def write_unreadable(self, reasons: Sequence[tuple[str, str]]) -> None:
        """unreadable.csv: (path, reason) of every file that was left out."""
        self.write_text("unreadable.csv", csv_text(("path", "reason"), reasons))

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """history.csv: one line an epoch, columns without any value left out."""
        columns = [name for name in HISTORY if any(name in row for row in history)]
        self.write_text(
            "history.csv",
            csv_text(columns, [[row.get(name, "") for name in columns] for row in history]),
        )

    def read_history(self) -> list[dict[str, float]]:
        """history.csv as numbers; an empty list before the first epoch has ended."""
        if not (self.path / "history.csv").exists():
            return []
        rows = self._read_csv("history.csv", ("epoch",))
        try:
            return [{key: float(value) for key, value in row.items() if value} for row in rows]
        except (TypeError, ValueError) as error:
            raise ResiduaError(
                f"{self.path / 'history.csv'}: expected numbers: {error}. Restore the file, or "
                "train anew."
            ) from error

    def write_weights(self, name: str, tensors: Mapping[str, Tensor], metadata: Metadata) -> None:
        """A weights or state file with its card."""
        self.write_text(name, to_bytes(tensors, metadata))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a process trains in this folder; the system lets go of it if that is killed.

        Raises Busy if another process holds it, and ResiduaError where nothing can be locked.
        """
        try:
            import fcntl
        except ImportError:  # not a POSIX system: nothing stops a second process there
            yield
            return
        path = self.path / ".lock"
        if (place := path.resolve()) in _HELD:  # by an outer part of the same training
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(path.open("w"))
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(f"{self.path}: another process trains in it now.") from error
            except OSError as error:
                raise ResiduaError(f"{path}: cannot be locked: {error.strerror}.") from error
            for leftover in self.path.glob(".*.*.*"):  # of a write that was killed
                leftover.unlink(missing_ok=True)
            _HELD.add(place)
            stack.callback(_HELD.discard, place)
            yield

    def _read_csv(self, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
        path = self.path / name
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                rows = list(reader)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ResiduaError(f"{path}: cannot be read: {error}.") from error
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ResiduaError(f"{path}: has no column {', '.join(missing)}.")
        return rows


class Log:
    """log.jsonl: one JSON object a line, on disk as soon as it is written."""

    def __init__(self, path: Path, step: int, epochs: int) -> None:
        """Continue the log of a training that stands at `step`, after `epochs` whole epochs.

        Lines from beyond belong to work that is done again.
        """
        kept = []
        if path.exists():
            for line in path.read_text("utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError):  # a line cut off by a crash
                    row = json.loads(line)
                    ended = row["event"] == "epoch" and row["epoch"] > epochs
                    if row["step"] <= step and not ended:
                        kept.append(line + "\n")
        write_atomically(path, "".join(kept))
        self.stream: IO[str] = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, **facts: object) -> None:
        """Append one event; facts are plain values."""
        row = {"event": event, "step": step, **facts}
        try:
            self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            self.stream.flush()
        except OSError as error:
            raise ResiduaError(
                f"{self.stream.name}: cannot be written: {error.strerror}."
            ) from error

    def close(self) -> None:
        """Let go of the file."""
        self.stream.close()


def speeds_of(history: Sequence[Mapping[str, float]]) -> list[float]:
    """Images a second of the epochs that learnt since the run was last gone on with."""
    return [row["images_per_second"] for row in history if row.get("images_per_second", 0) > 0]


def _next_free(parent: Path, name: str) -> Path:
    try:
        parent.mkdir(exist_ok=True)
        for number in range(1, 1_000_000):
            with contextlib.suppress(FileExistsError):  # also when another process was faster
                folder = parent / f"{name}-{number}"
                folder.mkdir()
                return folder
    except OSError as error:
        raise ResiduaError(f"{parent}: cannot hold a run: {error.strerror}.") from error
    raise ResiduaError(f"{parent}: holds a million runs of {name}.")
