"""The Open Inference Protocol v2, as clients of Triton and KServe speak it."""

from __future__ import annotations

import base64
import gzip
import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from residua.data.image import read_image
from residua.serving.service import Model

INFER = "/v2/models/net/infer"


@pytest.fixture(scope="module")
def pixels(model: Model, images: list[Path]) -> Any:
    """uint8 [2, 16, 16, 3]: both photos as the network gets them."""
    rule = model.preprocessing
    return np.stack([read_image(file, rule, 10**6) for file in images[:2]])


def outputs_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return {entry["name"]: entry for entry in response.json()["outputs"]}


def test_health_and_metadata_are_those_of_the_protocol(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "residua"
    assert client.get("/v2/models/net/ready").json()["ready"] is True
    metadata = client.get("/v2/models/net").json()
    assert metadata == client.get("/v2/models/net/versions/1").json()
    assert [entry["shape"] for entry in metadata["inputs"]] == [[-1], [-1, 16, 16, 3]]
    for path in ("/v2/models/other", "/v2/models/net/versions/2", "/v2/models/other/ready"):
        response = client.get(path)
        assert response.status_code == 404
        assert "this server has net, version 1" in response.json()["error"]


def test_all_forms_of_input_get_the_probabilities_of_the_model(
    client: httpx.Client, model: Model, images: list[Path], pixels: Any
) -> None:
    expected = np.stack([output.probabilities for output in model.run(pixels)])
    contents = [file.read_bytes() for file in images[:2]]
    texts = [base64.b64encode(content).decode() for content in contents]
    elements = b"".join(len(data).to_bytes(4, "little") + data for data in contents)
    as_bytes: dict[str, Any] = {"name": "files", "datatype": "BYTES", "shape": [2]}
    as_pixels: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [2, 16, 16, 3]}
    plain = [
        as_bytes | {"data": texts},
        as_pixels | {"data": pixels.tolist()},
        as_pixels | {"data": pixels.ravel().tolist()},
    ]
    responses = [client.post(INFER, json={"id": "7", "inputs": [entry]}) for entry in plain]
    for entry, data in ((as_bytes, elements), (as_pixels, pixels.tobytes())):
        entry = entry | {"parameters": {"binary_data_size": len(data)}}
        header = json.dumps({"id": "7", "inputs": [entry]}).encode()
        length = {"Inference-Header-Content-Length": str(len(header))}
        responses.append(
            client.post("/v2/models/net/versions/1/infer", content=header + data, headers=length)
        )
    for response in responses:
        outputs = outputs_of(response)
        assert response.json()["id"] == "7"
        assert outputs["probabilities"]["shape"] == [2, 10]
        found = np.reshape(outputs["probabilities"]["data"], (2, 10))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        labels = [model.classes[best] for best in expected.argmax(1)]
        assert outputs["labels"]["data"] == labels


def test_tritonclient_gets_the_probabilities_of_the_model(
    client: httpx.Client, model: Model, images: list[Path], pixels: Any
) -> None:
    http = pytest.importorskip("tritonclient.http")
    triton = http.InferenceServerClient(client.base_url.netloc.decode())
    assert triton.is_server_ready()
    assert triton.is_model_ready("net")
    files = np.array([file.read_bytes() for file in images[:2]], dtype=object)
    by_name = {"files": files, "images": pixels}
    expected = np.stack([output.probabilities for output in model.run(pixels)])
    for entry in triton.get_model_metadata("net")["inputs"]:
        data = by_name[entry["name"]]
        tensor = http.InferInput(entry["name"], data.shape, entry["datatype"])
        for result in (
            triton.infer("net", [tensor.set_data_from_numpy(data)]),
            triton.async_infer("net", [tensor]).get_result(),
        ):
            np.testing.assert_allclose(result.as_numpy("probabilities"), expected, atol=1e-6)
    with pytest.raises(http.InferenceServerException, match="this server has net"):
        triton.infer("other", [tensor])
    triton.close()


def test_only_requested_outputs_are_returned(client: httpx.Client, pixels: Any) -> None:
    entry = {"name": "images", "datatype": "UINT8", "shape": [2, 16, 16, 3]}
    body = {"inputs": [entry | {"data": pixels.tolist()}], "outputs": [{"name": "labels"}]}
    assert list(outputs_of(client.post(INFER, json=body))) == ["labels"]
    response = client.post(INFER, json=body | {"outputs": [{"name": "logits"}]})
    assert response.json() == {
        "error": "output 'logits' is unknown: expected probabilities or labels"
    }


def tensor(shape: object, data: object, **more: object) -> dict[str, object]:
    return {"inputs": [{"name": "x", "datatype": "UINT8", "shape": shape, "data": data} | more]}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ([], "expected one input"),
        ({"inputs": []}, "expected one input"),
        ({"inputs": [{"datatype": "FP32"}]}, "datatype 'FP32': expected BYTES or UINT8"),
        (tensor([1, 8, 8, 3], [0] * 192), "expected [N, 16, 16, 3]"),
        (tensor([0, 16, 16, 3], []), "expected [N, 16, 16, 3]"),
        (tensor(["1", 16, 16, 3], [0]), "expected [N, 16, 16, 3]"),
        (tensor("abc", [0]), "expected [N, 16, 16, 3]"),
        (tensor([1, 16, 16, 3], [0] * 767), "767 values: expected 768"),
        (tensor([1, 16, 16, 3], [256] * 768), "no whole numbers from 0 to 255"),
        (tensor([1, 16, 16, 3], [-1] * 768), "no whole numbers from 0 to 255"),
        (tensor([1, 16, 16, 3], [0.5] * 768), "no whole numbers from 0 to 255"),
        (tensor([1, 16, 16, 3], [[1], [2, 3]]), "the data are no array"),
        (tensor([1], ["bm9uZQ=="], datatype="BYTES"), "image 1: is not an image"),
        (tensor([1], "bm9uZQ==", datatype="BYTES"), "expected a list"),
        (tensor([1], [], datatype="BYTES"), "contains no image"),
        (
            {"inputs": [{"datatype": "BYTES", "shape": [1]}]},
            "no `data` and no `binary_data_size`: expected `data`, or a `binary_data_size` equal "
            "to the 0 bytes after the JSON",
        ),
        (
            {"inputs": [{"datatype": "BYTES", "parameters": {"binary_data_size": 7}}]},
            "no `data` and `binary_data_size` 7: expected",
        ),
        (
            tensor([2], ["bm9uZQ=="], datatype="BYTES"),
            "1 images: expected as many as",
        ),
        (
            tensor([1], ["bm9uZQ=="], datatype="BYTES") | {"id": math.nan},
            "id nan: expected a str",
        ),
        (
            tensor([1, 16, 16, 3], [0] * 768)
            | {"outputs": [{"name": "labels", "parameters": {"classification": 2}}]},
            "the classification extension is not supported",
        ),
    ],
)
def test_a_bad_input_gets_a_reason(body: object, reason: str, client: httpx.Client) -> None:
    response = client.post(INFER, content=json.dumps(body))
    assert response.status_code == 422
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("length", "data", "reason"),
    [
        ("99999", b"", "Inference-Header-Content-Length 99999: expected the number of bytes"),
        ("-1", b"", "Inference-Header-Content-Length -1: expected"),
        (None, b"\xff\0\0\0ab", "element 1 is cut off: expected 255 bytes, found 2"),
        (None, b"ab", "element 1 is cut off"),
        ("3", b"", "the header of the body is not JSON"),
    ],
)
def test_damaged_binary_data_get_a_reason(
    length: str | None, data: bytes, reason: str, client: httpx.Client
) -> None:
    entry = {"datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [entry]}).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(header))}
    response = client.post(INFER, content=header + data, headers=headers)
    assert response.status_code == 422
    assert reason in response.json()["error"]


def test_too_many_images_are_refused(client: httpx.Client) -> None:
    response = client.post(INFER, json=tensor([65, 16, 16, 3], [0]))
    assert response.status_code == 413


def test_text_that_utf8_cannot_encode_is_returned_as_it_came(client: httpx.Client) -> None:
    body = tensor([1, 16, 16, 3], [0] * 768) | {"id": "\ud800"}
    response = client.post(INFER, content=json.dumps(body))
    assert response.status_code == 200
    assert json.loads(response.content)["id"] == "\ud800"


def test_a_compressed_body_is_refused_with_a_reason(client: httpx.Client) -> None:
    body = gzip.compress(json.dumps(tensor([1, 16, 16, 3], [0] * 768)).encode())
    response = client.post(INFER, content=body, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415
    assert response.json() == {"error": "content encoding gzip: send the body uncompressed"}
