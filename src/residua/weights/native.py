"""Tensors and metadata <-> residua's own weights files: safetensors with a description in JSON."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from residua.config import parse
from residua.config.schema import NetworkSpec, Preprocessing
from residua.errors import ResiduaError
from residua.uncertainty.record import Uncertainty
from residua.weights.formats.guards import (
    FLOATS,
    damaged,
    first_bytes,
    is_safetensors,
    one_line,
    safetensors_header,
    translated,
)
from residua.weights.formats.raw import dtype_name, numeric_flaw

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of weights and state files


@dataclass(frozen=True)
class Origin:
    """Where converted or published weights come from, and what their file does not record.

    source: the file and its form, or the address; "" for weights trained here.
    assumed_preprocessing, assumed_classes: in a sentence, what is assumed in place of a missing
    record; "" where it is recorded.
    """

    source: str = ""
    assumed_preprocessing: str = ""
    assumed_classes: str = ""


@dataclass(frozen=True, eq=False)
class Golden:
    """Images and the logits that the network gave for them when its file was written.

    images: uint8 [N, H, W, C], before resizing. logits: float32 [N, K]. value_range: the
    values that 0 and 255 of the images mean, as the preprocessing defined when the file was
    written; None in files of earlier versions.
    """

    LARGEST: ClassVar[int] = 1024  # side of an image that is read

    images: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    value_range: tuple[float, float] | None = None

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Plain data and arrays, as stored."""
        arrays: dict[str, npt.NDArray[Any]] = {"images": self.images, "logits": self.logits}
        return {} if self.value_range is None else {"value_range": [*self.value_range]}, arrays

    @classmethod
    def from_arrays(cls, values: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The inverse of `to_arrays`. Raises ValueError or KeyError if it is something else."""
        images, logits = arrays["images"], arrays["logits"]
        if images.dtype != np.uint8 or logits.dtype != np.float32:
            raise ValueError(f"images {images.dtype}, logits {logits.dtype}")
        sides = images.shape[1:3]
        if images.ndim != 4 or logits.ndim != 2 or not 1 <= len(images) == len(logits) <= 64:
            raise ValueError(f"images {images.shape}, logits {logits.shape}")
        if not 1 <= min(sides) <= max(sides) <= cls.LARGEST or images.shape[3] not in (1, 3):
            raise ValueError(f"images {images.shape}")
        if (value_range := values.get("value_range")) is None:
            return cls(images, logits)
        low, high = map(float, value_range)
        if not -np.inf < low < high < np.inf:
            raise ValueError(f"value_range {value_range}")
        return cls(images, logits, (low, high))


@dataclass(frozen=True)
class Metadata:
    """The description in a weights file: enough to use the weights without their run.

    classes: names in the order of the logits; () if unknown. notes: plain data of the writer, such
    as the epoch or the state of the optimizer. uncertainty, golden: of a finished run.
    """

    network: NetworkSpec
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    notes: dict[str, Any]
    origin: Origin = Origin()
    uncertainty: Uncertainty | None = None
    golden: Golden | None = None


def attached_json(metadata: Metadata) -> dict[str, Any]:
    """Golden images and uncertainty as plain data, for files of other runtimes.

    Images as PNG files, arrays as a safetensors file, in base64: a place that every format has.
    """
    entries: dict[str, Any] = {}
    if (golden := metadata.golden) is not None:
        entries["golden"] = [
            {"png": base64.b64encode(_png(image)).decode(), "logits": logits.tolist()}
            for image, logits in zip(golden.images, golden.logits, strict=True)
        ]
        entries["golden_range"] = golden.value_range and [*golden.value_range]
    if metadata.uncertainty is not None:
        from safetensors.numpy import save

        values, arrays = metadata.uncertainty.to_arrays()
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        entries["uncertainty"] = {**values, "arrays": base64.b64encode(content).decode()}
    return entries


def with_attached(path: Path, metadata: Metadata, entries: Mapping[str, Any]) -> Metadata:
    """The inverse of `attached_json`. Raises ResiduaError that names the file."""
    if "golden" in entries:
        with translated(path, "the entry golden"):
            rows = entries["golden"]
            images = np.stack([_pixels(base64.b64decode(row["png"])) for row in rows])
            logits = np.array([row["logits"] for row in rows], np.float32)
            values = {"value_range": entries.get("golden_range")}
            golden: dict[str, Any] = {"images": images, "logits": logits}
            metadata = _with_entry(path, metadata, "golden", values, golden)
    if "uncertainty" in entries:
        with translated(path, "the entry uncertainty"):
            rest = dict(entries["uncertainty"])
            arrays = _arrays(rest.pop("arrays"))
            metadata = _with_entry(path, metadata, "uncertainty", rest, arrays)
    return metadata


def _with_entry(
    path: Path, metadata: Metadata, key: str, values: Any, arrays: Mapping[str, npt.NDArray[Any]]
) -> Metadata:
    """The metadata with golden images or uncertainty. Raises ResiduaError if they are of a network
    with another number of outputs."""
    part = _ATTACHED[key].from_arrays(values, arrays)
    outputs = metadata.network.classes
    for other in ({part.logits.shape[1]} if isinstance(part, Golden) else part.outputs) - {outputs}:
        raise damaged(path, f"has {outputs} outputs, but golden images or uncertainty of {other}")
    return replace(metadata, **{key: part})  # type: ignore[arg-type]


def _arrays(stored: Any) -> dict[str, npt.NDArray[Any]]:
    """Arrays in a description: a safetensors file in base64; before, lists of numbers."""
    from safetensors.numpy import load

    if isinstance(stored, str):
        return load(base64.b64decode(stored, validate=True))
    return {name: np.array(numbers) for name, numbers in stored.items()}


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def _pixels(content: bytes) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if max(image.size) > Golden.LARGEST:
            raise ValueError(f"a golden image has {image.size} pixels")
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


_ATTACHED: dict[str, type[Uncertainty] | type[Golden]] = {
    "uncertainty": Uncertainty,
    "golden": Golden,
}


def to_bytes(tensors: Mapping[str, Tensor], metadata: Metadata) -> bytes:
    """The content of a weights file."""
    import torch
    from safetensors.torch import save

    plain: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        plain[name] = tensor.detach().cpu().contiguous()
        if plain[name].data_ptr() in stored:  # weights that layers share
            plain[name] = plain[name].clone()
        stored.add(plain[name].data_ptr())
    header = description(metadata)
    for key in _ATTACHED:
        if (part := getattr(metadata, key)) is not None:
            header[key], arrays = part.to_arrays()
            for name, array in arrays.items():
                plain[f"{key}.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
    return save(plain, {"residua": json.dumps(header, ensure_ascii=False)})


def description(metadata: Metadata) -> dict[str, Any]:
    """Metadata as plain data; `metadata_from` is the inverse."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "network": asdict(metadata.network),
        "classes": metadata.classes,
        "preprocessing": asdict(metadata.preprocessing),
        "notes": metadata.notes,
    }
    if metadata.origin != Origin():
        header["origin"] = asdict(metadata.origin)
    return header


def is_native(path: Path) -> bool:
    """Whether a file is safetensors with our description. Raises ResiduaError if it is no file."""
    start = first_bytes(path)
    if not is_safetensors(start):
        return False
    with path.open("rb") as stream:
        return b'"residua"' in stream.read(8 + int.from_bytes(start[:8], "little"))


def read_weights(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """The tensors and metadata of one of our files. Raises ResiduaError that names the file."""
    from safetensors.torch import load

    first_bytes(path)
    with translated(path, "safetensors"):
        tensors = load(path.read_bytes())
        header = safetensors_header(path)
        text = header.get("__metadata__", {}).get("residua")
        if text is None:
            raise ResiduaError(
                f"{path}: was not written by residua: it has no description. Expected the weights "
                "of a run, or a file that `residua weights convert` wrote."
            )
        ordered = {name: tensors[name] for name in header if name in tensors}
        values = json.loads(text)
        metadata = metadata_from(path, values)
        for key in (key for key in _ATTACHED if key in values):
            names = [name for name in ordered if name.startswith(f"{key}.")]
            with translated(path, f"the entry {key}"):
                arrays = {name.removeprefix(f"{key}."): ordered.pop(name).numpy() for name in names}
                metadata = _with_entry(path, metadata, key, values[key], arrays)
        return ordered, metadata


def check_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Metadata) -> bool:
    """Whether the tensors include a head; all others of the network must be there.

    Raises ResiduaError that names the first tensor that does not fit or has unusable numbers.
    """
    from residua.networks.zoo.catalogue import outline_of

    network = metadata.network.name
    with translated(path, f"weights of {network}"):
        state = outline_of(metadata.network).state_dict()
        weights = [name for name in state if not name.endswith("num_batches_tracked")]
        missing = [name for name in weights if name not in tensors]
        has_head = not missing
        if missing and missing != [name for name in weights if name.startswith("head")]:
            raise damaged(path, f"lacks {missing[0]} of {network}")
        if extra := [name for name in tensors if name not in state]:
            raise damaged(path, f"contains {extra[0]}, which {network} does not have")
        for name in (name for name in state if name in tensors):
            tensor, expected = tensors[name], state[name]
            is_weight = expected.is_floating_point()
            dtypes = FLOATS if is_weight else (dtype_name(expected),)
            if tensor.shape != expected.shape or dtype_name(tensor) not in dtypes:
                has, needs = [f"{dtype_name(t)} {list(t.shape)}" for t in (tensor, expected)]
                raise damaged(path, f"{name} is {has}, expected {needs}")
            if is_weight and (flaw := numeric_flaw(name, tensor)):
                raise ResiduaError(
                    f"{path}: {name} contains {flaw}, so its predictions are meaningless. Use the "
                    "weights of an earlier epoch, or train again with a lower learning rate."
                )
    return has_head


def metadata_from(path: Path, values: Any) -> Metadata:
    """The metadata in a description of `path`, every value checked. Raises ResiduaError."""
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        version = values.get("format") if isinstance(values, dict) else values
        raise ResiduaError(
            f"{path}: has format {one_line(version)}, expected {FORMAT}: it was written by "
            "another version of residua. Read it with that version, or train again."
        )
    classes, notes, spec = values.get("classes"), values.get("notes"), _spec(path, values)
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise damaged(path, f"its classes are {classes!r}, expected a list of names")
    if len(classes) > spec.classes:
        raise damaged(path, f"names {len(classes)} classes for {spec.classes} outputs")
    settings = values.get("preprocessing")
    if not isinstance(settings, dict) or not all(map(_is_word, settings.values())):
        raise damaged(path, f"its preprocessing is {settings!r}, expected settings")
    preprocessing = parse.preprocessing_from(settings, str(path))
    if preprocessing.channels != spec.channels:
        images = f"images of {preprocessing.channels} channels"
        raise damaged(path, f"prepares {images} for a network of {spec.channels}")
    if not isinstance(notes, dict):
        raise damaged(path, f"its notes are {notes!r}, expected an object")
    old = {  # until version 0.1.0, the origin was in the notes
        "source": notes.pop("from", ""),
        "assumed_preprocessing": notes.pop("assumed", ""),
        "assumed_classes": notes.pop("guessed", ""),
    }
    origin = values.get("origin", old)
    try:
        typed_origin = parse.typed(Origin, origin)
    except TypeError as error:
        raise damaged(path, f"its origin is {origin!r}: {error}") from error
    return Metadata(spec, tuple(classes), preprocessing, notes, typed_origin)


def _spec(path: Path, values: dict[str, Any]) -> NetworkSpec:
    """The network in a description, known to the catalogue. Raises ResiduaError."""
    from residua.networks.zoo.catalogue import config_of

    network = values.get("network")
    if isinstance(network, dict):  # until version 0.1.0, pool_size was called side
        network = {"pool_size" if key == "side" else key: value for key, value in network.items()}
    try:
        spec = parse.typed(NetworkSpec, network)  # old files lack some fields
    except (TypeError, ValueError) as error:
        expected = ", ".join(field.name for field in fields(NetworkSpec))
        raise damaged(path, f"its network is {network!r}, expected {expected}") from error
    if min(spec.classes, spec.channels) < 1:
        raise damaged(path, f"its network is {network!r}, expected classes and channels")
    try:
        config_of(spec)
        if spec.head is not None:
            parse.hidden_of(spec.head)
    except ResiduaError as error:
        raise ResiduaError(f"{path}: {error} It may be of another version of residua.") from error
    return spec


def _is_word(value: object) -> bool:
    """False for text that is no word: as YAML, which settings are read as, it could explode."""
    return not isinstance(value, str) or value.isidentifier()
