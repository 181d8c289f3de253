"""The limits of the server, and its refusals; a client never receives a traceback.

Status codes: 401 no token, 413 too large, 415 not an accepted content type, 422 not an image or not
a tensor of the right shape, 429 too many requests, 503 too slow or shutting down.
"""

from __future__ import annotations

from dataclasses import dataclass

from residua.config.schema import Data


@dataclass(frozen=True)
class Limits:
    """Limits of the requests.

    bytes: of a request. pixels: of an image, before it is decoded. images: of a request. seconds:
    from the first byte of a request to its result. requests: at the same time; more get 429.
    waiting: images that wait for the network; more get 429. batch: images per forward pass.
    delay: seconds that an image may wait for others, which are being decoded, to fill a batch.
    """

    bytes: int = 32 * 2**20
    pixels: int = Data.max_pixels
    images: int = 64
    seconds: float = 30.0
    requests: int = 32
    waiting: int = 512
    batch: int = 32
    delay: float = 0.005

    def too_many(self, images: int) -> Refused:
        """The refusal of a request with this number of images."""
        return Refused(
            413, f"{images:,} images: at most {self.images:,} per request; send several requests"
        )


class Refused(Exception):  # noqa: N818 - a response, not a fault of the program
    """A request that is not served: status, reason, and seconds after which to try again."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_after = status, reason, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
