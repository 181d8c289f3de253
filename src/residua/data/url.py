"""An http(s) address -> the bytes of the image that it leads to, or why there are none.

Whatever answers is a stranger, so time, size, redirects and networks are limited. A name is
resolved once, every number that comes back is checked, and the connection goes to a checked number,
while TLS and the Host line keep the name: a name server cannot answer differently later.
Proxies of the environment are not used: behind one, nobody here could tell where a name leads.
"""

from __future__ import annotations

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
from residua.data.image import objection_to

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = 5
_BLOCK = 2**16  # bytes read at a time
_KEPT = "!#$%&'()*+,/:;=?@[]~"  # what an address may hold besides letters, digits, "_", "-" and "."
_GLOBAL = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given to the public
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits, RFC 6052
_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # newer Pythons know it as not global


@dataclass(frozen=True)
class _Limits:
    allow_private: bool
    max_bytes: int
    seconds: float
    end: float  # on the clock time.monotonic

    def left(self) -> float:
        """Seconds, more than 0. Raises TimeoutError."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str  # ASCII, without brackets
    port: int
    request: bytes


def is_address(text: str) -> bool:
    """Whether a text is meant as an address: it starts with http:// or https://, in any case."""
    return re.match(r"https?://", text, re.IGNORECASE) is not None


def is_public(number: str) -> bool:
    """Whether an IPv4 or IPv6 address, as getaddrinfo spells it, belongs to the public internet.

    An IPv6 address that carries one of IPv4 (mapped, 6to4, NAT64) is what that one is.
    """
    address = ipaddress.ip_address(number)
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(str(carried))
        return address in _GLOBAL and address.is_global
    return address.is_global and not address.is_multicast and address not in _PROTOCOLS


def read_address(
    address: str,
    *,
    allow_private: bool = False,
    max_bytes: int = 50_000_000,
    seconds: float = 20.0,
) -> bytes:
    """The file behind an address, unchanged; its first bytes are those of an image.

    allow_private: also read from this machine and from private, link-local and other special
    networks. max_bytes: of the content. seconds: for everything together, the name server and
    redirects included. Raises Unreadable, whose message is the reason without the address.
    """
    limits = _Limits(allow_private, max_bytes, seconds, time.monotonic() + seconds)
    origin = ""
    for _ in range(_REDIRECTS + 1):
        try:
            found = _read(address, limits)
        except Unreadable as error:
            raise Unreadable(f"{origin}{error}") from error
        if isinstance(found, bytes):
            return found
        address, origin = found, f"is redirected to {_shown(found)}, which "
    raise Unreadable(f"is redirected more than {_REDIRECTS} times")


def _read(address: str, limits: _Limits) -> bytes | str:
    """The content of one address, or the address that it redirects to. Raises Unreadable."""
    try:
        target = _parsed(address)
        with _connected(target, limits) as sock:
            wire: Any = _Wire(sock, limits)
            wire.send(target.request)
            with http.client.HTTPResponse(wire, method="GET") as response:
                response.begin()
                location = response.headers["Location"]
                if response.status in (301, 302, 303, 307, 308) and location:
                    return _redirected(address, location)
                return _content(response, limits)
    except TimeoutError as error:
        said = f"{limits.seconds:g} seconds{_about_proxies(error)}"
        raise Unreadable(f"gives no complete answer within {said}") from error
    except ssl.SSLCertVerificationError as error:
        said = _shown(error.verify_message)
        raise Unreadable(f"has a certificate that cannot be trusted: {said}") from error
    except http.client.IncompleteRead as error:
        raise Unreadable("is cut off: the connection ended too early") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = _shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        raise Unreadable(f"cannot be read: {said}{_about_proxies(error)}") from error


def _parsed(address: str) -> _Target:
    """Where an address leads and what to ask there. Raises Unreadable, and ValueError."""
    if not address.isprintable():
        raise Unreadable("holds a character that cannot be printed, which no address does")
    parts = urlsplit(address)
    if parts.scheme not in _PORTS:
        raise Unreadable(f"has the scheme {_shown(parts.scheme)!r}: only http and https are read")
    if "@" in parts.netloc:
        raise Unreadable("holds a user name or a password: download the image yourself")
    if not parts.hostname:
        raise Unreadable("names no host")
    host = parts.hostname.encode("idna").decode("ascii")
    port = parts.port or _PORTS[parts.scheme]
    named = f"[{host}]" if ":" in host else host
    named += f":{port}" if port != _PORTS[parts.scheme] else ""
    path = quote(parts.path or "/", safe=_KEPT)
    path += f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {named}",
        f"User-Agent: residua/{__version__}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return _Target(parts.scheme, host, port, "\r\n".join([*lines, "", ""]).encode("ascii"))


def _resolved(target: _Target, limits: _Limits) -> list[tuple[int, Any]]:
    """Family and socket address of every checked number that the host's name stands for."""
    answers: queue.SimpleQueue[list[tuple[Any, ...]] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # getaddrinfo itself knows no deadline
    try:
        found = answers.get(timeout=limits.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        said = _shown(getattr(found, "strerror", None) or str(found))
        raise Unreadable(
            f"names the host {_shown(target.host)!r}, which is not found: {said}"
            f"{_about_proxies(found)}"
        )
    for *_, (number, *_) in found:
        if not limits.allow_private and not is_public(str(number)):
            raise Unreadable(
                f"leads to {number}, which is no public network address: it is read only where "
                "private addresses are allowed"
            )
    return [(family, place) for family, *_, place in found]


def _connected(target: _Target, limits: _Limits) -> socket.socket:
    """A connection to the first number that accepts one; for https, to whom the name belongs."""
    places = _resolved(target, limits)
    for left, (family, place) in zip(range(len(places), 0, -1), places, strict=True):
        try:  # a silent number leaves time for the others
            sock = _dialled(family, place, limits.left() / left)
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


def _dialled(family: int, place: Any, seconds: float) -> socket.socket:
    """A connection to one number. Raises OSError, also where this machine has no such family."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock


class _Wire(io.RawIOBase):
    """A socket as http.client reads it, in which every single wait ends at the deadline."""

    def __init__(self, sock: socket.socket, limits: _Limits) -> None:
        self.sock, self.limits = sock, limits
        self.arriving = 2 * limits.max_bytes + 2**20  # bytes, with headers and marks of chunks

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self.sock.settimeout(self.limits.left())
        count = self.sock.recv_into(buffer)
        self.arriving -= count
        if self.arriving < 0:  # http.client reads a chunk of size -1 without an end
            raise Unreadable(f"is larger than {self.limits.max_bytes:,} bytes")
        return count

    def send(self, content: bytes) -> None:
        while content:
            self.sock.settimeout(self.limits.left())
            content = content[self.sock.send(content) :]


def _redirected(address: str, location: str) -> str:
    """The absolute address that an answer names. Raises Unreadable for https to http."""
    # Headers arrive as Latin-1 whatever they are in, so that this restores their bytes.
    target = urljoin(address, quote(location.strip(), safe=_KEPT, encoding="latin-1"))
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        raise Unreadable(f"is redirected from https to {_shown(target)}, which is not encrypted")
    return target


def _content(response: http.client.HTTPResponse, limits: _Limits) -> bytes:
    """The body of an answer. Raises Unreadable as soon as it cannot become an image."""
    if response.status != 200:
        raise Unreadable(_shown(f"is answered with {response.status} {response.reason}").rstrip())
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Unreadable(f"is sent in the encoding {_shown(encoding)!r}, which was not asked for")
    declared = response.length
    content = bytearray()
    block = b""
    while block or not content:
        if max(declared or 0, len(content)) > limits.max_bytes:
            raise Unreadable(f"is larger than {limits.max_bytes:,} bytes")
        block = response.read(_BLOCK)
        if declared and not block and len(content) < declared:
            raise Unreadable(f"is cut off after {len(content):,} of {declared:,} bytes")
        if not content and (objection := objection_to(block)):
            page = response.headers.get_content_type() == "text/html"
            raise Unreadable("is a web page: name the image itself" if page else objection)
        content += block
    return bytes(content)


def _about_proxies(error: Exception) -> str:
    """A hint where nothing was reached and the environment would have had another way."""
    unreached = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)
    proxies = {"http_proxy", "https_proxy", "all_proxy"} & {name.lower() for name in os.environ}
    return " (the environment's proxy is not used)" if unreached and proxies else ""


def _shown(text: str) -> str:
    """Somebody else's text for a message: one line of printable characters, not too long."""
    text = "".join(each if each.isprintable() else "?" for each in " ".join(text.split()))
    return text if len(text) <= 120 else f"{text[:117]}..."
