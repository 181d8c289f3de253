"""Settings that have a flag -> options of a command, in panels; --set for all the others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from residua.config import parse
from residua.errors import UsageError

PANELS = {  # of a section, or of a single setting
    "data": "Data",
    "preprocessing": "Data",
    "augmentation": "Data",
    "network": "Model",
    "network.weights": "Transfer",
    "network.new_head": "Transfer",
    "network.freeze": "Transfer",
    "transfer": "Transfer",
    "optimization": "Optimization",
    "training": "Training",
    "training.save_every": "Output",
    "training.tensorboard": "Output",
    "training.track": "Output",
}
OUTPUT = "Output"
METAVARS = {  # where a type is too vague, or a list of choices is too wide
    "network.head": "HEAD",
    "network.name": "NAME",
    "network.weights": "SOURCE",
    "preprocessing.size": "PX",
    "training.device": "DEVICE",
    "transfer.budget": "TIME",
    "transfer.effort": "quick|standard|best",
    "transfer.strategy": "STRATEGY",
}

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any other setting, e.g. optimization.momentum=0.8; may be repeated.",
        show_default=False,
    ),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the argument `settings` of `command` by an option for every setting with a flag.

    `command` receives the values that were set, by dotted name; --set reaches all other settings.
    """
    flags = {name: flag for flag, name in parse.flags().items()}
    options = []
    names = {}  # parameter -> dotted name
    for name in sorted(flags, key=_panel_order):
        old_flag = parse.field_of(name).metadata["old_flag"]
        options.append(_parameter(flags[name], name))
        names[options[-1].name] = name
        if old_flag:
            options.append(_parameter(old_flag, name, hidden=True))
            names[options[-1].name] = name
    assignments = inspect.Parameter(
        "assignments", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=SetOption
    )
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        is_own = parameter.name != "settings"
        parameters += [parameter] if is_own else [assignments, *options]

    def run(**values: Any) -> None:
        settings = parse_assignments(values.pop("assignments", None))
        for option, name in names.items():
            value = values.pop(option)
            if value is not None:
                settings[name] = value
        command(settings=settings, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__doc__, run.__name__ = command.__doc__, command.__name__
    return run


def parse_assignments(assignments: Iterable[str] | None) -> dict[str, object]:
    """Values of --set FIELD=VALUE by dotted name. Raises UsageError."""
    settings: dict[str, object] = {}
    for assignment in assignments or ():
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected SECTION.FIELD=VALUE.")
        settings[name.strip()] = value.strip()
    return settings


def hint_of_setting(option: str) -> str:
    """How to set what an unknown option such as --ordering names, "" if it names no setting."""
    key = option.lstrip("-").replace("-", "_")
    options = [
        f"{field.metadata['flag']} VALUE" if field.metadata["flag"] else f"--set {name}=VALUE"
        for name, field in parse.all_settings().items()
        if name.rpartition(".")[2] == key
    ]
    return f". Use {' or '.join(options)}" if options else ""


def _panel(name: str) -> str:
    return PANELS.get(name) or PANELS[name.partition(".")[0]]


def _panel_order(name: str) -> int:
    return list(dict.fromkeys(PANELS.values())).index(_panel(name))


def _parameter(flag: str, name: str, *, hidden: bool = False) -> inspect.Parameter:
    item = parse.field_of(name)
    is_switch = isinstance(item.default, bool)
    option = typer.Option(
        flag,
        help=item.metadata["help"].replace("[", r"\[") + _default(item.default),
        metavar=None if is_switch else METAVARS.get(name) or parse.kind_of(name),
        show_default=False,
        hidden=hidden,
        rich_help_panel=_panel(name),
    )
    return inspect.Parameter(
        flag.strip("-").replace("-", "_"),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[bool | None if is_switch else str | None, option],
    )


def _default(default: object) -> str:
    """The default as --help shows it; switches, empty and missing values have none to show."""
    if default is None or default is False or default in ("", ()):
        return ""
    number = f"{default:g}" if isinstance(default, float) else default
    return rf" [dim]\[default: {number}][/dim]"
