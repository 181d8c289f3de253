"""Weights, uint8 images and outputs -> heat maps of the evidence for these outputs.

Legend: N images, S side of the images, C channels, K classes, h and w of the last feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from residua.data.augmentation import normalise
from residua.data.dataset import Pixels
from residua.data.random import Integers
from residua.errors import ResiduaError
from residua.inference.engine import Floats
from residua.networks.own import is_own
from residua.networks.staged import Staged
from residua.networks.surgery.folding import fold_norms_
from residua.weights.load import Weights
from residua.weights.network import build_network

BATCH = 8
Explainer = Callable[[Pixels, Integers | None], tuple[Floats, Floats]]


def grad_cam(weights: Weights, device: torch.device) -> Explainer:
    """A function uint8 [N, S, S, C], outputs int64 [N] -> heat maps float32 [N, S, S] in [0, 1],
    and logits float32 [N, K]. Outputs None: of each image, the predicted one.

    The map is the positive part of the sum over channels of gradient x feature map, of the last
    map before the head, scaled to a maximum of 1; 0 everywhere without positive evidence. For a
    head that averages the map this is Grad-CAM (Selvaraju et al. 2017, equations 1 and 2). Other
    heads weight each place by itself, so its own gradient is used there (HiResCAM: Draelos and
    Carin 2020, section 3.3), where an average over all places could point to a wrong one. Where the
    head reads several maps, their sums are added on the grid of the finest one.

    Raises ResiduaError if the weights have no such map: an exported file, a network of the user's
    own, or a map of one pixel.
    """
    if weights.exported is not None:
        raise ResiduaError(
            f"{weights.path}: is an exported file, which has no gradients: explain the weights "
            "that it was exported from."
        )
    rule, name = weights.metadata.preprocessing, weights.metadata.network.name
    if is_own(name):
        raise ResiduaError(
            f"model {name}: is a network of your own, whose feature maps residua does not know, so "
            "there is no map of where its evidence is."
        )
    network = fold_norms_(build_network(weights, device), "fp32")

    def explain(pixels: Pixels, outputs: Integers | None) -> tuple[Floats, Floats]:
        heats, logits = [], []
        for start in range(0, len(pixels), BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + BATCH]))
            images = normalise(batch.to(device), rule)
            chosen = None if outputs is None else outputs[start : start + BATCH]
            heat, scores = _explain(network, images, chosen, name)
            heats.append(heat)
            logits.append(scores)
        return np.concatenate(heats), np.concatenate(logits)

    return explain


def _explain(
    network: Staged, images: Tensor, outputs: Integers | None, name: str
) -> tuple[Floats, Floats]:
    """Heat maps [B, S, S] and logits [B, K] of normalised images [B, C, S, S]."""
    with torch.no_grad():
        maps = [x.float() for x in network.head_maps(images, 0)]
    height, width = maps[0].shape[2:]
    if height * width == 1:
        raise ResiduaError(
            f"{name} reduces images of {images.shape[3]} px to a single position before its "
            "head, so there is no map of where its evidence is. Train with larger images "
            "(--size)."
        )
    with torch.enable_grad():
        maps = [x.clone().requires_grad_(True) for x in maps]
        logits = network.classify(network.pool(maps))
        chosen = (
            logits.argmax(1) if outputs is None else torch.from_numpy(outputs).to(logits.device)
        )
        gradients = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), maps)
    evidence = torch.zeros(len(images), 1, height, width, device=images.device)
    for x, gradient in zip(maps, gradients, strict=True):
        density = (gradient * x.detach()).sum(1, keepdim=True) * (x.shape[2] * x.shape[3])
        evidence += _resized(density, (height, width))
    heat = _resized(evidence.relu().nan_to_num(0, 0, 0), images.shape[2:])[:, 0]
    heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return heat.cpu().numpy(), logits.detach().cpu().numpy()


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[B, 1, h, w] -> [B, 1, H, W], bilinear."""
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
