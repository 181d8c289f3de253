"""A name -> a row -> a network."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import get_args

import torch

from residua.config.schema import NetworkSpec
from residua.errors import ResiduaError
from residua.networks.residual import Ordering, Residual, Shortcut
from residua.networks.staged import Staged
from residua.networks.surgery.heads import replace_head
from residua.networks.zoo.keras import KERAS_VARIANTS
from residua.networks.zoo.papers import PAPERS
from residua.networks.zoo.row import Plan, Row
from residua.networks.zoo.tutorials import TUTORIALS

ROWS: dict[str, Row] = {**PAPERS, **KERAS_VARIANTS, **TUTORIALS}


def row(name: str) -> Row:
    """The row of a name. Raises ResiduaError that suggests near names."""
    if name not in ROWS:
        near = difflib.get_close_matches(name, ROWS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ResiduaError(f"{name!r} is no known model.{hint} `residua models` lists all of them.")
    return ROWS[name]


def plan(
    name: str,
    *,
    ordering: Ordering | None = None,
    shortcut: Shortcut | None = None,
    cardinality: str | None = None,
) -> Plan:
    """A row's plan with another ordering, shortcut or cardinality; only residual networks have any.

    cardinality: "CxDd", C groups of D channels inside the bottlenecks of the first stage, and in
    the others in proportion to their outputs (Xie 2017, sections 3.1 and 3.4). Raises ResiduaError.
    """
    found = row(name).plan
    asked = {"ordering": ordering, "shortcut": shortcut, "cardinality": cardinality}
    changes = {key: value for key, value in asked.items() if value is not None}
    if not changes:
        return found
    if not isinstance(found, Residual):
        said = ", ".join(f"{key} {value!r}" for key, value in changes.items())
        raise ResiduaError(f"{name} has no residual units: {said} does not apply.")
    for key, allowed in (("ordering", get_args(Ordering)), ("shortcut", get_args(Shortcut))):
        if key in changes and changes[key] not in allowed:
            raise ResiduaError(
                f"{key} {changes[key]!r} is unknown: expected one of {', '.join(allowed)}."
            )
    if cardinality is not None:
        del changes["cardinality"]
        found = _grouped(name, found, cardinality)
    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def _grouped(name: str, plan: Residual, cardinality: str) -> Residual:
    """The plan with so many groups of such a width. Raises ResiduaError."""
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})d", cardinality)
    if found is None:
        raise ResiduaError(
            f"cardinality {cardinality!r}: expected groups and the width of each, such as 32x4d."
        )
    if not any(kernel.grouped for kernel in plan.branch):
        raise ResiduaError(f"{name} has no bottlenecks: cardinality {cardinality} does not apply.")
    groups, width = int(found[1]), int(found[2])
    inner = tuple(groups * width * each // plan.outputs[0] for each in plan.outputs)
    return dataclasses.replace(plan, groups=groups, inner=inner)


def build(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    ordering: Ordering | None = None,
    shortcut: Shortcut | None = None,
    cardinality: str | None = None,
    head: str | None = None,
    stage: int | None = None,
    pool_size: int | None = None,
    seed: int | None = None,
) -> Staged:
    """A freshly initialised network: float [B, channels, H, W] -> logits [B, classes].

    What is not given is the row's default. head, stage, pool_size: another head, which may read an
    earlier stage (see `heads.replace_head`). seed fixes the initialisation without touching torch's
    global generator; None draws from it. The result is an ordinary nn.Module, in training mode,
    with a `features` method (see Staged). Raises ResiduaError on an unknown name or option.
    """
    defaults = row(name)
    chosen = plan(name, ordering=ordering, shortcut=shortcut, cardinality=cardinality)
    classes = defaults.classes if classes is None else classes
    channels = defaults.channels if channels is None else channels
    for what, value in (("classes", classes), ("channels", channels)):
        if value < 1:
            raise ResiduaError(f"{name}: {what} = {value}: must be at least 1.")
    if head is None and (stage is not None or pool_size is not None):
        raise ResiduaError(f"{name}: stage and pool_size belong to another head: give head too.")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network = chosen.build(classes, channels)
        if head is not None:
            replace_head(
                network,
                head,
                classes,
                input=(channels, defaults.size, defaults.size),
                stage=stage,
                pool_size=pool_size,
                initialisation=chosen.initialisation,
            )
    return network


def build_from(spec: NetworkSpec, *, seed: int | None = None) -> Staged:
    """The network of a spec; see `build`."""
    return build(**dataclasses.asdict(spec), seed=seed)


def plan_of(spec: NetworkSpec) -> Plan:
    """The plan of a spec; see `plan`."""
    return plan(
        spec.name,
        ordering=spec.ordering,  # type: ignore[arg-type]
        shortcut=spec.shortcut,  # type: ignore[arg-type]
        cardinality=spec.cardinality,
    )
