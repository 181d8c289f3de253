"""All settings as frozen dataclasses: names, defaults, ranges and help texts; without torch.

A field whose default is AUTO may be "auto" until `config.auto` has replaced it by a value; later
code reads plain values only. A field with a `flag` is also an option of `residua train`, with the
same help text and rules: each setting is defined once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

AUTO: Any = "auto"
NONE = "none"  # --weights none: no weights, even if a recipe names some
IMAGENET = "imagenet"  # --weights imagenet: installed with residua; imagenet:NAME: published
HUB = "hub"  # --weights hub:OWNER/NAME: a repository of Hugging Face
JOINER = "+"  # --weights A+B: two networks side by side, and the model's name NAME+NAME

Ordering = Literal[  # of the layers in a residual unit: He et al. 2016b, figure 4 (a) to (e)
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
]
Shortcut = Literal["none", "A", "B", "D"]
Effort = Literal["quick", "standard", "best"]
Strategy = Literal["none", "features", "partial", "full", "scratch", "auto"]
TrainingPrecision = Literal["fp32", "bf16"]
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
    """A dataclass field with a help text, an inclusive range and optionally a command-line flag.

    old_flag: an earlier spelling of the flag, still accepted.
    """
    metadata = {"help": help, "flag": flag, "old_flag": old_flag, "low": low, "high": high}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Data:
    """The data set and how it is split."""

    path: str = setting(
        "",
        "Folder of class folders, zip or tar of it, table of paths and labels, folder of IDX "
        "files, CIFAR archive, or 'digits' (built-in).",
    )
    path_column: str = setting("", "Column of paths in a table; empty: found by its name.")
    label_column: str = setting("", "Column of labels in a table; empty: found by its name.")
    split_column: str = setting("", "Column of splits in a table; empty: found by its name.")
    weight_column: str = setting(
        "", "Column of training weights in a table; empty: found by its name."
    )
    split: Literal["stratified", "keras"] = setting(
        "stratified",
        "Split strategy: 'stratified', or 'keras': as image_dataset_from_directory.",
        flag="--split",
    )
    val_fraction: float = setting(
        AUTO, "Fraction held out as the validation set.", flag="--val-fraction", low=0, high=0.9
    )
    test_fraction: float = setting(
        0.0,
        "Fraction held out as the test set, never used for model selection.",
        flag="--test-fraction",
        low=0,
        high=0.9,
    )
    split_seed: int = setting(0, "Seed of the split.", flag="--split-seed", low=0, high=2**32 - 1)
    duplicates: Literal["near", "exact"] = setting(
        AUTO,
        "Images that stay in one split: 'near': near-duplicates; 'exact': only images with equal "
        "pixels.",
    )
    group_by: str = setting(
        "",
        "Images that stay in one split: 'folder', a column of DATA (a table), a regular "
        "expression on paths, or FILE.csv:COLUMN.",
        flag="--group-by",
    )
    fixes: str = setting(
        "",
        "Fix list of `residua audit`: images to exclude, and new labels.",
        flag="--fixes",
    )
    unreadable: Literal["list", "fail"] = setting(
        "list", "Unreadable files: skip and list them, or fail.", flag="--unreadable"
    )
    max_pixels: int = setting(
        100_000_000, "Largest image in pixels; larger ones are rejected before decoding.", low=1
    )
    cache: Literal["memory", "file"] = setting(
        AUTO, "Where decoded images are cached: 'memory', or 'file' (in the user's cache folder)."
    )


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input; stored with the weights.

    `resize` and `interpolation` make an image uint8 [size, size, channels]; the network's input is
    (x - mean) / std, float32 [channels, size, size], with mean and std in units of 0..255 and in
    channel order. With one channel the channel order has no effect.
    """

    size: int = setting(AUTO, "Input size: S x S pixels.", flag="--size", low=1, high=4096)
    channels: Literal[1, 3] = setting(
        AUTO, "Input channels: 3 (colour) or 1 (greyscale).", flag="--channels"
    )
    resize: Literal["crop", "squash", "pad"] = setting(
        AUTO,
        "'crop': keep the aspect ratio and crop the centre; 'squash': ignore it; 'pad': keep it "
        "and pad with black.",
        flag="--resize",
    )
    crop: float = setting(
        AUTO, "Fraction of the shorter side that the centre crop covers.", low=0.05, high=1
    )
    interpolation: Literal["nearest", "bilinear", "antialias", "bicubic"] = setting(
        AUTO,
        "'bilinear': as TensorFlow and OpenCV, without antialiasing; 'antialias': bilinear as in "
        "Pillow; 'bicubic': as Pillow.",
    )
    channel_order: Literal["rgb", "bgr"] = setting(
        AUTO, "Channel order of the input: 'rgb' or 'bgr'."
    )
    value_range: tuple[float, float] | None = setting(
        None,
        "Values of 16-bit and float images that become 0 and 255; default: measured on the data.",
    )
    mean: tuple[float, ...] = setting(AUTO, "Mean per channel, 0..255, in channel order.")
    std: tuple[float, ...] = setting(
        AUTO, "Standard deviation per channel, 0..255, in channel order."
    )


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images; 0 or false: off.

    Units as in Keras' ImageDataGenerator: shifts are fractions of the image size, rotation and
    shear are degrees, zoom is the range (low, high) of the scale of the sampled window.
    """

    flip: bool = setting(AUTO, "Horizontal flip with probability 1/2.")
    crop_padding: int = setting(
        AUTO, "Padding in pixels before a random crop (He et al. 2015).", low=0
    )
    shift: float = setting(
        0.0, "Largest shift along each axis, as a fraction of the image size.", low=0, high=1
    )
    rotation: float = setting(AUTO, "Largest rotation in degrees.", low=0, high=180)
    shear: float = setting(0.0, "Largest shear in degrees.", low=0, high=89)
    zoom: tuple[float, float] = setting(
        AUTO,
        "Range of the scale of the sampled window: below 1 zooms in; [1, 1]: off.",
        low=0.01,
        high=100,
    )
    zoom_axes: Literal["each", "both"] = setting(
        "both", "'each': one zoom for each axis, as Keras; 'both': preserve the aspect ratio."
    )
    fill: Literal["nearest", "constant", "reflect"] = setting(
        "constant", "Fill for pixels outside the image: 'nearest', 'constant' or 'reflect'."
    )
    fill_value: float = setting(
        0.0, "Value of the constant fill, in normalised units; 0: the mean colour."
    )
    brightness: float = setting(AUTO, "Largest relative change of brightness.", low=0, high=1)
    contrast: float = setting(AUTO, "Largest relative change of contrast.", low=0, high=1)
    saturation: float = setting(AUTO, "Largest relative change of saturation.", low=0, high=1)
    erase: float = setting(0.0, "Probability of random erasing (Zhong et al. 2017).", low=0, high=1)
    mixup: float = setting(0.0, "Mixup alpha (Zhang et al. 2017); 0: off.", low=0)
    cutmix: float = setting(0.0, "CutMix alpha (Yun et al. 2019); 0: off.", low=0)


@dataclass(frozen=True)
class Network:
    """The model and modifications of it."""

    name: str = setting(
        AUTO,
        "Model name; `residua models` lists them. Your own: MODULE:FUNCTION; timm's: timm:NAME.",
        flag="--model",
    )
    classes: int = setting(AUTO, "Outputs of the head; at least the number of classes.", low=1)
    ordering: Ordering | None = setting(
        None,
        "Order of the layers in a residual unit, or its letter a to e (He et al. 2016, figure 4); "
        "default: as in the model.",
    )
    shortcut: Shortcut | None = setting(
        None, "Shortcut where the shape changes: 'A', 'B', 'D', 'none'; default: as in the model."
    )
    cardinality: str | None = setting(
        None,
        "Groups x width per group in the first stage, e.g. 32x4d (Xie et al. 2017); default: as "
        "in the model.",
    )
    head: str = setting(
        AUTO,
        "'default': the model's own; 'linear'; 'mlp:256' or 'mlp:4096,4096': hidden layers; "
        "'logistic': linear probe, regularisation chosen by cross-validation.",
        flag="--head",
    )
    stage: int | None = setting(
        None,
        "Stage (1, 2, ...) whose output feeds a new head; default: selected by the linear probe, "
        "else the last.",
        low=1,
    )
    pool_size: int | None = setting(
        None,
        "Grid size of the average pooling before a new head; default: selected by the linear "
        "probe, else 1.",
        low=1,
    )
    earlier_pools: tuple[int, ...] | None = setting(
        None,
        "Grid sizes of the average pooling of earlier stages that a new head also reads, such as "
        "[2, 2]; default: selected by the linear probe, else none.",
        low=1,
    )
    weights: str = setting(
        "",
        "Initial weights: run folder, weights file, 'imagenet' (installed, the default), "
        "'imagenet:NAME' or 'hub:OWNER/NAME' (downloaded) or 'none' (from scratch). A+B: two "
        "networks side by side. Several, separated by commas: the best, or the best pair.",
        flag="--weights",
    )
    new_head: bool = setting(False, "Replace the head of the initial weights.", flag="--new-head")
    freeze: int = setting(
        0,
        "Freeze the first N stages of the initial weights; 0 with --transfer partial: automatic.",
        flag="--freeze",
        low=0,
    )
    freeze_norms: bool = setting(
        AUTO, "Keep the BatchNorm statistics of the initial weights in all layers."
    )


@dataclass(frozen=True)
class Transfer:
    """How pretrained weights are used."""

    effort: Effort | None = setting(
        None,
        "From ImageNet weights: 'quick': linear probe, in seconds; 'standard' (default): then "
        "fine-tuning, unless the probe makes too few errors, within 3 minutes; 'best': trials of "
        "all strategies, without time limit.",
        flag="--effort",
    )
    strategy: Strategy | None = setting(
        None,
        "'features': linear probe on frozen features; 'partial': fine-tune the last stages; "
        "'full': fine-tune all layers; 'scratch': random initialisation; 'auto': the one with "
        "the best validation accuracy; 'none': all layers that are not frozen; default: see "
        "--effort.",
        flag="--transfer",
    )
    views: int = setting(
        0,
        "Augmented copies per image, besides the image itself, for feature extraction.",
        flag="--views",
        low=0,
    )
    budget: str = setting(
        "", "Wall-clock time limit, e.g. 90s, 2m, 1h; --epochs overrides it.", flag="--budget"
    )


@dataclass(frozen=True)
class Optimization:
    """Optimizer, learning rate schedule and loss."""

    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = setting(
        AUTO, "Optimizer: 'sgd', 'rmsprop', 'adam' or 'adamw'."
    )
    learning_rate: float = setting(AUTO, "Peak learning rate.", flag="--lr", low=0)
    momentum: float = setting(0.9, "Momentum of SGD and RMSprop.", low=0, high=1)
    nesterov: bool = setting(True, "Nesterov momentum for SGD.")
    weight_decay: float = setting(
        5e-4, "Weight decay; biases and normalisation layers are exempt.", low=0
    )
    schedule: Literal["constant", "steps", "cosine", "one_cycle", "inverse_time"] = setting(
        "cosine",
        "Learning rate schedule: 'constant', 'steps', 'cosine', 'one_cycle' or 'inverse_time'.",
    )
    warmup_epochs: float = setting(AUTO, "Epochs of linear warm-up.", low=0)
    steps: tuple[tuple[float, float], ...] = setting(
        (),
        "Schedule 'steps': pairs [epoch, factor]: from that epoch on, the peak rate times factor.",
    )
    decay: float = setting(
        0.0, "Schedule 'inverse_time': learning rate / (1 + decay x step).", low=0
    )
    label_smoothing: float = setting(
        0.1, "Label smoothing: probability mass spread over all classes.", low=0, high=0.99
    )
    ema_decay: float = setting(
        0.0, "Decay of the moving average of weights, per step; 0: off.", low=0, high=0.999999
    )
    layer_decay: float = setting(
        AUTO,
        "Layer-wise decay: learning rate factor per stage, from the head down.",
        low=0.01,
        high=1,
    )
    clip_grad_norm: float = setting(0.0, "Largest gradient norm; 0: off.", low=0)
    class_weights: Literal["none", "balanced"] = setting(
        AUTO, "'balanced': weight each class by its inverse frequency; 'none'."
    )


@dataclass(frozen=True)
class Training:
    """Length, batch size, device, model selection and checkpoints."""

    epochs: int = setting(AUTO, "Number of training epochs.", flag="--epochs", low=1)
    batch_size: int = setting(
        AUTO, "Images per training step.", flag="--batch-size", old_flag="--batch", low=1
    )
    seed: int = setting(
        0,
        "Seed of initialisation, shuffling and augmentation.",
        flag="--seed",
        low=0,
        high=2**32 - 1,
    )
    device: str = setting(AUTO, "Device: cpu, cuda or cuda:N.", flag="--device")
    precision: TrainingPrecision = setting(
        AUTO, "Precision: fp32, or bf16 (autocast).", flag="--precision"
    )
    select: Literal["accuracy", "loss"] = setting(
        "accuracy", "Validation metric that selects the best epoch: 'accuracy' or 'loss'."
    )
    patience: int = setting(0, "Stop after this many epochs without improvement; 0: off.", low=0)
    max_images: int = setting(0, "Train on at most this many images; 0: all.", low=0)
    precise_bn_images: int = setting(
        512,
        "Training images to re-estimate BatchNorm statistics on before each validation (precise "
        "BN); 0: off.",
        low=0,
    )
    curve_test: bool = setting(
        False,
        "Plot the test accuracy of every epoch; it is never used for model selection.",
        flag="--curve-test",
    )
    save_every: int = setting(
        0,
        "Save the weights every N epochs; 0: off.",
        flag="--save-every",
        old_flag="--keep-every",
        low=0,
    )
    save_seconds: float = setting(15.0, "Seconds between checkpoints.", low=0, high=20)
    tensorboard: bool = setting(False, "The same as --track tensorboard.", flag="--tensorboard")
    track: str = setting(
        "",
        "Also record the training with tensorboard, mlflow, wandb or trackio "
        "(several: separated by commas).",
        flag="--track",
    )


@dataclass(frozen=True)
class NetworkSpec:
    """The complete description of a network, from which it is built; stored with the weights.

    name: of the model. classes: outputs of the head. channels: of the input, 1 or 3.
    ordering, shortcut, cardinality: None for the model's. head: None for the model's, "linear" or
    "mlp:256"; then stage and pool_size are the stage that it reads and its pooling grid, None for
    the last stage and 1, and earlier_pools the grids of the stages before it that it reads too.
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
    earlier_pools: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Replace an ordering's letter, as version 0.1.0 wrote it, by its name."""
        if self.ordering in ORDERING_LETTERS:
            object.__setattr__(self, "ordering", ORDERING_LETTERS[self.ordering])


@dataclass(frozen=True)
class Config:
    """All settings of a run; the `config.yaml` of a run folder, where no "auto" is left."""

    data: Data = Data()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    transfer: Transfer = Transfer()
    optimization: Optimization = Optimization()
    training: Training = Training()

    @property
    def network_spec(self) -> NetworkSpec:
        """The network that these settings describe."""
        network = self.network
        head = {AUTO: None, "default": None, "logistic": "linear"}.get(network.head, network.head)
        return NetworkSpec(
            network.name,
            network.classes,
            self.preprocessing.channels,
            network.ordering,
            network.shortcut,
            network.cardinality,
            head,
            network.stage if head else None,
            network.pool_size if head else None,
            network.earlier_pools if head else None,
        )
