"""PyTorch's errors about memory and single images -> ResiduaError with advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from residua.config.schema import Config
from residua.errors import ResiduaError

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def readable_errors(config: Config) -> Iterator[None]:
    """Raise ResiduaError for what PyTorch reports about memory and batches of a single image."""
    training, size = config.training, config.preprocessing.size
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        message = str(error)
        if isinstance(error, MemoryError) or any(words in message for words in _NO_MEMORY):
            raise ResiduaError(
                f"there is not enough memory for {config.network.name} at {size} px with batch "
                f"size {training.batch_size}. Try --batch-size {max(2, training.batch_size // 2)}, "
                f"a smaller --size or another --model. ({(message.splitlines() or [''])[0]})"
            ) from error
        if "more than 1 value per channel" in message:
            raise ResiduaError(
                f"--batch-size {training.batch_size} leaves a batch of a single image, for which "
                "BatchNorm has no variance. Use a larger --batch-size, or more images."
            ) from error
        raise
