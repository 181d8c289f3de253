"""All settings as frozen dataclasses: their names, defaults, ranges and help; knows no torch.

A field whose default is AUTO may hold the word "auto" until `automatic.resolve` has replaced it by
a number; everything after that step reads plain numbers. A field with a `flag` is also an option of
`residua train`, with the same name, help and rules: there is one definition of each setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

AUTO: Any = "auto"
NONE = "none"  # --weights none: no weights, even where a recipe names some

Ordering = Literal[  # of the layers in a residual unit: He et al. 2016, figure 4 (a) to (e)
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
]
ORDERING_LETTERS: dict[str, Ordering] = dict(zip("abcde", get_args(Ordering), strict=True))


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    old_flag: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field with its help text, its inclusive range and, optionally, its command-line flag.

    old_flag: an earlier spelling of the flag, which is still accepted.
    """
    metadata = {"help": help, "flag": flag, "old_flag": old_flag, "low": low, "high": high}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Data:
    """Which images, and which of them train, validate and test."""

    path: str = setting("", "Folder, archive folder or the name of an embedded data set.")
    split: Literal["stratified", "keras"] = setting(
        "stratified",
        "How parts are drawn: 'stratified', or 'keras' for the files that Keras would pick.",
        flag="--split",
    )
    val_fraction: float = setting(
        AUTO,
        "Fraction of the images kept for validation.",
        flag="--val-fraction",
        low=0,
        high=0.9,
    )
    test_fraction: float = setting(
        0.0,
        "Fraction kept for a test that chooses nothing.",
        flag="--test-fraction",
        low=0,
        high=0.9,
    )
    split_seed: int = setting(
        0, "Seed of the split alone.", flag="--split-seed", low=0, high=2**32 - 1
    )
    unreadable: Literal["list", "fail"] = setting(
        "list", "What to do with files that cannot be read: list them or stop.", flag="--unreadable"
    )
    max_pixels: int = setting(
        100_000_000, "Images with more pixels than this are refused from their header.", low=1
    )
    cache: Literal["memory", "file"] = setting(
        AUTO, "Where decoded images wait: in memory, or in a file under the user's cache folder."
    )


@dataclass(frozen=True)
class Preprocessing:
    """The one way from an image to the network's input; stored with the weights.

    An image becomes uint8 [size, size, channels] by `resize` and `interpolation`; the network sees
    (x - mean) / std as float [channels, size, size], mean and std in units of 0..255, in channel
    order. With one channel the order says nothing.
    """

    size: int = setting(
        AUTO, "Side of the square network input, in pixels.", flag="--size", low=1, high=4096
    )
    channels: Literal[1, 3] = setting(AUTO, "3 for colour, 1 for grey.", flag="--channels")
    resize: Literal["crop", "squash", "pad"] = setting(
        AUTO,
        "'crop': shorter side and centre crop; 'squash': both sides; 'pad': longer side, on black.",
        flag="--resize",
    )
    crop: float = setting(
        AUTO, "Fraction of the shorter side that resize 'crop' keeps.", low=0.05, high=1
    )
    interpolation: Literal["nearest", "bilinear", "antialias", "bicubic"] = setting(
        AUTO,
        "'bilinear': TensorFlow's and OpenCV's, without antialias; 'antialias': Pillow's bilinear; "
        "'bicubic': Pillow's.",
    )
    channel_order: Literal["rgb", "bgr"] = setting(AUTO, "Order of the network's input channels.")
    mean: tuple[float, ...] = setting(AUTO, "Per channel, 0..255, in channel order.")
    std: tuple[float, ...] = setting(AUTO, "Per channel, 0..255, in channel order.")


@dataclass(frozen=True)
class Augmentation:
    """What training changes in an image: the values of ranges, all of them off at 0.

    Units follow Keras' ImageDataGenerator: shifts are fractions of the side, rotation and shear are
    degrees, zoom is the pair (low, high) of factors of the sampled window.
    """

    flip: bool = setting(AUTO, "Mirror left-right with probability 1/2.")
    crop_padding: int = setting(
        AUTO, "Pad by this many pixels, then crop at random (He 2015).", low=0
    )
    shift: float = setting(
        0.0, "Largest shift along each axis, as a fraction of the side.", low=0, high=1
    )
    rotation: float = setting(AUTO, "Largest rotation, degrees.", low=0, high=180)
    shear: float = setting(0.0, "Largest shear, degrees.", low=0, high=89)
    zoom: tuple[float, float] = setting(
        AUTO, "Range of the zoom; (1, 1) is none.", low=0.01, high=100
    )
    zoom_axes: Literal["each", "both"] = setting(
        "both", "'each' draws a zoom for each axis, as Keras does; 'both' keeps the aspect."
    )
    fill: Literal["nearest", "constant", "reflect"] = setting(
        "constant", "What lies outside the image; a constant is meant after normalisation."
    )
    fill_value: float = setting(0.0, "The constant, in normalised units.")
    brightness: float = setting(AUTO, "Largest relative change of brightness.", low=0, high=1)
    contrast: float = setting(AUTO, "Largest relative change of contrast.", low=0, high=1)
    saturation: float = setting(AUTO, "Largest relative change of saturation.", low=0, high=1)
    erase: float = setting(0.0, "Probability to erase a rectangle (Zhong 2017).", low=0, high=1)
    mixup: float = setting(0.0, "Alpha of mixup (Zhang 2017); 0 is off.", low=0)
    cutmix: float = setting(0.0, "Alpha of cutmix (Yun 2019); 0 is off.", low=0)


@dataclass(frozen=True)
class Network:
    """Which row of the catalogue, and what is changed in it."""

    name: str = setting(AUTO, "A name that `residua models` lists.", flag="--model")
    classes: int = setting(AUTO, "Width of the head; at least the number of classes.", low=1)
    ordering: Ordering | None = setting(  # noqa: RUF009 - it returns a field
        None, "Order of layers in a residual unit (He 2016, figure 4), or its letter a to e."
    )
    shortcut: Literal["none", "A", "B", "D"] | None = setting(
        None,
        "Shortcut where the shape changes; none is the plain network; null: as the model.",
    )
    cardinality: str | None = setting(
        None,
        "Groups of a bottleneck and the width of each in the first stage, such as 32x4d (Xie "
        "2017); null: as the model.",
    )
    head: str = setting(
        AUTO,
        "'default': the model's own; 'linear'; 'mlp:256' or 'mlp:4096,4096': with hidden layers; "
        "'logistic': a linear probe, its regularisation chosen by cross-validation.",
        flag="--head",
    )
    stage: int | None = setting(
        None, "Stage whose map another head reads, from 1; null: chosen, else the last.", low=1
    )
    pool_size: int | None = setting(
        None, "Side of the grid of means that another head reads; null: chosen, else 1.", low=1
    )
    weights: str = setting(
        "",
        "Weights to start from: a run, a file of residua, Keras or PyTorch, imagenet, or none.",
        flag="--weights",
    )
    new_head: bool = setting(
        False, "Replace the head of these weights by a fresh one.", flag="--new-head"
    )
    freeze: int = setting(
        0, "Stages that stay as the weights have them, from the first on.", flag="--freeze", low=0
    )


@dataclass(frozen=True)
class Transfer:
    """How weights that were learnt elsewhere are used (tutorial 3's four scenarios)."""

    strategy: Literal["none", "features", "partial", "full", "scratch", "auto"] = setting(
        "none",
        "'features': a head on the frozen network; 'partial': the first stages frozen; 'full': "
        "the head first, then everything; 'scratch': nothing of the weights; 'auto': measured.",
        flag="--transfer",
    )
    views: int = setting(
        0, "Augmented views of each image that features are taken of too.", flag="--views", low=0
    )
    budget: str = setting(
        "",
        "Time for all of it, such as 90s, 2m or 1h, anew for a resumed run; empty: no limit.",
        flag="--budget",
    )


@dataclass(frozen=True)
class Optimization:
    """How a gradient becomes a step."""

    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = setting(AUTO, "The rule of the step.")
    learning_rate: float = setting(AUTO, "Peak learning rate.", flag="--lr", low=0)
    momentum: float = setting(0.9, "Of SGD and RMSprop.", low=0, high=1)
    nesterov: bool = setting(True, "Look-ahead momentum for SGD.")
    weight_decay: float = setting(5e-4, "On kernels only, never on biases or norms.", low=0)
    schedule: Literal["constant", "steps", "cosine", "one_cycle", "inverse_time"] = setting(
        "cosine", "How the rate moves over the steps."
    )
    warmup_epochs: float = setting(AUTO, "Linear warm-up at the start.", low=0)
    steps: tuple[tuple[float, float], ...] = setting(
        (), "For 'steps': pairs of (epoch, factor of the largest rate from there on)."
    )
    decay: float = setting(0.0, "For 'inverse_time': rate / (1 + decay x step).", low=0)
    label_smoothing: float = setting(
        0.1, "Share of the target spread over all classes.", low=0, high=0.99
    )
    ema_decay: float = setting(
        0.0, "Decay of the averaged weights per step; 0 is off.", low=0, high=0.999999
    )
    layer_decay: float = setting(
        AUTO, "Factor of the rate for each stage further from the head.", low=0.01, high=1
    )
    clip_grad_norm: float = setting(0.0, "Largest norm of the gradient; 0 is off.", low=0)
    class_weights: Literal["none", "balanced"] = setting(
        AUTO, "'balanced' weighs each class by the inverse of its count."
    )


@dataclass(frozen=True)
class Training:
    """How long, how much at once, on what; and what is kept."""

    epochs: int = setting(AUTO, "Passes over the training part.", flag="--epochs", low=1)
    batch_size: int = setting(AUTO, "Batch size.", flag="--batch-size", old_flag="--batch", low=1)
    seed: int = setting(
        0,
        "Seed of initialisation, order and augmentation.",
        flag="--seed",
        low=0,
        high=2**32 - 1,
    )
    device: str = setting(AUTO, "cpu, cuda or cuda:N.", flag="--device")
    precision: Literal["fp32", "bf16"] = setting(
        AUTO, "fp32 or bf16 (autocast).", flag="--precision"
    )
    select: Literal["accuracy", "loss"] = setting(
        "accuracy", "The validation figure that chooses the best epoch."
    )
    patience: int = setting(
        0, "Stop after this many epochs without improvement; 0 is never.", low=0
    )
    max_images: int = setting(
        0, "Training images that take part, evenly chosen; 0: all of them.", low=0
    )
    precise_bn_images: int = setting(
        512,
        "Images that re-estimate BatchNorm's statistics before a validation; 0 is off.",
        low=0,
    )
    curve_test: bool = setting(
        False, "Record the test part each epoch, choosing nothing by it.", flag="--curve-test"
    )
    save_every: int = setting(
        0,
        "Save the weights of every N-th epoch; 0: off.",
        flag="--save-every",
        old_flag="--keep-every",
        low=0,
    )
    save_seconds: float = setting(
        15.0, "At most this much work is lost by a crash.", low=0, high=20
    )
    tensorboard: bool = setting(False, "Write TensorBoard events too.", flag="--tensorboard")


@dataclass(frozen=True)
class NetworkSpec:
    """One network in full: the arguments of `networks.zoo.catalogue.build`, stored with weights.

    classes: width of the head. head: None for the model's own, "linear" or "mlp:256"; stage and
    pool_size say what another head reads. None: as the model.
    """

    name: str
    classes: int
    channels: int
    ordering: str | None = None
    shortcut: str | None = None
    cardinality: str | None = None
    head: str | None = None
    stage: int | None = None
    pool_size: int | None = None


@dataclass(frozen=True)
class Config:
    """All settings of a run; `config.yaml` of a run folder is this, with no "auto" left."""

    data: Data = Data()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    transfer: Transfer = Transfer()
    optimization: Optimization = Optimization()
    training: Training = Training()

    @property
    def network_spec(self) -> NetworkSpec:
        """What `networks.zoo.catalogue.build` needs to build this network."""
        network = self.network
        head = {AUTO: None, "default": None, "logistic": "linear"}.get(network.head, network.head)
        letters = {None: None} | {name: letter for letter, name in ORDERING_LETTERS.items()}
        return NetworkSpec(
            network.name,
            network.classes,
            self.preprocessing.channels,
            letters[network.ordering],
            network.shortcut,
            network.cardinality,
            head,
            network.stage if head else None,
            network.pool_size if head else None,
        )
