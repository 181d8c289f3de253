"""An address and a published hash -> the complete, verified file in the cache.

FILE.json beside FILE records its source, size and hash: every later use and every later download
must match them. An incomplete download is FILE.part, with FILE.part.json recording which file it
is a part of, so that an interrupted download resumes.

A hash is written as "sha256:11ad3fa6" or "md5:64373286793e3c8b2b4e3219cbf3544b": all of its
hexadecimal digits, or the first ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock, Timeout

from residua.errors import ResiduaError
from residua.system.console import Console
from residua.system.files import write_atomically

_WAITS = (0.5, 1.0, 2.0)  # seconds before each retry
_TIMEOUT = 30.0  # seconds without a byte that end an attempt
_CHUNK = 2**18  # bytes
# A "<" alone may be the low byte of the length with which a safetensors file starts.
_WEB_PAGE = re.compile(rb"\s*<[!?a-z]{2}", re.IGNORECASE)
_HUB_HEADERS = ("X-Repo-Commit", "X-Linked-Etag")  # of a redirect; the second is a SHA-256

Move = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Record:
    """Facts about a file, "" where unknown: those of FILE.part.json as the server announced them,
    those of FILE.json as verified.

    published: the hash that was requested. size: in bytes. digest: the complete hash. commit: of
    the Hugging Face repository. etag: a strong one.
    """

    address: str
    published: str
    size: int
    digest: str
    commit: str
    etag: str


class _AttemptFailedError(Exception):
    """An attempt failed in a way that may be temporary; the message is the reason."""


def download(address: str, file: str, digest: str, folder: Path, console: Console) -> Path:
    """The path of `file` in `folder`, downloaded from `address` unless it is there and verified.

    digest: the hash of the file; "" accepts what the first download brings, or the server
    announces, and requires it from then on. A verified file needs no network. Raises ResiduaError,
    in one sentence with every way out.
    """
    job = _Download(address, folder / file, digest, console)
    try:
        if job.fault():
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder, console):
                fault = job.fault()  # none if another process has just downloaded it
                if fault and job.target.exists():
                    console.warn(f"{job.target}: {fault}; downloading it again.")
                if fault:
                    job.run()
    except OSError as error:
        reason = f"{error.strerror or error} (RESIDUA_CACHE sets another folder)"
        raise job.error(f"cannot be saved in {folder}: {reason}") from error
    return job.target


class _Download:
    """One file and its place in the cache. Methods raise OSError if the disk fails."""

    def __init__(self, address: str, target: Path, digest: str, console: Console) -> None:
        self.address, self.target, self.digest, self.console = address, target, digest, console
        self.part = target.with_name(f"{target.name}.part")

    def error(self, reason: str) -> ResiduaError:
        """The error for the user: the reason, and every way out."""
        return ResiduaError(
            f"{self.address}: {reason}. Try again later; or download the file elsewhere and give "
            f"its path instead of imagenet:NAME, or save it as {self.target}."
        )

    def fault(self) -> str:
        """Why the file in the cache cannot be used; "" if it can."""
        if not self.target.is_file():
            return "does not exist"
        record = self._record(self.target)
        expected = record.digest if record else self.digest
        actual = file_hash(self.target, expected)
        if expected:
            matches = actual.startswith(expected)
            return "" if matches else f"has the hash {actual} instead of {expected}"
        if _record_path(self.target).exists():
            return f"was not downloaded from {self.address}"
        self.console.print(
            f"{self.target}: was added by hand; no hash of it is published, so its own, "
            f"{actual}, is required from now on."
        )
        size = self.target.stat().st_size
        _write_record(self.target, _Record(self.address, self.digest, size, actual, "", ""))
        return ""

    def run(self) -> None:
        """Download to FILE.part, verify, rename. Raises ResiduaError."""
        with self.console.bar(f"{self.target.name}, bytes") as move:
            record = self._fetch(move)
        expectations = [(self.digest, "its publisher states"), (record.digest, "its server states")]
        if earlier := self._record(self.target):
            path = _record_path(self.target)
            expectations.append(
                (earlier.digest, f"{path} (delete it if you trust the new file) records")
            )
        for expected, source in expectations:
            if expected and not (actual := file_hash(self.part, expected)).startswith(expected):
                self._discard()
                raise self.error(
                    f"the downloaded file has the hash {actual}, but {source} {expected}; it is "
                    "another file or was damaged in transit, and was deleted"
                )
        _write_record(self.target, replace(record, digest=file_hash(self.part, "")))
        self.part.replace(self.target)
        self._discard()

    def _fetch(self, move: Move) -> _Record:
        """Complete FILE.part, with retries; the server's record of it. Raises ResiduaError."""
        for wait in _WAITS:
            with contextlib.suppress(_AttemptFailedError):
                return self._attempt(move)
            time.sleep(wait)
        try:
            return self._attempt(move)
        except _AttemptFailedError as error:
            raise self.error(str(error)) from error

    def _attempt(self, move: Move) -> _Record:
        """Request what is missing, once. Raises _AttemptFailedError, ResiduaError."""
        known = self._record(self.part)
        have = self.part.stat().st_size if self.part.exists() else 0
        # Without an etag or a hash, nothing would reveal that two parts are of different files.
        if known is None or have > known.size or not (known.etag or known.digest or self.digest):
            self._discard()
            known, have = None, 0
        elif have == known.size:
            return known
        headers = {"User-Agent": "residua", "Accept-Encoding": "identity"}
        if known and have:
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": known.etag} if known.etag else {}
        with self._request(headers) as response:
            announced = self._announced(response)
            if response.status == HTTPStatus.PARTIAL_CONTENT:
                start = response.headers["Content-Range"].partition("-")[0]
                if announced != known or start != f"bytes {have}":
                    self._discard()
                    raise _AttemptFailedError("the file changed during the download")
            else:
                self._discard()
                have = 0
                _write_record(self.part, announced)
            self._receive(response, have, announced.size, move)
        return announced

    def _request(self, headers: dict[str, str]) -> HTTPResponse:
        """A response with content, and with the Hugging Face headers of its redirects.

        Raises _AttemptFailedError, ResiduaError.
        """
        redirects = _SecureRedirects()
        request = Request(self.address, headers=headers)
        try:
            response = build_opener(redirects).open(request, timeout=_TIMEOUT)
        except HTTPError as error:
            error.close()
            reason = f"the server responds with {error.code} {error.reason}"
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._discard()
            elif error.code < 500 and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise self.error(reason) from error
            raise _AttemptFailedError(reason) from error
        except (OSError, HTTPException) as error:
            reason = f"the server cannot be reached: {getattr(error, 'reason', error)}"
            raise _AttemptFailedError(reason) from error
        for name, value in redirects.hub_headers.items():
            response.headers[name] = value
        return response  # type: ignore[no-any-return]

    def _announced(self, response: HTTPResponse) -> _Record:
        """The record of the complete file according to the headers. Raises ResiduaError."""
        headers = response.headers
        if headers.get_content_type() == "text/html":
            raise self.error("the server sends a web page instead of the file")
        partial = response.status == HTTPStatus.PARTIAL_CONTENT
        length = headers["Content-Range" if partial else "Content-Length"]
        size = str(length).rpartition("/")[2]
        if not size.isdecimal() or not int(size):
            raise self.error("the server does not announce the size of the file")
        linked, etag = headers.get("X-Linked-Etag", "").strip('"'), headers.get("ETag", "")
        digest = f"sha256:{linked}" if re.fullmatch("[0-9a-f]{64}", linked) else ""
        commit = headers.get("X-Repo-Commit", "")
        etag = "" if etag.startswith("W/") else etag  # a weak one does not imply equal bytes
        return _Record(self.address, self.digest, int(size), digest, commit, etag)

    def _receive(self, response: HTTPResponse, have: int, size: int, move: Move) -> None:
        """Append bytes `have` to `size` to FILE.part. Raises _AttemptFailedError, ResiduaError."""
        first, started = have, time.monotonic()
        with self.part.open("ab") as stream:
            while have < size:
                interrupted = f"interrupted after {have:,} of {size:,} bytes, which are saved"
                try:
                    chunk = response.read1(min(_CHUNK, size - have))  # never more than announced
                except (OSError, HTTPException) as error:
                    raise _AttemptFailedError(f"{interrupted}: {error}") from error
                if not chunk:
                    raise _AttemptFailedError(interrupted)
                if not have and _WEB_PAGE.match(chunk):
                    self._discard()
                    raise self.error("the server sends a web page instead of the file")
                stream.write(chunk)
                have += len(chunk)
                speed = (have - first) / 1e6 / max(time.monotonic() - started, 1e-3)
                move(have, size, f"{speed:.1f} MB/s")
            stream.flush()
            os.fsync(stream.fileno())  # before the rename, lest a power cut leave an empty file

    def _record(self, path: Path) -> _Record | None:
        """The record of FILE or FILE.part, if it is of this address and published hash."""
        try:
            record = _Record(**json.loads(_record_path(path).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        same = (record.address, record.published) == (self.address, self.digest)
        return record if same else None

    def _discard(self) -> None:
        """Delete FILE.part and its record."""
        self.part.unlink(missing_ok=True)
        _record_path(self.part).unlink(missing_ok=True)


class _SecureRedirects(HTTPRedirectHandler):
    """Follows redirects, but none from https to http; collects Hugging Face headers on the way."""

    def __init__(self) -> None:
        self.hub_headers: dict[str, str] = {}

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """The request that follows. Raises HTTPError."""
        new = urlsplit(newurl)
        if new.scheme not in ("https", urlsplit(req.full_url).scheme):
            msg = f"{msg}, to {new.scheme}://{new.netloc}, which is less secure"
            raise HTTPError(newurl, code, msg, headers, fp)
        self.hub_headers |= {name: headers[name] for name in _HUB_HEADERS if name in headers}
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _locked(folder: Path, console: Console) -> contextlib.AbstractContextManager[object]:
    """Only one process downloads at a time; the others wait. A killed process frees the lock."""
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        console.print(f"{folder}: waiting for another process that is downloading.")
        return lock.acquire()


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_record(path: Path, record: _Record) -> None:
    """Write the record of FILE or FILE.part. Raises OSError."""
    try:
        write_atomically(_record_path(path), json.dumps(asdict(record), indent=1) + "\n")
    except ResiduaError as error:
        raise error.__cause__ or error from None  # its advice is about runs


def file_hash(path: Path, like: str) -> str:
    """The complete hash of a file, by the algorithm of `like`, else SHA-256. Raises OSError."""
    algorithm = like.partition(":")[0] or "sha256"
    with path.open("rb") as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"
