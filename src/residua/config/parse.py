"""Dotted names, text and YAML <-> a Config; every value is checked against its type and range."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml

from residua.config import plain_yaml
from residua.config.schema import AUTO, ORDERING_LETTERS, Config, Preprocessing
from residua.errors import ResiduaError, UsageError
from residua.system.files import reason_of

RENAMED = {  # names in runs and recipes of version 0.1.0 -> names today
    "optimization.rate": "optimization.learning_rate",
    "optimization.ema": "optimization.ema_decay",
    "optimization.clip": "optimization.clip_grad_norm",
    "training.batch": "training.batch_size",
    "training.pictures": "training.max_images",
    "training.statistics_pictures": "training.precise_bn_images",
    "training.keep_every": "training.save_every",
    "network.side": "network.pool_size",
}
RENAMED_VALUES = {("network.head", "own"): "default"} | {
    ("network.ordering", letter): name for letter, name in ORDERING_LETTERS.items()
}

_T = TypeVar("_T")

MOST_HIDDEN = 16  # layers of a head

_SECTIONS: dict[str, type[Any]] = typing.get_type_hints(Config)
_TYPES = {section: typing.get_type_hints(owner) for section, owner in _SECTIONS.items()}


def current_name(name: str) -> str:
    """The name that a setting has today; old names are still accepted."""
    return RENAMED.get(name, name)


def all_settings() -> dict[str, dataclasses.Field[Any]]:
    """Dotted name -> field, of every setting."""
    return {
        f"{section}.{field.name}": field
        for section, owner in _SECTIONS.items()
        for field in dataclasses.fields(owner)
    }


def flags() -> dict[str, str]:
    """Flag -> dotted name, of every setting that is an option of `residua train`."""
    flag_of = {name: field.metadata["flag"] for name, field in all_settings().items()}
    return {flag: name for name, flag in flag_of.items() if flag}


def field_of(name: str, where: str = "") -> dataclasses.Field[Any]:
    """The field of a dotted name like "training.epochs". Raises ResiduaError if unknown."""
    if not isinstance(name, str):
        raise _refused(where, f"{name!r}: expected the name of a setting, SECTION.FIELD.")
    section, _, key = current_name(name).partition(".")
    if section not in _SECTIONS or not key:
        raise _refused(
            where,
            f"{name!r} is not a setting.{_did_you_mean(name)} Expected SECTION.FIELD, where "
            f"SECTION is one of {', '.join(_SECTIONS)}.",
        )
    fields = {field.name: field for field in dataclasses.fields(_SECTIONS[section])}
    if key not in fields:
        raise _refused(
            where,
            f"{name!r} is not a setting.{_did_you_mean(name)} {section} has {', '.join(fields)}.",
        )
    return fields[key]


def _refused(where: str, message: str) -> ResiduaError:
    """The error about a setting: of an option, or in the file that `where` names."""
    return ResiduaError(where + message) if where else UsageError(message)


def _did_you_mean(name: str) -> str:
    """A question that names the setting of a similar name, or of the option --NAME; or ""."""
    option = f"--{name.rpartition('.')[2].replace('_', '-')}"
    if (setting := flags().get(option)) is None:
        names = list(all_settings())
        by_field = {setting.partition(".")[2]: setting for setting in reversed(names)}
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
        near += [by_field[key] for key in difflib.get_close_matches(name, by_field, n=1)]
        if not near:
            return ""
        setting = near[0]
    return f" Did you mean {setting}?"


def kind_of(name: str) -> str:
    """The metavar of a setting for --help: choices like "crop|pad", N, NUMBER or TEXT."""
    section, _, key = current_name(name).partition(".")
    kind = _TYPES[section][key]
    if get_origin(kind) is Literal:
        return "|".join(str(choice) for choice in get_args(kind))
    return {int: "N", float: "NUMBER"}.get(kind, "TEXT")


def with_settings(config: Config, settings: Mapping[str, object], where: str = "") -> Config:
    """A copy of `config` with these settings (dotted name -> value).

    where: prefix of error messages, such as "recipe.yaml: ". Raises ResiduaError for an unknown
    name, or a value of the wrong type or out of range.
    """
    for written_name, written_value in settings.items():
        name, value = current_name(written_name), written_value
        if isinstance(value, str):
            value = RENAMED_VALUES.get((name, value), value)
        field = field_of(name, where)
        section, _, key = name.partition(".")
        checked = _checked(value, field, _TYPES[section][key], where, name)
        changed = dataclasses.replace(getattr(config, section), **{key: checked})
        config = dataclasses.replace(config, **{section: changed})
    return config


def from_mapping(mapping: object, where: str) -> Config:
    """The settings of a nested mapping. Raises ResiduaError for anything unknown."""
    if mapping is None:
        mapping = {}
    if not isinstance(mapping, Mapping):
        raise ResiduaError(f"{where}: expected sections such as 'training:', not {shown(mapping)}.")
    flat: dict[str, object] = {}
    for section, values in mapping.items():
        if not isinstance(values, Mapping):
            raise ResiduaError(f"{where}: section {section!r}: expected 'name: value' lines.")
        flat |= {f"{section}.{key}": value for key, value in values.items()}
    return with_settings(Config(), flat, f"{where}: ")


def typed(owner: type[_T], values: object) -> _T:
    """A dataclass from plain data, every value checked against its annotation.

    Raises TypeError, ValueError or OverflowError.
    """
    kinds = typing.get_type_hints(owner)
    if not isinstance(values, Mapping) or values.keys() - kinds.keys():
        raise TypeError(f"expected {', '.join(kinds)}")
    checked = {}
    for name, value in values.items():
        try:
            checked[name] = _convert(value, kinds[name])
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} is {shown(value)}") from error
    return owner(**checked)


def shown(value: object) -> str:
    """A value in a message: at most 200 characters of it."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def read_yaml(path: Path) -> Config:
    """The settings of a YAML file. Raises ResiduaError."""
    try:
        mapping = plain_yaml.read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ResiduaError(f"{path}: cannot be read: {reason_of(error)}.") from error
    except ValueError as error:
        raise ResiduaError(f"{path}: not valid YAML: {error}.") from error
    return from_mapping(mapping, str(path))


def to_yaml(config: Config, shown: Callable[[str], bool] = lambda setting: True) -> str:
    """YAML text from which `read_yaml` restores an equal Config.

    shown: whether to write the setting of a dotted name; those that are left out have defaults.
    """
    values = {
        section: {name: value for name, value in rows.items() if shown(f"{section}.{name}")}
        for section, rows in plain(config).items()
    }
    values = {section: rows for section, rows in values.items() if rows}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def plain(config: Config) -> dict[str, dict[str, Any]]:
    """Section -> name -> value, with lists for tuples and plain text for an own network's name."""
    values: dict[str, dict[str, Any]] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def flat(config: Config) -> dict[str, str | int | float | bool | None]:
    """Every setting by dotted name; lists as text."""
    return {
        f"{section}.{name}": str(list(value)) if isinstance(value, tuple) else value
        for section, values in dataclasses.asdict(config).items()
        for name, value in values.items()
    }


def preprocessing_from(mapping: object, where: str) -> Preprocessing:
    """The preprocessing stored with weights. Raises ResiduaError if it is incomplete or wrong."""
    preprocessing = from_mapping({"preprocessing": mapping}, where).preprocessing
    if AUTO in dataclasses.asdict(preprocessing).values():
        raise ResiduaError(f"{where}: the preprocessing is incomplete: {mapping!r}.")
    check_colours(preprocessing, f"{where}: preprocessing")
    return preprocessing


def hidden_of(head: str) -> tuple[int, ...]:
    """Widths of a head's hidden layers: () for "linear", (256,) for "mlp:256".

    Raises UsageError for anything else.
    """
    if head == "linear":
        return ()
    if not re.fullmatch(rf"mlp:[1-9]\d{{0,5}}(,[1-9]\d{{0,5}}){{0,{MOST_HIDDEN - 1}}}", head):
        raise UsageError(
            f"head {shown(head)} is unknown: expected linear, or mlp: and the widths of 1 to "
            f"{MOST_HIDDEN} hidden layers, such as mlp:256 or mlp:4096,4096."
        )
    return tuple(int(width) for width in head.removeprefix("mlp:").split(","))


def check_colours(preprocessing: Preprocessing, where: str) -> None:
    """Raise ResiduaError if mean or std does not fit the channels, or std is not above 0."""
    for name in ("mean", "std"):
        values = getattr(preprocessing, name)
        if values != AUTO and len(values) != preprocessing.channels:
            raise ResiduaError(
                f"{where}.{name} = {list(values)}: expected one number per channel "
                f"({preprocessing.channels}), or auto."
            )
    if preprocessing.std != AUTO and min(preprocessing.std) <= 0:
        raise ResiduaError(f"{where}.std = {list(preprocessing.std)}: must be above 0.")


def check_unit(preprocessing: Preprocessing) -> None:
    """Raise UsageError if a mean or std that the user set is of pixels in 0..1, not 0..255."""
    mean, std = preprocessing.mean, preprocessing.std
    if not ((mean != AUTO and 0 < max(mean) <= 1) or (std != AUTO and max(std) < 1)):
        return
    given, meant = [], []
    for name, values in (("mean", mean), ("std", std)):
        if values != AUTO:
            scale = 255 if max(values) <= 1 else 1
            given.append(f"preprocessing.{name} = {list(values)}")
            meant.append(f"{name} = {[round(value * scale, 3) for value in values]}")
    raise UsageError(
        f"{', '.join(given)}: means and standard deviations are of pixels in 0..255, and these "
        f"look like 0..1. In 0..255 they are {', '.join(meant)}."
    )


def _checked(
    value: object, field: dataclasses.Field[Any], kind: Any, where: str, name: str
) -> object:
    if hasattr(value, "tolist"):  # an array or a number of NumPy
        value = value.tolist()
    if value == AUTO and field.default is AUTO:
        return AUTO
    if isinstance(value, str) and kind is not str:
        value = _from_text(value, kind)
    try:
        converted = _convert(value, kind)
    except (OverflowError, TypeError, ValueError):
        auto = ", or auto" if field.default is AUTO else ""
        raise _refused(
            where,
            f"{name} = {shown(value)}: expected {_describe(kind)}{auto}. {field.metadata['help']}",
        ) from None
    for number in converted if isinstance(converted, tuple) else (converted,):
        low, high = field.metadata["low"], field.metadata["high"]
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise _refused(
                where, f"{name} = {shown(value)}: must be {bounds}. {field.metadata['help']}"
            )
    return converted


def _from_text(value: str, kind: Any) -> object:
    """Text from the command line as YAML reads it, unless it is one of the setting's choices.

    Numbers are decimal: YAML 1.1 would read 010 as 8 and 1:30 as 90.
    """
    if get_origin(kind) is Literal and value in get_args(kind):
        return value
    if re.fullmatch(r"[-+]?\d{1,400}", value):
        return int(value)
    if re.fullmatch(r"[-+]?\d+(:\d+)+(\.\d*)?", value):
        return value
    try:
        return plain_yaml.load(value)
    except ValueError:
        return value


def _convert(value: object, kind: Any) -> object:
    """The value, converted to an annotated type. Raises TypeError, ValueError or OverflowError."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(value, _without_none(kind))
    if origin is Literal:
        if value not in kinds or isinstance(value, bool):
            raise ValueError
        return value
    if origin is tuple and isinstance(value, list | tuple):
        if kinds[1:] == (Ellipsis,):
            kinds = kinds[:1] * len(value)
        return tuple(_convert(entry, kind) for entry, kind in zip(value, kinds, strict=True))
    if origin is list and isinstance(value, list):
        return [_convert(entry, kinds[0]) for entry in value]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {_convert(k, kinds[0]): _convert(v, kinds[1]) for k, v in value.items()}
    if origin is not None:
        raise TypeError
    if kind is float:
        if isinstance(value, bool):
            raise TypeError
        number = float(typing.cast("float", value))  # YAML reads 1e-4 as text
        if not math.isfinite(number):
            raise ValueError
        return number
    if dataclasses.is_dataclass(kind):
        return typed(typing.cast("type[Any]", kind), value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError
    return value


def _without_none(kind: Any) -> Any:
    """X of an annotation X | None."""
    return next(alternative for alternative in get_args(kind) if alternative is not type(None))


def _describe(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if origin in (typing.Union, types.UnionType):
        return f"{_describe(_without_none(kind))}, or null"
    if origin is tuple:
        return "a list like [1.0, 2.0]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
