"""A network's config -> whether it counts, trains and computes as Keras' or timm's network does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from references import torch_networks
from residua.networks.analysis.shapes import on_meta

BOUND = 1e-4  # of the largest value compared, or of 1 if that is smaller
STATE = r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"


def count(config: Any) -> tuple[int, int]:
    """Trainable parameters, and all of them with BatchNorm's statistics."""
    with torch.device("meta"):
        network = config.build(1000, 3)
    trainable = sum(weight.numel() for weight in network.parameters())
    statistics = sum(tensor.numel() for tensor in network.buffers() if tensor.ndim)
    return trainable, trainable + statistics


def sides(config: Any, size: int) -> list[int]:
    with on_meta():
        network = config.build(10, 3).eval()
        return [tensor.shape[-1] for tensor in network.features(torch.empty(1, 3, size, size))]


def check_training(config: Any, size: int) -> None:
    """All parameters get a gradient, and training leaves the images alone."""
    torch.manual_seed(0)
    network, images = config.build(4, 3), torch.randn(4, 3, size, size)
    before = images.clone()
    loss = F.cross_entropy(network(images), torch.tensor([0, 1, 2, 3]))
    parameters = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()))  # refuses an unused one
    assert torch.equal(images, before)
    for name, gradient in zip(parameters, gradients, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def check_torch_reading(name: str, config: Any, size: int) -> None:
    """Logits and maps are those of the plain reading of a checkpoint with the published keys.

    Our modules are in the order of those files.
    """
    state = torch_networks.state_dict(name, classes=10)
    network = config.build(10, 3).eval()
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = torch_networks.stages(name, state, images)
        expected.append(torch_networks.logits(name, state, images))
    assert max(errors(network, images, expected)) < BOUND


def lively(config: Any, size: int) -> nn.Module:
    """A network whose norms hold the statistics of some images, shaken, and random factors."""
    torch.manual_seed(0)
    network: nn.Module = config.build(10, 3)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
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
        weight.detach()
        for module in network.modules()
        for weight in (*module.parameters(False), *module.buffers(False))
        if weight.ndim
    ]
    for layer in made:
        if isinstance(layer, keras.keras.Model):
            continue
        shapes = [weight.shape for weight in layer.get_weights()]
        layer.set_weights([to_keras(ours.pop(0), shape) for shape in shapes])
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


def errors(network: Any, images: Tensor, expected: list[Tensor]) -> list[float]:
    """The largest difference in each map and the logits, relative to the largest value."""
    with torch.inference_mode():
        actual = [*network.features(images), network(images)]
    assert [tensor.shape for tensor in actual] == [tensor.shape for tensor in expected]
    return [
        ((one - other).abs().max() / other.abs().max().clamp(min=1)).item()
        for one, other in zip(actual, expected, strict=True)
    ]


def check_keras(
    name: str, config: Any, size: int, keras: Any, planted: Iterable[Callable[[], nn.Module]]
) -> None:
    """Maps, logits and momenta are Keras', and the head pools the last map.

    planted: build networks with an error; their logits are far beyond the bound.
    """
    network = lively(config, size)
    model = as_keras(network, name, size, keras)
    images = torch.randn(2, 3, size, size)
    keras_logits, maps = keras.outputs(name, model, images.permute(0, 2, 3, 1).numpy())
    expected = [torch.from_numpy(tensor).permute(0, 3, 1, 2) for tensor in maps]
    expected.append(torch.from_numpy(keras_logits))
    assert max(errors(network, images, expected)) < BOUND
    head: Any = network.head
    with torch.inference_mode():
        logits = head(F.adaptive_avg_pool2d(expected[-2], 1).flatten(1))
    torch.testing.assert_close(logits, expected[-1], rtol=1e-3, atol=1e-3)
    theirs = {1 - layer.momentum for layer in model.layers if hasattr(layer, "momentum")}
    ours = {module.momentum for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert sorted(ours) == pytest.approx(sorted(theirs))
    for build in planted:
        wrong = build().eval()
        wrong.load_state_dict(network.state_dict())
        with torch.inference_mode():
            difference = (wrong(images) - expected[-1]).abs().max()
        assert difference > 20 * BOUND * expected[-1].abs().max().clamp(min=1), build
