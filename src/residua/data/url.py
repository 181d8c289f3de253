"""An http(s) URL -> the bytes of an image, or the reason why there are none.

The server is not trusted: time, size, redirects and networks are limited. A host name is resolved
once, every IP address is checked, and the connection goes to a checked one, while TLS and the Host
header use the name: DNS rebinding has no effect. Proxies of the environment are not used, because
behind one the IP address is unknown.
"""

from __future__ import annotations

import dataclasses
import http.client
import io
import ipaddress
import os
import queue
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from residua._version import __version__
from residua.data.dataset import Unreadable
from residua.data.recognition import objection_to
from residua.system.files import reason_of

_PORTS = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": f"residua/{__version__}", "Accept": "*/*", "Connection": "close"}
_REDIRECTS = 5
_BLOCK = 2**16  # bytes read at a time
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"  # valid in a URL besides letters, digits, "_", "-" and "."
_GLOBAL = ipaddress.ip_network("2000::/3")  # all public IPv6
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits, RFC 6052
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # not global in newer Python versions


@dataclass(frozen=True)
class _Limits:
    allow_private: bool | None
    max_bytes: int
    seconds: float
    end: float  # deadline, on time.monotonic

    def left(self) -> float:
        """Seconds until the deadline, more than 0. Raises TimeoutError."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str  # ASCII, without brackets
    port: int
    path: str  # with the query, quoted


def is_address(text: str) -> bool:
    """Whether a text starts with http:// or https://, in any case."""
    return re.match(r"https?://", text, re.IGNORECASE) is not None


def is_public(ip: str) -> bool:
    """Whether an IPv4 or IPv6 address belongs to the public internet.

    An IPv6 address that embeds an IPv4 address (mapped, 6to4, NAT64) counts as that one.
    """
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        embedded = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
        return address in _GLOBAL and address.is_global
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS


def read_address(
    address: str,
    *,
    allow_private: bool | None = None,
    max_bytes: int = 50_000_000,
    seconds: float = 20.0,
) -> bytes:
    """The content of a URL, unchanged; its first bytes are those of an image.

    allow_private: also read from this machine and from private, link-local and other special
    networks, but only from the host in `address`, not from another one that it redirects to; False:
    do not, but name the option in the message; None: the user has no such option. max_bytes: of the
    content. seconds: in all, including DNS and redirects. Raises Unreadable; the message is the
    reason without the URL.
    """
    limits = _Limits(allow_private, max_bytes, seconds, time.monotonic() + seconds)
    origin, host = "", _host(address)
    for _ in range(_REDIRECTS + 1):
        if _host(address) != host:  # private addresses are allowed to the user, not to a server
            limits = dataclasses.replace(limits, allow_private=None)
        try:
            content = _read(address, limits)
        except Unreadable as error:
            raise Unreadable(f"{origin}{error}") from error
        if isinstance(content, bytes):
            return content
        address, origin = content, f"is redirected to {_shown(content)}, which "
    raise Unreadable(f"is redirected more than {_REDIRECTS} times")


def _host(address: str) -> str | None:
    """The host of a URL; None if there is none, which reading it explains."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _read(address: str, limits: _Limits) -> bytes | str:
    """The content of a URL, or the URL that it redirects to. Raises Unreadable."""
    try:
        target = _parsed(address)
        with _connected(target, limits) as sock:
            wire: Any = _Wire(sock, limits)
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock, connection.default_port = wire, _PORTS[target.scheme]
            connection.request("GET", target.path, headers=_HEADERS)
            with http.client.HTTPResponse(wire, method="GET") as response:
                response.begin()
                location = response.headers["Location"]
                if response.status in (301, 302, 303, 307, 308) and location:
                    return _redirected(address, location)
                return _content(response, limits)
    except TimeoutError as error:
        limit = f"{limits.seconds:g} seconds{_about_proxies(error)}"
        raise Unreadable(f"has not responded completely within {limit}") from error
    except ssl.SSLCertVerificationError as error:
        reason = _shown(error.verify_message)
        raise Unreadable(f"has an untrusted certificate: {reason}") from error
    except http.client.IncompleteRead as error:
        raise Unreadable("is truncated: the connection was closed too early") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"{_shown(reason_of(error))}{_about_proxies(error)}"
        raise Unreadable(f"cannot be read: {reason}") from error


def _parsed(address: str) -> _Target:
    """The parts of a URL. Raises Unreadable and ValueError."""
    if not address.isprintable():
        raise Unreadable("contains a character that is not printable")
    parts = urlsplit(address)
    if parts.scheme not in _PORTS:
        raise Unreadable(f"has the scheme {_shown(parts.scheme)!r}: expected http or https")
    if "@" in parts.netloc:
        raise Unreadable("contains a user name or password: download the image yourself")
    if not parts.hostname:
        raise Unreadable("has no host")
    host = parts.hostname.encode("idna").decode("ascii")
    path = quote(parts.path or "/", safe=_URL_SAFE)
    path += f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else ""
    return _Target(parts.scheme, host, parts.port or _PORTS[parts.scheme], path)


def _resolved(target: _Target, limits: _Limits) -> list[tuple[int, Any]]:
    """Family and socket address of every IP address of the host, all checked."""
    answers: queue.SimpleQueue[list[tuple[Any, ...]] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=look_up, daemon=True).start()  # getaddrinfo has no timeout
    try:
        answer = answers.get(timeout=limits.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        reason = f"{_shown(reason_of(answer))}{_about_proxies(answer)}"
        raise Unreadable(f"has the host {_shown(target.host)!r}, which is not found: {reason}")
    for *_, (ip, *_) in answer:
        if not limits.allow_private and not is_public(str(ip)):
            advice = (
                "download the image yourself"
                if limits.allow_private is None
                else "allow it with --allow-private, in Python allow_private=True"
            )
            raise Unreadable(f"resolves to {ip}, which is not a public IP address: {advice}")
    return [(family, address) for family, *_, address in answer]


def _connected(target: _Target, limits: _Limits) -> socket.socket:
    """A connection to the first IP address that accepts it; for https, with a verified name."""
    addresses = _resolved(target, limits)
    for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:  # an unresponsive address leaves time for the others
            sock = _connect(family, address, limits.left() / left)
            break
        except OSError:
            if left == 1:
                raise
    if target.scheme == "http":
        return sock
    try:
        sock.settimeout(limits.left())
        return ssl.create_default_context().wrap_socket(sock, server_hostname=target.host)
    except BaseException:
        sock.close()
        raise


def _connect(family: int, address: Any, seconds: float) -> socket.socket:
    """A connection to one IP address. Raises OSError, also if the machine lacks the family."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


class _Wire(io.RawIOBase):
    """A socket for http.client, in which every wait ends at the deadline."""

    def __init__(self, sock: socket.socket, limits: _Limits) -> None:
        self.sock, self.limits = sock, limits
        self.allowance = 2 * limits.max_bytes + 2**20  # bytes, with headers and chunk sizes

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self.sock.settimeout(self.limits.left())
        count = self.sock.recv_into(buffer)
        self.allowance -= count
        if self.allowance < 0:  # http.client reads a chunk of size -1 endlessly
            raise Unreadable(f"is larger than {self.limits.max_bytes:,} bytes")
        return count

    def sendall(self, content: bytes) -> None:
        while content:
            self.sock.settimeout(self.limits.left())
            content = content[self.sock.send(content) :]


def _redirected(address: str, location: str) -> str:
    """The absolute URL of a Location header. Raises Unreadable for https to http."""
    # http.client decodes headers as Latin-1; this restores their bytes.
    target = urljoin(address, quote(location.strip(), safe=_URL_SAFE, encoding="latin-1"))
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        raise Unreadable(f"is redirected from https to {_shown(target)}, which is not encrypted")
    return target


def _content(response: http.client.HTTPResponse, limits: _Limits) -> bytes:
    """The body of a response. Raises Unreadable as soon as it cannot be an image."""
    if response.status != 200:
        raise Unreadable(_shown(f"responds with {response.status} {response.reason}").rstrip())
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Unreadable(f"is sent in the encoding {_shown(encoding)!r}, which was not requested")
    declared = response.length
    content = bytearray()
    block = b""
    while block or not content:
        if max(declared or 0, len(content)) > limits.max_bytes:
            raise Unreadable(f"is larger than {limits.max_bytes:,} bytes")
        block = response.read(_BLOCK)
        if declared and not block and len(content) < declared:
            raise Unreadable(f"is truncated after {len(content):,} of {declared:,} bytes")
        if not content and (objection := objection_to(block)):
            page = response.headers.get_content_type() == "text/html"
            raise Unreadable("is a web page: name the image itself" if page else objection)
        content += block
    return bytes(content)


def _about_proxies(error: Exception) -> str:
    """A hint if no connection was made and the environment has a proxy."""
    unreached = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
    proxies = {"http_proxy", "https_proxy", "all_proxy"} & {name.lower() for name in os.environ}
    return " (the environment's proxy is not used)" if unreached and proxies else ""


def _shown(text: str) -> str:
    """Untrusted text for a message: one line of at most 120 printable characters."""
    text = " ".join(text.split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 120 else f"{text[:117]}..."
