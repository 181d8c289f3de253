"""A network's name -> that network in real Keras, random weights for it, its outputs as arrays."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers

from references.keras_tutorials import FUNCTIONAL, ResNet, ResnetBlock, vgg16_mnist

APPLICATIONS: dict[str, Callable[..., keras.Model]] = {
    "keras_resnet50": keras.applications.ResNet50,
    "keras_resnet101": keras.applications.ResNet101,
    "keras_resnet152": keras.applications.ResNet152,
    "keras_resnet50v2": keras.applications.ResNet50V2,
    "keras_resnet101v2": keras.applications.ResNet101V2,
    "keras_resnet152v2": keras.applications.ResNet152V2,
    "keras_vgg16": keras.applications.VGG16,
    "keras_vgg19": keras.applications.VGG19,
    "keras_xception": keras.applications.Xception,
    "keras_inception_v3": keras.applications.InceptionV3,
    "keras_densenet121": keras.applications.DenseNet121,
    "keras_densenet169": keras.applications.DenseNet169,
    "keras_densenet201": keras.applications.DenseNet201,
    "keras_mobilenet": keras.applications.MobileNet,
}
NAMES = (*FUNCTIONAL, "tutorial_resnet18", "tutorial_vgg16_mnist", *APPLICATIONS)
NUMBERED = (
    *("activation", "add", "average_pooling2d", "batch_normalization", "concatenate", "conv2d"),
    *("dense", "dropout", "flatten", "global_average_pooling2d", "input_layer", "lambda"),
    *("max_pooling2d", "res_net", "residual", "resnet_block", "zero_padding2d"),
)
LISTED = {
    "keras_inception_v3": ["mixed2", "mixed7", "mixed10"],
    "keras_mobilenet": [f"conv_pw_{block}_relu" for block in (1, 3, 5, 11, 13)],
}


def defaults(name: str) -> tuple[int, int, int]:
    """Classes, size and channels that a network's tutorial or Keras gives it."""
    if name in APPLICATIONS:
        return 1000, 299 if name in ("keras_xception", "keras_inception_v3") else 224, 3
    if name == "tutorial_resnet50":
        return 1000, 224, 3
    if name == "tutorial_resnet18":
        return 10, 224, 1
    if name == "tutorial_vgg16_mnist":
        return 10, 48, 3
    return (4, 224, 3) if "resnext" in name else (10, 32, 3)


def build(
    name: str, classes: int | None = None, size: int | None = None, *, start: int = 0
) -> keras.Model:
    """The network `name` in Keras: float32 [N, size, size, C] -> logits [N, classes].

    name: a keras_ or tutorial_ name of the catalogue; tutorial_resnext50_slices and _lambdas are
    the same network with 32 convolutions in place of a grouped one, and my_resnet_32 is
    tutorial_cifar_resnet32_e with swapped additions.
    start: number of layers of each class that Keras has numbered before, so that the first
    convolution with an automatic name is conv2d_<start>; 0 gives conv2d.
    """
    usual = defaults(name)
    classes, size, channels = classes or usual[0], size or usual[1], usual[2]
    keras.utils.clear_session()
    for kind in NUMBERED:
        for _ in range(start):
            keras.backend.get_uid(kind)
    shape = (size, size, channels)
    if name in APPLICATIONS:
        return APPLICATIONS[name](
            weights=None, classes=classes, input_shape=shape, classifier_activation=None
        )
    if name == "tutorial_vgg16_mnist":
        return vgg16_mnist(classes, size)
    if name == "tutorial_resnet18":
        model = ResNet([2, 2, 2, 2], classes)
        model(np.zeros((1, *shape), np.float32))  # a subclass has no weights before its first call
        return model
    inputs = keras.Input(shape)
    return keras.Model(inputs, FUNCTIONAL[name](inputs, classes))


def stages(name: str, model: keras.Model) -> list[str]:
    """Names of the layers whose outputs end the stages; the last one is what the head pools.

    Where the network is no chain of stages: the last outputs before the map is halved.
    """
    if name in LISTED:
        return LISTED[name]
    if isinstance(model, ResNet):
        return [layer.name for layer in model.layers if isinstance(layer, ResnetBlock)]
    if "vgg" in name:
        return [layer.name for layer in model.layers if isinstance(layer, layers.MaxPooling2D)]
    names = [layer.name for layer in model.layers]
    pools = [i for i, layer in enumerate(names) if "average_pool" in layer or layer == "avg_pool"]
    before_head = names[pools[-1] - 1]
    if "densenet" in name:
        return [*(names[names.index(f"pool{n}_bn") - 1] for n in (2, 3, 4)), before_head]
    last_additions = {  # by width
        layer.output.shape[-1]: index
        for index, layer in enumerate(model.layers)
        if isinstance(layer, layers.Add)
    }
    ends = [names[index + _behind_addition(name)] for index in last_additions.values()]
    return [*ends[:-1], before_head]


def _behind_addition(name: str) -> int:
    """Number of layers of a unit behind its addition."""
    if "cifar" in name or name == "my_resnet_32":
        return {"a": 1, "b": 2}.get(name[-1], 0)
    return int("v2" not in name and "xception" not in name)


def outputs(
    name: str, model: keras.Model, images: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [N, K] and the stages' maps [N, H, W, C] of images [N, H, W, C], in one forward."""
    if isinstance(model, ResNet):
        inputs = keras.Input(images.shape[1:])
        maps, x = [], inputs
        for layer in model.layers:
            x = layer(x)
            maps += [x] if isinstance(layer, ResnetBlock) else []
    else:
        inputs, x = model.inputs[0], model.outputs[0]
        maps = [model.get_layer(stage).output for stage in stages(name, model)]
    logits, *arrays = keras.Model(inputs, [x, *maps]).predict_on_batch(images)
    return logits, arrays


def images(name: str, count: int, size: int, seed: int = 0) -> np.ndarray:
    """float32 [count, size, size, C] for a network: random patches under noise, about -3 to 3.

    Noise alone averages out on the way to the logits, and its images would be alike.
    """
    generator = np.random.default_rng(seed)
    channels = defaults(name)[2]
    patches = generator.normal(0, 1, (count, 4, 4, channels))
    nearest = np.arange(size) * 4 // size
    noise = generator.normal(0, 0.5, (count, size, size, channels))
    return (patches[:, nearest][:, :, nearest] + noise).astype(np.float32)


def randomise(model: keras.Model, seed: int) -> None:
    """Fill every tensor in place, from NumPy's generator: no tensor stays at 0 or 1.

    Kernels are normal, he-scaled by their fan in; biases, beta and the moving mean normal, gamma
    uniform in 0.5 to 1.5, the moving variance in 0.3 to 1.5. Each addition of a residual network
    would multiply the activations by about 1.4, so its kernels shrink with the number of additions.
    """
    generator = np.random.default_rng(seed)
    gain = min(1.0, (2 / _additions(model)) ** 0.2)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.name
        if name == "gamma":
            value = generator.uniform(0.5, 1.5, shape)
        elif name == "moving_variance":
            value = generator.uniform(0.3, 1.5, shape)
        elif name in ("bias", "beta", "moving_mean"):
            value = generator.normal(0, 0.2, shape)
        else:
            depthwise = len(shape) == 4 and shape[-1] == 1
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            value = generator.normal(0, gain * np.sqrt(2 / fan_in), shape)
        variable.assign(value.astype(np.float32))


def _additions(model: keras.Model) -> int:
    if isinstance(model, ResNet):
        return sum(
            len(layer.listLayers) for layer in model.layers if isinstance(layer, ResnetBlock)
        )
    return max(1, sum(isinstance(layer, layers.Add) for layer in model.layers))
