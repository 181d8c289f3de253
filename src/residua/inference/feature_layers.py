"""Images -> the features of a frozen network after one or more of its stages, computed fast.

Legend: B batch, S side of the images, C channels, D features: C x pool_size x pool_size of a stage.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residua.config.schema import Preprocessing
from residua.data.augmentation import normalise
from residua.inference.engine import Floats, Job
from residua.networks.analysis.cost import measure
from residua.networks.side_by_side import SideBySide
from residua.networks.staged import Staged, pooled
from residua.networks.surgery.folding import fold_norms_, folded

FINE_FACTOR = 4  # a bf16 map is averaged to so many times the pool size before it is converted
MAX_FEATURES = 1024  # of a layer that is pooled to more than one field
POOL_SIZES = (4, 2)  # of such layers, the finest first


@dataclass(frozen=True, order=True)
class FeatureLayer:
    """The map after stage `stage` (from 1), average-pooled to pool_size x pool_size.

    earlier_pools: pool sizes of the stages before it whose features come first, in their order; see
    Staged.
    """

    stage: int
    pool_size: int
    earlier_pools: tuple[int, ...] = ()

    @property
    def parts(self) -> tuple[FeatureLayer, ...]:
        """A layer for each of its stages, the earliest first."""
        first = self.stage - len(self.earlier_pools)
        sizes = (*self.earlier_pools, self.pool_size)
        return tuple(FeatureLayer(first + index, size) for index, size in enumerate(sizes))

    def __str__(self) -> str:
        if self.earlier_pools:
            word = "and" if len(self.earlier_pools) == 1 else "to"
            return f"stages {self.parts[0].stage} {word} {self.stage}"
        grid = "" if self.pool_size == 1 else f", {self.pool_size} x {self.pool_size}"
        return f"stage {self.stage}{grid}"


def parts_of(layers: Sequence[FeatureLayer]) -> list[FeatureLayer]:
    """The layers of one stage that these consist of, sorted."""
    return sorted({part for layer in layers for part in layer.parts})


def joined(parts: Mapping[FeatureLayer, Floats], layer: FeatureLayer) -> Floats:
    """The features float32 [N, D] of a layer from those of its parts."""
    if not layer.earlier_pools:
        return parts[layer]
    return np.concatenate([parts[part] for part in layer.parts], axis=1)


def joint_layer(layers: Sequence[FeatureLayer]) -> FeatureLayer | None:
    """The later half of the stages side by side, pooled as in `layers`, the last one to one field;
    None of fewer than three stages.

    EfficientNet-Lite0's stages 4 to 7 had a lower cross-validated loss than any single stage on
    flowers5, CIFAR-10, photos of groceries and of rooms.
    """
    last = max(layer.stage for layer in layers)
    pools = {layer.stage: layer.pool_size for layer in layers}
    earlier = tuple(pools[stage] for stage in range(last // 2 + 1, last))
    return FeatureLayer(last, 1, earlier) if earlier else None


class FrozenStages:
    """The stages of a network on its device, with folded norms and without gradients."""

    def __init__(self, network: Staged, preprocessing: Preprocessing, precision: str) -> None:
        self.device = next(network.parameters()).device
        self.preprocessing, self.precision = preprocessing, precision
        self.original, self.network = network, fold_norms_(copy.deepcopy(network), precision)
        self.count = len(self.network.stages)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    @torch.inference_mode()
    def features(
        self, images: Tensor, layers: Sequence[FeatureLayer]
    ) -> dict[FeatureLayer, Tensor]:
        """Normalised images float [B, C, S, S] -> float32 [B, D] of each layer, on the CPU."""
        x, parts, stage = images.to(self.dtype), {}, 0
        for part in parts_of(layers):
            if part.stage > stage:
                x = self.network.between(x, stage, part.stage)
                stage = part.stage
            parts[part] = pooled_float32(x, part.pool_size).cpu()
        return {layer: _concatenated(parts, layer) for layer in layers}

    def job(self, layers: Sequence[FeatureLayer], weights_sha256: str) -> Job:
        """The features of `layers`, in order, as a job for an engine."""
        size, channels = self.preprocessing.size, self.preprocessing.channels

        def network(pixels: Tensor) -> list[Tensor]:
            features = self.features(self.normalised(pixels), layers)
            return [features[layer] for layer in layers]

        def plain() -> nn.Module:
            return LayerFeatures(folded(self.original), layers, self.preprocessing)

        return Job(
            network,
            functools.cache(plain),
            self.precision,
            self.device,
            lambda: repr((weights_sha256, tuple(layers), self.preprocessing, self.precision)),
            lambda: measure(self.original, (channels, size, size)).multiply_adds,
        )

    @torch.inference_mode()
    def map(self, images: Tensor, stages: int) -> Tensor:
        """Normalised images float [B, C, S, S] -> the map after `stages` stages, `dtype`."""
        return self.network.between(images.to(self.dtype), 0, stages)

    def normalised(self, pixels: Tensor) -> Tensor:
        """uint8 [B, S, S, C] -> what `features` and `map` take."""
        return normalise(pixels.to(self.device), self.preprocessing)

    def dimensions(
        self, layers: Sequence[FeatureLayer], height: int, width: int, channels: int
    ) -> dict[FeatureLayer, int]:
        """D of each layer, for images of this size."""
        x = torch.zeros(1, channels, height, width, device=self.device)
        features = self.features(x.contiguous(memory_format=torch.channels_last), layers)
        return {layer: values.shape[1] for layer, values in features.items()}

    def layers(self, size: int, channels: int) -> list[FeatureLayer]:
        """Layers of one stage worth comparing, for images of `size` px, from the first stage on.

        Of each stage: the finest pooling of POOL_SIZES with at most MAX_FEATURES features; of the
        last one also global average pooling, which the network itself was trained with. Of two
        networks side by side, also 2 x 2 pooling, whatever the number of features.
        """
        x = torch.zeros(1, channels, size, size, device=self.device, dtype=self.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        layers = []
        for stage in range(1, self.count + 1):
            with torch.inference_mode():
                x = self.network.between(x, stage - 1, stage)
            width, side = x.shape[1], min(x.shape[2:])
            fitting = [p for p in POOL_SIZES if p <= side and width * p**2 <= MAX_FEATURES]
            if fitting:
                layers.append(FeatureLayer(stage, fitting[0]))
            if stage == self.count or not fitting:
                layers.append(FeatureLayer(stage, 1))
        if isinstance(self.network.stages[0], SideBySide) and len(layers) == 1 and side > 1:
            layers.insert(0, FeatureLayer(1, POOL_SIZES[-1]))
        return layers


class LayerFeatures(nn.Module):
    """uint8 [B, S, S, C] -> float32 [B, D] of each layer, by a network in float32."""

    def __init__(
        self, network: Staged, layers: Sequence[FeatureLayer], preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.network, self.layers, self.preprocessing = network, layers, preprocessing

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x, stage = normalise(pixels, self.preprocessing), 0
        parts = {}
        for part in parts_of(self.layers):
            x, stage = self.network.between(x, stage, part.stage), part.stage
            parts[part] = pooled(x, part.pool_size)
        return tuple(_concatenated(parts, layer) for layer in self.layers)


def _concatenated(parts: Mapping[FeatureLayer, Tensor], layer: FeatureLayer) -> Tensor:
    """As `joined`, of tensors [B, D]."""
    if not layer.earlier_pools:
        return parts[layer]
    return torch.cat([parts[part] for part in layer.parts], 1)


def pooled_float32(x: Tensor, pool_size: int) -> Tensor:
    """`pooled` of x in float32. A bf16 map is averaged over finer fields first where these divide
    it, so that far fewer numbers are converted."""
    fine = FINE_FACTOR * pool_size
    if x.dtype == torch.bfloat16 and not any(length % fine for length in x.shape[2:]):
        x = F.adaptive_avg_pool2d(x, fine)
    return pooled(x.float(), pool_size)
