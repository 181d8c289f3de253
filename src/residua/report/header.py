"""The data and settings of a run -> the lines that are printed before its training."""

from __future__ import annotations

from residua.config.schema import Config
from residua.data.prepared import Prepared
from residua.runs.folder import RunFolder
from residua.system.console import Console
from residua.system.device import environment
from residua.system.words import counted


def print_header(prepared: Prepared, folder: RunFolder, console: Console) -> None:
    """The data, the network and the settings that a user would want to know."""
    config, device = prepared.config, prepared.device
    console.print(prepared.summary)
    for note in prepared.notes:
        console.warn(note)
    for file, reason in prepared.unreadable:
        console.warn(f"{file} skipped: {reason}")
    name, size = environment(device)["device_name"], config.preprocessing.size
    console.print(
        f"model {config.network.name}, input {size} x {size} px, {config.training.precision} on "
        f"{device} ({name})"
    )
    strategy, budget = config.transfer.strategy, config.transfer.budget
    if strategy in ("none", "scratch") or (strategy in ("partial", "full") and not budget):
        console.print(f"{_schedule(config)}; {_augmentation(config)}")
    console.print(f"run folder: {folder.path}; automatic settings: choices.json")


def _schedule(config: Config) -> str:
    training, optimization = config.training, config.optimization
    return (
        f"{counted(training.epochs, 'epoch')}, batch size {training.batch_size}, "
        f"{optimization.optimizer} with lr {optimization.learning_rate:.3g} "
        f"({optimization.schedule} schedule)"
    )


def _augmentation(config: Config) -> str:
    augmentation = config.augmentation
    used = {
        "flip": augmentation.flip,
        "crop": augmentation.crop_padding,
        "shift": augmentation.shift,
        "rotation": augmentation.rotation,
        "shear": augmentation.shear,
        "zoom": augmentation.zoom != (1, 1),
        "colour jitter": augmentation.brightness or augmentation.contrast,
        "erasing": augmentation.erase,
        "mixup": augmentation.mixup,
        "cutmix": augmentation.cutmix,
    }
    names = ", ".join(name for name, is_used in used.items() if is_used)
    return f"augmentation: {names or 'none'}"
