"""Tutorial 2 in Keras 3 on TensorFlow, on a given split; run by benchmarks/features.py.

    python keras_frozen_head.py DATA SPLIT.csv RESNET50.weights.h5 [EPOCHS]

Needs keras, tensorflow and pillow, not residua. All layers of ResNet-50 are frozen, the head is
256, ReLU, dropout .5; 10 epochs (or EPOCHS) of batch 32 with the tutorial's augmentation as Keras
layers, the validation part judged after each; then the head is saved and the test part judged.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

MEANS = (103.939, 116.779, 123.68)


def main() -> None:
    data, split, weights, *rest = sys.argv[1:]
    epochs = int(rest[0]) if rest else 10
    with Path(split).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = sorted({row["class"] for row in rows})
    parts = {}
    for part in ("train", "validation", "test"):
        own = [row for row in rows if row["part"] == part]
        pixels = np.stack([read(Path(data) / row["path"]) for row in own])
        parts[part] = pixels, np.array([classes.index(row["class"]) for row in own])
    whole = keras.applications.ResNet50(weights=None, classes=3)
    whole.load_weights(weights)
    backbone = keras.Model(whole.input, whole.get_layer("conv5_block3_out").output)
    backbone.trainable = False
    augment = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(40 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            keras.layers.RandomZoom((-0.2, 0.2), (-0.2, 0.2), fill_mode="nearest"),
        ]
    )
    inputs = keras.Input((224, 224, 3))
    x = augment(inputs)
    x = x[..., ::-1] - tf.constant(MEANS)
    x = backbone(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(256, activation="relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    model = keras.Model(inputs, keras.layers.Dense(len(classes), activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        *parts["train"],
        batch_size=32,
        epochs=epochs,
        validation_data=parts["validation"],
        verbose=2,
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_weights(f"{folder}/head.weights.h5")
    found = model.predict(parts["test"][0], batch_size=32, verbose=0).argmax(1)
    accuracy = float((found == parts["test"][1]).mean())
    print(
        f"Keras {keras.__version__}, TensorFlow {tf.__version__}, float32, "
        f"{os.cpu_count()} threads: {epochs} epochs of tutorial 2 on the same files, test "
        f"accuracy {accuracy:.4f}"
    )


def read(file: Path) -> np.ndarray:
    image = Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.NEAREST)
    return np.asarray(image, np.float32)


if __name__ == "__main__":
    main()
