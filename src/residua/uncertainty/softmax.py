"""Logits -> probabilities, or their logarithms, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """float [..., K] -> probabilities float64 [..., K]."""
    powers = np.exp(_shifted(logits))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """float [..., K] -> log of the probabilities, float64 [..., K]."""
    shifted = _shifted(logits)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _shifted(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Logits in float64 minus their maximum, so that exp cannot overflow; inf - inf gives NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))


def check_labels(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> None:
    """Raise ValueError unless labels int [N] in [0, K) fit logits or probabilities [N, K]."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"logits or probabilities {scores.shape}, labels {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} of {scores.shape[1]}")
