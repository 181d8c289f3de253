"""Xception and MobileNet against their counts, real Keras and a plain reading of timm's networks.

What compares a network with Keras serves other families' tests too.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from references import torch_networks
from torch import Tensor, nn

from residua.networks.analysis.cost import smallest_input
from residua.networks.layers import PLAIN_NORM
from residua.networks.mobilenet import KERAS_MOBILENET, MOBILENET_V1
from residua.networks.xception import KERAS_XCEPTION, XCEPTION, XceptionUnit

BOUND = 1e-4  # of the largest value of what is compared, or of 1 if that is less
PLANS: dict[str, Any] = {
    "xception": XCEPTION,
    "keras_xception": KERAS_XCEPTION,
    "mobilenet_v1": MOBILENET_V1,
    "keras_mobilenet": KERAS_MOBILENET,
}


pytestmark = pytest.mark.usefixtures("one_thread")


# What every family is asked -----------------------------------------------------------------------


def count(plan: Any) -> tuple[int, int]:
    """Trainable parameters, and all of them with BatchNorm's statistics."""
    with torch.device("meta"):
        network = plan.build(1000, 3)
    trainable = sum(each.numel() for each in network.parameters())
    statistics = sum(each.numel() for each in network.buffers() if each.ndim)
    return trainable, trainable + statistics


def sides(plan: Any, size: int) -> list[int]:
    with torch.device("meta"):
        network = plan.build(10, 3).eval()
        return [each.shape[-1] for each in network.features(torch.empty(1, 3, size, size))]


def check_learning(plan: Any, size: int) -> None:
    """All parameters get a gradient, and training leaves the images alone."""
    torch.manual_seed(0)
    network, images = plan.build(4, 3), torch.randn(4, 3, size, size)
    before = images.clone()
    loss = F.cross_entropy(network(images), torch.tensor([0, 1, 2, 3]))
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses an unused one
    assert torch.equal(images, before)
    for name, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def check_torch_reading(name: str, plan: Any, size: int) -> None:
    """Logits and maps are those of the plain reading of a checkpoint with the published keys.

    Our modules are in the order of those files.
    """
    state = torch_networks.state_dict(name, classes=10)
    network = plan.build(10, 3).eval()
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = torch_networks.stages(name, state, images)
        expected.append(torch_networks.logits(name, state, images))
    assert max(errors(network, images, expected)) < BOUND


def lively(plan: Any, size: int) -> nn.Module:
    """A network whose norms hold the statistics of some images, shaken, and random factors."""
    torch.manual_seed(0)
    network: nn.Module = plan.build(10, 3)
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = None  # the first batch is all that counts
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
    with torch.no_grad():
        network(torch.randn(16, 3, size, size))
        for norm in norms:
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            mean += 0.2 * variance.sqrt() * torch.randn(len(mean))
            variance *= torch.empty(len(variance)).uniform_(0.5, 1.5)
            norm.momentum = momentum
    return network.eval()


def as_keras(network: nn.Module, name: str, size: int, keras: Any) -> Any:
    """Keras' network with our weights, layer by layer in the order in which Keras made its own.

    Both are lists: no name is read, so that a layer in another place is noticed.
    """
    made: list[Any] = []
    layer = keras.layers.Layer
    begin = layer.__init__

    def note(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "__init__", note)
        model = keras.build(name, 10, size)
    ours = [
        each.detach()
        for module in network.modules()
        for each in (*module.parameters(False), *module.buffers(False))
        if each.ndim
    ]
    for each in made:
        if isinstance(each, keras.keras.Model):
            continue
        shapes = [weight.shape for weight in each.get_weights()]
        each.set_weights([to_keras(ours.pop(0), shape) for shape in shapes])
    assert not ours
    return model


def to_keras(tensor: Tensor, shape: tuple[int, ...]) -> Any:
    """[outputs, inputs, height, width] -> [height, width, inputs, outputs], and so on."""
    if tensor.ndim == 4 and tensor.shape[1] == 1:  # depthwise: an output for each input
        tensor = tensor.permute(2, 3, 0, 1)
    elif tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 1, 0)
    elif tensor.ndim == 2:
        tensor = tensor.T[(None,) * (len(shape) - 2)]  # MobileNet's head is a 1x1 convolution
    assert tensor.shape == shape
    return tensor.numpy()


def beside_keras(
    name: str, plan: Any, size: int, keras: Any
) -> tuple[nn.Module, Tensor, list[Tensor]]:
    """Our network, images, and what Keras makes of them: its maps and its logits."""
    network = lively(plan, size)
    model = as_keras(network, name, size, keras)
    images = torch.randn(2, 3, size, size)
    logits, maps = keras.outputs(name, model, images.permute(0, 2, 3, 1).numpy())
    expected = [torch.from_numpy(each).permute(0, 3, 1, 2) for each in maps]
    return network, images, [*expected, torch.from_numpy(logits)]


def errors(network: Any, images: Tensor, expected: list[Tensor]) -> list[float]:
    """The largest difference in each map and the logits, relative to the largest value."""
    with torch.inference_mode():
        actual = [*network.features(images), network(images)]
    assert [each.shape for each in actual] == [each.shape for each in expected]
    return [
        ((one - other).abs().max() / other.abs().max().clamp(min=1)).item()
        for one, other in zip(actual, expected, strict=True)
    ]


def logits_error(network: nn.Module, images: Tensor, expected: list[Tensor]) -> float:
    """The same of the logits alone."""
    with torch.inference_mode():
        difference = network(images) - expected[-1]
    return (difference.abs().max() / expected[-1].abs().max().clamp(min=1)).item()


def check_keras(name: str, plan: Any, size: int, keras: Any) -> None:
    """Maps and logits are Keras', the head reads the last map, norms learn at Keras' pace."""
    network, images, expected = beside_keras(name, plan, size, keras)
    assert max(errors(network, images, expected)) < BOUND
    head: Any = network.head
    with torch.inference_mode():
        logits = head(F.adaptive_avg_pool2d(expected[-2], 1).flatten(1))
    torch.testing.assert_close(logits, expected[-1], rtol=1e-3, atol=1e-3)
    model = keras.build(name, 10, size)
    theirs = {1 - each.momentum for each in model.layers if hasattr(each, "momentum")}
    ours = {each.momentum for each in network.modules() if isinstance(each, nn.BatchNorm2d)}
    assert sorted(ours) == pytest.approx(sorted(theirs))


# Xception and MobileNet ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trainable", "total"),
    [
        ("xception", 22_855_952, None),
        ("keras_xception", 22_855_952, 22_910_480),
        ("mobilenet_v1", 4_231_976, None),
        ("keras_mobilenet", 4_231_976, 4_253_864),
    ],
)
def test_published_counts(name: str, trainable: int, total: int | None) -> None:
    counted = count(PLANS[name])
    assert counted[0] == trainable
    assert total in (None, counted[1])


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("xception", 299, [147, 74, 37, 19, 10]),  # figure 5 has 19 x 19 x 728 and 10 x 10 x 2048
        ("keras_xception", 299, [147, 74, 37, 19, 10]),
        ("mobilenet_v1", 224, [112, 56, 28, 14, 7]),  # table 1
        ("mobilenet_v1", 225, [113, 57, 29, 15, 8]),
        ("keras_mobilenet", 224, [112, 56, 28, 14, 7]),
        ("keras_mobilenet", 225, [113, 56, 28, 14, 7]),
    ],
)
def test_maps_are_at_strides_2_to_32(name: str, size: int, expected: list[int]) -> None:
    assert sides(PLANS[name], size) == expected


@pytest.mark.parametrize(
    ("name", "smallest"),
    [("xception", 7), ("keras_xception", 7), ("mobilenet_v1", 1), ("keras_mobilenet", 31)],
)
def test_any_classes_and_channels_at_the_smallest_size(name: str, smallest: int) -> None:
    with torch.device("meta"):
        network = PLANS[name].build(5, 1).eval()
        logits = network(torch.empty(2, 1, smallest, smallest))
    assert logits.shape == (2, 5)
    assert smallest_input(network) == smallest


@pytest.mark.parametrize("name", PLANS)
def test_learns(name: str) -> None:
    check_learning(PLANS[name], 71 if "xception" in name else 33)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("stride", "activated"), [(1, False), (2, False), (2, True)])
def test_a_unit_of_xception_leaves_its_input_alone(
    stride: int, activated: bool, training: bool
) -> None:
    unit = XceptionUnit(XCEPTION, 8, (12, 8), stride, activated).train(training)
    x = torch.randn(2, 8, 6, 6)
    before = x.clone()
    unit(x)
    assert torch.equal(x, before)


STATE = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
SEPARABLE = r"conv\d\.(depthwise|pointwise)"
KEYS = {  # of Xception, else of MobileNet
    True: r"(stem\.(conv1|norm1|conv2|end_norm)"
    rf"|stages\.[013]\.units\.0\.(shortcut\.(conv|norm)|branch\.({SEPARABLE}|norm1|end_norm))"
    rf"|stages\.2\.units\.\d\.(shortcut\.(conv|norm)|branch\.({SEPARABLE}|norm[12]|end_norm))"
    rf"|tail\.({SEPARABLE}|norm1|end_norm)|head)",
    False: r"(stem\.(conv|norm)"
    r"|stages\.\d\.units\.\d\.branch\.(conv1|norm1|conv2|end_norm)|head)",
}


@pytest.mark.parametrize("name", PLANS)
def test_checkpoint_keys(name: str) -> None:
    with torch.device("meta"):
        keys = PLANS[name].build(10, 3).state_dict()
    assert all(re.fullmatch(KEYS["xception" in name] + STATE, key) for key in keys)


@pytest.mark.parametrize(
    ("name", "size"),
    [("xception", 71), ("xception", 75), ("mobilenet_v1", 32), ("mobilenet_v1", 33)],
)
def test_is_the_network_of_timm(name: str, size: int) -> None:
    check_torch_reading(name, PLANS[name], size)


# 71 pixels: only odd maps are pooled; 75: an even one
@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("keras_xception", 71),
        ("keras_xception", 75),
        ("keras_mobilenet", 32),
        ("keras_mobilenet", 33),
    ],
)
def test_is_the_network_of_keras(name: str, size: int, keras: Any) -> None:
    check_keras(name, PLANS[name], size, keras)


@pytest.mark.filterwarnings("ignore:__array__", "ignore:The structure of `inputs`")
@pytest.mark.parametrize(
    ("name", "size", "wrong"),
    [
        ("keras_xception", 75, {"pool_padding": "symmetric"}),
        ("keras_xception", 75, {"norm": PLAIN_NORM}),
        ("keras_mobilenet", 32, {"keras_padding": False}),
        ("keras_mobilenet", 33, {"keras_padding": False}),
        ("keras_mobilenet", 32, {"norm": PLAIN_NORM}),
    ],
)
def test_a_planted_error_is_far_beyond_the_bound(
    name: str, size: int, wrong: dict[str, Any], keras: Any
) -> None:
    network, images, expected = beside_keras(name, PLANS[name], size, keras)
    other = dataclasses.replace(PLANS[name], **wrong).build(10, 3).eval()
    other.load_state_dict(network.state_dict())
    assert logits_error(other, images, expected) > 20 * BOUND


def test_dropout_of_mobilenet_is_keras(keras: Any) -> None:
    network: Any = KERAS_MOBILENET.build(10, 3)
    assert network.dropout.p == keras.build("keras_mobilenet", 10, 32).get_layer("dropout").rate
