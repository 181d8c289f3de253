"""An Audit -> one HTML file with its findings and their images, without scripts or requests."""

from __future__ import annotations

import re
from pathlib import Path

from residua.audits.audit import Audit
from residua.audits.finding import EXAMPLES
from residua.data.dataset import Unreadable
from residua.report import view
from residua.system.files import check_output, user_path, write_atomically

# Controls, and the halves of undecodable file names: HTML forbids them
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def write(audit: Audit, path: str | Path) -> Path:
    """Write the page, a .html file outside the data folder. Raises ResiduaError."""
    target = user_path(path)
    check_output(target, (".html",), [audit.data])
    write_atomically(target, render(audit))
    return target


def render(audit: Audit) -> str:
    """The page as one HTML document."""
    template = view.templates().get_template("audit.html.j2")
    text = template.render(audit=audit, uris=_images(audit), most=EXAMPLES)
    return _FORBIDDEN.sub("\ufffd", text)


def _images(audit: Audit) -> dict[str, str]:
    """Path -> data URI of each image that the page shows, if it can be read."""
    rows = {path: row for row, path in enumerate(audit.measured.paths)}
    found: dict[str, str] = {}
    for finding in audit.findings:
        for example in finding.examples[:EXAMPLES]:
            if example.path in rows and example.path not in found:
                try:
                    found[example.path] = view.data_uri(audit.measured.pixels(rows[example.path]))
                except Unreadable:
                    continue
    return found
