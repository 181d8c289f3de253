"""Settings that say "auto", and the facts of the data -> numbers, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from residua.config import parse
from residua.config.schema import AUTO, Config, NetworkSpec, Preprocessing

TINY = 16  # px: below, an image is enlarged, or a network halves it away
SMALL = 40  # px: images like CIFAR's, for which a network must not begin by shrinking them
FULL_DECAY = 0.7  # of the rate, from a stage to the one before it, where everything is tuned
RATE = 0.1  # of SGD for 128 images of a batch
TUNING_RATE = 0.03  # of SGD for 128 images, where weights begin as learnt elsewhere
FEW_TO_COMPARE = 15  # images a class: below, two ways of learning cannot be told apart
FEW = 100  # images a class: below, every one teaches, and cross-validation judges
IMBALANCE = 3.0  # between the largest and the smallest class


@dataclass(frozen=True)
class Choice:
    """One automatic setting: its dotted name, the number that it became, and why."""

    setting: str
    value: object
    reason: str


class Chooser:
    """Fills in a config step by step; an explicit value always wins."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.choices: list[Choice] = []

    def choose(self, setting: str, value: object, reason: str) -> None:
        """Set `setting` if it still says "auto" or nothing, and remember why."""
        section, _, key = setting.partition(".")
        if getattr(getattr(self.config, section), key) in (AUTO, None) and value is not None:
            self.config = parse.with_settings(self.config, {setting: value})
            self.choices.append(Choice(setting, value, reason))


def choose_device(chooser: Chooser, gpu: bool) -> None:
    """training.device."""
    reason = "a GPU is there" if gpu else "there is no GPU"
    chooser.choose("training.device", "cuda" if gpu else "cpu", reason)


def choose_precision(chooser: Chooser, bf16: tuple[bool, str]) -> None:
    """training.precision, once the device is known."""
    fast, reason = bf16
    chooser.choose("training.precision", "bf16" if fast else "fp32", reason)


def choose_geometry(chooser: Chooser, side: int, grey: bool) -> None:
    """preprocessing.resize, .channels, .channel_order and .size, from the median shorter side."""
    chooser.choose(
        "preprocessing.resize", "crop", "shorter side and centre crop: proportions stay as they are"
    )
    chooser.choose(
        "preprocessing.channels",
        1 if grey else 3,
        "all images are grey" if grey else "there are colour images",
    )
    chooser.choose("preprocessing.channel_order", "rgb", "as images are stored")
    chooser.choose("preprocessing.crop", 1.0, "the whole of the shorter side")
    chooser.choose("preprocessing.interpolation", "antialias", "what a smaller image looks like")
    gpu = chooser.config.training.device.startswith("cuda")
    largest = 224 if gpu else 128
    if side < TINY:
        enlarged = side * -(-TINY // side)
        reason = f"the median shorter side is {side} px, too few for a network to halve twice"
        chooser.choose("preprocessing.size", enlarged, reason)
    if side <= largest:
        reason = f"the median shorter side is {side} px"
    else:
        reason = (
            f"the median shorter side is {side} px; {largest} px is what "
            f"{'a GPU' if gpu else 'a CPU'} learns from in reasonable time"
        )
    chooser.choose("preprocessing.size", min(side, largest), reason)


def choose_from_weights(
    chooser: Chooser, network: NetworkSpec, preprocessing: Preprocessing
) -> None:
    """What belongs to the weights that a training starts from, before anything else is chosen.

    Their whole preprocessing where they are transferred: features mean what they meant.
    """
    reason = "belongs to the weights"
    for name in ("name", "ordering", "shortcut", "cardinality"):
        chooser.choose(f"network.{name}", getattr(network, name), reason)
    if not chooser.config.network.new_head:
        for name in ("head", "stage", "pool_size"):
            chooser.choose(f"network.{name}", getattr(network, name), reason)
    elif network.stage is not None:  # the weights end there
        chooser.choose("network.stage", network.stage, "the weights end there")
        if chooser.config.transfer.strategy == "none":
            chooser.choose("network.head", "linear", "the network has no head there")
    geometry: tuple[str, ...] = ()
    if chooser.config.transfer.strategy != "none":
        geometry = ("size", "resize", "crop", "interpolation")
    for name in ("channels", "channel_order", "mean", "std", *geometry):
        value = getattr(preprocessing, name)
        plain = list(value) if isinstance(value, tuple) else value
        chooser.choose(f"preprocessing.{name}", plain, reason)


def choose_validation(
    chooser: Chooser, images: int, classes: int, given: AbstractSet[str | None]
) -> None:
    """data.val_fraction. given: the parts that the data set brings itself."""
    config = chooser.config
    solved = config.transfer.strategy == "features" and config.network.head in (AUTO, "logistic")
    few = images < (FEW if solved else FEW_TO_COMPARE) * classes
    if "validation" in given:
        reason = "the data set brings its own validation part"
        chooser.choose("data.val_fraction", 0.0, reason)
    if solved and ("test" in given or config.data.test_fraction):
        reason = "the test part judges, and cross-validation chooses the head: all others teach"
        chooser.choose("data.val_fraction", 0.0, reason)
    if few and not given - {None} and (solved or config.transfer.strategy == "auto"):
        reason = f"{images:,} images are few: all of them teach, and cross-validation judges"
        chooser.choose("data.val_fraction", 0.0, reason)
    reason = "a fifth judges" if solved else "a fifth judges, and chooses the epoch"
    chooser.choose("data.val_fraction", 0.2, reason)


def choose_colours(chooser: Chooser, mean: Sequence[float], std: Sequence[float]) -> None:
    """preprocessing.mean and .std, given in channel order."""
    reason = "measured on the training part"
    chooser.choose("preprocessing.mean", [round(each, 3) for each in mean], reason)
    chooser.choose("preprocessing.std", [round(each, 3) for each in std], reason)


def choose_network(chooser: Chooser, classes: int, images: int) -> None:
    """network.name and .classes."""
    size = chooser.config.preprocessing.size
    if size <= SMALL:
        name, reason = "cifar_resnet20", f"{size} px is small: a network that begins at full size"
    elif chooser.config.training.device.startswith("cuda") and images >= 5000:
        name, reason = "resnet50", f"{images:,} training images and a GPU"
    else:
        name, reason = "resnet18", f"{size} px and {images:,} training images"
    chooser.choose("network.name", name, reason)
    chooser.choose("network.classes", classes, f"the data has {classes} classes")
    strategy = chooser.config.transfer.strategy
    if strategy in ("features", "auto"):
        reason = "a linear head, its strength chosen by cross-validation, is quick and hard to beat"
        chooser.choose("network.head", "logistic", reason)
    elif strategy in ("partial", "full"):
        chooser.choose("network.head", "linear", "begins as the features suggest")
    else:
        chooser.choose("network.head", "default", "as the model")


def choose_training(chooser: Chooser, counts: Sequence[int]) -> None:
    """Batch, epochs, rate, warm-up and class weights, from the training images per class."""
    images = sum(counts)
    said = f"{images:,} training images"
    size = chooser.config.preprocessing.size
    batch = 128 if images >= 20_000 else 64 if images >= 1_000 else 32
    batch = min(batch, 128 if size <= 64 else 64 if size <= 160 else 32)
    chooser.choose("training.batch_size", batch, f"{said} of {size} px")
    wanted = 60_000 if chooser.config.preprocessing.size <= SMALL else 40_000
    epochs = max(8, min(60, round(wanted / images)))
    chooser.choose("training.epochs", epochs, f"{said}: about {epochs * images:,} looks")
    batch, epochs = chooser.config.training.batch_size, chooser.config.training.epochs
    optimization, strategy = chooser.config.optimization, chooser.config.transfer.strategy
    on_features = strategy == "features"
    chooser.choose(
        "optimization.optimizer",
        "adam" if on_features else "sgd",
        "a head on features" if on_features else "with momentum, the best on images",
    )
    chooser.choose(
        "optimization.layer_decay",
        FULL_DECAY if strategy == "full" else 1.0,
        "earlier stages change less" if strategy == "full" else "one rate for all layers",
    )
    if chooser.config.optimization.optimizer == "sgd" and strategy in ("partial", "full"):
        rate = TUNING_RATE * batch / 128
        chooser.choose("optimization.learning_rate", rate, "fine-tuning: small steps")
    if chooser.config.optimization.optimizer == "sgd":
        rate, reason = RATE * batch / 128, "SGD: 0.1 for each 128 images of the batch"
    else:
        rate, reason = 1e-3, f"usual for {chooser.config.optimization.optimizer}"
    chooser.choose("optimization.learning_rate", rate, reason)
    warmup = warmup_share(optimization.schedule)
    chooser.choose(
        "optimization.warmup_epochs",
        round(warmup * epochs, 2),
        f"{warmup:.0%} of the epochs for schedule {chooser.config.optimization.schedule}",
    )
    present = [count for count in counts if count]
    ratio = max(present) / min(present)
    chooser.choose(
        "optimization.class_weights",
        "balanced" if ratio > IMBALANCE else "none",
        f"the largest class is {ratio:.1f} times the smallest; balanced above {IMBALANCE:g}",
    )


def warmup_share(schedule: str) -> float:
    """The part of a training in which the rate rises."""
    return {"cosine": 0.1, "one_cycle": 0.3}.get(schedule, 0.0)


def choose_augmentation(chooser: Chooser, grey: bool) -> None:
    """How much training may change an image, from its size and colour.

    grey: whether all images are, whatever the network's input has room for.
    """
    size = chooser.config.preprocessing.size
    small = size <= SMALL
    photo = f"images of {size} px in colour" if not grey else f"images of {size} px"
    if grey:
        chooser.choose("augmentation.flip", False, "grey images may be writing, which has a side")
    else:
        chooser.choose("augmentation.flip", True, "a mirrored photo is still one of its class")
    chooser.choose(
        "augmentation.crop_padding",
        max(1, size // 8) if small else 0,
        f"an eighth of {size} px" if small else "zoom and shift do it for larger images",
    )
    rotation = 10.0 if grey or not small else 0.0
    chooser.choose("augmentation.rotation", rotation, photo)
    chooser.choose("augmentation.zoom", [0.7, 1.1] if not small else [1.0, 1.0], photo)
    jitter = 0.0 if grey or small else 0.3
    for name in ("brightness", "contrast", "saturation"):
        chooser.choose(f"augmentation.{name}", jitter, photo)
