"""A small network and random images of three classes, to train without a data set."""

from __future__ import annotations

import numpy as np
import torch

from residua.config.parse import with_settings
from residua.config.schema import Config, Preprocessing
from residua.data.augmentation import OFF
from residua.data.batches import DecodedImages, TrainingBatches
from residua.networks.staged import Staged
from residua.networks.zoo.catalogue import build_from
from residua.training.progress import Task
from residua.weights.native import Metadata

COUNT, SIDE, CLASSES = 48, 8, 3
CPU = torch.device("cpu")


def config_for(**settings: object) -> Config:
    """Settings of a short training without any "auto"; keywords: section__field."""
    fixed: dict[str, object] = {
        "network.name": "cifar_resnet14",
        "network.classes": CLASSES,
        "network.head": "linear",
        "network.stage": 1,
        "preprocessing.size": SIDE,
        "preprocessing.channels": 3,
        "optimization.optimizer": "sgd",
        "optimization.learning_rate": 0.05,
        "optimization.warmup_epochs": 0.0,
        "optimization.layer_decay": 1.0,
        "optimization.class_weights": "none",
        "training.epochs": 3,
        "training.batch_size": 12,
        "training.precision": "fp32",
        "training.precise_bn_images": 16,
    }
    given = {name.replace("__", "."): value for name, value in settings.items()}
    return with_settings(Config(), fixed | given)


def network_for(config: Config) -> Staged:
    return build_from(config.network_spec, seed=config.training.seed)


def task_for(config: Config, *, validation: bool = True, deadline: float | None = None) -> Task:
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % CLASSES
    pixels = generator.integers(0, 120, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    pixels[np.arange(COUNT), :4, :4, labels] = 255
    preprocessing = Preprocessing(
        size=SIDE,
        channels=3,
        resize="crop",
        crop=1.0,
        interpolation="antialias",
        channel_order="rgb",
        mean=(80.0,) * 3,
        std=(60.0,) * 3,
    )
    train, held_out = np.arange(36), np.arange(36, COUNT)
    batches = TrainingBatches(
        DecodedImages(pixels, CPU),
        labels,
        train,
        classes=CLASSES,
        batch_size=config.training.batch_size,
        seed=config.training.seed,
        preprocessing=preprocessing,
        augmentation=OFF,
    )
    return Task(
        batches,
        {"validation": held_out} if validation else {},
        np.bincount(labels[train]).tolist(),
        Metadata(config.network_spec, ("a", "b", "c"), preprocessing, {}),
        deadline=deadline,
    )
