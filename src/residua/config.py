"""Settings as frozen dataclasses, YAML in and out, unknown keys refused; knows no torch.

A field whose default is AUTO may hold the word "auto" until `automatic.resolve` has replaced it by
a number; everything after that step reads plain numbers. A field with a `flag` is also an option of
`residua train`, with the same name, help and rules: there is one definition of each setting.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from residua.errors import ResiduaError

AUTO: Any = "auto"


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field with its sentence, its range (inclusive) and, maybe, its command-line flag."""
    return field(default=default, metadata={"help": help, "flag": flag, "low": low, "high": high})


@dataclass(frozen=True)
class Data:
    """Which pictures, and which of them train, validate and test."""

    path: str = setting("", "Folder, archive folder or the name of an embedded data set.")
    split: Literal["stratified", "keras"] = setting(
        "stratified",
        "How parts are drawn: 'stratified', or 'keras' for the files that Keras would pick.",
        flag="--split",
    )
    val_fraction: float = setting(
        0.2, "Fraction of the pictures kept for validation.", flag="--val-fraction", low=0, high=0.9
    )
    test_fraction: float = setting(
        0.0,
        "Fraction kept for a test that chooses nothing.",
        flag="--test-fraction",
        low=0,
        high=0.9,
    )
    split_seed: int = setting(0, "Seed of the split alone.", flag="--split-seed", low=0)
    unreadable: Literal["list", "fail"] = setting(
        "list", "What to do with files that cannot be read: list them or stop.", flag="--unreadable"
    )
    max_pixels: int = setting(
        100_000_000, "Pictures with more pixels than this are refused from their header.", low=1
    )
    cache: Literal["auto", "memory", "file"] = setting(
        "auto",
        "Where decoded pictures wait: in memory, or in a file under the user's cache folder.",
    )


@dataclass(frozen=True)
class Preprocessing:
    """The one way from a picture to the network's input; stored with the weights.

    A picture becomes uint8 [size, size, channels] by `resize` and `interpolation`; the network sees
    (x - mean) / std as float [channels, size, size], mean and std in units of 0..255, in channel
    order. With one channel the order says nothing.
    """

    size: int = setting(
        AUTO, "Side of the square network input, in pixels.", flag="--size", low=1, high=4096
    )
    channels: int = setting(AUTO, "3 for colour, 1 for grey.", flag="--channels", low=1, high=3)
    resize: Literal["crop", "squash", "pad"] = setting(
        "crop",
        "'crop': shorter side and centre crop; 'squash': both sides; 'pad': longer side, on black.",
        flag="--resize",
    )
    interpolation: Literal["nearest", "bilinear", "antialias"] = setting(
        "antialias",
        "'bilinear': TensorFlow's and OpenCV's, without antialias; 'antialias': Pillow's bilinear.",
    )
    channel_order: Literal["rgb", "bgr"] = setting("rgb", "Order of the network's input channels.")
    mean: tuple[float, ...] = setting(AUTO, "Per channel, 0..255, in channel order.")
    std: tuple[float, ...] = setting(AUTO, "Per channel, 0..255, in channel order.")


@dataclass(frozen=True)
class Augmentation:
    """What training changes in a picture: the values of ranges, all of them off at 0.

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
        "constant", "What lies outside the picture; a constant is meant after normalisation."
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
    ordering: Literal["a", "b", "c", "d", "e"] | None = setting(
        None, "Order of the letters in a residual unit (He 2016, figure 4); none: as the row says."
    )
    shortcut: Literal["none", "A", "B", "D"] | None = setting(
        None,
        "Shortcut where the shape changes; 'none' is the plain network; none: as the row says.",
    )


@dataclass(frozen=True)
class Optimization:
    """How a gradient becomes a step."""

    optimizer: Literal["sgd", "rmsprop", "adam", "adamw"] = setting("sgd", "The rule of the step.")
    rate: float = setting(AUTO, "Largest learning rate.", low=0)
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
    ema: float = setting(
        0.0, "Decay of the averaged weights per step; 0 is off.", low=0, high=0.999999
    )
    clip: float = setting(0.0, "Largest norm of the gradient; 0 is off.", low=0)
    class_weights: Literal["none", "balanced"] = setting(
        AUTO, "'balanced' weighs each class by the inverse of its count."
    )


@dataclass(frozen=True)
class Training:
    """How long, how much at once, on what; and what is kept."""

    epochs: int = setting(AUTO, "Passes over the training part.", flag="--epochs", low=1)
    batch: int = setting(AUTO, "Pictures in a step.", flag="--batch", low=1)
    seed: int = setting(0, "Seed of initialisation, order and augmentation.", flag="--seed", low=0)
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
    statistics_pictures: int = setting(
        512,
        "Pictures that re-estimate BatchNorm's statistics before a validation; 0 is off.",
        low=0,
    )
    curve_test: bool = setting(
        False, "Record the test part each epoch, choosing nothing by it.", flag="--curve-test"
    )
    keep_every: int = setting(
        0, "Keep the weights of every N-th epoch; 0 is none.", flag="--keep-every", low=0
    )
    save_seconds: float = setting(
        15.0, "At most this much work is lost by a crash.", low=0, high=30
    )
    tensorboard: bool = setting(False, "Write TensorBoard events too.", flag="--tensorboard")


@dataclass(frozen=True)
class Config:
    """All settings of a run; `config.yaml` of a run folder is this, with no "auto" left."""

    data: Data = Data()
    preprocessing: Preprocessing = Preprocessing()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    optimization: Optimization = Optimization()
    training: Training = Training()


def flags() -> dict[str, str]:
    """Flag -> dotted name of every setting that `residua train` offers by itself."""
    return {
        item.metadata["flag"]: f"{section.name}.{item.name}"
        for section in dataclasses.fields(Config)
        for item in dataclasses.fields(_section_type(section.name))
        if item.metadata["flag"]
    }


def field_of(name: str) -> dataclasses.Field[Any]:
    """The field of a dotted name like "training.epochs". Raises ResiduaError if unknown."""
    section, _, key = name.partition(".")
    sections = [item.name for item in dataclasses.fields(Config)]
    if section not in sections or not key:
        raise ResiduaError(
            f"{name!r} is no setting: expected SECTION.FIELD with a section of "
            f"{', '.join(sections)}."
        )
    known = {item.name: item for item in dataclasses.fields(_section_type(section))}
    if key not in known:
        raise ResiduaError(f"{name!r} is no setting: {section} has {', '.join(known)}.")
    return known[key]


def kind_of(name: str) -> str:
    """What a setting takes, in a word for --help: a choice like "crop|pad", NUMBER or TEXT."""
    section, _, key = name.partition(".")
    kind = _hints(_section_type(section))[key]
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return {int: "N", float: "NUMBER"}.get(kind, "TEXT")


def with_settings(config: Config, settings: Mapping[str, object], where: str = "") -> Config:
    """A copy with dotted names set, each value checked against its type and range.

    `where` begins the message of a refused value, e.g. "recipe.yaml: ". Raises ResiduaError.
    """
    for name, value in settings.items():
        item = field_of(name)
        section, _, key = name.partition(".")
        checked = _checked(value, item, _hints(_section_type(section))[key], f"{where}{name}")
        part = dataclasses.replace(getattr(config, section), **{key: checked})
        config = dataclasses.replace(config, **{section: part})
    return config


def from_mapping(mapping: object, where: str, base: Config | None = None) -> Config:
    """A config from nested plain data. Raises ResiduaError on anything unknown."""
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise ResiduaError(f"{where}: expected sections like 'training:', found {mapping!r}.")
    flat: dict[str, object] = {}
    for section, values in mapping.items():
        if not isinstance(values, Mapping):
            raise ResiduaError(f"{where}: section {section!r} must hold 'name: value' lines.")
        flat |= {f"{section}.{key}": value for key, value in values.items()}
    return with_settings(base or Config(), flat, f"{where}: ")


def read_yaml(path: Path, base: Config | None = None) -> Config:
    """A config from a YAML file. Raises ResiduaError that names the file."""
    try:
        text = path.read_text("utf-8")
        mapping = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ResiduaError(f"{path}: cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ResiduaError(f"{path}: is not YAML: {' '.join(str(error).split())}.") from error
    return from_mapping(mapping, str(path), base)


def to_yaml(config: Config) -> str:
    """YAML text that `read_yaml` turns into an equal config."""
    return yaml.safe_dump(
        _plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True, width=100
    )


def unresolved(config: Config) -> list[str]:
    """Dotted names that still hold "auto"."""
    return [
        f"{section.name}.{item.name}"
        for section in dataclasses.fields(config)
        for item in dataclasses.fields(getattr(config, section.name))
        if item.default is AUTO and getattr(getattr(config, section.name), item.name) == AUTO
    ]


def preprocessing_from(mapping: object, where: str) -> Preprocessing:
    """A resolved Preprocessing from plain data stored with weights. Raises ResiduaError."""
    found = from_mapping({"preprocessing": mapping}, where).preprocessing
    if AUTO in dataclasses.asdict(found).values():
        raise ResiduaError(f"{where}: the preprocessing is incomplete: {mapping!r}.")
    return found


def _section_type(section: str) -> type[Any]:
    return typing.cast("type[Any]", _hints(Config)[section])


def _hints(owner: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(owner)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _checked(value: object, item: dataclasses.Field[Any], kind: Any, where: str) -> object:
    if value == AUTO and item.default is AUTO:
        return AUTO
    if isinstance(value, str) and kind is not str:
        value = _from_text(value, kind)
    try:
        converted = _convert(value, kind)
    except (TypeError, ValueError):
        auto = ", or auto" if item.default is AUTO else ""
        raise ResiduaError(
            f"{where} = {value!r}: expected {_describe(kind)}{auto}. {item.metadata['help']}"
        ) from None
    for number in converted if isinstance(converted, tuple) else (converted,):
        low, high = item.metadata["low"], item.metadata["high"]
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ResiduaError(f"{where} = {value!r}: must be {bounds}. {item.metadata['help']}")
    return converted


def _from_text(value: str, kind: Any) -> object:
    """A word from the command line as YAML would read it, unless the setting is a word itself."""
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    try:
        return typing.cast("object", yaml.safe_load(value))
    except yaml.YAMLError:
        return value


def _convert(value: object, kind: Any) -> object:
    origin = get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(value, next(item for item in get_args(kind) if item is not type(None)))
    if origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise ValueError
        return value
    if origin is tuple:
        return _convert_tuple(value, get_args(kind))
    if kind is float:
        if isinstance(value, bool):
            raise TypeError
        number = float(typing.cast("float", value))  # YAML reads 1e-4 as text
        if not math.isfinite(number):
            raise ValueError
        return number
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    return value


def _convert_tuple(value: object, kinds: tuple[Any, ...]) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_convert(item, kinds[0]) for item in value)
    if len(kinds) != len(value):
        raise ValueError
    return tuple(_convert(item, kind) for item, kind in zip(value, kinds, strict=True))


def _describe(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(repr(word) for word in get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return _describe(next(item for item in get_args(kind) if item is not type(None)))
    if origin is tuple:
        return "a list like [1.0, 2.0]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
