"""residua's layer names -> those of torchvision, timm and pytorch_resnet_cifar10."""

from __future__ import annotations

from residua.weights.key_maps.key_map import BN, OURS, UNIT, KeyMap, Rules

_TORCHVISION: Rules = (
    BN,
    (r"stem\.(conv|bn)", "{0}1"),
    (UNIT + r"\.branch\.(conv|bn)(\d)", "layer{0:+1}.{1}.{2}{3}"),
    (UNIT + r"\.shortcut\.conv", "layer{0:+1}.{1}.downsample.0"),
    (UNIT + r"\.shortcut\.bn", "layer{0:+1}.{1}.downsample.1"),
)
_BASIC_END = (UNIT + r"\.branch\.end_bn", "layer{0:+1}.{1}.bn2")
_DEEP_END = (UNIT + r"\.branch\.end_bn", "layer{0:+1}.{1}.bn3")
_DEEP_STEM: Rules = (
    (r"stem\.conv1", "conv1.0"),
    (r"stem\.norm1", "conv1.1"),
    (r"stem\.conv2", "conv1.3"),
    (r"stem\.norm2", "conv1.4"),
    (r"stem\.conv3", "conv1.6"),
    (r"stem\.end_norm", "bn1"),
    (UNIT + r"\.shortcut\.conv", "layer{0:+1}.{1}.downsample.1"),  # behind its pool
    (UNIT + r"\.shortcut\.norm", "layer{0:+1}.{1}.downsample.2"),
)
_RESNETV2: Rules = (
    (UNIT + r"\.before\.norm", "stages.{0}.blocks.{1}.norm1"),
    (UNIT + r"\.branch\.conv(\d)", "stages.{0}.blocks.{1}.conv{2}"),
    (UNIT + r"\.branch\.norm(\d)", "stages.{0}.blocks.{1}.norm{2:+1}"),
    (UNIT + r"\.shortcut\.conv", "stages.{0}.blocks.{1}.downsample.conv"),
    (r"tail\.norm", "norm"),
    (r"head", "head.fc"),
)
_ALEXNET: Rules = (
    (r"stages\.0\.conv1", "features.0"),
    (r"stages\.1\.conv1", "features.3"),
    (r"stages\.2\.conv1", "features.6"),
    (r"stages\.2\.conv2", "features.8"),
    (r"stages\.2\.conv3", "features.10"),
    (r"head\.linear1", "classifier.1"),
    (r"head\.linear2", "classifier.4"),
    (r"head\.linear3", "classifier.6"),
)
_GOOGLENET: Rules = (
    (r"stages\.0\.blocks\.0\.branches\.0\.0\.(.*)", "conv1.{0}"),
    (r"stages\.1\.blocks\.0\.branches\.0\.1\.(.*)", "conv2.{0}"),
    (r"stages\.1\.blocks\.0\.branches\.0\.2\.(.*)", "conv3.{0}"),
    (r"stages\.([234])\.blocks\.(\d)\.(.*)", "inception{0:+1}{1:a-1}.{2}"),
    (r"(inception..)\.branches\.0\.0\.(.*)", "{0}.branch1.{1}"),
    (r"(inception..)\.branches\.([123])\.(.*)", "{0}.branch{1:+1}.{2}"),
    BN,
    (r"head", "fc"),
)
_INCEPTION_V3: Rules = (
    (r"stages\.0\.blocks\.0\.branches\.0\.0\.(.*)", "Conv2d_1a_3x3.{0}"),
    (r"stages\.0\.blocks\.0\.branches\.0\.1\.(.*)", "Conv2d_2a_3x3.{0}"),
    (r"stages\.0\.blocks\.0\.branches\.0\.2\.(.*)", "Conv2d_2b_3x3.{0}"),
    (r"stages\.1\.blocks\.0\.branches\.0\.1\.(.*)", "Conv2d_3b_1x1.{0}"),
    (r"stages\.1\.blocks\.0\.branches\.0\.2\.(.*)", "Conv2d_4a_3x3.{0}"),
    (r"stages\.2\.blocks\.(\d)\.(.*)", "Mixed_5{0:a}.{1}"),
    (r"stages\.3\.blocks\.(\d)\.(.*)", "Mixed_6{0:a}.{1}"),
    (r"stages\.4\.blocks\.(\d)\.(.*)", "Mixed_7{0:a}.{1}"),
    # 5b to 5d
    (r"(Mixed_5.)\.branches\.1\.(\d)\.(.*)", "{0}.branch5x5_{1:+1}.{2}"),
    (r"(Mixed_5.)\.branches\.2\.(\d)\.(.*)", "{0}.branch3x3dbl_{1:+1}.{2}"),
    # 6a, then 6b to 6e
    (r"(Mixed_6a)\.branches\.0\.0\.(.*)", "{0}.branch3x3.{1}"),
    (r"(Mixed_6a)\.branches\.1\.(\d)\.(.*)", "{0}.branch3x3dbl_{1:+1}.{2}"),
    (r"(Mixed_6.)\.branches\.1\.(\d)\.(.*)", "{0}.branch7x7_{1:+1}.{2}"),
    (r"(Mixed_6.)\.branches\.2\.(\d)\.(.*)", "{0}.branch7x7dbl_{1:+1}.{2}"),
    # 7a, then 7b and 7c with their split ends
    (r"(Mixed_7a)\.branches\.0\.(\d)\.(.*)", "{0}.branch3x3_{1:+1}.{2}"),
    (r"(Mixed_7a)\.branches\.1\.(\d)\.(.*)", "{0}.branch7x7x3_{1:+1}.{2}"),
    (r"(Mixed_7.)\.branches\.1\.1\.branches\.(\d)\.0\.(.*)", "{0}.branch3x3_2{1:a}.{2}"),
    (r"(Mixed_7.)\.branches\.2\.2\.branches\.(\d)\.0\.(.*)", "{0}.branch3x3dbl_3{1:a}.{2}"),
    (r"(Mixed_7.)\.branches\.1\.0\.(.*)", "{0}.branch3x3_1.{1}"),
    (r"(Mixed_7.)\.branches\.2\.(\d)\.(.*)", "{0}.branch3x3dbl_{1:+1}.{2}"),
    # in all of them
    (r"(Mixed_..)\.branches\.0\.0\.(.*)", "{0}.branch1x1.{1}"),
    (r"(Mixed_..)\.branches\.3\.1\.(.*)", "{0}.branch_pool.{1}"),
    BN,
    (r"head", "fc"),
)
_V4_LAST = r"(features\.(?:19|20|21))\.branches"
_INCEPTION_V4: Rules = (
    (r"stages\.0\.blocks\.0\.branches\.0\.(\d)\.(.*)", "features.{0}.{1}"),
    (r"stages\.1\.blocks\.0\.branches\.1\.0\.(.*)", "features.3.conv.{0}"),
    (r"stages\.1\.blocks\.1\.branches\.(\d)\.(.*)", "features.4.branch{0}.{1}"),
    (r"stages\.2\.blocks\.0\.branches\.0\.0\.(.*)", "features.5.conv.{0}"),
    (r"stages\.2\.blocks\.(\d)\.(.*)", "features.{0:+5}.{1}"),
    (r"stages\.3\.blocks\.(\d)\.(.*)", "features.{0:+10}.{1}"),
    (r"stages\.4\.blocks\.(\d)\.(.*)", "features.{0:+18}.{1}"),
    # the last three write underscores, and letters at split ends
    (_V4_LAST + r"\.([12])\.(\d)\.branches\.(\d)\.0\.(.*)", "{0}.branch{1}_{2}{3:a}.{4}"),
    (_V4_LAST + r"\.([12])\.(\d)\.(.*)", "{0}.branch{1}_{2}.{3}"),
    # a lone item has no number, but in block 18, whose first branch has two
    (r"(features\.18)\.branches\.0\.(.*)", "{0}.branch0.{1}"),
    (r"(features\.\d+)\.branches\.0\.0\.(.*)", "{0}.branch0.{1}"),
    (r"(features\.\d+)\.branches\.(\d)\.(.*)", "{0}.branch{1}.{2}"),
    BN,
    (r"head", "last_linear"),
)
_DENSE_LAYER = "features.denseblock{0:+1}.denselayer{1:+1}"
_DENSENET: Rules = (
    (r"stem\.(conv|norm)", "features.{0}0"),
    (r"stages\.(\d)\.layers\.(\d+)\.norm(\d)", _DENSE_LAYER + ".norm{2:+1}"),
    (r"stages\.(\d)\.layers\.(\d+)\.conv(\d)", _DENSE_LAYER + ".conv{2}"),
    (r"stages\.(\d)\.transition\.(conv|norm)", "features.transition{0}.{1}"),
    (r"tail\.norm", "features.norm5"),
    (r"head", "classifier"),
)
_XCEPTION: Rules = (
    (r"stem\.conv([12])", "conv{0}"),
    (r"stem\.norm1", "bn1"),
    (r"stem\.end_norm", "bn2"),
    (r"(.*)\.depthwise", "{0}.conv1"),
    (r"tail\.conv(\d)\.(.*)", "conv{0:+2}.{1}"),
    (r"tail\.norm1", "bn3"),
    (r"tail\.end_norm", "bn4"),
    (r"units\.(\d+)\.(.*)", "block{0:+1}.{1}"),
    (r"(block\d+)\.shortcut\.conv", "{0}.skip"),
    (r"(block\d+)\.shortcut\.norm", "{0}.skipbn"),
    # the first block has no leading ReLU, so that its numbers are one lower
    (r"block1\.branch\.conv1\.(.*)", "block1.rep.0.{0}"),
    (r"block1\.branch\.norm1", "block1.rep.1"),
    (r"block1\.branch\.conv2\.(.*)", "block1.rep.3.{0}"),
    (r"block1\.branch\.end_norm", "block1.rep.4"),
    (r"(block\d+)\.branch\.conv1\.(.*)", "{0}.rep.1.{1}"),
    (r"(block\d+)\.branch\.norm1", "{0}.rep.2"),
    (r"(block\d+)\.branch\.conv2\.(.*)", "{0}.rep.4.{1}"),
    (r"(block(?:2|3|12))\.branch\.end_norm", "{0}.rep.5"),
    (r"(block\d+)\.branch\.norm2", "{0}.rep.5"),
    (r"(block\d+)\.branch\.conv3\.(.*)", "{0}.rep.7.{1}"),
    (r"(block\d+)\.branch\.end_norm", "{0}.rep.8"),
)
_MOBILENET: Rules = (
    (r"stem\.conv", "conv_stem"),
    (r"stem\.norm", "bn1"),
    (UNIT + r"\.branch\.conv1", "blocks.{0}.{1}.conv_dw"),
    (UNIT + r"\.branch\.norm1", "blocks.{0}.{1}.bn1"),
    (UNIT + r"\.branch\.conv2", "blocks.{0}.{1}.conv_pw"),
    (UNIT + r"\.branch\.end_norm", "blocks.{0}.{1}.bn2"),
    (r"head", "classifier"),
)


# Inverted residual units: three convolutions, but in the first stage, which does not expand, two.
_EXPANDED = r"stages\.([1-9])\.units\.(\d+)\.branch"
_INVERTED: Rules = (
    (_EXPANDED + r"\.conv1", "blocks.{0}.{1}.conv_pw"),
    (_EXPANDED + r"\.conv2", "blocks.{0}.{1}.conv_dw"),
    (_EXPANDED + r"\.conv3", "blocks.{0}.{1}.conv_pwl"),
    (_EXPANDED + r"\.norm([12])", "blocks.{0}.{1}.bn{2}"),
    (_EXPANDED + r"\.end_norm", "blocks.{0}.{1}.bn3"),
    (r"tail\.conv", "conv_head"),
    (r"tail\.norm", "bn2"),
    *_MOBILENET,
)
_EFFICIENTNET_PYTORCH: Rules = (
    (r"stem\.conv", "_conv_stem"),
    (r"stem\.norm", "_bn0"),
    (r"units\.0\.branch\.conv1", "_blocks.0._depthwise_conv"),
    (r"units\.0\.branch\.norm1", "_blocks.0._bn1"),
    (r"units\.0\.branch\.conv2", "_blocks.0._project_conv"),
    (r"units\.(\d+)\.branch\.conv1", "_blocks.{0}._expand_conv"),
    (r"units\.(\d+)\.branch\.conv2", "_blocks.{0}._depthwise_conv"),
    (r"units\.(\d+)\.branch\.conv3", "_blocks.{0}._project_conv"),
    (r"units\.(\d+)\.branch\.norm([12])", "_blocks.{0}._bn{1:-1}"),
    (r"units\.(\d+)\.branch\.end_norm", "_blocks.{0}._bn2"),
    (r"tail\.conv", "_conv_head"),
    (r"tail\.norm", "_bn1"),
    (r"head", "_fc"),
)
_MOBILENET_V2: Rules = (
    (r"stem\.conv", "features.0.0"),
    (r"stem\.norm", "features.0.1"),
    (r"units\.0\.branch\.conv1", "features.1.conv.0.0"),
    (r"units\.0\.branch\.norm1", "features.1.conv.0.1"),
    (r"units\.0\.branch\.conv2", "features.1.conv.1"),
    (r"units\.0\.branch\.end_norm", "features.1.conv.2"),
    (r"units\.(\d+)\.branch\.conv([12])", "features.{0:+1}.conv.{1:-1}.0"),
    (r"units\.(\d+)\.branch\.norm([12])", "features.{0:+1}.conv.{1:-1}.1"),
    (r"units\.(\d+)\.branch\.conv3", "features.{0:+1}.conv.2"),
    (r"units\.(\d+)\.branch\.end_norm", "features.{0:+1}.conv.3"),
    (r"tail\.conv", "features.18.0"),
    (r"tail\.norm", "features.18.1"),
    (r"head", "classifier.1"),
)
TORCH_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        "torchvision",
        ("resnet18", "resnet34"),
        r"layer4\.",
        (*_TORCHVISION, _BASIC_END, (r"head", "fc")),
    ),
    KeyMap(
        "torchvision",
        ("resnet50", "resnet101", "resnet152", "resnext*", "wide_resnet50_2"),
        r"layer4\.",
        (*_TORCHVISION, _DEEP_END, (r"head", "fc")),
    ),
    KeyMap(
        "timm",
        ("resnet18d", "resnet34d"),
        r"conv1\.6",
        (*_DEEP_STEM, *_TORCHVISION, _BASIC_END, (r"head", "fc")),
    ),
    KeyMap(
        "timm",
        ("resnet50d",),
        r"conv1\.6",
        (*_DEEP_STEM, *_TORCHVISION, _DEEP_END, (r"head", "fc")),
    ),
    KeyMap(
        "pytorch_resnet_cifar10",
        tuple(f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110, 1202)),
        r"layer3\.\d+\.conv1",
        (*_TORCHVISION, _BASIC_END, (r"head", "linear")),
    ),
    KeyMap(
        "torchvision",
        ("vgg*",),
        r"classifier\.6",
        sequences=(("stages", "features"), ("head", "classifier")),
    ),
    KeyMap(
        "timm",
        ("vgg*",),
        r"pre_logits\.fc1",
        ((r"head\.linear3", "head.fc"), (r"head\.linear(\d)", "pre_logits.fc{0}")),
        sequences=(("stages", "features"),),
        convolutions=("head.linear1", "head.linear2"),
    ),
    KeyMap(
        "timm",
        ("preact_resnet50", "preact_resnet101", "preact_resnet152"),
        r"stages\.0\.blocks\.0\.conv3",
        _RESNETV2,
        unchanged=r"stem\.conv",
        convolutions=("head",),
    ),
    KeyMap("torchvision", ("alexnet", "alexnet_2012"), r"features\.10$", _ALEXNET),
    KeyMap("torchvision", ("googlenet",), r"inception3a\.", _GOOGLENET, ignored=r"aux[12]\."),
    KeyMap("torchvision", ("inception_v3",), r"Mixed_5b\.", _INCEPTION_V3, ignored=r"AuxLogits\."),
    KeyMap("timm", ("inception_v4",), r"features\.21\.branch", _INCEPTION_V4),
    KeyMap("torchvision", ("densenet*",), r"features\.denseblock1\.denselayer1\.norm1", _DENSENET),
    KeyMap(
        "torchvision of 2017",
        ("densenet*",),
        r"features\.denseblock1\.denselayer1\.norm\.1",
        (*_DENSENET, (r"(features\.denseblock\d\.denselayer\d+\.\w+?)(\d)", "{0}.{1}")),
    ),
    KeyMap("timm", ("xception",), r"block1\.rep\.0", (*_XCEPTION, (r"head", "fc"))),
    KeyMap("Cadene", ("xception",), r"last_linear", (*_XCEPTION, (r"head", "last_linear"))),
    KeyMap("timm", ("mobilenet_v1",), r"blocks\.0\.0\.conv_dw", _MOBILENET),
    KeyMap("timm", ("mobilenet_v2", "efficientnet_lite*"), r"blocks\.1\.0\.conv_pwl", _INVERTED),
    KeyMap(
        "efficientnet-lite-pytorch",
        ("efficientnet_lite*",),
        r"_blocks\.0\._depthwise_conv",
        _EFFICIENTNET_PYTORCH,
    ),
    KeyMap("torchvision", ("mobilenet_v2",), r"features\.18\.1", _MOBILENET_V2),
    # state dicts of our own networks, saved by their users
    KeyMap(OURS, ("*",), r"stages\.\d+\.(units|blocks|layers|conv)", unchanged=".*"),
)
