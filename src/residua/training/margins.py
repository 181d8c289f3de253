"""Logits of training steps -> each image's margin, averaged over the epochs.

The margin is the logit of the label minus the largest other one. Of a wrong label it stays low, as
the images of the true class pull the other way (Pleiss et al. 2020, "Identifying mislabeled data
using the area under the margin ranking", section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from residua.data.batches import Batch
from residua.errors import ResiduaError
from residua.runs.folder import RunFolder
from residua.training.checkpoint import STATE
from residua.weights.native import read_weights

TOTAL, EPOCHS = "margins.total", "margins.epochs"  # names in the checkpoint


class Margins:
    """Sums over the steps, on the device. count: samples of the data set."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.total = torch.zeros(count, dtype=torch.float64, device=device)
        self.epochs = torch.zeros(count, dtype=torch.int64, device=device)

    def add(self, batch: Batch, logits: Tensor) -> None:
        """A step's logits [B, K]; of mixed images nothing, as they have two labels."""
        if batch.targets.is_floating_point() or logits.shape[1] < 2:
            return
        labels = batch.labels[:, None]
        own = logits.gather(1, labels)
        other = logits.scatter(1, labels, -torch.inf).amax(1, keepdim=True)
        samples = torch.from_numpy(batch.samples).to(logits.device)
        self.total.index_add_(0, samples, (own - other)[:, 0].double())
        self.epochs.index_add_(0, samples, torch.ones_like(samples))

    def state_dict(self) -> dict[str, Tensor]:
        """Both sums, by their names in the checkpoint."""
        return {TOTAL: self.total, EPOCHS: self.epochs}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore both sums; checkpoints of version 0.1.0 have none."""
        if TOTAL in tensors:
            self.total.copy_(tensors[TOTAL])
            self.epochs.copy_(tensors[EPOCHS])


def recorded_margins(folder: RunFolder) -> npt.NDArray[np.float64] | None:
    """The mean margin of each sample of the data set, float64 [N]; NaN of those that were not
    trained on. None of a run without training steps, or whose checkpoint cannot be read."""
    path = folder.path / STATE
    if not path.exists():
        return None
    try:
        tensors, _ = read_weights(path)
    except ResiduaError:
        return None
    if TOTAL not in tensors:
        return None
    total, epochs = tensors[TOTAL].double().numpy(), tensors[EPOCHS].numpy()
    means = np.full(len(total), np.nan)
    means[epochs > 0] = total[epochs > 0] / epochs[epochs > 0]
    return means
