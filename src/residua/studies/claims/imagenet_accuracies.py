"""Published ImageNet accuracies of convolutional networks, and their costs as built here.

Accuracies are top-1 in per cent on the 50,000 validation images, for one centre crop of the row's
own size unless the source states otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
class Point:
    """A published accuracy, and the network's cost once it is counted.

    name: a row of the catalogue, None for a network that it lacks; its cost is that published.
    label: a short name, for figures. accuracy: top-1 in per cent. multiply_adds: for an image of
    `side` px. parameters: the trainable ones. linear: the fraction of them in linear layers.
    """

    family: str
    name: str | None
    label: str
    accuracy: float
    source: str
    multiply_adds: int = 0
    parameters: int = 0
    linear: float | None = None
    side: int | None = None


ROWS: tuple[Point, ...] = (
    Point(ALEXNET, "alexnet_2012", "AlexNet 2012", 59.3, KRIZHEVSKY),
    Point(ALEXNET, "alexnet", "AlexNet 2014", 56.522, TORCHVISION),
    Point(VGG, "vgg11", "VGG-11", 69.020, TORCHVISION),
    Point(VGG, "vgg13", "VGG-13", 69.928, TORCHVISION),
    Point(VGG, "vgg16", "VGG-16", 71.592, TORCHVISION),
    Point(VGG, "vgg19", "VGG-19", 72.376, TORCHVISION),
    Point(INCEPTION, "googlenet", "GoogLeNet", 69.778, TORCHVISION),
    Point(
        INCEPTION,
        None,
        "Inception V2",
        73.9,
        SLIM + "; its cost: visipedia/tf_classification, nets/README.md, 3.87 billion operations, "
        "which count a multiply-add twice",
        1_935_000_000,
        11_178_336,
    ),
    Point(INCEPTION, "inception_v3", "Inception V3", 77.294, TORCHVISION),
    Point(INCEPTION, "keras_inception_v3", "Inception V3, Keras", 77.9, KERAS),
    Point(INCEPTION, "inception_v4", "Inception V4", 80.2, SLIM),
    Point(RESNET, "resnet18", "ResNet-18", 69.758, TORCHVISION),
    Point(RESNET, "resnet34", "ResNet-34", 73.314, TORCHVISION),
    Point(RESNET, "resnet50", "ResNet-50", 76.130, TORCHVISION),
    Point(RESNET, "resnet101", "ResNet-101", 77.374, TORCHVISION),
    Point(RESNET, "resnet152", "ResNet-152", 78.312, TORCHVISION),
    Point(RESNET, "wide_resnet50_2", "WRN-50-2", 78.468, TORCHVISION),
    Point(RESNET, "keras_resnet152", "ResNet-152, Keras", 76.6, KERAS),
    Point(RESNET_V2, "keras_resnet50v2", "ResNet-50 v2", 76.0, KERAS),
    Point(RESNET_V2, "keras_resnet101v2", "ResNet-101 v2", 77.2, KERAS),
    Point(RESNET_V2, "keras_resnet152v2", "ResNet-152 v2", 78.0, KERAS),
    Point(RESNEXT, "resnext50_32x4d", "ResNeXt-50", 77.618, TORCHVISION),
    Point(RESNEXT, "resnext101_32x8d", "ResNeXt-101", 79.312, TORCHVISION),
    Point(DENSENET, "densenet121", "DenseNet-121", 74.434, TORCHVISION),
    Point(DENSENET, "densenet169", "DenseNet-169", 75.600, TORCHVISION),
    Point(DENSENET, "densenet201", "DenseNet-201", 76.896, TORCHVISION),
    Point(DENSENET, "densenet161", "DenseNet-161", 77.138, TORCHVISION),
    Point(SEPARABLE, "mobilenet_v1", "MobileNet", 70.6, HOWARD),
    Point(SEPARABLE, "keras_xception", "Xception", 79.0, KERAS),
)


@cache
def counted(point: Point) -> Point:
    """The point with its cost, counted on a network without memory."""
    if point.name is None:
        return point
    entry = catalogue.row(point.name)
    cost = costs_of(NetworkSpec(point.name, entry.classes, 3), entry.size)
    layers = [layer for layer in cost.layers if layer.kind.startswith("Linear")]
    return replace(
        point,
        multiply_adds=cost.multiply_adds,
        parameters=cost.trainable,
        linear=sum(layer.parameters for layer in layers) / cost.trainable,
        side=entry.size,
    )
