"""(seed, epoch, sample) -> random numbers, as a pure function without any state.

The augmentation of an image therefore depends on no worker, batch, device or earlier draw. The
mixing
function is the finalizer of SplitMix64 (Steele et al. 2014, section 4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def uniform(
    seed: int, epoch: int, samples: Integers, count: int, stream: str
) -> npt.NDArray[np.float64]:
    """[B] sample indices -> [B, count] numbers in [0, 1), 53 bits each.

    stream: the purpose of the numbers; different streams are independent.
    """
    key = 0
    for word in (seed, epoch, int.from_bytes(stream.encode()[:8], "little"), len(stream)):
        key = int(_mix(np.array([(key + word + _GOLDEN) & _WORD], np.uint64))[0])
    rows = _mix(samples.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key))
    columns = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    words = _mix(rows[:, None] + columns[None, :])
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(seed: int, epoch: int, members: Integers) -> Integers:
    """The members in the order of this epoch: sorted by one random number each."""
    keys = uniform(seed, epoch, members, 1, "order")[:, 0]
    return members[np.lexsort((members, keys))]


def _mix(words: Words) -> Words:
    """SplitMix64's finalizer of each word; the multiplications wrap, as intended."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
