"""Published ImageNet accuracies of convolutional networks, and their costs as built here.

Accuracies are top-1 in per cent on the 50,000 validation images, for one centre crop of the row's
own size unless the source states otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from residua.config.schema import NetworkSpec
from residua.networks.analysis.cost import costs_of
from residua.networks.zoo import catalogue

TORCHVISION = "torchvision, IMAGENET1K_V1, acc@1"
KERAS = "keras.io/api/applications, the table of models"
SLIM = "TF-Slim's README, table of pre-trained models"
KRIZHEVSKY = "Krizhevsky et al. 2012, table 2, one CNN: 40.7 % error, mean over ten crops"
HOWARD = "Howard et al. 2017, table 8"

ALEXNET, VGG, INCEPTION, RESNET = "AlexNet", "VGG", "Inception", "ResNet"
RESNET_V2, RESNEXT, DENSENET, SEPARABLE = "ResNet v2", "ResNeXt", "DenseNet", "separable"
CONTRIBUTIONS = {  # of a family, from its paper
    ALEXNET: "ReLU, local response normalisation (left out in 2014), dropout and augmentation",
    VGG: "groups of 3x3 convolutions in place of large kernels",
    INCEPTION: "parallel branches of several kernel sizes, after 1x1 reductions",
    RESNET: "shortcuts, so that depth can be trained",
    RESNET_V2: "norm and ReLU before each convolution and an identity shortcut",
    RESNEXT: "many equal branches, as grouped convolutions",
    DENSENET: "feature reuse, since each layer reads all layers before it",
    SEPARABLE: "spatial and channel-wise convolutions, one after the other",
}
COMPARED = {  # the newer and the older network, if possible of one publisher
    VGG: ("vgg19", "vgg16"),
    INCEPTION: ("googlenet", "alexnet"),
    RESNET: ("resnet50", "vgg16"),
    RESNET_V2: ("keras_resnet152v2", "keras_resnet152"),
    RESNEXT: ("resnext50_32x4d", "resnet50"),
    DENSENET: ("densenet201", "resnet50"),
    SEPARABLE: ("keras_xception", "keras_inception_v3"),
}


@dataclass(frozen=True)
class PublishedAccuracy:
    """A published accuracy. name: a row of the catalogue, None for a network that it lacks.

    label: a short name, for figures. multiply_adds, parameters: as published, for a network that
    the catalogue lacks.
    """

    family: str
    name: str | None
    label: str
    accuracy: float
    source: str
    multiply_adds: int | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Point:
    """A published accuracy and the network's cost: multiply-adds of an image of `side` px.

    parameters: the trainable ones. linear: the fraction of them in linear layers; None, like
    `side`, for a network that the catalogue lacks.
    """

    published: PublishedAccuracy
    multiply_adds: int
    parameters: int
    linear: float | None
    side: int | None

    @property
    def label(self) -> str:
        """The network's short name."""
        return self.published.label

    @property
    def accuracy(self) -> float:
        """Top-1 in per cent."""
        return self.published.accuracy


ROWS: tuple[PublishedAccuracy, ...] = (
    PublishedAccuracy(ALEXNET, "alexnet_2012", "AlexNet 2012", 59.3, KRIZHEVSKY),
    PublishedAccuracy(ALEXNET, "alexnet", "AlexNet 2014", 56.522, TORCHVISION),
    PublishedAccuracy(VGG, "vgg11", "VGG-11", 69.020, TORCHVISION),
    PublishedAccuracy(VGG, "vgg13", "VGG-13", 69.928, TORCHVISION),
    PublishedAccuracy(VGG, "vgg16", "VGG-16", 71.592, TORCHVISION),
    PublishedAccuracy(VGG, "vgg19", "VGG-19", 72.376, TORCHVISION),
    PublishedAccuracy(INCEPTION, "googlenet", "GoogLeNet", 69.778, TORCHVISION),
    PublishedAccuracy(
        INCEPTION,
        None,
        "Inception V2",
        73.9,
        SLIM + "; its cost: visipedia/tf_classification, nets/README.md, 3.87 billion operations, "
        "which count a multiply-add twice",
        1_935_000_000,
        11_178_336,
    ),
    PublishedAccuracy(INCEPTION, "inception_v3", "Inception V3", 77.294, TORCHVISION),
    PublishedAccuracy(INCEPTION, "keras_inception_v3", "Inception V3, Keras", 77.9, KERAS),
    PublishedAccuracy(INCEPTION, "inception_v4", "Inception V4", 80.2, SLIM),
    PublishedAccuracy(RESNET, "resnet18", "ResNet-18", 69.758, TORCHVISION),
    PublishedAccuracy(RESNET, "resnet34", "ResNet-34", 73.314, TORCHVISION),
    PublishedAccuracy(RESNET, "resnet50", "ResNet-50", 76.130, TORCHVISION),
    PublishedAccuracy(RESNET, "resnet101", "ResNet-101", 77.374, TORCHVISION),
    PublishedAccuracy(RESNET, "resnet152", "ResNet-152", 78.312, TORCHVISION),
    PublishedAccuracy(RESNET, "wide_resnet50_2", "WRN-50-2", 78.468, TORCHVISION),
    PublishedAccuracy(RESNET, "keras_resnet152", "ResNet-152, Keras", 76.6, KERAS),
    PublishedAccuracy(RESNET_V2, "keras_resnet50v2", "ResNet-50 v2", 76.0, KERAS),
    PublishedAccuracy(RESNET_V2, "keras_resnet101v2", "ResNet-101 v2", 77.2, KERAS),
    PublishedAccuracy(RESNET_V2, "keras_resnet152v2", "ResNet-152 v2", 78.0, KERAS),
    PublishedAccuracy(RESNEXT, "resnext50_32x4d", "ResNeXt-50", 77.618, TORCHVISION),
    PublishedAccuracy(RESNEXT, "resnext101_32x8d", "ResNeXt-101", 79.312, TORCHVISION),
    PublishedAccuracy(DENSENET, "densenet121", "DenseNet-121", 74.434, TORCHVISION),
    PublishedAccuracy(DENSENET, "densenet169", "DenseNet-169", 75.600, TORCHVISION),
    PublishedAccuracy(DENSENET, "densenet201", "DenseNet-201", 76.896, TORCHVISION),
    PublishedAccuracy(DENSENET, "densenet161", "DenseNet-161", 77.138, TORCHVISION),
    PublishedAccuracy(SEPARABLE, "mobilenet_v1", "MobileNet", 70.6, HOWARD),
    PublishedAccuracy(SEPARABLE, "keras_xception", "Xception", 79.0, KERAS),
)


@cache
def point_of(row: PublishedAccuracy) -> Point:
    """The row with its cost, counted on a network without memory."""
    if row.name is None:
        return Point(row, row.multiply_adds or 0, row.parameters or 0, None, None)
    entry = catalogue.row(row.name)
    cost = costs_of(NetworkSpec(row.name, entry.classes, 3), entry.size)
    layers = [layer for layer in cost.layers if layer.kind.startswith("Linear")]
    linear = sum(layer.parameters for layer in layers) / cost.trainable
    return Point(row, cost.multiply_adds, cost.trainable, linear, entry.size)
