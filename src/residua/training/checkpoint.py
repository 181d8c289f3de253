"""A training between two steps <-> one file, from which it continues as if never interrupted.

The weights of the best, the last and every N-th epoch are written here too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from residua.errors import ResiduaError
from residua.runs.folder import BEST, LAST, RunFolder
from residua.system.signals import Interrupted, Signals
from residua.training.progress import Progress
from residua.weights.native import Metadata, read_weights

STATE = "state.safetensors"
BEST_SECONDS = 2.0  # at least, between two writes of the best weights


class Stateful(Protocol):
    """An object with a state: tensors by name, and the rest as plain data."""

    progress: Progress

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that training changes."""

    def load_state_dict(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore it, in place."""


class Checkpointer(contextlib.AbstractContextManager["Checkpointer"]):
    """Saves a training when it is due and after a signal, and restores it."""

    def __init__(
        self,
        trainer: Stateful,
        folder: RunFolder,
        metadata: Metadata,
        signals: Signals,
        save_seconds: float,
        save_every: int,
    ) -> None:
        """save_seconds: of work that a crash may lose. save_every: epochs; 0: off."""
        self.trainer, self.folder, self.metadata, self.signals = trainer, folder, metadata, signals
        self.save_seconds, self.save_every = save_seconds, save_every
        self.began = self.saved = self.stepped = self.last_written = time.monotonic()
        self.longest = 0.0  # seconds between two steps: what a postponed save may still lose
        self.best: dict[str, Tensor] = {}  # the best weights, until they are written
        self.best_epoch, self.best_written = 0, -math.inf

    def __exit__(self, *error: object) -> None:
        self.flush_best()

    def restore(self) -> None:
        """Load the state file, if there is one. Raises ResiduaError if it does not fit."""
        path = self.folder.path / STATE
        if path.exists():
            tensors, metadata = read_weights(path)
            with _fitting(path):
                self.trainer.load_state_dict(tensors, metadata.notes)
        self.began = time.monotonic() - self.trainer.progress.seconds

    @property
    def seconds(self) -> float:
        """Wall time of this training, over all processes."""
        return time.monotonic() - self.began

    def step(self) -> bool:
        """After each batch: save if it is due, and return whether it was.

        Raises Interrupted after a signal, when everything is saved.
        """
        if self.signals.received:
            self.save()
            raise Interrupted(self.signals.received, str(self.folder.path))
        now = time.monotonic()
        self.longest = max(self.longest, now - self.stepped)
        self.stepped = now
        if now - self.saved + self.longest < self.save_seconds:
            return False
        self.save()
        return True

    def save(self) -> None:
        """Write the state file: all that a crash leaves."""
        tensors, values = self.trainer.state_dict()
        values["progress"]["seconds"] = self.trainer.progress.seconds = self.seconds
        self.flush_best()
        metadata = dataclasses.replace(self.metadata, notes=values)
        self.folder.write_weights(STATE, tensors, metadata)
        self.saved = self.stepped = time.monotonic()

    def keep_best(self, network: nn.Module, epoch: int) -> None:
        """Remember the evaluated weights; short epochs would write them all the time."""
        self.best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.best_epoch = epoch

    def flush_best(self) -> None:
        """Write the pending best weights; must precede any file that names best_epoch."""
        if self.best:
            metadata = self._at_epoch(self.best_epoch)
            self.folder.write_weights(BEST, self.best, metadata)
            self.best, self.best_written = {}, time.monotonic()

    def end_epoch(self, network: nn.Module, improved: bool, is_last: bool) -> None:
        """Write the evaluated weights of an epoch where they are due."""
        epoch, now = self.trainer.progress.epoch, time.monotonic()
        if improved:
            self.keep_best(network, epoch)
            if now - self.best_written >= BEST_SECONDS:
                self.flush_best()
        is_due = now - self.last_written >= self.save_seconds
        names = []
        if is_due or is_last or not (self.folder.path / LAST).exists():  # usable weights early
            self.last_written = now
            names.append(LAST)
        if self.save_every and epoch % self.save_every == 0:
            names.append(f"epoch-{epoch:04}.safetensors")
        for name in names:
            self.folder.write_weights(name, network.state_dict(), self._at_epoch(epoch))

    def _at_epoch(self, epoch: int) -> Metadata:
        return dataclasses.replace(self.metadata, notes={"epoch": epoch})


def restore_network(network: nn.Module, folder: RunFolder) -> None:
    """Load the network of the state file alone. Raises ResiduaError if it does not fit."""
    path = folder.path / STATE
    tensors, _ = read_weights(path)
    with _fitting(path):
        network.load_state_dict(under("network.", tensors))


def under(prefix: str, items: Mapping[str, Any]) -> dict[str, Any]:
    """The items whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): item for key, item in items.items() if key.startswith(prefix)}


_WRONG_CONTENT = ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError


@contextlib.contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Turn errors about tensors that do not fit into a sentence that names the file."""
    try:
        yield
    except _WRONG_CONTENT as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ResiduaError(f"{path}: does not belong to this run: {first}.") from error
