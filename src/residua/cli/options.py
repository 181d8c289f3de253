"""Settings that have a flag -> options of a command; and --set for all the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from residua.config import parse
from residua.errors import ResiduaError


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` an option for every setting that has a flag, and --set for all the others."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.name != "given"]
    options = []
    for flag, name in parse.flags().items():
        item = parse.field_of(name)
        is_switch = isinstance(item.default, bool)
        old = (item.metadata["old_flag"],) if item.metadata["old_flag"] else ()
        option = typer.Option(
            flag,
            *old,
            help=f"{item.metadata['help']} [{_shown_default(item.default)}]",
            metavar=None if is_switch else parse.kind_of(name),
            show_default=False,
        )
        kind = bool | None if is_switch else str | None
        options.append(
            inspect.Parameter(
                flag.strip("-").replace("-", "_"),
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[kind, option],
            )
        )

    def collect(**values: Any) -> None:
        given = parsed(values.pop("assignments", None) or ())
        for flag, name in parse.flags().items():
            value = values.pop(flag.strip("-").replace("-", "_"))
            if value is not None:
                given[name] = value
        command(given=given, **values)

    assignments = inspect.Parameter(
        "assignments",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="FIELD=VALUE",
                help="Any other setting, such as optimization.learning_rate=0.05; may be repeated.",
                show_default=False,
            ),
        ],
    )
    collect.__signature__ = inspect.Signature([*own, *options, assignments])  # type: ignore[attr-defined]
    collect.__doc__, collect.__name__ = command.__doc__, command.__name__
    return collect


def parsed(assignments: Iterable[str]) -> dict[str, object]:
    """What --set says, by dotted name. Raises ResiduaError."""
    given: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ResiduaError(f"--set {assignment}: expected SECTION.FIELD=VALUE.")
        given[name.strip()] = value.strip()
    return given


def _shown_default(default: object) -> str:
    return "off" if default is False else str(default)
