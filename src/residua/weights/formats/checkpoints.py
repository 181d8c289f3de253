"""PyTorch's files, pickled or safetensors -> the layers of a state dict; no code in them runs."""

from __future__ import annotations

import argparse
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, TYPE_CHECKING, Any

from residua.errors import ResiduaError
from residua.weights.formats.raw import (
    FLOATS,
    LARGEST_RATIO,
    Stored,
    damaged,
    member,
    plain,
    safetensors_header,
    translated,
)

if TYPE_CHECKING:
    from torch import Tensor

NESTS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "net", "weights")
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
NESTED = 8  # dictionaries in dictionaries that are looked into
NUMBERS = (*FLOATS, "int64", "int32", "int16", "int8", "uint8")
# What a pickle of tensors and plain data names; torch.load would carry out more than that.
HARMLESS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter)|torch\.(device|Size|bool)"
    r"|torch\.b?float\w+|torch\.u?int\d+|torch\.\w+Storage|torch\.storage\.UntypedStorage"
    r"|torch\.nn\.parameter\.Parameter|collections\.(OrderedDict|Counter)|argparse\.Namespace"
    r"|(__builtin__|builtins)\.set|numpy\._?core\.multiarray\.scalar|numpy\.dtype|_codecs\.encode"
)
NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS")  # instructions that fill their last operand
MOST_WORK = (
    2**24
)  # items that the instructions of a pickle may handle; one of 1,202 layers needs 2**20
DEEPEST = 100  # tuples in tuples; Python hashes them by a recursion that nothing stops


def read_pickle(path: Path) -> Stored:
    """A file of torch.save, read with weights_only. Raises ResiduaError."""
    what = "a PyTorch checkpoint"
    with translated(path, what):
        return Stored(path, "pytorch", what, _layers(path, _state_dict(path, _unpickled(path))))


def read_safetensors(path: Path) -> Stored:
    """A .safetensors file of any writer. Raises ResiduaError."""
    from safetensors.torch import load_file

    with translated(path, "safetensors"):
        held = load_file(path)  # in no order
        tensors = {name: held[name] for name in safetensors_header(path) if name in held}
        return Stored(path, "pytorch", "safetensors", _layers(path, _unwrapped(tensors)))


def _unpickled(path: Path) -> object:
    """What a checkpoint holds; only tensors and plain data come out."""
    import torch

    left = LARGEST_RATIO * path.stat().st_size
    declared: list[tuple[Any, int]] = []

    def place(storage: Any, _: str) -> Any:
        nonlocal left
        declared.append((storage, storage.nbytes()))
        left -= storage.nbytes()
        if left < 0:
            raise ValueError("it declares more numbers than it holds")
        # the old form fills this later, or never: then it is NaN and not what memory held before
        return storage if zipped else storage.fill_(0xFF)

    with path.open("rb") as stream:
        zipped = stream.read(2) == b"PK"
        stream.seek(0)
        pickles = _pickles(path, stream) if zipped else [stream] * 5  # the fourth has the tensors
        for each in pickles:
            _refuse_code(path, each)
    beside = [(_Beside, name) for name in NUMPY]
    try:
        with (
            torch.serialization.safe_globals([argparse.Namespace, *beside]),  # timm's arguments
            warnings.catch_warnings(action="ignore"),
        ):
            content = torch.load(path, map_location=place, weights_only=True)
    except UnpicklingError as error:  # whose advice is to let the code run
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
        raise ValueError(said.partition("\n")[0]) from error
    if any(storage.nbytes() != size for storage, size in declared):  # a tensor can stretch its own
        raise ValueError("it declares tensors that are larger than their numbers")
    return content


class _Beside:
    """What stands for a number of NumPy, such as a best score: whatever it says, nothing is made.

    NumPy's own types believe what a pickle says of their memory.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _pickles(path: Path, stream: IO[bytes]) -> list[IO[bytes]]:
    """The pickles of an archive whose checksums are right; torch.load does not look at them."""
    with zipfile.ZipFile(stream) as archive:
        for each in archive.infolist():
            if each.filename.endswith("constants.pkl"):
                raise ResiduaError(
                    f"{path}: is a TorchScript program, and code in a file is never run. Save its "
                    "tensors alone: torch.save(network.state_dict(), FILE)."
                )
            if each.CRC == 0:  # torch.serialization.set_crc32_options(False) writes none
                each.CRC = None  # type: ignore[assignment]
            with archive.open(each) as content:
                while content.read(2**20):
                    pass
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return [io.BytesIO(member(archive, name)) for name in names]


def _refuse_code(path: Path, stream: IO[bytes]) -> None:
    """Look at the next pickle without carrying it out. Raises ResiduaError or ValueError."""
    cost = _Cost()
    texts = ["", ""]
    protocol = 0
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            called = ".".join(texts) if argument is None else argument.replace(" ", ".")
            if not HARMLESS.fullmatch(called):
                raise ResiduaError(
                    f"{path}: unpickling it would run {plain(called)}, and code in a file is never "
                    "run. Save the tensors alone: torch.save(network.state_dict(), FILE)."
                )
        elif operation.name == "PROTO":
            protocol = int(argument or 0)
        elif isinstance(argument, str):
            texts = [texts[-1], argument]
        cost.add(operation, argument)
    if protocol > 3:
        raise ResiduaError(
            f"{path}: is pickled in protocol {protocol}, expected 2, which torch.save chooses by "
            "itself. Save it again without pickle_protocol."
        )


@dataclass
class _Made:
    """An object that a pickle would make: what copying or hashing it handles, tuples in tuples.

    word: the text or the function that it is; of a tuple, the last one in it.
    """

    items: int = 0
    depth: int = 0
    word: str = ""


class _Cost:
    """What carrying out a pickle would take; `stack` is what would be there, None for a mark."""

    def __init__(self) -> None:
        self.work = 0
        self.stack: list[_Made | None] = []
        self.kept: dict[int, _Made | None] = {}

    def add(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """One more instruction. Raises ValueError where the pickle of a network would never get."""
        name = operation.name
        taken = self._taken(operation.stack_before)
        found = taken.pop() if name in GROWING else _Made()
        items = sum(each.items + 1 for each in taken)
        self.work += items + 1
        if name != "BINPERSID":  # which makes a storage, whatever it says of it
            found.items += items
        if isinstance(argument, str):
            found.word = argument
            found.items += len(argument) // 100  # a Counter may be made of it
        if "TUPLE" in name:
            found.depth = 1 + max((each.depth for each in taken), default=0)
            found.word = taken[0].word if taken else ""
        if self.work > MOST_WORK or found.depth > DEEPEST:
            raise ValueError("its pickle would exhaust memory or time")
        if name == "REDUCE" and taken[1].word == "_codecs encode" and taken[0].word != "latin1":
            raise ValueError("its pickle encodes texts, which can grow")  # as hex, again and again
        known = self.kept.get(argument, found) if "GET" in name else found
        self.stack += [None if name == "MARK" else known] * len(operation.stack_after)
        if "PUT" in name:
            self.kept[argument] = self.stack[-1]

    def _taken(self, wanted: list[pickletools.StackObject]) -> list[_Made]:
        """So many objects, or all down to the last mark, and some below it."""
        taken = []
        count = len(wanted)
        if pickletools.stackslice in wanted:
            while (each := self.stack.pop()) is not None:
                taken.append(each)
            count = wanted.index(pickletools.markobject)
        taken += [each for _ in range(count) if (each := self.stack.pop()) is not None]
        return taken


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """The state dict, wherever a checkpoint keeps it. Raises ResiduaError."""
    import torch

    names: list[object] = []
    for _ in range(NESTED):
        if not isinstance(content, dict):
            break
        items = dict(dict.items(content))  # a pickle can put its own `items` into an OrderedDict
        names = list(items)
        if items and all(isinstance(each, torch.Tensor) for each in items.values()):
            if wrong := [name for name in names if not isinstance(name, str)]:
                raise ResiduaError(
                    f"{path}: calls a tensor by {_kind(wrong[0])}, expected text. Save it again: "
                    "torch.save(network.state_dict(), FILE)."
                )
            return _unwrapped(items)
        content = next((items[name] for name in NESTS if isinstance(items.get(name), dict)), None)
    held = [plain(name) if isinstance(name, str) else _kind(name) for name in names[:5]]
    raise ResiduaError(
        f"{path}: holds no state dict: expected names with tensors, or such a dictionary under "
        f"{NESTS[0]!r}; found {', '.join(held) or _kind(content)}."
    )


def _kind(value: object) -> str:
    """What a value is, not what it says: that may be endless."""
    return f"a {type(value).__name__}"


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that a wrapper put before all of them."""
    found = dict(tensors)
    while prefix := next(
        (each for each in WRAPPERS if found and all(name.startswith(each) for name in found)), None
    ):
        found = {name.removeprefix(prefix): each for name, each in found.items()}
    return found


def _layers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by layer and part. Raises ResiduaError if one is no array of numbers in the file."""
    import torch

    layers: dict[str, dict[str, Tensor]] = {}
    left = LARGEST_RATIO * path.stat().st_size
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or kind not in NUMBERS:
            raise ResiduaError(
                f"{path}: {plain(name)} holds {kind}, {tensor.layout} on {tensor.device}: expected "
                f"one of {', '.join(NUMBERS)}. Convert it and save it again."
            )
        left -= tensor.nbytes
        if left < 0 or tensor.nbytes > tensor.untyped_storage().nbytes():
            shape = " x ".join(map(str, tensor.shape))
            said = f"declares {shape} numbers, {tensor.nbytes:,} bytes, which are not in the file"
            raise damaged(path, f"{name} {said}")
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor.detach()
    return layers
