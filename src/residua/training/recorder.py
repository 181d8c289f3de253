"""What a step leaves behind besides better weights: bar, log, history, state and weight files."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor

from residua.config.schema import Config
from residua.data.batches import Inputs
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.runs.folder import Log, RunFolder
from residua.system.console import Console
from residua.system.signals import Interrupted, Signals
from residua.training.checkpoint import Learner
from residua.training.meter import Meter
from residua.training.optimization import rate_at
from residua.weights.native import Metadata

BEST_SECONDS = 2.0  # between two writings of the best weights, which short epochs would repeat
LOOK_SECONDS = 0.2  # between two movements of the bar, and on a GPU two looks at the loss


@dataclass(frozen=True)
class Task:
    """What a network is trained on.

    eval_splits: name -> sample indices; evaluated after each epoch. "validation" selects the best.
    class_counts: training images per class.
    metadata: what the weights files will say.
    cached_stages: frozen stages whose output the batches hold; 0: the batches hold images.
    deadline: time.monotonic() after which no new epoch begins.
    evaluate_first: evaluate before the first epoch too; the initial weights may be the best.
    """

    batches: Inputs
    eval_splits: Mapping[str, Integers]
    class_counts: list[int]
    metadata: Metadata
    cached_stages: int = 0
    deadline: float | None = None
    evaluate_first: bool = False


class Books(contextlib.AbstractContextManager["Books"]):
    """Keeps a training's books: says, logs and saves at the right moments, and obeys signals."""

    def __init__(
        self,
        learner: Learner,
        task: Task,
        config: Config,
        run: RunFolder,
        console: Console,
        signals: Signals,
        meter: Meter,
    ) -> None:
        self.learner, self.task, self.config, self.run = learner, task, config, run
        self.console, self.signals, self.meter = console, signals, meter
        self.progress = learner.progress
        self.open = contextlib.ExitStack()
        self.log = Log(run.path / "log.jsonl", self._step, learner.progress.epoch)
        self.open.callback(self.log.close)
        self.board: Any = None
        if config.training.tensorboard:
            folder = str(run.path / "tensorboard")
            self.board = tensorboard_writer()(folder, purge_step=learner.progress.epoch + 1)
            self.open.callback(self.board.close)
        self.saved = self.looked = self.counted = self.kept = self.ticked = time.monotonic()
        self.best: dict[str, Tensor] = {}  # the best weights that are not in their file yet
        self.best_epoch, self.best_written = 0, -math.inf
        self.longest = 0.0  # seconds between two ticks: what a save that waits may still lose
        self.images, self.learning = 0, 0.0  # of this epoch in this process; seconds for them
        self.since = self.saved  # when what is learnt next began

    def __enter__(self) -> Books:
        self.bar = self.open.enter_context(self.console.bar("training"))
        try:
            self._begin()
        except BaseException:
            self.open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._write_best()
        finally:
            self.open.close()

    def tick(self, learnt: int) -> None:
        """After each batch; `learnt` images were trained on, none while judging.

        Raises Interrupted after a signal, and Diverged on a loss that is not finite.
        """
        now = time.monotonic()
        if learnt:
            self.images, self.learning = self.images + learnt, self.learning + now - self.since
        if now - self.looked >= LOOK_SECONDS:
            self.looked = now
            self.meter.check()
            self._move_bar()
        if self.signals.received:
            self.save()
            self.log.write("interrupted", self._step)
            raise Interrupted(self.signals.received, str(self.run.path))
        self.longest = max(self.longest, now - self.ticked)
        self.ticked = self.since = now
        if now - self.saved + self.longest >= self.config.training.save_seconds:
            self.save()
            self.ticked = self.saved

    def save(self) -> None:
        """Write the state file; what is in it is all that a crash leaves."""
        self.meter.collect(self.learner.network.parameters())
        now = time.monotonic()
        self.progress.seconds += now - self.counted
        self.counted = now
        self._write_best()
        self.learner.save(self.run, self.task.metadata)
        self.saved = self.since = time.monotonic()

    def start(self, judged: Mapping[str, float]) -> None:
        """Keep what the training begins with as the best so far; it is epoch 0."""
        if self._improved(judged):
            self._hold_best(0)
        self.progress.best_epoch = self.learner.judge.position = 0
        figures = "  ".join(f"{name} {value:.4f}" for name, value in judged.items())
        self.console.print(f"before the first epoch  {figures}")
        self.since = time.monotonic()

    def end_epoch(self, judged: Mapping[str, float]) -> None:
        """Enter the epoch's row, keep the weights if they are the best, decide on going on."""
        self.meter.collect(self.learner.network.parameters())
        progress, now = self.progress, time.monotonic()
        row = {
            "epoch": progress.epoch + 1,
            "loss": progress.loss / progress.images,
            "accuracy": progress.correct / progress.images,
            **judged,
            "rate": rate_at(
                self.config.optimization,
                self._step - 1,
                self.task.batches.steps,
                self.config.training.epochs,
            ),
            "images_per_second": self._speed(),
            "seconds": progress.seconds + now - self.counted,
        }
        improved = self._improved(judged)
        patience = self.config.training.patience
        progress.stopped = bool(patience) and progress.waited >= patience
        late = self.task.deadline is not None and now > self.task.deadline
        progress.stopped |= late and progress.epoch + 1 < self.config.training.epochs
        progress.history.append(row)
        progress.epoch, progress.step = progress.epoch + 1, 0
        self.learner.judge.position = 0
        self.meter.reset()
        self._keep_weights(improved)
        self.run.write_history(progress.history)
        self.log.write("epoch", self._step, best=improved, **row)
        self._board_row(row)
        self.console.print(self._line(row, improved))
        if progress.stopped:
            reason = "the budget is used up" if late else f"no improvement for {patience} epochs"
            self.console.print(f"stopped after epoch {progress.epoch}: {reason}")
        self.images, self.learning, self.since = 0, 0.0, time.monotonic()

    def finish(self) -> None:
        """The last words of a training that reached its end."""
        self.save()
        self.log.write("end", self._step, best_epoch=self.progress.best_epoch)
        if self.signals.received:
            raise Interrupted(self.signals.received, str(self.run.path))

    @property
    def _step(self) -> int:
        return self.progress.epoch * self.task.batches.steps + self.progress.step

    def _begin(self) -> None:
        progress, network = self.progress, self.learner.network
        self.run.write_history(progress.history)
        total = sum(each.numel() for each in network.parameters())
        trained = sum(each.numel() for each in network.parameters() if each.requires_grad)
        self.console.print(
            f"{total:,} parameters: {trained:,} learn, {total - trained:,} are frozen"
        )
        statistics = self.config.training.precise_bn_images
        if statistics and self.learner.judge.has_norms:
            said = (
                "BatchNorm's running statistics lag behind; before each validation a copy gets "
                f"them anew from {min(statistics, len(self.task.batches.members)):,} training "
                "images (training.precise_bn_images)"
            )
            self.console.print(said)
            self.log.write("statistics", self._step, note=said)
        if progress.epoch or progress.step:
            self.console.print(f"goes on from epoch {progress.epoch + 1}, step {progress.step}")
            self.log.write("resumed", self._step)
        else:
            self.save()

    def _improved(self, judged: Mapping[str, float]) -> bool:
        """Compare with the best epoch so far; ties go to the other figure, then to the earlier."""
        if "val_accuracy" not in judged:
            return False
        loss = judged["val_loss"]
        figures = [judged["val_accuracy"], -loss if math.isfinite(loss) else -math.inf]
        if self.config.training.select == "loss":
            figures.reverse()
        progress = self.progress
        if progress.best is None or figures > progress.best:
            progress.best, progress.best_epoch, progress.waited = figures, progress.epoch + 1, 0
            return True
        progress.waited += 1
        return False

    def _keep_weights(self, improved: bool) -> None:
        training, epoch = self.config.training, self.progress.epoch
        state = self.learner.judge.network.state_dict()
        if improved:
            self._hold_best(epoch)
            if time.monotonic() - self.best_written >= BEST_SECONDS:
                self._write_best()
        names = []
        due = time.monotonic() - self.kept >= training.save_seconds
        due |= not (self.run.path / "last.safetensors").exists()  # weights that can be used early
        if due or self.progress.stopped or epoch == training.epochs:
            self.kept = time.monotonic()
            names.append("last.safetensors")
        if training.save_every and epoch % training.save_every == 0:
            names.append(f"epoch-{epoch:04}.safetensors")
        for name in names:
            self.run.write_weights(name, state, self._metadata(epoch))

    def _hold_best(self, epoch: int) -> None:
        """Keep the judged weights until they are written: the judge goes on with the next ones."""
        state = self.learner.judge.network.state_dict()
        self.best = {name: each.clone() for name, each in state.items()}
        self.best_epoch = epoch

    def _write_best(self) -> None:
        """Before anything that says which epoch is the best."""
        if self.best:
            self.run.write_weights("best.safetensors", self.best, self._metadata(self.best_epoch))
            self.best, self.best_written = {}, time.monotonic()

    def _metadata(self, epoch: int) -> Metadata:
        return dataclasses.replace(self.task.metadata, notes={"epoch": epoch})

    def _move_bar(self) -> None:
        progress = self.progress
        steps = self.task.batches.steps
        note = f"{self._speed():,.0f} images/s"
        if progress.images and not self.meter.unseen:
            loss = self.meter.loss.item() / progress.images
            accuracy = self.meter.correct.item() / progress.images
            note += f"  loss {loss:.4f}  accuracy {accuracy:.4f}"
        if progress.step == steps:
            note += "  validating"
        self.bar(
            self._step, steps * self.config.training.epochs, f"epoch {progress.epoch + 1}  {note}"
        )

    def _speed(self) -> float:
        """Images learnt a second, judging and saving not counted."""
        return self.images / max(self.learning, 1e-9)

    def _line(self, row: Mapping[str, float], improved: bool) -> str:
        parts = [f"epoch {int(row['epoch']):>3}/{self.config.training.epochs}"]
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"):
            if name in row:
                parts.append(f"{name} {row[name]:.4f}")
        parts.append(f"{row['images_per_second']:,.0f} images/s")
        return "  ".join(parts) + ("  *" if improved else "")

    def _board_row(self, row: Mapping[str, float]) -> None:
        if self.board is not None:
            for name, value in row.items():
                self.board.add_scalar(name, value, int(row["epoch"]))
            self.board.flush()


def tensorboard_writer() -> Any:
    """TensorBoard's writer class. Raises ResiduaError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ResiduaError(
            "TensorBoard is not installed: pip install tensorboard, or leave out "
            "--tensorboard; history.csv and log.jsonl hold the same numbers."
        ) from error
    return SummaryWriter
