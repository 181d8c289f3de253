"""The command `audit`: DATA -> findings as text or JSON, an HTML page, a fix list."""

from __future__ import annotations

from typing import Annotated

import typer

from residua.cli.common import DataArgument, JsonOption, print_json, print_text, terminal
from residua.cli.options import parse_assignments
from residua.system.words import counted


def audit(
    data: DataArgument,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write an HTML page with the images.")
    ] = None,
    fix_list: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a CSV file of proposed fixes (exclude, relabel) for `train --fixes`.",
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            metavar="GROUPS",
            help="Images that must share a split: folder, a column of a table, a regular "
            "expression on paths, or FILE.csv:COLUMN.",
            show_default=False,
        ),
    ] = "",
    seconds: Annotated[
        float,
        typer.Option(
            metavar="N",
            min=0,
            help="Time limit for computing features that are not cached; labels are checked on "
            "images with features only. 0: compute none.",
        ),
    ] = 60.0,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Columns of a table, e.g. data.label_column=breed; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check DATA before training: damaged files, copies, label errors, shortcuts.

    Reads every image; writes nothing into the data folder.

    Examples:
      residua audit photos
      residua audit photos --html audit.html --fix-list fixes.csv
      residua audit scans --group-by "patient(\\d+)"
    """
    with terminal() as console:
        from residua.audits.audit import audit as audited
        from residua.report.audit_page import write
        from residua.system.files import check_output, user_path

        settings = parse_assignments(assignments)
        for file, ending in ((html, ".html"), (fix_list, ".csv")):
            if file is not None:
                check_output(user_path(file), (ending,), [data])
        found = audited(data, group_by=group_by, seconds=seconds, settings=settings, quiet=False)
        if as_json:
            print_json(found.to_json())
        else:
            print_text(found.text())
        if html is not None:
            console.print(f"page: {write(found, html)}")
        if fix_list is not None:
            count = found.write_fixes(fix_list)
            advice = "; review before training" if count else ""
            console.print(f"{fix_list}: {counted(count, 'proposed fix', 'proposed fixes')}{advice}")
