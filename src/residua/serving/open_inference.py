"""A service -> the routes of the Open Inference Protocol v2 (kserve/open-inference-protocol).

With the binary extension of Triton for inputs; outputs are always JSON.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI, Path, Request

from residua._version import __version__
from residua.data.dataset import Pixels
from residua.evaluation.metrics import class_name
from residua.evaluation.score import NOT_FINITE
from residua.serving.limits import Refused
from residua.serving.responses import POST_REFUSALS, Json, documented, request_body
from residua.serving.service import Service
from residua.serving.uploads import from_base64, json_of

OUTPUTS = ("probabilities", "labels")
VERSION = "1"
SCHEMA: dict[str, Any] = {  # of a request without binary data, for the OpenAPI description
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"type": "string"},
                    "datatype": {"enum": ["BYTES", "UINT8"]},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array"},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"enum": list(OUTPUTS)}},
            },
        },
    },
}


def add_open_inference(app: FastAPI, service: Service) -> None:
    """Add the routes of the protocol to an application."""
    tags: Any = ["Open Inference Protocol v2"]
    name, version = service.model.name, VERSION
    # stated in the description alone: `check` has the better message
    own: Any = Path(alias="name", json_schema_extra={"enum": [name]})
    first: Any = Path(alias="version", json_schema_extra={"enum": [version]})

    def check(is_known: bool, asked: str) -> None:
        if not is_known:
            raise Refused(404, f"{asked}: this server has {name}, version {version}")

    async def check_name(given: str = own) -> None:
        check(given == name, f"model {given}")

    async def check_version(given: str = first) -> None:
        check(given == version, f"version {given}")

    @app.get("/v2/health/live", tags=tags)
    async def live() -> dict[str, bool]:
        """Whether the server runs."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=tags)
    async def ready() -> dict[str, bool]:
        """Whether the model is loaded."""
        return {"ready": True}

    @app.get("/v2", tags=tags, responses=documented(401))
    async def server() -> dict[str, object]:
        """Name, version and extensions of the server."""
        return {"name": "residua", "version": __version__, "extensions": ["binary_tensor_data"]}

    async def model() -> dict[str, object]:
        """Inputs and outputs of the model."""
        return {
            "name": name,
            "versions": [VERSION],
            "platform": "residua",
            "inputs": [  # a request has one of them
                {"name": "files", "datatype": "BYTES", "shape": [-1]},
                {"name": "images", "datatype": "UINT8", "shape": [-1, *service.model.shape]},
            ],
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, service.model.outputs]},
                {"name": "labels", "datatype": "BYTES", "shape": [-1]},
            ],
        }

    async def model_ready() -> dict[str, object]:
        """Whether the model is loaded."""
        return {"name": name, "ready": True}

    async def infer(request: Request) -> Json:
        """Probabilities and labels of one input: BYTES (image files) or UINT8 (pixels)."""
        return Json(await _infer(request, service))

    of_name, of_version = Depends(check_name), Depends(check_version)
    body = request_body({"application/json": SCHEMA})
    for path, checks in (
        ("/v2/models/{name}", [of_name]),
        ("/v2/models/{name}/versions/{version}", [of_name, of_version]),
    ):
        rules: Any = {"tags": tags, "dependencies": checks, "responses": documented(401, 404)}
        posted: Any = rules | {"responses": documented(404, *POST_REFUSALS), "openapi_extra": body}
        app.get(path, **rules)(model)
        app.get(f"{path}/ready", **rules)(model_ready)
        app.post(f"{path}/infer", **posted)(infer)


async def _infer(request: Request, service: Service) -> dict[str, object]:
    """Predict the one input of a request: BYTES (image files) or UINT8 (pixels). Raises Refused."""
    body, binary = await _body(request)
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refused(422, "expected one input: BYTES image files, or UINT8 images")
    wanted = _wanted(body.get("outputs"))
    if not isinstance(body.get("id", ""), str):
        raise Refused(422, f"id {body['id']!r}: expected a string")
    entry = inputs[0]
    images: list[Pixels]
    if entry.get("datatype") == "BYTES":
        images = await _files(entry, binary, service)
    elif entry.get("datatype") == "UINT8":
        images = list(_pixels(entry, binary, service))
    else:
        raise Refused(422, f"datatype {entry.get('datatype')!r}: expected BYTES or UINT8")
    results = await service.outputs(images)
    rows = np.array([result.probabilities for result in results])
    rows = rows.reshape(len(results), service.model.outputs)
    if not np.isfinite(rows).all():
        raise Refused(500, NOT_FINITE)
    names = [class_name(service.model.classes, int(best)) for best in rows.argmax(1)]
    outputs: dict[str, dict[str, object]] = {
        "probabilities": {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": list(rows.shape),
            "data": rows.ravel().tolist(),
        },
        "labels": {"name": "labels", "datatype": "BYTES", "shape": [len(names)], "data": names},
    }
    response: dict[str, object] = {"model_name": service.model.name, "model_version": VERSION}
    if "id" in body:
        response["id"] = body["id"]
    return response | {"outputs": [outputs[name] for name in wanted]}


async def _body(request: Request) -> tuple[Any, bytes]:
    """The JSON value, and the binary data behind it."""
    content = await request.body()
    length = request.headers.get("inference-header-content-length")
    if length is None:
        return json_of(content, "the body"), b""
    if not length.isdigit() or int(length) > len(content):
        raise Refused(
            422,
            f"Inference-Header-Content-Length {length}: expected the number of bytes of the "
            f"JSON part, at most the {len(content):,} of the body",
        )
    header, binary = content[: int(length)], content[int(length) :]
    return json_of(header, "the header of the body"), binary


def _wanted(outputs: object) -> tuple[str, ...]:
    """The names of the requested outputs."""
    if not outputs:
        return OUTPUTS
    names = []
    for entry in _list(outputs):
        name = entry.get("name") if isinstance(entry, dict) else None
        if name not in OUTPUTS:
            raise Refused(422, f"output {name!r} is unknown: expected {' or '.join(OUTPUTS)}")
        parameters = entry.get("parameters")
        if isinstance(parameters, dict) and parameters.get("classification"):
            raise Refused(422, "the classification extension is not supported: omit class_count")
        names.append(str(name))
    return tuple(names)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Refused(422, f"expected a list, found {type(value).__name__}")
    return value


async def _files(entry: dict[str, Any], binary: bytes, service: Service) -> list[Pixels]:
    """Decoded images of a BYTES input; all must be readable."""
    if "data" in entry:
        contents = [
            from_base64(text, f"image {number}")
            for number, text in enumerate(_list(entry["data"]), start=1)
        ]
    else:
        contents = _split(_own(entry, binary))
    if not contents:
        raise Refused(422, "the input contains no image")
    shape = _list(entry.get("shape", [len(contents)]))
    if not all(type(side) is int for side in shape) or math.prod(shape) != len(contents):
        raise Refused(422, f"{len(contents)} images: expected as many as shape {shape} has")
    images = await service.read(contents)
    for number, image in enumerate(images, start=1):
        if isinstance(image, str):
            raise Refused(422, f"image {number}: {image}")
    return [image for image in images if not isinstance(image, str)]


def _split(data: bytes) -> list[bytes]:
    """Elements that are each preceded by their length, 4 bytes, little-endian."""
    elements: list[bytes] = []
    start = 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 4], "little")
        if start + 4 + length > len(data):
            raise Refused(
                422,
                f"element {len(elements) + 1} is cut off: expected {length:,} bytes, found "
                f"{max(0, len(data) - start - 4):,}",
            )
        elements.append(data[start + 4 : start + 4 + length])
        start += 4 + length
    return elements


def _pixels(entry: dict[str, Any], binary: bytes, service: Service) -> Pixels:
    """uint8 [N, S, S, C] of a UINT8 input."""
    shape = _shape(entry.get("shape"), service)
    if "data" in entry:
        try:
            values = np.asarray(entry["data"])
        except ValueError as error:
            raise Refused(422, f"the data are no array: {error}") from error
        if values.dtype.kind != "i" or values.size == 0 or values.min() < 0 or values.max() > 255:
            raise Refused(422, "the data are no whole numbers from 0 to 255")
        values = values.astype(np.uint8)
    else:
        values = np.frombuffer(_own(entry, binary), np.uint8)
    count = math.prod(shape)
    if values.size != count:
        raise Refused(422, f"{values.size} values: expected {count} for shape {shape}")
    return values.reshape(shape)


def _shape(value: object, service: Service) -> tuple[int, ...]:
    """The checked shape of a UINT8 input."""
    shape = tuple(value) if isinstance(value, list) else ()
    is_whole = all(type(side) is int for side in shape)
    if not is_whole or shape[1:] != service.model.shape or shape[0] < 1:
        expected = ", ".join(map(str, service.model.shape))
        raise Refused(422, f"shape {value!r}: expected [N, {expected}] with N of at least 1")
    if shape[0] > service.limits.images:
        raise service.limits.too_many(shape[0])
    return shape


def _own(entry: dict[str, Any], binary: bytes) -> bytes:
    """The binary data of an input."""
    parameters = entry.get("parameters")
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    if type(size) is not int or size != len(binary):
        found = "no `binary_data_size`" if size is None else f"`binary_data_size` {size!r}"
        raise Refused(
            422,
            f"the input has no `data` and {found}: expected `data`, or a `binary_data_size` equal "
            f"to the {len(binary):,} bytes after the JSON",
        )
    return binary
