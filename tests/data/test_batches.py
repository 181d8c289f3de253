"""Batches are a pure function of (seed, epoch, step), of nearly equal size, each image once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from residua.config.schema import Augmentation, Preprocessing
from residua.data.augmentation import OFF, draw_mixing, normalise
from residua.data.batches import DecodedImages, TrainingBatches, in_step, measure_colours

SIZE = 32
RAW = Preprocessing(
    size=SIZE,
    channels=3,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    crop=1.0,
    interpolation="antialias",
)


@pytest.fixture
def images() -> np.ndarray:
    """uint8 [6, 32, 32, 3], smooth as photos."""
    coarse = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    return (fine * 255).round().byte().permute(0, 2, 3, 1).numpy()


BUSY = Augmentation(
    flip=True,
    crop_padding=2,
    shift=0.1,
    rotation=20.0,
    shear=5.0,
    zoom=(0.8, 1.2),
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    erase=0.5,
    mixup=0.4,
    cutmix=1.0,
)


def batches_of(images: np.ndarray, members: np.ndarray, batch_size: int) -> TrainingBatches:
    labels = np.arange(6) % 3
    return TrainingBatches(
        DecodedImages(images, torch.device("cpu")),
        labels,
        members,
        classes=3,
        batch_size=batch_size,
        seed=11,
        preprocessing=RAW,
        augmentation=BUSY,
    )


def test_an_image_is_augmented_alike_in_any_batch(images: np.ndarray) -> None:
    """The augmentation of sample i in epoch e depends on (seed, e, i) alone, mixing included."""
    expected = {}
    for batch_size in (6, 4, 1):
        batches = batches_of(images, np.arange(6), batch_size)
        for step in range(batches.steps):
            batch = batches.batch(2, step)
            for row, sample in enumerate(batches.samples(2, step)):
                image, target = batch.images[row].numpy(), batch.targets[row].numpy()
                if batch_size == 6:
                    expected[sample] = image, target
                np.testing.assert_allclose(image, expected[sample][0], atol=1e-4)
                np.testing.assert_array_equal(target, expected[sample][1])
    again = batches_of(images, np.arange(6), 6).batch(3, 0).images
    first = batches_of(images, np.arange(6), 6).batch(2, 0).images
    assert not torch.allclose(again, first)


def test_every_image_once_an_epoch_in_nearly_equal_batches(images: np.ndarray) -> None:
    members = np.array([0, 2, 3, 5, 1])
    batches = batches_of(images, members, 2)
    seen = [batches.samples(0, step) for step in range(batches.steps)]
    assert sorted(np.concatenate(seen)) == sorted(members)
    assert {len(samples) for samples in seen} <= {1, 2}
    many = TrainingBatches(
        batches.decoded,
        np.zeros(452, np.int64),
        np.arange(452),
        classes=3,
        batch_size=8,
        seed=0,
        preprocessing=RAW,
        augmentation=OFF,
    )
    assert many.steps == 57  # as tutorial 0 prints
    assert {len(many.samples(0, step)) for step in range(57)} == {7, 8}


def test_labels_of_mixed_images_are_those_of_the_larger_share(images: np.ndarray) -> None:
    batch = batches_of(images, np.arange(6), 6).batch(0, 0)
    assert batch.targets.shape == (6, 3)
    assert torch.allclose(batch.targets.sum(1), torch.ones(6))
    assert torch.equal(batch.targets.argmax(1), batch.labels)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_weights_follow_their_images(images: np.ndarray, mixup: float) -> None:
    members = np.arange(len(images))
    weights = members + 1.0
    batches = batches_of(images, members, 4)
    assert batches.batch(0, 0).weights is None
    batches.weights = weights
    batches.augmentation = replace(OFF, mixup=mixup)
    samples = batches.samples(0, 1)
    found = batches.batch(0, 1).weights
    assert found is not None
    assert found.dtype == torch.float32
    mixing = draw_mixing(batches.augmentation, SIZE, batches.seed, 0, samples, members)
    expected = weights[samples]
    if mixing is not None:
        expected = mixing.share * expected + (1 - mixing.share) * weights[mixing.partner]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    assert (mixing is None) == (mixup == 0)


def test_a_gpu_copy_and_host_memory_give_the_same_pixels(images: np.ndarray) -> None:
    decoded = DecodedImages(images, torch.device("cpu"))
    samples = np.array([4, 0, 4])
    expected = decoded.take(samples)
    decoded.resident = torch.from_numpy(images)  # as on a GPU with enough memory
    assert torch.equal(decoded.take(samples), expected)
    assert torch.equal(expected, torch.from_numpy(images[samples]))


def test_evaluation_images_are_plain_and_in_order(images: np.ndarray) -> None:
    members = np.array([5, 1, 3])
    expected = normalise(torch.from_numpy(images[members]), RAW)
    assert torch.equal(batches_of(images, members, 2).plain(members), expected)


def test_steps_divide_an_epoch_evenly() -> None:
    order = np.arange(10)
    steps = [in_step(order, step, 4).tolist() for step in range(4)]
    assert steps == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


def test_colours_are_measured_on_the_members_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8)
    pixels[..., 2] = 7
    members = np.arange(0, 50, 3)
    mean, std = measure_colours(pixels, members)
    np.testing.assert_allclose(mean, pixels[members].mean((0, 1, 2)))
    np.testing.assert_allclose(std[:2], pixels[members].std((0, 1, 2))[:2])
    assert std[2] == 1.0
