"""An Audit -> one HTML file with its findings and their images, or their part of a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    """Findings, and path -> data URI of the images that are shown, at most `most` of each.

    all_images: the file or command that lists all. label_check, coverage: of the audit. command:
    that checks the labels of all images.
    """

    findings: Sequence[Finding]
    uris: dict[str, str]
    most: int
    all_images: str
    label_check: str
    coverage: str = ""
    command: str = ""


def write(audit: Audit, path: str | Path) -> Path:
    """Write the page, a .html file outside the data folder. Raises ResiduaError."""
    target = user_path(path)
    check_output(target, (".html",), [audit.data])
    write_atomically(target, render(audit))
    return target


def render(audit: Audit) -> str:
    """The page as one HTML document."""
    return view.page("audit", audit=audit, shown=shown_findings(audit, EXAMPLES))


def shown_findings(audit: Audit, most: int) -> ShownFindings:
    """All findings, each with at most `most` of its images."""
    rows = {path: row for row, path in enumerate(audit.measured.paths)}
    command = "residua audit DATA --json"
    pixels = audit.measured.pixels
    return _shown(audit, audit.findings, lambda path: pixels(rows[path]), rows, most, command)


def shown_in_report(audit: Audit, prepared: Prepared) -> ShownFindings | None:
    """The findings for a report, with images at the network's input size; None without any, if the
    labels of all images were checked."""
    rows = {entry.path: row for row, entry in enumerate(prepared.dataset.entries)}
    findings = audit.beyond_files
    if not findings and not audit.coverage:
        return None
    file, pixels = "audit.json", prepared.pixels
    shown = _shown(audit, findings, lambda path: pixels[rows[path]], rows, IN_REPORT, file)
    command = f"residua audit {shlex.quote(shown_path(prepared.config.data.path))}"
    return replace(shown, coverage=audit.coverage, command=command)


def _shown(
    audit: Audit,
    findings: Sequence[Finding],
    pixels: Callable[[str], Pixels],
    known: dict[str, int],
    most: int,
    all_images: str,
) -> ShownFindings:
    uris: dict[str, str] = {}
    for finding in findings:
        for example in finding.examples[:most]:
            if example.path in known and example.path not in uris:
                try:
                    uris[example.path] = view.data_uri(pixels(example.path))
                except Unreadable:
                    continue
    return ShownFindings(findings, uris, most, all_images, audit.label_check)
