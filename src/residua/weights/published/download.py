"""An address and the hash that its publisher prints -> the file in the cache, whole and verified.

Beside FILE lies FILE.json, the record of what it is: every later use must find those bytes, and
every later download must bring them. What has arrived of an unfinished file waits as FILE.part,
and FILE.part.json says of which file it is a part, so that a killed download goes on.

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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from residua.errors import ResiduaError
from residua.system.console import Console
from residua.system.files import write_atomically

_WAITS = (0.5, 1.0, 2.0)  # seconds before each further attempt
_SILENCE = 30.0  # seconds without an answer or a byte that end an attempt
_CHUNK = 2**18
# "<" alone may be the low byte of a length, with which a safetensors file begins.
_PAGE = re.compile(rb"\s*<[!?a-z]{2}", re.IGNORECASE)
_OF_THE_HUB = ("X-Repo-Commit", "X-Linked-Etag")  # the second is the SHA-256 of a large file

Move = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Record:
    """What is known of a file: beside FILE.part what its server says, beside FILE what it is.

    published: the hash that was asked for. size: bytes. digest: the whole SHA-256. commit: of the
    hub's repository. etag: a strong one. "" stands for what nobody has said.
    """

    address: str
    published: str
    size: int
    digest: str
    commit: str
    etag: str


class _BrokenError(Exception):
    """An attempt failed in a way that may pass; the message says how."""


def download(address: str, file: str, digest: str, folder: Path, console: Console) -> Path:
    """The path of `file` in `folder`, downloaded from `address` unless it is there and verified.

    digest: the hash that the content must have; "": learnt at the first download, from the server
    where it says one, and demanded from then on. A verified file needs no network. Raises
    ResiduaError, in one sentence that says what else can be done.
    """
    job = _Job(address, folder / file, digest, console)
    try:
        if job.fault():
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder, console):
                fault = job.fault()  # none if another process has brought it meanwhile
                if fault and job.target.exists():
                    console.warn(f"{job.target}: {fault}; it is downloaded again.")
                if fault:
                    job.bring()
    except OSError as error:
        reason = f"{error.strerror or error} (RESIDUA_CACHE names another folder)"
        raise job.refusal(f"cannot be kept in {folder}: {reason}") from error
    return job.target


class _Job:
    """One file on its way into the cache. Its methods raise OSError where the disk fails."""

    def __init__(self, address: str, target: Path, digest: str, console: Console) -> None:
        self.address, self.target, self.digest, self.console = address, target, digest, console
        self.part = target.with_name(f"{target.name}.part")

    def refusal(self, reason: str) -> ResiduaError:
        """The error for the user: what happened, and every way out."""
        return ResiduaError(
            f"{self.address}: {reason}. Try again later; or fetch the file in another way and give "
            f"its path (--weights FILE), or put it at {self.target}, where it is looked for."
        )

    def fault(self) -> str:
        """Why the file in the cache cannot be used; "" if it can be."""
        if not self.target.is_file():
            return "is not there"
        record = self._record(self.target)
        wanted = record.digest if record else self.digest
        found = _hash(self.target, wanted)
        if wanted:
            return "" if found.startswith(wanted) else f"has the hash {found} instead of {wanted}"
        if _beside(self.target).exists():
            return f"was not downloaded from {self.address}"
        self.console.print(
            f"{self.target}: was put there, no hash of it is published: it is {found}."
        )
        size = self.target.stat().st_size
        _store(self.target, _Record(self.address, self.digest, size, found, "", ""))
        return ""

    def bring(self) -> None:
        """Download, verify, rename. Raises ResiduaError."""
        with self.console.bar(f"{self.target.name}, bytes") as move:
            record = self._arrive(move)
        checks = [(self.digest, "its publisher prints"), (record.digest, "its server announced")]
        if earlier := self._record(self.target):
            who = f"{_beside(self.target)} (delete it if you trust the new file) records"
            checks.append((earlier.digest, who))
        for wanted, who in checks:
            if wanted and not (found := _hash(self.part, wanted)).startswith(wanted):
                self._discard()
                raise self.refusal(
                    f"what came has the hash {found}, but {who} {wanted}; it is another file or "
                    "was damaged on its way, and was deleted"
                )
        _store(self.target, replace(record, digest=_hash(self.part, "")))
        self.part.replace(self.target)
        self._discard()

    def _arrive(self, move: Move) -> _Record:
        """Attempts until FILE.part is whole; what is said of it."""
        for wait in _WAITS:
            with contextlib.suppress(_BrokenError):
                return self._attempt(move)
            time.sleep(wait)
        try:
            return self._attempt(move)
        except _BrokenError as error:
            raise self.refusal(str(error)) from error

    def _attempt(self, move: Move) -> _Record:
        """Ask once for what is missing. Raises _BrokenError, ResiduaError."""
        known = self._record(self.part)
        have = self.part.stat().st_size if self.part.exists() else 0
        # Parts of two files may only meet where the server or a hash would tell.
        if known is None or have > known.size or not (known.etag or known.digest or self.digest):
            self._discard()
            known, have = None, 0
        elif have == known.size:
            return known
        headers = {"User-Agent": "residua", "Accept-Encoding": "identity"}
        if known and have:
            headers["Range"] = f"bytes={have}-"
            headers |= {"If-Range": known.etag} if known.etag else {}
        with self._answer(headers) as answer:
            said = self._said(answer)
            if answer.status == HTTPStatus.PARTIAL_CONTENT:
                start = answer.headers["Content-Range"].partition("-")[0]
                if said != known or start != f"bytes {have}":
                    self._discard()
                    raise _BrokenError("the file has changed while it was downloaded")
            else:
                self._discard()
                have = 0
                _store(self.part, said)
            self._receive(answer, have, said.size, move)
        return said

    def _answer(self, headers: dict[str, str]) -> HTTPResponse:
        """An answer with content, and what the hub said on the way in its headers."""
        hops = _Hops()
        request = Request(self.address, headers=headers)
        try:
            answer = build_opener(hops).open(request, timeout=_SILENCE)
        except HTTPError as error:
            error.close()
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._discard()
            elif error.code < 500 and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise self.refusal(reason) from error
            raise _BrokenError(reason) from error
        except (OSError, HTTPException) as error:
            reason = f"the server cannot be reached: {getattr(error, 'reason', error)}"
            raise _BrokenError(reason) from error
        for name, value in hops.said.items():
            answer.headers[name] = value
        return answer  # type: ignore[no-any-return]

    def _said(self, answer: HTTPResponse) -> _Record:
        """What the headers of an answer say of the whole file. Raises ResiduaError."""
        headers = answer.headers
        if headers.get_content_type() == "text/html":
            raise self.refusal("the server sends a web page instead of the file")
        partial = answer.status == HTTPStatus.PARTIAL_CONTENT
        length = headers["Content-Range" if partial else "Content-Length"]
        size = str(length).rpartition("/")[2]
        if not size.isdecimal() or not int(size):
            raise self.refusal("the server does not say how long the file is")
        linked, etag = headers.get("X-Linked-Etag", "").strip('"'), headers.get("ETag", "")
        digest = f"sha256:{linked}" if re.fullmatch("[0-9a-f]{64}", linked) else ""
        commit = headers.get("X-Repo-Commit", "")
        etag = "" if etag.startswith("W/") else etag  # a weak one does not promise equal bytes
        return _Record(self.address, self.digest, int(size), digest, commit, etag)

    def _receive(self, answer: HTTPResponse, have: int, size: int, move: Move) -> None:
        """Append bytes `have` to `size` to FILE.part. Raises _BrokenError, ResiduaError."""
        first, began = have, time.monotonic()
        with self.part.open("ab") as stream:
            while have < size:
                where = f"broke off at {have:,} of {size:,} bytes, which are kept"
                try:
                    chunk = answer.read1(min(_CHUNK, size - have))  # never more than announced
                except (OSError, HTTPException) as error:
                    raise _BrokenError(f"{where}: {error}") from error
                if not chunk:
                    raise _BrokenError(where)
                if not have and _PAGE.match(chunk):
                    self._discard()
                    raise self.refusal("the server sends a web page instead of the file")
                stream.write(chunk)
                have += len(chunk)
                rate = (have - first) / 1e6 / max(time.monotonic() - began, 1e-3)
                move(have, size, f"{rate:.1f} MB/s")
            stream.flush()
            os.fsync(stream.fileno())  # before the name, or a power cut leaves the name alone

    def _record(self, path: Path) -> _Record | None:
        """The record of a file or part, unless it is of another address or published hash."""
        try:
            record = _Record(**json.loads(_beside(path).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        ours = (record.address, record.published) == (self.address, self.digest)
        return record if ours else None

    def _discard(self) -> None:
        """Remove FILE.part and its record."""
        self.part.unlink(missing_ok=True)
        _beside(self.part).unlink(missing_ok=True)


class _Hops(HTTPRedirectHandler):
    """Follows redirects, but not to less security; keeps what the hub says before it redirects."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """The request that follows. Raises HTTPError."""
        new = urlsplit(newurl)
        if new.scheme not in ("https", urlsplit(req.full_url).scheme):
            msg = f"{msg}, to {new.scheme}://{new.netloc}, which is less secure"
            raise HTTPError(newurl, code, msg, headers, fp)
        self.said |= {name: headers[name] for name in _OF_THE_HUB if name in headers}
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextlib.contextmanager
def _alone(folder: Path, console: Console) -> Iterator[None]:
    """Held while this process downloads; others wait. If it is killed, the system lets go of it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: nothing stops a second process there
        yield
        return
    with (folder / ".lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"{folder}: another process is downloading; waiting for it.")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _beside(path: Path) -> Path:
    """Where the record of a file or a part lies."""
    return path.with_name(f"{path.name}.json")


def _store(path: Path, record: _Record) -> None:
    """Write the record of a file or a part. Raises OSError."""
    try:
        write_atomically(_beside(path), json.dumps(asdict(record), indent=1) + "\n")
    except ResiduaError as error:
        raise error.__cause__ or error from None  # its advice is about runs


def _hash(path: Path, like: str) -> str:
    """The whole hash of a file's content, of the kind of `like`. Raises OSError."""
    kind = like.partition(":")[0] or "sha256"
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"
