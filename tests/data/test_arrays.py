"""Arrays become a data set with made-up paths; blocks that do not fit together are refused."""

from __future__ import annotations

import numpy as np
import pytest

from residua.data.arrays import array_dataset, checked_block
from residua.errors import ResiduaError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), np.uint8)
LABELS = np.arange(12) % 2


def test_splits_are_joined_in_order() -> None:
    blocks = {"train": (PIXELS[:10], LABELS[:10]), "test": (PIXELS[10:], LABELS[10:])}
    dataset = array_dataset("toy", "arrays", "IDX", ("a", "b"), blocks)
    paths = [(entry.path, entry.split, entry.label) for entry in dataset.entries]
    assert paths[0] == ("train/00", "train", 0)
    assert paths[-1] == ("test/01", "test", 1)
    assert dataset.content(11) == PIXELS[11].tobytes()
    header = dataset.header(0, dataset.content(0), 1)
    assert (header.width, header.height, header.mode) == (5, 4, "RGB")


def test_channels_are_converted_as_by_pillow() -> None:
    colour = array_dataset("toy", "", "", ("a", "b"), {None: (PIXELS, LABELS)})
    grey = colour.pixels(3, colour.content(3), 1, 100)
    np.testing.assert_allclose(grey[..., 0], PIXELS[3] @ [0.299, 0.587, 0.114], atol=0.51)
    one = array_dataset("toy", "", "", ("a", "b"), {None: (PIXELS[..., :1], LABELS)})
    assert (one.pixels(3, one.content(3), 3, 100) == PIXELS[3][..., :1]).all()


def test_a_selection_is_a_data_set_with_the_entries_renumbered() -> None:
    dataset = array_dataset("toy", "arrays", "IDX", ("a", "b"), {None: (PIXELS, LABELS)})
    selection = dataset.selected([7, 2])
    assert [entry.path for entry in selection.entries] == ["toy/07", "toy/02"]
    content = selection.content(1)
    assert content == PIXELS[2].tobytes()
    assert (selection.pixels(1, content, 3, 100) == PIXELS[2]).all()
    assert selection.header(1, content, 100) == dataset.header(2, content, 100)
    assert (selection.name, selection.classes) == ("toy", ("a", "b"))


def test_blocks_that_do_not_fit_are_refused() -> None:
    assert checked_block(PIXELS, LABELS, 2, "file")[1] is LABELS
    with pytest.raises(ResiduaError, match="12 images but 11 labels"):
        checked_block(PIXELS, LABELS[:-1], 2, "file")
    with pytest.raises(ResiduaError, match="labels from 0 to 0, found 0 to 1"):
        checked_block(PIXELS, LABELS, 1, "file")
    sizes = {"train": (PIXELS, LABELS), "test": (PIXELS[:, :3], LABELS)}
    for blocks in (sizes, {"train": (PIXELS[:0], LABELS[:0])}):
        with pytest.raises(ResiduaError, match="no images, or images of different sizes"):
            array_dataset("toy", "", "", ("a", "b"), blocks)
