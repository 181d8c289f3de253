"""What publishers state of their networks, and how far ours are from an independent reading."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from references import torch_networks
from references.torch_files import AUXILIARY
from residua.weights.load import Weights
from residua.weights.network import build_network

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
BOUND = 1e-4  # of the largest logit, or of 1 if that is smaller

# torchvision's and timm's documentation; where timm states millions, inception_v4 and resnetNd,
# the tables of osmr/imgclsmob (as ResNet(A)), and for resnet34d fast.ai's xresnet34
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "resnet18d": 11_708_744,
    "resnet34d": 21_816_904,
    "resnet50d": 25_576_264,
    "preact_resnet50": 25_549_352,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "timm_vgg16": 138_357_544,
    "alexnet": 61_100_840,
    "googlenet": 6_624_904,
    "inception_v3": 23_834_568,
    "inception_v4": 42_679_816,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "mobilenet_v1": 4_231_976,
    "xception": 22_855_952,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet56": 853_018,
}

# side of the image, then width and side of maps that the sources state in comments and settings
MAPS = {
    "resnet18": (224, [(64, 56), (128, 28), (256, 14), (512, 7)]),
    "resnet50d": (224, [(256, 56), (512, 28), (1024, 14), (2048, 7)]),
    "preact_resnet50": (224, [(256, 56), (512, 28), (1024, 14), (2048, 7)]),
    "timm_vgg16": (224, [(64, 112), (128, 56), (256, 28), (512, 14), (512, 7)]),
    "alexnet": (224, [(64, 27), (192, 13), (256, 6)]),
    "densenet121": (224, [(256, 56), (512, 28), (1024, 14), (1024, 7)]),
    "googlenet": (224, [(64, 112), (192, 56), (480, 28), (832, 14), (1024, 7)]),
    "inception_v3": (299, [(64, 147), (192, 71), (288, 35), (768, 17), (2048, 8)]),
    "inception_v4": (299, [(64, 147), (160, 73), (384, 35), (1024, 17), (1536, 8)]),
    "xception": (299, [(128, 74), (256, 37), (728, 19), (2048, 10)]),
    "mobilenet_v1": (224, [(64, 112), (128, 56), (256, 28), (512, 14), (1024, 7)]),
    "cifar_resnet20": (32, [(16, 32), (32, 16), (64, 8)]),
}


def parameters(state: Mapping[str, Tensor]) -> int:
    """Number of a checkpoint's parameters, without auxiliary heads."""
    return sum(
        tensor.numel()
        for key, tensor in state.items()
        if not key.endswith(STATISTICS) and not key.startswith(AUXILIARY)
    )


def logits_distance(name: str, state: dict[str, Tensor], weights: Weights) -> float:
    """The largest difference between residua's logits and those of the independent reading, in
    units of the largest logit; for two images, one side even and one odd."""
    side = 32 if name.startswith("cifar") else 96
    x = torch.randn(2, 3, side, side + 1, generator=torch.Generator().manual_seed(3))
    expected = torch_networks.logits(name, state, x)
    with torch.inference_mode():
        logits = build_network(weights, torch.device("cpu"))(x)
    assert logits.dtype == torch.float32
    assert logits.shape == expected.shape
    largest = max(1.0, float(expected.abs().max()))
    assert float((expected[0] - expected[1]).abs().max()) > 1e-3 * largest, "the images are alike"
    return float((logits - expected).abs().max()) / largest
