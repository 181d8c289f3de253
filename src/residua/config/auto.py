"""Settings that are "auto", and facts about the data -> values, each with its reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from residua.config import parse
from residua.config.schema import AUTO, IMAGENET, JOINER, Config, NetworkSpec, Preprocessing
from residua.system.words import percent

TINY = 16  # px: smaller images are enlarged, or the strides of a network leave nothing of them
SMALL = 40  # px: up to this size, as in CIFAR, networks do not downsample in the stem
LAYER_DECAY = 0.7  # factor of the learning rate from a stage to the one before, in full fine-tuning
LEARNING_RATE = 0.1  # of SGD, for a batch of 128
FINE_TUNING_RATE = 0.03  # the same, where training starts from pretrained weights
ADAMW_FINE_TUNING_RATE = 3e-4  # of all layers, for a batch of 32
ADAMW_PARTIAL_RATE = 6e-4  # of the last stages
FEW = 100  # images per class: below, a linear probe uses cross-validation, not a validation set
MOST_COMPARED, LEAST_COMPARED = 5_000, 32  # images, and their px, to search near-duplicates
ENOUGH_TO_COMPARE = 1_000  # validation images
FEW_SMALL = 5_000  # small images; more of them are enlarged less, for speed
CROSS_VALIDATED = 2_000, 5_000  # images that cross-validation uses, for few and for many classes
IMBALANCE = 3.0  # ratio of the largest to the smallest class above which classes are weighted
UNSET = (AUTO, None, "")
OFF_AT_ZERO = ("network.freeze", "training.max_images")  # 0 is the default, not a user's choice
NOT_IN_A_PROBE = (  # settings, or what they begin with: unused without SGD
    *("training.batch_size", "training.epochs", "training.select", "training.patience"),
    *("training.precise_bn_images", "training.curve_test", "training.save_", "optimization."),
    "network.freeze_norms",
)


@dataclass(frozen=True)
class Choice:
    """One automatic setting: its dotted name, the value it resolved to, and why."""

    setting: str
    value: object
    reason: str


class Chooser:
    """Resolves a config step by step; an explicit value always wins."""

    def __init__(self, config: Config, choices: Iterable[Choice] = ()) -> None:
        self.config = config
        self.choices = list(choices)

    def choose(self, setting: str, value: object, reason: str) -> None:
        """Set `setting` if it is "auto", None or "", and remember the reason."""
        if value_of(self.config, setting) in UNSET and value is not None:
            self.config = parse.with_settings(self.config, {setting: value})
            self.choices.append(Choice(setting, value, reason))


def value_of(config: Config, setting: str) -> object:
    """The value of a dotted name."""
    section, _, key = setting.partition(".")
    value: object = getattr(getattr(config, section), key)
    return value


def is_explicit(config: Config, choices: Collection[Choice], setting: str) -> bool:
    """Whether the user set this value, so that no automatic choice may change it."""
    value = value_of(config, setting)
    chosen = any(choice.setting == setting for choice in choices)
    return not chosen and value not in UNSET and not (value == 0 and setting in OFF_AT_ZERO)


def effective(config: Config, choices: Iterable[Choice]) -> list[Choice]:
    """The choices that change anything; of several for one setting, the last."""
    latest = {choice.setting: choice for choice in choices}
    return [choice for choice in latest.values() if has_effect(config, choice.setting)]


def has_effect(config: Config, setting: str) -> bool:
    """Whether a setting changes anything: a linear probe has no epochs or learning rate."""
    if config.transfer.strategy != "features" or config.network.head != "logistic":
        return True
    if setting == "optimization.class_weights":
        return True
    unused = NOT_IN_A_PROBE if config.transfer.views else (*NOT_IN_A_PROBE, "augmentation.")
    return not setting.startswith(unused)


def choose_geometry(chooser: Chooser, side: int, grey: bool) -> None:
    """Set the preprocessing but its means, from `side`, the median shorter side in px."""
    chooser.choose("preprocessing.resize", "crop", "resize and centre crop keep the aspect ratio")
    chooser.choose(
        "preprocessing.channels",
        1 if grey else 3,
        "all images are greyscale" if grey else "colour images",
    )
    chooser.choose("preprocessing.channel_order", "rgb", "order of image files")
    chooser.choose("preprocessing.crop", 1.0, "the full shorter side")
    chooser.choose("preprocessing.interpolation", "antialias", "downscaling without aliasing")
    gpu = chooser.config.training.device.startswith("cuda")
    largest = 224 if gpu else 128
    if side < TINY:
        enlarged = side * -(-TINY // side)
        reason = f"median shorter side {side} px, enlarged for two layers of stride 2"
        chooser.choose("preprocessing.size", enlarged, reason)
    if side <= largest:
        reason = f"median shorter side {side} px"
    else:
        reason = f"median shorter side {side} px, limited for a {'GPU' if gpu else 'CPU'}"
    chooser.choose("preprocessing.size", min(side, largest), reason)


def choose_duplicates(chooser: Chooser, images: int, side: int) -> None:
    """Set data.duplicates. side: median shorter side in px."""
    if reason := too_costly_to_compare(images, side):
        chooser.choose("data.duplicates", "exact", reason)
    chooser.choose("data.duplicates", "near", f"{images:,} images of {side} px")


def too_costly_to_compare(images: int, side: int) -> str:
    """Why near-duplicates are not searched among this many images, "" if they are.

    side: median shorter side in px. Comparing images takes 1 to 4 ms each, and different drawings
    of few pixels look alike.
    """
    if images > MOST_COMPARED:
        return f"{images:,} images are many to compare"
    return f"images of {side} px are too small to compare" if side < LEAST_COMPARED else ""


def is_prepared_as_installed(config: Config) -> bool:
    """Whether images are prepared as for the installed weights, alone or as the first of two."""
    return config.network.weights.partition(JOINER)[0] == IMAGENET


def choose_installed_size(chooser: Chooser, side: int, images: int, size: int) -> None:
    """Set preprocessing.size for the installed weights, which were trained at `size` px.

    side: median shorter side of the images, px.
    """
    if side >= 0.7 * size:
        chooser.choose("preprocessing.size", size, "as in the pretrained weights")
    few = images <= FEW_SMALL
    smaller = 160 if few else 128
    reason = f"median shorter side {side} px, {images:,} images"
    chooser.choose("preprocessing.size", min(size, smaller), reason)


def choose_from_weights(
    chooser: Chooser, network: NetworkSpec, preprocessing: Preprocessing
) -> None:
    """Take over what the initial weights require, before anything else is chosen.

    With a transfer strategy their whole preprocessing: frozen features depend on it.
    """
    reason = "as in the pretrained weights"
    for name in ("name", "ordering", "shortcut", "cardinality"):
        chooser.choose(f"network.{name}", getattr(network, name), reason)
    if not chooser.config.network.new_head:
        for name in ("head", "stage", "pool_size", "earlier_pools"):
            chooser.choose(f"network.{name}", getattr(network, name), reason)
    elif network.stage is not None:  # the weights end there
        chooser.choose("network.stage", network.stage, "the last stage in the weights file")
        if chooser.config.transfer.strategy == "none":
            chooser.choose("network.head", "linear", "the weights have no head")
    geometry: tuple[str, ...] = ()
    if chooser.config.transfer.strategy not in (None, "none"):
        geometry = ("resize", "crop", "interpolation")
        if not is_prepared_as_installed(chooser.config):
            geometry = ("size", *geometry)
    for name in ("channels", "channel_order", "value_range", "mean", "std", *geometry):
        value = getattr(preprocessing, name)
        plain = list(value) if isinstance(value, tuple) else value
        chooser.choose(f"preprocessing.{name}", plain, reason)


def choose_validation(
    chooser: Chooser, images: int, classes: int, given: AbstractSet[str | None]
) -> None:
    """Set data.val_fraction. given: the splits that the data set defines itself."""
    config = chooser.config
    is_linear = config.network.head in (AUTO, "logistic")
    is_probe = config.transfer.strategy == "features" and is_linear
    few = is_probe and images < FEW * classes
    if config.transfer.strategy == "auto" and is_linear:
        few = images <= cross_validated(classes)
    if "validation" in given:
        reason = "the data set has its own validation set"
        chooser.choose("data.val_fraction", 0.0, reason)
    if is_probe and ("test" in given or config.data.test_fraction):
        reason = "evaluated on the test set; cross-validation selects the probe"
        chooser.choose("data.val_fraction", 0.0, reason)
    if few and not given - {None}:
        reason = f"only {images:,} images: all are used for training, accuracy by cross-validation"
        chooser.choose("data.val_fraction", 0.0, reason)
    if config.transfer.strategy == "auto" and images > ENOUGH_TO_COMPARE / 0.2:
        fraction = max(0.05, round(ENOUGH_TO_COMPARE / images, 2))
        reason = f"{round(fraction * images):,} of {images:,} images suffice to compare strategies"
        chooser.choose("data.val_fraction", fraction, reason)
    purpose = "" if is_probe else " (selects the best epoch)"
    chooser.choose("data.val_fraction", 0.2, f"20 % held out for validation{purpose}")


def cross_validated(classes: int) -> int:
    """How many images cross-validation uses at most."""
    low, high = CROSS_VALIDATED
    return min(high, max(low, FEW * classes))


def choose_network(chooser: Chooser, classes: int, images: int) -> None:
    """Set network.name, .classes and .head."""
    size = chooser.config.preprocessing.size
    if size <= SMALL:
        name, reason = "cifar_resnet20", f"{size} px: no downsampling in the stem"
    elif chooser.config.training.device.startswith("cuda") and images >= 5000:
        name, reason = "resnet50", f"{images:,} training images and a GPU"
    else:
        name, reason = "resnet18", f"{size} px and {images:,} training images"
    chooser.choose("network.name", name, reason)
    chooser.choose("network.classes", classes, f"{classes} classes in the data")
    strategy = chooser.config.transfer.strategy
    if strategy in ("features", "auto"):
        reason = "linear probe, regularisation selected by cross-validation"
        chooser.choose("network.head", "logistic", reason)
    elif strategy in ("partial", "full"):
        chooser.choose("network.head", "linear", "initialised with a linear probe")
    else:
        chooser.choose("network.head", "default", "the model's own head")
    is_tuned = strategy in ("partial", "full")
    reason = (
        "the head is initialised on features that were computed with them"
        if is_tuned
        else "training uses the statistics of each batch"
    )
    chooser.choose("network.freeze_norms", is_tuned, reason)


def choose_training(chooser: Chooser, counts: Sequence[int]) -> None:
    """Set batch size, epochs, optimizer, learning rate, warm-up and class weights.

    counts: training images per class.
    """
    images = sum(counts)
    amount = f"{images:,} training images"
    size = chooser.config.preprocessing.size
    batch = 128 if images >= 20_000 else 64 if images >= 1_000 else 32
    batch = min(batch, 128 if size <= 64 else 64 if size <= 160 else 32)
    chooser.choose("training.batch_size", batch, f"{amount} of {size} px")
    samples = 60_000 if chooser.config.preprocessing.size <= SMALL else 40_000
    epochs = max(8, min(60, round(samples / images)))
    chooser.choose("training.epochs", epochs, f"{epochs * images:,} training samples in total")
    batch, epochs = images_per_step(chooser.config, images), chooser.config.training.epochs
    optimization, strategy = chooser.config.optimization, chooser.config.transfer.strategy
    if strategy == "features":
        chooser.choose("optimization.optimizer", "adam", "head on frozen features")
    elif strategy in ("partial", "full"):
        chooser.choose("optimization.optimizer", "adamw", "fine-tuning in few epochs")
    else:
        chooser.choose("optimization.optimizer", "sgd", "default without a fitted head")
    chooser.choose(
        "optimization.layer_decay",
        LAYER_DECAY if strategy == "full" else 1.0,
        "lower learning rate in earlier stages" if strategy == "full" else "same for all layers",
    )
    if strategy in ("partial", "full"):
        rates = {
            "sgd": FINE_TUNING_RATE * batch / 128,
            "adamw": ADAMW_PARTIAL_RATE
            if strategy == "partial"
            else ADAMW_FINE_TUNING_RATE * batch / 32,
        }
        rate = rates.get(chooser.config.optimization.optimizer)
        chooser.choose("optimization.learning_rate", rate, "fine-tuning")
    if chooser.config.optimization.optimizer == "sgd":
        rate, reason = LEARNING_RATE * batch / 128, "SGD: 0.1 per 128 images in a batch"
    else:
        rate, reason = 1e-3, f"default of {chooser.config.optimization.optimizer}"
    chooser.choose("optimization.learning_rate", rate, reason)
    warmup = warmup_share(optimization.schedule)
    chooser.choose(
        "optimization.warmup_epochs",
        round(warmup * epochs, 2),
        f"{percent(warmup)} of the epochs with the {chooser.config.optimization.schedule} schedule",
    )
    present = [count for count in counts if count]
    ratio = max(present) / min(present)
    chooser.choose(
        "optimization.class_weights",
        "balanced" if ratio > IMBALANCE else "none",
        f"largest class {ratio:.1f} times the smallest (class weights above {IMBALANCE:g})",
    )


def images_per_step(config: Config, images: int) -> int:
    """The batch size, or the number of training images where these are fewer."""
    training = config.training
    return min(training.batch_size, training.max_images or images, images)


def warmup_share(schedule: str) -> float:
    """The fraction of the epochs in which the learning rate rises."""
    return {"cosine": 0.1, "one_cycle": 0.3}.get(schedule, 0.0)


def choose_augmentation(chooser: Chooser, grey: bool) -> None:
    """Set the augmentation from image size and colour.

    grey: whether all images are greyscale, even if the network has three channels.
    """
    size = chooser.config.preprocessing.size
    small = size <= SMALL
    photo = f"default for {'greyscale' if grey else 'colour'} images of {size} px"
    if grey:
        chooser.choose("augmentation.flip", False, "greyscale images may be characters")
    else:
        chooser.choose("augmentation.flip", True, "mirroring keeps the class of a photo")
    chooser.choose(
        "augmentation.crop_padding",
        max(1, size // 8) if small else 0,
        f"an eighth of {size} px" if small else "zoom is used for larger images",
    )
    rotation = 10.0 if grey or not small else 0.0
    chooser.choose("augmentation.rotation", rotation, photo)
    chooser.choose("augmentation.zoom", [0.7, 1.1] if not small else [1.0, 1.0], photo)
    jitter = 0.0 if grey or small else 0.3
    for name in ("brightness", "contrast", "saturation"):
        chooser.choose(f"augmentation.{name}", jitter, photo)
