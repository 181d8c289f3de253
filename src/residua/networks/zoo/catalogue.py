"""A name, or a NetworkSpec -> a row of the catalogue -> a network."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
from typing import get_args

from residua.config.schema import JOINER, ORDERING_LETTERS, NetworkSpec, Shortcut
from residua.errors import UsageError
from residua.networks.analysis.shapes import on_meta
from residua.networks.own import OwnConfig, is_own
from residua.networks.residual import ORDERINGS, ResNetConfig
from residua.networks.side_by_side import SideBySideConfig
from residua.networks.staged import Staged
from residua.networks.surgery.heads import replace_head
from residua.networks.zoo.rows import KERAS_VARIANTS, PAPERS, TUTORIALS, NetworkConfig, Row
from residua.system.generators import Seeded

ROWS: dict[str, Row] = {**PAPERS, **KERAS_VARIANTS, **TUTORIALS}


def row(name: str) -> Row:
    """The row of a name, or of two names as A+B. Raises UsageError that suggests similar names."""
    if not isinstance(name, str):
        raise UsageError(f"{name!r}: expected the name of a model, see `residua models`.")
    if JOINER in name:
        return _joined(name)
    if name not in ROWS:
        near = difflib.get_close_matches(name, ROWS, n=3, cutoff=0.5)
        hint = (
            f" Did you mean {' or '.join(filter(None, [', '.join(near[:-1]), near[-1]]))}?"
            if near
            else ""
        )
        raise UsageError(
            f"unknown model {name!r}.{hint} `residua models` lists all of them; one of your own is "
            "MODULE:FUNCTION."
        )
    return ROWS[name]


def _joined(name: str) -> Row:
    """Two networks side by side, for images as the first one needs them."""
    parts = [row(part) for part in name.split(JOINER)]
    if len(parts) != 2:
        raise UsageError(f"model {name}: names {len(parts)} models: two can be side by side, A+B.")
    first, second = parts
    totals = [part.total for part in parts if part.total is not None]
    return dataclasses.replace(
        first,
        config=SideBySideConfig(first.config, second.config),
        source=f"{first.source}; {second.source}",
        trainable=first.trainable + second.trainable,
        total=sum(totals) if len(totals) == 2 else None,
    )


def config_of(spec: NetworkSpec) -> NetworkConfig:
    """The config of a spec's row, with its ordering, shortcut and cardinality.

    cardinality: "CxDd", C groups of D channels inside the bottlenecks of the first stage, and in
    the others in proportion to their outputs (Xie 2017, sections 3.1 and 3.4). Raises UsageError
    if the network has no residual units or a value is unknown.
    """
    config = OwnConfig(spec.name) if is_own(spec.name) else row(spec.name).config
    keys = ("ordering", "shortcut", "cardinality")
    changes = {key: value for key in keys if (value := getattr(spec, key)) is not None}
    if isinstance(config, OwnConfig) and spec.head is not None:
        changes["head"] = spec.head
    if not changes:
        return config
    if isinstance(config, OwnConfig):
        raise UsageError(
            f"model {spec.name}: is a network of your own, in which residua replaces no layers: "
            f"omit {', '.join(changes)}."
        )
    if not isinstance(config, ResNetConfig):
        listed = ", ".join(f"{key} {value!r}" for key, value in changes.items())
        raise UsageError(f"{spec.name} has no residual units: {listed} does not apply.")
    for key, allowed in (("ordering", tuple(ORDERINGS)), ("shortcut", get_args(Shortcut))):
        if key in changes and changes[key] not in allowed:
            letters = f" (or {', '.join(ORDERING_LETTERS)})" if key == "ordering" else ""
            raise UsageError(
                f"{key} {changes[key]!r} is unknown: expected one of {', '.join(allowed)}{letters}."
            )
    if (cardinality := changes.pop("cardinality", None)) is not None:
        config = _grouped(spec.name, config, cardinality)
    return dataclasses.replace(config, **changes)


def _grouped(name: str, config: ResNetConfig, cardinality: str) -> ResNetConfig:
    """The config with another cardinality. Raises UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})d", cardinality)
    if match is None:
        raise UsageError(
            f"cardinality {cardinality!r}: expected groups and the width of each, such as 32x4d."
        )
    if not any(conv.grouped for conv in config.branch):
        raise UsageError(f"{name} has no bottlenecks: cardinality {cardinality} does not apply.")
    groups, width = int(match[1]), int(match[2])
    inner = tuple(groups * width * outputs // config.outputs[0] for outputs in config.outputs)
    return dataclasses.replace(config, groups=groups, inner=inner)


def build(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    ordering: str | None = None,
    shortcut: str | None = None,
    cardinality: str | None = None,
    head: str | None = None,
    seed: int | None = None,
) -> Staged:
    """A freshly initialised network; see `build_from`. None: the row's default.

    ordering: a name, or its letter a to e in He et al. 2016, figure 4.
    """
    usual = (1000, 3) if is_own(name) else (row(name).classes, row(name).channels)
    classes = usual[0] if classes is None else classes
    channels = usual[1] if channels is None else channels
    spec = NetworkSpec(name, classes, channels, ordering, shortcut, cardinality, head)
    return build_from(spec, seed=seed)


def outline_of(spec: NetworkSpec) -> Staged:
    """The network of a spec, without values on the "meta" device; one of the user's own is built,
    since its code may need real numbers."""
    if is_own(spec.name):
        return build_from(spec, seed=0)
    with on_meta():
        return build_from(spec)


def build_from(spec: NetworkSpec, *, seed: int | None = None) -> Staged:
    """The network of a spec, freshly initialised: float [B, channels, H, W] -> logits [B, classes].

    seed: fixes the initialisation without touching torch's global generator; None draws from it.
    The network is in training mode. Raises UsageError for an unknown name or an invalid option.
    """
    config, name = config_of(spec), spec.name
    for key, value in (("classes", spec.classes), ("channels", spec.channels)):
        if value < 1:
            raise UsageError(f"{name}: {key} = {value}: must be at least 1.")
    if spec.head is None and (spec.stage, spec.pool_size, spec.earlier_pools) != (None,) * 3:
        raise UsageError(
            f"{name}: stage, pool_size and earlier_pools belong to another head: give head too."
        )
    with contextlib.nullcontext() if seed is None else Seeded(seed):
        network = config.build(spec.classes, spec.channels)
        if spec.head is not None:
            replace_head(network, spec, row(name).size, config.initialisation)
    return network
