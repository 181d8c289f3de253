"""A real server answers as `residua predict` does, and refuses what is beyond its limits."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from serving.conftest import png, serving

from residua.data.dataset import Pixels
from residua.evaluation.explain import explain_images
from residua.evaluation.heat import overlay
from residua.evaluation.inputs import Reading, inputs_of
from residua.evaluation.predict import predict_images
from residua.evaluation.predictor import Output
from residua.serving.batcher import Batcher
from residua.serving.limits import Limits
from residua.serving.service import Model
from residua.weights.load import Weights


def rows_of(weights: Weights, files: list[Path], names: list[str], top: int) -> list[Any]:
    """The rows of `residua predict --format json` for files that the server knows as `names`."""
    reading = Reading(weights.metadata.preprocessing, max_pixels=10**6)
    rows = predict_images(weights, inputs_of([str(file) for file in files], reading), top)
    return [row.to_json() | {"file": name} for row, name in zip(rows, names, strict=True)]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    def without(rows: list[Any]) -> list[Any]:
        names = [[entry["class"] for entry in row["top"]] for row in rows]
        return [(row["file"], row["error"], name) for row, name in zip(rows, names, strict=True)]

    def probabilities(rows: list[Any]) -> list[float]:
        return [entry["probability"] for row in rows for entry in row["top"]]

    assert without(found) == without(expected)
    assert probabilities(found) == pytest.approx(probabilities(expected), abs=1e-6)


def test_several_files_of_a_form_get_the_rows_of_predict(
    client: httpx.Client, weights: Weights, images: list[Path]
) -> None:
    parts = [("images", (file.name, file.read_bytes())) for file in images]
    response = client.post("/predict", files=parts, params={"top": 2})
    assert response.status_code == 200
    assert_same(response.json(), rows_of(weights, images, ["a.jpg", "b.png", "c.jpg"], 2))


def test_raw_bytes_and_base64_get_the_same_rows(
    client: httpx.Client, weights: Weights, images: list[Path]
) -> None:
    expected = rows_of(weights, images[:2], ["image1", "image2"], 3)
    for kind in ("image/jpeg", "application/octet-stream"):
        headers = {"Content-Type": kind}
        response = client.post("/predict", content=images[0].read_bytes(), headers=headers)
        assert_same(response.json(), expected[:1])
    texts = [base64.b64encode(file.read_bytes()).decode() for file in images[:2]]
    assert_same(client.post("/predict", json={"images": texts}).json(), expected)
    response = client.post("/predict", json={"image": f"data:image/jpeg;base64,{texts[0]}"})
    assert_same(response.json(), expected[:1])


FORM = "multipart/form-data; boundary=x"
NAMED = (
    b'--x\r\nContent-Disposition: form-data; name="images"; filename="a-!"\r\n\r\nx\r\n--x--\r\n'
)


@pytest.mark.parametrize(
    ("content", "kind", "status", "reason"),
    [
        (b"no image", "image/png", 422, "is not an image: starts with 'no'"),
        (b"", "image/png", 422, "is empty"),
        (b"x", "text/plain", 415, "content type text/plain: expected multipart/form-data"),
        (b"x", "", 415, "content type missing"),
        (b"{", "application/json", 422, "the body is not JSON"),
        (b"[" * 100_000, "application/json", 422, "the body is not JSON"),
        (b'{"images": "*"}', "application/json", 422, "image 1: is not base64"),
        (b'{"images": [3]}', "application/json", 422, "image 1: expected a base64 string"),
        (b"[]", "application/json", 422, "expected {"),
        (b'{"images": []}', "application/json", 422, "contains no image"),
        (b"--x--\r\n", FORM, 422, "contains no image"),
        (b"nonsense", FORM, 422, "the form cannot be read"),
        (b"x", "multipart/form-data", 422, "the form cannot be read"),
        (NAMED, f"{FORM}; charset=punycode", 422, "the form cannot be read"),
    ],
)
def test_a_bad_request_gets_a_reason(
    content: bytes, kind: str, status: int, reason: str, client: httpx.Client
) -> None:
    response = client.post("/predict", content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert reason in response.json()["error"]


def test_other_routes_methods_and_parameters_get_a_reason(client: httpx.Client) -> None:
    assert client.get("/nowhere").json()["error"].startswith("/nowhere: there is no such route")
    response = client.get("/predict")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")
    assert response.json()["error"].startswith("GET /predict: expected POST")
    response = client.post("/predict?top=0", content=png(8, 8))
    assert (response.status_code, response.json()["error"].split(":")[0]) == (422, "top")


@pytest.fixture(scope="module")
def small(model: Model) -> Iterator[httpx.Client]:
    """A server with small limits."""
    with serving(model, Limits(bytes=5000, pixels=100, images=2)) as client:
        yield client


def test_too_many_bytes_are_refused_also_without_a_length(small: httpx.Client) -> None:
    for content in (b"x" * 5001, iter([b"x" * 1000] * 300)):
        headers = {"Content-Type": "image/png"}
        response = small.post("/predict", content=content, headers=headers)
        assert response.status_code == 413
        assert "more than 5,000 bytes: send fewer images" in response.json()["error"]


def test_too_many_pixels_or_images_are_refused(small: httpx.Client) -> None:
    def post(*contents: bytes) -> httpx.Response:
        return small.post("/predict", files=[("images", ("a.png", data)) for data in contents])

    assert post(png(10, 10)).status_code == 200
    response = post(png(10, 11))
    assert response.status_code == 422
    assert "10 x 11 pixels are more than the limit of 100" in response.json()["error"]
    assert post(*[png(4, 4)] * 3).status_code == 413
    text = base64.b64encode(png(4, 4)).decode()
    response = small.post("/predict", json={"images": [text] * 3})
    assert response.status_code == 413
    assert "3 images: at most 2 per request; send several requests" in response.json()["error"]


class Gate:
    """A model that waits until `open` is set, and records the batches that it got."""

    def __init__(self, model: Model) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self.model = dataclasses.replace(model, run=self.run)
        self.inner = model.run

    def run(self, pixels: Pixels) -> list[Output]:
        self.batches.append(len(pixels))
        self.entered.set()
        assert self.open.wait(20)
        return self.inner(pixels)


@pytest.fixture
def gate(model: Model) -> Iterator[Gate]:
    gate = Gate(model)
    yield gate
    gate.open.set()


def post_images(client: httpx.Client, count: int) -> Iterator[httpx.Response]:
    """Responses to `count` requests at the same time, each with another image."""
    rule = {"Content-Type": "image/png"}

    def post(number: int) -> httpx.Response:
        return client.post("/predict", content=png(16 + number, 16), headers=rule)

    with ThreadPoolExecutor(count) as pool:
        yield from pool.map(post, range(count))


def test_the_evidence_is_the_heat_map_of_explain(
    client: httpx.Client, weights: Weights, images: list[Path]
) -> None:
    content = images[1].read_bytes()
    response = client.post("/explain", content=content, headers={"Content-Type": "image/png"})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    inputs = inputs_of([str(images[1])], Reading(weights.metadata.preprocessing, max_pixels=10**6))
    (explanation,) = explain_images(weights, inputs, device=torch.device("cpu"))
    expected = overlay(explanation.pixels, explanation.heat).astype(int)
    with Image.open(io.BytesIO(response.content)) as image:
        difference = np.abs(np.asarray(image).astype(int) - expected).mean()
    other = np.abs(overlay(explanation.pixels, 1 - explanation.heat) - expected).mean()
    assert difference < other / 2  # JPEG changes noise a little


def test_evidence_needs_one_readable_image(client: httpx.Client, images: list[Path]) -> None:
    kind = {"Content-Type": "image/png"}
    response = client.post("/explain", content=b"no image", headers=kind)
    assert (response.status_code, list(response.json())) == (422, ["error"])
    files = [("images", (file.name, file.read_bytes())) for file in images[:2]]
    response = client.post("/explain", files=files)
    assert (response.status_code, response.json()["error"]) == (422, "2 images: expected one")


def test_requests_that_wait_share_a_batch(gate: Gate, client: httpx.Client) -> None:
    with serving(gate.model, Limits(delay=0.2)) as gated:
        responses = post_images(gated, 12)
        threading.Timer(0.5, gate.open.set).start()
        found = [response.json()[0]["top"] for response in responses]
        alone = [response.json()[0]["top"] for response in post_images(client, 12)]
    assert sum(gate.batches) == 12
    assert len(gate.batches) <= 4
    for batched, single in zip(found, alone, strict=True):
        assert [row["class"] for row in batched] == [row["class"] for row in single]
        values = [row["probability"] for row in single]
        assert [row["probability"] for row in batched] == pytest.approx(values, abs=1e-6)


def test_an_image_waits_for_others_only_while_some_are_decoded(model: Model) -> None:
    with serving(model, Limits(delay=20.0)) as client:
        began = time.monotonic()
        assert [response.status_code for response in post_images(client, 1)] == [200]
        assert time.monotonic() - began < 10
    decoding, asked, sizes = threading.Event(), threading.Event(), list[int]()

    def expects_more() -> bool:
        expected = decoding.is_set()
        asked.set()
        return expected

    batcher = Batcher(model.run, Limits(delay=20.0), expects_more, sizes.append)
    decoding.set()
    pixels = np.zeros(model.shape, np.uint8)
    (first,) = batcher.submit([pixels])
    assert asked.wait(10)
    decoding.clear()
    (second,) = batcher.submit([pixels])
    assert len(first.result(10).probabilities) == len(second.result(10).probabilities)
    batcher.close()
    assert sizes == [2]


def test_too_many_requests_and_images_are_refused_for_a_while(gate: Gate) -> None:
    limits = Limits(requests=2, waiting=1, batch=1, delay=0.0)
    with serving(gate.model, limits) as client, ThreadPoolExecutor(2) as pool:
        headers = {"Content-Type": "image/png"}
        first = pool.submit(client.post, "/predict", content=png(4, 4), headers=headers)
        assert gate.entered.wait(5)
        files = [("images", ("a.png", png(4, 4)))] * 2
        refused = client.post("/predict", files=files)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert refused.json()["error"] == (
            "0 images are waiting and the limit is 1, so 2 more do not fit; try again in 1 s"
        )
        second = pool.submit(client.post, "/predict", content=png(4, 4), headers=headers)
        while "in_progress 3" not in client.get("/metrics").text:
            pass
        refused = client.post("/predict", content=png(4, 4), headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert "more than 2 requests at the same time: try again in 1 s" in refused.json()["error"]
        gate.open.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)


def test_a_request_that_takes_too_long_gets_503(gate: Gate) -> None:
    with serving(gate.model, Limits(seconds=0.2)) as client:
        headers = {"Content-Type": "image/png"}
        response = client.post("/predict", content=png(4, 4), headers=headers)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert "not finished within 0.2 s: try again in 5 s" in response.json()["error"]
        gate.open.set()
        statuses = (client.post("/predict", content=png(4, 4), headers=headers) for _ in range(50))
        assert any(response.status_code == 200 for response in statuses)  # a busy machine is slow


def test_an_internal_error_is_reported_without_a_traceback(model: Model) -> None:
    def fail(_: Pixels) -> list[Output]:
        raise RuntimeError("the secret reason")

    errors: list[str] = []
    with serving(dataclasses.replace(model, run=fail), report=errors.append) as client:
        headers = {"Content-Type": "image/png"}
        response = client.post("/predict", content=png(4, 4), headers=headers)
    assert response.status_code == 500
    assert response.json() == {"error": "internal error; the log of the server has the reason"}
    assert errors == ["POST /predict: RuntimeError: the secret reason"]


def test_outputs_that_are_not_finite_are_an_error(model: Model) -> None:
    broken = dataclasses.replace(
        model, run=lambda pixels: [Output(np.full(10, np.nan))] * len(pixels)
    )
    with serving(broken) as client:
        headers = {"Content-Type": "image/png"}
        response = client.post("/predict", content=png(4, 4), headers=headers)
        assert response.status_code == 422
        assert "the network's outputs are not finite" in response.json()["error"]
        entry = {"datatype": "UINT8", "shape": [1, 16, 16, 3], "data": [0] * 768}
        response = client.post("/v2/models/net/infer", json={"inputs": [entry]})
        assert response.status_code == 500


def test_a_token_is_required_everywhere_but_on_the_page_and_for_health(model: Model) -> None:
    with serving(model, token="geheim ü") as client:
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert client.get(path).status_code == 200
        assert 'id="token"' in client.get("/").text
        for path in ("/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/net", "/nowhere"):
            assert client.get(path).status_code == 401
        for token in ("", "Bearer", "Bearer geheim", "geheim ü", "bearer geheim ü"):
            headers = {"Authorization": token.encode(), "Content-Type": "image/png"}
            response = client.post("/predict", content=png(4, 4), headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
        headers = {"Authorization": "Bearer geheim ü".encode(), "Content-Type": "image/png"}
        assert client.post("/predict", content=png(4, 4), headers=headers).status_code == 200


def test_metrics_count_requests_images_and_batches(model: Model, images: list[Path]) -> None:
    with serving(model) as client:
        parts = [("images", (file.name, file.read_bytes())) for file in images]
        client.post("/predict", files=parts)
        client.get("/v2/models/net")
        client.get("/v2/models/another")
        client.get("/nowhere")
        text = client.get("/metrics").text
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert samples['residua_requests_total{path="/predict",status="200"}'] == "1"
    assert samples['residua_requests_total{path="/v2/models/{name}",status="404"}'] == "1"
    assert samples['residua_requests_total{path="other",status="404"}'] == "1"
    assert samples['residua_images_total{outcome="predicted"}'] == "2"
    assert samples['residua_images_total{outcome="unreadable"}'] == "1"
    assert samples['residua_batch_images_bucket{le="2.0"}'] == "1"
    assert samples["residua_batch_images_sum"] == "2.0"
    assert samples["residua_request_seconds_count"] == "4"
    assert samples["residua_requests_in_progress"] == "1"
    assert all(
        re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})?', name) for name in samples
    )


def test_pages_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    for path in ("/", "/docs"):
        response = client.get(path)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.text)
    assert "<h1>net</h1>" in client.get("/").text
    description = client.get("/openapi.json").json()
    assert "POST /predict" in client.get("/docs").text
    body = description["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/octet-stream", "application/json"}
    infer = description["paths"]["/v2/models/{name}/infer"]["post"]
    assert [(row["name"], row["schema"]["enum"]) for row in infer["parameters"]] == [
        ("name", ["net"])
    ]
    assert infer["responses"].keys() == {"200", "401", "404", "413", "415", "422", "429", "503"}


def test_a_class_name_is_data_not_html(client: httpx.Client, images: list[Path]) -> None:
    headers = {"Content-Type": "image/png"}
    response = client.post("/predict", content=images[0].read_bytes(), headers=headers)
    assert response.headers["content-type"] == "application/json"
    assert "<b>class" in json.loads(response.text)[0]["top"][0]["class"]
    assert "innerHTML" not in client.get("/").text
