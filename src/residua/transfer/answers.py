"""The weights that a way of learning has kept -> its answers, as fast as the machine can."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from residua.data.prepare import Prepared
from residua.data.random import Integers
from residua.runs.folder import RunFolder
from residua.transfer.features import Frozen
from residua.weights.load import read_file
from residua.weights.network import Logits, build_network

Answers = Callable[[Integers], Logits]  # [N] sample numbers -> logits [N, K]


def answers_of(folder: RunFolder, prepared: Prepared) -> Answers:
    """Logits of the kept weights, norms folded, in the training's precision; read when asked."""

    def answers(samples: Integers) -> Logits:
        network = build_network(read_file(folder.weights), prepared.device)
        frozen = Frozen(network, "", prepared.config, prepared.pixels, prepared.labels)
        found, stages = [], len(network.stages)
        for start in range(0, len(samples), frozen.batch):
            maps = frozen.maps(samples[start : start + frozen.batch], stages)
            with torch.inference_mode():
                found.append(network.classify(maps.float()).float().cpu().numpy())
        return np.concatenate(found)

    return answers
