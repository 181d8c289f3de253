"""A request -> the same request within the limits, or a refusal in JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from residua.serving.limits import Limits, Refused
from residua.serving.metrics import Metrics
from residua.serving.responses import Json

OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # without a token: they reveal nothing
DRAIN_SECONDS = 5.0  # a refused upload is still read for a while, else the client sees a reset
CLOSED = 499  # status in the metrics if the client has gone


class Guard:
    """ASGI middleware: token, concurrency, bytes, time, and errors without a traceback."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        token: str | None,
        metrics: Metrics,
        report: Callable[[str], None],
    ) -> None:
        """report: prints an error for the operator."""
        self.app, self.limits, self.token = app, limits, token
        self.metrics, self.report = metrics, report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, unread = time.monotonic(), CLOSED, True

        async def counted_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = message.get("more_body", False)
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.active += 1
        try:
            refusal = await self._serve(scope, counted_receive, counted_send)
            if refusal is not None and status == CLOSED:
                if refusal.status == 413 and unread:
                    await _drain(receive)
                response = Json({"error": refusal.reason}, refusal.status, refusal.headers)
                await response(scope, receive, counted_send)
        finally:
            self.metrics.active -= 1
            path = getattr(scope.get("route"), "path", "other")  # few different ones
            self.metrics.request(path, status, time.monotonic() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Refused | None:
        """Run the application; the refusal, if there is one."""
        received = 0

        async def limited_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limits.bytes:
                raise self._too_large()
            return message

        try:
            self._check(scope)
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, limited_receive, send)
        except Refused as refusal:
            return refusal
        except TimeoutError:
            seconds = f"{self.limits.seconds:g}"
            return Refused(
                503,
                f"not finished within {seconds} s: try again in 5 s, or with fewer images",
                retry_after=5,
            )
        except ClientDisconnect:
            return None
        except Exception as error:
            self.report(f"{scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            return Refused(500, "internal error; the log of the server has the reason")
        return None

    def _check(self, scope: Scope) -> None:
        """Raise Refused by the request's headers alone."""
        headers = dict(scope["headers"])
        if self.token is not None and scope["path"] not in OPEN:
            expected = f"Bearer {self.token}".encode()
            if not hmac.compare_digest(headers.get(b"authorization", b""), expected):
                raise Refused(
                    401,
                    "the bearer token is missing or wrong: expected the header Authorization: "
                    "Bearer TOKEN, with the token that the server was started with",
                )
        if scope["method"] != "POST":
            return
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        if encoding.lower() != "identity":
            raise Refused(415, f"content encoding {encoding}: send the body uncompressed")
        if self.metrics.active > self.limits.requests:
            raise Refused(
                429,
                f"more than {self.limits.requests:,} requests at the same time: try again in 1 s",
                retry_after=1,
            )
        with contextlib.suppress(ValueError):
            if int(headers.get(b"content-length", b"0")) > self.limits.bytes:
                raise self._too_large()

    def _too_large(self) -> Refused:
        return Refused(
            413,
            f"the request has more than {self.limits.bytes:,} bytes: send fewer images in a "
            "request, or smaller files",
        )


async def _drain(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await receive()).get("more_body"):
                pass
