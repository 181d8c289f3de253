"""residua's layer names -> those of keras.applications of any age, and of the tutorials."""

from __future__ import annotations

from residua.weights.key_maps.key_map import BN, UNIT, KeyMap, Rules

_KERAS_2018: Rules = (
    BN,
    (r"stem\.(conv|bn)", "conv1_{0}"),
    (UNIT + r"\.branch\.(conv|bn)(\d)", "conv{0:+2}_block{1:+1}_{3}_{2}"),
    (UNIT + r"\.branch\.end_bn", "conv{0:+2}_block{1:+1}_3_bn"),
    (UNIT + r"\.before\.bn", "conv{0:+2}_block{1:+1}_preact_bn"),
    (UNIT + r"\.shortcut\.(conv|bn)", "conv{0:+2}_block{1:+1}_0_{2}"),
    (r"tail\.bn", "post_bn"),
    (r"head", "predictions"),
)
_KERAS_2015: Rules = (
    (r"stem\.conv", "conv1"),
    (r"stem\.norm", "bn_conv1"),
    (UNIT + r"\.branch\.conv(\d)", "res{0:+2}{1:a}_branch2{2:a-1}"),
    (UNIT + r"\.branch\.norm(\d)", "bn{0:+2}{1:a}_branch2{2:a-1}"),
    (UNIT + r"\.branch\.end_norm", "bn{0:+2}{1:a}_branch2c"),
    (UNIT + r"\.shortcut\.conv", "res{0:+2}{1:a}_branch1"),
    (UNIT + r"\.shortcut\.norm", "bn{0:+2}{1:a}_branch1"),
    (r"head", "fc1000"),
)
_FIRST = r"stages\.(\d+)\.units\.0"
_TUTORIAL_0: Rules = (
    BN,
    (_FIRST + r"\.branch\.(conv|bn)(\d)", "{0:+2}a_conv_block_{1}{2}"),
    (_FIRST + r"\.branch\.end_bn", "{0:+2}a_conv_block_bn3"),
    (_FIRST + r"\.shortcut\.(conv|bn)", "{0:+2}a_conv_block_res_{1}"),
    (UNIT + r"\.branch\.(conv|bn)(\d)", "{0:+2}{1:a}_identity_block_{2}{3}"),
    (UNIT + r"\.branch\.end_bn", "{0:+2}{1:a}_identity_block_bn3"),
    (r"stem\.conv", "conv1"),
    (r"stem\.bn", "bn_conv1"),
    (r"head", "fc1000"),
)
_KERAS_XCEPTION: Rules = (
    (r"stem\.conv(\d)", "block1_conv{0}"),
    (r"stem\.norm1", "block1_conv1_bn"),
    (r"stem\.end_norm", "block1_conv2_bn"),
    (r"units\.(\d+)\.branch\.(.*)", "block{0:+2}.{1}"),
    (r"tail\.(.*)", "block14.{0}"),
    (r"(block\d+)\.conv(\d)", "{0}_sepconv{1}"),
    (r"(block\d+)\.norm(\d)", "{0}_sepconv{1}_bn"),
    (r"(block(?:2|3|4|13|14))\.end_norm", "{0}_sepconv2_bn"),
    (r"(block\d+)\.end_norm", "{0}_sepconv3_bn"),
    (r"head", "predictions"),
)
_KERAS_DENSENET: Rules = (
    BN,
    (r"stem\.(conv|bn)", "conv1_{0}"),
    (r"stages\.(\d)\.layers\.(\d+)\.(conv|bn)(\d)", "conv{0:+2}_block{1:+1}_{3}_{2}"),
    (r"stages\.(\d)\.transition\.(conv|bn)", "pool{0:+1}_{1}"),
    (r"tail\.bn", "bn"),
    (r"head", "predictions"),
)
_KERAS_MOBILENET: Rules = (
    (r"stem\.conv", "conv1"),
    (r"stem\.norm", "conv1_bn"),
    (r"units\.(\d+)\.branch\.conv1", "conv_dw_{0:+1}"),
    (r"units\.(\d+)\.branch\.norm1", "conv_dw_{0:+1}_bn"),
    (r"units\.(\d+)\.branch\.conv2", "conv_pw_{0:+1}"),
    (r"units\.(\d+)\.branch\.end_norm", "conv_pw_{0:+1}_bn"),
    (r"head", "conv_preds"),
)


def _vgg(first: str, last: str) -> Rules:
    """VGG's names, with these for its first and last dense layer."""
    return (
        (r"stages\.(\d)\.conv(\d)", "block{0:+1}_conv{1}"),
        (r"head\.linear1", first),
        (r"head\.linear2", "fc2"),
        (r"head\.linear3", last),
    )


_AUTOMATIC = r"(conv2d|convolution2d)(_\d+)?$"
_APPLICATIONS = "keras.applications"

KERAS_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        _APPLICATIONS,
        ("keras_resnet*",),
        r"conv2_block1_1_conv",
        _KERAS_2018,
        also=("tutorial_resnet50",),
        shortcut_first=True,
    ),
    KeyMap("tutorial 0", ("tutorial_resnet50",), r"2a_conv_block_conv1", _TUTORIAL_0),
    KeyMap(
        "Keras of 2015",
        ("tutorial_resnet50",),
        r"res2a_branch2a",
        _KERAS_2015,
        also=("keras_resnet50",),
    ),
    KeyMap(_APPLICATIONS, ("keras_vgg*",), r"block5_conv1$", _vgg("fc1", "predictions")),
    KeyMap("tutorial 3", ("tutorial_vgg16_mnist",), r"block5_conv1$", _vgg("fc1", "prediction")),
    KeyMap(
        "tutorial 1",
        ("tutorial_vgg19_cifar",),
        r"fc_cifa10$",
        _vgg("fc_cifa10", "predictions_cifa10"),
    ),
    KeyMap(_APPLICATIONS, ("keras_xception",), r"block2_sepconv1", _KERAS_XCEPTION),
    KeyMap(_APPLICATIONS, ("keras_densenet*",), r"conv2_block1_1_conv", _KERAS_DENSENET),
    KeyMap(
        _APPLICATIONS, ("keras_mobilenet",), r"conv_dw_1$", _KERAS_MOBILENET, convolutions=("head",)
    ),
    KeyMap(_APPLICATIONS, ("keras_inception_v3",), _AUTOMATIC, ((r"head", "predictions"),)),
    KeyMap(
        "automatic names",
        ("tutorial_cifar_resnet32*", "tutorial_cifar_resnet[15]*", "tutorial_resn*"),
        _AUTOMATIC,
    ),
    KeyMap("automatic names", ("tutorial_cifar_resnet34",), _AUTOMATIC, shortcut_first=True),
)
