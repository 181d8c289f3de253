"""A run travels to a repository and back; the hub is a server here, its client the real one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import residua
from residua.errors import ResiduaError
from residua.report.model_card import MODEL_CARD, model_card
from residua.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("one_thread")
REPOSITORY, TOKEN = "me/birds", "hf_secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """The endpoints of a hub that the client uses for small repositories."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, value: object, status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.answer(
            status, json.dumps(value).encode(), {"Content-Type": "application/json"} | named
        )

    def refuse(self, status: int, code: str) -> None:
        self.answer_json({"error": code}, status, X_Error_Code=code)

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        path = re.fullmatch(r"/(\w+/\w+)/resolve/([^/]+)/(.+)", self.path)
        if not path or path[1] not in self.server.files:
            self.refuse(401, "RepoNotFound")
        elif path[2] not in ("main", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif path[3] not in self.server.files[path[1]]:
            self.refuse(404, "EntryNotFound")
        else:
            content = self.server.files[path[1]][path[3]]
            etag = hashlib.sha1(content).hexdigest()
            self.answer(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "")
        elif self.path == "/api/repos/create":
            owner, name = REPOSITORY.split("/")
            assert json.loads(body)["name"] == name
            self.server.files.setdefault(f"{owner}/{name}", {})
            self.answer_json({"url": f"{self.server.address}/{REPOSITORY}"})
        elif self.path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [file | {"uploadMode": "regular"} for file in json.loads(body)["files"]]
            self.answer_json({"files": [file | {"shouldIgnore": False} for file in files]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[REPOSITORY][line["value"]["path"]] = content
            address = f"{self.server.address}/{REPOSITORY}/commit/{COMMIT}"
            self.answer_json({"success": True, "commitOid": COMMIT, "commitUrl": address})
        else:
            self.refuse(404, "")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A running hub; the cache is empty, the user's token is valid."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run, which has a model card."""
    settings = {"network.head": "linear", "network.stage": 1, "training.precise_bn_images": 0}
    out = tmp_path_factory.mktemp("trained") / "run"
    return residua.train(
        shapes, model="cifar_resnet14", size=16, epochs=1, out=out, quiet=True, settings=settings
    ).folder


def predictions(source: object, images: Path) -> Any:
    return [(row.file, row.top) for row in residua.predict(source, images)]  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_travels_to_a_repository_and_back(hub: Hub, run: RunFolder, tmp_path: Path) -> None:
    assert residua.push(run.path, REPOSITORY) == f"{hub.address}/{REPOSITORY}"
    files = hub.files[REPOSITORY]
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    _, front, text = files["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(front)["pipeline_tag"] == "image-classification"
    card = model_card(run)
    assert files["README.md"].decode().startswith(card)
    assert f"residua predict hub:{REPOSITORY} image.jpg" in text
    (run.path / "model_card.md").rename(tmp_path / "moved")
    with pytest.raises(ResiduaError, match=r"model_card\.md: cannot be read"):
        residua.push(run.path, REPOSITORY)
    (tmp_path / "moved").rename(run.path / "model_card.md")
    config = json.loads(files["config.json"])
    assert config["id2label"] == {"0": "class0", "1": "class1", "2": "class2"}
    size = run.config.preprocessing.size
    preprocessor = json.loads(files["preprocessor_config.json"])
    assert preprocessor["size"] == {"height": size, "width": size}

    images = Path(run.config.data.path)
    expected = predictions(run.path, images)
    for source in (f"hub:{REPOSITORY}", f"hub:{REPOSITORY}@{COMMIT}"):
        hub.requests.clear()
        assert predictions(source, images) == expected
        assert all(path.endswith("/model.safetensors") for path in hub.requests)
    assert residua.evaluate(f"hub:{REPOSITORY}", images).metrics.accuracy > 0
    hub.files.clear()
    assert predictions(f"hub:{REPOSITORY}@{COMMIT}", images) == expected  # from the cache


@pytest.mark.slow
def test_a_training_starts_from_a_repository(hub: Hub, run: RunFolder, tmp_path: Path) -> None:
    residua.push(run.path, REPOSITORY)
    trained = residua.train(
        run.config.data.path,
        weights=f"hub:{REPOSITORY}",
        transfer="none",
        epochs=1,
        out=tmp_path / "trained",
        quiet=True,
    )
    assert trained.config.network.weights == f"hub:{REPOSITORY}"
    assert trained.config.network.name == run.config.network.name


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hub:me/other", "has no repository me/other, or it is private"),
        (f"hub:{REPOSITORY}@v9", "me/birds has no revision 'v9'"),
        ("hub:me/empty", "me/empty has no model.safetensors"),
        ("hub:me", "'me': expected a repository, OWNER/NAME"),
        ("hub:../etc", "'../etc': expected a repository, OWNER/NAME"),
        ("hub:", "'': expected a repository, OWNER/NAME"),
    ],
)
def test_what_cannot_be_downloaded_has_a_reason(source: str, reason: str, hub: Hub) -> None:
    hub.files |= {REPOSITORY: {"model.safetensors": b""}, "me/empty": {"pytorch_model.bin": b""}}
    with pytest.raises(ResiduaError, match=re.escape(reason)):
        residua.predict(source, "image.jpg")
    assert not any(path.endswith(".bin") for path in hub.requests)


def test_without_a_connection_the_reason_is_stated(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ResiduaError, match=r"127\.0\.0\.1:9 cannot be reached"):
        residua.predict(f"hub:{REPOSITORY}", "image.jpg")
    assert time.monotonic() - began < 5  # huggingface_hub alone retries for 24 s


def test_pushing_needs_a_valid_token_and_the_package(
    hub: Hub, shapes: Path, write_run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(shapes)
    (run.path / MODEL_CARD).touch()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ResiduaError, match=r"status 401. Check the token"):
        residua.push(run.path, REPOSITORY)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(ResiduaError, match="uploading needs a token"):
        residua.push(run.path, REPOSITORY)
    with pytest.raises(ResiduaError, match="expected a repository, OWNER/NAME"):
        residua.push(run.path, "birds")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ResiduaError, match="pip install huggingface_hub"):
        residua.push(run.path, REPOSITORY)
