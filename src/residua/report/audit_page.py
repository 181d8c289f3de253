"""An Audit -> one HTML file with its findings and their images, or their part of a report."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from residua.audits.audit import Audit
from residua.audits.finding import EXAMPLES, Finding
from residua.data.dataset import Pixels, Unreadable
from residua.data.prepared import Prepared
from residua.report import view
from residua.system.files import check_output, shown_path, user_path, write_atomically

IN_REPORT = 6  # images of a finding in the report of a run


@dataclass(frozen=True)
class ShownFindings:
    """Findings of an audit, and path -> data URI of their images, at most `most` of each.

    all_images: the file or command that lists all. command: that checks the labels of all images.
    """

    audit: Audit
    findings: Sequence[Finding]
    uris: dict[str, str]
    most: int
    all_images: str
    command: str = ""


def write(audit: Audit, path: str | Path) -> Path:
    """Write the page, a .html file outside the data folder. Raises ResiduaError."""
    target = user_path(path)
    check_output(target, (".html",), [audit.data])
    write_atomically(target, render(audit))
    return target


def render(audit: Audit) -> str:
    """The page as one HTML document."""
    return view.html("audit", audit=audit, shown=shown_findings(audit, EXAMPLES))


def shown_findings(audit: Audit, most: int) -> ShownFindings:
    """All findings, each with at most `most` of its images."""
    rows = {path: row for row, path in enumerate(audit.measured.paths)}
    uris = _data_uris(audit.findings, most, rows, audit.measured.pixels)
    return ShownFindings(audit, audit.findings, uris, most, "residua audit DATA --json")


def shown_in_report(audit: Audit, prepared: Prepared) -> ShownFindings | None:
    """The findings for a report, with images at the network's input size; None without any, if the
    labels of all images were checked."""
    findings = audit.beyond_files
    if not findings and not audit.coverage:
        return None
    rows = {entry.path: row for row, entry in enumerate(prepared.dataset.entries)}
    uris = _data_uris(findings, IN_REPORT, rows, prepared.pixels.__getitem__)
    command = f"residua audit {shlex.quote(shown_path(prepared.config.data.path))}"
    return ShownFindings(audit, findings, uris, IN_REPORT, "audit.json", command)


def _data_uris(
    findings: Sequence[Finding], most: int, rows: dict[str, int], pixels: Callable[[int], Pixels]
) -> dict[str, str]:
    """Path -> data URI of the first `most` images of each finding that can be read."""
    uris: dict[str, str] = {}
    for finding in findings:
        for example in finding.examples[:most]:
            if example.path in rows and example.path not in uris:
                with contextlib.suppress(Unreadable):
                    uris[example.path] = view.data_uri(pixels(rows[example.path]))
    return uris
