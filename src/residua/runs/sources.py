"""A run, a file, imagenet:NAME or hub:REPO -> weights; weights -> the start of a training."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from residua.config import parse
from residua.config.auto import Chooser
from residua.config.schema import (
    AUTO,
    HUB,
    IMAGENET,
    JOINER,
    NONE,
    Config,
    NetworkSpec,
    Preprocessing,
)
from residua.config.start import (
    choose_start,
    is_published,
    joined_sources,
    of_each,
    reason_against_installed,
)
from residua.config.validate import checked
from residua.data.prepared import Prepared
from residua.errors import ResiduaError, UsageError
from residua.networks.own import ModelLike, is_own, own_name
from residua.networks.staged import Staged
from residua.networks.zoo.catalogue import build_from, outline_of, row
from residua.runs.folder import RunFolder
from residua.runs.joined import check_file, check_parts, joined
from residua.system.console import Console
from residua.system.files import cache_folder, is_there, user_path
from residua.weights.exported import is_exported
from residua.weights.golden import check_golden
from residua.weights.hub import hub_file, is_hub
from residua.weights.key_maps.layers import head_layers, with_counters
from residua.weights.load import Weights, read_exported, read_file
from residua.weights.native import Origin
from residua.weights.published.classes import outputs_of
from residua.weights.published.download import download
from residua.weights.published.embedded import DEFAULT, embedded_file, missing_package
from residua.weights.published.imagenet import SOURCES

FIXED = ("name", "channels", "ordering", "shortcut", "cardinality")  # that weights determine


def open_weights(source: str | os.PathLike[str], model: str | None, console: Console) -> Weights:
    """The weights of a run, a file, imagenet:NAME or hub:REPO, downloaded if necessary; or of two.

    model: the network, where the source does not determine it; "imagenet" alone means
    imagenet:`model`, and without a model the weights that are installed with residua. Raises
    ResiduaError.
    """
    if len(parts := joined_sources(os.fspath(source))) > 1:
        return _open_joined(parts, model, console)
    weights = read_file(locate(source, model, console), _network_name(source, model))
    if not is_published(source):
        return weights
    origin = Origin(SOURCES[weights.metadata.network.name].address)
    metadata = dataclasses.replace(weights.metadata, origin=origin)
    return dataclasses.replace(weights, metadata=metadata)


def _open_joined(sources: Sequence[str], model: str | None, console: Console) -> Weights:
    check_parts(sources)
    for source in sources:
        check_file(source, locate(source, None, console))
    weights = joined(sources, [open_weights(source, None, console) for source in sources])
    name = weights.metadata.network.name
    if model not in (None, name):
        raise ResiduaError(f"{JOINER.join(sources)}: has weights of {name}, not of {model}.")
    return weights


def open_source(
    source: str | os.PathLike[str],
    model: ModelLike | None,
    classes: Sequence[str] | None,
    preprocessing: Mapping[str, object] | None,
    console: Console,
    *,
    check: bool = True,
    allow_code: bool = False,
) -> tuple[Weights, RunFolder | None]:
    """The weights of a source, with the user's overrides; and its run, if it is one.

    The source may also be an exported file, whose weights can only classify images. check: run the
    golden images first, see `check_golden`. allow_code: see `load_exported`.
    """
    model = own_model(source, model)
    if not is_folder(source):
        path = user_path(source)
        is_program = not is_remote(source) and is_exported(path)
        if is_program:
            weights = read_exported(path, allow_code=allow_code)
        else:
            weights = open_weights(source, model, console)
        if is_program and model not in (None, weights.metadata.network.name):
            raise ResiduaError(f"{path}: is of {weights.metadata.network.name}, not of {model}.")
        if check:
            check_golden(weights)
        return with_overrides(weights, classes, preprocessing or {}, console), None
    run = RunFolder.existing(source)
    own = model if model is not None and is_own(run.config.network.name) else None
    if own is not model or classes is not None or preprocessing:
        raise ResiduaError(
            f"{os.fspath(source)}: a run records its network, classes and preprocessing: omit "
            "model, classes and preprocessing."
        )
    weights = run_weights(run, own)
    if check:
        check_golden(weights)
    return weights, run


def own_model(source: object, model: ModelLike | None) -> str | None:
    """A model's name, see `own_name`; without one, that of a Run with a network of the user's."""
    given = getattr(source, "model", None) if model is None else model
    return None if given is None else own_name(given)


def locate(source: str | os.PathLike[str], model: str | None, console: Console) -> Path:
    """The path of the weights file of a source, downloaded if necessary. Raises ResiduaError."""
    if len(joined_sources(os.fspath(source))) > 1:
        return open_weights(source, model, console).path
    if is_published(source):
        return _published_file(_network_name(source, model), model, console)
    if is_hub(source):
        return hub_file(os.fspath(source))
    path = user_path(source)
    if is_folder(path):
        return RunFolder.existing(path).weights
    if not is_there(path):
        raise ResiduaError(
            f"{source}: there is no such file or folder.{_did_you_mean(path)} Expected a run, a "
            f"weights file, {IMAGENET}:NAME, such as {IMAGENET}:resnet50, or {HUB}:OWNER/NAME."
        )
    return path


def _did_you_mean(path: Path) -> str:
    """A question that names a similar source: imagenet, or a file in the same folder; or ""."""
    name, colon, model = path.name.partition(":")
    if difflib.get_close_matches(name, [IMAGENET]):
        return f" Did you mean {IMAGENET}{colon}{model}?"
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f" Did you mean {path.with_name(near[0])}?" if near else ""


def absolute_source(source: str) -> str:
    """The same source from any working directory."""
    if len(joined_sources(source)) > 1:
        return of_each(source, absolute_source)
    return source if is_remote(source) else str(user_path(source).absolute())


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether a source is imagenet:NAME, hub:REPO or two sources, and so no path."""
    is_joined = len(joined_sources(os.fspath(source))) > 1
    return is_joined or is_published(source) or is_hub(source)


def run_weights(run: RunFolder, own: str | None = None) -> Weights:
    """The weights of a run, whose classes are those of its classes.json. Raises ResiduaError.

    own: its network, where that is the user's own.
    """
    weights = read_file(run.weights, own)
    names = weights.metadata.classes
    if names != run.classes:
        listed = ", ".join(names[:5]) + ", ..." * bool(names[5:])
        raise ResiduaError(
            f"{run.path / 'classes.json'}: contradicts {run.weights.name}, whose classes are "
            f"{listed}. Restore the file."
        )
    return weights


def is_folder(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a folder, which can only be a run."""
    path = user_path(source)  # refuses what is no path
    return not is_hub(source) and is_there(path, folder=True)


def start_from(weights: Weights, spec: NetworkSpec, *, new_head: bool, seed: int | None) -> Staged:
    """The network of `spec`, initialised with the weights, in training mode.

    new_head: initialise the layers that depend on the number of classes at random; the whole head
    if the weights have none or `spec` has another. seed: of that initialisation. Raises
    ResiduaError if the weights are of another network, or lack a head of the right width.
    """
    stored = weights.metadata.network
    _check_fit(weights, spec, new_head)
    network = build_from(spec, seed=seed)
    same_head = all(
        getattr(spec, name) == getattr(stored, name)
        for name in ("head", "stage", "pool_size", "earlier_pools")
    )
    fresh: tuple[str, ...] = ()  # prefixes of tensors that keep their random initialisation
    if new_head:
        fresh = tuple(f"{name}." for name in head_layers(network)) if same_head else ("head.",)
    own = network.state_dict()
    tensors = {
        name: tensor
        for name, tensor in weights.tensors.items()
        # a head on an earlier stage does without the stages that follow
        if not (fresh and name.startswith(fresh)) and (spec.stage is None or name in own)
    }
    missing, unexpected = network.load_state_dict(with_counters(network, tensors), strict=False)
    missing = [name for name in missing if not name.startswith((*fresh, "head."))]
    if missing or unexpected:
        tensor = [*missing, *unexpected][0]
        raise ResiduaError(f"{weights.path}: {tensor} does not fit {stored.name}.")
    return network


def chosen_start(config: Config, console: Console) -> Chooser:
    """The settings, checked, with weights, strategy and budget chosen. Raises ResiduaError."""
    chooser, source = Chooser(config), SOURCES[DEFAULT]
    missing = missing_package(source)
    choose_start(chooser, None if missing else DEFAULT)
    if config.transfer.strategy is None and not chooser.config.network.weights:
        _report_start_from_scratch(config, missing, console)
    chooser.config = checked(chooser.config)
    return chooser


def _report_start_from_scratch(config: Config, missing: str, console: Console) -> None:
    """Print why training does not start from pretrained weights. missing: a sentence, or ""."""
    reason = reason_against_installed(config, DEFAULT)
    if not reason:
        console.warn(f"training from scratch: {missing}")
        return
    name = config.network.name
    hint = f"; --weights {IMAGENET} starts from its ImageNet weights" if name in SOURCES else ""
    console.print(f"training from scratch, not from ImageNet weights: {reason}{hint}")


def initial_weights(config: Config, console: Console) -> Weights | None:
    """The weights that a training starts from; None for a random initialisation.

    Reads no image. Raises ResiduaError.
    """
    network = config.network
    if network.weights == NONE:
        return None
    if not network.weights:
        for flag, is_set in (("--new-head", network.new_head), ("--freeze", network.freeze)):
            if is_set:
                raise UsageError(f"{flag} needs pretrained weights: add --weights.")
        return None
    model = None if network.name == AUTO else network.name
    weights = open_weights(network.weights, model, console)
    channels = weights.metadata.network.channels
    if config.preprocessing.channels not in (AUTO, channels):
        raise ResiduaError(
            f"{weights.path}: has {channels} input channels, but preprocessing.channels is "
            f"{config.preprocessing.channels}. Omit the setting, or choose other weights."
        )
    return weights


def in_order_of(prepared: Prepared, weights: Weights | None) -> Weights | None:
    """The weights, if their head is trained further, in the order of the data's classes."""
    if weights is None or prepared.config.network.new_head:
        return weights
    return in_class_order(weights, prepared.dataset.classes)


def in_class_order(weights: Weights, names: tuple[str, ...]) -> Weights:
    """The weights with the outputs of their head in the order of a data set's classes.

    names: of the data set; where one is no class of the weights, see `outputs_of`, the order stays.
    """
    spec, known = weights.metadata.network, weights.metadata.classes
    known += tuple(f"output {output}" for output in range(len(known), spec.classes))
    if known[: len(names)] == names or not weights.has_head:
        return weights
    outputs = outputs_of(names, known)
    if outputs is None:
        return weights
    order = outputs + [output for output in range(spec.classes) if output not in outputs]
    if is_own(spec.name):
        return weights
    layers = tuple(f"{name}." for name in head_layers(outline_of(spec)))
    tensors = {
        name: tensor[order] if name.startswith(layers) and tensor.ndim else tensor
        for name, tensor in weights.tensors.items()
    }
    classes = (*names, *(known[output] for output in order[len(names) :]))
    origin = dataclasses.replace(weights.metadata.origin, assumed_classes="")
    metadata = dataclasses.replace(weights.metadata, classes=classes, origin=origin)
    return dataclasses.replace(weights, tensors=tensors, metadata=metadata)


def report_initial_weights(weights: Weights, prepared: Prepared, console: Console) -> None:
    """Print which weights a training starts from, and warn of what does not fit its data."""
    name = weights.metadata.network.name
    if prepared.config.transfer.strategy == "scratch":
        console.print(f"training {name} from scratch, without the weights of {weights.path}")
        return
    pretrained, classes = weights.metadata.classes, prepared.dataset.classes
    new_head = prepared.config.network.new_head
    head = " with a new head" if new_head else ""
    if is_published(source := prepared.config.network.weights):
        console.print(f"initial weights {IMAGENET}:{name}{head}")
    elif len(joined_sources(source)) > 1:
        console.print(f"initial weights {source} (side by side){head}")
    else:
        console.print(f"initial weights {weights.path} ({weights.form} of {name}){head}")
    automatic = {choice.setting for choice in prepared.choices}
    if weights.assumed_preprocessing and "preprocessing.mean" in automatic:
        console.warn(f"{weights.path.name}: {weights.assumed_preprocessing}")
    if pretrained and pretrained[: len(classes)] != classes and not new_head:
        console.warn(
            f"the head was trained on {', '.join(pretrained[:3])}, ... and is now trained on "
            f"{', '.join(classes[:3])}, ...; --new-head starts with a fresh one"
        )


def with_overrides(
    weights: Weights,
    classes: Sequence[str] | None,
    preprocessing: Mapping[str, object],
    console: Console,
) -> Weights:
    """The weights with the user's class names and preprocessing; warns of what is still assumed.

    preprocessing: some fields by name. Raises ResiduaError.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes or ()):
        raise ResiduaError(f"classes = {classes!r}: expected a list of names.")
    if classes is not None:
        weights = weights.with_classes(tuple(classes))
    if preprocessing:
        weights = with_preprocessing(weights, preprocessing)
    preprocessing_options = "--set preprocessing.mean=[...] and preprocessing.std=[...]"
    for assumption, option in (
        (weights.assumed_preprocessing, preprocessing_options),
        (weights.assumed_classes, "--classes"),
    ):
        if assumption:
            console.caution(f"{weights.path.name}: {assumption}. Change it with {option}")
    return weights


def with_preprocessing(weights: Weights, values: Mapping[str, object]) -> Weights:
    """The weights with some fields of their preprocessing replaced. Raises ResiduaError.

    Only for third-party files: what residua stored with its own weights is certain.
    """
    if weights.match is None and not weights.assumed_preprocessing:
        raise ResiduaError(
            f"{weights.path}: records its preprocessing, so preprocessing.{next(iter(values))} "
            "cannot be set."
        )
    base = Config(preprocessing=weights.metadata.preprocessing)
    settings = {f"preprocessing.{name}": value for name, value in values.items()}
    preprocessing = parse.with_settings(base, settings).preprocessing
    parse.check_colours(preprocessing, "preprocessing")
    given = {name: getattr(preprocessing, name) for name in ("mean", "std") if name in values}
    parse.check_unit(dataclasses.replace(Preprocessing(), **given))
    origin = weights.metadata.origin
    if given:
        rest = {"mean", "std"} - given.keys()
        assumed = "".join(
            f"its {name} is not recorded in the file, so {list(getattr(preprocessing, name))} of "
            "pixels in 0..255 is assumed"
            for name in rest
        )
        origin = dataclasses.replace(origin, assumed_preprocessing=assumed)
    metadata = dataclasses.replace(weights.metadata, preprocessing=preprocessing, origin=origin)
    return dataclasses.replace(weights, metadata=metadata)


def _network_name(source: str | os.PathLike[str], model: str | None) -> str | None:
    """NAME of imagenet:NAME, else `model`."""
    return os.fspath(source).partition(":")[2] or model if is_published(source) else model


def _published_file(name: str | None, model: str | None, console: Console) -> Path:
    name = DEFAULT if name is None else name
    row(name)
    if model not in (None, name):
        raise ResiduaError(f"{IMAGENET}:{name} has weights of {name}, not of {model}.")
    if name not in SOURCES:
        raise ResiduaError(
            f"{IMAGENET}:{name}: there are no published ImageNet weights of {name}. `residua "
            "weights sources` lists the networks that have some."
        )
    source, folder = SOURCES[name], cache_folder() / "weights"
    if source.package:
        return embedded_file(source)
    return download(source.address, source.file, source.digest, folder, console)


def _check_fit(weights: Weights, spec: NetworkSpec, new_head: bool) -> None:
    """Raise ResiduaError unless the weights are of the network of `spec`, but for a new head."""
    stored = weights.metadata.network
    for key in FIXED if new_head else (*FIXED, "head"):
        actual, needed = getattr(stored, key), getattr(spec, key)
        if needed != actual:
            raise ResiduaError(
                f"{weights.path}: has weights of {stored.name} with {key} {actual!r}, but "
                f"{spec.name} with {key} {needed!r} is needed. Choose other weights, or change "
                "the network."
            )
    if new_head or (weights.has_head and stored.classes == spec.classes):
        return
    has = f"has {stored.classes} outputs" if weights.has_head else weights.no_head_reason
    wider = weights.has_head and stored.classes > spec.classes
    raise ResiduaError(
        f"{weights.path}: {has}, but {spec.classes} are needed. --new-head replaces the head with "
        f"a fresh one of {spec.classes} outputs"
        + (f"; --set network.classes={stored.classes} keeps the present one." if wider else ".")
    )
