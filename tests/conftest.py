"""Fixtures that several tests share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on two threads that others need too take far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def keras() -> Any:
    """Real Keras, if it is installed, and its networks by our names."""
    return pytest.importorskip("references.keras_networks")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real pictures beside the repository (../shared/data), which it must not contain."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real pictures in {folder}, which travel beside the repository")
    return folder
