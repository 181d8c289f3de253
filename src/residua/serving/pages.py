"""A model -> the page of the server; an OpenAPI description -> a page that shows it.

Both are complete in themselves: styles and scripts are inline, and a content security policy
forbids every other source, so no request leaves the machine.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

from residua.serving.limits import Limits
from residua.serving.service import Model


def start_page(model: Model, limits: Limits, *, needs_token: bool) -> HTMLResponse:
    """The page at /: images in, classes out."""
    return _render(
        "serve.html.j2",
        name=model.name,
        classes=len(model.classes) or model.outputs,
        limits=limits,
        largest=_size(limits.bytes),
        needs_token=needs_token,
        explains=model.heat_map is not None,
    )


def docs_page(openapi: dict[str, Any]) -> HTMLResponse:
    """The page at /docs: every route of the server."""
    routes = [
        (method.upper(), path, route)
        for path, methods in openapi["paths"].items()
        for method, route in methods.items()
    ]
    return _render("serve_docs.html.j2", title=openapi["info"]["title"], routes=routes)


def _render(template: str, **values: object) -> HTMLResponse:
    """A page with its content security policy: inline code by its hash, images from memory, and
    requests to the own server."""
    environment = Environment(
        loader=PackageLoader("residua"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template(template).render(values)
    policy = (
        f"default-src 'none'; script-src {_hashes(html, 'script')}; "
        f"style-src {_hashes(html, 'style')}; img-src blob:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(html, headers=headers)


def _size(count: int) -> str:
    """Bytes in words, rounded down."""
    return f"{count // 2**20:,} MB" if count >= 2**20 else f"{count // 2**10:,} kB"


def _hashes(html: str, tag: str) -> str:
    """The sources of a policy that allow the inline code of <tag> alone."""
    codes = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()) for code in codes]
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"
