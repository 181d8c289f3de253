"""Features of a frozen network: which layers, of which dimension, at which precision."""

from __future__ import annotations

import pytest
import torch
from references.weights_files import PREPARED

from residua.inference.feature_layers import FeatureLayer, FrozenStages, joint_layer, pooled_float32
from residua.networks.staged import pooled
from residua.networks.zoo import catalogue


def test_each_stage_has_its_finest_grid_and_the_last_one_also_a_mean() -> None:
    network = catalogue.build("cifar_resnet20", seed=0).eval()
    stages = FrozenStages(network, PREPARED, "fp32")
    layers = [FeatureLayer(1, 4), FeatureLayer(2, 4), FeatureLayer(3, 4), FeatureLayer(3, 1)]
    assert stages.layers(16, 3) == layers
    assert stages.layers(8, 3)[2:] == [FeatureLayer(3, 2), FeatureLayer(3, 1)]  # maps of 2 x 2
    widths = stages.dimensions(layers, 16, 16, 3)
    assert [widths[layer] for layer in layers] == [256, 512, 1024, 64]
    assert [str(layer) for layer in layers[2:]] == ["stage 3, 4 x 4", "stage 3"]


def test_the_later_half_of_the_stages_is_a_candidate_where_there_are_enough() -> None:
    layers = [*(FeatureLayer(stage, 4) for stage in (1, 2, 3)), FeatureLayer(4, 2)]
    assert joint_layer([*layers, FeatureLayer(5, 2), FeatureLayer(5, 1)]) == FeatureLayer(
        5, 1, (4, 2)
    )
    assert joint_layer(layers[:2]) is None
    assert str(joint_layer(layers[:3])) == "stages 2 and 3"
    assert str(FeatureLayer(7, 1, (2, 2, 2))) == "stages 4 to 7"


def test_several_stages_side_by_side_are_their_features_in_order() -> None:
    network = catalogue.build("cifar_resnet20", seed=0).eval()
    stages = FrozenStages(network, PREPARED, "fp32")
    joint = FeatureLayer(3, 1, (4, 2))
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    values = stages.features(x, [joint, FeatureLayer(2, 2)])
    maps = network.features(x)
    expected = torch.cat([pooled(y, size) for y, size in zip(maps, (4, 2, 1), strict=True)], 1)
    torch.testing.assert_close(values[joint], expected.detach(), rtol=1e-4, atol=1e-4)
    assert values[FeatureLayer(2, 2)].shape == (2, 128)


def test_features_are_pooled_maps_without_gradient() -> None:
    network = catalogue.build("cifar_resnet20", seed=0).eval()
    stages = FrozenStages(network, PREPARED, "fp32")
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    features = stages.features(x, [FeatureLayer(3, 1), FeatureLayer(1, 4)])
    with torch.inference_mode():
        for layer, values in features.items():
            expected = pooled(network.between(x, 0, layer.stage), layer.pool_size)
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
    assert not any(values.requires_grad for values in features.values())


@pytest.mark.parametrize(("length", "pool_size"), [(56, 4), (30, 2), (7, 1), (3, 2)])
def test_pooling_in_two_steps_weights_each_field_equally(length: int, pool_size: int) -> None:
    x = torch.rand(2, 8, length, length, generator=torch.Generator().manual_seed(1))
    for dtype, error in ((torch.float32, 1e-5), (torch.bfloat16, 2**-8)):
        maps = x.to(dtype)
        expected = pooled(maps.double(), pool_size)
        assert pooled_float32(maps, pool_size).dtype == torch.float32
        assert ((pooled_float32(maps, pool_size) - expected).abs() <= error * expected).all()
