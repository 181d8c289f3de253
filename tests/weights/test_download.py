"""A download from a real server on loopback is complete and verified, or fails with a reason."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request

import numpy as np
import pytest
from rich.console import Console as RichConsole

from residua.config import parse
from residua.errors import ResiduaError
from residua.networks.zoo import catalogue
from residua.system.console import Console
from residua.system.files import cache_folder
from residua.weights.published import download as module
from residua.weights.published.download import download
from residua.weights.published.imagenet import SOURCES

CONTENT = hashlib.shake_256(b"weights").digest(300_000)
OTHER = hashlib.shake_256(b"other weights").digest(300_000)
QUIET = Console(quiet=True)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


PUBLISHED = sha256(CONTENT)[: len("sha256:") + 8]


@dataclass
class Publisher:
    """What the server does, and the requests it got. breaks, statuses: of the next responses."""

    content: bytes = CONTENT
    etag: str = '"one"'
    kind: str = "application/octet-stream"
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    hub: dict[str, str] = field(default_factory=dict)
    redirect: str = "/file"
    honest: bool = True  # respects If-Range
    measured: bool = True  # sends Content-Length
    surplus: bytes = b""  # sent after the content, and counted in Content-Length
    pause: float = 0.0  # seconds between pieces of 10,000 bytes
    gate: threading.Event = field(default_factory=threading.Event)  # after 100,000 bytes
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # path, Range, If-Range
    address: str = ""

    def __post_init__(self) -> None:
        self.gate.set()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range", "")
        condition = handler.headers.get("If-Range", "")
        self.requests.append((handler.path, wanted, condition))
        status = self.statuses.pop(0) if self.statuses else 200
        if handler.path == "/hub":
            status = 302
        start = 0
        if status == 200 and wanted and (condition == self.etag or not self.honest):
            status, start = 206, int(wanted.removeprefix("bytes=").removesuffix("-"))
        handler.send_response(status)
        if status == 302:
            for name, value in {**self.hub, "Location": self.redirect}.items():
                handler.send_header(name, value)
        if status not in (200, 206):
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if status == 206:
            whole = len(self.content)
            handler.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if self.measured:
            length = len(self.content) - start + len(self.surplus)
            handler.send_header("Content-Length", str(length))
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Type", self.kind)
        handler.end_headers()
        body = self.content[: self.breaks.pop(0)] if self.breaks else self.content + self.surplus
        for piece in range(start, len(body), 10_000):
            handler.wfile.write(body[piece : piece + 10_000])
            time.sleep(self.pause)
            if piece == 90_000:
                self.gate.wait(60)
        handler.close_connection = True


@contextlib.contextmanager
def serving(publisher: Publisher) -> Iterator[None]:
    """A server in a thread, which ends with the block; publisher.address is its file."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                publisher.respond(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    publisher.address = f"http://127.0.0.1:{server.server_port}/file"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    server = Publisher()
    with serving(server):
        yield server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow soon, and no proxy of this machine is used."""
    monkeypatch.setattr(module, "_WAITS", (0.01, 0.01, 0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def files_in(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {".lock"}


def stop_halfway(publisher: Publisher, cache: Path, digest: str, end: int = 120_000) -> None:
    """A download that is interrupted at `end` bytes in every attempt."""
    publisher.breaks = [end] * 4
    with pytest.raises(ResiduaError, match="interrupted after"):
        download(publisher.address, "net.pth", digest, cache, QUIET)
    publisher.breaks, publisher.requests = [], []
    assert (cache / "net.pth.part").stat().st_size == end


def test_a_verified_file_needs_no_network(cache: Path) -> None:
    publisher = Publisher()
    with serving(publisher):
        path = download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    assert path == cache / "net.pth"
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == {"net.pth", "net.pth.json"}
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET) == path
    assert len(publisher.requests) == 1


def test_an_interrupted_download_requests_only_what_is_missing(
    publisher: Publisher, cache: Path
) -> None:
    publisher.breaks = [100_000, 200_000]
    path = download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    assert path.read_bytes() == CONTENT
    assert publisher.requests == [
        ("/file", "", ""),
        ("/file", "bytes=100000-", '"one"'),
        ("/file", "bytes=200000-", '"one"'),
    ]


def test_a_later_call_resumes(publisher: Publisher, cache: Path) -> None:
    stop_halfway(publisher, cache, PUBLISHED)
    path = download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    assert path.read_bytes() == CONTENT
    assert publisher.requests == [("/file", "bytes=120000-", '"one"')]


def test_a_complete_part_is_not_requested_again(publisher: Publisher, cache: Path) -> None:
    stop_halfway(publisher, cache, PUBLISHED)
    (cache / "net.pth.part").write_bytes(CONTENT)
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET).read_bytes() == CONTENT
    assert publisher.requests == []


@pytest.mark.parametrize("honest", [True, False])
def test_a_changed_file_starts_over(publisher: Publisher, cache: Path, honest: bool) -> None:
    stop_halfway(publisher, cache, "")
    publisher.content, publisher.etag, publisher.honest = OTHER, '"two"', honest
    assert download(publisher.address, "net.pth", "", cache, QUIET).read_bytes() == OTHER
    assert publisher.requests[0] == ("/file", "bytes=120000-", '"one"')


def test_parts_are_not_joined_without_etag_or_hash(publisher: Publisher, cache: Path) -> None:
    publisher.etag = ""
    stop_halfway(publisher, cache, "")
    publisher.content = OTHER
    assert download(publisher.address, "net.pth", "", cache, QUIET).read_bytes() == OTHER
    assert publisher.requests == [("/file", "", "")]


def test_a_part_of_another_address_is_not_continued(publisher: Publisher, cache: Path) -> None:
    stop_halfway(publisher, cache, "")
    other = Publisher(content=OTHER)  # with the same ETag
    with serving(other):
        assert download(other.address, "net.pth", "", cache, QUIET).read_bytes() == OTHER
    assert other.requests == [("/file", "", "")]


def test_a_damaged_part_does_not_become_the_file(publisher: Publisher, cache: Path) -> None:
    stop_halfway(publisher, cache, PUBLISHED)
    (cache / "net.pth.part").write_bytes(OTHER[:120_000])
    with pytest.raises(ResiduaError, match="was deleted"):
        download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET).read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_hash_is_refused(publisher: Publisher, cache: Path, kind: str) -> None:
    published = f"{kind}:{hashlib.new(kind, OTHER).hexdigest()}"
    with pytest.raises(ResiduaError) as refused:
        download(publisher.address, "net.h5", published, cache, QUIET)
    for text in (published, hashlib.new(kind, CONTENT).hexdigest(), "instead of imagenet:NAME"):
        assert text in str(refused.value)
    assert files_in(cache) == set()


def test_an_md5_is_verified(publisher: Publisher, cache: Path) -> None:
    published = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    assert download(publisher.address, "net.h5", published, cache, QUIET).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"statuses": [404]}, "responds with 404 Not Found"),
        ({"statuses": [403]}, "responds with 403 Forbidden"),
        ({"statuses": [500] * 4}, "responds with 500 Internal Server Error"),
        ({"kind": "text/html; charset=utf-8"}, "web page"),
        ({"content": b"\n<!DOCTYPE html><title>Sign in</title>"}, "web page"),
        ({"content": b'<?xml version="1.0"?><Error/>'}, "web page"),
        ({"measured": False}, "does not announce the size"),
        ({"content": b""}, "does not announce the size"),
    ],
)
def test_a_response_without_the_file_is_an_error_with_every_way_out(
    publisher: Publisher, cache: Path, change: dict[str, object], reason: str
) -> None:
    for name, value in change.items():
        setattr(publisher, name, value)
    with pytest.raises(ResiduaError) as refused:
        download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    for words in (publisher.address, reason, "instead of imagenet:NAME", str(cache / "net.pth")):
        assert words in str(refused.value)
    assert files_in(cache) == set()


def test_without_network_the_error_names_the_address_and_the_path(cache: Path) -> None:
    with serving(publisher := Publisher()):
        pass
    with pytest.raises(ResiduaError, match=r"cannot be reached: .*refused") as refused:
        download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    assert publisher.address in str(refused.value)
    assert str(cache / "net.pth") in str(refused.value)


def test_a_busy_server_gets_another_request(publisher: Publisher, cache: Path) -> None:
    publisher.statuses = [503, 429]
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET).read_bytes() == CONTENT


def test_a_refused_range_starts_over(publisher: Publisher, cache: Path) -> None:
    stop_halfway(publisher, cache, PUBLISHED)
    publisher.statuses = [416]
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET).read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in publisher.requests] == ["bytes=120000-", ""]


def test_no_more_bytes_are_read_than_announced(publisher: Publisher, cache: Path) -> None:
    stop_halfway(publisher, cache, PUBLISHED, end=125_000)
    publisher.surplus = OTHER  # behind a Content-Range that ends with the content
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET).read_bytes() == CONTENT
    assert len(publisher.requests) == 1


@pytest.mark.slow
def test_a_silent_server_ends_the_attempt(
    publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    publisher.pause = 1.0
    began = time.monotonic()
    with pytest.raises(ResiduaError, match=r"interrupted after 40,000 of 300,000.*timed out"):
        download(publisher.address, "net.pth", PUBLISHED, cache, QUIET)
    assert time.monotonic() - began < 5
    publisher.pause = 0
    assert download(publisher.address, "net.pth", PUBLISHED, cache, QUIET).read_bytes() == CONTENT


HUB = {"X-Repo-Commit": "c0ffee", "X-Linked-Etag": f'"{sha256(CONTENT).partition(":")[2]}"'}


def test_the_hash_of_the_hub_is_recorded_and_required(publisher: Publisher, cache: Path) -> None:
    publisher.hub = HUB
    address = publisher.address.replace("/file", "/hub")
    path = download(address, "net.safetensors", "", cache, QUIET)
    record = json.loads((cache / "net.safetensors.json").read_text("utf-8"))
    assert (record["address"], record["commit"]) == (address, "c0ffee")
    assert (record["digest"], record["size"]) == (sha256(CONTENT), len(CONTENT))
    path.unlink()
    publisher.content = OTHER
    publisher.hub = {**HUB, "X-Linked-Etag": sha256(OTHER).partition(":")[2]}
    with pytest.raises(ResiduaError) as refused:
        download(address, "net.safetensors", "", cache, QUIET)
    for text in (sha256(CONTENT), sha256(OTHER), f"{cache / 'net.safetensors.json'} (delete it"):
        assert text in str(refused.value)
    assert files_in(cache) == {"net.safetensors.json"}
    publisher.content, publisher.hub = CONTENT, HUB
    assert download(address, "net.safetensors", "", cache, QUIET).read_bytes() == CONTENT


def test_the_hash_of_the_hub_is_verified(publisher: Publisher, cache: Path) -> None:
    publisher.hub, publisher.content = HUB, OTHER
    with pytest.raises(ResiduaError, match=f"its server states {sha256(CONTENT)}"):
        download(publisher.address.replace("/file", "/hub"), "net", "", cache, QUIET)
    assert files_in(cache) == set()


def test_a_redirected_download_resumes(publisher: Publisher, cache: Path) -> None:
    publisher.hub, publisher.breaks = HUB, [100_000]
    address = publisher.address.replace("/file", "/hub")
    assert download(address, "net", "", cache, QUIET).read_bytes() == CONTENT
    assert publisher.requests[-2:] == [
        ("/hub", "bytes=100000-", '"one"'),
        ("/file", "bytes=100000-", '"one"'),
    ]


def test_a_redirect_must_not_lose_security(publisher: Publisher, cache: Path) -> None:
    publisher.redirect = "ftp://127.0.0.1/file"
    with pytest.raises(ResiduaError, match=r"302 Found, to ftp:.*, which is less secure"):
        download(publisher.address.replace("/file", "/hub"), "net", PUBLISHED, cache, QUIET)


def test_a_redirect_from_https_to_http_is_refused() -> None:
    request = Request("https://weights.invalid/file")
    with pytest.raises(HTTPError, match="less secure"):
        module._SecureRedirects().redirect_request(
            request, io.BytesIO(), 302, "Found", HTTPMessage(), "http://weights.invalid/other"
        )


def test_a_proxy_of_the_environment_is_used(
    publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", publisher.address.removesuffix("/file"))
    monkeypatch.setenv("no_proxy", "")
    download("http://weights.invalid/file", "net", PUBLISHED, cache, QUIET)
    assert publisher.requests == [("http://weights.invalid/file", "", "")]


@pytest.mark.parametrize("damage", ["bit", "cut"])
@pytest.mark.parametrize("digest", ["", PUBLISHED])
def test_a_damaged_file_is_detected_and_downloaded_again(
    publisher: Publisher,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    digest: str,
) -> None:
    path = download(publisher.address, "net.pth", digest, cache, QUIET)
    rotten = bytearray(CONTENT)
    rotten[200_000] ^= 1
    path.write_bytes(rotten if damage == "bit" else CONTENT[:200_000])
    assert download(publisher.address, "net.pth", digest, cache, Console()).read_bytes() == CONTENT
    printed = capsys.readouterr().err
    assert f"warning: {path}: has the hash sha256:" in printed
    assert "downloading it again" in printed


def test_a_file_added_by_hand_is_used(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the published hash it is used; where none is published, it must not change later."""
    address = "http://127.0.0.1:9/file"  # no server listens on this port
    cache.mkdir()
    (cache / "net.pth").write_bytes(CONTENT)
    assert download(address, "net.pth", PUBLISHED, cache, Console()) == cache / "net.pth"
    assert capsys.readouterr().err == ""
    assert files_in(cache) == {"net.pth"}  # and no lock, since the folder may be read-only
    assert not (cache / ".lock").exists()
    assert download(address, "net.pth", "", cache, Console()) == cache / "net.pth"
    assert sha256(CONTENT) in capsys.readouterr().err
    (cache / "net.pth").write_bytes(OTHER)
    for digest in (PUBLISHED, ""):
        with pytest.raises(ResiduaError, match="cannot be reached"):
            download(address, "net.pth", digest, cache, QUIET)


CHILD = """
import sys
from pathlib import Path
from residua.errors import ResiduaError
from residua.system.console import Console
from residua.weights.published.download import download
address, digest, folder, limit = sys.argv[1:]
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    print(download(address, "net.pth", digest, Path(folder), Console()))
except ResiduaError as error:
    sys.exit(f"refused: {error}")
"""


def child(address: str, cache: Path, limit: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, address, PUBLISHED, str(cache), limit],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(part: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= size):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_download_resumes(publisher: Publisher, cache: Path) -> None:
    publisher.gate.clear()
    killed = child(publisher.address, cache)
    wait_for(cache / "net.pth.part", 50_000)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    publisher.gate.set()
    assert not (cache / "net.pth").exists()
    have = (cache / "net.pth.part").stat().st_size
    assert 50_000 <= have <= 100_000
    ended = child(publisher.address, cache)
    assert ended.communicate(timeout=60)[0].strip() == str(cache / "net.pth")
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert publisher.requests[1:] == [("/file", f"bytes={have}-", '"one"')]
    assert files_in(cache) == {"net.pth", "net.pth.json"}


@pytest.mark.slow
def test_two_processes_download_once(publisher: Publisher, cache: Path) -> None:
    publisher.gate.clear()
    first = child(publisher.address, cache)
    wait_for(cache / "net.pth.part", 1)
    second = child(publisher.address, cache)
    assert second.stderr
    assert "another process that is downloading" in second.stderr.readline()
    publisher.gate.set()
    for process in (first, second):
        assert process.communicate(timeout=60)[0].strip() == str(cache / "net.pth")
    assert (cache / "net.pth").read_bytes() == CONTENT
    assert len(publisher.requests) == 1


@pytest.mark.slow
def test_a_full_disk_is_an_error_with_every_way_out(publisher: Publisher, cache: Path) -> None:
    _, error = child(publisher.address, cache, limit="100000").communicate(timeout=30)
    assert re.fullmatch(
        r"refused: http.*cannot be saved in .*RESIDUA_CACHE.*instead of imagenet:NAME.*\n", error
    )
    assert "Traceback" not in error


def test_a_folder_that_cannot_be_created_is_an_error(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResiduaError, match="cannot be saved in"):
        download(publisher.address, "net", PUBLISHED, tmp_path / "file/cache", QUIET)


def test_a_progress_bar_counts_the_bytes(publisher: Publisher, cache: Path) -> None:
    console = Console()
    console.rich = RichConsole(file=(shown := io.StringIO()), force_terminal=True, width=120)
    console.moving = True
    download(publisher.address, "net.pth", PUBLISHED, cache, console)
    assert "net.pth, bytes" in shown.getvalue()
    assert "300,000/300,000" in shown.getvalue()


def test_the_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("RESIDUA_CACHE")
    assert cache_folder() == tmp_path / "xdg/residua"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache/residua"


def test_every_source_is_well_formed() -> None:
    for name, row in SOURCES.items():
        assert name in catalogue.ROWS
        address = urlsplit(row.address)
        assert (address.scheme, address.query, address.fragment) == ("https", "", ""), name
        assert re.fullmatch(r"|sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{32}", row.digest), name
        assert re.fullmatch(r"([\w.-]+/)?[\w.-]+\.(pth|h5|safetensors)", row.file), name
        if not row.package:  # a page describes the package
            assert row.file.rpartition(".")[2] == address.path.rpartition(".")[2], name
        rule = row.preprocessing
        assert parse.preprocessing_from(vars(rule), name) == rule
        assert (rule.channels, len(rule.mean), len(rule.std)) == (3, 3, 3), name
        assert rule.size == catalogue.ROWS[name].size, name
        assert (rule.resize == "crop") == (rule.crop < 1), name
        assert row.publisher, name
    for values in ("file", "address"):
        assert len({getattr(row, values) for row in SOURCES.values()}) == len(SOURCES)


def applications() -> dict[str, ModuleType]:
    """Keras' own module for each network here that Keras publishes."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from keras.src import applications

    names = [name.removeprefix("keras_") for name in SOURCES if name.startswith("keras_")]
    homes = {name: re.sub(r"(\D+net)\d+", r"\1", name).replace("tv2", "t_v2") for name in names}
    return {name: getattr(applications, home) for name, home in homes.items()}


@pytest.mark.slow
def test_keras_sources_are_those_of_keras() -> None:
    """Addresses are constants of its modules; the hashes are in their source."""
    homes = applications()
    for name, home in homes.items():
        row, text = SOURCES[f"keras_{name}"], Path(str(home.__file__)).read_text("utf-8")
        if "resnet" in name:
            resnet = homes["resnet50"]
            expected = f"{resnet.BASE_WEIGHTS_PATH}{name}_weights_tf_dim_ordering_tf_kernels.h5"
            assert (row.address, row.digest) == (expected, f"md5:{resnet.WEIGHTS_HASHES[name][0]}")
        elif name == "mobilenet":
            assert '"mobilenet_%s_%d_tf.h5"' in text
            assert "file_hash" not in text
            assert row.address == f"{home.BASE_WEIGHT_PATH}mobilenet_1_0_224_tf.h5"
        else:
            call = r'"([^"]+)",\s*(\w+),\s*cache_subdir="models",\s*file_hash="(\w+)"'
            found = {
                getattr(home, constant): (file, f"md5:{md5}")
                for file, constant, md5 in re.findall(call, text)
            }
            assert (row.file, row.digest) == found[row.address]


@pytest.mark.slow
def test_keras_preprocessing_is_that_of_keras() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    for name, home in applications().items():
        rule = SOURCES[f"keras_{name}"].preprocessing
        ordered = pixels[..., ::-1] if rule.channel_order == "bgr" else pixels
        ours = (ordered - np.array(rule.mean)) / np.array(rule.std)
        np.testing.assert_allclose(ours, home.preprocess_input(pixels.copy()), atol=1e-5)
