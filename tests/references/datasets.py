"""Opening data in tests: the message of a refusal, the pixels of an entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from residua.data.dataset import Dataset
from residua.data.open import open_dataset
from residua.errors import ResiduaError


def refusal(data: Path) -> str:
    with pytest.raises(ResiduaError) as caught:
        open_dataset(str(data))
    return str(caught.value)


def pixels_of(dataset: Dataset, index: int, channels: int = 3, max_pixels: int = 100) -> np.ndarray:
    return dataset.pixels(index, dataset.content(index), channels, max_pixels)
