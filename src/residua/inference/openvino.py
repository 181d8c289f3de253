"""A PyTorch module on uint8 images -> the same in OpenVINO, converted once and cached.

Converting takes about a second, reading the converted network from the user's cache folder 0.1 s.
Some images and their outputs in PyTorch are stored with it: they prove it again in each process.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from residua._version import __version__
from residua.data.dataset import Pixels
from residua.errors import ResiduaError
from residua.system.files import cache_folder, write_atomically
from residua.system.openvino_import import openvino
from residua.system.signals import preserved_signal_stack

FAILURES = (
    AttributeError,
    ImportError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def is_installed() -> bool:
    """Whether the package openvino is there; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


STREAMS = 4  # at most, that infer at the same time, each with its share of the threads
CHUNK = 4  # images that a stream infers at once


class OpenVinoEngine:
    """A network on the CPU; see `engine.Engine`.

    Streams of a thread each infer batches faster than all threads together, but a single image in
    twice the time (benchmarks/results/engines.txt).
    """

    def __init__(
        self, network: Callable[[], nn.Module], example: Pixels, precision: str, key: str
    ) -> None:
        """network: makes a module, uint8 [B, S, S, C] -> a tuple of outputs [B, D]; called if it is
        not cached. example: images of that size. precision: "fp32" or "bf16". key: names weights
        and outputs. Raises one of FAILURES."""
        package = openvino()
        self.name = f"OpenVINO {version('openvino')} ({precision})"
        core, path = package.Core(), _path(key)
        if not path.is_file():
            _store(from_trace(network(), torch.from_numpy(np.array(example))), path)
        self._proof = path.with_suffix(".npz")
        threads = torch.get_num_threads()
        self._streams = min(STREAMS, threads)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": self._streams,
        }
        with preserved_signal_stack():
            if os.access(path.parent, os.W_OK):  # compiled once for this processor
                settings["CACHE_DIR"] = str(path.parent)
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
        self._outputs = len(compiled.outputs)
        self._queue: Any = package.AsyncInferQueue(compiled, self._streams)

    def run(self, pixels: Pixels) -> list[npt.NDArray[np.float32]]:
        """See `engine.Engine`."""
        size = min(CHUNK, -(-len(pixels) // self._streams))
        chunks = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        results: list[list[npt.NDArray[np.float32]]] = [[] for _ in chunks]

        def store(request: Any, index: int) -> None:
            tensors = (request.get_output_tensor(number) for number in range(self._outputs))
            results[index] = [np.array(tensor.data) for tensor in tensors]

        self._queue.wait_all()  # for requests that an interruption left
        self._queue.set_callback(store)
        for index, chunk in enumerate(chunks):
            self._queue.start_async([np.ascontiguousarray(chunk)], index)
        self._queue.wait_all()
        return [np.concatenate(rows) for rows in zip(*results, strict=True)]

    def proof(self) -> tuple[Pixels, list[npt.NDArray[np.float32]]] | None:
        """Images and their outputs in PyTorch that were stored with the network; None without."""
        try:
            with np.load(self._proof) as arrays:
                pixels, *outputs = (arrays[name] for name in arrays.files)
        except (EOFError, OSError, ValueError, zipfile.BadZipFile):
            return None
        return pixels, outputs

    def store_proof(self, pixels: Pixels, outputs: Sequence[npt.NDArray[np.float32]]) -> None:
        """Store images and their outputs in PyTorch for `proof`, where the folder allows it."""
        content = io.BytesIO()
        np.savez(content, pixels, *outputs)
        with contextlib.suppress(ResiduaError):
            write_atomically(self._proof, content.getvalue())


def from_trace(network: nn.Module, example: torch.Tensor) -> Any:
    """The model of a network, traced with images uint8 [B, S, S, C], for any batch size.

    Traced once: openvino.convert_model traces three times and imports sympy to compare the results.
    """
    openvino()
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of shapes, which are constant here
        traced = torch.jit.trace(network.eval(), example, check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced)
    return from_decoder(TorchScriptPythonDecoder(traced, example_input=example), example)


def from_decoder(decoder: Any, example: torch.Tensor) -> Any:
    """The model that one of OpenVINO's decoders of PyTorch describes, for any batch size.

    openvino.convert_model does the same, but sends a report of its use to Google Analytics.
    """
    package = openvino()
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.load(decoder)
    (place,) = model.get_inputs()
    model.set_element_type(place, package.Type.u8)
    model.set_partial_shape(place, package.PartialShape([-1, *example.shape[1:]]))
    return frontend.convert(model)


def read(path: Path) -> Any:
    """The model in an ONNX or OpenVINO file."""
    return openvino().Core().read_model(path)


def _store(model: Any, path: Path) -> None:
    """Write both files of a model; the name of the one that is read first appears last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    openvino().save_model(model, temporary, compress_to_fp16=False)
    temporary.with_suffix(".bin").replace(path.with_suffix(".bin"))
    temporary.replace(path)


def _path(key: str) -> Path:
    content = f"{key} {__version__} {version('openvino')}"
    name = hashlib.sha256(content.encode()).hexdigest()[:32]
    return cache_folder() / "engines" / f"{name}.xml"
