"""A PyTorch checkpoint, pickled or safetensors -> the layers of its state dict; no code runs."""

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
from residua.weights.formats.guards import (
    FLOATS,
    INSTEAD,
    MAX_RATIO,
    damaged,
    one_line,
    read_member,
    safetensors_header,
    translated,
)
from residua.weights.formats.raw import RawWeights, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

NESTS = (
    *("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "net", "weights"),
    *("model_state", "network", "params", "module"),
)
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning
MAX_NESTING = 8  # dictionaries inside dictionaries
DTYPES = (*FLOATS, "int64", "int32", "int16", "int8", "uint8")
# Globals in a pickle of tensors and plain data; torch.load alone would accept more.
HARMLESS = re.compile(
    r"torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter)|torch\.(device|Size|bool)"
    r"|torch\.b?float\w+|torch\.u?int\d+|torch\.\w+Storage|torch\.storage\.UntypedStorage"
    r"|torch\.nn\.parameter\.Parameter|collections\.(OrderedDict|Counter)|argparse\.Namespace"
    r"|(__builtin__|builtins)\.set|numpy\._?core\.multiarray\.scalar|numpy\.dtype|_codecs\.encode"
)
NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS")  # opcodes that fill their last operand
MAX_WORK = 2**24  # items that a pickle's opcodes may touch; 1,202 layers need 2**20
MAX_DEPTH = 100  # tuples inside tuples, which Python hashes by unbounded recursion


def read_pickle(path: Path) -> RawWeights:
    """A file of torch.save, loaded with weights_only. Raises ResiduaError."""
    form = "a PyTorch checkpoint"
    with translated(path, form):
        layers = _layers(path, _state_dict(path, _unpickled(path)))
    return RawWeights(path, "pytorch", form, layers)


def read_safetensors(path: Path) -> RawWeights:
    """A .safetensors file of any writer. Raises ResiduaError."""
    from safetensors.torch import load_file

    with translated(path, "safetensors"):
        tensors = load_file(path)  # unordered
        ordered = {name: tensors[name] for name in safetensors_header(path) if name in tensors}
        layers = _layers(path, _unwrapped(ordered))
    return RawWeights(path, "pytorch", "safetensors", layers)


def _unpickled(path: Path) -> object:
    """The content of a checkpoint: tensors and plain data only."""
    import torch

    budget = MAX_RATIO * path.stat().st_size
    storages: list[tuple[Any, int]] = []

    def accept(storage: Any, _: str) -> Any:
        nonlocal budget
        storages.append((storage, storage.nbytes()))
        budget -= storage.nbytes()
        if budget < 0:
            raise ValueError("it declares more numbers than it contains")
        # The old format fills storages later, or never: NaN then, never old memory.
        return storage if zipped else storage.fill_(0xFF)

    with path.open("rb") as stream:
        zipped = stream.read(2) == b"PK"
        stream.seek(0)
        # the old format is five pickles in a row; the fourth contains the tensors
        for pickle in _pickles(path, stream) if zipped else [stream] * 5:
            _refuse_code(path, pickle)
    stand_ins = [(_Ignored, name) for name in NUMPY]
    try:
        with (
            # timm stores its arguments as a Namespace
            torch.serialization.safe_globals([argparse.Namespace, *stand_ins]),
            warnings.catch_warnings(action="ignore"),
        ):
            content = torch.load(path, map_location=accept, weights_only=True)
    except UnpicklingError as error:  # its advice is to let the code run
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
        raise ValueError(reason.partition("\n")[0]) from error
    if any(storage.nbytes() != size for storage, size in storages):  # a tensor can resize its own
        raise ValueError("it declares tensors that are larger than their numbers")
    return content


class _Ignored:
    """A placeholder for a NumPy number, such as a best score; it is never filled in.

    NumPy's own types trust a pickle about their memory.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _pickles(path: Path, stream: IO[bytes]) -> list[IO[bytes]]:
    """The pickles of an archive whose checksums are right; torch.load does not check them."""
    with zipfile.ZipFile(stream) as archive:
        for member in archive.infolist():
            if member.filename.endswith("constants.pkl"):
                raise ResiduaError(
                    f"{path}: is a TorchScript program, and code in a file is never run. {INSTEAD} "
                    "Its tensors alone are read too: torch.save(network.state_dict(), FILE)."
                )
            if member.CRC == 0:  # torch.serialization.set_crc32_options(False) writes none
                member.CRC = None  # type: ignore[assignment]
            with archive.open(member) as content:
                while content.read(2**20):
                    pass
        names = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return [io.BytesIO(read_member(archive, name)) for name in names]


def _refuse_code(path: Path, stream: IO[bytes]) -> None:
    """Scan the next pickle without executing it. Raises ResiduaError or ValueError."""
    cost = _Cost()
    texts = ["", ""]
    protocol = 0
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            called = ".".join(texts) if argument is None else argument.replace(" ", ".")
            if not HARMLESS.fullmatch(called):
                raise ResiduaError(
                    f"{path}: unpickling it would run {one_line(called)}, and code in a file is "
                    "never run. Save the tensors alone: torch.save(network.state_dict(), FILE)."
                )
        elif operation.name == "PROTO":
            protocol = int(argument or 0)
        elif isinstance(argument, str):
            texts = [texts[-1], argument]
        cost.add(operation, argument)
    if protocol > 3:
        raise ResiduaError(
            f"{path}: is pickled in protocol {protocol}, expected 2, the default of torch.save. "
            "Save it again without pickle_protocol."
        )


@dataclass
class _Value:
    """An object that a pickle would create.

    items: how many objects copying or hashing it touches. depth: of tuples in tuples.
    word: the text or function that it is; of a tuple, its last one.
    """

    items: int = 0
    depth: int = 0
    word: str = ""


class _Cost:
    """The memory and time that a pickle would need, estimated opcode by opcode.

    stack: the unpickler's, None for a mark. memo: its memo.
    """

    def __init__(self) -> None:
        self.work = 0
        self.stack: list[_Value | None] = []
        self.memo: dict[int, _Value | None] = {}

    def add(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """Count one opcode. Raises ValueError beyond what the pickle of a network needs."""
        name = operation.name
        operands = self._pop(operation.stack_before)
        value = operands.pop() if name in FILLING else _Value()
        items = sum(operand.items + 1 for operand in operands)
        self.work += items + 1
        if name != "BINPERSID":  # creates a storage, whatever its arguments
            value.items += items
        if isinstance(argument, str):
            value.word = argument
            value.items += len(argument) // 100  # a Counter may count its letters
        if "TUPLE" in name:
            value.depth = 1 + max((operand.depth for operand in operands), default=0)
            value.word = operands[0].word if operands else ""
        if self.work > MAX_WORK or value.depth > MAX_DEPTH:
            raise ValueError("its pickle would exhaust memory or time")
        encodes = name == "REDUCE" and operands[1].word == "_codecs encode"
        if encodes and operands[0].word != "latin1":
            raise ValueError("its pickle encodes texts, which can grow")  # as hex, repeatedly
        pushed = self.memo.get(argument, value) if "GET" in name else value
        self.stack += [None if name == "MARK" else pushed] * len(operation.stack_after)
        if "PUT" in name:
            self.memo[argument] = self.stack[-1]

    def _pop(self, kinds: list[pickletools.StackObject]) -> list[_Value]:
        """The operands of an opcode, last first; all down to the last mark where it takes those."""
        operands = []
        count = len(kinds)
        if pickletools.stackslice in kinds:
            while (value := self.stack.pop()) is not None:
                operands.append(value)
            count = kinds.index(pickletools.markobject)
        operands += [value for _ in range(count) if (value := self.stack.pop()) is not None]
        return operands


def _state_dict(path: Path, content: object) -> dict[str, Tensor]:
    """The state dict in a checkpoint, at the top or under one of NESTS. Raises ResiduaError."""
    names: list[object] = []
    for _ in range(MAX_NESTING):
        if not isinstance(content, dict):
            break
        items = dict(dict.items(content))  # a pickle can give an OrderedDict its own `items`
        names = list(items)
        if _holds_tensors(items):
            if wrong := [name for name in names if not isinstance(name, str)]:
                raise ResiduaError(
                    f"{path}: names a tensor by {_kind(wrong[0])}, expected text. Save it again: "
                    "torch.save(network.state_dict(), FILE)."
                )
            return _unwrapped(items)
        nested = {name: value for name, value in items.items() if isinstance(value, dict)}
        if not any(name in nested for name in NESTS):  # else the only one that holds tensors
            nested = {name: value for name, value in nested.items() if _holds_tensors(value)}
            nested = nested if len(nested) == 1 else {}
        content = next((nested[name] for name in (*NESTS, *nested) if name in nested), None)
    keys = [one_line(name) if isinstance(name, str) else _kind(name) for name in names[:5]]
    raise ResiduaError(
        f"{path}: contains no state dict: expected names with tensors, or such a dictionary "
        f"under {', '.join(NESTS[:-1])} or {NESTS[-1]}; found {', '.join(keys) or _kind(content)}."
    )


def _holds_tensors(content: dict[object, object]) -> bool:
    import torch

    values = list(dict.values(content))
    return bool(values) and all(isinstance(value, torch.Tensor) for value in values)


def _kind(value: object) -> str:
    """A value's type; its text could be endless."""
    return f"a {type(value).__name__}"


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefixes that wrappers put before all names."""
    unwrapped = dict(tensors)
    while prefix := next(
        (
            word
            for word in WRAPPERS
            if unwrapped and all(name.startswith(word) for name in unwrapped)
        ),
        None,
    ):
        unwrapped = {name.removeprefix(prefix): tensor for name, tensor in unwrapped.items()}
    return unwrapped


def _layers(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by layer and part. Raises ResiduaError if one is no array stored in the file."""
    import torch

    layers: dict[str, dict[str, Tensor]] = {}
    budget = MAX_RATIO * path.stat().st_size
    for name, tensor in tensors.items():
        dtype = dtype_name(tensor)
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or dtype not in DTYPES:
            raise ResiduaError(
                f"{path}: {one_line(name)} is {dtype}, {tensor.layout} on {tensor.device}: "
                f"expected one of {', '.join(DTYPES)}. Convert it and save it again."
            )
        budget -= tensor.nbytes
        if budget < 0 or tensor.nbytes > tensor.untyped_storage().nbytes():
            shape = " x ".join(map(str, tensor.shape))
            size = f"{shape} numbers, {tensor.nbytes:,} bytes"
            raise damaged(path, f"{name} declares {size}, which are not in the file")
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor.detach()
    return layers
