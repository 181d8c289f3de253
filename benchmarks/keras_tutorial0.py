"""What Keras' ResNet-50, trained as tutorial 0 trains it, reaches in the same minutes.

    python benchmarks/keras_tutorial0.py RUN --minutes 5

Tutorial 0 without the weights that it downloads: 224 px squashed by bilinear resize, raw pixels in
0..255, batch 8, Adam at 1e-3, no augmentation, Keras' BatchNorm. Keras runs on its PyTorch backend.
Training stops after the step in which the minutes are over; the run's test part is judged once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch

from residua.api.training import load
from residua.data.image import read_image


class Clock(keras.callbacks.Callback):
    """Ends the training when its time is up."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.end, self.steps = time.monotonic() + 60 * minutes, 0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self.steps += 1
        if time.monotonic() > self.end:
            self.model.stop_training = True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    run = load(options.run)
    squash = dataclasses.replace(
        run.preprocessing, size=224, resize="squash", interpolation="bilinear"
    )
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for row in run.folder.read_split():
        if row.split in parts:
            file = Path(run.config.data.path) / row.path
            parts[row.split].append(read_image(file, squash, 10**8))
            labels[row.split].append(run.classes.index(row.label))
    model = keras.applications.ResNet50(weights=None, classes=len(run.classes))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    clock = Clock(options.minutes)
    x, y = np.array(parts["train"]), np.array(labels["train"])
    while time.monotonic() < clock.end:
        model.fit(x, y, batch_size=8, epochs=1, callbacks=[clock], verbose=0)
    found = []
    for start in range(0, len(parts["test"]), 16):
        batch = np.array(parts["test"][start : start + 16])
        found.append(model.predict_on_batch(batch).argmax(1))
    accuracy = float((np.concatenate(found) == np.array(labels["test"])).mean())
    print(
        f"Keras {keras.__version__} (torch {torch.__version__}, {torch.get_num_threads()} threads) "
        f"ResNet-50 as tutorial 0, from scratch, {options.minutes:.2f} minutes: "
        f"{clock.steps} steps of 8 = {clock.steps * 8 / len(y):.2f} epochs, "
        f"test accuracy {accuracy:.4f} "
        f"({len(labels['test'])} images, split of {Path(options.run).name})"
    )


if __name__ == "__main__":
    main()
