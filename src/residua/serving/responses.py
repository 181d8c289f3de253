"""A value of plain data -> a JSON response that every client can read; its OpenAPI description."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}
POST_REFUSALS = (401, 413, 415, 422, 429, 503)  # refusals of a request with a body
REASONS = {
    401: "the bearer token is missing",
    404: "the server has another model",
    413: "the request is too large",
    415: "the content type or encoding is not accepted",
    422: "the request has no valid input",
    429: "too many requests or images wait; Retry-After",
    503: "not finished in time, or shutting down; Retry-After",
}


class Json(JSONResponse):
    """JSON in ASCII: a client can put into a request what UTF-8 has no bytes for."""

    def render(self, content: Any) -> bytes:
        """See Starlette's JSONResponse."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The entries of an OpenAPI description for refusals with these status codes."""
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": REASONS[status], "content": content} for status in statuses}


def request_body(schemas: dict[str, dict[str, object]]) -> dict[str, Any]:
    """The request body of a route in the OpenAPI description. schemas: by content type."""
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}
