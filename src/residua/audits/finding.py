"""A problem of a data set as plain data: what, how many, which images, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from residua.data.fixes import Fix

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # the worst first
EXAMPLES = 12  # images of a finding that are shown


@dataclass(frozen=True)
class Example:
    """An image of a finding. path: relative to the data set. note: why it is one."""

    path: str
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    kind: a stable name, such as "near-duplicates-across-splits".
    severity: "error" makes metrics or labels wrong, "warning" probably does, "note" may matter.
    title: what was found, in a sentence. count: of images, or of what the title names.
    action: what to do. details: what the title sums up, a line each, the worst first.
    examples: the clearest first. fixes: proposed lines of the fix list.
    """

    kind: str
    severity: Severity
    title: str
    count: int
    action: str
    examples: tuple[Example, ...] = ()
    fixes: tuple[Fix, ...] = ()
    details: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, with all examples."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "title": self.title,
            "count": self.count,
            "action": self.action,
            "details": list(self.details),
            "examples": [{"path": e.path, "note": e.note} for e in self.examples],
            "fixes": len(self.fixes),
        }
