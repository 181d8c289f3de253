"""Images at URLs: answers of real and hostile servers, and networks that are never contacted."""

from __future__ import annotations

import io
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from residua.data.dataset import Unreadable
from residua.data.url import is_address, is_public, read_address

Answer = Callable[["Handler"], None]


def image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


SPECIAL = """
    10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 127.0.0.53 100.64.0.1
    100.100.100.200 0.0.0.0 0.1.2.3 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.9
    224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 fe80::1 fe80::1%1 fec0::1
    fc00::1 fd00:ec2::254 ff02::1 2001:db8::1 2001::1 100::1 64:ff9b:1::1 4000::1 ::ffff:10.0.0.1
    ::ffff:169.254.169.254 64:ff9b::10.0.0.1 2002:a00:1::1 2002:a9fe:a9fe::1
"""
PUBLIC = """
    8.8.8.8 1.1.1.1 93.184.216.34 172.32.0.1 2606:4700:4700::1111 2a00:1450:4001:800::200e
    ::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""
IMAGE = image()  # 120 kB, more than is read at a time


class Server(ThreadingHTTPServer):
    """Answers by path, and remembers what was asked for."""

    daemon_threads = True

    def __init__(self, answers: dict[str, Answer], host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Handler)
        self.answers, self.asked = answers, list[tuple[str, dict[str, str]]]()
        self.leaving = threading.Event()
        self.port = self.server_address[1]

    def address(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave early are what is tested."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        self.server.answers[self.path.strip("/")](self)

    def log_message(self, *_: object) -> None:
        """Silent."""

    def head(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serves in a thread of its own."""
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.leaving.set()
        server.shutdown()
        server.server_close()


def sends(content: bytes, status: int = 200, **headers: object) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(status, **{"Content_Length": len(content), **headers})
        handler.wfile.write(content)

    return answer


def raw(*parts: bytes, each_seconds: float = 0.0, endless: bool = False) -> Answer:
    """Bytes on the socket, header included; the last part again and again if `endless`."""

    def answer(handler: Handler) -> None:
        for part in parts:
            handler.wfile.write(part)
            time.sleep(each_seconds)
        while endless and not handler.server.leaving.is_set():
            handler.wfile.write(parts[-1])
            time.sleep(each_seconds)

    return answer


def redirects(target: str, status: int = 302) -> Answer:
    return lambda handler: handler.head(status, Location=target, Content_Length=0)


OK = b"HTTP/1.1 200 OK\r\n"
HALF = IMAGE[: len(IMAGE) // 2]
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(HALF), HALF)

ANSWERS: dict[str, Answer] = {
    "image.png": sends(IMAGE),
    "query.png?size=2&name=a%20b": sends(IMAGE),
    "m%C3%B6we%20(1).png": sends(IMAGE),
    "unsized": raw(b"HTTP/1.0 200 OK\r\n\r\n", IMAGE),
    "chunked": raw(
        CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(IMAGE) - len(HALF), IMAGE[len(HALF) :])
    ),
    "chunked-cut": raw(CHUNKED),
    "chunk-of-minus-one": raw(
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + IMAGE, bytes(2**20), endless=True
    ),
    "cut": raw(OK + b"Content-Length: 1000000\r\n\r\n", IMAGE),
    "nothing-of-it": raw(OK + b"Content-Length: 1000000\r\n\r\n"),
    "missing": sends(b"no such thing", 404),
    "partial": sends(HALF, 206),
    "rude": raw(b"HTTP/1.1 500 \x1b[31mred\x07\r\n\r\n"),
    "page": sends(b"<!DOCTYPE html><title>Birds</title>", Content_Type="text/html; charset=utf-8"),
    "text": sends(b"hello there"),
    "pdf": sends(b"%PDF-1.7", Content_Type="image/png"),
    "empty": sends(b""),
    "packed": sends(IMAGE, Content_Encoding="gzip"),
    "plain-encoding": sends(IMAGE, Content_Encoding="Identity"),
    "huge": raw(
        OK + b"Content-Length: 1000000000000\r\n\r\n", b"", each_seconds=0.05, endless=True
    ),
    "endless": raw(OK + b"\r\n" + IMAGE, bytes(2**16), endless=True),
    "drip-content": raw(OK + b"\r\n\x89PNG\r\n\x1a\n", b"\0", each_seconds=0.05, endless=True),
    "drip-header": raw(OK + b"X: ", b"x", each_seconds=0.05, endless=True),
    "drip-start": raw(b"H", b"T", each_seconds=0.05, endless=True),
    "again": raw(b"HTTP/1.1 100 Continue\r\n\r\n", each_seconds=0.02, endless=True),
    "silent": raw(b"", each_seconds=0.05, endless=True),
    "no-http": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "hangs-up": raw(),
    "wide-header": raw(OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n"),
    "loop": redirects("/loop"),
    "to-image": redirects("image.png", 308),
    "three": redirects("two"),
    "two": lambda handler: redirects(handler.server.address("to-image")[5:])(handler),
    "to-file": redirects("file:///etc/passwd"),
    "to-data": redirects("data:image/png;base64,AAAA"),
    "to-login": redirects("http://user:secret@127.0.0.1/"),
    "to-nonsense": redirects("http://[::1/"),
    "to-nowhere": sends(b"", 302),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Server(dict(ANSWERS))) as found:
        yield found


def reason(address: str, **limits: Any) -> str:
    """Why an address cannot be read; a printable sentence without an end."""
    with pytest.raises(Unreadable) as caught:
        read_address(address, **{"allow_private": True, "seconds": 10.0, **limits})
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 400
    return said


@pytest.mark.parametrize(
    "path",
    ["image.png", "query.png?size=2&name=a%20b", "unsized", "chunked", "plain-encoding", "three"],
)
def test_an_image_arrives_byte_for_byte(server: Server, path: str) -> None:
    assert read_address(server.address(path), allow_private=True) == IMAGE


def test_a_url_may_contain_spaces_and_letters_of_any_language(server: Server) -> None:
    address = server.address("möwe (1).png#top").replace("http", "HTTP")
    assert is_address(address)
    assert read_address(address, allow_private=True) == IMAGE


def test_the_request_identifies_itself_and_sends_no_secrets(server: Server) -> None:
    read_address(server.address("image.png", "localhost"), allow_private=True)
    _, headers = server.asked[-1]
    assert headers["Host"] == f"localhost:{server.port}"
    assert headers["User-Agent"].startswith("residua/")
    assert headers["Accept-Encoding"] == "identity"
    assert not {"Cookie", "Authorization", "Referer"} & set(headers)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "responds with 404 Not Found"),
        ("partial", "responds with 206 Partial Content"),
        ("rude", "responds with 500 ?[31mred?"),
        ("to-nowhere", "responds with 302 Found"),
        ("page", "is a web page"),
        ("text", "is not an image: starts with 'hello'"),
        ("pdf", "is a PDF document"),
        ("empty", "is empty"),
        ("packed", "in the encoding 'gzip'"),
        ("cut", f"is truncated after {len(IMAGE):,} of 1,000,000 bytes"),
        ("nothing-of-it", "is truncated after 0 of 1,000,000 bytes"),
        ("chunked-cut", "is truncated"),
        ("no-http", "cannot be read: SSH-2.0"),
        ("hangs-up", "cannot be read: Remote end closed connection"),
        ("wide-header", "cannot be read: got more than 65536 bytes"),
        ("loop", "is redirected more than 5 times"),
        ("to-file", "is redirected to file:///etc/passwd, which has the scheme 'file'"),
        ("to-data", "which has the scheme 'data'"),
        ("to-login", "which contains a user name or password"),
        ("to-nonsense", "cannot be read: Invalid IPv6 URL"),
    ],
)
def test_a_response_without_an_image_has_a_reason(server: Server, path: str, words: str) -> None:
    before = len(server.asked)
    said = reason(server.address(path), max_bytes=2_000_000)
    assert words in said
    assert len(server.asked) - before == (6 if path == "loop" else 1)


@pytest.mark.parametrize("path", ["huge", "endless", "chunk-of-minus-one"])
def test_no_more_than_the_limit_is_read(server: Server, path: str) -> None:
    began = time.monotonic()
    assert "is larger than 200,000 bytes" in reason(server.address(path), max_bytes=200_000)
    assert time.monotonic() - began < 5


def test_the_limit_itself_is_allowed(server: Server) -> None:
    for path in ("unsized", "image.png"):
        address = server.address(path)
        assert read_address(address, allow_private=True, max_bytes=len(IMAGE)) == IMAGE
    said = reason(server.address("unsized"), max_bytes=len(IMAGE) - 1)
    assert said == f"is larger than {len(IMAGE) - 1:,} bytes"


@pytest.mark.parametrize(
    "path", ["drip-content", "drip-header", "drip-start", "again", "silent", "loop-slowly"]
)
def test_no_server_can_exceed_the_deadline(server: Server, path: str) -> None:
    def slowly(handler: Handler) -> None:
        time.sleep(0.1)
        redirects("loop-slowly")(handler)

    server.answers["loop-slowly"] = slowly
    began = time.monotonic()
    assert "has not responded completely within 0.2 seconds" in reason(
        server.address(path), seconds=0.2
    )
    assert 0.15 < time.monotonic() - began < 2


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "0x7f.0.0.1",
        "127。0。0。1",  # ideographic full stops, which IDNA reads as dots
        "localhost",
        "LOCALHOST",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ],
)
def test_this_machine_is_refused_in_every_spelling(server: Server, host: str) -> None:
    before = len(server.asked)
    said = reason(server.address("image.png", host), allow_private=False)
    assert "which is not a public IP address" in said or "is not found" in said
    assert len(server.asked) == before


def test_ipv6_is_read_where_it_is_allowed() -> None:
    try:
        six = Server(dict(ANSWERS), "::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(six):
        assert read_address(six.address("image.png", "[::1]"), allow_private=True) == IMAGE
        assert six.asked[-1][1]["Host"] == f"[::1]:{six.port}"


@pytest.mark.parametrize("number", SPECIAL.split())
def test_special_networks_are_not_public(number: str) -> None:
    assert not is_public(number)


@pytest.mark.parametrize("number", PUBLIC.split())
def test_ordinary_ip_addresses_are_public(number: str) -> None:
    assert is_public(number)


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_an_ipv4_address_embedded_in_ipv6_counts_as_itself(four: ipaddress.IPv4Address) -> None:
    for start, shift in (("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)):
        six = ipaddress.IPv6Address(int(ipaddress.IPv6Address(start)) + (int(four) << shift))
        assert is_public(str(six)) == is_public(str(four))
    if four.is_private or four.is_loopback or four.is_multicast or four.is_link_local:
        assert not is_public(str(four))


class Names:
    """A name server and a network of our own, in the place of the operating system's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **numbers: list[str]) -> None:
        self.numbers = {name.replace("_", "."): found for name, found in numbers.items()}
        self.asked: list[str] = []
        self.real, self.routes = socket.getaddrinfo, dict[tuple[str, int], tuple[str, int]]()
        names = self

        class Routed(socket.socket):
            def connect(self, place: Any) -> None:
                super().connect(names.routes.get(place[:2], place))

        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)
        monkeypatch.setattr(socket, "socket", Routed)

    def look_up(self, host: str, port: int, **options: Any) -> list[Any]:
        self.asked.append(host)
        numbers = self.numbers.pop(host, None) or [host]  # each name is answered only once
        return [each for number in numbers for each in self.real(number, port, **options)]


def test_private_addresses_are_allowed_to_the_user_not_to_a_server(server: Server) -> None:
    server.answers["elsewhere"] = redirects(server.address("image.png", host="localhost"))
    server.answers["here"] = redirects(server.address("image.png"))
    with pytest.raises(Unreadable, match=r"is redirected to .*, which is not a public IP address"):
        read_address(server.address("elsewhere"), allow_private=True)
    assert read_address(server.address("here"), allow_private=True) == IMAGE


def test_a_redirect_from_the_internet_does_not_reach_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, bird_example=["93.184.216.34"])
    names.routes["93.184.216.34", 80] = ("127.0.0.1", server.port)
    server.answers["inside"] = redirects(server.address("image.png"))
    before = len(server.asked)
    said = reason("http://bird.example/inside", allow_private=False)
    assert said.startswith(
        f"is redirected to {server.address('image.png')}, which resolves to 127.0.0.1, which is "
        "not a public IP address: download the image yourself"
    )
    assert [path for path, _ in server.asked[before:]] == ["/inside"]
    assert server.asked[-1][1]["Host"] == "bird.example"


def test_a_name_is_resolved_once_and_all_its_ip_addresses_are_checked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, one_example=["127.0.0.1"], two_example=["8.8.8.8", "127.0.0.1"])
    assert read_address(server.address("image.png", "one.example"), allow_private=True) == IMAGE
    assert names.asked == ["one.example"]
    before = len(server.asked)
    said = reason(server.address("image.png", "two.example"), allow_private=False)
    assert "resolves to 127.0.0.1" in said
    assert len(server.asked) == before


def test_an_unresponsive_ip_address_leaves_time_for_the_next(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, bird_example=["127.0.0.2", "127.0.0.1"])  # nobody listens at the first
    address = server.address("image.png", "bird.example")
    assert read_address(address, allow_private=True) == IMAGE


def test_a_machine_without_ipv6_uses_the_next_ip_address(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown_family, port = 99, server.port
    found = [
        (unknown_family, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    address = server.address("image.png", "bird.example")
    assert read_address(address, allow_private=True) == IMAGE


def test_a_slow_name_server_cannot_exceed_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: waiting.wait(20))
    began = time.monotonic()
    assert "not responded completely within 0.3 seconds" in reason(
        "http://bird.example/", seconds=0.3
    )
    assert time.monotonic() - began < 2
    waiting.set()


def test_a_refused_connection_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/"
    assert reason(closed) == "cannot be read: Connection refused"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert "the environment's proxy is not used" in reason(closed)


def test_a_proxy_of_the_environment_is_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert read_address(server.address("image.png"), allow_private=True) == IMAGE


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://example.org/a.png", "has the scheme 'ftp'"),
        ("file:///etc/passwd", "has the scheme 'file'"),
        ("http://user@example.org/", "user name"),
        ("http://user:secret@example.org/", "user name"),
        ("http://@example.org/", "user name"),
        ("http://example.org\\@127.0.0.1/", "user name"),
        ("http:///a.png", "has no host"),
        ("http://example.org:99999/", "Port out of range"),
        ("http://[::1/", "Invalid IPv6 URL"),
        ("http://example.org/\r\nX: y", "is not printable"),
        ("http://example.org/\x1b[31m", "is not printable"),
        ("http://example.org/\udcff", "is not printable"),
        (f"http://{'a' * 64}.org/", "cannot be read"),
        ("http://a..b/", "cannot be read"),
    ],
)
def test_invalid_urls_have_a_reason(address: str, words: str) -> None:
    said = reason(address)
    assert words in said
    assert "secret" not in said


def unknown(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_host_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = reason("http://Birds.example/a.png")
    assert said.startswith("has the host 'birds.example', which is not found: Name or service")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30), st.sampled_from(["http://", "HTTPS://", "http://[", "http://a:"]))
def test_any_text_ends_in_a_sentence(text: str, start: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        assert is_address(start + text)
        reason(start + text)


@pytest.mark.parametrize("text", ["", "bird.jpg", "http/bird.jpg", "http:bird.jpg", "ahttp://a"])
def test_paths_are_not_urls(text: str) -> None:
    assert not is_address(text)


@pytest.fixture
def encrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose certificate is trusted here and names "localhost" alone."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command, to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    made = [*options.split(), "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    made += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", *made], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(dict(ANSWERS))
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    with running(server):
        yield server


def test_https_verifies_the_name(encrypted: Server) -> None:
    address = encrypted.address("to-image", "localhost", "https")
    assert read_address(address, allow_private=True) == IMAGE
    said = reason(encrypted.address("image.png", "127.0.0.1", "https"))
    assert said.startswith("has an untrusted certificate: ")
    assert [path for path, _ in encrypted.asked] == ["/to-image", "/image.png"]


def test_https_is_never_redirected_to_http(encrypted: Server, server: Server) -> None:
    encrypted.answers["down"] = redirects(server.address("image.png"))
    before = len(server.asked)
    said = reason(encrypted.address("down", "localhost", "https"))
    assert said.startswith(f"is redirected from https to {server.address('image.png')}")
    assert len(server.asked) == before


@pytest.mark.slow
def test_no_server_can_exceed_the_deadline_with_tls(encrypted: Server, server: Server) -> None:
    for address in (
        encrypted.address("drip-content", "localhost", "https"),
        encrypted.address("silent", "localhost", "https"),
    ):
        began = time.monotonic()
        assert "not responded completely within 0.7 seconds" in reason(address, seconds=0.7)
        assert time.monotonic() - began < 2


def test_a_server_without_a_handshake_cannot_exceed_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        began = time.monotonic()
        said = reason(f"https://127.0.0.1:{listening.getsockname()[1]}/", seconds=0.4)
        assert "not responded completely within 0.4 seconds" in said
        assert time.monotonic() - began < 2
